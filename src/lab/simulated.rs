//! The same experiments in the simulator: virtual wires, virtual time, the routers' real protocols.
//!
//! The places are the kernel's own (`sweep`): the one chain, the sweeps of loss and hops, the links to fill, a topology
//! file; wires have its rates, queues, delays and losses. Best effort and reliable each cross alone. What there is not:
//!
//! - a kernel: its TCP and its bare UDP are said to be not measured, and fairness, which is beside a TCP, is refused;
//! - Ethernet: a frame's 14 bytes are counted where bytes are, but take no time on the wire;
//! - a queue's own count: what found it full is among what a link lost;
//! - a machine: no noise floor (null in `result.json`), and time in a router costs nothing.

use super::args::{Args, Experiment};
use super::bulk;
use super::conditions::Conditions;
use super::emulator::Counters;
use super::flows::{Flow, Measured};
use super::ladder::Mode;
use super::noise::Noise;
use super::outcome::{Bulk, Cell, LinkTraffic, NotMeasured, Outcome, OverlayLink, OverlayTraffic, Place, Run, Sweep};
use super::progress::Voice;
use super::sweep::{self, LINK_KBPS};
use super::tally::{Sample, Tally};
use super::topology::{self, Topology};
use super::transport::Transport;
use super::world::OVERLAY_KIND;
use crate::sim::experiment::{self, Carried, Course};
use crate::sim::topology::Topology as Shape;
use crate::sim::wire::Conditions as Wire;
use crate::sim::workload::{Arrival, Kind};
use crate::telemetry::Histogram;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Bytes of an Ethernet header, which the simulator's wires do not count.
const ETHERNET: u64 = 14;
/// A source that fills a link offers so many times what the link carries.
const EAGERNESS: u32 = 4;

/// Runs the experiment asked for.
pub(super) fn run(args: &Args) -> io::Result<Outcome> {
    let mut outcome = Outcome::new(args.experiment, Mode::Loopback, args.seed(), true);
    outcome.mode = "simulated";
    let wanted = if args.transports.is_empty() { Transport::all() } else { args.transports.clone() };
    let (transports, missing): (Vec<_>, Vec<_>) = wanted.into_iter().partition(Transport::is_overlay);
    outcome.not_measured = missing.iter().map(not_measured).collect();
    let mut bench = Bench { args, voice: Voice::new(args.quiet), transports, outcome };
    match (&args.topology, args.experiment) {
        (Some(path), _) => bench.own_topology(path)?,
        (None, Experiment::Default) => bench.chains(vec![sweep::chain(args)], Sweep::Single)?,
        (None, Experiment::Hops) => bench.chains(sweep::hops(args), Sweep::Hops)?,
        (None, Experiment::Throughput) => bench.throughput()?,
        (None, Experiment::Dsn03) => {
            bench.chains(sweep::losses(args), Sweep::Loss)?;
            bench.chains(sweep::hops(args), Sweep::Hops)?;
            bench.throughput()?;
        }
        (None, Experiment::Fairness) => return Err(wrong("there is no TCP in the simulator to be fair to")),
    }
    Ok(bench.outcome)
}

/// What can be said before anything runs: whether this network can be simulated.
pub(super) fn check(topology: &Topology) -> Result<(), String> {
    let course = |transport| course(topology, (0, 0), transport, 1000, Duration::from_secs(1), 1);
    course(&Transport::Reliable).map(drop)
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}

fn not_measured(transport: &Transport) -> NotMeasured {
    NotMeasured {
        transport: transport.to_string(),
        why: "there is no kernel in the simulator".into(),
        enable: "leave out --sim".into(),
    }
}

struct Bench<'a> {
    args: &'a Args,
    voice: Voice,
    transports: Vec<Transport>,
    outcome: Outcome,
}

impl Bench<'_> {
    fn chains(&mut self, points: Vec<sweep::Point>, sweep: Sweep) -> io::Result<()> {
        for (place, rate) in points {
            self.voice.say(format!("{} hops, {} % loss, {rate} kbit/s, simulated", place.hops, place.loss_percent));
            let topology = sweep::lossy_chain(&place);
            let ends = (&topology.routers[0], &topology.routers[place.hops]);
            self.cell(&topology, ends, (place, rate), self.args.size(), sweep)?;
        }
        Ok(())
    }

    fn own_topology(&mut self, path: &Path) -> io::Result<()> {
        let (mut topology, flows) = topology::load(path)?;
        topology.seed = self.args.seed.unwrap_or(topology.seed);
        self.outcome.seed = topology.seed;
        for entry in flows {
            self.voice.say(format!("from {} to {}, simulated", entry.from, entry.to));
            let place = sweep::own_place(&topology, &entry);
            let rate = self.args.rate.unwrap_or(entry.rate_kbps);
            let size = self.args.size.map_or(entry.message_bytes, |size| size as usize);
            self.cell(&topology, (&entry.from, &entry.to), (place, rate), size, Sweep::Own)?;
        }
        Ok(())
    }

    /// Every transport once over this network, each alone.
    fn cell(
        &mut self,
        topology: &Topology,
        (from, to): (&String, &String),
        (place, rate): (Place, u64),
        size: usize,
        sweep: Sweep,
    ) -> io::Result<()> {
        let cell = self.outcome.cells.len();
        let mut seen = Seen::new(topology);
        for transport in self.transports.clone() {
            let flow = Flow {
                from: from.clone(),
                to: to.clone(),
                transport,
                messages: self.args.messages(),
                size,
                rate_kbps: rate,
            };
            let ends = (topology.place(from).unwrap_or(0), topology.place(to).unwrap_or(0));
            let seed = self.outcome.seed.wrapping_add(cell as u64);
            let course = course(topology, ends, &flow.transport, size, flow.interval(), seed).map_err(wrong)?;
            let measured = sound(experiment::paced(&course, flow.messages as u32))?;
            seen.add(&course, &measured);
            let bytes = measured.links.iter().flatten().map(on_wire).sum();
            let tally = tally(flow.messages, &measured.arrivals);
            let measured = Measured { flow, tally, sender: Histogram::new() };
            self.outcome.runs.push(Run::new(measured, &place, cell, Some(bytes)));
        }
        let (links, overlay) = seen.into_traffic();
        self.outcome.cells.push(Cell {
            sweep,
            loss_percent: place.loss_percent,
            rate_kbps: rate,
            hops: place.hops,
            link_delay_ms: place.link_delay_ms,
            noise: Noise::default(),
            links,
            overlay,
        });
        Ok(())
    }

    fn throughput(&mut self) -> io::Result<()> {
        if !self.transports.contains(&Transport::Reliable) {
            self.voice.say("throughput is of streams: `reliable` is not among the transports asked for");
            return Ok(());
        }
        let seconds = self.args.seconds.unwrap_or(10);
        for (delay, loss) in sweep::bulks(self.args) {
            self.voice
                .say(format!("throughput: reliable, one {delay} ms link, {loss:.1} % loss, {seconds} s, simulated"));
            let bulk = self.bulk(delay, loss, seconds)?;
            self.outcome.bulk.push(bulk);
        }
        bulk::compare_with_tcp(&mut self.outcome.bulk);
        Ok(())
    }

    /// A stream that fills one link.
    fn bulk(&self, delay: f64, loss: f64, seconds: u64) -> io::Result<Bulk> {
        let (size, duration) = (self.args.size(), Duration::from_secs(seconds));
        let wire = sweep::bulk_wire(delay, loss);
        let interval = Duration::from_nanos(size as u64 * 8_000_000 / LINK_KBPS) / EAGERNESS;
        let seed = self.outcome.seed.wrapping_add(self.outcome.bulk.len() as u64);
        let topology = Topology::chain(1, wire);
        let course = course(&topology, (0, 1), &Transport::Reliable, size, interval, seed).map_err(wrong)?;
        let measured = sound(experiment::bulk(&course, duration))?;
        let mut each = vec![0u64; seconds as usize];
        let start = measured.start;
        for arrival in &measured.arrivals {
            let second = (arrival.due + arrival.latency).since(start).as_secs() as usize;
            if let Some(bytes) = each.get_mut(second) {
                *bytes += size as u64;
            }
        }
        let received_bytes = each.iter().sum::<u64>();
        let wire_bytes = on_wire(&measured.links[0][0]);
        Ok(Bulk {
            transport: Transport::Reliable.to_string(),
            beside: None,
            loss_percent: loss,
            link_delay_ms: delay,
            link_kbps: wire.rate_kbps,
            queue_bytes: wire.queue_bytes,
            seconds: seconds as f64,
            received_bytes,
            goodput_kbps: received_bytes as f64 * 8.0 / 1e3 / seconds as f64,
            share_percent: 100.0,
            wire_bytes,
            overhead_percent: Bulk::overhead(received_bytes, wire_bytes),
            of_tcp_percent: None,
            below_tcp_percent: None,
            seconds_kbps: each.iter().map(|&bytes| bytes as f64 * 8.0 / 1e3).collect(),
        })
    }
}

/// What was measured, if the routers found each other and no rule was broken.
fn sound(measured: Result<experiment::Measured, String>) -> io::Result<experiment::Measured> {
    let measured = measured.map_err(|why| io::Error::other(format!("the routers do not find each other: {why}")))?;
    match measured.violation {
        Some(violation) => Err(io::Error::other(violation)),
        None => Ok(measured),
    }
}

/// What links carried and routers counted, of all transports of a cell together.
struct Seen<'a> {
    topology: &'a Topology,
    /// By the places of the routers from and to.
    wires: BTreeMap<(usize, usize), Counters>,
    links: BTreeMap<(usize, usize), OverlayLink>,
    overlay: OverlayTraffic,
}

impl Seen<'_> {
    const fn new(topology: &Topology) -> Seen<'_> {
        let overlay = OverlayTraffic {
            datagrams: 0,
            transmissions: 0,
            retransmissions: 0,
            needless_retransmissions: 0,
            retransmission_percent: 0.0,
            worst_link_percent: 0.0,
            links: Vec::new(),
        };
        Seen { topology, wires: BTreeMap::new(), links: BTreeMap::new(), overlay }
    }

    fn add(&mut self, course: &Course, measured: &experiment::Measured) {
        for (&(a, b), &[forward, back]) in course.topology.links.iter().zip(&measured.links) {
            for (ends, carried) in [((a, b), forward), ((b, a), back)] {
                let counters = self.wires.entry(ends).or_default();
                counters.frames += carried.datagrams;
                counters.bytes += on_wire(&carried);
                counters.delivered += carried.arrived;
                counters.lost += carried.lost;
                counters.duplicated += carried.doubled;
                counters.frames_by_kind[0] += carried.datagrams;
                counters.bytes_by_kind[0] += on_wire(&carried);
                counters.lost_by_kind[0] += carried.lost;
            }
        }
        for (router, counted) in measured.routers.iter().enumerate() {
            self.overlay.datagrams += counted.datagrams;
            self.overlay.transmissions += counted.transmissions;
            for link in &counted.links {
                let sum = self.links.entry((router, link.to)).or_default();
                sum.recovered += link.recovered;
                sum.retransmissions += link.retransmissions;
                sum.needless_retransmissions += link.needless_retransmissions;
            }
        }
    }

    fn into_traffic(self) -> (Vec<LinkTraffic>, OverlayTraffic) {
        let name = |place: usize| self.topology.routers[place].clone();
        let of_wire = |((from, to), counters)| LinkTraffic::new(&name(from), &name(to), counters, &[OVERLAY_KIND]);
        let wires: Vec<LinkTraffic> = self.wires.into_iter().map(of_wire).collect();
        let named = |((from, to), link)| OverlayLink { from: name(from), to: name(to), ..link };
        let overlay = OverlayTraffic { links: self.links.into_iter().map(named).collect(), ..self.overlay };
        let overlay = overlay.since(&OverlayTraffic::default(), &wires);
        (wires, overlay)
    }
}

fn on_wire(carried: &Carried) -> u64 {
    carried.bytes + ETHERNET * carried.datagrams
}

/// One flow across a network of the lab's, for the simulator; the error says what it cannot do.
fn course(
    topology: &Topology,
    (from, to): (usize, usize),
    transport: &Transport,
    size: usize,
    interval: Duration,
    seed: u64,
) -> Result<Course, String> {
    let (mut links, mut wires): (Vec<(usize, usize)>, _) = (Vec::new(), Vec::new());
    for link in &topology.links {
        let (a, b) = &link.between;
        let of_link = |error: String| format!("the link between `{a}` and `{b}`: {error}");
        let place = |name| topology.place(name).ok_or_else(|| of_link(format!("there is no router `{name}`")));
        let (x, y) = (place(a)?, place(b)?);
        let (forward, back) = (wire(&link.forward).map_err(of_link)?, wire(&link.back).map_err(of_link)?);
        if links.contains(&(x.min(y), x.max(y))) {
            return Err(of_link("the simulator joins two routers by one link: leave out the other, or --sim".into()));
        }
        links.push((x.min(y), x.max(y)));
        wires.push(if x < y { [forward, back] } else { [back, forward] });
    }
    let kind = if *transport == Transport::Reliable { Kind::Stream } else { Kind::BestEffort };
    let topology = Shape { routers: topology.routers.len(), links, workers: Vec::new() };
    Ok(Course { topology, wires, from, to, kind, size, interval, seed })
}

/// A wire of the simulator that does what the lab's does under these conditions.
fn wire(conditions: &Conditions) -> Result<Wire, String> {
    if conditions.reorder_percent > 0.0 {
        return Err("the simulator cannot hold frames back for reorder_ms: leave out reorder_percent, or --sim".into());
    }
    let share = |percent: f64| percent / 100.0;
    let millis = |ms: f64| Duration::from_secs_f64(ms / 1e3);
    // The lab's jitter is to both sides, the simulator's is added.
    let least = (conditions.delay_ms - conditions.jitter_ms).max(0.0);
    let jitter = if conditions.jitter_ms > 0.0 { conditions.delay_ms + conditions.jitter_ms - least } else { 0.0 };
    let loss = share(conditions.loss_percent);
    let bursty = conditions.loss_burst > 1.0 && loss > 0.0 && loss < 1.0;
    // The Gilbert–Elliott chain of `conditions`: its bad state loses everything and ends after a mean run.
    let leave = 1.0 / conditions.loss_burst;
    let calm = Wire::perfect(millis(least));
    Ok(Wire {
        jitter: millis(jitter),
        loss: if bursty { 0.0 } else { loss },
        burst: if bursty { (leave * loss / (1.0 - loss)).min(1.0) } else { 0.0 },
        burst_end: if bursty { leave } else { calm.burst_end },
        duplicate: share(conditions.duplicate_percent),
        corrupt: share(conditions.corrupt_percent),
        rate: (conditions.rate_kbps > 0).then_some(conditions.rate_kbps * 1000),
        queue: usize::try_from(conditions.queue_bytes).unwrap_or(usize::MAX),
        taken_up: true,
        cut: conditions.cut,
        ..calm
    })
}

fn tally(sent: u64, arrivals: &[Arrival]) -> Tally {
    let mut tally = Tally::new(sent);
    let sample = |arrival: &Arrival| Sample { intended: arrival.due, latency_ns: arrival.latency.as_nanos() as u64 };
    tally.samples.extend(arrivals.iter().map(sample));
    let mut latest = None;
    for arrival in arrivals {
        tally.reordered += u64::from(Some(arrival.due) < latest);
        latest = latest.max(Some(arrival.due));
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::args::parse;

    /// What is printed would end up in the test's output.
    fn simulate(line: &str) -> Outcome {
        run(&parse(&format!("--sim --quiet {line}"))).expect("can be simulated")
    }

    #[test]
    fn a_chain_has_the_experiments_wires_and_the_transports_asked_for() {
        let outcome = simulate("--messages 200 --loss 0 --transports reliable");
        let [run] = outcome.runs.as_slice() else { panic!("one transport: {:?}", outcome.runs) };
        assert_eq!((run.transport.as_str(), run.sent, run.lost), ("reliable", 200, 0));
        // As on the emulated links, an idle wire adds its delay and nothing for a message's length.
        assert!((50.0..50.5).contains(&run.p50_ms), "{}", run.p50_ms);
        // Beyond the links' rate messages queue up: the wires have one.
        let crowded = simulate("--messages 500 --loss 0 --rate 20000 --transports best-effort");
        assert!(crowded.runs[0].lost > 0 || crowded.runs[0].p99_ms > 60.0, "{:?}", crowded.runs[0].p99_ms);
        assert!(outcome.not_measured.is_empty(), "nothing else was asked for");
        let both = simulate("--messages 50 --loss 0");
        assert_eq!(both.runs.iter().map(|run| run.transport.as_str()).collect::<Vec<_>>(), ["best-effort", "reliable"]);
        let missing = |name: &str| both.not_measured.iter().any(|missing| missing.transport == name);
        assert!(missing("raw-udp") && both.not_measured.iter().any(|missing| missing.transport.starts_with("tcp-")));
    }

    #[test]
    fn what_links_carried_is_told_and_what_no_machine_showed_is_null() {
        let outcome = simulate("--messages 200 --loss 5");
        let value = serde_json::to_value(&outcome).expect("is JSON");
        assert!(value["noise"].is_null() && value["cells"][0]["noise"].is_null());
        let cell = &outcome.cells[0];
        let sum = |of: fn(&LinkTraffic) -> u64| cell.links.iter().map(of).sum::<u64>();
        assert_eq!(cell.links.len(), 10, "five links, both ways");
        let bytes: u64 = outcome.runs.iter().filter_map(|run| run.bytes).sum();
        assert_eq!((sum(|link| link.counters.bytes), LinkTraffic::bytes_of(&cell.links, OVERLAY_KIND)), (bytes, bytes));
        let lossy: Vec<_> = cell.links.iter().filter(|link| link.counters.lost > 0).map(|link| &*link.from).collect();
        assert_eq!(lossy, ["c", "d"], "the middle link");
        // What routers sent is what wires were given.
        assert_eq!(cell.overlay.datagrams, sum(|link| link.counters.frames));
        assert!(cell.overlay.transmissions >= 2 * 5 * 195 && cell.overlay.retransmissions > 0, "{:?}", cell.overlay);
        let repeats = |link: &&OverlayLink| link.retransmissions > 0;
        assert!(cell.overlay.links.iter().filter(repeats).all(|link| link.loss_percent > 1.0), "{:?}", cell.overlay);
    }

    #[test]
    fn the_papers_sweep_is_whole_but_for_the_kernels_part() {
        let outcome = simulate("--experiment dsn03 --loss 1 --messages 100 --seconds 5");
        let places: Vec<_> = outcome.cells.iter().map(|cell| (cell.sweep, cell.hops, cell.rate_kbps)).collect();
        assert_eq!(places[..2], [(Sweep::Loss, 5, 500), (Sweep::Loss, 5, 1000)]);
        assert_eq!(places[2..], (1..=10).map(|hops| (Sweep::Hops, hops, 500)).collect::<Vec<_>>());
        let bulks: Vec<_> = outcome.bulk.iter().map(|bulk| (bulk.link_delay_ms, bulk.loss_percent)).collect();
        assert_eq!(bulks, [(10.0, 1.0), (50.0, 1.0)]);
        // At 1 % a stream gets less of a longer link, and of none all.
        let goodput: Vec<f64> = outcome.bulk.iter().map(|bulk| bulk.goodput_kbps).collect();
        assert!(goodput[1] < goodput[0] && goodput[0] < 9_400.0 && goodput[1] > 300.0, "{goodput:?}");
        assert!(outcome.bulk.iter().all(|bulk| bulk.seconds_kbps.len() == 5 && bulk.overhead_percent > 2.0));
    }

    #[test]
    fn a_clean_link_is_filled() {
        let outcome = simulate("--experiment throughput --loss 0 --delay 10 --seconds 10");
        assert!(outcome.bulk[0].goodput_kbps > 8_800.0, "{:?}", outcome.bulk[0]);
        assert!(outcome.cells.is_empty() && !outcome.not_measured.is_empty());
    }

    const OWN: &str = r#"
        seed = 9
        nodes = ["left", "middle", "right"]
        [[link]]
        between = ["right", "middle"]
        conditions = { delay_ms = 5, rate_kbps = 2000 }
        back = { delay_ms = 20 }
        [[link]]
        between = ["left", "middle"]
        conditions = { delay_ms = 10 }
        [[flow]]
        from = "left"
        to = "right"
        [[flow]]
        from = "right"
        to = "left"
    "#;

    #[test]
    fn a_topology_file_is_simulated_each_way_with_its_seed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("own.toml");
        std::fs::write(&path, OWN).expect("is written");
        let line = format!("--messages 50 --transports reliable --topology {}", path.display());
        let outcome = simulate(&line);
        let of = |run: &Run| (run.from.clone(), run.to.clone(), run.p50_ms.round() as u64, run.hops);
        let found: Vec<_> = outcome.runs.iter().map(of).collect();
        assert_eq!(found, [("left".into(), "right".into(), 30, 2), ("right".into(), "left".into(), 15, 2)]);
        assert_eq!((outcome.seed, simulate(&format!("{line} --seed 4")).seed), (9, 4));
    }

    #[test]
    fn what_wires_cannot_do_is_refused() {
        let read = |text: &str| topology::read(text).expect("a good file").0;
        assert_eq!(check(&read(OWN)), Ok(()));
        let held = check(&read(&OWN.replace("back = { delay_ms = 20 }", "back = { reorder_percent = 1 }")));
        assert!(held.is_err_and(|why| why.contains("`right` and `middle`") && why.contains("leave out")));
        let twice = check(&read(
            &OWN.replace("\"left\", \"middle\"]\n        conditions", "\"middle\", \"right\"]\n        conditions"),
        ));
        assert!(twice.is_err_and(|why| why.contains("one link")));
    }

    #[test]
    fn conditions_mean_the_same_on_both_kinds_of_wire() {
        let bursty = Conditions { jitter_ms: 3.0, loss_burst: 5.0, ..Conditions::wire(10.0, 8_000) }.losing(2.0);
        let wire = wire(&bursty).expect("can be simulated");
        assert_eq!((wire.delay, wire.jitter), (Duration::from_millis(7), Duration::from_millis(6)));
        assert_eq!((wire.loss, wire.burst_end, wire.rate), (0.0, 0.2, Some(8_000_000)));
        // The chain is in its bad state for this share of the time.
        assert!((wire.burst / (wire.burst + wire.burst_end) - 0.02).abs() < 1e-9);
    }
}
