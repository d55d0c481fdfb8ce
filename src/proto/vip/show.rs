//! What operators are shown, and what goes into the journal.

use super::Vip;
use super::agreed::Agreed;
use super::door::{Action, Cause, Entry, MemberView, SetView};
use crate::base::NodeId;
use crate::wire::vip::{Seat, Slot};

impl Vip {
    /// All sets, in the order of the configuration.
    pub fn sets(&self) -> impl Iterator<Item = SetView> + '_ {
        self.agreed.slots.iter().zip(&self.posts).enumerate().map(|(set, (slot, post))| SetView {
            name: self.name(set),
            owner: self.node(slot.owner),
            acquired: slot.acquired,
            from: self.node(slot.from),
            here: post.stage,
            pin: self.node(slot.pin),
            paused: slot.paused,
            unable: self.unable(set),
        })
    }

    /// All configured members, ascending by id.
    pub fn members(&self) -> impl Iterator<Item = MemberView> + '_ {
        self.rules.members.iter().enumerate().map(|(place, &node)| {
            let facts = self.agreed.here.get(&node);
            let is = |what: bool| facts.is_some() && what;
            MemberView {
                node,
                name: self.rules.names[place].clone(),
                here: facts.is_some(),
                equal: facts.is_some_and(|facts| facts.digest == self.agreed.ruling),
                mature: is(facts.is_some_and(|facts| facts.mature)),
                drained: self.agreed.wills[place].drained,
                leaving: facts.is_some_and(|facts| facts.leaving),
                able: facts.map_or(0, |facts| facts.able.iter().filter(|able| **able).count()),
                owns: self.agreed.slots.iter().filter(|slot| slot.owner == Some(Seat(place as u8))).count(),
                weight: facts.map_or(0, |facts| facts.weight),
            }
        })
    }

    /// The sets that a member holds as all have agreed, or hands over, by their places.
    pub fn held_by(&self, node: NodeId) -> impl Iterator<Item = usize> + '_ {
        let seat = self.rules.seat(node);
        let holds = move |slot: &Slot| seat.is_some() && (slot.owner == seat || slot.from == seat);
        self.agreed.slots.iter().enumerate().filter(move |(_, slot)| holds(slot)).map(|(set, _)| set)
    }

    /// What this router's configuration is known by; members with another one share no sets with it.
    pub const fn digest(&self) -> u64 {
        self.rules.digest
    }

    /// Whether another configuration rules the view, so that this router holds nothing.
    pub const fn is_overruled(&self) -> bool {
        self.agreed.ruling != self.rules.digest
    }

    pub(super) fn note(&mut self, entry: Entry) {
        self.actions.push_back(Action::Note(entry));
    }

    /// Notes each set that has another owner than `before`.
    pub(super) fn note_assigned(&mut self, before: &[Slot], cause: Cause) {
        for (set, before) in before.iter().enumerate() {
            let slot = self.agreed.slots[set];
            if before.owner != slot.owner {
                let (owner, from) = (self.node(slot.owner), self.node(slot.from));
                self.note(Entry::Assigned { set: self.name(set), owner, from, cause });
            }
        }
    }

    /// Notes, loudly, who has another configuration.
    pub(super) fn note_unequal(&mut self, agreed: &Agreed) {
        let ruling = agreed.ruling;
        let others: Vec<NodeId> =
            agreed.here.iter().filter(|(_, facts)| facts.digest != ruling).map(|(node, _)| *node).collect();
        if !others.is_empty() {
            self.note(Entry::Unequal { ruling, others, this: ruling != self.rules.digest });
        }
    }

    fn node(&self, seat: Option<Seat>) -> Option<NodeId> {
        seat.map(|seat| self.rules.members[seat.index()])
    }
}
