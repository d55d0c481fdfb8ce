//! What is said of latency is what the wires did, and every message is accounted for.

use super::*;

fn balanced(sim: &Sim) {
    for end in &sim.ends {
        assert_eq!(end.link.stats().balance(), Ok(()));
    }
}

#[test]
fn one_way_delays_are_right_within_the_stated_error() {
    // 10 ms each way, then 5 ms there and 35 ms back.
    for (seed, there, back) in [(90, 10, 10), (91, 5, 35)] {
        let mut sim = Sim::pair(seed, Settings::default(), Wire::new(there));
        sim.wires[1].delay = ms(back);
        sim.establish();
        sim.flow(0, 7, RELIABLE, 1000, 100.0, 5.0);
        sim.run_for(Duration::from_secs(6));
        for (end, truth) in [(1, there), (0, back)] {
            let stats = sim.ends[end].link.stats();
            let error = stats.clock_error_us.expect("hellos were echoed") as f64;
            let half = (there + back) as f64 * 500.0;
            assert!(error >= half - 1.0 && error < half + 100.0, "{error} µs");
            assert!((stats.one_way.p50_us - half).abs() < half * 0.02, "the middle is all one can know: {stats:?}");
            assert!((stats.one_way.p50_us - truth as f64 * 1e3).abs() <= error * 1.02, "{stats:?}");
            assert!(stats.clock_ahead_us.is_some_and(|ahead| ahead.unsigned_abs() as f64 <= error));
            assert!(stats.one_way.count > 30);
        }
    }
}

#[test]
fn recovery_is_timed_at_both_ends_and_only_where_something_was_recovered() {
    // A fixed rate: a window closed by losses would leave many of them at its end, where no gap shows.
    let settings = Settings { congestion: Congestion::FixedKbps(20_000), ..Settings::default() };
    let mut sim = Sim::pair(92, settings, lossy(10, 0.02));
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 1000.0, 10.0);
    sim.flow(0, 8, BEST_EFFORT, 500, 100.0, 10.0);
    sim.run_for(Duration::from_secs(11));
    let (sender, receiver) = (sim.ends[0].link.stats(), sim.ends[1].link.stats());
    assert!((150..=300).contains(&sender.recovery_reliable.count), "2 % of 10,000: {sender:?}");
    assert!(sender.recovery_reliable.p50_us > 39_000.0, "lost, noticed after a round trip, repeated, answered");
    assert!(sender.recovery_reliable.p50_us < 60_000.0, "{sender:?}");
    let (filled, repeated) = (receiver.gap_reliable.count, sender.retransmissions);
    assert!((150..=repeated).contains(&filled), "{filled} gaps filled, {repeated} repetitions");
    assert!(receiver.gap_reliable.p50_us > 19_900.0 && receiver.gap_reliable.p50_us < 40_000.0, "{receiver:?}");
    assert_eq!((receiver.recovery_reliable.count, sender.gap_reliable.count), (0, 0));
    assert_eq!(sender.queue_delay_best_effort.count, sender.best_effort.sent);
    assert_eq!(sender.queue_delay_reliable.count, sender.reliable.sent);
    balanced(&sim);
}

#[test]
fn pauses_of_the_pacer_are_as_long_as_its_rate_makes_them() {
    // A datagram of about a kilobyte every 10 ms; a burst of a hundred messages waits for most of a second.
    let settings = Settings { congestion: Congestion::FixedKbps(800), queue_delay: ms(2_000), ..Settings::default() };
    let mut sim = Sim::pair(95, settings, Wire::new(1));
    sim.establish();
    assert_eq!(sim.ends[0].link.stats().pacing_wait.count, 0);
    sim.flow(0, 7, BEST_EFFORT, 900, 10_000.0, 0.01);
    sim.run_for(Duration::from_secs(3));
    let stats = sim.ends[0].link.stats();
    assert!((80..=100).contains(&stats.pacing_wait.count), "{stats:?}");
    assert!(stats.pacing_wait.p50_us > 8_000.0 && stats.pacing_wait.p50_us < 12_000.0, "{stats:?}");
    assert!(stats.pacing_wait.max_us < 40_000.0, "one pause after the other, not since the burst: {stats:?}");
    assert_eq!((stats.residence_best_effort.count, stats.socket_wait.count), (0, 0), "no driver told");
    sim.flow(0, 7, BEST_EFFORT, 100, 10.0, 1.0);
    sim.run_for(Duration::from_secs(2));
    assert_eq!(sim.ends[0].link.stats().pacing_wait.count, stats.pacing_wait.count, "nothing was held back");
}

#[test]
fn what_is_overtaken_is_not_taken_for_recovered() {
    let wire = Wire { jitter: ms(3), ..Wire::new(10) };
    let mut sim = Sim::pair(93, Settings::default(), wire);
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 1000.0, 5.0);
    sim.run_for(Duration::from_secs(6));
    let (sender, receiver) = (sim.ends[0].link.stats(), sim.ends[1].link.stats());
    assert!(receiver.gap_reliable.count <= sender.retransmissions, "thousands were overtaken: {receiver:?}");
    assert!(receiver.gap_reliable.count < 50, "{receiver:?}");
}

#[test]
fn every_message_is_accounted_for_through_overload_and_cuts() {
    let settings = Settings { queue: 64, ..Settings::default() };
    let wire = Wire { rate: Some((2_000_000, 20_000)), ..lossy(10, 0.01) };
    let mut sim = Sim::pair(94, settings, wire);
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 200.0, 6.0);
    sim.flow(0, 8, BEST_EFFORT, 1000, 400.0, 6.0);
    for cut in [false, true, false] {
        (sim.wires[0].cut, sim.wires[1].cut) = (cut, cut);
        for _ in 0..20 {
            sim.run_for(ms(100));
            balanced(&sim);
        }
    }
    let stats = sim.ends[0].link.stats();
    assert!(stats.dropped_unsent > 0 && stats.returned_sent > 0 && stats.downs > 0, "{stats:?}");
    assert!(stats.queue_peak == 64, "{}", stats.queue_peak);
}
