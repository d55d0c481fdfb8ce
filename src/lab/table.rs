//! The findings as text for a terminal.

use super::outcome::{Outcome, OverlayTraffic, Run, Sweep};
use crate::telemetry::table::thousands;
use std::fmt::Write as _;

/// Directions of links whose recovery is shown.
const MAX_TROUBLED: usize = 4;

/// Writes to a string, which cannot fail.
macro_rules! put {
    ($($arguments:tt)*) => { let _ = writeln!($($arguments)*); };
}

/// Everything a terminal of 80 columns should show.
pub fn render(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (place, cell) in outcome.cells.iter().enumerate() {
        let runs: Vec<&Run> = outcome.raw.iter().chain(&outcome.runs).filter(|run| run.cell == place).collect();
        let loss = if cell.sweep == Sweep::Own { "on the way" } else { "each way on the middle one" };
        if let (Sweep::Own, Some(run)) = (cell.sweep, runs.first()) {
            put!(text, "\nfrom {} to {}", run.from, run.to);
        }
        put!(
            text,
            "\n{} of {} ms, {} % lost {loss}, {} kbit/s each",
            counted(cell.hops, "link"),
            trim(cell.link_delay_ms),
            trim(cell.loss_percent),
            cell.rate_kbps
        );
        latencies(&mut text, &runs);
        deliveries(&mut text, &runs);
        not_measured(&mut text, outcome);
        recovery(&mut text, &cell.overlay);
    }
    bulk(&mut text, outcome);
    if outcome.cells.is_empty() {
        not_measured(&mut text, outcome);
    }
    noise(&mut text, outcome);
    if let Some(missing) = outcome.not_measured.first() {
        put!(text, "for the full mode: {}", missing.enable);
    }
    text
}

fn not_measured(text: &mut String, outcome: &Outcome) {
    for missing in &outcome.not_measured {
        put!(text, "{:<12} not measured: {}", missing.transport, missing.why);
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn latencies(text: &mut String, runs: &[&Run]) {
    let heads = ["mean", "sd", "p50", "p90", "p99", "p99.9", "max"];
    let cells = |values: [String; 7]| values.map(|value| format!("{value:>7}")).concat();
    put!(text, "\n{:<12}{}{:>9}{:>10}", "latency, ms", cells(heads.map(str::to_owned)), "> 60 ms", "> 100 ms");
    for run in runs.iter().filter(|run| run.received > 0) {
        let figures = [run.mean_ms, run.sd_ms, run.p50_ms, run.p90_ms, run.p99_ms, run.p999_ms, run.max_ms].map(ms);
        put!(
            text,
            "{:<12}{}{:>7.2} %{:>8.2} %",
            run.transport,
            cells(figures),
            run.over_60ms_percent,
            run.over_100ms_percent
        );
    }
}

/// Milliseconds in at most six characters.
fn ms(value: f64) -> String {
    if value < 1000.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn deliveries(text: &mut String, runs: &[&Run]) {
    let head = ["sent", "received", "lost", "duplicated", "reordered"];
    let cells = |values: [String; 5]| values.map(|value| format!("{value:>12}")).concat();
    put!(text, "\n{:<12}{}", "messages", cells(head.map(str::to_owned)));
    for run in runs {
        let counts = [run.sent, run.received, run.lost, run.duplicated, run.reordered].map(thousands);
        let collapsed = if run.collapsed { "\n  collapsed: not all had arrived after 25 s" } else { "" };
        put!(text, "{:<12}{}{collapsed}", run.transport, cells(counts));
    }
}

/// What recovery cost: messages sent again beside the losses that came about, on each direction that lost anything.
fn recovery(text: &mut String, overlay: &OverlayTraffic) {
    if overlay.datagrams == 0 {
        return;
    }
    put!(text, "\noverlay: {} datagrams between routers; sent again on some link:", thousands(overlay.datagrams));
    put!(
        text,
        "{} of {} recovered messages ({:.2} %), {} of them needlessly",
        thousands(overlay.retransmissions),
        thousands(overlay.links.iter().map(|link| link.recovered).sum()),
        overlay.retransmission_percent,
        thousands(overlay.needless_retransmissions)
    );
    let mut troubled: Vec<_> =
        overlay.links.iter().filter(|link| link.datagrams_lost + link.retransmissions > 0).collect();
    troubled.sort_by_key(|link| std::cmp::Reverse(link.datagrams_lost + link.retransmissions));
    if !troubled.is_empty() {
        put!(text, "{:<12}{:>10}{:>8}{:>20}{:>12}", "on the link", "datagrams", "lost", "messages", "sent again");
    }
    for link in troubled.iter().take(MAX_TROUBLED) {
        put!(
            text,
            "{:<12}{:>10}{:>8}{:>8.2} %{:>10}{:>12}{:>8.2} %",
            format!("{} → {}", link.from, link.to),
            thousands(link.datagrams),
            thousands(link.datagrams_lost),
            link.loss_percent,
            thousands(link.recovered),
            thousands(link.retransmissions),
            link.repeated_percent
        );
    }
    if troubled.len() > MAX_TROUBLED {
        put!(text, "  and {} more in result.json", counted(troubled.len() - MAX_TROUBLED, "direction"));
    }
}

fn bulk(text: &mut String, outcome: &Outcome) {
    if outcome.bulk.is_empty() {
        return;
    }
    put!(
        text,
        "\n{:<11}{:<11}{:>7}{:>7}{:>5}{:>9}{:>8}{:>10}{:>12}",
        "bulk",
        "beside",
        "delay",
        "loss",
        "s",
        "kbit/s",
        "share",
        "headers",
        "of TCP"
    );
    for bulk in &outcome.bulk {
        put!(
            text,
            "{:<11}{:<11}{:>4} ms{:>5} %{:>5}{:>9}{:>6.1} %{:>8.2} %{:>12}",
            bulk.transport,
            bulk.beside.as_deref().unwrap_or("–"),
            trim(bulk.link_delay_ms),
            trim(bulk.loss_percent),
            format!("{:.0}", bulk.seconds),
            thousands(bulk.goodput_kbps.round() as u64),
            bulk.share_percent,
            bulk.overhead_percent,
            bulk.of_tcp_percent.map_or_else(|| "–".to_owned(), |share| format!("{share:.1} %"))
        );
    }
    put!(text, "kbit/s: of the messages' own bytes. headers: what else was on the link, repeats");
    put!(text, "too, as a share of its bytes. of TCP: as a share of what TCP got alone; what is");
    put!(text, "missing there to 100 % on a clean link is the paper's overhead (a link 3.5 %,");
    put!(text, "with a session to 5.7 %).");
}

fn noise(text: &mut String, outcome: &Outcome) {
    let noise = &outcome.noise;
    if outcome.unread_frames > 0 {
        put!(text, "\nWARNING: the kernel dropped {} frames before", thousands(outcome.unread_frames));
        put!(text, "the emulator read them: not only the links lost what was lost above");
    }
    if noise.cores == 0 {
        // Nothing was measured on a machine.
        put!(text, "\nmode {}: the time is virtual, this machine has no part in the figures", outcome.mode);
        return;
    }
    let cells = |values: [String; 4]| values.map(|value| format!("{value:>10}")).concat();
    let us = |values: [f64; 4]| cells(values.map(|us| format!("{:.3}", us / 1e3)));
    put!(text, "\n{:<27}{}", "noise floor, ms", cells(["p50", "p99", "p99.9", "max"].map(str::to_owned)));
    let timer = [noise.timer_p50_us, noise.timer_p99_us, noise.timer_p999_us, noise.timer_max_us];
    put!(text, "{:<27}{}", "a 1 ms sleep is late by", us(timer));
    let emulator = [noise.emulator_p50_us, noise.emulator_p99_us, noise.emulator_p999_us, noise.emulator_max_us];
    put!(text, "{:<27}{}", "a frame leaves late by", us(emulator));
    put!(text, "{:<37}{:>10.3}", "a sender is late by", noise.sender_p99_us / 1e3);
    put!(
        text,
        "{}, load {:.1}, {:.1} % stolen, {} of 5 ms or more{}",
        counted(noise.cores, "core"),
        noise.load_average,
        noise.steal_percent,
        counted(noise.stalls as usize, "stall"),
        if noise.stalls > 0 { format!(" (longest {:.1} ms)", noise.longest_stall_ms) } else { String::new() }
    );
    put!(text, "mode {}; differences finer than this mean nothing", outcome.mode);
}

/// A number without needless digits.
pub(super) fn trim(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::args::Experiment;
    use crate::lab::ladder::Mode;
    use crate::lab::noise::Noise;
    use crate::lab::outcome::{Bulk, Cell, OverlayLink};

    #[test]
    fn what_is_shown_fits_a_terminal_and_sets_repeats_beside_losses() {
        let link = OverlayLink {
            from: "c".into(),
            to: "d".into(),
            recovered: 2_000_000,
            retransmissions: 21_000,
            repeated_percent: 1.05,
            datagrams: 3_000_000,
            datagrams_lost: 30_000,
            loss_percent: 1.0,
            ..OverlayLink::default()
        };
        let quiet = OverlayLink { from: "d".into(), to: "e".into(), ..OverlayLink::default() };
        let (datagrams, retransmissions) = (12_345_678, 21_000);
        let links = vec![link, quiet];
        let overlay = OverlayTraffic { datagrams, retransmissions, links, ..OverlayTraffic::default() };
        let noise = Noise { cores: 64, stalls: 1234, longest_stall_ms: 123.4, ..Noise::default() };
        let mut outcome = Outcome::new(Experiment::Default, Mode::User, 1, false);
        outcome.noise = noise;
        let (loss_percent, rate_kbps, hops, link_delay_ms) = (1.25, 100_000, 10, 16.67);
        let links = Vec::new();
        outcome.cells.push(Cell {
            sweep: Sweep::Single,
            loss_percent,
            rate_kbps,
            hops,
            link_delay_ms,
            noise,
            links,
            overlay,
        });
        let slow = 25_000.0;
        outcome.runs.push(Run {
            transport: "best-effort".into(),
            sent: 10_000_000,
            received: 9_000_000,
            lost: 1_000_000,
            mean_ms: slow,
            sd_ms: slow,
            max_ms: slow,
            over_60ms_percent: 100.0,
            over_100ms_percent: 100.0,
            ..Run::default()
        });
        outcome.unread_frames = 1_234_567;
        outcome.bulk.push(Bulk {
            transport: "best-effort".into(),
            beside: Some("tcp-cubic".into()),
            loss_percent: 1.25,
            link_delay_ms: 5000.0,
            link_kbps: 10_000,
            queue_bytes: 62_500,
            seconds: 60.0,
            received_bytes: 0,
            goodput_kbps: 12_345.0,
            share_percent: 100.0,
            wire_bytes: 0,
            overhead_percent: 12.34,
            of_tcp_percent: Some(101.2),
            below_tcp_percent: Some(-1.2),
            seconds_kbps: vec![],
        });
        let text = render(&outcome);
        assert!(text.contains("WARNING: the kernel dropped") && text.contains("the paper's overhead"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
        let row = text.lines().find(|line| line.starts_with("c → d")).expect("the lossy direction is shown");
        assert!(row.contains("1.00 %") && row.contains("1.05 %"), "{row}");
        assert!(!text.contains("d → e"), "nothing happened there:\n{text}");
    }

    #[test]
    fn numbers_are_trimmed() {
        assert_eq!([trim(10.0), trim(0.6), trim(16.666), trim(0.0)], ["10", "0.6", "16.67", "0"]);
    }
}
