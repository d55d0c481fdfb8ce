//! Long random lives of random clusters, with everything that can happen and operators who interfere.

use super::cluster::{Cluster, Fate, Life, id, settings, together};
use crate::base::Rng;
use crate::proto::vip::{Command, Coverage, Input, Settings};
use std::time::Duration;

const HORIZON: Duration = Duration::from_millis(600);

fn random_settings(rng: &mut Rng, nodes: usize, sets: usize) -> Settings {
    let mut settings = settings(0, nodes, sets);
    for set in &mut settings.sets {
        if rng.chance(0.2) {
            set.preferences = vec![id(rng.below(nodes as u64) as usize)];
        }
    }
    settings.balance = rng.chance(0.5).then_some(Duration::from_millis(300));
    settings.moves = 1 + rng.below(3) as u16;
    settings
}

fn random_groups(rng: &mut Rng, running: &[usize]) -> Vec<Vec<usize>> {
    let count = 1 + rng.below(3) as usize;
    let mut groups = vec![Vec::new(); count];
    running.iter().for_each(|&node| groups[rng.below(count as u64) as usize].push(node));
    groups.retain(|group| !group.is_empty());
    groups
}

fn random_command(rng: &mut Rng, nodes: usize, sets: usize) -> Command {
    let set = format!("set{}", rng.below(sets as u64));
    let to = id(rng.below(nodes as u64) as usize);
    match rng.below(9) {
        0 => Command::Move { set, to: None },
        1 | 2 => Command::Move { set, to: Some(to) },
        3 => Command::Drain(to),
        4 => Command::Undrain(to),
        5 => Command::Pin { set, to },
        6 => Command::Unpin(set),
        7 => {
            if rng.chance(0.5) {
                Command::Pause(set)
            } else {
                Command::Resume(set)
            }
        }
        _ => Command::Balance,
    }
}

/// One thing that happens.
fn step(rng: &mut Rng, cluster: &mut Cluster, sets: usize) -> Result<(), String> {
    let nodes = cluster.nodes.len();
    let logs: Vec<usize> = (0..cluster.groups.len())
        .filter(|&group| !cluster.groups[group].log.is_empty() && !cluster.groups[group].stale)
        .collect();
    let told: Vec<usize> =
        (0..nodes).filter(|&node| cluster.runs(node) && !cluster.nodes[node].orders.is_empty()).collect();
    let node = rng.below(nodes as u64) as usize;
    match rng.below(40) {
        0 | 1 => {
            let running: Vec<usize> = (0..nodes).filter(|&node| cluster.runs(node)).collect();
            let fate = [Fate::Delivered, Fate::Lost, Fate::Postponed][rng.below(3) as usize];
            cluster.views_are(random_groups(rng, &running), fate);
        }
        2 if cluster.runs(node) && !cluster.is_stale(node) => cluster.stop(node, rng.chance(0.5)),
        3..=5 if cluster.nodes[node].life != Life::Runs => cluster.start(node),
        6 | 7 if cluster.runs(node) => {
            let ok = rng.chance(0.7);
            cluster.set_health(node, ok);
        }
        8..=10 if cluster.runs(node) && !cluster.is_stale(node) => {
            let command = random_command(rng, nodes, sets);
            cluster.input(node, Input::Command { id: 1, command });
        }
        _ if cluster.is_idle() => {
            if let Some(at) = cluster.next(HORIZON) {
                return cluster.pass(at);
            }
        }
        _ if !logs.is_empty() && (told.is_empty() || rng.chance(0.5)) => {
            cluster.deliver(logs[rng.below(logs.len() as u64) as usize]);
        }
        _ if !told.is_empty() => cluster.obey(told[rng.below(told.len() as u64) as usize]),
        _ => {}
    }
    Ok(())
}

fn live(seed: u64) -> Result<(), String> {
    let mut rng = Rng::from_u64(seed);
    let (nodes, sets) = (2 + rng.below(4) as usize, 1 + rng.below(8) as usize);
    let settings = random_settings(&mut rng, nodes, sets);
    let mut cluster = together(nodes, settings);
    for _ in 0..300 {
        step(&mut rng, &mut cluster, sets)?;
    }
    // At last all run, are together and healthy, and come to rest.
    for node in 0..nodes {
        cluster.start(node);
        cluster.set_health(node, true);
    }
    cluster.views_are(vec![(0..nodes).collect()], Fate::Delivered);
    cluster.settle(Duration::from_millis(250))
}

#[test]
fn whatever_happens_every_set_is_answered_for_once() {
    for seed in 0..400 {
        live(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn coverage_by_majority_is_one_in_all() {
    for seed in 0..100 {
        let mut rng = Rng::from_u64(seed);
        let mut settings = settings(0, 5, 3);
        settings.sets.iter_mut().for_each(|set| set.coverage = Coverage::Majority);
        let mut cluster = together(5, settings);
        for _ in 0..10 {
            cluster.views_are(random_groups(&mut rng, &[0, 1, 2, 3, 4]), Fate::Lost);
            cluster.settle(HORIZON).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            for set in 0..3 {
                for group in &cluster.groups {
                    let answering = group.nodes.iter().filter(|&&node| cluster.answers(node, set)).count();
                    assert_eq!(answering, usize::from(group.nodes.len() >= 3), "seed {seed}: {:?}", group.nodes);
                }
            }
        }
    }
}
