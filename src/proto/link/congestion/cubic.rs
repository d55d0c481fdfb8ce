//! CUBIC (RFC 9438), in bytes. The first slow start is watched by HyStart++ (`hystart.rs`).
//!
//! ```text
//!              window reaches threshold, or round trips keep growing
//!  slow start ──────────────────────────────────────────────► avoidance (cubic, or Reno's pace where that is faster)
//!      ▲                                                          │ ▲
//!      │ nothing acknowledged for long                       loss ▼ │ acknowledgements
//!      └──────────────────────────────────────────────── window × 0.7
//! ```
//!
//! A loss is a loss, whether a gap or the link's own timer told of it: one reaction per round trip. If everything that
//! was given up in that round trip turns out to have arrived, the reaction is undone.

use super::hystart::HyStart;
use super::{Acked, Controller, INITIAL_WINDOW_PACKETS, MIN_WINDOW_PACKETS};
use crate::base::Instant;
use crate::base::limits::MIN_DATAGRAM;
use std::time::Duration;

/// RFC 9438 section 4.1: the cubic term's weight, packets per second cubed.
const C: f64 = 0.4;
/// RFC 9438 section 4.6: multiplicative decrease.
const BETA: f64 = 0.7;
/// RFC 9438 section 4.3: Reno-friendly increase that matches the decrease, packets per round trip.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// Pacing in units of window per round trip, as Linux paces: slow start doubles, avoidance must be able to probe
/// upwards. The smoother a sender, the fewer of its packets find a full queue, so more would be unfair to others.
const GAIN_START: f64 = 2.0;
const GAIN_AVOID: f64 = 1.2;
/// The present stretch of congestion avoidance.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Seconds from its start until the cubic curve is back at its plateau.
    k: f64,
    /// The plateau of the curve, packets.
    origin: f64,
    /// What Reno would have, packets.
    reno: f64,
}

/// What a reaction changed, to be undone.
#[derive(Clone, Copy, Debug)]
struct Before {
    window: f64,
    threshold: f64,
    plateau: f64,
    epoch: Option<Epoch>,
    /// The reaction before this one: what was sent until then was its business.
    reacted: Option<Instant>,
    /// Losses of this reaction not yet found needless.
    losses: u32,
}

/// CUBIC's state; windows in packets of `datagram` bytes.
#[derive(Debug)]
pub(in super::super) struct Cubic {
    datagram: f64,
    window: f64,
    threshold: f64,
    plateau: f64,
    epoch: Option<Epoch>,
    reacted: Option<Instant>,
    before: Option<Before>,
    hystart: HyStart,
    idle_since: Option<Instant>,
}

impl Cubic {
    pub(in super::super) fn new() -> Cubic {
        Cubic {
            datagram: MIN_DATAGRAM as f64,
            window: INITIAL_WINDOW_PACKETS as f64,
            threshold: f64::INFINITY,
            plateau: 0.0,
            epoch: None,
            reacted: None,
            before: None,
            hystart: HyStart::new(),
            idle_since: None,
        }
    }

    fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Grows the window in slow start. HyStart++ watches only the first one, which knows no threshold (RFC 9406 section
    /// 4.3): a later one ends where the window was good before.
    fn start(&mut self, now: Instant, acked: &Acked) {
        let first = self.threshold.is_infinite();
        let over = first && self.hystart.on_acked(now, acked);
        if acked.limited {
            let growth = if first { self.hystart.growth() } else { 1.0 };
            self.window += growth * acked.bytes as f64 / self.datagram;
        }
        if over {
            self.threshold = self.window;
        }
    }

    fn avoid(&mut self, now: Instant, acked: &Acked) {
        let (window, plateau) = (self.window, self.plateau);
        let epoch = self.epoch.get_or_insert_with(|| Epoch {
            start: now,
            k: ((plateau - window).max(0.0) / C).cbrt(),
            origin: plateau.max(window),
            reno: window,
        });
        // RFC 9438 section 5.8: time in which the window was not in use does not count.
        if let Some(idle) = self.idle_since.take() {
            epoch.start += now.since(idle.max(epoch.start));
        }
        let Epoch { k, origin, .. } = *epoch;
        let cubic = |seconds: f64| C * (seconds - k).powi(3) + origin;
        let elapsed = now.since(epoch.start).as_secs_f64();
        let packets = acked.bytes as f64 / self.datagram;
        // RFC 9438 section 4.3 would go on at a whole packet per round trip once the window before the loss is reached
        // again. Linux does not, and beside it that takes three fifths of a short path.
        epoch.reno += ALPHA * packets / window;
        if cubic(elapsed) < epoch.reno {
            self.window = window.max(epoch.reno);
        } else {
            let target = cubic(elapsed + acked.smoothed.as_secs_f64()).clamp(window, window * 1.5);
            self.window += (target - window) / window * packets;
        }
    }
}

impl Controller for Cubic {
    fn window(&self) -> u64 {
        (self.window * self.datagram) as u64
    }

    fn pacing_rate(&self, smoothed: Duration) -> u64 {
        let gain = if self.is_doubling() { GAIN_START } else { GAIN_AVOID };
        (gain * self.window * self.datagram / smoothed.as_secs_f64().max(50e-6)) as u64
    }

    fn is_doubling(&self) -> bool {
        self.in_slow_start() && !self.hystart.is_conservative()
    }

    fn set_datagram(&mut self, bytes: u64) {
        self.datagram = bytes as f64;
    }

    fn on_acked(&mut self, now: Instant, acked: Acked) {
        let recovering = self.reacted.is_some_and(|at| acked.sent <= at);
        if self.in_slow_start() && !recovering {
            self.idle_since = None;
            self.start(now, &acked);
        } else if !acked.limited {
            self.idle_since.get_or_insert(now);
        } else if !recovering {
            self.avoid(now, &acked);
        }
    }

    fn on_lost(&mut self, now: Instant, sent: Instant) {
        if self.reacted.is_some_and(|at| sent <= at) {
            if let Some(before) = self.before.as_mut().filter(|before| before.reacted.is_none_or(|at| at < sent)) {
                before.losses += 1;
            }
            return;
        }
        let Cubic { window, threshold, plateau, epoch, reacted, .. } = *self;
        self.before = Some(Before { window, threshold, plateau, epoch, reacted, losses: 1 });
        // RFC 9438 section 4.7, fast convergence: a flow that loses below its last plateau makes room for others.
        self.plateau = if window < plateau { window * (1.0 + BETA) / 2.0 } else { window };
        self.window = (window * BETA).max(MIN_WINDOW_PACKETS as f64);
        self.threshold = self.window;
        self.epoch = None;
        self.idle_since = None;
        self.reacted = Some(now);
    }

    fn on_needless(&mut self, sent: Instant) {
        let of_this_reaction = self.reacted.is_some_and(|at| sent <= at);
        if let Some(before) = &mut self.before
            && of_this_reaction
            && before.reacted.is_none_or(|at| at < sent)
        {
            before.losses -= 1;
            if before.losses == 0 {
                let Before { window, threshold, plateau, epoch, reacted, .. } = *before;
                self.window = self.window.max(window);
                (self.threshold, self.plateau, self.epoch) = (threshold, plateau, epoch);
                (self.before, self.reacted) = (None, reacted);
            }
        }
    }

    fn on_persistent(&mut self, now: Instant) {
        self.window = MIN_WINDOW_PACKETS as f64;
        self.epoch = None;
        self.before = None;
        self.reacted = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    /// One round trip in which a whole window is acknowledged.
    fn round(cubic: &mut Cubic, now: &mut Instant) {
        for _ in 0..cubic.window as usize {
            let acked = Acked { sent: *now, bytes: 1232, limited: true, smoothed: RTT, latest: RTT };
            cubic.on_acked(*now + RTT, acked);
        }
        *now += RTT;
    }

    #[test]
    fn doubles_then_cuts_once_per_round_trip() {
        let mut cubic = Cubic::new();
        let mut now = Instant::from_millis(1);
        for expected in [10.0, 20.0, 40.0] {
            assert!((cubic.window - expected).abs() < 0.1, "{}", cubic.window);
            round(&mut cubic, &mut now);
        }
        cubic.on_lost(now, now - RTT);
        cubic.on_lost(now, now - RTT);
        assert!((cubic.window - 56.0).abs() < 0.1, "{}", cubic.window);
        cubic.on_needless(now - RTT);
        assert!(cubic.window < 60.0, "one of two was real");
        cubic.on_needless(now - RTT);
        assert!((cubic.window - 80.0).abs() < 0.1 && cubic.in_slow_start(), "both were needless: undone");
    }

    #[test]
    fn a_needless_loss_undoes_its_own_reaction_only() {
        let mut cubic = Cubic::new();
        let start = Instant::from_millis(1_000);
        cubic.window = 100.0;
        cubic.on_lost(start + RTT, start);
        cubic.on_lost(start + RTT * 3, start + RTT * 2);
        assert!((cubic.window - 49.0).abs() < 0.1, "{}", cubic.window);
        cubic.on_needless(start);
        assert!((cubic.window - 49.0).abs() < 0.1, "{}: the second loss was real", cubic.window);
        cubic.on_lost(start + RTT * 3, start);
        cubic.on_needless(start + RTT * 2);
        assert!((cubic.window - 70.0).abs() < 0.1, "{}: only the second is undone", cubic.window);
        cubic.on_lost(start + RTT * 3, start);
        assert!((cubic.window - 70.0).abs() < 0.1, "{}: the first reaction still stands", cubic.window);
    }

    #[test]
    fn returns_to_its_plateau_after_k_seconds() {
        let mut cubic = Cubic::new();
        let mut now = Instant::from_millis(1);
        cubic.window = 400.0;
        cubic.on_lost(now, now);
        assert!((cubic.window - 280.0).abs() < 0.1);
        // RFC 9438 figure 2: K = cbrt(400 * 0.3 / 0.4) = 6.7 s.
        let k = (400.0f64 * 0.3 / 0.4).cbrt();
        now += Duration::from_millis(1);
        let start = now;
        while cubic.window < 399.0 {
            round(&mut cubic, &mut now);
        }
        let took = now.since(start).as_secs_f64();
        assert!((took - k).abs() < 1.8, "{took} s, K = {k}");
    }

    #[test]
    fn is_as_fast_as_reno_on_short_paths() {
        let mut cubic = Cubic::new();
        let mut now = Instant::from_millis(1);
        cubic.window = 20.0;
        cubic.on_lost(now, now);
        now += Duration::from_millis(1);
        for _ in 0..12 {
            round(&mut cubic, &mut now);
        }
        // From 14, 0.53 per round trip until 20 packets, so a little over 20 after twelve.
        assert!((19.0..23.0).contains(&cubic.window), "{}", cubic.window);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow_and_losses_stop_at_four() {
        let mut cubic = Cubic::new();
        let mut now = Instant::from_millis(1);
        let acked = Acked { sent: now, bytes: 1232, limited: false, smoothed: RTT, latest: RTT };
        (0..100).for_each(|_| cubic.on_acked(now, acked));
        assert!((cubic.window - 10.0).abs() < 1e-9);
        for _ in 0..20 {
            now += RTT;
            cubic.on_lost(now, now);
        }
        assert!((cubic.window - 4.0).abs() < 1e-9);
        cubic.window = 100.0;
        cubic.on_persistent(now);
        assert!((cubic.window - 4.0).abs() < 1e-9);
    }

    #[test]
    fn growing_delay_ends_slow_start_after_conservative_rounds() {
        let mut cubic = Cubic::new();
        let mut now = Instant::from_millis(1);
        let mut windows = vec![];
        for n in 0..10 {
            let (sent, latest) = (now, if n < 3 { RTT } else { RTT * 2 });
            now += latest;
            windows.push(cubic.window);
            for _ in 0..cubic.window as usize {
                let acked = Acked { sent, bytes: 1232, limited: true, smoothed: RTT, latest };
                cubic.on_acked(now, acked);
                now += Duration::from_micros(1);
            }
        }
        assert!(!cubic.in_slow_start());
        // Doubled until the delay grew; then by a quarter for five rounds, the first samples of the first excepted.
        let late = windows[8] / windows[4];
        assert!((windows[3] - 80.0).abs() < 0.1 && (2.0..2.5).contains(&late), "{windows:?}");
    }
}
