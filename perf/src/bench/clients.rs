//! Applications: a round trip between two of one router, a stream between those of two routers.

use super::figures::per;
use super::latency::Delay;
use super::load::{SATURATED, Shown, WARM_UP};
use super::machine::{Used, pin};
use super::overlay::Cast;
use super::router::{Router, Setup};
use sinew::base::Class;
use sinew::client::{Datagrams, Endpoint, Event, Overlay};
use sinew::runtime::clock::Clock;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A router, or a client, that does not answer by then is broken.
const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 7000;
/// Bytes written, and read, together.
const CHUNK: usize = 1 << 16;
/// A round trip is of the size of a small request.
const REQUEST: [u8; 200] = [7; 200];

/// Sends requests from one client of a router to another and back, one at a time, both in the calling thread, each waiting
/// for what it receives; over memory that clients share with the router, or over sockets. With it: the router's io.
pub(crate) fn round_trips(setup: &Setup<'_>, clock: Clock, shares: bool, seconds: f64) -> io::Result<(Delay, String)> {
    let cast = Cast::new(0, 1)?;
    let router = cast.router(setup, &[])?;
    let overlay = connect(&router, shares)?;
    let (near, far) = (overlay.datagrams(0)?, overlay.datagrams(0)?);
    let [near_at, far_at] = [&near, &far].map(Datagrams::local);
    for session in [&near, &far] {
        session.set_read_timeout(Some(PATIENCE))?;
        expect(session.shares_memory() == shares, "the router did not share memory as asked")?;
    }
    let begun = clock.now() + WARM_UP;
    let end = begun + Duration::from_secs_f64(seconds);
    let mut delays = Vec::with_capacity(1 << 20);
    loop {
        let sent = clock.now();
        if sent >= end {
            return Ok((Delay::of(delays), router.io()?));
        }
        pass(&near, &far, far_at)?;
        pass(&far, &near, near_at)?;
        if sent >= begun {
            delays.push(clock.now().since(sent).as_nanos() as u64);
        }
    }
}

/// One request from one session to another.
fn pass(from: &Datagrams, to: &Datagrams, at: Endpoint) -> io::Result<()> {
    from.send(at, Class::BestEffort, false, &REQUEST)?;
    let mut room = [0; 2 * REQUEST.len()];
    match to.recv(&mut room)? {
        Event::Datagram { bytes, .. } => expect(bytes == REQUEST, "a request came back otherwise than it was sent"),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// Sends a stream from a client of a router to one of its neighbour, as fast as it goes. With it: the routers' io.
pub(crate) fn stream(setups: [&Setup<'_>; 2], shares: bool, size: usize, seconds: f64) -> io::Result<(Shown, String)> {
    let cast = Cast::new(0, 1)?;
    let routers = cast.pair(setups)?;
    let [near, far] = [&routers[0], &routers[1]].map(|router| connect(router, shares));
    let (near, far) = (near?, far?);
    let listener = far.listen(PORT)?;
    let to = Endpoint { node: far.node(), port: PORT };
    let mut source = routed(|| near.stream(to))?;
    let mut sink = listener.accept()?;
    sink.set_read_timeout(Some(PATIENCE))?;
    source.set_write_timeout(Some(PATIENCE))?;
    for end in [&source, &sink] {
        expect(end.shares_memory() == shares, "the router did not share memory as asked")?;
    }
    let over = AtomicBool::new(false);
    let core = setups[0].core;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            core.into_iter().for_each(pin);
            while !over.load(Ordering::Relaxed) {
                source.write_all(&[7; CHUNK])?;
            }
            source.finish()
        });
        let taken = take(&mut sink, &routers, size, seconds);
        over.store(true, Ordering::Relaxed);
        // What is still on its way must arrive before the writer can end.
        let drained = io::copy(&mut sink, &mut io::sink());
        writer.join().map_err(|_| io::Error::other("the writer died"))??;
        drained?;
        Ok((taken?, routers[0].io()?))
    })
}

/// Reads for so long, after a warm-up, and says how much, and what the routers' workers used for it.
fn take(sink: &mut impl io::Read, routers: &[Router; 2], size: usize, seconds: f64) -> io::Result<Shown> {
    let mut room = vec![0; CHUNK];
    let mut read_for = |time: Duration| -> io::Result<(u64, Duration)> {
        let (begun, mut bytes) = (Instant::now(), 0);
        while begun.elapsed() < time {
            match sink.read(&mut room)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => bytes += len as u64,
            }
        }
        Ok((bytes, begun.elapsed()))
    };
    read_for(WARM_UP)?;
    let used = || -> io::Result<[Used; 2]> { Ok([routers[0].workers.used()?, routers[1].workers.used()?]) };
    let before = used()?;
    let (bytes, passed) = read_for(Duration::from_secs_f64(seconds))?;
    let (after, passed) = (used()?, passed.as_secs_f64());
    let used = [after[0].since(before[0]), after[1].since(before[1])];
    let core_s = (used[0].ran + used[1].ran) as f64 / 1e9;
    // Each has a core, which it shares with an end of the stream: the one that wants more of its own is what limits.
    let wanted = used.map(|used| used.ran + used.waited).into_iter().max().unwrap_or(0) as f64 / 1e9;
    let messages = per(bytes as f64, size as f64);
    Ok(Shown {
        messages_per_s: per(messages, passed),
        mbit_per_s: per(bytes as f64 * 8.0 / 1e6, passed),
        utilisation: per(core_s, passed),
        cpu_ns_per_message: per(core_s * 1e9, messages),
        messages_per_core_s: per(messages, core_s),
        saturated: per(wanted, passed) >= SATURATED,
        ..Shown::default()
    })
}

fn connect(router: &Router, shares: bool) -> io::Result<Overlay> {
    let overlay = router.client()?;
    overlay.share_memory(shares)?;
    Ok(overlay)
}

/// Tries until there is a route.
fn routed<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match open() {
            Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            done => return done,
        }
    }
}

fn expect(holds: bool, otherwise: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(otherwise)) }
}
