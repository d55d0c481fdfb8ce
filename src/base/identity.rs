//! A router's identity: one secret seed, two key pairs, one public name.
//!
//! The seed gives an Ed25519 key (RFC 8032) that signs what is flooded, and an X25519 key (RFC 7748) for handshakes.

use super::{NodeId, verdicts};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::hkdf;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Length of a signature, bytes.
pub const SIGNATURE_LEN: usize = 64;
/// What a printed public identity starts with.
const PUBLIC_PREFIX: &str = "sinew-public-";
/// What a printed secret identity starts with.
const SECRET_PREFIX: &str = "sinew-secret-";

/// What others know of a router.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicIdentity {
    /// Ed25519 public key.
    pub signing: [u8; 32],
    /// X25519 public key.
    pub exchange: [u8; 32],
}

impl PublicIdentity {
    /// The router's id: the first 64 bits of the SHA-256 of both keys.
    pub fn node_id(&self) -> NodeId {
        let hash = digest::digest(&digest::SHA256, &[self.signing, self.exchange].concat());
        let (head, _) = hash.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        NodeId(u64::from_be_bytes(*head))
    }

    /// Whether `signature` is this router's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        let check = || UnparsedPublicKey::new(&ED25519, &self.signing).verify(message, signature).is_ok();
        verdicts::of(&self.signing, message, signature, check)
    }
}

impl fmt::Display for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = [self.signing, self.exchange].concat();
        write!(f, "{PUBLIC_PREFIX}{}", URL_SAFE_NO_PAD.encode(keys))
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicIdentity({})", self.node_id())
    }
}

/// Why text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    /// A secret where a public identity is expected.
    #[error("this is a secret identity: never give it away; print the public one with `sinew key show`")]
    SecretNotPublic,
    /// Something else.
    #[error("not an identity: `{0}` followed by {1} characters is expected, as printed by `sinew key show`")]
    Form(&'static str, usize),
}

fn decode<const N: usize>(text: &str, prefix: &'static str) -> Result<Zeroizing<[u8; N]>, BadIdentity> {
    let form = || BadIdentity::Form(prefix, (N * 4).div_ceil(3));
    let body = text.trim().strip_prefix(prefix).ok_or_else(form)?;
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| form())?);
    Ok(Zeroizing::new(<[u8; N]>::try_from(bytes.as_slice()).map_err(|_| form())?))
}

impl FromStr for PublicIdentity {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<PublicIdentity, BadIdentity> {
        if text.trim().starts_with(SECRET_PREFIX) {
            return Err(BadIdentity::SecretNotPublic);
        }
        let keys = decode::<64>(text, PUBLIC_PREFIX)?;
        let (signing, exchange) = keys.split_at(32);
        let half = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).expect("half of 64 bytes");
        Ok(PublicIdentity { signing: half(signing), exchange: half(exchange) })
    }
}

/// A router's secret identity. Cheap to clone; wiped when the last clone goes.
#[derive(Clone)]
pub struct Identity(Arc<Secrets>);

struct Secrets {
    seed: Zeroizing<[u8; 32]>,
    exchange: Zeroizing<[u8; 32]>,
    signing: Ed25519KeyPair,
    public: PublicIdentity,
}

impl Identity {
    /// The identity that follows from 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Identity {
        let seed = Zeroizing::new(seed);
        let derive = |label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"sinew identity 1");
            let prk = salt.extract(seed.as_slice());
            let filled = prk.expand(&[label], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(key.as_mut_slice()));
            filled.expect("HKDF-SHA256 gives 32 bytes");
            key
        };
        let exchange = derive(b"x25519");
        let signing = Ed25519KeyPair::from_seed_unchecked(derive(b"ed25519").as_slice()).expect("a seed has 32 bytes");
        let public = PublicIdentity {
            signing: signing.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"),
            exchange: x25519_public(&exchange),
        };
        Identity(Arc::new(Secrets { seed, exchange, signing, public }))
    }

    /// The identity printed by [`Identity::to_secret_text`].
    pub fn from_secret_text(text: &str) -> Result<Identity, BadIdentity> {
        decode::<32>(text, SECRET_PREFIX).map(|seed| Identity::from_seed(*seed))
    }

    /// The seed as text, for the key file and nothing else.
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0.seed.as_slice())))
    }

    /// What others may know.
    pub fn public(&self) -> PublicIdentity {
        self.0.public
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.signing.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// The X25519 secret, for handshakes.
    pub fn exchange_secret(&self) -> &[u8; 32] {
        &self.0.exchange
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, secret withheld)", self.0.public.node_id())
    }
}

fn x25519_public(secret: &[u8; 32]) -> [u8; 32] {
    use snow::params::DHChoice;
    use snow::resolvers::{CryptoResolver as _, DefaultResolver};
    let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("the resolver has Curve25519");
    dh.set(secret);
    dh.pubkey().try_into().expect("an X25519 public key has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip_and_are_not_confused() {
        let identity = Identity::from_seed([7; 32]);
        let public = identity.public();
        assert_eq!(public.to_string().parse(), Ok(public));
        let again = Identity::from_secret_text(&identity.to_secret_text()).expect("parses");
        assert_eq!(again.public(), public);
        assert_eq!(identity.to_secret_text().parse::<PublicIdentity>(), Err(BadIdentity::SecretNotPublic));
        assert!("sinew-public-AAAA".parse::<PublicIdentity>().is_err());
        assert!(!format!("{identity:?}").contains(&identity.to_secret_text()[13..]));
    }

    #[test]
    fn signatures_hold_for_their_message_and_signer_only() {
        let (a, b) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let signature = a.sign(b"message");
        assert!(a.public().verify(b"message", &signature));
        assert!(!a.public().verify(b"massage", &signature));
        assert!(!b.public().verify(b"message", &signature));
    }

    #[test]
    fn x25519_matches_rfc_7748() {
        // RFC 7748 section 6.1, Alice.
        let secret = *b"\x77\x07\x6d\x0a\x73\x18\xa5\x7d\x3c\x16\xc1\x72\x51\xb2\x66\x45\xdf\x4c\x2f\x87\xeb\xc0\x99\x2a\xb1\x77\xfb\xa5\x1d\xb9\x2c\x2a";
        let public = x25519_public(&secret);
        assert_eq!(public[..4], [0x85, 0x20, 0xf0, 0x09]);
    }
}
