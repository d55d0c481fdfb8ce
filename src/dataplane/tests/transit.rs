//! What becomes of messages on their way through a shard.

use super::net::{HANDED_OVER, Net, PORT, SESSION, node};
use crate::base::{Class, DownReason, LinkId};
use crate::dataplane::Readiness;
use crate::dataplane::messages::{Command, Report};
use crate::proto::link::{Congestion, Settings};
use crate::telemetry::DropReason;
use crate::wire::client::{Endpoint, Record};

const CHAIN: &[(usize, usize)] = &[(0, 1), (1, 2)];
/// From 0 to 3 by 1 or by 2.
const DIAMOND: &[(usize, usize)] = &[(0, 1), (1, 3), (0, 2), (2, 3)];

fn chain(settings: &Settings) -> Net {
    let mut net = Net::new(CHAIN, settings);
    route_chain(&mut net);
    net
}

fn route_chain(net: &mut Net) {
    net.route(0, &[(1, 0), (2, 0)]);
    net.route(1, &[(0, 0), (2, 1)]);
    net.route(2, &[(0, 1), (1, 1)]);
}

fn echo(net: &mut Net, to: usize, ttl: u8) {
    let id = u32::from(ttl);
    net.put(0, &Record::Echo { ttl, class: Class::BestEffort, node: node(to), id, sequence: 5, bytes: b"pad" });
}

/// Who answered which echo: the answering router, whether as expired, and the hops it had crossed.
fn answers(net: &Net) -> Vec<(u32, usize, bool, u8)> {
    let answer = |record: &Vec<u8>| match Record::parse(record) {
        Ok(Record::EchoAnswer { expired, node: by, id, sequence: 5, hops, .. }) => {
            Some((id, (0..4).find(|&router| node(router) == by)?, expired, hops))
        }
        _ => None,
    };
    net.records[0].iter().filter_map(answer).collect()
}

#[test]
fn messages_of_both_classes_cross_a_router_and_are_counted_there() {
    let mut net = chain(&Settings::default());
    for n in 0..10 {
        net.send(0, 2, Class::BestEffort, 0, &[n]);
        net.send(0, 2, Class::Reliable, 0, &[100 + n]);
        net.run(5);
    }
    net.run(100);
    let mut received = net.received(2);
    received.sort();
    let expected: Vec<Vec<u8>> = (0..10).chain(100..110).map(|n| vec![n]).collect();
    assert_eq!(received, expected);
    let (origin, transit, end) = (net.stats(0), net.stats(1), net.stats(2));
    assert_eq!((origin.originated, origin.forwarded, transit.originated, end.forwarded), (20, 0, 0, 0));
    assert_eq!(end.delivered, 20);
    assert_eq!(transit.forwarded, 20 + end.originated, "the messages, and the acknowledgements of their end");
    assert_eq!((transit.delivered, transit.drops.total(), transit.pool.0), (0, 0, 0));
    let onward = &transit.links.iter().find(|link| link.peer == node(2)).expect("it has two links").stats;
    assert!((1..=10).contains(&onward.residence_best_effort.count), "one a datagram: {onward:?}");
    assert!((1..=10).contains(&onward.residence_reliable.count), "{onward:?}");
    let stayed = onward.residence_reliable.p50_us / HANDED_OVER.as_micros() as f64;
    assert!((0.98..1.02).contains(&stayed), "they leave in the turn that takes them in: {onward:?}");
    assert_eq!(onward.queue_delay_reliable.count, onward.reliable.sent);
}

#[test]
fn what_is_forwarded_leaves_before_what_answers_it() {
    let mut net = chain(&Settings::default());
    for n in 0..4 {
        net.run(100);
        net.send(0, 2, Class::Reliable, 0, &[n]);
        net.turn(0);
        net.turn(1);
        assert_eq!(net.sent_to, [2, 0], "the message, then the acknowledgement, whosever turn it is");
    }
}

#[test]
fn echoes_are_answered_by_their_end_or_by_whoever_sees_their_hops_run_out() {
    let mut net = chain(&Settings::default());
    echo(&mut net, 2, 1);
    echo(&mut net, 2, 2);
    echo(&mut net, 0, 3);
    net.run(50);
    let mut got = answers(&net);
    got.sort();
    assert_eq!(got, [(1, 1, true, 1), (2, 2, false, 2), (3, 0, false, 0)]);
    assert_eq!(net.drops(1, DropReason::TtlExpired), 1);
    // Anything else is dropped without an answer: nobody would know what to do with it.
    net.send(0, 2, Class::BestEffort, 1, b"too far");
    net.run(50);
    assert_eq!((net.drops(1, DropReason::TtlExpired), net.received(2).len(), answers(&net).len()), (2, 0, 3));
    assert_eq!(net.stats(1).pool.0, 0);
}

#[test]
fn a_flood_of_echoes_that_expire_is_answered_within_a_bound() {
    let mut net = chain(&Settings::default());
    for _ in 0..100 {
        for _ in 0..10 {
            echo(&mut net, 2, 1);
        }
        net.run(1);
    }
    net.run(50);
    let (answered, expired) = (answers(&net).len(), net.drops(1, DropReason::TtlExpired));
    assert!(expired > 900 && (20..=250).contains(&answered), "{answered} answers to {expired}");
}

#[test]
fn a_destination_without_a_route_is_a_counted_drop_at_the_router_that_has_none() {
    let mut net = chain(&Settings::default());
    net.route(1, &[(0, 0)]);
    net.send(0, 2, Class::BestEffort, 0, b"to 2");
    net.send(0, 9, Class::BestEffort, 0, b"to nobody");
    net.run(10);
    assert_eq!((net.drops(0, DropReason::NoRoute), net.drops(1, DropReason::NoRoute)), (1, 1));
    // A port that nobody holds is its router's to count.
    net.route(1, &[(0, 0), (2, 1)]);
    let to = Endpoint { node: node(2), port: PORT + 1 };
    net.put(0, &Record::Send { class: Class::BestEffort, ordered: false, ttl: 0, to, bytes: b"x" });
    net.run(10);
    assert_eq!((net.drops(2, DropReason::NoSession), net.received(2).len()), (1, 0));
    assert_eq!((net.stats(0).pool.0, net.stats(1).pool.0, net.stats(2).pool.0), (0, 0, 0));
}

#[test]
fn a_message_that_says_it_comes_from_its_receiver_is_refused() {
    let mut net = chain(&Settings::default());
    net.forge(0, 0, node(0), b"from yourself");
    net.run(10);
    assert_eq!((net.drops(0, DropReason::Spoofed), net.received(0).len()), (1, 0));
}

#[test]
fn a_message_that_a_neighbour_returns_sets_out_anew() {
    // A ring 0-1-2-3-0: 1 has taken over what 0 sends to 2 when its link to 2 dies, and the only way left leads back.
    let ring = &[(0, 1), (1, 2), (2, 3), (3, 0)];
    let mut net = Net::new(ring, &Settings::default());
    net.route(0, &[(2, 0)]);
    net.route(1, &[(2, 1), (0, 0)]);
    net.route(2, &[(0, 2)]);
    net.route(3, &[(2, 2), (0, 3)]);
    net.cut[1] = true;
    net.send(0, 2, Class::Reliable, 0, b"the other way round");
    net.run(100);
    assert_eq!(net.received(2).len(), 0);
    net.route(0, &[(2, 3)]);
    net.route(1, &[(2, 0), (0, 0)]);
    net.run(2000);
    assert_eq!((net.drops(0, DropReason::Spoofed), net.received(2).len()), (0, 1));
}

#[test]
fn a_reliable_message_whose_link_dies_goes_another_way() {
    let mut net = Net::new(DIAMOND, &Settings::default());
    net.route(0, &[(3, 0)]);
    net.route(1, &[(3, 1), (0, 0)]);
    net.route(2, &[(3, 3), (0, 2)]);
    net.route(3, &[(0, 3)]);
    net.cut[0] = true;
    net.send(0, 3, Class::Reliable, 0, b"reliable");
    net.send(0, 3, Class::BestEffort, 0, b"best effort");
    // Long enough for the link to be found dead, shorter than the end-to-end repair takes.
    net.run(290);
    assert_eq!(net.changes(0, 0), [true, false]);
    assert!(net.received(3).is_empty());
    let before = net.stats(0).originated;
    net.route(0, &[(3, 2)]);
    net.turn(0);
    net.turn(2);
    net.turn(3);
    assert_eq!(net.received(3), [b"reliable"], "at once, from what was stranded");
    let probes = net.stats(0).originated - before;
    assert!(probes <= 1, "the table's change itself sends no second copy: {probes}");
}

#[test]
fn a_table_that_changes_under_way_loses_nothing_reliable() {
    let mut net = Net::new(DIAMOND, &Settings::default());
    net.route(1, &[(3, 1), (0, 0)]);
    net.route(2, &[(3, 3), (0, 2)]);
    net.route(3, &[(0, 3)]);
    for n in 0..200_u8 {
        // Every few messages the way changes, with what went before still queued and unacknowledged.
        if n.is_multiple_of(5) {
            net.route(0, &[(3, if n.is_multiple_of(10) { 0 } else { 2 })]);
        }
        net.send(0, 3, Class::Reliable, 0, &[n]);
        net.turn(0);
        if n.is_multiple_of(3) {
            net.run(1);
        }
    }
    net.run(200);
    let mut received = net.received(3);
    received.sort();
    assert_eq!(received, (0..200).map(|n| vec![n]).collect::<Vec<_>>());
    let ways = [net.stats(1).forwarded, net.stats(2).forwarded];
    assert!(ways.iter().all(|&forwarded| forwarded >= 90), "both ways were used: {ways:?}");
}

#[test]
fn a_link_removed_with_messages_in_its_queue_strands_them_and_says_goodbye() {
    let mut net = Net::new(DIAMOND, &Settings { congestion: Congestion::FixedKbps(100), ..Settings::default() });
    net.route(0, &[(3, 0)]);
    net.route(1, &[(3, 1), (0, 0)]);
    net.route(2, &[(3, 3), (0, 2)]);
    net.route(3, &[(0, 3)]);
    for n in 0..50 {
        net.send(0, 3, Class::Reliable, 0, &[n; 500]);
        net.turn(0);
    }
    assert!(net.received(3).len() < 25, "most of them wait");
    net.command(0, Command::RemoveLink(LinkId(0)));
    assert_eq!(net.changes(1, 0), [true]);
    net.run(1);
    assert_eq!(net.changes(1, 0), [true, false], "its end was told");
    let closed = |report: &Report| matches!(report, Report::LinkDown(LinkId(0), DownReason::Closed));
    assert!(net.reports[1].iter().any(closed));
    net.run(100);
    assert!(net.stats(0).links.iter().all(|link| link.link != LinkId(0)), "it is forgotten");
    net.route(0, &[(3, 2)]);
    net.run(10_000);
    let mut received = net.received(3);
    received.sort();
    assert_eq!(received, (0..50).map(|n| vec![n; 500]).collect::<Vec<_>>());
    assert_eq!(net.stats(0).pool.0, 0, "nothing is left behind");
    // Frames of the removed link that are still on their way meet nobody.
    net.command(0, Command::RemoveLink(LinkId(0)));
    net.command(0, Command::SendControl(LinkId(0), Box::from(*b"late")));
}

#[test]
fn a_link_that_was_removed_does_not_come_back_while_it_says_goodbye() {
    let settings = Settings::default();
    let mut net = chain(&settings);
    net.command(1, Command::RemoveLink(LinkId(0)));
    net.command(0, Command::RemoveLink(LinkId(0)));
    net.add_link(0, 0, &settings);
    net.run(40);
    assert_eq!(net.changes(1, 0), [true, false], "down, and not up again");
    assert_eq!(net.changes(0, 0), [true, false], "nobody answers");
    net.add_link(1, 0, &settings);
    net.run(2_000);
    assert_eq!((net.changes(0, 0), net.changes(1, 0)), (vec![true, false, true], vec![true, false, true]));
}

#[test]
fn a_router_that_stops_tells_all_its_neighbours() {
    let mut net = chain(&Settings::default());
    net.command(1, Command::Shutdown);
    net.turn(1);
    net.turn(0);
    net.turn(2);
    assert_eq!(
        (net.changes(0, 0), net.changes(2, 1)),
        (vec![true, false], vec![true, false]),
        "at once, not by silence"
    );
    net.send(0, 2, Class::BestEffort, 0, b"into the void");
    net.turn(0);
    assert_eq!(net.drops(0, DropReason::LinkDown), 1);
}

#[test]
fn a_transit_router_whose_pool_is_full_drops_and_counts_and_still_answers_its_neighbours() {
    // Five origins, so that their shares together exceed the pool of 1, through which all goes to 6.
    const STAR: &[(usize, usize)] = &[(0, 1), (2, 1), (3, 1), (4, 1), (5, 1), (1, 6)];
    const ORIGINS: [usize; 5] = [0, 2, 3, 4, 5];
    let mut net = Net::new(STAR, &Settings { congestion: Congestion::FixedKbps(100_000), ..Settings::default() });
    let back: Vec<(usize, usize)> = ORIGINS.iter().enumerate().map(|(wire, &origin)| (origin, wire)).collect();
    for &(origin, wire) in &back {
        net.route(origin, &[(6, wire)]);
    }
    net.route(6, &ORIGINS.map(|origin| (origin, 5)));
    net.route(1, &[&back[..], &[(6, 5)]].concat());
    net.cut[5] = true;
    for origin in ORIGINS {
        let mut port = PORT;
        let mut send = || {
            // Every port is a flow of its own, with a share of its own.
            port = if port == PORT + 63 { PORT } else { port + 1 };
            let to = Endpoint { node: node(6), port };
            net.put(origin, &Record::Send { class: Class::Reliable, ordered: false, ttl: 0, to, bytes: &[1; 100] })
        };
        while send() == Readiness::Ready {}
    }
    for _ in 0..100 {
        net.run(1);
        let (used, capacity) = net.stats(1).pool;
        assert!(used <= capacity - capacity / 8, "an eighth stays free to take things in: {used} of {capacity}");
    }
    assert!(net.drops(1, DropReason::PoolExhausted) > 0);
    assert_eq!(net.changes(0, 0), [true], "acknowledgements and hellos went on");
    net.cut[5] = false;
    net.run(10_000);
    assert_eq!(net.changes(0, 0), [true]);
    assert_eq!((net.stats(0).pool.0, net.stats(1).pool.0, net.stats(6).pool.0), (0, 0, 0), "all of it came back");
    net.send(0, 6, Class::Reliable, 0, b"afterwards");
    net.run(500);
    assert_eq!(net.received(6).last().map(Vec::as_slice), Some(&b"afterwards"[..]));
}

#[test]
fn an_application_that_outruns_its_link_is_asked_to_wait_and_loses_nothing() {
    let mut net = chain(&Settings { congestion: Congestion::FixedKbps(1_000), ..Settings::default() });
    let mut sent = 0_u32;
    while net.send(0, 2, Class::Reliable, 0, &sent.to_be_bytes()) == Readiness::Ready {
        sent += 1;
        assert!(sent < 10_000, "it is never asked to wait");
    }
    net.run(10_000);
    let mut received = net.received(2);
    received.sort();
    assert_eq!(received, (0..=sent).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>());
    assert_eq!(net.stats(0).drops.total(), 0);
}

#[test]
fn a_standing_queue_on_the_way_slows_its_source_by_marks() {
    // The second link carries a quarter of the first: the queue is at the router in the middle.
    let fixed = |kbps| Settings { congestion: Congestion::FixedKbps(kbps), ..Settings::default() };
    let mut net = Net::with(CHAIN, &[fixed(8_000), fixed(2_000)]);
    route_chain(&mut net);
    let (mut longest, mut ready) = (0, true);
    for step in 0..3_000 {
        while ready {
            ready = net.send(0, 2, Class::Reliable, 0, &[7; 500]) == Readiness::Ready;
        }
        net.run(1);
        ready |= net.asks_for_more(0);
        // By then the first marks have come back.
        if step > 1_000 {
            longest = longest.max(net.stats(1).links[1].stats.queue);
        }
    }
    let transit = net.stats(1);
    assert!(transit.links[1].stats.marked > 0, "{:?}", transit.links[1].stats);
    assert!(marked(&net, 2) > 0, "the mark goes all the way");
    assert!((1..100).contains(&longest), "{longest}");
    assert_eq!(transit.drops.total(), 0, "{:?}", transit.drops);
}

/// Datagrams that reached a router's application with a mark.
fn marked(net: &Net, router: usize) -> usize {
    let is = |record: &&Vec<u8>| matches!(Record::parse(record), Ok(Record::Datagram { mark: true, .. }));
    net.records[router].iter().filter(is).count()
}

#[test]
fn control_messages_beyond_the_bound_are_refused_and_counted() {
    let mut net = chain(&Settings::default());
    for n in 0..1000_u32 {
        net.command(0, Command::SendControl(LinkId(0), Box::from(n.to_be_bytes())));
    }
    let refused = net.drops(0, DropReason::ControlRefused);
    assert!((700..=900).contains(&refused), "{refused}");
    net.run(200);
    let arrived = net.reports[1].iter().filter(|report| matches!(report, Report::Control(..))).count() as u64;
    assert_eq!(arrived + refused, 1000);
    net.command(0, Command::SendControl(LinkId(63), Box::from(*b"no such link")));
    net.command(0, Command::SendControl(LinkId(0), vec![0; 5_000].into()));
    assert_eq!(net.drops(0, DropReason::ControlRefused), refused + 1, "too long");
}

#[test]
fn a_session_without_a_reader_costs_others_nothing() {
    let mut net = chain(&Settings::default());
    net.unread[2] = true;
    for n in 0..3_000_u32 {
        net.send(0, 2, Class::BestEffort, 0, &n.to_be_bytes());
        if n.is_multiple_of(10) {
            net.run(1);
        }
    }
    assert!(net.drops(2, DropReason::ReceiverSlow) > 1_000);
    let (used, capacity) = net.stats(2).pool;
    assert!(used <= capacity * 55 / 100, "{used} of {capacity}");
    echo(&mut net, 2, 2);
    net.run(20);
    assert_eq!(answers(&net), [(2, 2, false, 2)]);
    net.command(2, Command::CloseSession(SESSION));
    net.run(10);
    assert_eq!(net.stats(2).pool.0, 0);
}

#[test]
fn routers_that_stood_still_for_minutes_find_each_other_again() {
    for pause in [10, 170, 600] {
        let mut net = chain(&Settings::default());
        // The clock goes on and nobody is called, as when a machine is frozen.
        net.now += std::time::Duration::from_secs(pause);
        net.run(2_000);
        for (router, wire) in [(0, 0), (1, 0), (1, 1), (2, 1)] {
            assert_eq!(net.changes(router, wire).last(), Some(&true), "router {router} after {pause} s");
        }
        net.send(0, 2, Class::Reliable, 0, b"still there");
        net.run(500);
        assert_eq!(net.received(2), [b"still there"], "after {pause} s");
    }
}
