//! A share of the packet pool: counts what its holders keep.

use crate::containers::pool::Urgency;
use crate::containers::{Packet, Pool};

/// Packets kept on account of one purpose (receiving, sending).
#[derive(Debug, Default)]
pub(super) struct Shelf {
    held: usize,
    /// Slots of the pool that they are from.
    slots: usize,
}

impl Shelf {
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Packets that may be kept when the share is `percent` of the pool; 0 before the first.
    pub(super) const fn most(&self, percent: usize) -> usize {
        self.slots * percent / 100
    }

    /// Packets that may still be kept when the share is `percent` of the pool.
    pub(super) fn left(&self, pool: &Pool, percent: usize) -> usize {
        (pool.capacity() * percent / 100).saturating_sub(self.held)
    }

    pub(super) fn copy_in(&mut self, pool: &mut Pool, bytes: &[u8]) -> Option<Packet> {
        let packet = pool.copy_in(Urgency::Ordinary, bytes)?;
        self.add(pool);
        Some(packet)
    }

    pub(super) fn take(&mut self, pool: &mut Pool, len: usize) -> Option<Packet> {
        let packet = pool.take(Urgency::Ordinary, len)?;
        self.add(pool);
        Some(packet)
    }

    fn add(&mut self, pool: &Pool) {
        (self.held, self.slots) = (self.held + 1, pool.capacity());
    }

    pub(super) fn release(&mut self, pool: &mut Pool, packet: Packet) {
        assert!(self.held > 0, "more packets returned than kept");
        self.held -= 1;
        pool.release(packet);
    }
}
