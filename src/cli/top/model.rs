//! What is shown: the difference of two samples.

use super::unexpected;
use crate::cli::failure::Failure;
use crate::cli::router::Router;
use crate::cli::show::latency::Latencies;
use crate::wire::admin::{LinkEntry, Request, Response};
use serde::Serialize;
use serde_json::Value;
use std::time::Instant;

/// A router's figures at one moment.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) router: String,
    pub(super) version: String,
    pub(super) io: String,
    pub(super) workers: Vec<Value>,
    pub(super) links: Vec<LinkEntry>,
}

impl Sample {
    pub(super) fn take(router: &Router) -> Result<Sample, Failure> {
        let Response::Whoami { name, version, io, .. } = router.request(&Request::Whoami)? else {
            return Err(unexpected());
        };
        let workers = super::ask(router)?;
        let at = Instant::now();
        let Response::Links { links } = router.request(&Request::Links)? else { return Err(unexpected()) };
        Ok(Sample { at, router: name, version, io, workers, links })
    }
}

/// What one sample says that the one before did not.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) router: String,
    pub(super) version: String,
    pub(super) io: String,
    /// Length of the interval; none if there is no sample before.
    pub(super) seconds: Option<f64>,
    pub(super) workers: Vec<Worker>,
    pub(super) links: Vec<Link>,
    #[serde(skip)]
    pub(super) latencies: Latencies,
}

/// A worker.
#[derive(Debug, Serialize)]
pub(super) struct Worker {
    pub(super) worker: usize,
    /// Share of the time that it worked.
    pub(super) busy_percent: f64,
    pub(super) turns_per_s: f64,
    pub(super) waits_per_s: f64,
    pub(super) calls_per_s: f64,
    pub(super) datagrams_in_per_s: f64,
    pub(super) datagrams_out_per_s: f64,
    pub(super) forwarded_per_s: f64,
    pub(super) dropped_per_s: f64,
    pub(super) pool_used: u64,
    pub(super) pool_slots: u64,
}

/// A link, or a lane of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Link {
    pub(super) peer: String,
    /// None of a whole link.
    pub(super) lane: Option<usize>,
    pub(super) up: bool,
    pub(super) since_s: f64,
    pub(super) rtt_ms: f64,
    pub(super) one_way_ms: Option<f64>,
    pub(super) one_way_error_ms: Option<f64>,
    pub(super) loss_percent: f64,
    pub(super) in_bit_per_s: f64,
    pub(super) out_bit_per_s: f64,
    pub(super) messages_in_per_s: f64,
    pub(super) messages_out_per_s: f64,
    pub(super) repeated_per_s: f64,
    pub(super) dropped_per_s: f64,
    pub(super) queue: u64,
    pub(super) in_flight: u64,
    pub(super) window: u64,
    pub(super) lanes: Vec<Link>,
}

impl View {
    /// `before`: the sample before; without one everything is of the router's whole life.
    pub(super) fn new(now: &Sample, before: Option<&Sample>) -> Result<View, Failure> {
        let unreadable = |error| Failure::failed("the router's histograms cannot be read", error);
        let mut latencies = Latencies::new(&now.workers).map_err(unreadable)?;
        if let Some(before) = before {
            latencies = latencies.since(&Latencies::new(&before.workers).map_err(unreadable)?);
        }
        let seconds = before.map(|before| (now.at - before.at).as_secs_f64());
        let rate = Rate { seconds: seconds.unwrap_or(f64::INFINITY) };
        let numbered = now.workers.iter().enumerate();
        let before = |number: usize| before.and_then(|before| before.workers.get(number)).unwrap_or(&Value::Null);
        let workers = numbered.clone().map(|(number, worker)| rate.worker(number, worker, before(number)));
        let links = now.links.iter().map(|entry| {
            let lanes = numbered.clone().filter_map(|(number, worker)| {
                let (now, was) = (find(worker, entry)?, find(before(number), entry).unwrap_or(&Value::Null));
                Some(rate.lane(number, entry, now, was))
            });
            whole(entry, lanes.collect())
        });
        Ok(View {
            router: now.router.clone(),
            version: now.version.clone(),
            io: now.io.clone(),
            seconds,
            workers: workers.collect(),
            links: links.collect(),
            latencies,
        })
    }
}

/// The lane of a link at a worker.
fn find<'a>(worker: &'a Value, entry: &LinkEntry) -> Option<&'a Value> {
    let node = entry.node.to_string();
    worker["links"].as_array()?.iter().find(|link| link["peer"].as_str() == Some(&node))
}

/// A link of all its lanes.
fn whole(entry: &LinkEntry, lanes: Vec<Link>) -> Link {
    let sum = |of: fn(&Link) -> f64| lanes.iter().map(of).sum();
    let count = |of: fn(&Link) -> u64| lanes.iter().map(of).sum();
    let worst = |of: fn(&Link) -> Option<f64>| lanes.iter().filter_map(of).reduce(f64::max);
    Link {
        peer: entry.peer.clone(),
        lane: None,
        up: entry.up,
        since_s: entry.since_s,
        rtt_ms: entry.metrics.rtt.as_secs_f64() * 1e3,
        one_way_ms: worst(|lane| lane.one_way_ms),
        one_way_error_ms: worst(|lane| lane.one_way_error_ms),
        loss_percent: f64::from(entry.metrics.loss_ppm) / 1e4,
        in_bit_per_s: sum(|lane| lane.in_bit_per_s),
        out_bit_per_s: sum(|lane| lane.out_bit_per_s),
        messages_in_per_s: sum(|lane| lane.messages_in_per_s),
        messages_out_per_s: sum(|lane| lane.messages_out_per_s),
        repeated_per_s: sum(|lane| lane.repeated_per_s),
        dropped_per_s: sum(|lane| lane.dropped_per_s),
        queue: count(|lane| lane.queue),
        in_flight: count(|lane| lane.in_flight),
        window: count(|lane| lane.window),
        lanes,
    }
}

/// Differences by time.
struct Rate {
    seconds: f64,
}

impl Rate {
    /// A router that was started anew counts from zero again.
    fn of(&self, now: f64, before: f64) -> f64 {
        (if now < before { now } else { now - before }) / self.seconds
    }

    /// Of the counters at these places.
    fn counted(&self, now: &Value, before: &Value, places: &[&str]) -> f64 {
        let sum =
            |value: &Value| places.iter().map(|at| value.pointer(at).and_then(Value::as_f64).unwrap_or(0.0)).sum();
        self.of(sum(now), sum(before))
    }

    fn dropped(&self, now: &Value, before: &Value) -> f64 {
        let sum = |value: &Value| {
            let counts = value.as_object().into_iter().flat_map(|drops| drops.values());
            counts.filter_map(Value::as_f64).sum()
        };
        self.of(sum(now), sum(before))
    }

    fn worker(&self, worker: usize, now: &Value, before: &Value) -> Worker {
        let counted = |place| self.counted(now, before, &[place]);
        let worked = |value: &Value| {
            let figure = |key| value["turn"][key].as_f64().unwrap_or(0.0);
            figure("mean_us") * figure("count") / 1e6
        };
        Worker {
            worker,
            busy_percent: 100.0 * self.of(worked(now), worked(before)).min(1.0),
            turns_per_s: counted("/driver/turns"),
            waits_per_s: counted("/driver/waits"),
            calls_per_s: counted("/driver/calls"),
            datagrams_in_per_s: counted("/datagrams_in"),
            datagrams_out_per_s: counted("/datagrams_out"),
            forwarded_per_s: counted("/forwarded"),
            dropped_per_s: self.dropped(&now["drops"], &before["drops"]) + counted("/driver/socket_overflows"),
            pool_used: now["pool"][0].as_u64().unwrap_or(0),
            pool_slots: now["pool"][1].as_u64().unwrap_or(0),
        }
    }

    fn lane(&self, worker: usize, entry: &LinkEntry, now: &Value, before: &Value) -> Link {
        let counted = |places: &[&str]| self.counted(&now["stats"], &before["stats"], places);
        let figure = |key: &str| now["stats"][key].as_u64();
        let ms = |key: &str| now["stats"][key].as_f64().map(|us| us / 1e3);
        Link {
            peer: entry.peer.clone(),
            lane: Some(worker),
            up: now["up"] == true,
            since_s: entry.since_s,
            rtt_ms: ms("rtt_us").unwrap_or(0.0),
            one_way_ms: ms("one_way_us"),
            one_way_error_ms: ms("clock_error_us"),
            loss_percent: now["metrics"]["loss_ppm"].as_f64().unwrap_or(0.0) / 1e4,
            in_bit_per_s: 8.0 * counted(&["/bytes_in"]),
            out_bit_per_s: 8.0 * counted(&["/bytes_out"]),
            messages_in_per_s: counted(&["/best_effort/received", "/reliable/received"]),
            messages_out_per_s: counted(&["/best_effort/sent", "/reliable/sent"]),
            repeated_per_s: counted(&["/retransmissions"]),
            dropped_per_s: self.dropped(&now["stats"]["drops"], &before["stats"]["drops"]),
            queue: figure("queue").unwrap_or(0),
            in_flight: figure("in_flight").unwrap_or(0),
            window: figure("window").unwrap_or(0),
            lanes: Vec::new(),
        }
    }
}
