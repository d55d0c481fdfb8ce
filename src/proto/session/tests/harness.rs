//! A few routers' sessions over a scripted wire, in virtual time. Applications are lists of records.

use super::super::{Event, Readiness, SessionKind, Sessions, Settings};
use crate::base::{Class, Instant, NodeId, Port, Rng, SessionId, Worker};
use crate::containers::Pool;
use crate::wire::client::{Endpoint, MAX_RECORD, Record};
use crate::wire::cursor::Writer;
use crate::wire::message::{HEADER_LEN, Header, Protocol, set_mark};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Slots of each router's pool.
pub(super) const POOL: usize = 8192;

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What happens to messages between routers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) delay: Duration,
    /// Up to this much is added, drawn for each message: what is not zero reorders.
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    pub(super) mark: f64,
}

impl Default for Wire {
    fn default() -> Wire {
        Wire { delay: ms(10), jitter: Duration::ZERO, loss: 0.0, duplicate: 0.0, mark: 0.0 }
    }
}

#[derive(Debug, Default)]
pub(super) struct App {
    /// Whether it reads; if not, its descriptor is full.
    pub(super) reads: bool,
    pub(super) got: Vec<Vec<u8>>,
    /// Stream bytes it got.
    pub(super) bytes: usize,
    writes: VecDeque<Vec<u8>>,
    full: bool,
    pub(super) gone: bool,
}

impl App {
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.got.iter().map(|bytes| Record::parse(bytes).expect("the router writes good records"))
    }

    /// Payloads of the datagrams it got.
    pub(super) fn datagrams(&self) -> Vec<&[u8]> {
        self.records()
            .filter_map(|record| if let Record::Datagram { bytes, .. } = record { Some(bytes) } else { None })
            .collect()
    }

    /// The stream's bytes it got.
    pub(super) fn stream(&self) -> Vec<u8> {
        self.records()
            .filter_map(|record| if let Record::Data(bytes) = record { Some(bytes) } else { None })
            .flatten()
            .copied()
            .collect()
    }

    pub(super) fn has(&self, wanted: Record<'_>) -> bool {
        self.records().any(|record| record == wanted)
    }

    pub(super) fn was_reset(&self) -> bool {
        self.records().any(|record| matches!(record, Record::Reset { .. }))
    }

    /// Whether the router lets it write.
    pub(super) fn waits(&self) -> bool {
        self.full
    }
}

pub(super) struct Node {
    pub(super) sessions: Sessions,
    pub(super) pool: Pool,
    pub(super) apps: BTreeMap<SessionId, App>,
    pub(super) incoming: Vec<SessionId>,
    pub(super) closed: Vec<SessionId>,
    pub(super) accepts: bool,
    /// Messages of each protocol it sent.
    pub(super) sent: BTreeMap<u8, u64>,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) wire: Wire,
    flight: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    count: u64,
    rng: Rng,
    settings: Settings,
    record: Vec<u8>,
}

pub(super) fn node_id(node: usize) -> NodeId {
    NodeId(100 + node as u64)
}

pub(super) fn endpoint(node: usize, port: Port) -> Endpoint {
    Endpoint { node: node_id(node), port }
}

pub(super) fn encode(record: &Record<'_>) -> Vec<u8> {
    let mut buffer = vec![0; MAX_RECORD];
    let mut writer = Writer::new(&mut buffer);
    record.emit(&mut writer).expect("fits");
    let len = writer.len();
    buffer.truncate(len);
    buffer
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize) -> World {
        World::with(seed, nodes, Settings::default())
    }

    pub(super) fn with(seed: u64, nodes: usize, settings: Settings) -> World {
        let mut rng = Rng::from_u64(seed);
        let nodes = (0..nodes).map(|node| Node::new(node, &settings, rng.fork())).collect();
        let now = Instant::from_millis(1000);
        let (flight, wire) = (BTreeMap::new(), Wire::default());
        World { now, nodes, wire, flight, count: 0, rng, settings, record: vec![0; MAX_RECORD] }
    }

    /// The router dies and starts again without any memory.
    pub(super) fn restart(&mut self, node: usize) {
        let rng = self.rng.fork();
        self.nodes[node] = Node::new(node, &self.settings, rng);
    }

    pub(super) fn open(&mut self, node: usize, id: u64, kind: SessionKind) -> Port {
        let port = self.nodes[node].sessions.open(self.now, SessionId(id), kind).expect("opens");
        self.nodes[node].apps.insert(SessionId(id), App { reads: true, ..App::default() });
        self.drain(node);
        port
    }

    pub(super) fn datagram(&mut self, node: usize, id: u64, port: Port) -> Port {
        self.open(node, id, SessionKind::Datagram { port })
    }

    /// A stream from session 1 of node 0 to session 1 (a listener at port 80) of node 1; the id of its far end.
    pub(super) fn connect(&mut self) -> SessionId {
        self.open(1, 1, SessionKind::Listener { port: 80 });
        self.open(0, 1, SessionKind::Stream { to: endpoint(1, 80) });
        self.run(ms(5000));
        *self.nodes[1].incoming.last().expect("the stream arrived")
    }

    pub(super) fn app(&self, node: usize, id: u64) -> &App {
        &self.nodes[node].apps[&SessionId(id)]
    }

    pub(super) fn far(&self, id: SessionId) -> &App {
        &self.nodes[1].apps[&id]
    }

    pub(super) fn write(&mut self, node: usize, id: SessionId, record: &Record<'_>) {
        let bytes = encode(record);
        self.nodes[node].apps.get_mut(&id).expect("the application lives").writes.push_back(bytes);
        self.pump(node, id);
        self.drain(node);
    }

    pub(super) fn send(&mut self, node: usize, id: u64, class: Class, ordered: bool, to: Endpoint, bytes: &[u8]) {
        self.write(node, SessionId(id), &Record::Send { class, ordered, ttl: 0, to, bytes });
    }

    pub(super) fn set_reads(&mut self, node: usize, id: SessionId, reads: bool) {
        self.nodes[node].apps.get_mut(&id).expect("the application lives").reads = reads;
        if reads {
            self.nodes[node].sessions.handle_writable(self.now, id);
        }
        self.drain(node);
    }

    pub(super) fn close(&mut self, node: usize, id: SessionId) {
        let Node { sessions, pool, .. } = &mut self.nodes[node];
        sessions.close(self.now, id, pool);
        self.nodes[node].apps.remove(&id);
        self.drain(node);
    }

    pub(super) fn table_change(&mut self, node: usize) {
        self.nodes[node].sessions.handle_table_change(self.now);
        self.drain(node);
    }

    /// Loses everything that is on the wire.
    pub(super) fn lose_flight(&mut self) -> usize {
        std::mem::take(&mut self.flight).len()
    }

    /// A message from outside.
    pub(super) fn inject(&mut self, to: usize, header: &Header, body: &[u8]) {
        let Node { sessions, pool, .. } = &mut self.nodes[to];
        sessions.handle_message(self.now, header, body, pool);
        self.drain(to);
    }

    /// Copies of what is on the wire to a router.
    pub(super) fn flight_to(&self, to: usize) -> Vec<Vec<u8>> {
        self.flight.values().filter(|(node, _)| *node == to).map(|(_, message)| message.clone()).collect()
    }

    pub(super) fn inject_message(&mut self, to: usize, message: &[u8]) {
        let header = Header::parse(message).expect("a good header");
        self.inject(to, &header, &message[HEADER_LEN..]);
    }

    fn pump(&mut self, node: usize, id: SessionId) {
        let Node { sessions, pool, apps, .. } = &mut self.nodes[node];
        let Some(app) = apps.get_mut(&id) else { return };
        while !app.full && !app.gone && !app.writes.is_empty() {
            if !sessions.may_read(id) {
                app.full = true;
                break;
            }
            let Some(record) = app.writes.pop_front() else { break };
            match sessions.handle_record(self.now, id, &record, pool) {
                Readiness::Ready => {}
                Readiness::Full => app.full = true,
                Readiness::Gone => app.gone = true,
            }
        }
    }

    pub(super) fn drain(&mut self, node: usize) {
        loop {
            self.drain_deliver(node);
            let mut moved = self.drain_transmit(node);
            while let Some(event) = self.nodes[node].sessions.poll_event() {
                moved = true;
                self.handle_event(node, event);
            }
            if !moved {
                break;
            }
        }
    }

    fn drain_deliver(&mut self, node: usize) {
        let Node { sessions, pool, apps, .. } = &mut self.nodes[node];
        while let Some((id, len)) = sessions.poll_deliver(self.now, pool, &mut self.record) {
            let app = apps.get_mut(&id).expect("records are for living applications");
            if app.reads {
                let record = self.record[..len].to_vec();
                app.bytes += if let Ok(Record::Data(bytes)) = Record::parse(&record) { bytes.len() } else { 0 };
                app.got.push(record);
                sessions.delivered(self.now, id, pool);
            } else {
                sessions.blocked(self.now, id);
            }
        }
    }

    fn drain_transmit(&mut self, node: usize) -> bool {
        let mut any = false;
        loop {
            let Node { sessions, pool, sent, .. } = &mut self.nodes[node];
            let Some((header, packet)) = sessions.poll_transmit(self.now, pool) else { return any };
            any = true;
            let message = pool.bytes(&packet).to_vec();
            pool.release(packet);
            assert_eq!(Header::parse(&message), Ok(header), "the header is the message's");
            assert_eq!(header.source, node_id(node));
            *sent.entry(protocol_index(header.protocol)).or_default() += 1;
            self.put_on_wire(header, message);
        }
    }

    fn put_on_wire(&mut self, header: Header, mut message: Vec<u8>) {
        let to = (header.destination.0 - 100) as usize;
        let wire = self.wire;
        let copies = if self.rng.chance(wire.loss) { 0 } else { 1 + u64::from(self.rng.chance(wire.duplicate)) };
        if self.rng.chance(wire.mark) {
            set_mark(&mut message);
        }
        // One hop: the source counts the ttl down.
        crate::wire::message::set_ttl(&mut message, header.ttl - 1);
        for _ in 0..copies {
            let late = wire.jitter.mul_f64(self.rng.unit());
            self.count += 1;
            self.flight.insert((self.now + wire.delay + late, self.count), (to, message.clone()));
        }
    }

    fn handle_event(&mut self, node: usize, event: Event) {
        match event {
            Event::Readable(id) => {
                if let Some(app) = self.nodes[node].apps.get_mut(&id) {
                    assert!(app.full, "only a session that was full becomes readable");
                    app.full = false;
                }
                self.pump(node, id);
            }
            Event::Incoming { session, .. } => {
                let accepts = self.nodes[node].accepts;
                self.nodes[node].incoming.push(session);
                self.nodes[node].apps.insert(session, App { reads: true, ..App::default() });
                if accepts {
                    self.nodes[node].sessions.accept(self.now, session);
                }
            }
            Event::Closed(id) => self.nodes[node].closed.push(id),
        }
    }

    fn next_time(&self) -> Option<Instant> {
        let wire = self.flight.keys().next().map(|(at, _)| *at);
        let timers = self.nodes.iter().filter_map(|node| node.sessions.poll_timeout()).map(|(at, _)| at).min();
        [wire, timers].into_iter().flatten().min()
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns_now = 0;
        while let Some(next) = self.next_time().filter(|next| *next <= end) {
            turns_now = if next > self.now { 0 } else { turns_now + 1 };
            assert!(
                turns_now < 100_000,
                "time stands still at {}: {:?}",
                self.now,
                self.nodes[0].sessions.poll_timeout()
            );
            self.now = self.now.max(next);
            while let Some(entry) = self.flight.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, message) = entry.remove();
                self.inject_message(to, &message);
            }
            for node in 0..self.nodes.len() {
                let Node { sessions, pool, .. } = &mut self.nodes[node];
                if sessions.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                    sessions.handle_timeout(self.now, pool);
                    self.drain(node);
                }
            }
        }
        self.now = end;
    }

    /// Lets time pass until `done`, at most this long; how long it took.
    pub(super) fn run_until(&mut self, most: Duration, done: impl Fn(&World) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now.since(start) < most, "not done after {most:?}");
            self.run(ms(1));
        }
        self.now.since(start)
    }

    /// Closes everything, waits, and checks that nothing is left behind.
    pub(super) fn finish(mut self) {
        self.wire = Wire::default();
        for node in 0..self.nodes.len() {
            for id in self.nodes[node].apps.keys().copied().collect::<Vec<_>>() {
                self.close(node, id);
            }
        }
        self.run(ms(70_000));
        for (index, node) in self.nodes.iter().enumerate() {
            assert_eq!(node.sessions.reports().count(), 0, "sessions of router {index}");
            assert_eq!(node.pool.in_use(), 0, "packets of router {index}");
            assert_eq!(node.sessions.poll_timeout(), None, "timers of router {index}");
        }
    }
}

impl Node {
    fn new(node: usize, settings: &Settings, rng: Rng) -> Node {
        Node {
            sessions: Sessions::new(node_id(node), Worker::SOLE, settings.clone(), rng),
            pool: Pool::new(POOL),
            apps: BTreeMap::new(),
            incoming: Vec::new(),
            closed: Vec::new(),
            accepts: true,
            sent: BTreeMap::new(),
        }
    }

    pub(super) fn sent(&self, protocol: Protocol) -> u64 {
        self.sent.get(&protocol_index(protocol)).copied().unwrap_or(0)
    }
}

fn protocol_index(protocol: Protocol) -> u8 {
    protocol as u8
}

/// Bytes that tell their place.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::from_u64(seed).fill(&mut bytes);
    bytes
}
