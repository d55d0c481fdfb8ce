//! What an application and its router say to each other over a session's descriptor.
//!
//! The descriptor is one end of a local `SOCK_SEQPACKET` pair, so every record below arrives whole; where both share memory
//! they go through its rings instead ([`shm`](crate::shm)), whole as well. They never cross a machine, yet are decoded
//! with the same care: the application is not trusted.
//!
//! | code | record | direction | after the code byte |
//! |---|---|---|---|
//! | 1 | send | to router | class u8, flags u8, ttl u8, destination u64, port u16, bytes |
//! | 2 | stream data | both | bytes |
//! | 3 | finish | both | – : no more stream data follows in this direction |
//! | 4 | echo | to router | ttl u8, class u8, destination u64, id u32, sequence u32, bytes |
//! | 5 | datagram | to application | class u8, flags u8, source u64, port u16, bytes |
//! | 6 | echo answer | to application | kind u8 (0 reply, 1 expired), node u64, id u32, sequence u32, hops u8, sent u64 ns, now u64 ns |
//! | 7 | reset | to application | reason u8, node u64, port u16 |
//! | 8 | connected | to application | node u64, port u16 |

use super::Malformed;
use super::cursor::{NoRoom, Reader, Writer};
use super::session::ResetReason;
use crate::base::limits::MAX_PAYLOAD;
use crate::base::{Class, NodeId, Port};

/// Longest header of any record, bytes.
pub const MAX_HEADER: usize = 40;
/// Longest record, bytes.
pub const MAX_RECORD: usize = MAX_HEADER + MAX_PAYLOAD;

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Endpoint {
    /// The router.
    pub node: NodeId,
    /// The session at that router.
    pub port: Port,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.node, self.port)
    }
}

/// A record between an application and its router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Application: send this datagram.
    Send {
        /// Recovery class.
        class: Class,
        /// Deliver datagrams of this sender in the order they were sent.
        ordered: bool,
        /// Hops it may cross; 0 means the default.
        ttl: u8,
        /// Where to.
        to: Endpoint,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// Both: stream bytes.
    Data(&'a [u8]),
    /// Both: the stream's end in this direction.
    Finish,
    /// Application: ping.
    Echo {
        /// Hops it may cross; 0 means the default.
        ttl: u8,
        /// Recovery class.
        class: Class,
        /// Whom to ping.
        node: NodeId,
        /// Returned with the answer.
        id: u32,
        /// Returned with the answer.
        sequence: u32,
        /// Padding.
        bytes: &'a [u8],
    },
    /// Router: a datagram arrived.
    Datagram {
        /// Recovery class it was sent with.
        class: Class,
        /// Some link on the way was congested.
        mark: bool,
        /// Where from.
        from: Endpoint,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// Router: a ping was answered, or ran out of hops.
    EchoAnswer {
        /// True if the ping's ttl ran out at `node`, false if `node` was its destination.
        expired: bool,
        /// Who answers.
        node: NodeId,
        /// As in the ping.
        id: u32,
        /// As in the ping.
        sequence: u32,
        /// Hops the ping had crossed.
        hops: u8,
        /// This router's clock when the ping left, ns.
        sent_ns: u64,
        /// This router's clock when the answer came, ns.
        now_ns: u64,
    },
    /// Router: a flow to or from this end was reset; what was not acknowledged is lost.
    Reset {
        /// Why.
        reason: ResetReason,
        /// The other end.
        peer: Endpoint,
    },
    /// Router: the stream is open.
    Connected(Endpoint),
}

const FLAG_ORDERED: u8 = 1;
const FLAG_MARK: u8 = 1;

fn flag(byte: u8) -> Result<bool, Malformed> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::ForbiddenValue),
    }
}

fn class(byte: u8) -> Result<Class, Malformed> {
    Class::from_code(byte).ok_or(Malformed::UnknownType)
}

fn endpoint(reader: &mut Reader<'_>) -> Result<Endpoint, Malformed> {
    Ok(Endpoint { node: NodeId(reader.u64()?), port: reader.u16()? })
}

const REASONS: [ResetReason; 5] = [
    ResetReason::NoSession,
    ResetReason::UnknownFlow,
    ResetReason::Closed,
    ResetReason::Refused,
    ResetReason::TimedOut,
];

impl<'a> Record<'a> {
    /// Reads a record.
    pub fn parse(bytes: &'a [u8]) -> Result<Record<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        let record = match reader.u8()? {
            1 => Record::Send {
                class: class(reader.u8()?)?,
                ordered: flag(reader.u8()?)?,
                ttl: reader.u8()?,
                to: endpoint(&mut reader)?,
                bytes: reader.rest(),
            },
            2 => Record::Data(reader.rest()),
            3 => Record::Finish,
            4 => Record::Echo {
                ttl: reader.u8()?,
                class: class(reader.u8()?)?,
                node: NodeId(reader.u64()?),
                id: reader.u32()?,
                sequence: reader.u32()?,
                bytes: reader.rest(),
            },
            5 => Record::Datagram {
                class: class(reader.u8()?)?,
                mark: flag(reader.u8()?)?,
                from: endpoint(&mut reader)?,
                bytes: reader.rest(),
            },
            6 => Record::EchoAnswer {
                expired: flag(reader.u8()?)?,
                node: NodeId(reader.u64()?),
                id: reader.u32()?,
                sequence: reader.u32()?,
                hops: reader.u8()?,
                sent_ns: reader.u64()?,
                now_ns: reader.u64()?,
            },
            7 => Record::Reset {
                reason: *REASONS.get(usize::from(reader.u8()?)).ok_or(Malformed::ForbiddenValue)?,
                peer: endpoint(&mut reader)?,
            },
            8 => Record::Connected(endpoint(&mut reader)?),
            _ => return Err(Malformed::UnknownType),
        };
        match record {
            Record::Send { bytes, .. }
            | Record::Data(bytes)
            | Record::Echo { bytes, .. }
            | Record::Datagram { bytes, .. } => {
                if bytes.len() > MAX_PAYLOAD {
                    return Err(Malformed::Oversized);
                }
            }
            _ => reader.finish()?,
        }
        Ok(record)
    }

    /// Writes a record.
    pub fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let put_endpoint = |writer: &mut Writer<'_>, end: Endpoint| {
            writer.u64(end.node.0)?;
            writer.u16(end.port)
        };
        match *self {
            Record::Send { class, ordered, ttl, to, bytes } => {
                writer.bytes(&[1, class.code(), if ordered { FLAG_ORDERED } else { 0 }, ttl])?;
                put_endpoint(writer, to)?;
                writer.bytes(bytes)
            }
            Record::Data(bytes) => {
                writer.u8(2)?;
                writer.bytes(bytes)
            }
            Record::Finish => writer.u8(3),
            Record::Echo { ttl, class, node, id, sequence, bytes } => {
                writer.bytes(&[4, ttl, class.code()])?;
                writer.u64(node.0)?;
                writer.u32(id)?;
                writer.u32(sequence)?;
                writer.bytes(bytes)
            }
            Record::Datagram { class, mark, from, bytes } => {
                writer.bytes(&[5, class.code(), if mark { FLAG_MARK } else { 0 }])?;
                put_endpoint(writer, from)?;
                writer.bytes(bytes)
            }
            Record::EchoAnswer { expired, node, id, sequence, hops, sent_ns, now_ns } => {
                writer.bytes(&[6, u8::from(expired)])?;
                writer.u64(node.0)?;
                writer.u32(id)?;
                writer.u32(sequence)?;
                writer.u8(hops)?;
                writer.u64(sent_ns)?;
                writer.u64(now_ns)
            }
            Record::Reset { reason, peer } => {
                let code = REASONS.iter().position(|&known| known == reason).unwrap_or(0);
                writer.bytes(&[7, code as u8])?;
                put_endpoint(writer, peer)
            }
            Record::Connected(peer) => {
                writer.u8(8)?;
                put_endpoint(writer, peer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_record_round_trips() {
        let peer = Endpoint { node: NodeId(5), port: 6 };
        let records = [
            Record::Send { class: Class::Reliable, ordered: true, ttl: 3, to: peer, bytes: b"hello" },
            Record::Data(b"bytes"),
            Record::Finish,
            Record::Echo { ttl: 1, class: Class::BestEffort, node: NodeId(9), id: 1, sequence: 2, bytes: b"" },
            Record::Datagram { class: Class::BestEffort, mark: true, from: peer, bytes: b"x" },
            Record::EchoAnswer { expired: true, node: NodeId(1), id: 2, sequence: 3, hops: 4, sent_ns: 5, now_ns: 6 },
            Record::Reset { reason: ResetReason::Refused, peer },
            Record::Connected(peer),
        ];
        for record in records {
            let mut buffer = [0; 128];
            let mut writer = Writer::new(&mut buffer);
            record.emit(&mut writer).expect("fits");
            assert_eq!(Record::parse(writer.written()), Ok(record));
        }
    }

    proptest! {
        #[test]
        fn what_parses_emits_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(record) = Record::parse(&bytes) {
                let mut buffer = [0; 128];
                let mut writer = Writer::new(&mut buffer);
                record.emit(&mut writer).expect("fits");
                prop_assert_eq!(writer.written().to_vec(), bytes);
            }
        }
    }
}
