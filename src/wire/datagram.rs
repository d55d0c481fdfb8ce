//! The outer datagram: what anyone on the path can see.
//!
//! ```text
//!  0        1                          4                              8
//! ├────────┼──────────────────────────┼──────────────────────────────┼───────────────┬─────────┤
//! │ kind 4 │ receiver index (24 bits) │ packet number, low 32 bits   │ ciphertext …  │ tag 16  │
//! └────────┴──────────────────────────┴──────────────────────────────┴───────────────┴─────────┘
//! ```
//!
//! The receiver index was chosen by the receiver during the handshake and finds its keys. The eight header bytes are
//! the AEAD's associated data; the full 64-bit packet number is its nonce. Packet numbers of one lane never repeat, also
//! across changes of keys.

use super::Malformed;
use super::cursor::{Reader, Writer};

/// First byte of a handshake initiation.
pub const KIND_INITIATION: u8 = 1;
/// First byte of a handshake response.
pub const KIND_RESPONSE: u8 = 2;
/// First byte of a cookie reply.
pub const KIND_COOKIE: u8 = 3;
/// First byte of a sealed packet.
pub const KIND_SEALED: u8 = 4;

/// Length of a sealed packet's clear header, bytes.
pub const HEADER_LEN: usize = 8;
/// Length of the authentication tag, bytes.
pub const TAG_LEN: usize = 16;
/// What sealing adds to the frames, bytes.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// The clear header of a sealed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedHeader {
    /// Finds the receiver's keys; 24 bits.
    pub receiver: u32,
    /// Low 32 bits of the packet number.
    pub number: u32,
}

impl SealedHeader {
    /// Reads the header of a sealed packet and checks that a tag can follow.
    pub fn parse(datagram: &[u8]) -> Result<SealedHeader, Malformed> {
        let mut reader = Reader::new(datagram);
        if reader.u8()? != KIND_SEALED {
            return Err(Malformed::UnknownType);
        }
        let header = SealedHeader { receiver: reader.u24()?, number: reader.u32()? };
        if reader.rest().len() < TAG_LEN {
            return Err(Malformed::Truncated);
        }
        Ok(header)
    }

    /// Writes the header to the first [`HEADER_LEN`] bytes of `datagram`, which must be that long.
    pub fn emit(self, datagram: &mut [u8]) {
        assert!(self.receiver < 1 << 24, "a receiver index has 24 bits");
        let mut writer = Writer::new(&mut datagram[..HEADER_LEN]);
        let written =
            writer.u8(KIND_SEALED).and_then(|()| writer.u24(self.receiver)).and_then(|()| writer.u32(self.number));
        assert_eq!(written, Ok(()), "the header fits the slice taken for it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_and_refuses_short_input() {
        let header = SealedHeader { receiver: 0x00ab_cdef, number: 0xdead_beef };
        let mut bytes = [0; HEADER_LEN + TAG_LEN];
        header.emit(&mut bytes);
        assert_eq!(SealedHeader::parse(&bytes), Ok(header));
        for len in 0..bytes.len() {
            assert_eq!(SealedHeader::parse(&bytes[..len]), Err(Malformed::Truncated), "length {len}");
        }
        bytes[0] = 9;
        assert_eq!(SealedHeader::parse(&bytes), Err(Malformed::UnknownType));
    }
}
