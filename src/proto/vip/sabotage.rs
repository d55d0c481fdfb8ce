//! Rules of this room broken on purpose, so that its tests can be tested for noticing.
//!
//! In tests alone; everywhere else [`broken`] is a constant false and costs nothing. Chosen per thread, as those of
//! [`base::sabotage`](crate::base::sabotage) are.

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A set that is held by somebody who may does not move.
    NothingMoves,
    /// What nobody holds is given to somebody.
    Holes,
    /// A paused set stays.
    PausedStay,
    /// All members decide alike: nobody prefers itself.
    Alike,
    /// Who takes over from a member that is gone waits until its lease has run out.
    Lease,
    /// Who was given a set, and lost it before it said that it has it, may have it.
    Replaced,
    /// A member that joins learns what leases still run.
    LeaseTold,
    /// Who lost a set in a merge releases it.
    LoserReleases,
    /// Who gives a set up holds it until the other has it.
    MakeBeforeBreak,
    /// Who gives a set up answers for it no more.
    Mute,
    /// A set whose new owner is gone goes back to who still holds it.
    GiveBack,
    /// What was said of an earlier turn means nothing in this one.
    Turns,
    /// A state counts what will be delivered before the view.
    Pending,
    /// The drained hold nothing.
    Drained,
    /// Only members of the ruling configuration hold anything.
    Digest,
    /// A member whose lease ran out answers only when the others have said that they still count on it.
    Proof,
    /// Without a majority a set that wants one is released.
    Majority,
    /// The winner of a merge announces again.
    Announce,
}

#[cfg(test)]
pub(crate) use switch::break_rule;
#[cfg(test)]
pub(super) use switch::broken;

/// Whether `rule` is broken: never.
#[cfg(not(test))]
pub(super) const fn broken(_rule: Rule) -> bool {
    false
}

#[cfg(test)]
mod switch {
    use super::Rule;
    use std::cell::Cell;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Breaks `rule` in this thread until another is chosen; none mends all.
    pub(crate) fn break_rule(rule: Option<Rule>) {
        BROKEN.set(rule);
    }

    /// Whether `rule` is broken.
    pub(in crate::proto::vip) fn broken(rule: Rule) -> bool {
        BROKEN.get() == Some(rule)
    }
}
