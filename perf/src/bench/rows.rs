//! What is measured: rows of tables, and the bench that measures them.

use super::args::Common;
use super::bare::{Bare, Calls};
use super::clients;
use super::latency::{self, Beat, Delay};
use super::load::{self, Plan, Shown};
use super::machine::{Cores, Noise, Watched, pin, two_cores};
use super::overlay::Overlay;
use super::path::{Ends, Path, Raw};
use super::report::{Cell, Report};
use super::router::{Counted, Setup};
use super::tcp::{Relaying, Stream};
use sinew::base::Class;
use sinew::runtime::clock::Clock;
use std::io;

/// What carries messages from the source to the sink.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Carrier {
    /// Datagrams through a bare forwarder.
    Bare(Calls),
    /// Messages through the router.
    Router(Through),
    /// A stream through a relay, or without one.
    Tcp(Option<Relaying>),
    /// A stream between clients of two routers, who share memory with them or do not.
    Clients { shares: bool },
}

/// Messages through the router.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Through {
    pub(crate) class: Class,
    /// Each leaves the source in a datagram of its own.
    pub(crate) split: bool,
    /// Neighbours that they go to in turn.
    pub(crate) sinks: usize,
    /// The router sends no trains, whatever the options say.
    pub(crate) single: bool,
    /// Share of datagrams lost between router and sinks, in each direction.
    pub(crate) loss: f64,
    /// Workers of every router, the neighbours too.
    pub(crate) workers: usize,
}

/// Best effort to one neighbour.
pub(crate) const BEST_EFFORT: Through =
    Through { class: Class::BestEffort, split: false, sinks: 1, single: false, loss: 0.0, workers: 1 };
/// Reliable to one neighbour.
pub(crate) const RELIABLE: Through = Through { class: Class::Reliable, ..BEST_EFFORT };

/// One row of a table of loads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) carrier: Carrier,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Messages a second; none: as many as go.
    pub(crate) pace: Option<u32>,
    /// The row it is compared with, round by round.
    pub(crate) beside: &'static str,
    /// Ask what the time goes to.
    pub(crate) sampled: bool,
}

/// What stands between source and sink when latency is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Between {
    Nothing,
    Bare {
        calls: Calls,
        spin: bool,
    },
    Link,
    Router {
        idle: &'static str,
        single: bool,
    },
    /// A router whose clients send each other requests in turn: round trips.
    Clients {
        idle: &'static str,
        shares: bool,
    },
}

/// One row of a table of latencies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) name: &'static str,
    pub(crate) between: Between,
    pub(crate) beat: Beat,
    /// The row whose latency is taken off.
    pub(crate) beside: &'static str,
}

struct Bench<'a> {
    args: &'a Common,
    clock: Clock,
    cores: Option<(usize, usize)>,
    allowed: Cores,
    io: String,
}

/// Measures all rows that are wanted, in every round.
pub(crate) fn run(args: &Common, rows: &[Row], waits: &[Wait]) -> io::Result<Report> {
    let (cores, allowed) = (two_cores(), Cores::allowed()?);
    match cores {
        Some((_, second)) => pin(second),
        None => eprintln!("perf: only one core: forwarder and neighbours share it, and the figures show that"),
    }
    let rows = wanted(args, rows, |row| (row.name, row.beside));
    let waits = wanted(args, waits, |wait| (wait.name, wait.beside));
    if rows.is_empty() && waits.is_empty() {
        return Err(io::Error::other(format!("no cell's name contains {:?}", args.only)));
    }
    let mut bench = Bench { args, clock: Clock::start(), cores, allowed, io: String::new() };
    let mut noise = Noise::default();
    let mut loads: Vec<Cell<Shown>> = rows.iter().map(|row| Cell::new(row.name, row.beside)).collect();
    let mut delays: Vec<Cell<Delay>> = waits.iter().map(|wait| Cell::new(wait.name, wait.beside)).collect();
    for round in 1..=args.rounds {
        noise.observe(cores);
        for (row, cell) in rows.iter().zip(&mut loads) {
            eprintln!("perf: round {round} of {}: load, {}", args.rounds, row.name);
            cell.rounds.push(bench.load(row)?);
        }
        for (wait, cell) in waits.iter().zip(&mut delays) {
            eprintln!("perf: round {round} of {}: latency, {}", args.rounds, wait.name);
            cell.rounds.push(bench.delay(wait)?);
        }
    }
    Ok(Report::new(args, cores, bench.io, noise.report(), loads, delays))
}

/// Those that are asked for, and those that they are compared with.
fn wanted<T: Copy>(args: &Common, all: &[T], names: impl Fn(&T) -> (&'static str, &'static str)) -> Vec<T> {
    let asked = |name: &str| name.contains(&args.only);
    let beside = |name: &str| all.iter().map(&names).any(|(asker, beside)| beside == name && asked(asker));
    all.iter().filter(|one| asked(names(one).0) || beside(names(one).0)).copied().collect()
}

impl Bench<'_> {
    fn setup<'s>(&'s self, idle: &'s str, single: bool, workers: usize) -> Setup<'s> {
        Setup {
            io: &self.args.io,
            offload: if single { "off" } else { &self.args.offload },
            idle,
            congestion: &self.args.congestion.text,
            workers,
            core: self.core(),
            allowed: self.allowed,
        }
    }

    /// The core of what is measured.
    fn core(&self) -> Option<usize> {
        self.cores.map(|(first, _)| first)
    }

    fn bare(&self, calls: Calls, spin: bool) -> io::Result<(Raw, Bare)> {
        let ends = Ends::open()?;
        let bare = Bare::start(calls, ends.source.local_addr()?, ends.sink.local_addr()?, spin, self.core())?;
        let raw = Raw::new(ends, bare.entry, bare.exit)?;
        Ok((raw, bare))
    }

    fn load(&mut self, row: &Row) -> io::Result<Shown> {
        match row.carrier {
            Carrier::Bare(calls) => {
                let (mut raw, bare) = self.bare(calls, false)?;
                self.plan(row, true).measure(&mut raw, &bare.thread, || Ok(Counted::unbundled(bare.forwarded())))
            }
            Carrier::Tcp(None) => {
                let mut stream = Stream::direct(row.size)?;
                self.plan(row, false).measure(&mut stream, &Watched::calling(), || Ok(Counted::default()))
            }
            Carrier::Tcp(Some(relaying)) => {
                let (mut stream, relay) = Stream::relayed(row.size, relaying, self.core())?;
                let plan = self.plan(row, false);
                let shown = plan.measure(&mut stream, &relay.thread, || Ok(Counted::default()));
                drop(stream);
                relay.join();
                shown
            }
            Carrier::Router(through) => self.load_router(row, through),
            Carrier::Clients { shares } => {
                let near = self.setup("wait", false, 1);
                let far = Setup { core: self.cores.map(|(_, second)| second), ..self.setup("wait", false, 1) };
                let (shown, io) = clients::stream([&near, &far], shares, row.size, self.args.seconds)?;
                self.io = io;
                Ok(shown)
            }
        }
    }

    fn load_router(&mut self, row: &Row, through: Through) -> io::Result<Shown> {
        let congestion = self.args.congestion.meant;
        let setup = self.setup("wait", through.single, through.workers);
        let (mut overlay, router) = Overlay::through(self.clock, &setup, congestion, through.sinks)?;
        self.io = router.io()?;
        overlay.set(through.class, through.split, through.loss);
        let (source, sinks) = overlay.nodes();
        let counters = || Ok(Counted::between(&router.stats()?, source, &sinks));
        let lossy = through.class == Class::BestEffort;
        self.plan(row, lossy).measure(&mut overlay, &router.workers, counters)
    }

    fn plan(&self, row: &Row, lossy: bool) -> Plan {
        Plan {
            clock: self.clock,
            seconds: self.args.seconds,
            size: row.size,
            window: u64::from(self.args.window),
            pace: row.pace,
            lossy,
            sampled: row.sampled,
        }
    }

    fn delay(&mut self, wait: &Wait) -> io::Result<Delay> {
        let (clock, seconds) = (self.clock, self.args.seconds);
        let over = |path: &mut dyn Path| latency::measure(path, clock, wait.beat, seconds);
        let congestion = self.args.congestion.meant;
        // Messages of a burst are not bundled by the source: what the router makes of them is the question.
        let split = wait.beat.burst > 1;
        Ok(match wait.between {
            Between::Nothing => over(&mut Raw::direct()?),
            Between::Bare { calls, spin } => {
                let (mut raw, _bare) = self.bare(calls, spin)?;
                over(&mut raw)
            }
            Between::Link => {
                let mut overlay = Overlay::direct(clock, congestion)?;
                overlay.set(Class::BestEffort, split, 0.0);
                over(&mut overlay)
            }
            Between::Router { idle, single } => {
                let (mut overlay, router) = Overlay::through(clock, &self.setup(idle, single, 1), congestion, 1)?;
                self.io = router.io()?;
                overlay.set(Class::BestEffort, split, 0.0);
                over(&mut overlay)
            }
            Between::Clients { idle, shares } => {
                let (delay, io) = clients::round_trips(&self.setup(idle, false, 1), clock, shares, seconds)?;
                self.io = io;
                delay
            }
        })
    }
}

const _: () = assert!(load::WARM_UP.as_millis() == 400, "as the help says");
