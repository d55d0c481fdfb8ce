//! perf/transit: what one router costs that forwards between two neighbours on this machine.
//!
//! ```text
//!   second core, one thread            first core
//!   source: Shard, Control ──trains──► router (its own process) or bare forwarder ─┐
//!   sink:   Shard, Control ◄──────────────────────────────────────────────────────┘
//! ```
//!
//! | file | noun |
//! |---|---|
//! | `cells` | what is measured, one after the other |
//! | `load`, `latency` | the two measurements, over any `path` |
//! | `path`, `overlay` | plain sockets; two neighbours of the overlay |
//! | `neighbour`, `net` | one neighbour; its socket |
//! | `bare`, `router` | what stands between them |
//! | `machine`, `figures` | cores, use of them, noise; small statistics |
//! | `args`, `report` | the command line; the table and the JSON |

// The measurement is made of clocks and threads.
#![allow(clippy::disallowed_methods)]

mod args;
mod bare;
mod cells;
mod figures;
mod latency;
mod load;
mod machine;
mod neighbour;
mod net;
mod overlay;
mod path;
mod report;
mod router;

use args::Args;
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        // `cargo test --benches` builds and runs this too; a measurement is no test.
        println!("This is run by perf/transit.");
        return ExitCode::SUCCESS;
    }
    match cells::run(&args) {
        Ok(report) => {
            if args.json {
                println!("{}", report.json());
            } else {
                print!("{}", report.text());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("perf/transit: {error}");
            ExitCode::FAILURE
        }
    }
}
