//! The cells of a round, and the rounds.

use crate::args::Args;
use crate::bare::Bare;
use crate::latency::{self, Delay};
use crate::load::{self, Plan, Shown};
use crate::machine::{Cores, Noise, pin, two_cores};
use crate::overlay::Overlay;
use crate::path::{Ends, Raw};
use crate::report::{Cell, Report};
use crate::router::{Counted, Setup};
use sinew::base::Class;
use sinew::runtime::clock::Clock;
use std::io;

/// One row of the table of loads.
struct Loaded {
    name: &'static str,
    /// What the messages are; none: bare datagrams.
    class: Option<Class>,
    split: bool,
    paced: bool,
    /// The row of the bare forwarder under the same load.
    beside: &'static str,
}

const LOADS: [Loaded; 6] = [
    Loaded { name: "bare", class: None, split: false, paced: false, beside: "bare" },
    Loaded { name: "best-effort", class: Some(Class::BestEffort), split: false, paced: false, beside: "bare" },
    Loaded { name: "best-effort split", class: Some(Class::BestEffort), split: true, paced: false, beside: "bare" },
    Loaded { name: "reliable", class: Some(Class::Reliable), split: false, paced: false, beside: "bare" },
    Loaded { name: "bare paced", class: None, split: false, paced: true, beside: "bare paced" },
    Loaded {
        name: "best-effort paced",
        class: Some(Class::BestEffort),
        split: true,
        paced: true,
        beside: "bare paced",
    },
];

/// What stands between source and sink when latency is measured.
#[derive(Clone, Copy)]
enum Between {
    Nothing,
    Bare { spin: bool },
    Link,
    Router { idle: &'static str },
}

/// Rows of the table of latencies, each with the row whose latency is taken off.
const DELAYS: [(&str, Between, &str); 6] = [
    ("direct, sockets", Between::Nothing, "direct, sockets"),
    ("bare, spin", Between::Bare { spin: true }, "direct, sockets"),
    ("bare, wait", Between::Bare { spin: false }, "direct, sockets"),
    ("direct, linked", Between::Link, "direct, linked"),
    ("router, spin", Between::Router { idle: "spin" }, "direct, linked"),
    ("router, wait", Between::Router { idle: "wait" }, "direct, linked"),
];

struct Bench<'a> {
    args: &'a Args,
    clock: Clock,
    cores: Option<(usize, usize)>,
    allowed: Cores,
    io: String,
}

/// Runs all rounds.
pub(crate) fn run(args: &Args) -> io::Result<Report> {
    let (cores, allowed) = (two_cores(), Cores::allowed()?);
    match cores {
        Some((_, second)) => pin(second),
        None => eprintln!("perf/transit: only one core: forwarder and neighbours share it, and the figures show that"),
    }
    let mut bench = Bench { args, clock: Clock::start(), cores, allowed, io: String::new() };
    let mut noise = Noise::default();
    let wanted = |name: &str| name.contains(&args.only);
    let mut loads: Vec<Cell<Shown>> =
        LOADS.iter().filter(|row| wanted(row.name)).map(|row| Cell::new(row.name, row.beside)).collect();
    let mut delays: Vec<Cell<Delay>> =
        DELAYS.iter().filter(|row| wanted(row.0)).map(|row| Cell::new(row.0, row.2)).collect();
    for round in 1..=args.rounds {
        noise.observe(cores);
        for row in LOADS.iter().filter(|row| wanted(row.name)) {
            eprintln!("perf/transit: round {round} of {}: load, {}", args.rounds, row.name);
            let shown = bench.load(row)?;
            loads.iter_mut().filter(|cell| cell.name == row.name).for_each(|cell| cell.rounds.push(shown));
        }
        for &(name, between, _) in DELAYS.iter().filter(|row| wanted(row.0)) {
            eprintln!("perf/transit: round {round} of {}: latency, {name}", args.rounds);
            let shown = bench.delay(between)?;
            delays.iter_mut().filter(|cell| cell.name == name).for_each(|cell| cell.rounds.push(shown));
        }
    }
    Ok(Report::new(args, cores, bench.io, noise.report(), loads, delays))
}

impl Bench<'_> {
    fn setup<'s>(&'s self, idle: &'s str) -> Setup<'s> {
        let core = self.cores.map(|(first, _)| first);
        Setup {
            io: &self.args.io,
            offload: &self.args.offload,
            idle,
            congestion: &self.args.congestion.text,
            core,
            allowed: self.allowed,
        }
    }

    fn bare(&self, spin: bool) -> io::Result<(Raw, Bare)> {
        let ends = Ends::open()?;
        let core = self.cores.map(|(first, _)| first);
        let bare = Bare::start(ends.source.local_addr()?, ends.sink.local_addr()?, spin, core)?;
        let raw = Raw::new(ends, bare.entry, bare.exit)?;
        Ok((raw, bare))
    }

    fn load(&mut self, row: &Loaded) -> io::Result<Shown> {
        let args = self.args;
        let plan = Plan {
            seconds: args.seconds,
            size: args.size as usize,
            window: u64::from(args.window),
            pace: row.paced.then_some(args.pace),
            lossy: row.class != Some(Class::Reliable),
        };
        let Some(class) = row.class else {
            let (mut raw, bare) = self.bare(false)?;
            return load::measure(&mut raw, self.clock, plan, &bare.thread, || {
                let count = bare.forwarded();
                Ok(Counted {
                    forwarded: count,
                    datagrams_in: count,
                    messages_in: count,
                    datagrams_out: count,
                    messages_out: count,
                    ..Counted::default()
                })
            });
        };
        let (mut overlay, router) = Overlay::through(self.clock, &self.setup("wait"), args.congestion.meant)?;
        self.io = router.io()?;
        overlay.set(class, row.split);
        let (source, sink) = overlay.nodes();
        let counters = || Ok(Counted::between(&router.stats()?, source, sink));
        load::measure(&mut overlay, self.clock, plan, &router.worker, counters)
    }

    fn delay(&self, between: Between) -> io::Result<Delay> {
        let args = self.args;
        let over = |path: &mut dyn crate::path::Path| {
            latency::measure(path, self.clock, args.size as usize, args.rate, args.seconds)
        };
        Ok(match between {
            Between::Nothing => over(&mut Raw::direct()?),
            Between::Bare { spin } => {
                let (mut raw, _bare) = self.bare(spin)?;
                over(&mut raw)
            }
            Between::Link => over(&mut Overlay::direct(self.clock, args.congestion.meant)?),
            Between::Router { idle } => {
                let (mut overlay, _router) = Overlay::through(self.clock, &self.setup(idle), args.congestion.meant)?;
                over(&mut overlay)
            }
        })
    }
}
