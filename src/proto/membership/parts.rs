//! What is longer than a message, put together again.

use crate::wire::membership::{MAX_PARTS, Part};

/// The parts of the newest whole of one sender: at most [`MAX_PARTS`] messages.
#[derive(Debug, Default)]
pub(super) struct Parts {
    serial: u64,
    held: Vec<Option<Vec<u8>>>,
    done: bool,
}

impl Parts {
    /// Which whole this is; 0 if none.
    pub(super) const fn serial(&self) -> u64 {
        self.serial
    }

    /// Takes in one part. The whole, when it was the last that lacked; parts of older wholes are ignored.
    pub(super) fn take(&mut self, part: &Part<'_>) -> Option<Vec<u8>> {
        assert!(part.count <= MAX_PARTS, "parse bounds the parts");
        if part.serial > self.serial {
            *self = Parts { serial: part.serial, held: vec![None; part.count], done: false };
        }
        if part.serial < self.serial || self.done || self.held.len() != part.count {
            return None;
        }
        self.held[part.index].get_or_insert_with(|| part.bytes.to_vec());
        if self.held.iter().any(Option::is_none) {
            return None;
        }
        self.done = true;
        Some(std::mem::take(&mut self.held).into_iter().flatten().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::membership::PART_ROOM;

    #[test]
    fn parts_in_any_order_make_one_whole_once() {
        let whole: Vec<u8> = (0..3 * PART_ROOM - 7).map(|n| n as u8).collect();
        let cut: Vec<_> = Part::cut(5, &whole).collect();
        let mut parts = Parts::default();
        assert_eq!(parts.take(&cut[2]), None);
        assert_eq!(parts.take(&cut[0]), None);
        assert_eq!(parts.take(&cut[0]), None);
        let older: Vec<_> = Part::cut(4, &whole).collect();
        assert_eq!(parts.take(&older[1]), None, "an older whole does not mix with it");
        assert_eq!(parts.take(&cut[1]), Some(whole.clone()));
        assert_eq!(parts.take(&cut[1]), None, "once");
        let newer: Vec<_> = Part::cut(6, b"").collect();
        assert_eq!((newer.len(), parts.take(&newer[0])), (1, Some(Vec::new())));
        assert_eq!(parts.serial(), 6);
    }
}
