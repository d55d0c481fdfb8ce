//! Applications that die, write nonsense or do not read: their sessions end, nobody else notices.

use crate::support::{
    Machine, PATIENCE, dropped, eventually, json, parsed, pool, rewrite, sessions, sinew, started, system_test,
    wait_answering, world,
};
use crate::traffic::{accept, by_socket, carry, connect, datagrams, exactly_once, knock, noise, stream};
use serde_json::Value;
use sinew::base::Class;
use sinew::client::Event;
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{Router, Topology, World};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn pair() -> World {
    started(Topology::chain(1, Conditions::wire(1.0, 0)))
}

fn holds(router: &Router, port: u16) -> bool {
    let is = |value: &serde_json::Value| value.as_u64() == Some(u64::from(port));
    sessions(router).iter().any(|session| is(&session["port"]) || is(&session["peer"]["port"]))
}

/// Waits until a router has no session and its pool is as it was.
fn wait_empty(router: &Router, before: u64) {
    eventually(&format!("no session is left at {}", router.name()), || sessions(router).is_empty().then_some(()));
    let slack = 32;
    eventually(&format!("{}'s pool returns to {before}", router.name()), || {
        (pool(router) <= before + slack).then_some(())
    });
}

#[test]
fn one_that_dies() {
    system_test("clients::one_that_dies", Machine::Shared, || {
        let world = pair();
        let (a, b) = (world.router("a"), world.router("b"));
        let before = [pool(a), pool(b)];
        let (bystander, other) = (datagrams(a, 0), datagrams(b, 0));
        let listener = b.overlay().and_then(|overlay| overlay.listen(8000)).expect("listens");
        let mut sender = sinew(a, "send b:8000 --stream /dev/zero");
        let mut sender = sender.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
        let mut far = accept(&listener);
        let mut buffer = vec![0; 1 << 16];
        let mut got = 0;
        while got < 300_000 {
            got += far.read(&mut buffer).expect("bytes flow");
        }
        sender.kill().and_then(|()| sender.wait()).expect("is killed");
        let error = loop {
            match far.read(&mut buffer) {
                Ok(0) => panic!("a sender that died has not finished its stream"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
        eventually("the dead client's stream is gone", || (!holds(a, 8000)).then_some(()));
        // One that goes away while the other end writes.
        let near = connect(a, listener.local()).expect("connects");
        let mut far = accept(&listener);
        far.write_all(&noise(1, 200_000)).expect("is taken");
        drop(near);
        let begin = Instant::now();
        let error = loop {
            match far.write_all(&buffer) {
                Ok(()) => assert!(begin.elapsed() < PATIENCE, "writing to nobody goes on"),
                Err(error) => break error,
            }
        };
        assert!(knock(&bystander, &other, b"still here"), "{error}");
        carry(a, b, 8001, &noise(2, 300_000));
        drop((far, listener, bystander, other));
        wait_empty(a, before[0]);
        wait_empty(b, before[1]);
    });
}

/// Writes a record of any bytes to a session's descriptor.
fn write_record(session: &impl AsFd, record: &[u8]) -> io::Result<()> {
    let fd = session.as_fd().as_raw_fd();
    // SAFETY: the pointer and length describe `record`.
    let sent = unsafe { libc::send(fd, record.as_ptr().cast(), record.len(), libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn one_that_writes_garbage() {
    system_test("clients::one_that_writes_garbage", Machine::Shared, || {
        let world = pair();
        let (a, b) = (world.router("a"), world.router("b"));
        let before = [pool(a), pool(b)];
        let (bystander, other) = (datagrams(a, 0), datagrams(b, 0));
        let records: [&[u8]; 7] = [
            &[0],
            &[9, 1, 2, 3],
            &[1],
            &[1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 7],
            &[4, 0, 0, 0],
            &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0x55; 70_000],
        ];
        for (place, record) in records.iter().enumerate() {
            let session = by_socket(a).datagrams(7000).expect("opens");
            write_record(&session, record).expect("is taken");
            let mut buffer = [0; 100];
            assert_eq!(session.recv(&mut buffer).expect("is told"), Event::Closed, "record {place}");
            eventually("its session is gone", || (!holds(a, 7000)).then_some(()));
        }
        assert_eq!(dropped(a, "bad-record"), records.len() as u64);
        let listener = b.overlay().and_then(|overlay| overlay.listen(8000)).expect("listens");
        let near = by_socket(a).stream(listener.local()).expect("connects");
        let mut far = accept(&listener);
        write_record(&near, &[1, 0, 0, 0]).expect("is taken");
        let error = far.read(&mut [0; 10]).expect_err("the stream broke");
        assert!(!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
        garbage_at_the_control_socket(a);
        assert!(knock(&bystander, &other, b"still here"));
        drop((near, far, listener, bystander, other));
        wait_empty(a, before[0]);
        wait_empty(b, before[1]);
    });
}

/// Where sessions' shared memory is mapped in this process.
fn shared_memory() -> Vec<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this process has maps");
    let shared = maps.lines().filter(|line| line.contains("sinew-session"));
    shared.map(|line| usize::from_str_radix(line.split('-').next().expect("a start"), 16).expect("a number")).collect()
}

/// Writes a word into the memory that is mapped at `base`.
fn scribble(base: usize, offset: usize, word: u64) {
    let place = (base + offset) as *const AtomicU64;
    // SAFETY: the session whose memory it is lives on, and the offset is within it and aligned.
    unsafe { &*place }.store(word, Ordering::SeqCst);
}

#[test]
fn one_that_writes_nonsense_into_shared_memory() {
    system_test("clients::one_that_writes_nonsense_into_shared_memory", Machine::Shared, || {
        // From `sinew::shm::memory`: how far the application has written and read, and what it wrote.
        const WRITTEN: usize = 128;
        const READ: usize = 448;
        const RING: usize = 4096;
        let world = pair();
        let (a, b) = (world.router("a"), world.router("b"));
        let before = [pool(a), pool(b)];
        let (bystander, other) = (datagrams(a, 0), datagrams(b, 0));
        let words: [&[(usize, u64)]; 6] = [
            &[(WRITTEN, 7)],
            &[(WRITTEN, u64::MAX - 7)],
            &[(WRITTEN, 1 << 20)],
            &[(RING, 1 << 40), (WRITTEN, 4096)],
            &[(RING, 4089), (WRITTEN, 4096)],
            &[(READ, 1 << 40)],
        ];
        for (case, words) in words.iter().enumerate() {
            let mapped = shared_memory();
            let session = datagrams(a, 7000);
            assert!(session.shares_memory());
            let base = shared_memory().into_iter().find(|place| !mapped.contains(place)).expect("it is mapped");
            words.iter().for_each(|&(offset, word)| scribble(base, offset, word));
            // As a bell, in case that the worker sleeps; and to be told, the router must have something to write.
            write_record(&session, &[0]).expect("is taken");
            for _ in 0..if words[0].0 == READ { 100 } else { 0 } {
                bystander.send(session.local(), Class::BestEffort, false, &[1; 8000]).expect("is sent");
            }
            eventually("its session is gone", || (!holds(a, 7000)).then_some(()));
            assert_eq!(dropped(a, "bad-memory"), case as u64 + 1);
            let error = session.send(other.local(), Class::Reliable, false, b"more").expect_err("it is over");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
        }
        // And records that are none: as by the socket.
        let mapped = shared_memory();
        let session = datagrams(a, 7000);
        let base = shared_memory().into_iter().find(|place| !mapped.contains(place)).expect("it is mapped");
        [(RING, 1), (RING + 8, 0xff), (WRITTEN, 16)].into_iter().for_each(|(at, word)| scribble(base, at, word));
        write_record(&session, &[0]).expect("is taken");
        assert_eq!(session.recv(&mut [0; 100]).expect("is told"), Event::Closed);
        assert_eq!(dropped(a, "bad-record"), 1);
        assert!(knock(&bystander, &other, b"still here"));
        exactly_once(a, b, 300, 500, true);
        drop((bystander, other, session));
        wait_empty(a, before[0]);
        wait_empty(b, before[1]);
    });
}

fn garbage_at_the_control_socket(router: &Router) {
    for bytes in [&b"\x00\xff\x00\n"[..], b"{\"request\":\"open\"}\n", b"[[[[[[\n", b"{}\n"] {
        let mut socket = UnixStream::connect(router.socket()).expect("connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("takes a timeout");
        socket.write_all(bytes).expect("is taken");
        let mut answer = [0; 4096];
        let len = socket.read(&mut answer).expect("is answered");
        assert!(String::from_utf8_lossy(&answer[..len]).contains("error"), "{:?}", &answer[..len]);
    }
    // A line without end.
    let mut socket = UnixStream::connect(router.socket()).expect("connects");
    socket.set_write_timeout(Some(PATIENCE)).expect("takes a timeout");
    let endless = (0..1000).try_for_each(|_| socket.write_all(&[b'x'; 4096]));
    assert!(endless.is_err(), "a line without end is not read for ever");
}

#[test]
fn one_that_does_not_read() {
    system_test("clients::one_that_does_not_read", Machine::Shared, || {
        let world = pair();
        let (a, b) = (world.router("a"), world.router("b"));
        let before = [pool(a), pool(b)];
        let (bystander, other) = (datagrams(a, 0), datagrams(b, 0));
        let (deaf, loud) = (datagrams(b, 7000), datagrams(a, 0));
        let (near, far, listener) = stream(a, b, 8000);
        near.set_nonblocking(true).expect("can be");
        loud.set_nonblocking(true).expect("can be");
        let block = noise(1, 8000);
        let (mut streamed, mut pushed_back, begin) = (0, 0, Instant::now());
        while begin.elapsed() < Duration::from_secs(2) {
            let _ = loud.send(deaf.local(), Class::BestEffort, false, &block);
            pushed_back += usize::from(loud.send(deaf.local(), Class::Reliable, false, &block).is_err());
            streamed += (&near).write(&block).unwrap_or(0);
            std::thread::sleep(Duration::from_micros(500));
        }
        assert!(streamed < 16 << 20 && pushed_back > 0, "{streamed} bytes, {pushed_back} pushed back");
        assert!(dropped(b, "receiver-slow") > 0, "best effort for one who does not read is dropped and counted");
        let begin = Instant::now();
        assert!(knock(&bystander, &other, b"still here"));
        exactly_once(a, b, 300, 500, true);
        carry(a, b, 8001, &noise(2, 200_000));
        assert!(begin.elapsed() < PATIENCE / 2, "others are slowed down: {:?}", begin.elapsed());
        // It reads after all: everything is there.
        let (mut got, mut buffer, mut far) = (0, vec![0; 1 << 16], far);
        near.set_nonblocking(false).expect("can be");
        std::thread::scope(|scope| {
            // Waits for room.
            scope.spawn(|| near.finish().expect("finishes"));
            loop {
                match far.read(&mut buffer).expect("bytes flow") {
                    0 => break,
                    len => got += len,
                }
            }
        });
        assert_eq!(got, streamed);
        drop((near, far, listener, deaf, loud, bystander, other));
        wait_empty(a, before[0]);
        wait_empty(b, before[1]);
    });
}

#[test]
fn those_whose_router_is_killed() {
    system_test("clients::those_whose_router_is_killed", Machine::Shared, || {
        let world = world(Topology::chain(1, Conditions::wire(1.0, 0)));
        let a = world.router("a");
        // A worker that never sleeps needs no waking: nobody would have to do with the socket.
        rewrite(a, |text| text.replace("idle = \"wait\"", "idle = \"spin\""));
        a.start().expect("starts");
        wait_answering(a);
        let (source, sink) = (datagrams(a, 0), datagrams(a, 0));
        for session in [&source, &sink] {
            session.set_nonblocking(true).expect("can be");
            assert!(session.shares_memory());
        }
        let (to, begin) = (sink.local(), Instant::now());
        let in_time = || assert!(begin.elapsed() < PATIENCE, "nobody is told");
        let (killed, sent, (heard, told)) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                loop {
                    in_time();
                    match source.send(to, Class::Reliable, true, b"tick") {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => break (error, Instant::now()),
                        _ => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            });
            let receiver = scope.spawn(|| {
                let mut heard = 0;
                loop {
                    in_time();
                    match sink.recv(&mut [0; 100]) {
                        Ok(Event::Closed) => break (heard, Instant::now()),
                        Ok(_) => heard += 1,
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(300));
            let killed = Instant::now();
            a.kill();
            (killed, sender.join().expect("is told"), receiver.join().expect("is told"))
        });
        assert!(heard > 10, "only {heard} arrived before");
        assert_eq!(sent.0.kind(), io::ErrorKind::BrokenPipe, "{}", sent.0);
        for (who, told) in [("sender", sent.1), ("receiver", told)] {
            let late = told.saturating_duration_since(killed);
            assert!(late < Duration::from_secs(1), "the {who} knows only after {late:?}");
        }
    });
}

/// Asks a command to stop as Ctrl-C does, and waits for its end.
fn interrupted(child: Child) -> Output {
    let pid = i32::try_from(child.id()).expect("process numbers are small");
    // SAFETY: a signal to a child of ours that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    child.wait_with_output().expect("it ends")
}

#[test]
fn those_that_are_interrupted_say_what_was_done() {
    system_test("clients::those_that_are_interrupted_say_what_was_done", Machine::Shared, || {
        let world = pair();
        let (a, b) = (world.router("a"), world.router("b"));
        let listening = |router: &Router, line: &str, port: u16| {
            let child = sinew(router, line).spawn().expect("the binary runs");
            eventually("it listens", || holds(router, port).then_some(()));
            child
        };
        let target = world.dir().join("copy");
        let line = format!("recv 7400 --stream --json -o {}", target.display());
        let receiver = listening(b, &line, 7400);
        let sender = sinew(a, "send b:7400 --stream --json /dev/zero").spawn().expect("the binary runs");
        eventually("bytes flow", || std::fs::metadata(&target).is_ok_and(|file| file.len() > 100_000).then_some(()));
        let sent = interrupted(sender);
        assert_eq!(sent.status.code(), Some(130));
        assert_eq!(parsed("send", &sent.stdout)["complete"], false);
        let received = receiver.wait_with_output().expect("it ends");
        assert_eq!(received.status.code(), Some(1), "an interrupted stream is not taken for a whole one");

        let got = interrupted(listening(b, &line.replace("7400", "7401"), 7401));
        let end = parsed("recv", &got.stdout);
        assert_eq!((got.status.code(), &end["complete"], &end["from"]), (Some(130), &false.into(), &Value::Null));

        let server = listening(b, "perf server --port 7402 --json", 7402);
        let client = json(a, "perf client --to b:7402 --messages 50 --rate 4mbit --json");
        assert_eq!(client["rate_kbps"], 4000.0, "{client}");
        let served = interrupted(server);
        let test = parsed("perf server", &served.stdout);
        assert_eq!((served.status.code(), &test["received"], &test["complete"]), (Some(0), &50.into(), &true.into()));
        assert!(test["from"].as_str().is_some_and(|from| from.starts_with("a:")), "peers have names: {test}");
        assert!(test["one_way"]["p99_ms"].as_f64() > Some(0.9), "{test}");
        assert!(String::from_utf8_lossy(&served.stderr).contains("served 1 test"), "{served:?}");
    });
}
