//! Routers with clients on a bad network under virtual time, and what the clients see.

use super::super::*;
use super::properties::{Seen, Trace};
use crate::proto::membership::{Settings, Timing};
use std::time::Duration;

/// A router while it runs.
struct Router {
    both: ProcessGroups,
    life: u64,
    /// What it will find when it goes on: it is stopped.
    frozen: Option<Vec<Happens>>,
}

/// A client while it and its router live.
struct Client {
    router: usize,
    /// What it said and the router has not taken yet.
    waits: Option<u64>,
    /// Messages that it is still to send, and how long they are.
    to_say: (u32, usize),
}

enum Happens {
    Arrives {
        to: usize,
        from: usize,
        life: u64,
        bytes: Vec<u8>,
    },
    /// A router learns which routes there are.
    Routes {
        at: usize,
        life: u64,
    },
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) trace: Trace,
    /// How likely a message is lost, how likely it comes twice, and how much later than another it may come.
    pub(super) drop: f64,
    pub(super) double: f64,
    pub(super) jitter: Duration,
    timing: Timing,
    routers: Vec<Option<Router>>,
    lives: Vec<u64>,
    /// Which routers have a link to each other.
    linked: Vec<Vec<bool>>,
    clients: BTreeMap<ClientId, Client>,
    last_client: u64,
    last_message: u64,
    queue: BTreeMap<(Instant, u64), Happens>,
    queued: u64,
    pub(super) rng: Rng,
    /// Signals told, and what had to wait for room, of routers that are gone, too.
    pub(super) met: [u64; 2],
}

pub(super) const fn id(router: usize) -> NodeId {
    NodeId(10 + router as u64)
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Net {
    /// So many routers, all running, in a row.
    pub(super) fn new(count: usize, timing: Timing, seed: u64) -> Net {
        let mut net = Net {
            now: Instant::from_millis(1_000),
            trace: Trace::default(),
            drop: 0.0,
            double: 0.0,
            jitter: Duration::ZERO,
            timing,
            routers: (0..count).map(|_| None).collect(),
            lives: vec![0; count],
            linked: vec![vec![false; count]; count],
            clients: BTreeMap::new(),
            last_client: 0,
            last_message: 0,
            queue: BTreeMap::new(),
            queued: 0,
            rng: Rng::from_u64(seed),
            met: [0; 2],
        };
        (0..count).for_each(|router| net.start(router));
        net.line_up();
        net
    }

    pub(super) fn count(&self) -> usize {
        self.routers.len()
    }

    pub(super) fn clients(&self) -> Vec<ClientId> {
        self.clients.keys().copied().collect()
    }

    // --- faults ------------------------------------------------------------------------------------------------------

    pub(super) fn start(&mut self, router: usize) {
        if self.routers[router].is_some() {
            return;
        }
        self.lives[router] += 1;
        let life = self.lives[router];
        let group = "processes".parse().expect("a good name");
        let settings = Settings { group, node: id(router), incarnation: 1_000 + life, timing: self.timing };
        let members = (0..self.count()).map(id).collect();
        let mut rng = Rng::from_u64(life * 1_000 + router as u64);
        let both = ProcessGroups::new(self.now, settings, &members, &mut rng);
        self.routers[router] = Some(Router { both, life, frozen: None });
        self.act(router);
        self.reroute();
    }

    pub(super) fn crash(&mut self, router: usize) {
        let Some(gone) = self.routers[router].take() else { return };
        self.count_met(&gone.both);
        for client in self.clients() {
            if self.clients[&client].router == router {
                self.clients.remove(&client);
                self.trace.add(client, Seen::RouterGone);
            }
        }
        self.reroute();
    }

    /// A router leaves, which takes it a moment.
    pub(super) fn leave(&mut self, router: usize) {
        let Some(leaving) = self.routers[router].as_mut() else { return };
        leaving.both.leave(self.now);
        self.act(router);
        self.run(ms(2));
        self.crash(router);
    }

    /// A router does nothing for a while. Routes still lead to it.
    pub(super) fn freeze(&mut self, router: usize, time: Duration) {
        let Some(frozen) = self.routers[router].as_mut() else { return };
        frozen.frozen = Some(Vec::new());
        self.run(time);
        let found = self.routers[router].as_mut().and_then(|it| it.frozen.take());
        found.into_iter().flatten().for_each(|happens| self.happens(happens));
    }

    pub(super) fn link(&mut self, a: usize, b: usize, up: bool) {
        if a != b && self.linked[a][b] != up {
            (self.linked[a][b], self.linked[b][a]) = (up, up);
            self.reroute();
        }
    }

    /// Each router has links to the ones before and behind it.
    pub(super) fn line_up(&mut self) {
        (1..self.count()).for_each(|router| self.link(router - 1, router, true));
    }

    /// All routers learn, sooner or later, which routes there are.
    fn reroute(&mut self) {
        for at in 0..self.count() {
            let Some(life) = self.routers[at].as_ref().map(|router| router.life) else { continue };
            let wait = ms(12).mul_f64(self.rng.unit());
            self.schedule(wait, Happens::Routes { at, life });
        }
    }

    /// The routers to which routes lead from one, itself among them.
    fn component(&self, router: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([router]);
        loop {
            let near = |a: usize| (0..self.count()).filter(move |&b| self.linked[a][b] && self.routers[b].is_some());
            let more: BTreeSet<usize> = found.iter().copied().flat_map(near).collect();
            let before = found.len();
            found.extend(more);
            if found.len() == before {
                return found;
            }
        }
    }

    // --- clients -----------------------------------------------------------------------------------------------------

    /// A client of a router that runs joins a group.
    pub(super) fn join(&mut self, router: usize, group: &str) -> Option<ClientId> {
        let running = self.routers[router].as_mut()?;
        self.last_client += 1;
        let client = ClientId(self.last_client);
        self.clients.insert(client, Client { router, waits: None, to_say: (0, 0) });
        running.both.join(self.now, client, group.parse().expect("a good name"));
        self.trace.open(client, group, Process { node: id(router), number: running.both.last_process });
        self.act(router);
        Some(client)
    }

    /// A router's next process would have the last number that there is, but one that comes after it.
    pub(super) fn use_up_numbers(&mut self, router: usize) {
        self.routers[router].as_mut().expect("it runs").both.last_process = u32::MAX;
    }

    /// A client sends so many messages of so many bytes, one when the last is taken.
    pub(super) fn say(&mut self, client: ClientId, count: u32, len: usize) {
        let (Some(it), true) = (self.clients.get_mut(&client), self.trace.has_joined(client)) else { return };
        it.to_say = (it.to_say.0 + count, len);
        let router = it.router;
        self.say_next(client);
        self.act(router);
    }

    fn say_next(&mut self, client: ClientId) {
        let Some(it) = self.clients.get_mut(&client).filter(|it| it.waits.is_none() && it.to_say.0 > 0) else { return };
        it.to_say.0 -= 1;
        self.last_message += 1;
        it.waits = Some(self.last_message);
        let mut bytes = self.last_message.to_be_bytes().to_vec();
        bytes.resize(it.to_say.1.max(8), 7);
        self.trace.said(client, self.last_message);
        let router = it.router;
        self.routers[router].as_mut().expect("its router runs").both.send(self.now, client, bytes);
    }

    /// A client dies; or is as good as dead, for it does not read.
    pub(super) fn kill(&mut self, client: ClientId) {
        let Some(it) = self.clients.remove(&client) else { return };
        self.trace.add(client, Seen::Left);
        self.routers[it.router].as_mut().expect("its router runs").both.client_gone(self.now, client, false);
        self.act(it.router);
    }

    // --- time --------------------------------------------------------------------------------------------------------

    fn act(&mut self, router: usize) {
        while let Some(wanted) = self.routers[router].as_mut().and_then(|it| it.both.poll()) {
            match wanted {
                Wanted::Send(to, bytes) => self.carry(router, (to.0 - 10) as usize, bytes),
                Wanted::Answer(client, Ok(Done::Joined(process))) => self.trace.joined(client, process),
                Wanted::Answer(client, Ok(Done::Sent)) => {
                    let message = self.clients.get_mut(&client).and_then(|it| it.waits.take());
                    self.trace.taken(client, message.expect("it had said something"));
                    self.say_next(client);
                }
                Wanted::Answer(client, Err(why)) => panic!("{client:?} is refused something: {why:?}"),
                Wanted::Tell(clients, event) => {
                    for client in clients {
                        assert!(self.clients.contains_key(&client), "who is gone is told nothing");
                        self.met[0] += u64::from(event == Event::Transitional);
                        self.trace.add(client, Seen::Event(event.clone()));
                    }
                }
                Wanted::Say(_) => {}
            }
        }
        let Some(it) = &self.routers[router] else { return };
        for (what, held, most) in it.both.groups().holdings() {
            assert!(held <= most, "{held} {what} of {most}");
        }
    }

    fn carry(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let Some(life) = self.routers[to].as_ref().map(|it| it.life) else { return };
        if self.rng.chance(self.drop) {
            return;
        }
        for _ in 0..1 + u32::from(self.rng.chance(self.double)) {
            let wait = Duration::from_micros(200) + self.jitter.mul_f64(self.rng.unit());
            self.schedule(wait, Happens::Arrives { to, from, life, bytes: bytes.clone() });
        }
    }

    fn schedule(&mut self, wait: Duration, happens: Happens) {
        self.queued += 1;
        self.queue.insert((self.now + wait, self.queued), happens);
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    fn step(&mut self, end: Instant) -> bool {
        let timers = self.routers.iter().enumerate();
        let awake = timers.filter_map(|(at, it)| Some((at, it.as_ref().filter(|it| it.frozen.is_none())?)));
        let timer = awake.filter_map(|(at, it)| Some((it.both.poll_timeout()?, at))).min();
        let event = self.queue.keys().next().copied();
        let at = [timer.map(|it| it.0), event.map(|it| it.0)].into_iter().flatten().min();
        let Some(at) = at.filter(|&at| at <= end) else { return false };
        self.now = self.now.max(at);
        match timer.filter(|timer| event.is_none_or(|event| timer.0 < event.0)) {
            Some((_, router)) => {
                self.routers[router].as_mut().expect("it has a timer").both.handle_timeout(self.now);
                self.act(router);
            }
            None => {
                let (_, happens) = self.queue.pop_first().expect("it is the one that is due");
                self.happens(happens);
            }
        }
        true
    }

    fn happens(&mut self, happens: Happens) {
        let (Happens::Arrives { to: at, .. } | Happens::Routes { at, .. }) = happens;
        if let Some(kept) = self.routers[at].as_mut().and_then(|it| it.frozen.as_mut()) {
            return kept.push(happens);
        }
        match happens {
            Happens::Arrives { to, from, life, bytes } => {
                if self.life(to) == Some(life) && self.component(to).contains(&from) {
                    self.routers[to].as_mut().expect("it lives").both.message(self.now, id(from), bytes);
                    self.act(to);
                }
            }
            Happens::Routes { at, life } if self.life(at) == Some(life) => {
                let reached: BTreeSet<NodeId> = self.component(at).into_iter().map(id).collect();
                self.routers[at].as_mut().expect("it lives").both.routes(self.now, |node| reached.contains(&node));
                self.act(at);
            }
            Happens::Routes { .. } => {}
        }
    }

    fn life(&self, router: usize) -> Option<u64> {
        self.routers[router].as_ref().map(|it| it.life)
    }

    const fn count_met(&mut self, both: &ProcessGroups) {
        self.met[1] += both.groups().stats().waited;
    }

    // --- the end -----------------------------------------------------------------------------------------------------

    /// Everything is repaired, and every router runs.
    pub(super) fn heal(&mut self) {
        (self.drop, self.double) = (0.0, 0.0);
        (0..self.count()).for_each(|router| self.start(router));
        self.line_up();
    }

    /// Waits until all routers are in one view and everything is said and delivered.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..1_000 {
            self.run(ms(20));
            if self.is_quiet() {
                for router in 0..self.count() {
                    let gone = self.routers[router].take().expect("all run");
                    self.count_met(&gone.both);
                    self.routers[router] = Some(gone);
                }
                return Ok(());
            }
        }
        Err("the routers do not come to rest".to_owned())
    }

    fn is_quiet(&self) -> bool {
        let views: BTreeSet<_> = self.running().map(|both| both.membership().view().map(|view| view.id)).collect();
        let quiet = |both: &ProcessGroups| both.membership().is_quiet() && both.groups().is_quiet();
        let whole = self
            .running()
            .all(|both| quiet(both) && both.membership().view().is_some_and(|view| view.members.len() == self.count()));
        views.len() == 1 && whole && self.clients.values().all(|client| client.waits.is_none())
    }

    fn running(&self) -> impl Iterator<Item = &ProcessGroups> {
        self.routers.iter().flatten().map(|it| &it.both)
    }
}
