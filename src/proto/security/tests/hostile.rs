//! What attackers, strangers and broken networks can do: nothing but be counted.

use super::*;
use crate::base::Rng;
use crate::wire::handshake::{INITIATION_LEN, Initiation};
use proptest::prelude::*;

const ATTACKER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 66)), 666);

/// A net with keys, and one of each message as it was sent.
fn net_with_messages() -> (Net, Vec<Flight>) {
    let mut net = Net::pair();
    net.run(ms(100));
    assert!(net.works());
    let one = |net: &Net, end, kind| net.sent_by(end, kind).remove(0);
    let messages = vec![one(&net, 0, KIND_INITIATION), one(&net, 1, KIND_RESPONSE), one(&net, 0, KIND_SEALED)];
    (net, messages)
}

/// Everything about a room that a refused datagram must leave as it is.
fn state(room: &Security) -> impl PartialEq + std::fmt::Debug + use<> {
    let peer = room.peer(LINK).expect("there is a link");
    let stats = room.stats();
    (
        (room.outbox.len(), room.events.len(), room.indices.len(), room.deadline),
        (peer.remote, peer.retry_at, peer.heard_timestamp, peer.keys.window.next(), peer.pending.is_some()),
        (stats.opened, stats.established, stats.rekeyed, stats.responses_sent, stats.cookies_sent),
    )
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    // Each message at the moment it would have been accepted.
    for kind in [KIND_INITIATION, KIND_RESPONSE, KIND_SEALED] {
        let mut net = Net::pair();
        let receiver = if kind == KIND_RESPONSE { 0 } else { 1 };
        net.script = Box::new(move |flight| if flight.bytes[0] == kind { Fate::Lose } else { Fate::Pass });
        net.run(ms(50));
        let original = net.sent_by(1 - receiver, kind).remove(0);
        let before = state(&net.ends[receiver].room);
        for at in 0..original.bytes.len() {
            for bit in 0..8 {
                let mut bytes = original.bytes.clone();
                bytes[at] ^= 1 << bit;
                let got = net.deliver(receiver, original.from, &bytes);
                assert!(matches!(got, Received::Dropped(_)), "kind {kind}, byte {at}, bit {bit}: {got:?}");
                assert_eq!(state(&net.ends[receiver].room), before);
            }
        }
        let got = net.deliver(receiver, original.from, &original.bytes);
        assert!(!matches!(got, Received::Dropped(_)), "kind {kind}: the original is still welcome, {got:?}");
    }
}

#[test]
fn truncated_and_extended_messages_are_dropped() {
    let (mut net, messages) = net_with_messages();
    for message in messages {
        let receiver = usize::from(message.to == net.ends[1].address);
        let before = state(&net.ends[receiver].room);
        for len in (0..message.bytes.len() + 40).filter(|&len| len != message.bytes.len()) {
            let mut bytes = message.bytes.clone();
            bytes.resize(len, 0);
            assert!(matches!(net.deliver(receiver, message.from, &bytes), Received::Dropped(_)));
        }
        assert_eq!(state(&net.ends[receiver].room), before);
    }
}

#[test]
fn replayed_messages_are_dropped_at_once_and_later() {
    let (mut net, messages) = net_with_messages();
    for later in [0, 1, 1000, 119_000, 200_000] {
        net.chat(ms(later), ms(500));
        net.run(ms(100));
        for from in [messages[0].from, messages[1].from, ATTACKER] {
            for message in &messages {
                for receiver in 0..2 {
                    let before = state(&net.ends[receiver].room);
                    let got = net.deliver(receiver, from, &message.bytes);
                    assert!(matches!(got, Received::Dropped(_)), "after {later} ms: {got:?}");
                    assert_eq!(state(&net.ends[receiver].room), before);
                }
            }
        }
    }
}

#[test]
fn the_replay_window_holds_for_8192_numbers_and_forgets_nothing_newer() {
    let (mut net, _) = net_with_messages();
    let flights: Vec<_> = (0..10_000u64).map(|n| net.seal(0, &n.to_be_bytes()).expect("has keys")).collect();
    let newest = flights.last().expect("many");
    assert!(matches!(net.deliver(1, newest.from, &newest.bytes), Received::Packet { .. }));
    // The last 8,128 packets are welcome in any order, each once; what is older is too old.
    let fits = flights.len() - 8128;
    for flight in flights[fits..flights.len() - 1].iter().rev() {
        assert!(matches!(net.deliver(1, flight.from, &flight.bytes), Received::Packet { .. }));
    }
    for flight in flights.iter().skip(fits).step_by(17).chain(&flights[..fits - 64]) {
        assert_eq!(net.deliver(1, flight.from, &flight.bytes), Received::Dropped(DropReason::Replayed));
    }
    assert_eq!(net.heard(1), 8128);
}

#[test]
fn strangers_get_silence() {
    let mut net = Net::pair();
    net.run(ms(100));
    // Someone with keys of his own who knows this router's public key.
    let mut stranger = End::new(9, Settings::default());
    stranger.room.add_peer(net.now, LINK, net.ends[1].identity.public(), None, &[net.ends[1].address.into()]);
    stranger.room.handle_timeout(net.now);
    let mut slot = [0; 2048];
    let (_, _, len) = stranger.room.poll_transmit(net.now, &mut slot).expect("asks");
    let before = net.sent.len();
    assert_eq!(net.deliver(1, ATTACKER, &slot[..len]), Received::Dropped(DropReason::HandshakeRefused));
    // And someone who knows nothing.
    for kind in 0..=255u8 {
        for len in [0usize, 1, 8, 23, 24, 60, 88, 153, 1200] {
            let mut bytes = vec![0xa5; len];
            bytes.iter_mut().take(1).for_each(|first| *first = kind);
            assert!(matches!(net.deliver(1, ATTACKER, &bytes), Received::Dropped(_)));
        }
    }
    assert_eq!(net.sent.len(), before);
    let drops = &net.ends[1].room.stats().drops;
    assert!(
        [DropReason::Stranger, DropReason::Malformed, DropReason::NoKeys, DropReason::HandshakeRefused]
            .iter()
            .all(|&reason| drops.get(reason) > 0)
    );
    assert_eq!(drops.total() as usize, net.ends[1].dropped.len());
}

#[test]
fn an_impostor_cannot_answer_for_the_peer() {
    // Someone answers in the place of the peer with keys of his own: nothing is established.
    let mut net = Net::pair();
    let impostor = Identity::from_seed([9; 32]);
    let public = net.ends[0].identity.public();
    let mut room = Security::new(impostor, Settings::default(), WallTime::default(), Rng::from_u64(9));
    room.add_peer(net.now, LINK, public, None, &[]);
    net.script = Box::new(|_| Fate::Lose);
    net.run(ms(1));
    let mut bytes = net.sent_by(0, KIND_INITIATION).remove(0).bytes;
    assert!(matches!(room.handle_datagram(net.now, ATTACKER.into(), &mut bytes), Received::Dropped(_)));
}

#[test]
fn bad_macs_cost_no_public_key_work() {
    let (mut net, messages) = net_with_messages();
    let before = net.ends[1].room.stats().key_exchanges;
    for n in 0..5000u32 {
        let mut bytes = messages[0].bytes.clone();
        bytes[20..24].copy_from_slice(&n.to_be_bytes());
        assert_eq!(net.deliver(1, ATTACKER, &bytes), Received::Dropped(DropReason::HandshakeRefused));
    }
    assert_eq!(net.ends[1].room.stats().key_exchanges, before);
    assert_eq!(net.ends[1].room.stats().cookies_sent, 0);
}

/// Initiations with good `mac1` and junk inside, as anyone who knows the public key can make.
fn junk(target: &Identity, n: u64) -> Vec<u8> {
    let macs = MacKeys::new(&target.public().exchange);
    let mut noise = [7; crate::wire::handshake::INITIATION_NOISE_LEN];
    noise[..8].copy_from_slice(&n.to_be_bytes());
    let mut message = Initiation { sender: n as u32 & 0xff_ffff, noise, mac2: [0; 16], mac1: [0; 16] };
    message.mac1 = macs.mac1(Initiation::under_mac1(&message.to_bytes()));
    message.to_bytes().to_vec()
}

#[test]
fn a_flood_costs_bounded_work_and_members_still_get_in_by_cookie() {
    let settings = Settings { handshakes_per_second: 40, ..Settings::default() };
    let mut net = Net::strangers([Settings::default(), settings]);
    net.join(1, None, false);
    let victim = net.ends[1].identity.clone();
    let mut n = 0;
    for millisecond in 0..3000 {
        if millisecond == 1000 {
            net.join(0, None, true);
        }
        for _ in 0..5 {
            n += 1;
            let from = SocketAddr::from(([198, 51, (n % 7) as u8, (n % 251) as u8], 7));
            assert_eq!(net.deliver(1, from, &junk(&victim, n)), Received::Dropped(DropReason::HandshakeRefused));
        }
        net.run(ms(1));
    }
    let stats = net.ends[1].room.stats();
    // Without proof of address only the unloaded half of the rate is open: 20 at once and then what comes back.
    assert!(stats.key_exchanges <= 20 + 3 * 40 + 1, "{stats:?}");
    assert!(stats.cookies_sent > 1000, "{stats:?}");
    assert_eq!(net.ends[0].room.stats().cookies_received, 1);
    assert!(net.works(), "the member proved its address and got in");
    let replies = net.sent_by(1, KIND_COOKIE);
    assert!(replies.iter().all(|reply| reply.bytes.len() < INITIATION_LEN), "answers amplify nothing");
    net.ends.iter().for_each(End::tidy);
}

#[test]
fn the_outgoing_queue_is_bounded() {
    let settings = Settings { handshakes_per_second: 1, ..Settings::default() };
    let mut net = Net::strangers([Settings::default(), settings]);
    let victim = net.ends[1].identity.clone();
    for n in 0..2000 {
        // Not drained: straight into the room.
        net.ends[1].room.handle_datagram(net.now, ATTACKER.into(), &mut junk(&victim, n));
    }
    let room = &mut net.ends[1].room;
    assert_eq!((room.outbox.len(), room.stats.outbox_full), (OUTBOX, 1999 - OUTBOX as u64));
    let mut slot = [0; 2048];
    assert_eq!(std::iter::from_fn(|| room.poll_transmit(net.now, &mut slot)).count(), OUTBOX);
}

#[test]
fn cookie_replies_are_believed_once_and_only_from_the_peer() {
    let settings = Settings { handshakes_per_second: 5, ..Settings::default() };
    let mut net = Net::strangers([Settings::default(), settings]);
    let victim = net.ends[1].identity.clone();
    for n in 0..3 {
        net.deliver(1, ATTACKER, &junk(&victim, n));
    }
    net.join(1, None, false);
    net.join(0, None, true);
    net.script = Box::new(|flight| if flight.bytes[0] == KIND_COOKIE { Fate::Lose } else { Fate::Pass });
    net.run(ms(15));
    let reply = net.sent_by(1, KIND_COOKIE).remove(0);
    for at in 0..reply.bytes.len() {
        let mut bytes = reply.bytes.clone();
        bytes[at] ^= 4;
        assert!(matches!(net.deliver(0, reply.from, &bytes), Received::Dropped(_)), "byte {at}");
    }
    assert_eq!(net.deliver(0, reply.from, &reply.bytes), Received::Handshake);
    assert!(matches!(net.deliver(0, reply.from, &reply.bytes), Received::Dropped(_)));
    net.run(ms(30));
    assert!(net.works());
    let proof = Initiation::parse(&net.sent_by(0, KIND_INITIATION)[1].bytes).expect("our own").mac2;
    assert_ne!(proof, [0; 16]);
}

#[test]
fn forged_responses_neither_end_the_handshake_nor_cost_more_than_the_rate() {
    let mut net = Net::pair();
    net.script = Box::new(|flight| if flight.bytes[0] == KIND_RESPONSE { Fate::Lose } else { Fate::Pass });
    net.run(ms(15));
    let genuine = net.sent_by(1, KIND_RESPONSE).remove(0);
    let macs = MacKeys::new(&net.ends[0].identity.public().exchange);
    for n in 0..1000u32 {
        let mut forged = crate::wire::handshake::Response::parse(&genuine.bytes).expect("genuine");
        forged.noise[8..12].copy_from_slice(&n.to_be_bytes());
        forged.mac1 = macs.mac1(crate::wire::handshake::Response::under_mac1(&forged.to_bytes()));
        assert!(matches!(net.deliver(0, ATTACKER, &forged.to_bytes()), Received::Dropped(_)));
    }
    assert!(net.ends[0].room.stats().key_exchanges <= 101);
    net.now += ms(20);
    assert_eq!(net.deliver(0, genuine.from, &genuine.bytes), Received::Handshake);
    assert_eq!(net.ends[0].fresh(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn noise_from_the_network_changes_nothing(kind in 0u8..6, mut bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0usize..4) {
        let (mut net, _) = net_with_messages();
        if let Some(&len) = [153, 88, 60].get(len) {
            bytes.resize(len, 1);
        }
        bytes.iter_mut().take(1).for_each(|first| *first = kind);
        for end in 0..2 {
            let before = state(&net.ends[end].room);
            prop_assert!(matches!(net.deliver(end, ATTACKER, &bytes), Received::Dropped(_)));
            prop_assert_eq!(state(&net.ends[end].room), before);
        }
        prop_assert!(net.works());
    }
}
