//! Shards joined by wires that deliver at once, their tables given by hand.

use super::{address, identity};
use crate::base::{Class, Instant, LinkId, NodeId, Rng, SessionId, WallTime, Worker};
use crate::containers::Batch;
use crate::dataplane::messages::{Command, LinkSpec, Report, SessionKind, ShardStats};
use crate::dataplane::{Readiness, Shard, ShardSettings};
use crate::forwarding::Table;
use crate::proto::link;
use crate::telemetry::DropReason;
use crate::wire::client::{Endpoint, MAX_RECORD, Record};
use crate::wire::cursor::Writer;
use crate::wire::message::{Header, Protocol};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The session that every router has, and its port.
pub(super) const SESSION: SessionId = SessionId(1);
pub(super) const PORT: u16 = 100;
/// How long after its time each turn's datagrams are handed to the kernel.
pub(super) const HANDED_OVER: Duration = Duration::from_micros(70);

pub(super) fn node(router: usize) -> NodeId {
    identity(router).public().node_id()
}

/// Routers and the wires between them. A wire's place in `wires` is its link's id at both of its ends.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) wires: Vec<(usize, usize)>,
    /// Wires that carry nothing.
    pub(super) cut: Vec<bool>,
    /// Routers whose applications do not read.
    pub(super) unread: Vec<bool>,
    /// What applications received, and what shards reported.
    pub(super) records: Vec<Vec<Vec<u8>>>,
    pub(super) reports: Vec<Vec<Report>>,
    /// To whom the datagrams of the last turn went, in their order.
    pub(super) sent_to: Vec<usize>,
    shards: Vec<Shard>,
    inbound: Vec<VecDeque<(SocketAddr, Vec<u8>)>>,
}

impl Net {
    /// Routers with their links up, sessions open and tables empty.
    pub(super) fn new(wires: &[(usize, usize)], settings: &link::Settings) -> Net {
        Net::with(wires, &vec![settings.clone(); wires.len()])
    }

    /// The same with settings for each wire.
    pub(super) fn with(wires: &[(usize, usize)], settings: &[link::Settings]) -> Net {
        let routers = wires.iter().map(|&(a, b)| a.max(b) + 1).max().expect("a wire");
        let mut net = Net {
            now: Instant::from_millis(1),
            wires: wires.to_vec(),
            cut: vec![false; wires.len()],
            unread: vec![false; routers],
            records: vec![Vec::new(); routers],
            reports: vec![Vec::new(); routers],
            sent_to: Vec::new(),
            shards: Vec::new(),
            inbound: vec![VecDeque::new(); routers],
        };
        for router in 0..routers {
            let shard_settings = ShardSettings {
                identity: identity(router),
                worker: Worker::SOLE,
                pool: 1024,
                security: Default::default(),
                sessions: Default::default(),
            };
            let shard = Shard::new(shard_settings, WallTime::from_nanos(1 << 40), Rng::from_u64(router as u64));
            net.shards.push(shard);
            for (wire, _) in wires.iter().enumerate().filter(|(_, ends)| ends.0 == router || ends.1 == router) {
                net.add_link(router, wire, &settings[wire]);
            }
            net.command(router, Command::OpenSession(SESSION, SessionKind::Datagram { port: PORT }));
        }
        net.run(1000);
        let ups = net.reports.iter().flatten().filter(|report| matches!(report, Report::LinkUp(..))).count();
        assert_eq!(ups, 2 * wires.len(), "every link is up at both ends");
        net
    }

    /// Begins a life of a router's end of a wire. The first end of a wire asks for keys.
    pub(super) fn add_link(&mut self, router: usize, wire: usize, settings: &link::Settings) {
        let (a, b) = self.wires[wire];
        let peer = if a == router { b } else { a };
        let spec = LinkSpec {
            peer: identity(peer).public(),
            preshared_key: None,
            paths: (a == router).then(|| super::path(peer)).into_iter().collect(),
            asks: true,
            settings: settings.clone(),
        };
        self.command(router, Command::AddLink(LinkId(wire as u16), Box::new(spec)));
    }

    /// Gives a router a table: destinations with the wires towards them.
    pub(super) fn route(&mut self, router: usize, routes: &[(usize, usize)]) {
        let routes = routes.iter().map(|&(to, wire)| (node(to), LinkId(wire as u16)));
        let table = Table::new(node(router), 1, routes);
        self.command(router, Command::InstallTable(Arc::new(table)));
    }

    pub(super) fn command(&mut self, router: usize, command: Command) {
        let now = self.now;
        self.shards[router].handle_command(now, command);
    }

    pub(super) fn send(&mut self, router: usize, to: usize, class: Class, ttl: u8, bytes: &[u8]) -> Readiness {
        let to = Endpoint { node: node(to), port: PORT };
        self.put(router, &Record::Send { class, ordered: false, ttl, to, bytes })
    }

    /// Whether a router's session that was full may be written to again.
    pub(super) fn asks_for_more(&mut self, router: usize) -> bool {
        std::iter::from_fn(|| self.shards[router].poll_readable()).count() > 0
    }

    /// Lets `router` receive a best-effort message over a wire that says it comes from `source`.
    pub(super) fn forge(&mut self, router: usize, wire: usize, source: NodeId, bytes: &[u8]) {
        let header = Header {
            class: Class::BestEffort,
            ttl: 9,
            mark: false,
            protocol: Protocol::Datagram,
            destination: node(router),
            source,
            destination_port: PORT,
            source_port: PORT,
        };
        let message = [&header.to_bytes(), bytes].concat();
        self.shards[router].receive_bytes(self.now, &message, LinkId(wire as u16));
    }

    pub(super) fn put(&mut self, router: usize, record: &Record<'_>) -> Readiness {
        let mut room = vec![0; MAX_RECORD];
        let mut writer = Writer::new(&mut room);
        record.emit(&mut writer).expect("the buffer holds any record");
        self.shards[router].handle_record(self.now, SESSION, writer.written())
    }

    /// Lets time pass, in steps of a millisecond.
    pub(super) fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += Duration::from_millis(1);
            // Along the chain and back within one step: wires take no time.
            for router in (0..self.shards.len()).chain((0..self.shards.len()).rev()) {
                self.turn(router);
            }
        }
    }

    /// One turn of one router.
    pub(super) fn turn(&mut self, router: usize) {
        let (now, shard) = (self.now, &mut self.shards[router]);
        while let Some((from, mut bytes)) = self.inbound[router].pop_front() {
            shard.handle_datagram(now, from, &mut bytes);
        }
        if shard.poll_timeout().is_some_and(|(at, _)| at <= now) {
            shard.handle_timeout(now);
        }
        let mut record = vec![0; MAX_RECORD];
        while !self.unread[router]
            && let Some((session, len)) = shard.poll_deliver(now, &mut record)
        {
            self.records[router].push(record[..len].to_vec());
            shard.delivered(now, session);
        }
        let mut batch = Batch::new(64);
        shard.poll_transmit(now, &mut batch);
        shard.record_handed_over(HANDED_OVER);
        self.reports[router].extend(std::iter::from_fn(|| shard.poll_report()));
        self.sent_to.clear();
        for (transmit, bytes) in batch.iter() {
            let SocketAddr::V4(to) = transmit.to.remote else { panic!("all addresses are IPv4") };
            let to = usize::from(to.ip().octets()[3]) - 1;
            self.sent_to.push(to);
            let wire = self.wires.iter().position(|&ends| ends == (router, to) || ends == (to, router));
            if !self.cut[wire.expect("routers only know their neighbours")] {
                self.inbound[to].push_back((address(router), bytes.to_vec()));
            }
        }
    }

    /// The payloads of the datagrams that reached a router's application.
    pub(super) fn received(&self, router: usize) -> Vec<Vec<u8>> {
        let payload = |record: &Vec<u8>| match Record::parse(record) {
            Ok(Record::Datagram { bytes, .. }) => Some(bytes.to_vec()),
            _ => None,
        };
        self.records[router].iter().filter_map(payload).collect()
    }

    pub(super) fn stats(&self, router: usize) -> ShardStats {
        self.shards[router].stats(self.now)
    }

    pub(super) fn drops(&self, router: usize, reason: DropReason) -> u64 {
        self.stats(router).drops.get(reason)
    }

    /// Ups and downs of a link that a router reported, in order.
    pub(super) fn changes(&self, router: usize, wire: usize) -> Vec<bool> {
        let link = LinkId(wire as u16);
        let change = |report: &Report| match report {
            Report::LinkUp(up, ..) if *up == link => Some(true),
            Report::LinkDown(down, _) if *down == link => Some(false),
            _ => None,
        };
        self.reports[router].iter().filter_map(change).collect()
    }
}
