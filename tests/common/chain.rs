//! A chain of routers' shards in virtual time: traffic from the first to the last, through those between.
//!
//! It drives each [`Shard`] as a worker does, without sockets or threads. Everything the shards themselves do runs inside
//! [`Meter::run`]; what the chain does for them (wires, sessions' applications) runs outside.

use sinew::base::{AddressPair, Class, Identity, Instant, LinkId, NodeId, Rng, SessionId, WallTime, Worker};
use sinew::containers::Batch;
use sinew::dataplane::messages::{Command, LinkSpec, Report, SessionKind, ShardStats};
use sinew::dataplane::{Readiness, Shard, ShardSettings};
use sinew::forwarding::Table;
use sinew::proto::link;
use sinew::wire::client::{Endpoint, MAX_RECORD, Record};
use sinew::wire::cursor::Writer;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time between two turns of every router.
pub(crate) const TICK: Duration = Duration::from_micros(500);
/// Time on each wire.
const DELAY: Duration = Duration::from_millis(2);
/// Slots of each router's packet pool.
const POOL: usize = 16_384;
/// The sessions of the first and the last router, and their ports.
const DATAGRAMS: SessionId = SessionId(1);
const STREAM: SessionId = SessionId(2);
const PORT: u16 = 100;
const LISTENER_PORT: u16 = 101;
/// Towards the router before and the one behind.
const BACK: LinkId = LinkId(0);
const ON: LinkId = LinkId(1);

/// What a shard is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Take a record of an application, or tell which session may be read.
    Record,
    /// Take a datagram from the router before it, or from the one behind it.
    Receive { from: usize },
    /// Do what is due.
    Timeout,
    /// Make datagrams.
    Transmit,
    /// Make records for applications.
    Deliver,
}

/// Measures what shards do.
pub(crate) trait Meter {
    /// Runs a step of the router's shard.
    fn run<R>(&mut self, router: usize, step: Step, work: impl FnOnce() -> R) -> R;
}

/// What reached the application at the end of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) best_effort: u64,
    pub(crate) reliable: u64,
    pub(crate) stream_bytes: u64,
}

struct Flight {
    at: Instant,
    from: usize,
    len: usize,
    bytes: [u8; 2048],
}

/// The chain.
pub(crate) struct Chain<M> {
    pub(crate) now: Instant,
    pub(crate) meter: M,
    pub(crate) delivered: Delivered,
    /// Probability that a datagram is lost on its wire.
    pub(crate) loss: f64,
    /// Probability that it arrives twice, or after the next one.
    pub(crate) disorder: f64,
    shards: Vec<Shard>,
    inbound: Vec<VecDeque<Flight>>,
    up: usize,
    /// The first router's sessions that were asked to wait.
    waiting: Vec<SessionId>,
    rng: Rng,
    batch: Batch,
    record: Vec<u8>,
    outgoing: Vec<u8>,
}

fn identity(router: usize) -> Identity {
    Identity::from_seed([router as u8 + 1; 32])
}

fn node(router: usize) -> NodeId {
    identity(router).public().node_id()
}

fn address(router: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, router as u8], 5300))
}

fn start(router: usize, routers: usize, settings: &link::Settings) -> Shard {
    let shard_settings = ShardSettings {
        identity: identity(router),
        worker: Worker::SOLE,
        pool: POOL,
        security: Default::default(),
        sessions: Default::default(),
    };
    let mut shard = Shard::new(shard_settings, WallTime::from_nanos(1 << 40), Rng::from_u64(router as u64));
    let now = Instant::from_millis(1);
    let neighbours = [(BACK, router.checked_sub(1)), (ON, (router + 1 < routers).then_some(router + 1))];
    for (link, peer) in neighbours.into_iter().filter_map(|(link, peer)| Some((link, peer?))) {
        let paths = (link == ON).then(|| AddressPair::from(address(peer)).into()).into_iter().collect();
        let spec = LinkSpec {
            peer: identity(peer).public(),
            preshared_key: None,
            paths,
            asks: true,
            settings: settings.clone(),
        };
        shard.handle_command(now, Command::AddLink(link, Box::new(spec)));
    }
    let others = (0..routers).filter(|&other| other != router);
    let routes = others.map(|other| (node(other), if other < router { BACK } else { ON }));
    shard.handle_command(now, Command::InstallTable(Arc::new(Table::new(node(router), 1, routes))));
    shard
}

impl<M: Meter> Chain<M> {
    /// A chain of so many routers, all links up, the sessions open.
    pub(crate) fn new(routers: usize, settings: &link::Settings, meter: M) -> Chain<M> {
        let mut chain = Chain {
            now: Instant::from_millis(1),
            meter,
            delivered: Delivered::default(),
            loss: 0.0,
            disorder: 0.0,
            shards: (0..routers).map(|router| start(router, routers, settings)).collect(),
            inbound: (0..routers).map(|_| VecDeque::new()).collect(),
            up: 0,
            waiting: Vec::new(),
            rng: Rng::from_u64(1),
            batch: Batch::new(64),
            record: vec![0; MAX_RECORD],
            outgoing: vec![0; MAX_RECORD],
        };
        let links = 2 * (routers - 1);
        for _ in 0..2_000 {
            chain.tick();
            if chain.up == links {
                break;
            }
        }
        assert_eq!(chain.up, links, "both ends of every link are up within a second");
        for router in [0, routers - 1] {
            chain.command(router, Command::OpenSession(DATAGRAMS, SessionKind::Datagram { port: PORT }));
        }
        chain.command(routers - 1, Command::OpenSession(STREAM, SessionKind::Listener { port: LISTENER_PORT }));
        let to = Endpoint { node: node(routers - 1), port: LISTENER_PORT };
        chain.command(0, Command::OpenSession(STREAM, SessionKind::Stream { to }));
        (0..200).for_each(|_| chain.tick());
        chain
    }

    /// What a router's shard counted.
    pub(crate) fn stats(&self, router: usize) -> ShardStats {
        self.shards[router].stats(self.now)
    }

    /// Sends a datagram to the end of the chain; false if the session was asked to wait.
    pub(crate) fn send(&mut self, class: Class, bytes: &[u8]) -> bool {
        let to = Endpoint { node: node(self.shards.len() - 1), port: PORT };
        self.put(DATAGRAMS, &Record::Send { class, ordered: false, ttl: 0, to, bytes })
    }

    /// Writes to the stream to the end of the chain; false if it was asked to wait.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.put(STREAM, &Record::Data(bytes))
    }

    fn put(&mut self, session: SessionId, record: &Record<'_>) -> bool {
        if self.waiting.contains(&session) {
            return false;
        }
        let mut writer = Writer::new(&mut self.outgoing);
        record.emit(&mut writer).expect("the buffer holds any record");
        let (shard, now, bytes) = (&mut self.shards[0], self.now, writer.written());
        match self.meter.run(0, Step::Record, || shard.handle_record(now, session, bytes)) {
            Readiness::Ready => {}
            Readiness::Full => self.waiting.push(session),
            Readiness::Gone => panic!("a session ended"),
        }
        true
    }

    /// One turn of every router.
    pub(crate) fn tick(&mut self) {
        self.now += TICK;
        for router in 0..self.shards.len() {
            self.receive(router);
            self.transmit(router);
            self.deliver(router);
            self.take_reports(router);
        }
    }

    fn receive(&mut self, router: usize) {
        let (shard, inbound, now) = (&mut self.shards[router], &mut self.inbound[router], self.now);
        while let Some(flight) = inbound.front_mut().filter(|flight| flight.at <= now) {
            let Flight { from, len, bytes, .. } = flight;
            let datagram = &mut bytes[..*len];
            self.meter.run(router, Step::Receive { from: *from }, || {
                shard.handle_datagram(now, address(*from), datagram);
            });
            inbound.pop_front();
        }
        self.meter.run(router, Step::Timeout, || {
            if shard.poll_timeout().is_some_and(|(at, _)| at <= now) {
                shard.handle_timeout(now);
            }
        });
    }

    fn transmit(&mut self, router: usize) {
        loop {
            self.batch.clear();
            let (shard, batch, now) = (&mut self.shards[router], &mut self.batch, self.now);
            self.meter.run(router, Step::Transmit, || shard.poll_transmit(now, batch));
            if self.batch.is_empty() {
                return;
            }
            for (transmit, datagram) in self.batch.iter() {
                if self.rng.chance(self.loss) {
                    continue;
                }
                let SocketAddr::V4(to) = transmit.to.remote else { panic!("all addresses are IPv4") };
                let mut bytes = [0; 2048];
                bytes[..datagram.len()].copy_from_slice(datagram);
                let flight = || Flight { at: self.now + DELAY, from: router, len: datagram.len(), bytes };
                let inbound = &mut self.inbound[usize::from(to.ip().octets()[3])];
                inbound.push_back(flight());
                if self.rng.chance(self.disorder) {
                    inbound.push_back(flight());
                }
                let last = inbound.len() - 1;
                if last > 0 && self.rng.chance(self.disorder) {
                    inbound.swap(last - 1, last);
                }
            }
        }
    }

    fn deliver(&mut self, router: usize) {
        let (shard, record, now) = (&mut self.shards[router], &mut self.record[..], self.now);
        while let Some((session, len)) = self.meter.run(router, Step::Deliver, || shard.poll_deliver(now, record)) {
            match Record::parse(&record[..len]).expect("a router writes records") {
                Record::Datagram { class: Class::BestEffort, .. } => self.delivered.best_effort += 1,
                Record::Datagram { class: Class::Reliable, .. } => self.delivered.reliable += 1,
                Record::Data(bytes) => self.delivered.stream_bytes += bytes.len() as u64,
                Record::Connected(_) => {}
                other => panic!("nobody asked for {other:?}"),
            }
            self.meter.run(router, Step::Deliver, || shard.delivered(now, session));
        }
        while let Some(session) = self.meter.run(router, Step::Record, || shard.poll_readable()) {
            self.waiting.retain(|&waiting| router != 0 || waiting != session);
        }
    }

    fn take_reports(&mut self, router: usize) {
        while let Some(report) = self.shards[router].poll_report() {
            match report {
                Report::LinkUp(..) => self.up += 1,
                Report::LinkDown(link, reason) => panic!("router {router}'s {link:?} went down: {reason:?}"),
                Report::Incoming { session, .. } => self.command(router, Command::AcceptStream(session)),
                _ => {}
            }
        }
    }

    fn command(&mut self, router: usize, command: Command) {
        self.shards[router].handle_command(self.now, command);
    }
}
