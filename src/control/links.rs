//! What control knows of this router's links.
//!
//! A link has one lane per worker. It is up while all its lanes are, because a flow's hash, not control, picks the lane;
//! its measurements are the worst of its lanes.

use crate::base::limits::MAX_LINKS;
use crate::base::{DownReason, Instant, LinkId, LinkMetrics, NodeId};
use crate::dataplane::messages::MoveReason;
use crate::proto::routing::Input;
use crate::wire::admin::{LinkEntry, NEVER_HEARD};
use std::net::SocketAddr;

/// A link of this router.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) peer: NodeId,
    remote: Option<SocketAddr>,
    lanes: Vec<Option<LinkMetrics>>,
    up: bool,
    since: Instant,
    down_reason: Option<DownReason>,
}

impl Link {
    /// A link that is down.
    pub(super) fn new(now: Instant, id: LinkId, peer: NodeId, remote: Option<SocketAddr>, workers: usize) -> Link {
        Link { id, peer, remote, lanes: vec![None; workers], up: false, since: now, down_reason: None }
    }

    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    /// A lane came up; what routing must hear.
    pub(super) fn lane_up(
        &mut self,
        now: Instant,
        worker: usize,
        remote: SocketAddr,
        metrics: LinkMetrics,
    ) -> Option<Input> {
        self.lanes[worker] = Some(metrics);
        self.remote = Some(remote);
        let metrics = self.metrics()?;
        if !std::mem::replace(&mut self.up, true) {
            self.since = now;
        }
        Some(Input::LinkUp { link: self.id, metrics })
    }

    /// The other end of a lane goes on at another address.
    pub(super) const fn lane_moved(&mut self, remote: SocketAddr) {
        self.remote = Some(remote);
    }

    /// A lane went down; what routing must hear.
    pub(super) fn lane_down(&mut self, now: Instant, worker: usize, reason: DownReason) -> Option<Input> {
        self.lanes[worker] = None;
        self.down_reason = Some(reason);
        if !std::mem::replace(&mut self.up, false) {
            return None;
        }
        self.since = now;
        Some(Input::LinkDown { link: self.id, reason })
    }

    /// A lane was measured; what routing must hear.
    pub(super) fn lane_measured(&mut self, worker: usize, metrics: LinkMetrics) -> Option<Input> {
        let lane = self.lanes[worker].as_mut()?;
        *lane = metrics;
        let metrics = self.metrics()?;
        Some(Input::LinkMeasured { link: self.id, metrics })
    }

    /// The worst of all lanes; `None` while one is down.
    fn metrics(&self) -> Option<LinkMetrics> {
        let worst = |a: LinkMetrics, b: LinkMetrics| LinkMetrics {
            rtt: a.rtt.max(b.rtt),
            jitter: a.jitter.max(b.jitter),
            loss_ppm: a.loss_ppm.max(b.loss_ppm),
        };
        self.lanes.iter().try_fold(LinkMetrics::default(), |sum, lane| lane.map(|lane| worst(sum, lane)))
    }

    /// As users see it.
    pub(super) fn entry(&self, now: Instant, peer: String) -> LinkEntry {
        LinkEntry {
            peer,
            node: self.peer,
            remote: self.remote,
            up: self.up,
            down_reason: match self.down_reason {
                Some(reason) => Some(describe(reason).to_owned()),
                None => (!self.up).then(|| NEVER_HEARD.to_owned()),
            },
            since_s: now.since(self.since).as_secs_f64(),
            metrics: self.metrics().unwrap_or_default(),
        }
    }
}

/// Why a link went down, for people.
pub(super) const fn describe(reason: DownReason) -> &'static str {
    match reason {
        DownReason::Silence => "nothing was heard for too long",
        DownReason::Refused => "nothing listens at the other end",
        DownReason::Closed => "the other end left",
        DownReason::Restarted => "the other end restarted",
        DownReason::Removed => "removed by configuration",
        DownReason::TooNarrow => "the path does not carry full datagrams",
    }
}

/// Why a link goes on by another path, for people.
pub(super) const fn why_moved(reason: MoveReason) -> &'static str {
    match reason {
        MoveReason::Dead(DownReason::Silence) => "nothing was heard on the path before for too long",
        MoveReason::Dead(DownReason::Refused) => "nothing listens at the other end of the path before",
        MoveReason::Dead(DownReason::TooNarrow) => "the path before does not carry full datagrams",
        MoveReason::Dead(_) => "the path before is dead",
        MoveReason::Better => "it is better than the path before",
        MoveReason::Roamed => "the other end speaks from there now",
        MoveReason::Unlisted => "the path before is not in the configuration any more",
    }
}

/// An id for a new link: not in use, and not used lately, so that what a worker still reports of a removed link is not
/// taken for the new one's. `last` is the id given out last.
pub(super) fn free_id(in_use: &[LinkId], last: &mut LinkId) -> Option<LinkId> {
    let after = last.index();
    let candidates = (1..=MAX_LINKS).map(|step| LinkId(((after + step) % MAX_LINKS) as u16));
    let id = candidates.into_iter().find(|id| !in_use.contains(id))?;
    *last = id;
    Some(id)
}
