//! What was sent: one record per packet number, in sending order.
//!
//! ```text
//!            record                     acknowledged
//! (nothing) ───────► Outstanding ─────────────────────► Acknowledged
//!     │                   │ too old                          ▲
//!     │                   └──────────► Lost ─────────────────┘ (it was not: a needless repetition)
//!     └────────────► Silent (asks for no acknowledgement) ───┘
//! ```
//!
//! Records leave at the front once nothing more can be learned from them. There is no timer per packet: sending order
//! is age order, so the oldest outstanding packet carries the only deadline.

use crate::base::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Most records kept. Packets that ask for an acknowledgement are not sent while this many are kept.
pub(super) const MAX_RECORDS: usize = 8192;
/// Most runs of link sequence numbers in one packet.
const MAX_RUNS: usize = 4;

/// What is known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Asks for no acknowledgement and has none.
    Silent,
    /// Waits for its acknowledgement.
    Outstanding,
    /// Given up; an acknowledgement may still come.
    Lost,
    /// Received by the other end.
    Acknowledged,
}

/// Consecutive link sequence numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    first: u64,
    count: u16,
}

/// One sent packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Its number.
    pub(super) number: u64,
    /// When it left.
    pub(super) at: Instant,
    /// Its datagram's size.
    pub(super) bytes: u16,
    /// What is known of it.
    pub(super) state: State,
    /// It is a path-MTU probe: its loss says nothing about congestion.
    pub(super) probe: bool,
    runs: [Run; MAX_RUNS],
}

impl Record {
    /// A packet that carries nothing yet.
    pub(super) fn new(number: u64, at: Instant) -> Record {
        let runs = [Run::default(); MAX_RUNS];
        Record { number, at, bytes: 0, state: State::Silent, probe: false, runs }
    }

    /// Notes that it carries the reliable message `sequence`; false if it cannot carry one more.
    pub(super) fn carry(&mut self, sequence: u64) -> bool {
        for run in &mut self.runs {
            if run.count == 0 {
                *run = Run { first: sequence, count: 1 };
                return true;
            }
            if run.first + u64::from(run.count) == sequence {
                run.count += 1;
                return true;
            }
        }
        false
    }

    /// Whether one more reliable message can be noted, whichever it is.
    pub(super) const fn has_room(&self) -> bool {
        self.runs[MAX_RUNS - 1].count == 0
    }

    /// Whether it carries messages that must be sent again if it is lost.
    pub(super) const fn is_recovered(&self) -> bool {
        self.runs[0].count > 0
    }

    /// The reliable messages it carries.
    pub(super) fn sequences(&self) -> impl Iterator<Item = u64> + use<> {
        self.runs.into_iter().flat_map(|run| run.first..run.first + u64::from(run.count))
    }
}

/// The records of one link.
#[derive(Debug)]
pub(super) struct Sent {
    records: VecDeque<Record>,
    /// Number of the next packet.
    next: u64,
    /// No packet below this is outstanding.
    settled: u64,
    /// The first packet of the path in use. Earlier ones are not in flight on it.
    path_began: u64,
    in_flight: u64,
    largest_acked: Option<u64>,
}

impl Sent {
    pub(super) fn new() -> Sent {
        Sent { records: VecDeque::new(), next: 0, settled: 0, path_began: 0, in_flight: 0, largest_acked: None }
    }

    /// The number the next packet will have.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Another path is used from now on.
    pub(super) const fn begin_path(&mut self) {
        self.path_began = self.next;
        self.in_flight = 0;
    }

    /// Whether a packet left by a path used before: it says nothing about this one (RFC 9000 section 9.4).
    pub(super) const fn is_former(&self, number: u64) -> bool {
        number < self.path_began
    }

    fn land(&mut self, record: &Record) {
        if !self.is_former(record.number) {
            self.in_flight -= u64::from(record.bytes);
        }
    }

    /// Datagram bytes outstanding.
    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Largest number acknowledged.
    pub(super) const fn largest_acked(&self) -> Option<u64> {
        self.largest_acked
    }

    /// Whether another packet that asks for an acknowledgement may be recorded.
    pub(super) fn has_room(&self) -> bool {
        self.records.len() < MAX_RECORDS
    }

    /// Packets on record.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    fn base(&self) -> u64 {
        self.next - self.records.len() as u64
    }

    /// Number of the oldest packet still on record.
    pub(super) fn oldest_record(&self) -> u64 {
        self.base()
    }

    /// Records a packet that leaves now; its number must be [`Sent::next`]. Returns the record that was pushed out by
    /// the bound, if that one was still outstanding.
    pub(super) fn record(&mut self, record: Record) -> Option<Record> {
        assert_eq!(record.number, self.next, "packet numbers are used in order, each once");
        let mut pushed_out = None;
        if self.records.len() == MAX_RECORDS
            && let Some(oldest) = self.records.pop_front()
            && oldest.state == State::Outstanding
        {
            self.land(&oldest);
            pushed_out = Some(oldest);
        }
        if record.state == State::Outstanding {
            self.in_flight += u64::from(record.bytes);
        }
        self.records.push_back(record);
        self.next += 1;
        pushed_out
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Record> {
        let base = self.base();
        let index = usize::try_from(number.checked_sub(base)?).ok()?;
        self.records.get_mut(index)
    }

    /// Marks a packet as acknowledged; gives the record as it was before, if that is news.
    pub(super) fn acknowledge(&mut self, number: u64) -> Option<Record> {
        let record = self.get_mut(number)?;
        let before = *record;
        if before.state == State::Acknowledged {
            return None;
        }
        record.state = State::Acknowledged;
        if before.state == State::Outstanding {
            self.land(&before);
        }
        self.largest_acked = self.largest_acked.max(Some(number));
        Some(before)
    }

    /// The oldest outstanding packet.
    pub(super) fn oldest(&mut self) -> Option<Record> {
        let base = self.base();
        self.settled = self.settled.max(base);
        while let Some(record) = self.records.get((self.settled - base) as usize) {
            if record.state == State::Outstanding {
                return Some(*record);
            }
            self.settled += 1;
        }
        None
    }

    /// Gives an outstanding packet up.
    pub(super) fn lose(&mut self, number: u64) {
        let record = self.get_mut(number).expect("an outstanding packet is on record");
        assert_eq!(record.state, State::Outstanding, "only what is outstanding can be lost");
        record.state = State::Lost;
        let record = *record;
        self.land(&record);
    }

    /// Whether the oldest record may be done with.
    pub(super) fn may_forget(&self) -> bool {
        self.records.front().is_some_and(|record| record.state != State::Outstanding)
    }

    /// Forgets the oldest records that are acknowledged, silent, or lost longer ago than `memory`. Silent ones are
    /// kept as long as lost ones, for their round-trip samples.
    pub(super) fn forget(&mut self, now: Instant, memory: Duration) {
        while let Some(record) = self.records.front() {
            let done = match record.state {
                State::Acknowledged => true,
                State::Silent | State::Lost => now.since(record.at) > memory,
                State::Outstanding => false,
            };
            if !done {
                return;
            }
            self.records.pop_front();
        }
    }

    /// Gives up everything without a verdict: the link is down.
    pub(super) fn abandon(&mut self) {
        self.records.clear();
        self.in_flight = 0;
        self.settled = self.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outstanding(sent: &Sent, at: Instant, sequences: &[u64]) -> Record {
        let mut record = Record::new(sent.next(), at);
        record.state = State::Outstanding;
        record.bytes = 100;
        assert!(sequences.iter().all(|&sequence| record.carry(sequence)));
        record
    }

    #[test]
    fn runs_hold_consecutive_sequences() {
        let mut record = Record::new(0, Instant::ZERO);
        for sequence in [5, 6, 7, 20, 40, 41] {
            assert!(record.has_room() && record.carry(sequence));
        }
        assert!(record.carry(90) && !record.has_room() && !record.carry(100) && record.carry(91));
        assert_eq!(record.sequences().collect::<Vec<_>>(), [5, 6, 7, 20, 40, 41, 90, 91]);
    }

    #[test]
    fn bytes_in_flight_follow_the_states() {
        let mut sent = Sent::new();
        for n in 0..4 {
            let record = outstanding(&sent, Instant::from_millis(n), &[n]);
            sent.record(record);
        }
        sent.record(Record::new(4, Instant::from_millis(4)));
        assert_eq!(sent.in_flight(), 400);
        assert_eq!(sent.acknowledge(1).map(|r| r.state), Some(State::Outstanding));
        assert!(sent.acknowledge(1).is_none(), "not twice");
        sent.lose(0);
        assert_eq!((sent.in_flight(), sent.oldest().map(|r| r.number)), (200, Some(2)));
        assert_eq!(sent.acknowledge(0).map(|r| r.state), Some(State::Lost));
        assert_eq!(sent.acknowledge(4).map(|r| r.state), Some(State::Silent));
        assert!(sent.acknowledge(99).is_none());
        assert_eq!((sent.in_flight(), sent.largest_acked()), (200, Some(4)));
        sent.forget(Instant::from_millis(4), Duration::from_secs(1));
        assert_eq!(sent.oldest_record(), 2);
        sent.abandon();
        assert_eq!((sent.in_flight(), sent.next(), sent.oldest().is_none()), (0, 5, true));
    }

    #[test]
    fn the_number_of_records_is_bounded() {
        let mut sent = Sent::new();
        let first = outstanding(&sent, Instant::ZERO, &[1]);
        sent.record(first);
        for n in 1..MAX_RECORDS as u64 {
            assert!(sent.has_room());
            assert!(sent.record(Record::new(n, Instant::ZERO)).is_none());
        }
        assert!(!sent.has_room());
        let pushed = sent.record(Record::new(MAX_RECORDS as u64, Instant::ZERO)).expect("the oldest was outstanding");
        assert_eq!((pushed.number, sent.in_flight()), (0, 0));
    }
}
