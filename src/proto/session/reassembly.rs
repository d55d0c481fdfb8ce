//! Best-effort datagrams that are not complete yet.

use super::shelf::Shelf;
use crate::base::limits::MAX_PAYLOAD;
use crate::base::sabotage::{Rule, broken};
use crate::base::{Instant, Port};
use crate::containers::{Packet, Pool};
use crate::wire::client::Endpoint;
use crate::wire::session::{Fragment, MAX_DATAGRAM_FRAGMENT};
use std::time::Duration;

/// Most fragments of one datagram.
pub(super) const MAX_FRAGMENTS: usize = MAX_PAYLOAD.div_ceil(MAX_DATAGRAM_FRAGMENT);

/// Whose datagram it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DatagramKey {
    pub(super) from: Endpoint,
    pub(super) port: Port,
    pub(super) message: u32,
}

#[derive(Debug)]
struct Incomplete {
    key: DatagramKey,
    since: Instant,
    mark: bool,
    got: usize,
    parts: Vec<Option<Packet>>,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Kept until its siblings come.
    Kept,
    /// The datagram is whole: its packets in order, and whether one of them was marked.
    Whole(Vec<Packet>, bool),
    /// It was there.
    Duplicate,
    /// It does not belong to a datagram of legal size, or contradicts its siblings.
    Malformed,
    /// The pool is drawn down.
    NoPacket,
}

/// A bounded number of incomplete datagrams; for one more the oldest is given up.
#[derive(Debug)]
pub(super) struct Reassembly {
    incomplete: Vec<Incomplete>,
    /// Lists of finished datagrams, for the next ones.
    spare: Vec<Vec<Packet>>,
    spare_parts: Vec<Vec<Option<Packet>>>,
    capacity: usize,
    timeout: Duration,
    /// Datagrams given up.
    given_up: u64,
}

impl Reassembly {
    pub(super) fn new(capacity: usize, timeout: Duration) -> Reassembly {
        assert!(capacity > 0, "a datagram is put together somewhere");
        let (incomplete, spare, spare_parts) = (Vec::new(), Vec::new(), Vec::new());
        Reassembly { incomplete, spare, spare_parts, capacity, timeout, given_up: 0 }
    }

    /// All lists that can be in use at a time are made when the first datagram needs one: how many are depends on what
    /// gets lost, and when. A router where no datagram of several fragments ends has none.
    fn make_lists(&mut self) {
        self.incomplete.reserve_exact(self.capacity);
        self.spare.extend((0..self.capacity).map(|_| Vec::with_capacity(MAX_FRAGMENTS)));
        self.spare_parts.extend((0..self.capacity).map(|_| Vec::with_capacity(MAX_FRAGMENTS)));
    }

    /// Incomplete datagrams held.
    pub(super) fn len(&self) -> usize {
        self.incomplete.len()
    }

    /// Takes in a fragment of a datagram that has several.
    pub(super) fn join(
        &mut self,
        now: Instant,
        key: DatagramKey,
        fragment: &Fragment<'_>,
        mark: bool,
        pool: &mut Pool,
        shelf: &mut Shelf,
    ) -> Joined {
        let count = usize::from(fragment.last) + 1;
        if count > MAX_FRAGMENTS {
            return Joined::Malformed;
        }
        let at = match self.incomplete.iter().position(|datagram| datagram.key == key || broken(Rule::Fragments)) {
            Some(at) if self.incomplete[at].parts.len() != count => return Joined::Malformed,
            Some(at) => at,
            None => self.begin(now, key, count, pool, shelf),
        };
        let datagram = &mut self.incomplete[at];
        let part = &mut datagram.parts[usize::from(fragment.index)];
        if part.is_some() {
            return Joined::Duplicate;
        }
        let Some(packet) = shelf.copy_in(pool, fragment.bytes) else { return Joined::NoPacket };
        *part = Some(packet);
        datagram.got += 1;
        datagram.mark |= mark;
        if datagram.got < count {
            return Joined::Kept;
        }
        let Incomplete { mut parts, mark, .. } = self.incomplete.remove(at);
        let mut whole = self.spare.pop().unwrap_or_default();
        whole.extend(parts.drain(..).flatten());
        self.spare_parts.push(parts);
        Joined::Whole(whole, mark)
    }

    fn begin(&mut self, now: Instant, key: DatagramKey, count: usize, pool: &mut Pool, shelf: &mut Shelf) -> usize {
        if self.incomplete.capacity() == 0 {
            self.make_lists();
        }
        if self.incomplete.len() == self.capacity {
            self.give_up_oldest(pool, shelf);
        }
        let mut parts = self.spare_parts.pop().unwrap_or_default();
        parts.resize_with(count, || None);
        self.incomplete.push(Incomplete { key, since: now, mark: false, got: 0, parts });
        self.incomplete.len() - 1
    }

    /// The list is in the order of age.
    fn give_up_oldest(&mut self, pool: &mut Pool, shelf: &mut Shelf) {
        let mut parts = self.incomplete.remove(0).parts;
        parts.drain(..).flatten().for_each(|packet| shelf.release(pool, packet));
        self.spare_parts.push(parts);
        self.given_up += 1;
    }

    /// Takes a list back for the next datagram.
    pub(super) fn recycle(&mut self, list: Vec<Packet>) {
        assert!(list.is_empty(), "the packets were released");
        if self.spare.len() < self.capacity {
            self.spare.push(list);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.incomplete.first().map(|oldest| oldest.since + self.timeout)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, pool: &mut Pool, shelf: &mut Shelf) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.give_up_oldest(pool, shelf);
        }
    }

    /// Gives up what is incomplete for this port.
    pub(super) fn close(&mut self, port: Port, pool: &mut Pool, shelf: &mut Shelf) {
        let Reassembly { incomplete, spare_parts, .. } = self;
        incomplete.retain_mut(|datagram| {
            let keep = datagram.key.port != port;
            if !keep {
                datagram.parts.drain(..).flatten().for_each(|packet| shelf.release(pool, packet));
                spare_parts.push(std::mem::take(&mut datagram.parts));
            }
            keep
        });
    }

    /// Datagrams given up since this was last asked.
    pub(super) const fn take_given_up(&mut self) -> u64 {
        std::mem::replace(&mut self.given_up, 0)
    }
}
