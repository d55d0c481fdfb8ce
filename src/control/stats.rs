//! Asking all workers for their figures.
//!
//! Questions go out in rounds: who asks while a round is under way waits for the next one, so that every answer was
//! counted after its question. A worker that does not answer in [`PATIENCE`] fails the round; its late answer is not
//! taken for one to a later round, because answers come in the order of the questions.

use crate::base::Instant;
use serde_json::Value;
use std::time::Duration;

/// How long workers may take.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// Questions a worker may owe an answer to; it is not asked again before it answers.
const MAX_OWED: u32 = 4;

/// A round under way.
#[derive(Debug)]
struct Round {
    answers: Vec<Option<Value>>,
    deadline: Instant,
}

/// Rounds of questions to all workers.
#[derive(Debug)]
pub(super) struct Collector {
    round: Option<Round>,
    number: u64,
    owed: Vec<u32>,
}

impl Collector {
    pub(super) fn new(workers: usize) -> Collector {
        Collector { round: None, number: 0, owed: vec![0; workers] }
    }

    /// The round that answers a question asked now.
    pub(super) const fn joining(&self) -> u64 {
        self.number + 1
    }

    /// The round under way, or the last one.
    pub(super) const fn current(&self) -> u64 {
        self.number
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.round.is_none()
    }

    /// Begins the round that [`Collector::joining`] named; gives the workers to ask.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<usize> {
        assert!(self.round.is_none(), "one round at a time");
        self.number += 1;
        self.round = Some(Round { answers: vec![None; self.owed.len()], deadline: now + PATIENCE });
        let mut asked = Vec::new();
        for (worker, owed) in self.owed.iter_mut().enumerate().filter(|(_, owed)| **owed < MAX_OWED) {
            *owed += 1;
            asked.push(worker);
        }
        asked
    }

    /// A worker answered; gives the finished round and all answers if it was the last.
    pub(super) fn answered(&mut self, worker: usize, value: Value) -> Option<(u64, Vec<Value>)> {
        self.owed[worker] = self.owed[worker].saturating_sub(1);
        let round = self.round.as_mut()?;
        if self.owed[worker] > 0 {
            return None;
        }
        round.answers[worker] = Some(value);
        let answers: Vec<Value> = round.answers.iter().flatten().cloned().collect();
        if answers.len() < self.owed.len() {
            return None;
        }
        self.round = None;
        Some((self.number, answers))
    }

    /// When the round fails.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.round.as_ref().map(|round| round.deadline)
    }

    /// Fails the round if it is due; gives its number and the workers that are silent.
    pub(super) fn expire(&mut self, now: Instant) -> Option<(u64, Vec<usize>)> {
        let round = self.round.take_if(|round| round.deadline <= now)?;
        let silent = round.answers.iter().enumerate().filter(|(_, answer)| answer.is_none());
        Some((self.number, silent.map(|(worker, _)| worker).collect()))
    }
}
