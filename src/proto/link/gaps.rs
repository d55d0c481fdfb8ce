//! How long a message was missing: from the moment its absence showed to the moment its repetition arrived.
//!
//! Link sequence numbers are given at first sending, in order. When a message arrives whose number is beyond the next
//! expected one, those between are missing as of now. One that then comes in a packet younger than the packet that
//! revealed the gap was repeated: its time counts. One that comes in an older packet was only overtaken on the way, and
//! does not count. A loss at the very end of a burst shows no gap, so only the sender measures it.
//!
//! Bound: [`MAX_GAPS`] gaps at a time; one more takes the place of the oldest, which is recovered all the same, but not
//! timed. So leave, too, the gaps that will never be filled because the link was down in between.

use crate::base::Instant;
use std::time::Duration;

/// Gaps remembered at a time.
pub(super) const MAX_GAPS: usize = 64;

/// Consecutive numbers that went missing together; some may have come since.
#[derive(Clone, Copy, Debug)]
struct Gap {
    first: u64,
    last: u64,
    noticed: Instant,
    /// The packet that revealed it.
    revealed_by: u64,
    /// How many still miss.
    missing: u64,
}

/// The gaps of one link's reliable messages, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Gaps {
    open: Vec<Gap>,
}

impl Gaps {
    /// No gap.
    pub(super) fn new() -> Gaps {
        Gaps { open: Vec::with_capacity(MAX_GAPS) }
    }

    /// Gaps remembered.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Message `sequence` arrived for the first time, in packet `number`, when `expected` would have been the next new
    /// one. Tells how long it was known to be missing, if it was repeated.
    pub(super) fn on_new(&mut self, now: Instant, number: u64, sequence: u64, expected: u64) -> Option<Duration> {
        if sequence >= expected {
            if sequence > expected {
                if self.open.len() == MAX_GAPS {
                    self.open.remove(0);
                }
                let (first, last, missing) = (expected, sequence - 1, sequence - expected);
                self.open.push(Gap { first, last, noticed: now, revealed_by: number, missing });
            }
            return None;
        }
        let place = self.open.iter().position(|gap| (gap.first..=gap.last).contains(&sequence))?;
        let gap = &mut self.open[place];
        let (noticed, repeated) = (gap.noticed, number > gap.revealed_by);
        gap.missing -= 1;
        if gap.missing == 0 {
            self.open.remove(place);
        }
        repeated.then(|| now.since(noticed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn only_what_was_repeated_is_timed() {
        let mut gaps = Gaps::new();
        assert_eq!(gaps.on_new(at(0), 10, 0, 0), None);
        assert_eq!(gaps.on_new(at(5), 13, 3, 1), None, "1 and 2 are missing");
        assert_eq!(gaps.on_new(at(6), 12, 2, 4), None, "it was overtaken");
        assert_eq!(gaps.on_new(at(27), 20, 1, 4), Some(Duration::from_millis(22)));
        assert!(gaps.open.is_empty(), "both have come");
        assert_eq!(gaps.on_new(at(28), 21, 4, 4), None);
    }

    #[test]
    fn gaps_beyond_the_bound_are_not_timed() {
        let mut gaps = Gaps::new();
        let many = MAX_GAPS as u64 + 10;
        for gap in 0..many {
            assert_eq!(gaps.on_new(at(gap), gap, gap * 2 + 1, gap * 2), None);
        }
        let timed = (0..many).filter(|gap| gaps.on_new(at(1_000), 1_000, gap * 2, many * 2).is_some());
        assert_eq!((timed.count(), gaps.open.len()), (MAX_GAPS, 0));
    }
}
