//! What the members of a VIP group say to each other inside agreed messages, and the state each brings to a view.
//!
//! | kind | message | after the kind byte |
//! |---|---|---|
//! | 1 | state | facts, clock u64, count u8, count × will, one slot for each set of the facts |
//! | 2 | facts | facts |
//! | 3 | acquired | set u16, turn u32 |
//! | 4 | order | id u64, what u8, its arguments |
//!
//! - Facts are what a member knows of itself: `digest u64, weight u16, flags u8, lapses u32, sets u16, able ⌈sets / 8⌉`,
//!   one bit for each set, from the lowest of the first byte on.
//! - A will is what operators want of a member: `drained u8, stamp u64`.
//! - A slot is what was agreed of a set: `owner u8, from u8, pin u8, flags u8, turn u32, left u32 µs, stamp u64,
//!   maybe u64`, one bit for each member.
//! - The arguments of an order: a set is u16, a member is u8, a number of moves is u16.
//!
//! Members are named by their place in the configured list ([`Seat`]), sets by theirs. Both mean the same to routers whose
//! digests are equal, and nothing to others; where no member is meant, the place is [`NOBODY`]. Message and state are
//! carried whole by the group's membership, so they may be longer than a frame.

use super::Malformed;
use super::cursor::{NoRoom, Reader, Writer};
use crate::base::limits::{MAX_MEMBERS, MAX_SETS, MAX_STATE};

const STATE: u8 = 1;
const FACTS: u8 = 2;
const ACQUIRED: u8 = 3;
const ORDER: u8 = 4;

const MOVE: u8 = 1;
const DRAIN: u8 = 2;
const UNDRAIN: u8 = 3;
const PIN: u8 = 4;
const UNPIN: u8 = 5;
const PAUSE: u8 = 6;
const RESUME: u8 = 7;
const BALANCE: u8 = 8;

const FLAG_MATURE: u8 = 1;
const FLAG_LEAVING: u8 = 2;
const FLAG_LAPSED: u8 = 4;
const FLAG_HOLDING: u8 = 8;
const FLAG_ACQUIRED: u8 = 1;
const FLAG_PAUSED: u8 = 2;

/// The place of no member.
pub const NOBODY: u8 = 255;
/// Largest weight of a member.
pub const MAX_WEIGHT: u16 = 1000;

const FACTS_LEN: usize = 17;
const WILL_LEN: usize = 9;
const SLOT_LEN: usize = 28;

const _: () = assert!(MAX_MEMBERS < NOBODY as usize, "places of members are one byte");
const _: () = assert!(
    1 + FACTS_LEN + MAX_SETS.div_ceil(8) + 9 + MAX_MEMBERS * WILL_LEN + MAX_SETS * SLOT_LEN <= MAX_STATE,
    "a state with all members and sets fits"
);

/// A member: its place in the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Seat(pub u8);

impl Seat {
    /// The place as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seats(pub u64);

impl Seats {
    /// These and this one.
    pub const fn with(self, seat: Seat) -> Seats {
        Seats(self.0 | 1 << seat.0)
    }

    /// These but for this one.
    pub const fn without(self, seat: Seat) -> Seats {
        Seats(self.0 & !(1 << seat.0))
    }

    /// Whether this one is among them.
    pub const fn has(self, seat: Seat) -> bool {
        self.0 >> seat.0 & 1 == 1
    }

    /// How many.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// None.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Ascending.
    pub fn iter(self) -> impl Iterator<Item = Seat> {
        (0..u64::BITS as u8).map(Seat).filter(move |&seat| self.has(seat))
    }
}

impl FromIterator<Seat> for Seats {
    fn from_iter<I: IntoIterator<Item = Seat>>(seats: I) -> Seats {
        seats.into_iter().fold(Seats::default(), Seats::with)
    }
}

/// What a member knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Of its configuration.
    pub digest: u64,
    /// Its share of the sets, against the others' weights.
    pub weight: u16,
    /// It has waited for the others for long enough, or met one that had.
    pub mature: bool,
    /// It hands over everything and goes.
    pub leaving: bool,
    /// Its right to answer ran out while it was not running, and it has heard nothing of the others since.
    pub lapsed: bool,
    /// How often that has happened to it.
    pub lapses: u32,
    /// It holds some set.
    pub holding: bool,
    /// For each set, whether it can hold it: checks, interfaces and the host permit.
    pub able: Vec<bool>,
}

/// What operators want of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Will {
    /// When it was said; of two wills the later one counts.
    pub stamp: u64,
    /// It is to hold nothing.
    pub drained: bool,
}

/// What was agreed of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Who is to hold it.
    pub owner: Option<Seat>,
    /// Who holds it until the owner does.
    pub from: Option<Seat>,
    /// The owner holds it.
    pub acquired: bool,
    /// All that may answer for it: to whom it was given since an owner last had it, and that one.
    pub maybe: Seats,
    /// Counts the owners.
    pub turn: u32,
    /// When an operator last said something of it.
    pub stamp: u64,
    /// Who is to hold it whenever it can.
    pub pin: Option<Seat>,
    /// It stays where it is.
    pub paused: bool,
}

/// What an operator orders, or the members' own balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Move a set to this member, or to the one that suits it best.
    Move {
        /// Which.
        set: u16,
        /// To whom.
        to: Option<Seat>,
    },
    /// A member is to hold nothing.
    Drain(Seat),
    /// It may again.
    Undrain(Seat),
    /// A set belongs to this member whenever it can.
    Pin {
        /// Which.
        set: u16,
        /// To whom.
        to: Seat,
    },
    /// It belongs to nobody any more.
    Unpin(u16),
    /// A set stays where it is.
    Pause(u16),
    /// It may move again.
    Resume(u16),
    /// Make at most this many moves towards balance.
    Balance(u16),
}

/// A message inside a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender's facts changed.
    Facts(Facts),
    /// The sender holds a set that was given to it.
    Acquired {
        /// Which.
        set: u16,
        /// In which turn.
        turn: u32,
    },
    /// Do this; `id` is the sender's own number for it.
    Order {
        /// The sender's number.
        id: u64,
        /// What.
        order: Order,
    },
}

/// What a member brings to a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Itself.
    pub facts: Facts,
    /// The latest stamp it knows.
    pub clock: u64,
    /// What operators want of each configured member.
    pub wills: Vec<Will>,
    /// What its last view agreed on of each set; as many as `facts.able`.
    pub slots: Vec<Slot>,
    /// For each set, for how long a member that is gone may still answer for it, µs.
    pub left: Vec<u32>,
}

impl Message {
    /// Reads a message. What it allocates is bounded by [`MAX_SETS`].
    pub fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            FACTS => Message::Facts(read_facts(&mut reader)?),
            ACQUIRED => Message::Acquired { set: read_set(&mut reader)?, turn: reader.u32()? },
            ORDER => Message::Order { id: reader.u64()?, order: read_order(&mut reader)? },
            _ => return Err(Malformed::UnknownType),
        };
        reader.finish()?;
        Ok(message)
    }

    /// The bytes that [`Message::parse`] reads.
    pub fn emit(&self) -> Vec<u8> {
        emit(1 + FACTS_LEN + MAX_SETS.div_ceil(8), |writer| match self {
            Message::Facts(facts) => {
                writer.u8(FACTS)?;
                write_facts(writer, facts)
            }
            Message::Acquired { set, turn } => {
                writer.u8(ACQUIRED)?;
                writer.u16(*set)?;
                writer.u32(*turn)
            }
            Message::Order { id, order } => {
                writer.u8(ORDER)?;
                writer.u64(*id)?;
                write_order(writer, *order)
            }
        })
    }
}

impl State {
    /// Reads a state. What it allocates is bounded by [`MAX_SETS`] and [`MAX_MEMBERS`].
    pub fn parse(bytes: &[u8]) -> Result<State, Malformed> {
        if bytes.len() > MAX_STATE {
            return Err(Malformed::Oversized);
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != STATE {
            return Err(Malformed::UnknownType);
        }
        let facts = read_facts(&mut reader)?;
        let clock = reader.u64()?;
        let members = usize::from(reader.u8()?);
        if members > MAX_MEMBERS {
            return Err(Malformed::Oversized);
        }
        let wills = (0..members).map(|_| read_will(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let slots = (0..facts.able.len()).map(|_| read_slot(&mut reader, members)).collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        let (slots, left) = slots.into_iter().unzip();
        Ok(State { facts, clock, wills, slots, left })
    }

    /// The bytes that [`State::parse`] reads.
    pub fn emit(&self) -> Vec<u8> {
        assert_eq!(
            (self.slots.len(), self.left.len()),
            (self.facts.able.len(), self.facts.able.len()),
            "one for each set"
        );
        assert!(self.wills.len() <= MAX_MEMBERS, "the configuration bounds the members");
        emit(MAX_STATE, |writer| {
            writer.u8(STATE)?;
            write_facts(writer, &self.facts)?;
            writer.u64(self.clock)?;
            writer.u8(self.wills.len() as u8)?;
            for will in &self.wills {
                writer.u8(u8::from(will.drained))?;
                writer.u64(will.stamp)?;
            }
            self.slots.iter().zip(&self.left).try_for_each(|(slot, &left)| write_slot(writer, slot, left))
        })
    }
}

fn emit(room: usize, write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
    let mut buffer = vec![0; room];
    let mut writer = Writer::new(&mut buffer);
    assert_eq!(write(&mut writer), Ok(()), "limits of members and sets keep every message within its room");
    let len = writer.len();
    buffer.truncate(len);
    buffer
}

fn read_facts(reader: &mut Reader<'_>) -> Result<Facts, Malformed> {
    let (digest, weight, flags, lapses) = (reader.u64()?, reader.u16()?, reader.u8()?, reader.u32()?);
    let sets = usize::from(reader.u16()?);
    if sets > MAX_SETS {
        return Err(Malformed::Oversized);
    }
    let bits = reader.bytes(sets.div_ceil(8))?;
    let bit = |place: usize| bits[place / 8] >> (place % 8) & 1 == 1;
    let known = FLAG_MATURE | FLAG_LEAVING | FLAG_LAPSED | FLAG_HOLDING;
    if weight == 0 || weight > MAX_WEIGHT || flags & !known != 0 || (sets..bits.len() * 8).any(bit) {
        return Err(Malformed::ForbiddenValue);
    }
    let flag = |flag| flags & flag != 0;
    Ok(Facts {
        digest,
        weight,
        mature: flag(FLAG_MATURE),
        leaving: flag(FLAG_LEAVING),
        lapsed: flag(FLAG_LAPSED),
        lapses,
        holding: flag(FLAG_HOLDING),
        able: (0..sets).map(bit).collect(),
    })
}

fn write_facts(writer: &mut Writer<'_>, facts: &Facts) -> Result<(), NoRoom> {
    assert!(facts.able.len() <= MAX_SETS, "the configuration bounds the sets");
    assert!((1..=MAX_WEIGHT).contains(&facts.weight), "the configuration bounds the weight");
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    writer.u64(facts.digest)?;
    writer.u16(facts.weight)?;
    writer.u8(flag(facts.mature, FLAG_MATURE)
        | flag(facts.leaving, FLAG_LEAVING)
        | flag(facts.lapsed, FLAG_LAPSED)
        | flag(facts.holding, FLAG_HOLDING))?;
    writer.u32(facts.lapses)?;
    writer.u16(facts.able.len() as u16)?;
    let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |byte, (place, &bit)| byte | u8::from(bit) << place);
    facts.able.chunks(8).try_for_each(|bits| writer.u8(byte(bits)))
}

fn read_will(reader: &mut Reader<'_>) -> Result<Will, Malformed> {
    let drained = read_flag(reader.u8()?)?;
    Ok(Will { stamp: reader.u64()?, drained })
}

const fn read_flag(byte: u8) -> Result<bool, Malformed> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::ForbiddenValue),
    }
}

fn read_slot(reader: &mut Reader<'_>, members: usize) -> Result<(Slot, u32), Malformed> {
    let mut seat = || match reader.u8()? {
        NOBODY => Ok(None),
        seat if usize::from(seat) < members => Ok(Some(Seat(seat))),
        _ => Err(Malformed::ForbiddenValue),
    };
    let (owner, from, pin) = (seat()?, seat()?, seat()?);
    let flags = reader.u8()?;
    let acquired = flags & FLAG_ACQUIRED != 0;
    let paused = flags & FLAG_PAUSED != 0;
    // Who has acquired has taken over from whoever was before, and nobody takes over from himself.
    let contradicts = (acquired && (owner.is_none() || from.is_some())) || (from.is_some() && from == owner);
    let (turn, left, stamp, maybe) = (reader.u32()?, reader.u32()?, reader.u64()?, Seats(reader.u64()?));
    let contradicts = contradicts || [owner, from].into_iter().flatten().any(|seat| !maybe.has(seat));
    let contradicts = contradicts || maybe.iter().any(|seat| seat.index() >= members);
    if flags & !(FLAG_ACQUIRED | FLAG_PAUSED) != 0 || contradicts {
        return Err(Malformed::ForbiddenValue);
    }
    Ok((Slot { owner, from, acquired, maybe, turn, stamp, pin, paused }, left))
}

fn write_slot(writer: &mut Writer<'_>, slot: &Slot, left: u32) -> Result<(), NoRoom> {
    let seat = |seat: Option<Seat>| seat.map_or(NOBODY, |seat| seat.0);
    let acquired = if slot.acquired { FLAG_ACQUIRED } else { 0 };
    let paused = if slot.paused { FLAG_PAUSED } else { 0 };
    writer.bytes(&[seat(slot.owner), seat(slot.from), seat(slot.pin), acquired | paused])?;
    writer.u32(slot.turn)?;
    writer.u32(left)?;
    writer.u64(slot.stamp)?;
    writer.u64(slot.maybe.0)
}

fn read_set(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    let set = reader.u16()?;
    if usize::from(set) < MAX_SETS { Ok(set) } else { Err(Malformed::ForbiddenValue) }
}

fn read_seat(reader: &mut Reader<'_>) -> Result<Seat, Malformed> {
    let seat = reader.u8()?;
    if usize::from(seat) < MAX_MEMBERS { Ok(Seat(seat)) } else { Err(Malformed::ForbiddenValue) }
}

fn read_order(reader: &mut Reader<'_>) -> Result<Order, Malformed> {
    Ok(match reader.u8()? {
        MOVE => {
            let set = read_set(reader)?;
            let to = if reader.rest().first() == Some(&NOBODY) {
                reader.u8()?;
                None
            } else {
                Some(read_seat(reader)?)
            };
            Order::Move { set, to }
        }
        DRAIN => Order::Drain(read_seat(reader)?),
        UNDRAIN => Order::Undrain(read_seat(reader)?),
        PIN => Order::Pin { set: read_set(reader)?, to: read_seat(reader)? },
        UNPIN => Order::Unpin(read_set(reader)?),
        PAUSE => Order::Pause(read_set(reader)?),
        RESUME => Order::Resume(read_set(reader)?),
        BALANCE => Order::Balance(reader.u16()?),
        _ => return Err(Malformed::UnknownType),
    })
}

fn write_order(writer: &mut Writer<'_>, order: Order) -> Result<(), NoRoom> {
    let mut set = |what: u8, set: u16| {
        writer.u8(what)?;
        writer.u16(set)
    };
    match order {
        Order::Move { set: moved, to } => {
            set(MOVE, moved)?;
            writer.u8(to.map_or(NOBODY, |seat| seat.0))
        }
        Order::Drain(seat) => writer.bytes(&[DRAIN, seat.0]),
        Order::Undrain(seat) => writer.bytes(&[UNDRAIN, seat.0]),
        Order::Pin { set: pinned, to } => {
            set(PIN, pinned)?;
            writer.u8(to.0)
        }
        Order::Unpin(of) => set(UNPIN, of),
        Order::Pause(of) => set(PAUSE, of),
        Order::Resume(of) => set(RESUME, of),
        Order::Balance(moves) => set(BALANCE, moves),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(sets: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Facts> {
        let able = prop::collection::vec(any::<bool>(), sets);
        (any::<u64>(), 1..=MAX_WEIGHT, any::<[bool; 4]>(), any::<u32>(), able).prop_map(
            |(digest, weight, [mature, leaving, lapsed, holding], lapses, able)| Facts {
                digest,
                weight,
                mature,
                leaving,
                lapsed,
                lapses,
                holding,
                able,
            },
        )
    }

    fn seat(members: usize) -> impl Strategy<Value = Option<Seat>> {
        (0..=members).prop_map(move |place| (place < members).then_some(Seat(place as u8)))
    }

    fn slot(members: usize) -> impl Strategy<Value = (Slot, u32)> {
        let words = (any::<u32>(), any::<u64>(), any::<bool>(), any::<bool>(), any::<u32>());
        (seat(members), seat(members), seat(members), words).prop_map(
            |(owner, from, pin, (turn, stamp, acquired, paused, left))| {
                let acquired = acquired && owner.is_some();
                let from = from.filter(|_| !acquired).filter(|_| from != owner);
                let maybe = [owner, from, pin].into_iter().flatten().collect();
                (Slot { owner, from, acquired, maybe, turn, stamp, pin, paused }, left)
            },
        )
    }

    fn state() -> impl Strategy<Value = State> {
        (0..=MAX_MEMBERS, facts(0..=40), any::<u64>()).prop_flat_map(|(members, facts, clock)| {
            let will = (any::<u64>(), any::<bool>()).prop_map(|(stamp, drained)| Will { stamp, drained });
            let wills = prop::collection::vec(will, members);
            let slots = prop::collection::vec(slot(members), facts.able.len());
            (Just(facts), wills, slots).prop_map(move |(facts, wills, slots)| {
                let (slots, left) = slots.into_iter().unzip();
                State { facts, clock, wills, slots, left }
            })
        })
    }

    fn orders() -> impl Strategy<Value = Order> {
        (0..8u8, 0..MAX_SETS as u16, seat(MAX_MEMBERS), 0..MAX_MEMBERS as u8).prop_map(|(what, set, to, seat)| {
            let seat = Seat(seat);
            match what {
                0 => Order::Move { set, to },
                1 => Order::Drain(seat),
                2 => Order::Undrain(seat),
                3 => Order::Pin { set, to: seat },
                4 => Order::Unpin(set),
                5 => Order::Pause(set),
                6 => Order::Resume(set),
                _ => Order::Balance(set),
            }
        })
    }

    proptest! {
        #[test]
        fn states_round_trip(state in state()) {
            let bytes = state.emit();
            prop_assert_eq!(State::parse(&bytes), Ok(state));
            for len in 0..bytes.len() {
                prop_assert!(State::parse(&bytes[..len]).is_err());
            }
            prop_assert_eq!(State::parse(&[&bytes[..], &[0]].concat()), Err(Malformed::TrailingBytes));
        }

        #[test]
        fn messages_round_trip(facts in facts(0..=MAX_SETS), order in orders(), id: u64, turn: u32, set in 0..MAX_SETS as u16) {
            for message in [Message::Facts(facts), Message::Acquired { set, turn }, Message::Order { id, order }] {
                let bytes = message.emit();
                prop_assert_eq!(Message::parse(&bytes), Ok(message));
                for len in 0..bytes.len() {
                    prop_assert!(Message::parse(&bytes[..len]).is_err());
                }
                prop_assert_eq!(Message::parse(&[&bytes[..], &[0]].concat()), Err(Malformed::TrailingBytes));
            }
        }

        #[test]
        fn any_bytes_are_read_as_they_are_written_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 1u8..5) {
            let bytes = [&[kind], &bytes[..]].concat();
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert_eq!(message.emit(), bytes);
            } else if let Ok(state) = State::parse(&bytes) {
                prop_assert_eq!(state.emit(), bytes);
            }
        }
    }

    #[test]
    fn the_largest_state_fits() {
        let facts = Facts {
            digest: 1,
            weight: MAX_WEIGHT,
            mature: true,
            leaving: false,
            lapsed: false,
            lapses: 0,
            holding: true,
            able: vec![true; MAX_SETS],
        };
        let state = State {
            facts,
            clock: u64::MAX,
            wills: vec![Will::default(); MAX_MEMBERS],
            slots: vec![Slot::default(); MAX_SETS],
            left: vec![0; MAX_SETS],
        };
        assert!(state.emit().len() <= MAX_STATE);
        assert_eq!(State::parse(&state.emit()), Ok(state));
    }

    #[test]
    fn contradictions_are_refused() {
        let facts = Facts {
            digest: 1,
            weight: 1,
            mature: true,
            leaving: false,
            lapsed: false,
            lapses: 0,
            holding: true,
            able: vec![true],
        };
        let with = |slot| State {
            facts: facts.clone(),
            clock: 0,
            wills: vec![Will::default(); 2],
            slots: vec![slot],
            left: vec![0],
        };
        let (a, b) = (Some(Seat(0)), Some(Seat(1)));
        let maybe = Seats(0b11);
        assert!(State::parse(&with(Slot { owner: a, from: b, maybe, ..Slot::default() }).emit()).is_ok());
        for slot in [
            Slot { acquired: true, ..Slot::default() },
            Slot { owner: a, from: b, acquired: true, maybe, ..Slot::default() },
            Slot { owner: a, from: a, maybe, ..Slot::default() },
            Slot { owner: a, from: b, maybe: Seats(0b10), ..Slot::default() },
            Slot { owner: a, maybe: Seats(0b101), ..Slot::default() },
            Slot { owner: Some(Seat(2)), maybe: Seats(0b111), ..Slot::default() },
        ] {
            assert_eq!(State::parse(&with(slot).emit()), Err(Malformed::ForbiddenValue), "{slot:?}");
        }
        let weightless = with(Slot::default()).emit();
        let mut bytes = weightless.clone();
        bytes[9..11].fill(0);
        assert_eq!(State::parse(&bytes), Err(Malformed::ForbiddenValue));
    }
}
