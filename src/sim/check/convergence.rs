//! After healing the core reaches itself and holds one link-state database.

use crate::sim::world::World;

/// Every router of `core` runs, has computed its routes, reaches every other, and holds the same link-state database.
pub fn converged(world: &World, core: &[usize]) -> Result<(), String> {
    for &router in core {
        let Some(running) = world.router(router) else {
            return Err(format!("r{router} does not run"));
        };
        if !running.control.routing().is_current() {
            return Err(format!("r{router} has yet to compute its routes"));
        }
        for &other in core.iter().filter(|&&other| other != router) {
            if !running.control.routing().reaches(world.node(other)) {
                return Err(format!("r{router} has no route to r{other}"));
            }
        }
    }
    databases_agree(world, core)
}

/// All running routers of `core` hold the same link-state database.
fn databases_agree(world: &World, core: &[usize]) -> Result<(), String> {
    let mut first = None;
    for &router in core {
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
