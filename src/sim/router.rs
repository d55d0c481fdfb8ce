//! A router of the simulation: a shard and a control, driven as runtime/ drives them.

use super::topology::{LinkSettings, Topology, identity};
use crate::base::time::sooner;
use crate::base::{Instant, Rng, SessionId, WallTime};
use crate::containers::Batch;
use crate::control::{Action, ClientId, Control, Input};
use crate::dataplane::{Shard, ShardSettings};
use crate::proto::session::Readiness;
use crate::proto::{security, session};
use crate::wire::admin::{Request, Response};
use crate::wire::client::MAX_RECORD;
use std::net::SocketAddr;

/// Datagrams a router sends in one go.
const BATCH: usize = 64;
/// Rounds of draining after one input; more would mean that shard and control chase each other for ever.
const MAX_ROUNDS: usize = 10_000;

/// What a router does to the world outside it.
pub(super) enum Effect<'a> {
    /// A datagram leaves.
    Transmit(SocketAddr, &'a [u8]),
    /// A record for an application. The answer is whether it was taken.
    Record(SessionId, &'a [u8]),
    /// A session's descriptor may be read again.
    Readable(SessionId),
    /// An answer to a request, with a session's descriptor where one is attached.
    Response(ClientId, Response, Option<SessionId>),
    /// A session's descriptor was closed by the router.
    Detached(SessionId),
}

/// A shard and a control.
pub(super) struct Router {
    pub(super) shard: Shard,
    pub(super) control: Control,
    batch: Batch,
    record: Vec<u8>,
}

impl Router {
    /// Starts the router afresh. `wall` is the wall time at instant zero of the world.
    pub(super) fn start(
        now: Instant,
        wall: WallTime,
        number: usize,
        topology: &Topology,
        settings: &LinkSettings,
        rng: &mut Rng,
    ) -> Router {
        let config = topology.config(number, settings);
        let shard_settings = ShardSettings {
            identity: identity(number),
            pool: config.workers.pool,
            security: security::Settings::default(),
            sessions: session::Settings::default(),
        };
        // A restarted process has a later epoch: the wall time at which it started, less its monotonic clock.
        let shard = Shard::new(shard_settings, wall, rng.fork());
        let control = Control::new(now, config, identity(number), wall_at(wall, now), "simulated".into(), rng.fork());
        Router {
            shard,
            control: control.expect("the simulator's configurations are valid"),
            batch: Batch::new(BATCH),
            record: vec![0; MAX_RECORD],
        }
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.shard.handle_datagram(now, from, datagram);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.shard.handle_timeout(now);
        self.control.handle(now, Input::Timer);
    }

    pub(super) fn handle_record(&mut self, now: Instant, session: SessionId, record: &[u8]) -> Readiness {
        self.shard.handle_record(now, session, record)
    }

    pub(super) fn request(&mut self, now: Instant, client: ClientId, request: Request) {
        self.control.handle(now, Input::Request { client, request });
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let shard = self.shard.poll_timeout().map(|(at, _)| (at, ()));
        let control = self.control.poll_timeout().map(|(at, _)| (at, ()));
        sooner(shard, control).map(|(at, ())| at)
    }

    /// Passes messages between shard and control and effects to `world` until nothing moves. `world` says of a
    /// [`Effect::Record`] whether the application took it, and true of everything else.
    pub(super) fn settle(&mut self, now: Instant, mut world: impl FnMut(Effect<'_>) -> bool) {
        for _ in 0..MAX_ROUNDS {
            let mut moved = self.transmit(now, &mut world);
            moved |= self.deliver(now, &mut world);
            while let Some(report) = self.shard.poll_report() {
                self.control.handle(now, Input::Report { worker: 0, report });
                moved = true;
            }
            while let Some(action) = self.control.poll_action() {
                self.act(now, action, &mut world);
                moved = true;
            }
            if !moved {
                return;
            }
        }
        panic!("a router does not come to rest after {MAX_ROUNDS} rounds at {now}");
    }

    fn transmit(&mut self, now: Instant, world: &mut impl FnMut(Effect<'_>) -> bool) -> bool {
        self.batch.clear();
        self.shard.poll_transmit(now, &mut self.batch);
        for (transmit, bytes) in self.batch.iter() {
            world(Effect::Transmit(transmit.to, bytes));
        }
        !self.batch.is_empty()
    }

    fn deliver(&mut self, now: Instant, world: &mut impl FnMut(Effect<'_>) -> bool) -> bool {
        let mut moved = false;
        while let Some((session, len)) = self.shard.poll_deliver(now, &mut self.record) {
            if world(Effect::Record(session, &self.record[..len])) {
                self.shard.delivered(now, session);
            } else {
                self.shard.blocked(now, session);
            }
            moved = true;
        }
        while let Some(session) = self.shard.poll_readable() {
            world(Effect::Readable(session));
            moved = true;
        }
        moved
    }

    fn act(&mut self, now: Instant, action: Action, world: &mut impl FnMut(Effect<'_>) -> bool) {
        match action {
            Action::Command { worker, command } => {
                assert_eq!(worker, 0, "a simulated router has one worker");
                self.shard.handle_command(now, command);
            }
            Action::Reply { client, response } => {
                world(Effect::Response(client, response, None));
            }
            Action::Attach { session, client, response, .. } => {
                world(Effect::Response(client, response, Some(session)));
            }
            Action::Detach { session, .. } => {
                world(Effect::Detached(session));
            }
            Action::ReadConfig | Action::Exit => {}
        }
    }
}

/// The wall time at `now`.
fn wall_at(wall: WallTime, now: Instant) -> WallTime {
    WallTime::from_nanos(wall.as_nanos() + now.as_nanos())
}
