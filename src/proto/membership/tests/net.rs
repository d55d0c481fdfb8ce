//! Many members on a bad network under virtual time, and what they see.

use super::super::evs::{Event, Process, Trace};
use super::super::*;
use crate::base::DownReason;
use std::collections::BTreeSet;

/// What the network does to messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) drop: f64,
    pub(super) double: f64,
    /// Of every message.
    pub(super) delay: Duration,
    /// And up to so much more, so that they overtake each other.
    pub(super) jitter: Duration,
    /// The two ends of a connection notice a change after up to so long.
    pub(super) notice: Duration,
}

impl Weather {
    pub(super) const CLEAR: Weather = Weather {
        drop: 0.0,
        double: 0.0,
        delay: Duration::from_micros(200),
        jitter: Duration::ZERO,
        notice: Duration::ZERO,
    };
    pub(super) const BAD: Weather = Weather {
        drop: 0.2,
        double: 0.1,
        delay: Duration::from_micros(200),
        jitter: Duration::from_millis(4),
        notice: Duration::from_millis(12),
    };
}

enum Happens {
    Arrives { to: usize, from: usize, life: u64, bytes: Vec<u8> },
    Notices { at: usize, life: u64, other: usize, up: bool, change: u64 },
}

/// A router, while it runs.
pub(super) struct Node {
    pub(super) membership: Membership,
    process: Process,
    /// Actions are taken, inputs are kept: it is stopped.
    pub(super) frozen: Option<Vec<Input>>,
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) weather: Weather,
    pub(super) nodes: Vec<Option<Node>>,
    lives: Vec<u64>,
    /// Whether messages pass from one to the other; both ways are cut alike unless a test says otherwise.
    pub(super) passes: Vec<Vec<bool>>,
    changes: u64,
    changed: BTreeMap<(usize, usize), u64>,
    pub(super) timing: Timing,
    pub(super) trace: Trace,
    pub(super) notes: Vec<(Instant, usize, Entry)>,
    pub(super) states: Vec<(NodeId, Vec<u8>)>,
    pub(super) record: Vec<(Instant, Input)>,
    pub(super) actions: Vec<Action>,
    pub(super) messages: u64,
    /// Messages that are not what was sent.
    pub(super) torn: Vec<String>,
    pub(super) installed_at: Vec<Instant>,
    /// Number of a router's life so far: an incarnation below that of the life before is for tests.
    pub(super) incarnations: BTreeMap<usize, u64>,
    next_message: u64,
    queue: BTreeMap<(Instant, u64), Happens>,
    queued: u64,
    pub(super) rng: Rng,
}

pub(super) const fn id(index: usize) -> NodeId {
    NodeId(10 + index as u64)
}

pub(super) const fn index(node: NodeId) -> usize {
    node.0 as usize - 10
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Net {
    /// So many routers, all running, all cut from each other.
    pub(super) fn new(count: usize, seed: u64, weather: Weather) -> Net {
        let mut net = Net {
            now: Instant::from_millis(1_000),
            weather,
            nodes: Vec::new(),
            lives: vec![0; count],
            passes: vec![vec![false; count]; count],
            changes: 0,
            changed: BTreeMap::new(),
            timing: Timing::SAFE,
            trace: Trace::default(),
            notes: Vec::new(),
            states: Vec::new(),
            record: Vec::new(),
            actions: Vec::new(),
            messages: 0,
            torn: Vec::new(),
            installed_at: vec![Instant::ZERO; count],
            incarnations: BTreeMap::new(),
            next_message: 0,
            queue: BTreeMap::new(),
            queued: 0,
            rng: Rng::from_u64(seed),
        };
        net.nodes = (0..count).map(|_| None).collect();
        (0..count).for_each(|node| net.start(node));
        net
    }

    /// So many routers in one view.
    pub(super) fn settled(count: usize, seed: u64) -> Net {
        let mut net = Net::new(count, seed, Weather::CLEAR);
        net.connect_all();
        net.run(ms(500));
        net.expect_views();
        net
    }

    pub(super) fn settings(&self, node: usize) -> Settings {
        let group = "test".parse().expect("a good name");
        let incarnation = self.incarnations.get(&node).copied().unwrap_or(1_000 + self.lives[node]);
        Settings { group, node: id(node), incarnation, timing: self.timing }
    }

    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn member(&self, node: usize) -> &Membership {
        &self.nodes[node].as_ref().expect("it runs").membership
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].is_some() {
            return;
        }
        self.lives[node] += 1;
        let process = Process { node: id(node), life: self.lives[node] };
        let rng = Rng::from_u64(self.lives[node] * 1_000 + node as u64);
        let membership = Membership::new(self.now, self.settings(node), rng);
        self.nodes[node] = Some(Node { membership, process, frozen: None });
        self.act(node);
        for other in 0..self.count() {
            if self.passes[node][other] && self.passes[other][node] {
                self.tell(node, other, true);
                self.tell(other, node, true);
            }
        }
    }

    pub(super) fn crash(&mut self, node: usize) {
        let Some(stopped) = self.nodes[node].take() else { return };
        self.trace.add(stopped.process, Event::End);
        for other in 0..self.count() {
            self.tell(other, node, false);
        }
    }

    pub(super) fn leave(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].as_ref().map(|it| it.process) {
            self.input(node, Input::Leave);
            self.trace.add(process, Event::End);
            self.nodes[node] = None;
        }
    }

    /// It does nothing until it is thawed. The others do not notice: its links answer.
    pub(super) fn freeze(&mut self, node: usize) {
        if let Some(node) = &mut self.nodes[node] {
            node.frozen.get_or_insert_default();
        }
    }

    pub(super) fn thaw(&mut self, node: usize) {
        let inputs = self.nodes[node].as_mut().and_then(|it| it.frozen.take()).unwrap_or_default();
        inputs.into_iter().for_each(|input| self.input(node, input));
    }

    /// Messages pass, or not, between two routers. Each notices some time later.
    pub(super) fn connect(&mut self, a: usize, b: usize, up: bool) {
        if a == b || (self.passes[a][b] == up && self.passes[b][a] == up) {
            return;
        }
        (self.passes[a][b], self.passes[b][a]) = (up, up);
        self.tell(a, b, up);
        self.tell(b, a, up);
    }

    pub(super) fn connect_all(&mut self) {
        for a in 0..self.count() {
            for b in 0..a {
                self.connect(a, b, true);
            }
        }
    }

    /// Routers of one part reach each other, and nobody else.
    pub(super) fn split(&mut self, part: impl Fn(usize) -> usize) {
        for a in 0..self.count() {
            for b in 0..a {
                self.connect(a, b, part(a) == part(b));
            }
        }
    }

    /// `a` notices what became of its way to `b`.
    fn tell(&mut self, a: usize, b: usize, up: bool) {
        let Some(node) = &self.nodes[a] else { return };
        self.changes += 1;
        self.changed.insert((a, b), self.changes);
        let wait = self.weather.notice.mul_f64(self.rng.unit());
        let life = node.process.life;
        self.schedule(wait, Happens::Notices { at: a, life, other: b, up, change: self.changes });
    }

    /// A message of `node` to all, with a number that no other has; `size` bytes, at least 8.
    pub(super) fn multicast(&mut self, node: usize, size: usize, service: Service) {
        let Some(process) = self.nodes[node].as_ref().filter(|it| it.frozen.is_none()).map(|it| it.process) else {
            return;
        };
        self.next_message += 1;
        let mut body = self.next_message.to_be_bytes().to_vec();
        body.resize(size.max(8), node as u8);
        let sent = self.member(node).stats().sent;
        let events = self.trace.of(process).len();
        self.input(node, Input::Multicast { body, service });
        if self.member(node).stats().sent > sent {
            // Before what it caused.
            self.trace.insert(process, events, Event::Send(self.next_message));
        }
    }

    fn schedule(&mut self, wait: Duration, happens: Happens) {
        self.queued += 1;
        self.queue.insert((self.now + wait, self.queued), happens);
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        let Some(it) = &mut self.nodes[node] else { return };
        if let Some(kept) = &mut it.frozen {
            kept.push(input);
            return;
        }
        if node == 0 {
            self.record.push((self.now, input.clone()));
        }
        it.membership.handle(self.now, input);
        self.act(node);
        for (what, held, bound) in self.nodes[node].as_ref().expect("it runs").membership.holdings() {
            assert!(held <= bound, "{held} {what} of {bound}");
        }
    }

    fn act(&mut self, node: usize) {
        while let Some(action) = self.nodes[node].as_mut().and_then(|it| it.membership.poll_action()) {
            if node == 0 {
                self.actions.push(action.clone());
            }
            let process = self.nodes[node].as_ref().expect("it acts").process;
            match action {
                Action::Send { to, bytes } => self.carry(node, index(to), &bytes),
                Action::WantState { pending } => {
                    let mut state = id(node).0.to_be_bytes().to_vec();
                    state.extend(pending.iter().flat_map(|delivery| delivery.body.iter().take(8)));
                    state.truncate(crate::base::limits::MAX_STATE);
                    self.input(node, Input::State(state));
                }
                Action::Deliver(Delivery { from, service, body }) => {
                    let whole = body.len() >= 8 && body[8..].iter().all(|&byte| usize::from(byte) == index(from));
                    if !whole {
                        self.torn.push(format!("{}: {node} delivers a torn message of {from:?}", self.now));
                    }
                    let number = body.first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
                    self.trace.add(process, Event::Deliver(number, service));
                }
                Action::Transitional { together } => self.trace.add(process, Event::Signal(together)),
                Action::Install { view, together, states } => {
                    assert!(states.iter().map(|state| state.0).eq(view.members.iter().copied()), "a state of each");
                    self.installed_at[node] = self.now;
                    self.states = states;
                    self.trace.add(process, Event::Install(view, together));
                }
                Action::Refused { .. } | Action::Room => {}
                Action::Note(entry) => self.notes.push((self.now, node, entry)),
            }
        }
    }

    fn carry(&mut self, from: usize, to: usize, bytes: &[u8]) {
        assert!(bytes.len() <= MAX_LEN);
        self.messages += 1;
        let (Some(receiver), true) = (&self.nodes[to], self.passes[from][to]) else { return };
        let life = receiver.process.life;
        let copies = 1 + usize::from(self.rng.chance(self.weather.double));
        for _ in 0..copies {
            if !self.rng.chance(self.weather.drop) {
                let wait = self.weather.delay + self.weather.jitter.mul_f64(self.rng.unit());
                self.schedule(wait, Happens::Arrives { to, from, life, bytes: bytes.to_vec() });
            }
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// One event, if there is one until `end`.
    fn step(&mut self, end: Instant) -> bool {
        let awake = |(node, it): (usize, &Option<Node>)| {
            let it = it.as_ref().filter(|it| it.frozen.is_none())?;
            Some((it.membership.poll_timeout()?.0, node))
        };
        let timer = self.nodes.iter().enumerate().filter_map(awake).min();
        let event = self.queue.keys().next().copied();
        let at = [timer.map(|it| it.0), event.map(|it| it.0)].into_iter().flatten().min();
        let Some(at) = at.filter(|&at| at <= end) else { return false };
        self.now = self.now.max(at);
        match timer.filter(|timer| event.is_none_or(|event| timer.0 < event.0)) {
            Some((_, node)) => {
                let before = self.member(node).poll_timeout();
                self.input(node, Input::Timer);
                let after = self.member(node).poll_timeout();
                assert!(after.is_none_or(|after| after.0 > self.now), "a due timer was served: {before:?} {after:?}");
            }
            None => self.happens(),
        }
        true
    }

    fn happens(&mut self) {
        let Some((_, happens)) = self.queue.pop_first() else { return };
        let lives = |node: usize, life: u64| self.nodes[node].as_ref().is_some_and(|it| it.process.life == life);
        match happens {
            Happens::Arrives { to, from, life, bytes } if lives(to, life) => {
                // Not even what is under way passes a cut.
                if self.passes[from][to] {
                    self.input(to, Input::Message { from: id(from), bytes });
                }
            }
            Happens::Notices { at, life, other, up, change } if lives(at, life) => {
                if self.changed[&(at, other)] == change {
                    let down = Input::Unreachable(id(other), Suspicion::Link(DownReason::Silence));
                    self.input(at, if up { Input::Reachable(id(other)) } else { down });
                }
            }
            Happens::Arrives { .. } | Happens::Notices { .. } => {}
        }
    }

    // --- what is to be ---------------------------------------------------------------------------------------------

    /// Everything is repaired, and every router runs.
    pub(super) fn heal(&mut self) {
        self.weather = Weather { drop: 0.0, double: 0.0, ..self.weather };
        for node in 0..self.count() {
            self.thaw(node);
            self.start(node);
        }
        self.connect_all();
    }

    /// Routers that reach each other, directly or through others.
    pub(super) fn component(&self, node: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([node]);
        loop {
            let near = |a: usize| (0..self.count()).filter(move |&b| self.passes[a][b] && self.nodes[b].is_some());
            let more: BTreeSet<usize> = found.iter().copied().flat_map(near).collect();
            let before = found.len();
            found.extend(more);
            if found.len() == before {
                return found;
            }
        }
    }

    /// Whether in every component, all of whose members reach each other, all are in one view and deliver.
    pub(super) fn check_views(&self) -> Result<(), String> {
        for node in (0..self.count()).filter(|&node| self.nodes[node].is_some()) {
            let expected: Vec<NodeId> = self.component(node).into_iter().map(id).collect();
            let first = self.member(index(expected[0])).view().map(|view| view.id);
            let view = self.member(node).view().ok_or_else(|| format!("{node} has no view"))?;
            if view.members != expected || Some(view.id) != first || self.member(node).is_gathering() {
                let gathering = self.member(node).is_gathering();
                return Err(format!(
                    "{}: {node} is in {view:?}, gathers: {gathering}, expected {expected:?}",
                    self.now
                ));
            }
        }
        Ok(())
    }

    pub(super) fn expect_views(&self) {
        assert_eq!(self.check_views(), Ok(()));
    }
}
