//! What a message costs a shard, without sockets: 200-byte messages from one end of a chain to the other.
//!
//! ```text
//! cargo bench --bench shard    nanoseconds per message, best of five rounds
//! ```
//!
//! Times of a busy machine are worth little; what a change is judged by is `perf/gates`.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

#[path = "../tests/common/chain.rs"]
#[expect(dead_code, reason = "what the test of allocations uses beside this")]
mod chain;

use chain::{Chain, Meter, Step};
use sinew::base::Class;
use sinew::proto::link::{Congestion, Settings};
use std::time::{Duration, Instant};

/// Bytes of a message.
const MESSAGE: usize = 200;
/// Messages per tick of half a millisecond, so that batches are neither single nor full.
const PER_TICK: usize = 8;
const ROUNDS: usize = 5;

/// Measures the work of one router.
struct Work {
    router: usize,
    spent: Duration,
}

impl Meter for Work {
    fn run<R>(&mut self, router: usize, _step: Step, work: impl FnOnce() -> R) -> R {
        if router != self.router {
            return work();
        }
        let start = Instant::now();
        let result = work();
        self.spent += start.elapsed();
        result
    }
}

const ROLES: [&str; 3] = ["origin", "transit", "destination"];

/// A warm chain whose `router`th shard is measured.
fn chain(router: usize, class: Class) -> Chain<Work> {
    let settings = Settings { congestion: Congestion::FixedKbps(1_000_000), ..Settings::default() };
    let mut chain = Chain::new(ROLES.len(), &settings, Work { router: usize::MAX, spent: Duration::ZERO });
    talk(&mut chain, class, 100);
    chain.meter.router = router;
    chain
}

/// Messages for so many ticks; how many were sent. Streams are not measured: their segments are reliable messages.
fn talk(chain: &mut Chain<Work>, class: Class, ticks: usize) -> u64 {
    for _ in 0..ticks {
        for _ in 0..PER_TICK {
            assert!(chain.send(class, &[7; MESSAGE]), "the chain keeps up");
        }
        chain.tick();
    }
    (ticks * PER_TICK) as u64
}

fn best_nanos(router: usize, class: Class) -> f64 {
    let mut chain = chain(router, class);
    let rounds = (0..ROUNDS).map(|_| {
        chain.meter.spent = Duration::ZERO;
        let sent = talk(&mut chain, class, 2_000);
        chain.meter.spent.as_nanos() as f64 / sent as f64
    });
    let best = rounds.fold(f64::INFINITY, f64::min);
    let forwarded = chain.stats(1).forwarded;
    assert!(forwarded > 60_000 && chain.delivered.best_effort + chain.delivered.reliable > 60_000, "messages arrive");
    best
}

fn main() {
    println!("{MESSAGE}-byte messages, ns per message");
    for class in Class::ALL {
        for (router, role) in ROLES.iter().enumerate() {
            println!("{:12} {role:12} {:8.0}", format!("{class:?}"), best_nanos(router, class));
        }
    }
}
