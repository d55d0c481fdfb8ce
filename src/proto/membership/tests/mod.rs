//! Behaviours of membership: many members on a bad network.

mod alone;
mod broken;
mod net;
mod random;

use super::*;
use evs::{Event, Process};
use net::{Net, Weather, id, ms};

#[test]
fn a_router_alone_is_in_a_view_of_its_own() {
    let net = Net::new(1, 1, Weather::CLEAR);
    net.expect_views();
    assert_eq!(net.member(0).poll_timeout(), None, "and it has nothing to do");
}

#[test]
fn routers_that_meet_are_in_one_view_and_then_are_silent() {
    for count in [2, 3, 7] {
        let mut net = Net::settled(count, 1);
        let settled = net.messages;
        net.run(ms(60_000));
        assert_eq!(net.messages, settled, "{count}");
        assert!((0..count).all(|node| net.member(node).poll_timeout().is_none()), "nobody has anything to do");
    }
}

/// From the moment in which all have noticed that one of `count` is gone until the last has the view without it.
fn time_to_lose_one(count: usize, gone: usize) -> Duration {
    let mut net = Net::settled(count, 3);
    net.multicast(1, 20, Service::Agreed);
    net.run(ms(500));
    let noticed = net.now;
    net.crash(gone);
    net.run(ms(50));
    net.expect_views();
    let others = (0..count).filter(|&node| node != gone);
    others.map(|node| net.installed_at[node].since(noticed)).max().expect("there are others")
}

#[test]
fn a_view_takes_two_message_delays_after_all_have_noticed() {
    let delay = Weather::CLEAR.delay;
    for (count, gone) in [(3, 0), (8, 7), (64, 0), (64, 40)] {
        assert_eq!(time_to_lose_one(count, gone), 2 * delay, "{gone} of {count}");
    }
}

#[test]
fn one_fault_noticed_at_different_times_makes_one_view() {
    for gone in [0, 5] {
        let mut net = Net::settled(6, 1);
        net.weather.notice = ms(40);
        let views: Vec<u64> = (0..6).map(|node| net.member(node).stats().views).collect();
        net.crash(gone);
        net.run(ms(200));
        net.expect_views();
        for node in (0..6).filter(|&node| node != gone) {
            assert_eq!(net.member(node).stats().views, views[node] + 1, "{node} after {gone} is gone");
        }
    }
}

#[test]
fn two_groups_that_meet_are_one_in_three_message_delays_and_a_spacing_and_know_who_came_with_whom() {
    let mut net = Net::new(6, 1, Weather::CLEAR);
    net.split(|node| node % 2);
    net.run(ms(500));
    let met = net.now;
    net.connect_all();
    net.run(ms(50));
    net.expect_views();
    let bound = 3 * net.weather.delay + net.timing.spacing;
    assert!(net.installed_at.iter().all(|at| at.since(met) <= bound), "{:?}", net.installed_at);
    for node in 0..6 {
        let Some(Event::Install(_, together)) = net.trace.of(Process { node: id(node), life: 1 }).last() else {
            panic!("{node} is in no view")
        };
        assert_eq!(*together, [0, 2, 4].map(|other| id(other + node % 2)));
    }
}

#[test]
fn a_state_of_the_greatest_length_and_long_messages_pass_a_bad_network() {
    let mut net = Net::settled(4, 9);
    net.weather = Weather::BAD;
    for node in 0..4 {
        net.multicast(node, MAX_PAYLOAD, Service::Safe);
        net.multicast(node, 5_000, Service::Agreed);
    }
    net.run(ms(20));
    net.crash(3);
    net.start(3);
    net.run(ms(8_000));
    net.heal();
    net.run(ms(2_000));
    net.expect_views();
    assert_eq!(evs::check(&net.trace, true), Ok(()));
}

#[test]
fn messages_during_a_change_are_sent_in_the_next_view() {
    let mut net = Net::settled(3, 1);
    net.crash(2);
    net.run(Duration::from_micros(100));
    assert!(net.member(0).is_gathering());
    net.multicast(0, 20, Service::Agreed);
    assert_eq!(net.member(0).holdings()[3], ("queued", 1, WINDOW));
    net.run(ms(100));
    assert_eq!(net.member(1).stats().delivered, 1);
    assert_eq!(evs::check(&net.trace, true), Ok(()));
}

#[test]
fn more_than_fits_is_refused_and_room_is_told() {
    let mut net = Net::settled(2, 1);
    for _ in 0..WINDOW + 3 {
        net.multicast(0, 20, Service::Agreed);
    }
    assert_eq!(net.member(0).stats().refused, 3);
    assert!(!net.actions.contains(&Action::Room));
    net.run(ms(100));
    assert_eq!(net.actions.iter().filter(|action| **action == Action::Room).count(), 1);
    assert_eq!(net.member(1).stats().delivered, WINDOW as u64);
    net.multicast(0, 20, Service::Agreed);
    net.run(ms(100));
    assert_eq!(net.member(1).stats().delivered, WINDOW as u64 + 1);
}

#[test]
fn who_is_frozen_is_left_out_and_comes_back() {
    let mut net = Net::settled(4, 1);
    net.freeze(2);
    net.multicast(0, 20, Service::Safe);
    net.run(ms(1_000));
    assert_eq!(net.member(0).view().map(|view| view.members.len()), Some(4), "its links answer: there is patience");
    net.run(ms(1_500));
    let members: Vec<_> = [0, 1, 3].map(id).to_vec();
    assert_eq!(net.member(0).view().map(|view| &view.members), Some(&members));
    net.thaw(2);
    net.run(ms(1_000));
    net.expect_views();
    assert_eq!(net.member(2).stats().mute, 0, "who slept accuses nobody");
    assert_eq!(evs::check(&net.trace, true), Ok(()));
}

#[test]
fn a_restart_that_nobody_noticed_and_one_with_an_older_clock_are_taken_in() {
    for incarnation in [5_000, 1_000, 3] {
        let mut net = Net::settled(3, 1);
        net.incarnations.insert(1, incarnation);
        net.crash(1);
        net.start(1);
        net.run(ms(1_000));
        net.expect_views();
        assert_eq!(evs::check(&net.trace, true), Ok(()), "{incarnation}");
        assert!(net.member(1).incarnation() >= incarnation);
    }
}

#[test]
fn a_line_is_put_into_cliques_and_stays_in_them() {
    let mut net = Net::new(4, 1, Weather::CLEAR);
    (0..3).for_each(|node| net.connect(node, node + 1, true));
    net.run(ms(2_000));
    let members = |net: &Net, node: usize| net.member(node).view().expect("a view").members.clone();
    for node in 0..4 {
        let first = node / 2 * 2;
        assert_eq!(members(&net, node), [id(first), id(first + 1)], "{node}");
        assert!(!net.member(node).is_gathering());
    }
    let views: Vec<u64> = (0..4).map(|node| net.member(node).stats().views).collect();
    net.run(ms(60_000));
    let later: Vec<u64> = (0..4).map(|node| net.member(node).stats().views).collect();
    assert_eq!(later, views, "and nothing changes any more");
}

#[test]
fn who_leaves_is_gone_in_three_message_delays() {
    let mut net = Net::settled(5, 1);
    let left = net.now;
    net.leave(2);
    net.run(ms(50));
    for node in [0, 1, 3, 4] {
        assert_eq!(net.member(node).view().expect("a view").members.len(), 4);
        assert_eq!(net.installed_at[node].since(left), 3 * net.weather.delay, "{node}");
    }
}

#[test]
fn recorded_inputs_replay_to_the_same_actions() {
    let mut net = Net::new(3, 4, Weather::BAD);
    net.connect_all();
    net.run(ms(300));
    (0..9).for_each(|node| net.multicast(node % 3, 3_000, Service::Safe));
    net.run(ms(5));
    net.crash(1);
    net.run(ms(300));
    let text = serde_json::to_string(&net.record).expect("inputs are plain");
    let record: Vec<(Instant, Input)> = serde_json::from_str(&text).expect("inputs are plain");
    let actions = serde_json::to_string(&net.actions).expect("actions are plain");
    assert_eq!(serde_json::from_str::<Vec<Action>>(&actions).expect("actions are plain"), net.actions);
    let fresh = Net::new(3, 4, Weather::BAD);
    let mut again = Membership::new(fresh.now, net.settings(0), Rng::from_u64(1_000));
    let mut replayed = Vec::new();
    for (now, input) in record {
        replayed.extend(std::iter::from_fn(|| again.poll_action()));
        again.handle(now, input);
    }
    replayed.extend(std::iter::from_fn(|| again.poll_action()));
    assert_eq!(replayed, net.actions);
    assert!(replayed.len() > 50);
}
