//! Every way that three members with three sets can go through a number of changes.
//!
//! A change strikes at any moment: a partition or merge of any form (with each fate of what was being said), a crash, a
//! freeze, a start, failing health, an order. Between changes messages are delivered and hosts obey in every order. What
//! [`cluster`](super::cluster) checks holds in each state that can be reached; a failure names the way there.
//!
//! The search is its own: states are whole rooms with their hosts, which a model checker from elsewhere would not know to
//! compare, and what it needs is a stack and a set of fingerprints (of 64 bits: among a million states two are taken for
//! one with a probability below 1 in 10 million).

use super::cluster::{Cluster, Fate, Life, id, settled};
use super::with_broken;
use crate::base::sabotage::Rule;
use crate::proto::vip::{Command, Input};
use std::collections::BTreeSet;
use std::time::Duration;

const NODES: usize = 3;
const SETS: usize = 3;
/// Longer than leases, lingering and maturity; shorter than what is said again without need.
const HORIZON: Duration = Duration::from_millis(600);

#[derive(Clone, Debug)]
enum Event {
    Deliver(usize),
    Obey(usize),
    Pass,
    Views(Vec<Vec<usize>>, Fate),
    Crash(usize),
    Freeze(usize),
    Start(usize),
    Health(usize, bool),
    Order(usize, Command),
}

/// What was searched.
#[derive(Debug, Default)]
struct Searched {
    states: usize,
    quiet: usize,
}

/// Searches all ways through `changes` changes. An error is what failed, and the way there.
fn search(start: fn() -> Cluster, changes: usize) -> Result<Searched, String> {
    let mut seen = BTreeSet::new();
    let mut ways: Vec<(usize, Event)> = Vec::new();
    let mut stack = vec![(start(), changes, usize::MAX)];
    let mut searched = Searched::default();
    while let Some((cluster, left, way)) = stack.pop() {
        let moves = moves(&cluster);
        if moves.is_empty()
            && let Err(why) = cluster.clone().check_quiet()
        {
            return Err(format!("{why}, after{}", trail(&ways, way)));
        }
        searched.quiet += usize::from(moves.is_empty());
        let changes = if left > 0 { changes_of(&cluster) } else { Vec::new() };
        let next =
            moves.into_iter().map(|event| (event, left)).chain(changes.into_iter().map(|event| (event, left - 1)));
        for (event, left) in next.collect::<Vec<_>>() {
            let mut cluster = cluster.clone();
            if let Err(why) = happen(&mut cluster, &event) {
                return Err(format!("{why}, after{}\n  {event:?}", trail(&ways, way)));
            }
            if seen.insert((cluster.fingerprint(), left)) {
                searched.states += 1;
                ways.push((way, event));
                stack.push((cluster, left, ways.len() - 1));
            }
        }
    }
    Ok(searched)
}

/// All in one view, each with a set.
fn all() -> Cluster {
    settled(NODES, SETS)
}

/// One has just started, alone; the two others hold everything.
fn newcomer() -> Cluster {
    let mut cluster = all();
    cluster.stop(0, false);
    cluster.settle(HORIZON / 2).expect("comes to rest");
    cluster.start(0);
    cluster
}

fn trail(ways: &[(usize, Event)], mut way: usize) -> String {
    let mut steps = Vec::new();
    while let Some((before, event)) = ways.get(way) {
        steps.push(format!("\n  {event:?}"));
        way = *before;
    }
    steps.reverse();
    steps.concat()
}

/// What happens by itself.
fn moves(cluster: &Cluster) -> Vec<Event> {
    let groups = cluster.groups.iter().enumerate().filter(|(_, group)| !group.log.is_empty() && !group.stale);
    let mut moves: Vec<Event> = groups.map(|(group, _)| Event::Deliver(group)).collect();
    let told = |node: &usize| cluster.runs(*node) && !cluster.nodes[*node].orders.is_empty();
    moves.extend((0..NODES).filter(told).map(Event::Obey));
    if moves.is_empty() && cluster.next(HORIZON).is_some() {
        moves.push(Event::Pass);
    }
    moves
}

/// What may happen to it.
fn changes_of(cluster: &Cluster) -> Vec<Event> {
    let mut changes = Vec::new();
    let running: Vec<usize> = (0..NODES).filter(|&node| cluster.runs(node)).collect();
    let silent = cluster.groups.iter().all(|group| group.log.is_empty());
    for groups in partitions(&running) {
        let same = |nodes: &Vec<usize>| cluster.groups.iter().any(|group| !group.stale && group.nodes == *nodes);
        if groups.iter().all(same) {
            continue;
        }
        let fates: &[Fate] = if silent { &[Fate::Lost] } else { &[Fate::Delivered, Fate::Lost, Fate::Postponed] };
        changes.extend(fates.iter().map(|&fate| Event::Views(groups.clone(), fate)));
    }
    for node in 0..NODES {
        if cluster.nodes[node].life != Life::Runs {
            changes.push(Event::Start(node));
        } else if !cluster.is_stale(node) {
            changes.extend([
                Event::Crash(node),
                Event::Freeze(node),
                Event::Health(node, !cluster.nodes[node].healthy),
            ]);
            let set = "set0".to_owned();
            changes.push(Event::Order(node, Command::Move { set, to: Some(id((node + 1) % NODES)) }));
        }
    }
    changes
}

/// All ways to divide these into groups.
fn partitions(nodes: &[usize]) -> Vec<Vec<Vec<usize>>> {
    let Some((&last, rest)) = nodes.split_last() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for groups in partitions(rest) {
        for place in 0..groups.len() {
            let mut groups = groups.clone();
            groups[place].push(last);
            all.push(groups);
        }
        all.push(groups.into_iter().chain([vec![last]]).collect());
    }
    all
}

fn happen(cluster: &mut Cluster, event: &Event) -> Result<(), String> {
    match event {
        Event::Deliver(group) => cluster.deliver(*group),
        Event::Obey(node) => cluster.obey(*node),
        Event::Pass => {
            let at = cluster.next(HORIZON).expect("something is due");
            return cluster.pass(at);
        }
        Event::Views(groups, fate) => cluster.views_are(groups.clone(), *fate),
        Event::Crash(node) => cluster.stop(*node, false),
        Event::Freeze(node) => cluster.stop(*node, true),
        Event::Start(node) => cluster.start(*node),
        Event::Health(node, ok) => cluster.set_health(*node, *ok),
        Event::Order(node, command) => cluster.input(*node, Input::Command { id: 1, command: command.clone() }),
    }
    Ok(())
}

#[test]
fn three_members_have_five_partitions() {
    assert_eq!(partitions(&[0, 1, 2]).len(), 5);
}

#[test]
fn three_changes_of_any_kind_at_any_moment_break_no_rule() {
    let searched = search(all, 3).unwrap_or_else(|why| panic!("{why}"));
    assert!(searched.states > 100_000 && searched.quiet > 1_000, "{searched:?}");
}

#[test]
fn a_newcomer_and_two_changes_break_no_rule() {
    let searched = search(newcomer, 2).unwrap_or_else(|why| panic!("{why}"));
    assert!(searched.states > 1_000 && searched.quiet > 50, "{searched:?}");
}

#[test]
#[ignore = "takes minutes, so before a release: cargo test --release four_changes -- --ignored"]
fn four_changes_of_any_kind_at_any_moment_break_no_rule() {
    let searched = search(all, 4).unwrap_or_else(|why| panic!("{why}"));
    assert!(searched.states > 1_000_000, "{searched:?}");
}

/// Rules whose breaking shows for no time, or in what operators wished, have their stories in `room.rs`.
#[test]
fn the_search_notices_broken_rules() {
    let rules =
        [Rule::Holes, Rule::Alike, Rule::Lease, Rule::Replaced, Rule::LeaseTold, Rule::LoserReleases, Rule::Mute];
    for rule in rules {
        // The fewest changes that show it make the shortest way there.
        let searches: [(fn() -> Cluster, usize); 5] = [(all, 1), (newcomer, 1), (all, 2), (newcomer, 2), (all, 3)];
        let found =
            searches.into_iter().find_map(|(start, changes)| match with_broken(rule, || search(start, changes)) {
                Ok(Ok(_)) => None,
                Ok(Err(why)) => Some(why),
                Err(_) => Some("an assertion".to_owned()),
            });
        println!("{rule:?}: {}", found.as_deref().unwrap_or("not noticed"));
        assert!(found.is_some(), "{rule:?} is not noticed");
    }
}
