//! The table and the JSON: the same figures twice.

use super::case::Case;
use crate::bench::figures::median;
use crate::bench::machine::NoiseReport;
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;

/// What the client saw of one trial.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Trial {
    /// The longest time without an answer.
    pub(super) outage_ms: f64,
    /// The same before anything happened.
    pub(super) calm_ms: f64,
    /// For how long two hosts answered after what happened, if each was asked directly.
    pub(super) both_ms: f64,
    /// Requests that were not answered.
    pub(super) lost: u64,
    /// More than one host answered at the end, if asked directly.
    pub(super) second_owner: bool,
}

/// Who hears nothing for so long has lost the address.
const BLACK_HOLE_MS: f64 = 1_000.0;

/// All trials of one case with one group.
pub(super) struct Row {
    case: Case,
    group: String,
    pub(super) trials: Vec<Trial>,
}

/// The figures of a row.
#[derive(Serialize)]
struct Figures {
    outage_median_ms: f64,
    outage_worst_ms: f64,
    calm_median_ms: f64,
    calm_worst_ms: f64,
    both_median_ms: f64,
    both_worst_ms: f64,
    /// Trials in which nobody answered for more than a second.
    black_holes: usize,
    lost: u64,
    second_owners: usize,
}

impl Row {
    pub(super) fn new(case: Case, group: &str) -> Row {
        Row { case, group: group.to_owned(), trials: Vec::new() }
    }

    fn figures(&self) -> Figures {
        let outages = || self.trials.iter().map(|trial| trial.outage_ms);
        let calm = || self.trials.iter().map(|trial| trial.calm_ms);
        let both = || self.trials.iter().map(|trial| trial.both_ms);
        Figures {
            outage_median_ms: median(outages()),
            outage_worst_ms: outages().fold(0.0, f64::max),
            calm_median_ms: median(calm()),
            calm_worst_ms: calm().fold(0.0, f64::max),
            both_median_ms: median(both()),
            both_worst_ms: both().fold(0.0, f64::max),
            black_holes: outages().filter(|&outage| outage > BLACK_HOLE_MS).count(),
            lost: self.trials.iter().map(|trial| trial.lost).sum(),
            second_owners: self.trials.iter().filter(|trial| trial.second_owner).count(),
        }
    }
}

/// For people.
pub(super) fn text(noise: &NoiseReport, rows: &[Row]) -> String {
    let mut text = format!(
        "Longest time without an answer, ms; `calm`: before anything happened; `both`: two hosts answered.\n\n\
         {:8} {:16} {:>6} {:>8} {:>8} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6}\n",
        "case", "group", "trials", "median", "worst", "calm", "worst", "both", "worst", "holes", "lost", "2nd"
    );
    for row in rows {
        let figures = row.figures();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:8} {:16} {:>6} {:>8.1} {:>8.1} {:>6.1} {:>6.1} {:>6.1} {:>6.1} {:>6} {:>6} {:>6}",
            row.case,
            row.group,
            row.trials.len(),
            figures.outage_median_ms,
            figures.outage_worst_ms,
            figures.calm_median_ms,
            figures.calm_worst_ms,
            figures.both_median_ms,
            figures.both_worst_ms,
            figures.black_holes,
            figures.lost,
            figures.second_owners
        );
    }
    let _ = writeln!(
        text,
        "\nnoise: a sleep of 1 ms is late by {:.0} µs (p50), {:.0} µs (p99), {:.0} µs (most); others took {:.1} % of a \
         busy thread's time, {:.0} µs at once; load {:.2}",
        noise.timer_p50_us,
        noise.timer_p99_us,
        noise.timer_max_us,
        noise.stolen_percent,
        noise.longest_pause_us,
        noise.load_average
    );
    text
}

/// For programs, with every trial.
pub(super) fn json(noise: &NoiseReport, rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "case": row.case.to_string(), "group": row.group, "figures": row.figures(), "trials": row.trials,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "noise": noise, "rows": rows }))
}
