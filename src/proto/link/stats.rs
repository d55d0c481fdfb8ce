//! What a link counts, and how it is shown.

use super::Link;
use crate::base::Class;
use crate::telemetry::{Counts, Drops, Histogram, Summary};
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
    /// Times it went on by another path.
    pub moves: u64,
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
    /// Pauses of the pacer: from when it held messages back that the window would have let go, to when it let one go.
    pub pacing_wait: Summary,
    /// Arrived at the kernel to taken in by the worker, as the driver tells ([`Link::note_socket_wait`]).
    pub socket_wait: Summary,
    /// Taken in by this router to handed to the kernel, best effort, as the driver tells ([`Link::note_residence`]): one a
    /// datagram, of its message that stayed longest.
    pub residence_best_effort: Summary,
    /// The same of reliable messages that leave for the first time.
    pub residence_reliable: Summary,
    /// Samples of the round trip, free of the other end's delay.
    pub round_trip: Summary,
    /// From the neighbour to us, by hellos; see `clock_error_us`.
    pub one_way: Summary,
    /// What the summaries are still to be made of, by [`LinkStats::summarise`].
    #[serde(skip)]
    pub counts: Option<[Counts; HISTOGRAMS]>,
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
    const COUNT: usize = 2;

    pub(super) const fn recovered(control: bool) -> Kind {
        if control { Kind::Control } else { Kind::Reliable }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// Where a link's time goes. Fixed memory, which the first record of each takes; later ones never allocate.
#[derive(Clone, Debug, Default)]
pub(super) struct Histograms {
    /// First sending to acknowledgement of what was repeated.
    pub(super) recovery: [Histogram; Kind::COUNT],
    /// Absence noticed to repetition arrived.
    pub(super) refill: [Histogram; Kind::COUNT],
    /// Accepted to first sent.
    pub(super) queue_delay: [Histogram; Class::ALL.len()],
    /// Pauses of the pacer.
    pub(super) pacing_wait: Histogram,
    /// Arrived to taken in.
    socket_wait: Histogram,
    /// Taken in to handed to the kernel.
    residence: [Histogram; Class::ALL.len()],
    /// Round trips.
    pub(super) round_trip: Histogram,
    /// Neighbour to us.
    pub(super) one_way: Histogram,
}

/// Histograms of a link.
const HISTOGRAMS: usize = 12;

impl Histograms {
    /// Their names, those of their summaries in [`LinkStats`].
    const NAMES: [&str; HISTOGRAMS] = [
        "recovery_reliable",
        "recovery_control",
        "gap_reliable",
        "gap_control",
        "queue_delay_best_effort",
        "queue_delay_reliable",
        "pacing_wait",
        "socket_wait",
        "residence_best_effort",
        "residence_reliable",
        "round_trip",
        "one_way",
    ];

    /// All of them, in the order of their names.
    const fn all(&self) -> [&Histogram; HISTOGRAMS] {
        let Histograms { recovery, refill, queue_delay, pacing_wait, socket_wait, residence, round_trip, one_way } =
            self;
        let (best_effort, reliable) = (Class::BestEffort.code() as usize, Class::Reliable.code() as usize);
        [
            &recovery[Kind::Reliable.index()],
            &recovery[Kind::Control.index()],
            &refill[Kind::Reliable.index()],
            &refill[Kind::Control.index()],
            &queue_delay[best_effort],
            &queue_delay[reliable],
            pacing_wait,
            socket_wait,
            &residence[best_effort],
            &residence[reliable],
            round_trip,
            one_way,
        ]
    }
}

/// What is counted as it happens: the plain counters and the histograms behind the summaries.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    pub(super) stats: LinkStats,
    pub(super) histograms: Histograms,
    /// Eight times the smoothed way from the neighbour to us, ns: what division cuts off is not lost (RFC 6298's
    /// estimator as in appendix A of Jacobson's "Congestion Avoidance and Control").
    one_way_eightfold: Option<u64>,
}

impl Counters {
    pub(super) fn new() -> Counters {
        Counters { stats: LinkStats::default(), histograms: Histograms::default(), one_way_eightfold: None }
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
    /// Makes the summaries of what [`Link::counted`] left for whoever has the time.
    pub fn summarise(&mut self) {
        if let Some(counts) = self.counts.take() {
            self.take_summaries(counts.each_ref().map(Counts::summary));
        }
    }

    /// What the histograms counted, by the names of their summaries, until [`LinkStats::summarise`] is called.
    pub fn counted(&self) -> impl Iterator<Item = (&'static str, &Counts)> {
        Histograms::NAMES.into_iter().zip(self.counts.iter().flatten())
    }

    /// In the order of [`Histograms::NAMES`].
    const fn take_summaries(&mut self, summaries: [Summary; HISTOGRAMS]) {
        [
            self.recovery_reliable,
            self.recovery_control,
            self.gap_reliable,
            self.gap_control,
            self.queue_delay_best_effort,
            self.queue_delay_reliable,
            self.pacing_wait,
            self.socket_wait,
            self.residence_best_effort,
            self.residence_reliable,
            self.round_trip,
            self.one_way,
        ] = summaries;
    }

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
    /// Counters, and summaries of the histograms.
    pub fn stats(&self) -> LinkStats {
        let mut stats = self.figures();
        stats.take_summaries(self.counters.histograms.all().map(Histogram::summary));
        stats
    }

    /// Counters, and what the histograms counted, for [`LinkStats::summarise`] to be called elsewhere.
    pub fn counted(&self) -> LinkStats {
        LinkStats { counts: Some(self.counters.histograms.all().map(Histogram::counts)), ..self.figures() }
    }

    /// Datagrams of this link waited so long between their arrival at the kernel and the worker.
    pub fn note_socket_wait(&mut self, waited: Duration, datagrams: u64) {
        self.counters.histograms.socket_wait.record_several(waited, datagrams);
    }

    /// A datagram was handed to the kernel so long after its message of this class that waited longest was taken in.
    pub fn note_residence(&mut self, class: Class, took: Duration) {
        self.counters.histograms.residence[usize::from(class.code())].record(took);
    }
}

impl Counters {
    /// Counts a hello's way from the neighbour to us; the smoothed figure follows it by an eighth, as round trips do.
    pub(super) fn count_one_way(&mut self, took: Duration) {
        self.histograms.one_way.record(took);
        // Years at most, so that its eightfold is a number.
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 16);
        let eightfold = self.one_way_eightfold.map_or(nanos * 8, |before| before - before / 8 + nanos);
        self.one_way_eightfold = Some(eightfold);
        self.stats.one_way_us = Some(eightfold / 8 / 1_000);
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

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::base::{Instant, Rng};

    #[test]
    fn the_smoothed_way_ends_where_the_samples_are() {
        let micros = Duration::from_micros;
        let mut counters = Counters::new();
        let mut take = |took: Duration, times: usize| {
            (0..times).for_each(|_| counters.count_one_way(took));
            counters.one_way_us
        };
        assert_eq!(take(micros(30), 1), Some(30));
        assert!(take(micros(37), 60).is_some_and(|us| us.abs_diff(37) <= 1), "up by less than an eighth");
        assert!(take(micros(30), 60).is_some_and(|us| us.abs_diff(30) <= 1), "and down");
        assert!(
            take(micros(3), 100).is_some_and(|us| us.abs_diff(3) <= 1),
            "where an eighth is less than a microsecond"
        );
        assert!(take(Duration::MAX, 200).is_some(), "whatever a neighbour's clock says");
    }

    #[test]
    fn every_histogram_has_the_name_of_its_summary() {
        let mut link = Link::new(Instant::ZERO, Settings::default(), &[], Rng::from_u64(1));
        let histograms = &mut link.counters.histograms;
        let Histograms { recovery, refill, queue_delay, pacing_wait, socket_wait, residence, round_trip, one_way } =
            histograms;
        let all = recovery.iter_mut().chain(refill).chain(queue_delay).chain([pacing_wait, socket_wait]);
        let all = all.chain(residence).chain([round_trip, one_way]);
        let recorded = (1..).zip(all).map(|(ms, histogram)| histogram.record(Duration::from_millis(ms))).count();
        assert_eq!(recorded, HISTOGRAMS);
        let stats = serde_json::to_value(link.stats()).expect("numbers");
        for (name, counts) in link.counted().counted() {
            assert_eq!(stats[name]["p50_us"].as_f64(), Some(counts.summary().p50_us), "{name}");
        }
    }

    #[test]
    fn summaries_made_later_are_those_made_at_once() {
        let mut link = Link::new(Instant::ZERO, Settings::default(), &[], Rng::from_u64(1));
        (1..=100).for_each(|ms| link.counters.histograms.round_trip.record(Duration::from_millis(ms)));
        link.counters.histograms.refill[Kind::Control.index()].record(Duration::from_millis(7));
        let mut later = link.counted();
        assert_eq!(later.round_trip, Summary::default());
        later.summarise();
        let at_once = link.stats();
        assert_eq!((later.round_trip, later.gap_control), (at_once.round_trip, at_once.gap_control));
        assert_eq!((at_once.round_trip.count, at_once.gap_control.count, at_once.one_way.count), (100, 1, 0));
        assert!(later.counts.is_none());
    }
}
