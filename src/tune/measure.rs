//! What things cost on this machine: the same system calls as a worker's, in threads that are pinned as workers would be.

use super::facts::Facts;
use super::idle;
use crate::base::{Instant, LinkId};
use crate::config::settings::{Cores, Io};
use crate::containers::Batch;
use crate::containers::batch::Transmit;
use crate::runtime::clock::Clock;
use crate::runtime::doorbell::Doorbell;
use crate::runtime::io::{self, BATCH, Backend, Choice, Event, Parts};
use crate::runtime::machine::{CpuSet, noise, place, scheduling};
use crate::telemetry::Histogram;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long timers, pauses and single costs are looked at.
const NAPPING: Duration = Duration::from_millis(400);
const WATCHING: Duration = Duration::from_millis(250);
const CALLS: u32 = 20_000;
/// Datagrams sent and received for one cost, and their size: a full one of a link over the Internet.
const DATAGRAMS: usize = 6_400;
const SIZE: usize = 1_200;
/// Wake-ups, so far apart that the sleeper sleeps.
const WAKES: usize = 600;
const WAKE_EVERY: Duration = Duration::from_micros(500);
/// What anything on loopback may take on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);
/// Socket buffers: more than is ever under way.
const BUFFER: usize = 4 << 20;

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// The noise floor; no latency here means anything finer.
    pub noise: Noise,
    /// A look at the clock, ns.
    pub clock_ns: f64,
    /// The cheapest system call, ns.
    pub call_ns: f64,
    /// Waking a thread on another core; none where there is one core.
    pub wake: Option<Wake>,
    /// Sending and receiving datagrams.
    pub datagrams: Vec<DatagramCost>,
    /// The idle strategies; none where there is one core.
    pub idle: Option<idle::Comparison>,
    /// Where a worker would run, and everything but the wake-ups' and the idle strategies' other end did.
    pub worker_core: Option<usize>,
    /// Where that other end ran; none where there is one core.
    pub other_core: Option<usize>,
}

/// What the machine does to a thread that wants little, where the worker would run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Noise {
    /// Oversleeping of a 1 ms sleep, µs.
    pub timer_p50_us: f64,
    /// 99th percentile.
    pub timer_p99_us: f64,
    /// The longest.
    pub timer_max_us: f64,
    /// Share of time that others took from a thread that never sleeps (pauses of 20 µs and more), percent.
    pub taken_percent: f64,
    /// The longest such pause, µs.
    pub longest_pause_us: f64,
    /// Share of time that the hypervisor gave to others during the whole measurement, percent.
    pub steal_percent: f64,
    /// Threads that wanted to run, averaged over the last minute.
    pub load_average: f64,
}

/// What it takes to wake a thread that sleeps in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Wake {
    /// From the ring of the doorbell until the sleeper runs, µs: median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// What it costs the one that rings, µs: median.
    pub ring_p50_us: f64,
}

/// What a datagram costs that is sent over loopback and received, both by one thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DatagramCost {
    /// `mmsg` or `uring`.
    pub io: &'static str,
    /// Datagrams that leave together.
    pub batch: usize,
    /// Whether they pass the kernel in trains.
    pub trains: bool,
    /// Bytes of each.
    pub bytes: usize,
    /// Time on the processor for each, ns.
    pub ns: f64,
}

/// Measures everything. None if it was not to go on.
pub fn measure(facts: &Facts, say: &dyn Fn(&str), go_on: &dyn Fn() -> bool) -> Option<Measured> {
    let placement = place(&facts.topology, &Cores::Auto, 1).ok();
    let core = placement.as_ref().and_then(|placement| placement.seats[0].core);
    let other = placement.and_then(|placement| placement.rest.iter().next()).filter(|&id| Some(id) != core);
    let step = |what: &str| {
        say(what);
        go_on().then_some(())
    };
    let before = noise::cpu_ticks();
    let mut measured = Measured { worker_core: core, other_core: other, ..Measured::default() };
    step("timers and pauses")?;
    measured.noise = on(core, look_at_noise)?;
    (measured.clock_ns, measured.call_ns) = on(core, || {
        let nanos = |duration: Duration| duration.as_nanos() as f64 / f64::from(CALLS);
        (nanos(timed(std::time::Instant::now)), nanos(timed(std::os::unix::process::parent_id)))
    })?;
    step("datagrams")?;
    measured.datagrams = on(core, || datagrams(facts))?;
    if let (Some(core), Some(other)) = (core, other) {
        step("wake-ups")?;
        measured.wake = wake_ups(core, other);
        measured.idle = idle::compare(facts, core, other, &step)?;
    }
    let after = noise::cpu_ticks();
    let (all, stolen) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    measured.noise.steal_percent = 100.0 * stolen as f64 / all.max(1) as f64;
    Some(measured)
}

/// Does something in a thread of its own on a processor. None if it panicked, which only the system can make it do.
pub(super) fn on<T: Send>(core: Option<usize>, work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let inside = || {
            // Where that is refused the scheduler chooses, and the noise shows it.
            let _ = scheduling::keep_to(&core.into_iter().collect::<CpuSet>());
            work()
        };
        scope.spawn(inside).join().ok()
    })
}

fn look_at_noise() -> Noise {
    let end = std::time::Instant::now() + NAPPING;
    let timer = noise::nap(|| std::time::Instant::now() < end).overslept.summary();
    let gaps = noise::watch_gaps(WATCHING);
    Noise {
        timer_p50_us: timer.p50_us,
        timer_p99_us: timer.p99_us,
        timer_max_us: timer.max_us,
        taken_percent: 100.0 * gaps.lost.as_secs_f64() / gaps.watched.as_secs_f64(),
        longest_pause_us: gaps.longest.as_secs_f64() * 1e6,
        steal_percent: 0.0,
        load_average: noise::load_average(),
    }
}

/// The shortest of five rounds: what others take only ever adds.
fn timed<T>(mut what: impl FnMut() -> T) -> Duration {
    let round = |_| {
        let begun = std::time::Instant::now();
        (0..CALLS).for_each(|_| {
            std::hint::black_box(what());
        });
        begun.elapsed()
    };
    (0..5).map(round).min().unwrap_or_default()
}

/// The backends as they would be chosen.
pub(super) fn choice(uring: bool, trains: bool) -> (Io, Choice) {
    (if uring { Io::Uring } else { Io::Mmsg }, Choice { uring, trains, stamps: false, reason: String::new() })
}

/// A backend on a loopback port, with its address and its doorbell.
pub(super) fn backend(uring: bool, trains: bool) -> std::io::Result<(Box<dyn Backend>, SocketAddr, Arc<Doorbell>)> {
    let listen = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    listen.set_nonblocking(true)?;
    // What the system allows; a few hundred datagrams fit the least of it.
    let _ = socket2::SockRef::from(&listen).set_recv_buffer_size(BUFFER);
    socket2::SockRef::from(&listen).set_reuse_port(true)?;
    let (address, bell) = (listen.local_addr()?, Arc::new(Doorbell::new()?));
    let (io, choice) = choice(uring, trains);
    let parts = Parts { listen, buffer: BUFFER, stock: 0, trains, stamps: false, bell: Arc::clone(&bell) };
    let (backend, _) = io::make(io, &choice, parts)?;
    Ok((backend, address, bell))
}

fn datagrams(facts: &Facts) -> Vec<DatagramCost> {
    let uring = facts.uring.is_some();
    let mut ways = vec![(false, 1, false), (false, BATCH, false)];
    ways.extend(facts.trains.then_some((false, BATCH, true)));
    ways.extend(uring.then_some((true, BATCH, false)));
    ways.extend((uring && facts.trains).then_some((true, BATCH, true)));
    let mut best: Vec<Option<DatagramCost>> = vec![None; ways.len()];
    // Interleaved, and the best of three: what others take only ever adds.
    for _ in 0..3 {
        for (&(uring, batch, trains), best) in ways.iter().zip(&mut best) {
            let Ok(cost) = send_and_receive(uring, batch, trains) else { continue };
            if best.as_ref().is_none_or(|best| cost.ns < best.ns) {
                *best = Some(cost);
            }
        }
    }
    best.into_iter().flatten().collect()
}

fn send_and_receive(uring: bool, batch_size: usize, trains: bool) -> std::io::Result<DatagramCost> {
    let ((mut source, ..), (mut sink, to, _)) = (backend(uring, trains)?, backend(uring, trains)?);
    let link = LinkId(0);
    let mut batch = Batch::new(BATCH);
    for _ in 0..batch_size {
        batch.push_with(|slot| {
            slot[..SIZE].fill(1);
            Some(Transmit { link: Some(link), to: to.into(), up: true, len: SIZE })
        });
    }
    let (mut refused, mut arrived) = (0, 0);
    let rounds = DATAGRAMS / batch_size.max(4);
    let begun = scheduling::time_on_cpu();
    for _ in 0..rounds {
        let deadline = std::time::Instant::now() + PATIENCE;
        source.send(Instant::ZERO, &batch, &mut |event| {
            refused += usize::from(matches!(event, Event::SendFailed { .. }))
        });
        let mut here = 0;
        while here < batch_size && std::time::Instant::now() < deadline {
            here += sink.poll(&mut |_| {});
        }
        arrived += here;
    }
    let used = scheduling::time_on_cpu() - begun;
    if refused > 0 || arrived < rounds * batch_size {
        return Err(std::io::Error::other("datagrams were lost on loopback"));
    }
    let io = if uring { "uring" } else { "mmsg" };
    Ok(DatagramCost { io, batch: batch_size, trains, bytes: SIZE, ns: used.as_nanos() as f64 / arrived as f64 })
}

/// A thread sleeps behind its doorbell as a worker does; another one rings.
fn wake_ups(core: usize, other: usize) -> Option<Wake> {
    let clock = Clock::start();
    let (mut woken, mut rung) = (Histogram::new(), Histogram::new());
    let (stamp, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let bell = Doorbell::new().ok()?;
    let sleeper = || {
        while !done.load(Ordering::Acquire) {
            if bell.prepare_sleep(|| stamp.load(Ordering::Acquire) == 0 && !done.load(Ordering::Acquire)) {
                bell.sleep(PATIENCE);
                bell.awake();
                bell.silence();
            }
            let rung_at = stamp.swap(0, Ordering::AcqRel);
            if rung_at > 0 {
                woken.record(clock.now().since(Instant::from_nanos(rung_at)));
            }
        }
    };
    let ringer = || {
        for _ in 0..WAKES {
            std::thread::sleep(WAKE_EVERY);
            let now = clock.now();
            stamp.store(now.as_nanos().max(1), Ordering::Release);
            bell.ring();
            rung.record(clock.now().since(now));
        }
        done.store(true, Ordering::Release);
        bell.ring_always();
    };
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| on(Some(core), sleeper));
        on(Some(other), ringer)?;
        sleeping.join().ok()?
    })?;
    let (woken, rung) = (woken.summary(), rung.summary());
    Some(Wake { p50_us: woken.p50_us, p99_us: woken.p99_us, ring_p50_us: rung.p50_us })
}
