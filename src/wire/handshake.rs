//! Handshake datagrams: how two routers agree on keys.
//!
//! Every message has one fixed length. All carry `mac1`, a MAC over everything before it under a key that anyone who
//! knows the receiver's public key can compute: whoever does not know it gets no answer and costs no public-key work.
//! `mac2` proves that the sender receives what is sent to its address; it is zero unless the receiver asked for it with
//! a cookie reply. It comes before `mac1`, so that `mac1` also guards it against corruption.
//!
//! ```text
//! initiation, 153 bytes (kind 1)
//!  0      1              4                     121         137         153
//! ├──────┼──────────────┼─────────────────────┼───────────┼───────────┤
//! │ kind │ sender index │ Noise message 1     │ mac2      │ mac1      │
//! └──────┴──────────────┴─────────────────────┴───────────┴───────────┘
//! response, 88 bytes (kind 2)
//!  0      1              4                7                72          88
//! ├──────┼──────────────┼────────────────┼────────────────┼───────────┤
//! │ kind │ sender index │ receiver index │ Noise message 2│ mac1      │
//! └──────┴──────────────┴────────────────┴────────────────┴───────────┘
//! cookie reply, 60 bytes (kind 3)
//!  0      1                4             28               60
//! ├──────┼────────────────┼─────────────┼────────────────┤
//! │ kind │ receiver index │ nonce       │ sealed cookie  │
//! └──────┴────────────────┴─────────────┴────────────────┘
//! ```
//!
//! Inside the Noise messages, encrypted (their lengths: key 32, sealed static key 48, payload, tag 16):
//!
//! | payload | fields |
//! |---|---|
//! | of message 1, 21 bytes | timestamp u64 (ns), incarnation u64, generation u32, preferred suite u8 |
//! | of message 2, 17 bytes | timestamp u64 (ns), incarnation u64, chosen suite u8 |
//!
//! No answer is longer than what it answers, so nobody can use a router to amplify a flood.

use super::Malformed;
use super::cursor::{Reader, Writer};
use super::datagram::{KIND_COOKIE, KIND_INITIATION, KIND_RESPONSE};

/// Length of a MAC and of a cookie, bytes.
pub const MAC_LEN: usize = 16;
/// Length of the nonce of a cookie reply, bytes.
pub const COOKIE_NONCE_LEN: usize = 24;
/// Length of a cookie with its authentication tag, bytes.
pub const SEALED_COOKIE_LEN: usize = MAC_LEN + 16;
/// Length of the payload of an initiation, bytes.
pub const INITIATION_PAYLOAD_LEN: usize = 21;
/// Length of the payload of a response, bytes.
pub const RESPONSE_PAYLOAD_LEN: usize = 17;
/// Length of Noise message 1 (`e, es, s, ss`), bytes.
pub const INITIATION_NOISE_LEN: usize = 32 + 48 + INITIATION_PAYLOAD_LEN + 16;
/// Length of Noise message 2 (`e, ee, se, psk`), bytes.
pub const RESPONSE_NOISE_LEN: usize = 32 + RESPONSE_PAYLOAD_LEN + 16;
/// Length of an initiation, bytes.
pub const INITIATION_LEN: usize = 4 + INITIATION_NOISE_LEN + 2 * MAC_LEN;
/// Length of a response, bytes.
pub const RESPONSE_LEN: usize = 7 + RESPONSE_NOISE_LEN + MAC_LEN;
/// Length of a cookie reply, bytes.
pub const COOKIE_LEN: usize = 4 + COOKIE_NONCE_LEN + SEALED_COOKIE_LEN;
/// Length of the longest handshake datagram, bytes.
pub const MAX_HANDSHAKE_LEN: usize = INITIATION_LEN;

const _: () = assert!(RESPONSE_LEN <= INITIATION_LEN && COOKIE_LEN <= INITIATION_LEN, "answers amplify nothing");

/// A MAC or a cookie.
pub type Mac = [u8; MAC_LEN];

/// How packets are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439): fast on any processor.
    ChaCha20Poly1305,
    /// AES-256-GCM (NIST SP 800-38D): faster where the processor has instructions for it.
    Aes256Gcm,
}

impl Suite {
    /// The suite's code on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Suite::ChaCha20Poly1305 => 0,
            Suite::Aes256Gcm => 1,
        }
    }

    /// The suite with this code.
    pub const fn from_code(code: u8) -> Result<Suite, Malformed> {
        match code {
            0 => Ok(Suite::ChaCha20Poly1305),
            1 => Ok(Suite::Aes256Gcm),
            _ => Err(Malformed::UnknownType),
        }
    }
}

/// The first message, from the end that wants keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initiation {
    /// Finds the sender's state when it is answered; 24 bits.
    pub sender: u32,
    /// Noise message 1.
    pub noise: [u8; INITIATION_NOISE_LEN],
    /// Proof of address, zero if none was asked for.
    pub mac2: Mac,
    /// Proof that the sender knows the receiver's public key.
    pub mac1: Mac,
}

impl Initiation {
    /// Reads an initiation.
    pub fn parse(datagram: &[u8]) -> Result<Initiation, Malformed> {
        let mut reader = opened(datagram, KIND_INITIATION)?;
        let message =
            Initiation { sender: reader.u24()?, noise: reader.array()?, mac2: reader.array()?, mac1: reader.array()? };
        reader.finish().map(|()| message)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; INITIATION_LEN] {
        assert!(self.sender < 1 << 24, "an index has 24 bits");
        let mut bytes = [0; INITIATION_LEN];
        let mut writer = Writer::new(&mut bytes);
        let written = (writer.u8(KIND_INITIATION))
            .and_then(|()| writer.u24(self.sender))
            .and_then(|()| writer.bytes(&self.noise))
            .and_then(|()| writer.bytes(&self.mac2))
            .and_then(|()| writer.bytes(&self.mac1));
        assert_eq!((written, writer.room()), (Ok(()), 0), "the fields fill the message");
        bytes
    }

    /// What `mac2` is computed over, of a datagram that parses.
    pub fn under_mac2(datagram: &[u8]) -> &[u8] {
        &datagram[..INITIATION_LEN - 2 * MAC_LEN]
    }

    /// What `mac1` is computed over, of a datagram that parses.
    pub fn under_mac1(datagram: &[u8]) -> &[u8] {
        &datagram[..INITIATION_LEN - MAC_LEN]
    }
}

/// The second message, from the end that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Finds the sender's keys when packets come; 24 bits.
    pub sender: u32,
    /// The sender index of the initiation that this answers; 24 bits.
    pub receiver: u32,
    /// Noise message 2.
    pub noise: [u8; RESPONSE_NOISE_LEN],
    /// Proof that the sender knows the receiver's public key.
    pub mac1: Mac,
}

impl Response {
    /// Reads a response.
    pub fn parse(datagram: &[u8]) -> Result<Response, Malformed> {
        let mut reader = opened(datagram, KIND_RESPONSE)?;
        let message =
            Response { sender: reader.u24()?, receiver: reader.u24()?, noise: reader.array()?, mac1: reader.array()? };
        reader.finish().map(|()| message)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; RESPONSE_LEN] {
        assert!(self.sender < 1 << 24 && self.receiver < 1 << 24, "an index has 24 bits");
        let mut bytes = [0; RESPONSE_LEN];
        let mut writer = Writer::new(&mut bytes);
        let written = (writer.u8(KIND_RESPONSE))
            .and_then(|()| writer.u24(self.sender))
            .and_then(|()| writer.u24(self.receiver))
            .and_then(|()| writer.bytes(&self.noise))
            .and_then(|()| writer.bytes(&self.mac1));
        assert_eq!((written, writer.room()), (Ok(()), 0), "the fields fill the message");
        bytes
    }

    /// What `mac1` is computed over, of a datagram that parses.
    pub fn under_mac1(datagram: &[u8]) -> &[u8] {
        &datagram[..RESPONSE_LEN - MAC_LEN]
    }
}

/// Asks the sender of an initiation to prove its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The sender index of the initiation; 24 bits.
    pub receiver: u32,
    /// Makes the key of this reply unique.
    pub nonce: [u8; COOKIE_NONCE_LEN],
    /// The cookie, sealed for whoever saw the initiation's `mac1`.
    pub sealed: [u8; SEALED_COOKIE_LEN],
}

impl CookieReply {
    /// Reads a cookie reply.
    pub fn parse(datagram: &[u8]) -> Result<CookieReply, Malformed> {
        let mut reader = opened(datagram, KIND_COOKIE)?;
        let message = CookieReply { receiver: reader.u24()?, nonce: reader.array()?, sealed: reader.array()? };
        reader.finish().map(|()| message)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; COOKIE_LEN] {
        assert!(self.receiver < 1 << 24, "an index has 24 bits");
        let mut bytes = [0; COOKIE_LEN];
        let mut writer = Writer::new(&mut bytes);
        let written = (writer.u8(KIND_COOKIE))
            .and_then(|()| writer.u24(self.receiver))
            .and_then(|()| writer.bytes(&self.nonce))
            .and_then(|()| writer.bytes(&self.sealed));
        assert_eq!((written, writer.room()), (Ok(()), 0), "the fields fill the message");
        bytes
    }
}

fn opened(datagram: &[u8], kind: u8) -> Result<Reader<'_>, Malformed> {
    let mut reader = Reader::new(datagram);
    if reader.u8()? == kind { Ok(reader) } else { Err(Malformed::UnknownType) }
}

/// What an initiator says of itself, encrypted in message 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitiationPayload {
    /// The initiator's clock, ns; grows from one message to the next, so that no initiation can be replayed.
    pub timestamp: u64,
    /// Names the life of the initiator's link state.
    pub incarnation: u64,
    /// Counts the changes of keys in that life: one more than the initiator has used. When two initiations cross, both
    /// ends prefer the same one by it.
    pub generation: u32,
    /// The suite that the initiator would like.
    pub preferred: Suite,
}

impl InitiationPayload {
    /// Reads the payload.
    pub fn parse(bytes: &[u8]) -> Result<InitiationPayload, Malformed> {
        let mut reader = Reader::new(bytes);
        let payload = InitiationPayload {
            timestamp: reader.u64()?,
            incarnation: reader.u64()?,
            generation: reader.u32()?,
            preferred: Suite::from_code(reader.u8()?)?,
        };
        reader.finish().map(|()| payload)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; INITIATION_PAYLOAD_LEN] {
        let mut bytes = [0; INITIATION_PAYLOAD_LEN];
        bytes[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.generation.to_be_bytes());
        bytes[20] = self.preferred.code();
        bytes
    }
}

/// What a responder says of itself, encrypted in message 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponsePayload {
    /// The responder's clock, ns; its initiations from before are old from now on.
    pub timestamp: u64,
    /// Names the life of the responder's link state.
    pub incarnation: u64,
    /// The suite that both ends use from now on.
    pub chosen: Suite,
}

impl ResponsePayload {
    /// Reads the payload.
    pub fn parse(bytes: &[u8]) -> Result<ResponsePayload, Malformed> {
        let mut reader = Reader::new(bytes);
        let payload = ResponsePayload {
            timestamp: reader.u64()?,
            incarnation: reader.u64()?,
            chosen: Suite::from_code(reader.u8()?)?,
        };
        reader.finish().map(|()| payload)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; RESPONSE_PAYLOAD_LEN] {
        let mut bytes = [0; RESPONSE_PAYLOAD_LEN];
        bytes[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes[16] = self.chosen.code();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_drawn_layouts_are_the_real_ones() {
        let mut noise = [0; INITIATION_NOISE_LEN];
        noise[0] = 9;
        let bytes = Initiation { sender: 0x01_0203, noise, mac2: [7; 16], mac1: [8; 16] }.to_bytes();
        assert_eq!(bytes.len(), 153);
        assert_eq!((&bytes[..5], bytes[121], bytes[137]), (&[1u8, 1, 2, 3, 9][..], 7, 8));
        assert_eq!(Initiation::under_mac2(&bytes).len(), 121);
        assert_eq!(Initiation::under_mac1(&bytes).len(), 137);
        let mut noise = [0; RESPONSE_NOISE_LEN];
        noise[0] = 9;
        let bytes = Response { sender: 0x01_0203, receiver: 0x04_0506, noise, mac1: [8; 16] }.to_bytes();
        assert_eq!(bytes.len(), 88);
        assert_eq!((&bytes[..8], bytes[72]), (&[2u8, 1, 2, 3, 4, 5, 6, 9][..], 8));
        assert_eq!(Response::under_mac1(&bytes).len(), 72);
        let bytes = CookieReply { receiver: 0x01_0203, nonce: [5; 24], sealed: [6; 32] }.to_bytes();
        assert_eq!((bytes.len(), &bytes[..5], bytes[28]), (60, &[3u8, 1, 2, 3, 5][..], 6));
    }

    #[test]
    fn every_other_length_and_kind_is_refused() {
        for len in 0..200 {
            for kind in 0..=255 {
                let mut bytes = vec![0; len];
                bytes.iter_mut().take(1).for_each(|first| *first = kind);
                assert_eq!(Initiation::parse(&bytes).is_ok(), kind == 1 && len == INITIATION_LEN);
                assert_eq!(Response::parse(&bytes).is_ok(), kind == 2 && len == RESPONSE_LEN);
                assert_eq!(CookieReply::parse(&bytes).is_ok(), kind == 3 && len == COOKIE_LEN);
            }
        }
        assert_eq!(InitiationPayload::parse(&[0; 20]), Err(Malformed::Truncated));
        assert_eq!(InitiationPayload::parse(&[0; 22]), Err(Malformed::TrailingBytes));
        assert_eq!(InitiationPayload::parse(&[2; 21]), Err(Malformed::UnknownType));
        assert_eq!(ResponsePayload::parse(&[0; 16]), Err(Malformed::Truncated));
        assert_eq!(ResponsePayload::parse(&[0; 18]), Err(Malformed::TrailingBytes));
        assert_eq!(ResponsePayload::parse(&[2; 17]), Err(Malformed::UnknownType));
    }

    proptest! {
        #[test]
        fn what_parses_emits_the_same_bytes(kind in 0u8..5, mut bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            for len in [bytes.len(), INITIATION_LEN, RESPONSE_LEN, COOKIE_LEN] {
                bytes.resize(len, 0x5a);
                bytes.iter_mut().take(1).for_each(|first| *first = kind);
                if let Ok(message) = Initiation::parse(&bytes) {
                    prop_assert_eq!(&message.to_bytes()[..], &bytes[..]);
                }
                if let Ok(message) = Response::parse(&bytes) {
                    prop_assert_eq!(&message.to_bytes()[..], &bytes[..]);
                }
                if let Ok(message) = CookieReply::parse(&bytes) {
                    prop_assert_eq!(&message.to_bytes()[..], &bytes[..]);
                }
            }
        }

        #[test]
        fn payloads_round_trip(timestamp: u64, incarnation: u64, generation: u32, code in 0u8..3) {
            if let Ok(suite) = Suite::from_code(code) {
                prop_assert_eq!(suite.code(), code);
                let payload = InitiationPayload { timestamp, incarnation, generation, preferred: suite };
                prop_assert_eq!(InitiationPayload::parse(&payload.to_bytes()), Ok(payload));
                let payload = ResponsePayload { timestamp, incarnation, chosen: suite };
                prop_assert_eq!(ResponsePayload::parse(&payload.to_bytes()), Ok(payload));
            } else {
                prop_assert_eq!(code, 2);
            }
        }
    }
}
