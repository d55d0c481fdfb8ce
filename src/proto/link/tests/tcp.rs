//! A rival for fairness tests.

use crate::base::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// A greedy TCP as Linux's CUBIC behaves: ack-clocked, not paced, selective acknowledgements, every second segment
/// acknowledged, 1,448-byte segments, and the whole-number arithmetic of `tcp_cubic.c`, which lags a packet behind the
/// formulas. Written apart from the link's own controller, so that a mistake there does not hide here.
#[derive(Debug)]
pub(super) struct Tcp {
    /// The wires there and back.
    pub(super) wires: (usize, usize),
    pub(super) acked: u64,
    window: f64,
    threshold: f64,
    w_max: f64,
    epoch: Option<(Instant, f64, f64)>,
    /// Windows are whole packets: acknowledgements towards the next one, and Reno's window and the same for it.
    growing: f64,
    friendly: f64,
    friendly_growing: f64,
    /// The segment whose acknowledgement the receiver holds back.
    pub(super) held: Option<u64>,
    expected: u64,
    next: u64,
    highest: u64,
    outstanding: BTreeMap<u64, Instant>,
    recovery: u64,
    min_rtt: Duration,
    srtt: Duration,
    last_ack: Instant,
    round_end: u64,
    round_min: Duration,
    round_samples: u32,
}

impl Tcp {
    pub(super) fn new(wires: (usize, usize)) -> Tcp {
        Tcp {
            wires,
            acked: 0,
            window: 10.0,
            threshold: f64::MAX,
            w_max: 0.0,
            epoch: None,
            growing: 0.0,
            friendly: 0.0,
            friendly_growing: 0.0,
            held: None,
            expected: 0,
            next: 0,
            highest: 0,
            outstanding: BTreeMap::new(),
            recovery: 0,
            min_rtt: Duration::MAX,
            srtt: Duration::from_millis(100),
            last_ack: Instant::ZERO,
            round_end: 0,
            round_min: Duration::MAX,
            round_samples: 0,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        if self.outstanding.is_empty() { Instant::MAX } else { self.last_ack + self.srtt + Duration::from_millis(200) }
    }

    pub(super) fn poll(&mut self, now: Instant) -> Option<u64> {
        if now >= self.deadline() {
            (self.threshold, self.window) = ((self.window * 0.7).max(2.0), 1.0);
            (self.recovery, self.last_ack) = (self.next, now);
            self.outstanding.clear();
            self.epoch = None;
        }
        if self.outstanding.len() as f64 >= self.window.floor() {
            return None;
        }
        if self.outstanding.is_empty() {
            self.last_ack = now;
        }
        self.outstanding.insert(self.next, now);
        self.next += 1;
        Some(self.next - 1)
    }

    /// HyStart's delay exit, as Linux has it: the smallest of the first eight round trips of a round.
    fn watch_delay(&mut self, number: u64, rtt: Duration) {
        if number >= self.round_end {
            (self.round_end, self.round_min, self.round_samples) = (self.next, Duration::MAX, 0);
        }
        if self.round_samples < 8 {
            self.round_samples += 1;
            self.round_min = self.round_min.min(rtt);
        } else {
            let tolerated = (self.min_rtt / 8).clamp(Duration::from_millis(4), Duration::from_millis(16));
            if self.window >= 16.0 && self.round_min > self.min_rtt + tolerated {
                self.threshold = self.window;
            }
        }
    }

    /// A segment arrived: the segments to acknowledge now.
    pub(super) fn on_data(&mut self, number: u64) -> Option<(u64, Option<u64>)> {
        let in_order = number == self.expected;
        self.expected = self.expected.max(number + 1);
        let held = self.held.take();
        // No timer: the next segment of a greedy sender is never far. A window of one must not wait for it.
        if in_order && held.is_none() && self.window >= 4.0 {
            self.held = Some(number);
            return None;
        }
        Some((number, held))
    }

    /// One segment is acknowledged.
    pub(super) fn on_ack(&mut self, now: Instant, number: u64) {
        self.acked += 1;
        self.last_ack = now;
        let Some(sent) = self.outstanding.remove(&number) else { return };
        let rtt = now.since(sent);
        self.min_rtt = self.min_rtt.min(rtt);
        self.srtt = (self.srtt * 7 + rtt) / 8;
        self.highest = self.highest.max(number);
        let lost: Vec<u64> = self.outstanding.range(..self.highest.saturating_sub(2)).map(|(&n, _)| n).collect();
        for n in lost {
            self.outstanding.remove(&n);
            if n >= self.recovery {
                self.recovery = self.next;
                self.w_max = if self.window < self.w_max { self.window * 0.85 } else { self.window };
                self.window = (self.window * 717.0 / 1024.0).floor().max(2.0);
                self.threshold = self.window;
                self.epoch = None;
                self.growing = 0.0;
            }
        }
        if number < self.recovery {
            return;
        }
        if self.window < self.threshold {
            self.window += 1.0;
            self.watch_delay(number, rtt);
            return;
        }
        self.avoid(now);
    }

    fn avoid(&mut self, now: Instant) {
        let (w_max, window) = (self.w_max, self.window);
        let (start, k, origin) = *self.epoch.get_or_insert_with(|| {
            (self.friendly, self.friendly_growing) = (window, 0.0);
            (now, ((w_max - window).max(0.0) / 0.4).cbrt(), w_max.max(window))
        });
        let t = (now.since(start) + self.min_rtt).as_secs_f64();
        let target = (origin + 0.4 * (t - k).powi(3)).floor();
        let mut count = if target > window { (window / (target - window)).floor() } else { 100.0 * window };
        self.friendly_growing += 1.0;
        let delta = (window * 15.0 / 8.0).floor();
        while self.friendly_growing > delta {
            self.friendly_growing -= delta;
            self.friendly += 1.0;
        }
        if self.friendly > window {
            count = count.min((window / (self.friendly - window)).floor());
        }
        self.growing += 1.0;
        if self.growing >= count.max(2.0) {
            self.growing = 0.0;
            self.window += 1.0;
        }
    }
}
