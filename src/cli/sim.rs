//! `sinew sim`: whole networks in one thread, from seeds or scenario files.

mod growth;
mod ledger;
mod seeds;
mod tally;
mod text;
mod times;

use super::failure::Failure;
use super::output;
use super::stop::Stop;
use crate::base::sabotage::Rule;
use crate::sim::campaign::Settings;
use crate::sim::plan::Plan;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

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
  sinew sim --seeds 0..500 --ledger campaign.md
                                       and write down what ran, what struck and what came of it
  sinew sim --seeds 0..100 --at-least 12
                                       networks of twelve routers, no fewer
  sinew sim --seeds 0..100 --groups    each with a group that shares service addresses
  sinew sim --growth 1000              what a network of a thousand routers costs

A seed that fails is shrunk: as few faults and applications as it takes to fail in the same way,
printed and written to sim-seed-N.toml beside you.

Ctrl-C ends a range early: what ran until then is printed, and written to the --ledger.

Exit codes: 0 nothing wrong, 1 a seed failed (the command that repeats it is printed) or a file
could not be written, 2 wrong command line or no such scenario, 130 Ctrl-C came first.")]
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
    /// Fewest routers of a network
    #[arg(long, value_name = "ROUTERS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=1000))]
    at_least: u16,
    /// Let every network have a group that shares service addresses, not just a third of them
    #[arg(long, conflicts_with_all = ["scenario", "growth"])]
    groups: bool,
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
    /// Write what ran, which faults struck, and how long recovery took, as Markdown: the record of a campaign
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "growth"])]
    ledger: Option<PathBuf>,
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

/// From so many routers on, a network's memory is more than small pages serve well.
const MANY: usize = 300;

/// Starts this program anew with a heap of large pages, unless its heap was chosen already: memory of a thousand routers is
/// walked through at random, and with pages of 2 MiB that takes a sixth less time. The C library takes this from the
/// environment of a process that starts; where it does not, or cannot, the run takes its time.
fn with_large_pages() {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    if std::env::var_os(TUNABLES).is_none() {
        let mut anew = Command::new("/proc/self/exe");
        let _failed = anew.args(std::env::args_os().skip(1)).env(TUNABLES, "glibc.malloc.hugetlb=1").exec();
    }
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

pub(super) fn run(args: Args) -> Result<(), Failure> {
    if let Some(routers) = args.growth {
        if usize::from(routers) >= MANY {
            with_large_pages();
        }
        return growth::run(usize::from(routers), args.links, args.seed.unwrap_or(1), args.json);
    }
    let settings = settings(&args)?;
    let mut source = source(&args)?;
    if let (Some(path), Source::Seeds(seeds)) = (&args.save, &source) {
        return save(path, settings.draw(seeds.start).to_toml().as_bytes(), args.force);
    }
    let mut interrupted = false;
    let (outcomes, took) = match &mut source {
        Source::Seeds(seeds) => {
            // One seed has nothing to tell before it ends: a signal ends it at once.
            let stop = if seeds.end - seeds.start > 1 { Stop::on_signals() } else { Stop::default() };
            let ran = seeds::run_all(seeds.clone(), args.jobs.unwrap_or_else(seeds::cores).max(1), &settings, &stop);
            // Seeds are taken in order, and one that was taken is run to its end.
            let asked = std::mem::replace(&mut seeds.end, seeds.start + ran.0.len() as u64);
            interrupted = seeds.end < asked;
            if interrupted {
                output::note(format_args!("interrupted after {} of {} seeds", ran.0.len(), asked - seeds.start));
            }
            if ran.0.is_empty() {
                return Err(Failure::Interrupted);
            }
            ran
        }
        Source::Scenario(_, plan) => seeds::run_one(plan, &settings),
    };
    if let Some(log) = outcomes.first().and_then(|outcome| outcome.log.as_deref()).filter(|_| args.trace) {
        output::print(log)?;
    }
    if let (Some(path), Some(first)) = (&args.pcap, outcomes.first()) {
        write(path, first.capture.as_deref().unwrap_or_default())?;
    }
    let tally = tally::tally(&outcomes, &source, &args, took)?;
    if let (Some(path), Source::Seeds(seeds)) = (&args.ledger, &source) {
        write(path, ledger::markdown(&tally, seeds).as_bytes())?;
    }
    if args.json {
        output::json(&tally)?;
    } else {
        text::print(&tally, args.all)?;
    }
    match tally.failed.is_empty() {
        false => Err(Failure::Degraded),
        true if interrupted => Err(Failure::Interrupted),
        true => Ok(()),
    }
}

fn settings(args: &Args) -> Result<Settings, Failure> {
    let (fewest, routers) = (usize::from(args.at_least), usize::from(args.routers));
    if fewest > routers {
        let why = format!("--at-least {fewest} is more than --routers {routers}, the most");
        return Err(Failure::Usage(why));
    }
    Ok(Settings {
        fewest,
        routers,
        groups: args.groups,
        log: args.trace,
        capture: args.pcap.is_some(),
        broken: args.broken,
    })
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

#[cfg(test)]
mod tests {
    use super::seeds::{Took, run_all};
    use super::*;
    use clap::Parser as _;
    use serde_json::Value;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn who_is_asked_to_stop_takes_no_further_seed() {
        let stop = Stop::default();
        stop.set();
        let (outcomes, _) = run_all(0..100, 2, &Settings::default(), &stop);
        assert!(outcomes.is_empty());
    }

    fn tally_of(words: &[&str]) -> Value {
        let args = Line::try_parse_from([&["sim"], words].concat()).unwrap_or_else(|error| panic!("{error}")).args;
        let settings = settings(&args).unwrap_or_else(|_| panic!("the sizes fit"));
        let source = source(&args).unwrap_or_else(|_| panic!("seeds need no file"));
        let Source::Seeds(seeds) = &source else { panic!("seeds were asked for") };
        let (outcomes, _) = run_all(seeds.clone(), args.jobs.unwrap_or(1), &settings, &Stop::default());
        let tally = tally::tally(&outcomes, &source, &args, Took::default());
        let tally = tally.unwrap_or_else(|_| panic!("nothing is written"));
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
    fn the_hash_of_a_campaign_is_that_of_its_runs_in_the_order_of_their_seeds() {
        let words = ["--seeds", "10..16", "--routers", "5", "--at-least", "5"];
        let trace = |words: &[&str]| tally_of(words)["trace"].as_str().expect("a hash").to_owned();
        let alone = trace(&[&words[..], &["--jobs", "1"]].concat());
        assert_eq!(alone, trace(&[&words[..], &["--jobs", "2"]].concat()), "jobs change nothing");
        assert_ne!(alone, trace(&["--seeds", "10..15", "--routers", "5", "--at-least", "5"]), "a seed fewer");
        assert_ne!(alone, trace(&["--seeds", "10..16", "--routers", "5"]), "other networks");
    }

    #[test]
    fn networks_have_no_fewer_routers_than_asked_for() {
        let args = Line::try_parse_from(["sim", "--at-least", "5", "--routers", "5"]).expect("fits").args;
        let settings = settings(&args).unwrap_or_else(|_| panic!("the sizes fit"));
        assert!((0..50).all(|seed| settings.draw(seed).topology.routers == 5));
        let args = Line::try_parse_from(["sim", "--at-least", "13"]).expect("numbers").args;
        assert!(super::settings(&args).is_err(), "more than the most");
    }

    #[test]
    fn a_ledger_says_what_ran_what_struck_and_how_long_it_took() {
        let args = Line::try_parse_from(["sim", "--seeds", "0..3", "--routers", "4"]).expect("fits").args;
        let settings = settings(&args).unwrap_or_else(|_| panic!("the sizes fit"));
        let (outcomes, took) = run_all(0..3, 1, &settings, &Stop::default());
        let simulated: f64 = outcomes.iter().map(|outcome| outcome.simulated.as_secs_f64()).sum();
        let source = source(&args).unwrap_or_else(|_| panic!("seeds need no file"));
        let tally = tally::tally(&outcomes, &source, &args, took).unwrap_or_else(|_| panic!("nothing is written"));
        let text = ledger::markdown(&tally, &(0..3));
        for part in ["0..3", env!("CARGO_PKG_VERSION"), &format!("{:.2} hours", simulated / 3600.0), "| jitter |"] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
        assert!(["detection", "convergence", "recovery"].iter().all(|what| text.contains(what)), "{text}");
    }

    #[test]
    fn wrong_rules_are_refused_with_a_list() {
        let error = Line::try_parse_from(["sim", "--break", "gravity"]).err().expect("no such rule").to_string();
        assert!(error.contains("gravity") && error.contains("AckRanges"), "{error}");
    }
}
