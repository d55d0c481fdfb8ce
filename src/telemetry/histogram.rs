//! Latency histograms: HdrHistogram over nanoseconds, recorded without allocation but for the first time.

use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::time::Duration;

/// Longest duration told apart, ns: longer ones count as this.
const HIGHEST_NS: u64 = 100_000_000_000;

type Inner = hdrhistogram::Histogram<u64>;

/// Durations from 1 µs to 100 s with 1 % precision, in a fixed memory of about 25 KiB, which the first of them takes:
/// most of a router's histograms never count anything.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Option<Box<Inner>>);

fn empty() -> Inner {
    Inner::new_with_bounds(1_000, HIGHEST_NS, 2).expect("the bounds are constants that HdrHistogram accepts")
}

impl Histogram {
    /// An empty histogram.
    pub const fn new() -> Histogram {
        Histogram(None)
    }

    fn inner_mut(&mut self) -> &mut Inner {
        self.0.get_or_insert_with(|| Box::new(empty()))
    }

    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        self.inner_mut().saturating_record(u64::try_from(duration.as_nanos()).unwrap_or(HIGHEST_NS));
    }

    /// Counts several equal durations at the price of one.
    pub fn record_several(&mut self, duration: Duration, times: u64) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(HIGHEST_NS);
        self.inner_mut().saturating_record_n(nanos, times);
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Histogram) {
        let Some(more) = &other.0 else { return };
        let added = self.inner_mut().add(&**more);
        added.expect("all histograms of this type have the same bounds");
    }

    /// Number of durations counted.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.len())
    }

    /// Its counts, to be summarised elsewhere.
    pub fn counts(&self) -> Counts {
        let Some(inner) = &self.0 else { return Counts::default() };
        let mut counts = Vec::with_capacity(64);
        counts.extend(inner.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())));
        Counts(counts)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if let Some(inner) = &mut self.0 {
            inner.reset();
        }
    }

    /// The histogram underneath, in nanoseconds.
    pub fn inner(&self) -> &hdrhistogram::Histogram<u64> {
        static EMPTY: OnceLock<Inner> = OnceLock::new();
        self.0.as_deref().unwrap_or_else(|| EMPTY.get_or_init(empty))
    }

    /// The figures users read.
    pub fn summary(&self) -> Summary {
        let Some(inner) = self.0.as_deref().filter(|inner| !inner.is_empty()) else { return Summary::default() };
        let at = |quantile: f64| inner.value_at_quantile(quantile) as f64 / 1e3;
        Summary {
            count: inner.len(),
            mean_us: inner.mean() / 1e3,
            sd_us: inner.stdev() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: at(1.0),
        }
    }
}

/// The counts of a histogram that are not zero: a few hundred bytes, made in half the time of a summary and far less than
/// a whole copy's, so that others can summarise what a busy thread recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(Vec<(u64, u64)>);

impl Counts {
    /// Whether nothing was counted.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The figures users read, as [`Histogram::summary`] gives them.
    pub fn summary(&self) -> Summary {
        self.histogram().summary()
    }

    /// The histogram that they are the counts of.
    pub fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::new();
        for &(value, count) in &self.0 {
            histogram.inner_mut().saturating_record_n(value, count);
        }
        histogram
    }
}

/// What a histogram says, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of durations.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Standard deviation.
    pub sd_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Maximum.
    pub max_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recording_never_grows_it() {
        let mut histogram = Histogram::new();
        histogram.record_several(Duration::from_millis(1), 3);
        let places = histogram.inner().distinct_values();
        for duration in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(99), Duration::MAX] {
            histogram.record(duration);
        }
        assert_eq!((histogram.count(), histogram.inner().distinct_values()), (7, places));
        assert!(!histogram.inner().is_auto_resize());
    }

    #[test]
    fn summarises_what_it_recorded() {
        let (mut a, mut b) = (Histogram::new(), Histogram::new());
        (1..=50).for_each(|ms| a.record(Duration::from_millis(ms)));
        (51..=100).for_each(|ms| b.record(Duration::from_millis(ms)));
        a.merge(&b);
        a.record(Duration::from_secs(1000));
        let summary = a.summary();
        assert_eq!(summary.count, 101);
        assert!((summary.p50_us - 51_000.0).abs() < 600.0, "{summary:?}");
        assert!(summary.max_us >= 99e6, "{summary:?}");
        assert_eq!(Histogram::new().summary(), Summary::default());
    }

    proptest::proptest! {
        #[test]
        fn counts_say_what_the_histogram_says(micros in proptest::collection::vec(0u64..200_000_000, 0..200)) {
            let mut histogram = Histogram::new();
            micros.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
            proptest::prop_assert_eq!(histogram.counts().summary(), histogram.summary());
            let again = histogram.counts().histogram();
            proptest::prop_assert_eq!(again.inner(), histogram.inner());
        }
    }
}
