//! What all members of a view know alike: their facts, what operators want, and who is to hold each set.
//!
//! It changes by two things only, which all members of a view see alike: the view's beginning, with the states of all who
//! are in it ([`Agreed::merge`]), and the messages agreed in it ([`Agreed::apply`]). After each the sets are allocated
//! anew, from what each member holds *as agreed*: what it holds in truth it says by a message, and that it has said
//! nothing yet is the same to all.
//!
//! # A set passes from one member to another
//! ```text
//!   owner a, acquired ── given to b ──▶ owner b, from a ── b: "acquired" ──▶ owner b, acquired
//!                                         │        │
//!                        b may no more,   │        │ a is gone
//!                        a may still      ▼        ▼
//!                                    owner a      owner b
//! ```
//! `turn` counts the owners, so that an "acquired" of an earlier turn means nothing, and so does every view: what was
//! said in one and delivered in the next is said again.
//!
//! # When views merge
//! Each member claims what *its own* last view gave it. Pins, pauses and drains of which several views know are those
//! with the latest stamp; stamps are Lamport's, and of two that are equal the greater content counts, so that all find
//! the same one.
//!
//! # Unequal configurations
//! Sets and members are named by their places in the configuration, so members with different ones cannot share sets.
//! One digest rules a view: that of most of its members; of equally many, that of which most members hold something;
//! then that of the member with the lowest id. **The others hold nothing**, release what they have at once, and say so.
//! So while a change is rolled out the set of addresses is always held by one side as a whole, it changes sides once,
//! and a router started with a mistyped file takes nothing from those that serve.

use super::allocation::{Claim, Strength, Wish, allocate, balance};
use crate::base::sabotage::{Rule, broken};
use crate::base::{NodeId, View};
use crate::wire::vip::{Facts, Message, Order, Seat, Seats, Slot, State, Will};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is configured, the same on all members of one digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) digest: u64,
    /// Configured members, ascending.
    pub(super) members: Vec<NodeId>,
    /// What people call them.
    pub(super) names: Vec<String>,
    pub(super) sets: Vec<SetRule>,
}

/// What is configured of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetRule {
    pub(super) name: String,
    pub(super) majority: bool,
    /// Most preferred first.
    pub(super) preferences: Vec<Seat>,
}

impl Rules {
    pub(super) fn seat(&self, node: NodeId) -> Option<Seat> {
        self.members.binary_search(&node).ok().map(|place| Seat(place as u8))
    }

    fn name(&self, seat: Seat) -> &str {
        self.names.get(seat.index()).map_or("?", String::as_str)
    }

    fn fits(&self, state: &State) -> bool {
        state.facts.digest == self.digest
            && state.slots.len() == self.sets.len()
            && state.wills.len() == self.members.len()
    }
}

/// What a message changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// What it says counts now.
    Done,
    /// It says nothing new, or something of an earlier turn.
    Stale,
    /// An order that cannot be followed, and why.
    Refused(String),
    /// It names what does not exist, or its sender is not in the view.
    Misplaced,
}

/// What a view's beginning says beside what is agreed from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beginning {
    /// For each set, members that are not in the view and may answer for it still.
    pub(super) dead: Vec<Seats>,
    /// For each set, how long somebody says that a lease runs on.
    pub(super) left: Vec<Duration>,
    /// States that could not be read.
    pub(super) malformed: u64,
}

/// What all members of a view know alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Agreed {
    /// The members of the view whose states could be read.
    pub(super) here: BTreeMap<NodeId, Facts>,
    /// The digest that rules.
    pub(super) ruling: u64,
    pub(super) clock: u64,
    /// By seat.
    pub(super) wills: Vec<Will>,
    /// By set.
    pub(super) slots: Vec<Slot>,
}

impl Agreed {
    /// Before the first view: nothing, held by nobody.
    pub(super) fn new(rules: &Rules) -> Agreed {
        Agreed {
            ruling: rules.digest,
            wills: vec![Will::default(); rules.members.len()],
            slots: vec![Slot::default(); rules.sets.len()],
            ..Agreed::default()
        }
    }

    /// What is agreed when `view` begins and its members bring `states`.
    pub(super) fn merge(rules: &Rules, view: &View, states: &[(NodeId, Vec<u8>)]) -> (Agreed, Beginning) {
        let read: Vec<(NodeId, State)> = states
            .iter()
            .filter(|(node, _)| view.members.contains(node))
            .filter_map(|(node, bytes)| Some((*node, State::parse(bytes).ok()?)))
            .collect();
        let mut agreed = Agreed::new(rules);
        agreed.ruling = ruling(&read).unwrap_or(rules.digest);
        agreed.here = read.iter().map(|(node, state)| (*node, state.facts.clone())).collect();
        let mut beginning = Beginning {
            dead: vec![Seats::default(); rules.sets.len()],
            left: vec![Duration::ZERO; rules.sets.len()],
            malformed: (states.len() - read.len()) as u64,
        };
        if agreed.ruling != rules.digest {
            return (agreed, beginning);
        }
        let told: Vec<(Seat, &State)> = read
            .iter()
            .filter(|(_, state)| rules.fits(state))
            .filter_map(|(node, state)| Some((rules.seat(*node)?, state)))
            .collect();
        agreed.learn_wills(&told);
        agreed.mature(rules);
        for set in 0..rules.sets.len() {
            for (_, state) in &told {
                let slot = &state.slots[set];
                let gone = slot.maybe.iter().filter(|seat| !view.members.contains(&rules.members[seat.index()]));
                beginning.dead[set] = gone.fold(beginning.dead[set], Seats::with);
                let left = Duration::from_micros(u64::from(state.left[set]));
                beginning.left[set] = beginning.left[set].max(left);
            }
            agreed.slots[set].turn =
                told.iter().map(|(_, state)| state.slots[set].turn).max().unwrap_or(0).saturating_add(1);
        }
        let claims: Vec<Vec<Claim>> = (0..rules.sets.len())
            .map(|set| told.iter().filter_map(|(seat, state)| agreed.claim(rules, &state.slots[set], *seat)).collect())
            .collect();
        for (slot, claims) in agreed.slots.iter_mut().zip(&claims) {
            slot.maybe = claims.iter().map(|claim| claim.seat).collect();
        }
        agreed.allot(rules, claims);
        // Who lost against one that answers releases with the view's beginning.
        for slot in agreed.slots.iter_mut().filter(|slot| slot.acquired) {
            slot.maybe = slot.owner.into_iter().collect();
        }
        (agreed, beginning)
    }

    fn learn_wills(&mut self, told: &[(Seat, &State)]) {
        self.clock = told.iter().map(|(_, state)| state.clock).max().unwrap_or(0);
        for (seat, will) in self.wills.iter_mut().enumerate() {
            *will = told.iter().map(|(_, state)| state.wills[seat]).max().unwrap_or_default();
        }
        for (set, slot) in self.slots.iter_mut().enumerate() {
            let wills = told.iter().map(|(_, state)| &state.slots[set]).map(|slot| (slot.stamp, slot.pin, slot.paused));
            (slot.stamp, slot.pin, slot.paused) = wills.max().unwrap_or_default();
        }
    }

    /// One that is mature makes all so, and so does that everybody is here: there is nobody to wait for.
    fn mature(&mut self, rules: &Rules) {
        let ruled = || self.here.iter().filter(|(_, facts)| facts.digest == self.ruling);
        let all = rules.members.iter().all(|member| ruled().any(|(node, _)| node == member));
        if all || ruled().any(|(_, facts)| facts.mature) {
            let ruling = self.ruling;
            self.here.values_mut().filter(|facts| facts.digest == ruling).for_each(|facts| facts.mature = true);
        }
    }

    /// How `seat` holds the set of which its view agreed on `slot`.
    fn claim(&self, rules: &Rules, slot: &Slot, seat: Seat) -> Option<Claim> {
        let lapsed = self.here.get(&rules.members[seat.index()]).is_some_and(|facts| facts.lapsed);
        let strength = match (slot.owner == Some(seat), slot.from == Some(seat)) {
            (true, _) if slot.acquired && lapsed => Strength::Silent,
            (true, _) if slot.acquired => Strength::Owning,
            (true, _) => Strength::Acquiring,
            (_, true) if !broken(Rule::GiveBack) => Strength::Silent,
            _ => return None,
        };
        Some(Claim { seat, strength })
    }

    /// Takes in a message of `from`, all of whose members do so at the same place in the order.
    pub(super) fn apply(&mut self, rules: &Rules, from: NodeId, message: &Message) -> Applied {
        if !self.here.contains_key(&from) {
            return Applied::Misplaced;
        }
        let applied = match message {
            Message::Facts(facts) => self.apply_facts(rules, from, facts),
            // Those of another configuration mean other sets and members.
            _ if self.ruling != rules.digest || self.here[&from].digest != rules.digest => Applied::Misplaced,
            Message::Acquired { set, turn } => self.apply_acquired(rules, from, usize::from(*set), *turn),
            Message::Order { order, .. } => match self.apply_order(rules, *order) {
                Ok(()) => Applied::Done,
                Err(why) => Applied::Refused(why),
            },
        };
        if applied == Applied::Done {
            self.reallot(rules);
        }
        applied
    }

    fn apply_facts(&mut self, rules: &Rules, from: NodeId, facts: &Facts) -> Applied {
        let before = &self.here[&from];
        if before.digest != facts.digest || before.able.len() != facts.able.len() {
            // A configuration changes only with a restart, and a restart with a view.
            return Applied::Misplaced;
        }
        self.here.insert(from, facts.clone());
        self.mature(rules);
        Applied::Done
    }

    fn apply_acquired(&mut self, rules: &Rules, from: NodeId, set: usize, turn: u32) -> Applied {
        let Some((slot, seat)) = self.slots.get_mut(set).zip(rules.seat(from)) else { return Applied::Misplaced };
        let this_turn = slot.turn == turn || broken(Rule::Turns);
        if slot.owner != Some(seat) || !this_turn || slot.acquired {
            return Applied::Stale;
        }
        // All who had it before have heard in between that they have it no more.
        (slot.acquired, slot.from, slot.maybe) = (true, None, Seats::default().with(seat));
        Applied::Done
    }

    fn apply_order(&mut self, rules: &Rules, order: Order) -> Result<(), String> {
        self.clock = self.clock.saturating_add(1);
        let stamp = self.clock;
        let in_range = |set: u16| {
            if usize::from(set) < rules.sets.len() { Ok(usize::from(set)) } else { Err("there is no such set") }
        };
        let known =
            |seat: Seat| if seat.index() < rules.members.len() { Ok(seat) } else { Err("there is no such member") };
        match order {
            Order::Move { set, to } => self.order_move(rules, in_range(set)?, to.map(known).transpose()?)?,
            Order::Drain(seat) => {
                self.check_drain(rules, known(seat)?)?;
                self.wills[seat.index()] = Will { stamp, drained: true };
            }
            Order::Undrain(seat) => self.wills[known(seat)?.index()] = Will { stamp, drained: false },
            Order::Pin { set, to } => {
                self.will(in_range(set)?, stamp, |slot| slot.pin = Some(to), known(to).map(drop))?
            }
            Order::Unpin(set) => self.will(in_range(set)?, stamp, |slot| slot.pin = None, Ok(()))?,
            Order::Pause(set) => self.will(in_range(set)?, stamp, |slot| slot.paused = true, Ok(()))?,
            Order::Resume(set) => self.will(in_range(set)?, stamp, |slot| slot.paused = false, Ok(()))?,
            Order::Balance(moves) => {
                for (set, to) in self.plan(rules, usize::from(moves)) {
                    self.give(set, to);
                }
            }
        }
        Ok(())
    }

    fn will(
        &mut self,
        set: usize,
        stamp: u64,
        change: impl FnOnce(&mut Slot),
        may: Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        may?;
        change(&mut self.slots[set]);
        self.slots[set].stamp = stamp;
        Ok(())
    }

    fn order_move(&mut self, rules: &Rules, set: usize, to: Option<Seat>) -> Result<(), String> {
        let slot = self.slots[set];
        let name = &rules.sets[set].name;
        let wishes = self.wishes(rules, self.claims(rules));
        let to = match to {
            Some(to) => to,
            None => self.elsewhere(rules, set).ok_or_else(|| format!("no other member can hold `{name}`"))?,
        };
        if slot.owner == Some(to) {
            return Ok(());
        }
        if slot.paused && slot.owner.is_some() {
            return Err(format!("`{name}` is paused: resume it first"));
        }
        if let Some(pin) = slot.pin.filter(|&pin| pin != to && wishes[set].may.has(pin)) {
            return Err(format!("`{name}` is pinned to {}: unpin it first", rules.name(pin)));
        }
        if !wishes[set].may.has(to) {
            return Err(format!("{} cannot hold `{name}`: {}", rules.name(to), self.why_not(rules, set, to)));
        }
        self.give(set, to);
        Ok(())
    }

    /// The member that would have the set if its owner may not.
    fn elsewhere(&self, rules: &Rules, set: usize) -> Option<Seat> {
        let mut wishes = self.wishes(rules, self.claims(rules));
        let owner = self.slots[set].owner;
        wishes[set].may = owner.map_or(wishes[set].may, |owner| wishes[set].may.without(owner));
        (wishes[set].pin, wishes[set].paused) = (None, false);
        wishes[set].claims.clear();
        allocate(&self.weights(rules), &wishes)[set]
    }

    /// Draining the last member that can hold something would take it off the network: that must be said otherwise.
    fn check_drain(&self, rules: &Rules, seat: Seat) -> Result<(), String> {
        let wishes = self.wishes(rules, self.claims(rules));
        let last = |set: &usize| self.slots[*set].owner == Some(seat) && wishes[*set].may.without(seat).is_empty();
        let names: Vec<&str> =
            (0..rules.sets.len()).filter(last).map(|set| rules.sets[set].name.as_str()).take(5).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(format!("nobody else can hold {}: {} is not drained", names.join(", "), rules.name(seat)))
    }

    /// Why a member may not hold a set.
    fn why_not(&self, rules: &Rules, set: usize, seat: Seat) -> &'static str {
        let Some(facts) = self.here.get(&rules.members[seat.index()]) else { return "it is not here" };
        let cannot = !facts.able.get(set).copied().unwrap_or(false);
        let reasons = [
            (facts.digest != self.ruling, "its configuration differs"),
            (facts.leaving, "it is leaving"),
            (self.wills[seat.index()].drained, "it is drained"),
            (cannot, "its checks, interfaces or host do not permit it"),
            (!facts.mature, "it waits for the others"),
            (rules.sets[set].majority && !self.is_majority(rules), "the set wants a majority, and the view has none"),
        ];
        reasons.into_iter().find(|(applies, _)| *applies).map_or("it may", |(_, why)| why)
    }

    /// Moves that balance would make now, at most `limit`.
    pub(super) fn plan(&self, rules: &Rules, limit: usize) -> Vec<(usize, Seat)> {
        let wishes = self.wishes(rules, self.claims(rules));
        let owners: Vec<Option<Seat>> = self.slots.iter().map(|slot| slot.owner).collect();
        let settled = |set: usize| self.slots[set].acquired;
        balance(&self.weights(rules), &wishes, &owners, settled, limit)
    }

    /// How `seat` is to take over: the set is its, and who answers now does so until it does.
    fn give(&mut self, set: usize, seat: Seat) {
        let slot = &mut self.slots[set];
        let holder = if slot.acquired { slot.owner } else { slot.from };
        if slot.owner != Some(seat) {
            slot.turn = slot.turn.saturating_add(1);
            (slot.owner, slot.acquired) = (Some(seat), false);
            slot.maybe = given(slot, seat);
            slot.from = holder.filter(|&holder| holder != seat);
        }
    }

    /// Who holds what, as agreed in this view.
    fn claims(&self, rules: &Rules) -> Vec<Vec<Claim>> {
        let of = |slot: &Slot| {
            let holders = [slot.owner, slot.from].into_iter().flatten();
            holders.filter_map(|seat| self.claim(rules, slot, seat)).collect()
        };
        self.slots.iter().map(of).collect()
    }

    fn reallot(&mut self, rules: &Rules) {
        if self.ruling == rules.digest {
            let claims = self.claims(rules);
            self.allot(rules, claims);
        }
    }

    /// Gives every set to whom it belongs, if these hold them.
    fn allot(&mut self, rules: &Rules, claims: Vec<Vec<Claim>>) {
        let wishes = self.wishes(rules, claims);
        let owners = allocate(&self.weights(rules), &wishes);
        let new: Vec<Slot> = self
            .slots
            .iter()
            .zip(owners)
            .zip(&wishes)
            .map(|((slot, owner), wish)| settle(*slot, owner, &wish.claims))
            .collect();
        self.slots = new;
    }

    fn wishes<'a>(&self, rules: &'a Rules, claims: Vec<Vec<Claim>>) -> Vec<Wish<'a>> {
        let majority = self.is_majority(rules);
        let ours = self.ruling == rules.digest || broken(Rule::Digest);
        let wish = |(set, claims): (usize, Vec<Claim>)| {
            let rule = &rules.sets[set];
            let covered = ours && (majority || !rule.majority || broken(Rule::Majority));
            let seats = || (0..rules.members.len() as u8).map(Seat).filter(move |_| covered);
            let slot = &self.slots[set];
            Wish {
                may: seats().filter(|&seat| self.may(rules, set, seat)).collect(),
                may_stay: seats().filter(|&seat| self.may_stay(rules, seat)).collect(),
                claims,
                pin: slot.pin,
                paused: slot.paused,
                preferences: &rule.preferences,
            }
        };
        claims.into_iter().enumerate().map(wish).collect()
    }

    fn may(&self, rules: &Rules, set: usize, seat: Seat) -> bool {
        let able = |facts: &Facts| facts.mature && facts.able.get(set).copied().unwrap_or(false);
        let drained = self.wills[seat.index()].drained && !broken(Rule::Drained);
        self.may_stay(rules, seat) && !drained && self.here.get(&rules.members[seat.index()]).is_some_and(able)
    }

    fn may_stay(&self, rules: &Rules, seat: Seat) -> bool {
        let here = self.here.get(&rules.members[seat.index()]);
        here.is_some_and(|facts| (facts.digest == self.ruling || broken(Rule::Digest)) && !facts.leaving)
    }

    /// More than half of the configured members are here.
    pub(super) fn is_majority(&self, rules: &Rules) -> bool {
        let here =
            rules.members.iter().filter(|member| self.here.get(member).is_some_and(|it| it.digest == self.ruling));
        2 * here.count() > rules.members.len()
    }

    fn weights(&self, rules: &Rules) -> Vec<u16> {
        rules.members.iter().map(|member| self.here.get(member).map_or(1, |facts| facts.weight)).collect()
    }

    /// The member that speaks where all would say the same: the first one of the ruling configuration.
    pub(super) fn speaker(&self) -> Option<NodeId> {
        self.here.iter().find(|(_, facts)| facts.digest == self.ruling).map(|(node, _)| *node)
    }
}

/// The slot when the set is `owner`'s and `claims` hold it.
fn settle(mut slot: Slot, owner: Option<Seat>, claims: &[Claim]) -> Slot {
    let strength = claims.iter().find(|claim| Some(claim.seat) == owner).map(|claim| claim.strength);
    let acquired = strength == Some(Strength::Owning);
    // Who answers now, or did last, keeps the set until its new owner has it.
    let holders = claims.iter().filter(|claim| claim.strength != Strength::Acquiring && Some(claim.seat) != owner);
    let holder = holders.max_by_key(|claim| (claim.strength, std::cmp::Reverse(claim.seat))).map(|claim| claim.seat);
    let from = holder.filter(|_| owner.is_some() && !acquired && !broken(Rule::MakeBeforeBreak));
    if slot.owner != owner || (slot.acquired && !acquired) {
        slot.turn = slot.turn.saturating_add(1);
    }
    (slot.owner, slot.acquired, slot.from) = (owner, acquired, from);
    slot.maybe = owner.map_or(slot.maybe, |owner| given(&slot, owner));
    slot
}

/// Who may answer when `seat` is given the set: it, and all who may already. A member that was given a set, and lost it
/// before it said that it has it, may have it.
fn given(slot: &Slot, seat: Seat) -> Seats {
    if broken(Rule::Replaced) {
        return [slot.from, Some(seat)].into_iter().flatten().collect();
    }
    slot.maybe.with(seat)
}

/// The digest that rules the members with these states.
fn ruling(states: &[(NodeId, State)]) -> Option<u64> {
    let mut sides: BTreeMap<u64, (usize, usize, std::cmp::Reverse<NodeId>)> = BTreeMap::new();
    for (node, state) in states {
        let side = sides.entry(state.facts.digest).or_insert((0, 0, std::cmp::Reverse(*node)));
        side.0 += 1;
        side.1 += usize::from(state.facts.holding);
        side.2 = side.2.max(std::cmp::Reverse(*node));
    }
    sides.into_iter().max_by_key(|(_, rank)| *rank).map(|(digest, _)| digest)
}
