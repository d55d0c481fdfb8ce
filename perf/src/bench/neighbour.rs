//! A neighbour of the router under test: a lane and a control, driven in the calling thread over a real socket.

use super::lane::{Lane, POOL};
use super::net::{BATCH, Port};
use sinew::base::{Class, Identity, Instant, NodeId, Rng};
use sinew::config::settings::{Config, Idle, Io, Link, Member, Metric, Offload, Routing, Telemetry, Workers};
use sinew::containers::Batch;
use sinew::control::{Action, Control, Input};
use sinew::runtime::clock;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How often timers are looked at: much finer than any of them, and cheap.
const TICK: Duration = Duration::from_micros(50);
/// What losses are drawn from.
const LOSS_SEED: u64 = 0x10_55;

/// The neighbour.
pub(crate) struct Neighbour {
    lane: Lane,
    control: Control,
    port: Port,
    remote: SocketAddr,
    batch: Batch,
    ticked: Instant,
    /// Every message leaves in a datagram of its own.
    split: bool,
    /// Share of datagrams that are lost, in each direction.
    loss: f64,
    losses: Rng,
}

impl Neighbour {
    /// A neighbour with one link, over a port that is connected to the other end.
    pub(crate) fn new(now: Instant, identity: &Identity, config: Config, port: Port) -> io::Result<Neighbour> {
        let remote = config.links.first().and_then(|link| link.paths.first()).map(|path| path.remote);
        let remote = remote.ok_or_else(|| io::Error::other("a neighbour has one link, whose other end is known"))?;
        let mut rng = clock::seeded_rng()?;
        let wall = clock::wall_time();
        let lane = Lane::new(identity, wall, rng.fork());
        let control = Control::new(now, config, identity.clone(), wall, "bench".into(), rng);
        let mut neighbour = Neighbour {
            lane,
            control: control.map_err(io::Error::other)?,
            port,
            remote,
            batch: Batch::new(BATCH),
            ticked: now,
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

    /// Bytes of its receive buffer.
    pub(crate) fn buffer(&self) -> usize {
        self.port.buffer()
    }

    /// Sends a message over the next flow; false if there is no room for it now.
    pub(crate) fn send(&mut self, now: Instant, to: NodeId, class: Class, bytes: &[u8]) -> bool {
        let sent = self.lane.send(now, to, class, bytes);
        if sent && self.split {
            self.lane.fill(now, &mut self.batch);
            if self.batch.is_full() {
                self.push();
            }
        }
        sent
    }

    /// Sends what is ready.
    pub(crate) fn flush(&mut self, now: Instant) {
        loop {
            self.lane.fill(now, &mut self.batch);
            if self.batch.is_empty() {
                return;
            }
            self.push();
        }
    }

    fn push(&mut self) {
        let Neighbour { port, batch, losses, loss, .. } = self;
        port.send(batch.iter().map(|(_, bytes)| bytes).filter(|_| *loss == 0.0 || !losses.chance(*loss)));
        batch.clear();
    }

    /// Takes what has arrived and hands over the messages.
    pub(crate) fn receive(&mut self, now: Instant, arrived: &mut dyn FnMut(&[u8])) {
        let Neighbour { lane, port, losses, loss, remote, .. } = self;
        port.receive(|datagram| {
            if *loss == 0.0 || !losses.chance(*loss) {
                lane.handle_datagram(now, (*remote).into(), datagram, arrived);
            }
        });
    }

    /// Does what is due, unless that was just done.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now.since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        self.lane.handle_timeout(now);
        if self.control.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.control.handle(now, Input::Timer);
        }
        self.settle(now);
    }

    /// Carries reports and commands between lane and control. Nobody asks anything of this control, so all its actions
    /// are commands.
    fn settle(&mut self, now: Instant) {
        loop {
            while let Some(report) = self.lane.reports.pop_front() {
                self.control.handle(now, Input::Report { worker: 0, report });
            }
            let Some(action) = self.control.poll_action() else { return };
            if let Action::Command { command, .. } = action {
                self.lane.handle_command(now, command);
            }
        }
    }
}

/// The configuration of a neighbour called `name` with one link.
pub(crate) fn config(name: &str, listen: SocketAddr, members: &[Member], link: Link) -> Config {
    Config {
        name: name.into(),
        key_file: "/nonexistent".into(),
        listen,
        control_socket: "/nonexistent".into(),
        workers: Workers { io: Io::Mmsg, offload: Offload::Off, idle: Idle::Spin, pool: POOL, ..Workers::default() },
        lock_memory: false,
        members: members.to_vec(),
        links: vec![link],
        routing: Routing { metric: Metric::Hops },
        telemetry: Telemetry::new(Path::new("/nonexistent")),
        clients: Default::default(),
        vip: None,
    }
}
