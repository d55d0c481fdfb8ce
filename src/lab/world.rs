//! A world: real routers in namespaces of their own, joined by emulated links.
//!
//! ```text
//!    namespace of a            the lab's namespace             namespace of b
//!   [sinew run]  l0a ══veth══ f0a [ emulator ] f0b ══veth══ l0b  [sinew run]
//!      lo 10.65.0.1   10.64.0.1/24              10.64.0.2/24   lo 10.65.0.2
//! ```
//!
//! Both ends of a link are in one subnet and know each other's Ethernet address; every router forwards, and has routes
//! to the loopback address of every other, so the kernel's own traffic crosses the same links as the overlay's. Without
//! namespaces routers listen on 127.x.y.n and the emulator relays their datagrams.
//!
//! Everything is gone when the world is dropped: processes, namespaces, files. Tests reach a place where worlds can be
//! built with [`enter`] or [`run_test`].

use super::conditions::Conditions;
use super::emulator::{Counters, Emulator, Kind, MAX_KINDS, Port};
pub use super::ladder::{Mode, enter, run_test};
use super::netns::{self, Netns};
pub use super::router::Router;
pub use super::timens::ClockShift;
pub use super::topology::{LinkSpec, Topology};
use crate::base::{Identity, Rng};
use crate::runtime::netlink::{Mac, Netlink, Route, VethEnd};
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where routers listen; worker k adds k.
pub const LISTEN_PORT: u16 = 7000;
/// Where the lab's own UDP receivers listen.
pub const RAW_PORT: u16 = 7900;
/// Where the lab's TCP receivers listen: [`TCP_PORTS`] for each congestion control.
pub const TCP_PORT: u16 = 7800;
/// Ports of one congestion control.
pub const TCP_PORTS: u16 = 10;
/// What the overlay's traffic is called in counters.
pub const OVERLAY_KIND: &str = "overlay";
/// What the lab's own UDP traffic is called in counters.
pub const RAW_KIND: &str = "raw-udp";
/// Most TCP congestion controls in one world: what counters tell apart, less everything else, overlay and raw UDP.
pub const MAX_TCP: usize = MAX_KINDS - 3;

/// A network that runs.
#[derive(Debug)]
pub struct World {
    topology: Topology,
    mode: Mode,
    dir: PathBuf,
    /// Before `emulator`: routers end first.
    routers: Vec<Router>,
    emulator: Emulator,
    kinds: Vec<Kind>,
    /// Holds the lab's ends of the links.
    _fabric: Option<Netns>,
}

/// A link of a world.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    world: &'a World,
    place: usize,
    /// The direction that starts at the end named first.
    forward: usize,
}

/// The TCP congestion controls worth comparing with here: CUBIC if there is one, and the default where it differs.
pub fn tcp_algorithms() -> Vec<String> {
    let words = |path: &str| -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let available = words("/proc/sys/net/ipv4/tcp_available_congestion_control");
    let mut chosen: Vec<String> = available.into_iter().filter(|name| name == "cubic").collect();
    chosen.extend(words("/proc/sys/net/ipv4/tcp_congestion_control").into_iter().filter(|name| name != "cubic"));
    chosen
}

/// A subnet's host address: link `link`, end 0 or 1.
fn link_address(link: usize, end: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, link as u8, 1 + end as u8)
}

fn router_address(router: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 65, 0, 1 + router as u8)
}

fn link_mac(link: usize, end: usize) -> Mac {
    [0x02, 0x53, 0x4e, 0, link as u8, 1 + end as u8]
}

const END_LETTERS: [char; 2] = ['a', 'b'];

impl World {
    /// Builds the network; routers are not started yet. On the rung this process is on, else with namespaces.
    pub fn new(topology: &Topology) -> io::Result<World> {
        World::with_mode(topology, super::ladder::current().unwrap_or(Mode::Root))
    }

    /// Builds the network on this rung.
    pub fn with_mode(topology: &Topology, mode: Mode) -> io::Result<World> {
        topology.check().map_err(io::Error::other)?;
        if topology.links.len() > 200 {
            return Err(io::Error::other("more than 200 links cannot be numbered"));
        }
        if topology.tcp.len() > MAX_TCP {
            let text = format!("{} kinds of TCP: {MAX_TCP} can be told apart in one network", topology.tcp.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let dir = make_directory()?;
        let fallible = || {
            let spared_core = spared_core();
            let (fabric, routers, ports) = match mode.has_namespaces() {
                true => build_namespaces(topology, &dir, spared_core)?,
                false => build_relays(topology, &dir)?,
            };
            write_configurations(topology, &routers, &ports)?;
            let kinds = kinds(&topology.tcp);
            let conditions = topology.links.iter().flat_map(|link| [link.forward, link.back]).collect();
            let ports = ports.into_iter().map(|port| port.0).collect();
            let emulator = Emulator::start(ports, conditions, kinds.clone(), topology.seed, spared_core)?;
            Ok((fabric, routers, kinds, emulator))
        };
        match fallible() {
            Ok((fabric, routers, kinds, emulator)) => {
                let topology = topology.clone();
                Ok(World { topology, mode, dir, routers, emulator, kinds, _fabric: fabric })
            }
            Err(error) => {
                let _ = std::fs::remove_dir_all(&dir);
                Err(error)
            }
        }
    }

    /// The rung it was built on.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// What it was built from.
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All routers, in the order of the topology.
    pub fn routers(&self) -> &[Router] {
        &self.routers
    }

    /// The router with this name. Panics if there is none: names come from the topology.
    pub fn router(&self, name: &str) -> &Router {
        let found = self.routers.iter().find(|router| router.name() == name);
        found.unwrap_or_else(|| panic!("the topology has no router `{name}`"))
    }

    /// The link between two routers. Panics if there is none.
    pub fn link(&self, a: &str, b: &str) -> Link<'_> {
        let found = self.topology.links.iter().enumerate().find_map(|(place, link)| {
            let ends = (link.between.0.as_str(), link.between.1.as_str());
            let forward = [(a, b), (b, a)].iter().position(|&named| named == ends)?;
            Some(Link { world: self, place, forward: 2 * place + forward })
        });
        found.unwrap_or_else(|| panic!("the topology has no link between `{a}` and `{b}`"))
    }

    /// The first port of a TCP congestion control; none if this network does not tell it apart.
    pub(super) fn tcp_port(&self, algorithm: &str) -> Option<u16> {
        let place = self.topology.tcp.iter().position(|known| known == algorithm)?;
        Some(TCP_PORT + TCP_PORTS * place as u16)
    }

    /// All links, in the order of the topology.
    pub fn links(&self) -> impl Iterator<Item = Link<'_>> {
        (0..self.topology.links.len()).map(|place| Link { world: self, place, forward: 2 * place })
    }

    /// The emulator, for its lateness.
    pub const fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The kinds of traffic that counters tell apart, in their order; "other" comes first.
    pub fn kinds(&self) -> Vec<&str> {
        std::iter::once("other").chain(self.kinds.iter().map(|kind| kind.name.as_str())).collect()
    }

    /// Starts every router and waits until each reaches every other.
    pub fn start(&self, patience: Duration) -> io::Result<()> {
        self.routers.iter().try_for_each(Router::start)?;
        self.wait_ready(patience)
    }

    /// Waits until every router reaches every other; the error shows what the one that does not has written.
    pub fn wait_ready(&self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        for router in &self.routers {
            loop {
                let state = router.reaches_everyone();
                if matches!(state, Ok(true)) {
                    break;
                }
                let ended = router.pid().is_none();
                if ended || Instant::now() > deadline {
                    let what = match (ended, state) {
                        (true, _) => "ended at once".to_owned(),
                        (false, Err(error)) => format!("does not answer: {error}"),
                        (false, Ok(_)) => "has no route to some router".to_owned(),
                    };
                    let log = router.log();
                    let tail: Vec<&str> = log.lines().rev().take(10).collect();
                    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n    ");
                    let dead = self.routers.iter().filter(|router| router.pid().is_none()).map(Router::name);
                    let dead = match dead.collect::<Vec<_>>().join(", ") {
                        none if none.is_empty() => none,
                        names => format!(" (no process: {names})"),
                    };
                    let text = format!("router {} {what}{dead}; the end of its log:\n    {tail}", router.name());
                    return Err(io::Error::other(text));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// How to reach each router from outside, for people.
    pub fn directions(&self) -> String {
        // Writing to a string cannot fail.
        let mut text = String::from("ask a router (also ping, trace, send, recv, perf):\n");
        for router in &self.routers {
            let _ = writeln!(text, "  {:<6} sinew show links -s {}", router.name(), router.socket().display());
        }
        if self.mode.has_namespaces() {
            text += "a shell in its network, for tcpdump, ss or iperf3:\n";
            let user = if self.mode == Mode::User { "--user --preserve-credentials " } else { "" };
            for (router, pid) in self.routers.iter().filter_map(|router| Some((router, router.pid()?))) {
                let _ = writeln!(text, "  {:<6} nsenter --target {pid} {user}--net --mount", router.name());
            }
        }
        let _ = write!(text, "configurations and logs: {} (removed at the end)", self.dir.display());
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.routers.iter().for_each(|router| {
            router.cont();
            router.signal(libc::SIGTERM);
        });
        for router in &self.routers {
            let _ = router.terminate(Duration::from_secs(1));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Link<'_> {
    /// The routers at its ends, in the order asked for.
    pub fn between(&self) -> (&str, &str) {
        let (a, b) = &self.world.topology.links[self.place].between;
        if self.forward.is_multiple_of(2) { (a, b) } else { (b, a) }
    }

    /// Changes its conditions in both directions.
    pub fn set(&self, conditions: Conditions) {
        self.set_forward(conditions);
        self.set_back(conditions);
    }

    /// Changes its conditions from the end named first.
    pub fn set_forward(&self, conditions: Conditions) {
        self.world.emulator.set(self.forward, conditions);
    }

    /// Changes its conditions towards the end named first.
    pub fn set_back(&self, conditions: Conditions) {
        self.world.emulator.set(self.forward ^ 1, conditions);
    }

    /// Its conditions: from the end named first, and back.
    pub fn conditions(&self) -> (Conditions, Conditions) {
        (self.world.emulator.conditions(self.forward), self.world.emulator.conditions(self.forward ^ 1))
    }

    /// Cuts it silently: nothing passes, nobody is told.
    pub fn cut(&self) {
        self.set_cut(true);
    }

    /// Ends a cut.
    pub fn restore(&self) {
        self.set_cut(false);
    }

    fn set_cut(&self, cut: bool) {
        let (forward, back) = self.conditions();
        self.set_forward(Conditions { cut, ..forward });
        self.set_back(Conditions { cut, ..back });
    }

    /// What passed: from the end named first, and back.
    pub fn counters(&self) -> (Counters, Counters) {
        (self.world.emulator.counters(self.forward), self.world.emulator.counters(self.forward ^ 1))
    }
}

/// Kinds of traffic to tell apart, these TCP congestion controls among them.
fn kinds(tcp: &[String]) -> Vec<Kind> {
    let kind = |name: &str, protocol, port, ports| Kind { name: name.to_owned(), protocol, port, ports };
    let mut kinds = vec![kind(OVERLAY_KIND, 17, LISTEN_PORT, 64), kind(RAW_KIND, 17, RAW_PORT, 64)];
    for (place, name) in tcp.iter().enumerate() {
        kinds.push(kind(&format!("tcp-{name}"), 6, TCP_PORT + TCP_PORTS * place as u16, TCP_PORTS));
    }
    kinds
}

/// The core to keep for the emulator: the last, where there are four or more.
fn spared_core() -> Option<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores >= 4).then_some(cores - 1)
}

/// A directory of this world's own, not readable by others.
fn make_directory() -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sinew-lab-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }
}

/// Where a direction enters the emulator, and the address at which a router sees the far end of the link.
struct Entrance(Port, SocketAddrV4);

type Built = (Option<Netns>, Vec<Router>, Vec<Entrance>);

fn new_router(topology: &Topology, place: usize, dir: &Path) -> Router {
    let name = &topology.routers[place];
    Router {
        name: name.clone(),
        public: identity(topology, place).public(),
        netns: None,
        listen: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, LISTEN_PORT),
        address: router_address(place),
        dir: dir.to_owned(),
        program: topology.program.clone(),
        spared_core: None,
        child: Mutex::new(None),
    }
}

/// A router's identity follows from the seed and its place: worlds are repeatable, and their keys worthless elsewhere.
fn identity(topology: &Topology, place: usize) -> Identity {
    let mut rng = Rng::from_u64(topology.seed ^ 0x6c61_625f_6b65_7973);
    let mut seed = [0; 32];
    (0..=place).for_each(|_| rng.fill(&mut seed));
    Identity::from_seed(seed)
}

fn build_namespaces(topology: &Topology, dir: &Path, spared_core: Option<usize>) -> io::Result<Built> {
    let fabric = Netns::new()?;
    let mut routers: Vec<Router> = (0..topology.routers.len()).map(|place| new_router(topology, place, dir)).collect();
    for router in &mut routers {
        let netns = Netns::new()?;
        netns.run(|| {
            // Without these the kernel would chat over our links by itself; where IPv6 is absent, so are they.
            let _ = netns::sysctl("ipv6/conf/all/disable_ipv6", "1");
            let _ = netns::sysctl("ipv6/conf/default/disable_ipv6", "1");
            Ok(())
        })?;
        router.netns = Some(netns);
        router.spared_core = spared_core;
    }
    let mut ports = fabric.run(|| {
        let _ = netns::sysctl("ipv6/conf/default/disable_ipv6", "1");
        build_links(topology, &routers)
    })?;
    for (place, router) in routers.iter().enumerate() {
        router.inside(|| set_up_router(topology, place))?;
    }
    let mut entrances = Vec::new();
    for link in 0..topology.links.len() {
        for end in 0..2 {
            let far = SocketAddrV4::new(link_address(link, 1 - end), LISTEN_PORT);
            entrances.push(Entrance(Port::Frames(ports.remove(0)), far));
        }
    }
    Ok((Some(fabric), routers, entrances))
}

/// In the lab's namespace: both veth pairs of every link, and a packet socket on each of our ends.
fn build_links(topology: &Topology, routers: &[Router]) -> io::Result<Vec<OwnedFd>> {
    let mut netlink = Netlink::open()?;
    let mut sockets = Vec::new();
    for (place, link) in topology.links.iter().enumerate() {
        for (end, name) in [&link.between.0, &link.between.1].into_iter().enumerate() {
            let letter = END_LETTERS[end];
            let (ours, theirs) = (format!("f{place}{letter}"), format!("l{place}{letter}"));
            let router = topology.place(name).map(|router| &routers[router]);
            let namespace = router.and_then(|router| router.netns.as_ref()).map(Netns::as_fd);
            let here = VethEnd { name: &ours, mac: [0x02, 0x53, 0x4e, 1, place as u8, 1 + end as u8], namespace: None };
            let there = VethEnd { name: &theirs, mac: link_mac(place, end), namespace };
            netlink.add_veth(here, there)?;
            netns::disable_offloads(&ours)?;
            let index = netlink.index(&ours)?;
            netlink.set_up(index, true)?;
            sockets.push(netns::packet_socket(index)?);
        }
    }
    Ok(sockets)
}

/// In a router's namespace: addresses, neighbours, forwarding and routes.
fn set_up_router(topology: &Topology, router: usize) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let loopback = netlink.index("lo")?;
    netlink.set_up(loopback, true)?;
    netlink.add_address(loopback, router_address(router).into(), 32)?;
    netns::sysctl("ipv4/ip_forward", "1")?;
    // A connection should not profit or suffer from what an earlier one learnt.
    let _ = netns::sysctl("ipv4/tcp_no_metrics_save", "1");
    let ends = topology.links_of(router);
    for &(link, _) in &ends {
        let end = end_of(topology, link, router);
        let name = format!("l{link}{}", END_LETTERS[end]);
        netns::disable_offloads(&name)?;
        let index = netlink.index(&name)?;
        netlink.set_up(index, true)?;
        netlink.add_address(index, link_address(link, end).into(), 24)?;
        netlink.add_neighbour(index, link_address(link, 1 - end).into(), link_mac(link, 1 - end))?;
    }
    for (destination, next) in topology.next_hops(router).into_iter().enumerate() {
        let Some((link, _)) = next else { continue };
        let end = end_of(topology, link, router);
        netlink.add_route(&Route {
            destination: router_address(destination).into(),
            prefix: 32,
            via: Some(IpAddr::V4(link_address(link, 1 - end))),
            device: None,
            source: Some(router_address(router).into()),
        })?;
    }
    Ok(())
}

/// Which end of a link a router is.
fn end_of(topology: &Topology, link: usize, router: usize) -> usize {
    usize::from(topology.place(&topology.links[link].between.0) != Some(router))
}

/// Without namespaces: a loopback address for each router, a pair of relaying sockets for each link.
fn build_relays(topology: &Topology, dir: &Path) -> io::Result<Built> {
    if topology.workers.iter().any(|&count| count > 1) {
        return Err(io::Error::other("routers with several workers can only be built in namespaces"));
    }
    // A fresh namespace has its loopback interface down; elsewhere this changes nothing, or is refused.
    let _ = Netlink::open().and_then(|mut netlink| netlink.index("lo").and_then(|index| netlink.set_up(index, true)));
    let unique = std::process::id().wrapping_mul(2_654_435_761);
    let host = |last: u8| Ipv4Addr::new(127, 64 + (unique >> 24 & 63) as u8, (unique >> 16 & 255) as u8, last);
    let mut routers: Vec<Router> = (0..topology.routers.len()).map(|place| new_router(topology, place, dir)).collect();
    for (place, router) in routers.iter_mut().enumerate() {
        router.address = host(1 + place as u8);
        router.listen = SocketAddrV4::new(router.address, LISTEN_PORT);
    }
    let mut entrances = Vec::new();
    for link in &topology.links {
        for name in [&link.between.0, &link.between.1] {
            let place = topology.place(name).ok_or_else(|| io::Error::other("a link without its router"))?;
            let socket = UdpSocket::bind((host(254), 0))?;
            socket.connect(routers[place].listen)?;
            socket.set_nonblocking(true)?;
            netns::stamp_arrivals(&socket)?;
            let std::net::SocketAddr::V4(far) = socket.local_addr()? else {
                return Err(io::Error::other("an IPv4 socket has another address"));
            };
            entrances.push(Entrance(Port::Relay(socket.into()), far));
        }
    }
    Ok((None, routers, entrances))
}

fn write_configurations(topology: &Topology, routers: &[Router], entrances: &[Entrance]) -> io::Result<()> {
    for (place, router) in routers.iter().enumerate() {
        let mut links = String::new();
        for (link, peer) in topology.links_of(place) {
            let remote = entrances[2 * link + end_of(topology, link, place)].1;
            let extra = &topology.links[link].extra;
            links += &format!("\n[[link]]\npeer = \"{}\"\nremote = \"{remote}\"\n{extra}", topology.routers[peer]);
        }
        let members: String = routers
            .iter()
            .map(|router| format!("\n[[member]]\nname = \"{}\"\npublic = \"{}\"\n", router.name, router.public))
            .collect();
        let metric = topology.metric.as_ref();
        let routing = metric.map(|metric| format!("\n[routing]\nmetric = \"{metric}\"\n")).unwrap_or_default();
        let text = format!(
            "name = \"{name}\"\nkey = \"{key}\"\nlisten = \"{listen}\"\ncontrol_socket = \"{socket}\"\n\n\
             [workers]\ncount = {workers}\nio = \"{io}\"\nidle = \"wait\"\n{routing}{extra}{members}{links}",
            name = router.name,
            key = router.key_file().display(),
            listen = router.listen,
            socket = router.socket().display(),
            workers = topology.workers.get(place).copied().unwrap_or(1),
            io = topology.io,
            extra = topology.extra,
        );
        router.write_files(&identity(topology, place), &text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::flows::{self, Board, Flow};
    use crate::lab::transport::Transport;
    use std::os::unix::fs::PermissionsExt as _;

    /// Runs the body of the test `name` where worlds can be built, or counts it among what could not run here.
    fn here(name: &str, body: impl FnOnce()) {
        if !run_test(name, body) {
            crate::runtime::not_run::count(name);
        }
    }

    fn flow(transport: Transport, to: &str) -> Flow {
        Flow { from: "a".into(), to: to.into(), transport, messages: 200, size: 1000, rate_kbps: 1000 }
    }

    fn measure(world: &World, transport: Transport, to: &str) -> crate::lab::tally::Tally {
        let found = flows::run(world, &[flow(transport, to)], &Board::default()).expect("the flow runs");
        found.into_iter().next().expect("one flow, one answer").tally
    }

    #[test]
    fn the_kernel_crosses_the_emulated_links() {
        here("lab::world::tests::the_kernel_crosses_the_emulated_links", || {
            let world = World::new(&Topology::chain(3, Conditions::wire(10.0, 10_000))).expect("is built");
            let raw = measure(&world, Transport::RawUdp, "d");
            assert_eq!((raw.lost(), raw.duplicated, raw.reordered), (0, 0, 0));
            let figures = raw.figures();
            assert!((30.0..33.0).contains(&figures.p50), "{figures:?}");
            let algorithm = tcp_algorithms().into_iter().next().expect("a kernel has TCP");
            let tcp = measure(&world, Transport::Tcp(algorithm), "d");
            assert_eq!((tcp.lost(), tcp.reordered), (0, 0));
            assert!((30.0..35.0).contains(&tcp.figures().p50), "{:?}", tcp.figures());
            std::thread::sleep(Duration::from_millis(50));
            let (forward, back) = world.link("b", "c").counters();
            assert!(forward.frames >= 400 && back.frames > 0, "{forward:?} {back:?}");
            assert_eq!((forward.oversized, back.oversized, forward.lost), (0, 0, 0));
            let kind = world.kinds().iter().position(|&kind| kind == RAW_KIND).expect("is counted apart");
            // 200 messages of 1,000 bytes, each with 42 bytes of headers.
            assert_eq!(forward.bytes_by_kind[kind], 200 * 1042);
        });
    }

    #[test]
    fn every_tcp_that_is_asked_for_is_counted_as_itself() {
        here("lab::world::tests::every_tcp_that_is_asked_for_is_counted_as_itself", || {
            let mut topology = Topology::chain(1, Conditions::wire(1.0, 0));
            // Every kernel has Reno.
            topology.tcp = vec!["cubic".into(), "reno".into()];
            let world = World::new(&topology).expect("is built");
            assert_eq!(measure(&world, Transport::Tcp("reno".into()), "b").lost(), 0);
            std::thread::sleep(Duration::from_millis(50));
            let (forward, _) = world.link("a", "b").counters();
            let bytes = |name: &str| {
                let place = world.kinds().iter().position(|&kind| kind == name).expect("is counted apart");
                forward.bytes_by_kind[place]
            };
            assert!(bytes("tcp-reno") > 200_000 && bytes("tcp-cubic") == 0, "{forward:?}");
            let other = flows::run(&world, &[flow(Transport::Tcp("bbr".into()), "b")], &Board::default());
            assert!(other.is_err_and(|error| error.to_string().contains("does not tell it apart")));
        });
    }

    #[test]
    fn conditions_change_while_it_runs() {
        here("lab::world::tests::conditions_change_while_it_runs", || {
            let world = World::new(&Topology::chain(1, Conditions::wire(1.0, 0))).expect("is built");
            world.link("b", "a").set_back(Conditions::wire(1.0, 0).losing(50.0));
            std::thread::sleep(Duration::from_millis(50));
            let lossy = measure(&world, Transport::RawUdp, "b");
            assert!((60..=140).contains(&lossy.lost()), "{}", lossy.lost());
            world.link("a", "b").set(Conditions::wire(1.0, 0));
            world.link("a", "b").cut();
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(measure(&world, Transport::RawUdp, "b").received(), 0);
            world.link("a", "b").restore();
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(measure(&world, Transport::RawUdp, "b").lost(), 0);
        });
    }

    #[test]
    fn segments_glued_for_offload_are_cut_before_they_reach_a_link() {
        here("lab::world::tests::segments_glued_for_offload_are_cut_before_they_reach_a_link", || {
            let world = World::new(&Topology::chain(1, Conditions::wire(1.0, 0))).expect("is built");
            let tcp = Transport::Tcp(tcp_algorithms().into_iter().next().expect("a kernel has TCP"));
            let found = crate::lab::bulk::run(&world, &[tcp], 30_000, Duration::from_secs(1), &Board::default());
            let bulk = found.expect("the transfer runs").remove(0);
            assert!(bulk.received_bytes > 1_000_000, "{bulk:?}");
            assert!((2.0..8.0).contains(&bulk.overhead_percent), "{bulk:?}");
            let to = world.router("b").address();
            let train = world.router("a").inside(|| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                let segment: libc::c_int = 1000;
                let (fd, value) = (std::os::fd::AsRawFd::as_raw_fd(&socket), std::ptr::from_ref(&segment).cast());
                // SAFETY: the pointer and length describe an int.
                assert_eq!(unsafe { libc::setsockopt(fd, libc::SOL_UDP, libc::UDP_SEGMENT, value, 4) }, 0);
                socket.send_to(&[0; 10_000], (to, RAW_PORT))
            });
            // A kernel may refuse a train where checksums are not left to the device; it must not let it pass whole.
            assert!(train.is_ok() || train.is_err_and(|error| error.raw_os_error() == Some(libc::EIO)));
            std::thread::sleep(Duration::from_millis(50));
            let (forward, back) = world.link("a", "b").counters();
            assert_eq!((forward.oversized, back.oversized), (0, 0));
        });
    }

    #[test]
    fn routers_live_die_and_leave_nothing_behind() {
        here("lab::world::tests::routers_live_die_and_leave_nothing_behind", || {
            let mut topology = Topology::chain(1, Conditions::default());
            let script = std::env::temp_dir().join(format!("sinew-lab-test-{}", std::process::id()));
            std::fs::write(&script, "#!/bin/sh\necho started\nexec sleep 1000\n").expect("is written");
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).expect("is made executable");
            topology.program.clone_from(&script);
            let world = World::new(&topology).expect("is built");
            let (a, b) = (world.router("a"), world.router("b"));
            assert_eq!(a.pid(), None);
            a.start().expect("starts");
            let first = a.pid().expect("runs");
            a.start().expect("runs already");
            assert_eq!(a.pid(), Some(first));
            a.stop();
            a.cont();
            a.restart().expect("starts again");
            assert!(a.pid().is_some_and(|pid| pid != first));
            b.start().expect("starts");
            assert!(b.terminate(Duration::from_secs(2)).is_some_and(|status| !status.success()));
            assert_eq!(b.pid(), None);
            let error = world.wait_ready(Duration::from_millis(100)).expect_err("nobody answers");
            assert!(error.to_string().contains("router a does not answer"), "{error}");
            assert!(a.log().contains("started"), "{}", a.log());
            let interfaces = b.command("/bin/cat").arg("/proc/net/dev").output().expect("cat runs");
            let text = String::from_utf8_lossy(&interfaces.stdout).into_owned();
            assert!(text.contains("l0b") && !text.contains("l0a"), "{text}");
            let mode = std::fs::metadata(a.key_file()).expect("is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let (pid, dir) = (a.pid().expect("runs"), world.dir().to_owned());
            drop(world);
            assert!(!dir.exists());
            assert!(!Path::new(&format!("/proc/{pid}")).exists());
            std::fs::remove_file(script).expect("is removed");
        });
    }

    #[test]
    fn configurations_are_toml_and_name_every_neighbour() {
        here("lab::world::tests::configurations_are_toml_and_name_every_neighbour", || {
            let mut topology = Topology::ring(4, Conditions::default());
            topology.metric = Some("hops".into());
            for mode in [Mode::Root, Mode::Loopback] {
                let world = World::with_mode(&topology, mode).expect("is built");
                let text = std::fs::read_to_string(world.router("b").config()).expect("is written");
                let value: toml::Table = toml::from_str(&text).expect("is TOML");
                let links = value["link"].as_array().expect("links");
                let peers: Vec<_> = links.iter().filter_map(|link| link["peer"].as_str()).collect();
                assert_eq!(peers, ["a", "c"]);
                assert_eq!(value["member"].as_array().map(Vec::len), Some(4));
                assert_eq!(value["workers"]["idle"].as_str(), Some("wait"));
                assert!(links.iter().all(|link| {
                    link["remote"].as_str().is_some_and(|remote| remote.parse::<SocketAddrV4>().is_ok())
                }));
            }
        });
    }
}
