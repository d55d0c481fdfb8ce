//! The heartbeat: what tells the keeper that control and the workers live.
//!
//! Control asks every worker for a sign of life and passes it on once all have given one. A worker that hangs keeps nothing
//! from being answered for longer than a lease: this router's neighbours have given it up by then, and so has its kernel.

use super::Host;
use crate::base::Instant;
use crate::runtime::ring::{Sender, ToWorker};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Heartbeats in a lease.
const BEATS: u32 = 5;

/// When the workers lived last.
#[derive(Debug)]
pub struct Pulse {
    interval: Duration,
    next: Instant,
    /// By worker: when it answered last, nanoseconds of the clock.
    answers: Vec<Arc<AtomicU64>>,
}

impl Pulse {
    /// Of so many workers, for this lease. They live now: they have just been started.
    pub fn new(now: Instant, workers: usize, lease: Duration) -> Pulse {
        let answers = (0..workers).map(|_| Arc::new(AtomicU64::new(now.as_nanos()))).collect();
        Pulse { interval: lease / BEATS, next: now, answers }
    }

    /// When the next beat is due.
    pub const fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// Passes on the oldest sign of life, and asks for the next.
    pub(in crate::runtime) fn beat<'a>(
        &mut self,
        now: Instant,
        host: &Host,
        workers: impl Iterator<Item = &'a mut Sender<ToWorker>>,
    ) {
        if now < self.next {
            return;
        }
        self.next = now + self.interval;
        let oldest = self.answers.iter().map(|answer| answer.load(Ordering::Acquire)).min();
        host.beat(Instant::from_nanos(oldest.unwrap_or(now.as_nanos())));
        for (commands, answer) in workers.zip(&self.answers) {
            // A full ring is a sign of its own: no answer.
            let _ = commands.push(ToWorker::Beat(Arc::clone(answer)));
        }
    }
}
