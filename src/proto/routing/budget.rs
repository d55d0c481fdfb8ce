//! How often something may happen: token buckets.

use crate::base::Instant;
use std::time::Duration;

/// A bucket of `burst` tokens into which one more falls every `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) burst: u32,
    pub(super) period: Duration,
}

/// What is left of a [`Rate`]. One number: when the bucket will be full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Budget {
    full_at: Instant,
}

impl Budget {
    /// When there are more than `reserve` tokens: this moment or one in the past if there are now.
    pub(super) fn ready_at(self, rate: Rate, reserve: u32) -> Instant {
        assert!(reserve < rate.burst, "a reserve that leaves something");
        let span = rate.period.saturating_mul(rate.burst - reserve - 1);
        Instant::from_nanos(self.full_at.as_nanos().saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Takes a token, if need be one that is still to come.
    pub(super) fn spend(&mut self, now: Instant, rate: Rate) {
        self.full_at = self.full_at.max(now) + rate.period;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_more_is_granted_than_burst_and_refill(
            burst in 1u32..20,
            period in 1u64..50,
            pauses in prop::collection::vec(0u64..60, 1..200),
        ) {
            let rate = Rate { burst, period: Duration::from_millis(period) };
            let (mut budget, mut now, mut granted, mut naive) = (Budget::default(), 0, 0u64, f64::from(burst));
            for pause in pauses {
                now += pause;
                naive = (naive + pause as f64 / period as f64).min(f64::from(burst));
                let at = Instant::from_millis(now);
                let ready = budget.ready_at(rate, 0) <= at;
                prop_assert_eq!(ready, naive + 1e-6 >= 1.0, "{} tokens", naive);
                if ready {
                    budget.spend(at, rate);
                    naive -= 1.0;
                    granted += 1;
                }
            }
            prop_assert!(granted <= u64::from(burst) + now / period);
        }
    }
}
