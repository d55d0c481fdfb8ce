//! Lines out of a byte stream, however it was cut, with a bound.

/// Longest request, bytes. Requests are short; answers may be as long as [`crate::wire::admin::MAX_LINE`].
pub(super) const MAX_REQUEST: usize = 64 << 10;

/// A line that is longer than the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Bytes of a stream that are not yet taken as lines.
#[derive(Debug)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// No newline before this.
    searched: usize,
    bound: usize,
}

impl Lines {
    /// An empty buffer for lines of at most `bound` bytes.
    pub(super) fn new(bound: usize) -> Lines {
        Lines { bytes: Vec::new(), searched: 0, bound }
    }

    /// Adds what was read.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The oldest whole line, without its newline. Empty lines are skipped.
    pub(super) fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        loop {
            let Some(found) = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n') else {
                self.searched = self.bytes.len();
                return if self.bytes.len() > self.bound { Err(TooLong) } else { Ok(None) };
            };
            let end = self.searched + found;
            if end > self.bound {
                return Err(TooLong);
            }
            let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
            self.searched = 0;
            line.pop();
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_beyond_the_bound_is_refused_with_and_without_its_end() {
        let mut lines = Lines::new(4);
        lines.extend(b"abcd\nabcde");
        assert_eq!(lines.next_line(), Ok(Some(b"abcd".to_vec())));
        assert_eq!(lines.next_line(), Err(TooLong));
        let mut lines = Lines::new(4);
        lines.extend(b"abcde\n");
        assert_eq!(lines.next_line(), Err(TooLong));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            lines in proptest::collection::vec("[a-z]{0,9}", 0..20),
            cuts in proptest::collection::vec(1usize..7, 1..20),
        ) {
            let stream: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            let (mut buffer, mut got, mut rest) = (Lines::new(9), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                buffer.extend(head);
                rest = tail;
                while let Some(line) = buffer.next_line().expect("within the bound") {
                    got.push(String::from_utf8(line).expect("ascii"));
                }
                if rest.is_empty() {
                    break;
                }
            }
            let expected: Vec<_> = lines.iter().filter(|line| !line.is_empty()).cloned().collect();
            prop_assert_eq!(got, expected);
        }
    }
}
