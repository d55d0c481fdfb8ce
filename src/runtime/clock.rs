//! The only clock, and the only entropy.
//!
//! A [`Clock`] is made once, when the process starts, and copied to every thread, so that all of them count from the same
//! zero. Everything below this floor is handed its readings.

use crate::base::{Instant, Rng, WallTime};
use std::io;
use std::time::SystemTime;

/// Monotonic time since the clock was made (CLOCK_MONOTONIC: it does not jump, and stands still while the machine sleeps).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that reads zero now.
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// Time since the clock was made.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}

/// Wall-clock time: what orders the lives of this router across restarts.
pub fn wall_time() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime::from_nanos(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

/// A generator seeded by the operating system.
pub fn seeded_rng() -> io::Result<Rng> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut seed = [0; 32];
    let filled = SystemRandom::new().fill(&mut seed);
    filled.map_err(|_| io::Error::other("the operating system gives no random numbers (getrandom failed)"))?;
    Ok(Rng::from_seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_count_from_the_same_zero() {
        let clock = Clock::start();
        let copy = clock;
        let (a, b) = (clock.now(), copy.now());
        assert!(a <= b && b.since(a) < std::time::Duration::from_secs(1));
    }

    #[test]
    fn generators_differ_and_wall_time_is_this_century() {
        let mut first = seeded_rng().expect("entropy");
        let mut second = seeded_rng().expect("entropy");
        assert_ne!(first.next_u64(), second.next_u64());
        assert!(wall_time().as_nanos() > 1_600_000_000_000_000_000);
    }
}
