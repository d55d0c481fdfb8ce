//! Process groups: clients of routers that join groups by name, and see views and messages in one order.
//!
//! Lightweight groups, as in Spread (Amir, Danilov, Miskin-Amir, Schultz, Stanton: *The Spread Toolkit: Architecture and
//! Performance*, 2004): only the routers agree on views, and one agreed order of theirs carries the joins, leaves and messages of
//! all groups. So a group costs nothing but a message for who comes and goes, and all routers know all groups alike.
//!
//! # What a process sees
//! Extended virtual synchrony. First a view that it is in; then views, signals and messages, such that
//! 1. two views of a group with one id have the same members, and the ids that one process sees ascend;
//! 2. every message is of a member of the view, comes once, and in the order in which its sender sent it; all who hear two
//!    messages in one view hear them in the same order;
//! 3. a view names those who come from the view before together with this process: they have heard the same there, and the
//!    signal, if there was one, in the same place. Others may come from a view of that id, too, and have heard more or less;
//! 4. a process hears what it sent itself, unless it leaves or its router ends.
//!
//! # How
//! - **Joins and leaves** are agreed messages. Each makes a view of its group, whose id is that of the routers' view and the
//!   number of joins and leaves so far in it: all count alike. The one that joins comes from no view: it is together with itself.
//! - **A view of the routers** begins with what each of them brings: its own processes and their groups. Nobody else knows
//!   better, so there is nothing to reconcile. Groups that lost or gained somebody have a new view; so have those of whose
//!   members some come from another view of the routers, though they be the same. Others notice nothing.
//! - **After the signal** that the routers' view ends, those who are parted no longer deliver the same. A join or leave that
//!   comes then makes no view of its own: it is part of the one that begins with the routers' next, where only those count
//!   that the routers bring. What a process says that is not in its group's view by then is not told. Groups whose members
//!   all stay together are given no signal.
//!
//! # What becomes of a process
//! ```text
//!   join ──▶ joining ── its join is delivered, or brought into a view ──▶ joined ── leaves, dies ──▶ leaving ──▶ –
//!               └────────────────────────── leaves, dies ───────────────────────────────────────────────┘  its leave is delivered
//! ```
//! A process may send when it has joined, and again when its last message was taken: whoever is many, each has its turn,
//! and when too much is under way the sender waits.
//!
//! # Bounds
//! | what | bound | when full |
//! |---|---|---|
//! | processes of a router, until their leave is delivered | [`MAX_PROCESSES`] | a join is refused; of another router, counted and ignored |
//! | groups | as many as processes of all routers of a view | – |
//! | a message | [`MAX_GROUP_MESSAGE`] | refused |
//! | what waits to go out | a join, a message and a leave of each process | a second message of a process is refused |
//!
//! # Doors
//! [`Groups::handle`] takes an [`Input`]; [`Groups::poll_action`] gives [`Action`]s until there are none. There are no timers,
//! nor is anything here a matter of time. For operators: [`Groups::groups`], [`Groups::stats`].

mod door;
pub(crate) mod sabotage;
#[cfg(test)]
mod tests;

pub use door::{Action, Event, GroupShown, GroupViewId, Input, Process, Refusal, Stats};

use crate::base::limits::{MAX_GROUP_MESSAGE, MAX_PROCESSES};
use crate::base::{GroupName, NodeId, View, ViewId};
use crate::wire::groups::{Message, State};
use sabotage::{Rule, broken};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The process groups as one router knows them.
#[derive(Debug)]
pub struct Groups {
    node: NodeId,
    view: ViewId,
    /// Joins and leaves delivered in this view.
    changes: u64,
    /// The view ends, and these move on.
    signal: Option<Vec<NodeId>>,
    /// All processes, of all routers of the view.
    processes: BTreeMap<Process, GroupName>,
    groups: BTreeMap<GroupName, Group>,
    /// Clients of this router.
    local: BTreeMap<u32, Local>,
    /// What goes out next; of a message, whose it is.
    outbox: VecDeque<(Option<u32>, Vec<u8>)>,
    /// What was offered and not taken yet: of a message, whose it is.
    offered: Option<Option<u32>>,
    /// It was not taken for want of room.
    blocked: bool,
    actions: VecDeque<Action>,
    stats: Stats,
}

#[derive(Debug)]
struct Group {
    /// Its view, as those of its members that are clients here were told.
    id: GroupViewId,
    members: BTreeSet<Process>,
}

/// A client of this router.
#[derive(Debug, Default)]
struct Local {
    leaving: bool,
    /// Its message waits to go out.
    sending: bool,
}

impl Groups {
    /// The room of a router that is in no view yet.
    pub const fn new(node: NodeId) -> Groups {
        Groups {
            node,
            view: ViewId::NONE,
            changes: 0,
            signal: None,
            processes: BTreeMap::new(),
            groups: BTreeMap::new(),
            local: BTreeMap::new(),
            outbox: VecDeque::new(),
            offered: None,
            blocked: false,
            actions: VecDeque::new(),
            stats: Stats {
                views: 0,
                sent: 0,
                delivered: 0,
                refused: 0,
                waited: 0,
                unknown: 0,
                malformed: 0,
                misplaced: 0,
            },
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::Join { process, group } => self.join(process, group),
            Input::Send { process, bytes } => self.send(process, &bytes),
            Input::Leave { process } => self.leave(process),
            Input::Transitional { together } => self.end(together),
            Input::View { view, together, states } => self.begin(&view, &together, &states),
            Input::Message { from, body } => self.message(from, &body),
            Input::WantState { pending } => self.bring_state(&pending),
            Input::Taken => self.taken(),
            Input::Full(body) => self.full(body),
            Input::Room => self.blocked = false,
        }
        self.offer();
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = GroupShown<'_>> {
        self.groups.iter().map(|(name, group)| GroupShown { name, id: group.id, members: &group.members })
    }

    /// Processes of all routers of the view, and of this one, those that join or leave among them.
    pub fn processes(&self) -> (usize, usize) {
        (self.processes.len(), self.local.len())
    }

    /// Whether a client of this router has this number, or had it and its leave is not delivered yet.
    pub fn has_local(&self, process: u32) -> bool {
        self.local.contains_key(&process)
    }

    /// Whether nothing waits to go out.
    pub fn is_quiet(&self) -> bool {
        self.outbox.is_empty() && self.offered.is_none()
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What is held, how much of it and how much at most, for those who check bounds.
    pub fn holdings(&self) -> [(&'static str, usize, usize); 2] {
        [("processes", self.local.len(), MAX_PROCESSES), ("to send", self.outbox.len(), 3 * MAX_PROCESSES)]
    }

    const fn process(&self, number: u32) -> Process {
        Process { node: self.node, number }
    }

    // --- clients of this router --------------------------------------------------------------------------------------

    fn join(&mut self, process: u32, group: GroupName) {
        assert!(!self.has_local(process), "two processes have one number");
        if self.local.len() >= MAX_PROCESSES {
            return self.refuse(process, Refusal::Crowded);
        }
        self.local.insert(process, Local::default());
        self.outbox.push_back((None, Message::Join { process, group }.emit()));
    }

    fn send(&mut self, process: u32, bytes: &[u8]) {
        let joined = self.processes.contains_key(&self.process(process));
        let why = match self.local.get_mut(&process).filter(|local| joined && !local.leaving) {
            None => Refusal::NotJoined,
            Some(_) if bytes.len() > MAX_GROUP_MESSAGE => Refusal::TooLong,
            Some(local) if local.sending => Refusal::Busy,
            Some(local) => {
                local.sending = true;
                self.outbox.push_back((Some(process), Message::Message { process, bytes }.emit()));
                return;
            }
        };
        self.refuse(process, why);
    }

    fn refuse(&mut self, process: u32, why: Refusal) {
        self.stats.refused += 1;
        self.actions.push_back(Action::Refused { process, why });
    }

    fn leave(&mut self, process: u32) {
        let Some(local) = self.local.get_mut(&process) else { return };
        if !std::mem::replace(&mut local.leaving, true) && !broken(Rule::GoneLeave) {
            self.outbox.push_back((None, Message::Leave { process }.emit()));
        }
    }

    /// Offers the next message, one at a time: what is not taken keeps its place.
    fn offer(&mut self) {
        if self.offered.is_some() || self.blocked {
            return;
        }
        if let Some((whose, body)) = self.outbox.pop_front() {
            self.offered = Some(whose);
            self.actions.push_back(Action::Multicast(body));
        }
    }

    fn taken(&mut self) {
        let whose = self.offered.take().expect("what is taken was offered");
        let Some(process) = whose else { return };
        self.stats.sent += 1;
        if let Some(local) = self.local.get_mut(&process) {
            local.sending = false;
            if !local.leaving {
                self.actions.push_back(Action::Sent(process));
            }
        }
    }

    fn full(&mut self, body: Vec<u8>) {
        let whose = self.offered.take().expect("what is given back was offered");
        self.stats.waited += 1;
        self.blocked = true;
        if !broken(Rule::Kept) {
            self.outbox.push_front((whose, body));
        }
    }

    /// Those of `members` that are clients here, and stay.
    fn here(&self, members: &BTreeSet<Process>) -> Vec<u32> {
        let here = members.range(self.process(0)..=self.process(u32::MAX)).map(|process| process.number);
        here.filter(|number| self.local.get(number).is_some_and(|local| !local.leaving)).collect()
    }

    /// Tells something to clients; how many they are.
    fn tell(&mut self, processes: Vec<u32>, event: impl FnOnce() -> Event) -> u64 {
        let count = processes.len() as u64;
        if count > 0 {
            self.actions.push_back(Action::Tell { processes, event: event() });
        }
        count
    }

    /// Tells a group's new view: to those who come from another one with whom they do, to those who come from none that
    /// they come alone.
    fn tell_view(&mut self, id: GroupViewId, members: &BTreeSet<Process>, stayed: &BTreeSet<Process>) {
        let all: Vec<Process> = members.iter().copied().collect();
        let event = |together: &BTreeSet<Process>| Event::View {
            id,
            members: all.clone(),
            together: together.iter().copied().collect(),
        };
        self.stats.views += self.tell(self.here(stayed), || event(stayed));
        for number in self.here(members) {
            let newcomer = self.process(number);
            if !stayed.contains(&newcomer) {
                self.stats.views += self.tell(vec![number], || event(&BTreeSet::from([newcomer])));
            }
        }
    }

    // --- the routers' views ------------------------------------------------------------------------------------------

    fn end(&mut self, together: Vec<NodeId>) {
        let loses = |group: &&Group| !group.members.iter().all(|process| together.contains(&process.node));
        let losing: Vec<Vec<u32>> = self.groups.values().filter(loses).map(|group| self.here(&group.members)).collect();
        for processes in losing.into_iter().filter(|_| !broken(Rule::Signal)) {
            self.tell(processes, || Event::Transitional);
        }
        self.signal = Some(together);
    }

    fn begin(&mut self, view: &View, together: &[NodeId], states: &[(NodeId, Vec<u8>)]) {
        (self.view, self.changes, self.signal) = (view.id, 0, None);
        self.processes = self.read(states);
        let mut brought: BTreeMap<GroupName, BTreeSet<Process>> = BTreeMap::new();
        for (process, group) in &self.processes {
            brought.entry(group.clone()).or_default().insert(*process);
        }
        let mut before = std::mem::take(&mut self.groups);
        for (name, members) in brought {
            let known = before.remove(&name);
            let comes = |process: &Process| together.contains(&process.node) || broken(Rule::TogetherOnly);
            let stayed: BTreeSet<Process> = known.iter().flat_map(|known| &known.members).copied().collect();
            let same = stayed == members && (members.iter().all(comes) || broken(Rule::Elsewhere));
            let id = match known.filter(|_| same) {
                Some(known) => known.id,
                None => {
                    let id = GroupViewId { view: view.id, change: 0 };
                    let stayed = stayed.into_iter().filter(|it| comes(it) && members.contains(it)).collect();
                    self.tell_view(id, &members, &stayed);
                    id
                }
            };
            self.groups.insert(name, Group { id, members });
        }
    }

    /// The processes that routers bring.
    fn read(&mut self, states: &[(NodeId, Vec<u8>)]) -> BTreeMap<Process, GroupName> {
        let mut processes = BTreeMap::new();
        for (node, state) in states {
            match State::parse(state) {
                Ok(State(brought)) => {
                    let of_node = |(number, group)| (Process { node: *node, number }, group);
                    processes.extend(brought.into_iter().map(of_node));
                }
                Err(_) => self.stats.malformed += 1,
            }
        }
        processes
    }

    fn bring_state(&mut self, pending: &[(NodeId, Vec<u8>)]) {
        let own = self.processes.range(self.process(0)..=self.process(u32::MAX));
        let mut own: BTreeMap<u32, GroupName> = own.map(|(process, group)| (process.number, group.clone())).collect();
        for (_, body) in pending.iter().filter(|(from, _)| *from == self.node && !broken(Rule::Pending)) {
            match Message::parse(body) {
                Ok(Message::Join { process, group }) => drop(own.insert(process, group)),
                Ok(Message::Leave { process }) => drop(own.remove(&process)),
                // What is malformed is counted when it is delivered.
                Ok(Message::Message { .. }) | Err(_) => {}
            }
        }
        self.actions.push_back(Action::State(State(own).emit()));
    }

    // --- messages in agreed order ------------------------------------------------------------------------------------

    fn message(&mut self, from: NodeId, body: &[u8]) {
        match Message::parse(body) {
            Ok(Message::Join { process, group }) => self.joined(Process { node: from, number: process }, group),
            Ok(Message::Leave { process }) => self.left(Process { node: from, number: process }),
            Ok(Message::Message { process, bytes }) => self.said(Process { node: from, number: process }, bytes),
            Err(_) => self.stats.malformed += 1,
        }
    }

    fn joined(&mut self, process: Process, name: GroupName) {
        let Process { node, .. } = process;
        let of_node = self.processes.range(Process { node, number: 0 }..=Process { node, number: u32::MAX });
        if of_node.count() >= MAX_PROCESSES || self.processes.contains_key(&process) {
            self.stats.misplaced += 1;
            return;
        }
        self.processes.insert(process, name.clone());
        self.change(&name, |members| members.insert(process));
    }

    fn left(&mut self, process: Process) {
        let Some(name) = self.processes.remove(&process) else {
            self.stats.misplaced += 1;
            return;
        };
        if process.node == self.node {
            self.local.remove(&process.number);
        }
        self.change(&name, |members| members.remove(&process));
    }

    /// Somebody came or went: a view of the group, unless the routers' own is about to end.
    fn change(&mut self, name: &GroupName, change: impl FnOnce(&mut BTreeSet<Process>) -> bool) {
        self.changes += 1;
        if self.signal.is_some() && !broken(Rule::SignalWaits) {
            return;
        }
        let id = GroupViewId { view: self.view, change: self.changes };
        let before = self.groups.remove(name).map(|group| group.members).unwrap_or_default();
        let mut members = before.clone();
        assert!(change(&mut members), "a group's members are the processes that have it");
        let stayed = before.intersection(&members).copied().collect();
        self.tell_view(id, &members, &stayed);
        if !members.is_empty() {
            self.groups.insert(name.clone(), Group { id, members });
        }
    }

    fn said(&mut self, process: Process, bytes: &[u8]) {
        let group = self.processes.get(&process).and_then(|name| self.groups.get(name));
        let group = group.filter(|group| group.members.contains(&process));
        match group.map(|group| self.here(&group.members)) {
            Some(here) => {
                self.stats.delivered += self.tell(here, || Event::Message { from: process, bytes: bytes.to_vec() });
            }
            None => self.stats.unknown += 1,
        }
    }
}
