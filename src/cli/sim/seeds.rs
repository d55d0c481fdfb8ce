//! Runs seeds on several threads, each run wholly in one of them.

use crate::cli::output;
use crate::cli::stop::Stop;
use crate::sim::campaign::{self, Outcome, Settings};
use crate::sim::plan::Plan;
use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What runs took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    /// Threads.
    pub(super) jobs: usize,
    /// From beginning to end.
    pub(super) wall: Duration,
    /// Of processors, all threads together.
    pub(super) cpu: Duration,
}

/// Processors to use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs one plan.
pub(super) fn run_one(plan: &Plan, settings: &Settings) -> (Vec<Outcome>, Took) {
    let (started, used) = (Instant::now(), thread_time());
    let outcomes = vec![campaign::execute(plan, settings)];
    (outcomes, Took { jobs: 1, wall: started.elapsed(), cpu: thread_time() - used })
}

/// Runs the seeds on `jobs` threads. What came of them, in the order of the seeds, however many threads there were; of the
/// first of them only if asked to stop.
pub(super) fn run_all(seeds: Range<u64>, jobs: usize, settings: &Settings, stop: &Stop) -> (Vec<Outcome>, Took) {
    let (total, started) = (seeds.end - seeds.start, Instant::now());
    let (next, cpu) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let (done, finished) = mpsc::channel();
    let mut outcomes = std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (next, cpu, done, end) = (&next, &cpu, done.clone(), seeds.end);
            scope.spawn(move || {
                while !stop.is_set() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || done.send(campaign::run(seed, settings)).is_err() {
                        break;
                    }
                }
                cpu.fetch_add(thread_time().as_nanos() as u64, Ordering::Relaxed);
            });
        }
        drop(done);
        collect(total, &finished)
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    let cpu = Duration::from_nanos(cpu.into_inner());
    (outcomes, Took { jobs, wall: started.elapsed(), cpu })
}

/// Takes outcomes as they come, and tells of those that failed and of how many are there.
fn collect(total: u64, finished: &mpsc::Receiver<Outcome>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut shown = Instant::now();
    let live = std::io::stderr().is_terminal();
    for outcome in finished {
        if outcome.failure.is_some() {
            output::note(format_args!("{outcome}"));
        }
        outcomes.push(outcome);
        let step = if live { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if shown.elapsed() >= step {
            shown = Instant::now();
            let end = if live { '\r' } else { '\n' };
            let _ = write!(std::io::stderr(), "{} of {total} seeds{end}", outcomes.len());
        }
    }
    outcomes
}

/// What this thread has used of processors.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call may write to, and lives longer than the call.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(done, 0, "Linux has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
