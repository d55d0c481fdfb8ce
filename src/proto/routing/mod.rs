//! Routing: who is linked to whom, and the shortest way to everyone.
//!
//! Link-state, as OSPF and IS-IS do it, with signatures. Every router advertises its usable links, signed; every router
//! keeps the newest advertisement of every member (`database.rs`), floods what is new to all neighbours but the one it
//! came from, and keeps the links that both ends advertise (`map.rs`). Shortest paths through them are computed when a
//! change touches one (`paths.rs`): a refresh, a link that makes nothing shorter or one that nobody used costs nothing.
//!
//! # States of an advertisement here
//! ```text
//!   absent ── newer, authentic ──▶ live ── 30 min without refresh ──▶ expired (a tombstone: used and told no more,
//!      ▲                            │ ▲                                  │     and not taken from others again)
//!      └── origin is no member ─────┴─┼──────────────────────────────────┤
//!                                     └────────── newer, authentic ──────┘
//! ```
//! Newer means a greater ([epoch], counter): the epoch is the wall clock at the origin's start. A router whose clock
//! went back, or that was restored from an image, meets its own older life's advertisement with an epoch not below its
//! own, and jumps above it (`own.rs`). Two contents under one sequence are counted and the first is kept.
//!
//! # Neighbours
//! Control messages reach a neighbour reliably while the link is up, in any order. So flooding is sending once, or, where
//! there is much to tell, saying once that it is to be had; a link that comes up starts with an exchange of digests
//! (`exchange.rs`), and a fingerprint a minute mends what a full ring lost.
//!
//! A neighbour, or any member through its neighbours, may be hostile: what one can make this router check, flood or send
//! is rationed (heads of `database.rs` and `exchange.rs`), and what is refused for that is asked for again later.
//!
//! # Timers
//! | reason | after |
//! |---|---|
//! | advertise | news: 0 to 20 ms when bad or of a new link, 2 to 32 s otherwise; refresh: 10 min ± 10 % |
//! | release | a flapping link is the last resort: 1 to 30 s |
//! | compute | 10 ms after the last computation; while changes keep coming twice as long each time, to 80 µs a member |
//! | expire | 30 min after an advertisement came |
//! | exchange | summary 60 s ± 10 %, unanswered request 2 s, another neighbour asked after 250 ms, news sent 5 ms or announced 20 ms after the last, what was refused or is owed: as the budgets allow |
//!
//! # Doors
//! [`Routing::handle`] takes an [`Input`]; [`Routing::poll_action`] gives [`Action`]s until there are none;
//! [`Routing::poll_timeout`] says when [`Input::Timer`] is due. Views for operators: [`Routing::routes`],
//! [`Routing::nodes`], [`Routing::stats`].
//!
//! [epoch]: crate::wire::routing::Sequence

mod budget;
mod database;
mod door;
mod exchange;
mod map;
mod metric;
mod own;
mod paths;
#[cfg(test)]
mod tests;

pub use door::{Action, Input, NodeView, Reason, Route, Stats};
pub use map::{Change, Map, Tree, UNREACHED};
pub use metric::Metric;

use crate::base::limits::{MAX_LINKS, MAX_MESSAGE, MAX_NODES};
use crate::base::sabotage::{Rule, broken};
use crate::base::{DownReason, Identity, Instant, LinkId, LinkMetrics, NodeId, PublicIdentity, Rng, WallTime};
use crate::wire::cursor::{NoRoom, Writer};
use crate::wire::routing::{self as wire, AdvertisedLink, Advertisement, Digest, Message, Sequence};
use database::{Database, Taken};
use exchange::{Exchange, HOLD_BACK, SUMMARY_INTERVAL};
use own::Own;
use paths::Paths;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Least time between two computations of all paths. The first change after a quiet time is answered at once.
const COMPUTE_SPACING: Duration = Duration::from_millis(10);
/// What the spacing grows to while changes keep coming, for each member (RFC 8405 has the idea): a computation takes about
/// half a microsecond for each, so a storm in a large network takes about a hundredth of a core.
const COMPUTE_SPACING_MEMBER: Duration = Duration::from_micros(80);

/// The routing protocol of one router.
#[derive(Debug)]
pub struct Routing {
    identity: Identity,
    metric: Metric,
    own: Own,
    exchanges: BTreeMap<LinkId, Exchange>,
    /// Origins that were refused, and when they are asked for again. Members only.
    postponed: BTreeMap<NodeId, Instant>,
    /// When neighbours are asked for what others were asked for first.
    reconsider_at: Option<Instant>,
    /// What [`Routing::poll_timeout`] says: found once after every input.
    next: Option<(Instant, Reason)>,
    database: Database,
    paths: Paths,
    /// Own links may differ from those on the map.
    relinked: bool,
    /// Own links may differ from what is advertised.
    unweighed: bool,
    computed_at: Option<Instant>,
    compute_spacing: Duration,
    actions: VecDeque<Action>,
    stats: Stats,
    rng: Rng,
}

impl Routing {
    /// Routing without links. `epoch` is the wall clock; `members` may or may not name this router.
    pub fn new(
        now: Instant,
        identity: Identity,
        members: Vec<PublicIdentity>,
        metric: Metric,
        epoch: WallTime,
        mut rng: Rng,
    ) -> Routing {
        assert!(members.len() <= MAX_NODES, "the configuration bounds the members");
        let own = Own::new(now, identity.public().node_id(), epoch.as_nanos(), rng.fork());
        let database = Database::new(members.into_iter().chain([identity.public()]));
        let paths = Paths::new(own.node, database.member_ids(), metric);
        let mut routing = Routing {
            identity,
            metric,
            own,
            exchanges: BTreeMap::new(),
            postponed: BTreeMap::new(),
            reconsider_at: None,
            next: None,
            database,
            paths,
            relinked: true,
            unweighed: true,
            computed_at: None,
            compute_spacing: COMPUTE_SPACING,
            actions: VecDeque::new(),
            stats: Stats::default(),
            rng,
        };
        routing.advance(now);
        routing.next = routing.find_next();
        routing
    }

    /// Takes in what happened. All that is due at `now` is done too.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::AddLink { link, peer } => self.add_link(link, peer),
            Input::RemoveLink(link) => self.remove_link(now, link),
            Input::LinkUp { link, metrics } => self.link_up(now, link, metrics),
            Input::LinkDown { link, reason } => self.link_down(now, link, reason),
            Input::LinkMeasured { link, metrics } => {
                self.own.measured(link, metrics);
                self.unweighed = true;
            }
            Input::Message { link, bytes } => self.message(now, link, &bytes),
            Input::Members(members) => self.set_members(members),
            Input::Metric(metric) => {
                self.metric = metric;
                self.paths.set_metric(metric);
                (self.relinked, self.unweighed) = (true, true);
            }
            Input::Shutdown => self.own.leave(now),
            Input::Timer => {}
        }
        self.advance(now);
        self.next = self.find_next();
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Timer`] is due, and for what. May be in the past.
    pub const fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        self.next
    }

    fn find_next(&self) -> Option<(Instant, Reason)> {
        let compute = self.must_compute().then(|| self.compute_at());
        let release = self.own.next_release();
        let members = self.database.members();
        let again = [self.reconsider_at, self.postponed.values().copied().min()];
        let exchange = self.exchanges.values().map(|it| Some(it.next(members))).chain(again);
        let all = [
            (self.own.next(), Reason::Advertise),
            (release, Reason::Release),
            (compute, Reason::Compute),
            (self.database.next_expiry(), Reason::Expire),
            (exchange.flatten().min().filter(|&at| at < Instant::MAX), Reason::Exchange),
        ];
        all.into_iter().filter_map(|(at, reason)| at.map(|at| (at, reason))).min_by_key(|&(at, _)| at)
    }

    /// All routes, by destination.
    pub fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.paths.routes()
    }

    /// The metric in use.
    pub const fn metric(&self) -> Metric {
        self.metric
    }

    /// All routers that advertised something lately, by id.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView> + '_ {
        self.paths.nodes()
    }

    /// The route to `node`.
    pub fn route(&self, node: NodeId) -> Option<Route> {
        self.paths.route(node)
    }

    /// Whether a route leads to `node`.
    pub fn reaches(&self, node: NodeId) -> bool {
        self.paths.distance(node).is_some()
    }

    /// How many routers a route leads to.
    pub fn reached(&self) -> usize {
        self.paths.reached()
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the database holds: all origins and their newest sequences, ascending.
    pub fn digest(&self) -> impl Iterator<Item = (NodeId, Sequence)> + '_ {
        self.database.digest()
    }

    /// Whether the routes follow from all that is known here. Not so for up to 10 ms after news, or, while news keeps
    /// coming in a large network, for longer.
    pub const fn is_current(&self) -> bool {
        !self.relinked && !self.paths.is_stale()
    }

    /// What `origin` advertises, as far as known here.
    pub fn advertised(&self, origin: NodeId) -> Option<Vec<AdvertisedLink>> {
        self.database.links(origin).map(Iterator::collect)
    }

    /// The same on two routers whose databases are the same.
    pub const fn fingerprint(&self) -> u64 {
        self.database.fingerprint()
    }

    fn add_link(&mut self, link: LinkId, peer: NodeId) {
        assert!(peer != self.own.node, "the configuration refuses links to oneself");
        self.exchanges.insert(link, Exchange::new());
        assert!(self.exchanges.len() <= MAX_LINKS, "the configuration bounds the links");
        self.own.add(link, peer);
        (self.unweighed, self.relinked) = (true, true);
    }

    fn remove_link(&mut self, now: Instant, link: LinkId) {
        self.exchanges.remove(&link);
        self.reconsider_at = Some(now);
        self.own.remove(link);
        (self.unweighed, self.relinked) = (true, true);
    }

    fn link_up(&mut self, now: Instant, link: LinkId, metrics: LinkMetrics) {
        let summary_at = now + self.rng.jitter(SUMMARY_INTERVAL, 0.1);
        let Some(exchange) = self.exchanges.get_mut(&link) else {
            self.stats.misplaced += 1;
            return;
        };
        exchange.set_up(true, summary_at);
        self.own.up(now, link, metrics);
        // Paths, too: what is advertised may be what was before the link went down, and then nothing else says so.
        (self.unweighed, self.relinked) = (true, true);
        if !broken(Rule::Exchange) {
            self.send_digest(link, true);
        }
    }

    fn link_down(&mut self, now: Instant, link: LinkId, reason: DownReason) {
        let Some(exchange) = self.exchanges.get_mut(&link) else { return };
        exchange.set_up(false, Instant::MAX);
        // What it was asked for is to be had from others.
        self.reconsider_at = Some(now);
        self.own.down(now, link, reason);
        (self.unweighed, self.relinked) = (true, true);
    }

    fn set_members(&mut self, members: Vec<PublicIdentity>) {
        assert!(members.len() <= MAX_NODES, "the configuration bounds the members");
        let before = self.database.set_members(members.into_iter().chain([self.identity.public()]));
        self.paths.set_members(self.database.member_ids(), self.metric);
        self.database.live_links().for_each(|(origin, links)| self.paths.say(origin, Some(links)));
        self.relinked = true;
        self.postponed.retain(|&origin, _| self.database.number(origin).is_some());
        let number = |old: usize| self.database.number(before[old]);
        self.exchanges.values_mut().for_each(|exchange| exchange.renumber(number));
        // What a new member advertised before it was one was refused: ask again.
        for link in self.up_links() {
            self.send_digest(link, true);
        }
    }

    fn message(&mut self, now: Instant, link: LinkId, bytes: &[u8]) {
        let Some(exchange) = self.exchanges.get(&link) else {
            self.stats.misplaced += 1;
            return;
        };
        let up = exchange.up;
        match Message::parse(bytes) {
            // An advertisement proves itself: it is welcome also before this end knows that the link is up.
            Ok(Message::Advertisement(advertisement)) => self.advertisement(now, link, &advertisement),
            Ok(_) if !up => self.stats.misplaced += 1,
            Ok(Message::Digest(digest)) => self.compare_digest(now, link, &digest),
            Ok(Message::Request(request)) => {
                for origin in request.origins() {
                    if let Some(origin) = self.database.number(origin) {
                        self.owe(now, link, origin);
                    }
                }
            }
            Ok(Message::Summary(fingerprint)) => {
                if fingerprint != self.database.fingerprint() {
                    self.answer_digest(now, link, true);
                }
            }
            Err(_) => self.stats.malformed += 1,
        }
    }

    fn advertisement(&mut self, now: Instant, link: LinkId, advertisement: &Advertisement<'_>) {
        let sequence = advertisement.sequence;
        let Some(exchange) = self.exchanges.get_mut(&link) else { return };
        let Some(origin) = self.database.number(advertisement.origin) else {
            self.stats.unknown_origin += 1;
            return self.ask(now, link);
        };
        // Only over this link: a neighbour that sends something worthless must not keep us from asking others.
        exchange.delivered(origin, sequence);
        if advertisement.origin == self.own.node {
            self.own_advertisement(now, link, origin, advertisement);
        } else {
            let taken = self.database.take(now, origin, advertisement, &mut exchange.trials);
            *self.counter(taken) += 1;
            match taken {
                Taken::Newer { changed } => {
                    if changed {
                        self.paths.say(origin, Some(advertisement.links()));
                    }
                    self.pass_on(now, link, origin, advertisement);
                }
                Taken::Duplicate => self.known(link, origin),
                // The neighbour sent something old: it gets the newer one.
                Taken::Older => self.owe(now, link, origin),
                Taken::Refused(at) => self.postpone(link, origin, sequence, at),
                _ => {}
            }
        }
        self.ask(now, link);
    }

    /// The neighbour has the newest of `origin`.
    fn known(&mut self, link: LinkId, origin: usize) {
        if let Some(exchange) = self.exchanges.get_mut(&link) {
            exchange.knows(origin);
        }
    }

    /// Tells all neighbours but the one it came from, and those that have it by their own word.
    fn pass_on(&mut self, now: Instant, from: LinkId, origin: usize, advertisement: &Advertisement<'_>) {
        for (&link, exchange) in &mut self.exchanges {
            let has = exchange.arrived(origin, advertisement.sequence);
            if has || link == from {
                exchange.knows(origin);
            } else if exchange.up && !broken(Rule::Flooding) && exchange.tell(now, origin) {
                self.actions.push_back(Action::Send { link, bytes: advertisement.bytes().to_vec() });
            }
        }
    }

    /// The neighbour is to get what is here of `origin`.
    fn owe(&mut self, now: Instant, link: LinkId, origin: usize) {
        let (members, here) = (self.database.members(), self.database.bytes(origin).is_some());
        if let Some(exchange) = self.exchanges.get_mut(&link).filter(|exchange| exchange.up && here)
            && !exchange.owe(now, origin, members)
        {
            self.stats.limited += 1;
        }
    }

    /// There was no budget to look at what the neighbour sent of `origin`: it is asked for when there is.
    fn postpone(&mut self, link: LinkId, origin: usize, sequence: Sequence, at: Instant) {
        if let Some(exchange) = self.exchanges.get_mut(&link) {
            exchange.postpone(origin, sequence);
            self.postponed.entry(self.database.id(origin)).or_insert(at);
        }
    }

    fn counter(&mut self, taken: Taken) -> &mut u64 {
        match taken {
            Taken::Newer { .. } => &mut self.stats.accepted,
            Taken::Duplicate => &mut self.stats.duplicate,
            Taken::Older => &mut self.stats.older,
            Taken::Equivocation => &mut self.stats.equivocations,
            Taken::Forged => &mut self.stats.forged,
            Taken::Refused(_) => &mut self.stats.refused,
        }
    }

    fn own_advertisement(&mut self, now: Instant, link: LinkId, origin: usize, advertisement: &Advertisement<'_>) {
        let ours = self.database.bytes(origin) == Some(advertisement.bytes());
        if ours || advertisement.sequence < self.own.sequence {
            self.stats.duplicate += 1;
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(&link) else { return };
        match self.database.verify(now, origin, advertisement, false, &mut exchange.trials) {
            Err(at) => {
                self.stats.refused += 1;
                self.postpone(link, origin, advertisement.sequence, at);
            }
            Ok(false) => self.stats.forged += 1,
            Ok(true) => {
                self.stats.impostors += 1;
                if !broken(Rule::Outbid) {
                    self.own.fight(now, advertisement.sequence);
                }
            }
        }
    }

    fn compare_digest(&mut self, now: Instant, link: LinkId, digest: &Digest<'_>) {
        if let Some(exchange) = self.exchanges.get_mut(&link) {
            for (origin, sequence) in digest.entries() {
                let Some(origin) = self.database.number(origin) else { continue };
                match self.database.compare(origin, sequence) {
                    Ordering::Greater => exchange.want(origin, sequence),
                    Ordering::Equal => exchange.knows(origin),
                    Ordering::Less => {}
                }
            }
        }
        if digest.answer {
            self.answer_digest(now, link, false);
        }
        self.ask(now, link);
    }

    /// Asks the neighbour for what it offers, unless another one was asked for it just now.
    fn ask(&mut self, now: Instant, link: LinkId) {
        if self.exchanges.get_mut(&link).is_some_and(|exchange| exchange.give_up(now)) {
            self.reconsider_at = Some(now);
        }
        loop {
            let origins = self.exchanges.get(&link).map(Exchange::ask).unwrap_or_default();
            if origins.is_empty() {
                return;
            }
            let others = || self.exchanges.iter().filter(|(other, _)| **other != link);
            let (held, free): (Vec<_>, Vec<_>) =
                origins.into_iter().partition(|&origin| others().any(|(_, it)| it.holds_back(now, origin)));
            let Some(exchange) = self.exchanges.get_mut(&link) else { return };
            if !held.is_empty() {
                held.into_iter().for_each(|origin| exchange.spared(origin));
                self.reconsider_at.get_or_insert(now + HOLD_BACK);
            }
            if !free.is_empty() {
                exchange.asked(now, &free);
                let free: Vec<NodeId> = free.into_iter().map(|origin| self.database.id(origin)).collect();
                self.send(link, |writer| wire::emit_request(writer, &free));
            }
        }
    }

    /// Sends the digest because the neighbour wants it, so not as often as it may want it.
    fn answer_digest(&mut self, now: Instant, link: LinkId, answer: bool) {
        if self.exchanges.get_mut(&link).is_some_and(|exchange| exchange.may_have_digest(now)) {
            self.send_digest(link, answer);
        } else {
            self.stats.limited += 1;
        }
    }

    fn send_digest(&mut self, link: LinkId, answer: bool) {
        let entries: Vec<_> = self.database.digest().collect();
        let mut chunks = entries.chunks(wire::MAX_DIGEST).peekable();
        while let Some(chunk) = chunks.next() {
            let last = chunks.peek().is_none();
            self.send(link, |writer| wire::emit_digest(writer, answer && last, chunk));
        }
    }

    fn send(&mut self, link: LinkId, emit: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) {
        let mut buffer = [0; MAX_MESSAGE];
        let mut writer = Writer::new(&mut buffer);
        assert_eq!(emit(&mut writer), Ok(()), "messages are cut to fit");
        self.actions.push_back(Action::Send { link, bytes: writer.written().to_vec() });
    }

    fn up_links(&self) -> Vec<LinkId> {
        self.exchanges.iter().filter(|(_, exchange)| exchange.up).map(|(&link, _)| link).collect()
    }

    /// Does all that is due.
    fn advance(&mut self, now: Instant) {
        if self.own.release(now) {
            (self.unweighed, self.relinked) = (true, true);
        }
        if std::mem::take(&mut self.unweighed) {
            self.weigh(now);
        }
        if self.own.due(now) {
            self.originate(now);
        }
        self.database.expire(now, self.own.node, |origin| self.paths.say(origin, None::<[AdvertisedLink; 0]>));
        self.exchange(now);
        if self.must_compute() && self.compute_at() <= now {
            self.compute(now);
            // A link that was no hurry may be the only way now.
            self.weigh(now);
            if self.own.due(now) {
                self.originate(now);
            }
        }
    }

    fn weigh(&mut self, now: Instant) {
        let paths = &self.paths;
        let detour = |peer| paths.distance(peer).is_some_and(|links| links > 1);
        self.own.weigh(now, self.metric, detour);
    }

    /// A router that leaves keeps its routes for what is still under way through it.
    const fn must_compute(&self) -> bool {
        !self.is_current() && !self.own.is_leaving()
    }

    /// When paths may be computed again.
    fn compute_at(&self) -> Instant {
        self.computed_at.map_or(Instant::ZERO, |last| last + self.compute_spacing)
    }

    fn originate(&mut self, now: Instant) {
        let (sequence, links) = self.own.compose(now, self.metric);
        let mut buffer = [0; MAX_MESSAGE];
        let sign = |bytes: &[u8]| self.identity.sign(&[wire::SIGNING_CONTEXT, bytes].concat());
        let bytes = wire::emit_advertisement(&mut buffer, self.identity.public().node_id(), sequence, links, sign);
        let Ok(Message::Advertisement(advertisement)) = Message::parse(bytes) else {
            panic!("what this router writes it can read");
        };
        let own = self.database.number(self.own.node).expect("a router is a member of its own network");
        self.relinked |= self.database.store(now, own, &advertisement);
        self.stats.originated += 1;
        for link in self.up_links() {
            self.actions.push_back(Action::Send { link, bytes: bytes.to_vec() });
        }
    }

    fn exchange(&mut self, now: Instant) {
        if self.postponed.values().any(|at| *at <= now) {
            let due = |at: &Instant| *at <= now;
            let ready = self.postponed.iter().filter(|(_, at)| due(at));
            let origins: Vec<usize> = ready.filter_map(|(&origin, _)| self.database.number(origin)).collect();
            self.postponed.retain(|_, at| !due(at));
            let resume = |exchange: &mut Exchange| origins.iter().for_each(|&origin| exchange.resume(origin));
            self.exchanges.values_mut().for_each(resume);
        }
        let members = self.database.members();
        loop {
            if self.reconsider_at.is_some_and(|at| at <= now) {
                self.reconsider_at = None;
                self.exchanges.values_mut().for_each(Exchange::reconsider);
            }
            let due = |(&link, exchange): (&LinkId, &Exchange)| exchange.is_due(now, members).then_some(link);
            let due: Vec<LinkId> = self.exchanges.iter().filter_map(due).collect();
            if due.is_empty() {
                return;
            }
            due.into_iter().for_each(|link| self.serve(now, link));
        }
    }

    /// Does what is due for one neighbour: asks it, pays it, tells it.
    fn serve(&mut self, now: Instant, link: LinkId) {
        self.ask(now, link);
        let Some(exchange) = self.exchanges.get_mut(&link) else { return };
        let mut given = exchange.pay(now, self.database.members());
        let (sent, announced) = exchange.news(now);
        given.extend(sent);
        let found = given.into_iter().filter_map(|origin| self.database.bytes(origin));
        self.actions.extend(found.map(|bytes| Action::Send { link, bytes: bytes.to_vec() }));
        let summary = exchange.summary_at <= now;
        if summary {
            exchange.summary_at = now + self.rng.jitter(SUMMARY_INTERVAL, 0.1);
        }
        let entry = |origin| Some((self.database.id(origin), self.database.sequence(origin)?));
        let entries: Vec<_> = announced.iter().filter_map(entry).collect();
        for chunk in entries.chunks(wire::MAX_DIGEST) {
            self.send(link, |writer| wire::emit_digest(writer, false, chunk));
        }
        if summary {
            let fingerprint = self.database.fingerprint();
            self.send(link, |writer| wire::emit_summary(writer, fingerprint));
        }
    }

    /// Computes the routes. Of its own links a router uses only those that are up at this moment, whatever it
    /// advertised.
    fn compute(&mut self, now: Instant) {
        let usable = self.own.usable(self.metric);
        if std::mem::take(&mut self.relinked) {
            let own = self.database.links(self.own.node).into_iter().flatten();
            let number = self.database.number(self.own.node).expect("a router is a member of its own network");
            self.paths.say(number, Some(own.filter(|link| usable.contains_key(&link.neighbour))));
        }
        let quiet = self.computed_at.is_none_or(|last| now.since(last) > 2 * self.compute_spacing);
        let members = u32::try_from(self.database.members()).expect("members are at most MAX_NODES");
        let most = COMPUTE_SPACING.max(COMPUTE_SPACING_MEMBER * members);
        self.compute_spacing = if quiet { COMPUTE_SPACING } else { (2 * self.compute_spacing).min(most) };
        self.computed_at = Some(now);
        self.stats.computations += u64::from(self.paths.compute());
        if let Some(hops) = self.paths.lead(|neighbour| usable[&neighbour].0) {
            self.actions.push_back(Action::Routes(hops));
        }
    }
}
