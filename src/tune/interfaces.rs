//! The network interfaces that a router's links use, and where their interrupts arrive.

use crate::config::settings::Link;
use crate::runtime::machine::{CpuSet, text};
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// An interface in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its interrupts.
    pub interrupts: Vec<Interrupt>,
    /// Its receive queues.
    pub queues: Vec<Queue>,
}

/// An interrupt of an interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interrupt {
    /// Its number, as in /proc/interrupts.
    pub number: u32,
    /// What its driver calls it.
    pub name: String,
    /// The processors where it arrives.
    #[serde(serialize_with = "as_list")]
    pub cpus: CpuSet,
}

/// A receive queue of an interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Queue {
    /// Its name, `rx-0`.
    pub name: String,
    /// The processors that receive packet steering sends its packets to; empty is off: the interrupt's processor does all.
    #[serde(serialize_with = "as_list")]
    pub steered_to: CpuSet,
}

/// Processors as people write them.
pub(super) fn as_list<S: serde::Serializer>(cpus: &CpuSet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(cpus)
}

/// The interfaces that lead to the links' other ends; where none has an address, or none leads there, those of the default
/// routes. Virtual ones that have no card (loopback, tunnels) have no interrupts.
pub(super) fn in_use(root: &Path, links: &[Link]) -> Vec<Interface> {
    let routes = routes(root);
    let remotes = links.iter().flat_map(|link| &link.paths).map(|path| path.remote);
    let mut names: BTreeSet<&str> = remotes.filter_map(|remote| leads_to(&routes, remote.ip())).collect();
    if names.is_empty() {
        names = routes.iter().filter(|route| route.bits == 0).map(|route| route.interface.as_str()).collect();
    }
    names.into_iter().map(|name| interface(root, name)).collect()
}

/// A route of the main table.
#[derive(Debug, PartialEq)]
struct Route {
    to: IpAddr,
    bits: u32,
    interface: String,
}

fn routes(root: &Path) -> Vec<Route> {
    let read = |name: &str| text(root.join("proc/net").join(name)).unwrap_or_default();
    let (v4, v6) = (read("route"), read("ipv6_route"));
    v4.lines().skip(1).filter_map(route_v4).chain(v6.lines().filter_map(route_v6)).collect()
}

/// A line of /proc/net/route: addresses are hexadecimal, their bytes in the order of the network.
fn route_v4(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let (to, mask) = (number(words.get(1)?)?, number(words.get(7)?)?);
    let to = IpAddr::V4(Ipv4Addr::from(to.to_ne_bytes()));
    Some(Route { to, bits: mask.count_ones(), interface: words[0].to_owned() })
}

/// A line of /proc/net/ipv6_route. Routes of loopback only say what is unreachable, or this machine's own.
fn route_v6(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let to = IpAddr::V6(Ipv6Addr::from(u128::from_str_radix(words.first()?, 16).ok()?));
    let bits = u32::from_str_radix(words.get(1)?, 16).ok()?;
    let interface = (*words.get(9)?).to_owned();
    (interface != "lo").then_some(Route { to, bits, interface })
}

fn leads_to(routes: &[Route], address: IpAddr) -> Option<&str> {
    let matches = |route: &&Route| match (route.to, address) {
        (IpAddr::V4(to), IpAddr::V4(address)) => {
            let differs = u32::from(to) ^ u32::from(address);
            differs.leading_zeros() >= route.bits
        }
        (IpAddr::V6(to), IpAddr::V6(address)) => {
            let differs = u128::from(to) ^ u128::from(address);
            differs.leading_zeros() >= route.bits
        }
        _ => false,
    };
    if address.is_loopback() {
        return None;
    }
    routes.iter().filter(matches).max_by_key(|route| route.bits).map(|route| route.interface.as_str())
}

fn interface(root: &Path, name: &str) -> Interface {
    let device = root.join("sys/class/net").join(name);
    let mut interrupts: Vec<Interrupt> =
        interrupt_numbers(&device).filter_map(|number| interrupt(root, number)).collect();
    interrupts.sort_by_key(|interrupt| interrupt.number);
    let mut queues: Vec<Queue> = entries(&device.join("queues")).filter_map(|name| queue(&device, name)).collect();
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    Interface { name: name.to_owned(), interrupts, queues }
}

/// A card's interrupts stand at its own device, or, of a virtual one, at the device that carries it.
fn interrupt_numbers(device: &Path) -> impl Iterator<Item = u32> {
    let found = ["device/msi_irqs", "device/../msi_irqs"].map(|place| entries(&device.join(place)).collect::<Vec<_>>());
    found
        .into_iter()
        .find(|names| !names.is_empty())
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| name.parse().ok())
}

fn entries(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Where an interrupt arrives: really, or as it may. None if it never did, and of those that only tell of changes.
fn interrupt(root: &Path, number: u32) -> Option<Interrupt> {
    let table = text(root.join("proc/interrupts"))?;
    let prefix = format!("{number}:");
    let line = table.lines().map(str::trim).find_map(|line| line.strip_prefix(&prefix))?;
    let count: u64 = line.split_whitespace().map_while(|word| word.parse::<u64>().ok()).sum();
    let directory = root.join(format!("proc/irq/{number}"));
    let list =
        |name: &str| text(directory.join(name)).map(|text| CpuSet::from_list(&text)).filter(|set| !set.is_empty());
    let cpus = list("effective_affinity_list").or_else(|| list("smp_affinity_list"))?;
    let name = line.split_whitespace().next_back().unwrap_or_default().to_owned();
    (count > 0 && !name.ends_with("config")).then_some(Interrupt { number, name, cpus })
}

fn queue(device: &Path, name: String) -> Option<Queue> {
    let steered = text(device.join("queues").join(&name).join("rps_cpus"))?;
    name.starts_with("rx-").then(|| Queue { steered_to: CpuSet::from_mask(&steered), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        eth1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n";
    const ROUTES_V6: &str = "20010db8000000000000000000000000 20 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth2\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("is below the root")).expect("is made");
        std::fs::write(path, text).expect("is written");
    }

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "proc/net/route", ROUTES);
        write(root.path(), "proc/net/ipv6_route", ROUTES_V6);
        root
    }

    fn names(links: &[Option<&str>]) -> Vec<String> {
        let root = machine();
        let link = |remote: &Option<&str>| Link::new("b".into(), remote.map(|text| text.parse().expect("an address")));
        let links: Vec<Link> = links.iter().map(link).collect();
        in_use(root.path(), &links).into_iter().map(|interface| interface.name).collect()
    }

    #[test]
    fn links_lead_to_interfaces_by_the_longest_prefix() {
        assert_eq!(names(&[Some("10.1.2.3:1")]), ["eth1"]);
        assert_eq!(names(&[Some("10.1.2.3:1"), Some("192.0.2.1:1"), Some("192.168.2.9:1")]), ["eth0", "eth1"]);
        assert_eq!(names(&[Some("[2001:db8::1]:1")]), ["eth2"]);
        assert_eq!(names(&[]), ["eth0"], "the default route's");
        assert_eq!(names(&[None, Some("127.0.0.2:1")]), ["eth0"], "none of these leads out");
    }

    #[test]
    fn interrupts_and_steering_are_those_of_the_card() {
        let root = machine();
        for (path, text) in [
            ("sys/class/net/eth0/msi_irqs/40", "msix\n"),
            ("sys/class/net/eth0/msi_irqs/41", "msix\n"),
            ("sys/class/net/eth0/msi_irqs/42", "msix\n"),
            ("sys/class/net/eth0/device/x", ""),
            ("sys/class/net/eth0/queues/rx-0/rps_cpus", "3\n"),
            ("sys/class/net/eth0/queues/tx-0/xps_cpus", "0\n"),
            ("proc/irq/40/smp_affinity_list", "0-1\n"),
            ("proc/irq/41/smp_affinity_list", "0-1\n"),
            ("proc/irq/41/effective_affinity_list", "1\n"),
            ("proc/irq/42/smp_affinity_list", "0\n"),
            (
                "proc/interrupts",
                "           CPU0       CPU1\n 40:  3  0 PCI-MSIX-0000:00:01.0 0-edge virtio0-config\n \
                 41:  0  9 PCI-MSIX-0000:00:01.0 1-edge virtio0-input.0\n 42:  0 0 PCI-MSIX 2-edge virtio0-output.0\n",
            ),
        ] {
            write(root.path(), path, text);
        }
        let found = in_use(root.path(), &[]);
        let input = Interrupt { number: 41, name: "virtio0-input.0".into(), cpus: CpuSet::from_list("1") };
        assert_eq!(found[0].interrupts, [input], "the others tell of changes, or never came");
        assert_eq!(found[0].queues, [Queue { name: "rx-0".into(), steered_to: CpuSet::from_list("0-1") }]);
        assert_eq!(serde_json::to_value(&found[0].queues[0]).expect("serialises")["steered_to"], "0-1");
    }
}
