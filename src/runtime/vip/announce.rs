//! Announcements: telling the neighbourhood where an address is now.
//!
//! IPv4: a gratuitous ARP **request** (RFC 5227, 3: sender and target are the address, to everybody). Linux believes it at
//! once, while it ignores a reply within a second of another. IPv6: an unsolicited neighbour advertisement (RFC 4861,
//! 7.2.6) to all nodes, with the override flag.
//!
//! ```text
//!   acquired, told to, carrier back ──▶ 0 · 20 ms · 100 ms · 1 s · 5 s ── then every 30 s, while held and not mute
//! ```
//! The first ones are several because any may be lost; the last ones keep switches from forgetting the port.

use super::super::netlink::Mac;
use super::super::sys;
use crate::base::Instant;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

/// When to announce, counted from the beginning.
const BURST: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// When one set is announced next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Schedule {
    begun: Instant,
    done: usize,
    next: Option<Instant>,
}

impl Schedule {
    /// Begins anew: the first is due at once.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Schedule { begun: now, done: 0, next: Some(now) };
    }

    /// Nothing is due any more.
    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    /// When the next is due.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether one is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// It was sent. What was missed meanwhile is not made up for.
    pub(super) fn sent(&mut self, now: Instant, refresh: Duration) {
        self.done += 1;
        let planned = BURST.get(self.done).map(|&after| self.begun + after);
        self.next = Some(planned.filter(|&planned| planned > now).unwrap_or(if self.done < BURST.len() {
            now + BURST[1]
        } else {
            now + refresh
        }));
    }
}

/// Sends announcements.
#[derive(Debug)]
pub(super) struct Announcer(OwnedFd);

impl Announcer {
    /// In the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Announcer> {
        sys::packet_socket(0).map(Announcer)
    }

    /// Says that the address is at this Ethernet address, out of this interface.
    pub(super) fn announce(&self, index: u32, mac: Mac, address: IpAddr, router: bool) -> io::Result<()> {
        let send = |protocol: libc::c_int, to, bytes: &[u8]| {
            sys::send_frame(self.0.as_fd(), index, protocol as u16, to, bytes)
        };
        match address {
            IpAddr::V4(address) => send(libc::ETH_P_ARP, [0xff; 6], &request(mac, address)),
            IpAddr::V6(address) => {
                send(libc::ETH_P_IPV6, [0x33, 0x33, 0, 0, 0, 1], &advertisement(mac, address, router))
            }
        }
    }
}

/// The gratuitous request (RFC 826): Ethernet, IPv4, lengths, operation 1, sender, target.
fn request(mac: Mac, address: Ipv4Addr) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    bytes[8..14].copy_from_slice(&mac);
    bytes[14..18].copy_from_slice(&address.octets());
    bytes[24..28].copy_from_slice(&address.octets());
    bytes
}

/// The advertisement in its IPv6 packet, with the sender's link-layer address (option 2).
fn advertisement(mac: Mac, address: Ipv6Addr, router: bool) -> [u8; 72] {
    const OVERRIDE: u8 = 0x20;
    const ROUTER: u8 = 0x80;
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut bytes = [0; 72];
    // Version 6, 32 bytes of ICMPv6, hop limit 255: whoever forwards it makes it invalid.
    bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, 58, 255]);
    bytes[8..24].copy_from_slice(&address.octets());
    bytes[24..40].copy_from_slice(&ALL_NODES.octets());
    bytes[40] = 136;
    bytes[44] = OVERRIDE | if router { ROUTER } else { 0 };
    bytes[48..64].copy_from_slice(&address.octets());
    bytes[64..66].copy_from_slice(&[2, 1]);
    bytes[66..72].copy_from_slice(&mac);
    let sum = checksum(&bytes);
    bytes[42..44].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The checksum of an ICMPv6 packet behind its IPv6 header (RFC 8200, 8.1).
fn checksum(packet: &[u8; 72]) -> u16 {
    let pseudo = 32 + 58;
    let words = packet[8..].as_chunks::<2>().0.iter().map(|&pair| u32::from(u16::from_be_bytes(pair)));
    let mut sum: u32 = words.sum::<u32>() + pseudo;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0x53, 0x4e, 0, 0, 7];

    #[test]
    fn five_are_sent_soon_and_then_one_every_refresh() {
        let (mut schedule, refresh) = (Schedule::default(), Duration::from_secs(30));
        assert_eq!(schedule.next(), None);
        let begun = Instant::from_millis(5000);
        schedule.begin(begun);
        let mut sent = Vec::new();
        while sent.len() < 8 {
            let now = schedule.next().expect("goes on");
            assert!(schedule.is_due(now) && !schedule.is_due(now - Duration::from_nanos(1)));
            schedule.sent(now, refresh);
            sent.push(now.since(begun).as_millis());
        }
        assert_eq!(sent, [0, 20, 100, 1000, 5000, 35_000, 65_000, 95_000]);
        schedule.stop();
        assert!(!schedule.is_due(Instant::MAX));
    }

    #[test]
    fn a_late_announcement_is_not_made_up_for() {
        let mut schedule = Schedule::default();
        schedule.begin(Instant::ZERO);
        let late = Instant::from_millis(3000);
        schedule.sent(late, Duration::from_secs(30));
        assert_eq!(schedule.next(), Some(Instant::from_millis(3020)), "20 and 100 ms are past");
    }

    #[test]
    fn the_request_is_what_rfc_5227_calls_an_announcement() {
        let bytes = request(MAC, Ipv4Addr::new(192, 0, 2, 7));
        let expected = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0x53, 0x4e, 0, 0, 7, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 192, 0, 2, 7];
        assert_eq!(bytes, expected);
    }

    /// As a receiver does it (RFC 4861, 7.1.2): hop limit, checksum over everything, length of the option.
    #[test]
    fn the_advertisement_is_valid_to_its_receiver() {
        for router in [false, true] {
            let bytes = advertisement(MAC, "2001:db8::7".parse().expect("an address"), router);
            assert_eq!((bytes[7], bytes[40], bytes[41]), (255, 136, 0));
            assert_eq!(bytes[44], if router { 0xa0 } else { 0x20 });
            assert_eq!(checksum(&bytes), 0, "the sum over a packet with its checksum");
            assert_eq!(usize::from(bytes[65]) * 8, bytes[64..].len());
        }
    }
}
