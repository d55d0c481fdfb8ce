//! The clock that stamps messages.

use serde::{Deserialize, Serialize};

/// Which clock both ends use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Clock {
    /// `CLOCK_MONOTONIC` of the one machine both ends run on.
    SameMachine,
    /// `CLOCK_REALTIME` of two machines: one-way figures are as good as their synchronisation.
    Wall,
}

impl Clock {
    /// The clock for two ends that run on machines with these boot identifiers.
    pub(super) fn between(here: &str, there: &str) -> Clock {
        if !here.is_empty() && here == there { Clock::SameMachine } else { Clock::Wall }
    }

    /// Now, ns.
    pub(super) fn now(self) -> u64 {
        let clock = match self {
            Clock::SameMachine => libc::CLOCK_MONOTONIC,
            Clock::Wall => libc::CLOCK_REALTIME,
        };
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a timespec that the call may write to, and lives longer than the call.
        let done = unsafe { libc::clock_gettime(clock, &mut time) };
        assert_eq!(done, 0, "Linux has both clocks");
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// Tells machines apart, and boots of one machine: its clocks start anew. Empty where the kernel does not say.
pub(super) fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Asks the kernel for wake-ups on time (its default is up to 50 µs late), for this thread.
pub(super) fn sharpen_sleep() {
    // SAFETY: PR_SET_TIMERSLACK takes a number and touches no memory of ours.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1u64, 0, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_shares_its_monotonic_clock() {
        assert_eq!(Clock::between("x", "x"), Clock::SameMachine);
        assert_eq!(Clock::between("x", "y"), Clock::Wall);
        assert_eq!(Clock::between("", ""), Clock::Wall);
        assert!(Clock::SameMachine.now() <= Clock::SameMachine.now());
        assert!(Clock::Wall.now() > 1_600_000_000_000_000_000);
    }
}
