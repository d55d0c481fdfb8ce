//! Rules broken on purpose, so that the simulator can be tested for noticing.
//!
//! Compiled into tests and the `sabotage` feature alone; everywhere else [`broken`] is a constant false and costs
//! nothing. A rule is chosen per thread with `break_rule`.

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A lost reliable message is sent again on its link.
    Retransmit,
    /// A sealed packet received twice is opened once.
    Replay,
}

#[cfg(any(test, feature = "sabotage"))]
mod switch {
    use super::Rule;
    use std::cell::Cell;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Breaks `rule` in this thread until another is chosen; none mends all.
    pub fn break_rule(rule: Option<Rule>) {
        BROKEN.set(rule);
    }

    /// Whether `rule` is broken.
    pub fn broken(rule: Rule) -> bool {
        BROKEN.get() == Some(rule)
    }
}

#[cfg(any(test, feature = "sabotage"))]
pub use switch::{break_rule, broken};

/// Whether `rule` is broken: never.
#[cfg(not(any(test, feature = "sabotage")))]
pub const fn broken(_rule: Rule) -> bool {
    false
}
