//! The handshake's cryptography: Noise IKpsk2 by the crate `snow`, with our randomness.
//!
//! The initiator knows the responder's static key (K at message 1), sends its own under encryption (I), and a preshared
//! key is mixed in at the end of message 2 (psk2; zero when there is none). The prologue names the protocol and its
//! version: ends that speak different versions never agree on keys.

use crate::base::{Identity, Rng};
use crate::wire::handshake::{
    INITIATION_NOISE_LEN, INITIATION_PAYLOAD_LEN, InitiationPayload, RESPONSE_NOISE_LEN, RESPONSE_PAYLOAD_LEN,
    ResponsePayload,
};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"sinew link 1";
/// Where IKpsk2 mixes the preshared key in.
const PSK_AT: u8 = 2;

/// The keys a handshake gives one end.
pub(super) struct Secrets {
    pub(super) seal: Zeroizing<[u8; 32]>,
    pub(super) open: Zeroizing<[u8; 32]>,
}

/// Begins a handshake with the owner of `peer`, a static X25519 key: the state that reads the answer, and message 1.
pub(super) fn initiate(
    identity: &Identity,
    peer: &[u8; 32],
    psk: &[u8; 32],
    rng: Rng,
    payload: &InitiationPayload,
) -> Result<(HandshakeState, [u8; INITIATION_NOISE_LEN]), Error> {
    let mut state = builder(identity, rng)?.remote_public_key(peer)?.psk(PSK_AT, psk)?.build_initiator()?;
    let mut message = [0; INITIATION_NOISE_LEN];
    let len = state.write_message(&payload.to_bytes(), &mut message)?;
    assert_eq!(len, INITIATION_NOISE_LEN, "message 1 has one length");
    Ok((state, message))
}

/// Reads message 1: the state that answers it, the initiator's static key, and what it says.
pub(super) fn read_initiation(
    identity: &Identity,
    rng: Rng,
    message: &[u8; INITIATION_NOISE_LEN],
) -> Option<(HandshakeState, [u8; 32], InitiationPayload)> {
    let mut state = builder(identity, rng).and_then(Builder::build_responder).ok()?;
    let mut payload = [0; INITIATION_PAYLOAD_LEN];
    state.read_message(message, &mut payload).ok()?;
    let peer = state.get_remote_static()?.try_into().ok()?;
    Some((state, peer, InitiationPayload::parse(&payload).ok()?))
}

/// Answers message 1: message 2 and the keys.
pub(super) fn respond(
    mut state: HandshakeState,
    psk: &[u8; 32],
    payload: &ResponsePayload,
) -> Option<([u8; RESPONSE_NOISE_LEN], Secrets)> {
    state.set_psk(PSK_AT.into(), psk).ok()?;
    let mut message = [0; RESPONSE_NOISE_LEN];
    let len = state.write_message(&payload.to_bytes(), &mut message).ok()?;
    assert_eq!(len, RESPONSE_NOISE_LEN, "message 2 has one length");
    Some((message, split(&mut state)))
}

/// Reads message 2: what the responder says and the keys. A forged one leaves `state` able to read the real one.
pub(super) fn read_response(
    state: &mut HandshakeState,
    message: &[u8; RESPONSE_NOISE_LEN],
) -> Option<(ResponsePayload, Secrets)> {
    let mut payload = [0; RESPONSE_PAYLOAD_LEN];
    state.read_message(message, &mut payload).ok()?;
    Some((ResponsePayload::parse(&payload).ok()?, split(state)))
}

fn builder(identity: &Identity, rng: Rng) -> Result<Builder<'_>, Error> {
    let params: NoiseParams = PATTERN.parse()?;
    Builder::with_resolver(params, Box::new(Resolver(rng)))
        .local_private_key(identity.exchange_secret())?
        .prologue(PROLOGUE)
}

fn split(state: &mut HandshakeState) -> Secrets {
    assert!(state.is_handshake_finished(), "both messages were exchanged");
    let (first, second) = state.dangerously_get_raw_split();
    let (to_responder, to_initiator) = (Zeroizing::new(first), Zeroizing::new(second));
    if state.is_initiator() {
        Secrets { seal: to_responder, open: to_initiator }
    } else {
        Secrets { seal: to_initiator, open: to_responder }
    }
}

/// Where snow gets its primitives: ring's cipher, the default resolver's curve and hash, our randomness. It serves one
/// handshake state, which asks for randomness once.
struct Resolver(Rng);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Entropy(self.0.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice).map(|dh| Box::new(Contributory(dh)) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

struct Entropy(Rng);

impl Random for Entropy {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

/// Refuses public keys of small order, whose shared secret everyone knows (RFC 7748 section 6.1).
struct Contributory(Box<dyn Dh>);

impl Dh for Contributory {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn pub_len(&self) -> usize {
        self.0.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.0.priv_len()
    }

    fn set(&mut self, private: &[u8]) {
        self.0.set(private);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        self.0.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.0.pubkey()
    }

    fn privkey(&self) -> &[u8] {
        self.0.privkey()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        self.0.dh(public, out)?;
        let shared = out.get(..self.0.dh_len()).ok_or(Error::Dh)?;
        if bool::from(shared.ct_eq(&[0; 32])) { Err(Error::Dh) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::Suite;

    const HELLO: InitiationPayload =
        InitiationPayload { timestamp: 5, incarnation: 6, generation: 1, preferred: Suite::Aes256Gcm };
    const ANSWER: ResponsePayload = ResponsePayload { timestamp: 8, incarnation: 7, chosen: Suite::Aes256Gcm };

    fn identities() -> (Identity, Identity) {
        (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]))
    }

    #[test]
    fn both_ends_get_the_same_keys_crosswise() {
        let (a, b) = identities();
        let psk = [9; 32];
        let (mut state, first) =
            initiate(&a, &b.public().exchange, &psk, Rng::from_u64(1), &HELLO).expect("keys are good");
        let (answering, peer, payload) = read_initiation(&b, Rng::from_u64(2), &first).expect("authentic");
        assert_eq!((peer, payload), (a.public().exchange, HELLO));
        let (second, theirs) = respond(answering, &psk, &ANSWER).expect("answers");
        let mut forged = second;
        forged[50] ^= 1;
        assert!(read_response(&mut state, &forged).is_none());
        let (payload, ours) = read_response(&mut state, &second).expect("the forgery did no harm");
        assert_eq!(payload, ANSWER);
        assert_eq!((&ours.seal, &ours.open), (&theirs.open, &theirs.seal));
        assert_ne!(ours.seal, ours.open);
    }

    #[test]
    fn same_seed_same_message_other_seed_other_message() {
        let (a, b) = identities();
        let first = |seed| initiate(&a, &b.public().exchange, &[0; 32], Rng::from_u64(seed), &HELLO).expect("good").1;
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn points_of_small_order_are_refused() {
        let (a, b) = identities();
        assert!(initiate(&a, &[0; 32], &[0; 32], Rng::from_u64(1), &HELLO).is_err());
        let mut message = initiate(&a, &b.public().exchange, &[0; 32], Rng::from_u64(1), &HELLO).expect("good").1;
        message[..32].fill(0);
        assert!(read_initiation(&b, Rng::from_u64(2), &message).is_none());
    }
}
