//! The picture, as lines of text with styles; it knows no terminal.

use super::model::{Link, View, Worker};
use crate::telemetry::Table;
use crate::telemetry::stages::Stage;
use crate::telemetry::table::{ago, bit_rate, thousands};
use hdrhistogram::Histogram;
use std::cmp::Ordering;

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// As it comes.
    Plain,
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// What is well.
    Good,
    /// What is not.
    Bad,
    /// What keys act on.
    Selected,
}

/// A line: pieces of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line(pub(super) Vec<(String, Style)>);

impl Line {
    fn new(text: impl Into<String>, style: Style) -> Line {
        Line(vec![(text.into(), style)])
    }

    /// Something that is wrong.
    pub(super) fn alert(text: String) -> Line {
        Line::new(text, Style::Bad)
    }

    /// Its text.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(text, _)| text.as_str()).collect()
    }

    /// The same, no longer than `columns`.
    fn cut(mut self, columns: usize) -> Line {
        let mut left = columns;
        for (text, _) in &mut self.0 {
            *text = text.chars().take(left).collect();
            left -= text.chars().count();
        }
        self
    }
}

/// By what links are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    RoundTrip,
    Loss,
    In,
    Out,
    Queue,
}

impl Sort {
    const ALL: [Sort; 6] = [Sort::Name, Sort::RoundTrip, Sort::Loss, Sort::In, Sort::Out, Sort::Queue];

    pub(super) fn next(self) -> Sort {
        self.moved(1)
    }

    pub(super) fn previous(self) -> Sort {
        self.moved(Sort::ALL.len() - 1)
    }

    fn moved(self, by: usize) -> Sort {
        Sort::ALL[(self as usize + by) % Sort::ALL.len()]
    }

    const fn name(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::RoundTrip => "round trip",
            Sort::Loss => "loss",
            Sort::In => "in",
            Sort::Out => "out",
            Sort::Queue => "queue",
        }
    }

    /// Names ascend, and what is most of everything else comes first.
    fn compare(self, a: &Link, b: &Link) -> Ordering {
        let by = |of: fn(&Link) -> f64| of(b).total_cmp(&of(a));
        let order = match self {
            Sort::Name => Ordering::Equal,
            Sort::RoundTrip => by(|link| link.rtt_ms),
            Sort::Loss => by(|link| link.loss_percent),
            Sort::In => by(|link| link.in_bit_per_s),
            Sort::Out => by(|link| link.out_bit_per_s),
            Sort::Queue => by(|link| link.queue as f64),
        };
        order.then_with(|| a.peer.cmp(&b.peer))
    }
}

/// What keys have chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    /// The link whose stages are shown, by its place among the sorted.
    pub(super) selected: usize,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    /// Whether the lanes of links are shown.
    pub(super) lanes: bool,
}

/// The picture. `size`: columns and lines of the terminal; without it every link is the selected one, and nothing is cut.
pub(super) fn lines(view: &View, settings: &Settings, size: Option<(usize, usize)>) -> Vec<Line> {
    let mut links: Vec<&Link> = view.links.iter().collect();
    links.sort_by(|a, b| if settings.reversed { settings.sort.compare(b, a) } else { settings.sort.compare(a, b) });
    let selected = settings.selected.min(links.len().saturating_sub(1));
    let mut lines = vec![title(view, settings, size.is_some()), Line::default()];
    lines.extend(workers(&view.workers));
    lines.push(Line::default());
    let room = size.map(|(_, lines)| lines);
    lines.extend(link_lines(&links, settings.lanes, size.map(|_| selected), room));
    let shown = if size.is_some() { links.get(selected..=selected).unwrap_or_default() } else { &links[..] };
    for link in shown {
        lines.push(Line::default());
        lines.extend(stages(view, Some(&link.peer), &format!("link to {}", link.peer)));
    }
    lines.push(Line::default());
    lines.extend(stages(view, None, "workers"));
    match size {
        Some((columns, most)) => lines.into_iter().take(most).map(|line| line.cut(columns)).collect(),
        None => lines,
    }
}

fn title(view: &View, settings: &Settings, keys: bool) -> Line {
    let every = view.seconds.map_or("since its start".to_owned(), |seconds| format!("last {seconds:.1} s"));
    let order = if settings.reversed { ", reversed" } else { "" };
    let mut title = vec![
        (format!("sinew {}", view.router), Style::Bold),
        (format!("  {every}  by {}{order}  {}  {}", settings.sort.name(), view.version, view.io), Style::Plain),
    ];
    if keys {
        title.insert(1, ("  q quit ↑↓ link ←→ sort r l space".to_owned(), Style::Dim));
    }
    Line(title)
}

/// A table's heading in bold, its rows as `style` says of each.
fn table(table: &Table, style: impl Fn(usize) -> Style) -> Vec<Line> {
    let text = table.to_string();
    let (heading, rows) = text.split_once('\n').unwrap_or((&text, ""));
    let rows = rows.lines().enumerate().map(|(row, line)| Line::new(line, style(row)));
    std::iter::once(Line::new(heading, Style::Bold)).chain(rows).collect()
}

fn whole(rate: f64) -> String {
    thousands(rate.round() as u64)
}

fn workers(workers: &[Worker]) -> Vec<Line> {
    let columns = [
        "worker",
        ">busy %",
        "",
        ">in/s",
        ">out/s",
        ">forwarded/s",
        ">dropped/s",
        ">calls/s",
        ">turns/s",
        ">waits/s",
        ">pool",
    ];
    let mut rows = Table::new(columns);
    for it in workers {
        let busy = it.busy_percent;
        rows.row([
            it.worker.to_string(),
            format!("{busy:.1}"),
            bar(busy / 100.0, 10),
            whole(it.datagrams_in_per_s),
            whole(it.datagrams_out_per_s),
            whole(it.forwarded_per_s),
            whole(it.dropped_per_s),
            whole(it.calls_per_s),
            whole(it.turns_per_s),
            whole(it.waits_per_s),
            format!("{}/{}", it.pool_used, it.pool_slots),
        ]);
    }
    table(&rows, |row| if workers[row].dropped_per_s > 0.0 { Style::Bad } else { Style::Plain })
}

/// `room`: lines of the whole screen; half of them are the links', and the selected one is always among those.
fn link_lines(links: &[&Link], lanes: bool, selected: Option<usize>, room: Option<usize>) -> Vec<Line> {
    let columns = [
        "link to",
        "lane",
        "state",
        ">for",
        ">rtt ms",
        ">one-way ms",
        ">loss %",
        ">in",
        ">out",
        ">msg in/s",
        ">msg out/s",
        ">again/s",
        ">drop/s",
        ">queue",
        ">in flight/window",
    ];
    let mut rows = Table::new(columns);
    let mut styles = Vec::new();
    let window = room.map_or(links.len(), |lines| (lines / 2).saturating_sub(6).max(3));
    let first = selected.unwrap_or(0).saturating_sub(window.saturating_sub(1));
    for (place, link) in links.iter().enumerate().skip(first).take(window) {
        rows.row(cells(link));
        styles.push(match (selected == Some(place), link.up) {
            (true, _) => Style::Selected,
            (false, true) => Style::Good,
            (false, false) => Style::Bad,
        });
        for lane in link.lanes.iter().filter(|_| lanes) {
            rows.row(cells(lane));
            styles.push(Style::Dim);
        }
    }
    table(&rows, |row| styles[row])
}

fn cells(link: &Link) -> Vec<String> {
    let measured = |text: String| if link.up { text } else { "-".to_owned() };
    let one_way = link.one_way_ms.zip(link.one_way_error_ms);
    vec![
        link.peer.clone(),
        link.lane.map_or_else(|| "all".to_owned(), |lane| lane.to_string()),
        if link.up { "up" } else { "down" }.to_owned(),
        ago(link.since_s),
        measured(format!("{:.2}", link.rtt_ms)),
        measured(one_way.map_or("-".to_owned(), |(way, error)| format!("{way:.2}±{error:.2}"))),
        measured(format!("{:.2}", link.loss_percent)),
        bit_rate(link.in_bit_per_s),
        bit_rate(link.out_bit_per_s),
        whole(link.messages_in_per_s),
        whole(link.messages_out_per_s),
        whole(link.repeated_per_s),
        whole(link.dropped_per_s),
        thousands(link.queue),
        format!("{}/{} kB", link.in_flight.div_ceil(1_000), link.window.div_ceil(1_000)),
    ]
}

/// Steps of a decade on the axis of durations, and decades on it: 1 µs to 10 s.
const STEPS: usize = 6;
const DECADES: usize = 7;

/// The stages of a link, or of the workers themselves, each as a distribution over a logarithmic axis.
fn stages(view: &View, peer: Option<&str>, of: &str) -> Vec<Line> {
    let axis: String =
        ["1µs", "10µs", "100µs", "1ms", "10ms", "100ms", "1s"].iter().map(|mark| format!("{mark:<STEPS$}")).collect();
    let head = format!("{of:<24} {:>9} {:>9} {:>9} {:>9}  {axis}10s", "count", "p50 ms", "p99 ms", "max ms");
    let mut lines = vec![Line::new(head, Style::Bold)];
    for (stage, histogram) in view.latencies.of(peer) {
        lines.push(stage_line(stage, histogram));
    }
    if lines.len() == 1 {
        lines.push(Line::new("nothing was measured", Style::Dim));
    }
    lines
}

fn stage_line(stage: &Stage, histogram: &Histogram<u64>) -> Line {
    let name = stage.class.map_or_else(|| stage.name.to_owned(), |class| format!("{} {class}", stage.name));
    let ms = |nanos: u64| format!("{:.3}", nanos as f64 / 1e6);
    let [p50, p99] = [0.5, 0.99].map(|quantile| ms(histogram.value_at_quantile(quantile)));
    let count = thousands(histogram.len());
    let figures = format!("{name:<24} {count:>9} {p50:>9} {p99:>9} {:>9}  ", ms(histogram.max()));
    Line(vec![(figures, Style::Plain), (distribution(histogram), Style::Good)])
}

/// How many durations fell into each step of the axis, as heights of bars. What happened at all is seen.
fn distribution(histogram: &Histogram<u64>) -> String {
    let mut counts = [0; STEPS * DECADES];
    for value in histogram.iter_recorded() {
        let micros = (value.value_iterated_to() as f64 / 1e3).max(1.0);
        let step = (micros.log10() * STEPS as f64) as usize;
        counts[step.min(STEPS * DECADES - 1)] += value.count_at_value();
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let height = |count: u64| match count {
        0 => ' ',
        count => EIGHTHS[((count as f64 / most as f64 * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    counts.into_iter().map(height).collect()
}

const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A share of `width` characters.
fn bar(share: f64, width: usize) -> String {
    let full = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "·".repeat(width - full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::show::latency::Latencies;
    use crate::telemetry::{Histogram as Recorder, hlog};
    use serde_json::json;
    use std::time::Duration;

    fn link(peer: &str, rtt_ms: f64, up: bool) -> Link {
        let lane = |lane| Link { peer: peer.to_owned(), lane: Some(lane), up, rtt_ms, ..Link::default() };
        let (one_way_ms, one_way_error_ms) = (Some(rtt_ms / 2.0), Some(rtt_ms / 2.0));
        let (in_bit_per_s, queue, window, in_flight) = (8e6, 3, 64_000, 12_500);
        Link {
            since_s: 75.0,
            one_way_ms,
            one_way_error_ms,
            in_bit_per_s,
            queue,
            window,
            in_flight,
            lane: None,
            lanes: vec![lane(0), lane(1)],
            ..lane(0)
        }
    }

    fn view() -> View {
        let mut waits = Recorder::new();
        waits.record_several(Duration::from_micros(12), 1_000);
        waits.record_several(Duration::from_millis(5), 10);
        waits.record_several(Duration::from_secs(50), 1);
        let entry =
            |name: &str, peer: Option<&str>| json!({"name": name, "peer": peer, "hdr": hlog::encode(waits.inner())});
        let worker = json!({"histograms": [entry("turn", None), entry("residence_reliable", Some("far")), entry("one_way", Some("near"))]});
        View {
            router: "here".to_owned(),
            version: "1.2.3".to_owned(),
            io: "mmsg".to_owned(),
            seconds: Some(1.0),
            workers: vec![Worker {
                worker: 0,
                busy_percent: 31.0,
                turns_per_s: 9_000.0,
                waits_per_s: 10.0,
                calls_per_s: 20.0,
                datagrams_in_per_s: 123_456.4,
                datagrams_out_per_s: 1.0,
                forwarded_per_s: 2.0,
                dropped_per_s: 0.0,
                pool_used: 5,
                pool_slots: 8_192,
            }],
            links: vec![link("near", 1.0, true), link("far", 90.0, true), link("gone", 0.0, false)],
            latencies: Latencies::new(&[worker]).expect("is read"),
        }
    }

    fn shown(settings: &Settings, size: Option<(usize, usize)>) -> Vec<String> {
        lines(&view(), settings, size).iter().map(|line| line.text().trim_end().to_owned()).collect()
    }

    #[test]
    fn a_picture_of_everything() {
        let picture = shown(&Settings::default(), None);
        let expected = "\
sinew here  last 1.0 s  by name  1.2.3  mmsg

worker  busy %                 in/s  out/s  forwarded/s  dropped/s  calls/s  turns/s  waits/s    pool
0         31.0  ███·······  123 456      1            2          0       20    9 000       10  5/8192

link to  lane  state     for  rtt ms   one-way ms  loss %           in      out  msg in/s  msg out/s  again/s  drop/s  queue  in flight/window
far      all   up     1m 15s   90.00  45.00±45.00    0.00  8.00 Mbit/s  0 bit/s         0          0        0       0      3          13/64 kB
gone     all   down   1m 15s       -            -       -  8.00 Mbit/s  0 bit/s         0          0        0       0      3          13/64 kB
near     all   up     1m 15s    1.00    0.50±0.50    0.00  8.00 Mbit/s  0 bit/s         0          0        0       0      3          13/64 kB

link to far                  count    p50 ms    p99 ms    max ms  1µs   10µs  100µs 1ms   10ms  100ms 1s    10s
residence reliable           1 011     0.012     5.014 50197.430        █               ▁                  ▁

link to gone                 count    p50 ms    p99 ms    max ms  1µs   10µs  100µs 1ms   10ms  100ms 1s    10s
nothing was measured

link to near                 count    p50 ms    p99 ms    max ms  1µs   10µs  100µs 1ms   10ms  100ms 1s    10s
one-way                      1 011     0.012     5.014 50197.430        █               ▁                  ▁

workers                      count    p50 ms    p99 ms    max ms  1µs   10µs  100µs 1ms   10ms  100ms 1s    10s
turn                         1 011     0.012     5.014 50197.430        █               ▁                  ▁";
        assert_eq!(picture.join("\n"), expected);
    }

    #[test]
    fn a_screen_is_never_exceeded_and_always_shows_the_selected_link() {
        let mut settings = Settings { lanes: true, sort: Sort::RoundTrip, ..Settings::default() };
        for (columns, rows) in [(80, 24), (40, 10), (1, 1), (200, 60), (0, 0)] {
            let picture = lines(&view(), &settings, Some((columns, rows)));
            assert!(picture.len() <= rows && picture.iter().all(|line| line.text().chars().count() <= columns));
        }
        for (selected, peer) in [(0, "far"), (1, "near"), (2, "gone"), (9, "gone")] {
            settings.selected = selected;
            let picture = lines(&view(), &settings, Some((120, 40)));
            let chosen = picture.iter().flat_map(|line| &line.0).find(|(_, style)| *style == Style::Selected);
            assert!(chosen.is_some_and(|(text, _)| text.starts_with(peer)), "{selected}: {picture:?}");
            assert!(picture.iter().any(|line| line.text().starts_with(&format!("link to {peer} "))));
        }
        assert_eq!(
            shown(&settings, Some((120, 40))).iter().filter(|line| line.starts_with("near")).count(),
            3,
            "lanes"
        );
    }

    #[test]
    fn sorting_goes_round_and_can_be_turned_round() {
        let order = |sort, reversed| {
            let picture = shown(&Settings { sort, reversed, ..Settings::default() }, None);
            let rows = picture.iter().filter(|line| line.contains(" all "));
            rows.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(order(Sort::RoundTrip, false), ["far", "near", "gone"]);
        assert_eq!(order(Sort::RoundTrip, true), ["gone", "near", "far"]);
        assert_eq!(order(Sort::Name, true), ["near", "gone", "far"]);
        assert!(Sort::ALL.iter().all(|sort| sort.next().previous() == *sort));
    }
}
