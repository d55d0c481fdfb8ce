//! Idle strategies: whether a worker that has nothing to do looks again at once or waits in the kernel.
//!
//! - *spin* looks again at once: nothing is ever waited for, and a whole core is gone whatever happens.
//! - *wait* sleeps until a datagram, the doorbell or the next deadline: one wait with one timeout, and nothing else is
//!   armed, however many packets have timers. Each wake-up is paid for by the packet that causes it.
//! - *adaptive* spins while packets come often and for a moment after the last one, so that under load it is as fast as
//!   spinning, and without load as cheap as waiting.
//!
//! What each costs on a machine `sinew tune` measures.

use crate::base::Instant;
use crate::config::settings::Idle;
use std::time::Duration;

/// Adaptive idling spins after a packet for at least this long: a wake-up costs us 25 µs and our neighbour 8 µs (measured).
const SPIN: Duration = Duration::from_micros(50);
/// And for as many times the interval at which packets came lately, or the next one would find it asleep after all: with
/// [`SPIN`] alone, 10,000 packets a second, evenly spaced, gained 3 of 24 µs for three times the processor time (measured).
const INTERVALS: u32 = 2;
/// Adaptive idling spins only above this many packets a second: below it, waiting costs nothing that matters.
const SPIN_RATE: u64 = 5_000;
/// How often the packet rate is taken.
const RATE_WINDOW: Duration = Duration::from_millis(10);

/// Whether to look again at once or to wait in the kernel.
#[derive(Debug)]
pub struct Pace {
    idle: Idle,
    last: Option<Instant>,
    window: Instant,
    counted: u64,
    /// How long to spin after a packet; none without load.
    spin: Option<Duration>,
}

impl Pace {
    /// At the beginning: nothing was counted yet.
    pub fn new(idle: Idle) -> Pace {
        Pace { idle, last: None, window: Instant::ZERO, counted: 0, spin: None }
    }

    /// So many packets and records were handled in a turn that began now.
    pub fn count(&mut self, now: Instant, packets: usize) {
        if packets > 0 {
            self.last = Some(now);
            self.counted += packets as u64;
        }
        let passed = now.since(self.window);
        if passed >= RATE_WINDOW {
            let per_second = u128::from(self.counted) * 1_000_000_000 / passed.as_nanos();
            let interval = || passed / u32::try_from(self.counted).unwrap_or(u32::MAX);
            self.spin = (per_second >= u128::from(SPIN_RATE)).then(|| SPIN.max(interval() * INTERVALS));
            (self.window, self.counted) = (now, 0);
        }
    }

    /// Whether to look again at once.
    pub fn spins(&self, now: Instant) -> bool {
        match self.idle {
            Idle::Spin => true,
            Idle::Wait => false,
            Idle::Adaptive => self.last.zip(self.spin).is_some_and(|(last, spin)| now.since(last) < spin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_idling_spins_only_under_load_and_shortly_after_a_packet() {
        let at = |micros: u64| Instant::from_nanos(micros * 1_000);
        let mut pace = Pace::new(Idle::Adaptive);
        pace.count(at(10), 1);
        assert!(!pace.spins(at(11)), "one packet is no load");
        for micros in (100..30_000).step_by(100) {
            pace.count(at(micros), 1);
        }
        assert!(pace.spins(at(29_990)), "10,000 packets a second: the next one is due");
        assert!(!pace.spins(at(30_110)), "210 µs after the last one, none came when it was due");
        for micros in (30_000..60_000).step_by(10) {
            pace.count(at(micros), 1);
        }
        assert!(
            pace.spins(at(60_030)) && !pace.spins(at(60_050)),
            "100,000 packets a second: 60 µs without one is a pause"
        );
        pace.count(at(90_000), 0);
        assert!(!pace.spins(at(90_001)));
        assert!(Pace::new(Idle::Spin).spins(at(1)));
        assert!(!Pace::new(Idle::Wait).spins(at(1)));
    }
}
