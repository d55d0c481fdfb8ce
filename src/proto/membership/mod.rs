//! Membership: agreed views, and messages that all members of a view deliver in one order.
//!
//! The routers of a named group tell each other whom they reach, agree on who is together, and multicast in that view with
//! extended virtual synchrony (Moser, Amir, Melliar-Smith, Agarwal, ICDCS 1994; Schultz's thesis has the seventeen
//! properties that `evs.rs` checks). Whatever crashes, restarts, partitions and merges: those that move from one view to the
//! next together have delivered the same messages in the same order, and each knows who they are. There is no leader and no
//! token. Who is reachable is told by the caller; whether that is so for all alike is what is agreed here.
//!
//! # The protocol
//! 1. **Join.** Who reaches whom is flooded with versions: each router tells all it reaches whom it reaches, and passes on
//!    what a neighbour tells to those who do not hear it themselves. From that everyone finds the same cliques (`graph.rs`).
//!    Who loses a member of its view, sees one that looks for another view, or finds that its clique is not its view, stops
//!    delivering, begins a new *attempt*, and puts in its join a report of what it has of its view.
//! 2. **Agree.** With a report of everybody in its clique, each knows the view to come: its id is a hash of the members and
//!    of their lives and attempts, its number one more than that of any view they come from. Those of one view give each
//!    other what they lack of it (`store.rs`). A clique that is not closed waits until nothing changed for a while.
//! 3. **Ready.** Who has all of it asks the application for its state, as if what is pending had been delivered, and sends it
//!    to all members: it is ready for this view, and in this attempt for no other.
//! 4. **Install.** With a ready message of every member, the rest of the old view is delivered, then the signal, then what
//!    only those who move on together can deliver, then the view begins. So two message delays after the last member has
//!    noticed a fault, if nothing is lost.
//!
//! If a member moves on before all are ready, the view will not be: those that were ready for it begin another attempt,
//! after a moment that doubles each time, so that they do not chase each other.
//!
//! # States
//! ```text
//!                       a member is lost, restarted or gathers; or the clique is another
//!             ┌────────────────────────────────────────────────────────────────────────────┐
//!             │                     reports of all                 all is here, state given│
//!   ┌─────────┴┐      ┌───────────┐ of the clique  ┌────────────┐    ┌───────┐             ▼
//!   │ settled  │      │ gathering │ ─────────────▶ │ recovering │ ──▶│ ready │──┐   (gathering)
//!   │ delivers │      │           │ ◀───────────── │            │    │       │  │ all are ready
//!   └──────────┘      └───────────┘ another clique └────────────┘    └──┬────┘  │
//!         ▲                ▲                                            │       │
//!         │                └── a member moved on: a new attempt, later ─┘       │
//!         └─────────────────────────────────────────────────────────────────────┘
//! ```
//! | in | a message of the view | a message of the application | a join |
//! |---|---|---|---|
//! | settled | stored, acknowledged, delivered in order | sent | may end the view |
//! | gathering, recovering, ready | stored | sent in the next view | may change the clique |
//! | left | – | refused | answered with "I leave" |
//!
//! # Why it is safe
//! - A member installs a view only when all members said that they are ready for it, and each says so for one view in one
//!   attempt. What it has of its old view is then fixed: the report belongs to the attempt, and the attempt to the view's id.
//! - What a member learned while it became ready it reports in its next attempt. So what another one delivers because it
//!   installed the view is delivered by this one too, whichever way it goes.
//! - A member of a view that sees another one in a later attempt than that of the view knows that it has left it, or has
//!   never been there, and gathers: nobody stays behind alone.
//!
//! # Loss
//! Any message may be lost. One timer says again what is unanswered: joins that were not heard, data that somebody lacks,
//! states that somebody has not got; who has installed a view still answers those who have not. Senders repeat what others
//! ask them for; while anything is not known to be everywhere, who lacks an acknowledgement asks for it. When everybody has
//! everything, nobody sends anything.
//!
//! # Bounds
//! | what | bound | when full |
//! |---|---|---|
//! | routers known | [`MAX_MEMBERS`] | others are counted and ignored, unless one that cannot be reached makes room |
//! | data messages of one sender that not all hold | 128 | the application's message is refused, and told when there is room |
//! | messages waiting for the next view | those 128 | refused alike |
//! | messages of the next view that come before it begins | 256 | dropped and counted: they are asked for |
//! | state | [`MAX_STATE`] | nothing is brought, and the journal says so |
//! | a message | [`MAX_PAYLOAD`] | refused |
//!
//! # Timers
//! | reason | after |
//! |---|---|
//! | join | news of whom one reaches: at most once in a spacing to each, while nobody is lost; what others said, to who has not heard it from them a repeat later |
//! | acknowledge | at most once in a spacing; what only says "all have it", and nobody waits for, half a repeat later |
//! | request | a hole: a spacing, then each repeat |
//! | repeat | what is unanswered: a repeat, then twice that, to a quarter of the patience, ± 10 % |
//! | settle | an open clique: until nothing changed for the settling time, at most four times that; after a view was abandoned: a spacing, doubling |
//! | patience | somebody who is reachable and silent is left out after it; this router's own lateness is added |
//!
//! # Doors
//! [`Membership::handle`] takes an [`Input`]; [`Membership::poll_action`] gives [`Action`]s until there are none;
//! [`Membership::poll_timeout`] says when [`Input::Timer`] is due. For operators: [`Membership::view`],
//! [`Membership::is_gathering`], [`Membership::stats`].

mod door;
pub mod evs;
mod gather;
mod graph;
mod join;
mod parts;
mod peer;
mod store;
#[cfg(test)]
mod tests;
mod traffic;

pub use door::{Action, Cause, Delivery, Entry, Input, Reason, Refusal, Service, Settings, Stats, Suspicion, Timing};

use crate::base::limits::{MAX_MEMBERS, MAX_PAYLOAD, MAX_STATE};
use crate::base::{Instant, NodeId, Rng, View};
use crate::wire::cursor::Writer;
use crate::wire::membership::{self as wire, Body, DATA_ROOM, MAX_LEN, Message};
use gather::Gather;
use graph::Graph;
use peer::Peer;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use store::{Store, WINDOW};

/// Messages of a view that this router is ready for, kept until it begins.
const MAX_EARLY: usize = 256;

/// The membership of one router in one group.
#[derive(Debug)]
pub struct Membership {
    settings: Settings,
    group: u64,
    graph: Graph,
    peers: BTreeMap<NodeId, Peer>,
    /// Counts joins.
    serial: u64,
    phase: Phase,
    /// The view this router is in, or comes from.
    held: Option<Held>,
    /// What the application sent since delivery stopped.
    queue: VecDeque<(Vec<u8>, Service)>,
    early: Vec<(NodeId, Vec<u8>)>,
    /// The application was refused something, and not told yet that there is room.
    starved: bool,
    /// How often the application's state was asked for, and given.
    asked: u64,
    answered: u64,
    repeat: Repeat,
    /// When this router last did what was due.
    at: Instant,
    /// Since when the clique is open, and that matters.
    open_since: Option<Instant>,
    next: Option<(Instant, Reason)>,
    actions: VecDeque<Action>,
    stats: Stats,
    rng: Rng,
}

/// What this router does.
#[derive(Debug)]
enum Phase {
    Settled,
    Gathering(Box<Gather>),
    Left,
}

/// A view that was installed.
#[derive(Debug)]
struct Held {
    store: Store,
    /// In which life and attempt each member agreed, by rank.
    attempts: Vec<(u64, u64)>,
    /// What this router brought.
    state: Vec<u8>,
    traffic: traffic::Traffic,
}

/// When what is unanswered is said again.
#[derive(Clone, Copy, Debug)]
struct Repeat {
    at: Instant,
    wait: Duration,
}

impl Membership {
    /// A router that reaches nobody yet. It begins by installing a view of its own.
    pub fn new(now: Instant, settings: Settings, rng: Rng) -> Membership {
        let incarnation = settings.incarnation.min(wire::LIMIT - 1);
        let own = wire::Entry { node: settings.node, incarnation, version: 1, attempt: 0, reach: Vec::new() };
        let mut membership = Membership {
            group: settings.group.wire_id(),
            graph: Graph::new(now, own),
            peers: BTreeMap::new(),
            serial: 0,
            phase: Phase::Settled,
            held: None,
            queue: VecDeque::new(),
            early: Vec::new(),
            starved: false,
            asked: 0,
            answered: 0,
            repeat: Repeat { at: now, wait: settings.timing.repeat },
            at: now,
            open_since: None,
            next: None,
            actions: VecDeque::new(),
            stats: Stats::default(),
            settings,
            rng,
        };
        membership.advance(now);
        membership
    }

    /// Takes in what happened. All that is due at `now` is done too.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.excuse(now);
        match input {
            Input::Reachable(node) => self.reachable(now, node),
            Input::Unreachable(node, why) => self.unreachable(now, node, why),
            Input::Message { from, bytes } => self.message(now, from, &bytes),
            Input::Multicast { body, service } => self.multicast(now, body, service),
            Input::State(state) => self.state(now, state),
            Input::Leave => self.leave(),
            Input::Timer => {}
        }
        self.advance(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Timer`] is due, and for what. May be in the past.
    pub const fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        self.next
    }

    /// The view this router is in or, while it looks for another one, comes from.
    pub fn view(&self) -> Option<&View> {
        self.held.as_ref().map(|held| held.store.view())
    }

    /// Whether delivery has stopped because members look for another view.
    pub const fn is_gathering(&self) -> bool {
        matches!(self.phase, Phase::Gathering(_))
    }

    /// Whether this router is in a view of which everybody is known to have everything, and nothing waits.
    pub fn is_quiet(&self) -> bool {
        let all_have_all = self.held.as_ref().is_some_and(|held| held.store.is_quiet());
        matches!(self.phase, Phase::Settled) && all_have_all && self.queue.is_empty()
    }

    /// In which of its lives this router is: that of its settings, or a later one.
    pub fn incarnation(&self) -> u64 {
        self.graph.own().incarnation
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What is held, how much of it and how much at most, for those who check bounds.
    pub fn holdings(&self) -> [(&'static str, usize, usize); 5] {
        let lanes = self.held.as_ref().map_or((0, 0), |held| (held.store.held(), held.store.view().members.len()));
        [
            ("routers", self.peers.len(), MAX_MEMBERS - 1),
            ("entries", self.graph.entries().count(), MAX_MEMBERS),
            ("data messages", lanes.0, lanes.1 * 2 * WINDOW),
            ("queued", self.queued(), WINDOW),
            ("early", self.early.len(), MAX_EARLY),
        ]
    }

    const fn node(&self) -> NodeId {
        self.settings.node
    }

    /// Does all that is due.
    fn advance(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Left) {
            self.leave_out_mute(now);
            self.renew_entry(now);
            self.agree(now);
            self.run_traffic(now);
            self.send_joins(now);
            self.say_again(now);
        }
        self.next = self.find_next();
    }

    fn find_next(&self) -> Option<(Instant, Reason)> {
        let due = match &self.phase {
            Phase::Left => return None,
            Phase::Settled => [self.acknowledge_at(), self.request_at(), self.stir_at()],
            Phase::Gathering(_) => [None; 3],
        };
        let [acknowledge, request, stir] = due;
        let all = [
            (acknowledge, Reason::Acknowledge),
            (request, Reason::Request),
            (stir, Reason::Repeat),
            (self.joins_at(), Reason::Join),
            (self.is_unanswered().then_some(self.repeat.at), Reason::Repeat),
            (self.decide_at(), Reason::Settle),
            (self.patience_at(), Reason::Patience),
        ];
        all.into_iter().filter_map(|(at, reason)| Some((at?, reason))).min_by_key(|&(at, _)| at)
    }

    // --- reachability ------------------------------------------------------------------------------------------------

    fn reachable(&mut self, now: Instant, node: NodeId) {
        if node == self.node() {
            self.stats.misplaced += 1;
            return;
        }
        let relay_at = now + self.settings.timing.repeat;
        let Some(peer) = self.peer(now, node) else { return };
        (peer.reachable, peer.heard_at, peer.gone) = (true, now, None);
        peer.begin_anew(relay_at);
        self.stir_repeat(now);
        self.note(Entry::Reached(node));
    }

    fn unreachable(&mut self, now: Instant, node: NodeId, why: Suspicion) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if std::mem::replace(&mut peer.reachable, false) {
            // What it said of itself may not hold any more; if it does, it will say so again.
            self.graph.forget(now, node);
            self.note(Entry::Lost(node, why));
        }
    }

    /// What is known of `node`. None if there is no place for it.
    fn peer(&mut self, now: Instant, node: NodeId) -> Option<&mut Peer> {
        if !self.peers.contains_key(&node) && self.peers.len() >= MAX_MEMBERS - 1 {
            let held = self.held.as_ref();
            let idle = |(node, peer): (&NodeId, &Peer)| {
                let free = !peer.reachable && held.is_none_or(|held| !held.store.view().contains(*node));
                free.then_some(*node)
            };
            let Some(idle) = self.peers.iter().find_map(idle) else {
                self.stats.crowded += 1;
                return None;
            };
            self.peers.remove(&idle);
            self.graph.forget(now, idle);
        }
        Some(self.peers.entry(node).or_insert_with(|| Peer::new(now)))
    }

    /// Renews what this router says of whom it reaches, and tells everybody, if it is something else now.
    fn renew_entry(&mut self, now: Instant) {
        let reached = self.peers.iter().filter(|(_, peer)| peer.is_reached());
        let reach: Vec<NodeId> = reached.map(|(&node, _)| node).collect();
        if reach != self.graph.own().reach {
            self.rewrite(now, |entry| entry.reach = reach);
        }
    }

    /// Writes this router's entry anew, for everybody.
    fn rewrite(&mut self, now: Instant, change: impl FnOnce(&mut wire::Entry)) {
        let mut entry = self.graph.own().clone();
        entry.version += 1;
        change(&mut entry);
        assert_eq!(self.graph.take(now, entry), graph::Taken::Newer, "a later version is newer");
        self.peers.values_mut().filter(|peer| peer.reachable).for_each(|peer| peer.due = true);
        self.stir_repeat(now);
    }

    /// Everybody is owed patience again by as much as this router's own timer is late: a router that slept accuses nobody.
    fn excuse(&mut self, now: Instant) {
        let late = self.next.map_or(Duration::ZERO, |(due, _)| now.since(due));
        if late > self.settings.timing.spacing {
            self.peers.values_mut().for_each(|peer| peer.heard_at = (peer.heard_at + late).min(now));
        }
    }

    /// Leaves out who was silent for too long, and takes in again who speaks.
    fn leave_out_mute(&mut self, now: Instant) {
        let patience = self.settings.timing.patience;
        for node in self.awaited() {
            let Some(silent) = self.peers.get(&node).map(|peer| self.silence(now, peer.heard_at)) else { continue };
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            if peer.is_reached() && silent >= patience {
                peer.mute = true;
                self.stats.mute += 1;
                self.note(Entry::Mute(node, silent));
            }
        }
    }

    // --- messages ----------------------------------------------------------------------------------------------------

    fn message(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        let message = match Message::parse(bytes) {
            Ok(message) if message.group == self.group && from != self.node() => message,
            Ok(_) => {
                self.stats.misplaced += 1;
                return;
            }
            Err(_) => {
                self.stats.malformed += 1;
                return;
            }
        };
        if matches!(self.phase, Phase::Left) {
            if message.body != Body::Leave {
                self.send(from, Body::Leave);
            }
            return;
        }
        let known = self.graph.entry(from).map_or(0, |entry| entry.incarnation);
        let Some(peer) = self.peer(now, from) else { return };
        if message.incarnation < known || peer.gone.is_some_and(|gone| message.incarnation <= gone) {
            // It has to learn in which life others know it.
            peer.due |= matches!(message.body, Body::Join(_)) && peer.gone.is_none();
            self.stats.outlived += 1;
            return;
        }
        peer.heard_at = now;
        if std::mem::replace(&mut peer.mute, false) {
            peer.due = true;
            self.note(Entry::Speaks(from));
        }
        self.take(now, from, &message, bytes);
    }

    fn take(&mut self, now: Instant, from: NodeId, message: &Message<'_>, bytes: &[u8]) {
        let view = match message.body {
            Body::Join(part) => return self.take_join(now, from, message.incarnation, &part),
            Body::Ready { view, got, part } => {
                return self.take_ready(now, from, message.incarnation, view, got, &part);
            }
            Body::Heard(serial) => {
                let heard = serial.min(self.serial);
                self.peers.entry(from).and_modify(|peer| peer.heard = peer.heard.max(heard));
                return;
            }
            Body::Leave => return self.take_leave(now, from, message.incarnation),
            Body::Data(data) => data.view,
            Body::Ack(ack) => ack.view,
            Body::Request(request) => request.view,
        };
        if self.held.as_ref().is_none_or(|held| held.store.view().id != view) {
            let awaited = self.ready_view() == Some(view);
            if awaited && self.early.len() < MAX_EARLY {
                self.early.push((from, bytes.to_vec()));
            } else {
                *(if awaited { &mut self.stats.early } else { &mut self.stats.foreign }) += 1;
            }
            return;
        }
        match message.body {
            Body::Data(data) => self.take_data(now, &data),
            Body::Ack(ack) => self.take_ack(now, from, &ack),
            Body::Request(request) => self.take_request(from, &request),
            _ => unreachable!("the others are taken above"),
        }
    }

    fn send(&mut self, to: NodeId, body: Body<'_>) {
        let message = Message { group: self.group, incarnation: self.incarnation(), body };
        let mut buffer = [0; MAX_LEN];
        let mut writer = Writer::new(&mut buffer);
        assert_eq!(message.emit(&mut writer), Ok(()), "messages are cut to fit");
        self.actions.push_back(Action::Send { to, bytes: writer.written().to_vec() });
    }

    fn note(&mut self, entry: Entry) {
        self.actions.push_back(Action::Note(entry));
    }

    // --- the application ---------------------------------------------------------------------------------------------

    fn multicast(&mut self, now: Instant, body: Vec<u8>, service: Service) {
        let parts = body.len().div_ceil(DATA_ROOM).max(1);
        let room = match (&self.phase, &self.held) {
            (Phase::Settled, Some(held)) => held.store.room(),
            _ => WINDOW - self.queued(),
        };
        let why = match &self.phase {
            Phase::Left => Some(Refusal::Left),
            _ if body.len() > MAX_PAYLOAD => Some(Refusal::TooLong),
            _ if parts > room => Some(Refusal::Full),
            _ => None,
        };
        if let Some(why) = why {
            self.starved |= why == Refusal::Full;
            self.stats.refused += 1;
            self.actions.push_back(Action::Refused { why, body });
            return;
        }
        self.stats.sent += 1;
        match self.phase {
            Phase::Settled => self.send_data(now, &body, service),
            _ => self.queue.push_back((body, service)),
        }
    }

    /// Data messages that what waits will be.
    fn queued(&self) -> usize {
        self.queue.iter().map(|(body, _)| body.len().div_ceil(DATA_ROOM).max(1)).sum()
    }

    fn state(&mut self, now: Instant, mut state: Vec<u8>) {
        self.answered += 1;
        assert!(self.answered <= self.asked, "a state is given when it is asked for");
        if state.len() > MAX_STATE {
            self.note(Entry::StateTooLong(state.len()));
            state.clear();
        }
        if self.answered == self.asked {
            self.become_ready(now, state);
        }
    }

    fn leave(&mut self) {
        let told: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| peer.reachable).map(|(&node, _)| node).collect();
        told.into_iter().for_each(|node| self.send(node, Body::Leave));
        self.phase = Phase::Left;
        (self.held, self.queue, self.early) = (None, VecDeque::new(), Vec::new());
    }

    fn take_leave(&mut self, now: Instant, from: NodeId, incarnation: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.gone = Some(incarnation);
        self.graph.forget(now, from);
        self.note(Entry::Leaving(from));
    }
}
