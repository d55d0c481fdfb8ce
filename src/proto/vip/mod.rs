//! VIPs: which member of a group holds each set of service addresses, and when it answers for it.
//!
//! # What it promises
//! 1. *Exactly once.* In every connected component every set is covered by exactly one member, if any member may hold it
//!    (`allocation.rs` says who may): right through crashes, partitions, merges, freezes and restarts. It is the rule of
//!    Wackamole (Amir, Caudy, Munjal, Schlossnagle, Tutu: *N-Way Fail-Over Infrastructure for Reliable Servers and
//!    Routers*, DSN 2003, section 3), whose proof needs what the membership gives: views that all members install alike,
//!    and messages that all deliver in one order.
//! 2. *Never two in one component for longer than a lease.* A member's right to answer is a lease that its kernel
//!    enforces. Whoever takes over from a member that is gone waits until that lease has run out, or until when the caller
//!    says that it has ([`Input::LastHeard`]): a member that was killed or stopped is silent one lease later, without help.
//!    One that was cut off is a component of its own, and goes on answering there. A merge finds two owners; the one that
//!    lost releases with the view's beginning.
//! 3. *Nothing is lost in a hand-over.* The new owner acquires before the old one lets go.
//! 4. *Nothing moves without need*, and what is spread badly is moved few sets at a time.
//!
//! # How
//! - A **view** begins with the state of every member: its facts and what its last view agreed on. From them all compute
//!   the same allocation (`agreed.rs`); no further message is needed for it. All decisions after that are agreed messages.
//! - A member says four things: its *facts* when they change (health, maturity, leaving, a lease that ran out), that it
//!   has *acquired* a set, an operator's *order*, and, the first member alone, that it is time to *balance*, which is an
//!   order too. What was said and not delivered within a second is said again.
//! - **Maturity**: a member that starts holds nothing until it meets one that is mature, everybody is there, or
//!   `maturity` has passed: a cluster that boots does not hand sets about.
//! - **Leases of the dead**: when a view begins, everybody notes for every set until when a member that is gone may
//!   answer, and tells those who join later. The time is counted from when it was last heard, if the caller knows.
//! - **Freezes**: a router that was stopped for longer than its lease is silent by the kernel's hand. It does not know what
//!   the others have done since, so it stays silent until a message of its own has come back to it in order: every member
//!   of the view had a part in that after it woke. If nobody is in that view who ran all the time, and
//!   somebody who was with it is not, it is rather this router that was given up, and will be taken in again in a moment:
//!   then it stays silent for [`DESERTED`] leases.
//!
//! # What this router does about one set
//! ```text
//!                 given, a lease runs            the lease ran out
//!        ┌──────▶────────────────────── waiting ───────────────────┐
//!        │                                                         ▼
//!      idle ──────────── given ─────────────────────────────▶ acquiring ◀──────── given again ──────┐
//!        ▲                                                         │                                │
//!        │ released                                    host: acquired; say so                       │
//!        │                                                         ▼                                │
//!    releasing ◀── lost in a merge, or nobody may ────────────── owning ─── given to another ──▶ muted
//!        ▲ ▲                                                    │     ▲                            │
//!        │ │                               host: lease ran out  ▼     │ own message came back,     │
//!        │ └────────── given to another ───────────────────── lapsed ─┘ by acquiring               │
//!        └─────────────── the other has it, and `linger` has passed; or nobody has ─────────────────┘
//! ```
//! | stage | mine | given away, not taken yet | another's | nobody's |
//! |---|---|---|---|---|
//! | idle, releasing | acquire | – | – | – |
//! | waiting, acquiring | – | release | release | release |
//! | owning | – | mute | release | release |
//! | muted | acquire | – | release after `linger` | release |
//! | lapsed | acquire when proven | release | release | release |
//!
//! What is given to a router that has not proven yet that the others count on it is lapsed from the start.
//!
//! The new owner announces when it has acquired and again when all know, because by then the old one is mute; the winner
//! of a merge announces again, and so does an owner that sees a rival, at most every [`RIVAL_SPACING`]. What the host side
//! cannot hold is released whole, given to another, and tried again after [`RETRY`].
//!
//! # Bounds
//! Members are at most [`MAX_MEMBERS`], sets [`MAX_SETS`], so is all that is kept for each. Commands that wait are at
//! most [`MAX_COMMANDS`]; more are refused. Interfaces are those of the configuration. Actions are drained after every
//! call; one call gives at most a few for each set.
//!
//! [`MAX_MEMBERS`]: crate::base::limits::MAX_MEMBERS
//! [`MAX_SETS`]: crate::base::limits::MAX_SETS

mod agreed;
mod allocation;
mod commands;
mod door;
mod post;
mod show;
#[cfg(test)]
mod tests;

pub use door::{
    Action, Cause, CheckSpec, Command, Coverage, Entry, HostCommand, HostReport, Input, MemberView, Reason, SetSpec,
    SetView, Settings, Stats,
};
pub use post::Stage;

use crate::base::limits::MAX_MEMBERS;
use crate::base::sabotage::{Rule, broken};
use crate::base::{Instant, NodeId, Rng, View};
use crate::wire::vip::{Facts, Message, Order, Seat, Slot, State};
use agreed::{Agreed, Applied, Rules, SetRule};
use commands::Commands;
use post::{Duty, Post};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What was said and not delivered is said again after this long.
pub const RETELL: Duration = Duration::from_secs(1);
/// What could not be held is tried again after this long, give or take a fifth.
pub const RETRY: Duration = Duration::from_secs(10);
/// An address that is taken away again within this long is not fought for: the set goes to another member.
pub const LOST_SPACING: Duration = Duration::from_secs(1);
/// Leases for which a router that stood still, and is without members that were with it, waits for them: they hear of each
/// other again within some hellos, and a lease is about as long as it takes to miss them.
pub const DESERTED: u32 = 4;
/// Least time between two announcements because of a rival.
pub const RIVAL_SPACING: Duration = Duration::from_millis(100);
/// Leaving takes at most this long, beside `linger`.
pub const LEAVE_PATIENCE: Duration = Duration::from_secs(3);
/// Commands that may wait at a time.
pub const MAX_COMMANDS: usize = 64;

/// The VIP protocol of one router.
#[derive(Clone, Debug)]
pub struct Vip {
    settings: Settings,
    rules: Rules,
    me: Option<Seat>,
    view: Option<View>,
    agreed: Agreed,
    posts: Vec<Post>,
    /// What this router knows of itself now; the others know what is in `agreed`.
    facts: Facts,
    told: Option<(Facts, Instant)>,
    /// The last lapse: when, and who was with this router before it, while the others' word on it is awaited.
    lapse: Option<(Instant, Vec<NodeId>)>,
    /// They have said it, and this router answers again from then on.
    resume_at: Option<Instant>,
    /// The view ends: what is delivered in it from now on not all of its members had a part in.
    parting: bool,
    /// By check; none until it has found something.
    checks: Vec<Option<bool>>,
    /// Interfaces without a carrier, of those that sets need.
    dark: Vec<String>,
    last_heard: BTreeMap<NodeId, Instant>,
    mature_at: Instant,
    balance_at: Option<Instant>,
    leave_by: Option<Instant>,
    left: bool,
    commands: Commands,
    next: Option<(Instant, Reason)>,
    actions: VecDeque<Action>,
    stats: Stats,
    rng: Rng,
}

impl Vip {
    /// The room of a router that is in no view yet.
    pub fn new(now: Instant, settings: Settings, rng: Rng) -> Vip {
        settings.assert();
        let rules = rules(&settings);
        let sets = settings.sets.len();
        let facts = Facts {
            digest: rules.digest,
            weight: settings.weight,
            mature: false,
            leaving: false,
            lapsed: false,
            lapses: 0,
            holding: false,
            able: vec![false; sets],
        };
        let mut vip = Vip {
            me: rules.seat(settings.node),
            view: None,
            agreed: Agreed::new(&rules),
            posts: vec![Post::new(now + settings.lease); sets],
            facts,
            told: None,
            lapse: None,
            resume_at: None,
            parting: false,
            checks: vec![None; settings.checks.len()],
            dark: Vec::new(),
            last_heard: BTreeMap::new(),
            mature_at: now + settings.maturity,
            balance_at: None,
            leave_by: None,
            left: false,
            commands: Commands::default(),
            next: None,
            actions: VecDeque::new(),
            stats: Stats::default(),
            rng,
            rules,
            settings,
        };
        vip.advance(now);
        vip
    }

    /// Takes in what happened. All that is due at `now` is done too.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::View { view, together, states } => self.begin(now, view, &together, &states),
            Input::Message { from, body } => self.message(now, from, &body),
            Input::WantState { pending } => self.bring_state(now, &pending),
            Input::LastHeard { node, at } => {
                if self.last_heard.len() < MAX_MEMBERS || self.last_heard.contains_key(&node) {
                    self.last_heard.insert(node, at);
                }
            }
            Input::Command { id, command } => self.command(now, id, &command),
            Input::Health { check, ok } => match self.checks.get_mut(check) {
                Some(found) => *found = Some(ok),
                None => self.stats.misplaced += 1,
            },
            Input::Host(report) => self.report(now, report),
            Input::Leave => {
                self.facts.leaving = true;
                self.leave_by.get_or_insert(now + self.settings.linger + LEAVE_PATIENCE);
            }
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

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// A view begins.
    fn begin(&mut self, now: Instant, view: View, together: &[NodeId], states: &[(NodeId, Vec<u8>)]) {
        assert!(view.members.contains(&self.settings.node), "a router is in every view that it installs");
        // Under another configuration's rule this router did not know who held what.
        let blind = self.agreed.ruling != self.rules.digest;
        let (agreed, beginning) = Agreed::merge(&self.rules, &view, states);
        self.stats.views += 1;
        self.stats.malformed += beginning.malformed;
        for (set, post) in self.posts.iter_mut().enumerate() {
            let lease_of = |seat: Seat| {
                let heard = self.last_heard.get(&self.rules.members[seat.index()]).copied().unwrap_or(now);
                heard.min(now) + self.settings.lease
            };
            let dead = beginning.dead[set].iter().map(lease_of).max();
            let told = Some(now + beginning.left[set].min(self.settings.lease)).filter(|_| !broken(Rule::LeaseTold));
            let unknown = Some(now + self.settings.lease).filter(|_| blind);
            post.free_at = [dead, told, unknown].into_iter().flatten().fold(post.free_at, Instant::max);
        }
        self.last_heard.clear();
        let merged = view.members.iter().any(|member| !together.contains(member));
        self.note(Entry::View { id: view.id, members: view.members.len(), together: together.len() });
        self.note_unequal(&agreed);
        let before = std::mem::replace(&mut self.agreed, agreed);
        self.view = Some(view);
        if broken(Rule::Alike) {
            self.prefer_myself();
        }
        self.note_assigned(&before.slots, Cause::View);
        (self.told, self.resume_at, self.parting) = (None, None, false);
        self.posts.iter_mut().for_each(|post| post.told = None);
        self.balance_at = self.settings.balance.map(|every| now + every).filter(|_| self.speaks());
        self.adopt_maturity();
        self.follow(now);
        for (set, post) in self.posts.iter_mut().enumerate() {
            self.actions.extend(post.wait_longer(now, set).map(Action::Host));
        }
        if merged {
            self.announce_all(now);
        }
    }

    /// A merge is over: whoever heard another owner must hear this one.
    fn announce_all(&mut self, now: Instant) {
        for set in (0..self.posts.len()).filter(|_| !broken(Rule::Announce)) {
            match self.posts[set].stage {
                Stage::Owning => self.announce(set),
                Stage::Acquiring { .. } => self.posts[set].owes_announcement = true,
                Stage::Waiting { until } => self.posts[set].owes_announcement = until <= now,
                _ => {}
            }
        }
    }

    fn announce(&mut self, set: usize) {
        self.stats.announced_again += 1;
        self.actions.push_back(Action::Host(HostCommand::Announce { set }));
    }

    fn message(&mut self, now: Instant, from: NodeId, body: &[u8]) {
        let Ok(message) = Message::parse(body) else {
            self.stats.malformed += 1;
            return;
        };
        let before = self.agreed.slots.clone();
        let applied = self.agreed.apply(&self.rules, from, &message);
        match &applied {
            Applied::Done | Applied::Refused(_) => {}
            Applied::Stale => self.stats.stale += 1,
            Applied::Misplaced => self.stats.misplaced += 1,
        }
        let cause = if matches!(message, Message::Order { .. }) { Cause::Order } else { Cause::Facts };
        self.note_assigned(&before, cause);
        self.adopt_maturity();
        self.follow(now);
        if from == self.settings.node {
            self.own_message(now, &message, applied, &before);
        }
    }

    /// A message of this router came back to it: the whole view knows.
    fn own_message(&mut self, now: Instant, message: &Message, applied: Applied, before: &[Slot]) {
        match message {
            Message::Facts(facts) if facts.lapsed && facts.lapses == self.facts.lapses && !self.parting => {
                self.proven(now);
            }
            Message::Facts(_) => {}
            Message::Acquired { set, .. } => {
                let set = usize::from(*set);
                // The member that gave it up is mute by now: what it answered meanwhile is put right.
                if applied == Applied::Done && before[set].from.is_some() && self.posts[set].stage == Stage::Owning {
                    self.announce(set);
                }
            }
            Message::Order { id, .. } => self.commands.applied(*id, applied, &self.agreed.slots),
        }
    }

    /// The others count on this router, and said so after it woke; if they are those that it was with.
    fn proven(&mut self, now: Instant) {
        let is_here = |node: &NodeId| self.view.as_ref().is_some_and(|view| view.members.contains(node));
        let slept = self.agreed.here.values().all(|facts| facts.lapsed);
        match &self.lapse {
            Some((at, with)) if slept && !with.iter().all(is_here) => {
                self.resume_at = Some(*at + self.settings.lease * DESERTED);
            }
            _ => self.resume(now),
        }
    }

    /// Answers again for what is its own.
    fn resume(&mut self, now: Instant) {
        self.facts.lapsed = false;
        (self.lapse, self.resume_at) = (None, None);
        for set in 0..self.posts.len() {
            if self.posts[set].stage == Stage::Lapsed && self.duty(set) == Duty::Own {
                let command = self.posts[set].acquire(now, set);
                self.actions.push_back(Action::Host(command));
            }
        }
    }

    fn bring_state(&mut self, now: Instant, pending: &[(NodeId, Vec<u8>)]) {
        self.parting = true;
        let mut agreed = self.agreed.clone();
        for (from, body) in pending.iter().filter(|_| !broken(Rule::Pending)) {
            // What is malformed is counted when it is delivered.
            if let Ok(message) = Message::parse(body) {
                agreed.apply(&self.rules, *from, &message);
            }
        }
        let mature = agreed.here.get(&self.settings.node).is_some_and(|facts| facts.mature);
        let holding = agreed.slots.iter().any(|slot| slot.acquired && slot.owner == self.me);
        let left = |post: &Post| u32::try_from(post.free_at.since(now).as_micros()).unwrap_or(u32::MAX);
        let state = State {
            facts: Facts { mature: self.facts.mature || mature, holding, ..self.facts.clone() },
            clock: agreed.clock,
            wills: agreed.wills,
            slots: agreed.slots,
            left: self.posts.iter().map(left).collect(),
        };
        self.actions.push_back(Action::State(state.emit()));
    }

    fn report(&mut self, now: Instant, report: HostReport) {
        let set = match &report {
            HostReport::Lapsed => return self.lapse(now),
            HostReport::Carrier { interface, up, .. } => return self.carrier(interface, *up),
            HostReport::Acquired { set } | HostReport::Released { set } => *set,
            HostReport::Failed { set, .. } | HostReport::Rival { set, .. } | HostReport::Lost { set, .. } => *set,
        };
        if set >= self.posts.len() {
            self.stats.misplaced += 1;
            return;
        }
        match report {
            HostReport::Acquired { .. } => self.acquired(now, set),
            HostReport::Released { .. } => {
                if self.posts[set].released() {
                    self.stats.released += 1;
                    self.note(Entry::Released { set: self.name(set) });
                }
            }
            HostReport::Failed { why, .. } => self.fail(now, set, why),
            HostReport::Lost { why, .. } => self.lost(now, set, why),
            HostReport::Rival { address, who, .. } => self.rival(now, set, address, who),
            HostReport::Lapsed | HostReport::Carrier { .. } => unreachable!("they were handled before"),
        }
    }

    fn acquired(&mut self, now: Instant, set: usize) {
        let post = &mut self.posts[set];
        if !post.acquired() {
            return;
        }
        self.stats.acquired += 1;
        let (given, waited) = post.given.take().unwrap_or((now, Duration::ZERO));
        let owes = std::mem::take(&mut post.owes_announcement);
        self.note(Entry::Acquired { set: self.name(set), after: now.since(given), waited });
        if owes {
            self.announce(set);
        }
    }

    /// The host side cannot hold a set: it has nothing of it from now on, and another member may try.
    fn fail(&mut self, now: Instant, set: usize, why: String) {
        let post = &mut self.posts[set];
        if !matches!(post.stage, Stage::Waiting { .. } | Stage::Acquiring { .. } | Stage::Owning) {
            self.stats.stale += 1;
            return;
        }
        self.stats.failures += 1;
        post.failed = Some((now + self.rng.jitter(RETRY, 0.2), why.clone()));
        let command = post.release(set);
        self.actions.push_back(Action::Host(command));
        self.note(Entry::Host { set: self.name(set), why });
    }

    /// Somebody took an address away: it is put back once, and if it is taken again another member may try.
    fn lost(&mut self, now: Instant, set: usize, why: String) {
        let post = &mut self.posts[set];
        if post.stage != Stage::Owning {
            return;
        }
        self.stats.lost += 1;
        if post.lost_at.replace(now).is_some_and(|last| now.since(last) < LOST_SPACING) {
            return self.fail(now, set, why);
        }
        let command = post.acquire(now, set);
        self.actions.push_back(Action::Host(command));
        self.note(Entry::Host { set: self.name(set), why });
    }

    fn rival(&mut self, now: Instant, set: usize, address: std::net::IpAddr, who: String) {
        self.stats.rivals += 1;
        let post = &mut self.posts[set];
        // Of a set that this router does not hold, somebody else is the owner.
        let lately = post.rival_at.is_some_and(|last| now.since(last) < RIVAL_SPACING) && !broken(Rule::RivalSpacing);
        if post.stage != Stage::Owning || lately {
            return;
        }
        post.rival_at = Some(now);
        self.announce(set);
        self.note(Entry::Rival { set: self.name(set), address, who });
    }

    /// This router was not running for longer than its lease.
    fn lapse(&mut self, now: Instant) {
        // Whatever others say of it must come after this.
        self.facts.lapses = self.facts.lapses.wrapping_add(1);
        self.resume_at = None;
        let mut with = self.lapse.take().map_or(Vec::new(), |(_, with)| with);
        with.extend(self.view.iter().flat_map(|view| &view.members));
        with.sort_unstable();
        with.dedup();
        self.lapse = Some((now, with));
        // Said of one standstill by whoever notices it, it is one lapse.
        if !std::mem::replace(&mut self.facts.lapsed, true) {
            self.stats.lapses += 1;
            self.note(Entry::Lapsed);
        }
        for (set, post) in self.posts.iter_mut().enumerate() {
            self.actions.extend(post.lapse(set).map(Action::Host));
        }
        if broken(Rule::Proof) {
            self.resume(now);
        }
    }

    fn carrier(&mut self, interface: &str, up: bool) {
        self.dark.retain(|dark| dark != interface);
        let needed = self.settings.sets.iter().any(|set| set.interfaces.iter().any(|name| name == interface));
        if !up && needed {
            self.dark.push(interface.to_owned());
        }
    }

    /// Why this router can not hold a set.
    fn unable(&self, set: usize) -> Option<String> {
        let concerns = |sets: &[usize]| sets.is_empty() || sets.contains(&set);
        let mut checks = self.settings.checks.iter().zip(&self.checks);
        if let Some((check, found)) = checks.find(|(check, found)| **found != Some(true) && concerns(&check.sets)) {
            let what = if found.is_some() { "fails" } else { "has found nothing yet" };
            return Some(format!("the check `{}` {what}", check.name));
        }
        let interfaces = &self.settings.sets[set].interfaces;
        if let Some(dark) = interfaces.iter().find(|name| self.dark.contains(name)) {
            return Some(format!("{dark} has no carrier"));
        }
        self.posts[set].failed.as_ref().map(|(_, why)| why.clone())
    }

    fn duty(&self, set: usize) -> Duty {
        Duty::of(&self.agreed.slots[set], self.me)
    }

    /// Whether this router says what all would say.
    fn speaks(&self) -> bool {
        self.agreed.speaker() == Some(self.settings.node)
    }

    fn adopt_maturity(&mut self) {
        self.facts.mature |= self.agreed.here.get(&self.settings.node).is_some_and(|facts| facts.mature);
    }

    /// Brings every set to what was agreed.
    fn follow(&mut self, now: Instant) {
        for set in 0..self.posts.len() {
            let duty = self.duty(set);
            let silent = self.facts.lapsed && !broken(Rule::Proof);
            let mut command = self.posts[set].follow(now, set, (duty, silent), self.settings.linger);
            if let Some(HostCommand::Acquire { from, .. }) = &mut command {
                *from = self.agreed.slots[set].from.map(|seat| self.rules.members[seat.index()]);
            }
            self.actions.extend(command.map(Action::Host));
        }
    }

    /// Does all that is due.
    fn advance(&mut self, now: Instant) {
        if !self.facts.mature && self.view.is_some() && self.mature_at <= now {
            self.facts.mature = true;
            self.note(Entry::Mature);
        }
        for set in 0..self.posts.len() {
            let (command, late) = self.posts[set].tick(now, set);
            self.actions.extend(command.map(Action::Host));
            if late {
                self.fail(now, set, "the host side did not answer".to_owned());
            }
            if self.posts[set].failed.as_ref().is_some_and(|(until, _)| *until <= now) {
                self.posts[set].failed = None;
            }
        }
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume(now);
        }
        self.facts.able = (0..self.posts.len()).map(|set| self.unable(set).is_none()).collect();
        self.follow(now);
        self.speak(now);
        self.rebalance(now);
        self.finish_commands(now);
        self.finish_leaving(now);
        self.next = self.find_next();
    }

    /// Says what the others do not know.
    fn speak(&mut self, now: Instant) {
        let last = self.told.as_ref().filter(|told| told.0 == self.facts).map(|told| told.1);
        if self.facts_due() && may_say(last, now) {
            self.stats.retold += u64::from(last.is_some());
            self.told = Some((self.facts.clone(), now));
            self.say(&Message::Facts(self.facts.clone()));
        }
        for set in 0..self.posts.len() {
            let turn = self.agreed.slots[set].turn;
            let last = self.posts[set].told.filter(|told| told.0 == turn).map(|told| told.1);
            if self.acquired_due(set) && may_say(last, now) {
                self.stats.retold += u64::from(last.is_some());
                self.posts[set].told = Some((turn, now));
                self.say(&Message::Acquired { set: set as u16, turn });
            }
        }
    }

    /// The view knows something else of this router than is so, or this router must prove that it is in it.
    fn facts_due(&self) -> bool {
        let known = self.agreed.here.get(&self.settings.node);
        self.view.is_some()
            && known.is_some_and(|known| self.facts.lapsed || Facts { holding: false, ..known.clone() } != self.facts)
    }

    /// This router has a set, and the view does not know.
    fn acquired_due(&self, set: usize) -> bool {
        let slot = &self.agreed.slots[set];
        self.posts[set].stage == Stage::Owning && slot.owner == self.me && !slot.acquired
    }

    fn say(&mut self, message: &Message) {
        self.actions.push_back(Action::Multicast(message.emit()));
    }

    /// The first member says when it is time; what moves then, all find alike.
    fn rebalance(&mut self, now: Instant) {
        let Some(every) = self.settings.balance.filter(|_| self.balance_at.is_some_and(|at| at <= now)) else { return };
        self.balance_at = Some(now + every);
        if !self.agreed.plan(&self.rules, 1).is_empty() {
            self.say(&Message::Order { id: 0, order: Order::Balance(self.settings.moves) });
        }
    }

    fn finish_leaving(&mut self, now: Instant) {
        let Some(by) = self.leave_by.filter(|_| !self.left) else { return };
        let known = self.agreed.here.get(&self.settings.node).is_none_or(|facts| facts.leaving);
        let empty = self.posts.iter().all(|post| post.stage == Stage::Idle);
        if by <= now && !(known && empty) {
            self.posts.iter_mut().for_each(|post| post.stage = Stage::Idle);
            self.actions.push_back(Action::Host(HostCommand::ReleaseAll));
        }
        if by <= now || (known && empty) {
            self.left = true;
            self.actions.push_back(Action::Left);
        }
    }

    fn find_next(&self) -> Option<(Instant, Reason)> {
        let mature = (!self.facts.mature && self.view.is_some()).then_some((self.mature_at, Reason::Mature));
        let balance = self.balance_at.map(|at| (at, Reason::Balance));
        let leave = self.leave_by.filter(|_| !self.left).map(|at| (at, Reason::Leave));
        let facts = self.told.as_ref().filter(|_| self.facts_due()).map(|told| (told.1 + RETELL, Reason::Retell));
        let command = self.commands.next().map(|at| (at, Reason::Command));
        let resume = self.resume_at.map(|at| (at, Reason::Deserted));
        let posts = self.posts.iter().enumerate().flat_map(|(set, post)| {
            let stage = match post.stage {
                Stage::Waiting { until } => Some((until, Reason::Lease)),
                Stage::Acquiring { deadline } => Some((deadline, Reason::Host)),
                Stage::Muted { release_at } => release_at.map(|at| (at, Reason::Linger)),
                _ => None,
            };
            let retry = post.failed.as_ref().map(|(until, _)| (*until, Reason::Retry));
            let told = post.told.filter(|_| self.acquired_due(set)).map(|told| (told.1 + RETELL, Reason::Retell));
            [stage, retry, told]
        });
        let all = [mature, balance, leave, facts, command, resume].into_iter().chain(posts);
        all.flatten().min_by_key(|&(at, _)| at)
    }

    fn name(&self, set: usize) -> String {
        self.rules.sets[set].name.clone()
    }

    /// A rule broken on purpose: who holds a set after a merge believes that it won.
    fn prefer_myself(&mut self) {
        for (slot, post) in self.agreed.slots.iter_mut().zip(&self.posts) {
            if post.stage == Stage::Owning {
                (slot.owner, slot.acquired, slot.from) = (self.me, true, None);
            }
        }
    }
}

/// Whether something may be said that was said at `last`.
fn may_say(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| last + RETELL <= now)
}

/// What all members with the same configuration have in common.
fn rules(settings: &Settings) -> Rules {
    let members: Vec<NodeId> = settings.members.iter().map(|(node, _)| *node).collect();
    let seat = |node: &NodeId| members.binary_search(node).ok().map(|place| Seat(place as u8));
    let set = |set: &SetSpec| SetRule {
        name: set.name.clone(),
        majority: set.coverage == Coverage::Majority,
        preferences: set.preferences.iter().filter_map(seat).collect(),
    };
    let sets = settings.sets.iter().map(set).collect();
    let names = settings.members.iter().map(|(_, name)| name.clone()).collect();
    Rules { digest: settings.digest(), sets, names, members }
}
