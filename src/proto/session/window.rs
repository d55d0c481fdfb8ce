//! How many segments a sender may have in flight: congestion marks shrink it, acknowledgements of a full window grow it.
//!
//! A loss end to end says nothing about congestion here (links have their own congestion control, and losses are
//! crashes and reroutes); a mark does: some link's queue on the way stands.

use super::settings::FIRST_WINDOW;
use crate::base::Instant;
use std::time::Duration;

/// What a congestion mark leaves of the window: as CUBIC does (RFC 9438 section 4.6).
const MARKED: f64 = 0.7;
/// Two, so that one is always under way while another is acknowledged.
const LEAST: f64 = 2.0;

/// The sending window, segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    size: f64,
    most: f64,
    slow_start: bool,
    /// Marked segments that the receiver has counted, and when the window was last shrunk for them.
    marks: u32,
    shrunk: Option<Instant>,
}

impl Window {
    pub(super) fn new(most: u32) -> Window {
        let most = f64::from(most).max(LEAST);
        Window { size: most.min(FIRST_WINDOW as f64), most, slow_start: true, marks: 0, shrunk: None }
    }

    pub(super) const fn segments(&self) -> usize {
        self.size as usize
    }

    /// An acknowledgement of `newly` segments that reports `marks` in all came while `in_flight` were under way.
    pub(super) fn adapt(&mut self, now: Instant, marks: u32, in_flight: usize, newly: usize, round_trip: Duration) {
        let fresh = marks.wrapping_sub(self.marks);
        if fresh != 0 && fresh < 1 << 31 {
            self.marks = marks;
            self.slow_start = false;
            if self.shrunk.is_none_or(|at| now.since(at) >= round_trip) {
                self.size = (self.size * MARKED).max(LEAST);
                self.shrunk = Some(now);
            }
        } else if in_flight >= self.segments() {
            let growth = if self.slow_start { newly as f64 } else { newly as f64 / self.size };
            self.size = (self.size + growth).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(20);

    #[test]
    fn grows_when_full_and_shrinks_once_per_round_trip() {
        let mut window = Window::new(1024);
        let at = Instant::from_millis;
        window.adapt(at(0), 0, 63, 32, TRIP);
        assert_eq!(window.segments(), 64, "what is not full does not grow");
        window.adapt(at(1), 0, 64, 32, TRIP);
        assert_eq!(window.segments(), 96, "slow start");
        window.adapt(at(2), 5, 96, 32, TRIP);
        window.adapt(at(3), 9, 96, 32, TRIP);
        assert_eq!(window.segments(), 67, "shrunk once");
        window.adapt(at(4), 7, 10, 32, TRIP);
        assert_eq!(window.segments(), 67, "an older report is none");
        window.adapt(at(5), 9, 67, 67, TRIP);
        assert_eq!(window.segments(), 68, "one per round trip from now on");
        (0..100).for_each(|n| window.adapt(at(100 + 20 * n), 10 + n as u32, 68, 1, TRIP));
        assert_eq!(window.segments(), 2);
    }
}
