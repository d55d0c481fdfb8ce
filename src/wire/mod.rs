//! Floor 1: bytes ⇄ checked views. No state, no clock, no allocation.
//!
//! # The wire, version 1
//!
//! All integers are big-endian. A UDP datagram is one of (first byte):
//!
//! | first byte | datagram | file |
//! |---|---|---|
//! | 1, 2, 3 | handshake initiation, response, cookie reply | [`handshake`] |
//! | 4 | sealed packet: 8-byte header, ciphertext, 16-byte tag | [`datagram`] |
//!
//! The plaintext of a sealed packet is a sequence of frames ([`frame`]): hello, acknowledgement, messages, control
//! messages, probes. A message frame carries one overlay message ([`message`]: 24-byte header naming source,
//! destination, ports and class), whose body belongs to the session at the other end ([`session`]). A control frame
//! carries one message of the control thread ([`routing`], [`membership`], [`flows`]); what members of a group agree on is
//! said in messages of its own ([`vip`], [`groups`]). Applications speak [`client`] to their router over a local
//! descriptor.
//!
//! ```text
//! UDP │ datagram header │ frame │ message header │ session header │ application bytes │ frame … │ tag
//!       8 bytes           3–7     24 bytes         6 or 9 bytes                                   16 bytes
//! ```
//!
//! # Rules
//! Every decoder is total: any input gives a value or a [`Malformed`] reason, never a panic and never an allocation
//! that the input chooses. Nothing is decoded twice: a decoded value is handed down, its bytes are not.

pub mod admin;
pub mod client;
pub mod cursor;
pub mod datagram;
pub mod flows;
pub mod frame;
pub mod groups;
pub mod handshake;
pub mod membership;
pub mod message;
pub mod routing;
pub mod session;
pub mod vip;

/// Why bytes are not what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Malformed {
    /// Ends before a field does.
    #[error("truncated")]
    Truncated,
    /// Longer than the field or the protocol allows.
    #[error("oversized")]
    Oversized,
    /// A type, class, kind or version this version does not know.
    #[error("unknown type")]
    UnknownType,
    /// A field has a value that the protocol forbids.
    #[error("forbidden value")]
    ForbiddenValue,
    /// Bytes are left after the last field.
    #[error("trailing bytes")]
    TrailingBytes,
}
