//! Finding an id among ids that ascend.
//!
//! Ids are hashes, spread evenly over all numbers, so an id's value tells about where it lies (interpolation search,
//! Peterson 1957): of a thousand within some ten places. From there the search widens to either side until the id lies
//! between (Bentley and Yao 1976), so ids that somebody chose cost twice a binary search at most. A binary search looks
//! at ten places all over the list, most of them in memory of their own; this one at five or six side by side.

use super::NodeId;

/// How far from the guess the search looks first: eight ids share a cache line.
const NEAR: usize = 8;

/// The place of `id` in a list whose ids ascend.
pub fn place_of<T>(list: &[T], id: NodeId, id_of: impl Fn(&T) -> NodeId) -> Option<usize> {
    let is_before = |place: usize| id_of(&list[place]) < id;
    // At most the length, less one.
    let guess = ((u128::from(id.0) * list.len() as u128) >> 64) as usize;
    let mut step = NEAR;
    // All before `low` are before the id, and none is from `high` on.
    let (mut low, mut high) = (guess, guess);
    if guess < list.len() && is_before(guess) {
        (low, high) = (guess + 1, guess + step);
        while high < list.len() && is_before(high) {
            step *= 2;
            (low, high) = (high + 1, high + step);
        }
        high = high.min(list.len());
    } else {
        low = low.saturating_sub(step);
        while low > 0 && !is_before(low - 1) {
            step *= 2;
            (low, high) = ((low - 1).saturating_sub(step), low - 1);
        }
    }
    let place = low + list[low..high].partition_point(|item| id_of(item) < id);
    list.get(place).is_some_and(|item| id_of(item) == id).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::BTreeSet;

    proptest! {
        /// Whether ids are hashes, small numbers, or crowd at an end.
        #[test]
        fn finds_what_is_there_and_nothing_else(
            ids in prop::collection::btree_set(prop_oneof![any::<u64>(), 0u64..300, u64::MAX - 300..=u64::MAX], 0..200),
            others in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..300, u64::MAX - 300..=u64::MAX], 0..20),
        ) {
            let list: Vec<NodeId> = ids.iter().copied().map(NodeId).collect();
            for (place, &id) in list.iter().enumerate() {
                prop_assert_eq!(place_of(&list, id, |&id| id), Some(place));
            }
            for other in others.into_iter().map(NodeId) {
                prop_assert_eq!(place_of(&list, other, |&id| id), list.binary_search(&other).ok());
            }
        }
    }

    /// How many places the search looks at on average, and at most.
    fn looks(list: &[NodeId]) -> (f64, usize) {
        let looks = list.iter().map(|&id| {
            let count = Cell::new(0);
            let look = |id: &NodeId| {
                count.set(count.get() + 1);
                *id
            };
            assert!(place_of(list, id, look).is_some());
            count.get()
        });
        let looks: Vec<usize> = looks.collect();
        (looks.iter().sum::<usize>() as f64 / looks.len() as f64, looks.into_iter().max().unwrap_or_default())
    }

    #[test]
    fn a_few_looks_find_a_hash_and_ids_that_were_chosen_cost_no_more_than_twice_a_binary_search() {
        let mut rng = Rng::from_u64(1);
        let hashes: BTreeSet<u64> = (0..1_000).map(|_| rng.next_u64()).collect();
        let (mean, _) = looks(&hashes.into_iter().map(NodeId).collect::<Vec<_>>());
        assert!(mean < 8.0, "{mean} looks");
        let (_, most) = looks(&(0..1_000).map(NodeId).collect::<Vec<_>>());
        assert!(most <= 20, "{most} looks");
    }
}
