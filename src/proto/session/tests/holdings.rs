//! Everything that is held has a bound, and what checkers are shown of it is true.

use super::harness::*;
use crate::base::{Class, SessionId};
use crate::proto::session::{SessionKind, Settings};
use crate::telemetry::DropReason;
use crate::wire::client::{MAX_RECORD, Record};
use crate::wire::message::{Header, Protocol};
use crate::wire::session::{DATAGRAM_HEADER_LEN, MAX_DATAGRAM_FRAGMENT};
use std::collections::BTreeMap;

/// The most that was seen of each holding so far; none may ever be beyond its bound.
#[derive(Default)]
struct Peaks(BTreeMap<&'static str, (usize, usize)>);

impl Peaks {
    fn look(&mut self, world: &World) {
        for (index, node) in world.nodes.iter().enumerate() {
            let holdings = node.sessions.holdings();
            for (name, held, bound) in &holdings {
                assert!(held <= bound, "router {index}, {name}: {held} of {bound}");
                let peak = self.0.entry(name).or_default();
                *peak = (*peak).max((*held, *bound));
            }
            assert_eq!(holdings.len(), 23, "each has a name of its own");
        }
        assert_eq!(self.0.len(), 23);
    }

    fn is_full(&self, name: &str) -> bool {
        self.0[name].0 == self.0[name].1
    }
}

fn tight() -> Settings {
    Settings {
        max_sessions: 12,
        flows_per_session: 3,
        held_bytes: 2 * MAX_RECORD,
        inbox: 16,
        reassemblies: 4,
        backlog: 2,
        send_queue: 100,
        receive_window: 128,
        tombstones: 70,
        ..Settings::default()
    }
}

/// First fragments whose siblings never come.
fn inject_fragments(world: &mut World, count: u32) {
    for message in 0..count {
        let mut body = message.to_be_bytes().to_vec();
        body.extend([0, 1]);
        body.resize(DATAGRAM_HEADER_LEN + MAX_DATAGRAM_FRAGMENT, 7);
        let header = Header {
            class: Class::BestEffort,
            ttl: 9,
            mark: false,
            protocol: Protocol::Datagram,
            destination: node_id(1),
            source: node_id(0),
            destination_port: 9,
            source_port: 7,
        };
        world.inject(1, &header, &body);
    }
}

#[test]
fn what_is_held_stays_within_the_bounds_that_checkers_are_shown() {
    let (mut world, mut peaks) = (World::with(16, 2, tight()), Peaks::default());
    world.nodes[1].accepts = false;
    world.datagram(1, 9, 9);
    world.set_reads(1, SessionId(9), false);
    inject_fragments(&mut world, 9);
    peaks.look(&world);
    world.open(1, 1, SessionKind::Listener { port: 80 });
    for port in 10..=13 {
        world.datagram(1, u64::from(port), port);
    }
    for id in 1..=6 {
        world.open(0, id, SessionKind::Stream { to: endpoint(1, 80) });
    }
    for id in 7..=12 {
        world.datagram(0, id, 1000 + id as u16);
    }
    let bytes = pattern(16, 60_000);
    for round in 0..40 {
        for id in 1..=6 {
            world.write(0, SessionId(id), &Record::Data(&bytes));
            peaks.look(&world);
        }
        for id in 7..=12 {
            world.send(0, id, Class::Reliable, id % 2 == 0, endpoint(1, 9 + round % 5), &bytes);
            world.send(0, id, Class::BestEffort, false, endpoint(1, 9), &bytes);
        }
        world.run(ms(20));
        peaks.look(&world);
    }
    for name in ["sessions", "incomplete datagrams", "streams waiting at one listener", "flows of one session"] {
        assert!(peaks.is_full(name), "{name}: {:?}", peaks.0[name]);
    }
    for name in
        ["sessions put off", "bytes of waiting records", "packets kept for receivers", "packets kept for senders"]
    {
        assert!(peaks.0[name].0 > 0, "{name}");
    }
    assert!(peaks.0["segments of one outgoing flow"].0 >= 100, "{:?}", peaks.0["segments of one outgoing flow"]);
    assert!(peaks.0["packets and notices in one inbox"].0 >= 16);
    assert!(world.nodes[1].sessions.drops().get(DropReason::ReceiverSlow) > 0);
}

#[test]
fn messages_without_bytes_queue_within_the_bound_too() {
    let mut world = World::with(17, 2, Settings { send_queue: 100, ..Settings::default() });
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.wire.loss = 1.0;
    for _ in 0..500 {
        world.send(0, 1, Class::Reliable, true, endpoint(1, 9), b"");
    }
    let mut peaks = Peaks::default();
    peaks.look(&world);
    assert!(world.app(0, 1).waits(), "the application is asked to wait");
    world.wire.loss = 0.0;
    world.run_until(ms(20_000), |world| world.app(1, 1).datagrams().len() == 500);
    world.finish();
}
