//! Readers that do not read, for hours: a stream breaks only when its peer is gone.

use super::harness::*;
use crate::base::{Class, Rng, SessionId};
use crate::proto::session::{SessionKind, Settings};
use crate::telemetry::DropReason;
use crate::wire::client::{MAX_RECORD, Record};
use crate::wire::session::ResetReason;
use std::time::Duration;

const NEAR: SessionId = SessionId(1);

fn write_all(world: &mut World, node: usize, id: SessionId, bytes: &[u8]) {
    for part in bytes.chunks(60_000) {
        world.write(node, id, &Record::Data(part));
    }
}

fn minutes(count: u64) -> Duration {
    ms(count * 60_000)
}

/// The reader goes on, and the stream's bytes arrive whole.
fn comes_through(mut world: World, far: SessionId, bytes: &[u8]) {
    world.wire = Wire::default();
    world.set_reads(1, far, true);
    world.run_until(ms(30_000), |world| world.far(far).bytes >= bytes.len());
    assert!(world.far(far).stream() == bytes);
    world.finish();
}

#[test]
fn a_reader_that_stalls_for_hours_breaks_nothing() {
    for (seed, loss, written) in [(1, 0.0, 3_000_000), (2, 0.2, 3_000_000), (3, 0.2, 50_000), (4, 0.35, 3_000_000)] {
        let mut world = World::new(seed, 2);
        let far = world.connect();
        world.set_reads(1, far, false);
        let bytes = pattern(seed, written);
        write_all(&mut world, 0, NEAR, &bytes);
        world.wire = Wire { loss, jitter: ms(40), duplicate: 0.05, ..Wire::default() };
        for minute in 0..180 {
            world.run(minutes(1));
            assert!(!world.app(0, 1).was_reset(), "loss {loss}: reset after {minute} minutes");
        }
        comes_through(world, far, &bytes);
    }
}

#[test]
fn a_stalled_reader_and_routers_that_crash_on_the_path_break_nothing() {
    let mut world = World::new(5, 2);
    let mut rng = Rng::from_u64(5);
    let far = world.connect();
    world.set_reads(1, far, false);
    let bytes = pattern(5, 3_000_000);
    write_all(&mut world, 0, NEAR, &bytes);
    for round in 0..120 {
        world.run(ms(10_000 + rng.below(60_000)));
        world.lose_flight();
        world.wire.loss = 1.0;
        world.run(ms(rng.below(20_000)));
        world.wire.loss = 0.02;
        world.table_change(0);
        world.table_change(1);
        assert!(!world.app(0, 1).was_reset(), "round {round}");
    }
    comes_through(world, far, &bytes);
}

#[test]
fn a_writer_that_finished_and_left_waits_for_a_stalled_reader() {
    for (seed, loss) in [(6, 0.0), (7, 0.2)] {
        let mut world = World::new(seed, 2);
        let far = world.connect();
        world.set_reads(1, far, false);
        let bytes = pattern(seed, 1_300_000);
        write_all(&mut world, 0, NEAR, &bytes);
        world.write(0, NEAR, &Record::Finish);
        world.run(ms(2000));
        world.wire.loss = loss;
        world.close(0, NEAR);
        world.run(minutes(120));
        assert_eq!(world.nodes[0].sessions.reports().count(), 1, "it still has something to hand over");
        world.wire = Wire::default();
        world.set_reads(1, far, true);
        world.run_until(ms(30_000), |world| world.far(far).has(Record::Finish));
        assert!(world.far(far).stream() == bytes);
        world.run(ms(10_000));
        assert_eq!(world.nodes[0].sessions.reports().count(), 0, "and is gone once it has");
        world.finish();
    }
}

#[test]
fn a_writer_that_left_notices_within_a_minute_that_its_reader_died() {
    let mut world = World::new(8, 2);
    let far = world.connect();
    world.set_reads(1, far, false);
    write_all(&mut world, 0, NEAR, &pattern(8, 1_300_000));
    world.write(0, NEAR, &Record::Finish);
    world.run(ms(2000));
    world.close(0, NEAR);
    world.run(minutes(30));
    world.wire.loss = 1.0;
    world.run(ms(40_000));
    assert_eq!(world.nodes[0].sessions.reports().count(), 0);
    world.wire.loss = 0.0;
    world.run(ms(60_000));
    assert!(world.far(far).got.len() < 1000);
}

#[test]
fn a_dead_peer_is_noticed_in_the_stated_time() {
    // Shut out: asked every 5 s, given up 30 s after the first question without an answer. Idle: asked after 15 s.
    for (written, within) in [(3_000_000, 36_000), (0, 46_000)] {
        let mut world = World::new(9, 2);
        let far = world.connect();
        world.set_reads(1, far, false);
        write_all(&mut world, 0, NEAR, &pattern(9, written));
        world.run(minutes(30));
        world.wire.loss = 1.0;
        let took = world.run_until(ms(within), |world| world.app(0, 1).was_reset());
        assert!(took > ms(24_000), "{written} bytes: {took:?}");
        world.run(ms(61_000));
        world.set_reads(1, far, true);
        assert!(world.far(far).was_reset(), "the reader's router notices, too");
        world.finish();
    }
}

#[test]
fn a_router_that_was_frozen_asks_before_it_gives_up() {
    let mut world = World::new(10, 2);
    let far = world.connect();
    write_all(&mut world, 0, NEAR, b"on its way when the machine froze");
    assert!(world.lose_flight() > 0);
    let later = world.now + ms(40_000);
    world.now = later;
    world.run_until(ms(5000), |world| world.far(far).bytes > 0);
    assert!(!world.app(0, 1).was_reset());
    world.finish();
}

#[test]
fn questions_after_a_freeze_have_time_to_be_answered() {
    // Frozen before it asked, and after it had asked in vain for a while.
    for asked_for in [0, 3_000] {
        let mut world = World::new(10, 2);
        let far = world.connect();
        write_all(&mut world, 0, NEAR, b"on its way when the machine froze");
        world.wire.loss = 1.0;
        world.run(ms(asked_for));
        world.lose_flight();
        world.now += ms(34_000);
        // The links come up anew: a second in which it asks more than often enough.
        world.run(ms(1_000));
        assert!(!world.app(0, 1).was_reset(), "frozen after {asked_for} ms of asking");
        world.wire.loss = 0.0;
        world.run_until(ms(3_000), |world| world.far(far).bytes > 0);
        assert!(!world.app(0, 1).was_reset());
        world.finish();
    }
}

#[test]
fn a_peer_that_speaks_again_is_not_given_up_for_what_it_did_not_answer() {
    let mut world = World::new(10, 2);
    let far = world.connect();
    // The far end asks the near one, which stands still, until a moment before it would give up.
    write_all(&mut world, 1, far, b"nobody is there to read this");
    world.wire.loss = 1.0;
    world.run(ms(29_900));
    assert!(!world.app(1, far.0).was_reset());
    world.wire.loss = 0.0;
    write_all(&mut world, 0, NEAR, b"here I am again");
    world.run_until(ms(100), |world| world.far(far).bytes > 0);
    // What it asked is lost once more, and then not.
    world.wire.loss = 1.0;
    world.run(ms(1_000));
    world.wire.loss = 0.0;
    world.run(ms(10_000));
    assert!(!world.far(far).was_reset() && !world.app(0, NEAR.0).was_reset());
    world.finish();
}

#[test]
fn streams_wait_for_room_that_others_hold_as_long_as_it_takes() {
    let mut world = World::new(11, 2);
    world.datagram(1, 2, 9);
    world.set_reads(1, SessionId(2), false);
    for id in 10..110 {
        world.datagram(0, id, 1000 + id as u16);
        for number in 0..6 {
            let bytes = pattern(number, 60_000);
            world.send(0, id, Class::Reliable, false, endpoint(1, 9), &bytes);
        }
    }
    world.run(ms(20_000));
    world.open(1, 1, SessionKind::Listener { port: 80 });
    world.open(0, 1, SessionKind::Stream { to: endpoint(1, 80) });
    let bytes = pattern(11, 300_000);
    write_all(&mut world, 0, NEAR, &bytes);
    world.run(minutes(30));
    let app = world.app(0, 1);
    assert!(
        !app.records()
            .any(|record| matches!(record, Record::Reset { reason: ResetReason::Refused | ResetReason::TimedOut, .. }))
    );
    world.set_reads(1, SessionId(2), true);
    let far = *world.nodes[1].incoming.last().expect("the stream arrived");
    world.run_until(ms(60_000), |world| world.far(far).bytes == bytes.len());
    assert!(world.far(far).stream() == bytes);
}

#[test]
fn streams_that_linger_for_long_give_way_to_more_of_them() {
    let mut world = World::with(12, 2, Settings { overdue: 1, ..Settings::default() });
    world.open(1, 1, SessionKind::Listener { port: 80 });
    for id in 1..=2 {
        world.open(0, id, SessionKind::Stream { to: endpoint(1, 80) });
        world.run(ms(1000));
        let far = *world.nodes[1].incoming.last().expect("the stream arrived");
        world.set_reads(1, far, false);
        for part in pattern(id, 1_300_000).chunks(60_000) {
            world.write(0, SessionId(id), &Record::Data(part));
        }
        world.write(0, SessionId(id), &Record::Finish);
        world.run(ms(1000));
        world.close(0, SessionId(id));
    }
    world.run(minutes(10));
    assert_eq!(world.nodes[0].sessions.reports().count(), 1);
    assert_eq!(world.nodes[0].sessions.drops().get(DropReason::Abandoned), 1);
    world.run(ms(1000));
    let first = world.nodes[1].incoming[0];
    world.set_reads(1, first, true);
    assert!(world.far(first).was_reset(), "its reader is told");
    world.finish();
}

#[test]
fn records_that_wait_are_bounded_for_the_whole_router() {
    let bound = 5 * MAX_RECORD;
    let mut world = World::with(13, 2, Settings { held_bytes: bound, ..Settings::default() });
    world.open(1, 1, SessionKind::Listener { port: 80 });
    for id in 1..=30 {
        world.open(0, id, SessionKind::Stream { to: endpoint(1, 80) });
        world.run(ms(100));
        let far = *world.nodes[1].incoming.last().expect("the stream arrived");
        world.set_reads(1, far, false);
    }
    let bytes = pattern(13, 1_200_000);
    for part in bytes.chunks(60_000) {
        for id in 1..=30 {
            world.write(0, SessionId(id), &Record::Data(part));
            assert!(world.nodes[0].sessions.held <= bound);
        }
        world.run(ms(50));
    }
    assert!(world.nodes[0].sessions.held > bound / 2, "many records wait");
    assert!(world.nodes[0].sessions.held_back() > 0);
    for far in world.nodes[1].incoming.clone() {
        world.set_reads(1, far, true);
    }
    let all = |world: &World| world.nodes[1].incoming.iter().all(|far| world.far(*far).bytes == bytes.len());
    world.run_until(ms(100_000), all);
    assert!(world.nodes[1].incoming.iter().all(|far| world.far(*far).stream() == bytes));
    assert_eq!(world.nodes[0].sessions.held, 0);
    world.finish();
}

#[test]
fn a_router_that_was_frozen_for_long_repeats_nothing_that_may_be_forgotten() {
    let mut world = World::new(14, 2);
    world.datagram(0, 1, 7);
    world.datagram(1, 1, 9);
    world.send(0, 1, Class::Reliable, false, endpoint(1, 9), b"once");
    world.run_until(ms(1000), |world| !world.app(1, 1).got.is_empty());
    // Its acknowledgement is lost, and the receiver forgets the flow while the sender is frozen.
    world.lose_flight();
    world.close(1, SessionId(1));
    world.lose_flight();
    world.now += ms(300_000);
    world.datagram(1, 2, 9);
    world.run(ms(60_000));
    assert!(world.app(1, 2).got.is_empty(), "it is not delivered twice");
    assert!(world.app(0, 1).was_reset());
    world.finish();
}

#[test]
fn sessions_that_ended_while_they_were_put_off_take_nobodys_turn() {
    let settings = Settings { held_bytes: MAX_RECORD, max_sessions: 8, ..Settings::default() };
    let mut world = World::with(15, 2, settings);
    let far = world.connect();
    world.set_reads(1, far, false);
    for part in pattern(15, 1_500_000).chunks(60_000) {
        world.write(0, NEAR, &Record::Data(part));
    }
    assert!(world.nodes[0].sessions.held > 0, "no room for another record");
    world.datagram(0, 2, 7);
    for id in 100..200 {
        world.datagram(0, id, 0);
        world.send(0, id, Class::BestEffort, false, endpoint(1, 9), b"put off");
        world.close(0, SessionId(id));
        assert!(world.nodes[0].sessions.put_off.len() <= 8, "the list is bounded");
    }
    world.send(0, 2, Class::BestEffort, false, endpoint(1, 9), b"put off after them");
    assert!(world.app(0, 2).waits());
    world.close(0, NEAR);
    let took = world.run_until(ms(1000), |world| !world.app(0, 2).waits());
    assert!(took <= ms(6), "the first time that there is room: {took:?}");
    world.finish();
}
