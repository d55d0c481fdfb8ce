//! The messages of one view: what is held, what may be delivered, and what is owed when the view ends.
//!
//! # The order
//! Every data message has its sender's logical time (Lamport 1978): greater than that of all its sender had received. The
//! order of all is by time, then by the sender's rank. A member is *complete* for a sender up to a time when it has all that
//! the sender sent until then: it knows, because senders say how many they sent and at which time. The least of these times
//! over all senders is its *horizon*: nothing up to it can come any more, so all up to it can be delivered. Members tell
//! each other their horizons; the least of those is *stable*: everybody holds all up to there. Safe messages wait for that,
//! and those after them with them; what is stable and delivered is forgotten.
//!
//! # The end
//! Members that leave the view together tell each other what they have (`Report`); [`Ending::of`] is the same at each.
//! They give each other what they lack, up to the first hole that none of them can fill. Then, of the senders that do not
//! move on, each is complete up to some time, and the least of those is a horizon that all have in common:
//!
//! ```text
//!   delivered ──▶ │ up to the common horizon, until the first safe message of  │ signal │ the rest: all of those who move
//!   in the view   │ which it is not sure that everybody in the view holds it   │        │ on; of others what follows nothing lost
//! ```
//! A message follows whatever its sender held when it sent it: up to the horizon that it carries. So one of a sender that
//! does not move on is delivered only if that is not later than the common horizon; else it might have been written in
//! answer to one that is lost. Whoever held one's messages gives all of them, so of those who move on nothing is left out.
//!
//! # Bounds
//! [`WINDOW`] messages of each member: a sender that has so many that are not stable sends no more, and what is further
//! ahead than that is refused.

use super::door::{Delivery, Service};
use crate::base::limits::MAX_PAYLOAD;
use crate::base::sabotage::{Rule, broken};
use crate::base::{Instant, NodeId, View};
use crate::wire::membership::{ALL, DATA_ROOM, Data, MAX_BEYOND, MAX_RANGES, Report, Row};
use std::collections::BTreeMap;

/// Data messages of one sender that not everybody holds: two of the longest messages, and some.
pub(super) const WINDOW: usize = 128;

const _: () = assert!(MAX_PAYLOAD.div_ceil(DATA_ROOM) <= WINDOW, "the longest message fits the window");

/// One data message, as it is held.
#[derive(Clone, Debug)]
struct Fragment {
    time: u64,
    horizon: u64,
    safe: bool,
    more: bool,
    body: Vec<u8>,
}

/// What is known of one sender.
#[derive(Debug, Default)]
struct Lane {
    /// By sequence number.
    held: BTreeMap<u64, Fragment>,
    contiguous: u64,
    complete: u64,
    /// "Up to this time I sent so many": not reached yet.
    promise: (u64, u64),
    horizon: u64,
    partial: Partial,
    /// Since when something is known to be missing, and when it was asked for.
    hole: Option<(Instant, Option<Instant>)>,
}

/// The first fragments of a message.
#[derive(Clone, Debug, Default)]
struct Partial(Vec<u8>);

impl Partial {
    /// Adds the next fragment. The message if it was the last; none also if it is longer than any may be.
    fn add(&mut self, fragment: &Fragment) -> Option<Result<Vec<u8>, TooLong>> {
        if self.0.len() <= MAX_PAYLOAD {
            self.0.extend(&fragment.body);
        }
        if fragment.more {
            return None;
        }
        let whole = std::mem::take(&mut self.0);
        Some(if whole.len() <= MAX_PAYLOAD { Ok(whole) } else { Err(TooLong) })
    }
}

/// A message longer than [`MAX_PAYLOAD`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What became of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    Duplicate,
    /// There is no place for it.
    Beyond,
}

/// The messages of one view.
#[derive(Debug)]
pub(super) struct Store {
    view: View,
    rank: usize,
    lanes: Vec<Lane>,
    /// What is held and not delivered, in the order of all.
    order: BTreeMap<(u64, usize), u64>,
    clock: u64,
    /// Of those in `order`: safe ones.
    safe: usize,
}

impl Lane {
    /// Finds how far the lane reaches now.
    fn advance(&mut self) {
        while let Some(next) = self.held.get(&(self.contiguous + 1)) {
            self.contiguous += 1;
            self.complete = self.complete.max(next.time);
        }
        if self.promise.1 <= self.contiguous {
            self.complete = self.complete.max(self.promise.0);
        }
    }

    /// The last message that is known to exist.
    fn last(&self) -> u64 {
        self.held.keys().next_back().copied().unwrap_or(0).max(self.promise.1).max(self.contiguous)
    }

    /// Ranges beyond the first hole.
    fn beyond(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (&seq, _) in self.held.range(self.contiguous + 1..) {
            let full = ranges.len() == MAX_BEYOND;
            match ranges.last_mut() {
                Some(last) if last.1 + 1 == seq => last.1 = seq,
                _ if full => break,
                _ => ranges.push((seq, seq)),
            }
        }
        ranges
    }

    /// What is missing, at most [`MAX_RANGES`] ranges.
    fn holes(&self) -> Vec<(u64, u64)> {
        let (mut holes, mut next, last) = (Vec::new(), self.contiguous + 1, self.last());
        for &seq in self.held.range(next..).map(|(seq, _)| seq).chain([&(last + 1)]) {
            if next < seq && holes.len() < MAX_RANGES {
                holes.push((next, seq - 1));
            }
            next = seq + 1;
        }
        holes
    }
}

impl Store {
    /// Nothing sent yet in `view`, of which `me` is a member.
    pub(super) fn new(view: View, me: NodeId) -> Store {
        let rank = view.rank(me).expect("a router is a member of its own view");
        let lanes = view.members.iter().map(|_| Lane::default()).collect();
        Store { view, rank, lanes, order: BTreeMap::new(), clock: 0, safe: 0 }
    }

    /// The view.
    pub(super) const fn view(&self) -> &View {
        &self.view
    }

    /// This router's rank in it.
    pub(super) const fn rank(&self) -> usize {
        self.rank
    }

    /// How many data messages are held.
    pub(super) fn held(&self) -> usize {
        self.lanes.iter().map(|lane| lane.held.len()).sum()
    }

    /// The logical time.
    pub(super) const fn clock(&self) -> u64 {
        self.clock
    }

    /// How many data messages this router sent.
    pub(super) fn last(&self) -> u64 {
        self.lanes[self.rank].contiguous
    }

    /// All up to this time is here.
    pub(super) fn horizon(&self) -> u64 {
        let complete = |(rank, lane): (usize, &Lane)| if rank == self.rank { self.clock } else { lane.complete };
        self.lanes.iter().enumerate().map(complete).min().unwrap_or(0)
    }

    /// What a member is known to hold all up to.
    pub(super) fn horizon_of(&self, rank: usize) -> u64 {
        if rank == self.rank { self.horizon() } else { self.lanes[rank].horizon }
    }

    /// All up to this time is held by everybody.
    pub(super) fn stable(&self) -> u64 {
        (0..self.lanes.len()).map(|rank| self.horizon_of(rank)).min().unwrap_or(0)
    }

    /// Whether everybody holds everything, as far as known here.
    pub(super) fn is_quiet(&self) -> bool {
        self.stable() >= self.clock && self.lanes.iter().all(|lane| lane.hole.is_none())
    }

    /// Whether a safe message waits.
    pub(super) const fn has_safe(&self) -> bool {
        self.safe > 0
    }

    /// Data messages that this router may send now.
    pub(super) fn room(&self) -> usize {
        WINDOW - self.lanes[self.rank].held.len().min(WINDOW)
    }

    /// The messages that this router is to send for `body`, stored as sent.
    pub(super) fn send(&mut self, now: Instant, body: &[u8], service: Service) -> Vec<u64> {
        let mut chunks = body.chunks(DATA_ROOM).peekable();
        let mut seqs = Vec::new();
        loop {
            let body = chunks.next().unwrap_or_default().to_vec();
            let (horizon, safe, more) = (self.horizon(), service == Service::Safe, chunks.peek().is_some());
            let (seq, time) = (self.last() + 1, self.clock + 1);
            let taken = self.put(now, self.rank, seq, Fragment { time, horizon, safe, more, body });
            assert_eq!(taken, Taken::New, "the caller asks for room first");
            seqs.push(seq);
            if !more {
                return seqs;
            }
        }
    }

    /// Takes in a data message of this view.
    pub(super) fn receive(&mut self, now: Instant, data: &Data<'_>) -> Taken {
        let Data { sender, seq, time, horizon, safe, more, body, .. } = *data;
        self.put(now, sender, seq, Fragment { time, horizon, safe, more, body: body.to_vec() })
    }

    fn put(&mut self, now: Instant, sender: usize, seq: u64, fragment: Fragment) -> Taken {
        let lane = &mut self.lanes[sender];
        let known =
            seq <= lane.contiguous || lane.held.contains_key(&seq) || self.order.contains_key(&(fragment.time, sender));
        if known && !(broken(Rule::DataOnce) && self.order.len() < WINDOW && sender != self.rank) {
            return Taken::Duplicate;
        }
        if seq > lane.contiguous + WINDOW as u64 {
            return Taken::Beyond;
        }
        self.clock = self.clock.max(fragment.time);
        self.safe += usize::from(fragment.safe);
        self.order.insert((fragment.time, sender), seq);
        lane.horizon = lane.horizon.max(fragment.horizon);
        lane.held.insert(seq, fragment);
        self.advance(now, sender);
        Taken::New
    }

    /// A member says how many messages it sent by which time, and what it holds.
    pub(super) fn acknowledged(&mut self, now: Instant, rank: usize, clock: u64, last: u64, horizon: u64) {
        if rank == self.rank {
            return;
        }
        let lane = &mut self.lanes[rank];
        lane.promise = lane.promise.max((clock, last));
        lane.horizon = lane.horizon.max(horizon);
        self.clock = self.clock.max(clock);
        self.advance(now, rank);
    }

    fn advance(&mut self, now: Instant, rank: usize) {
        let lane = &mut self.lanes[rank];
        lane.advance();
        let missing = lane.last() > lane.contiguous;
        lane.hole = missing.then(|| lane.hole.unwrap_or((now, None)));
    }

    /// The next message that may be delivered.
    pub(super) fn deliver(&mut self) -> Option<Result<Delivery, TooLong>> {
        let (horizon, stable) = (self.horizon(), self.stable());
        loop {
            let (&(time, sender), &seq) = self.order.first_key_value()?;
            let lane = &mut self.lanes[sender];
            let fragment = lane.held.get(&seq).expect("what is to be delivered is held");
            let early = fragment.safe && !fragment.more && time > stable && !broken(Rule::SafeWaits);
            if (time > horizon && !broken(Rule::AgreedOrder)) || early {
                return None;
            }
            self.order.pop_first();
            self.safe -= usize::from(fragment.safe);
            if let Some(whole) = lane.partial.add(fragment) {
                let service = if fragment.safe { Service::Safe } else { Service::Agreed };
                return Some(whole.map(|body| Delivery { from: self.view.members[sender], service, body }));
            }
        }
    }

    /// Forgets what everybody holds and this router has delivered.
    pub(super) fn forget(&mut self) {
        let stable = self.stable();
        for (sender, lane) in self.lanes.iter_mut().enumerate() {
            while let Some(first) = lane.held.first_entry() {
                let (&seq, time) = (first.key(), first.get().time);
                if time > stable || seq > lane.contiguous || self.order.contains_key(&(time, sender)) {
                    break;
                }
                first.remove();
            }
        }
    }

    /// A data message that is held, as it was sent.
    pub(super) fn data(&self, sender: usize, seq: u64) -> Option<Data<'_>> {
        let Fragment { time, horizon, safe, more, body } = self.lanes.get(sender)?.held.get(&seq)?;
        let (time, horizon, safe, more) = (*time, *horizon, *safe, *more);
        Some(Data { view: self.view.id, sender, seq, time, horizon, safe, more, body })
    }

    /// Senders of which something is missing: since when, and when it was last asked for.
    pub(super) fn incomplete(&self) -> impl Iterator<Item = (usize, Instant, Option<Instant>)> {
        let hole = |(rank, lane): (usize, &Lane)| lane.hole.map(|(since, asked)| (rank, since, asked));
        self.lanes.iter().enumerate().filter_map(hole)
    }

    /// What is missing of `sender`: it is asked for now.
    pub(super) fn ask(&mut self, now: Instant, sender: usize) -> Vec<(u64, u64)> {
        let lane = &mut self.lanes[sender];
        if let Some(hole) = &mut lane.hole {
            hole.1 = Some(now);
        }
        lane.holes()
    }

    /// What this router has.
    pub(super) fn report(&self) -> Report {
        let row = |(rank, lane): (usize, &Lane)| Row {
            contiguous: lane.contiguous,
            complete: if rank == self.rank { self.clock.max(lane.complete) } else { lane.complete },
            horizon: self.horizon_of(rank),
            beyond: lane.beyond(),
        };
        Report { view: self.view.id, rows: self.lanes.iter().enumerate().map(row).collect() }
    }

    /// Whether all is here that those who end the view together have.
    pub(super) fn has(&self, ending: &Ending) -> bool {
        self.lanes.iter().zip(&ending.upto).all(|(lane, &upto)| lane.contiguous >= upto)
    }

    /// From now on this router knows what those know who end the view together. Nothing that one of them delivers because
    /// of that may be left out here later, whoever it moves on with.
    pub(super) fn learn(&mut self, ending: &Ending) {
        assert!(self.has(ending) || broken(Rule::Recover), "it knows what it holds");
        for (lane, &complete) in self.lanes.iter_mut().zip(&ending.complete) {
            lane.complete = lane.complete.max(complete);
        }
    }

    /// What is delivered before and after the signal that ends this view.
    pub(super) fn flush(&self, ending: &Ending) -> (Vec<Delivery>, Vec<Delivery>, u64) {
        let (mut before, mut after, mut overlong, mut signal) = (Vec::new(), Vec::new(), 0, false);
        let mut partial: Vec<Partial> = self.lanes.iter().map(|lane| lane.partial.clone()).collect();
        for (&(time, sender), &seq) in &self.order {
            let fragment = &self.lanes[sender].held[&seq];
            let lost = ending.complete[sender] != ALL && fragment.horizon > ending.horizon && !broken(Rule::NoHoles);
            if seq > ending.upto[sender] || (time > ending.horizon && lost) {
                continue;
            }
            let unsure = fragment.safe && !fragment.more && time > ending.stable;
            signal |= time > ending.horizon || unsure;
            let Some(whole) = partial[sender].add(fragment) else { continue };
            let service = if fragment.safe { Service::Safe } else { Service::Agreed };
            match whole {
                Ok(body) => {
                    let delivery = Delivery { from: self.view.members[sender], service, body };
                    if signal { after.push(delivery) } else { before.push(delivery) }
                }
                Err(TooLong) => overlong += 1,
            }
        }
        (before, after, overlong)
    }
}

/// How some members of a view end it together: the same at each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// By rank: the last message of each sender that they have.
    upto: Vec<u64>,
    /// By rank: up to which time they have all of it.
    complete: Vec<u64>,
    /// The least of those.
    horizon: u64,
    /// Up to which time everybody in the view holds everything.
    stable: u64,
}

impl Ending {
    /// From the reports of those who move on, by their rank in the view; at least one.
    pub(super) fn of(reports: &BTreeMap<usize, &Report>) -> Ending {
        let count = reports.values().next().expect("somebody moves on").rows.len();
        let rows = |sender: usize| reports.values().map(move |report| &report.rows[sender]);
        let goes = |sender: usize| reports.contains_key(&sender);
        let upto = (0..count).map(|sender| reach(rows(sender))).collect();
        let most = |sender, of: fn(&Row) -> u64| {
            if goes(sender) { ALL } else { rows(sender).map(of).max().unwrap_or(0) }
        };
        let complete: Vec<u64> = (0..count).map(|sender| most(sender, |row| row.complete)).collect();
        let horizon = complete.iter().copied().min().unwrap_or(0);
        let stable = (0..count).map(|sender| most(sender, |row| row.horizon)).min().unwrap_or(0).min(horizon);
        Ending { upto, complete, horizon, stable }
    }

    /// What each of those who move on lacks and `me`, before all others that have it, gives: `(to, sender, seq)`.
    pub(super) fn debts(&self, reports: &BTreeMap<usize, &Report>, me: usize) -> Vec<(usize, usize, u64)> {
        let has = |report: &Report, sender: usize, seq: u64| {
            let row = &report.rows[sender];
            seq <= row.contiguous || row.beyond.iter().any(|&(first, last)| (first..=last).contains(&seq))
        };
        let mut debts = Vec::new();
        for (sender, &upto) in self.upto.iter().enumerate() {
            for (&to, report) in reports {
                for seq in report.rows[sender].contiguous + 1..=upto {
                    let giver = reports.iter().find(|(_, giver)| has(giver, sender, seq));
                    if !has(report, sender, seq) && giver.is_some_and(|giver| *giver.0 == me) {
                        debts.push((to, sender, seq));
                    }
                }
            }
        }
        debts
    }
}

/// How far all of these together have a sender's messages without a hole.
fn reach<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> u64 {
    let mut upto = rows.clone().map(|row| row.contiguous).max().unwrap_or(0);
    loop {
        let ranges = rows.clone().flat_map(|row| &row.beyond);
        let next = ranges.filter(|range| range.0 <= upto + 1 && range.1 > upto).map(|range| range.1).max();
        match next {
            Some(next) => upto = next,
            None => return upto,
        }
    }
}
