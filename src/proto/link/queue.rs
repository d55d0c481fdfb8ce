//! The flow-fair queue (deficit round robin, Shreedhar and Varghese 1995) with a delay bound per flow.
//!
//! Flows are hashed into buckets; every bucket in turn may send one full message's worth of bytes. A bucket holds one
//! class only, and both classes are served alike.
//!
//! A flow whose messages have waited longer than the target for a whole interval has a standing queue, not a burst
//! (the observation of CoDel, RFC 8289). From then on, until its queue is short again, its best-effort messages older
//! than the target are dropped, and its reliable messages older than the target are marked. While the link still doubles
//! its rate nothing is marked: its sources would slow down for good before the path's rate is known.
//!
//! Bound: a number of messages. When it is reached the fattest bucket gives way: its oldest message is dropped if that
//! is best effort; if it is reliable, the newcomer is refused.

use super::by_length::ByLength;
use super::stats::Counters;
use crate::base::limits::MAX_MESSAGE;
use crate::base::{Class, Instant};
use crate::containers::{Packet, Pool};
use crate::telemetry::DropReason;
use crate::wire::message::{self, Header};
use std::collections::VecDeque;
use std::time::Duration;

/// Buckets for flows of one class.
const FLOWS: usize = 256;
const BUCKETS: usize = FLOWS * Class::ALL.len();
/// Bytes a bucket may send per turn: one message of the largest size.
const QUANTUM: i64 = MAX_MESSAGE as i64;
/// Targets that a delay must last to count as standing.
const PATIENCE: u32 = 5;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    packet: Option<Packet>,
    queued: Instant,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    head: u32,
    tail: u32,
    len: u32,
    deficit: i64,
    /// It is in the circle; an emptied bucket stays there until its turn.
    listed: bool,
    /// Since when the delay has been above the target.
    above: Option<Instant>,
}

const EMPTY: Bucket = Bucket { head: NONE, tail: NONE, len: 0, deficit: 0, listed: false, above: None };

/// What [`Queue::pop`] may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// Let reliable messages leave.
    pub(super) reliable: bool,
    /// Mark those of a standing queue.
    pub(super) marks: bool,
}

/// A message that may leave.
#[derive(Debug)]
pub(super) struct Queued {
    /// The message.
    pub(super) packet: Packet,
    /// Its class.
    pub(super) class: Class,
    /// How long it waited.
    pub(super) waited: Duration,
}

/// The queue of one link. Its memory comes with the first message: many a link only ever carries control messages.
#[derive(Debug)]
pub(super) struct Queue {
    entries: Vec<Entry>,
    free: Vec<u32>,
    buckets: Box<[Bucket]>,
    by_length: ByLength,
    active: VecDeque<u16>,
    len: usize,
    peak: usize,
    bound: usize,
    target: Duration,
}

impl Queue {
    /// An empty queue of at most `bound` messages, with a delay target.
    pub(super) fn new(bound: usize, target: Duration) -> Queue {
        let bound = bound.max(1);
        Queue {
            entries: Vec::new(),
            free: Vec::new(),
            buckets: Box::default(),
            by_length: ByLength::new(0, 0),
            active: VecDeque::new(),
            len: 0,
            peak: 0,
            bound,
            target,
        }
    }

    /// Messages queued.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Most messages ever queued at a time.
    pub(super) const fn peak(&self) -> usize {
        self.peak
    }

    /// Queues a message. Gives it back if it is reliable and the queue is full of other reliable messages.
    pub(super) fn push(
        &mut self,
        now: Instant,
        packet: Packet,
        header: &Header,
        pool: &mut Pool,
        counters: &mut Counters,
    ) -> Result<(), Packet> {
        let index = (header.flow_hash() % FLOWS as u64) as usize * Class::ALL.len() + usize::from(header.class.code());
        if self.len >= self.bound {
            let victim = self.by_length.longest().filter(|&bucket| class_of(bucket) == Class::BestEffort);
            let Some(victim) = victim else {
                if header.class == Class::Reliable {
                    return Err(packet);
                }
                counters.drops.count(DropReason::QueueFull);
                counters.dropped_unsent += 1;
                pool.release(packet);
                return Ok(());
            };
            let (dropped, _) = self.pop_head(victim).expect("the fattest bucket is not empty");
            counters.drops.count(DropReason::QueueFull);
            counters.dropped_unsent += 1;
            pool.release(dropped);
        }
        self.append(index, Entry { packet: Some(packet), queued: now, next: NONE });
        Ok(())
    }

    fn furnish(&mut self) {
        self.entries.reserve(self.bound.min(256));
        self.free.reserve(self.bound.min(256));
        self.buckets = vec![EMPTY; BUCKETS].into_boxed_slice();
        self.by_length = ByLength::new(BUCKETS, self.bound);
        self.active.reserve(BUCKETS);
    }

    fn append(&mut self, index: usize, entry: Entry) {
        if self.buckets.is_empty() {
            self.furnish();
        }
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        let bucket = &mut self.buckets[index];
        if bucket.len == 0 {
            bucket.head = slot;
        } else {
            self.entries[bucket.tail as usize].next = slot;
        }
        if !bucket.listed {
            bucket.listed = true;
            bucket.deficit = QUANTUM;
            self.active.push_back(index as u16);
        }
        bucket.tail = slot;
        bucket.len += 1;
        self.len += 1;
        self.by_length.grow(index);
        self.peak = self.peak.max(self.len);
    }

    fn pop_head(&mut self, index: usize) -> Option<(Packet, Instant)> {
        let bucket = &mut self.buckets[index];
        if bucket.len == 0 {
            return None;
        }
        let slot = bucket.head;
        let entry = &mut self.entries[slot as usize];
        bucket.head = entry.next;
        bucket.len -= 1;
        self.len -= 1;
        self.by_length.shrink(index);
        self.free.push(slot);
        let packet = entry.packet.take().expect("a queued entry holds a packet");
        Some((packet, entry.queued))
    }

    /// The next message, if one waits and has at most `room` bytes (frame header excluded). `reliable`: reliable
    /// messages may leave; while they may not, theirs is a turn without sending. `marks`: those of a standing queue are
    /// marked.
    pub(super) fn pop(
        &mut self,
        now: Instant,
        room: usize,
        Allowed { reliable, marks }: Allowed,
        pool: &mut Pool,
        counters: &mut Counters,
    ) -> Option<Queued> {
        let mut barred = 0;
        while let Some(&front) = self.active.front() {
            let index = usize::from(front);
            let class = class_of(index);
            let standing = self.police(now, index, pool, counters);
            let bucket = &mut self.buckets[index];
            if bucket.len == 0 {
                bucket.listed = false;
                self.active.pop_front();
                continue;
            }
            let blocked = class == Class::Reliable && !reliable;
            if bucket.deficit <= 0 || blocked {
                if blocked {
                    barred += 1;
                } else {
                    bucket.deficit += QUANTUM;
                }
                self.active.rotate_left(1);
                if barred > self.active.len() {
                    return None;
                }
                continue;
            }
            let head = &self.entries[bucket.head as usize];
            let len = head.packet.as_ref().expect("a queued entry holds a packet").len();
            if len > room {
                return None;
            }
            bucket.deficit -= len as i64;
            let (mut packet, queued) = self.pop_head(index).expect("the bucket is not empty");
            let waited = now.since(queued);
            if standing && marks && class == Class::Reliable && waited > self.target {
                message::set_mark(pool.bytes_mut(&mut packet));
                counters.marked += 1;
            }
            return Some(Queued { packet, class, waited });
        }
        None
    }

    /// Whether the bucket has a standing queue; if so and it is best effort, what is too old is dropped from it.
    fn police(&mut self, now: Instant, index: usize, pool: &mut Pool, counters: &mut Counters) -> bool {
        loop {
            let bucket = &mut self.buckets[index];
            if bucket.len == 0 || now.since(self.entries[bucket.head as usize].queued) <= self.target {
                bucket.above = None;
                return false;
            }
            let since = *bucket.above.get_or_insert(now);
            let standing = now.since(since) >= self.target * PATIENCE;
            // The last message is never dropped: an empty queue would waste the link.
            if !standing || class_of(index) == Class::Reliable || bucket.len == 1 {
                return standing;
            }
            let above = bucket.above;
            let (packet, _) = self.pop_head(index).expect("the bucket is not empty");
            self.buckets[index].above = above;
            counters.drops.count(DropReason::QueueDelay);
            counters.dropped_unsent += 1;
            pool.release(packet);
        }
    }

    /// Takes everything out, bucket by bucket, each with its class.
    pub(super) fn take_any(&mut self) -> Option<(Packet, Class)> {
        while let Some(&front) = self.active.front() {
            let index = usize::from(front);
            if let Some((packet, _)) = self.pop_head(index) {
                return Some((packet, class_of(index)));
            }
            self.buckets[index] = EMPTY;
            self.active.pop_front();
        }
        None
    }
}

const fn class_of(bucket: usize) -> Class {
    if bucket.is_multiple_of(2) { Class::BestEffort } else { Class::Reliable }
}

const _: () = assert!(Class::BestEffort.code() == 0 && Class::Reliable.code() == 1, "class_of follows the codes");

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Allowed = Allowed { reliable: true, marks: true };
    const NO_RELIABLE: Allowed = Allowed { reliable: false, marks: true };
    use crate::base::NodeId;
    use crate::containers::pool::Urgency;
    use crate::wire::message::Protocol;

    fn header(flow: u16, class: Class) -> Header {
        Header {
            class,
            ttl: 9,
            mark: false,
            protocol: Protocol::Datagram,
            destination: NodeId(1),
            source: NodeId(2),
            destination_port: flow,
            source_port: 7,
        }
    }

    struct Rig {
        queue: Queue,
        pool: Pool,
        counters: Counters,
    }

    impl Rig {
        fn new(bound: usize) -> Rig {
            let queue = Queue::new(bound, Duration::from_millis(20));
            Rig { queue, pool: Pool::new(4096), counters: Counters::new() }
        }

        fn push(&mut self, ms: u64, flow: u16, class: Class, len: usize) -> bool {
            let header = header(flow, class);
            let mut bytes = header.to_bytes().to_vec();
            bytes.resize(len.max(24), 0);
            let packet = self.pool.copy_in(Urgency::Reserved, &bytes).expect("the pool is large");
            let pushed = self.queue.push(Instant::from_millis(ms), packet, &header, &mut self.pool, &mut self.counters);
            pushed.map_err(|packet| self.pool.release(packet)).is_ok()
        }

        fn pop(&mut self, ms: u64) -> Option<Header> {
            let now = Instant::from_millis(ms);
            let queued = self.queue.pop(now, MAX_MESSAGE, ALL, &mut self.pool, &mut self.counters)?;
            let header = Header::parse(self.pool.bytes(&queued.packet)).expect("a header");
            self.pool.release(queued.packet);
            Some(header)
        }
    }

    #[test]
    fn flows_share_bytes_not_messages() {
        let mut rig = Rig::new(2000);
        for _ in 0..600 {
            assert!(rig.push(0, 1, Class::BestEffort, 1000));
            assert!(rig.push(0, 2, Class::Reliable, 250));
        }
        let mut bytes = [0usize; 3];
        for _ in 0..500 {
            let header = rig.pop(1).expect("enough");
            bytes[usize::from(header.destination_port)] += if header.destination_port == 1 { 1000 } else { 250 };
        }
        let ratio = bytes[1] as f64 / bytes[2] as f64;
        assert!((0.9..1.1).contains(&ratio), "{bytes:?}");
    }

    #[test]
    fn a_sparse_flow_waits_one_turn_behind_a_greedy_one() {
        let mut rig = Rig::new(2000);
        (0..1000).for_each(|_| assert!(rig.push(0, 1, Class::BestEffort, 1000)));
        rig.pop(1);
        assert!(rig.push(1, 2, Class::BestEffort, 100));
        let turns = (0..).find(|_| rig.pop(1).expect("enough").destination_port == 2).expect("it comes");
        assert!(turns <= 2, "{turns}");
    }

    #[test]
    fn a_full_queue_drops_from_the_fattest_best_effort_and_refuses_reliable() {
        let mut rig = Rig::new(10);
        (0..8).for_each(|_| assert!(rig.push(0, 1, Class::BestEffort, 100)));
        (0..2).for_each(|_| assert!(rig.push(0, 2, Class::Reliable, 100)));
        assert!(rig.push(0, 3, Class::BestEffort, 100), "the fattest gives way");
        assert!(rig.push(0, 2, Class::Reliable, 100));
        assert_eq!((rig.queue.len(), rig.counters.drops.get(DropReason::QueueFull)), (10, 2));
        (0..2).for_each(|_| assert!(rig.push(0, 2, Class::Reliable, 100)));
        assert!(!rig.push(0, 2, Class::Reliable, 100), "now the reliable flow is the fattest");
        assert!(rig.push(0, 1, Class::BestEffort, 100), "best effort is dropped, not refused");
        assert_eq!((rig.queue.len(), rig.pool.in_use()), (10, 10));
    }

    #[test]
    fn a_standing_queue_drops_best_effort_and_marks_reliable_but_a_burst_does_not() {
        let mut rig = Rig::new(2000);
        (0..60).for_each(|_| assert!(rig.push(0, 1, Class::BestEffort, 500) && rig.push(0, 2, Class::Reliable, 500)));
        for ms in 0..80 {
            assert!(!rig.pop(ms).expect("enough").mark, "a burst is neither marked nor dropped");
        }
        assert_eq!(rig.counters.drops.total(), 0);
        let mut marked = 0;
        for ms in 80..2000 {
            assert!(rig.push(ms, 1, Class::BestEffort, 500) && rig.push(ms, 2, Class::Reliable, 500));
            marked += usize::from(rig.pop(ms).expect("enough").mark);
        }
        let dropped = rig.counters.drops.get(DropReason::QueueDelay);
        assert!(dropped > 500 && marked > 500, "{dropped} dropped, {marked} marked");
        assert!(rig.queue.len() < 1100);
    }

    #[test]
    fn reliable_messages_wait_without_stopping_best_effort() {
        let mut rig = Rig::new(20);
        assert!(rig.push(0, 1, Class::Reliable, 100));
        let now = Instant::ZERO;
        let Rig { queue, pool, counters } = &mut rig;
        assert!(queue.pop(now, MAX_MESSAGE, NO_RELIABLE, pool, counters).is_none());
        assert!(rig.push(0, 2, Class::BestEffort, 100));
        let Rig { queue, pool, counters } = &mut rig;
        let queued = queue.pop(now, MAX_MESSAGE, NO_RELIABLE, pool, counters).expect("best effort may leave");
        assert_eq!(queued.class, Class::BestEffort);
        pool.release(queued.packet);
        assert!(queue.pop(now, 99, ALL, pool, counters).is_none(), "too long for the room");
        let (packet, class) = queue.take_any().expect("one is left");
        assert_eq!(class, Class::Reliable);
        pool.release(packet);
        assert_eq!((queue.len(), pool.in_use(), queue.take_any().is_none()), (0, 0, true));
    }
}
