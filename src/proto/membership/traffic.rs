//! Messages inside a view: sent, acknowledged, asked for, delivered.

use super::door::{Action, Service};
use super::store::{Taken, WINDOW};
use super::{Held, Membership, Phase, Repeat};
use crate::base::{Instant, NodeId};
use crate::wire::cursor::Writer;
use crate::wire::membership::{self as wire, Ack, Body, Data, Request};
use std::time::Duration;

/// Data messages sent again for one request.
const MAX_AGAIN: usize = 64;
/// What nobody answers is asked again at last after this many repeats.
const MAX_STIR: u32 = 8;

/// What was said in a view, and when.
#[derive(Debug)]
pub(super) struct Traffic {
    /// The clock and the horizon that all were told.
    told: (u64, u64),
    acked_at: Option<Instant>,
    /// Since when not everybody is known to have everything.
    unquiet: Option<Instant>,
    stable: u64,
    stir: Repeat,
}

impl Traffic {
    pub(super) const fn new(now: Instant) -> Traffic {
        let stir = Repeat { at: now, wait: Duration::ZERO };
        Traffic { told: (0, 0), acked_at: None, unquiet: None, stable: 0, stir }
    }

    pub(super) fn unquiet_since(&self) -> Instant {
        self.unquiet.unwrap_or(Instant::MAX)
    }
}

impl Held {
    /// Members that are not known to have everything.
    pub(super) fn behind(&self) -> Vec<NodeId> {
        let clock = self.store.clock();
        let members = self.store.view().members.iter().enumerate();
        let behind = members.filter(|&(rank, _)| rank != self.store.rank() && self.store.horizon_of(rank) < clock);
        behind.map(|(_, &node)| node).collect()
    }

    fn others(&self) -> Vec<NodeId> {
        let members = self.store.view().members.iter().enumerate();
        members.filter(|&(rank, _)| rank != self.store.rank()).map(|(_, &node)| node).collect()
    }
}

impl Membership {
    pub(super) fn send_data(&mut self, now: Instant, body: &[u8], service: Service) {
        let Some(held) = &mut self.held else { panic!("what is sent is sent in a view") };
        let (seqs, rank, others) = (held.store.send(now, body, service), held.store.rank(), held.others());
        held.traffic.told = (held.store.clock(), held.store.horizon().min(held.traffic.told.1));
        for seq in seqs {
            for &node in &others {
                self.send_held(node, rank, seq);
            }
        }
    }

    /// Sends a data message that is held. Whether it is.
    fn send_held(&mut self, to: NodeId, sender: usize, seq: u64) -> bool {
        let Some(data) = self.held.as_ref().and_then(|held| held.store.data(sender, seq)) else { return false };
        let body = data.body.to_vec();
        let data = Data { body: &body, ..data };
        self.send(to, Body::Data(data));
        true
    }

    /// Sends a data message again, if it is held.
    pub(super) fn send_stored(&mut self, to: NodeId, sender: usize, seq: u64) {
        self.stats.repeated += u64::from(self.send_held(to, sender, seq));
    }

    pub(super) fn take_data(&mut self, now: Instant, data: &Data<'_>) {
        let Some(held) = &mut self.held else { return };
        if data.sender >= held.store.view().members.len() || data.sender == held.store.rank() {
            self.stats.misplaced += 1;
            return;
        }
        match held.store.receive(now, data) {
            Taken::New => {}
            Taken::Duplicate => self.stats.duplicate += 1,
            Taken::Beyond => self.stats.beyond += 1,
        }
    }

    pub(super) fn take_ack(&mut self, now: Instant, from: NodeId, ack: &Ack) {
        let Some(held) = &mut self.held else { return };
        let Some(rank) = held.store.view().rank(from) else {
            self.stats.misplaced += 1;
            return;
        };
        held.store.acknowledged(now, rank, ack.clock, ack.last, ack.horizon);
        let spacing = self.settings.timing.spacing;
        let peer = self.peers.get_mut(&from).expect("a message makes a peer of its sender");
        let rested = peer.acked_at.is_none_or(|at| now.since(at) >= spacing);
        // Who gathers has reported what it has: it may not claim more.
        if ack.answer && rested && matches!(self.phase, Phase::Settled) {
            peer.acked_at = Some(now);
            self.send_ack(from, false);
        }
    }

    pub(super) fn take_request(&mut self, from: NodeId, request: &Request<'_>) {
        let Some(held) = &self.held else { return };
        let (rank, last) = (held.store.rank(), held.store.last());
        let wanted = request.ranges().flat_map(|(first, end)| first..=end.min(last)).take(MAX_AGAIN);
        for seq in wanted.collect::<Vec<_>>() {
            self.send_stored(from, rank, seq);
        }
    }

    fn send_ack(&mut self, to: NodeId, answer: bool) {
        let Some(held) = &self.held else { return };
        let (clock, last, horizon) = (held.store.clock(), held.store.last(), held.store.horizon());
        self.send(to, Body::Ack(Ack { view: held.store.view().id, answer, clock, last, horizon }));
    }

    /// Delivers what can be delivered, and says what is due.
    pub(super) fn run_traffic(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Settled) {
            return;
        }
        self.deliver();
        self.mind(now);
        if self.acknowledge_at().is_some_and(|at| at <= now) {
            let Some(held) = &mut self.held else { return };
            held.traffic.told = (held.store.clock(), held.store.horizon());
            held.traffic.acked_at = Some(now);
            let others = held.others();
            others.into_iter().for_each(|node| self.send_ack(node, false));
        }
        if self.request_at().is_some_and(|at| at <= now) {
            self.request(now);
        }
        if self.stir_at().is_some_and(|at| at <= now) {
            self.stir(now);
        }
    }

    fn deliver(&mut self) {
        let Some(held) = &mut self.held else { return };
        while let Some(delivery) = held.store.deliver() {
            match delivery {
                Ok(delivery) => {
                    self.stats.delivered += 1;
                    self.actions.push_back(Action::Deliver(delivery));
                }
                Err(_) => self.stats.overlong += 1,
            }
        }
        held.store.forget();
        if self.starved && held.store.room() >= WINDOW / 2 {
            self.starved = false;
            self.actions.push_back(Action::Room);
        }
    }

    /// Minds whether all have everything.
    fn mind(&mut self, now: Instant) {
        let repeat = self.settings.timing.repeat;
        let Some(Held { store, traffic, .. }) = &mut self.held else { return };
        let stable = store.stable();
        if store.is_quiet() {
            traffic.unquiet = None;
        } else if traffic.unquiet.is_none() || stable > traffic.stable {
            traffic.unquiet = Some(now);
            traffic.stir = Repeat { at: now + repeat, wait: repeat };
        }
        traffic.stable = stable;
    }

    /// When this router acknowledges what it has.
    pub(super) fn acknowledge_at(&self) -> Option<Instant> {
        let timing = self.settings.timing;
        let Held { store, traffic, .. } = self.held.as_ref()?;
        let (clock, horizon) = (traffic.told.0 < store.clock(), traffic.told.1 < store.horizon());
        let since = traffic.acked_at.unwrap_or(Instant::ZERO);
        match (clock || (horizon && store.has_safe()), horizon) {
            _ if store.view().members.len() == 1 => None,
            (true, _) => Some(since + timing.spacing),
            (false, true) => Some(since + timing.repeat / 2),
            (false, false) => None,
        }
    }

    /// When something missing is asked for.
    pub(super) fn request_at(&self) -> Option<Instant> {
        let timing = self.settings.timing;
        let due =
            |since: Instant, asked: Option<Instant>| asked.map_or(since + timing.spacing, |at| at + timing.repeat);
        self.held.as_ref()?.store.incomplete().map(|(_, since, asked)| due(since, asked)).min()
    }

    fn request(&mut self, now: Instant) {
        let timing = self.settings.timing;
        let Some(held) = &mut self.held else { return };
        let due =
            |since: Instant, asked: Option<Instant>| asked.map_or(since + timing.spacing, |at| at + timing.repeat);
        let due: Vec<usize> =
            held.store.incomplete().filter(|it| due(it.1, it.2) <= now).map(|(rank, ..)| rank).collect();
        let view = held.store.view().clone();
        let asked: Vec<_> = due.into_iter().map(|rank| (view.members[rank], held.store.ask(now, rank))).collect();
        for (to, ranges) in asked {
            let mut buffer = [0; wire::MAX_LEN];
            let mut writer = Writer::new(&mut buffer);
            let head = (self.group, self.incarnation());
            assert_eq!(wire::emit_request(&mut writer, head, view.id, &ranges), Ok(()), "ranges are bounded");
            self.actions.push_back(Action::Send { to, bytes: writer.written().to_vec() });
        }
    }

    /// When those who are not known to have everything are asked.
    pub(super) fn stir_at(&self) -> Option<Instant> {
        let traffic = &self.held.as_ref()?.traffic;
        traffic.unquiet.map(|_| traffic.stir.at)
    }

    fn stir(&mut self, now: Instant) {
        let repeat = self.settings.timing.repeat;
        let Some(held) = &mut self.held else { return };
        let wait = (2 * held.traffic.stir.wait).min(MAX_STIR * repeat);
        held.traffic.stir = Repeat { at: now + self.rng.jitter(wait, 0.1), wait };
        let behind = held.behind();
        behind.into_iter().for_each(|node| self.send_ack(node, true));
    }
}
