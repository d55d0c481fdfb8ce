//! Messages that lost their link and wait for another.

use crate::base::Instant;
use crate::base::rare::rarely;
use crate::containers::Packet;
use std::collections::VecDeque;
use std::time::Duration;

/// How long a message waits for a route: longer than any rerouting that still helps it, shorter than the end-to-end
/// repair that replaces it.
const PATIENCE: Duration = Duration::from_millis(1000);

/// A bounded queue of stranded messages, oldest first.
#[derive(Debug)]
pub(super) struct Stranded {
    waiting: VecDeque<(Instant, Packet)>,
    capacity: usize,
}

impl Stranded {
    pub(super) fn new(capacity: usize) -> Stranded {
        Stranded { waiting: VecDeque::with_capacity(capacity), capacity }
    }

    /// Keeps a message; gives it back when full.
    pub(super) fn push(&mut self, now: Instant, packet: Packet) -> Result<(), Packet> {
        if self.waiting.len() == self.capacity || rarely!(StrandedFull) {
            return Err(packet);
        }
        self.waiting.push_back((now + PATIENCE, packet));
        Ok(())
    }

    /// The oldest message, and how long it may wait.
    pub(super) fn pop(&mut self) -> Option<(Instant, Packet)> {
        self.waiting.pop_front()
    }

    /// Puts back a message that was just taken out by [`Stranded::pop`].
    pub(super) fn keep(&mut self, deadline: Instant, packet: Packet) {
        assert!(self.waiting.len() < self.capacity, "the place of the message is free");
        self.waiting.push_back((deadline, packet));
    }

    /// The oldest message, if it has waited too long.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Packet> {
        if self.waiting.front()?.0 > now {
            return None;
        }
        self.pop().map(|(_, packet)| packet)
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|&(deadline, _)| deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::Pool;
    use crate::containers::pool::Urgency;

    #[test]
    fn what_is_kept_waits_no_longer_than_it_was_promised() {
        let (mut pool, mut stranded) = (Pool::new(16), Stranded::new(1));
        let mut packet = || pool.copy_in(Urgency::Reserved, b"message").expect("the pool has room");
        assert_eq!(stranded.push(Instant::ZERO, packet()), Ok(()));
        let second = stranded.push(Instant::ZERO, packet()).expect_err("only one fits");
        let (deadline, packet) = stranded.pop().expect("one waits");
        stranded.keep(deadline, packet);
        assert_eq!(stranded.deadline(), Some(Instant::ZERO + PATIENCE));
        assert_eq!(stranded.pop_expired(Instant::ZERO + PATIENCE / 2), None);
        let expired = stranded.pop_expired(Instant::ZERO + PATIENCE).expect("its time is up");
        assert_eq!(stranded.len(), 0);
        pool.release(expired);
        pool.release(second);
    }
}
