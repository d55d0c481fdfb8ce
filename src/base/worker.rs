//! Which of a router's workers: the one that a port, or a flow, belongs to.
//!
//! Both are functions of what every message carries and of how many workers there are, so nobody has to ask or to
//! remember. They read other bits of the hash than those that spread the flows of one lane over its queues.

use super::hash::hash64;
use super::{Port, limits::MAX_WORKERS};

/// A worker, among how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl Worker {
    /// The only worker of its router.
    pub const SOLE: Worker = Worker { index: 0, count: 1 };

    /// Worker `index` of `count`.
    pub fn new(index: usize, count: usize) -> Worker {
        assert!(index < count && count <= MAX_WORKERS, "worker {index} of {count}, of {MAX_WORKERS} at most");
        Worker { index, count }
    }

    /// Whether the session that holds this port lives here.
    pub const fn is_home_of(self, port: Port) -> bool {
        home(port, self.count) == self.index
    }
}

/// The one of `among` that this hash falls to.
pub const fn pick(hash: u64, among: usize) -> usize {
    (((hash >> 32) * among as u64) >> 32) as usize
}

/// The worker, of so many, at which the session lives that holds this port.
pub const fn home(port: Port, workers: usize) -> usize {
    pick(hash64(&port.to_be_bytes()), workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_a_row_spread_over_all_workers() {
        for workers in 1..=MAX_WORKERS {
            let mut held = vec![0; workers];
            (5000..5800).for_each(|port| held[home(port, workers)] += 1);
            assert!(held.iter().all(|&count| count > 400 / workers), "{held:?}");
            assert!((0..100).all(|port| Worker::new(home(port, workers), workers).is_home_of(port)));
        }
    }

    #[test]
    fn one_of_one_takes_all() {
        assert!([0, 1, u64::MAX].into_iter().all(|hash| pick(hash, 1) == 0));
        assert_eq!((pick(u64::MAX, 3), pick(0, 3)), (2, 0));
    }
}
