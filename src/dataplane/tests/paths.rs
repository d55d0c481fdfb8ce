//! Two shards joined by one link over several paths.

use super::identity;
use super::net::{PORT, SESSION, node};
use crate::base::{AddressPair, Class, Instant, LinkId, Rng, WallTime, Worker};
use crate::containers::Batch;
use crate::dataplane::messages::{Command, LinkReport, LinkSpec, MoveReason, PathSpec, Report, SessionKind};
use crate::dataplane::{Readiness, Shard, ShardSettings};
use crate::forwarding::Table;
use crate::proto::link::Settings;
use crate::wire::client::{Endpoint, MAX_RECORD, Record};
use crate::wire::cursor::Writer;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const LINK: LinkId = LinkId(0);
const PATHS: usize = 2;
/// Of a third party's own.
const RELAY: [u8; 4] = [198, 51, 100, 66];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ip(router: usize, path: usize) -> IpAddr {
    [10, path as u8, 0, router as u8 + 1].into()
}

fn pair(router: usize, path: usize) -> AddressPair {
    AddressPair { local: Some(ip(router, path)), remote: SocketAddr::new(ip(1 - router, path), 5300) }
}

/// A datagram on its way to a router, by a path.
struct Flight {
    to: usize,
    from: AddressPair,
    bytes: Vec<u8>,
}

struct Two {
    now: Instant,
    shards: [Shard; 2],
    /// Of each path.
    delay: [Duration; PATHS],
    /// By path and receiving router.
    cut: [[bool; 2]; PATHS],
    flights: BTreeMap<(Instant, u64), Flight>,
    launched: u64,
    /// Somebody sends everything again from his own address, ahead of the original, and what is sent to him goes on or not.
    relayed: Option<bool>,
    /// Datagrams that were sent to him.
    lured: usize,
    reports: [Vec<(Instant, Report)>; 2],
    /// What arrived at router 1's application, and when.
    arrived: Vec<(Instant, u32)>,
    sent: u32,
    /// Router 0's session takes more.
    ready: bool,
}

impl Two {
    fn new(delays: [u64; PATHS]) -> Two {
        let shards = [0, 1].map(|router| {
            let settings = ShardSettings {
                identity: identity(router),
                worker: Worker::SOLE,
                pool: 2048,
                security: Default::default(),
                sessions: Default::default(),
            };
            Shard::new(settings, WallTime::from_nanos(1 << 40), Rng::from_u64(router as u64))
        });
        let mut two = Two {
            now: Instant::from_millis(1),
            shards,
            delay: delays.map(ms),
            cut: [[false; 2]; PATHS],
            flights: BTreeMap::new(),
            launched: 0,
            relayed: None,
            lured: 0,
            reports: [Vec::new(), Vec::new()],
            arrived: Vec::new(),
            sent: 0,
            ready: true,
        };
        for router in 0..2 {
            let paths = (0..PATHS).map(|path| pair(router, path).into()).collect();
            let peer = identity(1 - router).public();
            let spec = LinkSpec { peer, preshared_key: None, paths, asks: true, settings: Settings::default() };
            two.command(router, Command::AddLink(LINK, Box::new(spec)));
            two.command(router, Command::OpenSession(SESSION, SessionKind::Datagram { port: PORT }));
            let table = Table::new(node(router), 1, [(node(1 - router), LINK)]);
            two.command(router, Command::InstallTable(Arc::new(table)));
        }
        two.run(1000);
        assert_eq!((two.changes(0), two.changes(1)), (vec![true], vec![true]), "the link is up");
        two
    }

    fn command(&mut self, router: usize, command: Command) {
        self.shards[router].handle_command(self.now, command);
    }

    fn set_paths(&mut self, router: usize, paths: &[PathSpec]) {
        self.command(router, Command::SetPaths(LINK, paths.to_vec()));
    }

    /// Lets time pass.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += ms(1);
            let later = self.flights.split_off(&(self.now + Duration::from_nanos(1), 0));
            for (_, mut flight) in std::mem::replace(&mut self.flights, later) {
                self.shards[flight.to].handle_datagram(self.now, flight.from, &mut flight.bytes);
            }
            (0..2).for_each(|router| self.turn(router));
        }
    }

    fn turn(&mut self, router: usize) {
        let (now, shard) = (self.now, &mut self.shards[router]);
        shard.handle_timeout(now);
        self.ready |= router == 0 && shard.poll_readable().is_some();
        let mut record = vec![0; MAX_RECORD];
        while let Some((session, len)) = shard.poll_deliver(now, &mut record) {
            if let Ok(Record::Datagram { bytes, .. }) = Record::parse(&record[..len]) {
                let number = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
                self.arrived.push((now, number));
            }
            shard.delivered(now, session);
        }
        let mut batch = Batch::new(64);
        loop {
            batch.clear();
            shard.poll_transmit(now, &mut batch);
            if batch.is_empty() {
                break;
            }
            for (transmit, bytes) in batch.iter() {
                let AddressPair { local, remote } = transmit.to;
                let IpAddr::V4(there) = remote.ip() else { panic!("all addresses are IPv4") };
                let (to, from) = (1 - router, |ip| AddressPair { local: None, remote: SocketAddr::new(ip, 5300) });
                let mut launch = |at, from| {
                    self.launched += 1;
                    let flight = Flight { to, from, bytes: bytes.to_vec() };
                    self.flights.insert((at, self.launched), flight);
                };
                if there.octets() == RELAY {
                    self.lured += 1;
                    if self.relayed == Some(true) {
                        launch(now + ms(1), from(RELAY.into()));
                    }
                    continue;
                }
                let path = usize::from(there.octets()[1]);
                assert_eq!(local, Some(ip(router, path)), "it leaves from the path's own address");
                if self.relayed.is_some() {
                    launch(now + ms(1), from(RELAY.into()));
                }
                if !self.cut[path][to] {
                    launch(now + self.delay[path], AddressPair { local: Some(ip(to, path)), ..from(ip(router, path)) });
                }
            }
        }
        self.reports[router].extend(std::iter::from_fn(|| shard.poll_report()).map(|report| (now, report)));
    }

    /// Router 0's application sends a reliable message every millisecond, as long as they are taken.
    fn talk(&mut self, millis: u64) {
        for _ in 0..millis {
            if !self.ready {
                self.run(1);
                continue;
            }
            let to = Endpoint { node: node(1), port: PORT };
            let bytes = self.sent.to_be_bytes();
            self.sent += 1;
            let mut room = vec![0; MAX_RECORD];
            let mut writer = Writer::new(&mut room);
            let record = Record::Send { class: Class::Reliable, ordered: false, ttl: 0, to, bytes: &bytes };
            record.emit(&mut writer).expect("the buffer holds any record");
            self.ready = self.shards[0].handle_record(self.now, SESSION, writer.written()) == Readiness::Ready;
            self.run(1);
        }
    }

    fn cut(&mut self, path: usize, cut: bool) {
        self.cut[path] = [cut; 2];
    }

    fn link(&self, router: usize) -> LinkReport {
        self.shards[router].stats(self.now).links[0].clone()
    }

    /// By which of its listed paths a router sends.
    fn active(&self, router: usize) -> Option<usize> {
        let active = self.link(router).paths.into_iter().find(|path| path.active).expect("one is active");
        (0..PATHS).find(|&path| pair(router, path) == active.pair)
    }

    /// Ups and downs that a router reported.
    fn changes(&self, router: usize) -> Vec<bool> {
        let change = |report: &(Instant, Report)| match report.1 {
            Report::LinkUp(..) => Some(true),
            Report::LinkDown(..) => Some(false),
            _ => None,
        };
        self.reports[router].iter().filter_map(change).collect()
    }

    /// Why a router moved, and when.
    fn moves(&self, router: usize) -> Vec<(Instant, MoveReason)> {
        let moved = |&(at, ref report): &(Instant, Report)| match *report {
            Report::LinkMoved(_, _, reason) => Some((at, reason)),
            _ => None,
        };
        self.reports[router].iter().filter_map(moved).collect()
    }

    /// Every message arrived once, and the link was never down.
    fn complete(&self) {
        let distinct: BTreeSet<u32> = self.arrived.iter().map(|&(_, number)| number).collect();
        assert_eq!((self.arrived.len(), distinct.len()), (self.sent as usize, self.sent as usize));
        assert_eq!((self.changes(0), self.changes(1)), (vec![true], vec![true]), "never down");
    }

    /// The longest time between two arrivals.
    fn outage(&self) -> Duration {
        self.arrived.windows(2).map(|pair| pair[1].0.since(pair[0].0)).max().unwrap_or_default()
    }
}

#[test]
fn the_best_path_is_used_and_both_ends_measure_all() {
    let mut two = Two::new([20, 5]);
    two.run(5000);
    for router in 0..2 {
        let paths = two.link(router).paths;
        assert_eq!((two.active(router), paths.len()), (Some(1), 2), "{paths:?}");
        let rtts: Vec<_> = paths.iter().map(|path| path.rtt_us.expect("measured") / 1000).collect();
        assert!((40..43).contains(&rtts[0]) && (10..13).contains(&rtts[1]), "{rtts:?}");
        assert!(paths.iter().all(|path| path.up && path.listed && path.loss_ppm == 0), "{paths:?}");
    }
    two.set_paths(0, &[pair(0, 0).into(), PathSpec { pair: pair(0, 1), cost: ms(100) }]);
    two.run(3000);
    assert_eq!((two.active(0), two.active(1)), (Some(0), Some(1)), "each end for what it sends");
    assert!(two.link(0).stats.hellos_out > 2 * 8 * 20, "by both paths");
    assert_eq!(two.changes(0), [true]);
}

#[test]
fn nothing_is_lost_when_the_active_path_is_cut_in_mid_stream() {
    for both_ways in [true, false] {
        let mut two = Two::new([5, 20]);
        two.talk(3000);
        assert_eq!((two.active(0), two.active(1)), (Some(0), Some(0)));
        assert!(two.outage() <= ms(2));
        two.cut[0] = [both_ways, true];
        let cut_at = two.now;
        two.talk(2000);
        two.run(500);
        two.complete();
        let dead = Settings::default().dead;
        // One round trip by the new path: the repetition's way there is half of it.
        assert!(two.outage() <= dead + ms(40), "{:?}", two.outage());
        assert_eq!((two.active(0), two.active(1)), (Some(1), Some(1)));
        let (moved, reason) = *two.moves(0).last().expect("it moved");
        assert!(matches!(reason, MoveReason::Dead(_)) && moved.since(cut_at) <= dead + ms(10), "{reason:?}");
        let stats = two.link(0).stats;
        assert!(stats.needless_retransmissions <= 20, "{stats:?}");
    }
}

#[test]
fn a_path_whose_carrier_is_lost_is_left_within_a_round_trip_and_no_other() {
    let mut two = Two::new([5, 20]);
    two.talk(3000);
    two.command(0, Command::CarrierLost([ip(0, 1)].into()));
    two.talk(500);
    assert!(two.moves(0).is_empty() && two.active(0) == Some(0), "it sends from another address");
    two.cut(0, true);
    two.command(0, Command::CarrierLost([ip(0, 0)].into()));
    let cut_at = two.now;
    two.talk(40);
    assert_eq!((two.active(0), two.active(1)), (Some(1), Some(0)), "the other end has not noticed yet");
    two.command(0, Command::CarrierLost([ip(0, 0)].into()));
    two.talk(1500);
    two.run(500);
    two.complete();
    // After a round trip, the slack of a verdict, and the way by the new path. Acknowledgements come by the dead one still, so
    // that a first window is all that passes before the other end notices too.
    let heard = |&&(at, _): &&(Instant, u32)| at.since(cut_at) > two.delay[0] && at.since(cut_at) <= ms(45);
    assert!((1..40).contains(&two.arrived.iter().filter(heard).count()), "{:?}", two.outage());
    assert_eq!((two.moves(0).len(), two.active(0), two.active(1)), (1, Some(1), Some(1)));
}

#[test]
fn a_path_that_comes_back_is_used_again_when_it_has_been_better_for_long_enough() {
    let mut two = Two::new([5, 20]);
    two.talk(3000);
    two.cut(0, true);
    two.talk(1000);
    two.cut(0, false);
    let mended = two.now;
    two.talk(6000);
    two.run(500);
    two.complete();
    let (moved, reason) = *two.moves(0).last().expect("it moved back");
    assert_eq!((two.active(0), reason), (Some(0), MoveReason::Better));
    let waited = moved.since(mended);
    assert!((ms(4000)..ms(4400)).contains(&waited), "twice as long as if it had not died: {waited:?}");
    let lost = two.link(0).stats.packets_lost;
    two.cut(1, true);
    two.talk(1000);
    two.run(100);
    two.complete();
    assert_eq!(two.link(0).stats.packets_lost, lost, "nobody misses a path that carries nothing");
}

#[test]
fn the_link_is_down_only_when_all_paths_are_and_up_with_the_first() {
    let mut two = Two::new([5, 20]);
    two.run(2000);
    two.cut(0, true);
    two.run(500);
    assert_eq!(two.changes(0), [true]);
    two.cut(1, true);
    two.run(500);
    assert_eq!((two.changes(0), two.changes(1)), (vec![true, false], vec![true, false]));
    two.cut(1, false);
    two.run(300);
    assert_eq!((two.changes(0), two.changes(1)), (vec![true, false, true], vec![true, false, true]));
    assert_eq!(two.active(0), Some(1));
    two.talk(100);
    two.run(100);
    assert_eq!(two.arrived.len(), 100);
}

#[test]
fn keys_are_asked_for_by_a_path_that_works() {
    let mut two = Two::new([5, 20]);
    two.cut(0, true);
    two.run(2000);
    assert_eq!((two.changes(0), two.active(0)), (vec![true], Some(1)));
    let spec = |router: usize| {
        let paths = (0..PATHS).map(|path| pair(router, path).into()).collect();
        LinkSpec {
            peer: identity(1 - router).public(),
            preshared_key: None,
            paths,
            asks: true,
            settings: Settings::default(),
        }
    };
    two.command(0, Command::AddLink(LINK, Box::new(spec(0))));
    two.run(1500);
    assert_eq!(two.changes(0).last(), Some(&true), "a new life, begun over the second path");
}

#[test]
fn who_repeats_or_relays_packets_does_not_get_the_link() {
    for goes_on in [false, true] {
        let mut two = Two::new([5, 20]);
        two.talk(3000);
        two.relayed = Some(goes_on);
        two.talk(2000);
        two.relayed = None;
        two.run(500);
        two.complete();
        assert_eq!((two.active(0), two.active(1)), (Some(0), Some(0)), "goes on: {goes_on}");
        assert!(two.moves(0).iter().chain(&two.moves(1)).all(|&(_, reason)| reason == MoveReason::Better));
        assert!((1..=200).contains(&two.lured), "hellos: {}", two.lured);
        two.run(2000);
        assert_eq!(two.link(1).paths.len(), 2, "and he is forgotten");
    }
}

#[test]
fn paths_come_and_go_while_the_link_stays_up() {
    let mut two = Two::new([5, 20]);
    two.talk(3000);
    for router in 0..2 {
        two.set_paths(router, &[pair(router, 1).into()]);
    }
    two.talk(1000);
    assert_eq!((two.active(0), two.active(1)), (Some(1), Some(1)));
    assert_eq!(two.moves(0).last().map(|moved| moved.1), Some(MoveReason::Unlisted));
    for router in 0..2 {
        two.set_paths(router, &[pair(router, 1).into(), pair(router, 0).into()]);
    }
    two.talk(4000);
    two.run(200);
    two.complete();
    assert_eq!((two.active(0), two.active(1)), (Some(0), Some(0)));
}
