//! Routers with several workers.

use crate::support::{Machine, PATIENCE, eventually, io_test, links, run, say, sessions, started, stats};
use crate::traffic::{carry, datagrams, exactly_once, knock, noise, stream};
use sinew::client::admin::LinkEntry;
use sinew::lab::conditions::Conditions;
use sinew::lab::ladder::{self, Mode};
use sinew::lab::world::{Router, Topology, World};
use std::io::{Read as _, Write as _};

fn chain(io: &str, workers: &[usize]) -> World {
    let mut topology = Topology::chain(2, Conditions::wire(1.0, 0).losing(0.5));
    (topology.io, topology.workers) = (io.into(), workers.to_vec());
    started(topology)
}

/// A figure of each of a router's workers.
fn figures(router: &Router, name: &str) -> Vec<u64> {
    stats(router).iter().map(|worker| worker[name].as_u64().expect("a number")).collect()
}

/// Streams and datagrams of every sort, both ways, on ports that belong to all workers.
fn traffic(world: &World) {
    let (a, c) = (world.router("a"), world.router("c"));
    for port in 0..6 {
        carry(a, c, 8000 + port, &noise(1, 200_000));
        carry(c, a, 8000 + port, &noise(2, 100_000));
        exactly_once(a, c, 200, 300, port % 2 == 0);
        exactly_once(c, a, 200, 3000, port % 2 == 1);
    }
    run(a, "ping c -c 3 -i 20ms", 0);
}

/// Whether routers can have several workers here: a link that is a relay leads to one port only.
fn possible() -> bool {
    let possible = ladder::current().is_none_or(Mode::has_namespaces);
    if !possible {
        say("left out: routers with several workers need namespaces");
    }
    possible
}

fn two_everywhere(io: &str) {
    if !possible() {
        return;
    }
    let world = chain(io, &[2, 2, 2]);
    traffic(&world);
    let b = world.router("b");
    let forwarded = figures(b, "forwarded");
    assert!(forwarded.len() == 2 && forwarded.iter().all(|&count| count > 100), "{forwarded:?}");
    assert_eq!(figures(b, "crossed_out"), [0, 0], "what passes stays with its worker");
    assert_eq!(stats(b).iter().filter(|worker| worker["driver"]["crossings"]["peak"] != 0).count(), 0);
    let crossed = figures(world.router("c"), "crossed_in");
    assert!(crossed.iter().any(|&count| count > 0), "datagrams to a port come over both lanes: {crossed:?}");
    // Both lanes of both links of the router in the middle, and each link once for people.
    let lanes: Vec<_> = stats(b).iter().map(|worker| worker["links"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!((lanes, links(b).len()), (vec![2, 2], 2));
    killed_in_the_middle(&world);
    leaves_at_once(&world);
}

fn one_and_two(io: &str) {
    if !possible() {
        return;
    }
    for workers in [[2, 1, 2], [1, 2, 1], [2, 2, 1]] {
        let world = chain(io, &workers);
        traffic(&world);
        let crossed: u64 = figures(world.router("b"), "crossed_out").iter().sum();
        assert_eq!(crossed > 0, workers == [2, 2, 1], "{crossed} of {workers:?}");
        killed_in_the_middle(&world);
    }
}

/// A stream and reliable datagrams survive the death of the router between their ends.
fn killed_in_the_middle(world: &World) {
    let (a, b, c) = (world.router("a"), world.router("b"), world.router("c"));
    let (near, mut far, _listener) = stream(a, c, 9000);
    let (source, sink) = (datagrams(a, 0), datagrams(c, 0));
    let bytes = noise(7, 2 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&near).write_all(&bytes).expect("the stream takes everything");
            near.finish().expect("the stream finishes");
        });
        far.read_exact(&mut vec![0; 100_000]).expect("it flows");
        b.kill();
        b.start().expect("starts again");
        world.wait_ready(PATIENCE).expect("routes return");
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).expect("the stream ends well");
        assert!(rest == bytes[100_000..], "{} bytes of {} arrived", rest.len() + 100_000, bytes.len());
    });
    assert!(knock(&source, &sink, b"after"));
    drop((near, far, source, sink));
    eventually("sessions end", || (sessions(a).len() + sessions(c).len() <= 1).then_some(()));
}

/// A stop is told over every lane: nobody waits for silence.
fn leaves_at_once(world: &World) {
    let (a, b) = (world.router("a"), world.router("b"));
    assert!(b.terminate(PATIENCE).is_some_and(|status| status.success()), "{}", b.log());
    // What one worker has heard already may be known before what the other hears.
    let left = |link: &LinkEntry| !link.up && link.down_reason.as_deref() == Some("the other end left");
    eventually("a hears over every lane that b left", || left(&links(a)[0]).then_some(()));
}

#[test]
fn two_everywhere_over_uring() {
    io_test("workers::two_everywhere_over_uring", "uring", Machine::Shared, two_everywhere);
}

#[test]
fn two_everywhere_over_mmsg() {
    io_test("workers::two_everywhere_over_mmsg", "mmsg", Machine::Shared, two_everywhere);
}

#[test]
fn one_and_two_over_uring() {
    io_test("workers::one_and_two_over_uring", "uring", Machine::Shared, one_and_two);
}

#[test]
fn one_and_two_over_mmsg() {
    io_test("workers::one_and_two_over_mmsg", "mmsg", Machine::Shared, one_and_two);
}
