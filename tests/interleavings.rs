//! Every interleaving of the lock-free pieces that are ours, [`sleeper`] and [`bells`], under the C11 memory model (loom);
//! and of what crosses threads with the first, the swap of the forwarding table and the end of a worker.
//!
//! The rings themselves are rtrb's; here a ring of one slot with the same two orderings stands for them, so that it is
//! full as often as it can be. What crosses a ring is owned, tables included, so a swap of the forwarding table is one
//! message; what can go wrong is a consumer that sleeps on a message, and a table that is read after it was given back. A
//! lost wake-up leaves the model's consumer waiting for ever, which loom reports as a deadlock; a table that is given back
//! twice, never, or while it is read, loom reports as well.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::sync::{Arc, Notify};
use loom::thread;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

mod atomics {
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering, fence};
}

#[expect(unreachable_pub, reason = "it is a file of the library")]
#[path = "../src/containers/sleeper.rs"]
mod sleeper;

#[allow(dead_code, unreachable_pub, reason = "it is a file of the library, and plugs need no interleaving")]
#[path = "../src/shm/bells.rs"]
mod bells;

use bells::{Bells, Taken};
use sleeper::Sleeper;
use std::cell::Cell;

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
    fn new() -> Arc<Shared> {
        Arc::new(Shared {
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
                let shared = Arc::clone(&shared);
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
        let asleep = Arc::new(AtomicBool::new(false));
        let (theirs, flag) = (Arc::clone(&shared), Arc::clone(&asleep));
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

/// A forwarding table: what it holds is read by whoever forwards, and gone when the last of them lets go of it.
struct Table {
    generation: UnsafeCell<usize>,
    given_back: Arc<AtomicUsize>,
}

impl Table {
    fn new(generation: usize, given_back: &Arc<AtomicUsize>) -> Arc<Table> {
        Arc::new(Table { generation: UnsafeCell::new(generation), given_back: Arc::clone(given_back) })
    }

    /// As forwarding does.
    fn read(&self) -> usize {
        // SAFETY: nobody writes while it is shared, but its end; loom watches that nobody reads beside that.
        self.generation.with(|generation| unsafe { *generation })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: this is the last who has it; loom watches that nobody else reads.
        self.generation.with_mut(|generation| unsafe { *generation = usize::MAX });
        self.given_back.fetch_add(1, Relaxed);
    }
}

/// From control to a worker.
enum Message {
    Install(Arc<Table>),
    Stop,
}

/// A ring of one slot, with the orderings of rtrb, and the worker's sleep.
struct Ring {
    full: AtomicBool,
    slot: UnsafeCell<Option<Message>>,
    sleeper: Sleeper,
    eventfd: Notify,
}

impl Ring {
    fn new() -> Arc<Ring> {
        Arc::new(Ring {
            full: AtomicBool::new(false),
            slot: UnsafeCell::new(None),
            sleeper: Sleeper::new(),
            eventfd: Notify::new(),
        })
    }

    /// As control does: what finds no room is held, and tried again.
    fn push(&self, message: Message) {
        while self.full.load(Acquire) {
            thread::yield_now();
        }
        // SAFETY: the slot is the producer's while it is not full; loom watches that.
        self.slot.with_mut(|slot| unsafe { *slot = Some(message) });
        self.full.store(true, Release);
        if self.sleeper.must_wake() {
            self.eventfd.notify();
        }
    }

    fn pop(&self) -> Option<Message> {
        if !self.full.load(Acquire) {
            return None;
        }
        // SAFETY: the slot is the consumer's while it is full; loom watches that.
        let message = self.slot.with_mut(|slot| unsafe { (*slot).take() });
        self.full.store(false, Release);
        message
    }

    /// As a worker does, until it is stopped: forwards by the newest table it has. The generation it ended with.
    fn work(&self, mut table: Arc<Table>) -> usize {
        loop {
            let mut worked = false;
            while let Some(message) = self.pop() {
                worked = true;
                match message {
                    Message::Install(newer) => {
                        assert!(newer.read() > table.read(), "tables come in order");
                        table = newer;
                    }
                    Message::Stop => return table.read(),
                }
            }
            let forwarded_by = table.read();
            assert!(forwarded_by <= TABLES, "it is read while it is there");
            if !worked && self.sleeper.prepare(|| !self.full.load(Acquire)) {
                self.eventfd.wait();
                self.sleeper.awake();
            }
        }
    }
}

/// Tables that are swapped in.
const TABLES: usize = 2;

#[test]
fn tables_are_swapped_in_order_and_given_back_once_and_a_stop_ends_the_worker() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(|| {
        let (ring, given_back) = (Ring::new(), Arc::new(AtomicUsize::new(0)));
        let first = Table::new(0, &given_back);
        let worker = {
            let (ring, table) = (Arc::clone(&ring), Arc::clone(&first));
            thread::spawn(move || ring.work(table))
        };
        // Control keeps the table it published last, to answer what routes there are.
        let mut published = first;
        for generation in 1..=TABLES {
            let table = Table::new(generation, &given_back);
            ring.push(Message::Install(Arc::clone(&table)));
            assert_eq!(published.read(), generation - 1);
            published = table;
        }
        ring.push(Message::Stop);
        let ended_with = worker.join().expect("the worker does not panic");
        assert_eq!(ended_with, TABLES, "what was said before the stop was done");
        assert_eq!(given_back.load(Relaxed), TABLES, "all but the one in force");
        drop(published);
        assert_eq!(given_back.load(Relaxed), TABLES + 1);
    });
}

/// A ring in shared memory of which only the count is told, and the socket beside it: bells, and who waits for one.
struct Session {
    pushed: AtomicUsize,
    sleeper: Sleeper,
    rung: AtomicUsize,
    socket: Notify,
}

impl Session {
    /// As the router makes it.
    fn new() -> Arc<Session> {
        let sleeper = Sleeper::new();
        sleeper.announce();
        Arc::new(Session { pushed: AtomicUsize::new(0), sleeper, rung: AtomicUsize::new(0), socket: Notify::new() })
    }

    /// As the router does.
    fn push(&self) {
        self.pushed.fetch_add(1, Release);
        if self.sleeper.must_wake() {
            self.rung.fetch_add(1, Release);
            self.socket.notify();
        }
    }

    /// As poll(2) does: waits until the socket holds a bell, whatever the ring holds.
    fn poll(&self, taken: usize) {
        while self.rung.load(Acquire) == taken {
            self.socket.wait();
        }
    }

    /// As an application does that looks at nothing but `poll`, and takes one record each time that lets it go on.
    fn read(&self, records: usize, may_wait: fn(&Session, &mut Bells, usize, &Cell<usize>) -> bool) {
        let (mut bells, taken) = (Bells::default(), Cell::new(0));
        let mut read = 0;
        while read < records {
            self.poll(taken.get());
            while self.pushed.load(Acquire) == read {
                if may_wait(self, &mut bells, read, &taken) {
                    break;
                }
            }
            read += usize::from(self.pushed.load(Acquire) > read);
        }
    }

    fn take(&self, taken: &Cell<usize>) -> Taken {
        if self.rung.load(Acquire) == taken.get() {
            return Taken::Nothing;
        }
        taken.set(taken.get() + 1);
        Taken::Bell
    }
}

fn read_beside_the_router(records: usize, may_wait: fn(&Session, &mut Bells, usize, &Cell<usize>) -> bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(move || {
        let session = Session::new();
        let router = {
            let session = Arc::clone(&session);
            thread::spawn(move || (0..records).for_each(|_| session.push()))
        };
        session.read(records, may_wait);
        router.join().expect("the router does not panic");
    });
}

#[test]
fn the_socket_is_readable_as_long_as_the_ring_is() {
    read_beside_the_router(3, |session, bells, read, taken| {
        bells.may_wait(&session.sleeper, || session.pushed.load(Acquire) == read, || session.take(taken))
    });
}
