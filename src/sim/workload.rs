//! The applications of a simulation: flows whose every byte is checked where it arrives.

mod excuse;
mod spec;

pub(super) use excuse::Way;
pub use spec::{Kind, Side, Spec};

use crate::base::hash::{hash64, mix64};
use crate::base::{Instant, SessionId};
use crate::control::ClientId;
use crate::proto::session::Readiness;
use crate::sim::topology::node;
use crate::wire::admin::{Request, Response};
use crate::wire::client::{Endpoint, Record};
use crate::wire::cursor::Writer;
use crate::wire::session::ResetReason;
use excuse::Excuse;
use std::time::Duration;

/// How far a flow's sender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its session is not open; it tries from then on.
    Closed(Instant),
    /// It asked for a session.
    Opening,
    /// Its stream waits to be connected.
    Connecting(SessionId),
    /// It sends.
    Open(SessionId),
    /// It sent everything.
    Finished,
}

/// A flow: its sender, its receiver, and what was checked.
#[derive(Debug)]
pub struct Flow {
    number: u32,
    spec: Spec,
    stage: Stage,
    paused: bool,
    /// Messages handed to the router.
    next: u32,
    /// The receiver's session; for a stream, that of the accepted stream.
    sink: Option<SessionId>,
    /// Which messages arrived in this life of the receiver's router, and one past the last of them.
    arrived: Vec<bool>,
    expected: u32,
    /// Messages delivered.
    delivered: u32,
    /// Bytes of the message that a stream is in the middle of.
    partial: Vec<u8>,
    ended: bool,
    /// The sender's session; none if it is closed.
    source: Option<SessionId>,
    /// An end crashed after something was sent: not all arrives any more.
    crashed: bool,
    /// The receiver's router crashed since its sender began: what arrives now need not begin with the first message.
    forgotten: bool,
    /// One end gave up because it rightly heard nothing for long; what is said after that is another flow.
    given_up: bool,
    /// Whether an end may give up.
    excuse: Excuse,
    /// Its sender had left when the router might give up what it wrote: nobody hears of that.
    excused: bool,
    arrivals: Vec<Arrival>,
}

/// A message that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it was to be sent.
    pub due: Instant,
    /// From then until it was delivered.
    pub latency: Duration,
}

/// What a flow did with a record.
pub struct Taken {
    /// It was a message.
    pub message: bool,
    /// The flow's sender can go on.
    pub wants_turn: bool,
    /// The receiver's application is done and leaves.
    pub leaves: bool,
}

impl Flow {
    /// The flow with this number among its world's flows.
    pub fn new(number: u32, spec: Spec) -> Flow {
        assert!(spec.size >= Spec::HEADER, "a message holds its header");
        let messages = spec.messages as usize;
        Flow {
            number,
            stage: Stage::Closed(spec.opens()),
            excuse: Excuse::new(spec.opens()),
            excused: false,
            spec,
            paused: false,
            next: 0,
            sink: None,
            arrived: vec![false; messages],
            expected: 0,
            delivered: 0,
            partial: Vec::new(),
            ended: false,
            source: None,
            crashed: false,
            forgotten: false,
            given_up: false,
            arrivals: Vec::with_capacity(messages),
        }
    }

    /// What it is to do.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Messages delivered.
    pub const fn delivered(&self) -> u32 {
        self.delivered
    }

    /// Messages handed to the router.
    pub const fn sent_count(&self) -> u32 {
        self.next
    }

    /// The messages delivered, in that order.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// Whether an end of it crashed, or was out of reach for so long that the other gave up: nothing more is expected of
    /// it.
    pub const fn is_void(&self) -> bool {
        self.crashed || self.given_up || self.excused
    }

    /// Whether everything that must arrive has.
    pub fn is_complete(&self) -> bool {
        let sent = self.stage == Stage::Finished;
        match self.spec.kind {
            Kind::BestEffort => sent,
            Kind::Stream => sent && self.ended && self.delivered == self.spec.messages,
            _ => sent && self.delivered == self.spec.messages,
        }
    }

    /// One of its ends crashed. A flow that had not begun begins anew when the router is back.
    pub(super) fn end_crashed(&mut self, now: Instant, router: usize) {
        // A stream that asked is known to the other end's former life.
        let asked = self.spec.kind == Kind::Stream && !matches!(self.stage, Stage::Closed(_));
        if self.next > 0 || asked {
            self.crashed = true;
        } else if router == self.spec.from {
            self.stage = Stage::Closed(self.spec.opens().max(now));
            self.paused = false;
        }
        if router == self.spec.from {
            self.source = None;
        }
        if router == self.spec.to {
            self.sink = None;
            self.forgotten |= self.crashed;
            self.arrived.fill(false);
            self.expected = 0;
            self.partial.clear();
        }
    }

    /// Its applications leave: nothing more is expected of it.
    pub(super) const fn close(&mut self) {
        self.given_up = true;
    }

    /// What way there is from its sender to its receiver and back now. To be told every few milliseconds.
    pub(super) fn note_way(&mut self, now: Instant, way: Way) {
        self.excuse.note_way(now, way);
    }

    /// Nobody hears of it if the router gives up what a sender that has left wrote: it is excused if it may. To be asked
    /// all the time, since a way that comes back later, or what was still under way, does not bring back what was given up.
    pub(super) fn excuse_who_left(&mut self, now: Instant) {
        let left = self.spec.leaves && self.stage == Stage::Finished && self.source.is_none();
        self.excused |= left && !self.is_complete() && self.excuse.holds(now);
    }

    /// The session that the sender's application closes now, because it has sent everything.
    pub(super) fn leave(&mut self) -> Option<SessionId> {
        let done = self.spec.leaves && self.stage == Stage::Finished && !self.is_void();
        if done { self.source.take() } else { None }
    }

    /// The session that the receiver's application closes, having read the stream to its end.
    pub(super) const fn leave_sink(&mut self) -> Option<SessionId> {
        self.sink.take()
    }

    pub(super) const fn client(flow: usize, side: Side) -> ClientId {
        ClientId(flow as u64 * 2 + if matches!(side, Side::Source) { 0 } else { 1 })
    }

    pub(super) const fn of_client(client: ClientId) -> (usize, Side) {
        ((client.0 / 2) as usize, if client.0.is_multiple_of(2) { Side::Source } else { Side::Sink })
    }

    fn target(&self) -> Endpoint {
        Endpoint { node: node(self.spec.to), port: self.spec.port }
    }

    /// The request that opens one side.
    pub(super) fn open(&mut self, now: Instant, side: Side) -> Request {
        match (side, self.spec.kind) {
            (Side::Sink, Kind::Stream) => Request::OpenListener { port: self.spec.port },
            (Side::Sink, _) => Request::OpenDatagram { port: self.spec.port },
            (Side::Source, kind) => {
                self.stage = Stage::Opening;
                self.excuse.begins(now);
                match kind {
                    Kind::Stream => Request::OpenStream { to: self.target() },
                    _ => Request::OpenDatagram { port: 0 },
                }
            }
        }
    }

    /// A request was answered. True if the sender can go on.
    pub(super) fn handle_response(
        &mut self,
        now: Instant,
        side: Side,
        response: &Response,
        session: Option<SessionId>,
    ) -> bool {
        match (side, response) {
            (Side::Source, Response::Opened { session, .. }) => {
                self.source = Some(*session);
                self.stage = match self.spec.kind {
                    Kind::Stream => Stage::Connecting(*session),
                    _ => Stage::Open(*session),
                };
                true
            }
            (Side::Sink, Response::Opened { .. } | Response::Incoming { .. }) => {
                if session.is_some() {
                    self.sink = session;
                }
                false
            }
            (Side::Source, _) => {
                self.stage = Stage::Closed(now + Duration::from_millis(200));
                true
            }
            _ => false,
        }
    }

    /// The router closed a side's session.
    pub(super) fn detached(&mut self, side: Side) {
        if side == Side::Sink && self.spec.kind == Kind::Stream {
            self.sink = None;
        }
    }

    pub(super) const fn resume(&mut self) {
        self.paused = false;
    }

    /// Whether the sender's session should be opened now.
    pub(super) fn wants_open(&self, now: Instant) -> bool {
        !self.is_void() && matches!(self.stage, Stage::Closed(at) if at <= now)
    }

    /// When the sender is to be asked next.
    pub(super) fn next_turn(&self, now: Instant) -> Option<Instant> {
        if self.is_void() || self.paused {
            return None;
        }
        match self.stage {
            Stage::Closed(at) if at > now => Some(at),
            Stage::Open(_) if self.next < self.spec.messages => Some(self.spec.due(self.next).max(now)),
            _ => None,
        }
    }

    /// Writes the next record that is due and says whose session it is for.
    pub(super) fn next_record(&mut self, now: Instant, record: &mut Vec<u8>) -> Option<SessionId> {
        let Stage::Open(session) = self.stage else { return None };
        if self.is_void() || self.paused {
            return None;
        }
        record.clear();
        record.resize(self.spec.size + crate::wire::client::MAX_HEADER, 0);
        let content;
        let next = if self.next == self.spec.messages {
            match self.spec.kind {
                Kind::Stream => Record::Finish,
                _ => {
                    self.stage = Stage::Finished;
                    return None;
                }
            }
        } else {
            if self.spec.due(self.next) > now {
                return None;
            }
            content = self.content(self.next);
            match self.spec.kind {
                Kind::Stream => Record::Data(&content),
                kind => Record::Send {
                    class: kind.class(),
                    ordered: kind == Kind::Ordered,
                    ttl: 0,
                    to: self.target(),
                    bytes: &content,
                },
            }
        };
        let mut writer = Writer::new(record);
        next.emit(&mut writer).expect("the record was sized for its content");
        let len = writer.len();
        record.truncate(len);
        Some(session)
    }

    /// The record was handed to the router.
    pub(super) fn sent(&mut self, now: Instant, readiness: Readiness) {
        if self.next == self.spec.messages {
            self.stage = Stage::Finished;
        } else {
            self.next += 1;
        }
        match readiness {
            Readiness::Ready => {}
            Readiness::Full => self.paused = true,
            Readiness::Gone => {
                self.stage = Stage::Closed(now + Duration::from_millis(200));
                self.source = None;
            }
        }
    }

    /// A record arrived for one side.
    pub(super) fn handle_record(
        &mut self,
        now: Instant,
        (side, session): (Side, SessionId),
        record: &[u8],
        violations: &mut Vec<String>,
    ) -> Taken {
        let parsed = Record::parse(record).expect("the router writes well-formed records");
        let message = matches!(parsed, Record::Datagram { .. });
        let (mut wants_turn, mut leaves) = (false, false);
        match (side, parsed) {
            (Side::Source, Record::Connected(_)) => {
                if let Stage::Connecting(session) = self.stage {
                    self.stage = Stage::Open(session);
                    self.excuse.gets_on(now);
                }
                wants_turn = true;
            }
            (Side::Source, Record::Reset { reason, .. }) if !self.is_void() => {
                self.take_reset(now, side, reason, violations);
                if self.next == 0 {
                    self.given_up = false;
                    self.stage = Stage::Closed(now + Duration::from_millis(200));
                    self.source = None;
                    wants_turn = true;
                }
            }
            // An attempt that the sender gave up before it sent anything ends so, too.
            (Side::Sink, Record::Reset { reason, .. })
                if !self.is_void()
                    && !self.ended
                    && self.next > 0
                    && (self.spec.kind != Kind::Stream || self.sink == Some(session)) =>
            {
                self.take_reset(now, side, reason, violations);
            }
            (Side::Sink, Record::Data(bytes)) => self.take_stream(now, bytes, violations),
            (Side::Sink, Record::Finish) => {
                self.take_finish(now, violations);
                leaves = self.spec.leaves;
            }
            (Side::Sink, Record::Datagram { bytes, .. }) => self.take_message(now, bytes, violations),
            _ => {}
        }
        Taken { message, wants_turn, leaves }
    }

    fn take_reset(&mut self, now: Instant, side: Side, reason: ResetReason, violations: &mut Vec<String>) {
        if self.excuse.holds(now) {
            self.given_up = true;
        } else if self.spec.kind != Kind::BestEffort {
            let number = self.number;
            violations.push(format!(
                "{now}: the {side:?} of flow {number} was reset ({reason:?}) although no end crashed and there was a way"
            ));
        }
    }

    fn take_stream(&mut self, now: Instant, bytes: &[u8], violations: &mut Vec<String>) {
        self.partial.extend_from_slice(bytes);
        while self.partial.len() >= self.spec.size {
            let rest = self.partial.split_off(self.spec.size);
            let message = std::mem::replace(&mut self.partial, rest);
            self.take_message(now, &message, violations);
        }
    }

    fn take_finish(&mut self, now: Instant, violations: &mut Vec<String>) {
        if !self.given_up && (self.expected != self.spec.messages || !self.partial.is_empty()) {
            violations.push(format!("{now}: stream {} ended after {} of its messages", self.number, self.expected));
        }
        self.ended = true;
    }

    fn take_message(&mut self, now: Instant, bytes: &[u8], violations: &mut Vec<String>) {
        let Some(index) = self.recognise(bytes) else {
            violations.push(format!("{now}: flow {} was delivered a message that was never sent", self.number));
            return;
        };
        let in_order = matches!(self.spec.kind, Kind::Stream | Kind::Ordered);
        let skips = index > self.expected && !self.forgotten;
        if in_order && !self.given_up && (index < self.expected || skips) {
            let expected = self.expected;
            violations.push(format!("{now}: flow {} got message {index} instead of {expected}", self.number));
        }
        if std::mem::replace(&mut self.arrived[index as usize], true) {
            violations.push(format!("{now}: flow {} got message {index} twice", self.number));
        }
        self.expected = index + 1;
        self.delivered += 1;
        self.excuse.gets_on(now);
        let due = self.spec.due(index);
        self.arrivals.push(Arrival { due, latency: now.since(due) });
    }

    /// The number of the message with these bytes, if every one of them is right.
    fn recognise(&self, bytes: &[u8]) -> Option<u32> {
        let index = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
        (index < self.spec.messages && self.content(index) == bytes).then_some(index)
    }

    /// What message `index` looks like: flow, number, then bytes that follow from both.
    fn content(&self, index: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.spec.size + 8);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&index.to_be_bytes());
        let mut state = hash64(&bytes);
        while bytes.len() < self.spec.size {
            bytes.extend_from_slice(&state.to_be_bytes());
            state = mix64(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        }
        bytes.truncate(self.spec.size);
        bytes
    }
}
