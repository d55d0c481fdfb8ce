//! What a member knows of another one beyond the entries that all know.

use super::parts::Parts;
use crate::base::limits::MAX_STATE;
use crate::base::{Instant, ViewId};
use crate::wire::membership::{Part, Report};

/// Another router of the group.
#[derive(Debug)]
pub(super) struct Peer {
    /// The caller says that it can be reached.
    pub(super) reachable: bool,
    /// It did not answer for too long.
    pub(super) mute: bool,
    /// In this life it said that it leaves.
    pub(super) gone: Option<u64>,
    /// When something of it came last, or when that began to matter.
    pub(super) heard_at: Instant,
    /// The latest life in which it sent a join.
    life: u64,
    joins: Parts,
    /// In which life and attempt it reported, and what.
    pub(super) report: Option<(u64, u64, Report)>,
    ready: Ready,
    /// The last join that it must take in, and the last one that it says it has.
    pub(super) needs: u64,
    pub(super) heard: u64,
    /// A join is due; it is to tell of others, too.
    pub(super) due: bool,
    pub(super) full: bool,
    /// When it is told of those whom it does not hear itself by then.
    pub(super) relay_at: Option<Instant>,
    /// When it was last sent a join, a ready message, an acknowledgement, in answer to something.
    pub(super) joined_at: Option<Instant>,
    pub(super) readied_at: Option<Instant>,
    pub(super) acked_at: Option<Instant>,
}

/// The newest view that a router is ready for.
#[derive(Debug, Default)]
struct Ready {
    incarnation: u64,
    view: ViewId,
    parts: Parts,
    state: Option<Vec<u8>>,
    got: u64,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Peer {
        Peer {
            reachable: false,
            mute: false,
            gone: None,
            heard_at: now,
            life: 0,
            joins: Parts::default(),
            report: None,
            ready: Ready::default(),
            needs: 0,
            heard: 0,
            due: false,
            full: false,
            relay_at: None,
            joined_at: None,
            readied_at: None,
            acked_at: None,
        }
    }

    /// Whether this router counts it among those that it reaches.
    pub(super) const fn is_reached(&self) -> bool {
        self.reachable && !self.mute && self.gone.is_none()
    }

    /// It may have forgotten what it was told. Of others it is told at `relay_at`.
    pub(super) fn begin_anew(&mut self, relay_at: Instant) {
        self.relay_at = Some(relay_at);
        (self.life, self.joins, self.ready) = (0, Parts::default(), Ready::default());
        (self.heard, self.due) = (0, true);
    }

    /// Part of a join: the whole when it was the last part.
    pub(super) fn join(&mut self, incarnation: u64, part: &Part<'_>, relay_at: Instant) -> Option<Vec<u8>> {
        if incarnation > self.life {
            if self.life > 0 {
                self.begin_anew(relay_at);
            }
            self.life = incarnation;
        }
        self.joins.take(part)
    }

    /// Part of a state that it brings into `view`.
    pub(super) fn ready(&mut self, incarnation: u64, view: ViewId, got: u64, part: &Part<'_>) {
        if incarnation > self.ready.incarnation {
            self.ready = Ready { incarnation, ..Ready::default() };
        }
        if incarnation < self.ready.incarnation || part.serial < self.ready.parts.serial() {
            return;
        }
        if part.serial > self.ready.parts.serial() {
            self.ready = Ready { incarnation, view, ..Ready::default() };
        }
        if view == self.ready.view {
            self.ready.got |= got;
            let state = self.ready.parts.take(part).filter(|state| state.len() <= MAX_STATE);
            self.ready.state = state.or(self.ready.state.take());
        }
    }

    /// In this life and attempt, the view that it is ready for.
    pub(super) fn ready_for(&self, incarnation: u64, attempt: u64) -> Option<ViewId> {
        let same = (self.ready.incarnation, self.ready.parts.serial()) == (incarnation, attempt);
        same.then_some(self.ready.view)
    }

    /// The state that it brings into `view`, and whose states it has.
    pub(super) fn brings(&self, view: ViewId) -> Option<&Vec<u8>> {
        self.ready.state.as_ref().filter(|_| self.ready.view == view)
    }

    /// Whose states for `view` it has, by rank.
    pub(super) fn got(&self, view: ViewId) -> u64 {
        if self.ready.view == view { self.ready.got } else { 0 }
    }
}
