//! The machine as the kernel describes it, and where on it a router's threads belong.
//!
//! | file | what |
//! |---|---|
//! | [`cpus`] | sets of processors, as /proc, /sys and sched_setaffinity(2) have them |
//! | [`topology`] | the processors: cores, siblings, NUMA nodes, isolation; which of them this process may use |
//! | [`placement`] | the choice: which worker runs where, and why; pure |
//! | [`scheduling`] | standing before others, real-time priority, and staying off others' cores |
//! | [`noise`] | what the machine does to a thread that wants little |

pub mod cpus;
pub mod noise;
pub mod placement;
pub mod scheduling;
pub mod topology;

pub use cpus::CpuSet;
pub use placement::{Placement, Refused, place};
pub use topology::Topology;

use std::path::Path;

/// The text of a file of /proc or /sys, without the white space around it; none if it is not there or not for us.
pub fn text(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The number in such a file.
pub fn number<T: std::str::FromStr>(path: impl AsRef<Path>) -> Option<T> {
    text(path)?.split_whitespace().next()?.parse().ok()
}
