//! Groups that share service addresses, in the simulator.

use super::super::campaign::{self, Settings};
use super::super::check::sound;
use super::super::check::vips::{Seen, at_rest};
use super::super::fault::{Disk, Fault};
use super::super::ledger::Struck;
use super::super::plan::Plan;
use super::super::topology::{LinkSettings, Topology};
use super::super::vips::Vips;
use super::super::wire::Conditions;
use super::super::world::World;
use crate::base::Instant;
use crate::wire::admin::VipOrder;
use std::time::Duration;

/// Seeds with a group that every test run takes; the seeds of all have more.
const SEEDS: usize = 30;

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
    let plans = || (0..300).map(|seed| Plan::draw(seed, 2..=12, false));
    let groups = plans().filter(|plan| plan.vips.is_some()).count();
    assert!((70..130).contains(&groups), "{groups} of 300");
    let named = |plan: &Plan| plan.to_toml().contains("[vips]");
    assert!(plans().all(|plan| named(&plan) == plan.vips.is_some()));
}

/// Three routers on perfect wires that share three sets, at rest.
fn at_work(lease: Duration) -> (World, Vips) {
    let vips = Vips {
        members: vec![0, 1, 2],
        sets: 3,
        lease,
        linger: ms(500),
        maturity: ms(500),
        balance: ms(500),
        majority: Vec::new(),
        checked: false,
    };
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
    assert_eq!((at_rest(&world.members()), sound(&world)), (Ok(()), Ok(())));
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

/// Lets faults strike, each a second after the one before, and the group come to rest; all rules must have held.
fn goes_through(world: &mut World, faults: &[Fault]) {
    for fault in faults {
        world.strike_group(fault);
        fault.strike(world);
        watch_for(world, ms(1000));
    }
    watch_for(world, Duration::from_secs(12));
    assert_eq!((at_rest(&world.members()), sound(world), world.virtual_synchrony()), (Ok(()), Ok(()), Ok(())));
}

fn watch_for(world: &mut World, length: Duration) {
    let end = world.now() + length;
    world.run_while(end, ms(1), |_| false);
    world.look_at_group();
}

fn owned(world: &World, router: usize) -> usize {
    let members = world.members();
    let member = members.iter().find(|member| member.router == router).expect("it is a member");
    member.answers.iter().filter(|&&answers| answers).count()
}

#[test]
fn who_wakes_up_amid_messages_and_is_yet_to_hear_of_its_lease_does_no_harm() {
    let (mut world, vips) = at_work(ms(50));
    // Some of these are over when the others are just about to part from it, or to take it in again.
    for length in (55..400).step_by(13) {
        goes_through(&mut world, &[Fault::Freeze { router: 1, length: ms(length) }]);
    }
    assert!(world.longest_double() <= vips.lease, "{:?}", world.longest_double());
}

#[test]
fn an_upgrade_of_all_members_one_by_one_leaves_no_set_without_somebody_who_accepts() {
    let (mut world, _) = at_work(ms(50));
    for router in 0..3 {
        goes_through(&mut world, &[Fault::Stop { router }, Fault::Restart { router, disk: Disk::Kept }]);
        let at_once = [Fault::Stop { router }, Fault::Restart { router, disk: Disk::Kept }];
        at_once.iter().for_each(|fault| fault.strike(&mut world));
        watch_for(&mut world, Duration::from_secs(12));
        assert_eq!((at_rest(&world.members()), sound(&world)), (Ok(()), Ok(())));
    }
    assert_eq!(world.ledger().get(Struck::Stop), 6);
    assert_eq!(world.ledger().get(Struck::Upgrade), 3, "the others had ended when they were started");
}

#[test]
fn a_changed_configuration_is_rolled_out_and_a_mistyped_one_takes_nothing() {
    let (mut world, _) = at_work(ms(50));
    let change = |router: usize| {
        let restart = Fault::Restart { router, disk: Disk::Kept };
        [Fault::Unequal { router, on: true }, Fault::Stop { router }, restart]
    };
    for fault in change(2) {
        world.strike_group(&fault);
        fault.strike(&mut world);
        watch_for(&mut world, ms(4000));
    }
    assert_eq!((owned(&world, 2), owned(&world, 0) + owned(&world, 1)), (0, 3));
    assert!(world.members()[2].overruled);
    for router in [0, 1] {
        goes_through(&mut world, &change(router));
    }
    assert!(world.members().iter().all(|member| !member.overruled && member.unequal));
    assert_eq!(sound(&world), Ok(()));
}

#[test]
fn a_rival_is_told_of_and_not_fought_for_ever() {
    let (mut world, _) = at_work(ms(50));
    let owner = world.members().iter().position(|member| member.answers[0]).expect("somebody has it");
    goes_through(&mut world, &[Fault::Rival { set: 0, on: true }, Fault::Rival { set: 0, on: false }]);
    let (told, counted) = world.members()[owner].rivals.expect("it runs");
    assert!(told == counted && told > 30, "{told} {counted}");
    let last = world.members()[owner].announced[0];
    assert!(world.now().since(last) > Duration::from_secs(5), "the rival is gone for long: {last}");
}

#[test]
fn the_drained_and_the_unwell_hold_nothing_and_what_is_paused_stays() {
    let (mut world, _) = at_work(ms(50));
    let order = |order| Fault::Order { router: 2, order };
    goes_through(&mut world, &[order(VipOrder::Drain { member: "r0".to_owned() })]);
    assert_eq!(owned(&world, 0), 0);
    let holder = world.members().iter().find(|member| member.answers[1]).expect("somebody has it").router;
    goes_through(
        &mut world,
        &[
            order(VipOrder::Pause { set: "s1".to_owned() }),
            order(VipOrder::Undrain { member: "r0".to_owned() }),
            order(VipOrder::Drain { member: format!("r{holder}") }),
        ],
    );
    assert_eq!(owned(&world, holder), 1);
    goes_through(&mut world, &[order(VipOrder::Resume { set: "s1".to_owned() })]);
    assert_eq!(owned(&world, holder), 0);
}
