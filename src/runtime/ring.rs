//! The rings between control and a worker: single producer, single consumer, bounded, each with a doorbell.
//!
//! Down go [`ToWorker`]s, up go reports. When a ring is full the producer keeps what it has, counts that, and comes back a
//! millisecond later: control stops taking actions and client requests, a worker leaves reports in its shard. Each side
//! always drains what comes to it, so two full rings cannot block each other.

use super::doorbell::Doorbell;
use crate::base::SessionId;
use crate::dataplane::messages::Command;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Messages a ring holds in each direction.
pub const RING_SLOTS: usize = 4096;
/// When to try again after a full ring.
pub const RETRY: Duration = Duration::from_millis(1);

/// From control to a worker.
#[derive(Debug)]
pub enum ToWorker {
    /// For the shard.
    Command(Command),
    /// This descriptor is the router's end of the session.
    Attach(SessionId, OwnedFd),
    /// Close the session's descriptor.
    Detach(SessionId),
    /// Send what is due and end.
    Stop,
}

/// The end that pushes.
#[derive(Debug)]
pub struct Sender<T> {
    ring: rtrb::Producer<T>,
    bell: Arc<Doorbell>,
    refused: Arc<AtomicU64>,
}

/// The end that pops.
#[derive(Debug)]
pub struct Receiver<T> {
    ring: rtrb::Consumer<T>,
    refused: Arc<AtomicU64>,
}

/// A ring of `slots` messages whose consumer waits behind `bell`.
pub fn ring<T>(slots: usize, bell: Arc<Doorbell>) -> (Sender<T>, Receiver<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(slots);
    let refused = Arc::new(AtomicU64::new(0));
    (Sender { ring: producer, bell, refused: Arc::clone(&refused) }, Receiver { ring: consumer, refused })
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
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(message)
            }
        }
    }

    /// Whether a push would be refused.
    pub fn is_full(&self) -> bool {
        self.ring.is_full()
    }

    /// Counts that a message was held back because the ring is full.
    pub fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the other end is gone.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Messages in the ring.
    pub fn waiting(&self) -> usize {
        RING_SLOTS.saturating_sub(self.ring.slots())
    }

    /// How often this end found the ring full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// How often the producer found the ring full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether the other end is gone.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
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
}
