//! The overlay message: what crosses routers.
//!
//! ```text
//!  0         1     2       3          4             12       20      22      24
//! ├─────────┼─────┼───────┼──────────┼─────────────┼────────┼───────┼───────┼──────
//! │ version │ ttl │ flags │ protocol │ destination │ source │ dport │ sport │ body …
//! └─────────┴─────┴───────┴──────────┴─────────────┴────────┴───────┴───────┴──────
//! ```
//!
//! The version byte carries the version (1) in its high and the class in its low four bits. Routers on the path change
//! two fields only, in place: they count down `ttl` and set the congestion mark.

use super::Malformed;
use super::cursor::Reader;
use crate::base::hash::mix64;
use crate::base::limits::MAX_MESSAGE;
use crate::base::{Class, NodeId, Port};

/// Length of the header, bytes.
pub const HEADER_LEN: usize = 24;
/// Largest body of one message, bytes.
pub const MAX_BODY: usize = MAX_MESSAGE - HEADER_LEN;

const VERSION: u8 = 1;
const TTL_OFFSET: usize = 1;
const FLAGS_OFFSET: usize = 2;
const FLAG_MARK: u8 = 0b0000_0001;

/// What the body of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A fragment of a best-effort datagram.
    Datagram,
    /// A segment of a reliable flow.
    Segment,
    /// An end-to-end acknowledgement of a reliable flow.
    FlowAck,
    /// The other end does not know the flow, or gave it up.
    FlowReset,
    /// Ping.
    Echo,
    /// Answer to a ping.
    EchoReply,
    /// A router dropped an echo because its ttl ran out, and says so: what `trace` listens for.
    EchoExpired,
    /// A message of one router's control thread to another's that is no neighbour.
    Control,
}

impl Protocol {
    const fn code(self) -> u8 {
        match self {
            Protocol::Datagram => 1,
            Protocol::Segment => 2,
            Protocol::FlowAck => 3,
            Protocol::FlowReset => 4,
            Protocol::Echo => 5,
            Protocol::EchoReply => 6,
            Protocol::EchoExpired => 7,
            Protocol::Control => 8,
        }
    }

    const fn from_code(code: u8) -> Option<Protocol> {
        Some(match code {
            1 => Protocol::Datagram,
            2 => Protocol::Segment,
            3 => Protocol::FlowAck,
            4 => Protocol::FlowReset,
            5 => Protocol::Echo,
            6 => Protocol::EchoReply,
            7 => Protocol::EchoExpired,
            8 => Protocol::Control,
            _ => return None,
        })
    }
}

/// The header of a message, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Recovery class on every link.
    pub class: Class,
    /// Hops left.
    pub ttl: u8,
    /// Some link on the way was congested.
    pub mark: bool,
    /// What the body is.
    pub protocol: Protocol,
    /// The router it goes to.
    pub destination: NodeId,
    /// The router it comes from.
    pub source: NodeId,
    /// Session at the destination.
    pub destination_port: Port,
    /// Session at the source.
    pub source_port: Port,
}

impl Header {
    /// Reads the header; the body is what follows [`HEADER_LEN`] bytes.
    pub fn parse(message: &[u8]) -> Result<Header, Malformed> {
        if message.len() > MAX_MESSAGE {
            return Err(Malformed::Oversized);
        }
        let mut reader = Reader::new(message);
        let first = reader.u8()?;
        if first >> 4 != VERSION {
            return Err(Malformed::UnknownType);
        }
        let class = Class::from_code(first & 0x0f).ok_or(Malformed::UnknownType)?;
        let ttl = reader.u8()?;
        let flags = reader.u8()?;
        if flags & !FLAG_MARK != 0 {
            return Err(Malformed::ForbiddenValue);
        }
        Ok(Header {
            class,
            ttl,
            mark: flags & FLAG_MARK != 0,
            protocol: Protocol::from_code(reader.u8()?).ok_or(Malformed::UnknownType)?,
            destination: NodeId(reader.u64()?),
            source: NodeId(reader.u64()?),
            destination_port: reader.u16()?,
            source_port: reader.u16()?,
        })
    }

    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = (VERSION << 4) | self.class.code();
        bytes[TTL_OFFSET] = self.ttl;
        bytes[FLAGS_OFFSET] = if self.mark { FLAG_MARK } else { 0 };
        bytes[3] = self.protocol.code();
        bytes[4..12].copy_from_slice(&self.destination.0.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.source.0.to_be_bytes());
        bytes[20..22].copy_from_slice(&self.destination_port.to_be_bytes());
        bytes[22..24].copy_from_slice(&self.source_port.to_be_bytes());
        bytes
    }

    /// A hash of the two ends: equal for all messages of a flow and for what answers them, at every router.
    pub fn flow_hash(&self) -> u64 {
        // The odd constant is 2^64 over the golden ratio: ports in a row end up far apart.
        let end = |node: NodeId, port: Port| mix64(node.0 ^ u64::from(port).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mix64(end(self.destination, self.destination_port).wrapping_add(end(self.source, self.source_port)))
    }
}

/// Sets the congestion mark of an encoded message, which must hold a whole header.
pub fn set_mark(message: &mut [u8]) {
    message[FLAGS_OFFSET] |= FLAG_MARK;
}

/// Writes the hops left of an encoded message, which must hold a whole header.
pub fn set_ttl(message: &mut [u8], ttl: u8) {
    message[TTL_OFFSET] = ttl;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            class: Class::Reliable,
            ttl: 9,
            mark: false,
            protocol: Protocol::Segment,
            destination: NodeId(1),
            source: NodeId(u64::MAX),
            destination_port: 80,
            source_port: 65535,
        }
    }

    #[test]
    fn round_trips_and_changes_in_place() {
        let mut bytes = header().to_bytes();
        assert_eq!(Header::parse(&bytes), Ok(header()));
        set_mark(&mut bytes);
        set_ttl(&mut bytes, 3);
        assert_eq!(Header::parse(&bytes), Ok(Header { mark: true, ttl: 3, ..header() }));
    }

    #[test]
    fn both_directions_of_a_flow_have_one_hash_and_others_another() {
        let there = header();
        let back = Header {
            destination: there.source,
            destination_port: there.source_port,
            source: there.destination,
            source_port: there.destination_port,
            ..there
        };
        assert_eq!(there.flow_hash(), back.flow_hash());
        let crossed = Header { destination_port: there.source_port, source_port: there.destination_port, ..there };
        assert_ne!(there.flow_hash(), crossed.flow_hash(), "the ports belong to their ends");
        let high = |port| there.flow_hash() >> 32 != Header { source_port: port, ..there }.flow_hash() >> 32;
        assert!((0..1000).all(high), "the bits that choose a lane depend on the ports");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let good = header().to_bytes();
        for (at, value) in [(0, 0x21), (0, 0x1f), (2, 2), (3, 0), (3, 99)] {
            let mut bad = good;
            bad[at] = value;
            assert!(Header::parse(&bad).is_err(), "byte {at} = {value}");
        }
        assert_eq!(Header::parse(&good[..23]), Err(Malformed::Truncated));
        assert_eq!(Header::parse(&[0x11; MAX_MESSAGE + 1]), Err(Malformed::Oversized));
    }

    proptest! {
        #[test]
        fn what_parses_emits_the_same_bytes(bytes in proptest::array::uniform24(any::<u8>())) {
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(header.to_bytes(), bytes);
            }
        }
    }
}
