//! Messages on their way from one worker of a router to another.
//!
//! A flow has its lane, and a port its home ([`forward`](crate::forwarding::forward) says which). Where as many workers
//! meet as many, a transit message leaves by the lane it came by and nothing crosses. A message crosses
//! - at its ends, if the session's home is not the worker of the flow's lane,
//! - on its way, where one neighbour has more workers than the other.
//!
//! Each worker queues what it has for each other, in packets of its own pool. The driver moves it through a ring, which
//! holds copies, since a packet belongs to one pool. What crosses was routed before and is not routed again, so two
//! workers whose tables differ for a moment cannot hand a message to and fro.
//!
//! # Bounds
//! A queue holds at most a sixteenth of the pool, and `MAX_WAITING`. Sessions of this router wait while one is half
//! full. What comes over links when it is full is dropped and counted (`crossing-full`), reliable or not, as where a
//! link's queue is full: the sender that still holds it repeats it.

use crate::base::LinkId;
use crate::base::limits::{MAX_MESSAGE, MAX_WORKERS};
use crate::containers::{Packet, Pool};
use std::collections::VecDeque;

/// Most messages that wait for one other worker: some turns of what it takes in a turn.
const MAX_WAITING: usize = 1024;
/// Part of the pool that may wait for one other worker.
const SHARE: usize = 16;

/// What the other worker is to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Hand it to the session at its port.
    Deliver,
    /// Send it over the lane of this link that is its own.
    Send(LinkId),
}

/// A message between two workers' pools.
#[derive(Clone, Debug)]
pub struct Crossing {
    pub(super) errand: Errand,
    len: u16,
    bytes: [u8; MAX_MESSAGE],
}

impl Crossing {
    fn new(errand: Errand, message: &[u8]) -> Crossing {
        let mut bytes = [0; MAX_MESSAGE];
        bytes[..message.len()].copy_from_slice(message);
        Crossing { errand, len: message.len() as u16, bytes }
    }

    /// The message.
    pub(super) fn message(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What waits for each other worker.
#[derive(Debug)]
pub(super) struct Crossings {
    waiting: [VecDeque<(Errand, Packet)>; MAX_WORKERS],
    capacity: usize,
}

impl Crossings {
    /// Queues to `workers`, for packets of a pool with so many slots. One worker alone has none.
    pub(super) fn new(workers: usize, pool: usize) -> Crossings {
        let capacity = if workers == 1 { 0 } else { MAX_WAITING.min(pool / SHARE) };
        let queue = |worker| VecDeque::with_capacity(if worker < workers { capacity } else { 0 });
        Crossings { waiting: std::array::from_fn(queue), capacity }
    }

    /// Queues a message; gives it back when the queue is full.
    pub(super) fn push(&mut self, worker: usize, errand: Errand, packet: Packet) -> Result<(), Packet> {
        let queue = &mut self.waiting[worker];
        if queue.len() == self.capacity {
            return Err(packet);
        }
        queue.push_back((errand, packet));
        Ok(())
    }

    /// The oldest message for this worker, which leaves the pool.
    pub(super) fn pop(&mut self, worker: usize, pool: &mut Pool) -> Option<Crossing> {
        let (errand, packet) = self.waiting[worker].pop_front()?;
        let crossing = Crossing::new(errand, pool.bytes(&packet));
        pool.release(packet);
        Some(crossing)
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Messages that wait for all of them.
    pub(super) fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Messages that wait for the one that most wait for.
    pub(super) fn longest(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).max().unwrap_or(0)
    }

    /// Whether anything waits for this worker.
    pub(super) fn waits_for(&self, worker: usize) -> bool {
        !self.waiting[worker].is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::pool::Urgency;

    #[test]
    fn a_full_queue_gives_the_message_back_and_others_take_theirs() {
        let (mut pool, mut crossings) = (Pool::new(32), Crossings::new(3, 32));
        let mut packet = |byte| pool.copy_in(Urgency::Reserved, &[byte; 40]).expect("the pool has room");
        assert_eq!(crossings.push(1, Errand::Deliver, packet(1)), Ok(()));
        assert_eq!(crossings.push(1, Errand::Send(LinkId(5)), packet(2)), Ok(()));
        let third = crossings.push(1, Errand::Deliver, packet(3)).expect_err("two fit");
        assert_eq!(crossings.push(2, Errand::Deliver, packet(4)), Ok(()));
        assert_eq!((crossings.len(), crossings.longest()), (3, 2));
        pool.release(third);
        let first = crossings.pop(1, &mut pool).expect("two wait");
        assert_eq!((first.errand, first.message()), (Errand::Deliver, &[1; 40][..]));
        let second = crossings.pop(1, &mut pool).expect("one waits");
        assert_eq!((second.errand, second.message()), (Errand::Send(LinkId(5)), &[2; 40][..]));
        assert!(crossings.pop(1, &mut pool).is_none() && crossings.waits_for(2) && !crossings.waits_for(0));
        assert!(crossings.pop(2, &mut pool).is_some());
        assert_eq!(pool.in_use(), 0);
    }
}
