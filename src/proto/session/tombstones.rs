//! Flows that ended: a late repeat of one of their segments is answered and never opens them again.

use super::FlowKey;
use crate::base::{Instant, NodeId};
use crate::wire::session::ResetReason;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Epitaph {
    /// Everything below this number was received, and nothing followed.
    Finished(u64),
    /// It was reset by this end for this reason.
    Reset(ResetReason),
    /// It was reset by its sender: nothing is answered.
    Abandoned,
}

/// Flows of any one router that are remembered whatever others do, as long as there is room.
const LEAST: usize = 64;

/// A bounded memory of ended flows. Nothing is forgotten early: a flow opens only if there is a place for its end, which
/// is reserved for it until then.
#[derive(Debug)]
pub(super) struct Tombstones {
    flows: BTreeMap<FlowKey, (Epitaph, Instant)>,
    order: VecDeque<(Instant, FlowKey)>,
    /// Places of flows that have not ended.
    reserved: usize,
    /// Places, reserved or taken, of each router that has any.
    by_node: BTreeMap<NodeId, usize>,
    capacity: usize,
    time: Duration,
}

impl Tombstones {
    pub(super) fn new(capacity: usize, time: Duration) -> Tombstones {
        let (flows, order, by_node) = (BTreeMap::new(), VecDeque::new(), BTreeMap::new());
        Tombstones { flows, order, reserved: 0, by_node, capacity, time }
    }

    /// Whether a flow from this router may open. One router's flows take at most as many places as they leave free.
    pub(super) fn has_room(&mut self, now: Instant, node: NodeId) -> bool {
        self.expire(now);
        let left = self.capacity.saturating_sub(self.order.len() + self.reserved);
        left > 0 && self.by_node.get(&node).copied().unwrap_or(0) < left.max(LEAST)
    }

    /// Places reserved or taken.
    pub(super) fn places(&self) -> usize {
        self.order.len() + self.reserved
    }

    /// Keeps a place for the end of a flow that opens.
    pub(super) fn reserve(&mut self, node: NodeId) {
        self.reserved += 1;
        *self.by_node.entry(node).or_default() += 1;
    }

    /// A flow has ended whose place was reserved.
    pub(super) fn insert(&mut self, now: Instant, key: FlowKey, epitaph: Epitaph) {
        assert!(self.reserved > 0, "a flow that ends has a place");
        self.reserved -= 1;
        self.expire(now);
        self.flows.insert(key, (epitaph, now));
        self.order.push_back((now, key));
        assert!(self.order.len() + self.reserved <= self.capacity, "places are bounded");
    }

    pub(super) fn get(&self, now: Instant, key: &FlowKey) -> Option<Epitaph> {
        let &(epitaph, since) = self.flows.get(key)?;
        (now.since(since) < self.time).then_some(epitaph)
    }

    /// Forgets what is old enough; at most two per call, enough to keep up with one insertion per call.
    fn expire(&mut self, now: Instant) {
        for _ in 0..2 {
            if self.order.front().is_some_and(|(since, _)| now.since(*since) >= self.time) {
                self.forget_oldest();
            }
        }
    }

    fn forget_oldest(&mut self) {
        let Some((since, key)) = self.order.pop_front() else { return };
        if self.flows.get(&key).is_some_and(|(_, newest)| *newest == since) {
            self.flows.remove(&key);
        }
        let node = key.peer.node;
        let places = self.by_node.get_mut(&node).expect("a router that has a place is counted");
        *places -= 1;
        if *places == 0 {
            self.by_node.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::client::Endpoint;

    fn key(node: u64, flow: u32) -> FlowKey {
        FlowKey { peer: Endpoint { node: NodeId(node), port: 2 }, port: 3, flow }
    }

    #[test]
    fn nothing_is_forgotten_early_and_nothing_opens_that_could_not_be_remembered() {
        let mut stones = Tombstones::new(3, Duration::from_secs(60));
        for flow in 0..3 {
            assert!(stones.has_room(Instant::ZERO, NodeId(1)));
            stones.reserve(NodeId(1));
            if flow > 0 {
                stones.insert(Instant::ZERO, key(1, flow), Epitaph::Finished(u64::from(flow)));
            }
        }
        let at = Instant::from_millis;
        assert!(!stones.has_room(at(59_999), NodeId(1)), "two ended, one lives");
        assert_eq!(stones.get(at(59_999), &key(1, 1)), Some(Epitaph::Finished(1)));
        assert_eq!(stones.get(at(60_000), &key(1, 2)), None);
        assert!(stones.has_room(at(60_000), NodeId(1)));
        assert_eq!((stones.flows.len(), stones.order.len(), stones.by_node[&NodeId(1)]), (0, 0, 1));
        stones.insert(at(61_000), key(1, 0), Epitaph::Abandoned);
        assert!(stones.has_room(at(130_000), NodeId(1)));
        assert!(stones.by_node.is_empty());
    }

    #[test]
    fn one_router_leaves_places_to_others() {
        let mut stones = Tombstones::new(1000, Duration::from_secs(60));
        let mut take = |node| {
            let room = stones.has_room(Instant::ZERO, NodeId(node));
            if room {
                stones.reserve(NodeId(node));
            }
            room
        };
        assert_eq!((0..1000).filter(|_| take(1)).count(), 500);
        assert_eq!((0..1000).filter(|_| take(2)).count(), 250);
        assert_eq!((0..100).filter(|_| take(3)).count(), 100);
    }
}
