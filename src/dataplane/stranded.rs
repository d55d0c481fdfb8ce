//! Messages that lost their link and wait for another.

use crate::base::Instant;
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
        if self.waiting.len() == self.capacity {
            return Err(packet);
        }
        self.waiting.push_back((now + PATIENCE, packet));
        Ok(())
    }

    /// The oldest message, whatever its age.
    pub(super) fn pop(&mut self) -> Option<Packet> {
        self.waiting.pop_front().map(|(_, packet)| packet)
    }

    /// The oldest message, if it has waited too long.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Packet> {
        if self.waiting.front()?.0 > now {
            return None;
        }
        self.pop()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|&(deadline, _)| deadline)
    }
}
