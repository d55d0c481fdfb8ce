//! Routers on scripted wires under virtual time.

use super::super::*;
use crate::base::Rng;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// A link between two routers.
pub(super) struct Wire {
    pub(super) ends: [(usize, LinkId); 2],
    pub(super) up: bool,
    rtt: Duration,
    /// Counts ups and downs: what was under way when the wire was cut is lost.
    life: u64,
    /// The other end is outside: what is sent there is collected.
    outside: bool,
}

impl Wire {
    /// A wire that leads out of the network.
    pub(super) fn stub(router: usize, link: LinkId) -> Wire {
        let nobody = (usize::MAX, link);
        Wire { ends: [(router, link), nobody], up: true, rtt: Duration::ZERO, life: 0, outside: true }
    }
}

enum Event {
    Message { wire: usize, life: u64, to: usize, bytes: Vec<u8> },
    Up { wire: usize, life: u64, end: usize },
}

/// What the wires do to messages while the links are up. Real links lose nothing; a full ring does.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) drop: f64,
    pub(super) duplicate: f64,
    pub(super) reorder: Duration,
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) routers: Vec<Routing>,
    pub(super) wires: Vec<Wire>,
    pub(super) faults: Faults,
    /// All inputs and actions of router 0.
    pub(super) record: Vec<(Instant, Input)>,
    pub(super) actions: Vec<Action>,
    pub(super) messages: u64,
    outgoing: Vec<Vec<u8>>,
    identities: Vec<Identity>,
    queue: BTreeMap<(Instant, u64), Event>,
    queued: u64,
    rng: Rng,
    pub(super) metric: Metric,
}

pub(super) fn identity(index: usize) -> Identity {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(index as u64 + 1).to_be_bytes());
    Identity::from_seed(seed)
}

pub(super) fn id(index: usize) -> NodeId {
    static IDS: LazyLock<Vec<NodeId>> =
        LazyLock::new(|| (0..1_000).map(|index| identity(index).public().node_id()).collect());
    IDS[index]
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn metrics(rtt: Duration) -> LinkMetrics {
    LinkMetrics { rtt, ..LinkMetrics::default() }
}

impl Net {
    pub(super) fn new(count: usize, seed: u64, metric: Metric) -> Net {
        let identities: Vec<_> = (0..count).map(identity).collect();
        let mut net = Net {
            now: Instant::from_millis(1000),
            routers: Vec::new(),
            wires: Vec::new(),
            faults: Faults::default(),
            record: Vec::new(),
            actions: Vec::new(),
            messages: 0,
            outgoing: Vec::new(),
            identities,
            queue: BTreeMap::new(),
            queued: 0,
            rng: Rng::from_u64(seed),
            metric,
        };
        net.routers = (0..count).map(|index| net.fresh(index, 1_000)).collect();
        net
    }

    pub(super) fn fresh(&self, index: usize, epoch: u64) -> Routing {
        let members = self.identities.iter().map(Identity::public).collect();
        let (identity, epoch) = (self.identities[index].clone(), WallTime::from_nanos(epoch));
        // Another life draws other numbers.
        let rng = Rng::from_u64(index as u64 ^ self.now.as_nanos().rotate_left(32));
        Routing::new(self.now, identity, members, self.metric, epoch, rng)
    }

    pub(super) fn wire(&mut self, a: usize, b: usize, rtt: Duration) -> usize {
        let wire = self.wires.len();
        let next = |router| self.wires.iter().filter(|wire| wire.ends.iter().any(|end| end.0 == router)).count();
        let ends = [(a, LinkId(next(a) as u16)), (b, LinkId(next(b) as u16))];
        self.input(a, Input::AddLink { link: ends[0].1, peer: id(b) });
        self.input(b, Input::AddLink { link: ends[1].1, peer: id(a) });
        self.wires.push(Wire { ends, up: false, rtt, life: 0, outside: false });
        self.mend(wire);
        wire
    }

    pub(super) fn cut(&mut self, wire: usize) {
        if std::mem::replace(&mut self.wires[wire].up, false) {
            self.wires[wire].life += 1;
            for (router, link) in self.wires[wire].ends {
                self.input(router, Input::LinkDown { link, reason: DownReason::Silence });
            }
        }
    }

    /// The ends learn at slightly different moments that their link works.
    pub(super) fn mend(&mut self, wire: usize) {
        if !std::mem::replace(&mut self.wires[wire].up, true) {
            self.wires[wire].life += 1;
            let life = self.wires[wire].life;
            for end in 0..2 {
                let wait = Duration::from_micros(self.rng.below(30_000));
                self.schedule(wait, Event::Up { wire, life, end });
            }
        }
    }

    /// The router forgets everything; its links go down and come back.
    pub(super) fn restart(&mut self, router: usize, epoch: u64) {
        let touched: Vec<usize> = (0..self.wires.len()).filter(|&wire| self.touches(wire, router)).collect();
        let up: Vec<usize> = touched.iter().copied().filter(|&wire| self.wires[wire].up).collect();
        for &wire in &up {
            self.cut(wire);
        }
        self.routers[router] = self.fresh(router, epoch);
        for wire in touched {
            let [one, other] = self.wires[wire].ends;
            let (own, peer) = if one.0 == router { (one, other) } else { (other, one) };
            self.input(router, Input::AddLink { link: own.1, peer: id(peer.0) });
        }
        for wire in up {
            self.mend(wire);
        }
    }

    /// What was sent over stubs.
    pub(super) fn take_outgoing(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outgoing)
    }

    fn touches(&self, wire: usize, router: usize) -> bool {
        self.wires[wire].ends.iter().any(|end| end.0 == router)
    }

    fn schedule(&mut self, wait: Duration, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + wait, self.queued), event);
    }

    pub(super) fn input(&mut self, router: usize, input: Input) {
        if router == 0 {
            self.record.push((self.now, input.clone()));
        }
        self.routers[router].handle(self.now, input);
        while let Some(action) = self.routers[router].poll_action() {
            if router == 0 {
                self.actions.push(action.clone());
            }
            if let Action::Send { link, bytes } = action {
                self.carry(router, link, &bytes);
            }
        }
    }

    fn carry(&mut self, from: usize, link: LinkId, bytes: &[u8]) {
        assert!(bytes.len() <= MAX_MESSAGE);
        self.messages += 1;
        let found = self.wires.iter().position(|wire| wire.ends.contains(&(from, link)));
        let wire = found.expect("routers send over their own links");
        let Wire { ends, up, rtt, life, outside } = &self.wires[wire];
        if *outside {
            self.outgoing.push(bytes.to_vec());
            return;
        }
        if !up {
            return;
        }
        let to = usize::from(ends[0].0 == from);
        let (life, rtt) = (*life, *rtt);
        let copies = 1 + usize::from(self.rng.chance(self.faults.duplicate));
        for _ in 0..copies {
            if !self.rng.chance(self.faults.drop) {
                let late = self.faults.reorder.mul_f64(self.rng.unit());
                self.schedule(rtt / 2 + late, Event::Message { wire, life, to, bytes: bytes.to_vec() });
            }
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timer = self.routers.iter().enumerate().filter_map(|(router, it)| Some((it.poll_timeout()?.0, router)));
            let timer = timer.min();
            let event = self.queue.keys().next().copied();
            let at = match (timer, event) {
                (Some((timer, _)), Some((event, _))) => timer.min(event),
                (timer, event) => timer.map(|it| it.0).or(event.map(|it| it.0)).unwrap_or(Instant::MAX),
            };
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            match (timer, event) {
                (Some((at, router)), event) if event.is_none_or(|event| at < event.0) => {
                    let before = self.routers[router].poll_timeout();
                    self.input(router, Input::Timer);
                    let after = self.routers[router].poll_timeout();
                    assert!(
                        after.is_none_or(|after| after.0 > self.now),
                        "a due timer was served: {before:?} {after:?}"
                    );
                }
                _ => self.deliver(),
            }
        }
        self.now = end;
    }

    fn deliver(&mut self) {
        let Some((_, event)) = self.queue.pop_first() else { return };
        match event {
            Event::Message { wire, life, to, bytes } if self.wires[wire].life == life => {
                let (router, link) = self.wires[wire].ends[to];
                self.input(router, Input::Message { link, bytes });
            }
            Event::Up { wire, life, end } if self.wires[wire].life == life => {
                let (router, link) = self.wires[wire].ends[end];
                let metrics = metrics(self.wires[wire].rtt);
                self.input(router, Input::LinkUp { link, metrics });
            }
            Event::Message { .. } | Event::Up { .. } => {}
        }
    }

    /// Routers that the wires join to `router`.
    fn component(&self, router: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([router]);
        loop {
            let before = found.len();
            for wire in self.wires.iter().filter(|wire| wire.up) {
                let [(a, _), (b, _)] = wire.ends;
                if found.contains(&a) || found.contains(&b) {
                    found.extend([a, b]);
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }

    /// Whether databases agree in every component and all routes are the shortest, as computed from the wires.
    pub(super) fn check(&self) -> Result<(), String> {
        for router in 0..self.routers.len() {
            let component = self.component(router);
            for &other in &component {
                let (ours, theirs) = (&self.routers[router], &self.routers[other]);
                if ours.fingerprint() != theirs.fingerprint() || !ours.digest().eq(theirs.digest()) {
                    return Err(format!("databases of {router} and {other} differ"));
                }
            }
            let reached: BTreeSet<NodeId> = self.routers[router].routes().map(|it| it.destination).collect();
            let expected: BTreeSet<NodeId> = component.iter().filter(|it| **it != router).map(|&it| id(it)).collect();
            if reached != expected {
                return Err(format!("router {router} reaches {reached:?}, not {expected:?}"));
            }
            let costs = self.costs(router);
            for route in self.routers[router].routes() {
                let to = (0..self.routers.len()).find(|&it| id(it) == route.destination).expect("a router");
                if costs[to] != Some(route.cost) {
                    return Err(format!("{router} to {to} costs {}, not {:?}", route.cost, costs[to]));
                }
                let taken = self.follow(router, to)?;
                if taken != route.path {
                    return Err(format!("{router} shows the way {:?} to {to}, but packets take {taken:?}", route.path));
                }
            }
        }
        Ok(())
    }

    /// Bellman-Ford on the wires.
    fn costs(&self, from: usize) -> Vec<Option<u64>> {
        let mut costs = vec![None; self.routers.len()];
        costs[from] = Some(0);
        for _ in 0..self.routers.len() {
            for wire in self.wires.iter().filter(|wire| wire.up) {
                let [(a, _), (b, _)] = wire.ends;
                let link = AdvertisedLink::new(id(a), &metrics(wire.rtt));
                for (a, b) in [(a, b), (b, a)] {
                    if let Some(cost) = costs[a] {
                        let offer = cost + self.metric.cost(&link, &link);
                        costs[b] = Some(costs[b].map_or(offer, |held: u64| held.min(offer)));
                    }
                }
            }
        }
        costs
    }

    /// Follows the next hops from router to router: the way that packets take.
    fn follow(&self, from: usize, to: usize) -> Result<Vec<NodeId>, String> {
        let (mut at, mut taken) = (from, Vec::new());
        for _ in 0..self.routers.len() {
            if at == to {
                return Ok(taken);
            }
            let route = self.routers[at].route(id(to)).ok_or(format!("{at} has no route to {to}"))?;
            let wire = self.wires.iter().find(|wire| wire.up && wire.ends.contains(&(at, route.link)));
            let wire = wire.ok_or(format!("{at} sends to {to} over a dead link"))?;
            at = if wire.ends[0].0 == at { wire.ends[1].0 } else { wire.ends[0].0 };
            taken.push(id(at));
        }
        Err(format!("a loop from {from} to {to}"))
    }
}
