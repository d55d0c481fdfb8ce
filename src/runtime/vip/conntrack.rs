//! The kernel's connection tracking: what it tells of the flows that pass this host, and how it is told of one that passed
//! another host until now.
//!
//! Events come from the multicast groups of ctnetlink, everything there is from a dump, both in the same words. TCP and UDP
//! are looked at, in the zone that everybody has: of TCP what is established, of UDP what both sides have spoken in more
//! than once (`IPS_ASSURED`). Related flows that helpers expect (FTP) are not.
//!
//! A flow is created as confirmed, answered and assured. Where the window of its TCP stands is not known: the kernel learns
//! it from the next packet, and lets pass what does not fit (`BE_LIBERAL`). Translated addresses (NAT) are asked for as they
//! were: from the first tuple the kernel makes the other one.
//!
//! Layouts and numbers: `linux/netfilter/nfnetlink_conntrack.h`, `nf_conntrack_common.h`, `nf_conntrack_tcp.h`.

use super::super::netlink::{Message, Netlink, Reply, attribute, messages, octets};
use super::super::sys;
use crate::wire::flows::{Change, Flow, MAX_SCALE, STATES, TCP, Tcp, Tuple, UDP};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

/// The groups of what is new, changed and over.
const GROUPS: libc::c_int = 7;
/// Room for events while nobody reads: some 20,000.
const ROOM: libc::c_int = 8 << 20;
/// What one read takes of an event.
const READ_LEN: usize = 32 * 1024;
/// Events taken before other things have their turn.
const AT_ONCE: usize = 512;

const SUBSYSTEM: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const NAT_SOURCE: u16 = 6;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
const NAT_DESTINATION: u16 = 13;
const ZONE: u16 = 18;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

const INFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// Of the first direction; that of answers is the next number, as with the flags.
const TCP_SCALE: u16 = 2;
const TCP_FLAGS: u16 = 4;

const NAT_PORTS: u16 = 3;

const SEEN_REPLY: u32 = 2;
const ASSURED: u32 = 4;
const CONFIRMED: u32 = 8;
const WINDOW_SCALE: u8 = 1;
const SELECTIVE_ACKS: u8 = 2;
const BE_LIBERAL: u8 = 8;
const BEFORE_TIME_WAIT: u8 = 6;
const CLOSED: u8 = 8;

/// What became of flows that the kernel was told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Created {
    pub(super) done: u64,
    pub(super) refused: u64,
}

/// What looking at the events has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// There is nothing more.
    All,
    /// There may be more.
    Some,
    /// The kernel had no room for all that happened.
    Overflow,
}

/// The kernel's table of flows, in one network namespace.
#[derive(Debug)]
pub(super) struct Conntrack {
    events: OwnedFd,
    dumping: Netlink,
    telling: Netlink,
    buffer: Vec<u8>,
}

impl Conntrack {
    /// In the calling thread's network namespace. From here on the kernel keeps its events for us.
    pub(super) fn open() -> io::Result<Conntrack> {
        let events = sys::netlink_listener(libc::NETLINK_NETFILTER, GROUPS)?;
        if sys::set_option(events.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM).is_err() {
            sys::set_option(events.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, ROOM)?;
        }
        let mut dumping = Netlink::open_netfilter()?;
        // Where the kernel has none, this is refused.
        dumping.begin_dump(request(GET), &[0; 4])?;
        while dumping.read_dump(|_, _| {})? {}
        Ok(Conntrack { events, dumping, telling: Netlink::open_netfilter()?, buffer: vec![0; READ_LEN] })
    }

    /// What a poll is to wait for.
    pub(super) fn descriptor(&self) -> RawFd {
        self.events.as_raw_fd()
    }

    /// Takes what the kernel has told.
    pub(super) fn look(&mut self, mut take: impl FnMut(Change)) -> io::Result<Looked> {
        for _ in 0..AT_ONCE {
            match sys::receive_record(self.events.as_fd(), &mut self.buffer) {
                Ok(len) => messages(&self.buffer[..len]).filter_map(read).for_each(&mut take),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Looked::Overflow),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Looked::All),
                Err(error) => return Err(error),
            }
        }
        Ok(Looked::Some)
    }

    /// Asks for all flows.
    pub(super) fn begin_dump(&mut self) -> io::Result<()> {
        self.dumping.begin_dump(request(GET), &[0; 4])
    }

    /// Takes some of the flows that were asked for. False: those were the last.
    pub(super) fn read_dump(&mut self, mut take: impl FnMut(Flow)) -> io::Result<bool> {
        self.dumping.read_dump(|kind, body| {
            if let Some(Change::Here(flow)) = read(Reply { kind, sequence: 0, body }) {
                take(flow);
            }
        })
    }

    /// Makes flows as they are said to be. Of those that the kernel has already it keeps what it knows, unless they are to
    /// be replaced: what passed here once, and elsewhere since, is not as it was.
    pub(super) fn create(&mut self, flows: &[Flow], replace: bool) -> io::Result<Created> {
        let failed = self.telling.request_all(flows.iter().map(creation).collect())?;
        let (known, refused): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|(_, error)| error.kind() == io::ErrorKind::AlreadyExists);
        let mut refused = refused.len();
        if replace {
            let again =
                known.iter().flat_map(|&(place, _)| [deletion(&flows[place].original), creation(&flows[place])]);
            let failed = self.telling.request_all(again.collect())?;
            // What could not be deleted can be gone.
            refused += failed.iter().filter(|(place, _)| place % 2 == 1).count();
        }
        let kept = if replace { 0 } else { known.len() };
        // A kernel that answers twice for one is not believed to have made fewer than none.
        let done = flows.len().saturating_sub(refused + kept);
        Ok(Created { done: done as u64, refused: refused as u64 })
    }

    /// Forgets flows; answers how many there were.
    pub(super) fn delete(&mut self, flows: &[Tuple]) -> io::Result<u64> {
        let failed = self.telling.request_all(flows.iter().map(deletion).collect())?;
        Ok(flows.len().saturating_sub(failed.len()) as u64)
    }
}

const fn request(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

/// What an event or an entry of a dump says that is worth telling.
fn read(reply: Reply<'_>) -> Option<Change> {
    // `struct nfgenmsg`
    let attributes = reply.body.get(4..)?;
    let original = read_tuple(attribute(attributes, ORIGINAL)?)?;
    if reply.kind >> 8 != SUBSYSTEM || attribute(attributes, ZONE).is_some() {
        return None;
    }
    match reply.kind & 0xff {
        DELETE => return Some(Change::Gone(original)),
        NEW => {}
        _ => return None,
    }
    let number = |kind| Some(u32::from_be_bytes(attribute(attributes, kind)?.try_into().ok()?));
    let tcp = if original.protocol == TCP {
        let info = attribute(attribute(attributes, PROTOCOL_INFO)?, INFO_TCP)?;
        match read_tcp(info)? {
            tcp if STATES.contains(&tcp.state) => Some(tcp),
            // Over, but for what may still be on its way.
            Tcp { state: BEFORE_TIME_WAIT..=CLOSED, .. } => return Some(Change::Gone(original)),
            _ => return None,
        }
    } else {
        None
    };
    if number(STATUS)? & ASSURED == 0 {
        return None;
    }
    let reply = read_tuple(attribute(attributes, REPLY)?)?;
    let (mark, timeout) = (number(MARK).unwrap_or(0), number(TIMEOUT).unwrap_or(0));
    Some(Change::Here(Flow { original, reply, tcp, mark, timeout }))
}

fn read_tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, ports) = (attribute(bytes, TUPLE_IP)?, attribute(bytes, TUPLE_PROTOCOL)?);
    let &[protocol @ (TCP | UDP)] = attribute(ports, PROTOCOL_NUMBER)? else { return None };
    let port = |kind| Some(u16::from_be_bytes(attribute(ports, kind)?.try_into().ok()?));
    // Source and destination of IPv4 are 1 and 2, those of IPv6 3 and 4.
    let address = |kind| {
        let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(attribute(ip, kind)?).ok()?));
        let v6 = || Some(IpAddr::from(<[u8; 16]>::try_from(attribute(ip, kind + 2)?).ok()?));
        v4().or_else(v6)
    };
    let source = SocketAddr::new(address(1)?, port(SOURCE_PORT)?);
    let destination = SocketAddr::new(address(2)?, port(DESTINATION_PORT)?);
    (source.is_ipv4() == destination.is_ipv4()).then_some(Tuple { protocol, source, destination })
}

fn read_tcp(info: &[u8]) -> Option<Tcp> {
    let byte = |kind| attribute(info, kind).and_then(|value| value.first().copied());
    let both = |kind| [kind, kind + 1].map(|kind| byte(kind).unwrap_or(0));
    let scales = both(TCP_SCALE).map(|scale| scale.min(MAX_SCALE));
    Some(Tcp { state: byte(TCP_STATE)?, flags: both(TCP_FLAGS), scales })
}

/// `struct nfgenmsg`: family, version, resource.
fn about(kind: u16, flags: i32, tuple: &Tuple) -> Message {
    let family = if tuple.source.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut message = Message::new(request(kind), flags, &[family as u8, 0, 0, 0]);
    put_tuple(&mut message, ORIGINAL, tuple);
    message
}

fn deletion(tuple: &Tuple) -> Message {
    about(DELETE, 0, tuple)
}

fn creation(flow: &Flow) -> Message {
    let mut message = about(NEW, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &flow.original);
    put_tuple(&mut message, REPLY, &flow.original.turned());
    for (kind, value) in [(STATUS, SEEN_REPLY | ASSURED | CONFIRMED), (TIMEOUT, flow.timeout), (MARK, flow.mark)] {
        message.attribute(kind, &value.to_be_bytes());
    }
    let turned = flow.original.turned();
    if flow.reply.destination != turned.destination {
        put_translation(&mut message, NAT_SOURCE, flow.reply.destination);
    }
    if flow.reply.source != turned.source {
        put_translation(&mut message, NAT_DESTINATION, flow.reply.source);
    }
    if let Some(tcp) = flow.tcp {
        message.nested(PROTOCOL_INFO, |info| {
            info.nested(INFO_TCP, |info| put_tcp(info, tcp));
        });
    }
    message
}

fn put_tuple(message: &mut Message, kind: u16, tuple: &Tuple) {
    let first = if tuple.source.is_ipv4() { 1 } else { 3 };
    message.nested(kind, |it| {
        it.nested(TUPLE_IP, |ip| {
            ip.attribute(first, &octets(tuple.source.ip())).attribute(first + 1, &octets(tuple.destination.ip()));
        });
        it.nested(TUPLE_PROTOCOL, |ports| {
            ports.attribute(PROTOCOL_NUMBER, &[tuple.protocol]);
            ports.attribute(SOURCE_PORT, &tuple.source.port().to_be_bytes());
            ports.attribute(DESTINATION_PORT, &tuple.destination.port().to_be_bytes());
        });
    });
}

/// To exactly this address and port.
fn put_translation(message: &mut Message, kind: u16, to: SocketAddr) {
    let lowest = if to.is_ipv4() { 1 } else { 4 };
    let (ip, port) = (octets(to.ip()), to.port().to_be_bytes());
    message.nested(kind, |range| {
        range.attribute(lowest, &ip).attribute(lowest + 1, &ip);
        range.nested(NAT_PORTS, |ports| {
            ports.attribute(1, &port).attribute(2, &port);
        });
    });
}

fn put_tcp(info: &mut Message, tcp: Tcp) {
    let known = WINDOW_SCALE | SELECTIVE_ACKS;
    info.attribute(TCP_STATE, &[tcp.state]);
    for (number, (flags, scale)) in (0..).zip(tcp.flags.into_iter().zip(tcp.scales)) {
        info.attribute(TCP_SCALE + number, &[scale]);
        // `struct nf_ct_tcp_flags`: flags, and which of them are meant.
        info.attribute(TCP_FLAGS + number, &[flags & known | BE_LIBERAL, known | BE_LIBERAL]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::ladder::run_test;
    use crate::lab::netns::Netns;

    fn tuple(protocol: u8, source: &str, destination: &str) -> Tuple {
        let end = |text: &str| text.parse().expect("an address and a port");
        Tuple { protocol, source: end(source), destination: end(destination) }
    }

    /// One of each family: the first translated on both ends, the other a talk over UDP.
    fn flows() -> [Flow; 2] {
        let web = tuple(TCP, "192.0.2.1:40000", "203.0.113.1:443");
        let tcp = Some(Tcp { state: *STATES.start(), flags: [3, 3], scales: [7, 9] });
        let reply = tuple(TCP, "198.51.100.9:8443", "203.0.113.9:1024");
        let calls = tuple(UDP, "[2001:db8::1]:5060", "[2001:db8::2]:5060");
        [
            Flow { original: web, reply, tcp, mark: 7, timeout: 300 },
            Flow { original: calls, reply: calls.turned(), tcp: None, mark: 0, timeout: 120 },
        ]
    }

    fn body(message: &Message) -> Vec<u8> {
        message.encode(1)[16..].to_vec()
    }

    #[test]
    fn what_is_asked_for_reads_as_it_was_meant() {
        let [mut web, calls] = flows();
        // What is asked for says how to translate; what is told says what came of it.
        web.reply = web.original.turned();
        for flow in [web, calls] {
            let body = body(&creation(&flow));
            let read = |kind, len| read(Reply { kind: request(kind), sequence: 0, body: &body[..len] });
            let Some(Change::Here(mut told)) = read(NEW, body.len()) else { panic!("{flow:?}") };
            if let (Some(told), Some(meant)) = (&mut told.tcp, flow.tcp) {
                assert_eq!(told.flags, meant.flags.map(|flags| flags | BE_LIBERAL));
                told.flags = meant.flags;
            }
            assert_eq!(told, flow);
            assert_eq!(read(DELETE, body.len()), Some(Change::Gone(flow.original)));
            assert_eq!(read(GET, body.len()), None);
            for len in 0..body.len() {
                let _ = read(NEW, len);
            }
        }
    }

    #[test]
    fn only_what_is_established_is_told_and_what_closes_is_over() {
        let state = |state| {
            let mut flow = flows()[0];
            flow.tcp = flow.tcp.map(|tcp| Tcp { state, ..tcp });
            let body = body(&creation(&flow));
            read(Reply { kind: request(NEW), sequence: 0, body: &body })
        };
        let told: Vec<Option<bool>> =
            (0..=8).map(|number| state(number).map(|change| matches!(change, Change::Here(_)))).collect();
        let (here, gone) = (Some(true), Some(false));
        assert_eq!(told, [None, None, None, here, here, here, gone, gone, gone]);
    }

    #[test]
    fn the_kernel_has_what_it_was_told_of_and_says_so() {
        let name = "runtime::vip::conntrack::tests::the_kernel_has_what_it_was_told_of_and_says_so";
        let body = || {
            let namespace = Netns::new().expect("is made");
            namespace.run(|| {
                let mut conntrack = match Conntrack::open() {
                    Ok(conntrack) => conntrack,
                    Err(error) => {
                        crate::runtime::not_run::count(&format!("flows: this kernel tracks none: {error}"));
                        return Ok(());
                    }
                };
                let mut flows = flows();
                let created = |done, refused| Created { done, refused };
                assert_eq!(conntrack.create(&flows, false)?, created(2, 0));
                flows[1].mark = 9;
                assert_eq!(conntrack.create(&flows, false)?, created(0, 0), "they are there");
                assert_eq!(conntrack.create(&flows, true)?, created(2, 0));
                let mut told = Vec::new();
                conntrack.begin_dump()?;
                while conntrack.read_dump(|flow| told.push(flow))? {}
                told.sort_by_key(|flow| flow.original);
                let liberal = |flow: Flow| {
                    let flags = |tcp: Tcp| Tcp { flags: tcp.flags.map(|flags| flags & !BE_LIBERAL), ..tcp };
                    Flow { tcp: flow.tcp.map(flags), timeout: flow.timeout.next_multiple_of(10), ..flow }
                };
                assert_eq!(told.into_iter().map(liberal).collect::<Vec<_>>(), flows, "translated as they were");
                let mut events = Vec::new();
                assert_eq!(conntrack.look(|change| events.push(change))?, Looked::All);
                let here =
                    |change: &&Change| matches!(change, Change::Here(flow) if flow.original == flows[1].original);
                assert_eq!(events.iter().filter(here).count(), 2, "{events:?}");
                let gone = |change: &&Change| matches!(change, Change::Gone(_));
                assert_eq!(events.iter().filter(gone).count(), 2, "{events:?}");
                let both = flows.map(|flow| flow.original);
                assert_eq!([conntrack.delete(&both)?, conntrack.delete(&both)?], [2, 0]);
                Ok(())
            })
        };
        if !run_test(name, || body().expect("the kernel answers")) {
            crate::runtime::not_run::count(name);
        }
    }
}
