//! A bounded set of integers kept as ranges: what was received, for acknowledgements.

/// At most a fixed number of disjoint, non-adjacent inclusive ranges, ascending. When one too many would be needed the
/// lowest is forgotten: acknowledgements say the newest first, and what is forgotten is retransmitted, not lost.
#[derive(Clone, Debug)]
pub struct RangeSet {
    ranges: Vec<(u64, u64)>,
    capacity: usize,
}

impl RangeSet {
    /// An empty set of at most `capacity` (≥ 1) ranges.
    pub fn new(capacity: usize) -> RangeSet {
        assert!(capacity > 0, "a range set holds at least one range");
        RangeSet { ranges: Vec::with_capacity(capacity + 1), capacity }
    }

    /// Adds `value`; false if it was there. Constant time for values near the top.
    pub fn insert(&mut self, value: u64) -> bool {
        // First range from the top that starts at or below the value.
        let below = self.ranges.iter().rposition(|&(first, _)| first <= value);
        if let Some(index) = below {
            let (_, last) = self.ranges[index];
            if value <= last {
                return false;
            }
            if value == last + 1 {
                self.ranges[index].1 = value;
                self.merge_with_next(index);
                return true;
            }
        }
        let above = below.map_or(0, |index| index + 1);
        match self.ranges.get_mut(above) {
            Some(range) if range.0 == value + 1 => range.0 = value,
            _ => self.ranges.insert(above, (value, value)),
        }
        if self.ranges.len() > self.capacity {
            self.ranges.remove(0);
        }
        true
    }

    fn merge_with_next(&mut self, index: usize) {
        if let Some(&(first, last)) = self.ranges.get(index + 1)
            && self.ranges[index].1 + 1 == first
        {
            self.ranges[index].1 = last;
            self.ranges.remove(index + 1);
        }
    }

    /// Forgets everything below `bound`.
    pub fn remove_below(&mut self, bound: u64) {
        let gone = self.ranges.iter().take_while(|&&(_, last)| last < bound).count();
        self.ranges.drain(..gone);
        if let Some(range) = self.ranges.first_mut() {
            range.0 = range.0.max(bound);
        }
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: u64) -> bool {
        let at = self.ranges.partition_point(|&(_, last)| last < value);
        self.ranges.get(at).is_some_and(|&(first, _)| first <= value)
    }

    /// The ranges `(first, last)`, ascending; reversible.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().copied()
    }

    /// The largest value.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|&(_, last)| last)
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_set(values in proptest::collection::vec(0u64..200, 0..200), bound in 0u64..200) {
            let mut ranges = RangeSet::new(1000);
            let mut model = BTreeSet::new();
            for value in values {
                prop_assert_eq!(ranges.insert(value), model.insert(value));
            }
            ranges.remove_below(bound);
            model.retain(|&value| value >= bound);
            let listed: Vec<u64> = ranges.iter().flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(listed, model.iter().copied().collect::<Vec<_>>());
            prop_assert!((0..200).all(|value| ranges.contains(value) == model.contains(&value)));
            let disjoint = ranges.iter().zip(ranges.iter().skip(1)).all(|(a, b)| a.1 + 1 < b.0);
            prop_assert!(disjoint, "ranges neither overlap nor touch");
        }
    }

    #[test]
    fn forgets_the_lowest_when_full() {
        let mut ranges = RangeSet::new(2);
        for value in [1, 3, 5] {
            ranges.insert(value);
        }
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(3, 3), (5, 5)]);
    }
}
