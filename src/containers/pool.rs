//! The packet pool: one slab of message-sized slots per shard.
//!
//! A [`Packet`] is the only handle to its slot. It is moved from room to room and given back with [`Pool::release`]; it
//! cannot be copied, so a slot has one owner at any time. Bytes are reached through the pool alone, which keeps the
//! handle small (8 bytes) and the whole design free of reference counts.

use crate::base::limits::POOL_SLOT;
use crate::base::rare::rarely;

/// A handle to one slot of a [`Pool`]. Dropping it without [`Pool::release`] leaks the slot; the pool's count shows it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a packet must be released to its pool"]
pub struct Packet {
    slot: u32,
    len: u16,
}

impl Packet {
    /// Bytes of the message it holds.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it holds no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// How hard a caller may draw on the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// May not touch the reserve (one eighth of the slots): best effort from a link, and what begins here, whichever its
    /// class (an application's messages, answers to echoes).
    Ordinary,
    /// May use every slot: what others are owed. Reliable messages from a link, the control threads' messages, and what
    /// sessions send and acknowledge on behalf of data they already hold.
    Reserved,
}

/// Fixed number of message-sized slots.
#[derive(Debug)]
pub struct Pool {
    /// All slots in a row. It comes zeroed from the system, which gives it memory where it is written to.
    slab: Box<[u8]>,
    slots: usize,
    free: Vec<u32>,
    exhausted: u64,
}

impl Pool {
    /// A pool of `slots` slots of [`POOL_SLOT`] bytes.
    pub fn new(slots: usize) -> Pool {
        let count = u32::try_from(slots).expect("a pool has fewer than 2^32 slots");
        let slab = vec![0; slots * POOL_SLOT].into_boxed_slice();
        Pool { slab, slots, free: (0..count).rev().collect(), exhausted: 0 }
    }

    /// A packet holding a copy of `bytes`, or none if the pool is drawn down (counted) or `bytes` exceed a slot.
    pub fn copy_in(&mut self, urgency: Urgency, bytes: &[u8]) -> Option<Packet> {
        let mut packet = self.take(urgency, bytes.len())?;
        self.bytes_mut(&mut packet).copy_from_slice(bytes);
        Some(packet)
    }

    /// A packet of `len` bytes with unspecified content, or none if the pool is drawn down (counted) or `len` exceeds a
    /// slot.
    pub fn take(&mut self, urgency: Urgency, len: usize) -> Option<Packet> {
        let reserve = match urgency {
            Urgency::Ordinary => self.slots / 8,
            Urgency::Reserved => 0,
        };
        if len > POOL_SLOT {
            return None;
        }
        // Callers that may use every slot look before they take, and ask for the rare branch themselves.
        if self.free.len() <= reserve || (urgency == Urgency::Ordinary && rarely!(PoolExhausted)) {
            self.exhausted += 1;
            return None;
        }
        let slot = self.free.pop()?;
        Some(Packet { slot, len: len as u16 })
    }

    /// A second packet holding a copy of the first `len` bytes of `packet`, or none if the pool is drawn down (counted).
    pub fn duplicate(&mut self, urgency: Urgency, packet: &Packet, len: usize) -> Option<Packet> {
        assert!(len <= packet.len(), "a copy is no longer than what it copies");
        let copy = self.take(urgency, len)?;
        let from = start(packet);
        self.slab.copy_within(from..from + len, start(&copy));
        Some(copy)
    }

    /// The packet's bytes.
    pub fn bytes(&self, packet: &Packet) -> &[u8] {
        &self.slab[start(packet)..][..packet.len()]
    }

    /// The packet's bytes, to change.
    pub fn bytes_mut(&mut self, packet: &mut Packet) -> &mut [u8] {
        &mut self.slab[start(packet)..][..packet.len()]
    }

    /// Gives the slot back.
    pub fn release(&mut self, packet: Packet) {
        assert!(self.free.len() < self.slots, "more packets released than taken");
        self.free.push(packet.slot);
    }

    /// Slots handed out.
    pub fn in_use(&self) -> usize {
        self.slots - self.free.len()
    }

    /// Slots in all.
    pub const fn capacity(&self) -> usize {
        self.slots
    }

    /// How often a caller got none.
    pub const fn exhausted(&self) -> u64 {
        self.exhausted
    }
}

/// Where the packet's slot begins in the slab.
const fn start(packet: &Packet) -> usize {
    packet.slot as usize * POOL_SLOT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_and_reserves_an_eighth() {
        let mut pool = Pool::new(16);
        let mut held = Vec::new();
        while let Some(packet) = pool.copy_in(Urgency::Ordinary, &[held.len() as u8; 3]) {
            held.push(packet);
        }
        assert_eq!((held.len(), pool.exhausted()), (14, 1));
        let urgent = pool.copy_in(Urgency::Reserved, b"urgent").expect("the reserve is left");
        let copy = pool.duplicate(Urgency::Reserved, &urgent, 4).expect("the reserve is left");
        assert_eq!(pool.bytes(&copy), b"urge");
        pool.release(copy);
        assert_eq!(pool.bytes(&urgent), b"urgent");
        for (n, packet) in held.into_iter().enumerate() {
            assert_eq!(pool.bytes(&packet), [n as u8; 3]);
            pool.release(packet);
        }
        pool.release(urgent);
        assert_eq!(pool.in_use(), 0);
        assert_eq!(pool.take(Urgency::Reserved, POOL_SLOT + 1), None);
    }
}
