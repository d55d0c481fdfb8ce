//! Did you mean …?

/// The candidate that `word` was probably meant to be, if one is near.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates.into_iter().map(|candidate| (edits(word, candidate), candidate));
    let near = near.filter(|&(edits, candidate)| edits <= allowed(word, candidate));
    near.min_by_key(|&(edits, _)| edits).map(|(_, found)| found)
}

/// Most edits that leave a word recognisable: one in three letters. So `b` is not taken for a slip of `a`: names of one
/// or two letters are as near to each other as to anything else.
fn allowed(word: &str, candidate: &str) -> usize {
    word.chars().count().max(candidate.chars().count()) / 3
}

/// Edits between two words, where another case is none.
fn edits(word: &str, candidate: &str) -> usize {
    distance(&word.to_lowercase(), &candidate.to_lowercase())
}

/// Edits between two words: insertions, deletions, replacements and swaps of neighbours each count one (optimal string
/// alignment distance).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("worker", "workers"), 1);
        assert_eq!(distance("wrokers", "workers"), 1);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abc", "xyz"), 3);
    }

    #[test]
    fn suggests_what_is_near_and_nothing_else() {
        let keys = ["peer", "remote", "hello", "dead"];
        assert_eq!(closest("remtoe", keys), Some("remote"));
        assert_eq!(closest("peers", keys), Some("peer"));
        assert_eq!(closest("bandwidth", keys), None);
        assert_eq!(closest("x", []), None);
        assert_eq!(closest("Peer", keys), Some("peer"));
    }

    #[test]
    fn short_names_are_not_near_to_each_other() {
        let names = ["a", "b", "c1", "lon"];
        assert_eq!(closest("z", names), None);
        assert_eq!(closest("ab", names), None);
        assert_eq!(closest("c2", names), None);
        assert_eq!(closest("B", names), Some("b"), "only its case is wrong");
        assert_eq!(closest("lan", names), Some("lon"));
    }
}
