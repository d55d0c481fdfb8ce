//! A router's statistics in Prometheus' text format, version 0.0.4.
//!
//! | in the statistics | as a metric |
//! |---|---|
//! | a figure at `a.b` of a worker | `sinew_a_b_total`, or `sinew_a_b` if it comes and goes, with the label `worker` |
//! | the same of a link | `sinew_link_a_b…`, with the labels `link`, `lane` (its worker) and `peer` |
//! | messages and bytes of a class | `sinew_link_messages_sent_total` and the like, with the label `class` |
//! | a map of drops or of send errors | one metric with a label `reason` |
//! | a histogram | a histogram in seconds, named by its [stage](super::stages), with the label `class` where it has one |
//! | a figure of a link's path | `sinew_link_path_…`, with the label `path` too: its addresses |
//! | `…_us`, `…_ms`, `…_ppm` | `…_seconds`, `…_ratio` |
//! | `…_us` beside a histogram of the same | `…_latest_seconds` |
//! | a set of service addresses, in `vip_sets` | `sinew_vip_set_…`, with the label `set`; its state is a label too |
//! | `metrics` of a link, which routing goes by | `sinew_link_advertised_…` |
//!
//! Every family has one HELP and one TYPE line, its samples follow at once, and every series is there once: workers,
//! links and lanes are numbered, and a peer's name is only ever an addition.

mod help;
#[cfg(test)]
pub(crate) mod strict;

use super::figure::is_gauge;
use super::stages;
use super::{friendly, hlog};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a response with this text says of its content.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Maps of counts by reason.
const BY_REASON: [&str; 5] = ["drops", "datagram_drops", "message_drops", "flow_drops", "send_errors"];
/// Figures of a class of messages.
const CLASSES: [&str; 3] = ["best_effort", "reliable", "control"];
/// What is shown of its own, or means nothing as a series.
const APART: [&str; 5] = ["links", "sessions", "histograms", "link", "vip_sets"];
/// Gauges of something else than things.
const UNITS: [(&str, &str); 4] =
    [("window", "_bytes"), ("in_flight", "_bytes"), ("pacing_rate", "_bytes_per_second"), ("pmtu", "_bytes")];
/// Upper bounds of the histograms' buckets, ns: 1, 2.5 and 5 of every decade from 1 µs to 10 s.
const BOUNDS: [u64; 22] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// A metric: its type, what it is of, and its samples.
struct Family {
    kind: &'static str,
    help: String,
    samples: String,
}

/// Every metric by name.
#[derive(Default)]
struct Families(BTreeMap<String, Family>);

/// Renders the statistics of a router's workers, histograms among them; `name` gives the name of a router by its id.
/// Fails if a histogram cannot be read.
pub fn render(workers: &[Value], name: impl Fn(&str) -> String) -> Result<String, String> {
    let mut families = Families::default();
    let version = escaped(env!("CARGO_PKG_VERSION"));
    families.sample("sinew_build_info", "gauge", &format!("version=\"{version}\""), 1.0);
    for (number, worker) in workers.iter().enumerate() {
        let labels = format!("worker=\"{number}\"");
        let worker = friendly(worker.clone());
        families.object("sinew", "", &labels, &worker);
        let of_link = |link: &Value, peer: &str| {
            format!("link=\"{}\",lane=\"{number}\",peer=\"{}\"", link.as_u64().unwrap_or_default(), escaped(peer))
        };
        for link in worker["links"].as_array().into_iter().flatten() {
            let peer = name(link["peer"].as_str().unwrap_or_default());
            let labels = of_link(&link["link"], &peer);
            families.object("sinew_link", "", &labels, link);
            for path in link["paths"].as_array().into_iter().flatten() {
                let addresses = [&path["remote"], &path["local"]].into_iter().filter_map(Value::as_str);
                let addresses = escaped(&addresses.collect::<Vec<_>>().join(" from "));
                families.object("sinew_link_path", "", &format!("{labels},path=\"{addresses}\""), path);
            }
        }
        families.vip_sets(&worker["vip_sets"]);
        for entry in worker["histograms"].as_array().into_iter().flatten() {
            let Some(stage) = stages::of(entry["name"].as_str().unwrap_or_default()) else { continue };
            let (prefix, labels) = match entry["peer"].as_str() {
                Some(peer) => ("sinew_link", of_link(&entry["link"], peer)),
                None => ("sinew", labels.clone()),
            };
            let class = stage.class.map_or_else(String::new, |class| format!(",class=\"{class}\""));
            let metric = format!("{prefix}_{}_seconds", stage.name.replace('-', "_"));
            let histogram = hlog::decode(entry["hdr"].as_str().unwrap_or_default())?;
            families.histogram(&metric, &(labels + &class), stage.meaning, &histogram);
        }
    }
    Ok(families.text())
}

impl Families {
    fn text(self) -> String {
        let mut text = String::new();
        for (name, Family { kind, help, samples }) in self.0 {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing to a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }

    /// Sets of service addresses. They are the router's, not a worker's.
    fn vip_sets(&mut self, sets: &Value) {
        for set in sets.as_array().into_iter().flatten() {
            let labels = format!("set=\"{}\"", escaped(set["set"].as_str().unwrap_or_default()));
            self.object("sinew_vip_set", "", &labels, set);
            let state = escaped(set["state"].as_str().unwrap_or_default());
            self.sample("sinew_vip_set_state", "gauge", &format!("{labels},state=\"{state}\""), 1.0);
        }
    }

    /// Everything in an object. `prefix` is the metric's name so far, `path` the keys so far.
    fn object(&mut self, prefix: &str, path: &str, labels: &str, object: &Value) {
        for (key, value) in object.as_object().into_iter().flatten().filter(|(key, _)| !APART.contains(&key.as_str())) {
            let name = match key.as_str() {
                // Where a link's figures are kept, and not what they are.
                "stats" => prefix.to_owned(),
                // What routing knows of the link.
                "metrics" => format!("{prefix}_advertised"),
                key => match key.strip_suffix("_us").filter(|stem| object.get(stem).is_some()) {
                    // The present value of what there is a histogram of, too.
                    Some(stem) => format!("{prefix}_{stem}_latest_us"),
                    None => format!("{prefix}_{key}"),
                },
            };
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Object(reasons) if BY_REASON.contains(&key.as_str()) => {
                    for (reason, count) in reasons {
                        let labels = format!("{labels},reason=\"{}\"", escaped(reason));
                        self.sample(&format!("{name}_total"), "counter", &labels, count.as_f64().unwrap_or(0.0));
                    }
                }
                Value::Object(figures) if CLASSES.contains(&key.as_str()) && figures.contains_key("bytes_sent") => {
                    let labels = format!("{labels},class=\"{}\"", key.replace('_', "-"));
                    for (figure, of) in [("sent", "messages"), ("received", "messages")]
                        .into_iter()
                        .chain([("bytes_sent", "message"), ("bytes_received", "message")])
                    {
                        let metric = format!("{prefix}_{of}_{figure}_total");
                        self.sample(&metric, "counter", &labels, figures[figure].as_f64().unwrap_or(0.0));
                    }
                }
                // A histogram's summary: the whole of it is elsewhere.
                Value::Object(_) if value.get("p50_us").is_some() => {}
                Value::Object(_) => self.object(&name, &path, labels, value),
                Value::Array(pair) if pair.len() == 2 && key == "pool" => {
                    for (end, value) in ["used", "slots"].iter().zip(pair) {
                        self.sample(&format!("{name}_{end}"), "gauge", labels, value.as_f64().unwrap_or(0.0));
                    }
                }
                Value::Bool(flag) => self.sample(&name, "gauge", labels, f64::from(u8::from(*flag))),
                Value::Number(number) => self.figure(&name, &path, labels, number.as_f64().unwrap_or(0.0)),
                _ => {}
            }
        }
    }

    fn figure(&mut self, name: &str, path: &str, labels: &str, value: f64) {
        let units = [("_us", "_seconds", 1e6), ("_ms", "_seconds", 1e3), ("_ppm", "_ratio", 1e6)];
        let unit = units.iter().find_map(|(end, unit, per)| Some((name.strip_suffix(end)?, unit, per)));
        let last = path.rsplit('.').next().unwrap_or(path);
        let bytes = UNITS.iter().find(|(gauge, _)| *gauge == last).map_or("", |(_, unit)| unit);
        match unit {
            Some((stem, unit, per)) => self.sample(&format!("{stem}{unit}"), "gauge", labels, value / per),
            None if is_gauge(path) => self.sample(&format!("{name}{bytes}"), "gauge", labels, value),
            None => self.sample(&format!("{name}_total"), "counter", labels, value),
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, help: &str, histogram: &hdrhistogram::Histogram<u64>) {
        let samples = self.family(name, "histogram", || help.to_owned());
        let mut values = histogram.iter_recorded().peekable();
        let mut count = 0;
        for bound in BOUNDS {
            // A value stands for those of its place, which is one per cent of it wide, or half a microsecond.
            let is_within = |value: u64| histogram.lowest_equivalent(value) <= bound;
            while let Some(value) = values.next_if(|value| is_within(value.value_iterated_to())) {
                count += value.count_at_value();
            }
            let _ = writeln!(samples, "{name}_bucket{{{labels},le=\"{}\"}} {count}", bound as f64 / 1e9);
        }
        let (count, sum) = (histogram.len(), histogram.mean() * histogram.len() as f64 / 1e9);
        let _ = writeln!(samples, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(samples, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
    }

    fn sample(&mut self, name: &str, kind: &'static str, labels: &str, value: f64) {
        let samples = self.family(name, kind, || help::of(name));
        let _ = writeln!(samples, "{name}{{{labels}}} {value}");
    }

    /// The samples of a metric so far.
    fn family(&mut self, name: &str, kind: &'static str, help: impl FnOnce() -> String) -> &mut String {
        let new = || Family { kind, help: help(), samples: String::new() };
        &mut self.0.entry(name.to_owned()).or_insert_with(new).samples
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Histogram;
    use serde_json::json;
    use std::time::Duration;

    /// A worker with every kind of figure.
    fn worker() -> Value {
        let mut waits = Histogram::new();
        [1, 2, 300, 20_000_000].into_iter().for_each(|micros| waits.record(Duration::from_micros(micros)));
        let hdr = hlog::encode(waits.inner());
        let summary = json!({"count": 4, "p50_us": 2.0});
        let class = json!({"sent": 8, "bytes_sent": 800, "received": 1, "bytes_received": 100});
        json!({
            "forwarded": 12,
            "pool": [3, 8192],
            "drops": {"no-route": 4},
            "driver": {"backend": "uring", "turns": 7, "commands": {"peak": 2}},
            "sessions": [{"port": 9}],
            "vip": {"acquired": 3, "sets_owned": 1, "overruled": false},
            "vip_sets": [{"set": "we\"b", "state": "owning", "owned": true, "covered": true, "able": false}],
            "links": [{
                "peer": "00ff", "link": 5, "up": true, "since": {"secs": 2, "nanos": 500_000_000},
                "metrics": {"rtt": {"secs": 0, "nanos": 20_500_000}, "loss_ppm": 1000},
                "stats": {"marked": 5, "window": 9, "round_trip": summary, "round_trip_us": 1000, "reliable": class},
            }],
            "histograms": [
                {"name": "queue_delay_reliable", "peer": "b\"x", "link": 5, "hdr": hdr},
                {"name": "turn", "peer": null, "link": null, "hdr": hdr},
            ],
        })
    }

    fn text() -> String {
        render(&[worker()], |id| if id == "00ff" { "b\"x".into() } else { id.into() }).expect("renders")
    }

    #[test]
    fn figures_become_metrics_with_types_units_and_labels() {
        let text = text();
        let link = "link=\"5\",lane=\"0\",peer=\"b\\\"x\"";
        for expected in [
            "# HELP sinew_build_info ",
            "# TYPE sinew_driver_commands_peak gauge\nsinew_driver_commands_peak{worker=\"0\"} 2\n",
            "# TYPE sinew_driver_turns_total counter\nsinew_driver_turns_total{worker=\"0\"} 7\n",
            "# TYPE sinew_drops_total counter\nsinew_drops_total{worker=\"0\",reason=\"no-route\"} 4\n",
            "# TYPE sinew_pool_used gauge\nsinew_pool_used{worker=\"0\"} 3\n",
            &format!("sinew_link_advertised_loss_ratio{{{link}}} 0.001\n"),
            &format!("sinew_link_advertised_rtt_seconds{{{link}}} 0.0205\n"),
            &format!("sinew_link_since_seconds{{{link}}} 2.5\n"),
            &format!("sinew_link_window_bytes{{{link}}} 9\n"),
            &format!("sinew_link_up{{{link}}} 1\n"),
            &format!("sinew_link_round_trip_latest_seconds{{{link}}} 0.001\n"),
            &format!("sinew_link_messages_sent_total{{{link},class=\"reliable\"}} 8\n"),
            &format!("sinew_link_message_bytes_received_total{{{link},class=\"reliable\"}} 100\n"),
            "# TYPE sinew_link_queue_wait_seconds histogram\n",
            &format!("sinew_link_queue_wait_seconds_bucket{{{link},class=\"reliable\",le=\"0.000001\"}} 1\n"),
            &format!("sinew_link_queue_wait_seconds_bucket{{{link},class=\"reliable\",le=\"0.0005\"}} 3\n"),
            &format!("sinew_link_queue_wait_seconds_bucket{{{link},class=\"reliable\",le=\"10\"}} 3\n"),
            &format!("sinew_link_queue_wait_seconds_bucket{{{link},class=\"reliable\",le=\"+Inf\"}} 4\n"),
            &format!("sinew_link_queue_wait_seconds_count{{{link},class=\"reliable\"}} 4\n"),
            "sinew_turn_seconds_count{worker=\"0\"} 4\n",
            "# TYPE sinew_vip_acquired_total counter\nsinew_vip_acquired_total{worker=\"0\"} 3\n",
            "# TYPE sinew_vip_sets_owned gauge\nsinew_vip_sets_owned{worker=\"0\"} 1\n",
            "sinew_vip_overruled{worker=\"0\"} 0\n",
            "# TYPE sinew_vip_set_owned gauge\nsinew_vip_set_owned{set=\"we\\\"b\"} 1\n",
            "sinew_vip_set_able{set=\"we\\\"b\"} 0\n",
            "sinew_vip_set_state{set=\"we\\\"b\",state=\"owning\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("p50") && !text.contains("sinew_link_round_trip_seconds"), "{text}");
    }

    #[test]
    fn the_text_is_what_a_strict_reader_takes() {
        let series = strict::read(&text()).unwrap_or_else(|error| panic!("{error}\n{}", text()));
        assert!(series.len() > 60 && !series.contains_key("sinew_up"), "{series:?}");
    }

    #[test]
    fn a_histogram_that_cannot_be_read_is_an_error() {
        let worker = json!({"histograms": [{"name": "turn", "peer": null, "hdr": "nonsense"}]});
        assert!(render(&[worker], str::to_owned).is_err());
    }
}
