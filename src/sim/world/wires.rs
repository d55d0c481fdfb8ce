//! All wires, found by their ends.

use crate::sim::wire::{Conditions, Wire};

/// Both directions of every link: in a row, ascending by where they come from and then by where they lead.
pub(super) struct Wires {
    ends: Vec<(usize, usize)>,
    wires: Vec<Wire>,
    /// By router: the place of the first that comes from it; and one more, the end.
    first: Vec<usize>,
}

impl Wires {
    /// Those of `links` among so many routers.
    pub(super) fn new(routers: usize, links: &[(usize, usize)], conditions: Conditions) -> Wires {
        let mut ends: Vec<_> = links.iter().flat_map(|&(a, b)| [(a, b), (b, a)]).collect();
        ends.sort_unstable();
        ends.dedup();
        let wires = ends.iter().map(|_| Wire::new(conditions)).collect();
        let first = (0..=routers).map(|router| ends.partition_point(|&(from, _)| from < router)).collect();
        Wires { ends, wires, first }
    }

    fn place(&self, &(from, to): &(usize, usize)) -> Option<usize> {
        let (first, end) = (*self.first.get(from)?, *self.first.get(from + 1)?);
        let place = self.ends[first..end].iter().position(|ends| ends.1 == to)?;
        Some(first + place)
    }

    pub(super) fn get(&self, ends: &(usize, usize)) -> Option<&Wire> {
        self.place(ends).map(|place| &self.wires[place])
    }

    pub(super) fn get_mut(&mut self, ends: &(usize, usize)) -> Option<&mut Wire> {
        self.place(ends).map(|place| &mut self.wires[place])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&(usize, usize), &Wire)> {
        self.ends.iter().zip(&self.wires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_direction_is_found_and_no_other() {
        let links = [(2, 5), (0, 1), (0, 2), (1, 2)];
        let mut wires = Wires::new(7, &links, Conditions::default());
        let there = |ends: &(usize, usize)| links.contains(ends) || links.contains(&(ends.1, ends.0));
        for ends in (0..9).flat_map(|from| (0..9).map(move |to| (from, to))) {
            assert_eq!(wires.get(&ends).is_some(), there(&ends), "{ends:?}");
            if let Some(wire) = wires.get_mut(&ends) {
                wire.conditions.delay = Duration::from_millis((ends.0 * 10 + ends.1) as u64);
            }
        }
        let walked: Vec<_> = wires.iter().map(|(&ends, wire)| (ends, wire.conditions.delay.as_millis())).collect();
        assert!(walked.is_sorted() && walked.len() == 8);
        assert!(walked.iter().all(|&((from, to), delay)| delay == (from * 10 + to) as u128));
    }
}
