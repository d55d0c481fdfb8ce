//! How many segments a sender may have in flight: congestion marks shrink it, acknowledgements of a full window grow it.
//!
//! A loss end to end says nothing about congestion here (links have their own congestion control, and losses are
//! crashes and reroutes); a mark does: some link's queue on the way stands.
//!
//! ```text
//!              first mark
//!  slow start ───────────► avoidance: a segment per round trip
//!                                   │ ▲
//!  mark on what was sent since the  ▼ │ acknowledgements of a full window
//!  last reaction ──────────────── window × 0.7
//! ```
//!
//! A sender that doubles runs ahead of its link, which does not mark while it doubles itself. So the first marks meet a
//! window that is several times too large, and a row of reactions brings it down, each a window apart. The last of
//! them must be the one that was needed and not one more: a window below what the path holds leaves it idle.

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
    /// The receiver had all segments before this one.
    cumulative: u64,
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
        Window { size: most.min(FIRST_WINDOW as f64), most, slow_start: true, marks: 0, shrunk: 0, cumulative: 0 }
    }

    pub(super) const fn segments(&self) -> usize {
        self.size as usize
    }

    /// An acknowledgement came. One window of segments is one reaction (RFC 3168 section 6.1.2): marks on what was sent
    /// before the last one tell of a queue that it has answered already.
    pub(super) fn adapt(&mut self, acked: Acked) {
        let fresh = acked.marks.wrapping_sub(self.marks);
        let marked = fresh != 0 && fresh < 1 << 31;
        // One acknowledgement names segments from before the last reaction and from after it. Marks are only counted, so
        // as many of them as there may be old segments are taken for marks on those.
        let old = self.shrunk.saturating_sub(self.cumulative).min(acked.newly as u64);
        self.cumulative = self.cumulative.max(acked.cumulative);
        if marked {
            self.marks = acked.marks;
            self.slow_start = false;
            if acked.cumulative > self.shrunk && u64::from(fresh) > old {
                self.shrink(acked.next);
            }
        } else if acked.in_flight >= self.segments() {
            let growth = if self.slow_start { acked.newly as f64 } else { acked.newly as f64 / self.size };
            self.size = (self.size + growth).min(self.most);
        }
    }

    fn shrink(&mut self, next: u64) {
        self.size = (self.size * MARKED).max(LEAST);
        self.shrunk = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

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

    #[test]
    fn marks_on_what_was_sent_before_a_reaction_are_not_answered_again() {
        let mut window = Window::new(1024);
        window.adapt(acked(1, 64, 32, 32, 100));
        assert_eq!(window.segments(), 44);
        window.adapt(acked(53, 44, 2, 84, 130));
        assert_eq!(window.segments(), 44, "marks beyond the ranges that it had room for");
        // Sixteen of these were sent before the reaction, and all sixteen were marked.
        window.adapt(acked(69, 44, 32, 116, 160));
        assert_eq!(window.segments(), 44);
        let mut other = window;
        other.adapt(acked(70, 44, 32, 148, 192));
        assert_eq!(other.segments(), 31, "a later one was marked too");
        let mut window = Window::new(1024);
        window.adapt(acked(1, 64, 32, 32, 100));
        window.adapt(acked(53, 44, 52, 84, 130));
        window.adapt(acked(70, 44, 32, 116, 160));
        assert_eq!(window.segments(), 31, "of seventeen marks one must be on what was sent afterwards");
    }

    /// The window, from `start` segments, after each acknowledgement of 32 segments, over a path that marks what finds `room` segments or more before it.
    fn over_a_path(start: f64, room: usize, acks: usize) -> Vec<usize> {
        let mut window = Window { size: start, ..Window::new(1024) };
        let mut path = VecDeque::new();
        let (mut marks, mut cumulative) = (0, 0);
        let mut windows = Vec::new();
        for _ in 0..acks {
            while path.len() < window.segments() {
                path.push_back(path.len() >= room);
            }
            let in_flight = path.len();
            let next = cumulative + in_flight as u64;
            let newly = in_flight.min(32);
            marks += path.drain(..newly).filter(|marked| *marked).count() as u32;
            cumulative += newly as u64;
            window.adapt(Acked { marks, in_flight, newly, cumulative, next });
            windows.push(window.segments());
        }
        windows
    }

    #[test]
    fn a_window_far_too_large_comes_down_to_what_the_path_holds_and_no_further() {
        for start in (210..=1024).step_by(7) {
            let windows = over_a_path(f64::from(start), 200, 400);
            let least = windows.iter().min().expect("there are some");
            assert!(*least >= 139, "from {start} down to {least}: less than 0.7 of what was not marked");
            assert!(windows.iter().skip(200).all(|size| *size < 240), "from {start}: {windows:?}");
        }
    }
}
