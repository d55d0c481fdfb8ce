//! The published experiment on virtual wires, for `sinew lab --sim`.

use super::check;
use super::topology::{LinkSettings, Topology};
use super::wire::Conditions;
use super::workload::{Arrival, Flow, Kind, Spec};
use super::world::World;
use crate::base::Instant;
use std::time::Duration;

/// A chain of routers, loss on its middle link, one flow from end to end.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// Links in a row.
    pub hops: usize,
    /// One-way delay of each.
    pub delay: Duration,
    /// Bits per second of each; none for no limit.
    pub rate: Option<u64>,
    /// Probability of loss on the middle link, each way.
    pub loss: f64,
    /// What the flow carries.
    pub kind: Kind,
    /// Bytes of a message.
    pub size: usize,
    /// Time between messages.
    pub interval: Duration,
    /// Number of messages.
    pub messages: u32,
    /// The run's seed.
    pub seed: u64,
}

/// What a chain measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The messages that arrived, in that order.
    pub arrivals: Vec<Arrival>,
    /// Messages sent.
    pub sent: u32,
    /// Bytes into each link, forward direction, headers of IP and UDP included.
    pub link_bytes: Vec<u64>,
    /// Datagrams into each link, forward direction.
    pub link_datagrams: Vec<u64>,
    /// A rule that was broken, if one was.
    pub violation: Option<String>,
}

/// Runs the chain until everything has arrived, at most ten minutes of virtual time after the last message was due.
pub fn run(chain: &Chain) -> Measured {
    let topology = Topology::chain(chain.hops);
    let wire = Conditions { rate: chain.rate, ..Conditions::perfect(chain.delay) };
    let mut world = World::new(topology, LinkSettings::default(), wire, chain.seed);
    let step = Duration::from_millis(50);
    let ready = world.run_while(Instant::from_millis(30_000), step, |world| check::converged(world).is_ok());
    assert!(ready, "a faultless chain converges within 30 s");
    let (a, b) = (chain.hops.div_ceil(2), chain.hops.div_ceil(2) - 1);
    for (from, to) in [(a, b), (b, a)] {
        world.wire_mut(from, to).conditions.loss = chain.loss;
    }
    let forward = |world: &World| -> Vec<(u64, u64)> {
        let counts = (0..chain.hops).map(|n| world.wire(n, n + 1).counts);
        counts.map(|counts| (counts.bytes, counts.sent)).collect()
    };
    let start = world.now() + Duration::from_millis(1000);
    let spec = Spec {
        kind: chain.kind,
        from: 0,
        to: chain.hops,
        port: 7,
        messages: chain.messages,
        size: chain.size,
        interval: chain.interval,
        start,
        leaves: false,
    };
    let before = forward(&world);
    let end = start + chain.interval * chain.messages + Duration::from_secs(600);
    world.add_flow(Flow::new(0, spec));
    world.run_while(end, step, |world| check::delivered(world).is_ok());
    world.run_until(world.now() + Duration::from_secs(1));
    let after = forward(&world);
    let used = before.iter().zip(&after);
    Measured {
        arrivals: world.flows()[0].arrivals().to_vec(),
        sent: world.flows()[0].sent_count(),
        link_bytes: used.clone().map(|(b, a)| a.0 - b.0).collect(),
        link_datagrams: used.map(|(b, a)| a.1 - b.1).collect(),
        violation: check::sound(&world).err(),
    }
}
