//! Receiver indices: how a datagram finds the keys it is meant for.

use crate::base::limits::MAX_LINKS;
use crate::base::{LinkId, Rng};

/// Keys and handshakes that one link can hold at a time: four pairs and one handshake in flight.
const PER_LINK: usize = 5;
const SLOTS: usize = 2048;

const _: () = assert!(SLOTS >= 4 * PER_LINK * MAX_LINKS, "a free slot is found in a few draws");

/// Live indices and the links they belong to. An index has 24 random bits; its low bits are its slot in the table, so
/// that finding one costs a single look.
pub(super) struct IndexTable {
    slots: Box<[Option<(u32, LinkId)>]>,
    used: usize,
}

impl IndexTable {
    pub(super) fn new() -> IndexTable {
        IndexTable { slots: vec![None; SLOTS].into_boxed_slice(), used: 0 }
    }

    /// A new index for `link`.
    pub(super) fn draw(&mut self, rng: &mut Rng, link: LinkId) -> u32 {
        // One more than all hold: offered keys get theirs before those that they replace give it back.
        assert!(self.used <= PER_LINK * MAX_LINKS, "an index is given back when its keys go");
        loop {
            let index = rng.next_u32() >> 8;
            let slot = &mut self.slots[index as usize % SLOTS];
            if slot.is_none() {
                *slot = Some((index, link));
                self.used += 1;
                return index;
            }
        }
    }

    /// The link that `index` belongs to.
    pub(super) fn find(&self, index: u32) -> Option<LinkId> {
        self.slots[index as usize % SLOTS].filter(|entry| entry.0 == index).map(|entry| entry.1)
    }

    /// Gives `index` back.
    pub(super) fn release(&mut self, index: u32) {
        let entry = self.slots[index as usize % SLOTS].take();
        assert_eq!(entry.map(|entry| entry.0), Some(index), "an index is released once, by its owner");
        self.used -= 1;
    }

    /// Number of live indices.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_a_map() {
        let (mut table, mut model, mut rng) = (IndexTable::new(), BTreeMap::new(), Rng::from_u64(1));
        for round in 0..5000u32 {
            if model.len() < PER_LINK * MAX_LINKS && rng.chance(0.55) {
                let link = LinkId((round % 64) as u16);
                let index = table.draw(&mut rng, link);
                assert!(index < 1 << 24);
                assert_eq!(model.insert(index, link), None, "indices are unique");
            } else if let Some(&index) = model.keys().nth(rng.below(model.len().max(1) as u64) as usize) {
                table.release(index);
                model.remove(&index);
            }
            assert_eq!(table.len(), model.len());
            assert!(model.iter().all(|(&index, &link)| table.find(index) == Some(link)));
            let stranger = rng.next_u32() >> 8;
            assert_eq!(table.find(stranger), model.get(&stranger).copied());
        }
    }
}
