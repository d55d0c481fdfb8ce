//! Change of keys while packets flow, and what happens when it fails.

use super::*;

#[test]
fn keys_change_by_time_under_traffic_without_loss() {
    for knows in [[true, false], [true, true]] {
        let mut net = Net::new([Settings::default(), Settings::default()], knows);
        net.run(ms(100));
        let sent = net.chat(ms(700_000), ms(100));
        net.run(ms(100));
        assert_eq!(sent, [7000; 2]);
        assert_eq!([net.heard(1), net.heard(0)], sent);
        for end in 0..2 {
            assert_eq!(net.ends[end].fresh(), 1);
            // 700 s at 115.2 to 124.8 s each.
            assert!((5..=6).contains(&net.ends[end].rekeys()), "{}", net.ends[end].rekeys());
            assert_eq!(net.ends[end].number, 7001 + net.ends[end].rekeys() as u64, "numbers run on");
            net.ends[end].tidy();
        }
        let asked = net.sent_by(0, KIND_INITIATION).len() + net.sent_by(1, KIND_INITIATION).len();
        assert!(asked <= net.ends[0].rekeys() + 2, "one end asks, the other only if it must: {asked}");
    }
}

#[test]
fn keys_change_under_reordering_and_loss_of_handshakes_without_loss_of_packets() {
    for seed in 0..10 {
        let quick = Settings {
            rekey_after: Duration::from_secs(3),
            reject_after: Duration::from_secs(30),
            ..Settings::default()
        };
        let mut net = Net::new([quick.clone(), quick], [true, true]);
        let mut rng = Rng::from_u64(seed);
        net.script = Box::new(move |flight| {
            if flight.bytes[0] == KIND_SEALED {
                Fate::Delay(rng.jitter(ms(150), 1.0))
            } else if rng.chance(0.3) {
                Fate::Lose
            } else {
                Fate::Delay(rng.jitter(ms(100), 1.0))
            }
        });
        net.run(ms(20_000));
        let sent = net.chat(ms(40_000), ms(10));
        net.run(ms(1000));
        assert_eq!(sent, [4000; 2], "seed {seed}");
        assert_eq!([net.heard(1), net.heard(0)], sent, "seed {seed}");
        assert_eq!([net.ends[0].fresh(), net.ends[1].fresh()], [1, 1]);
        net.script = Box::new(|_| Fate::Pass);
        net.chat(ms(5000), ms(100));
        assert!(
            net.agreed() || net.ends.iter().any(|end| end.room.peer(LINK).is_some_and(|peer| peer.pending.is_some()))
        );
        assert!(net.ends[0].rekeys() >= 8, "seed {seed}: {}", net.ends[0].rekeys());
    }
}

#[test]
fn keys_change_by_count() {
    for busy in 0..2 {
        let settings = Settings { rekey_after_packets: 1000, ..Settings::default() };
        let mut net = Net::new([settings.clone(), settings], [true, false]);
        net.run(ms(100));
        for n in 0..10_000u64 {
            assert!(net.send(busy, &n.to_be_bytes()));
            net.run(ms(2));
            if n % 50 == 0 {
                net.send(1 - busy, b"alive");
            }
        }
        net.run(ms(100));
        assert_eq!(net.heard(1 - busy), 10_000);
        assert!((8..=10).contains(&net.ends[busy].rekeys()), "{}", net.ends[busy].rekeys());
    }
}

#[test]
fn a_tiny_count_does_not_outrun_the_path() {
    // Handshakes as slow as packets, and overtaking them.
    for lag in [0, 300] {
        let settings = Settings { rekey_after_packets: 1, ..Settings::default() };
        let mut net = Net::new([settings.clone(), settings], [true, true]);
        net.script = Box::new(move |flight| match flight.bytes[0] {
            KIND_SEALED => Fate::Delay(ms(lag)),
            _ => Fate::Pass,
        });
        net.run(ms(1000));
        let sent = net.chat(ms(10_000), ms(3));
        net.run(ms(500));
        assert_eq!([net.heard(1), net.heard(0)], sent, "lag {lag}");
        assert!(net.ends[0].rekeys() > 10, "lag {lag}: {}", net.ends[0].rekeys());
    }
}

#[test]
fn packets_under_previous_keys_still_open() {
    let mut net = Net::pair();
    net.run(ms(100));
    let late = [net.seal(0, b"late").expect("keys"), net.seal(1, b"late").expect("keys")];
    net.chat(ms(130_000), ms(100));
    assert_eq!((net.ends[0].rekeys(), net.ends[1].rekeys()), (1, 1));
    for (end, flight) in late.iter().enumerate() {
        let got = net.deliver(1 - end, flight.from, &flight.bytes);
        assert!(matches!(got, Received::Packet { number: 1, .. }), "{got:?}");
        assert_eq!(net.deliver(1 - end, flight.from, &flight.bytes), Received::Dropped(DropReason::Replayed));
    }
}

#[test]
fn the_other_end_asks_if_the_first_does_not() {
    let mut net = Net::pair();
    net.run(ms(100));
    let asker = net.ends[0].address;
    net.script =
        Box::new(
            move |flight| {
                if flight.bytes[0] == KIND_INITIATION && flight.from == asker { Fate::Lose } else { Fate::Pass }
            },
        );
    let sent = net.chat(ms(160_000), ms(100));
    net.run(ms(100));
    assert_eq!([net.heard(1), net.heard(0)], sent);
    assert_eq!((net.ends[0].rekeys(), net.ends[1].rekeys()), (1, 1));
    assert_eq!(net.sent_by(1, KIND_INITIATION).len(), 1);
}

#[test]
fn keys_run_out_when_they_cannot_be_changed_and_come_back() {
    let mut net = Net::pair();
    net.run(ms(100));
    net.script = Box::new(|flight| if flight.bytes[0] == KIND_SEALED { Fate::Pass } else { Fate::Lose });
    net.chat(ms(179_000), ms(100));
    assert!(net.ends.iter().all(|end| end.room.can_seal(net.now, LINK)));
    let late = net.seal(0, b"late").expect("keys");
    net.chat(ms(2000), ms(100));
    for end in 0..2 {
        assert!(!net.ends[end].room.can_seal(net.now, LINK));
        assert_eq!(net.ends[end].count(|event| matches!(event, Event::Expired { link: LINK })), 1);
        assert_eq!(net.ends[end].room.stats().expired, 1);
    }
    assert_eq!(net.deliver(1, late.from, &late.bytes), Received::Dropped(DropReason::NoKeys));
    net.script = Box::new(|_| Fate::Pass);
    net.run(ms(3000));
    assert!(net.works());
    assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (1, 1), "the same lives go on");
    let number = net.ends[1].opened.last().expect("heard").0;
    assert!(number > 1800, "and so do their numbers: {number}");
}

#[test]
fn old_keys_are_refused_even_if_the_timer_is_late() {
    let mut net = Net::pair();
    net.run(ms(100));
    let flight = net.seal(0, b"old").expect("keys");
    net.now += ms(180_000);
    assert_eq!(net.deliver(1, flight.from, &flight.bytes), Received::Dropped(DropReason::NoKeys));
    assert!(net.seal(0, b"older").is_none());
}

#[test]
fn deadlines_say_what_they_are_for() {
    let mut net = Net::pair();
    let reason = |net: &Net, end: usize| net.ends[end].room.poll_timeout().map(|(_, reason)| reason);
    assert_eq!(reason(&net, 0), Some(Reason::HandshakeRetry));
    net.run(ms(100));
    assert_eq!([reason(&net, 0), reason(&net, 1)], [Some(Reason::Rekey); 2]);
    net.script = Box::new(|_| Fate::Lose);
    net.run(ms(179_900));
    let (at, _) = net.ends[0].room.poll_timeout().expect("keys will expire");
    assert!(at <= Instant::from_millis(180_020));
}
