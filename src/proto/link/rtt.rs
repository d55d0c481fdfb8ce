//! Round trips: how long an answer takes, and how much longer it sometimes takes.
//!
//! The smoothed estimate follows RFC 6298. Two figures are added. The smallest round trip of the last seconds tells the
//! path without its queues. The *lateness* of answers, kept as a histogram that forgets, says how long the loss timer
//! must wait on this path and these machines so that fewer than one answer in two thousand comes too late.

use crate::base::Instant;
use std::time::Duration;

/// Assumed before the first sample. RFC 9002 says 333 ms; an overlay's links are shorter, and a hello gives a sample
/// before the first message can be sent.
const INITIAL: Duration = Duration::from_millis(100);
/// How long a smallest round trip is remembered (one to two of these).
const MIN_MEMORY: Duration = Duration::from_secs(10);

/// The round-trip estimator of one link.
#[derive(Clone, Debug)]
pub(super) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    latest: Duration,
    minima: [Duration; 2],
    minima_since: Instant,
    lateness: Lateness,
}

impl Rtt {
    /// An estimator without a sample.
    pub(super) fn new() -> Rtt {
        Rtt {
            smoothed: None,
            variation: INITIAL / 2,
            latest: INITIAL,
            minima: [Duration::MAX; 2],
            minima_since: Instant::ZERO,
            lateness: Lateness::new(),
        }
    }

    /// Takes a sample, free of the other end's delay.
    pub(super) fn sample(&mut self, now: Instant, rtt: Duration) {
        self.late(rtt);
        self.latest = rtt;
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            // RFC 6298 section 2.3, alpha 1/8 and beta 1/4.
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
        if now.since(self.minima_since) > MIN_MEMORY {
            self.minima = [Duration::MAX, self.minima[0]];
            self.minima_since = now;
        }
        self.minima[0] = self.minima[0].min(rtt);
    }

    /// Notes that an answer took this long, also where that is no sample of the round trip (a reordered packet).
    pub(super) fn late(&mut self, took: Duration) {
        if let Some(smoothed) = self.smoothed {
            self.lateness.record(took.saturating_sub(smoothed));
        }
    }

    /// Whether anything was measured.
    pub(super) const fn has_sample(&self) -> bool {
        self.smoothed.is_some()
    }

    /// Smoothed round trip.
    pub(super) fn smoothed(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL)
    }

    /// Mean deviation.
    pub(super) const fn variation(&self) -> Duration {
        self.variation
    }

    /// The latest sample.
    pub(super) const fn latest(&self) -> Duration {
        self.latest
    }

    /// Smallest sample of the last seconds.
    pub(super) fn min(&self) -> Duration {
        let min = self.minima[0].min(self.minima[1]);
        if min == Duration::MAX { self.smoothed() } else { min }
    }

    /// What an answer that comes now may be expected to have taken: the smoothed round trip, or the latest where
    /// queues grow faster than smoothing follows (RFC 9002 section 6.1.2 takes the larger for the same reason).
    pub(super) fn expected(&self) -> Duration {
        self.smoothed().max(self.latest.min(self.smoothed() * 2))
    }

    /// How much later than expected an answer may come without being missed.
    pub(super) fn lateness(&self) -> Duration {
        self.lateness.quantile
    }
}

const BUCKETS: usize = 128;
const BUCKET: Duration = Duration::from_micros(250);
/// Answers after which the histogram is halved, so that it forgets.
const MEMORY: u32 = 8192;
/// One answer in this many may be later than the quantile says: half the share of needless retransmissions allowed.
const RARE: u32 = 2000;

/// A histogram of how much later than the smoothed round trip answers came.
#[derive(Clone, Debug)]
struct Lateness {
    counts: [u32; BUCKETS],
    total: u32,
    quantile: Duration,
}

impl Lateness {
    const fn new() -> Lateness {
        Lateness { counts: [0; BUCKETS], total: 0, quantile: Duration::ZERO }
    }

    fn record(&mut self, late: Duration) {
        let bucket = ((late.as_nanos() / BUCKET.as_nanos()) as usize).min(BUCKETS - 1);
        self.counts[bucket] += 1;
        self.total += 1;
        if self.total >= MEMORY {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
            self.find_quantile();
        } else if (bucket > 0 && BUCKET * bucket as u32 >= self.quantile) || self.total.is_multiple_of(256) {
            self.find_quantile();
        }
    }

    fn find_quantile(&mut self) {
        let (mut above, allowed) = (0, self.total / RARE);
        for bucket in (0..BUCKETS).rev() {
            above += self.counts[bucket];
            if above > allowed {
                // The first bucket is ordinary jitter, which the mean deviation covers.
                self.quantile = if bucket == 0 { Duration::ZERO } else { BUCKET * (bucket as u32 + 1) };
                return;
            }
        }
        self.quantile = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn follows_rfc_6298() {
        let mut rtt = Rtt::new();
        rtt.sample(Instant::ZERO, ms(20));
        assert_eq!((rtt.smoothed(), rtt.variation()), (ms(20), ms(10)));
        rtt.sample(Instant::ZERO, ms(28));
        assert_eq!((rtt.smoothed(), rtt.variation()), (ms(21), Duration::from_micros(9500)));
        assert_eq!((rtt.min(), rtt.latest(), rtt.expected()), (ms(20), ms(28), ms(28)));
    }

    #[test]
    fn the_minimum_is_forgotten() {
        let mut rtt = Rtt::new();
        rtt.sample(Instant::ZERO, ms(5));
        for second in 0..30 {
            rtt.sample(Instant::from_millis(second * 1000), ms(20));
        }
        assert_eq!(rtt.min(), ms(20));
    }

    #[test]
    fn frequent_lateness_is_waited_for_and_rare_lateness_is_not() {
        let mut rtt = Rtt::new();
        let mut every = |period: u32, count: u32| {
            for n in 1..=count {
                rtt.sample(Instant::ZERO, if n % period == 0 { ms(26) } else { ms(20) });
            }
            rtt.lateness()
        };
        assert!(every(500, 2000) >= ms(5), "one in 500 is late: wait for them");
        assert_eq!(every(6000, 24_000), Duration::ZERO, "one in 6000 is late: do not");
    }
}
