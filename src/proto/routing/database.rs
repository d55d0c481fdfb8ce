//! The link-state database: the newest advertisement of every member.
//!
//! # Bounds
//! A check of a signature costs as much as a thousand forwarded packets, and what passes it is flooded, so both are
//! rationed before the check: an origin pays for what it signs ([`SIGNED`]), the neighbour for what turns out worthless
//! ([`TRIALS`]) — never the origin, else forgeries would silence it. What is refused is not kept; its origin is asked
//! for again when there is budget.

use super::budget::{Budget, Rate};
use crate::base::hash::mix64;
use crate::base::identity::PublicIdentity;
use crate::base::sabotage::{Rule, broken};
use crate::base::search::place_of;
use crate::base::{Instant, NodeId};
use crate::wire::routing::{AdvertisedLink, Advertisement, Message, SIGNING_CONTEXT, Sequence};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

/// An advertisement that was not refreshed for this long is not used any more. Three times the refresh interval: two
/// refreshes may be lost.
pub(super) const EXPIRY: Duration = Duration::from_secs(30 * 60);

/// Authentic advertisements of one origin. More than an honest one ever tells (`own.rs`: 32, and four a second).
pub(super) const SIGNED: Rate = Rate { burst: 64, period: Duration::from_millis(200) };
/// Worthless signatures over one link. An honest neighbour checks before it floods, so it sends next to none.
pub(super) const TRIALS: Rate = Rate { burst: 16, period: Duration::from_secs(1) };

/// What became of an advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is newer and was stored; whether it says anything else than the one before.
    Newer { changed: bool },
    /// It was here already.
    Duplicate,
    /// A newer one is here.
    Older,
    /// Another one with the same sequence is here: its origin, or somebody with its key, says two things at once. The
    /// first one stays.
    Equivocation,
    /// The signature is wrong.
    Forged,
    /// It was not looked at: too many came. At this moment another one will be.
    Refused(Instant),
}

#[derive(Debug)]
struct Record {
    sequence: Sequence,
    bytes: Box<[u8]>,
    received: Instant,
    /// Not refreshed in time. The record stays as a tombstone: a neighbour that heard it later, and so still holds it,
    /// must not bring it back to life.
    expired: bool,
}

impl Record {
    fn new(now: Instant, advertisement: &Advertisement<'_>) -> Record {
        Record { sequence: advertisement.sequence, bytes: advertisement.bytes().into(), received: now, expired: false }
    }

    fn advertisement(&self) -> Advertisement<'_> {
        let Ok(Message::Advertisement(advertisement)) = Message::parse(&self.bytes) else {
            panic!("only advertisements that could be read are kept");
        };
        advertisement
    }
}

/// What is known of a member.
#[derive(Debug)]
struct Member {
    identity: PublicIdentity,
    record: Option<Record>,
    /// What it may still have signed.
    signed: Budget,
}

impl Member {
    fn live(&self) -> Option<&Record> {
        self.record.as_ref().filter(|record| !record.expired)
    }
}

/// The newest advertisement of every member. Bounded by the number of members.
#[derive(Debug)]
pub(super) struct Database {
    /// Members' ids, ascending. A member's number is its place here.
    ids: Vec<NodeId>,
    /// By number.
    members: Vec<Member>,
    /// XOR over all live records, so that it does not depend on the order in which they came.
    fingerprint: u64,
    /// No record expires before this.
    next_expiry: Instant,
}

fn digest_of(origin: NodeId, sequence: Sequence) -> u64 {
    mix64(mix64(mix64(origin.0) ^ sequence.epoch).wrapping_add(sequence.counter))
}

/// Whether `origin` signed the advertisement.
fn authentic(origin: &PublicIdentity, advertisement: &Advertisement<'_>) -> bool {
    let (bytes, signature) = advertisement.signed();
    origin.verify(&[SIGNING_CONTEXT, bytes].concat(), signature)
}

impl Database {
    pub(super) fn new(members: impl IntoIterator<Item = PublicIdentity>) -> Database {
        let mut database = Database { ids: Vec::new(), members: Vec::new(), fingerprint: 0, next_expiry: Instant::MAX };
        database.set_members(members);
        database
    }

    /// Replaces the members; what those who left advertised is forgotten. Gives the ids by the numbers that are no more.
    pub(super) fn set_members(&mut self, members: impl IntoIterator<Item = PublicIdentity>) -> Vec<NodeId> {
        let members: BTreeMap<_, _> = members.into_iter().map(|member| (member.node_id(), member)).collect();
        let before = std::mem::replace(&mut self.ids, members.keys().copied().collect());
        let none = |identity| Member { identity, record: None, signed: Budget::default() };
        let fresh = members.into_values().map(none).collect();
        let left = std::mem::replace(&mut self.members, fresh);
        for (&id, member) in before.iter().zip(left) {
            if let Some(number) = self.number(id) {
                self.members[number] = Member { identity: self.members[number].identity, ..member };
            } else if let Some(record) = member.live() {
                self.fingerprint ^= digest_of(id, record.sequence);
            }
        }
        before
    }

    /// A member's number.
    pub(super) fn number(&self, node: NodeId) -> Option<usize> {
        place_of(&self.ids, node, |&id| id)
    }

    /// The member with this number.
    pub(super) fn id(&self, number: usize) -> NodeId {
        self.ids[number]
    }

    /// Takes in what was received of member `origin` over a link with these `trials` left. Signatures are verified last,
    /// only where the answer matters, and only as often as the budgets allow.
    pub(super) fn take(
        &mut self,
        now: Instant,
        origin: usize,
        advertisement: &Advertisement<'_>,
        trials: &mut Budget,
    ) -> Taken {
        assert_eq!(self.ids[origin], advertisement.origin, "the caller looked it up");
        let held = self.members[origin].record.as_ref();
        if let Some(held) = held {
            let newer = advertisement.sequence.counter >= held.sequence.counter;
            let older = if broken(Rule::BootEpoch) { !newer } else { advertisement.sequence < held.sequence };
            if older && !broken(Rule::NewestWins) {
                return Taken::Older;
            }
            if advertisement.bytes() == &*held.bytes {
                return Taken::Duplicate;
            }
        }
        let twice = held.is_some_and(|held| advertisement.sequence == held.sequence);
        match self.verify(now, origin, advertisement, twice, trials) {
            Err(at) => Taken::Refused(at),
            Ok(false) => Taken::Forged,
            Ok(true) if twice => Taken::Equivocation,
            Ok(true) => Taken::Newer { changed: self.store(now, origin, advertisement) },
        }
    }

    /// Whether `origin` signed the advertisement; an error if that cannot be afforded before this moment. An authentic
    /// one is paid by its origin unless it is `worthless` all the same: a neighbour can repeat such a one for ever.
    pub(super) fn verify(
        &mut self,
        now: Instant,
        origin: usize,
        advertisement: &Advertisement<'_>,
        worthless: bool,
        trials: &mut Budget,
    ) -> Result<bool, Instant> {
        let Member { identity, signed, .. } = &mut self.members[origin];
        let at = signed.ready_at(SIGNED, 0).max(trials.ready_at(TRIALS, 0));
        if at > now {
            return Err(at);
        }
        let authentic = authentic(identity, advertisement);
        if authentic && !worthless {
            signed.spend(now, SIGNED)
        } else {
            trials.spend(now, TRIALS)
        }
        Ok(authentic)
    }

    /// Stores an advertisement that is known to be newer and authentic; true if it says anything new.
    pub(super) fn store(&mut self, now: Instant, origin: usize, advertisement: &Advertisement<'_>) -> bool {
        let (id, sequence) = (advertisement.origin, advertisement.sequence);
        self.fingerprint ^= digest_of(id, sequence);
        self.next_expiry = self.next_expiry.min(now + EXPIRY);
        match &mut self.members[origin].record {
            Some(record) => {
                let unchanged = !record.expired && record.advertisement().says_what(advertisement);
                if !record.expired {
                    self.fingerprint ^= digest_of(id, record.sequence);
                }
                (record.sequence, record.received, record.expired) = (sequence, now, false);
                if record.bytes.len() == advertisement.bytes().len() {
                    record.bytes.copy_from_slice(advertisement.bytes());
                } else {
                    record.bytes = advertisement.bytes().into();
                }
                !unchanged
            }
            none => {
                *none = Some(Record::new(now, advertisement));
                true
            }
        }
    }

    /// Expires what is due, except `own`, and tells the number of whose that was.
    pub(super) fn expire(&mut self, now: Instant, own: NodeId, mut expired: impl FnMut(usize)) {
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = Instant::MAX;
        let records =
            self.ids.iter().zip(&mut self.members).map(|(id, member)| (id, member.record.as_mut())).enumerate();
        for (number, (origin, record)) in records {
            let Some(record) = record.filter(|record| *origin != own && !record.expired) else { continue };
            let due = record.received + EXPIRY;
            if due <= now {
                record.expired = true;
                self.fingerprint ^= digest_of(*origin, record.sequence);
                expired(number);
            } else {
                self.next_expiry = self.next_expiry.min(due);
            }
        }
    }

    /// When [`Database::expire`] must be called next, at the latest.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        (self.next_expiry < Instant::MAX).then_some(self.next_expiry)
    }

    /// How this sequence of a member compares with what is, or was, here: greater if it is newer.
    pub(super) fn compare(&self, origin: usize, sequence: Sequence) -> Ordering {
        self.members[origin].record.as_ref().map_or(Ordering::Greater, |held| sequence.cmp(&held.sequence))
    }

    /// All members, ascending.
    pub(super) fn member_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ids.iter().copied()
    }

    /// How many members there are.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// The bytes of a live advertisement.
    pub(super) fn bytes(&self, origin: usize) -> Option<&[u8]> {
        self.members[origin].live().map(|record| &*record.bytes)
    }

    /// The sequence of a live advertisement.
    pub(super) fn sequence(&self, origin: usize) -> Option<Sequence> {
        self.members[origin].live().map(|record| record.sequence)
    }

    /// What a member advertises, ascending by neighbour, if that is live.
    pub(super) fn links(&self, origin: NodeId) -> Option<impl Iterator<Item = AdvertisedLink> + '_> {
        let live = self.members[self.number(origin)?].live();
        live.map(|record| record.advertisement().links())
    }

    /// All live advertisements, by number.
    pub(super) fn live_links(&self) -> impl Iterator<Item = (usize, impl Iterator<Item = AdvertisedLink> + '_)> {
        let numbered = self.members.iter().enumerate();
        numbered.filter_map(|(number, member)| Some((number, member.live()?.advertisement().links())))
    }

    /// All live advertisements' sequences, ascending by origin.
    pub(super) fn digest(&self) -> impl Iterator<Item = (NodeId, Sequence)> {
        self.live().map(|(origin, record)| (origin, record.sequence))
    }

    /// The same on two routers whose live advertisements are the same.
    pub(super) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn live(&self) -> impl Iterator<Item = (NodeId, &Record)> {
        self.ids.iter().zip(&self.members).filter_map(|(&id, member)| Some((id, member.live()?)))
    }
}
