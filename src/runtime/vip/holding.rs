//! What there is of a set on this host, and what one that is on its way waits for.

use super::addresses::Placed;
use super::announce::Schedule;
use super::tracker::Ticket;
use crate::base::Instant;
use std::time::Duration;

/// Time between the first two looks at whether an address is settled; each pause is twice the one before, up to the longest.
const FIRST_LOOK: Duration = Duration::from_micros(200);
const LONGEST_LOOK: Duration = Duration::from_millis(5);
/// After this it is not looked any more.
const SETTLE: Duration = Duration::from_secs(1);

/// What there is of a set.
#[derive(Debug)]
pub(super) enum Holding {
    Nothing,
    Waiting(Waiting),
    Held(Held),
}

/// A set that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) placed: Vec<Placed>,
    pub(super) mute: bool,
    pub(super) schedule: Schedule,
    /// The kernel may not take in yet what comes for it: nobody has been told of it.
    pub(super) settling: Option<Settling>,
}

/// A set that will be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// When nobody else may answer any more.
    pub(super) until: Instant,
    /// Its flows are not there yet; by what they are asked for, and until when they are waited for.
    pub(super) flows: Option<(Ticket, Instant)>,
}

impl Waiting {
    pub(super) fn over_at(self) -> Instant {
        self.flows.map_or(self.until, |(_, flows)| flows.max(self.until))
    }

    /// The flows that were asked for by this are there. What an earlier order asked for is another owner's.
    pub(super) fn prepared(&mut self, ticket: Ticket) {
        self.flows = self.flows.filter(|flows| flows.0 != ticket);
    }
}

/// When it is looked again whether the kernel takes in what comes for a set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    until: Instant,
    look_at: Instant,
    pause: Duration,
}

impl Settling {
    /// At once.
    pub(super) fn new(now: Instant) -> Settling {
        Settling { until: now + SETTLE, look_at: now, pause: FIRST_LOOK }
    }

    pub(super) const fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Nobody waits for it any longer.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// It was looked in vain.
    pub(super) fn looked(&mut self, now: Instant) {
        self.look_at = (now + self.pause).min(self.until);
        self.pause = (self.pause * 2).min(LONGEST_LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_there_when_those_are_that_were_asked_for_last() {
        let until = Instant::from_millis(50);
        let (earlier, last) = (Ticket { set: 3, number: 1 }, Ticket { set: 3, number: 2 });
        let mut waiting = Waiting { until, flows: Some((last, Instant::from_millis(900))) };
        waiting.prepared(earlier);
        assert_eq!(waiting.over_at(), Instant::from_millis(900), "they came of an order that was taken back");
        waiting.prepared(last);
        assert_eq!(waiting.over_at(), until);
    }

    #[test]
    fn it_is_looked_soon_and_then_ever_more_rarely_until_it_is_over() {
        let begin = Instant::from_millis(10);
        let (mut settling, mut looks) = (Settling::new(begin), Vec::new());
        while !settling.is_over(settling.look_at()) {
            looks.push(settling.look_at());
            settling.looked(settling.look_at());
        }
        assert_eq!(settling.look_at(), begin + SETTLE);
        assert_eq!((looks[0], looks[1]), (begin, begin + FIRST_LOOK), "most are settled at once");
        assert!(looks.len() < 210, "{} looks in {SETTLE:?}", looks.len());
    }
}
