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
            if let Some(why) = beyond((what, held, bound)) {
                return Err(format!("{}: r{router} {why}", world.now()));
            }
            if held > 0 && HANDED_ON.contains(&what) {
                return Err(format!("{}: r{router} did not hand on {held} {what}", world.now()));
            }
        }
        let held = running.control.membership().map(|membership| membership.holdings());
        if let Some(why) = held.into_iter().flatten().find_map(beyond) {
            return Err(format!("{}: r{router}'s membership {why}", world.now()));
        }
        let (known, members) = (running.control.routing().digest().count(), world.topology().routers);
        if known > members {
            return Err(format!("{}: r{router} knows {known} routers of {members}", world.now()));
        }
    }
    Ok(())
}

/// What is wrong if more is held than may be.
fn beyond((what, held, bound): (&str, usize, usize)) -> Option<String> {
    (held > bound).then(|| format!("holds {held} {what}, bound {bound}"))
}

#[cfg(test)]
mod tests {
    use super::beyond;

    #[test]
    fn one_more_than_the_bound_is_too_many() {
        assert_eq!(beyond(("early", 256, 256)), None);
        assert_eq!(beyond(("early", 257, 256)).as_deref(), Some("holds 257 early, bound 256"));
    }
}
