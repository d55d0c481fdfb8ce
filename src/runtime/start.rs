//! From a configuration to a running router.

use super::carrier::Budget;
use super::clock::{self, Clock};
use super::control_loop::{ControlLoop, Parts, Stop, WorkerHandle, stop_workers};
use super::control_socket::ControlSocket;
use super::doorbell::Doorbell;
use super::io::{Choice, Impossible, NoTrains, choose, choose_stamps, choose_trains, make, uring};
use super::machine::placement::{self, Placement, Seat};
use super::machine::scheduling::{self, Standing};
use super::machine::{Refused, Topology, place};
use super::metrics::Metrics;
use super::notify::notify;
use super::ring::{Crossings, RING_SLOTS, Receiver, Sender, ToWorker, crossings, ring};
use super::sessions::Limits;
use super::signals::Signals;
use super::vip::lifelines::{Lifelines, Other};
use super::vip::{self, Host, Pulse};
use super::worker::{Place, Worker};
use super::{capabilities, io, key_file, memory, sys, udp};
use crate::base::{self, Identity, PublicIdentity, Rng, WallTime};
use crate::config::settings::{Clients, Config, Groups, Idle, Member, Metric, Routing, Telemetry, Vip, Workers};
use crate::control::Control;
use crate::dataplane::messages::Report;
use crate::dataplane::{Shard, ShardSettings};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// An address in use is tried again so often, so far apart: ten seconds. On a machine with nothing to spare, the kernel has
/// been seen to hold a killed router's sockets for more than two.
const RELEASE_TRIES: usize = 200;
const RELEASE_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Connected sockets opened in advance for each link, as only the start has the privilege of large buffers. A link takes one
/// each time it comes up; later ones have the buffers that the system grants to all.
const STOCK: usize = 4;

/// Why a router did not start, or stopped by itself. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The key file.
    #[error("{0}")]
    Key(String),
    /// Service addresses.
    #[error("[vip]: {0}")]
    Vip(std::io::Error),
    /// The configured io backend.
    #[error(transparent)]
    Io(#[from] Impossible),
    /// The configured offload.
    #[error(transparent)]
    Offload(#[from] NoTrains),
    /// The workers' places on this machine.
    #[error(transparent)]
    Cores(#[from] Refused),
    /// A UDP socket.
    #[error("UDP {address} cannot be opened for worker {worker}: {source}. {hint}")]
    Listen {
        /// The worker.
        worker: usize,
        /// Its address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The control socket.
    #[error("the control socket {} cannot be opened: {source}. {hint}", path.display())]
    ControlSocket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The metrics' port.
    #[error("the metrics' port {address} cannot be opened: {source}. {hint}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The configuration contradicts the key or itself.
    #[error("{0}")]
    Configuration(String),
    /// The system refused something that every router needs.
    #[error("the system refused what every router needs: {0}")]
    Setup(#[source] std::io::Error),
    /// A worker could not start.
    #[error("worker {0} could not start: {1}")]
    Worker(usize, #[source] std::io::Error),
    /// A worker ended by itself: a bug; its panic is in the log above.
    #[error("worker {0} died: a bug of sinew, please report the panic message above")]
    WorkerDied(usize),
}

/// Runs a router until SIGTERM or SIGINT; SIGHUP reads the configuration again. `config_path` is where it is read from.
pub fn run(config: Config, config_path: &Path) -> Result<(), RunError> {
    memory::keep_level();
    let bell = Arc::new(Doorbell::new().map_err(RunError::Setup)?);
    let stop = Stop { asked: Arc::new(AtomicBool::new(false)), bell };
    let signals = Signals::take_over().map_err(RunError::Setup)?;
    let control = prepare(config, config_path, Some(signals), stop)?;
    notify("READY=1");
    control.run()
}

/// A router in the background of another program, such as a test. Signals stay the program's own.
///
/// Dropping it stops it.
#[derive(Debug)]
pub struct Background {
    stop: Stop,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Background {
    /// Starts a router; it is ready when this returns.
    pub fn start(config: Config, config_path: &Path) -> Result<Background, RunError> {
        let bell = Arc::new(Doorbell::new().map_err(RunError::Setup)?);
        let stop = Stop { asked: Arc::new(AtomicBool::new(false)), bell };
        let (ready, started) = mpsc::sync_channel(1);
        let (theirs, path) = (stop.clone(), config_path.to_owned());
        let thread = std::thread::Builder::new().name("sinew-control".into());
        let thread = thread.spawn(move || match prepare(config, &path, None, theirs) {
            Ok(control) => {
                // The starter waits for exactly this.
                let _ = ready.send(Ok(()));
                control.run()
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                Ok(())
            }
        });
        let thread = thread.map_err(RunError::Setup)?;
        let lost = || Err(RunError::Setup(std::io::Error::other("the control thread panicked at start")));
        started.recv().unwrap_or_else(|_| lost())?;
        Ok(Background { stop, thread: Some(thread) })
    }

    /// Starts a router that is the only one of its network, with a fresh key, for trying things out. Key file and control
    /// socket are `key` and `control` in `directory`.
    pub fn alone(directory: &Path) -> Result<Background, RunError> {
        Background::start(lone_config(directory)?, &directory.join("sinew.toml"))
    }

    /// Stops it as SIGTERM would, and waits until it is gone.
    pub fn stop(mut self) -> Result<(), RunError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), RunError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.stop.asked.store(true, Ordering::Release);
        self.stop.bell.ring_always();
        let lost = |_| Err(RunError::Setup(std::io::Error::other("the control thread panicked")));
        thread.join().unwrap_or_else(lost)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "a router in the background ended badly");
        }
    }
}

/// A configuration without links, on loopback, and the key file that it names.
pub(super) fn lone_config(directory: &Path) -> Result<Config, RunError> {
    let mut seed = [0; 32];
    clock::seeded_rng().map_err(RunError::Setup)?.fill(&mut seed);
    let identity = Identity::from_seed(seed);
    let key_file = directory.join("key");
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key_file).map_err(RunError::Setup)?;
    writeln!(file, "{}", identity.to_secret_text().as_str()).map_err(RunError::Setup)?;
    Ok(Config {
        name: "alone".into(),
        key_file,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        control_socket: directory.join("control"),
        workers: Workers { pool: 4096, socket_buffer: 256 << 10, ..Workers::default() },
        lock_memory: false,
        members: vec![Member { name: "alone".into(), public: identity.public().to_string() }],
        links: Vec::new(),
        routing: Routing { metric: Metric::Latency },
        telemetry: Telemetry::new(&directory.join("control")),
        clients: Clients::default(),
        vip: None,
        groups: Some(Groups { members: vec!["alone".into()] }),
    })
}

/// Everything before the loop: nothing is sent or answered yet when this fails.
fn prepare(config: Config, path: &Path, signals: Option<Signals>, stop: Stop) -> Result<ControlLoop, RunError> {
    let clock = Clock::start();
    let epoch = clock::wall_time();
    let mut rng = clock::seeded_rng().map_err(RunError::Setup)?;
    let identity = key_file::load(&config.key_file).map_err(|error| RunError::Key(error.to_string()))?;
    let placement = place_workers(&config.workers)?;
    let unlocked = if config.lock_memory { lock_memory().err() } else { None };
    if let Err(error) = sys::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is; every session needs one");
    }
    let choice = choose(config.workers.io, uring::self_test)?;
    tracing::info!(io = %choice.reason, "io backend chosen");
    let sockets = bind_all(&config)?;
    let listen = sockets[0].local_addr().map_err(RunError::Setup)?;
    let (trains, why) = choose_trains(config.workers.offload, &kernel_release(), || udp::try_trains(&sockets[0]))?;
    tracing::info!(offload = %why, "trains of datagrams");
    let (stamps, why) = choose_stamps(config.telemetry.socket_wait, trains, || udp::try_stamps(&sockets[0]));
    tracing::info!(socket_wait = %why, "times of arrival");
    let choice = Choice { trains, stamps, ..choice };
    let socket = bind_control_socket(&config.control_socket)?;
    let metrics = config.telemetry.prometheus.map(bind_metrics).transpose()?;
    let starter = Starter {
        config: &config,
        clock,
        identity: &identity,
        epoch,
        choice: &choice,
        placement: &placement,
        stop: &stop,
    };
    let mut workers = Vec::with_capacity(sockets.len());
    let started = starter.start_all(sockets, &mut rng, &mut workers);
    let control = started.and_then(|io| {
        let control = Control::new(clock.now(), config.clone(), identity.clone(), epoch, io, rng);
        control.map_err(RunError::Configuration)
    });
    let control = control.inspect_err(|_| stop_workers(clock, &mut workers))?;
    if let Err(error) = scheduling::keep_to(&placement.rest) {
        tracing::warn!(cores = %placement.rest, %error, "control may run on the workers' cores");
    }
    let host = config.vip.as_ref().map(|vip| hold(vip, clock, workers.len(), &stop)).transpose();
    let mut host = host.inspect_err(|_| stop_workers(clock, &mut workers))?;
    let mut lifelines = None;
    if let Some((vip, (host, _))) = config.vip.as_ref().zip(host.as_mut()) {
        host.lacks(unlocked.into_iter().chain(stand_first(standing_of_control(vip))));
        match Lifelines::open(listen, others(&config, vip)) {
            Ok(opened) => lifelines = Some(opened),
            Err(error) => host.lacks([without_lifelines(listen, &error)]),
        }
    }
    tracing::info!(name = %config.name, control_socket = %config.control_socket.display(), "ready");
    let (telemetry, memory) = (config.telemetry, Budget::new(config.clients.shared_memory));
    let parts = Parts {
        clock,
        control,
        config_path: path.to_owned(),
        workers,
        socket,
        signals,
        stop,
        telemetry,
        metrics,
        memory,
        host,
        lifelines,
    };
    ControlLoop::new(parts).map_err(RunError::Setup)
}

/// What holds service addresses on this host.
fn hold(vip: &Vip, clock: Clock, workers: usize, stop: &Stop) -> Result<(Host, Pulse), RunError> {
    let settings = vip::configured(vip).map_err(RunError::Vip)?;
    let pulse = Pulse::new(clock.now(), workers, vip.lease);
    let host = Host::start(settings, clock, pulse.signs(), &stop.bell).map_err(RunError::Vip)?;
    Ok((host, pulse))
}

/// Puts control, which runs in the calling thread, before other threads of this machine. What of it is refused, for people.
fn stand_first(standing: Standing) -> Option<String> {
    let granted = standing.take();
    if let Err(why) = scheduling::lift_session() {
        tracing::info!("{why}");
    }
    let refused = granted.refused.as_ref()?;
    let standing = granted.standing;
    Some(format!("under load this router may be found dead: {refused}; it is scheduled as {standing}"))
        .inspect(|said| tracing::warn!("{said}"))
}

/// The other members of the group that this router has an address of.
fn others(config: &Config, vip: &Vip) -> Vec<Other> {
    let node = |name: &String| {
        let member = config.members.iter().find(|member| member.name == *name)?;
        Some(member.public.parse::<PublicIdentity>().ok()?.node_id())
    };
    let own = Some(config.listen.ip()).filter(|ip| !ip.is_unspecified());
    let other = |name: &String| {
        let path = config.links.iter().find(|link| link.peer == *name)?.paths.first()?;
        Some(Other { node: node(name)?, remote: path.remote, local: path.local.or(own) })
    };
    vip.members.iter().filter(|name| **name != config.name).filter_map(other).collect()
}

fn without_lifelines(listen: SocketAddr, error: &std::io::Error) -> String {
    let said =
        format!("TCP {listen} cannot be listened at ({error}): that a member's process ends is known by its silence");
    tracing::warn!("{said}");
    said
}

/// Where the workers run. What is possible and yet not well is said here, once.
fn place_workers(workers: &Workers) -> Result<Placement, Refused> {
    let topology = Topology::here();
    let placement = place(&topology, &workers.cores, workers.count)?;
    let throttle = scheduling::throttle();
    let more = placement::consider(&topology, &placement, workers.idle, workers.realtime, throttle)?;
    placement.warnings.iter().chain(&more).for_each(|warning| tracing::warn!("{warning}"));
    if !placement.rest.is_empty() {
        tracing::info!(workers = %placement.cores(), others = %placement.rest, "cores");
    }
    Ok(placement)
}

fn lock_memory() -> Result<(), String> {
    match memory::lock() {
        Ok(()) => tracing::info!("memory is locked"),
        Err(why) => {
            let said = format!("memory.lock = \"on\" without effect, memory may be swapped out: {why}");
            tracing::warn!("{said}");
            return Err(said);
        }
    }
    Ok(())
}

/// All workers' listening sockets, before any thread starts.
fn bind_all(config: &Config) -> Result<Vec<UdpSocket>, RunError> {
    (0..config.workers.count).map(|worker| bind(config, worker)).collect()
}

/// As [`udp::listen`], but waits a moment for an address in use: after a router was killed, the kernel ends its io_uring
/// requests in the background, and they hold its sockets until then.
fn listen_patiently(address: SocketAddr, buffer: usize) -> std::io::Result<UdpSocket> {
    for round in 0..RELEASE_TRIES {
        match udp::listen(address, buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                if round == 0 {
                    let patience = RELEASE_PAUSE * RELEASE_TRIES as u32;
                    tracing::info!("UDP {address} is in use; waiting up to {patience:?} for it to be released");
                }
                std::thread::sleep(RELEASE_PAUSE);
            }
            done => return done,
        }
    }
    udp::listen(address, buffer)
}

fn bind(config: &Config, worker: usize) -> Result<UdpSocket, RunError> {
    let mut address = config.listen;
    if address.port() != 0 {
        let port = usize::from(address.port()) + worker;
        address.set_port(u16::try_from(port).map_err(|_| {
            RunError::Configuration(format!("listen: worker {worker} would need port {port}; ports end at 65535"))
        })?);
    }
    let fail = |source: std::io::Error| {
        let hint = match source.kind() {
            std::io::ErrorKind::AddrInUse => "Another process holds it: see `ss -ulpn`, or change `listen`",
            std::io::ErrorKind::AddrNotAvailable => {
                "This machine has no such address: see `ip address`, or change `listen`"
            }
            std::io::ErrorKind::PermissionDenied => "Ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one",
            _ => "Change `listen`",
        };
        RunError::Listen { worker, address, source, hint }
    };
    let socket = listen_patiently(address, config.workers.socket_buffer).map_err(fail)?;
    let (receive, send) = udp::granted(&socket);
    let asked = config.workers.socket_buffer;
    let local = socket.local_addr().map_err(fail)?;
    tracing::info!(worker, %local, receive_buffer = receive, send_buffer = send, "listening");
    if receive < asked {
        tracing::warn!(
            asked,
            granted = receive,
            "small receive buffer: raise net.core.rmem_max, or grant CAP_NET_ADMIN"
        );
    }
    Ok(socket)
}

fn bind_metrics(address: SocketAddr) -> Result<mio::net::TcpListener, RunError> {
    let listener = Metrics::bind(address).map_err(|source| {
        let hint = match source.kind() {
            std::io::ErrorKind::AddrInUse => "Another process holds it: see `ss -tlpn`, or change `prometheus`",
            std::io::ErrorKind::AddrNotAvailable => {
                "This machine has no such address: see `ip address`, or change `prometheus`"
            }
            std::io::ErrorKind::PermissionDenied => "Ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one",
            _ => "Change `prometheus`",
        };
        RunError::Metrics { address, source, hint }
    })?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!("metrics at http://{address}/metrics");
    Ok(listener)
}

fn bind_control_socket(path: &Path) -> Result<ControlSocket, RunError> {
    ControlSocket::bind(path).map_err(|source| {
        let hint = match source.kind() {
            std::io::ErrorKind::NotFound => "Create its directory, or change `control_socket`",
            std::io::ErrorKind::PermissionDenied => "Its directory is not writable: change that, or `control_socket`",
            std::io::ErrorKind::AddrInUse => "Stop that router first, or change `control_socket`",
            std::io::ErrorKind::InvalidInput => "Unix socket paths have at most 107 bytes: choose a shorter one",
            _ => "Change `control_socket`",
        };
        RunError::ControlSocket { path: path.to_owned(), source, hint }
    })
}

/// What every worker is started with.
struct Starter<'a> {
    config: &'a Config,
    clock: Clock,
    identity: &'a Identity,
    epoch: WallTime,
    choice: &'a Choice,
    placement: &'a Placement,
    stop: &'a Stop,
}

/// What one worker is started with.
struct Seed {
    clock: Clock,
    config: Config,
    shard: ShardSettings,
    epoch: WallTime,
    rng: Rng,
    choice: Choice,
    seat: Seat,
    listen: UdpSocket,
    bell: Arc<Doorbell>,
    commands: Receiver<ToWorker>,
    reports: Sender<Report>,
    crossings: Crossings,
    control_bell: Arc<Doorbell>,
}

impl Starter<'_> {
    /// Starts a worker for every socket; answers with what the backend is.
    fn start_all(
        &self,
        sockets: Vec<UdpSocket>,
        rng: &mut Rng,
        workers: &mut Vec<WorkerHandle>,
    ) -> Result<String, RunError> {
        let mut io = self.choice.reason.clone();
        let bells = sockets.iter().map(|_| Doorbell::new().map(Arc::new)).collect::<Result<Vec<_>, _>>();
        let bells = bells.map_err(RunError::Setup)?;
        let count = sockets.len();
        for (index, (listen, ways)) in sockets.into_iter().zip(crossings(&bells)).enumerate() {
            let (bell, rng) = (Arc::clone(&bells[index]), rng.fork());
            let (handle, used) = self.start(base::Worker::new(index, count), listen, (bell, ways), rng)?;
            workers.push(handle);
            io = used;
        }
        Ok(io)
    }

    /// Starts a worker's thread and waits until it has its backend; answers with what the backend is.
    fn start(
        &self,
        worker: base::Worker,
        listen: UdpSocket,
        (bell, crossings): (Arc<Doorbell>, Crossings),
        rng: Rng,
    ) -> Result<(WorkerHandle, String), RunError> {
        let index = worker.index;
        let (commands, theirs) = ring(RING_SLOTS, Arc::clone(&bell));
        let (mine, reports) = ring(RING_SLOTS, Arc::clone(&self.stop.bell));
        let shard = ShardSettings {
            identity: self.identity.clone(),
            worker,
            pool: self.config.workers.pool,
            security: Default::default(),
            sessions: Default::default(),
        };
        let seed = Seed {
            clock: self.clock,
            config: self.config.clone(),
            shard,
            epoch: self.epoch,
            rng,
            choice: self.choice.clone(),
            seat: self.placement.seats[index].clone(),
            listen,
            bell,
            commands: theirs,
            reports: mine,
            crossings,
            control_bell: Arc::clone(&self.stop.bell),
        };
        let (ready, started) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("sinew-worker-{index}"));
        let thread = thread.spawn(move || work(seed, &ready)).map_err(RunError::Setup)?;
        let lost = || Err(std::io::Error::other("it panicked at start"));
        let used = started.recv().unwrap_or_else(|_| lost()).map_err(|error| RunError::Worker(index, error))?;
        Ok((WorkerHandle { commands, reports, thread: Some(thread) }, used))
    }
}

/// Rings control when a worker's thread ends, however it ends.
struct LastRing(Arc<Doorbell>);

impl Drop for LastRing {
    fn drop(&mut self) {
        self.0.ring_always();
    }
}

/// A worker's thread.
fn work(seed: Seed, ready: &mpsc::SyncSender<std::io::Result<String>>) {
    let last_ring = LastRing(Arc::clone(&seed.control_bell));
    let index = seed.shard.worker.index;
    let place = take_place(index, seed.seat, standing_of_workers(&seed.config));
    if let Err(error) = sys::tighten_timers() {
        tracing::warn!(worker = index, %error, "timers stay coarse");
    }
    let port = seed.listen.local_addr().map_or(0, |address| address.port());
    let paths: usize = seed.config.links.iter().map(|link| link.paths.len().max(1)).sum();
    let (buffer, stock) = (seed.config.workers.socket_buffer, STOCK * paths);
    let Choice { trains, stamps, .. } = seed.choice;
    let parts = io::Parts { listen: seed.listen, buffer, stock, trains, stamps, bell: Arc::clone(&seed.bell) };
    let (backend, used) = match make(seed.config.workers.io, &seed.choice, parts) {
        Ok(made) => made,
        Err(error) => {
            // The starter waits for exactly this.
            let _ = ready.send(Err(error));
            return;
        }
    };
    match capabilities::drop_all_but_needed(port) {
        Ok(dropped) => tracing::debug!(worker = index, ?dropped, "capabilities"),
        Err(error) => tracing::warn!(worker = index, %error, "capabilities are kept"),
    }
    let limits = Limits { linger: seed.shard.sessions.linger, overdue: seed.shard.sessions.overdue };
    let shard = Shard::new(seed.shard, seed.epoch, seed.rng);
    tracing::info!(worker = index, io = %used, "worker started");
    let _ = ready.send(Ok(used.clone()));
    let worker = Worker {
        index,
        clock: seed.clock,
        idle: seed.config.workers.idle,
        limits,
        shard,
        backend,
        backend_reason: used,
        place,
        bell: seed.bell,
        commands: seed.commands,
        reports: seed.reports,
        crossings: seed.crossings,
    };
    worker.run();
    drop(last_ring);
}

/// The kernel's version (uname -r); nothing where that cannot be known.
fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// Takes a worker's thread where it belongs, at the priority that was asked for; answers with what became of it.
fn take_place(index: usize, seat: Seat, standing: Standing) -> Place {
    let Seat { mut core, reason } = seat;
    if let Some(id) = core {
        if core_affinity::set_for_current(core_affinity::CoreId { id }) {
            tracing::info!(worker = index, core = id, why = %reason, "pinned");
        } else {
            tracing::warn!(worker = index, core = id, "could not be pinned");
            core = None;
        }
    }
    let granted = standing.take();
    match &granted.refused {
        None if standing == Standing::Ordinary => {}
        None => tracing::info!(worker = index, scheduling = %granted, "comes before ordinary threads"),
        Some(refused) => tracing::warn!(worker = index, scheduling = %granted.standing, "{refused}"),
    }
    Place { core, core_reason: reason, scheduling: granted.to_string() }
}

/// How the workers are scheduled. Those of a router that holds service addresses must not be found dead because others
/// keep a processor busy; one that never sleeps would be that to others.
fn standing_of_workers(config: &Config) -> Standing {
    match config.workers.realtime {
        Some(priority) => Standing::RealTime(priority),
        None if config.vip.is_some() && config.workers.idle != Idle::Spin => Standing::First,
        None => Standing::Ordinary,
    }
}

/// How control is scheduled.
fn standing_of_control(vip: &Vip) -> Standing {
    vip.profile.realtime().map_or(Standing::First, |[_, control, _]| Standing::RealTime(control))
}
