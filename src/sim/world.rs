//! The world: virtual time, what is going to happen, the routers and the wires between them.
//!
//! | file | what happens there |
//! |---|---|
//! | `agenda.rs` | events, in order of time |
//! | `slot.rs` | a router's machine, and what it is suffering from |
//! | `serving.rs` | routers take what arrives and what is due |
//! | `effects.rs` | and what they do to the world comes of it |
//! | `turns.rs` | applications send and leave |
//! | `strikes.rs` | faults |
//! | `group.rs` | who shares service addresses: hosts, operators, and who watches them |
//! | `wires.rs` | the wires, by their ends |
//! | `ways.rs` | whether there is a way from one router to another |

mod agenda;
mod effects;
mod group;
mod serving;
mod slot;
mod strikes;
mod turns;
mod ways;
mod wires;

use super::capture::Capture;
use super::check::hops::Carried;
use super::ledger::{Ledger, Struck};
use super::observe::{Detection, Watch};
use super::router::{Desk, Router};
use super::storm::Storm;
use super::topology::{LinkSettings, Topology, node};
use super::wire::{Conditions, Wire};
use super::workload::{Flow, Side};
use crate::base::hash::{hash64, mix64};
use crate::base::{Instant, NodeId, Rng, SessionId, verdicts};
use crate::dataplane::messages::ShardStats;
pub(super) use slot::Handled;

use agenda::{Agenda, Arrival, Event};
use group::Group;
use slot::{Attached, Slot};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;
use wires::Wires;

/// Checks of signatures that are remembered: some advertisements of every router of the largest network.
const VERDICTS: usize = 1 << 14;

/// Adds a line to a log.
fn note(log: &mut String, now: Instant, what: fmt::Arguments<'_>) {
    writeln!(log, "{now} {what}").expect("writing to a string does not fail");
}

/// A network, its applications and its time.
pub struct World {
    now: Instant,
    topology: Topology,
    settings: LinkSettings,
    routers: Vec<Slot>,
    wires: Wires,
    agenda: Agenda,
    rng: Rng,
    flows: Vec<Flow>,
    trace: u64,
    log: Option<String>,
    capture: Option<Capture>,
    events: u64,
    violations: Vec<String>,
    ledger: Ledger,
    watch: Watch,
    storm: Storm,
    /// Who shares service addresses, if anybody does.
    group: Option<Group>,
    /// Whether rare branches may be taken at all.
    rare: bool,
    numbers: BTreeMap<NodeId, usize>,
    /// The routers' ids: working one out takes a hash.
    nodes: Vec<NodeId>,
    /// Routers at which something arrived in this instant.
    ready: Vec<usize>,
    /// Kept for the next use.
    arrivals: Vec<Arrival>,
    scratch: Vec<u8>,
    desk: Desk,
}

impl World {
    /// A network whose routers are all running and whose wires are all in the given condition.
    pub fn new(topology: Topology, settings: LinkSettings, conditions: Conditions, seed: u64) -> World {
        let mut world = World::asleep(topology, settings, conditions, seed);
        world.start_all();
        world
    }

    /// The same before the first router starts.
    pub fn asleep(topology: Topology, settings: LinkSettings, conditions: Conditions, seed: u64) -> World {
        verdicts::remember(Some(VERDICTS));
        let nodes: Vec<NodeId> = (0..topology.routers).map(node).collect();
        let wires = Wires::new(topology.routers, &topology.links, conditions);
        World {
            now: Instant::ZERO,
            routers: (0..topology.routers).map(|_| Slot::new()).collect(),
            numbers: nodes.iter().enumerate().map(|(router, &node)| (node, router)).collect(),
            nodes,
            settings,
            wires,
            agenda: Agenda::default(),
            rng: Rng::from_u64(seed),
            flows: Vec::new(),
            trace: mix64(seed),
            log: None,
            capture: None,
            events: 0,
            violations: Vec::new(),
            ledger: Ledger::EMPTY,
            watch: Watch::new(settings.dead + settings.hello),
            storm: Storm::new(topology.routers),
            group: None,
            rare: false,
            ready: Vec::new(),
            arrivals: Vec::new(),
            scratch: Vec::new(),
            desk: Desk::new(),
            topology,
        }
    }

    /// Starts all routers.
    pub fn start_all(&mut self) {
        (0..self.topology.routers).for_each(|router| self.start(router));
    }

    /// Writes every event down from now on.
    pub fn keep_log(&mut self) {
        self.log = Some(String::new());
    }

    /// Writes a line into the log that says more than the events, if one is kept.
    pub(in crate::sim) fn note(&mut self, what: fmt::Arguments<'_>) {
        if let Some(log) = &mut self.log {
            note(log, self.now, what);
        }
    }

    /// Writes every datagram down from now on.
    pub fn keep_capture(&mut self) {
        self.capture = Some(Capture::new());
    }

    /// Every event, if it was written down.
    pub fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }

    /// Every datagram that left a router, as a capture file, if it was written down.
    pub fn take_capture(&mut self) -> Option<Vec<u8>> {
        Some(self.capture.take()?.into_bytes())
    }

    /// The time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The topology.
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What links and routers have in common.
    pub const fn settings(&self) -> &LinkSettings {
        &self.settings
    }

    /// A hash of everything that happened, in order.
    pub const fn trace(&self) -> u64 {
        self.trace
    }

    /// Events so far.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Rules broken so far, in words.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// How often each fault struck.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How long it took to notice dead links.
    pub fn detections(&self) -> &[Detection] {
        self.watch.detections()
    }

    /// The applications.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// The wire from `from` to `to`.
    pub fn wire(&self, from: usize, to: usize) -> &Wire {
        self.wires.get(&(from, to)).expect("the topology has this link")
    }

    /// The wire from `from` to `to`, to change its condition.
    pub fn wire_mut(&mut self, from: usize, to: usize) -> &mut Wire {
        self.wires.get_mut(&(from, to)).expect("the topology has this link")
    }

    /// All wires.
    pub fn wires(&self) -> impl Iterator<Item = (&(usize, usize), &Wire)> {
        self.wires.iter()
    }

    /// Datagrams on their way, by the routers they come from and go to. Looks at all that is going to happen.
    pub fn under_way(&self) -> BTreeMap<(usize, usize), u64> {
        self.agenda.under_way()
    }

    /// Whether the router runs.
    pub fn is_running(&self, router: usize) -> bool {
        self.routers[router].router.is_some()
    }

    /// What the shards of a running router counted, by worker.
    pub fn stats(&self, router: usize) -> Option<Vec<ShardStats>> {
        let slot = &self.routers[router];
        Some(slot.router.as_ref()?.stats(slot.clock.local(self.now)))
    }

    /// What was done with a router since it started.
    pub(super) fn handled(&self, router: usize) -> Handled {
        self.routers[router].handled
    }

    /// The sessions of a router's applications.
    pub(super) fn attached(&self, router: usize) -> &BTreeMap<SessionId, Attached> {
        &self.routers[router].sessions
    }

    /// A running router.
    pub(super) fn router(&self, router: usize) -> Option<&Router> {
        self.routers[router].router.as_ref()
    }

    /// What the router's links carried, by neighbour, in all its lives.
    pub(super) fn carried(&self, router: usize) -> BTreeMap<usize, Carried> {
        let slot = &self.routers[router];
        let mut carried = slot.buried.clone();
        if let Some(running) = &slot.router {
            let alive = running.carried(slot.clock.local(self.now));
            alive.into_iter().for_each(|(peer, more)| carried.entry(peer).or_default().merge(&more));
        }
        carried.into_iter().filter_map(|(peer, carried)| Some((self.number(peer)?, carried))).collect()
    }

    /// Most events that one router had in a second.
    pub const fn busiest(&self) -> u32 {
        self.storm.peak()
    }

    /// Looks for links that are dead and not yet reported so.
    pub(super) fn look_for_silence(&mut self) {
        let World { watch, routers, now, violations, .. } = self;
        watch.look(*now, |router| routers[router].is_calm(), violations);
    }

    /// The router's id.
    pub(super) fn node(&self, router: usize) -> NodeId {
        self.nodes[router]
    }

    /// The number of the router with this id.
    pub(super) fn number(&self, node: NodeId) -> Option<usize> {
        self.numbers.get(&node).copied()
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while !self.storm.rages() {
            if self.agenda.next_at().is_none_or(|at| at > self.now) && self.serve_ready() {
                continue;
            }
            let Some((at, event)) = self.agenda.next_until(end) else { break };
            assert!(at >= self.now, "time does not run backwards");
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    /// Runs in steps of `step` until `done` or `end`; true if done.
    pub fn run_while(&mut self, end: Instant, step: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        while !done(self) {
            if self.now >= end {
                return false;
            }
            self.run_until((self.now + step).min(end));
        }
        true
    }

    fn happen(&mut self, event: Event) {
        self.events += 1;
        if let Event::Arrive { router, .. } | Event::Timer { router, .. } | Event::Wake { router } = event
            && let Some(storm) = self.storm.count(self.now, router)
        {
            self.violations.push(storm);
        }
        match event {
            Event::Arrive { router, datagram } => {
                self.record(router, "arrive", &datagram.bytes);
                self.arrive(router, datagram);
            }
            Event::Refused { router, worker, by } => {
                self.record(router, "refused", &[]);
                self.refuse(router, worker, by);
            }
            Event::Timer { router, generation } => {
                let slot = &mut self.routers[router];
                if slot.generation == generation {
                    slot.timer_at = None;
                    if slot.router.is_some() {
                        self.record(router, "timer", &[]);
                        self.fire(router);
                    }
                }
            }
            Event::Wake { router } => {
                self.routers[router].wakes = false;
                self.record(router, "wake", &[]);
                self.serve(router);
            }
            Event::Stop { router } => {
                self.record(router, "stop", &[]);
                self.shut_down(router);
            }
            Event::Host { router } => {
                self.record(router, "host", &[]);
                self.serve_host(router);
            }
            Event::Turn { flow } => self.turn(flow),
            Event::Leave { flow } => {
                let sink = self.flows[flow].leave_sink();
                self.hang_up(self.flows[flow].spec().to, sink);
            }
        }
    }

    fn record(&mut self, router: usize, what: &str, bytes: &[u8]) {
        // The tag of a sealed datagram is a hash of all of it, so its ends tell datagrams apart.
        let end = bytes.last_chunk::<16>().map_or(0, |tag| {
            let (high, low) = tag.split_at(8);
            let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
            number(high) ^ number(low).rotate_left(23)
        });
        let place = mix64(self.now.as_nanos() ^ ((router as u64) << 48) ^ hash64(what.as_bytes()));
        self.trace = mix64(self.trace.rotate_left(7) ^ place ^ end ^ (bytes.len() as u64).rotate_left(17));
        if let Some(log) = &mut self.log {
            note(log, self.now, format_args!("r{router} {what} {} {:016x}", bytes.len(), self.trace));
        }
    }
}
