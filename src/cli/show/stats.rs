//! `sinew show stats`: everything counted, grouped by room.
//!
//! The figures are shown by their names in JSON, so whatever a router of another version counts is shown as well.
//! Durations are milliseconds; a rate is per second since the sample before.

use super::{output, plain};
use crate::telemetry::figure::is_gauge;
use crate::telemetry::table::thousands;
use crate::telemetry::{DropReason, Drops, Table, stages};
use serde_json::Value;
use std::collections::BTreeMap;

/// What belongs together: a heading, and figures of a worker in their order. Objects are groups by themselves.
const GROUPS: [(&str, &[&str]); 3] = [
    ("datagrams", &["datagrams_in", "bytes_in", "opened", "handshakes", "strays", "datagrams_out", "bytes_out"]),
    (
        "messages",
        &[
            "received",
            "originated",
            "returned",
            "delivered",
            "handed",
            "forwarded",
            "crossed_in",
            "crossed_out",
            "crossing",
            "crossing_peak",
            "stranded",
            "stranded_peak",
        ],
    ),
    ("pool and reports", &["pool", "pool_peak", "reports_waiting", "reports_peak"]),
];
/// Shown by themselves, or by another command.
const APART: [&str; 7] = ["drops", "datagram_drops", "message_drops", "links", "sessions", "histograms", "vip_sets"];
/// The workers' figures at one moment, and how long after the ones before.
pub(super) struct Sample<'a> {
    /// One object a worker.
    pub(super) workers: &'a [Value],
    /// The sample before, and the seconds since then.
    pub(super) before: Option<(&'a [Value], f64)>,
    /// Names of routers by id.
    pub(super) names: &'a BTreeMap<String, String>,
    /// Whether figures that are zero are shown.
    pub(super) all: bool,
}

/// A figure under its path, and what it was before.
type Figure = (String, Value, Option<Value>);

impl Sample<'_> {
    /// The whole text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (number, worker) in self.workers.iter().enumerate() {
            let before = self.before.and_then(|(workers, _)| workers.get(number));
            text += &format!("worker {number}{}\n", driver(worker));
            let mut latencies = latency_table("latency");
            self.groups(worker, before, &mut text, &mut latencies);
            self.put(&mut text, &latencies);
            self.put(&mut text, &sets(&worker["vip_sets"]));
        }
        self.put(&mut text, &self.drops());
        for (number, worker) in self.workers.iter().enumerate() {
            for (place, link) in worker["links"].as_array().into_iter().flatten().enumerate() {
                let before = self.before.and_then(|(workers, _)| workers.get(number)?["links"].get(place));
                self.link(number, link, before.filter(|before| before["peer"] == link["peer"]), &mut text);
            }
        }
        text
    }

    fn put(&self, text: &mut String, table: &Table) {
        if !table.is_empty() {
            *text += &format!("\n{table}");
        }
    }

    fn groups(&self, worker: &Value, before: Option<&Value>, text: &mut String, latencies: &mut Table) {
        let known = |key: &str| GROUPS.iter().any(|(_, keys)| keys.contains(&key)) || APART.contains(&key);
        let was = |key: &str| before.and_then(|before| before.get(key));
        for (heading, keys) in GROUPS {
            let mut figures = Vec::new();
            for key in keys {
                self.flatten((*key).to_owned(), &worker[*key], was(key), &mut figures, latencies);
            }
            self.put(text, &self.figures(heading, &figures));
        }
        let mut others = Vec::new();
        for (key, value) in worker.as_object().into_iter().flatten().filter(|(key, _)| !known(key)) {
            if value.is_object() && !is_summary(value) {
                let mut figures = Vec::new();
                self.flatten(String::new(), value, was(key), &mut figures, latencies);
                self.put(text, &self.figures(key, &figures));
            } else {
                self.flatten(key.clone(), value, was(key), &mut others, latencies);
            }
        }
        self.put(text, &self.figures("other", &others));
    }

    fn link(&self, worker: usize, link: &Value, before: Option<&Value>, text: &mut String) {
        let id = plain(&link["peer"]);
        let name = self.names.get(&id).unwrap_or(&id);
        let state = if link["up"] == true { "up" } else { "down" };
        let (mut figures, mut latencies) = (Vec::new(), latency_table("latency"));
        let link = output::friendly(link.clone());
        let before = before.cloned().map(output::friendly);
        let shown = |key: &&String| !["link", "peer", "up", "remote"].contains(&key.as_str());
        for key in link.as_object().into_iter().flatten().map(|(key, _)| key).filter(shown) {
            let path = if key == "stats" { String::new() } else { key.clone() };
            let was = before.as_ref().and_then(|before| before.get(key));
            self.flatten(path, &link[key], was, &mut figures, &mut latencies);
        }
        *text += &format!("\nlink to {name} over {}, worker {worker}: {state}\n", plain(&link["remote"]));
        self.put(text, &self.figures("figure", &figures));
        self.put(text, &latencies);
    }

    /// Every figure below `value` under its own path; summaries of histograms go to their table.
    fn flatten(
        &self,
        path: String,
        value: &Value,
        before: Option<&Value>,
        to: &mut Vec<Figure>,
        latencies: &mut Table,
    ) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            summary if is_summary(summary) => {
                if self.all || summary["count"] != 0 {
                    latencies.row(latency_row(path, summary));
                }
            }
            Value::Object(entries) => entries.iter().for_each(|(key, value)| {
                self.flatten(below(key), value, before.and_then(|before| before.get(key)), to, latencies);
            }),
            Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| {
                let key = if path == "pool" { ["in_use", "slots"][index.min(1)].to_owned() } else { index.to_string() };
                self.flatten(below(&key), value, before.and_then(|before| before.get(index)), to, latencies);
            }),
            Value::Null if !self.all => {}
            value => to.push((path, value.clone(), before.cloned())),
        }
    }

    fn figures(&self, heading: &str, figures: &[Figure]) -> Table {
        let total = [heading, ">total"];
        let mut table = match self.before {
            Some(_) => Table::new(total.into_iter().chain([">per s"])),
            None => Table::new(total),
        };
        for (path, value, before) in figures {
            if !self.all && value.as_f64() == Some(0.0) {
                continue;
            }
            let row = [path.clone(), plain(value)];
            match self.before {
                Some((_, seconds)) => table.row(row.into_iter().chain([rate(path, value, before.as_ref(), seconds)])),
                None => table.row(row),
            }
        }
        table
    }

    /// What was dropped and why, all workers and links together.
    fn drops(&self) -> Table {
        let (now, before) = (total_drops(self.workers), self.before.map(|(workers, _)| total_drops(workers)));
        let mut table = match self.before {
            Some(_) => Table::new(["dropped", ">count", ">per s", "what it means"]),
            None => Table::new(["dropped", ">count", "what it means"]),
        };
        for &reason in DropReason::ALL {
            let count = now.get(reason);
            if count == 0 && !self.all {
                continue;
            }
            let (name, meaning) = (reason.name().to_owned(), reason.description().to_owned());
            match (&before, self.before) {
                (Some(before), Some((_, seconds))) => {
                    let new = count.saturating_sub(before.get(reason));
                    table.row([name, thousands(count), per_second(new as f64 / seconds), meaning]);
                }
                _ => table.row([name, thousands(count), meaning]),
            }
        }
        table
    }
}

/// The back-end and the core, and why they were chosen, for the heading.
fn driver(worker: &Value) -> String {
    let driver = &worker["driver"];
    let backend = driver["backend_reason"].as_str().map(|reason| format!(": {reason}"));
    let core = driver["core"].as_u64().map(|core| format!("; core {core} ({})", plain(&driver["core_reason"])));
    let scheduling = driver["scheduling"].as_str().filter(|how| *how != "ordinary").map(|how| format!("; {how}"));
    [backend, core, scheduling].into_iter().flatten().collect()
}

/// The sets of service addresses, as this router sees them now.
fn sets(sets: &Value) -> Table {
    let mut table = Table::new(["service addresses", "here", "covered", "could be here"]);
    let yes = |flag: &Value| if *flag == true { "yes" } else { "no" }.to_owned();
    for set in sets.as_array().into_iter().flatten() {
        table.row([plain(&set["set"]), plain(&set["state"]), yes(&set["covered"]), yes(&set["able"])]);
    }
    table
}

fn total_drops(workers: &[Value]) -> Drops {
    let of = |value: &Value| serde_json::from_value::<Drops>(value.clone()).unwrap_or_default();
    let mut sum = Drops::default();
    for worker in workers {
        sum.merge(&of(&worker["drops"]));
        let links = worker["links"].as_array().into_iter().flatten();
        links.for_each(|link| sum.merge(&of(&link["stats"]["drops"])));
    }
    sum
}

fn is_summary(value: &Value) -> bool {
    value.get("p50_us").is_some() && value.get("count").is_some()
}

fn latency_table(heading: &str) -> Table {
    Table::new([
        heading,
        ">count",
        ">mean ms",
        ">p50 ms",
        ">p90 ms",
        ">p99 ms",
        ">p99.9 ms",
        ">max ms",
        "what it is of",
    ])
}

fn latency_row(path: String, summary: &Value) -> Vec<String> {
    let ms = |key: &str| summary[key].as_f64().map_or("-".to_owned(), |us| format!("{:.3}", us / 1e3));
    let figures = ["mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(ms);
    let of = stages::of(&path).map_or("", |stage| stage.meaning).to_owned();
    [path, plain(&summary["count"])].into_iter().chain(figures).chain([of]).collect()
}

fn rate(path: &str, value: &Value, before: Option<&Value>, seconds: f64) -> String {
    match (value.as_u64(), before.and_then(Value::as_u64)) {
        (Some(now), Some(before)) if !is_gauge(path) => per_second(now.saturating_sub(before) as f64 / seconds),
        _ => String::new(),
    }
}

fn per_second(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { thousands(rate.round() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Instant, Rng};
    use crate::dataplane::messages::ShardStats;
    use crate::proto::link::{Link, Settings};
    use serde_json::json;
    use std::collections::BTreeSet;

    fn worker(datagrams: u64) -> Value {
        let turn = json!({"count": 9, "mean_us": 2.0, "sd_us": 0.1, "p50_us": 1.5, "p90_us": 2.0, "p99_us": 3.0,
            "p999_us": 4.0, "max_us": 5.0});
        json!({"datagrams_in": datagrams, "strays": 0, "pool": [5, 4096], "drops": {"no-route": 2}, "turn": turn,
            "security": {"handshakes_done": 3}, "future": 8, "vip": {"acquired": 6, "overruled": true},
            "vip_sets": [{"set": "web", "state": "owning", "owned": true, "covered": true, "able": false}],
            "driver": {"backend": "mmsg", "backend_reason": "mmsg (as configured)", "calls": 12, "core": 3,
                "core_reason": "auto, isolated", "scheduling": "real time, priority 10"},
            "links": [{"link": 0, "peer": "00000000000000aa", "up": true, "remote": "192.0.2.2:5300",
                "since": {"secs": 1, "nanos": 0},
                "stats": {"retransmissions": 7, "ups": 0, "rtt_us": 20_100, "drops": {"queue-full": 4}, "one_way": turn}}]})
    }

    fn text(before: Option<(&[Value], f64)>, all: bool) -> String {
        let names = BTreeMap::from([("00000000000000aa".to_owned(), "b".to_owned())]);
        Sample { workers: &[worker(1_234)], before, names: &names, all }.text()
    }

    #[test]
    fn everything_is_shown_in_its_group_and_zeros_are_not() {
        let shown = text(None, false);
        for part in [
            "worker 0: mmsg (as configured); core 3 (auto, isolated); real time, priority 10",
            "datagrams_in",
            "1 234",
            "in_use",
            "slots",
            "security",
            "handshakes_done",
            "driver",
            "calls",
            "no-route",
            "no route leads to",
            "queue-full",
            "link to b over 192.0.2.2:5300, worker 0: up",
            "retransmissions",
            "since_ms",
            "one_way",
            "from the neighbour to here",
            "0.002",
            "one turn of the worker's loop",
            "other",
            "future",
            "overruled",
            "web                owning  yes      no",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        assert!(!shown.contains("strays") && !shown.contains("ups") && !shown.contains("per s"), "{shown}");
        let all = text(None, true);
        assert!(all.contains("strays") && all.contains("ups") && all.contains("pool-exhausted"), "{all}");
    }

    #[test]
    fn every_latency_says_what_it_is_of() {
        let link = Link::new(Instant::ZERO, Settings::default(), &[], Rng::from_u64(1));
        let stats = ShardStats { counts: Some(Default::default()), ..ShardStats::default() };
        let link = link.counted();
        let own = stats.counted().map(|(_, name, _)| name);
        let names: BTreeSet<&str> = link.counted().map(|(name, _)| name).chain(own).collect();
        assert!(names.iter().all(|name| stages::of(name).is_some()), "{names:?}");
        assert_eq!(names.len(), stages::STAGES.len());
    }

    #[test]
    fn counters_have_rates_and_gauges_have_none() {
        let before = [worker(1_034)];
        let shown = text(Some((&before, 2.0)), false);
        let line = |key: &str| shown.lines().find(|line| line.contains(key)).expect("is shown").to_owned();
        assert!(line("datagrams_in").ends_with("100"), "{shown}");
        assert!(line("retransmissions").ends_with("0.0"), "{shown}");
        assert!(line("rtt_us").ends_with("20 100") && line("in_use").ends_with('5'), "{shown}");
    }
}
