//! What is counted of received messages.

use super::message::Message;
use super::talk::Counted;
use crate::containers::window::{Seen, SequenceWindow};
use crate::telemetry::hlog;
use hdrhistogram::Histogram;

/// Messages that are remembered to tell duplicates.
const REMEMBERED: usize = 1 << 20;

/// An empty histogram of nanoseconds, 1 µs to 100 s with 0.1 % precision.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 100_000_000_000, 3).expect("the bounds are constants that HdrHistogram accepts")
}

/// Counts of one interval, or of all.
#[derive(Clone, Debug)]
struct Counts {
    counted: Counted,
    latencies: Histogram<u64>,
}

impl Counts {
    fn new() -> Counts {
        Counts { counted: Counted::default(), latencies: histogram() }
    }
}

/// The receiving end's books.
#[derive(Debug)]
pub(super) struct Tally {
    seen: SequenceWindow<REMEMBERED>,
    highest: Option<u64>,
    first: Option<u64>,
    last: u64,
    total: Counts,
    interval: Counts,
    interval_start: u64,
}

impl Tally {
    /// Empty books.
    pub(super) fn new() -> Tally {
        Tally {
            seen: SequenceWindow::new(),
            highest: None,
            first: None,
            last: 0,
            total: Counts::new(),
            interval: Counts::new(),
            interval_start: 0,
        }
    }

    /// Different messages so far.
    pub(super) const fn received(&self) -> u64 {
        self.total.counted.received
    }

    /// Takes in a message of `size` bytes that arrived at `now`, ns.
    pub(super) fn take(&mut self, message: &Message, size: usize, marked: bool, now: u64) {
        if self.first.is_none() {
            self.first = Some(now);
            self.interval_start = now;
        }
        self.last = self.last.max(now);
        // One older than the window remembers is taken for a duplicate: a million later ones came first.
        let duplicate = self.seen.insert(message.sequence) != Seen::New;
        let reordered = !duplicate && self.highest.is_some_and(|highest| message.sequence < highest);
        self.highest = self.highest.max(Some(message.sequence));
        // Zero where the clocks disagree by more than the latency.
        let latency = now.saturating_sub(message.intended);
        for counts in [&mut self.total, &mut self.interval] {
            let counted = &mut counts.counted;
            if duplicate {
                counted.duplicated += 1;
                continue;
            }
            counted.received += 1;
            counted.reordered += u64::from(reordered);
            counted.marked += u64::from(marked);
            counted.bytes += size as u64;
            counts.latencies.saturating_record(latency);
        }
    }

    /// Closes the interval, if it has lasted `length` ns at `now`.
    pub(super) fn close_interval(&mut self, now: u64, length: u64) -> Option<Counted> {
        let first = self.first?;
        if now.saturating_sub(self.interval_start) < length {
            return None;
        }
        let closed = std::mem::replace(&mut self.interval, Counts::new());
        let start = std::mem::replace(&mut self.interval_start, now);
        Some(finish(closed, first, start, now))
    }

    /// The open interval, unless it is empty, and all.
    pub(super) fn finish(self) -> (Option<Counted>, Counted) {
        let first = self.first.unwrap_or(0);
        let open = (self.interval.counted.received + self.interval.counted.duplicated > 0)
            .then(|| finish(self.interval, first, self.interval_start, self.last));
        (open, finish(self.total, first, first, self.last))
    }
}

fn finish(counts: Counts, first: u64, start: u64, end: u64) -> Counted {
    let seconds = |at: u64| at.saturating_sub(first) as f64 / 1e9;
    Counted { start: seconds(start), end: seconds(end), latencies: hlog::encode(&counts.latencies), ..counts.counted }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn message(sequence: u64, intended: u64) -> Message {
        Message { test: 1, echo: false, sequence, intended }
    }

    #[test]
    fn losses_duplicates_and_reorderings_are_told_apart() {
        let mut tally = Tally::new();
        for (arrival, sequence) in [0, 2, 1, 2, 5].into_iter().enumerate() {
            tally.take(&message(sequence, 0), 100, sequence == 5, 10 * MS + arrival as u64 * MS);
        }
        let (open, all) = tally.finish();
        assert_eq!((all.received, all.duplicated, all.reordered, all.marked, all.bytes), (4, 1, 1, 1, 400));
        assert_eq!((all.start, all.end), (0.0, 0.004));
        assert_eq!(open.map(|open| open.received), Some(4));
    }

    #[test]
    fn latency_counts_from_the_intended_time() {
        let mut tally = Tally::new();
        tally.take(&message(0, 5 * MS), 100, false, 25 * MS);
        tally.take(&message(1, 90 * MS), 100, false, 80 * MS);
        let (_, all) = tally.finish();
        let latencies = hlog::decode(&all.latencies).expect("is a histogram");
        assert!(latencies.max().abs_diff(20 * MS) < MS / 10, "{}", latencies.max());
        assert!(latencies.min() <= 1_024, "a clock that is behind gives no latency, not a huge one");
    }

    #[test]
    fn intervals_add_up_to_all() {
        let mut tally = Tally::new();
        let mut closed = Vec::new();
        for n in 0..100 {
            tally.take(&message(n, n * MS), 10, false, n * MS + MS);
            closed.extend(tally.close_interval(n * MS + MS, 30 * MS));
        }
        assert_eq!(closed.len(), 3);
        let (open, all) = tally.finish();
        let parts: u64 = closed.iter().chain(&open).map(|part| part.received).sum();
        assert_eq!((parts, all.received), (100, 100));
    }
}
