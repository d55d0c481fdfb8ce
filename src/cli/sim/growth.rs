//! `sinew sim --growth`: what a network costs for its size.

use super::super::failure::Failure;
use super::super::output;
use crate::runtime::memory::resident_kib;
use crate::sim::growth::{Growth, Phase, Step};
use crate::telemetry::table::Table;
use serde::Serialize;
use std::time::Instant;

/// A phase, and what it cost this machine.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    phase: Phase,
    wall_s: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    seed: u64,
    routers: usize,
    links: usize,
    phases: Vec<Row>,
    /// Resident memory of this process at the end, by router, KiB; none if the system does not say.
    memory_per_router_kib: Option<f64>,
    /// Building the network and all phases, s.
    wall_s: f64,
    events: u64,
    /// What did not come right in time, if anything.
    failed: Option<String>,
}

/// Runs it; four links a router unless told otherwise, as far as there are pairs.
pub(super) fn run(routers: usize, links: Option<usize>, seed: u64, json: bool) -> Result<(), Failure> {
    let (least, most) = (routers - 1, routers * (routers - 1) / 2);
    let links = links.unwrap_or((4 * routers).min(most));
    if !(least..=most).contains(&links) {
        let why = format!("{routers} routers are joined by {least} to {most} links, not by {links}");
        return Err(Failure::Usage(why));
    }
    let report = measure(routers, links, seed);
    if json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    if report.failed.is_none() { Ok(()) } else { Err(Failure::Degraded) }
}

fn measure(routers: usize, links: usize, seed: u64) -> Report {
    let (started, before) = (Instant::now(), resident_kib(std::process::id()));
    output::note(format_args!("{routers} routers, {links} links"));
    let mut growth = Growth::new(routers, links, seed);
    let (mut phases, mut failed) = (Vec::new(), None);
    for step in Step::ALL {
        let began = Instant::now();
        match growth.go(step) {
            Ok(phase) => {
                let wall_s = began.elapsed().as_secs_f64();
                output::note(format_args!("{}: {:.2} s of its time, {wall_s:.1} s of ours", name(step), phase.took_s));
                phases.push(Row { phase, wall_s });
            }
            Err(why) => {
                failed = Some(format!("{}: {why}", name(step)));
                break;
            }
        }
    }
    let grown = resident_kib(std::process::id()).zip(before).map(|(after, before)| after.saturating_sub(before));
    Report {
        version: env!("CARGO_PKG_VERSION"),
        seed,
        routers,
        links,
        phases,
        memory_per_router_kib: grown.map(|kib| kib as f64 / routers as f64),
        wall_s: started.elapsed().as_secs_f64(),
        events: growth.world().events(),
        failed,
    }
}

const fn name(step: Step) -> &'static str {
    match step {
        Step::Boot => "boot",
        Step::Rest => "rest",
        Step::Lose => "loss of a tenth",
        Step::Heal => "return",
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    let mut table = Table::new([
        "phase",
        ">routers",
        ">diameter",
        ">agreed after s",
        ">bound s",
        ">bytes/s each",
        ">datagrams/s each",
        ">news each",
        ">repeated each",
        ">computations each",
        ">wall s",
    ]);
    for Row { phase, wall_s } in &report.phases {
        let rests = phase.step == Step::Rest;
        table.row([
            name(phase.step).to_owned(),
            phase.routers.to_string(),
            phase.diameter.to_string(),
            if rests { "-".into() } else { format!("{:.2}", phase.took_s) },
            if rests { "-".into() } else { format!("{:.1}", phase.bound_s) },
            format!("{:.0}", phase.bytes_per_router_s),
            format!("{:.0}", phase.datagrams_per_router_s),
            format!("{:.0}", phase.news_per_router),
            format!("{:.0}", phase.repeated_per_router),
            format!("{:.1}", phase.computations_per_router),
            format!("{wall_s:.1}"),
        ]);
    }
    output::line(format_args!("{table}"))?;
    if let Some(memory) = report.memory_per_router_kib {
        output::line(format_args!("memory: {memory:.0} KiB a router, with its part of the simulator"))?;
    }
    output::line(format_args!("{} events in {:.1} s", report.events, report.wall_s))?;
    match &report.failed {
        Some(why) => output::line(format_args!("FAILED: {why}")),
        None => Ok(()),
    }
}
