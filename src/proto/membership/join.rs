//! Joins: whom this router reaches, and what it has, told to whom it concerns until they have heard it.

use super::graph::Taken;
use super::peer::Peer;
use super::{Membership, Phase};
use crate::base::limits::MAX_MEMBERS;
use crate::base::{Instant, NodeId};
use crate::wire::cursor::Writer;
use crate::wire::membership::{Body, Entry, Join, LIMIT, MAX_JOIN, Part};

impl Membership {
    pub(super) fn take_join(&mut self, now: Instant, from: NodeId, incarnation: u64, part: &Part<'_>) {
        let relay_at = now + self.settings.timing.repeat;
        let peer = self.peers.get_mut(&from).expect("a message makes a peer of its sender");
        let Some(whole) = peer.join(incarnation, part, relay_at) else { return };
        let Ok(join) = Join::parse(&whole) else {
            self.stats.malformed += 1;
            return;
        };
        let Some(own) = join.entries.iter().find(|entry| entry.node == from && entry.incarnation == incarnation) else {
            self.stats.malformed += 1;
            return;
        };
        let members = self.held.as_ref().map(|held| held.store.view()).filter(|view| {
            join.report.as_ref().is_some_and(|report| report.view == view.id && report.rows.len() != view.members.len())
        });
        if members.is_some() {
            self.stats.malformed += 1;
            return;
        }
        peer.gone = None;
        peer.report = join.report.map(|report| (incarnation, own.attempt, report));
        let again = self.settings.timing.spacing;
        peer.due |= join.wants && peer.joined_at.is_none_or(|at| now.since(at) >= again);
        for entry in join.entries {
            self.take_entry(now, from, entry);
        }
        if join.answer {
            self.send(from, Body::Heard(part.serial));
        }
    }

    fn take_entry(&mut self, now: Instant, from: NodeId, entry: Entry) {
        let node = entry.node;
        if node == self.node() {
            return self.meet_oneself(now, &entry);
        }
        let left = self.peers.get(&node).and_then(|peer| peer.gone).is_some_and(|gone| entry.incarnation <= gone);
        if left {
            return;
        }
        match self.graph.take(now, entry) {
            Taken::Known => {}
            Taken::Full => self.stats.crowded += 1,
            Taken::Newer => {
                // Those who do not hear it themselves; many soon will.
                let at = now + self.settings.timing.repeat;
                let others = self.peers.iter_mut().filter(|(other, _)| **other != from && **other != node);
                others.for_each(|(_, peer)| peer.relay_at = peer.relay_at.or(Some(at)));
            }
        }
    }

    /// Others know this router in a later life: their clocks, or its own, went back. It takes a later one yet.
    fn meet_oneself(&mut self, now: Instant, entry: &Entry) {
        let own = self.graph.own();
        if (entry.incarnation, entry.version) > (own.incarnation, own.version) && entry.incarnation + 1 < LIMIT {
            self.rewrite(now, |own| own.incarnation = entry.incarnation + 1);
            self.note(super::Entry::Outbid(self.incarnation()));
        }
    }

    /// When a join is due to `peer`. While this router delivers, and loses nobody, they are no hurry: who begins and meets many others
    /// at once tells each of them about all in one.
    fn join_at(&self, peer: &Peer) -> Option<Instant> {
        let last = peer.joined_at.filter(|_| !self.is_gathering());
        let at = last.map_or(Instant::ZERO, |at| at + self.settings.timing.spacing);
        let at = if peer.due { Some(at) } else { None };
        at.into_iter().chain(peer.relay_at).min().filter(|_| peer.reachable)
    }

    /// Finds out who is to be told what others said.
    fn relay(&mut self, now: Instant) {
        let (own, graph) = (self.node(), &self.graph);
        for (&node, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.relay_at.is_some_and(|at| at <= now)) {
            peer.relay_at = None;
            let hears = |other: NodeId| other == own || other == node || graph.mutual(other, node);
            let news = graph.entries().any(|entry| !hears(entry.node));
            (peer.due, peer.full) = (peer.due || news, peer.full || news);
        }
    }

    pub(super) fn joins_at(&self) -> Option<Instant> {
        self.peers.values().filter_map(|peer| self.join_at(peer)).min()
    }

    /// Sends joins to those to whom they are due.
    pub(super) fn send_joins(&mut self, now: Instant) {
        self.relay(now);
        let due = |peer: &Peer| peer.due && self.join_at(peer).is_some_and(|at| at <= now);
        let due: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| due(peer)).map(|(&node, _)| node).collect();
        for node in due {
            self.send_join(now, node, false);
            let serial = self.serial;
            self.peers.entry(node).and_modify(|peer| (peer.due, peer.full, peer.needs) = (false, false, serial));
        }
    }

    pub(super) fn send_join(&mut self, now: Instant, to: NodeId, answer: bool) {
        self.serial += 1;
        let report = match &self.phase {
            Phase::Gathering(gather) => Some(gather.report.clone()),
            _ => None,
        };
        let full = answer || self.peers.get(&to).is_some_and(|peer| peer.full);
        let wants = self.graph.entry(to).is_none() || (report.is_some() && !self.is_fresh(to));
        let join = Join { answer, wants, entries: self.entries_for(to, full), report };
        let mut buffer = [0; MAX_JOIN];
        let mut writer = Writer::new(&mut buffer);
        assert_eq!(join.emit(&mut writer), Ok(()), "a join is bounded");
        for part in Part::cut(self.serial, writer.written()) {
            self.send(to, Body::Join(part));
        }
        self.peers.entry(to).and_modify(|peer| peer.joined_at = Some(now));
    }

    /// This router's entry, the receiver's as it is known here and, if it is to be full, those of whom the receiver may not
    /// hear itself.
    fn entries_for(&self, to: NodeId, full: bool) -> Vec<Entry> {
        let mut named: Vec<NodeId> = self.graph.own().reach.iter().copied().chain([self.node(), to]).collect();
        named.sort_unstable();
        named.dedup();
        let mut entries = vec![self.graph.own().clone()];
        let concerns = |entry: &&Entry| full && entry.node != self.node() && !self.graph.mutual(entry.node, to);
        let (receiver, others) = (self.graph.entry(to), self.graph.entries().filter(concerns));
        for entry in receiver.into_iter().chain(others.filter(|entry| entry.node != to)) {
            let nodes = entry.reach.iter().chain([&entry.node]);
            let more: Vec<NodeId> = nodes.copied().filter(|node| named.binary_search(node).is_err()).collect();
            if named.len() + more.len() <= MAX_MEMBERS {
                named.extend(more);
                named.sort_unstable();
                entries.push(entry.clone());
            }
        }
        entries.sort_by_key(|entry| entry.node);
        entries
    }

    // --- what is unanswered ------------------------------------------------------------------------------------------

    /// There is news: what is unanswered is said again soon.
    pub(super) fn stir_repeat(&mut self, now: Instant) {
        let wait = self.settings.timing.repeat;
        self.repeat = super::Repeat { at: now + wait, wait };
    }

    pub(super) fn is_unanswered(&self) -> bool {
        self.is_gathering() || self.peers.values().any(|peer| peer.reachable && peer.heard < peer.needs)
    }

    /// Says again what is unanswered, if it is time.
    pub(super) fn say_again(&mut self, now: Instant) {
        if !self.is_unanswered() || now < self.repeat.at {
            return;
        }
        let timing = self.settings.timing;
        let wait = (2 * self.repeat.wait).min(timing.patience / 4).max(timing.repeat);
        self.repeat = super::Repeat { at: now + self.rng.jitter(wait, 0.1), wait };
        let awaited = self.awaited();
        let unheard = self.peers.iter().filter(|(_, peer)| peer.reachable && peer.heard < peer.needs);
        let mut unheard: Vec<NodeId> = unheard.map(|(&node, _)| node).collect();
        if self.is_gathering() {
            unheard.extend(awaited);
            unheard.sort_unstable();
            unheard.dedup();
            self.give();
            self.send_ready_again(now);
        }
        for node in unheard {
            self.send_join(now, node, true);
        }
    }
}
