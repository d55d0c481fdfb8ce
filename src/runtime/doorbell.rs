//! Wakes a thread that sleeps in the kernel, and costs nothing while it does not.
//!
//! A wake-up through an eventfd costs 11 µs (measured), a look at a flag costs one. The consumer therefore says when it is
//! about to sleep, and only then does a producer write to the eventfd; [`Sleeper`] is the flag and its rule.

use super::sys;
use crate::containers::sleeper::Sleeper;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// One consumer's doorbell; any number of producers may ring it. It shares a cache line with nothing: its consumer writes
/// to it whenever it sleeps.
#[derive(Debug)]
#[repr(align(128))]
pub struct Doorbell {
    sleeper: Sleeper,
    event: OwnedFd,
}

impl Doorbell {
    /// A doorbell nobody sleeps behind.
    pub fn new() -> io::Result<Doorbell> {
        Ok(Doorbell { sleeper: Sleeper::new(), event: sys::eventfd()? })
    }

    /// Producer: something was pushed. Wakes the consumer if it sleeps.
    pub fn ring(&self) {
        if self.sleeper.must_wake() {
            self.ring_always();
        }
    }

    /// Wakes the consumer whether it sleeps or not.
    pub fn ring_always(&self) {
        sys::eventfd_add(self.event.as_fd());
    }

    /// Consumer: about to sleep. True if it may, that is if `queue_is_empty` still says so after the announcement.
    pub fn prepare_sleep(&self, queue_is_empty: impl FnOnce() -> bool) -> bool {
        self.sleeper.prepare(queue_is_empty)
    }

    /// Consumer, after [`Doorbell::prepare_sleep`]: sleeps until it rings, or this long. Workers sleep in their backends
    /// instead, which wake for datagrams too.
    pub fn sleep(&self, timeout: Duration) -> bool {
        // Fails only where a signal ends the sleep.
        sys::poll_readable(self.event.as_fd(), timeout).unwrap_or(false)
    }

    /// Consumer: awake again.
    pub fn awake(&self) {
        self.sleeper.awake();
    }

    /// Consumer: takes back all rings, so that the descriptor is no longer readable.
    pub fn silence(&self) {
        sys::eventfd_drain(self.event.as_fd());
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// One item at a time, so that the consumer falls asleep before nearly every one: the race the rule is about. A lost
    /// wake-up would leave the consumer in `poll` until its timeout, which the test counts as a failure.
    #[test]
    fn no_wake_up_is_lost() {
        const ITEMS: u64 = 20_000;
        let bell = Arc::new(Doorbell::new().expect("eventfd"));
        let (mut producer, mut consumer) = rtrb::RingBuffer::<u64>::new(4);
        let theirs = Arc::clone(&bell);
        let pusher = std::thread::spawn(move || {
            for item in 0..ITEMS {
                while producer.push(item).is_err() {
                    std::thread::yield_now();
                }
                theirs.ring();
            }
        });
        let (mut expected, mut slept) = (0, 0);
        while expected < ITEMS {
            while let Ok(item) = consumer.pop() {
                assert_eq!(item, expected);
                expected += 1;
            }
            if expected < ITEMS && bell.prepare_sleep(|| consumer.is_empty()) {
                slept += 1;
                let woken = bell.sleep(Duration::from_secs(10));
                assert!(woken, "the producer did not ring before item {expected}");
                bell.awake();
                bell.silence();
            }
        }
        pusher.join().expect("the producer does not panic");
        assert!(slept > 0, "the consumer never slept, so nothing was tested");
    }

    #[test]
    fn rings_only_for_a_sleeper() {
        let bell = Doorbell::new().expect("eventfd");
        bell.ring();
        assert!(!sys::poll_readable(bell.as_fd(), Duration::ZERO).expect("poll"), "nobody sleeps");
        assert!(!bell.prepare_sleep(|| false), "the queue is not empty");
        bell.ring();
        assert!(!sys::poll_readable(bell.as_fd(), Duration::ZERO).expect("poll"), "it did not go to sleep");
        assert!(bell.prepare_sleep(|| true));
        bell.ring();
        assert!(sys::poll_readable(bell.as_fd(), Duration::ZERO).expect("poll"));
        bell.silence();
        assert!(!sys::poll_readable(bell.as_fd(), Duration::ZERO).expect("poll"));
    }
}
