//! How two ends come to have keys.

use super::*;
use crate::wire::handshake::{INITIATION_LEN, RESPONSE_LEN};

fn settings(suite: SuitePreference) -> Settings {
    Settings { suite, ..Settings::default() }
}

#[test]
fn either_end_asks_and_every_combination_of_suites_agrees() {
    let suites = [SuitePreference::Aes256Gcm, SuitePreference::ChaCha20Poly1305, SuitePreference::Auto];
    for knows in [[true, false], [false, true]] {
        for a in suites {
            for b in suites {
                let mut net = Net::new([settings(a), settings(b)], knows);
                net.run(ms(35));
                for end in 0..2 {
                    let other = net.ends[1 - end].address;
                    let expected = Event::Established { link: LINK, from: other.into(), fresh: true };
                    assert_eq!(net.ends[end].events, [expected], "end {end} of {knows:?} with {a:?} and {b:?}");
                    assert_eq!(net.ends[end].room.remote(LINK), Some(other.into()));
                    net.ends[end].tidy();
                }
                assert!(net.works());
                assert_eq!(net.sent_by(0, KIND_INITIATION).len() + net.sent_by(1, KIND_INITIATION).len(), 1);
            }
        }
    }
}

#[test]
fn the_asking_end_has_keys_after_one_round_trip_and_the_other_when_it_hears_them_used() {
    let mut net = Net::pair();
    net.ends[0].greets = false;
    net.run(ms(1000));
    assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (1, 0));
    assert!(net.ends[0].room.can_seal(net.now, LINK) && !net.ends[1].room.can_seal(net.now, LINK));
    assert!(!net.send(1, b"too early"));
    assert!(net.send(0, b"now"));
    net.run(ms(11));
    assert_eq!(net.ends[1].opened, [(0, b"now".to_vec())]);
    assert_eq!(net.ends[1].fresh(), 1);
    assert!(net.works());
}

#[test]
fn nobody_asks_who_does_not_know_where() {
    let mut net = Net::new([Settings::default(), Settings::default()], [false, false]);
    assert_eq!(net.ends[0].room.poll_timeout(), None);
    net.run(ms(10_000));
    assert!(net.sent.is_empty());
}

#[test]
fn initiations_that_cross_settle_on_the_lower_ids_in_one_and_a_half_round_trips() {
    for delay in [0, 1, 10, 100] {
        let mut net = Net::new([Settings::default(), Settings::default()], [true, true]);
        net.delay = ms(delay);
        net.run(ms(delay * 3 + 1));
        let (lower, higher) = net.by_id();
        assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (1, 1), "delay {delay}");
        assert_eq!((net.ends[0].rekeys(), net.ends[1].rekeys()), (0, 0));
        assert_eq!(net.sent_by(higher, KIND_RESPONSE).len(), 1);
        assert_eq!(net.sent_by(lower, KIND_RESPONSE).len(), 0);
        assert!(net.works());
        net.run(ms(5000));
        assert_eq!(net.sent.iter().filter(|flight| flight.bytes[0] == KIND_INITIATION).count(), 2);
    }
}

#[test]
fn initiations_that_cross_on_a_long_path_settle_too() {
    for delay in [130, 200, 240, 400, 700, 950] {
        let mut net = Net::new([Settings::default(), Settings::default()], [true, true]);
        net.delay = ms(delay);
        net.run(ms(20_000));
        assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (1, 1), "delay {delay}");
        let (lower, higher) = net.by_id();
        assert_eq!(net.ends[lower].rekeys(), 0, "keys that are only kept are not announced");
        assert!(net.ends[higher].rekeys() <= 1);
        let sent = net.chat(ms(2000), ms(50));
        net.run(ms(2000));
        assert_eq!(sent, [40, 40]);
        assert_eq!([net.heard(1), net.heard(0)], sent, "delay {delay}");
        assert!(net.agreed(), "delay {delay}");
    }
}

#[test]
fn an_end_that_has_moved_is_answered_although_the_other_asks_at_its_old_address() {
    // Either may be the end with the lower id.
    for stale in [0, 1] {
        let mut net = Net::strangers([Settings::default(), Settings::default()]);
        let gone = net.ends[1 - stale].address;
        net.join(stale, None, true);
        net.ends[1 - stale].address = SocketAddr::from(([203, 0, 113, 9], 9));
        net.join(1 - stale, None, true);
        net.run(ms(3000));
        assert!(net.works(), "end {stale} asks at {gone}");
        assert_eq!(net.ends[stale].room.remote(LINK), Some(net.ends[1 - stale].address.into()));
    }
}

#[test]
fn lost_messages_are_made_good_by_the_next_attempt() {
    for kind in [KIND_INITIATION, KIND_RESPONSE] {
        for losses in 1..=4 {
            let mut net = Net::pair();
            let mut left = losses;
            net.script = Box::new(move |flight| {
                let lost = flight.bytes[0] == kind && left > 0;
                left -= u32::from(lost);
                if lost { Fate::Lose } else { Fate::Pass }
            });
            net.run(ms(400 * u64::from(losses) - 1));
            assert_eq!(net.ends[0].fresh(), 0, "{losses} of kind {kind}");
            net.run(ms(200 * u64::from(losses) + 50));
            assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (1, 1), "{losses} of kind {kind}");
            assert!(net.works());
            net.ends.iter().for_each(End::tidy);
        }
    }
}

#[test]
fn lost_first_packets_only_delay_the_answering_end() {
    let mut net = Net::pair();
    let mut left = 50;
    net.script = Box::new(move |flight| {
        let lost = flight.bytes[0] == KIND_SEALED && left > 0;
        left -= u32::from(lost);
        if lost { Fate::Lose } else { Fate::Pass }
    });
    net.run(ms(100));
    let mut body = 0u64;
    while net.ends[1].fresh() == 0 {
        body += 1;
        assert!(body < 200);
        net.send(0, &body.to_be_bytes());
        net.run(ms(20));
    }
    assert_eq!(net.ends[1].opened[0].0, 50, "numbers go on, the window begins where they are");
    assert!(net.works());
    assert_eq!(net.ends[0].fresh(), 1);
}

#[test]
fn retries_keep_their_pace_for_ever() {
    let mut net = Net::pair();
    net.script = Box::new(|_| Fate::Lose);
    net.run(ms(60_000));
    let sent = net.sent_by(0, KIND_INITIATION).len();
    // Eight attempts in 11 retry intervals.
    assert!((80..=96).contains(&sent), "{sent} in a minute");
    net.ends[0].tidy();
    net.script = Box::new(|_| Fate::Pass);
    net.run(ms(2600));
    assert!(net.works());
}

#[test]
fn both_ends_must_hold_the_same_preshared_key() {
    for (a, b, agree) in
        [(Some([1; 32]), Some([1; 32]), true), (Some([1; 32]), Some([2; 32]), false), (None, Some([1; 32]), false)]
    {
        let mut net = Net::strangers([Settings::default(), Settings::default()]);
        net.join(0, a, true);
        net.join(1, b, true);
        net.run(ms(5000));
        assert_eq!([net.ends[0].fresh(), net.ends[1].fresh()], [usize::from(agree); 2]);
        assert_eq!(net.ends[0].room.can_seal(net.now, LINK), agree);
        net.ends.iter().for_each(End::tidy);
    }
}

#[test]
fn same_seeds_give_the_same_bytes() {
    let run = || {
        let mut net = Net::new([Settings::default(), Settings::default()], [true, true]);
        net.run(ms(500));
        net.chat(ms(500), ms(20));
        net.sent.into_iter().map(|flight| flight.bytes).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_link_that_is_removed_is_gone_at_both_ends_when_keys_run_out() {
    let mut net = Net::pair();
    net.run(ms(100));
    assert!(net.works());
    let late = net.seal(1, b"late").expect("has keys");
    net.ends[0].room.remove_peer(LINK);
    assert_eq!(net.ends[0].room.indices.len(), 0);
    assert_eq!(net.deliver(0, late.from, &late.bytes), Received::Dropped(DropReason::NoKeys));
    assert!(!net.ends[0].room.can_seal(net.now, LINK));
    assert_eq!((net.ends[0].room.remote(LINK), net.ends[0].room.poll_timeout()), (None, None));
    net.ends[0].room.remove_peer(LINK);
    net.ends[0].room.remove_peer(LinkId(999));
    let before = net.sent_by(0, KIND_RESPONSE).len();
    net.run(ms(200_000));
    assert_eq!(net.sent_by(0, KIND_RESPONSE).len(), before, "not a member any more: silence");
    assert_eq!(net.ends[1].count(|event| matches!(event, Event::Expired { .. })), 1);
}

#[test]
fn two_links_to_one_peer_are_told_apart_by_address() {
    let (a, b) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
    let epoch = WallTime::from_nanos(1);
    let mut rooms = [
        Security::new(a.clone(), Settings::default(), epoch, Rng::from_u64(1)),
        Security::new(b.clone(), Settings::default(), epoch, Rng::from_u64(2)),
    ];
    let address = |end: u8, path: u8| SocketAddr::from(([10, path, 0, end], 1));
    for path in 0..2 {
        let link = LinkId(path.into());
        rooms[0].add_peer(Instant::ZERO, link, b.public(), None, &[address(1, path).into()]);
        rooms[1].add_peer(Instant::ZERO, link, a.public(), None, &[address(0, path).into()]);
        // Only the first asks.
        rooms[1].peers[link.index()].as_mut().expect("added").retry_at = None;
    }
    rooms[0].handle_timeout(Instant::ZERO);
    let mut slot = [0; 2048];
    while let Some((link, to, len)) = rooms[0].poll_transmit(Instant::ZERO, &mut slot) {
        assert_eq!(len, INITIATION_LEN);
        let path = link.expect("initiations belong to links").0 as u8;
        assert_eq!(to.remote, address(1, path));
        let got = rooms[1].handle_datagram(Instant::ZERO, address(0, path).into(), &mut slot[..len]);
        assert_eq!(got, Received::Handshake);
    }
    while let Some((_, to, len)) = rooms[1].poll_transmit(Instant::ZERO, &mut slot) {
        assert_eq!(len, RESPONSE_LEN);
        let path = if to.remote == address(0, 0) { 0 } else { 1 };
        assert_eq!(to.remote, address(0, path));
        rooms[0].handle_datagram(Instant::ZERO, address(1, path).into(), &mut slot[..len]);
        let event = rooms[0].poll_event();
        assert_eq!(event.map(Event::link), Some(LinkId(path.into())));
    }
}
