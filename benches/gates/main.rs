//! The gates: how many instructions the paths of a packet take, beside committed figures.
//!
//! ```text
//! perf/gates            counts, compares, fails with a table if anything grew by more than 3 %
//! perf/gates --renew    counts, and writes benches/gates/figures.json: commit it with what changed it
//! perf/gates --json     the figures alone
//! ```
//!
//! The program runs itself again under valgrind's callgrind, and there drives the very shards that workers drive, in
//! virtual time, with fixed seeds and without sockets. What is counted is what happens inside the functions of
//! [`counting`], of which each is a step of the way; what drives the shards is outside of them.
//!
//! # Why the figures are the same everywhere
//!
//! - Nothing in the counted work asks for the time, for randomness or for anything of the system's.
//! - Valgrind shows every program the same processor as long as the real one has AVX2, so that ring and libc, which
//!   choose their code at run time, choose the same code on every such machine (not the fastest: it has no VAES). The
//!   child says what it saw, and figures of different processors are not compared.
//! - The child has no environment, a name of fixed length, and works in a thread of its own, so that its stack and heap
//!   lie where they lay the last time.
//! - Another compiler makes other code: figures of different compilers are compared with three times the tolerance.
//!
//! | file | noun |
//! |---|---|
//! | `cells` | what is counted: traffic through a chain of shards; single rooms |
//! | `counting` | the functions that are counted in |
//! | `callgrind` | the child and its profile |
//! | `figures` | the committed figures and the comparison |

#![allow(clippy::disallowed_methods, reason = "what is counted runs in a thread of its own")]

#[path = "../../tests/common/chain.rs"]
#[expect(dead_code, reason = "what the test of allocations uses beside this")]
mod chain;

mod callgrind;
mod cells;
mod counting;
mod figures;

use figures::Figures;
use std::process::ExitCode;

const HELP: &str = "\
perf/gates: how many instructions the paths of a packet take, beside committed figures

Usage: perf/gates [--renew | --json]

  --renew   Write the figures to benches/gates/figures.json; commit them with what changed them
  --json    Print the figures alone
  --help    Print this

Needs valgrind (Debian: apt-get install valgrind). The same code gives the same figures every
time, on every machine with AVX2 and however busy. Figures are per message where a cell sends
messages, per turn of half a millisecond where the chain is idle, per call where it is one room.

Exit codes: 0 nothing grew by more than 3 %, 1 something did, or nothing could be counted.

Examples:
  perf/gates
  perf/gates --renew && git diff benches/gates/figures.json";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let ([] | [_]) = arguments.as_slice() else { return refuse("one option at most") };
    match arguments.first().map(String::as_str) {
        Some(callgrind::CHILD) => {
            cells::run_all();
            ExitCode::SUCCESS
        }
        Some("--help" | "-h") => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Some("--renew") => conclude(Figures::count().and_then(|figures| figures.commit())),
        Some("--json") => conclude(Figures::count().map(|figures| (figures.text(), true))),
        None => conclude(Figures::count().and_then(|figures| figures.compare())),
        Some(other) => refuse(&format!("there is no option {other}")),
    }
}

/// Prints what came out, and whether it is good.
fn conclude(outcome: Result<(String, bool), String>) -> ExitCode {
    match outcome {
        Ok((text, good)) => {
            println!("{text}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => refuse(&why),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("perf/gates: {why}\nperf/gates --help says more");
    ExitCode::FAILURE
}
