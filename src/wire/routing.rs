//! Messages of the routing protocol, carried in control frames.
//!
//! The first byte of every control message names its protocol ([`PROTOCOL`] is routing), the second its kind:
//!
//! | kind | message | after the kind byte |
//! |---|---|---|
//! | 1 | advertisement | origin u64, epoch u64, counter u64, count u8, count × link, signature 64 |
//! | 2 | digest | flags u8, count u8, count × (origin u64, epoch u64, counter u64) |
//! | 3 | request | count u8, count × origin u64 |
//! | 4 | summary | fingerprint u64 |
//!
//! A link is `neighbour u64, rtt u24 µs, jitter u24 µs, loss u24 ppm`. Lists are strictly ascending by node id, so that
//! one content has one encoding. An advertisement is signed by its origin over [`SIGNING_CONTEXT`] followed by all
//! bytes before the signature, and is flooded byte for byte as its origin wrote it.

use super::Malformed;
use super::cursor::{NoRoom, Reader, Writer};
use crate::base::identity::SIGNATURE_LEN;
use crate::base::limits::{MAX_LINKS, MAX_MESSAGE};
use crate::base::{LinkMetrics, NodeId};
use std::time::Duration;

/// First byte of every routing message; other protocols of the control thread use other values.
pub const PROTOCOL: u8 = 1;
/// What precedes the signed bytes of an advertisement, so that no signature means anything elsewhere.
pub const SIGNING_CONTEXT: &[u8] = b"sinew link state 1\0";

const ADVERTISEMENT: u8 = 1;
const DIGEST: u8 = 2;
const REQUEST: u8 = 3;
const SUMMARY: u8 = 4;

const LINK_LEN: usize = 17;
const ENTRY_LEN: usize = 24;
const ADVERTISEMENT_HEADER: usize = 27;
const MAX_U24: u32 = (1 << 24) - 1;
const FLAG_ANSWER: u8 = 1;

/// Most entries of one digest message; longer digests are several messages.
pub const MAX_DIGEST: usize = (MAX_MESSAGE - 4) / ENTRY_LEN;
/// Most origins asked for by one request.
pub const MAX_REQUEST: usize = 128;

const _: () = assert!(ADVERTISEMENT_HEADER + MAX_LINKS * LINK_LEN + SIGNATURE_LEN <= MAX_MESSAGE);
const _: () = assert!(3 + MAX_REQUEST * NodeId::LEN <= MAX_MESSAGE);
const _: () = assert!(MAX_DIGEST <= 255 && MAX_REQUEST <= 255 && MAX_LINKS <= 255, "counts are one byte");

/// Orders the advertisements of one origin: newer is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct Sequence {
    /// When the origin's process started (wall clock, ns), or higher.
    pub epoch: u64,
    /// Counts the advertisements of one epoch.
    pub counter: u64,
}

impl Sequence {
    /// The next one. At the very end of the number space it stays where it is.
    #[must_use]
    pub const fn next(self) -> Sequence {
        match self.counter.checked_add(1) {
            Some(counter) => Sequence { epoch: self.epoch, counter },
            None if self.epoch < u64::MAX => Sequence { epoch: self.epoch + 1, counter: 0 },
            None => self,
        }
    }
}

/// A link as its one end advertises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AdvertisedLink {
    /// The router at the other end.
    pub neighbour: NodeId,
    /// Smoothed round trip, µs, below 2^24.
    pub rtt_us: u32,
    /// Mean deviation of the round trip, µs, below 2^24.
    pub jitter_us: u32,
    /// Share of packets lost on the way to the neighbour, parts per million.
    pub loss_ppm: u32,
}

impl AdvertisedLink {
    /// What is advertised of a link with these measurements; what does not fit its field is cut to the largest value.
    pub fn new(neighbour: NodeId, metrics: &LinkMetrics) -> AdvertisedLink {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(MAX_U24).min(MAX_U24);
        AdvertisedLink {
            neighbour,
            rtt_us: micros(metrics.rtt),
            jitter_us: micros(metrics.jitter),
            loss_ppm: metrics.loss_ppm.min(1_000_000),
        }
    }

    fn read(bytes: &[u8]) -> Result<AdvertisedLink, Malformed> {
        let mut reader = Reader::new(bytes);
        let link = AdvertisedLink {
            neighbour: NodeId(reader.u64()?),
            rtt_us: reader.u24()?,
            jitter_us: reader.u24()?,
            loss_ppm: reader.u24()?,
        };
        if link.loss_ppm > 1_000_000 {
            return Err(Malformed::ForbiddenValue);
        }
        Ok(link)
    }
}

/// One message, borrowed from the frame it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A router's own links, signed by it.
    Advertisement(Advertisement<'a>),
    /// What the sender's database holds.
    Digest(Digest<'a>),
    /// "Send me these."
    Request(Request<'a>),
    /// The fingerprint of the sender's database: a router whose own differs sends its digest.
    Summary(u64),
}

/// A router's own links, signed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement<'a> {
    /// Whose links.
    pub origin: NodeId,
    /// Which of its advertisements.
    pub sequence: Sequence,
    bytes: &'a [u8],
}

impl<'a> Advertisement<'a> {
    /// The links, ascending by neighbour.
    pub fn links(&self) -> impl Iterator<Item = AdvertisedLink> + use<'a> {
        let end = self.bytes.len() - SIGNATURE_LEN;
        let links = self.bytes[ADVERTISEMENT_HEADER..end].chunks_exact(LINK_LEN);
        links.map(|bytes| AdvertisedLink::read(bytes).expect("checked by parse"))
    }

    /// Whether another one tells of the same links.
    pub fn says_what(&self, other: &Advertisement<'_>) -> bool {
        let said = |of: &[u8]| ADVERTISEMENT_HEADER..of.len() - SIGNATURE_LEN;
        self.bytes[said(self.bytes)] == other.bytes[said(other.bytes)]
    }

    /// The message as its origin wrote it.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes that the origin signed, without [`SIGNING_CONTEXT`], and its signature. Not verified yet.
    pub fn signed(&self) -> (&'a [u8], &'a [u8; SIGNATURE_LEN]) {
        self.bytes.split_last_chunk().expect("parse checked the length")
    }

    fn parse(bytes: &'a [u8]) -> Result<Advertisement<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        reader.bytes(2)?;
        let origin = NodeId(reader.u64()?);
        let sequence = Sequence { epoch: reader.u64()?, counter: reader.u64()? };
        let count = usize::from(reader.u8()?);
        if count > MAX_LINKS {
            return Err(Malformed::Oversized);
        }
        let mut previous = None;
        for _ in 0..count {
            let link = AdvertisedLink::read(reader.bytes(LINK_LEN)?)?;
            if Some(link.neighbour) <= previous || link.neighbour == origin {
                return Err(Malformed::ForbiddenValue);
            }
            previous = Some(link.neighbour);
        }
        reader.bytes(SIGNATURE_LEN)?;
        reader.finish()?;
        Ok(Advertisement { origin, sequence, bytes })
    }
}

/// Part of what a router's database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest<'a> {
    /// The sender asks for the receiver's digest in return.
    pub answer: bool,
    entries: &'a [u8],
}

impl<'a> Digest<'a> {
    /// Origins and their newest sequences, ascending by origin.
    pub fn entries(&self) -> impl Iterator<Item = (NodeId, Sequence)> + use<'a> {
        self.entries.chunks_exact(ENTRY_LEN).map(|bytes| read_entry(bytes).expect("checked by parse"))
    }
}

fn read_entry(bytes: &[u8]) -> Result<(NodeId, Sequence), Malformed> {
    let mut reader = Reader::new(bytes);
    Ok((NodeId(reader.u64()?), Sequence { epoch: reader.u64()?, counter: reader.u64()? }))
}

/// Origins whose advertisements the sender lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    origins: &'a [u8],
}

impl<'a> Request<'a> {
    /// The origins, ascending.
    pub fn origins(&self) -> impl Iterator<Item = NodeId> + use<'a> {
        let origins = self.origins.chunks_exact(NodeId::LEN);
        origins.map(|bytes| NodeId(Reader::new(bytes).u64().expect("a chunk has 8 bytes")))
    }
}

impl<'a> Message<'a> {
    /// Reads a routing message, its protocol byte included.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Malformed::Oversized);
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != PROTOCOL {
            return Err(Malformed::UnknownType);
        }
        match reader.u8()? {
            ADVERTISEMENT => Advertisement::parse(bytes).map(Message::Advertisement),
            DIGEST => parse_digest(reader).map(Message::Digest),
            REQUEST => parse_request(reader).map(Message::Request),
            SUMMARY => {
                let fingerprint = reader.u64()?;
                reader.finish()?;
                Ok(Message::Summary(fingerprint))
            }
            _ => Err(Malformed::UnknownType),
        }
    }
}

fn parse_digest(mut reader: Reader<'_>) -> Result<Digest<'_>, Malformed> {
    let flags = reader.u8()?;
    if flags & !FLAG_ANSWER != 0 {
        return Err(Malformed::ForbiddenValue);
    }
    let count = usize::from(reader.u8()?);
    if count > MAX_DIGEST {
        return Err(Malformed::Oversized);
    }
    let entries = reader.bytes(count * ENTRY_LEN)?;
    reader.finish()?;
    check_ascending(entries, ENTRY_LEN)?;
    Ok(Digest { answer: flags & FLAG_ANSWER != 0, entries })
}

fn parse_request(mut reader: Reader<'_>) -> Result<Request<'_>, Malformed> {
    let count = usize::from(reader.u8()?);
    if count > MAX_REQUEST {
        return Err(Malformed::Oversized);
    }
    let origins = reader.bytes(count * NodeId::LEN)?;
    reader.finish()?;
    check_ascending(origins, NodeId::LEN)?;
    Ok(Request { origins })
}

/// Big-endian ids compare as their bytes do.
fn check_ascending(list: &[u8], stride: usize) -> Result<(), Malformed> {
    let ids = || list.chunks_exact(stride).map(|entry| &entry[..NodeId::LEN]);
    let ascending = ids().zip(ids().skip(1)).all(|(a, b)| a < b);
    if ascending { Ok(()) } else { Err(Malformed::ForbiddenValue) }
}

/// Writes the advertisement of `links`, which must be at most [`MAX_LINKS`], ascending by neighbour and without
/// `origin`. `sign` gets the bytes to sign, [`SIGNING_CONTEXT`] not included.
pub fn emit_advertisement<'b>(
    buffer: &'b mut [u8; MAX_MESSAGE],
    origin: NodeId,
    sequence: Sequence,
    links: &[AdvertisedLink],
    sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN],
) -> &'b [u8] {
    assert!(links.len() <= MAX_LINKS, "a router has at most MAX_LINKS neighbours");
    assert!(links.is_sorted_by(|a, b| a.neighbour < b.neighbour), "neighbours ascend");
    let mut writer = Writer::new(buffer.as_mut_slice());
    let written = write_advertisement(&mut writer, origin, sequence, links);
    assert_eq!(written, Ok(()), "an advertisement with MAX_LINKS neighbours fits a message");
    let len = writer.len();
    let (body, rest) = buffer.split_at_mut(len);
    rest[..SIGNATURE_LEN].copy_from_slice(&sign(body));
    &buffer[..len + SIGNATURE_LEN]
}

fn write_advertisement(
    writer: &mut Writer<'_>,
    origin: NodeId,
    sequence: Sequence,
    links: &[AdvertisedLink],
) -> Result<(), NoRoom> {
    writer.bytes(&[PROTOCOL, ADVERTISEMENT])?;
    write_entry(writer, origin, sequence)?;
    writer.u8(links.len() as u8)?;
    for link in links {
        writer.u64(link.neighbour.0)?;
        writer.u24(link.rtt_us)?;
        writer.u24(link.jitter_us)?;
        writer.u24(link.loss_ppm)?;
    }
    Ok(())
}

fn write_entry(writer: &mut Writer<'_>, origin: NodeId, sequence: Sequence) -> Result<(), NoRoom> {
    writer.u64(origin.0)?;
    writer.u64(sequence.epoch)?;
    writer.u64(sequence.counter)
}

/// Writes one message of a digest: at most [`MAX_DIGEST`] entries, ascending by origin.
pub fn emit_digest(writer: &mut Writer<'_>, answer: bool, entries: &[(NodeId, Sequence)]) -> Result<(), NoRoom> {
    assert!(entries.len() <= MAX_DIGEST, "the caller cuts digests into messages");
    writer.bytes(&[PROTOCOL, DIGEST, if answer { FLAG_ANSWER } else { 0 }, entries.len() as u8])?;
    entries.iter().try_for_each(|&(origin, sequence)| write_entry(writer, origin, sequence))
}

/// Writes a request for at most [`MAX_REQUEST`] origins, ascending.
pub fn emit_request(writer: &mut Writer<'_>, origins: &[NodeId]) -> Result<(), NoRoom> {
    assert!(origins.len() <= MAX_REQUEST, "the caller cuts requests into messages");
    writer.bytes(&[PROTOCOL, REQUEST, origins.len() as u8])?;
    origins.iter().try_for_each(|origin| writer.u64(origin.0))
}

/// Writes a summary.
pub fn emit_summary(writer: &mut Writer<'_>, fingerprint: u64) -> Result<(), NoRoom> {
    writer.bytes(&[PROTOCOL, SUMMARY])?;
    writer.u64(fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn links() -> impl Strategy<Value = Vec<AdvertisedLink>> {
        let quality = (0..=MAX_U24, 0..=MAX_U24, 0..=1_000_000u32);
        prop::collection::btree_map(1u64.., quality, 0..=MAX_LINKS).prop_map(|links: BTreeMap<_, _>| {
            let link = |(neighbour, (rtt_us, jitter_us, loss_ppm))| AdvertisedLink {
                neighbour: NodeId(neighbour),
                rtt_us,
                jitter_us,
                loss_ppm,
            };
            links.into_iter().map(link).collect()
        })
    }

    fn written(emit: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
        let mut buffer = [0; MAX_MESSAGE];
        let mut writer = Writer::new(&mut buffer);
        emit(&mut writer).expect("fits a message");
        writer.written().to_vec()
    }

    proptest! {
        #[test]
        fn advertisements_round_trip(links in links(), epoch: u64, counter: u64, signature in any::<[u8; 32]>()) {
            let signature: [u8; 64] = [signature, signature].concat().try_into().expect("64 bytes");
            let mut buffer = [0; MAX_MESSAGE];
            let sequence = Sequence { epoch, counter };
            let bytes = emit_advertisement(&mut buffer, NodeId(0), sequence, &links, |_| signature);
            let Ok(Message::Advertisement(read)) = Message::parse(bytes) else { panic!("not an advertisement") };
            prop_assert_eq!((read.origin, read.sequence), (NodeId(0), sequence));
            prop_assert_eq!(read.links().collect::<Vec<_>>(), links);
            prop_assert_eq!(read.signed(), (&bytes[..bytes.len() - 64], &signature));
            for len in 0..bytes.len() {
                prop_assert!(Message::parse(&bytes[..len]).is_err());
            }
        }

        #[test]
        fn lists_round_trip(ids in prop::collection::btree_set(any::<u64>(), 0..=MAX_DIGEST), answer: bool) {
            let entries: Vec<_> = ids.iter().map(|&id| (NodeId(id), Sequence { epoch: id, counter: !id })).collect();
            let bytes = written(|writer| emit_digest(writer, answer, &entries));
            let Ok(Message::Digest(digest)) = Message::parse(&bytes) else { panic!("not a digest") };
            prop_assert_eq!(digest.answer, answer);
            prop_assert_eq!(digest.entries().collect::<Vec<_>>(), entries);

            let origins: Vec<_> = ids.into_iter().map(NodeId).collect();
            let bytes = written(|writer| emit_request(writer, &origins));
            let Ok(Message::Request(request)) = Message::parse(&bytes) else { panic!("not a request") };
            prop_assert_eq!(request.origins().collect::<Vec<_>>(), origins);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..1300), kind in 0u8..6) {
            let _ = Message::parse(&bytes);
            if bytes.len() >= 2 {
                (bytes[0], bytes[1]) = (PROTOCOL, kind);
                match Message::parse(&bytes) {
                    Ok(Message::Advertisement(read)) => prop_assert!(read.links().count() <= MAX_LINKS),
                    Ok(Message::Digest(read)) => prop_assert!(read.entries().count() <= MAX_DIGEST),
                    Ok(Message::Request(read)) => prop_assert!(read.origins().count() <= MAX_REQUEST),
                    Ok(Message::Summary(_)) | Err(_) => {}
                }
            }
        }
    }

    #[test]
    fn only_one_encoding_is_taken() {
        let link = |neighbour| AdvertisedLink { neighbour: NodeId(neighbour), rtt_us: 1, jitter_us: 2, loss_ppm: 3 };
        let mut buffer = [0; MAX_MESSAGE];
        let sequence = Sequence { epoch: 1, counter: 1 };
        let good = emit_advertisement(&mut buffer, NodeId(9), sequence, &[link(1), link(2)], |_| [0; 64]).to_vec();
        assert!(Message::parse(&good).is_ok());
        let neighbour = |index: usize| ADVERTISEMENT_HEADER + index * LINK_LEN + 7;
        for (offset, value) in [(neighbour(1), 1), (neighbour(0), 3), (neighbour(1), 9), (neighbour(0) + 7, 0xff)] {
            let mut bad = good.clone();
            bad[offset] = value;
            assert_eq!(Message::parse(&bad), Err(Malformed::ForbiddenValue), "{offset} {value}");
        }
        let mut long = good;
        long.push(0);
        assert_eq!(Message::parse(&long), Err(Malformed::TrailingBytes));
        let mut digest = written(|writer| emit_digest(writer, false, &[(NodeId(1), sequence)]));
        digest[2] = 2;
        assert_eq!(Message::parse(&digest), Err(Malformed::ForbiddenValue));
    }

    #[test]
    fn sequences_count_on_and_never_back() {
        let last = Sequence { epoch: 4, counter: u64::MAX };
        assert_eq!(last.next(), Sequence { epoch: 5, counter: 0 });
        assert!(Sequence { epoch: 5, counter: 0 } > last);
        let end = Sequence { epoch: u64::MAX, counter: u64::MAX };
        assert_eq!(end.next(), end);
    }
}
