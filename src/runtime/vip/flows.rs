//! Flows that pass this host: what the other members are to know of them.
//!
//! ```text
//!   kernel's events ─▶ changes ─┐                     ┌─▶ answer ─▶ who asked
//!   kernel's dump  ──▶ refresh ─┴─▶ messages ─▶ all   │
//!                                      └──▶ told ─────┘
//! ```
//! It is soft state: the owner of a set says at once what changes, and every ten seconds everything there is; who hears of a
//! flow forgets it when it has not heard of it for three such rounds (`known.rs`). So a message may be lost, an owner may
//! die, and a member may come late, and nothing has to be put right. Which flows are told `scope.rs` says. Of those that
//! go with no set held here any more nothing more is said, not even that they ended: the next owner tells of them.
//!
//! No clock, no socket: `tracker.rs` has those.

use super::scope::Scope;
use crate::wire::flows::{Change, Flow, Packing, TCP, Tuple};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

/// Most flows that wait to be told; no more are begun to be told while the others know as many. Of what is told at most half
/// is not TCP.
pub(super) const MAX_FLOWS: usize = 65_536;
/// Time from the beginning of one round to that of the next.
pub(super) const ROUND: Duration = Duration::from_secs(10);

/// How far an answer has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// After this one of all flows that were told.
    Told(Option<Tuple>),
    /// After this one of those that changed.
    Changes(Option<Tuple>),
}

/// The flows.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// Sets that are held here.
    held: Vec<usize>,
    /// What the others know.
    told: BTreeMap<Tuple, Flow>,
    /// What they are to know at once, and in this round; TCP comes first.
    changes: BTreeMap<Tuple, Change>,
    refresh: BTreeMap<Tuple, Change>,
    /// What the dump under way has shown.
    dumped: Option<BTreeSet<Tuple>>,
    left_out: u64,
}

impl Flows {
    /// Flows that were not told for want of room.
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many flows the others know from here.
    pub(super) fn told(&self) -> usize {
        self.told.len()
    }

    /// These sets are held here. True if one is new.
    pub(super) fn hold(&mut self, scope: &Scope, held: Vec<usize>) -> bool {
        let news = held.iter().any(|set| !self.held.contains(set));
        let fewer = self.held.iter().any(|set| !held.contains(set));
        self.held = held;
        if fewer {
            self.let_go(scope);
        }
        news
    }

    /// The next owner tells now of what goes with no set held here.
    fn let_go(&mut self, scope: &Scope) {
        let held = &self.held;
        let goes_on = |flow: &Flow| scope.unfit(flow, held).is_none();
        self.told.retain(|_, flow| goes_on(flow));
        let told = &self.told;
        let remains = |change: &Change| match change {
            Change::Here(flow) => goes_on(flow),
            Change::Gone(tuple) => told.contains_key(tuple),
        };
        self.changes.retain(|_, change| remains(change));
        self.refresh.retain(|_, change| remains(change));
        if held.is_empty() {
            self.dumped = None;
        }
    }

    /// Whether there is anything to tell at all.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The kernel says that something happened.
    pub(super) fn changed(&mut self, scope: &Scope, change: Change) {
        match change {
            Change::Here(flow) => {
                if self.is_told_of(scope, &flow) && self.has_room(&flow.original) {
                    self.seen(flow.original);
                    self.refresh.remove(&flow.original);
                    self.changes.insert(flow.original, change);
                }
            }
            Change::Gone(tuple) => {
                self.refresh.remove(&tuple);
                // Who does not know of a flow need not hear of its end: the short ones are never told of.
                if self.told.contains_key(&tuple) {
                    self.changes.insert(tuple, change);
                } else {
                    self.changes.remove(&tuple);
                }
            }
        }
    }

    /// A dump begins.
    pub(super) fn begin_dump(&mut self) {
        self.dumped = Some(BTreeSet::new());
    }

    /// The dump shows a flow.
    pub(super) fn dumped(&mut self, scope: &Scope, flow: Flow) {
        if self.dumped.is_some() && self.is_told_of(scope, &flow) && self.has_room(&flow.original) {
            self.seen(flow.original);
            if !self.changes.contains_key(&flow.original) {
                self.refresh.insert(flow.original, Change::Here(flow));
            }
        }
    }

    /// It cannot be said that it has ended before the dump under way did.
    fn seen(&mut self, tuple: Tuple) {
        if let Some(dumped) = &mut self.dumped {
            dumped.insert(tuple);
        }
    }

    /// The dump is over: what was told and is not in it has ended unseen.
    pub(super) fn end_dump(&mut self, scope: &Scope) {
        // Everything was given up meanwhile.
        let Some(dumped) = self.dumped.take() else { return };
        let gone: Vec<Tuple> = self.told.keys().filter(|tuple| !dumped.contains(tuple)).copied().collect();
        gone.into_iter().for_each(|tuple| self.changed(scope, Change::Gone(tuple)));
    }

    /// The dump came to no end, and says nothing of what has.
    pub(super) fn abandon_dump(&mut self) {
        self.dumped = None;
    }

    /// Whether everything that happened is told.
    pub(super) fn is_told(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether everything of this round is told.
    pub(super) fn is_whole(&self) -> bool {
        self.dumped.is_none() && self.refresh.is_empty()
    }

    /// The next message for all, with this number: of what changed, or, if `refreshing` or nothing did, of this round.
    pub(super) fn message(&mut self, number: u64, refreshing: bool) -> Option<Vec<u8>> {
        let mut packing = Packing::changes(number);
        let order = match refreshing {
            true => [&mut self.refresh, &mut self.changes],
            false => [&mut self.changes, &mut self.refresh],
        };
        for queue in order {
            while let Some(entry) = queue.first_entry() {
                if !packing.push(entry.get()) {
                    return Some(packing.finish());
                }
                match entry.remove() {
                    Change::Here(flow) => self.told.insert(flow.original, flow),
                    Change::Gone(tuple) => self.told.remove(&tuple),
                };
            }
        }
        (!packing.is_empty()).then(|| packing.finish())
    }

    /// The next part of the answer to a question, from `place` on; the others do not hear it, so nothing is told by it. None:
    /// there is no more at the moment.
    pub(super) fn part(&self, serial: u32, place: &mut Place) -> Option<Vec<u8>> {
        let mut packing = Packing::answer(serial);
        if let Place::Told(after) = place {
            // What has changed since it was told comes as it is now: messages may pass each other on their way.
            let told = self.told.range(beyond(*after)).filter(|(tuple, _)| !self.changes.contains_key(tuple));
            for (tuple, flow) in told {
                if !packing.push(&Change::Here(*flow)) {
                    return Some(packing.finish());
                }
                *after = Some(*tuple);
            }
            *place = Place::Changes(None);
        }
        if let Place::Changes(after) = place {
            for (tuple, change) in self.changes.range(beyond(*after)) {
                if !packing.push(change) {
                    return Some(packing.finish());
                }
                *after = Some(*tuple);
            }
        }
        (!packing.is_empty()).then(|| packing.finish())
    }

    /// Whether the next owner of what is held here could carry it on.
    fn is_told_of(&self, scope: &Scope, flow: &Flow) -> bool {
        scope.unfit(flow, &self.held).is_none()
    }

    fn has_room(&mut self, tuple: &Tuple) -> bool {
        let most = if tuple.protocol == TCP { MAX_FLOWS } else { MAX_FLOWS / 2 };
        let waiting = self.changes.len() + self.refresh.len();
        let room = self.told.contains_key(tuple) || self.told.len().max(waiting) < most;
        self.left_out += u64::from(!room);
        room
    }
}

/// Those after this one, or all.
fn beyond(after: Option<Tuple>) -> (Bound<Tuple>, Bound<Tuple>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use super::super::scope::tests::{GATEWAY, SERVICE, flow, scope, through};
    use super::*;
    use crate::wire::flows::{Message, UDP};

    fn here(flow: Flow) -> Change {
        Change::Here(flow)
    }

    fn gone(port: u16) -> Change {
        Change::Gone(through(port).original)
    }

    /// That tell of these sets.
    fn holding(held: Vec<usize>) -> Flows {
        let mut flows = Flows::default();
        assert!(flows.hold(&scope(), held));
        flows
    }

    /// A dump shows these.
    fn round(flows: &mut Flows, shown: impl IntoIterator<Item = Flow>) {
        flows.begin_dump();
        shown.into_iter().for_each(|flow| flows.dumped(&scope(), flow));
        flows.end_dump(&scope());
    }

    /// What the next messages say, ascending by flow.
    fn told(flows: &mut Flows) -> Vec<Change> {
        let mut told = Vec::new();
        while let Some(bytes) = flows.message(7, false) {
            let Ok(Message::Changes { number: 7, changes }) = Message::parse(&bytes) else { panic!("{bytes:?}") };
            told.extend(changes);
        }
        told.sort_by_key(|change| *change.tuple());
        told
    }

    #[test]
    fn only_those_are_told_that_go_with_what_is_held() {
        let mut flows = Flows::default();
        flows.changed(&scope(), here(through(1)));
        assert_eq!(told(&mut flows), [], "nothing is held");
        assert!(flows.hold(&scope(), vec![GATEWAY]) && !flows.hold(&scope(), vec![GATEWAY]));
        let (to_itself, to_service) = (flow("10.0.0.9:1", "10.0.0.2:22"), flow("10.0.0.9:1", "192.0.2.80:80"));
        [through(1), to_itself, to_service].into_iter().for_each(|flow| flows.changed(&scope(), here(flow)));
        assert_eq!(told(&mut flows), [here(through(1))]);
        assert!(flows.hold(&scope(), vec![SERVICE]));
        [through(3), to_service].into_iter().for_each(|flow| flows.changed(&scope(), here(flow)));
        assert_eq!(told(&mut flows), [here(to_service)], "a service routes nothing");
    }

    #[test]
    fn of_a_set_that_was_given_up_nothing_is_said_not_even_that_its_flows_ended() {
        let mut flows = holding(vec![GATEWAY, SERVICE]);
        let of_service = |port: u16| flow(&format!("10.0.0.9:{port}"), "192.0.2.80:80");
        [through(1), of_service(1), of_service(2)].into_iter().for_each(|flow| flows.changed(&scope(), here(flow)));
        assert_eq!(told(&mut flows).len(), 3);
        flows.changed(&scope(), Change::Gone(of_service(2).original));
        flows.changed(&scope(), here(of_service(3)));
        assert!(!flows.hold(&scope(), vec![GATEWAY]));
        assert_eq!(flows.told(), 1);
        round(&mut flows, [through(1), of_service(1)]);
        flows.changed(&scope(), Change::Gone(of_service(1).original));
        assert_eq!(told(&mut flows), [here(through(1))]);
    }

    #[test]
    fn what_is_held_again_during_a_dump_has_not_ended_because_of_it() {
        let mut flows = holding(vec![GATEWAY]);
        flows.begin_dump();
        flows.hold(&scope(), Vec::new());
        flows.hold(&scope(), vec![GATEWAY]);
        flows.changed(&scope(), here(through(1)));
        assert_eq!(told(&mut flows), [here(through(1))]);
        flows.end_dump(&scope());
        assert_eq!(told(&mut flows), []);
    }

    #[test]
    fn what_ends_before_it_is_told_is_not_told_and_other_ends_are() {
        let mut flows = holding(vec![GATEWAY]);
        [here(through(1)), here(through(2)), gone(2)].into_iter().for_each(|it| flows.changed(&scope(), it));
        assert_eq!(told(&mut flows), [here(through(1))]);
        [gone(1), gone(1)].into_iter().for_each(|it| flows.changed(&scope(), it));
        assert_eq!(told(&mut flows), [gone(1)]);
        assert_eq!(flows.told(), 0);
    }

    #[test]
    fn a_round_tells_all_again_and_finds_what_ended_unseen() {
        let mut flows = holding(vec![GATEWAY]);
        (1..=3).for_each(|port| flows.changed(&scope(), here(through(port))));
        assert_eq!(told(&mut flows).len(), 3);
        flows.begin_dump();
        assert!(!flows.is_whole());
        [through(1), through(2)].into_iter().for_each(|flow| flows.dumped(&scope(), flow));
        // This one has ended since the dump showed it.
        flows.changed(&scope(), gone(2));
        flows.end_dump(&scope());
        assert_eq!(told(&mut flows), [here(through(1)), gone(2), gone(3)]);
        assert!(flows.is_whole() && flows.is_told());
        flows.begin_dump();
        flows.abandon_dump();
        flows.end_dump(&scope());
        assert_eq!(told(&mut flows), [], "a dump without an end says nothing");
    }

    #[test]
    fn what_changed_comes_first_and_a_round_is_not_starved() {
        let mut flows = holding(vec![GATEWAY]);
        round(&mut flows, (1..=100).map(through));
        (200..=300).for_each(|port| flows.changed(&scope(), here(through(port))));
        let first = |flows: &mut Flows, refreshing| {
            let bytes = flows.message(0, refreshing).expect("there is more");
            let Ok(Message::Changes { changes, .. }) = Message::parse(&bytes) else { panic!("{bytes:?}") };
            changes[0].tuple().source.port()
        };
        assert_eq!([first(&mut flows, false), first(&mut flows, true)], [200, 1]);
    }

    #[test]
    fn an_answer_tells_one_member_what_it_asked_for_and_the_others_hear_the_same_later() {
        let mut flows = holding(vec![GATEWAY]);
        (1..=100).for_each(|port| flows.changed(&scope(), here(through(port))));
        assert_eq!(told(&mut flows).len(), 100);
        [gone(7), here(through(200))].into_iter().for_each(|it| flows.changed(&scope(), it));
        let answer = |place: Place| {
            let (mut place, mut all) = (place, Vec::new());
            while let Some(bytes) = flows.part(5, &mut place) {
                let Ok(Message::Answer { serial: 5, changes }) = Message::parse(&bytes) else { panic!("{bytes:?}") };
                all.extend(changes);
            }
            all
        };
        assert_eq!(answer(Place::Changes(None)), [gone(7), here(through(200))]);
        let all = answer(Place::Told(None));
        assert_eq!(all.len(), 101, "99 that go on, one that ended, one that is new");
        assert!(all.contains(&gone(7)) && !all.contains(&here(through(7))));
        assert_eq!(told(&mut flows), [gone(7), here(through(200))]);
    }

    #[test]
    fn there_is_room_for_so_many_and_more_for_tcp() {
        let (mut flows, scope) = (holding(vec![GATEWAY]), scope());
        let numbered = |number: usize| {
            let [_, _, c, d] = (number as u32).to_be_bytes();
            flow(&format!("10.9.{c}.{d}:7"), "203.0.113.5:443")
        };
        let over_udp = |number| {
            let mut flow = numbered(number);
            (flow.original.protocol, flow.reply.protocol, flow.tcp) = (UDP, UDP, None);
            flow
        };
        (0..MAX_FLOWS / 2 + 7).for_each(|number| flows.changed(&scope, here(over_udp(number))));
        assert_eq!(flows.left_out(), 7);
        (0..MAX_FLOWS).for_each(|number| flows.changed(&scope, here(numbered(number))));
        assert_eq!(flows.left_out(), 7 + MAX_FLOWS as u64 / 2);
        assert_eq!((told(&mut flows).len(), flows.told()), (MAX_FLOWS, MAX_FLOWS));
        flows.changed(&scope, here(numbered(0)));
        assert_eq!(told(&mut flows).len(), 1, "what is told may change");
    }
}
