//! Messages of the membership protocol, carried in control frames or, to routers that are no neighbours, in overlay
//! messages ([`Protocol::Control`](super::message::Protocol::Control)): none is longer than what the latter hold.
//!
//! Every message begins with `protocol u8 (2), kind u8, group u64, incarnation u64`: which group it is of
//! ([`GroupName::wire_id`](crate::base::GroupName::wire_id)), and in which of its lives the sender wrote it. Then:
//!
//! | kind | message | after the incarnation |
//! |---|---|---|
//! | 1 | join | part |
//! | 2 | ready | view, got u64, part |
//! | 3 | data | view, sender u8, seq u64, time u64, horizon u64, flags u8, body |
//! | 4 | acknowledgement | view, flags u8, clock u64, last u64, horizon u64 |
//! | 5 | request | view, count u8, count × (first u64, last u64) |
//! | 6 | heard | serial u64 |
//! | 7 | leave | – |
//!
//! A view is `number u64, digest u64`; a part is `serial u64, index u8, count u8, bytes`. The parts of a join or of a
//! ready message that have one serial are the whole, cut where messages end. The whole of a ready message is the
//! application's state. The whole of a join is ([`Join`]):
//!
//! ```text
//! flags u8 │ count u8, count × node u64 │ count u8, count × entry │ report, if the flags say so
//! entry:  index u8, incarnation u64, version u64, attempt u64, reach u64 (a bit for each node of the list)
//! report: view, count u8, count × (contiguous, complete, horizon, count u8, count × (gap, length))
//! ```
//! Numbers of a report are varints (LEB128): most are small. Counters stay below [`LIMIT`], so that no arithmetic on them
//! can overflow; a report says [`ALL`] for "whatever will ever come".

use super::Malformed;
use super::cursor::{NoRoom, Reader, Writer};
use super::message::MAX_BODY;
use crate::base::limits::{MAX_MEMBERS, MAX_STATE};
use crate::base::{NodeId, ViewId};

/// First byte of every membership message; see [`routing::PROTOCOL`](super::routing::PROTOCOL) for the others.
pub const PROTOCOL: u8 = 2;
/// Counters, times and incarnations stay below this.
pub const LIMIT: u64 = 1 << 62;
/// In a report: nothing of this sender is missing, and nothing will come.
pub const ALL: u64 = u64::MAX;

const JOIN: u8 = 1;
const READY: u8 = 2;
const DATA: u8 = 3;
const ACK: u8 = 4;
const REQUEST: u8 = 5;
const HEARD: u8 = 6;
const LEAVE: u8 = 7;

const HEADER: usize = 18;
const VIEW_LEN: usize = 16;
const PART_HEADER: usize = 10;
const ENTRY_LEN: usize = 33;
const RANGE_LEN: usize = 16;

const FLAG_ANSWER: u8 = 1;
const FLAG_WANTS: u8 = 2;
const FLAG_GATHERING: u8 = 4;
const FLAG_SAFE: u8 = 1;
const FLAG_MORE: u8 = 2;

/// Longest message, bytes.
pub const MAX_LEN: usize = MAX_BODY;
/// Bytes of a whole that one part carries.
pub const PART_ROOM: usize = MAX_LEN - HEADER - VIEW_LEN - 8 - PART_HEADER;
/// Most parts of one whole.
pub const MAX_PARTS: usize = 16;
/// Bytes of an application's message that one data message carries.
pub const DATA_ROOM: usize = MAX_LEN - HEADER - VIEW_LEN - 26;
/// Most ranges of one request.
pub const MAX_RANGES: usize = 32;
/// Most ranges beyond the first hole that a report tells of one sender; what is beyond them counts as not held.
pub const MAX_BEYOND: usize = 8;
/// Longest join.
pub const MAX_JOIN: usize = 3 + MAX_MEMBERS * (8 + ENTRY_LEN) + VIEW_LEN + 1 + MAX_MEMBERS * (31 + MAX_BEYOND * 20);

const _: () =
    assert!(MAX_JOIN <= MAX_PARTS * PART_ROOM && MAX_STATE <= MAX_PARTS * PART_ROOM, "wholes fit their parts");
const _: () = assert!(HEADER + VIEW_LEN + 1 + MAX_RANGES * RANGE_LEN <= MAX_LEN);
const _: () = assert!(MAX_MEMBERS <= 64, "sets of nodes are one word");

/// One message, borrowed from the frame it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Of which group.
    pub group: u64,
    /// In which life its sender wrote it.
    pub incarnation: u64,
    /// What it says.
    pub body: Body<'a>,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Part of a [`Join`].
    Join(Part<'a>),
    /// "I can install this view": part of the state that the sender brings, whose serial is the sender's attempt.
    Ready {
        /// The view.
        view: ViewId,
        /// Whose whole states the sender has, by their rank in the view.
        got: u64,
        /// Of the state.
        part: Part<'a>,
    },
    /// Part of an application's message.
    Data(Data<'a>),
    /// What the sender has.
    Ack(Ack),
    /// "Send me these of yours."
    Request(Request<'a>),
    /// The join with this serial, and all before it, were taken in.
    Heard(u64),
    /// The sender leaves the group.
    Leave,
}

/// Part of something longer than a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The same for all parts of a whole.
    pub serial: u64,
    /// Which part.
    pub index: usize,
    /// Of how many.
    pub count: usize,
    /// Its bytes: [`PART_ROOM`], or fewer in the last.
    pub bytes: &'a [u8],
}

/// Part of an application's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// The view it is sent in.
    pub view: ViewId,
    /// Rank of the member that sent it first.
    pub sender: usize,
    /// Counts the sender's data messages in this view, from 1.
    pub seq: u64,
    /// The sender's logical time: with its rank the place in the order of all.
    pub time: u64,
    /// The sender held all of this view up to this time.
    pub horizon: u64,
    /// Delivered only when every member holds it.
    pub safe: bool,
    /// The application's message goes on in the next data message.
    pub more: bool,
    /// The bytes.
    pub body: &'a [u8],
}

/// What a member has of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The view.
    pub view: ViewId,
    /// The sender asks for the receiver's acknowledgement.
    pub answer: bool,
    /// Whatever the sender will send is later than this.
    pub clock: u64,
    /// The sender's last data message.
    pub last: u64,
    /// The sender holds all up to this time.
    pub horizon: u64,
}

/// Data messages of the receiver that the sender lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The view.
    pub view: ViewId,
    ranges: &'a [u8],
}

impl<'a> Request<'a> {
    /// First and last of each range.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        self.ranges.chunks_exact(RANGE_LEN).map(|bytes| {
            let mut reader = Reader::new(bytes);
            read_range(&mut reader).expect("checked by parse")
        })
    }
}

fn read_range(reader: &mut Reader<'_>) -> Result<(u64, u64), Malformed> {
    let (first, last) = (counter(reader)?, counter(reader)?);
    if first == 0 || first > last { Err(Malformed::ForbiddenValue) } else { Ok((first, last)) }
}

/// A number below [`LIMIT`].
fn counter(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let value = reader.u64()?;
    if value < LIMIT { Ok(value) } else { Err(Malformed::ForbiddenValue) }
}

fn view_id(reader: &mut Reader<'_>) -> Result<ViewId, Malformed> {
    Ok(ViewId { number: counter(reader)?, digest: reader.u64()? })
}

fn flags(reader: &mut Reader<'_>, known: u8) -> Result<u8, Malformed> {
    let flags = reader.u8()?;
    if flags & !known == 0 { Ok(flags) } else { Err(Malformed::ForbiddenValue) }
}

impl<'a> Message<'a> {
    /// Reads a membership message, its protocol byte included.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        if bytes.len() > MAX_LEN {
            return Err(Malformed::Oversized);
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != PROTOCOL {
            return Err(Malformed::UnknownType);
        }
        let kind = reader.u8()?;
        let (group, incarnation) = (reader.u64()?, counter(&mut reader)?);
        let body = match kind {
            JOIN => Body::Join(Part::parse(reader)?),
            READY => {
                let (view, got) = (view_id(&mut reader)?, reader.u64()?);
                Body::Ready { view, got, part: Part::parse(reader)? }
            }
            DATA => Body::Data(Data::parse(reader)?),
            ACK => Body::Ack(Ack::parse(reader)?),
            REQUEST => Body::Request(parse_request(reader)?),
            HEARD => {
                let serial = counter(&mut reader)?;
                reader.finish()?;
                Body::Heard(serial)
            }
            LEAVE => {
                reader.finish()?;
                Body::Leave
            }
            _ => return Err(Malformed::UnknownType),
        };
        Ok(Message { group, incarnation, body })
    }

    /// Writes the message.
    pub fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let kind = match self.body {
            Body::Join(_) => JOIN,
            Body::Ready { .. } => READY,
            Body::Data(_) => DATA,
            Body::Ack(_) => ACK,
            Body::Request(_) => REQUEST,
            Body::Heard(_) => HEARD,
            Body::Leave => LEAVE,
        };
        writer.bytes(&[PROTOCOL, kind])?;
        writer.u64(self.group)?;
        writer.u64(self.incarnation)?;
        match self.body {
            Body::Join(part) => part.emit(writer),
            Body::Ready { view, got, part } => {
                write_view(writer, view)?;
                writer.u64(got)?;
                part.emit(writer)
            }
            Body::Data(data) => data.emit(writer),
            Body::Ack(ack) => ack.emit(writer),
            Body::Request(request) => {
                write_view(writer, request.view)?;
                writer.u8((request.ranges.len() / RANGE_LEN) as u8)?;
                writer.bytes(request.ranges)
            }
            Body::Heard(serial) => writer.u64(serial),
            Body::Leave => Ok(()),
        }
    }
}

impl<'a> Part<'a> {
    /// The parts of `whole`.
    pub fn cut(serial: u64, whole: &'a [u8]) -> impl Iterator<Item = Part<'a>> {
        let count = whole.len().div_ceil(PART_ROOM).max(1);
        assert!(count <= MAX_PARTS, "wholes are bounded");
        let part = move |index: usize| {
            let bytes = &whole[index * PART_ROOM..whole.len().min((index + 1) * PART_ROOM)];
            Part { serial, index, count, bytes }
        };
        (0..count).map(part)
    }

    fn parse(mut reader: Reader<'a>) -> Result<Part<'a>, Malformed> {
        let serial = counter(&mut reader)?;
        let (index, count) = (usize::from(reader.u8()?), usize::from(reader.u8()?));
        let bytes = reader.rest();
        if count > MAX_PARTS || bytes.len() > PART_ROOM {
            return Err(Malformed::Oversized);
        }
        if index >= count {
            return Err(Malformed::ForbiddenValue);
        }
        if index + 1 < count && bytes.len() < PART_ROOM {
            return Err(Malformed::Truncated);
        }
        Ok(Part { serial, index, count, bytes })
    }

    fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u64(self.serial)?;
        writer.bytes(&[self.index as u8, self.count as u8])?;
        writer.bytes(self.bytes)
    }
}

impl<'a> Data<'a> {
    fn parse(mut reader: Reader<'a>) -> Result<Data<'a>, Malformed> {
        let view = view_id(&mut reader)?;
        let sender = usize::from(reader.u8()?);
        let (seq, time, horizon) = (counter(&mut reader)?, counter(&mut reader)?, counter(&mut reader)?);
        let flags = flags(&mut reader, FLAG_SAFE | FLAG_MORE)?;
        let body = reader.rest();
        // Whoever sends moves its clock first, and what it holds is not later than its clock.
        if sender >= MAX_MEMBERS || seq == 0 || time < seq || horizon >= time {
            return Err(Malformed::ForbiddenValue);
        }
        if body.len() > DATA_ROOM {
            return Err(Malformed::Oversized);
        }
        let (safe, more) = (flags & FLAG_SAFE != 0, flags & FLAG_MORE != 0);
        Ok(Data { view, sender, seq, time, horizon, safe, more, body })
    }

    fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        write_view(writer, self.view)?;
        writer.u8(self.sender as u8)?;
        for number in [self.seq, self.time, self.horizon] {
            writer.u64(number)?;
        }
        writer.u8(if self.safe { FLAG_SAFE } else { 0 } | if self.more { FLAG_MORE } else { 0 })?;
        writer.bytes(self.body)
    }
}

impl Ack {
    fn parse(mut reader: Reader<'_>) -> Result<Ack, Malformed> {
        let view = view_id(&mut reader)?;
        let answer = flags(&mut reader, FLAG_ANSWER)? != 0;
        let (clock, last, horizon) = (counter(&mut reader)?, counter(&mut reader)?, counter(&mut reader)?);
        reader.finish()?;
        if last > clock || horizon > clock {
            return Err(Malformed::ForbiddenValue);
        }
        Ok(Ack { view, answer, clock, last, horizon })
    }

    fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        write_view(writer, self.view)?;
        writer.u8(if self.answer { FLAG_ANSWER } else { 0 })?;
        [self.clock, self.last, self.horizon].into_iter().try_for_each(|number| writer.u64(number))
    }
}

fn parse_request(mut reader: Reader<'_>) -> Result<Request<'_>, Malformed> {
    let view = view_id(&mut reader)?;
    let count = usize::from(reader.u8()?);
    if count > MAX_RANGES {
        return Err(Malformed::Oversized);
    }
    let ranges = reader.bytes(count * RANGE_LEN)?;
    reader.finish()?;
    let (mut reader, mut previous) = (Reader::new(ranges), 0);
    while !reader.is_empty() {
        let (first, last) = read_range(&mut reader)?;
        if first <= previous {
            return Err(Malformed::ForbiddenValue);
        }
        previous = last;
    }
    Ok(Request { view, ranges })
}

fn write_view(writer: &mut Writer<'_>, view: ViewId) -> Result<(), NoRoom> {
    writer.u64(view.number)?;
    writer.u64(view.digest)
}

/// Writes a request for at most [`MAX_RANGES`] ranges, ascending and disjoint.
pub fn emit_request(
    writer: &mut Writer<'_>,
    (group, incarnation): (u64, u64),
    view: ViewId,
    ranges: &[(u64, u64)],
) -> Result<(), NoRoom> {
    assert!(ranges.len() <= MAX_RANGES, "the caller cuts requests into messages");
    let ranges: Vec<u8> = ranges.iter().flat_map(|&(a, b)| [a.to_be_bytes(), b.to_be_bytes()].concat()).collect();
    Message { group, incarnation, body: Body::Request(Request { view, ranges: &ranges }) }.emit(writer)
}

/// What a member says before it can agree: whom it reaches, and, once it has stopped delivering, what it has of its view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The sender asks to be told that this was heard.
    pub answer: bool,
    /// The sender lacks the receiver's join.
    pub wants: bool,
    /// Whom who reaches; ascending by node. One is the sender's own.
    pub entries: Vec<Entry>,
    /// What the sender has of its view; none while it delivers.
    pub report: Option<Report>,
}

/// Whom one member reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub node: NodeId,
    /// In which of its lives.
    pub incarnation: u64,
    /// Counts its entries in this life.
    pub version: u64,
    /// Counts the times it stopped delivering in order to agree; not above the version.
    pub attempt: u64,
    /// Whom it reaches, ascending, itself not among them.
    pub reach: Vec<NodeId>,
}

/// What a member has of the view it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The view; [`ViewId::NONE`] if it is the first.
    pub view: ViewId,
    /// By rank in it.
    pub rows: Vec<Row>,
}

/// What a member has of one sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// It has all data messages up to this one.
    pub contiguous: u64,
    /// And so all of them up to this time; or [`ALL`].
    pub complete: u64,
    /// The sender is known to hold everybody's up to this time.
    pub horizon: u64,
    /// First and last of ranges beyond the first hole, at most [`MAX_BEYOND`].
    pub beyond: Vec<(u64, u64)>,
}

impl Join {
    /// Reads a whole join.
    pub fn parse(bytes: &[u8]) -> Result<Join, Malformed> {
        let mut reader = Reader::new(bytes);
        let flags = flags(&mut reader, FLAG_ANSWER | FLAG_WANTS | FLAG_GATHERING)?;
        let nodes = parse_nodes(&mut reader)?;
        let entries = parse_entries(&mut reader, &nodes)?;
        let report = if flags & FLAG_GATHERING == 0 { None } else { Some(Report::parse(&mut reader)?) };
        reader.finish()?;
        let (answer, wants) = (flags & FLAG_ANSWER != 0, flags & FLAG_WANTS != 0);
        Ok(Join { answer, wants, entries, report })
    }

    /// Writes the whole join. Its entries must not name more than [`MAX_MEMBERS`] nodes.
    pub fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let gathering = flag(self.report.is_some(), FLAG_GATHERING);
        writer.u8(flag(self.answer, FLAG_ANSWER) | flag(self.wants, FLAG_WANTS) | gathering)?;
        let mut nodes: Vec<NodeId> =
            self.entries.iter().flat_map(|it| it.reach.iter().copied().chain([it.node])).collect();
        nodes.sort_unstable();
        nodes.dedup();
        assert!(nodes.len() <= MAX_MEMBERS, "the graph is bounded");
        writer.u8(nodes.len() as u8)?;
        nodes.iter().try_for_each(|node| writer.u64(node.0))?;
        writer.u8(self.entries.len() as u8)?;
        let index = |node: NodeId| nodes.binary_search(&node).expect("every node is listed");
        for entry in &self.entries {
            writer.u8(index(entry.node) as u8)?;
            for number in [entry.incarnation, entry.version, entry.attempt] {
                writer.u64(number)?;
            }
            writer.u64(entry.reach.iter().fold(0, |set, &node| set | 1 << index(node)))?;
        }
        self.report.as_ref().map_or(Ok(()), |report| report.emit(writer))
    }
}

fn parse_nodes(reader: &mut Reader<'_>) -> Result<Vec<NodeId>, Malformed> {
    let count = usize::from(reader.u8()?);
    if count > MAX_MEMBERS {
        return Err(Malformed::Oversized);
    }
    let nodes = (0..count).map(|_| reader.u64().map(NodeId)).collect::<Result<Vec<_>, _>>()?;
    if nodes.is_sorted_by(|a, b| a < b) { Ok(nodes) } else { Err(Malformed::ForbiddenValue) }
}

fn parse_entries(reader: &mut Reader<'_>, nodes: &[NodeId]) -> Result<Vec<Entry>, Malformed> {
    let count = usize::from(reader.u8()?);
    if count > nodes.len() {
        return Err(Malformed::Oversized);
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let index = usize::from(reader.u8()?);
        let (incarnation, version, attempt) = (counter(reader)?, counter(reader)?, counter(reader)?);
        let reach = reader.u64()?;
        let known = u64::MAX.checked_shr(64 - nodes.len() as u32).unwrap_or(0);
        let node = *nodes.get(index).ok_or(Malformed::ForbiddenValue)?;
        let ascends = entries.last().is_none_or(|last| last.node < node);
        if !ascends || attempt > version || reach & !known != 0 || reach & 1 << index != 0 {
            return Err(Malformed::ForbiddenValue);
        }
        let reach = (0..nodes.len()).filter(|bit| reach & 1 << bit != 0).map(|bit| nodes[bit]).collect();
        entries.push(Entry { node, incarnation, version, attempt, reach });
    }
    Ok(entries)
}

impl Report {
    fn parse(reader: &mut Reader<'_>) -> Result<Report, Malformed> {
        let view = view_id(reader)?;
        let count = usize::from(reader.u8()?);
        if count > MAX_MEMBERS {
            return Err(Malformed::Oversized);
        }
        if (count == 0) != (view == ViewId::NONE) {
            return Err(Malformed::ForbiddenValue);
        }
        let rows = (0..count).map(|_| Row::parse(reader)).collect::<Result<Vec<_>, _>>()?;
        Ok(Report { view, rows })
    }

    fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        write_view(writer, self.view)?;
        writer.u8(self.rows.len() as u8)?;
        self.rows.iter().try_for_each(|row| row.emit(writer))
    }
}

impl Row {
    fn parse(reader: &mut Reader<'_>) -> Result<Row, Malformed> {
        let (contiguous, complete, horizon) = (varint(reader)?, varint(reader)?, varint(reader)?);
        let count = usize::from(reader.u8()?);
        if count > MAX_BEYOND {
            return Err(Malformed::Oversized);
        }
        let time = |value: u64| value < LIMIT || value == ALL;
        if contiguous >= LIMIT || !time(complete) || !time(horizon) {
            return Err(Malformed::ForbiddenValue);
        }
        let (mut beyond, mut previous) = (Vec::with_capacity(count), contiguous);
        for _ in 0..count {
            let (gap, length) = (varint(reader)?, varint(reader)?);
            if gap == 0 || length == 0 || gap >= LIMIT || length >= LIMIT || previous + gap + length >= LIMIT {
                return Err(Malformed::ForbiddenValue);
            }
            let first = previous + gap + 1;
            previous = first + length - 1;
            beyond.push((first, previous));
        }
        Ok(Row { contiguous, complete, horizon, beyond })
    }

    fn emit(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        for number in [self.contiguous, self.complete, self.horizon] {
            write_varint(writer, number)?;
        }
        assert!(self.beyond.len() <= MAX_BEYOND, "the caller bounds the ranges");
        writer.u8(self.beyond.len() as u8)?;
        let mut previous = self.contiguous;
        for &(first, last) in &self.beyond {
            write_varint(writer, first - previous - 1)?;
            write_varint(writer, last - first + 1)?;
            previous = last;
        }
        Ok(())
    }
}

fn varint(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8()?;
        let bits = u64::from(byte & 0x7f);
        // No bit falls off the end, and no number is longer than it must be.
        if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
            return Err(Malformed::ForbiddenValue);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::ForbiddenValue)
}

fn write_varint(writer: &mut Writer<'_>, mut value: u64) -> Result<(), NoRoom> {
    while value >= 0x80 {
        writer.u8(value as u8 | 0x80)?;
        value >>= 7;
    }
    writer.u8(value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn written(emit: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
        let mut buffer = [0; MAX_JOIN];
        let mut writer = Writer::new(&mut buffer);
        emit(&mut writer).expect("it fits");
        writer.written().to_vec()
    }

    fn below() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..300, 0..LIMIT]
    }

    fn row() -> impl Strategy<Value = Row> {
        let time = || prop_oneof![below(), Just(ALL)];
        let beyond = prop::collection::vec((1u64..200, 1u64..200), 0..=MAX_BEYOND);
        (0u64..LIMIT / 2, time(), time(), beyond).prop_map(|(contiguous, complete, horizon, steps)| {
            let mut previous = contiguous;
            let mut range = |(gap, length): (u64, u64)| {
                let first = previous + gap + 1;
                previous = first + length - 1;
                (first, previous)
            };
            let beyond = steps.into_iter().map(&mut range).collect();
            Row { contiguous, complete, horizon, beyond }
        })
    }

    fn report() -> impl Strategy<Value = Report> {
        let some = (1..LIMIT, any::<u64>(), prop::collection::vec(row(), 1..=MAX_MEMBERS));
        prop_oneof![
            Just(Report::default()),
            some.prop_map(|(number, digest, rows)| Report { view: ViewId { number, digest }, rows })
        ]
    }

    /// Entries of `count` nodes with random reach.
    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        prop::collection::btree_map(any::<u64>(), (below(), 0..LIMIT / 2, 0..LIMIT / 2, any::<u64>()), 0..=MAX_MEMBERS)
            .prop_map(|nodes: BTreeMap<u64, _>| {
                let ids: Vec<NodeId> = nodes.keys().map(|&id| NodeId(id)).collect();
                let entry = |(id, (incarnation, attempt, more, mask)): (u64, (u64, u64, u64, u64))| {
                    let reach = ids.iter().enumerate().filter(|&(bit, node)| mask & 1 << bit != 0 && node.0 != id);
                    let (node, reach) = (NodeId(id), reach.map(|(_, &node)| node).collect());
                    Entry { node, incarnation, version: attempt + more, attempt, reach }
                };
                nodes.into_iter().map(entry).collect()
            })
    }

    fn body<'a>(bytes: &'a [u8], n: [u64; 4], flags: u8) -> [Body<'a>; 5] {
        let n = n.map(|n| n % (LIMIT / 4));
        let view = ViewId { number: n[0], digest: !n[1] };
        let part = Part { serial: n[1], index: 1, count: 2, bytes: &bytes[..bytes.len().min(PART_ROOM)] };
        let (seq, time) = (n[1] + 1, n[1] + n[2] + 1);
        let (safe, more, sender) = (flags & 1 != 0, flags & 2 != 0, usize::from(flags % 64));
        let horizon = n[3] % time;
        [
            Body::Join(part),
            Body::Ready { view, got: !n[2], part },
            Body::Data(Data {
                view,
                sender,
                seq,
                time,
                horizon,
                safe,
                more,
                body: &bytes[..bytes.len().min(DATA_ROOM)],
            }),
            Body::Ack(Ack { view, answer: safe, clock: time, last: seq, horizon }),
            Body::Heard(n[3]),
        ]
    }

    proptest! {
        #[test]
        fn messages_round_trip(
            group: u64,
            incarnation in below(),
            n: [u64; 4],
            flags: u8,
            bytes in prop::collection::vec(any::<u8>(), 0..1200),
        ) {
            for body in body(&bytes, n, flags).into_iter().chain([Body::Leave]) {
                let message = Message { group, incarnation, body };
                let bytes = written(|writer| message.emit(writer));
                prop_assert!(bytes.len() <= MAX_LEN);
                prop_assert_eq!(Message::parse(&bytes), Ok(message));
            }
        }

        #[test]
        fn joins_round_trip(entries in entries(), report in prop::option::of(report()), flags: [bool; 2]) {
            let join = Join { answer: flags[0], wants: flags[1], entries, report };
            let bytes = written(|writer| join.emit(writer));
            prop_assert_eq!(Join::parse(&bytes), Ok(join));
            let parts: Vec<_> = Part::cut(7, &bytes).collect();
            prop_assert_eq!(parts.iter().flat_map(|part| part.bytes).copied().collect::<Vec<_>>(), bytes.clone());
            for len in 0..bytes.len() {
                prop_assert!(Join::parse(&bytes[..len]).is_err(), "{}", len);
            }
        }

        #[test]
        fn requests_round_trip(steps in prop::collection::vec((1u64..100, 0u64..100), 0..=MAX_RANGES)) {
            let mut previous = 0;
            let mut range = |(gap, length): (u64, u64)| {
                let first = previous + gap;
                previous = first + length;
                (first, previous)
            };
            let ranges: Vec<_> = steps.into_iter().map(&mut range).collect();
            let view = ViewId { number: 1, digest: 2 };
            let bytes = written(|writer| emit_request(writer, (3, 4), view, &ranges));
            let Ok(Message { body: Body::Request(request), .. }) = Message::parse(&bytes) else { panic!("no request") };
            prop_assert_eq!(request.ranges().collect::<Vec<_>>(), ranges);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..1300), kind in 0u8..9) {
            let _ = (Message::parse(&bytes), Join::parse(&bytes));
            if bytes.len() >= 2 {
                (bytes[0], bytes[1]) = (PROTOCOL, kind);
                if let Ok(Message { body: Body::Request(request), .. }) = Message::parse(&bytes) {
                    prop_assert!(request.ranges().count() <= MAX_RANGES);
                }
            }
        }

        #[test]
        fn what_is_read_is_written_the_same(mut bytes in prop::collection::vec(0u8..4, 0..400), flips in prop::collection::vec(any::<(usize, u8)>(), 0..8)) {
            for (at, value) in flips {
                let len = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at % len) {
                    *byte = value;
                }
            }
            if let Ok(join) = Join::parse(&bytes) {
                // A list may name nodes that no entry does: those are not written again.
                let again = written(|writer| join.emit(writer));
                prop_assert_eq!(Join::parse(&again), Ok(join));
            }
        }
    }

    #[test]
    fn what_the_protocol_forbids_is_refused() {
        let view = ViewId { number: 1, digest: 2 };
        let data = Data { view, sender: 1, seq: 2, time: 3, horizon: 2, safe: false, more: false, body: b"x" };
        let emit = |data: Data<'_>| {
            written(|writer| Message { group: 1, incarnation: 1, body: Body::Data(data) }.emit(writer))
        };
        assert!(Message::parse(&emit(data)).is_ok());
        let bad = [
            Data { seq: 0, ..data },
            Data { time: 1, horizon: 0, ..data },
            Data { horizon: 3, ..data },
            Data { sender: 64, ..data },
            Data { time: LIMIT, ..data },
        ];
        for data in bad {
            assert_eq!(Message::parse(&emit(data)), Err(Malformed::ForbiddenValue), "{data:?}");
        }
        let own = Entry { node: NodeId(1), incarnation: 1, version: 1, attempt: 1, reach: vec![NodeId(2)] };
        let join = |entry: Entry| Join { answer: false, wants: false, entries: vec![entry], report: None };
        assert!(Join::parse(&written(|writer| join(own.clone()).emit(writer))).is_ok());
        for bad in [Entry { attempt: 2, ..own.clone() }, Entry { reach: vec![NodeId(1)], ..own }] {
            assert_eq!(Join::parse(&written(|writer| join(bad.clone()).emit(writer))), Err(Malformed::ForbiddenValue));
        }
    }

    #[test]
    fn the_longest_join_fits() {
        let ids: Vec<NodeId> = (0..MAX_MEMBERS as u64).map(NodeId).collect();
        let entry = |&node: &NodeId| {
            let reach = ids.iter().copied().filter(|&other| other != node).collect();
            Entry { node, incarnation: LIMIT - 1, version: LIMIT - 1, attempt: LIMIT - 1, reach }
        };
        let beyond = (0..MAX_BEYOND as u64)
            .map(|n| (LIMIT / 2 + n * (LIMIT / 100) + 2, LIMIT / 2 + n * (LIMIT / 100) + LIMIT / 200));
        let row = Row { contiguous: LIMIT / 2, complete: ALL, horizon: ALL, beyond: beyond.collect() };
        let report = Report { view: ViewId { number: LIMIT - 1, digest: 1 }, rows: vec![row; MAX_MEMBERS] };
        let entries = ids.iter().map(entry).collect();
        let join = Join { answer: true, wants: true, entries, report: Some(report) };
        let bytes = written(|writer| join.emit(writer));
        assert_eq!(Join::parse(&bytes), Ok(join));
    }
}
