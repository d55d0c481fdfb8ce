//! One-way latency at a fixed rate. Source and sink are one thread, so one clock tells it.

use super::figures::quantile;
use super::path::Path;
use serde::Serialize;
use sinew::base::Instant;
use sinew::runtime::clock::Clock;
use std::ops::Range;
use std::time::Duration;

const WARM_UP: Duration = Duration::from_millis(400);
/// Waited for the last messages.
const PATIENCE: Duration = Duration::from_millis(100);
/// Where in a message the moment of sending stands: behind what the bare forwarder changes.
const STAMP: Range<usize> = 8..16;

/// What one cell of one round showed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Delay {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Messages that arrived, and that did not.
    pub(crate) samples: u64,
    pub(crate) lost: u64,
    /// Messages that the source sent more than an interval late, because others had its core.
    pub(crate) late: u64,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    /// Messages a second, their bytes, and how many leave together.
    pub(crate) rate: u32,
    pub(crate) size: usize,
    pub(crate) burst: u32,
}

/// Sends over `path` and times each message from the moment before its burst is handed to the source to the moment after
/// it was taken from the sink.
pub(crate) fn measure(path: &mut dyn Path, clock: Clock, beat: Beat, seconds: f64) -> Delay {
    let Beat { rate, size, burst } = beat;
    let interval = Duration::from_nanos(1_000_000_000 * u64::from(burst) / u64::from(rate));
    let mut message = vec![0; size];
    let mut delays: Vec<u64> = Vec::with_capacity((f64::from(rate) * seconds * 1.1) as usize + 64);
    let (mut sent, mut late) = (0u64, 0u64);
    let begun = clock.now() + WARM_UP;
    let end = begun + Duration::from_secs_f64(seconds);
    let mut due = clock.now();
    loop {
        let now = clock.now();
        if now >= end + PATIENCE || now >= end && delays.len() as u64 >= sent {
            break;
        }
        if now >= due && now < end {
            let counts = now >= begun;
            if now.since(due) > interval {
                late += u64::from(counts);
                due = now;
            }
            due += interval;
            message[STAMP].copy_from_slice(&now.as_nanos().to_be_bytes());
            for _ in 0..burst {
                sent += u64::from(path.send(now, &message) && counts);
            }
        }
        path.turn(now, &mut |bytes| {
            let stamp = bytes.get(STAMP).and_then(|stamp| stamp.try_into().ok()).map_or(0, u64::from_be_bytes);
            if stamp >= begun.as_nanos() {
                delays.push(clock.now().since(Instant::from_nanos(stamp)).as_nanos() as u64);
            }
        });
    }
    let lost = sent.saturating_sub(delays.len() as u64);
    Delay { lost, late, ..Delay::of(delays) }
}

impl Delay {
    /// Of delays in ns.
    pub(crate) fn of(mut delays: Vec<u64>) -> Delay {
        delays.sort_unstable();
        let at = |share| quantile(&delays, share) as f64 / 1e3;
        Delay {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: at(1.0),
            samples: delays.len() as u64,
            ..Delay::default()
        }
    }
}
