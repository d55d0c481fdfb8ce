//! A router of the simulation: a shard and a control, driven as runtime/ drives them.
//!
//! All times here are the router's own: its monotonic clock reads zero when it starts, and may drift.

use super::check::hops::Carried;
use super::topology::{LinkSettings, identity};
use crate::base::time::sooner;
use crate::base::{Instant, LinkId, NodeId, Rng, SessionId, WallTime};
use crate::config::settings::Config;
use crate::containers::Batch;
use crate::control::{Action, ClientId, Control, Input};
use crate::dataplane::messages::{Command, Report};
use crate::dataplane::{Shard, ShardSettings};
use crate::proto::session::Readiness;
use crate::proto::{security, session};
use crate::wire::admin::{Request, Response};
use crate::wire::client::MAX_RECORD;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Datagrams a router sends in one go.
const BATCH: usize = 64;
/// Rounds of draining after one input; more would mean that shard and control chase each other for ever.
const MAX_ROUNDS: usize = 10_000;
/// "Not now", in Linux: what a session's full descriptor says.
const EAGAIN: i32 = 11;

/// What a router does to the world outside it.
pub(super) enum Effect<'a> {
    /// A datagram leaves. An error is the kernel's.
    Transmit(SocketAddr, &'a [u8]),
    /// A record for an application. An error means that it was not taken.
    Record(SessionId, &'a [u8]),
    /// A session's descriptor may be read again.
    Readable(SessionId),
    /// An answer to a request, with a session's descriptor where one is attached.
    Response(ClientId, Response, Option<SessionId>),
    /// A session's descriptor was closed by the router.
    Detached(SessionId),
    /// The link to this router came up or went down, and control heard of it.
    Link(NodeId, bool),
}

/// Which rings between control and shard have no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rings {
    pub(super) commands: bool,
    pub(super) reports: bool,
}

/// Room for what a router gives out: one does for all, since they take turns, and it stays in the processor's cache.
pub(super) struct Desk {
    batch: Batch,
    record: Vec<u8>,
}

impl Desk {
    pub(super) fn new() -> Desk {
        Desk { batch: Batch::new(BATCH), record: vec![0; MAX_RECORD] }
    }
}

/// A shard and a control.
pub(super) struct Router {
    pub(super) shard: Shard,
    pub(super) control: Control,
    /// When control's timer is due, where that was asked since control last had anything to do: it takes long to say.
    control_due: Cell<Option<Option<Instant>>>,
    pub(super) rings: Rings,
    /// Links that were ever added: others have carried nothing, and to ask what they did takes long.
    added: BTreeSet<LinkId>,
    /// What links carried that were removed.
    removed: BTreeMap<NodeId, Carried>,
    /// Those of them that still say farewell.
    leaving: BTreeSet<LinkId>,
}

impl Router {
    /// Starts the router afresh, its monotonic clock at `now` and the wall clock at `wall`.
    pub(super) fn start(
        now: Instant,
        wall: WallTime,
        number: usize,
        config: Config,
        settings: &LinkSettings,
        rng: &mut Rng,
    ) -> Router {
        let usual = security::Settings::default();
        let security = match settings.rekey {
            None => usual,
            Some(rekey_after) => security::Settings { rekey_after, reject_after: rekey_after.mul_f64(1.5), ..usual },
        };
        let shard_settings = ShardSettings {
            identity: identity(number),
            pool: config.workers.pool,
            security,
            sessions: session::Settings::default(),
        };
        let epoch = WallTime::from_nanos(wall.as_nanos().saturating_sub(now.as_nanos()));
        let shard = Shard::new(shard_settings, epoch, rng.fork());
        let control = Control::new(now, config, identity(number), wall, "simulated".into(), rng.fork());
        Router {
            shard,
            control: control.expect("the simulator's configurations are valid"),
            control_due: Cell::new(None),
            rings: Rings::default(),
            added: BTreeSet::new(),
            removed: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.shard.handle_datagram(now, from, datagram);
    }

    /// The kernel says that nothing listens at `peer`.
    pub(super) fn handle_refused(&mut self, now: Instant, peer: NodeId, at: SocketAddr) {
        if let Some(link) = self.control.link_to(peer) {
            self.shard.handle_refused(now, link, at.into());
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.shard.handle_timeout(now);
        if self.control_due().is_some_and(|at| at <= now) {
            self.tell(now, Input::Timer);
        }
    }

    pub(super) fn handle_record(&mut self, now: Instant, session: SessionId, record: &[u8]) -> Readiness {
        self.shard.handle_record(now, session, record)
    }

    pub(super) fn request(&mut self, now: Instant, client: ClientId, request: Request) {
        self.tell(now, Input::Request { client, request });
    }

    pub(super) fn reload(&mut self, now: Instant, config: Config) {
        self.tell(now, Input::Reload(Ok(Box::new(config))));
    }

    /// Sends every neighbour a control message.
    pub(super) fn send_to_neighbours(&mut self, now: Instant, bytes: &[u8]) {
        for link in self.control.link_ids() {
            self.shard.handle_command(now, Command::SendControl(link, bytes.into()));
        }
    }

    /// Gives control something to do.
    pub(super) fn tell(&mut self, now: Instant, input: Input) {
        self.control.handle(now, input);
        self.control_due.set(None);
    }

    fn control_due(&self) -> Option<Instant> {
        let due = self.control_due.get().unwrap_or_else(|| self.control.poll_timeout().map(|(at, _)| at));
        self.control_due.set(Some(due));
        due
    }

    /// When [`Router::handle_timeout`] is due. Control's timers fire whether or not it can tell the shard.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let shard = self.shard.poll_timeout().map(|(at, _)| (at, ()));
        let control = self.control_due().map(|at| (at, ()));
        sooner(shard, control).map(|(at, ())| at)
    }

    /// Passes messages between shard and control and effects to `world` until nothing moves.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        desk: &mut Desk,
        mut world: impl FnMut(Effect<'_>) -> Result<(), i32>,
    ) {
        for _ in 0..MAX_ROUNDS {
            let mut moved = self.transmit(now, &mut desk.batch, &mut world);
            moved |= self.deliver(now, &mut desk.record, &mut world);
            if !self.rings.reports {
                moved |= self.take_reports(now, &mut world);
            }
            // A full ring holds back all that control wants done, in order.
            while !self.rings.commands
                && let Some(action) = self.control.poll_action()
            {
                self.control_due.set(None);
                self.act(now, action, &mut world);
                moved = true;
            }
            if !moved {
                return;
            }
        }
        panic!("a router does not come to rest after {MAX_ROUNDS} rounds at {now}");
    }

    fn transmit(
        &mut self,
        now: Instant,
        batch: &mut Batch,
        world: &mut impl FnMut(Effect<'_>) -> Result<(), i32>,
    ) -> bool {
        batch.clear();
        self.shard.poll_transmit(now, batch);
        for (transmit, bytes) in batch.iter() {
            if let Err(errno) = world(Effect::Transmit(transmit.to.remote, bytes)) {
                self.shard.handle_send_failed(now, transmit.link, transmit.len, errno);
            }
        }
        !batch.is_empty()
    }

    fn deliver(
        &mut self,
        now: Instant,
        record: &mut [u8],
        world: &mut impl FnMut(Effect<'_>) -> Result<(), i32>,
    ) -> bool {
        let mut moved = false;
        while let Some((session, len)) = self.shard.poll_deliver(now, record) {
            match world(Effect::Record(session, &record[..len])) {
                Ok(()) => self.shard.delivered(now, session),
                Err(_) => self.shard.blocked(now, session),
            }
            moved = true;
        }
        while let Some(session) = self.shard.poll_readable() {
            world(Effect::Readable(session)).expect("told, not asked");
            moved = true;
        }
        moved
    }

    fn take_reports(&mut self, now: Instant, world: &mut impl FnMut(Effect<'_>) -> Result<(), i32>) -> bool {
        let mut moved = false;
        while let Some(report) = self.shard.poll_report() {
            let change = match report {
                Report::LinkUp(link, ..) => Some((link, true)),
                Report::LinkDown(link, _) => Some((link, false)),
                _ => None,
            };
            if let Some((peer, up)) = change.and_then(|(link, up)| Some((self.control.neighbour(link)?, up))) {
                world(Effect::Link(peer, up)).expect("told, not asked");
            }
            self.tell(now, Input::Report { worker: 0, report });
            moved = true;
        }
        moved
    }

    fn act(&mut self, now: Instant, action: Action, world: &mut impl FnMut(Effect<'_>) -> Result<(), i32>) {
        let told = match action {
            Action::Command { worker, command } => {
                assert_eq!(worker, 0, "a simulated router has one worker");
                self.note_links(now, &command);
                self.shard.handle_command(now, command);
                Ok(())
            }
            Action::Reply { client, response } => world(Effect::Response(client, response, None)),
            Action::Attach { session, client, response, .. } => {
                let told = world(Effect::Response(client, response, Some(session)));
                // What came for the session before its descriptor did is waiting.
                self.shard.handle_writable(now, session);
                told
            }
            Action::Detach { session, .. } => world(Effect::Detached(session)),
            Action::ReadConfig | Action::Exit => Ok(()),
        };
        told.expect("told, not asked");
    }

    /// A link that is removed takes its counters with it.
    fn note_links(&mut self, now: Instant, command: &Command) {
        let (Command::AddLink(link, _) | Command::RemoveLink(link)) = command else { return };
        let known = !self.added.insert(*link);
        if known
            && !self.leaving.contains(link)
            && let Some(report) = self.shard.stats(now).links.iter().find(|report| report.link == *link)
        {
            self.removed.entry(report.peer).or_default().add(report);
        }
        match command {
            Command::RemoveLink(_) => self.leaving.insert(*link),
            _ => self.leaving.remove(link),
        };
    }

    /// What each of its links, by neighbour, carried since the router started.
    pub(super) fn carried(&self, now: Instant) -> BTreeMap<NodeId, Carried> {
        let mut carried = self.removed.clone();
        for report in self.shard.stats(now).links.iter().filter(|report| !self.leaving.contains(&report.link)) {
            carried.entry(report.peer).or_default().add(report);
        }
        carried
    }

    /// The neighbour to which its table sends what goes to `destination`.
    pub(super) fn next_hop(&self, destination: NodeId) -> Option<NodeId> {
        let link: LinkId = self.control.table().next_hop(destination)?;
        self.control.neighbour(link)
    }
}

/// A session's descriptor is full.
pub(super) const FULL: Result<(), i32> = Err(EAGAIN);

/// What a router that costs `times` as much as a fast one takes for one input.
pub(super) fn cost(times: u32) -> Duration {
    if times <= 1 { Duration::ZERO } else { Duration::from_micros(20) * times }
}
