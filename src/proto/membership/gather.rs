//! From one view to the next: who is in it, what each has, and the moment in which all are ready.

use super::door::{Action, Cause, Delivery, Entry};
use super::store::{Ending, Store};
use super::traffic::Traffic;
use super::{Held, Membership, Phase};
use crate::base::hash::{hash64, mix64};
use crate::base::sabotage::{Rule, broken};
use crate::base::{Instant, NodeId, View, ViewId};
use crate::wire::membership::{Body, Part, Report};
use std::collections::BTreeMap;
use std::time::Duration;

/// Lives and attempts of a view's members, by rank.
type Attempts = Vec<(u64, u64)>;

/// How often the pause after an abandoned view doubles.
const MAX_DOUBLINGS: u32 = 8;

/// The search for a view.
#[derive(Debug)]
pub(super) struct Gather {
    /// When delivery stopped.
    pub(super) since: Instant,
    /// What this router has of the view it comes from, as of this attempt.
    pub(super) report: Report,
    /// When the attempt began, and this router's version then.
    begun_at: Instant,
    version: u64,
    /// Views abandoned so far, and until when no other is looked for.
    abandoned: u32,
    calm_until: Instant,
    proposal: Option<Proposal>,
}

/// A view that may be.
#[derive(Debug)]
struct Proposal {
    view: View,
    attempts: Attempts,
    found_at: Instant,
    /// Those who come from this router's view, by their rank in it, and how they end it. None if there was none.
    ending: Option<(Vec<usize>, Ending)>,
    stage: Stage,
    /// Since when this router, which is ready for this view, would propose another one.
    doubted: Option<Instant>,
}

#[derive(Debug)]
enum Stage {
    /// Not all is here.
    Recovering,
    /// The application is asked for its state.
    Asking(Rest),
    /// All members were told that this router is ready.
    Ready { rest: Rest, state: Vec<u8> },
}

/// What remains to be delivered of the view that ends.
#[derive(Debug, Default)]
struct Rest {
    complete_at: Instant,
    before: Vec<Delivery>,
    after: Vec<Delivery>,
    overlong: u64,
}

impl Membership {
    /// Goes as far towards the next view as possible.
    pub(super) fn agree(&mut self, now: Instant) {
        self.at = now;
        let settled_down = self.graph.is_closed() || (!self.is_gathering() && self.is_view(self.graph.clique()));
        self.open_since = if settled_down { None } else { self.open_since.or(Some(now)) };
        loop {
            let moved = match &self.phase {
                Phase::Left => false,
                Phase::Settled => self.cause(now).map(|cause| self.begin(now, cause)).is_some(),
                Phase::Gathering(_) => self.pursue(now),
            };
            if !moved {
                return;
            }
        }
    }

    fn is_view(&self, members: &[NodeId]) -> bool {
        self.view().is_some_and(|view| view.members == members)
    }

    /// Why this router cannot stay in its view.
    fn cause(&self, now: Instant) -> Option<Cause> {
        let Some(held) = &self.held else { return Some(Cause::Start) };
        for (&node, &(incarnation, attempt)) in held.store.view().members.iter().zip(&held.attempts) {
            if node != self.node() && !self.graph.mutual(self.node(), node) {
                return Some(Cause::Lost(node));
            }
            let entry = self.graph.entry(node).expect("it says whom it reaches");
            if entry.incarnation != incarnation {
                return Some(Cause::Restarted(node));
            }
            if entry.attempt > attempt && !broken(Rule::LeaveTogether) {
                return Some(Cause::Moved(node));
            }
        }
        (!self.is_view(self.graph.clique()) && self.is_decided(now)).then_some(Cause::Others)
    }

    /// Delivery stops.
    fn begin(&mut self, now: Instant, cause: Cause) {
        self.stats.gathers += 1;
        self.note(Entry::Gathering {
            from: self.held.as_ref().map_or(ViewId::NONE, |held| held.store.view().id),
            cause,
        });
        let gather = Gather {
            since: now,
            report: Report::default(),
            begun_at: now,
            version: 0,
            abandoned: 0,
            calm_until: now,
            proposal: None,
        };
        self.phase = Phase::Gathering(Box::new(gather));
        self.attempt(now);
    }

    /// Begins a new attempt: what this router has now is what it brings.
    fn attempt(&mut self, now: Instant) {
        self.rewrite(now, |entry| entry.attempt += 1);
        let version = self.graph.own().version;
        let Phase::Gathering(gather) = &mut self.phase else { panic!("attempts are made while gathering") };
        gather.report = self.held.as_ref().map(|held| held.store.report()).unwrap_or_default();
        (gather.begun_at, gather.version, gather.proposal) = (now, version, None);
        self.early.clear();
    }

    /// This router was ready for a view that will not be.
    fn abandon(&mut self, now: Instant) {
        let spacing = self.settings.timing.spacing;
        let Phase::Gathering(gather) = &mut self.phase else {
            panic!("only those who gather have something to abandon")
        };
        let proposal = gather.proposal.take().expect("it was ready for a view");
        let pause = self.rng.jitter(spacing * (1 << gather.abandoned.min(MAX_DOUBLINGS)), 0.5);
        gather.abandoned += 1;
        gather.calm_until = now + pause;
        self.stats.abandoned += 1;
        let (view, after) = (proposal.view.id, now.since(proposal.found_at));
        self.note(Entry::Abandoned { view, after });
        if !broken(Rule::OneView) {
            self.attempt(now);
        }
    }

    // --- who is in it ------------------------------------------------------------------------------------------------

    /// Whether there is nothing to wait for before others are left out.
    fn is_decided(&self, now: Instant) -> bool {
        self.graph.is_closed() || self.open_until().is_some_and(|until| until <= now)
    }

    /// Until when an open clique waits.
    fn open_until(&self) -> Option<Instant> {
        let settle = self.settings.timing.settle;
        self.open_since.map(|since| (since + 4 * settle).min(self.graph.changed_at().max(since) + settle))
    }

    /// When waiting ends, if it does.
    pub(super) fn decide_at(&self) -> Option<Instant> {
        let mut at = vec![self.open_until()];
        if let Phase::Gathering(gather) = &self.phase {
            let doubted = gather.proposal.as_ref().and_then(|proposal| proposal.doubted);
            at.extend([Some(gather.calm_until), doubted.map(|since| since + self.settings.timing.repeat)]);
        }
        at.into_iter().flatten().filter(|&at| at > self.at).min()
    }

    /// Whether `node` reported, and has not moved on with that report.
    pub(super) fn is_fresh(&self, node: NodeId) -> bool {
        let Some(entry) = self.graph.entry(node) else { return false };
        if node == self.node() {
            return true;
        }
        let (incarnation, attempt) = (entry.incarnation, entry.attempt);
        let reported = self.peers.get(&node).and_then(|peer| peer.report.as_ref());
        let spent = self.held.as_ref().and_then(|held| {
            let rank = held.store.view().rank(node)?;
            Some(held.attempts[rank] == (incarnation, attempt))
        });
        reported.is_some_and(|report| (report.0, report.1) == (incarnation, attempt)) && spent != Some(true)
    }

    fn report_of(&self, node: NodeId) -> Option<&Report> {
        match &self.phase {
            Phase::Gathering(gather) if node == self.node() => Some(&gather.report),
            _ => self.peers.get(&node)?.report.as_ref().map(|report| &report.2),
        }
    }

    /// The view to come, and the lives and attempts of its members, as far as that is clear; and whether none of them is
    /// ready for another one.
    fn find_view(&self, now: Instant) -> Option<(View, Attempts, bool)> {
        let Phase::Gathering(gather) = &self.phase else { return None };
        let members = self.graph.clique();
        if gather.calm_until > now || !self.is_decided(now) || !members.iter().all(|&node| self.is_fresh(node)) {
            return None;
        }
        let entries = members.iter().map(|&node| self.graph.entry(node).expect("members say whom they reach"));
        let attempts: Vec<_> = entries.map(|entry| (entry.incarnation, entry.attempt)).collect();
        let from = members.iter().filter_map(|&node| self.report_of(node)).map(|report| report.view.number);
        let number = if broken(Rule::NumbersAscend) { 1 } else { 1 + from.max().unwrap_or(0) };
        let mut digest = hash64(&[self.group.to_be_bytes(), number.to_be_bytes()].concat());
        for (node, (incarnation, attempt)) in members.iter().zip(&attempts) {
            digest =
                [node.0, *incarnation, *attempt].into_iter().fold(digest, |digest, word| mix64(digest ^ mix64(word)));
        }
        let id = ViewId { number, digest };
        let spoken_for = |(node, &(incarnation, attempt)): (&NodeId, &(u64, u64))| {
            self.peers.get(node).and_then(|peer| peer.ready_for(incarnation, attempt)).is_some_and(|view| view != id)
        };
        let free = !members.iter().zip(&attempts).any(spoken_for);
        Some((View::new(id, members.to_vec()), attempts, free))
    }

    // --- stages ------------------------------------------------------------------------------------------------------

    /// One step. Whether there may be another one.
    fn pursue(&mut self, now: Instant) -> bool {
        if self.all_are_ready() {
            self.install(now);
            return true;
        }
        if self.is_doomed() {
            self.abandon(now);
            return true;
        }
        let found = self.find_view(now);
        let repeat = self.settings.timing.repeat;
        let Phase::Gathering(gather) = &mut self.phase else { return false };
        match (found, &mut gather.proposal) {
            (Some((view, ..)), Some(proposal)) if view.id == proposal.view.id => proposal.doubted = None,
            (Some(_), Some(proposal)) if matches!(proposal.stage, Stage::Ready { .. }) => {
                let since = *proposal.doubted.get_or_insert(now);
                if since + repeat <= now {
                    self.abandon(now);
                    return true;
                }
            }
            (Some((view, attempts, true)), _) => self.propose(now, view, attempts),
            (_, Some(proposal)) if !matches!(proposal.stage, Stage::Ready { .. }) => gather.proposal = None,
            _ => {}
        }
        self.complete(now);
        false
    }

    fn proposal(&self) -> Option<&Proposal> {
        match &self.phase {
            Phase::Gathering(gather) => gather.proposal.as_ref(),
            _ => None,
        }
    }

    /// The view that this router is ready for, while it is not there yet.
    pub(super) fn ready_view(&self) -> Option<ViewId> {
        self.proposal()
            .filter(|proposal| matches!(proposal.stage, Stage::Ready { .. }))
            .map(|proposal| proposal.view.id)
    }

    fn all_are_ready(&self) -> bool {
        let Some(proposal) = self.proposal() else { return false };
        let others = || proposal.view.members.iter().zip(&proposal.attempts).filter(|member| *member.0 != self.node());
        let ready = |(node, &(incarnation, attempt)): (&NodeId, &(u64, u64))| {
            let id = proposal.view.id;
            let peer = self.peers.get(node);
            peer.is_some_and(|peer| peer.ready_for(incarnation, attempt) == Some(id) && peer.brings(id).is_some())
        };
        matches!(proposal.stage, Stage::Ready { .. }) && others().all(ready)
    }

    /// Whether the view that this router is ready for cannot be any more: a member is lost or has moved on.
    fn is_doomed(&self) -> bool {
        let Some(proposal) = self.proposal() else { return false };
        let dead = |(&node, &(incarnation, attempt)): (&NodeId, &(u64, u64))| {
            let lost = node != self.node() && !self.graph.mutual(self.node(), node);
            let moved = self.graph.entry(node).is_none_or(|it| (it.incarnation, it.attempt) != (incarnation, attempt));
            let spoken = self.peers.get(&node).and_then(|peer| peer.ready_for(incarnation, attempt));
            lost || moved || spoken.is_some_and(|view| view != proposal.view.id)
        };
        let ready = matches!(proposal.stage, Stage::Ready { .. });
        ready && proposal.view.members.iter().zip(&proposal.attempts).any(dead)
    }

    fn propose(&mut self, now: Instant, view: View, attempts: Attempts) {
        let ending = self.held.as_ref().map(|held| {
            let reports = self.reports(&view.members, held.store.view());
            (reports.keys().copied().collect(), Ending::of(&reports))
        });
        let proposal = Proposal { view, attempts, found_at: now, ending, stage: Stage::Recovering, doubted: None };
        let Phase::Gathering(gather) = &mut self.phase else { return };
        gather.proposal = Some(proposal);
        self.stir_repeat(now);
        self.give();
    }

    /// Reports of those of `members` who come from `old`, by their rank in it.
    fn reports(&self, members: &[NodeId], old: &View) -> BTreeMap<usize, &Report> {
        let from =
            |&node: &NodeId| Some((old.rank(node)?, self.report_of(node).filter(|report| report.view == old.id)?));
        members.iter().filter_map(from).collect()
    }

    /// Gives those who are not ready what they lack, as far as this router is the one who does.
    pub(super) fn give(&mut self) {
        let (Some(proposal), Some(held)) = (self.proposal(), &self.held) else { return };
        let Some((_, ending)) = &proposal.ending else { return };
        let reports = self.reports(&proposal.view.members, held.store.view());
        let old = held.store.view();
        let debts = ending.debts(&reports, held.store.rank());
        let open = |node: NodeId| self.peers.get(&node).is_some_and(|peer| peer.brings(proposal.view.id).is_none());
        let debts: Vec<_> = debts.into_iter().map(|(to, sender, seq)| (old.members[to], sender, seq)).collect();
        for (to, sender, seq) in debts.into_iter().filter(|debt| open(debt.0)).collect::<Vec<_>>() {
            self.send_stored(to, sender, seq);
        }
    }

    /// If all is here, asks the application for its state.
    fn complete(&mut self, now: Instant) {
        let Phase::Gathering(gather) = &mut self.phase else { return };
        let Some(proposal) = gather.proposal.as_mut().filter(|it| matches!(it.stage, Stage::Recovering)) else {
            return;
        };
        let mut rest = Rest { complete_at: now, ..Rest::default() };
        if let (Some(held), Some((_, ending))) = (&mut self.held, &proposal.ending) {
            if !held.store.has(ending) && !broken(Rule::Recover) {
                return;
            }
            held.store.learn(ending);
            (rest.before, rest.after, rest.overlong) = held.store.flush(ending);
        }
        let pending = rest.before.iter().chain(&rest.after).cloned().collect();
        proposal.stage = Stage::Asking(rest);
        self.asked += 1;
        self.actions.push_back(Action::WantState { pending });
    }

    /// The application gave its state.
    pub(super) fn become_ready(&mut self, now: Instant, state: Vec<u8>) {
        let Phase::Gathering(gather) = &mut self.phase else { return };
        let Some(proposal) = &mut gather.proposal else { return };
        let Stage::Asking(rest) = &mut proposal.stage else { return };
        proposal.stage = Stage::Ready { rest: std::mem::take(rest), state };
        let (own, members) = (self.settings.node, proposal.view.members.clone());
        self.stir_repeat(now);
        members.into_iter().filter(|&node| node != own).for_each(|node| self.send_ready(now, node));
    }

    fn send_ready(&mut self, now: Instant, to: NodeId) {
        let (view, attempts, state) = match (&self.phase, &self.held) {
            (Phase::Gathering(gather), _) => match &gather.proposal {
                Some(Proposal { view, attempts, stage: Stage::Ready { state, .. }, .. }) => (view, attempts, state),
                _ => return,
            },
            (Phase::Settled, Some(held)) => (held.store.view(), &held.attempts, &held.state),
            _ => return,
        };
        let id = view.id;
        let has = |node: &NodeId| {
            *node == self.node()
                || !self.is_gathering()
                || self.peers.get(node).is_some_and(|it| it.brings(id).is_some())
        };
        let got =
            view.members.iter().enumerate().filter(|member| has(member.1)).fold(0, |set, (rank, _)| set | 1 << rank);
        let attempt = attempts[view.rank(self.node()).expect("a router is a member of its own view")].1;
        let state = state.clone();
        for part in Part::cut(attempt, &state) {
            self.send(to, Body::Ready { view: id, got, part });
        }
        self.peers.entry(to).and_modify(|peer| peer.readied_at = Some(now));
    }

    /// Says again that this router is ready to those who may not know it, or have not said so themselves.
    pub(super) fn send_ready_again(&mut self, now: Instant) {
        let Some(proposal) = self.proposal() else { return };
        let (id, me) =
            (proposal.view.id, proposal.view.rank(self.node()).expect("a router is a member of its own view"));
        let open = |&node: &NodeId| {
            let peer = self.peers.get(&node);
            peer.is_some_and(|peer| peer.brings(id).is_none() || peer.got(id) & 1 << me == 0)
        };
        let open: Vec<NodeId> = proposal.view.members.iter().copied().filter(open).collect();
        open.into_iter().for_each(|node| self.send_ready(now, node));
    }

    pub(super) fn take_ready(
        &mut self,
        now: Instant,
        from: NodeId,
        incarnation: u64,
        view: ViewId,
        got: u64,
        part: &Part<'_>,
    ) {
        let again = self.settings.timing.spacing;
        let peer = self.peers.get_mut(&from).expect("a message makes a peer of its sender");
        peer.ready(incarnation, view, got, part);
        let rested = peer.readied_at.is_none_or(|at| now.since(at) >= again);
        match &self.phase {
            // Whoever is ready for a view has heard of the attempt that it is made of.
            Phase::Gathering(gather)
                if gather.version == self.graph.own().version
                    && gather.proposal.as_ref().is_some_and(|it| it.view.id == view) =>
            {
                peer.heard = peer.heard.max(peer.needs);
            }
            Phase::Settled if self.held.as_ref().is_some_and(|held| held.lacks(view, got)) && rested => {
                self.send_ready(now, from);
            }
            _ => {}
        }
    }

    // --- the moment --------------------------------------------------------------------------------------------------

    fn install(&mut self, now: Instant) {
        let Phase::Gathering(gather) = std::mem::replace(&mut self.phase, Phase::Settled) else { return };
        let Gather { since, proposal: Some(proposal), .. } = *gather else { panic!("all are ready for a view") };
        let Proposal { view, attempts, found_at, ending, stage: Stage::Ready { rest, state }, .. } = proposal else {
            panic!("this router is ready for it")
        };
        let own = self.node();
        let together = self.close(rest.before, rest.after, rest.overlong, ending.map(|ending| ending.0));
        let brought = |&node: &NodeId| {
            let state =
                if node == own { Some(&state) } else { self.peers.get(&node).and_then(|it| it.brings(view.id)) };
            (node, state.expect("all are ready, with their states").clone())
        };
        let states = view.members.iter().map(brought).collect();
        let store = Store::new(view.clone(), own);
        self.held = Some(Held { store, attempts, state, traffic: Traffic::new(now) });
        self.stats.views += 1;
        self.note(Entry::Installed {
            view: view.id,
            members: view.members.len(),
            took: now.since(since),
            agreeing: found_at.since(since),
            recovering: rest.complete_at.since(since),
        });
        let peers = &self.peers;
        self.graph.prune(|node| view.contains(node) || peers.get(&node).is_some_and(|peer| peer.reachable));
        self.open_since = None;
        self.actions.push_back(Action::Install { view, together, states });
        self.go_on(now);
    }

    /// Delivers what remains of the view that ends. Those who move on from it together.
    fn close(
        &mut self,
        before: Vec<Delivery>,
        after: Vec<Delivery>,
        overlong: u64,
        together: Option<Vec<usize>>,
    ) -> Vec<NodeId> {
        self.stats.delivered += (before.len() + after.len()) as u64;
        self.stats.overlong += overlong;
        let (Some(held), Some(ranks)) = (&self.held, together) else { return vec![self.node()] };
        let mut together: Vec<NodeId> = ranks.into_iter().map(|rank| held.store.view().members[rank]).collect();
        if broken(Rule::TogetherOnly) {
            together.clone_from(&held.store.view().members);
        }
        self.actions.extend(before.into_iter().map(Action::Deliver));
        self.actions.push_back(Action::Transitional { together: together.clone() });
        self.actions.extend(after.into_iter().map(Action::Deliver));
        together
    }

    /// The first moment of a view: what waited is sent, and what came early is taken.
    fn go_on(&mut self, now: Instant) {
        for (body, service) in std::mem::take(&mut self.queue) {
            self.send_data(now, &body, service);
        }
        for (from, bytes) in std::mem::take(&mut self.early) {
            self.message(now, from, &bytes);
        }
    }

    /// How far it came, for a test that waits in vain.
    #[cfg(test)]
    pub(super) fn explain(&self, now: Instant) -> String {
        let fresh: Vec<_> = self.graph.clique().iter().map(|&node| (node.0, self.is_fresh(node))).collect();
        let proposal = self.proposal().map(|it| match it.stage {
            Stage::Recovering => "recovering",
            Stage::Asking(_) => "asking",
            Stage::Ready { .. } => "ready",
        });
        let (closed, decided, found) =
            (self.graph.is_closed(), self.is_decided(now), self.find_view(now).map(|it| it.0.id));
        let awaited = self.awaited();
        let gathering = self.is_gathering();
        format!(
            "gathers {gathering}, closed {closed}, decided {decided}, {fresh:?}, {proposal:?}, found {found:?}, awaited {awaited:?}"
        )
    }

    // --- who does not answer -----------------------------------------------------------------------------------------

    /// Those without whom it does not go on.
    pub(super) fn awaited(&self) -> Vec<NodeId> {
        match (&self.phase, &self.held) {
            (Phase::Gathering(gather), _) => {
                let view = gather.proposal.as_ref().map(|proposal| proposal.view.id);
                let brings = |node: NodeId, id| self.peers.get(&node).is_some_and(|peer| peer.brings(id).is_some());
                let awaited = |node: NodeId| node != self.node() && !view.is_some_and(|id| brings(node, id));
                self.graph.clique().iter().copied().filter(|&node| awaited(node)).collect()
            }
            (Phase::Settled, Some(held)) => held.behind(),
            _ => Vec::new(),
        }
    }

    fn awaited_since(&self) -> Instant {
        match (&self.phase, &self.held) {
            (Phase::Gathering(gather), _) => gather.begun_at.max(self.graph.changed_at()),
            (Phase::Settled, Some(held)) => held.traffic.unquiet_since(),
            _ => Instant::ZERO,
        }
    }

    /// How long somebody has kept this router waiting.
    pub(super) fn silence(&self, now: Instant, heard_at: Instant) -> Duration {
        now.since(self.awaited_since().max(heard_at))
    }

    /// When somebody will have been silent for too long.
    pub(super) fn patience_at(&self) -> Option<Instant> {
        let since = self.awaited_since();
        let awaited = self.awaited().into_iter().filter_map(|node| self.peers.get(&node)).filter(|it| it.is_reached());
        awaited.map(|peer| peer.heard_at.max(since) + self.settings.timing.patience).min()
    }
}

impl Held {
    /// Whether a member that asks for this view's states lacks this router's.
    fn lacks(&self, view: ViewId, got: u64) -> bool {
        self.store.view().id == view && got & 1 << self.store.rank() == 0
    }
}
