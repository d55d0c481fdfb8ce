//! Bodies of messages between sessions.
//!
//! | body | layout |
//! |---|---|
//! | datagram fragment | message id u32, index u8, last index u8, then bytes |
//! | segment | flow id u32, sequence u32, flags u8, then bytes |
//! | flow ack | flow id u32, cumulative u32, limit u32, marks u32, count u8, count × (gap u16, length u16) |
//! | flow reset | flow id u32, reason u8 |
//! | echo, reply, expired | id u32, sequence u32, sent u64 ns, hops u8, then bytes |
//!
//! A reliable flow numbers its segments from 0. `cumulative` is the first sequence not received; each following pair
//! skips `gap` (≥ 1) missing and names `length` (≥ 1) received segments, upwards. `limit` is the first sequence the
//! receiver has no room for.
//!
//! The flags of a segment, from bit 0 (the lowest): `open`, `first`, `last`, `fin`, `ack_now`, `ordered`, `stream`
//! ([`SegmentFlags`] says what they mean). Bit 7 is 0; a segment that sets it is malformed.
//!
//! The reason of a flow reset, in bits 0–6: 0 no session, 1 unknown flow, 2 closed, 3 refused; others are malformed. Bit
//! 7 is `by_receiver`: set if the receiver of the flow's segments resets it, clear if their sender does.
//!
//! `hops` of an echo is the ttl it started with (before its source counted it down for the first link). In a reply or
//! an expired echo it is how many links the echo had crossed: that ttl less the one it arrived with.

use super::Malformed;
use super::cursor::{NoRoom, Reader, Writer};
use crate::wire::message::MAX_BODY;

/// Length of a datagram fragment's header, bytes.
pub const DATAGRAM_HEADER_LEN: usize = 6;
/// Most bytes of a datagram one fragment carries.
pub const MAX_DATAGRAM_FRAGMENT: usize = MAX_BODY - DATAGRAM_HEADER_LEN;
/// Length of a segment's header, bytes.
pub const SEGMENT_HEADER_LEN: usize = 9;
/// Most bytes one segment carries.
pub const MAX_SEGMENT: usize = MAX_BODY - SEGMENT_HEADER_LEN;
/// Most ranges a flow acknowledgement names beyond the cumulative number.
pub const MAX_FLOW_ACK_RANGES: usize = 32;
/// Length of the fixed part of an echo, bytes.
pub const ECHO_HEADER_LEN: usize = 17;

/// A fragment of a best-effort datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Counts the datagrams of one source session to one destination; also their order.
    pub message: u32,
    /// This fragment's place, from 0.
    pub index: u8,
    /// The last fragment's place.
    pub last: u8,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Reads a fragment. Every fragment but the last is full.
    pub fn parse(body: &'a [u8]) -> Result<Fragment<'a>, Malformed> {
        let mut reader = Reader::new(body);
        let fragment =
            Fragment { message: reader.u32()?, index: reader.u8()?, last: reader.u8()?, bytes: reader.rest() };
        if fragment.bytes.len() > MAX_DATAGRAM_FRAGMENT {
            return Err(Malformed::Oversized);
        }
        let full = fragment.bytes.len() == MAX_DATAGRAM_FRAGMENT;
        if fragment.index > fragment.last || (fragment.index < fragment.last && !full) {
            return Err(Malformed::ForbiddenValue);
        }
        Ok(fragment)
    }

    /// Writes the fragment's header.
    pub fn emit_header(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u32(self.message)?;
        writer.u8(self.index)?;
        writer.u8(self.last)
    }
}

/// What a segment says beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SegmentFlags {
    /// The sender has no acknowledgement yet: the receiver may open the flow.
    pub open: bool,
    /// First segment of an application message.
    pub first: bool,
    /// Last segment of an application message.
    pub last: bool,
    /// Nothing follows.
    pub fin: bool,
    /// Acknowledge at once.
    pub ack_now: bool,
    /// Messages are delivered in the order of their numbers.
    pub ordered: bool,
    /// The flow is a byte stream: it must be accepted by a listener.
    pub stream: bool,
}

impl SegmentFlags {
    fn to_byte(self) -> u8 {
        let bits = [self.open, self.first, self.last, self.fin, self.ack_now, self.ordered, self.stream];
        bits.into_iter().rev().fold(0, |byte, bit| (byte << 1) | u8::from(bit))
    }

    fn from_byte(byte: u8) -> Result<SegmentFlags, Malformed> {
        let bit = |place: u8| byte & (1 << place) != 0;
        if bit(7) {
            return Err(Malformed::ForbiddenValue);
        }
        Ok(SegmentFlags {
            open: bit(0),
            first: bit(1),
            last: bit(2),
            fin: bit(3),
            ack_now: bit(4),
            ordered: bit(5),
            stream: bit(6),
        })
    }
}

/// A segment of a reliable flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The flow, chosen by its sender.
    pub flow: u32,
    /// Low 32 bits of its number in the flow.
    pub sequence: u32,
    /// What it says beside its bytes.
    pub flags: SegmentFlags,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment.
    pub fn parse(body: &'a [u8]) -> Result<Segment<'a>, Malformed> {
        let mut reader = Reader::new(body);
        let segment = Segment {
            flow: reader.u32()?,
            sequence: reader.u32()?,
            flags: SegmentFlags::from_byte(reader.u8()?)?,
            bytes: reader.rest(),
        };
        if segment.bytes.len() > MAX_SEGMENT {
            return Err(Malformed::Oversized);
        }
        Ok(segment)
    }

    /// Writes the segment's header.
    pub fn emit_header(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u32(self.flow)?;
        writer.u32(self.sequence)?;
        writer.u8(self.flags.to_byte())
    }
}

/// An end-to-end acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowAck<'a> {
    /// The flow.
    pub flow: u32,
    /// Low 32 bits of the first sequence not received.
    pub cumulative: u32,
    /// Low 32 bits of the first sequence the receiver has no room for.
    pub limit: u32,
    /// How many segments arrived with a congestion mark so far (wraps).
    pub marks: u32,
    rest: &'a [u8],
}

impl<'a> FlowAck<'a> {
    /// Reads an acknowledgement.
    pub fn parse(body: &'a [u8]) -> Result<FlowAck<'a>, Malformed> {
        let mut reader = Reader::new(body);
        let (flow, cumulative, limit, marks) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
        let count = usize::from(reader.u8()?);
        if count > MAX_FLOW_ACK_RANGES {
            return Err(Malformed::Oversized);
        }
        let rest = reader.bytes(count * 4)?;
        reader.finish()?;
        if rest.chunks_exact(4).any(|pair| pair[..2] == [0, 0] || pair[2..] == [0, 0]) {
            return Err(Malformed::ForbiddenValue);
        }
        Ok(FlowAck { flow, cumulative, limit, marks, rest })
    }

    /// The segments received beyond the cumulative number, as `(offset, length)` above it.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let mut next = 0u64;
        self.rest.chunks_exact(4).map(move |c| {
            let start = next + u64::from(u16::from_be_bytes([c[0], c[1]]));
            let len = u64::from(u16::from_be_bytes([c[2], c[3]]));
            next = start + len;
            (start, len)
        })
    }

    /// Writes an acknowledgement; `ranges` are `(first, last)` inclusive above `cumulative`, lowest first, disjoint and
    /// not adjacent. Ranges beyond [`MAX_FLOW_ACK_RANGES`] are left out.
    pub fn emit(
        writer: &mut Writer<'_>,
        flow: u32,
        cumulative: u64,
        limit: u64,
        marks: u32,
        ranges: impl Iterator<Item = (u64, u64)>,
    ) -> Result<(), NoRoom> {
        let mut encoded = [0u8; MAX_FLOW_ACK_RANGES * 4];
        let (mut used, mut next) = (0, cumulative);
        for (first, last) in ranges.take(MAX_FLOW_ACK_RANGES) {
            assert!(next < first && first <= last, "ranges ascend and do not touch");
            let Ok(gap) = u16::try_from(first - next) else { break };
            let len = u16::try_from(last - first + 1).unwrap_or(u16::MAX);
            encoded[used..used + 2].copy_from_slice(&gap.to_be_bytes());
            encoded[used + 2..used + 4].copy_from_slice(&len.to_be_bytes());
            used += 4;
            next = first + u64::from(len);
            if next <= last {
                break;
            }
        }
        if writer.room() < 17 + used {
            return Err(NoRoom);
        }
        writer.u32(flow)?;
        writer.u32(cumulative as u32)?;
        writer.u32(limit as u32)?;
        writer.u32(marks)?;
        writer.u8((used / 4) as u8)?;
        writer.bytes(&encoded[..used])
    }
}

/// Why a flow ends without finishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetReason {
    /// No session listens at the port.
    NoSession,
    /// The receiver lost the flow's state.
    UnknownFlow,
    /// The session was closed.
    Closed,
    /// A limit was reached.
    Refused,
    /// The other end did not answer for as long as the sender of the reset was ready to wait.
    TimedOut,
}

/// A flow reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowReset {
    /// The flow.
    pub flow: u32,
    /// True when the receiver of the flow's segments resets it, false when their sender does.
    pub by_receiver: bool,
    /// Why.
    pub reason: ResetReason,
}

impl FlowReset {
    /// Length on the wire, bytes.
    pub const LEN: usize = 5;

    /// Reads a reset.
    pub fn parse(body: &[u8]) -> Result<FlowReset, Malformed> {
        let mut reader = Reader::new(body);
        let flow = reader.u32()?;
        let byte = reader.u8()?;
        reader.finish()?;
        let reason = match byte & 0x7f {
            0 => ResetReason::NoSession,
            1 => ResetReason::UnknownFlow,
            2 => ResetReason::Closed,
            3 => ResetReason::Refused,
            4 => ResetReason::TimedOut,
            _ => return Err(Malformed::ForbiddenValue),
        };
        Ok(FlowReset { flow, by_receiver: byte & 0x80 != 0, reason })
    }

    /// The reset as bytes.
    pub fn to_bytes(self) -> [u8; FlowReset::LEN] {
        let reason = match self.reason {
            ResetReason::NoSession => 0,
            ResetReason::UnknownFlow => 1,
            ResetReason::Closed => 2,
            ResetReason::Refused => 3,
            ResetReason::TimedOut => 4,
        };
        let [a, b, c, d] = self.flow.to_be_bytes();
        [a, b, c, d, reason | if self.by_receiver { 0x80 } else { 0 }]
    }
}

/// A ping, its answer, or the note that its ttl ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Tells pings of one session apart.
    pub id: u32,
    /// Counts the pings of one id.
    pub sequence: u32,
    /// The sender's clock when it sent, ns.
    pub sent_ns: u64,
    /// In an echo the ttl it started with, in its answer the hops it had crossed when it was answered or expired.
    pub hops: u8,
    /// Padding chosen by the sender, returned to it.
    pub bytes: &'a [u8],
}

impl<'a> Echo<'a> {
    /// Reads an echo.
    pub fn parse(body: &'a [u8]) -> Result<Echo<'a>, Malformed> {
        let mut reader = Reader::new(body);
        Ok(Echo {
            id: reader.u32()?,
            sequence: reader.u32()?,
            sent_ns: reader.u64()?,
            hops: reader.u8()?,
            bytes: reader.rest(),
        })
    }

    /// Writes the echo.
    pub fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        if writer.room() < ECHO_HEADER_LEN + self.bytes.len() {
            return Err(NoRoom);
        }
        writer.u32(self.id)?;
        writer.u32(self.sequence)?;
        writer.u64(self.sent_ns)?;
        writer.u8(self.hops)?;
        writer.bytes(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flow_ack_names_what_it_was_given() {
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer);
        let cumulative = (1 << 32) + 10;
        let given = [(cumulative + 1, cumulative + 1), (cumulative + 5, cumulative + 9)];
        FlowAck::emit(&mut writer, 7, cumulative, cumulative + 100, 2, given.into_iter()).expect("fits");
        let bytes = writer.written().to_vec();
        let ack = FlowAck::parse(&bytes).expect("parses");
        assert_eq!((ack.flow, ack.cumulative, ack.limit, ack.marks), (7, 10, 110, 2));
        let named: Vec<_> = ack.ranges().map(|(o, l)| (cumulative + o, cumulative + o + l - 1)).collect();
        assert_eq!(named, given);
    }

    #[test]
    fn fragments_but_the_last_are_full() {
        let mut body = vec![0, 0, 0, 1, 0, 1];
        assert_eq!(Fragment::parse(&body), Err(Malformed::ForbiddenValue));
        body.resize(DATAGRAM_HEADER_LEN + MAX_DATAGRAM_FRAGMENT, 0);
        assert!(Fragment::parse(&body).is_ok());
        body.push(0);
        assert_eq!(Fragment::parse(&body), Err(Malformed::Oversized));
    }

    proptest! {
        #[test]
        fn decoders_are_total_and_emit_what_they_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Fragment::parse(&bytes);
            if let Ok(segment) = Segment::parse(&bytes) {
                prop_assert_eq!(segment.flags.to_byte(), bytes[8]);
            }
            if let Ok(reset) = FlowReset::parse(&bytes) {
                prop_assert_eq!(&reset.to_bytes()[..], &bytes[..]);
            }
            let _ = FlowAck::parse(&bytes).map(|ack| ack.ranges().count());
            let _ = Echo::parse(&bytes);
        }
    }
}
