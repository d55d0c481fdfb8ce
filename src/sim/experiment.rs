//! The published experiment on virtual wires, for `sinew lab --sim`.

use super::check;
use super::topology::{LinkSettings, Topology};
use super::wire::{Conditions, WireCounts};
use super::workload::{Arrival, Flow, Kind, Spec};
use super::world::World;
use crate::base::Instant;
use crate::dataplane::messages::LinkReport;
use std::time::Duration;

/// How long routers may take to find each other.
const CONVERGENCE: Instant = Instant::from_millis(30_000);
/// From look to look whether something has come about.
const STEP: Duration = Duration::from_millis(50);

/// A network, and one flow across it.
#[derive(Clone, Debug)]
pub struct Course {
    /// The routers and their links.
    pub topology: Topology,
    /// Each link's wires, in the order of the topology's links: from the smaller number to the larger, and back.
    pub wires: Vec<[Conditions; 2]>,
    /// The sender's router.
    pub from: usize,
    /// The receiver's router.
    pub to: usize,
    /// What the flow carries.
    pub kind: Kind,
    /// Bytes of a message.
    pub size: usize,
    /// Time between messages.
    pub interval: Duration,
    /// The run's seed.
    pub seed: u64,
}

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

/// What a flow showed.
#[derive(Clone, Debug)]
pub struct Measured {
    /// When the first message was due.
    pub start: Instant,
    /// The messages that arrived, in that order.
    pub arrivals: Vec<Arrival>,
    /// Messages sent.
    pub sent: u32,
    /// What went into each link meanwhile, in the order of the topology: from the smaller number, and back.
    pub links: Vec<[Carried; 2]>,
    /// What each router counted meanwhile.
    pub routers: Vec<Counted>,
    /// A rule that was broken, if one was.
    pub violation: Option<String>,
}

/// What went into a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes, headers of IP and UDP included.
    pub bytes: u64,
    /// Of these, datagrams that the wire lost: by chance, for want of room in its queue, or cut.
    pub lost: u64,
    /// Copies that arrived in addition.
    pub doubled: u64,
    /// Datagrams and copies that arrived.
    pub arrived: u64,
}

/// What a router counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Datagrams sent.
    pub datagrams: u64,
    /// Messages originated by its sessions, and forwarded.
    pub transmissions: u64,
    /// Each of its links.
    pub links: Vec<CountedLink>,
}

/// What a router counted of a link of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedLink {
    /// The router at the other end.
    pub to: usize,
    /// Recovered messages (reliable and control) sent for the first time.
    pub recovered: u64,
    /// Those sent again.
    pub retransmissions: u64,
    /// Of these, messages whose earlier copy had arrived.
    pub needless_retransmissions: u64,
}

impl Counted {
    fn of(world: &World, router: usize) -> Counted {
        // The routers of an experiment have one worker.
        let Some([stats]) = world.stats(router).and_then(|stats| <[_; 1]>::try_from(stats).ok()) else {
            return Counted::default();
        };
        let link = |link: &LinkReport| {
            Some(CountedLink {
                to: world.number(link.peer)?,
                recovered: link.stats.reliable.sent + link.stats.control.sent,
                retransmissions: link.stats.retransmissions,
                needless_retransmissions: link.stats.needless_retransmissions,
            })
        };
        Counted {
            datagrams: stats.datagrams_out,
            transmissions: stats.originated + stats.forwarded,
            links: stats.links.iter().filter_map(link).collect(),
        }
    }

    fn since(mut self, then: &Counted) -> Counted {
        self.datagrams -= then.datagrams;
        self.transmissions -= then.transmissions;
        for link in &mut self.links {
            let Some(then) = then.links.iter().find(|then| then.to == link.to) else { continue };
            link.recovered -= then.recovered;
            link.retransmissions -= then.retransmissions;
            link.needless_retransmissions -= then.needless_retransmissions;
        }
        self
    }
}

/// Runs the chain until everything has arrived, at most ten minutes of virtual time after the last message was due.
pub fn run(chain: &Chain) -> Measured {
    let wire = Conditions { rate: chain.rate, ..Conditions::perfect(chain.delay) };
    let mut wires = vec![[wire; 2]; chain.hops];
    wires[(chain.hops - 1) / 2].iter_mut().for_each(|wire| wire.loss = chain.loss);
    let Chain { kind, size, interval, seed, hops, messages, .. } = *chain;
    let course = Course { topology: Topology::chain(hops), wires, from: 0, to: hops, kind, size, interval, seed };
    paced(&course, messages).expect("a faultless chain converges within 30 s")
}

/// Sends so many messages and waits until they have arrived, at most ten minutes of virtual time after the last was due.
/// The error says why the routers did not find each other.
pub fn paced(course: &Course, messages: u32) -> Result<Measured, String> {
    let mut begun = Begun::new(course, messages)?;
    let world = &mut begun.world;
    let end = begun.start + course.interval * messages + Duration::from_secs(600);
    world.run_while(end, STEP, |world| check::delivered(world).is_ok());
    world.run_until(world.now() + Duration::from_secs(1));
    Ok(begun.measured(course))
}

/// Sends as fast as the network takes it, at most a message every interval, for so long.
/// The error says why the routers did not find each other.
pub fn bulk(course: &Course, duration: Duration) -> Result<Measured, String> {
    let messages = duration.as_nanos() / course.interval.as_nanos().max(1);
    let mut begun = Begun::new(course, u32::try_from(messages).unwrap_or(u32::MAX))?;
    begun.world.run_until(begun.start + duration);
    Ok(begun.measured(course))
}

/// A network whose routers have found each other, and its flow.
struct Begun {
    world: World,
    start: Instant,
    before: Vec<[Carried; 2]>,
    counted: Vec<Counted>,
}

impl Begun {
    fn new(course: &Course, messages: u32) -> Result<Begun, String> {
        let links = &course.topology.links;
        assert_eq!(links.len(), course.wires.len(), "every link has its wires");
        let calm = Conditions::perfect(Duration::from_millis(1));
        let mut world = World::new(course.topology.clone(), LinkSettings::default(), calm, course.seed);
        for (&(a, b), &[forward, back]) in links.iter().zip(&course.wires) {
            // Faults come when all is set up; what is cut was never there.
            for (from, to, wire) in [(a, b, forward), (b, a, back)] {
                world.wire_mut(from, to).conditions = Conditions { cut: wire.cut, ..Conditions::perfect(wire.delay) };
            }
        }
        world.run_while(CONVERGENCE, STEP, |world| check::converged(world).is_ok());
        check::converged(&world)?;
        for (&(a, b), &[forward, back]) in links.iter().zip(&course.wires) {
            world.wire_mut(a, b).conditions = forward;
            world.wire_mut(b, a).conditions = back;
        }
        let start = world.now() + Duration::from_millis(1000);
        let Course { kind, from, to, size, interval, .. } = *course;
        let spec = Spec { kind, from, to, port: 7, messages, size, interval, start, leaves: false };
        let before = carried(&world, course);
        let counted = (0..course.topology.routers).map(|router| Counted::of(&world, router)).collect();
        world.add_flow(Flow::new(0, spec));
        Ok(Begun { world, start, before, counted })
    }

    fn measured(&self, course: &Course) -> Measured {
        let less = |now: Carried, then: Carried| Carried {
            datagrams: now.datagrams - then.datagrams,
            bytes: now.bytes - then.bytes,
            lost: now.lost - then.lost,
            doubled: now.doubled - then.doubled,
            arrived: now.arrived - then.arrived,
        };
        let after = carried(&self.world, course);
        let links = after.iter().zip(&self.before).map(|(now, then)| [less(now[0], then[0]), less(now[1], then[1])]);
        let routers = self.counted.iter().enumerate();
        let routers = routers.map(|(router, then)| Counted::of(&self.world, router).since(then));
        Measured {
            start: self.start,
            arrivals: self.world.flows()[0].arrivals().to_vec(),
            sent: self.world.flows()[0].sent_count(),
            links: links.collect(),
            routers: routers.collect(),
            violation: check::sound(&self.world).err(),
        }
    }
}

fn carried(world: &World, course: &Course) -> Vec<[Carried; 2]> {
    let of = |from, to| {
        let counts = world.wire(from, to).counts;
        let WireCounts { sent, bytes, lost, doubled, arrived } = counts;
        Carried { datagrams: sent, bytes, lost, doubled, arrived }
    };
    course.topology.links.iter().map(|&(a, b)| [of(a, b), of(b, a)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_that_cannot_find_each_other_are_named() {
        let mut cut = Conditions::perfect(Duration::from_millis(1));
        cut.cut = true;
        let course = Course {
            topology: Topology::chain(1),
            wires: vec![[cut; 2]],
            from: 0,
            to: 1,
            kind: Kind::Stream,
            size: 100,
            interval: Duration::from_millis(10),
            seed: 1,
        };
        assert!(paced(&course, 1).is_err_and(|why| why.contains("r0") && why.contains("r1")));
    }

    #[test]
    fn a_wire_that_counts_from_the_start_adds_no_time_for_length() {
        let slow = Conditions { rate: Some(1_000_000), ..Conditions::perfect(Duration::from_millis(20)) };
        let mut latencies = Vec::new();
        for wire in [slow, Conditions { taken_up: true, ..slow }] {
            let course = Course {
                topology: Topology::chain(1),
                wires: vec![[wire; 2]],
                from: 0,
                to: 1,
                kind: Kind::BestEffort,
                size: 1000,
                interval: Duration::from_millis(50),
                seed: 1,
            };
            let measured = paced(&course, 1).expect("they find each other");
            latencies.push(measured.arrivals[0].latency.as_secs_f64() * 1e3);
        }
        // A little over 1,000 bytes take a little over 8 ms.
        assert!((28.0..30.0).contains(&latencies[0]) && (20.0..20.5).contains(&latencies[1]), "{latencies:?}");
    }
}
