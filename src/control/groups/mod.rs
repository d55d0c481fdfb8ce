//! Process groups on a membership of routers that need no links to each other, composed.
//!
//! ```text
//!   routes          ──▶ membership ──── views, messages, questions for state ───▶ groups ──▶ views, messages ─▶ clients
//!   overlay messages ◀─▶    ▲ ◀─────────── messages, states ────────────────────── ▲ ◀── joins, sends, leaves ◀─
//! ```
//! A member is reachable while a route leads to it. What members say to each other goes as overlay messages of the reliable
//! class ([`Command::SendFar`](crate::dataplane::messages::Command::SendFar)): the data plane already knows the way, repeats
//! what a link loses, and shares each link fairly, so that much talk in groups does not delay the control messages of
//! neighbours, as passing it on from control thread to control thread would. Nothing of this touches the group that shares
//! service addresses: that one goes by links, has another name, and agrees on its own.
//!
//! A client is a process of the group that its connection joined, one of each. What it sends is answered when membership has
//! taken it: while too much is under way its connection is not read, and the kernel makes it wait.
//!
//! # Bounds
//! Members are those of the configuration, processes as [`proto::groups`](crate::proto::groups) bounds them. What a client
//! does not read is bounded by the driver, which then disconnects it ([`Input::ClientSlow`](super::Input::ClientSlow)).

#[cfg(test)]
mod tests;

use super::ClientId;
use crate::base::limits::MAX_MEMBERS;
use crate::base::{GroupName, Instant, NodeId, Rng};
use crate::proto::groups::{self, Event, Groups, Process, Refusal};
use crate::proto::membership::{self, Membership, Service, Suspicion};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What control must do.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Send a message to a member, wherever it is.
    Send(NodeId, Vec<u8>),
    /// Answer what a client asked for.
    Answer(ClientId, Result<Done, Refusal>),
    /// Tell clients something.
    Tell(Vec<ClientId>, Event),
    /// Say it in the log.
    Say(membership::Entry),
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// It is in its group, as this process.
    Joined(Process),
    /// Its message is on its way.
    Sent,
}

/// The two rooms.
#[derive(Debug)]
pub(super) struct ProcessGroups {
    membership: Membership,
    groups: Groups,
    node: NodeId,
    /// The others, and whether a route leads there.
    members: BTreeMap<NodeId, bool>,
    /// When the view of the routers began.
    since: Instant,
    /// Clients by the number of their process; and the other way round, with whether it has joined.
    clients: BTreeMap<u32, ClientId>,
    processes: BTreeMap<ClientId, (u32, bool)>,
    last_process: u32,
    /// Routers that are no members here and speak as if they were.
    strangers: BTreeSet<NodeId>,
    /// Clients that did not read what they were told.
    slow: u64,
    wanted: VecDeque<Wanted>,
}

impl ProcessGroups {
    pub(super) fn new(
        now: Instant,
        settings: membership::Settings,
        members: &BTreeSet<NodeId>,
        rng: &mut Rng,
    ) -> ProcessGroups {
        let node = settings.node;
        let mut both = ProcessGroups {
            membership: Membership::new(now, settings, rng.fork()),
            groups: Groups::new(node),
            node,
            members: members.iter().filter(|&&member| member != node).map(|&member| (member, false)).collect(),
            since: now,
            clients: BTreeMap::new(),
            processes: BTreeMap::new(),
            last_process: 0,
            strangers: BTreeSet::new(),
            slow: 0,
            wanted: VecDeque::new(),
        };
        both.settle(now);
        both
    }

    /// The membership, to be shown.
    pub(super) const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The groups, to be shown.
    pub(super) const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// When the view of the routers began.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// Clients that were disconnected because they did not read what they were told.
    pub(super) const fn slow(&self) -> u64 {
        self.slow
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self) -> Option<Wanted> {
        self.wanted.pop_front()
    }

    /// When [`ProcessGroups::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.membership.poll_timeout().map(|due| due.0)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.membership.handle(now, membership::Input::Timer);
        self.settle(now);
    }

    /// Routes have changed.
    pub(super) fn routes(&mut self, now: Instant, leads_to: impl Fn(NodeId) -> bool) {
        let changed = |(&node, reached): (&NodeId, &mut bool)| {
            let leads = leads_to(node);
            (std::mem::replace(reached, leads) != leads).then_some((node, leads))
        };
        let changed: Vec<(NodeId, bool)> = self.members.iter_mut().filter_map(changed).collect();
        for (node, leads) in changed {
            self.membership.handle(
                now,
                match leads {
                    true => membership::Input::Reachable(node),
                    false => membership::Input::Unreachable(node, Suspicion::NoRoute),
                },
            );
            self.settle(now);
        }
    }

    /// A message of a router. False if it is no member.
    pub(super) fn message(&mut self, now: Instant, from: NodeId, bytes: Vec<u8>) -> bool {
        let known = self.members.contains_key(&from);
        if known {
            self.membership.handle(now, membership::Input::Message { from, bytes });
            self.settle(now);
        }
        known
    }

    /// Whether a router that is no member speaks as one for the first time; of no more than [`MAX_MEMBERS`] that is noticed.
    pub(super) fn is_new_stranger(&mut self, from: NodeId) -> bool {
        self.strangers.len() < MAX_MEMBERS && self.strangers.insert(from)
    }

    /// Whether the client has joined a group, or is about to.
    pub(super) fn is_process(&self, client: ClientId) -> bool {
        self.processes.contains_key(&client)
    }

    /// A client that is in no group joins one; answered by [`Wanted::Answer`].
    pub(super) fn join(&mut self, now: Instant, client: ClientId, group: GroupName) {
        assert!(!self.is_process(client), "a client is one process");
        let process = self.free_number();
        self.clients.insert(process, client);
        self.processes.insert(client, (process, false));
        self.groups.handle(groups::Input::Join { process, group });
        self.settle(now);
    }

    /// The next number that no process has, nor one whose leave is still to be delivered.
    fn free_number(&mut self) -> u32 {
        loop {
            self.last_process = self.last_process.wrapping_add(1);
            if !self.groups.has_local(self.last_process) {
                return self.last_process;
            }
        }
    }

    /// A process says something to its group; answered by [`Wanted::Answer`].
    pub(super) fn send(&mut self, now: Instant, client: ClientId, bytes: Vec<u8>) {
        match self.processes.get(&client) {
            Some(&(process, _)) => self.groups.handle(groups::Input::Send { process, bytes }),
            None => self.wanted.push_back(Wanted::Answer(client, Err(Refusal::NotJoined))),
        }
        self.settle(now);
    }

    /// The client is gone, or as good as. The process that it was, if it was one.
    pub(super) fn client_gone(&mut self, now: Instant, client: ClientId, slow: bool) -> Option<Process> {
        let (process, _) = self.processes.remove(&client)?;
        self.slow += u64::from(slow);
        self.clients.remove(&process);
        self.groups.handle(groups::Input::Leave { process });
        self.settle(now);
        Some(Process { node: self.node, number: process })
    }

    /// This router leaves: the others need not find out.
    pub(super) fn leave(&mut self, now: Instant) {
        self.membership.handle(now, membership::Input::Leave);
        self.settle(now);
    }

    /// Passes what the rooms say to each other until nothing moves.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(action) = self.membership.poll_action() {
                self.of_membership(now, action);
            } else if let Some(action) = self.groups.poll_action() {
                self.of_groups(now, action);
            } else {
                return;
            }
        }
    }

    fn of_membership(&mut self, now: Instant, action: membership::Action) {
        use groups::Input;
        use membership::{Action, Delivery};
        let input = match action {
            Action::Send { to, bytes } => return self.wanted.push_back(Wanted::Send(to, bytes)),
            Action::Note(entry) => return self.wanted.push_back(Wanted::Say(entry)),
            // It comes back to a router that has left, and whose clients are told by their connections' end.
            Action::Refused { why: membership::Refusal::Left, .. } => return,
            Action::Refused { why: membership::Refusal::TooLong, .. } => unreachable!("the room bounds its messages"),
            Action::Refused { why: membership::Refusal::Full, body } => Input::Full(body),
            Action::Room => Input::Room,
            Action::WantState { pending } => {
                let pending = pending.into_iter().map(|Delivery { from, body, .. }| (from, body)).collect();
                Input::WantState { pending }
            }
            Action::Deliver(Delivery { from, body, .. }) => Input::Message { from, body },
            Action::Transitional { together } => Input::Transitional { together },
            Action::Install { view, together, states } => {
                self.since = now;
                Input::View { view, together, states }
            }
        };
        self.groups.handle(input);
    }

    fn of_groups(&mut self, now: Instant, action: groups::Action) {
        use groups::Action;
        match action {
            Action::Multicast(body) => {
                let sent = self.membership.stats().sent;
                self.membership.handle(now, membership::Input::Multicast { body, service: Service::Agreed });
                if self.membership.stats().sent > sent {
                    self.groups.handle(groups::Input::Taken);
                }
            }
            Action::State(state) => self.membership.handle(now, membership::Input::State(state)),
            Action::Tell { processes, event } => self.tell(&processes, event),
            Action::Sent(process) => self.answer(process, Ok(Done::Sent)),
            Action::Refused { process, why } => {
                self.answer(process, Err(why));
                if why == Refusal::Crowded
                    && let Some(client) = self.clients.remove(&process)
                {
                    self.processes.remove(&client);
                }
            }
        }
    }

    fn answer(&mut self, process: u32, answer: Result<Done, Refusal>) {
        let client = self.clients.get(&process);
        self.wanted.extend(client.map(|&client| Wanted::Answer(client, answer)));
    }

    /// Who hears of its group for the first time has joined it.
    fn tell(&mut self, processes: &[u32], event: Event) {
        let clients: Vec<ClientId> =
            processes.iter().filter_map(|process| self.clients.get(process)).copied().collect();
        for client in &clients {
            let (number, joined) = self.processes.get_mut(client).expect("both ways are kept alike");
            if !std::mem::replace(joined, true) {
                let process = Process { node: self.node, number: *number };
                self.wanted.push_back(Wanted::Answer(*client, Ok(Done::Joined(process))));
            }
        }
        self.wanted.push_back(Wanted::Tell(clients, event));
    }
}
