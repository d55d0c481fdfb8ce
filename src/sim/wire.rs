//! A virtual wire: what happens to a datagram between two routers, one direction at a time.

pub use super::conditions::{Conditions, Flap};
use super::ledger::{Ledger, Struck};
use crate::base::limits::MIN_DATAGRAM;
use crate::base::{Instant, Rng};
use std::fmt;
use std::time::Duration;

/// What went into a wire and came out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    /// Datagrams sent into the wire.
    pub sent: u64,
    /// Their bytes, with 28 bytes of IP and UDP headers each.
    pub bytes: u64,
    /// Datagrams that did not arrive.
    pub lost: u64,
    /// Copies that arrive in addition.
    pub doubled: u64,
    /// Datagrams and copies that arrived.
    pub arrived: u64,
}

/// Headers that a datagram carries on a real wire: IPv4 and UDP.
pub const HEADERS: usize = 28;
/// Linux error numbers that a send may give.
const EAGAIN: i32 = 11;
const EMSGSIZE: i32 = 90;
const ENOBUFS: i32 = 105;

/// One direction of a wire.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Its condition; may be changed at any time.
    pub conditions: Conditions,
    /// Largest packet that passes while it is narrower than what every path must carry, bytes with headers. None else.
    pub narrow: Option<usize>,
    /// What happened so far.
    pub counts: WireCounts,
    in_burst: bool,
    /// When the last datagram has left the sender's queue.
    busy_until: Instant,
    /// The latest arrival promised, so that jitter alone keeps order.
    last_arrival: Instant,
    /// When the spike of delay under way is over.
    spike_until: Instant,
}

/// When copies of a datagram arrive, and what happens to them on the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// First copy.
    pub first: Option<Instant>,
    /// Second copy.
    pub second: Option<Instant>,
    /// Flip this bit, counted from the start.
    pub flip: Option<usize>,
    /// Keep this many bytes.
    pub keep: Option<usize>,
    /// Why no copy arrives.
    pub lost: Option<Struck>,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = self.lost {
            return write!(f, "lost ({})", why.name());
        }
        for at in [self.first, self.second].into_iter().flatten() {
            write!(f, "arrives {at} ")?;
        }
        let damaged = self.flip.map(|bit| ("bit flipped:", bit));
        for (what, place) in damaged.into_iter().chain(self.keep.map(|bytes| ("cut short:", bytes))) {
            write!(f, "{what} {place} ")?;
        }
        Ok(())
    }
}

impl Fate {
    fn lost(why: Struck, ledger: &mut Ledger) -> Fate {
        ledger.count(why);
        Fate { lost: Some(why), ..Fate::default() }
    }
}

impl Wire {
    /// A wire in this condition.
    pub const fn new(conditions: Conditions) -> Wire {
        Wire {
            conditions,
            narrow: None,
            counts: WireCounts { sent: 0, bytes: 0, lost: 0, doubled: 0, arrived: 0 },
            in_burst: false,
            busy_until: Instant::ZERO,
            last_arrival: Instant::ZERO,
            spike_until: Instant::ZERO,
        }
    }

    /// What the kernel says to a datagram of `len` bytes before it goes into the wire.
    pub fn refuses(&self, len: usize, rng: &mut Rng, ledger: &mut Ledger) -> Result<(), i32> {
        let conditions = &self.conditions;
        if conditions.interface_mtu.is_some_and(|mtu| len + HEADERS > mtu) {
            ledger.count(Struck::SendTooLarge);
            return Err(EMSGSIZE);
        }
        if rng.chance(conditions.send_again) {
            ledger.count(Struck::SendAgain);
            return Err(EAGAIN);
        }
        if rng.chance(conditions.send_no_buffers) {
            ledger.count(Struck::SendNoBuffers);
            return Err(ENOBUFS);
        }
        Ok(())
    }

    /// Whether not even the smallest full datagram of a link passes ([`MIN_DATAGRAM`]): hellos may, data does not.
    pub fn is_narrow(&self) -> bool {
        let mtus = [self.narrow, self.conditions.mtu, self.conditions.interface_mtu];
        mtus.into_iter().flatten().any(|mtu| mtu < MIN_DATAGRAM + HEADERS)
    }

    /// Whether nothing sent now arrives, and why. `both` says whether the other direction is cut too.
    fn is_cut(&self, now: Instant, both: bool) -> Option<Struck> {
        if self.conditions.cut {
            return Some(if both { Struck::Cut } else { Struck::OneWay });
        }
        let flap = self.conditions.flap?;
        let period = (flap.up + flap.down).as_nanos().max(1) as u64;
        let down = u128::from(now.as_nanos() % period) >= flap.up.as_nanos();
        down.then_some(Struck::Flap)
    }

    /// Decides what happens to a datagram of `len` bytes sent now. `both` says whether the other direction is cut too.
    pub fn send(&mut self, now: Instant, len: usize, both: bool, rng: &mut Rng, ledger: &mut Ledger) -> Fate {
        self.counts.sent += 1;
        self.counts.bytes += (len + HEADERS) as u64;
        let fate = self.pass(now, len, both, rng, ledger);
        self.counts.lost += u64::from(fate.first.is_none());
        self.counts.doubled += u64::from(fate.second.is_some());
        fate
    }

    fn pass(&mut self, now: Instant, len: usize, both: bool, rng: &mut Rng, ledger: &mut Ledger) -> Fate {
        let conditions = self.conditions;
        if let Some(struck) = self.is_cut(now, both) {
            return Fate::lost(struck, ledger);
        }
        if self.narrow.is_some_and(|mtu| len + HEADERS > mtu) {
            return Fate::lost(Struck::Narrow, ledger);
        }
        if conditions.mtu.is_some_and(|mtu| len + HEADERS > mtu) {
            return Fate::lost(Struck::Mtu, ledger);
        }
        let Some(departure) = self.depart(now, len + HEADERS) else {
            return Fate::lost(Struck::Overflow, ledger);
        };
        if departure > now + time_of(len + HEADERS, conditions.rate) {
            ledger.count(Struck::Rate);
        }
        if let Some(struck) = self.loses(rng) {
            return Fate::lost(struck, ledger);
        }
        let mut fate = Fate { first: Some(self.arrive(departure, rng, ledger)), ..Fate::default() };
        if rng.chance(conditions.duplicate) {
            ledger.count(Struck::Duplicate);
            fate.second = Some(self.arrive(departure, rng, ledger) + conditions.delay / 4);
        }
        if len > 0 && rng.chance(conditions.corrupt) {
            ledger.count(Struck::Corrupt);
            fate.flip = Some(rng.below(len as u64 * 8) as usize);
        }
        if len > 0 && rng.chance(conditions.truncate) {
            ledger.count(Struck::Truncate);
            fate.keep = Some(rng.below(len as u64) as usize);
        }
        fate
    }

    /// When the datagram has left a rate-limited queue, or begins to where that counts; none if it does not fit.
    fn depart(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let rate = self.conditions.rate;
        if rate.is_none() {
            return Some(now);
        }
        if self.busy_until.since(now) > time_of(self.conditions.queue, rate) {
            return None;
        }
        let begin = self.busy_until.max(now);
        self.busy_until = begin + time_of(bytes, rate);
        Some(if self.conditions.taken_up { begin } else { self.busy_until })
    }

    fn loses(&mut self, rng: &mut Rng) -> Option<Struck> {
        let conditions = &self.conditions;
        if self.in_burst {
            self.in_burst = !rng.chance(conditions.burst_end);
        } else {
            self.in_burst = rng.chance(conditions.burst);
        }
        if self.in_burst && rng.chance(conditions.burst_loss) {
            return Some(Struck::Burst);
        }
        rng.chance(conditions.loss).then_some(Struck::Loss)
    }

    fn arrive(&mut self, departure: Instant, rng: &mut Rng, ledger: &mut Ledger) -> Instant {
        let conditions = self.conditions;
        let mut arrival = departure + conditions.delay;
        if !conditions.jitter.is_zero() {
            ledger.count(Struck::Jitter);
            arrival += conditions.jitter.mul_f64(rng.unit());
        }
        if rng.chance(conditions.spike) {
            self.spike_until = self.spike_until.max(departure + conditions.spike_height);
        }
        if self.spike_until > departure {
            // What comes during a spike is held until its end, as behind a stalled radio.
            ledger.count(Struck::Spike);
            arrival = arrival.max(self.spike_until + conditions.delay);
        }
        if rng.chance(conditions.reorder) {
            ledger.count(Struck::Reorder);
            return arrival + conditions.delay.mul_f64(rng.unit()) + Duration::from_micros(100);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        self.last_arrival
    }
}

/// How long `bytes` take at `rate` bits per second.
fn time_of(bytes: usize, rate: Option<u64>) -> Duration {
    rate.map_or(Duration::ZERO, |rate| Duration::from_nanos(bytes as u64 * 8 * 1_000_000_000 / rate.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(wire: &mut Wire, at: Instant, len: usize, rng: &mut Rng, ledger: &mut Ledger) -> Option<Instant> {
        wire.send(at, len, false, rng, ledger).first
    }

    #[test]
    fn a_limited_rate_spaces_datagrams_and_overflows() {
        let (mut rng, mut ledger) = (Rng::from_u64(1), Ledger::EMPTY);
        let rate = Some(8_000_000);
        let mut wire = Wire::new(Conditions { rate, queue: 3000, ..Conditions::perfect(Duration::ZERO) });
        let arrivals: Vec<_> = (0..6).map(|_| sent(&mut wire, Instant::ZERO, 972, &mut rng, &mut ledger)).collect();
        let at = |ms| Some(Instant::from_millis(ms));
        assert_eq!(arrivals, [at(1), at(2), at(3), at(4), None, None]);
        assert_eq!((ledger.get(Struck::Overflow), ledger.get(Struck::Rate)), (2, 3));
    }

    #[test]
    fn losses_come_as_often_as_asked() {
        let (mut rng, mut ledger) = (Rng::from_u64(2), Ledger::EMPTY);
        let mut wire = Wire::new(Conditions { loss: 0.05, ..Conditions::perfect(Duration::from_millis(1)) });
        for n in 0..20_000 {
            sent(&mut wire, Instant::from_millis(n), 100, &mut rng, &mut ledger);
        }
        assert!((900..1100).contains(&ledger.get(Struck::Loss)), "{ledger:?}");
    }

    #[test]
    fn bursts_are_as_long_and_as_frequent_as_asked() {
        let (mut rng, mut ledger) = (Rng::from_u64(3), Ledger::EMPTY);
        let bursty = Conditions { burst: 0.01, burst_end: 0.2, burst_loss: 0.8, ..Conditions::default() };
        let mut wire = Wire::new(bursty);
        for n in 0..100_000 {
            sent(&mut wire, Instant::from_millis(n), 100, &mut rng, &mut ledger);
        }
        // In the bad state for 0.01 / (0.01 + 0.2) of the time.
        let expected = 100_000.0 * 0.01 / 0.21 * 0.8;
        assert!((ledger.get(Struck::Burst) as f64 / expected - 1.0).abs() < 0.1, "{ledger:?}");
    }

    #[test]
    fn a_spike_holds_everything_and_keeps_order() {
        let (mut rng, mut ledger) = (Rng::from_u64(4), Ledger::EMPTY);
        let height = Duration::from_millis(50);
        let mut wire = Wire::new(Conditions { spike: 1.0, spike_height: height, ..Conditions::default() });
        let first = sent(&mut wire, Instant::ZERO, 100, &mut rng, &mut ledger);
        assert_eq!(first, Some(Instant::from_millis(51)));
        wire.conditions.spike = 0.0;
        assert_eq!(sent(&mut wire, Instant::from_millis(30), 100, &mut rng, &mut ledger), first);
        let after = sent(&mut wire, Instant::from_millis(60), 100, &mut rng, &mut ledger);
        assert_eq!(after, Some(Instant::from_millis(61)));
        assert_eq!(ledger.get(Struck::Spike), 2);
    }

    #[test]
    fn what_is_too_large_or_meets_a_cut_does_not_pass() {
        let (mut rng, mut ledger) = (Rng::from_u64(5), Ledger::EMPTY);
        let flap = Some(Flap { up: Duration::from_millis(100), down: Duration::from_millis(50) });
        let mut wire =
            Wire::new(Conditions { mtu: Some(1000), interface_mtu: Some(1400), flap, ..Conditions::default() });
        assert_eq!(wire.refuses(1373, &mut rng, &mut ledger), Err(EMSGSIZE));
        assert_eq!(wire.refuses(1372, &mut rng, &mut ledger), Ok(()));
        assert_eq!(sent(&mut wire, Instant::ZERO, 973, &mut rng, &mut ledger), None);
        assert!(sent(&mut wire, Instant::ZERO, 972, &mut rng, &mut ledger).is_some());
        assert!(sent(&mut wire, Instant::from_millis(120), 10, &mut rng, &mut ledger).is_none());
        assert!(sent(&mut wire, Instant::from_millis(151), 10, &mut rng, &mut ledger).is_some());
        wire.conditions.cut = true;
        assert!(sent(&mut wire, Instant::from_millis(151), 10, &mut rng, &mut ledger).is_none());
        let of = |struck| ledger.get(struck);
        assert_eq!((of(Struck::Mtu), of(Struck::Flap), of(Struck::OneWay), of(Struck::SendTooLarge)), (1, 1, 1, 1));
    }

    #[test]
    fn a_narrow_wire_carries_what_is_small_and_says_that_it_is_narrow() {
        let (mut rng, mut ledger) = (Rng::from_u64(6), Ledger::EMPTY);
        let mut wire = Wire::new(Conditions { mtu: Some(MIN_DATAGRAM + HEADERS), ..Conditions::default() });
        assert!(!wire.is_narrow());
        assert!(sent(&mut wire, Instant::ZERO, MIN_DATAGRAM, &mut rng, &mut ledger).is_some());
        wire.narrow = Some(MIN_DATAGRAM + HEADERS - 1);
        assert!(wire.is_narrow());
        assert!(sent(&mut wire, Instant::ZERO, MIN_DATAGRAM, &mut rng, &mut ledger).is_none());
        assert!(sent(&mut wire, Instant::ZERO, MIN_DATAGRAM - 1, &mut rng, &mut ledger).is_some());
        assert_eq!((ledger.get(Struck::Narrow), ledger.get(Struck::Mtu)), (1, 0));
    }
}
