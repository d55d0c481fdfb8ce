//! `sinew show latency`: percentiles of every stage, by link and class.

use super::{Args, unexpected};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::router::Router;
use crate::telemetry::stages::{self, STAGES, Stage};
use crate::telemetry::table::thousands;
use crate::telemetry::{Table, hlog};
use crate::wire::admin::{Request, Response};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is shown of a distribution.
const QUANTILES: [(&str, f64); 4] = [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999)];

/// A row: the member at the other end of the link (none: the workers' own), and the stage's place.
type Key = (Option<String>, usize);

/// Every latency, all workers together.
#[derive(Debug, Default)]
pub(in crate::cli) struct Latencies {
    rows: BTreeMap<Key, Histogram<u64>>,
    /// By how much the one-way delays of a link may be wrong, µs.
    errors: BTreeMap<String, u64>,
}

impl Latencies {
    fn ask(router: &Router) -> Result<Latencies, Failure> {
        let Response::Stats { workers } = router.request(&Request::Histograms)? else { return Err(unexpected()) };
        Latencies::new(&workers).map_err(|error| Failure::failed("the router's histograms cannot be read", error))
    }

    /// Of the answer to [`Request::Histograms`].
    pub(in crate::cli) fn new(workers: &[Value]) -> Result<Latencies, String> {
        let mut all = Latencies::default();
        for worker in workers {
            let links = worker["links"].as_array().map_or(&[][..], Vec::as_slice);
            for entry in worker["histograms"].as_array().into_iter().flatten() {
                let name = entry["name"].as_str().unwrap_or_default();
                // Of another version: it has no row here.
                let Some(place) = STAGES.iter().position(|stage| stage.histogram == name) else { continue };
                let peer = entry["peer"].as_str().map(str::to_owned);
                let error = links.iter().find(|link| link["link"] == entry["link"]);
                let error = error.and_then(|link| link["stats"]["clock_error_us"].as_u64());
                if let (Some(peer), Some(error)) = (&peer, error) {
                    let known = all.errors.entry(peer.clone()).or_default();
                    *known = error.max(*known);
                }
                let histogram = hlog::decode(entry["hdr"].as_str().unwrap_or_default())?;
                match all.rows.get_mut(&(peer.clone(), place)) {
                    Some(sum) => sum.add(histogram).map_err(|error| error.to_string())?,
                    None => drop(all.rows.insert((peer, place), histogram)),
                }
            }
        }
        Ok(all)
    }

    /// What was measured since `before`. A router that was started anew has measured all of it since.
    pub(in crate::cli) fn since(&self, before: &Latencies) -> Latencies {
        let difference = |(key, now): (&Key, &Histogram<u64>)| {
            let mut new = now.clone();
            let known = before.rows.get(key);
            let subtracted = known.is_none_or(|known| new.subtract(known).is_ok());
            (key.clone(), if subtracted { new } else { now.clone() })
        };
        let rows = self.rows.iter().map(difference).filter(|(_, histogram)| !histogram.is_empty());
        Latencies { rows: rows.collect(), errors: self.errors.clone() }
    }

    fn rows(&self) -> impl Iterator<Item = (Option<&str>, &'static Stage, &Histogram<u64>)> {
        self.rows.iter().map(|((peer, place), histogram)| (peer.as_deref(), &STAGES[*place], histogram))
    }

    /// The stages of the link to a member, or the workers' own.
    pub(in crate::cli) fn of(&self, peer: Option<&str>) -> impl Iterator<Item = (&'static Stage, &Histogram<u64>)> {
        self.rows().filter(move |(of, ..)| *of == peer).map(|(_, stage, histogram)| (stage, histogram))
    }

    fn error_us(&self, peer: Option<&str>, stage: &Stage) -> Option<u64> {
        peer.filter(|_| stages::of("one_way") == Some(stage)).and_then(|peer| self.errors.get(peer).copied())
    }

    fn table(&self) -> Table {
        let mut table = Table::new([
            "link to",
            "stage",
            "class",
            ">count",
            ">mean ms",
            ">p50 ms",
            ">p90 ms",
            ">p99 ms",
            ">p99.9 ms",
            ">max ms",
            "what it is of",
        ]);
        for (peer, stage, histogram) in self.rows() {
            let ms = |nanos: f64| format!("{:.3}", nanos / 1e6);
            let quantiles = QUANTILES.map(|(_, quantile)| ms(histogram.value_at_quantile(quantile) as f64));
            let error = self.error_us(peer, stage).map(|us| format!(" (± {} ms)", ms(us as f64 * 1e3)));
            let head = [peer.unwrap_or("-"), stage.name, stage.class.unwrap_or("-")].map(str::to_owned);
            let figures = [thousands(histogram.len()), ms(histogram.mean())];
            let tail = [ms(histogram.max() as f64), stage.meaning.to_owned() + &error.unwrap_or_default()];
            table.row(head.into_iter().chain(figures).chain(quantiles).chain(tail));
        }
        table
    }

    fn json(&self) -> Value {
        let rows = self.rows().map(|(peer, stage, histogram)| {
            let us = |nanos: f64| nanos / 1e3;
            let mut row = json!({
                "link": peer, "stage": stage.name, "class": stage.class, "count": histogram.len(),
                "mean_us": us(histogram.mean()), "sd_us": us(histogram.stdev()), "max_us": us(histogram.max() as f64),
                "error_us": self.error_us(peer, stage),
            });
            for (key, quantile) in QUANTILES {
                row[key] = us(histogram.value_at_quantile(quantile) as f64).into();
            }
            row
        });
        json!({ "latency": rows.collect::<Vec<_>>() })
    }

    /// Whether no stay in this router has a 99th percentile above `bound`.
    fn is_within(&self, bound: Duration) -> bool {
        let p99 = |histogram: &Histogram<u64>| Duration::from_nanos(histogram.value_at_quantile(0.99));
        self.rows().filter(|(_, stage, _)| stage.inside).all(|(_, _, histogram)| p99(histogram) <= bound)
    }
}

/// Shows them and says whether all is well. `last` are those shown before: then only what is new is shown.
pub(super) fn show_once(router: &Router, args: &Args, last: &mut Option<Latencies>) -> Result<bool, Failure> {
    let all = Latencies::ask(router)?;
    let shown = last.as_ref().map(|last| all.since(last));
    let shown = shown.as_ref().unwrap_or(&all);
    let mut well = args.within.is_none_or(|bound| shown.is_within(bound));
    if args.check {
        let Response::Links { links } = router.request(&Request::Links)? else { return Err(unexpected()) };
        well &= links.iter().all(|link| link.up);
    }
    if args.json {
        output::json(&shown.json())?;
    } else {
        output::print(shown.table())?;
    }
    *last = Some(all);
    Ok(well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Histogram as Recorder;

    fn worker(micros: &[u64]) -> Value {
        let mut wait = Recorder::new();
        micros.iter().for_each(|&micros| wait.record(Duration::from_micros(micros)));
        let entry = |name: &str, peer: Option<&str>, link: Option<u16>| json!({"name": name, "peer": peer, "link": link, "hdr": hlog::encode(wait.inner())});
        json!({
            "links": [{"link": 4, "stats": {"clock_error_us": 150}}],
            "histograms": [entry("turn", None, None), entry("one_way", Some("b"), Some(4)),
                entry("queue_delay_reliable", Some("b"), Some(4)), entry("of_a_later_version", None, None)],
        })
    }

    #[test]
    fn lanes_of_all_workers_are_one_row_and_one_way_delays_state_their_error() {
        let all = Latencies::new(&[worker(&[1_000; 3]), worker(&[3_000])]).expect("is read");
        let shown = all.table().to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 4, "{shown}");
        assert!(lines[1].starts_with("-        turn        -"), "the worker's own come first\n{shown}");
        assert!(lines[2].starts_with("b        queue-wait  reliable      4    1.5"), "{shown}");
        assert!(lines[3].ends_with("(± 0.150 ms)"), "{shown}");
        let rows = all.json();
        assert_eq!(rows["latency"][2]["error_us"], 150);
        assert_eq!(
            (&rows["latency"][1]["stage"], &rows["latency"][1]["error_us"]),
            (&json!("queue-wait"), &Value::Null)
        );
        assert!(rows["latency"][1]["p999_us"].as_f64().is_some_and(|us| (us - 3_000.0).abs() < 30.0), "{rows}");
    }

    #[test]
    fn only_what_is_new_is_shown_again() {
        let (before, now) = (Latencies::new(&[worker(&[9])]), Latencies::new(&[worker(&[9, 5_000])]));
        let (before, now) = (before.expect("is read"), now.expect("is read"));
        let new = now.since(&before);
        assert!(new.rows().all(|(_, _, histogram)| histogram.len() == 1 && histogram.min() > 4_900_000));
        assert_eq!(now.since(&now).rows().count(), 0);
        assert_eq!(before.since(&now).rows().count(), 3, "a router that was started anew");
    }

    #[test]
    fn stays_in_the_router_are_compared_with_a_bound() {
        let all = Latencies::new(&[worker(&[1_000])]).expect("is read");
        assert!(all.is_within(Duration::from_micros(1_020)) && !all.is_within(Duration::from_micros(900)));
    }
}
