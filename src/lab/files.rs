//! The files an experiment leaves: `report.html`, `result.json`, and a `.hgrm` and a `.hlog` for each run.

use super::outcome::{Outcome, Run};
use super::report;
use super::table::trim;
use crate::base::{Instant, WallTime};
use crate::telemetry::{hgrm, hlog};
use hdrhistogram::Histogram;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::Duration;

/// Nanoseconds to the milliseconds that the files speak of.
const MILLISECONDS: f64 = 1e6;
/// Length of an interval of a log.
const INTERVAL: Duration = Duration::from_secs(1);

/// Makes `dir` and finds out whether it can be written to: better before a measurement than after it.
pub(super) fn prepare(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".writable-{}", std::process::id()));
    let tried = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&probe, ""))
        .and_then(|()| std::fs::remove_file(&probe));
    let cannot = |error: io::Error| {
        let text = format!("cannot write results to {}: {error}; name another directory with --out DIR", dir.display());
        io::Error::new(error.kind(), text)
    };
    tried.map_err(cannot)
}

/// Writes everything below `dir`; answers with what was written, for people.
pub(super) fn write(dir: &Path, outcome: &Outcome, started: WallTime) -> io::Result<String> {
    let in_dir = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(in_dir)?;
    std::fs::write(dir.join("result.json"), to_json(outcome)?).map_err(in_dir)?;
    std::fs::write(dir.join("report.html"), report::render(outcome)).map_err(in_dir)?;
    let alone = outcome.cells.len() <= 1;
    for run in outcome.raw.iter().chain(&outcome.runs) {
        let name = if alone { run.transport.clone() } else { long_name(run) };
        write_histograms(dir, &name, run, started).map_err(in_dir)?;
    }
    Ok(format!(
        "{}/report.html, result.json, and {} histograms (.hgrm, .hlog)",
        dir.display(),
        outcome.raw.len() + outcome.runs.len()
    ))
}

/// `result.json`.
pub(super) fn to_json(outcome: &Outcome) -> io::Result<String> {
    serde_json::to_string_pretty(outcome).map_err(io::Error::other)
}

fn long_name(run: &Run) -> String {
    let Run { transport, rate_kbps, hops, cell, .. } = run;
    format!("{transport}-{rate_kbps}kbps-{}pct-{hops}hops-{cell}", trim(run.loss_percent))
}

fn write_histograms(dir: &Path, name: &str, run: &Run, started: WallTime) -> io::Result<()> {
    let mut all = empty();
    run.samples.iter().for_each(|sample| all.saturating_record(sample.latency_ns));
    let mut out = BufWriter::new(File::create(dir.join(format!("{name}.hgrm")))?);
    hgrm::write(&mut out, &all, MILLISECONDS)?;
    let mut out = BufWriter::new(File::create(dir.join(format!("{name}.hlog")))?);
    hlog::write(&mut out, started, &intervals(run), MILLISECONDS)
}

/// From 1 µs to 1,000 s, three digits.
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 1_000_000_000_000, 3).expect("the bounds are constants that HdrHistogram accepts")
}

/// A histogram for each second in which messages were meant to be sent.
fn intervals(run: &Run) -> Vec<(Duration, Duration, Histogram<u64>)> {
    let first = run.samples.iter().map(|sample| sample.intended).min().unwrap_or(Instant::ZERO);
    let mut intervals: Vec<(Duration, Duration, Histogram<u64>)> = Vec::new();
    for sample in &run.samples {
        let second = sample.intended.since(first).as_secs();
        while intervals.len() as u64 <= second {
            intervals.push((INTERVAL * intervals.len() as u32, INTERVAL, empty()));
        }
        intervals[second as usize].2.saturating_record(sample.latency_ns);
    }
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::args::Experiment;
    use crate::lab::flows::{Flow, Measured};
    use crate::lab::ladder::Mode;
    use crate::lab::outcome::{Bulk, Cell, OverlayTraffic, Place, Sweep};
    use crate::lab::tally::{Stamp, Tally};
    use crate::lab::transport::Transport;

    /// A run of a hundred messages of which every tenth is late and one is lost.
    fn outcome() -> Outcome {
        let mut tally = Tally::new(100);
        let mut message = vec![0; 32];
        for sequence in 0..99 {
            let intended = Instant::from_millis(16 * sequence);
            Stamp { sequence, intended }.write(&mut message);
            let latency = Duration::from_millis(if sequence % 10 == 9 { 120 } else { 50 });
            tally.arrived(&message, intended + latency);
        }
        let flow = Flow {
            from: "a".into(),
            to: "f".into(),
            transport: Transport::Reliable,
            messages: 100,
            size: 1000,
            rate_kbps: 500,
        };
        let place = Place { loss_percent: 1.0, hops: 5, link_delay_ms: 10.0 };
        let measured = Measured { flow, tally, sender: crate::telemetry::Histogram::new() };
        let mut outcome = Outcome::new(Experiment::Default, Mode::User, 1, false);
        outcome.runs.push(Run::new(measured, &place, 0, Some(7)));
        let noise = crate::lab::noise::Noise { cores: 2, ..Default::default() };
        outcome.noise = noise;
        outcome.cells.push(Cell {
            sweep: Sweep::Single,
            loss_percent: 1.0,
            rate_kbps: 500,
            hops: 5,
            link_delay_ms: 10.0,
            noise,
            links: vec![],
            overlay: OverlayTraffic::default(),
        });
        outcome
    }

    #[test]
    fn results_have_the_names_that_others_read() {
        let text = to_json(&outcome()).expect("is JSON");
        let value: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
        let run = &value["runs"][0];
        let names = "loss_percent rate_kbps hops link_delay_ms sent received lost duplicated reordered mean_ms sd_ms \
                     p50_ms p90_ms p99_ms p999_ms max_ms over_60ms_percent over_100ms_percent bytes";
        for name in names.split_whitespace() {
            assert!(run[name].is_number(), "{name}: {run}");
        }
        assert_eq!((&run["transport"], &run["lost"]), (&"reliable".into(), &1.into()));
        assert_eq!((run["p50_ms"].as_f64(), run["p99_ms"].as_f64()), (Some(50.0), Some(120.0)));
        assert!(value["noise"]["timer_p99_us"].is_number());
        assert!(run.get("samples").is_none());
    }

    #[test]
    fn the_help_names_the_keys() {
        use clap::CommandFactory as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            _args: crate::lab::Args,
        }
        let command = Line::command();
        let help = command.get_after_long_help().expect("it teaches").to_string();
        let mut outcome = outcome();
        outcome.bulk.push(Bulk::default());
        let value = serde_json::to_value(&outcome).expect("is JSON");
        let words = |text: &str| -> Vec<String> { text.split([' ', ',', '\n']).map(str::to_owned).collect() };
        let help = words(&help);
        let all = [&value, &value["runs"][0], &value["bulk"][0]];
        // What only a look at the file tells is left out of the help.
        let quiet = ["queue_bytes", "received_bytes"];
        for key in all.into_iter().filter_map(serde_json::Value::as_object).flat_map(|object| object.keys()) {
            assert!(help.contains(key) || quiet.contains(&key.as_str()), "the help does not name {key}");
        }
    }

    #[test]
    fn every_file_is_written_and_the_page_stands_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &outcome(), WallTime::from_nanos(1_700_000_000_000_000_000)).expect("is written");
        for name in ["report.html", "result.json", "reliable.hgrm", "reliable.hlog"] {
            let length = std::fs::metadata(dir.path().join(name)).map(|file| file.len());
            assert!(length.as_ref().is_ok_and(|&length| length > 100), "{name}: {length:?}");
        }
        let page = std::fs::read_to_string(dir.path().join("report.html")).expect("is there");
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(!page.contains("http") && !page.contains("<script"), "the page refers to nothing outside");
    }

    #[test]
    fn a_log_has_an_interval_for_each_second() {
        let outcome = outcome();
        let intervals = intervals(&outcome.runs[0]);
        assert_eq!(intervals.iter().map(|(_, _, histogram)| histogram.len()).collect::<Vec<_>>(), [63, 36]);
    }
}
