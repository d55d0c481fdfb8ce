//! Every queue and pool within its bound, at every moment.

use crate::sim::world::World;

/// Looks at every running router.
pub fn within(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(running) = world.router(router) else { continue };
        for (what, held, bound) in running.shard.holdings() {
            if held > bound {
                return Err(format!("{}: r{router} holds {held} {what}, bound {bound}", world.now()));
            }
        }
        let (known, members) = (running.control.routing().digest().count(), world.topology().routers);
        if known > members {
            return Err(format!("{}: r{router} knows {known} routers of {members}", world.now()));
        }
    }
    Ok(())
}
