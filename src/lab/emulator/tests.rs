//! The emulator on its own: frames classified, corrupted, carried, and dropped where there is no room.

use super::*;
use std::net::UdpSocket;

#[test]
fn corruption_changes_one_byte_of_a_udp_payload_and_nothing_else() {
    let mut frame = vec![0xaa; 100];
    frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    frame[23] = 17;
    for choice in 0..10_000u64 {
        let mut hurt = frame.clone();
        assert!(corrupt(&mut hurt, true, choice.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        assert_eq!((&hurt[..40], &hurt[40..42]), (&frame[..40], &[0, 0][..]), "the checksum is off");
        let changed = hurt[42..].iter().zip(&frame[42..]).filter(|(now, before)| now != before).count();
        assert_eq!(changed, 1);
    }
    frame[23] = 6;
    assert!(!corrupt(&mut frame, true, 7), "TCP is left alone");
    assert!(!corrupt(&mut [], false, 7));
}

#[test]
fn kinds_are_told_by_protocol_and_port() {
    let kinds = [
        Kind { name: "overlay".into(), protocol: 17, port: 7000, ports: 10 },
        Kind { name: "tcp".into(), protocol: 6, port: 5000, ports: 1 },
    ];
    let mut frame = vec![0u8; 60];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[23] = 17;
    frame[36..38].copy_from_slice(&7009u16.to_be_bytes());
    assert_eq!(classify(&frame, &kinds), 1);
    frame[23] = 6;
    assert_eq!(classify(&frame, &kinds), 0);
    frame[34..36].copy_from_slice(&5000u16.to_be_bytes());
    assert_eq!(classify(&frame, &kinds), 2);
    frame[12..14].copy_from_slice(&[8, 6]);
    assert_eq!((classify(&frame, &kinds), is_arp(&frame)), (0, true));
    assert_eq!(classify(&frame[..20], &kinds), 0);
}

/// A relay port and the router's socket at its other end.
fn relay() -> (Port, UdpSocket) {
    let bind = || UdpSocket::bind("127.0.0.1:0").expect("loopback binds");
    let (relay, router) = (bind(), bind());
    relay.connect(router.local_addr().expect("bound")).expect("connects");
    router.connect(relay.local_addr().expect("bound")).expect("connects");
    router.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout is accepted");
    (Port::Relay(relay.into()), router)
}

/// An engine between two relays, not running, that has room for so many frames; and its routers' sockets.
fn engine(most_in_flight: usize) -> (Engine, UdpSocket, UdpSocket) {
    let ((here, a), (there, b)) = (relay(), relay());
    let conditions = [Conditions::wire(1000.0, 0); 2];
    let shared = Shared {
        wanted: Mutex::new(conditions.to_vec()),
        generation: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        published: Mutex::default(),
    };
    let mut engine = Engine::new(vec![here, there], &conditions, vec![], 1, Arc::new(shared));
    engine.most_in_flight = most_in_flight;
    (engine, a, b)
}

#[test]
fn frames_beyond_what_may_be_in_flight_are_read_dropped_and_counted() {
    let (mut engine, a, _b) = engine(4);
    (0..10).for_each(|n| assert_eq!(a.send(&[n; 100]).expect("sends"), 100));
    engine.receive(0, Clocks::read());
    let counters = &engine.counters[0];
    assert_eq!((counters.frames, counters.queue_dropped, engine.heap.len()), (10, 6, 4));
    assert_eq!(counters.bytes, 10 * (100 + RELAY_OVERHEAD as u64));
    let mut nothing = [0; 8];
    assert!(receive(engine.ports[0].fd(), &mut nothing).is_none(), "nothing waits in the kernel");
}

#[test]
fn frames_that_the_kernel_dropped_unread_are_counted() {
    let (mut engine, a, _b) = engine(4);
    // Far more than a socket holds, and nobody reads.
    (0..20_000).for_each(|_| assert_eq!(a.send(&[0; 1000]).expect("sends"), 1000));
    engine.publish();
    let unread = engine.counters[0].unread;
    assert!(unread > 1000, "{unread} of 20000");
    let mut read = 0;
    while receive(engine.ports[0].fd(), &mut engine.scratch).is_some() {
        read += 1;
    }
    engine.next_publication = Instant::ZERO;
    engine.publish();
    assert_eq!((read + engine.counters[0].unread, engine.counters[0].unread), (20_000, unread));
    assert_eq!(lock(&engine.shared.published).counters[0].unread, unread);
}

#[test]
fn a_relayed_payload_crosses_in_its_delay_and_a_cut_stops_it() {
    let ((here, a), (there, b)) = (relay(), relay());
    let wire = Conditions::wire(20.0, 0);
    let emulator = Emulator::start(vec![here, there], vec![wire; 2], vec![], 1, None).expect("starts");
    let mut buffer = [0; 16];
    let before = clock::now();
    a.send(b"ping").expect("sends");
    assert_eq!(b.recv(&mut buffer).expect("arrives"), 4);
    let took = clock::now().since(before);
    assert!(took >= Duration::from_millis(20) && took < Duration::from_millis(500), "{took:?}");
    b.send(b"pong!").expect("sends");
    assert_eq!(a.recv(&mut buffer).expect("arrives"), 5);

    emulator.set(0, Conditions { cut: true, ..wire });
    std::thread::sleep(Duration::from_millis(50));
    a.send(b"ping").expect("sends");
    b.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout is accepted");
    assert!(b.recv(&mut buffer).is_err());
    let counters = emulator.counters(0);
    assert_eq!((counters.frames, counters.delivered, counters.cut), (2, 1, 1));
    assert_eq!(counters.bytes, 2 * (4 + RELAY_OVERHEAD as u64));
    assert_eq!(emulator.lateness().count, 2);
}
