//! Every interleaving of the one lock-free piece that is ours, [`sleeper`], under the C11 memory model (loom).
//!
//! The rings themselves are rtrb's. What crosses them is owned, tables included, so a swap of the forwarding table is
//! one message; what can go wrong is a consumer that sleeps on a message. A lost wake-up leaves the model's consumer
//! waiting for ever, which loom reports as a deadlock.

use loom::sync::Notify;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

mod atomics {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

#[expect(unreachable_pub, reason = "it is a file of the library")]
#[path = "../src/runtime/sleeper.rs"]
mod sleeper;

use sleeper::Sleeper;

/// Times a thread may be interrupted between two of its steps, in one interleaving. Three find what is known to go wrong
/// in pieces of this size and keep the run within seconds.
const PREEMPTIONS: usize = 3;

/// A queue of which only the count is told, a stop flag, and a consumer behind an eventfd.
struct Shared {
    pushed: AtomicUsize,
    stop: AtomicBool,
    sleeper: Sleeper,
    eventfd: Notify,
}

impl Shared {
    fn new() -> loom::sync::Arc<Shared> {
        loom::sync::Arc::new(Shared {
            pushed: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            sleeper: Sleeper::new(),
            eventfd: Notify::new(),
        })
    }

    /// As `ring::Sender::push` does.
    fn push(&self) {
        self.pushed.fetch_add(1, Release);
        if self.sleeper.must_wake() {
            self.eventfd.notify();
        }
    }

    /// As a stop is asked for from another thread.
    fn ask_to_stop(&self) {
        self.stop.store(true, Release);
        if self.sleeper.must_wake() {
            self.eventfd.notify();
        }
    }

    /// As a worker does: works until `items` have come and, if it waits for that, the stop has. How often it slept.
    fn consume(&self, items: usize, until_stopped: bool) -> usize {
        let mut slept = 0;
        loop {
            let seen = self.pushed.load(Acquire);
            assert!(seen <= items);
            if seen == items && (!until_stopped || self.stop.load(Acquire)) {
                return slept;
            }
            let nothing = || self.pushed.load(Acquire) == seen && !(until_stopped && self.stop.load(Acquire));
            if self.sleeper.prepare(nothing) {
                self.eventfd.wait();
                self.sleeper.awake();
                slept += 1;
            } else {
                thread::yield_now();
            }
        }
    }
}

/// Runs `producers` beside a consumer of `items` under every interleaving with [`PREEMPTIONS`]. How often the consumer slept, in all of them.
fn explore(items: usize, until_stopped: bool, producers: &'static [fn(&Shared)]) -> usize {
    let sleeps = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&sleeps);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(move || {
        let shared = Shared::new();
        let threads: Vec<_> = producers
            .iter()
            .map(|produce| {
                let shared = loom::sync::Arc::clone(&shared);
                thread::spawn(move || produce(&shared))
            })
            .collect();
        count.fetch_add(shared.consume(items, until_stopped), Relaxed);
        threads.into_iter().for_each(|thread| thread.join().expect("a producer does not panic"));
    });
    sleeps.load(Relaxed)
}

#[test]
fn a_push_is_seen_or_wakes() {
    let sleeps = explore(2, false, &[|shared| (0..2).for_each(|_| shared.push())]);
    assert!(sleeps > 0, "the consumer never slept, so nothing was tested");
}

#[test]
fn two_producers_wake_one_consumer() {
    let sleeps = explore(2, false, &[Shared::push, Shared::push]);
    assert!(sleeps > 0, "the consumer never slept, so nothing was tested");
}

#[test]
fn a_stop_beside_a_push_ends_the_consumer() {
    let sleeps = explore(1, true, &[Shared::push, Shared::ask_to_stop]);
    assert!(sleeps > 0, "the consumer never slept, so nothing was tested");
}

/// The rule without its fence, to show that the model would notice.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_a_wake_up_is_lost() {
    loom::model(|| {
        let shared = Shared::new();
        let asleep = loom::sync::Arc::new(AtomicBool::new(false));
        let (theirs, flag) = (loom::sync::Arc::clone(&shared), loom::sync::Arc::clone(&asleep));
        let producer = thread::spawn(move || {
            theirs.pushed.fetch_add(1, Release);
            if flag.load(Relaxed) {
                theirs.eventfd.notify();
            }
        });
        asleep.store(true, Relaxed);
        if shared.pushed.load(Acquire) == 0 {
            shared.eventfd.wait();
        }
        producer.join().expect("the producer does not panic");
    });
}
