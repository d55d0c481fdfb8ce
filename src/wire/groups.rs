//! What the routers of a network say to each other inside agreed messages about process groups, and what each brings to a
//! view.
//!
//! | kind | message | after the kind byte |
//! |---|---|---|
//! | 1 | join | process u32, group |
//! | 2 | leave | process u32 |
//! | 3 | message | process u32, bytes |
//! | 4 | state | count u8, count × (process u32, group), processes ascending |
//!
//! A group is `length u8, name`. A process is one of the router's that says it. Message and state are carried whole by the
//! routers' membership, so they may be longer than a frame.

use super::Malformed;
use super::cursor::{NoRoom, Reader, Writer};
use crate::base::GroupName;
use crate::base::limits::{MAX_GROUP_MESSAGE, MAX_PROCESSES, MAX_STATE};
use std::collections::BTreeMap;

const JOIN: u8 = 1;
const LEAVE: u8 = 2;
const MESSAGE: u8 = 3;
const STATE: u8 = 4;

/// Bytes before those of a message.
const MESSAGE_HEADER: usize = 5;
/// Bytes before a state's processes, and of one of them.
const STATE_HEADER: usize = 2;
const PROCESS_LEN: usize = 5 + GroupName::MAX_LEN;

const _: () = assert!(MAX_PROCESSES <= u8::MAX as usize, "a state counts processes in one byte");
const _: () = assert!(STATE_HEADER + MAX_PROCESSES * PROCESS_LEN <= MAX_STATE, "a state with all processes fits");

/// A message of a router about one of its processes, or of that process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A process joins a group.
    Join {
        /// Which of the router's.
        process: u32,
        /// What it joins.
        group: GroupName,
    },
    /// A process leaves its group.
    Leave {
        /// Which of the router's.
        process: u32,
    },
    /// A process says something to its group.
    Message {
        /// Which of the router's.
        process: u32,
        /// What it says.
        bytes: &'a [u8],
    },
}

impl<'a> Message<'a> {
    /// Reads a message.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        let (kind, process) = (reader.u8()?, reader.u32()?);
        match kind {
            JOIN => {
                let group = read_group(&mut reader)?;
                reader.finish()?;
                Ok(Message::Join { process, group })
            }
            LEAVE => {
                reader.finish()?;
                Ok(Message::Leave { process })
            }
            MESSAGE if reader.rest().len() > MAX_GROUP_MESSAGE => Err(Malformed::Oversized),
            MESSAGE => Ok(Message::Message { process, bytes: reader.rest() }),
            _ => Err(Malformed::UnknownType),
        }
    }

    /// The message as bytes.
    pub fn emit(&self) -> Vec<u8> {
        let room = match self {
            Message::Join { .. } => 1 + PROCESS_LEN,
            Message::Leave { .. } => MESSAGE_HEADER,
            Message::Message { bytes, .. } => MESSAGE_HEADER + bytes.len(),
        };
        written(room, |writer| match self {
            Message::Join { process, group } => {
                writer.u8(JOIN)?;
                writer.u32(*process)?;
                write_group(writer, group)
            }
            Message::Leave { process } => {
                writer.u8(LEAVE)?;
                writer.u32(*process)
            }
            Message::Message { process, bytes } => {
                writer.u8(MESSAGE)?;
                writer.u32(*process)?;
                writer.bytes(bytes)
            }
        })
    }
}

/// A router's processes, each with its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(pub BTreeMap<u32, GroupName>);

impl State {
    /// Reads a state.
    pub fn parse(bytes: &[u8]) -> Result<State, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != STATE {
            return Err(Malformed::UnknownType);
        }
        let count = usize::from(reader.u8()?);
        if count > MAX_PROCESSES {
            return Err(Malformed::Oversized);
        }
        let mut processes = BTreeMap::new();
        for _ in 0..count {
            let process = reader.u32()?;
            if processes.last_key_value().is_some_and(|(&last, _)| last >= process) {
                return Err(Malformed::ForbiddenValue);
            }
            processes.insert(process, read_group(&mut reader)?);
        }
        reader.finish()?;
        Ok(State(processes))
    }

    /// The state as bytes.
    pub fn emit(&self) -> Vec<u8> {
        assert!(self.0.len() <= MAX_PROCESSES, "a router bounds its processes");
        written(STATE_HEADER + self.0.len() * PROCESS_LEN, |writer| {
            writer.bytes(&[STATE, self.0.len() as u8])?;
            self.0.iter().try_for_each(|(&process, group)| {
                writer.u32(process)?;
                write_group(writer, group)
            })
        })
    }
}

fn read_group(reader: &mut Reader<'_>) -> Result<GroupName, Malformed> {
    let len = usize::from(reader.u8()?);
    let name = std::str::from_utf8(reader.bytes(len)?).map_err(|_| Malformed::ForbiddenValue)?;
    name.parse().map_err(|_| Malformed::ForbiddenValue)
}

fn write_group(writer: &mut Writer<'_>, group: &GroupName) -> Result<(), NoRoom> {
    writer.u8(group.as_str().len() as u8)?;
    writer.bytes(group.as_str().as_bytes())
}

fn written(room: usize, emit: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
    let mut buffer = vec![0; room];
    let mut writer = Writer::new(&mut buffer);
    emit(&mut writer).expect("there is room for the longest");
    let len = writer.len();
    buffer.truncate(len);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group() -> impl Strategy<Value = GroupName> {
        "[a-z0-9._-]{1,32}".prop_map(|name| name.parse().expect("a good name"))
    }

    proptest! {
        #[test]
        fn messages_and_states_round_trip(
            process in any::<u32>(),
            group in group(),
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            processes in prop::collection::btree_map(any::<u32>(), group(), 0..=MAX_PROCESSES),
        ) {
            for message in [
                Message::Join { process, group },
                Message::Leave { process },
                Message::Message { process, bytes: &bytes },
            ] {
                let emitted = message.emit();
                prop_assert_eq!(Message::parse(&emitted), Ok(message));
            }
            let state = State(processes);
            prop_assert!(state.emit().len() <= MAX_STATE);
            prop_assert_eq!(State::parse(&state.emit()), Ok(state));
        }

        #[test]
        fn what_parses_emits_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert_eq!(message.emit(), bytes.clone());
            }
            if let Ok(state) = State::parse(&bytes) {
                prop_assert_eq!(state.emit(), bytes);
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_with_the_reason() {
        let state = |processes: &[(u32, &str)]| {
            let mut bytes = vec![STATE, processes.len() as u8];
            for (process, group) in processes {
                bytes.extend(process.to_be_bytes());
                bytes.push(group.len() as u8);
                bytes.extend(group.as_bytes());
            }
            State::parse(&bytes).map(|state| state.0.len())
        };
        assert_eq!(state(&[(1, "a"), (2, "a")]), Ok(2));
        assert_eq!(state(&[(2, "a"), (1, "a")]), Err(Malformed::ForbiddenValue), "they ascend");
        assert_eq!(state(&[(1, "A")]), Err(Malformed::ForbiddenValue), "no group's name");
        assert_eq!(State::parse(&[STATE, 255]), Err(Malformed::Oversized));
        assert_eq!(Message::parse(&[LEAVE, 0, 0, 0, 1, 0]), Err(Malformed::TrailingBytes));
        assert_eq!(Message::parse(&[9, 0, 0, 0, 1]), Err(Malformed::UnknownType));
        let long = [&[MESSAGE, 0, 0, 0, 1][..], &[0; MAX_GROUP_MESSAGE + 1]].concat();
        assert_eq!(Message::parse(&long), Err(Malformed::Oversized));
    }
}
