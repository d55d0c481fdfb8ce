//! How many segments a sender may have in flight: congestion marks shrink it, acknowledgements of a full window grow it.
//!
//! A loss end to end says nothing about congestion here (links have their own congestion control, and losses are
//! crashes and reroutes); a mark does: some link's queue on the way stands.
//!
//! ```text
//!              first mark
//!  slow start ───────────► avoidance: CUBIC's curve (RFC 9438), or a segment per round trip where that is faster
//!                                   │ ▲
//!  mark on what was sent since the  ▼ │ acknowledgements of a full window
//!  last reaction ──────────────── window × 0.7
//! ```
//!
//! A sender that doubles runs ahead of its link, which does not mark while it doubles itself. So the first marks meet a
//! window that is several times too large, and a row of reactions brings it down, each a window apart. The last of
//! them must be the one that was needed and not one more: a window below what the path holds leaves it idle.

use super::settings::FIRST_WINDOW;
use crate::base::Instant;
use std::time::Duration;

/// What a congestion mark leaves of the window: as CUBIC does (RFC 9438 section 4.6).
const MARKED: f64 = 0.7;
/// RFC 9438 section 4.1: the cubic term's weight, segments per second cubed.
const CUBIC: f64 = 0.4;
/// Two, so that one is always under way while another is acknowledged.
const LEAST: f64 = 2.0;

/// The present stretch of growth since a reaction.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Seconds from its start until the cubic curve is back at its plateau.
    k: f64,
    /// The plateau of the curve, segments.
    origin: f64,
    /// A segment per round trip since its start.
    reno: f64,
}

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
    /// Where the last reaction found the window, or a little lower (RFC 9438 section 4.7).
    plateau: f64,
    epoch: Option<Epoch>,
    /// Since when the window has not been full: that time does not count (RFC 9438 section 5.8).
    unused_since: Option<Instant>,
}

/// What an acknowledgement said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    /// When it came.
    pub(super) now: Instant,
    /// Smoothed round trip.
    pub(super) round_trip: Duration,
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
        Window {
            size: most.min(FIRST_WINDOW as f64),
            most,
            slow_start: true,
            marks: 0,
            shrunk: 0,
            cumulative: 0,
            plateau: 0.0,
            epoch: None,
            unused_since: None,
        }
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
        } else if acked.in_flight < self.segments() {
            self.unused_since.get_or_insert(acked.now);
        } else if self.slow_start {
            self.size = (self.size + acked.newly as f64).min(self.most);
        } else {
            self.avoid(&acked);
        }
    }

    fn shrink(&mut self, next: u64) {
        self.plateau = if self.size < self.plateau { self.size * (1.0 + MARKED) / 2.0 } else { self.size };
        self.size = (self.size * MARKED).max(LEAST);
        self.shrunk = next;
        (self.epoch, self.unused_since) = (None, None);
    }

    /// Grows along the cubic curve (RFC 9438 section 4.2).
    fn avoid(&mut self, acked: &Acked) {
        let (size, plateau, now) = (self.size, self.plateau, acked.now);
        let epoch = self.epoch.get_or_insert_with(|| Epoch {
            start: now,
            k: ((plateau - size).max(0.0) / CUBIC).cbrt(),
            origin: plateau.max(size),
            reno: size,
        });
        if let Some(since) = self.unused_since.take() {
            epoch.start += now.since(since.max(epoch.start));
        }
        // The links see to it that TCPs get their share, so this need not be slower than Reno.
        epoch.reno += acked.newly as f64 / size;
        let ahead = now.since(epoch.start) + acked.round_trip;
        let target = (CUBIC * (ahead.as_secs_f64() - epoch.k).powi(3) + epoch.origin).clamp(size, size * 1.5);
        let cubic = size + (target - size) / size * acked.newly as f64;
        self.size = cubic.max(epoch.reno).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    fn acked(marks: u32, in_flight: usize, newly: usize, cumulative: u64, next: u64) -> Acked {
        let now = Instant::from_millis(1000);
        Acked { now, round_trip: ROUND_TRIP, marks, in_flight, newly, cumulative, next }
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
        assert_eq!(window.segments(), 69, "on the way back to where it was");
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

    /// The window, from `start` segments, after each acknowledgement of 32 segments, a millisecond each, over a path that
    /// marks what finds `room` segments or more before it.
    fn over_a_path(start: f64, room: usize, acks: usize) -> Vec<usize> {
        let mut window = Window { size: start, ..Window::new(1024) };
        let (mut path, mut now) = (VecDeque::new(), Instant::from_millis(1000));
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
            now += Duration::from_millis(newly as u64);
            let round_trip = Duration::from_millis(in_flight as u64);
            window.adapt(Acked { now, round_trip, marks, in_flight, newly, cumulative, next });
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

    #[test]
    fn comes_back_within_seconds_however_long_the_round_trip() {
        // RFC 9438 figure 2: K = cbrt(1000 * 0.3 / 0.4) = 9.1 s; a segment per round trip would take 250 s.
        let mut window = Window { size: 1000.0, ..Window::new(1024) };
        let mut acked = Acked { round_trip: Duration::from_secs(1), ..acked(1, 1000, 32, 32, 1032) };
        window.adapt(acked);
        assert_eq!(window.segments(), 700);
        for _ in 0..11 {
            acked = Acked { newly: window.segments(), in_flight: window.segments(), ..acked };
            window.adapt(acked);
            acked.now += acked.round_trip;
        }
        assert!(window.segments() > 990, "{}", window.segments());
    }

    #[test]
    fn time_in_which_the_window_is_not_full_does_not_count() {
        let mut window = Window { size: 100.0, ..Window::new(1024) };
        window.adapt(acked(1, 100, 32, 32, 132));
        window.adapt(acked(1, 70, 32, 164, 200));
        let before = window.segments();
        window.adapt(acked(1, 10, 10, 210, 220));
        let later = Instant::from_millis(61_000);
        window.adapt(Acked { now: later, ..acked(1, window.segments(), 32, 242, 300) });
        assert!(window.segments() <= before + 3, "{} after {before}", window.segments());
    }
}
