//! A virtual wire: what happens to a datagram between two routers, one direction at a time.

use crate::base::{Instant, Rng};
use std::time::Duration;

/// The condition of one direction of a wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Constant delay.
    pub delay: Duration,
    /// Extra delay, uniform from zero to this. Does not reorder by itself.
    pub jitter: Duration,
    /// Probability that a datagram is lost on its own.
    pub loss: f64,
    /// Probability that a loss starts a burst (Gilbert–Elliott): the next datagrams are lost until the burst ends, each
    /// ending it with probability one quarter.
    pub burst: f64,
    /// Probability that a datagram is held back and overtaken by later ones.
    pub reorder: f64,
    /// Probability that a datagram arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a datagram is flipped.
    pub corrupt: f64,
    /// Bits per second; none for no limit.
    pub rate: Option<u64>,
    /// Most bytes waiting for a limited rate; what does not fit is dropped.
    pub queue: usize,
    /// Nothing arrives.
    pub cut: bool,
}

impl Conditions {
    /// A faultless wire with this delay.
    pub const fn perfect(delay: Duration) -> Conditions {
        Conditions {
            delay,
            jitter: Duration::ZERO,
            loss: 0.0,
            burst: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            rate: None,
            queue: 64 * 1024,
            cut: false,
        }
    }
}

/// How often each fault struck a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    /// Datagrams sent into the wire.
    pub sent: u64,
    /// Their bytes, with 28 bytes of IP and UDP headers each.
    pub bytes: u64,
    /// Lost on their own or in a burst.
    pub lost: u64,
    /// Dropped by the full queue.
    pub overflowed: u64,
    /// Swallowed by a cut.
    pub cut: u64,
    /// Held back.
    pub reordered: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Changed.
    pub corrupted: u64,
}

/// Headers that a datagram carries on a real wire: IPv4 and UDP.
const HEADERS: usize = 28;

/// One direction of a wire.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Its condition; may be changed at any time.
    pub conditions: Conditions,
    /// What happened so far.
    pub counts: WireCounts,
    in_burst: bool,
    /// When the last datagram has left the sender's queue.
    busy_until: Instant,
    /// The latest arrival promised, so that jitter alone keeps order.
    last_arrival: Instant,
}

/// When copies of a datagram arrive, and whether a bit flips on the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// First copy.
    pub first: Option<Instant>,
    /// Second copy.
    pub second: Option<Instant>,
    /// Flip this bit, counted from the start.
    pub flip: Option<usize>,
}

impl Wire {
    /// A wire in this condition.
    pub const fn new(conditions: Conditions) -> Wire {
        Wire {
            conditions,
            counts: WireCounts {
                sent: 0,
                bytes: 0,
                lost: 0,
                overflowed: 0,
                cut: 0,
                reordered: 0,
                duplicated: 0,
                corrupted: 0,
            },
            in_burst: false,
            busy_until: Instant::ZERO,
            last_arrival: Instant::ZERO,
        }
    }

    /// Decides what happens to a datagram of `len` bytes sent now.
    pub fn send(&mut self, now: Instant, len: usize, rng: &mut Rng) -> Fate {
        let conditions = self.conditions;
        self.counts.sent += 1;
        self.counts.bytes += (len + HEADERS) as u64;
        if conditions.cut {
            self.counts.cut += 1;
            return Fate::default();
        }
        let Some(departure) = self.depart(now, len + HEADERS) else {
            self.counts.overflowed += 1;
            return Fate::default();
        };
        if self.loses(rng) {
            self.counts.lost += 1;
            return Fate::default();
        }
        let mut fate = Fate { first: Some(self.arrive(departure, rng)), ..Fate::default() };
        if rng.chance(conditions.duplicate) {
            self.counts.duplicated += 1;
            fate.second = Some(self.arrive(departure, rng) + conditions.delay / 4);
        }
        if len > 0 && rng.chance(conditions.corrupt) {
            self.counts.corrupted += 1;
            fate.flip = Some(rng.below(len as u64 * 8) as usize);
        }
        fate
    }

    /// When the datagram has left a rate-limited queue; none if it does not fit.
    fn depart(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate) = self.conditions.rate else { return Some(now) };
        let time_of = |bytes: u64| Duration::from_nanos(bytes * 8 * 1_000_000_000 / rate);
        let waiting = self.busy_until.since(now);
        if waiting > time_of(self.conditions.queue as u64) {
            return None;
        }
        self.busy_until = self.busy_until.max(now) + time_of(bytes as u64);
        Some(self.busy_until)
    }

    fn loses(&mut self, rng: &mut Rng) -> bool {
        if self.in_burst {
            self.in_burst = !rng.chance(0.25);
            return true;
        }
        let lost = rng.chance(self.conditions.loss);
        self.in_burst = lost && rng.chance(self.conditions.burst);
        lost
    }

    fn arrive(&mut self, departure: Instant, rng: &mut Rng) -> Instant {
        let conditions = self.conditions;
        let arrival = departure + conditions.delay + conditions.jitter.mul_f64(rng.unit());
        if rng.chance(conditions.reorder) {
            self.counts.reordered += 1;
            return arrival + conditions.delay.mul_f64(rng.unit()) + Duration::from_micros(100);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        self.last_arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_rate_spaces_datagrams_and_overflows() {
        let mut rng = Rng::from_u64(1);
        let rate = Some(8_000_000);
        let mut wire = Wire::new(Conditions { rate, queue: 3000, ..Conditions::perfect(Duration::ZERO) });
        let arrivals: Vec<_> = (0..6).map(|_| wire.send(Instant::ZERO, 972, &mut rng).first).collect();
        let at = |ms| Some(Instant::from_millis(ms));
        assert_eq!(arrivals, [at(1), at(2), at(3), at(4), None, None]);
        assert_eq!(wire.counts.overflowed, 2);
    }

    #[test]
    fn losses_come_as_often_as_asked() {
        let mut rng = Rng::from_u64(2);
        let mut wire = Wire::new(Conditions { loss: 0.05, ..Conditions::perfect(Duration::from_millis(1)) });
        for n in 0..20_000 {
            wire.send(Instant::from_millis(n), 100, &mut rng);
        }
        assert!((900..1100).contains(&wire.counts.lost), "{:?}", wire.counts);
    }
}
