//! Once routes are stable no packet meets a router twice, and none outlives its hops.
//!
//! Routes are stable when all running routers of a component hold one database and have held it for a while: longer than
//! routes take to be computed and messages that wait for a route may wait. From then on the tables in force are walked
//! for every pair of routers, and no router may drop a message because its hops ran out or because it came back to where
//! it began.

use crate::base::Instant;
use crate::sim::world::World;
use crate::telemetry::DropReason;
use std::time::Duration;

/// How long databases must have been equal: messages wait up to a second for a route, computations are 10 ms apart.
const STABLE: Duration = Duration::from_millis(1500);

/// Watches the network in the second phase.
#[derive(Debug, Default)]
pub struct Loops {
    /// The database of each running router, since when, and what was dropped by then.
    databases: Vec<Option<u64>>,
    since: Option<Instant>,
    dropped: u64,
    /// Walks of all tables that were made.
    pub walks: u64,
}

impl Loops {
    /// Looks at the network.
    pub fn look(&mut self, world: &World) -> Result<(), String> {
        let routers = 0..world.topology().routers;
        let databases: Vec<_> = routers.map(|n| Some(world.router(n)?.control.database_fingerprint())).collect();
        let dropped = dropped(world);
        let same = databases.iter().flatten().all(|&one| databases.iter().flatten().all(|&other| one == other));
        if !same || databases != self.databases || self.since.is_none() {
            self.since = same.then(|| world.now());
            self.databases = databases;
            self.dropped = dropped;
            return Ok(());
        }
        let held = world.now().since(self.since.unwrap_or_default());
        if held < STABLE {
            self.dropped = dropped;
            return Ok(());
        }
        if dropped > self.dropped {
            let count = dropped - self.dropped;
            return Err(format!("{}: {count} messages ran in circles although routes are stable", world.now()));
        }
        self.walks += 1;
        walk_all(world)
    }
}

fn dropped(world: &World) -> u64 {
    let shards = (0..world.topology().routers).filter_map(|n| world.router(n)).flat_map(|running| &running.shards);
    shards.map(|shard| shard.dropped(DropReason::TtlExpired) + shard.dropped(DropReason::Spoofed)).sum()
}

fn walk_all(world: &World) -> Result<(), String> {
    let routers = world.topology().routers;
    for (from, to) in (0..routers).flat_map(|from| (0..routers).map(move |to| (from, to))) {
        let Some(running) = world.router(from) else { continue };
        if from == to || running.control.routing().route(world.node(to)).is_none() {
            continue;
        }
        let mut visited = vec![from];
        while let Some(next) = world.next_hop(visited[visited.len() - 1], to) {
            if visited.contains(&next) {
                return Err(format!(
                    "{}: packets from r{from} to r{to} go in a circle: {visited:?}, then r{next}",
                    world.now()
                ));
            }
            visited.push(next);
        }
        if visited.last() != Some(&to) {
            return Err(format!("{}: the way from r{from} to r{to} ends after {visited:?}", world.now()));
        }
    }
    Ok(())
}
