//! The routers seen from outside.

use super::super::world::World;
use crate::runtime::memory::resident_kib;
use serde::Serialize;
use std::time::Duration;

/// A process's memory is judged from this age on, s.
pub(super) const WARM: u64 = 30;
/// And over at least this long, s: below it, a page more or less says nothing.
pub(super) const JUDGED: u64 = 240;
/// How long a router may take to close what applications opened and left.
const CLOSING: Duration = Duration::from_secs(10);
/// How long a router gets to close what was open before the first look, and in a run that is long enough to judge more than
/// crude leaks: until it has forgotten who asked whether it was ready.
const SETTLING: Duration = Duration::from_millis(300);
const SETTLING_WELL: Duration = Duration::from_secs(15);
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
    /// Whether its memory was judged: it lived long enough.
    pub memory_judged: bool,
    /// Most descriptors it might have open at the end: what its router had before all traffic, with every link up and
    /// no application. None if it was not judged: it ended before the end.
    pub descriptors_expected: Option<usize>,
    #[serde(skip)]
    first_seen: Duration,
}

impl Process {
    /// How much its memory grew since it was warm, percent.
    pub(super) fn growth_percent(&self) -> Option<f64> {
        let warm = self.rss_warm_kib? as f64;
        Some((self.rss_last_kib as f64 / warm - 1.0) * 100.0)
    }

    /// What it keeps open with nothing to do, beyond what is expected.
    fn leak(&self) -> Option<String> {
        let (expected, last) = self.descriptors_expected.zip(self.descriptors_last)?;
        let text = || format!("router {}: {expected} descriptors before all traffic, {last} after it", self.router);
        (last > expected).then(text)
    }

    /// Whether it lived long enough to tell anything.
    pub(super) const fn is_telling(&self) -> bool {
        self.rss_warm_kib.is_some() || self.descriptors_expected.is_some()
    }

    /// What it was judged for.
    pub(super) const fn judged_for(&self) -> &'static str {
        match (self.memory_judged, self.descriptors_expected.is_some()) {
            (true, true) => "memory, descriptors",
            (true, false) => "memory",
            (false, true) => "descriptors",
            (false, false) => "-",
        }
    }
}

/// Watches every router of a world.
pub(super) struct Watch<'w> {
    world: &'w World,
    /// The process that runs each router.
    current: Vec<Option<Process>>,
    /// Descriptors each router had before all traffic.
    expected: Vec<Option<usize>>,
    ended: Vec<Process>,
    now: Duration,
    violations: Vec<String>,
}

impl<'w> Watch<'w> {
    /// A first look at the routers of a run this long: before there is any traffic.
    pub(super) fn new(world: &'w World, length: Duration) -> Watch<'w> {
        let current = world.routers().iter().map(|_| None).collect();
        let (expected, ended, violations) = (Vec::new(), Vec::new(), Vec::new());
        let mut watch = Watch { world, current, expected, ended, now: Duration::ZERO, violations };
        // Those who asked whether all was ready have left; what that opened is closed first.
        std::thread::sleep(if length.as_secs() > JUDGED { SETTLING_WELL } else { SETTLING });
        watch.look(Duration::ZERO, (0..world.routers().len()).collect());
        watch.expected = watch.current.iter().map(|process| process.as_ref()?.descriptors_first).collect();
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
                memory_judged: false,
                descriptors_expected: None,
                first_seen: now,
            });
            process.lived_s = now.saturating_sub(process.first_seen).as_secs();
            process.rss_last_kib = rss;
            process.descriptors_last = descriptors;
            process.memory_judged = process.lived_s >= WARM + JUDGED;
            if process.lived_s >= WARM && process.rss_warm_kib.is_none() {
                process.rss_warm_kib = Some(rss);
            }
        }
    }

    /// The last look: all traffic has ended, and what it opened must be closed within a while: every router, whenever its
    /// process started, may have open what it had before all traffic, and no more. Processes of `excused` routers may
    /// have ended since the look before.
    pub(super) fn look_at_end(&mut self, mut excused: Vec<usize>) {
        let deadline = std::time::Instant::now() + CLOSING;
        loop {
            self.look(self.now, std::mem::take(&mut excused));
            for (process, &expected) in self.current.iter_mut().zip(&self.expected) {
                process.iter_mut().for_each(|process| process.descriptors_expected = expected);
            }
            let leaks: Vec<String> = self.current.iter().flatten().filter_map(Process::leak).collect();
            if leaks.is_empty() || std::time::Instant::now() > deadline {
                return self.violations.extend(leaks);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What was promised and did not hold.
    pub(super) fn violations(&self) -> Vec<String> {
        let mut violations = self.violations.clone();
        for process in self.ended.iter().chain(self.current.iter().flatten()) {
            let growth = process.growth_percent().filter(|&growth| growth >= MOST_GROWTH);
            if let Some(growth) = growth.filter(|_| process.memory_judged) {
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

    fn process(expected: Option<usize>, last: usize, memory_judged: bool) -> Process {
        Process {
            router: "b".into(),
            pid: 7,
            lived_s: 3,
            rss_warm_kib: None,
            rss_last_kib: 100,
            descriptors_first: Some(40),
            descriptors_last: Some(last),
            memory_judged,
            descriptors_expected: expected,
            // Started while faults struck: judged all the same.
            first_seen: Duration::from_secs(100),
        }
    }

    #[test]
    fn a_restarted_router_is_judged_by_what_it_had_before_all_traffic() {
        let leak = process(Some(20), 21, false).leak();
        assert_eq!(leak.as_deref(), Some("router b: 20 descriptors before all traffic, 21 after it"));
        assert_eq!(process(Some(20), 20, false).leak(), None);
        assert_eq!(process(None, 21, false).leak(), None, "it ended before the end");
        let judged = [(Some(20), true), (Some(20), false), (None, true), (None, false)]
            .map(|(expected, memory)| process(expected, 20, memory).judged_for());
        assert_eq!(judged, ["memory, descriptors", "descriptors", "memory", "-"]);
    }

    #[test]
    fn this_process_has_descriptors() {
        let pid = std::process::id();
        assert!(descriptors(pid).is_some_and(|count| count >= 3));
        assert_eq!(descriptors(u32::MAX), None);
    }
}
