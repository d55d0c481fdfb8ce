//! Frames: what a sealed packet carries.
//!
//! | type | frame | after the type byte | makes the receiver acknowledge |
//! |---|---|---|---|
//! | 0 | padding | – (one byte) | no |
//! | 1 | hello | flags u8, path u16, sequence u32, interval u32 µs, sent u64 ns, echo path u16, echo u64 ns, echo delay u32 µs | no |
//! | 2 | ack | largest u32, delay u32 µs, count u8, first length u16, count × (gap u16, length u16) | no |
//! | 3 | best-effort message | length u16, message | yes |
//! | 4 | reliable message | sequence u32, length u16, message | yes |
//! | 5 | control message | sequence u32, length u16, body | yes |
//! | 6 | probe | id u32 (padding follows) | yes |
//! | 7 | close | reason u8 | no |
//!
//! An acknowledgement names received packet numbers downwards from the largest: `first length` numbers end at
//! `largest`; then each pair skips `gap` (≥ 1) numbers that are missing and names `length` (≥ 1) that are not. A packet
//! holds one at most: a second is malformed, and what follows it is not read. Taking one in costs as many steps as there
//! are packets on record, so a hundred in a datagram would be bought too cheaply.
//!
//! Bit 0 of a hello's flags is `hears_you`, bit 1 is `several`, bits 2 to 4 are the number of the sender's workers less
//! one; the other bits are 0. The reason of a close: 0 the process stops, 1 the link was removed from the configuration.
//! Other values of either make the frame malformed.

use super::Malformed;
use super::cursor::{NoRoom, Reader, Writer};
use crate::base::limits::{MAX_MESSAGE, MAX_WORKERS};

const PADDING: u8 = 0;
const HELLO: u8 = 1;
const ACK: u8 = 2;
const BEST_EFFORT: u8 = 3;
const RELIABLE: u8 = 4;
const CONTROL: u8 = 5;
const PROBE: u8 = 6;
const CLOSE: u8 = 7;

/// Bytes a best-effort message frame adds to its message.
pub const BEST_EFFORT_OVERHEAD: usize = 3;
/// Bytes a reliable message or control frame adds to its body.
pub const RELIABLE_OVERHEAD: usize = 7;
/// Length of a hello frame, bytes.
pub const HELLO_LEN: usize = 34;
/// Most ranges an acknowledgement names, the first included.
pub const MAX_ACK_RANGES: usize = 64;
/// Length of an acknowledgement with the most ranges, bytes.
pub const MAX_ACK_LEN: usize = 1 + 4 + 4 + 1 + 2 + (MAX_ACK_RANGES - 1) * 4;

/// One frame, borrowed from the packet it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Sign of life and clock samples.
    Hello(Hello),
    /// Packet numbers received.
    Ack(Ack<'a>),
    /// An overlay message that is not recovered.
    BestEffort(&'a [u8]),
    /// An overlay message that is recovered on this link; the low 32 bits of its link sequence number.
    Reliable(u32, &'a [u8]),
    /// A message from the neighbour's control thread, recovered on this link, in the same sequence as reliable messages.
    Control(u32, &'a [u8]),
    /// A path-MTU probe (RFC 8899), padded to the size it tests.
    Probe(u32),
    /// The other end is leaving.
    Close(CloseReason),
}

/// Sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender hears us on this path: it works in both directions.
    pub hears_you: bool,
    /// The sender tells several paths from one another by their hellos: each wants one every interval, however busy.
    pub several: bool,
    /// Workers of the sender, from 1 to [`MAX_WORKERS`].
    pub workers: u8,
    /// What the sender calls the path that this leaves by.
    pub path: u16,
    /// Counts the sender's hellos.
    pub sequence: u32,
    /// The sender's hello interval, µs.
    pub interval_us: u32,
    /// The sender's clock when this was sent, ns.
    pub sent_ns: u64,
    /// The `path` of the last hello the sender received on this path, 0 if none.
    pub echo_path: u16,
    /// The `sent_ns` of the last hello the sender received, 0 if none.
    pub echo_ns: u64,
    /// Time between receiving that hello and sending this one, µs.
    pub echo_delay_us: u32,
}

impl Hello {
    fn flags(self) -> u8 {
        assert!((1..=MAX_WORKERS).contains(&usize::from(self.workers)), "a router has 1 to {MAX_WORKERS} workers");
        u8::from(self.hears_you) | u8::from(self.several) << 1 | (self.workers - 1) << 2
    }

    const fn workers_of(flags: u8) -> Result<u8, Malformed> {
        if flags >> 2 < MAX_WORKERS as u8 { Ok((flags >> 2) + 1) } else { Err(Malformed::ForbiddenValue) }
    }
}

/// Why an end leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The process stops.
    Shutdown,
    /// The link was removed from the configuration.
    Removed,
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Low 32 bits of the largest packet number received.
    pub largest: u32,
    /// Time between receiving that packet and sending this, µs.
    pub delay_us: u32,
    first_len: u16,
    rest: &'a [u8],
}

impl Ack<'_> {
    /// The acknowledged numbers as `(offset, length)` below the largest: offset 0 is the largest itself. Every range
    /// lies within 2^23 of the largest.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut next = 0u64;
        let first = std::iter::once((0u16, self.first_len));
        let rest =
            self.rest.chunks_exact(4).map(|c| (u16::from_be_bytes([c[0], c[1]]), u16::from_be_bytes([c[2], c[3]])));
        first.chain(rest).map(move |(gap, len)| {
            let start = next + u64::from(gap);
            next = start + u64::from(len);
            (start, u64::from(len))
        })
    }
}

/// Writes an acknowledgement of `ranges`: `(first, last)` inclusive, highest first, disjoint and not adjacent. Ranges
/// beyond [`MAX_ACK_RANGES`] or a distance the format cannot express are left out.
pub fn emit_ack(
    writer: &mut Writer<'_>,
    delay_us: u32,
    ranges: impl Iterator<Item = (u64, u64)>,
) -> Result<(), NoRoom> {
    let mut encoded = [0u8; 2 + (MAX_ACK_RANGES - 1) * 4];
    let (mut largest, mut used, mut count, mut below) = (0, 0, 0u8, None);
    for (first, last) in ranges.take(MAX_ACK_RANGES) {
        assert!(first <= last, "an acknowledged range is not empty");
        let len = u16::try_from(last - first + 1).unwrap_or(u16::MAX);
        match below {
            None => {
                largest = last;
                encoded[..2].copy_from_slice(&len.to_be_bytes());
                used = 2;
            }
            Some(lowest) => {
                let lowest: u64 = lowest;
                assert!(last + 1 < lowest, "acknowledged ranges descend and do not touch");
                let Ok(gap) = u16::try_from(lowest - last - 1) else { break };
                encoded[used..used + 2].copy_from_slice(&gap.to_be_bytes());
                encoded[used + 2..used + 4].copy_from_slice(&len.to_be_bytes());
                used += 4;
                count += 1;
            }
        }
        below = Some(last + 1 - u64::from(len));
        if u64::from(len) < last - first + 1 {
            break;
        }
    }
    assert!(below.is_some(), "an acknowledgement names at least one packet");
    if writer.room() < 10 + used {
        return Err(NoRoom);
    }
    writer.u8(ACK)?;
    writer.u32(largest as u32)?;
    writer.u32(delay_us)?;
    writer.u8(count)?;
    writer.bytes(&encoded[..used])
}

impl Frame<'_> {
    /// Whether receiving this frame obliges the receiver to acknowledge the packet.
    pub const fn is_ack_eliciting(&self) -> bool {
        matches!(self, Frame::BestEffort(_) | Frame::Reliable(..) | Frame::Control(..) | Frame::Probe(_))
    }

    /// Writes the frame, all of it or none.
    pub fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        if writer.room() < self.len() {
            return Err(NoRoom);
        }
        match *self {
            Frame::Hello(hello) => {
                writer.u8(HELLO)?;
                writer.u8(hello.flags())?;
                writer.u16(hello.path)?;
                writer.u32(hello.sequence)?;
                writer.u32(hello.interval_us)?;
                writer.u64(hello.sent_ns)?;
                writer.u16(hello.echo_path)?;
                writer.u64(hello.echo_ns)?;
                writer.u32(hello.echo_delay_us)
            }
            Frame::Ack(ack) => {
                writer.u8(ACK)?;
                writer.u32(ack.largest)?;
                writer.u32(ack.delay_us)?;
                writer.u8((ack.rest.len() / 4) as u8)?;
                writer.u16(ack.first_len)?;
                writer.bytes(ack.rest)
            }
            Frame::BestEffort(body) => {
                writer.u8(BEST_EFFORT)?;
                emit_body(writer, body)
            }
            Frame::Reliable(sequence, body) => {
                writer.u8(RELIABLE)?;
                writer.u32(sequence)?;
                emit_body(writer, body)
            }
            Frame::Control(sequence, body) => {
                writer.u8(CONTROL)?;
                writer.u32(sequence)?;
                emit_body(writer, body)
            }
            Frame::Probe(id) => {
                writer.u8(PROBE)?;
                writer.u32(id)
            }
            Frame::Close(reason) => {
                writer.u8(CLOSE)?;
                writer.u8(match reason {
                    CloseReason::Shutdown => 0,
                    CloseReason::Removed => 1,
                })
            }
        }
    }

    /// Length on the wire, bytes.
    pub const fn len(&self) -> usize {
        match self {
            Frame::Hello(_) => HELLO_LEN,
            Frame::Ack(ack) => 12 + ack.rest.len(),
            Frame::BestEffort(body) => BEST_EFFORT_OVERHEAD + body.len(),
            Frame::Reliable(_, body) | Frame::Control(_, body) => RELIABLE_OVERHEAD + body.len(),
            Frame::Probe(_) => 5,
            Frame::Close(_) => 2,
        }
    }

    /// Never: every frame has at least its type byte.
    pub const fn is_empty(&self) -> bool {
        false
    }
}

fn emit_body(writer: &mut Writer<'_>, body: &[u8]) -> Result<(), NoRoom> {
    assert!(body.len() <= MAX_MESSAGE, "a frame body fits the smallest datagram");
    writer.u16(body.len() as u16)?;
    writer.bytes(body)
}

/// Reads the frames of an opened packet one after another; stops at the first malformed one.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    reader: Reader<'a>,
    acknowledged: bool,
    failed: bool,
}

impl<'a> Frames<'a> {
    /// Reads frames from a packet's plaintext.
    pub const fn new(plaintext: &'a [u8]) -> Frames<'a> {
        Frames { reader: Reader::new(plaintext), acknowledged: false, failed: false }
    }

    fn parse_one(&mut self, kind: u8) -> Result<Frame<'a>, Malformed> {
        let reader = &mut self.reader;
        Ok(match kind {
            HELLO => {
                let flags = reader.u8()?;
                Frame::Hello(Hello {
                    hears_you: flags & 1 != 0,
                    several: flags & 2 != 0,
                    workers: Hello::workers_of(flags)?,
                    path: reader.u16()?,
                    sequence: reader.u32()?,
                    interval_us: reader.u32()?,
                    sent_ns: reader.u64()?,
                    echo_path: reader.u16()?,
                    echo_ns: reader.u64()?,
                    echo_delay_us: reader.u32()?,
                })
            }
            ACK if std::mem::replace(&mut self.acknowledged, true) => return Err(Malformed::ForbiddenValue),
            ACK => Frame::Ack(parse_ack(reader)?),
            BEST_EFFORT => Frame::BestEffort(parse_body(reader)?),
            RELIABLE => Frame::Reliable(reader.u32()?, parse_body(reader)?),
            CONTROL => Frame::Control(reader.u32()?, parse_body(reader)?),
            PROBE => Frame::Probe(reader.u32()?),
            CLOSE => Frame::Close(match reader.u8()? {
                0 => CloseReason::Shutdown,
                1 => CloseReason::Removed,
                _ => return Err(Malformed::ForbiddenValue),
            }),
            _ => return Err(Malformed::UnknownType),
        })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        loop {
            let kind = self.reader.u8().ok()?;
            if kind != PADDING {
                let frame = self.parse_one(kind);
                self.failed = frame.is_err();
                return Some(frame);
            }
        }
    }
}

fn parse_body<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let len = usize::from(reader.u16()?);
    if len > MAX_MESSAGE {
        return Err(Malformed::Oversized);
    }
    reader.bytes(len)
}

fn parse_ack<'a>(reader: &mut Reader<'a>) -> Result<Ack<'a>, Malformed> {
    let (largest, delay_us) = (reader.u32()?, reader.u32()?);
    let count = usize::from(reader.u8()?);
    if count >= MAX_ACK_RANGES {
        return Err(Malformed::Oversized);
    }
    let first_len = reader.u16()?;
    let rest = reader.bytes(count * 4)?;
    let empty = |pair: &[u8]| pair[..2] == [0, 0] || pair[2..] == [0, 0];
    if first_len == 0 || rest.chunks_exact(4).any(empty) {
        return Err(Malformed::ForbiddenValue);
    }
    Ok(Ack { largest, delay_us, first_len, rest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn emit(frames: &[Frame<'_>]) -> Vec<u8> {
        let mut buffer = [0; 4096];
        let mut writer = Writer::new(&mut buffer);
        for frame in frames {
            let before = writer.len();
            frame.emit(&mut writer).expect("fits");
            assert_eq!(writer.len() - before, frame.len());
        }
        writer.written().to_vec()
    }

    #[test]
    fn every_frame_round_trips_among_padding() {
        let hello = Hello {
            hears_you: true,
            several: true,
            workers: 1,
            path: 2,
            sequence: 7,
            interval_us: 40_000,
            sent_ns: 1 << 40,
            echo_path: 5,
            echo_ns: 3,
            echo_delay_us: 9,
        };
        let frames = [
            Frame::Hello(hello),
            Frame::Hello(Hello { hears_you: false, workers: MAX_WORKERS as u8, ..hello }),
            Frame::BestEffort(b"best"),
            Frame::Reliable(u32::MAX, b"reliable"),
            Frame::Control(5, b"control"),
            Frame::Probe(77),
            Frame::Close(CloseReason::Removed),
            Frame::BestEffort(b""),
        ];
        let mut bytes = vec![0, 0];
        bytes.extend(emit(&frames));
        bytes.extend([0; 9]);
        assert_eq!(Frames::new(&bytes).collect::<Result<Vec<_>, _>>().as_deref(), Ok(&frames[..]));
    }

    #[test]
    fn ack_names_what_it_was_given() {
        let ranges = [(90u64, 100u64), (70, 80), (5, 5)];
        let mut buffer = [0; MAX_ACK_LEN];
        let mut writer = Writer::new(&mut buffer);
        emit_ack(&mut writer, 12, ranges.into_iter()).expect("fits");
        let bytes = writer.written().to_vec();
        let Some(Ok(Frame::Ack(ack))) = Frames::new(&bytes).next() else { panic!("an ack") };
        assert_eq!((ack.largest, ack.delay_us), (100, 12));
        let named: Vec<_> = ack.ranges().map(|(offset, len)| (100 - offset - len + 1, 100 - offset)).collect();
        assert_eq!(named, ranges);
        assert_eq!(emit(&[Frame::Ack(ack)]), bytes);
    }

    #[test]
    fn a_hello_names_no_more_workers_than_a_router_has() {
        let hello = Hello {
            hears_you: true,
            several: false,
            workers: 3,
            path: 0,
            sequence: 0,
            interval_us: 1,
            sent_ns: 1,
            echo_path: 0,
            echo_ns: 0,
            echo_delay_us: 0,
        };
        let mut bytes = emit(&[Frame::Hello(hello)]);
        assert_eq!(bytes[1], 0b1001);
        for (flags, good) in [(0, true), (0b1_1111, true), (0b10_0000, false), (0x80, false)] {
            bytes[1] = flags;
            assert_eq!(Frames::new(&bytes).next().is_some_and(|frame| frame.is_ok()), good, "{flags}");
        }
    }

    #[test]
    fn a_second_ack_is_malformed_and_ends_the_packet() {
        let ack = Frame::Ack(Ack { largest: 5, delay_us: 0, first_len: 3, rest: &[] });
        let bytes = emit(&[ack, Frame::Probe(1), ack, Frame::Probe(2)]);
        let read: Vec<_> = Frames::new(&bytes).collect();
        assert_eq!(read, [Ok(ack), Ok(Frame::Probe(1)), Err(Malformed::ForbiddenValue)]);
    }

    proptest! {
        #[test]
        fn decoder_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for frame in Frames::new(&bytes).flatten() {
                if let Frame::Ack(ack) = frame {
                    prop_assert!(ack.ranges().count() <= MAX_ACK_RANGES);
                }
            }
        }
    }
}
