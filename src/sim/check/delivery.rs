//! What must arrive has arrived.

use crate::sim::world::World;

/// Every flow whose ends did not crash has delivered what it must.
pub fn delivered(world: &World) -> Result<(), String> {
    let all: Vec<usize> = (0..world.topology().routers).collect();
    delivered_within(world, &all)
}

/// Every flow between routers of `core` whose ends did not crash has delivered what it must.
pub fn delivered_within(world: &World, core: &[usize]) -> Result<(), String> {
    let inside = |router: usize| core.contains(&router);
    let missing = world.flows().iter().find(|flow| {
        let spec = flow.spec();
        inside(spec.from) && inside(spec.to) && !flow.is_void() && !flow.is_complete()
    });
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
