//! What is fuzzed: every decoder, and every room that takes bytes from a stranger. Shared by the fuzzer, which invents
//! inputs, and by `cargo test`, which replays the committed corpus.

use sinew::base::{Class, Identity, Instant, LinkId, NodeId, PublicIdentity, Rng, SessionId, WallTime};
use sinew::containers::Pool;
use sinew::proto::link::{self, Link};
use sinew::proto::security::{self, Security};
use sinew::proto::session::{self, SessionKind, Sessions};
use sinew::wire::cursor::Writer;
use sinew::wire::frame::Frames;
use sinew::wire::message::{Header, Protocol};
use sinew::wire::{admin, client, datagram, handshake, routing};
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
    ("identity", identity),
    ("config", config),
    ("security_room", security_room),
    ("link_room", link_room),
    ("session_room", session_room),
    ("histogram", histogram),
    ("perf_line", perf_line),
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

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

/// Datagrams from strangers, one after another: the input is cut into pieces by a length byte.
pub(crate) fn security_room(data: &[u8]) {
    let (own, peer) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
    let epoch = WallTime::from_nanos(1 << 60);
    let mut room = Security::new(own, security::Settings::default(), epoch, Rng::from_u64(1));
    room.add_peer(Instant::ZERO, LinkId(0), peer.public(), None, Some(address()));
    let mut now = Instant::ZERO;
    let mut out = [0; 2048];
    for piece in pieces(data) {
        now += std::time::Duration::from_millis(10);
        let mut datagram = piece.to_vec();
        let _ = room.handle_datagram(now, address(), &mut datagram);
        room.handle_timeout(now);
        while room.poll_transmit(now, &mut out).is_some() {}
        while room.poll_event().is_some() {}
    }
}

/// Opened packets from a neighbour that is a member but not a friend.
pub(crate) fn link_room(data: &[u8]) {
    let mut pool = Pool::new(256);
    let mut link = Link::new(link::Settings::default(), Rng::from_u64(1));
    let mut now = Instant::ZERO;
    link.attach(now, true);
    let mut out = [0; 2048];
    for (number, piece) in pieces(data).enumerate() {
        now += std::time::Duration::from_millis(3);
        link.handle_packet(now, number as u64 * 3 / 2, piece.len() + 24, piece, &mut pool);
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

/// Messages and records for sessions.
pub(crate) fn session_room(data: &[u8]) {
    let mut pool = Pool::new(512);
    let mut sessions = Sessions::new(NODE, session::Settings::default(), Rng::from_u64(1));
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
