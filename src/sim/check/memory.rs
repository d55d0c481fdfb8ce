//! What sessions took is back when they end.

use crate::dataplane::Shard;
use crate::sim::world::World;

/// How few packets a router may hold with nothing under way: what its control is just sending.
const IDLE: usize = 4;

/// What a router holds for sessions alone: nothing of it without them. Flows that ended are remembered for longer, so
/// that what comes late is not taken for news; they have places of their own.
const FOR_SESSIONS: [&str; 9] = [
    "sessions",
    "outgoing flows",
    "incoming flows",
    "datagram routes",
    "incomplete datagrams",
    "bytes of waiting records",
    "packets kept for receivers",
    "packets kept for senders",
    "messages without a flow",
];

/// No running router holds packets, or anything else for sessions. Ask when applications have closed and the network is
/// quiet.
pub fn returned(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(running) = world.router(router) else { continue };
        running.shards.iter().try_for_each(|shard| holds_nothing(shard).map_err(|why| format!("r{router} {why}")))?;
    }
    Ok(())
}

fn holds_nothing(shard: &Shard) -> Result<(), String> {
    let (used, holdings) = (shard.pool_in_use(), shard.holdings());
    if used > IDLE {
        return Err(format!("holds {used} packets with nothing under way: {holdings:?}"));
    }
    for name in FOR_SESSIONS {
        let held = holdings.iter().find(|(what, ..)| *what == name).map(|&(_, held, _)| held);
        let held = held.unwrap_or_else(|| panic!("a shard says how many {name} it holds"));
        if held > 0 {
            return Err(format!("holds {held} {name} for sessions that are gone"));
        }
    }
    Ok(())
}
