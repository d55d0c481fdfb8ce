//! What a link counts, and how it is shown.

use super::Link;
use crate::base::Class;
use crate::telemetry::{Drops, Histogram, Summary};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Figures of one recovery class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassStats {
    /// Messages sent for the first time.
    pub sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Messages received and handed on; repetitions are not among them.
    pub received: u64,
    /// Their bytes.
    pub bytes_received: u64,
}

/// A link's counters and histograms at one moment. Bytes are datagram (UDP payload) bytes unless said otherwise.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LinkStats {
    /// Sealed packets received.
    pub packets_in: u64,
    /// Sealed packets sent.
    pub packets_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Best-effort messages.
    pub best_effort: ClassStats,
    /// Reliable messages.
    pub reliable: ClassStats,
    /// Messages of the control threads.
    pub control: ClassStats,
    /// Times a reliable or control message was sent again.
    pub retransmissions: u64,
    /// Packets that carried at least one repeated message.
    pub retransmission_packets: u64,
    /// Repetitions of messages whose earlier copy had arrived.
    pub needless_retransmissions: u64,
    /// Packets given up as lost.
    pub packets_lost: u64,
    /// Packets given up that turned out to have arrived.
    pub packets_lost_needlessly: u64,
    /// Packets given up by the link's own timer rather than by a gap.
    pub timer_losses: u64,
    /// Acknowledgements sent, repetitions among them.
    pub acks_out: u64,
    /// Acknowledgements sent a second time in case the first was lost.
    pub ack_repeats: u64,
    /// Acknowledgements received.
    pub acks_in: u64,
    /// Hellos sent.
    pub hellos_out: u64,
    /// Hellos received.
    pub hellos_in: u64,
    /// Path-MTU probes sent.
    pub probes: u64,
    /// Times a path stopped carrying large datagrams.
    pub black_holes: u64,
    /// Reliable messages marked because the queue is persistently long.
    pub marked: u64,
    /// Times the link came up.
    pub ups: u64,
    /// Times the link went down.
    pub downs: u64,
    /// What was dropped, by reason.
    pub drops: Drops,
    /// Congestion window, bytes.
    pub window: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Pacing rate, bytes per second.
    pub pacing_rate: u64,
    /// Messages queued.
    pub queue: usize,
    /// Largest datagram the path is known to carry.
    pub pmtu: usize,
    /// Smoothed round trip, µs.
    pub rtt_us: u64,
    /// Smallest round trip of the last seconds, µs.
    pub rtt_min_us: u64,
    /// Mean deviation of the round trip, µs.
    pub rtt_variation_us: u64,
    /// How long an unanswered packet is waited for, µs.
    pub timeout_us: u64,
    /// Neighbour's clock minus ours, µs; both count from the start of their process. None before the first echo.
    pub clock_ahead_us: Option<i64>,
    /// By how much that, and every figure of `one_way`, may be wrong, µs: half of the least round trip, and what two
    /// clocks may drift apart since.
    pub clock_error_us: Option<u64>,
    /// Smoothed way from the neighbour to us, µs, right within `clock_error_us`. None before the first echo.
    pub one_way_us: Option<u64>,
    /// Overlay messages taken in for sending.
    pub accepted: u64,
    /// Of these, dropped before they were ever sent.
    pub dropped_unsent: u64,
    /// Of these, given back unsent when the link went down.
    pub returned_unsent: u64,
    /// Reliable messages whose arrival the other end confirmed.
    pub acknowledged: u64,
    /// Reliable messages given back unconfirmed when the link went down: the other end may have them.
    pub returned_sent: u64,
    /// Reliable messages sent and not confirmed yet.
    pub unacknowledged: usize,
    /// Most messages ever queued at a time.
    pub queue_peak: usize,
    /// At the sender: from first sending to acknowledgement, of reliable messages that were sent more than once.
    pub recovery_reliable: Summary,
    /// The same of control messages.
    pub recovery_control: Summary,
    /// At the receiver: from the moment a reliable message's absence showed to its repetition's arrival. Messages that
    /// were only overtaken are not among them.
    pub gap_reliable: Summary,
    /// The same of control messages.
    pub gap_control: Summary,
    /// Stay in the queue, best effort; from acceptance to first sending.
    pub queue_delay_best_effort: Summary,
    /// Stay in the queue, reliable.
    pub queue_delay_reliable: Summary,
    /// Samples of the round trip, free of the other end's delay.
    pub round_trip: Summary,
    /// From the neighbour to us, by hellos; see `clock_error_us`.
    pub one_way: Summary,
}

/// What is recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reliable overlay messages.
    Reliable,
    /// Messages of the control threads.
    Control,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Reliable, Kind::Control];

    pub(super) const fn recovered(control: bool) -> Kind {
        if control { Kind::Control } else { Kind::Reliable }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    const fn name(self) -> &'static str {
        match self {
            Kind::Reliable => "reliable",
            Kind::Control => "control",
        }
    }
}

/// Where a link's time goes. Fixed memory; recording never allocates.
#[derive(Clone, Debug, Default)]
pub(super) struct Histograms {
    /// First sending to acknowledgement of what was repeated.
    pub(super) recovery: [Histogram; Kind::ALL.len()],
    /// Absence noticed to repetition arrived.
    pub(super) refill: [Histogram; Kind::ALL.len()],
    /// Accepted to first sent.
    pub(super) queue_delay: [Histogram; Class::ALL.len()],
    /// Round trips.
    pub(super) round_trip: Histogram,
    /// Neighbour to us.
    pub(super) one_way: Histogram,
}

impl Histograms {
    /// All of them, by the names of their summaries in [`LinkStats`].
    fn named(&self) -> impl Iterator<Item = (String, &Histogram)> {
        let kinds =
            |what: &'static str, all: &'static [Kind]| all.iter().map(move |kind| format!("{what}_{}", kind.name()));
        let classes = Class::ALL.iter().map(|class| format!("queue_delay_{}", class.name().replace('-', "_")));
        let recovery = kinds("recovery", &Kind::ALL).zip(&self.recovery);
        let refill = kinds("gap", &Kind::ALL).zip(&self.refill);
        let rest = [("round_trip".to_owned(), &self.round_trip), ("one_way".to_owned(), &self.one_way)];
        recovery.chain(refill).chain(classes.zip(&self.queue_delay)).chain(rest)
    }
}

/// What is counted as it happens: the plain counters and the histograms behind the summaries.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    pub(super) stats: LinkStats,
    pub(super) histograms: Histograms,
}

impl Counters {
    pub(super) fn new() -> Counters {
        Counters { stats: LinkStats::default(), histograms: Histograms::default() }
    }

    /// The figures, with the histograms summarised.
    pub(super) fn summarised(&self) -> LinkStats {
        let Histograms { recovery, refill, queue_delay, round_trip, one_way } = &self.histograms;
        LinkStats {
            recovery_reliable: recovery[Kind::Reliable.index()].summary(),
            recovery_control: recovery[Kind::Control.index()].summary(),
            gap_reliable: refill[Kind::Reliable.index()].summary(),
            gap_control: refill[Kind::Control.index()].summary(),
            queue_delay_best_effort: queue_delay[usize::from(Class::BestEffort.code())].summary(),
            queue_delay_reliable: queue_delay[usize::from(Class::Reliable.code())].summary(),
            round_trip: round_trip.summary(),
            one_way: one_way.summary(),
            ..self.stats.clone()
        }
    }
}

impl std::ops::Deref for Counters {
    type Target = LinkStats;

    fn deref(&self) -> &LinkStats {
        &self.stats
    }
}

impl std::ops::DerefMut for Counters {
    fn deref_mut(&mut self) -> &mut LinkStats {
        &mut self.stats
    }
}

impl LinkStats {
    /// Checks that every message taken in for sending is accounted for: queued, sent, dropped with a reason, or given
    /// back; and every reliable one that was sent: confirmed, waiting for that, or given back. Says what does not add up.
    pub fn balance(&self) -> Result<(), String> {
        let sent = self.best_effort.sent + self.reliable.sent;
        let accounted = sent + self.queue as u64 + self.dropped_unsent + self.returned_unsent;
        if self.accepted != accounted {
            let parts = (sent, self.queue, self.dropped_unsent, self.returned_unsent);
            let accepted = self.accepted;
            return Err(format!("accepted {accepted}, but (sent, queued, dropped, returned) are {parts:?}"));
        }
        let settled = self.acknowledged + self.returned_sent + self.unacknowledged as u64;
        if self.reliable.sent != settled {
            let parts = (self.acknowledged, self.unacknowledged, self.returned_sent);
            let sent = self.reliable.sent;
            return Err(format!("sent {sent} reliably, but (confirmed, waiting, returned) are {parts:?}"));
        }
        Ok(())
    }
}

impl Link {
    /// A link's histograms with their names, those of their summaries in [`LinkStats`].
    pub fn histograms(&self) -> impl Iterator<Item = (String, &Histogram)> {
        self.counters.histograms.named()
    }
}

impl Counters {
    /// Counts a hello's way from the neighbour to us; the smoothed figure follows it by an eighth, as round trips do.
    pub(super) fn count_one_way(&mut self, took: Duration) {
        self.histograms.one_way.record(took);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let smoothed = self.stats.one_way_us.map_or(micros, |before| before - before / 8 + micros / 8);
        self.stats.one_way_us = Some(smoothed);
    }
}

impl ClassStats {
    /// Counts one message sent for the first time.
    pub(super) const fn count_sent(&mut self, bytes: usize) {
        self.sent += 1;
        self.bytes_sent += bytes as u64;
    }

    /// Counts one message received.
    pub(super) const fn count_received(&mut self, bytes: usize) {
        self.received += 1;
        self.bytes_received += bytes as u64;
    }
}
