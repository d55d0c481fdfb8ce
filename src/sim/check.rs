//! What must hold, whatever goes wrong. Each checker gives the first broken rule in words.
//!
//! Exactly-once and in-order delivery are checked where messages arrive, in [`workload`](super::workload).

use super::topology::identity;
use super::world::World;

/// Every router runs, reaches every other, and all use tables of the same map.
pub fn converged(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(running) = world.router(router) else {
            return Err(format!("r{router} does not run"));
        };
        let reached = running.control.reachable();
        for other in (0..world.topology().routers).filter(|&other| other != router) {
            if !reached.contains(&identity(other).public().node_id()) {
                return Err(format!("r{router} has no route to r{other}"));
            }
        }
    }
    databases_agree(world)
}

/// All running routers hold the same link-state database.
fn databases_agree(world: &World) -> Result<(), String> {
    let mut first = None;
    for router in 0..world.topology().routers {
        let Some(running) = world.router(router) else { continue };
        let fingerprint = running.control.database_fingerprint();
        match first {
            None => first = Some((router, fingerprint)),
            Some((other, expected)) if expected != fingerprint => {
                return Err(format!("r{router} and r{other} hold different link-state databases"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Every flow whose ends did not crash has delivered what it must.
pub fn delivered(world: &World) -> Result<(), String> {
    let missing = world.flows().iter().find(|flow| !flow.is_void() && !flow.is_complete());
    match missing {
        None => Ok(()),
        Some(flow) => Err(format!(
            "flow from r{} to r{} ({:?}) delivered {} of {} messages, {} sent",
            flow.spec().from,
            flow.spec().to,
            flow.spec().kind,
            flow.delivered(),
            flow.spec().messages,
            flow.sent_count()
        )),
    }
}

/// Nothing was delivered that should not have been.
pub fn sound(world: &World) -> Result<(), String> {
    world.violations().first().map_or(Ok(()), |violation| Err(violation.clone()))
}

/// Every router's counters add up: what came in was delivered, passed on, dropped with a reason, or still waits.
pub fn accounted(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(stats) = world.stats(router) else { continue };
        stats.balance().map_err(|why| format!("r{router}'s counters do not add up: {why}"))?;
    }
    Ok(())
}

/// No pool is more than half in use once nothing is under way: what messages took, they gave back.
pub fn memory_returned(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(stats) = world.stats(router) else { continue };
        let (used, all) = stats.pool;
        if used > all / 16 {
            return Err(format!("r{router} holds {used} of {all} packets with nothing under way"));
        }
    }
    Ok(())
}
