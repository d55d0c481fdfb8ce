//! Within what a healed core must have converged and delivered: computed from its shape and from what it went through.

use super::fault::Step;
use super::ledger::Struck;
use super::workload::Spec;
use super::world::World;
use crate::base::Instant;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Three handshakes without an answer, each after 0.6 s, a pause of 2.4 s after the eighth, and then the other end's own:
/// a router whose clock went back cannot ask, it must be asked.
const KEYS: Duration = Duration::from_secs(8);
/// Longest hold-down of a flapping link, and its first.
const HOLD_MAX: Duration = Duration::from_secs(30);
const HOLD_FIRST: Duration = Duration::from_secs(1);
/// An unanswered request for advertisements is repeated after this.
const REQUEST: Duration = Duration::from_secs(2);
/// Databases are compared this often: mends what full queues lost.
const SUMMARY: Duration = Duration::from_secs(66);
/// What an advertisement waits at each router at most, lost packets of the healed wires (none) apart.
const FLOOD: Duration = Duration::from_millis(50);
/// An answer to an advertisement of one's own former life waits so long.
const FIGHT: Duration = Duration::from_secs(1);
/// End-to-end repair backs off to at most this, and a flow may need a few rounds.
const REPAIR: Duration = Duration::from_secs(5);
/// A stream that is not answered is given up after this, and opened again.
const GIVE_UP: Duration = Duration::from_secs(30);

/// The parts of the bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bound {
    /// Links on the longest shortest way in the core.
    pub diameter: usize,
    /// Seconds until the last dead link is noticed.
    pub detection_s: f64,
    /// Seconds until the last link has keys.
    pub keys_s: f64,
    /// Seconds that a flapping link is held down.
    pub hold_s: f64,
    /// Seconds until lost control messages are noticed.
    pub exchange_s: f64,
    /// Seconds for floods across the core.
    pub flood_s: f64,
    /// Seconds from healing to convergence, at most.
    pub converge_s: f64,
    /// Seconds from convergence until everything has arrived, at most.
    pub deliver_s: f64,
}

impl Bound {
    /// The bound for a core that heals now.
    pub(super) fn of(world: &World, core: &[usize], steps: &[Step], flows: &[Spec]) -> Bound {
        let diameter = world.topology().diameter(core);
        let longest = world.wires().map(|(_, wire)| wire.conditions.longest()).max().unwrap_or_default();
        let settings = world.settings();
        let detection = settings.dead + settings.hello + longest;
        let keys = KEYS + longest * 8;
        let exchange = if lost_control(world) { SUMMARY } else { REQUEST };
        let flood = (longest + FLOOD) * (4 * diameter as u32) + FIGHT * 2;
        let hold = hold(world, core);
        let converge = detection + keys + hold + exchange + flood;
        let last = flows.iter().map(|flow| flow.due(flow.messages)).max().unwrap_or_default();
        let last = last.max(steps.last().map_or(Instant::ZERO, |step| step.at));
        let deliver = last.since(world.now()) + GIVE_UP + REPAIR * 4 + hold + detection;
        Bound {
            diameter,
            detection_s: detection.as_secs_f64(),
            keys_s: keys.as_secs_f64(),
            hold_s: hold.as_secs_f64(),
            exchange_s: exchange.as_secs_f64(),
            flood_s: flood.as_secs_f64(),
            converge_s: converge.as_secs_f64(),
            deliver_s: deliver.as_secs_f64(),
        }
    }

    /// From healing to convergence, at most.
    pub fn converge(&self) -> Duration {
        Duration::from_secs_f64(self.converge_s)
    }

    /// From convergence until everything has arrived, at most.
    pub fn deliver(&self) -> Duration {
        Duration::from_secs_f64(self.deliver_s)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "converged within {:.1} s (detection {:.1}, keys {:.1}, hold-down {:.1}, exchange {:.1}, flooding over {} hops \
             {:.1}), delivered within {:.1} s more",
            self.converge_s,
            self.detection_s,
            self.keys_s,
            self.hold_s,
            self.exchange_s,
            self.diameter,
            self.flood_s,
            self.deliver_s
        )
    }
}

/// Whether control messages may have been lost between shard and control or before a link.
fn lost_control(world: &World) -> bool {
    let ledger = world.ledger();
    let strained =
        [Struck::CommandRing, Struck::ReportRing, Struck::Slow, Struck::Freeze].iter().any(|&s| ledger.get(s) > 0);
    strained || ledger.rare.iter().any(|&count| count > 0) || world.settings().pool < 1024
}

/// How long the link of the core that flapped most may still be held down.
fn hold(world: &World, core: &[usize]) -> Duration {
    let downs = |&router: &usize| {
        let lanes = world.stats(router)?.into_iter().flat_map(|stats| stats.links);
        lanes.map(|lane| lane.stats.downs).max()
    };
    match core.iter().filter_map(downs).max().unwrap_or(0) {
        0 => Duration::ZERO,
        downs => (HOLD_FIRST * (1 << downs.min(5) as u32)).min(HOLD_MAX),
    }
}
