//! Reliable messages: what waits for an acknowledgement, what must be sent again, what was received before.
//!
//! Each message gets a link sequence number when it is first sent and keeps it for every repetition; the receiver lets
//! each number through once. The numbers between the oldest unacknowledged message and the next one never exceed
//! [`MAX_SPAN`], half of what the receiver remembers, so a repetition is always recognised.

use crate::base::{Instant, seq};
use crate::containers::window::Seen;
use crate::containers::{Packet, SequenceWindow};
use std::collections::VecDeque;

/// Largest distance between the oldest unacknowledged and the next link sequence number.
pub(super) const MAX_SPAN: usize = 4096;
/// Control messages that may wait for their first sending.
pub(super) const MAX_CONTROL: usize = 256;
const WINDOW: usize = 2 * MAX_SPAN;

const _: () = assert!(WINDOW - 63 >= MAX_SPAN + MAX_SPAN / 2, "a repetition is always inside the receiver's window");

/// A message between its first sending and its acknowledgement.
#[derive(Debug)]
pub(super) struct Unacked {
    /// Its bytes.
    pub(super) packet: Packet,
    /// It is for the neighbour's control thread.
    pub(super) control: bool,
    /// When it was first sent.
    pub(super) first_sent: Instant,
    /// Times sent.
    pub(super) tries: u32,
    /// Number of the packet that carried it last.
    carrier: u64,
    /// It waits to be sent again.
    waiting: bool,
}

/// Both directions of one link's reliable messages.
#[derive(Debug)]
pub(super) struct Reliable {
    unacked: VecDeque<Option<Unacked>>,
    /// Sequence number of the first entry of `unacked`.
    base: u64,
    again: VecDeque<u64>,
    control: VecDeque<Packet>,
    seen: SequenceWindow<WINDOW>,
}

impl Reliable {
    pub(super) fn new() -> Reliable {
        Reliable {
            unacked: VecDeque::new(),
            base: 0,
            again: VecDeque::new(),
            control: VecDeque::new(),
            seen: SequenceWindow::new(),
        }
    }

    /// Queues a control message; gives it back if too many wait.
    pub(super) fn push_control(&mut self, packet: Packet) -> Result<(), Packet> {
        if self.control.len() == MAX_CONTROL {
            return Err(packet);
        }
        self.control.push_back(packet);
        Ok(())
    }

    /// The next control message, if its first sending can begin and it has at most `room` bytes.
    pub(super) fn pop_control(&mut self, room: usize) -> Option<Packet> {
        let fits = self.has_room() && self.control.front().is_some_and(|packet| packet.len() <= room);
        if fits { self.control.pop_front() } else { None }
    }

    /// Overlay messages that were sent and wait for an acknowledgement.
    pub(super) fn unconfirmed(&self) -> usize {
        self.unacked.iter().flatten().filter(|message| !message.control).count()
    }

    /// Control messages that wait, the span of what is unacknowledged, and entries of the list to send again.
    pub(super) fn holdings(&self) -> [usize; 3] {
        [self.control.len(), self.unacked.len(), self.again.len()]
    }

    /// Whether control messages wait.
    pub(super) fn has_control(&self) -> bool {
        !self.control.is_empty() && self.has_room()
    }

    /// Whether another message may be sent for the first time.
    pub(super) fn has_room(&self) -> bool {
        self.unacked.len() < MAX_SPAN
    }

    /// The sequence number that the next message sent for the first time gets.
    pub(super) fn next_sequence(&self) -> u64 {
        self.base + self.unacked.len() as u64
    }

    /// Keeps a message that is sent for the first time in packet `carrier`; gives its sequence number.
    pub(super) fn keep(&mut self, now: Instant, packet: Packet, control: bool, carrier: u64) -> u64 {
        assert!(self.has_room(), "the caller asked before");
        let sequence = self.next_sequence();
        self.unacked.push_back(Some(Unacked { packet, control, first_sent: now, tries: 1, carrier, waiting: false }));
        // Any of them may be lost: a burst of losses longer than any before must not find too short a list.
        if self.again.capacity() < self.unacked.capacity() {
            self.again.reserve(self.unacked.capacity() - self.again.len());
        }
        sequence
    }

    fn get_mut(&mut self, sequence: u64) -> Option<&mut Unacked> {
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        self.unacked.get_mut(index)?.as_mut()
    }

    /// Packet `carrier`, which carried `sequence`, is lost: the message is sent again unless a later packet carries it.
    pub(super) fn lose(&mut self, sequence: u64, carrier: u64) {
        if let Some(message) = self.get_mut(sequence)
            && message.carrier == carrier
            && !message.waiting
        {
            message.waiting = true;
            self.again.push_back(sequence);
        }
    }

    /// A packet that carried `sequence` was acknowledged: gives the message the first time.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> Option<Unacked> {
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        let message = self.unacked.get_mut(index)?.take();
        while let Some(None) = self.unacked.front() {
            self.unacked.pop_front();
            self.base += 1;
        }
        message
    }

    /// The message to send again next, with its sequence number.
    pub(super) fn again(&mut self) -> Option<(u64, &Unacked)> {
        while let Some(&sequence) = self.again.front() {
            if self.get_mut(sequence).is_some_and(|message| message.waiting) {
                let message = self.get_mut(sequence).expect("looked at just now");
                return Some((sequence, message));
            }
            self.again.pop_front();
        }
        None
    }

    /// Whether [`Reliable::again`] may give a message; it may also find that all were acknowledged meanwhile.
    pub(super) fn may_repeat(&self) -> bool {
        !self.again.is_empty()
    }

    /// The message that [`Reliable::again`] gave leaves in packet `carrier`.
    pub(super) fn sent_again(&mut self, carrier: u64) {
        let sequence = self.again.pop_front().expect("the caller asked for it");
        let message = self.get_mut(sequence).expect("it is not acknowledged");
        message.waiting = false;
        message.carrier = carrier;
        message.tries += 1;
    }

    /// A reliable or control frame arrived: its full sequence number, and whether it is new.
    pub(super) fn check(&self, low: u32) -> (u64, Seen) {
        let sequence = seq::expand(self.seen.next(), low);
        (sequence, self.seen.check(sequence))
    }

    /// The sequence number after the largest that was taken in.
    pub(super) const fn expected(&self) -> u64 {
        self.seen.next()
    }

    /// Whether one of the last sixty-four frames has not arrived while a later one has.
    pub(super) fn misses_one(&self) -> bool {
        let next = self.seen.next();
        (next.saturating_sub(64)..next).any(|sequence| self.seen.check(sequence) == Seen::New)
    }

    /// The frame was taken in.
    pub(super) fn accept(&mut self, sequence: u64) {
        self.seen.insert(sequence);
    }

    /// Empties the sending side: first what was sent, in order, then control messages that were not. The flag tells
    /// control messages.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = (Packet, bool)> + '_ {
        self.base += self.unacked.len() as u64;
        self.again.clear();
        let sent = self.unacked.drain(..).flatten().map(|message| (message.packet, message.control));
        sent.chain(self.control.drain(..).map(|packet| (packet, true)))
    }

    /// Sequence numbers start again at zero. The sending side must be empty.
    pub(super) fn restart(&mut self) {
        assert!(self.unacked.is_empty() && self.control.is_empty(), "what was queued was abandoned before");
        self.base = 0;
        self.seen = SequenceWindow::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::Pool;
    use crate::containers::pool::Urgency;

    #[test]
    fn a_lost_message_is_sent_again_until_any_carrier_is_acknowledged() {
        let mut pool = Pool::new(8);
        let mut reliable = Reliable::new();
        let mut keep = |reliable: &mut Reliable, carrier| {
            let packet = pool.copy_in(Urgency::Reserved, b"x").expect("room");
            reliable.keep(Instant::ZERO, packet, false, carrier)
        };
        let (a, b) = (keep(&mut reliable, 10), keep(&mut reliable, 11));
        assert_eq!((a, b), (0, 1));
        reliable.lose(a, 10);
        reliable.lose(a, 10);
        assert_eq!(reliable.again().map(|(sequence, _)| sequence), Some(a));
        reliable.sent_again(12);
        assert!(reliable.again().is_none(), "queued once");
        reliable.lose(a, 10);
        assert!(reliable.again().is_none(), "a later packet carries it");
        reliable.lose(a, 12);
        let message = reliable.acknowledge(a).expect("the original arrived after all");
        assert_eq!(message.tries, 2);
        pool.release(message.packet);
        assert!(reliable.again().is_none(), "what is acknowledged is not sent again");
        assert!(reliable.acknowledge(a).is_none());
        assert_eq!(reliable.base, 1);
        for (packet, _) in reliable.abandon() {
            pool.release(packet);
        }
        assert_eq!((pool.in_use(), reliable.base), (0, 2));
    }

    #[test]
    fn the_span_is_bounded_by_the_oldest() {
        let mut pool = Pool::new(MAX_SPAN + 1);
        let mut reliable = Reliable::new();
        while reliable.has_room() {
            let packet = pool.copy_in(Urgency::Reserved, b"x").expect("room");
            reliable.keep(Instant::ZERO, packet, false, 0);
        }
        let later = reliable.acknowledge(5).expect("kept");
        pool.release(later.packet);
        assert!(!reliable.has_room(), "the oldest is still missing");
        let oldest = reliable.acknowledge(0).expect("kept");
        pool.release(oldest.packet);
        assert!(reliable.has_room());
    }
}
