//! What this machine costs a router, and what would make it cost less: `sinew tune`.
//!
//! ```text
//!   facts ──────┐                        what /proc, /sys and a few harmless tries say
//!   measures ───┼──► advice ──► report   what the same system calls as a worker's cost here
//!   wanted ─────┘                        the configuration there is, or the defaults
//! ```
//!
//! [`facts`] reads, [`measure`] measures, and [`advice`] is a pure function of both: every recommendation is tested on
//! machines that were made up. Nothing is ever changed: what would change something is printed as a command. Measuring
//! sends datagrams over loopback only, between this process's own sockets.

#![allow(clippy::disallowed_methods, reason = "this room measures real time on real threads")]

pub mod advice;
pub mod facts;
pub mod idle;
pub mod interfaces;
pub mod measure;
pub mod report;

use crate::config::settings::{Link, Workers};
use crate::runtime::machine::Topology;
use advice::Check;
use facts::Facts;
use measure::Measured;
use serde::Serialize;
use std::path::Path;

/// What the machine is asked to be good for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The workers as configured, or the defaults.
    pub workers: Workers,
    /// Whether memory is to be locked.
    pub lock_memory: bool,
    /// The links, for the interfaces that they use.
    pub links: Vec<Link>,
    /// Whether there is a configuration.
    pub configured: bool,
}

/// Everything found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether nothing was measured.
    pub quick: bool,
    /// What the machine is.
    pub machine: Facts,
    /// What things cost here; none if that was not asked for.
    pub measured: Option<Measured>,
    /// One by one: how it is, what that costs, what to do.
    pub checks: Vec<Check>,
    /// The configuration recommended.
    pub configuration: advice::Recommended,
    /// Checks that have something to be done.
    pub to_do: usize,
}

/// Looks at this machine. Measures unless `quick`; `say` is told what is being measured, `go_on` whether to. None if it
/// was not to go on.
pub fn examine(wanted: &Wanted, quick: bool, say: &dyn Fn(&str), go_on: &dyn Fn() -> bool) -> Option<Report> {
    let topology = Topology::here();
    let machine = Facts::gather(Path::new("/"), topology, wanted);
    let measured = if quick { None } else { Some(measure::measure(&machine, say, go_on)?) };
    Some(Report::of(machine, measured, wanted))
}

impl Report {
    /// What is to be said of a machine like this.
    pub fn of(machine: Facts, measured: Option<Measured>, wanted: &Wanted) -> Report {
        let configuration = advice::recommend(&machine, measured.as_ref(), wanted);
        let checks = advice::checks(&machine, measured.as_ref(), wanted, &configuration);
        let to_do = checks.iter().filter(|check| check.state == advice::State::Advice).count();
        Report { quick: measured.is_none(), machine, measured, checks, configuration, to_do }
    }
}
