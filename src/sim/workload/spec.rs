//! What a flow is to do.

use crate::base::{Class, Instant};
use crate::sim::units::{millis, seconds};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A byte stream.
    Stream,
    /// Reliable datagrams, delivered in order.
    Ordered,
    /// Reliable datagrams, delivered as they come.
    Unordered,
    /// Best-effort datagrams.
    BestEffort,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Stream, Kind::Ordered, Kind::Unordered, Kind::BestEffort];

    pub(super) const fn class(self) -> Class {
        match self {
            Kind::BestEffort => Class::BestEffort,
            _ => Class::Reliable,
        }
    }
}

/// What a flow is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// What it carries.
    pub kind: Kind,
    /// The router of its sender.
    pub from: usize,
    /// The router of its receiver.
    pub to: usize,
    /// The receiver's port.
    pub port: u16,
    /// Messages to send; for a stream, chunks.
    pub messages: u32,
    /// Bytes of each, at least [`Spec::HEADER`].
    pub size: usize,
    /// Time between messages, ms.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// When the first is due, seconds from the start.
    #[serde(with = "seconds")]
    pub start: Instant,
    /// Whether its applications close their sessions as soon as they are done, and leave the rest to the routers.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leaves: bool,
}

const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Spec {
    /// Bytes of a message that say which it is and when it was due.
    pub const HEADER: usize = 16;

    /// Whether one of its ends is at `router`.
    pub const fn touches(&self, router: usize) -> bool {
        self.from == router || self.to == router
    }

    /// The router of one of its ends.
    pub const fn router(&self, side: Side) -> usize {
        match side {
            Side::Source => self.from,
            Side::Sink => self.to,
        }
    }

    /// When the sender opens its session: early enough that a stream is usually connected when its first message is due.
    pub fn opens(&self) -> Instant {
        self.start - Duration::from_millis(500)
    }

    /// When message `index` is due.
    pub fn due(&self, index: u32) -> Instant {
        self.start + self.interval * index
    }
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender.
    Source,
    /// The receiver.
    Sink,
}
