//! What is lost is repaired, soon and cheaply.

use super::*;

#[test]
fn every_message_arrives_exactly_once_whatever_is_lost() {
    for (seed, loss) in [(1, 0.0), (2, 0.01), (3, 0.05), (4, 0.1), (5, 0.2), (6, 0.3)] {
        let mut sim = Sim::pair(seed, Settings::default(), lossy(10, loss));
        sim.establish();
        // Congestion control leaves less the more is lost.
        let per_second = if loss < 0.1 { 400.0 } else { 60.0 };
        sim.flow(0, 7, RELIABLE, 1000, per_second, 5.0);
        sim.flow(1, 8, RELIABLE, 300, 90.0, 5.0);
        sim.run_for(Duration::from_secs(8));
        let (there, back) = (sim.flows[0].sent, sim.flows[1].sent);
        assert!(there >= 300 && back >= 450, "{there} {back}");
        sim.assert_exactly_once(1, 7, there);
        sim.assert_exactly_once(0, 8, back);
        assert_eq!((sim.ends[0].pool.in_use(), sim.ends[1].pool.in_use()), (0, 0), "loss {loss}");
    }
}

/// Sends one message and loses it (the wire is cut for a moment); gives its one-way time.
fn lone_loss(delay_ms: u64, follow: Option<Duration>) -> f64 {
    let mut sim = Sim::pair(9, Settings { max_datagram: MIN_DATAGRAM, ..Settings::default() }, Wire::new(delay_ms));
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 62.5, 2.0);
    sim.run_for(Duration::from_secs(3));
    sim.wires[0].cut = true;
    assert!(sim.send(0, 9, RELIABLE, 1000, 9 << 32));
    sim.wires[0].cut = false;
    if let Some(gap) = follow {
        sim.flow(0, 7, RELIABLE, 1000, 1.0 / gap.as_secs_f64(), 0.5);
    }
    sim.run_for(Duration::from_secs(1));
    sim.latencies(1, 9)[0]
}

#[test]
fn a_lone_lost_message_takes_one_round_trip_and_a_few_milliseconds_more() {
    for delay in [1, 10, 50] {
        let took = lone_loss(delay, None);
        println!("lone loss at {delay} ms one way: delivered after {took:.2} ms");
        assert!(took <= delay as f64 * 3.0 + 6.0, "{delay} ms: {took}");
        assert!(took >= delay as f64 * 3.0, "{delay} ms: {took}");
    }
    assert!(lone_loss(10, None) <= 36.0);
}

#[test]
fn later_messages_do_not_delay_the_repetition() {
    for gap in [1, 2, 3, 5, 8, 16] {
        let took = lone_loss(10, Some(ms(gap)));
        println!("one loss, next message {gap} ms later: delivered after {took:.2} ms");
        assert!(took <= 36.0, "gap {gap}: {took}");
    }
}

#[test]
fn the_tail_of_a_burst_is_recovered() {
    let mut sim = Sim::pair(10, Settings::default(), Wire::new(10));
    sim.establish();
    sim.run_for(ms(500));
    for id in 0..10 {
        sim.wires[0].cut = id >= 5;
        assert!(sim.send(0, 7, RELIABLE, 1100, (7 << 32) | id));
    }
    sim.wires[0].cut = false;
    sim.run_for(ms(300));
    sim.assert_exactly_once(1, 7, 10);
    let slowest = *sim.latencies(1, 7).last().expect("ten");
    println!("five of ten lost at the tail: last delivered after {slowest:.2} ms");
    assert!(slowest <= 75.0, "{slowest}");
}

#[test]
fn a_full_window_that_is_lost_whole_does_not_hold_up_its_repetition() {
    let mut sim = Sim::pair(11, Settings { queue: 2000, ..Settings::default() }, Wire::new(10));
    sim.establish();
    sim.run_for(ms(500));
    // Fills the window, and leaves it grown.
    (0..500).for_each(|id| assert!(sim.send(0, 7, RELIABLE, 1100, (7 << 32) | id)));
    sim.run_for(ms(400));
    sim.assert_exactly_once(1, 7, 500);
    let before = sim.ends[0].link.stats();
    assert!(before.window > 60 * 1200, "{} bytes are too few to hold anything up", before.window);
    sim.wires[0].cut = true;
    (0..500).for_each(|id| assert!(sim.send(0, 8, RELIABLE, 1100, (8 << 32) | id)));
    sim.run_for(ms(19));
    sim.wires[0].cut = false;
    sim.run_for(ms(9));
    let stats = sim.ends[0].link.stats();
    let repeated = stats.retransmission_packets - before.retransmission_packets;
    println!("28 ms after: window {}, in flight {}, {repeated} repeated", stats.window, stats.in_flight);
    assert!(repeated >= 1, "the first repetition waits for room in the window");
    assert!(stats.in_flight > stats.window, "the window is full: {} of {}", stats.in_flight, stats.window);
    assert!(repeated <= 2, "and no more of them than probe the path: {repeated}");
    sim.run_for(Duration::from_secs(2));
    sim.assert_exactly_once(1, 8, 500);
}

#[test]
fn a_tail_whose_answers_are_only_late_costs_no_window() {
    let mut sim = Sim::pair(12, Settings::default(), Wire::new(10));
    sim.establish();
    sim.run_for(ms(500));
    let before = sim.ends[0].link.stats();
    // The answers stand in a queue for 15 ms: longer than is waited, less than the repetitions' answers take.
    sim.wires[1].last_arrival = sim.now + ms(35);
    (0..3).for_each(|id| assert!(sim.send(0, 7, RELIABLE, 1100, (7 << 32) | id)));
    sim.run_for(ms(30));
    let reduced = sim.ends[0].link.stats();
    assert!(reduced.timer_losses > before.timer_losses && reduced.window < before.window, "the timer gave up");
    sim.run_for(ms(300));
    let after = sim.ends[0].link.stats();
    assert!(after.packets_lost_needlessly >= 2, "{}", after.packets_lost_needlessly);
    assert!(after.window >= before.window, "{} of {} bytes", after.window, before.window);
    sim.assert_exactly_once(1, 7, 3);
}

#[test]
fn repetitions_cost_little_more_than_the_losses() {
    for per_second in [62.5, 125.0] {
        for (seed, loss) in [(20, 0.0), (21, 0.01), (22, 0.02), (23, 0.05), (24, 0.1)] {
            let mut sim = Sim::pair(seed, Settings::default(), lossy(10, loss));
            sim.establish();
            sim.flow(0, 7, RELIABLE, 1000, per_second, 160.0);
            sim.run_for(Duration::from_secs(162));
            sim.assert_exactly_once(1, 7, sim.flows[0].sent);
            let stats = sim.ends[0].link.stats();
            let share = repeated_share(&stats);
            let back = sim.wires[1].bytes as f64 / sim.wires[0].bytes as f64;
            let lost = sim.wires[0].dropped as f64 / stats.packets_out as f64;
            println!(
                "{per_second} msg/s, loss {loss}: {:.2} % repeated (lost {:.2} %), needless {}, bytes back {:.1} %",
                share * 100.0,
                lost * 100.0,
                stats.needless_retransmissions,
                back * 100.0
            );
            // Twice the standard deviation of what the dice lost is granted.
            let dice = 2.0 * (loss / stats.packets_out as f64).sqrt();
            assert!(share <= 0.001 + 1.3 * loss.max(lost - dice), "{share} at {loss} ({lost} lost)");
        }
    }
}

/// Woken 0.3 ms late at the 99th percentile, and stalled for 4 ms now and then: a machine as it is.
const ORDINARY: Machine = Machine { lateness: Duration::from_micros(65), stall: (0.0005, Duration::from_millis(4)) };
/// Shared with others: woken 1.8 ms late at the 99th percentile, stalled for 4 ms every hundredth time.
const BUSY: Machine = Machine { lateness: Duration::from_micros(400), stall: (0.01, Duration::from_millis(4)) };

/// A long run between two machines, both of this kind. Gives the messages sent, the reliable messages that were really
/// dropped on the way there, those that were repeated, and the median time from a lost message's first sending to its
/// acknowledgement, ms.
fn long_run(seed: u64, machine: Machine, loss: f64, per_second: f64, messages: u32) -> [f64; 4] {
    let seconds = f64::from(messages) / per_second;
    let mut sim = Sim::pair(seed, Settings::default(), lossy(10, loss));
    sim.ends.iter_mut().for_each(|end| end.machine = machine);
    sim.establish();
    sim.flow(0, 7, RELIABLE, 200, per_second, seconds);
    sim.run_for(Duration::from_secs_f64(seconds + 2.0));
    let stats = sim.ends[0].link.stats();
    let dropped = sim.wires[0].dropped_reliable;
    println!(
        "{per_second} msg/s, {:?} late, loss {loss}: {} sent, {dropped} dropped, {} repeated, {} needless, wait {} us",
        machine.lateness, stats.reliable.sent, stats.retransmissions, stats.needless_retransmissions, stats.timeout_us,
    );
    [stats.reliable.sent as f64, dropped as f64, stats.retransmissions as f64, stats.recovery_reliable.p50_us / 1e3]
}

#[test]
fn repetitions_follow_what_is_really_lost() {
    for (rate, per_second) in [62.5, 125.0, 500.0].into_iter().enumerate() {
        for (seed, loss) in [0.0, 0.01, 0.02, 0.05, 0.1].into_iter().enumerate() {
            // The busy machine at two of the losses: each run takes its second.
            let kinds = [(ORDINARY, 8.0), (BUSY, 11.0)];
            for (machine, margin) in kinds.into_iter().take(1 + usize::from(loss == 0.01 || loss == 0.05)) {
                let seed = 60 + 10 * rate as u64 + seed as u64;
                let [sent, dropped, repeated, recovered] = long_run(seed, machine, loss, per_second, 50_000);
                assert!(repeated <= (1.15 * dropped).max(0.001 * sent), "{repeated} for {dropped} at {loss}");
                // A round trip until it is missed, one for the repetition.
                assert!(loss == 0.0 || recovered <= 40.0 + margin, "{recovered} ms at {loss}");
            }
        }
    }
}

#[test]
fn a_stall_of_the_whole_machine_is_not_taken_for_loss() {
    for lost in [false, true] {
        // Few hellos: one that meets the stall makes the round trip look longer, which hides what is shown here.
        let settings = Settings { hello: Duration::from_secs(2), dead: Duration::from_secs(10), ..Settings::default() };
        let mut sim = Sim::pair(34, settings, Wire::new(10));
        sim.establish();
        sim.flow(0, 7, RELIABLE, 1000, 62.5, 5.0);
        sim.run_for(Duration::from_secs(6));
        // Everything stands still from just before the answer until 7 ms later, and the sender happens to go on first.
        sim.wires[1].last_arrival = sim.now + ms(28);
        sim.wires[0].cut = lost;
        assert!(sim.send(0, 9, RELIABLE, 1000, 9 << 32));
        sim.wires[0].cut = false;
        sim.ends[0].frozen = sim.now + ms(27);
        sim.run_for(Duration::from_secs(1));
        assert_eq!(sim.ends[0].link.stats().retransmissions, u64::from(lost));
        let took = sim.latencies(1, 9)[0];
        println!("7 ms of standstill, lost: {lost}: delivered after {took:.2} ms");
        assert!(took <= 43.0, "{took}");
    }
}

#[test]
fn a_machine_that_stumbles_does_not_cause_repetitions() {
    let wire = Wire { hiccup: (0.002, ms(7)), ..Wire::new(10) };
    let mut sim = Sim::pair(30, Settings::default(), wire);
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 125.0, 160.0);
    sim.run_for(Duration::from_secs(162));
    let share = repeated_share(&sim.ends[0].link.stats());
    println!("no loss, 7 ms hiccups in 0.2 % of packets each way: {:.3} % repeated", share * 100.0);
    assert!(share <= 0.001, "{share}");
}

#[test]
fn reordering_causes_no_storm() {
    let wire = Wire { jitter: ms(8), ..Wire::new(10) };
    let mut sim = Sim::pair(31, Settings::default(), wire);
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 1000.0, 20.0);
    sim.run_for(Duration::from_secs(21));
    sim.assert_exactly_once(1, 7, sim.flows[0].sent);
    let stats = sim.ends[0].link.stats();
    let share = repeated_share(&stats);
    println!("reordering by up to 8 ms at 1000 msg/s: {:.3} % repeated", share * 100.0);
    assert!(share < 0.01, "{share}");
}

#[test]
fn bursts_of_losses_are_repaired() {
    let wire = Wire { bursts: (0.005, 4.0), ..Wire::new(10) };
    let mut sim = Sim::pair(32, Settings::default(), wire);
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 125.0, 60.0);
    sim.run_for(Duration::from_secs(62));
    sim.assert_exactly_once(1, 7, sim.flows[0].sent);
    let figures = Figures::of(&sim.latencies(1, 7));
    println!("bursts of 4, 2 % in all: {figures:.1?}");
    assert!(figures.p99 < 110.0, "{figures:?}");
    let share = repeated_share(&sim.ends[0].link.stats());
    // A burst also takes both copies of an acknowledgement.
    assert!(share < 0.055, "{share}");
}

#[test]
fn an_outage_shorter_than_death_is_made_up_for() {
    // After an outage the window is the smallest, as a TCP's is; 500 messages per second need a larger one first.
    for (per_second, longest) in [(62.5, 250.0), (500.0, 330.0)] {
        let mut sim = Sim::pair(33, Settings::default(), Wire::new(10));
        sim.establish();
        sim.flow(0, 7, RELIABLE, 1000, per_second, 3.0);
        sim.run_for(ms(1500));
        (sim.wires[0].cut, sim.wires[1].cut) = (true, true);
        sim.run_for(ms(200));
        (sim.wires[0].cut, sim.wires[1].cut) = (false, false);
        sim.run_for(Duration::from_secs(4));
        sim.assert_exactly_once(1, 7, sim.flows[0].sent);
        let late = sim.latencies(1, 7);
        let stats = sim.ends[0].link.stats();
        let worst = *late.last().expect("many");
        let delayed = late.iter().filter(|&&ms| ms > 15.0).count() as f64 / per_second * 1e3;
        println!(
            "{per_second} msg/s, 200 ms without a path: worst {worst:.0} ms, late for {delayed:.0} ms, {} repeated",
            stats.retransmissions
        );
        assert!(worst <= longest && delayed <= 700.0, "{worst} {delayed}");
        assert_eq!(stats.downs, 0);
    }
}

#[test]
fn a_standstill_of_this_router_is_not_taken_for_a_round_trip() {
    for (seed, stop) in [(35, ms(150)), (36, Duration::from_secs(4)), (37, Duration::from_secs(60))] {
        let mut sim = Sim::pair(seed, Settings::default(), Wire::new(10));
        sim.establish();
        sim.flow(0, 7, RELIABLE, 1000, 125.0, 0.4);
        sim.run_for(ms(500));
        assert!(sim.send(0, 7, RELIABLE, 1000, 9 << 32));
        sim.ends[0].frozen = sim.now + stop;
        sim.run_for(stop);
        for _ in 0..50 {
            sim.run_for(ms(10));
            let rtt = sim.ends[0].link.stats().rtt_us;
            assert!(rtt < 25_000, "{rtt} us after {stop:?}");
        }
        assert!(sim.ends.iter().all(|end| end.link.is_up()), "up again after {stop:?}");
        let before = sim.ends[0].link.stats().round_trip.count;
        sim.run_for(Duration::from_secs(1));
        assert!(sim.ends[0].link.stats().round_trip.count > before, "measured again");
    }
}
