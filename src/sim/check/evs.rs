//! Extended virtual synchrony: what the members of a group saw, through the checks of `proto::membership::evs`.
//!
//! Those checks want a number for each message, and what service addresses say has none: two messages may even be the
//! same. But every sender's messages have their places in each view, so a message is known by its view, its sender, its
//! place among the sender's messages there, and what it says. A message that is doubled or left out shifts those behind
//! it to places at which nobody sent them, and so is noticed.

use crate::base::{NodeId, View, ViewId};
use crate::control::Witnessed;
use crate::proto::membership::evs::{Event, Process, Trace, check};
use std::collections::BTreeMap;

/// A message: its view, its sender, its place there, and what it says.
type Key = (ViewId, NodeId, usize, Vec<u8>);

/// One life of a router, as far as it has come.
#[derive(Debug, Default)]
struct Life {
    number: u64,
    view: ViewId,
    /// Messages sent in this view.
    sent: usize,
    /// Messages that go out in the next: before which event each was given, and what it says.
    later: Vec<(usize, Vec<u8>)>,
    /// Messages of each sender delivered in this view.
    delivered: BTreeMap<NodeId, usize>,
}

/// What all members saw.
#[derive(Debug, Default)]
pub struct Witness {
    trace: Trace,
    lives: BTreeMap<NodeId, Life>,
    numbers: BTreeMap<Key, u64>,
}

impl Witness {
    /// A member starts.
    pub fn start(&mut self, node: NodeId) {
        let number = self.lives.get(&node).map_or(1, |life| life.number + 1);
        self.lives.insert(node, Life { number, ..Life::default() });
    }

    /// A member dies.
    pub fn end(&mut self, node: NodeId) {
        let process = self.process(node);
        self.trace.add(process, Event::End);
    }

    /// A member saw this next.
    pub fn add(&mut self, node: NodeId, seen: Witnessed) {
        let process = self.process(node);
        let place = self.trace.of(process).len();
        let life = self.lives.entry(node).or_default();
        let event = match seen {
            Witnessed::Sent { body, later: true } => return life.later.push((place, body)),
            Witnessed::Sent { body, later: false } => {
                life.sent += 1;
                let key = (life.view, node, life.sent, body);
                Event::Send(self.number(key))
            }
            Witnessed::Delivered(delivery) => {
                let count = life.delivered.entry(delivery.from).or_default();
                *count += 1;
                let key = (life.view, delivery.from, *count, delivery.body);
                Event::Deliver(self.number(key), delivery.service)
            }
            Witnessed::Ends(together) => Event::Signal(together),
            Witnessed::Began(view, together) => return self.begin(process, view, together),
        };
        self.trace.add(process, event);
    }

    /// A view begins, in which what waited for it goes out.
    fn begin(&mut self, process: Process, view: View, together: Vec<NodeId>) {
        let life = self.lives.entry(process.node).or_default();
        let later = std::mem::take(&mut life.later);
        *life = Life { number: life.number, view: view.id, sent: later.len(), ..Life::default() };
        for (before, (place, body)) in later.into_iter().enumerate() {
            let number = self.number((view.id, process.node, before + 1, body));
            self.trace.insert(process, place + before, Event::Send(number));
        }
        self.trace.add(process, Event::Install(view, together));
    }

    fn process(&self, node: NodeId) -> Process {
        Process { node, life: self.lives.get(&node).map_or(0, |life| life.number) }
    }

    fn number(&mut self, key: Key) -> u64 {
        let next = self.numbers.len() as u64;
        *self.numbers.entry(key).or_insert(next)
    }

    /// Views that began, of all members together.
    pub fn views(&self) -> usize {
        let lives =
            self.lives.iter().flat_map(|(&node, life)| (1..=life.number).map(move |life| Process { node, life }));
        lives.flat_map(|it| self.trace.of(it)).filter(|event| matches!(event, Event::Install(..))).count()
    }

    /// Checks all seventeen properties. `quiet`: nothing is under way.
    pub fn holds(&self, quiet: bool) -> Result<(), String> {
        check(&self.trace, quiet).map_err(|broken| broken.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::membership::{Delivery, Service};

    const ONE: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn delivered(body: u8) -> Witnessed {
        Witnessed::Delivered(Delivery { from: ONE, service: Service::Agreed, body: vec![body] })
    }

    /// Two members in one view; one has sent 7 before it began, and 8 and 8 in it.
    fn sent() -> Witness {
        let mut witness = Witness::default();
        let view = |number, members| View::new(ViewId { number, digest: 1 }, members);
        for node in [ONE, OTHER] {
            witness.start(node);
            let alone = View::new(ViewId { number: 1, digest: node.0 }, vec![node]);
            witness.add(node, Witnessed::Began(alone, vec![node]));
            if node == ONE {
                witness.add(ONE, Witnessed::Sent { body: vec![7], later: true });
            }
            witness.add(node, Witnessed::Ends(vec![node]));
            witness.add(node, Witnessed::Began(view(2, vec![ONE, OTHER]), vec![node]));
        }
        for _ in 0..2 {
            witness.add(ONE, Witnessed::Sent { body: vec![8], later: false });
        }
        [7, 8, 8].into_iter().for_each(|body| witness.add(ONE, delivered(body)));
        witness
    }

    #[test]
    fn equal_messages_are_told_apart_and_one_that_is_left_out_is_noticed() {
        let mut whole = sent();
        [7, 8, 8].into_iter().for_each(|body| whole.add(OTHER, delivered(body)));
        assert_eq!(whole.holds(true), Ok(()));
        for wrong in [&[7, 8][..], &[8, 7, 8], &[7, 8, 8, 8], &[8, 8]] {
            let mut witness = sent();
            wrong.iter().for_each(|&body| witness.add(OTHER, delivered(body)));
            assert!(witness.holds(true).is_err(), "{wrong:?}");
        }
    }
}
