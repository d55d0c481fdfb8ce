//! What an experiment found, as it is written to `result.json`.

use super::args::Experiment;
use super::emulator::Counters;
use super::flows::Measured;
use super::ladder::Mode;
use super::noise::Noise;
use super::progress::Voice;
use super::tally::{Sample, Tally};
use super::world::{OVERLAY_KIND, World};
use crate::wire::admin::{Request, Response};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Everything an experiment found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The version that measured.
    pub sinew: &'static str,
    /// What was measured.
    pub experiment: Experiment,
    /// The rung of the ladder, and what it is.
    pub mode: &'static str,
    /// The command line.
    pub command: String,
    /// Everything random followed from it.
    pub seed: u64,
    /// Whether transports ran one after another.
    pub sequential: bool,
    /// The machine's noise floor: the worst of all cells. Null in JSON where a simulator had no machine to measure.
    #[serde(serialize_with = "if_measured")]
    pub noise: Noise,
    /// Frames that the kernel dropped before the emulator read them. Above 0 the figures show losses that no link was
    /// asked for.
    pub unread_frames: u64,
    /// One for each transport in each cell.
    pub runs: Vec<Run>,
    /// The bare emulated path (kernel UDP), measured beside them.
    pub raw: Vec<Run>,
    /// Transports that could not be measured.
    pub not_measured: Vec<NotMeasured>,
    /// What was the same for several runs.
    pub cells: Vec<Cell>,
    /// Bulk transfers.
    pub bulk: Vec<Bulk>,
}

/// A noise floor, or null if there is none.
fn if_measured<S: serde::Serializer>(noise: &Noise, serializer: S) -> Result<S::Ok, S::Error> {
    (noise.cores > 0).then_some(noise).serialize(serializer)
}

impl Outcome {
    /// Nothing found yet.
    pub fn new(experiment: Experiment, mode: Mode, seed: u64, sequential: bool) -> Outcome {
        let command: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        Outcome {
            sinew: env!("CARGO_PKG_VERSION"),
            experiment,
            mode: mode.name(),
            command: std::iter::once("sinew".to_owned())
                .chain(command.into_iter().skip(1))
                .collect::<Vec<_>>()
                .join(" "),
            seed,
            sequential,
            noise: Noise::default(),
            unread_frames: 0,
            runs: Vec::new(),
            raw: Vec::new(),
            not_measured: Vec::new(),
            cells: Vec::new(),
            bulk: Vec::new(),
        }
    }

    /// Takes in what links carried: frames that nobody read are counted, and said aloud.
    pub fn add_unread(&mut self, links: &[LinkTraffic], voice: Voice) {
        let unread: u64 = links.iter().map(|link| link.counters.unread).sum();
        if unread > 0 {
            voice.warn(format!(
                "the kernel dropped {unread} frames before the emulator read them: this machine is too busy"
            ));
        }
        self.unread_frames += unread;
    }

    /// Takes in a cell's noise: of every figure the worse remains.
    pub fn add_noise(&mut self, noise: &Noise) {
        let mine = &mut self.noise;
        if noise.seconds == 0.0 {
            return;
        }
        let worse = |a: &mut f64, b: f64| *a = a.max(b);
        worse(&mut mine.timer_p50_us, noise.timer_p50_us);
        worse(&mut mine.timer_p99_us, noise.timer_p99_us);
        worse(&mut mine.timer_p999_us, noise.timer_p999_us);
        worse(&mut mine.timer_max_us, noise.timer_max_us);
        worse(&mut mine.longest_stall_ms, noise.longest_stall_ms);
        worse(&mut mine.emulator_p50_us, noise.emulator_p50_us);
        worse(&mut mine.emulator_p99_us, noise.emulator_p99_us);
        worse(&mut mine.emulator_p999_us, noise.emulator_p999_us);
        worse(&mut mine.emulator_max_us, noise.emulator_max_us);
        worse(&mut mine.sender_p99_us, noise.sender_p99_us);
        worse(&mut mine.steal_percent, noise.steal_percent);
        worse(&mut mine.load_average, noise.load_average);
        mine.stalls += noise.stalls;
        mine.emulator_frames += noise.emulator_frames;
        mine.seconds += noise.seconds;
        mine.cores = noise.cores;
    }
}

/// One transport in one cell.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// Its name.
    pub transport: String,
    /// Packets lost on the middle link, each way.
    pub loss_percent: f64,
    /// Rate of the messages' own bytes.
    pub rate_kbps: u64,
    /// Links crossed.
    pub hops: usize,
    /// Delay of each, one way.
    pub link_delay_ms: f64,
    /// Messages planned.
    pub sent: u64,
    /// Messages that arrived.
    pub received: u64,
    /// Messages that did not arrive, or not in time.
    pub lost: u64,
    /// Further arrivals of the same message.
    pub duplicated: u64,
    /// Messages that arrived after a later one.
    pub reordered: u64,
    /// Mean latency.
    pub mean_ms: f64,
    /// Standard deviation of the latency: the paper's jitter.
    pub sd_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Longest.
    pub max_ms: f64,
    /// Share of messages over 60 ms.
    pub over_60ms_percent: f64,
    /// Share of messages over 100 ms.
    pub over_100ms_percent: f64,
    /// A stream that had not delivered everything when the lab stopped waiting (25 s).
    pub collapsed: bool,
    /// Bytes this transport put on all links in both directions, where they can be told from the others'.
    pub bytes: Option<u64>,
    /// From which router.
    pub from: String,
    /// To which router.
    pub to: String,
    /// Which cell.
    pub cell: usize,
    /// Every message that arrived; written to the histogram files, not to JSON.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

impl Run {
    /// Of what a flow showed.
    pub fn new(measured: Measured, place: &Place, cell: usize, bytes: Option<u64>) -> Run {
        let Measured { flow, tally, .. } = measured;
        let figures = tally.figures();
        let Tally { samples, sent, duplicated, reordered, cut_off, .. } = tally;
        Run {
            transport: flow.transport.to_string(),
            loss_percent: place.loss_percent,
            rate_kbps: flow.rate_kbps,
            hops: place.hops,
            link_delay_ms: place.link_delay_ms,
            sent,
            received: samples.len() as u64,
            lost: sent - samples.len() as u64,
            duplicated,
            reordered,
            mean_ms: figures.mean,
            sd_ms: figures.sd,
            p50_ms: figures.p50,
            p90_ms: figures.p90,
            p99_ms: figures.p99,
            p999_ms: figures.p999,
            max_ms: figures.max,
            over_60ms_percent: figures.over_60,
            over_100ms_percent: figures.over_100,
            collapsed: cut_off,
            bytes,
            from: flow.from,
            to: flow.to,
            cell,
            samples,
        }
    }
}

/// Where a run took place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Packets lost on the middle link, each way.
    pub loss_percent: f64,
    /// Links crossed.
    pub hops: usize,
    /// Delay of each, one way.
    pub link_delay_ms: f64,
}

/// A transport that could not be measured.
#[derive(Clone, Debug, Serialize)]
pub struct NotMeasured {
    /// Which.
    pub transport: String,
    /// Why.
    pub why: String,
    /// What would make it possible.
    pub enable: String,
}

/// What a cell is part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sweep {
    /// It is alone.
    #[default]
    Single,
    /// The sweep of losses.
    Loss,
    /// The sweep of hops.
    Hops,
    /// A topology of the user's own: hops, delay and loss are those of the fewest-links path.
    Own,
}

/// What was the same for several runs.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// What it is part of.
    pub sweep: Sweep,
    /// Packets lost on the middle link, each way.
    pub loss_percent: f64,
    /// Rate of each transport.
    pub rate_kbps: u64,
    /// Links in the chain.
    pub hops: usize,
    /// Delay of each, one way.
    pub link_delay_ms: f64,
    /// The noise floor during it.
    #[serde(serialize_with = "if_measured")]
    pub noise: Noise,
    /// What each link carried, both directions.
    pub links: Vec<LinkTraffic>,
    /// What the routers counted.
    pub overlay: OverlayTraffic,
}

/// What one direction of a link carried.
#[derive(Clone, Debug, Serialize)]
pub struct LinkTraffic {
    /// From this router.
    pub from: String,
    /// To this one.
    pub to: String,
    /// Bytes by kind of traffic, Ethernet headers included.
    pub bytes_by_transport: BTreeMap<String, u64>,
    /// Frames by kind of traffic.
    pub frames_by_transport: BTreeMap<String, u64>,
    /// Frames lost on the wire, by kind of traffic.
    pub lost_by_transport: BTreeMap<String, u64>,
    /// Everything else counted.
    #[serde(flatten)]
    pub counters: Counters,
}

impl LinkTraffic {
    /// What every direction of every link has carried so far.
    pub fn of(world: &World) -> Vec<LinkTraffic> {
        let kinds = world.kinds();
        let both = world.links().flat_map(|link| {
            let ((a, b), (forward, back)) = (link.between(), link.counters());
            [LinkTraffic::new(a, b, forward, &kinds), LinkTraffic::new(b, a, back, &kinds)]
        });
        both.collect()
    }

    /// Of what was counted for these kinds of traffic.
    pub(super) fn new(from: &str, to: &str, counters: Counters, kinds: &[&str]) -> LinkTraffic {
        let named = |values: &[u64]| -> BTreeMap<String, u64> {
            let seen = kinds.iter().zip(values).filter(|&(_, &value)| value > 0);
            seen.map(|(kind, &value)| ((*kind).into(), value)).collect()
        };
        LinkTraffic {
            from: from.into(),
            to: to.into(),
            bytes_by_transport: named(&counters.bytes_by_kind),
            frames_by_transport: named(&counters.frames_by_kind),
            lost_by_transport: named(&counters.lost_by_kind),
            counters,
        }
    }

    /// What every direction has carried since `earlier`.
    pub fn since(world: &World, earlier: &[LinkTraffic]) -> Vec<LinkTraffic> {
        let kinds = world.kinds();
        let since = |(now, then): (LinkTraffic, &LinkTraffic)| {
            LinkTraffic::new(&now.from, &now.to, now.counters.since(&then.counters), &kinds)
        };
        LinkTraffic::of(world).into_iter().zip(earlier).map(since).collect()
    }

    /// What one kind of traffic put on this direction: bytes, frames, and frames lost on the wire.
    fn of_kind(&self, kind: &str) -> (u64, u64, u64) {
        let value = |values: &BTreeMap<String, u64>| values.get(kind).copied().unwrap_or(0);
        (value(&self.bytes_by_transport), value(&self.frames_by_transport), value(&self.lost_by_transport))
    }

    /// Bytes of one kind over all links and directions.
    pub fn bytes_of(links: &[LinkTraffic], kind: &str) -> u64 {
        links.iter().filter_map(|link| link.bytes_by_transport.get(kind)).sum()
    }
}

/// What all routers counted together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OverlayTraffic {
    /// Datagrams sent between routers.
    pub datagrams: u64,
    /// Messages originated by sessions and forwarded by routers: each counts once a link.
    pub transmissions: u64,
    /// Messages sent again on some link.
    pub retransmissions: u64,
    /// Of these, messages whose earlier copy had arrived.
    pub needless_retransmissions: u64,
    /// Retransmissions for a hundred recovered messages sent, on all links together.
    pub retransmission_percent: f64,
    /// The same on the link and direction with most: to be compared with what that link loses.
    pub worst_link_percent: f64,
    /// Every link and direction.
    pub links: Vec<OverlayLink>,
}

/// What one router counted of one of its links.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OverlayLink {
    /// The router.
    pub from: String,
    /// Its neighbour.
    pub to: String,
    /// Recovered messages (reliable and control) sent for the first time.
    pub recovered: u64,
    /// Those sent again.
    pub retransmissions: u64,
    /// Of these, messages whose earlier copy had arrived.
    pub needless_retransmissions: u64,
    /// Those sent again for a hundred sent.
    pub repeated_percent: f64,
    /// Bytes the overlay put on the wire in this direction, Ethernet headers included.
    pub bytes: u64,
    /// Datagrams it put on the wire in this direction, acknowledgements and control included.
    pub datagrams: u64,
    /// Of these, datagrams that the emulated wire lost.
    pub datagrams_lost: u64,
    /// The loss that came about, to be compared with `repeated_percent`.
    pub loss_percent: f64,
}

/// `part` of `whole`, percent.
fn share(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

impl OverlayTraffic {
    /// What all routers have counted so far; nothing for those that do not answer.
    pub fn of(world: &World) -> OverlayTraffic {
        let mut all = OverlayTraffic::default();
        for router in world.routers() {
            let Ok(overlay) = router.overlay() else { continue };
            let Ok(Response::Stats { workers }) = overlay.request(&Request::Stats) else { continue };
            for worker in &workers {
                let count = |value: &Value, name: &str| value[name].as_u64().unwrap_or(0);
                all.datagrams += count(worker, "datagrams_out");
                all.transmissions += count(worker, "originated") + count(worker, "forwarded");
                for link in worker["links"].as_array().into_iter().flatten() {
                    let stats = &link["stats"];
                    let peer = link["peer"].as_str().unwrap_or_default();
                    let to = peer.parse().ok().and_then(|node| overlay.name_of(node).ok());
                    all.links.push(OverlayLink {
                        from: router.name().to_owned(),
                        to: to.unwrap_or_else(|| peer.to_owned()),
                        recovered: count(&stats["reliable"], "sent") + count(&stats["control"], "sent"),
                        retransmissions: count(stats, "retransmissions"),
                        needless_retransmissions: count(stats, "needless_retransmissions"),
                        ..OverlayLink::default()
                    });
                }
            }
        }
        all.summed()
    }

    /// What was counted since `earlier`, beside what the wires carried and lost meanwhile.
    pub fn since(self, earlier: &OverlayTraffic, wires: &[LinkTraffic]) -> OverlayTraffic {
        let links = self.links.iter().map(|now| {
            let then = earlier.links.iter().find(|then| then.from == now.from && then.to == now.to);
            let then = then.cloned().unwrap_or_default();
            let wire = wires.iter().find(|wire| wire.from == now.from && wire.to == now.to);
            let (bytes, datagrams, datagrams_lost) = wire.map_or((0, 0, 0), |wire| wire.of_kind(OVERLAY_KIND));
            OverlayLink {
                from: now.from.clone(),
                to: now.to.clone(),
                recovered: now.recovered.saturating_sub(then.recovered),
                retransmissions: now.retransmissions.saturating_sub(then.retransmissions),
                needless_retransmissions: now.needless_retransmissions.saturating_sub(then.needless_retransmissions),
                bytes,
                datagrams,
                datagrams_lost,
                ..OverlayLink::default()
            }
        });
        OverlayTraffic {
            datagrams: self.datagrams.saturating_sub(earlier.datagrams),
            transmissions: self.transmissions.saturating_sub(earlier.transmissions),
            links: links.collect(),
            ..OverlayTraffic::default()
        }
        .summed()
    }

    fn summed(mut self) -> OverlayTraffic {
        let sum = |of: fn(&OverlayLink) -> u64| self.links.iter().map(of).sum::<u64>();
        let recovered = sum(|link| link.recovered);
        self.retransmissions = sum(|link| link.retransmissions);
        self.needless_retransmissions = sum(|link| link.needless_retransmissions);
        self.retransmission_percent = share(self.retransmissions, recovered);
        for link in &mut self.links {
            link.repeated_percent = share(link.retransmissions, link.recovered);
            link.loss_percent = share(link.datagrams_lost, link.datagrams);
        }
        self.worst_link_percent = self.links.iter().map(|link| link.repeated_percent).fold(0.0, f64::max);
        self
    }
}

/// One bulk transfer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Bulk {
    /// Its transport.
    pub transport: String,
    /// What ran beside it through the same link.
    pub beside: Option<String>,
    /// Packets lost on the link, each way.
    pub loss_percent: f64,
    /// Delay of the link, one way.
    pub link_delay_ms: f64,
    /// Rate of the link.
    pub link_kbps: u64,
    /// Bound of the link's queue.
    pub queue_bytes: u64,
    /// Seconds.
    pub seconds: f64,
    /// Bytes of messages received.
    pub received_bytes: u64,
    /// The same as a rate.
    pub goodput_kbps: f64,
    /// Share of all goodput at that time.
    pub share_percent: f64,
    /// Bytes it put on the link in the direction of the data, Ethernet headers included.
    pub wire_bytes: u64,
    /// Share of these bytes that were not the messages' own: headers, and what was sent again. Not what the paper calls
    /// overhead; that is `below_tcp_percent`.
    pub overhead_percent: f64,
    /// Goodput as a share of what TCP got alone under the same conditions, where both ran alone.
    pub of_tcp_percent: Option<f64>,
    /// What is missing there to all that TCP got: what the paper calls overhead.
    pub below_tcp_percent: Option<f64>,
    /// Goodput second by second, kbit/s.
    pub seconds_kbps: Vec<f64>,
}

impl Bulk {
    /// The share of `wire` bytes that were not the `own` bytes of messages, percent.
    pub fn overhead(own: u64, wire: u64) -> f64 {
        100.0 * (1.0 - own as f64 / wire.max(1) as f64).max(0.0)
    }
}
