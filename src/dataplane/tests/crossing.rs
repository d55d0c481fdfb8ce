//! Two shards of one router, and what crosses between them.

use super::{identity, link};
use crate::base::worker::pick;
use crate::base::{Class, Instant, LinkId, Rng, SessionId, WallTime, Worker};
use crate::containers::Batch;
use crate::dataplane::messages::{Command, LinkSpec, Report, SessionKind};
use crate::dataplane::{Shard, ShardSettings};
use crate::forwarding::Table;
use crate::telemetry::DropReason;
use crate::wire::client::{Endpoint, MAX_RECORD, Record};
use crate::wire::cursor::Writer;
use crate::wire::message::{Header, Protocol};
use std::sync::Arc;

const NOW: Instant = Instant::from_millis(1);
const SESSION: SessionId = SessionId(1);

/// A worker of a router with two, whose only link has two lanes.
fn shard(worker: usize, pool: usize) -> Shard {
    let settings = ShardSettings {
        identity: identity(0),
        worker: Worker::new(worker, 2),
        pool,
        security: Default::default(),
        sessions: Default::default(),
    };
    let mut shard = Shard::new(settings, WallTime::from_nanos(1 << 40), Rng::from_u64(worker as u64));
    let (link, peer) = (LinkId(0), identity(1).public());
    let spec =
        LinkSpec { peer, preshared_key: None, paths: Vec::new(), asks: true, settings: link::Settings::default() };
    shard.handle_command(NOW, Command::AddLink(link, Box::new(spec)));
    let (node, routes) = (identity(0).public().node_id(), [(peer.node_id(), link)]);
    let table = Table::new(node, 1, routes).among(2, [(link, 2)]);
    shard.handle_command(NOW, Command::InstallTable(Arc::new(table)));
    shard
}

/// Opens a session; its port.
fn open(shard: &mut Shard) -> u16 {
    shard.handle_command(NOW, Command::OpenSession(SESSION, SessionKind::Datagram { port: 0 }));
    match shard.poll_report() {
        Some(Report::SessionOpened(SESSION, port)) => port,
        other => panic!("{other:?}"),
    }
}

/// A port at the neighbour such that the flow there from `port` here has this lane.
fn port_of_lane(port: u16, lane: usize) -> u16 {
    let header = |to| Header {
        class: Class::BestEffort,
        ttl: 9,
        mark: false,
        protocol: Protocol::Datagram,
        destination: identity(1).public().node_id(),
        source: identity(0).public().node_id(),
        destination_port: to,
        source_port: port,
    };
    (1..).find(|&to| pick(header(to).flow_hash(), 2) == lane).expect("there is one")
}

fn send(shard: &mut Shard, to: u16) {
    let to = Endpoint { node: identity(1).public().node_id(), port: to };
    let record = Record::Send { class: Class::BestEffort, ordered: false, ttl: 0, to, bytes: b"message" };
    let mut buffer = [0; 100];
    let mut writer = Writer::new(&mut buffer);
    record.emit(&mut writer).expect("fits");
    shard.handle_record(NOW, SESSION, writer.written());
}

#[test]
fn sessions_wait_for_another_worker_and_nothing_of_theirs_is_dropped() {
    let mut shard = shard(0, 1024);
    let port = open(&mut shard);
    assert!(Worker::new(0, 2).is_home_of(port));
    let elsewhere = port_of_lane(port, 1);
    (0..100).for_each(|_| send(&mut shard, elsewhere));
    let (mut crossed, mut turns, mut batch) = (0, 0, Batch::new(8));
    while crossed < 100 {
        batch.clear();
        shard.poll_transmit(NOW, &mut batch);
        let before = crossed;
        while shard.poll_crossing(1).is_some() {
            crossed += 1;
        }
        assert!((1..=33).contains(&(crossed - before)), "half of a sixteenth of the pool, and one");
        assert_eq!(shard.sessions_wait(), crossed < 100);
        turns += 1;
    }
    assert_eq!((crossed, turns), (100, 4));
    assert!(batch.is_empty() && shard.poll_crossing(0).is_none());
    assert_eq!((shard.dropped(DropReason::CrossingFull), shard.pool_in_use()), (0, 0));
    assert_eq!(shard.stats(NOW).balance(), Ok(()));
}

#[test]
fn what_crosses_is_sent_by_the_lane_it_came_for_or_ends_where_its_port_is_at_home() {
    let (mut first, mut second) = (shard(0, 1024), shard(1, 1024));
    let port = open(&mut first);
    send(&mut first, port_of_lane(port, 0));
    send(&mut first, port_of_lane(port, 1));
    first.poll_transmit(NOW, &mut Batch::new(8));
    let crossing = first.poll_crossing(1).expect("one of them has the other worker's lane");
    assert!(first.poll_crossing(1).is_none());
    second.handle_crossing(NOW, &crossing);
    // Neither lane is up.
    for shard in [&first, &second] {
        assert_eq!(shard.dropped(DropReason::LinkDown), 1);
        assert_eq!((shard.pool_in_use(), shard.stats(NOW).balance()), (0, Ok(())));
    }
    // A message for the first worker's session comes over the second's lane.
    let header = Header {
        class: Class::BestEffort,
        ttl: 9,
        mark: false,
        protocol: Protocol::Datagram,
        destination: identity(0).public().node_id(),
        source: identity(1).public().node_id(),
        destination_port: port,
        source_port: 7,
    };
    let mut message = header.to_bytes().to_vec();
    message.extend([0, 0, 0, 1, 0, 0]);
    message.extend(b"hello");
    second.receive_bytes(NOW, &message, LinkId(0));
    let crossing = second.poll_crossing(0).expect("its home is elsewhere");
    first.handle_crossing(NOW, &crossing);
    let mut record = [0; MAX_RECORD];
    assert!(first.poll_deliver(NOW, &mut record).is_some_and(|(session, _)| session == SESSION));
    assert_eq!((first.stats(NOW).crossed_in, second.stats(NOW).crossed_out), (1, 1));
    assert_eq!(second.stats(NOW).balance(), Ok(()));
}
