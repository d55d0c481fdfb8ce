//! Datagrams, best effort and reliable.

use super::harness::*;
use crate::base::{Class, SessionId};
use crate::containers::pool::Urgency;
use crate::containers::{Packet, Pool};
use crate::proto::session::{Refusal, SessionKind, Settings};
use crate::telemetry::DropReason;
use crate::wire::client::Record;
use crate::wire::cursor::Writer;
use crate::wire::message::{HEADER_LEN, Header, Protocol};
use crate::wire::session::{FlowReset, ResetReason, SEGMENT_HEADER_LEN, Segment, SegmentFlags};

const SIZES: [usize; 8] = [0, 1, 1158, 1159, 1160, 5000, 40_000, 65_536];

fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = pattern(u64::from(number), len.max(4));
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[test]
fn best_effort_carries_every_size() {
    let mut world = World::new(1, 2);
    world.wire.jitter = ms(20);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    let sent: Vec<Vec<u8>> = SIZES.iter().map(|len| pattern(*len as u64, *len)).collect();
    for bytes in &sent {
        world.send(0, 1, Class::BestEffort, false, endpoint(1, 9), bytes);
    }
    world.run(ms(100));
    let mut got = world.app(1, 1).datagrams();
    got.sort_by_key(|bytes| bytes.len());
    assert!(got == sent);
    let from = endpoint(0, 7);
    let empty = Record::Datagram { class: Class::BestEffort, mark: false, from, bytes: b"" };
    assert!(world.app(1, 1).has(empty));
    world.finish();
}

#[test]
fn incomplete_datagrams_are_given_up() {
    let mut world = World::new(2, 2);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.wire.loss = 0.3;
    for _ in 0..100 {
        world.send(0, 1, Class::BestEffort, false, endpoint(1, 9), &[1; 60_000]);
        world.run(ms(20));
        assert!(world.nodes[1].pool.in_use() <= 64 * 57);
    }
    assert_eq!(world.app(1, 1).datagrams().len(), 0, "0.7 to the 52nd");
    world.run(ms(3000));
    assert_eq!(world.nodes[1].sessions.drops().get(DropReason::Incomplete), 100);
    assert_eq!(world.nodes[1].pool.in_use(), 0);
    world.finish();
}

#[test]
fn best_effort_does_not_wait_for_a_slow_reader() {
    let mut world = World::new(3, 2);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.set_reads(1, SessionId(1), false);
    for number in 0..600 {
        world.send(0, 1, Class::BestEffort, false, endpoint(1, 9), &numbered(number, 100));
    }
    world.run(ms(100));
    assert_eq!(world.nodes[1].sessions.drops().get(DropReason::ReceiverSlow), 88);
    world.set_reads(1, SessionId(1), true);
    assert_eq!(world.app(1, 1).datagrams().len(), 512);
    world.send(0, 1, Class::BestEffort, false, endpoint(1, 10), b"nobody");
    world.run(ms(100));
    assert_eq!(world.nodes[1].sessions.drops().get(DropReason::NoSession), 1);
    world.finish();
}

fn reliable_case(ordered: bool) {
    let mut world = World::new(4 + u64::from(ordered), 2);
    world.wire = Wire { jitter: ms(80), loss: 0.2, duplicate: 0.1, ..Wire::default() };
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    let sent: Vec<Vec<u8>> = (0..120).map(|n| numbered(n, SIZES[n as usize % SIZES.len()])).collect();
    for bytes in &sent {
        world.send(0, 1, Class::Reliable, ordered, endpoint(1, 9), bytes);
    }
    world.run_until(ms(30_000), |world| world.app(1, 1).datagrams().len() >= sent.len());
    world.run(ms(20_000));
    let app = world.app(1, 1);
    let mut got = app.datagrams();
    if !ordered {
        assert!(got != sent, "unordered messages overtake each other on such a wire");
        got.sort();
    }
    assert!(got == sent, "each once");
    assert!(world.nodes[1].sessions.drops().get(DropReason::Duplicate) > 0);
    world.finish();
}

#[test]
fn unordered_reliable_datagrams_arrive_exactly_once() {
    reliable_case(false);
}

#[test]
fn ordered_reliable_datagrams_arrive_exactly_once_in_order() {
    reliable_case(true);
}

#[test]
fn unordered_messages_do_not_wait_for_each_other() {
    let mut world = World::new(6, 2);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"warm up");
    world.run(ms(500));
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"lost");
    world.lose_flight();
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"not lost");
    world.run(ms(11));
    assert_eq!(world.app(1, 1).datagrams(), [&b"warm up"[..], b"not lost"]);
    world.run(ms(600));
    assert_eq!(world.app(1, 1).datagrams().last(), Some(&&b"lost"[..]));
    world.finish();
}

#[test]
fn a_slow_reader_holds_back_its_sender_only() {
    let mut world = World::new(7, 3);
    for node in 0..3 {
        world.datagram(node, 1, 9);
    }
    world.set_reads(1, SessionId(1), false);
    for number in 0..200 {
        world.send(0, 1, Class::Reliable, true, endpoint(1, 9), &numbered(number, 20_000));
    }
    world.datagram(0, 2, 10);
    for number in 0..50 {
        world.send(0, 2, Class::Reliable, true, endpoint(2, 9), &numbered(number, 20_000));
    }
    world.run(ms(5000));
    assert!(world.app(0, 1).waits());
    assert_eq!(world.app(2, 1).datagrams().len(), 50);
    assert!(world.nodes[1].pool.in_use() <= 1024);
    world.set_reads(1, SessionId(1), true);
    let took = world.run_until(ms(20_000), |world| world.app(1, 1).got.len() == 200);
    assert!(took < ms(1000), "the sender hears of the room at once: {took:?}");
    assert!(world.app(1, 1).datagrams().iter().enumerate().all(|(n, bytes)| bytes[..4] == (n as u32).to_be_bytes()));
    world.finish();
}

#[test]
fn many_flows_share_the_receivers_part_of_the_pool() {
    let mut world = World::new(8, 2);
    world.datagram(1, 1, 9);
    world.set_reads(1, SessionId(1), false);
    for id in 1..=100 {
        world.datagram(0, id, 1000 + id as u16);
        for number in 0..6 {
            world.send(0, id, Class::Reliable, false, endpoint(1, 9), &numbered(number, 60_000));
        }
    }
    world.run(ms(40_000));
    let before = world.nodes[0].sent(Protocol::Segment);
    world.run(ms(60_000));
    let repeats = world.nodes[0].sent(Protocol::Segment) - before;
    assert!(repeats < 100 * 13 * 64, "what finds no room is repeated with restraint: {repeats}");
    let held = world.nodes[1].pool.in_use();
    assert!(held <= POOL * 55 / 100, "{held} packets held for one application that does not read");
    assert!(held >= POOL * 30 / 100, "yet the share is used: {held}");
    world.set_reads(1, SessionId(1), true);
    world.run_until(ms(100_000), |world| world.app(1, 1).datagrams().len() == 600);
    world.finish();
}

#[test]
fn what_was_read_is_acknowledged_by_a_receiver_that_closes() {
    let mut world = World::new(12, 2);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.send(0, 1, Class::Reliable, true, endpoint(1, 9), b"read before the end");
    world.run_until(ms(100), |world| world.app(1, 1).datagrams().len() == 1);
    world.close(1, SessionId(1));
    world.run(ms(1000));
    assert!(!world.app(0, 1).was_reset(), "nothing is lost");
    world.send(0, 1, Class::Reliable, true, endpoint(1, 9), b"nobody reads this");
    world.run(ms(100));
    assert!(world.app(0, 1).has(Record::Reset { reason: ResetReason::Closed, peer: endpoint(1, 9) }));
}

#[test]
fn a_reset_tells_why() {
    let mut world = World::new(9, 2);
    world.datagram(0, 1, 7);
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"nobody is there");
    world.run(ms(100));
    assert!(world.app(0, 1).has(Record::Reset { reason: ResetReason::NoSession, peer: endpoint(1, 9) }));
    world.datagram(1, 1, 9);
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"now there is");
    world.run(ms(100));
    assert_eq!(world.app(1, 1).datagrams(), [b"now there is"]);
    world.restart(1);
    world.datagram(1, 1, 9);
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"lost with the router");
    world.run(ms(100));
    assert!(world.app(0, 1).has(Record::Reset { reason: ResetReason::UnknownFlow, peer: endpoint(1, 9) }));
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"and again");
    world.run(ms(100));
    assert_eq!(world.app(1, 1).datagrams(), [b"and again"]);
    world.close(1, SessionId(1));
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"closed");
    world.run(ms(100));
    assert!(world.app(0, 1).has(Record::Reset { reason: ResetReason::Closed, peer: endpoint(1, 9) }));
    world.finish();
}

#[test]
fn what_was_sent_before_closing_arrives() {
    let mut world = World::new(10, 2);
    world.wire = Wire { loss: 0.2, jitter: ms(30), ..Wire::default() };
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    for number in 0..100 {
        world.send(0, 1, Class::Reliable, true, endpoint(1, 9), &numbered(number, 30_000));
    }
    world.run_until(ms(60_000), |world| !world.app(0, 1).waits());
    world.close(0, SessionId(1));
    world.run(ms(40_000));
    assert_eq!(world.app(1, 1).datagrams().len(), 100);
    assert_eq!(world.nodes[0].sessions.reports().count(), 0, "lingered no longer than needed");
    world.finish();
}

#[test]
fn late_repeats_meet_a_tombstone() {
    let mut world = World::new(11, 2);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"once");
    let late = world.flight_to(1);
    world.close(0, SessionId(1));
    world.run(ms(30_000));
    assert_eq!(world.app(1, 1).datagrams(), [b"once"]);
    assert_eq!(world.nodes[0].sessions.reports().count(), 0);
    for message in &late {
        world.inject_message(1, message);
    }
    world.run(ms(1000));
    assert_eq!(world.app(1, 1).datagrams(), [b"once"]);
    assert_eq!(world.nodes[1].sessions.drops().get(DropReason::Duplicate), late.len() as u64);
    world.finish();
}

#[test]
fn idle_flows_end_and_order_holds_across_them() {
    let mut world = World::new(12, 2);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.send(0, 1, Class::Reliable, true, endpoint(1, 9), &numbered(0, 4));
    world.run(ms(59_999));
    // The flow is ending while new messages come, and its end is lost at first.
    world.wire.loss = 1.0;
    world.run(ms(100));
    for number in 1..20 {
        world.send(0, 1, Class::Reliable, true, endpoint(1, 9), &numbered(number, 3000));
    }
    world.run(ms(50));
    world.wire = Wire { jitter: ms(50), loss: 0.2, ..Wire::default() };
    world.run(ms(10_000));
    let order: Vec<u8> = world.app(1, 1).datagrams().iter().map(|bytes| bytes[3]).collect();
    assert_eq!(order, (0..20).collect::<Vec<u8>>());
    assert!(!world.app(0, 1).was_reset());
    world.wire = Wire::default();
    world.run(ms(70_000));
    assert_eq!(world.nodes[0].sessions.senders.iter().count(), 0);
    assert_eq!(world.nodes[1].sessions.receivers.iter().count(), 0);
    world.finish();
}

#[test]
fn one_flow_more_ends_the_idlest() {
    let mut world = World::with(13, 2, Settings { flows_per_session: 4, ..Settings::default() });
    world.datagram(0, 1, 7);
    for id in 1..=20 {
        world.datagram(1, id, id as u16);
        for ordered in [true, false] {
            world.send(0, 1, Class::Reliable, ordered, endpoint(1, id as u16), b"hello");
        }
    }
    world.run(ms(5000));
    for id in 1..=20 {
        assert_eq!(world.app(1, id).datagrams(), [b"hello", b"hello"], "port {id}");
    }
    assert!(world.nodes[0].sessions.senders.iter().count() <= 4);
    assert!(!world.app(0, 1).was_reset());
    world.finish();
}

#[test]
fn small_and_empty_pools_slow_down_and_recover() {
    let mut world = World::new(18, 2);
    for node in 0..2 {
        world.nodes[node].pool = Pool::new(200);
        world.datagram(node, 1, 9);
    }
    for number in 0..20 {
        world.send(0, 1, Class::Reliable, number % 2 == 0, endpoint(1, 9), &numbered(number, 65_536));
    }
    // Others take every packet for a while.
    let pool = &mut world.nodes[0].pool;
    let taken: Vec<Packet> = std::iter::from_fn(|| pool.take(Urgency::Reserved, 1)).collect();
    world.run(ms(3000));
    let pool = &mut world.nodes[0].pool;
    taken.into_iter().for_each(|packet| pool.release(packet));
    world.run_until(ms(60_000), |world| world.app(1, 1).datagrams().len() == 20);
    world.run(ms(5000));
    assert_eq!(world.app(1, 1).datagrams().len(), 20);
    assert!(!world.app(0, 1).was_reset());
    world.finish();
}

#[test]
fn applications_see_marks() {
    let mut world = World::new(19, 2);
    world.wire.mark = 1.0;
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    for class in Class::ALL {
        for len in [10, 3000] {
            world.send(0, 1, class, false, endpoint(1, 9), &pattern(1, len));
        }
    }
    world.run(ms(500));
    let marked = |record: &Record<'_>| matches!(record, Record::Datagram { mark: true, .. });
    assert_eq!(world.app(1, 1).records().filter(marked).count(), 4);
    world.finish();
}

#[test]
fn reports_tell_what_is_under_way() {
    let mut world = World::new(20, 2);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.set_reads(1, SessionId(1), false);
    world.send(0, 1, Class::Reliable, true, endpoint(1, 9), &[1; 3000]);
    let report = |world: &World, node: usize| world.nodes[node].sessions.reports().next().expect("one session");
    assert_eq!((report(&world, 0).sent, report(&world, 0).unacknowledged), (1, 3000));
    world.run(ms(500));
    let (near, far) = (report(&world, 0), report(&world, 1));
    assert_eq!((near.unacknowledged, near.repeated, near.kind.as_str(), near.port), (0, 0, "datagram", 7));
    assert_eq!((far.unread, far.delivered), (3000, 0));
    world.set_reads(1, SessionId(1), true);
    assert_eq!((report(&world, 1).unread, report(&world, 1).delivered), (0, 1));
    world.finish();
}

#[test]
fn a_router_talks_to_itself() {
    let mut world = World::new(14, 1);
    world.datagram(0, 1, 7);
    world.datagram(0, 2, 9);
    world.send(0, 1, Class::Reliable, true, endpoint(0, 9), &pattern(1, 65_536));
    world.send(0, 1, Class::BestEffort, true, endpoint(0, 7), b"to myself");
    world.run(ms(1000));
    assert_eq!(world.app(0, 2).datagrams(), [pattern(1, 65_536)]);
    assert_eq!(world.app(0, 1).datagrams(), [b"to myself"]);
    world.finish();
}

#[test]
fn ports_are_given_and_refused() {
    let mut world = World::new(15, 1);
    world.datagram(0, 1, 7);
    let now = world.now;
    let taken = world.nodes[0].sessions.open(now, SessionId(2), SessionKind::Listener { port: 7 });
    assert_eq!(taken, Err(Refusal::PortInUse));
    assert!(world.datagram(0, 3, 0) >= 49152);
    world.close(0, SessionId(1));
    assert_eq!(world.datagram(0, 4, 7), 7);
    world.finish();
    let mut world = World::with(16, 1, Settings { max_sessions: 2, ..Settings::default() });
    world.datagram(0, 1, 0);
    world.datagram(0, 2, 0);
    let now = world.now;
    let more = world.nodes[0].sessions.open(now, SessionId(3), SessionKind::Datagram { port: 0 });
    assert_eq!(more, Err(Refusal::TooMany));
    world.finish();
}

#[test]
fn garbage_is_counted_and_does_no_harm() {
    let mut world = World::new(17, 2);
    world.datagram(1, 1, 9);
    let mut rng = crate::base::Rng::from_u64(3);
    let protocols = [
        Protocol::Datagram,
        Protocol::Segment,
        Protocol::FlowAck,
        Protocol::FlowReset,
        Protocol::Echo,
        Protocol::EchoReply,
        Protocol::EchoExpired,
        Protocol::Control,
    ];
    for round in 0..20_000 {
        let mut body = vec![0; rng.below(60) as usize];
        rng.fill(&mut body);
        // Few flows and small numbers, so that what is garbage as a whole meets state that exists.
        if body.len() > 8 {
            let flow = body[3] % 4;
            body[..7].copy_from_slice(&[0, 0, 0, flow, 0, 0, 0]);
        }
        let header = Header {
            class: Class::Reliable,
            ttl: 3,
            mark: round % 3 == 0,
            protocol: protocols[round % protocols.len()],
            destination: node_id(1),
            source: node_id(0),
            destination_port: 9,
            source_port: 5,
        };
        world.inject(1, &header, &body);
    }
    assert!(world.nodes[1].sessions.drops().get(DropReason::Malformed) > 1000);
    assert!(world.nodes[1].sessions.receivers.iter().count() <= 8);
    // Another flow is not disturbed.
    world.datagram(0, 1, 7);
    world.send(0, 1, Class::Reliable, true, endpoint(1, 9), b"fine");
    world.run(ms(2000));
    assert!(world.app(1, 1).datagrams().contains(&&b"fine"[..]));
    world.run(ms(200_000));
    world.finish();
}

#[test]
fn strangers_cannot_fill_the_inbox_with_resets() {
    let mut world = World::new(23, 2);
    world.datagram(1, 1, 9);
    world.set_reads(1, SessionId(1), false);
    let header = |protocol| Header {
        class: Class::Reliable,
        ttl: 9,
        mark: false,
        protocol,
        destination: node_id(1),
        source: node_id(0),
        destination_port: 9,
        source_port: 7,
    };
    for flow in 0..2000 {
        let flags = SegmentFlags { open: true, first: true, ..SegmentFlags::default() };
        let mut body = [0; SEGMENT_HEADER_LEN];
        let half = Segment { flow, sequence: 1, flags, bytes: &[] };
        half.emit_header(&mut Writer::new(&mut body)).expect("fits");
        world.inject(1, &header(Protocol::Segment), &body);
        let reset = FlowReset { flow, by_receiver: false, reason: ResetReason::Closed };
        world.inject(1, &header(Protocol::FlowReset), &reset.to_bytes());
    }
    let kept = Settings::default().inbox as u64;
    assert_eq!(world.nodes[1].sessions.drops().get(DropReason::ReceiverSlow), 2000 - kept);
    world.set_reads(1, SessionId(1), true);
    assert_eq!(world.app(1, 1).got.len() as u64, kept);
    world.finish();
}

#[test]
fn lingering_ends() {
    let mut world = World::new(24, 2);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.set_reads(1, SessionId(1), false);
    for number in 0..22 {
        world.send(0, 1, Class::Reliable, true, endpoint(1, 9), &numbered(number, 60_000));
    }
    world.run(ms(1000));
    world.close(0, SessionId(1));
    world.run(ms(59_000));
    assert_eq!(world.nodes[0].sessions.reports().count(), 1, "it still tries");
    world.run(ms(2000));
    assert_eq!(world.nodes[0].sessions.reports().count(), 0);
    world.finish();
}

#[test]
fn half_a_message_of_a_flow_that_breaks_is_told_and_counted() {
    for ordered in [false, true] {
        for silent in [false, true] {
            let mut world = World::new(25, 2);
            world.datagram(0, 1, 7);
            world.datagram(1, 1, 9);
            world.send(0, 1, Class::Reliable, ordered, endpoint(1, 9), b"warm up");
            world.run(ms(500));
            world.send(0, 1, Class::Reliable, ordered, endpoint(1, 9), &[7; 20_000]);
            let parts = world.flight_to(1);
            world.lose_flight();
            for part in &parts[..9] {
                world.inject_message(1, part);
            }
            world.wire.loss = 1.0;
            let mut reason = ResetReason::TimedOut;
            if !silent {
                reason = ResetReason::Closed;
                let mut header = Header::parse(&parts[0]).expect("a good header");
                header.protocol = Protocol::FlowReset;
                let flow = u32::from_be_bytes(parts[0][HEADER_LEN..HEADER_LEN + 4].try_into().expect("four bytes"));
                world.inject(1, &header, &FlowReset { flow, by_receiver: false, reason }.to_bytes());
            }
            world.run(ms(200_000));
            let app = world.app(1, 1);
            assert_eq!(app.datagrams(), [b"warm up"]);
            assert!(app.has(Record::Reset { reason, peer: endpoint(0, 7) }), "ordered {ordered}, silent {silent}");
            assert_eq!(world.nodes[1].sessions.drops().get(DropReason::Incomplete), 1);
            assert_eq!(world.nodes[1].pool.in_use(), 0);
        }
    }
}

#[test]
fn more_flows_than_can_be_remembered_are_refused_and_none_is_delivered_twice() {
    let mut world = World::with(26, 2, Settings { tombstones: 40, ..Settings::default() });
    world.datagram(1, 1, 9);
    let mut late = Vec::new();
    for id in 1..=60 {
        world.datagram(0, id, 1000 + id as u16);
        world.send(0, id, Class::Reliable, false, endpoint(1, 9), &numbered(id as u32, 4));
        late.extend(world.flight_to(1));
        world.run(ms(20));
        world.close(0, SessionId(id));
        world.run(ms(100));
    }
    assert!(world.nodes[1].sessions.drops().get(DropReason::FlowRefused) >= 20);
    for message in &late {
        world.inject_message(1, message);
    }
    world.run(ms(100_000));
    let mut got = world.app(1, 1).datagrams();
    let count = got.len();
    got.sort();
    got.dedup();
    assert_eq!((got.len(), count >= 40), (count, true), "each at most once");
    world.datagram(0, 100, 99);
    world.send(0, 100, Class::Reliable, false, endpoint(1, 9), &numbered(100, 4));
    world.run(ms(100));
    assert_eq!(world.app(1, 1).datagrams().len(), count + 1, "there is room again");
    world.finish();
}
