//! The receiving side: from an opened packet to deliveries and news for the other organs.

use super::hello::{Change, Told};
use super::stats::Kind;
use super::{Delivery, Link, MAX_DELIVERIES};
use crate::base::limits::MIN_DATAGRAM;
use crate::base::rare::rarely;
use crate::base::sabotage::{Rule, broken};
use crate::base::{AddressPair, DownReason, Instant};
use crate::containers::pool::Urgency;
use crate::containers::window::Seen;
use crate::containers::{Packet, Pool};
use crate::telemetry::DropReason;
use crate::wire::frame::{Frame, Frames, Hello};

impl Link {
    /// Takes in an opened packet. `number`: its packet number, seen for the first time. `datagram_len`: size of the
    /// datagram it came in. `from`: that datagram's addresses.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        from: AddressPair,
        number: u64,
        datagram_len: usize,
        plaintext: &[u8],
        pool: &mut Pool,
    ) {
        self.notice_standstill(now);
        self.release_leftovers(pool);
        if !self.attached || self.closing.is_some() {
            self.counters.drops.count(DropReason::LinkClosing);
            return;
        }
        self.forget_deadline();
        self.counters.packets_in += 1;
        self.counters.bytes_in += datagram_len as u64;
        let path = self.paths.came_from(now, from);
        self.paths.get_mut(path).liveness.on_packet(now);
        let (mut eliciting, mut recovered, mut refused, mut probed) = (false, false, false, false);
        for frame in Frames::new(plaintext) {
            let Ok(frame) = frame else {
                self.counters.drops.count(DropReason::Malformed);
                break;
            };
            eliciting |= frame.is_ack_eliciting();
            match frame {
                Frame::Hello(hello) => self.on_hello(now, path, &hello, datagram_len >= MIN_DATAGRAM),
                Frame::Ack(ack) => self.on_ack(now, &ack, pool),
                Frame::BestEffort(body) => self.on_best_effort(body, pool),
                Frame::Reliable(low, body) => {
                    recovered = true;
                    refused |= !self.on_reliable((now, number), low, body, Delivery::Message, pool);
                }
                Frame::Control(low, body) => {
                    recovered = true;
                    refused |= !self.on_reliable((now, number), low, body, Delivery::Control, pool);
                }
                Frame::Probe(_) => probed = true,
                Frame::Close(_) => {
                    self.go_down(now, DownReason::Closed);
                    self.attached = false;
                    self.release_leftovers(pool);
                    return;
                }
            }
        }
        // A packet whose reliable messages could not all be taken in stays unacknowledged, and comes again.
        if !refused || broken(Rule::AckRefused) {
            self.received.on_packet(now, number, eliciting, recovered, self.rtt.smoothed());
            if probed {
                self.received.answer_at_once(now);
            }
        }
        self.report(now);
    }

    fn on_hello(&mut self, now: Instant, place: usize, hello: &Hello, full: bool) {
        self.counters.hellos_in += 1;
        self.their_workers = hello.workers;
        let place = self.paths.of_hello(hello, place);
        let active = place == self.paths.active_place();
        let path = self.paths.get_mut(place);
        let Told { rtt, echoed, missed, change } = path.liveness.on_hello(now, hello, full);
        path.loss.hello(missed);
        let told_late = self.woke > Instant::from_nanos(hello.echo_ns);
        if let Some((left, held)) = echoed.filter(|_| !told_late) {
            if let Some(sample) = rtt {
                path.rtt.sample(now, sample);
            }
            if active {
                self.on_round_trip(now, rtt);
            }
            self.peer_clock.on_exchange(now, hello.sent_ns, left, held);
            if let Some(took) = self.peer_clock.one_way(now, hello.sent_ns).filter(|_| active) {
                self.counters.count_one_way(took);
            }
        }
        match change {
            Some(Change::Up) => self.path_up(now, place),
            Some(Change::Down(reason)) => self.path_down(now, place, reason),
            None => {}
        }
        self.choose_path(now);
    }

    fn on_best_effort(&mut self, body: &[u8], pool: &mut Pool) {
        if self.deliveries.len() >= MAX_DELIVERIES {
            self.counters.drops.count(DropReason::QueueFull);
        } else if let Some(packet) = self.copy_in(Urgency::Ordinary, body, pool) {
            self.counters.best_effort.count_received(body.len());
            self.deliveries.push_back(Delivery::Message(packet));
        }
    }

    /// Takes in a message that comes again until it is acknowledged; false if there is no room for it now. `came`: when,
    /// and in which packet.
    fn on_reliable(
        &mut self,
        came: (Instant, u64),
        low: u32,
        body: &[u8],
        wrap: fn(Packet) -> Delivery,
        pool: &mut Pool,
    ) -> bool {
        let (sequence, seen) = self.reliable.check(low);
        if seen != Seen::New && !(seen == Seen::Duplicate && broken(Rule::LinkDuplicates)) {
            self.counters.drops.count(DropReason::Duplicate);
            return true;
        }
        if self.deliveries.len() >= MAX_DELIVERIES || rarely!(DeliveriesFull) {
            self.counters.drops.count(DropReason::QueueFull);
            return false;
        }
        let Some(packet) = self.copy_in(Urgency::Reserved, body, pool) else { return false };
        let missing = self.gaps.on_new(came.0, came.1, sequence, self.reliable.expected());
        self.reliable.accept(sequence);
        let delivery = wrap(packet);
        if let Some(missing) = missing {
            let kind = Kind::recovered(matches!(delivery, Delivery::Control(_)));
            self.counters.histograms.refill[kind.index()].record(missing);
        }
        let class = match delivery {
            Delivery::Message(_) => &mut self.counters.reliable,
            Delivery::Control(_) => &mut self.counters.control,
        };
        class.count_received(body.len());
        self.deliveries.push_back(delivery);
        true
    }

    fn copy_in(&mut self, urgency: Urgency, body: &[u8], pool: &mut Pool) -> Option<Packet> {
        let packet = pool.copy_in(urgency, body);
        if packet.is_none() {
            self.counters.drops.count(DropReason::PoolExhausted);
        }
        packet
    }
}
