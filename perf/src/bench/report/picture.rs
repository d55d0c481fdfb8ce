//! The report as a picture: bars for loads, spans of percentiles for latencies.

use super::{DelayRow, LoadRow, Report};
use std::fmt::Write as _;

/// Where things stand, in pixels: names, then the plot, then figures.
const WIDTH: f64 = 860.0;
const PLOT: f64 = 260.0;
const PLOT_WIDTH: f64 = 450.0;
const ROW: f64 = 24.0;
const HEAD: f64 = 46.0;
const FOOT: f64 = 34.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#222}.small{font-size:11px;fill:#666}\
                     .title{font-weight:600}.bar{fill:#3b7dd8}.base{fill:#b9c0c8}.span{fill:#9cc0ef}\
                     .line{stroke:#222;stroke-width:1.5}.grid{stroke:#e3e6ea}";

impl Report {
    /// An SVG of all rows, with the noise of the machine below.
    pub(crate) fn picture(&self) -> String {
        let mut picture = Picture { body: String::new(), y: 0.0 };
        if !self.load.is_empty() {
            picture.loads(&self.load);
        }
        if !self.latency.is_empty() {
            picture.delays(&self.latency);
        }
        let (machine, noise, settings) = (&self.machine, &self.noise, &self.settings);
        picture.small(&format!(
            "{}, Linux {}; {} rounds of {} s; noise: a busy thread lost {:.1} % of its core, a 1 ms sleep is late by p99 {:.0} µs",
            machine.processor,
            machine.kernel,
            settings.rounds,
            settings.seconds,
            noise.stolen_percent,
            noise.timer_p99_us
        ));
        picture.finish()
    }
}

struct Picture {
    body: String,
    /// How far down the next thing stands.
    y: f64,
}

impl Picture {
    fn loads(&mut self, rows: &[LoadRow]) {
        self.title(
            "messages per core-second, times those of the row it is set beside (grey); line: worst to best round",
        );
        let most = rows.iter().map(|row| row.best).fold(1.0, f64::max);
        let at = |value: f64| PLOT + PLOT_WIDTH * value / most;
        for row in rows {
            let is_base = row.cell == row.compared_with;
            let middle = row.median.messages_to_beside;
            self.name(row.cell);
            self.bar(if is_base { "base" } else { "bar" }, PLOT, at(middle));
            if !is_base {
                self.whisker(at(row.worst), at(row.best));
            }
            self.figure(&format!("{middle:.2}   {:.0} ns", row.median.cpu_ns_per_message));
        }
        self.y += FOOT;
    }

    fn delays(&mut self, rows: &[DelayRow]) {
        self.title("latency, µs, logarithmic: median (dark) to 99th percentile; line: to the 99.9th");
        let least = rows.iter().map(|row| row.median.p50_us).fold(f64::INFINITY, f64::min).max(0.1);
        let most = rows.iter().map(|row| row.median.p999_us).fold(10.0 * least, f64::max);
        let at = |value: f64| PLOT + PLOT_WIDTH * (value.max(least) / least).ln() / (most / least).ln();
        for row in rows {
            let shown = &row.median;
            self.name(row.cell);
            self.bar("span", at(shown.p50_us), at(shown.p99_us));
            self.bar("bar", at(shown.p50_us) - 2.0, at(shown.p50_us) + 2.0);
            self.whisker(at(shown.p99_us), at(shown.p999_us));
            self.figure(&format!("{:.1} / {:.1} µs", shown.p50_us, shown.p99_us));
        }
        self.y += FOOT;
    }

    fn title(&mut self, text: &str) {
        self.text(12.0, self.y + 24.0, "title", text);
        self.y += HEAD;
    }

    /// Begins a row.
    fn name(&mut self, text: &str) {
        self.y += ROW;
        self.put(&format!("<line class='grid' x1='12' x2='{}' y1='{y}' y2='{y}'/>", WIDTH - 12.0, y = self.y));
        self.text(12.0, self.y - 7.0, "", text);
    }

    fn bar(&mut self, class: &str, from: f64, to: f64) {
        let (y, width) = (self.y - 19.0, (to - from).max(1.0));
        self.put(&format!("<rect class='{class}' x='{from:.1}' y='{y:.1}' width='{width:.1}' height='14' rx='2'/>"));
    }

    fn whisker(&mut self, from: f64, to: f64) {
        let y = self.y - 12.0;
        self.put(&format!("<line class='line' x1='{from:.1}' x2='{to:.1}' y1='{y:.1}' y2='{y:.1}'/>"));
    }

    fn figure(&mut self, text: &str) {
        self.text(PLOT + PLOT_WIDTH + 12.0, self.y - 7.0, "", text);
    }

    fn small(&mut self, text: &str) {
        self.text(12.0, self.y, "small", text);
        self.y += 16.0;
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.put(&format!("<text class='{class}' x='{x:.1}' y='{y:.1}'>{text}</text>"));
    }

    fn put(&mut self, element: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    fn finish(self) -> String {
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {y}' width='{WIDTH}' height='{y}'>\n\
             <style>{STYLE}</style>\n<rect width='100%' height='100%' fill='#fff'/>\n{}</svg>\n",
            self.body,
            y = self.y
        )
    }
}
