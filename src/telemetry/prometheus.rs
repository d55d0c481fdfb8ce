//! A router's statistics in Prometheus' text format, version 0.0.4 (also read as OpenMetrics' ancestor by node_exporter's
//! textfile collector).
//!
//! | in the statistics | as a metric |
//! |---|---|
//! | a figure at `a.b` of a worker | `sinew_a_b_total`, or `sinew_a_b` if it comes and goes, with the label `worker` |
//! | the same of a link | `sinew_link_a_b…`, with the label `peer` too |
//! | a map of drops or of send errors | one metric with a label `reason` |
//! | a histogram's summary | a summary in seconds with the quantiles 0.5, 0.9, 0.99 and 0.999 |
//! | `…_us`, `…_ms`, `…_ppm` | `…_seconds`, `…_ratio` |
//! | `…_us` beside a summary of the same | `…_latest_seconds` |
//! | `metrics` of a link, which routing goes by | `sinew_link_advertised_…` |

use super::figure::is_gauge;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Maps of counts by reason.
const BY_REASON: [&str; 4] = ["drops", "datagram_drops", "message_drops", "send_errors"];
/// What is shown of its own, or means nothing as a series.
const APART: [&str; 4] = ["links", "sessions", "histograms", "link"];

/// Every metric by name: its type and its samples.
#[derive(Default)]
struct Families(BTreeMap<String, (&'static str, String)>);

/// Renders the statistics of a router's workers; `name` gives the name of a router by its id.
pub fn render(workers: &[Value], name: impl Fn(&str) -> String) -> String {
    let mut families = Families::default();
    for (number, worker) in workers.iter().enumerate() {
        let labels = format!("worker=\"{number}\"");
        families.object("sinew", "", &labels, worker);
        for link in worker["links"].as_array().into_iter().flatten() {
            let peer = name(link["peer"].as_str().unwrap_or_default());
            families.object("sinew_link", "", &format!("{labels},peer=\"{}\"", escaped(&peer)), link);
        }
    }
    let mut text = String::new();
    for (name, (kind, samples)) in families.0 {
        // Writing to a String cannot fail.
        let _ = write!(text, "# TYPE {name} {kind}\n{samples}");
    }
    text
}

impl Families {
    /// Everything in an object. `prefix` is the metric's name so far, `path` the keys so far.
    fn object(&mut self, prefix: &str, path: &str, labels: &str, object: &Value) {
        for (key, value) in object.as_object().into_iter().flatten().filter(|(key, _)| !APART.contains(&key.as_str())) {
            let name = match key.as_str() {
                // Where a link's figures are kept, and not what they are.
                "stats" => prefix.to_owned(),
                // What routing knows of the link.
                "metrics" => format!("{prefix}_advertised"),
                key => match key.strip_suffix("_us").filter(|stem| object.get(stem).is_some()) {
                    // The present value of what there is a summary of, too.
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
                Value::Object(_) if value.get("p50_us").is_some() => self.summary(&name, labels, value),
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
        match unit {
            Some((stem, unit, per)) => self.sample(&format!("{stem}{unit}"), "gauge", labels, value / per),
            None if is_gauge(path) => self.sample(name, "gauge", labels, value),
            None => self.sample(&format!("{name}_total"), "counter", labels, value),
        }
    }

    fn summary(&mut self, name: &str, labels: &str, summary: &Value) {
        let (of, name) = (|key: &str| summary[key].as_f64().unwrap_or(0.0), format!("{name}_seconds"));
        let (_, samples) = self.0.entry(name.clone()).or_insert_with(|| ("summary", String::new()));
        let quantiles = [("0.5", "p50_us"), ("0.9", "p90_us"), ("0.99", "p99_us"), ("0.999", "p999_us")];
        for (quantile, key) in quantiles {
            let _ = writeln!(samples, "{name}{{{labels},quantile=\"{quantile}\"}} {}", of(key) / 1e6);
        }
        let (sum, count) = (of("mean_us") * of("count") / 1e6, of("count"));
        let _ = writeln!(samples, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
    }

    fn sample(&mut self, name: &str, kind: &'static str, labels: &str, value: f64) {
        let (_, samples) = self.0.entry(name.to_owned()).or_insert_with(|| (kind, String::new()));
        let _ = writeln!(samples, "{name}{{{labels}}} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_become_metrics_with_types_units_and_labels() {
        let summary = json!({"count": 2, "mean_us": 1500.0, "p50_us": 1000.0, "p90_us": 2000.0, "p99_us": 2000.0,
            "p999_us": 2000.0, "max_us": 2000.0, "sd_us": 500.0});
        let workers = [json!({
            "forwarded": 12,
            "pool": [3, 8192],
            "drops": {"no-route": 4},
            "driver": {"backend": "uring", "turns": 7, "commands": {"peak": 2}},
            "sessions": [{"port": 9}],
            "links": [{
                "peer": "00ff", "link": 0, "up": true, "metrics": {"rtt_ms": 20.5, "loss_ppm": 1000},
                "stats": {"marked": 5, "queue": 1, "round_trip": summary, "round_trip_us": 1000, "reliable": {"sent": 8}},
            }],
        })];
        let text = render(&workers, |id| if id == "00ff" { "b\"x".into() } else { id.into() });
        let expected = [
            "# TYPE sinew_driver_commands_peak gauge\nsinew_driver_commands_peak{worker=\"0\"} 2\n",
            "# TYPE sinew_driver_turns_total counter\nsinew_driver_turns_total{worker=\"0\"} 7\n",
            "# TYPE sinew_drops_total counter\nsinew_drops_total{worker=\"0\",reason=\"no-route\"} 4\n",
            "# TYPE sinew_forwarded_total counter\nsinew_forwarded_total{worker=\"0\"} 12\n",
            "# TYPE sinew_link_advertised_loss_ratio gauge\nsinew_link_advertised_loss_ratio{worker=\"0\",peer=\"b\\\"x\"} 0.001\n",
            "# TYPE sinew_link_advertised_rtt_seconds gauge\nsinew_link_advertised_rtt_seconds{worker=\"0\",peer=\"b\\\"x\"} 0.0205\n",
            "# TYPE sinew_link_marked_total counter\nsinew_link_marked_total{worker=\"0\",peer=\"b\\\"x\"} 5\n",
            "# TYPE sinew_link_queue gauge\nsinew_link_queue{worker=\"0\",peer=\"b\\\"x\"} 1\n",
            "# TYPE sinew_link_reliable_sent_total counter\nsinew_link_reliable_sent_total{worker=\"0\",peer=\"b\\\"x\"} 8\n",
            "# TYPE sinew_link_round_trip_latest_seconds gauge\nsinew_link_round_trip_latest_seconds{worker=\"0\",peer=\"b\\\"x\"} 0.001\n",
            "# TYPE sinew_link_round_trip_seconds summary\n\
             sinew_link_round_trip_seconds{worker=\"0\",peer=\"b\\\"x\",quantile=\"0.5\"} 0.001\n\
             sinew_link_round_trip_seconds{worker=\"0\",peer=\"b\\\"x\",quantile=\"0.9\"} 0.002\n\
             sinew_link_round_trip_seconds{worker=\"0\",peer=\"b\\\"x\",quantile=\"0.99\"} 0.002\n\
             sinew_link_round_trip_seconds{worker=\"0\",peer=\"b\\\"x\",quantile=\"0.999\"} 0.002\n\
             sinew_link_round_trip_seconds_sum{worker=\"0\",peer=\"b\\\"x\"} 0.003\n\
             sinew_link_round_trip_seconds_count{worker=\"0\",peer=\"b\\\"x\"} 2\n",
            "# TYPE sinew_link_up gauge\nsinew_link_up{worker=\"0\",peer=\"b\\\"x\"} 1\n",
            "# TYPE sinew_pool_slots gauge\nsinew_pool_slots{worker=\"0\"} 8192\n",
            "# TYPE sinew_pool_used gauge\nsinew_pool_used{worker=\"0\"} 3\n",
        ];
        assert_eq!(text, expected.concat());
    }
}
