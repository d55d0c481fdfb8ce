//! Pacing: spreads a window over its round trip, so that a bottleneck's queue sees a stream and not a burst.
//!
//! A credit in bytes grows at the pacing rate and is spent by sending. It may go below zero by one packet, which is
//! waited for afterwards. Nothing but time earns credit, so a link whose round trips are short keeps its rate as well.

use crate::base::Instant;
use std::time::Duration;

/// Packets that may leave at once on a link that was idle: the initial window of RFC 6928.
const IDLE_PACKETS: u64 = 10;
/// Packets that may leave at once on a busy link.
const BUSY_PACKETS: u64 = 3;
/// The same as time at the pacing rate: what a late timer may make up for.
const BUSY_TIME: Duration = Duration::from_millis(2);

/// The pacer of one link.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    credit: i64,
    at: Instant,
}

impl Pacer {
    pub(super) const fn new() -> Pacer {
        Pacer { credit: 0, at: Instant::ZERO }
    }

    /// Grows the credit to `now` at `rate` bytes per second. `packet`: size of a full datagram. `idle`: nothing is in
    /// flight, and at most `window` bytes may be.
    pub(super) fn advance(&mut self, now: Instant, rate: u64, packet: u64, idle: bool, window: u64) {
        let earned = i64::try_from(bytes_in(rate, now.since(self.at))).unwrap_or(i64::MAX);
        self.at = now;
        let busy_cap = (BUSY_PACKETS * packet).max(bytes_in(rate, BUSY_TIME));
        let cap = if idle { busy_cap.max((IDLE_PACKETS * packet).min(window)) } else { busy_cap };
        self.credit = self.credit.max(self.credit.saturating_add(earned).min(cap as i64));
    }

    /// Whether a packet may leave.
    pub(super) const fn is_open(&self) -> bool {
        self.credit > 0
    }

    /// When the next packet may leave, at `rate` bytes per second; the credit is as of the last advance.
    pub(super) fn opens(&self, rate: u64) -> Instant {
        let missing = u64::try_from(1 - self.credit).unwrap_or(0);
        self.at + Duration::from_nanos((missing as f64 * 1e9 / rate.max(1) as f64) as u64 + 1)
    }

    /// A packet left.
    pub(super) const fn spend(&mut self, bytes: u64) {
        self.credit -= bytes as i64;
    }
}

fn bytes_in(rate: u64, time: Duration) -> u64 {
    // Saturates; exact to one part in 2^53, and far cheaper than a 128-bit division on every packet.
    (rate as f64 * time.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_at_its_rate_after_a_small_burst() {
        // Where acknowledgements come at once, nothing is ever in flight when the next packet is looked at.
        for idle in [false, true] {
            let mut pacer = Pacer::new();
            let (rate, packet) = (1_000_000, 1000);
            let began = Instant::from_millis(1000);
            let (mut now, mut sent) = (began, 0u64);
            pacer.advance(now, rate, packet, true, 100_000);
            while now < began + Duration::from_millis(100) {
                pacer.advance(now, rate, packet, idle, 100_000);
                while pacer.is_open() {
                    pacer.spend(packet);
                    sent += packet;
                }
                let next = pacer.opens(rate);
                assert!(next > now, "time passes");
                now = next;
            }
            assert!((105_000..=112_000).contains(&sent), "{sent}: 10 packets at once, then 1 MB/s");
        }
    }

    #[test]
    fn a_pause_earns_little() {
        let mut pacer = Pacer::new();
        pacer.advance(Instant::from_millis(10_000), 1_000_000, 1000, false, 100_000);
        assert_eq!(pacer.credit, 3000);
    }
}
