//! The table, the JSON and the picture: the same figures three times.

mod picture;

use super::args::Common;
use super::figures::{median, per};
use super::latency::Delay;
use super::load::Shown;
use super::machine::NoiseReport;
use serde::Serialize;
use std::fmt::Write as _;

/// A row: every round of it.
pub(crate) struct Cell<T> {
    pub(crate) name: &'static str,
    /// The row it is compared with.
    pub(crate) beside: &'static str,
    pub(crate) rounds: Vec<T>,
}

impl<T> Cell<T> {
    pub(crate) fn new(name: &'static str, beside: &'static str) -> Cell<T> {
        Cell { name, beside, rounds: Vec::new() }
    }
}

#[derive(Serialize)]
struct Machine {
    kernel: String,
    processor: String,
    forwarder_core: Option<usize>,
    neighbours_core: Option<usize>,
}

#[derive(Serialize)]
struct Settings {
    seconds: f64,
    rounds: u32,
    window: u32,
    io: String,
    offload: String,
    congestion: String,
}

#[derive(Serialize)]
struct LoadRow {
    cell: &'static str,
    compared_with: &'static str,
    median: Shown,
    /// Messages per core-second over those of the row it is compared with, each round by itself.
    best: f64,
    worst: f64,
    rounds: Vec<Shown>,
}

/// What a row adds to the one it is compared with, µs, and how many times its median is.
#[derive(Clone, Copy, Serialize)]
struct Added {
    p50_us: f64,
    p99_us: f64,
    p50_times: f64,
}

#[derive(Serialize)]
struct DelayRow {
    cell: &'static str,
    compared_with: &'static str,
    median: Delay,
    added: Added,
    rounds: Vec<Delay>,
    added_rounds: Vec<Added>,
}

/// Everything measured.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    settings: Settings,
    noise: NoiseReport,
    load: Vec<LoadRow>,
    latency: Vec<DelayRow>,
}

impl Report {
    pub(crate) fn new(
        args: &Common,
        cores: Option<(usize, usize)>,
        io: String,
        noise: NoiseReport,
        mut loads: Vec<Cell<Shown>>,
        delays: Vec<Cell<Delay>>,
    ) -> Report {
        compare(&mut loads);
        let machine = Machine {
            kernel: first_line("/proc/sys/kernel/osrelease", |_| true),
            processor: first_line("/proc/cpuinfo", |line| line.starts_with("model name"))
                .split_once(": ")
                .map_or_else(String::new, |(_, name)| name.to_owned()),
            forwarder_core: cores.map(|(first, _)| first),
            neighbours_core: cores.map(|(_, second)| second),
        };
        let settings = Settings {
            seconds: args.seconds,
            rounds: args.rounds,
            window: args.window,
            io,
            offload: args.offload.clone(),
            congestion: args.congestion.text.clone(),
        };
        let load = loads.iter().map(|cell| LoadRow {
            cell: cell.name,
            compared_with: cell.beside,
            median: middle(&cell.rounds),
            best: cell.rounds.iter().map(|shown| shown.messages_to_beside).fold(0.0, f64::max),
            worst: cell.rounds.iter().map(|shown| shown.messages_to_beside).fold(f64::INFINITY, f64::min),
            rounds: cell.rounds.clone(),
        });
        let latency = delays.iter().map(|cell| delay_row(cell, &delays));
        Report { machine, settings, noise, load: load.collect(), latency: latency.collect() }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and names")
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (settings, noise) = (&self.settings, &self.noise);
        writeln!(out, "{}, Linux {}", self.machine.processor, self.machine.kernel)?;
        writeln!(
            out,
            "router io: {}; congestion {}; medians of {} rounds of {} s, cells interleaved",
            settings.io, settings.congestion, settings.rounds, settings.seconds
        )?;
        writeln!(
            out,
            "noise: a 1 ms sleep is late by p50 {:.0} µs, p99 {:.0} µs, at most {:.0} µs; a busy thread loses {:.1} % \
             of its core, at most {:.0} µs at once; load average {:.1}",
            noise.timer_p50_us,
            noise.timer_p99_us,
            noise.timer_max_us,
            noise.stolen_percent,
            noise.longest_pause_us,
            noise.load_average
        )?;
        if !self.load.is_empty() {
            self.write_loads(out)?;
        }
        if !self.latency.is_empty() {
            self.write_delays(out)?;
        }
        Ok(())
    }

    fn write_loads(&self, out: &mut String) -> std::fmt::Result {
        let heads = [["msg/s", ""], ["Mbit/s", ""], ["dgram/s", "out"], ["msg/", "dg in"], ["msg/", "dg out"]];
        let more = [["core", "%"], ["ns/", "msg"], ["/beside", ""], ["best", ""], ["worst", ""], ["lost", "ppm"]];
        for line in 0..2 {
            write!(out, "{}{:<30}", if line == 0 { "\n" } else { "" }, if line == 0 { "load" } else { "" })?;
            for (head, width) in heads.iter().chain(&more).zip(WIDTHS) {
                write!(out, " {:>width$}", head[line])?;
            }
            writeln!(out)?;
        }
        for row in &self.load {
            let shown = &row.median;
            let mark = if shown.saturated { "" } else { "~" };
            let cells = [
                format!("{:.0}", shown.messages_per_s),
                format!("{:.0}", shown.mbit_per_s),
                format!("{:.0}", shown.datagrams_out_per_s),
                format!("{:.1}", shown.messages_per_datagram_in),
                format!("{:.1}", shown.messages_per_datagram_out),
                format!("{mark}{:.0}", shown.utilisation * 100.0),
                format!("{:.0}", shown.cpu_ns_per_message),
                format!("{:.2}", shown.messages_to_beside),
                format!("{:.2}", row.best),
                format!("{:.2}", row.worst),
                format!("{:.0}", per(shown.lost as f64 * 1e6, shown.sent as f64)),
            ];
            write!(out, "{:<30}", row.cell)?;
            for (cell, width) in cells.iter().zip(WIDTHS) {
                write!(out, " {cell:>width$}")?;
            }
            writeln!(out)?;
        }
        for row in self.load.iter().filter(|row| row.cell != row.compared_with) {
            writeln!(out, "  {} is beside {}", row.cell, row.compared_with)?;
        }
        self.write_shares(out)?;
        writeln!(out, "~ the forwarder's core was not full: with more to do it would do more in its time")
    }

    fn write_shares(&self, out: &mut String) -> std::fmt::Result {
        for row in &self.load {
            let shown = &row.median;
            if let (Some(kernel), Some(cipher), Some(rest)) = (shown.kernel_ns, shown.cipher_ns, shown.rest_ns) {
                writeln!(
                    out,
                    "  {}: of {:.0} ns {kernel:.0} in the kernel, {cipher:.0} in ciphers, {rest:.0} in the rest (perf)",
                    row.cell, shown.cpu_ns_per_message
                )?;
            }
        }
        Ok(())
    }

    fn write_delays(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\n{:<30} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>9} {:>6} {:>6}",
            "latency, µs", "p50", "p99", "p99.9", "max", "added p50", "added p99", "samples", "lost", "late"
        )?;
        for row in &self.latency {
            let (shown, added) = (&row.median, &row.added);
            let compared = row.cell != row.compared_with && !row.added_rounds.is_empty();
            let plus = |value: f64| if compared { format!("{value:+.1}") } else { String::new() };
            writeln!(
                out,
                "{:<30} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>10} {:>10} {:>9} {:>6} {:>6}",
                row.cell,
                shown.p50_us,
                shown.p99_us,
                shown.p999_us,
                shown.max_us,
                plus(added.p50_us),
                plus(added.p99_us),
                shown.samples,
                shown.lost,
                shown.late
            )?;
        }
        for row in self.latency.iter().filter(|row| row.cell != row.compared_with && !row.added_rounds.is_empty()) {
            let times = || row.added_rounds.iter().map(|added| added.p50_times);
            let (least, most) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
            let (cell, beside, middle) = (row.cell, row.compared_with, row.added.p50_times);
            writeln!(out, "  {cell} is beside {beside}: p50 {middle:.2} times ({least:.2} to {most:.2})")?;
        }
        writeln!(out, "added, times: over the row it is beside; medians over the rounds of each round's figure")
    }
}

/// Widths of the columns of loads.
const WIDTHS: [usize; 11] = [9, 7, 8, 6, 6, 5, 6, 7, 6, 6, 6];

/// Sets each row beside the one it is compared with, round by round.
fn compare(loads: &mut [Cell<Shown>]) {
    for index in 0..loads.len() {
        let Some(bare) = loads.iter().position(|cell| cell.name == loads[index].beside) else { continue };
        for round in 0..loads[index].rounds.len() {
            let beside = loads[bare].rounds[round];
            let shown = &mut loads[index].rounds[round];
            shown.messages_to_beside = per(shown.messages_per_core_s, beside.messages_per_core_s);
            shown.datagrams_to_beside = per(shown.datagrams_per_core_s, beside.datagrams_per_core_s);
        }
    }
}

fn middle(rounds: &[Shown]) -> Shown {
    let of = |figure: fn(&Shown) -> f64| median(rounds.iter().map(figure));
    Shown {
        messages_per_s: of(|shown| shown.messages_per_s),
        mbit_per_s: of(|shown| shown.mbit_per_s),
        datagrams_in_per_s: of(|shown| shown.datagrams_in_per_s),
        datagrams_out_per_s: of(|shown| shown.datagrams_out_per_s),
        datagrams_back_per_s: of(|shown| shown.datagrams_back_per_s),
        messages_per_datagram_in: of(|shown| shown.messages_per_datagram_in),
        messages_per_datagram_out: of(|shown| shown.messages_per_datagram_out),
        utilisation: of(|shown| shown.utilisation),
        starved: of(|shown| shown.starved),
        cpu_ns_per_message: of(|shown| shown.cpu_ns_per_message),
        cpu_ns_per_datagram: of(|shown| shown.cpu_ns_per_datagram),
        messages_per_core_s: of(|shown| shown.messages_per_core_s),
        datagrams_per_core_s: of(|shown| shown.datagrams_per_core_s),
        saturated: of(|shown| f64::from(u8::from(shown.saturated))) >= 0.5,
        lost: of(|shown| shown.lost as f64) as u64,
        sent: of(|shown| shown.sent as f64) as u64,
        retransmissions: of(|shown| shown.retransmissions as f64) as u64,
        drops: of(|shown| shown.drops as f64) as u64,
        messages_to_beside: of(|shown| shown.messages_to_beside),
        datagrams_to_beside: of(|shown| shown.datagrams_to_beside),
        kernel_ns: asked(rounds, |shown| shown.kernel_ns),
        cipher_ns: asked(rounds, |shown| shown.cipher_ns),
        rest_ns: asked(rounds, |shown| shown.rest_ns),
    }
}

/// The middle of what was asked for in some rounds.
fn asked(rounds: &[Shown], figure: fn(&Shown) -> Option<f64>) -> Option<f64> {
    let known: Vec<f64> = rounds.iter().filter_map(figure).collect();
    (!known.is_empty()).then(|| median(known.into_iter()))
}

fn delay_row(cell: &Cell<Delay>, all: &[Cell<Delay>]) -> DelayRow {
    let of = |figure: fn(&Delay) -> f64| median(cell.rounds.iter().map(figure));
    let direct = all.iter().find(|other| other.name == cell.beside).map_or(&[][..], |other| &other.rounds);
    let added: Vec<Added> = cell
        .rounds
        .iter()
        .zip(direct)
        .map(|(shown, direct)| Added {
            p50_us: shown.p50_us - direct.p50_us,
            p99_us: shown.p99_us - direct.p99_us,
            p50_times: per(shown.p50_us, direct.p50_us),
        })
        .collect();
    DelayRow {
        cell: cell.name,
        compared_with: cell.beside,
        median: Delay {
            p50_us: of(|shown| shown.p50_us),
            p99_us: of(|shown| shown.p99_us),
            p999_us: of(|shown| shown.p999_us),
            max_us: of(|shown| shown.max_us),
            samples: of(|shown| shown.samples as f64) as u64,
            lost: of(|shown| shown.lost as f64) as u64,
            late: of(|shown| shown.late as f64) as u64,
        },
        added: Added {
            p50_us: median(added.iter().map(|added| added.p50_us)),
            p99_us: median(added.iter().map(|added| added.p99_us)),
            p50_times: median(added.iter().map(|added| added.p50_times)),
        },
        rounds: cell.rounds.clone(),
        added_rounds: added,
    }
}

fn first_line(path: &str, wanted: impl Fn(&str) -> bool) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().find(|line| wanted(line)).unwrap_or_default().to_owned()
}
