//! A shard allocates nothing per packet: not as origin, not in transit, not as destination, whatever gets lost, doubled or
//! overtaken; and the worker around it, with its sockets and descriptors, does not either.
//!
//! The shard is the one that the simulator runs, in virtual time and past its warm-up. Campaigns do not count: there the
//! wires, the applications and the checkers allocate, and a fault that strikes for the first time may.

#![allow(clippy::disallowed_methods, reason = "real routers live in real time")]

#[path = "common/chain.rs"]
mod chain;

use chain::{Chain, Meter, Step, TICK};
use sinew::base::{Class, Identity};
use sinew::client::admin::{Request, Response};
use sinew::client::{Datagrams, Event, Overlay};
use sinew::config::settings::{Clients, Config, Io, Link, Member, Metric, Offload, Routing, Telemetry, Workers};
use sinew::dataplane::messages::ShardStats;
use sinew::proto::link;
use sinew::runtime::Background;
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Instant;

/// The system's allocator, counting what each thread asks of it.
struct Counting;

/// The thread whose calls are counted in `WORKER_CALLS`, if any.
static WORKER: AtomicI32 = AtomicI32::new(0);
static WORKER_CALLS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Say where the next call comes from.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // A thread that is ending has no counter any more; no measurement runs there.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
    let worker = WORKER.load(Ordering::Relaxed);
    // SAFETY: gettid only answers.
    if worker != 0 && worker == unsafe { libc::gettid() } {
        WORKER_CALLS.fetch_add(1, Ordering::Relaxed);
    }
    if WATCHED.try_with(Cell::take).unwrap_or(false) {
        let calls = CALLS.get();
        eprintln!("the first call of the allocator:\n{}", Backtrace::force_capture());
        // What that itself took does not count.
        CALLS.set(calls);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator inside each router's shard.
#[derive(Debug, Default, PartialEq, Eq)]
struct Calls {
    made: [u64; 3],
    /// None is expected any more.
    watched: bool,
}

impl Meter for Calls {
    fn run<R>(&mut self, router: usize, _step: Step, work: impl FnOnce() -> R) -> R {
        let before = CALLS.get();
        WATCHED.set(self.watched && self.made == [0; 3]);
        let result = work();
        WATCHED.set(false);
        self.made[router] += CALLS.get() - before;
        result
    }
}

/// Messages of every kind for this long, so many of each kind a tick as long as their sessions take them.
fn talk(chain: &mut Chain<Calls>, seconds: u64, each: usize) {
    for tick in 0..seconds * 1_000_000_000 / TICK.as_nanos() as u64 {
        for _ in 0..each {
            chain.send(Class::BestEffort, &[1; 200]);
            chain.send(Class::Reliable, &[3; 200]);
            chain.write(&[4; 400]);
        }
        if tick.is_multiple_of(64) {
            // Cut into fragments and put together again.
            chain.send(Class::BestEffort, &[2; 5_000]);
        }
        chain.tick();
    }
}

#[test]
fn no_packet_costs_an_allocation_anywhere_on_its_way() {
    let mut chain = Chain::new(3, &link::Settings::default(), Calls::default());
    chain.loss = 0.01;
    chain.disorder = 0.01;
    // More than the chain can carry, so that every queue has had its greatest length; then less, so that it empties.
    talk(&mut chain, 4, 8);
    talk(&mut chain, 2, 1);
    assert!(chain.meter.made.iter().all(|&calls| calls > 0), "the allocations of the beginning are seen");
    let before = chain.delivered;
    let repeated =
        |chain: &Chain<Calls>| -> u64 { chain.stats(1).links.iter().map(|link| link.stats.retransmissions).sum() };
    let repeated_before = repeated(&chain);
    chain.meter = Calls { made: [0; 3], watched: true };
    talk(&mut chain, 15, 1);
    assert_eq!(chain.meter.made, [0; 3], "calls of the allocator at origin, transit, destination");
    let after = chain.delivered;
    assert!(after.best_effort - before.best_effort > 20_000, "{before:?} {after:?}");
    assert!(after.reliable - before.reliable > 20_000, "{before:?} {after:?}");
    assert!(after.stream_bytes - before.stream_bytes > 10_000_000, "{before:?} {after:?}");
    assert!(repeated(&chain) - repeated_before > 50, "losses were repaired meanwhile");
}

const NAMES: [&str; 2] = ["left", "right"];

fn identity(router: usize) -> Identity {
    Identity::from_seed([router as u8 + 1; 32])
}

/// A router on loopback with a link to the other one.
fn router(
    directory: &Path,
    (io, offload, clients): (Io, Offload, Clients),
    router: usize,
    at: [SocketAddr; 2],
) -> Background {
    let key_file = directory.join(NAMES[router]);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&key_file).expect("a key file");
    std::io::Write::write_all(&mut file, identity(router).to_secret_text().as_bytes()).expect("writes");
    let member = |other: usize| Member { name: NAMES[other].into(), public: identity(other).public().to_string() };
    let config = Config {
        name: NAMES[router].into(),
        key_file,
        listen: at[router],
        control_socket: directory.join(format!("{}.control", NAMES[router])),
        workers: Workers { io, offload, ..Workers::default() },
        lock_memory: false,
        members: vec![member(0), member(1)],
        links: vec![Link::new(NAMES[1 - router].into(), Some(at[1 - router]))],
        routing: Routing { metric: Metric::Latency },
        telemetry: Telemetry::new(directory),
        clients,
        vip: None,
        groups: None,
    };
    Background::start(config, Path::new("/nonexistent")).expect("starts")
}

/// The threads of workers.
fn workers() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads").map(|task| task.expect("a thread"));
    let is_worker = |name: &str| name.starts_with("sinew-worker");
    let mine =
        tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| is_worker(&name)));
    mine.map(|task| task.file_name().to_string_lossy().parse().expect("a number")).collect()
}

/// Sends messages of both classes, all of which are waited for but what best effort may lose.
fn exchange(from: &Datagrams, to: &Datagrams, rounds: usize) {
    let mut buffer = [0; 2048];
    for _ in 0..rounds {
        for n in 0..16 {
            from.send(to.local(), Class::Reliable, false, &[n; 200]).expect("sends");
            from.send(to.local(), Class::BestEffort, false, &[n; 200]).expect("sends");
        }
        let mut reliable = 0;
        while reliable < 16 {
            match to.recv(&mut buffer).expect("receives") {
                Event::Datagram { class, .. } => reliable += u64::from(class == Class::Reliable),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Trains that the worker sent and received.
fn trains(overlay: &Overlay) -> (u64, u64) {
    let Ok(Response::Stats { workers }) = overlay.request(&Request::Stats) else { panic!("a router counts") };
    let stats: ShardStats = serde_json::from_value(workers[0].clone()).expect("as this version writes them");
    stats.driver.map_or((0, 0), |driver| (driver.trains_out, driver.trains_in))
}

#[test]
fn a_worker_allocates_nothing_per_packet_with_either_kind_of_system_calls_and_with_trains() {
    let (memory, socket) = (Clients::default(), Clients { shared_memory: 0 });
    let both = [(Io::Mmsg, Offload::Off, socket), (Io::Mmsg, Offload::On, memory), (Io::Auto, Offload::On, memory)];
    for (io, offload, clients) in both {
        let directory = tempfile::tempdir().expect("temporary directory");
        let free = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").expect("binds"));
        let at = [0, 1].map(|router: usize| free[router].local_addr().expect("bound"));
        drop(free);
        let left = router(directory.path(), (io, offload, clients), 0, at);
        let left_worker = workers()[0];
        let right = router(directory.path(), (io, offload, clients), 1, at);
        let right_worker = *workers().iter().find(|&&worker| worker != left_worker).expect("two workers");
        let overlays = NAMES.map(|name| Overlay::connect(directory.path().join(format!("{name}.control"))));
        let overlays = overlays.map(|overlay| overlay.expect("connects"));
        for overlay in &overlays {
            assert_eq!(overlay.share_memory(true).expect("answers"), clients.shared_memory > 0);
        }
        let [from, to] = [0, 1].map(|router: usize| overlays[router].datagrams(0).expect("opens"));
        exchange(&from, &to, 300);
        for worker in [left_worker, right_worker] {
            WORKER_CALLS.store(0, Ordering::Relaxed);
            WORKER.store(worker, Ordering::Relaxed);
            let started = Instant::now();
            exchange(&from, &to, 600);
            let seconds = started.elapsed().as_secs() + 1;
            WORKER.store(0, Ordering::Relaxed);
            let calls = WORKER_CALLS.load(Ordering::Relaxed);
            // Control messages of the routers themselves, a few a second, come and go in boxes.
            assert!(calls < 100 * seconds && calls < 600 * 32 / 20, "{io:?} {offload:?}: {calls} calls in {seconds} s");
        }
        let passed = (trains(&overlays[0]).0 > 0, trains(&overlays[1]).1 > 0);
        assert_eq!(passed, (offload == Offload::On, offload == Offload::On), "{io:?} {offload:?}: trains out and in");
        left.stop().expect("stops");
        right.stop().expect("stops");
    }
}
