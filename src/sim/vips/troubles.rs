//! What a group is troubled by and told, beside what the network suffers.

use super::{APART, Vips, set_name};
use crate::base::hash::mix64;
use crate::base::{Instant, Rng};
use crate::sim::fault::{Disk, Fault, Partition, Step, Trouble};
use crate::sim::topology::name;
use crate::wire::admin::VipOrder;
use std::time::Duration;

/// Draws a script.
struct Author<'a> {
    vips: &'a Vips,
    end: Instant,
    steps: Vec<Step>,
    rng: Rng,
}

impl Vips {
    /// What goes wrong with the group, and what operators order, until `end`.
    pub(in crate::sim) fn draw_steps(&self, seed: u64, end: Instant) -> Vec<Step> {
        let rng = Rng::from_u64(mix64(!seed ^ APART));
        let mut author = Author { vips: self, end, steps: Vec::new(), rng };
        author.orders();
        author.hosts();
        author.freezes();
        author.partitions();
        author.wishes();
        author.services();
        author.rivals();
        author.stops();
        author.unequal();
        author.steps
    }
}

impl Author<'_> {
    fn push(&mut self, at: Instant, fault: Fault) {
        self.steps.push(Step { at, fault });
    }

    /// How often something happens: not at all in most runs.
    fn times(&mut self, chance: f64, most: u64) -> u64 {
        if self.rng.chance(chance) { 1 + self.rng.below(most) } else { 0 }
    }

    /// Any moment after the first half second.
    fn moment(&mut self) -> Instant {
        Instant::from_nanos(500_000_000 + self.rng.below(self.end.as_nanos() - 600_000_000))
    }

    /// At least `least` milliseconds after `from`, less than `span` more, and before the end.
    fn after(&mut self, from: Instant, least: u64, span: u64) -> Instant {
        (from + Duration::from_millis(least + self.rng.below(span))).min(self.end)
    }

    fn member(&mut self) -> usize {
        self.vips.members[self.rng.below(self.vips.members.len() as u64) as usize]
    }

    fn set(&mut self) -> usize {
        self.rng.below(self.vips.sets as u64) as usize
    }

    fn orders(&mut self) {
        for _ in 0..self.rng.below(8) {
            let at = self.moment();
            let (router, order) = (self.member(), self.order());
            self.push(at, Fault::Order { router, order });
        }
    }

    fn order(&mut self) -> VipOrder {
        let set = set_name(self.set());
        let member = name(self.member());
        match self.rng.below(8) {
            0 => VipOrder::Move { set, to: None },
            1..=3 => VipOrder::Move { set, to: Some(member) },
            4 => VipOrder::Drain { member },
            5 | 6 => VipOrder::Undrain { member },
            _ => VipOrder::Balance,
        }
    }

    fn hosts(&mut self) {
        for _ in 0..self.times(0.3, 4) {
            let (router, from) = (self.member(), self.moment());
            let to = self.after(from, 0, 2000);
            let set = self.set();
            let (trouble, end) = match self.rng.below(3) {
                0 => (Trouble::Taken { set }, None),
                1 => (Trouble::Refuses { on: true }, Some(Trouble::Refuses { on: false })),
                _ => (Trouble::Carrier { up: false }, Some(Trouble::Carrier { up: true })),
            };
            self.push(from, Fault::Host { router, trouble });
            if let Some(trouble) = end {
                self.push(to, Fault::Host { router, trouble });
            }
        }
    }

    /// Some a little shorter than the lease, some a little longer.
    fn freezes(&mut self) {
        for _ in 0..self.times(0.3, 3) {
            let (router, at) = (self.member(), self.moment());
            let length = self.vips.lease.mul_f64(2.0 * self.rng.unit());
            self.push(at, Fault::Freeze { router, length: length.min(self.end.since(at)) });
        }
    }

    fn partitions(&mut self) {
        for _ in 0..self.times(0.3, 2) {
            let (from, side) = (self.moment(), self.rng.next_u64());
            let to = self.after(from, 100, 3000);
            let wires = self.vips.wires(|a, b| (side >> a ^ side >> b) & 1 == 1);
            if !wires.is_empty() {
                self.push(from, Fault::Partition { shape: Partition::Full, wires: wires.clone() });
                self.push(to, Fault::Merge { wires });
            }
        }
    }

    /// Operators who want a set to be somewhere, or to stay where it is; most of them change their minds.
    fn wishes(&mut self) {
        for _ in 0..self.times(0.35, 3) {
            let (set, to, at) = (set_name(self.set()), name(self.member()), self.moment());
            let (wish, end) = match self.rng.below(2) {
                0 => (VipOrder::Pause { set: set.clone() }, VipOrder::Resume { set }),
                _ => (VipOrder::Pin { set: set.clone(), to }, VipOrder::Unpin { set }),
            };
            let router = self.member();
            self.push(at, Fault::Order { router, order: wish });
            if self.rng.chance(0.7) {
                let (router, until) = (self.member(), self.after(at, 0, 4000));
                self.push(until, Fault::Order { router, order: end });
            }
        }
    }

    fn services(&mut self) {
        let checks = self.vips.checks() as u64;
        if checks == 0 {
            return;
        }
        for _ in 0..self.times(0.7, 5) {
            let (router, from) = (self.member(), self.moment());
            let to = self.after(from, 0, 3000);
            let check = self.rng.below(checks) as usize;
            self.push(from, Fault::Host { router, trouble: Trouble::Check { check, ok: false } });
            self.push(to, Fault::Host { router, trouble: Trouble::Check { check, ok: true } });
        }
    }

    fn rivals(&mut self) {
        for _ in 0..self.times(0.2, 2) {
            let (set, from) = (self.set(), self.moment());
            let to = self.after(from, 0, 3000);
            self.push(from, Fault::Rival { set, on: true });
            self.push(to, Fault::Rival { set, on: false });
        }
    }

    /// Members that leave and come back later, or at once, as in an upgrade.
    fn stops(&mut self) {
        for _ in 0..self.times(0.35, 3) {
            let (router, at) = (self.member(), self.moment());
            let back = if self.rng.chance(0.5) { at } else { self.after(at, 0, 3000) };
            self.stop_and_start(router, at, back);
        }
    }

    fn stop_and_start(&mut self, router: usize, at: Instant, back: Instant) {
        self.push(at, Fault::Stop { router });
        self.push(back, Fault::Restart { router, disk: Disk::Kept });
    }

    /// A member whose file was mistyped, for a while; or a change that all members are given one after the other.
    fn unequal(&mut self) {
        if !self.rng.chance(0.15) {
            return;
        }
        let (first, from) = (self.rng.below(self.vips.members.len() as u64) as usize, self.moment());
        let rolled_out = self.rng.chance(0.3);
        let count = if rolled_out { self.vips.members.len() } else { 1 };
        // A mistake is noticed later than the next router's turn comes.
        let (mut at, span) = (from, if rolled_out { 2000 } else { 6000 });
        for place in 0..count {
            let router = self.vips.members[(first + place) % self.vips.members.len()];
            self.push(at, Fault::Unequal { router, on: true });
            self.stop_and_start(router, at, at);
            at = self.after(at, 100, span);
        }
        if !rolled_out {
            let router = self.vips.members[first];
            self.push(at, Fault::Unequal { router, on: false });
            self.stop_and_start(router, at, at);
        }
    }
}
