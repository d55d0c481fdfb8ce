//! Floor 2: handshake, keys, seal and open, replay window.
//!
//! The room stands between the socket and the links. It turns datagrams into packets that certainly come from the member
//! at the other end of a link, each once, and it makes new keys before the old ones age. The pattern is WireGuard's
//! (Donenfeld, NDSS 2017): Noise IKpsk2, MAC before work, cookies under load, silence to strangers, rekeying by time.
//! WireGuard's proofs are for WireGuard's own suite and messages; this room differs (AES-256-GCM, SHA-256 for MACs and
//! cookies, incarnations in the payloads, packet numbers that run on across keys) and claims no proof.
//!
//! # Keys of a link
//!
//! ```text
//!   asks: initiation ──►            answers: response, keys offered (next)
//!   ◄── response: keys current      sealed packet ──► keys current; the old ones are previous, then older
//! ```
//!
//! The asking end uses new keys at once; the answering end when the first packet under them arrives, so the asking end's
//! link must send something (its hello will do). Both ends ask while they have no keys. Two initiations that cross: the
//! router with the lower id ignores the other's; where crossing cannot be told, both are completed and both ends settle
//! on the keys that the lower id asked for. Whatever an end seals with, the other holds.
//!
//! # Incarnations
//!
//! Every [`Security::add_peer`] begins a life of this end of the link, named by a random number that handshakes carry.
//! Keys from a life of the other end not met before are *fresh*: both link states start anew, numbers at zero, window
//! empty, and nothing sealed by keys of an earlier life is accepted again. Within a life, packet numbers and the replay
//! window run on while keys change. A life that was followed by another never returns; since it takes a packet sealed
//! under new keys to begin one, replayed handshake messages cannot.
//!
//! An initiation whose timestamp is not newer than the last is not answered: it may be a replay. But it may also come from
//! a life whose clock was set back, so an end without keys asks where it came from, once for each: the living answer.
//!
//! # Timers
//!
//! | timer | default | then |
//! |---|---|---|
//! | retry | 500 ms ± 20 %, every eighth four times that | initiation again, while there are none or aged keys |
//! | rekey | 120 s ± 4 % at the end that asked, 135 s ± 4 % at the other; or a count of packets | initiation |
//! | expiry | 180 s | keys are dropped |
//! | silence | three retries of sending without hearing | initiation: the other end may have lost its keys |
//! | goodbye | a retry interval after the other end left | initiation, until it is back |
//!
//! # Doors
//!
//! Hot: [`Security::handle_datagram`], [`Security::seal`]; they allocate nothing for sealed packets. After every
//! `handle_datagram` the caller drains [`Security::poll_event`] *before* it gives the packet to the link: the packet that
//! confirms fresh keys belongs to the link's new life.
//!
//! # What it costs others to disturb
//!
//! A datagram without a valid MAC costs one hash, a sealed one for unknown keys a table look. Public-key work is bounded
//! per second; when half of that is used, senders must prove their address first, and none gets more than an eighth. The
//! queue of outgoing messages is bounded; what does not fit is dropped, counted and tried again by its sender.

mod exchange;
mod gate;
mod index;
mod keypair;
mod keyring;
mod mac;
mod noise;
mod peer;
mod stats;
mod suspicion;
#[cfg(test)]
mod tests;

pub use keypair::SuitePreference;
pub use stats::SecurityStats;

use crate::base::limits::MAX_LINKS;
use crate::base::rare::rarely;
use crate::base::sabotage::{Rule, broken};
use crate::base::time::sooner;
use crate::base::{AddressPair, Identity, Instant, LinkId, NodeId, Obstacle, PublicIdentity, Rng, WallTime, seq};
use crate::containers::window::Seen;
use crate::telemetry::DropReason;
use crate::wire::datagram::{
    HEADER_LEN, KIND_COOKIE, KIND_INITIATION, KIND_RESPONSE, KIND_SEALED, SealedHeader, TAG_LEN,
};
use crate::wire::handshake::MAX_HANDSHAKE_LEN;
use gate::Gate;
use index::IndexTable;
use keyring::{Change, Place};
use mac::{CookieJar, MacKeys};
use peer::Peer;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

/// Outgoing handshake messages held: one initiation and a few answers for every link.
const OUTBOX: usize = 4 * MAX_LINKS;
/// Events held; the caller drains them after every call, so there are never more than a few for every link.
const EVENTS: usize = 4 * MAX_LINKS;

/// Between two strangers that are told of.
const STRANGERS_APART: Duration = Duration::from_secs(1);

/// How keys are made and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Age at which keys are replaced.
    pub rekey_after: Duration,
    /// Age at which keys are dropped, replaced or not. More than 1.2 times `rekey_after`, so that both ends get a try.
    pub reject_after: Duration,
    /// Packets sealed after which keys are replaced.
    pub rekey_after_packets: u64,
    /// Time between initiations while there is no answer.
    pub retry: Duration,
    /// Handshake messages of others that are worth public-key work (about 0.3 ms each), per second.
    pub handshakes_per_second: u32,
    /// The suite this end would like.
    pub suite: SuitePreference,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            rekey_after: Duration::from_secs(120),
            reject_after: Duration::from_secs(180),
            rekey_after_packets: 1 << 48,
            retry: Duration::from_millis(500),
            handshakes_per_second: 100,
            suite: SuitePreference::Auto,
        }
    }
}

/// What a datagram was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// An authentic packet, not seen before, opened in place.
    Packet {
        /// The link it belongs to.
        link: LinkId,
        /// Its number.
        number: u64,
        /// Where in the datagram its plaintext is.
        plaintext: Range<usize>,
    },
    /// A handshake message, taken in.
    Handshake,
    /// Nothing that is wanted; counted.
    Dropped(DropReason),
}

/// What the link must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// New keys are in use.
    Established {
        /// Which link.
        link: LinkId,
        /// Where its other end is.
        from: AddressPair,
        /// The other end began a new life: so must this end's link state, with packet numbers from zero.
        fresh: bool,
    },
    /// The keys ran out: nothing can be sealed until there are new ones.
    Expired {
        /// Which link.
        link: LinkId,
    },
    /// Something seems to keep the ends from agreeing on keys; none if that is over.
    Obstructed {
        /// Which link.
        link: LinkId,
        /// What.
        obstacle: Option<Obstacle>,
    },
}

/// Somebody whose key is no link's asked for keys, and was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Where the question came from.
    pub from: SocketAddr,
    /// The X25519 key whose owner asked.
    pub key: [u8; 32],
}

impl Event {
    /// The link it is about.
    pub const fn link(self) -> LinkId {
        match self {
            Event::Established { link, .. } | Event::Expired { link } | Event::Obstructed { link, .. } => link,
        }
    }
}

/// Why the room wants to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// An initiation is to be sent.
    HandshakeRetry,
    /// Keys are to be replaced.
    Rekey,
    /// Keys are to be dropped.
    Expiry,
}

/// A handshake message to send.
struct Outgoing {
    link: Option<LinkId>,
    to: AddressPair,
    bytes: [u8; MAX_HANDSHAKE_LEN],
    len: usize,
}

/// The security room of one shard: the keys of all its links.
pub struct Security {
    identity: Identity,
    node: NodeId,
    settings: Settings,
    epoch: WallTime,
    rng: Rng,
    last_timestamp: u64,
    macs: MacKeys,
    jar: CookieJar,
    gate: Gate,
    peers: Box<[Option<Box<Peer>>]>,
    indices: IndexTable,
    outbox: VecDeque<Outgoing>,
    events: VecDeque<Event>,
    stranger: Option<Stranger>,
    strangers_not_before: Instant,
    deadline: Option<(Instant, Reason)>,
    stats: SecurityStats,
}

impl Security {
    /// A room without links. `epoch` is the wall time at [`Instant::ZERO`]; `rng` gives ephemeral keys, so in production
    /// it must come from the operating system.
    pub fn new(identity: Identity, settings: Settings, epoch: WallTime, mut rng: Rng) -> Security {
        Security {
            node: identity.public().node_id(),
            macs: MacKeys::new(&identity.public().exchange),
            jar: CookieJar::new(&mut rng),
            gate: Gate::new(settings.handshakes_per_second, &mut rng),
            identity,
            settings,
            epoch,
            rng,
            last_timestamp: 0,
            peers: (0..MAX_LINKS).map(|_| None).collect(),
            indices: IndexTable::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            stranger: None,
            strangers_not_before: Instant::ZERO,
            deadline: None,
            stats: SecurityStats::default(),
        }
    }

    /// Begins a new life of `link`, which joins this router to `peer`; the former one, if any, ends. With `paths` this end
    /// asks for keys at once, by each in turn; without, it waits to be asked. Links to the same peer are told apart by the
    /// first of them.
    pub fn add_peer(
        &mut self,
        now: Instant,
        link: LinkId,
        peer: PublicIdentity,
        preshared_key: Option<[u8; 32]>,
        paths: &[AddressPair],
    ) {
        assert!(link.index() < MAX_LINKS, "{link} is beyond the {MAX_LINKS} links of a router");
        self.remove_peer(link);
        self.stir(now);
        let peer = Peer::new(now, peer, preshared_key, paths, self.rng.next_u64());
        self.peers[link.index()] = Some(Box::new(peer));
        self.reschedule();
    }

    /// Mixes the time into the generator: incarnations, indices and ephemeral keys of two lives differ even if it was
    /// seeded alike for both, as in a simulated restart.
    fn stir(&mut self, now: Instant) {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        for (byte, time) in seed.iter_mut().zip(self.time(now).to_be_bytes()) {
            *byte ^= time;
        }
        self.rng = Rng::from_seed(seed);
    }

    /// Ends the life of `link`: its keys are gone.
    pub fn remove_peer(&mut self, link: LinkId) {
        if let Some(mut peer) = self.peers.get_mut(link.index()).and_then(Option::take) {
            peer.cancel(&mut self.indices);
            peer.keys.clear(&mut self.indices);
            self.outbox.retain(|message| message.link != Some(link));
            self.events.retain(|event| event.link() != link);
            self.reschedule();
        }
    }

    /// Asks for keys of `link` by these paths from now on.
    pub fn set_paths(&mut self, link: LinkId, paths: &[AddressPair]) {
        if let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) {
            peer.set_paths(paths);
        }
    }

    /// The link sends by this path: keys are asked for there first.
    pub fn set_remote(&mut self, link: LinkId, path: AddressPair) {
        if let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) {
            peer.remote = Some(path);
        }
    }

    /// Of a link just added: this end does not ask for keys before [`Security::ask`], and answers until then.
    pub fn hold(&mut self, link: LinkId) {
        if let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) {
            peer.retry_at = None;
            self.reschedule();
        }
    }

    /// There is somebody at the other end of `link`: asks for keys, if there are none, and if it is known where.
    pub fn ask(&mut self, now: Instant, link: LinkId) {
        if let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) {
            let usable = peer.keys.get(Place::Current).is_some_and(|keys| keys.usable(now));
            if !usable {
                peer.want_handshake(now);
            }
            self.reschedule();
        }
    }

    /// The other end of `link` said goodbye: after a retry interval, which it needs to be gone, this end asks for keys
    /// until it is back. It may be one that only waits to be asked.
    pub fn left(&mut self, now: Instant, link: LinkId) {
        if let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) {
            peer.left(now, &self.settings);
            self.reschedule();
        }
    }

    /// `link` is about to be removed: it still seals, to say so, and takes in nothing more. The other end may be asking
    /// for keys at this moment, and means the link that takes its place.
    pub fn leave(&mut self, link: LinkId) {
        if let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) {
            peer.leave(&mut self.indices);
            self.reschedule();
        }
    }

    /// Takes in a datagram; a sealed packet is opened in place.
    pub fn handle_datagram(&mut self, now: Instant, from: AddressPair, datagram: &mut [u8]) -> Received {
        let result = match datagram.first() {
            Some(&KIND_SEALED) => self.open(now, from, datagram),
            Some(&KIND_INITIATION) => self.handle_initiation(now, from, datagram).map(|()| Received::Handshake),
            Some(&KIND_RESPONSE) => self.handle_response(now, from, datagram).map(|()| Received::Handshake),
            Some(&KIND_COOKIE) => self.handle_cookie(now, datagram).map(|()| Received::Handshake),
            Some(_) => Err(DropReason::Stranger),
            None => Err(DropReason::Malformed),
        };
        result.unwrap_or_else(|reason| {
            self.stats.drops.count(reason);
            Received::Dropped(reason)
        })
    }

    fn open(&mut self, now: Instant, from: AddressPair, datagram: &mut [u8]) -> Result<Received, DropReason> {
        let header = SealedHeader::parse(datagram).map_err(|_| DropReason::Malformed)?;
        let link = self.indices.find(header.receiver).ok_or(DropReason::NoKeys)?;
        let peer = self.peers[link.index()].as_mut().expect("live indices belong to live links");
        if peer.leaving {
            return Err(DropReason::LinkClosing);
        }
        let place = peer.keys.place_of(header.receiver).ok_or(DropReason::NoKeys)?;
        let keys = peer.keys.get(place).filter(|keys| keys.usable(now)).ok_or(DropReason::NoKeys)?;
        // A new life of the other end counts from zero and its window is empty.
        let fresh = peer.keys.is_new(keys.terms.incarnation);
        let expected = if fresh { 0 } else { peer.keys.window.next() };
        let number = seq::expand(expected, header.number);
        if !fresh && peer.keys.window.check(number) != Seen::New && !broken(Rule::Replay) {
            return Err(DropReason::Replayed);
        }
        if !keys.open(number, datagram) {
            return Err(DropReason::Unauthentic);
        }
        if place == Place::Next {
            let change = peer.keys.confirm(&mut self.indices);
            if change != Change::Kept {
                self.establish(now, link, from, change);
            }
        }
        self.accept(link, from, header.receiver, number);
        Ok(Received::Packet { link, number, plaintext: HEADER_LEN..datagram.len() - TAG_LEN })
    }

    /// Notes what an authentic packet proves.
    fn accept(&mut self, link: LinkId, from: AddressPair, index: u32, number: u64) {
        let peer = self.peers[link.index()].as_mut().expect("the packet was opened with this link's keys");
        let newest = number >= peer.keys.window.next();
        let seen = peer.keys.window.insert(number);
        assert!(seen == Seen::New || broken(Rule::Replay), "the window was asked before opening");
        peer.heard();
        let refuted = peer.suspicion.heard();
        if let Some(keys) = peer.keys.place_of(index).and_then(|place| peer.keys.get_mut(place)) {
            keys.heard = true;
        }
        self.stats.opened += 1;
        if newest && !peer.expects(from) {
            peer.remote = Some(from);
            self.stats.moved += 1;
        }
        if refuted {
            self.emit(Event::Obstructed { link, obstacle: None });
        }
    }

    /// New keys of `link` are in use; the other end proved that it is there.
    fn establish(&mut self, now: Instant, link: LinkId, from: AddressPair, change: Change) {
        let peer = self.peers[link.index()].as_mut().expect("only live links get keys");
        let fresh = change == Change::Fresh;
        let moved = !peer.expects(from) && !fresh;
        peer.remote = Some(from);
        peer.established(now, &mut self.rng, &self.settings, &mut self.indices);
        let refuted = peer.suspicion.heard();
        self.emit(Event::Established { link, from, fresh });
        self.stats.moved += u64::from(moved);
        if refuted {
            self.emit(Event::Obstructed { link, obstacle: None });
        }
        *(if fresh { &mut self.stats.established } else { &mut self.stats.rekeyed }) += 1;
        self.reschedule();
    }

    /// Seals the plaintext at `datagram[HEADER_LEN..][..plaintext_len]` in place and gives the length of the packet;
    /// none without usable keys. `number` must be greater than any sealed in this life of the link; `datagram` needs
    /// room for the header, the plaintext and the tag.
    pub fn seal(
        &mut self,
        now: Instant,
        link: LinkId,
        number: u64,
        datagram: &mut [u8],
        plaintext_len: usize,
    ) -> Option<usize> {
        let peer = self.peers.get_mut(link.index())?.as_mut()?;
        let keys = peer.keys.get_mut(Place::Current).filter(|keys| keys.usable(now))?;
        let len = keys.seal(number, datagram, plaintext_len);
        // Until the other end uses these keys it may still need those that newer ones would push out.
        let worn = keys.sealed >= self.settings.rekey_after_packets && keys.heard;
        self.stats.sealed += 1;
        if peer.sent(now, &self.settings) | (worn && peer.want_handshake(now)) {
            self.reschedule();
        }
        Some(len)
    }

    /// Whether [`Security::seal`] would find usable keys.
    pub fn can_seal(&self, now: Instant, link: LinkId) -> bool {
        self.peer(link).and_then(|peer| peer.keys.get(Place::Current)).is_some_and(|keys| keys.usable(now))
    }

    /// Where the other end was heard last, or where keys are asked for first; it need not be where the link sends.
    pub fn remote(&self, link: LinkId) -> Option<AddressPair> {
        self.peer(link)?.remote
    }

    fn peer(&self, link: LinkId) -> Option<&Peer> {
        self.peers.get(link.index())?.as_deref()
    }

    /// Writes the next handshake message to `datagram`, which must have room for [`MAX_HANDSHAKE_LEN`] bytes: the link
    /// it belongs to (none for answers to whoever asked), where to, and its length.
    pub fn poll_transmit(
        &mut self,
        _now: Instant,
        datagram: &mut [u8],
    ) -> Option<(Option<LinkId>, AddressPair, usize)> {
        let message = self.outbox.pop_front()?;
        datagram[..message.len].copy_from_slice(&message.bytes[..message.len]);
        Some((message.link, message.to, message.len))
    }

    fn push(&mut self, link: Option<LinkId>, to: AddressPair, message: &[u8]) -> bool {
        if self.outbox.len() == OUTBOX || rarely!(HandshakeQueueFull) {
            self.stats.outbox_full += 1;
            return false;
        }
        let mut bytes = [0; MAX_HANDSHAKE_LEN];
        bytes[..message.len()].copy_from_slice(message);
        self.outbox.push_back(Outgoing { link, to, bytes, len: message.len() });
        true
    }

    /// What the links must know, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn emit(&mut self, event: Event) {
        assert!(self.events.len() < EVENTS, "events are drained after every call");
        self.events.push_back(event);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|(at, _)| at > now) {
            return;
        }
        for index in 0..self.peers.len() {
            let Some(peer) = self.peers[index].as_mut() else { continue };
            let link = LinkId(index as u16);
            let lost = peer.keys.expire(now, &mut self.indices);
            if lost {
                peer.expired(now);
            }
            peer.rekey_if_due(now);
            let retry = peer.retry_at.is_some_and(|at| at <= now);
            if lost {
                self.stats.expired += 1;
                self.emit(Event::Expired { link });
            }
            if retry {
                self.initiate(now, link);
            }
        }
        self.reschedule();
    }

    /// When [`Security::handle_timeout`] wants to be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        self.deadline
    }

    fn reschedule(&mut self) {
        self.deadline = self.peers.iter().flatten().fold(None, |soonest, peer| sooner(soonest, peer.deadline()));
    }

    /// The last of those who asked with a key that is no link's, at most one a second.
    pub const fn take_stranger(&mut self) -> Option<Stranger> {
        self.stranger.take()
    }

    /// Somebody with a key that is no link's asks for keys.
    fn meet_stranger(&mut self, now: Instant, stranger: Stranger) {
        self.suspect_at(now, stranger.from, Obstacle::HasOtherKey);
        if self.strangers_not_before <= now {
            self.strangers_not_before = now + STRANGERS_APART;
            self.stranger = Some(stranger);
        }
    }

    /// The driver learned what may keep `link` from getting keys.
    pub fn suspect(&mut self, now: Instant, link: LinkId, obstacle: Obstacle) {
        if let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) {
            peer.suspicion.note(now, obstacle);
        }
    }

    /// The same, of whatever links' other ends are at `address`.
    pub fn suspect_at(&mut self, now: Instant, address: SocketAddr, obstacle: Obstacle) {
        for peer in self.peers.iter_mut().flatten().filter(|peer| peer.may_be_at(address)) {
            peer.suspicion.note(now, obstacle);
        }
    }

    /// What was counted.
    pub const fn stats(&self) -> &SecurityStats {
        &self.stats
    }

    /// A timestamp greater than any before: the time, unless the clock stands.
    fn timestamp(&mut self, now: Instant) -> u64 {
        self.last_timestamp = self.time(now).max(self.last_timestamp.saturating_add(1));
        self.last_timestamp
    }

    /// The wall time that `now` would be had the wall clock not stepped since the start, ns.
    fn time(&self, now: Instant) -> u64 {
        self.epoch.as_nanos().saturating_add(now.as_nanos())
    }
}
