//! Who is together with this router, and which service addresses are its: membership and VIPs, composed.
//!
//! ```text
//!   links up, down ──▶ membership ──── views, messages, questions for state ───▶ vip ──▶ commands for the host side
//!   messages       ◀─▶     ▲ ◀─────────── messages, states ────────────────────── ▲ ◀── reports of the host side
//!                          └──────────────────── journal ◀───────────────────────┘ ◀── orders of operators
//! ```
//! A member is reachable while a link to it is up: service addresses live on one network, and who cannot be spoken to
//! directly there does not see who answers. Messages go as control messages, which links repeat; membership repeats what
//! goes down with a link.
//!
//! # When a member is gone
//! Whoever takes over must know until when it may answer ([`vip::Input::LastHeard`]). A link that fell silent was heard the
//! whole dead interval ago, give or take a hello. Of a process that is gone (its port refuses, or it said goodbye) that is
//! known at once, and its sets are taken over at once: its kernel may answer whoever asks for the rest of its lease, beside
//! the announcements of the new owner, which waiting would only delay.
//!
//! # Who stood still
//! A router that was stopped for longer than its lease is silent by its kernel's hand, and others may hold what it held. The
//! host side says so, but messages and links may be quicker: a merge that begins before it would count this router as one
//! that answers. So whatever comes first after a standstill finds that the last beat ([`Cluster::beat`]) is longer ago than
//! a lease, and takes that for the lapse that it is, since the kernel's lease ends no later than one lease after it. The host
//! side hears of it ([`Cluster::woke`]) before it hears of another beat, and lets go what it may hold still.
//!
//! # Bounds
//! The journal keeps [`JOURNAL`] entries, the oldest goes first. Orders under way: vip's own bound.

use super::ClientId;
use crate::base::{DownReason, Instant, NodeId, Rng, View};
use crate::proto::membership::{self, Delivery, Membership, Service, Suspicion};
use crate::proto::vip::{self, HostCommand, HostReport, Vip};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Entries of the journal.
pub(super) const JOURNAL: usize = 512;

/// Something to remember.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Membership(membership::Entry),
    Vip(vip::Entry),
}

/// What passed between membership and who stands on it, for those who check what membership promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witnessed {
    /// A message was taken to be sent.
    Sent {
        /// What it says.
        body: Vec<u8>,
        /// It goes out in the next view.
        later: bool,
    },
    /// A message was delivered.
    Delivered(Delivery),
    /// The view ends for these together.
    Ends(Vec<NodeId>),
    /// A view began, for these together.
    Began(View, Vec<NodeId>),
}

/// What control must do.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Send a control message to a member.
    Send(NodeId, Vec<u8>),
    /// Tell the host side.
    Host(HostCommand),
    /// Whatever the host side was to acquire until here, it is not to any more.
    Void,
    /// Answer who ordered something.
    Answer(ClientId, Result<(), String>),
    /// Say it in the log.
    Say(Event),
}

/// The two rooms.
#[derive(Debug)]
pub(super) struct Cluster {
    membership: Membership,
    vip: Vip,
    /// The others.
    members: BTreeSet<NodeId>,
    lease: Duration,
    /// When the driver last said that it runs; none if it never did.
    beat: Option<Instant>,
    /// When this router last found that it had stood still.
    woke: Option<Instant>,
    /// Connections that wait for an order, by the order's number.
    orders: BTreeMap<u64, ClientId>,
    last_order: u64,
    journal: VecDeque<(Instant, Event)>,
    /// When the view began.
    since: Instant,
    left: bool,
    wanted: VecDeque<Wanted>,
    /// If somebody asked for it. Who did takes it away again and again.
    witnessed: Option<Vec<Witnessed>>,
}

impl Cluster {
    pub(super) fn new(now: Instant, group: membership::Settings, settings: vip::Settings, rng: &mut Rng) -> Cluster {
        let members = settings.members.iter().map(|member| member.0).filter(|&node| node != settings.node).collect();
        let lease = settings.lease;
        let mut cluster = Cluster {
            membership: Membership::new(now, group, rng.fork()),
            vip: Vip::new(now, settings, rng.fork()),
            members,
            lease,
            beat: None,
            woke: None,
            orders: BTreeMap::new(),
            last_order: 0,
            journal: VecDeque::with_capacity(JOURNAL),
            since: now,
            left: false,
            wanted: VecDeque::new(),
            witnessed: None,
        };
        cluster.settle(now);
        cluster
    }

    /// The membership, to be shown.
    pub(super) const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The VIPs, to be shown.
    pub(super) const fn vip(&self) -> &Vip {
        &self.vip
    }

    /// When the view began.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// What happened, the oldest first.
    pub(super) fn journal(&self) -> impl Iterator<Item = &(Instant, Event)> {
        self.journal.iter()
    }

    /// Everything is handed over, and the group is left.
    pub(super) const fn has_left(&self) -> bool {
        self.left
    }

    /// What passes through is written down from now on, and what did so until then is as if it had never been.
    pub(super) fn witness(&mut self) {
        assert!(self.membership.is_quiet(), "nothing is under way that was sent before");
        let view = self.membership.view().cloned();
        let began = |view: View| {
            assert_eq!(view.members.len(), 1, "at first it is alone");
            let alone = view.members.clone();
            Witnessed::Began(view, alone)
        };
        self.witnessed = Some(view.map(began).into_iter().collect());
    }

    /// What was written down since this was asked last.
    pub(super) fn take_witnessed(&mut self) -> Vec<Witnessed> {
        self.witnessed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn write_down(&mut self, what: impl FnOnce() -> Witnessed) {
        if let Some(witnessed) = &mut self.witnessed {
            witnessed.push(what());
        }
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self) -> Option<Wanted> {
        self.wanted.pop_front()
    }

    /// When [`Cluster::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = [self.membership.poll_timeout().map(|due| due.0), self.vip.poll_timeout().map(|due| due.0)];
        due.into_iter().flatten().min()
    }

    /// When this router last found that it had stood still for longer than its lease.
    pub(super) const fn woke(&self) -> Option<Instant> {
        self.woke
    }

    /// This router runs, and the keeper of its lease is told so.
    pub(super) fn beat(&mut self, now: Instant) {
        self.wake(now);
        self.beat = Some(now);
        self.settle(now);
    }

    /// Before anything is taken in: a router that stood still for longer than its lease holds nothing any more.
    fn wake(&mut self, now: Instant) {
        if self.beat.is_some_and(|beat| now.since(beat) > self.lease) {
            (self.beat, self.woke) = (Some(now), Some(now));
            self.of_host(now, vip::Input::Host(HostReport::Lapsed));
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
        if self.membership.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.membership.handle(now, membership::Input::Timer);
        }
        if self.vip.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.vip.handle(now, vip::Input::Timer);
        }
        self.settle(now);
    }

    /// A link to a member came up.
    pub(super) fn reachable(&mut self, now: Instant, node: NodeId) {
        self.wake(now);
        if self.members.contains(&node) {
            self.membership.handle(now, membership::Input::Reachable(node));
            self.settle(now);
        }
    }

    /// The last link to a member went down; if it fell silent, after so long.
    pub(super) fn unreachable(&mut self, now: Instant, node: NodeId, why: DownReason, dead: Duration) {
        self.wake(now);
        if !self.members.contains(&node) {
            return;
        }
        let ago = if is_known_dead(why) { self.lease } else { dead };
        let at = Instant::from_nanos(now.as_nanos().saturating_sub(ago.as_nanos() as u64));
        self.vip.handle(now, vip::Input::LastHeard { node, at });
        self.membership.handle(now, membership::Input::Unreachable(node, Suspicion::Link(why)));
        self.settle(now);
    }

    /// A message of a neighbour. False if it is no member.
    pub(super) fn message(&mut self, now: Instant, from: NodeId, bytes: Vec<u8>) -> bool {
        self.wake(now);
        let known = self.members.contains(&from);
        if known {
            self.membership.handle(now, membership::Input::Message { from, bytes });
            self.settle(now);
        }
        known
    }

    /// The other members.
    pub(super) const fn members(&self) -> &BTreeSet<NodeId> {
        &self.members
    }

    /// An operator's order, answered by [`Wanted::Answer`].
    pub(super) fn order(&mut self, now: Instant, client: ClientId, command: vip::Command) {
        self.wake(now);
        self.last_order += 1;
        self.orders.insert(self.last_order, client);
        self.vip.handle(now, vip::Input::Command { id: self.last_order, command });
        self.settle(now);
    }

    /// Who ordered something is gone; what was ordered goes on.
    pub(super) fn client_gone(&mut self, client: ClientId) {
        self.orders.retain(|_, waiting| *waiting != client);
    }

    /// The host side, or a health check.
    pub(super) fn host(&mut self, now: Instant, input: vip::Input) {
        self.wake(now);
        self.of_host(now, input);
    }

    fn of_host(&mut self, now: Instant, input: vip::Input) {
        if input == vip::Input::Host(HostReport::Lapsed) {
            self.wanted.push_back(Wanted::Void);
        }
        self.vip.handle(now, input);
        self.settle(now);
    }

    /// Hands everything over, then leaves the group.
    pub(super) fn leave(&mut self, now: Instant) {
        self.wake(now);
        self.vip.handle(now, vip::Input::Leave);
        self.settle(now);
    }

    /// Passes what the rooms say to each other until nothing moves.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(action) = self.membership.poll_action() {
                self.of_membership(now, action);
            } else if let Some(action) = self.vip.poll_action() {
                self.of_vip(now, action);
            } else {
                return;
            }
        }
    }

    fn of_membership(&mut self, now: Instant, action: membership::Action) {
        use membership::Action;
        match action {
            Action::Send { to, bytes } => self.wanted.push_back(Wanted::Send(to, bytes)),
            Action::WantState { pending } => {
                let pending = pending.into_iter().map(|delivery| (delivery.from, delivery.body)).collect();
                self.vip.handle(now, vip::Input::WantState { pending });
            }
            Action::Deliver(delivery) => {
                self.write_down(|| Witnessed::Delivered(delivery.clone()));
                let (from, body) = (delivery.from, delivery.body);
                self.vip.handle(now, vip::Input::Message { from, body });
            }
            Action::Install { view, together, states } => {
                self.since = now;
                self.write_down(|| Witnessed::Began(view.clone(), together.clone()));
                self.vip.handle(now, vip::Input::View { view, together, states });
            }
            Action::Transitional { together } => self.write_down(|| Witnessed::Ends(together)),
            // What is not delivered in time is said again.
            Action::Refused { .. } | Action::Room => {}
            Action::Note(entry) => self.note(now, Event::Membership(entry)),
        }
    }

    fn of_vip(&mut self, now: Instant, action: vip::Action) {
        use vip::Action;
        match action {
            Action::Multicast(body) => {
                let (later, sent) = (self.membership.is_gathering(), self.membership.stats().sent);
                let copy = self.witnessed.is_some().then(|| body.clone());
                self.membership.handle(now, membership::Input::Multicast { body, service: Service::Agreed });
                if let Some(body) = copy.filter(|_| self.membership.stats().sent > sent) {
                    self.write_down(|| Witnessed::Sent { body, later });
                }
            }
            Action::State(state) => self.membership.handle(now, membership::Input::State(state)),
            Action::Host(command) => self.wanted.push_back(Wanted::Host(command)),
            Action::Done { id, result } => {
                let client = self.orders.remove(&id);
                self.wanted.extend(client.map(|client| Wanted::Answer(client, result)));
            }
            Action::Left => {
                self.membership.handle(now, membership::Input::Leave);
                self.left = true;
            }
            Action::Note(entry) => self.note(now, Event::Vip(entry)),
        }
    }

    fn note(&mut self, now: Instant, event: Event) {
        if self.journal.len() == JOURNAL {
            self.journal.pop_front();
        }
        self.journal.push_back((now, event.clone()));
        self.wanted.push_back(Wanted::Say(event));
    }
}

/// Whether the other process is known to run no more, or to have handed everything over.
const fn is_known_dead(why: DownReason) -> bool {
    matches!(why, DownReason::Refused | DownReason::Closed | DownReason::Restarted)
}
