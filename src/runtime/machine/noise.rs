//! The noise floor: what the machine does to a thread that wants little. No latency measured on it means anything finer.

use crate::runtime::sys;
use crate::telemetry::Histogram;
use std::time::{Duration, Instant};

/// What is slept, over and over.
const NAP: Duration = Duration::from_millis(1);
/// Oversleeping by this much is a stall: it shows in every latency of that moment.
const STALL: Duration = Duration::from_millis(5);
/// A pause in a loop that only reads the clock, from which on somebody else had the processor.
const GAP: Duration = Duration::from_micros(20);

/// By how much sleeps of a millisecond were too long.
#[derive(Debug, Default)]
pub struct Naps {
    /// All of them.
    pub overslept: Histogram,
    /// Those that were 5 ms too long or more.
    pub stalls: u64,
    /// The longest of these.
    pub longest: Duration,
}

/// Sleeps a millisecond over and over, as exactly as the kernel can, while `more` says so.
pub fn nap(mut more: impl FnMut() -> bool) -> Naps {
    // Where that is refused the naps show it.
    let _ = sys::tighten_timers();
    let mut naps = Naps::default();
    while more() {
        let begun = Instant::now();
        std::thread::sleep(NAP);
        let overslept = begun.elapsed().saturating_sub(NAP);
        naps.overslept.record(overslept);
        if overslept >= STALL {
            naps.stalls += 1;
            naps.longest = naps.longest.max(overslept);
        }
    }
    naps
}

/// What others took from a thread that never sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    /// Together, of the pauses of 20 µs and more.
    pub lost: Duration,
    /// The longest.
    pub longest: Duration,
    /// How long it was watched.
    pub watched: Duration,
}

/// Reads the clock over and over for this long.
pub fn watch_gaps(how_long: Duration) -> Gaps {
    let begun = Instant::now();
    let (mut gaps, mut last) = (Gaps::default(), begun);
    while gaps.watched < how_long {
        let now = Instant::now();
        let pause = now - last;
        if pause >= GAP {
            gaps.lost += pause;
        }
        gaps.longest = gaps.longest.max(pause);
        (gaps.watched, last) = (now - begun, now);
    }
    gaps
}

/// Ticks of all processors since the start of the machine: all, and those taken by the hypervisor for others
/// (proc_stat(5)).
pub fn cpu_ticks() -> (u64, u64) {
    ticks_of(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn ticks_of(text: &str) -> (u64, u64) {
    let words = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    (ticks.iter().take(8).sum(), ticks.get(7).copied().unwrap_or(0))
}

/// Threads that wanted to run, averaged over the last minute.
pub fn load_average() -> f64 {
    super::number("/proc/loadavg").unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_are_counted_and_watching_ends() {
        let mut left = 5;
        let naps = nap(|| {
            left -= 1;
            left >= 0
        });
        assert_eq!(naps.overslept.count(), 5);
        let gaps = watch_gaps(Duration::from_millis(3));
        assert!(gaps.watched >= Duration::from_millis(3) && gaps.longest <= gaps.watched && gaps.lost <= gaps.watched);
    }

    #[test]
    fn the_hypervisors_share_is_the_eighth() {
        assert_eq!(ticks_of("cpu  10 1 5 80 2 0 1 7 3 0\ncpu0 1 1 1 1\n"), (106, 7));
        assert_eq!(ticks_of(""), (0, 0));
        let (all, stolen) = cpu_ticks();
        assert!(all > 0 && stolen <= all);
    }
}
