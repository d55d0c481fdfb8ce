//! To the network: acknowledgements first, then answers and best effort, then the flows in turn.

use super::FlowKey;
use super::receiver::{BARE_ACK, MAX_ACK};
use super::records::{RETRY, write_message};
use super::sessions::Sessions;
use crate::base::limits::DEFAULT_TTL;
use crate::base::rare::rarely;
use crate::base::{Class, Instant};
use crate::containers::pool::Urgency;
use crate::containers::{Packet, Pool};
use crate::wire::message::{Header, Protocol};
use crate::wire::session::{FlowAck, FlowReset, ResetReason};

impl Sessions {
    /// The next message for the network, whole, with its header decoded. Flows take turns, one segment each.
    pub fn poll_transmit(&mut self, now: Instant, pool: &mut Pool) -> Option<(Header, Packet)> {
        if let Some(ack) = self.next_ack(now, pool) {
            return Some(ack);
        }
        if let Some(message) = self.outbox.pop_front() {
            return Some(message);
        }
        while let Some(ticket) = self.sending.pop_front() {
            let node = self.node;
            let Some(at) = self.senders.redeem(ticket) else { continue };
            let sender = self.senders.get_mut(at).expect("the ticket is good");
            assert!(std::mem::replace(&mut sender.queued, false), "a sender stands in the round once");
            let message = sender.transmit(now, node, pool);
            let starved = message.is_none() && sender.wants_to_send();
            self.wake_sender(at);
            if message.is_some() {
                return message;
            }
            if starved {
                self.retry_at = self.retry_at.or(Some(now + RETRY));
                return None;
            }
        }
        None
    }

    fn next_ack(&mut self, now: Instant, pool: &mut Pool) -> Option<(Header, Packet)> {
        if (pool.in_use() == pool.capacity() || rarely!(PoolExhausted)) && !self.acks.is_empty() {
            self.retry_at = self.retry_at.or(Some(now + RETRY));
            return None;
        }
        while let Some(ticket) = self.acks.pop_front() {
            let left = self.received.left(pool, self.settings.receive_percent);
            let Some(at) = self.receivers.redeem(ticket) else { continue };
            let receiver = self.receivers.get_mut(at).expect("the ticket is good");
            assert!(std::mem::replace(&mut receiver.queued, false), "a receiver stands in the list once");
            if receiver.over {
                continue;
            }
            let mut body = [0; MAX_ACK];
            let len = receiver.write_ack(left, &self.settings, &mut body);
            let key = receiver.key;
            let header = self.header(Protocol::FlowAck, Class::Reliable, DEFAULT_TTL, key.peer, key.port);
            let packet = write_message(&header, len, Urgency::Reserved, pool, |writer| writer.bytes(&body[..len]));
            let packet = packet.expect("the pool has a packet left");
            return Some((header, packet));
        }
        None
    }

    /// Lets the receiver's acknowledgement go out next.
    pub(super) fn queue_ack(&mut self, at: u32) {
        if let Some(receiver) = self.receivers.get_mut(at)
            && !std::mem::replace(&mut receiver.queued, true)
        {
            self.receivers.enlist(&mut self.acks, at);
        }
    }

    /// A reset in answer to what another router sent, unless too many answers went out lately.
    pub(super) fn send_reset(
        &mut self,
        now: Instant,
        key: FlowKey,
        by_receiver: bool,
        reason: ResetReason,
        pool: &mut Pool,
    ) {
        if self.notices.allow(now) {
            self.push_reset(key, by_receiver, reason, pool);
        }
    }

    /// A reset of one of our flows.
    pub(super) fn push_reset(&mut self, key: FlowKey, by_receiver: bool, reason: ResetReason, pool: &mut Pool) {
        let header = self.header(Protocol::FlowReset, Class::Reliable, DEFAULT_TTL, key.peer, key.port);
        let body = FlowReset { flow: key.flow, by_receiver, reason }.to_bytes();
        self.push_message(header, body.len(), Urgency::Reserved, pool, |writer| writer.bytes(&body));
    }

    /// Repeats to the sender of a finished flow that everything below `end` was received.
    pub(super) fn send_final_ack(&mut self, now: Instant, key: FlowKey, end: u64, pool: &mut Pool) {
        if self.notices.allow(now) {
            self.push_final_ack(key, end, end, pool);
        }
    }

    /// An acknowledgement of everything below `end` that does not need the flow's state any more.
    pub(super) fn push_final_ack(&mut self, key: FlowKey, end: u64, limit: u64, pool: &mut Pool) {
        let header = self.header(Protocol::FlowAck, Class::Reliable, DEFAULT_TTL, key.peer, key.port);
        self.push_message(header, BARE_ACK, Urgency::Reserved, pool, |writer| {
            FlowAck::emit(writer, key.flow, end, limit, 0, std::iter::empty())
        });
    }
}
