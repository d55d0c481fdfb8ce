//! `sinew sim`: whole networks in one thread, from seeds.

use super::failure::Failure;
use super::output;
use crate::sim::campaign::{self, Outcome, Settings};
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Run whole networks in one thread from one seed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every seed is one run: a random network, random applications, random faults, then healing. The same seed always gives
the same run, event by event; its trace hash proves it.

Examples:
  sinew sim --seeds 0..500             run five hundred, on all cores
  sinew sim --seed 17                  run one
  sinew sim --seed 17 --trace          and print every event

Exit codes: 0 nothing wrong, 1 a seed failed (the command that repeats it is printed).")]
pub(super) struct Args {
    /// Run one seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run a range of seeds, the end excluded [default: 0..100]
    #[arg(long, value_name = "FROM..TO", value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Seeds run at the same time [default: one per core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Most routers of a network
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=1000))]
    routers: u16,
    /// Print every event of the one seed
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("`{text}` is not a range of seeds such as 0..500");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let range = from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(format!("`{text}` holds no seed")) } else { Ok(range) }
}

#[derive(Debug, Default, Serialize)]
struct Tally {
    seeds: u64,
    failed: Vec<FailedSeed>,
    events: u64,
    delivered: u64,
    simulated_s: f64,
    wall_s: f64,
    faults: Faults,
    slowest_convergence_s: f64,
    /// The trace hashes of all seeds, combined in the order of the seeds.
    trace: String,
}

#[derive(Debug, Serialize)]
struct FailedSeed {
    seed: u64,
    broken: String,
    repeat: String,
}

#[derive(Debug, Default, Serialize)]
struct Faults {
    lost: u64,
    overflowed: u64,
    cut: u64,
    reordered: u64,
    duplicated: u64,
    corrupted: u64,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let seeds = match (args.seed, &args.seeds) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(seeds)) => seeds.clone(),
        (None, None) => 0..100,
    };
    let settings = Settings { routers: usize::from(args.routers), log: args.trace };
    let started = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut outcomes = run_all(seeds, args.jobs.unwrap_or(cores).max(1), &settings);
    outcomes.sort_by_key(|outcome| outcome.seed);
    if let Some(log) = outcomes.first().and_then(|outcome| outcome.log.as_deref()).filter(|_| args.trace) {
        output::print(log)?;
    }
    let tally = tally(&outcomes, args.routers, started.elapsed());
    if args.json {
        output::json(&tally)?;
    } else {
        print(&tally)?;
    }
    if tally.failed.is_empty() { Ok(()) } else { Err(Failure::Degraded) }
}

/// Runs the seeds on `jobs` threads, each run wholly in one of them.
fn run_all(seeds: Range<u64>, jobs: usize, settings: &Settings) -> Vec<Outcome> {
    let total = seeds.end - seeds.start;
    let next = AtomicU64::new(seeds.start);
    let (done, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (next, done, end) = (&next, done.clone(), seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || done.send(campaign::run(seed, settings)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut outcomes = Vec::new();
        let mut shown = Instant::now();
        let live = std::io::stderr().is_terminal();
        for outcome in finished {
            if outcome.failure.is_some() {
                eprintln!("{outcome}");
            }
            outcomes.push(outcome);
            let step = if live { Duration::from_millis(200) } else { Duration::from_secs(10) };
            if shown.elapsed() >= step {
                shown = Instant::now();
                let end = if live { '\r' } else { '\n' };
                let _ = write!(std::io::stderr(), "{} of {total} seeds{end}", outcomes.len());
            }
        }
        outcomes
    })
}

fn tally(outcomes: &[Outcome], routers: u16, wall: Duration) -> Tally {
    let mut tally = Tally { wall_s: wall.as_secs_f64(), ..Tally::default() };
    let mut trace = 0u64;
    for outcome in outcomes {
        tally.seeds += 1;
        tally.events += outcome.events;
        tally.delivered += outcome.delivered;
        tally.simulated_s += outcome.simulated.as_secs_f64();
        trace = trace.rotate_left(5) ^ outcome.trace;
        let wires = &outcome.wires;
        tally.faults.lost += wires.lost;
        tally.faults.overflowed += wires.overflowed;
        tally.faults.cut += wires.cut;
        tally.faults.reordered += wires.reordered;
        tally.faults.duplicated += wires.duplicated;
        tally.faults.corrupted += wires.corrupted;
        let converged = outcome.converged_after.map_or(0.0, |after| after.as_secs_f64());
        tally.slowest_convergence_s = tally.slowest_convergence_s.max(converged);
        if let Some(broken) = &outcome.failure {
            let seed = outcome.seed;
            let repeat = format!("sinew sim --seed {seed} --routers {routers} --trace");
            tally.failed.push(FailedSeed { seed, broken: broken.clone(), repeat });
        }
    }
    tally.trace = format!("{trace:016x}");
    tally
}

fn print(tally: &Tally) -> Result<(), Failure> {
    let faster = tally.simulated_s / tally.wall_s.max(1e-9);
    output::line(format_args!(
        "{} passed, {} failed\n{:.0} s simulated in {:.1} s ({faster:.0} times real time), {} events, {} messages delivered",
        tally.seeds - tally.failed.len() as u64,
        tally.failed.len(),
        tally.simulated_s,
        tally.wall_s,
        tally.events,
        tally.delivered
    ))?;
    let faults = &tally.faults;
    output::line(format_args!(
        "datagrams lost {}, overflowed {}, cut {}, reordered {}, duplicated {}, corrupted {}",
        faults.lost, faults.overflowed, faults.cut, faults.reordered, faults.duplicated, faults.corrupted
    ))?;
    output::line(format_args!("slowest convergence {:.2} s, trace {}", tally.slowest_convergence_s, tally.trace))?;
    for failed in &tally.failed {
        output::line(format_args!("seed {}: {}\n  again: {}", failed.seed, failed.broken, failed.repeat))?;
    }
    Ok(())
}
