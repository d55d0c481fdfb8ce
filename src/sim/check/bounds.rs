//! Every queue and pool within its bound, at every moment; and nothing lies where it is to be handed on at once.

use crate::dataplane::Shard;
use crate::sim::world::World;

/// What a link hands on in the turn in which it comes: what else is missing does not hold it up.
const HANDED_ON: [&str; 3] = ["deliveries", "link events", "stranded"];

/// Looks at every running router.
pub fn within(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(running) = world.router(router) else { continue };
        for (what, held, bound) in running.shards.iter().flat_map(Shard::holdings) {
            if held > bound {
                return Err(format!("{}: r{router} holds {held} {what}, bound {bound}", world.now()));
            }
            if held > 0 && HANDED_ON.contains(&what) {
                return Err(format!("{}: r{router} did not hand on {held} {what}", world.now()));
            }
        }
        let (known, members) = (running.control.routing().digest().count(), world.topology().routers);
        if known > members {
            return Err(format!("{}: r{router} knows {known} routers of {members}", world.now()));
        }
    }
    Ok(())
}
