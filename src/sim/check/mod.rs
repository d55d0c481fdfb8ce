//! What must hold, whatever goes wrong. Each checker gives the first broken rule in words.
//!
//! | checker | rule |
//! |---|---|
//! | [`workload`](super::workload) | exactly once, in order, every byte right; best effort never twice or changed |
//! | [`convergence`] | after healing the core reaches itself and holds one link-state database |
//! | [`links`] | routes use links that both ends sign, and no others |
//! | [`loops`] | once routes are stable no packet meets a router twice, and none outlives its hops |
//! | [`bounds`] | every queue and pool within its bound, at every moment |
//! | [`memory`] | what sessions took is back when they end |
//! | [`counters`] | what was sent, lost and received adds up, and routers count what the world and applications count |
//! | [`evs`] | the members of a group have views and deliver messages with extended virtual synchrony |
//! | [`vips`] | a set of service addresses is answered for by exactly one router of a component |
//! | [`delivery`] | what must arrive has arrived |
//! | [`hops`] | a hop confirms only what arrived, and hands a message up once |
//!
//! Where it is seen is checked how fast dead links are noticed (`observe.rs`), and that no router is busier than its work
//! explains (`storm.rs`).

pub mod bounds;
pub mod convergence;
pub mod counters;
pub mod delivery;
pub mod evs;
pub mod hops;
pub mod links;
pub mod loops;
pub mod memory;
pub mod vips;

use super::world::World;

/// Every router runs, reaches every other, and all hold the same database.
pub fn converged(world: &World) -> Result<(), String> {
    let all: Vec<usize> = (0..world.topology().routers).collect();
    convergence::converged(world, &all)
}

pub use delivery::delivered;

/// Nothing happened that should not have.
pub fn sound(world: &World) -> Result<(), String> {
    world.violations().first().map_or(Ok(()), |violation| Err(violation.clone()))
}
