//! The record of a campaign, as Markdown: to be kept beside the code that it is about.

use super::tally::Tally;
use super::text::timings;
use super::times::Timing;
use crate::cli::output::counted;
use std::fmt::Write as _;
use std::ops::Range;

/// The whole document.
pub(super) fn markdown(tally: &Tally, seeds: &Range<u64>) -> String {
    let mut text = format!("# Seeds {}..{} of sinew {}\n\n", seeds.start, seeds.end, tally.version);
    summary(&mut text, tally, seeds);
    for (what, times) in timings(tally) {
        timing(&mut text, what, times);
    }
    faults(&mut text, tally);
    text
}

/// Adds to a string, which does not fail.
macro_rules! put {
    ($text:expr, $($what:tt)+) => { writeln!($text, $($what)+).expect("writing to a string does not fail") };
}

fn summary(text: &mut String, tally: &Tally, seeds: &Range<u64>) {
    let (fewest, most) = tally.routers;
    let hours = |seconds: f64| seconds / 3600.0;
    let rows = [
        ("seeds", format!("{}..{}: {}", seeds.start, seeds.end, tally.seeds)),
        ("failed", tally.failed.len().to_string()),
        ("routers of a network", format!("{fewest} to {most}")),
        ("simulated", format!("{:.2} hours", hours(tally.simulated_s))),
        ("until applications left", format!("{:.2} hours", hours(tally.with_traffic_s))),
        ("took", format!("{:.2} hours, {:.2} of cores, {}", hours(tally.wall_s), hours(tally.cpu_s), jobs(tally))),
        ("times real time, a core", format!("{:.0}", tally.times_real_time)),
        ("until applications left", format!("{:.0}", tally.times_real_time_with_traffic)),
        ("events", tally.events.to_string()),
        ("most of one router in a second", tally.busiest.to_string()),
        ("messages delivered", tally.delivered.to_string()),
        ("trace", tally.trace.clone()),
    ];
    put!(text, "| | |\n|---|---|");
    rows.iter().for_each(|(what, value)| put!(text, "| {what} | {value} |"));
    if !tally.failed.is_empty() {
        put!(text, "\n## What failed\n");
        tally.failed.iter().for_each(|failed| put!(text, "- `{}`: {}", failed.repeat, failed.broken));
    }
}

fn jobs(tally: &Tally) -> String {
    counted(tally.jobs as u64, "job")
}

fn timing(text: &mut String, what: &str, times: &Timing) {
    put!(text, "\n## Time to {what}\n", what = infinitive(what));
    let Some((least, greatest)) = times.bounds_s else { return put!(text, "Never measured.") };
    let (summary, seconds) = (&times.summary, |us: f64| us / 1e6);
    put!(
        text,
        "{} times: median {:.3} s, 99 % {:.3} s, 99.9 % {:.3} s, longest {:.3} s. Bounds were {least:.1} to {greatest:.1} s; \
         the nearest to its bound took {:.0} % of it.\n",
        summary.count,
        seconds(summary.p50_us),
        seconds(summary.p99_us),
        seconds(summary.p999_us),
        seconds(summary.max_us),
        times.most_of_bound * 100.0
    );
    put!(text, "| up to, s | times |\n|---:|---:|");
    times.bars.iter().for_each(|bar| put!(text, "| {:.3} | {} |", bar.up_to_s, bar.count));
    put!(text, "\n| share of its bound | times |\n|---:|---:|");
    for (tenth, count) in times.tenths_of_bound.iter().enumerate() {
        match tenth {
            10 => put!(text, "| beyond | {count} |"),
            _ => put!(text, "| {} % | {count} |", (tenth + 1) * 10),
        }
    }
}

fn infinitive(what: &str) -> String {
    let verb = match what {
        "detection" => "notice a dead link",
        "convergence" => "converge after healing",
        _ => "deliver everything after converging",
    };
    format!("{verb} ({what})")
}

fn faults(text: &mut String, tally: &Tally) {
    put!(text, "\n## Faults that struck\n\n| fault | times |\n|---|---:|");
    tally.faults.iter().for_each(|(name, count)| put!(text, "| {name} | {count} |"));
    if !tally.rare_branches {
        put!(text, "\nRare branches were not in this build (`cargo build --features sabotage`).");
    }
}
