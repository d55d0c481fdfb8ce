//! The script of what goes wrong.

use super::topology::Topology;
use super::wire::Conditions;
use super::world::World;
use crate::base::{Instant, Rng};
use std::time::Duration;

/// One thing that goes wrong, or is mended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// One direction of a wire changes.
    Wire(usize, usize, Conditions),
    /// Both directions of a wire are cut.
    Cut(usize, usize),
    /// Both directions of a wire are whole again.
    Mend(usize, usize),
    /// A router dies with all it knew.
    Crash(usize),
    /// A dead router starts.
    Restart(usize),
}

/// Faults with their times, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script(pub Vec<(Instant, Fault)>);

/// Which faults a seed is troubled by, each with its own strength (swarm testing: most seeds have some, few have all).
#[derive(Clone, Copy, Debug)]
struct Mix {
    loss: f64,
    burst: f64,
    reorder: f64,
    duplicate: f64,
    corrupt: f64,
    jitter: f64,
    rate: bool,
    cuts: u64,
    crashes: u64,
}

impl Mix {
    fn draw(rng: &mut Rng) -> Mix {
        let mut some = |most: f64| if rng.chance(0.5) { most * rng.unit() } else { 0.0 };
        let (loss, burst) = (some(0.15), some(0.3));
        let (reorder, duplicate, corrupt, jitter) = (some(0.1), some(0.05), some(0.02), some(0.5));
        Mix {
            loss,
            burst,
            reorder,
            duplicate,
            corrupt,
            jitter,
            rate: rng.chance(0.3),
            cuts: if rng.chance(0.5) { 1 + rng.below(4) } else { 0 },
            crashes: if rng.chance(0.4) { 1 + rng.below(3) } else { 0 },
        }
    }

    fn conditions(&self, rng: &mut Rng) -> Conditions {
        let delay = Duration::from_micros(200 + rng.below(30_000));
        Conditions {
            jitter: delay.mul_f64(self.jitter * rng.unit()),
            loss: self.loss * rng.unit(),
            burst: self.burst,
            reorder: self.reorder * rng.unit(),
            duplicate: self.duplicate * rng.unit(),
            corrupt: self.corrupt * rng.unit(),
            rate: self.rate.then(|| 2_000_000 + rng.below(20_000_000)),
            ..Conditions::perfect(delay)
        }
    }
}

impl Script {
    /// What goes wrong between zero and `end` in a network of this shape. At `end` everything is whole and running
    /// again, with faultless wires.
    pub fn draw(topology: &Topology, end: Instant, rng: &mut Rng) -> Script {
        let mix = Mix::draw(rng);
        let mut script = Vec::new();
        for &(a, b) in &topology.links {
            for (from, to) in [(a, b), (b, a)] {
                script.push((Instant::ZERO, Fault::Wire(from, to, mix.conditions(rng))));
                let mended = Conditions::perfect(Duration::from_micros(200 + rng.below(20_000)));
                script.push((end, Fault::Wire(from, to, mended)));
            }
        }
        let span = end.as_nanos();
        for _ in 0..mix.cuts {
            let (a, b) = topology.links[rng.below(topology.links.len() as u64) as usize];
            let (from, to) = interval(span, rng);
            script.push((from, Fault::Cut(a, b)));
            script.push((to, Fault::Mend(a, b)));
        }
        for _ in 0..mix.crashes {
            let router = rng.below(topology.routers as u64) as usize;
            let (from, to) = interval(span, rng);
            script.push((from, Fault::Crash(router)));
            script.push((to, Fault::Restart(router)));
        }
        script.extend((0..topology.routers).map(|router| (end, Fault::Restart(router))));
        script.sort_by_key(|&(at, _)| at);
        Script(script)
    }
}

/// A part of the first `span` nanoseconds, the first half second left in peace so that something is there to be broken.
fn interval(span: u64, rng: &mut Rng) -> (Instant, Instant) {
    let from = 500_000_000 + rng.below(span - 600_000_000);
    let len = 10_000_000 + rng.below(3_000_000_000);
    (Instant::from_nanos(from), Instant::from_nanos((from + len).min(span)))
}

impl Fault {
    /// Lets it happen. What has happened already (a dead router dies) changes nothing.
    pub fn strike(self, world: &mut World) {
        match self {
            Fault::Wire(from, to, conditions) => world.wire_mut(from, to).conditions = conditions,
            Fault::Cut(a, b) | Fault::Mend(a, b) => {
                let cut = matches!(self, Fault::Cut(..));
                world.wire_mut(a, b).conditions.cut = cut;
                world.wire_mut(b, a).conditions.cut = cut;
            }
            Fault::Crash(router) => {
                if world.is_running(router) {
                    world.crash(router);
                }
            }
            Fault::Restart(router) => {
                if !world.is_running(router) {
                    world.start(router);
                }
            }
        }
    }
}
