//! Floor 1: configuration: as written → as meant → difference.
//!
//! [`load`] reads a file, [`parse`] its text. Either gives a complete [`Config`], or *all* mistakes at once, each with
//! its place, the line it stands in and what to do about it. Nothing starts on a file with a mistake in it.
//!
//! | file | what |
//! |---|---|
//! | [`settings`] | the configuration as meant |
//! | `written` | the file as written: tables that hand out their keys and report the ones nobody knows |
//! | `check` | from the one to the other |
//! | [`units`] | `40ms`, `10mbit` |
//! | `suggest` | did you mean …? |
//! | [`errors`] | mistakes and how they are shown |
//! | `render` | a configuration back to text |
//! | `vip`, `health` | from the one to the other, for `[vip]` and for its `[[vip.check]]`s |
//! | [`plan`] | the difference between two: what a reload can apply |

mod check;
pub mod errors;
mod health;
pub mod plan;
mod render;
pub mod settings;
mod suggest;
pub mod units;
mod vip;
mod written;

#[cfg(test)]
mod tests;

pub use check::{KeyClaim, LookAtKey, default_idle, parse_for};
pub use errors::{Errors, Mistake};
pub use render::{cores_value, idle_word, realtime_value, to_toml};
pub use settings::{
    Clients, Config, Congestion, Cores, Coverage, Exposure, Idle, Io, Link, Member, Metric, Profile, Question, Routing,
    SocketWait, Telemetry, Vip, VipAddress, VipCheck, VipSet, Workers,
};
pub use suggest::closest;

use std::path::Path;

/// Reads and checks a configuration file.
pub fn load(path: &Path) -> Result<Config, Errors> {
    load_with(path, |path| std::fs::read_to_string(path))
}

/// As [`load`], and what `look` finds wrong with the key file is a mistake like the others, in its place.
pub fn load_with_key(path: &Path, look: LookAtKey<'_>) -> Result<Config, Errors> {
    let text = std::fs::read_to_string(path).map_err(|error| Errors::unreadable(path, &error))?;
    check::parse_with_key(path, &text, cores_here(), look)
}

/// Checks the file at `path` as `read` gives its text, as for tests.
pub fn load_with(path: &Path, read: impl FnOnce(&Path) -> std::io::Result<String>) -> Result<Config, Errors> {
    let text = read(path).map_err(|error| Errors::unreadable(path, &error))?;
    parse(path, &text)
}

/// Checks the text of a configuration file. `path` names it in messages, and relative paths in it start at its directory.
pub fn parse(path: &Path, text: &str) -> Result<Config, Errors> {
    parse_for(path, text, cores_here())
}

/// Cores that this process may use, as far as defaults depend on them.
pub fn cores_here() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
