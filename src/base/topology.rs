//! Facts about links that several rooms share.

use std::time::Duration;

/// Whether a link carries traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// No authenticated sign of life from the other end.
    Down,
    /// Both ends hear each other.
    Up,
}

/// What a router measures of one of its links.
#[derive(Clone, Copy, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct LinkMetrics {
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Mean deviation of the round trip.
    pub jitter: Duration,
    /// Share of sealed packets lost on the way to the other end, parts per million.
    pub loss_ppm: u32,
}

/// Why a link went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DownReason {
    /// Nothing authentic was heard for too long.
    Silence,
    /// The kernel says nothing listens at the other end.
    Refused,
    /// The other end said it leaves.
    Closed,
    /// The other end restarted.
    Restarted,
    /// Removed by configuration.
    Removed,
    /// Small datagrams pass, the smallest full ones do not ([`crate::base::limits::MIN_DATAGRAM`]).
    TooNarrow,
}
