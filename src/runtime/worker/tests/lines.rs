//! Two workers of a router between two neighbours, and the cache lines that they touch.
//!
//! ```text
//!   a's worker 0 ── wire ──► worker 0 ── wire ──► b's worker 0        a lane each way
//!   a's worker 1 ── wire ──► worker 1 ── wire ──► b's worker 1
//! ```
//!
//! The router's workers are those of `sinew run`: [`Turn`]s on threads of their own, with real rings, doorbells and a
//! table that both share; only the back-end is played, since what the kernel writes cannot be watched. A back-end belongs
//! to one worker by its type.

use super::super::*;
use super::trace;
use crate::base::worker::{home, pick};
use crate::base::{Class, Identity, NodeId, Port, Rng, WallTime, Worker as Number};
use crate::dataplane::ShardSettings;
use crate::dataplane::messages::{LinkSpec, PathSpec, SessionKind};
use crate::forwarding::Table;
use crate::runtime::io::{Arrangement, Counters, Sink};
use crate::runtime::ring::{crossings, ring};
use crate::runtime::udp::Sockets;
use crate::wire::client::{Endpoint, MAX_RECORD, Record};
use crate::wire::cursor::Writer;
use crate::wire::message::{Header, Protocol};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::process::Command as Process;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// In whose environment this stands, that process is the one to be watched.
const WATCHED: &str = "SINEW_TEST_WATCHED";
const NAME: &str = "runtime::worker::tests::lines::a_message_in_transit_touches_no_line_that_another_worker_writes";
/// The routers.
const A: usize = 0;
const ROUTER: usize = 1;
const B: usize = 2;
/// Messages on each lane, some for each turn.
const MESSAGES: usize = 16;
const TOGETHER: usize = 4;
const SESSION: SessionId = SessionId(1);
const PATIENCE: Duration = Duration::from_secs(20);

fn identity(router: usize) -> Identity {
    Identity::from_seed([router as u8 + 1; 32])
}

fn node(router: usize) -> NodeId {
    identity(router).public().node_id()
}

fn address(router: usize, worker: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, router as u8], 5300 + worker as u16))
}

/// The lane of a flow that begins at a session of a.
fn lane(from: Port, to: (usize, Port)) -> usize {
    let header = Header {
        class: Class::Reliable,
        ttl: 9,
        mark: false,
        protocol: Protocol::Datagram,
        destination: node(to.0),
        source: node(A),
        destination_port: to.1,
        source_port: from,
    };
    pick(header.flow_hash(), 2)
}

/// One worker of a router, its links added, its table installed.
fn shard(now: Instant, router: usize, worker: usize, table: &Arc<Table>) -> Shard {
    let settings = ShardSettings {
        identity: identity(router),
        worker: Number::new(worker, 2),
        pool: 1024,
        security: Default::default(),
        sessions: Default::default(),
    };
    let mut shard = Shard::new(settings, WallTime::from_nanos(1 << 40), Rng::from_u64((3 * router + worker) as u64));
    for command in links(router, worker) {
        shard.handle_command(now, command);
    }
    shard.handle_command(now, Command::InstallTable(Arc::clone(table)));
    shard
}

/// The links of a router's worker: of the neighbours to the router, which they call, and of the router to both.
fn links(router: usize, worker: usize) -> Vec<Command> {
    let peers: &[usize] = if router == ROUTER { &[A, B] } else { &[ROUTER] };
    let add = |(link, &peer): (usize, &usize)| {
        let mut spec = LinkSpec {
            peer: identity(peer).public(),
            preshared_key: None,
            paths: Vec::new(),
            asks: true,
            settings: Default::default(),
        };
        if router != ROUTER {
            spec.paths.push(PathSpec::from(AddressPair::from(address(peer, worker))));
        }
        // A turn that is watched takes as long as a thousand others.
        (spec.settings.dead, spec.settings.workers) = (Duration::from_secs(60), 2);
        Command::AddLink(LinkId(link as u16), Box::new(spec))
    };
    peers.iter().enumerate().map(add).collect()
}

fn table(router: usize) -> Arc<Table> {
    let routes: &[(usize, u16)] = match router {
        A => &[(ROUTER, 0), (B, 0)],
        B => &[(ROUTER, 0), (A, 0)],
        _ => &[(A, 0), (B, 1)],
    };
    let routes = routes.iter().map(|&(to, link)| (node(to), LinkId(link)));
    Arc::new(Table::new(node(router), 1, routes).among(2, [(LinkId(0), 2), (LinkId(1), 2)]))
}

/// Room for datagrams, made once: what is on the way belongs to one worker.
#[derive(Clone)]
#[repr(align(128))]
struct Slot {
    at: SocketAddr,
    len: usize,
    bytes: [u8; 2048],
}

#[derive(Clone)]
struct Queue {
    slots: Vec<Slot>,
    count: usize,
}

impl Queue {
    fn new() -> Queue {
        let slot = Slot { at: address(0, 0), len: 0, bytes: [0; 2048] };
        Queue { slots: vec![slot; 256], count: 0 }
    }

    fn push(&mut self, at: SocketAddr, bytes: &[u8]) {
        let slot = &mut self.slots[self.count];
        (slot.at, slot.len) = (at, bytes.len());
        slot.bytes[..bytes.len()].copy_from_slice(bytes);
        self.count += 1;
    }

    fn drain(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        let count = std::mem::take(&mut self.count);
        self.slots[..count].iter_mut().map(|slot| (slot.at, &mut slot.bytes[..slot.len]))
    }
}

/// What is on its way to a worker, and from it. In lines of its own: who plays the wires is not watched.
#[repr(align(128))]
struct Wires {
    to: Queue,
    from: Queue,
}

/// The worker's end of its wires.
struct Played(Arc<Mutex<Wires>>);

fn lock(wires: &Mutex<Wires>) -> std::sync::MutexGuard<'_, Wires> {
    wires.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend for Played {
    fn name(&self) -> &'static str {
        "played"
    }
    fn watch(&mut self, _: SessionId, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
    fn want(&mut self, _: SessionId, _: bool, _: bool) {}
    fn unwatch(&mut self, _: SessionId) {}
    fn sockets(&mut self) -> &mut Sockets {
        unreachable!("links live, and there are no sockets")
    }
    fn arrangement(&mut self) -> &mut Arrangement {
        unreachable!("whole batches are sent")
    }
    fn open_path(&mut self, _: Instant, _: LinkId, _: AddressPair, _: &mut Sink<'_>) {}
    fn close_path(&mut self, _: LinkId, _: u32) {}
    fn poll(&mut self, sink: &mut Sink<'_>) -> usize {
        let each = |(at, bytes)| sink(Event::Datagram { from: AddressPair::from(at), bytes });
        lock(&self.0).to.drain().map(each).count()
    }
    fn send(&mut self, _: Instant, batch: &Batch, _: &mut Sink<'_>) {
        let mut wires = lock(&self.0);
        batch.iter().for_each(|(datagram, bytes)| wires.from.push(datagram.to.remote, bytes));
    }
    fn flush(&mut self, _: Instant, _: &Batch, _: &mut Sink<'_>) {}
    fn wait(&mut self, _: Option<Duration>) {}
    fn counters(&self) -> Counters {
        Counters::default()
    }
    fn new_kernel_drops(&mut self) -> u64 {
        0
    }
}

/// One of the router's workers, as seen from outside.
struct Thread {
    wires: Arc<Mutex<Wires>>,
    commands: Sender<ToWorker>,
    reports: Receiver<Report>,
    /// A turn, watched or not. By pipes: who waits for one waits in the kernel, and touches nothing meanwhile.
    turns: io::PipeWriter,
    done: io::PipeReader,
    stack: std::ops::Range<usize>,
}

/// The router's two workers. They wait for each other's turns to end.
fn start(clock: Clock) -> [Thread; 2] {
    let bells = [(); 3].map(|()| Arc::new(Doorbell::new().expect("eventfd")));
    let [first, second, control] = bells;
    let mut between = crossings(&[Arc::clone(&first), Arc::clone(&second)]).into_iter();
    let table = table(ROUTER);
    let mut index = 0;
    [first, second].map(|bell| {
        let (to_worker, commands) = ring(RING_SLOTS, Arc::clone(&bell));
        let (reports, from_worker) = ring(RING_SLOTS, Arc::clone(&control));
        let wires = Arc::new(Mutex::new(Wires { to: Queue::new(), from: Queue::new() }));
        let (theirs, crossings, table, worker) =
            (Arc::clone(&wires), between.next().expect("one each"), Arc::clone(&table), index);
        index += 1;
        let (mut asked, turns) = io::pipe().expect("a pipe");
        let (done, mut say) = io::pipe().expect("a pipe");
        let (born, stack) = mpsc::channel();
        thread::spawn(move || {
            let mut turn = Turn::new(Worker {
                index: worker,
                clock,
                idle: Idle::Wait,
                limits: Limits { linger: PATIENCE, overdue: 16 },
                shard: shard(clock.now(), ROUTER, worker, &table),
                backend: Box::new(Played(theirs)),
                backend_reason: String::new(),
                place: Place { core: None, core_reason: String::new(), scheduling: String::new() },
                bell,
                commands,
                reports,
                crossings,
            });
            born.send(trace::own_stack()).expect("is waited for");
            let mut watched = [0];
            while asked.read(&mut watched).is_ok_and(|count| count > 0) {
                if watched == [1] {
                    trace::watch(worker, || turn.run());
                } else {
                    turn.run();
                }
                say.write_all(&[0]).expect("is waited for");
            }
        });
        let stack = stack.recv().expect("it starts");
        Thread { wires, commands: to_worker, reports: from_worker, turns, done, stack }
    })
}

/// The network.
struct Net {
    clock: Clock,
    /// Workers of a and of b.
    ends: [[Shard; 2]; 2],
    router: [Thread; 2],
    batch: Batch,
    record: Vec<u8>,
    delivered: usize,
    up: usize,
    opened: Vec<Port>,
}

impl Net {
    fn start() -> Net {
        let clock = Clock::start();
        let router = start(clock);
        let ends = [A, B].map(|end| {
            let table = table(end);
            [0, 1].map(|worker| shard(clock.now(), end, worker, &table))
        });
        let (batch, record) = (Batch::new(BATCH), vec![0; MAX_RECORD]);
        let mut net = Net { clock, ends, router, batch, record, delivered: 0, up: 0, opened: Vec::new() };
        // Of four lanes both ends are up.
        net.run_until(|net| net.up == 8);
        net
    }

    /// Lets everybody have turns until it is so.
    fn run_until(&mut self, is_so: impl Fn(&Net) -> bool) {
        let begin = self.clock.now();
        while !is_so(self) {
            assert!(self.clock.now().since(begin) < PATIENCE, "{} lanes up, {} delivered", self.up, self.delivered);
            self.round(false);
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// A turn of everybody; the router's workers are watched, or not.
    fn round(&mut self, watched: bool) {
        for worker in 0..2 {
            self.turn_of_end(A, worker);
            self.turn_of_end(B, worker);
            let Thread { turns, done, .. } = &mut self.router[worker];
            turns.write_all(&[u8::from(watched)]).expect("it runs");
            done.read_exact(&mut [0]).expect("it lives");
            let now = self.clock.now();
            for (to, bytes) in lock(&self.router[worker].wires).from.drain() {
                let end = if to == address(A, worker) { 0 } else { 1 };
                self.ends[end][worker].handle_datagram(now, address(ROUTER, worker), bytes);
            }
            while let Some(report) = self.router[worker].reports.pop() {
                self.take(report);
            }
        }
    }

    fn turn_of_end(&mut self, end: usize, worker: usize) {
        let (now, shard) = (self.clock.now(), &mut self.ends[end / B][worker]);
        if shard.poll_timeout().is_some_and(|(at, _)| at <= now) {
            shard.handle_timeout(now);
        }
        while let Some((session, _)) = shard.poll_deliver(now, &mut self.record) {
            self.delivered += 1;
            shard.delivered(now, session);
        }
        self.batch.clear();
        shard.poll_transmit(now, &mut self.batch);
        let mut wires = lock(&self.router[worker].wires);
        self.batch.iter().for_each(|(_, bytes)| wires.to.push(address(end, worker), bytes));
        drop(wires);
        while let Some(report) = self.ends[end / B][worker].poll_report() {
            self.take(report);
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::LinkUp(..) => self.up += 1,
            Report::LinkDown(link, reason) => panic!("{link} went down: {reason:?}"),
            Report::SessionOpened(_, port) => self.opened.push(port),
            _ => {}
        }
    }

    /// Opens a session at an end's worker; its port.
    fn open(&mut self, end: usize, worker: usize, port: Port) -> Port {
        let now = self.clock.now();
        let command = Command::OpenSession(SESSION, SessionKind::Datagram { port });
        self.ends[end / B][worker].handle_command(now, command);
        self.run_until(|net| !net.opened.is_empty());
        self.opened.pop().expect("it was opened")
    }

    fn send(&mut self, worker: usize, class: Class, to: (usize, Port)) {
        let to = Endpoint { node: node(to.0), port: to.1 };
        let mut writer = Writer::new(&mut self.record);
        let record = Record::Send { class, ordered: false, ttl: 0, to, bytes: &[7; 200] };
        record.emit(&mut writer).expect("fits");
        let now = self.clock.now();
        let taken = self.ends[0][worker].handle_record(now, SESSION, writer.written());
        assert_eq!(taken, Readiness::Ready);
    }

    /// Sends messages over the lanes of both workers and lets them arrive.
    fn talk(&mut self, flows: [(usize, Port); 2], watched: bool) {
        for _ in 0..MESSAGES / TOGETHER {
            for (worker, to) in flows.into_iter().enumerate() {
                for number in 0..TOGETHER {
                    self.send(worker, [Class::Reliable, Class::BestEffort][number % 2], to);
                }
            }
            // There, on, and back.
            (0..3).for_each(|_| self.round(watched));
        }
    }
}

/// What is to be known of shared lines: where they are, and at which places of the program they were touched.
fn described(lines: &[trace::Line]) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("has maps");
    let base = maps.split('-').next().and_then(|text| usize::from_str_radix(text, 16).ok()).unwrap_or(0);
    let describe = |line: &trace::Line| {
        let places = line.by.map(|by| format!("{:#x}", by.saturating_sub(base)));
        format!("{:#x}: by {} (addr2line -fe this program)\n", line.address, places.join(" and "))
    };
    lines.iter().map(describe).collect()
}

fn watched_in_this_process() {
    let mut net = Net::start();
    let ports = [0, 1].map(|worker| net.open(A, worker, 0));
    // Flows that keep to one worker everywhere: nobody but the lanes is asked.
    let flows = [0, 1].map(|worker| {
        let fits = |port: &Port| lane(ports[worker], (B, *port)) == worker && home(*port, 2) == worker;
        let port = (1000..).find(fits).expect("half of a half of all ports");
        (B, net.open(B, worker, port))
    });
    net.talk(flows, false);
    net.run_until(|net| net.delivered == 2 * MESSAGES);
    let stacks: Vec<_> = net.router.iter().map(|thread| thread.stack.clone()).chain([trace::own_stack()]).collect();
    trace::prepare(&stacks);

    net.talk(flows, true);
    let lines = trace::take_lines();
    net.run_until(|net| net.delivered == 4 * MESSAGES);
    for worker in 0..2 {
        let written = lines.iter().filter(|line| line.is_written_by(worker)).count();
        assert!(written > 100, "worker {worker} wrote to {written} lines: it is not watched");
    }
    let shared: Vec<_> = lines.iter().filter(|line| line.is_shared()).copied().collect();
    assert!(shared.is_empty(), "{} of {} lines are shared:\n{}", shared.len(), lines.len(), described(&shared));

    // What must cross does share lines, and is seen to: a session at one worker, a flow at the other.
    let crosses = |port: &Port| lane(ports[0], (ROUTER, *port)) == 0 && home(*port, 2) == 1;
    let port = (1000..).find(crosses).expect("half of a half of all ports");
    let command = ToWorker::Command(Command::OpenSession(SESSION, SessionKind::Datagram { port }));
    assert!(net.router[1].commands.push(command).is_ok(), "there is room");
    net.run_until(|net| !net.opened.is_empty());
    net.talk([(ROUTER, port), flows[1]], true);
    let shared = trace::take_lines().into_iter().filter(trace::Line::is_shared).count();
    assert!(shared > 0, "a ring between two workers is no line of both");
}

#[test]
fn a_message_in_transit_touches_no_line_that_another_worker_writes() {
    if std::env::var_os(WATCHED).is_some() {
        // On a thread whose memory is all on its stack; the first one's is elsewhere.
        return thread::spawn(watched_in_this_process).join().expect("nothing is shared");
    }
    // Memory is closed to the whole process: it must be one without other tests.
    let mut process = Process::new(std::env::current_exe().expect("this program"));
    let output = process.args(["--exact", NAME, "--test-threads=1", "--nocapture"]).env(WATCHED, "1").output();
    let output = output.expect("it runs");
    let (said, noted) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{:?}\n{said}\n{noted}", output.status);
}
