//! Runs plans: faults first, healing afterwards, and a verdict.

pub use super::bound::Bound;
use super::check::loops::Loops;
use super::check::{bounds, convergence, counters, delivery, hops, links, memory, sound, vips};
use super::fault::Step;
use super::ledger::Ledger;
pub use super::observe::Detection;
use super::plan::Plan;
use super::workload::Flow;
use super::world::World;
use crate::base::sabotage::{Rule, break_rule};
use crate::base::{Instant, rare};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How often the checkers look.
const LOOK: Duration = Duration::from_millis(50);
/// After all sessions were closed: lingering ends after a minute, and what was said last is acknowledged.
const RETURN: Duration = Duration::from_secs(90);
/// How long a last look at stable routes may take: a fresh measurement is on its way now and then.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// What a seed is run with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Fewest routers.
    pub fewest: usize,
    /// Most routers.
    pub routers: usize,
    /// Every network has a group that shares service addresses, not a third of them.
    pub groups: bool,
    /// Whether to write every event down.
    pub log: bool,
    /// Whether to write every datagram down.
    pub capture: bool,
    /// The rule that is broken on purpose, where the build can.
    pub broken: Option<Rule>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { fewest: 2, routers: 12, groups: false, log: false, capture: false, broken: None }
    }
}

impl Settings {
    /// The run of a seed.
    pub fn draw(&self, seed: u64) -> Plan {
        Plan::draw(seed, self.fewest..=self.routers, self.groups)
    }
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed; zero for a scenario.
    pub seed: u64,
    /// Routers of its network.
    pub routers: usize,
    /// A hash of everything that happened.
    pub trace: u64,
    /// Events.
    pub events: u64,
    /// Most events that one router had in a second of virtual time.
    pub busiest: u32,
    /// Virtual time.
    pub simulated: Duration,
    /// Messages delivered.
    pub delivered: u64,
    /// How often each fault struck.
    pub ledger: Ledger,
    /// The bound that the healed core had to keep.
    pub bound: Bound,
    /// Virtual time until the applications left; what follows is quiet.
    pub with_traffic: Duration,
    /// Times from the moment a link fell silent until it was noticed.
    pub detections: Vec<Detection>,
    /// Time from healing to convergence.
    pub converged_after: Option<Duration>,
    /// Time from convergence until everything had arrived.
    pub recovered_after: Option<Duration>,
    /// The first broken rule.
    pub failure: Option<String>,
    /// Every event, if asked for.
    pub log: Option<String>,
    /// Every datagram as a capture file, if asked for.
    pub capture: Option<Vec<u8>>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.failure.as_deref().unwrap_or("passed");
        write!(f, "seed {} ({} routers, trace {:016x}): {verdict}", self.seed, self.routers, self.trace)
    }
}

/// Runs one seed.
pub fn run(seed: u64, settings: &Settings) -> Outcome {
    Outcome { seed, ..execute(&settings.draw(seed), settings) }
}

/// How far a run came.
#[derive(Default)]
struct Progress {
    bound: Bound,
    converged_after: Option<Duration>,
    recovered_after: Option<Duration>,
    /// When the applications left.
    left_at: Option<Instant>,
}

/// Runs one plan. A panic in it is a failure like others.
pub fn execute(plan: &Plan, settings: &Settings) -> Outcome {
    rare::end();
    break_rule(settings.broken);
    let mut world = World::asleep(plan.topology.clone(), plan.knobs.link_settings(), plan.conditions(), plan.seed);
    if let Some(vips) = &plan.vips {
        world.share(vips.clone());
    }
    if settings.log {
        world.keep_log();
    }
    if settings.capture {
        world.keep_capture();
    }
    let mut progress = Progress::default();
    let verdict = catch_unwind(AssertUnwindSafe(|| {
        faults(&mut world, plan).and_then(|()| healing(&mut world, plan, &mut progress))
    }));
    let failure = match verdict {
        Ok(verdict) => verdict.err(),
        Err(panic) => Some(format!("panicked at {}: {}", world.now(), words(&*panic))),
    };
    world.end_rare();
    break_rule(None);
    Outcome {
        seed: 0,
        routers: world.topology().routers,
        trace: world.trace(),
        events: world.events(),
        busiest: world.busiest(),
        simulated: world.now().since(Instant::ZERO),
        with_traffic: progress.left_at.unwrap_or(world.now()).since(Instant::ZERO),
        delivered: world.flows().iter().map(|flow| u64::from(flow.delivered())).sum(),
        ledger: *world.ledger(),
        bound: progress.bound,
        detections: world.detections().to_vec(),
        converged_after: progress.converged_after,
        recovered_after: progress.recovered_after,
        failure,
        log: world.log().map(str::to_owned),
        capture: world.take_capture(),
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words").to_owned()
}

/// The first phase: things go wrong, and nothing wrong may come of it.
fn faults(world: &mut World, plan: &Plan) -> Result<(), String> {
    let (before, after): (Vec<&Step>, Vec<&Step>) = plan.steps.iter().partition(|step| step.comes_before_start());
    before.iter().for_each(|step| step.fault.strike(world));
    world.start_all();
    world.begin_rare();
    for (number, spec) in plan.flows.iter().enumerate() {
        world.add_flow(Flow::new(number as u32, spec.clone()));
    }
    for step in after.into_iter().filter(|step| step.at < plan.heal_at) {
        run_watched(world, step.at)?;
        world.note(format_args!("fault {:?}", step.fault));
        world.strike_group(&step.fault);
        step.fault.strike(world);
    }
    run_watched(world, plan.heal_at)
}

fn run_watched(world: &mut World, end: Instant) -> Result<(), String> {
    while world.now() < end {
        world.run_until((world.now() + LOOK).min(end));
        look(world)?;
    }
    Ok(())
}

/// What must hold all the time.
fn look(world: &mut World) -> Result<(), String> {
    world.look_for_silence();
    world.look_for_ways();
    world.excuse_who_left();
    world.look_at_group();
    bounds::within(world)?;
    sound(world)
}

/// The second phase: the core works, so everything in it must come right.
fn healing(world: &mut World, plan: &Plan, progress: &mut Progress) -> Result<(), String> {
    hops::kept(world)?;
    world.heal(&plan.core);
    let (healed, core) = (world.now(), &plan.core[..]);
    let bound = Bound::of(world, core, &plan.steps, &plan.flows);
    progress.bound = bound;
    let mut loops = Loops::default();
    reach(world, bound.converge(), &mut loops, |world| convergence::converged(world, core))
        .map_err(|why| format!("not converged: {why}"))?;
    progress.converged_after = Some(world.now().since(healed));
    links::signed_by_both_ends(world, core)?;
    reach(world, bound.converge() + world.rest_within(), &mut loops, |world| vips::at_rest(&world.members()))
        .map_err(|why| format!("service addresses not at rest: {why}"))?;
    let converged = world.now();
    reach(world, bound.deliver(), &mut loops, |world| delivery::delivered_within(world, core))
        .map_err(|why| format!("not delivered: {why}"))?;
    progress.recovered_after = Some(world.now().since(converged));
    counters::agreed(world)?;
    progress.left_at = Some(world.now());
    world.close_everything();
    reach(world, RETURN, &mut loops, memory::returned).map_err(|why| format!("not given back: {why}"))?;
    reach(world, LAST_LOOK, &mut loops, |world| convergence::converged(world, core))?;
    links::signed_by_both_ends(world, core)?;
    hops::kept(world)?;
    world.virtual_synchrony()?;
    counters::add_up(world).and_then(|()| counters::balanced(world))
}

/// Runs until `rule` holds, at most for `within`. What must hold all the time is checked all the time.
fn reach(
    world: &mut World,
    within: Duration,
    loops: &mut Loops,
    rule: impl Fn(&World) -> Result<(), String>,
) -> Result<(), String> {
    let end = world.now() + within;
    loop {
        look(world)?;
        loops.look(world)?;
        match rule(world) {
            Ok(()) => return Ok(()),
            Err(why) if world.now() >= end => return Err(format!("within {within:.1?}: {why}")),
            Err(_) => world.run_until((world.now() + LOOK).min(end)),
        }
    }
}
