//! What came of all runs, for a terminal.

use super::tally::{FailedSeed, Tally};
use super::times::Timing;
use crate::cli::failure::Failure;
use crate::cli::output;

/// Prints everything; faults that did not strike too if `all`.
pub(super) fn print(tally: &Tally, all: bool) -> Result<(), Failure> {
    output::line(format_args!("{} passed, {} failed", tally.seeds - tally.failed.len() as u64, tally.failed.len()))?;
    output::line(speed(tally))?;
    output::line(format_args!("{} events, {} messages delivered", tally.events, tally.delivered))?;
    faults(tally, all)?;
    for (what, times) in timings(tally) {
        output::line(format_args!("{what:<12} {}", figures(times)))?;
    }
    if let Some(bound) = &tally.bound {
        output::line(format_args!("bound: {bound}"))?;
    }
    output::line(format_args!("trace {}", tally.trace))?;
    tally.failed.iter().try_for_each(|failed| failure(tally, failed))
}

/// The three times that are looked at.
pub(super) const fn timings(tally: &Tally) -> [(&'static str, &Timing); 3] {
    [("detection", &tally.detection), ("convergence", &tally.convergence), ("recovery", &tally.recovery)]
}

fn speed(tally: &Tally) -> String {
    let (fewest, most) = tally.routers;
    let routers = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
    format!(
        "{:.0} s simulated in {:.1} s by {}: each core {:.0} times as fast as real time, {routers} routers a network \
         ({:.0} times until applications leave)",
        tally.simulated_s,
        tally.wall_s,
        output::counted(tally.jobs as u64, "job"),
        tally.times_real_time,
        tally.times_real_time_with_traffic,
    )
}

fn faults(tally: &Tally, all: bool) -> Result<(), Failure> {
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
    Ok(())
}

fn figures(times: &Timing) -> String {
    let seconds = |us: f64| us / 1e6;
    let summary = &times.summary;
    let Some((least, greatest)) = times.bounds_s else { return "     0 times".to_owned() };
    let tenths: Vec<String> = times.tenths_of_bound.iter().map(u64::to_string).collect();
    format!(
        "{:>6} times, p50 {:.3} s, p99 {:.3} s, max {:.3} s; bounds {least:.1} to {greatest:.1} s, at most {:.0} % of it\n\
         {:>13}by tenths of the bound, and beyond: {}",
        summary.count,
        seconds(summary.p50_us),
        seconds(summary.p99_us),
        seconds(summary.max_us),
        times.most_of_bound * 100.0,
        "",
        tenths.join(" ")
    )
}

fn failure(tally: &Tally, failed: &FailedSeed) -> Result<(), Failure> {
    let version = &tally.version;
    output::line(format_args!(
        "seed {} of version {version}: {}\n  again: {}",
        failed.seed, failed.broken, failed.repeat
    ))?;
    let Some(shrunk) = &failed.shrunk else { return Ok(()) };
    output::line(format_args!(
        "  shrunk to {} faults and {} applications in {}: {}\n{}",
        shrunk.steps,
        shrunk.flows,
        shrunk.file.display(),
        shrunk.broken,
        shrunk.scenario
    ))
}
