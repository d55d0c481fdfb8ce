//! Flows that pass other members: what they have told of them, and what of that the kernel here is to be told.
//!
//! ```text
//!   a member tells ──▶ refused: of no set that it holds, or no flow that goes with a set; or no room
//!                 └──▶ known ──┬─ a set is acquired ──────────▶ wanted ─▶ the kernel makes it as it is said to be
//!                        │     └─ it is new, a moment after ──▶ late ───▶ the kernel makes it, unless it has it
//!                        └─ its end, a moment after ──────────▶ over ───▶ the kernel forgets it
//! ```
//! A flow is known by the member that told of it last, and only that one can say that it has ended: who gives a set up, or
//! never had it, ends nothing of its next owner. What nobody has told of for [`FORGET`] is forgotten.
//!
//! # Bounds
//! All members together have room for [`MAX_FLOWS`], half of that for what is not TCP. Each has what the others leave; where
//! that is not enough for all, an equal share: whoever has more loses what it has beyond that, TCP last. What waits for the
//! kernel is known, so it has the same bound; of what is over at most [`MAX_OVER`] wait. What there is no room for is
//! counted.
//!
//! No clock, no socket: `tracker.rs` has those.

use super::flows::{MAX_FLOWS, ROUND};
use super::scope::{Scope, Unfit};
use crate::base::{Instant, NodeId};
use crate::wire::flows::{Change, Flow, TCP, Tuple};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What was not heard of for so long is forgotten.
pub(super) const FORGET: Duration = ROUND.saturating_mul(3);
/// Who took over a flow remembers it for at most so long, seconds, if nothing more of it is seen: it may have ended without
/// anybody's notice.
const LONGEST: u32 = 3600;
/// Most flows of which the kernel is still to be told that they have ended.
const MAX_OVER: usize = 4096;

/// What was not believed of what other members said, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FlowDrops {
    /// Flows with an address that no router forwards packets from, or to.
    pub unrouted: u64,
    /// Flows that end at this host.
    pub own: u64,
    /// Flows of no set that the member holds.
    pub foreign: u64,
}

/// A flow that passes another member.
#[derive(Debug)]
struct Entry {
    flow: Flow,
    heard: Instant,
    teller: NodeId,
    /// The kernel here was told of it as it is.
    created: bool,
}

/// How many flows of a member are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    tcp: usize,
    other: usize,
}

impl Share {
    const fn all(&self) -> usize {
        self.tcp + self.other
    }

    const fn of(&mut self, protocol: u8) -> &mut usize {
        if protocol == TCP { &mut self.tcp } else { &mut self.other }
    }
}

/// The flows.
#[derive(Debug, Default)]
pub(super) struct Known {
    flows: BTreeMap<Tuple, Entry>,
    /// Of members of which any are known.
    shares: BTreeMap<NodeId, Share>,
    /// Known ones that the kernel is to be told of, TCP first: before it has their set's addresses, and after.
    wanted: BTreeSet<Tuple>,
    late: BTreeSet<Tuple>,
    /// Those that it was told of, and that have ended.
    over: BTreeSet<Tuple>,
    drops: FlowDrops,
    left_out: u64,
}

impl Known {
    /// How many flows are known.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Flows that were not kept, and ends of flows that the kernel is not told of, for want of room.
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What was not believed.
    pub(super) const fn drops(&self) -> FlowDrops {
        self.drops
    }

    /// A member that holds these sets tells what changed, and those in `arriving` come here now, or have a moment ago. False:
    /// it told of others, too, as far as is known here.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        scope: &Scope,
        (teller, holds): (NodeId, &[usize]),
        changes: Vec<Change>,
        arriving: &[usize],
    ) -> bool {
        let foreign = self.drops.foreign;
        for change in changes {
            match change {
                Change::Gone(tuple) => self.ended(scope, teller, &tuple, arriving),
                Change::Here(flow) => match scope.unfit(&flow, holds) {
                    Some(unfit) => self.refuse(unfit),
                    None => self.learn(now, scope, teller, flow, arriving),
                },
            }
        }
        self.drops.foreign == foreign
    }

    const fn refuse(&mut self, unfit: Unfit) {
        match unfit {
            Unfit::Unrouted => self.drops.unrouted += 1,
            Unfit::Own => self.drops.own += 1,
            Unfit::Foreign => self.drops.foreign += 1,
        }
    }

    fn learn(&mut self, now: Instant, scope: &Scope, teller: NodeId, flow: Flow, arriving: &[usize]) {
        let tuple = flow.original;
        let before = self.flows.get(&tuple).map(|before| before.created && before.flow == flow);
        if before.is_none() && !self.make_room(teller, tuple.protocol) {
            self.left_out += 1;
            return;
        }
        if before.is_none() && scope.is_of(&flow, arriving) {
            self.late.insert(tuple);
            self.over.remove(&tuple);
        }
        let created = before.unwrap_or(false);
        let before = self.flows.insert(tuple, Entry { flow, heard: now, teller, created });
        if let Some(before) = before {
            self.discount(before.teller, tuple.protocol);
        }
        *self.shares.entry(teller).or_default().of(tuple.protocol) += 1;
    }

    fn ended(&mut self, scope: &Scope, teller: NodeId, tuple: &Tuple, arriving: &[usize]) {
        let Some(entry) = self.flows.get(tuple).filter(|entry| entry.teller == teller) else { return };
        if entry.created && scope.is_of(&entry.flow, arriving) {
            if self.over.len() < MAX_OVER {
                self.over.insert(*tuple);
            } else {
                self.left_out += 1;
            }
        }
        self.remove(tuple);
    }

    fn remove(&mut self, tuple: &Tuple) {
        if let Some(entry) = self.flows.remove(tuple) {
            self.discount(entry.teller, tuple.protocol);
            self.wanted.remove(tuple);
            self.late.remove(tuple);
        }
    }

    fn discount(&mut self, teller: NodeId, protocol: u8) {
        let share = self.shares.get_mut(&teller).expect("what is known is counted");
        *share.of(protocol) -= 1;
        if share.all() == 0 {
            self.shares.remove(&teller);
        }
    }

    /// Whether there is room for one more of this member's, at the cost of who has more than its share.
    fn make_room(&mut self, teller: NodeId, protocol: u8) -> bool {
        let other = |share: &Share| share.other;
        (protocol == TCP || self.has_room(teller, MAX_FLOWS / 2, other)) && self.has_room(teller, MAX_FLOWS, Share::all)
    }

    fn has_room(&mut self, teller: NodeId, most: usize, used: impl Fn(&Share) -> usize) -> bool {
        if self.shares.values().map(&used).sum::<usize>() < most {
            return true;
        }
        let mine = self.shares.get(&teller).map(&used);
        let share = most / (self.shares.len() + usize::from(mine.is_none()));
        if mine.unwrap_or(0) >= share {
            return false;
        }
        let (&greedy, has) = self.shares.iter().max_by_key(|entry| used(entry.1)).expect("somebody has it all");
        let excess = used(has).saturating_sub(share);
        // In this order those of the kind that there is no room for come first.
        let last = self.flows.iter().rev().filter(|(_, entry)| entry.teller == greedy).take(excess);
        let last: Vec<Tuple> = last.map(|(tuple, _)| *tuple).collect();
        last.iter().for_each(|tuple| self.remove(tuple));
        self.left_out += last.len() as u64;
        !last.is_empty()
    }

    /// Forgets what was not heard of for long.
    pub(super) fn forget(&mut self, now: Instant) {
        let old = self.flows.iter().filter(|(_, entry)| now.since(entry.heard) >= FORGET);
        let old: Vec<Tuple> = old.map(|(tuple, _)| *tuple).collect();
        old.iter().for_each(|tuple| self.remove(tuple));
    }

    /// These sets are about to come here: the kernel must know their flows before it may have their addresses.
    pub(super) fn want(&mut self, scope: &Scope, sets: &[usize]) {
        for (tuple, entry) in self.flows.iter().filter(|(_, entry)| !entry.created) {
            match scope.unfit(&entry.flow, sets) {
                None => {
                    self.late.remove(tuple);
                    self.wanted.insert(*tuple);
                }
                // This host has that address since it was told of the flow.
                Some(Unfit::Own) => self.drops.own += 1,
                Some(Unfit::Unrouted | Unfit::Foreign) => {}
            }
        }
    }

    /// Some flows that the kernel is to be told of before it may have their set's addresses, as they are known now. It is
    /// taken to be told of them: they are not answered again until they change.
    pub(super) fn next_wanted(&mut self, most: usize) -> Vec<Flow> {
        next(&mut self.wanted, &mut self.flows, most)
    }

    /// Some that it is to be told of as well.
    pub(super) fn next_late(&mut self, most: usize) -> Vec<Flow> {
        next(&mut self.late, &mut self.flows, most)
    }

    /// Some that it is to forget.
    pub(super) fn next_over(&mut self, most: usize) -> Vec<Tuple> {
        std::iter::from_fn(|| self.over.pop_first()).take(most).collect()
    }

    /// Whether the kernel is to be told nothing of what came late.
    pub(super) fn is_settled(&self) -> bool {
        self.late.is_empty() && self.over.is_empty()
    }

    /// Whether it knows all that was wanted.
    pub(super) fn is_prepared(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The kernel cannot be told of anything.
    pub(super) fn give_up(&mut self) {
        self.wanted.clear();
        self.late.clear();
        self.over.clear();
    }
}

fn next(queue: &mut BTreeSet<Tuple>, flows: &mut BTreeMap<Tuple, Entry>, most: usize) -> Vec<Flow> {
    let tuples = std::iter::from_fn(|| queue.pop_first()).take(most);
    let flows = tuples.map(|tuple| {
        let entry = flows.get_mut(&tuple).expect("what waits is known");
        entry.created = true;
        bounded(entry.flow)
    });
    flows.collect()
}

fn bounded(flow: Flow) -> Flow {
    Flow { timeout: flow.timeout.clamp(1, LONGEST), ..flow }
}

#[cfg(test)]
mod tests {
    use super::super::scope::tests::{GATEWAY, SERVICE, flow, ip, scope, through};
    use super::*;
    use crate::wire::flows::{Tcp, UDP};

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const NOW: Instant = Instant::from_millis(5);

    fn here(flow: Flow) -> Change {
        Change::Here(flow)
    }

    fn gone(flow: Flow) -> Change {
        Change::Gone(flow.original)
    }

    fn of_service(port: u16) -> Flow {
        flow(&format!("10.0.0.9:{port}"), "192.0.2.80:80")
    }

    fn kernel(flow: Flow) -> Flow {
        Flow { timeout: LONGEST, ..flow }
    }

    /// All that is wanted of these sets.
    fn of_sets(known: &mut Known, sets: &[usize]) -> Vec<Flow> {
        known.want(&scope(), sets);
        known.next_wanted(usize::MAX)
    }

    fn numbered(number: usize, protocol: u8) -> Flow {
        let [_, b, c, d] = (number as u32).to_be_bytes();
        let mut flow = flow(&format!("10.{}.{c}.{d}:7", 9 + b), "203.0.113.5:443");
        if protocol == UDP {
            (flow.original.protocol, flow.reply.protocol, flow.tcp) = (UDP, UDP, None);
        }
        flow
    }

    /// A member that holds both sets tells of flows with these numbers.
    fn tell(known: &mut Known, teller: NodeId, protocol: u8, numbers: std::ops::Range<usize>) {
        let changes = numbers.map(|number| here(numbered(number, protocol))).collect();
        assert!(known.hear(NOW, &scope(), (teller, &[GATEWAY, SERVICE]), changes, &[]));
    }

    #[test]
    fn who_acquires_a_set_knows_its_flows_once_and_those_told_since() {
        let (mut known, scope) = (Known::default(), scope());
        let (teller, later) = ((A, &[GATEWAY, SERVICE][..]), of_service(2));
        let news = vec![here(through(1)), here(through(2)), here(of_service(1)), gone(through(2))];
        assert!(known.hear(NOW, &scope, teller, news, &[]));
        assert_eq!(of_sets(&mut known, &[SERVICE]), [kernel(of_service(1))]);
        assert_eq!(of_sets(&mut known, &[GATEWAY, SERVICE]), [kernel(through(1))]);
        assert_eq!(of_sets(&mut known, &[GATEWAY, SERVICE]), [], "the kernel knows them");
        let closing = Flow { tcp: of_service(1).tcp.map(|tcp| Tcp { state: 4, ..tcp }), ..of_service(1) };
        known.hear(NOW, &scope, teller, vec![here(later), here(closing), here(through(3))], &[SERVICE]);
        assert_eq!(known.next_late(9), [kernel(later)]);
        assert_eq!(of_sets(&mut known, &[SERVICE]), [kernel(closing)], "it came back from where it went on");
    }

    #[test]
    fn nobody_is_believed_but_of_what_it_holds_and_nothing_that_leads_to_this_host() {
        let (mut known, scope) = (Known::default(), scope());
        let to_this_host = flow("10.0.0.66:1", "10.0.0.2:22");
        let local = flow("127.0.0.1:1", "192.0.2.80:80");
        let all = vec![here(through(1)), here(of_service(1)), here(to_this_host), here(local)];
        assert!(!known.hear(NOW, &scope, (A, &[]), all.clone(), &[GATEWAY, SERVICE]));
        assert_eq!((known.len(), known.drops()), (0, FlowDrops { unrouted: 1, own: 1, foreign: 2 }));
        assert!(!known.hear(NOW, &scope, (A, &[SERVICE]), all.clone(), &[]));
        assert_eq!((known.len(), known.drops()), (1, FlowDrops { unrouted: 2, own: 2, foreign: 3 }));
        assert!(known.hear(NOW, &scope, (A, &[GATEWAY, SERVICE]), all, &[]));
        assert_eq!((known.len(), known.drops()), (2, FlowDrops { unrouted: 3, own: 3, foreign: 3 }));
        let mut grown = scope;
        grown.host_has(std::iter::once(ip("203.0.113.5")));
        known.want(&grown, &[GATEWAY, SERVICE]);
        assert_eq!(known.next_wanted(9), [kernel(of_service(1))], "this host has the other's address by now");
    }

    #[test]
    fn only_who_told_of_a_flow_last_can_say_that_it_ended() {
        let (mut known, scope) = (Known::default(), scope());
        known.hear(NOW, &scope, (A, &[GATEWAY]), vec![here(through(1))], &[]);
        known.hear(NOW, &scope, (B, &[GATEWAY]), vec![here(through(1)), gone(through(1)), here(through(1))], &[]);
        known.hear(NOW, &scope, (A, &[GATEWAY]), vec![gone(through(1))], &[]);
        assert_eq!(known.len(), 1, "it goes on at its next owner");
        known.hear(NOW, &scope, (B, &[]), vec![gone(through(1))], &[]);
        assert_eq!(known.len(), 0);
    }

    #[test]
    fn what_ends_while_its_set_comes_here_ends_here_too() {
        let (mut known, scope) = (Known::default(), scope());
        let teller = (A, &[GATEWAY][..]);
        known.hear(NOW, &scope, teller, vec![here(through(1)), here(through(2)), here(through(3))], &[]);
        known.want(&scope, &[GATEWAY]);
        assert_eq!(known.next_wanted(1), [kernel(through(1))]);
        known.hear(NOW, &scope, teller, vec![gone(through(1)), gone(through(2)), here(through(4))], &[GATEWAY]);
        known.hear(NOW, &scope, teller, vec![here(through(5)), gone(through(4))], &[GATEWAY]);
        assert_eq!(known.next_wanted(9), [kernel(through(3))], "what ended before the kernel was told is not told");
        assert_eq!(known.next_late(9), [kernel(through(5))]);
        assert_eq!(known.next_over(9), [through(1).original], "what it was told of it is to forget");
        assert!(known.is_prepared() && known.is_settled());
        known.hear(NOW, &scope, teller, vec![gone(through(3))], &[]);
        assert!(known.is_settled(), "later it is the kernel here that knows");
    }

    #[test]
    fn each_member_has_its_share_where_there_is_not_room_for_all() {
        let mut known = Known::default();
        tell(&mut known, A, UDP, 0..MAX_FLOWS / 2 + 7);
        assert_eq!((known.len(), known.left_out()), (MAX_FLOWS / 2, 7), "half is for TCP");
        tell(&mut known, A, TCP, 0..MAX_FLOWS);
        assert_eq!((known.len(), known.left_out()), (MAX_FLOWS, 7 + MAX_FLOWS as u64 / 2), "who is alone has all");
        tell(&mut known, B, TCP, MAX_FLOWS..MAX_FLOWS + 10);
        let (a, b) = (known.shares[&A], known.shares[&B]);
        assert_eq!((a, b), (Share { tcp: MAX_FLOWS / 2, other: 0 }, Share { tcp: 10, other: 0 }), "TCP goes last");
        tell(&mut known, B, TCP, MAX_FLOWS..2 * MAX_FLOWS);
        assert_eq!([A, B].map(|teller| known.shares[&teller].all()), [MAX_FLOWS / 2; 2]);
        tell(&mut known, C, UDP, 0..1);
        assert_eq!(known.len(), MAX_FLOWS / 2 + MAX_FLOWS / 3 + 1, "one of them has a third now");
        // A flow that passes to another owner is counted with that.
        tell(&mut known, C, TCP, 0..1);
        assert_eq!((known.shares[&C], known.len() <= MAX_FLOWS), (Share { tcp: 1, other: 1 }, true));
    }

    #[test]
    fn what_is_not_heard_of_is_forgotten() {
        let (mut known, scope, teller) = (Known::default(), scope(), (A, &[GATEWAY][..]));
        known.hear(Instant::ZERO, &scope, teller, vec![here(through(1)), here(through(2))], &[]);
        known.hear(Instant::ZERO + ROUND, &scope, teller, vec![here(through(2))], &[]);
        known.want(&scope, &[GATEWAY]);
        known.forget(Instant::ZERO + FORGET);
        assert_eq!(known.next_wanted(9), [kernel(through(2))]);
        known.forget(Instant::ZERO + FORGET + ROUND);
        assert_eq!((known.len(), known.shares.len()), (0, 0));
    }
}
