//! `sinew config`: configurations.

mod check;
mod example;

use super::failure::Failure;
use clap::Subcommand;

/// Check configurations, and make some to start from
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew config example ring net        six routers on this machine, with their keys, ready to run
  sinew config check net/a.toml /etc/sinew/sinew.toml

configs/sinew.toml explains every key. Exit codes: 0 done, 1 it could not be, 2 a mistake.")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Check(check::Args),
    Example(example::Args),
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    match args.action {
        Action::Check(args) => check::run(args),
        Action::Example(args) => example::run(&args),
    }
}
