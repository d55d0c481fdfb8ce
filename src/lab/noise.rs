//! The machine's noise floor: what it does to the simplest timer while everything else runs.
//!
//! A thread sleeps a millisecond over and over and records by how much it overslept. No latency printed beside it means
//! anything finer than that.

use super::clock;
use super::emulator::Emulator;
use crate::base::Instant;
use crate::runtime::machine::noise::{Naps, cpu_ticks, load_average, nap};
use crate::telemetry::Summary;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What was measured, µs unless named otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Noise {
    /// Oversleeping of a 1 ms sleep: median.
    pub timer_p50_us: f64,
    /// 99th percentile.
    pub timer_p99_us: f64,
    /// 99.9th percentile.
    pub timer_p999_us: f64,
    /// The longest.
    pub timer_max_us: f64,
    /// Sleeps that took 5 ms too long or more.
    pub stalls: u64,
    /// The longest of these, ms.
    pub longest_stall_ms: f64,
    /// How late the emulator forwarded frames: median.
    pub emulator_p50_us: f64,
    /// 99th percentile.
    pub emulator_p99_us: f64,
    /// 99.9th percentile.
    pub emulator_p999_us: f64,
    /// The longest.
    pub emulator_max_us: f64,
    /// Frames forwarded.
    pub emulator_frames: u64,
    /// How late the lab's own senders were: 99th percentile. Latencies include it.
    pub sender_p99_us: f64,
    /// Share of CPU time taken by the hypervisor for others, percent.
    pub steal_percent: f64,
    /// Processes that wanted to run, averaged over the last minute.
    pub load_average: f64,
    /// Processors.
    pub cores: usize,
    /// Seconds observed.
    pub seconds: f64,
}

/// A measurement that runs.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Naps>>,
    started: Instant,
    cpu: (u64, u64),
}

impl Watch {
    /// Starts measuring. Forgets how late the emulator was so far.
    pub fn start(emulator: &Emulator) -> std::io::Result<Watch> {
        emulator.clear_lateness();
        let stop = Arc::new(AtomicBool::new(false));
        let ask = Arc::clone(&stop);
        let thread =
            std::thread::Builder::new().name("lab-noise".into()).spawn(move || nap(|| !ask.load(Ordering::Relaxed)))?;
        Ok(Watch { stop, thread: Some(thread), started: clock::now(), cpu: cpu_ticks() })
    }

    /// Stops measuring.
    pub fn finish(mut self, emulator: &Emulator, senders: Summary) -> Noise {
        self.stop.store(true, Ordering::Relaxed);
        let observed = self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let (timer, lateness) = (observed.overslept.summary(), emulator.lateness());
        let (all, stolen) = cpu_ticks();
        let passed = all.saturating_sub(self.cpu.0).max(1);
        Noise {
            timer_p50_us: timer.p50_us,
            timer_p99_us: timer.p99_us,
            timer_p999_us: timer.p999_us,
            timer_max_us: timer.max_us,
            stalls: observed.stalls,
            longest_stall_ms: observed.longest.as_secs_f64() * 1e3,
            emulator_p50_us: lateness.p50_us,
            emulator_p99_us: lateness.p99_us,
            emulator_p999_us: lateness.p999_us,
            emulator_max_us: lateness.max_us,
            emulator_frames: lateness.count,
            sender_p99_us: senders.p99_us,
            steal_percent: 100.0 * stolen.saturating_sub(self.cpu.1) as f64 / passed as f64,
            load_average: load_average(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            seconds: clock::now().since(self.started).as_secs_f64(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
