//! What finding the way to everybody costs a router: the map, the shortest paths, the forwarding table.
//!
//! ```text
//! cargo bench --bench spf                      microseconds, best of twenty rounds
//! cargo bench --bench spf -- --instructions    instructions, counted by valgrind: the same every time
//! ```
//!
//! Networks have four links for every router. Times of a busy machine are worth little; instructions are what a change
//! is judged by.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod counted;

use counted::{counted_work, instructions};
use sinew::base::limits::MAX_MESSAGE;
use sinew::base::{DownReason, Identity, Instant as Moment, LinkId, LinkMetrics, NodeId, Rng, WallTime};
use sinew::forwarding::Table;
use sinew::proto::routing::{Action, Input, Map, Metric, Routing, Tree};
use sinew::wire::routing::{AdvertisedLink, SIGNING_CONTEXT, Sequence, emit_advertisement};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const SIZES: [usize; 3] = [10, 100, 1_000];
const LINKS_PER_ROUTER: usize = 4;
const MAX_DEGREE: usize = 64;
const ROUNDS: usize = 20;

struct Network {
    identities: Vec<Identity>,
    ids: Vec<NodeId>,
    links: Vec<Vec<AdvertisedLink>>,
}

impl Network {
    fn random(count: usize) -> Network {
        let identity = |index: usize| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(index as u64 + 1).to_be_bytes());
            Identity::from_seed(seed)
        };
        let mut identities: Vec<Identity> = (0..count).map(identity).collect();
        identities.sort_by_key(|identity| identity.public().node_id());
        let ids: Vec<NodeId> = identities.iter().map(|identity| identity.public().node_id()).collect();
        let (mut rng, mut pairs, mut degree) = (Rng::from_u64(1), BTreeSet::new(), vec![0; count]);
        let mut links: Vec<Vec<AdvertisedLink>> = vec![Vec::new(); count];
        let mut ring = (0..count).map(|a| (a, (a + 1) % count));
        while pairs.len() < count * LINKS_PER_ROUTER {
            let (a, b) =
                ring.next().unwrap_or_else(|| (rng.below(count as u64) as usize, rng.below(count as u64) as usize));
            if a == b || degree[a] == MAX_DEGREE || degree[b] == MAX_DEGREE || !pairs.insert((a.min(b), a.max(b))) {
                continue;
            }
            let rtt = Duration::from_micros(1_000 + rng.below(100_000));
            for (from, to) in [(a, b), (b, a)] {
                degree[from] += 1;
                let metrics = LinkMetrics { rtt, ..LinkMetrics::default() };
                links[from].push(AdvertisedLink::new(ids[to], &metrics));
            }
        }
        links.iter_mut().for_each(|list| list.sort_by_key(|link| link.neighbour));
        Network { identities, ids, links }
    }

    fn metrics(&self, router: usize, link: usize) -> LinkMetrics {
        let rtt = Duration::from_micros(u64::from(self.links[router][link].rtt_us));
        LinkMetrics { rtt, ..LinkMetrics::default() }
    }
}

/// A router that knows the network.
struct Router {
    now: Moment,
    routing: Routing,
    table: Table,
}

impl Router {
    fn new(network: &Network) -> Router {
        let (now, me) = (Moment::from_millis(1_000), network.identities[0].clone());
        let members = network.identities.iter().map(Identity::public).collect();
        let epoch = WallTime::from_nanos(1);
        let routing = Routing::new(now, me, members, Metric::Latency, epoch, Rng::from_u64(2));
        let table = Table::empty(network.ids[0]);
        let mut router = Router { now, routing, table };
        for (place, link) in network.links[0].iter().enumerate() {
            let id = LinkId(place as u16);
            router.handle(Input::AddLink { link: id, peer: link.neighbour });
            router.handle(Input::LinkUp { link: id, metrics: network.metrics(0, place) });
        }
        for ((identity, &node), links) in network.identities.iter().zip(&network.ids).zip(&network.links).skip(1) {
            let mut buffer = [0; MAX_MESSAGE];
            let sign = |bytes: &[u8]| identity.sign(&[SIGNING_CONTEXT, bytes].concat());
            let bytes = emit_advertisement(&mut buffer, node, Sequence { epoch: 1, counter: 1 }, links, sign);
            router.handle(Input::Message { link: LinkId(0), bytes: bytes.to_vec() });
        }
        router.wait();
        assert_eq!(router.table.routes().len(), network.links.len() - 1, "everybody is reached");
        router
    }

    fn handle(&mut self, input: Input) {
        self.routing.handle(self.now, input);
        while let Some(action) = self.routing.poll_action() {
            if let Action::Routes(routes) = action {
                self.table = Table::new(self.table.node(), self.table.generation() + 1, routes);
            }
        }
    }

    /// What is due in a second is done.
    fn wait(&mut self) {
        self.now += Duration::from_secs(1);
        self.handle(Input::Timer);
    }
}

/// What is measured.
#[derive(Clone, Copy)]
enum Stage {
    /// The map, from all advertisements.
    Map,
    /// Shortest paths on it.
    Paths,
    /// The table, from the paths.
    Table,
    /// The three together: what a router does that knew nothing.
    Sum,
    /// A router's whole answer to its best link that goes down: advertisement signed, paths, table.
    Down,
}

const STAGES: [(&str, Stage); 5] = [
    ("map", Stage::Map),
    ("paths", Stage::Paths),
    ("table", Stage::Table),
    ("sum", Stage::Sum),
    ("link down", Stage::Down),
];

struct Rig {
    network: Network,
    map: Map,
    tree: Tree,
    router: Option<Router>,
    spent: Duration,
}

impl Rig {
    fn new(count: usize) -> Rig {
        let network = Network::random(count);
        let map = build(&network);
        let tree = map.shortest(0);
        Rig { network, map, tree, router: None, spent: Duration::ZERO }
    }

    fn run(&mut self, stage: Stage) {
        let start = Instant::now();
        match stage {
            Stage::Map => drop(counted_work(|| build(&self.network))),
            Stage::Paths => counted_work(|| self.tree.compute(&self.map, 0)),
            Stage::Table => drop(counted_work(|| table(&self.tree))),
            Stage::Sum => drop(counted_work(|| {
                self.tree.compute(&build(&self.network), 0);
                table(&self.tree)
            })),
            Stage::Down => return self.down(),
        }
        self.spent = start.elapsed();
    }

    fn down(&mut self) {
        let network = &self.network;
        let router = self.router.get_or_insert_with(|| Router::new(network));
        let place = (0..network.links[0].len()).min_by_key(|&place| network.links[0][place].rtt_us).unwrap_or_default();
        let link = LinkId(place as u16);
        router.handle(Input::LinkUp { link, metrics: network.metrics(0, place) });
        router.wait();
        // The news that it is up has gone out; now another may go out at once.
        router.wait();
        let down = Input::LinkDown { link, reason: DownReason::Closed };
        let before = router.routing.stats().computations;
        let start = Instant::now();
        counted_work(|| router.handle(down));
        self.spent = start.elapsed();
        assert_eq!(router.routing.stats().computations, before + 1, "the cheapest link is on some path");
    }
}

fn build(network: &Network) -> Map {
    let mut map = Map::new(network.ids.iter().copied(), Metric::Latency);
    for (index, links) in network.links.iter().enumerate() {
        map.say(index, Some(links.iter().copied()), |_| {});
    }
    map
}

/// The table of a tree, its links numbered as the routers they lead to.
fn table(tree: &Tree) -> Table {
    let hops = tree.nodes().iter().enumerate().filter_map(|(to, &node)| Some((node, LinkId(tree.via(to)? as u16))));
    Table::new(tree.nodes()[0], 1, hops)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<usize>().ok());
    if let (Some("--run"), Some(count), Some(stage)) = (arguments.first().map(String::as_str), number(1), number(2)) {
        Rig::new(count).run(STAGES[stage].1);
        return;
    }
    let counts = arguments.iter().any(|argument| argument == "--instructions");
    println!("{}", if counts { "instructions" } else { "microseconds" });
    println!("{:>8}{}", "routers", STAGES.map(|(name, _)| format!("{name:>12}")).concat());
    for count in SIZES {
        let mut rig = Rig::new(count);
        let mut row = format!("{count:8}");
        for (place, (_, stage)) in STAGES.into_iter().enumerate() {
            if counts {
                row += &format!("{:12}", instructions(&["--run".to_owned(), count.to_string(), place.to_string()]));
                continue;
            }
            let rounds = (0..ROUNDS).map(|_| {
                rig.run(stage);
                rig.spent
            });
            row += &format!("{:12.1}", rounds.min().unwrap_or_default().as_secs_f64() * 1e6);
        }
        println!("{row}");
    }
}
