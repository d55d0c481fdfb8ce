//! The published experiment, over virtual wires: five 10 ms, 10 Mbit/s links, loss on the middle one.

use super::*;

/// The published experiment: five 10 ms, 10 Mbit/s links, loss on the middle one both ways.
fn chain(seed: u64, loss: f64, per_second: f64, seconds: f64) -> (Figures, Vec<f64>, f64) {
    let plain = Wire { rate: Some((10_000_000, 64_000)), ..Wire::new(10) };
    let bad = Wire { loss, ..plain.clone() };
    let wires = [plain.clone(), plain.clone(), bad, plain.clone(), plain];
    let mut sim = Sim::chain(seed, Settings::default(), &wires);
    sim.establish();
    sim.run_for(ms(500));
    sim.flow(0, 7, RELIABLE, 1024 + 9, per_second, seconds);
    sim.run_for(Duration::from_secs_f64(seconds + 3.0));
    sim.assert_exactly_once(9, 7, sim.flows[0].sent);
    let latencies = sim.latencies(9, 7);
    let figures = Figures::of(&latencies);
    let share = repeated_share(&sim.ends[4].link.stats());
    println!("{per_second} msg/s, {:.0} % loss: {figures:.1?}, repeated {:.2} %", loss * 100.0, share * 100.0);
    (figures, latencies, share)
}

fn over(latencies: &[f64], bound: f64) -> f64 {
    latencies.iter().filter(|&&ms| ms > bound).count() as f64 / latencies.len() as f64
}

#[test]
fn no_loss_costs_nothing() {
    let (figures, ..) = chain(40, 0.0, 62.5, 40.0);
    assert!(figures.mean < 55.0 && figures.max < 56.0, "{figures:?}");
}

#[test]
fn one_percent() {
    let (figures, latencies, _) = chain(41, 0.01, 62.5, 160.0);
    // Each hop sends the whole message at 10 Mbit/s: 4.6 ms over five hops are the wires' own.
    let wires = 4.6;
    assert!(figures.mean - wires <= 52.0 && figures.sd <= 6.0 && figures.p99 <= 80.0, "{figures:?}");
    assert!(over(&latencies, 60.0) <= 0.03 && over(&latencies, 100.0) <= 0.001);
}

#[test]
fn a_busy_machine_costs_a_little() {
    let stumbling = |loss| Wire { loss, hiccup: (0.004, ms(4)), rate: Some((10_000_000, 64_000)), ..Wire::new(10) };
    for (seed, loss) in [(46, 0.0), (47, 0.01)] {
        let wires = [0.0, 0.0, loss, 0.0, 0.0].map(stumbling);
        let mut sim = Sim::chain(seed, Settings::default(), &wires);
        sim.establish();
        sim.flow(0, 7, RELIABLE, 1033, 62.5, 160.0);
        sim.run_for(Duration::from_secs(163));
        sim.assert_exactly_once(9, 7, sim.flows[0].sent);
        let figures = Figures::of(&sim.latencies(9, 7));
        let shares = [0, 2, 4, 6, 8].map(|end| repeated_share(&sim.ends[end].link.stats()));
        println!("4 ms hiccups in 0.4 % of packets, {loss} loss: {figures:.1?}, repeated {shares:.4?}");
        assert!(figures.p99 - 4.4 <= 80.0, "{figures:?}");
        assert!(shares.iter().enumerate().all(|(hop, &share)| share <= 0.001 || hop == 2), "{shares:?}");
        assert!(shares[2] <= 0.001 + 1.3 * loss, "{shares:?}");
    }
}

#[test]
fn two_percent_at_twice_the_rate() {
    let (figures, ..) = chain(42, 0.02, 125.0, 120.0);
    assert!(figures.mean - 4.6 <= 53.0 && figures.p99 <= 85.0, "{figures:?}");
}

#[test]
fn five_percent() {
    let (figures, ..) = chain(43, 0.05, 62.5, 160.0);
    assert!(figures.p99 <= 100.0 && figures.p999 <= 150.0, "{figures:?}");
}

#[test]
fn ten_percent() {
    for (seed, per_second) in [(44, 62.5), (45, 125.0)] {
        let (figures, ..) = chain(seed, 0.1, per_second, 160.0);
        assert!(figures.mean <= 60.0 && figures.p99 <= 130.0 && figures.p999 <= 200.0, "{figures:?}");
    }
}
