//! Keeping the database equal to a neighbour's.
//!
//! When a link comes up each end sends its digest; who lacks something requests it, at most [`WINDOW`] origins at a
//! time, so that a large database does not fill the ring to the worker. Afterwards flooding keeps both equal, and every
//! [`SUMMARY_INTERVAL`] a fingerprint is compared, in case something was lost on the way (a full ring drops and counts).
//! A neighbour that leaves requests unanswered gets one sooner.
//!
//! # Bounds
//! A request of a kilobyte asks for a hundred. What a neighbour asks for is *owed* to it: a set, so each origin at most
//! once however often it is asked for; paid [`PAYMENT`] origins every [`PAYMENT_SPACING`], so that the ring and the link
//! are not flooded; and not more than two whole databases at once and one in ten seconds ([`allowance`]). Nothing that
//! is owed is forgotten while the link is up.

use super::budget::{Budget, Rate};
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

/// When the next summary goes to a neighbour that left requests unanswered, at the latest.
const SUMMARY_AFTER_SILENCE: Duration = Duration::from_secs(5);

/// Advertisements sent to a neighbour that asked for them, at once.
pub(super) const PAYMENT: usize = 64;
/// Least time between two such payments.
const PAYMENT_SPACING: Duration = Duration::from_millis(32);

/// Digests a neighbour may ask for in [`DIGEST_WINDOW`]; one is up to a hundred messages. An honest one asks for two.
const MAX_DIGESTS: u32 = 8;
const DIGEST_WINDOW: Duration = Duration::from_secs(10);

/// Advertisements a neighbour may ask for in a network of so many members. An honest one asks for each once when the
/// link comes up, and for few afterwards.
pub(super) fn allowance(members: usize) -> Rate {
    let members = u32::try_from(members).expect("members are at most MAX_NODES");
    Rate { burst: 256 + 2 * members, period: Duration::from_secs(10) / (160 + members) }
}

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
    /// What it sent and we could not afford to check: asked for again later. Members only.
    later: BTreeSet<NodeId>,
    /// What it asked for and did not get yet. Members only.
    owed: BTreeSet<NodeId>,
    pay_at: Instant,
    paid: Budget,
    digests: u32,
    digests_since: Instant,
    /// What it may still send with a wrong signature.
    pub(super) trials: Budget,
}

impl Exchange {
    pub(super) fn new() -> Exchange {
        Exchange {
            up: false,
            summary_at: Instant::MAX,
            wanted: BTreeSet::new(),
            asked: BTreeSet::new(),
            asked_at: Instant::ZERO,
            later: BTreeSet::new(),
            owed: BTreeSet::new(),
            pay_at: Instant::ZERO,
            paid: Budget::default(),
            digests: 0,
            digests_since: Instant::ZERO,
            trials: Budget::default(),
        }
    }

    pub(super) fn set_up(&mut self, up: bool, summary_at: Instant) {
        self.up = up;
        self.summary_at = if up { summary_at } else { Instant::MAX };
        // The budgets stay: a link that comes and goes must not renew them.
        for set in [&mut self.wanted, &mut self.asked, &mut self.later, &mut self.owed] {
            set.clear();
        }
    }

    /// The neighbour asks for `origin`, of which we have something; false if it asks too much.
    pub(super) fn owe(&mut self, now: Instant, origin: NodeId, members: usize) -> bool {
        let affordable = self.paid.ready_at(allowance(members), 0) <= now;
        self.owed.insert(origin) && affordable
    }

    /// What to send now of what is owed.
    pub(super) fn pay(&mut self, now: Instant, members: usize) -> Vec<NodeId> {
        let mut batch = Vec::new();
        if self.payment_at(members).is_none_or(|at| at > now) {
            return batch;
        }
        let rate = allowance(members);
        while batch.len() < PAYMENT && self.paid.ready_at(rate, 0) <= now {
            let Some(origin) = self.owed.pop_first() else { break };
            self.paid.spend(now, rate);
            batch.push(origin);
        }
        self.pay_at = now + PAYMENT_SPACING;
        batch
    }

    /// When [`Exchange::pay`] gives something.
    pub(super) fn payment_at(&self, members: usize) -> Option<Instant> {
        let due = self.up && !self.owed.is_empty();
        due.then(|| self.pay_at.max(self.paid.ready_at(allowance(members), 0)))
    }

    /// The neighbour sent something of `origin` that could not be checked now.
    pub(super) fn postpone(&mut self, origin: NodeId) {
        self.arrived(origin);
        self.later.insert(origin);
    }

    /// The time has come for what was postponed.
    pub(super) fn resume(&mut self, origin: NodeId) {
        if self.later.remove(&origin) {
            self.want(origin);
        }
    }

    /// The members are others now: nothing of those that left is asked for or sent.
    pub(super) fn retain(&mut self, stays: impl Fn(NodeId) -> bool) {
        for set in [&mut self.wanted, &mut self.asked, &mut self.later, &mut self.owed] {
            set.retain(|&origin| stays(origin));
        }
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

    /// It arrived.
    pub(super) fn arrived(&mut self, origin: NodeId) {
        self.wanted.remove(&origin);
        self.asked.remove(&origin);
    }

    /// What to ask for now; empty if nothing. Called until it is.
    pub(super) fn ask(&mut self, now: Instant) -> Vec<NodeId> {
        if self.deadline().is_some_and(|at| at <= now) {
            self.asked.clear();
            self.summary_at = self.summary_at.min(now + SUMMARY_AFTER_SILENCE);
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
