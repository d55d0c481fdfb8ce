//! The sending half of a reliable flow.

use super::FlowKey;
use super::roundtrip::RoundTrip;
use super::settings::{FIRST_WINDOW, Settings};
use super::shelf::Shelf;
use super::window::{Acked, Window};
use crate::base::limits::MAX_MESSAGE;
use crate::base::seq::{expand, truncate};
use crate::base::{Class, Instant, NodeId};
use crate::containers::pool::Urgency;
use crate::containers::{Packet, Pool};
use crate::wire::Malformed;
use crate::wire::cursor::Writer;
use crate::wire::message::{HEADER_LEN, Header, Protocol};
use crate::wire::session::{FlowAck, MAX_FLOW_ACK_RANGES, MAX_SEGMENT, SEGMENT_HEADER_LEN, Segment, SegmentFlags};
use std::collections::VecDeque;
use std::time::Duration;

/// Questions in a row that go unanswered before a flow can be given up: time alone is no proof, for it also passes while
/// this very process is frozen. The last of them has [`INSISTENCE`] to be answered: after a freeze the links come up anew.
const QUESTIONS: u32 = 4;
/// Longest pause between questions that go unanswered, unless the round trip is longer: fifteen fit into the time after
/// which a flow is given up, so that a lossy path with a living peer behind it is not taken for a dead peer.
const INSISTENCE: Duration = Duration::from_secs(2);
/// Who did not ask for so long, though it had to, was frozen: what it asked before counts no more.
const FROZEN: Duration = Duration::from_secs(8);

/// Room before the bytes of a kept segment, where its headers go when it is sent.
const HEADERS: usize = HEADER_LEN + SEGMENT_HEADER_LEN;
/// A segment that is not yet acknowledged with all before it.
#[derive(Debug)]
struct Kept {
    /// Its bytes behind room for the headers; none if it has no bytes or was acknowledged.
    packet: Option<Packet>,
    len: usize,
    flags: SegmentFlags,
    ttl: u8,
    acked: bool,
    lost: bool,
    /// When it was last sent, and how often.
    sent: Instant,
    times: u32,
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// It was the first of the flow.
    pub(super) opened: bool,
    /// Everything up to the end of the flow is acknowledged.
    pub(super) finished: bool,
}

/// What a sender's timer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// There may be something to send.
    Transmit,
    /// Nothing was sent or asked for long: the flow can be ended.
    Idle,
    /// The peer does not answer.
    GiveUp,
}

/// The sending half of a flow.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) key: FlowKey,
    pub(super) session: u32,
    pub(super) ordered: bool,
    pub(super) stream: bool,
    /// Whether it stands in the shard's round of senders with something to send.
    pub(super) queued: bool,
    pub(super) repeated: u64,
    queue: VecDeque<Kept>,
    /// Number of the first segment in `queue`, and of the first one never sent.
    base: u64,
    next: u64,
    limit: u64,
    fin: Option<u64>,
    opened: bool,
    in_flight: usize,
    lost: usize,
    /// No segment before this one is marked lost.
    lost_from: u64,
    unacknowledged: u64,
    window: Window,
    round_trip: RoundTrip,
    backoff: u32,
    /// When something was last repeated or asked: what was sent before gives no round-trip sample any more, for the
    /// acknowledgement may be the answer to that (Karn's rule, RFC 6298 section 3).
    repeated_at: Instant,
    /// An acknowledgement is to be asked for.
    probe: bool,
    probed: Instant,
    /// Since when an answer is awaited; none if nothing is.
    asked: Option<Instant>,
    /// Questions sent since then.
    unanswered: u32,
    /// When there were [`QUESTIONS`] of them.
    doubted: Option<Instant>,
    heard: Instant,
    progress: Instant,
    used: Instant,
    rerouted: Option<Instant>,
    probes: [Option<Instant>; 2],
}

impl Sender {
    /// A flow that sends at most `most` segments ahead.
    pub(super) fn new(now: Instant, key: FlowKey, session: u32, ordered: bool, stream: bool, most: u32) -> Sender {
        Sender {
            key,
            session,
            ordered,
            stream,
            queued: false,
            repeated: 0,
            queue: VecDeque::new(),
            base: 0,
            next: 0,
            limit: FIRST_WINDOW,
            fin: None,
            opened: false,
            in_flight: 0,
            lost: 0,
            lost_from: 0,
            unacknowledged: 0,
            window: Window::new(most),
            round_trip: RoundTrip::default(),
            backoff: 0,
            repeated_at: Instant::ZERO,
            probe: false,
            probed: now,
            asked: None,
            unanswered: 0,
            doubted: None,
            heard: now,
            progress: now,
            used: now,
            rerouted: None,
            probes: [None; 2],
        }
    }

    /// Segments kept, sent or not.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes not acknowledged.
    pub(super) const fn unacknowledged(&self) -> u64 {
        self.unacknowledged
    }

    /// Whether all it was given is acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) const fn is_ending(&self) -> bool {
        self.fin.is_some()
    }

    pub(super) const fn used(&self) -> Instant {
        self.used
    }

    #[cfg(test)]
    pub(super) const fn window(&self) -> usize {
        self.window.segments()
    }

    /// Appends an application message, whole. The caller has made sure that the pool has room; false if it has not
    /// after all (nothing is appended then).
    pub(super) fn push_message(
        &mut self,
        now: Instant,
        ttl: u8,
        bytes: &[u8],
        pool: &mut Pool,
        shelf: &mut Shelf,
    ) -> bool {
        let count = bytes.len().div_ceil(MAX_SEGMENT).max(1);
        let before = self.queue.len();
        for index in 0..count {
            let part = &bytes[index * MAX_SEGMENT..bytes.len().min((index + 1) * MAX_SEGMENT)];
            let flags = SegmentFlags { first: index == 0, last: index + 1 == count, ..self.flags() };
            if !self.push(flags, ttl, part, part.len(), pool, shelf) {
                self.shorten(before, pool, shelf);
                return false;
            }
        }
        self.used = now;
        true
    }

    /// Appends stream bytes, filling up the last segment if it was not sent yet. False as for messages.
    pub(super) fn push_bytes(
        &mut self,
        now: Instant,
        ttl: u8,
        bytes: &[u8],
        pool: &mut Pool,
        shelf: &mut Shelf,
    ) -> bool {
        let room = self.room_in_last();
        let (head, tail) = bytes.split_at(room.min(bytes.len()));
        let before = self.queue.len();
        for part in tail.chunks(MAX_SEGMENT) {
            if !self.push(self.flags(), ttl, part, MAX_SEGMENT, pool, shelf) {
                self.shorten(before, pool, shelf);
                return false;
            }
        }
        if !head.is_empty() {
            let last = &mut self.queue[before - 1];
            let packet = last.packet.as_mut().expect("a segment with room has a packet");
            let start = HEADERS + last.len;
            pool.bytes_mut(packet)[start..start + head.len()].copy_from_slice(head);
            last.len += head.len();
            self.unacknowledged += head.len() as u64;
        }
        self.used = now;
        true
    }

    /// Appends a segment without bytes that opens the flow.
    pub(super) fn push_opening(&mut self, ttl: u8) {
        self.push_empty(self.flags(), ttl);
    }

    /// Nothing follows what was appended so far.
    pub(super) fn finish(&mut self, now: Instant, ttl: u8) {
        if self.fin.is_some() {
            return;
        }
        self.used = now;
        let end = self.base + self.queue.len() as u64;
        match self.queue.back_mut() {
            Some(last) if end > self.next => {
                last.flags.fin = true;
                self.fin = Some(end - 1);
            }
            _ => {
                self.push_empty(SegmentFlags { fin: true, ..self.flags() }, ttl);
                self.fin = Some(end);
            }
        }
    }

    const fn flags(&self) -> SegmentFlags {
        SegmentFlags {
            open: false,
            first: false,
            last: false,
            fin: false,
            ack_now: false,
            ordered: self.ordered,
            stream: self.stream,
        }
    }

    /// Bytes that the last segment can still take: it is unsent and has a packet.
    fn room_in_last(&self) -> usize {
        let unsent = self.base + self.queue.len() as u64 > self.next;
        match self.queue.back() {
            Some(last) if unsent && last.packet.is_some() => MAX_SEGMENT - last.len,
            _ => 0,
        }
    }

    fn push(
        &mut self,
        flags: SegmentFlags,
        ttl: u8,
        bytes: &[u8],
        room: usize,
        pool: &mut Pool,
        shelf: &mut Shelf,
    ) -> bool {
        if bytes.is_empty() {
            self.push_empty(flags, ttl);
            return true;
        }
        let Some(mut packet) = shelf.take(pool, HEADERS + room) else { return false };
        pool.bytes_mut(&mut packet)[HEADERS..HEADERS + bytes.len()].copy_from_slice(bytes);
        self.push_empty(flags, ttl);
        let last = self.queue.back_mut().expect("just appended");
        (last.packet, last.len) = (Some(packet), bytes.len());
        self.unacknowledged += bytes.len() as u64;
        true
    }

    fn push_empty(&mut self, flags: SegmentFlags, ttl: u8) {
        assert!(self.fin.is_none(), "nothing follows the end");
        let (acked, lost) = (false, false);
        self.queue.push_back(Kept { packet: None, len: 0, flags, ttl, acked, lost, sent: Instant::ZERO, times: 0 });
    }

    fn shorten(&mut self, len: usize, pool: &mut Pool, shelf: &mut Shelf) {
        for kept in self.queue.drain(len..) {
            self.unacknowledged -= if kept.acked { 0 } else { kept.len as u64 };
            if let Some(packet) = kept.packet {
                shelf.release(pool, packet);
            }
        }
    }

    /// Gives all packets back; the flow is over.
    pub(super) fn release(&mut self, pool: &mut Pool, shelf: &mut Shelf) {
        self.shorten(0, pool, shelf);
    }

    /// Whether [`Sender::transmit`] has something.
    pub(super) fn wants_to_send(&self) -> bool {
        self.lost > 0 || self.probe || self.may_send_new()
    }

    fn may_send_new(&self) -> bool {
        let end = self.base + self.queue.len() as u64;
        self.next < end && self.next < self.limit && self.in_flight < self.window.segments()
    }

    /// The next message of this flow; none if there is none or the pool has no packet for it.
    pub(super) fn transmit(&mut self, now: Instant, node: NodeId, pool: &mut Pool) -> Option<(Header, Packet)> {
        if self.lost > 0 {
            let from = self.lost_from.saturating_sub(self.base) as usize;
            let at = from + self.queue.range(from..).position(|kept| kept.lost).expect("one is marked lost");
            self.lost_from = self.base + at as u64;
            return self.send(now, node, at, self.lost == 1, pool);
        }
        if self.probe {
            // What is missing first is the likeliest loss, so repeating it asks and mends at once.
            return if self.base < self.next { self.send(now, node, 0, true, pool) } else { self.ask(now, node, pool) };
        }
        if self.may_send_new() {
            let at = (self.next - self.base) as usize;
            return self.send(now, node, at, self.is_turning_point(at), pool);
        }
        None
    }

    /// Whether nothing can follow this new segment, or the flow opens or ends with it: an early answer helps.
    fn is_turning_point(&self, at: usize) -> bool {
        let window = self.window.segments();
        let fills_window = window < FIRST_WINDOW as usize && self.in_flight + 1 >= window;
        self.next == 0 || self.queue[at].flags.fin || fills_window || self.next + 1 == self.limit
    }

    fn send(&mut self, now: Instant, node: NodeId, at: usize, ask: bool, pool: &mut Pool) -> Option<(Header, Packet)> {
        let sequence = self.base + at as u64;
        let flags = SegmentFlags { open: !self.opened, ack_now: ask, ..self.queue[at].flags };
        let ttl = self.queue[at].ttl;
        let sent = self.encode(node, sequence, flags, ttl, self.queue[at].packet.as_ref(), self.queue[at].len, pool)?;
        if sequence == self.next {
            if self.in_flight == 0 {
                self.progress = now;
            }
            self.next += 1;
            self.in_flight += 1;
        } else {
            self.repeated += 1;
            self.repeated_at = now;
        }
        let kept = &mut self.queue[at];
        self.lost -= usize::from(kept.lost);
        (kept.lost, kept.sent, kept.times) = (false, now, kept.times + 1);
        self.note_asked(now, ask);
        Some(sent)
    }

    /// A repeat of the last acknowledged segment without its bytes: a duplicate that only asks for an answer.
    fn ask(&mut self, now: Instant, node: NodeId, pool: &mut Pool) -> Option<(Header, Packet)> {
        let Some(sequence) = self.base.checked_sub(1) else {
            self.probe = false;
            return None;
        };
        let flags = SegmentFlags { ack_now: true, ..self.flags() };
        let sent = self.encode(node, sequence, flags, crate::base::limits::DEFAULT_TTL, None, 0, pool)?;
        self.note_asked(now, true);
        self.repeated_at = now;
        Some(sent)
    }

    fn note_asked(&mut self, now: Instant, ask: bool) {
        self.asked = self.asked.or(Some(now));
        if ask {
            self.forget_before_freeze(now);
            self.unanswered = self.unanswered.saturating_add(1);
            if self.unanswered == QUESTIONS {
                self.doubted = Some(now);
            }
            self.probe = false;
            self.probed = now;
        }
    }

    /// Something of the peer's own flow arrived: it lives, and may answer yet.
    pub(super) fn peer_lives(&mut self, now: Instant) {
        (self.unanswered, self.doubted) = (0, None);
        self.asked = self.asked.map(|_| now);
    }

    fn forget_before_freeze(&mut self, now: Instant) {
        if self.unanswered > 0 && now.since(self.probed) > FROZEN {
            (self.unanswered, self.doubted) = (0, None);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message, each from another place")]
    fn encode(
        &self,
        node: NodeId,
        sequence: u64,
        flags: SegmentFlags,
        ttl: u8,
        packet: Option<&Packet>,
        len: usize,
        pool: &mut Pool,
    ) -> Option<(Header, Packet)> {
        let mut copy = match packet {
            Some(packet) => pool.duplicate(Urgency::Reserved, packet, HEADERS + len)?,
            None => pool.take(Urgency::Reserved, HEADERS)?,
        };
        let header = Header {
            class: Class::Reliable,
            ttl,
            mark: false,
            protocol: Protocol::Segment,
            destination: self.key.peer.node,
            source: node,
            destination_port: self.key.peer.port,
            source_port: self.key.port,
        };
        let bytes = pool.bytes_mut(&mut copy);
        bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        let segment = Segment { flow: self.key.flow, sequence: truncate(sequence), flags, bytes: &[] };
        let mut writer = Writer::new(&mut bytes[HEADER_LEN..HEADERS]);
        segment.emit_header(&mut writer).expect("the room has a segment header's size");
        assert!(HEADERS + len <= MAX_MESSAGE, "a segment fits a message");
        Some((header, copy))
    }

    /// Takes an acknowledgement in.
    pub(super) fn handle_ack(
        &mut self,
        now: Instant,
        ack: &FlowAck<'_>,
        settings: &Settings,
        pool: &mut Pool,
        shelf: &mut Shelf,
    ) -> Result<Progress, Malformed> {
        let cumulative = expand(self.base, ack.cumulative);
        let limit = expand(cumulative, ack.limit);
        if cumulative > self.next || limit < cumulative {
            return Err(Malformed::ForbiddenValue);
        }
        let opened = !self.opened;
        self.opened = true;
        (self.heard, self.unanswered, self.doubted) = (now, 0, None);
        let widened = limit > self.limit;
        self.limit = self.limit.max(limit);
        let in_flight = self.in_flight;
        let reported = self.acknowledge(now, cumulative, ack, pool, shelf);
        let newly = in_flight - self.in_flight;
        if newly > 0 {
            self.progress = now;
        }
        // An answer that changes nothing (the reader is slow) is no reason to ask as often as before.
        if newly > 0 || widened || (self.in_flight == 0 && !self.is_shut_out()) {
            self.backoff = 0;
        }
        self.asked = (self.in_flight > 0).then_some(now);
        self.window.adapt(Acked { marks: ack.marks, in_flight, newly, cumulative, next: self.next });
        self.mark_lost(now, reported, settings);
        let finished = self.fin.is_some_and(|fin| self.base > fin);
        Ok(Progress { opened, finished })
    }

    /// Lets go of what is acknowledged. Up to the number returned, what the receiver has not named it does not have.
    fn acknowledge(
        &mut self,
        now: Instant,
        cumulative: u64,
        ack: &FlowAck<'_>,
        pool: &mut Pool,
        shelf: &mut Shelf,
    ) -> u64 {
        let mut sample: Option<Duration> = None;
        for sequence in self.base..cumulative {
            self.settle((sequence - self.base) as usize, now, &mut sample, pool, shelf);
        }
        let (mut ranges, mut end) = (0, cumulative);
        for (offset, len) in ack.ranges() {
            let first = cumulative + offset;
            for sequence in first.max(self.base)..(first + len).min(self.next) {
                self.settle((sequence - self.base) as usize, now, &mut sample, pool, shelf);
            }
            (ranges, end) = (ranges + 1, first + len);
        }
        while self.base < self.next && self.queue.front().is_some_and(|kept| kept.acked) {
            self.queue.pop_front();
            self.base += 1;
        }
        if let Some(sample) = sample {
            self.round_trip.take_sample(sample);
        }
        if ranges == MAX_FLOW_ACK_RANGES { end.min(self.next) } else { self.next }
    }

    fn settle(&mut self, at: usize, now: Instant, sample: &mut Option<Duration>, pool: &mut Pool, shelf: &mut Shelf) {
        let kept = &mut self.queue[at];
        if std::mem::replace(&mut kept.acked, true) {
            return;
        }
        if kept.times == 1 && kept.sent >= self.repeated_at {
            // Of those acknowledged together the last one sent waited least for the acknowledgement.
            let rtt = now.since(kept.sent);
            *sample = Some(sample.map_or(rtt, |least| least.min(rtt)));
        }
        self.in_flight -= 1;
        self.lost -= usize::from(std::mem::take(&mut kept.lost));
        self.unacknowledged -= kept.len as u64;
        if let Some(packet) = kept.packet.take() {
            shelf.release(pool, packet);
        }
    }

    /// Marks for repetition what should have been named by now.
    fn mark_lost(&mut self, now: Instant, reported: u64, settings: &Settings) {
        let patience = self.pause(settings);
        let answered = |at: Instant| now >= at + self.round_trip.get().max(settings.probe_after[0]);
        let rerouted = self.rerouted.filter(|at| answered(*at));
        let count = reported.saturating_sub(self.base) as usize;
        for (at, kept) in self.queue.iter_mut().take(count).enumerate() {
            let overdue = now.since(kept.sent) >= patience || rerouted.is_some_and(|at| kept.sent < at);
            if overdue && !kept.acked && !kept.lost {
                kept.lost = true;
                let sequence = self.base + at as u64;
                self.lost_from = if self.lost == 0 { sequence } else { self.lost_from.min(sequence) };
                self.lost += 1;
            }
        }
    }

    /// Routes have changed: asks soon whether anything was lost with the old one.
    pub(super) fn reroute(&mut self, now: Instant, probes: [Duration; 2]) {
        if self.in_flight > 0 || self.is_shut_out() {
            self.rerouted = Some(now);
            self.probes = probes.map(|after| Some(now + after));
        }
    }

    /// When [`Sender::handle_timeout`] has something to do.
    pub(super) fn deadline(&self, settings: &Settings) -> Option<Instant> {
        let [first, second] = self.probes;
        [self.repeat_at(settings), self.rest_at(settings), self.give_up_at(settings), first, second]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether there is something to send that the receiver has no room for.
    fn is_shut_out(&self) -> bool {
        self.next >= self.limit && self.base + self.queue.len() as u64 > self.next
    }

    /// How long to wait before the next repeat: longer each time, up to the longest pause if the peer answers (it has
    /// no room), otherwise less long.
    fn pause(&self, settings: &Settings) -> Duration {
        if self.unanswered > 0 {
            let timeout = self.round_trip.timeout(settings);
            return (timeout * (1 << (self.unanswered - 1).min(6))).min(timeout.max(INSISTENCE));
        }
        (self.round_trip.timeout(settings) * (1 << self.backoff.min(6))).min(settings.rto_max)
    }

    /// When to ask or repeat, as nothing was heard.
    fn repeat_at(&self, settings: &Settings) -> Option<Instant> {
        let pause = self.pause(settings);
        match self.queue.front() {
            _ if self.probe || self.lost > 0 => None,
            Some(front) if self.base < self.next => Some(front.sent + pause),
            _ if self.is_shut_out() || self.asked.is_some() => Some(self.probed.max(self.heard) + pause),
            _ => None,
        }
    }

    /// When an idle flow is to be ended or a silent stream's peer asked.
    fn rest_at(&self, settings: &Settings) -> Option<Instant> {
        if !self.queue.is_empty() || self.asked.is_some() || self.probe || self.fin.is_some() {
            return None;
        }
        let pause = if self.stream { settings.keepalive } else { settings.idle };
        Some(if self.stream { self.used.max(self.heard) } else { self.used } + pause)
    }

    /// When the flow is given up: without any answer, or, unless it is a stream, with answers that never acknowledge
    /// what is under way. A stream waits for its reader as long as that lives.
    fn give_up_at(&self, settings: &Settings) -> Option<Instant> {
        // Whoever was frozen asks again first, but not so late that the peer may have forgotten that the flow ended.
        let insisted = |at: Instant| at + self.round_trip.timeout(settings).max(INSISTENCE);
        let silent = self.asked.map(|since| {
            let latest = since + (settings.give_up + settings.tombstone) / 2;
            self.doubted.map_or(latest, |at| insisted(at).max(since + settings.give_up).min(latest))
        });
        let stuck = (self.in_flight > 0 && !self.stream).then_some(self.progress + settings.refused);
        [silent, stuck].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, settings: &Settings) -> Due {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.forget_before_freeze(now);
        if due(self.give_up_at(settings)) {
            return Due::GiveUp;
        }
        for index in 0..self.probes.len() {
            if due(self.probes[index]) {
                self.probes[index] = None;
                self.probe |= self.in_flight > 0 || self.is_shut_out();
            }
        }
        if due(self.repeat_at(settings)) {
            self.backoff += 1;
            self.probe = true;
        } else if due(self.rest_at(settings)) {
            if !self.stream {
                return Due::Idle;
            }
            self.probe = true;
        }
        if self.wants_to_send() { Due::Transmit } else { Due::Nothing }
    }
}
