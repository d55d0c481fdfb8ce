//! Connections through two routers that share a gateway on two networks, each with a packet filter that knows the
//! connections which pass it and refuses what belongs to none.
//!
//! ```text
//!   [client] ── 10.66.0.100 ┬ [a] ┬ 10.67.0.100 ── [server]      one set of both addresses, held by a or by b
//!                           └ [b] ┘
//! ```

use crate::members::{Group, Members, name};
use crate::support::{Machine, eventually, parsed, say, system_test};
use sinew::lab::netns::{Netns, sysctl};
use sinew::runtime::netlink::{Message, Netlink, Route};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between hellos, until a link is dead, and of a lease, in milliseconds.
const TIMES: [u64; 3] = [50, 1500, 1500];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 100);
const OTHER_SIDE: Ipv4Addr = Ipv4Addr::new(10, 67, 0, 100);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 67, 0, 1);
const PORT: u16 = 8000;
/// Numbers a second that the server sends.
const RATE: u64 = 1000;
/// How long a connection that is over goes on saying nothing.
const SILENCE: Duration = Duration::from_secs(4);

#[test]
fn through_a_packet_filter_outlive_their_router() {
    let name = "flows::through_a_packet_filter_outlive_their_router";
    system_test(name, Machine::Shared, || outlive(false));
}

#[test]
fn that_are_translated_outlive_their_router() {
    let name = "flows::that_are_translated_outlive_their_router";
    system_test(name, Machine::Shared, || outlive(true));
}

#[test]
fn of_which_the_next_router_knows_nothing_end_with_theirs() {
    let name = "flows::of_which_the_next_router_knows_nothing_end_with_theirs";
    system_test(name, Machine::Shared, || {
        for translated in [false, true] {
            let mut world = World::new(translated, false);
            let transfer = world.connect();
            transfer.goes_on("at first");
            world.kill();
            let before = transfer.received();
            std::thread::sleep(SILENCE);
            assert_eq!(transfer.received(), before, "the filter lets pass what it must not: this shows nothing");
            // It is the connection that is over, not the way.
            world.connect().goes_on("a new one");
        }
    });
}

/// One connection, over a killed owner, its return, a drain and an end in order.
fn outlive(translated: bool) {
    let mut world = World::new(translated, true);
    let transfer = world.connect();
    transfer.goes_on("at first");
    let killed = world.kill();
    transfer.goes_on("its owner was killed");
    world.members.start(killed);
    world.owner();
    let drained = world.order("drain");
    transfer.goes_on("its owner was drained");
    world.order("undrain");
    let moved = world.owner();
    assert_eq!((moved, drained), (killed, 1 - killed));
    world.members.signal(moved, libc::SIGTERM);
    assert!(world.members.ended(moved).success());
    world.owner();
    transfer.goes_on("its owner has ended");
    let figures = world.figures(drained);
    assert!(figures["flows_created"].as_u64() >= Some(1) && figures["flows_refused"] == 0, "{figures:#}");
    assert!(figures["flow_waits_over"] == 0 && figures["flows_malformed"] == 0, "{figures:#}");
    eventually("it would tell the others of it", || {
        (world.figures(drained)["flows_told"].as_u64() >= Some(1)).then_some(())
    });
}

struct World {
    members: Members,
    _server: Netns,
    drained: Option<usize>,
    _service: Service,
}

impl World {
    fn new(translated: bool, conntrack: bool) -> World {
        let mut members = Members::new(Group::new(2, vec![vec![GATEWAY.into()]], TIMES));
        let server = members.lan.behind();
        for member in 0..2 {
            members.lan.places[member].namespace.run(|| filter(translated)).expect("a packet filter can be made here");
            let text = std::fs::read_to_string(members.config(member)).expect("has a configuration");
            let both = format!("[\"{GATEWAY}\", \"{OTHER_SIDE}@eth1\"]\nrouter = true\nconntrack = {conntrack}");
            let text = text.replace(&format!("[\"{GATEWAY}\"]"), &both);
            std::fs::write(members.config(member), text).expect("is written");
            members.start(member);
        }
        members.settled();
        let towards = |netlink: &mut Netlink, network: [u8; 4], via: Ipv4Addr| {
            let device = Some(netlink.index("eth0")?);
            netlink.add_route(&Route {
                destination: network.into(),
                prefix: 24,
                via: Some(via.into()),
                device,
                source: None,
            })
        };
        let client = members.lan.client();
        members.lan.in_host(client, |netlink, _| towards(netlink, [10, 67, 0, 0], GATEWAY)).expect("a route");
        if !translated {
            server.run(|| towards(&mut Netlink::open()?, [10, 66, 0, 0], OTHER_SIDE)).expect("a route");
        }
        let service = Service::start(&server);
        World { members, _server: server, drained: None, _service: service }
    }

    fn owner(&self) -> usize {
        self.members.settled()[0]
    }

    /// Kills the owner, and waits for the next.
    fn kill(&mut self) -> usize {
        let owner = self.owner();
        self.members.signal(owner, libc::SIGKILL);
        self.members.ended(owner);
        assert_ne!(self.owner(), owner);
        owner
    }

    /// Drains the owner, or lets whom it drained have sets again; answers whom.
    fn order(&mut self, what: &str) -> usize {
        let member = self.drained.take().unwrap_or_else(|| self.owner());
        let line = format!("vip {what} {} --json", name(member));
        let output = self.members.command(0, &line).output().expect("the binary runs");
        assert!(output.status.success(), "sinew {line}: {}", String::from_utf8_lossy(&output.stderr));
        if what == "drain" {
            self.drained = Some(member);
            assert_ne!(self.owner(), member);
        }
        member
    }

    /// What a member counts of its host.
    fn figures(&self, member: usize) -> serde_json::Value {
        let output = self.members.command(member, "show stats --json").output().expect("the binary runs");
        let stats = parsed("show stats", &output.stdout);
        let workers = stats.get("workers").unwrap_or(&stats);
        workers[0]["vip_host"].clone()
    }

    fn connect(&self) -> Transfer {
        let client = &self.members.lan.places[self.members.lan.client()].namespace;
        let connect = || TcpStream::connect_timeout(&SocketAddr::from((SERVER, PORT)), Duration::from_secs(10));
        let stream = client.run(connect).expect("the server is reached");
        Transfer::start(stream)
    }
}

/// Sends numbers, one after the other, to whoever connects.
struct Service(Arc<AtomicBool>);

impl Service {
    fn start(server: &Netns) -> Service {
        let listener = server.run(|| TcpListener::bind((SERVER, PORT))).expect("a port is free");
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let stop = Arc::clone(&theirs);
                std::thread::spawn(move || count(stream, &stop));
            }
        });
        Service(stop)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn count(mut stream: TcpStream, stop: &AtomicBool) {
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) && stream.write_all(&number.to_be_bytes()).is_ok() {
        number += 1;
        std::thread::sleep(Duration::from_secs(1) / RATE as u32);
    }
}

/// A connection whose numbers are read.
struct Transfer {
    received: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Transfer {
    fn start(mut stream: TcpStream) -> Transfer {
        let received = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&received);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 8];
            for expected in 0.. {
                stream.read_exact(&mut bytes)?;
                assert_eq!(u64::from_be_bytes(bytes), expected, "a stream has an order");
                theirs.store(expected + 1, Ordering::Relaxed);
            }
            Ok(())
        });
        Transfer { received, thread }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// It brings more, and not only what was on its way.
    fn goes_on(&self, when: &str) {
        let before = self.received();
        let begin = std::time::Instant::now();
        eventually(&format!("{when}: the connection goes on"), || {
            assert!(!self.thread.is_finished(), "{when}: the connection was ended");
            (self.received() > before + RATE / 4).then_some(())
        });
        say(&format!("{when}: the connection went on within {:.1?}", begin.elapsed()));
    }
}

const NEWTABLE: u16 = 0;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NFTABLES: u16 = 10;
const FORWARD: u32 = 2;
const POSTROUTING: u32 = 4;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Forwards packets of connections that were seen to begin, and drops the rest; if asked for, in the other side's name.
/// (`linux/netfilter/nf_tables.h`)
fn filter(translated: bool) -> io::Result<()> {
    sysctl("ipv4/ip_forward", "1")?;
    // A packet in the middle of a TCP connection begins none.
    sysctl("netfilter/nf_conntrack_tcp_loose", "0")?;
    let mut table = about(NEWTABLE);
    table.text(1, "fw");
    let mut requests = vec![table, chain("forward", "filter", FORWARD, DROP), known()];
    if translated {
        requests.extend([chain("postrouting", "nat", POSTROUTING, ACCEPT), translate()]);
    }
    Netlink::open_netfilter()?.transact(NFTABLES, requests)
}

fn about(kind: u16) -> Message {
    Message::new(NFTABLES << 8 | kind, libc::NLM_F_CREATE | libc::NLM_F_APPEND, &[libc::AF_INET as u8, 0, 0, 0])
}

fn chain(name: &str, kind: &str, hook: u32, policy: u32) -> Message {
    let mut message = about(NEWCHAIN);
    message.text(1, "fw").text(3, name).nested(4, |place| {
        place.attribute(1, &hook.to_be_bytes()).attribute(2, &0u32.to_be_bytes());
    });
    message.attribute(5, &policy.to_be_bytes()).text(7, kind);
    message
}

fn rule(chain: &str, fill: impl FnOnce(&mut Message)) -> Message {
    let mut message = about(NEWRULE);
    message.text(1, "fw").text(2, chain).nested(4, fill);
    message
}

fn expression(rule: &mut Message, name: &str, numbers: &[(u16, u32)], values: &[(u16, &[u8])]) {
    rule.nested(1, |expression| {
        expression.text(1, name).nested(2, |it| {
            for (kind, number) in numbers {
                it.attribute(*kind, &number.to_be_bytes());
            }
            for (kind, value) in values {
                it.nested(*kind, |data| {
                    data.attribute(1, value);
                });
            }
        });
    });
}

/// `ct state new,established accept`
fn known() -> Message {
    let (established, new) = (2u32, 8u32);
    rule("forward", |rule| {
        expression(rule, "ct", &[(1, 1), (2, 0)], &[]);
        let mask = (established | new).to_ne_bytes();
        expression(rule, "bitwise", &[(1, 1), (2, 1), (3, 4)], &[(4, &mask), (5, &[0; 4])]);
        expression(rule, "cmp", &[(1, 1), (2, 1)], &[(3, &[0; 4])]);
        rule.nested(1, |accept| {
            accept.text(1, "immediate").nested(2, |it| {
                it.attribute(1, &0u32.to_be_bytes()).nested(2, |data| {
                    data.nested(2, |verdict| {
                        verdict.attribute(1, &ACCEPT.to_be_bytes());
                    });
                });
            });
        });
    })
}

/// `oifname eth1 snat to 10.67.0.100`
fn translate() -> Message {
    rule("postrouting", |rule| {
        expression(rule, "meta", &[(2, 7), (1, 1)], &[]);
        let mut name = [0; 16];
        name[..4].copy_from_slice(b"eth1");
        expression(rule, "cmp", &[(1, 1), (2, 0)], &[(3, &name)]);
        expression(rule, "immediate", &[(1, 1)], &[(2, &OTHER_SIDE.octets())]);
        expression(rule, "nat", &[(1, 0), (2, libc::AF_INET as u32), (3, 1)], &[]);
    })
}
