//! Routes use links that both ends sign, and no others; and only links that exist are signed.

use crate::sim::world::World;

/// Checks the routes of `core`, whose databases must be equal.
pub fn signed_by_both_ends(world: &World, core: &[usize]) -> Result<(), String> {
    for &router in core {
        let Some(running) = world.router(router) else { continue };
        let routing = running.control.routing();
        let signs =
            |one, other| routing.advertised(one).is_some_and(|links| links.iter().any(|link| link.neighbour == other));
        for route in routing.routes() {
            let mut before = world.node(router);
            for &next in &route.path {
                if !signs(before, next) || !signs(next, before) {
                    return Err(format!(
                        "a route of r{router} uses a link between {before} and {next} that only one signs"
                    ));
                }
                before = next;
            }
        }
        for origin in 0..world.topology().routers {
            for link in routing.advertised(world.node(origin)).unwrap_or_default() {
                let real = world
                    .number(link.neighbour)
                    .is_some_and(|peer| world.topology().links.contains(&(origin.min(peer), origin.max(peer))));
                if !real {
                    return Err(format!("r{router} holds a link of r{origin} to {} that never was", link.neighbour));
                }
            }
        }
    }
    Ok(())
}
