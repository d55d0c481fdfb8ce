//! How a command ends when it does not end well.

use std::fmt::Display;
use std::process::ExitCode;

/// Exit code for something that failed or is degraded.
pub(super) const FAILED: u8 = 1;
/// Exit code for a wrong command line or configuration.
pub(super) const USAGE: u8 = 2;
/// Exit code for a router that does not answer.
pub(super) const UNREACHABLE: u8 = 3;
/// Exit code for a command that was asked to stop (SIGINT or SIGTERM) before it was done: as shells say it of SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command did not end well.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It could not be done.
    Failed(String),
    /// It was done, and what was found is not well; it was said already.
    Degraded,
    /// The command line or a configuration is wrong.
    Usage(String),
    /// The configuration is wrong, and all of it was said already.
    Refused,
    /// No router answers.
    Unreachable(String),
    /// It was asked to stop before it was done, and what was done was said already.
    Interrupted,
    /// Nobody reads the output any more.
    Pipe,
}

impl Failure {
    /// Something failed: `what` says what was being done.
    pub(super) fn failed(what: impl Display, error: impl Display) -> Failure {
        Failure::Failed(format!("{what}: {error}"))
    }

    const fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Degraded => FAILED,
            Failure::Usage(_) | Failure::Refused => USAGE,
            Failure::Unreachable(_) => UNREACHABLE,
            Failure::Interrupted => INTERRUPTED,
            // As a pager that was closed: the reader has what it wanted.
            Failure::Pipe => 0,
        }
    }

    /// What is still to be said.
    pub(super) fn message(&self) -> Option<&str> {
        match self {
            Failure::Failed(message) | Failure::Usage(message) | Failure::Unreachable(message) => Some(message),
            Failure::Degraded | Failure::Refused | Failure::Interrupted | Failure::Pipe => None,
        }
    }

    /// Says what happened and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        if let Some(message) = self.message() {
            super::output::note(format_args!("sinew: {message}"));
        }
        ExitCode::from(self.code())
    }
}
