//! Which routers exist and which links join them.

use crate::base::{Identity, NodeId, Rng};
use crate::config::settings::{
    Clients, Config, Congestion, Link, LinkPath, Member, Metric, Routing, Telemetry, Workers,
};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Routers numbered from zero, and the pairs that a link joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Number of routers.
    pub routers: usize,
    /// The joined pairs, smaller number first, each once.
    pub links: Vec<(usize, usize)>,
    /// Workers of each router; those that are not named have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<usize>,
}

impl Topology {
    /// `hops` links in a row.
    pub fn chain(hops: usize) -> Topology {
        Topology { routers: hops + 1, links: (0..hops).map(|n| (n, n + 1)).collect(), workers: Vec::new() }
    }

    /// `routers` in a circle.
    pub fn ring(routers: usize) -> Topology {
        assert!(routers >= 3, "a ring has at least three routers");
        let mut links: Vec<_> = (0..routers - 1).map(|n| (n, n + 1)).collect();
        links.push((0, routers - 1));
        Topology { routers, links, workers: Vec::new() }
    }

    /// A connected random graph: a random tree, and up to as many links again.
    pub fn random(routers: usize, rng: &mut Rng) -> Topology {
        assert!(routers >= 2, "a network has at least two routers");
        let mut links: Vec<(usize, usize)> = (1..routers).map(|n| (rng.below(n as u64) as usize, n)).collect();
        for _ in 0..rng.below(routers as u64) {
            let (a, b) = (rng.below(routers as u64) as usize, rng.below(routers as u64) as usize);
            let pair = (a.min(b), a.max(b));
            if a != b && !links.contains(&pair) {
                links.push(pair);
            }
        }
        Topology { routers, links, workers: Vec::new() }
    }

    /// A connected random graph with this many links: a random tree, and any pairs besides.
    pub fn with_links(routers: usize, links: usize, rng: &mut Rng) -> Topology {
        let pairs = routers * routers.saturating_sub(1) / 2;
        assert!((routers - 1..=pairs).contains(&links), "{links} links cannot join {routers} routers");
        let mut drawn: BTreeSet<_> = (1..routers).map(|n| (rng.below(n as u64) as usize, n)).collect();
        while drawn.len() < links {
            let (a, b) = (rng.below(routers as u64) as usize, rng.below(routers as u64) as usize);
            if a != b {
                drawn.insert((a.min(b), a.max(b)));
            }
        }
        Topology { routers, links: drawn.into_iter().collect(), workers: Vec::new() }
    }

    /// The same with so many workers at each router.
    #[must_use]
    pub fn with_workers(self, workers: &[usize]) -> Topology {
        Topology { workers: workers.to_vec(), ..self }
    }

    /// A router has so many workers from its next start on.
    pub(super) fn set_workers(&mut self, router: usize, count: usize) {
        if self.workers.len() <= router {
            self.workers.resize(router + 1, 1);
        }
        self.workers[router] = count;
    }

    /// Workers of a router.
    pub fn workers(&self, router: usize) -> usize {
        self.workers.get(router).copied().unwrap_or(1)
    }

    /// The routers joined to `router`, in the order of its configured links.
    pub fn neighbours(&self, router: usize) -> Vec<usize> {
        let other = |&(a, b): &(usize, usize)| match router {
            r if r == a => Some(b),
            r if r == b => Some(a),
            _ => None,
        };
        self.links.iter().filter_map(other).collect()
    }

    /// The neighbours of every router of `among` there, by router; none of the others.
    fn adjacent(&self, among: &[usize]) -> Vec<Vec<usize>> {
        let mut there = vec![false; self.routers];
        among.iter().for_each(|&router| there[router] = true);
        let mut adjacent = vec![Vec::new(); self.routers];
        for &(a, b) in self.links.iter().filter(|&&(a, b)| there[a] && there[b]) {
            adjacent[a].push(b);
            adjacent[b].push(a);
        }
        adjacent
    }

    /// Whether links among `routers` alone connect them all.
    pub fn connects(&self, routers: &[usize]) -> bool {
        let Some(&first) = routers.first() else { return true };
        let distances = distances(&self.adjacent(routers), first);
        routers.iter().all(|&router| distances[router].is_some())
    }

    /// Links on the longest of the shortest ways among `routers`.
    pub fn diameter(&self, routers: &[usize]) -> usize {
        let adjacent = self.adjacent(routers);
        let longest = |&from: &usize| distances(&adjacent, from).into_iter().flatten().max();
        routers.iter().filter_map(longest).max().unwrap_or(0)
    }

    /// The configuration that `router` would be given, with these link settings.
    pub fn config(&self, router: usize, settings: &LinkSettings) -> Config {
        let members = (0..self.routers).map(member);
        let link = |&peer: &usize| Link {
            peer: name(peer),
            paths: (peer < router || !settings.one_ended).then(|| LinkPath::to(address(peer, 0))).into_iter().collect(),
            preshared_key: settings.preshared.then(|| secret(router, peer)),
            hello: settings.hello,
            dead: settings.dead,
            congestion: settings.congestion,
            queue_delay: settings.queue_delay,
            queue: settings.queue,
        };
        Config {
            name: name(router),
            key_file: "/nonexistent".into(),
            listen: address(router, 0),
            control_socket: "/nonexistent".into(),
            workers: Workers { count: self.workers(router), pool: settings.pool, ..Workers::default() },
            lock_memory: false,
            members: members.collect(),
            links: self.neighbours(router).iter().map(link).collect(),
            routing: Routing { metric: settings.metric },
            telemetry: Telemetry::new("".as_ref()),
            clients: Clients::default(),
            vip: None,
            groups: None,
        }
    }
}

/// Links on the way from `from` to every router; none where there is no way.
fn distances(adjacent: &[Vec<usize>], from: usize) -> Vec<Option<usize>> {
    let mut distances = vec![None; adjacent.len()];
    distances[from] = Some(0);
    let mut next = VecDeque::from([from]);
    while let Some(router) = next.pop_front() {
        for &other in &adjacent[router] {
            if distances[other].is_none() {
                distances[other] = distances[router].map(|distance| distance + 1);
                next.push_back(other);
            }
        }
    }
    distances
}

/// What all links and routers of a simulated network have in common.
#[derive(Clone, Copy, Debug)]
pub struct LinkSettings {
    /// Time between hellos.
    pub hello: Duration,
    /// Silence after which a link is dead.
    pub dead: Duration,
    /// Congestion control.
    pub congestion: Congestion,
    /// Delay bound of a link's queue.
    pub queue_delay: Duration,
    /// Most messages in a link's queue.
    pub queue: usize,
    /// Slots of a router's packet pool.
    pub pool: usize,
    /// What paths are short in.
    pub metric: Metric,
    /// Age at which keys are replaced; none for the usual one.
    pub rekey: Option<Duration>,
    /// Of every link, only the end with the higher number knows the other's address.
    pub one_ended: bool,
    /// The ends of every link share a secret.
    pub preshared: bool,
}

impl Default for LinkSettings {
    fn default() -> LinkSettings {
        LinkSettings {
            hello: Duration::from_millis(40),
            dead: Duration::from_millis(280),
            congestion: Congestion::Cubic,
            queue_delay: Duration::from_millis(20),
            queue: 1024,
            pool: 4096,
            metric: Metric::Expected,
            rekey: None,
            one_ended: false,
            preshared: false,
        }
    }
}

/// What the ends of a link share.
fn secret(a: usize, b: usize) -> [u8; 32] {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&(a.min(b) as u64).to_be_bytes());
    secret[8..16].copy_from_slice(&(a.max(b) as u64).to_be_bytes());
    secret
}

/// The router's name: `r0`, `r1`, …
pub fn name(router: usize) -> String {
    format!("r{router}")
}

thread_local! {
    /// Identities that were asked for, and how configurations list them: making one costs a multiplication on the curve.
    static IDENTITIES: RefCell<Vec<Option<(Identity, Member)>>> = const { RefCell::new(Vec::new()) };
}

fn with_identity<T>(router: usize, take: impl FnOnce(&(Identity, Member)) -> T) -> T {
    let made = || {
        let mut seed = [0x5e; 32];
        seed[..8].copy_from_slice(&(router as u64).to_be_bytes());
        let identity = Identity::from_seed(seed);
        let public = identity.public().to_string();
        (identity, Member { name: name(router), public })
    };
    IDENTITIES.with_borrow_mut(|identities| {
        if identities.len() <= router {
            identities.resize_with(router + 1, || None);
        }
        take(identities[router].get_or_insert_with(made))
    })
}

/// The router's identity, the same in every run.
pub fn identity(router: usize) -> Identity {
    with_identity(router, |(identity, _)| identity.clone())
}

/// The router as configurations list it.
fn member(router: usize) -> Member {
    with_identity(router, |(_, member)| member.clone())
}

/// The router's id.
pub fn node(router: usize) -> NodeId {
    identity(router).public().node_id()
}

/// The port of a router's first worker.
const PORT: u16 = 5300;

/// The address of a router's worker: 10.x.y.1 with the router's number in x and y, and a port.
pub fn address(router: usize, worker: usize) -> SocketAddr {
    let [high, low] = (router as u16).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, high, low, 1)), PORT + worker as u16)
}

/// The router with this address, and which of its workers.
pub fn router_at(address: SocketAddr) -> Option<(usize, usize)> {
    let worker = usize::from(address.port().checked_sub(PORT)?);
    match address.ip() {
        IpAddr::V4(ip) => match ip.octets() {
            [10, high, low, 1] => Some((usize::from(u16::from_be_bytes([high, low])), worker)),
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_topologies_are_connected_and_simple() {
        for seed in 0..50 {
            let mut rng = Rng::from_u64(seed);
            let topology = Topology::random(2 + (seed % 11) as usize, &mut rng);
            let mut reached = vec![false; topology.routers];
            let mut next = vec![0];
            while let Some(router) = next.pop() {
                if !std::mem::replace(&mut reached[router], true) {
                    next.extend(topology.neighbours(router));
                }
            }
            assert!(reached.iter().all(|&r| r), "seed {seed}: {topology:?}");
            assert!(topology.links.iter().all(|&(a, b)| a < b));
        }
    }

    #[test]
    fn addresses_name_their_routers() {
        let found = |router| (0..3).all(|worker| router_at(address(router, worker)) == Some((router, worker)));
        assert!((0..2000).all(found));
    }
}
