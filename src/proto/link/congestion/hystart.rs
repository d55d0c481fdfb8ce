//! HyStart++ (RFC 9406): when the first slow start ends, if no loss ends it.
//!
//! ```text
//!              a round's smallest round trip grew                  five rounds
//!  slow start ────────────────────────────────────► conservative ───────────────► over
//!      ▲                                             (a quarter of the growth)
//!      └──────────── it shrank again: jitter ───────────────┘
//! ```
//!
//! A round lasts until a packet is acknowledged that was sent after it began. Its smallest round trip is compared with
//! the round before, which jitter and a stalled process hardly touch: one prompt answer among all is enough. Packets
//! are paced, so a round's growth counts in full (the RFC's L is infinite). Every acknowledgement is one sample, however
//! many packets it names. Judging the last eight samples instead of the round would save two thirds of the losses that
//! end a slow start, and would cost fairness: the link then starts so low beside a TCP that a minute does not make it up.

use super::Acked;
use crate::base::Instant;
use std::time::Duration;

/// RFC 9406 section 4.3: MIN_RTT_THRESH and MAX_RTT_THRESH, bounds of the growth that counts; MIN_RTT_DIVISOR, the
/// share of the round trip that counts between them.
const GREW_MIN: Duration = Duration::from_millis(4);
const GREW_MAX: Duration = Duration::from_millis(16);
const GREW_SHARE: u32 = 8;
/// N_RTT_SAMPLE: samples a round needs before it is judged.
const SAMPLES: u32 = 8;
/// CSS_GROWTH_DIVISOR: conservative slow start grows by this share.
const CONSERVATIVE_GROWTH: f64 = 0.25;
/// CSS_ROUNDS: conservative rounds after which the growth is believed.
const CONSERVATIVE_ROUNDS: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    SlowStart,
    /// Since how many rounds, and the round trip below which it was jitter.
    Conservative {
        rounds: u32,
        baseline: Duration,
    },
}

/// The watch over one slow start.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    phase: Phase,
    round_began: Instant,
    samples: u32,
    sampled_at: Instant,
    round_min: Duration,
    last_min: Duration,
}

impl HyStart {
    pub(super) const fn new() -> HyStart {
        HyStart {
            phase: Phase::SlowStart,
            round_began: Instant::ZERO,
            samples: 0,
            sampled_at: Instant::ZERO,
            round_min: Duration::MAX,
            last_min: Duration::MAX,
        }
    }

    /// Packets by which the window grows for each that is acknowledged.
    pub(super) const fn growth(&self) -> f64 {
        match self.phase {
            Phase::SlowStart => 1.0,
            Phase::Conservative { .. } => CONSERVATIVE_GROWTH,
        }
    }

    /// Whether the growth is the conservative one.
    pub(super) const fn is_conservative(&self) -> bool {
        matches!(self.phase, Phase::Conservative { .. })
    }

    /// A packet was acknowledged. True if slow start is over.
    pub(super) fn on_acked(&mut self, now: Instant, acked: &Acked) -> bool {
        if acked.sent >= self.round_began && self.begin_round(now, acked.limited) {
            return true;
        }
        if self.sampled_at == now {
            return false;
        }
        self.sampled_at = now;
        self.samples += 1;
        self.round_min = self.round_min.min(acked.latest);
        if self.samples >= SAMPLES {
            self.judge();
        }
        false
    }

    /// Begins a round; true if the one before was the last. Rounds in which the window was not in use prove nothing.
    fn begin_round(&mut self, now: Instant, limited: bool) -> bool {
        self.round_began = now;
        self.last_min = self.round_min;
        (self.round_min, self.samples) = (Duration::MAX, 0);
        match &mut self.phase {
            Phase::Conservative { rounds, .. } if limited => {
                *rounds += 1;
                *rounds >= CONSERVATIVE_ROUNDS
            }
            _ => false,
        }
    }

    fn judge(&mut self) {
        match self.phase {
            Phase::SlowStart => {
                let grew = (self.last_min / GREW_SHARE).clamp(GREW_MIN, GREW_MAX);
                if self.last_min < Duration::MAX && self.round_min >= self.last_min + grew {
                    self.phase = Phase::Conservative { rounds: 0, baseline: self.round_min };
                }
            }
            Phase::Conservative { baseline, .. } if self.round_min < baseline => self.phase = Phase::SlowStart,
            Phase::Conservative { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One round of `samples` acknowledgements with these round trips; true if slow start ended in it.
    fn round(hystart: &mut HyStart, now: &mut Instant, trips: impl Iterator<Item = u64>) -> bool {
        let sent = *now;
        *now += Duration::from_millis(100);
        let mut over = false;
        for ms in trips {
            let latest = Duration::from_millis(ms);
            over |= hystart.on_acked(*now, &Acked { sent, bytes: 1232, limited: true, smoothed: latest, latest });
            *now += Duration::from_micros(1);
        }
        over
    }

    #[test]
    fn steady_round_trips_never_end_it() {
        let (mut hystart, mut now) = (HyStart::new(), Instant::from_millis(1));
        assert!((0..50).all(|_| !round(&mut hystart, &mut now, [100; 20].into_iter())));
        assert!((hystart.growth() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn growth_that_lasts_five_rounds_ends_it() {
        let (mut hystart, mut now) = (HyStart::new(), Instant::from_millis(1));
        round(&mut hystart, &mut now, [100; 20].into_iter());
        assert!(
            !round(&mut hystart, &mut now, [111; 20].into_iter()) && !hystart.is_conservative(),
            "less than an eighth"
        );
        assert!(!round(&mut hystart, &mut now, [125; 7].into_iter()) && !hystart.is_conservative(), "too few samples");
        round(&mut hystart, &mut now, [125; 20].into_iter());
        round(&mut hystart, &mut now, [145; 20].into_iter());
        assert!(hystart.is_conservative());
        for _ in 0..4 {
            assert!(!round(&mut hystart, &mut now, [150; 20].into_iter()));
        }
        assert!(round(&mut hystart, &mut now, [150; 20].into_iter()), "the fifth round is over");
    }

    #[test]
    fn jitter_does_not_end_it() {
        let (mut hystart, mut now) = (HyStart::new(), Instant::from_millis(1));
        round(&mut hystart, &mut now, [20; 20].into_iter());
        // One prompt answer in a round of late ones is enough.
        round(&mut hystart, &mut now, (0..20).map(|n| if n == 5 { 20 } else { 60 }));
        assert!(!hystart.is_conservative());
        // A whole round was late; the next one is not.
        round(&mut hystart, &mut now, [60; 20].into_iter());
        assert!(hystart.is_conservative());
        round(&mut hystart, &mut now, [21; 20].into_iter());
        assert!(!hystart.is_conservative(), "resumed");
    }

    #[test]
    fn a_window_that_is_not_in_use_does_not_count_rounds() {
        let (mut hystart, mut now) = (HyStart::new(), Instant::from_millis(1));
        round(&mut hystart, &mut now, [20; 20].into_iter());
        round(&mut hystart, &mut now, [60; 20].into_iter());
        for _ in 0..20 {
            let (sent, latest) = (now, Duration::from_millis(60));
            now += latest;
            assert!(!hystart.on_acked(now, &Acked { sent, bytes: 1232, limited: false, smoothed: latest, latest }));
        }
    }
}
