//! The findings as text for a terminal.

use super::outcome::{Outcome, Run};
use std::fmt::Write as _;

/// Writes to a string, which cannot fail.
macro_rules! put {
    ($($arguments:tt)*) => { let _ = writeln!($($arguments)*); };
}

/// Everything a terminal should show.
pub fn render(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (place, cell) in outcome.cells.iter().enumerate() {
        put!(
            text,
            "\npath of {} x {} ms, {} % lost each way on the middle link, {} kbit/s   (latency in ms)",
            cell.hops,
            trim(cell.link_delay_ms),
            trim(cell.loss_percent),
            cell.rate_kbps
        );
        put!(
            text,
            "{:<13}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>9}{:>8}{:>9}{:>6}{:>6}{:>8}{:>10}",
            "transport",
            "mean",
            "sd",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            ">60 ms",
            ">100 ms",
            "lost",
            "dup",
            "reorder",
            "messages"
        );
        let of_cell = |run: &&Run| run.cell == place;
        outcome.raw.iter().chain(&outcome.runs).filter(of_cell).for_each(|run| row(&mut text, run));
        for missing in &outcome.not_measured {
            put!(text, "{:<13} not measured: {}", missing.transport, missing.why);
        }
        let overlay = &cell.overlay;
        if overlay.datagrams > 0 {
            put!(
                text,
                "overlay: {} datagrams between routers; {} messages sent again on a link: {:.2} % of all, {:.2} % of those \
                 on the worst link",
                overlay.datagrams,
                overlay.retransmissions,
                overlay.retransmission_percent,
                overlay.worst_link_percent
            );
        }
    }
    bulk(&mut text, outcome);
    noise(&mut text, outcome);
    if let Some(missing) = outcome.not_measured.first() {
        put!(text, "for the full mode: {}", missing.enable);
    }
    text
}

fn row(text: &mut String, run: &Run) {
    put!(
        text,
        "{:<13}{:>8.1}{:>8.1}{:>8.1}{:>8.1}{:>8.1}{:>8.1}{:>9.1}{:>7.2}%{:>8.2}%{:>6}{:>6}{:>8}{:>10}{}",
        run.transport,
        run.mean_ms,
        run.sd_ms,
        run.p50_ms,
        run.p90_ms,
        run.p99_ms,
        run.p999_ms,
        run.max_ms,
        run.over_60ms_percent,
        run.over_100ms_percent,
        run.lost,
        run.duplicated,
        run.reordered,
        run.sent,
        if run.collapsed { "  collapsed: not all arrived within 25 s" } else { "" }
    );
}

fn bulk(text: &mut String, outcome: &Outcome) {
    if outcome.bulk.is_empty() {
        return;
    }
    put!(
        text,
        "\n{:<13}{:<14}{:>9}{:>8}{:>9}{:>15}{:>8}{:>11}{:>15}",
        "bulk",
        "beside",
        "delay",
        "loss",
        "seconds",
        "goodput",
        "share",
        "overhead",
        "of TCP alone"
    );
    for bulk in &outcome.bulk {
        put!(
            text,
            "{:<13}{:<14}{:>6} ms{:>6} %{:>9}{:>8.0} kbit/s{:>7.1}%{:>10.2}%{:>15}",
            bulk.transport,
            bulk.beside.as_deref().unwrap_or("–"),
            trim(bulk.link_delay_ms),
            trim(bulk.loss_percent),
            trim(bulk.seconds),
            bulk.goodput_kbps,
            bulk.share_percent,
            bulk.overhead_percent,
            bulk.of_tcp_percent.map_or_else(|| "–".to_owned(), |share| format!("{share:.1}%"))
        );
    }
}

fn noise(text: &mut String, outcome: &Outcome) {
    let noise = &outcome.noise;
    if noise.cores == 0 {
        // Nothing was measured on a machine.
        put!(text, "\nmode {}: the time is virtual, this machine has no part in the figures", outcome.mode);
        return;
    }
    put!(
        text,
        "\nnoise floor of this machine ({} cores, load {:.1}, {:.1} % stolen), while measuring:",
        noise.cores,
        noise.load_average,
        noise.steal_percent
    );
    put!(
        text,
        "  a 1 ms sleep is late by   p50 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3} ms; {} stalls of 5 ms or more{}",
        noise.timer_p50_us / 1e3,
        noise.timer_p99_us / 1e3,
        noise.timer_p999_us / 1e3,
        noise.timer_max_us / 1e3,
        noise.stalls,
        if noise.stalls > 0 { format!(", longest {:.1} ms", noise.longest_stall_ms) } else { String::new() }
    );
    put!(
        text,
        "  a frame leaves late by    p50 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3} ms; a sender is late by p99 {:.3} ms",
        noise.emulator_p50_us / 1e3,
        noise.emulator_p99_us / 1e3,
        noise.emulator_p999_us / 1e3,
        noise.emulator_max_us / 1e3,
        noise.sender_p99_us / 1e3
    );
    put!(text, "  mode {}: figures finer than these lines mean nothing", outcome.mode);
}

/// A number without needless digits.
pub(super) fn trim(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_trimmed() {
        assert_eq!([trim(10.0), trim(0.6), trim(16.666), trim(0.0)], ["10", "0.6", "16.67", "0"]);
    }
}
