//! Routers that listen on every address, on a machine whose own addresses and routes change.

use crate::support::{Machine, eventually, io_test, links, say, started};
use crate::traffic::exactly_once;
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{LISTEN_PORT, Router, Topology, World};
use sinew::runtime::netlink::{Netlink, Route};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The addresses of the only link's ends, and the Ethernet addresses behind them, as the lab gives them.
const A: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
const MAC_A: [u8; 6] = [0x02, 0x53, 0x4e, 0, 0, 1];
const MAC_B: [u8; 6] = [0x02, 0x53, 0x4e, 0, 0, 2];
/// Addresses that a takes later, both of the link's subnet.
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 77);
const THIRD: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 78);
/// Nobody's Ethernet address: what is sent there is lost without a word.
const NOWHERE: [u8; 6] = [0x02, 0x53, 0x4e, 0, 0, 99];

#[test]
fn move_over_uring() {
    io_test("addresses::move_over_uring", "uring", Machine::Shared, addresses_move);
}

#[test]
fn move_over_mmsg() {
    io_test("addresses::move_over_mmsg", "mmsg", Machine::Shared, addresses_move);
}

fn addresses_move(io: &str) {
    let mut topology = Topology::chain(1, Conditions::wire(1.0, 0));
    topology.io = io.into();
    let world = started(topology);
    let (a, b) = (world.router("a"), world.router("b"));
    wait_at(&world, A, "at first");
    inside(b, "l0b", |netlink, index| {
        netlink.add_neighbour(index, SECOND.into(), MAC_A)?;
        netlink.add_neighbour(index, THIRD.into(), MAC_A)
    });

    // The address in use goes, with every route over it, and another one comes.
    inside(a, "l0a", |netlink, index| {
        netlink.delete_address(index, A.into(), 24)?;
        netlink.add_address(index, SECOND.into(), 24)?;
        netlink.add_neighbour(index, B.into(), MAC_B)
    });
    wait_at(&world, SECOND, "after the address was replaced");
    exactly_once(a, b, 200, 400, true);
    let log = a.log();
    let complaints = log.lines().filter(|line| line.contains("the kernel refuses to send to a neighbour"));
    let complaints: Vec<_> = complaints.collect();
    assert!((1..=2).contains(&complaints.len()), "one line for each reason:\n{log}");
    assert!(complaints.iter().all(|line| line.contains("see `ip ")), "{complaints:?}");

    // Long enough for the link to have a socket of its own again, connected from that address.
    std::thread::sleep(Duration::from_millis(1500));
    // The address in use stays, but what is sent to it is lost, and the route prefers another one: no send fails.
    inside(a, "l0a", |netlink, index| {
        netlink.add_address(index, THIRD.into(), 24)?;
        let (destination, device, source) = (B.into(), Some(index), Some(THIRD.into()));
        netlink.add_route(&Route { destination, prefix: 32, via: None, device, source })
    });
    inside(b, "l0b", |netlink, index| netlink.add_neighbour(index, SECOND.into(), NOWHERE));
    wait_at(&world, THIRD, "after the route moved to another address");
    assert!(links(a)[0].down_reason.is_some(), "nothing but silence tells of it");
    exactly_once(b, a, 200, 400, true);
}

/// Changes the network of a router.
fn inside(router: &Router, interface: &str, change: impl FnOnce(&mut Netlink, u32) -> std::io::Result<()> + Send) {
    let done = router.inside(|| {
        let mut netlink = Netlink::open()?;
        let index = netlink.index(interface)?;
        change(&mut netlink, index)
    });
    done.expect("the namespace is ours");
}

/// Waits until the link is up at both ends and b has it from a at this address.
fn wait_at(world: &World, address: Ipv4Addr, when: &str) {
    let begin = Instant::now();
    let expected = format!("{address}:{LISTEN_PORT}");
    eventually(&format!("{when}: the link is up, and a is at {expected}"), || {
        let at = links(world.router("b"))[0].remote.map(|remote| remote.to_string());
        let up = [world.router("a"), world.router("b")].iter().all(|router| links(router)[0].up);
        (up && at.as_deref() == Some(expected.as_str())).then_some(())
    });
    say(&format!("{}: {when}: up at {address} after {:?}", world.topology().io, begin.elapsed()));
}
