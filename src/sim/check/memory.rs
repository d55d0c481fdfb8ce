//! What sessions took is back when they end.

use crate::sim::world::World;

/// How few packets a router may hold with nothing under way: what its control is just sending.
const IDLE: usize = 4;

/// No running router holds packets. Ask when applications have closed and the network is quiet.
pub fn returned(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(running) = world.router(router) else { continue };
        let used = running.shard.pool_in_use();
        if used > IDLE {
            let holdings = running.shard.holdings();
            return Err(format!("r{router} holds {used} packets with nothing under way: {holdings:?}"));
        }
    }
    Ok(())
}
