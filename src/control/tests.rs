//! Behaviours of control, with scripted workers, clients and neighbours.

use super::*;
use crate::base::{DownReason, LinkMetrics};
use crate::config::settings::{
    Config, Congestion, Coverage, Groups, Link as LinkConfig, LinkPath, Member, Metric, Question, Routing, Telemetry,
    Vip, VipAddress, VipCheck, VipSet, Workers,
};
use crate::dataplane::messages::{Carrier, LinkReport, MoveReason, Refusal};
use crate::proto::link::Link as DataLink;
use crate::telemetry::Histogram;
use crate::wire::admin::{GroupEvent, LinkEntry, NodeEntry, RouteEntry};
use std::net::SocketAddr;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn identity(name: &str) -> Identity {
    let mut seed = [9; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    Identity::from_seed(seed)
}

fn id(name: &str) -> NodeId {
    identity(name).public().node_id()
}

fn link_to(peer: &str) -> LinkConfig {
    LinkConfig {
        peer: peer.to_owned(),
        paths: vec![LinkPath::to("10.0.0.9:7000".parse().expect("an address"))],
        preshared_key: Some([3; 32]),
        hello: ms(40),
        dead: ms(200),
        congestion: Congestion::FixedKbps(700),
        queue_delay: ms(30),
        queue: 99,
    }
}

fn config(name: &str, peers: &[&str]) -> Config {
    let member = |name: &&str| Member { name: (*name).to_owned(), public: identity(name).public().to_string() };
    Config {
        name: name.to_owned(),
        key_file: "key".into(),
        listen: "127.0.0.1:7000".parse().expect("an address"),
        control_socket: "socket".into(),
        workers: Workers { pool: 4096, ..Workers::default() },
        lock_memory: false,
        members: ["c", "a", "b", "d"].iter().map(member).collect(),
        links: peers.iter().map(|peer| link_to(peer)).collect(),
        routing: Routing { metric: Metric::Latency },
        telemetry: Telemetry::new("".as_ref()),
        clients: Default::default(),
        vip: None,
        groups: None,
    }
}

/// One control and its clock.
struct Bench {
    now: Instant,
    control: Control,
}

const ANN: ClientId = ClientId(1);
const BOB: ClientId = ClientId(2);
const CAT: ClientId = ClientId(3);

impl Bench {
    fn with(config: Config) -> (Bench, Vec<Action>) {
        let now = Instant::from_millis(1_000);
        let identity = identity(&config.name.clone());
        let control = Control::new(now, config, identity, WallTime::from_nanos(7), "test".to_owned(), Rng::from_u64(1));
        let mut bench = Bench { now, control: control.expect("the configuration is valid") };
        let first = bench.drain();
        (bench, first)
    }

    fn new(peers: &[&str]) -> Bench {
        Bench::with(config("a", peers)).0
    }

    fn drain(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.control.poll_action()).collect()
    }

    fn input(&mut self, input: Input) -> Vec<Action> {
        self.control.handle(self.now, input);
        self.drain()
    }

    fn report(&mut self, report: Report) -> Vec<Action> {
        self.input(Input::Report { worker: 0, report })
    }

    fn ask(&mut self, client: ClientId, request: Request) -> Vec<Action> {
        self.input(Input::Request { client, request })
    }

    fn answer(&mut self, request: Request) -> Response {
        match self.ask(ANN, request).as_slice() {
            [Action::Reply { client: ANN, response }] => response.clone(),
            other => panic!("one answer is expected: {other:?}"),
        }
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut actions = Vec::new();
        while let Some((at, _)) = self.control.poll_timeout().filter(|&(at, _)| at <= end) {
            self.now = self.now.max(at);
            actions.extend(self.input(Input::Timer));
        }
        self.now = end;
        actions
    }

    fn up(&mut self, link: u16, rtt: Duration) -> Vec<Action> {
        let metrics = LinkMetrics { rtt, ..LinkMetrics::default() };
        self.report(Report::LinkUp(LinkId(link), "10.9.9.9:1234".parse().expect("an address"), metrics, 1))
    }

    fn links(&mut self) -> Vec<LinkEntry> {
        match self.answer(Request::Links) {
            Response::Links { links } => links,
            other => panic!("{other:?}"),
        }
    }
}

/// Actions as short texts, for comparison.
fn brief(actions: &[Action]) -> Vec<String> {
    actions.iter().map(brief_one).collect()
}

fn brief_one(action: &Action) -> String {
    match action {
        Action::Host(command) => format!("host {command:?}"),
        Action::HostHears { from, holds, bytes } => {
            format!("host hears {} of {from}, who holds {holds:?}", bytes.len())
        }
        Action::Command { worker: 0, command } => match command {
            Command::AddLink(link, spec) => format!("add {link} {}", spec.peer.node_id()),
            Command::SetPaths(link, paths) => format!("{} paths of {link}", paths.len()),
            Command::RemoveLink(link) => format!("remove {link}"),
            Command::Suspect(link) => format!("suspect {link}"),
            Command::CarrierLost(addresses) => format!("carrier lost {addresses:?}"),
            Command::InstallTable(table) => format!("table of {}", table.routes().len()),
            Command::SendControl(link, _) => format!("control {link}"),
            Command::SendFar(node, _) => format!("far {node}"),
            Command::OpenSession(session, _) => format!("open {session}"),
            Command::CloseSession(session) => format!("close {session}"),
            Command::AcceptStream(session) => format!("accept {session}"),
            Command::QueryStats => "query".to_owned(),
            Command::QuerySessions => "query sessions".to_owned(),
            Command::AskLink(link) => format!("ask {link}"),
            Command::Shutdown => "shutdown".to_owned(),
        },
        Action::Command { worker, command } => format!("worker {worker}: {command:?}"),
        Action::Reply { client, response } => format!("{} to {}", kind(response), client.0),
        Action::Attach { session, client, response, .. } => {
            format!("attach {session} {} to {}", kind(response), client.0)
        }
        Action::Detach { session, .. } => format!("detach {session}"),
        Action::Tell { clients, response } => {
            let clients: Vec<String> = clients.iter().map(|client| client.0.to_string()).collect();
            format!("{} told to {}", kind(response), clients.join(", "))
        }
        Action::ReadConfig => "read".to_owned(),
        Action::ShareMemory { client, wanted } => format!("share {wanted} to {}", client.0),
        Action::Exit => "exit".to_owned(),
    }
}

fn kind(response: &Response) -> String {
    let value = serde_json::to_value(response).expect("plain");
    value["response"].as_str().expect("tagged").to_owned()
}

/// Controls joined by wires that take no time: what one sends the other's worker reports.
struct Chain {
    benches: Vec<Bench>,
    tables: usize,
}

impl Chain {
    /// `a` – `b` – `c`: `b`'s links are 0 to `a` and 1 to `c`.
    fn new() -> Chain {
        let benches = [("a", vec!["b"]), ("b", vec!["a", "c"]), ("c", vec!["b"])];
        let benches = benches.into_iter().map(|(name, peers)| Bench::with(config(name, &peers)).0).collect();
        let mut chain = Chain { benches, tables: 0 };
        chain.wait(ms(100));
        for (bench, link) in [(0, 0), (1, 0), (1, 1), (2, 0)] {
            let actions = chain.benches[bench].up(link, ms(20));
            chain.carry(bench, actions);
        }
        chain.wait(ms(200));
        chain
    }

    fn carry(&mut self, from: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Command { worker: 0, command: Command::SendControl(link, bytes) } => {
                    let (to, back) = match (from, link.0) {
                        (0, 0) => (1, 0),
                        (1, 0) => (0, 0),
                        (1, 1) => (2, 0),
                        (2, 0) => (1, 1),
                        other => panic!("no such wire: {other:?}"),
                    };
                    let actions = self.benches[to].report(Report::Control(LinkId(back), bytes));
                    self.carry(to, actions);
                }
                Action::Command { command: Command::InstallTable(_), .. } => self.tables += 1,
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 5 {
            for bench in 0..self.benches.len() {
                let actions = self.benches[bench].wait(ms(5));
                self.carry(bench, actions);
            }
        }
    }
}

#[test]
fn starts_with_its_links_and_an_empty_table() {
    let (mut bench, first) = Bench::with(config("a", &["b", "c"]));
    let added = [format!("add link0 {}", id("b")), format!("add link1 {}", id("c"))];
    assert_eq!(brief(&first), [added[0].as_str(), added[1].as_str(), "table of 0"]);
    let Action::Command { command: Command::AddLink(_, spec), .. } = &first[0] else { panic!("{first:?}") };
    assert_eq!(spec.peer, identity("b").public());
    let there: Vec<_> = spec.paths.iter().map(|path| path.pair.remote).collect();
    assert_eq!((spec.preshared_key, there), (Some([3; 32]), vec![link_to("b").paths[0].remote]));
    assert_eq!((spec.settings.hello, spec.settings.dead, spec.settings.queue), (ms(40), ms(200), 99));
    assert_eq!(spec.settings.congestion, crate::proto::link::Congestion::FixedKbps(700));
    assert_eq!(spec.settings.queue_delay, ms(30));
    let me = Response::Whoami {
        name: "a".into(),
        node: id("a"),
        version: env!("CARGO_PKG_VERSION").into(),
        io: "test".into(),
    };
    assert_eq!(bench.answer(Request::Whoami), me);
}

#[test]
fn refuses_configurations_that_cannot_be() {
    let make = |config: Config| {
        let identity = identity("a");
        let made =
            Control::new(Instant::ZERO, config, identity, WallTime::from_nanos(7), String::new(), Rng::from_u64(1));
        made.map(|_| ()).expect_err("refused")
    };
    let mut wrong = config("a", &["nobody", "a"]);
    wrong.members[3].public = "rubbish".into();
    wrong.members.push(wrong.members[2].clone());
    let message = make(wrong);
    assert_eq!(message.lines().count(), 5, "all at once: {message}");
    assert!(make(config("b", &[])).contains("key"));
    assert!(make(config("z", &[])).contains("`z`"));
    let many: Vec<&str> = std::iter::repeat_n("b", MAX_LINKS + 1).collect();
    assert!(make(config("a", &many)).contains("at most"));
    let mut idle = config("a", &[]);
    idle.workers.count = 0;
    assert!(make(idle).contains("worker"));
}

#[test]
fn a_chain_of_three_finds_its_routes() {
    let mut chain = Chain::new();
    assert!(chain.tables >= 3);
    for (bench, other) in [(0, "c"), (2, "a")] {
        assert_eq!(chain.benches[bench].control.table().next_hop(id(other)), Some(LinkId(0)));
    }
    let Response::Routes { generation, routes } = chain.benches[0].answer(Request::Routes) else { panic!() };
    assert_eq!(generation, chain.benches[0].control.table().generation());
    let to_c = RouteEntry {
        name: "c".into(),
        node: id("c"),
        via: "b".into(),
        path: vec!["b".into(), "c".into()],
        hops: 2,
        cost: 20.0,
    };
    assert_eq!(routes.len(), 2);
    assert_eq!(routes[1], to_c);
    let Response::Nodes { nodes } = chain.benches[0].answer(Request::Nodes) else { panic!() };
    let entry =
        |name: &str, reachable, links, this| NodeEntry { name: name.into(), node: id(name), reachable, links, this };
    let expected = [
        entry("a", true, 1, true),
        entry("b", true, 2, false),
        entry("c", true, 1, false),
        entry("d", false, 0, false),
    ];
    assert_eq!(nodes, expected);

    let actions = chain.benches[1].report(Report::LinkDown(LinkId(1), DownReason::Silence));
    chain.carry(1, actions);
    chain.wait(ms(50));
    assert_eq!(chain.benches[0].control.table().next_hop(id("c")), None);
}

#[test]
fn links_tell_their_history() {
    let mut bench = Bench::new(&["b", "c"]);
    bench.wait(ms(500));
    let sent = brief(&bench.up(0, ms(20)));
    assert_eq!(sent, ["control link0", "control link0"], "a digest, and the news");
    bench.wait(ms(1_500));
    let links = bench.links();
    assert_eq!((links[0].peer.as_str(), links[1].peer.as_str()), ("b", "c"));
    assert!(links[0].up && !links[1].up);
    assert_eq!(links[0].remote, "10.9.9.9:1234".parse().ok());
    assert_eq!(links[1].remote, Some(link_to("c").paths[0].remote));
    assert_eq!((links[0].since_s, links[1].since_s), (1.5, 2.0));
    assert_eq!(links[0].metrics.rtt, ms(20));
    bench.report(Report::LinkMeasured(LinkId(0), LinkMetrics { rtt: ms(22), ..LinkMetrics::default() }));
    assert_eq!(bench.links()[0].metrics.rtt, ms(22));
    let elsewhere = SocketAddr::from(([10, 9, 9, 7], 4321));
    let moved = |link| Report::LinkMoved(LinkId(link), elsewhere.into(), MoveReason::Roamed);
    assert!(bench.report(moved(0)).is_empty(), "no news for the others");
    let link = &bench.links()[0];
    assert_eq!((link.up, link.remote, link.since_s), (true, Some(elsewhere), 1.5), "up as before, elsewhere");
    bench.report(Report::LinkDown(LinkId(0), DownReason::Refused));
    bench.wait(ms(250));
    let link = &bench.links()[0];
    assert_eq!((link.up, link.since_s, link.metrics.rtt), (false, 0.25, ms(0)));
    assert_eq!(link.down_reason.as_deref(), Some("nothing listens at the other end"));
    // Late words about links that do not exist are nothing.
    assert!(bench.report(Report::LinkDown(LinkId(9), DownReason::Silence)).is_empty());
    assert!(bench.report(moved(9)).is_empty());
    assert!(bench.report(Report::Control(LinkId(9), Box::new([1, 1]))).is_empty());
    assert!(bench.report(Report::Control(LinkId(0), Box::new([]))).is_empty());
    assert_eq!(bench.control.refused_messages, 2);
}

/// Control of router `a` with so many workers and a link to `b`.
fn with_workers(workers: usize) -> (Bench, Vec<Action>) {
    let mut config = config("a", &["b"]);
    config.workers.count = workers;
    config.links[0].paths = vec![LinkPath::to("10.0.0.1:5300".parse().expect("an address"))];
    Bench::with(config)
}

/// A lane comes up; the neighbour has so many workers.
fn lane_up(bench: &mut Bench, worker: usize, rtt: Duration, theirs: u8) -> Vec<Action> {
    let metrics = LinkMetrics { rtt, ..LinkMetrics::default() };
    let remote = format!("10.0.0.1:{}", 5300 + worker).parse().expect("an address");
    let report = Report::LinkUp(LinkId(0), remote, metrics, theirs);
    bench.input(Input::Report { worker, report })
}

fn lane_down(bench: &mut Bench, worker: usize) -> Vec<Action> {
    bench.input(Input::Report { worker, report: Report::LinkDown(LinkId(0), DownReason::Silence) })
}

/// Workers that are told to ask for their lane, and those whose lane begins anew and waits.
fn asked(actions: &[Action]) -> (Vec<usize>, Vec<usize>) {
    let (mut asked, mut held) = (Vec::new(), Vec::new());
    for action in actions {
        match action {
            Action::Command { worker, command: Command::AskLink(_) } => asked.push(*worker),
            Action::Command { worker, command: Command::AddLink(_, spec) } if !spec.asks => held.push(*worker),
            _ => {}
        }
    }
    (asked, held)
}

#[test]
fn what_keeps_a_link_down_is_shown_until_it_is_up() {
    let mut bench = Bench::new(&["b"]);
    let obstructed = |obstacle| Report::LinkObstructed(LinkId(0), obstacle);
    assert_eq!(bench.links()[0].obstacle, None);
    assert!(bench.report(obstructed(Some(Obstacle::NoAnswer))).is_empty(), "no news for routing");
    assert_eq!(bench.links()[0].obstacle, Some(Obstacle::NoAnswer));
    bench.report(obstructed(Some(Obstacle::Refused)));
    assert_eq!(bench.links()[0].obstacle, Some(Obstacle::Refused));
    bench.up(0, ms(20));
    assert_eq!(bench.links()[0].obstacle, None);
    bench.report(Report::LinkDown(LinkId(0), DownReason::Silence));
    assert_eq!(bench.links()[0].obstacle, None, "nothing is known yet");
    bench.report(obstructed(Some(Obstacle::Refused)));
    bench.report(obstructed(None));
    assert_eq!(bench.links()[0].obstacle, None);
    assert!(bench.report(Report::LinkObstructed(LinkId(9), None)).is_empty(), "a late word about no link");
}

#[test]
fn the_log_says_what_keeps_a_link_down_when_more_is_known_and_not_too_often() {
    let (peer, settings) = (identity("b").public(), crate::proto::link::Settings::default());
    let spec = LinkSpec { peer, preshared_key: None, paths: Vec::new(), asks: true, settings };
    let mut link = links::Link::new(Instant::ZERO, LinkId(0), spec, 1);
    let mut say = |second, obstacle| link.lane_obstructed(Instant::ZERO + Duration::from_secs(second), Some(obstacle));
    assert_eq!(say(1, Obstacle::Refused), Some(Obstacle::Refused));
    assert_eq!(say(2, Obstacle::NoAnswer), None, "less is known");
    assert_eq!(say(3, Obstacle::Refused), None, "said a moment ago");
    assert_eq!(say(4, Obstacle::HasOtherKey), Some(Obstacle::HasOtherKey));
    assert_eq!(say(64, Obstacle::NoAnswer), Some(Obstacle::NoAnswer), "a minute later");
}

#[test]
fn a_link_is_up_while_all_its_lanes_are() {
    let (mut bench, first) = with_workers(2);
    assert_eq!(first.len(), 4, "both workers get the link and the table");
    lane_up(&mut bench, 1, ms(30), 2);
    assert!(!bench.links()[0].up);
    lane_up(&mut bench, 0, ms(20), 2);
    assert!(bench.links()[0].up);
    assert_eq!(bench.links()[0].metrics.rtt, ms(30), "the worst");
    assert_eq!(bench.links()[0].remote.map(|remote| remote.port()), Some(5300), "lane 0's");
    lane_down(&mut bench, 1);
    assert!(!bench.links()[0].up);
    let reason = bench.links()[0].down_reason.clone().unwrap_or_default();
    assert!(reason.contains("lane 1 of 2") && reason.contains("port 5301"), "{reason}");
    // Sessions spread.
    let mut workers = std::collections::BTreeSet::new();
    for client in 10..30 {
        for action in bench.ask(ClientId(client), Request::OpenDatagram { port: 0 }) {
            let Action::Command { worker, .. } = action else { panic!("{action:?}") };
            workers.insert(worker);
        }
    }
    assert_eq!(workers.len(), 2);
}

#[test]
fn lanes_lead_to_the_ports_in_a_row_and_only_the_first_is_asked_for_unbidden() {
    let (_, first) = with_workers(3);
    let spec = |action: &Action| match action {
        Action::Command { worker, command: Command::AddLink(_, spec) } => {
            Some((*worker, spec.paths.first().map(|path| path.pair.remote.port()), spec.asks, spec.settings.workers))
        }
        _ => None,
    };
    let specs: Vec<_> = first.iter().filter_map(spec).collect();
    let expected = [(0, Some(5300), true, 3), (1, Some(5301), false, 3), (2, Some(5302), false, 3)];
    assert_eq!(specs, expected);
}

#[test]
fn a_link_that_a_reload_adds_has_the_workers_that_run() {
    let (mut bench, _) = with_workers(2);
    let mut new = config("a", &["b", "c"]);
    new.workers.count = 5;
    let actions = bench.input(Input::Reload(Ok(Box::new(new))));
    let said = actions.iter().filter_map(|action| match action {
        Action::Command { worker, command: Command::AddLink(_, spec) } => Some((*worker, spec.settings.workers)),
        _ => None,
    });
    assert!(said.clone().count() >= 2 && said.clone().all(|(worker, workers)| worker < 2 && workers == 2));
}

#[test]
fn a_link_has_as_many_lanes_as_the_end_with_fewer_workers() {
    let (mut bench, _) = with_workers(3);
    assert_eq!(asked(&lane_up(&mut bench, 0, ms(20), 2)), (vec![1], vec![]), "the second of two");
    assert!(!bench.links()[0].up, "the second lane is not");
    lane_up(&mut bench, 1, ms(20), 2);
    assert!(bench.links()[0].up, "the third there is none of");
    // It comes back with one worker, then with eight.
    (0..2).for_each(|worker| drop(lane_down(&mut bench, worker)));
    assert_eq!(asked(&lane_up(&mut bench, 0, ms(20), 1)), (vec![], vec![1]), "nobody is there any more");
    assert!(bench.links()[0].up);
    lane_down(&mut bench, 0);
    assert_eq!(asked(&lane_up(&mut bench, 0, ms(20), 8)), (vec![1, 2], vec![]));
    lane_up(&mut bench, 1, ms(20), 8);
    assert!(!bench.links()[0].up);
    lane_up(&mut bench, 2, ms(20), 8);
    assert!(bench.links()[0].up);
    lane_down(&mut bench, 1);
    assert!(!bench.links()[0].up);
    // What was reported in between may be lost: lane 0 alone says that there are fewer.
    lane_up(&mut bench, 0, ms(20), 1);
    assert!(bench.links()[0].up);
    lane_up(&mut bench, 0, ms(20), 2);
    assert!(!bench.links()[0].up, "and that there are more");
}

#[test]
fn datagram_and_stream_sessions_get_descriptors() {
    let mut bench = Bench::new(&[]);
    assert_eq!(brief(&bench.ask(ANN, Request::OpenDatagram { port: 5 })), ["open session1"]);
    let actions = bench.report(Report::SessionOpened(SessionId(1), 5));
    assert_eq!(brief(&actions), ["attach session1 opened to 1"]);
    let Action::Attach { response, .. } = &actions[0] else { panic!() };
    assert_eq!(*response, Response::Opened { session: SessionId(1), port: 5, memory: false });

    let to = Endpoint { node: id("b"), port: 80 };
    assert_eq!(brief(&bench.ask(ANN, Request::OpenStream { to })), ["open session2"]);
    assert_eq!(brief(&bench.report(Report::SessionOpened(SessionId(2), 40_000))), ["attach session2 opened to 1"]);
    assert!(bench.input(Input::ClientGone(ANN)).is_empty(), "they live by their descriptors");
    assert_eq!(brief(&bench.report(Report::SessionClosed(SessionId(2)))), ["detach session2"]);

    bench.ask(ANN, Request::OpenDatagram { port: 5 });
    let actions = bench.report(Report::SessionRefused(SessionId(3), Refusal::PortInUse));
    let [Action::Reply { response: Response::Error { message }, .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert!(message.contains("port"));
}

#[test]
fn listeners_live_by_their_connection() {
    let mut bench = Bench::new(&[]);
    bench.ask(ANN, Request::OpenListener { port: 80 });
    assert_eq!(brief(&bench.report(Report::SessionOpened(SessionId(1), 80))), ["opened to 1"]);
    let stream = SessionId(1 << 63);
    let peer = Endpoint { node: id("b"), port: 9 };
    let incoming = || Report::Incoming { listener: SessionId(1), session: stream, peer };
    let accepted = brief(&bench.report(incoming()));
    assert_eq!(accepted, [format!("attach {stream} incoming to 1"), format!("accept {stream}")]);
    assert_eq!(brief(&bench.input(Input::ClientGone(ANN))), ["close session1"], "the accepted stream lives on");
    assert!(bench.report(Report::SessionClosed(SessionId(1))).len() <= 1);
    assert_eq!(brief(&bench.report(incoming())), [format!("close {stream}")], "nobody listens any more");
}

#[test]
fn a_client_that_goes_while_its_session_opens_leaves_nothing() {
    let mut bench = Bench::new(&[]);
    bench.ask(ANN, Request::OpenDatagram { port: 5 });
    assert_eq!(brief(&bench.input(Input::ClientGone(ANN))), ["close session1"]);
    assert!(bench.report(Report::SessionOpened(SessionId(1), 5)).is_empty());
    assert!(bench.control.sessions.opening.is_empty());
}

#[test]
fn a_descriptor_that_cannot_be_handed_over_closes_the_session() {
    let mut bench = Bench::new(&[]);
    bench.ask(ANN, Request::OpenDatagram { port: 5 });
    bench.report(Report::SessionOpened(SessionId(1), 5));
    let failed = brief(&bench.input(Input::SessionAttachFailed(SessionId(1))));
    assert_eq!(failed, ["close session1", "error to 1"]);
    assert!(bench.input(Input::SessionAttachFailed(SessionId(1))).is_empty());
    bench.ask(ANN, Request::OpenListener { port: 80 });
    bench.report(Report::SessionOpened(SessionId(2), 80));
    let stream = SessionId((1 << 63) + 4);
    let peer = Endpoint { node: id("b"), port: 9 };
    bench.report(Report::Incoming { listener: SessionId(2), session: stream, peer });
    assert_eq!(brief(&bench.input(Input::SessionAttachFailed(stream))), [format!("close {stream}")]);
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let mut bench = Bench::new(&[]);
    assert_eq!(brief(&bench.ask(ANN, Request::OpenDatagram { port: 0 })), ["open session1"]);
    assert!(bench.ask(ANN, Request::Whoami).is_empty());
    assert!(bench.ask(ANN, Request::OpenDatagram { port: 0 }).is_empty());
    assert!(bench.ask(ANN, Request::Nodes).is_empty());
    assert_eq!(brief(&bench.ask(BOB, Request::Whoami)), ["whoami to 2"], "others do not wait");
    let first = brief(&bench.report(Report::SessionOpened(SessionId(1), 1)));
    assert_eq!(first, ["attach session1 opened to 1", "whoami to 1", "open session2"]);
    let second = brief(&bench.report(Report::SessionRefused(SessionId(2), Refusal::TooMany)));
    assert_eq!(second, ["error to 1", "nodes to 1"]);
}

#[test]
fn too_many_requests_at_once_are_refused_in_their_turn() {
    let mut bench = Bench::new(&[]);
    bench.ask(ANN, Request::OpenDatagram { port: 0 });
    for _ in 0..clients::QUEUE + 3 {
        assert!(bench.ask(ANN, Request::Whoami).is_empty());
    }
    let answers = brief(&bench.report(Report::SessionRefused(SessionId(1), Refusal::TooMany)));
    assert_eq!(answers.len(), 1 + clients::QUEUE + 3);
    assert_eq!(answers.iter().filter(|answer| *answer == "whoami to 1").count(), clients::QUEUE);
    assert_eq!(answers[1 + clients::QUEUE..], ["error to 1", "error to 1", "error to 1"]);
    for client in 0..clients::MAX_CLIENTS as u64 {
        assert_eq!(bench.ask(ClientId(100 + client), Request::OpenDatagram { port: 0 }).len(), 1);
    }
    assert_eq!(brief(&bench.ask(ANN, Request::OpenDatagram { port: 0 })), ["error to 1"]);
}

#[test]
fn a_connection_has_a_limit_of_listeners() {
    let mut bench = Bench::new(&[]);
    for session in 1..=clients::LISTENERS as u64 {
        bench.ask(ANN, Request::OpenListener { port: 0 });
        assert_eq!(brief(&bench.report(Report::SessionOpened(SessionId(session), 1))), ["opened to 1"]);
    }
    assert_eq!(brief(&bench.ask(ANN, Request::OpenListener { port: 0 })), ["error to 1"]);
    bench.report(Report::SessionClosed(SessionId(3)));
    assert_eq!(bench.ask(ANN, Request::OpenListener { port: 0 }).len(), 1);
    assert_eq!(bench.input(Input::ClientGone(ANN)).len(), clients::LISTENERS, "the one that opens, and the others");
}

/// A router that is alone in its group, with one set and a check of it.
fn lone_member() -> Bench {
    let address = VipAddress { ip: [192, 0, 2, 10].into(), interface: "eth0".to_owned() };
    let (coverage, prefer) = (Coverage::Component, Vec::new());
    let (router, conntrack) = (false, false);
    let set = VipSet { name: "web".to_owned(), addresses: vec![address], coverage, prefer, router, conntrack };
    let check = VipCheck {
        name: "up".to_owned(),
        question: Question::File("/up".into()),
        interval: ms(100),
        timeout: ms(100),
        rise: 1,
        fall: 1,
        sets: vec!["web".to_owned()],
    };
    let (members, maturity) = (vec!["a".to_owned()], Duration::ZERO);
    let vip = Vip { members, maturity, sets: vec![set], checks: vec![check], ..Vip::default() };
    Bench::with(Config { vip: Some(vip), ..config("a", &[]) }).0
}

#[test]
fn figures_of_service_addresses_are_those_of_the_moment() {
    let mut bench = lone_member();
    let figures = |bench: &mut Bench| {
        bench.ask(ANN, Request::Stats);
        let actions = bench.report(Report::Stats(Box::default()));
        let Some(Action::Reply { response: Response::Stats { workers }, .. }) = actions.first() else {
            panic!("{actions:?}")
        };
        workers[0].clone()
    };
    let before = figures(&mut bench);
    let set = |state: &str, held: bool, able: bool| serde_json::json!([{"set": "web", "state": state, "owned": held, "covered": held, "able": able}]);
    assert_eq!(before["vip_sets"], set("idle", false, false), "the check has found nothing yet");
    assert_eq!((&before["membership"]["views"], &before["membership"]["view_members"]), (&1.into(), &1.into()));
    let Response::Vips { sets, .. } = bench.answer(Request::Vips) else { panic!() };
    assert_eq!(sets[0].unable.as_deref(), Some("the check `up` has found nothing yet"));

    bench.input(Input::Health { check: 0, ok: true });
    bench.wait(ms(1_000));
    bench.input(Input::Host(HostReport::Acquired { set: 0 }));
    bench.wait(ms(1_000));
    let after = figures(&mut bench);
    assert_eq!(after["vip_sets"], set("owning", true, true));
    let vip = &after["vip"];
    assert_eq!((&vip["acquired"], &vip["sets_owned"], &vip["sets_covered"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(vip["overruled"], false);

    bench.input(Input::Health { check: 0, ok: false });
    bench.wait(ms(1_000));
    assert_eq!(figures(&mut bench)["vip_sets"], set("releasing", false, false));
    assert!(figures(&mut Bench::new(&[])).get("vip_sets").is_none(), "who shares none has none");
}

#[test]
fn links_that_are_up_ask_a_neighbour_whether_it_lives_when_its_process_is_said_to_have_ended() {
    let mut bench = Bench::new(&["b", "c"]);
    assert_eq!(brief(&bench.input(Input::Ended(id("b")))), [""; 0], "no link to it is up");
    bench.up(0, ms(1));
    bench.up(1, ms(1));
    assert_eq!(brief(&bench.input(Input::Ended(id("b")))), ["suspect link0"]);
    assert_eq!(brief(&bench.input(Input::Ended(id("nobody")))), [""; 0]);
    let addresses = vec!["10.0.0.1".parse().expect("an address")];
    let carrier = |up| HostReport::Carrier { interface: "eth0".to_owned(), up, addresses: addresses.clone() };
    assert_eq!(brief(&bench.input(Input::Host(carrier(false)))), ["carrier lost [10.0.0.1]"]);
    assert_eq!(brief(&bench.input(Input::Host(carrier(true)))), [""; 0]);
}

/// Two members of one group with one set, hosts that obey at once, and wires that take no time.
struct Pair {
    benches: [Bench; 2],
    /// Stands still: what is sent to it waits.
    frozen: Option<usize>,
    waiting: Vec<Box<[u8]>>,
    commands: [Vec<HostCommand>; 2],
}

impl Pair {
    const NAMES: [&'static str; 2] = ["a", "b"];

    /// Together, and this one holds the set.
    fn held_by(owner: usize) -> Pair {
        let bench = |place: usize| {
            let address = VipAddress { ip: [192, 0, 2, 10].into(), interface: "eth0".to_owned() };
            let (coverage, prefer) = (Coverage::Component, Vec::new());
            let set = VipSet {
                name: "web".to_owned(),
                addresses: vec![address],
                coverage,
                prefer,
                router: false,
                conntrack: false,
            };
            let members = Pair::NAMES.map(str::to_owned).to_vec();
            let vip = Vip { members, maturity: Duration::ZERO, balance: None, sets: vec![set], ..Vip::default() };
            let peers = [Pair::NAMES[1 - place]];
            Bench::with(Config { vip: Some(vip), ..config(Pair::NAMES[place], &peers) })
        };
        let [(a, of_a), (b, of_b)] = [bench(0), bench(1)];
        let mut pair = Pair { benches: [a, b], frozen: None, waiting: Vec::new(), commands: Default::default() };
        pair.perform(0, of_a);
        pair.perform(1, of_b);
        pair.wait(ms(100));
        (0..2).for_each(|place| pair.link_up(place));
        pair.wait(ms(500));
        let order = VipOrder::Move { set: "web".to_owned(), to: Some(Pair::NAMES[owner].to_owned()) };
        pair.input(0, Input::Request { client: BOB, request: Request::Vip { order } });
        pair.wait(ms(3_000));
        assert_eq!(pair.owners(), [0, 1].map(|_| Some(Pair::NAMES[owner].to_owned())));
        pair
    }

    fn owners(&mut self) -> [Option<String>; 2] {
        [0, 1].map(|place| match self.benches[place].answer(Request::Vips) {
            Response::Vips { sets, .. } => sets[0].owner.clone().filter(|_| sets[0].acquired),
            other => panic!("{other:?}"),
        })
    }

    fn link_up(&mut self, place: usize) {
        let actions = self.benches[place].up(0, ms(1));
        self.perform(place, actions);
    }

    fn link_down(&mut self, place: usize) {
        self.input(place, Input::Report { worker: 0, report: Report::LinkDown(LinkId(0), DownReason::Silence) });
    }

    fn input(&mut self, place: usize, input: Input) {
        let actions = self.benches[place].input(input);
        self.perform(place, actions);
    }

    fn perform(&mut self, from: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Command { worker: 0, command: Command::SendControl(_, bytes) } => self.carry(1 - from, bytes),
                Action::Host(command) => {
                    self.commands[from].push(command);
                    match command {
                        HostCommand::Acquire { set, .. } => {
                            self.input(from, Input::Host(HostReport::Acquired { set }));
                        }
                        HostCommand::Release { set } => self.input(from, Input::Host(HostReport::Released { set })),
                        _ => {}
                    }
                }
                Action::Reply { response: Response::Error { message }, .. } => panic!("{message}"),
                _ => {}
            }
        }
    }

    fn carry(&mut self, to: usize, bytes: Box<[u8]>) {
        if self.frozen == Some(to) {
            return self.waiting.push(bytes);
        }
        self.input(to, Input::Report { worker: 0, report: Report::Control(LinkId(0), bytes) });
    }

    /// Those that run say so every 10 ms, a fifth of their lease.
    fn wait(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 10 {
            for place in 0..2 {
                if self.frozen == Some(place) {
                    self.benches[place].now += ms(10);
                    continue;
                }
                let actions = self.benches[place].wait(ms(10));
                self.perform(place, actions);
                self.input(place, Input::Beat);
            }
        }
    }
}

#[test]
fn who_stood_still_enters_a_merge_as_one_who_holds_nothing() {
    for owner in 0..2 {
        let mut pair = Pair::held_by(owner);
        let other = 1 - owner;
        pair.frozen = Some(owner);
        pair.wait(ms(200));
        pair.link_down(other);
        pair.wait(ms(500));
        pair.commands = Default::default();
        // It wakes. Its worker and its neighbour are quicker than the keeper of its lease.
        pair.frozen = None;
        for bytes in std::mem::take(&mut pair.waiting) {
            pair.carry(owner, bytes);
        }
        pair.link_down(owner);
        (0..2).for_each(|place| pair.link_up(place));
        pair.wait(ms(200));
        pair.input(owner, Input::Host(HostReport::Lapsed));
        pair.wait(ms(2_000));
        let name = Pair::NAMES[other];
        assert_eq!(pair.owners(), [Some(name.to_owned()), Some(name.to_owned())], "{name} answered all the time");
        let gave_up = |command: &HostCommand| !matches!(command, HostCommand::Announce { .. });
        assert!(!pair.commands[other].iter().any(gave_up), "{:?}", pair.commands[other]);
        assert!(!pair.commands[owner].contains(&HostCommand::Announce { set: 0 }), "{:?}", pair.commands[owner]);
    }
}

#[test]
fn who_held_nothing_while_it_stood_still_takes_nothing_of_those_that_gave_it_up() {
    for owner in 0..2 {
        let mut pair = Pair::held_by(owner);
        pair.commands = Default::default();
        pair.frozen = Some(1 - owner);
        pair.wait(ms(200));
        pair.link_down(owner);
        pair.wait(ms(500));
        pair.frozen = None;
        pair.waiting.clear();
        // For itself it is alone now, and so the set would be its own.
        pair.link_down(1 - owner);
        pair.wait(ms(100));
        (0..2).for_each(|place| pair.link_up(place));
        pair.wait(ms(2_000));
        assert_eq!(pair.owners(), [0, 1].map(|_| Some(Pair::NAMES[owner].to_owned())));
        let speaks = |command: &HostCommand| !matches!(command, HostCommand::Release { .. });
        assert!(!pair.commands[1 - owner].iter().any(speaks), "{:?}", pair.commands[1 - owner]);
    }
}

#[test]
fn the_host_side_hears_what_the_others_say_of_flows_and_which_sets_they_hold() {
    for owner in 0..2 {
        let mut pair = Pair::held_by(owner);
        let ask = wire::flows::Message::Ask { serial: 7, whole: true }.emit().into_boxed_slice();
        let mut hears = |place: usize| {
            let report = Report::Control(LinkId(0), ask.clone());
            match pair.benches[place].input(Input::Report { worker: 0, report }).as_slice() {
                [Action::HostHears { holds, bytes, .. }] if *bytes == ask => holds.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(hears(owner), [] as [usize; 0], "the other holds nothing");
        assert_eq!(hears(1 - owner), [0]);
    }
}

#[test]
fn who_stood_still_and_stays_alone_answers_after_some_leases() {
    let mut pair = Pair::held_by(0);
    pair.frozen = Some(0);
    pair.wait(ms(200));
    pair.frozen = None;
    pair.commands = Default::default();
    pair.link_down(0);
    pair.wait(ms(50) * (vip::DESERTED - 1));
    assert!(pair.commands[0].is_empty(), "{:?}", pair.commands[0]);
    pair.wait(ms(100));
    assert!(matches!(pair.commands[0][..], [HostCommand::Acquire { set: 0, .. }]), "{:?}", pair.commands[0]);
}

#[test]
fn what_waits_for_room_is_void_once_this_router_knows_that_its_lease_has_run_out() {
    let acquire = HostCommand::Acquire { set: 0, wait: Duration::ZERO, from: None };
    let acquires = |action: &Action| matches!(action, Action::Host(HostCommand::Acquire { .. }));
    let knows = [
        (Duration::ZERO, Input::Beat, false),
        (Duration::ZERO, Input::Host(HostReport::Lapsed), false),
        (ms(200), Input::Beat, true),
        (ms(200), Input::Report { worker: 0, report: Report::LinkDown(LinkId(0), DownReason::Silence) }, true),
    ];
    for (asleep, input, itself) in knows {
        let mut pair = Pair::held_by(0);
        let bench = &mut pair.benches[0];
        bench.control.give_back(Action::Host(acquire));
        bench.now += asleep;
        let actions = bench.input(input.clone());
        let lapses = itself || matches!(input, Input::Host(_));
        assert_eq!(bench.control.woke(), itself.then_some(bench.now), "{input:?}");
        assert_eq!(actions.first().is_some_and(acquires), !lapses, "{input:?}: {actions:?}");
    }
}

#[test]
fn figures_are_asked_of_the_workers_in_rounds() {
    let mut bench = Bench::new(&[]);
    let stats = |in_| Report::Stats(Box::new(ShardStats { datagrams_in: in_, ..ShardStats::default() }));
    assert_eq!(brief(&bench.ask(ANN, Request::Stats)), ["query"]);
    assert!(bench.ask(BOB, Request::Stats).is_empty(), "he asked later: his answer must be younger");
    let actions = bench.report(stats(1));
    assert_eq!(brief(&actions), ["stats to 1", "query"]);
    let Action::Reply { response: Response::Stats { workers }, .. } = &actions[0] else { panic!() };
    assert_eq!(workers[0]["datagrams_in"], 1);
    assert!(workers[0]["control"]["routing"]["originated"].is_number());
    assert_eq!(brief(&bench.report(stats(2))), ["stats to 2"]);

    // A silent worker costs half a second, and its late answer is not taken for the next one.
    bench.ask(ANN, Request::Stats);
    assert!(bench.wait(stats::PATIENCE - ms(1)).is_empty());
    let late = bench.wait(ms(1));
    assert_eq!(brief(&late), ["error to 1"]);
    assert_eq!(brief(&bench.ask(ANN, Request::Stats)), ["query"]);
    assert!(bench.report(stats(3)).is_empty());
    let actions = bench.report(stats(4));
    let [Action::Reply { response: Response::Stats { workers }, .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(workers[0]["datagrams_in"], 4);
    bench.ask(ANN, Request::Stats);
    bench.input(Input::ClientGone(ANN));
    assert!(bench.report(stats(5)).is_empty());
    assert!(bench.report(stats(6)).is_empty(), "an answer that nobody asked for");
}

#[test]
fn who_asks_for_sessions_has_the_workers_asked_for_nothing_else() {
    let mut bench = Bench::new(&[]);
    let report = |port| {
        let session = SessionReport {
            session: SessionId(1),
            kind: "datagram".to_owned(),
            port,
            peer: None,
            sent: 3,
            delivered: 0,
            repeated: 0,
            unacknowledged: 0,
            unread: 0,
            carrier: Carrier::Memory,
        };
        Report::Sessions(vec![session])
    };
    assert_eq!(brief(&bench.ask(ANN, Request::Sessions)), ["query sessions"]);
    assert_eq!(brief(&bench.ask(BOB, Request::Stats)), ["query"], "other figures do not wait for it");
    assert!(bench.ask(CAT, Request::Sessions).is_empty(), "it is younger");
    let actions = bench.report(report(7));
    assert_eq!(brief(&actions), ["stats to 1", "query sessions"]);
    let Action::Reply { response: Response::Stats { workers }, .. } = &actions[0] else { panic!() };
    assert_eq!((&workers[0]["sessions"][0]["port"], &workers[0]["sessions"][0]["sent"]), (&7.into(), &3.into()));
    assert_eq!(workers[0].as_object().map(serde_json::Map::len), Some(1));
    assert_eq!(brief(&bench.wait(stats::PATIENCE)), ["error to 2", "error to 3"]);
}

#[test]
fn summaries_are_made_here_of_what_workers_copied() {
    let mut bench = Bench::new(&[]);
    let mut turn = Histogram::new();
    turn.record(ms(3));
    bench.ask(ANN, Request::Stats);
    let counted = ShardStats { counts: Some([turn.counts(), Default::default()]), ..ShardStats::default() };
    let actions = bench.report(Report::Stats(Box::new(counted)));
    let Action::Reply { response: Response::Stats { workers }, .. } = &actions[0] else { panic!() };
    assert_eq!(workers[0]["turn"]["count"], 1);
    assert!(workers[0].get("counts").is_none());
}

#[test]
fn histograms_come_whole_to_who_asked_for_them_alone() {
    let mut bench = Bench::new(&["b"]);
    let mut link = DataLink::new(Instant::ZERO, Default::default(), &[], Rng::from_u64(1));
    link.note_socket_wait(ms(7), 2);
    let report = LinkReport {
        link: LinkId(3),
        peer: id("b"),
        paths: Vec::new(),
        remote: None,
        up: true,
        since: ms(1),
        metrics: LinkMetrics::default(),
        stats: link.counted(),
    };
    let stats = || Report::Stats(Box::new(ShardStats { links: vec![report.clone()], ..ShardStats::default() }));
    assert_eq!(brief(&bench.ask(ANN, Request::Histograms)), ["query"]);
    assert!(bench.ask(BOB, Request::Stats).is_empty());
    let actions = bench.report(stats());
    assert_eq!(brief(&actions), ["stats to 1", "query"]);
    let Action::Reply { response: Response::Stats { workers }, .. } = &actions[0] else { panic!() };
    assert_eq!(workers[0]["histograms"].as_array().map(Vec::len), Some(1), "the others are empty");
    let shown = &workers[0]["histograms"][0];
    assert_eq!((shown["name"].as_str(), shown["peer"].as_str()), (Some("socket_wait"), Some("b")));
    assert_eq!(shown["link"], 3);
    let whole = hlog::decode(shown["hdr"].as_str().expect("a word")).expect("is a histogram");
    let mut expected = Histogram::new();
    expected.record_several(ms(7), 2);
    assert_eq!(&whole, expected.inner());
    assert_eq!(workers[0]["links"][0]["stats"]["socket_wait"]["count"], 2);
    let actions = bench.report(stats());
    let Action::Reply { response: Response::Stats { workers }, .. } = &actions[0] else { panic!() };
    assert!(workers[0].get("histograms").is_none(), "he did not ask for them");
}

fn reload(bench: &mut Bench, config: Config) -> (Response, Vec<String>) {
    assert_eq!(brief(&bench.ask(ANN, Request::Reload)), ["read"]);
    let actions = bench.input(Input::Reload(Ok(Box::new(config))));
    let answer = actions.iter().find_map(|action| match action {
        Action::Reply { client: ANN, response } => Some(response.clone()),
        _ => None,
    });
    let others: Vec<_> = actions.iter().filter(|action| !matches!(action, Action::Reply { .. })).collect();
    let others = others.into_iter().map(brief_one).filter(|action| !action.starts_with("control")).collect();
    (answer.expect("an answer"), others)
}

#[test]
fn a_reload_changes_links_live() {
    let mut bench = Bench::new(&["b", "c"]);
    bench.wait(ms(100));
    bench.up(0, ms(10));
    bench.up(1, ms(10));
    let mut new = config("a", &["d", "c", "b"]);
    new.links[1].queue = 7;
    let (answer, actions) = reload(&mut bench, new.clone());
    let Response::Reloaded { applied, not_applied } = answer else { panic!("{answer:?}") };
    assert_eq!(applied, ["link to `d` added", "link to `c` restarts with its new settings"]);
    assert!(not_applied.is_empty());
    assert_eq!(
        actions,
        ["remove link1".to_owned(), format!("add link2 {}", id("d")), format!("add link3 {}", id("c"))]
    );
    let shown: Vec<_> = bench.links().into_iter().map(|link| (link.peer, link.up)).collect();
    assert_eq!(shown, [("d".into(), false), ("c".into(), false), ("b".into(), true)]);
    assert!(bench.report(Report::LinkDown(LinkId(1), DownReason::Removed)).is_empty());
    // Again the same: nothing to do. Then without links.
    let (answer, actions) = reload(&mut bench, new);
    assert_eq!((answer, actions.len()), (Response::Reloaded { applied: vec![], not_applied: vec![] }, 0));
    let (_, actions) = reload(&mut bench, config("a", &[]));
    assert_eq!(actions, ["remove link2", "remove link3", "remove link0"]);
    assert!(bench.links().is_empty());
}

#[test]
fn link_numbers_are_not_reused_soon_and_never_twice() {
    let mut bench = Bench::new(&["b"]);
    for round in 1..200usize {
        let (_, actions) = reload(&mut bench, config("a", &[if round % 2 == 1 { "c" } else { "b" }]));
        assert_eq!(actions[0], format!("remove link{}", (round - 1) % MAX_LINKS));
        assert!(actions[1].starts_with(&format!("add link{} ", round % MAX_LINKS)), "{actions:?}");
    }
    let full: Vec<&str> = std::iter::repeat_n("d", MAX_LINKS).collect();
    reload(&mut bench, config("a", &full));
    let mut ids: Vec<_> = bench.control.links.iter().map(|link| link.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), MAX_LINKS);
}

#[test]
fn links_are_called_by_their_neighbours_names() {
    let mut bench = Bench::new(&["b", "c", "b"]);
    let name = |bench: &Bench, id| bench.control.link_name(LinkId(id));
    assert_eq!(name(&bench, 1), "link to `c`");
    assert_eq!([name(&bench, 0), name(&bench, 2)], ["link to `b` (1 of 2)", "link to `b` (2 of 2)"]);
    reload(&mut bench, config("a", &["d", "b"]));
    assert_eq!([name(&bench, 0), name(&bench, 3)], ["link to `b`", "link to `d`"]);
}

#[test]
fn a_reload_is_all_or_nothing() {
    let mut bench = Bench::new(&["b"]);
    let mut wrong = config("a", &["c", "nobody"]);
    wrong.routing.metric = Metric::Hops;
    let (answer, actions) = reload(&mut bench, wrong);
    let Response::Error { message } = answer else { panic!("{answer:?}") };
    assert!(message.contains("`nobody`"), "{message}");
    assert!(actions.is_empty());
    assert_eq!(bench.links()[0].peer, "b");
    bench.ask(ANN, Request::Reload);
    let actions = bench.input(Input::Reload(Err("sinew.toml:3: what?".into())));
    let [Action::Reply { response: Response::Error { message }, .. }] = actions.as_slice() else { panic!() };
    assert!(message.contains("sinew.toml:3"));
    // By a signal nobody asked.
    assert!(bench.input(Input::Reload(Err("no".into()))).is_empty());
}

#[test]
fn a_reload_changes_members_and_metric_and_says_what_it_cannot() {
    let mut chain = Chain::new();
    let mut new = config("a", &["b"]);
    new.members.retain(|member| member.name != "c");
    new.members.push(Member { name: "e".into(), public: identity("e").public().to_string() });
    new.routing.metric = Metric::Hops;
    new.control_socket = "elsewhere".into();
    let bench = &mut chain.benches[0];
    let (answer, _) = reload(bench, new.clone());
    let Response::Reloaded { applied, not_applied } = answer else { panic!("{answer:?}") };
    assert_eq!(applied.len(), 3, "{applied:?}");
    assert_eq!(not_applied, ["`control_socket` takes effect at the next start"]);
    bench.wait(ms(50));
    let Response::Routes { routes, .. } = bench.answer(Request::Routes) else { panic!() };
    let routes: Vec<_> = routes.into_iter().map(|route| (route.name, route.cost)).collect();
    assert_eq!(routes, [("b".to_owned(), 1.0)], "c is no member any more, and costs are hops");
    let (answer, _) = reload(bench, new);
    let Response::Reloaded { applied, not_applied } = answer else { panic!("{answer:?}") };
    assert_eq!((applied.len(), not_applied.len()), (0, 1), "still to be restarted for");
}

#[test]
fn leaves_politely() {
    let mut chain = Chain::new();
    let bench = &mut chain.benches[1];
    bench.wait(ms(1_000));
    let withdrawn = bench.input(Input::Shutdown);
    assert_eq!(brief(&withdrawn), ["control link0", "control link1"]);
    assert_eq!(brief(&bench.ask(ANN, Request::OpenDatagram { port: 0 })), ["error to 1"]);
    assert!(bench.input(Input::Shutdown).is_empty());
    assert_eq!(brief(&bench.wait(LEAVE_GRACE)), ["shutdown"]);
    assert!(bench.report(Report::LinkDown(LinkId(0), DownReason::Closed)).is_empty());
    assert_eq!(brief(&bench.report(Report::LinkDown(LinkId(1), DownReason::Closed))), ["exit"]);
    assert!(bench.wait(ms(1_000)).is_empty());

    // Workers that do not answer do not keep it alive; a router without neighbours leaves at once.
    let bench = &mut chain.benches[0];
    bench.input(Input::Shutdown);
    assert_eq!(brief(&bench.wait(LEAVE_GRACE + EXIT_AFTER)), ["shutdown", "exit"]);
    assert_eq!(brief(&Bench::new(&["b"]).input(Input::Shutdown)), ["shutdown", "exit"]);
}

/// A router with process groups, which b and c are to have, too.
fn with_groups() -> Bench {
    let members = ["a", "b", "c"].map(str::to_owned).to_vec();
    Bench::with(Config { groups: Some(Groups { members }), ..config("a", &["b"]) }).0
}

fn join(group: &str) -> Request {
    Request::JoinGroup { group: group.to_owned() }
}

#[test]
fn clients_join_a_group_and_are_told_what_is_said_there() {
    let mut bench = with_groups();
    assert_eq!(brief(&bench.ask(ANN, join("shift"))), ["joined to 1", "group told to 1"]);
    assert_eq!(brief(&bench.ask(BOB, join("shift"))), ["group told to 1", "joined to 2", "group told to 2"]);
    let said = bench.ask(ANN, Request::SendGroup { bytes: b"hello".to_vec() });
    assert_eq!(brief(&said), ["sent to 1", "group told to 1, 2"]);
    let event = GroupEvent::Message { from: "a.1".to_owned(), bytes: b"hello".to_vec() };
    assert!(matches!(&said[1], Action::Tell { response: Response::Group { event: told }, .. } if *told == event));
    let Response::Groups { routers, groups } = bench.answer(Request::Groups) else { panic!("groups are asked for") };
    assert_eq!(routers.members, ["a"]);
    assert_eq!(groups[0].members, ["a.1", "a.2"]);
    assert_eq!(brief(&bench.input(Input::ClientSlow(BOB))), ["group told to 1"]);
    let stats = bench.control.group_figures().expect("there are groups");
    let figure = |name: &str| stats[name].as_u64();
    assert_eq!(["slow", "delivered", "views", "processes"].map(figure), [Some(1), Some(2), Some(4), Some(1)]);
}

#[test]
fn what_a_group_cannot_be_asked_for_is_refused_with_what_to_do() {
    let mut bench = with_groups();
    let mut refused = |client, request| match bench.ask(client, request).as_slice() {
        [Action::Reply { response: Response::Error { message }, .. }] => message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(refused(ANN, join("Shift")).contains("is no group name"));
    assert!(refused(ANN, Request::SendGroup { bytes: Vec::new() }).contains("join one first"));
    bench.ask(ANN, join("shift"));
    let mut refused = |client, request| match bench.ask(client, request).as_slice() {
        [Action::Reply { response: Response::Error { message }, .. }] => message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(refused(ANN, join("other")).contains("a connection of its own"));
    let long = Request::SendGroup { bytes: vec![0; crate::base::limits::MAX_GROUP_MESSAGE + 1] };
    assert!(refused(ANN, long).contains("send it in parts"));
    let mut without = Bench::new(&["b"]);
    for request in [join("shift"), Request::SendGroup { bytes: Vec::new() }, Request::Groups] {
        assert!(matches!(without.answer(request), Response::Error { message } if message.contains("write [groups]")));
    }
}

#[test]
fn as_many_processes_as_there_may_be_join_and_no_more_until_one_leaves() {
    let mut bench = with_groups();
    let all = crate::base::limits::MAX_PROCESSES as u64;
    (1..=all).for_each(|client| drop(bench.ask(ClientId(client), join("shift"))));
    let late = ClientId(all + 1);
    match bench.ask(late, join("shift")).as_slice() {
        [Action::Reply { response: Response::Error { message }, .. }] => {
            assert!(message.contains("128 processes") && message.contains("let some leave"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    bench.input(Input::ClientGone(ClientId(7)));
    assert!(brief(&bench.ask(late, join("shift"))).contains(&format!("joined to {}", late.0)), "the place of another");
}

#[test]
fn whoever_a_route_leads_to_is_spoken_to_by_it_and_nobody_else() {
    let mut bench = with_groups();
    let (b, c) = (id("b"), id("c"));
    let far = |actions: &[Action]| -> BTreeSet<String> {
        brief(actions).into_iter().filter(|text| text.starts_with("far")).collect()
    };
    assert!(far(&bench.wait(ms(1_000))).is_empty(), "no route leads anywhere");
    bench.control.publish([(b, LinkId(0)), (c, LinkId(0))]);
    let both = BTreeSet::from([format!("far {b}"), format!("far {c}")]);
    assert_eq!(far(&bench.input(Input::Timer)), both, "a neighbour and one behind it alike");
    bench.control.publish([(b, LinkId(0))]);
    bench.input(Input::Timer);
    assert!(!far(&bench.wait(ms(5_000))).contains(&format!("far {c}")));
    let before = bench.control.refused_messages();
    bench.report(Report::Far(id("d"), Box::new([wire::membership::PROTOCOL, 1])));
    bench.report(Report::Far(b, Box::new([77])));
    assert_eq!(bench.control.refused_messages() - before, 2, "of no member, of no protocol");
    let groups = bench.control.groups.as_mut().expect("there are groups");
    assert_eq!([id("d"), id("e")].map(|node| groups.is_new_stranger(node)), [false, true], "the log was told of d");
}
