//! Process groups over many routers: what clients are promised, under random schedules of faults.

mod net;
mod properties;

use super::*;
use crate::base::sabotage::{self, Rule as Below};
use crate::proto::groups::sabotage::{Rule, break_rule};
use crate::proto::membership::Timing;
use net::{Net, ms};
use std::io::Write as _;
use std::time::Duration;

/// Random schedules until a broken rule is noticed.
const NOTICED_WITHIN: u64 = 600;
const GROUPS: [&str; 2] = ["shift", "spare"];

/// What one seed does. What was wrong, if anything was.
fn run(seed: u64) -> Result<Net, String> {
    let mut rng = Rng::from_u64(seed);
    let timing = if rng.chance(0.2) { Timing::WAN } else { Timing::SAFE };
    let mut net = Net::new(2 + rng.below(4) as usize, timing, rng.next_u64());
    if rng.chance(0.8) {
        (net.drop, net.double, net.jitter) = ([0.0, 0.1, 0.3][rng.below(3) as usize], 0.1, ms(4));
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
    match rng.below(22) {
        20 => net.leave(a),
        21 => net.freeze(a, ms([5, 100, 2_500][rng.below(3) as usize])),
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
    for seed in 0..3_000 {
        let net = run(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        (0..2).for_each(|place| met[place] += net.met[place]);
    }
    assert!(met.iter().all(|&count| count > 10), "the schedules do not come upon all they are for: {met:?}");
}

/// The first seed at which something is noticed, and what. `break_it` with true, then with false.
fn noticed(name: &str, break_it: impl Fn(bool)) -> bool {
    break_it(true);
    let fails = |seed| match std::panic::catch_unwind(|| run(seed).err()) {
        Ok(why) => why,
        Err(_) => Some("it panics".to_owned()),
    };
    let noticed = (0..NOTICED_WITHIN).find_map(|seed| fails(seed).map(|why| (seed, why)));
    break_it(false);
    if let Some((seed, why)) = &noticed {
        let _ = writeln!(std::io::stderr(), "{name:<14} {seed:>4}  {why}");
    }
    noticed.is_some()
}

#[test]
fn broken_rules_are_noticed() {
    let missed = Rule::ALL.into_iter().filter(|&rule| {
        let break_it = |really: bool| break_rule(really.then_some(rule));
        !noticed(&format!("{rule:?}"), break_it)
    });
    let missed: Vec<Rule> = missed.collect();
    assert!(missed.is_empty(), "nobody noticed that these were broken: {missed:?}");
}

/// What clients are promised stands on what routers are.
#[test]
fn broken_rules_of_the_membership_below_are_noticed_by_clients() {
    // Groups send no safe messages. Who does not follow one that looks for another view does so by itself, soon enough. What
    // follows a message that is lost is so rare that membership's own tests bring it about by hand.
    let hidden = [Below::SafeWaits, Below::LeaveTogether, Below::NoHoles];
    let shows = |rule: &Below| rule.is_of_membership() && !hidden.contains(rule);
    let missed = Below::ALL.iter().copied().filter(shows).filter(|&rule| {
        let break_it = |really: bool| sabotage::break_rule(really.then_some(rule));
        !noticed(rule.name(), break_it)
    });
    let missed: Vec<Below> = missed.collect();
    assert!(missed.is_empty(), "nobody noticed that these were broken: {missed:?}");
}

#[test]
fn a_number_comes_again_when_all_were_used_and_none_that_is_in_use() {
    let mut net = Net::new(1, Timing::SAFE, 1);
    let join = |net: &mut Net| net.join(0, "shift").expect("its router runs");
    let first = join(&mut net);
    net.use_up_numbers(0);
    let others = [join(&mut net), join(&mut net)];
    net.run(ms(100));
    assert_eq!([first, others[0], others[1]].map(|client| net.trace.number(client)), [1, 0, 2], "1 is in use");
    net.kill(first);
    net.settle().and_then(|()| properties::check(&net.trace)).expect("nobody is taken for another");
}
