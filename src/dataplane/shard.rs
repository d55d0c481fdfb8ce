//! The shard: security, links, forwarding and sessions composed.

use super::crossing::{Crossing, Crossings, Errand};
use super::lane::{FAREWELL, Lane, Lanes};
use super::messages::{Command, LinkSpec, PathSpec, Report, ShardStats};
use super::stranded::Stranded;
use crate::base::limits::{DEFAULT_TTL, MAX_LINKS, MAX_MESSAGE, POOL_SLOT};
use crate::base::sabotage::{Rule, broken};
use crate::base::time::sooner;
use crate::base::{AddressPair, Class, Identity, Instant, LinkId, NodeId, Obstacle, Rng, SessionId, WallTime, Worker};
use crate::containers::batch::Transmit;
use crate::containers::pool::Urgency;
use crate::containers::{Batch, Packet, Pool};
use crate::forwarding::{Table, Verdict, forward};
use crate::proto::link::{self, Delivery, Link, LinkStats, Waited};
use crate::proto::security::{self, Received, Security};
use crate::proto::session::{self, Readiness, Sessions};
use crate::telemetry::{DropReason, Drops, Histogram, Summary};
use crate::wire::datagram;
use crate::wire::frame::CloseReason;
use crate::wire::message::{self, Header, Protocol};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Messages taken from sessions in one call of [`Shard::poll_transmit`], so that a greedy application cannot starve the
/// links of their acknowledgements.
const ORIGINATE_BUDGET: usize = 256;

/// Lanes that go before others in a batch, at most: more messages than these take make a batch whose order nobody feels.
const LADEN: usize = 8;
/// Of the pool, messages on their way through this router leave one part in this many free, and messages that begin here
/// one in twice as many. A router whose pool is full can take nothing in, not even to drop it; two such neighbours whose
/// messages wait for each other would wait for ever.
const FREE_FOR_TAKING_IN: usize = 8;
/// Reports waiting for control. Beyond it control messages, measurements and what only people read are dropped and counted
/// (routing asks for its messages again when it next compares databases), and a link's change of state, or of address,
/// takes the place of the one before, so that a neighbour cannot fill memory with ups, downs and moves. Reports of sessions
/// are as many as control and sessions allow.
const MAX_REPORTS: usize = 4096;

/// What a shard is made of.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// The router.
    pub identity: Identity,
    /// Which of its workers.
    pub worker: Worker,
    /// Slots of the packet pool.
    pub pool: usize,
    /// Security.
    pub security: security::Settings,
    /// Sessions.
    pub sessions: session::Settings,
}

/// Everything that happens to a packet inside one worker.
pub struct Shard {
    node: NodeId,
    worker: Worker,
    table: Arc<Table>,
    pool: Pool,
    security: Security,
    lanes: Lanes,
    /// Where the next round of transmission starts, so that no lane is always last.
    first_lane: usize,
    /// The first lanes that were given messages since the last batch: these leave before acknowledgements, hellos and
    /// the like of other lanes.
    laden: Vec<LinkId>,
    /// The last batch was full: while there is always more, each lane has its turn.
    crowded: bool,
    sessions: Sessions,
    /// Room for one message that ends here.
    body: Box<[u8]>,
    stranded: Stranded,
    /// What waits to go to other workers, and whether sessions wait because that is much.
    crossings: Crossings,
    sessions_wait: bool,
    reports: VecDeque<Report>,
    readable: VecDeque<SessionId>,
    rng: Rng,
    /// Datagrams of the latest [`Shard::poll_transmit`] that carry messages: their link, and what those waited.
    leaving: Vec<(LinkId, Waited)>,
    counts: Counts,
}

/// What the shard itself counts.
#[derive(Debug, Default)]
struct Counts {
    datagrams_in: u64,
    datagrams_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    forwarded: u64,
    delivered: u64,
    originated: u64,
    opened: u64,
    handshakes: u64,
    strays: u64,
    received: u64,
    returned: u64,
    handed: u64,
    crossed_in: u64,
    crossed_out: u64,
    crossing_peak: usize,
    datagram_drops: Drops,
    message_drops: Drops,
    /// Neither of a datagram nor of a message on its way.
    other_drops: Drops,
    pool_peak: usize,
    stranded_peak: usize,
    reports_peak: usize,
    turn: Histogram,
    socket_wait: Histogram,
}

impl Shard {
    /// A shard without links or sessions. `epoch` is the wall time at instant zero.
    pub fn new(settings: ShardSettings, epoch: WallTime, mut rng: Rng) -> Shard {
        let node = settings.identity.public().node_id();
        Shard {
            node,
            worker: settings.worker,
            table: Arc::new(Table::empty(node)),
            pool: Pool::new(settings.pool),
            security: Security::new(settings.identity, settings.security, epoch, rng.fork()),
            lanes: Lanes::new(),
            first_lane: 0,
            laden: Vec::with_capacity(LADEN),
            crowded: false,
            sessions: Sessions::new(node, settings.worker, settings.sessions, rng.fork()),
            body: vec![0; POOL_SLOT].into_boxed_slice(),
            stranded: Stranded::new(settings.pool / 4),
            crossings: Crossings::new(settings.worker.count, settings.pool),
            sessions_wait: false,
            reports: VecDeque::new(),
            readable: VecDeque::new(),
            rng,
            leaving: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// A datagram from the network; it is opened in place.
    pub fn handle_datagram(&mut self, now: Instant, from: impl Into<AddressPair>, datagram: &mut [u8]) {
        let from = from.into();
        self.counts.datagrams_in += 1;
        self.counts.bytes_in += datagram.len() as u64;
        let received = self.security.handle_datagram(now, from, datagram);
        // Events come first: this very packet may be the one that starts its link anew.
        self.drain_security(now);
        match received {
            Received::Packet { link, number, plaintext } => {
                let Some(state) = self.lanes.link_mut(link) else {
                    self.counts.strays += 1;
                    return;
                };
                self.counts.opened += 1;
                let attached = state.is_attached();
                state.handle_packet(now, from, number, datagram.len(), &datagram[plaintext], &mut self.pool);
                if attached && !state.is_attached() && self.lanes.gone_at(link).is_none() {
                    self.security.left(now, link);
                }
                self.drain_lane(now, link);
            }
            Received::Handshake => self.counts.handshakes += 1,
            Received::Dropped(reason) => {
                self.counts.datagram_drops.count(reason);
                if let Some(stranger) = self.security.take_stranger() {
                    self.report(Report::Stranger(stranger));
                }
            }
        }
    }

    /// A datagram from the network that its driver could not hand over.
    pub const fn handle_dropped(&mut self, reason: DropReason) {
        self.counts.datagrams_in += 1;
        self.counts.datagram_drops.count(reason);
    }

    /// The kernel says that nothing listens at the link's other end.
    pub fn handle_refused(&mut self, now: Instant, link: LinkId, path: AddressPair) {
        self.security.suspect(now, link, Obstacle::Refused);
        if let Some(state) = self.link_mut(link) {
            state.handle_refused(now, path);
            self.drain_lane(now, link);
        }
    }

    /// An ICMP message answers a datagram that did not leave by a link's own socket: `to` cannot be reached, or, if
    /// `refused`, nothing listens there. Links that have keys do not believe it.
    pub fn handle_unreachable(&mut self, now: Instant, to: SocketAddr, refused: bool) {
        let obstacle = if refused { Obstacle::Refused } else { Obstacle::Unreachable };
        self.security.suspect_at(now, to, obstacle);
    }

    /// The kernel refused to send a datagram: counted; recovery treats it as lost on the way. `lasting` if it would be
    /// refused again, whatever its length.
    pub fn handle_send_failed(&mut self, now: Instant, link: Option<LinkId>, lasting: bool) {
        self.counts.other_drops.count(DropReason::SendFailed);
        if let Some(link) = link.filter(|_| lasting) {
            self.security.suspect(now, link, Obstacle::NotSent);
        }
    }

    /// A record from an application.
    pub fn handle_record(&mut self, now: Instant, session: SessionId, record: &[u8]) -> Readiness {
        let readiness = self.sessions.handle_record(now, session, record, &mut self.pool);
        self.drain_sessions();
        readiness
    }

    /// Whether a record of the session may be read; if not, read no more until [`Shard::poll_readable`] names it.
    pub fn may_read(&mut self, session: SessionId) -> bool {
        self.sessions.may_read(session)
    }

    /// How often a session was not read because all sessions together hold as many waiting records as they may.
    pub const fn held_back(&self) -> u64 {
        self.sessions.held_back()
    }

    /// The session's descriptor takes records again.
    pub fn handle_writable(&mut self, now: Instant, session: SessionId) {
        self.sessions.handle_writable(now, session);
    }

    /// The application closed its end.
    pub fn handle_hangup(&mut self, now: Instant, session: SessionId) {
        self.sessions.close(now, session, &mut self.pool);
        self.drain_sessions();
    }

    /// The application wrote nonsense into the memory that it shares with its driver: counted, and its session ends.
    pub fn handle_nonsense(&mut self, now: Instant, session: SessionId) {
        self.counts.other_drops.count(DropReason::BadMemory);
        self.handle_hangup(now, session);
    }

    /// A command from control.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::AddLink(link, spec) => self.add_link(now, link, *spec),
            Command::SetPaths(link, paths) => self.set_paths(now, link, &paths),
            Command::AskLink(link) => {
                self.lanes.use_it(link);
                self.security.ask(now, link);
            }
            Command::Suspect(link) => {
                if let Some(state) = self.link_mut(link) {
                    state.handle_ended(now);
                    self.drain_lane(now, link);
                }
            }
            Command::CarrierLost(addresses) => self.lose_carrier(now, &addresses),
            Command::RemoveLink(link) => self.close_lane(now, link, CloseReason::Removed),
            Command::InstallTable(_) if broken(Rule::TableSwap) && self.table.generation() > 0 => {}
            Command::InstallTable(table) => self.install(now, table),
            Command::SendControl(link, bytes) => self.send_control(now, link, &bytes),
            Command::SendFar(to, bytes) => self.send_far(now, to, &bytes),
            Command::OpenSession(id, kind) => {
                let report = match self.sessions.open(now, id, kind) {
                    Ok(port) => Report::SessionOpened(id, port),
                    Err(refusal) => Report::SessionRefused(id, refusal),
                };
                self.report(report);
            }
            Command::CloseSession(id) => self.sessions.close(now, id, &mut self.pool),
            Command::AcceptStream(id) => self.sessions.accept(now, id),
            Command::QueryStats => {
                let stats = Box::new(self.counted(now));
                self.report(Report::Stats(stats));
            }
            Command::QuerySessions => {
                let sessions = self.sessions.reports().collect();
                self.report(Report::Sessions(sessions));
            }
            Command::Shutdown => {
                let mut at = 0;
                while let Some(link) = self.lanes.nth(at) {
                    self.close_lane(now, link, CloseReason::Shutdown);
                    at += 1;
                }
            }
        }
        self.drain_sessions();
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.security.handle_timeout(now);
        self.drain_security(now);
        let mut at = 0;
        while let Some(link) = self.lanes.nth(at) {
            if self.lanes.gone_at(link).is_some_and(|at| at <= now) {
                self.forget_lane(now, link);
                continue;
            }
            if self.lanes.link_deadline(link).is_some_and(|at| at <= now) {
                self.lanes.link_mut(link).expect("it lives").handle_timeout(now, &mut self.pool);
                self.drain_lane(now, link);
            }
            at += 1;
        }
        self.sessions.handle_timeout(now, &mut self.pool);
        self.drain_sessions();
        while let Some(packet) = self.stranded.pop_expired(now) {
            self.discard(packet, DropReason::LinkDown);
        }
    }

    /// Adds datagrams to `batch` until it is full or nothing is ready.
    pub fn poll_transmit(&mut self, now: Instant, batch: &mut Batch) {
        self.leaving.clear();
        self.originate(now);
        let Shard { security, lanes, counts, .. } = self;
        while batch.push_with(|slot| {
            let (link, to, len) = security.poll_transmit(now, slot)?;
            counts.datagrams_out += 1;
            counts.bytes_out += len as u64;
            let up = link.and_then(|link| lanes.get(link)).is_some_and(|lane| lane.link().is_up_by(to));
            Some(Transmit { link, to, up, len })
        }) {}
        if !self.laden.is_empty() {
            self.transmit_laden(now, batch);
        }
        let lanes = self.lanes.len();
        for turn in 0..lanes {
            let link = self.lanes.nth((self.first_lane + turn) % lanes).expect("so many live");
            self.transmit_lane(now, link, batch);
        }
        self.first_lane = (self.first_lane + 1) % lanes.max(1);
        self.crowded = batch.is_full();
    }

    /// The next record for an application, written into `record`; [`Shard::delivered`] or [`Shard::blocked`] must
    /// follow.
    pub fn poll_deliver(&mut self, now: Instant, record: &mut [u8]) -> Option<(SessionId, usize)> {
        self.sessions.poll_deliver(now, &mut self.pool, record)
    }

    /// The record was written to the session's descriptor.
    pub fn delivered(&mut self, now: Instant, session: SessionId) {
        self.sessions.delivered(now, session, &mut self.pool);
        self.drain_sessions();
    }

    /// The session's descriptor is full; [`Shard::handle_writable`] will follow.
    pub fn blocked(&mut self, now: Instant, session: SessionId) {
        self.sessions.blocked(now, session);
    }

    /// The next message for another worker.
    pub fn poll_crossing(&mut self, worker: usize) -> Option<Crossing> {
        let crossing = self.crossings.pop(worker, &mut self.pool)?;
        self.counts.crossed_out += 1;
        Some(crossing)
    }

    /// Whether a message waits to go to that worker.
    pub fn has_crossing(&self, worker: usize) -> bool {
        self.crossings.waits_for(worker)
    }

    /// Whether sessions have more to send, and did not because much waited to go to other workers: call
    /// [`Shard::poll_transmit`] again when less does.
    pub const fn sessions_wait(&self) -> bool {
        self.sessions_wait
    }

    /// A message from another worker of this router.
    pub fn handle_crossing(&mut self, now: Instant, crossing: &Crossing) {
        self.counts.crossed_in += 1;
        let message = crossing.message();
        let header = Header::parse(message).expect("only messages with a header cross");
        match crossing.errand {
            Errand::Deliver => {
                self.counts.delivered += 1;
                self.sessions.handle_message(now, &header, &message[message::HEADER_LEN..], &mut self.pool);
                self.drain_sessions();
            }
            Errand::Send(_) if self.has_less_free_than(FREE_FOR_TAKING_IN) => {
                self.counts.message_drops.count(DropReason::PoolExhausted);
            }
            Errand::Send(link) => match self.pool.copy_in(Urgency::Reserved, message) {
                Some(packet) => self.send(now, link, packet, &header),
                None => self.counts.message_drops.count(DropReason::PoolExhausted),
            },
        }
    }

    /// The next report for control.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// The next session whose descriptor may be read again.
    pub fn poll_readable(&mut self) -> Option<SessionId> {
        self.readable.pop_front()
    }

    /// When [`Shard::handle_timeout`] must be called, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let mut next = self.security.poll_timeout().map(|(at, _)| (at, "security"));
        next = sooner(next, self.lanes.deadline());
        next = sooner(next, self.sessions.poll_timeout().map(|(at, _)| (at, "session")));
        sooner(next, self.stranded.deadline().map(|at| (at, "stranded")))
    }

    /// Counts the busy part of a turn of the driver's loop.
    pub fn record_turn(&mut self, duration: Duration) {
        self.counts.turn.record(duration);
        self.note_peaks();
    }

    /// Datagrams waited so long between their arrival at the kernel and the worker: of this link, if they came by its own
    /// socket.
    pub fn record_socket_wait(&mut self, link: Option<LinkId>, waited: Duration, datagrams: u64) {
        match link {
            Some(link) => self.lanes.note(link, |link| link.note_socket_wait(waited, datagrams)),
            None => self.counts.socket_wait.record_several(waited, datagrams),
        }
    }

    /// What the latest [`Shard::poll_transmit`] gave was handed to the kernel, so long after the time it was called with.
    pub fn record_handed_over(&mut self, after: Duration) {
        for (link, waited) in self.leaving.drain(..) {
            let stays = Class::ALL.into_iter().zip(waited);
            self.lanes.note(link, |link| {
                stays.for_each(|(class, stay)| {
                    stay.into_iter().for_each(|stay| link.note_residence(class, stay + after))
                });
            });
        }
    }

    /// What the shard counted so far.
    pub fn stats(&self, now: Instant) -> ShardStats {
        let (turn, socket_wait) = (self.counts.turn.summary(), self.counts.socket_wait.summary());
        ShardStats { turn, socket_wait, ..self.figures(now, Link::stats) }
    }

    /// The same with counts in place of summaries, which take longer: [`ShardStats::summarise`] makes one of the other.
    pub fn counted(&self, now: Instant) -> ShardStats {
        let counts = [&self.counts.turn, &self.counts.socket_wait].map(Histogram::counts);
        ShardStats { counts: Some(counts), ..self.figures(now, Link::counted) }
    }

    fn figures(&self, now: Instant, of_link: fn(&Link) -> LinkStats) -> ShardStats {
        let counts = &self.counts;
        let mut drops = counts.other_drops.clone();
        for more in [&counts.datagram_drops, &counts.message_drops, self.sessions.drops()] {
            drops.merge(more);
        }
        let report = |(link, lane): (_, &Lane)| lane.report(now, link, of_link(lane.link()));
        ShardStats {
            datagrams_in: counts.datagrams_in,
            datagrams_out: counts.datagrams_out,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            opened: counts.opened,
            handshakes: counts.handshakes,
            strays: counts.strays,
            datagram_drops: counts.datagram_drops.clone(),
            received: counts.received,
            originated: counts.originated,
            returned: counts.returned,
            delivered: counts.delivered,
            handed: counts.handed,
            forwarded: counts.forwarded,
            crossed_in: counts.crossed_in,
            crossed_out: counts.crossed_out,
            crossing: self.crossings.len(),
            crossing_peak: counts.crossing_peak.max(self.crossings.longest()),
            stranded: self.stranded.len(),
            message_drops: counts.message_drops.clone(),
            drops,
            pool: (self.pool.in_use(), self.pool.capacity()),
            pool_peak: counts.pool_peak.max(self.pool.in_use()),
            stranded_peak: counts.stranded_peak.max(self.stranded.len()),
            reports_waiting: self.reports.len(),
            reports_peak: counts.reports_peak,
            driver: None,
            turn: Summary::default(),
            socket_wait: Summary::default(),
            counts: None,
            security: self.security.stats().clone(),
            links: self.lanes.iter().filter(|(_, lane)| lane.used()).map(report).collect(),
            sessions: self.sessions.reports().collect(),
        }
    }

    /// How many messages were dropped for `reason` between links and sessions.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.counts.message_drops.get(reason)
    }

    /// Slots of the packet pool in use.
    pub fn pool_in_use(&self) -> usize {
        self.pool.in_use()
    }

    /// Bytes and number of the datagrams made so far.
    pub const fn sent(&self) -> (u64, u64) {
        (self.counts.bytes_out, self.counts.datagrams_out)
    }

    /// What is held in bounded places, and the bounds, for checkers. Of links the fullest of each sort.
    pub fn holdings(&self) -> Vec<(&'static str, usize, usize)> {
        let mut all = vec![
            ("packets", self.pool.in_use(), self.pool.capacity()),
            ("stranded messages", self.stranded.len(), self.stranded.capacity()),
            ("messages for another worker", self.crossings.longest(), self.crossings.capacity()),
            ("control messages for control", self.waiting_control(), MAX_REPORTS),
        ];
        all.extend(self.lanes.iter().flat_map(|(_, lane)| lane.link().holdings()));
        all.extend(self.sessions.holdings());
        all
    }

    fn waiting_control(&self) -> usize {
        self.reports.iter().filter(|report| is_optional(report)).count()
    }

    fn note_peaks(&mut self) {
        self.counts.pool_peak = self.counts.pool_peak.max(self.pool.in_use());
        self.counts.stranded_peak = self.counts.stranded_peak.max(self.stranded.len());
        self.counts.crossing_peak = self.counts.crossing_peak.max(self.crossings.longest());
    }

    fn link_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        self.lanes.link_mut(link)
    }

    fn poll_lane<T>(&mut self, link: LinkId, take: impl FnOnce(&mut Link) -> Option<T>) -> Option<T> {
        self.lanes.poll(link, take)
    }

    fn add_link(&mut self, now: Instant, link: LinkId, spec: LinkSpec) {
        assert!(link.index() < MAX_LINKS, "control numbers links below the limit");
        if self.lanes.get(link).is_some() {
            self.close_lane(now, link, CloseReason::Removed);
            self.forget_lane(now, link);
        }
        self.security.add_peer(now, link, spec.peer, spec.preshared_key, &pairs(&spec.paths));
        if !spec.asks {
            self.security.hold(link);
        }
        let state = Link::new(now, spec.settings, &spec.paths, self.rng.fork());
        self.lanes.insert(link, Lane::new(state, spec.peer.node_id(), spec.asks));
        self.drain_security(now);
    }

    fn lose_carrier(&mut self, now: Instant, addresses: &[IpAddr]) {
        for at in 0..self.lanes.len() {
            let link = self.lanes.nth(at).expect("so many live");
            if let Some(state) = self.link_mut(link) {
                state.handle_carrier_lost(now, addresses);
                self.drain_lane(now, link);
            }
        }
    }

    fn set_paths(&mut self, now: Instant, link: LinkId, paths: &[PathSpec]) {
        if let Some(state) = self.lanes.link_mut(link) {
            state.set_paths(now, paths);
            self.security.set_paths(link, &pairs(paths));
            self.drain_lane(now, link);
        }
    }

    fn close_lane(&mut self, now: Instant, link: LinkId, reason: CloseReason) {
        let Some(state) = self.link_mut(link) else { return };
        state.close(now, reason);
        self.security.leave(link);
        if reason == CloseReason::Removed {
            self.lanes.go(link, now + FAREWELL);
        }
        self.drain_lane(now, link);
    }

    fn forget_lane(&mut self, now: Instant, link: LinkId) {
        if let Some(state) = self.link_mut(link) {
            state.detach(now);
        }
        self.drain_lane(now, link);
        self.lanes.remove(link);
        self.security.remove_peer(link);
    }

    fn install(&mut self, now: Instant, table: Arc<Table>) {
        assert_eq!(table.node(), self.node, "a shard gets its own router's tables");
        self.table = table;
        self.retry_stranded(now);
        self.sessions.handle_table_change(now);
    }

    /// Sends stranded messages on their way again. What still has no way waits on, for the rest of its time.
    fn retry_stranded(&mut self, now: Instant) {
        for _ in 0..self.stranded.len() {
            let Some((deadline, packet)) = self.stranded.pop() else { break };
            let header = Header::parse(self.pool.bytes(&packet)).expect("only messages with a header strand");
            let waits = match forward(&self.table, &header) {
                Verdict::Drop(reason) => reason == DropReason::NoRoute,
                // The table may still name the link that is down.
                Verdict::Via(link, lane, _) if lane == self.worker.index => {
                    self.lanes.get(link).is_none_or(|lane| !lane.link().is_up())
                }
                Verdict::Via(..) | Verdict::Local(_) => false,
            };
            if waits {
                self.stranded.keep(deadline, packet);
            } else {
                self.route(now, packet, &header, None);
            }
        }
    }

    fn send_control(&mut self, now: Instant, link: LinkId, bytes: &[u8]) {
        let Some(state) = self.lanes.link_mut(link) else { return };
        if !state.send_control(now, bytes, &mut self.pool) {
            self.counts.other_drops.count(DropReason::ControlRefused);
        }
    }

    /// Sends a message of this router's control thread on its way, as a session's would be.
    fn send_far(&mut self, now: Instant, to: NodeId, bytes: &[u8]) {
        let header = Header {
            class: Class::Reliable,
            ttl: DEFAULT_TTL,
            mark: false,
            protocol: Protocol::Control,
            destination: to,
            source: self.node,
            destination_port: 0,
            source_port: 0,
        };
        let mut message = [0; MAX_MESSAGE];
        let len = message::HEADER_LEN + bytes.len();
        assert!(len <= MAX_MESSAGE, "control sends no more than a message holds");
        message[..message::HEADER_LEN].copy_from_slice(&header.to_bytes());
        message[message::HEADER_LEN..len].copy_from_slice(bytes);
        self.counts.originated += 1;
        let room = !self.has_less_free_than(2 * FREE_FOR_TAKING_IN);
        match room.then(|| self.pool.copy_in(Urgency::Ordinary, &message[..len])).flatten() {
            Some(packet) => self.route(now, packet, &header, None),
            None => self.counts.message_drops.count(DropReason::PoolExhausted),
        }
    }

    fn drain_security(&mut self, now: Instant) {
        while let Some(event) = self.security.poll_event() {
            match event {
                security::Event::Established { link, from, fresh } => {
                    self.lanes.use_it(link);
                    if let Some(state) = self.link_mut(link) {
                        state.attach(now, from, fresh);
                        self.drain_lane(now, link);
                    }
                }
                security::Event::Obstructed { link, obstacle } => {
                    self.report(Report::LinkObstructed(link, obstacle));
                }
                security::Event::Expired { link } => {
                    if let Some(state) = self.link_mut(link) {
                        state.detach(now);
                        self.drain_lane(now, link);
                    }
                }
            }
        }
    }

    /// Takes what a link has to deliver, to report and to give back.
    fn drain_lane(&mut self, now: Instant, link: LinkId) {
        while let Some(delivery) = self.poll_lane(link, Link::poll_deliver) {
            match delivery {
                Delivery::Message(packet) => {
                    self.counts.received += 1;
                    self.receive(now, packet, link);
                }
                Delivery::Control(packet) => {
                    let bytes = self.pool.bytes(&packet).into();
                    self.pool.release(packet);
                    self.report(Report::Control(link, bytes));
                }
            }
        }
        while let Some(packet) = self.poll_lane(link, Link::poll_stranded) {
            self.counts.returned += 1;
            self.strand(now, packet);
        }
        while let Some(event) = self.poll_lane(link, Link::poll_event) {
            let report = match event {
                link::Event::Up(metrics) => {
                    self.retry_stranded(now);
                    let workers = self.lanes.get(link).map_or(1, |lane| lane.link().their_workers());
                    Report::LinkUp(link, self.settle_path(link).remote, metrics, workers)
                }
                link::Event::Moved(reason) => Report::LinkMoved(link, self.settle_path(link), reason),
                link::Event::Down(reason) => Report::LinkDown(link, reason),
                link::Event::Measured(metrics) => Report::LinkMeasured(link, metrics),
            };
            self.report(report);
        }
    }

    /// Keys are asked for first where the link sends; says where.
    fn settle_path(&mut self, link: LinkId) -> AddressPair {
        let path = self.lanes.get(link).and_then(|lane| lane.link().path()).expect("a link that is up has a path");
        self.security.set_remote(link, path);
        path
    }

    fn drain_sessions(&mut self) {
        while let Some(event) = self.sessions.poll_event() {
            match event {
                session::Event::Readable(id) => self.readable.push_back(id),
                session::Event::Incoming { listener, session, peer } => {
                    self.report(Report::Incoming { listener, session, peer });
                }
                session::Event::Closed(id) => self.report(Report::SessionClosed(id)),
            }
        }
    }

    fn report(&mut self, report: Report) {
        if self.reports.len() >= MAX_REPORTS {
            if is_optional(&report) {
                return self.counts.other_drops.count(DropReason::ControlRefused);
            }
            if let Some(link) = changed_link(&report)
                && let Some(before) = self.reports.iter_mut().rev().find(|held| changed_link(held) == Some(link))
            {
                *before = match (&*before, report) {
                    // Control must still hear that it is up.
                    (&Report::LinkUp(link, _, metrics, workers), Report::LinkMoved(_, path, _)) => {
                        Report::LinkUp(link, path.remote, metrics, workers)
                    }
                    (_, report) => report,
                };
                return;
            }
        }
        self.reports.push_back(report);
        self.counts.reports_peak = self.counts.reports_peak.max(self.reports.len());
    }

    /// Takes messages from sessions and sends them on their way.
    fn originate(&mut self, now: Instant) {
        self.sessions_wait = false;
        for _ in 0..ORIGINATE_BUDGET {
            if self.has_less_free_than(2 * FREE_FOR_TAKING_IN) {
                break;
            }
            // What passes through may take the other half.
            if self.crossings.longest() * 2 > self.crossings.capacity() {
                self.sessions_wait = true;
                break;
            }
            let Some((header, packet)) = self.sessions.poll_transmit(now, &mut self.pool) else { break };
            self.counts.originated += 1;
            self.route(now, packet, &header, None);
        }
        self.drain_sessions();
    }

    /// Takes in a message that came over `link`.
    fn receive(&mut self, now: Instant, packet: Packet, link: LinkId) {
        match Header::parse(self.pool.bytes(&packet)) {
            Ok(header) => self.route(now, packet, &header, Some(link)),
            Err(_) => self.discard(packet, DropReason::Malformed),
        }
    }

    /// Takes in a message as if it had come over `link`.
    #[cfg(test)]
    pub(super) fn receive_bytes(&mut self, now: Instant, message: &[u8], link: LinkId) {
        let packet = self.pool.copy_in(Urgency::Reserved, message).expect("the pool has room");
        self.counts.received += 1;
        self.receive(now, packet, link);
    }

    /// Sends a message where [`forward`] says. `from` is the link it came over, none if it is our own. A message of our
    /// own may come back: a neighbour that lost the way returns what it had taken over, and it sets out anew.
    fn route(&mut self, now: Instant, mut packet: Packet, header: &Header, from: Option<LinkId>) {
        match forward(&self.table, header) {
            Verdict::Local(_) if from.is_some() && header.source == self.node => {
                self.discard(packet, DropReason::Spoofed);
            }
            Verdict::Local(home) if home == self.worker.index || is_of_every_worker(header.protocol) => {
                self.deliver(now, header, packet);
            }
            Verdict::Local(home) => self.cross(home, Errand::Deliver, packet),
            Verdict::Via(..) if from.is_some() && self.has_less_free_than(FREE_FOR_TAKING_IN) => {
                self.discard(packet, DropReason::PoolExhausted);
            }
            Verdict::Via(link, lane, ttl) => {
                assert!(ttl < header.ttl, "every hop takes one from the hops left: nothing goes round for ever");
                message::set_ttl(self.pool.bytes_mut(&mut packet), ttl);
                if from.is_some() {
                    self.counts.forwarded += 1;
                }
                if lane == self.worker.index {
                    self.send(now, link, packet, header);
                } else {
                    self.cross(lane, Errand::Send(link), packet);
                }
            }
            Verdict::Drop(reason) => {
                if reason == DropReason::TtlExpired && header.protocol == Protocol::Echo {
                    self.with_body(packet, |shard, body| {
                        shard.sessions.handle_expired(now, header, body, &mut shard.pool);
                    });
                    self.counts.message_drops.count(reason);
                } else {
                    self.discard(packet, reason);
                }
            }
        }
    }

    /// Leaves a message to another worker.
    fn cross(&mut self, worker: usize, errand: Errand, packet: Packet) {
        if let Err(packet) = self.crossings.push(worker, errand, packet) {
            self.discard(packet, DropReason::CrossingFull);
        }
    }

    /// Whether less than one part in `parts` of the pool is free.
    fn has_less_free_than(&self, parts: usize) -> bool {
        (self.pool.capacity() - self.pool.in_use()) * parts < self.pool.capacity()
    }

    fn deliver(&mut self, now: Instant, header: &Header, packet: Packet) {
        self.counts.delivered += 1;
        self.with_body(packet, |shard, body| match header.protocol {
            Protocol::Control => shard.report(Report::Far(header.source, body.into())),
            _ => shard.sessions.handle_message(now, header, body, &mut shard.pool),
        });
        self.drain_sessions();
    }

    /// Copies a message out of the pool, releases the packet and hands the body on. Only messages that end at this router
    /// pay this copy.
    fn with_body(&mut self, packet: Packet, take: impl FnOnce(&mut Shard, &[u8])) {
        let mut body = std::mem::take(&mut self.body);
        let len = packet.len();
        body[..len].copy_from_slice(self.pool.bytes(&packet));
        self.pool.release(packet);
        take(self, &body[message::HEADER_LEN..len]);
        self.body = body;
    }

    fn send(&mut self, now: Instant, link: LinkId, packet: Packet, header: &Header) {
        let Some(state) = self.lanes.link_mut(link) else {
            return self.discard(packet, DropReason::NoRoute);
        };
        if self.laden.last() != Some(&link) && self.laden.len() < LADEN {
            self.laden.push(link);
        }
        match state.send(now, packet, header, &mut self.pool) {
            Ok(()) => self.counts.handed += 1,
            Err(packet) => match (state.is_up(), header.class) {
                (false, Class::Reliable) => self.strand(now, packet),
                (false, Class::BestEffort) => self.discard(packet, DropReason::LinkDown),
                (true, _) => self.discard(packet, DropReason::QueueFull),
            },
        }
    }

    fn strand(&mut self, now: Instant, packet: Packet) {
        if let Err(packet) = self.stranded.push(now, packet) {
            self.discard(packet, DropReason::LinkDown);
        }
    }

    fn discard(&mut self, packet: Packet, reason: DropReason) {
        if !broken(Rule::CountDrops) {
            self.counts.message_drops.count(reason);
        }
        if !broken(Rule::ReleaseDropped) {
            self.pool.release(packet);
        }
    }

    fn transmit_laden(&mut self, now: Instant, batch: &mut Batch) {
        let (mut laden, crowded) = (std::mem::take(&mut self.laden), self.crowded);
        for link in laden.drain(..).filter(|_| !crowded) {
            self.transmit_lane(now, link, batch);
        }
        self.laden = laden;
    }

    /// Seals what one lane has ready.
    fn transmit_lane(&mut self, now: Instant, link: LinkId, batch: &mut Batch) {
        let Shard { lanes, security, pool, counts, leaving, .. } = self;
        if lanes.is_resting(now, link) || !security.can_seal(now, link) {
            return;
        }
        let Some(state) = lanes.link_mut(link) else { return };
        while batch.push_with(|slot| {
            let (head, room) = (datagram::HEADER_LEN, slot.len() - datagram::TAG_LEN);
            let outgoing = state.poll_transmit(now, pool, &mut slot[head..room])?;
            let sealed = security.seal(now, link, outgoing.number, slot, outgoing.len);
            let len = sealed.expect("keys that could seal a moment ago still can");
            counts.datagrams_out += 1;
            counts.bytes_out += len as u64;
            if outgoing.waited.iter().any(Option::is_some) {
                leaving.push((link, outgoing.waited));
            }
            Some(Transmit { link: Some(link), to: outgoing.path, up: outgoing.up, len })
        }) {}
        if !batch.is_full() {
            lanes.rest(link);
        }
        self.drain_lane(now, link);
    }
}

fn pairs(paths: &[PathSpec]) -> Vec<AddressPair> {
    paths.iter().map(|path| path.pair).collect()
}

/// Whether a message that ends here can be taken in by any worker, since no session of one of them has a part in it.
const fn is_of_every_worker(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Echo | Protocol::Control)
}

/// Whether control does without the report if there is no room for it.
const fn is_optional(report: &Report) -> bool {
    use Report::{Control, Far, LinkMeasured, LinkObstructed, Stranger};
    matches!(report, Control(..) | Far(..) | LinkMeasured(..) | LinkObstructed(..) | Stranger(..))
}

/// The link whose state or address the report says has changed.
const fn changed_link(report: &Report) -> Option<LinkId> {
    match report {
        Report::LinkUp(link, ..) | Report::LinkDown(link, _) | Report::LinkMoved(link, ..) => Some(*link),
        _ => None,
    }
}
