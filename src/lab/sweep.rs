//! Where the experiments measure: the same places for the real kernel and for the simulator.

use super::args::Args;
use super::conditions::Conditions;
use super::outcome::Place;
use super::topology::{FlowEntry, Topology};

/// Rate of every link, kbit/s: the paper's.
pub(super) const LINK_KBPS: u64 = 10_000;
/// One-way delay of a chain, ms, however many links it has.
const PATH_MS: f64 = 50.0;

/// A chain at one rate of messages, kbit/s.
pub(super) type Point = (Place, u64);

/// The one chain of the default experiment.
pub(super) fn chain(args: &Args) -> Point {
    let (hops, link_delay_ms) = (args.hops.unwrap_or(5) as usize, args.delay.unwrap_or(10.0));
    (Place { loss_percent: args.loss.unwrap_or(1.0), hops, link_delay_ms }, args.rate.unwrap_or(500))
}

/// Five hops, loss after loss at each rate; of either only what was asked for, if something was.
pub(super) fn losses(args: &Args) -> Vec<Point> {
    let rates = args.rate.map_or(vec![500, 1000], |rate| vec![rate]);
    let place = |loss_percent| Place { loss_percent, hops: 5, link_delay_ms: PATH_MS / 5.0 };
    let at = |rate| loss_steps(args).into_iter().map(move |loss| (place(loss), rate));
    rates.into_iter().flat_map(at).collect()
}

/// One to ten hops, or as many as were asked for, of the same length in all.
pub(super) fn hops(args: &Args) -> Vec<Point> {
    let (loss_percent, rate) = (args.loss.unwrap_or(1.0), args.rate.unwrap_or(500));
    let counts = args.hops.map_or(1..=10, |hops| hops..=hops);
    let place = |hops| Place { loss_percent, hops, link_delay_ms: PATH_MS / hops as f64 };
    counts.map(|hops| (place(hops as usize), rate)).collect()
}

/// Single links to fill: their delays, ms, and at each their losses, percent.
pub(super) fn bulks(args: &Args) -> Vec<(f64, f64)> {
    let at = |delay| loss_steps(args).into_iter().map(move |loss| (delay, loss));
    bulk_delays(args).into_iter().flat_map(at).collect()
}

/// Delays of single links to fill, ms.
pub(super) fn bulk_delays(args: &Args) -> Vec<f64> {
    args.delay.map_or(vec![10.0, 50.0], |delay| vec![delay])
}

/// From 0 to 2 % by 0.2 %, or what was asked for.
fn loss_steps(args: &Args) -> Vec<f64> {
    args.loss.map_or_else(|| (0..=10).map(|step| f64::from(step) / 5.0).collect(), |loss| vec![loss])
}

/// A link to fill: its queue holds a round trip's worth, at least 50 ms.
pub(super) fn bulk_wire(delay_ms: f64, loss_percent: f64) -> Conditions {
    let round_trip_bytes = (LINK_KBPS as f64 * 2.0 * delay_ms / 8.0) as u64;
    let wire = Conditions::wire(delay_ms, LINK_KBPS).losing(loss_percent);
    Conditions { queue_bytes: wire.queue_bytes.max(round_trip_bytes), ..wire }
}

/// The place of a chain's middle link.
pub(super) const fn middle(hops: usize) -> usize {
    (hops - 1) / 2
}

/// A chain with loss on its middle link, each way.
pub(super) fn lossy_chain(place: &Place) -> Topology {
    let mut topology = Topology::chain(place.hops, Conditions::wire(place.link_delay_ms, LINK_KBPS));
    let middle = &mut topology.links[middle(place.hops)];
    middle.forward = middle.forward.losing(place.loss_percent);
    middle.back = middle.back.losing(place.loss_percent);
    topology
}

/// Length and loss of the fewest-links path a flow of the user's own takes, for its record.
pub(super) fn own_place(topology: &Topology, flow: &FlowEntry) -> Place {
    let (Some(mut here), Some(to)) = (topology.place(&flow.from), topology.place(&flow.to)) else {
        return Place { loss_percent: 0.0, hops: 0, link_delay_ms: 0.0 };
    };
    let (mut hops, mut delay, mut kept) = (0, 0.0, 1.0);
    while let Some((link, next)) = topology.next_hops(here)[to] {
        let spec = &topology.links[link];
        let conditions = if spec.between.0 == topology.routers[here] { spec.forward } else { spec.back };
        (hops, delay, kept) = (hops + 1, delay + conditions.delay_ms, kept * (1.0 - conditions.loss_percent / 100.0));
        here = next;
    }
    let loss_percent = (100.0 * (1.0 - kept) * 1e6).round() / 1e6;
    Place { loss_percent, hops, link_delay_ms: delay / hops.max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::args::parse;

    #[test]
    fn a_sweep_is_the_papers_unless_part_of_it_is_asked_for() {
        let all = losses(&parse("--experiment dsn03"));
        assert_eq!(all.len(), 22);
        assert!((all[3].0.loss_percent, all[3].1, all[11].1) == (0.6, 500, 1000), "{all:?}");
        // A loss between the steps is measured, not skipped.
        let some = losses(&parse("--experiment dsn03 --loss 0.3 --rate 700"));
        assert_eq!(some.iter().map(|(place, rate)| (place.loss_percent, *rate)).collect::<Vec<_>>(), [(0.3, 700)]);
        let hops = |line| hops(&parse(line)).iter().map(|(place, _)| place.hops).collect::<Vec<_>>();
        assert_eq!(hops("--experiment hops"), (1..=10).collect::<Vec<_>>());
        assert_eq!(hops("--experiment hops --hops 4"), [4]);
        assert_eq!(bulks(&parse("--experiment throughput")).len(), 22);
        assert_eq!(bulks(&parse("--experiment throughput --loss 0.3 --delay 25")), [(25.0, 0.3)]);
    }

    #[test]
    fn a_link_to_fill_queues_a_round_trip() {
        assert_eq!([10.0, 50.0].map(|delay| bulk_wire(delay, 1.0).queue_bytes), [62_500, 125_000]);
        assert_eq!(lossy_chain(&chain(&parse("")).0).links[2].back.loss_percent, 1.0);
    }
}
