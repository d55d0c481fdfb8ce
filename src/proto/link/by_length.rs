//! Which bucket is the longest, known at every moment for a few instructions per change.
//!
//! Buckets of equal length form a list, and a length changes by one at a time: a bucket moves to the list beside its
//! own, and the longest length moves with it (the trick of Linux's sch_sfq).
//!
//! Bound: a word per bucket and per length that can occur.

const NONE: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    len: u32,
    before: u16,
    after: u16,
}

/// Buckets in lists by their length.
#[derive(Debug)]
pub(super) struct ByLength {
    nodes: Box<[Node]>,
    /// First bucket of each length; empty buckets are on no list.
    heads: Box<[u16]>,
    longest: usize,
}

impl ByLength {
    /// Empty buckets, none of which will exceed `bound`.
    pub(super) fn new(buckets: usize, bound: usize) -> ByLength {
        assert!(buckets < usize::from(NONE), "buckets are named by 16 bits");
        ByLength {
            nodes: vec![Node { len: 0, before: NONE, after: NONE }; buckets].into_boxed_slice(),
            heads: vec![NONE; bound + 1].into_boxed_slice(),
            longest: 0,
        }
    }

    /// A longest bucket, unless all are empty.
    pub(super) fn longest(&self) -> Option<usize> {
        let head = self.heads[self.longest];
        (head != NONE).then_some(usize::from(head))
    }

    /// A bucket got one longer.
    pub(super) fn grow(&mut self, bucket: usize) {
        self.unlink(bucket);
        self.nodes[bucket].len += 1;
        self.link(bucket);
        self.longest = self.longest.max(self.nodes[bucket].len as usize);
    }

    /// A bucket got one shorter.
    pub(super) fn shrink(&mut self, bucket: usize) {
        assert!(self.nodes[bucket].len > 0, "only what is there can leave");
        self.unlink(bucket);
        self.nodes[bucket].len -= 1;
        self.link(bucket);
        if self.heads[self.longest] == NONE {
            self.longest = self.longest.saturating_sub(1);
        }
    }

    fn unlink(&mut self, bucket: usize) {
        let Node { len, before, after } = self.nodes[bucket];
        if len == 0 {
            return;
        }
        match before {
            NONE => self.heads[len as usize] = after,
            before => self.nodes[usize::from(before)].after = after,
        }
        if after != NONE {
            self.nodes[usize::from(after)].before = before;
        }
    }

    fn link(&mut self, bucket: usize) {
        let len = self.nodes[bucket].len as usize;
        if len == 0 {
            return;
        }
        let after = self.heads[len];
        self.heads[len] = bucket as u16;
        (self.nodes[bucket].before, self.nodes[bucket].after) = (NONE, after);
        if after != NONE {
            self.nodes[usize::from(after)].before = bucket as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_search(steps in prop::collection::vec((0usize..6, any::<bool>()), 0..200)) {
            let (mut lengths, mut naive) = (ByLength::new(6, 20), [0usize; 6]);
            for (bucket, grow) in steps {
                if grow && naive[bucket] < 20 {
                    naive[bucket] += 1;
                    lengths.grow(bucket);
                } else if !grow && naive[bucket] > 0 {
                    naive[bucket] -= 1;
                    lengths.shrink(bucket);
                }
                let longest = naive.iter().copied().max().filter(|&len| len > 0);
                prop_assert_eq!(lengths.longest().map(|bucket| naive[bucket]), longest);
            }
        }
    }
}
