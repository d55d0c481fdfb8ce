//! Behaviours of a shard beside others, without control.

mod crossing;
mod net;
mod paths;
mod transit;

use super::messages::{Command, LinkSpec, PathSpec, Report, Stranger};
use super::{Shard, ShardSettings};
use crate::base::{AddressPair, Identity, Instant, LinkId, Obstacle, Rng, WallTime, Worker};
use crate::containers::Batch;
use crate::proto::link;
use std::net::SocketAddr;
use std::time::Duration;

const LINK: LinkId = LinkId(0);

fn identity(router: usize) -> Identity {
    Identity::from_seed([router as u8 + 1; 32])
}

fn address(router: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, router as u8 + 1], 5300))
}

fn path(router: usize) -> PathSpec {
    AddressPair::from(address(router)).into()
}

/// Two shards, 0 and 1, on a wire that delivers at once. Only 0 knows the other's address.
struct Pair {
    now: Instant,
    shards: [Option<Shard>; 2],
    /// Where each is, as the other's datagrams' receiver sees it.
    addresses: [SocketAddr; 2],
    up: [bool; 2],
    /// Where each reported the other to be, and how often it moved.
    remotes: [Option<SocketAddr>; 2],
    moves: [u32; 2],
    lives: u64,
}

impl Pair {
    fn new() -> Pair {
        let mut pair = Pair {
            now: Instant::from_millis(1),
            shards: [None, None],
            addresses: [address(0), address(1)],
            up: [false; 2],
            remotes: [None; 2],
            moves: [0; 2],
            lives: 0,
        };
        pair.start(0);
        pair.start(1);
        pair
    }

    fn start(&mut self, router: usize) {
        self.lives += 1;
        let settings = ShardSettings {
            identity: identity(router),
            worker: Worker::SOLE,
            pool: 256,
            security: Default::default(),
            sessions: Default::default(),
        };
        let mut shard = Shard::new(settings, WallTime::from_nanos(self.lives << 40), Rng::from_u64(self.lives));
        let spec = LinkSpec {
            peer: identity(1 - router).public(),
            preshared_key: None,
            paths: (router == 0).then(|| path(1)).into_iter().collect(),
            asks: true,
            settings: link::Settings::default(),
        };
        shard.handle_command(self.now, Command::AddLink(LINK, Box::new(spec)));
        self.shards[router] = Some(shard);
        self.up[router] = false;
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.carry();
            (0..2).for_each(|router| self.take_reports(router));
        }
    }

    /// Lets a millisecond pass, and nobody take reports.
    fn carry(&mut self) {
        let mut batch = Batch::new(64);
        self.now += Duration::from_millis(1);
        for router in 0..2 {
            let Some(shard) = &mut self.shards[router] else { continue };
            shard.handle_timeout(self.now);
            batch.clear();
            shard.poll_transmit(self.now, &mut batch);
            let Some(other) = &mut self.shards[1 - router] else { continue };
            // What is sent to where a neighbour was is lost.
            let there = self.addresses[1 - router];
            for (_, bytes) in batch.iter().filter(|(transmit, _)| transmit.to.remote == there) {
                other.handle_datagram(self.now, self.addresses[router], &mut bytes.to_vec());
            }
        }
    }

    fn take_reports(&mut self, router: usize) {
        let Some(shard) = &mut self.shards[router] else { return };
        while let Some(report) = shard.poll_report() {
            match report {
                Report::LinkUp(_, remote, ..) => (self.up[router], self.remotes[router]) = (true, Some(remote)),
                Report::LinkDown(..) => self.up[router] = false,
                Report::LinkMoved(_, path, _) => {
                    self.remotes[router] = Some(path.remote);
                    self.moves[router] += 1;
                }
                _ => {}
            }
        }
    }

    fn shard(&mut self, router: usize) -> &mut Shard {
        self.shards[router].as_mut().expect("it runs")
    }
}

#[test]
fn what_keeps_a_link_down_is_reported() {
    let mut pair = Pair::new();
    pair.shards[1] = None;
    let mut reported = Vec::new();
    for _ in 0..5_000 {
        pair.carry();
        let now = pair.now;
        pair.shard(0).handle_unreachable(now, address(1), true);
        while let Some(report) = pair.shard(0).poll_report() {
            reported.push(report);
        }
    }
    assert!(matches!(reported[..], [Report::LinkObstructed(LINK, Some(Obstacle::Refused))]), "{reported:?}");
    // An end that knows nothing of the link says who asks for it, once a second.
    pair.start(1);
    pair.shard(1).handle_command(Instant::from_millis(1), Command::RemoveLink(LINK));
    let mut strangers = 0;
    for _ in 0..5_000 {
        pair.carry();
        while let Some(report) = pair.shard(1).poll_report() {
            strangers += u32::from(matches!(report, Report::Stranger(Stranger { from, .. }) if from == address(0)));
        }
    }
    assert!((2..=5).contains(&strangers), "{strangers}");
}

#[test]
fn a_neighbour_that_only_waits_to_be_asked_is_asked_again_when_it_comes_back() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.up, [true; 2]);
    let now = pair.now;
    pair.shard(1).handle_command(now, Command::Shutdown);
    pair.run(Duration::from_millis(50));
    assert!(!pair.up[0], "it said goodbye");
    pair.shards[1] = None;
    pair.run(Duration::from_secs(2));
    pair.start(1);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.up, [true; 2], "asked anew within a retry interval or two");
}

#[test]
fn a_link_that_leaves_does_not_answer_for_the_one_in_its_place() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.up, [true; 2]);
    let (now, successor) = (pair.now, LinkId(LINK.0 + 1));
    let spec = LinkSpec {
        peer: identity(0).public(),
        preshared_key: None,
        paths: Vec::new(),
        asks: true,
        settings: link::Settings::default(),
    };
    pair.shard(1).handle_command(now, Command::RemoveLink(LINK));
    pair.shard(1).handle_command(now, Command::AddLink(successor, Box::new(spec)));
    pair.take_reports(1);
    // It asks for keys while the former link still says goodbye.
    pair.start(0);
    let mut changes = Vec::new();
    for _ in 0..1_000 {
        pair.carry();
        while let Some(report) = pair.shard(1).poll_report() {
            match report {
                Report::LinkUp(link, ..) => changes.push((link, true)),
                Report::LinkDown(link, _) => changes.push((link, false)),
                _ => {}
            }
        }
    }
    assert_eq!(changes, [(successor, true)]);
}

#[test]
fn a_link_that_flaps_does_not_fill_memory_while_control_is_busy() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.up, [true; 2]);
    let spec = LinkSpec {
        peer: identity(1).public(),
        preshared_key: None,
        paths: vec![path(1)],
        asks: true,
        settings: link::Settings::default(),
    };
    // Control does not take reports: fill the queue up with others first.
    let now = pair.now;
    (0..5000).for_each(|_| pair.shard(0).handle_command(now, Command::QueryStats));
    for _ in 0..20 {
        let now = pair.now;
        pair.shard(0).handle_command(now, Command::AddLink(LINK, Box::new(spec.clone())));
        (0..700).for_each(|_| pair.carry());
    }
    let mut changes = Vec::new();
    while let Some(report) = pair.shard(0).poll_report() {
        match report {
            Report::LinkUp(..) => changes.push(true),
            Report::LinkDown(..) => changes.push(false),
            _ => {}
        }
    }
    assert_eq!(changes, [true], "the last state alone");
}

#[test]
fn a_neighbour_that_roams_is_reported_at_its_new_address_while_its_link_stays_up() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(1));
    assert_eq!((pair.up, pair.remotes, pair.moves), ([true; 2], [Some(address(1)), Some(address(0))], [0; 2]));
    pair.addresses[0] = SocketAddr::from(([203, 0, 113, 7], 700));
    pair.run(Duration::from_millis(500));
    let (now, away) = (pair.now, Some(pair.addresses[0]));
    assert_eq!((pair.up, pair.remotes, pair.moves), ([true; 2], [Some(address(1)), away], [0, 1]));
    assert_eq!(pair.shard(1).stats(now).links[0].remote, away);
}

#[test]
fn a_neighbour_that_roams_without_end_does_not_fill_memory_while_control_is_busy() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(1));
    let now = pair.now;
    (0..5000).for_each(|_| pair.shard(1).handle_command(now, Command::QueryStats));
    let held = pair.shard(1).stats(now).reports_waiting;
    for port in 1..=20 {
        pair.addresses[0].set_port(port);
        (0..200).for_each(|_| pair.carry());
    }
    let (now, away) = (pair.now, Some(pair.addresses[0]));
    assert_eq!(pair.shard(1).stats(now).reports_waiting, held + 1);
    pair.take_reports(1);
    assert_eq!((pair.up[1], pair.remotes[1], pair.moves[1]), (true, away, 1), "the last address alone");
    // One that comes up, and then moves, before control hears of it: control hears that it is up, and where.
    let now = pair.now;
    (0..5000).for_each(|_| pair.shard(1).handle_command(now, Command::QueryStats));
    pair.start(0);
    (0..700).for_each(|_| pair.carry());
    pair.addresses[0].set_port(21);
    (0..200).for_each(|_| pair.carry());
    (pair.up[1], pair.moves[1]) = (false, 0);
    pair.take_reports(1);
    assert_eq!((pair.up[1], pair.remotes[1], pair.moves[1]), (true, Some(pair.addresses[0]), 0));
}

#[test]
fn counters_add_up_and_a_lost_packet_would_be_seen() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(1));
    let now = pair.now;
    pair.shard(0).handle_datagram(now, address(1), &mut [9; 40]);
    let stats = pair.shard(0).stats(now);
    assert_eq!(stats.balance(), Ok(()));
    assert!(stats.opened > 0 && stats.handshakes > 0 && stats.datagram_drops.total() == 1, "{stats:?}");
    let mut vanished = stats.clone();
    vanished.datagrams_in += 1;
    assert!(vanished.balance().is_err());
    let mut vanished = stats.clone();
    vanished.received += 1;
    assert!(vanished.balance().is_err());
    let mut vanished = stats;
    vanished.links[0].stats.accepted += 1;
    assert!(vanished.balance().is_err());
}
