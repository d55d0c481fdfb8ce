//! Keeping the database equal to a neighbour's.
//!
//! When a link comes up each end sends its digest; who lacks something requests it, at most [`WINDOW`] origins at a
//! time, so that a large database does not fill the ring to the worker. Afterwards flooding keeps both equal, and every
//! [`SUMMARY_INTERVAL`] a fingerprint is compared, in case something was lost on the way (a full ring drops and counts).

use crate::base::{Instant, NodeId};
use crate::wire::routing::MAX_REQUEST;
use std::collections::BTreeSet;
use std::time::Duration;

/// Time between two summaries to a neighbour, give or take a tenth.
pub(super) const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);
/// Origins that a neighbour is asked for and did not send yet, at most.
pub(super) const WINDOW: usize = 2 * MAX_REQUEST;
/// An origin that was not sent after this long is not waited for any more; the next summary finds it again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Digests a neighbour may ask for in [`DIGEST_WINDOW`]; one is up to a hundred messages. An honest one asks for two.
const MAX_DIGESTS: u32 = 8;
const DIGEST_WINDOW: Duration = Duration::from_secs(10);

/// The exchange with the neighbour at the other end of one link.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Whether messages reach it.
    pub(super) up: bool,
    /// When the next summary goes to it.
    pub(super) summary_at: Instant,
    /// What it has and we lack: members only, so bounded by their number.
    wanted: BTreeSet<NodeId>,
    asked: BTreeSet<NodeId>,
    asked_at: Instant,
    digests: u32,
    digests_since: Instant,
}

impl Exchange {
    pub(super) fn new() -> Exchange {
        Exchange {
            up: false,
            summary_at: Instant::MAX,
            wanted: BTreeSet::new(),
            asked: BTreeSet::new(),
            asked_at: Instant::ZERO,
            digests: 0,
            digests_since: Instant::ZERO,
        }
    }

    pub(super) fn set_up(&mut self, up: bool, summary_at: Instant) {
        self.up = up;
        self.summary_at = if up { summary_at } else { Instant::MAX };
        self.wanted.clear();
        self.asked.clear();
    }

    /// Whether the neighbour may have the digest it asks for.
    pub(super) fn may_have_digest(&mut self, now: Instant) -> bool {
        if now.since(self.digests_since) >= DIGEST_WINDOW {
            (self.digests, self.digests_since) = (0, now);
        }
        self.digests = self.digests.saturating_add(1);
        self.digests <= MAX_DIGESTS
    }

    /// The neighbour has something of `origin` that we lack.
    pub(super) fn want(&mut self, origin: NodeId) {
        if !self.asked.contains(&origin) {
            self.wanted.insert(origin);
        }
    }

    /// It arrived, from whomever.
    pub(super) fn arrived(&mut self, origin: NodeId) {
        self.wanted.remove(&origin);
        self.asked.remove(&origin);
    }

    /// What to ask for now; empty if nothing. Called until it is.
    pub(super) fn ask(&mut self, now: Instant) -> Vec<NodeId> {
        if self.deadline().is_some_and(|at| at <= now) {
            self.asked.clear();
        }
        // Not for crumbs: half the window is free, or this is all.
        let room = WINDOW - self.asked.len();
        if !self.up || self.wanted.is_empty() || room < MAX_REQUEST.min(self.wanted.len()) {
            return Vec::new();
        }
        let batch: Vec<NodeId> = self.wanted.iter().copied().take(MAX_REQUEST).collect();
        for origin in &batch {
            self.wanted.remove(origin);
            self.asked.insert(*origin);
        }
        self.asked_at = now;
        batch
    }

    /// When unanswered requests are not waited for any more.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.asked.is_empty()).then(|| self.asked_at + PATIENCE)
    }
}
