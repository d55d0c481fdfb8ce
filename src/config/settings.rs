//! The configuration as meant: checked, complete, with every default filled in.

use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything `sinew run` needs to know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// This router's name among the members.
    pub name: String,
    /// Its key file.
    pub key_file: PathBuf,
    /// Address and port of worker 0; worker k uses the port plus k.
    pub listen: SocketAddr,
    /// Where applications and commands reach this router.
    pub control_socket: PathBuf,
    /// The workers.
    pub workers: Workers,
    /// Whether all memory is kept from being swapped out.
    pub lock_memory: bool,
    /// The routers of this network, this one included, in the order of the file.
    pub members: Vec<Member>,
    /// This router's links.
    pub links: Vec<Link>,
    /// Routing.
    pub routing: Routing,
    /// What is measured of the router's own time, and where it is shown.
    pub telemetry: Telemetry,
    /// Applications.
    pub clients: Clients,
    /// Service addresses, if this router holds some with others.
    pub vip: Option<Vip>,
    /// Process groups, if this router has them.
    pub groups: Option<Groups>,
}

/// How packets are moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Workers {
    /// Number of workers.
    pub count: usize,
    /// Where they run.
    pub cores: Cores,
    /// Which system calls.
    pub io: Io,
    /// Whether datagrams pass the kernel in trains.
    pub offload: Offload,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// Real-time priority (SCHED_FIFO), 1 to 99; none is ordinary scheduling.
    pub realtime: Option<u8>,
    /// Slots of each worker's packet pool.
    pub pool: usize,
    /// Socket buffers asked of the kernel, bytes.
    pub socket_buffer: usize,
}

impl Default for Workers {
    /// One worker that waits in the kernel.
    fn default() -> Workers {
        Workers {
            count: 1,
            cores: Cores::List(Vec::new()),
            io: Io::Auto,
            offload: Offload::Auto,
            idle: Idle::Wait,
            realtime: None,
            pool: 8192,
            socket_buffer: 4 << 20,
        }
    }
}

/// Where workers run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cores {
    /// Where this machine suits them best.
    Auto,
    /// On these, one each; if empty, wherever the scheduler puts them.
    List(Vec<usize>),
}

/// Which system calls move packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Io {
    /// io_uring where a self-test passes, else mmsg.
    Auto,
    /// io_uring.
    Uring,
    /// epoll with recvmmsg and sendmmsg.
    Mmsg,
}

/// Whether datagrams of one neighbour pass the kernel in trains (segmentation and receive offload, udp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offload {
    /// Where the kernel can, and is not one that is known to damage them.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Look again at once: lowest latency, one whole core.
    Spin,
    /// Spin for a while after the last packet, then wait.
    Adaptive,
    /// Wait in the kernel: no CPU when idle.
    Wait,
}

/// A router of the network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its public identity, as printed by `sinew key show`.
    pub public: String,
}

/// A link of this router.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// The member at the other end.
    pub peer: String,
    /// The paths to it; without one this end waits for the other to call.
    pub paths: Vec<LinkPath>,
    /// Extra secret shared by both ends, 32 bytes, mixed into the handshake.
    pub preshared_key: Option<[u8; 32]>,
    /// Time between hellos.
    pub hello: Duration,
    /// Silence after which the link is dead.
    pub dead: Duration,
    /// Congestion control.
    pub congestion: Congestion,
    /// Longest stay in the link's queue that is not answered by marking or dropping.
    pub queue_delay: Duration,
    /// Most messages in the link's queue.
    pub queue: usize,
}

impl Link {
    /// A link with the settings for the Internet: a dead one is known within 300 ms, and seven hellos must be lost in a
    /// row for that, so that a burst of losses is not a dead link.
    pub fn new(peer: String, remote: Option<SocketAddr>) -> Link {
        Link {
            peer,
            paths: remote.into_iter().map(LinkPath::to).collect(),
            preshared_key: None,
            hello: Duration::from_millis(40),
            dead: Duration::from_millis(280),
            congestion: Congestion::Cubic,
            queue_delay: Duration::from_millis(20),
            queue: 4096,
        }
    }
}

/// One of a link's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LinkPath {
    /// The other end's address.
    pub remote: SocketAddr,
    /// This router's address on it; without one the kernel chooses.
    pub local: Option<IpAddr>,
    /// Counts as so much more latency when paths are compared.
    pub cost: Duration,
}

impl LinkPath {
    /// The path that the kernel takes.
    pub const fn to(remote: SocketAddr) -> LinkPath {
        LinkPath { remote, local: None, cost: Duration::ZERO }
    }

    /// Whether its remote address says it all.
    pub(super) fn is_plain(&self) -> bool {
        *self == LinkPath::to(self.remote)
    }
}

/// How fast a link sends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    /// A TCP's fair share (RFC 9438).
    Cubic,
    /// Always this many kbit/s.
    FixedKbps(u64),
}

/// How applications on this machine are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Clients {
    /// Memory that all sessions may share with their applications, bytes. A session that finds none left, or all of them
    /// if it is 0, are served through their sockets.
    pub shared_memory: usize,
}

impl Default for Clients {
    /// Enough for 500 sessions.
    fn default() -> Clients {
        Clients { shared_memory: 256 << 20 }
    }
}

/// What a shortest path is short in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Links.
    Hops,
    /// Half the round trip.
    Latency,
    /// Lost packets.
    Loss,
    /// Half the round trip plus what recovery costs on average.
    Expected,
}

/// Routing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Routing {
    /// The metric.
    pub metric: Metric,
}

/// What is measured of the router's own time, and where it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Telemetry {
    /// Whether the kernel says when datagrams arrived.
    pub socket_wait: SocketWait,
    /// The interval log.
    pub interval_log: Option<PathBuf>,
    /// How long an interval of it is.
    pub interval: Duration,
    /// Its greatest length, bytes; the one before is kept as well.
    pub interval_log_size: u64,
    /// Directory of the histograms that SIGUSR1 writes.
    pub histograms: PathBuf,
    /// Where Prometheus finds the metrics.
    pub prometheus: Option<SocketAddr>,
    /// Who may ask there.
    pub prometheus_exposure: Exposure,
}

impl Telemetry {
    /// The defaults, for a router with this control socket.
    pub fn new(control_socket: &Path) -> Telemetry {
        Telemetry {
            socket_wait: SocketWait::Auto,
            interval_log: None,
            interval: Duration::from_secs(10),
            interval_log_size: 16 << 20,
            histograms: control_socket.parent().unwrap_or(Path::new("")).join("histograms"),
            prometheus: None,
            prometheus_exposure: Exposure::Loopback,
        }
    }
}

/// Whether the kernel says when datagrams arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketWait {
    /// Where it can, and tells it once for a train.
    Auto,
    /// Where it can.
    On,
    /// No.
    Off,
}

/// From where metrics can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exposure {
    /// From this machine alone.
    Loopback,
    /// From wherever the address is reached.
    Network,
}

/// Process groups, which clients of several routers join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// The routers that agree on them: names of members, this router's too.
    pub members: Vec<String>,
}

/// Service addresses that a group of routers holds together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vip {
    /// How fast it is, where that is not said in detail.
    pub profile: Profile,
    /// The group: names of members, this router's too.
    pub members: Vec<String>,
    /// This router's share of the sets, against the others' weights.
    pub weight: u16,
    /// How long a router that starts waits for others before it takes anything.
    pub maturity: Duration,
    /// For how long the kernel lets a member answer without word from its daemon.
    pub lease: Duration,
    /// How long a member that gave up a set still accepts what comes for it.
    pub linger: Duration,
    /// How often the spread is made better; never, if none.
    pub balance: Option<Duration>,
    /// How many sets move each time, at most.
    pub moves: u16,
    /// The sets.
    pub sets: Vec<VipSet>,
    /// This router's health checks.
    pub checks: Vec<VipCheck>,
    /// Program and arguments that run when a set comes or goes.
    pub hook: Option<Vec<String>>,
    /// Who runs commands; the router's own user if none.
    pub user: Option<String>,
}

impl Default for Vip {
    /// What is not written.
    fn default() -> Vip {
        let profile = Profile::Safe;
        Vip {
            profile,
            members: Vec::new(),
            weight: 1,
            maturity: Duration::from_secs(5),
            lease: profile.lease(),
            linger: Duration::from_secs(1),
            balance: Some(Duration::from_secs(4)),
            moves: 1,
            sets: Vec::new(),
            checks: Vec::new(),
            hook: None,
            user: None,
        }
    }
}

/// How fast a group notices that a member is gone, and what that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// On one network, on machines that have other things to do.
    Safe,
    /// On one quiet network, on machines that run the router in real time.
    Fast,
    /// In different places.
    Wan,
}

impl Profile {
    /// On links to members: the time between hellos, and the silence after which a link is dead. Of hellos, five, nine and
    /// six may be lost in a row.
    pub const fn liveness(self) -> (Duration, Duration) {
        let (hello, dead) = match self {
            Profile::Safe => (10, 60),
            Profile::Fast => (1, 10),
            Profile::Wan => (40, 280),
        };
        (Duration::from_millis(hello), Duration::from_millis(dead))
    }

    /// Shorter than it takes to notice that a member is gone, so that nobody waits for it; but for the fast one, where the
    /// kernel's clock is too coarse for that.
    pub const fn lease(self) -> Duration {
        Duration::from_millis(match self {
            Profile::Safe => 50,
            Profile::Fast => 20,
            Profile::Wan => 250,
        })
    }

    /// The real-time priorities of the thread that keeps the lease, of control and of the workers, if they have any: who
    /// needs least time comes first, and all are below the kernel's own threads.
    pub const fn realtime(self) -> Option<[u8; 3]> {
        match self {
            Profile::Fast => Some([20, 15, 10]),
            Profile::Safe | Profile::Wan => None,
        }
    }

    /// Whether memory is to stay where it is, if it is not said.
    pub const fn locks_memory(self) -> bool {
        matches!(self, Profile::Fast)
    }
}

/// Addresses that move as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VipSet {
    /// Its name.
    pub name: String,
    /// What it consists of.
    pub addresses: Vec<VipAddress>,
    /// Where it is covered.
    pub coverage: Coverage,
    /// Members that are to have it rather than others, most preferred first.
    pub prefer: Vec<String>,
    /// They are a router's: neighbour advertisements say so.
    pub router: bool,
    /// The flows that the kernel tracks are handed over with it.
    pub conntrack: bool,
}

/// A health check: a question that is asked again and again, and what its answers amount to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VipCheck {
    /// Its name.
    pub name: String,
    /// What is asked.
    pub question: Question,
    /// Time from one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers in a row that make it well.
    pub rise: u32,
    /// Bad answers in a row that make it unwell.
    pub fall: u32,
    /// Names of the sets that this router cannot have while it is unwell; all of them if none is named.
    pub sets: Vec<String>,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Does a process with this name (as `ps -o comm` shows it) live?
    Process(String),
    /// Does the process live whose number this file has?
    PidFile(PathBuf),
    /// Does somebody accept connections there?
    Tcp(SocketAddr),
    /// Is a request answered with a status from 200 to 399?
    Http {
        /// Where.
        address: SocketAddr,
        /// The `Host` it is asked as.
        host: String,
        /// What is asked for.
        path: String,
    },
    /// Does a program, with these arguments, end with exit code 0?
    Command(Vec<String>),
    /// Does this file exist?
    File(PathBuf),
    /// Is this interface up, with a carrier?
    Carrier(String),
}

/// A service address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VipAddress {
    /// The address.
    pub ip: IpAddr,
    /// This router's interface for it.
    pub interface: String,
}

/// Where a set is covered when members cannot reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coverage {
    /// In every connected component.
    Component,
    /// Where more than half of the group's members are.
    Majority,
}
