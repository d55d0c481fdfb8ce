//! Routers' security rooms over a scripted wire under a virtual clock.

mod establishing;
mod hostile;
mod lives;
mod obstacles;
mod rekeying;

use super::*;
use crate::base::Rng;
use std::collections::BTreeMap;
use std::net::SocketAddr;

pub(super) const LINK: LinkId = LinkId(3);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the wire does to a datagram.
pub(super) enum Fate {
    Pass,
    Lose,
    Delay(Duration),
}

/// A datagram on the wire.
#[derive(Clone)]
pub(super) struct Flight {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// A router, with the little of a shard and a link that the contract asks for: it drains events before it looks at the
/// packet, restarts its numbers on fresh keys, and greets when keys are established.
pub(super) struct End {
    pub(super) room: Security,
    pub(super) address: SocketAddr,
    pub(super) identity: Identity,
    pub(super) number: u64,
    pub(super) greets: bool,
    pub(super) events: Vec<Event>,
    /// Numbers of packets opened, with their plaintext.
    pub(super) opened: Vec<(u64, Vec<u8>)>,
    pub(super) dropped: Vec<DropReason>,
}

impl End {
    fn new(id: u8, settings: Settings) -> End {
        let identity = Identity::from_seed([id; 32]);
        let epoch = WallTime::from_nanos(1_700_000_000_000_000_000);
        End {
            room: Security::new(identity.clone(), settings, epoch, Rng::from_u64(id.into())),
            address: SocketAddr::from(([192, 0, 2, id], 4000)),
            identity,
            number: 0,
            greets: true,
            events: Vec::new(),
            opened: Vec::new(),
            dropped: Vec::new(),
        }
    }

    pub(super) fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| matches(event)).count()
    }

    pub(super) fn fresh(&self) -> usize {
        self.count(|event| matches!(event, Event::Established { fresh: true, .. }))
    }

    pub(super) fn rekeys(&self) -> usize {
        self.count(|event| matches!(event, Event::Established { fresh: false, .. }))
    }

    /// Whether every table of the room is within its bound.
    pub(super) fn tidy(&self) {
        assert!(self.room.outbox.is_empty() && self.room.events.is_empty());
        assert!(self.room.indices.len() <= 5, "{} indices", self.room.indices.len());
    }
}

type Script = Box<dyn FnMut(&Flight) -> Fate>;

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) ends: Vec<End>,
    pub(super) delay: Duration,
    pub(super) script: Script,
    /// Everything that was ever sent.
    pub(super) sent: Vec<Flight>,
    wire: BTreeMap<(Instant, u64), Flight>,
    flights: u64,
}

impl Net {
    /// Two routers that know each other's key and, where `knows` says so, address; 10 ms apart.
    pub(super) fn new(settings: [Settings; 2], knows: [bool; 2]) -> Net {
        let mut net = Net::strangers(settings);
        for (end, knows) in knows.into_iter().enumerate() {
            net.join(end, None, knows);
        }
        net
    }

    pub(super) fn pair() -> Net {
        Net::new([Settings::default(), Settings::default()], [true, false])
    }

    pub(super) fn strangers(settings: [Settings; 2]) -> Net {
        let [a, b] = settings;
        Net {
            now: Instant::ZERO,
            ends: vec![End::new(1, a), End::new(2, b)],
            delay: ms(10),
            script: Box::new(|_| Fate::Pass),
            sent: Vec::new(),
            wire: BTreeMap::new(),
            flights: 0,
        }
    }

    /// Begins a new life of `end`'s link.
    pub(super) fn join(&mut self, end: usize, psk: Option<[u8; 32]>, knows: bool) {
        let peer = self.ends[1 - end].identity.public();
        let paths = knows.then_some(self.ends[1 - end].address.into());
        self.ends[end].room.add_peer(self.now, LINK, peer, psk, paths.as_slice());
        self.ends[end].number = 0;
    }

    /// The process of `end` is started again, seeded with `seed`, its wall clock at `epoch_s`.
    pub(super) fn restart(&mut self, end: usize, settings: Settings, seed: u64, epoch_s: u64, knows: bool) {
        let identity = self.ends[end].identity.clone();
        let epoch = WallTime::from_nanos(epoch_s * 1_000_000_000);
        self.ends[end].room = Security::new(identity, settings, epoch, Rng::from_u64(seed));
        self.join(end, None, knows);
    }

    /// The end with the lower node id, and the other.
    pub(super) fn by_id(&self) -> (usize, usize) {
        if self.ends[0].room.node < self.ends[1].room.node { (0, 1) } else { (1, 0) }
    }

    /// Puts a datagram on the wire, past the script.
    pub(super) fn inject(&mut self, flight: Flight, after: Duration) {
        self.flights += 1;
        self.wire.insert((self.now + after, self.flights), flight);
    }

    fn launch(&mut self, flight: Flight) {
        self.sent.push(flight.clone());
        match (self.script)(&flight) {
            Fate::Pass => self.inject(flight, self.delay),
            Fate::Delay(more) => self.inject(flight, self.delay + more),
            Fate::Lose => {}
        }
    }

    /// Seals `plaintext` at `end` and launches it; false if there are no keys.
    pub(super) fn send(&mut self, end: usize, plaintext: &[u8]) -> bool {
        let Some(flight) = self.seal(end, plaintext) else { return false };
        self.launch(flight);
        true
    }

    /// Seals `plaintext` at `end`.
    pub(super) fn seal(&mut self, end: usize, plaintext: &[u8]) -> Option<Flight> {
        let End { room, number, address, .. } = &mut self.ends[end];
        let mut bytes = vec![0; HEADER_LEN + plaintext.len() + TAG_LEN];
        bytes[HEADER_LEN..][..plaintext.len()].copy_from_slice(plaintext);
        let can = room.can_seal(self.now, LINK);
        let len = room.seal(self.now, LINK, *number, &mut bytes, plaintext.len());
        assert_eq!(can, len.is_some());
        assert_eq!(len.unwrap_or(bytes.len()), bytes.len());
        *number += u64::from(can);
        let (from, to) = (*address, room.remote(LINK)?.remote);
        can.then_some(Flight { from, to, bytes })
    }

    /// Drains `end` as a shard does.
    pub(super) fn pump(&mut self, end: usize) {
        while let Some(event) = self.ends[end].room.poll_event() {
            assert_eq!(event.link(), LINK);
            self.ends[end].events.push(event);
            if let Event::Established { fresh, .. } = event {
                if fresh {
                    self.ends[end].number = 0;
                }
                if self.ends[end].greets {
                    assert!(self.send(end, b"hello"));
                }
            }
        }
        let mut slot = [0; 2048];
        while let Some((link, to, len)) = self.ends[end].room.poll_transmit(self.now, &mut slot) {
            assert_eq!(link, (slot[0] == KIND_INITIATION).then_some(LINK));
            self.launch(Flight { from: self.ends[end].address, to: to.remote, bytes: slot[..len].to_vec() });
        }
    }

    /// Hands `bytes` to `end` at once.
    pub(super) fn deliver(&mut self, end: usize, from: SocketAddr, bytes: &[u8]) -> Received {
        let mut datagram = bytes.to_vec();
        let received = self.ends[end].room.handle_datagram(self.now, from.into(), &mut datagram);
        self.pump(end);
        match received.clone() {
            Received::Packet { link, number, plaintext } => {
                assert_eq!(link, LINK);
                self.ends[end].opened.push((number, datagram[plaintext].to_vec()));
            }
            Received::Dropped(reason) => self.ends[end].dropped.push(reason),
            Received::Handshake => {}
        }
        received
    }

    /// Lets time pass and everything happen that happens in it.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrival = self.wire.keys().next().map(|key| key.0);
            let timer = |end: &End| end.room.poll_timeout().map(|(at, _)| at);
            let next = self.ends.iter().filter_map(timer).chain(arrival).min();
            let Some(next) = next.filter(|&at| at <= until) else { break };
            self.now = self.now.max(next);
            for end in 0..self.ends.len() {
                self.ends[end].room.handle_timeout(self.now);
                self.pump(end);
                let later = self.ends[end].room.poll_timeout();
                assert!(later.is_none_or(|(at, _)| at > self.now), "what was due is done: {later:?}");
            }
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let flight = entry.remove();
                if let Some(end) = self.ends.iter().position(|end| end.address == flight.to) {
                    self.deliver(end, flight.from, &flight.bytes);
                }
            }
        }
        self.now = until;
    }

    /// Both ends send a packet every `every` for `time`; the numbers sent by each.
    pub(super) fn chat(&mut self, time: Duration, every: Duration) -> [u64; 2] {
        let until = self.now + time;
        let mut sent = [0u64; 2];
        while self.now < until {
            for (end, count) in sent.iter_mut().enumerate() {
                *count += u64::from(self.send(end, &count.to_be_bytes()));
            }
            self.run(every);
        }
        sent
    }

    /// How many different packets of 8 bytes `end` opened; each only once.
    pub(super) fn heard(&self, end: usize) -> u64 {
        let mut bodies: Vec<_> = self.ends[end].opened.iter().filter(|(_, body)| body.len() == 8).collect();
        let count = bodies.len();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), count, "nothing is opened twice");
        count as u64
    }

    /// The datagrams of `kind` sent by `end` so far.
    pub(super) fn sent_by(&self, end: usize, kind: u8) -> Vec<Flight> {
        let from = self.ends[end].address;
        self.sent.iter().filter(|flight| flight.from == from && flight.bytes[0] == kind).cloned().collect()
    }

    /// Whether both ends seal with the same pair of keys.
    pub(super) fn agreed(&self) -> bool {
        let indices = |end: usize| {
            let keys = self.ends[end].room.peer(LINK).and_then(|peer| peer.keys.get(Place::Current));
            keys.map(|keys| (keys.terms.local_index, keys.terms.remote_index))
        };
        indices(0).is_some() && indices(0) == indices(1).map(|(local, remote)| (remote, local))
    }

    /// Whether both ends have keys, of which both know that the other has them.
    pub(super) fn works(&mut self) -> bool {
        let before = [self.ends[0].opened.len(), self.ends[1].opened.len()];
        let sent = [self.send(0, b"works?"), self.send(1, b"works?")];
        self.run(self.delay * 3);
        sent == [true; 2] && (0..2).all(|end| self.ends[end].opened.len() > before[end])
    }
}
