//! Four routers in a row, with a lossy link in the middle.

use crate::support::{Machine, io_test, started};
use crate::traffic::{carry, exactly_once, noise};
use sinew::lab::conditions::Conditions;
use sinew::lab::world::Topology;

#[test]
fn over_uring() {
    io_test("chain::over_uring", "uring", Machine::Shared, lossy_middle);
}

#[test]
fn over_mmsg() {
    io_test("chain::over_mmsg", "mmsg", Machine::Shared, lossy_middle);
}

fn lossy_middle(io: &str) {
    let clean = Conditions::wire(4.0, 0);
    let mut topology = Topology::chain(3, clean);
    topology.io = io.into();
    let world = started(topology);
    world.link("b", "c").set(clean.losing(2.0));
    let (a, d) = (world.router("a"), world.router("d"));
    carry(a, d, 8000, &noise(2, 1 << 20));
    exactly_once(a, d, 1500, 300, false);
    exactly_once(d, a, 1500, 300, true);
    let (there, back) = world.link("b", "c").counters();
    assert!(there.lost > 0 && back.lost > 0, "the middle loses: {there:?} {back:?}");
}
