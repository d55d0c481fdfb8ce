//! Members that have asked for what they were not told yet, and the answers to them.
//!
//! An answer goes to who asked, and says nothing to the others. Each member has one question at a time: another one takes the
//! place of that before. Who waits with a set (it asks for what is new) is answered before who only wants to know everything.
//!
//! # Bounds
//! Links hold 256 messages of control threads that wait, and what members agree on goes the same way. So an answer has a
//! [`Bucket`] for its link, and all together have one more: [`FLUSH`] messages at once, and one in [`TOKEN`] after that; half
//! of either is kept for who waits with a set. Nobody is told everything twice within [`ASK_AGAIN`]. Members that ask are
//! those of the configuration.
//!
//! No clock, no socket: `tracker.rs` has those.

use super::flows::{Flows, Place};
use super::teller::ASK_AGAIN;
use crate::base::{Instant, NodeId};
use crate::wire::flows::Message;
use std::collections::BTreeMap;
use std::time::Duration;

/// Messages of answers in one go.
pub(super) const FLUSH: u32 = 64;
/// Time in which one more may go.
pub(super) const TOKEN: Duration = Duration::from_micros(2500);

/// What may be sent: so much at once, and so much in time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u32,
    /// When the last one came.
    at: Instant,
}

impl Bucket {
    /// Full.
    const fn new(now: Instant) -> Bucket {
        Bucket { tokens: FLUSH, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let came = u32::try_from(now.since(self.at).as_nanos() / TOKEN.as_nanos()).unwrap_or(u32::MAX);
        if came >= FLUSH - self.tokens {
            *self = Bucket::new(now);
        } else {
            self.tokens += came;
            self.at += TOKEN * came;
        }
    }
}

/// An answer under way.
#[derive(Clone, Copy, Debug)]
struct Answer {
    serial: u32,
    whole: bool,
    place: Place,
    parts: u32,
}

#[derive(Clone, Copy, Debug)]
struct Asker {
    bucket: Bucket,
    answer: Option<Answer>,
    /// When it had last been told everything.
    whole_at: Option<Instant>,
}

/// Those members.
#[derive(Debug)]
pub(super) struct Askers {
    bucket: Bucket,
    askers: BTreeMap<NodeId, Asker>,
}

impl Askers {
    /// Nobody has asked.
    pub(super) const fn new(now: Instant) -> Askers {
        Askers { bucket: Bucket::new(now), askers: BTreeMap::new() }
    }

    /// A member asks, for everything or for what is new.
    pub(super) fn ask(&mut self, now: Instant, node: NodeId, serial: u32, whole: bool) {
        let new = Asker { bucket: Bucket::new(now), answer: None, whole_at: None };
        let asker = self.askers.entry(node).or_insert(new);
        let whole = whole && asker.whole_at.is_none_or(|at| now.since(at) >= ASK_AGAIN);
        let place = if whole { Place::Told(None) } else { Place::Changes(None) };
        asker.answer = Some(Answer { serial, whole, place, parts: 0 });
    }

    /// Whether nobody waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.askers.values().all(|asker| asker.answer.is_none())
    }

    /// Answers as much as there is room for. `looked`: everything that the kernel said is in `flows`; `complete`: everything
    /// that there is has been told. `say` is false if it takes nothing more.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        flows: &Flows,
        (looked, complete): (bool, bool),
        mut say: impl FnMut(NodeId, Vec<u8>) -> bool,
    ) {
        self.bucket.fill(now);
        for whole in [false, true] {
            for (node, asker) in &mut self.askers {
                let Some(answer) = asker.answer.as_mut().filter(|answer| answer.whole == whole) else { continue };
                asker.bucket.fill(now);
                let reserve = if whole { FLUSH / 2 } else { 0 };
                let mut room = || {
                    let room = self.bucket.tokens.min(asker.bucket.tokens) > reserve;
                    if room {
                        self.bucket.tokens -= 1;
                        asker.bucket.tokens -= 1;
                    }
                    room
                };
                let is_over = loop {
                    let before = answer.place;
                    let Some(bytes) = flows.part(answer.serial, &mut answer.place) else { break true };
                    if !(room() && say(*node, bytes)) {
                        answer.place = before;
                        break false;
                    }
                    answer.parts += 1;
                };
                if is_over && looked && (complete || !whole) && room() {
                    let &mut Answer { serial, parts, .. } = answer;
                    // If it is not said the question is put again.
                    say(*node, Message::Told { serial, parts, whole }.emit());
                    asker.whole_at = whole.then_some(now).or(asker.whole_at);
                    asker.answer = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scope::tests::{GATEWAY, scope, through};
    use super::*;
    use crate::wire::flows::Change;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const READY: (bool, bool) = (true, true);

    /// With these in changes, and those told.
    fn flows(told: u16, changes: u16) -> Flows {
        let (mut flows, scope) = (Flows::default(), scope());
        flows.hold(&scope, vec![GATEWAY]);
        (1..=told).for_each(|port| flows.changed(&scope, Change::Here(through(port))));
        while flows.message(0, false).is_some() {}
        (told + 1..=told + changes).for_each(|port| flows.changed(&scope, Change::Here(through(port))));
        flows
    }

    /// What is said now: to whom, and what it says.
    fn served(askers: &mut Askers, now: Instant, flows: &Flows, state: (bool, bool)) -> Vec<(NodeId, Message)> {
        let mut said = Vec::new();
        askers.serve(now, flows, state, |node, bytes| {
            said.push((node, Message::parse(&bytes).expect("is well formed")));
            true
        });
        said
    }

    #[test]
    fn who_asks_is_told_what_is_new_and_then_so() {
        let (mut askers, flows, now) = (Askers::new(Instant::ZERO), flows(9, 2), Instant::ZERO);
        askers.ask(now, A, 7, false);
        let said = served(&mut askers, now, &flows, (false, false));
        let [(A, Message::Answer { serial: 7, changes })] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!(changes.len(), 2);
        assert!(!askers.is_idle(), "the kernel may have said more");
        let told = Message::Told { serial: 7, parts: 1, whole: false };
        assert_eq!(served(&mut askers, now, &flows, (true, false)), [(A, told)]);
        assert!(askers.is_idle() && served(&mut askers, now, &flows, READY).is_empty());
    }

    #[test]
    fn everything_is_told_once_it_is_complete_and_not_twice_within_a_second() {
        let (mut askers, flows) = (Askers::new(Instant::ZERO), flows(9, 2));
        askers.ask(Instant::ZERO, A, 7, true);
        assert_eq!(served(&mut askers, Instant::ZERO, &flows, (true, false)).len(), 1);
        let told = Message::Told { serial: 7, parts: 1, whole: true };
        assert_eq!(served(&mut askers, Instant::ZERO, &flows, READY), [(A, told)]);
        for (at, number) in [(ASK_AGAIN / 2, 2), (ASK_AGAIN, 11)] {
            let now = Instant::ZERO + at;
            askers.ask(now, A, 8, true);
            let said = served(&mut askers, now, &flows, READY);
            let [(_, Message::Answer { changes, .. }), (_, Message::Told { whole, .. })] = said.as_slice() else {
                panic!("{said:?}")
            };
            assert_eq!((changes.len(), *whole), (number, number == 11));
        }
    }

    #[test]
    fn a_link_takes_so_much_at_once_and_who_waits_with_a_set_goes_first() {
        let (mut askers, flows, now) = (Askers::new(Instant::ZERO), flows(20_000, 100), Instant::ZERO);
        for _ in 0..10 {
            // However often it asks.
            askers.ask(now, A, 7, true);
        }
        let half = FLUSH as usize / 2;
        assert_eq!(served(&mut askers, now, &flows, READY).len(), half);
        assert_eq!(served(&mut askers, now, &flows, READY).len(), 0);
        askers.ask(now, B, 8, false);
        let said = served(&mut askers, now, &flows, READY);
        assert!(said.iter().all(|(node, _)| *node == B), "{said:?}");
        assert!(matches!(said.last(), Some((B, Message::Told { serial: 8, whole: false, .. }))), "{said:?}");
        let later = now + TOKEN * 200;
        assert_eq!(served(&mut askers, later, &flows, READY).len(), half, "no more than it holds");
        askers.ask(later, A, 9, true);
        askers.ask(later + TOKEN * 3, A, 10, true);
        assert_eq!(served(&mut askers, later + TOKEN * 3, &flows, READY).len(), 3);
    }

    #[test]
    fn what_could_not_be_said_is_said_later() {
        let (mut askers, flows, now) = (Askers::new(Instant::ZERO), flows(200, 0), Instant::ZERO);
        askers.ask(now, A, 7, true);
        askers.serve(now, &flows, READY, |_, _| false);
        let said = served(&mut askers, now, &flows, READY);
        let flows_told = said.iter().map(|(_, message)| match message {
            Message::Answer { changes, .. } => changes.len(),
            _ => 0,
        });
        assert_eq!(flows_told.sum::<usize>(), 200);
        let parts = said.len() as u32 - 1;
        assert_eq!(said.last(), Some(&(A, Message::Told { serial: 7, parts, whole: true })));
    }
}
