//! A minimal netlink client: interfaces, addresses, routes and neighbours of the calling thread's network namespace
//! (rtnetlink), and transactions of its packet filter (nfnetlink); its connection tracking is in `vip/conntrack.rs`.
//!
//! Synchronous: one request, one answer (`NLM_F_ACK`); a dump or a transaction is one request too. [`Message`] builds the
//! bytes without a socket, and `messages` reads them, so both are tested without one. Layout: `netlink(7)`,
//! `rtnetlink(7)`, `linux/netfilter/nfnetlink.h`; numbers: `linux/if_link.h`, `linux/rtnetlink.h`, `linux/veth.h`.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An Ethernet address.
pub type Mac = [u8; 6];

const HEADER_LEN: usize = 16;
const NLA_F_NESTED: u16 = 1 << 15;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
/// What one read takes: the kernel fills no more than this with one part of a dump.
const READ_LEN: usize = 32 * 1024;

/// One request under construction: header, fixed part, attributes.
#[derive(Clone, Debug)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A request of this kind, with these flags beside `NLM_F_REQUEST | NLM_F_ACK`, starting with this fixed part.
    pub fn new(kind: u16, flags: i32, fixed: &[u8]) -> Message {
        let flags = flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        let mut message = Message { kind, flags: flags as u16, body: fixed.to_vec() };
        message.pad();
        message
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Message {
        let len = u16::try_from(value.len() + 4).expect("no attribute here is near 64 KiB");
        self.body.extend_from_slice(&len.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds a string attribute, closed by a zero byte.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Message {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// Adds an attribute that holds whatever `fill` adds.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) -> &mut Message {
        let start = self.body.len();
        self.body.extend_from_slice(&[0; 4]);
        fill(self);
        let len = u16::try_from(self.body.len() - start).expect("no attribute here is near 64 KiB");
        self.body[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.body[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self
    }

    /// Adds raw bytes, as the fixed part inside `VETH_INFO_PEER` is.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Message {
        self.body.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// The same, acknowledged only if it fails.
    fn unacknowledged(mut self) -> Message {
        self.flags &= !(libc::NLM_F_ACK as u16);
        self
    }

    /// The bytes to send.
    pub fn encode(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.body.len());
        let len = u32::try_from(HEADER_LEN + self.body.len()).expect("a request is far below 4 GiB");
        bytes.extend_from_slice(&len.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }
}

/// `struct ifinfomsg`.
fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// The number of an address's family.
pub(super) fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

/// An address as it stands in messages.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// One end of a veth pair to create.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Interface name, at most 15 bytes.
    pub name: &'a str,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The namespace it is born in; `None` is the caller's.
    pub namespace: Option<BorrowedFd<'a>>,
}

/// A route to add.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Destination; the unspecified address with prefix 0 is the default route.
    pub destination: IpAddr,
    /// Length of the destination's prefix.
    pub prefix: u8,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Outgoing interface.
    pub device: Option<u32>,
    /// Source address of what this host sends along it.
    pub source: Option<IpAddr>,
}

/// A connection to the kernel's netlink, bound to the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    /// What one read takes.
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a connection to rtnetlink in the calling thread's network namespace.
    pub fn open() -> io::Result<Netlink> {
        Netlink::open_family(libc::NETLINK_ROUTE)
    }

    /// Opens a connection to the packet filter of the calling thread's network namespace.
    pub fn open_netfilter() -> io::Result<Netlink> {
        Netlink::open_family(libc::NETLINK_NETFILTER)
    }

    fn open_family(family: libc::c_int) -> io::Result<Netlink> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: plain system call; the descriptor it returns is owned by nobody else.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, family) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by socket(2).
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: the pointer and length describe `on`. Refusal only costs the explanation in error texts.
            unsafe {
                libc::setsockopt(fd, libc::SOL_NETLINK, option, std::ptr::from_ref(&on).cast(), 4);
            }
        }
        Ok(Netlink { socket, sequence: 0, buffer: vec![0; READ_LEN] })
    }

    /// Sends a request and waits for its acknowledgement.
    pub fn request(&mut self, message: &Message) -> io::Result<()> {
        self.ask(message).map(drop)
    }

    /// Sends a request; returns the body of the first message that answers it (empty if only acknowledged).
    pub(super) fn ask(&mut self, message: &Message) -> io::Result<Vec<u8>> {
        let sequence = self.next_sequence();
        self.send(&message.encode(sequence))?;
        let mut answer = Vec::new();
        loop {
            let got = self.receive()?;
            for reply in messages(&self.buffer[..got]).filter(|reply| reply.sequence == sequence) {
                match reply.outcome() {
                    Some(result) => return result.map(|()| answer),
                    None if answer.is_empty() => answer = reply.body.to_vec(),
                    None => {}
                }
            }
        }
    }

    /// Asks for a whole table; returns the kind and the body of each of its entries.
    pub(super) fn dump(&mut self, kind: u16, fixed: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
        self.begin_dump(kind, fixed)?;
        let mut entries = Vec::new();
        while self.read_dump(|kind, body| entries.push((kind, body.to_vec())))? {}
        Ok(entries)
    }

    /// Asks for a whole table, to be read by [`Netlink::read_dump`] before anything else is asked.
    pub(super) fn begin_dump(&mut self, kind: u16, fixed: &[u8]) -> io::Result<()> {
        let sequence = self.next_sequence();
        self.send(&Message::new(kind, libc::NLM_F_DUMP, fixed).encode(sequence))
    }

    /// Reads some entries of the table, each by its kind and body: what the kernel tells at a time, without
    /// waiting. False: that was all.
    pub(super) fn read_dump(&mut self, mut entry: impl FnMut(u16, &[u8])) -> io::Result<bool> {
        let got = self.receive()?;
        let sequence = self.sequence;
        for reply in messages(&self.buffer[..got]).filter(|reply| reply.sequence == sequence) {
            if i32::from(reply.kind) == libc::NLMSG_DONE {
                return Ok(false);
            }
            match reply.outcome() {
                Some(result) => return result.map(|()| false),
                None => entry(reply.kind, reply.body),
            }
        }
        Ok(true)
    }

    /// Sends requests in one go, which are performed one by one; answers which of them failed, by their places, and why.
    pub(super) fn request_all(&mut self, requests: Vec<Message>) -> io::Result<Vec<(usize, io::Error)>> {
        let (first, count) = (self.sequence.wrapping_add(1), requests.len());
        let mut bytes = Vec::new();
        for (place, request) in requests.into_iter().enumerate() {
            // The answer to the last one says that all answers are in.
            let request = if place + 1 == count { request } else { request.unacknowledged() };
            let sequence = self.next_sequence();
            bytes.extend_from_slice(&request.encode(sequence));
        }
        let mut failed = Vec::new();
        if count == 0 {
            return Ok(failed);
        }
        self.send(&bytes)?;
        loop {
            let got = self.receive()?;
            for reply in messages(&self.buffer[..got]) {
                let Some(outcome) = reply.outcome() else { continue };
                let place = reply.sequence.wrapping_sub(first) as usize;
                if let Err(error) = outcome
                    && place < count
                {
                    failed.push((place, error));
                }
                if place + 1 == count {
                    return Ok(failed);
                }
            }
        }
    }

    /// Performs a transaction of the packet filter: all of it or, with the first error, nothing. `subsystem` is
    /// `NFNL_SUBSYS_…`.
    pub fn transact(&mut self, subsystem: u16, requests: Vec<Message>) -> io::Result<()> {
        // `struct nfgenmsg`: no family, version 0, and whose transaction this is, in network order.
        let frame = |kind| Message::new(kind, 0, &[&[0, 0], &subsystem.to_be_bytes()[..]].concat()).unacknowledged();
        let first = self.next_sequence();
        let mut bytes = frame(NFNL_MSG_BATCH_BEGIN).encode(first);
        let (mut last, count) = (first, requests.len());
        for (place, request) in requests.into_iter().enumerate() {
            last = self.next_sequence();
            // The answer to the last one says that all answers are in.
            let request = if place + 1 == count { request } else { request.unacknowledged() };
            bytes.extend_from_slice(&request.encode(last));
        }
        let end = self.next_sequence();
        bytes.extend_from_slice(&frame(NFNL_MSG_BATCH_END).encode(end));
        self.send(&bytes)?;
        let mut result = Ok(());
        loop {
            let got = self.receive()?;
            for reply in messages(&self.buffer[..got]) {
                let Some(outcome) = reply.outcome() else { continue };
                if result.is_ok() {
                    result = outcome;
                }
                // What is wrong with the whole is said of its first message, and then nothing else is.
                if reply.sequence == last || reply.sequence == first {
                    return result;
                }
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length describe `bytes`.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let (socket, buffer) = (self.socket.as_raw_fd(), &mut self.buffer);
        loop {
            // SAFETY: the pointer and length describe `buffer`.
            let got = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            match usize::try_from(got) {
                Ok(got) => return Ok(got),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Creates a pair of connected virtual Ethernet interfaces.
    pub fn add_veth(&mut self, a: VethEnd<'_>, b: VethEnd<'_>) -> io::Result<()> {
        let describe = |message: &mut Message, end: VethEnd<'_>| {
            message.text(IFLA_IFNAME, end.name).attribute(IFLA_ADDRESS, &end.mac);
            if let Some(namespace) = end.namespace {
                message.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
            }
        };
        let mut message = create(libc::RTM_NEWLINK, &ifinfo(0, 0, 0));
        describe(&mut message, a);
        message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.raw(&ifinfo(0, 0, 0));
                    describe(peer, b);
                });
            });
        });
        self.request(&message)
    }

    /// Creates a bridge.
    pub fn add_bridge(&mut self, name: &str) -> io::Result<()> {
        let mut message = create(libc::RTM_NEWLINK, &ifinfo(0, 0, 0));
        message.text(IFLA_IFNAME, name).nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
        });
        self.request(&message)
    }

    /// Makes an interface a port of a bridge.
    pub fn set_master(&mut self, index: u32, master: u32) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_SETLINK, 0, &ifinfo(index, 0, 0));
        self.request(message.attribute(IFLA_MASTER, &master.to_ne_bytes()))
    }

    /// Deletes an interface; of a veth pair, both.
    pub fn delete(&mut self, index: u32) -> io::Result<()> {
        self.request(&Message::new(libc::RTM_DELLINK, 0, &ifinfo(index, 0, 0)))
    }

    /// The number of the interface with this name.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        let mut message = Message::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        let body = self.ask(message.text(IFLA_IFNAME, name))?;
        let index = body.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        index.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer has no interface number"))
    }

    /// Whether the interface with this name is up and has a carrier.
    pub(super) fn is_up(&mut self, name: &str) -> io::Result<bool> {
        let mut message = Message::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        let body = self.ask(message.text(IFLA_IFNAME, name))?;
        let flags = body.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let wanted = (libc::IFF_UP | libc::IFF_LOWER_UP).cast_unsigned();
        Ok(flags & wanted == wanted)
    }

    /// Brings an interface up or takes it down.
    pub fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        let flag = libc::IFF_UP as u32;
        self.request(&Message::new(libc::RTM_NEWLINK, 0, &ifinfo(index, if up { flag } else { 0 }, flag)))
    }

    /// Sets an interface's largest packet, bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(index, 0, 0));
        self.request(message.attribute(IFLA_MTU, &mtu.to_ne_bytes()))
    }

    /// Moves an interface to another namespace; it arrives down and without addresses.
    pub fn set_namespace(&mut self, index: u32, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(index, 0, 0));
        self.request(message.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes()))
    }

    /// Adds an address to an interface.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut fixed = [family(address), prefix, 0, 0, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let mut message = create(libc::RTM_NEWADDR, &fixed);
        message.attribute(IFA_LOCAL, &octets(address)).attribute(IFA_ADDRESS, &octets(address));
        self.request(&message)
    }

    /// Takes an address off an interface.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut fixed = [family(address), prefix, 0, 0, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let mut message = Message::new(libc::RTM_DELADDR, 0, &fixed);
        self.request(message.attribute(IFA_LOCAL, &octets(address)))
    }

    /// Adds a route to the main table.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let scope = if route.via.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        let fixed = [
            [family(route.destination), route.prefix, 0, 0],
            [libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST],
            [0; 4],
        ];
        let mut message = create(libc::RTM_NEWROUTE, fixed.as_flattened());
        if route.prefix > 0 {
            message.attribute(RTA_DST, &octets(route.destination));
        }
        if let Some(via) = route.via {
            message.attribute(RTA_GATEWAY, &octets(via));
        }
        if let Some(source) = route.source {
            message.attribute(RTA_PREFSRC, &octets(source));
        }
        if let Some(device) = route.device {
            message.attribute(RTA_OIF, &device.to_ne_bytes());
        }
        self.request(&message)
    }

    /// The Ethernet address behind an address, as this host believes; none if it does not know.
    pub fn neighbour(&mut self, index: u32, address: IpAddr) -> io::Result<Option<Mac>> {
        let entries = self.dump(libc::RTM_GETNEIGH, &[0; 12])?;
        let wanted = octets(address);
        Ok(entries.iter().find_map(|(_, body)| {
            // `struct ndmsg`: the interface is at 4.
            let (fixed, attributes) = body.split_first_chunk::<12>()?;
            let here = fixed[4..8] == index.to_ne_bytes() && attribute(attributes, NDA_DST)? == wanted;
            here.then(|| Mac::try_from(attribute(attributes, NDA_LLADDR)?).ok()).flatten()
        }))
    }

    /// Forgets a neighbour's Ethernet address.
    pub fn delete_neighbour(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        let mut fixed = [0; 12];
        fixed[0] = family(address);
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut message = Message::new(libc::RTM_DELNEIGH, 0, &fixed);
        self.request(message.attribute(NDA_DST, &octets(address)))
    }

    /// Writes a neighbour's Ethernet address down for good, so that nobody has to ask for it.
    pub fn add_neighbour(&mut self, index: u32, address: IpAddr, mac: Mac) -> io::Result<()> {
        let mut fixed = [0; 12];
        fixed[0] = family(address);
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let mut message = Message::new(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &fixed);
        message.attribute(NDA_DST, &octets(address)).attribute(NDA_LLADDR, &mac);
        self.request(&message)
    }
}

fn create(kind: u16, fixed: &[u8]) -> Message {
    Message::new(kind, libc::NLM_F_CREATE | libc::NLM_F_EXCL, fixed)
}

/// One message of a datagram from the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    /// What it is.
    pub(super) kind: u16,
    /// The request it answers; zero if none.
    pub(super) sequence: u32,
    /// What follows the header.
    pub(super) body: &'a [u8],
}

/// The messages of a datagram from the kernel. What is torn ends them.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let len = word(0) as usize;
        let body = bytes.get(HEADER_LEN..len)?;
        let reply = Reply { kind: u16::from_ne_bytes([header[4], header[5]]), sequence: word(8), body };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(reply)
    })
}

impl Reply<'_> {
    /// How the request ended, if this says so.
    fn outcome(&self) -> Option<io::Result<()>> {
        if i32::from(self.kind) != libc::NLMSG_ERROR {
            return None;
        }
        let code = self.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        if code == 0 {
            return Some(Ok(()));
        }
        let error = io::Error::from_raw_os_error(-code);
        // With NETLINK_CAP_ACK only the header of the request is repeated before the attributes.
        let reason = attribute(self.body.get(4 + HEADER_LEN..).unwrap_or_default(), NLMSGERR_ATTR_MSG);
        Some(Err(match reason {
            Some(text) => {
                let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
                io::Error::new(error.kind(), format!("{error}: {text}"))
            }
            None => error,
        }))
    }
}

/// The first attribute of this kind.
pub(super) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((head, _)) = bytes.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = bytes.get(4..len)?;
        if u16::from_ne_bytes([head[2], head[3]]) & !NLA_F_NESTED == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(7, 0, 0));
        message.text(IFLA_IFNAME, "ab").nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
        });
        let bytes = message.encode(9);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().expect("four")), bytes.len() as u32);
        let attributes = &bytes[HEADER_LEN + 16..];
        assert_eq!(attribute(attributes, IFLA_IFNAME), Some(&b"ab\0"[..]));
        let info = attribute(attributes, IFLA_LINKINFO).expect("is there");
        assert_eq!(attribute(info, IFLA_INFO_KIND), Some(&b"veth\0"[..]));
        assert_eq!(attribute(attributes, IFLA_MTU), None);
    }

    #[test]
    fn answers_are_told_apart() {
        let mut ack = Message { kind: libc::NLMSG_ERROR as u16, flags: 0, body: vec![0; 20] };
        let entry = Message::new(libc::RTM_NEWADDR, 0, &[7; 5]);
        let both = [entry.encode(2), ack.encode(3)].concat();
        let read: Vec<Reply<'_>> = messages(&both).collect();
        assert_eq!((read.len(), read[0].sequence, read[1].sequence), (2, 2, 3));
        assert!(read[0].outcome().is_none() && read[0].body.starts_with(&[7; 5]));
        assert!(matches!(read[1].outcome(), Some(Ok(()))));
        ack.body[..4].copy_from_slice(&(-libc::EEXIST).to_ne_bytes());
        ack.text(NLMSGERR_ATTR_MSG, "because");
        let refused = ack.encode(3);
        let Some(Some(Err(error))) = messages(&refused).next().map(|reply| reply.outcome()) else {
            panic!("an error is expected")
        };
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().ends_with("because"), "{error}");
        (0..both.len()).for_each(|len| assert!(messages(&both[..len]).count() < 2, "{len}"));
    }

    #[test]
    fn the_kernel_answers() {
        let mut netlink = Netlink::open().expect("a netlink socket needs no privilege");
        assert_eq!(netlink.index("lo").expect("every namespace has a loopback"), 1);
        assert!(netlink.index("no-such-iface").is_err());
    }
}
