//! A test message: a header of 28 bytes, then padding.
//!
//! | magic u32 | test u32 | flags u32 | sequence u64 | meant to leave at, u64 ns |
//! |---|---|---|---|---|

use crate::wire::Malformed;
use crate::wire::cursor::{Reader, Writer};

/// Length of the header, bytes.
pub(super) const HEADER: usize = 28;
const MAGIC: u32 = 0x5350_4601;
const FLAG_ECHO: u32 = 1;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Which test.
    pub(super) test: u32,
    /// Whether the server should send the header back.
    pub(super) echo: bool,
    /// Its number, from 0.
    pub(super) sequence: u64,
    /// When it was meant to leave, ns of the test's clock.
    pub(super) intended: u64,
}

impl Message {
    /// Reads a header; what follows is padding.
    pub(super) fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != MAGIC {
            return Err(Malformed::UnknownType);
        }
        let (test, flags) = (reader.u32()?, reader.u32()?);
        let (sequence, intended) = (reader.u64()?, reader.u64()?);
        if flags & !FLAG_ECHO != 0 {
            return Err(Malformed::ForbiddenValue);
        }
        Ok(Message { test, echo: flags & FLAG_ECHO != 0, sequence, intended })
    }

    /// Writes the header over the beginning of `bytes`.
    pub(super) fn emit(&self, bytes: &mut [u8]) {
        let mut writer = Writer::new(bytes);
        let flags = if self.echo { FLAG_ECHO } else { 0 };
        let mut put = || {
            writer.u32(MAGIC)?;
            writer.u32(self.test)?;
            writer.u32(flags)?;
            writer.u64(self.sequence)?;
            writer.u64(self.intended)
        };
        put().expect("a message has room for its header");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(test: u32, echo: bool, sequence: u64, intended: u64, size in HEADER..200) {
            let message = Message { test, echo, sequence, intended };
            let mut bytes = vec![0; size];
            message.emit(&mut bytes);
            prop_assert_eq!(Message::parse(&bytes), Ok(message));
            prop_assert!(Message::parse(&bytes[..HEADER - 1]).is_err());
        }

        #[test]
        fn garbage_is_refused_or_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = Message::parse(&bytes) {
                let mut again = bytes.clone();
                message.emit(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
