//! Recovery: from an acknowledgement, or its absence, to what is sent again.
//!
//! # The tail
//! After the last packet of a burst nothing follows that could show a gap. TCP sends a tail loss probe (RFC 8985 section
//! 7) and a QUIC two probe packets (RFC 9002 section 6.2.4); here the link's own timer does their work:
//!
//! | | tail loss probe | here |
//! |---|---|---|
//! | leaves after | two smoothed round trips | one expected round trip, the margin (`Link::margin`), two [`REPEAT`]s |
//! | carries | new data, or what was sent last | what was sent first of all that is unanswered, in two packets |
//! | stands for | nothing: it takes nothing for lost | a loss, at once |
//! | is held up by a full window | no, but only one is ever out | no, but for two packets a round of timeouts |
//! | the rest of the tail | the probe's answer shows it as a gap | the repetition's answer does, just the same |
//! | the window | shrinks if the probe repaired something (7.4) | shrinks at once, and is restored if it did not |
//! | the probe is lost as well | waits for the retransmission timeout | the same timer, and it backs off late |
//!
//! So it is a probe that leaves sooner, which jitter allows because the margin is measured and acknowledgements are
//! repeated; and the oldest is repeated rather than the newest, because its reader waits for it longest and a link's
//! receiver needs no newest segment to answer about all others. The window shrinks at once because by then loss is far
//! likelier than lateness, and being wrong costs nothing for long: see `Controller::on_needless`. Of several rounds in a
//! row only the last is undone: by then answers are later than twice what was waited for.

use super::Link;
use super::congestion::Acked;
use super::received::REPEAT;
use super::sent::{Record, State};
use super::stats::Kind;
use crate::base::limits::{MIN_DATAGRAM, TIMER_GRANULARITY};
use crate::base::sabotage::{Rule, broken};
use crate::base::{Instant, seq};
use crate::telemetry::DropReason;
use crate::wire::frame::Ack;
use std::time::Duration;

/// Packets with reliable messages that the link's own timer gives up at once. If the answers are only late, this is
/// what that costs; if they are lost, the repetitions' answers reveal it (RFC 9002 section 6.2.4 sends two as well).
const TIMER_BURST: u32 = 2;
/// Timeouts in a row without any answer before the timer backs off: the link goes down soon after.
const PATIENT_TIMEOUTS: u32 = 8;
/// Largest back-off, as a power of two.
const MAX_BACKOFF: u32 = 4;
/// Timeouts between two lost packets, nothing acknowledged in between, that mean persistent congestion (RFC 9002
/// section 7.6.1).
const PERSISTENT: u32 = 3;
/// Timeouts after which a packet that was given up is not expected any more.
const MEMORY: u32 = 4;
/// Rare stalls up to this are waited for on any path: what a busy machine does to a process.
const MAX_STALL: Duration = Duration::from_millis(5);
/// A timer that is looked at later than this (epoll counts in whole milliseconds) tells of a stall: of this process, or
/// of the whole machine and with it of whoever should have answered. The answers get that much more time, up to
/// [`MAX_STALL`].
const LATE_LOOK: Duration = Duration::from_micros(1500);
/// Largest reordering window, in its smallest size.
const MAX_WIDENING: u32 = 16;
/// Acknowledged packets after which a widened reordering window shrinks by one step.
const NARROW_AFTER: u32 = 2048;

/// What loss detection remembers.
#[derive(Clone, Debug)]
pub(super) struct Recovery {
    /// When an acknowledgement last told something new.
    progress: Instant,
    /// The timer gives nothing more up before this.
    timer_ready: Instant,
    /// The packet that was last given more time because of a stall: each gets it once.
    stretched: Option<u64>,
    /// Timeouts in a row since the last progress, counting each round of packets once, and when the last was.
    unanswered: u32,
    unanswered_at: Instant,
    /// When the first packet was sent that the timer gave up since the last progress.
    drought: Option<Instant>,
    /// Packets with repetitions that may leave although the window is full: what tells whether the path still works must
    /// not wait for it (RFC 9002 section 7.5). So many come with each round of timeouts.
    probes: u32,
    /// Packets were seen to overtake each other.
    reordered: bool,
    /// Size of the reordering window, in eighths of the smallest round trip.
    widening: u32,
    since_widened: u32,
    deadline: Option<Instant>,
    /// How long packets are waited for that left by the path before.
    former: Duration,
}

impl Recovery {
    pub(super) const fn new() -> Recovery {
        Recovery {
            progress: Instant::ZERO,
            timer_ready: Instant::ZERO,
            stretched: None,
            unanswered: 0,
            unanswered_at: Instant::ZERO,
            drought: None,
            probes: 0,
            reordered: false,
            widening: 1,
            since_widened: 0,
            deadline: None,
            former: Duration::ZERO,
        }
    }

    /// Waits so long for packets that left by the path before.
    pub(super) const fn wait_for_former(&mut self, patience: Duration) {
        self.former = patience;
    }

    /// When the oldest outstanding packet is overdue.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn on_progress(&mut self, now: Instant) {
        self.progress = now;
        self.timer_ready = now;
        self.unanswered = 0;
        self.drought = None;
        self.probes = 0;
        self.since_widened += 1;
        if self.since_widened >= NARROW_AFTER {
            self.since_widened = 0;
            self.widening = (self.widening - 1).max(1);
        }
    }

    /// The timer gave up a packet that was sent at `sent`.
    fn on_timer(&mut self, now: Instant, sent: Instant) {
        if sent >= self.unanswered_at {
            self.unanswered += 1;
            self.unanswered_at = now;
            self.probes = TIMER_BURST;
        }
    }

    /// Whether a packet with repetitions may leave although the window is full.
    pub(super) const fn may_probe(&self) -> bool {
        self.probes > 0
    }

    /// One did.
    pub(super) const fn on_probe_sent(&mut self) {
        self.probes = self.probes.saturating_sub(1);
    }

    /// Whether packet `number`, whose timer should have been looked at `late` ago, gets more time.
    fn stretches(&mut self, now: Instant, number: u64, late: Duration) -> bool {
        let stretches = late > LATE_LOOK && self.stretched != Some(number);
        if stretches {
            self.stretched = Some(number);
            self.timer_ready = now + late.min(MAX_STALL);
            self.deadline = Some(self.timer_ready);
        }
        stretches
    }

    fn widen(&mut self) {
        self.widening = (self.widening + 1).min(MAX_WIDENING);
        self.since_widened = 0;
    }
}

impl Link {
    /// How much later than expected an answer may come: the larger of what RFC 6298 allows for, what the last
    /// thousands of answers needed, and a timer tick. Rare stalls longer than half a round trip are not waited for:
    /// that would cost every repaired message more than the needless repetitions do.
    fn margin(&self) -> Duration {
        let lateness = self.rtt.lateness().min((self.rtt.smoothed() / 2).max(MAX_STALL));
        (self.rtt.variation() * 4).max(lateness).max(TIMER_GRANULARITY)
    }

    /// How long an unanswered packet is waited for in sparse traffic: a round trip, the margin, and the repetition of
    /// a lost acknowledgement, which may be late by as much again. A repetition later than that is rare enough: it only
    /// matters where the first acknowledgement was lost.
    pub(super) fn timeout(&self) -> Duration {
        self.rtt.expected() + self.margin() + REPEAT * 2
    }

    /// How long a packet is waited for after a later one was acknowledged.
    fn reordering_timeout(&self) -> Duration {
        let window = self.rtt.min() / 8 * self.recovery.widening;
        let seen = if self.recovery.reordered { self.rtt.lateness() } else { Duration::ZERO };
        self.rtt.expected() + window.max(seen)
    }

    /// Takes in an acknowledgement.
    pub(super) fn on_ack(&mut self, now: Instant, ack: &Ack<'_>, pool: &mut crate::containers::Pool) {
        let largest = seq::expand(self.sent.next(), ack.largest);
        if largest >= self.sent.next() {
            self.counters.drops.count(DropReason::Malformed);
            return;
        }
        self.counters.acks_in += 1;
        let before = self.sent.largest_acked();
        let limited = self.sent.in_flight() * 2 >= self.congestion.window();
        let oldest = self.sent.oldest_record();
        for (offset, len) in ack.ranges() {
            let Some(last) = largest.checked_sub(offset).filter(|&last| last >= oldest) else { break };
            for number in (last.saturating_sub(len - 1).max(oldest)..=last).rev() {
                let Some(record) = self.sent.acknowledge(number) else { continue };
                let told_late = record.at < self.woke || self.sent.is_former(number);
                if number == largest && !told_late {
                    let held = Duration::from_micros(u64::from(ack.delay_us));
                    self.on_round_trip(now, now.since(record.at).checked_sub(held));
                }
                let overtaken = before.is_some_and(|before| number < before) && !self.sent.is_former(number);
                if overtaken && record.state != State::Silent {
                    self.recovery.reordered = true;
                    if !told_late {
                        self.rtt.late(now.since(record.at));
                    }
                    if record.state == State::Lost {
                        self.recovery.widen();
                    }
                }
                self.on_acknowledged(now, &record, limited, pool);
            }
        }
        self.forget_sent(now);
        self.detect_losses(now);
    }

    /// Drops the records from which nothing more can be learned.
    pub(super) fn forget_sent(&mut self, now: Instant) {
        if self.sent.may_forget() {
            self.sent.forget(now, self.timeout() * MEMORY);
        }
    }

    pub(super) fn on_round_trip(&mut self, now: Instant, sample: Option<Duration>) {
        if let Some(sample) = sample {
            self.rtt.sample(now, sample);
            self.counters.histograms.round_trip.record(sample);
        }
    }

    fn on_acknowledged(&mut self, now: Instant, record: &Record, limited: bool, pool: &mut crate::containers::Pool) {
        let given_up = match record.state {
            State::Silent | State::Acknowledged => return,
            State::Outstanding => false,
            State::Lost => true,
        };
        if self.sent.is_former(record.number) {
            return self.release_acknowledged(now, record, given_up, pool);
        }
        // What left by the active path arrived, so somebody listens there: the answer to a probe, also where packets are no
        // sign of life because there are several paths.
        self.paths.active_mut().liveness.on_acknowledged(record.at);
        self.recovery.on_progress(now);
        self.mtu.on_acked(now, record.number, usize::from(record.bytes));
        self.congestion.set_datagram(self.mtu.current() as u64);
        if given_up {
            self.counters.packets_lost_needlessly += 1;
            if !record.probe {
                self.paths.active_mut().loss.take_back();
                self.congestion.on_needless(record.at);
            }
        } else {
            self.paths.active_mut().loss.outcome(now, false);
            let (smoothed, latest) = (self.rtt.smoothed(), self.rtt.latest());
            let bytes = u64::from(record.bytes);
            self.congestion.on_acked(now, Acked { sent: record.at, bytes, limited, smoothed, latest });
        }
        self.release_acknowledged(now, record, given_up, pool);
    }

    fn release_acknowledged(
        &mut self,
        now: Instant,
        record: &Record,
        given_up: bool,
        pool: &mut crate::containers::Pool,
    ) {
        for sequence in record.sequences() {
            let message = self.reliable.acknowledge(sequence);
            if given_up && message.as_ref().is_none_or(|message| message.tries > 1) {
                self.counters.needless_retransmissions += 1;
            }
            if let Some(message) = message {
                self.counters.acknowledged += u64::from(!message.control);
                if message.tries > 1 {
                    let kind = Kind::recovered(message.control);
                    self.counters.histograms.recovery[kind.index()].record(now.since(message.first_sent));
                }
                pool.release(message.packet);
            }
        }
    }

    /// Gives up what is overdue and finds the next deadline.
    pub(super) fn detect_losses(&mut self, now: Instant) {
        let mut burst = TIMER_BURST;
        self.recovery.deadline = None;
        self.lose_former(now);
        while let Some(record) = self.sent.oldest().filter(|_| self.recovery.deadline.is_none()) {
            let backoff = self.recovery.unanswered.saturating_sub(PATIENT_TIMEOUTS).min(MAX_BACKOFF);
            let timer = (record.at + self.timeout() * (1 << backoff))
                .max(self.recovery.progress + self.margin())
                .max(self.recovery.timer_ready);
            let overtaken = self.sent.largest_acked() > Some(record.number);
            let gap = if overtaken { record.at + self.reordering_timeout() } else { Instant::MAX };
            if now < timer.min(gap) {
                self.recovery.deadline = Some(timer.min(gap));
                return;
            }
            let by_timer = now < gap;
            if by_timer && self.recovery.stretches(now, record.number, now.since(timer)) {
                return;
            }
            if by_timer && burst == 0 {
                self.recovery.timer_ready = now + self.margin();
                self.recovery.deadline = Some(self.recovery.timer_ready);
                return;
            }
            if by_timer {
                burst -= u32::from(record.is_recovered());
                self.recovery.on_timer(now, record.at);
                self.counters.timer_losses += 1;
                if !record.probe {
                    self.watch_drought(now, &record);
                }
            }
            self.sent.lose(record.number);
            self.on_lost(now, &record);
        }
    }

    /// Gives up what left by the path before, and was waited for long enough.
    fn lose_former(&mut self, now: Instant) {
        while let Some(record) = self.sent.oldest().filter(|record| self.sent.is_former(record.number)) {
            let due = record.at + self.recovery.former;
            if now < due {
                self.recovery.deadline = Some(due);
                return;
            }
            self.sent.lose(record.number);
            self.on_lost(now, &record);
        }
    }

    fn watch_drought(&mut self, now: Instant, record: &Record) {
        let since = *self.recovery.drought.get_or_insert(record.at);
        if record.at.since(since) > self.timeout() * PERSISTENT {
            self.congestion.on_persistent(now);
        }
    }

    /// A packet is given up; it is no longer in flight.
    pub(super) fn on_lost(&mut self, now: Instant, record: &Record) {
        self.counters.packets_lost += 1;
        if self.sent.is_former(record.number) {
            return self.repeat(record);
        }
        if self.mtu.on_lost(now, record.number, usize::from(record.bytes)) {
            self.counters.black_holes += 1;
            self.congestion.set_datagram(MIN_DATAGRAM as u64);
        }
        if !record.probe {
            self.paths.active_mut().loss.outcome(now, true);
            self.congestion.on_lost(now, record.at);
        }
        self.repeat(record);
    }

    fn repeat(&mut self, record: &Record) {
        for sequence in record.sequences() {
            if !broken(Rule::Retransmit) {
                self.reliable.lose(sequence, record.number);
            }
        }
    }

    /// A packet just left: the loss timer may have to run.
    pub(super) fn arm_loss_timer(&mut self, record: &Record) {
        if self.recovery.deadline.is_none() {
            self.recovery.deadline = Some(record.at + self.timeout());
        }
    }
}
