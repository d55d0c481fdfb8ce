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
    /// Requests that were not answered.
    pub(super) lost: u64,
    /// More than one host answered at the end, if asked directly.
    pub(super) second_owner: bool,
}

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
        Figures {
            outage_median_ms: median(outages()),
            outage_worst_ms: outages().fold(0.0, f64::max),
            calm_median_ms: median(calm()),
            calm_worst_ms: calm().fold(0.0, f64::max),
            lost: self.trials.iter().map(|trial| trial.lost).sum(),
            second_owners: self.trials.iter().filter(|trial| trial.second_owner).count(),
        }
    }
}

/// For people.
pub(super) fn text(noise: &NoiseReport, rows: &[Row]) -> String {
    let mut text = format!(
        "Longest time without an answer, ms, at 1,000 requests a second; `calm`: before anything happened.\n\n\
         {:8} {:16} {:>6} {:>8} {:>8} {:>8} {:>8} {:>6} {:>10}\n",
        "case", "group", "trials", "median", "worst", "calm", "worst", "lost", "2nd owner"
    );
    for row in rows {
        let figures = row.figures();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:8} {:16} {:>6} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>6} {:>10}",
            row.case,
            row.group,
            row.trials.len(),
            figures.outage_median_ms,
            figures.outage_worst_ms,
            figures.calm_median_ms,
            figures.calm_worst_ms,
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
