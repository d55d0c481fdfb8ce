//! What was sent, lost and received adds up.

use crate::sim::world::World;

/// Datagrams that may be under way on one wire of a quiet network.
const UNDER_WAY: u64 = 256;

/// Checks every wire and every running router of a network without traffic of applications.
pub fn add_up(world: &World) -> Result<(), String> {
    for (&(from, to), wire) in world.wires() {
        let counts = wire.counts;
        let due = counts.sent - counts.lost + counts.doubled;
        if counts.arrived > due || counts.arrived + UNDER_WAY < due {
            return Err(format!("the wire from r{from} to r{to} carried {} of {due} datagrams", counts.arrived));
        }
    }
    for router in 0..world.topology().routers {
        let Some(stats) = world.stats(router) else { continue };
        let handed = world.handed(router);
        if stats.datagrams_in != handed {
            return Err(format!("r{router} was handed {handed} datagrams and counts {}", stats.datagrams_in));
        }
    }
    Ok(())
}

/// Every router's counters add up: what came in was delivered, passed on, dropped with a reason, or still waits.
pub fn balanced(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(stats) = world.stats(router) else { continue };
        stats.balance().map_err(|why| format!("r{router}'s counters do not add up: {why}"))?;
    }
    Ok(())
}
