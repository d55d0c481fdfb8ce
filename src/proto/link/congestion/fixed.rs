//! A fixed rate, for provisioned paths: no window, no reaction to loss.

use super::{Acked, Controller};
use crate::base::Instant;
use std::time::Duration;

/// Always the same rate.
#[derive(Debug)]
pub(in super::super) struct Fixed {
    bytes_per_second: u64,
}

impl Fixed {
    pub(in super::super) fn new(kbps: u64) -> Fixed {
        Fixed { bytes_per_second: kbps.max(1).saturating_mul(1000) / 8 }
    }
}

impl Controller for Fixed {
    /// No window: the bound on unacknowledged packets and the pacing rate limit what is in flight.
    fn window(&self) -> u64 {
        u64::MAX / 2
    }

    fn pacing_rate(&self, _smoothed: Duration) -> u64 {
        self.bytes_per_second
    }

    fn set_datagram(&mut self, _bytes: u64) {}
    fn on_acked(&mut self, _now: Instant, _acked: Acked) {}
    fn on_lost(&mut self, _now: Instant, _sent: Instant) {}
    fn on_needless(&mut self, _sent: Instant) {}
    fn on_persistent(&mut self, _now: Instant) {}
}
