//! Many datagrams at once: by socket for the price of few system calls (sendmmsg, recvmmsg), by shared memory with one look
//! at whether the router sleeps.

use super::datagrams::{DATAGRAM_HEADER, event, too_long};
use super::{Endpoint, Event};
use crate::base::Class;
use crate::wire::client::MAX_HEADER;
use std::io;

/// Most datagrams that pass at once; more are taken in several steps.
pub(super) const STEP: usize = 64;

/// A datagram for [`Datagrams::send_batch`](super::Datagrams::send_batch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// Where to.
    pub to: Endpoint,
    /// Recovery class.
    pub class: Class,
    /// Deliver it after those sent before it.
    pub ordered: bool,
    /// Its bytes, at most 64 KiB.
    pub bytes: &'a [u8],
}

/// Room for what [`Datagrams::recv_batch`](super::Datagrams::recv_batch) receives, and what was received last. Made once,
/// used again and again.
#[derive(Debug)]
pub struct Batch {
    bytes: Box<[u8]>,
    /// Bytes of each slot.
    slot: usize,
    /// Lengths of the records received, 0 where the router had closed its end.
    pub(super) lens: Vec<usize>,
}

impl Batch {
    /// Room for `count` events, at least one, and for `longest` bytes of each datagram.
    pub fn new(count: usize, longest: usize) -> Batch {
        let (count, slot) = (count.max(1), (DATAGRAM_HEADER + longest).max(MAX_HEADER));
        Batch { bytes: vec![0; count * slot].into_boxed_slice(), slot, lens: Vec::with_capacity(count) }
    }

    /// The slots, all of them.
    pub(super) fn slots(&mut self) -> (impl ExactSizeIterator<Item = &mut [u8]>, &mut Vec<usize>) {
        (self.bytes.chunks_exact_mut(self.slot), &mut self.lens)
    }

    /// What was received last, in order. A datagram that did not fit is an error of kind `InvalidInput`, and the next
    /// one is not touched by that.
    pub fn events(&self) -> impl ExactSizeIterator<Item = io::Result<Event<'_>>> {
        let slots = self.bytes.chunks_exact(self.slot);
        self.lens.iter().zip(slots).map(|(&len, slot)| match slot.get(..len) {
            Some([]) => Ok(Event::Closed),
            Some(record) => event(record, || Ok(&record[DATAGRAM_HEADER..])),
            None => Err(too_long(len - DATAGRAM_HEADER, slot.len() - DATAGRAM_HEADER)),
        })
    }
}
