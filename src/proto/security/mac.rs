//! MACs over handshake messages, and cookies: what is checked before any public-key work.
//!
//! All are HMAC-SHA256 cut to 128 bits. The keys of `mac1` and of cookie replies follow from a public key, so they keep
//! nobody out who knows whom he talks to; they make strangers' datagrams cost one hash.

use crate::base::{Instant, Rng};
use crate::wire::handshake::{COOKIE_NONCE_LEN, CookieReply, MAC_LEN, Mac, SEALED_COOKIE_LEN};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hmac};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// How long a cookie is used by who got it; who gave it accepts it for at least as long.
pub(super) const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

fn mac(key: &hmac::Key, message: &[u8]) -> Mac {
    let tag = hmac::sign(key, message);
    *tag.as_ref().first_chunk().expect("SHA-256 is longer than a MAC")
}

/// Whether two MACs are equal, in a time that does not tell where they differ.
fn equal(a: &Mac, b: &Mac) -> bool {
    a.ct_eq(b).into()
}

/// The MAC that shows possession of `cookie`.
pub(super) fn mac2(cookie: &Mac, message: &[u8]) -> Mac {
    mac(&hmac::Key::new(hmac::HMAC_SHA256, cookie), message)
}

/// The keys that follow from the X25519 public key of a message's receiver.
pub(super) struct MacKeys {
    mac1: hmac::Key,
    cookie: hmac::Key,
}

impl MacKeys {
    pub(super) fn new(receiver: &[u8; 32]) -> MacKeys {
        let key = |label: &[u8]| {
            let hash = digest::digest(&digest::SHA256, &[label, receiver].concat());
            hmac::Key::new(hmac::HMAC_SHA256, hash.as_ref())
        };
        MacKeys { mac1: key(b"sinew mac1 1"), cookie: key(b"sinew cookie 1") }
    }

    /// The MAC that every message to this receiver carries.
    pub(super) fn mac1(&self, message: &[u8]) -> Mac {
        mac(&self.mac1, message)
    }

    /// Whether `claimed` is that MAC.
    pub(super) fn verify_mac1(&self, message: &[u8], claimed: &Mac) -> bool {
        equal(&self.mac1(message), claimed)
    }

    /// A key for one cookie reply, so that a random nonce of 24 bytes never meets itself under one key.
    fn reply_key(&self, nonce: &[u8; COOKIE_NONCE_LEN]) -> LessSafeKey {
        let key = hmac::sign(&self.cookie, nonce);
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).expect("SHA-256 has 32 bytes"))
    }

    /// Seals `cookie` for the sender of the message that carried `mac1`: this end received it.
    pub(super) fn seal_cookie(&self, rng: &mut Rng, receiver: u32, mac1: &Mac, cookie: &Mac) -> CookieReply {
        let mut reply = CookieReply { receiver, nonce: [0; COOKIE_NONCE_LEN], sealed: [0; SEALED_COOKIE_LEN] };
        rng.fill(&mut reply.nonce);
        let (body, tag) = reply.sealed.split_at_mut(MAC_LEN);
        body.copy_from_slice(cookie);
        let sealed = self.reply_key(&reply.nonce).seal_in_place_separate_tag(zero_nonce(), Aad::from(mac1), body);
        tag.copy_from_slice(sealed.expect("a cookie is short").as_ref());
        reply
    }

    /// The cookie in a reply to our message that carried `mac1`: the owner of these keys received that.
    pub(super) fn open_cookie(&self, reply: &CookieReply, mac1: &Mac) -> Option<Mac> {
        let mut sealed = reply.sealed;
        let opened = self.reply_key(&reply.nonce).open_in_place(zero_nonce(), Aad::from(mac1), &mut sealed);
        opened.ok()?.try_into().ok()
    }
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Makes and checks the cookies of this router: each is bound to an address and to a secret that changes.
pub(super) struct CookieJar {
    secret: hmac::Key,
    previous: Option<hmac::Key>,
    rotate_at: Instant,
}

impl CookieJar {
    pub(super) fn new(rng: &mut Rng) -> CookieJar {
        CookieJar { secret: draw(rng), previous: None, rotate_at: Instant::ZERO + COOKIE_LIFETIME }
    }

    /// The cookie of `address`. Whoever asks is also the clock of the rotation: no timer is needed for it.
    pub(super) fn cookie(&mut self, now: Instant, rng: &mut Rng, address: SocketAddr) -> Mac {
        self.rotate(now, rng);
        mac(&self.secret, &address_bytes(address))
    }

    /// Whether `claimed` is the MAC of `message` under a cookie that `address` was given.
    pub(super) fn verify(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        address: SocketAddr,
        message: &[u8],
        claimed: &Mac,
    ) -> bool {
        self.rotate(now, rng);
        let bytes = address_bytes(address);
        let secrets = std::iter::once(&self.secret).chain(&self.previous);
        secrets.fold(false, |found, secret| found | equal(&mac2(&mac(secret, &bytes), message), claimed))
    }

    fn rotate(&mut self, now: Instant, rng: &mut Rng) {
        if now < self.rotate_at {
            return;
        }
        let old = std::mem::replace(&mut self.secret, draw(rng));
        self.previous = (now < self.rotate_at + COOKIE_LIFETIME).then_some(old);
        self.rotate_at = now + COOKIE_LIFETIME;
    }
}

fn draw(rng: &mut Rng) -> hmac::Key {
    let mut secret = zeroize::Zeroizing::new([0; 32]);
    rng.fill(secret.as_mut_slice());
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice())
}

fn address_bytes(address: SocketAddr) -> [u8; 18] {
    let mut bytes = [0; 18];
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_cookie_is_for_one_address_and_lives_as_long_as_promised() {
        let mut rng = Rng::from_u64(1);
        let mut jar = CookieJar::new(&mut rng);
        let here = address("192.0.2.1:7");
        for given in [0, 60, 119, 130, 239, 1000] {
            let cookie = jar.cookie(at(given), &mut rng, here);
            let proof = mac2(&cookie, b"message");
            assert!(jar.verify(at(given), &mut rng, here, b"message", &proof));
            assert!(!jar.verify(at(given), &mut rng, address("192.0.2.1:8"), b"message", &proof));
            assert!(!jar.verify(at(given), &mut rng, address("192.0.2.2:7"), b"message", &proof));
            assert!(!jar.verify(at(given), &mut rng, here, b"massage", &proof));
        }
        let proof = mac2(&jar.cookie(at(1000), &mut rng, here), b"message");
        assert!(jar.verify(at(1120), &mut rng, here, b"message", &proof));
        assert!(!jar.verify(at(1240), &mut rng, here, b"message", &proof));
    }

    #[test]
    fn a_cookie_reply_opens_for_the_message_it_answers_only() {
        let (keys, other) = (MacKeys::new(&[1; 32]), MacKeys::new(&[2; 32]));
        let reply = keys.seal_cookie(&mut Rng::from_u64(1), 5, &[3; 16], &[4; 16]);
        assert_eq!(keys.open_cookie(&reply, &[3; 16]), Some([4; 16]));
        assert_eq!(keys.open_cookie(&reply, &[9; 16]), None);
        assert_eq!(other.open_cookie(&reply, &[3; 16]), None);
        for at in 4..reply.to_bytes().len() {
            let mut bytes = reply.to_bytes();
            bytes[at] ^= 1;
            let forged = CookieReply::parse(&bytes).expect("the form is right");
            assert_eq!(keys.open_cookie(&forged, &[3; 16]), None, "byte {at}");
        }
    }

    #[test]
    fn mac1_depends_on_receiver_and_message() {
        let (keys, other) = (MacKeys::new(&[1; 32]), MacKeys::new(&[2; 32]));
        let tag = keys.mac1(b"message");
        assert!(keys.verify_mac1(b"message", &tag));
        assert!(!keys.verify_mac1(b"massage", &tag));
        assert!(!other.verify_mac1(b"message", &tag));
    }
}
