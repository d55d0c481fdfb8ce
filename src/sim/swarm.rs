//! Draws what a seed is troubled by.
//!
//! Swarm testing: every seed has some faults, few have all, each with a strength of its own. A fault that is always
//! there hides what only happens in its absence.

use super::MOST_WORKERS;
use super::conditions::{Conditions, Flap};
use super::fault::{Disk, Fault, Metric, Partition, Step};
use super::topology::Topology;
use super::wire::HEADERS;
use crate::base::hash::mix64;
use crate::base::limits::MIN_DATAGRAM;
use crate::base::{Instant, Rng};
use std::time::Duration;

/// The first half second is left in peace, so that something is there to be broken.
const PEACE: u64 = 500_000_000;
/// A fault of a wire's condition is there in this share of the seeds, and in those on half of the wires.
const WIRE_FAULT: f64 = 0.35;

/// Every path carries packets of this size, bytes with headers.
const WIDE: usize = MIN_DATAGRAM + HEADERS;
/// Narrow paths carry at least hellos and handshakes, mostly.
const NARROWEST: usize = 200;

/// The strengths of the faults of wires.
#[derive(Clone, Copy, Debug)]
struct Wires {
    jitter: f64,
    spike: f64,
    loss: f64,
    burst: f64,
    reorder: f64,
    duplicate: f64,
    corrupt: f64,
    truncate: f64,
    send_again: f64,
    send_no_buffers: f64,
    mtu: bool,
    interface_mtu: bool,
    rate: bool,
    flap: bool,
}

impl Wires {
    fn draw(rng: &mut Rng) -> Wires {
        let mut some = |most: f64| if rng.chance(WIRE_FAULT) { most * rng.unit() } else { 0.0 };
        Wires {
            jitter: some(0.5),
            spike: some(0.002),
            loss: some(0.15),
            burst: some(0.03),
            reorder: some(0.1),
            duplicate: some(0.05),
            corrupt: some(0.02),
            truncate: some(0.02),
            send_again: some(0.02),
            send_no_buffers: some(0.02),
            mtu: rng.chance(0.2),
            interface_mtu: rng.chance(0.15),
            rate: rng.chance(0.3),
            flap: rng.chance(0.2),
        }
    }

    fn conditions(&self, rng: &mut Rng) -> Conditions {
        let delay = Duration::from_micros(200 + rng.below(30_000));
        let millis = |rng: &mut Rng, from: u64, to: u64| Duration::from_millis(from + rng.below(to - from));
        Conditions {
            jitter: delay.mul_f64(self.jitter * rng.unit()),
            spike: self.spike * rng.unit(),
            spike_height: millis(rng, 20, 400),
            loss: self.loss * rng.unit(),
            burst: self.burst * rng.unit(),
            burst_end: 0.05 + 0.4 * rng.unit(),
            burst_loss: 0.5 + 0.5 * rng.unit(),
            reorder: self.reorder * rng.unit(),
            duplicate: self.duplicate * rng.unit(),
            corrupt: self.corrupt * rng.unit(),
            truncate: self.truncate * rng.unit(),
            // Never below what every path must carry: that is a fault of its own.
            mtu: (self.mtu && rng.chance(0.3)).then(|| WIDE + rng.below(240) as usize),
            interface_mtu: (self.interface_mtu && rng.chance(0.3)).then(|| WIDE + rng.below(240) as usize),
            rate: self.rate.then(|| 2_000_000 + rng.below(20_000_000)),
            queue: 8_000 + rng.below(100_000) as usize,
            send_again: self.send_again * rng.unit(),
            send_no_buffers: self.send_no_buffers * rng.unit(),
            flap: (self.flap && rng.chance(0.2))
                .then(|| Flap { up: millis(rng, 300, 2000), down: millis(rng, 20, 900) }),
            ..Conditions::perfect(delay)
        }
    }
}

/// Draws a script.
struct Author<'a> {
    topology: &'a Topology,
    end: Instant,
    steps: Vec<Step>,
    rng: &'a mut Rng,
}

/// What goes wrong between zero and `end` in a network of this shape.
pub(super) fn draw(topology: &Topology, end: Instant, long: bool, rng: &mut Rng) -> Vec<Step> {
    let wires = Wires::draw(rng);
    let mut author = Author { topology, end, steps: Vec::new(), rng };
    for &(a, b) in &topology.links {
        for (from, to) in [(a, b), (b, a)] {
            let conditions = Box::new(wires.conditions(author.rng));
            author.push(Instant::ZERO, Fault::Wire { from, to, conditions });
        }
    }
    author.cuts();
    author.partitions();
    author.crashes();
    author.freezes(long);
    author.clocks();
    author.strains();
    author.reloads();
    author.newer();
    author.narrow();
    let mut steps = author.steps;
    steps.sort_by_key(|step| step.at);
    steps
}

impl Author<'_> {
    fn push(&mut self, at: Instant, fault: Fault) {
        self.steps.push(Step { at, fault });
    }

    /// How often a fault strikes: not at all in most seeds.
    fn times(&mut self, chance: f64, most: u64) -> u64 {
        if self.rng.chance(chance) { 1 + self.rng.below(most) } else { 0 }
    }

    fn router(&mut self) -> usize {
        self.rng.below(self.topology.routers as u64) as usize
    }

    fn link(&mut self) -> (usize, usize) {
        self.topology.links[self.rng.below(self.topology.links.len() as u64) as usize]
    }

    /// A part of the time at hand, from 10 ms to 3 s long.
    fn interval(&mut self) -> (Instant, Instant) {
        let from = PEACE + self.rng.below(self.end.as_nanos() - PEACE - 100_000_000);
        let len = 10_000_000 + self.rng.below(3_000_000_000);
        (Instant::from_nanos(from), Instant::from_nanos((from + len).min(self.end.as_nanos())))
    }

    fn cuts(&mut self) {
        for _ in 0..self.times(0.4, 4) {
            let ((a, b), (from, to)) = (self.link(), self.interval());
            for (sender, receiver) in [(a, b), (b, a)] {
                self.push(from, Fault::Cut { from: sender, to: receiver });
                self.push(to, Fault::Mend { from: sender, to: receiver });
            }
        }
        for _ in 0..self.times(0.25, 3) {
            let ((a, b), (from, to)) = (self.link(), self.interval());
            let (sender, receiver) = if self.rng.chance(0.5) { (a, b) } else { (b, a) };
            self.push(from, Fault::Cut { from: sender, to: receiver });
            self.push(to, Fault::Mend { from: sender, to: receiver });
        }
    }

    fn partitions(&mut self) {
        for shape in [Partition::Full, Partition::Partial, Partition::NonTransitive] {
            if !self.rng.chance(0.12) {
                continue;
            }
            let groups = if shape == Partition::Full { 2 } else { 3 };
            let group: Vec<u64> = (0..self.topology.routers).map(|_| self.rng.below(groups)).collect();
            let lost = |from: usize, to: usize| match (shape, group[from], group[to]) {
                (_, a, b) if a == b => false,
                (Partition::Full, ..) => true,
                (Partition::Partial, a, b) => a < 2 && b < 2,
                (Partition::NonTransitive, a, b) => (a + 1) % 3 == b,
            };
            let both = self.topology.links.iter().flat_map(|&(a, b)| [(a, b), (b, a)]);
            let wires: Vec<_> = both.filter(|&(from, to)| lost(from, to)).collect();
            if !wires.is_empty() {
                let (from, to) = self.interval();
                self.push(from, Fault::Partition { shape, wires: wires.clone() });
                self.push(to, Fault::Merge { wires });
            }
        }
    }

    fn crashes(&mut self) {
        for _ in 0..self.times(0.4, 3) {
            let (router, (from, to)) = (self.router(), self.interval());
            let days = (1 + self.rng.below(3000) as i32) * if self.rng.chance(0.5) { 1 } else { -1 };
            let disk = match self.rng.below(8) {
                0 => Disk::Lost,
                1 => Disk::LostWrite,
                2 => Disk::TornWrite { days },
                _ => Disk::Kept,
            };
            self.push(from, Fault::Crash { router });
            // Drawn apart, so that a script is else what it was without this fault.
            let mut apart = Rng::from_u64(mix64(from.as_nanos() ^ router as u64));
            if apart.chance(0.3) {
                let count = 1 + apart.below(MOST_WORKERS) as usize;
                self.push(to, Fault::Workers { router, count });
            }
            self.push(to, Fault::Restart { router, disk });
        }
    }

    fn freezes(&mut self, long: bool) {
        for _ in 0..self.times(0.25, 3) {
            let (router, (from, to)) = (self.router(), self.interval());
            self.push(from, Fault::Freeze { router, length: to.since(from) });
        }
        if long {
            let (router, (from, _)) = (self.router(), self.interval());
            let length = Duration::from_secs(3 + self.rng.below(57)).min(self.end.since(from));
            self.push(from, Fault::Freeze { router, length });
        }
        for _ in 0..self.times(0.15, 2) {
            let (router, (from, to)) = (self.router(), self.interval());
            self.push(from, Fault::Slow { router, times: 50 });
            self.push(to, Fault::Slow { router, times: 1 });
        }
    }

    fn clocks(&mut self) {
        for _ in 0..self.times(0.2, 4) {
            let (router, (at, _)) = (self.router(), self.interval());
            let millis = self.rng.below(7_200_000) as i64 - 3_600_000;
            self.push(at, Fault::ClockStep { router, millis });
            // It is by this clock that a router starts anew.
            self.push(at, Fault::Crash { router });
            let back = at + Duration::from_millis(1 + self.rng.below(500));
            self.push(back, Fault::Restart { router, disk: Disk::Kept });
        }
        if self.rng.chance(0.3) {
            for router in 0..self.topology.routers {
                let millis = self.rng.below(7_200_000) as i64 - 3_600_000;
                self.push(Instant::ZERO, Fault::ClockStep { router, millis });
            }
        }
        if self.rng.chance(0.3) {
            for router in 0..self.topology.routers {
                let ppm = self.rng.below(1001) as i32 - 500;
                self.push(Instant::ZERO, Fault::Drift { router, ppm });
            }
        }
        for _ in 0..self.times(0.2, 3) {
            let (router, (from, to)) = (self.router(), self.interval());
            let coarse = Duration::from_millis(1 + self.rng.below(30));
            self.push(from, Fault::Coalesce { router, to: coarse });
            self.push(to, Fault::Coalesce { router, to: Duration::ZERO });
        }
    }

    fn strains(&mut self) {
        for _ in 0..self.times(0.15, 3) {
            let (router, (from, to)) = (self.router(), self.interval());
            let which = self.rng.below(3);
            let (commands, reports) = (which != 1, which != 0);
            let crossings = self.rng.chance(0.5);
            self.push(from, Fault::Rings { router, commands, reports, crossings });
            self.push(to, Fault::Rings { router, commands: false, reports: false, crossings: false });
        }
        if self.rng.chance(0.3) {
            let chance = 0.01 * self.rng.unit();
            for router in 0..self.topology.routers {
                self.push(Instant::ZERO, Fault::Rare { router, chance });
            }
        }
        for _ in 0..self.times(0.15, 2) {
            let (router, (from, to)) = (self.router(), self.interval());
            let chance = 0.5 * self.rng.unit();
            self.push(from, Fault::Rare { router, chance });
            self.push(to, Fault::Rare { router, chance: 0.0 });
        }
    }

    fn reloads(&mut self) {
        for _ in 0..self.times(0.25, 3) {
            let ((a, b), (from, to)) = (self.link(), self.interval());
            let ends = match self.rng.below(3) {
                0 => vec![(a, b)],
                1 => vec![(b, a)],
                _ => vec![(a, b), (b, a)],
            };
            for (router, without) in ends {
                self.push(
                    from,
                    Fault::Reload { router, without: vec![without], metric: Metric::default(), queue: None },
                );
                self.push(to, Fault::Reload { router, without: Vec::new(), metric: Metric::default(), queue: None });
            }
        }
        for _ in 0..self.times(0.15, 2) {
            let (router, (from, to)) = (self.router(), self.interval());
            let metrics = [Metric::Hops, Metric::Latency, Metric::Loss];
            let metric = metrics[self.rng.below(3) as usize];
            self.push(from, Fault::Reload { router, without: Vec::new(), metric, queue: None });
            self.push(to, Fault::Reload { router, without: Vec::new(), metric: Metric::default(), queue: None });
        }
        for _ in 0..self.times(0.15, 2) {
            let (router, (from, to)) = (self.router(), self.interval());
            let changed = |queue| Fault::Reload { router, without: Vec::new(), metric: Metric::default(), queue };
            let queue = Some(64 + self.rng.below(4096) as usize);
            self.push(from, changed(queue));
            self.push(to, changed(None));
        }
    }

    fn newer(&mut self) {
        for _ in 0..self.times(0.12, 1) {
            let (router, (from, to)) = (self.router(), self.interval());
            self.push(from, Fault::Newer { router, on: true });
            self.push(to, Fault::Newer { router, on: false });
        }
        for _ in 0..self.times(0.15, 10) {
            let (router, (at, _)) = (self.router(), self.interval());
            self.push(at, Fault::NewerMessage { router });
        }
    }

    /// Directions of wires that are too narrow for a while, half of them until the network heals.
    fn narrow(&mut self) {
        for _ in 0..self.times(0.2, 3) {
            let ((a, b), (begin, end)) = (self.link(), self.interval());
            let (from, to) = if self.rng.chance(0.5) { (a, b) } else { (b, a) };
            let mtu = NARROWEST + self.rng.below((WIDE - NARROWEST) as u64) as usize;
            self.push(begin, Fault::Narrow { from, to, mtu });
            let until = if self.rng.chance(0.5) { end } else { self.end };
            self.push(until, Fault::Widen { from, to });
        }
    }
}

/// Routers that heal: most often all, else a connected part of at least two thirds.
pub(super) fn draw_core(topology: &Topology, rng: &mut Rng) -> Vec<usize> {
    let mut core: Vec<usize> = (0..topology.routers).collect();
    if rng.chance(0.6) {
        return core;
    }
    for _ in 0..topology.routers / 3 {
        let left_out = core[rng.below(core.len() as u64) as usize];
        let rest: Vec<usize> = core.iter().copied().filter(|&router| router != left_out).collect();
        if rest.len() >= 2 && topology.connects(&rest) {
            core = rest;
        }
    }
    core
}
