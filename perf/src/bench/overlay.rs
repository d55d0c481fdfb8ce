//! Two neighbours of the overlay in the calling thread, with the router under test between them or none.

use super::neighbour::{self, Neighbour};
use super::net::{self, Port};
use super::path::{Path, datagrams};
use super::router::{Router, Setup};
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

/// Bytes of a full datagram, and of what a message takes beside its body: headers of frame and message.
const DATAGRAM: usize = 1_448;
const BESIDE: usize = 27;

/// The neighbours.
pub(crate) struct Overlay {
    source: Neighbour,
    sinks: Vec<Neighbour>,
    ids: Vec<NodeId>,
    /// The sink of the next message.
    next: usize,
    class: Class,
    split: bool,
    turns: u64,
}

/// Who is who in a network of a source, a router and sinks, in this order.
pub(super) struct Cast {
    names: Vec<String>,
    identities: Vec<Identity>,
    members: Vec<Member>,
    /// Of worker 0; worker k takes the port plus k.
    addresses: Vec<SocketAddr>,
    workers: usize,
}

const SOURCE: usize = 0;
const ROUTER: usize = 1;
const FIRST_SINK: usize = 2;

impl Cast {
    pub(super) fn new(sinks: usize, workers: usize) -> io::Result<Cast> {
        let mut rng = clock::seeded_rng()?;
        let names = ["a".to_owned(), "r".to_owned()].into_iter().chain((0..sinks).map(|sink| format!("b{sink}")));
        let names: Vec<String> = names.collect();
        let identities = names.iter().map(|_| {
            let mut seed = [0; 32];
            rng.fill(&mut seed);
            Identity::from_seed(seed)
        });
        let identities: Vec<Identity> = identities.collect();
        let member = |(name, identity): (&String, &Identity)| Member {
            name: name.clone(),
            public: identity.public().to_string(),
        };
        let members = names.iter().zip(&identities).map(member).collect();
        // Drawn together: of two draws the second may be among what is to be behind the first.
        let first = net::free_address(names.len() * workers)?;
        let addresses = (0..names.len()).map(|who| net::beside(first, who * workers)).collect();
        Ok(Cast { names, identities, members, addresses, workers })
    }

    /// The router, linked to these.
    pub(super) fn router(&self, setup: &Setup<'_>, neighbours: &[usize]) -> io::Result<Router> {
        self.start(setup, ROUTER, neighbours)
    }

    /// The source and the router as two routers that are linked to each other.
    pub(super) fn pair(&self, [source, router]: [&Setup<'_>; 2]) -> io::Result<[Router; 2]> {
        Ok([self.start(source, SOURCE, &[ROUTER])?, self.start(router, ROUTER, &[SOURCE])?])
    }

    fn start(&self, setup: &Setup<'_>, who: usize, neighbours: &[usize]) -> io::Result<Router> {
        let neighbours: Vec<(&str, SocketAddr)> =
            neighbours.iter().map(|&other| (&*self.names[other], self.addresses[other])).collect();
        let name = &self.names[who];
        Router::start(setup, name, &self.identities[who], &self.members, self.addresses[who], &neighbours)
    }

    /// Neighbour `who`, linked to `peer`.
    fn neighbour(&self, now: Instant, who: usize, peer: usize, congestion: Congestion) -> io::Result<Neighbour> {
        let (listen, remote) = (self.addresses[who], self.addresses[peer]);
        let link = Link { congestion, ..Link::new(self.names[peer].clone(), Some(remote)) };
        let port = |worker| {
            let [listen, remote] = [listen, remote].map(|address| net::beside(address, worker));
            io::Result::Ok((Port::new(net::open(listen)?, remote)?, remote))
        };
        let ports = (0..self.workers).map(port).collect::<io::Result<_>>()?;
        let config = neighbour::config(&self.names[who], listen, self.workers, &self.members, link);
        Neighbour::new(now, &self.identities[who], config, ports)
    }
}

impl Overlay {
    /// A source and so many sinks with a router between them, and the router.
    pub(crate) fn through(
        clock: Clock,
        setup: &Setup<'_>,
        congestion: Congestion,
        sinks: usize,
    ) -> io::Result<(Overlay, Router)> {
        let cast = Cast::new(sinks, setup.workers)?;
        let ends: Vec<usize> = (0..cast.names.len()).filter(|&who| who != ROUTER).collect();
        let router = cast.router(setup, &ends)?;
        let overlay = Overlay::new(clock, &cast, ROUTER, congestion);
        let overlay = overlay.map_err(|error| io::Error::other(format!("{error}\n{}", router.log())))?;
        Ok((overlay, router))
    }

    /// A source with a link to its sink.
    pub(crate) fn direct(clock: Clock, congestion: Congestion) -> io::Result<Overlay> {
        Overlay::new(clock, &Cast::new(1, 1)?, FIRST_SINK, congestion)
    }

    /// `next`: who is at the other end of the source's link.
    fn new(clock: Clock, cast: &Cast, next: usize, congestion: Congestion) -> io::Result<Overlay> {
        let now = clock.now();
        let source = cast.neighbour(now, SOURCE, next, congestion)?;
        let back = if next == ROUTER { ROUTER } else { SOURCE };
        let sinks = (FIRST_SINK..cast.names.len()).map(|who| cast.neighbour(now, who, back, congestion));
        let sinks = sinks.collect::<io::Result<Vec<Neighbour>>>()?;
        let ids = sinks.iter().map(Neighbour::node).collect();
        let mut overlay = Overlay { source, sinks, ids, next: 0, class: Class::BestEffort, split: false, turns: 0 };
        while !overlay.is_joined() {
            if clock.now().since(now) > PATIENCE {
                return Err(io::Error::other("the neighbours found no route to each other"));
            }
            overlay.turn(clock.now(), &mut |_| {});
        }
        Ok(overlay)
    }

    fn is_joined(&self) -> bool {
        let source = self.source.node();
        self.ids.iter().all(|&sink| self.source.reaches(sink)) && self.sinks.iter().all(|sink| sink.reaches(source))
    }

    /// What the messages are, whether each leaves the source in a datagram of its own, and which share of the datagrams
    /// is lost between router and sinks, in each direction.
    pub(crate) fn set(&mut self, class: Class, split: bool, loss: f64) {
        (self.class, self.split) = (class, split);
        self.source.set_split(split);
        self.sinks.iter_mut().for_each(|sink| sink.set_loss(loss));
    }

    /// The ids of the source and of the sinks.
    pub(crate) fn nodes(&self) -> (NodeId, Vec<NodeId>) {
        (self.source.node(), self.ids.clone())
    }
}

impl Path for Overlay {
    fn send(&mut self, now: Instant, message: &[u8]) -> bool {
        let sent = self.source.send(now, self.ids[self.next], self.class, message);
        self.next = (self.next + usize::from(sent)) % self.ids.len();
        sent
    }

    fn turn(&mut self, now: Instant, arrived: &mut dyn FnMut(&[u8])) {
        self.source.flush(now);
        for sink in &mut self.sinks {
            sink.receive(now, arrived);
            sink.flush(now);
            sink.tick(now);
        }
        self.turns += 1;
        if self.turns.is_multiple_of(LOOK_BACK) {
            self.source.receive(now, &mut |_| {});
        }
        self.source.tick(now);
    }

    fn room(&self, size: usize) -> u64 {
        let bundle = if self.split { 1 } else { (DATAGRAM / (size + BESIDE)).max(1) };
        let buffers = self.sinks.iter().map(Neighbour::buffer).chain([self.source.buffer()]);
        bundle as u64 * datagrams(buffers.min().unwrap_or(0), if self.split { size } else { DATAGRAM })
    }
}
