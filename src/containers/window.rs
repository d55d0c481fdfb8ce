//! A sliding window of seen sequence numbers: duplicates and replays in constant time and memory.

/// Remembers which of the newest `BITS` sequence numbers were seen (RFC 6479's block-wise sliding bitmap). `BITS` is a
/// multiple of 64; the oldest block of 64 is forgotten as a whole, so `BITS - 63` numbers are always remembered.
#[derive(Clone, Debug)]
pub struct SequenceWindow<const BITS: usize> {
    blocks: Box<[u64]>,
    next: u64,
}

/// What a window says of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not seen before.
    New,
    /// Seen before.
    Duplicate,
    /// Older than the window remembers.
    TooOld,
}

impl<const BITS: usize> Default for SequenceWindow<BITS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BITS: usize> SequenceWindow<BITS> {
    const BLOCKS: u64 = (BITS / 64) as u64;

    /// A window that has seen nothing.
    pub fn new() -> Self {
        const { assert!(BITS.is_multiple_of(64) && BITS >= 128, "a window is a multiple of 64 bits, at least 128") };
        SequenceWindow { blocks: vec![0; BITS / 64].into_boxed_slice(), next: 0 }
    }

    /// What is known of `sequence`, changing nothing. The last number of all, after which there is none, is never new.
    pub fn check(&self, sequence: u64) -> Seen {
        if sequence == u64::MAX {
            return Seen::TooOld;
        }
        if sequence >= self.next {
            return Seen::New;
        }
        let newest_block = (self.next - 1) / 64;
        if sequence / 64 + Self::BLOCKS <= newest_block {
            return Seen::TooOld;
        }
        let block = self.blocks[(sequence / 64 % Self::BLOCKS) as usize];
        if block & (1 << (sequence % 64)) != 0 { Seen::Duplicate } else { Seen::New }
    }

    /// What was known of `sequence`; if it was new, it is remembered.
    pub fn insert(&mut self, sequence: u64) -> Seen {
        let seen = self.check(sequence);
        if seen != Seen::New {
            return seen;
        }
        if sequence >= self.next {
            let newest = if self.next == 0 { 0 } else { (self.next - 1) / 64 };
            let target = sequence / 64;
            for block in newest + 1..=target.min(newest + Self::BLOCKS) {
                self.blocks[(block % Self::BLOCKS) as usize] = 0;
            }
            if target > newest + Self::BLOCKS {
                self.blocks.fill(0);
            }
            self.next = sequence + 1;
        }
        self.blocks[(sequence / 64 % Self::BLOCKS) as usize] |= 1 << (sequence % 64);
        Seen::New
    }

    /// One more than the largest number seen.
    pub const fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The same by brute force.
    fn model(seen: &BTreeSet<u64>, sequence: u64) -> Seen {
        match seen.last() {
            Some(&newest) if sequence / 64 + 4 <= newest / 64 => Seen::TooOld,
            _ if seen.contains(&sequence) => Seen::Duplicate,
            _ => Seen::New,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec((0u64..3, 0u64..400), 1..300)) {
            let mut window = SequenceWindow::<256>::new();
            let mut seen = BTreeSet::new();
            let mut at = 0u64;
            for (kind, step) in steps {
                at = match kind { 0 => at + step, 1 => at.saturating_sub(step), _ => at + step % 3 };
                let expected = model(&seen, at);
                prop_assert_eq!(window.check(at), expected);
                prop_assert_eq!(window.insert(at), expected);
                if expected == Seen::New { seen.insert(at); }
            }
        }
    }

    #[test]
    fn a_far_jump_forgets_everything_old() {
        let mut window = SequenceWindow::<8192>::new();
        assert_eq!(window.insert(0), Seen::New);
        assert_eq!(window.insert(1 << 40), Seen::New);
        assert_eq!(window.insert(0), Seen::TooOld);
        assert_eq!(window.insert((1 << 40) - 8000), Seen::New);
        assert_eq!(window.insert(1 << 40), Seen::Duplicate);
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let mut window = SequenceWindow::<8192>::new();
        assert_eq!(window.insert(u64::MAX), Seen::TooOld);
        assert_eq!(window.insert(u64::MAX - 1), Seen::New);
        assert_eq!(window.insert(u64::MAX - 1), Seen::Duplicate);
        assert_eq!((window.insert(u64::MAX), window.next()), (Seen::TooOld, u64::MAX));
    }
}
