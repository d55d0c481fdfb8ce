//! A transmit batch: datagrams that leave in one system call.

use crate::base::limits::DATAGRAM_SLOT;
use crate::base::{AddressPair, LinkId};

/// One datagram of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The link it belongs to; the driver sends through this link's connected socket if it has one. None for answers to
    /// strangers (handshake responses, cookies).
    pub link: Option<LinkId>,
    /// Where to, and from which address.
    pub to: AddressPair,
    /// Whether both ends hear each other on that path: it may have a connected socket.
    pub up: bool,
    /// Its bytes, UDP payload.
    pub len: usize,
}

/// A fixed number of datagrams with their bytes, filled by a shard and emptied by its driver.
#[derive(Debug)]
pub struct Batch {
    slab: Box<[[u8; DATAGRAM_SLOT]]>,
    entries: Vec<Transmit>,
}

impl Batch {
    /// An empty batch of at most `capacity` datagrams.
    pub fn new(capacity: usize) -> Batch {
        Batch { slab: vec![[0; DATAGRAM_SLOT]; capacity].into_boxed_slice(), entries: Vec::with_capacity(capacity) }
    }

    /// Adds the datagram that `write` puts into the slot it is given, unless the batch is full or `write` has none.
    /// True if one was added.
    pub fn push_with(&mut self, write: impl FnOnce(&mut [u8; DATAGRAM_SLOT]) -> Option<Transmit>) -> bool {
        let Some(slot) = self.slab.get_mut(self.entries.len()) else { return false };
        match write(slot) {
            Some(entry) => {
                assert!(entry.len <= DATAGRAM_SLOT, "a datagram fits its slot");
                self.entries.push(entry);
                true
            }
            None => false,
        }
    }

    /// The datagrams with their bytes, in the order they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Transmit, &[u8])> {
        self.entries.iter().zip(&self.slab).map(|(entry, slot)| (entry, &slot[..entry.len]))
    }

    /// The datagram added `index`th, with its bytes.
    pub fn get(&self, index: usize) -> Option<(&Transmit, &[u8])> {
        let entry = self.entries.get(index)?;
        Some((entry, &self.slab[index][..entry.len]))
    }

    /// Number of datagrams.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no more fit.
    pub fn is_full(&self) -> bool {
        self.entries.len() == self.slab.len()
    }

    /// Empties the batch; the slots are reused.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
