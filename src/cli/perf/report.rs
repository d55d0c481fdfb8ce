//! How a test's results are shown.

use super::clock::Clock;
use super::talk::{Counted, Transport};
use super::tally::histogram;
use super::{ClientArgs, Rate};
use crate::base::{Class, WallTime};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::telemetry::table::{bit_rate, percent};
use crate::telemetry::{Table, hgrm, hlog};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All that came of a test.
pub(super) struct Outcome {
    /// Wall-clock time of its beginning, ns.
    pub(super) begin: u64,
    pub(super) transport: Transport,
    pub(super) clock: Clock,
    pub(super) sent: u64,
    pub(super) all: Counted,
    pub(super) intervals: Vec<Counted>,
    pub(super) round_trips: RoundTrips,
}

/// Round trips by echo, in all and by interval.
pub(super) struct RoundTrips {
    begin: u64,
    interval: Duration,
    all: Histogram<u64>,
    intervals: Vec<hlog::Interval>,
}

impl RoundTrips {
    /// None yet; intervals count from `begin`, ns of the test's clock.
    pub(super) fn new(begin: u64, interval: Duration) -> RoundTrips {
        RoundTrips { begin, interval, all: histogram(), intervals: Vec::new() }
    }

    /// An echo of a message that was meant to leave at `intended` came back at `now`.
    pub(super) fn take(&mut self, intended: u64, now: u64) {
        let round_trip = now.saturating_sub(intended);
        self.all.saturating_record(round_trip);
        let passed = Duration::from_nanos(now.saturating_sub(self.begin));
        let number = u32::try_from(passed.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u32::MAX);
        let start = self.interval * number;
        if self.intervals.last().is_none_or(|last| last.start != start) {
            let tag = Some("round-trip".to_owned());
            self.intervals.push(hlog::Interval { tag, start, length: self.interval, histogram: histogram() });
        }
        let last = self.intervals.last_mut().expect("one was pushed");
        last.histogram.saturating_record(round_trip);
    }
}

/// A latency distribution.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    count: u64,
    min_ms: f64,
    mean_ms: f64,
    sd_ms: f64,
    pub(super) p50_ms: f64,
    p90_ms: f64,
    pub(super) p99_ms: f64,
    p999_ms: f64,
    pub(super) max_ms: f64,
}

impl Latency {
    /// Of nanoseconds; none if there are none.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e6;
        (!histogram.is_empty()).then(|| Latency {
            count: histogram.len(),
            min_ms: histogram.min() as f64 / 1e6,
            mean_ms: histogram.mean() / 1e6,
            sd_ms: histogram.stdev() / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: histogram.max() as f64 / 1e6,
        })
    }
}

#[derive(Serialize)]
struct Report<'a> {
    transport: &'a str,
    size: u64,
    /// What the sender aimed at: a number, or `"unlimited"`.
    rate_kbps: Aim,
    sent: u64,
    received: u64,
    lost: u64,
    loss_percent: f64,
    duplicated: u64,
    reordered: u64,
    marked: u64,
    seconds: f64,
    goodput_kbps: f64,
    /// Which clock the one-way figures are from: exact with `same-machine`, as good as synchronisation with `wall`.
    clock: Clock,
    one_way: Option<Latency>,
    round_trip: Option<Latency>,
    intervals: Vec<IntervalReport>,
}

/// A rate as JSON shows it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Aim {
    Kbps(f64),
    Word(&'static str),
}

impl Aim {
    fn of(rate: Rate) -> Aim {
        match rate {
            Rate::Unlimited => Aim::Word("unlimited"),
            Rate::Bits(rate) => Aim::Kbps(rate as f64 / 1e3),
        }
    }
}

#[derive(Serialize)]
struct IntervalReport {
    start_s: f64,
    end_s: f64,
    received: u64,
    duplicated: u64,
    reordered: u64,
    goodput_kbps: f64,
    one_way: Option<Latency>,
}

/// Shows an interval while the test runs.
pub(super) fn interval(counted: &Counted, first: bool) -> Result<(), Failure> {
    if first {
        output::line("    interval s     received  goodput         one-way mean     p99     max ms")?;
    }
    output::line(interval_line(counted)?)
}

/// An interval as a line.
fn interval_line(counted: &Counted) -> Result<String, Failure> {
    let figures = Latency::of(&decode(counted)?);
    let (mean, p99, max) = figures.map_or((0.0, 0.0, 0.0), |latency| (latency.mean_ms, latency.p99_ms, latency.max_ms));
    let rate = bit_rate(goodput(counted));
    Ok(format!(
        "{:6.1} - {:6.1}  {:>10}  {rate:<14}  {mean:>12.3} {p99:>7.3} {max:>7.3}",
        counted.start, counted.end, counted.received
    ))
}

/// Makes of checked figures all that is ever made of them, for the fuzzer.
pub(super) fn show(counted: &Counted) {
    let line = interval_line(counted).expect("checked figures can be shown");
    let logged = logged(counted).expect("checked figures can be logged");
    let mut text = Vec::new();
    hgrm::write(&mut text, &logged.histogram, hgrm::MILLISECONDS).expect("memory takes it");
    hlog::write_tagged(&mut text, "fuzz", WallTime::from_nanos(0), &[logged], hgrm::MILLISECONDS)
        .expect("memory takes it");
    assert!(!line.is_empty() && !text.is_empty());
}

/// An interval as logs have it.
fn logged(counted: &Counted) -> Result<hlog::Interval, Failure> {
    let span = |seconds: f64| {
        Duration::try_from_secs_f64(seconds)
            .map_err(|error| Failure::failed("the server's figures cannot be read", error))
    };
    let (start, length) = (span(counted.start)?, span((counted.end - counted.start).max(0.0))?);
    Ok(hlog::Interval { tag: Some("one-way".to_owned()), start, length, histogram: decode(counted)? })
}

/// Writes the files, shows the result, and says whether it is well.
pub(super) fn finish(args: &ClientArgs, outcome: Outcome) -> Result<(), Failure> {
    let one_way = decode(&outcome.all)?;
    write_files(args, &outcome, &one_way)?;
    let lost = outcome.sent.saturating_sub(outcome.all.received);
    if args.json {
        output::json(&report(args, &outcome, &one_way, lost)?)?;
    } else {
        output::print(text(&outcome, &one_way, lost))?;
    }
    let all = &outcome.all;
    let well = match outcome.transport {
        Transport::Datagram(Class::BestEffort) => all.received > 0,
        _ => lost == 0 && all.duplicated == 0 && !(args.ordered && all.reordered > 0),
    };
    if well { Ok(()) } else { Err(Failure::Degraded) }
}

fn report<'a>(
    args: &ClientArgs,
    outcome: &'a Outcome,
    one_way: &Histogram<u64>,
    lost: u64,
) -> Result<Report<'a>, Failure> {
    let all = &outcome.all;
    let interval = |counted: &Counted| {
        Ok(IntervalReport {
            start_s: counted.start,
            end_s: counted.end,
            received: counted.received,
            duplicated: counted.duplicated,
            reordered: counted.reordered,
            goodput_kbps: goodput(counted) / 1e3,
            one_way: Latency::of(&decode(counted)?),
        })
    };
    Ok(Report {
        transport: outcome.transport.name(),
        size: args.size,
        rate_kbps: Aim::of(args.aim()),
        sent: outcome.sent,
        received: all.received,
        lost,
        loss_percent: 100.0 * lost as f64 / outcome.sent.max(1) as f64,
        duplicated: all.duplicated,
        reordered: all.reordered,
        marked: all.marked,
        seconds: all.end - all.start,
        goodput_kbps: goodput(all) / 1e3,
        clock: outcome.clock,
        one_way: Latency::of(one_way),
        round_trip: Latency::of(&outcome.round_trips.all),
        intervals: outcome.intervals.iter().map(interval).collect::<Result<_, Failure>>()?,
    })
}

fn text(outcome: &Outcome, one_way: &Histogram<u64>, lost: u64) -> String {
    let all = &outcome.all;
    let mut text = format!(
        "\n{}: {} sent, {} received, {lost} lost ({} %), {} duplicated, {} reordered, {} marked\n{} over {:.2} s\n\n",
        outcome.transport.name(),
        outcome.sent,
        all.received,
        percent(lost, outcome.sent),
        all.duplicated,
        all.reordered,
        all.marked,
        bit_rate(goodput(all)),
        all.end - all.start,
    );
    let columns = ["latency, ms", ">messages", ">min", ">mean", ">sd", ">p50", ">p90", ">p99", ">p99.9", ">max"];
    let mut table = Table::new(columns);
    for (name, histogram) in [("one-way", one_way), ("round trip", &outcome.round_trips.all)] {
        let Some(figures) = Latency::of(histogram) else { continue };
        let Latency { min_ms, mean_ms, sd_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = figures;
        let figures_ms = [min_ms, mean_ms, sd_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms];
        let head = [name.to_owned(), figures.count.to_string()];
        table.row(head.into_iter().chain(figures_ms.map(|value| format!("{value:.3}"))));
    }
    if !table.is_empty() {
        text += &table.to_string();
    }
    text += match outcome.clock {
        Clock::SameMachine => "one-way by the machine's one clock\n",
        Clock::Wall => "one-way by the clocks of two machines: no better than their synchronisation\n",
    };
    text
}

/// Bits of payload per second.
pub(super) fn goodput(counted: &Counted) -> f64 {
    let seconds = counted.end - counted.start;
    if seconds > 0.0 { counted.bytes as f64 * 8.0 / seconds } else { 0.0 }
}

/// The latencies in it.
pub(super) fn decode(counted: &Counted) -> Result<Histogram<u64>, Failure> {
    hlog::decode(&counted.latencies).map_err(|error| Failure::failed("the server's figures cannot be read", error))
}

fn write_files(args: &ClientArgs, outcome: &Outcome, one_way: &Histogram<u64>) -> Result<(), Failure> {
    if let Some(prefix) = &args.hgrm {
        for (name, histogram) in [("one-way", one_way), ("round-trip", &outcome.round_trips.all)] {
            let mut path = prefix.clone().into_os_string();
            path.push(format!(".{name}.hgrm"));
            write(&PathBuf::from(path), |out| hgrm::write(out, histogram, hgrm::MILLISECONDS))?;
        }
    }
    let Some(path) = &args.hlog else { return Ok(()) };
    let mut intervals = outcome.intervals.iter().map(logged).collect::<Result<Vec<_>, Failure>>()?;
    intervals.extend(outcome.round_trips.intervals.iter().cloned());
    intervals.sort_by_key(|interval| interval.start);
    let comment = format!("Logged by sinew perf {}, {}", env!("CARGO_PKG_VERSION"), outcome.transport.name());
    write(path, |out| {
        hlog::write_tagged(out, &comment, WallTime::from_nanos(outcome.begin), &intervals, hgrm::MILLISECONDS)
    })
}

fn write(path: &Path, put: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), Failure> {
    let written = || {
        let mut out = BufWriter::new(File::create(path)?);
        put(&mut out)?;
        out.flush()
    };
    written().map_err(|error| Failure::failed(format!("cannot write {}", path.display()), error))
}
