//! Four routers in a row, with a lossy link in the middle.

use crate::support::{Machine, io_test, json, run, started};
use crate::traffic::{carry, exactly_once, noise};
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{Topology, World};

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
    run(a, "ping d -c 5 -i 20ms", 0);
    shown(&world);
}

/// Where time went on the lossy link, as its end sees it.
fn shown(world: &World) {
    let (b, c) = (world.router("b"), world.router("c"));
    let worker = json(b, "show stats --json")["workers"][0].clone();
    assert!(worker["turn"]["count"].as_u64() > Some(1000), "{}", worker["turn"]);
    let to_c = c.public().node_id().to_string();
    let links = worker["links"].as_array().expect("a list");
    let figures = &links.iter().find(|link| link["peer"] == to_c).expect("b has a link to c")["stats"];
    let names = "recovery_reliable gap_reliable queue_delay_best_effort queue_delay_reliable round_trip one_way";
    let text = String::from_utf8(run(b, "show stats", 0).stdout).expect("text");
    for name in names.split(' ') {
        let summary = &figures[name];
        assert!(summary["count"].as_u64() > Some(0) && summary["p99_us"].as_f64() > Some(0.0), "{name}: {summary}");
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
    }
    // What was lost had to go round once more.
    assert!(figures["recovery_reliable"]["p50_us"].as_f64() > figures["round_trip"]["p50_us"].as_f64(), "{figures}");
    let links = json(b, "show links --json");
    let link = links["links"].as_array().into_iter().flatten().find(|link| link["peer"] == "c").expect("is shown");
    for name in ["one_way_us", "one_way_error_us", "queue", "queue_delay_p99_us", "recovery_p99_us"] {
        assert!(link[name].is_number(), "{name}: {link}");
    }
}
