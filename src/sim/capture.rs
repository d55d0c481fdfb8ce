//! Datagrams as a capture file that Wireshark opens: classic pcap with nanoseconds, raw IPv4 and UDP.
//!
//! The format is described in draft-ietf-opsawg-pcap; link type 101 is raw IP.

use super::clock::right_wall;
use crate::base::Instant;
use std::net::{IpAddr, SocketAddr};

/// Nanosecond timestamps, in the byte order of the writer.
const MAGIC: u32 = 0xa1b2_3c4d;
const LINKTYPE_RAW: u32 = 101;
const SNAPLEN: u32 = 65_535;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;

/// A capture file in the making.
#[derive(Debug)]
pub(super) struct Capture(Vec<u8>);

impl Capture {
    pub(super) fn new() -> Capture {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC.to_be_bytes());
        bytes.extend_from_slice(&2u16.to_be_bytes());
        bytes.extend_from_slice(&4u16.to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&SNAPLEN.to_be_bytes());
        bytes.extend_from_slice(&LINKTYPE_RAW.to_be_bytes());
        Capture(bytes)
    }

    /// Adds a datagram that leaves now.
    pub(super) fn datagram(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { return };
        let len = IP_HEADER + UDP_HEADER + payload.len();
        let (Ok(ip_len), Ok(udp_len)) = (u16::try_from(len), u16::try_from(len - IP_HEADER)) else { return };
        let wall = right_wall(now).as_nanos();
        for field in [wall / 1_000_000_000, wall % 1_000_000_000, len as u64, len as u64] {
            self.0.extend_from_slice(&(field as u32).to_be_bytes());
        }
        let mut header = [0; IP_HEADER];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&ip_len.to_be_bytes());
        header[6] = 0x40; // Do not fragment.
        header[8] = 64;
        header[9] = UDP;
        header[12..16].copy_from_slice(&source.octets());
        header[16..].copy_from_slice(&destination.octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        self.0.extend_from_slice(&header);
        for field in [from.port(), to.port(), udp_len, 0] {
            self.0.extend_from_slice(&field.to_be_bytes());
        }
        self.0.extend_from_slice(payload);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The Internet checksum (RFC 1071) of a header of whole words.
fn checksum(header: &[u8; IP_HEADER]) -> u16 {
    let words = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::topology::address;

    #[test]
    fn a_capture_has_its_header_and_one_packet() {
        let mut capture = Capture::new();
        capture.datagram(Instant::from_millis(1), address(0, 0), address(1, 0), b"hello");
        let bytes = capture.into_bytes();
        assert_eq!(bytes.len(), 24 + 16 + 28 + 5);
        assert_eq!(bytes[24 + 4..24 + 8], 1_000_000u32.to_be_bytes());
        let ip: [u8; IP_HEADER] = bytes[40..60].try_into().expect("twenty bytes");
        assert_eq!(checksum(&ip), 0, "a header with its checksum sums to zero");
        assert_eq!(&bytes[68..], b"hello");
    }
}
