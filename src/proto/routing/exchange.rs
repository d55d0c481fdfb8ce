//! Keeping the database equal to a neighbour's.
//!
//! When a link comes up each end sends its digest; who lacks something requests it, at most [`WINDOW`] origins at a
//! time, so that a large database does not fill the ring to the worker. Afterwards flooding keeps both equal, and every
//! [`SUMMARY_INTERVAL`] a fingerprint is compared, in case something was lost on the way (a full ring drops and counts).
//! A neighbour that leaves requests unanswered gets one sooner.
//!
//! # Flooding
//! ```text
//!                   ┌── the first after a pause ──▶ sent at once
//!   news, for each ─┤
//!   neighbour       └── more ──▶ waits ──┬── within PUSHED ──▶ sent, bundled
//!                                        ├── beyond it ──▶ announced ──▶ the neighbour lacks it ──▶ asks, and is paid
//!                                        └── the neighbour has it by its own word ──▶ nothing
//! ```
//! Few news are pushed: nothing is faster. When much happens at once (a network boots, a site dies, halves merge) every
//! router would get every advertisement from every neighbour, so what exceeds [`PUSHED`] is named in a digest, a tenth
//! of its size, and each router asks one neighbour for what it lacks. Another one that offers the same is asked
//! [`HOLD_BACK`] later if nothing came; one that left requests unanswered lately holds nobody back. What waits is told
//! once, in its newest form, and not to those who have named it themselves meanwhile.
//!
//! # Numbers
//! Everybody is known here by the place among the members, ascending by id ([`super::database::Database::number`]): sets
//! are bits, and what they hold ascends by id too. When the members are others, so are the numbers
//! ([`Exchange::renumber`]).
//!
//! # Bounds
//! A request of a kilobyte asks for a hundred. What a neighbour asks for is *owed* to it: a set, so each origin at most
//! once however often it is asked for; paid [`PAYMENT`] origins every [`PAYMENT_SPACING`], so that the ring and the link
//! are not flooded; and not more than two whole databases at once and one in ten seconds ([`allowance`]). Nothing that
//! is owed is forgotten while the link is up.

use super::budget::{Budget, Rate};
use crate::base::Instant;
use crate::containers::NumberSet;
use crate::wire::routing::{MAX_REQUEST, Sequence};
use std::collections::BTreeMap;
use std::time::Duration;

/// Time between two summaries to a neighbour, give or take a tenth.
pub(super) const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);
/// Origins that a neighbour is asked for and did not send yet, at most.
pub(super) const WINDOW: usize = 2 * MAX_REQUEST;
/// An origin that was not sent after this long is not waited for any more; the next summary finds it again.
const PATIENCE: Duration = Duration::from_secs(2);
/// What one neighbour was asked for is not asked of another for this long: a long round trip, and two payments.
pub(super) const HOLD_BACK: Duration = Duration::from_millis(250);

/// When the next summary goes to a neighbour that left requests unanswered, at the latest.
const SUMMARY_AFTER_SILENCE: Duration = Duration::from_secs(5);

/// Others' news sent to a neighbour unasked.
pub(super) const PUSHED: Rate = Rate { burst: 16, period: Duration::from_millis(50) };
/// Least time between two sendings of such news, which then share datagrams.
pub(super) const PUSH_SPACING: Duration = Duration::from_millis(5);
/// Least time between two announcements of news beyond that.
pub(super) const ANNOUNCE_SPACING: Duration = Duration::from_millis(20);

/// Advertisements sent to a neighbour that asked for them, at once.
pub(super) const PAYMENT: usize = 64;
/// Least time between two such payments.
const PAYMENT_SPACING: Duration = Duration::from_millis(32);

/// Digests a neighbour may ask for in [`DIGEST_WINDOW`]; one is up to a hundred messages. An honest one asks for two.
const MAX_DIGESTS: u32 = 8;
const DIGEST_WINDOW: Duration = Duration::from_secs(10);

/// Advertisements a neighbour may ask for in a network of so many members. An honest one asks for each once when the
/// link comes up, and for few afterwards.
pub(super) fn allowance(members: usize) -> Rate {
    let members = u32::try_from(members).expect("members are at most MAX_NODES");
    Rate { burst: 256 + 2 * members, period: Duration::from_secs(10) / (160 + members) }
}

/// What a neighbour has of a member.
#[derive(Clone, Copy, Debug)]
struct Offer {
    sequence: Sequence,
    /// When it was asked for it, if it was.
    asked: Instant,
}

const NO_OFFER: Offer = Offer { sequence: Sequence { epoch: 0, counter: 0 }, asked: Instant::ZERO };

/// The exchange with the neighbour at the other end of one link.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Whether messages reach it.
    pub(super) up: bool,
    /// When the next summary goes to it.
    pub(super) summary_at: Instant,
    /// What it has, by its own word, and we lack: members only, so bounded by their number. Each is in one of the next
    /// three.
    offered: NumberSet,
    /// By number; of those in `offered`. Gone when there are none.
    offers: Vec<Offer>,
    /// To be asked for.
    wanted: NumberSet,
    /// Asked for.
    asked: NumberSet,
    /// Another neighbour was asked for it.
    spare: NumberSet,
    asked_at: Instant,
    /// It left the last requests unanswered.
    silent: bool,
    /// What it sent and we could not afford to check: asked for again later. Members only.
    later: BTreeMap<usize, Sequence>,
    /// What it asked for and did not get yet. Members only.
    owed: NumberSet,
    pay_at: Instant,
    paid: Budget,
    /// What it is to be told, and since when something was. Members only.
    news: NumberSet,
    news_since: Instant,
    pushed: Budget,
    pushed_at: Option<Instant>,
    announced_at: Option<Instant>,
    digests: u32,
    digests_since: Instant,
    /// What it may still send with a wrong signature.
    pub(super) trials: Budget,
}

impl Exchange {
    pub(super) fn new() -> Exchange {
        Exchange {
            up: false,
            summary_at: Instant::MAX,
            offered: NumberSet::new(),
            offers: Vec::new(),
            wanted: NumberSet::new(),
            asked: NumberSet::new(),
            spare: NumberSet::new(),
            asked_at: Instant::ZERO,
            silent: false,
            later: BTreeMap::new(),
            owed: NumberSet::new(),
            pay_at: Instant::ZERO,
            paid: Budget::default(),
            news: NumberSet::new(),
            news_since: Instant::ZERO,
            pushed: Budget::default(),
            pushed_at: None,
            announced_at: None,
            digests: 0,
            digests_since: Instant::ZERO,
            trials: Budget::default(),
        }
    }

    pub(super) fn set_up(&mut self, up: bool, summary_at: Instant) {
        self.up = up;
        self.summary_at = if up { summary_at } else { Instant::MAX };
        // The budgets stay: a link that comes and goes must not renew them.
        self.renumber(|_| None);
    }

    /// The members are others now: nothing of those that left is asked for, sent or announced, and those that stay have
    /// `new` numbers.
    pub(super) fn renumber(&mut self, new: impl Fn(usize) -> Option<usize>) {
        let mut offers = Vec::new();
        for number in self.offered.iter() {
            if let Some(new) = new(number) {
                put(&mut offers, new, self.offers[number]);
            }
        }
        self.offers = offers;
        let Exchange { offered, wanted, asked, spare, owed, news, .. } = self;
        for set in [offered, wanted, asked, spare, owed, news] {
            *set = set.iter().filter_map(&new).collect();
        }
        let later = std::mem::take(&mut self.later).into_iter();
        self.later = later.filter_map(|(number, sequence)| Some((new(number)?, sequence))).collect();
    }

    /// Whether anything is to be done for this neighbour now, in a network of so many members.
    pub(super) fn is_due(&self, now: Instant, members: usize) -> bool {
        self.up && (self.may_ask() || self.next(members) <= now)
    }

    /// When something is to be done for this neighbour, apart from asking; [`Instant::MAX`] if nothing is.
    pub(super) fn next(&self, members: usize) -> Instant {
        let others = [self.deadline(), self.payment_at(members), self.news_at()];
        others.into_iter().flatten().fold(self.summary_at, Instant::min)
    }

    // --- what it gets ------------------------------------------------------------------------------------------------

    /// There is news of `origin`: true if it is to be sent at once, else it waits for [`Exchange::news`].
    pub(super) fn tell(&mut self, now: Instant, origin: usize) -> bool {
        if self.news.is_empty() {
            if self.push_at() <= now {
                self.pushed.spend(now, PUSHED);
                self.pushed_at = Some(now);
                return true;
            }
            self.news_since = now;
        }
        self.news.insert(origin);
        false
    }

    /// The neighbour has, or is going to get, what is here of `origin`.
    pub(super) fn knows(&mut self, origin: usize) {
        self.news.remove(origin);
    }

    /// When news may be sent unasked.
    fn push_at(&self) -> Instant {
        let spaced = self.pushed_at.map_or(Instant::ZERO, |last| last + PUSH_SPACING);
        spaced.max(self.pushed.ready_at(PUSHED, 0))
    }

    /// When what may not be sent unasked is announced: with others that come soon.
    fn announce_at(&self) -> Instant {
        let spaced = self.announced_at.map_or(Instant::ZERO, |last| last + ANNOUNCE_SPACING);
        spaced.max(self.news_since + PUSH_SPACING)
    }

    /// When [`Exchange::news`] gives something.
    fn news_at(&self) -> Option<Instant> {
        (self.up && !self.news.is_empty()).then(|| self.push_at().min(self.announce_at()))
    }

    /// What to send now, and what to announce, ascending.
    pub(super) fn news(&mut self, now: Instant) -> (Vec<usize>, NumberSet) {
        let (mut sent, mut announced) = (Vec::new(), NumberSet::new());
        if self.news_at().is_none_or(|at| at > now) {
            return (sent, announced);
        }
        if self.push_at() <= now {
            while self.pushed.ready_at(PUSHED, 0) <= now
                && let Some(origin) = self.news.pop_first()
            {
                self.pushed.spend(now, PUSHED);
                sent.push(origin);
            }
            self.pushed_at = Some(now);
        }
        if self.announce_at() <= now && !self.news.is_empty() {
            announced = std::mem::take(&mut self.news);
            self.announced_at = Some(now);
        }
        (sent, announced)
    }

    /// The neighbour asks for `origin`, of which we have something; false if it asks too much.
    pub(super) fn owe(&mut self, now: Instant, origin: usize, members: usize) -> bool {
        let affordable = self.paid.ready_at(allowance(members), 0) <= now;
        self.knows(origin);
        self.owed.insert(origin) && affordable
    }

    /// What to send now of what is owed.
    pub(super) fn pay(&mut self, now: Instant, members: usize) -> Vec<usize> {
        let mut batch = Vec::new();
        if self.payment_at(members).is_none_or(|at| at > now) {
            return batch;
        }
        let rate = allowance(members);
        while batch.len() < PAYMENT && self.paid.ready_at(rate, 0) <= now {
            let Some(origin) = self.owed.pop_first() else { break };
            self.paid.spend(now, rate);
            self.knows(origin);
            batch.push(origin);
        }
        self.pay_at = now + PAYMENT_SPACING;
        batch
    }

    /// When [`Exchange::pay`] gives something.
    fn payment_at(&self, members: usize) -> Option<Instant> {
        let due = self.up && !self.owed.is_empty();
        due.then(|| self.pay_at.max(self.paid.ready_at(allowance(members), 0)))
    }

    /// Whether the neighbour may have the digest it asks for. If not, it gets a summary as soon as it may have one again:
    /// if it still lacks something then, it asks once more.
    pub(super) fn may_have_digest(&mut self, now: Instant) -> bool {
        if now.since(self.digests_since) >= DIGEST_WINDOW {
            (self.digests, self.digests_since) = (0, now);
        }
        self.digests = self.digests.saturating_add(1);
        let may = self.digests <= MAX_DIGESTS;
        if !may {
            self.summary_at = self.summary_at.min(self.digests_since + DIGEST_WINDOW);
        }
        may
    }

    // --- what it is asked for ----------------------------------------------------------------------------------------

    /// The neighbour says that it has this of `origin`, and we lack it.
    pub(super) fn want(&mut self, origin: usize, sequence: Sequence) {
        if self.offered.insert(origin) {
            put(&mut self.offers, origin, Offer { sequence, ..NO_OFFER });
            self.wanted.insert(origin);
        } else {
            let offer = &mut self.offers[origin];
            offer.sequence = sequence.max(offer.sequence);
        }
    }

    /// This of `origin` arrived, from whomever: whatever is not newer is not waited for. True if the neighbour has it, by
    /// its own word.
    pub(super) fn arrived(&mut self, origin: usize, sequence: Sequence) -> bool {
        if !self.offered.contains(origin) {
            return false;
        }
        let offered = self.offers[origin].sequence;
        if offered <= sequence {
            self.drop_offer(origin);
        } else if self.spare.remove(origin) {
            // Whoever was asked first had less to give.
            self.wanted.insert(origin);
        }
        offered >= sequence
    }

    /// This of `origin` arrived from this neighbour.
    pub(super) fn delivered(&mut self, origin: usize, sequence: Sequence) {
        if self.asked.contains(origin) {
            self.silent = false;
        }
        self.arrived(origin, sequence);
    }

    fn drop_offer(&mut self, origin: usize) {
        self.offered.remove(origin);
        self.wanted.remove(origin);
        self.asked.remove(origin);
        self.spare.remove(origin);
        if self.offered.is_empty() {
            self.offers = Vec::new();
        }
    }

    /// The neighbour sent something of `origin` that could not be checked now.
    pub(super) fn postpone(&mut self, origin: usize, sequence: Sequence) {
        self.drop_offer(origin);
        self.later.insert(origin, sequence);
    }

    /// The time has come for what was postponed.
    pub(super) fn resume(&mut self, origin: usize) {
        if let Some(sequence) = self.later.remove(&origin) {
            self.want(origin, sequence);
        }
    }

    /// Gives up what was not answered in time; true if there was something.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        let late = self.deadline().is_some_and(|at| at <= now);
        if late {
            std::mem::take(&mut self.asked).iter().for_each(|origin| self.drop_offer(origin));
            self.silent = true;
            self.summary_at = self.summary_at.min(now + SUMMARY_AFTER_SILENCE);
        }
        late
    }

    /// Whether other neighbours are not to be asked for `origin` now.
    pub(super) fn holds_back(&self, now: Instant, origin: usize) -> bool {
        self.up && !self.silent && self.asked.contains(origin) && now < self.offers[origin].asked + HOLD_BACK
    }

    /// Those who hold back may not do so any more.
    pub(super) fn reconsider(&mut self) {
        self.wanted.append(&mut self.spare);
    }

    fn may_ask(&self) -> bool {
        // Not for crumbs: half the window is free, or this is all.
        let room = WINDOW.saturating_sub(self.asked.len());
        self.up && !self.wanted.is_empty() && room >= MAX_REQUEST.min(self.wanted.len())
    }

    /// What to ask for now, ascending; empty if nothing. [`Exchange::asked`] or [`Exchange::spared`] follows for each.
    pub(super) fn ask(&self) -> Vec<usize> {
        let most = if self.may_ask() { MAX_REQUEST } else { 0 };
        self.wanted.iter().take(most).collect()
    }

    /// The neighbour is asked for these.
    pub(super) fn asked(&mut self, now: Instant, origins: &[usize]) {
        for &origin in origins {
            self.wanted.remove(origin);
            self.asked.insert(origin);
            self.offers[origin].asked = now;
        }
        self.asked_at = now;
    }

    /// Another neighbour was asked for it already.
    pub(super) fn spared(&mut self, origin: usize) {
        self.wanted.remove(origin);
        self.spare.insert(origin);
    }

    /// When unanswered requests are not waited for any more.
    fn deadline(&self) -> Option<Instant> {
        (!self.asked.is_empty()).then(|| self.asked_at + PATIENCE)
    }
}

fn put(offers: &mut Vec<Offer>, number: usize, offer: Offer) {
    if number >= offers.len() {
        offers.resize(number + 1, NO_OFFER);
    }
    offers[number] = offer;
}
