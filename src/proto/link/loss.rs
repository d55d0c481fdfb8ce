//! How many packets get lost, as moving averages.

use crate::base::Instant;
use std::time::Duration;

/// One outcome moves the estimate by this share: about the last 256 packets count.
const WEIGHT: f64 = 1.0 / 256.0;
/// Outcomes of our own packets are believed this long; then the other direction stands in for ours.
const FRESH: Duration = Duration::from_secs(10);

/// The loss estimates of one link.
#[derive(Clone, Debug, Default)]
pub(super) struct Loss {
    /// Share of our packets lost on the way to the other end.
    outbound: f64,
    /// Share of the other end's hellos lost on the way to us.
    inbound: f64,
    outcome_at: Option<Instant>,
}

impl Loss {
    /// One of our packets was acknowledged or given up.
    pub(super) fn outcome(&mut self, now: Instant, lost: bool) {
        let value = if lost { 1.0 } else { 0.0 };
        self.outbound += (value - self.outbound) * WEIGHT;
        self.outcome_at = Some(now);
    }

    /// A packet that was given up has arrived after all.
    pub(super) fn take_back(&mut self) {
        self.outbound = (self.outbound - WEIGHT).max(0.0);
    }

    /// A hello arrived after `missed` that did not.
    pub(super) fn hello(&mut self, missed: u32) {
        for _ in 0..missed.min(64) {
            self.inbound += (1.0 - self.inbound) * WEIGHT;
        }
        self.inbound -= self.inbound * WEIGHT;
    }

    /// The loss towards the other end, parts per million.
    pub(super) fn ppm(&self, now: Instant) -> u32 {
        let own = self.outcome_at.is_some_and(|at| now.since(at) < FRESH);
        ((if own { self.outbound } else { self.inbound }) * 1e6) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_loss_and_falls_back_to_the_other_direction() {
        let mut loss = Loss::default();
        let now = Instant::from_millis(1);
        for n in 0..5000 {
            loss.outcome(now, n % 20 == 0);
        }
        assert!((30_000..70_000).contains(&loss.ppm(now)), "{}", loss.ppm(now));
        (0..3000).for_each(|_| loss.hello(1));
        let later = now + FRESH;
        assert!((400_000..600_000).contains(&loss.ppm(later)), "{}", loss.ppm(later));
        loss.outcome(later, true);
        let before = loss.ppm(later);
        loss.take_back();
        assert!(loss.ppm(later) < before);
    }
}
