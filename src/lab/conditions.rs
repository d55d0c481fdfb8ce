//! What a link does to frames, as pure arithmetic: no socket, no clock.
//!
//! One [`Direction`] is one direction of one link. A frame offered to it first takes its place in the transmission queue
//! (rate, bounded in bytes, drop-tail), then may be lost on the wire (it has used the wire's time by then), then travels
//! for the delay plus jitter; it may be held back so that later frames overtake it, and it may arrive twice.
//!
//! The delay counts from the moment the wire takes a frame up, so that an idle link of 10 ms takes 10 ms whatever its
//! rate and whatever the frame's length; the rate shows in how soon the wire takes up the next frame.

use crate::base::{Instant, Rng};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bytes of queue before a link's transmitter unless stated: 50 ms at 10 Mbit/s.
pub const DEFAULT_QUEUE_BYTES: u64 = 62_500;

/// What one direction of a link does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// Delay, ms, from the moment the wire takes a frame up.
    pub delay_ms: f64,
    /// Uniform variation of the delay, ± ms. Order is kept: a frame never passes the one before it.
    pub jitter_ms: f64,
    /// Share of frames lost, percent. ARP is never lost, so that a loss experiment does not measure address resolution.
    pub loss_percent: f64,
    /// Mean length of a run of losses, frames. 1 is independent losses; more is a Gilbert–Elliott chain whose bad state
    /// loses everything.
    pub loss_burst: f64,
    /// Rate of the wire, kbit/s, counted over whole Ethernet frames. 0 is no limit.
    pub rate_kbps: u64,
    /// Bound of the queue before the wire, bytes: while that much waits, frames are dropped, long and short alike. Only
    /// with a rate.
    pub queue_bytes: u64,
    /// Share of frames that arrive twice, percent.
    pub duplicate_percent: f64,
    /// Share of frames held back so that later ones overtake them, percent.
    pub reorder_percent: f64,
    /// How long those are held back, ms.
    pub reorder_ms: f64,
    /// Share of UDP datagrams of which one byte is changed, percent. Their checksum is taken off, so that the kernel
    /// hands them on and the receiver has to notice.
    pub corrupt_percent: f64,
    /// Nothing passes, ARP included, and nobody is told.
    pub cut: bool,
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions {
            delay_ms: 0.0,
            jitter_ms: 0.0,
            loss_percent: 0.0,
            loss_burst: 1.0,
            rate_kbps: 0,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            duplicate_percent: 0.0,
            reorder_percent: 0.0,
            reorder_ms: 5.0,
            corrupt_percent: 0.0,
            cut: false,
        }
    }
}

impl Conditions {
    /// A wire with this delay and rate, a queue of 50 ms or the default, whichever is more, and no faults.
    pub fn wire(delay_ms: f64, rate_kbps: u64) -> Conditions {
        let queue_bytes = DEFAULT_QUEUE_BYTES.max(rate_kbps * 50 / 8);
        Conditions { delay_ms, rate_kbps, queue_bytes, ..Conditions::default() }
    }

    /// The same with this share of frames lost, percent.
    pub fn losing(self, loss_percent: f64) -> Conditions {
        Conditions { loss_percent, ..self }
    }

    /// What is wrong with them, if anything.
    pub fn check(&self) -> Result<(), String> {
        let percents = [
            ("loss_percent", self.loss_percent),
            ("duplicate_percent", self.duplicate_percent),
            ("reorder_percent", self.reorder_percent),
            ("corrupt_percent", self.corrupt_percent),
        ];
        for (name, value) in percents {
            if !(0.0..=100.0).contains(&value) {
                return Err(format!("{name} = {value}: a percentage from 0 to 100 is expected"));
            }
        }
        let times = [("delay_ms", self.delay_ms), ("jitter_ms", self.jitter_ms), ("reorder_ms", self.reorder_ms)];
        for (name, value) in times {
            if !(0.0..=10_000.0).contains(&value) {
                return Err(format!("{name} = {value}: milliseconds from 0 to 10000 are expected"));
            }
        }
        if !(1.0..=10_000.0).contains(&self.loss_burst) {
            return Err(format!("loss_burst = {}: a mean run of 1 or more frames is expected", self.loss_burst));
        }
        Ok(())
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives {
        /// When.
        due: Instant,
        /// And when again, if it is duplicated.
        again: Option<Instant>,
        /// Later frames may overtake it.
        held_back: bool,
    },
    /// Lost on the wire.
    Lost,
    /// The queue was full.
    QueueFull,
    /// The link is cut.
    Cut,
}

/// One direction of one link.
#[derive(Clone, Debug)]
pub struct Direction {
    conditions: Conditions,
    rng: Rng,
    /// The wire is transmitting until then.
    busy_until: Instant,
    /// When the last frame that kept its place arrives.
    last_due: Instant,
    /// The Gilbert–Elliott chain is in its bad state.
    bad: bool,
}

fn millis(value: f64) -> Duration {
    Duration::from_nanos((value * 1e6) as u64)
}

impl Direction {
    /// A direction with these conditions, whose every random choice follows from `rng`.
    pub fn new(conditions: Conditions, rng: Rng) -> Direction {
        Direction { conditions, rng, busy_until: Instant::ZERO, last_due: Instant::ZERO, bad: false }
    }

    /// The conditions in force.
    pub const fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Changes the conditions for frames not yet offered. What is in flight arrives as it was going to.
    pub fn set(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// Offers a frame of `len` bytes that reached the link at `now`. A `protected` frame is spared random loss.
    pub fn offer(&mut self, now: Instant, len: usize, protected: bool) -> Fate {
        let conditions = self.conditions;
        if conditions.cut {
            return Fate::Cut;
        }
        let Some(sent) = self.take_up(now, len) else { return Fate::QueueFull };
        if self.loses() && !protected {
            return Fate::Lost;
        }
        let mut due = sent + millis(conditions.delay_ms);
        if conditions.jitter_ms > 0.0 {
            let swing = conditions.jitter_ms * (2.0 * self.rng.unit() - 1.0);
            due = sent + millis((conditions.delay_ms + swing).max(0.0));
        }
        due = due.max(self.last_due);
        let held_back = self.rng.chance(conditions.reorder_percent / 100.0);
        if held_back {
            due += millis(conditions.reorder_ms);
        } else {
            self.last_due = due;
        }
        let again = self.rng.chance(conditions.duplicate_percent / 100.0).then_some(due);
        Fate::Arrives { due, again, held_back }
    }

    /// Which byte of a datagram that arrives is changed and how, as a number to choose by; most often none.
    pub fn corrupts(&mut self) -> Option<u64> {
        let share = self.conditions.corrupt_percent / 100.0;
        (share > 0.0 && self.rng.chance(share)).then(|| self.rng.next_u64())
    }

    /// When the wire takes the frame up; `None` if the queue before it is full.
    fn take_up(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let rate = self.conditions.rate_kbps;
        if rate == 0 {
            return Some(now);
        }
        let waiting = self.busy_until.since(now);
        let queued_bytes = (waiting.as_nanos() * u128::from(rate) / 8_000_000) as u64;
        // A short frame gets no better chance than a long one: flows with frames of different lengths share this queue.
        if queued_bytes >= self.conditions.queue_bytes {
            return None;
        }
        let start = self.busy_until.max(now);
        self.busy_until = start + Duration::from_nanos(len as u64 * 8_000_000 / rate);
        Some(start)
    }

    fn loses(&mut self) -> bool {
        let loss = self.conditions.loss_percent / 100.0;
        if self.conditions.loss_burst <= 1.0 || loss <= 0.0 || loss >= 1.0 {
            self.bad = false;
            return self.rng.chance(loss);
        }
        // Leaving the bad state with 1/burst gives the mean run; entering it so often gives the mean loss.
        let leave = 1.0 / self.conditions.loss_burst;
        let enter = (leave * loss / (1.0 - loss)).min(1.0);
        self.bad = if self.bad { !self.rng.chance(leave) } else { self.rng.chance(enter) };
        self.bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction(conditions: Conditions) -> Direction {
        Direction::new(conditions, Rng::from_u64(1))
    }

    /// Whether each of many frames, a millisecond apart, was lost.
    fn losses(conditions: Conditions) -> Vec<bool> {
        let mut direction = direction(conditions);
        (0..200_000).map(|i| direction.offer(Instant::from_millis(i), 1000, false) == Fate::Lost).collect()
    }

    #[test]
    fn an_idle_wire_adds_its_delay_and_a_busy_one_the_wait() {
        let mut direction = direction(Conditions::wire(10.0, 10_000));
        let now = Instant::from_millis(100);
        let due = |ns| Fate::Arrives { due: Instant::from_nanos(ns), again: None, held_back: false };
        // 1,250 bytes are 10,000 bits: a millisecond at 10 Mbit/s; the second frame waits for the first.
        assert_eq!(direction.offer(now, 1250, false), due(110_000_000));
        assert_eq!(direction.offer(now, 1250, false), due(111_000_000));
        assert_eq!(direction.offer(Instant::from_millis(200), 1250, false), due(210_000_000));
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_and_drains_at_the_rate() {
        let conditions = Conditions { queue_bytes: 10_000, ..Conditions::wire(0.0, 8_000) };
        let mut direction = direction(conditions);
        let taken = (0..100).filter(|_| direction.offer(Instant::ZERO, 1000, false) != Fate::QueueFull).count();
        assert_eq!(taken, 10);
        // 8 Mbit/s is a byte a microsecond: after 3 ms there is room for three more.
        let later = Instant::from_millis(3);
        let taken = (0..100).filter(|_| direction.offer(later, 1000, false) != Fate::QueueFull).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn independent_loss_has_its_rate_and_short_runs() {
        let lost = losses(Conditions::default().losing(1.0));
        let count = lost.iter().filter(|&&lost| lost).count();
        assert!((1_800..=2_200).contains(&count), "{count}");
        let runs = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((count as f64 / runs as f64) < 1.05, "{count} in {runs} runs");
    }

    #[test]
    fn bursty_loss_has_its_rate_and_its_runs() {
        let lost = losses(Conditions { loss_burst: 5.0, ..Conditions::default().losing(2.0) });
        let count = lost.iter().filter(|&&lost| lost).count();
        let runs = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((3_300..=4_700).contains(&count), "{count}");
        assert!((4.5..=5.5).contains(&(count as f64 / runs as f64)), "{count} in {runs} runs");
    }

    #[test]
    fn protected_frames_survive_loss_but_not_a_cut() {
        let mut direction = direction(Conditions::default().losing(100.0));
        assert!(matches!(direction.offer(Instant::ZERO, 60, true), Fate::Arrives { .. }));
        assert_eq!(direction.offer(Instant::ZERO, 60, false), Fate::Lost);
        direction.set(Conditions { cut: true, ..Conditions::default() });
        assert_eq!(direction.offer(Instant::ZERO, 60, true), Fate::Cut);
    }

    #[test]
    fn jitter_varies_the_delay_and_keeps_the_order() {
        let mut direction = direction(Conditions { jitter_ms: 3.0, ..Conditions::wire(10.0, 0) });
        let mut last = Instant::ZERO;
        let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
        for i in 0..10_000 {
            let now = Instant::from_millis(i);
            let Fate::Arrives { due, .. } = direction.offer(now, 100, false) else { panic!("nothing is lost here") };
            assert!(due >= last);
            (least, most) = (least.min(due.since(now)), most.max(due.since(now)));
            last = due;
        }
        assert!(least < Duration::from_millis(9) && most > Duration::from_micros(12_900), "{least:?} {most:?}");
    }

    #[test]
    fn held_back_frames_are_overtaken_and_duplicates_counted() {
        let faults = Conditions { reorder_percent: 10.0, duplicate_percent: 10.0, ..Conditions::wire(10.0, 0) };
        let mut direction = direction(faults);
        let (mut held, mut doubled) = (0, 0);
        for i in 0..10_000 {
            let fate = direction.offer(Instant::from_millis(i), 100, false);
            let Fate::Arrives { due, again, held_back } = fate else { panic!("nothing is lost here") };
            assert_eq!(due, Instant::from_millis(i + if held_back { 15 } else { 10 }));
            held += usize::from(held_back);
            doubled += usize::from(again.is_some());
        }
        assert!((900..=1_100).contains(&held) && (900..=1_100).contains(&doubled), "{held} {doubled}");
    }

    #[test]
    fn the_same_seed_gives_the_same_fates() {
        let faults =
            Conditions { jitter_ms: 2.0, duplicate_percent: 5.0, ..Conditions::wire(10.0, 10_000) }.losing(5.0);
        let (mut a, mut b) = (direction(faults), direction(faults));
        assert!((0..1000).all(|i| {
            let now = Instant::from_millis(i);
            a.offer(now, 500, false) == b.offer(now, 500, false)
        }));
    }
}
