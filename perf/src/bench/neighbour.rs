//! A neighbour of the router under test: its lanes and a control, driven in the calling thread over real sockets.

use super::lane::{Lane, POOL};
use super::net::{BATCH, Port};
use sinew::base::worker::pick;
use sinew::base::{Class, Identity, Instant, NodeId, Rng};
use sinew::config::settings::{Config, Idle, Io, Link, Member, Metric, Offload, Routing, Telemetry, Workers};
use sinew::containers::Batch;
use sinew::control::{Action, Control, Input};
use sinew::runtime::clock;
use sinew::wire::message::{Header, Protocol};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How often timers are looked at: much finer than any of them, and cheap.
const TICK: Duration = Duration::from_micros(50);
/// What losses are drawn from.
const LOSS_SEED: u64 = 0x10_55;

/// Flows between two neighbours, each from its own port to its own port.
const FLOWS: u16 = 32;
const FIRST_PORT: u16 = 7000;
/// Hops that a message may cross.
const TTL: u8 = 8;

/// A lane over its socket.
struct Way {
    lane: Lane,
    port: Port,
    remote: SocketAddr,
}

/// The neighbour.
pub(crate) struct Neighbour {
    /// By worker.
    ways: Vec<Way>,
    control: Control,
    batch: Batch,
    ticked: Instant,
    flow: u16,
    /// Every message leaves in a datagram of its own.
    split: bool,
    /// Share of datagrams that are lost, in each direction.
    loss: f64,
    losses: Rng,
}

impl Neighbour {
    /// A neighbour with one link, over ports that are connected to the other end's: one for each worker.
    pub(crate) fn new(
        now: Instant,
        identity: &Identity,
        config: Config,
        ports: Vec<(Port, SocketAddr)>,
    ) -> io::Result<Neighbour> {
        let mut rng = clock::seeded_rng()?;
        let wall = clock::wall_time();
        let way = |(port, remote)| Way { lane: Lane::new(identity, wall, rng.fork()), port, remote };
        let ways = ports.into_iter().map(way).collect();
        let control = Control::new(now, config, identity.clone(), wall, "bench".into(), rng);
        let mut neighbour = Neighbour {
            ways,
            control: control.map_err(io::Error::other)?,
            batch: Batch::new(BATCH),
            ticked: now,
            flow: 0,
            split: false,
            loss: 0.0,
            losses: Rng::from_u64(LOSS_SEED),
        };
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

    /// Loses this share of the datagrams that come and go, at random.
    pub(crate) fn set_loss(&mut self, loss: f64) {
        self.loss = loss;
    }

    /// Bytes of the smallest receive buffer.
    pub(crate) fn buffer(&self) -> usize {
        self.ways.iter().map(|way| way.port.buffer()).min().unwrap_or(0)
    }

    /// Sends a message over the next flow; false if there is no room for it now.
    pub(crate) fn send(&mut self, now: Instant, to: NodeId, class: Class, bytes: &[u8]) -> bool {
        let port = FIRST_PORT + self.flow;
        let header = Header {
            class,
            ttl: TTL,
            mark: false,
            protocol: Protocol::Datagram,
            destination: to,
            source: self.node(),
            destination_port: port,
            source_port: port,
        };
        let place = pick(header.flow_hash(), self.ways.len());
        let sent = self.ways[place].lane.send(now, &header, bytes);
        self.flow = (self.flow + u16::from(sent)) % FLOWS;
        if sent && self.split {
            self.ways[place].lane.fill(now, &mut self.batch);
            if self.batch.is_full() || self.ways.len() > 1 {
                self.push(place);
            }
        }
        sent
    }

    /// Sends what is ready.
    pub(crate) fn flush(&mut self, now: Instant) {
        for place in 0..self.ways.len() {
            loop {
                self.ways[place].lane.fill(now, &mut self.batch);
                if self.batch.is_empty() {
                    break;
                }
                self.push(place);
            }
        }
    }

    fn push(&mut self, place: usize) {
        let Neighbour { ways, batch, losses, loss, .. } = self;
        let datagrams = batch.iter().map(|(_, bytes)| bytes);
        ways[place].port.send(datagrams.filter(|_| *loss == 0.0 || !losses.chance(*loss)));
        batch.clear();
    }

    /// Takes what has arrived and hands over the messages.
    pub(crate) fn receive(&mut self, now: Instant, arrived: &mut dyn FnMut(&[u8])) {
        let Neighbour { ways, losses, loss, .. } = self;
        for Way { lane, port, remote } in ways {
            port.receive(|datagram| {
                if *loss == 0.0 || !losses.chance(*loss) {
                    lane.handle_datagram(now, (*remote).into(), datagram, arrived);
                }
            });
        }
    }

    /// Does what is due, unless that was just done.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now.since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        self.ways.iter_mut().for_each(|way| way.lane.handle_timeout(now));
        if self.control.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.control.handle(now, Input::Timer);
        }
        self.settle(now);
    }

    /// Carries reports and commands between lanes and control. Nobody asks anything of this control, so all its actions
    /// are commands.
    fn settle(&mut self, now: Instant) {
        loop {
            for (worker, way) in self.ways.iter_mut().enumerate() {
                while let Some(report) = way.lane.reports.pop_front() {
                    self.control.handle(now, Input::Report { worker, report });
                }
            }
            let Some(action) = self.control.poll_action() else { return };
            if let Action::Command { worker, command } = action {
                self.ways[worker].lane.handle_command(now, command);
            }
        }
    }
}

/// The configuration of a neighbour called `name` with one link.
pub(crate) fn config(name: &str, listen: SocketAddr, workers: usize, members: &[Member], link: Link) -> Config {
    let workers = Workers {
        count: workers,
        io: Io::Mmsg,
        offload: Offload::Off,
        idle: Idle::Spin,
        pool: POOL,
        ..Workers::default()
    };
    Config {
        name: name.into(),
        key_file: "/nonexistent".into(),
        listen,
        control_socket: "/nonexistent".into(),
        workers,
        lock_memory: false,
        members: members.to_vec(),
        links: vec![link],
        routing: Routing { metric: Metric::Hops },
        telemetry: Telemetry::new(Path::new("/nonexistent")),
        clients: Default::default(),
        vip: None,
        groups: None,
    }
}
