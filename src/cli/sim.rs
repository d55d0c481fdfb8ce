//! `sinew sim`: whole networks in one thread, from seeds or scenario files.

mod growth;

use super::failure::Failure;
use super::output;
use crate::base::sabotage::Rule;
use crate::sim::campaign::{self, Bound, Outcome, Settings};
use crate::sim::ledger::Ledger;
use crate::sim::plan::Plan;
use crate::sim::shrink;
use crate::telemetry::{Histogram, Summary};
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Failing seeds that are shrunk; the rest waits for its turn.
const SHRUNK: usize = 3;

/// Run whole networks in one thread from one seed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every seed is one run: a random network, random applications, random faults, then healing. The
same seed always gives the same run, event by event; its trace hash proves it.

Examples:
  sinew sim --seeds 0..500             run five hundred, on all cores
  sinew sim --seed 17                  run one
  sinew sim --seed 17 --trace          and print every event
  sinew sim --seed 17 --pcap 17.pcap   and write every datagram for Wireshark
  sinew sim --seed 17 --save 17.toml   write it as a scenario file, to be changed by hand
  sinew sim --scenario 17.toml         run what a file describes
  sinew sim --growth 1000              what a network of a thousand routers costs

A seed that fails is shrunk: as few faults and applications as it takes to fail in the same way,
printed and written to sim-seed-N.toml beside you.

Exit codes: 0 nothing wrong, 1 a seed failed (the command that repeats it is printed) or a file
could not be written, 2 wrong command line or no such scenario.")]
pub(super) struct Args {
    /// Run one seed
    #[arg(long, conflicts_with_all = ["seeds", "scenario"])]
    seed: Option<u64>,
    /// Run a range of seeds, the end excluded [default: 0..100]
    #[arg(long, value_name = "FROM..TO", value_parser = parse_range, conflicts_with = "scenario")]
    seeds: Option<Range<u64>>,
    /// Run what a scenario file describes
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Boot a network of so many routers, lose a tenth of them, get them back, and say what it took
    #[arg(long, value_name = "ROUTERS", conflicts_with_all = ["seeds", "scenario", "trace", "pcap", "save"],
          value_parser = clap::value_parser!(u16).range(2..=4000))]
    growth: Option<u16>,
    /// Links of that network [default: four a router]
    #[arg(long, requires = "growth")]
    links: Option<usize>,
    /// Seeds run at the same time [default: one per core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Most routers of a network
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=1000))]
    routers: u16,
    /// Print every event of the one run
    #[arg(long, conflicts_with_all = ["seeds", "json"])]
    trace: bool,
    /// Write every datagram of the one run, as UDP over IPv4, for Wireshark
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    pcap: Option<PathBuf>,
    /// Write the one seed as a scenario file, without running it
    #[arg(long, value_name = "FILE", requires = "seed")]
    save: Option<PathBuf>,
    /// Let --save overwrite a file
    #[arg(long, requires = "save")]
    force: bool,
    /// List faults that did not strike, too
    #[arg(long)]
    all: bool,
    /// Break a rule of the protocols on purpose, to see that it is noticed; only where the build can
    #[arg(long = "break", value_name = "RULE", value_parser = parse_rule, hide = true)]
    broken: Option<Rule>,
    /// Do not shrink what fails
    #[arg(long)]
    no_shrink: bool,
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

/// Whether this build can break rules and take rare branches.
const SABOTAGE: bool = cfg!(any(test, feature = "sabotage"));

/// What ran: the version, the commit if the build was told, and whether rare branches can be taken, which changes runs.
fn version() -> String {
    let commit = option_env!("SINEW_COMMIT").map_or(String::new(), |commit| format!(", commit {commit}"));
    let features = if SABOTAGE { ", built with --features sabotage" } else { "" };
    format!("{}{commit}{features}", env!("CARGO_PKG_VERSION"))
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    if !SABOTAGE {
        return Err("this build breaks no rules: cargo build --features sabotage".to_owned());
    }
    let names = || Rule::ALL.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ");
    Rule::named(text).ok_or_else(|| format!("`{text}` is none of {}", names()))
}

/// What is to be run.
enum Source {
    Seeds(Range<u64>),
    Scenario(PathBuf, Box<Plan>),
}

#[derive(Debug, Serialize)]
struct Tally {
    version: String,
    /// Whether the rare branches of the protocol rooms can be taken: not in every build.
    rare_branches: bool,
    seeds: u64,
    failed: Vec<FailedSeed>,
    events: u64,
    /// Most events that one router had in a second of virtual time.
    busiest: u32,
    delivered: u64,
    simulated_s: f64,
    wall_s: f64,
    /// How often each fault struck.
    faults: Ledger,
    /// From the moment a link fell silent until it was noticed.
    detection: Summary,
    /// From healing to convergence.
    convergence: Summary,
    /// From convergence until everything had arrived.
    recovery: Summary,
    /// The greatest share of its bound that a seed needed to converge.
    convergence_of_bound: f64,
    /// The greatest share of its bound that a seed needed to deliver.
    recovery_of_bound: f64,
    /// The bound of the run, where there is only one.
    bound: Option<Bound>,
    /// The trace hashes of all seeds, combined in the order of the seeds.
    trace: String,
}

#[derive(Debug, Serialize)]
struct FailedSeed {
    seed: u64,
    broken: String,
    repeat: String,
    shrunk: Option<Shrunk>,
}

#[derive(Debug, Serialize)]
struct Shrunk {
    steps: usize,
    flows: usize,
    broken: String,
    file: PathBuf,
    scenario: String,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    if let Some(routers) = args.growth {
        return growth::run(usize::from(routers), args.links, args.seed.unwrap_or(1), args.json);
    }
    let settings = Settings {
        routers: usize::from(args.routers),
        log: args.trace,
        capture: args.pcap.is_some(),
        broken: args.broken,
    };
    let source = source(&args)?;
    if let (Some(path), Source::Seeds(seeds)) = (&args.save, &source) {
        return save(path, Plan::draw(seeds.start, settings.routers).to_toml().as_bytes(), args.force);
    }
    let started = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut outcomes = match &source {
        Source::Seeds(seeds) => run_all(seeds.clone(), args.jobs.unwrap_or(cores).max(1), &settings),
        Source::Scenario(_, plan) => vec![campaign::execute(plan, &settings)],
    };
    outcomes.sort_by_key(|outcome| outcome.seed);
    let wall = started.elapsed();
    if let Some(log) = outcomes.first().and_then(|outcome| outcome.log.as_deref()).filter(|_| args.trace) {
        output::print(log)?;
    }
    if let (Some(path), Some(first)) = (&args.pcap, outcomes.first()) {
        write(path, first.capture.as_deref().unwrap_or_default())?;
    }
    let tally = tally(&outcomes, &source, &args, wall)?;
    if args.json {
        output::json(&tally)?;
    } else {
        print(&tally, args.all)?;
    }
    if tally.failed.is_empty() { Ok(()) } else { Err(Failure::Degraded) }
}

fn source(args: &Args) -> Result<Source, Failure> {
    if let Some(path) = &args.scenario {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("cannot read the scenario {}: {error}", path.display())))?;
        let plan = Plan::parse(&text).map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))?;
        return Ok(Source::Scenario(path.clone(), Box::new(plan)));
    }
    Ok(Source::Seeds(match (args.seed, &args.seeds) {
        (Some(seed), _) => seed..seed.saturating_add(1),
        (None, Some(seeds)) => seeds.clone(),
        (None, None) => 0..100,
    }))
}

/// Writes a scenario, over an existing file only if that is meant.
fn save(path: &Path, bytes: &[u8], force: bool) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    let options = if force { options.create(true).truncate(true) } else { options.create_new(true) };
    let written = options.write(true).open(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let path = path.display();
            Failure::Failed(format!("{path} is there already: choose another name, or overwrite it with --force"))
        }
        _ => Failure::failed(path.display(), error),
    })?;
    output::line(format_args!("written to {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| Failure::failed(path.display(), error))
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
                output::note(format_args!("{outcome}"));
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

fn tally(outcomes: &[Outcome], source: &Source, args: &Args, wall: Duration) -> Result<Tally, Failure> {
    let mut faults = Ledger::EMPTY;
    let (mut detection, mut convergence, mut recovery) = (Histogram::new(), Histogram::new(), Histogram::new());
    let (mut trace, mut converge_share, mut deliver_share) = (0u64, 0f64, 0f64);
    let mut failed = Vec::new();
    for outcome in outcomes {
        trace = trace.rotate_left(5) ^ outcome.trace;
        faults.merge(&outcome.ledger);
        outcome.detections.iter().for_each(|&took| detection.record(took));
        if let Some(took) = outcome.converged_after {
            convergence.record(took);
            converge_share = converge_share.max(took.as_secs_f64() / outcome.bound.converge_s);
        }
        if let Some(took) = outcome.recovered_after {
            recovery.record(took);
            deliver_share = deliver_share.max(took.as_secs_f64() / outcome.bound.deliver_s);
        }
        if let Some(broken) = &outcome.failure {
            let shrink = !args.no_shrink && failed.len() < SHRUNK;
            failed.push(failed_seed(outcome.seed, broken, source, args, shrink)?);
        }
    }
    Ok(Tally {
        version: version(),
        rare_branches: SABOTAGE,
        seeds: outcomes.len() as u64,
        failed,
        events: outcomes.iter().map(|outcome| outcome.events).sum(),
        busiest: outcomes.iter().map(|outcome| outcome.busiest).max().unwrap_or(0),
        delivered: outcomes.iter().map(|outcome| outcome.delivered).sum(),
        simulated_s: outcomes.iter().map(|outcome| outcome.simulated.as_secs_f64()).sum(),
        wall_s: wall.as_secs_f64(),
        faults,
        detection: detection.summary(),
        convergence: convergence.summary(),
        recovery: recovery.summary(),
        convergence_of_bound: converge_share,
        recovery_of_bound: deliver_share,
        bound: if let [only] = outcomes { Some(only.bound) } else { None },
        trace: format!("{trace:016x}"),
    })
}

/// What is said of a seed that failed; shrunk if wished.
fn failed_seed(seed: u64, broken: &str, source: &Source, args: &Args, shrink: bool) -> Result<FailedSeed, Failure> {
    let rule = args.broken.map_or(String::new(), |rule| format!(" --break {}", rule.name()));
    let routers = args.routers;
    let (repeat, plan, file) = match source {
        Source::Seeds(_) => {
            let repeat = format!("sinew sim --seed {seed} --routers {routers}{rule} --trace");
            (repeat, Plan::draw(seed, usize::from(routers)), PathBuf::from(format!("sim-seed-{seed}.toml")))
        }
        Source::Scenario(path, plan) => {
            let repeat = format!("sinew sim --scenario {}{rule} --trace", path.display());
            (repeat, (**plan).clone(), path.with_extension("shrunk.toml"))
        }
    };
    let shrunk = if shrink { Some(shrunk(&plan, (seed, args.broken), broken, file)?) } else { None };
    Ok(FailedSeed { seed, broken: broken.to_owned(), repeat, shrunk })
}

fn shrunk(plan: &Plan, (seed, rule): (u64, Option<Rule>), broken: &str, file: PathBuf) -> Result<Shrunk, Failure> {
    let settings = Settings { broken: rule, ..Settings::default() };
    let (kind, mut last) = (shrink::kind(broken), broken.to_owned());
    let mut short = shrink::shrink(plan, shrink::BUDGET, |plan| {
        let failure = campaign::execute(plan, &settings).failure;
        let same = failure.as_deref().is_some_and(|failure| shrink::kind(failure) == kind);
        if same && let Some(failure) = failure {
            last = failure;
        }
        same
    });
    let version = version();
    short.history = format!("Shrunk from seed {seed} of version {version}, which failed: {last}");
    let scenario = short.to_toml();
    write(&file, scenario.as_bytes())?;
    Ok(Shrunk { steps: short.steps.len(), flows: short.flows.len(), broken: last, file, scenario })
}

fn print(tally: &Tally, all: bool) -> Result<(), Failure> {
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
    output::line("faults that struck:")?;
    let struck: Vec<String> = tally
        .faults
        .iter()
        .filter(|(_, count)| all || *count > 0)
        .map(|(name, count)| format!("{name:<28} {count:>10}"))
        .collect();
    let rows = struck.len().div_ceil(2);
    for row in 0..rows {
        let right = struck.get(row + rows).map_or("", String::as_str);
        output::line(format_args!("  {}    {right}", struck[row]))?;
    }
    if !tally.rare_branches {
        output::line("  (rare branches are not in this build: cargo build --features sabotage)")?;
    }
    for (what, summary, share) in [
        ("detection", &tally.detection, None),
        ("convergence", &tally.convergence, Some(tally.convergence_of_bound)),
        ("recovery", &tally.recovery, Some(tally.recovery_of_bound)),
    ] {
        let seconds = |us: f64| us / 1e6;
        let share = share.map_or(String::new(), |share| format!(", at most {:.0} % of its bound", share * 100.0));
        output::line(format_args!(
            "{what:<12} {:>6} times, p50 {:.3} s, p99 {:.3} s, max {:.3} s{share}",
            summary.count,
            seconds(summary.p50_us),
            seconds(summary.p99_us),
            seconds(summary.max_us)
        ))?;
    }
    if let Some(bound) = &tally.bound {
        output::line(format_args!("bound: {bound}"))?;
    }
    output::line(format_args!("trace {}", tally.trace))?;
    for failed in &tally.failed {
        output::line(format_args!(
            "seed {} of version {}: {}\n  again: {}",
            failed.seed, tally.version, failed.broken, failed.repeat
        ))?;
        if let Some(shrunk) = &failed.shrunk {
            output::line(format_args!(
                "  shrunk to {} faults and {} applications in {}: {}\n{}",
                shrunk.steps,
                shrunk.flows,
                shrunk.file.display(),
                shrunk.broken,
                shrunk.scenario
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use serde_json::Value;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn tally_of(words: &[&str]) -> Value {
        let args = Line::try_parse_from([&["sim"], words].concat()).unwrap_or_else(|error| panic!("{error}")).args;
        let settings = Settings { routers: usize::from(args.routers), broken: args.broken, ..Settings::default() };
        let source = source(&args).unwrap_or_else(|_| panic!("seeds need no file"));
        let Source::Seeds(seeds) = &source else { panic!("seeds were asked for") };
        let mut outcomes = run_all(seeds.clone(), args.jobs.unwrap_or(1), &settings);
        outcomes.sort_by_key(|outcome| outcome.seed);
        let tally = tally(&outcomes, &source, &args, Duration::ZERO).unwrap_or_else(|_| panic!("nothing is written"));
        let text = serde_json::to_string(&tally).expect("a tally is plain values");
        serde_json::from_str(&text).expect("what was written is JSON")
    }

    #[test]
    fn a_failing_seed_says_what_failed_and_how_to_repeat_it_the_same_each_time() {
        let words = ["--seeds", "0..4", "--routers", "4", "--break", "retransmit", "--no-shrink", "--json"];
        let first = tally_of(&[&words[..], &["--jobs", "1"]].concat());
        assert_eq!(first, tally_of(&[&words[..], &["--jobs", "3"]].concat()), "jobs change nothing");
        assert!(first["version"].as_str().is_some_and(|version| version.contains("sabotage")), "{first}");
        let failed = first["failed"].as_array().expect("a list");
        assert!(!failed.is_empty(), "a broken rule is noticed: {first}");
        for one in failed {
            assert!(one["broken"].as_str().is_some_and(|broken| !broken.is_empty()), "{one}");
            let repeat = one["repeat"].as_str().expect("a command");
            let words: Vec<&str> = repeat.split_whitespace().skip(2).filter(|word| *word != "--trace").collect();
            let again = tally_of(&[&words[..], &["--no-shrink"]].concat());
            assert_eq!(again["failed"][0], *one, "the command repeats the failure");
        }
    }

    #[test]
    fn wrong_rules_are_refused_with_a_list() {
        let error = Line::try_parse_from(["sim", "--break", "gravity"]).err().expect("no such rule").to_string();
        assert!(error.contains("gravity") && error.contains("AckRanges"), "{error}");
    }
}
