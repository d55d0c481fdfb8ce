//! From the application: its records become datagrams, flows and echoes.

use super::receiver::Receiver;
use super::sender::Sender;
use super::sessions::{Route, Sessions};
use super::settings::FIRST_WINDOW;
use super::state::Kind;
use super::{Event, Readiness};
use crate::base::limits::DEFAULT_TTL;
use crate::base::rare::rarely;
use crate::base::{Class, Instant, NodeId, Port, SessionId};
use crate::containers::pool::Urgency;
use crate::containers::{Packet, Pool};
use crate::telemetry::DropReason;
use crate::wire::client::{Endpoint, MAX_RECORD, Record};
use crate::wire::cursor::{NoRoom, Writer};
use crate::wire::message::{HEADER_LEN, Header, MAX_BODY, Protocol};
use crate::wire::session::{DATAGRAM_HEADER_LEN, ECHO_HEADER_LEN, Echo, Fragment, MAX_DATAGRAM_FRAGMENT, MAX_SEGMENT};
use std::time::Duration;

/// Records of one session that may be held because they found no room. The caller stops at the first; the rest is what
/// it had read ahead.
pub(super) const MAX_PENDING: usize = 8;
/// Pause before records and segments that found the pool drawn down try again.
pub(super) const RETRY: Duration = Duration::from_millis(5);
/// Record buffers kept for the next ones that find no room.
pub(super) const SPARE_RECORDS: usize = 16;

/// Whether a record found room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    Yes,
    No,
    Bad,
}

/// The ttl in the header of a message that may cross `hops` hops: its source counts it down, too.
const fn ttl_for(hops: u8) -> u8 {
    if hops == 0 { DEFAULT_TTL } else { hops.saturating_add(1) }
}

impl Sessions {
    /// Whether a record of this session may be read: whatever becomes of it, there is room to hold it. If not, read no
    /// more until [`Event::Readable`]. Ask once before a run of records.
    pub fn may_read(&mut self, id: SessionId) -> bool {
        let Some(index) = self.find(id) else { return true };
        let room = self.can_hold();
        if !room {
            self.put_off(index);
        }
        room
    }

    /// Records that could not be read yet because all sessions together hold as many as they may.
    pub const fn held_back(&self) -> u64 {
        self.held_back
    }

    fn can_hold(&self) -> bool {
        self.held + MAX_RECORD <= self.settings.held_bytes
    }

    /// The session is not read until there is room to hold a record.
    fn put_off(&mut self, index: u32) {
        self.held_back += 1;
        if !std::mem::replace(&mut self.session_mut(index).put_off, true) {
            self.sessions.enlist(&mut self.put_off, index);
        }
    }

    /// As many sessions that were put off are read again as records could be held. One that has ended, or is not read for
    /// another reason, takes no other's turn.
    pub(super) fn resume_reading(&mut self) {
        let mut room = self.settings.held_bytes.saturating_sub(self.held) / MAX_RECORD;
        while room > 0 {
            let Some(ticket) = self.put_off.pop_front() else { break };
            let Some(index) = self.sessions.redeem(ticket) else { continue };
            let session = self.session_mut(index);
            assert!(std::mem::replace(&mut session.put_off, false), "a session is put off once");
            if !session.lingering && session.pending.is_empty() {
                let id = session.id;
                self.events.push_back(Event::Readable(id));
                room -= 1;
            }
        }
    }

    /// One record from the application. [`Readiness::Full`] means that it was taken but waits, or that the next one
    /// would have no room: read no more until [`Event::Readable`]. A record that breaks the client protocol closes the
    /// session.
    pub fn handle_record(&mut self, now: Instant, id: SessionId, record: &[u8], pool: &mut Pool) -> Readiness {
        let Some(index) = self.find(id).filter(|index| !self.session(*index).lingering) else {
            return Readiness::Gone;
        };
        let Some(placed) = self.take_record(now, index, record, pool) else {
            self.count(DropReason::BadRecord);
            self.close(now, id, pool);
            return Readiness::Gone;
        };
        if placed && !self.can_hold() {
            self.put_off(index);
            self.retry_at = self.retry_at.or(Some(now + RETRY));
            return Readiness::Full;
        }
        if placed { Readiness::Ready } else { Readiness::Full }
    }

    /// Whether the record found room, now or later; none if it is bad.
    fn take_record(&mut self, now: Instant, index: u32, bytes: &[u8], pool: &mut Pool) -> Option<bool> {
        let record = Record::parse(bytes).ok()?;
        if !self.fits_session(index, &record) {
            return None;
        }
        if self.session(index).stream().is_some_and(|stream| stream.reset || stream.broken.is_some()) {
            // The notice of the reset is on its way; what is still written is lost as it says.
            return Some(true);
        }
        if self.session(index).pending.is_empty() {
            match self.place(now, index, &record, pool) {
                Placed::Yes => return Some(true),
                Placed::Bad => return None,
                Placed::No => {}
            }
        }
        if self.session(index).pending.len() >= MAX_PENDING {
            return None;
        }
        let mut held = self.spare.pop().unwrap_or_default();
        held.extend_from_slice(bytes);
        self.held += bytes.len();
        let session = self.session_mut(index);
        session.pending.push_back(held);
        if !std::mem::replace(&mut session.retrying, true) {
            self.sessions.enlist(&mut self.pending, index);
        }
        self.retry_at = self.retry_at.or(Some(now + RETRY));
        Some(false)
    }

    /// Whether a session of this kind and state may write this record. Notes that a stream is finishing.
    fn fits_session(&mut self, index: u32, record: &Record<'_>) -> bool {
        match (&mut self.session_mut(index).kind, record) {
            (Kind::Datagram, Record::Send { to, .. }) => to.port != 0,
            (Kind::Datagram, Record::Echo { bytes, .. }) => ECHO_HEADER_LEN + bytes.len() <= MAX_BODY,
            (Kind::Stream(stream), Record::Data(_)) => !stream.finishing,
            (Kind::Stream(stream), Record::Finish) => !std::mem::replace(&mut stream.finishing, true),
            _ => false,
        }
    }

    fn place(&mut self, now: Instant, index: u32, record: &Record<'_>, pool: &mut Pool) -> Placed {
        match *record {
            Record::Send { class: Class::BestEffort, ttl, to, bytes, .. } => {
                self.send_best_effort(index, to, ttl_for(ttl), bytes, pool);
                Placed::Yes
            }
            Record::Send { class: Class::Reliable, ordered, ttl, to, bytes } => {
                self.send_reliable(now, Route { session: index, to, ordered }, ttl_for(ttl), bytes, pool)
            }
            Record::Echo { ttl, class, node, id, sequence, bytes } => {
                let ttl = ttl_for(ttl);
                let echo = Echo { id, sequence, sent_ns: now.as_nanos(), hops: ttl, bytes };
                self.send_echo(index, node, class, ttl, &echo, pool);
                Placed::Yes
            }
            Record::Data(bytes) => self.send_data(now, index, bytes, pool),
            Record::Finish => {
                self.finish_stream(now, index);
                Placed::Yes
            }
            _ => Placed::Bad,
        }
    }

    fn send_best_effort(&mut self, index: u32, to: Endpoint, ttl: u8, bytes: &[u8], pool: &mut Pool) {
        let session = self.session_mut(index);
        let message = session.next_message;
        session.next_message = message.wrapping_add(1);
        session.sent += 1;
        let header = self.header(Protocol::Datagram, Class::BestEffort, ttl, to, self.session(index).port);
        let count = bytes.len().div_ceil(MAX_DATAGRAM_FRAGMENT).max(1);
        let last = (count - 1) as u8;
        for part in 0..count {
            let bytes = &bytes[part * MAX_DATAGRAM_FRAGMENT..bytes.len().min((part + 1) * MAX_DATAGRAM_FRAGMENT)];
            let fragment = Fragment { message, index: part as u8, last, bytes };
            let len = DATAGRAM_HEADER_LEN + bytes.len();
            let sent = self.push_message(header, len, Urgency::Ordinary, pool, |writer| {
                fragment.emit_header(writer)?;
                writer.bytes(bytes)
            });
            if !sent {
                // The rest is of no use without this part.
                return;
            }
        }
    }

    fn send_echo(&mut self, index: u32, node: NodeId, class: Class, ttl: u8, echo: &Echo<'_>, pool: &mut Pool) {
        let to = Endpoint { node, port: 0 };
        let header = self.header(Protocol::Echo, class, ttl, to, self.session(index).port);
        self.session_mut(index).sent += 1;
        let len = ECHO_HEADER_LEN + echo.bytes.len();
        self.push_message(header, len, Urgency::Ordinary, pool, |writer| echo.emit(writer));
    }

    fn send_reliable(&mut self, now: Instant, route: Route, ttl: u8, bytes: &[u8], pool: &mut Pool) -> Placed {
        let Some(at) = self.sender_for(now, route) else { return Placed::No };
        let count = bytes.len().div_ceil(MAX_SEGMENT);
        if !self.has_room(at, count, pool) {
            return Placed::No;
        }
        let sender = self.senders.get_mut(at).expect("the route's flow lives");
        if !sender.push_message(now, ttl, bytes, pool, &mut self.kept) {
            return Placed::No;
        }
        self.session_mut(route.session).sent += 1;
        self.wake_sender(at);
        Placed::Yes
    }

    fn send_data(&mut self, now: Instant, index: u32, bytes: &[u8], pool: &mut Pool) -> Placed {
        let Some(at) = self.session(index).stream().and_then(|stream| stream.sender) else { return Placed::Yes };
        if !self.has_room(at, bytes.len().div_ceil(MAX_SEGMENT), pool) {
            return Placed::No;
        }
        let sender = self.senders.get_mut(at).expect("a stream's flow lives");
        let before = sender.len();
        if !sender.push_bytes(now, DEFAULT_TTL, bytes, pool, &mut self.kept) {
            return Placed::No;
        }
        let segments = sender.len() - before;
        self.session_mut(index).sent += segments as u64;
        self.wake_sender(at);
        Placed::Yes
    }

    fn finish_stream(&mut self, now: Instant, index: u32) {
        let Some(at) = self.session(index).stream().and_then(|stream| stream.sender) else { return };
        self.senders.get_mut(at).expect("a stream's flow lives").finish(now, DEFAULT_TTL);
        self.wake_sender(at);
    }

    /// Whether a flow may keep `count` segments more. When no sender holds a packet, the share of the pool does not matter,
    /// so that small pools work. Streams that are closed and overdue give way.
    fn has_room(&mut self, at: u32, count: usize, pool: &mut Pool) -> bool {
        let session = self.sender(at).session;
        let mut left = self.kept.left(pool, self.settings.send_percent);
        while left < count && self.give_way(session, pool) {
            left = self.kept.left(pool, self.settings.send_percent);
        }
        let sender = self.sender(at);
        let cap = self.settings.send_queue.min((left / 4).max(FIRST_WINDOW as usize));
        let free = pool.capacity() - pool.in_use();
        let granted = sender.len() < cap && (left >= count || self.kept.held() == 0);
        granted && free >= count + pool.capacity() / 8
    }

    /// The flow for this route, made if there is none; none if there are too many flows, all of them in use.
    fn sender_for(&mut self, now: Instant, route: Route) -> Option<u32> {
        if let Some(&at) = self.routes.get(&route) {
            return Some(at);
        }
        self.make_room_for_flow(now, route.session)?;
        let at = self.insert_sender(now, route.session, route.to, route.ordered, false)?;
        self.routes.insert(route, at);
        Some(at)
    }

    /// If the session has as many flows as it may, ends the one that was idle longest; none if all are in use.
    fn make_room_for_flow(&mut self, now: Instant, session: u32) -> Option<()> {
        let lowest = Route { session, to: Endpoint { node: NodeId(0), port: 0 }, ordered: false };
        let highest = Route { session, to: Endpoint { node: NodeId(u64::MAX), port: Port::MAX }, ordered: true };
        let flows = || self.routes.range(lowest..=highest).map(|(_, at)| *at);
        if flows().count() < self.settings.flows_per_session && !self.senders.is_full() {
            return Some(());
        }
        let sender = |at: u32| self.senders.get(at).expect("a route's flow lives");
        let idlest = flows().filter(|at| sender(*at).is_idle()).min_by_key(|at| sender(*at).used())?;
        self.end_flow(now, idlest);
        (!self.senders.is_full()).then_some(())
    }

    /// Ends a datagram flow; a later message to its destination starts another. Order holds across the two without
    /// waiting for the first one's end: it was idle, so all it carried is in the receiver's inbox, in its order.
    pub(super) fn end_flow(&mut self, now: Instant, at: u32) {
        let sender = self.senders.get_mut(at).expect("the flow lives");
        assert!(sender.is_idle(), "only a flow that is acknowledged to its last segment is ended");
        sender.finish(now, DEFAULT_TTL);
        let route = Route { session: sender.session, to: sender.key.peer, ordered: sender.ordered };
        self.routes.remove(&route);
        self.wake_sender(at);
    }

    /// Records that found no room try again.
    pub(super) fn retry_pending(&mut self, now: Instant, index: u32, pool: &mut Pool) {
        let Some(session) = self.sessions.get(index) else { return };
        if session.pending.is_empty() {
            return;
        }
        let id = session.id;
        while let Some(held) = self.session_mut(index).pending.pop_front() {
            let record = Record::parse(&held).expect("it was parsed before it was held");
            if self.place(now, index, &record, pool) == Placed::No {
                self.session_mut(index).pending.push_front(held);
                return;
            }
            self.recycle(held);
        }
        if self.session(index).lingering {
            self.advance_linger(now, index, pool);
        } else {
            self.events.push_back(Event::Readable(id));
        }
    }

    /// Records that found no room never will: the session's flow is gone, and what is still written is lost with it.
    pub(super) fn abandon_pending(&mut self, index: u32) {
        let session = self.session(index);
        if !session.pending.is_empty() && !session.lingering {
            self.events.push_back(Event::Readable(session.id));
        }
        self.drop_pending(index);
    }

    pub(super) fn drop_pending(&mut self, index: u32) {
        while let Some(held) = self.sessions.get_mut(index).and_then(|session| session.pending.pop_front()) {
            self.recycle(held);
        }
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        self.held -= buffer.len();
        buffer.clear();
        if self.spare.len() < SPARE_RECORDS {
            self.spare.push(buffer);
        }
    }

    pub(super) const fn header(&self, protocol: Protocol, class: Class, ttl: u8, to: Endpoint, port: Port) -> Header {
        Header {
            class,
            ttl,
            mark: false,
            protocol,
            destination: to.node,
            source: self.node,
            destination_port: to.port,
            source_port: port,
        }
    }

    /// Puts a message without a flow, with a body of `len` bytes, into the outbox; false, and counted, if there is no room.
    pub(super) fn push_message(
        &mut self,
        header: Header,
        len: usize,
        urgency: Urgency,
        pool: &mut Pool,
        write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> bool {
        if self.outbox.len() >= self.settings.outbox || rarely!(OutboxFull) {
            self.count(DropReason::QueueFull);
            return false;
        }
        let Some(packet) = write_message(&header, len, urgency, pool, write) else {
            self.count(DropReason::PoolExhausted);
            return false;
        };
        self.outbox.push_back((header, packet));
        true
    }

    /// Whether a flow's timer may have to be earlier, and whether it has something to send.
    pub(super) fn wake_sender(&mut self, at: u32) {
        let timer = self.sender_timer(at);
        let Some(sender) = self.senders.get_mut(at) else { return };
        let deadline = sender.deadline(&self.settings);
        if sender.wants_to_send() && !std::mem::replace(&mut sender.queued, true) {
            self.senders.enlist(&mut self.sending, at);
        }
        self.arm(timer, deadline);
    }

    pub(super) fn watch_receiver(&mut self, at: u32) {
        let deadline = self.receivers.get(at).and_then(|receiver: &Receiver| receiver.deadline(&self.settings));
        self.arm(self.receiver_timer(at), deadline);
    }

    pub(super) fn sender(&self, at: u32) -> &Sender {
        self.senders.get(at).expect("the flow lives")
    }
}

/// A packet holding the message whose body `write` fills, `len` bytes exactly; none if the pool has none.
pub(super) fn write_message(
    header: &Header,
    len: usize,
    urgency: Urgency,
    pool: &mut Pool,
    write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>,
) -> Option<Packet> {
    let mut packet = pool.take(urgency, HEADER_LEN + len)?;
    let (head, body) = pool.bytes_mut(&mut packet).split_at_mut(HEADER_LEN);
    head.copy_from_slice(&header.to_bytes());
    let mut writer = Writer::new(body);
    write(&mut writer).expect("the body has the length that was asked for");
    assert!(writer.room() == 0, "the body has the length that was asked for");
    Some(packet)
}
