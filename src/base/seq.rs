//! Sequence numbers: 64 bits in memory, truncated on the wire.
//!
//! Inside the process every sequence number is a plain `u64` that never wraps. The wire carries its low 32 bits and the
//! receiver restores the rest from the largest number it has seen (as in RFC 9000 appendix A.3).

/// The number nearest to `expected` whose low 32 bits are `low`.
///
/// ```
/// use sinew::base::seq::expand;
/// assert_eq!(expand(0x1_0000_0005, 0xffff_fffe), 0xffff_fffe);
/// assert_eq!(expand(0xffff_fffe, 3), 0x1_0000_0003);
/// ```
pub const fn expand(expected: u64, low: u32) -> u64 {
    const SPAN: u64 = 1 << 32;
    let candidate = (expected & !(SPAN - 1)) | low as u64;
    if candidate + SPAN / 2 <= expected && candidate <= u64::MAX - SPAN {
        candidate + SPAN
    } else if candidate > expected.saturating_add(SPAN / 2) && candidate >= SPAN {
        candidate - SPAN
    } else {
        candidate
    }
}

/// The low 32 bits, for the wire.
pub const fn truncate(seq: u64) -> u32 {
    seq as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expand_inverts_truncate_near_expected() {
        for base in [0, 1, 5_000_000_000, (1 << 32) - 1, 1 << 32, (1 << 40) + 17] {
            for delta in -2000i64..2000 {
                let Some(seq) = u64::checked_add_signed(base, delta * 1_000_003) else { continue };
                assert_eq!(expand(base, truncate(seq)), seq, "base {base} delta {delta}");
            }
        }
    }
}
