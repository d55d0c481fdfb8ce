//! Streams.

use super::harness::*;
use crate::base::{Class, SessionId};
use crate::proto::session::SessionKind;
use crate::telemetry::DropReason;
use crate::wire::client::Record;
use crate::wire::message::Protocol;
use crate::wire::session::ResetReason;

const NEAR: SessionId = SessionId(1);

fn write_all(world: &mut World, node: usize, id: SessionId, bytes: &[u8], chunk: usize) {
    for part in bytes.chunks(chunk) {
        world.write(node, id, &Record::Data(part));
    }
}

#[test]
fn carries_bytes_exactly_both_ways_with_half_close() {
    let mut world = World::new(1, 2);
    world.wire = Wire { jitter: ms(60), loss: 0.05, duplicate: 0.05, ..Wire::default() };
    let far = world.connect();
    assert!(world.app(0, 1).has(Record::Connected(endpoint(1, 80))));
    let (there, back) = (pattern(1, 700_001), pattern(2, 300_000));
    write_all(&mut world, 0, NEAR, &there, 10_007);
    world.write(0, NEAR, &Record::Finish);
    world.run_until(ms(60_000), |world| world.far(far).has(Record::Finish));
    assert!(world.far(far).stream() == there);
    // The other direction is still open.
    write_all(&mut world, 1, far, &back, 65_536);
    world.write(1, far, &Record::Finish);
    world.run_until(ms(60_000), |world| world.nodes[0].closed.contains(&NEAR));
    world.run(ms(10_000));
    assert!(world.app(0, 1).stream() == back);
    assert!(world.nodes[1].closed.contains(&far), "both ends know that the stream is over");
    let ends = [world.app(0, 1), world.far(far)];
    for app in ends {
        assert_eq!(app.records().filter(|record| *record == Record::Finish).count(), 1);
        assert!(!app.was_reset());
    }
    world.finish();
}

#[test]
fn a_clean_wire_sees_few_acknowledgements_and_no_repeats() {
    let mut world = World::new(2, 2);
    let far = world.connect();
    let bytes = pattern(3, 2_000_000);
    write_all(&mut world, 0, NEAR, &bytes, 65_536);
    let took = world.run_until(ms(20_000), |world| world.far(far).bytes == bytes.len());
    assert!(took < ms(600), "the window opens: {took:?}");
    let (segments, acks) = (world.nodes[0].sent(Protocol::Segment), world.nodes[1].sent(Protocol::FlowAck));
    assert!(segments < 2_000_000 / 1159 + 20, "{segments} segments");
    assert!(acks <= segments / 16, "{acks} acknowledgements of {segments} segments");
    assert_eq!(world.nodes[1].sessions.drops().total(), 0);
    world.finish();
}

#[test]
fn many_small_writes_share_segments() {
    let mut world = World::new(3, 2);
    let far = world.connect();
    let before = world.nodes[0].sent(Protocol::Segment);
    let bytes = pattern(4, 100_000);
    write_all(&mut world, 0, NEAR, &bytes, 10);
    world.run(ms(2000));
    assert!(world.far(far).stream() == bytes);
    let segments = world.nodes[0].sent(Protocol::Segment) - before;
    assert!(segments < 64 + 100_000 / 1159 + 64, "{segments} segments for 10,000 writes");
    world.finish();
}

#[test]
fn a_reader_that_stops_stops_the_writer_within_bounds() {
    let mut world = World::new(4, 2);
    let far = world.connect();
    world.set_reads(1, far, false);
    let bytes = pattern(5, 6_000_000);
    write_all(&mut world, 0, NEAR, &bytes, 60_000);
    world.run(ms(20_000));
    let before = world.nodes[0].sent(Protocol::Segment);
    world.run(ms(60_000));
    let asked = world.nodes[0].sent(Protocol::Segment) - before;
    assert!((10..=13).contains(&asked), "asked {asked} times in a minute whether there is room");
    assert!(world.app(0, 1).waits(), "the writer is told to wait");
    assert!(world.nodes[1].pool.in_use() <= 1024, "{} packets wait for the reader", world.nodes[1].pool.in_use());
    assert!(world.nodes[0].pool.in_use() <= 1024 + 57);
    assert!(!world.app(0, 1).was_reset(), "a slow reader is no dead one");
    world.set_reads(1, far, true);
    let took = world.run_until(ms(20_000), |world| world.far(far).bytes == bytes.len());
    assert!(took < ms(3000), "it goes on at once: {took:?}");
    assert!(world.far(far).stream() == bytes);
    assert!(!world.app(0, 1).waits());
    world.finish();
}

#[test]
fn a_lost_window_update_is_asked_for() {
    let mut world = World::new(5, 2);
    let far = world.connect();
    world.set_reads(1, far, false);
    let bytes = pattern(6, 3_000_000);
    write_all(&mut world, 0, NEAR, &bytes, 60_000);
    world.run(ms(3000));
    world.wire.loss = 1.0;
    world.set_reads(1, far, true);
    world.run(ms(1000));
    world.wire.loss = 0.0;
    world.run_until(ms(10_000), |world| world.far(far).bytes == bytes.len());
    world.finish();
}

#[test]
fn marks_shrink_the_window_and_losses_do_not() {
    let rate = |wire: Wire| {
        let mut world = World::new(6, 2);
        let far = world.connect();
        world.wire = wire;
        let bytes = pattern(7, 4_000_000);
        write_all(&mut world, 0, NEAR, &bytes, 60_000);
        world.run(ms(1500));
        let window = world.nodes[0].sessions.senders.iter().map(|(_, sender)| sender.window()).next();
        assert!(!world.far(far).stream().is_empty());
        window.expect("the stream's flow lives")
    };
    let clean = rate(Wire { loss: 0.02, jitter: ms(5), ..Wire::default() });
    let marked = rate(Wire { mark: 0.2, ..Wire::default() });
    let always = rate(Wire { mark: 1.0, ..Wire::default() });
    assert!(clean >= 300, "{clean}");
    assert!(marked < 32, "{marked}");
    assert_eq!(always, 2);
}

#[test]
fn nobody_listens() {
    let mut world = World::new(7, 2);
    world.open(0, 1, SessionKind::Stream { to: endpoint(1, 80) });
    world.run(ms(100));
    assert!(world.app(0, 1).has(Record::Reset { reason: ResetReason::NoSession, peer: endpoint(1, 80) }));
    assert_eq!(world.nodes[0].closed, [NEAR]);
    assert_eq!(world.nodes[1].sessions.drops().get(DropReason::NoSession), 1);
    world.finish();
}

#[test]
fn a_silent_peer_is_given_up_after_a_while_and_partitions_are_survived() {
    let mut world = World::new(8, 2);
    let far = world.connect();
    world.wire.loss = 1.0;
    world.write(0, NEAR, &Record::Data(b"after the partition"));
    world.run(ms(20_000));
    world.wire.loss = 0.0;
    let took = world.run_until(ms(10_000), |world| world.far(far).stream() == b"after the partition");
    assert!(took < ms(6000), "{took:?}");
    world.wire.loss = 1.0;
    world.write(0, NEAR, &Record::Data(b"never"));
    world.run(ms(29_000));
    assert!(!world.app(0, 1).was_reset());
    world.run(ms(8000));
    assert!(world.app(0, 1).was_reset());
    world.run(ms(60_000));
    assert!(world.far(far).was_reset(), "the reader notices, too");
    world.finish();
}

#[test]
fn an_idle_stream_lives_on_and_notices_that_its_peer_restarted() {
    let mut world = World::new(9, 2);
    let far = world.connect();
    world.run(ms(600_000));
    assert!(!world.app(0, 1).was_reset() && !world.far(far).was_reset());
    world.write(1, far, &Record::Data(b"still here"));
    world.run(ms(100));
    assert_eq!(world.app(0, 1).stream(), b"still here");
    world.restart(1);
    world.run(ms(20_000));
    assert!(world.app(0, 1).has(Record::Reset { reason: ResetReason::UnknownFlow, peer: endpoint(1, 80) }));
    world.finish();
}

#[test]
fn an_application_that_dies_resets_its_stream() {
    for closer in [0, 1] {
        let mut world = World::new(10, 2);
        let far = world.connect();
        write_all(&mut world, 0, NEAR, &pattern(8, 200_000), 50_000);
        world.run(ms(15));
        let (id, other) = if closer == 0 { (NEAR, far) } else { (far, NEAR) };
        world.close(closer, id);
        world.run(ms(300));
        let app = &world.nodes[1 - closer].apps[&other];
        assert!(app.was_reset(), "closer {closer}");
        assert!(world.nodes[1 - closer].closed.contains(&other));
        world.finish();
    }
}

#[test]
fn what_was_finished_before_closing_arrives() {
    let mut world = World::new(11, 2);
    world.wire = Wire { loss: 0.1, jitter: ms(30), ..Wire::default() };
    let far = world.connect();
    let bytes = pattern(9, 2_500_000);
    write_all(&mut world, 0, NEAR, &bytes, 65_536);
    world.write(0, NEAR, &Record::Finish);
    world.run_until(ms(60_000), |world| !world.app(0, 1).waits());
    world.close(0, NEAR);
    world.run_until(ms(60_000), |world| world.far(far).has(Record::Finish));
    assert!(world.far(far).stream() == bytes);
    world.finish();
}

#[test]
fn a_writer_hears_that_nobody_reads_after_it_has_read_what_is_left() {
    let mut world = World::new(17, 2);
    let far = world.connect();
    let (there, back) = (pattern(13, 5_000_000), pattern(14, 500_000));
    world.set_reads(0, NEAR, false);
    write_all(&mut world, 0, NEAR, &there, 60_000);
    write_all(&mut world, 1, far, &back, 60_000);
    world.write(1, far, &Record::Finish);
    world.run(ms(200));
    world.close(1, far);
    world.run(ms(5000));
    assert!(!world.app(0, 1).waits(), "what it still writes is taken and lost");
    world.set_reads(0, NEAR, true);
    world.run(ms(1000));
    let app = world.app(0, 1);
    assert!(app.stream() == back);
    let ends: Vec<_> = app.records().filter(|record| !matches!(record, Record::Data(_))).collect();
    let peer = endpoint(1, 80);
    assert_eq!(ends, [Record::Connected(peer), Record::Finish, Record::Reset { reason: ResetReason::Closed, peer }]);
    assert_eq!(world.nodes[0].closed, [NEAR]);
    assert_eq!(world.nodes[1].sessions.reports().count(), 1, "only the listener is left");
    world.finish();
}

#[test]
fn a_stream_is_held_until_it_is_accepted() {
    let mut world = World::new(13, 2);
    world.nodes[1].accepts = false;
    let far = world.connect();
    let bytes = pattern(11, 3_000_000);
    write_all(&mut world, 0, NEAR, &bytes, 60_000);
    world.run(ms(5000));
    assert!(world.far(far).got.is_empty());
    assert!(world.nodes[1].pool.in_use() <= 1024);
    let now = world.now;
    world.nodes[1].sessions.accept(now, far);
    world.drain(1);
    world.run_until(ms(20_000), |world| world.far(far).bytes == bytes.len());
    assert!(world.far(far).stream() == bytes);
    world.finish();
}

#[test]
fn a_listener_has_a_backlog_and_takes_it_along() {
    let mut world = World::new(14, 2);
    world.nodes[1].accepts = false;
    world.open(1, 1, SessionKind::Listener { port: 80 });
    for id in 1..=130 {
        world.open(0, id, SessionKind::Stream { to: endpoint(1, 80) });
    }
    world.run(ms(1000));
    assert_eq!(world.nodes[1].incoming.len(), 128);
    let refused = (1..=130).filter(|id| world.app(0, *id).was_reset()).count();
    assert_eq!(refused, 2);
    world.close(1, SessionId(1));
    world.run(ms(1000));
    let reset = (1..=130).filter(|id| world.app(0, *id).was_reset()).count();
    assert_eq!(reset, 130);
    assert_eq!(world.nodes[1].closed.len(), 128);
    world.finish();
}

#[test]
fn routes_change_and_what_was_lost_is_repaired_at_once() {
    let mut world = World::new(15, 2);
    let far = world.connect();
    let bytes = pattern(12, 400_000);
    write_all(&mut world, 0, NEAR, &bytes[..300_000], 60_000);
    world.run(ms(200));
    // A burst is lost whole, without anything after it that would show the gap.
    write_all(&mut world, 0, NEAR, &bytes[300_000..], 60_000);
    assert!(world.lose_flight() >= 60);
    world.run(ms(5));
    world.table_change(0);
    let took = world.run_until(ms(2000), |world| world.far(far).bytes == bytes.len());
    assert!(took < ms(150), "{took:?}");
    assert!(world.far(far).stream() == bytes);
    world.finish();
}

#[test]
fn records_that_do_not_fit_a_stream_close_it() {
    let mut world = World::new(16, 2);
    let far = world.connect();
    world.write(0, NEAR, &Record::Finish);
    world.write(0, NEAR, &Record::Data(b"after the end"));
    assert!(world.app(0, 1).gone);
    let send = Record::Send { class: Class::Reliable, ordered: false, ttl: 0, to: endpoint(0, 1), bytes: b"" };
    world.write(1, far, &send);
    assert!(world.far(far).gone);
    assert_eq!(world.nodes[0].sessions.drops().get(DropReason::BadRecord), 1);
    world.finish();
}

#[test]
fn a_greedy_application_waits_in_one_place() {
    let mut world = World::new(21, 2);
    let far = world.connect();
    let bytes = pattern(22, 12_000_000);
    write_all(&mut world, 0, NEAR, &bytes, 65_536);
    while world.far(far).bytes < bytes.len() {
        world.run(ms(1));
        assert!(world.nodes[0].sessions.waiting_for_room() <= 1, "one session waits for room, once");
    }
    world.finish();
}

#[test]
fn both_ends_finish_at_once() {
    for seed in 0..12 {
        let mut world = World::new(100 + seed, 2);
        let far = world.connect();
        world.wire = Wire { loss: 0.1, jitter: ms(40), duplicate: 0.1, mark: 0.05, ..Wire::default() };
        let (there, back) = (pattern(seed, 65_536), pattern(seed + 50, 120_000));
        for (node, id, bytes) in [(0, NEAR, &there), (1, far, &back)] {
            write_all(&mut world, node, id, bytes, 65_536);
            world.write(node, id, &Record::Finish);
        }
        let over = |world: &World| world.nodes[0].closed.contains(&NEAR) && world.nodes[1].closed.contains(&far);
        world.run_until(ms(30_000), over);
        assert!(world.app(0, 1).stream() == back && world.far(far).stream() == there);
        assert!(!world.app(0, 1).was_reset() && !world.far(far).was_reset());
        assert_eq!(world.nodes[1].sessions.reports().count(), 1, "only the listener is left");
        world.finish();
    }
}
