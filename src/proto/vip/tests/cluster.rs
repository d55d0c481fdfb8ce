//! Several rooms, a membership that delivers at once or not at all, hosts that obey when they are let, and one clock.
//!
//! Messages of a view are delivered to all its members at one moment and in one order; between any two deliveries a view
//! may change, and then what was not delivered is delivered before the new view, lost with its senders, or sent in the
//! new view, which is all that extended virtual synchrony leaves open. Time passes only when nothing else can happen: a
//! message takes no time against a lease.
//!
//! What is checked whenever time passes:
//! - who is in a view together has agreed on the same;
//! - in a view no set is answered for by two;
//! - nobody answers for a set while a member that is gone and owned it still may, unless it was acquiring the set already
//!   when that one went;
//! - no set is uncovered for longer than a lease after its view began, if a member may hold it; in a view of none but such
//!   as stood still, for as long as those wait for the others;
//!
//! and when nothing is left to happen: every set is answered for by one member of each view if one may, else by none.

use super::super::*;
use crate::base::ViewId;
use std::hash::{DefaultHasher, Hash, Hasher};

pub(super) const LEASE: Duration = Duration::from_millis(50);
pub(super) const LINGER: Duration = Duration::from_millis(20);
pub(super) const MATURITY: Duration = Duration::from_millis(500);

pub(super) fn id(node: usize) -> NodeId {
    NodeId(10 * (node as u64 + 1))
}

/// What the kernel of a host does for a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kernel {
    Nothing,
    /// It answers from then on.
    Answers(Instant),
    Muted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Runs,
    /// Its process does nothing; the lease ends then.
    Frozen(Instant),
    /// Its process is gone; the lease ends then.
    Dead(Instant),
}

/// Why nodes may not answer for a set: `who` may, or did until its lease runs out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ghost {
    who: usize,
    set: usize,
    until: Instant,
    /// Who knows of it, or is together with somebody who does.
    mates: Vec<usize>,
    /// Who was acquiring the set already.
    excused: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) vip: Vip,
    pub(super) life: Life,
    pub(super) kernel: Vec<Kernel>,
    pub(super) orders: VecDeque<HostCommand>,
    /// Sets of which the host has not said that it answers.
    unsaid: Vec<bool>,
    pub(super) healthy: bool,
    pub(super) left: bool,
    pub(super) announced: usize,
    pub(super) done: Vec<(u64, Result<(), String>)>,
    pub(super) notes: Vec<Entry>,
}

/// Nodes in one view, and what is said in it and not delivered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub(super) nodes: Vec<usize>,
    pub(super) log: VecDeque<(NodeId, Vec<u8>)>,
    began: Instant,
    /// A router that woke is in a view that the others have left: nothing is delivered in it.
    pub(super) stale: bool,
}

/// What becomes of messages that were not delivered when a view ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// All are delivered before the next view.
    Delivered,
    /// Those of members that are gone are lost.
    Lost,
    /// Those of members that are gone are lost, the others are sent in the next view.
    Postponed,
}

#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) groups: Vec<Group>,
    ghosts: Vec<Ghost>,
    views: u64,
    settings: Settings,
    /// By node and set: since when nobody answers in its view.
    uncovered: Vec<Vec<Option<Instant>>>,
    /// Messages delivered.
    pub(super) delivered: usize,
}

pub(super) fn settings(node: usize, nodes: usize, sets: usize) -> Settings {
    let set = |set: usize| SetSpec {
        name: format!("set{set}"),
        addresses: vec![[192, 0, 2, set as u8].into()],
        interfaces: vec!["eth0".to_owned()],
        coverage: Coverage::Component,
        preferences: Vec::new(),
    };
    Settings {
        node: id(node),
        members: (0..nodes).map(|node| (id(node), format!("m{node}"))).collect(),
        sets: (0..sets).map(set).collect(),
        weight: 1,
        checks: vec![CheckSpec::default()],
        maturity: MATURITY,
        lease: LEASE,
        linger: LINGER,
        balance: None,
        moves: 1,
    }
}

impl Cluster {
    /// All nodes running, each in a view of its own.
    pub(super) fn new(nodes: usize, settings: Settings) -> Cluster {
        let now = Instant::ZERO;
        let mut cluster = Cluster {
            now,
            nodes: (0..nodes).map(|node| Node::new(now, &settings, node)).collect(),
            groups: Vec::new(),
            ghosts: Vec::new(),
            views: 0,
            uncovered: vec![vec![None; settings.sets.len()]; nodes],
            settings,
            delivered: 0,
        };
        cluster.views_are((0..nodes).map(|node| vec![node]).collect(), Fate::Delivered);
        cluster
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        let now = self.now;
        self.nodes[node].vip.handle(now, input);
        while let Some(action) = self.nodes[node].vip.poll_action() {
            let at = &mut self.nodes[node];
            match action {
                Action::Multicast(body) => {
                    let group = self.groups.iter_mut().find(|group| group.nodes.contains(&node));
                    group.expect("every node that runs is in a view").log.push_back((id(node), body));
                }
                Action::Host(command) => at.orders.push_back(command),
                Action::Done { id, result } => at.done.push((id, result)),
                Action::Left => at.left = true,
                Action::Note(entry) => at.notes.push(entry),
                Action::State(_) => panic!("nobody asked"),
            }
        }
    }

    /// Delivers the next message of a view to all its members.
    pub(super) fn deliver(&mut self, group: usize) {
        let (from, body) = self.groups[group].log.pop_front().expect("there is one");
        self.delivered += 1;
        for node in self.groups[group].nodes.clone() {
            self.input(node, Input::Message { from, body: body.clone() });
        }
    }

    /// The host of a node does all that it was told.
    pub(super) fn obey(&mut self, node: usize) {
        while let Some(command) = self.nodes[node].orders.pop_front() {
            let now = self.now;
            let at = &mut self.nodes[node];
            match command {
                HostCommand::Acquire { set, wait, .. } => {
                    at.kernel[set] = Kernel::Answers(now + wait);
                    at.unsaid[set] = true;
                    self.say_acquired(node, set);
                }
                HostCommand::Announce { .. } => at.announced += 1,
                HostCommand::Mute { set } => {
                    // Where the lease ran out meanwhile, it is silent already.
                    if at.kernel[set] != Kernel::Nothing {
                        at.kernel[set] = Kernel::Muted;
                    }
                }
                HostCommand::Release { set } => {
                    (at.kernel[set], at.unsaid[set]) = (Kernel::Nothing, false);
                    self.input(node, Input::Host(HostReport::Released { set }));
                }
                HostCommand::ReleaseAll => at.kernel.fill(Kernel::Nothing),
            }
        }
    }

    fn say_acquired(&mut self, node: usize, set: usize) {
        let at = &mut self.nodes[node];
        if at.unsaid[set] && matches!(at.kernel[set], Kernel::Answers(from) if from <= self.now) {
            at.unsaid[set] = false;
            self.input(node, Input::Host(HostReport::Acquired { set }));
        }
    }

    /// From now on these are together. Nodes that do not run are in none.
    pub(super) fn views_are(&mut self, groups: Vec<Vec<usize>>, fate: Fate) {
        let old = std::mem::take(&mut self.groups);
        let same = |nodes: &Vec<usize>| old.iter().position(|group| group.nodes == *nodes && !group.stale);
        self.groups = groups
            .iter()
            .map(|nodes| match same(nodes) {
                Some(place) => old[place].clone(),
                None => Group { nodes: nodes.clone(), log: VecDeque::new(), began: self.now, stale: false },
            })
            .collect();
        for (place, nodes) in groups.iter().enumerate().filter(|(_, nodes)| same(nodes).is_none()) {
            self.change_view(place, nodes, &old, fate);
        }
    }

    fn change_view(&mut self, place: usize, nodes: &[usize], old: &[Group], fate: Fate) {
        let before = |node: usize| old.iter().find(|group| group.nodes.contains(&node));
        let split = |node: usize| {
            let Some(group) = before(node) else { return (Vec::new(), Vec::new()) };
            let comes = |from: &NodeId| nodes.iter().any(|&node| id(node) == *from && group.nodes.contains(&node));
            let all = group.log.iter().cloned();
            match fate {
                _ if group.stale => (Vec::new(), all.collect()),
                Fate::Delivered => (all.collect(), Vec::new()),
                Fate::Lost => (all.filter(|(from, _)| comes(from)).collect(), Vec::new()),
                // Each sends its own again.
                Fate::Postponed => (Vec::new(), all.filter(|(from, _)| *from == id(node)).collect::<Vec<_>>()),
            }
        };
        let mut states = Vec::new();
        for &node in nodes {
            let (pending, again) = split(node);
            let now = self.now;
            self.groups[place].log.extend(again);
            self.nodes[node].vip.handle(now, Input::WantState { pending: pending.clone() });
            let Some(Action::State(state)) = self.nodes[node].vip.poll_action() else { panic!("a state was wanted") };
            states.push((id(node), state));
            for (from, body) in pending {
                self.input(node, Input::Message { from, body });
            }
        }
        self.views += 1;
        let view = View {
            id: ViewId { number: self.views, digest: 0 },
            members: nodes.iter().map(|&node| id(node)).collect(),
        };
        for &node in nodes {
            let together = |other: &&usize| before(node).is_some_and(|group| group.nodes.contains(other));
            let together = nodes.iter().filter(together).map(|&node| id(node)).chain([id(node)]).collect();
            self.input(node, Input::View { view: view.clone(), together, states: states.clone() });
        }
        for ghost in &mut self.ghosts {
            if nodes.iter().any(|node| ghost.mates.contains(node)) {
                for &node in nodes.iter().filter(|node| !ghost.mates.contains(node)).collect::<Vec<_>>() {
                    ghost.mates.push(node);
                    if self.nodes[node].kernel[ghost.set] != Kernel::Nothing {
                        ghost.excused.push(node);
                    }
                }
            }
        }
    }

    /// The process of a node is gone, or does nothing from now on.
    pub(super) fn stop(&mut self, node: usize, freeze: bool) {
        let until = self.now + LEASE;
        let group = self.groups.iter().position(|group| group.nodes.contains(&node)).expect("it runs");
        let mates: Vec<usize> = self.groups[group].nodes.iter().copied().filter(|&mate| mate != node).collect();
        for set in 0..self.settings.sets.len() {
            // Who was to be silent already, and stopped before its host obeyed, is silent within a lease as well; nobody
            // can know, and nobody waits.
            if self.nodes[node].vip.posts[set].stage == Stage::Owning && self.answers(node, set) {
                let holds = |mate: &usize| {
                    let told = |command: &HostCommand| matches!(command, HostCommand::Acquire { set: told, .. } if *told == set);
                    self.nodes[*mate].kernel[set] != Kernel::Nothing || self.nodes[*mate].orders.iter().any(told)
                };
                let excused = mates.iter().copied().filter(holds).collect();
                self.ghosts.push(Ghost { who: node, set, until, mates: mates.clone(), excused });
            }
        }
        let at = &mut self.nodes[node];
        at.life = if freeze { Life::Frozen(until) } else { Life::Dead(until) };
        if !freeze {
            at.orders.clear();
        }
        self.leave_group(node, group);
    }

    /// The others go on without it.
    fn leave_group(&mut self, node: usize, group: usize) {
        let mut groups: Vec<Vec<usize>> = self.groups.iter().map(|group| group.nodes.clone()).collect();
        groups[group].retain(|&other| other != node);
        groups.retain(|group| !group.is_empty());
        self.views_are(groups, Fate::Lost);
    }

    /// A node whose process is gone starts again, alone; one that was frozen goes on.
    pub(super) fn start(&mut self, node: usize) {
        match self.nodes[node].life {
            Life::Runs => {}
            Life::Dead(_) => {
                self.nodes[node] = Node::new(self.now, &self.settings, node);
                self.ghosts.retain(|ghost| ghost.who != node);
                let mut groups: Vec<Vec<usize>> = self.groups.iter().map(|group| group.nodes.clone()).collect();
                groups.push(vec![node]);
                self.views_are(groups, Fate::Delivered);
                self.input(node, Input::Health { check: 0, ok: true });
            }
            Life::Frozen(until) => {
                self.nodes[node].life = Life::Runs;
                self.groups.push(Group { nodes: vec![node], log: VecDeque::new(), began: self.now, stale: true });
                if until <= self.now {
                    self.nodes[node].kernel.iter_mut().for_each(|kernel| *kernel = Kernel::Nothing);
                    self.nodes[node].unsaid.fill(false);
                    self.nodes[node].orders.retain(|order| !matches!(order, HostCommand::Acquire { .. }));
                    self.input(node, Input::Host(HostReport::Lapsed));
                }
            }
        }
    }

    pub(super) fn is_stale(&self, node: usize) -> bool {
        self.groups.iter().any(|group| group.stale && group.nodes.contains(&node))
    }

    pub(super) fn runs(&self, node: usize) -> bool {
        self.nodes[node].life == Life::Runs
    }

    pub(super) fn set_health(&mut self, node: usize, ok: bool) {
        self.nodes[node].healthy = ok;
        self.input(node, Input::Health { check: 0, ok });
    }

    /// Nothing is left to be delivered or obeyed.
    pub(super) fn is_idle(&self) -> bool {
        let silent = self.groups.iter().all(|group| group.log.is_empty() || group.stale);
        silent && self.nodes.iter().all(|node| node.orders.is_empty() || node.life != Life::Runs)
    }

    /// When something happens next by time alone, before `horizon` from now.
    pub(super) fn next(&self, horizon: Duration) -> Option<Instant> {
        let rooms = self.nodes.iter().filter(|node| node.life == Life::Runs);
        let rooms = rooms.filter_map(|node| node.vip.poll_timeout().map(|(at, _)| at));
        let hosts = self.nodes.iter().flat_map(|node| {
            node.kernel.iter().zip(&node.unsaid).filter_map(|(kernel, unsaid)| match kernel {
                Kernel::Answers(from) if *unsaid => Some(*from),
                _ => None,
            })
        });
        let ghosts = self.ghosts.iter().map(|ghost| ghost.until);
        rooms.chain(hosts).chain(ghosts).min().filter(|&at| at <= self.now + horizon)
    }

    /// Lets time pass until something happens. Nothing else is left to happen.
    pub(super) fn pass(&mut self, until: Instant) -> Result<(), String> {
        assert!(self.is_idle(), "time passes last");
        self.check(until)?;
        self.now = self.now.max(until);
        self.ghosts.retain(|ghost| ghost.until > self.now);
        for node in 0..self.nodes.len() {
            if self.runs(node) {
                (0..self.settings.sets.len()).for_each(|set| self.say_acquired(node, set));
                if self.nodes[node].vip.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                    self.input(node, Input::Timer);
                }
            }
        }
        Ok(())
    }

    /// Delivers, obeys and lets time pass until nothing happens for `horizon`, at most a million times.
    pub(super) fn settle(&mut self, horizon: Duration) -> Result<(), String> {
        for _ in 0..1_000_000 {
            if let Some(group) = self.groups.iter().position(|group| !group.log.is_empty() && !group.stale) {
                self.deliver(group);
            } else if let Some(node) =
                (0..self.nodes.len()).find(|&node| self.runs(node) && !self.nodes[node].orders.is_empty())
            {
                self.obey(node);
            } else if let Some(at) = self.next(horizon) {
                self.pass(at)?;
            } else {
                return self.check_quiet();
            }
        }
        Err("it does not come to rest".to_owned())
    }

    pub(super) fn answers(&self, node: usize, set: usize) -> bool {
        let kernel = matches!(self.nodes[node].kernel[set], Kernel::Answers(from) if from <= self.now);
        kernel
            && match self.nodes[node].life {
                Life::Runs => true,
                Life::Frozen(until) | Life::Dead(until) => self.now < until,
            }
    }

    pub(super) fn owner(&self, group: &[usize], set: usize) -> Option<usize> {
        group.iter().copied().find(|&node| self.answers(node, set))
    }

    /// Whether a node may hold anything, told apart from the rooms' own answer.
    fn may(&self, node: usize, group: &Group, set: usize) -> bool {
        let covered = self.settings.sets[set].coverage == Coverage::Component
            || 2 * group.nodes.len() > self.settings.members.len();
        let at = &self.nodes[node];
        let drained = at.vip.agreed.wills[node].drained;
        let mature = group.nodes.len() == self.settings.members.len()
            || group.nodes.iter().any(|&node| self.nodes[node].vip.facts.mature);
        covered && at.healthy && !drained && !at.vip.facts.leaving && mature
    }

    fn check(&mut self, until: Instant) -> Result<(), String> {
        for group in self.groups.clone().iter().filter(|group| !group.stale) {
            let first = &self.nodes[group.nodes[0]].vip.agreed;
            if group.nodes.iter().any(|&node| self.nodes[node].vip.agreed != *first) {
                return Err(format!("{:?} are in one view and differ", group.nodes));
            }
            for set in 0..self.settings.sets.len() {
                let answering: Vec<usize> =
                    group.nodes.iter().copied().filter(|&node| self.answers(node, set)).collect();
                if answering.len() > 1 {
                    return Err(format!("{answering:?} answer for set {set}"));
                }
                self.check_covered(group, set, until)?;
            }
        }
        for ghost in self.ghosts.iter().filter(|ghost| self.now < ghost.until) {
            let early =
                |node: &&usize| !ghost.excused.contains(node) && self.runs(**node) && self.answers(**node, ghost.set);
            if let Some(node) = ghost.mates.iter().find(early) {
                return Err(format!("{node} answers for set {} while {} still may", ghost.set, ghost.who));
            }
        }
        Ok(())
    }

    fn check_covered(&mut self, group: &Group, set: usize, until: Instant) -> Result<(), String> {
        let covered = group.nodes.iter().any(|&node| self.answers(node, set));
        let coverable = group.nodes.iter().any(|&node| self.may(node, group, set));
        let slept = group.nodes.iter().all(|&node| self.nodes[node].vip.facts.lapsed);
        let patience = if slept { LEASE * (1 + DESERTED) } else { LEASE };
        for &node in &group.nodes {
            let since = &mut self.uncovered[node][set];
            *since = if covered || !coverable { None } else { Some(since.unwrap_or(self.now)) };
            if let Some(since) = since.map(|since| since.max(group.began))
                && until.since(since) > patience
            {
                return Err(format!("set {set} is uncovered in {:?} since {since}, now {}", group.nodes, self.now));
            }
        }
        Ok(())
    }

    /// Nothing is left to happen: each set is answered for once in each view, if somebody may.
    pub(super) fn check_quiet(&mut self) -> Result<(), String> {
        self.check(self.now)?;
        for group in self.groups.iter().filter(|group| !group.stale) {
            for set in 0..self.settings.sets.len() {
                let answering = group.nodes.iter().filter(|&&node| self.answers(node, set)).count();
                let coverable = group.nodes.iter().any(|&node| self.may(node, group, set));
                // A paused set may stay with a member that may not have it.
                let paused = self.nodes[group.nodes[0]].vip.agreed.slots[set].paused;
                if answering != usize::from(coverable) && !(paused && answering == 1) {
                    return Err(format!("{answering} of {:?} answer for set {set} when all is quiet", group.nodes));
                }
                let held: Vec<_> =
                    group.nodes.iter().filter(|&&node| self.nodes[node].kernel[set] != Kernel::Nothing).collect();
                if held.len() > answering {
                    return Err(format!("{held:?} hold set {set} when all is quiet"));
                }
            }
        }
        Ok(())
    }

    /// The same for two clusters that will do the same.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.now, &self.groups, &self.ghosts, &self.uncovered).hash(&mut hasher);
        for node in &self.nodes {
            (node.life, &node.kernel, &node.orders, &node.unsaid, node.healthy, node.left).hash(&mut hasher);
            let Vip { agreed, posts, facts, told, checks, mature_at, balance_at, leave_by, .. } = &node.vip;
            (agreed, posts, facts, told, checks, mature_at, balance_at, leave_by).hash(&mut hasher);
            (&node.vip.lapse, node.vip.resume_at, node.vip.parting).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Node {
    fn new(now: Instant, settings: &Settings, node: usize) -> Node {
        let sets = settings.sets.len();
        let settings = Settings { node: id(node), ..settings.clone() };
        Node {
            vip: Vip::new(now, settings, Rng::from_u64(node as u64)),
            life: Life::Runs,
            kernel: vec![Kernel::Nothing; sets],
            orders: VecDeque::new(),
            unsaid: vec![false; sets],
            healthy: true,
            left: false,
            announced: 0,
            done: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// A cluster in one view that has come to rest: every set is held.
pub(super) fn settled(nodes: usize, sets: usize) -> Cluster {
    together(nodes, settings(0, nodes, sets))
}

pub(super) fn together(nodes: usize, settings: Settings) -> Cluster {
    let mut cluster = Cluster::new(nodes, settings);
    (0..nodes).for_each(|node| cluster.set_health(node, true));
    cluster.views_are(vec![(0..nodes).collect()], Fate::Delivered);
    cluster.settle(Duration::from_millis(250)).expect("a cluster that boots comes to rest");
    cluster
}
