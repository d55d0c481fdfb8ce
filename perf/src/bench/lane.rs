//! A neighbour's end of one lane: security and link composed, without sessions or routing of messages.
//!
//! Whole routers at both ends of the router under test would be slower than it. What is left out here is what the router
//! in the middle does not see: where messages come from and go to. What it does see is real: handshake, sealed packets,
//! hellos, acknowledgements, repetitions, congestion control.

use sinew::base::{AddressPair, Identity, Instant, LinkId, Rng, WallTime};
use sinew::containers::batch::Transmit;
use sinew::containers::pool::Urgency;
use sinew::containers::{Batch, Pool};
use sinew::dataplane::messages::{Command, Report};
use sinew::proto::link::{Delivery, Event, Link};
use sinew::proto::security::{self, Received, Security};
use sinew::wire::datagram;
use sinew::wire::message::{HEADER_LEN, Header, MAX_BODY};
use std::collections::VecDeque;

/// Enough that neither end is what a reliable flow waits for.
pub(crate) const POOL: usize = 1 << 15;

/// The end of the lane.
pub(crate) struct Lane {
    security: Security,
    link: Option<(LinkId, Link)>,
    pool: Pool,
    pub(crate) reports: VecDeque<Report>,
    rng: Rng,
    message: [u8; HEADER_LEN + MAX_BODY],
}

impl Lane {
    pub(crate) fn new(identity: &Identity, wall: WallTime, mut rng: Rng) -> Lane {
        let settings = security::Settings::default();
        Lane {
            security: Security::new(identity.clone(), settings, wall, rng.fork()),
            link: None,
            pool: Pool::new(POOL),
            reports: VecDeque::new(),
            rng,
            message: [0; HEADER_LEN + MAX_BODY],
        }
    }

    /// What control wants of its one link; tables and sessions are nothing here.
    pub(crate) fn handle_command(&mut self, now: Instant, command: Command) {
        match (command, &mut self.link) {
            (Command::AddLink(id, spec), link) => {
                let pairs: Vec<AddressPair> = spec.paths.iter().map(|path| path.pair).collect();
                self.security.add_peer(now, id, spec.peer, spec.preshared_key, &pairs);
                if !spec.asks {
                    self.security.hold(id);
                }
                *link = Some((id, Link::new(now, spec.settings, &spec.paths, self.rng.fork())));
            }
            (Command::AskLink(id), _) => self.security.ask(now, id),
            (Command::SendControl(_, bytes), Some((_, link))) => {
                // Routing asks again for what the link had no room for.
                link.send_control(now, &bytes, &mut self.pool);
            }
            _ => {}
        }
    }

    /// Sends a message; false if there is no room for it now.
    pub(crate) fn send(&mut self, now: Instant, header: &Header, bytes: &[u8]) -> bool {
        let Some((_, link)) = &mut self.link else { return false };
        self.message[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        self.message[HEADER_LEN..][..bytes.len()].copy_from_slice(bytes);
        let message = &self.message[..HEADER_LEN + bytes.len()];
        let Some(packet) = self.pool.copy_in(Urgency::Ordinary, message) else { return false };
        let sent = link.send(now, packet, header, &mut self.pool);
        sent.map_err(|packet| self.pool.release(packet)).is_ok()
    }

    /// Seals what is ready, until the batch is full.
    pub(crate) fn fill(&mut self, now: Instant, batch: &mut Batch) {
        let Lane { security, link, pool, .. } = self;
        while batch.push_with(|slot| {
            let (link, to, len) = security.poll_transmit(now, slot)?;
            Some(Transmit { link, to, up: true, len })
        }) {}
        let Some((id, link)) = link.as_mut().filter(|(id, _)| security.can_seal(now, *id)) else { return };
        while batch.push_with(|slot| {
            let room = slot.len() - datagram::TAG_LEN;
            let outgoing = link.poll_transmit(now, pool, &mut slot[datagram::HEADER_LEN..room])?;
            let len = security.seal(now, *id, outgoing.number, slot, outgoing.len);
            let len = len.expect("keys that could seal a moment ago still can");
            Some(Transmit { link: Some(*id), to: outgoing.path, up: outgoing.up, len })
        }) {}
    }

    /// Opens a datagram and hands over the bodies of its messages.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        from: AddressPair,
        datagram: &mut [u8],
        arrived: &mut dyn FnMut(&[u8]),
    ) {
        let received = self.security.handle_datagram(now, from, datagram);
        self.drain_security(now);
        if let (Received::Packet { number, plaintext, .. }, Some((_, link))) = (received, &mut self.link) {
            link.handle_packet(now, from, number, datagram.len(), &datagram[plaintext], &mut self.pool);
            self.drain_link(arrived);
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.security.handle_timeout(now);
        self.drain_security(now);
        if let Some((_, link)) = &mut self.link
            && link.poll_timeout().is_some_and(|(at, _)| at <= now)
        {
            link.handle_timeout(now, &mut self.pool);
        }
        self.drain_link(&mut |_| {});
    }

    fn drain_security(&mut self, now: Instant) {
        while let Some(event) = self.security.poll_event() {
            let Some((_, link)) = &mut self.link else { continue };
            match event {
                security::Event::Established { from, fresh, .. } => link.attach(now, from, fresh),
                security::Event::Expired { .. } => link.detach(now),
                security::Event::Obstructed { .. } => {}
            }
        }
    }

    fn drain_link(&mut self, arrived: &mut dyn FnMut(&[u8])) {
        let Some((id, link)) = &mut self.link else { return };
        while let Some(delivery) = link.poll_deliver() {
            let packet = match delivery {
                Delivery::Message(packet) => {
                    arrived(&self.pool.bytes(&packet)[HEADER_LEN..]);
                    packet
                }
                Delivery::Control(packet) => {
                    self.reports.push_back(Report::Control(*id, self.pool.bytes(&packet).into()));
                    packet
                }
            };
            self.pool.release(packet);
        }
        while let Some(packet) = link.poll_stranded() {
            self.pool.release(packet);
        }
        while let Some(event) = link.poll_event() {
            let report = match event {
                Event::Up(metrics) => {
                    let path = link.path().expect("a link that is up has a path");
                    Report::LinkUp(*id, path.remote, metrics, link.their_workers())
                }
                Event::Down(reason) => Report::LinkDown(*id, reason),
                Event::Measured(metrics) => Report::LinkMeasured(*id, metrics),
                Event::Moved(_) => continue,
            };
            self.reports.push_back(report);
        }
    }
}
