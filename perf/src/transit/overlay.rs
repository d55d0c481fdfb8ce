//! Two neighbours of the overlay in the calling thread, with the router under test between them or none.

use crate::neighbour::{self, Neighbour};
use crate::net::{self, Port};
use crate::path::Path;
use crate::router::{Router, Setup};
use sinew::base::{Class, Identity, Instant, NodeId};
use sinew::config::settings::{Congestion, Link, Member};
use sinew::runtime::clock::{self, Clock};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A network that has no routes by then will not get any.
const PATIENCE: Duration = Duration::from_secs(10);
/// Turns between looks at what comes back to the source: acknowledgements.
const LOOK_BACK: u64 = 4;

/// The neighbours.
pub(crate) struct Overlay {
    source: Neighbour,
    sink: Neighbour,
    to: NodeId,
    class: Class,
    turns: u64,
}

/// Who is who in a network of two neighbours and a router.
struct Cast {
    identities: [Identity; 3],
    members: Vec<Member>,
    addresses: [SocketAddr; 3],
}

const NAMES: [&str; 3] = ["a", "b", "r"];

impl Cast {
    fn new() -> io::Result<Cast> {
        let mut rng = clock::seeded_rng()?;
        let mut identity = || {
            let mut seed = [0; 32];
            rng.fill(&mut seed);
            Identity::from_seed(seed)
        };
        let identities = [identity(), identity(), identity()];
        let member = |(name, identity): (&&str, &Identity)| Member {
            name: (*name).into(),
            public: identity.public().to_string(),
        };
        let members = NAMES.iter().zip(&identities).map(member).collect();
        let addresses = [net::free_address()?, net::free_address()?, net::free_address()?];
        Ok(Cast { identities, members, addresses })
    }

    /// Neighbour `who`, linked to `peer`.
    fn neighbour(&self, now: Instant, who: usize, peer: usize, congestion: Congestion) -> io::Result<Neighbour> {
        let (listen, remote) = (self.addresses[who], self.addresses[peer]);
        let link = Link { congestion, ..Link::new(NAMES[peer].into(), Some(remote)) };
        let port = Port::new(net::open(listen)?, remote)?;
        let config = neighbour::config(NAMES[who], listen, &self.members, link);
        Neighbour::new(now, &self.identities[who], config, port)
    }
}

impl Overlay {
    /// Neighbours with a router between them, and the router.
    pub(crate) fn through(clock: Clock, setup: &Setup<'_>, congestion: Congestion) -> io::Result<(Overlay, Router)> {
        let cast = Cast::new()?;
        let neighbours = [(NAMES[0], cast.addresses[0]), (NAMES[1], cast.addresses[1])];
        let router = Router::start(setup, &cast.identities[2], &cast.members, cast.addresses[2], &neighbours)?;
        let overlay = Overlay::new(clock, &cast, [2, 2], congestion);
        let overlay = overlay.map_err(|error| io::Error::other(format!("{error}\n{}", router.log())))?;
        Ok((overlay, router))
    }

    /// Neighbours with a link between them.
    pub(crate) fn direct(clock: Clock, congestion: Congestion) -> io::Result<Overlay> {
        Overlay::new(clock, &Cast::new()?, [1, 0], congestion)
    }

    fn new(clock: Clock, cast: &Cast, peers: [usize; 2], congestion: Congestion) -> io::Result<Overlay> {
        let now = clock.now();
        let source = cast.neighbour(now, 0, peers[0], congestion)?;
        let sink = cast.neighbour(now, 1, peers[1], congestion)?;
        let to = sink.node();
        let mut overlay = Overlay { source, sink, to, class: Class::BestEffort, turns: 0 };
        while !(overlay.source.reaches(to) && overlay.sink.reaches(overlay.source.node())) {
            if clock.now().since(now) > PATIENCE {
                return Err(io::Error::other("the neighbours found no route to each other"));
            }
            overlay.turn(clock.now(), &mut |_| {});
        }
        Ok(overlay)
    }

    /// What the messages are, and whether each leaves the source in a datagram of its own.
    pub(crate) fn set(&mut self, class: Class, split: bool) {
        self.class = class;
        self.source.set_split(split);
    }

    /// The ids of source and sink.
    pub(crate) fn nodes(&self) -> (NodeId, NodeId) {
        (self.source.node(), self.to)
    }
}

impl Path for Overlay {
    fn send(&mut self, now: Instant, message: &[u8]) -> bool {
        self.source.send(now, self.to, self.class, message)
    }

    fn turn(&mut self, now: Instant, arrived: &mut dyn FnMut(&[u8])) {
        self.source.flush(now);
        self.sink.receive(now, arrived);
        self.sink.flush(now);
        self.turns += 1;
        if self.turns.is_multiple_of(LOOK_BACK) {
            self.source.receive(now, &mut |_| {});
        }
        self.source.tick(now);
        self.sink.tick(now);
    }

    fn buffer(&self) -> usize {
        self.source.buffer().min(self.sink.buffer())
    }
}
