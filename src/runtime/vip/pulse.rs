//! The heartbeat: what tells the keeper that control and the workers live.
//!
//! Control says that it lives, and asks every worker for a sign of life; the keeper counts from the oldest of them all. A
//! worker that hangs keeps nothing from being answered for longer than a lease: this router's neighbours have given it up
//! by then, and so has its kernel.

use super::Host;
use crate::base::Instant;
use crate::runtime::ring::{Sender, ToWorker};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// When somebody lived last, nanoseconds of the clock: written by who it is about, read by the keeper.
pub type Sign = Arc<AtomicU64>;

/// Heartbeats in a lease.
const BEATS: u32 = 5;

/// When the workers lived last.
#[derive(Debug)]
pub struct Pulse {
    interval: Duration,
    next: Instant,
    /// By worker.
    answers: Vec<Sign>,
}

impl Pulse {
    /// Of so many workers, for this lease. They live now: they have just been started.
    pub fn new(now: Instant, workers: usize, lease: Duration) -> Pulse {
        let answers = (0..workers).map(|_| Arc::new(AtomicU64::new(now.as_nanos()))).collect();
        Pulse { interval: lease / BEATS, next: now, answers }
    }

    /// The workers' signs of life, for the keeper.
    pub fn signs(&self) -> Vec<Sign> {
        self.answers.clone()
    }

    /// When the next heartbeat is due.
    pub const fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// Whether it is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// Says that control lives, and asks the workers.
    pub(in crate::runtime) fn beat<'a>(
        &mut self,
        now: Instant,
        host: &Host,
        workers: impl Iterator<Item = &'a mut Sender<ToWorker>>,
    ) {
        self.next = now + self.interval;
        host.beat(now);
        for (commands, answer) in workers.zip(&self.answers) {
            // A full ring is a sign of its own: no answer.
            let _ = commands.push(ToWorker::Beat(Arc::clone(answer)));
        }
    }
}
