//! The gate before public-key work: how many handshake messages a second are worth it, and whose.

use crate::base::hash::mix64;
use crate::base::rare::rarely;
use crate::base::{Instant, Rng};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Buckets that sources share by the hash of their address.
const SOURCES: usize = 256;
/// The share of the rate that one source gets while there is load: one eighth.
const SOURCE_SHARE: u32 = 8;

/// A token bucket, kept as the time at which it would be full again (the generic cell rate algorithm).
#[derive(Clone, Copy)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    const FULL: Bucket = Bucket { full_at: Instant::ZERO };

    /// How much is missing, as the time it takes to come back.
    fn missing(self, now: Instant) -> Duration {
        self.full_at.since(now)
    }

    /// Takes a token, one of `burst` that come back one per `interval`; false if there is none.
    fn take(&mut self, now: Instant, interval: Duration, burst: u32) -> bool {
        if self.missing(now) + interval > interval * burst {
            return false;
        }
        self.full_at = self.full_at.max(now) + interval;
        true
    }
}

/// Bounds the public-key work done for others.
pub(super) struct Gate {
    rate: u32,
    initiations: Bucket,
    responses: Bucket,
    sources: Box<[Bucket]>,
    secret: u64,
}

impl Gate {
    /// A gate that lets `per_second` (at least 1) messages of each kind through, with bursts of as many.
    pub(super) fn new(per_second: u32, rng: &mut Rng) -> Gate {
        Gate {
            rate: per_second.max(1),
            initiations: Bucket::FULL,
            responses: Bucket::FULL,
            sources: vec![Bucket::FULL; SOURCES].into_boxed_slice(),
            secret: rng.next_u64(),
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.rate
    }

    /// Whether half of the tokens for initiations are gone: from here on senders must prove their address.
    pub(super) fn loaded(&self, now: Instant) -> bool {
        self.initiations.missing(now) * 2 >= self.interval() * self.rate || rarely!(HandshakeLoad)
    }

    /// Whether an initiation is worth work. Under load each source gets its share only; `source` must then be proven.
    pub(super) fn admit_initiation(&mut self, now: Instant, source: SocketAddr) -> bool {
        let interval = self.interval();
        if self.loaded(now) {
            let burst = (self.rate / SOURCE_SHARE).max(1);
            let slot = self.source_slot(source);
            if !self.sources[slot].take(now, interval * SOURCE_SHARE, burst) {
                return false;
            }
        }
        self.initiations.take(now, interval, self.rate)
    }

    /// Whether a response that names a handshake in flight is worth work.
    pub(super) fn admit_response(&mut self, now: Instant) -> bool {
        let interval = self.interval();
        self.responses.take(now, interval, self.rate)
    }

    /// Addresses that one owner has in plenty (an IPv6 /64) share a bucket.
    fn source_slot(&self, source: SocketAddr) -> usize {
        let prefix = match source.ip().to_canonical() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        (mix64(mix64(prefix ^ self.secret).wrapping_add(self.secret)) % SOURCES as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7))
    }

    #[test]
    fn a_flood_gets_the_rate_and_no_more() {
        let mut gate = Gate::new(100, &mut Rng::from_u64(1));
        let admitted = (0..100_000u64)
            .filter(|n| gate.admit_initiation(Instant::from_nanos(n * 100_000), from((n % 250) as u8)))
            .count();
        assert!((1000..=1100).contains(&admitted), "100 a second for 10 s and a burst: {admitted}");
    }

    #[test]
    fn one_source_cannot_take_everything_under_load() {
        let mut gate = Gate::new(80, &mut Rng::from_u64(1));
        let now = Instant::from_millis(1);
        assert!(!gate.loaded(now));
        let greedy = (0..1000).filter(|_| gate.admit_initiation(now, from(1))).count();
        assert!(gate.loaded(now));
        assert_eq!(greedy, 40 + 10, "half unloaded, then an eighth");
        assert!(gate.admit_initiation(now, from(2)), "another source still gets through");
        assert!(gate.admit_response(now), "and so do answers to us");
        assert!(!gate.loaded(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_rate_of_zero_still_lets_one_through() {
        let mut gate = Gate::new(0, &mut Rng::from_u64(1));
        assert!(gate.admit_initiation(Instant::ZERO, from(1)));
        assert!(!gate.admit_initiation(Instant::ZERO, from(1)));
        assert!(gate.admit_initiation(Instant::from_millis(1000), from(1)));
    }
}
