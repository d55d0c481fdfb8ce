//! The aggregate: every session and flow of one shard, and how they begin and end.

use super::ports::Ports;
use super::reassembly::Reassembly;
use super::receiver::Receiver;
use super::sender::Sender;
use super::settings::FIRST_WINDOW;
use super::shelf::Shelf;
use super::slab::{Slab, Ticket};
use super::state::{Kind, Ready, Session, Stream};
use super::timers::Notices;
use super::tombstones::{Epitaph, Tombstones};
use super::{Carrier, Event, FlowKey, Refusal, SessionKind, SessionReport, Settings};
use crate::base::limits::{DEFAULT_TTL, TIMER_GRANULARITY};
use crate::base::sabotage::{Rule, broken};
use crate::base::worker::pick;
use crate::base::{Class, Instant, NodeId, Port, Rng, SessionId, Worker};
use crate::containers::{Packet, Pool, Wheel};
use crate::telemetry::{DropReason, Drops};
use crate::wire::client::{Endpoint, Record};
use crate::wire::message::{Header, Protocol};
use crate::wire::session::ResetReason;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Ids of incoming streams have this bit, ids given by control have not.
const INCOMING: u64 = 1 << 52;
/// The worker's number stands above this bit of such an id: all of a router's ids differ.
const WORKER_SHIFT: u32 = 48;
/// Slots of the timer wheel: with ticks of a millisecond a turn takes a second, which most timers stay below.
const WHEEL_SLOTS: usize = 1024;

/// Where a datagram flow leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) session: u32,
    pub(super) to: Endpoint,
    pub(super) ordered: bool,
}

/// All sessions of one router's shard.
#[derive(Debug)]
pub struct Sessions {
    pub(super) node: NodeId,
    worker: Worker,
    pub(super) settings: Settings,
    pub(super) rng: Rng,
    pub(super) sessions: Slab<Session>,
    by_id: BTreeMap<SessionId, u32>,
    pub(super) ports: Ports,
    pub(super) senders: Slab<Sender>,
    pub(super) sender_keys: BTreeMap<FlowKey, u32>,
    /// The newest flow of each datagram route.
    pub(super) routes: BTreeMap<Route, u32>,
    pub(super) receivers: Slab<Receiver>,
    pub(super) receiver_keys: BTreeMap<FlowKey, u32>,
    /// Flows by session: what ends a session touches its own flows only.
    senders_of: BTreeSet<(u32, u32)>,
    pub(super) receivers_of: BTreeSet<(u32, u32)>,
    /// Streams that wait to be accepted, by listener.
    backlogs: BTreeSet<(SessionId, SessionId)>,
    pub(super) tombstones: Tombstones,
    pub(super) reassembly: Reassembly,
    pub(super) wheel: Wheel,
    pub(super) notices: Notices,
    /// Whole messages: answers, resets, best effort.
    pub(super) outbox: VecDeque<(Header, Packet)>,
    /// Receivers that owe an acknowledgement, senders with something to send, sessions with something to deliver,
    /// sessions with records that found no room.
    pub(super) acks: VecDeque<Ticket>,
    pub(super) sending: VecDeque<Ticket>,
    pub(super) delivering: VecDeque<Ticket>,
    pub(super) pending: VecDeque<Ticket>,
    pub(super) events: VecDeque<Event>,
    pub(super) retry_at: Option<Instant>,
    /// Closed streams that linger for longer than is granted to all, and since when.
    pub(super) overdue: BTreeSet<(Instant, u32)>,
    pub(super) received: Shelf,
    pub(super) kept: Shelf,
    pub(super) spare: Vec<Vec<u8>>,
    /// Bytes of records that found no room, of all sessions; sessions that are not read because they are as many as may
    /// be, and how often that was.
    pub(super) held: usize,
    pub(super) put_off: VecDeque<Ticket>,
    pub(super) held_back: u64,
    pub(super) drops: Drops,
    incoming: u64,
}

impl Sessions {
    /// No sessions yet, at this worker of router `node`.
    pub fn new(node: NodeId, worker: Worker, settings: Settings, rng: Rng) -> Sessions {
        settings.check();
        let keys = 2 * settings.max_flows + settings.max_sessions;
        Sessions {
            node,
            worker,
            sessions: Slab::new(settings.max_sessions),
            senders: Slab::new(settings.max_flows),
            receivers: Slab::new(settings.max_flows),
            tombstones: Tombstones::new(settings.tombstones, settings.tombstone),
            reassembly: Reassembly::new(settings.reassemblies, settings.reassembly_timeout),
            wheel: Wheel::new(TIMER_GRANULARITY, WHEEL_SLOTS, keys),
            notices: Notices::new(settings.notices_per_second),
            settings,
            rng,
            by_id: BTreeMap::new(),
            ports: Ports::default(),
            sender_keys: BTreeMap::new(),
            routes: BTreeMap::new(),
            receiver_keys: BTreeMap::new(),
            senders_of: BTreeSet::new(),
            receivers_of: BTreeSet::new(),
            backlogs: BTreeSet::new(),
            outbox: VecDeque::new(),
            acks: VecDeque::new(),
            sending: VecDeque::new(),
            delivering: VecDeque::new(),
            pending: VecDeque::new(),
            events: VecDeque::new(),
            retry_at: None,
            overdue: BTreeSet::new(),
            received: Shelf::default(),
            kept: Shelf::default(),
            spare: Vec::new(),
            held: 0,
            put_off: VecDeque::new(),
            held_back: 0,
            drops: Drops::default(),
            incoming: 0,
        }
    }

    /// Opens a session under an id that is not in use, below 2^63. Its port: the one it asks for, which must be at home
    /// here, or one that is. A stream's is such that its lanes are this worker's, too, where one is left.
    pub fn open(&mut self, now: Instant, id: SessionId, kind: SessionKind) -> Result<Port, Refusal> {
        assert!(id.0 & INCOMING == 0 && !self.by_id.contains_key(&id), "control gives each session an id of its own");
        let (kind, wanted) = match kind {
            SessionKind::Datagram { port } => (Kind::Datagram, port),
            SessionKind::Listener { port } => (Kind::Listener { waiting: 0 }, port),
            SessionKind::Stream { to } => (Kind::Stream(Stream::new(to)), 0),
        };
        if self.sessions.is_full() {
            return Err(Refusal::TooMany);
        }
        assert!(wanted == 0 || self.worker.is_home_of(wanted), "control asks the worker at which the port is at home");
        let peer = match &kind {
            Kind::Stream(stream) => Some(stream.peer),
            Kind::Datagram | Kind::Listener { .. } => None,
        };
        let next_message = self.rng.next_u32();
        let index = self.sessions.insert(Session::new(id, kind, wanted, next_message)).expect("not full");
        let (node, worker) = (self.node, self.worker);
        let at_home = |port| worker.is_home_of(port);
        let in_lane = |port| peer.is_none_or(|peer| lane(node, port, peer, worker.count) == worker.index);
        let bound = self.ports.bind(wanted, |port| at_home(port) && in_lane(port), index, &mut self.rng);
        // Rather with a lane elsewhere than not at all.
        let Some(port) = bound.or_else(|| self.ports.bind(wanted, at_home, index, &mut self.rng)) else {
            self.sessions.remove(index);
            return Err(if wanted == 0 { Refusal::TooMany } else { Refusal::PortInUse });
        };
        self.session_mut(index).port = port;
        self.by_id.insert(id, index);
        if peer.is_some() && !self.open_stream_flow(now, index) {
            self.forget_session(index);
            return Err(Refusal::TooMany);
        }
        Ok(port)
    }

    /// The application of an incoming stream is attached; what was held for it can be delivered.
    pub fn accept(&mut self, _now: Instant, id: SessionId) {
        let Some(index) = self.find(id) else { return };
        if !std::mem::replace(&mut self.session_mut(index).attached, true) {
            self.leave_backlog(index);
            self.offer(index);
        }
    }

    /// The session's application is gone. What it sent reliably (a stream: if it has finished) is still brought to its
    /// end, datagrams within the linger time, a stream as long as its peer lives; otherwise the peers are told.
    pub fn close(&mut self, now: Instant, id: SessionId, pool: &mut Pool) {
        let Some(index) = self.find(id) else { return };
        if std::mem::replace(&mut self.session_mut(index).lingering, true) {
            return;
        }
        self.leave_backlog(index);
        self.empty_inbox(index, pool);
        self.close_receivers(now, index, pool);
        match &self.session(index).kind {
            Kind::Datagram => self.linger_datagrams(now, index, pool),
            Kind::Listener { .. } => self.close_backlog(now, id, index, pool),
            Kind::Stream(stream) if stream.reset => self.end_session(index, pool),
            Kind::Stream(stream) if stream.finishing => self.linger(now, index, pool),
            Kind::Stream(_) => self.end_session(index, pool),
        }
    }

    /// What to tell control or the shard next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Every session's figures.
    pub fn reports(&self) -> impl Iterator<Item = SessionReport> {
        let mut reports = BTreeMap::new();
        for (index, session) in self.sessions.iter() {
            reports.insert(index, report(session));
        }
        for (_, sender) in self.senders.iter() {
            if let Some(report) = reports.get_mut(&sender.session) {
                report.unacknowledged += sender.unacknowledged();
                report.repeated += sender.repeated;
            }
        }
        for (_, receiver) in self.receivers.iter() {
            if let Some(report) = reports.get_mut(&receiver.session) {
                report.unread += receiver.unread;
            }
        }
        reports.into_values()
    }

    /// Length of the round of sessions with records that found no room.
    #[cfg(test)]
    pub(super) fn waiting_for_room(&self) -> usize {
        self.pending.len()
    }

    /// What was dropped, by reason.
    pub const fn drops(&self) -> &Drops {
        &self.drops
    }

    pub(super) fn find(&self, id: SessionId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn session(&self, index: u32) -> &Session {
        self.sessions.get(index).expect("the index is of a living session")
    }

    pub(super) fn session_mut(&mut self, index: u32) -> &mut Session {
        self.sessions.get_mut(index).expect("the index is of a living session")
    }

    /// Puts something into the inbox.
    pub(super) fn push_ready(&mut self, index: u32, ready: Ready) {
        self.session_mut(index).inbox.push_back(ready);
        self.offer(index);
    }

    /// Tells a datagram session's application something that others cause: one that does not read misses it beyond the
    /// inbox's bound, or strangers could fill memory.
    pub(super) fn notify(&mut self, index: u32, record: Record<'static>) {
        if self.session(index).waiting >= self.settings.inbox {
            return self.count(DropReason::ReceiverSlow);
        }
        self.session_mut(index).waiting += 1;
        self.push_ready(index, Ready::Notice(record));
    }

    /// Lets the session take part in the round of those with something to deliver.
    pub(super) fn offer(&mut self, index: u32) {
        let session = self.session_mut(index);
        if session.is_deliverable() && !session.queued {
            session.queued = true;
            self.sessions.enlist(&mut self.delivering, index);
        }
    }

    /// Makes a stream's own flow; false if there are too many flows.
    pub(super) fn open_stream_flow(&mut self, now: Instant, index: u32) -> bool {
        let peer = self.session(index).stream().expect("the session is a stream").peer;
        let Some(sender) = self.insert_sender(now, index, peer, true, true) else { return false };
        self.senders.get_mut(sender).expect("just inserted").push_opening(DEFAULT_TTL);
        self.session_mut(index).stream_mut().expect("the session is a stream").sender = Some(sender);
        self.wake_sender(sender);
        true
    }

    /// A new outgoing flow under a random number, so that a flow of an earlier life is never taken for it.
    pub(super) fn insert_sender(
        &mut self,
        now: Instant,
        session: u32,
        to: Endpoint,
        ordered: bool,
        stream: bool,
    ) -> Option<u32> {
        let port = self.session(session).port;
        let mut key = FlowKey { peer: to, port, flow: self.rng.next_u32() };
        while self.sender_keys.contains_key(&key) {
            key.flow = self.rng.next_u32();
        }
        let index = self.senders.insert(Sender::new(now, key, session, ordered, stream, self.settings.send_window))?;
        self.sender_keys.insert(key, index);
        self.senders_of.insert((session, index));
        self.session_mut(session).senders += 1;
        Some(index)
    }

    /// Forgets an outgoing flow.
    pub(super) fn remove_sender(&mut self, index: u32, pool: &mut Pool) {
        let Some(mut sender) = self.senders.remove(index) else { return };
        sender.release(pool, &mut self.kept);
        self.wheel.cancel(self.sender_timer(index));
        self.sender_keys.remove(&sender.key);
        self.senders_of.remove(&(sender.session, index));
        let route = Route { session: sender.session, to: sender.key.peer, ordered: sender.ordered };
        if self.routes.get(&route) == Some(&index) {
            self.routes.remove(&route);
        }
        if let Some(session) = self.sessions.get_mut(sender.session) {
            session.senders -= 1;
            session.repeated += sender.repeated;
        }
    }

    /// Stops an incoming flow and remembers how it ended. What is ready of it is still delivered.
    pub(super) fn end_receiver(&mut self, now: Instant, index: u32, epitaph: Epitaph, pool: &mut Pool) {
        let Some(receiver) = self.receivers.get_mut(index) else { return };
        if !std::mem::replace(&mut receiver.over, true) {
            self.receiver_keys.remove(&receiver.key);
            if !broken(Rule::Tombstones) {
                self.tombstones.insert(now, receiver.key, epitaph);
            }
            self.wheel.cancel(self.receiver_timer(index));
        }
        self.drop_if_over(index, pool);
    }

    /// As [`Sessions::end_receiver`], for an incoming datagram flow that did not come to its end. If it takes part of
    /// what was acknowledged with it, that is counted, and the application is told.
    pub(super) fn break_receiver(
        &mut self,
        now: Instant,
        index: u32,
        epitaph: Epitaph,
        reason: ResetReason,
        pool: &mut Pool,
    ) {
        let Some(receiver) = self.receivers.get(index) else { return };
        let (session, peer, hole) = (receiver.session, receiver.key.peer, receiver.has_fragments());
        self.end_receiver(now, index, epitaph, pool);
        if hole {
            self.count(DropReason::Incomplete);
            self.notify(session, Record::Reset { reason, peer });
        }
    }

    /// Frees a flow that is over once nothing of it is ready any more.
    pub(super) fn drop_if_over(&mut self, index: u32, pool: &mut Pool) {
        if self.receivers.get(index).is_some_and(|receiver| receiver.over && receiver.ready == 0)
            && let Some(mut receiver) = self.receivers.remove(index)
        {
            receiver.release(pool, &mut self.received);
            self.receivers_of.remove(&(receiver.session, index));
            if let Some(stream) = self.sessions.get_mut(receiver.session).and_then(Session::stream_mut)
                && stream.receiver == Some(index)
            {
                stream.receiver = None;
            }
        }
    }

    /// The incoming session for a stream from `peer` to the listener, or none if there are too many of anything.
    pub(super) fn insert_incoming(&mut self, now: Instant, listener: u32, peer: Endpoint) -> Option<u32> {
        let Session { id: listener_id, port, kind: Kind::Listener { waiting }, .. } = *self.session(listener) else {
            return None;
        };
        if waiting >= self.settings.backlog || self.sessions.is_full() {
            return None;
        }
        self.incoming += 1;
        let id = SessionId(INCOMING | (self.worker.index as u64) << WORKER_SHIFT | self.incoming);
        let mut stream = Stream::new(peer);
        (stream.connected, stream.listener) = (true, Some(listener_id));
        let mut session = Session::new(id, Kind::Stream(stream), port, 0);
        (session.owns_port, session.attached) = (false, false);
        let index = self.sessions.insert(session).expect("not full");
        self.by_id.insert(id, index);
        if !self.open_stream_flow(now, index) {
            self.forget_session(index);
            return None;
        }
        if let Kind::Listener { waiting } = &mut self.session_mut(listener).kind {
            *waiting += 1;
        }
        self.backlogs.insert((listener_id, id));
        self.events.push_back(Event::Incoming { listener: listener_id, session: id, peer });
        Some(index)
    }

    /// An incoming stream is not waiting to be accepted any more.
    fn leave_backlog(&mut self, index: u32) {
        let listener = self.session_mut(index).stream_mut().and_then(|stream| stream.listener.take());
        let Some(listener) = listener else { return };
        self.backlogs.remove(&(listener, self.session(index).id));
        let Some(listener) = self.find(listener) else { return };
        if let Kind::Listener { waiting } = &mut self.session_mut(listener).kind {
            *waiting -= 1;
        }
    }

    fn close_backlog(&mut self, now: Instant, listener: SessionId, index: u32, pool: &mut Pool) {
        let waiting = (listener, SessionId(0))..=(listener, SessionId(u64::MAX));
        while let Some(&(_, id)) = self.backlogs.range(waiting.clone()).next() {
            self.close(now, id, pool);
            self.events.push_back(Event::Closed(id));
        }
        self.end_session(index, pool);
    }

    pub(super) fn empty_inbox(&mut self, index: u32, pool: &mut Pool) {
        self.session_mut(index).offered = None;
        while let Some(ready) = self.session_mut(index).inbox.pop_front() {
            self.release_ready(ready, pool);
        }
        self.session_mut(index).waiting = 0;
    }

    /// Nobody reads any more: senders of unfinished flows are told, finished ones are remembered as such.
    fn close_receivers(&mut self, now: Instant, session: u32, pool: &mut Pool) {
        let mut from = 0;
        while let Some(index) = next_flow(&self.receivers_of, session, from) {
            from = index + 1;
            let receiver = self.receivers.get(index).expect("a flow that is listed lives");
            if receiver.over {
                self.drop_if_over(index, pool);
                continue;
            }
            let key = receiver.key;
            match (receiver.finished(), receiver.read_up_to()) {
                (Some(end), _) => self.end_receiver(now, index, Epitaph::Finished(end), pool),
                // All that came was read: nobody acknowledges it later, and it is not lost. Who sends more is told then.
                (None, Some(end)) => {
                    self.push_final_ack(key, end, end + FIRST_WINDOW, pool);
                    self.end_receiver(now, index, Epitaph::Reset(ResetReason::Closed), pool);
                }
                (None, None) => {
                    self.send_reset(now, key, true, ResetReason::Closed, pool);
                    self.end_receiver(now, index, Epitaph::Reset(ResetReason::Closed), pool);
                }
            }
        }
        if let Some(stream) = self.session_mut(session).stream_mut() {
            stream.read_out = true;
        }
    }

    fn linger_datagrams(&mut self, now: Instant, index: u32, pool: &mut Pool) {
        let port = self.session(index).port;
        self.reassembly.close(port, pool, &mut self.received);
        self.linger(now, index, pool);
    }

    fn linger(&mut self, now: Instant, index: u32, pool: &mut Pool) {
        self.wheel.set(self.session_timer(index), now + self.settings.linger);
        self.retry_pending(now, index, pool);
        self.advance_linger(now, index, pool);
    }

    /// Ends the flows of a lingering session that has nothing left to hand over, and the session when they have ended.
    pub(super) fn advance_linger(&mut self, now: Instant, index: u32, pool: &mut Pool) {
        let Some(session) = self.sessions.get(index).filter(|session| session.lingering) else { return };
        if !session.pending.is_empty() {
            return;
        }
        if session.senders == 0 {
            return self.end_session(index, pool);
        }
        if matches!(session.kind, Kind::Datagram) {
            let mut from = 0;
            while let Some(at) = next_flow(&self.senders_of, index, from) {
                from = at + 1;
                self.senders.get_mut(at).expect("a flow that is listed lives").finish(now, DEFAULT_TTL);
                self.wake_sender(at);
            }
        }
    }

    /// Our flow of the stream has ended, or the peer's was read out.
    pub(super) fn advance_stream(&mut self, now: Instant, index: u32, pool: &mut Pool) {
        let Some(session) = self.sessions.get(index) else { return };
        let Some(stream) = session.stream() else { return };
        let (finished, reset) = (stream.sent_out && stream.read_out, stream.reset);
        if session.lingering {
            return self.advance_linger(now, index, pool);
        }
        if (finished || reset) && session.inbox.is_empty() && session.offered.is_none() {
            let (id, receiver) = (session.id, stream.receiver);
            if let Some(receiver) = receiver {
                let end = self.receivers.get(receiver).and_then(Receiver::finished);
                let epitaph = end.map_or(Epitaph::Reset(ResetReason::Closed), Epitaph::Finished);
                self.end_receiver(now, receiver, epitaph, pool);
            }
            self.events.push_back(Event::Closed(id));
            self.end_session(index, pool);
        }
    }

    /// Both directions of a stream are over for this reason; the application is told after what it can still read, the
    /// peer if it does not know (`tell`).
    pub(super) fn reset_stream(&mut self, now: Instant, index: u32, reason: ResetReason, tell: bool, pool: &mut Pool) {
        let Some(stream) = self.session_mut(index).stream_mut() else { return };
        if std::mem::replace(&mut stream.reset, true) {
            return;
        }
        let (peer, sender, receiver) = (stream.peer, stream.sender.take(), stream.receiver);
        if let Some(sender) = sender {
            if let Some(key) = self.senders.get(sender).map(|sender| sender.key).filter(|_| tell) {
                self.push_reset(key, false, reason, pool);
            }
            self.remove_sender(sender, pool);
        }
        self.abandon_pending(index);
        if let Some(receiver) = receiver {
            if let Some(key) = self.receivers.get(receiver).map(|receiver| receiver.key).filter(|_| tell) {
                self.push_reset(key, true, reason, pool);
            }
            self.end_receiver(now, receiver, Epitaph::Reset(ResetReason::Closed), pool);
        }
        if self.session(index).lingering {
            return self.end_session(index, pool);
        }
        self.push_ready(index, Ready::Notice(Record::Reset { reason, peer }));
    }

    /// Forgets a session with all its flows. Peers of flows that have not ended are told.
    pub(super) fn end_session(&mut self, index: u32, pool: &mut Pool) {
        self.empty_inbox(index, pool);
        while let Some(at) = next_flow(&self.senders_of, index, 0) {
            self.push_reset(self.sender(at).key, false, ResetReason::Closed, pool);
            self.remove_sender(at, pool);
        }
        self.forget_session(index);
    }

    fn forget_session(&mut self, index: u32) {
        self.drop_pending(index);
        self.wheel.cancel(self.session_timer(index));
        let Some(session) = self.sessions.remove(index) else { return };
        if let Some(since) = session.overdue {
            self.overdue.remove(&(since, index));
        }
        if session.owns_port {
            self.ports.release(session.port);
        }
        self.by_id.remove(&session.id);
    }

    pub(super) fn count(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }
}

/// The lane of a stream from this port to `peer`, over links with as many as there are `workers`.
fn lane(node: NodeId, port: Port, peer: Endpoint, workers: usize) -> usize {
    let header = Header {
        class: Class::Reliable,
        ttl: DEFAULT_TTL,
        mark: false,
        protocol: Protocol::Segment,
        destination: peer.node,
        source: node,
        destination_port: peer.port,
        source_port: port,
    };
    pick(header.flow_hash(), workers)
}

/// The first flow of a session whose index is at least `from`.
fn next_flow(flows: &BTreeSet<(u32, u32)>, session: u32, from: u32) -> Option<u32> {
    flows.range((session, from)..=(session, u32::MAX)).next().map(|(_, index)| *index)
}

/// The figures that the session itself holds.
fn report(session: &Session) -> SessionReport {
    let kind = match session.kind {
        Kind::Datagram => "datagram",
        Kind::Listener { .. } => "listener",
        Kind::Stream(_) => "stream",
    };
    SessionReport {
        session: session.id,
        kind: kind.to_owned(),
        port: session.port,
        peer: session.stream().map(|stream| stream.peer),
        sent: session.sent,
        delivered: session.delivered,
        repeated: session.repeated,
        unacknowledged: 0,
        unread: 0,
        carrier: Carrier::default(),
    }
}
