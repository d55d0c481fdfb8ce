//! From the network: messages for this router.

use super::FlowKey;
use super::reassembly::{DatagramKey, Joined};
use super::receiver::{Arrival, Receiver, Room};
use super::sessions::Sessions;
use super::settings::Settings;
use super::state::{Kind, Ready, Session};
use super::tombstones::Epitaph;
use crate::base::limits::DEFAULT_TTL;
use crate::base::sabotage::{Rule, broken};
use crate::base::{Instant, Port};
use crate::containers::Pool;
use crate::containers::pool::Urgency;
use crate::telemetry::DropReason;
use crate::wire::Malformed;
use crate::wire::client::{Endpoint, Record};
use crate::wire::message::{Header, Protocol};
use crate::wire::session::{ECHO_HEADER_LEN, Echo, FlowAck, FlowReset, Fragment, ResetReason, Segment, SegmentFlags};

const fn source(header: &Header) -> Endpoint {
    Endpoint { node: header.source, port: header.source_port }
}

const fn key(header: &Header, flow: u32) -> FlowKey {
    FlowKey { peer: source(header), port: header.destination_port, flow }
}

impl Sessions {
    /// A message for this router: its header and what follows it.
    pub fn handle_message(&mut self, now: Instant, header: &Header, body: &[u8], pool: &mut Pool) {
        let understood = match header.protocol {
            Protocol::Datagram => Fragment::parse(body).map(|fragment| self.fragment(now, header, &fragment, pool)),
            Protocol::Segment => Segment::parse(body).map(|segment| self.segment(now, header, &segment, pool)),
            Protocol::FlowAck => FlowAck::parse(body).and_then(|ack| self.flow_ack(now, header, &ack, pool)),
            Protocol::FlowReset => FlowReset::parse(body).map(|reset| self.flow_reset(now, header, reset, pool)),
            Protocol::Echo => Echo::parse(body).map(|echo| self.answer_echo(header, Protocol::EchoReply, &echo, pool)),
            Protocol::EchoReply => Echo::parse(body).map(|echo| self.echo_answer(now, header, false, &echo)),
            Protocol::EchoExpired => Echo::parse(body).map(|echo| self.echo_answer(now, header, true, &echo)),
            // No session's.
            Protocol::Control => Err(Malformed::UnknownType),
        };
        if understood.is_err() {
            self.count(DropReason::Malformed);
        }
    }

    /// An echo whose ttl ran out at this router: its source is told, within the bound on such notes.
    pub fn handle_expired(&mut self, now: Instant, header: &Header, body: &[u8], pool: &mut Pool) {
        if header.protocol != Protocol::Echo || !self.notices.allow(now) {
            return;
        }
        match Echo::parse(body) {
            Ok(echo) => self.answer_echo(header, Protocol::EchoExpired, &echo, pool),
            Err(_) => self.count(DropReason::Malformed),
        }
    }

    /// An echo carries in `hops` the ttl it started with; its answer carries there how many links it had crossed. Its
    /// source counted the ttl down, too, when it sent it over the first link, so that is exactly the difference.
    fn answer_echo(&mut self, header: &Header, protocol: Protocol, echo: &Echo<'_>, pool: &mut Pool) {
        let answer = Echo { hops: echo.hops.saturating_sub(header.ttl), ..*echo };
        let header = self.header(protocol, header.class, DEFAULT_TTL, source(header), header.destination_port);
        let len = ECHO_HEADER_LEN + answer.bytes.len();
        self.push_message(header, len, Urgency::Ordinary, pool, |writer| answer.emit(writer));
    }

    fn echo_answer(&mut self, now: Instant, header: &Header, expired: bool, echo: &Echo<'_>) {
        let Some(index) = self.datagram_session(header.destination_port) else {
            return self.count(DropReason::NoSession);
        };
        let Echo { id, sequence, sent_ns, hops, .. } = *echo;
        let now_ns = now.as_nanos();
        let record = Record::EchoAnswer { expired, node: header.source, id, sequence, hops, sent_ns, now_ns };
        self.notify(index, record);
    }

    /// The datagram session at this port, if its application still reads.
    fn datagram_session(&self, port: Port) -> Option<u32> {
        let index = self.ports.holder(port)?;
        let session = self.session(index);
        (matches!(session.kind, Kind::Datagram) && !session.lingering).then_some(index)
    }

    fn fragment(&mut self, now: Instant, header: &Header, fragment: &Fragment<'_>, pool: &mut Pool) {
        let Some(index) = self.datagram_session(header.destination_port) else {
            return self.count(DropReason::NoSession);
        };
        let full = self.received.left(pool, self.settings.receive_percent) == 0;
        if full || self.session(index).waiting >= self.settings.inbox {
            return self.count(DropReason::ReceiverSlow);
        }
        let (from, class) = (source(header), header.class);
        if fragment.last == 0 {
            let Some(packet) = self.received.copy_in(pool, fragment.bytes) else {
                return self.count(DropReason::PoolExhausted);
            };
            self.session_mut(index).waiting += 1;
            return self.push_ready(index, Ready::Packet { from, class, mark: header.mark, packet });
        }
        let key = DatagramKey { from, port: header.destination_port, message: fragment.message };
        match self.reassembly.join(now, key, fragment, header.mark, pool, &mut self.received) {
            Joined::Kept => {}
            Joined::Whole(parts, mark) => {
                self.session_mut(index).waiting += parts.len();
                self.push_ready(index, Ready::Parts { from, class, mark, parts });
            }
            Joined::Duplicate => self.count(DropReason::Duplicate),
            Joined::Malformed => self.count(DropReason::Malformed),
            Joined::NoPacket => self.count(DropReason::PoolExhausted),
        }
        self.count_given_up();
    }

    fn segment(&mut self, now: Instant, header: &Header, segment: &Segment<'_>, pool: &mut Pool) {
        let key = key(header, segment.flow);
        let known = self.receiver_keys.get(&key).copied();
        let Some(at) = known.or_else(|| self.open_receiver(now, key, segment.flags, pool)) else { return };
        let Settings { receive_percent, complete_percent, .. } = self.settings;
        let room = Room {
            ordinary: self.received.left(pool, receive_percent),
            complete: self.received.left(pool, receive_percent + complete_percent),
        };
        let receiver = self.receivers.get_mut(at).expect("a known flow lives");
        match receiver.accept(now, segment, header.mark, room, pool, &mut self.received) {
            Arrival::New(sequence) => self.sort(now, at, sequence, pool),
            // Without bytes it only asks.
            Arrival::Duplicate if segment.bytes.is_empty() => {}
            Arrival::Duplicate => self.count(DropReason::Duplicate),
            Arrival::NoRoom => self.count(DropReason::ReceiverSlow),
            Arrival::NoPacket => self.count(DropReason::PoolExhausted),
            Arrival::Malformed => return self.count(DropReason::Malformed),
        }
        self.hear_of_peer(now, at);
        let Some(receiver) = self.receivers.get_mut(at).filter(|receiver| !receiver.over) else { return };
        let ask = segment.flags.ack_now || segment.flags.fin;
        if receiver.note_arrival(now, ask, &self.settings, &mut self.rng) {
            self.queue_ack(at);
        }
        self.watch_receiver(at);
    }

    /// What a stream receives is a sign of life for its other direction.
    fn hear_of_peer(&mut self, now: Instant, at: u32) {
        let session = self.receivers.get_mut(at).filter(|receiver| receiver.stream).map(|receiver| receiver.session);
        let sender = session.and_then(|session| self.session(session).stream()?.sender);
        if let Some(sender) = sender.and_then(|sender| self.senders.get_mut(sender)) {
            sender.peer_lives(now);
        }
    }

    /// State for an unknown flow, if it may open and someone waits for it; otherwise its sender is told.
    fn open_receiver(&mut self, now: Instant, key: FlowKey, flags: SegmentFlags, pool: &mut Pool) -> Option<u32> {
        if let Some(epitaph) = self.tombstones.get(now, &key) {
            self.count(DropReason::Duplicate);
            match epitaph {
                Epitaph::Finished(end) => self.send_final_ack(now, key, end, pool),
                Epitaph::Reset(reason) => self.send_reset(now, key, true, reason, pool),
                Epitaph::Abandoned => self.send_reset(now, key, true, ResetReason::UnknownFlow, pool),
            }
            return None;
        }
        if flags.open && self.ports.holder(key.port).is_some() && !self.tombstones.has_room(now, key.peer.node) {
            // Its sender repeats it; without a place to remember its end, it could open again and be delivered twice.
            self.count(DropReason::FlowRefused);
            return None;
        }
        let session = match self.session_for(now, key, flags) {
            Ok(session) => session,
            Err(reason) => {
                self.count(DropReason::NoSession);
                self.send_reset(now, key, true, reason, pool);
                return None;
            }
        };
        let at = self.receivers.insert(Receiver::new(now, key, session, flags)).expect("there was room");
        self.receiver_keys.insert(key, at);
        self.receivers_of.insert((session, at));
        self.tombstones.reserve(key.peer.node);
        if let Some(stream) = self.session_mut(session).stream_mut() {
            stream.receiver = Some(at);
            self.connect(session);
        }
        Some(at)
    }

    /// The session that a new flow belongs to.
    fn session_for(&mut self, now: Instant, key: FlowKey, flags: SegmentFlags) -> Result<u32, ResetReason> {
        if !flags.open {
            return Err(ResetReason::UnknownFlow);
        }
        let Some(index) = self.ports.holder(key.port) else { return Err(ResetReason::NoSession) };
        if self.receivers.is_full() {
            return Err(ResetReason::Refused);
        }
        let Session { kind, lingering, .. } = self.session(index);
        match kind {
            _ if *lingering => Err(ResetReason::Closed),
            Kind::Datagram if !flags.stream => Ok(index),
            Kind::Listener { .. } if flags.stream => {
                self.insert_incoming(now, index, key.peer).ok_or(ResetReason::Refused)
            }
            Kind::Stream(stream) if flags.stream && stream.peer == key.peer => {
                let awaited = stream.receiver.is_none() && !stream.read_out && !stream.reset;
                if awaited { Ok(index) } else { Err(ResetReason::Refused) }
            }
            _ => Err(ResetReason::NoSession),
        }
    }

    /// The peer of a stream we opened has answered.
    fn connect(&mut self, index: u32) {
        let Some(stream) = self.session_mut(index).stream_mut() else { return };
        if !std::mem::replace(&mut stream.connected, true) {
            let peer = stream.peer;
            self.push_ready(index, Ready::Notice(Record::Connected(peer)));
        }
    }

    /// Hands on what a new segment made ready.
    fn sort(&mut self, now: Instant, at: u32, sequence: u64, pool: &mut Pool) {
        let receiver = self.receivers.get_mut(at).expect("the flow lives");
        let session = receiver.session;
        if receiver.stream {
            if receiver.is_readable() && receiver.ready == 0 {
                receiver.ready = 1;
                self.push_ready(session, Ready::Bytes { receiver: at });
            }
            return;
        }
        loop {
            let receiver = self.receivers.get_mut(at).expect("the flow lives");
            let span = if receiver.ordered && !broken(Rule::Order) {
                receiver.next_in_order(pool, &mut self.received)
            } else {
                Ok(receiver.completed_by(sequence, pool, &mut self.received))
            };
            let once = !receiver.ordered || broken(Rule::Order);
            match span {
                Ok(Some(span)) => {
                    receiver.ready += 1;
                    self.push_ready(session, Ready::Message { receiver: at, span });
                }
                Ok(None) => break,
                Err(_) => return self.refuse_flow(now, at, pool),
            }
            if once {
                break;
            }
        }
        let receiver = self.receivers.get(at).expect("the flow lives");
        if let Some(end) = receiver.finished() {
            if receiver.has_fragments() {
                return self.refuse_flow(now, at, pool);
            }
            let key = receiver.key;
            self.end_receiver(now, at, Epitaph::Finished(end), pool);
            self.send_final_ack(now, key, end, pool);
        }
    }

    /// What came in this flow cannot be messages.
    fn refuse_flow(&mut self, now: Instant, at: u32, pool: &mut Pool) {
        self.count(DropReason::Malformed);
        let key = self.receivers.get(at).expect("the flow lives").key;
        self.send_reset(now, key, true, ResetReason::Refused, pool);
        self.break_receiver(now, at, Epitaph::Reset(ResetReason::Refused), ResetReason::Refused, pool);
    }

    fn flow_ack(
        &mut self,
        now: Instant,
        header: &Header,
        ack: &FlowAck<'_>,
        pool: &mut Pool,
    ) -> Result<(), crate::wire::Malformed> {
        // Of a flow that is over already: late, but harmless.
        let Some(&at) = self.sender_keys.get(&key(header, ack.flow)) else { return Ok(()) };
        let sender = self.senders.get_mut(at).expect("a known flow lives");
        let (session, stream) = (sender.session, sender.stream);
        let progress = sender.handle_ack(now, ack, &self.settings, pool, &mut self.kept)?;
        if progress.opened && stream {
            self.connect(session);
        }
        if !progress.finished {
            self.wake_sender(at);
            self.retry_pending(now, session, pool);
            return Ok(());
        }
        self.remove_sender(at, pool);
        if let Some(stream) = self.session_mut(session).stream_mut() {
            (stream.sender, stream.sent_out) = (None, true);
            self.advance_stream(now, session, pool);
        } else {
            self.retry_pending(now, session, pool);
            self.advance_linger(now, session, pool);
        }
        Ok(())
    }

    fn flow_reset(&mut self, now: Instant, header: &Header, reset: FlowReset, pool: &mut Pool) {
        let (key, reason) = (key(header, reset.flow), reset.reason);
        if reset.by_receiver {
            let Some(&at) = self.sender_keys.get(&key) else { return };
            let (session, stream) = (self.sender(at).session, self.sender(at).stream);
            // Who has said everything may be gone when this end first speaks: what it said can still be read.
            let said_all = || self.incoming(session).is_some_and(|receiver| receiver.finished().is_some());
            if stream && (reason == ResetReason::Closed || said_all()) {
                self.break_stream(now, session, reason, pool);
            } else {
                self.fail_sender(now, at, reason, false, pool);
            }
            return;
        }
        let Some(&at) = self.receiver_keys.get(&key) else { return };
        let receiver = self.receivers.get(at).expect("a known flow lives");
        if receiver.stream {
            return self.reset_stream(now, receiver.session, reason, false, pool);
        }
        self.break_receiver(now, at, Epitaph::Abandoned, reason, pool);
    }

    /// The flow that a stream reads from.
    fn incoming(&self, index: u32) -> Option<&Receiver> {
        self.receivers.get(self.session(index).stream()?.receiver?)
    }

    /// The peer does not read any more, but what it has still to say may be on its way.
    fn break_stream(&mut self, now: Instant, index: u32, reason: ResetReason, pool: &mut Pool) {
        let Some(stream) = self.session_mut(index).stream_mut() else { return };
        if stream.read_out || stream.receiver.is_none() {
            return self.reset_stream(now, index, reason, false, pool);
        }
        stream.broken = Some(reason);
        if let Some(sender) = stream.sender.take() {
            self.remove_sender(sender, pool);
        }
        self.abandon_pending(index);
    }
}
