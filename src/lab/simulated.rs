//! The same experiments in the simulator: virtual wires, virtual time, the routers' real protocols.
//!
//! There is no kernel in it, so no TCP to compare with, no machine noise and no bottleneck to share: the loss sweep and
//! the hops are run, throughput and fairness are said to be missing.

use super::args::{Args, Experiment};
use super::flows::{Flow, Measured};
use super::ladder::Mode;
use super::noise::Noise;
use super::outcome::{Cell, LinkTraffic, NotMeasured, Outcome, OverlayTraffic, Place, Run};
use super::progress::Voice;
use super::tally::{Sample, Tally};
use super::transport::Transport;
use crate::sim::experiment::{self, Chain};
use crate::sim::workload::Kind;
use crate::telemetry::Histogram;
use std::io;
use std::time::Duration;

/// Runs the experiment asked for.
pub(super) fn run(args: &Args) -> io::Result<Outcome> {
    let mut outcome = Outcome::new(args.experiment, Mode::Loopback, args.seed, true);
    outcome.mode = "simulated";
    let voice = Voice::new(args.quiet);
    for (place, rate) in places(args) {
        voice.say(format!("{} hops, {} % loss, {rate} kbit/s, simulated", place.hops, place.loss_percent));
        measure(args, &mut outcome, place, rate)?;
    }
    let missing = ["tcp-cubic", "raw-udp"].map(|transport| NotMeasured {
        transport: transport.into(),
        why: "there is no kernel in the simulator".into(),
        enable: "leave out --sim".into(),
    });
    outcome.not_measured.extend(missing);
    if outcome.runs.is_empty() {
        return Err(io::Error::other("throughput and fairness need the kernel's TCP to share with: leave out --sim"));
    }
    Ok(outcome)
}

/// Where to measure, and at which rate.
fn places(args: &Args) -> Vec<(Place, u64)> {
    let losses = || {
        let rates = args.rate.map_or(vec![500, 1000], |rate| vec![rate]);
        let losses = args.loss.map_or((0..=10).map(|step| f64::from(step) * 0.2).collect(), |loss| vec![loss]);
        let place = |loss| Place { loss_percent: loss, hops: 5, link_delay_ms: 10.0 };
        rates.into_iter().flat_map(move |rate| losses.clone().into_iter().map(move |loss| (place(loss), rate)))
    };
    let (loss, rate) = (args.loss.unwrap_or(1.0), args.rate.unwrap_or(500));
    let hops = (1..=10).map(|hops| (Place { loss_percent: loss, hops, link_delay_ms: 50.0 / hops as f64 }, rate));
    match args.experiment {
        Experiment::Default => {
            let (hops, delay) = (args.hops.unwrap_or(5) as usize, args.delay.unwrap_or(10.0));
            vec![(Place { loss_percent: loss, hops, link_delay_ms: delay }, rate)]
        }
        Experiment::Dsn03 => losses().chain(hops).collect(),
        Experiment::Hops => hops.collect(),
        Experiment::Fairness | Experiment::Throughput => Vec::new(),
    }
}

/// Both classes over one chain, one after the other.
fn measure(args: &Args, outcome: &mut Outcome, place: Place, rate: u64) -> io::Result<()> {
    let cell = outcome.cells.len();
    for (kind, transport) in [(Kind::BestEffort, Transport::BestEffort), (Kind::Stream, Transport::Reliable)] {
        let flow = Flow {
            from: "r0".into(),
            to: format!("r{}", place.hops),
            transport,
            messages: args.messages.unwrap_or(2000),
            size: args.size as usize,
            rate_kbps: rate,
        };
        let measured = experiment::run(&Chain {
            hops: place.hops,
            delay: Duration::from_secs_f64(place.link_delay_ms / 1e3),
            rate: None,
            loss: place.loss_percent / 100.0,
            kind,
            size: flow.size,
            interval: flow.interval(),
            messages: flow.messages as u32,
            seed: args.seed.wrapping_add(cell as u64),
        });
        if let Some(violation) = measured.violation {
            return Err(io::Error::other(violation));
        }
        let bytes = measured.link_bytes.iter().sum();
        let tally = tally(flow.messages, &measured.arrivals);
        let measured = Measured { flow, tally, sender: Histogram::new() };
        outcome.runs.push(Run::new(measured, &place, cell, Some(bytes)));
    }
    outcome.cells.push(Cell {
        loss_percent: place.loss_percent,
        rate_kbps: rate,
        hops: place.hops,
        link_delay_ms: place.link_delay_ms,
        noise: Noise::default(),
        links: Vec::<LinkTraffic>::new(),
        overlay: OverlayTraffic::default(),
    });
    Ok(())
}

fn tally(sent: u64, arrivals: &[crate::sim::workload::Arrival]) -> Tally {
    let mut tally = Tally::new(sent);
    let sample = |arrival: &crate::sim::workload::Arrival| Sample {
        intended: arrival.due,
        latency_ns: arrival.latency.as_nanos() as u64,
    };
    tally.samples.extend(arrivals.iter().map(sample));
    tally.reordered = arrivals.windows(2).filter(|pair| pair[1].due < pair[0].due).count() as u64;
    tally
}
