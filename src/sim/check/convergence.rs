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
                return Err(format!("r{router} has no route to r{other}; {}", differences(world, router, other)));
            }
        }
    }
    databases_agree(world, core)
}

/// What both routers hold of themselves and of each other: its sequence, and how many links it has.
fn differences(world: &World, router: usize, other: usize) -> String {
    let held = |at: usize, of: usize| {
        let routing = world.router(at).map(|running| running.control.routing());
        let known = routing.and_then(|routing| {
            let (_, sequence) = routing.digest().find(|&(origin, _)| origin == world.node(of))?;
            Some(format!(
                "{}.{} with {} links",
                sequence.epoch,
                sequence.counter,
                routing.advertised(world.node(of))?.len()
            ))
        });
        format!("r{at} holds of r{of} {}", known.unwrap_or_else(|| "nothing".into()))
    };
    let pairs = [(router, router), (router, other), (other, router), (other, other)];
    pairs.map(|(at, of)| held(at, of)).join(", ")
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
