//! The rings between threads: single producer, single consumer, bounded, each with a doorbell.
//!
//! Down from control to a worker go commands, up go reports. When one of these is full the producer keeps what it has,
//! counts that, and comes back a millisecond later: control stops taking actions and client requests, a worker leaves
//! reports in its shard. Each side always drains what comes to it, so two full rings cannot block each other.
//!
//! From every worker to every other goes a ring of [`Crossing`]s. When it is full the messages stay in the shard, whose
//! queue has a bound and a rule (`dataplane/crossing.rs`). Where nothing crosses, a ring costs its consumer one read a
//! turn of a word that nobody writes: what each end writes has cache lines of its own.

use super::carrier::Carrier;
use super::doorbell::Doorbell;
use crate::base::SessionId;
use crate::dataplane::crossing::Crossing;
use crate::dataplane::messages::{Command, RingStats};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Messages a ring holds in each direction.
pub const RING_SLOTS: usize = 4096;
/// Messages a ring between two workers holds: what a worker takes in some turns, in about 300 kB.
pub const CROSSING_SLOTS: usize = 256;
/// When to try again after a full ring.
pub const RETRY: Duration = Duration::from_millis(1);

/// From control to a worker.
#[derive(Debug)]
pub(super) enum ToWorker {
    /// For the shard.
    Command(Command),
    /// This carries the session's records.
    Attach(SessionId, Carrier),
    /// Close the session's carrier.
    Detach(SessionId),
    /// Say here that you live: the time, nanoseconds of the clock.
    Beat(Arc<AtomicU64>),
    /// Send what is due and end.
    Stop,
}

/// The end that pushes.
#[derive(Debug)]
pub struct Sender<T> {
    ring: rtrb::Producer<T>,
    bell: Arc<Doorbell>,
    slots: usize,
    refused: Arc<Refused>,
}

/// How often a producer found its ring full. It shares a cache line with nothing.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Refused(AtomicU64);

/// The end that pops.
#[derive(Debug)]
pub struct Receiver<T> {
    ring: rtrb::Consumer<T>,
    refused: Arc<Refused>,
}

/// A ring of `slots` messages whose consumer waits behind `bell`.
pub fn ring<T>(slots: usize, bell: Arc<Doorbell>) -> (Sender<T>, Receiver<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(slots);
    let refused = Arc::new(Refused::default());
    (Sender { ring: producer, bell, slots, refused: Arc::clone(&refused) }, Receiver { ring: consumer, refused })
}

impl<T> Sender<T> {
    /// Pushes and rings; gives the message back if the ring is full.
    pub fn push(&mut self, message: T) -> Result<(), T> {
        match self.ring.push(message) {
            Ok(()) => {
                self.bell.ring();
                Ok(())
            }
            Err(rtrb::PushError::Full(message)) => {
                self.refused.0.fetch_add(1, Ordering::Relaxed);
                Err(message)
            }
        }
    }

    /// Pushes as many of the messages as there is room for, takes no more of them, and rings once.
    pub fn push_all(&mut self, messages: impl Iterator<Item = T>) {
        let room = self.ring.slots();
        let Ok(chunk) = self.ring.write_chunk_uninit(room) else {
            unreachable!("only this end pushes, and there was room")
        };
        if chunk.fill_from_iter(messages) > 0 {
            self.bell.ring();
        }
    }

    /// Whether a push would be refused.
    pub fn is_full(&self) -> bool {
        self.ring.is_full()
    }

    /// Counts that a message was held back because the ring is full.
    pub fn count_refusal(&self) {
        self.refused.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the other end is gone.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Messages in the ring.
    pub fn waiting(&self) -> usize {
        self.slots - self.ring.slots()
    }

    /// How often this end found the ring full.
    pub fn refused(&self) -> u64 {
        self.refused.0.load(Ordering::Relaxed)
    }
}

impl<T> Receiver<T> {
    /// Messages in the ring.
    pub fn waiting(&self) -> usize {
        self.ring.slots()
    }

    /// The oldest message.
    pub fn pop(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }

    /// Hands over all messages that are there, in their place. Answers how many.
    pub fn pop_all(&mut self, mut take: impl FnMut(&T)) -> usize {
        let waiting = self.ring.slots();
        let Ok(chunk) = self.ring.read_chunk(waiting) else { unreachable!("only this end pops, and so many waited") };
        let (first, rest) = chunk.as_slices();
        first.iter().chain(rest).for_each(&mut take);
        if waiting > 0 {
            chunk.commit_all();
        }
        waiting
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// How often the producer found the ring full.
    pub fn refused(&self) -> u64 {
        self.refused.0.load(Ordering::Relaxed)
    }

    /// Whether the other end is gone.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

/// A worker's ways to and from its router's other workers, by their numbers; none to itself.
#[derive(Debug, Default)]
pub struct Crossings {
    /// To each.
    pub to: Vec<Option<Sender<Crossing>>>,
    /// From each.
    pub from: Vec<Option<Receiver<Crossing>>>,
}

/// Ways between workers that wait behind these doorbells.
pub fn crossings(bells: &[Arc<Doorbell>]) -> Vec<Crossings> {
    let mut all: Vec<Crossings> = bells.iter().map(|_| Crossings::default()).collect();
    for from in 0..bells.len() {
        for (to, bell) in bells.iter().enumerate() {
            let (sender, receiver) = (from != to).then(|| ring(CROSSING_SLOTS, Arc::clone(bell))).unzip();
            all[from].to.push(sender);
            all[to].from.push(receiver);
        }
    }
    all
}

impl Crossings {
    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.from.iter().flatten().all(Receiver::is_empty)
    }

    /// The rings from others, taken together.
    pub fn stats(&self, peak: usize) -> RingStats {
        let waiting = self.from.iter().flatten().map(Receiver::waiting).max().unwrap_or(0);
        let full = self.from.iter().flatten().map(Receiver::refused).sum();
        RingStats { waiting, peak: peak.max(waiting), slots: CROSSING_SLOTS, full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_gives_the_message_back_and_counts() {
        let bell = Arc::new(Doorbell::new().expect("eventfd"));
        let (mut sender, mut receiver) = ring(2, bell);
        assert_eq!(sender.push(1), Ok(()));
        assert_eq!(sender.push(2), Ok(()));
        assert!(sender.is_full());
        assert_eq!(sender.push(3), Err(3));
        assert_eq!((receiver.pop(), receiver.refused()), (Some(1), 1));
        assert_eq!(sender.push(3), Ok(()));
        assert_eq!((receiver.pop(), receiver.pop(), receiver.pop()), (Some(2), Some(3), None));
        drop(sender);
        assert!(receiver.is_abandoned());
    }

    #[test]
    fn every_worker_reaches_every_other_and_no_end_shares_a_line() {
        let bells: Vec<_> = (0..3).map(|_| Arc::new(Doorbell::new().expect("eventfd"))).collect();
        let mut all = crossings(&bells);
        for from in 0..3 {
            for to in 0..3 {
                assert_eq!(all[from].to[to].is_some(), from != to);
                assert_eq!(all[to].from[from].is_some(), from != to);
            }
        }
        let places = |(n, bell): (usize, &Arc<Doorbell>)| (n, Arc::as_ptr(bell) as usize / 128);
        let lines: std::collections::BTreeSet<_> = bells.iter().enumerate().map(places).map(|place| place.1).collect();
        assert_eq!(lines.len(), 3, "each worker's doorbell has a line of its own");
        assert_eq!((align_of::<Doorbell>(), align_of::<Refused>()), (128, 128));
        assert!(all.iter().all(Crossings::is_empty));
        drop(all.remove(0));
        assert!(all[0].from[0].as_ref().is_some_and(Receiver::is_abandoned));
    }
}
