//! What the machine is, as far as it concerns a router: read from /proc and /sys, or tried out harmlessly.

use super::Wanted;
use super::interfaces::{self, Interface};
use crate::config::settings::Cores;
use crate::runtime::machine::topology::Cpu;
use crate::runtime::machine::{CpuSet, Topology, noise, number, place, scheduling, text};
use crate::runtime::{capabilities, io, memory};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// The kernel's version.
    pub kernel: String,
    /// The processors. (In JSON: how many are online, cores among them, and which this process may use.)
    #[serde(serialize_with = "summary")]
    pub topology: Topology,
    /// Whether a hypervisor is below.
    pub hypervisor: bool,
    /// Share of time that it gave to others since this machine started, percent.
    pub steal_percent: f64,
    /// Threads that wanted to run, averaged over the last minute.
    pub load_average: f64,
    /// How processors choose their frequency, by number; empty where that is not for this machine to decide.
    pub governors: BTreeMap<usize, String>,
    /// The sleep states of processors that are in use.
    pub sleep_states: Vec<SleepState>,
    /// The kernel's clock.
    pub clock: String,
    /// The clocks it could have.
    pub clocks: Vec<String>,
    /// The interfaces that links use.
    pub interfaces: Vec<Interface>,
    /// Whether a daemon moves interrupts about.
    pub irqbalance: bool,
    /// Most that a socket's receive buffer may have, bytes.
    pub receive_buffer_max: Option<u64>,
    /// Most that a socket's send buffer may have, bytes.
    pub send_buffer_max: Option<u64>,
    /// Whether this user may exceed both (CAP_NET_ADMIN).
    pub net_admin: bool,
    /// Most memory that this process may lock, bytes; none is unlimited.
    pub lock_limit: Option<u64>,
    /// Whether there is swap.
    pub swap: bool,
    /// Why threads may not run in real time; none if they may.
    pub realtime_refused: Option<String>,
    /// Share of real time that real-time threads may use, µs a second; -1 is all of it.
    pub realtime_throttle: Option<i64>,
    /// Which ring io_uring gives; none if it does not work here.
    pub uring: Option<String>,
    /// Why io_uring does not work here.
    pub uring_refused: Option<String>,
    /// Whether datagrams pass the kernel in trains.
    pub trains: bool,
    /// Why, or why not.
    pub trains_reason: String,
    /// Whether this user may lift its own limits (CAP_SYS_RESOURCE).
    pub lifts_limits: bool,
    /// What could not be seen.
    pub unseen: Vec<String>,
}

/// How deep a processor sleeps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SleepState {
    /// The kernel's name for it.
    pub name: String,
    /// What leaving it takes, µs.
    pub exit_us: u64,
}

impl Facts {
    /// Looks at the machine whose /proc and /sys are below `root`, and tries what this process may do.
    pub fn gather(root: &Path, topology: Topology, wanted: &Wanted) -> Facts {
        let mut facts = Facts::read(root, topology, wanted);
        facts.net_admin = capabilities::has(capabilities::NET_ADMIN);
        facts.lifts_limits = capabilities::has(capabilities::SYS_RESOURCE);
        match memory::lock_limit() {
            Ok(limit) => facts.lock_limit = limit,
            Err(error) => facts.unseen.push(format!("the limit of locked memory: {error}")),
        }
        facts.realtime_refused = scheduling::may_go_realtime(wanted.workers.realtime.unwrap_or(1)).err();
        match io::uring::self_test() {
            Ok(ring) => facts.uring = Some(ring),
            Err(why) => facts.uring_refused = Some(why),
        }
        match io::try_trains(&facts.kernel) {
            Ok((trains, reason)) => (facts.trains, facts.trains_reason) = (trains, reason),
            Err(error) => facts.trains_reason = error.to_string(),
        }
        facts
    }

    /// What can be read.
    fn read(root: &Path, topology: Topology, wanted: &Wanted) -> Facts {
        let read = |path: &str| text(root.join(path));
        let mut facts = Facts { kernel: read("proc/sys/kernel/osrelease").unwrap_or_default(), ..Facts::default() };
        facts.hypervisor = read("proc/cpuinfo").is_some_and(|text| {
            let flags = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
            flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
        });
        let (all, stolen) = noise::cpu_ticks();
        facts.steal_percent = 100.0 * stolen as f64 / all.max(1) as f64;
        facts.load_average = noise::load_average();
        let cpu = |id: usize, rest: &str| root.join(format!("sys/devices/system/cpu/cpu{id}/{rest}"));
        let governor = |id: usize| Some((id, text(cpu(id, "cpufreq/scaling_governor"))?));
        facts.governors = topology.usable().filter_map(|cpu| governor(cpu.id)).collect();
        let first = place(&topology, &Cores::Auto, 1).ok();
        let first = first.and_then(|placement| placement.seats[0].core);
        facts.sleep_states = first.map(|id| sleep_states(&cpu(id, "cpuidle"))).unwrap_or_default();
        facts.clock = read("sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap_or_default();
        let clocks = read("sys/devices/system/clocksource/clocksource0/available_clocksource").unwrap_or_default();
        facts.clocks = clocks.split_whitespace().map(str::to_owned).collect();
        facts.interfaces = interfaces::in_use(root, &wanted.links);
        facts.irqbalance = runs(root, "irqbalance");
        facts.receive_buffer_max = number(root.join("proc/sys/net/core/rmem_max"));
        facts.send_buffer_max = number(root.join("proc/sys/net/core/wmem_max"));
        facts.swap = read("proc/swaps").is_some_and(|text| text.lines().count() > 1);
        facts.realtime_throttle = number(root.join("proc/sys/kernel/sched_rt_runtime_us"));
        facts.topology = topology;
        facts.note_unseen();
        facts
    }

    fn note_unseen(&mut self) {
        let missing = [
            (self.clock.is_empty(), "the kernel's clock: /sys/devices/system/clocksource is not there"),
            (
                self.receive_buffer_max.is_none(),
                "limits of socket buffers: /proc/sys/net/core is not there (as in a network namespace)",
            ),
            (self.interfaces.is_empty(), "the interfaces in use: no link's address and no default route leads to one"),
            (
                !self.interfaces.is_empty() && self.interfaces.iter().all(|interface| interface.interrupts.is_empty()),
                "interrupts of the interfaces in use: they have no card, or /proc/irq is hidden",
            ),
        ];
        self.unseen.extend(missing.into_iter().filter(|(missing, _)| *missing).map(|(_, what)| what.to_owned()));
    }
}

/// The states that are switched on.
fn sleep_states(directory: &Path) -> Vec<SleepState> {
    let state = |index: usize| {
        let state = directory.join(format!("state{index}"));
        let known = SleepState { name: text(state.join("name"))?, exit_us: number(state.join("latency"))? };
        Some((known, number::<u8>(state.join("disable")) == Some(1)))
    };
    (0..).map_while(state).filter(|(_, disabled)| !disabled).map(|(state, _)| state).collect()
}

/// Whether a process of this name runs, as far as it can be seen.
fn runs(root: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .any(|entry| text(entry.path().join("comm")).is_some_and(|comm| comm == name))
}

fn summary<S: serde::Serializer>(topology: &Topology, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Summary {
        online: usize,
        cores: usize,
        nodes: usize,
        usable: String,
        isolated: String,
        quota: Option<f64>,
    }
    let cores: CpuSet = topology.cpus.iter().map(|cpu| cpu.core).collect();
    let nodes: CpuSet = topology.cpus.iter().map(|cpu| cpu.node).collect();
    let list = |wanted: &dyn Fn(&&Cpu) -> bool| {
        topology.cpus.iter().filter(wanted).map(|cpu| cpu.id).collect::<CpuSet>().to_string()
    };
    let summary = Summary {
        online: topology.cpus.len(),
        cores: cores.len(),
        nodes: nodes.len(),
        usable: list(&|cpu| topology.allowed.contains(cpu.id)),
        isolated: list(&|cpu| cpu.isolated),
        quota: topology.quota,
    };
    summary.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_facts_and_what_is_missing_is_said() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.18.1\n"),
            ("proc/cpuinfo", "processor : 0\nflags : fpu hypervisor avx\n"),
            ("proc/swaps", "Filename Type Size Used Priority\n/swap file 1 0 -2\n"),
            ("proc/7/comm", "irqbalance\n"),
            ("proc/sys/net/core/rmem_max", "212992\n"),
            ("sys/devices/system/cpu/online", "0-1\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
            ("sys/devices/system/cpu/cpu1/cpuidle/state0/name", "POLL\n"),
            ("sys/devices/system/cpu/cpu1/cpuidle/state0/latency", "0\n"),
            ("sys/devices/system/cpu/cpu1/cpuidle/state1/name", "C6\n"),
            ("sys/devices/system/cpu/cpu1/cpuidle/state1/latency", "133\n"),
            ("sys/devices/system/cpu/cpu1/cpuidle/state2/name", "C8\n"),
            ("sys/devices/system/cpu/cpu1/cpuidle/state2/latency", "500\n"),
            ("sys/devices/system/cpu/cpu1/cpuidle/state2/disable", "1\n"),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("is below the root")).expect("is made");
            std::fs::write(path, text).expect("is written");
        }
        let topology = Topology::read(root.path(), CpuSet::from_list("0-1"));
        let facts = Facts::read(root.path(), topology, &Wanted::default());
        assert!(facts.hypervisor && facts.swap && facts.irqbalance);
        assert_eq!(
            (facts.kernel.as_str(), facts.receive_buffer_max, facts.send_buffer_max),
            ("6.18.1", Some(212_992), None)
        );
        assert_eq!(facts.governors, BTreeMap::from([(1, "powersave".to_owned())]));
        let state = |name: &str, exit_us| SleepState { name: name.to_owned(), exit_us };
        assert_eq!(facts.sleep_states, [state("POLL", 0), state("C6", 133)]);
        assert!(facts.unseen.iter().any(|what| what.contains("clocksource")), "{:?}", facts.unseen);
        assert!(facts.unseen.iter().any(|what| what.contains("default route")), "{:?}", facts.unseen);
        let shown = serde_json::to_value(&facts).expect("serialises");
        assert_eq!((&shown["topology"]["online"], &shown["topology"]["usable"]), (&2.into(), &"0-1".into()));
    }
}
