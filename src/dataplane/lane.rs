//! One lane: a link's state in this shard.

use super::messages::{LinkReport, NamedHistogram};
use crate::base::{Instant, LinkId, NodeId};
use crate::proto::link::Link;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a removed lane stays to tell its other end.
pub(super) const FAREWELL: Duration = Duration::from_millis(50);

/// A link, who is at its other end, and when it goes.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) link: Link,
    pub(super) peer: NodeId,
    /// Set when the lane was removed: it is forgotten then.
    pub(super) gone_at: Option<Instant>,
}

impl Lane {
    pub(super) const fn new(link: Link, peer: NodeId) -> Lane {
        Lane { link, peer, gone_at: None }
    }

    pub(super) fn report(&self, now: Instant, link: LinkId, remote: Option<SocketAddr>) -> LinkReport {
        LinkReport {
            link,
            peer: self.peer,
            remote,
            up: self.link.is_up(),
            since: now.since(self.link.since()),
            metrics: self.link.metrics(),
            stats: self.link.stats(),
        }
    }

    pub(super) fn histograms(&self) -> impl Iterator<Item = NamedHistogram> {
        let peer = Some(self.peer);
        self.link.histograms().map(move |(name, histogram)| NamedHistogram { peer, name, histogram: histogram.clone() })
    }
}
