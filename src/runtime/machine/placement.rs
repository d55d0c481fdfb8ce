//! Which worker runs on which processor, and why: a pure function of the machine and the configuration.
//!
//! `cores = "auto"` follows these rules, the first first:
//!
//! 1. Only processors that are online and that this process may use.
//! 2. One core is left to control and to interrupts, where there is more than one: the lowest that is not isolated, since
//!    that is where Linux puts what it puts anywhere.
//! 3. A core for each worker: two workers share a core's siblings only when no core is free. The core that was left for
//!    others comes before siblings, since a busy worker takes more of a core than control does.
//! 4. Isolated cores first, of those the ones without a timer tick, and small cores last.
//! 5. All on one NUMA node if they fit: that of the network cards if it is known.
//!
//! A list is taken as it is, or refused with a reason.

use super::cpus::CpuSet;
use super::topology::{Cpu, Topology};
use crate::config::settings::{Cores, Idle};
use std::collections::BTreeMap;

/// A worker's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its processor; none if the scheduler decides.
    pub core: Option<usize>,
    /// What kind of place that is, and why it is this one.
    pub reason: String,
}

/// Every worker's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// One for each worker.
    pub seats: Vec<Seat>,
    /// Where everything else of this router runs. Empty: where it may.
    pub rest: CpuSet,
    /// What is possible and yet not well.
    pub warnings: Vec<String>,
}

impl Placement {
    /// The workers' processors.
    pub fn cores(&self) -> CpuSet {
        self.seats.iter().filter_map(|seat| seat.core).collect()
    }
}

/// Why workers cannot be placed as the configuration says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More workers than processors.
    #[error(
        "workers.cores: {workers} workers need as many cores, and this process may use {usable} ({list}). Lower \
         `workers.count`, or let it use more (taskset, AllowedCPUs= of its unit, --cpuset-cpus of its container)"
    )]
    TooFew {
        /// Workers.
        workers: usize,
        /// Processors that may be used.
        usable: usize,
        /// Which these are.
        list: String,
    },
    /// Fewer named than there are workers, or more.
    #[error(
        "workers.cores: {named} cores are named for {workers} workers. Name as many as there are workers, or \"auto\""
    )]
    Count {
        /// Cores in the list.
        named: usize,
        /// Workers.
        workers: usize,
    },
    /// The same twice.
    #[error("workers.cores: core {0} is listed twice. Give each worker its own, or use \"auto\"")]
    Twice(usize),
    /// It is switched off.
    #[error(
        "workers.cores: core {0} is offline. Switch it on (echo 1 > /sys/devices/system/cpu/cpu{0}/online) or choose another"
    )]
    Offline(usize),
    /// There is none.
    #[error("workers.cores: this machine has no core {core}. It has {online}")]
    Absent {
        /// The one asked for.
        core: usize,
        /// Those there are.
        online: String,
    },
    /// There is one, but not for this process.
    #[error(
        "workers.cores: core {core} is not for this process, which may use {allowed}. Choose one of these, or allow it \
         (taskset, AllowedCPUs= of its unit, --cpuset-cpus of its container)"
    )]
    Forbidden {
        /// The one asked for.
        core: usize,
        /// Those that it may use.
        allowed: String,
    },
    /// A worker would take the last processor for ever.
    #[error(
        "workers.realtime with idle = \"spin\": a worker that never sleeps, at real-time priority, on {0}, leaves nothing \
         to run the kernel's own threads, control and applications. Leave a core free, or use idle = \"wait\""
    )]
    Starves(String),
}

/// Places `workers` workers as `asked`.
pub fn place(topology: &Topology, asked: &Cores, workers: usize) -> Result<Placement, Refused> {
    let cores = match asked {
        Cores::Auto => auto(topology, workers)?,
        Cores::List(list) if list.is_empty() => return Ok(anywhere(workers)),
        Cores::List(list) => listed(topology, list, workers)?,
    };
    let taken: CpuSet = cores.iter().copied().collect();
    let seats = cores.iter().map(|&id| seat(topology, asked, id, &taken)).collect();
    Ok(Placement { seats, rest: rest(topology, &taken), warnings: crowded(topology, &taken) })
}

fn anywhere(workers: usize) -> Placement {
    let seat = Seat { core: None, reason: "wherever the scheduler puts it (workers.cores names none)".to_owned() };
    Placement { seats: vec![seat; workers], rest: CpuSet::default(), warnings: Vec::new() }
}

fn listed(topology: &Topology, list: &[usize], workers: usize) -> Result<Vec<usize>, Refused> {
    for (index, &core) in list.iter().enumerate() {
        if list[..index].contains(&core) {
            return Err(Refused::Twice(core));
        }
        if topology.cpu(core).is_none() {
            let online: CpuSet = topology.cpus.iter().map(|cpu| cpu.id).collect();
            let absent = Refused::Absent { core, online: online.to_string() };
            return Err(if topology.offline.contains(core) { Refused::Offline(core) } else { absent });
        }
        if !topology.allowed.contains(core) {
            return Err(Refused::Forbidden { core, allowed: topology.allowed.to_string() });
        }
    }
    if list.len() != workers {
        return Err(Refused::Count { named: list.len(), workers });
    }
    Ok(list.to_vec())
}

/// A core and its processors, lowest first.
struct Core<'a> {
    cpus: Vec<&'a Cpu>,
    reserved: bool,
}

fn auto(topology: &Topology, workers: usize) -> Result<Vec<usize>, Refused> {
    let usable: Vec<&Cpu> = topology.usable().collect();
    if workers > usable.len() {
        let list = usable.iter().map(|cpu| cpu.id).collect::<CpuSet>().to_string();
        return Err(Refused::TooFew { workers, usable: usable.len(), list });
    }
    let mut grouped: BTreeMap<usize, Vec<&Cpu>> = BTreeMap::new();
    usable.iter().for_each(|cpu| grouped.entry(cpu.core).or_default().push(cpu));
    let lowest = usable.iter().min_by_key(|cpu| (cpu.isolated, cpu.id)).map(|cpu| cpu.core);
    let reserved = lowest.filter(|_| grouped.len() > 1);
    let mut cores: Vec<Core<'_>> =
        grouped.into_iter().map(|(core, cpus)| Core { cpus, reserved: reserved == Some(core) }).collect();
    let home = home(topology, &cores, workers);
    cores.sort_by_key(|core| {
        let first = core.cpus[0];
        (
            core.reserved,
            !first.isolated,
            !first.tickless,
            first.efficient,
            Some(first.node) != home,
            first.node,
            first.id,
        )
    });
    // Of the core that is left to others a worker takes the last processor: interrupts arrive at the first.
    let (own, siblings): (Vec<usize>, Vec<Vec<usize>>) = cores
        .iter()
        .map(|core| {
            let mut ids: Vec<usize> = core.cpus.iter().map(|cpu| cpu.id).collect();
            let own = if core.reserved { ids.pop() } else { Some(ids.remove(0)) };
            (own.expect("a core has a processor"), ids)
        })
        .unzip();
    Ok(own.into_iter().chain(siblings.into_iter().flatten()).take(workers).collect())
}

/// The NUMA node to begin with: the cards', or one on which all workers find a core, or the one with the most.
fn home(topology: &Topology, cores: &[Core<'_>], workers: usize) -> Option<usize> {
    if topology.near.is_some() {
        return topology.near;
    }
    let free = || cores.iter().filter(|core| !core.reserved).map(|core| core.cpus[0]);
    let enough_isolated = free().filter(|cpu| cpu.isolated).count() >= workers;
    let mut seats: BTreeMap<usize, usize> = BTreeMap::new();
    free().filter(|cpu| cpu.isolated || !enough_isolated).for_each(|cpu| *seats.entry(cpu.node).or_default() += 1);
    seats.into_iter().max_by_key(|&(node, count)| (count.min(workers), std::cmp::Reverse(node))).map(|(node, _)| node)
}

fn seat(topology: &Topology, asked: &Cores, id: usize, taken: &CpuSet) -> Seat {
    let cpu = topology.cpu(id).expect("places are processors of the machine");
    let mut said = vec![if *asked == Cores::Auto { "auto" } else { "as configured" }.to_owned()];
    said.extend(cpu.isolated.then(|| if cpu.tickless { "isolated, without a tick" } else { "isolated" }.to_owned()));
    said.extend(cpu.efficient.then(|| "a small core".to_owned()));
    let siblings = topology.siblings(cpu);
    let shared = siblings.common(taken);
    said.push(match (siblings.is_empty(), shared.is_empty()) {
        (true, _) => "a core of its own".to_owned(),
        (false, true) => format!("sibling of {siblings}, where no worker is"),
        (false, false) => format!("shares its core with the worker on {shared}"),
    });
    if topology.has_nodes() {
        let near = if topology.near == Some(cpu.node) { ", the network cards'" } else { "" };
        said.push(format!("NUMA node {}{near}", cpu.node));
    }
    Seat { core: Some(id), reason: said.join(", ") }
}

/// Where everything but the workers runs: what they leave of what is not isolated.
fn rest(topology: &Topology, taken: &CpuSet) -> CpuSet {
    let isolated: CpuSet = topology.usable().filter(|cpu| cpu.isolated).map(|cpu| cpu.id).collect();
    let left = topology.usable().map(|cpu| cpu.id).collect::<CpuSet>().without(taken);
    let ordinary = left.without(&isolated);
    if ordinary.is_empty() { left } else { ordinary }
}

fn crowded(topology: &Topology, taken: &CpuSet) -> Vec<String> {
    let mut warnings = Vec::new();
    if taken.len() > 1 && topology.usable().all(|cpu| taken.contains(cpu.id)) {
        warnings.push(
            "workers take every core that this process may use: control, interrupts and applications share them"
                .to_owned(),
        );
    }
    let shares = |id: &usize| {
        let cpu = topology.cpu(*id).expect("places are processors of the machine");
        topology.siblings(cpu).iter().any(|other| other > *id && taken.contains(other))
    };
    let pairs = taken.iter().filter(shares).count();
    if pairs > 0 {
        warnings.push(format!("{pairs} cores have two workers on sibling threads: each is slower for it"));
    }
    warnings
}

/// What an idle strategy and a priority mean in these places: an error where the machine would stand still, otherwise
/// warnings. `throttle` is kernel.sched_rt_runtime_us.
pub fn consider(
    topology: &Topology,
    placement: &Placement,
    idle: Idle,
    realtime: Option<u8>,
    throttle: Option<i64>,
) -> Result<Vec<String>, Refused> {
    let workers = placement.seats.len();
    let usable = topology.usable().count();
    let free = usable > workers;
    let (spins, real_time) = (idle == Idle::Spin, realtime.is_some());
    let whole = || if usable == 1 { "the only core".to_owned() } else { format!("all {usable} cores there are") };
    if spins && real_time && !free {
        return Err(Refused::Starves(whole()));
    }
    let mut warnings = Vec::new();
    if real_time && !free {
        warnings.push(format!(
            "workers.realtime on {}: under load nothing else runs, not even the kernel's own threads; leave a core free",
            whole()
        ));
    } else if spins && !free {
        warnings.push(format!("idle = \"spin\" on {}: control and applications share it; use \"wait\"", whole()));
    }
    if spins && real_time && placement.cores().is_empty() {
        warnings.push(
            "idle = \"spin\" at real-time priority without cores: whoever is on the worker's core waits; use \
             workers.cores = \"auto\""
                .to_owned(),
        );
    }
    if let Some(throttle) = throttle.filter(|&throttle| spins && real_time && throttle >= 0) {
        warnings.push(format!(
            "kernel.sched_rt_runtime_us = {throttle}: the kernel takes up to {} ms of every second from a worker that \
             never sleeps; on cores that are the workers' alone, sysctl -w kernel.sched_rt_runtime_us=-1 ends that",
            (1_000_000 - throttle.min(1_000_000)) / 1000
        ));
    }
    if let Some(quota) = topology.quota.filter(|&quota| spins && quota < workers as f64 + 0.5) {
        warnings.push(format!(
            "idle = \"spin\" in a cgroup that may use {quota:.1} cores: the kernel stops the router when that is spent; use \
             \"wait\", or raise the limit (CPUQuota= of its unit, --cpus of its container)"
        ));
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cores` cores with `threads` siblings each, numbered as servers are: the first thread of all cores, then the second.
    /// They are spread evenly over `nodes` nodes, in order.
    fn machine(cores: usize, threads: usize, nodes: usize) -> Topology {
        let cpu = |id: usize| Cpu {
            id,
            core: id % cores,
            node: (id % cores) * nodes / cores,
            isolated: false,
            tickless: false,
            efficient: false,
        };
        Topology {
            cpus: (0..cores * threads).map(cpu).collect(),
            allowed: (0..cores * threads).collect(),
            ..Topology::default()
        }
    }

    fn isolate(mut machine: Topology, list: &str) -> Topology {
        let list = CpuSet::from_list(list);
        machine.cpus.iter_mut().for_each(|cpu| cpu.isolated = list.contains(cpu.id));
        machine
    }

    fn chosen(machine: &Topology, workers: usize) -> Vec<usize> {
        let placement = place(machine, &Cores::Auto, workers).expect("there is room");
        placement.seats.iter().map(|seat| seat.core.expect("auto names one")).collect()
    }

    fn list(cores: &[usize]) -> Cores {
        Cores::List(cores.to_vec())
    }

    #[test]
    fn a_small_machine_keeps_its_first_core_for_others() {
        assert_eq!(chosen(&machine(2, 1, 1), 1), [1]);
        let placement = place(&machine(2, 1, 1), &Cores::Auto, 1).expect("there is room");
        assert_eq!((placement.rest.to_string().as_str(), placement.warnings.len()), ("0", 0));
        assert_eq!(placement.seats[0].reason, "auto, a core of its own");
    }

    #[test]
    fn a_container_with_one_processor_shares_it() {
        let mut one = machine(8, 2, 1);
        one.allowed = CpuSet::from_list("5");
        assert_eq!(chosen(&one, 1), [5]);
        let placement = place(&one, &Cores::Auto, 1).expect("there is room");
        assert!(placement.rest.is_empty() && placement.warnings.is_empty(), "{placement:?}");
        let refused = place(&one, &Cores::Auto, 2).expect_err("two on one").to_string();
        assert!(refused.contains("2 workers") && refused.contains("may use 1 (5)"), "{refused}");
    }

    #[test]
    fn siblings_are_shared_only_when_no_core_is_free() {
        let laptop = machine(4, 2, 1);
        assert_eq!(chosen(&laptop, 3), [1, 2, 3]);
        assert_eq!(chosen(&laptop, 4), [1, 2, 3, 4], "then the other thread of the core that was left to others");
        assert_eq!(chosen(&laptop, 6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(chosen(&laptop, 8), [1, 2, 3, 4, 5, 6, 7, 0], "where interrupts arrive comes last");
        let placement = place(&laptop, &Cores::Auto, 5).expect("there is room");
        assert_eq!(placement.seats[4].reason, "auto, shares its core with the worker on 1");
        assert_eq!(placement.seats[1].reason, "auto, sibling of 6, where no worker is");
        assert!(
            placement.warnings.iter().any(|warning| warning.starts_with("1 cores have two workers")),
            "{placement:?}"
        );
        let all = place(&laptop, &Cores::Auto, 8).expect("there is room");
        assert!(all.rest.is_empty() && all.warnings.iter().any(|warning| warning.contains("every core")), "{all:?}");
    }

    #[test]
    fn siblings_that_are_neighbours_are_told_apart_too() {
        let mut desktop = machine(4, 2, 1);
        desktop.cpus.iter_mut().for_each(|cpu| cpu.core = cpu.id / 2 * 2);
        assert_eq!(chosen(&desktop, 4), [2, 4, 6, 1]);
    }

    #[test]
    fn small_cores_come_last() {
        let mut laptop = machine(6, 1, 1);
        laptop.cpus.iter_mut().for_each(|cpu| cpu.efficient = cpu.id >= 3);
        assert_eq!(chosen(&laptop, 4), [1, 2, 3, 4]);
    }

    #[test]
    fn workers_stay_on_one_node_and_near_the_cards() {
        let server = machine(16, 2, 2);
        assert_eq!(chosen(&server, 4), [1, 2, 3, 4], "either node holds four");
        let mut near = server.clone();
        near.near = Some(1);
        assert_eq!(chosen(&near, 4), [8, 9, 10, 11]);
        near.near = Some(0);
        assert_eq!(chosen(&near, 9), [1, 2, 3, 4, 5, 6, 7, 8, 9], "then the other node's cores, not siblings");
        let placement = place(&near, &Cores::Auto, 8).expect("there is room");
        assert!(placement.seats[0].reason.ends_with("NUMA node 0, the network cards'"), "{placement:?}");
        assert!(placement.seats[7].reason.ends_with("NUMA node 1"), "{placement:?}");
        assert_eq!(chosen(&server, 8), [8, 9, 10, 11, 12, 13, 14, 15], "node 0 has only seven to give");
    }

    #[test]
    fn isolated_cores_are_taken_first_and_control_stays_off_them() {
        let server = isolate(machine(8, 1, 1), "5-7");
        assert_eq!(chosen(&server, 2), [5, 6]);
        assert_eq!(chosen(&server, 4), [5, 6, 7, 1]);
        let placement = place(&server, &Cores::Auto, 1).expect("there is room");
        assert_eq!(placement.rest.to_string(), "0-4", "isolated cores that no worker needs stay empty");
        assert_eq!(placement.seats[0].reason, "auto, isolated, a core of its own");
        let mut tickless = server;
        tickless.cpus[7].tickless = true;
        assert_eq!(chosen(&tickless, 2), [7, 5]);
        let spread = isolate(machine(16, 1, 2), "6-7,12-15");
        assert_eq!(chosen(&spread, 3), [12, 13, 14], "one node holds all three");
        let all = isolate(machine(4, 1, 1), "0-3");
        assert_eq!(chosen(&all, 2), [1, 2], "a machine of isolated cores only keeps one, too");
    }

    #[test]
    fn a_restricted_process_chooses_among_what_it_may_use() {
        let mut server = machine(8, 2, 2);
        server.allowed = CpuSet::from_list("4-6,12-14");
        assert_eq!(chosen(&server, 2), [5, 6]);
        assert_eq!(place(&server, &Cores::Auto, 2).expect("there is room").rest.to_string(), "4,12-14");
    }

    #[test]
    fn a_list_is_taken_as_it_is_or_refused_with_a_reason() {
        let mut server = machine(8, 1, 1);
        server.allowed = CpuSet::from_list("0-5");
        server.offline = CpuSet::from_list("8-9");
        let placement = place(&server, &list(&[5, 0]), 2).expect("is possible");
        assert_eq!(placement.seats.iter().map(|seat| seat.core).collect::<Vec<_>>(), [Some(5), Some(0)]);
        assert_eq!(placement.seats[0].reason, "as configured, a core of its own");
        for (cores, workers, refused) in [
            (&[1, 1][..], 2, "core 1 is listed twice"),
            (&[9], 1, "echo 1 > /sys/devices/system/cpu/cpu9/online"),
            (&[4095], 1, "no core 4095. It has 0-7"),
            (&[6], 1, "core 6 is not for this process, which may use 0-5"),
            (&[1], 2, "1 cores are named for 2 workers"),
            (&[1, 2, 3], 2, "3 cores are named for 2 workers"),
        ] {
            let said = place(&server, &list(cores), workers).expect_err("is impossible").to_string();
            assert!(said.contains(refused), "{said}");
        }
        let anywhere = place(&server, &list(&[]), 2).expect("is possible");
        assert!(anywhere.seats.iter().all(|seat| seat.core.is_none()) && anywhere.rest.is_empty());
    }

    #[test]
    fn spinning_in_real_time_is_refused_where_it_would_be_the_end() {
        let small = machine(2, 1, 1);
        let considered = |machine: &Topology, workers, idle, realtime| {
            let placement = place(machine, &Cores::Auto, workers).expect("there is room");
            consider(machine, &placement, idle, realtime, Some(950_000))
        };
        for (workers, what) in [(1, "the only core"), (2, "all 2 cores")] {
            let mut machine = small.clone();
            machine.allowed = (0..workers).collect();
            let said = considered(&machine, workers, Idle::Spin, Some(10)).expect_err("starves the rest").to_string();
            assert!(said.contains(what) && said.contains("idle = \"wait\""), "{said}");
            let said = considered(&machine, workers, Idle::Wait, Some(10)).expect("is possible").join("; ");
            assert!(said.contains("under load nothing else runs"), "{said}");
            let said = considered(&machine, workers, Idle::Spin, None).expect("is possible").join("; ");
            assert!(said.contains("control and applications share it"), "{said}");
        }
        let said = considered(&small, 1, Idle::Spin, Some(10)).expect("a core is free").join("; ");
        assert!(said.contains("50 ms of every second") && said.contains("sched_rt_runtime_us=-1"), "{said}");
        assert_eq!(considered(&small, 1, Idle::Wait, Some(10)), Ok(vec![]));
        assert_eq!(considered(&small, 1, Idle::Spin, None), Ok(vec![]));
        let unpinned = place(&small, &list(&[]), 1).expect("is possible");
        let said = consider(&small, &unpinned, Idle::Spin, Some(10), Some(-1)).expect("a core is free").join("; ");
        assert!(said.contains("workers.cores = \"auto\"") && !said.contains("sched_rt"), "{said}");
        let limited = Topology { quota: Some(1.0), ..small };
        let said = considered(&limited, 1, Idle::Spin, None).expect("is possible").join("; ");
        assert!(said.contains("may use 1.0 cores") && said.contains("--cpus"), "{said}");
    }

    proptest::proptest! {
        /// On any machine: as many places as workers, all different and usable, and no core has two workers while another
        /// has none.
        #[test]
        fn auto_is_fair_to_every_machine(
            cores in 1usize..12, threads in 1usize..3, nodes in 1usize..3, isolated: u16, allowed: u32, workers in 1usize..20
        ) {
            let mut machine = machine(cores, threads, nodes.min(cores));
            machine.cpus.iter_mut().for_each(|cpu| cpu.isolated = isolated & (1 << cpu.core) != 0);
            machine.allowed = machine.cpus.iter().map(|cpu| cpu.id).filter(|&id| allowed & (1 << id) != 0).collect();
            let usable = machine.usable().count();
            let Ok(placement) = place(&machine, &Cores::Auto, workers) else {
                proptest::prop_assert!(workers > usable);
                return Ok(());
            };
            let taken = placement.cores();
            proptest::prop_assert_eq!(taken.len(), workers);
            proptest::prop_assert!(taken.without(&machine.allowed).is_empty());
            proptest::prop_assert!(placement.rest.common(&taken).is_empty());
            let busy = |core: usize| machine.usable().filter(|cpu| cpu.core == core && taken.contains(cpu.id)).count();
            let counts: Vec<usize> = machine.usable().map(|cpu| busy(cpu.core)).collect();
            let (most, least) = (counts.iter().max().unwrap_or(&0), counts.iter().min().unwrap_or(&0));
            proptest::prop_assert!(*most <= 1 || *least >= 1, "{:?}", placement);
            if workers < usable && counts.len() > 1 && most <= &1 && counts.iter().filter(|&&count| count == 0).count() > 0 {
                proptest::prop_assert!(!placement.rest.is_empty());
            }
        }
    }
}
