//! The world: virtual time, the event heap, the routers and the wires between them.

use super::router::{Effect, Router};
use super::topology::{LinkSettings, Topology, address, router_at};
use super::wire::{Conditions, Wire};
use super::workload::{Flow, Side};
use crate::base::hash::{hash64, mix64};
use crate::base::{Instant, Rng, SessionId, WallTime};
use crate::control::ClientId;
use crate::dataplane::messages::ShardStats;
use crate::proto::session::Readiness;
use crate::wire::admin::Request;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// Wall time at instant zero of every simulation: 2026-01-01.
const WALL: WallTime = WallTime::from_nanos(1_767_225_600_000_000_000);

/// What is going to happen.
enum Event {
    /// A datagram arrives at a router.
    Arrive { router: usize, from: SocketAddr, datagram: Box<[u8]> },
    /// A router's timer; void if the router was given another since.
    Timer { router: usize, generation: u64 },
    /// An application's turn.
    Turn { flow: usize },
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

struct Slot {
    router: Option<Router>,
    generation: u64,
    /// When the timer in the heap will fire; none if there is none.
    timer_at: Option<Instant>,
    /// Sessions attached to flows.
    sessions: BTreeMap<SessionId, (usize, Side)>,
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
    events: u64,
    violations: Vec<String>,
}

impl World {
    /// A network whose routers are all running and whose wires are all in the given condition.
    pub fn new(topology: Topology, settings: LinkSettings, conditions: Conditions, seed: u64) -> World {
        let mut wires = BTreeMap::new();
        for &(a, b) in &topology.links {
            wires.insert((a, b), Wire::new(conditions));
            wires.insert((b, a), Wire::new(conditions));
        }
        let slot = || Slot { router: None, generation: 0, timer_at: None, sessions: BTreeMap::new() };
        let mut world = World {
            now: Instant::ZERO,
            routers: (0..topology.routers).map(|_| slot()).collect(),
            topology,
            settings,
            wires,
            heap: BinaryHeap::new(),
            order: 0,
            rng: Rng::from_u64(seed),
            flows: Vec::new(),
            trace: hash64(&seed.to_be_bytes()),
            log: None,
            events: 0,
            violations: Vec::new(),
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

    /// What was written down.
    pub fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }

    /// The time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The topology.
    pub const fn topology(&self) -> &Topology {
        &self.topology
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
        Some(self.routers[router].router.as_ref()?.shard.stats(self.now))
    }

    /// A running router's control.
    pub(super) fn router(&self, router: usize) -> Option<&Router> {
        self.routers[router].router.as_ref()
    }

    /// Adds an application; its receiving side opens at once, its sending side half a second before it starts.
    pub fn add_flow(&mut self, flow: Flow) {
        let (index, start) = (self.flows.len(), flow.spec().opens());
        self.flows.push(flow);
        self.open(index, Side::Sink);
        self.schedule(start.max(self.now), Event::Turn { flow: index });
    }

    /// Starts a router that does not run.
    pub fn start(&mut self, router: usize) {
        assert!(!self.is_running(router), "a router starts once");
        let mut rng = self.rng.fork();
        let (topology, settings) = (&self.topology, &self.settings);
        self.routers[router].router = Some(Router::start(self.now, WALL, router, topology, settings, &mut rng));
        self.record(router, "start", &[]);
        self.settle(router);
    }

    /// Kills a router: all it knew is lost, and so are its applications' sessions.
    pub fn crash(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        slot.router = None;
        slot.timer_at = None;
        slot.generation += 1;
        slot.sessions.clear();
        self.record(router, "crash", &[]);
        for flow in self.flows.iter_mut().filter(|flow| flow.spec().touches(router)) {
            flow.void();
        }
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while let Some(next) = self.heap.peek()
            && next.at <= end
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
        match event {
            Event::Arrive { router, from, mut datagram } => {
                self.record(router, "arrive", &datagram);
                if let Some(running) = &mut self.routers[router].router {
                    running.handle_datagram(self.now, from, &mut datagram);
                    self.settle(router);
                }
            }
            Event::Timer { router, generation } => {
                let slot = &mut self.routers[router];
                if slot.generation != generation {
                    return;
                }
                slot.timer_at = None;
                if let Some(running) = &mut slot.router {
                    running.handle_timeout(self.now);
                    self.record(router, "timer", &[]);
                    self.settle(router);
                }
            }
            Event::Turn { flow } => self.turn(flow),
        }
    }

    fn record(&mut self, router: usize, what: &str, bytes: &[u8]) {
        let place = mix64(self.now.as_nanos() ^ ((router as u64) << 48) ^ hash64(what.as_bytes()));
        self.trace = mix64(self.trace.rotate_left(7) ^ place ^ hash64(bytes));
        if let Some(log) = &mut self.log {
            let written = writeln!(log, "{} r{router} {what} {} {:016x}", self.now, bytes.len(), self.trace);
            written.expect("writing to a string does not fail");
        }
    }

    /// Lets a router finish what an input started and carries out its effects.
    fn settle(&mut self, router: usize) {
        let World { routers, wires, flows, rng, violations, now, .. } = self;
        let slot = &mut routers[router];
        let Some(running) = &mut slot.router else { return };
        let mut arrivals = Vec::new();
        let mut responses = VecDeque::new();
        let mut turns = Vec::new();
        running.settle(*now, |effect| match effect {
            Effect::Transmit(to, bytes) => {
                send(wires, rng, *now, router, to, bytes, &mut arrivals);
                true
            }
            Effect::Record(session, record) => match slot.sessions.get(&session) {
                Some(&(flow, side)) => {
                    let taken = flows[flow].handle_record(*now, side, record, violations);
                    if taken.wants_turn {
                        turns.push(flow);
                    }
                    taken.accepted
                }
                None => true,
            },
            Effect::Readable(session) => {
                if let Some(&(flow, Side::Source)) = slot.sessions.get(&session) {
                    flows[flow].resume();
                    turns.push(flow);
                }
                true
            }
            Effect::Response(client, response, session) => {
                let (flow, side) = Flow::of_client(client);
                if let Some(session) = session {
                    slot.sessions.insert(session, (flow, side));
                }
                responses.push_back((flow, side, response, session));
                true
            }
            Effect::Detached(session) => {
                if let Some((flow, side)) = slot.sessions.remove(&session) {
                    flows[flow].detached(side);
                }
                true
            }
        });
        while let Some((flow, side, response, session)) = responses.pop_front() {
            if flows[flow].handle_response(*now, side, &response, session) {
                turns.push(flow);
            }
        }
        for (at, to, datagram) in arrivals {
            self.schedule(at, Event::Arrive { router: to, from: address(router), datagram });
        }
        for flow in turns {
            self.schedule(self.now, Event::Turn { flow });
        }
        self.set_timer(router);
    }

    fn set_timer(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        let Some(at) = slot.router.as_ref().and_then(Router::poll_timeout) else { return };
        let at = at.max(self.now);
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
        let request = self.flows[flow].open(side);
        self.request(router, Flow::client(flow, side), request);
    }

    fn request(&mut self, router: usize, client: ClientId, request: Request) {
        if let Some(running) = &mut self.routers[router].router {
            running.request(self.now, client, request);
            self.settle(router);
        }
    }

    /// Lets an application send what is due.
    fn turn(&mut self, index: usize) {
        let (now, router) = (self.now, self.flows[index].spec().router(Side::Source));
        let mut record = Vec::new();
        while let Some(session) = self.flows[index].next_record(now, &mut record) {
            let Some(running) = &mut self.routers[router].router else { break };
            let readiness = running.handle_record(now, session, &record);
            self.flows[index].sent(now, readiness);
            if readiness != Readiness::Ready {
                break;
            }
        }
        self.settle(router);
        if self.flows[index].wants_open(now) && self.is_running(router) {
            self.open(index, Side::Source);
        }
        if let Some(at) = self.flows[index].next_turn(now) {
            self.schedule(at, Event::Turn { flow: index });
        }
    }
}

/// Puts a datagram on its wire; what arrives is added to `arrivals`.
fn send(
    wires: &mut BTreeMap<(usize, usize), Wire>,
    rng: &mut Rng,
    now: Instant,
    from: usize,
    to: SocketAddr,
    bytes: &[u8],
    arrivals: &mut Vec<(Instant, usize, Box<[u8]>)>,
) {
    let Some(to) = router_at(to) else { return };
    let Some(wire) = wires.get_mut(&(from, to)) else { return };
    let fate = wire.send(now, bytes.len(), rng);
    for at in [fate.first, fate.second].into_iter().flatten() {
        let mut datagram: Box<[u8]> = bytes.into();
        if let Some(bit) = fate.flip {
            datagram[bit / 8] ^= 1 << (bit % 8);
        }
        arrivals.push((at, to, datagram));
    }
}
