//! Path MTU: how large a datagram may be (RFC 8899, packetisation layer path MTU discovery).
//!
//! ```text
//!            probe acknowledged: larger          range small enough
//!  Searching ───────────────────────────┐   ┌──────────────────────► Settled
//!     ▲  └──────────────────────────────┘   │                           │ ten minutes
//!     │     probe lost three times: smaller ┘                           │
//!     └─────────────────────────────────────────────────────────────────┘
//!  any state: only large packets are lost (a black hole) → smallest size, search again after a minute
//!             packets of the smallest size and below are lost in a row → Confirming: probes of the smallest size,
//!                 acknowledged → Searching;  seven in a row lost → too narrow, the link goes down
//! ```
//!
//! The largest size is tried first, because most paths carry it. A lost probe is no sign of congestion. A large packet that
//! was lost before one that arrived is no sign of a black hole: queues lose packets in bursts.

use crate::base::Instant;
use crate::base::limits::MIN_DATAGRAM;
use crate::base::rare::rarely;
use std::time::Duration;

/// Sizes are not told apart below this, bytes.
const STEP: usize = 16;
/// Losses of one size that prove it too large (RFC 8899 section 5.1.2, MAX_PROBES).
const MAX_PROBES: u32 = 3;
/// Pause before a search for a larger size (RFC 8899 section 5.1.1, PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);
/// Pause before a search after a black hole.
const RETRY: Duration = Duration::from_secs(60);
/// Pause between probes, and before the first: probing has no hurry.
const PAUSE: Duration = Duration::from_millis(100);
/// Large packets lost in a row, none of them acknowledged, that prove a black hole, or raise the question whether even
/// the smallest size passes.
const BLACK_HOLE: u32 = 8;
/// Probes of the smallest size lost in a row that answer it: as many as the hellos whose loss is silence by default.
const CONFIRMATIONS: u32 = 7;

/// The path-MTU search of one link.
#[derive(Clone, Debug)]
pub(super) struct Mtu {
    current: usize,
    ceiling: usize,
    /// Smallest size known or believed not to pass.
    failed: usize,
    /// Size to probe.
    size: usize,
    tries: u32,
    in_flight: Option<u64>,
    next_at: Option<Instant>,
    ids: u32,
    large_lost: u32,
    /// The highest number of a large packet that was acknowledged.
    passed: Option<u64>,
    /// The smallest size is in question.
    confirming: bool,
    /// Packets of the smallest size and below lost in a row, the smallest of them, and the highest number of one as
    /// large that was acknowledged.
    floor: (u32, usize, Option<u64>),
    too_narrow: bool,
}

impl Mtu {
    /// Starts at the smallest size every path carries.
    pub(super) fn new(ceiling: usize) -> Mtu {
        let ceiling = ceiling.max(MIN_DATAGRAM);
        Mtu {
            current: MIN_DATAGRAM,
            ceiling,
            failed: ceiling + 1,
            size: ceiling,
            tries: 0,
            in_flight: None,
            next_at: None,
            ids: 0,
            large_lost: 0,
            passed: None,
            confirming: false,
            floor: (0, usize::MAX, None),
            too_narrow: false,
        }
    }

    /// Whether not even the smallest size passes.
    pub(super) const fn is_too_narrow(&self) -> bool {
        self.too_narrow
    }

    /// Largest datagram that may be sent, UDP payload bytes.
    pub(super) const fn current(&self) -> usize {
        self.current
    }

    /// The link came up: the path may be another one.
    pub(super) fn start(&mut self, now: Instant) {
        *self = Mtu { ids: self.ids, ..Mtu::new(self.ceiling) };
        if self.ceiling > MIN_DATAGRAM {
            self.next_at = Some(now + PAUSE);
        }
    }

    /// When the next probe is due.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        if self.in_flight.is_some() { None } else { self.next_at }
    }

    /// Size and id of the probe that is due.
    pub(super) fn due(&self, now: Instant) -> Option<(usize, u32)> {
        self.deadline().filter(|&at| at <= now).map(|_| (self.size, self.ids))
    }

    /// The probe left in packet `number`.
    pub(super) fn on_probe_sent(&mut self, number: u64) {
        self.in_flight = Some(number);
        self.ids = self.ids.wrapping_add(1);
    }

    /// The caller has no room for datagrams above `ceiling`.
    pub(super) fn limit(&mut self, ceiling: usize) {
        self.ceiling = ceiling.max(self.current);
        (self.size, self.failed) = (self.ceiling, self.ceiling + 1);
        if self.ceiling == self.current {
            self.next_at = None;
        }
    }

    /// A packet was acknowledged.
    pub(super) fn on_acked(&mut self, now: Instant, number: u64, bytes: usize) {
        if bytes > MIN_DATAGRAM {
            self.large_lost = 0;
            self.passed = self.passed.max(Some(number));
        }
        let (lost, least, passed) = self.floor;
        if lost > 0 && bytes >= least {
            self.floor = (0, usize::MAX, passed.max(Some(number)));
        }
        if self.in_flight == Some(number) {
            self.in_flight = None;
            self.confirming = false;
            self.current = self.current.max(bytes);
            self.search(now);
        }
    }

    /// A packet was lost. True if that proved a black hole.
    pub(super) fn on_lost(&mut self, now: Instant, number: u64, bytes: usize) -> bool {
        if self.in_flight == Some(number) {
            self.in_flight = None;
            self.tries += 1;
            if self.confirming {
                self.too_narrow = self.tries >= CONFIRMATIONS;
                self.next_at = (!self.too_narrow).then_some(now + PAUSE);
            } else if self.tries == MAX_PROBES {
                self.failed = self.size;
                self.search(now);
            } else {
                self.next_at = Some(now + PAUSE);
            }
            return false;
        }
        if bytes <= MIN_DATAGRAM {
            self.on_small_lost(now, number, bytes);
            return false;
        }
        if self.passed > Some(number) {
            return false;
        }
        self.large_lost += 1;
        if (self.large_lost < BLACK_HOLE && !rarely!(BlackHole)) || self.current == MIN_DATAGRAM {
            return false;
        }
        *self = Mtu { ids: self.ids, next_at: Some(now + RETRY), ..Mtu::new(self.ceiling) };
        true
    }

    fn on_small_lost(&mut self, now: Instant, number: u64, bytes: usize) {
        let (lost, least, passed) = self.floor;
        if passed > Some(number) || self.confirming || self.too_narrow {
            return;
        }
        self.floor = (lost + 1, least.min(bytes), passed);
        if lost + 1 >= BLACK_HOLE {
            (self.confirming, self.in_flight, self.tries) = (true, None, 0);
            (self.size, self.next_at) = (MIN_DATAGRAM, Some(now));
            self.floor = (0, usize::MAX, passed);
        }
    }

    fn search(&mut self, now: Instant) {
        self.tries = 0;
        if self.current + STEP >= self.failed.min(self.ceiling + STEP) {
            // Settled; look again later whether the path has grown.
            self.failed = self.ceiling + 1;
            self.size = self.ceiling;
            self.next_at = (self.current < self.ceiling).then_some(now + RAISE);
        } else {
            self.size = (self.current + self.failed) / 2;
            self.next_at = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches over a path that carries `path` bytes; gives the result and the number of probes.
    fn search(ceiling: usize, path: usize) -> (usize, u32) {
        let mut mtu = Mtu::new(ceiling);
        mtu.start(Instant::ZERO);
        let mut probes = 0;
        while let Some(at) = mtu.deadline().filter(|&at| at < Instant::ZERO + RAISE) {
            let (size, id) = mtu.due(at).expect("due at its deadline");
            assert_eq!(id, probes);
            probes += 1;
            mtu.on_probe_sent(u64::from(id));
            if size <= path {
                mtu.on_acked(at, u64::from(id), size)
            } else {
                assert!(!mtu.on_lost(at, u64::from(id), size))
            }
        }
        (mtu.current(), probes)
    }

    #[test]
    fn finds_what_the_path_carries() {
        assert_eq!(search(1472, 1500), (1472, 1));
        assert_eq!(search(MIN_DATAGRAM, 1500), (MIN_DATAGRAM, 0));
        for path in (MIN_DATAGRAM..1472).step_by(7) {
            let (found, probes) = search(1472, path);
            assert!(found <= path && found + STEP >= path, "{found} of {path}");
            assert!(probes <= 18, "{probes} probes");
        }
    }

    #[test]
    fn a_burst_of_losses_before_a_large_packet_that_arrived_is_no_black_hole() {
        let mut mtu = Mtu::new(1472);
        mtu.start(Instant::ZERO);
        mtu.on_probe_sent(0);
        mtu.on_acked(Instant::ZERO, 0, 1472);
        mtu.on_acked(Instant::ZERO, 100, 1400);
        mtu.on_acked(Instant::ZERO, 5, 1400);
        assert!((20..100).all(|number| !mtu.on_lost(Instant::ZERO, number, 1400)));
        assert_eq!(mtu.current(), 1472);
        assert_eq!((101..=108).filter(|&number| mtu.on_lost(Instant::ZERO, number, 1400)).count(), 1);
    }

    /// A search that settled, and then so many packets of 700 bytes lost.
    fn loses(packets: u64) -> Mtu {
        let mut mtu = Mtu::new(MIN_DATAGRAM);
        mtu.start(Instant::ZERO);
        (0..packets).for_each(|number| assert!(!mtu.on_lost(Instant::ZERO, number, 700)));
        mtu
    }

    /// Sends the probe that is due in packet `number`.
    fn confirm(mtu: &mut Mtu, number: u64) -> Instant {
        let at = mtu.deadline().expect("the smallest size is in question");
        assert_eq!(mtu.due(at).map(|(size, _)| size), Some(MIN_DATAGRAM));
        mtu.on_probe_sent(number);
        at
    }

    #[test]
    fn a_path_that_does_not_carry_the_smallest_size_is_too_narrow() {
        assert_eq!(loses(7).deadline(), None);
        let mut mtu = loses(8);
        for number in 100..100 + u64::from(CONFIRMATIONS) {
            assert!(!mtu.is_too_narrow());
            let at = confirm(&mut mtu, number);
            mtu.on_acked(at, number - 90, 100);
            mtu.on_lost(at, number, MIN_DATAGRAM);
        }
        assert!(mtu.is_too_narrow() && mtu.deadline().is_none());
        mtu.start(Instant::ZERO);
        assert!(!mtu.is_too_narrow(), "it came up again");
    }

    #[test]
    fn a_path_on_which_larger_datagrams_once_passed_may_become_too_narrow() {
        let mut mtu = Mtu::new(1472);
        mtu.start(Instant::ZERO);
        mtu.on_probe_sent(0);
        mtu.on_acked(Instant::ZERO, 0, 1472);
        (1..=8).for_each(|number| assert!(!mtu.on_lost(Instant::ZERO, number, 1223)));
        let at = confirm(&mut mtu, 20);
        mtu.on_acked(at, 20, MIN_DATAGRAM);
        assert_eq!(
            (mtu.current(), mtu.deadline()),
            (1472, None),
            "the smallest size passes, and nothing larger was lost"
        );
    }

    #[test]
    fn losses_alone_do_not_make_a_path_narrow() {
        let mut mtu = loses(7);
        mtu.on_acked(Instant::ZERO, 7, 700);
        (8..15).for_each(|number| _ = mtu.on_lost(Instant::ZERO, number, 700));
        assert_eq!(mtu.deadline(), None, "as large a one arrived in between");
        let mut mtu = loses(8);
        let at = confirm(&mut mtu, 20);
        mtu.on_acked(at, 20, MIN_DATAGRAM);
        assert_eq!((mtu.deadline(), mtu.is_too_narrow()), (None, false), "confirmed");
        (21..29).for_each(|number| _ = mtu.on_lost(at, number, 700));
        assert!(mtu.deadline().is_some(), "asked again");
    }

    #[test]
    fn a_black_hole_is_noticed() {
        let mut mtu = Mtu::new(1472);
        mtu.start(Instant::ZERO);
        mtu.on_probe_sent(0);
        mtu.on_acked(Instant::ZERO, 0, 1472);
        for number in 1..BLACK_HOLE {
            assert!(!mtu.on_lost(Instant::ZERO, u64::from(number), 1400));
        }
        mtu.on_acked(Instant::ZERO, 50, 100);
        assert!(mtu.on_lost(Instant::ZERO, 60, 1400));
        assert_eq!(mtu.current(), MIN_DATAGRAM);
        assert_eq!(mtu.deadline(), Some(Instant::ZERO + RETRY));
    }
}
