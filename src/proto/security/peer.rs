//! One link as security sees it: who is at the other end, where, and what is due when.

use super::index::IndexTable;
use super::keyring::{Keyring, Place};
use super::mac::{COOKIE_LIFETIME, MacKeys};
use super::suspicion::Suspicion;
use super::{Reason, Settings};
use crate::base::time::sooner;
use crate::base::{AddressPair, Instant, NodeId, PublicIdentity, Rng};
use crate::wire::handshake::Mac;
use snow::HandshakeState;
use std::net::SocketAddr;
use zeroize::Zeroizing;

/// Every so many attempts the next one waits this much longer, so that round trips above the retry interval get their
/// chance: a response is only good for the newest initiation.
const PATIENT_EVERY: u32 = 8;
const PATIENCE: u32 = 4;
/// Silence after which an end that keeps sending asks for new keys, in retry intervals: the other end may have restarted
/// and lost them.
const SILENCE: u32 = 3;
/// An initiation of the other end crosses ours if it arrives within this part of a retry interval after ours was sent;
/// later it more likely is ours that was lost. Both vary, so an end that asks in vain is soon answered in any case.
const CROSSING: u32 = 4;
/// The rekey time of each end varies by up to this share of the interval; the ends' differ by an eighth, so that usually
/// only one asks.
const REKEY_JITTER: f64 = 0.04;

/// An initiation on its way.
pub(super) struct Pending {
    pub(super) local_index: u32,
    pub(super) generation: u32,
    pub(super) state: Box<HandshakeState>,
    pub(super) sent: Instant,
    /// What a cookie reply to it must name; taken by the first.
    pub(super) mac1: Option<Mac>,
}

pub(super) struct Peer {
    pub(super) identity: PublicIdentity,
    pub(super) node: NodeId,
    pub(super) macs: MacKeys,
    pub(super) psk: Zeroizing<[u8; 32]>,
    pub(super) remote: Option<AddressPair>,
    /// Where it is if nobody was heard elsewhere.
    configured: Vec<AddressPair>,
    /// Names the life of this end of the link.
    pub(super) incarnation: u64,
    pub(super) keys: Keyring,
    pub(super) pending: Option<Pending>,
    /// When to send the next initiation.
    pub(super) retry_at: Option<Instant>,
    attempts: u32,
    /// When to ask for new keys.
    rekey_at: Option<Instant>,
    /// Since when this end sends and hears nothing.
    unanswered_since: Option<Instant>,
    /// The newest timestamp heard from the other end: initiations up to it are replays.
    pub(super) heard_timestamp: Option<u64>,
    /// Where an initiation came from that may be a replay or of a life whose clock went back: asked there once.
    doubtful: Option<AddressPair>,
    cookie: Option<(Mac, Instant)>,
    /// What seems to keep it from agreeing on keys with us.
    pub(super) suspicion: Suspicion,
    /// It only says goodbye.
    pub(super) leaving: bool,
}

impl Peer {
    pub(super) fn new(
        now: Instant,
        identity: PublicIdentity,
        preshared_key: Option<[u8; 32]>,
        paths: &[AddressPair],
        incarnation: u64,
    ) -> Peer {
        Peer {
            identity,
            node: identity.node_id(),
            macs: MacKeys::new(&identity.exchange),
            psk: Zeroizing::new(preshared_key.unwrap_or_default()),
            remote: paths.first().copied(),
            configured: paths.to_vec(),
            incarnation,
            keys: Keyring::new(),
            pending: None,
            retry_at: paths.first().map(|_| now),
            attempts: 0,
            rekey_at: None,
            unanswered_since: None,
            heard_timestamp: None,
            doubtful: None,
            cookie: None,
            suspicion: Suspicion::default(),
            leaving: false,
        }
    }

    /// Whether the other end may speak from there without having moved: it is where it was, or one of several paths.
    pub(super) fn expects(&self, from: AddressPair) -> bool {
        self.remote == Some(from) || (self.configured.len() > 1 && self.configured.contains(&from))
    }

    /// These are configured from now on.
    pub(super) fn set_paths(&mut self, paths: &[AddressPair]) {
        self.configured = paths.to_vec();
        self.remote = self.remote.or(paths.first().copied());
    }

    /// Asks for a handshake now, unless one is under way or nobody knows where to.
    pub(super) fn want_handshake(&mut self, now: Instant) -> bool {
        let wanted = self.retry_at.is_none() && self.remote.is_some() && !self.leaving;
        if wanted {
            self.retry_at = Some(now);
        }
        wanted
    }

    /// An initiation from there has an old timestamp: without keys, whoever is there is asked, since only the living
    /// can answer. Not at once: the other end would take the question for one that crossed its own.
    pub(super) fn doubt(&mut self, now: Instant, from: AddressPair, rng: &mut Rng, settings: &Settings) {
        if self.keys.get(Place::Current).is_some_and(|keys| keys.usable(now)) {
            return;
        }
        self.doubtful = Some(from);
        if self.retry_at.is_none() {
            self.retry_at = Some(now + rng.jitter(settings.retry / 2, 0.2));
        }
    }

    /// Where to ask for keys. Whoever relays packets can make an end believe that the other has moved, and go away; and a
    /// path may be dead. So questions go where it was last and where the configuration says, in turn.
    pub(super) fn whom_to_ask(&mut self) -> Option<AddressPair> {
        if let Some(doubtful) = self.doubtful.take() {
            return Some(doubtful);
        }
        let remote = self.remote?;
        let configured = self.configured.iter().copied().filter(|&path| path != remote);
        let all = 1 + configured.clone().count();
        std::iter::once(remote).chain(configured).nth(self.attempts as usize % all)
    }

    /// Whether the other end is, or may be, there.
    pub(super) fn may_be_at(&self, address: SocketAddr) -> bool {
        self.configured.iter().chain(&self.remote).any(|path| path.remote == address)
    }

    /// Counts an attempt and plans the next.
    pub(super) fn attempted(&mut self, now: Instant, rng: &mut Rng, settings: &Settings) {
        self.attempts = self.attempts.wrapping_add(1);
        let patience = if self.attempts.is_multiple_of(PATIENT_EVERY) { PATIENCE } else { 1 };
        self.retry_at = Some(now + rng.jitter(settings.retry, 0.2) * patience);
    }

    /// Gives up the initiation on its way.
    pub(super) fn cancel(&mut self, indices: &mut IndexTable) {
        if let Some(pending) = self.pending.take() {
            indices.release(pending.local_index);
        }
    }

    /// New keys are in use: nothing is due until they age. The end that asked for these asks again first.
    pub(super) fn established(&mut self, now: Instant, rng: &mut Rng, settings: &Settings, indices: &mut IndexTable) {
        self.cancel(indices);
        (self.retry_at, self.doubtful) = (None, None);
        self.attempts = 0;
        self.unanswered_since = None;
        let initiator = self.keys.get(Place::Current).is_some_and(|keys| keys.terms.initiator);
        let after = if initiator { settings.rekey_after } else { settings.rekey_after + settings.rekey_after / 8 };
        self.rekey_at = Some(now + rng.jitter(after, REKEY_JITTER));
    }

    /// Current keys ran out.
    pub(super) fn expired(&mut self, now: Instant) {
        self.rekey_at = None;
        self.unanswered_since = None;
        self.want_handshake(now);
    }

    /// The other end said goodbye: it is asked for keys a retry interval from now, and then until it answers.
    pub(super) fn left(&mut self, now: Instant, settings: &Settings) {
        if self.retry_at.is_none() && self.remote.is_some() {
            self.retry_at = Some(now + settings.retry);
        }
    }

    /// Asks for nothing any more.
    pub(super) fn leave(&mut self, indices: &mut IndexTable) {
        self.cancel(indices);
        (self.retry_at, self.rekey_at) = (None, None);
        self.leaving = true;
    }

    /// Turns a rekey time that has come into a handshake.
    pub(super) fn rekey_if_due(&mut self, now: Instant) {
        if self.rekey_at.is_some_and(|at| at <= now) {
            self.rekey_at = None;
            self.want_handshake(now);
        }
    }

    /// A packet was sealed. True if the other end has been silent for so long that it may have lost its keys, and a
    /// handshake was asked for.
    pub(super) fn sent(&mut self, now: Instant, settings: &Settings) -> bool {
        match self.unanswered_since {
            None => {
                self.unanswered_since = Some(now);
                false
            }
            Some(since) => now.since(since) >= settings.retry * SILENCE && self.want_handshake(now),
        }
    }

    /// A packet was opened.
    pub(super) const fn heard(&mut self) {
        self.unanswered_since = None;
    }

    /// The cookie to prove our address with.
    pub(super) fn cookie(&self, now: Instant) -> Option<&Mac> {
        self.cookie.as_ref().filter(|cookie| now.since(cookie.1) < COOKIE_LIFETIME).map(|cookie| &cookie.0)
    }

    /// Uses `cookie` from now on. The first one is a reason to try again at once; while one is held the timer decides,
    /// so that forged or repeated replies cannot drive us.
    pub(super) fn take_cookie(&mut self, now: Instant, cookie: Mac) {
        if self.cookie(now).is_none() && self.retry_at.is_some() {
            self.retry_at = Some(now);
        }
        self.cookie = Some((cookie, now));
    }

    /// Whether our initiation was sent so recently that the other end's, arriving now, must have crossed it.
    pub(super) fn crossed(&self, now: Instant, settings: &Settings) -> bool {
        self.pending.as_ref().is_some_and(|pending| now.since(pending.sent) < settings.retry / CROSSING)
    }

    /// When something is due, and what.
    pub(super) fn deadline(&self) -> Option<(Instant, Reason)> {
        let retry = self.retry_at.map(|at| (at, Reason::HandshakeRetry));
        let rekey = self.rekey_at.map(|at| (at, Reason::Rekey));
        let expiry = self.keys.next_expiry().map(|at| (at, Reason::Expiry));
        sooner(sooner(retry, rekey), expiry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Identity;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn peer(remote: bool) -> Peer {
        let paths = remote.then(|| SocketAddr::from(([127, 0, 0, 1], 1)).into());
        Peer::new(Instant::ZERO, Identity::from_seed([1; 32]).public(), None, paths.as_slice(), 1)
    }

    #[test]
    fn attempts_keep_their_pace_and_are_patient_now_and_then() {
        let (mut peer, mut rng, settings) = (peer(true), Rng::from_u64(1), Settings::default());
        assert_eq!(peer.deadline(), Some((Instant::ZERO, Reason::HandshakeRetry)));
        let now = Instant::from_millis(1000);
        for attempt in 1..=64 {
            peer.attempted(now, &mut rng, &settings);
            let wait = peer.retry_at.expect("planned").since(now);
            let scale = if attempt % 8 == 0 { 4 } else { 1 };
            assert!(wait >= Duration::from_millis(400) * scale && wait <= Duration::from_millis(600) * scale);
        }
    }

    #[test]
    fn silence_asks_for_a_handshake_once_and_only_if_it_knows_where() {
        let settings = Settings::default();
        for known in [true, false] {
            let mut peer = peer(known);
            peer.retry_at = None;
            assert!(!peer.sent(Instant::ZERO, &settings));
            assert!(!peer.sent(Instant::from_millis(1499), &settings));
            assert_eq!(peer.sent(Instant::from_millis(1500), &settings), known);
            assert!(!peer.sent(Instant::from_millis(1501), &settings));
            peer.retry_at = None;
            peer.heard();
            assert!(!peer.sent(Instant::from_millis(9000), &settings));
        }
    }

    #[test]
    fn only_the_first_cookie_hastens_the_next_attempt() {
        let mut peer = peer(true);
        let later = Instant::from_millis(700);
        peer.retry_at = Some(later);
        peer.take_cookie(Instant::from_millis(1), [1; 16]);
        assert_eq!(peer.retry_at, Some(Instant::from_millis(1)));
        peer.retry_at = Some(later);
        peer.take_cookie(Instant::from_millis(2), [2; 16]);
        assert_eq!((peer.retry_at, peer.cookie(later)), (Some(later), Some(&[2; 16])));
        assert_eq!(peer.cookie(Instant::from_millis(120_002)), None);
    }
}
