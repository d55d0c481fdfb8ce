//! What each idle strategy costs: latency added, and time burnt.
//!
//! A worker without its protocols (the router's own backend, and its own [`Pace`]) sends back what it receives; a prober on
//! another processor, which never sleeps, times each datagram there and back:
//!
//! ```text
//!   prober ──── UDP, loopback ────► backend, pace      core of the worker
//!          ◄───────────────────────
//! ```
//!
//! The same without anybody in between, the prober sending to itself, is what the way costs anyway; the rest was added by
//! the hop. Strategies and rates take turns, so that what happens to the machine happens to all of them.

use super::facts::Facts;
use super::measure::{self, on};
use crate::base::Instant;
use crate::config::settings::Idle;
use crate::containers::Batch;
use crate::containers::batch::Transmit;
use crate::runtime::clock::Clock;
use crate::runtime::io::{BATCH, Event};
use crate::runtime::machine::scheduling;
use crate::runtime::pace::Pace;
use crate::telemetry::{Histogram, Summary};
use serde::Serialize;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Datagrams a second: none, few, and as many as an adaptive worker takes for load.
pub const RATES: [u32; 3] = [0, 1_000, 10_000];
/// The strategies.
pub const STRATEGIES: [Idle; 3] = [Idle::Spin, Idle::Adaptive, Idle::Wait];
/// Each strategy is measured at each rate so often, so long.
const ROUNDS: usize = 2;
const LASTING: Duration = Duration::from_millis(300);
/// A datagram that is not back by then is lost.
const PATIENCE: Duration = Duration::from_millis(20);
/// A worker without anything to do looks whether to stop this often; a router's looks after its house.
const LOOK: Duration = Duration::from_millis(100);
const SIZE: usize = 200;

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// There and back without a hop, µs: median.
    pub direct_p50_us: f64,
    /// 99th percentile.
    pub direct_p99_us: f64,
    /// Each strategy at each rate.
    pub costs: Vec<IdleCost>,
}

/// A strategy at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct IdleCost {
    /// The strategy.
    pub idle: Idle,
    /// Datagrams a second.
    pub per_second: u32,
    /// There and back through the hop, µs: median. Zero where there were no datagrams.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// What the hop added to the median, µs.
    pub added_us: f64,
    /// Time that the worker was on its processor, percent.
    pub cpu_percent: f64,
    /// Datagrams timed, and lost.
    pub samples: u64,
    /// Those that did not come back in time.
    pub lost: u64,
}

impl Comparison {
    /// A strategy at a rate.
    pub fn of(&self, idle: Idle, per_second: u32) -> Option<&IdleCost> {
        self.costs.iter().find(|cost| cost.idle == idle && cost.per_second == per_second)
    }
}

/// All rounds of one cell.
#[derive(Default)]
struct Cell {
    delays: Histogram,
    lost: u64,
    on_cpu: Duration,
    lasted: Duration,
}

/// Compares the strategies, the worker on `core` and the prober on `other`. `step` is told what comes, and ends it all by
/// answering none; the outer answer is then none, too. The inner one is none where the system refuses.
pub fn compare(
    facts: &Facts,
    core: usize,
    other: usize,
    step: &dyn Fn(&str) -> Option<()>,
) -> Option<Option<Comparison>> {
    let clock = Clock::start();
    let mut cells: Vec<Cell> = (0..STRATEGIES.len() * RATES.len()).map(|_| Cell::default()).collect();
    let mut direct = Histogram::new();
    for round in 1..=ROUNDS {
        for (number, idle) in STRATEGIES.into_iter().enumerate() {
            step(&format!("idle = \"{}\", round {round} of {ROUNDS}", crate::config::idle_word(idle)))?;
            for (place, rate) in RATES.into_iter().enumerate() {
                let cell = &mut cells[number * RATES.len() + place];
                if measure_cell(facts.uring.is_some(), core, other, clock, idle, rate, cell).is_none() {
                    return Some(None);
                }
            }
        }
        match on(Some(other), || probe_directly(clock)) {
            Some(Ok(delays)) => direct.merge(&delays),
            _ => return Some(None),
        }
    }
    let direct = direct.summary();
    let ways = STRATEGIES.into_iter().flat_map(|idle| RATES.map(|rate| (idle, rate)));
    let costs = ways.zip(&cells).map(|((idle, rate), cell)| cell.cost(idle, rate, &direct)).collect();
    Some(Some(Comparison { direct_p50_us: direct.p50_us, direct_p99_us: direct.p99_us, costs }))
}

impl Cell {
    fn cost(&self, idle: Idle, per_second: u32, direct: &Summary) -> IdleCost {
        let delays = self.delays.summary();
        IdleCost {
            idle,
            per_second,
            p50_us: delays.p50_us,
            p99_us: delays.p99_us,
            added_us: if delays.count > 0 { delays.p50_us - direct.p50_us } else { 0.0 },
            cpu_percent: 100.0 * self.on_cpu.as_secs_f64() / self.lasted.as_secs_f64().max(1e-9),
            samples: delays.count,
            lost: self.lost,
        }
    }
}

fn measure_cell(
    uring: bool,
    core: usize,
    other: usize,
    clock: Clock,
    idle: Idle,
    rate: u32,
    cell: &mut Cell,
) -> Option<()> {
    let (stop, (ready, started)) = (AtomicBool::new(false), mpsc::sync_channel(1));
    let (used, probed) = std::thread::scope(|scope| {
        let hop = scope.spawn(|| on(Some(core), || hop(uring, idle, &ready, &stop)));
        let probed = started.recv().ok().and_then(|address| on(Some(other), || probe(clock, address, rate).ok())?);
        stop.store(true, Ordering::Release);
        Some((hop.join().ok()??.ok()?, probed?))
    })?;
    let (delays, lost) = probed;
    cell.delays.merge(&delays);
    cell.lost += lost;
    (cell.on_cpu, cell.lasted) = (cell.on_cpu + used.0, cell.lasted + used.1);
    Some(())
}

/// A worker without its protocols, until it is told to stop. Answers its time on the processor, and how long it lasted.
fn hop(
    uring: bool,
    idle: Idle,
    ready: &mpsc::SyncSender<SocketAddr>,
    stop: &AtomicBool,
) -> std::io::Result<(Duration, Duration)> {
    let (mut backend, address, bell) = measure::backend(uring, false)?;
    let (clock, mut pace, mut batch) = (Clock::start(), Pace::new(idle), Batch::new(BATCH));
    // The prober waits for exactly this.
    let _ = ready.send(address);
    let (begun, before) = (clock.now(), scheduling::time_on_cpu());
    while !stop.load(Ordering::Acquire) {
        let now = clock.now();
        batch.clear();
        let datagrams = backend.poll(&mut |event| {
            if let Event::Datagram { from, bytes } = event {
                batch.push_with(|slot| {
                    slot[..bytes.len()].copy_from_slice(bytes);
                    Some(Transmit { link: None, to: from, up: false, len: bytes.len() })
                });
            }
        });
        if !batch.is_empty() {
            backend.send(now, &batch, &mut |_| {});
        }
        pace.count(now, datagrams);
        if !pace.spins(now) && bell.prepare_sleep(|| !stop.load(Ordering::Acquire)) {
            backend.wait(Some(LOOK));
            bell.awake();
        }
    }
    Ok((scheduling::time_on_cpu() - before, clock.now().since(begun)))
}

/// Sends so many datagrams a second and times each there and back; answers with the delays, and how many were lost.
fn probe(clock: Clock, to: SocketAddr, rate: u32) -> std::io::Result<(Histogram, u64)> {
    let (mut delays, mut lost) = (Histogram::new(), 0);
    if rate == 0 {
        std::thread::sleep(LASTING);
        return Ok((delays, lost));
    }
    let socket = UdpSocket::bind((to.ip(), 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    let (mut message, interval) = ([0; SIZE], Duration::from_nanos(1_000_000_000 / u64::from(rate)));
    let end = clock.now() + LASTING;
    let mut due = clock.now();
    while due < end {
        while clock.now() < due {
            std::hint::spin_loop();
        }
        let sent = clock.now();
        // Behind time there is no catching up: that would be another rate.
        due = (due + interval).max(sent);
        message[..8].copy_from_slice(&sent.as_nanos().to_be_bytes());
        socket.send(&message)?;
        match awaited(&socket, clock, sent, &mut message) {
            Some(delay) => delays.record(delay),
            None => lost += 1,
        }
    }
    Ok((delays, lost))
}

/// Waits for the datagram sent at `sent`, without sleeping.
fn awaited(socket: &UdpSocket, clock: Clock, sent: Instant, room: &mut [u8; SIZE]) -> Option<Duration> {
    loop {
        let mine = socket.recv(room).is_ok() && room[..8] == sent.as_nanos().to_be_bytes();
        let passed = clock.now().since(sent);
        if mine || passed > PATIENCE {
            return mine.then_some(passed);
        }
    }
}

/// The way there and back, with the prober at both ends.
fn probe_directly(clock: Clock) -> std::io::Result<Histogram> {
    let (near, far) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    near.connect(far.local_addr()?)?;
    far.connect(near.local_addr()?)?;
    let (mut delays, mut message) = (Histogram::new(), [0; SIZE]);
    let end = clock.now() + LASTING;
    loop {
        let sent = clock.now();
        if sent >= end {
            return Ok(delays);
        }
        near.send(&message)?;
        let len = far.recv(&mut message)?;
        far.send(&message[..len])?;
        near.recv(&mut message)?;
        delays.record(clock.now().since(sent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::machine::CpuSet;

    /// Shapes and sums, not speeds: the machine may be busy.
    #[test]
    fn a_hop_sends_back_what_it_receives_and_says_what_it_used() {
        let cpus = CpuSet::of_this_thread().expect("has some");
        let (core, other) = (cpus.iter().next().expect("one"), cpus.iter().last().expect("one"));
        let mut cell = Cell::default();
        measure_cell(false, core, other, Clock::start(), Idle::Wait, 1_000, &mut cell).expect("sockets can be had");
        let cost = cell.cost(Idle::Wait, 1_000, &Summary::default());
        assert!(cost.samples > 0 && cost.p50_us > 0.0 && cost.p99_us >= cost.p50_us, "{cost:?}");
        assert!(cost.cpu_percent > 0.0 && cost.cpu_percent <= 101.0, "{cost:?}");
        assert!((cost.added_us - cost.p50_us).abs() < 1e-9, "nothing is added to nothing");
        assert!(cell.lasted >= LASTING, "{:?}", cell.lasted);
        let mut resting = Cell::default();
        measure_cell(false, core, other, Clock::start(), Idle::Wait, 0, &mut resting).expect("sockets can be had");
        let rest = resting.cost(Idle::Wait, 0, &Summary::default());
        assert!(rest.samples == 0 && rest.added_us.abs() < 1e-9 && rest.cpu_percent < 50.0, "{rest:?}");
    }
}
