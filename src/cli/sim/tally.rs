//! What came of all runs.

use super::seeds::Took;
use super::times::{Times, Timing};
use super::{Args, SABOTAGE, Source, version, write};
use crate::base::hash::mix64;
use crate::base::sabotage::Rule;
use crate::cli::failure::Failure;
use crate::sim::campaign::{self, Bound, Outcome, Settings};
use crate::sim::ledger::Ledger;
use crate::sim::plan::Plan;
use crate::sim::shrink;
use serde::Serialize;
use std::path::PathBuf;

/// Failing seeds that are shrunk; the rest waits for its turn.
const SHRUNK: usize = 3;

#[derive(Debug, Serialize)]
pub(super) struct Tally {
    pub(super) version: String,
    /// Whether the rare branches of the protocol rooms can be taken: not in every build.
    pub(super) rare_branches: bool,
    pub(super) seeds: u64,
    /// Routers of the smallest and of the largest network.
    pub(super) routers: (usize, usize),
    pub(super) failed: Vec<FailedSeed>,
    pub(super) events: u64,
    /// Most events that one router had in a second of virtual time.
    pub(super) busiest: u32,
    pub(super) delivered: u64,
    pub(super) simulated_s: f64,
    /// Of these, until the applications left.
    pub(super) with_traffic_s: f64,
    pub(super) jobs: usize,
    pub(super) wall_s: f64,
    /// Seconds of processors, all jobs together.
    pub(super) cpu_s: f64,
    /// Simulated seconds per second of one core.
    pub(super) times_real_time: f64,
    /// The same if only time with traffic counts as simulated, and all of the core's.
    pub(super) times_real_time_with_traffic: f64,
    /// How often each fault struck.
    pub(super) faults: Ledger,
    /// From the moment a link fell silent until it was noticed.
    pub(super) detection: Timing,
    /// From healing to convergence.
    pub(super) convergence: Timing,
    /// From convergence until everything had arrived.
    pub(super) recovery: Timing,
    /// The bound of the run, where there is only one.
    pub(super) bound: Option<Bound>,
    /// The trace hashes of all seeds, combined in the order of the seeds.
    pub(super) trace: String,
}

#[derive(Debug, Serialize)]
pub(super) struct FailedSeed {
    pub(super) seed: u64,
    pub(super) broken: String,
    pub(super) repeat: String,
    pub(super) shrunk: Option<Shrunk>,
}

#[derive(Debug, Serialize)]
pub(super) struct Shrunk {
    pub(super) steps: usize,
    pub(super) flows: usize,
    pub(super) broken: String,
    pub(super) file: PathBuf,
    pub(super) scenario: String,
}

/// Adds up `outcomes`, which are in the order of their seeds. What failed is shrunk, unless `args` say otherwise.
pub(super) fn tally(outcomes: &[Outcome], source: &Source, args: &Args, took: Took) -> Result<Tally, Failure> {
    let (mut detection, mut convergence, mut recovery) = (Times::default(), Times::default(), Times::default());
    let (mut faults, mut trace, mut failed) = (Ledger::EMPTY, 0u64, Vec::new());
    for outcome in outcomes {
        trace = mix64(trace.rotate_left(7) ^ outcome.trace);
        faults.merge(&outcome.ledger);
        outcome.detections.iter().for_each(|one| detection.add(one.took, one.bound));
        outcome.converged_after.iter().for_each(|&took| convergence.add(took, outcome.bound.converge()));
        outcome.recovered_after.iter().for_each(|&took| recovery.add(took, outcome.bound.deliver()));
        if let Some(broken) = &outcome.failure {
            let shrink = !args.no_shrink && failed.len() < SHRUNK;
            failed.push(failed_seed(outcome.seed, broken, source, args, shrink)?);
        }
    }
    let seconds = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>();
    let simulated_s = seconds(|outcome| outcome.simulated.as_secs_f64());
    let with_traffic_s = seconds(|outcome| outcome.with_traffic.as_secs_f64());
    let cpu_s = took.cpu.as_secs_f64();
    let per_core = |simulated: f64| if cpu_s > 0.0 { simulated / cpu_s } else { 0.0 };
    let sizes = || outcomes.iter().map(|outcome| outcome.routers);
    Ok(Tally {
        version: version(),
        rare_branches: SABOTAGE,
        seeds: outcomes.len() as u64,
        routers: (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0)),
        failed,
        events: outcomes.iter().map(|outcome| outcome.events).sum(),
        busiest: outcomes.iter().map(|outcome| outcome.busiest).max().unwrap_or(0),
        delivered: outcomes.iter().map(|outcome| outcome.delivered).sum(),
        simulated_s,
        with_traffic_s,
        jobs: took.jobs,
        wall_s: took.wall.as_secs_f64(),
        cpu_s,
        times_real_time: per_core(simulated_s),
        times_real_time_with_traffic: per_core(with_traffic_s),
        faults,
        detection: detection.timing(),
        convergence: convergence.timing(),
        recovery: recovery.timing(),
        bound: if let [only] = outcomes { Some(only.bound) } else { None },
        trace: format!("{trace:016x}"),
    })
}

/// What is said of a seed that failed; shrunk if wished.
fn failed_seed(seed: u64, broken: &str, source: &Source, args: &Args, shrink: bool) -> Result<FailedSeed, Failure> {
    let rule = args.broken.map_or(String::new(), |rule| format!(" --break {}", rule.name()));
    let (repeat, plan, file) = match source {
        Source::Seeds(_) => {
            let (least, most) = (args.at_least, args.routers);
            let sizes = if least > 2 { format!("{most} --at-least {least}") } else { most.to_string() };
            let groups = if args.groups { " --groups" } else { "" };
            let repeat = format!("sinew sim --seed {seed} --routers {sizes}{groups}{rule} --trace");
            let plan = Plan::draw(seed, usize::from(least)..=usize::from(most), args.groups);
            (repeat, plan, PathBuf::from(format!("sim-seed-{seed}.toml")))
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
