//! Line charts as SVG text, drawn by hand: axes that suit latencies, colours that follow the page's theme.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 42.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 72.0;

/// Writes to a string, which cannot fail.
macro_rules! put {
    ($($arguments:tt)*) => { let _ = write!($($arguments)*); };
}

/// How an axis maps values to places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Evenly, from and to.
    Linear(f64, f64),
    /// Every factor of ten the same, from and to.
    Log(f64, f64),
    /// Quantiles, every further nine the same: from 0 to this many nines.
    Nines(f64),
}

impl Scale {
    /// A linear axis from zero that ends at a round number above `most`.
    pub(super) fn from_zero(most: f64) -> Scale {
        let step = step(most);
        Scale::Linear(0.0, ((most / step).ceil() * step).max(step))
    }

    /// A logarithmic axis around these values.
    pub(super) fn around(least: f64, most: f64) -> Scale {
        let least = least.max(1e-3);
        Scale::Log(10f64.powf(least.log10().floor()), 10f64.powf((most.max(least * 1.01)).log10().ceil()))
    }

    /// Where a value is, 0 to 1.
    fn place(self, value: f64) -> f64 {
        let share = match self {
            Scale::Linear(from, to) => (value - from) / (to - from),
            Scale::Log(from, to) => (value.max(from) / from).ln() / (to / from).ln(),
            Scale::Nines(nines) => nines_of(value) / nines,
        };
        share.clamp(0.0, 1.0)
    }

    /// Values worth a line, with their labels.
    fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Scale::Linear(from, to) => {
                let step = step(to - from);
                let count = ((to - from) / step).round() as usize;
                (0..=count).map(|i| from + step * i as f64).map(|value| (value, label(value))).collect()
            }
            Scale::Log(from, to) => {
                let decades = (to / from).log10().round().max(1.0) as i32;
                let factors: &[f64] = if decades <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let at = |decade: i32| factors.iter().map(move |factor| from * 10f64.powi(decade) * factor);
                let values = (0..=decades).flat_map(at).filter(|&value| value <= to * 1.001);
                values.map(|value| (value, label(value))).collect()
            }
            Scale::Nines(nines) => {
                let quantiles =
                    [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
                let shown = quantiles.iter().filter(|(quantile, _)| nines_of(*quantile) <= nines + 1e-9);
                shown.map(|&(quantile, text)| (quantile, format!("{text} %"))).collect()
            }
        }
    }
}

fn nines_of(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-9).log10()
}

/// A round step that cuts `range` into four to ten.
fn step(range: f64) -> f64 {
    let rough = (range / 6.0).max(1e-6);
    let decade = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * decade).find(|&step| step >= rough).unwrap_or(decade)
}

fn label(value: f64) -> String {
    if value.is_infinite() {
        return "collapsed".into();
    }
    if value >= 1000.0 {
        let thousands = format!("{:.1}", value / 1000.0);
        return format!("{}k", thousands.trim_end_matches('0').trim_end_matches('.'));
    }
    super::table::trim(value)
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A line.
    Line,
    /// A line with a dot at each point.
    Dotted,
    /// A thin dashed line with hollow dots: someone else's figures.
    Published,
    /// A thin dashed line: a formula.
    Model,
}

/// One series.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// Its name in the legend.
    pub(super) name: String,
    /// Its colour: a class of the page.
    pub(super) class: String,
    /// Its points.
    pub(super) points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub(super) style: Style,
}

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// What it shows.
    pub(super) title: String,
    /// The horizontal axis and what it measures.
    pub(super) x: (Scale, String),
    /// The vertical axis and what it measures.
    pub(super) y: (Scale, String),
    /// What is drawn.
    pub(super) series: Vec<Series>,
    /// What to know when reading it: where it comes from and what not to believe. HTML.
    pub(super) note: String,
}

impl Chart {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = LEFT + self.x.0.place(x) * (WIDTH - LEFT - RIGHT);
        (across, HEIGHT - BOTTOM - self.y.0.place(y) * (HEIGHT - TOP - BOTTOM))
    }

    /// The chart as a figure of an HTML page.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        put!(out, "<figure><figcaption>{}</figcaption>", escape(&self.title));
        put!(out, "<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{}'>", escape(&self.title));
        self.axes(&mut out);
        self.series.iter().for_each(|series| self.draw(&mut out, series));
        self.series.iter().enumerate().for_each(|(place, series)| self.name_what_left(&mut out, place, series));
        put!(out, "</svg><div class='legend'>");
        for series in &self.series {
            let dash = if matches!(series.style, Style::Published | Style::Model) { " dashed" } else { "" };
            put!(out, "<span class='{}'><i class='key{dash}'></i>{}</span>", series.class, escape(&series.name));
        }
        put!(out, "</div>");
        if !self.note.is_empty() {
            put!(out, "<p class='note'>{}</p>", self.note);
        }
        out.push_str("</figure>\n");
        out
    }

    fn axes(&self, out: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, text) in self.y.0.ticks() {
            let (_, y) = self.at((f64::NEG_INFINITY, value));
            put!(out, "<line class='grid' x1='{LEFT}' x2='{right}' y1='{y:.1}' y2='{y:.1}'/>");
            put!(out, "<text class='tick' x='{}' y='{:.1}' text-anchor='end'>{text}</text>", LEFT - 9.0, y + 5.0);
        }
        for (value, text) in self.x.0.ticks() {
            let (x, _) = self.at((value, f64::NEG_INFINITY));
            put!(out, "<line class='grid' x1='{x:.1}' x2='{x:.1}' y1='{TOP}' y2='{bottom}'/>");
            put!(out, "<text class='tick' x='{x:.1}' y='{}' text-anchor='middle'>{text}</text>", bottom + 24.0);
        }
        let middle = (LEFT + right) / 2.0;
        put!(
            out,
            "<text class='axis' x='{middle}' y='{}' text-anchor='middle'>{}</text>",
            HEIGHT - 14.0,
            escape(&self.x.1)
        );
        let centre = (TOP + bottom) / 2.0;
        put!(
            out,
            "<text class='axis' x='20' y='{centre}' text-anchor='middle' transform='rotate(-90 20 {centre})'>{}</text>",
            escape(&self.y.1)
        );
    }

    fn draw(&self, out: &mut String, series: &Series) {
        let places: Vec<(f64, f64)> = series.points.iter().map(|&point| self.at(point)).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = if matches!(series.style, Style::Published | Style::Model) { " thin" } else { "" };
        put!(out, "<g class='{}'><polyline class='line{dash}' points='{}'/>", series.class, path.join(" "));
        if matches!(series.style, Style::Dotted | Style::Published) {
            let hollow = if series.style == Style::Published { " hollow" } else { "" };
            for ((x, y), (value_x, value_y)) in places.iter().zip(&series.points) {
                if self.has_left(*value_y) {
                    let (left, right, base) = (x - 6.0, x + 6.0, y + 10.0);
                    put!(out, "<path class='off' d='M{x:.1},{y:.1} L{right:.1},{base:.1} L{left:.1},{base:.1} Z'>");
                    let name = escape(&series.name);
                    put!(out, "<title>{name}: {} at {}</title></path>", label(*value_y), label(*value_x));
                    continue;
                }
                put!(
                    out,
                    "<circle class='dot{hollow}' cx='{x:.1}' cy='{y:.1}' r='3.5'><title>{}: {} at {}</title></circle>",
                    escape(&series.name),
                    label(*value_y),
                    label(*value_x)
                );
            }
        }
        out.push_str("</g>");
    }
}

impl Chart {
    /// Whether a value is above what the chart shows.
    fn has_left(&self, y: f64) -> bool {
        matches!(self.y.0, Scale::Linear(_, to) | Scale::Log(_, to) if y > to)
    }

    /// Says of a series what its points are that have left the chart: their values, or that there is none.
    fn name_what_left(&self, out: &mut String, place: usize, series: &Series) {
        if !matches!(series.style, Style::Dotted | Style::Published) {
            return;
        }
        let mut none_before = false;
        for &(x, y) in series.points.iter().filter(|(_, y)| self.has_left(*y)) {
            let none = y.is_infinite();
            let text = if none { format!("{}: {}", series.name, label(y)) } else { label(y) };
            // A row of points without a value is named once.
            if !(none && none_before) {
                let (across, top) = self.at((x, y));
                let anchor = if across > WIDTH * 0.6 { "end" } else { "start" };
                // A line for each series' values and one below for where it has none: side by side they would overlap.
                let down = top + 26.0 + 18.0 * (2 * place + usize::from(none)) as f64;
                let (class, text) = (&series.class, escape(&text));
                put!(
                    out,
                    "<g class='{class}'><text class='left' x='{across:.1}' y='{down:.1}' text-anchor='{anchor}'>{text}</text></g>"
                );
            }
            none_before = none;
        }
    }
}

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks() {
        let labels = |scale: Scale| scale.ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(labels(Scale::from_zero(93.0)), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(Scale::around(48.0, 900.0)), ["10", "20", "50", "100", "200", "500", "1k"]);
        assert_eq!(labels(Scale::Nines(3.0)), ["0 %", "50 %", "90 %", "99 %", "99.9 %"]);
        assert!((Scale::Nines(4.0).place(0.99) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_has_left_the_chart_is_marked_and_named() {
        let points = vec![(0.0, 5.0), (0.5, 1200.0), (0.9, f64::INFINITY), (1.0, f64::INFINITY)];
        let series = Series { name: "tcp".into(), class: "c0".into(), points, style: Style::Dotted };
        let chart = Chart {
            title: "t".into(),
            x: (Scale::Linear(0.0, 1.0), "x".into()),
            y: (Scale::Linear(0.0, 10.0), "y".into()),
            series: vec![series],
            note: String::new(),
        };
        let text = chart.render();
        assert_eq!((text.matches("<circle").count(), text.matches("<path class='off'").count()), (1, 3), "{text}");
        let names = text.matches("<text class='left'").count();
        assert!(names == 2 && text.contains(">1.2k</text>") && text.contains(">tcp: collapsed</text>"), "{text}");
    }

    #[test]
    fn values_off_the_chart_stay_at_its_edge() {
        let series =
            Series { name: "a<b".into(), class: "c0".into(), points: vec![(0.0, 1e9), (2.0, 5.0)], style: Style::Line };
        let chart = Chart {
            title: "t".into(),
            x: (Scale::Linear(0.0, 1.0), "x".into()),
            y: (Scale::Linear(0.0, 10.0), "y".into()),
            series: vec![series],
            note: "<b>note</b>".into(),
        };
        let text = chart.render();
        assert!(text.contains(&format!("points='{LEFT:.1},{TOP:.1} {:.1},", WIDTH - RIGHT)), "{text}");
        assert!(text.contains("<p class='note'><b>note</b></p>"), "{text}");
        assert!(text.contains("a&lt;b") && !text.contains("a<b"));
    }
}
