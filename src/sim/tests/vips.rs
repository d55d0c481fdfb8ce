//! Groups that share service addresses, in the simulator.

use super::super::campaign::{self, Settings};
use super::super::check::vips::{Seen, at_rest};
use super::super::plan::Plan;
use super::super::topology::{LinkSettings, Topology};
use super::super::vips::Vips;
use super::super::wire::Conditions;
use super::super::world::World;
use crate::base::Instant;
use crate::base::sabotage::Rule;
use crate::proto::vip::sabotage;
use std::time::Duration;

/// Seeds with a group that every test run takes; the seeds of all have more.
const SEEDS: usize = 30;
/// Within how many seeds with a group a broken rule must be noticed.
const NOTICED_WITHIN: usize = 60;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The first seeds that have a group among so many routers.
fn seeds(settings: &Settings) -> impl Iterator<Item = u64> {
    let settings = *settings;
    (20_000..).filter(move |&seed| settings.draw(seed).vips.is_some())
}

fn small() -> Settings {
    Settings { routers: 5, ..Settings::default() }
}

#[test]
fn service_addresses_are_held_once_whatever_goes_wrong() {
    let failed: Vec<String> = seeds(&small())
        .take(SEEDS)
        .map(|seed| campaign::run(seed, &small()))
        .filter(|outcome| outcome.failure.is_some())
        .map(|outcome| outcome.to_string())
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_third_of_the_seeds_has_a_group_and_the_others_are_written_without_one() {
    let plans = || (0..300).map(|seed| Plan::draw(seed, 2..=12));
    let groups = plans().filter(|plan| plan.vips.is_some()).count();
    assert!((70..130).contains(&groups), "{groups} of 300");
    let named = |plan: &Plan| plan.to_toml().contains("[vips]");
    assert!(plans().all(|plan| named(&plan) == plan.vips.is_some()));
}

/// How a broken rule is noticed, if it is; what is noticed must contain `how`.
fn noticed(settings: &Settings, how: &str) -> Option<String> {
    let failures = seeds(settings).take(NOTICED_WITHIN).filter_map(|seed| campaign::run(seed, settings).failure);
    failures.into_iter().find(|failure| failure.contains(how))
}

#[test]
fn two_owners_in_one_view_are_noticed() {
    sabotage::break_rule(Some(sabotage::Rule::LoserReleases));
    let noticed = noticed(&small(), "answer for s");
    sabotage::break_rule(None);
    assert!(noticed.is_some(), "who lost a set in a merge kept it, and nobody noticed");
}

#[test]
fn a_set_that_nobody_is_given_is_noticed() {
    sabotage::break_rule(Some(sabotage::Rule::Holes));
    let noticed = noticed(&small(), "answer");
    sabotage::break_rule(None);
    assert!(noticed.is_some(), "what nobody held was given to nobody, and nobody noticed");
}

#[test]
fn broken_virtual_synchrony_is_noticed() {
    let settings = Settings { broken: Some(Rule::TogetherOnly), ..small() };
    assert!(noticed(&settings, "EVS 17").is_some(), "transitional sets were wrong, and nobody noticed");
}

/// Three routers on perfect wires that share three sets, at rest.
fn at_work(lease: Duration) -> (World, Vips) {
    let vips = Vips { members: vec![0, 1, 2], sets: 3, lease, linger: ms(500), maturity: ms(500), balance: ms(500) };
    let settings = LinkSettings { hello: ms(10), dead: ms(70), ..LinkSettings::default() };
    let mut world = World::asleep(Topology::ring(3), settings, Conditions::perfect(ms(1)), 7);
    world.share(vips.clone());
    world.start_all();
    let rests = |world: &World| at_rest(&world.members()).is_ok();
    assert!(world.run_while(Instant::from_millis(10_000), ms(10), rests), "{:?}", at_rest(&world.members()));
    world.run_until(world.now() + Duration::from_secs(5));
    assert_eq!(at_rest(&world.members()), Ok(()));
    (world, vips)
}

/// How long it takes until the survivors of `lost` answer for everything, and whether `lost` is silent then.
fn taken_over_after(world: &mut World, lost: usize) -> Duration {
    let begin = world.now();
    let covered = |members: &[Seen]| {
        let others = || members.iter().filter(|member| member.router != lost);
        (0..3).all(|set| others().filter(|member| member.answers[set]).count() == 1)
    };
    assert!(world.run_while(begin + Duration::from_secs(3), ms(1), |world| covered(&world.members())));
    world.now().since(begin)
}

#[test]
fn what_a_frozen_router_held_is_taken_over_within_the_silence_and_a_lease() {
    let (mut world, vips) = at_work(ms(50));
    world.freeze(1, Duration::from_secs(4));
    let took = taken_over_after(&mut world, 1);
    println!("frozen: {took:.1?}");
    assert!(took <= ms(70) + ms(10) + vips.lease + ms(70), "{took:?}");
    assert!(world.members()[1].answers.iter().all(|answers| !answers), "its kernel is silent by then");
    // It wakes up, and answers for nothing until the others have given it something again.
    let end = world.now() + Duration::from_secs(10);
    world.run_until(end);
    world.look_at_group();
    assert_eq!((at_rest(&world.members()), super::check::sound(&world)), (Ok(()), Ok(())));
    assert!(world.longest_double() <= vips.lease, "{:?}", world.longest_double());
    assert_eq!(world.virtual_synchrony(), Ok(()));
}

#[test]
fn what_a_killed_router_held_is_taken_over_at_once() {
    let (mut world, _) = at_work(ms(200));
    world.crash(1);
    let took = taken_over_after(&mut world, 1);
    println!("killed: {took:.1?}");
    assert!(took <= ms(40), "its kernel says that nobody listens there: {took:?}");
}
