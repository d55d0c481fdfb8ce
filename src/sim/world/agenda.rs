//! What is going to happen, in order of time.

use crate::base::Instant;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// What is going to happen.
pub(super) enum Event {
    /// A datagram arrives at a router.
    Arrive { router: usize, from: usize, datagram: Box<[u8]> },
    /// A router hears that nothing listens where it sent to.
    Refused { router: usize, by: usize },
    /// A router's timer; void if the router was given another since.
    Timer { router: usize, generation: u64 },
    /// A router that stood still or was busy goes on.
    Wake { router: usize },
    /// An application's turn.
    Turn { flow: usize },
    /// A receiving application closes its session.
    Leave { flow: usize },
}

struct Scheduled {
    at: Instant,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// Earliest first out of a max-heap; ties in the order of scheduling.
    fn cmp(&self, other: &Scheduled) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// All that is going to happen.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Scheduled>,
    order: u64,
}

impl Agenda {
    /// Adds an event; of those at one moment the first added is the first to happen.
    pub(super) fn add(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.heap.push(Scheduled { at, order: self.order, event });
    }

    /// When the next event happens.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|next| next.at)
    }

    /// Datagrams on their way, by the routers they come from and go to.
    pub(super) fn under_way(&self) -> BTreeMap<(usize, usize), u64> {
        let mut counts = BTreeMap::new();
        for scheduled in &self.heap {
            if let Event::Arrive { router, from, .. } = scheduled.event {
                *counts.entry((from, router)).or_default() += 1;
            }
        }
        counts
    }

    /// Takes the next event, if it happens until `end`.
    pub(super) fn next_until(&mut self, end: Instant) -> Option<(Instant, Event)> {
        if self.heap.peek()?.at > end {
            return None;
        }
        self.heap.pop().map(|next| (next.at, next.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_scheduling_and_not_too_early() {
        let mut agenda = Agenda::default();
        for (millis, flow) in [(3, 0), (1, 1), (2, 2), (1, 3)] {
            agenda.add(Instant::from_millis(millis), Event::Turn { flow });
        }
        let mut until = |millis| match agenda.next_until(Instant::from_millis(millis)) {
            Some((at, Event::Turn { flow })) => Some((at.as_nanos() / 1_000_000, flow)),
            _ => None,
        };
        assert_eq!(until(0), None);
        assert_eq!([until(2), until(2), until(2), until(2)], [Some((1, 1)), Some((1, 3)), Some((2, 2)), None]);
        assert_eq!([until(9), until(9)], [Some((3, 0)), None]);
    }
}
