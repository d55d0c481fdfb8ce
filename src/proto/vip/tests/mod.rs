//! Behaviours of the room: of one function, of one router, and of several.

mod allocation;
mod cluster;
mod exhaustive;
mod random;
mod room;

use crate::base::sabotage::{Rule, break_rule};

/// Runs `what` with a rule broken, and mends it whatever comes of it.
fn with_broken<T>(rule: Rule, what: impl FnOnce() -> T + std::panic::UnwindSafe) -> std::thread::Result<T> {
    break_rule(Some(rule));
    let outcome = std::panic::catch_unwind(what);
    break_rule(None);
    outcome
}
