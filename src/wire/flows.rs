//! Flows that a member's kernel tracks, told to the other members that share service addresses; carried in control frames.
//!
//! Every message begins with `protocol u8 (4), kind u8`. Then:
//!
//! | kind | message | after the kind |
//! |---|---|---|
//! | 1 | changes | number u64, records, to the end of the message |
//! | 2 | round | first u64, next u64 |
//! | 3 | ask | serial u32, whole u8 |
//! | 4 | told | serial u32, parts u32, whole u8 |
//! | 5 | answer | serial u32, records, to the end of the message |
//!
//! Changes and rounds go to all members, the others to one. Changes are numbered and answers are counted: links repeat what
//! networks lose, in any order, but refuse what they have no room for, and who is told finds out.
//!
//! ```text
//! record:  flags u8 │ protocol u8 │ tuple │ unless it is gone: timeout u32 s │ mark u32 │ TCP: tcp │ translated: tuple
//! tuple:   source, destination (4 bytes each, or 16) │ source port u16 │ destination port u16
//! tcp:     state u8 │ of each direction: flags u8, window scale u8
//! ```
//! The first tuple is that of the packet which began the flow. The other one is that of its answers, and is there only if
//! it is not the first one turned round: where addresses are translated (RFC 3022). States and flags of TCP are those of
//! Linux, `linux/netfilter/nf_conntrack_tcp.h`.

use super::Malformed;
use super::cursor::{NoRoom, Reader, Writer};
use crate::base::limits::MAX_MESSAGE;
use std::net::{IpAddr, SocketAddr};

/// First byte of every message about flows; see [`routing::PROTOCOL`](super::routing::PROTOCOL) for the others.
pub const PROTOCOL: u8 = 4;
/// The protocols whose flows are told.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// The states of TCP in which a flow is worth telling: established, and closed by one side only.
pub const STATES: std::ops::RangeInclusive<u8> = 3..=5;
/// Largest window scale (RFC 7323, 2.3).
pub const MAX_SCALE: u8 = 14;

const CHANGES: u8 = 1;
const ROUND: u8 = 2;
const ASK: u8 = 3;
const TOLD: u8 = 4;
const ANSWER: u8 = 5;

const FLAG_GONE: u8 = 1;
const FLAG_V6: u8 = 2;
const FLAG_TRANSLATED: u8 = 4;

/// Longest record: IPv6, TCP, translated.
const MAX_RECORD: usize = 2 + 36 + 8 + 5 + 36;

/// Protocol, kind, number.
const LONGEST_HEAD: usize = 10;

const _: () = assert!(LONGEST_HEAD + MAX_RECORD <= MAX_MESSAGE, "a message has room for a record");

/// Whose packets belong together: addresses and ports of one direction. TCP sorts before UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Where the packets come from.
    pub source: SocketAddr,
    /// Where they go; of the same family.
    pub destination: SocketAddr,
}

impl Tuple {
    /// That of the other direction, if nobody translates.
    pub const fn turned(&self) -> Tuple {
        Tuple { protocol: self.protocol, source: self.destination, destination: self.source }
    }
}

/// What is known of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Its state, one of [`STATES`].
    pub state: u8,
    /// Flags of each direction, that of the first packet first.
    pub flags: [u8; 2],
    /// Window scales, likewise.
    pub scales: [u8; 2],
}

/// A flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The direction of its first packet.
    pub original: Tuple,
    /// The direction of the answers.
    pub reply: Tuple,
    /// There if its protocol is [`TCP`].
    pub tcp: Option<Tcp>,
    /// The firewall's mark.
    pub mark: u32,
    /// When it is forgotten if no more of it is seen, in seconds.
    pub timeout: u32,
}

/// What is new of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is, and is so.
    Here(Flow),
    /// It is over.
    Gone(Tuple),
}

impl Change {
    /// The direction of the flow's first packet, which names it.
    pub const fn tuple(&self) -> &Tuple {
        match self {
            Change::Here(flow) => &flow.original,
            Change::Gone(tuple) => tuple,
        }
    }
}

/// A message between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What is new of flows that pass the sender.
    Changes {
        /// One more than that of the message before, whoever got that.
        number: u64,
        /// What is new.
        changes: Vec<Change>,
    },
    /// The changes with these numbers have told every flow there is.
    Round {
        /// The first.
        first: u64,
        /// That after the last.
        next: u64,
    },
    /// Tell this router all that is not told yet, then say so.
    Ask {
        /// Repeated in the answer.
        serial: u32,
        /// Tell every flow there is.
        whole: bool,
    },
    /// It is told.
    Told {
        /// That of the question.
        serial: u32,
        /// How many messages the answer had.
        parts: u32,
        /// It had every flow there is.
        whole: bool,
    },
    /// A part of an answer.
    Answer {
        /// That of the question.
        serial: u32,
        /// What there is.
        changes: Vec<Change>,
    },
}

impl Message {
    /// Reads a message. What it allocates is bounded by [`MAX_MESSAGE`].
    pub fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Malformed::Oversized);
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != PROTOCOL {
            return Err(Malformed::UnknownType);
        }
        let message = match reader.u8()? {
            CHANGES => Message::Changes { number: reader.u64()?, changes: read_changes(&mut reader)? },
            ROUND => match (reader.u64()?, reader.u64()?) {
                (first, next) if first <= next => Message::Round { first, next },
                _ => return Err(Malformed::ForbiddenValue),
            },
            ASK => Message::Ask { serial: reader.u32()?, whole: read_flag(reader.u8()?)? },
            TOLD => Message::Told { serial: reader.u32()?, parts: reader.u32()?, whole: read_flag(reader.u8()?)? },
            ANSWER => Message::Answer { serial: reader.u32()?, changes: read_changes(&mut reader)? },
            _ => return Err(Malformed::UnknownType),
        };
        reader.finish()?;
        Ok(message)
    }

    /// The bytes that [`Message::parse`] reads.
    ///
    /// # Panics
    /// Of more changes than fit; [`Packing`] takes only as many.
    pub fn emit(&self) -> Vec<u8> {
        let packed = |mut packing: Packing, changes: &[Change]| {
            changes.iter().for_each(|change| assert!(packing.push(change), "more changes than a message holds"));
            packing.finish()
        };
        match self {
            Message::Changes { number, changes } => packed(Packing::changes(*number), changes),
            Message::Round { first, next } => {
                [&[PROTOCOL, ROUND][..], &first.to_be_bytes(), &next.to_be_bytes()].concat()
            }
            Message::Ask { serial, whole } => {
                [&[PROTOCOL, ASK][..], &serial.to_be_bytes(), &[u8::from(*whole)]].concat()
            }
            Message::Told { serial, parts, whole } => {
                [&[PROTOCOL, TOLD][..], &serial.to_be_bytes(), &parts.to_be_bytes(), &[u8::from(*whole)]].concat()
            }
            Message::Answer { serial, changes } => packed(Packing::answer(*serial), changes),
        }
    }
}

/// A message of changes under construction.
#[derive(Debug)]
pub struct Packing {
    bytes: Vec<u8>,
    /// What comes before the records.
    head: usize,
}

impl Packing {
    /// [`Message::Changes`] with this number.
    pub fn changes(number: u64) -> Packing {
        Packing::begin(CHANGES, &number.to_be_bytes())
    }

    /// [`Message::Answer`] to this question.
    pub fn answer(serial: u32) -> Packing {
        Packing::begin(ANSWER, &serial.to_be_bytes())
    }

    fn begin(kind: u8, number: &[u8]) -> Packing {
        let mut bytes = Vec::with_capacity(MAX_MESSAGE);
        bytes.extend_from_slice(&[PROTOCOL, kind]);
        bytes.extend_from_slice(number);
        Packing { head: bytes.len(), bytes }
    }

    /// Adds a change, if there is room.
    pub fn push(&mut self, change: &Change) -> bool {
        let mut record = [0; MAX_RECORD];
        let mut writer = Writer::new(&mut record);
        assert_eq!(write_change(&mut writer, change), Ok(()), "a record has a longest form");
        let record = writer.written();
        let fits = self.bytes.len() + record.len() <= MAX_MESSAGE;
        if fits {
            self.bytes.extend_from_slice(record);
        }
        fits
    }

    /// Whether there are no changes in it.
    pub const fn is_empty(&self) -> bool {
        self.bytes.len() == self.head
    }

    /// The message's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn read_changes(reader: &mut Reader<'_>) -> Result<Vec<Change>, Malformed> {
    let mut changes = Vec::new();
    while !reader.is_empty() {
        changes.push(read_change(reader)?);
    }
    Ok(changes)
}

const fn read_flag(byte: u8) -> Result<bool, Malformed> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::ForbiddenValue),
    }
}

fn read_change(reader: &mut Reader<'_>) -> Result<Change, Malformed> {
    let (flags, protocol) = (reader.u8()?, reader.u8()?);
    let known = FLAG_GONE | FLAG_V6 | FLAG_TRANSLATED;
    let (gone, v6, translated) = (flags & FLAG_GONE != 0, flags & FLAG_V6 != 0, flags & FLAG_TRANSLATED != 0);
    if flags & !known != 0 || (gone && translated) || !matches!(protocol, TCP | UDP) {
        return Err(Malformed::ForbiddenValue);
    }
    let original = read_tuple(reader, protocol, v6)?;
    if gone {
        return Ok(Change::Gone(original));
    }
    let (timeout, mark) = (reader.u32()?, reader.u32()?);
    let tcp = if protocol == TCP { Some(read_tcp(reader)?) } else { None };
    let reply = if translated { read_tuple(reader, protocol, v6)? } else { original.turned() };
    if translated && reply == original.turned() {
        return Err(Malformed::ForbiddenValue);
    }
    Ok(Change::Here(Flow { original, reply, tcp, mark, timeout }))
}

fn read_tuple(reader: &mut Reader<'_>, protocol: u8, v6: bool) -> Result<Tuple, Malformed> {
    let mut address = || -> Result<IpAddr, Malformed> {
        if v6 { Ok(reader.array::<16>()?.into()) } else { Ok(reader.array::<4>()?.into()) }
    };
    let (source, destination) = (address()?, address()?);
    let ports = (reader.u16()?, reader.u16()?);
    let (source, destination) = (SocketAddr::new(source, ports.0), SocketAddr::new(destination, ports.1));
    Ok(Tuple { protocol, source, destination })
}

fn read_tcp(reader: &mut Reader<'_>) -> Result<Tcp, Malformed> {
    let state = reader.u8()?;
    let [first, scale, answers, their_scale] = reader.array()?;
    if !STATES.contains(&state) || scale > MAX_SCALE || their_scale > MAX_SCALE {
        return Err(Malformed::ForbiddenValue);
    }
    Ok(Tcp { state, flags: [first, answers], scales: [scale, their_scale] })
}

fn write_change(writer: &mut Writer<'_>, change: &Change) -> Result<(), NoRoom> {
    let tuple = change.tuple();
    let v6 = if tuple.source.is_ipv6() { FLAG_V6 } else { 0 };
    match change {
        Change::Gone(tuple) => {
            writer.bytes(&[FLAG_GONE | v6, tuple.protocol])?;
            write_tuple(writer, tuple)
        }
        Change::Here(flow) => {
            assert_eq!(flow.tcp.is_some(), tuple.protocol == TCP, "who reads a flow sees to that");
            let translated = flow.reply != flow.original.turned();
            writer.bytes(&[v6 | if translated { FLAG_TRANSLATED } else { 0 }, tuple.protocol])?;
            write_tuple(writer, tuple)?;
            writer.u32(flow.timeout)?;
            writer.u32(flow.mark)?;
            if let Some(Tcp { state, flags, scales }) = flow.tcp {
                writer.bytes(&[state, flags[0], scales[0], flags[1], scales[1]])?;
            }
            if translated { write_tuple(writer, &flow.reply) } else { Ok(()) }
        }
    }
}

fn write_tuple(writer: &mut Writer<'_>, tuple: &Tuple) -> Result<(), NoRoom> {
    assert_eq!(tuple.source.is_ipv6(), tuple.destination.is_ipv6(), "both ends are of one family");
    for end in [tuple.source, tuple.destination] {
        match end.ip() {
            IpAddr::V4(address) => writer.bytes(&address.octets())?,
            IpAddr::V6(address) => writer.bytes(&address.octets())?,
        }
    }
    writer.u16(tuple.source.port())?;
    writer.u16(tuple.destination.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(protocol: u8, source: &str, destination: &str) -> Tuple {
        let end = |text: &str| text.parse().expect("an address and a port");
        Tuple { protocol, source: end(source), destination: end(destination) }
    }

    fn flows() -> Vec<Change> {
        let web = tuple(TCP, "192.0.2.1:40000", "198.51.100.1:443");
        let tcp = Some(Tcp { state: 3, flags: [3, 1], scales: [7, 14] });
        let plain = Flow { original: web, reply: web.turned(), tcp, mark: 7, timeout: 432_000 };
        let masqueraded = tuple(TCP, "198.51.100.1:443", "203.0.113.9:1024");
        let calls = tuple(UDP, "[2001:db8::1]:5060", "[2001:db8::2]:5060");
        let talk = Flow { original: calls, reply: calls.turned(), tcp: None, mark: 0, timeout: 120 };
        let translated = Flow { reply: masqueraded, ..plain };
        vec![Change::Here(plain), Change::Here(translated), Change::Here(talk), Change::Gone(web), Change::Gone(calls)]
    }

    #[test]
    fn messages_read_as_they_were_written() {
        let messages = [
            Message::Changes { number: u64::MAX, changes: flows() },
            Message::Round { first: 1 << 40, next: 1 << 41 },
            Message::Ask { serial: 7, whole: true },
            Message::Told { serial: u32::MAX, parts: 3, whole: false },
            Message::Answer { serial: 9, changes: flows() },
        ];
        for message in messages {
            let bytes = message.emit();
            assert_eq!(Message::parse(&bytes), Ok(message));
            for len in 0..bytes.len() {
                // Changes may end where a record does.
                if let Ok(shorter) = Message::parse(&bytes[..len]) {
                    assert_eq!(shorter.emit(), bytes[..len]);
                }
            }
        }
    }

    #[test]
    fn a_message_holds_what_fits() {
        let longest = |port: u16| {
            let original = tuple(TCP, &format!("[2001:db8::1]:{port}"), "[2001:db8::2]:443");
            let tcp = Some(Tcp { state: 5, flags: [0; 2], scales: [0; 2] });
            Change::Here(Flow { original, reply: original, tcp, mark: 0, timeout: 1 })
        };
        let mut packing = Packing::changes(7);
        assert!(packing.is_empty());
        let fitting = (1..1000).take_while(|&port| packing.push(&longest(port))).count();
        let bytes = packing.finish();
        assert_eq!(fitting, (MAX_MESSAGE - LONGEST_HEAD) / MAX_RECORD);
        assert_eq!(bytes.len(), LONGEST_HEAD + fitting * MAX_RECORD);
        let Ok(Message::Changes { number: 7, changes }) = Message::parse(&bytes) else { panic!("{bytes:?}") };
        assert_eq!(changes, (1..=fitting as u16).map(longest).collect::<Vec<_>>());
    }

    #[test]
    fn what_no_kernel_says_is_refused() {
        let whole = Message::Changes { number: 0, changes: flows()[..1].to_vec() }.emit();
        // Offsets: flags 10, protocol 11, tuple 12, timeout 24, mark 28, state 32, flags and scales 33.
        for (at, byte) in [(0, 1), (1, 9), (10, 8), (10, 5), (11, 1), (32, 2), (32, 6), (34, 15), (36, 15)] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            assert!(Message::parse(&bytes).is_err(), "{byte} at {at}");
        }
        assert_eq!(Message::parse(&[PROTOCOL, ASK, 0, 0, 0, 1, 2]), Err(Malformed::ForbiddenValue));
        let backwards = Message::Round { first: 2, next: 1 }.emit();
        assert_eq!(Message::parse(&backwards), Err(Malformed::ForbiddenValue));
        assert_eq!(Message::parse(&[&[PROTOCOL, ROUND][..], &[0; 17]].concat()), Err(Malformed::TrailingBytes));
        assert_eq!(Message::parse(&[PROTOCOL; MAX_MESSAGE + 1]), Err(Malformed::Oversized));
    }
}
