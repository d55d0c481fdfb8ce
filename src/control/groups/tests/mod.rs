//! Process groups over many routers: what clients are promised, under random schedules of faults.

mod net;
mod properties;

use super::*;
use crate::proto::groups::sabotage::{Rule, break_rule};
use net::{Net, ms};
use std::io::Write as _;
use std::time::Duration;

/// Random schedules until a broken rule is noticed.
const NOTICED_WITHIN: u64 = 600;
const GROUPS: [&str; 2] = ["shift", "spare"];

/// What one seed does. What was wrong, if anything was.
fn run(seed: u64) -> Result<Net, String> {
    let mut rng = Rng::from_u64(seed);
    let mut net = Net::new(2 + rng.below(4) as usize, rng.next_u64());
    if rng.chance(0.8) {
        (net.drop, net.jitter) = ([0.0, 0.1, 0.3][rng.below(3) as usize], ms(4));
    }
    net.run(ms(rng.below(200)));
    for _ in 0..10 + rng.below(50) {
        step(&mut net, &mut rng);
        // Often at once: changes in every phase of the change before.
        let pause = [0, 1, 3, 10, 100][rng.below(5) as usize];
        net.run(Duration::from_micros(rng.below(1 + pause * 1_000)));
    }
    net.heal();
    net.settle()?;
    properties::check(&net.trace)?;
    Ok(net)
}

fn step(net: &mut Net, rng: &mut Rng) {
    let count = net.count() as u64;
    let (a, b) = (rng.below(count) as usize, rng.below(count) as usize);
    let clients = net.clients();
    let client = clients.get(rng.below(1 + clients.len() as u64) as usize).copied();
    match rng.below(20) {
        0..=2 if a > 0 => net.link(a - 1, a, false),
        3 => net.link(a, b, true),
        0..=4 => net.line_up(),
        5 => net.crash(a),
        6 => {
            net.crash(a);
            net.start(a);
        }
        7 | 8 => net.start(a),
        9 | 10 => client.into_iter().for_each(|client| net.kill(client)),
        11..=14 => drop(net.join(a, GROUPS[rng.below(2) as usize])),
        _ => {
            let (count, len) = [(1, 8), (4, 20), (30, 3_000)][rng.below(3) as usize];
            client.into_iter().for_each(|client| net.say(client, 1 + rng.below(count) as u32, len));
        }
    }
}

#[test]
fn clients_see_what_they_are_promised_on_random_schedules() {
    let mut met = [0; 2];
    for seed in 0..1_000 {
        let net = run(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        (0..2).for_each(|place| met[place] += net.met[place]);
    }
    assert!(met.iter().all(|&count| count > 10), "the schedules do not come upon all they are for: {met:?}");
}

#[test]
fn broken_rules_are_noticed() {
    let mut missed = Vec::new();
    for rule in Rule::ALL {
        break_rule(Some(rule));
        let fails = |seed| match std::panic::catch_unwind(|| run(seed).err()) {
            Ok(why) => why,
            Err(_) => Some("it panics".to_owned()),
        };
        let noticed = (0..NOTICED_WITHIN).find_map(|seed| fails(seed).map(|why| (seed, why)));
        break_rule(None);
        match noticed {
            Some((seed, why)) => {
                let name = format!("{rule:?}");
                let _ = writeln!(std::io::stderr(), "{name:<14} {seed:>4}  {why}");
            }
            None => missed.push(rule),
        }
    }
    assert!(missed.is_empty(), "nobody noticed that these were broken: {missed:?}");
}
