//! Rules of this room broken on purpose, so that its tests can be tested for noticing.
//!
//! In tests alone; everywhere else [`broken`] is a constant false and costs nothing. Chosen per thread, as those of
//! [`base::sabotage`](crate::base::sabotage) are.

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A state counts what will be delivered before the view.
    Pending,
    /// Who joins or leaves after the signal does so with the view.
    SignalWaits,
    /// Of a group's members, those who come from the same view are known.
    TogetherOnly,
    /// A group whose members are the same, but come from elsewhere, has another view.
    Elsewhere,
    /// Who loses somebody is told so before what comes after.
    Signal,
    /// What there was no room for goes out when there is.
    Kept,
    /// Who is gone leaves.
    GoneLeave,
}

#[cfg(test)]
impl Rule {
    /// Every rule.
    pub(crate) const ALL: [Rule; 7] = [
        Rule::Pending,
        Rule::SignalWaits,
        Rule::TogetherOnly,
        Rule::Elsewhere,
        Rule::Signal,
        Rule::Kept,
        Rule::GoneLeave,
    ];
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
    pub(in crate::proto::groups) fn broken(rule: Rule) -> bool {
        BROKEN.get() == Some(rule)
    }
}
