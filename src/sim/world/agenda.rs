//! What is going to happen, in order of time.
//!
//! A calendar (Brown 1988). The events of today are in a heap; those of the days that follow in a list for each, in no
//! order until their day comes; the few beyond in another heap. A thousand routers have some forty thousand datagrams
//! and timers ahead of them: one heap of all would be walked through memory that no cache holds, at every event.

use crate::base::Instant;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// A datagram on its way to one of a router's workers, from the same one of another's: both ends of a lane have the same
/// number.
pub(super) struct Datagram {
    pub(super) from: usize,
    pub(super) worker: usize,
    pub(super) bytes: Box<[u8]>,
}

/// When a datagram arrives, and at which router.
pub(super) type Arrival = (Instant, usize, Datagram);

/// What is going to happen.
pub(super) enum Event {
    /// A datagram arrives at a router.
    Arrive { router: usize, datagram: Datagram },
    /// A router's worker hears that nothing listens where it sent to.
    Refused { router: usize, worker: usize, by: usize },
    /// A router's timer; void if the router was given another since.
    Timer { router: usize, generation: u64 },
    /// A router that stood still or was busy goes on.
    Wake { router: usize },
    /// A router that was told to end hears of it.
    Stop { router: usize },
    /// A host of service addresses has something to do.
    Host { router: usize },
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

/// How long a day is, ns: the events of one fit a processor's first caches.
const DAY: u64 = 1 << 18;
/// Days that have lists, 67 ms: the way of a datagram and the pause between two hellos are shorter, most often.
const DAYS: u64 = 256;

fn day_of(at: Instant) -> u64 {
    at.as_nanos() / DAY
}

/// All that is going to happen.
pub(super) struct Agenda {
    /// The day; it may be ahead of the time.
    day: u64,
    /// Events of that day and before. None only if there are none at all.
    today: BinaryHeap<Scheduled>,
    /// Events of the days that follow, a list for each, by day modulo their number.
    days: Box<[Vec<Scheduled>]>,
    /// How many events those are.
    listed: usize,
    /// Events of days beyond those when they were added.
    later: BinaryHeap<Scheduled>,
    /// Memory of days past, used again last in first out: what is in the cache.
    spare: Vec<Vec<Scheduled>>,
    order: u64,
}

impl Default for Agenda {
    fn default() -> Agenda {
        Agenda {
            day: 0,
            today: BinaryHeap::new(),
            days: (0..DAYS).map(|_| Vec::new()).collect(),
            listed: 0,
            later: BinaryHeap::new(),
            spare: Vec::new(),
            order: 0,
        }
    }
}

impl Agenda {
    /// Adds an event; of those at one moment the first added is the first to happen.
    pub(super) fn add(&mut self, at: Instant, event: Event) {
        self.order += 1;
        let scheduled = Scheduled { at, order: self.order, event };
        let day = day_of(at);
        if day <= self.day {
            self.today.push(scheduled);
        } else if day - self.day < DAYS {
            let list = &mut self.days[(day % DAYS) as usize];
            if list.capacity() == 0 {
                *list = self.spare.pop().unwrap_or_default();
            }
            list.push(scheduled);
            self.listed += 1;
        } else {
            self.later.push(scheduled);
        }
        if self.today.is_empty() {
            self.turn();
        }
    }

    /// When the next event happens.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.today.peek().map(|next| next.at)
    }

    /// Datagrams on their way, by the routers they come from and go to.
    pub(super) fn under_way(&self) -> BTreeMap<(usize, usize), u64> {
        let mut counts = BTreeMap::new();
        for scheduled in self.today.iter().chain(self.days.iter().flatten()).chain(&self.later) {
            if let Event::Arrive { router, datagram } = &scheduled.event {
                *counts.entry((datagram.from, *router)).or_default() += 1;
            }
        }
        counts
    }

    /// Takes the next event, if it happens until `end`.
    pub(super) fn next_until(&mut self, end: Instant) -> Option<(Instant, Event)> {
        if self.today.peek()?.at > end {
            return None;
        }
        let next = self.today.pop()?;
        if self.today.is_empty() {
            self.turn();
        }
        Some((next.at, next.event))
    }

    /// Today is over: goes on to the next day on which anything happens.
    fn turn(&mut self) {
        let listed = (self.listed > 0).then(|| {
            let mut ahead = (self.day + 1..).take(DAYS as usize - 1);
            ahead
                .find(|day| !self.days[(day % DAYS) as usize].is_empty())
                .expect("what is listed is of one of these days")
        });
        let later = self.later.peek().map(|first| day_of(first.at));
        let Some(day) = listed.into_iter().chain(later).min() else { return };
        self.day = day;
        let list = std::mem::take(&mut self.days[(day % DAYS) as usize]);
        self.listed -= list.len();
        let over = std::mem::replace(&mut self.today, list.into()).into_vec();
        if over.capacity() > 0 {
            self.spare.push(over);
        }
        while self.later.peek().is_some_and(|first| day_of(first.at) == day) {
            self.today.extend(self.later.pop());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

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

    proptest! {
        /// Events are added for now, for soon, for days ahead and for long after; all happen in the order of a list that
        /// is sorted.
        #[test]
        fn nothing_is_forgotten_or_overtaken(
            steps in prop::collection::vec((0u8..4, prop_oneof![0u64..3 * DAY, 0..2 * DAY * DAYS, 0..9 * DAY * DAYS]), 0..300),
        ) {
            let (mut agenda, mut model, mut now) = (Agenda::default(), BTreeSet::new(), 0);
            for (flow, (what, ahead)) in steps.into_iter().enumerate() {
                if what > 0 {
                    agenda.add(Instant::from_nanos(now + ahead), Event::Turn { flow });
                    model.insert((now + ahead, flow));
                    continue;
                }
                let end = now + ahead;
                loop {
                    prop_assert_eq!(agenda.next_at().map(Instant::as_nanos), model.first().map(|first| first.0));
                    let due = model.first().is_some_and(|first| first.0 <= end);
                    let expected = if due { model.pop_first() } else { None };
                    let Some((at, event)) = agenda.next_until(Instant::from_nanos(end)) else {
                        prop_assert_eq!(expected, None);
                        break;
                    };
                    let Event::Turn { flow } = event else { panic!("only turns were added") };
                    prop_assert_eq!(expected, Some((at.as_nanos(), flow)));
                }
                now = end;
            }
        }
    }
}
