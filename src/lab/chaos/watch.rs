//! The routers seen from outside.

use super::super::world::World;
use crate::runtime::memory::resident_kib;
use serde::Serialize;
use std::time::Duration;

/// A process's memory is judged from this age on, s.
const WARM: u64 = 30;
/// And over at least this long, s: below it, a page more or less says nothing.
const JUDGED: u64 = 240;
/// How long a router may take to close what applications opened and left.
const CLOSING: Duration = Duration::from_secs(10);
/// Growth of a warm router's memory that is a leak, percent.
const MOST_GROWTH: f64 = 1.0;

/// One process of a router, from the first look to the last.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Whose.
    pub router: String,
    /// Its number.
    pub pid: u32,
    /// From the first look to the last, s.
    pub lived_s: u64,
    /// Resident memory once warm, KiB.
    pub rss_warm_kib: Option<u64>,
    /// At the last look, KiB.
    pub rss_last_kib: u64,
    /// Open descriptors at the first look; none if they may not be counted.
    pub descriptors_first: Option<usize>,
    /// At the last look.
    pub descriptors_last: Option<usize>,
    #[serde(skip)]
    first_seen: Duration,
}

impl Process {
    /// How much its memory grew since it was warm, percent.
    pub(super) fn growth_percent(&self) -> Option<f64> {
        let warm = self.rss_warm_kib? as f64;
        Some((self.rss_last_kib as f64 / warm - 1.0) * 100.0)
    }

    /// What it keeps open with nothing to do, if it runs since before there was traffic.
    fn leak(&self) -> Option<String> {
        let (first, last) = self.descriptors_first.zip(self.descriptors_last)?;
        let leaks = self.first_seen.is_zero() && last > first;
        leaks.then(|| format!("router {}: {first} descriptors before all traffic, {last} after it", self.router))
    }

    const fn is_judged(&self) -> bool {
        self.lived_s >= WARM + JUDGED
    }

    /// Whether it lived long enough to tell anything.
    pub(super) const fn is_telling(&self) -> bool {
        self.rss_warm_kib.is_some()
    }
}

/// Watches every router of a world.
pub(super) struct Watch<'w> {
    world: &'w World,
    /// The process that runs each router.
    current: Vec<Option<Process>>,
    ended: Vec<Process>,
    now: Duration,
    violations: Vec<String>,
}

impl<'w> Watch<'w> {
    /// A first look: before there is any traffic.
    pub(super) fn new(world: &'w World) -> Watch<'w> {
        let current = world.routers().iter().map(|_| None).collect();
        let mut watch = Watch { world, current, ended: Vec::new(), now: Duration::ZERO, violations: Vec::new() };
        watch.look(Duration::ZERO, (0..world.routers().len()).collect());
        watch
    }

    /// Looks at every router. Processes of `excused` ones may have ended.
    pub(super) fn look(&mut self, now: Duration, excused: Vec<usize>) {
        self.now = now;
        for (place, router) in self.world.routers().iter().enumerate() {
            let pid = router.pid();
            let known = self.current[place].as_ref().map(|process| process.pid);
            if known.is_some() && known != pid {
                if !excused.contains(&place) {
                    self.violations.push(format!(
                        "router {} ended by itself at {:.1} s",
                        router.name(),
                        now.as_secs_f64()
                    ));
                }
                self.ended.extend(self.current[place].take());
            }
            let Some((pid, rss)) = pid.and_then(|pid| Some((pid, resident_kib(pid)?))) else { continue };
            let descriptors = descriptors(pid);
            let process = self.current[place].get_or_insert_with(|| Process {
                router: router.name().to_owned(),
                pid,
                lived_s: 0,
                rss_warm_kib: None,
                rss_last_kib: rss,
                descriptors_first: descriptors,
                descriptors_last: descriptors,
                first_seen: now,
            });
            process.lived_s = now.saturating_sub(process.first_seen).as_secs();
            process.rss_last_kib = rss;
            process.descriptors_last = descriptors;
            if process.lived_s >= WARM && process.rss_warm_kib.is_none() {
                process.rss_warm_kib = Some(rss);
            }
        }
    }

    /// The last look: all traffic has ended, and what it opened must be closed within a while. Processes of `excused`
    /// routers may have ended since the look before.
    pub(super) fn look_at_end(&mut self, mut excused: Vec<usize>) {
        let deadline = std::time::Instant::now() + CLOSING;
        loop {
            self.look(self.now, std::mem::take(&mut excused));
            let leak = self.current.iter().flatten().find_map(Process::leak);
            match leak {
                None => return,
                Some(leak) if std::time::Instant::now() > deadline => return self.violations.push(leak),
                Some(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// What was promised and did not hold.
    pub(super) fn violations(&self) -> Vec<String> {
        let mut violations = self.violations.clone();
        for process in self.ended.iter().chain(self.current.iter().flatten()) {
            let growth = process.growth_percent().filter(|&growth| growth >= MOST_GROWTH);
            if let Some(growth) = growth.filter(|_| process.is_judged()) {
                violations.push(format!("router {}: memory grew by {growth:.2} % once warm", process.router));
            }
        }
        for router in self.world.routers() {
            let log = router.log();
            if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
                violations.push(format!("router {}: {line}", router.name()));
            }
        }
        violations
    }

    /// Whether some process lived long enough for its memory to be judged.
    pub(super) fn has_judged_memory(&self) -> bool {
        self.ended.iter().chain(self.current.iter().flatten()).any(Process::is_judged)
    }

    /// All processes seen.
    pub(super) fn into_processes(self) -> Vec<Process> {
        self.ended.into_iter().chain(self.current.into_iter().flatten()).collect()
    }
}

fn descriptors(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_descriptors() {
        let pid = std::process::id();
        assert!(descriptors(pid).is_some_and(|count| count >= 3));
        assert_eq!(descriptors(u32::MAX), None);
    }
}
