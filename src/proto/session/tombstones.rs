//! Flows that ended: a late repeat of one of their segments is answered and never opens them again.

use super::FlowKey;
use crate::base::Instant;
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

/// A bounded memory of ended flows; when it is full the oldest is forgotten.
#[derive(Debug)]
pub(super) struct Tombstones {
    flows: BTreeMap<FlowKey, (Epitaph, Instant)>,
    order: VecDeque<(Instant, FlowKey)>,
    capacity: usize,
    time: Duration,
}

impl Tombstones {
    pub(super) fn new(capacity: usize, time: Duration) -> Tombstones {
        Tombstones { flows: BTreeMap::new(), order: VecDeque::new(), capacity, time }
    }

    pub(super) fn insert(&mut self, now: Instant, key: FlowKey, epitaph: Epitaph) {
        self.expire(now);
        if self.order.len() >= self.capacity {
            self.forget_oldest();
        }
        self.flows.insert(key, (epitaph, now));
        self.order.push_back((now, key));
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
        if let Some((since, key)) = self.order.pop_front()
            && self.flows.get(&key).is_some_and(|(_, newest)| *newest == since)
        {
            self.flows.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::NodeId;
    use crate::wire::client::Endpoint;

    #[test]
    fn remembers_a_bounded_number_for_a_bounded_time() {
        let mut stones = Tombstones::new(3, Duration::from_secs(60));
        let key = |flow| FlowKey { peer: Endpoint { node: NodeId(1), port: 2 }, port: 3, flow };
        for flow in 0..4 {
            stones.insert(Instant::ZERO, key(flow), Epitaph::Finished(u64::from(flow)));
        }
        assert_eq!(stones.get(Instant::ZERO, &key(0)), None, "the oldest made room");
        assert_eq!(stones.get(Instant::from_millis(59_999), &key(3)), Some(Epitaph::Finished(3)));
        assert_eq!(stones.get(Instant::from_millis(60_000), &key(3)), None);
        stones.insert(Instant::from_millis(61_000), key(9), Epitaph::Abandoned);
        stones.insert(Instant::from_millis(61_000), key(10), Epitaph::Abandoned);
        assert_eq!(stones.order.len(), 2);
        assert_eq!(stones.flows.len(), 2);
    }
}
