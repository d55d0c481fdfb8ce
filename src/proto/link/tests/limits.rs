//! Bounds, path MTU, bad input, and repeatability.

use super::*;

#[test]
fn the_path_mtu_is_found_and_small_messages_are_bundled() {
    let mut sim = Sim::pair(80, Settings::default(), Wire { max_datagram: 1400, ..Wire::new(10) });
    sim.establish();
    sim.run_for(Duration::from_secs(5));
    let pmtu = sim.ends[0].link.pmtu();
    assert!((1384..=1400).contains(&pmtu), "{pmtu}");
    let before = sim.ends[0].link.stats();
    assert_eq!(before.window, 10 * pmtu as u64, "lost probes are no congestion");
    // A slow path: messages wait for the window, and leave together.
    sim.wires[0].rate = Some((2_000_000, 20_000));
    sim.flow(0, 7, RELIABLE, 60, 0.0, 2.0);
    sim.run_for(Duration::from_secs(3));
    let stats = sim.ends[0].link.stats();
    let per_packet = stats.reliable.sent as f64 / (stats.packets_out - before.packets_out) as f64;
    println!("{per_packet:.1} messages of 60 bytes per packet, path MTU {pmtu}");
    assert!(per_packet > 10.0, "{per_packet}");
    sim.assert_exactly_once(1, 7, sim.flows[0].sent);
    // The path shrinks: noticed, and nothing is lost for good.
    sim.wires[0].max_datagram = 1300;
    sim.flow(0, 8, RELIABLE, 60, 0.0, 5.0);
    sim.run_for(Duration::from_secs(8));
    assert_eq!(sim.ends[0].link.stats().black_holes, 1);
    assert_eq!(sim.ends[0].link.pmtu(), MIN_DATAGRAM);
    sim.assert_exactly_once(1, 8, sim.flows[1].sent);
}

#[test]
fn reliable_is_refused_and_best_effort_dropped_when_the_queue_is_full() {
    let mut sim = Sim::pair(81, Settings { queue: 50, ..Settings::default() }, Wire::new(10));
    sim.establish();
    let taken = (0..1000).filter(|&id| sim.send(0, 7, RELIABLE, 1000, (7 << 32) | id)).count();
    assert!((50..=65).contains(&taken), "{taken}: the queue and the first window");
    assert!((0..100).all(|id| sim.send(0, 8, BEST_EFFORT, 1000, (8 << 32) | id)));
    assert!(sim.ends[0].link.stats().drops.get(DropReason::QueueFull) >= 99);
    assert!(sim.ends[0].link.queue_len() <= 50);
    sim.run_for(Duration::from_secs(1));
    sim.assert_exactly_once(1, 7, taken as u64);
    assert_eq!((sim.ends[0].pool.in_use(), sim.ends[1].pool.in_use()), (0, 0));
}

#[test]
fn control_messages_go_first_and_survive_loss() {
    let mut sim = Sim::pair(82, Settings::default(), lossy(10, 0.1));
    sim.establish();
    (0..300).for_each(|id| assert!(sim.send(0, 7, RELIABLE, 1000, (7 << 32) | id)));
    let now = sim.now;
    let end = &mut sim.ends[0];
    let taken = (0..400u32).filter(|n| end.link.send_control(now, &n.to_be_bytes(), &mut end.pool)).count();
    assert_eq!(taken, 256, "the bound");
    sim.run_for(ms(200));
    assert_eq!(sim.ends[1].control.len(), 256, "all control messages, long before the queue is empty");
    sim.run_for(Duration::from_secs(5));
    sim.assert_exactly_once(1, 7, 300);
    let mut control = sim.ends[1].control.clone();
    control.sort();
    control.dedup();
    assert_eq!(control.len(), 256);
}

#[test]
fn a_receiver_without_memory_gets_it_later() {
    let mut sim = Sim::pair(83, Settings::default(), Wire::new(10));
    sim.establish();
    let held: Vec<_> =
        std::iter::from_fn(|| sim.ends[1].pool.take(crate::containers::pool::Urgency::Reserved, 10)).collect();
    (0..20).for_each(|id| assert!(sim.send(0, 7, RELIABLE, 1000, (7 << 32) | id)));
    sim.run_for(ms(200));
    assert!(sim.ends[1].delivered.is_empty());
    assert!(sim.ends[1].link.stats().drops.get(DropReason::PoolExhausted) >= 20);
    held.into_iter().for_each(|packet| sim.ends[1].pool.release(packet));
    sim.run_for(Duration::from_secs(1));
    sim.assert_exactly_once(1, 7, 20);
}

#[test]
fn an_end_that_long_only_acknowledged_can_send() {
    let mut sim = Sim::pair(86, Settings::default(), Wire::new(1));
    sim.establish();
    sim.flow(0, 7, RELIABLE, 100, 2000.0, 20.0);
    sim.run_for(Duration::from_secs(20));
    assert!(sim.ends[1].link.stats().acks_out > crate::proto::link::sent::MAX_RECORDS as u64);
    assert!(sim.send(1, 8, RELIABLE, 100, 8 << 32));
    sim.run_for(ms(20));
    sim.assert_exactly_once(0, 8, 1);
}

#[test]
fn garbage_from_the_neighbour_is_counted_and_survived() {
    let mut sim = Sim::pair(84, Settings::default(), Wire::new(10));
    sim.establish();
    let mut rng = crate::base::Rng::from_u64(5);
    let mut bytes = [0u8; 200];
    for n in 0..20_000u64 {
        rng.fill(&mut bytes);
        bytes[0] = [2, 3, 4, 5, 6, 9][(n % 6) as usize];
        let len = rng.below(200) as usize;
        let now = sim.now;
        let end = &mut sim.ends[1];
        end.link.handle_packet(now, PATH, 1000 + n, len + 24, &bytes[..len], &mut end.pool);
        sim.drain_blind(1);
    }
    assert!(sim.ends[1].link.stats().drops.get(DropReason::Malformed) > 1000);
}

#[test]
fn what_a_link_holds_is_told_with_its_bounds() {
    let mut sim = Sim::pair(87, Settings { queue: 50, ..Settings::default() }, lossy(10, 0.1));
    sim.establish();
    (0..200).for_each(|id| _ = sim.send(0, 7, RELIABLE, 1000, (7 << 32) | id));
    let now = sim.now;
    let end = &mut sim.ends[0];
    (0..300u32).for_each(|n| _ = end.link.send_control(now, &n.to_be_bytes(), &mut end.pool));
    let held = |sim: &Sim, name| {
        let row = sim.ends[0].link.holdings().find(|row| row.0 == name);
        let (_, held, bound) = row.expect("a row of the table");
        (held, bound)
    };
    assert_eq!((held(&sim, "link queue"), held(&sim, "control messages")), ((50, 50), (256, 256)));
    let (span, sent) = (held(&sim, "unacknowledged span"), held(&sim, "sent packets"));
    assert!(span.0 > 0 && span.1 == 4096 && sent.0 > 0 && sent.1 == 8192, "{span:?} {sent:?}");
    for _ in 0..300 {
        sim.run_for(ms(10));
        for (name, held, bound) in sim.ends.iter().flat_map(|end| end.link.holdings()) {
            assert!(held <= bound, "{name}: {held} of {bound}");
        }
    }
    assert_eq!((held(&sim, "link queue").0, held(&sim, "unacknowledged span").0), (0, 0));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let wire = Wire { jitter: ms(3), duplication: 0.01, ..lossy(10, 0.05) };
        let mut sim = Sim::pair(85, Settings::default(), wire);
        sim.establish();
        sim.flow(0, 7, RELIABLE, 700, 300.0, 5.0);
        sim.flow(0, 8, BEST_EFFORT, 700, 300.0, 5.0);
        sim.run_for(Duration::from_secs(6));
        (format!("{:?}", sim.ends[0].link.stats()), sim.ends[1].delivered.clone())
    };
    assert_eq!(run(), run());
}
