//! What was received, and when to say so.
//!
//! ```text
//! arrival                             acknowledge
//! gap or reordered packet             at once
//! first two after a pause (sparse)    at once, so that the sender's timer can be short
//! in a dense run                      after 16 packets, or an eighth of the round trip, at most 1 ms
//! probe                               at once
//! best effort alone                   after 64 packets, or 1 ms: nobody waits to send it again
//! anything leaving for the neighbour  with it
//! the last eighth of a delay          after a packet that comes then, so as not to be in the way of the next one
//! nothing new since the last ack      once more, a moment later
//! ```
//!
//! The repetition makes a lost acknowledgement, which looks to the sender like a lost message, as rare as two losses in
//! a row. A newer acknowledgement takes its place, so dense traffic does not pay for it.

use crate::base::Instant;
use crate::base::sabotage::{Rule, broken};
use crate::containers::RangeSet;
use crate::wire::cursor::{NoRoom, Writer};
use crate::wire::frame::{MAX_ACK_RANGES, emit_ack};
use std::time::Duration;

/// Packets of a dense run that share one acknowledgement.
const COALESCE: u32 = 16;
/// The same where none of them would be sent again.
const COALESCE_BEST_EFFORT: u32 = 64;
/// Longest that an acknowledgement is held back.
pub(super) const MAX_ACK_DELAY: Duration = Duration::from_millis(1);
/// Shortest: below this a timer costs more than the acknowledgement.
const MIN_ACK_DELAY: Duration = Duration::from_micros(50);
/// After this a lone acknowledgement is repeated. Every sender waits this much longer before it gives a packet up, so
/// it is short.
pub(super) const REPEAT: Duration = Duration::from_micros(500);
/// The same in a dense run, where the next acknowledgement is as good.
const REPEAT_DENSE: Duration = Duration::from_millis(3);
/// Ranges are forgotten after one to two of this plus four round trips: by then the sender has given up waiting.
const MEMORY: Duration = Duration::from_millis(100);

/// Acknowledgement state of one link.
#[derive(Debug)]
pub(super) struct Received {
    ranges: RangeSet,
    largest_at: Instant,
    /// Packets that ask for an acknowledgement and got none yet.
    owed: u32,
    /// Something that would be sent again if its acknowledgement were lost arrived since the last acknowledgement.
    repeat_wanted: bool,
    /// Packets in a row that followed closely.
    run: u32,
    ack_at: Option<Instant>,
    /// So much sooner it may leave if a packet arrives, since the loop is awake then and the next packet not there yet.
    /// The timer alone would meet a flow whose period divides the delay at the worst moment every time.
    early: Duration,
    repeat_at: Option<Instant>,
    eliciting_at: Option<Instant>,
    forget: (u64, u64, Instant),
}

impl Received {
    pub(super) fn new() -> Received {
        Received {
            ranges: RangeSet::new(MAX_ACK_RANGES),
            largest_at: Instant::ZERO,
            owed: 0,
            repeat_wanted: false,
            run: 0,
            ack_at: None,
            early: Duration::ZERO,
            repeat_at: None,
            eliciting_at: None,
            forget: (0, 0, Instant::ZERO),
        }
    }

    /// A packet arrived. `eliciting`: it asks for an acknowledgement. `recovered`: it would be sent again without one.
    pub(super) fn on_packet(&mut self, now: Instant, number: u64, eliciting: bool, recovered: bool, rtt: Duration) {
        let expected = self.ranges.last().map_or(0, |last| last + 1);
        self.ranges.insert(number);
        if number >= expected {
            self.largest_at = now;
        }
        self.forget_old(now, rtt);
        if !eliciting {
            return;
        }
        let delay = (rtt / 8).clamp(MIN_ACK_DELAY, MAX_ACK_DELAY);
        let close = self.eliciting_at.is_some_and(|before| now.since(before) <= delay * 2);
        self.run = if close { self.run.saturating_add(1) } else { 0 };
        self.eliciting_at = Some(now);
        self.owed += 1;
        self.repeat_wanted |= recovered;
        let most = if self.repeat_wanted { COALESCE } else { COALESCE_BEST_EFFORT };
        let at_once = number != expected || (recovered && !self.is_dense()) || self.owed >= most;
        let held = if recovered { delay } else { MAX_ACK_DELAY };
        let due = if at_once { now } else { now + held };
        self.early = held / 8;
        self.ack_at = Some(self.ack_at.map_or(due, |before| before.min(due)));
    }

    /// Ranges of packet numbers remembered.
    pub(super) fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// The packet that was just taken in is waited for: a probe.
    pub(super) const fn answer_at_once(&mut self, now: Instant) {
        self.ack_at = Some(now);
    }

    /// A repetition that meets the next message is not a run yet.
    const fn is_dense(&self) -> bool {
        self.run >= 2
    }

    fn forget_old(&mut self, now: Instant, rtt: Duration) {
        let (older, newer, since) = self.forget;
        if now.since(since) > MEMORY + rtt * 4 {
            self.ranges.remove_below(older);
            self.forget = (newer, self.ranges.last().unwrap_or(newer), now);
        }
    }

    /// Whether an acknowledgement should leave, now that the link is looked at.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.ack_at.is_some_and(|at| at <= now + self.early) || self.repeat_at.is_some_and(|at| at <= now)
    }

    /// When the next acknowledgement must leave.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match (self.ack_at, self.repeat_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether an acknowledgement is worth its bytes in a packet that leaves anyway.
    pub(super) const fn has_news(&self) -> bool {
        self.owed > 0 || self.repeat_at.is_some()
    }

    /// Writes an acknowledgement. Tells whether it only repeats the one before.
    pub(super) fn emit(&mut self, now: Instant, writer: &mut Writer<'_>) -> Result<bool, NoRoom> {
        let delay = u32::try_from(now.since(self.largest_at).as_micros()).unwrap_or(u32::MAX);
        if broken(Rule::AckRanges) {
            let (first, last) = (self.ranges.iter().next().map_or(0, |range| range.0), self.ranges.last().unwrap_or(0));
            emit_ack(writer, delay, std::iter::once((first, last)))?;
        } else {
            emit_ack(writer, delay, self.ranges.iter().rev())?;
        }
        let repetition = self.owed == 0;
        self.repeat_at = if self.repeat_wanted && !repetition {
            Some(now + if self.is_dense() { REPEAT_DENSE } else { REPEAT })
        } else {
            None
        };
        self.repeat_wanted = false;
        self.owed = 0;
        self.ack_at = None;
        Ok(repetition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Frame, Frames};

    const RTT: Duration = Duration::from_millis(20);

    fn at(us: u64) -> Instant {
        Instant::from_nanos(us * 1000)
    }

    fn emit(received: &mut Received, now: Instant) -> (Vec<(u64, u64)>, bool) {
        let mut buffer = [0; 300];
        let mut writer = Writer::new(&mut buffer);
        let repetition = received.emit(now, &mut writer).expect("fits");
        let Some(Ok(Frame::Ack(ack))) = Frames::new(writer.written()).next() else { panic!("an ack") };
        (ack.ranges().collect(), repetition)
    }

    #[test]
    fn sparse_packets_are_acknowledged_at_once_and_once_more() {
        let mut received = Received::new();
        received.on_packet(at(0), 0, true, true, RTT);
        assert!(received.is_due(at(0)));
        assert_eq!(emit(&mut received, at(0)), (vec![(0, 1)], false));
        assert_eq!(received.deadline(), Some(at(500)));
        assert_eq!(emit(&mut received, at(500)), (vec![(0, 1)], true));
        assert_eq!(received.deadline(), None);
    }

    #[test]
    fn best_effort_alone_is_not_repeated_and_hellos_are_not_acknowledged() {
        let mut received = Received::new();
        received.on_packet(at(0), 0, false, false, RTT);
        assert_eq!(received.deadline(), None);
        received.on_packet(at(0), 1, true, false, RTT);
        emit(&mut received, at(0));
        assert_eq!(received.deadline(), None);
    }

    #[test]
    fn best_effort_alone_is_acknowledged_late_unless_it_tells_a_gap() {
        let mut received = Received::new();
        received.on_packet(at(0), 0, true, false, Duration::from_micros(80));
        assert_eq!(received.deadline(), Some(at(1000)));
        received.on_packet(at(500), 1, true, false, Duration::from_micros(80));
        assert_eq!(received.deadline(), Some(at(1000)), "the first one's promise holds");
        emit(&mut received, at(1000));
        received.on_packet(at(1100), 2, true, false, Duration::from_micros(80));
        received.on_packet(at(1110), 3, true, true, Duration::from_micros(80));
        assert_eq!(received.deadline(), Some(at(1110)), "a reliable message does not wait for it");
        emit(&mut received, at(1110));
        received.on_packet(at(1200), 5, true, false, Duration::from_micros(80));
        assert!(received.is_due(at(1200)), "4 is missing");
    }

    #[test]
    fn what_arrives_late_in_the_delay_takes_the_acknowledgement_along() {
        let mut received = Received::new();
        for number in 0..9 {
            received.on_packet(at(number * 100), number, true, false, RTT);
            assert!(!received.is_due(at(number * 100)), "packet {number}");
        }
        received.on_packet(at(900), 9, true, false, RTT);
        assert!(received.is_due(at(900)), "or it would leave when the next one is there");
        assert_eq!(received.deadline(), Some(at(1000)), "nothing wakes for it earlier");
    }

    #[test]
    fn dense_packets_share_an_acknowledgement() {
        let mut received = Received::new();
        for number in 0..2 {
            received.on_packet(at(number * 10), number, true, true, RTT);
            emit(&mut received, at(number * 10));
        }
        for number in 2..17 {
            received.on_packet(at(number * 10), number, true, true, RTT);
            assert!(!received.is_due(at(number * 10)), "packet {number}");
        }
        received.on_packet(at(170), 17, true, true, RTT);
        assert!(received.is_due(at(170)), "sixteen are owed");
        emit(&mut received, at(170));
        received.on_packet(at(180), 18, true, true, RTT);
        assert_eq!(received.ack_at, Some(at(1180)));
    }

    #[test]
    fn a_gap_and_what_fills_it_are_told_at_once() {
        let mut received = Received::new();
        received.on_packet(at(0), 0, true, true, RTT);
        emit(&mut received, at(0));
        received.on_packet(at(10), 2, true, true, RTT);
        assert!(received.is_due(at(10)));
        assert_eq!(emit(&mut received, at(10)).0, [(0, 1), (2, 1)]);
        received.on_packet(at(20), 1, true, true, RTT);
        assert!(received.is_due(at(20)));
        assert_eq!(emit(&mut received, at(20)).0, [(0, 3)]);
    }

    #[test]
    fn old_ranges_are_forgotten() {
        let mut received = Received::new();
        for n in 0..100 {
            received.on_packet(Instant::from_millis(n * 20), n * 2, true, true, RTT);
        }
        assert!((5..40).contains(&received.ranges.len()), "{}", received.ranges.len());
    }
}
