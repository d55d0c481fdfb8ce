//! What is fuzzed: every decoder, and every room that takes bytes from a stranger. Shared by the fuzzer, which invents
//! inputs, and by `cargo test`, which replays the committed corpus.

use sinew::base::{
    AddressPair, Class, Identity, Instant, LinkId, NodeId, PublicIdentity, Rng, SessionId, WallTime, Worker,
};
use sinew::containers::Pool;
use sinew::containers::pool::Urgency;
use sinew::proto::link::{self, Link};
use sinew::proto::security::{self, Security};
use sinew::proto::session::{self, SessionKind, Sessions};
use sinew::wire::cursor::Writer;
use sinew::wire::frame::Frames;
use sinew::wire::message::{Header, Protocol};
use sinew::wire::{admin, client, datagram, handshake, routing};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;

/// A target: its name and what it does with an input.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: &[Target] = &[
    ("datagram", datagram),
    ("frames", frames),
    ("message", message),
    ("client_record", client_record),
    ("admin_line", admin_line),
    ("handshake", handshake),
    ("routing", routing),
    ("membership", membership),
    ("vip", vip),
    ("flows", flows),
    ("groups", groups),
    ("identity", identity),
    ("config", config),
    ("security_room", security_room),
    ("link_room", link_room),
    ("session_room", session_room),
    ("membership_room", membership_room),
    ("vip_room", vip_room),
    ("groups_room", groups_room),
    ("histogram", histogram),
    ("perf_line", perf_line),
    ("shared_memory", shared_memory),
];

/// The clear header of a sealed packet.
pub(crate) fn datagram(data: &[u8]) {
    let _ = datagram::SealedHeader::parse(data);
}

/// The frames of an opened packet; what parses must emit the same length.
pub(crate) fn frames(data: &[u8]) {
    for frame in Frames::new(data).flatten() {
        let mut buffer = [0; 4096];
        let mut writer = Writer::new(&mut buffer);
        frame.emit(&mut writer).expect("a parsed frame fits");
        assert_eq!(writer.len(), frame.len());
    }
}

/// An overlay message and every body it may have.
pub(crate) fn message(data: &[u8]) {
    use sinew::wire::session::{Echo, FlowAck, FlowReset, Fragment, Segment};
    let _ = Header::parse(data);
    let _ = Fragment::parse(data);
    let _ = Segment::parse(data);
    let _ = FlowReset::parse(data);
    let _ = Echo::parse(data);
    if let Ok(ack) = FlowAck::parse(data) {
        let _ = ack.ranges().count();
    }
}

/// A record between an application and its router.
pub(crate) fn client_record(data: &[u8]) {
    if let Ok(record) = client::Record::parse(data) {
        let mut buffer = vec![0; data.len() + client::MAX_HEADER];
        let mut writer = Writer::new(&mut buffer);
        record.emit(&mut writer).expect("a parsed record fits");
        assert_eq!(writer.written(), data);
    }
}

/// A line of the control socket.
pub(crate) fn admin_line(data: &[u8]) {
    let _ = serde_json::from_slice::<admin::Request>(data);
    let _ = serde_json::from_slice::<admin::Response>(data);
}

/// A public or secret identity as text.
pub(crate) fn identity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = text.parse::<PublicIdentity>();
    let _ = Identity::from_secret_text(text);
}

/// A configuration file.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(errors) = sinew::config::parse(Path::new("fuzz.toml"), text) {
        assert!(!errors.to_string().is_empty());
    }
}

/// Handshake messages.
pub(crate) fn handshake(data: &[u8]) {
    let _ = handshake::Initiation::parse(data);
    let _ = handshake::Response::parse(data);
    let _ = handshake::CookieReply::parse(data);
    let _ = handshake::InitiationPayload::parse(data);
    let _ = handshake::ResponsePayload::parse(data);
}

/// Messages between the control threads of neighbours.
pub(crate) fn routing(data: &[u8]) {
    match routing::Message::parse(data) {
        Ok(routing::Message::Advertisement(advertisement)) => {
            let _ = advertisement.links().count();
        }
        Ok(routing::Message::Digest(digest)) => {
            let _ = digest.entries().count();
        }
        Ok(routing::Message::Request(request)) => {
            let _ = request.origins().count();
        }
        _ => {}
    }
}

/// What members of a group say to each other; what parses must emit the same bytes.
pub(crate) fn membership(data: &[u8]) {
    use sinew::wire::membership::{Join, Message};
    if let Ok(message) = Message::parse(data) {
        let mut buffer = vec![0; data.len()];
        let mut writer = Writer::new(&mut buffer);
        message.emit(&mut writer).expect("a parsed message fits");
        assert_eq!(writer.written(), data);
    }
    let _ = Join::parse(data);
}

/// What members agree on about service addresses; what parses must emit the same bytes.
pub(crate) fn vip(data: &[u8]) {
    use sinew::wire::vip::{Message, State};
    if let Ok(message) = Message::parse(data) {
        assert_eq!(message.emit(), data);
    }
    if let Ok(state) = State::parse(data) {
        assert_eq!(state.emit(), data);
    }
}

/// What members tell each other of the flows that go with service addresses; what parses must emit the same bytes.
pub(crate) fn flows(data: &[u8]) {
    use sinew::wire::flows::Message;
    if let Ok(message) = Message::parse(data) {
        assert_eq!(message.emit(), data);
    }
}

/// What routers say to each other about process groups; what parses must emit the same bytes.
pub(crate) fn groups(data: &[u8]) {
    use sinew::wire::groups::{Message, State};
    if let Ok(message) = Message::parse(data) {
        assert_eq!(message.emit(), data);
    }
    if let Ok(state) = State::parse(data) {
        assert_eq!(state.emit(), data);
    }
}

/// A histogram from the other end of a measurement, plain or compressed; what is read can be shown.
pub(crate) fn histogram(data: &[u8]) {
    use sinew::telemetry::{hgrm, hlog};
    let word = std::str::from_utf8(data).ok().and_then(|word| hlog::decode(word).ok());
    for histogram in word.into_iter().chain(hlog::decode_bytes(data).ok()) {
        let mut text = Vec::new();
        hgrm::write(&mut text, &histogram, hgrm::MILLISECONDS).expect("memory takes it");
        assert_eq!(hlog::decode(&hlog::encode(&histogram)), Ok(histogram));
    }
}

/// A line of the conversation of `sinew perf`.
pub(crate) fn perf_line(data: &[u8]) {
    sinew::cli::hear_line(data);
}

const NODE: NodeId = NodeId(1);
/// A message on its way through.
const HEADER: Header = Header {
    class: Class::Reliable,
    ttl: 9,
    mark: false,
    protocol: Protocol::Datagram,
    destination: NodeId(2),
    source: NODE,
    destination_port: 7,
    source_port: 9,
};

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

/// One of two routers that make keys with each other.
struct End {
    room: Security,
    identity: Identity,
    address: SocketAddr,
    /// Lives begun; the clock goes on with them.
    lives: u64,
    /// Number of the next packet in this life of the link.
    number: u64,
    /// What it opened.
    opened: BTreeSet<u64>,
}

impl End {
    fn new(id: u8) -> End {
        let identity = Identity::from_seed([id; 32]);
        let room = End::room(&identity, 0);
        let address = SocketAddr::from(([192, 0, 2, id], 4000));
        End { room, identity, address, lives: 0, number: 0, opened: BTreeSet::new() }
    }

    fn room(identity: &Identity, lives: u64) -> Security {
        let epoch = WallTime::from_nanos((1 << 60) + lives * 1_000_000_000);
        Security::new(identity.clone(), security::Settings::default(), epoch, Rng::from_u64(lives))
    }
}

/// Two routers and the wire between them, which an input is the script of.
struct Conversation {
    now: Instant,
    ends: [End; 2],
    /// What is on its way: to whom, from where, and the bytes.
    wire: VecDeque<(usize, SocketAddr, Vec<u8>)>,
    /// All that ever was.
    recorded: Vec<(usize, SocketAddr, Vec<u8>)>,
    /// Packets sealed so far, each with its number in the plaintext, and by whom.
    sealed: Vec<usize>,
}

/// Most datagrams that are kept for replay, and on the wire.
const KEPT: usize = 64;

impl Conversation {
    fn new() -> Conversation {
        let (now, ends) = (Instant::ZERO, [End::new(1), End::new(2)]);
        let mut both = Conversation { now, ends, wire: VecDeque::new(), recorded: Vec::new(), sealed: Vec::new() };
        (0..2).for_each(|end| both.join(end));
        both
    }

    fn join(&mut self, end: usize) {
        let (peer, remote) = (self.ends[1 - end].identity.public(), self.ends[1 - end].address);
        self.ends[end].room.add_peer(self.now, LinkId(0), peer, None, &[remote.into()]);
        self.ends[end].number = 0;
        self.drain(end);
    }

    fn restart(&mut self, end: usize) {
        self.ends[end].lives += 1;
        self.ends[end].room = End::room(&self.ends[end].identity, self.ends[end].lives);
        self.join(end);
    }

    fn launch(&mut self, end: usize, bytes: &[u8]) {
        let flight = (1 - end, self.ends[end].address, bytes.to_vec());
        if self.recorded.len() < KEPT {
            self.recorded.push(flight.clone());
        }
        if self.wire.len() < KEPT {
            self.wire.push_back(flight);
        }
    }

    /// Seals a packet that says which it is.
    fn talk(&mut self, end: usize) {
        let (head, mut datagram) = (datagram::HEADER_LEN, [0; 128]);
        datagram[head..head + 8].copy_from_slice(&(self.sealed.len() as u64).to_be_bytes());
        let (number, now) = (self.ends[end].number, self.now);
        if let Some(len) = self.ends[end].room.seal(now, LinkId(0), number, &mut datagram, 8) {
            self.ends[end].number += 1;
            self.sealed.push(end);
            self.launch(end, &datagram[..len]);
        }
    }

    /// Does what a shard does after every call: fresh keys are a new life of the link, which greets.
    fn drain(&mut self, end: usize) {
        let mut greets = false;
        while let Some(event) = self.ends[end].room.poll_event() {
            if let security::Event::Established { fresh, .. } = event {
                greets = true;
                self.ends[end].number = if fresh { 0 } else { self.ends[end].number };
            }
        }
        if greets {
            self.talk(end);
        }
        let mut out = [0; 2048];
        while let Some((_, to, len)) = self.ends[end].room.poll_transmit(self.now, &mut out) {
            if to.remote == self.ends[1 - end].address {
                self.launch(end, &out[..len]);
            }
        }
    }

    fn deliver(&mut self, (end, from, mut bytes): (usize, SocketAddr, Vec<u8>)) {
        let received = self.ends[end].room.handle_datagram(self.now, from.into(), &mut bytes);
        self.drain(end);
        if let security::Received::Packet { plaintext, .. } = received {
            let which = bytes[plaintext].try_into().map(u64::from_be_bytes).expect("only what was sealed is opened");
            assert_eq!(self.sealed.get(which as usize), Some(&(1 - end)), "the other end sealed it");
            assert!(self.ends[end].opened.insert(which), "packet {which} was opened before");
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now += std::time::Duration::from_millis(millis);
        for end in 0..2 {
            self.ends[end].room.handle_timeout(self.now);
            self.drain(end);
        }
    }

    fn step(&mut self, what: u8, how: u8) {
        let (end, how) = (usize::from(how & 1), usize::from(how));
        match what % 16 {
            0..=4 => self.wire.pop_front().into_iter().for_each(|flight| self.deliver(flight)),
            5 => drop(self.wire.pop_front()),
            6 => self.wire.rotate_left(usize::from(self.wire.len() > 1)),
            7 => self.wire.front().cloned().into_iter().for_each(|flight| self.deliver(flight)),
            8 | 9 => {
                let Some((to, from, mut bytes)) = self.wire.pop_front() else { return };
                match what % 16 {
                    8 if !bytes.is_empty() => {
                        let place = how % bytes.len();
                        bytes[place] ^= 1 << (how % 8);
                    }
                    _ => bytes.truncate(how),
                }
                if !bytes.is_empty() {
                    self.deliver((to, from, bytes));
                }
            }
            10 if !self.recorded.is_empty() => self.deliver(self.recorded[how % self.recorded.len()].clone()),
            11 => {
                let Some((to, _, bytes)) = self.wire.front().cloned() else { return };
                self.deliver((to, address(), bytes));
            }
            12 | 13 => self.talk(end),
            14 if self.ends[end].lives < 8 => self.restart(end),
            _ => self.wait(how as u64 * how as u64),
        }
    }
}

/// Two routers make keys over a wire that loses, repeats, reorders, damages and replays as the input says, two bytes a
/// step, while time passes and routers restart: what is opened was sealed by the other end, and once. Left alone
/// afterwards, they have keys that work.
pub(crate) fn security_room(data: &[u8]) {
    let mut both = Conversation::new();
    for step in data.as_chunks::<2>().0.iter().take(1024) {
        both.step(step[0], step[1]);
    }
    for _ in 0..400 {
        both.wait(25);
        (0..2).for_each(|end| both.talk(end));
        while let Some(flight) = both.wire.pop_front() {
            both.deliver(flight);
        }
    }
    let before = [both.ends[0].opened.len(), both.ends[1].opened.len()];
    (0..2).for_each(|end| both.talk(end));
    while let Some(flight) = both.wire.pop_front() {
        both.deliver(flight);
    }
    let after = [both.ends[0].opened.len(), both.ends[1].opened.len()];
    assert!(after.iter().zip(before).all(|(after, before)| *after > before), "{before:?} {after:?}: no keys that work");
}

/// Opened packets from a neighbour that is a member but not a friend.
pub(crate) fn link_room(data: &[u8]) {
    let mut pool = Pool::new(256);
    let path = AddressPair::from(SocketAddr::from(([192, 0, 2, 1], 5300)));
    let mut now = Instant::ZERO;
    let mut link = Link::new(now, link::Settings::default(), &[path.into()], Rng::from_u64(1));
    link.attach(now, path, true);
    let mut out = [0; 2048];
    for (number, piece) in pieces(data).enumerate() {
        now += std::time::Duration::from_millis(3);
        // Something is always outstanding, so that acknowledgements have something to be wrong about.
        let class = if number % 3 == 0 { Class::BestEffort } else { Class::Reliable };
        let header = Header { class, ..HEADER };
        if let Some(packet) = pool.copy_in(Urgency::Ordinary, &[7; 90])
            && let Err(packet) = link.send(now, packet, &header, &mut pool)
        {
            pool.release(packet);
        }
        link.send_control(now, &piece[..piece.len().min(40)], &mut pool);
        link.handle_packet(now, path, number as u64 * 3 / 2, piece.len() + 24, piece, &mut pool);
        link.handle_timeout(now, &mut pool);
        while let Some(delivery) = link.poll_deliver() {
            match delivery {
                link::Delivery::Message(packet) | link::Delivery::Control(packet) => pool.release(packet),
            }
        }
        while link.poll_transmit(now, &mut pool, &mut out[..1448]).is_some() {}
        while let Some(packet) = link.poll_stranded() {
            pool.release(packet);
        }
        while link.poll_event().is_some() {}
    }
}

/// Two members and what becomes of what they say: passed on, lost, doubled, late, damaged; and whatever a third one says.
pub(crate) fn membership_room(data: &[u8]) {
    use sinew::proto::membership::{Action, Input, Membership, Service, Settings, Suspicion, Timing};
    let mut now = Instant::from_millis(1);
    let group: sinew::base::GroupName = "fuzzed".parse().expect("a good name");
    let ids = [NodeId(1), NodeId(2)];
    let member = |node: NodeId| {
        let settings = Settings { group: group.clone(), node, incarnation: 1, timing: Timing::FAST };
        Membership::new(now, settings, Rng::from_u64(node.0))
    };
    let mut members = ids.map(member);
    members[0].handle(now, Input::Reachable(ids[1]));
    members[1].handle(now, Input::Reachable(ids[0]));
    let mut wire: VecDeque<(usize, NodeId, Vec<u8>)> = VecDeque::new();
    for piece in pieces(data) {
        let Some((&selector, rest)) = piece.split_first() else { continue };
        now += std::time::Duration::from_millis(u64::from(selector >> 5));
        let at = usize::from(selector & 1);
        match selector >> 1 & 7 {
            0 => {
                wire.pop_front();
            }
            1 => wire.extend(wire.front().cloned()),
            2 => wire.rotate_left(1.min(wire.len())),
            3 => {
                for ((_, _, bytes), noise) in wire.front_mut().into_iter().zip([rest]) {
                    let at = noise.first().map_or(0, |&at| usize::from(at)) % bytes.len().max(1);
                    bytes.iter_mut().skip(at).zip(noise).for_each(|(byte, noise)| *byte ^= noise);
                }
            }
            4 => members[at].handle(now, Input::Multicast { body: rest.to_vec(), service: Service::Agreed }),
            5 => members[at].handle(now, Input::Unreachable(ids[1 - at], Suspicion::NoRoute)),
            6 => members[at].handle(now, Input::Reachable(if rest.is_empty() { ids[1 - at] } else { NodeId(3) })),
            _ => wire.push_back((at, NodeId(3), rest.to_vec())),
        }
        if let Some((to, from, bytes)) = wire.pop_front() {
            members[to].handle(now, Input::Message { from, bytes });
        }
        for at in 0..2 {
            if members[at].poll_timeout().is_some_and(|(due, _)| due <= now) {
                members[at].handle(now, Input::Timer);
            }
            while let Some(action) = members[at].poll_action() {
                match action {
                    Action::WantState { .. } => members[at].handle(now, Input::State(vec![at as u8])),
                    Action::Send { to, bytes } if to == ids[1 - at] && wire.len() < 64 => {
                        wire.push_back((1 - at, ids[at], bytes));
                    }
                    _ => {}
                }
            }
            assert!(members[at].holdings().iter().all(|(_, held, most)| held <= most), "{:?}", members[at].holdings());
        }
    }
}

/// What the first of these shares with the others.
fn two_sets(ids: [NodeId; 3]) -> sinew::proto::vip::Settings {
    use sinew::proto::vip::{CheckSpec, Coverage, SetSpec, Settings};
    use std::time::Duration;
    let set = |name: &str, last: u8| SetSpec {
        name: name.to_owned(),
        addresses: vec![std::net::IpAddr::from([192, 0, 2, last])],
        interfaces: vec!["eth0".to_owned()],
        coverage: Coverage::Component,
        preferences: Vec::new(),
    };
    Settings {
        node: ids[0],
        members: ids.map(|id| (id, id.to_string())).to_vec(),
        sets: vec![set("a", 1), set("b", 2)],
        weight: 1,
        checks: vec![CheckSpec { name: "alive".to_owned(), sets: vec![0] }],
        maturity: Duration::from_millis(50),
        lease: Duration::from_millis(50),
        linger: Duration::from_millis(100),
        balance: Some(Duration::from_millis(400)),
        moves: 1,
    }
}

/// A member that shares two sets, and whatever it is told by the others, by its host side and by operators.
pub(crate) fn vip_room(data: &[u8]) {
    use sinew::base::{View, ViewId};
    use sinew::proto::vip::{Action, Command, HostReport, Input, Vip};
    use std::time::Duration;
    let mut now = Instant::from_millis(1);
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let mut room = Vip::new(now, two_sets(ids), Rng::from_u64(1));
    let (mut number, mut own) = (0, Vec::new());
    for piece in pieces(data) {
        let Some((&selector, rest)) = piece.split_first() else { continue };
        now += Duration::from_millis(u64::from(selector >> 5) * 7);
        let (from, place) = (ids[usize::from(selector) % 3], usize::from(selector >> 4 & 1));
        let input = match selector & 15 {
            0 | 1 => Input::Message { from, body: rest.to_vec() },
            2 | 3 => {
                number += 1;
                let members: Vec<NodeId> = if place == 0 { ids.to_vec() } else { vec![ids[0], from.max(ids[1])] };
                room.handle(now, Input::WantState { pending: Vec::new() });
                while let Some(action) = room.poll_action() {
                    if let Action::State(state) = action {
                        own = state;
                    }
                }
                let states =
                    members.iter().map(|&node| (node, if node == ids[0] { own.clone() } else { rest.to_vec() }));
                let states = states.collect();
                let view = View::new(ViewId { number, digest: u64::from(selector) }, members);
                Input::View { view, together: vec![ids[0]], states }
            }
            4 => Input::WantState { pending: vec![(from, rest.to_vec())] },
            5 => Input::LastHeard { node: from, at: now },
            6 => Input::Command { id: 1, command: Command::Move { set: "a".to_owned(), to: Some(from) } },
            7 => Input::Command { id: 2, command: Command::Drain(from) },
            8 => Input::Command { id: 3, command: Command::Balance },
            9 => Input::Health { check: place, ok: !rest.is_empty() },
            10 => Input::Host(HostReport::Acquired { set: place }),
            11 => Input::Host(HostReport::Released { set: place }),
            12 => Input::Host(HostReport::Failed { set: place, why: String::new() }),
            13 => Input::Host(HostReport::Lapsed),
            14 => Input::Host(HostReport::Carrier {
                interface: "eth0".to_owned(),
                up: !rest.is_empty(),
                addresses: Vec::new(),
            }),
            _ => Input::Timer,
        };
        room.handle(now, input);
        // What it says to all, it hears itself.
        let mut said = Vec::new();
        while let Some(action) = room.poll_action() {
            if let Action::Multicast(body) = action {
                said.push(body);
            }
        }
        said.into_iter().for_each(|body| room.handle(now, Input::Message { from: ids[0], body }));
        while room.poll_action().is_some() {}
    }
}

/// Messages and records for sessions.
pub(crate) fn session_room(data: &[u8]) {
    let mut pool = Pool::new(512);
    let mut sessions = Sessions::new(NODE, Worker::SOLE, session::Settings::default(), Rng::from_u64(1));
    let mut now = Instant::ZERO;
    sessions.open(now, SessionId(1), SessionKind::Datagram { port: 7 }).expect("the port is free");
    sessions.open(now, SessionId(2), SessionKind::Listener { port: 8 }).expect("the port is free");
    let mut record = vec![0; client::MAX_RECORD];
    for piece in pieces(data) {
        now += std::time::Duration::from_millis(20);
        let Some((&selector, rest)) = piece.split_first() else { continue };
        let protocols = [Protocol::Datagram, Protocol::Segment, Protocol::FlowAck, Protocol::FlowReset, Protocol::Echo];
        match protocols.get(usize::from(selector % 8)) {
            Some(&protocol) => {
                let header = Header {
                    class: if selector & 64 == 0 { Class::Reliable } else { Class::BestEffort },
                    ttl: 9,
                    mark: selector & 32 != 0,
                    protocol,
                    destination: NODE,
                    source: NodeId(2),
                    destination_port: if selector & 16 == 0 { 7 } else { 8 },
                    source_port: 9,
                };
                let body = &rest[..rest.len().min(sinew::wire::message::MAX_BODY)];
                sessions.handle_message(now, &header, body, &mut pool);
            }
            None => {
                let _ = sessions.handle_record(now, SessionId(1), rest, &mut pool);
            }
        }
        sessions.handle_timeout(now, &mut pool);
        while let Some((_, packet)) = sessions.poll_transmit(now, &mut pool) {
            pool.release(packet);
        }
        while let Some((id, _)) = sessions.poll_deliver(now, &mut pool, &mut record) {
            sessions.delivered(now, id, &mut pool);
        }
        while sessions.poll_event().is_some() {}
    }
}

/// The process groups of one router, whose clients do what the input says, and another router that may say anything: every
/// client sees a view that it is in first, then only messages of members.
pub(crate) fn groups_room(data: &[u8]) {
    use sinew::base::{View, ViewId};
    use sinew::proto::groups::{Action, Event, Groups, Input, Process};
    use sinew::wire::groups::{Message, State};
    let ids = [NodeId(1), NodeId(2)];
    let mut room = Groups::new(ids[1]);
    let (mut number, mut last) = (0, 0);
    let mut own = State::default();
    let mut views: std::collections::BTreeMap<u32, Vec<Process>> = std::collections::BTreeMap::new();
    for piece in pieces(data) {
        let Some((&selector, rest)) = piece.split_first() else { continue };
        let process = 1 + u32::from(selector >> 4);
        match selector & 15 {
            0..=2 => {
                last += 1;
                let group = ["a", "b"][usize::from(selector >> 4) % 2].parse().expect("a good name");
                room.handle(Input::Join { process: last, group });
            }
            3 => room.handle(Input::Leave { process }),
            4 | 5 => room.handle(Input::Send { process, bytes: rest.to_vec() }),
            6 => room.handle(Input::Transitional { together: ids[usize::from(selector >> 4 & 1)..].to_vec() }),
            7 | 8 => {
                number += 1;
                let view = View::new(ViewId { number, digest: 7 }, ids.to_vec());
                let together = ids[usize::from(selector >> 4 & 1)..].to_vec();
                room.handle(Input::View {
                    view,
                    together,
                    states: vec![(ids[0], rest.to_vec()), (ids[1], own.emit())],
                });
            }
            9 => room.handle(Input::WantState { pending: vec![(ids[0], rest.to_vec())] }),
            10 => room.handle(Input::Room),
            _ => room.handle(Input::Message { from: ids[0], body: rest.to_vec() }),
        }
        while let Some(action) = room.poll_action() {
            match action {
                Action::Multicast(body) if selector & 128 != 0 && number % 2 == 0 => room.handle(Input::Full(body)),
                Action::Multicast(body) => {
                    match Message::parse(&body).expect("a room's own message is one") {
                        Message::Join { process, group } => drop(own.0.insert(process, group)),
                        Message::Leave { process } => drop(own.0.remove(&process)),
                        Message::Message { .. } => {}
                    }
                    room.handle(Input::Taken);
                    room.handle(Input::Message { from: ids[1], body });
                }
                Action::Tell { processes, event } => {
                    for process in processes {
                        let me = Process { node: ids[1], number: process };
                        match &event {
                            Event::View { members, together, .. } => {
                                assert!(members.contains(&me) && together.contains(&me));
                                views.insert(process, members.clone());
                            }
                            Event::Message { from, .. } => assert!(views[&process].contains(from)),
                            Event::Transitional => assert!(views.contains_key(&process)),
                        }
                    }
                }
                Action::State(state) => assert!(State::parse(&state).is_ok()),
                Action::Sent(_) | Action::Refused { .. } => {}
            }
        }
        assert!(room.holdings().iter().all(|(_, held, most)| held <= most));
    }
}

/// Cuts an input into pieces: a byte says the length of the next, 255 means 255 and more to come.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (&first, mut tail) = rest.split_first()?;
        let mut len = usize::from(first);
        if first == 255 {
            let (&more, after) = tail.split_first()?;
            len += usize::from(more) * 5;
            tail = after;
        }
        let (piece, after) = tail.split_at(len.min(tail.len()));
        rest = after;
        Some(piece)
    })
}

/// What an application may have written into the memory that it shares with its router: how far it says that it wrote, as
/// the first byte says how often, and what stands in the ring.
pub(crate) fn shared_memory(data: &[u8]) {
    use sinew::shm::{Consumer, Memory, Nonsense, RING, Way};
    let Some((&count, data)) = data.split_first() else { return };
    let (heads, ring) = data.split_at((8 * usize::from(count % 8)).min(data.len()));
    let memory = std::sync::Arc::new(Memory::create().expect("there is memory").0);
    memory.copy_in(Way::Up, 0, &ring[..ring.len().min(RING)]);
    let mut consumer = Consumer::new(std::sync::Arc::clone(&memory), Way::Up);
    let mut record = vec![0; client::MAX_RECORD];
    for head in heads.chunks_exact(8) {
        let head = u64::from_le_bytes(head.try_into().expect("eight bytes"));
        memory.words(Way::Up).head().store(head, std::sync::atomic::Ordering::Release);
        let _ = consumer.copy_last(&mut record);
        loop {
            match consumer.take(&mut record) {
                Ok(Some(len)) => drop(client::Record::parse(&record[..len])),
                Ok(None) => break,
                Err(Nonsense) => return,
            }
        }
    }
}
