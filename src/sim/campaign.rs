//! Runs seeds: faults first, healing afterwards, and a verdict.

use super::check;
use super::fault::Script;
use super::topology::{LinkSettings, Topology};
use super::wire::{Conditions, WireCounts};
use super::workload::{Flow, Kind, Spec};
use super::world::World;
use crate::base::{Instant, Rng};
use std::fmt;
use std::time::Duration;

/// Virtual length of the phase in which things go wrong.
const FAULTS: Duration = Duration::from_secs(8);
/// How long after healing every router must know every other. Detection (0.3 s), a handshake retry (0.6 s), the damping
/// of flapping links and a few floods across twelve routers fit in it several times.
const CONVERGE: Duration = Duration::from_secs(15);
/// How long after that everything must have arrived: end-to-end repair backs off to at most five seconds, and a rate
/// limited wire may have a backlog.
const DELIVER: Duration = Duration::from_secs(60);

/// What a seed is run with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most routers.
    pub routers: usize,
    /// Whether to write every event down.
    pub log: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { routers: 12, log: false }
    }
}

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Routers of its network.
    pub routers: usize,
    /// A hash of everything that happened.
    pub trace: u64,
    /// Events.
    pub events: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// Messages delivered.
    pub delivered: u64,
    /// What the wires did, summed.
    pub wires: WireCounts,
    /// Time from healing to convergence.
    pub converged_after: Option<Duration>,
    /// The first broken rule.
    pub failure: Option<String>,
    /// Every event, if asked for.
    pub log: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.failure.as_deref().unwrap_or("passed");
        write!(f, "seed {} ({} routers, trace {:016x}): {verdict}", self.seed, self.routers, self.trace)
    }
}

/// Runs one seed.
pub fn run(seed: u64, settings: &Settings) -> Outcome {
    let mut rng = Rng::from_u64(seed);
    let routers = 2 + rng.below(settings.routers as u64 - 1) as usize;
    let topology = Topology::random(routers, &mut rng);
    let healed = Instant::ZERO + FAULTS;
    let script = Script::draw(&topology, healed, &mut rng);
    let wires = Conditions::perfect(Duration::from_millis(1));
    let mut world = World::new(topology, LinkSettings::default(), wires, rng.next_u64());
    if settings.log {
        world.keep_log();
    }
    for number in 0..1 + rng.below(2 * routers as u64) as u32 {
        let spec = draw_flow(number, routers, &mut rng);
        world.add_flow(Flow::new(number, spec));
    }
    for (at, fault) in script.0 {
        world.run_until(at);
        fault.strike(&mut world);
    }
    let (failure, converged_after) = heal(&mut world, healed);
    outcome(seed, &world, failure, converged_after)
}

fn draw_flow(number: u32, routers: usize, rng: &mut Rng) -> Spec {
    let from = rng.below(routers as u64) as usize;
    let to = (from + 1 + rng.below(routers as u64 - 1) as usize) % routers;
    let kind = Kind::ALL[rng.below(4) as usize];
    let size = match rng.below(4) {
        0 => Spec::HEADER + rng.below(100) as usize,
        1 | 2 => 200 + rng.below(1000) as usize,
        _ => 1200 + rng.below(8000) as usize,
    };
    Spec {
        kind,
        from,
        to,
        port: 1000 + number as u16,
        messages: 20 + rng.below(400) as u32,
        size,
        interval: Duration::from_micros(2_000 + rng.below(40_000)),
        start: Instant::from_millis(300 + rng.below(4000)),
    }
}

/// The second phase: everything works, so everything must come right.
fn heal(world: &mut World, healed: Instant) -> (Option<String>, Option<Duration>) {
    let step = Duration::from_millis(50);
    if let Err(broken) = check::sound(world).and_then(|()| check::accounted(world)) {
        return (Some(broken), None);
    }
    let converged = world.run_while(healed + CONVERGE, step, |world| check::converged(world).is_ok());
    if !converged {
        return (check::converged(world).err().map(|why| format!("not converged after {CONVERGE:?}: {why}")), None);
    }
    let after = Some(world.now().since(healed));
    let end = world.now() + DELIVER;
    let delivered = world.run_while(end, step, |world| check::delivered(world).is_ok() || check::sound(world).is_err());
    if let Err(broken) = check::sound(world) {
        return (Some(broken), after);
    }
    if !delivered {
        return (check::delivered(world).err().map(|why| format!("not delivered after {DELIVER:?}: {why}")), after);
    }
    // Let the last acknowledgements arrive, then count what is still held.
    let returned =
        world.run_while(world.now() + Duration::from_secs(10), step, |world| check::memory_returned(world).is_ok());
    if !returned {
        return (check::memory_returned(world).err(), after);
    }
    // A fresh measurement may be on its way between two routers at any moment, but not at every moment.
    world.run_while(world.now() + Duration::from_secs(5), step, |world| check::converged(world).is_ok());
    let last = check::sound(world).and_then(|()| check::converged(world)).and_then(|()| check::accounted(world));
    (last.err(), after)
}

fn outcome(seed: u64, world: &World, failure: Option<String>, converged_after: Option<Duration>) -> Outcome {
    let mut wires = WireCounts::default();
    for (_, wire) in world.wires() {
        wires.sent += wire.counts.sent;
        wires.bytes += wire.counts.bytes;
        wires.lost += wire.counts.lost;
        wires.overflowed += wire.counts.overflowed;
        wires.cut += wire.counts.cut;
        wires.reordered += wire.counts.reordered;
        wires.duplicated += wire.counts.duplicated;
        wires.corrupted += wire.counts.corrupted;
    }
    Outcome {
        seed,
        routers: world.topology().routers,
        trace: world.trace(),
        events: world.events(),
        simulated: world.now().since(Instant::ZERO),
        delivered: world.flows().iter().map(|flow| u64::from(flow.delivered())).sum(),
        wires,
        converged_after,
        failure,
        log: world.log().map(str::to_owned),
    }
}
