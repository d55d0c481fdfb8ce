//! The round trip of a flow, acknowledgement delay included, and how long to wait for an answer.

use super::settings::Settings;
use std::time::Duration;

/// First guess of the repeat timeout before any round trip is known (RFC 6298 section 2.1).
const FIRST_RTO: Duration = Duration::from_secs(1);

/// Smoothed round trip and its mean deviation (RFC 6298 section 2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    deviation: Duration,
}

impl RoundTrip {
    /// The smoothed round trip, or a careful guess.
    pub(super) fn get(&self) -> Duration {
        self.smoothed.unwrap_or(FIRST_RTO)
    }

    pub(super) fn take_sample(&mut self, sample: Duration) {
        match self.smoothed {
            None => (self.smoothed, self.deviation) = (Some(sample), sample / 2),
            Some(smoothed) => {
                self.deviation = (self.deviation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// When to repeat: hops recover first, and the acknowledgement is delayed.
    pub(super) fn timeout(&self, settings: &Settings) -> Duration {
        let Some(smoothed) = self.smoothed else { return FIRST_RTO };
        let timeout = smoothed + self.deviation * 4 + settings.ack_delay * 2 + settings.rto_margin;
        timeout.clamp(settings.rto_min, settings.rto_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_samples_within_its_bounds() {
        let (mut trip, settings) = (RoundTrip::default(), Settings::default());
        assert_eq!(trip.timeout(&settings), FIRST_RTO);
        (0..100).for_each(|_| trip.take_sample(Duration::from_millis(20)));
        assert!(trip.get().abs_diff(Duration::from_millis(20)) < Duration::from_millis(1));
        assert_eq!(trip.timeout(&settings), settings.rto_min);
        trip.take_sample(Duration::from_secs(100));
        assert_eq!(trip.timeout(&settings), settings.rto_max);
    }
}
