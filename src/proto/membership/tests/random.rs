//! Random schedules: faults of every kind, messages all the while, and the checkers at the end.

use super::super::evs;
use super::net::{Net, Weather, ms};
use super::*;

/// What one seed does. What was wrong, if anything was.
pub(super) fn run(seed: u64) -> Result<Net, String> {
    let mut rng = Rng::from_u64(seed);
    let count = 2 + rng.below(6) as usize;
    let bad = Weather { drop: [0.0, 0.1, 0.3][rng.below(3) as usize], ..Weather::BAD };
    let mut net = Net::new(count, rng.next_u64(), if rng.chance(0.2) { Weather::CLEAR } else { bad });
    net.connect_all();
    net.run(ms(rng.below(200)));
    let steps = 5 + rng.below(40);
    for _ in 0..steps {
        step(&mut net, &mut rng);
        // Often at once: changes in every phase of the change before.
        let pause = [0, 1, 3, 10, 100][rng.below(5) as usize];
        net.run(Duration::from_micros(rng.below(1 + pause * 1_000)));
    }
    let healed = net.now;
    net.heal();
    let journal = |net: &Net| {
        let lines = net.notes.iter().rev().take(60).rev().map(|(at, node, note)| format!("{at} {node} {note:?}\n"));
        let explain = |node: usize| format!("{node}: {}\n", net.member(node).explain(net.now));
        lines.chain((0..net.count()).map(explain)).collect::<String>()
    };
    if let Some(torn) = net.torn.first() {
        return Err(torn.clone());
    }
    settle(&mut net, healed).map_err(|why| format!("{why}\nhealed {healed}\n{}", journal(&net)))?;
    evs::check(&net.trace, true).map_err(|broken| format!("{broken}\n{}", journal(&net)))?;
    Ok(net)
}

/// Waits until everybody is in one view and everything sent in it is delivered.
fn settle(net: &mut Net, healed: Instant) -> Result<(), String> {
    // Twelve routers notice within 12 ms; the settling time four times; pauses; repeats of what was lost before.
    let bound = ms(3_000);
    while net.now.since(healed) < bound {
        net.run(ms(20));
        if net.check_views().is_ok() && (0..net.count()).all(|node| net.member(node).is_quiet()) {
            return Ok(());
        }
    }
    net.check_views()?;
    Err("not all is delivered".into())
}

fn step(net: &mut Net, rng: &mut Rng) {
    let count = net.count() as u64;
    let (a, b) = (rng.below(count) as usize, rng.below(count) as usize);
    match rng.below(20) {
        0 => net.connect(a, b, false),
        1 | 2 => net.connect(a, b, true),
        3 => {
            let parts: Vec<u64> = (0..count).map(|_| rng.below(2)).collect();
            net.split(|node| parts[node] as usize);
        }
        4 => net.split(|node| usize::from(node == a)),
        5 | 6 => net.connect_all(),
        7 => net.crash(a),
        8 => {
            net.crash(a);
            net.start(a);
        }
        9 | 10 => net.start(a),
        11 => net.leave(a),
        12 => {
            net.freeze(a);
            net.run(ms([5, 100, 2_500][rng.below(3) as usize]));
            net.thaw(a);
        }
        _ => {
            for _ in 0..1 + rng.below(4) {
                let size = if rng.chance(0.1) { 1_000 + rng.below(9_000) as usize } else { 20 };
                let service = if rng.chance(0.4) { Service::Safe } else { Service::Agreed };
                net.multicast(rng.below(count) as usize, size, service);
            }
        }
    }
}

/// Runs these seeds. What they came upon: views, abandoned views, left out for silence, deliveries after a signal.
fn run_all(seeds: std::ops::Range<u64>) -> [u64; 4] {
    let mut met = [0; 4];
    for seed in seeds {
        let net = run(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        for node in 0..net.count() {
            let stats = net.member(node).stats();
            met[0] += stats.views;
            met[1] += stats.abandoned;
            met[2] += stats.mute;
        }
        met[3] += net.trace.delivered_after_signals() as u64;
    }
    met
}

#[test]
fn evs_holds_and_all_settle_on_random_schedules() {
    let met = run_all(0..2_000);
    assert!(met.iter().all(|&count| count > 100), "the schedules do not come upon all they are for: {met:?}");
}

#[test]
#[ignore = "takes minutes, so before a release: cargo test --release very_many_random -- --ignored"]
fn evs_holds_and_all_settle_on_very_many_random_schedules() {
    let met = run_all(2_000..40_000);
    assert!(met.iter().all(|&count| count > 2_000), "{met:?}");
}
