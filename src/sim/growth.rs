//! Growth: a network of any size boots, loses a tenth of its routers at one moment, and gets them back.
//!
//! Nothing else goes wrong and no application runs: what is looked at is what a network costs for its size. Every
//! phase lasts until all running routers hold one database, have computed their paths, and reach each other, and must
//! end within the bound that campaigns use ([`Bound`]).

use super::bound::Bound;
use super::fault::Disk;
use super::router::Router;
use super::topology::{LinkSettings, Topology};
use super::wire::Conditions;
use super::world::World;
use crate::base::Rng;
use crate::dataplane::Shard;
use serde::Serialize;
use std::time::Duration;

/// From look to look at all routers.
const LOOK: Duration = Duration::from_millis(20);
/// Delay of every wire, one way.
const DELAY: Duration = Duration::from_millis(10);
/// How long a network at rest is watched: 25 hellos.
const REST: Duration = Duration::from_secs(1);
/// Slots of a router's packet pool: no application fills it, and a thousand routers share the machine's memory.
const POOL: usize = 2048;
/// Of all routers, one in so many is lost.
const LOST: usize = 10;

/// What the network goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// All routers start at one moment.
    Boot,
    /// Nothing happens.
    Rest,
    /// The machines of a tenth of the routers die at one moment, without a word.
    Lose,
    /// They are started again, all at one moment.
    Heal,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Step; 4] = [Step::Boot, Step::Rest, Step::Lose, Step::Heal];
}

/// What a phase took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Phase {
    /// Which one.
    pub step: Step,
    /// Routers that run in it.
    pub routers: usize,
    /// Links on the longest of the shortest ways among them.
    pub diameter: usize,
    /// Time until all agreed and reached each other, s; of a rest, how long it was watched.
    pub took_s: f64,
    /// The bound for that, s.
    pub bound_s: f64,
    /// Bytes of datagrams that a router sent, hellos and all, per second.
    pub bytes_per_router_s: f64,
    /// Datagrams likewise.
    pub datagrams_per_router_s: f64,
    /// Advertisements of others that a router took, and those that it had already, per router.
    pub news_per_router: f64,
    /// See there.
    pub repeated_per_router: f64,
    /// Computations of all paths, per router.
    pub computations_per_router: f64,
}

/// A network that goes through it.
pub struct Growth {
    world: World,
    rng: Rng,
    lost: Vec<usize>,
}

/// What all routers sent and computed so far.
#[derive(Clone, Copy, Default)]
struct Work {
    bytes: u64,
    datagrams: u64,
    news: u64,
    repeated: u64,
    computations: u64,
}

impl Growth {
    /// All routers start, and nothing has happened yet. `links` must be enough to join `routers`, and not more than
    /// there are pairs.
    pub fn new(routers: usize, links: usize, seed: u64) -> Growth {
        let mut rng = Rng::from_u64(seed);
        let topology = Topology::with_links(routers, links, &mut rng);
        let conditions = Conditions { delay: DELAY, ..Conditions::default() };
        let settings = LinkSettings { pool: POOL, ..LinkSettings::default() };
        let world = World::new(topology, settings, conditions, seed);
        Growth { world, rng, lost: Vec::new() }
    }

    /// The network.
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Goes through the next phase. The error says what did not come right within the bound.
    pub fn go(&mut self, step: Step) -> Result<Phase, String> {
        let (began, mut before) = (self.world.now(), self.work());
        match step {
            Step::Boot | Step::Rest => {}
            Step::Lose => {
                self.lost = self.draw();
                // What they did before does not count as done by the others.
                before = self.work_of(&self.running());
                self.cut_off(true);
                self.lost.iter().for_each(|&router| self.world.crash(router));
            }
            Step::Heal => {
                self.cut_off(false);
                for router in std::mem::take(&mut self.lost) {
                    self.world.restart(router, Disk::Kept);
                }
            }
        }
        let running = self.running();
        let bound = Bound::of(&self.world, &running, &[], &[]);
        if step == Step::Rest {
            self.world.run_until(began + REST);
        } else if !self.world.run_while(began + bound.converge(), LOOK, agreed) {
            return Err(format!("{} routers did not agree within {:.1} s", running.len(), bound.converge_s));
        }
        let (took, work) = (self.world.now().since(began).as_secs_f64(), self.work());
        let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / running.len() as f64;
        Ok(Phase {
            step,
            routers: running.len(),
            diameter: bound.diameter,
            took_s: took,
            bound_s: bound.converge_s,
            bytes_per_router_s: each(work.bytes, before.bytes) / took,
            datagrams_per_router_s: each(work.datagrams, before.datagrams) / took,
            news_per_router: each(work.news, before.news),
            repeated_per_router: each(work.repeated, before.repeated),
            computations_per_router: each(work.computations, before.computations),
        })
    }

    fn running(&self) -> Vec<usize> {
        let all = 0..self.world.topology().routers;
        all.filter(|&router| self.world.is_running(router) && !self.lost.contains(&router)).collect()
    }

    /// A tenth of the routers without which the others are still joined.
    fn draw(&mut self) -> Vec<usize> {
        let count = self.world.topology().routers;
        loop {
            let mut kept: Vec<usize> = (0..count).collect();
            let lost = (0..count / LOST).map(|_| kept.swap_remove(self.rng.below(kept.len() as u64) as usize));
            let lost: Vec<usize> = lost.collect();
            if self.world.topology().connects(&kept) {
                return lost;
            }
        }
    }

    /// Whether the machines of the lost routers answer: the kernel of one whose router was merely killed does.
    fn cut_off(&mut self, cut: bool) {
        for &router in &self.lost {
            for other in self.world.topology().neighbours(router) {
                self.world.set_cut(router, other, cut);
                self.world.set_cut(other, router, cut);
            }
        }
    }

    fn work(&self) -> Work {
        self.work_of(&self.running())
    }

    fn work_of(&self, routers: &[usize]) -> Work {
        let running = routers.iter().filter_map(|&router| self.world.router(router));
        running.fold(Work::default(), |sum, router| {
            let sent = router.shards.iter().map(Shard::sent);
            let (bytes, datagrams) = sent.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
            let stats = router.control.routing().stats();
            Work {
                bytes: sum.bytes + bytes,
                datagrams: sum.datagrams + datagrams,
                news: sum.news + stats.accepted,
                repeated: sum.repeated + stats.duplicate + stats.older,
                computations: sum.computations + stats.computations,
            }
        })
    }
}

/// Whether all running routers hold one database, have computed their paths, and reach each other.
fn agreed(world: &World) -> bool {
    let running = || (0..world.topology().routers).filter_map(|router| world.router(router));
    let Some(first) = running().next().map(|router| router.control.database_fingerprint()) else { return true };
    let same =
        |router: &Router| router.control.database_fingerprint() == first && router.control.routing().is_current();
    // To each of the others, but not to itself, leads a route.
    let others = running().count() - 1;
    running().all(same) && running().all(|router| router.control.routing().reached() == others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_routers_boot_lose_three_and_get_them_back() {
        let mut growth = Growth::new(30, 90, 1);
        let phases = Step::ALL.map(|step| growth.go(step).expect("in time"));
        assert_eq!(phases.map(|phase| phase.routers), [30, 30, 27, 30]);
        assert!(phases.iter().all(|phase| phase.took_s > 0.0 && phase.took_s <= phase.bound_s), "{phases:?}");
        assert!(phases[2].took_s >= 0.2, "a killed router is noticed by its silence: {phases:?}");
        assert!(phases.iter().all(|phase| phase.bytes_per_router_s > 0.0), "{phases:?}");
    }
}
