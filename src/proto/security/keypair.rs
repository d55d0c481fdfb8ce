//! One pair of keys: what seals to the other end and what opens what comes from it.

use super::noise::Secrets;
use crate::base::Instant;
use crate::wire::datagram::{HEADER_LEN, SealedHeader, TAG_LEN};
use crate::wire::handshake::Suite;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Which suite a router would like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SuitePreference {
    /// AES-256-GCM if this processor has instructions for it, else ChaCha20-Poly1305.
    #[default]
    Auto,
    /// AES-256-GCM, whatever the processor.
    Aes256Gcm,
    /// ChaCha20-Poly1305, whatever the processor.
    ChaCha20Poly1305,
}

impl SuitePreference {
    /// What is said to the other end.
    pub(super) fn resolve(self) -> Suite {
        match self {
            SuitePreference::Auto if processor_has_aes() => Suite::Aes256Gcm,
            SuitePreference::Aes256Gcm => Suite::Aes256Gcm,
            SuitePreference::Auto | SuitePreference::ChaCha20Poly1305 => Suite::ChaCha20Poly1305,
        }
    }
}

/// AES-256-GCM if both ends would like it, else ChaCha20-Poly1305, which no processor is slow at.
pub(super) fn agree(a: Suite, b: Suite) -> Suite {
    if a == b { a } else { Suite::ChaCha20Poly1305 }
}

/// Whether the processor computes AES and the carry-less products of GCM by itself.
fn processor_has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// What a handshake ended in, at one end.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// Finds these keys here.
    pub(super) local_index: u32,
    /// Finds these keys at the other end.
    pub(super) remote_index: u32,
    /// The other end's incarnation.
    pub(super) incarnation: u64,
    /// Counts the changes of keys within a life.
    pub(super) generation: u32,
    /// Whether the end with the lower id asked for these keys.
    pub(super) by_lower: bool,
    /// Whether this end asked for these keys.
    pub(super) initiator: bool,
    /// When they must not be used any more.
    pub(super) expires: Instant,
}

impl Terms {
    /// What both ends prefer by, when two handshakes crossed: the later change of keys; of one change, the lower id's.
    pub(super) const fn rank(&self) -> (u32, bool) {
        (self.generation, self.by_lower)
    }
}

/// Keys for both directions, prepared once: sealing and opening allocate nothing.
pub(super) struct Keypair {
    pub(super) terms: Terms,
    /// Something sealed by the other end with these keys was opened.
    pub(super) heard: bool,
    /// Packets sealed.
    pub(super) sealed: u64,
    /// No packet number below this may be sealed: below are those that were.
    floor: u64,
    seal: LessSafeKey,
    open: LessSafeKey,
}

impl Keypair {
    pub(super) fn new(terms: Terms, suite: Suite, secrets: &Secrets) -> Keypair {
        let algorithm = match suite {
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Suite::Aes256Gcm => &AES_256_GCM,
        };
        let key = |bytes: &[u8; 32]| {
            LessSafeKey::new(UnboundKey::new(algorithm, bytes).expect("keys of both suites have 32 bytes"))
        };
        Keypair { terms, heard: false, sealed: 0, floor: 0, seal: key(&secrets.seal), open: key(&secrets.open) }
    }

    /// Whether the keys may still be used.
    pub(super) fn usable(&self, now: Instant) -> bool {
        now < self.terms.expires
    }

    /// Seals `plaintext_len` bytes after the header in place; the length of the whole packet.
    pub(super) fn seal(&mut self, number: u64, datagram: &mut [u8], plaintext_len: usize) -> usize {
        assert!(number >= self.floor, "packet number {number} again under one key, {} is next", self.floor);
        let end = HEADER_LEN + plaintext_len;
        let (packet, _) = datagram.split_at_mut(end + TAG_LEN);
        let (header, rest) = packet.split_at_mut(HEADER_LEN);
        SealedHeader { receiver: self.terms.remote_index, number: crate::base::seq::truncate(number) }.emit(header);
        let (plaintext, tag) = rest.split_at_mut(plaintext_len);
        let sealed = self.seal.seal_in_place_separate_tag(nonce(number), Aad::from(&*header), plaintext);
        tag.copy_from_slice(sealed.expect("a datagram is shorter than any suite's limit").as_ref());
        self.floor = number + 1;
        self.sealed += 1;
        end + TAG_LEN
    }

    /// Opens a sealed packet in place: its plaintext follows the header. False if it is not what the other end sealed.
    pub(super) fn open(&self, number: u64, datagram: &mut [u8]) -> bool {
        let Some((header, body)) = datagram.split_at_mut_checked(HEADER_LEN) else { return false };
        self.open.open_in_place(nonce(number), Aad::from(&*header), body).is_ok()
    }
}

/// Four zero bytes and the packet number.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use zeroize::Zeroizing;

    pub(crate) fn pair(suite: Suite) -> (Keypair, Keypair) {
        let terms = Terms {
            local_index: 1,
            remote_index: 2,
            incarnation: 3,
            generation: 1,
            by_lower: true,
            initiator: true,
            expires: Instant::ZERO + Duration::from_secs(1),
        };
        let (a, b) = (Zeroizing::new([1; 32]), Zeroizing::new([2; 32]));
        let ours = Secrets { seal: a.clone(), open: b.clone() };
        (Keypair::new(terms, suite, &ours), Keypair::new(terms, suite, &Secrets { seal: b, open: a }))
    }

    #[test]
    fn opens_only_what_was_sealed_under_that_number() {
        for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
            let (mut a, b) = pair(suite);
            let mut packet = [7u8; 100];
            let len = a.seal(1 << 40, &mut packet, 50);
            assert_eq!(len, HEADER_LEN + 50 + TAG_LEN);
            for (number, opens) in [((1 << 40) + 1, false), (0, false), (1 << 40, true)] {
                let mut copy = packet;
                assert_eq!(b.open(number, &mut copy[..len]), opens);
                assert_eq!(copy[HEADER_LEN..HEADER_LEN + 50] == [7; 50], opens);
            }
            assert!(!a.open(1 << 40, &mut packet[..len]), "a packet reflected to its sender does not open");
        }
    }

    #[test]
    #[should_panic(expected = "again under one key")]
    fn a_number_is_never_sealed_twice() {
        let (mut a, _) = pair(Suite::Aes256Gcm);
        let mut packet = [0; 100];
        a.seal(5, &mut packet, 10);
        a.seal(5, &mut packet, 10);
    }

    #[test]
    fn aes_needs_both_ends() {
        let (aes, chacha) = (Suite::Aes256Gcm, Suite::ChaCha20Poly1305);
        assert_eq!([agree(aes, aes), agree(aes, chacha), agree(chacha, aes)], [aes, chacha, chacha]);
        assert_eq!(SuitePreference::Aes256Gcm.resolve(), aes);
        assert_eq!(SuitePreference::ChaCha20Poly1305.resolve(), chacha);
    }
}
