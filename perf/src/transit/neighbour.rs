//! A neighbour of the router under test: a shard and a control, driven in the calling thread over a real socket.

use crate::net::{BATCH, Port};
use sinew::base::{Class, Identity, Instant, NodeId, SessionId};
use sinew::config::settings::{Config, Idle, Io, Link, Member, Metric, Offload, Routing, Workers};
use sinew::containers::Batch;
use sinew::control::{Action, Control, Input};
use sinew::dataplane::messages::{Command, SessionKind};
use sinew::dataplane::{Shard, ShardSettings};
use sinew::proto::session::Readiness;
use sinew::proto::{security, session};
use sinew::runtime::clock;
use sinew::wire::client::{Endpoint, MAX_RECORD, Record};
use sinew::wire::cursor::Writer;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Flows between the neighbours, each from its own port to its own port.
pub(crate) const FLOWS: u16 = 32;
const FIRST_PORT: u16 = 7000;
/// Enough that neither end is what a reliable flow waits for.
const POOL: usize = 1 << 15;
/// How often timers are looked at: much finer than any of them, and cheap.
const TICK: Duration = Duration::from_micros(50);

/// The neighbour.
pub(crate) struct Neighbour {
    shard: Shard,
    control: Control,
    port: Port,
    remote: SocketAddr,
    batch: Batch,
    record: Vec<u8>,
    ticked: Instant,
    /// Flows whose session takes records.
    ready: Vec<bool>,
    /// What to do with the next message: its flow.
    flow: u16,
    /// Every message leaves in a datagram of its own.
    split: bool,
}

impl Neighbour {
    /// A neighbour with one link, over a port that is connected to the other end.
    pub(crate) fn new(now: Instant, identity: &Identity, config: Config, port: Port) -> io::Result<Neighbour> {
        let remote = config.links.first().and_then(|link| link.remote);
        let remote = remote.ok_or_else(|| io::Error::other("a neighbour has one link, whose other end is known"))?;
        let mut rng = clock::seeded_rng()?;
        let settings = ShardSettings {
            identity: identity.clone(),
            pool: POOL,
            security: security::Settings::default(),
            sessions: session::Settings::default(),
        };
        let wall = clock::wall_time();
        let shard = Shard::new(settings, wall, rng.fork());
        let control = Control::new(now, config, identity.clone(), wall, "bench".into(), rng);
        let control = control.map_err(io::Error::other)?;
        let mut neighbour = Neighbour {
            shard,
            control,
            port,
            remote,
            batch: Batch::new(BATCH),
            record: vec![0; MAX_RECORD],
            ticked: now,
            ready: vec![true; usize::from(FLOWS)],
            flow: 0,
            split: false,
        };
        for flow in 0..FLOWS {
            let kind = SessionKind::Datagram { port: FIRST_PORT + flow };
            neighbour.shard.handle_command(now, Command::OpenSession(session_of(flow), kind));
        }
        neighbour.settle(now);
        Ok(neighbour)
    }

    /// Its id.
    pub(crate) fn node(&self) -> NodeId {
        self.control.node()
    }

    /// Whether it has a route to `node`.
    pub(crate) fn reaches(&self, node: NodeId) -> bool {
        self.control.reachable().contains(&node)
    }

    /// Whether every message leaves in a datagram of its own.
    pub(crate) fn set_split(&mut self, split: bool) {
        self.split = split;
    }

    /// Bytes of its receive buffer.
    pub(crate) fn buffer(&self) -> usize {
        self.port.buffer()
    }

    /// Sends a message over the next flow that takes one; false if none does.
    pub(crate) fn send(&mut self, now: Instant, to: NodeId, class: Class, bytes: &[u8]) -> bool {
        let turn = (0..FLOWS).map(|step| (self.flow + step) % FLOWS).find(|&flow| self.ready[usize::from(flow)]);
        let Some(flow) = turn else { return false };
        self.flow = (flow + 1) % FLOWS;
        let to = Endpoint { node: to, port: FIRST_PORT + flow };
        let mut writer = Writer::new(&mut self.record);
        let written = Record::Send { class, ordered: false, ttl: 0, to, bytes }.emit(&mut writer);
        assert!(written.is_ok(), "a record fits the largest record");
        let readiness = self.shard.handle_record(now, session_of(flow), writer.written());
        self.ready[usize::from(flow)] = readiness == Readiness::Ready;
        if self.split {
            self.shard.poll_transmit(now, &mut self.batch);
            if self.batch.is_full() {
                self.push();
            }
        }
        true
    }

    /// Sends what is ready.
    pub(crate) fn flush(&mut self, now: Instant) {
        loop {
            self.shard.poll_transmit(now, &mut self.batch);
            if self.batch.is_empty() {
                return;
            }
            self.push();
        }
    }

    fn push(&mut self) {
        self.port.send(self.batch.iter().map(|(_, bytes)| bytes));
        self.batch.clear();
    }

    /// Takes what has arrived and hands over the messages.
    pub(crate) fn receive(&mut self, now: Instant, arrived: &mut dyn FnMut(&[u8])) {
        let (shard, remote) = (&mut self.shard, self.remote);
        self.port.receive(|datagram| shard.handle_datagram(now, remote, datagram));
        while let Some((session, len)) = self.shard.poll_deliver(now, &mut self.record) {
            if let Ok(Record::Datagram { bytes, .. }) = Record::parse(&self.record[..len]) {
                arrived(bytes);
            }
            self.shard.delivered(now, session);
        }
        while let Some(session) = self.shard.poll_readable() {
            if let Some(ready) = self.ready.get_mut(session.0 as usize) {
                *ready = true;
            }
        }
    }

    /// Does what is due, unless that was just done.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now.since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        if self.shard.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.shard.handle_timeout(now);
        }
        if self.control.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.control.handle(now, Input::Timer);
        }
        self.settle(now);
    }

    /// Carries reports and commands between shard and control. Nobody asks anything of this control, so all its actions
    /// are commands.
    fn settle(&mut self, now: Instant) {
        loop {
            while let Some(report) = self.shard.poll_report() {
                self.control.handle(now, Input::Report { worker: 0, report });
            }
            let Some(action) = self.control.poll_action() else { return };
            if let Action::Command { command, .. } = action {
                self.shard.handle_command(now, command);
            }
        }
    }
}

fn session_of(flow: u16) -> SessionId {
    SessionId(u64::from(flow))
}

/// The configuration of a neighbour called `name` with one link.
pub(crate) fn config(name: &str, listen: SocketAddr, members: &[Member], link: Link) -> Config {
    Config {
        name: name.into(),
        key_file: "/nonexistent".into(),
        listen,
        control_socket: "/nonexistent".into(),
        workers: Workers {
            count: 1,
            cores: Vec::new(),
            io: Io::Mmsg,
            offload: Offload::Off,
            idle: Idle::Spin,
            pool: POOL,
            socket_buffer: 4 << 20,
        },
        members: members.to_vec(),
        links: vec![link],
        routing: Routing { metric: Metric::Hops },
    }
}
