//! The link-state database: the newest advertisement of every member.

use crate::base::hash::mix64;
use crate::base::identity::PublicIdentity;
use crate::base::{Instant, NodeId};
use crate::wire::routing::{AdvertisedLink, Advertisement, SIGNING_CONTEXT, Sequence};
use std::collections::BTreeMap;
use std::time::Duration;

/// An advertisement that was not refreshed for this long is not used any more. Three times the refresh interval: two
/// refreshes may be lost.
pub(super) const EXPIRY: Duration = Duration::from_secs(30 * 60);

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
    /// No member.
    UnknownOrigin,
    /// The signature is wrong.
    Forged,
}

#[derive(Debug)]
struct Record {
    sequence: Sequence,
    bytes: Box<[u8]>,
    links: Vec<AdvertisedLink>,
    received: Instant,
    /// Not refreshed in time. The record stays as a tombstone: a neighbour that heard it later, and so still holds it,
    /// must not bring it back to life.
    expired: bool,
}

impl Record {
    fn new(now: Instant, advertisement: &Advertisement<'_>) -> Record {
        Record {
            sequence: advertisement.sequence,
            bytes: advertisement.bytes().into(),
            links: advertisement.links().collect(),
            received: now,
            expired: false,
        }
    }
}

/// The newest advertisement of every member. Bounded by the number of members.
#[derive(Debug)]
pub(super) struct Database {
    members: BTreeMap<NodeId, PublicIdentity>,
    records: BTreeMap<NodeId, Record>,
    /// XOR over all live records, so that it does not depend on the order in which they came.
    fingerprint: u64,
    /// No record expires before this.
    next_expiry: Instant,
}

fn digest_of(origin: NodeId, sequence: Sequence) -> u64 {
    mix64(mix64(mix64(origin.0) ^ sequence.epoch).wrapping_add(sequence.counter))
}

/// Whether `origin` signed the advertisement.
pub(super) fn authentic(origin: &PublicIdentity, advertisement: &Advertisement<'_>) -> bool {
    let (bytes, signature) = advertisement.signed();
    origin.verify(&[SIGNING_CONTEXT, bytes].concat(), signature)
}

impl Database {
    pub(super) fn new(members: impl IntoIterator<Item = PublicIdentity>) -> Database {
        let members = members.into_iter().map(|member| (member.node_id(), member)).collect();
        Database { members, records: BTreeMap::new(), fingerprint: 0, next_expiry: Instant::MAX }
    }

    /// Replaces the members; what those who left advertised is forgotten. True if a live record went.
    pub(super) fn set_members(&mut self, members: impl IntoIterator<Item = PublicIdentity>) -> bool {
        self.members = members.into_iter().map(|member| (member.node_id(), member)).collect();
        let (members, fingerprint, mut changed) = (&self.members, &mut self.fingerprint, false);
        self.records.retain(|origin, record| {
            let stays = members.contains_key(origin);
            if !stays && !record.expired {
                *fingerprint ^= digest_of(*origin, record.sequence);
                changed = true;
            }
            stays
        });
        changed
    }

    /// Takes in what was received. Signatures are verified last and only where the answer matters.
    pub(super) fn take(&mut self, now: Instant, advertisement: &Advertisement<'_>) -> Taken {
        let Some(member) = self.members.get(&advertisement.origin) else { return Taken::UnknownOrigin };
        let held = self.records.get(&advertisement.origin);
        if let Some(held) = held {
            if advertisement.sequence < held.sequence {
                return Taken::Older;
            }
            if advertisement.bytes() == &*held.bytes {
                return Taken::Duplicate;
            }
        }
        if !authentic(member, advertisement) {
            return Taken::Forged;
        }
        if held.is_some_and(|held| advertisement.sequence == held.sequence) {
            return Taken::Equivocation;
        }
        Taken::Newer { changed: self.store(now, advertisement) }
    }

    /// Stores an advertisement that is known to be newer and authentic; true if it says anything new.
    pub(super) fn store(&mut self, now: Instant, advertisement: &Advertisement<'_>) -> bool {
        let origin = advertisement.origin;
        let record = Record::new(now, advertisement);
        self.fingerprint ^= digest_of(origin, record.sequence);
        self.next_expiry = self.next_expiry.min(now + EXPIRY);
        let unchanged = self.records.get(&origin).is_some_and(|old| !old.expired && old.links == record.links);
        if let Some(old) = self.records.insert(origin, record)
            && !old.expired
        {
            self.fingerprint ^= digest_of(origin, old.sequence);
        }
        !unchanged
    }

    /// Expires what is due, except `own`; true if anything was.
    pub(super) fn expire(&mut self, now: Instant, own: NodeId) -> bool {
        if now < self.next_expiry {
            return false;
        }
        let mut any = false;
        self.next_expiry = Instant::MAX;
        for (origin, record) in self.records.iter_mut().filter(|(origin, record)| **origin != own && !record.expired) {
            let due = record.received + EXPIRY;
            if due <= now {
                record.expired = true;
                self.fingerprint ^= digest_of(*origin, record.sequence);
                any = true;
            } else {
                self.next_expiry = self.next_expiry.min(due);
            }
        }
        any
    }

    /// When [`Database::expire`] must be called next, at the latest.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        (self.next_expiry < Instant::MAX).then_some(self.next_expiry)
    }

    /// Whether this sequence of a member is newer than what is, or was, here.
    pub(super) fn lacks(&self, origin: NodeId, sequence: Sequence) -> bool {
        self.members.contains_key(&origin) && self.records.get(&origin).is_none_or(|held| held.sequence < sequence)
    }

    /// The bytes of a live advertisement.
    pub(super) fn bytes(&self, origin: NodeId) -> Option<&[u8]> {
        self.records.get(&origin).filter(|record| !record.expired).map(|record| &*record.bytes)
    }

    /// All live advertisements, ascending by origin.
    pub(super) fn links(&self) -> impl Iterator<Item = (NodeId, &[AdvertisedLink])> {
        self.live().map(|(origin, record)| (origin, record.links.as_slice()))
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
        self.records.iter().filter(|(_, record)| !record.expired).map(|(&origin, record)| (origin, record))
    }
}
