//! Six routers in a ring: what the traffic between opposite ones notices when the way it takes fails.
//!
//! An outage is the longest silence at the receiver of a best-effort datagram a millisecond, from just before the fault
//! to 900 ms after it. A stream runs beside it the whole time and must lose nothing.

use crate::support::{Machine, PATIENCE, eventually, io_test, nodes, path, say, started, system_test, wait_links};
use crate::traffic::{datagrams, stream};
use sinew::base::Class;
use sinew::client::{Datagrams, Event, Listener, Stream};
use sinew::lab::clock;
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{Topology, World};
use std::io::{Read as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What traffic may pause at most.
const LIMIT: Duration = Duration::from_millis(500);
/// What the median pause after a router was killed may be: the kernel tells its neighbours at once, so on a machine of
/// its own it is 50 ms and less; on one that is busy with others, several times that.
const KILLED_LIMIT: Duration = Duration::from_millis(250);
/// How long a fault is watched.
const WATCHED: Duration = Duration::from_millis(900);
/// Bytes of stream written at once, every two milliseconds.
const BLOCK: usize = 500;

#[test]
fn a_killed_router_over_uring() {
    io_test("ring::a_killed_router_over_uring", "uring", Machine::Alone, killed);
}

#[test]
fn a_killed_router_over_mmsg() {
    io_test("ring::a_killed_router_over_mmsg", "mmsg", Machine::Alone, killed);
}

fn killed(io: &str) {
    let median = faults("kill -9", io, 5, kill);
    assert!(median <= KILLED_LIMIT, "median pause {median:?}: was the kernel's word not heard?");
}

#[test]
fn a_link_cut_silently() {
    system_test("ring::a_link_cut_silently", Machine::Alone, || _ = faults("silent cut", "auto", 6, cut));
}

#[test]
fn a_router_that_leaves() {
    system_test("ring::a_router_that_leaves", Machine::Alone, || _ = faults("SIGTERM", "auto", 4, terminate));
}

/// Makes something fail on the path and gives what mends it.
type Fault = for<'w> fn(&'w World, trial: usize, path: &[String]) -> Box<dyn Fn() + 'w>;

fn kill<'w>(world: &'w World, trial: usize, path: &[String]) -> Box<dyn Fn() + 'w> {
    let victim = world.router(&path[trial % 2]);
    victim.signal(libc::SIGKILL);
    Box::new(|| victim.restart().expect("starts again"))
}

fn terminate<'w>(world: &'w World, trial: usize, path: &[String]) -> Box<dyn Fn() + 'w> {
    let victim = world.router(&path[trial % 2]);
    victim.signal(libc::SIGTERM);
    Box::new(|| {
        let status = victim.terminate(PATIENCE);
        assert!(status.is_some_and(|status| status.success()), "{status:?}:\n{}", victim.log());
        victim.start().expect("starts again");
    })
}

fn cut<'w>(world: &'w World, trial: usize, path: &[String]) -> Box<dyn Fn() + 'w> {
    let ends = [("a", path[0].as_str()), (&path[0], &path[1]), (&path[1], &path[2])];
    let (one, other) = ends[trial % 3];
    let link = world.link(one, other);
    link.cut();
    Box::new(move || link.restore())
}

/// When each datagram arrived.
type Arrivals = Mutex<Vec<Instant>>;

/// Makes it fail so many times; gives the median of the longest silences.
fn faults(what: &str, io: &str, trials: usize, fault: Fault) -> Duration {
    let mut topology = Topology::ring(6, Conditions::wire(3.0, 0));
    topology.io = io.into();
    let world = started(topology);
    wait_whole(&world);
    let (a, d) = (world.router("a"), world.router("d"));
    let (source, sink) = (datagrams(a, 0), datagrams(d, 0));
    let (near, far, listener) = stream(a, d, 8000);
    let (arrivals, stop) = (Arrivals::default(), AtomicBool::new(false));
    let mut outages = std::thread::scope(|scope| {
        scope.spawn(|| send_paced(&source, &sink, &stop));
        scope.spawn(|| note_arrivals(&sink, &arrivals, &stop));
        let written = scope.spawn(|| write_blocks(&near, &stop));
        let read = scope.spawn(|| read_blocks(far, listener));
        // The scope waits for its threads: they must end also if a trial fails.
        let ended = StopAtEnd(&stop);
        std::thread::sleep(Duration::from_millis(300));
        let outages: Vec<_> = (0..trials).map(|trial| outage(&world, &arrivals, trial, fault)).collect();
        drop(ended);
        let (written, read) = (written.join().expect("no panic"), read.join().expect("no panic"));
        assert_eq!(written, read, "the stream loses nothing");
        assert!(written > 500 * BLOCK, "{written} bytes are too few to show anything");
        outages
    });
    outages.sort_unstable();
    let median = outages[outages.len() / 2];
    let (least, most) = (outages[0], outages[outages.len() - 1]);
    say(&format!("outage after {what} (io {io}): min {least:.0?}, median {median:.0?}, max {most:.0?} of {trials}"));
    assert!(most <= LIMIT, "traffic paused {outages:?}");
    median
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One fault and its mending; gives the longest silence.
fn outage(world: &World, arrivals: &Arrivals, trial: usize, fault: Fault) -> Duration {
    let used = path(world.router("a"), "d").expect("there is a route");
    assert_eq!(used.len(), 3, "the way round: {used:?}");
    let begin = Instant::now();
    let mend = fault(world, trial, &used);
    std::thread::sleep(WATCHED.saturating_sub(begin.elapsed()));
    let outage = longest_silence(&arrivals.lock().expect("no panic"), begin, begin + WATCHED);
    if outage > LIMIT {
        let logs = world.routers().iter().map(|router| format!("--- {}\n{}", router.name(), router.log()));
        say(&format!("an outage of {outage:.0?}, way {used:?}, trial {trial}:\n{}", logs.collect::<String>()));
    }
    mend();
    world.wait_ready(PATIENCE).expect("all find each other again");
    wait_whole(world);
    outage
}

/// Waits until every link is in everyone's map: one that came and went too often is held back for a while.
fn wait_whole(world: &World) {
    wait_links(world);
    for router in world.routers() {
        eventually("the ring is whole", || nodes(router).iter().all(|node| node.links == 2).then_some(()));
    }
}

fn longest_silence(arrivals: &[Instant], begin: Instant, end: Instant) -> Duration {
    let first = arrivals.partition_point(|&at| at < begin);
    let within = arrivals[first..].iter().copied().take_while(|&at| at < end);
    // From the last arrival before it: what was under way still arrives.
    let before = arrivals[..first].last().copied().unwrap_or(begin);
    let mut last = before;
    let mut longest = Duration::ZERO;
    for at in within.chain([end]) {
        longest = longest.max(at - last);
        last = at;
    }
    longest
}

fn send_paced(source: &Datagrams, sink: &Datagrams, stop: &AtomicBool) {
    clock::exact_timers();
    let mut next = clock::now();
    while !stop.load(Ordering::Relaxed) {
        source.send(sink.local(), Class::BestEffort, false, &[7; 100]).expect("is sent");
        next = (next + Duration::from_millis(1)).max(clock::now());
        clock::sleep_until(next);
    }
}

fn note_arrivals(sink: &Datagrams, arrivals: &Arrivals, stop: &AtomicBool) {
    sink.set_read_timeout(Some(Duration::from_millis(50))).expect("takes a timeout");
    let mut buffer = [0; 200];
    while !stop.load(Ordering::Relaxed) {
        if let Ok(Event::Datagram { .. }) = sink.recv(&mut buffer) {
            arrivals.lock().expect("no panic").push(Instant::now());
        }
    }
}

/// The n-th byte of the stream.
fn byte(place: usize) -> u8 {
    (place.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn write_blocks(mut stream: &Stream, stop: &AtomicBool) -> usize {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let block: [u8; BLOCK] = std::array::from_fn(|place| byte(written + place));
        stream.write_all(&block).expect("the stream goes on");
        written += BLOCK;
        std::thread::sleep(Duration::from_millis(2));
    }
    stream.finish().expect("the stream goes on");
    let end = stream.read(&mut [0]).expect("the other end finishes when it has read everything");
    assert_eq!(end, 0);
    written
}

fn read_blocks(mut stream: Stream, _listener: Listener) -> usize {
    let (mut read, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        let len = stream.read(&mut buffer).expect("the stream goes on");
        if len == 0 {
            stream.finish().expect("the stream goes on");
            // Waits for the other end's goodbye.
            return read;
        }
        for (place, &got) in buffer[..len].iter().enumerate() {
            assert_eq!(got, byte(read + place), "byte {} of the stream is another", read + place);
        }
        read += len;
    }
}
