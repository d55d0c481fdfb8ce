//! The machine: cores, what a thread has used of them, and how noisy they are.

use super::figures::quantile;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const NAP: Duration = Duration::from_millis(1);
const NAPS: usize = 150;
const WATCHED: Duration = Duration::from_millis(150);
/// A pause in a loop that only reads the clock, from which on somebody else had the core.
const GAP: Duration = Duration::from_micros(20);

/// Cores to use: for what is measured, and for the neighbours. None where the process has only one.
pub(crate) fn two_cores() -> Option<(usize, usize)> {
    let cores = core_affinity::get_core_ids()?;
    match cores.as_slice() {
        [first, second, ..] => Some((first.id, second.id)),
        _ => None,
    }
}

/// Pins the calling thread.
pub(crate) fn pin(core: usize) {
    // A refusal leaves the thread to the scheduler; the noise figures show what that does.
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
}

/// The cores that the calling thread may use.
#[derive(Clone, Copy)]
pub(crate) struct Cores(libc::cpu_set_t);

impl Cores {
    /// Those of the calling thread.
    pub(crate) fn allowed() -> io::Result<Cores> {
        // SAFETY: all-zero is an empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is writable for its size.
        let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Cores(set)) }
    }

    /// Gives the calling thread these cores; may be called between fork and exec.
    pub(crate) fn restore(&self) {
        // SAFETY: the set is readable for its size.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
    }
}

/// Threads of this or another process, whose use of cores is read from /proc.
pub(crate) struct Watched {
    /// Their folders: `/proc/PID/task/TID`.
    tasks: Vec<PathBuf>,
}

/// What threads used so far.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    /// On a core, ns.
    pub(crate) ran: u64,
    /// Ready but not running, ns.
    pub(crate) waited: u64,
}

impl Watched {
    /// The threads of process `pid` whose names begin so.
    pub(crate) fn find(pid: u32, name: &str) -> io::Result<Watched> {
        let mut tasks = Vec::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // A thread may end while it is looked at.
            if fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name)) {
                tasks.push(task);
            }
        }
        if tasks.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("process {pid} has no thread called {name}")));
        }
        Ok(Watched { tasks })
    }

    /// The calling thread.
    pub(crate) fn calling() -> Watched {
        // SAFETY: gettid only answers.
        let id = unsafe { libc::gettid() };
        Watched { tasks: vec![PathBuf::from(format!("/proc/self/task/{id}"))] }
    }

    /// Puts them on this core, to take turns there: who wakes up waits until who runs has nothing more to do, so that
    /// they do not cost each other more than they must. A refusal shows in the figures.
    pub(crate) fn share(&self, core: usize) {
        // SAFETY: all-zero is an empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is ours to change; a core beyond it is ignored.
        unsafe { libc::CPU_SET(core, &mut set) };
        for id in self.tasks.iter().filter_map(|task| task.file_name()?.to_str()?.parse().ok()) {
            // SAFETY: the set is readable for its size.
            unsafe { libc::sched_setaffinity(id, size_of::<libc::cpu_set_t>(), &raw const set) };
            let no_priority = libc::sched_param { sched_priority: 0 };
            // SAFETY: the parameters are readable.
            unsafe { libc::sched_setscheduler(id, libc::SCHED_BATCH, &raw const no_priority) };
        }
    }

    /// Their ids, with commas between.
    pub(crate) fn ids(&self) -> String {
        let ids = self.tasks.iter().filter_map(|task| task.file_name());
        ids.map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(",")
    }

    /// What they used so far, taken together; exact to a tick of the scheduler.
    pub(crate) fn used(&self) -> io::Result<Used> {
        let mut used = Used { ran: 0, waited: 0 };
        for task in &self.tasks {
            let text = fs::read_to_string(task.join("schedstat"))?;
            let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
            used.ran += numbers.next().unwrap_or(0);
            used.waited += numbers.next().unwrap_or(0);
        }
        Ok(used)
    }
}

/// What the machine does to a thread that wants little: read before each round, both cores idle as far as we know.
#[derive(Default)]
pub(crate) struct Noise {
    overslept: Vec<u64>,
    lost: Duration,
    watched: Duration,
    longest: Duration,
}

/// The noise in figures.
#[derive(Serialize)]
pub(crate) struct NoiseReport {
    /// Oversleeping of a 1 ms sleep, µs.
    pub(crate) timer_p50_us: f64,
    pub(crate) timer_p99_us: f64,
    pub(crate) timer_max_us: f64,
    /// Share of time that others took from a busy thread, percent, and the longest such pause, µs.
    pub(crate) stolen_percent: f64,
    pub(crate) longest_pause_us: f64,
    /// Load average of the last minute.
    pub(crate) load_average: f64,
}

impl Noise {
    /// Looks at both cores at once, for a third of a second.
    pub(crate) fn observe(&mut self, cores: Option<(usize, usize)>) {
        let (near, far) = std::thread::scope(|scope| {
            let far = scope.spawn(|| {
                if let Some((first, _)) = cores {
                    pin(first);
                }
                watch()
            });
            (watch(), far.join().unwrap_or_default())
        });
        for one in [near, far] {
            self.overslept.extend(one.overslept);
            self.lost += one.lost;
            self.watched += one.watched;
            self.longest = self.longest.max(one.longest);
        }
    }

    pub(crate) fn report(&self) -> NoiseReport {
        let mut sorted = self.overslept.clone();
        sorted.sort_unstable();
        let at = |share| quantile(&sorted, share) as f64 / 1e3;
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        NoiseReport {
            timer_p50_us: at(0.5),
            timer_p99_us: at(0.99),
            timer_max_us: at(1.0),
            stolen_percent: 100.0 * self.lost.as_secs_f64() / self.watched.as_secs_f64().max(1e-9),
            longest_pause_us: self.longest.as_secs_f64() * 1e6,
            load_average: load.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0),
        }
    }
}

fn watch() -> Noise {
    let mut noise = Noise::default();
    for _ in 0..NAPS {
        let before = Instant::now();
        std::thread::sleep(NAP);
        noise.overslept.push(before.elapsed().saturating_sub(NAP).as_nanos() as u64);
    }
    let begun = Instant::now();
    let mut last = begun;
    while last.duration_since(begun) < WATCHED {
        let now = Instant::now();
        let pause = now.duration_since(last);
        if pause >= GAP {
            noise.lost += pause;
        }
        noise.longest = noise.longest.max(pause);
        last = now;
    }
    noise.watched = last.duration_since(begun);
    noise
}
