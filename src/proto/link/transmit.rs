//! The sending side: what the next packet carries.

use super::queue::Allowed;
use super::sent::{Record, State};
use super::{Link, Outgoing, Waited};
use crate::base::limits::MIN_DATAGRAM;
use crate::base::{Class, Instant};
use crate::containers::Pool;
use crate::wire::cursor::{NoRoom, Writer};
use crate::wire::datagram::OVERHEAD;
use crate::wire::frame::{BEST_EFFORT_OVERHEAD, Frame, Hello, RELIABLE_OVERHEAD};
use std::time::Duration;

/// Full datagrams by which repetitions and control messages may exceed the window: what repairs must not wait for
/// what it repairs.
const URGENT_PACKETS: u64 = 2;

impl Link {
    /// Writes the frames of the next packet to `plaintext`, which should hold a largest datagram; none if nothing may
    /// leave now. Every number is given once, so what is written must be sent.
    pub fn poll_transmit(&mut self, now: Instant, pool: &mut Pool, plaintext: &mut [u8]) -> Option<Outgoing> {
        self.notice_standstill(now);
        self.release_leftovers(pool);
        if !self.attached || self.has_nothing_to_send(now) {
            self.paced_since = None;
            return None;
        }
        self.forget_deadline();
        if let Some(place) = self.aside_due(now) {
            return Some(self.write_aside(now, place, plaintext));
        }
        let room = plaintext.len().min(self.mtu.current() - OVERHEAD);
        let mut writer = Writer::new(&mut plaintext[..room]);
        let mut record = Record::new(self.sent.next(), now);
        let (mut least, mut waited) = (0, [None; Class::ALL.len()]);
        if let Some(reason) = self.closing.take() {
            fits(Frame::Close(reason).emit(&mut writer));
            self.attached = false;
        } else {
            least = self.write_liveness(now, &mut writer, &mut record).min(room);
            let ack_due = self.received.is_due(now);
            if ack_due {
                self.write_ack(now, &mut writer);
            }
            if self.is_up() && self.sent.has_room() {
                self.write_messages(now, pool, &mut writer, &mut record, &mut waited);
            }
            if !ack_due && !writer.is_empty() && self.received.has_news() {
                self.write_ack(now, &mut writer);
            }
        }
        match writer.len() {
            0 => self.write_mtu_probe(now, plaintext, record),
            len => {
                let padded = len.max(least);
                plaintext[len..padded].fill(0);
                let place = self.paths.active_place();
                Some(Outgoing { waited, ..self.finish(now, place, record, padded) })
            }
        }
    }

    /// The path beside the active one that wants to say hello.
    fn aside_due(&self, now: Instant) -> Option<usize> {
        let due = |&place: &usize| self.paths.get(place).liveness.hello_deadline() <= now;
        let others = (0..self.paths.len()).filter(|&place| place != self.paths.active_place());
        others.filter(|_| self.closing.is_none()).find(due)
    }

    /// Says hello by a path that carries nothing else.
    fn write_aside(&mut self, now: Instant, place: usize, plaintext: &mut [u8]) -> Outgoing {
        let mut writer = Writer::new(&mut plaintext[..MIN_DATAGRAM - OVERHEAD]);
        let least = self.write_hello(now, place, &mut writer);
        let (len, record) = (writer.len(), Record::new(self.sent.next(), now));
        let padded = len.max(least);
        plaintext[len..padded].fill(0);
        self.finish(now, place, record, padded)
    }

    /// Says hello by a path if it is time; gives the least length of its plaintext.
    fn write_hello(&mut self, now: Instant, place: usize, writer: &mut Writer<'_>) -> usize {
        let liveness = &mut self.paths.get_mut(place).liveness;
        let Some(hello) = liveness.due(now) else { return 0 };
        let least = if liveness.is_padded(now) { MIN_DATAGRAM - OVERHEAD } else { 0 };
        let hello = Hello { workers: self.settings.workers, ..hello };
        fits(Frame::Hello(hello).emit(writer));
        liveness.on_hello_sent(now);
        self.counters.hellos_out += 1;
        least
    }

    /// Writes what keeps the link up, or brings it up; gives the least length of its plaintext.
    fn write_liveness(&mut self, now: Instant, writer: &mut Writer<'_>, record: &mut Record) -> usize {
        let least = self.write_hello(now, self.paths.active_place(), writer);
        let liveness = &mut self.paths.active_mut().liveness;
        if liveness.probe_due(now) && self.sent.has_room() {
            fits(Frame::Probe(u32::MAX).emit(writer));
            liveness.on_probe_sent(now);
            (record.state, record.probe) = (State::Outstanding, true);
        }
        least
    }

    /// Acknowledges, if there is room for it.
    fn write_ack(&mut self, now: Instant, writer: &mut Writer<'_>) {
        if let Ok(repetition) = self.received.emit(now, writer) {
            self.counters.acks_out += 1;
            self.counters.ack_repeats += u64::from(repetition);
        }
    }

    fn write_messages(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        writer: &mut Writer<'_>,
        record: &mut Record,
        waited: &mut Waited,
    ) {
        if !self.has_messages() {
            self.paced_since = None;
            return;
        }
        let (window, in_flight, datagram) =
            (self.congestion.window(), self.sent.in_flight(), self.mtu.current() as u64);
        let rate = self.congestion.pacing_rate(self.rtt.smoothed());
        self.pacer.advance(now, rate, datagram, in_flight == 0, window);
        if !self.pacer.is_open() {
            if in_flight < window {
                self.paced_since.get_or_insert(now);
            }
            return;
        }
        if let Some(since) = self.paced_since.take() {
            self.counters.histograms.pacing_wait.record(now.since(since));
        }
        if in_flight < window + URGENT_PACKETS * datagram {
            self.write_control(now, pool, writer, record);
            self.write_again(pool, writer, record);
        } else if self.recovery.may_probe() && self.write_again(pool, writer, record) {
            self.recovery.on_probe_sent();
        }
        if in_flight < window {
            self.write_queued(now, pool, writer, record, waited);
        }
    }

    fn write_control(&mut self, now: Instant, pool: &mut Pool, writer: &mut Writer<'_>, record: &mut Record) {
        while record.has_room()
            && let Some(packet) = self.reliable.pop_control(writer.room().saturating_sub(RELIABLE_OVERHEAD))
        {
            self.counters.control.count_sent(packet.len());
            let sequence = self.reliable.next_sequence();
            fits(Frame::Control(sequence as u32, pool.bytes(&packet)).emit(writer));
            self.reliable.keep(now, packet, true, record.number);
            assert!(record.carry(sequence), "there was room");
            record.state = State::Outstanding;
        }
    }

    /// Repeats what fits; true if that was anything.
    fn write_again(&mut self, pool: &Pool, writer: &mut Writer<'_>, record: &mut Record) -> bool {
        let mut repeated = 0;
        while record.has_room()
            && let Some((sequence, message)) = self.reliable.again()
        {
            let (body, low) = (pool.bytes(&message.packet), sequence as u32);
            let frame = if message.control { Frame::Control(low, body) } else { Frame::Reliable(low, body) };
            if frame.emit(writer).is_err() {
                break;
            }
            self.reliable.sent_again(record.number);
            assert!(record.carry(sequence), "there was room");
            record.state = State::Outstanding;
            repeated += 1;
        }
        self.counters.retransmissions += repeated;
        self.counters.retransmission_packets += u64::from(repeated > 0);
        repeated > 0
    }

    fn write_queued(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        writer: &mut Writer<'_>,
        record: &mut Record,
        waited: &mut Waited,
    ) {
        // What was taken in by one turn of the loop waited equally long: it is counted together.
        let (mut alike, mut messages) = ((Class::BestEffort, Duration::ZERO), 0);
        loop {
            let reliable = self.reliable.has_room() && record.has_room();
            // The longer of the two frame headers decides: a message more or less per bundle is not worth a peek.
            let room = writer.room().saturating_sub(RELIABLE_OVERHEAD);
            let allowed = Allowed { reliable, marks: !self.congestion.is_doubling() };
            let Some(queued) = self.queue.pop(now, room, allowed, pool, &mut self.counters) else { break };
            if alike != (queued.class, queued.waited) {
                self.count_queued(alike, messages, waited);
                (alike, messages) = ((queued.class, queued.waited), 0);
            }
            messages += 1;
            record.state = State::Outstanding;
            let body = pool.bytes(&queued.packet);
            match queued.class {
                Class::BestEffort => {
                    self.counters.best_effort.count_sent(body.len());
                    fits(Frame::BestEffort(body).emit(writer));
                    pool.release(queued.packet);
                }
                Class::Reliable => {
                    self.counters.reliable.count_sent(body.len());
                    let sequence = self.reliable.next_sequence();
                    fits(Frame::Reliable(sequence as u32, body).emit(writer));
                    self.reliable.keep(now, queued.packet, false, record.number);
                    assert!(record.carry(sequence), "there was room");
                }
            }
        }
        self.count_queued(alike, messages, waited);
    }

    /// Counts the stay in the queue of so many messages.
    fn count_queued(&mut self, (class, stay): (Class, Duration), messages: u64, waited: &mut Waited) {
        if messages > 0 {
            let class = usize::from(class.code());
            self.counters.histograms.queue_delay[class].record_several(stay, messages);
            waited[class] = waited[class].max(Some(stay));
        }
    }

    fn write_mtu_probe(&mut self, now: Instant, plaintext: &mut [u8], mut record: Record) -> Option<Outgoing> {
        if !self.is_up() || !self.sent.has_room() {
            return None;
        }
        let (size, id) = self.mtu.due(now)?;
        let Some(padded) = plaintext.get_mut(..size - OVERHEAD) else {
            self.mtu.limit(plaintext.len() + OVERHEAD);
            return None;
        };
        padded.fill(0);
        fits(Frame::Probe(id).emit(&mut Writer::new(padded)));
        self.mtu.on_probe_sent(record.number);
        self.counters.probes += 1;
        (record.state, record.probe) = (State::Outstanding, true);
        Some(self.finish(now, self.paths.active_place(), record, size - OVERHEAD))
    }

    fn finish(&mut self, now: Instant, place: usize, mut record: Record, len: usize) -> Outgoing {
        let bytes = len + OVERHEAD;
        record.bytes = u16::try_from(bytes).expect("a datagram has fewer than 2^16 bytes");
        self.counters.packets_out += 1;
        self.counters.bytes_out += bytes as u64;
        let path = self.paths.get_mut(place);
        path.liveness.on_sent(now);
        let (path, up) = (path.pair().expect("keys come from somewhere"), path.is_up());
        if record.state == State::Outstanding {
            self.pacer.spend(bytes as u64);
            self.arm_loss_timer(&record);
        }
        let number = record.number;
        self.forget_sent(now);
        if let Some(pushed_out) = self.sent.record(record) {
            self.on_lost(now, &pushed_out);
        }
        Outgoing { number, len, path, up, waited: [None; Class::ALL.len()] }
    }

    /// Whether no message waits and nothing is due: most links at most turns of the loop.
    fn has_nothing_to_send(&self, now: Instant) -> bool {
        !self.is_laden() && !self.received.is_due(now) && self.next_deadline().is_some_and(|(at, _)| at > now)
    }

    /// Whether messages wait, be it for the pacer: true also of some that need not be repeated after all.
    fn is_laden(&self) -> bool {
        self.queue.len() > 0 || self.reliable.has_control() || self.reliable.may_repeat()
    }

    fn has_messages(&mut self) -> bool {
        self.queue.len() > 0 || self.reliable.has_control() || self.reliable.again().is_some()
    }

    /// When the pacer lets the next packet leave, if that is what messages wait for.
    pub(super) fn pacing_deadline(&self) -> Option<Instant> {
        let window = self.congestion.window() + URGENT_PACKETS * self.mtu.current() as u64;
        let allowed = self.sent.in_flight() < window || self.recovery.may_probe();
        let paced = self.is_laden() && !self.pacer.is_open() && allowed && self.sent.has_room();
        paced.then(|| self.pacer.opens(self.congestion.pacing_rate(self.rtt.smoothed().max(Duration::from_nanos(1)))))
    }
}

/// For frames whose length was checked before.
fn fits(written: Result<(), NoRoom>) {
    assert_eq!(written, Ok(()), "the room was checked");
}

const _: () = assert!(BEST_EFFORT_OVERHEAD <= RELIABLE_OVERHEAD, "room is checked for the longer header");
