//! How long something took in all runs, beside the bound of each.

use crate::telemetry::{Histogram, Summary};
use serde::Serialize;
use std::time::Duration;

/// The first bar of a histogram ends here, ns; every other at twice as much as the one before.
const FIRST_BAR: u64 = 1_000_000;

/// Collects times.
#[derive(Default)]
pub(super) struct Times {
    histogram: Histogram,
    tenths: [u64; 11],
    most: f64,
    bounds: Option<(f64, f64)>,
}

/// What is said of them.
#[derive(Debug, Serialize)]
pub(super) struct Timing {
    /// The usual figures.
    #[serde(flatten)]
    pub(super) summary: Summary,
    /// The least and the greatest bound of a run, s.
    pub(super) bounds_s: Option<(f64, f64)>,
    /// The greatest share of its bound that a time was.
    pub(super) most_of_bound: f64,
    /// How many were within each tenth of their bounds, and how many beyond.
    pub(super) tenths_of_bound: [u64; 11],
    /// How many there were, by length.
    pub(super) bars: Vec<Bar>,
}

/// A bar of a histogram.
#[derive(Debug, Serialize)]
pub(super) struct Bar {
    /// Where it ends, s; it begins where the one before ends.
    pub(super) up_to_s: f64,
    /// How many.
    pub(super) count: u64,
}

impl Times {
    /// Adds one, which had to be within `bound`.
    pub(super) fn add(&mut self, took: Duration, bound: Duration) {
        self.histogram.record(took);
        let share = took.as_secs_f64() / bound.as_secs_f64();
        self.most = self.most.max(share);
        // The last one is for what is beyond.
        let tenth = if share > 1.0 { 10 } else { ((share * 10.0) as usize).min(9) };
        self.tenths[tenth] += 1;
        let (bound, (least, greatest)) = (bound.as_secs_f64(), self.bounds.unwrap_or((f64::MAX, 0.0)));
        self.bounds = Some((least.min(bound), greatest.max(bound)));
    }

    /// All of them.
    pub(super) fn timing(&self) -> Timing {
        let bars = self.histogram.inner().iter_log(FIRST_BAR, 2.0).map(|bar| Bar {
            up_to_s: (bar.value_iterated_to() + 1) as f64 / 1e9,
            count: bar.count_since_last_iteration(),
        });
        Timing {
            summary: self.histogram.summary(),
            bounds_s: self.bounds,
            most_of_bound: self.most,
            tenths_of_bound: self.tenths,
            bars: bars.skip_while(|bar| bar.count == 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_by_length_and_by_share_of_their_bounds() {
        let mut times = Times::default();
        let millis = Duration::from_millis;
        for (took, bound) in [(3, 100), (90, 100), (100, 100), (101, 100), (5, 10)] {
            times.add(millis(took), millis(bound));
        }
        let timing = times.timing();
        assert_eq!(timing.tenths_of_bound, [1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1]);
        assert_eq!(timing.bounds_s, Some((0.01, 0.1)));
        assert!((timing.most_of_bound - 1.01).abs() < 1e-9);
        assert_eq!(timing.bars.iter().map(|bar| bar.count).sum::<u64>(), 5);
        let (first, last) = (&timing.bars[0], timing.bars.last().expect("some"));
        assert!(first.count == 1 && (0.003..0.005).contains(&first.up_to_s), "{timing:?}");
        assert!(last.count == 3 && (0.1..0.14).contains(&last.up_to_s), "{timing:?}");
        assert_eq!(Times::default().timing().bars.len(), 0);
    }
}
