//! A small, fixed hash for spreading flows over queues and lanes.
//!
//! The same on every router and in every run, unlike the standard library's seeded hasher. It protects nothing: where
//! an attacker could choose the input to do harm, the caller mixes in a secret.

/// FNV-1a (draft-eastlake-fnv) over `bytes`, finished with an avalanche so that the low bits are usable alone.
pub const fn hash64(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    mix64(hash)
}

/// The finaliser of MurmurHash3: every input bit changes every output bit with probability one half.
pub const fn mix64(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_bits_spread_over_sequential_inputs() {
        let mut buckets = [0u32; 64];
        for n in 0..6400u32 {
            buckets[(hash64(&n.to_be_bytes()) % 64) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| (50..170).contains(&count)), "{buckets:?}");
    }
}
