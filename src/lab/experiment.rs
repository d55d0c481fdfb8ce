//! The experiments: which worlds are built, which flows cross them, in which order.

use super::args::{Args, Experiment};
use super::bulk;
use super::conditions::Conditions;
use super::flows::{self, Board, Flow, Measured};
use super::ladder::{self, Mode};
use super::noise::Watch;
use super::outcome::{Cell, LinkTraffic, NotMeasured, Outcome, OverlayTraffic, Place, Run, Sweep};
use super::progress::Voice;
use super::sweep::{self, LINK_KBPS};
use super::topology::{self, Topology};
use super::transport::Transport;
use super::world::{OVERLAY_KIND, World};
use crate::telemetry::Histogram;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Rounds when transports take turns.
const ROUNDS: u64 = 5;
/// How long routers may take to find each other.
const CONVERGENCE: Duration = Duration::from_secs(20);

/// An experiment under way.
#[derive(Debug)]
pub struct Bench {
    args: Args,
    mode: Mode,
    voice: Voice,
    board: Arc<Board>,
    transports: Vec<Transport>,
    outcome: Outcome,
}

/// What an experiment leaves: its findings and, if it is to be kept, its last world.
#[derive(Debug)]
pub struct Finished {
    /// The findings.
    pub outcome: Outcome,
    /// The network, still running.
    pub world: Option<World>,
}

impl Bench {
    /// On this rung, as asked.
    pub fn new(args: &Args, mode: Mode, board: Arc<Board>) -> Bench {
        let mut outcome = Outcome::new(args.experiment, mode, args.seed(), args.sequential);
        let wanted = if args.transports.is_empty() { Transport::all() } else { args.transports.clone() };
        let (transports, refused): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|transport| mode.has_namespaces() || transport.runs_on_relays());
        outcome.not_measured = refused
            .iter()
            .map(|transport| NotMeasured {
                transport: transport.to_string(),
                why: "without network namespaces the kernel's own traffic cannot cross the emulated links".into(),
                enable: ladder::how_to_enable(args.wanted_mode()),
            })
            .collect();
        Bench { args: args.clone(), mode, voice: Voice::new(args.quiet), board, transports, outcome }
    }

    /// Runs the experiment asked for.
    pub fn run(mut self) -> io::Result<Finished> {
        let world = match (&self.args.topology, self.args.experiment) {
            (Some(path), _) => {
                let path = path.clone();
                Some(self.own_topology(&path)?)
            }
            (None, Experiment::Default) => Some(self.one_chain()?),
            (None, Experiment::Hops) => self.hops().map(|()| None)?,
            (None, Experiment::Throughput) => self.throughput().map(|()| None)?,
            (None, Experiment::Fairness) => self.fairness().map(|()| None)?,
            (None, Experiment::Dsn03) => {
                self.voice.say("everything the paper sweeps: about 25 minutes at 2,000 messages a point");
                self.losses()?;
                self.hops()?;
                self.throughput()?;
                None
            }
        };
        Ok(Finished { outcome: self.outcome, world: world.filter(|_| self.args.keep) })
    }

    /// A network for the next measurement, its routers started if any transport or the user wants them.
    fn build(&self, mut topology: Topology) -> io::Result<World> {
        // Another world, other losses: cells must not share their luck.
        topology.seed = topology.seed.wrapping_add(self.outcome.cells.len() as u64 + self.outcome.bulk.len() as u64);
        topology.io.clone_from(&self.args.io);
        topology.tcp = self.tcp();
        let world = World::with_mode(&topology, self.mode)?;
        if self.args.keep || self.transports.iter().any(Transport::is_overlay) {
            world.start(CONVERGENCE)?;
        }
        Ok(world)
    }

    /// A chain with loss on its middle link, each way.
    fn chain(&self, place: &Place) -> io::Result<World> {
        self.build(Topology { seed: self.args.seed(), ..sweep::lossy_chain(place) })
    }

    fn one_chain(&mut self) -> io::Result<World> {
        let (place, rate) = sweep::chain(&self.args);
        let (Place { loss_percent, hops, link_delay_ms }, messages) = (place, self.args.messages());
        self.voice.say(format!(
            "a chain of {hops} links of {link_delay_ms} ms and 10 Mbit/s, {loss_percent} % lost each way on the middle \
             one; {messages} messages of {} bytes at {rate} kbit/s by each of {} transports{}",
            self.args.size(),
            self.transports.len(),
            if self.args.sequential { ", in turns" } else { " at the same time" },
        ));
        let world = self.chain(&place)?;
        self.cell(&world, (place, rate), Sweep::Single, "measuring")?;
        Ok(world)
    }

    fn own_topology(&mut self, path: &std::path::Path) -> io::Result<World> {
        let (mut topology, flows) = topology::load(path)?;
        topology.seed = self.args.seed.unwrap_or(topology.seed);
        self.outcome.seed = topology.seed;
        let world = self.build(topology)?;
        for entry in flows {
            let place = sweep::own_place(world.topology(), &entry);
            let flow = |transport: &Transport| Flow {
                from: entry.from.clone(),
                to: entry.to.clone(),
                transport: transport.clone(),
                messages: self.args.messages(),
                size: self.args.size.map_or(entry.message_bytes, |size| size as usize),
                rate_kbps: self.args.rate.unwrap_or(entry.rate_kbps),
            };
            let flows = self.transports.iter().map(flow).collect();
            self.measure(&world, (place, Sweep::Own), flows, &format!("from {} to {}", entry.from, entry.to))?;
        }
        Ok(world)
    }

    fn losses(&mut self) -> io::Result<()> {
        let points = sweep::losses(&self.args);
        let Some(&(first, _)) = points.first() else { return Ok(()) };
        let world = self.chain(&Place { loss_percent: 0.0, ..first })?;
        for (place, rate) in points {
            let Place { loss_percent, hops, link_delay_ms } = place;
            let middle = world.links().nth(sweep::middle(hops));
            let link = middle.ok_or_else(|| io::Error::other("a chain without a middle"))?;
            link.set(Conditions::wire(link_delay_ms, LINK_KBPS).losing(loss_percent));
            std::thread::sleep(Duration::from_millis(100));
            let title = format!("{rate} kbit/s, {loss_percent:.1} % loss");
            self.cell(&world, (place, rate), Sweep::Loss, &title)?;
        }
        Ok(())
    }

    fn hops(&mut self) -> io::Result<()> {
        for (place, rate) in sweep::hops(&self.args) {
            let world = self.chain(&place)?;
            let title = format!("{} hops, 50 ms in all, {} % loss", place.hops, place.loss_percent);
            self.cell(&world, (place, rate), Sweep::Hops, &title)?;
        }
        Ok(())
    }

    /// Every transport once over this chain.
    fn cell(&mut self, world: &World, (place, rate_kbps): sweep::Point, sweep: Sweep, title: &str) -> io::Result<()> {
        let ends = (world.routers().first(), world.routers().last());
        let (Some(from), Some(to)) = ends else { return Err(io::Error::other("a chain without ends")) };
        let flow = |transport: &Transport| Flow {
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            transport: transport.clone(),
            messages: self.args.messages(),
            size: self.args.size(),
            rate_kbps,
        };
        let flows = self.transports.iter().filter(|transport| self.belongs(transport, sweep)).map(flow).collect();
        self.measure(world, (place, sweep), flows, title)
    }

    /// Whether a transport is measured in a sweep. Of one long link with 1 % loss, a sender as fair as TCP gets about 120
    /// packets a second: enough for the messages of one transport, too little for two in one link's window.
    fn belongs(&self, transport: &Transport, sweep: Sweep) -> bool {
        let crowds = sweep == Sweep::Hops && *transport == Transport::BestEffort;
        !crowds || self.args.sequential || !self.args.transports.is_empty()
    }

    fn measure(
        &mut self,
        world: &World,
        (place, sweep): (Place, Sweep),
        flows: Vec<Flow>,
        title: &str,
    ) -> io::Result<()> {
        if flows.is_empty() {
            return Err(io::Error::other("none of the transports asked for can be measured here"));
        }
        let total = flows.iter().map(|flow| flow.messages).sum();
        let before = (LinkTraffic::of(world), OverlayTraffic::of(world));
        let watch = Watch::start(world.emulator())?;
        let watching = self.voice.watch(title, total, &self.board);
        let measured = if self.args.sequential {
            in_turns(world, &flows, &self.board)?
        } else {
            let measured = flows::run(world, &flows, &self.board)?;
            measured.into_iter().map(|measured| (measured, None)).collect()
        };
        drop(watching);
        // The emulator publishes its counters every 20 ms.
        std::thread::sleep(Duration::from_millis(50));
        let mut senders = Histogram::new();
        measured.iter().for_each(|(measured, _)| senders.merge(&measured.sender));
        let noise = watch.finish(world.emulator(), senders.summary());
        let links = LinkTraffic::since(world, &before.0);
        let overlay = OverlayTraffic::of(world).since(&before.1, &links);
        let cell = self.outcome.cells.len();
        for (measured, alone) in measured {
            let name = measured.flow.transport.to_string();
            let told_apart = !measured.flow.transport.is_overlay();
            let bytes = alone.or_else(|| told_apart.then(|| LinkTraffic::bytes_of(&links, &name)));
            let raw = measured.flow.transport == Transport::RawUdp;
            let run = Run::new(measured, &place, cell, bytes);
            if raw { self.outcome.raw.push(run) } else { self.outcome.runs.push(run) }
        }
        self.outcome.add_noise(&noise);
        self.outcome.add_unread(&links, self.voice);
        self.outcome.cells.push(Cell {
            sweep,
            loss_percent: place.loss_percent,
            rate_kbps: flows.first().map_or(0, |flow| flow.rate_kbps),
            hops: place.hops,
            link_delay_ms: place.link_delay_ms,
            noise,
            links,
            overlay,
        });
        Ok(())
    }

    /// The congestion controls among what is measured.
    fn tcp(&self) -> Vec<String> {
        let name = |transport: &Transport| if let Transport::Tcp(name) = transport { Some(name.clone()) } else { None };
        self.transports.iter().filter_map(name).collect()
    }

    /// Bulk transports to compare: every TCP and the Sinew stream.
    fn bulk_transports(&self) -> Vec<Transport> {
        self.transports.iter().filter(|transport| transport.is_stream()).cloned().collect()
    }

    fn throughput(&mut self) -> io::Result<()> {
        let seconds = self.args.seconds.unwrap_or(10);
        let transports = self.bulk_transports();
        if transports.is_empty() {
            self.voice.say("throughput is of streams: there is none among the transports to be measured");
        }
        for (delay, loss) in sweep::bulks(&self.args) {
            for transport in &transports {
                self.voice.say(format!("throughput: {transport}, one {delay} ms link, {loss:.1} % loss, {seconds} s"));
                self.bulk(delay, loss, std::slice::from_ref(transport), seconds)?;
            }
        }
        Ok(())
    }

    fn fairness(&mut self) -> io::Result<()> {
        let seconds = self.args.seconds.unwrap_or(60);
        let delays = sweep::bulk_delays(&self.args);
        let cubic = self.bulk_transports().into_iter().find(|transport| *transport == Transport::Tcp("cubic".into()));
        if cubic.is_none() {
            self.voice.warn("no TCP CUBIC can be measured here: there is nothing to be fair to");
        }
        let loss = self.args.loss.unwrap_or(0.0);
        for delay in delays {
            for transport in [Some(Transport::Reliable), cubic.clone()].into_iter().flatten() {
                let alone = seconds.min(15);
                self.voice.say(format!("clean link: {transport} alone, {delay} ms, {alone} s"));
                self.bulk(delay, loss, &[transport], alone)?;
            }
            if let Some(cubic) = &cubic {
                self.voice
                    .say(format!("fairness: reliable beside {cubic}, one 10 Mbit/s link of {delay} ms, {seconds} s"));
                self.bulk(delay, loss, &[Transport::Reliable, cubic.clone()], seconds)?;
            }
        }
        Ok(())
    }

    /// Transfers through one link, in a world of their own.
    fn bulk(&mut self, delay: f64, loss: f64, transports: &[Transport], seconds: u64) -> io::Result<()> {
        let mut topology = Topology::chain(1, sweep::bulk_wire(delay, loss));
        topology.seed = self.args.seed().wrapping_add(self.outcome.bulk.len() as u64);
        topology.io.clone_from(&self.args.io);
        topology.tcp = self.tcp();
        let world = World::with_mode(&topology, self.mode)?;
        if transports.iter().any(Transport::is_overlay) {
            world.start(CONVERGENCE)?;
        }
        let watch = Watch::start(world.emulator())?;
        let duration = Duration::from_secs(seconds);
        let found = bulk::run(&world, transports, self.args.size(), duration, &self.board)?;
        self.outcome.add_noise(&watch.finish(world.emulator(), Histogram::new().summary()));
        self.outcome.add_unread(&LinkTraffic::of(&world), self.voice);
        self.outcome.bulk.extend(found);
        bulk::compare_with_tcp(&mut self.outcome.bulk);
        Ok(())
    }
}

/// Each transport alone, in rounds, so that what the machine does meanwhile hits all alike. Each answer carries the
/// bytes its transport put on the links.
fn in_turns(world: &World, flows: &[Flow], board: &Board) -> io::Result<Vec<(Measured, Option<u64>)>> {
    let mut found: Vec<Option<(Measured, Option<u64>)>> = vec![None; flows.len()];
    for round in 0..ROUNDS {
        for (flow, found) in flows.iter().zip(&mut found) {
            let share = flow.messages / ROUNDS + u64::from(round < flow.messages % ROUNDS);
            if share == 0 {
                continue;
            }
            let before = LinkTraffic::of(world);
            let flow = Flow { messages: share, ..flow.clone() };
            let measured = flows::run(world, std::slice::from_ref(&flow), board)?;
            std::thread::sleep(Duration::from_millis(50));
            let kind = if flow.transport.is_overlay() { OVERLAY_KIND.to_owned() } else { flow.transport.to_string() };
            let bytes = LinkTraffic::bytes_of(&LinkTraffic::since(world, &before), &kind);
            for measured in measured {
                *found = Some(match found.take() {
                    None => (measured, Some(bytes)),
                    Some((mut all, sum)) => {
                        all.tally.add(measured.tally);
                        all.sender.merge(&measured.sender);
                        all.flow.messages += share;
                        (all, sum.map(|sum| sum + bytes))
                    }
                });
            }
        }
    }
    Ok(found.into_iter().flatten().collect())
}
