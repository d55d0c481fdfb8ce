//! Rare branches that the simulator may take.
//!
//! A branch that a healthy network never enters (a full queue, an exhausted pool) is a branch that nobody has tested. Such
//! a branch asks `rarely!` beside its own condition:
//!
//! ```text
//! if queue.is_full() || rarely!(LinkQueueFull) { … }
//! ```
//!
//! In a simulation the point strikes with the probability that the run chose for it, drawn from the run's seed, and is
//! counted. Compiled into tests and the `sabotage` feature alone; everywhere else it is a constant false and costs
//! nothing. State is per thread, as a simulation is.

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A rare branch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[doc = $doc])+ $variant,)+ }

        impl Point {
            /// Every point.
            pub const ALL: &[Point] = &[$(Point::$variant,)+];

            /// The name in tables and scenario files.
            pub const fn name(self) -> &'static str {
                match self { $(Point::$variant => $name,)+ }
            }
        }
    };
}

points! {
    /// The packet pool has no free slot.
    PoolExhausted = "pool-exhausted",
    /// A link's queue has no room.
    LinkQueueFull = "link-queue-full",
    /// A link takes no control message.
    ControlQueueFull = "control-queue-full",
    /// A link has no room for what it would hand up.
    DeliveriesFull = "deliveries-full",
    /// A path stopped carrying large datagrams.
    BlackHole = "black-hole",
    /// No room for a message that lost its link.
    StrandedFull = "stranded-full",
    /// No room for an outgoing handshake message.
    HandshakeQueueFull = "handshake-queue-full",
    /// So many handshakes come that senders must prove their addresses.
    HandshakeLoad = "handshake-load",
    /// No room for a session's message to the network.
    OutboxFull = "outbox-full",
}

/// Number of points.
pub const POINTS: usize = Point::ALL.len();

/// True if the simulator takes the rare branch `point` now.
macro_rules! rarely {
    ($point:ident) => {
        $crate::base::rare::strikes($crate::base::rare::Point::$point)
    };
}
pub(crate) use rarely;

#[cfg(any(test, feature = "sabotage"))]
mod switch {
    use super::{POINTS, Point};
    use crate::base::Rng;
    use std::cell::RefCell;

    struct State {
        rng: Rng,
        chances: [f64; POINTS],
        struck: [u64; POINTS],
    }

    thread_local! {
        static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
    }

    /// Rare branches are taken in this thread from now on, with the probabilities that [`set_chances`] gives.
    pub fn begin(rng: Rng) {
        STATE.replace(Some(State { rng, chances: [0.0; POINTS], struck: [0; POINTS] }));
    }

    /// How probable each branch is from now on, by the order of [`Point::ALL`].
    pub fn set_chances(chances: [f64; POINTS]) {
        STATE.with_borrow_mut(|state| {
            if let Some(state) = state {
                state.chances = chances;
            }
        });
    }

    /// No rare branch is taken in this thread any more. How often each was since [`begin`].
    pub fn end() -> [u64; POINTS] {
        STATE.replace(None).map_or([0; POINTS], |state| state.struck)
    }

    /// Whether the branch is taken.
    pub fn strikes(point: Point) -> bool {
        STATE.with_borrow_mut(|state| {
            let Some(state) = state else { return false };
            let index = point as usize;
            let strikes = state.rng.chance(state.chances[index]);
            state.struck[index] += u64::from(strikes);
            strikes
        })
    }
}

#[cfg(any(test, feature = "sabotage"))]
pub use switch::{begin, end, set_chances, strikes};

/// Rare branches are not compiled in.
#[cfg(not(any(test, feature = "sabotage")))]
pub const fn strikes(_point: Point) -> bool {
    false
}

/// Rare branches are not compiled in.
#[cfg(not(any(test, feature = "sabotage")))]
pub fn begin(_rng: super::Rng) {}

/// Rare branches are not compiled in.
#[cfg(not(any(test, feature = "sabotage")))]
pub const fn set_chances(_chances: [f64; POINTS]) {}

/// Rare branches are not compiled in: none was taken.
#[cfg(not(any(test, feature = "sabotage")))]
pub const fn end() -> [u64; POINTS] {
    [0; POINTS]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn strikes_as_often_as_asked_and_the_same_for_the_same_seed() {
        let run = || {
            begin(Rng::from_u64(5));
            let mut chances = [0.0; POINTS];
            chances[Point::LinkQueueFull as usize] = 0.1;
            set_chances(chances);
            let taken: Vec<bool> = (0..1000).map(|_| rarely!(LinkQueueFull)).collect();
            assert!(!(0..1000).any(|_| rarely!(PoolExhausted)), "a point without a chance");
            (taken, end())
        };
        let (taken, struck) = run();
        let count = taken.iter().filter(|&&taken| taken).count() as u64;
        assert!((60..140).contains(&count), "{count}");
        assert_eq!(struck[Point::LinkQueueFull as usize], count);
        assert_eq!(run().0, taken);
        assert!(!(0..1000).any(|_| rarely!(LinkQueueFull)), "nothing strikes after the end");
    }
}
