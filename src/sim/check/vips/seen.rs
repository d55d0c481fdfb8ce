//! What there is to see of a member: of its host from outside, and of what it knows.

use crate::base::{Instant, ViewId};
use std::collections::{BTreeMap, BTreeSet};

/// One member.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its number.
    pub router: usize,
    /// It runs and does not stand still.
    pub awake: bool,
    /// Nobody refreshes its host's lease.
    pub left_alone: bool,
    /// The view it is in, or comes from, and the numbers of its members; none if its router does not run.
    pub view: Option<(ViewId, BTreeSet<usize>)>,
    /// It looks for another view.
    pub gathers: bool,
    /// For each set, whether its host answers.
    pub answers: Vec<bool>,
    /// For each set, whether its host accepts what comes for it, answering or not.
    pub accepts: Vec<bool>,
    /// For each set, when its host announced it last.
    pub announced: Vec<Instant>,
    /// When a view began that it came into with others than those it was together with.
    pub merged_at: Instant,
    /// The sets, as it knows them; none if its router does not run.
    pub sets: Vec<SeenSet>,
    /// Who is in its view, as it knows them.
    pub here: BTreeMap<usize, Standing>,
    /// Another configuration than its own rules its view.
    pub overruled: bool,
    /// It runs with another configuration than was meant.
    pub unequal: bool,
    /// Of how many rivals it was told, and how many it counts; none if its router does not run.
    pub rivals: Option<(u64, u64)>,
    /// The set that it announces without end, if there is one.
    pub shouts: Option<usize>,
}

/// A set, as a member knows it.
#[derive(Clone, Copy, Debug)]
pub struct SeenSet {
    /// To whom it belongs.
    pub owner: Option<usize>,
    /// The owner has said that it has it.
    pub acquired: bool,
    /// Who holds it until then.
    pub from: Option<usize>,
    /// It is pinned to somebody.
    pub pinned: bool,
    /// It stays where it is.
    pub paused: bool,
    /// This member itself could hold it.
    pub able: bool,
}

/// What a member knows of one of its view.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its configuration rules.
    pub equal: bool,
    /// It is to hold nothing.
    pub drained: bool,
    /// It leaves.
    pub leaving: bool,
    /// It is to hold sets, as far as it is able to.
    pub may: bool,
    /// Sets that it could hold.
    pub able: usize,
}

impl Seen {
    /// Whether it is in this view, or comes from it.
    pub(super) fn is_in(&self, id: ViewId) -> bool {
        self.view.as_ref().is_some_and(|view| view.0 == id)
    }

    /// The members of its view, as they are.
    pub(super) fn mates<'a>(&'a self, members: &'a [Seen]) -> impl Iterator<Item = &'a Seen> {
        let view = self.view.as_ref().map(|view| &view.1);
        members.iter().filter(move |other| view.is_some_and(|view| view.contains(&other.router)))
    }

    /// Whether all of its view are in it, and stay.
    pub(super) fn is_settled(&self, members: &[Seen]) -> bool {
        let Some((id, view)) = &self.view else { return false };
        let together = self.mates(members).filter(|other| other.awake && other.is_in(*id) && !other.gathers);
        together.count() == view.len()
    }

    /// Whether the set stays where it is because operators said so, and who has it is there.
    pub(super) fn stays(&self, set: usize) -> bool {
        let Some(SeenSet { paused: true, owner: Some(owner), .. }) = self.sets.get(set) else { return false };
        self.here.get(owner).is_some_and(Standing::stays)
    }

    /// Operators have drained everybody, as far as it knows.
    pub(super) fn knows_all_drained(&self) -> bool {
        !self.here.is_empty() && self.here.values().all(|standing| standing.drained)
    }
}

impl Standing {
    /// It may keep what is paused.
    pub(super) const fn stays(&self) -> bool {
        self.equal && !self.leaving
    }
}
