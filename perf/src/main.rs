//! perf/transit, perf/compare and perf/clients: what one router costs that forwards between neighbours on this machine; and
//! perf/failover: how soon another router answers for one that does not.
//!
//! ```text
//!   second core, one thread             first core
//!   source: Lane, Control ──trains──► router (its own process), bare forwarder or TCP relay ─┐
//!   sinks:  Lane, Control ◄──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! | folder | what it is |
//! |---|---|
//! | `bench` | what the first three commands share: sources, sinks, forwarders, the measurements, the report |
//! | `transit` | the router's cells: saturation, CPU, latency, loss |
//! | `compare` | the router beside bare forwarders and TCP |
//! | `clients` | applications: round trips at one router, streams through two |
//! | `failover` | service addresses whose owners are killed, stopped, cut off, moved; beside keepalived |

// The measurement is made of clocks and threads.
#![allow(clippy::disallowed_methods)]

mod bench;
mod clients;
mod compare;
mod failover;
mod transit;

use bench::args::Common;
use bench::report::Report;
use clap::{Parser, Subcommand};
use std::io;
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
    #[command(bin_name = "perf/failover")]
    Failover(failover::Args),
}

fn main() -> ExitCode {
    let Args { command, bench } = Args::parse();
    let Some(command) = command.filter(|_| bench) else {
        // `cargo test --benches` builds and runs this too; a measurement is no test.
        println!("This is run by perf/transit, perf/compare, perf/clients and perf/failover.");
        return ExitCode::SUCCESS;
    };
    let shown = match &command {
        Command::Transit(args) => shown(&args.common, transit::run(args)),
        Command::Compare(args) => shown(&args.common, compare::run(args)),
        Command::Clients(args) => shown(&args.common, clients::run(args)),
        Command::Failover(args) => failover::run(args),
    };
    match shown {
        Ok((text, well)) => {
            print!("{text}");
            if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be printed; measurements of speed have no right or wrong.
fn shown(args: &Common, report: io::Result<Report>) -> io::Result<(String, bool)> {
    let report = report?;
    if let Some(file) = &args.picture {
        std::fs::write(file, report.picture())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
    }
    Ok((if args.json { format!("{}\n", report.json()) } else { report.text() }, true))
}
