//! Restarts and moves: lives of the ends, and their addresses.

use super::*;

const EPOCH: u64 = 1_700_000_000;

#[test]
fn either_end_restarts_and_both_begin_anew() {
    for who in 0..2 {
        for knows in [[true, true], [true, false], [false, true]] {
            let mut net = Net::new([Settings::default(), Settings::default()], knows);
            net.run(ms(600));
            net.chat(ms(5000), ms(50));
            let old = [net.seal(0, b"old").expect("keys"), net.seal(1, b"old").expect("keys")];
            net.restart(who, Settings::default(), 77, EPOCH + 60, knows[who]);
            // Traffic goes on at the other end, which may have to find out by silence.
            net.chat(ms(3000), ms(50));
            assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (2, 2), "{who} restarts, {knows:?}");
            assert!(net.works());
            let other = 1 - who;
            let first = net.ends[who].opened.iter().rposition(|&(number, _)| number == 0);
            assert!(first.is_some_and(|at| at > 0), "numbers of end {other} began at zero again");
            for (end, flight) in old.iter().enumerate() {
                let got = net.deliver(1 - end, flight.from, &flight.bytes);
                assert_eq!(got, Received::Dropped(DropReason::NoKeys), "nothing of an earlier life is accepted");
            }
            net.ends.iter().for_each(End::tidy);
        }
    }
}

#[test]
fn a_link_added_again_is_a_new_life() {
    let mut net = Net::pair();
    net.run(ms(100));
    for lives in 2..12 {
        net.join(0, None, true);
        net.run(ms(100));
        assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (lives, lives));
        assert!(net.works());
        net.ends.iter().for_each(End::tidy);
    }
}

#[test]
fn a_link_added_again_within_one_tick_of_the_clock_is_not_taken_for_a_replay() {
    let mut net = Net::pair();
    for _ in 0..3 {
        net.run(ms(0));
        net.join(0, None, true);
    }
    net.run(ms(40));
    assert_eq!(net.sent_by(0, KIND_INITIATION).len(), 4);
    assert_eq!(net.sent_by(1, KIND_RESPONSE).len(), 4);
    assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (1, 1));
    assert!(net.works());
}

#[test]
fn both_restart_at_once() {
    let mut net = Net::new([Settings::default(), Settings::default()], [true, true]);
    net.run(ms(600));
    net.restart(0, Settings::default(), 5, EPOCH + 9, true);
    net.restart(1, Settings::default(), 6, EPOCH + 9, true);
    net.run(ms(700));
    assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (2, 2));
    assert!(net.works());
}

#[test]
fn a_restart_with_the_clock_set_back_only_takes_the_other_ends_asking() {
    let mut net = Net::new([Settings::default(), Settings::default()], [true, true]);
    net.run(ms(600));
    net.restart(0, Settings::default(), 5, 1000, true);
    net.chat(ms(4000), ms(50));
    assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (2, 2));
    assert!(net.works());
    // From then on its own initiations count again.
    net.chat(ms(300_000), ms(500));
    assert!(net.ends[0].rekeys() >= 2 && net.works());
    assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (2, 2));
}

#[test]
fn a_restart_seeded_alike_still_makes_other_keys() {
    let mut net = Net::pair();
    net.run(ms(100));
    let before = net.sent_by(0, KIND_INITIATION);
    net.restart(0, Settings::default(), 1, EPOCH, true);
    net.run(ms(100));
    let after = net.sent_by(0, KIND_INITIATION).remove(before.len());
    assert_ne!(after.bytes[1..4], before[0].bytes[1..4], "another index");
    assert_ne!(after.bytes[4..36], before[0].bytes[4..36], "another ephemeral key");
    assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (2, 2));
}

#[test]
fn a_response_of_an_ended_life_cannot_bring_it_back() {
    // End 1 asks; end 0 answers and dies; its answer is late. End 0's next life asks and is established; then the
    // answer arrives.
    let mut net = Net::new([Settings::default(), Settings::default()], [false, true]);
    net.script = Box::new(|flight| if flight.bytes[0] == KIND_RESPONSE { Fate::Lose } else { Fate::Pass });
    // Long enough for the next life's initiation not to count as crossing the first end's.
    net.run(ms(150));
    let late = net.sent_by(0, KIND_RESPONSE).remove(0);
    net.script = Box::new(|_| Fate::Pass);
    net.restart(0, Settings::default(), 77, EPOCH + 1, true);
    net.run(ms(100));
    assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (1, 1));
    assert!(matches!(net.deliver(1, late.from, &late.bytes), Received::Dropped(_)));
    assert!(net.works());
    assert_eq!(net.ends[1].fresh(), 1);
}

#[test]
fn initiations_of_an_ended_life_replayed_after_a_restart_change_nothing() {
    for at_once in [true, false] {
        let mut net = Net::new([Settings::default(), Settings::default()], [true, true]);
        net.run(ms(600));
        net.chat(ms(130_000), ms(500));
        let recorded: Vec<_> = net.sent.iter().filter(|flight| flight.bytes[0] != KIND_SEALED).cloned().collect();
        assert!(recorded.len() >= 4);
        // End 1 restarts and does not remember whom it heard when: it may answer, but nobody can use the keys.
        net.restart(1, Settings::default(), 77, EPOCH + 1000, true);
        let attacker = SocketAddr::from(([198, 51, 100, 66], 666));
        net.script = Box::new(|_| Fate::Lose);
        for flight in recorded.iter().filter(|_| at_once) {
            net.deliver(1, attacker, &flight.bytes);
        }
        assert_eq!(net.ends[1].fresh(), 1, "only its own life before");
        assert!(!net.ends[1].room.can_seal(net.now, LINK));
        assert_eq!(net.ends[1].room.remote(LINK), Some(net.ends[0].address.into()), "nobody is believed to have moved");
        net.script = Box::new(|_| Fate::Pass);
        net.chat(ms(3000), ms(100));
        assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (2, 2));
        // Now everything recorded is old for both, whoever asked.
        for flight in &recorded {
            for end in 0..2 {
                assert!(matches!(net.deliver(end, attacker, &flight.bytes), Received::Dropped(_)));
            }
        }
        assert!(net.works());
        assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (2, 2));
    }
}

#[test]
fn of_two_processes_with_one_identity_the_later_stays() {
    let mut net = Net::pair();
    net.run(ms(100));
    let packet = net.seal(0, b"from the first").expect("keys");
    let identity = net.ends[0].identity.clone();
    let second = Security::new(identity, Settings::default(), WallTime::from_nanos(EPOCH), Rng::from_u64(5));
    let mut first = std::mem::replace(&mut net.ends[0].room, second);
    net.join(0, None, true);
    // Its clock is behind, so the other end must ask.
    net.chat(ms(131_000), ms(500));
    assert_eq!(net.ends[1].fresh(), 2);
    // The first process still lives, and asks for new keys when its own are old.
    first.handle_timeout(net.now);
    let mut slot = [0; 2048];
    let (_, _, len) = first.poll_transmit(net.now, &mut slot).expect("rekey time came");
    assert_eq!(slot[0], KIND_INITIATION);
    for bytes in [&packet.bytes[..], &slot[..len]] {
        assert!(matches!(net.deliver(1, packet.from, bytes), Received::Dropped(_)));
    }
    // Nor is its answer welcome when the other end asks and the second process is slow.
    net.script = Box::new(|_| Fate::Lose);
    let asked = net.sent_by(1, KIND_INITIATION).len();
    net.chat(ms(2000), ms(100));
    let mut question = net.sent_by(1, KIND_INITIATION).pop().expect("silence makes it ask");
    assert!(net.sent_by(1, KIND_INITIATION).len() > asked);
    assert_eq!(first.handle_datagram(net.now, question.from.into(), &mut question.bytes), Received::Handshake);
    let (_, _, len) = first.poll_transmit(net.now, &mut slot).expect("answers");
    assert_eq!(net.deliver(1, packet.from, &slot[..len]), Received::Dropped(DropReason::HandshakeRefused));
    net.script = Box::new(|_| Fate::Pass);
    net.chat(ms(3000), ms(100));
    assert!(net.works());
    assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (2, 2));
}

#[test]
fn the_newest_packet_decides_where_the_other_end_is() {
    let mut net = Net::pair();
    net.run(ms(100));
    let old = net.seal(0, b"older").expect("keys");
    let (home, away) = (net.ends[0].address, SocketAddr::from(([203, 0, 113, 5], 5)));
    net.ends[0].address = away;
    net.send(0, b"from away");
    net.run(ms(11));
    assert_eq!(net.ends[1].room.remote(LINK), Some(away.into()));
    // An older packet from the old address is welcome, but does not move the other end back.
    assert!(matches!(net.deliver(1, home, &old.bytes), Received::Packet { .. }));
    assert_eq!(net.ends[1].room.remote(LINK), Some(away.into()));
    // What is not authentic moves nobody.
    let mut forged = net.seal(0, b"forged").expect("keys");
    *forged.bytes.last_mut().expect("not empty") ^= 1;
    net.deliver(1, home, &forged.bytes);
    assert_eq!(net.ends[1].room.remote(LINK), Some(away.into()));
    assert_eq!(net.ends[1].room.stats().moved, 1);
    assert!(net.works());
}

#[test]
fn a_move_seen_first_by_a_change_of_keys_is_told() {
    let mut net = Net::pair();
    net.run(ms(100));
    net.chat(ms(110_000), ms(500));
    let away = SocketAddr::from(([203, 0, 113, 5], 5));
    net.ends[0].address = away;
    // Nobody sends, except the handshake.
    net.run(ms(20_000));
    assert_eq!((net.ends[1].room.remote(LINK), net.ends[1].room.stats().moved), (Some(away.into()), 1));
    assert!(net.works());
}

/// Any sequence of lives, moves, losses and waits ends in a working link once the network is kind again, with the two
/// ends agreeing on how their lives began.
#[test]
fn whatever_happened_a_kind_network_heals_it() {
    for seed in 0..16 {
        let mut rng = Rng::from_u64(seed);
        let mut net = Net::new([Settings::default(), Settings::default()], [true, seed % 3 != 0]);
        let mut wire = rng.fork();
        net.script = Box::new(move |_| match wire.below(10) {
            0..3 => Fate::Lose,
            3..6 => Fate::Delay(wire.jitter(ms(300), 1.0)),
            _ => Fate::Pass,
        });
        for step in 0..30 {
            match rng.below(6) {
                0 => {
                    let end = rng.below(2) as usize;
                    net.restart(end, Settings::default(), rng.next_u64(), EPOCH + step, end == 0 || seed % 3 != 0);
                }
                1 => net.join(0, None, true),
                2 => drop(net.chat(ms(2000), ms(20))),
                3 => drop(net.chat(ms(140_000), ms(2000))),
                4 => {
                    // A recorded datagram comes again.
                    if let Some(at) = net.sent.len().checked_sub(1) {
                        let flight = net.sent[rng.below(at as u64 + 1) as usize].clone();
                        net.inject(flight, rng.jitter(ms(500), 1.0));
                    }
                }
                _ => net.run(ms(700)),
            }
        }
        net.script = Box::new(|_| Fate::Pass);
        net.chat(ms(6000), ms(100));
        assert!(net.works(), "seed {seed}");
        net.run(ms(1000));
        let sent = net.chat(ms(5000), ms(100));
        net.run(ms(1000));
        assert_eq!(sent, [50, 50], "seed {seed}");
        assert!(net.agreed(), "seed {seed}");
        net.ends.iter().for_each(End::tidy);
    }
}

#[test]
fn a_clock_set_back_locks_nobody_out_who_was_heard_and_never_answered() {
    // Only end 0 knows where the other is. Its first life is heard, and ends before an answer arrives.
    for who in 0..2 {
        let knows = [who == 0, who == 1];
        let mut net = Net::new([Settings::default(), Settings::default()], knows);
        net.script = Box::new(|flight| if flight.bytes[0] == KIND_RESPONSE { Fate::Lose } else { Fate::Pass });
        net.run(ms(600));
        assert_eq!(net.ends[1 - who].room.remote(LINK), None);
        net.script = Box::new(|_| Fate::Pass);
        net.restart(who, Settings::default(), 5, 1000, true);
        net.chat(ms(5000), ms(50));
        assert_eq!((net.ends[0].fresh(), net.ends[1].fresh()), (1, 1), "{who}");
        assert!(net.works());
    }
}

#[test]
fn a_replay_makes_an_end_ask_once_where_it_came_from_and_only_without_keys() {
    let mut net = Net::new([Settings::default(), Settings::default()], [true, false]);
    net.script = Box::new(|flight| if flight.bytes[0] == KIND_RESPONSE { Fate::Lose } else { Fate::Pass });
    net.run(ms(100));
    let recorded = net.sent_by(0, KIND_INITIATION).remove(0);
    net.script = Box::new(|_| Fate::Lose);
    let attacker = SocketAddr::from(([198, 51, 100, 66], 666));
    for _ in 0..5 {
        net.deliver(1, attacker, &recorded.bytes);
    }
    net.run(ms(3000));
    let asked = net.sent_by(1, KIND_INITIATION);
    assert_eq!((asked.len(), asked.first().map(|flight| flight.to)), (1, Some(attacker)));
    assert_eq!(net.ends[1].room.remote(LINK), None, "nobody is believed to be there");
    net.script = Box::new(|_| Fate::Pass);
    net.chat(ms(3000), ms(50));
    assert!(net.works());
    net.deliver(1, attacker, &recorded.bytes);
    net.chat(ms(3000), ms(50));
    assert_eq!(net.sent_by(1, KIND_INITIATION).len(), 1, "who has keys asks nobody");
}

#[test]
fn a_relay_that_goes_away_with_both_ends_believing_in_it_is_forgotten() {
    let relay = SocketAddr::from(([198, 51, 100, 66], 666));
    let mut net = Net::new([Settings::default(), Settings::default()], [true, true]);
    net.run(ms(600));
    for end in 0..2 {
        let flight = net.seal(end, b"moved").expect("keys");
        assert!(matches!(net.deliver(1 - end, relay, &flight.bytes), Received::Packet { .. }));
        assert_eq!(net.ends[1 - end].room.remote(LINK), Some(relay.into()));
    }
    net.run(ms(200_000));
    net.chat(ms(5_000), ms(50));
    assert!(net.works(), "they ask where the configuration says, too");
}
