//! Congestion control: how much may be in flight, and how fast it may leave.

mod cubic;
mod fixed;
mod hystart;

pub(super) use cubic::Cubic;
pub(super) use fixed::Fixed;

use crate::base::Instant;
use std::fmt::Debug;
use std::time::Duration;

/// Smallest window, in full datagrams. RFC 9002 section 7.2 says two; a link carries many flows at once, and below four
/// a single loss leaves too little in flight for the receiver to notice the gap.
pub(super) const MIN_WINDOW_PACKETS: u64 = 4;
/// Window of a new link, in full datagrams (RFC 6928).
pub(super) const INITIAL_WINDOW_PACKETS: u64 = 10;

/// A packet that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    /// When it was sent.
    pub(super) sent: Instant,
    /// Its datagram's size.
    pub(super) bytes: u64,
    /// The window was in use when it was in flight: a window that nobody fills must not grow.
    pub(super) limited: bool,
    /// Smoothed round trip.
    pub(super) smoothed: Duration,
    /// Latest round trip.
    pub(super) latest: Duration,
}

/// A congestion controller. Sizes are datagram (UDP payload) bytes.
pub(super) trait Controller: Debug + Send {
    /// Bytes that may be in flight.
    fn window(&self) -> u64;
    /// Bytes per second at which they may leave, given the smoothed round trip.
    fn pacing_rate(&self, smoothed: Duration) -> u64;
    /// Whether it still looks for the path's rate by doubling its own. What waits meanwhile tells of that and not of the
    /// path, so nobody upstream should slow down for it.
    fn is_doubling(&self) -> bool {
        false
    }
    /// A full datagram has this many bytes from now on.
    fn set_datagram(&mut self, bytes: u64);
    /// A packet was acknowledged that was not given up before.
    fn on_acked(&mut self, now: Instant, acked: Acked);
    /// A packet sent at `sent` was given up. One reaction per round trip.
    fn on_lost(&mut self, now: Instant, sent: Instant);
    /// A packet sent at `sent` that was given up has arrived after all.
    fn on_needless(&mut self, sent: Instant);
    /// Nothing at all was acknowledged for several timeouts (RFC 9002 section 7.6).
    fn on_persistent(&mut self, now: Instant);
}
