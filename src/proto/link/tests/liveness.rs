//! Links come up, go down for the stated reasons in the stated times, and lose nothing doing so.

use super::*;

fn downs(sim: &Sim, end: usize) -> Vec<(Instant, DownReason)> {
    let down = |&(at, event)| if let Event::Down(reason) = event { Some((at, reason)) } else { None };
    sim.ends[end].events.iter().filter_map(down).collect()
}

#[test]
fn comes_up_in_two_round_trips_and_measures() {
    let mut sim = Sim::pair(60, Settings::default(), Wire::new(10));
    let start = sim.now;
    sim.establish();
    assert!(sim.now.since(start) <= ms(45), "{:?}", sim.now.since(start));
    sim.run_for(Duration::from_secs(2));
    let metrics = sim.ends[0].link.metrics();
    assert!(metrics.rtt >= ms(20) && metrics.rtt < ms(21) && metrics.loss_ppm == 0, "{metrics:?}");
    let measured = sim.ends[0].events.iter().filter(|(_, event)| matches!(event, Event::Measured(_))).count();
    assert!((4..=9).contains(&measured), "{measured} reports in two seconds");
    let hellos = sim.ends[0].link.stats().hellos_out;
    assert!((45..=65).contains(&hellos), "{hellos} hellos in two seconds");
}

#[test]
fn a_busy_link_says_hello_rarely() {
    let mut sim = Sim::pair(61, Settings::default(), Wire::new(10));
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 62.5, 10.0);
    sim.run_for(Duration::from_secs(10));
    assert!(sim.ends[0].link.stats().hellos_out < 80);
    assert!(sim.ends[1].link.stats().hellos_out < 80);
}

#[test]
fn a_cut_is_known_within_300_ms() {
    for (seed, busy) in [(62, false), (63, true)] {
        let mut sim = Sim::pair(seed, Settings::default(), Wire::new(10));
        sim.establish();
        if busy {
            sim.flow(0, 7, RELIABLE, 1000, 62.5, 5.0);
        }
        sim.run_for(Duration::from_secs(1));
        (sim.wires[0].cut, sim.wires[1].cut) = (true, true);
        let cut = sim.now;
        sim.run_for(ms(400));
        for end in 0..2 {
            let [(at, DownReason::Silence)] = downs(&sim, end)[..] else { panic!("{:?}", downs(&sim, end)) };
            println!("cut known at end {end} after {:?}", at.since(cut));
            assert!(at.since(cut) <= ms(300) && at.since(cut) >= ms(200));
        }
        (sim.wires[0].cut, sim.wires[1].cut) = (false, false);
        sim.run_for(ms(200));
        assert!(sim.ends.iter().all(|end| end.link.is_up()), "up again");
    }
}

#[test]
fn a_link_that_is_deaf_on_one_side_is_down_on_both() {
    let mut sim = Sim::pair(64, Settings::default(), Wire::new(10));
    sim.establish();
    sim.run_for(ms(500));
    sim.wires[0].cut = true;
    sim.run_for(ms(350));
    assert!(sim.ends.iter().all(|end| !end.link.is_up()));
    sim.run_for(Duration::from_secs(1));
    assert_eq!((downs(&sim, 0).len(), downs(&sim, 1).len()), (1, 1), "and stays so");
}

#[test]
fn thirty_percent_loss_is_not_death() {
    let mut sim = Sim::pair(65, Settings::default(), lossy(10, 0.3));
    sim.establish();
    sim.run_for(Duration::from_secs(60));
    // Seven hellos lost in a row: about one in five thousand.
    assert!(downs(&sim, 0).len() + downs(&sim, 1).len() <= 4);
    let ppm = sim.ends[0].link.metrics().loss_ppm;
    assert!((150_000..450_000).contains(&ppm), "{ppm}");
}

#[test]
fn refusals_are_checked_before_they_are_believed() {
    let mut sim = Sim::pair(66, Settings::default(), Wire::new(10));
    sim.establish();
    sim.run_for(ms(500));
    for _ in 0..10 {
        let now = sim.now;
        sim.ends[0].link.handle_refused(now, PATH);
        sim.drain(0);
        sim.run_for(ms(2));
    }
    sim.run_for(ms(100));
    assert!(downs(&sim, 0).is_empty(), "forged: the neighbour answers the probes");
    sim.wires[1].cut = true;
    let died = sim.now;
    for _ in 0..3 {
        let now = sim.now;
        sim.ends[0].link.handle_refused(now, PATH);
        sim.drain(0);
        sim.run_for(ms(2));
    }
    sim.run_for(ms(100));
    let [(at, DownReason::Refused)] = downs(&sim, 0)[..] else { panic!("{:?}", downs(&sim, 0)) };
    println!("refused known after {:?} at 20 ms round trip", at.since(died));
    assert!(at.since(died) <= ms(35));
}

#[test]
fn refusals_are_checked_also_where_packets_are_no_sign_of_life() {
    let mut sim = Sim::pair(66, Settings::default(), Wire::new(5));
    sim.establish();
    // The second path is never attached, so it is down; but there are several now, and hellos alone are signs of life.
    let other = crate::base::AddressPair { remote: "198.51.100.1:5300".parse().expect("an address"), ..PATH };
    for end in 0..2 {
        let now = sim.now;
        sim.ends[end].link.set_paths(now, &[PATH.into(), other.into()]);
    }
    sim.run_for(ms(500));
    for _ in 0..50 {
        let now = sim.now;
        sim.ends[0].link.handle_refused(now, PATH);
        sim.drain(0);
        sim.run_for(ms(7));
    }
    assert!(downs(&sim, 0).is_empty(), "forged: the neighbour acknowledges the probes");
    assert!(sim.ends[0].link.is_up_by(PATH), "nor did the path");
}

#[test]
fn a_process_that_is_said_to_have_ended_is_down_within_a_round_trip_or_answers() {
    let mut sim = Sim::pair(71, Settings::default(), Wire::new(2));
    sim.establish();
    sim.run_for(ms(500));
    let now = sim.now;
    sim.ends[0].link.handle_ended(now);
    sim.drain(0);
    sim.run_for(ms(100));
    assert!(downs(&sim, 0).is_empty(), "it is not true: the neighbour acknowledges the probes");
    let now = sim.now;
    sim.ends[1].frozen = now + Duration::from_secs(10);
    sim.run_for(ms(20));
    let now = sim.now;
    sim.ends[0].link.handle_ended(now);
    sim.drain(0);
    sim.run_for(ms(30));
    let [(at, DownReason::Refused)] = downs(&sim, 0)[..] else { panic!("{:?}", downs(&sim, 0)) };
    assert!(at.since(now) < ms(15), "{:?}", at.since(now));
}

#[test]
fn a_process_that_slept_gives_its_neighbour_another_chance() {
    let mut sim = Sim::pair(67, Settings { dead: ms(120), ..Settings::default() }, Wire::new(1));
    sim.establish();
    sim.run_for(ms(500));
    // Everything stops, the neighbour too, as when a machine is suspended.
    let wake = sim.now + ms(1000);
    for end in &mut sim.ends {
        end.frozen = wake;
    }
    sim.run_for(Duration::from_secs(2));
    assert!(downs(&sim, 0).is_empty() && downs(&sim, 1).is_empty(), "{:?}", sim.ends[0].events);
}

#[test]
fn a_close_is_known_at_once_and_what_is_stranded_comes_back() {
    let mut sim = Sim::pair(68, Settings::default(), Wire::new(10));
    sim.establish();
    sim.run_for(ms(200));
    (0..40).for_each(|id| assert!(sim.send(0, 7, RELIABLE, 1000, (7 << 32) | id)));
    (0..20).for_each(|id| assert!(sim.send(0, 8, BEST_EFFORT, 1000, (8 << 32) | id)));
    let now = sim.now;
    {
        let end = &mut sim.ends[0];
        assert!(end.link.send_control(now, b"hello", &mut end.pool));
        assert!(!end.link.send_control(now, &[0; 4000], &mut end.pool));
    }
    sim.close(0);
    assert_eq!(downs(&sim, 0), [(now, DownReason::Closed)]);
    sim.run_for(ms(12));
    assert_eq!(downs(&sim, 1).iter().map(|down| down.1).collect::<Vec<_>>(), [DownReason::Closed]);
    sim.run_for(ms(100));
    let mut ids: Vec<u64> = sim.ends[0].stranded.iter().map(|bytes| id_of(bytes) & 0xffff).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<_>>(), "nothing was acknowledged yet: all come back, whole");
    assert!(sim.ends[0].stranded.iter().all(|bytes| bytes.len() == 1000));
    assert_eq!((sim.ends[0].pool.in_use(), sim.ends[1].pool.in_use()), (0, 0));
    let bytes = message(7, RELIABLE, 100, 0, now);
    assert!(!sim.ends[0].link.is_up() && !bytes.is_empty());
    assert!(!sim.send(0, 7, RELIABLE, 1000, 0), "a link that is down gives the message back");
}

#[test]
fn what_arrives_at_a_link_that_is_leaving_is_counted() {
    let mut sim = Sim::pair(69, Settings::default(), Wire::new(10));
    sim.establish();
    let now = sim.now;
    let dropped = |sim: &Sim| sim.ends[0].link.stats().drops.get(DropReason::LinkClosing);
    let arrives = |sim: &mut Sim, number| {
        let super::harness::End { link, pool, .. } = &mut sim.ends[0];
        link.handle_packet(now, PATH, number, 100, &[], pool);
    };
    arrives(&mut sim, 1 << 20);
    assert_eq!(dropped(&sim), 0);
    sim.ends[0].link.close(now, super::super::CloseReason::Shutdown);
    arrives(&mut sim, (1 << 20) + 1);
    assert_eq!(dropped(&sim), 1, "closing");
    sim.ends[0].link.detach(now);
    arrives(&mut sim, (1 << 20) + 2);
    assert_eq!(dropped(&sim), 2, "without keys");
}

#[test]
fn a_neighbour_that_restarts_is_started_with_anew() {
    let mut sim = Sim::pair(69, Settings::default(), Wire::new(10));
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 200.0, 1.0);
    sim.run_for(ms(500));
    let now = sim.now;
    // End 1 is another process now, with new keys; what is under way is for the old keys.
    let fresh = Sim::pair(70, Settings::default(), Wire::new(10));
    let end = fresh.ends.into_iter().nth(1).expect("two ends");
    sim.ends[1].link = end.link;
    sim.ends[1].pool = end.pool;
    sim.forget_datagrams();
    sim.ends[0].link.attach(now, PATH, true);
    sim.ends[1].link.attach(now, PATH, true);
    sim.drain(0);
    sim.drain(1);
    assert_eq!(downs(&sim, 0), [(now, DownReason::Restarted)]);
    sim.run_for(ms(50));
    assert!(sim.ends.iter().all(|end| end.link.is_up()));
    assert!(sim.send(0, 9, RELIABLE, 500, 9 << 32));
    sim.run_for(Duration::from_secs(1));
    sim.assert_exactly_once(1, 9, 1);
    assert!(!sim.ends[0].stranded.is_empty());
    assert_eq!((sim.ends[0].pool.in_use(), sim.ends[1].pool.in_use()), (0, 0));
}

#[test]
fn new_keys_change_nothing() {
    let mut sim = Sim::pair(71, Settings::default(), lossy(10, 0.05));
    sim.establish();
    sim.flow(0, 7, RELIABLE, 1000, 200.0, 2.0);
    for _ in 0..20 {
        sim.run_for(ms(100));
        let now = sim.now;
        sim.ends[0].link.attach(now, PATH, false);
        sim.ends[1].link.attach(now, PATH, false);
    }
    sim.run_for(Duration::from_secs(1));
    sim.assert_exactly_once(1, 7, sim.flows[0].sent);
    assert!(downs(&sim, 0).is_empty());
}

#[test]
fn without_keys_there_is_silence() {
    let mut sim = Sim::pair(72, Settings::default(), Wire::new(10));
    sim.establish();
    let now = sim.now;
    sim.ends[0].link.detach(now);
    sim.drain(0);
    let sent = sim.ends[0].link.stats().packets_out;
    sim.run_for(Duration::from_secs(1));
    assert_eq!(sim.ends[0].link.stats().packets_out, sent);
    assert_eq!(sim.ends[0].link.poll_timeout(), None);
}

#[test]
fn a_path_that_is_too_narrow_one_way_never_comes_up() {
    for end in 0..2 {
        let mut sim = Sim::pair(70 + end as u64, Settings::default(), Wire::new(10));
        sim.wires[end].max_datagram = MIN_DATAGRAM - 1;
        sim.run_for(Duration::from_secs(5));
        assert!(sim.ends.iter().all(|end| end.link.stats().ups == 0 && end.link.stats().hellos_in > 20));
        sim.wires[end] = Wire::new(10);
        sim.run_for(ms(200));
        assert!(sim.ends.iter().all(|end| end.link.is_up()), "as soon as it is wide");
    }
}

#[test]
fn a_path_that_becomes_too_narrow_goes_down_and_gives_back_what_it_held() {
    let settings = Settings { max_datagram: MIN_DATAGRAM, ..Settings::default() };
    let mut sim = Sim::pair(72, settings, Wire::new(10));
    sim.establish();
    sim.wires[0].max_datagram = 600;
    let sent = (0..40).filter(|&id| sim.send(0, 7, RELIABLE, 1000, (7 << 32) | id)).count() as u64;
    sim.run_for(Duration::from_secs(5));
    let stats = sim.ends[0].link.stats();
    println!("down {} times after {} probes", stats.downs, stats.probes);
    assert!(sim.ends.iter().all(|end| !end.link.is_up()));
    assert_eq!((stats.downs, sent), (1, 40));
    assert_eq!(sim.ends[0].stranded.len(), 40, "to be sent another way");
    sim.wires[0] = Wire::new(10);
    sim.run_for(ms(200));
    assert!(sim.ends.iter().all(|end| end.link.is_up()));
}
