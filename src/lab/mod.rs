//! Floor 5: the lab. Real routers over the real kernel, in namespaces, joined by links of our own making.
//!
//! `sinew lab` repeats the published experiment (DSN 2003) in front of the user's eyes:
//!
//! ```text
//!   ladder      how to get a network of one's own        transport   TCP, UDP, overlay behind one pair of doors
//!   topology    what to build                            flows       paced messages across     bulk   as much as goes
//!   world       building it, breaking it                 tally       what became of them       noise  what to believe
//!   emulator    every wire: one thread                   experiment  which, in which order
//!   conditions  what a wire does, as arithmetic          outcome     findings → table, report, files
//!   chaos       faults under checked traffic             sweep       where is measured, simulated or not
//! ```
//!
//! Invariants: every packet measured crosses the same emulated links, whoever sent it; latency counts from when a
//! message was meant to be sent; both ends read one clock; nothing is left behind; no fallback is silent.

#![allow(clippy::disallowed_methods, reason = "the lab measures real time")]

pub mod args;
pub mod bulk;
pub mod chaos;
pub mod clock;
pub mod conditions;
pub mod emulator;
pub mod experiment;
mod files;
pub mod flows;
pub mod ladder;
pub mod netns;
pub mod noise;
pub mod outcome;
pub mod paper;
pub mod progress;
mod report;
mod router;
mod simulated;
mod svg;
mod sweep;
pub mod table;
pub mod tally;
mod timens;
pub mod topology;
pub mod transport;
pub mod world;

pub use args::{Args, Experiment};

use crate::base::WallTime;
use experiment::{Bench, Finished};
use flows::Board;
use ladder::Mode;
use outcome::Outcome;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Runs `sinew lab`. Starts this very program again, with the same command line, on the best rung of the ladder, unless
/// it is there already.
pub fn run(args: Args) -> ExitCode {
    if let Err(error) = args.topology.as_deref().map_or(Ok(()), |path| look_at(path, args.sim)) {
        return report_end(Err(error));
    }
    if let Err(error) = files::prepare(&args.out) {
        return report_end(Err(error));
    }
    if args.sim {
        return report_end(simulated::run(&args).and_then(|outcome| publish(&args, &outcome, clock::wall())));
    }
    let Some(mode) = ladder::current() else {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        return match ladder::run_again(&arguments, args.wanted_mode()) {
            Ok(status) => ExitCode::from(ladder::exit_code(status)),
            Err(error) => report_end(Err(error)),
        };
    };
    if args.chaos { run_chaos(&args, mode) } else { report_end(run_here(&args, mode)) }
}

/// Finds out whether a topology file can be used, and simulated if it is to be.
fn look_at(path: &Path, simulated: bool) -> io::Result<()> {
    let (topology, _) = topology::load(path)?;
    let wrong = |why| {
        let text = format!("the topology {} cannot be simulated: {why}", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    if simulated { simulated::check(&topology).map_err(wrong) } else { Ok(()) }
}

fn run_chaos(args: &Args, mode: Mode) -> ExitCode {
    let board = Arc::new(Board::default());
    let findings = watch_signals(&board).and_then(|()| chaos::run(args, mode, &board));
    let broken = findings.as_ref().is_ok_and(|findings| !findings.violations.is_empty());
    let told = findings.and_then(|findings| {
        match args.json {
            true => println!("{}", serde_json::to_string_pretty(&findings).map_err(io::Error::other)?),
            false => print!("{}", chaos::render(&findings)),
        }
        Ok(())
    });
    if broken { ExitCode::FAILURE } else { report_end(told) }
}

fn report_end(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            eprintln!("lab: interrupted; everything is cleaned up");
            ExitCode::from(130)
        }
        // A file that was given is wrong, as a command line can be.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            eprintln!("lab: {error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_here(args: &Args, mode: Mode) -> io::Result<()> {
    let board = Arc::new(Board::default());
    watch_signals(&board)?;
    let started = clock::wall();
    let Finished { outcome, world } = Bench::new(args, mode, Arc::clone(&board)).run()?;
    publish(args, &outcome, started)?;
    if let Some(world) = world {
        eprintln!("lab: left running; Ctrl-C ends it and removes everything\n{}", world.directions());
        while !board.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(world);
        eprintln!("lab: ended; nothing is left behind");
    }
    Ok(())
}

/// Writes the files and prints the table, or result.json.
fn publish(args: &Args, outcome: &Outcome, started: WallTime) -> io::Result<()> {
    let written = files::write(&args.out, outcome, started)?;
    if args.json {
        println!("{}", files::to_json(outcome)?);
    } else {
        print!("{}", table::render(outcome));
    }
    progress::Voice::new(args.quiet).say(format!("wrote {written}"));
    Ok(())
}

/// SIGINT and SIGTERM end the experiment tidily; a second one ends it at once.
fn watch_signals(board: &Arc<Board>) -> io::Result<()> {
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let board = Arc::clone(board);
    let relay = move || {
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        board.stop.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().name("lab-signals".into()).spawn(relay).map(drop)
}
