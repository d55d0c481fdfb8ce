//! The simulator on itself, and the campaign that `cargo test` runs.

#![allow(clippy::disallowed_methods, reason = "campaigns run on all cores")]

mod vips;

use super::campaign::{self, Outcome, Settings};
use super::check::{self, convergence};
use super::experiment::{self, Chain};
use super::ledger::Ledger;
use super::plan::Plan;
use super::topology::{LinkSettings, Topology};
use super::wire::Conditions;
use super::workload::{Arrival, Flow, Kind, Spec};
use super::world::World;
use crate::base::Instant;
use crate::base::sabotage::Rule;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Seeds that every test run takes. CI adds fresh ones.
const SEEDS: u64 = 500;
/// Within how many seeds a broken rule must be noticed.
const NOTICED_WITHIN: u64 = 200;

#[test]
fn nothing_breaks_whatever_goes_wrong() {
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let failed: Vec<Outcome> = std::thread::scope(|scope| {
        let run = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= SEEDS {
                    return failed;
                }
                let outcome = campaign::run(seed, &Settings::default());
                if outcome.failure.is_some() {
                    failed.push(outcome);
                }
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a seed ran into a panic")).collect()
    });
    let list: Vec<String> = failed.iter().map(Outcome::to_string).collect();
    assert!(list.is_empty(), "{} of {SEEDS} seeds failed:\n{}", list.len(), list.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let settings = Settings { log: true, ..Settings::default() };
    for seed in [3, 14, 159] {
        let (first, second) = (campaign::run(seed, &settings), campaign::run(seed, &settings));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert!(first.log.is_some() && first.log == second.log, "the logs of seed {seed} differ");
    }
    let (a, b) = (campaign::run(1, &settings), campaign::run(2, &settings));
    assert_ne!(a.trace, b.trace, "different seeds give different runs");
}

/// The first seed whose campaign notices that the rule is broken, and how; none if none does.
fn noticed_by(rule: Rule) -> Option<(u64, String)> {
    // A rule of groups shows in small networks, too, and they are faster.
    let settings = match rule.is_of_groups() {
        true => Settings { broken: Some(rule), groups: true, routers: 5, ..Settings::default() },
        false => Settings { broken: Some(rule), ..Settings::default() },
    };
    (0..NOTICED_WITHIN).find_map(|seed| Some((seed, campaign::run(seed, &settings).failure?)))
}

#[test]
fn every_fault_strikes_within_the_seeds_of_a_test_run() {
    let mut ledger = Ledger::EMPTY;
    let settings = Settings { routers: 5, ..Settings::default() };
    for seed in 0..150 {
        ledger.merge(&campaign::run(seed, &settings).ledger);
    }
    // A full queue before a limited rate takes more traffic than small networks have.
    for seed in 0..40 {
        ledger.merge(&campaign::run(seed, &Settings { fewest: 12, ..Settings::default() }).ledger);
    }
    let missing: Vec<String> = ledger.iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "never struck: {missing:?}");
}

#[test]
fn a_written_plan_runs_as_the_drawn_one() {
    for seed in [7, 21] {
        let plan = Plan::draw(seed, 2..=6, false);
        let read = Plan::parse(&plan.to_toml()).expect("what was written can be read");
        let (drawn, read) = (campaign::run(seed, &Settings { routers: 6, ..Settings::default() }), read);
        assert_eq!(campaign::execute(&read, &Settings::default()).trace, drawn.trace, "seed {seed}");
    }
}

#[test]
fn scenarios_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("the scenarios are part of the source")
        .map(|entry| entry.expect("a folder entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    names.sort();
    assert!(names.len() >= 8, "the scenarios are found: {names:?}");
    let mut failed = Vec::new();
    for path in &names {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("a scenario can be read");
        let plan = Plan::parse(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(plan.history.len() > 20, "{name} says where it comes from");
        if let Some(failure) = campaign::execute(&plan, &Settings::default()).failure {
            failed.push(format!("{name}: {failure}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_partition_without_an_end_is_a_failure_that_says_so() {
    // The test of the liveness check itself: the core is told to heal and a router in it cannot.
    let mut plan = Plan::draw(5, 2..=4, false);
    plan.steps.clear();
    plan.topology = Topology::chain(2);
    plan.core = vec![0, 1, 2];
    plan.flows.clear();
    let mut world = World::new(plan.topology.clone(), plan.knobs.link_settings(), Conditions::default(), 1);
    world.set_cut(0, 1, true);
    world.run_until(Instant::from_millis(5000));
    let why = convergence::converged(&world, &plan.core);
    assert!(why.is_err_and(|why| why.contains("no route")), "a cut core is not converged");
}

#[test]
fn broken_rules_are_noticed() {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut table: Vec<(usize, Option<(u64, String)>)> = std::thread::scope(|scope| {
        // Which rule is broken is a matter of the thread.
        let run = || {
            let rules = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
            let rules = rules.take_while(|&place| place < Rule::ALL.len());
            let rules = rules.filter(|&place| Rule::ALL[place].shows_in_networks());
            rules.map(|place| (place, noticed_by(Rule::ALL[place]))).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a seed ran into a panic")).collect()
    });
    table.sort_by_key(|row| row.0);
    let _ = writeln!(std::io::stderr(), "{:<18} {:>5}  what was noticed", "broken rule", "seeds");
    for (place, noticed) in &table {
        let (seeds, what) = noticed.as_ref().map_or(("-".into(), "nothing"), |(seed, what)| {
            ((seed + 1).to_string(), what.lines().next().unwrap_or_default())
        });
        let _ = writeln!(std::io::stderr(), "{:<18} {seeds:>5}  {what}", Rule::ALL[*place].name());
    }
    let missed: Vec<_> = table.iter().filter(|row| row.1.is_none()).map(|row| Rule::ALL[row.0]).collect();
    assert!(missed.is_empty(), "{NOTICED_WITHIN} seeds did not notice that these were broken: {missed:?}");
}

fn chain(loss: f64, kind: Kind, messages: u32) -> Chain {
    Chain {
        hops: 5,
        delay: Duration::from_millis(10),
        rate: None,
        loss,
        kind,
        size: 1000,
        interval: Duration::from_millis(16),
        messages,
        seed: 11,
    }
}

fn sorted_ms(arrivals: &[Arrival]) -> Vec<f64> {
    let mut sorted: Vec<f64> = arrivals.iter().map(|arrival| arrival.latency.as_secs_f64() * 1e3).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[test]
fn losses_cost_one_link_and_not_the_path() {
    for (loss, mean_at_most, p99_at_most, p999_at_most) in
        [(0.0, 50.5, 51.0, 52.0), (0.01, 52.0, 80.0, 110.0), (0.05, 55.0, 100.0, 150.0), (0.10, 60.0, 130.0, 200.0)]
    {
        let measured = experiment::run(&chain(loss, Kind::Stream, 4000));
        assert_eq!(measured.violation, None);
        assert_eq!(measured.arrivals.len(), 4000, "all arrived at {loss}");
        let ms = sorted_ms(&measured.arrivals);
        let mean = ms.iter().sum::<f64>() / ms.len() as f64;
        let at = |quantile: f64| ms[(ms.len() as f64 * quantile) as usize];
        let (p99, p999) = (at(0.99), at(0.999));
        let figures = format!("loss {loss}: mean {mean:.2}, p99 {p99:.1}, p99.9 {p999:.1} ms");
        println!("{figures}");
        assert!(mean <= mean_at_most && p99 <= p99_at_most && p999 <= p999_at_most, "{figures}");
    }
}

#[test]
fn best_effort_loses_what_the_wire_loses() {
    let measured = experiment::run(&chain(0.05, Kind::BestEffort, 4000));
    let lost = 4000 - measured.arrivals.len();
    assert!((120..280).contains(&lost), "{lost} of 4000 lost at 5 %");
}

#[test]
fn two_full_routers_do_not_wait_for_each_other_for_ever() {
    // Six routers behind each end of a slow link send through it to each other, more than both ends can hold.
    let mut links: Vec<(usize, usize)> = vec![(0, 1)];
    links.extend((2..8).map(|leaf| (0, leaf)));
    links.extend((8..14).map(|leaf| (1, leaf)));
    let settings = LinkSettings { pool: 256, ..LinkSettings::default() };
    let topology = Topology { routers: 14, links, workers: Vec::new() };
    let mut world = World::new(topology, settings, Conditions::perfect(Duration::from_millis(5)), 5);
    let step = Duration::from_millis(50);
    assert!(world.run_while(Instant::from_millis(30_000), step, |world| check::converged(world).is_ok()));
    for (from, to) in [(0, 1), (1, 0)] {
        world.wire_mut(from, to).conditions.rate = Some(500_000);
    }
    let start = world.now() + Duration::from_secs(1);
    for leaf in 2..8 {
        for (from, to) in [(leaf, leaf + 6), (leaf + 6, leaf)] {
            let interval = Duration::from_micros(100);
            let (kind, leaves) = (Kind::Stream, false);
            // They must be through before the streams, closed once everything is written, are cut off for lingering.
            let spec = Spec { kind, from, to, port: 7, messages: 60, size: 1100, interval, start, leaves };
            world.add_flow(Flow::new(world.flows().len() as u32, spec));
        }
    }
    let end = start + Duration::from_secs(300);
    assert!(world.run_while(end, step, |world| check::delivered(world).is_ok()), "{:?}", check::delivered(&world));
    assert_eq!(check::sound(&world), Ok(()));
    assert_eq!(check::counters::balanced(&world), Ok(()));
}

/// Datagrams and streams, both ways over a chain of three routers with so many workers; what crossed between workers of
/// the one in the middle, and at its ends.
fn crossed(workers: &[usize]) -> (u64, u64) {
    let topology = Topology::chain(2).with_workers(workers);
    let wire = Conditions { loss: 0.01, ..Conditions::perfect(Duration::from_millis(2)) };
    let mut world = World::new(topology, LinkSettings::default(), wire, 9);
    let (step, start) = (Duration::from_millis(50), Instant::from_millis(3000));
    for number in 0..24 {
        let (from, to) = if number % 2 == 0 { (0, 2) } else { (2, 0) };
        let (kind, port) = (Kind::ALL[number / 2 % 4], 100 + number as u16);
        let interval = Duration::from_millis(5);
        let spec = Spec { kind, from, to, port, messages: 200, size: 900, interval, start, leaves: false };
        world.add_flow(Flow::new(number as u32, spec));
    }
    let end = Instant::from_millis(60_000);
    assert!(world.run_while(end, step, |world| check::delivered(world).is_ok()), "{:?}", check::delivered(&world));
    assert_eq!(check::converged(&world), Ok(()));
    assert_eq!(check::sound(&world), Ok(()));
    assert_eq!(check::counters::balanced(&world), Ok(()));
    let crossed = |router| world.stats(router).expect("it runs").iter().map(|stats| stats.crossed_out).sum::<u64>();
    let forwarded = world.stats(1).expect("it runs").iter().map(|stats| stats.forwarded).collect::<Vec<_>>();
    let lanes = workers[0].min(forwarded.len());
    assert!(forwarded[..lanes].iter().all(|&count| count > 500), "{forwarded:?}");
    (crossed(1), crossed(0) + crossed(2))
}

#[test]
fn a_transit_message_leaves_by_the_worker_it_came_to() {
    for workers in 2..=3 {
        let (on_the_way, at_the_ends) = crossed(&[workers; 3]);
        assert_eq!(on_the_way, 0, "{workers} workers everywhere");
        assert!(at_the_ends > 0, "datagrams to a port come over all lanes");
    }
}

#[test]
fn what_comes_over_more_lanes_than_lead_on_crosses() {
    assert!(crossed(&[2, 2, 1]).0 > 1000);
    assert!(crossed(&[3, 3, 2]).0 > 1000);
    let (on_the_way, at_the_ends) = crossed(&[1, 2, 1]);
    assert_eq!((on_the_way, at_the_ends), (0, 0), "one lane either way");
    assert!(crossed(&[2, 1, 2]).1 > 1000, "sessions live at both workers, and the link has the lane of one");
}

/// Goodput of a reliable flow of so many messages per second over one clean 10 Mbit/s link whose wire queues a round
/// trip's worth, in each second.
fn bulk_kbps(delay: Duration, seconds: u32, per_second: u32) -> Vec<f64> {
    const RATE: u64 = 10_000_000;
    let wire = Conditions::perfect(delay);
    let mut world = World::new(Topology::chain(1), LinkSettings::default(), wire, 1);
    let step = Duration::from_millis(50);
    assert!(world.run_while(Instant::from_millis(30_000), step, |world| check::converged(world).is_ok()));
    for (from, to) in [(0, 1), (1, 0)] {
        let conditions = &mut world.wire_mut(from, to).conditions;
        conditions.rate = Some(RATE);
        conditions.queue = (RATE as f64 / 8.0 * 2.0 * delay.as_secs_f64().max(0.025)) as usize;
    }
    let start = world.now() + Duration::from_secs(1);
    let (messages, interval) = (per_second * seconds, Duration::from_secs(1) / per_second);
    world.add_flow(Flow::new(
        0,
        Spec { kind: Kind::Ordered, from: 0, to: 1, port: 7, messages, size: 1000, interval, start, leaves: false },
    ));
    let mut before = 0;
    let mut each = Vec::new();
    for second in 1..=seconds {
        world.run_until(start + Duration::from_secs(second.into()));
        let arrived = world.flows()[0].arrivals().len();
        each.push((arrived - before) as f64 * 8.0);
        before = arrived;
    }
    assert_eq!(check::sound(&world), Ok(()));
    each
}

#[test]
fn a_bulk_flow_fills_a_clean_link_soon_and_keeps_it_full() {
    // A message of 1,000 bytes takes 1,092 on the wire: 9,150 kbit/s is all there is. A little more than that fills the
    // link, and so does a source that hands over whatever is taken, whose window must first come down from far above.
    for (delay, per_second) in [(10, 1300), (50, 1300), (10, 10_000), (50, 10_000)] {
        let each = bulk_kbps(Duration::from_millis(delay), 30, per_second);
        let mean = each.iter().sum::<f64>() / each.len() as f64;
        let figures = format!("{delay} ms, {per_second} messages/s: mean {mean:.0} kbit/s; {each:.0?}");
        println!("{figures}");
        // Delivery is in order, so what a repaired loss held back in one second comes in the next.
        let pairs = each[1..].windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect::<Vec<_>>();
        assert!(mean > 9_000.0 && pairs.iter().all(|&pair| pair > 8_800.0), "{figures}");
    }
}
