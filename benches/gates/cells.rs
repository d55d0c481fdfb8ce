//! What is counted, one cell after the other, in the child.

use super::callgrind::{PROCESSOR, Said};
use super::chain::{Chain, Meter, Step};
use super::counting::{self, mark};
use sinew::base::{AddressPair, Class, Identity, Instant, LinkId, NodeId, Rng, WallTime};
use sinew::forwarding::{Table, Verdict, forward};
use sinew::proto::link::{Congestion, Settings};
use sinew::proto::security::{Received, Security};
use sinew::wire::datagram::{HEADER_LEN, TAG_LEN};
use sinew::wire::message::{Header, Protocol};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::SocketAddr;

/// The routers of the chain.
const ORIGIN: usize = 0;
const TRANSIT: usize = 1;
const DESTINATION: usize = 2;
/// Turns before anything is counted.
const WARM_UP: usize = 100;

/// Traffic through the chain.
struct Traffic {
    name: &'static str,
    class: Class,
    size: usize,
    /// Messages sent before each turn of half a millisecond.
    per_turn: usize,
    turns: usize,
    loss: f64,
}

const LONE: Traffic = Traffic {
    name: "best effort 200 B alone",
    class: Class::BestEffort,
    size: 200,
    per_turn: 1,
    turns: 400,
    loss: 0.0,
};

const TRAFFIC: [Traffic; 8] = [
    LONE,
    Traffic { name: "best effort 200 B bundled", per_turn: 12, turns: 150, ..LONE },
    Traffic { name: "best effort 64 B bundled", size: 64, per_turn: 48, turns: 50, ..LONE },
    Traffic { name: "best effort 1168 B", size: 1168, per_turn: 4, turns: 150, ..LONE },
    Traffic { name: "reliable 200 B alone", class: Class::Reliable, ..LONE },
    Traffic { name: "reliable 200 B bundled", class: Class::Reliable, per_turn: 12, turns: 150, ..LONE },
    Traffic { name: "reliable 200 B, 1 % lost", class: Class::Reliable, per_turn: 4, turns: 500, loss: 0.01, ..LONE },
    Traffic { name: "idle", per_turn: 0, turns: 2_000, ..LONE },
];

/// Counts the steps of the chain.
#[derive(Default)]
struct Steps;

impl Meter for Steps {
    fn run<R>(&mut self, router: usize, step: Step, work: impl FnOnce() -> R) -> R {
        match (router, step) {
            (ORIGIN, Step::Record) => counting::record(work),
            (TRANSIT, Step::Receive { from: ORIGIN }) => counting::receive(work),
            (TRANSIT, Step::Receive { .. }) => counting::acknowledge(work),
            (TRANSIT, Step::Timeout) => counting::timeout(work),
            (TRANSIT, Step::Transmit) => counting::transmit(work),
            (DESTINATION, Step::Deliver) => counting::deliver(work),
            _ => work(),
        }
    }
}

/// Runs every cell in a thread of its own, whose stack lies at the same place of a page whatever the arguments are.
pub(crate) fn run_all() {
    println!("{PROCESSOR}{}", processor());
    let cells = std::thread::spawn(|| {
        TRAFFIC.iter().for_each(Traffic::run);
        for size in [231, 1_200] {
            seal_and_open(size);
        }
        find_next_hops();
    });
    cells.join().expect("a cell that fails is a failure");
}

/// Runs one cell between two marks and says what its figures are to be divided by.
fn cell(name: String, units: &[(&str, u64)], work: impl FnOnce()) {
    mark();
    work();
    mark();
    let units: BTreeMap<String, u64> = units.iter().map(|&(step, units)| (step.to_owned(), units)).collect();
    println!("{}", serde_json::to_string(&Said { cell: name, units }).expect("names and numbers"));
}

impl Traffic {
    fn run(&self) {
        let settings = Settings { congestion: Congestion::FixedKbps(1_000_000), ..Settings::default() };
        let mut chain = Chain::new(3, &settings, Steps);
        chain.loss = self.loss;
        self.talk(&mut chain, WARM_UP);
        let (messages, turns) = ((self.turns * self.per_turn) as u64, self.turns as u64);
        let before = chain.delivered;
        let units: &[(&str, u64)] = if messages == 0 {
            &[("timeout", turns), ("transmit", turns)]
        } else {
            &["record", "receive", "transmit", "acknowledge", "timeout", "deliver"].map(|step| (step, messages))
        };
        cell(self.name.to_owned(), units, || self.talk(&mut chain, self.turns));
        let arrived = chain.delivered.best_effort + chain.delivered.reliable - before.best_effort - before.reliable;
        assert!(arrived >= messages - messages / 20, "{}: {arrived} of {messages} messages arrived", self.name);
    }

    fn talk(&self, chain: &mut Chain<Steps>, turns: usize) {
        for _ in 0..turns {
            for _ in 0..self.per_turn {
                assert!(chain.send(self.class, &[7; 2048][..self.size]), "the chain keeps up");
            }
            chain.tick();
        }
    }
}

/// Packets with `size` bytes of plaintext, sealed by one router and opened by another.
fn seal_and_open(size: usize) {
    const PACKETS: usize = 256;
    const LINK: LinkId = LinkId(0);
    let now = Instant::from_millis(1);
    let identities = [1, 2].map(|seed| Identity::from_seed([seed; 32]));
    let addresses = [1, 2].map(|host| AddressPair::from(SocketAddr::from(([10, 0, 0, host], 5300))));
    let mut rooms = [0, 1].map(|end| {
        let identity = identities[end].clone();
        let epoch = WallTime::from_nanos(1 << 40);
        let mut room = Security::new(identity, Default::default(), epoch, Rng::from_u64(end as u64));
        room.add_peer(now, LINK, identities[1 - end].public(), None, &addresses[1..2 - end]);
        room
    });
    rooms[0].handle_timeout(now);
    let mut packets = vec![[0; 2048]; PACKETS];
    for (from, to) in [(0, 1), (1, 0)] {
        let (_, _, len) = rooms[from].poll_transmit(now, &mut packets[0]).expect("a handshake message");
        rooms[to].handle_datagram(now, addresses[from], &mut packets[0][..len]);
    }
    let [sealing, opening] = &mut rooms;
    let mut numbers = 0..;
    let mut talk = |sealing: &mut Security, opening: &mut Security| {
        let len = HEADER_LEN + size + TAG_LEN;
        for (packet, number) in packets.iter_mut().zip(numbers.by_ref()) {
            let sealed = counting::seal(|| sealing.seal(now, LINK, number, packet, size));
            assert_eq!(sealed, Some(len));
        }
        for packet in &mut packets {
            let opened = counting::open(|| opening.handle_datagram(now, addresses[0], &mut packet[..len]));
            assert!(matches!(opened, Received::Packet { .. }), "{opened:?}");
        }
        while sealing.poll_event().is_some() || opening.poll_event().is_some() {}
    };
    talk(sealing, opening);
    let units = [("seal", PACKETS as u64), ("open", PACKETS as u64)];
    cell(format!("packet of {size} B"), &units, || talk(sealing, opening));
}

/// Next hops in a network of a thousand routers.
fn find_next_hops() {
    const ROUTERS: u64 = 1_000;
    let node = |router: u64| NodeId((router + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let routes = (1..ROUTERS).map(|router| (node(router), LinkId((router % 7) as u16)));
    let table = Table::new(node(0), 1, routes);
    let header = Header {
        class: Class::BestEffort,
        ttl: 9,
        mark: false,
        protocol: Protocol::Datagram,
        destination: node(0),
        source: node(1),
        destination_port: 1,
        source_port: 2,
    };
    cell("next hop of 1000".to_owned(), &[("forward", ROUTERS - 1)], || {
        for router in 1..ROUTERS {
            let header = black_box(Header { destination: node(router), ..header });
            let verdict = counting::forward(|| forward(&table, &header));
            assert!(matches!(verdict, Verdict::Via(..)));
        }
    });
}

/// What ring and libc may choose their code by, as this process sees it.
fn processor() -> String {
    let mut seen = std::env::consts::ARCH.to_owned();
    #[cfg(target_arch = "x86_64")]
    {
        let features = [
            ("aes", is_x86_feature_detected!("aes")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("avx", is_x86_feature_detected!("avx")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("movbe", is_x86_feature_detected!("movbe")),
            ("vaes", is_x86_feature_detected!("vaes")),
            ("sha", is_x86_feature_detected!("sha")),
        ];
        for (name, _) in features.into_iter().filter(|feature| feature.1) {
            seen = format!("{seen} {name}");
        }
    }
    seen
}
