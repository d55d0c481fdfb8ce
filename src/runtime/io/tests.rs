//! Every behaviour of a backend, for both of them, over loopback.

use super::*;
use crate::containers::batch::Transmit;
use crate::runtime::{sys, udp};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};

const BUFFER: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// What a backend told, copied.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Datagram(SocketAddr, Vec<u8>),
    Arrived(Option<LinkId>, usize),
    Dropped(DropReason),
    Refused(LinkId),
    Unreachable(SocketAddr, i32),
    SendFailed(Option<LinkId>, i32),
    Readable(SessionId),
    Writable(SessionId),
    HungUp(SessionId),
}

struct Bench {
    backend: Box<dyn Backend>,
    bell: Arc<Doorbell>,
    address: SocketAddr,
    trains: bool,
    told: Vec<Told>,
}

fn copy(event: Event<'_>) -> Told {
    match event {
        Event::Datagram { from, bytes } => Told::Datagram(from.remote, bytes.to_vec()),
        Event::Arrived { link, datagrams, .. } => Told::Arrived(link, datagrams),
        Event::Dropped(reason) => Told::Dropped(reason),
        Event::Refused(link, _) => Told::Refused(link),
        Event::Unreachable { to, errno } => Told::Unreachable(to, errno),
        Event::SendFailed { link, errno, .. } => Told::SendFailed(link, errno),
        Event::Readable(session) => Told::Readable(session),
        Event::Writable(session) => Told::Writable(session),
        Event::HungUp(session) => Told::HungUp(session),
    }
}

impl Bench {
    fn new(uring: bool, trains: bool, listen: &str) -> Bench {
        Bench::with(uring, trains, false, listen)
    }

    fn with(uring: bool, trains: bool, stamps: bool, listen: &str) -> Bench {
        let listen = udp::listen(listen.parse().expect("an address"), BUFFER).expect("binds");
        let address = listen.local_addr().expect("is bound");
        let bell = Arc::new(Doorbell::new().expect("eventfd"));
        let parts = Parts { listen, buffer: BUFFER, stock: 1, trains, stamps, bell: Arc::clone(&bell) };
        let backend: Box<dyn Backend> = if uring {
            Box::new(uring::Uring::new(parts).expect("a ring"))
        } else {
            Box::new(mmsg::Mmsg::new(parts).expect("epoll"))
        };
        Bench { backend, bell, address, trains, told: Vec::new() }
    }

    fn poll(&mut self) -> usize {
        let Bench { backend, told, .. } = self;
        backend.poll(&mut |event| told.push(copy(event)))
    }

    /// Polls and waits until `done` of what was told, which is handed out.
    fn until(&mut self, mut done: impl FnMut(&[Told]) -> bool) -> Vec<Told> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            self.poll();
            if done(&self.told) {
                return std::mem::take(&mut self.told);
            }
            assert!(std::time::Instant::now() < deadline, "only {:?} within {PATIENCE:?}", self.told);
            self.backend.wait(Some(Duration::from_millis(50)));
        }
    }

    fn send(&mut self, now: Instant, datagrams: &[(Option<u16>, SocketAddr, &[u8])]) {
        self.send_by(now, true, datagrams);
    }

    /// Sends by paths that are up, or are not.
    fn send_by(&mut self, now: Instant, up: bool, datagrams: &[(Option<u16>, SocketAddr, &[u8])]) {
        let mut batch = Batch::new(BATCH);
        for (link, to, bytes) in datagrams {
            batch.push_with(|slot| {
                slot[..bytes.len()].copy_from_slice(bytes);
                Some(Transmit { link: link.map(LinkId), to: (*to).into(), up, len: bytes.len() })
            });
        }
        let Bench { backend, told, .. } = self;
        backend.send(now, &batch, &mut |event| told.push(copy(event)));
    }
}

/// Runs a test with each backend, without trains and with them; a machine without io_uring says so.
fn with_each(listen: &str, test: impl Fn(Bench)) {
    let both = |uring| [false, true].into_iter().for_each(|trains| test(Bench::new(uring, trains, listen)));
    both(false);
    match uring::self_test() {
        Ok(_) => both(true),
        Err(why) => crate::runtime::not_run::count(&format!("a test of both backends with io_uring: {why}")),
    }
}

/// Runs a test with trains alone.
fn with_trains(test: impl Fn(Bench)) {
    with_each("127.0.0.1:0", |bench| {
        if bench.trains {
            test(bench);
        }
    });
}

fn peer(like: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((like.ip(), 0)).expect("binds");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn payloads(told: &[Told]) -> Vec<Vec<u8>> {
    let bytes =
        told.iter().filter_map(|told| if let Told::Datagram(_, bytes) = told { Some(bytes.clone()) } else { None });
    bytes.collect()
}

#[test]
fn a_batch_to_links_and_strangers_arrives_whole_and_in_order() {
    with_each("127.0.0.1:0", |mut bench| {
        let peers = [peer(bench.address), peer(bench.address), peer(bench.address)];
        let to: Vec<SocketAddr> = peers.iter().map(|peer| peer.local_addr().expect("bound")).collect();
        let bytes: Vec<Vec<u8>> = (0..BATCH).map(|n| vec![n as u8; 100 + n]).collect();
        let batch: Vec<_> = (0..BATCH).map(|n| ([Some(0), Some(1), None][n % 3], to[n % 3], &bytes[n][..])).collect();
        bench.send(Instant::ZERO, &batch);
        assert_eq!(bench.told, []);
        for (which, peer) in peers.iter().enumerate() {
            for expected in (which..BATCH).step_by(3) {
                let mut buffer = [0; 2048];
                let (len, from) = peer.recv_from(&mut buffer).expect("receives");
                assert_eq!(from, bench.address, "connected sockets share the port");
                assert_eq!(buffer[..len], bytes[expected]);
            }
        }
    });
}

#[test]
fn datagrams_come_in_with_their_source_through_both_kinds_of_sockets() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        with_each(listen, |mut bench| {
            let (neighbour, stranger) = (peer(bench.address), peer(bench.address));
            let remote = neighbour.local_addr().expect("bound");
            bench.send(Instant::ZERO, &[(Some(3), remote, b"open")]);
            neighbour.send_to(b"from the neighbour", bench.address).expect("sends");
            stranger.send_to(b"from a stranger", bench.address).expect("sends");
            let told = bench.until(|told| told.len() == 2);
            assert!(told.contains(&Told::Datagram(remote, b"from the neighbour".to_vec())), "{told:?}");
            let stranger = stranger.local_addr().expect("bound");
            assert!(told.contains(&Told::Datagram(stranger, b"from a stranger".to_vec())), "{told:?}");
        });
    }
}

#[test]
fn empty_and_oversized_datagrams_end_nothing() {
    with_each("127.0.0.1:0", |mut bench| {
        let neighbour = peer(bench.address);
        let remote = neighbour.local_addr().expect("bound");
        bench.send(Instant::ZERO, &[(Some(3), remote, b"open")]);
        for from in [&neighbour, &peer(bench.address)] {
            for bytes in [&[][..], &[1; 5000], &[], b"after"] {
                from.send_to(bytes, bench.address).expect("sends");
            }
            let told = bench.until(|told| payloads(told).contains(&b"after".to_vec()));
            assert!(payloads(&told).iter().all(|bytes| bytes.len() <= crate::base::limits::DATAGRAM_SLOT));
        }
    });
}

#[test]
fn a_pass_is_bounded_and_nothing_is_lost_beyond_it() {
    with_each("127.0.0.1:0", |mut bench| {
        let sender = peer(bench.address);
        // Fits the receive buffer; more than a pass takes.
        const COUNT: u32 = 600;
        for n in 0..COUNT {
            sender.send_to(&n.to_be_bytes(), bench.address).expect("sends");
        }
        let mut got = BTreeSet::new();
        let mut passes = 0;
        while got.len() < COUNT as usize {
            bench.backend.wait(Some(PATIENCE));
            let count = bench.poll();
            passes += 1;
            assert!(count <= PASS, "a pass of {count}");
            assert!(passes < 10_000, "{} of {COUNT}", got.len());
            got.extend(payloads(&std::mem::take(&mut bench.told)));
        }
        assert!(passes > 2, "in {passes} passes");
    });
}

/// A ring lends the kernel a fixed number of buffers. Here the worker sends without end and takes nothing in between, until
/// every buffer is full.
#[test]
fn receives_go_on_after_every_buffer_was_lent_out() {
    with_each("127.0.0.1:0", |mut bench| {
        let sink = peer(bench.address);
        let nowhere = sink.local_addr().expect("bound");
        let sender = peer(bench.address);
        for round in 0..3u32 {
            for n in 0..1500u32 {
                sender.send_to(&(round * 1500 + n).to_be_bytes(), bench.address).expect("sends");
                bench.send(Instant::ZERO, &[(None, nowhere, b"busy")]);
            }
            let mut got = BTreeSet::new();
            while got.len() < 1500 {
                got.extend(payloads(&bench.until(|told| !told.is_empty())));
            }
        }
        if bench.backend.name() == "uring" {
            assert!(bench.backend.counters().starved >= 3, "{:?}", bench.backend.counters());
        }
        assert_eq!(bench.backend.counters().receive_errors, 0);
    });
}

#[test]
fn a_neighbour_that_is_gone_is_refused_and_comes_back() {
    with_each("127.0.0.1:0", |mut bench| {
        let neighbour = peer(bench.address);
        let remote = neighbour.local_addr().expect("bound");
        drop(neighbour);
        bench.send(Instant::ZERO, &[(Some(7), remote, b"anyone?")]);
        let told = bench.until(|told| !told.is_empty());
        assert_eq!(told, [Told::Refused(LinkId(7))]);
        // Both a pending refusal and the datagram behind it: reported once more at most, and sent.
        bench.send(Instant::ZERO, &[(Some(7), remote, b"anyone?")]);
        let neighbour = UdpSocket::bind(remote).expect("binds again");
        neighbour.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        bench.send(Instant::ZERO, &[(Some(7), remote, b"one"), (Some(7), remote, b"two")]);
        let mut buffer = [0; 16];
        let mut got = BTreeSet::new();
        for _ in 0..2 {
            let len = neighbour.recv(&mut buffer).expect("receives");
            got.insert(buffer[..len].to_vec());
        }
        assert_eq!(got, BTreeSet::from([b"one".to_vec(), b"two".to_vec()]));
        neighbour.send_to(b"here", bench.address).expect("sends");
        let told = bench.until(|told| told.iter().any(|told| matches!(told, Told::Datagram(..))));
        assert!(!told.iter().any(|told| matches!(told, Told::SendFailed(..))), "{told:?}");
    });
}

#[test]
fn a_neighbour_that_moves_gets_a_new_socket_and_a_removed_link_none() {
    with_each("127.0.0.1:0", |mut bench| {
        let (old, new) = (peer(bench.address), peer(bench.address));
        let at = |socket: &UdpSocket| socket.local_addr().expect("bound");
        bench.send(Instant::ZERO, &[(Some(0), at(&old), b"1"), (Some(0), at(&new), b"2"), (Some(0), at(&new), b"3")]);
        let mut buffer = [0; 16];
        assert_eq!(old.recv(&mut buffer).expect("receives"), 1);
        assert_eq!((new.recv(&mut buffer).expect("receives"), buffer[0]), (1, b'2'));
        assert_eq!((new.recv(&mut buffer).expect("receives"), buffer[0]), (1, b'3'));
        new.send_to(b"new", bench.address).expect("sends");
        old.send_to(b"old", bench.address).expect("sends");
        let told = bench.until(|told| told.len() == 2);
        assert_eq!(payloads(&told).iter().collect::<BTreeSet<_>>().len(), 2);
        bench.backend.close_link(LinkId(0));
        new.send_to(b"to the listening socket", bench.address).expect("sends");
        assert_eq!(payloads(&bench.until(|told| !told.is_empty())), [b"to the listening socket".to_vec()]);
    });
}

#[test]
fn a_path_has_a_socket_of_its_own_only_while_it_is_up_and_well() {
    with_each("127.0.0.1:0", |mut bench| {
        let neighbour = peer(bench.address);
        let remote = neighbour.local_addr().expect("bound");
        let second = |n| Instant::ZERO + Duration::from_secs(n);
        // Only a connected socket is told that nobody listens.
        let refused = |bench: &mut Bench, up, now| {
            for _ in 0..3 {
                bench.send_by(now, up, &[(Some(1), remote, b"anyone?")]);
                bench.backend.wait(Some(Duration::from_millis(20)));
                bench.poll();
            }
            std::mem::take(&mut bench.told).contains(&Told::Refused(LinkId(1)))
        };
        drop(neighbour);
        assert!(refused(&mut bench, true, Instant::ZERO), "up: connected");
        assert!(!refused(&mut bench, false, Instant::ZERO), "down: not connected");
        assert!(refused(&mut bench, true, Instant::ZERO), "up again");
        bench.backend.set_aside(second(5), LinkId(1), remote.into());
        assert!(!refused(&mut bench, true, second(5)), "set aside: not connected");
        assert!(refused(&mut bench, true, second(7)), "connected again after a while");
    });
}

#[test]
fn what_icmp_says_of_links_that_are_down_is_told_and_costs_no_datagram() {
    for listen in ["127.0.0.1:0", "[::]:0"] {
        with_each(listen, |mut bench| {
            let port = bench.address.port();
            let (gone, there) = (peer(bench.address), peer(bench.address));
            let (nobody, somebody) = (gone.local_addr().expect("bound"), there.local_addr().expect("bound"));
            drop(gone);
            let mut buffer = [0; 16];
            for round in 0..20 {
                // The refusal of the first comes before the second leaves.
                let batch: [(_, _, &[u8]); 3] =
                    [(Some(1), nobody, b"anyone?"), (Some(2), somebody, b"one"), (None, somebody, b"two")];
                bench.send_by(Instant::ZERO, false, &batch);
                let got: BTreeSet<_> = (0..2).map(|_| there.recv(&mut buffer).expect("receives")).collect();
                assert_eq!(got, BTreeSet::from([3]), "round {round}");
                let refused = |told: &Told| match told {
                    Told::Unreachable(to, errno) => (to.port(), *errno) == (nobody.port(), libc::ECONNREFUSED),
                    _ => false,
                };
                bench.until(|told| told.iter().any(refused));
            }
            there.send_to(b"and back", (bench.address.ip(), port)).expect("sends");
            let told = bench.until(|told| told.iter().any(|told| matches!(told, Told::Datagram(..))));
            let others = |told: &&Told| !matches!(told, Told::Datagram(..) | Told::Unreachable(..));
            assert_eq!(told.iter().find(others), None);
            assert_eq!(bench.backend.counters().receive_errors, 0);
        });
    }
}

#[test]
fn what_the_kernel_refuses_to_send_is_told_and_the_rest_is_sent() {
    with_each("127.0.0.1:0", |mut bench| {
        let neighbour = peer(bench.address);
        let remote = neighbour.local_addr().expect("bound");
        let other_family: SocketAddr = "[::1]:9".parse().expect("an address");
        bench.send(
            Instant::ZERO,
            &[
                (Some(1), remote, b"a"),
                (None, other_family, b"b"),
                (Some(2), other_family, b"c"),
                (Some(1), remote, b"d"),
            ],
        );
        let mut failed = std::mem::take(&mut bench.told);
        failed.sort_by_key(|told| format!("{told:?}"));
        assert!(
            matches!(failed[..], [Told::SendFailed(None, _), Told::SendFailed(Some(LinkId(2)), _)]),
            "one stranger, one link whose socket cannot be connected: {failed:?}"
        );
        let mut buffer = [0; 16];
        for expected in [b'a', b'd'] {
            assert_eq!((neighbour.recv(&mut buffer).expect("receives"), buffer[0]), (1, expected));
        }
    });
}

#[test]
fn the_doorbell_and_the_deadline_end_a_wait() {
    with_each("127.0.0.1:0", |mut bench| {
        bench.poll();
        let started = std::time::Instant::now();
        bench.backend.wait(Some(Duration::from_millis(20)));
        assert!(started.elapsed() >= Duration::from_millis(20), "woke after {:?}", started.elapsed());
        for _ in 0..3 {
            let bell = Arc::clone(&bench.bell);
            let ringer = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                bell.ring_always();
            });
            let started = std::time::Instant::now();
            bench.backend.wait(Some(PATIENCE));
            assert!(started.elapsed() < PATIENCE / 2, "the bell was not heard");
            assert_eq!(bench.poll(), 0);
            ringer.join().expect("rings");
        }
        let started = std::time::Instant::now();
        bench.backend.wait(Some(Duration::from_millis(20)));
        assert!(started.elapsed() >= Duration::from_millis(20), "silenced, it does not ring again");
    });
}

#[test]
fn sessions_are_told_as_long_as_they_are_ready_and_wanted() {
    with_each("127.0.0.1:0", |mut bench| {
        // Streams that arrive are numbered from here.
        let session = SessionId((1 << 63) + 42);
        let (router, application) = sys::session_pair().expect("a pair");
        bench.backend.watch(session, router.as_fd()).expect("watches");
        let quiet = |bench: &mut Bench| {
            for _ in 0..3 {
                bench.backend.wait(Some(Duration::from_millis(5)));
                bench.poll();
            }
            assert_eq!(bench.told, []);
        };
        quiet(&mut bench);
        sys::send_record(application.as_fd(), b"record").expect("sends");
        // Level-triggered: told again while the record is not taken.
        for _ in 0..3 {
            assert_eq!(bench.until(|told| !told.is_empty()), [Told::Readable(session)]);
        }
        bench.backend.want(session, false, false);
        bench.poll();
        bench.told.clear();
        quiet(&mut bench);
        bench.backend.want(session, true, false);
        assert_eq!(bench.until(|told| !told.is_empty()), [Told::Readable(session)]);
        let mut room = [0; 16];
        assert_eq!(sys::receive_record(router.as_fd(), &mut room).expect("a record"), 6);
        bench.poll();
        bench.told.clear();
        quiet(&mut bench);

        fill(&router);
        bench.backend.want(session, true, true);
        quiet(&mut bench);
        let mut room = vec![0; 1 << 17];
        while sys::receive_record(application.as_fd(), &mut room).is_ok_and(|len| len > 0) {}
        assert_eq!(bench.until(|told| !told.is_empty()), [Told::Writable(session)]);
        bench.backend.want(session, true, false);
        bench.poll();
        bench.told.clear();
        drop(application);
        assert_eq!(bench.until(|told| !told.is_empty()), [Told::Readable(session)]);
        // Unwanted, its end is told once, and again only when it was wanted in between.
        for _ in 0..2 {
            bench.backend.want(session, false, false);
            let told = bench.until(|told| told.contains(&Told::HungUp(session)));
            assert_eq!(told.iter().filter(|told| **told == Told::HungUp(session)).count(), 1);
            quiet(&mut bench);
            bench.backend.want(session, true, false);
            assert_eq!(bench.until(|told| !told.is_empty())[0], Told::Readable(session));
        }
        bench.backend.unwatch(session);
    });
}

#[test]
fn the_end_of_a_session_that_is_not_read_is_told_when_it_comes() {
    with_each("127.0.0.1:0", |mut bench| {
        let session = SessionId(7);
        let (router, application) = sys::session_pair().expect("a pair");
        bench.backend.watch(session, router.as_fd()).expect("watches");
        sys::send_record(application.as_fd(), b"unread").expect("sends");
        bench.until(|told| !told.is_empty());
        bench.backend.want(session, false, false);
        bench.poll();
        bench.told.clear();
        sys::send_record(application.as_fd(), b"unread").expect("sends");
        for _ in 0..3 {
            bench.backend.wait(Some(Duration::from_millis(5)));
            bench.poll();
        }
        assert_eq!(bench.told, [], "records are not asked for");
        drop(application);
        assert_eq!(bench.until(|told| !told.is_empty()), [Told::HungUp(session)]);
        bench.backend.unwatch(session);
    });
}

fn fill(end: &OwnedFd) {
    while sys::send_record(end.as_fd(), &[0; 1 << 15]).is_ok() {}
}

#[test]
fn an_unwatched_descriptor_closes_for_its_other_end() {
    with_each("127.0.0.1:0", |mut bench| {
        let (router, application) = sys::session_pair().expect("a pair");
        bench.backend.watch(SessionId(1), router.as_fd()).expect("watches");
        bench.poll();
        bench.backend.unwatch(SessionId(1));
        drop(router);
        bench.poll();
        assert!(sys::poll_readable(application.as_fd(), PATIENCE).expect("polls"));
        assert_eq!(sys::receive_record(application.as_fd(), &mut [0; 8]).expect("the end"), 0);
        assert_eq!(bench.told, []);
    });
}

#[test]
fn the_choice_follows_the_test_and_says_why() {
    let works = || Ok("a ring".to_owned());
    let fails = || Err("EPERM".to_owned());
    assert!(choose(Io::Auto, works).expect("chosen").uring);
    let fallen = choose(Io::Auto, fails).expect("chosen");
    assert!(!fallen.uring && fallen.reason.contains("EPERM"), "{fallen:?}");
    assert!(choose(Io::Uring, works).expect("chosen").uring);
    let impossible = choose(Io::Uring, fails).expect_err("asked for by name").to_string();
    assert!(impossible.contains("EPERM") && impossible.contains("\"mmsg\""), "{impossible}");
    assert!(!choose(Io::Mmsg, || panic!("not tested")).expect("chosen").uring);
}

#[test]
fn a_port_is_not_shared_with_another_router_of_the_same_user() {
    let first = udp::listen("127.0.0.1:0".parse().expect("an address"), BUFFER).expect("binds");
    let address = first.local_addr().expect("bound");
    assert_eq!(udp::listen(address, BUFFER).expect_err("held").kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn calls_per_datagram_stay_few_under_load() {
    with_each("127.0.0.1:0", |mut bench| {
        let (sender, sink) = (peer(bench.address), peer(bench.address));
        let to = sink.local_addr().expect("bound");
        let before = bench.backend.counters().calls;
        let mut forwarded = 0;
        for _ in 0..10 {
            for _ in 0..512 {
                sender.send_to(&[1; 200], bench.address).expect("sends");
            }
            for _ in 0..64 {
                bench.poll();
                let got = payloads(&std::mem::take(&mut bench.told));
                for chunk in got.chunks(BATCH) {
                    let batch: Vec<_> = chunk.iter().map(|bytes| (Some(0), to, &bytes[..])).collect();
                    bench.send(Instant::ZERO, &batch);
                    forwarded += batch.len() as u64;
                }
                if got.is_empty() {
                    break;
                }
            }
        }
        let calls = bench.backend.counters().calls - before;
        eprintln!("{}: {calls} calls for {forwarded} datagrams", bench.backend.name());
        assert!(forwarded >= 4000 && calls * 10 <= forwarded, "{calls} calls for {forwarded} datagrams");
    });
}

/// A whole batch for one neighbour: equal datagrams, a shorter one, and one longer than those before it.
fn numbered() -> Vec<Vec<u8>> {
    (0..BATCH).map(|n| vec![n as u8; [700, 700, 700, 90, 800][n % 5]]).collect()
}

#[test]
fn trains_leave_and_arrive_as_one_and_are_handed_over_datagram_by_datagram() {
    with_trains(|mut bench| {
        let mut other = Bench::new(bench.backend.name() == "uring", true, "127.0.0.1:0");
        let sent = numbered();
        for (link, sockets) in [("listening", 0), ("connected", 1)] {
            // Once something was sent to it, what comes from there arrives through a connected socket.
            (0..sockets).for_each(|_| other.send(Instant::ZERO, &[(Some(5), bench.address, b"open")]));
            let batch: Vec<_> = sent.iter().map(|bytes| (Some(0), other.address, &bytes[..])).collect();
            bench.send(Instant::ZERO, &batch);
            let told = other.until(|told| payloads(told).len() == BATCH);
            assert_eq!(payloads(&told), sent, "through the {link} socket");
            assert!(told.iter().all(|told| matches!(told, Told::Datagram(from, _) if *from == bench.address)));
        }
        let (out, into) = (bench.backend.counters(), other.backend.counters());
        assert_eq!((out.trains_out, out.coupled_out), (26, 2 * 52), "[700 700 700 90] [800] thirteen times a batch");
        assert_eq!((into.trains_in, into.coupled_in), (26, 2 * 52));
    });
}

#[test]
fn trains_that_exceed_a_pass_arrive_whole() {
    with_trains(|mut bench| {
        let uring = bench.backend.name() == "uring";
        let mut neighbours = [0, 1].map(|link| (link, Bench::new(uring, true, "127.0.0.1:0")));
        for (link, neighbour) in &neighbours {
            bench.send(Instant::ZERO, &[(Some(*link), neighbour.address, b"open")]);
        }
        // Several passes' worth in a few slots of each socket, so that the first one read takes all the room and more.
        const BATCHES: usize = 12;
        for (_, neighbour) in &mut neighbours {
            let batch: Vec<_> = (0..BATCH).map(|_| (Some(0), bench.address, &[7; 100][..])).collect();
            (0..BATCHES).for_each(|_| neighbour.send(Instant::ZERO, &batch));
        }
        let told = bench.until(|told| payloads(told).len() == 2 * BATCHES * BATCH);
        assert!(told.iter().all(|told| matches!(told, Told::Datagram(_, bytes) if *bytes == [7; 100])));
        assert!(bench.backend.counters().coupled_in > PASS as u64, "{:?}", bench.backend.counters());
    });
}

/// Makes the kernel refuse to cut what this socket sends: it does so where it would not write checksums.
fn forbid_trains(local: SocketAddr, remote: SocketAddr) {
    let mut found = false;
    for entry in std::fs::read_dir("/proc/self/fd").expect("lists").flatten() {
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // SAFETY: asked only for its addresses; what is no longer open answers with an error.
        let socket = std::mem::ManuallyDrop::new(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) });
        let socket: &UdpSocket = &socket;
        if socket.local_addr().is_ok_and(|own| own == local) && socket.peer_addr().is_ok_and(|peer| peer == remote) {
            sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("sets");
            found = true;
        }
    }
    assert!(found, "no socket from {local} to {remote}");
}

#[test]
fn a_link_whose_trains_are_refused_sends_their_datagrams_one_by_one() {
    with_trains(|mut bench| {
        let neighbour = peer(bench.address);
        let remote = neighbour.local_addr().expect("bound");
        let receive = || {
            let mut buffer = [0; 2048];
            let (len, _) = neighbour.recv_from(&mut buffer).expect("receives");
            buffer[..len].to_vec()
        };
        bench.send(Instant::ZERO, &[(Some(0), remote, b"open")]);
        assert_eq!(receive(), b"open");
        forbid_trains(bench.address, remote);
        let sent = numbered();
        let batch: Vec<_> = sent.iter().map(|bytes| (Some(0), remote, &bytes[..])).collect();
        bench.send(Instant::ZERO, &batch);
        let mut got: Vec<Vec<u8>> = (0..BATCH).map(|_| receive()).collect();
        // Those that were refused may leave after the others.
        got.sort_by_key(|bytes| bytes[0]);
        assert_eq!(got, sent);
        let refused = bench.backend.counters().trains_refused;
        assert!(refused >= 1 && bench.backend.counters().trains_out == 0, "{:?}", bench.backend.counters());
        bench.send(Instant::from_millis(59_000), &batch);
        (0..BATCH).for_each(|n| assert_eq!(receive(), sent[n]));
        assert_eq!(bench.backend.counters().trains_refused, refused, "not tried again so soon");
        bench.send(Instant::from_millis(61_000), &batch);
        (0..BATCH).for_each(|_| drop(receive()));
        assert!(bench.backend.counters().trains_refused > refused, "tried again");
        assert_eq!(bench.told, []);
    });
}

#[test]
fn the_kernel_says_when_datagrams_and_trains_arrived() {
    with_each("127.0.0.1:0", |mut bench| {
        let other = |bench: &Bench| Bench::with(bench.backend.name() == "uring", bench.trains, true, "127.0.0.1:0");
        let mut other = other(&bench);
        let sent = numbered();
        for link in [None, Some(LinkId(5))] {
            // Once something was sent to it, what comes from there arrives through a connected socket.
            link.into_iter().for_each(|link| other.send(Instant::ZERO, &[(Some(link.0), bench.address, b"open")]));
            let batch: Vec<_> = sent.iter().map(|bytes| (Some(0), other.address, &bytes[..])).collect();
            let before = crate::runtime::clock::wall_time().as_nanos();
            bench.send(Instant::ZERO, &batch);
            let (mut stamped, mut arrived, mut told) = (0, 0, 0);
            while stamped < BATCH {
                other.backend.wait(Some(PATIENCE));
                other.backend.poll(&mut |event| match event {
                    Event::Datagram { .. } => arrived += 1,
                    Event::Arrived { link: by, at, datagrams } => {
                        let now = crate::runtime::clock::wall_time().as_nanos();
                        assert!((before..=now).contains(&at.as_nanos()), "{before} {at:?} {now}");
                        (stamped, told) = (stamped + datagrams, told + 1);
                        assert_eq!((by, stamped), (link, arrived), "told behind its datagrams");
                    }
                    other => panic!("{other:?}"),
                });
            }
            assert_eq!((stamped, told < BATCH), (BATCH, bench.trains), "one time for a train");
        }
    });
}

#[test]
fn times_of_arrival_are_asked_for_where_the_kernel_has_them() {
    let cannot = || Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
    assert_eq!(choose_stamps(SocketWait::Auto, true, || Ok(())), (true, "on".into()));
    assert_eq!(choose_stamps(SocketWait::On, false, || Ok(())), (true, "on".into()));
    assert_eq!(choose_stamps(SocketWait::Off, true, || panic!("not asked")), (false, "off (as configured)".into()));
    let (on, why) = choose_stamps(SocketWait::Auto, false, || panic!("not asked"));
    assert!(!on && why.contains("one by one"), "{why}");
    let (on, why) = choose_stamps(SocketWait::Auto, true, cannot);
    assert!(!on && why.contains("cannot"), "{why}");
}

#[test]
fn trains_are_chosen_where_the_kernel_can_and_does_not_damage_them() {
    let (works, fails) = (|| Ok(()), || Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT)));
    for (release, good) in [
        ("6.18.0-1-cloud-amd64", true),
        ("7.0.0-rc3", false),
        ("7.1.4", false),
        ("7.1.5-arch1", true),
        ("7.2-rc1", true),
        ("", true),
    ] {
        assert_eq!(choose_trains(Offload::Auto, release, works).expect("chosen").0, good, "{release}");
        assert!(choose_trains(Offload::On, release, works).expect("chosen").0, "{release}");
    }
    assert!(!choose_trains(Offload::Auto, "4.9.0", fails).expect("chosen").0);
    assert!(!choose_trains(Offload::Off, "6.18.0", || panic!("not tested")).expect("chosen").0);
    let error = choose_trains(Offload::On, "4.9.0", fails).expect_err("cannot").to_string();
    assert!(error.contains("offload = \"auto\""), "{error}");
}
