//! A set of small numbers: one bit each.

/// Numbers below a bound that the user has, such as places in a list. Memory comes with the first number, a
/// bit for each below the greatest; every question about one number looks at one word.
#[derive(Clone, Debug, Default)]
pub struct NumberSet {
    words: Vec<u64>,
    len: usize,
}

const fn place(number: usize) -> (usize, u64) {
    (number / 64, 1 << (number % 64))
}

impl NumberSet {
    /// An empty set.
    pub const fn new() -> NumberSet {
        NumberSet { words: Vec::new(), len: 0 }
    }

    /// Adds a number; false if it was there.
    pub fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = place(number);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += usize::from(new);
        new
    }

    /// Takes a number out; false if it was not there.
    pub fn remove(&mut self, number: usize) -> bool {
        let held = self.contains(number);
        if held {
            let (word, bit) = place(number);
            self.words[word] &= !bit;
            self.len -= 1;
        }
        held
    }

    /// Whether the number is there.
    pub fn contains(&self, number: usize) -> bool {
        let (word, bit) = place(number);
        self.len > 0 && self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// How many numbers there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = if self.is_empty() { &[][..] } else { &self.words[..] };
        words.iter().enumerate().flat_map(|(word, &bits)| {
            let rests = std::iter::successors(Some(bits).filter(|&bits| bits != 0), |rest| {
                Some(rest & (rest - 1)).filter(|&rest| rest != 0)
            });
            rests.map(move |rest| word * 64 + rest.trailing_zeros() as usize)
        })
    }

    /// Takes the lowest number out.
    pub fn pop_first(&mut self) -> Option<usize> {
        let first = self.iter().next()?;
        self.remove(first);
        Some(first)
    }

    /// Takes all numbers of another set, and leaves it empty.
    pub fn append(&mut self, other: &mut NumberSet) {
        for number in other.iter() {
            self.insert(number);
        }
        other.clear();
    }

    /// Takes all numbers out.
    pub fn clear(&mut self) {
        if !self.is_empty() {
            self.words.fill(0);
            self.len = 0;
        }
    }
}

impl FromIterator<usize> for NumberSet {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> NumberSet {
        let mut set = NumberSet::new();
        for number in numbers {
            set.insert(number);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((0u8..12, 0usize..300), 0..300)) {
            let (mut set, mut model) = (NumberSet::new(), BTreeSet::new());
            for (step, number) in steps {
                match step {
                    0..5 => prop_assert_eq!(set.insert(number), model.insert(number)),
                    5..9 => prop_assert_eq!(set.remove(number), model.remove(&number)),
                    9 => prop_assert_eq!(set.pop_first(), model.pop_first()),
                    10 => {
                        let mut more: NumberSet = [number, number + 7].into_iter().collect();
                        set.append(&mut more);
                        prop_assert!(more.is_empty() && more.iter().next().is_none());
                        model.extend([number, number + 7]);
                    }
                    _ if number < 30 => {
                        set.clear();
                        model.clear();
                    }
                    _ => {}
                }
                prop_assert_eq!(set.contains(number), model.contains(&number));
                prop_assert_eq!((set.len(), set.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(set.iter().eq(model.iter().copied()));
            }
        }
    }
}
