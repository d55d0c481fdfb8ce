//! Sets of processors.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

/// Words of a mask: room for 8,192 processors, the most that Linux is built for.
const WORDS: usize = 128;

/// Processors by their numbers (what Linux calls CPUs, and `taskset` too: threads of cores where cores have several).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<usize>);

impl CpuSet {
    /// As lists in /sys and /proc are written: `0-3,8`. What is no list is empty, as is `(null)`, the kernel's own word for
    /// it.
    pub fn from_list(text: &str) -> CpuSet {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok().filter(|&last| last < 64 * WORDS)?)
        };
        text.trim().split(',').filter_map(range).flatten().collect()
    }

    /// As masks in /sys are written: hexadecimal words of 32 bits, the highest first (`ff,00000001`).
    pub fn from_mask(text: &str) -> CpuSet {
        let words: Vec<u32> = text.trim().split(',').map(|word| u32::from_str_radix(word, 16).unwrap_or(0)).collect();
        let bits = |(index, word): (usize, &u32)| {
            let word = *word;
            (0..32).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index * 32 + bit)
        };
        words.iter().rev().enumerate().flat_map(bits).collect()
    }

    /// As a mask in /sys is written.
    pub fn to_mask(&self) -> String {
        let last = self.0.last().copied().unwrap_or(0) / 32;
        let word =
            |index: usize| (0..32).filter(|bit| self.contains(index * 32 + bit)).fold(0u32, |w, bit| w | 1 << bit);
        let words: Vec<String> = (0..=last).rev().map(|index| format!("{:08x}", word(index))).collect();
        let text = words.join(",");
        text.trim_start_matches('0').to_owned() + if self.0.is_empty() { "0" } else { "" }
    }

    /// Those that the calling thread may run on.
    pub fn of_this_thread() -> io::Result<CpuSet> {
        let mut words = [0u64; WORDS];
        // SAFETY: `words` is writable for the size given; the kernel writes no more than that.
        let result =
            unsafe { libc::sched_getaffinity(0, size_of_val(&words), words.as_mut_ptr().cast::<libc::cpu_set_t>()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((0..64 * WORDS).filter(|id| words[id / 64] & (1 << (id % 64)) != 0).collect())
    }

    /// Lets the calling thread, and threads that it starts from now on, run on these only.
    pub fn confine_this_thread(&self) -> io::Result<()> {
        let mut words = [0u64; WORDS];
        self.iter().for_each(|id| words[id / 64] |= 1 << (id % 64));
        // SAFETY: `words` is readable for the size given.
        let result =
            unsafe { libc::sched_setaffinity(0, size_of_val(&words), words.as_ptr().cast::<libc::cpu_set_t>()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Whether `id` is one of them.
    pub fn contains(&self, id: usize) -> bool {
        self.0.contains(&id)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Their numbers, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// Those of this set that are not in the other.
    pub fn without(&self, other: &CpuSet) -> CpuSet {
        CpuSet(&self.0 - &other.0)
    }

    /// Those in both.
    pub fn common(&self, other: &CpuSet) -> CpuSet {
        CpuSet(&self.0 & &other.0)
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(ids: I) -> CpuSet {
        CpuSet(ids.into_iter().filter(|&id| id < 64 * WORDS).collect())
    }
}

/// As a list is written: `0-3,8`.
impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = ids.next() {
            let mut last = first;
            while ids.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let ids = |set: CpuSet| set.iter().collect::<Vec<_>>();
        assert_eq!(ids(CpuSet::from_list("0-3,8,10-11\n")), [0, 1, 2, 3, 8, 10, 11]);
        for none in ["", "\n", " (null)", "x", "3-", "0-99999999"] {
            assert!(CpuSet::from_list(none).is_empty(), "{none:?}");
        }
        assert_eq!(ids(CpuSet::from_mask("3,00000001\n")), [0, 32, 33]);
        assert_eq!(CpuSet::from_list("0,32-33").to_mask(), "3,00000001");
        assert_eq!((CpuSet::default().to_mask(), CpuSet::from_mask("0").len()), ("0".into(), 0));
    }

    #[test]
    fn a_thread_is_confined_to_what_it_is_given_and_no_other() {
        let before = CpuSet::of_this_thread().expect("has some");
        let first: CpuSet = before.iter().take(1).collect();
        let (mine, wanted) = (first.clone(), first.clone());
        let inside = std::thread::spawn(move || mine.confine_this_thread().and_then(|()| CpuSet::of_this_thread()));
        assert_eq!(inside.join().expect("ends").expect("is allowed"), wanted);
        assert_eq!(CpuSet::of_this_thread().expect("has some"), before);
        assert!(CpuSet::default().confine_this_thread().is_err(), "nowhere to run");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ids in proptest::collection::btree_set(0usize..300, 0..40)) {
            let set: CpuSet = ids.into_iter().collect();
            prop_assert_eq!(CpuSet::from_list(&set.to_string()), set.clone());
            prop_assert_eq!(CpuSet::from_mask(&set.to_mask()), set);
        }
    }
}
