//! How many segments a sender may have in flight: congestion marks shrink it, acknowledgements of a full window grow it.
//!
//! A loss end to end says nothing about congestion here (links have their own congestion control, and losses are
//! crashes and reroutes); a mark does: some link's queue on the way stands.

use super::settings::FIRST_WINDOW;

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
    /// Marked segments that the receiver has counted.
    marks: u32,
    /// The first segment that was not yet sent when the window was last shrunk.
    shrunk: u64,
}

/// What an acknowledgement said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    /// Marked segments the receiver has counted so far.
    pub(super) marks: u32,
    /// Segments that were under way when it came.
    pub(super) in_flight: usize,
    /// Segments it acknowledged for the first time.
    pub(super) newly: usize,
    /// The receiver has all segments before this one.
    pub(super) cumulative: u64,
    /// The next segment to be sent.
    pub(super) next: u64,
}

impl Window {
    pub(super) fn new(most: u32) -> Window {
        let most = f64::from(most).max(LEAST);
        Window { size: most.min(FIRST_WINDOW as f64), most, slow_start: true, marks: 0, shrunk: 0 }
    }

    pub(super) const fn segments(&self) -> usize {
        self.size as usize
    }

    /// An acknowledgement came. One window of segments is one reaction (RFC 3168 section 6.1.2): marks on what was sent
    /// before the last one tell of a queue that it has answered already.
    pub(super) fn adapt(&mut self, acked: Acked) {
        let Acked { marks, in_flight, newly, cumulative, next } = acked;
        let fresh = marks.wrapping_sub(self.marks);
        if fresh != 0 && fresh < 1 << 31 {
            self.marks = marks;
            self.slow_start = false;
            if cumulative > self.shrunk {
                self.size = (self.size * MARKED).max(LEAST);
                self.shrunk = next;
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

    fn acked(marks: u32, in_flight: usize, newly: usize, cumulative: u64, next: u64) -> Acked {
        Acked { marks, in_flight, newly, cumulative, next }
    }

    #[test]
    fn grows_when_full_and_shrinks_once_per_window() {
        let mut window = Window::new(1024);
        window.adapt(acked(0, 63, 32, 32, 95));
        assert_eq!(window.segments(), 64, "what is not full does not grow");
        window.adapt(acked(0, 64, 32, 64, 128));
        assert_eq!(window.segments(), 96, "slow start");
        window.adapt(acked(5, 96, 32, 96, 192));
        window.adapt(acked(9, 96, 32, 128, 192));
        window.adapt(acked(11, 64, 64, 192, 192));
        assert_eq!(window.segments(), 67, "shrunk once for all that was under way");
        window.adapt(acked(7, 10, 32, 220, 230));
        assert_eq!(window.segments(), 67, "an older report is none");
        window.adapt(acked(11, 67, 67, 259, 300));
        assert_eq!(window.segments(), 68, "one per round trip from now on");
        (0..100).for_each(|n| window.adapt(acked(12 + n, 68, 1, 301 + u64::from(n), 301 + u64::from(n))));
        assert_eq!(window.segments(), 2);
    }
}
