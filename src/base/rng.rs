//! Seeded randomness.
//!
//! Protocol rooms get a generator at construction and draw everything from it: jitter, ids, ephemeral keys. In
//! production it is seeded from the operating system; in the simulator from the run's seed, so that a run can be replayed.

use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha12Rng;
use std::time::Duration;

/// A cryptographically strong generator (ChaCha, 12 rounds) whose whole future follows from its seed.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// A generator from 32 bytes of entropy.
    pub fn from_seed(seed: [u8; 32]) -> Rng {
        Rng(ChaCha12Rng::from_seed(seed))
    }

    /// A generator from a short seed, for simulations and tests only.
    pub fn from_u64(seed: u64) -> Rng {
        Rng(ChaCha12Rng::seed_from_u64(seed))
    }

    /// An independent generator, drawn from this one.
    pub fn fork(&mut self) -> Rng {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Rng::from_seed(seed)
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Fills `bytes` with uniform bits.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// A uniform number below `bound`, which must not be zero (Lemire's multiply-shift; bias below 2^-32 for small bounds).
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a range must not be empty");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A uniform number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.unit() < p
    }

    /// `base` plus or minus up to `fraction` of it, uniformly.
    pub fn jitter(&mut self, base: Duration, fraction: f64) -> Duration {
        base.mul_f64(1.0 + fraction * (2.0 * self.unit() - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_future() {
        let (mut a, mut b) = (Rng::from_u64(7), Rng::from_u64(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        assert_eq!(a.fork().next_u64(), b.fork().next_u64());
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = Rng::from_u64(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[rng.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
    }
}
