//! `report.html`: the findings as one page that needs nothing else: no script, no font, no network.

use super::noise::Noise;
use super::outcome::{Bulk, Cell, Outcome, Run, Sweep};
use super::paper;
use super::svg::{Chart, Scale, Series, Style, escape};
use super::table::trim;
use crate::telemetry::table::thousands;
use std::fmt::Write as _;

/// Cells whose latency distribution is drawn; a sweep has too many to draw all.
const MAX_DISTRIBUTIONS: usize = 4;

/// Between groups of digits in running text: a space that breaks no line.
const NARROW: &str = "\u{202f}";

/// Writes to a string, which cannot fail.
macro_rules! put {
    ($($arguments:tt)*) => { let _ = write!($($arguments)*); };
}

/// The page.
pub(super) fn render(outcome: &Outcome) -> String {
    let mut page = String::new();
    put!(page, "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Sinew lab</title>");
    put!(page, "<meta name='viewport' content='width=device-width, initial-scale=1'>");
    put!(page, "<style>{}</style></head><body>", include_str!("report.css"));
    head(&mut page, outcome);
    charts(&mut page, &sweeps(outcome));
    let shown = distributions(outcome);
    for &place in &shown {
        if outcome.cells.len() > 1 {
            put!(page, "<h2>{}</h2>", escape(&describe(&outcome.cells[place])));
        }
        charts(&mut page, &latency_charts(outcome, place));
    }
    runs_table(&mut page, outcome);
    bulk_table(&mut page, &outcome.bulk);
    noise_table(&mut page, &outcome.noise);
    if let Some(cell) = outcome.cells.last().filter(|cell| !cell.links.is_empty()) {
        links_table(&mut page, cell);
    }
    put!(
        page,
        "<h2>To repeat it</h2><p><code>{}</code> with seed {}, Sinew {}, mode {}. Everything counted is in \
                <code>result.json</code>; the distributions are in the <code>.hgrm</code> and <code>.hlog</code> files.</p>",
        escape(&outcome.command),
        outcome.seed,
        outcome.sinew,
        outcome.mode
    );
    page.push_str("</body></html>\n");
    page
}

fn describe(cell: &Cell) -> String {
    format!(
        "{} link{} of {} ms, {} % lost {}, {} kbit/s",
        cell.hops,
        if cell.hops == 1 { "" } else { "s" },
        trim(cell.link_delay_ms),
        trim(cell.loss_percent),
        if cell.sweep == Sweep::Own { "on the way" } else { "each way on the middle one" },
        cell.rate_kbps
    )
}

fn head(page: &mut String, outcome: &Outcome) {
    put!(page, "<h1>Messages across a lossy path</h1>");
    if let [cell] = outcome.cells.as_slice() {
        put!(
            page,
            "<p>{}. Every transport crossed the same emulated links{}. Latency counts from the moment a message \
                    was meant to be sent, time in senders' buffers included.</p>",
            escape(&describe(cell)),
            if outcome.sequential { ", in turns" } else { ", at the same time" }
        );
    } else if outcome.mode == "simulated" {
        put!(
            page,
            "<p>A chain of simulated routers over virtual 10 Mbit/s links; the time is virtual, there is no kernel and \
                    no TCP. Dashed with hollow dots: what was published in 2003.</p>"
        );
    } else {
        put!(
            page,
            "<p>A chain of real routers over emulated 10 Mbit/s links on this machine's kernel, beside the \
                    kernel's own TCP over the same links. Dashed with hollow dots: what was published in 2003.</p>"
        );
    }
    if outcome.cells.len() == 1 {
        put!(page, "<div class='heroes'>");
        for run in &outcome.runs {
            put!(
                page,
                "<div class='hero {}'><i>{}</i><b>{:.1} ms</b><span>99 % are faster; mean {:.1} ms; {} of {} \
                        lost</span></div>",
                class(&run.transport),
                run.transport,
                run.p99_ms,
                run.mean_ms,
                thousands(run.lost).replace(' ', NARROW),
                thousands(run.sent).replace(' ', NARROW)
            );
        }
        put!(page, "</div>");
    }
    if outcome.unread_frames > 0 {
        put!(
            page,
            "<p class='warning'>The kernel dropped {} frames before the emulator read them: what was lost here, not \
                    only the links lost. Repeat it on a machine with less to do.</p>",
            thousands(outcome.unread_frames)
        );
    }
    for missing in &outcome.not_measured {
        put!(
            page,
            "<p>{} was not measured: {}. To measure it: <code>{}</code></p>",
            missing.transport,
            escape(&missing.why),
            escape(&missing.enable)
        );
    }
}

/// The colour class of a transport.
fn class(transport: &str) -> &str {
    match transport {
        "reliable" | "best-effort" | "raw-udp" | "tcp-cubic" => transport,
        _ => "tcp-other",
    }
}

fn charts(page: &mut String, charts: &[Chart]) {
    if !charts.is_empty() {
        put!(page, "<div class='charts'>");
        charts.iter().for_each(|chart| page.push_str(&chart.render()));
        put!(page, "</div>");
    }
}

/// The cells whose distributions are shown: all of a few; of a sweep those the paper shows, at 1 % loss.
fn distributions(outcome: &Outcome) -> Vec<usize> {
    let all: Vec<usize> = (0..outcome.cells.len()).collect();
    if all.len() <= MAX_DISTRIBUTIONS {
        return all;
    }
    let five = |place: &usize| outcome.cells[*place].hops == 5;
    let published = |place: &usize| five(place) && (outcome.cells[*place].loss_percent - 1.0).abs() < 1e-9;
    let swept = |place: &usize| outcome.cells[*place].sweep == Sweep::Loss;
    let mut shown: Vec<usize> = all.iter().copied().filter(|place| swept(place) && published(place)).collect();
    if shown.is_empty() {
        shown = all.into_iter().filter(five).collect();
    }
    shown.truncate(MAX_DISTRIBUTIONS);
    shown
}

/// Draws sorted latencies, ms.
type Curve = fn(&[f64]) -> Vec<(f64, f64)>;

fn latency_charts(outcome: &Outcome, cell: usize) -> Vec<Chart> {
    let runs: Vec<&Run> =
        outcome.raw.iter().chain(&outcome.runs).filter(|run| run.cell == cell && run.received > 0).collect();
    let sorted = |run: &Run| {
        let mut ms: Vec<f64> = run.samples.iter().map(|sample| sample.latency_ns as f64 / 1e6).collect();
        ms.sort_unstable_by(f64::total_cmp);
        ms
    };
    let latencies: Vec<Vec<f64>> = runs.iter().map(|run| sorted(run)).collect();
    let most = latencies.iter().filter_map(|ms| ms.last()).copied().fold(0.0, f64::max);
    let least = latencies.iter().filter_map(|ms| ms.first()).copied().fold(f64::MAX, f64::min);
    let count = latencies.iter().map(Vec::len).max().unwrap_or(1) as f64;
    let series = |points: Curve| -> Vec<Series> {
        let one = |(run, ms): (&&Run, &Vec<f64>)| Series {
            name: run.transport.clone(),
            class: class(&run.transport).to_owned(),
            points: points(ms),
            style: Style::Line,
        };
        runs.iter().zip(&latencies).map(one).collect()
    };
    let scale = if most > 600.0 { Scale::around(least, most) } else { Scale::from_zero(most) };
    let own = outcome.cells.get(cell).map_or(0.0, |cell| cell.hops as f64 * cell.link_delay_ms);
    let mut percentiles = series(percentile_points);
    if own > 0.0 {
        let points = vec![(0.0, own), (1.0, own)];
        let name = format!("the path's own delay, {} ms", trim(own));
        percentiles.push(Series { name, class: "model".into(), points, style: Style::Model });
    }
    let note = note(outcome, cell);
    let tail = latencies.iter().map(|ms| quantile(ms, 0.99)).fold(0.0, f64::max).min(1000.0);
    vec![
        Chart {
            title: "Latency by percentile".into(),
            x: (Scale::Nines(count.log10().clamp(2.0, 5.0)), "share of messages that are faster (log scale)".into()),
            y: (scale, "one-way latency, ms".into()),
            series: percentiles,
            note: note.clone(),
        },
        Chart {
            title: "How many have arrived by when".into(),
            x: (Scale::from_zero(tail.max(most.min(100.0))), "one-way latency, ms".into()),
            y: (Scale::Linear(0.0, 100.0), "messages, %".into()),
            series: series(distribution_points),
            note,
        },
    ]
}

/// What made a chart of latencies, and how fine it can be.
fn note(outcome: &Outcome, cell: usize) -> String {
    let noise = outcome.cells.get(cell).map_or(&outcome.noise, |cell| &cell.noise);
    let command = format!("<code>{}</code>", escape(&outcome.command));
    if noise.cores == 0 {
        return format!("{command}: simulated, the time is virtual.");
    }
    let ms = |us: f64| format!("{:.2}", us / 1e3);
    format!(
        "{command}. Noise floor of this machine: a sleep ends late by p99 {}, p99.9 {} ms; a frame leaves late by p99 {}, \
         p99.9 {} ms.",
        ms(noise.timer_p99_us),
        ms(noise.timer_p999_us),
        ms(noise.emulator_p99_us),
        ms(noise.emulator_p999_us)
    )
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(((share * sorted.len() as f64) as usize).min(last)).copied().unwrap_or(0.0)
}

/// Evenly spaced in nines, so that the tail has as many points as the bulk.
fn percentile_points(sorted: &[f64]) -> Vec<(f64, f64)> {
    let nines = (sorted.len() as f64).log10();
    let at = |i: u32| 1.0 - 10f64.powf(-nines * f64::from(i) / 200.0);
    (0..=200).map(at).map(|share| (share, quantile(sorted, share))).collect()
}

fn distribution_points(sorted: &[f64]) -> Vec<(f64, f64)> {
    let point = |i: usize| (quantile(sorted, i as f64 / 250.0), i as f64 / 2.5);
    (0..=250).map(point).collect()
}

/// What the paper sweeps, where it was swept.
fn sweeps(outcome: &Outcome) -> Vec<Chart> {
    let mut charts = Vec::new();
    let of = |sweep: Sweep| -> Vec<&Run> {
        let part = |run: &&Run| outcome.cells.get(run.cell).is_some_and(|cell| cell.sweep == sweep);
        outcome.runs.iter().filter(part).collect()
    };
    let losses = of(Sweep::Loss);
    let mut rates: Vec<u64> = losses.iter().map(|run| run.rate_kbps).collect();
    rates.dedup();
    for &rate in &rates {
        let runs: Vec<&Run> = losses.iter().copied().filter(|run| run.rate_kbps == rate).collect();
        let title = format!("Mean delay against loss, {rate} kbit/s");
        charts.extend(against(&runs, paper::means(rate), &title, Axis::LOSS, |run| run.mean_ms));
        let title = format!("Jitter (standard deviation) against loss, {rate} kbit/s");
        // The paper shows it at one rate.
        if rate == rates[0] {
            charts.extend(against(&runs, paper::jitters(rate), &title, Axis::LOSS, |run| run.sd_ms));
        }
    }
    let runs = of(Sweep::Hops);
    if let Some(first) = runs.first() {
        let (loss, rate) = (first.loss_percent, first.rate_kbps);
        let title = format!("Mean delay against hops, 50 ms in all, {} % loss, {rate} kbit/s", trim(loss));
        let published: paper::Published = if (loss, rate) == (1.0, 500) { paper::HOPS } else { &[] };
        charts.extend(against(&runs, published, &title, Axis::HOPS, |run| run.mean_ms));
    }
    charts.extend(throughput_charts(outcome));
    charts
}

/// A horizontal axis of a sweep.
#[derive(Clone, Copy)]
struct Axis {
    name: &'static str,
    value: fn(&Run) -> f64,
}

impl Axis {
    const LOSS: Axis = Axis { name: "packets lost on the middle link, %", value: |run| run.loss_percent };
    const HOPS: Axis = Axis { name: "links", value: |run| run.hops as f64 };
}

/// One figure of every transport along an axis, with what was published; nothing if the axis has fewer than three
/// values. A run that collapsed has no figure: it is off the chart.
fn against(
    runs: &[&Run],
    published: paper::Published,
    title: &str,
    axis: Axis,
    figure: impl Fn(&Run) -> f64,
) -> Option<Chart> {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        if !names.contains(&run.transport.as_str()) {
            names.push(&run.transport);
        }
    }
    let mut series: Vec<Series> = Vec::new();
    for name in names {
        let shown = |run: &&&Run| ((axis.value)(run), if run.collapsed { f64::INFINITY } else { figure(run) });
        let mut points: Vec<(f64, f64)> =
            runs.iter().filter(|run| run.transport == name).map(|run| shown(&run)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        series.push(Series { name: name.into(), class: class(name).into(), points, style: Style::Dotted });
    }
    if series.iter().map(|series| series.points.len()).max().unwrap_or(0) < 3 {
        return None;
    }
    let theirs = |&(name, class, points): &(&str, &str, paper::Points)| Series {
        name: name.into(),
        class: class.into(),
        points: points.to_vec(),
        style: Style::Published,
    };
    series.extend(published.iter().map(theirs));
    let values = || series.iter().flat_map(|series| &series.points);
    let most_x = values().map(|point| point.0).fold(0.0, f64::max);
    let most_y = values().map(|point| point.1).filter(|value| value.is_finite()).fold(0.0, f64::max);
    // Beyond this TCP has left the chart, as in the paper.
    let most_y = most_y.min(500.0);
    let Scale::Linear(_, top) = Scale::from_zero(most_y) else { return None };
    let left = values().any(|point| point.1 > top);
    let note = "▲ is off the chart; collapsed: not all had arrived 25 s after the last was to be sent.";
    Some(Chart {
        title: title.into(),
        x: (Scale::from_zero(most_x), axis.name.into()),
        y: (Scale::from_zero(most_y), "ms".into()),
        note: if left { note.into() } else { String::new() },
        series,
    })
}

fn throughput_charts(outcome: &Outcome) -> Vec<Chart> {
    let mut charts = Vec::new();
    for delay in [10.0, 50.0] {
        let alone = |bulk: &&Bulk| bulk.beside.is_none() && bulk.link_delay_ms == delay;
        let bulks: Vec<&Bulk> = outcome.bulk.iter().filter(alone).collect();
        let mut series: Vec<Series> = Vec::new();
        for bulk in &bulks {
            let point = (bulk.loss_percent, bulk.goodput_kbps);
            match series.iter_mut().find(|series| series.name == bulk.transport) {
                Some(series) => series.points.push(point),
                None => series.push(Series {
                    name: bulk.transport.clone(),
                    class: class(&bulk.transport).into(),
                    points: vec![point],
                    style: Style::Dotted,
                }),
            }
        }
        if series.iter().all(|series| series.points.len() < 3) {
            continue;
        }
        let link = bulks.iter().map(|bulk| bulk.link_kbps).max().unwrap_or(0) as f64;
        let model = |step: u32| {
            let loss = f64::from(step) / 10.0;
            (loss, paper::padhye_kbps(1448.0, 2.0 * delay / 1e3, loss / 100.0).min(link))
        };
        let points = (0..=20).map(model).collect();
        series.push(Series { name: "TCP by the model".into(), class: "model".into(), points, style: Style::Model });
        charts.push(Chart {
            title: format!("Throughput against loss, one 10 Mbit/s link of {} ms", trim(delay)),
            x: (Scale::Linear(0.0, 2.0), "packets lost, %".into()),
            y: (Scale::from_zero(link), "goodput, kbit/s".into()),
            series,
            note: String::new(),
        });
    }
    charts
}

fn table(page: &mut String, title: &str, heads: &[&str], rows: &[(String, Vec<String>)]) {
    put!(page, "<h2>{title}</h2><div class='wide'><table><tr>");
    heads.iter().for_each(|head| put_cell(page, "th", head));
    put!(page, "</tr>");
    for (class, cells) in rows {
        put!(page, "<tr class='{class}'>");
        cells.iter().for_each(|cell| put_cell(page, "td", cell));
        put!(page, "</tr>");
    }
    put!(page, "</table></div>");
}

fn put_cell(page: &mut String, tag: &str, text: &str) {
    put!(page, "<{tag}>{}</{tag}>", escape(text));
}

fn runs_table(page: &mut String, outcome: &Outcome) {
    if outcome.runs.is_empty() && outcome.raw.is_empty() {
        return;
    }
    // What is the same for all is said at the head of the page.
    let place: &[&str] = if outcome.cells.len() > 1 { &["hops", "loss", "kbit/s"] } else { &[] };
    let figures = ["mean", "sd", "p50", "p90", "p99", "p99.9", "max", "> 60 ms", "> 100 ms"];
    let counts = ["sent", "lost", "duplicated", "reordered"];
    let heads: Vec<&str> = ["transport"].iter().chain(place).chain(&figures).chain(&counts).copied().collect();
    let ms = |value: f64| format!("{value:.1}");
    let row = |run: &Run| {
        let mut cells = vec![run.transport.clone()];
        if !place.is_empty() {
            cells.extend([run.hops.to_string(), format!("{} %", trim(run.loss_percent)), run.rate_kbps.to_string()]);
        }
        cells.extend([run.mean_ms, run.sd_ms, run.p50_ms, run.p90_ms, run.p99_ms, run.p999_ms, run.max_ms].map(ms));
        cells.extend([format!("{:.2} %", run.over_60ms_percent), format!("{:.2} %", run.over_100ms_percent)]);
        let lost = thousands(run.lost) + if run.collapsed { " (collapsed)" } else { "" };
        cells.extend([thousands(run.sent), lost, thousands(run.duplicated), thousands(run.reordered)]);
        (class(&run.transport).to_owned(), cells)
    };
    let rows: Vec<_> = outcome.raw.iter().chain(&outcome.runs).map(row).collect();
    table(page, "Latency, ms", &heads, &rows);
}

fn bulk_table(page: &mut String, bulks: &[Bulk]) {
    if bulks.is_empty() {
        return;
    }
    let heads = [
        "transport",
        "beside",
        "delay",
        "loss",
        "seconds",
        "goodput, kbit/s",
        "share",
        "headers and repeats",
        "of TCP alone",
        "below TCP",
    ];
    let share = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |share| format!("{share:.1} %"));
    let row = |bulk: &Bulk| {
        let cells = vec![
            bulk.transport.clone(),
            bulk.beside.clone().unwrap_or_else(|| "–".into()),
            format!("{} ms", trim(bulk.link_delay_ms)),
            format!("{} %", trim(bulk.loss_percent)),
            trim(bulk.seconds),
            format!("{:.0}", bulk.goodput_kbps),
            format!("{:.1} %", bulk.share_percent),
            format!("{:.2} %", bulk.overhead_percent),
            share(bulk.of_tcp_percent),
            share(bulk.below_tcp_percent),
        ];
        (class(&bulk.transport).to_owned(), cells)
    };
    table(page, "Bulk transfers", &heads, &bulks.iter().map(row).collect::<Vec<_>>());
    put!(
        page,
        "<p>Headers and repeats: the part of the link's bytes that was not the messages' own. What the paper calls \
                overhead is the last column on a clean link, throughput lost to what TCP gets alone: there 3.5 % for a \
                link, up to 5.7 % with a session over it.</p>"
    );
}

fn noise_table(page: &mut String, noise: &Noise) {
    if noise.cores == 0 {
        // The simulator's time is virtual: no machine has a part in its figures.
        return;
    }
    let ms = |us: f64| format!("{:.3}", us / 1e3);
    let row = |name: &str, values: [f64; 4]| {
        (String::new(), std::iter::once(name.to_owned()).chain(values.map(ms)).collect::<Vec<_>>())
    };
    let rows = [
        row(
            "a 1 ms sleep ends late by",
            [noise.timer_p50_us, noise.timer_p99_us, noise.timer_p999_us, noise.timer_max_us],
        ),
        row(
            "a frame leaves the emulator late by",
            [noise.emulator_p50_us, noise.emulator_p99_us, noise.emulator_p999_us, noise.emulator_max_us],
        ),
    ];
    table(page, "This machine's noise floor, ms", &["", "p50", "p99", "p99.9", "max"], &rows);
    put!(
        page,
        "<p>{} cores, load {:.1}, {:.1} % stolen by the hypervisor, {} stalls of 5 ms or more{}. Differences \
                finer than this mean nothing.</p>",
        noise.cores,
        noise.load_average,
        noise.steal_percent,
        noise.stalls,
        if noise.stalls > 0 { format!(" (longest {:.1} ms)", noise.longest_stall_ms) } else { String::new() }
    );
}

fn links_table(page: &mut String, cell: &Cell) {
    let mut kinds: Vec<&String> = cell.links.iter().flat_map(|link| link.bytes_by_transport.keys()).collect();
    kinds.sort();
    kinds.dedup();
    let mut heads = vec!["link", "frames", "lost", "queue full", "unread"];
    let columns: Vec<String> = kinds.iter().map(|kind| format!("{kind}, kB")).collect();
    heads.extend(columns.iter().map(String::as_str));
    let row = |link: &super::outcome::LinkTraffic| {
        let counters = &link.counters;
        let mut cells = vec![format!("{} → {}", link.from, link.to)];
        cells.extend([counters.frames, counters.lost, counters.queue_dropped, counters.unread].map(thousands));
        let kilobytes = |kind: &&String| link.bytes_by_transport.get(*kind).map_or(0, |bytes| (bytes + 500) / 1000);
        cells.extend(kinds.iter().map(|kind| thousands(kilobytes(kind))));
        (String::new(), cells)
    };
    table(page, "What each link carried", &heads, &cell.links.iter().map(row).collect::<Vec<_>>());
    recovery_table(page, cell);
}

/// What recovery cost on each direction that had something to recover.
fn recovery_table(page: &mut String, cell: &Cell) {
    let heads = ["link", "datagrams", "lost", "lost, %", "messages", "sent again", "sent again, %", "needlessly"];
    let row = |link: &super::outcome::OverlayLink| {
        let cells = vec![
            format!("{} → {}", link.from, link.to),
            thousands(link.datagrams),
            thousands(link.datagrams_lost),
            format!("{:.2}", link.loss_percent),
            thousands(link.recovered),
            thousands(link.retransmissions),
            format!("{:.2}", link.repeated_percent),
            thousands(link.needless_retransmissions),
        ];
        (String::new(), cells)
    };
    let troubled = cell.overlay.links.iter().filter(|link| link.datagrams_lost + link.retransmissions > 0);
    let rows: Vec<_> = troubled.map(row).collect();
    if !rows.is_empty() {
        table(page, "What the overlay lost there and sent again", &heads, &rows);
    }
}

#[cfg(test)]
mod tests;
