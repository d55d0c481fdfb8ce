//! The path is shared with others, and the link among flows.

use super::*;

const MBIT: u64 = 1_000_000;

/// Delivered payload at `end`, bit/s.
fn goodput(sim: &Sim, end: usize, seconds: f64) -> f64 {
    sim.ends[end].delivered.iter().map(|(_, bytes)| bytes.len() as f64 * 8.0).sum::<f64>() / seconds
}

fn bottleneck(delay_ms: u64, queue: usize) -> Wire {
    Wire { rate: Some((10 * MBIT, queue)), noise: Duration::from_micros(500), ..Wire::new(delay_ms) }
}

/// Share of the link against a TCP over a minute, and what both moved, Mbit/s. The TCP begins `late` seconds after
/// the link, or before it.
fn against_tcp(seed: u64, delay: u64, queue: usize, late: i32) -> (f64, f64) {
    let mut sim = Sim::pair(seed, Settings::default(), bottleneck(delay, queue));
    sim.establish();
    if late < 0 {
        sim.tcp = Some(Tcp::new((0, 1)));
        sim.run_for(Duration::from_secs(u64::from(late.unsigned_abs())));
    }
    sim.flow(0, 7, RELIABLE, 1033, 0.0, 100.0);
    if late >= 0 {
        sim.run_for(Duration::from_secs(u64::from(late.unsigned_abs())));
        sim.tcp = Some(Tcp::new((0, 1)));
    }
    let tcp = |sim: &Sim| sim.tcp.as_ref().expect("a rival").acked as f64 * 1448.0 * 8.0 / 60.0;
    let (ours_before, theirs_before) = (goodput(&sim, 1, 60.0), tcp(&sim));
    sim.run_for(Duration::from_secs(60));
    let (ours, theirs) = (goodput(&sim, 1, 60.0) - ours_before, tcp(&sim) - theirs_before);
    let stats = sim.ends[0].link.stats();
    let (sum, share) = ((ours + theirs) / 1e6, ours / (ours + theirs));
    println!(
        "{delay} ms, queue {queue}, TCP {late} s later: link {:.0} % of {sum:.2} Mbit/s, needless {} of {}",
        share * 100.0,
        stats.needless_retransmissions,
        stats.retransmissions
    );
    (share, sum)
}

#[test]
fn takes_a_tcps_fair_share() {
    // A round trip's worth of queue, at least 50 ms, as the lab has it.
    for (delay, queue) in [(10, 62_500), (50, 125_000)] {
        let together = [100, 101, 102, 103, 105, 106, 107, 108].map(|seed| against_tcp(seed, delay, queue, 0));
        let mean = together.iter().map(|run| run.0).sum::<f64>() / 8.0;
        println!("{delay} ms, a minute from the start, mean of eight: {:.0} %", mean * 100.0);
        // Paced packets find room in a full queue more often than a TCP's pairs do; the kernel's own shows the same.
        assert!((0.40..=0.60).contains(&mean), "{mean} at {delay} ms");
        assert!(together.iter().all(|&(share, sum)| (0.33..=0.67).contains(&share) && sum > 9.0), "{together:?}");
        // Who comes first keeps an advantage for a while: CUBIC converges slowly on long paths, on either side.
        let staggered = [-2, 2].map(|late| against_tcp(104, delay, queue, late));
        assert!(staggered.iter().all(|&(share, sum)| (0.25..=0.72).contains(&share) && sum > 9.0), "{staggered:?}");
    }
}

#[test]
fn two_links_share_a_bottleneck_evenly() {
    for delay in [10, 50] {
        let mut sim = Sim::pair(51, Settings::default(), bottleneck(delay, 64_000));
        let second = sim.join(Settings::default(), Wire::new(delay));
        sim.ends[second].wire = 0;
        sim.ends[second + 1].wire = 1;
        sim.establish();
        sim.flow(0, 7, RELIABLE, 1033, 0.0, 120.0);
        sim.flow(second, 8, RELIABLE, 1033, 0.0, 120.0);
        sim.run_for(Duration::from_secs(120));
        let (a, b) = (goodput(&sim, 1, 120.0) / 1e6, goodput(&sim, second + 1, 120.0) / 1e6);
        println!("{delay} ms: two links {a:.2} and {b:.2} Mbit/s");
        assert!((0.4..=0.6).contains(&(a / (a + b))) && a + b > 7.5, "{a} {b}");
    }
}

#[test]
fn fills_a_clean_link_with_little_overhead() {
    for delay in [10, 50] {
        let mut sim = Sim::pair(52, Settings::default(), bottleneck(delay, 64_000));
        sim.establish();
        sim.flow(0, 7, RELIABLE, 1033, 0.0, 30.0);
        sim.run_for(Duration::from_secs(30));
        let rate = goodput(&sim, 1, 30.0) / 1e6;
        let stats = sim.ends[0].link.stats();
        let overhead = sim.wires[0].bytes as f64 * 8.0 / 30.0 / 1e6 / rate - 1.0;
        println!(
            "{delay} ms clean: {rate:.2} Mbit/s of messages, overhead {:.1} % with IP and UDP, repeated {:.2} %, needless {}, acks {}",
            overhead * 100.0,
            repeated_share(&stats) * 100.0,
            stats.needless_retransmissions,
            sim.ends[1].link.stats().acks_out
        );
        assert!(rate > 8.5, "{rate}");
        assert!(stats.needless_retransmissions * 100 <= stats.reliable.sent, "{stats:?}");
    }
}

#[test]
fn throughput_against_loss_follows_the_model() {
    for delay in [10, 50] {
        for loss in [0.001, 0.005, 0.01, 0.02, 0.05] {
            let wire = Wire { loss, ..bottleneck(delay, 64_000) };
            let mut sim = Sim::pair(53, Settings::default(), wire);
            sim.establish();
            sim.flow(0, 7, RELIABLE, 1033, 0.0, 60.0);
            sim.run_for(Duration::from_secs(60));
            let rate = goodput(&sim, 1, 60.0) / 1e6;
            // Mathis et al. 1997: MSS / RTT * sqrt(3/2) / sqrt(p).
            let model = 1472.0 * 8.0 / (2.0 * delay as f64 / 1e3) * 1.22 / f64::sqrt(loss) / 1e6;
            println!("{delay} ms, loss {loss}: {rate:.2} Mbit/s, Mathis {model:.2}");
            assert!(rate <= 1.7 * model && rate >= 0.3 * model.min(9.0), "{rate} against {model}");
        }
    }
}

#[test]
fn a_fixed_rate_is_kept_whatever_is_lost() {
    let settings = Settings { congestion: Congestion::FixedKbps(2000), ..Settings::default() };
    let mut sim = Sim::pair(54, settings, lossy(10, 0.05));
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 0.0, 20.0);
    sim.run_for(Duration::from_secs(20));
    let stats = sim.ends[0].link.stats();
    let rate = stats.bytes_out as f64 * 8.0 / 20.0;
    println!("fixed 2000 kbit/s at 5 % loss: sends {:.0} kbit/s", rate / 1e3);
    assert!((1.9e6..2.05e6).contains(&rate), "{rate}");
}

#[test]
fn a_fixed_rate_is_divided_among_the_lanes_of_a_link() {
    for (workers, rate) in [(1, 250_000), (2, 125_000), (5, 50_000)] {
        let settings = Settings { congestion: Congestion::FixedKbps(2000), workers, ..Settings::default() };
        let mut sim = Sim::pair(54, settings, lossy(10, 0.0));
        sim.establish();
        assert_eq!(sim.ends[0].link.stats().pacing_rate, rate, "bytes a second of one of {workers}");
    }
}

#[test]
fn a_greedy_flow_does_not_delay_a_sparse_one() {
    let mut sim = Sim::pair(55, Settings::default(), bottleneck(10, 32_000));
    sim.establish();
    for (end, class) in [(0, BEST_EFFORT), (0, RELIABLE)] {
        sim.flow(end, if class == RELIABLE { 7 } else { 8 }, class, 1033, 1500.0, 20.0);
    }
    sim.flow(0, 9, RELIABLE, 200, 20.0, 20.0);
    sim.run_for(Duration::from_secs(22));
    sim.assert_exactly_once(1, 9, sim.flows[2].sent);
    let figures = Figures::of(&sim.latencies(1, 9));
    let stats = sim.ends[0].link.stats();
    println!("sparse flow beside two greedy ones: {figures:.1?}, marked {}, {:?}", stats.marked, stats.drops);
    assert!(figures.p50 < 50.0, "{figures:?}");
    assert!(stats.marked > 100 && stats.drops.get(DropReason::QueueDelay) > 1000);
    let best_effort = Figures::of(&sim.latencies(1, 8));
    println!("greedy best effort: {best_effort:.1?}");
    assert!(best_effort.p99 < 200.0, "{best_effort:?}");
    let share = |port| sim.ends[1].delivered.iter().filter(|(_, bytes)| id_of(bytes) >> 32 == port).count() as f64;
    let ratio = share(7) / share(8);
    println!("reliable to best effort: {ratio:.2}");
    assert!((0.8..1.4).contains(&ratio), "{ratio}");
}

/// Goodput over the first 15 s on a clean path that nobody else uses, bit/s: a link's with 1,000-byte messages, and a
/// TCP's.
fn alone(seed: u64, delay: u64, queue: usize, jitter: Duration) -> (f64, f64) {
    let wire = Wire { noise: Duration::from_micros(500).max(jitter), ..bottleneck(delay, queue) };
    let mut sim = Sim::pair(seed, Settings::default(), wire.clone());
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1033, 0.0, 15.0);
    sim.run_for(Duration::from_secs(15));
    let stats = sim.ends[0].link.stats();
    let ours = sim.ends[1].delivered.len() as f64 * 1000.0 * 8.0 / 15.0;
    let mut sim = Sim::pair(seed, Settings::default(), wire);
    sim.establish();
    sim.tcp = Some(Tcp::new((0, 1)));
    sim.run_for(Duration::from_secs(15));
    let theirs = sim.tcp.as_ref().expect("a rival").acked as f64 * 1448.0 * 8.0 / 15.0;
    println!(
        "{delay} ms, queue {queue}, {jitter:?} noise, 15 s alone: link {:.2}, TCP {:.2} Mbit/s, {:.1} %; repeated {}, needless {}",
        ours / 1e6,
        theirs / 1e6,
        100.0 * ours / theirs,
        stats.retransmissions,
        stats.needless_retransmissions
    );
    (ours, theirs)
}

/// What headers leave of a clean path: a link's 1,000-byte message travels in 1,092 bytes (28 of IP and UDP, 24 of the
/// datagram, 7 of the frame, 33 of message and session), a TCP's 1,448 bytes in 1,500. Two such messages do not fit one
/// datagram.
const HEADERS: f64 = (1000.0 / 1092.0) / (1448.0 / 1500.0);

#[test]
fn fills_a_clean_path_as_soon_as_a_tcp_does() {
    for (delay, queue) in [(10, 62_500), (50, 62_500), (50, 125_000)] {
        for (seed, jitter) in [(60, Duration::ZERO), (61, Duration::ZERO), (62, ms(3))] {
            let (ours, theirs) = alone(seed, delay, queue, jitter);
            assert!(ours >= 0.97 * HEADERS * theirs, "{ours} of {theirs} at {delay} ms, {jitter:?}");
        }
    }
}

#[test]
fn a_detour_during_slow_start_does_not_end_it() {
    let mut sim = Sim::pair(63, Settings::default(), bottleneck(50, 125_000));
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1033, 0.0, 6.0);
    sim.run_for(ms(150));
    // For a while everything takes 20 ms longer, though nothing is queued.
    sim.wires[0].delay += ms(20);
    sim.run_for(ms(250));
    sim.wires[0].delay -= ms(20);
    sim.run_for(ms(5600));
    let rate = sim.ends[1].delivered.len() as f64 * 1000.0 * 8.0 / 6.0 / 1e6;
    println!("50 ms, a detour in slow start: {rate:.2} Mbit/s over 6 s");
    assert!(rate >= 8.0, "{rate}");
}
