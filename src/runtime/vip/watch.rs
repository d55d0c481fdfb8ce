//! What happens on the host's network without our doing: links that come and go, addresses that somebody takes off, and
//! other machines that speak for an address of ours (rivals).
//!
//! Links and addresses: rtnetlink's notifications, microseconds after the fact. They are hints: our own changes are among
//! them, they come late, and when the kernel had no room for all it says so ([`Seen::Overflow`]) and everything is looked at
//! anew. Whoever acts on one asks the kernel first.
//!
//! Rivals: two packet sockets hear what this host's filters let in of ARP and of neighbour advertisements. A socket filter
//! (classic BPF) passes only what names one of the virtual addresses as its sender's, so a busy network wakes nobody.

use super::super::netlink::{Mac, Netlink, Reply, attribute, messages};
use super::super::sys;
use super::addresses::{Entry, Placed};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

/// Datagrams taken from one socket before others have their turn.
const AT_ONCE: usize = 64;
/// Room for notifications while nobody reads.
const ROOM: libc::c_int = 1 << 20;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    /// None if it has no Ethernet address.
    pub(super) mac: Option<Mac>,
    /// Up, and with a carrier.
    pub(super) up: bool,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// An interface is new, or differs from what was known.
    Link(u32),
    /// An interface is gone.
    LinkGone(String),
    /// An address was taken off.
    AddressGone(Placed),
    /// The kernel could not tell everything.
    Overflow,
    /// Somebody spoke for an address.
    Speaks { index: u32, address: IpAddr, mac: Mac },
}

/// The sockets, and the links as they were last told.
#[derive(Debug)]
pub(super) struct Watch {
    asking: Netlink,
    notices: OwnedFd,
    arp: OwnedFd,
    advertisements: OwnedFd,
    links: BTreeMap<u32, Link>,
    buffer: Vec<u8>,
}

impl Watch {
    /// Watches for these addresses, in the calling thread's network namespace.
    pub(super) fn open(addresses: &[IpAddr]) -> io::Result<Watch> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let notices = sys::netlink_listener(libc::NETLINK_ROUTE, groups)?;
        if sys::set_option(notices.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM).is_err() {
            sys::set_option(notices.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, ROOM)?;
        }
        // A filter first, so that nothing slips in before it: without a protocol a socket hears nothing.
        let arp = sys::packet_socket(libc::ETH_P_ARP as u16)?;
        sys::attach_filter(arp.as_fd(), &arp_filter(addresses))?;
        let advertisements = sys::packet_socket(libc::ETH_P_IPV6 as u16)?;
        sys::attach_filter(advertisements.as_fd(), &advertisement_filter(addresses))?;
        let (links, buffer) = (BTreeMap::new(), vec![0; 32 * 1024]);
        let mut watch = Watch { asking: Netlink::open()?, notices, arp, advertisements, links, buffer };
        watch.look_at_links()?;
        Ok(watch)
    }

    /// What a poll is to wait for.
    pub(super) fn descriptors(&self) -> [RawFd; 3] {
        [self.notices.as_raw_fd(), self.arp.as_raw_fd(), self.advertisements.as_raw_fd()]
    }

    /// The interface with this number.
    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The interface with this name, and its number.
    pub(super) fn named(&self, name: &str) -> Option<(u32, &Link)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(&index, link)| (index, link))
    }

    /// Whether one of this host's interfaces has this Ethernet address.
    pub(super) fn is_own(&self, mac: Mac) -> bool {
        self.links.values().any(|link| link.mac == Some(mac))
    }

    /// Asks the kernel for all links.
    pub(super) fn look_at_links(&mut self) -> io::Result<()> {
        let entries = self.asking.dump(libc::RTM_GETLINK, &[0; 16])?;
        self.links = entries.iter().filter_map(|(_, body)| read_link(body)).collect();
        Ok(())
    }

    /// Asks the kernel for an interface's addresses.
    pub(super) fn addresses(&mut self, index: u32) -> io::Result<Vec<IpAddr>> {
        let entries = self.asking.dump(libc::RTM_GETADDR, &[0; 8])?;
        let placed = entries.iter().filter_map(|(_, body)| Some(Entry::read(body)?.placed));
        Ok(placed.filter(|placed| placed.index == index).map(|placed| placed.address).collect())
    }

    /// Takes what there is to be seen. True: there may be more.
    pub(super) fn look(&mut self, seen: &mut Vec<Seen>) -> bool {
        let notices = self.take_notices(seen);
        let arp = hear(&self.arp, &mut self.buffer, seen, |bytes, _| read_arp(bytes));
        notices | arp | hear(&self.advertisements, &mut self.buffer, seen, read_advertisement)
    }

    fn take_notices(&mut self, seen: &mut Vec<Seen>) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        for _ in 0..AT_ONCE {
            match sys::receive_record(self.notices.as_fd(), &mut buffer) {
                Ok(len) => messages(&buffer[..len]).for_each(|notice| self.notice(notice, seen)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => seen.push(Seen::Overflow),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    more = false;
                    break;
                }
            }
        }
        self.buffer = buffer;
        more
    }

    fn notice(&mut self, notice: Reply<'_>, seen: &mut Vec<Seen>) {
        match notice.kind {
            libc::RTM_NEWLINK => {
                let Some((index, link)) = read_link(notice.body) else { return };
                if self.links.get(&index) != Some(&link) {
                    self.links.insert(index, link);
                    seen.push(Seen::Link(index));
                }
            }
            libc::RTM_DELLINK => {
                let gone = read_link(notice.body).and_then(|(index, _)| self.links.remove(&index));
                seen.extend(gone.map(|link| Seen::LinkGone(link.name)));
            }
            libc::RTM_DELADDR => {
                seen.extend(Entry::read(notice.body).map(|entry| Seen::AddressGone(entry.placed)));
            }
            _ => {}
        }
    }
}

/// Reads frames, each with who sent it.
fn hear(
    socket: &OwnedFd,
    buffer: &mut [u8],
    seen: &mut Vec<Seen>,
    read: impl Fn(&[u8], Mac) -> Option<(IpAddr, Mac)>,
) -> bool {
    for _ in 0..AT_ONCE {
        match sys::receive_frame(socket.as_fd(), buffer) {
            Ok((len, index, from)) => {
                let spoken = read(&buffer[..len], from);
                seen.extend(spoken.map(|(address, mac)| Seen::Speaks { index, address, mac }));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// From the body of `RTM_NEWLINK`: `struct ifinfomsg`, then attributes.
fn read_link(body: &[u8]) -> Option<(u32, Link)> {
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    let (fixed, attributes) = body.split_first_chunk::<16>()?;
    // A bridge tells of its ports in the same words; that a port leaves it is not that the interface goes.
    if libc::c_int::from(fixed[0]) != libc::AF_UNSPEC {
        return None;
    }
    let word = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let name = attribute(attributes, IFLA_IFNAME)?;
    let name = String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned();
    let mac = attribute(attributes, IFLA_ADDRESS).and_then(|mac| Mac::try_from(mac).ok());
    let wanted = (libc::IFF_UP | libc::IFF_LOWER_UP).cast_unsigned();
    Some((word(4), Link { name, mac, up: word(8) & wanted == wanted }))
}

/// Who speaks for which address in an ARP packet (RFC 826, Ethernet and IPv4).
fn read_arp(bytes: &[u8]) -> Option<(IpAddr, Mac)> {
    let packet = bytes.first_chunk::<28>().filter(|packet| packet.starts_with(&[0, 1, 8, 0, 6, 4]))?;
    let mac = *packet[8..].first_chunk()?;
    Some((Ipv4Addr::from(*packet[14..].first_chunk::<4>()?).into(), mac))
}

/// Who speaks for which address in a neighbour advertisement, from its IPv6 header on.
fn read_advertisement(bytes: &[u8], from: Mac) -> Option<(IpAddr, Mac)> {
    let packet = bytes.first_chunk::<64>().filter(|packet| packet[6] == 58 && packet[7] == 255 && packet[40] == 136)?;
    Some((Ipv6Addr::from(*packet[48..].first_chunk::<16>()?).into(), from))
}

pub(super) const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const fn load_word(at: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

const fn load_byte(at: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, at)
}

/// Passes over `jt` instructions if the accumulator is `value`, over `jf` if it is not.
const fn compare(value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, value)
}

const fn answer(bytes: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}

/// The whole packet.
pub(super) const PASS: libc::sock_filter = answer(0x4_0000);
pub(super) const REFUSE: libc::sock_filter = answer(0);

/// Passes what has one of these in the accumulator, nothing else.
fn one_of(values: impl Iterator<Item = u32>) -> Vec<libc::sock_filter> {
    values.flat_map(|value| [compare(value, 0, 1), PASS]).chain([REFUSE]).collect()
}

/// ARP packets whose sender is one of the addresses. Offsets count from behind the link header.
fn arp_filter(addresses: &[IpAddr]) -> Vec<libc::sock_filter> {
    let v4 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(address.to_bits()),
        IpAddr::V6(_) => None,
    });
    [vec![load_word(14)], one_of(v4)].concat()
}

/// Neighbour advertisements whose target ends as one of the addresses does; the rest of it is looked at later.
fn advertisement_filter(addresses: &[IpAddr]) -> Vec<libc::sock_filter> {
    let v6 = addresses.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(address.to_bits() as u32),
        IpAddr::V4(_) => None,
    });
    let is_one = [load_byte(6), compare(58, 0, 2), load_byte(40), compare(136, 1, 0), REFUSE];
    [&is_one[..], &[load_word(60)], &one_of(v6)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [&str; 3] = ["192.0.2.7", "192.0.2.9", "2001:db8::7"];
    const MAC: Mac = [2, 0x53, 0x4e, 0, 0, 7];

    fn addresses() -> Vec<IpAddr> {
        OURS.iter().map(|text| text.parse().expect("an address")).collect()
    }

    /// What the kernel does with a program of these instructions, for the few that are used here.
    fn passes(program: &[libc::sock_filter], packet: &[u8]) -> bool {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let k = step.k as usize;
            match u32::from(step.code) {
                0x20 => match packet.get(k..k + 4) {
                    Some(word) => accumulator = u32::from_be_bytes(word.try_into().expect("four")),
                    None => return false,
                },
                0x30 => match packet.get(k) {
                    Some(&byte) => accumulator = byte.into(),
                    None => return false,
                },
                0x15 => at += usize::from(if accumulator == step.k { step.jt } else { step.jf }),
                0x06 => return step.k > 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn arp(sender: &str) -> Vec<u8> {
        let sender: Ipv4Addr = sender.parse().expect("an address");
        [&[0, 1, 8, 0, 6, 4, 0, 2][..], &MAC, &sender.octets(), &[0; 10]].concat()
    }

    fn told(target: &str, kind: u8) -> Vec<u8> {
        let target: Ipv6Addr = target.parse().expect("an address");
        let mut packet = vec![0; 72];
        (packet[6], packet[7], packet[40]) = (58, 255, kind);
        packet[48..64].copy_from_slice(&target.octets());
        packet
    }

    #[test]
    fn the_filters_pass_who_speaks_for_our_addresses_and_nothing_else() {
        let (v4, v6) = (arp_filter(&addresses()), advertisement_filter(&addresses()));
        assert!(passes(&v4, &arp("192.0.2.7")) && passes(&v4, &arp("192.0.2.9")));
        assert!(!passes(&v4, &arp("192.0.2.8")) && !passes(&v4, &arp("192.0.2.7")[..17]));
        assert!(passes(&v6, &told("2001:db8::7", 136)));
        assert!(!passes(&v6, &told("2001:db8::8", 136)) && !passes(&v6, &told("2001:db8::7", 135)));
        let mut tcp = told("2001:db8::7", 136);
        tcp[6] = 6;
        assert!(!passes(&v6, &tcp) && !passes(&v6, &tcp[..50]));
        assert!(!passes(&arp_filter(&[]), &arp("192.0.2.7")), "no addresses, no rivals");
    }

    #[test]
    fn frames_are_read_or_refused_but_never_beyond_their_end() {
        let (v4, v6) = (arp("192.0.2.7"), told("2001:db8::7", 136));
        let speaks = |text: &str| Some((text.parse().expect("an address"), MAC));
        assert_eq!(read_arp(&v4), speaks("192.0.2.7"));
        assert_eq!(read_advertisement(&v6, MAC), speaks("2001:db8::7"));
        (0..28).for_each(|len| assert_eq!(read_arp(&v4[..len]), None));
        (0..64).for_each(|len| assert_eq!(read_advertisement(&v6[..len], MAC), None));
        let mut forwarded = v6;
        forwarded[7] = 254;
        assert_eq!(read_advertisement(&forwarded, MAC), None, "a router stands between");
    }
}
