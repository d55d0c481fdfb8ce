//! The processors of this machine, as /sys tells of them.

use super::cpus::CpuSet;
use super::{number, text};
use std::collections::BTreeMap;
use std::path::Path;

/// A processor that is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: usize,
    /// The core it belongs to, named by the lowest number among that core's processors.
    pub core: usize,
    /// Its NUMA node.
    pub node: usize,
    /// The scheduler puts nobody there by itself (`isolcpus`, or an isolated cpuset partition).
    pub isolated: bool,
    /// The timer tick stops while a single thread runs there (`nohz_full`).
    pub tickless: bool,
    /// One of the smaller cores of a machine that has two kinds.
    pub efficient: bool,
}

/// The machine, and what this process may use of it. Plain data, so that tests can make one up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// Everything online, by number.
    pub cpus: Vec<Cpu>,
    /// What there is but is switched off.
    pub offline: CpuSet,
    /// What this process may use.
    pub allowed: CpuSet,
    /// How many processors' worth of time its cgroup may use, if that is limited.
    pub quota: Option<f64>,
    /// The NUMA node of the network cards, if they have one in common.
    pub near: Option<usize>,
}

impl Topology {
    /// This machine, for this process.
    pub fn here() -> Topology {
        let mut topology = Topology::read(Path::new("/"), CpuSet::of_this_thread().unwrap_or_default());
        topology.admit_isolated();
        topology
    }

    /// The machine whose /proc and /sys are below `root`, for a process that may use `allowed`.
    pub fn read(root: &Path, allowed: CpuSet) -> Topology {
        let system = root.join("sys/devices/system");
        let list = |name: &str| text(system.join("cpu").join(name)).map(|text| CpuSet::from_list(&text));
        // Where /sys is not mounted, what we may use is all that is known.
        let online = list("online").filter(|online| !online.is_empty()).unwrap_or_else(|| allowed.clone());
        let offline = list("present").unwrap_or_default().without(&online);
        let (isolated, tickless) = (list("isolated").unwrap_or_default(), list("nohz_full").unwrap_or_default());
        let (nodes, efficient) = (nodes(&system), efficient(root, &online));
        let cpu = |id: usize| {
            let siblings = text(system.join(format!("cpu/cpu{id}/topology/thread_siblings_list")));
            let siblings = siblings.map(|text| CpuSet::from_list(&text)).unwrap_or_default();
            Cpu {
                id,
                core: siblings.iter().next().unwrap_or(id),
                node: nodes.iter().find(|(_, cpus)| cpus.contains(id)).map_or(0, |(&node, _)| node),
                isolated: isolated.contains(id),
                tickless: tickless.contains(id),
                efficient: efficient.contains(id),
            }
        };
        let cpus = online.iter().map(cpu).collect();
        Topology { cpus, offline, allowed, quota: quota(root), near: cards_node(root) }
    }

    /// `isolcpus` takes the isolated processors out of every process's mask, and yet threads may be sent there. They are
    /// ours to use if nobody restricted this process any further (with taskset, or a cpuset).
    fn admit_isolated(&mut self) {
        let (isolated, others): (Vec<Cpu>, Vec<Cpu>) = self.cpus.iter().partition(|cpu| cpu.isolated);
        let missing: Vec<usize> = isolated.iter().map(|cpu| cpu.id).filter(|&id| !self.allowed.contains(id)).collect();
        if missing.is_empty() || others.iter().any(|cpu| !self.allowed.contains(cpu.id)) {
            return;
        }
        let open = |&id: &usize| core_affinity::set_for_current(core_affinity::CoreId { id });
        // In a thread of its own, which takes what it was confined to with it.
        let reached = std::thread::spawn(move || missing.into_iter().filter(open).collect::<Vec<usize>>()).join();
        self.allowed = self.allowed.iter().chain(reached.unwrap_or_default()).collect();
    }

    /// The processors that this process may use, by number.
    pub fn usable(&self) -> impl Iterator<Item = &Cpu> + '_ {
        self.cpus.iter().filter(|cpu| self.allowed.contains(cpu.id))
    }

    /// A processor that is online.
    pub fn cpu(&self, id: usize) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.id == id)
    }

    /// The other processors of the same core.
    pub fn siblings(&self, cpu: &Cpu) -> CpuSet {
        self.cpus.iter().filter(|other| other.core == cpu.core && other.id != cpu.id).map(|other| other.id).collect()
    }

    /// Whether it has more than one NUMA node.
    pub fn has_nodes(&self) -> bool {
        self.cpus.iter().any(|cpu| cpu.node != self.cpus[0].node)
    }
}

fn nodes(system: &Path) -> BTreeMap<usize, CpuSet> {
    let entries = std::fs::read_dir(system.join("node")).into_iter().flatten().flatten();
    let node = |entry: std::fs::DirEntry| {
        let id = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((id, CpuSet::from_list(&text(entry.path().join("cpulist"))?)))
    };
    entries.filter_map(node).collect()
}

/// The smaller cores: Intel's own list, or what has less capacity than others (Arm; the kernel gives the largest 1024).
fn efficient(root: &Path, online: &CpuSet) -> CpuSet {
    if let Some(list) = text(root.join("sys/devices/cpu_atom/cpus")) {
        let small = CpuSet::from_list(&list);
        // A machine of nothing but small cores has no others to prefer.
        return if online.without(&small).is_empty() { CpuSet::default() } else { small };
    }
    let capacity = |id: usize| number::<u64>(root.join(format!("sys/devices/system/cpu/cpu{id}/cpu_capacity")));
    let largest = online.iter().filter_map(capacity).max();
    online.iter().filter(|&id| capacity(id) < largest && capacity(id).is_some()).collect()
}

/// Processors' worth of time that the cgroup of this process grants, the least of it and all above it.
fn quota(root: &Path) -> Option<f64> {
    let groups = text(root.join("proc/self/cgroup"))?;
    let grants = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, Path::new(parts.next()?.trim_start_matches('/')));
        let mount = match controllers {
            "" => "sys/fs/cgroup".to_owned(),
            list if list.split(',').any(|name| name == "cpu") => format!("sys/fs/cgroup/{list}"),
            _ => return None,
        };
        let mount = root.join(mount);
        path.ancestors().filter_map(|path| granted(&mount.join(path))).min_by(f64::total_cmp)
    });
    grants.min_by(f64::total_cmp)
}

fn granted(group: &Path) -> Option<f64> {
    if let Some(text) = text(group.join("cpu.max")) {
        let mut words = text.split_whitespace().map(str::parse::<f64>);
        let (quota, period) = (words.next()?.ok()?, words.next()?.ok()?);
        return Some(quota / period);
    }
    let (quota, period): (f64, f64) =
        (number(group.join("cpu.cfs_quota_us"))?, number(group.join("cpu.cfs_period_us"))?);
    (quota > 0.0).then_some(quota / period)
}

/// The NUMA node of all network cards that are up. None if they are on several, or say of none.
fn cards_node(root: &Path) -> Option<usize> {
    let cards = std::fs::read_dir(root.join("sys/class/net")).into_iter().flatten().flatten().map(|entry| entry.path());
    let up = cards.filter(|card| text(card.join("operstate")).is_some_and(|state| state == "up"));
    let mut nodes = up.filter_map(|card| number::<usize>(card.join("device/numa_node")));
    let first = nodes.next()?;
    nodes.all(|node| node == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes files below a temporary root.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("is below the root")).expect("is made");
            std::fs::write(path, text).expect("is written");
        }
        root
    }

    #[test]
    fn a_server_is_read_as_its_files_say() {
        let siblings = |id: usize| format!("sys/devices/system/cpu/cpu{id}/topology/thread_siblings_list");
        let (names, lists): (Vec<String>, Vec<String>) =
            (0..4).map(|id| (siblings(id), format!("{},{}\n", id % 2, id % 2 + 2))).unzip();
        let mut files = vec![
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/cpu/present", "0-5\n"),
            ("sys/devices/system/cpu/isolated", "1,3\n"),
            ("sys/devices/system/cpu/nohz_full", "3\n"),
            ("sys/devices/system/node/node0/cpulist", "0,2\n"),
            ("sys/devices/system/node/node1/cpulist", "1,3\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/device/numa_node", "1\n"),
            ("sys/class/net/eth1/operstate", "down\n"),
            ("sys/class/net/eth1/device/numa_node", "0\n"),
            ("sys/class/net/lo/operstate", "unknown\n"),
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ];
        files.extend(names.iter().zip(&lists).map(|(name, list)| (name.as_str(), list.as_str())));
        let root = machine(&files);
        let found = Topology::read(root.path(), CpuSet::from_list("0-3"));
        let cpu = |id, core, node, isolated, tickless| Cpu { id, core, node, isolated, tickless, efficient: false };
        assert_eq!(
            found.cpus,
            [
                cpu(0, 0, 0, false, false),
                cpu(1, 1, 1, true, false),
                cpu(2, 0, 0, false, false),
                cpu(3, 1, 1, true, true)
            ]
        );
        assert_eq!((found.offline.to_string().as_str(), found.near, found.quota), ("4-5", Some(1), Some(1.5)));
        assert_eq!(found.siblings(&found.cpus[0]).to_string(), "2");
        assert!(found.has_nodes());
    }

    #[test]
    fn small_cores_are_told_apart_and_a_machine_without_sys_has_what_we_may_use() {
        let intel = machine(&[("sys/devices/system/cpu/online", "0-3"), ("sys/devices/cpu_atom/cpus", "2-3\n")]);
        let small =
            |found: Topology| found.cpus.iter().filter(|cpu| cpu.efficient).map(|cpu| cpu.id).collect::<Vec<_>>();
        assert_eq!(small(Topology::read(intel.path(), CpuSet::from_list("0-3"))), [2, 3]);
        let only_small = machine(&[("sys/devices/system/cpu/online", "0-1"), ("sys/devices/cpu_atom/cpus", "0-1\n")]);
        assert!(small(Topology::read(only_small.path(), CpuSet::from_list("0-1"))).is_empty());
        let arm = machine(&[
            ("sys/devices/system/cpu/online", "0-1"),
            ("sys/devices/system/cpu/cpu0/cpu_capacity", "446\n"),
            ("sys/devices/system/cpu/cpu1/cpu_capacity", "1024\n"),
        ]);
        assert_eq!(small(Topology::read(arm.path(), CpuSet::from_list("0-1"))), [0]);
        let bare = machine(&[]);
        let found = Topology::read(bare.path(), CpuSet::from_list("0,5"));
        assert_eq!(found.cpus.iter().map(|cpu| (cpu.id, cpu.core)).collect::<Vec<_>>(), [(0, 0), (5, 5)]);
        assert_eq!((found.quota, found.near, found.has_nodes()), (None, None, false));
    }

    #[test]
    fn older_cgroups_limit_time_too() {
        let root = machine(&[
            ("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n"),
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(Topology::read(root.path(), CpuSet::from_list("0")).quota, Some(0.5));
    }

    #[test]
    fn this_machine_has_what_this_thread_may_use() {
        let (here, mine) = (Topology::here(), CpuSet::of_this_thread().expect("has some"));
        assert!(mine.without(&here.allowed).is_empty() && here.usable().count() >= mine.len());
    }
}
