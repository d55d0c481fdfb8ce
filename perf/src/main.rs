//! perf/transit, perf/compare and perf/clients: what one router costs that forwards between neighbours on this machine.
//!
//! ```text
//!   second core, one thread             first core
//!   source: Lane, Control ──trains──► router (its own process), bare forwarder or TCP relay ─┐
//!   sinks:  Lane, Control ◄──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! | folder | what it is |
//! |---|---|
//! | `bench` | what both commands share: sources, sinks, forwarders, the measurements, the report |
//! | `transit` | the router's cells: saturation, CPU, latency, loss |
//! | `compare` | the router beside bare forwarders and TCP |
//! | `clients` | applications: round trips at one router, streams through two |

// The measurement is made of clocks and threads.
#![allow(clippy::disallowed_methods)]

mod bench;
mod clients;
mod compare;
mod transit;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Given by cargo bench
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(bin_name = "perf/transit")]
    Transit(transit::Args),
    #[command(bin_name = "perf/compare")]
    Compare(compare::Args),
    #[command(bin_name = "perf/clients")]
    Clients(clients::Args),
}

fn main() -> ExitCode {
    let Args { command, bench } = Args::parse();
    let Some(command) = command.filter(|_| bench) else {
        // `cargo test --benches` builds and runs this too; a measurement is no test.
        println!("This is run by perf/transit, perf/compare and perf/clients.");
        return ExitCode::SUCCESS;
    };
    let (json, report) = match &command {
        Command::Transit(args) => (args.common.json, transit::run(args)),
        Command::Compare(args) => (args.common.json, compare::run(args)),
        Command::Clients(args) => (args.common.json, clients::run(args)),
    };
    match report {
        Ok(report) if json => println!("{}", report.json()),
        Ok(report) => print!("{}", report.text()),
        Err(error) => {
            eprintln!("perf: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
