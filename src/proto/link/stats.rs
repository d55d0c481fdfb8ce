//! What a link counts, and how it is shown.

use crate::base::Class;
use crate::telemetry::{Drops, Histogram, Summary};
use serde::{Deserialize, Serialize};

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
    /// From first sending to acknowledgement, of messages that were sent more than once.
    pub recovery: Summary,
    /// Stay in the queue, best effort.
    pub queue_delay_best_effort: Summary,
    /// Stay in the queue, reliable.
    pub queue_delay_reliable: Summary,
    /// Samples of the round trip.
    pub round_trip: Summary,
}

/// What is counted as it happens: the plain counters and the histograms behind the summaries.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    pub(super) stats: LinkStats,
    pub(super) recovery: Histogram,
    pub(super) queue_delay: [Histogram; Class::ALL.len()],
    pub(super) round_trip: Histogram,
}

impl Counters {
    pub(super) fn new() -> Counters {
        Counters {
            stats: LinkStats::default(),
            recovery: Histogram::new(),
            queue_delay: [Histogram::new(), Histogram::new()],
            round_trip: Histogram::new(),
        }
    }

    /// The figures, with the histograms summarised.
    pub(super) fn summarised(&self) -> LinkStats {
        LinkStats {
            recovery: self.recovery.summary(),
            queue_delay_best_effort: self.queue_delay[usize::from(Class::BestEffort.code())].summary(),
            queue_delay_reliable: self.queue_delay[usize::from(Class::Reliable.code())].summary(),
            round_trip: self.round_trip.summary(),
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
