//! The library against a router played by hand.

use super::channel::Channel;
use super::*;
use crate::base::limits::MAX_PAYLOAD;
use crate::base::{Class, SessionId};
use crate::shm::Memory;
use crate::wire::client::{MAX_RECORD, Record};
use crate::wire::cursor::Writer;
use crate::wire::session::ResetReason;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

const PEER: Endpoint = Endpoint { node: NodeId(7), port: 70 };

/// A session's two ends: the application's, and the router's.
fn pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors.
    let made =
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) };
    assert_eq!(made, 0);
    // SAFETY: the call succeeded: both are open and ours.
    let [application, router] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    (application, router)
}

fn channel(socket: OwnedFd) -> Channel {
    Channel::new(socket, None).expect("a channel")
}

fn say(router: &OwnedFd, record: Record<'_>) {
    let mut room = vec![0; MAX_RECORD];
    let mut writer = Writer::new(&mut room);
    record.emit(&mut writer).expect("fits");
    sys::send_parts(router.as_fd(), &mut [io::IoSlice::new(writer.written())]).expect("sends");
}

fn hear(router: &OwnedFd) -> Vec<u8> {
    let mut room = vec![0; MAX_RECORD + 1];
    let len = sys::receive_parts(router.as_fd(), &mut [io::IoSliceMut::new(&mut room)]).expect("receives");
    room.truncate(len);
    room
}

fn datagrams() -> (Datagrams, OwnedFd) {
    let (application, router) = pair();
    (Datagrams::new(channel(application), Endpoint { node: NodeId(1), port: 10 }), router)
}

#[test]
fn datagrams_of_every_size_go_out_as_one_record() {
    let (session, router) = datagrams();
    for len in [0, 1, 1200, MAX_PAYLOAD] {
        let bytes = vec![3; len];
        session.send(PEER, Class::Reliable, true, &bytes).expect("sends");
        let record = hear(&router);
        let expected = Record::Send { class: Class::Reliable, ordered: true, ttl: 0, to: PEER, bytes: &bytes };
        assert_eq!(Record::parse(&record), Ok(expected));
    }
    let refused = session.send(PEER, Class::BestEffort, false, &vec![0; MAX_PAYLOAD + 1]).expect_err("too long");
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    session.echo(NodeId(5), 2, Class::BestEffort, 8, 9, b"pad").expect("sends");
    let expected =
        Record::Echo { ttl: 2, class: Class::BestEffort, node: NodeId(5), id: 8, sequence: 9, bytes: b"pad" };
    assert_eq!(Record::parse(&hear(&router)), Ok(expected));
}

#[test]
fn every_event_is_received_whatever_the_buffer() {
    for room in [0, 5, 30, 100] {
        let (session, router) = datagrams();
        let mut buffer = vec![0; room];
        let bytes = &[9; 30][..room.min(30)];
        say(&router, Record::Datagram { class: Class::BestEffort, mark: true, from: PEER, bytes });
        let expected = Event::Datagram { from: PEER, class: Class::BestEffort, mark: true, bytes };
        assert_eq!(session.recv(&mut buffer).expect("an event"), expected);
        let (id, sequence, hops, sent_ns, now_ns) = (1, 2, 3, 4, u64::MAX);
        say(&router, Record::EchoAnswer { expired: true, node: NodeId(6), id, sequence, hops, sent_ns, now_ns });
        let expected = Event::Echo { expired: true, node: NodeId(6), id, sequence, hops, sent_ns, now_ns };
        assert_eq!(session.recv(&mut buffer).expect("an event"), expected);
        say(&router, Record::Reset { reason: ResetReason::Closed, peer: PEER });
        let expected = Event::Reset { reason: ResetReason::Closed, peer: PEER };
        assert_eq!(session.recv(&mut buffer).expect("an event"), expected);
        say(&router, Record::Datagram { class: Class::BestEffort, mark: false, from: PEER, bytes: &vec![1; room + 1] });
        let error = session.recv(&mut buffer).expect_err("does not fit");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        say(&router, Record::Finish);
        assert_eq!(session.recv(&mut buffer).expect_err("foreign").kind(), io::ErrorKind::InvalidData);
        session.set_nonblocking(true).expect("non-blocking");
        assert_eq!(session.recv(&mut buffer).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
        drop(router);
        assert_eq!(session.recv(&mut buffer).expect("an event"), Event::Closed);
    }
}

#[test]
fn reads_time_out() {
    let (session, router) = datagrams();
    session.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    assert_eq!(session.recv(&mut [0; 8]).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
    assert!(session.set_read_timeout(Some(Duration::ZERO)).is_err());
    session.set_read_timeout(None).expect("no timeout");
    drop(router);
    assert_eq!(session.recv(&mut [0; 8]).expect("the end"), Event::Closed);
}

#[test]
fn stream_bytes_are_read_in_any_portions() {
    for portion in [1, 3, 7, 1000] {
        let (application, router) = pair();
        let mut stream = Stream::new(channel(application), PEER);
        let sent: Vec<u8> = (0..200).collect();
        for chunk in sent.chunks(11) {
            say(&router, Record::Data(chunk));
            say(&router, Record::Data(b""));
        }
        say(&router, Record::Finish);
        let (mut got, mut room) = (Vec::new(), vec![0; portion]);
        loop {
            match stream.read(&mut room).expect("reads") {
                0 => break,
                len => got.extend_from_slice(&room[..len]),
            }
        }
        assert_eq!(got, sent);
        assert_eq!(stream.read(&mut room).expect("still ended"), 0);
    }
}

#[test]
fn a_clone_continues_where_the_other_handle_stopped() {
    let (application, router) = pair();
    let mut stream = Stream::new(channel(application), PEER);
    let mut clone = stream.try_clone().expect("clones");
    say(&router, Record::Data(b"one two"));
    let mut room = [0; 3];
    stream.read_exact(&mut room).expect("reads");
    clone.read_exact(&mut [0; 1]).expect("reads");
    clone.read_exact(&mut room).expect("reads");
    assert_eq!(&room, b"two");
    assert_eq!(clone.peer(), PEER);
}

#[test]
fn writes_are_cut_into_records_and_finished() {
    let (application, router) = pair();
    let mut stream = Stream::new(channel(application), PEER);
    let bytes = vec![5; MAX_PAYLOAD + 10];
    let writer = std::thread::spawn(move || {
        stream.write_all(&bytes).expect("writes");
        stream.finish().expect("finishes");
        stream
    });
    assert_eq!(Record::parse(&hear(&router)), Ok(Record::Data(&vec![5; MAX_PAYLOAD])));
    assert_eq!(Record::parse(&hear(&router)), Ok(Record::Data(&[5; 10])));
    assert_eq!(Record::parse(&hear(&router)), Ok(Record::Finish));
    drop(router);
    let mut stream = writer.join().expect("writes");
    assert_eq!(stream.write(b"more").expect_err("nobody is there").kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn an_end_without_finish_and_a_reset_are_errors_that_stay() {
    let (application, router) = pair();
    let mut stream = Stream::new(channel(application), PEER);
    say(&router, Record::Data(b"x"));
    say(&router, Record::Reset { reason: ResetReason::UnknownFlow, peer: PEER });
    let mut room = [0; 8];
    assert_eq!(stream.read(&mut room).expect("what came first"), 1);
    for _ in 0..2 {
        assert_eq!(stream.read(&mut room).expect_err("reset").kind(), io::ErrorKind::ConnectionReset);
    }
    let (application, router) = pair();
    let mut stream = Stream::new(channel(application), PEER);
    stream.write_all(b"unread").expect("writes");
    say(&router, Record::Data(b"x"));
    drop(router);
    assert_eq!(stream.read(&mut room).expect("what came first"), 1);
    assert_eq!(stream.read(&mut room).expect_err("gone").kind(), io::ErrorKind::ConnectionAborted);
}

#[test]
fn connecting_waits_for_connected_or_reset() {
    let (application, router) = pair();
    say(&router, Record::Connected(PEER));
    assert_eq!(Stream::connect(channel(application), PEER).expect("connected").peer(), PEER);
    let (application, router) = pair();
    say(&router, Record::Reset { reason: ResetReason::NoSession, peer: PEER });
    assert_eq!(
        Stream::connect(channel(application), PEER).expect_err("refused").kind(),
        io::ErrorKind::ConnectionRefused
    );
    let (application, router) = pair();
    drop(router);
    assert_eq!(Stream::connect(channel(application), PEER).expect_err("gone").kind(), io::ErrorKind::ConnectionAborted);
}

/// A control socket that gives prepared answers, one per request, cut into pieces.
fn scripted(answers: Vec<Vec<u8>>) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("control");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("binds");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        for answer in answers {
            let mut request = Vec::new();
            while request.last() != Some(&b'\n') {
                let mut byte = [0];
                if stream.read(&mut byte).expect("reads") == 0 {
                    return;
                }
                request.push(byte[0]);
            }
            for piece in answer.chunks(7) {
                stream.write_all(piece).expect("writes");
            }
        }
    });
    (directory, path)
}

fn line(response: Response) -> Vec<u8> {
    response.to_line().into_bytes()
}

fn whoami() -> Vec<u8> {
    line(Response::Whoami { name: "a".into(), node: NodeId(1), version: "1".into(), io: "mmsg".into() })
}

fn no_memory() -> Vec<u8> {
    line(Response::SharesMemory { granted: false })
}

#[test]
fn names_are_resolved_and_refusals_are_errors() {
    let entry =
        |name: &str, node| NodeEntry { name: name.into(), node: NodeId(node), reachable: true, links: 1, this: false };
    let nodes = || line(Response::Nodes { nodes: vec![entry("a", 1), entry("b", 2)] });
    let refusal = line(Response::Error { message: "another session holds this port".into() });
    let opened = line(Response::Opened { session: SessionId(1), port: 5, memory: false });
    let (_directory, path) = scripted(vec![
        whoami(),
        no_memory(),
        nodes(),
        nodes(),
        nodes(),
        nodes(),
        nodes(),
        refusal,
        opened,
        b"{\"x\":1}\n".to_vec(),
    ]);
    let overlay = Overlay::connect(&path).expect("connects");
    assert_eq!(overlay.node(), NodeId(1));
    assert_eq!(overlay.resolve("b").expect("known"), NodeId(2));
    assert_eq!(overlay.resolve("00000000000000ff").expect("an id"), NodeId(255));
    let missing = overlay.resolve("c").expect_err("unknown");
    assert!(missing.kind() == io::ErrorKind::NotFound && missing.to_string().contains("a, b"), "{missing}");
    assert_eq!(overlay.name_of(NodeId(2)).expect("known"), "b");
    assert_eq!(overlay.name_of(NodeId(3)).expect_err("unknown").kind(), io::ErrorKind::NotFound);
    assert!(overlay.datagrams(5).expect_err("refused").to_string().contains("holds this port"));
    assert_eq!(overlay.datagrams(5).expect_err("no descriptor came").kind(), io::ErrorKind::InvalidData);
    assert_eq!(overlay.request(&Request::Links).expect_err("nonsense").kind(), io::ErrorKind::InvalidData);
}

#[test]
fn connecting_to_nothing_says_what_to_do() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let error = Overlay::connect(directory.path().join("none")).expect_err("nothing there");
    assert!(error.kind() == io::ErrorKind::NotFound && error.to_string().contains("is the router running"), "{error}");
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

#[test]
fn bytes_that_left_the_descriptor_and_wait_for_a_reader_can_be_seen() {
    let (application, router) = pair();
    let mut stream = Stream::new(channel(application), PEER);
    say(&router, Record::Data(b"one two"));
    assert!(is_readable(stream.as_fd()) && stream.buffered() == 0);
    stream.read_exact(&mut [0; 3]).expect("reads");
    assert!(!is_readable(stream.as_fd()) && stream.buffered() == 4, "poll knows nothing of these");
    stream.read_exact(&mut [0; 4]).expect("reads");
    assert_eq!(stream.buffered(), 0);
}

#[test]
fn writes_time_out_and_nothing_of_them_is_written() {
    let (session, router) = datagrams();
    session.set_write_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    let mut sent = 0;
    let error = loop {
        match session.send(PEER, Class::Reliable, true, &[1; 10_000]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    (0..sent).for_each(|_| assert!(hear(&router).len() > 10_000));
    assert!(!is_readable(router.as_fd()), "only whole records");
    drop(router);
    let error = session.send(PEER, Class::Reliable, true, b"more").expect_err("nobody is there");
    assert!(error.kind() == io::ErrorKind::BrokenPipe && error.to_string().contains("open it again"), "{error}");
}

#[test]
fn a_router_that_died_awake_is_noticed_also_by_who_only_sends() {
    let (application, router) = pair();
    let (_memory, descriptor) = Memory::create().expect("memory");
    let channel = Channel::new(application, Some(descriptor)).expect("maps it");
    let session = Datagrams::new(channel, Endpoint { node: NodeId(1), port: 10 });
    let send = || session.send(PEER, Class::Reliable, true, b"tick");
    send().expect("is taken");
    assert!(!is_readable(router.as_fd()), "nobody rings for a router that does not sleep");
    drop(router);
    let begin = Instant::now();
    let error = loop {
        match send() {
            Err(error) => break error,
            // There is room for thousands.
            Ok(()) => assert!(begin.elapsed() < Duration::from_secs(1), "records go on to nobody"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(error.kind() == io::ErrorKind::BrokenPipe && error.to_string().contains("open it again"), "{error}");
}

#[test]
fn a_router_that_ended_the_connection_is_named_and_the_way_on_is_said() {
    let (_directory, path) = scripted(vec![whoami(), no_memory()]);
    let overlay = Overlay::connect(&path).expect("connects");
    for _ in 0..2 {
        let error = overlay.request(&Request::Whoami).expect_err("gone");
        assert!(error.kind() == io::ErrorKind::ConnectionAborted && error.to_string().contains("connect again"));
    }
}

#[test]
fn a_listener_that_is_waited_on_can_still_be_polled_and_made_not_to_wait() {
    let (_directory, path) = scripted(vec![whoami(), no_memory()]);
    let overlay = Overlay::connect(&path).expect("connects");
    let opened = line(Response::Opened { session: SessionId(1), port: 5, memory: false });
    let (_directory, path) = scripted(vec![opened]);
    let listener = Overlay { path, ..overlay }.listen(5).expect("listens");
    listener.set_nonblocking(true).expect("non-blocking");
    let held = listener.connection.lock().expect("nobody panicked");
    // As if another thread waited in `accept`.
    assert!(listener.as_fd().as_raw_fd() >= 0);
    listener.set_nonblocking(true).expect("non-blocking");
    drop(held);
    let error = listener.accept().expect_err("nothing, or the end of the script");
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted), "{error}");
}

#[test]
fn an_answer_that_is_late_is_taken_for_no_other() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("control");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let mut connection = Connection::open(&path).expect("connects");
    let (mut router, _) = listener.accept().expect("accepts");
    let patience = Duration::from_millis(50);
    let error = connection.exchange_within(&Request::Whoami, patience).expect_err("no answer");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    // Refused, if the connection is over already.
    let _ = router.write_all(&whoami());
    let error = connection.exchange_within(&Request::Nodes, patience).expect_err("over");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{error}");
}

#[test]
fn batches_are_taken_in_order_as_far_as_there_is_room() {
    let (session, router) = datagrams();
    session.set_nonblocking(true).expect("non-blocking");
    let texts: Vec<Vec<u8>> = (0..150u8).map(|n| vec![n; usize::from(n) * 100]).collect();
    let outgoing = |bytes| Outgoing { to: PEER, class: Class::Reliable, ordered: false, bytes };
    let batch: Vec<_> = texts.iter().map(|text| outgoing(&text[..])).collect();
    let mut sent = 0;
    while sent < batch.len() {
        let took = session.send_batch(&batch[sent..]).expect("takes some");
        for text in &texts[sent..sent + took] {
            let record = hear(&router);
            let expected = Record::Send { class: Class::Reliable, ordered: false, ttl: 0, to: PEER, bytes: text };
            assert_eq!(Record::parse(&record), Ok(expected));
        }
        sent += took;
    }
    let too_long = vec![0; MAX_PAYLOAD + 1];
    let refused = session.send_batch(&[outgoing(b"well"), outgoing(&too_long)]).expect_err("one is too long");
    assert_eq!((refused.kind(), is_readable(router.as_fd())), (io::ErrorKind::InvalidInput, false));
    assert_eq!(session.send_batch(&[]).expect("nothing to do"), 0);
}

#[test]
fn a_batch_receives_what_is_there_and_the_end_is_its_last_event() {
    let (session, router) = datagrams();
    session.set_nonblocking(true).expect("non-blocking");
    let mut batch = Batch::new(100, 50);
    assert_eq!(session.recv_batch(&mut batch).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
    assert_eq!(batch.events().len(), 0);
    for n in 0..90u8 {
        let bytes = &[n; 60][..if n == 5 { 60 } else { 50 }];
        say(&router, Record::Datagram { class: Class::BestEffort, mark: n == 7, from: PEER, bytes });
    }
    say(&router, Record::Reset { reason: ResetReason::Closed, peer: PEER });
    drop(router);
    let mut heard = Vec::new();
    while !matches!(heard.last(), Some(None)) {
        session.recv_batch(&mut batch).expect("receives");
        for event in batch.events() {
            match event {
                Ok(Event::Datagram { bytes, mark, .. }) => {
                    assert!(bytes.len() == 50 && mark == (bytes[0] == 7), "{bytes:?}");
                    heard.push(Some(bytes[0]));
                }
                Ok(Event::Reset { .. }) => heard.push(Some(200)),
                Ok(Event::Closed) => heard.push(None),
                Ok(other @ Event::Echo { .. }) => panic!("{other:?}"),
                Err(error) => {
                    assert_eq!(error.to_string(), "a datagram of 60 bytes did not fit a buffer of 50");
                    heard.push(Some(5));
                }
            }
        }
    }
    let expected: Vec<Option<u8>> = (0..90).map(Some).chain([Some(200), None]).collect();
    assert_eq!(heard, expected);
}
