//! Floor 6: the command line, one file per subcommand.
//!
//! Every command has `--help` with an example and, where it prints results, `--json`. Exit codes: 0 done and well, 1
//! failed or degraded, 2 a mistake in the command line or a configuration, 3 no router answers, 130 interrupted before it
//! was done. Messages go to standard error and say what to do next; only results go to standard output.

#![allow(clippy::disallowed_methods, reason = "commands live in real time")]

mod config;
mod failure;
mod group;
mod key;
mod output;
mod perf;
mod ping;
mod recv;
mod route;
mod router;
mod run;
mod send;
mod show;
mod sim;
mod stop;
mod target;
mod top;
mod trace;
mod tune;
mod vip;

#[doc(hidden)]
pub use perf::hear_line;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::path::PathBuf;
use std::process::ExitCode;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "sinew",
    version,
    about = "A structured overlay router: recovers every lost packet on the link that lost it",
    after_help = "\
First steps:
  sinew lab                              see it work: five hops beside kernel TCP, no root
  sinew key generate /etc/sinew/a.key    give this machine an identity
  sinew config check /etc/sinew/a.toml   find every mistake in a configuration
  sinew tune -c /etc/sinew/a.toml        what this machine needs to be quick
  sinew run -c /etc/sinew/a.toml         be a router
  sinew show links                       ask the router on this machine
  sinew top                              watch it
  sinew ping b                           reach another one
  sinew vip status                       which member answers for which service address

Exit codes: 0 well, 1 failed or degraded, 2 wrong command line or configuration, 3 no router
answers, 130 interrupted before it was done. Every command's --help says what these mean there."
)]
struct Cli {
    /// The router's control socket, for commands that ask one; it may stand after the command, too
    #[arg(short, long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

// A command that asks the router on this machine. (No doc comment: it would take the place of the command's own.)
#[derive(Debug, clap::Args)]
struct Asking<A: clap::Args> {
    /// The router's control socket [default: $SINEW_SOCKET, else /run/sinew/control.sock]
    #[arg(short, long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    args: A,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Key(key::Args),
    Config(config::Args),
    Show(Asking<show::Args>),
    Top(Asking<top::Args>),
    Ping(Asking<ping::Args>),
    Trace(Asking<trace::Args>),
    Send(Asking<send::Args>),
    Recv(Asking<recv::Args>),
    Perf(Asking<perf::Args>),
    Vip(Asking<vip::Args>),
    Group(Asking<group::Args>),
    /// Measure the overlay beside kernel TCP over emulated links
    Lab(crate::lab::Args),
    Sim(sim::Args),
    Tune(tune::Args),
}

impl Command {
    /// The name of a command that asks no router, and so has no use for a socket.
    const fn without_router(&self) -> Option<&'static str> {
        match self {
            Command::Run(_) => Some("run"),
            Command::Key(_) => Some("key"),
            Command::Config(_) => Some("config"),
            Command::Lab(_) => Some("lab"),
            Command::Sim(_) => Some("sim"),
            Command::Tune(_) => Some("tune"),
            Command::Show(_) | Command::Top(_) | Command::Ping(_) | Command::Trace(_) => None,
            Command::Send(_) | Command::Recv(_) | Command::Perf(_) | Command::Vip(_) | Command::Group(_) => None,
        }
    }
}

/// What the lab cannot be asked for, known before anything is made.
fn lab_mistake(args: &crate::lab::Args) -> Option<Failure> {
    args.mistake().map(Failure::Usage)
}

/// Reads the command line of this process, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only where nobody reads.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    let socket = cli.socket;
    if let (Some(_), Some(name)) = (&socket, cli.command.without_router()) {
        return Failure::Usage(format!("`sinew {name}` asks no router: leave out -s")).report();
    }
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Key(args) => key::run(args),
        Command::Config(args) => config::run(args),
        Command::Show(asking) => show::run(asking.socket.or(socket), asking.args),
        Command::Top(asking) => top::run(asking.socket.or(socket), asking.args),
        Command::Ping(asking) => ping::run(asking.socket.or(socket), asking.args),
        Command::Trace(asking) => trace::run(asking.socket.or(socket), asking.args),
        Command::Send(asking) => send::run(asking.socket.or(socket), asking.args),
        Command::Recv(asking) => recv::run(asking.socket.or(socket), asking.args),
        Command::Perf(asking) => perf::run(asking.socket.or(socket), asking.args),
        Command::Vip(asking) => vip::run(asking.socket.or(socket), asking.args),
        Command::Group(asking) => group::run(asking.socket.or(socket), asking.args),
        Command::Lab(args) => match lab_mistake(&args) {
            Some(mistake) => Err(mistake),
            None => return crate::lab::run(args),
        },
        Command::Sim(args) => sim::run(args),
        Command::Tune(args) => tune::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests;
