//! The receiving half of a reliable flow.

use super::FlowKey;
use super::settings::{FIRST_WINDOW, Settings};
use super::shelf::Shelf;
use crate::base::limits::MAX_PAYLOAD;
use crate::base::sabotage::{Rule, broken};
use crate::base::seq::expand;
use crate::base::{Instant, Rng};
use crate::containers::{Packet, Pool};
use crate::wire::cursor::Writer;
use crate::wire::session::{FlowAck, Segment, SegmentFlags};
use std::collections::VecDeque;

/// Segments of one message at most. The largest payload needs 57.
const MAX_MESSAGE_SEGMENTS: u64 = FIRST_WINDOW;
/// A sender that may send fewer segments than this is told at once when there is room again.
const NARROW: u64 = 32;
/// Body of an acknowledgement that names no ranges, and of the largest one, bytes.
pub(super) const BARE_ACK: usize = 17;
pub(super) const MAX_ACK: usize = BARE_ACK + 4 * crate::wire::session::MAX_FLOW_ACK_RANGES;

/// One place in the window.
#[derive(Debug)]
enum Place {
    Missing,
    Held(Held),
    /// Handed to the application.
    Done,
}

#[derive(Debug)]
struct Held {
    /// None if the segment has no bytes.
    packet: Option<Packet>,
    flags: SegmentFlags,
    mark: bool,
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Kept; it has this number.
    New(u64),
    /// It was there.
    Duplicate,
    /// It is beyond the limit, or the receivers' share of the pool is used up.
    NoRoom,
    /// The pool is drawn down.
    NoPacket,
    /// It contradicts what was received before.
    Malformed,
}

/// What the pool has left for receivers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Packets for any segment.
    pub(super) ordinary: usize,
    /// Packets for the first segments of a flow, which complete messages.
    pub(super) complete: usize,
}

/// A message, from its first to its last segment.
pub(super) type Span = (u64, u64);

/// The receiving half of a flow.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) key: FlowKey,
    pub(super) session: u32,
    pub(super) ordered: bool,
    pub(super) stream: bool,
    /// Entries of the session's inbox that refer to this flow.
    pub(super) ready: u32,
    /// The flow is over: nothing more arrives, what is ready is still delivered.
    pub(super) over: bool,
    /// Whether it stands in the shard's list of acknowledgements to send.
    pub(super) queued: bool,
    pub(super) unread: u64,
    /// Number of the first place in `ring`.
    base: u64,
    ring: VecDeque<Place>,
    /// First number not received.
    cumulative: u64,
    /// In ordered flows: where the next message starts, and how far it was looked at.
    frontier: u64,
    scanned: u64,
    /// Segments held that are not part of a message handed on, in datagram flows.
    loose: usize,
    fin: Option<u64>,
    promised: u64,
    marks: u32,
    unacknowledged: u32,
    ack_at: Option<Instant>,
    gap_at: Option<Instant>,
    heard: Instant,
}

impl Receiver {
    pub(super) fn new(now: Instant, key: FlowKey, session: u32, flags: SegmentFlags) -> Receiver {
        Receiver {
            key,
            session,
            ordered: flags.ordered,
            stream: flags.stream,
            ready: 0,
            over: false,
            queued: false,
            unread: 0,
            base: 0,
            ring: VecDeque::new(),
            cumulative: 0,
            frontier: 0,
            scanned: 0,
            loose: 0,
            fin: None,
            promised: FIRST_WINDOW,
            marks: 0,
            unacknowledged: 0,
            ack_at: None,
            gap_at: None,
            heard: now,
        }
    }

    /// One past the largest number received.
    fn next(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    /// Places of its window in use, gaps included.
    pub(super) fn span(&self) -> usize {
        self.ring.len()
    }

    /// Whether everything up to the end was received; then the number after it.
    pub(super) fn finished(&self) -> Option<u64> {
        self.fin.map(|fin| fin + 1).filter(|end| self.cumulative == *end || broken(Rule::FlowEnd))
    }

    /// Whether a datagram flow that ends now leaves a hole: something was received (and so acknowledged) that is not
    /// handed on and never will be, or something was not received that has a successor.
    pub(super) fn has_fragments(&self) -> bool {
        self.cumulative < self.next() || self.loose > 0
    }

    /// Takes a segment in.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        mark: bool,
        room: Room,
        pool: &mut Pool,
        shelf: &mut Shelf,
    ) -> Arrival {
        self.heard = now;
        let sequence = expand(self.next(), segment.sequence);
        let place = sequence.checked_sub(self.base).map(|at| self.ring.get(at as usize));
        if !matches!(place, Some(None | Some(Place::Missing))) {
            let again = place.is_some() && broken(Rule::SessionDuplicates);
            return if again { Arrival::New(sequence) } else { Arrival::Duplicate };
        }
        let flags = segment.flags;
        let after_end = self.fin.is_some_and(|fin| sequence > fin) || (flags.fin && sequence + 1 < self.next());
        if after_end || flags.ordered != self.ordered || flags.stream != self.stream {
            return Arrival::Malformed;
        }
        let completes = sequence < self.base + FIRST_WINDOW && room.complete > 0;
        if sequence >= self.promised || (room.ordinary == 0 && !completes) {
            return Arrival::NoRoom;
        }
        let packet = if segment.bytes.is_empty() {
            None
        } else if let Some(packet) = shelf.copy_in(pool, segment.bytes) {
            Some(packet)
        } else {
            return Arrival::NoPacket;
        };
        self.unread += segment.bytes.len() as u64;
        self.put(sequence, Held { packet, flags, mark });
        Arrival::New(sequence)
    }

    fn put(&mut self, sequence: u64, held: Held) {
        while self.next() <= sequence {
            self.ring.push_back(Place::Missing);
        }
        self.marks = self.marks.wrapping_add(u32::from(held.mark));
        if held.flags.fin {
            self.fin = Some(sequence);
        }
        self.unacknowledged += 1;
        let at = (sequence - self.base) as usize;
        self.ring[at] = Place::Held(held);
        self.loose += 1;
        while (self.cumulative - self.base < self.ring.len() as u64)
            && !matches!(self.ring[(self.cumulative - self.base) as usize], Place::Missing)
        {
            self.cumulative += 1;
        }
    }

    fn held(&self, sequence: u64) -> Option<&Held> {
        match self.ring.get(sequence.checked_sub(self.base)? as usize)? {
            Place::Held(held) => Some(held),
            _ => None,
        }
    }

    /// The next message of an ordered flow that is complete with all before it. An error if what was received cannot be
    /// messages.
    pub(super) fn next_in_order(&mut self, pool: &mut Pool, shelf: &mut Shelf) -> Result<Option<Span>, ()> {
        while self.scanned < self.cumulative {
            let at = self.scanned;
            let flags = self.held(at).expect("what is not yet ready is held").flags;
            let starts = at == self.frontier;
            if starts && is_bare_end(flags) {
                self.consume((at, at), pool, shelf);
                self.loose -= 1;
                (self.frontier, self.scanned) = (at + 1, at + 1);
                continue;
            }
            if flags.first != starts || at - self.frontier >= MAX_MESSAGE_SEGMENTS {
                return Err(());
            }
            self.scanned += 1;
            if flags.last {
                let span = (self.frontier, at);
                self.loose -= (self.scanned - self.frontier) as usize;
                self.frontier = self.scanned;
                return Ok(Some(span));
            }
        }
        Ok(None)
    }

    /// The message of an unordered flow that this new segment completes.
    pub(super) fn completed_by(&mut self, sequence: u64, pool: &mut Pool, shelf: &mut Shelf) -> Option<Span> {
        if is_bare_end(self.held(sequence)?.flags) {
            self.consume((sequence, sequence), pool, shelf);
            self.loose -= 1;
            return None;
        }
        let lowest = sequence.saturating_sub(MAX_MESSAGE_SEGMENTS - 1);
        let mut first = sequence;
        while !self.held(first)?.flags.first {
            first = first.checked_sub(1).filter(|first| *first >= lowest)?;
        }
        let mut last = first;
        while !self.held(last)?.flags.last {
            last += 1;
            if self.held(last)?.flags.first || last - first >= MAX_MESSAGE_SEGMENTS {
                return None;
            }
        }
        if last < sequence {
            return None;
        }
        self.loose -= (last - first + 1) as usize;
        Some((first, last))
    }

    /// Copies the message's bytes to `target`; their count, and whether one of them was marked. None if they are more
    /// than a message may have or `target` holds.
    pub(super) fn copy_message(&self, span: Span, pool: &Pool, target: &mut [u8]) -> Option<(usize, bool)> {
        let (mut len, mut mark) = (0, false);
        for sequence in span.0..=span.1 {
            let held = self.held(sequence).expect("a message that is ready is held");
            mark |= held.mark;
            let Some(packet) = &held.packet else { continue };
            let bytes = pool.bytes(packet);
            if len + bytes.len() > MAX_PAYLOAD {
                return None;
            }
            target.get_mut(len..len + bytes.len())?.copy_from_slice(bytes);
            len += bytes.len();
        }
        Some((len, mark))
    }

    /// Copies what follows in a stream to `target`, as much as fits whole segments: the span and its bytes' count. None
    /// if nothing follows yet.
    pub(super) fn copy_stream(&self, pool: &Pool, target: &mut [u8]) -> Option<(Span, usize)> {
        let (mut len, mut end) = (0, self.base);
        while end < self.cumulative {
            let held = self.held(end).expect("a stream's places are held until they are read");
            if let Some(packet) = &held.packet {
                let bytes = pool.bytes(packet);
                let Some(room) = target.get_mut(len..len + bytes.len()) else { break };
                room.copy_from_slice(bytes);
                len += bytes.len();
            }
            end += 1;
        }
        (end > self.base).then(|| ((self.base, end - 1), len))
    }

    /// Whether the stream has something to read.
    pub(super) const fn is_readable(&self) -> bool {
        self.base < self.cumulative
    }

    /// The end of what a datagram flow brought, if the application has all of it.
    pub(super) fn read_up_to(&self) -> Option<u64> {
        (!self.stream && self.ring.is_empty()).then_some(self.base)
    }

    /// Whether the stream was read to its end.
    pub(super) fn is_read_out(&self) -> bool {
        self.fin.is_some_and(|fin| self.base > fin || broken(Rule::StreamEnd))
    }

    /// The application has these: their packets go back, the window moves on.
    pub(super) fn consume(&mut self, span: Span, pool: &mut Pool, shelf: &mut Shelf) {
        for sequence in span.0..=span.1 {
            let at = (sequence - self.base) as usize;
            let Place::Held(held) = std::mem::replace(&mut self.ring[at], Place::Done) else {
                panic!("only what is held is consumed");
            };
            if let Some(packet) = held.packet {
                self.unread -= packet.len() as u64;
                shelf.release(pool, packet);
            }
        }
        while matches!(self.ring.front(), Some(Place::Done)) {
            self.ring.pop_front();
            self.base += 1;
        }
    }

    /// Gives all packets back; the flow is over and nothing of it is ready.
    pub(super) fn release(&mut self, pool: &mut Pool, shelf: &mut Shelf) {
        for place in self.ring.drain(..) {
            if let Place::Held(Held { packet: Some(packet), .. }) = place {
                shelf.release(pool, packet);
            }
        }
        self.unread = 0;
    }

    /// Notes that a segment came; whether an acknowledgement is to be sent at once.
    pub(super) fn note_arrival(&mut self, now: Instant, ask: bool, settings: &Settings, rng: &mut Rng) -> bool {
        if self.cumulative == self.next() {
            self.gap_at = None;
        } else if self.gap_at.is_none() {
            self.gap_at = Some(now + settings.gap_delay);
        }
        if ask || self.unacknowledged >= settings.ack_every {
            return true;
        }
        if self.ack_at.is_none() {
            self.ack_at = Some(now + settings.ack_delay + rng.jitter(settings.ack_delay / 2, 1.0));
        }
        false
    }

    /// First number that there is no room for, when `left` packets are left of the receivers' share. Never moves back.
    fn limit(&self, left: usize, settings: &Settings) -> u64 {
        let window = (left as u64 / 2).clamp(FIRST_WINDOW, settings.receive_window);
        self.promised.max(self.base + window)
    }

    /// Whether the sender, which may be waiting, should hear of the room there is now.
    pub(super) fn should_announce(&self, left: usize, settings: &Settings) -> bool {
        let narrow = self.promised.saturating_sub(self.next()) < NARROW;
        !self.over && narrow && self.fin.is_none() && self.limit(left, settings) >= self.promised + NARROW
    }

    /// Writes an acknowledgement of everything received.
    pub(super) fn write_ack(&mut self, left: usize, settings: &Settings, buffer: &mut [u8; MAX_ACK]) -> usize {
        self.promised = self.limit(left, settings);
        (self.unacknowledged, self.ack_at) = (0, None);
        let mut writer = Writer::new(buffer);
        let ranges = self.ranges();
        let invented = u64::from(self.cumulative < self.next() && broken(Rule::AckHeld));
        FlowAck::emit(&mut writer, self.key.flow, self.cumulative + invented, self.promised, self.marks, ranges)
            .expect("the buffer has the largest acknowledgement's size");
        writer.len()
    }

    /// What was received beyond the cumulative number, as inclusive ranges.
    fn ranges(&self) -> impl Iterator<Item = Span> {
        let mut at = self.cumulative;
        std::iter::from_fn(move || {
            let missing = |at: u64| matches!(self.ring.get((at - self.base) as usize), Some(Place::Missing));
            while missing(at) {
                at += 1;
            }
            let first = at;
            while at < self.next() && !missing(at) {
                at += 1;
            }
            (first < at).then(|| (first, at - 1))
        })
    }

    /// When [`Receiver::handle_timeout`] has something to do.
    pub(super) fn deadline(&self, settings: &Settings) -> Option<Instant> {
        if self.over {
            return None;
        }
        [self.ack_at, self.gap_at, self.silent_at(settings)].into_iter().flatten().min()
    }

    fn silent_at(&self, settings: &Settings) -> Option<Instant> {
        let patience = if self.stream { settings.stream_silence } else { settings.silence };
        // A stream that has ended is silent by right.
        (!self.stream || self.finished().is_none()).then(|| self.heard + patience)
    }

    /// Whether an acknowledgement is due, and whether the sender has been silent for too long.
    pub(super) fn handle_timeout(&mut self, now: Instant, settings: &Settings) -> (bool, bool) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let ack = due(self.ack_at) || due(self.gap_at);
        if due(self.gap_at) {
            self.gap_at = None;
        }
        if due(self.ack_at) {
            self.ack_at = None;
        }
        (ack, due(self.silent_at(settings)))
    }
}

/// Whether a segment of a datagram flow only ends it.
const fn is_bare_end(flags: SegmentFlags) -> bool {
    flags.fin && !flags.first && !flags.last
}
