//! The word between a consumer that may sleep and the producers that may have to wake it.
//!
//! Dekker's rule: each side writes its own word, then a full fence, then reads the other's.
//!
//! ```text
//! consumer: asleep = true;  fence; look at the queue once more; sleep only if it is empty
//! producer: push;           fence; if asleep { asleep = false; wake }
//! ```
//!
//! Either the producer sees `asleep` and wakes, or the consumer sees what was pushed: a wake-up is never lost. Wake-ups
//! that come too late are spurious, which is harmless.
//!
//! The atomics come from the parent module, so that `tests/interleavings.rs` can run this very file under every
//! interleaving the memory model allows.

use super::atomics::{AtomicU32, Ordering, fence};

/// Whether the consumer sleeps: not if it is zero. Also where two processes share it, any value is one of the two.
#[derive(Debug)]
#[repr(transparent)]
pub struct Sleeper {
    asleep: AtomicU32,
}

impl Sleeper {
    /// A consumer that is awake.
    pub fn new() -> Sleeper {
        Sleeper { asleep: AtomicU32::new(0) }
    }

    /// Producer, after a push: whether this producer must wake the consumer. Of several, one is told so.
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) != 0 && self.asleep.swap(0, Ordering::AcqRel) != 0
    }

    /// Consumer: about to sleep. True if it may, that is if `queue_is_empty` still says so after the announcement.
    pub fn prepare(&self, queue_is_empty: impl FnOnce() -> bool) -> bool {
        // A swap, though the rule needs no more than a store: it orders this announcement after a producer's swap that
        // took back the one before.
        self.announce();
        let may_sleep = queue_is_empty();
        if !may_sleep {
            self.awake();
        }
        may_sleep
    }

    /// Consumer: about to sleep, and looks at the queue next. Whether a producer was to wake it since the last time.
    pub fn announce(&self) -> bool {
        let woken = self.asleep.swap(1, Ordering::AcqRel) == 0;
        fence(Ordering::SeqCst);
        woken
    }

    /// Consumer: awake again.
    pub fn awake(&self) {
        self.asleep.store(0, Ordering::Relaxed);
    }
}

impl Default for Sleeper {
    fn default() -> Sleeper {
        Sleeper::new()
    }
}
