//! How far the neighbour's clock is from ours, and so how long its packets are on the way.
//!
//! Both clocks start at arbitrary moments and drift. A hello says when it left by the neighbour's clock, and when our
//! own last hello arrived there. Nothing arrives before it was sent, so each hello bounds the difference from both sides:
//!
//! ```text
//!   neighbour's clock minus ours   ≥   its hello's departure (theirs) − its arrival (ours)
//!                                  ≤   our hello's arrival (theirs) − its departure (ours)
//! ```
//!
//! The two bounds of one exchange are a round trip apart. The tightest of each kind are kept, so the estimate, their
//! middle, is wrong by at most half of the least round trip, and by less where the two directions were least busy at
//! different moments. The true difference may be anywhere between the bounds: no exchange of messages can tell a path
//! that is slower one way from clocks that differ more. That is the error stated.
//!
//! Bounds age: they are widened by [`DRIFT_PPM`] and forgotten after one to two [`MEMORY`]s, so drift is followed. Bounds
//! that contradict each other mean that a clock was set or stood still; the newest exchange is then believed alone.

use crate::base::Instant;
use std::time::Duration;

/// By how much two clocks may drift apart, parts per million: crystals are good for 50 each.
const DRIFT_PPM: i128 = 100;
/// How long a bound is remembered (one to two of these).
const MEMORY: Duration = Duration::from_secs(10);

/// A bound on the difference of the clocks, ns, and when it was learned. Upper bounds are held negated, so that the
/// larger of two is always the tighter.
#[derive(Clone, Copy, Debug)]
struct Bound {
    at_least: i128,
    learned: Instant,
}

impl Bound {
    /// What is left of it now.
    fn aged(self, now: Instant) -> i128 {
        self.at_least - now.since(self.learned).as_nanos() as i128 * DRIFT_PPM / 1_000_000
    }
}

/// What is known of the neighbour's clock.
#[derive(Clone, Debug)]
pub(super) struct PeerClock {
    /// Lower bounds, then negated upper bounds: the tightest of this while and of the one before.
    bounds: [[Option<Bound>; 2]; 2],
    since: Instant,
    exchanged: Instant,
}

/// The difference between the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The neighbour's clock minus ours, ns.
    pub(super) ahead_ns: i128,
    /// By how much that may be wrong.
    pub(super) error: Duration,
}

impl PeerClock {
    /// Nothing is known.
    pub(super) const fn new() -> PeerClock {
        PeerClock { bounds: [[None; 2]; 2], since: Instant::ZERO, exchanged: Instant::ZERO }
    }

    /// A hello arrived that left at `theirs` (their clock) and echoes one of ours that left at `ours` (our clock) and
    /// was held there for `held`.
    pub(super) fn on_exchange(&mut self, now: Instant, theirs: u64, ours: Instant, held: Duration) {
        let theirs = i128::from(theirs);
        let lower = theirs - i128::from(now.as_nanos());
        let upper = theirs - held.as_nanos() as i128 - i128::from(ours.as_nanos());
        let exchange = [lower, -upper];
        if self.bounds(now).is_some_and(|(below, above)| lower > above || upper < below) {
            *self = PeerClock { since: now, ..PeerClock::new() };
        }
        if now.since(self.since) > MEMORY {
            self.bounds = self.bounds.map(|[latest, _]| [None, latest]);
            self.since = now;
        }
        self.exchanged = now;
        for (kept, at_least) in self.bounds.iter_mut().zip(exchange) {
            if kept[0].is_none_or(|bound| bound.aged(now) <= at_least) {
                kept[0] = Some(Bound { at_least, learned: now });
            }
        }
    }

    /// The tightest lower bound and the tightest upper one, ns.
    fn bounds(&self, now: Instant) -> Option<(i128, i128)> {
        let [lower, upper] = self.bounds.map(|kept| kept.into_iter().flatten().map(|bound| bound.aged(now)).max());
        Some((lower?, -upper?))
    }

    /// The difference as the last exchange left it; none before the first.
    pub(super) fn latest(&self) -> Option<Difference> {
        self.difference(self.exchanged)
    }

    /// The difference; none before the first exchange.
    pub(super) fn difference(&self, now: Instant) -> Option<Difference> {
        let (lower, upper) = self.bounds(now)?;
        let half = u64::try_from((upper - lower).max(0) / 2).unwrap_or(u64::MAX);
        Some(Difference { ahead_ns: lower + (upper - lower) / 2, error: Duration::from_nanos(half) })
    }

    /// How long something was on the way that left at `theirs` (their clock) and arrives now.
    pub(super) fn one_way(&self, now: Instant, theirs: u64) -> Option<Duration> {
        let left = i128::from(theirs) - self.difference(now)?.ahead_ns;
        let took = (i128::from(now.as_nanos()) - left).max(0);
        Some(Duration::from_nanos(u64::try_from(took).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    const MS: u64 = 1_000_000;

    /// Two clocks in true time and the paths between them.
    struct Bench {
        clock: PeerClock,
        rng: Rng,
        /// Their clock at true time zero, ns, and its drift against ours.
        ahead: i128,
        drift_ppm: i128,
        /// Least delays there and back, and random queueing on top of each, ns.
        there: u64,
        back: u64,
        queueing: u64,
    }

    impl Bench {
        fn theirs(&self, at: u64) -> u64 {
            let clock = i128::from(at) + self.ahead + i128::from(at) * self.drift_ppm / 1_000_000;
            u64::try_from(clock).expect("their clock has started")
        }

        /// An exchange that ends at about `at`: gives our time of arrival and what was truly the way back.
        fn exchange(&mut self, at: u64) -> (Instant, u64, Duration) {
            let mut queueing = |bound: u64| if bound == 0 { 0 } else { (self.rng.unit() * bound as f64) as u64 };
            let (there, back) = (self.there + queueing(self.queueing), self.back + queueing(self.queueing));
            let held = 3 * MS;
            let (arrives, leaves) = (at + there, at + there + held);
            let now = Instant::from_nanos(leaves + back);
            let told = self.theirs(leaves);
            let held = Duration::from_nanos(told - self.theirs(arrives));
            self.clock.on_exchange(now, told, Instant::from_nanos(at), held);
            (now, told, Duration::from_nanos(back))
        }
    }

    fn bench(ahead_s: i128, drift_ppm: i128, there: u64, back: u64, queueing: u64) -> Bench {
        let (clock, rng, ahead) = (PeerClock::new(), Rng::from_u64(7), ahead_s * 1_000_000_000);
        Bench { clock, rng, ahead, drift_ppm, there, back, queueing }
    }

    #[test]
    fn like_paths_are_measured_through_offset_drift_and_queues() {
        // Two exchanges meet least queues within seconds; drift costs the age of the best ones.
        for (ahead_s, drift_ppm) in [(0, 0), (5_000, 0), (900, 40), (900, -40), (-50, 80)] {
            let mut bench = bench(ahead_s, drift_ppm, 10 * MS, 10 * MS, 5 * MS);
            let mut worst = 0.0_f64;
            for turn in 0..6_000_u64 {
                let (now, told, truth) = bench.exchange(100_000 * MS + turn * 40 * MS);
                let took = bench.clock.one_way(now, told).expect("an exchange happened");
                if turn > 250 {
                    worst = worst.max((took.as_secs_f64() - truth.as_secs_f64()).abs() * 1e3);
                }
            }
            assert!(worst < 0.8, "clock {ahead_s} s ahead, drift {drift_ppm} ppm: wrong by {worst} ms");
        }
    }

    #[test]
    fn the_truth_is_within_the_stated_error_on_unlike_paths() {
        let mut bench = bench(77, 60, 4 * MS, 26 * MS, 3 * MS);
        for turn in 0..3_000_u64 {
            let (now, told, truth) = bench.exchange(1_000 * MS + turn * 40 * MS);
            let took = bench.clock.one_way(now, told).expect("an exchange happened");
            let error = bench.clock.difference(now).expect("an exchange happened").error;
            assert!(took.abs_diff(truth) <= error, "{took:?} ± {error:?} is not {truth:?}");
            if turn > 250 {
                assert!(error < Duration::from_millis(17), "half of the least round trip is 15 ms, not {error:?}");
                assert!(error > Duration::from_millis(14), "unlike paths cannot be told from clocks");
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_is_believed_again() {
        let mut bench = bench(10, 0, 5 * MS, 5 * MS, 0);
        bench.exchange(1_000 * MS);
        bench.ahead += 3_600_000_000_000;
        let (now, told, truth) = bench.exchange(1_040 * MS);
        assert_eq!(bench.clock.one_way(now, told), Some(truth));
        // A jump too small to be a contradiction is forgotten with the bounds it falsified.
        bench.ahead += 4_000_000;
        for turn in 0..600 {
            bench.exchange(2_000 * MS + turn * 40 * MS);
        }
        let (now, told, truth) = bench.exchange(30_000 * MS);
        let took = bench.clock.one_way(now, told).expect("an exchange happened");
        assert!(took.abs_diff(truth) < Duration::from_micros(10), "{took:?} is not {truth:?}");
    }

    #[test]
    fn absurd_clocks_are_only_absurd_figures() {
        let mut clock = PeerClock::new();
        assert_eq!(clock.difference(Instant::ZERO), None);
        for theirs in [u64::MAX, 0, 1, u64::MAX] {
            clock.on_exchange(Instant::from_millis(5), theirs, Instant::ZERO, Duration::from_secs(4_000));
            assert!(clock.one_way(Instant::from_millis(6), 0).is_some());
        }
    }
}
