//! Routers that come back with the same key.

use crate::support::{Machine, PATIENCE, eventually, path, say, started, system_test};
use crate::traffic::{carry, exactly_once, noise, stream};
use sinew::client::Stream;
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{ClockShift, Topology};
use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

/// Writes until the stream breaks; gives how.
fn broken(mut stream: &Stream) -> io::Error {
    let begin = Instant::now();
    stream.set_nonblocking(true).expect("can be");
    loop {
        match stream.write(&[1; 1000]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
        match stream.read(&mut [0; 10]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
            Ok(got) => panic!("{got} bytes from nobody"),
        }
        assert!(begin.elapsed() < PATIENCE, "the stream hangs");
    }
    stream.set_nonblocking(false).expect("can be");
    stream.read(&mut [0; 10]).expect_err("the stream broke")
}

#[test]
fn either_end_of_a_link() {
    system_test("restart::either_end_of_a_link", Machine::Shared, || {
        let world = started(Topology::chain(2, Conditions::wire(1.0, 0)));
        let (a, c) = (world.router("a"), world.router("c"));
        for (round, restarted) in ["c", "b", "a"].into_iter().enumerate() {
            let port = 8000 + 10 * round as u16;
            let restarted = world.router(restarted);
            let (near, mut far, _listener) = stream(a, c, port);
            (&near).write_all(b"before").expect("is taken");
            far.read_exact(&mut [0; 6]).expect("arrives");
            let first = restarted.pid();
            restarted.restart().expect("starts again");
            assert_ne!(restarted.pid(), first);
            world.wait_ready(PATIENCE).expect("routes return");
            match restarted.name() {
                "c" => {
                    let error = broken(&near);
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
                    far.read(&mut [0; 10]).expect_err("its own router is gone");
                }
                "a" => {
                    let error = broken(&far);
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
                    (&near).read(&mut [0; 10]).expect_err("its own router is gone");
                }
                // On the way only: the stream survives.
                _ => {
                    (&near).write_all(b"after").expect("is taken");
                    let mut text = [0; 5];
                    far.read_exact(&mut text).expect("arrives");
                    assert_eq!(&text, b"after");
                }
            }
            carry(a, c, port + 1, &noise(1, 200_000));
            exactly_once(c, a, 200, 200, true);
        }
    });
}

#[test]
fn both_ends_of_a_link_at_once() {
    system_test("restart::both_ends_of_a_link_at_once", Machine::Shared, || {
        let world = started(Topology::chain(1, Conditions::wire(1.0, 0)));
        let (a, b) = (world.router("a"), world.router("b"));
        for round in 0..2 {
            a.kill();
            b.kill();
            b.start().and_then(|()| a.start()).expect("start again");
            world.wait_ready(PATIENCE).expect("routes return");
            eventually("the way back", || path(b, "a"));
            carry(a, b, 8000 + round, &noise(1, 100_000));
        }
        // A clean stop is known at once, not after the link's dead time.
        let begin = Instant::now();
        assert!(b.terminate(PATIENCE).is_some_and(|status| status.success()), "{}", b.log());
        eventually("a knows that b is gone", || path(a, "b").is_none().then_some(()));
        assert!(begin.elapsed() < PATIENCE / 4, "{:?}", begin.elapsed());
    });
}

#[test]
fn with_other_clocks() {
    system_test("restart::with_other_clocks", Machine::Shared, || {
        let world = started(Topology::chain(2, Conditions::wire(1.0, 0)));
        let (a, b, c) = (world.router("a"), world.router("b"), world.router("c"));
        if let Err(why) = b.can_shift_clocks() {
            return say(&format!("NOT RUN: restart::with_other_clocks: {why}"));
        }
        let (near, mut far, _listener) = stream(a, c, 8000);
        let machine = std::fs::read_to_string("/proc/uptime").expect("is there");
        let uptime: f64 = machine.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
        for (round, monotonic) in [20 * 24 * 3600, -(uptime as i64 / 2)].into_iter().enumerate() {
            b.kill();
            b.start_with_clocks(ClockShift { monotonic, boottime: monotonic + 60 }).expect("starts again");
            let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/time")).expect("ours");
            let pid = b.pid().expect("it runs").to_string();
            assert_ne!(namespace(&pid), namespace("self"));
            let offsets = std::fs::read_to_string(format!("/proc/{pid}/timens_offsets")).expect("ours");
            assert!(offsets.contains(&monotonic.to_string()), "{offsets}");
            world.wait_ready(PATIENCE).expect("routes return");
            (&near).write_all(b"after").expect("is taken");
            let mut text = [0; 5];
            far.read_exact(&mut text).expect("arrives");
            assert_eq!(&text, b"after");
            carry(a, c, 8001 + round as u16, &noise(1, 200_000));
            exactly_once(c, b, 200, 200, true);
        }
    });
}
