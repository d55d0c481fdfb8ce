//! What users meet: one story each.

use super::cluster::{Cluster, Fate, Kernel, LEASE, LINGER, MATURITY, Node, id, settings, settled, together};
use super::with_broken;
use crate::base::sabotage::Rule;
use crate::base::{Instant, NodeId, Rng};
use crate::proto::vip::post::Post;
use crate::proto::vip::{
    Action, Command, Coverage, Entry, HostCommand, HostReport, Input, RETELL, RETRY, RIVAL_SPACING, Stage, Vip,
};
use crate::wire::vip::{Message, Seat};
use proptest::prelude::*;
use std::time::Duration;

/// Leases, lingering and balance come to an end in it; nothing is said again.
const SOON: Duration = Duration::from_millis(250);

fn command(cluster: &mut Cluster, node: usize, command: Command) -> Result<(), String> {
    cluster.nodes[node].done.clear();
    cluster.input(node, Input::Command { id: 7, command });
    cluster.settle(SOON).expect("comes to rest");
    let done = &cluster.nodes[node].done;
    assert_eq!((done.len(), done[0].0), (1, 7), "every command is answered once: {done:?}");
    done[0].1.clone()
}

fn owners(cluster: &Cluster) -> Vec<Option<usize>> {
    let nodes = &cluster.groups[0].nodes;
    (0..cluster.nodes[nodes[0]].kernel.len()).map(|set| cluster.owner(nodes, set)).collect()
}

fn owned_by(cluster: &Cluster, node: usize) -> usize {
    owners(cluster).iter().filter(|owner| **owner == Some(node)).count()
}

fn move_to(set: usize, node: usize) -> Command {
    Command::Move { set: format!("set{set}"), to: Some(id(node)) }
}

/// Lets a cluster go on until a set has an owner that answers, and says how long that took.
fn time_to_cover(cluster: &mut Cluster, set: usize) -> Duration {
    let start = cluster.now;
    loop {
        while let Some(group) = cluster.groups.iter().position(|group| !group.log.is_empty()) {
            cluster.deliver(group);
        }
        (0..cluster.nodes.len())
            .filter(|&node| cluster.runs(node))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|node| cluster.obey(node));
        if cluster.groups.iter().any(|group| group.nodes.iter().any(|&node| cluster.answers(node, set))) {
            return cluster.now.since(start);
        }
        if cluster.is_idle() {
            let at = cluster.next(Duration::from_secs(60)).expect("something is due");
            cluster.pass(at).expect("breaks no rule");
        }
    }
}

#[test]
fn a_cluster_that_boots_hands_nothing_about() {
    let mut cluster = Cluster::new(3, settings(0, 3, 3));
    (0..3).for_each(|node| cluster.set_health(node, true));
    cluster.views_are(vec![vec![0, 1], vec![2]], Fate::Delivered);
    cluster.settle(MATURITY / 2).expect("comes to rest");
    assert_eq!(owners(&cluster), [None; 3], "two of three wait for the third");
    cluster.views_are(vec![vec![0, 1, 2]], Fate::Delivered);
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!(owners(&cluster), [Some(0), Some(1), Some(2)], "all are there, so nobody waits");
    let moves: usize = cluster.nodes.iter().map(|node| node.vip.stats().acquired as usize).sum();
    assert_eq!(moves, 3, "each set was acquired once");
}

#[test]
fn who_is_alone_waits_for_maturity_and_then_takes_all() {
    let mut cluster = Cluster::new(3, settings(0, 3, 3));
    cluster.set_health(0, true);
    let wait = time_to_cover(&mut cluster, 0);
    assert!(wait >= MATURITY && wait < MATURITY + LEASE, "{wait:?}");
    assert_eq!(owners(&cluster), [Some(0); 3]);
    assert!(cluster.nodes[0].notes.contains(&Entry::Mature));
}

#[test]
fn what_a_dead_member_had_is_taken_after_exactly_its_lease() {
    let mut cluster = settled(3, 3);
    cluster.stop(0, false);
    assert_eq!(time_to_cover(&mut cluster, 0), LEASE);
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!(owners(&cluster)[1..], [Some(1), Some(2)], "what the others had did not move");
}

#[test]
fn the_lease_counts_from_when_a_member_was_last_heard() {
    let mut cluster = settled(2, 1);
    let heard = cluster.now;
    cluster.now += Duration::from_millis(20);
    cluster.input(1, Input::LastHeard { node: id(0), at: heard });
    cluster.views_are(vec![vec![1], vec![0]], Fate::Lost);
    let Some(HostCommand::Acquire { wait, .. }) = cluster.nodes[1].orders.front().copied() else {
        panic!("takes over")
    };
    assert_eq!(wait, LEASE - Duration::from_millis(20));
}

#[test]
fn a_set_that_moves_is_always_held_and_nobody_answers_beside_another() {
    let story = || {
        let mut cluster = settled(2, 1);
        cluster.nodes.iter_mut().for_each(|node| node.announced = 0);
        cluster.input(1, Input::Command { id: 1, command: move_to(0, 1) });
        cluster.deliver(0);
        assert_eq!(cluster.nodes[0].vip.posts[0].stage, Stage::Muted { release_at: None });
        cluster.obey(0);
        assert_eq!(cluster.nodes[0].kernel[0], Kernel::Muted, "it accepts what comes, and answers no more");
        cluster.obey(1);
        assert!(cluster.answers(1, 0), "the new owner waits for nothing");
        assert!(cluster.nodes[1].done.is_empty(), "not all know");
        cluster.deliver(0);
        assert_eq!(cluster.nodes[1].done, [(1, Ok(()))]);
        cluster.obey(1);
        assert_eq!(cluster.nodes[1].announced, 1, "what the old one answered in between is put right");
        let started = cluster.now;
        cluster.settle(SOON).expect("comes to rest");
        assert_eq!(cluster.nodes[0].kernel[0], Kernel::Nothing);
        assert!(cluster.now.since(started) >= LINGER, "it lingered");
    };
    story();
    for rule in [Rule::MakeBeforeBreak, Rule::Mute] {
        assert!(with_broken(rule, story).is_err(), "{rule:?} is not noticed");
    }
}

#[test]
fn a_set_whose_new_owner_cannot_have_it_goes_back() {
    let story = || {
        let mut cluster = settled(3, 1);
        command(&mut cluster, 0, move_to(0, 1)).expect("is done");
        cluster.nodes[0].done.clear();
        cluster.input(0, Input::Command { id: 1, command: move_to(0, 2) });
        cluster.deliver(0);
        cluster.obey(1);
        cluster.nodes[2].orders.clear();
        cluster.input(2, Input::Host(HostReport::Failed { set: 0, why: "address in use".to_owned() }));
        cluster.deliver(0);
        assert!(matches!(cluster.nodes[1].orders.front(), Some(HostCommand::Acquire { .. })), "it never let go");
        cluster.settle(SOON).expect("comes to rest");
        assert_eq!(owners(&cluster), [Some(1)]);
        assert!(cluster.nodes[0].done[0].1.as_ref().is_err_and(|why| why.contains("meanwhile it was given to m1")));
        let unable = |cluster: &Cluster| cluster.nodes[2].vip.sets().next().expect("a set").unable;
        assert_eq!(unable(&cluster).as_deref(), Some("address in use"));
        cluster.settle(RETRY * 2).expect("comes to rest");
        assert_eq!(unable(&cluster), None, "it may try again");
    };
    story();
    assert!(with_broken(Rule::GiveBack, story).is_err(), "not noticed");
}

#[test]
fn a_host_that_does_not_answer_counts_as_failed() {
    let mut cluster = settled(2, 1);
    cluster.input(0, Input::Command { id: 1, command: move_to(0, 1) });
    cluster.deliver(0);
    cluster.nodes[1].orders.clear();
    cluster.obey(0);
    cluster.settle(Duration::from_secs(3)).expect_err("a muted set is uncovered for long, which is the host's fault");
    assert_eq!(cluster.nodes[1].vip.stats().failures, 0);
    cluster.now += Duration::from_secs(2);
    cluster.input(1, Input::Timer);
    assert_eq!(cluster.nodes[1].vip.stats().failures, 1);
}

#[test]
fn commands_that_cannot_be_followed_say_why() {
    let mut cluster = settled(3, 3);
    let mut refused = |command_: Command, why: &str| {
        let said = command(&mut cluster, 2, command_).expect_err(why);
        assert!(said.contains(why), "{said}");
    };
    refused(Command::Pause("web".to_owned()), "there is no set `web`; there are set0, set1, set2");
    refused(Command::Drain(NodeId(5)), "is no member");
    let mut cluster = settled(3, 3);
    cluster.set_health(1, false);
    cluster.settle(SOON).expect("comes to rest");
    let said = command(&mut cluster, 0, move_to(0, 1)).expect_err("is unhealthy");
    assert!(said.contains("m1 cannot hold `set0`: its checks"), "{said}");
    command(&mut cluster, 0, Command::Pause("set0".to_owned())).expect("is done");
    let said = command(&mut cluster, 1, move_to(0, 2)).expect_err("is paused");
    assert!(said.contains("`set0` is paused: resume it first"), "{said}");
    command(&mut cluster, 0, Command::Resume("set0".to_owned())).expect("is done");
    command(&mut cluster, 0, Command::Pin { set: "set0".to_owned(), to: id(2) }).expect("is done");
    assert_eq!(owners(&cluster)[0], Some(2), "a pinned set goes where it belongs");
    let said = command(&mut cluster, 1, move_to(0, 0)).expect_err("is pinned");
    assert!(said.contains("`set0` is pinned to m2"), "{said}");
    command(&mut cluster, 1, Command::Unpin("set0".to_owned())).expect("is done");
    command(&mut cluster, 1, Command::Move { set: "set0".to_owned(), to: None }).expect("somebody else can");
    assert_eq!(owners(&cluster)[0], Some(0));
    let alone = Vip::new(Instant::ZERO, settings(0, 3, 1), Rng::from_u64(1));
    let mut alone = alone;
    alone.handle(Instant::ZERO, Input::Command { id: 3, command: Command::Balance });
    assert_eq!(
        alone.poll_action(),
        Some(Action::Done { id: 3, result: Err("this router is in no view yet".to_owned()) })
    );
}

#[test]
fn a_drained_member_holds_nothing_until_it_is_undrained() {
    let mut cluster = settled(3, 6);
    command(&mut cluster, 1, Command::Drain(id(0))).expect("is done");
    assert_eq!(owned_by(&cluster, 0), 0);
    assert_eq!((owned_by(&cluster, 1), owned_by(&cluster, 2)), (3, 3));
    cluster.stop(0, false);
    cluster.settle(SOON).expect("comes to rest");
    cluster.start(0);
    cluster.views_are(vec![vec![0, 1, 2]], Fate::Delivered);
    cluster.settle(SOON).expect("comes to rest");
    cluster.stop(1, false);
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!(cluster.owner(&[0, 2], 0), Some(2), "the others remember, over its restart too");
    let said = command(&mut cluster, 0, Command::Drain(id(2))).expect_err("is the last");
    assert!(said.contains("nobody else can hold set0, set1, set2, set3, set4: m2 is not drained"), "{said}");
    command(&mut cluster, 0, Command::Undrain(id(0))).expect("is done");
    command(&mut cluster, 0, Command::Balance).expect("is done");
    assert_eq!(owned_by(&cluster, 0), 3);
    let story = || command(&mut settled(2, 2), 0, Command::Drain(id(0)));
    assert!(with_broken(Rule::Drained, story).is_err(), "not noticed");
}

#[test]
fn who_leaves_hands_over_everything_and_nobody_waits() {
    let mut cluster = settled(3, 3);
    cluster.nodes.iter_mut().for_each(|node| node.notes.clear());
    cluster.input(0, Input::Leave);
    assert!(!cluster.nodes[0].left);
    cluster.settle(SOON).expect("comes to rest");
    assert!(cluster.nodes[0].left, "it may go");
    assert!(cluster.nodes[0].kernel.iter().all(|kernel| *kernel == Kernel::Nothing));
    let waits = cluster.nodes.iter().flat_map(|node| &node.notes).filter_map(|entry| match entry {
        Entry::Acquired { waited, .. } => Some(*waited),
        _ => None,
    });
    assert_eq!(waits.max(), Some(Duration::ZERO));
    cluster.views_are(vec![vec![1, 2]], Fate::Delivered);
    assert!(cluster.nodes[1].orders.is_empty() && cluster.nodes[2].orders.is_empty(), "nothing is left to do");
}

#[test]
fn the_last_one_leaves_by_releasing() {
    let mut cluster = settled(1, 2);
    cluster.input(0, Input::Leave);
    cluster.settle(SOON).expect("comes to rest");
    assert!(cluster.nodes[0].left && cluster.nodes[0].kernel[0] == Kernel::Nothing);
}

#[test]
fn leaving_has_an_end_also_where_nothing_answers() {
    let mut cluster = settled(2, 2);
    cluster.input(0, Input::Leave);
    cluster.now += Duration::from_secs(10);
    cluster.input(0, Input::Timer);
    assert!(cluster.nodes[0].left);
    assert_eq!(cluster.nodes[0].orders.back(), Some(&HostCommand::ReleaseAll));
}

#[test]
fn a_paused_set_stays_with_an_unhealthy_owner_and_is_covered_when_that_goes() {
    let mut cluster = settled(2, 2);
    command(&mut cluster, 0, Command::Pause("set0".to_owned())).expect("is done");
    cluster.set_health(0, false);
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!(owners(&cluster), [Some(0), Some(1)]);
    cluster.stop(0, false);
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!(owners(&cluster), [Some(1), Some(1)]);
}

#[test]
fn an_interface_without_carrier_withdraws_the_sets_on_it() {
    let mut settings = settings(0, 2, 4);
    settings.sets[0].interfaces = vec!["eth1".to_owned()];
    settings.sets[2].interfaces = vec!["eth1".to_owned()];
    let mut cluster = together(2, settings);
    let before = owned_by(&cluster, 0);
    assert_eq!(before, 2);
    cluster
        .input(0, Input::Host(HostReport::Carrier { interface: "eth1".to_owned(), up: false, addresses: Vec::new() }));
    cluster
        .input(0, Input::Host(HostReport::Carrier { interface: "wlan0".to_owned(), up: false, addresses: Vec::new() }));
    // Node 1 is healthy as far as the test knows, and node 0 too: some set is still its.
    let _ = cluster.settle(SOON);
    assert_eq!((owners(&cluster)[0], owners(&cluster)[2]), (Some(1), Some(1)));
    assert!(cluster.nodes[0].vip.sets().nth(2).expect("a set").unable.is_some_and(|why| why == "eth1 has no carrier"));
}

#[test]
fn an_address_taken_away_is_put_back_once() {
    let mut cluster = settled(2, 1);
    let lost = || Input::Host(HostReport::Lost { set: 0, why: "removed by somebody".to_owned() });
    cluster.input(0, lost());
    assert_eq!(
        cluster.nodes[0].orders.front(),
        Some(&HostCommand::Acquire { set: 0, wait: Duration::ZERO, from: None })
    );
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!(owners(&cluster), [Some(0)]);
    cluster.input(0, lost());
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!(owners(&cluster), [Some(1)], "it is not fought for");
}

#[test]
fn on_sight_of_a_rival_the_owner_announces_again_but_not_without_end() {
    let mut cluster = settled(2, 1);
    let rival = || {
        let (address, who) = ([192, 0, 2, 0].into(), "02:00:00:00:00:01".to_owned());
        Input::Host(HostReport::Rival { set: 0, address, who })
    };
    cluster.nodes[0].announced = 0;
    (0..50).for_each(|_| cluster.input(0, rival()));
    cluster.input(1, rival());
    cluster.obey(0);
    assert_eq!((cluster.nodes[0].announced, cluster.nodes[1].announced), (1, 0), "of others' sets others speak");
    cluster.now += RIVAL_SPACING;
    cluster.input(0, rival());
    cluster.obey(0);
    assert_eq!((cluster.nodes[0].announced, cluster.nodes[0].vip.stats().rivals), (2, 51));
}

#[test]
fn after_a_merge_the_winner_announces_and_the_loser_releases_at_once() {
    let story = || {
        let mut cluster = settled(2, 4);
        cluster.views_are(vec![vec![0], vec![1]], Fate::Lost);
        cluster.settle(SOON).expect("comes to rest");
        assert!((0..4).all(|set| cluster.answers(0, set) && cluster.answers(1, set)), "each covers its part");
        cluster.nodes.iter_mut().for_each(|node| node.announced = 0);
        cluster.views_are(vec![vec![0, 1]], Fate::Delivered);
        (0..2).for_each(|node| cluster.obey(node));
        assert_eq!((owned_by(&cluster, 0), owned_by(&cluster, 1)), (2, 2), "spread without a move");
        assert!((0..4).all(|set| cluster.answers(0, set) != cluster.answers(1, set)), "at once");
        assert_eq!((cluster.nodes[0].announced, cluster.nodes[1].announced), (2, 2));
    };
    story();
    for rule in [Rule::Announce, Rule::LoserReleases] {
        assert!(with_broken(rule, story).is_err(), "{rule:?} is not noticed");
    }
}

#[test]
fn of_two_halves_the_later_word_of_an_operator_counts() {
    let mut cluster = settled(2, 2);
    cluster.views_are(vec![vec![0], vec![1]], Fate::Lost);
    cluster.settle(SOON).expect("comes to rest");
    command(&mut cluster, 0, Command::Pin { set: "set0".to_owned(), to: id(0) }).expect("is done");
    command(&mut cluster, 1, Command::Pause("set1".to_owned())).expect("is done");
    command(&mut cluster, 1, Command::Pin { set: "set0".to_owned(), to: id(1) }).expect("is done");
    cluster.views_are(vec![vec![0, 1]], Fate::Delivered);
    cluster.settle(SOON).expect("comes to rest");
    let set = cluster.nodes[0].vip.sets().next().expect("a set");
    assert_eq!((set.pin, owners(&cluster)[0]), (Some(id(1)), Some(1)));
}

#[test]
fn a_member_that_was_frozen_is_silent_until_its_own_word_comes_back() {
    let story = || {
        let mut cluster = settled(2, 1);
        cluster.input(0, Input::Host(HostReport::Lapsed));
        cluster.nodes[0].kernel[0] = Kernel::Nothing;
        assert_eq!(cluster.nodes[0].vip.posts[0].stage, Stage::Lapsed);
        cluster.obey(0);
        assert!(!cluster.answers(0, 0), "others may have it by now");
        cluster.deliver(0);
        cluster.obey(0);
        assert!(cluster.answers(0, 0), "the others count on it still");
        cluster.settle(SOON).expect("comes to rest");
        assert_eq!(owners(&cluster), [Some(0)]);
    };
    story();
    assert!(with_broken(Rule::Proof, story).is_err(), "not noticed");
}

#[test]
fn what_the_host_side_may_not_have_begun_is_taken_back_when_the_lease_runs_out() {
    let now = Instant::from_millis(1_000);
    let acquiring = |free_at: Instant| {
        let mut post = Post::new(free_at);
        assert!(matches!(post.acquire(now, 0), HostCommand::Acquire { .. }));
        post
    };
    for free_at in [now, now + LEASE] {
        let mut post = acquiring(free_at);
        assert_eq!((post.lapse(0), post.stage), (Some(HostCommand::Release { set: 0 }), Stage::Lapsed));
        assert_eq!(post.lapse(0), None, "once");
    }
    let mut post = acquiring(now);
    assert!(post.acquired());
    assert_eq!((post.lapse(0), post.stage), (None, Stage::Lapsed), "the end of the lease takes what is held");
}

#[test]
fn a_word_that_comes_back_while_the_view_ends_proves_nothing() {
    let mut cluster = settled(2, 1);
    cluster.input(0, Input::Host(HostReport::Lapsed));
    cluster.nodes[0].kernel[0] = Kernel::Nothing;
    // The other has given it up: what it said is delivered on the way into a view of its own.
    cluster.views_are(vec![vec![0], vec![1]], Fate::Delivered);
    cluster.obey(0);
    assert!(!cluster.answers(0, 0), "nobody else had a part in it");
    cluster.settle(SOON).expect("comes to rest");
    assert!(cluster.answers(0, 0), "and yet it serves those that it has");
}

#[test]
fn a_member_with_another_configuration_holds_nothing_and_says_so() {
    let story = || {
        let mut cluster = settled(3, 3);
        let other = crate::proto::vip::Settings { node: id(2), maturity: Duration::ZERO, ..settings(2, 3, 3) };
        cluster.stop(2, false);
        cluster.settle(SOON).expect("comes to rest");
        cluster.start(2);
        cluster.nodes[2].vip = Vip::new(cluster.now, other, Rng::from_u64(1));
        cluster.set_health(2, true);
        cluster.views_are(vec![vec![0, 1], vec![2]], Fate::Lost);
        cluster.groups.retain(|group| group.nodes != [2]);
        cluster.views_are(vec![vec![0, 1, 2]], Fate::Lost);
        while !cluster.is_idle() {
            (0..cluster.groups.len())
                .filter(|&group| !cluster.groups[group].log.is_empty())
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|group| cluster.deliver(group));
            (0..3).for_each(|node| cluster.obey(node));
        }
        assert_eq!(owned_by(&cluster, 2), 0, "the minority holds nothing");
        assert!(owners(&cluster).iter().all(Option::is_some));
        for node in 0..2 {
            cluster.set_health(node, false);
            cluster.deliver(0);
        }
        assert!(cluster.nodes[0].vip.sets().all(|set| set.owner.is_none()), "also where nobody else can");
        assert!(cluster.nodes[2].vip.is_overruled() && !cluster.nodes[0].vip.is_overruled());
        for node in 0..3 {
            let told = |entry: &Entry| matches!(entry, Entry::Unequal { others, this, .. } if others[..] == [id(2)] && *this == (node == 2));
            assert!(cluster.nodes[node].notes.iter().any(told), "{node} says so");
        }
    };
    story();
    assert!(with_broken(Rule::Digest, story).is_err(), "not noticed");
}

#[test]
fn a_set_that_wants_a_majority_is_released_without_one() {
    let story = || {
        let mut settings = settings(0, 3, 1);
        settings.sets[0].coverage = Coverage::Majority;
        let mut cluster = together(3, settings);
        cluster.views_are(vec![vec![0], vec![1, 2]], Fate::Lost);
        cluster.settle(SOON).expect("comes to rest");
        assert_eq!((cluster.owner(&[0], 0), cluster.owner(&[1, 2], 0)), (None, Some(1)));
    };
    story();
    assert!(with_broken(Rule::Majority, story).is_err(), "not noticed");
}

#[test]
fn who_comes_back_gets_its_share_by_few_moves_at_a_time() {
    let mut settings = settings(0, 3, 9);
    settings.balance = Some(Duration::from_millis(300));
    let mut cluster = together(3, settings);
    cluster.stop(0, false);
    cluster.settle(SOON).expect("comes to rest");
    cluster.start(0);
    cluster.set_health(0, true);
    cluster.views_are(vec![vec![0, 1, 2]], Fate::Delivered);
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!(owned_by(&cluster, 0), 0, "a router that comes back takes nothing by that");
    for round in 1..=4 {
        cluster.now += Duration::from_millis(300);
        let first = cluster.groups[0].nodes[0];
        cluster.input(first, Input::Timer);
        cluster.settle(SOON).expect("comes to rest");
        assert_eq!(owned_by(&cluster, 0), round.min(3), "one at a time, until the spread is within one");
    }
}

#[test]
fn preferred_members_get_their_sets_when_the_spread_is_made_better() {
    let mut settings = settings(0, 2, 2);
    settings.sets[0].preferences = vec![id(1)];
    let mut cluster = together(2, settings);
    assert_eq!(owners(&cluster), [Some(1), Some(0)]);
    cluster.stop(1, false);
    cluster.settle(SOON).expect("comes to rest");
    cluster.start(1);
    cluster.views_are(vec![vec![0, 1]], Fate::Delivered);
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!(owners(&cluster), [Some(0), Some(0)]);
    command(&mut cluster, 0, Command::Balance).expect("is done");
    assert_eq!(owners(&cluster), [Some(1), Some(0)]);
}

#[test]
fn weights_divide_the_sets() {
    let mut heavy = settings(0, 2, 9);
    heavy.weight = 2;
    let mut cluster = together(1, crate::proto::vip::Settings { members: vec![heavy.members[0].clone()], ..heavy });
    assert_eq!(owned_by(&cluster, 0), 9);
    cluster = Cluster::new(2, settings(0, 2, 9));
    cluster.nodes[0].vip =
        Vip::new(cluster.now, crate::proto::vip::Settings { weight: 2, ..settings(0, 2, 9) }, Rng::from_u64(1));
    (0..2).for_each(|node| cluster.set_health(node, true));
    cluster.groups.clear();
    cluster.views_are(vec![vec![0, 1]], Fate::Delivered);
    cluster.settle(SOON).expect("comes to rest");
    assert_eq!((owned_by(&cluster, 0), owned_by(&cluster, 1)), (6, 3));
}

#[test]
fn what_was_said_and_not_delivered_is_said_again() {
    let mut cluster = settled(2, 1);
    cluster.set_health(0, false);
    cluster.groups[0].log.clear();
    assert_eq!(cluster.next(RETELL), Some(cluster.now + RETELL));
    cluster.settle(RETELL).expect("comes to rest");
    assert_eq!((owners(&cluster), cluster.nodes[0].vip.stats().retold), (vec![Some(1)], 1));
}

#[test]
fn what_makes_no_sense_is_counted_and_changes_nothing() {
    let mut cluster = settled(2, 2);
    let before = cluster.nodes[0].vip.agreed.clone();
    let say = |cluster: &mut Cluster, from: NodeId, body: Vec<u8>| cluster.input(0, Input::Message { from, body });
    say(&mut cluster, id(1), vec![9, 9]);
    say(&mut cluster, NodeId(999), Message::Acquired { set: 0, turn: 1 }.emit());
    say(&mut cluster, id(1), Message::Acquired { set: 500, turn: 1 }.emit());
    say(&mut cluster, id(1), Message::Acquired { set: 0, turn: 77 }.emit());
    cluster.input(0, Input::Host(HostReport::Acquired { set: 500 }));
    cluster.input(0, Input::Health { check: 12, ok: false });
    let stats = *cluster.nodes[0].vip.stats();
    assert_eq!((stats.malformed, stats.misplaced, stats.stale), (1, 4, 1));
    let order = crate::wire::vip::Order::Drain(Seat(60));
    say(&mut cluster, id(1), Message::Order { id: 1, order }.emit());
    assert_eq!(cluster.nodes[0].vip.agreed.slots, before.slots);
}

#[test]
fn what_was_said_of_an_earlier_turn_means_nothing() {
    let story = || {
        let mut cluster = settled(2, 1);
        cluster.input(0, Input::Command { id: 1, command: move_to(0, 1) });
        cluster.deliver(0);
        let turn = cluster.nodes[0].vip.agreed.slots[0].turn - 1;
        cluster.input(0, Input::Message { from: id(1), body: Message::Acquired { set: 0, turn }.emit() });
        assert_eq!(cluster.nodes[0].vip.posts[0].stage, Stage::Muted { release_at: None }, "it is needed still");
    };
    story();
    assert!(with_broken(Rule::Turns, story).is_err(), "not noticed");
}

#[test]
fn what_was_ordered_in_the_last_moment_of_a_view_counts_in_the_next() {
    let story = || {
        let mut cluster = settled(3, 3);
        cluster.input(1, Input::Command { id: 1, command: Command::Drain(id(1)) });
        cluster.views_are(vec![vec![0, 1], vec![2]], Fate::Delivered);
        cluster.settle(SOON).expect("comes to rest");
        assert!(cluster.nodes[0].vip.members().nth(1).expect("a member").drained);
        assert_eq!(cluster.nodes[1].done, [(1, Ok(()))]);
    };
    story();
    assert!(with_broken(Rule::Pending, story).is_err(), "not noticed");
}

#[test]
fn idle_rooms_want_nothing() {
    let cluster = settled(3, 3);
    for Node { vip, .. } in &cluster.nodes {
        assert_eq!(vip.poll_timeout(), None, "no timer runs where nothing is to be done");
    }
}

proptest! {
    #[test]
    fn no_message_or_state_panics(
        bodies in prop::collection::vec((1u8..5, prop::collection::vec(any::<u8>(), 0..80)), 1..20),
        from in 0usize..4,
    ) {
        let mut cluster = settled(3, 3);
        for (kind, rest) in bodies {
            let body = [&[kind], &rest[..]].concat();
            cluster.input(0, Input::Message { from: id(from), body: body.clone() });
            let states = vec![(id(0), body.clone()), (id(from), body)];
            let view = crate::base::View { id: crate::base::ViewId { number: 99, digest: 0 }, members: vec![id(0), id(1)] };
            cluster.input(0, Input::View { view, together: vec![id(0)], states });
        }
    }
}
