//! Behaviours of routing, many routers at once and one router alone.

mod alone;
mod flooding;
mod hostile;
mod net;

use super::*;
use net::{Faults, Net, id, ms};
use proptest::prelude::*;

/// A ring, so that everybody is connected, and chords.
fn random_net(count: usize, chords: &[(usize, usize, u64)], seed: u64, metric: Metric) -> Net {
    let mut net = Net::new(count, seed, metric);
    let mut pairs = std::collections::BTreeSet::new();
    let ring = (0..count).map(|a| (a, (a + 1) % count, 10 + a as u64));
    for (a, b, rtt) in ring.chain(chords.iter().map(|&(a, b, rtt)| (a % count, b % count, rtt))) {
        if a != b && pairs.insert((a.min(b), a.max(b))) {
            net.wire(a, b, ms(rtt));
        }
    }
    net
}

fn chords() -> impl Strategy<Value = Vec<(usize, usize, u64)>> {
    prop::collection::vec((0usize..12, 0usize..12, 1u64..80), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_topologies_converge(count in 2usize..12, chords in chords(), seed: u64, latency: bool) {
        let metric = if latency { Metric::Latency } else { Metric::Hops };
        let mut net = random_net(count, &chords, seed, metric);
        net.run(ms(2_000));
        prop_assert_eq!(net.check(), Ok(()));
        let settled = net.messages;
        net.run(ms(30_000));
        prop_assert_eq!(net.messages, settled, "a settled network is silent");
    }

    #[test]
    fn cuts_mends_and_restarts_are_survived(
        count in 2usize..10,
        chords in chords(),
        seed: u64,
        script in prop::collection::vec((0u8..3, 0usize..24, 0u64..1_500), 1..25),
    ) {
        let mut net = random_net(count, &chords, seed, Metric::Expected);
        for (step, &(what, which, pause)) in script.iter().enumerate() {
            let wire = which % net.wires.len();
            match what {
                0 => net.cut(wire),
                1 => net.mend(wire),
                // Clocks may go back by any amount.
                _ => net.restart(which % count, [5, 1_000, 2_000_000 + step as u64][step % 3]),
            }
            net.run(ms(pause));
        }
        // A link that flaps is the last resort for 30 s, then that is told.
        net.run(ms(35_000));
        prop_assert_eq!(net.check(), Ok(()));
    }

    #[test]
    fn lost_doubled_and_reordered_floods_are_mended(count in 2usize..9, chords in chords(), seed: u64) {
        let mut net = random_net(count, &chords, seed, Metric::Latency);
        net.faults = Faults { drop: 0.4, duplicate: 0.3, reorder: ms(100) };
        for round in 0..6 {
            net.cut(round % net.wires.len().min(2));
            net.run(ms(700));
            net.mend(round % net.wires.len().min(2));
            net.run(ms(1_300));
        }
        net.faults = Faults { drop: 0.0, ..net.faults };
        // Hold-down 16 s at most after six flaps; two summaries for what was lost, another for what that brought.
        net.run(ms(140_000));
        prop_assert_eq!(net.check(), Ok(()));
    }
}

#[test]
fn a_cut_is_routed_around_in_one_crossing_of_the_network() {
    let mut net = random_net(6, &[], 1, Metric::Hops);
    net.run(ms(1_000));
    net.cut(0);
    // The far side of the ring is three links of at most 8 ms away; computations are at most 10 ms apart.
    net.run(ms(60));
    assert_eq!(net.check(), Ok(()));
}

#[test]
fn a_hundred_routers_start_together_and_one_restarts() {
    let chords: Vec<_> = (0..100).map(|a| (a, a + 7 + a % 30, 5 + a as u64 % 60)).collect();
    let mut net = random_net(100, &chords, 5, Metric::Latency);
    net.run(ms(1_500));
    assert_eq!(net.check(), Ok(()));
    let before = net.messages;
    net.restart(50, 2_000);
    net.run(ms(1_500));
    assert_eq!(net.check(), Ok(()));
    // Five neighbours at most exchange digests; then some ten advertisements cross each of 200 links once or twice.
    let messages = net.messages - before;
    assert!(messages < 6_000, "{messages}");
}

#[test]
fn partitions_merge() {
    let mut net = Net::new(6, 3, Metric::Hops);
    for a in 0..5 {
        net.wire(a, a + 1, ms(20));
    }
    net.run(ms(1_000));
    net.cut(2);
    net.run(ms(1_000));
    assert_eq!(net.routers[0].routes().count(), 2);
    // Both sides change while they do not hear each other.
    net.restart(1, 9_000);
    net.cut(4);
    net.run(ms(5_000));
    net.mend(4);
    net.run(ms(5_000));
    net.mend(2);
    net.run(ms(1_000));
    assert_eq!(net.check(), Ok(()));
    assert_eq!(net.routers[0].routes().count(), 5);
}

/// The last life's advertisement, of two links, and the new life's, of one, would have met under one sequence.
#[test]
fn a_restart_with_the_same_clock_is_heard() {
    let mut net = random_net(4, &[], 5_014_334_057_833_113_807, Metric::Expected);
    net.cut(2);
    net.run(ms(474));
    for (wire, pause) in [(3, 1_908), (1, 1_040), (0, 1_750)] {
        net.cut(wire);
        net.run(ms(pause));
    }
    net.mend(1);
    net.run(ms(1_068));
    net.restart(0, 1_000);
    net.run(ms(413));
    net.mend(3);
    net.run(ms(35_000));
    assert_eq!(net.check(), Ok(()));
}

#[test]
fn a_restart_with_an_older_clock_is_heard() {
    for epoch in [0, 999, 5_000] {
        let mut net = random_net(4, &[], 7, Metric::Hops);
        net.run(ms(1_000));
        net.cut(1);
        net.run(ms(1_000));
        net.mend(1);
        net.run(ms(5_000));
        net.restart(2, epoch);
        net.run(ms(3_000));
        assert_eq!(net.check(), Ok(()), "epoch {epoch}");
        let impostors = net.routers[2].stats().impostors;
        assert_eq!(impostors > 0, epoch < 1_000, "epoch {epoch}: {impostors}");
    }
}

#[test]
fn two_routers_with_one_key_do_not_flood_the_network() {
    // Router 3's twin sits at the other end of the line and answers to the same key.
    let mut net = Net::new(4, 7, Metric::Hops);
    net.wire(3, 0, ms(10));
    net.wire(0, 1, ms(10));
    net.run(ms(500));
    let mut twin = net.fresh(3, 2_000);
    let link = LinkId(9);
    twin.handle(net.now, Input::AddLink { link, peer: id(1) });
    net.input(1, Input::AddLink { link, peer: id(3) });
    net.wires.push(net::Wire::stub(1, link));
    twin.handle(net.now, Input::LinkUp { link, metrics: LinkMetrics::default() });
    net.input(1, Input::LinkUp { link, metrics: LinkMetrics::default() });
    let before = net.routers[3].stats().originated + twin.stats().originated;
    for _ in 0..1_000 {
        while let Some(action) = twin.poll_action() {
            if let Action::Send { bytes, .. } = action {
                net.input(1, Input::Message { link, bytes });
            }
        }
        for bytes in net.take_outgoing() {
            twin.handle(net.now, Input::Message { link, bytes });
        }
        net.run(ms(10));
        twin.handle(net.now, Input::Timer);
    }
    let told = net.routers[3].stats().originated + twin.stats().originated - before;
    assert!(twin.stats().impostors > 2 && net.routers[3].stats().impostors > 2, "they do meet");
    assert!(told < 30, "{told} advertisements in ten seconds");
}

#[test]
fn a_flapping_link_that_is_the_only_way_is_used_whenever_it_is_up() {
    let mut net = Net::new(4, 5, Metric::Latency);
    for a in 0..3 {
        net.wire(a, a + 1, ms(10));
    }
    net.run(ms(1_000));
    for flap in 0..20 {
        net.cut(1);
        net.run(ms(400));
        assert!(net.routers[0].route(id(3)).is_none(), "flap {flap}");
        net.mend(1);
        // Its ends know within 30 ms; then news 20 ms, two links of 5 ms, a computation at most 10 ms late.
        net.run(ms(100));
        for (from, to) in [(0, 3), (3, 0), (1, 2)] {
            assert!(net.routers[from].route(id(to)).is_some(), "flap {flap}: from {from} to {to}");
        }
        net.run(ms(1_200));
    }
}

#[test]
fn a_flapping_link_is_avoided_in_a_ring_and_computed_around_rarely() {
    let mut net = random_net(6, &[], 5, Metric::Latency);
    net.run(ms(1_000));
    let flap = |net: &mut Net, times: usize| {
        for _ in 0..times {
            net.cut(0);
            net.run(ms(300));
            net.mend(0);
            net.run(ms(500));
        }
    };
    flap(&mut net, 2);
    let over = |net: &Net| net.routers[0].route(id(1)).expect("the ring is whole").path.len();
    assert_eq!(over(&net), 5, "the long way");
    let before = (net.messages, net.routers[3].stats().computations);
    flap(&mut net, 30);
    assert_eq!(over(&net), 5);
    let (messages, computed) = (net.messages - before.0, net.routers[3].stats().computations - before.1);
    // Thirty flaps: the digests of its ends, and hardly a flood.
    assert!(computed <= 8, "{computed} computations at the other side of the ring");
    assert!(messages < 600, "{messages} messages");
    // The rest of the ring breaks: the link is the last resort, and there is no other.
    net.cut(3);
    net.run(ms(150));
    assert_eq!(over(&net), 1);
    assert_eq!(net.routers[0].routes().count(), 5);
    net.mend(3);
    net.run(ms(40_000));
    assert_eq!(net.check(), Ok(()), "quiet for long enough, it is as good as others");
    assert_eq!(over(&net), 1);
}

#[test]
fn a_router_that_leaves_is_routed_around_before_its_links_are_down() {
    let mut net = random_net(5, &[], 2, Metric::Hops);
    net.run(ms(1_000));
    net.input(2, Input::Shutdown);
    net.run(ms(60));
    for router in [0, 1, 3, 4] {
        assert!(net.routers[router].route(id(2)).is_none(), "router {router}");
        assert_eq!(net.routers[router].routes().count(), 3, "router {router}");
        assert!(net.routers[router].routes().all(|route| !route.path.contains(&id(2))));
    }
    assert_eq!(net.routers[2].routes().count(), 4, "what is under way through it still gets there");
}

#[test]
fn recorded_inputs_replay_to_the_same_actions() {
    let mut net = random_net(6, &[(0, 3, 30), (1, 4, 5)], 11, Metric::Expected);
    net.run(ms(1_000));
    net.cut(0);
    net.run(ms(3_000));
    net.mend(0);
    let link = net.wires[0].ends[0].1;
    net.input(0, Input::LinkMeasured { link, metrics: net::metrics(ms(90)) });
    net.input(0, Input::Members((0..5).map(|index| net::identity(index).public()).collect()));
    net.run(ms(2_000_000));
    net.input(0, Input::Metric(Metric::Hops));
    net.input(0, Input::Shutdown);
    let text = serde_json::to_string(&net.record).expect("inputs are plain");
    let record: Vec<(Instant, Input)> = serde_json::from_str(&text).expect("inputs are plain");
    assert_eq!(record, net.record);
    let actions = serde_json::to_string(&net.actions).expect("actions are plain");
    assert_eq!(serde_json::from_str::<Vec<Action>>(&actions).expect("actions are plain"), net.actions);

    let mut again = Net::new(6, 0, Metric::Expected).routers.swap_remove(0);
    let mut replayed = Vec::new();
    for (now, input) in record {
        again.handle(now, input);
        replayed.extend(std::iter::from_fn(|| again.poll_action()));
    }
    assert_eq!(replayed, net.actions);
    assert!(replayed.len() > 50);
}
