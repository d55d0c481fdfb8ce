//! The three handshake messages: sending initiations, answering them, taking in answers and cookies.

use super::keypair::{Keypair, Terms, agree};
use super::mac::mac2;
use super::noise;
use super::peer::Pending;
use super::{Event, Security, Stranger};
use crate::base::{AddressPair, Instant, LinkId, Obstacle, Rng};
use crate::telemetry::DropReason;
use crate::wire::handshake::{CookieReply, Initiation, InitiationPayload, MAC_LEN, Response, ResponsePayload, Suite};

impl Security {
    /// A generator for one ephemeral key. The own one moves on in a way that cannot be wound back, so that whoever reads
    /// this process's memory later cannot compute the keys of earlier handshakes.
    fn ephemeral(&mut self) -> Rng {
        let drawn = self.rng.fork();
        self.rng = self.rng.fork();
        drawn
    }

    /// Sends an initiation over `link` and plans the next.
    pub(super) fn initiate(&mut self, now: Instant, link: LinkId) {
        let (timestamp, rng) = (self.timestamp(now), self.ephemeral());
        let peer = self.peers[link.index()].as_mut().expect("only live links have timers");
        let Some(to) = peer.whom_to_ask() else {
            peer.retry_at = None;
            return;
        };
        peer.attempted(now, &mut self.rng, &self.settings);
        peer.cancel(&mut self.indices);
        let payload = InitiationPayload {
            timestamp,
            incarnation: peer.incarnation,
            generation: peer.keys.next_generation(),
            preferred: self.settings.suite.resolve(),
        };
        let key = &peer.identity.exchange;
        // Fails for a configured key of small order only; such a peer is never reached.
        let Ok((state, noise)) = noise::initiate(&self.identity, key, &peer.psk, rng, &payload) else { return };
        let local_index = self.indices.draw(&mut self.rng, link);
        let mut message = Initiation { sender: local_index, noise, mac2: [0; MAC_LEN], mac1: [0; MAC_LEN] };
        if let Some(cookie) = peer.cookie(now) {
            message.mac2 = mac2(cookie, Initiation::under_mac2(&message.to_bytes()));
        }
        message.mac1 = peer.macs.mac1(Initiation::under_mac1(&message.to_bytes()));
        peer.pending = Some(Pending {
            local_index,
            generation: payload.generation,
            state: Box::new(state),
            sent: now,
            mac1: Some(message.mac1),
        });
        let obstacle = peer.suspicion.asked(now);
        self.stats.initiations_sent += 1;
        self.push(Some(link), to, &message.to_bytes());
        if obstacle.is_some() {
            self.emit(Event::Obstructed { link, obstacle });
        }
    }

    /// Someone asks for keys.
    pub(super) fn handle_initiation(
        &mut self,
        now: Instant,
        from: AddressPair,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let message = Initiation::parse(datagram).map_err(|_| DropReason::Malformed)?;
        if !self.macs.verify_mac1(Initiation::under_mac1(datagram), &message.mac1) {
            self.suspect_at(now, from.remote, Obstacle::WantsOtherKey);
            return Err(DropReason::HandshakeRefused);
        }
        if self.gate.loaded(now) {
            let proven = Initiation::under_mac2(datagram);
            if !self.jar.verify(now, &mut self.rng, from.remote, proven, &message.mac2) {
                self.demand_cookie(now, from, &message);
                return Err(DropReason::HandshakeRefused);
            }
        }
        if !self.gate.admit_initiation(now, from.remote) {
            return Err(DropReason::HandshakeRefused);
        }
        self.stats.key_exchanges += 1;
        self.respond(now, from, &message).ok_or(DropReason::HandshakeRefused)
    }

    fn demand_cookie(&mut self, now: Instant, from: AddressPair, message: &Initiation) {
        let cookie = self.jar.cookie(now, &mut self.rng, from.remote);
        let reply = self.macs.seal_cookie(&mut self.rng, message.sender, &message.mac1, &cookie);
        if self.push(None, from, &reply.to_bytes()) {
            self.stats.cookies_sent += 1;
        }
    }

    /// Answers an initiation if it is a member's, new, and not to be ignored in favour of ours. None if it is refused.
    fn respond(&mut self, now: Instant, from: AddressPair, message: &Initiation) -> Option<()> {
        let (timestamp, rng) = (self.timestamp(now), self.ephemeral());
        let (state, key, hello) = noise::read_initiation(&self.identity, rng, &message.noise)?;
        let Some(link) = self.link_of(&key, from) else {
            self.meet_stranger(now, Stranger { from: from.remote, key });
            return None;
        };
        let peer = self.peers[link.index()].as_mut()?;
        let lower = self.node < peer.node;
        if peer.keys.is_retired(hello.incarnation) {
            return None;
        }
        if peer.heard_timestamp.is_some_and(|newest| hello.timestamp <= newest) {
            if peer.keys.is_new(hello.incarnation) {
                peer.doubt(now, from, &mut self.rng, &self.settings);
                self.reschedule();
            }
            return None;
        }
        peer.heard_timestamp = Some(hello.timestamp);
        if lower && peer.crossed(now, &self.settings) {
            return Some(());
        }
        let chosen = agree(self.settings.suite.resolve(), hello.preferred);
        let answer = ResponsePayload { timestamp, incarnation: peer.incarnation, chosen };
        let (noise, secrets) = noise::respond(state, &peer.psk, &answer)?;
        let local_index = self.indices.draw(&mut self.rng, link);
        let mut response = Response { sender: local_index, receiver: message.sender, noise, mac1: [0; MAC_LEN] };
        response.mac1 = peer.macs.mac1(Response::under_mac1(&response.to_bytes()));
        let terms = Terms {
            local_index,
            remote_index: message.sender,
            incarnation: hello.incarnation,
            generation: hello.generation,
            by_lower: !lower,
            initiator: false,
            expires: now + self.settings.reject_after,
        };
        peer.keys.offer(Keypair::new(terms, chosen, &secrets), &mut self.indices);
        let obstacle = peer.suspicion.answered(now);
        self.push(None, from, &response.to_bytes());
        self.stats.responses_sent += 1;
        if obstacle.is_some() {
            self.emit(Event::Obstructed { link, obstacle });
        }
        self.reschedule();
        Some(())
    }

    /// The link to the owner of `key`, of those that stay: of several, the one whose other end is at `from`.
    fn link_of(&self, key: &[u8; 32], from: AddressPair) -> Option<LinkId> {
        let live = || self.peers.iter().enumerate().filter_map(|(index, peer)| Some((index, peer.as_deref()?)));
        let all = || live().filter(|(_, peer)| peer.identity.exchange == *key && !peer.leaving);
        let exact = all().find(|(_, peer)| peer.remote == Some(from));
        exact.or_else(|| all().next()).map(|(index, _)| LinkId(index as u16))
    }

    /// Someone answers.
    pub(super) fn handle_response(
        &mut self,
        now: Instant,
        from: AddressPair,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let message = Response::parse(datagram).map_err(|_| DropReason::Malformed)?;
        if !self.macs.verify_mac1(Response::under_mac1(datagram), &message.mac1) {
            return Err(DropReason::HandshakeRefused);
        }
        let link = self.indices.find(message.receiver).ok_or(DropReason::HandshakeRefused)?;
        let peer = self.peers[link.index()].as_mut().expect("live indices belong to live links");
        let pending = peer.pending.as_mut().filter(|pending| pending.local_index == message.receiver);
        let pending = pending.ok_or(DropReason::HandshakeRefused)?;
        if !self.gate.admit_response(now) {
            return Err(DropReason::HandshakeRefused);
        }
        self.stats.key_exchanges += 1;
        let read = noise::read_response(&mut pending.state, &message.noise);
        let Some((answer, secrets)) = read else {
            peer.suspicion.note(now, Obstacle::PresharedKey);
            return Err(DropReason::HandshakeRefused);
        };
        // Whatever comes of it, this handshake is over; its index goes on to the keys.
        let generation = pending.generation;
        peer.pending = None;
        let preferred = self.settings.suite.resolve();
        let unwanted = answer.chosen == Suite::Aes256Gcm && preferred != Suite::Aes256Gcm;
        if peer.keys.is_retired(answer.incarnation) || unwanted {
            self.indices.release(message.receiver);
            return Err(DropReason::HandshakeRefused);
        }
        let terms = Terms {
            local_index: message.receiver,
            remote_index: message.sender,
            incarnation: answer.incarnation,
            generation,
            by_lower: self.node < peer.node,
            initiator: true,
            expires: now + self.settings.reject_after,
        };
        // After a restart of this end, or of the other with its clock set back, this is where replays end.
        let heard = Some(answer.timestamp);
        let new = peer.keys.is_new(answer.incarnation);
        peer.heard_timestamp = if new { heard } else { peer.heard_timestamp.max(heard) };
        let change = peer.keys.adopt(Keypair::new(terms, answer.chosen, &secrets), &mut self.indices);
        self.establish(now, link, from, change);
        Ok(())
    }

    /// A member is under load and asks for proof of our address.
    pub(super) fn handle_cookie(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DropReason> {
        let reply = CookieReply::parse(datagram).map_err(|_| DropReason::Malformed)?;
        let link = self.indices.find(reply.receiver).ok_or(DropReason::HandshakeRefused)?;
        let peer = self.peers[link.index()].as_mut().expect("live indices belong to live links");
        let pending = peer.pending.as_mut().filter(|pending| pending.local_index == reply.receiver);
        let pending = pending.ok_or(DropReason::HandshakeRefused)?;
        let opened = pending.mac1.and_then(|mac1| peer.macs.open_cookie(&reply, &mac1));
        let cookie = opened.ok_or(DropReason::HandshakeRefused)?;
        pending.mac1 = None;
        peer.take_cookie(now, cookie);
        self.stats.cookies_received += 1;
        self.reschedule();
        Ok(())
    }
}
