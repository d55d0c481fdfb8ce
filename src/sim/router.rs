//! A router of the simulation: a shard for each worker and a control, driven as runtime/ drives them.
//!
//! All times here are the router's own: its monotonic clock reads zero when it starts, and may drift.

use super::check::hops::Carried;
use super::topology::{LinkSettings, identity};
use crate::base::{Instant, LinkId, NodeId, Rng, SessionId, WallTime, Worker};
use crate::config::settings::Config;
use crate::containers::Batch;
use crate::control::{Action, ClientId, Control, HostCommand, Input};
use crate::dataplane::messages::{Command, Report, ShardStats};
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
    /// A datagram leaves by a worker's socket. An error is the kernel's.
    Transmit(usize, SocketAddr, &'a [u8]),
    /// A record for an application. An error means that it was not taken.
    Record(SessionId, &'a [u8]),
    /// A session's descriptor may be read again.
    Readable(SessionId),
    /// An answer to a request, with a session's descriptor where one is attached.
    Response(ClientId, Response, Option<SessionId>),
    /// A session's descriptor was closed by the router.
    Detached(SessionId),
    /// The host side is to do something about service addresses.
    Host(HostCommand),
    /// The link to this router came up or went down, and control heard of it.
    Link(NodeId, bool),
    /// All neighbours are told: the process ends.
    Exit,
}

/// Which rings between threads have no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rings {
    pub(super) commands: bool,
    pub(super) reports: bool,
    pub(super) crossings: bool,
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

/// Its shards and its control.
pub(super) struct Router {
    /// By worker.
    pub(super) shards: Vec<Shard>,
    pub(super) control: Control,
    /// When control's timer is due, where that was asked since control last had anything to do: it takes long to say.
    control_due: Cell<Option<Option<Instant>>>,
    pub(super) rings: Rings,
    /// The worker of each session that has a descriptor.
    sessions: BTreeMap<SessionId, usize>,
    /// Lanes that were ever added: others have carried nothing, and to ask what they did takes long.
    added: BTreeSet<(usize, LinkId)>,
    /// What lanes carried that were removed.
    removed: BTreeMap<NodeId, Carried>,
    /// Those of them that still say farewell.
    leaving: BTreeSet<(usize, LinkId)>,
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
        let epoch = WallTime::from_nanos(wall.as_nanos().saturating_sub(now.as_nanos()));
        let workers = config.workers.count;
        let mut shard = |worker| {
            let settings = ShardSettings {
                identity: identity(number),
                worker: Worker::new(worker, workers),
                pool: config.workers.pool,
                security: security.clone(),
                sessions: session::Settings::default(),
            };
            Shard::new(settings, epoch, rng.fork())
        };
        let shards = (0..workers).map(&mut shard).collect();
        let control = Control::new(now, config, identity(number), wall, "simulated".into(), rng.fork());
        Router {
            shards,
            control: control.expect("the simulator's configurations are valid"),
            control_due: Cell::new(None),
            rings: Rings::default(),
            sessions: BTreeMap::new(),
            added: BTreeSet::new(),
            removed: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, worker: usize, from: SocketAddr, datagram: &mut [u8]) {
        self.shards[worker].handle_datagram(now, from, datagram);
    }

    /// The kernel says to a worker that nothing listens at `peer`.
    pub(super) fn handle_refused(&mut self, now: Instant, worker: usize, peer: NodeId, at: SocketAddr) {
        if let Some(link) = self.control.link_to(peer) {
            self.shards[worker].handle_refused(now, link, at.into());
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.shards.iter_mut().for_each(|shard| shard.handle_timeout(now));
        if self.control_due().is_some_and(|at| at <= now) {
            self.tell(now, Input::Timer);
        }
    }

    pub(super) fn handle_record(&mut self, now: Instant, session: SessionId, record: &[u8]) -> Readiness {
        self.shard_of(session).map_or(Readiness::Gone, |shard| shard.handle_record(now, session, record))
    }

    /// A session's application is gone.
    pub(super) fn handle_hangup(&mut self, now: Instant, session: SessionId) {
        if let Some(shard) = self.shard_of(session) {
            shard.handle_hangup(now, session);
        }
        self.sessions.remove(&session);
    }

    fn shard_of(&mut self, session: SessionId) -> Option<&mut Shard> {
        let worker = *self.sessions.get(&session)?;
        self.shards.get_mut(worker)
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
            self.shards[0].handle_command(now, Command::SendControl(link, bytes.into()));
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

    /// When [`Router::handle_timeout`] is due. Control's timers fire whether or not it can tell the shards.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let shards = self.shards.iter().filter_map(|shard| shard.poll_timeout().map(|(at, _)| at));
        shards.chain(self.control_due()).min()
    }

    /// Passes messages among shards and control and effects to `world` until nothing moves.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        desk: &mut Desk,
        mut world: impl FnMut(Effect<'_>) -> Result<(), i32>,
    ) {
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            for worker in 0..self.shards.len() {
                moved |= self.transmit(now, worker, &mut desk.batch, &mut world);
                moved |= self.deliver(now, worker, &mut desk.record, &mut world);
                if !self.rings.crossings {
                    moved |= self.cross(now, worker);
                }
                if !self.rings.reports {
                    moved |= self.take_reports(now, worker, &mut world);
                }
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
        worker: usize,
        batch: &mut Batch,
        world: &mut impl FnMut(Effect<'_>) -> Result<(), i32>,
    ) -> bool {
        batch.clear();
        let shard = &mut self.shards[worker];
        shard.poll_transmit(now, batch);
        for (transmit, bytes) in batch.iter() {
            if world(Effect::Transmit(worker, transmit.to.remote, bytes)).is_err() {
                // None of the simulator's refusals would last.
                shard.handle_send_failed(now, transmit.link, false);
            }
        }
        !batch.is_empty()
    }

    fn deliver(
        &mut self,
        now: Instant,
        worker: usize,
        record: &mut [u8],
        world: &mut impl FnMut(Effect<'_>) -> Result<(), i32>,
    ) -> bool {
        let (mut moved, shard) = (false, &mut self.shards[worker]);
        while let Some((session, len)) = shard.poll_deliver(now, record) {
            match world(Effect::Record(session, &record[..len])) {
                Ok(()) => shard.delivered(now, session),
                Err(_) => shard.blocked(now, session),
            }
            moved = true;
        }
        while let Some(session) = shard.poll_readable() {
            world(Effect::Readable(session)).expect("told, not asked");
            moved = true;
        }
        moved
    }

    /// Carries what a worker has for others.
    fn cross(&mut self, now: Instant, from: usize) -> bool {
        let mut moved = false;
        for to in 0..self.shards.len() {
            while let Some(crossing) = self.shards[from].poll_crossing(to) {
                self.shards[to].handle_crossing(now, &crossing);
                moved = true;
            }
        }
        moved
    }

    fn take_reports(
        &mut self,
        now: Instant,
        worker: usize,
        world: &mut impl FnMut(Effect<'_>) -> Result<(), i32>,
    ) -> bool {
        let mut moved = false;
        while let Some(report) = self.shards[worker].poll_report() {
            let link = match report {
                Report::LinkUp(link, ..) | Report::LinkDown(link, _) => Some(link),
                _ => None,
            };
            let state = |control: &Control| link.map(|link| control.is_up(link));
            let before = state(&self.control);
            self.tell(now, Input::Report { worker, report });
            let after = state(&self.control);
            if before != after
                && let (Some(up), Some(peer)) = (after, link.and_then(|link| self.control.neighbour(link)))
            {
                world(Effect::Link(peer, up)).expect("told, not asked");
            }
            moved = true;
        }
        moved
    }

    fn act(&mut self, now: Instant, action: Action, world: &mut impl FnMut(Effect<'_>) -> Result<(), i32>) {
        let told = match action {
            Action::Command { worker, command } => {
                self.note_links(now, worker, &command);
                self.shards[worker].handle_command(now, command);
                Ok(())
            }
            Action::Reply { client, response } => world(Effect::Response(client, response, None)),
            Action::Attach { worker, session, client, response } => {
                let other = self.sessions.insert(session, worker);
                assert_eq!(other, None, "sessions of all workers have numbers of their own");
                let told = world(Effect::Response(client, response, Some(session)));
                // What came for the session before its descriptor did is waiting.
                self.shards[worker].handle_writable(now, session);
                told
            }
            Action::Detach { session, .. } => {
                self.sessions.remove(&session);
                world(Effect::Detached(session))
            }
            Action::Host(command) => world(Effect::Host(command)),
            // The simulator's hosts carry no flows, so that none says anything.
            Action::HostHears { .. } => Ok(()),
            Action::Exit => world(Effect::Exit),
            Action::ShareMemory { .. } | Action::ReadConfig | Action::Tell { .. } => Ok(()),
        };
        told.expect("told, not asked");
    }

    /// A lane that is removed takes its counters with it, and so do all when the router ends.
    fn note_links(&mut self, now: Instant, worker: usize, command: &Command) {
        if matches!(command, Command::Shutdown) {
            let links = self.shards[worker].stats(now).links;
            for report in links.iter().filter(|report| self.leaving.insert((worker, report.link))) {
                self.removed.entry(report.peer).or_default().add(report);
            }
        }
        let (Command::AddLink(link, _) | Command::RemoveLink(link)) = command else { return };
        let lane = (worker, *link);
        let known = !self.added.insert(lane);
        if known
            && !self.leaving.contains(&lane)
            && let Some(report) = self.shards[worker].stats(now).links.iter().find(|report| report.link == *link)
        {
            self.removed.entry(report.peer).or_default().add(report);
        }
        match command {
            Command::RemoveLink(_) => self.leaving.insert(lane),
            _ => self.leaving.remove(&lane),
        };
    }

    /// What each of its links, by neighbour, carried since the router started.
    pub(super) fn carried(&self, now: Instant) -> BTreeMap<NodeId, Carried> {
        let mut carried = self.removed.clone();
        for (worker, stats) in self.stats(now).into_iter().enumerate() {
            for report in stats.links.iter().filter(|report| !self.leaving.contains(&(worker, report.link))) {
                carried.entry(report.peer).or_default().add(report);
            }
        }
        carried
    }

    /// What its shards counted, by worker.
    pub(super) fn stats(&self, now: Instant) -> Vec<ShardStats> {
        self.shards.iter().map(|shard| shard.stats(now)).collect()
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
