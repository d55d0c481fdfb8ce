//! Ping and trace.

use super::harness::*;
use crate::base::{Class, SessionId};
use crate::wire::client::Record;
use crate::wire::message::{HEADER_LEN, Header, Protocol};

#[test]
fn a_ping_is_answered_with_its_hops_and_times() {
    let mut world = World::new(1, 2);
    world.datagram(0, 1, 7);
    let ping = Record::Echo { ttl: 0, class: Class::Reliable, node: node_id(1), id: 5, sequence: 6, bytes: &[9; 100] };
    let sent_ns = world.now.as_nanos();
    world.write(0, SessionId(1), &ping);
    world.run(ms(50));
    let now_ns = sent_ns + 20_000_000;
    let node = node_id(1);
    let answer = Record::EchoAnswer { expired: false, node, id: 5, sequence: 6, hops: 1, sent_ns, now_ns };
    assert!(world.app(0, 1).has(answer), "{:?}", world.app(0, 1).records().collect::<Vec<_>>());
    world.finish();
}

#[test]
fn an_echo_that_runs_out_of_hops_names_the_router_and_is_bounded() {
    let mut world = World::new(2, 3);
    world.datagram(0, 1, 7);
    let ping = Record::Echo { ttl: 1, class: Class::BestEffort, node: node_id(2), id: 5, sequence: 6, bytes: b"" };
    world.write(0, SessionId(1), &ping);
    // What router 1 on the path sees: the source has counted the ttl down to the one hop that was asked for.
    let message = world.flight_to(2).remove(0);
    let header = Header::parse(&message).expect("parses");
    assert_eq!((header.ttl, header.protocol), (1, Protocol::Echo));
    world.lose_flight();
    let now = world.now;
    for _ in 0..1000 {
        let Node { sessions, pool, .. } = &mut world.nodes[1];
        sessions.handle_expired(now, &header, &message[HEADER_LEN..], pool);
    }
    world.drain(1);
    world.run(ms(50));
    let expired = |record: &Record<'_>| matches!(record, Record::EchoAnswer { expired: true, hops: 1, node, .. } if *node == node_id(1));
    let count = world.app(0, 1).records().filter(expired).count();
    assert_eq!(count, 50, "a quarter of a second's worth of notes");
    world.finish();
}

#[test]
fn an_echo_larger_than_a_message_is_a_bad_record() {
    let mut world = World::new(3, 2);
    world.datagram(0, 1, 7);
    let bytes = [0; 1152];
    let ping = Record::Echo { ttl: 0, class: Class::BestEffort, node: node_id(1), id: 5, sequence: 6, bytes: &bytes };
    world.write(0, SessionId(1), &ping);
    assert!(world.app(0, 1).gone);
    world.finish();
}
