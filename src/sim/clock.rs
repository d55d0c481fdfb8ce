//! A router's own clocks: the monotonic one may drift, the one on the wall may be wrong and jump.

use crate::base::{Instant, WallTime};
use std::time::Duration;

/// Wall time at instant zero of every simulation: 2026-01-01.
const WALL: u64 = 1_767_225_600_000_000_000;
const MILLION: i128 = 1_000_000;

/// The clocks of one router. The monotonic one reads zero when the router starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The world's time and this clock's, when it last changed its pace.
    world: Instant,
    local: Instant,
    /// How much faster than the world it runs, parts per million.
    ppm: i32,
    /// The wall clock's error.
    wall_error: i64,
}

impl Clock {
    /// Exact clocks.
    pub(super) const fn new() -> Clock {
        Clock { world: Instant::ZERO, local: Instant::ZERO, ppm: 0, wall_error: 0 }
    }

    /// The router starts: its monotonic clock begins at zero.
    pub(super) const fn restart(&mut self, now: Instant) {
        (self.world, self.local) = (now, Instant::ZERO);
    }

    /// What the monotonic clock reads at the world's `now`.
    pub(super) fn local(&self, now: Instant) -> Instant {
        let passed = i128::from(now.as_nanos()) - i128::from(self.world.as_nanos());
        let passed = passed + passed * i128::from(self.ppm) / MILLION;
        Instant::from_nanos((i128::from(self.local.as_nanos()) + passed).max(0) as u64)
    }

    /// The first moment of the world at which the monotonic clock reads `local` or more.
    pub(super) fn world(&self, local: Instant) -> Instant {
        let wanted = i128::from(local.as_nanos()) - i128::from(self.local.as_nanos());
        let passed = wanted * MILLION / (MILLION + i128::from(self.ppm));
        let about = i128::from(self.world.as_nanos()) + passed;
        let mut at = Instant::from_nanos(about.clamp(0, i128::from(u64::MAX)) as u64);
        while self.local(at) < local && at < Instant::MAX {
            at += Duration::from_nanos(1);
        }
        at
    }

    /// From now on the monotonic clock runs this much faster than the world.
    pub(super) fn drift(&mut self, now: Instant, ppm: i32) {
        assert!(ppm.abs() < 1_000_000, "a clock runs forwards");
        (self.local, self.world) = (self.local(now), now);
        self.ppm = ppm;
    }

    /// The wall clock jumps.
    pub(super) const fn step(&mut self, by: i64) {
        self.wall_error = self.wall_error.saturating_add(by);
    }

    /// The wall clock is off by this much from now on.
    pub(super) const fn set_wrong(&mut self, by: i64) {
        self.wall_error = by;
    }

    /// Whether the wall clock is wrong.
    pub(super) const fn is_wrong(&self) -> bool {
        self.wall_error != 0
    }

    /// What the wall clock reads.
    pub(super) const fn wall(&self, now: Instant) -> WallTime {
        WallTime::from_nanos((WALL + now.as_nanos()).saturating_add_signed(self.wall_error))
    }
}

/// The wall clock of a world without errors.
pub(super) const fn right_wall(now: Instant) -> WallTime {
    WallTime::from_nanos(WALL + now.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_as_asked_and_can_be_turned_round() {
        for ppm in [-500, -1, 0, 1, 500] {
            let mut clock = Clock::new();
            clock.restart(Instant::from_millis(5000));
            assert_eq!(clock.local(Instant::from_millis(5000)), Instant::ZERO);
            clock.drift(Instant::from_millis(6000), ppm);
            let later = clock.local(Instant::from_millis(1_006_000));
            assert_eq!(later.as_nanos() as i64, 1_001_000_000_000 + i64::from(ppm) * 1_000_000);
            for nanos in [1_000_000_000, 1_000_000_001, 1_234_567_891, 77_777_777_777] {
                let local = Instant::from_nanos(nanos);
                let at = clock.world(local);
                assert!(clock.local(at) >= local, "{ppm} {nanos}");
                assert!(
                    clock.local(at - Duration::from_nanos(1)) < local || ppm > 0,
                    "{ppm} {nanos}: not later than needed"
                );
            }
        }
    }

    #[test]
    fn the_wall_clock_jumps_and_is_set() {
        let mut clock = Clock::new();
        clock.step(-3_600_000_000_000);
        assert_eq!(clock.wall(Instant::ZERO).as_nanos(), WALL - 3_600_000_000_000);
        clock.step(1_000_000_000);
        assert_eq!(clock.wall(Instant::ZERO).as_nanos(), WALL - 3_599_000_000_000);
        clock.set_wrong(0);
        assert_eq!((clock.wall(Instant::ZERO), clock.is_wrong()), (right_wall(Instant::ZERO), false));
    }
}
