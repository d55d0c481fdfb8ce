//! What was sent, lost and received adds up.

use crate::dataplane::messages::ShardStats;
use crate::sim::workload::{Kind, Side};
use crate::sim::world::{Handled, World};
use crate::telemetry::DropReason;

/// Checks every wire and every running router.
pub fn add_up(world: &World) -> Result<(), String> {
    let under_way = world.under_way();
    for (ends, wire) in world.wires() {
        let (counts, under_way) = (wire.counts, under_way.get(ends).copied().unwrap_or(0));
        let due = counts.sent - counts.lost + counts.doubled;
        if counts.arrived + under_way != due {
            return Err(format!(
                "the wire from r{} to r{} carried {} of {due} datagrams, and {under_way} are under way",
                ends.0, ends.1, counts.arrived
            ));
        }
    }
    for router in 0..world.topology().routers {
        let Some(stats) = world.stats(router) else { continue };
        let handled = world.handled(router);
        let mut counted = Handled::default();
        for stats in &stats {
            counted.handed += stats.datagrams_in;
            counted.taken += stats.datagrams_out;
            counted.refused += stats.drops.get(DropReason::SendFailed);
        }
        if counted != handled {
            return Err(format!("r{router} counts {counted:?} where the world counts {handled:?}"));
        }
    }
    Ok(())
}

/// Every router's counters add up: what came in was delivered, passed on, dropped with a reason, or still waits.
pub fn balanced(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(stats) = world.stats(router) else { continue };
        for (worker, stats) in stats.iter().enumerate() {
            stats
                .balance()
                .map_err(|why| format!("the counters of r{router}'s worker {worker} do not add up: {why}"))?;
        }
        let sum = |count: fn(&ShardStats) -> u64| stats.iter().map(count).sum::<u64>();
        let (left, came) = (sum(|stats| stats.crossed_out), sum(|stats| stats.crossed_in));
        if left != came {
            return Err(format!("of {left} messages between r{router}'s workers {came} arrived"));
        }
    }
    Ok(())
}

/// Applications and their routers count the same messages. Ask while the applications' sessions are open.
pub fn agreed(world: &World) -> Result<(), String> {
    for router in 0..world.topology().routers {
        let Some(stats) = world.stats(router) else { continue };
        for report in stats.iter().flat_map(|stats| &stats.sessions) {
            let Some(attached) = world.attached(router).get(&report.session) else { continue };
            let flow = &world.flows()[attached.flow];
            if flow.spec().kind == Kind::Stream {
                continue; // Its segments are not the application's records; every byte of it is checked elsewhere.
            }
            // What a flow that was given up left waiting is never sent.
            let all_sent = attached.side == Side::Source && flow.is_complete() && !flow.is_void();
            let wrong_sent = report.sent > attached.written || (all_sent && report.sent != attached.written);
            if wrong_sent || report.delivered != attached.read {
                return Err(format!(
                    "r{router} counts {} messages sent and {} delivered in {} where its application counts {} and {}",
                    report.sent, report.delivered, report.session, attached.written, attached.read
                ));
            }
        }
    }
    Ok(())
}
