//! The world: virtual time, the event heap, the routers and the wires between them.

mod strikes;
mod ways;

use super::capture::Capture;
use super::check::hops::Carried;
use super::clock::Clock;
use super::ledger::{Ledger, Struck};
use super::observe::Watch;
use super::router::{Effect, FULL, Rings, Router, cost};
use super::storm::Storm;
use super::topology::{LinkSettings, Topology, address, node, router_at};
use super::wire::{Conditions, Wire};
use super::workload::{Flow, Side};
use crate::base::hash::{hash64, mix64};
use crate::base::rare::POINTS;
use crate::base::{Instant, NodeId, Rng, SessionId, verdicts};
use crate::config::settings::Metric;
use crate::control::ClientId;
use crate::dataplane::messages::ShardStats;
use crate::proto::session::Readiness;
use crate::wire::admin::Request;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// Checks of signatures that are remembered: some advertisements of every router of the largest network.
const VERDICTS: usize = 1 << 14;
/// Socket buffer of a router, bytes: what comes while it stands still waits here.
const SOCKET_BUFFER: usize = 32 << 10;

/// What is going to happen.
enum Event {
    /// A datagram arrives at a router.
    Arrive { router: usize, from: usize, datagram: Box<[u8]> },
    /// A router hears that nothing listens where it sent to.
    Refused { router: usize, by: usize },
    /// A router's timer; void if the router was given another since.
    Timer { router: usize, generation: u64 },
    /// A router that stood still or was busy goes on.
    Wake { router: usize },
    /// An application's turn.
    Turn { flow: usize },
    /// A receiving application closes its session.
    Leave { flow: usize },
}

struct Scheduled {
    at: Instant,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// Earliest first out of a max-heap; ties in the order of scheduling.
    fn cmp(&self, other: &Scheduled) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// A router, its machine, and what it is suffering from.
struct Slot {
    router: Option<Router>,
    clock: Clock,
    generation: u64,
    /// When the timer in the heap will fire; none if there is none.
    timer_at: Option<Instant>,
    /// Sessions attached to flows.
    sessions: BTreeMap<SessionId, (usize, Side)>,
    /// It stands still, or is busy, until then.
    busy_until: Instant,
    wakes: bool,
    inbox: VecDeque<(usize, Box<[u8]>)>,
    inbox_bytes: usize,
    /// How many times as slow as a fast one.
    times: u32,
    coalesce: Duration,
    rare: f64,
    newer: bool,
    without: Vec<usize>,
    metric: Option<Metric>,
    /// Datagrams handed to the router since it started.
    handed: u64,
    /// What its links carried, by neighbour, in the lives that are over.
    buried: BTreeMap<NodeId, Carried>,
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            router: None,
            clock: Clock::new(),
            generation: 0,
            timer_at: None,
            sessions: BTreeMap::new(),
            busy_until: Instant::ZERO,
            wakes: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            times: 1,
            coalesce: Duration::ZERO,
            rare: 0.0,
            newer: false,
            without: Vec::new(),
            metric: None,
            handed: 0,
            buried: BTreeMap::new(),
        }
    }

    /// Whether its router is held to bounds of time.
    fn is_calm(&self) -> bool {
        let strained = self.router.as_ref().is_some_and(|router| router.rings != Rings::default());
        self.times <= 1 && self.coalesce.is_zero() && !strained
    }
}

/// A network, its applications and its time.
pub struct World {
    now: Instant,
    topology: Topology,
    settings: LinkSettings,
    routers: Vec<Slot>,
    wires: BTreeMap<(usize, usize), Wire>,
    heap: BinaryHeap<Scheduled>,
    order: u64,
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
    /// Whether rare branches may be taken at all.
    rare: bool,
    numbers: BTreeMap<NodeId, usize>,
    /// Kept for the next use.
    arrivals: Vec<(Instant, usize, Box<[u8]>)>,
}

impl World {
    /// A network whose routers are all running and whose wires are all in the given condition.
    pub fn new(topology: Topology, settings: LinkSettings, conditions: Conditions, seed: u64) -> World {
        verdicts::remember(Some(VERDICTS));
        let mut wires = BTreeMap::new();
        for &(a, b) in &topology.links {
            wires.insert((a, b), Wire::new(conditions));
            wires.insert((b, a), Wire::new(conditions));
        }
        let mut world = World {
            now: Instant::ZERO,
            routers: (0..topology.routers).map(|_| Slot::new()).collect(),
            numbers: (0..topology.routers).map(|router| (node(router), router)).collect(),
            settings,
            wires,
            heap: BinaryHeap::new(),
            order: 0,
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
            rare: false,
            arrivals: Vec::new(),
            topology,
        };
        for router in 0..world.topology.routers {
            world.start(router);
        }
        world
    }

    /// Writes every event down from now on.
    pub fn keep_log(&mut self) {
        self.log = Some(String::new());
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
    pub fn detections(&self) -> &[Duration] {
        self.watch.detections()
    }

    /// The applications.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// The wire from `from` to `to`.
    pub fn wire(&self, from: usize, to: usize) -> &Wire {
        &self.wires[&(from, to)]
    }

    /// The wire from `from` to `to`, to change its condition.
    pub fn wire_mut(&mut self, from: usize, to: usize) -> &mut Wire {
        self.wires.get_mut(&(from, to)).expect("the topology has this link")
    }

    /// All wires.
    pub fn wires(&self) -> impl Iterator<Item = (&(usize, usize), &Wire)> {
        self.wires.iter()
    }

    /// Whether the router runs.
    pub fn is_running(&self, router: usize) -> bool {
        self.routers[router].router.is_some()
    }

    /// A running router's shard counters.
    pub fn stats(&self, router: usize) -> Option<ShardStats> {
        let slot = &self.routers[router];
        Some(slot.router.as_ref()?.shard.stats(slot.clock.local(self.now)))
    }

    /// Datagrams handed to a router since it started.
    pub(super) fn handed(&self, router: usize) -> u64 {
        self.routers[router].handed
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

    /// The number of the router with this id.
    pub(super) fn number(&self, node: NodeId) -> Option<usize> {
        self.numbers.get(&node).copied()
    }

    /// Adds an application; its receiving side opens at once, its sending side half a second before it starts.
    pub fn add_flow(&mut self, flow: Flow) {
        let (index, start) = (self.flows.len(), flow.spec().opens());
        self.flows.push(flow);
        self.open(index, Side::Sink);
        self.schedule(start.max(self.now), Event::Turn { flow: index });
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while let Some(next) = self.heap.peek()
            && next.at <= end
            && !self.storm.rages()
        {
            let Scheduled { at, event, .. } = self.heap.pop().expect("a peeked event is there");
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

    fn schedule(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.heap.push(Scheduled { at, order: self.order, event });
    }

    fn happen(&mut self, event: Event) {
        self.events += 1;
        if let Event::Arrive { router, .. } | Event::Timer { router, .. } | Event::Wake { router } = event
            && let Some(storm) = self.storm.count(self.now, router)
        {
            self.violations.push(storm);
        }
        match event {
            Event::Arrive { router, from, datagram } => {
                self.record(router, "arrive", &datagram);
                self.arrive(router, from, datagram);
            }
            Event::Refused { router, by } => {
                self.record(router, "refused", &[]);
                let slot = &mut self.routers[router];
                if let Some(running) = &mut slot.router {
                    running.handle_refused(slot.clock.local(self.now), node(by));
                    self.settle(router);
                }
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
                self.serve(router);
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
            let written = writeln!(log, "{} r{router} {what} {} {:016x}", self.now, bytes.len(), self.trace);
            written.expect("writing to a string does not fail");
        }
    }

    /// A datagram reaches a router: it is taken at once, or waits in the socket's buffer, or is gone.
    fn arrive(&mut self, router: usize, from: usize, mut datagram: Box<[u8]>) {
        if let Some(wire) = self.wires.get_mut(&(from, router)) {
            wire.counts.arrived += 1;
        }
        let slot = &mut self.routers[router];
        if slot.router.is_none() {
            // The kernel answers for the dead, by the way the datagram came.
            let back = self.wires.get(&(router, from)).map(|wire| wire.conditions);
            if let Some(back) = back.filter(|back| !back.cut && !self.rng.chance(back.loss)) {
                self.ledger.count(Struck::Refused);
                self.schedule(self.now + back.delay, Event::Refused { router: from, by: router });
            }
        } else if self.now < slot.busy_until || !slot.inbox.is_empty() {
            if slot.inbox_bytes + datagram.len() > SOCKET_BUFFER {
                self.ledger.count(Struck::SocketFull);
                return;
            }
            slot.inbox_bytes += datagram.len();
            slot.inbox.push_back((from, datagram));
            self.wake(router);
        } else {
            self.hand(router, from, &mut datagram);
        }
    }

    fn hand(&mut self, router: usize, from: usize, datagram: &mut [u8]) {
        let slot = &mut self.routers[router];
        let Some(running) = &mut slot.router else { return };
        slot.handed += 1;
        prepare_rare(self.rare, slot.rare);
        running.handle_datagram(slot.clock.local(self.now), address(from), datagram);
        slot.busy_until = slot.busy_until.max(self.now + cost(slot.times));
        self.settle(router);
    }

    fn fire(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        if self.now < slot.busy_until {
            return self.wake(router);
        }
        let Some(running) = &mut slot.router else { return };
        let local = slot.clock.local(self.now);
        if slot.coalesce > Duration::ZERO && running.poll_timeout().is_some_and(|at| at < local) {
            self.ledger.count(Struck::CoalescedTimer);
        }
        prepare_rare(self.rare, slot.rare);
        running.handle_timeout(local);
        slot.busy_until = slot.busy_until.max(self.now + cost(slot.times));
        self.settle(router);
    }

    /// Makes sure that a busy router goes on when it can.
    fn wake(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        if !std::mem::replace(&mut slot.wakes, true) {
            let at = slot.busy_until.max(self.now);
            self.schedule(at, Event::Wake { router });
        }
    }

    /// Lets a router go on with what waited while it was busy: datagrams first, as in the worker's loop.
    fn serve(&mut self, router: usize) {
        if self.routers[router].router.is_none() {
            return;
        }
        self.record(router, "wake", &[]);
        while self.now >= self.routers[router].busy_until {
            let slot = &mut self.routers[router];
            let Some((from, mut datagram)) = slot.inbox.pop_front() else {
                if slot
                    .router
                    .as_ref()
                    .and_then(Router::poll_timeout)
                    .is_some_and(|at| at <= slot.clock.local(self.now))
                {
                    self.fire(router);
                }
                return self.settle(router);
            };
            slot.inbox_bytes -= datagram.len();
            self.hand(router, from, &mut datagram);
        }
        self.wake(router);
    }

    /// Lets a router finish what an input started and carries out its effects.
    fn settle(&mut self, router: usize) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let (mut turns, mut leaves) = (Vec::new(), Vec::new());
        let World { routers, wires, flows, rng, violations, now, ledger, capture, watch, numbers, rare, .. } = self;
        let slot = &mut routers[router];
        let calm = slot.is_calm();
        let Some(running) = &mut slot.router else { return };
        prepare_rare(*rare, slot.rare);
        let newer = slot.newer;
        let sessions = &mut slot.sessions;
        running.settle(slot.clock.local(*now), |effect| match effect {
            Effect::Transmit(to, bytes) => {
                let mut sending = Sending { wires, rng, ledger, capture, arrivals: &mut arrivals };
                sending.send(*now, router, to, bytes, newer)
            }
            Effect::Record(session, record) => match sessions.get(&session) {
                Some(&(flow, side)) => {
                    let taken = flows[flow].handle_record(*now, (side, session), record, violations);
                    if taken.wants_turn {
                        turns.push(flow);
                    }
                    if taken.leaves {
                        leaves.push(flow);
                    }
                    if taken.accepted { Ok(()) } else { FULL }
                }
                // Its descriptor is still on its way: the record waits, as in the worker.
                None => FULL,
            },
            Effect::Readable(session) => {
                if let Some(&(flow, Side::Source)) = sessions.get(&session) {
                    flows[flow].resume();
                    turns.push(flow);
                }
                Ok(())
            }
            Effect::Response(client, response, session) => {
                let (flow, side) = Flow::of_client(client);
                if let Some(session) = session {
                    sessions.insert(session, (flow, side));
                }
                if flows[flow].handle_response(*now, side, &response, session) {
                    turns.push(flow);
                }
                Ok(())
            }
            Effect::Detached(session) => {
                if let Some((flow, side)) = sessions.remove(&session) {
                    flows[flow].detached(side);
                }
                Ok(())
            }
            Effect::Link(peer, up) => {
                if let Some(&peer) = numbers.get(&peer) {
                    watch.heard(*now, router, peer, up, calm, violations);
                }
                Ok(())
            }
        });
        for (at, to, datagram) in arrivals.drain(..) {
            self.schedule(at, Event::Arrive { router: to, from: router, datagram });
        }
        self.arrivals = arrivals;
        for flow in turns {
            self.schedule(self.now, Event::Turn { flow });
        }
        for flow in leaves {
            self.schedule(self.now, Event::Leave { flow });
        }
        self.set_timer(router);
    }

    fn set_timer(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        let Some(at) = slot.router.as_ref().and_then(Router::poll_timeout) else { return };
        let mut at = if at == Instant::MAX { return } else { slot.clock.world(at).max(self.now).max(slot.busy_until) };
        if !slot.coalesce.is_zero() {
            let grain = slot.coalesce.as_nanos() as u64;
            at = Instant::from_nanos(at.as_nanos().div_ceil(grain) * grain);
        }
        if slot.timer_at.is_some_and(|set| set <= at) {
            return; // It will fire, find nothing due perhaps, and be set again.
        }
        slot.timer_at = Some(at);
        slot.generation += 1;
        let generation = slot.generation;
        self.schedule(at, Event::Timer { router, generation });
    }

    fn open(&mut self, flow: usize, side: Side) {
        let router = self.flows[flow].spec().router(side);
        let request = self.flows[flow].open(self.now, side);
        self.request(router, Flow::client(flow, side), request);
    }

    fn request(&mut self, router: usize, client: ClientId, request: Request) {
        let slot = &mut self.routers[router];
        if let Some(running) = &mut slot.router {
            prepare_rare(self.rare, slot.rare);
            running.request(slot.clock.local(self.now), client, request);
            self.settle(router);
        }
    }

    /// Lets an application send what is due. While its router stands still it waits too.
    fn turn(&mut self, index: usize) {
        let (now, router) = (self.now, self.flows[index].spec().router(Side::Source));
        let slot = &mut self.routers[router];
        if now < slot.busy_until {
            let at = slot.busy_until;
            return self.schedule(at, Event::Turn { flow: index });
        }
        prepare_rare(self.rare, slot.rare);
        let (local, mut record) = (slot.clock.local(now), Vec::new());
        while let Some(session) = self.flows[index].next_record(now, &mut record) {
            let Some(running) = &mut self.routers[router].router else { break };
            let readiness = running.handle_record(local, session, &record);
            self.flows[index].sent(now, readiness);
            if readiness != Readiness::Ready {
                break;
            }
        }
        let source = self.flows[index].leave();
        self.hang_up(router, source);
        if self.flows[index].wants_open(now) && self.is_running(router) {
            self.open(index, Side::Source);
        }
        if let Some(at) = self.flows[index].next_turn(now) {
            self.schedule(at, Event::Turn { flow: index });
        }
    }
}

/// The router that goes on now takes rare branches with this probability.
fn prepare_rare(rare: bool, chance: f64) {
    if rare {
        crate::base::rare::set_chances([chance; POINTS]);
    }
}

/// What a datagram that leaves a router meets.
struct Sending<'a> {
    wires: &'a mut BTreeMap<(usize, usize), Wire>,
    rng: &'a mut Rng,
    ledger: &'a mut Ledger,
    capture: &'a mut Option<Capture>,
    arrivals: &'a mut Vec<(Instant, usize, Box<[u8]>)>,
}

impl Sending<'_> {
    /// Puts a datagram on its wire; what arrives is added to the arrivals. An error is the kernel's.
    fn send(&mut self, now: Instant, from: usize, to: SocketAddr, bytes: &[u8], newer: bool) -> Result<(), i32> {
        let Some(number) = router_at(to) else { return Ok(()) };
        let both = self.wires.get(&(number, from)).is_some_and(|back| back.conditions.cut);
        let Some(wire) = self.wires.get_mut(&(from, number)) else { return Ok(()) };
        wire.refuses(bytes.len(), self.rng, self.ledger)?;
        if let Some(capture) = self.capture {
            capture.datagram(now, address(from), to, bytes);
        }
        let fate = wire.send(now, bytes.len(), both, self.rng, self.ledger);
        for at in [fate.first, fate.second].into_iter().flatten() {
            let mut datagram: Box<[u8]> = bytes[..fate.keep.unwrap_or(bytes.len())].into();
            if newer && let Some(kind) = datagram.first_mut() {
                self.ledger.count(Struck::NewerDatagram);
                *kind |= 0x20;
            }
            if let Some(bit) = fate.flip.filter(|bit| bit / 8 < datagram.len()) {
                datagram[bit / 8] ^= 1 << (bit % 8);
            }
            self.arrivals.push((at, number, datagram));
        }
        Ok(())
    }
}
