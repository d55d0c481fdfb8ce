//! Everything that makes a run: drawn from a seed, or read from a scenario file.
//!
//! A scenario file is TOML: `seed`, `heal-at`, `core`, then `[knobs]`, `[topology]`, `[[flow]]`s and `[[step]]`s. The same
//! plan always gives the same run, to the byte, whether it was drawn or read.

use super::conditions::Conditions;
use super::fault::{Metric, Step};
use super::topology::{LinkSettings, Topology};
use super::units::{millis, seconds};
use super::vips::Vips;
use super::workload::{Kind, Spec};
use super::{MOST_WORKERS, swarm};
use crate::base::hash::mix64;
use crate::base::limits::MAX_WORKERS;
use crate::base::{Instant, Rng};
use crate::config::settings::Congestion;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Bounds of what a file may ask for.
const MAX_ROUTERS: usize = 1000;
const MAX_FLOWS: usize = 4096;
const MAX_MESSAGE: usize = 64 * 1024;
/// This share of the seeds has many flows that end at once.
const BRIEF: f64 = 0.5;

/// The settings of all routers and links that vary from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Knobs {
    /// Time between hellos, ms.
    #[serde(with = "millis")]
    pub hello: Duration,
    /// Silence after which a link is dead, ms.
    #[serde(with = "millis")]
    pub dead: Duration,
    /// Delay bound of a link's queue, ms.
    #[serde(with = "millis")]
    pub queue_delay: Duration,
    /// Most messages in a link's queue.
    pub queue: usize,
    /// Slots of a router's packet pool.
    pub pool: usize,
    /// What paths are short in.
    pub metric: Metric,
    /// Age at which keys are replaced, ms; 0 for the usual one.
    #[serde(with = "millis")]
    pub rekey: Duration,
    /// The fixed rate of every link, kbit/s; 0 for a fair share.
    pub kbps: u64,
    /// Only one end of every link knows the other's address.
    pub one_ended: bool,
    /// The ends of every link share a secret.
    pub preshared: bool,
}

impl Default for Knobs {
    fn default() -> Knobs {
        let usual = LinkSettings::default();
        Knobs {
            hello: usual.hello,
            dead: usual.dead,
            queue_delay: usual.queue_delay,
            queue: usual.queue,
            pool: usual.pool,
            metric: Metric::Expected,
            rekey: Duration::ZERO,
            kbps: 0,
            one_ended: false,
            preshared: false,
        }
    }
}

impl Knobs {
    fn draw(rng: &mut Rng) -> Knobs {
        let usual = Knobs::default();
        let metrics = [Metric::Hops, Metric::Latency, Metric::Loss];
        let hello = match rng.below(10) {
            0 => Duration::from_millis(10),
            1 => Duration::from_millis(100),
            _ => usual.hello,
        };
        Knobs {
            hello,
            dead: hello * 7,
            queue_delay: if rng.chance(0.2) { Duration::from_millis(5 + rng.below(60)) } else { usual.queue_delay },
            queue: if rng.chance(0.2) { 64 + rng.below(512) as usize } else { usual.queue },
            pool: if rng.chance(0.2) { 512 + rng.below(2048) as usize } else { usual.pool },
            metric: if rng.chance(0.2) { metrics[rng.below(3) as usize] } else { usual.metric },
            rekey: if rng.chance(0.3) { Duration::from_millis(2000 + rng.below(10_000)) } else { usual.rekey },
            kbps: if rng.chance(0.1) { 5_000 + rng.below(20_000) } else { usual.kbps },
            one_ended: rng.chance(0.15),
            preshared: rng.chance(0.3),
        }
    }

    /// As topologies take them.
    pub fn link_settings(&self) -> LinkSettings {
        LinkSettings {
            hello: self.hello,
            dead: self.dead,
            queue_delay: self.queue_delay,
            queue: self.queue,
            pool: self.pool,
            metric: self.metric.into(),
            rekey: (!self.rekey.is_zero()).then_some(self.rekey),
            congestion: if self.kbps == 0 { Congestion::Cubic } else { Congestion::FixedKbps(self.kbps) },
            one_ended: self.one_ended,
            preshared: self.preshared,
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// What it shows or once showed, in a sentence.
    #[serde(default)]
    pub history: String,
    /// What all chance in the run is drawn from; below 2^63.
    pub seed: u64,
    /// When the core heals, seconds from the start.
    #[serde(with = "seconds")]
    pub heal_at: Instant,
    /// The routers that heal.
    pub core: Vec<usize>,
    /// Settings.
    #[serde(default)]
    pub knobs: Knobs,
    /// Routers and links.
    pub topology: Topology,
    /// The group that shares service addresses, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vips: Option<Vips>,
    /// Applications.
    #[serde(default, rename = "flow")]
    pub flows: Vec<Spec>,
    /// What goes wrong, in order of time.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
}

impl Plan {
    /// The run of a seed, with so many routers, two at least. A third of the seeds has a group that shares service
    /// addresses; `grouped`: all have, and those that had one already are the same.
    pub fn draw(seed: u64, routers: RangeInclusive<usize>, grouped: bool) -> Plan {
        let (fewest, most) = (*routers.start(), *routers.end());
        assert!(2 <= fewest && fewest <= most, "a network has two routers at least");
        let mut rng = Rng::from_u64(seed);
        let routers = fewest + rng.below((most - fewest) as u64 + 1) as usize;
        let topology = Topology::random(routers, &mut rng);
        let mut topology = Topology { workers: draw_workers(routers, seed), ..topology };
        let vips = Vips::draw(seed, grouped, &mut topology);
        // Standing still for up to a minute takes a longer run; few seeds have it.
        let long = rng.chance(0.04);
        let faults = if long { 10_000 + rng.below(65_000) } else { 6_000 + rng.below(5_000) };
        let heal_at = Instant::from_millis(faults);
        let knobs = Knobs::draw(&mut rng);
        let mut steps = swarm::draw(&topology, heal_at, long, &mut rng);
        steps.extend(vips.iter().flat_map(|vips| vips.draw_steps(seed, heal_at)));
        steps.sort_by_key(|step| step.at);
        let mut core = swarm::draw_core(&topology, &mut rng);
        // What a group must come to is known where all of it heals.
        if vips.iter().flat_map(|vips| &vips.members).any(|member| !core.contains(member)) {
            core = (0..routers).collect();
        }
        let flows = 1 + rng.below(2 * routers as u64) as u32;
        let brief = if rng.chance(BRIEF) { rng.below(6 * routers as u64) as u32 } else { 0 };
        let flow = |number| match draw_flow(number, routers, heal_at, &mut rng) {
            spec if number < flows => spec,
            spec => make_brief(spec, &mut rng),
        };
        let flows = (0..flows + brief).map(flow).collect();
        let seed = rng.next_u64() >> 1;
        Plan { history: String::new(), seed, heal_at, core, knobs, topology, vips, flows, steps }
    }

    /// Reads a scenario file and checks that it can be run.
    pub fn parse(text: &str) -> Result<Plan, String> {
        let mut plan: Plan = toml::from_str(text).map_err(|error| error.to_string())?;
        plan.steps.sort_by_key(|step| step.at);
        plan.check()?;
        Ok(plan)
    }

    /// The scenario file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a plan is plain tables")
    }

    fn check(&self) -> Result<(), String> {
        let Topology { routers, ref links, ref workers } = self.topology;
        if !(2..=MAX_ROUTERS).contains(&routers) {
            return Err(format!("a network has 2 to {MAX_ROUTERS} routers"));
        }
        if let Some(wrong) = links.iter().find(|&&(a, b)| a >= b || b >= routers) {
            return Err(format!("link {wrong:?}: a link joins two routers, the smaller number first"));
        }
        if workers.len() > routers || !workers.iter().all(|count| (1..=MAX_WORKERS).contains(count)) {
            return Err(format!("each router has 1 to {MAX_WORKERS} workers"));
        }
        let mut once = links.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != links.len() {
            return Err("two links join the same routers".to_owned());
        }
        if let Some(vips) = self.vips.as_ref().filter(|vips| !vips.fits(&self.topology)) {
            return Err(format!("a group is two or more routers, ascending, each linked with each other: {vips:?}"));
        }
        if self.core.iter().any(|&router| router >= routers) || !self.topology.connects(&self.core) {
            return Err("the core is a set of routers that links among themselves connect".to_owned());
        }
        let wrong = |flow: &&Spec| {
            let ends = flow.from < routers && flow.to < routers && flow.from != flow.to;
            !ends || !(Spec::HEADER..=MAX_MESSAGE).contains(&flow.size) || flow.port == 0
        };
        if let Some(flow) = self.flows.iter().find(wrong) {
            return Err(format!("a flow joins two routers and its messages have 16 to {MAX_MESSAGE} bytes: {flow:?}"));
        }
        if self.flows.len() > MAX_FLOWS {
            return Err(format!("at most {MAX_FLOWS} flows"));
        }
        match self.steps.iter().find(|step| !step.fault.fits(routers, links)) {
            Some(step) => Err(format!("no such router or link: {step:?}")),
            None => Ok(()),
        }
    }

    /// The condition of all wires before the first step.
    pub(super) fn conditions(&self) -> Conditions {
        Conditions::default()
    }
}

/// Workers of each router: one everywhere, as many everywhere, or any number anywhere. Drawn apart from all else, so that
/// runs of one seed differ in nothing else where this changes.
fn draw_workers(routers: usize, seed: u64) -> Vec<usize> {
    let mut rng = Rng::from_u64(mix64(seed));
    let mut some = |least: u64| (least + rng.below(MOST_WORKERS - least + 1)) as usize;
    match some(1) {
        1 => Vec::new(),
        2 => vec![some(2); routers],
        _ => (0..routers).map(|_| some(1)).collect(),
    }
}

fn draw_flow(number: u32, routers: usize, heal_at: Instant, rng: &mut Rng) -> Spec {
    let from = rng.below(routers as u64) as usize;
    let to = (from + 1 + rng.below(routers as u64 - 1) as usize) % routers;
    let kind = Kind::ALL[rng.below(4) as usize];
    let size = match rng.below(4) {
        0 => Spec::HEADER + rng.below(100) as usize,
        1 | 2 => 200 + rng.below(1000) as usize,
        _ => 1200 + rng.below(8000) as usize,
    };
    let latest = heal_at.as_nanos() / 1_000_000 - 1000;
    Spec {
        kind,
        from,
        to,
        port: 1000 + number as u16,
        messages: 20 + rng.below(400) as u32,
        size,
        interval: Duration::from_micros(2_000 + rng.below(40_000)),
        start: Instant::from_millis(300 + rng.below(latest)),
        leaves: rng.chance(0.3),
    }
}

/// A question or a notice: its sender is gone before anything was answered.
fn make_brief(spec: Spec, rng: &mut Rng) -> Spec {
    let (messages, interval) = (1 + rng.below(4) as u32, Duration::from_micros(rng.below(3000)));
    Spec { messages, interval, size: spec.size.min(Spec::HEADER + 2000), leaves: true, ..spec }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_being_written_and_read() {
        for seed in 0..200 {
            let plan = Plan::draw(seed, 2..=12, seed % 2 == 0);
            let read = Plan::parse(&plan.to_toml());
            assert_eq!(read.as_ref(), Ok(&plan), "seed {seed}\n{}", plan.to_toml());
        }
    }

    #[test]
    fn wrong_files_are_refused_with_a_reason() {
        let good = Plan::draw(3, 2..=4, false).to_toml();
        for (from, to) in [("seed = ", "sead = "), ("routers = ", "routers = 9999 # "), ("core = [", "core = [77, ")] {
            let wrong = good.replacen(from, to, 1);
            assert!(Plan::parse(&wrong).is_err(), "{to}");
        }
    }
}
