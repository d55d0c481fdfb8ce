//! Two-ended links over virtual wires under a virtual clock, for tests.
//!
//! Ends are joined by wires, one per direction; several ends may share one (a bottleneck). A wire has a rate with a
//! drop-tail queue, a delay, jitter, loss (independent or in bursts), duplication and hiccups (a machine that stops for
//! a moment). Messages can be forwarded from end to end, which makes chains. [`Tcp`] is a rival for fairness tests.

use super::tcp::Tcp;
use crate::base::limits::DATAGRAM_SLOT;
use crate::base::{AddressPair, Class, Instant, NodeId, Rng};
use crate::containers::Pool;
use crate::containers::pool::Urgency;
use crate::proto::link::{CloseReason, Delivery, Event, Link, Settings};
use crate::wire::datagram::OVERHEAD;
use crate::wire::frame::{Frame, Frames};
use crate::wire::message::{HEADER_LEN, Header, Protocol};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The path of links that have one.
pub(super) const PATH: AddressPair =
    AddressPair { local: None, remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5300) };

/// Bytes of IPv4 and UDP headers, which a wire's rate also carries.
const IP_UDP: usize = 28;

#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    /// Probability that a burst of losses begins, and its mean length in packets.
    pub(super) bursts: (f64, f64),
    pub(super) duplication: f64,
    /// Probability that everything on the wire stops, and for how long.
    pub(super) hiccup: (f64, Duration),
    /// Random lateness of every datagram at the wire's entry. Without any, senders fall into step with a queue and one
    /// takes all its losses (Floyd and Jacobson 1991); machines are never that exact.
    pub(super) noise: Duration,
    /// Bits per second and bytes of queue; none for no limit.
    pub(super) rate: Option<(u64, usize)>,
    pub(super) max_datagram: usize,
    pub(super) cut: bool,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
    /// Reliable messages in the datagrams that were dropped.
    pub(super) dropped_reliable: u64,
    pub(super) busy_until: Instant,
    pub(super) last_arrival: Instant,
    pub(super) in_burst: bool,
}

impl Wire {
    pub(super) fn new(delay_ms: u64) -> Wire {
        Wire {
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::ZERO,
            loss: 0.0,
            bursts: (0.0, 1.0),
            duplication: 0.0,
            hiccup: (0.0, Duration::ZERO),
            noise: Duration::ZERO,
            rate: None,
            max_datagram: 1500,
            cut: false,
            bytes: 0,
            dropped: 0,
            dropped_reliable: 0,
            busy_until: Instant::ZERO,
            last_arrival: Instant::ZERO,
            in_burst: false,
        }
    }

    /// When a datagram that enters now arrives, if it does.
    fn carry(&mut self, now: Instant, len: usize, rng: &mut Rng) -> Option<Instant> {
        self.in_burst = if self.in_burst { !rng.chance(1.0 / self.bursts.1) } else { rng.chance(self.bursts.0) };
        if self.cut || len > self.max_datagram || self.in_burst || rng.chance(self.loss) {
            self.dropped += 1;
            return None;
        }
        let now = now + self.noise.mul_f64(rng.unit());
        let mut out = now;
        if let Some((rate, queue)) = self.rate {
            let backlog = self.busy_until.since(now).as_nanos() as u64 * rate / 8_000_000_000;
            // Long and short packets alike, as in the lab: a bound to fit under would favour the shorter.
            if backlog as usize >= queue {
                self.dropped += 1;
                return None;
            }
            out = self.busy_until.max(now) + Duration::from_nanos((len + IP_UDP) as u64 * 8_000_000_000 / rate);
            self.busy_until = out;
        }
        self.bytes += (len + IP_UDP) as u64;
        if rng.chance(self.hiccup.0) {
            self.last_arrival = self.last_arrival.max(out + self.delay + self.hiccup.1);
        }
        let mut arrival = out + self.delay;
        if self.jitter > Duration::ZERO {
            // Jitter reorders; hiccups do not.
            arrival += self.jitter.mul_f64(rng.unit());
        } else {
            arrival = arrival.max(self.last_arrival);
            self.last_arrival = arrival;
        }
        Some(arrival)
    }
}

/// How late a process runs when something is to be done: a datagram arrived or a timer is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    /// Mean of the ordinary lateness, exponentially distributed (its 99th percentile is 4.6 times as long).
    pub(super) lateness: Duration,
    /// Probability that the process stalls instead, and for how long.
    pub(super) stall: (f64, Duration),
}

impl Machine {
    fn wakes_after(&self, rng: &mut Rng) -> Duration {
        if rng.chance(self.stall.0) {
            return self.stall.1;
        }
        self.lateness.mul_f64(-(1.0 - rng.unit()).max(1e-9).ln())
    }

    fn is_exact(&self) -> bool {
        self.lateness.is_zero() && self.stall.0 == 0.0
    }
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) link: Link,
    pub(super) pool: Pool,
    pub(super) peer: usize,
    pub(super) wire: usize,
    /// Where messages that arrive here go on.
    pub(super) forward: Option<usize>,
    /// What arrived: when, and the bytes.
    pub(super) delivered: Vec<(Instant, Vec<u8>)>,
    pub(super) control: Vec<Vec<u8>>,
    pub(super) events: Vec<(Instant, Event)>,
    pub(super) stranded: Vec<Vec<u8>>,
    /// The process at this end does nothing until then.
    pub(super) frozen: Instant,
    pub(super) machine: Machine,
}

/// A stream of messages.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) end: usize,
    pub(super) port: u16,
    pub(super) class: Class,
    /// Bytes of a whole message.
    pub(super) len: usize,
    /// Distance of messages; none for as fast as the link's queue empties.
    pub(super) every: Option<Duration>,
    pub(super) next: Instant,
    pub(super) until: Instant,
    pub(super) sent: u64,
}

#[derive(Debug)]
enum Thing {
    /// A datagram reaches the machine, and then the process.
    Arrival {
        end: usize,
        number: u64,
        plaintext: Vec<u8>,
    },
    Datagram {
        end: usize,
        number: u64,
        plaintext: Vec<u8>,
    },
    TcpData {
        number: u64,
    },
    TcpAck {
        number: u64,
        held: Option<u64>,
    },
    Wake,
}

#[derive(Debug)]
pub(super) struct Sim {
    pub(super) now: Instant,
    pub(super) ends: Vec<End>,
    pub(super) wires: Vec<Wire>,
    pub(super) flows: Vec<Flow>,
    pub(super) tcp: Option<Tcp>,
    rng: Rng,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    things: BTreeMap<u64, Thing>,
    next_thing: u64,
}

impl Sim {
    /// One link over two equal wires; end 0 and end 1.
    pub(super) fn pair(seed: u64, settings: Settings, wire: Wire) -> Sim {
        Sim::chain(seed, settings, &[wire])
    }

    /// A chain of links; link i joins ends 2i and 2i+1, and messages that arrive at the one are forwarded by the next.
    pub(super) fn chain(seed: u64, settings: Settings, wires: &[Wire]) -> Sim {
        let mut sim = Sim {
            now: Instant::from_millis(1),
            ends: Vec::new(),
            wires: Vec::new(),
            flows: Vec::new(),
            tcp: None,
            rng: Rng::from_u64(seed),
            queue: BinaryHeap::new(),
            things: BTreeMap::new(),
            next_thing: 0,
        };
        for (index, wire) in wires.iter().enumerate() {
            let first = sim.join(settings.clone(), wire.clone());
            if index > 0 {
                sim.ends[first - 1].forward = Some(first);
            }
        }
        sim
    }

    /// Adds a link over two new wires; gives its first end.
    pub(super) fn join(&mut self, settings: Settings, wire: Wire) -> usize {
        let first = self.ends.len();
        for end in [first, first + 1] {
            let mut link = Link::new(self.now, settings.clone(), &[PATH.into()], self.rng.fork());
            link.attach(self.now, PATH, true);
            self.wires.push(wire.clone());
            self.ends.push(End {
                link,
                pool: Pool::new(16384),
                peer: end ^ 1,
                wire: self.wires.len() - 1,
                forward: None,
                delivered: Vec::new(),
                control: Vec::new(),
                events: Vec::new(),
                stranded: Vec::new(),
                frozen: Instant::ZERO,
                machine: Machine::default(),
            });
        }
        first
    }

    /// Runs until all links are up.
    pub(super) fn establish(&mut self) {
        let limit = self.now + Duration::from_secs(20);
        while !self.ends.iter().all(|end| end.link.is_up()) {
            assert!(self.now < limit, "links come up");
            self.run_for(Duration::from_millis(1));
        }
    }

    /// Adds a stream of messages that begins now.
    pub(super) fn flow(&mut self, end: usize, port: u16, class: Class, len: usize, per_second: f64, seconds: f64) {
        let every = (per_second > 0.0).then(|| Duration::from_secs_f64(1.0 / per_second));
        let until = self.now + Duration::from_secs_f64(seconds);
        self.flows.push(Flow { end, port, class, len, every, next: self.now, until, sent: 0 });
    }

    /// Sends one message of `len` bytes that carries `id` and the time.
    pub(super) fn send(&mut self, end: usize, port: u16, class: Class, len: usize, id: u64) -> bool {
        let bytes = message(port, class, len, id, self.now);
        self.send_bytes(end, &bytes)
    }

    fn send_bytes(&mut self, end: usize, bytes: &[u8]) -> bool {
        let header = Header::parse(bytes).expect("a test message");
        let End { link, pool, .. } = &mut self.ends[end];
        let Some(packet) = pool.copy_in(Urgency::Reserved, bytes) else { return false };
        let sent = link.send(self.now, packet, &header, pool).map_err(|packet| pool.release(packet)).is_ok();
        self.drain(end);
        sent
    }

    fn schedule(&mut self, at: Instant, thing: Thing) {
        self.things.insert(self.next_thing, thing);
        self.queue.push(Reverse((at, self.next_thing)));
        self.next_thing += 1;
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.schedule(end, Thing::Wake);
        while self.now < end {
            self.step(end);
        }
    }

    /// Advances to the next thing that happens, at most to `limit`.
    fn step(&mut self, limit: Instant) {
        let mut next = self.queue.peek().map_or(limit, |&Reverse((at, _))| at);
        for end in &self.ends {
            if let Some((at, _)) = end.link.poll_timeout() {
                next = next.min(at.max(end.frozen));
            }
        }
        for flow in self.flows.iter().filter(|flow| flow.every.is_some() && flow.next < flow.until) {
            next = next.min(flow.next);
        }
        if let Some(tcp) = &self.tcp {
            next = next.min(tcp.deadline());
        }
        self.now = next.max(self.now);
        while let Some(&Reverse((at, id))) = self.queue.peek() {
            if at > self.now {
                break;
            }
            self.queue.pop();
            let thing = self.things.remove(&id).expect("scheduled");
            self.happen(thing);
        }
        for end in 0..self.ends.len() {
            let due = self.ends[end].link.poll_timeout().is_some_and(|(at, _)| at <= self.now);
            if due && self.ends[end].frozen <= self.now && self.is_awake(end) {
                let End { link, pool, .. } = &mut self.ends[end];
                link.handle_timeout(self.now, pool);
                self.drain(end);
            }
        }
        self.run_flows();
        self.run_tcp();
    }

    /// Whether the process at `end` runs now that a timer is due; if not, that wakes it.
    fn is_awake(&mut self, end: usize) -> bool {
        let End { machine, frozen, .. } = &mut self.ends[end];
        let awake = machine.is_exact() || *frozen == self.now;
        if !awake {
            *frozen = self.now + machine.wakes_after(&mut self.rng).max(Duration::from_nanos(1));
        }
        awake
    }

    fn happen(&mut self, thing: Thing) {
        match thing {
            Thing::Arrival { end, number, plaintext } => {
                let End { machine, frozen, .. } = &mut self.ends[end];
                if *frozen < self.now && !machine.is_exact() {
                    *frozen = self.now + machine.wakes_after(&mut self.rng);
                }
                let at = self.now.max(*frozen);
                self.schedule(at, Thing::Datagram { end, number, plaintext });
            }
            Thing::Datagram { end, number, plaintext } => {
                let frozen = self.ends[end].frozen;
                if frozen > self.now {
                    return self.schedule(frozen, Thing::Datagram { end, number, plaintext });
                }
                let End { link, pool, .. } = &mut self.ends[end];
                link.handle_packet(self.now, PATH, number, plaintext.len() + OVERHEAD, &plaintext, pool);
                self.drain(end);
            }
            Thing::TcpData { number } => {
                let tcp = self.tcp.as_mut().expect("a rival");
                let (wire, answer) = (tcp.wires.1, tcp.on_data(number));
                if let Some((number, held)) = answer {
                    self.put(wire, 40, Thing::TcpAck { number, held });
                }
            }
            Thing::TcpAck { number, held } => {
                let (now, tcp) = (self.now, self.tcp.as_mut().expect("a rival"));
                held.into_iter().chain([number]).for_each(|number| tcp.on_ack(now, number));
            }
            Thing::Wake => {}
        }
    }

    /// Puts a datagram on a wire; false if it is lost.
    fn put(&mut self, wire: usize, len: usize, thing: Thing) -> bool {
        let arrival = self.wires[wire].carry(self.now, len, &mut self.rng);
        if let Some(at) = arrival {
            self.schedule(at, thing);
        }
        arrival.is_some()
    }

    /// Drains an end's outputs: deliver, transmit, event.
    pub(super) fn drain(&mut self, end: usize) {
        loop {
            let End { link, pool, .. } = &mut self.ends[end];
            match link.poll_deliver() {
                None => break,
                Some(Delivery::Control(packet)) => {
                    let bytes = pool.bytes(&packet).to_vec();
                    pool.release(packet);
                    self.ends[end].control.push(bytes);
                }
                Some(Delivery::Message(packet)) => {
                    let bytes = pool.bytes(&packet).to_vec();
                    pool.release(packet);
                    match self.ends[end].forward {
                        Some(next) => drop(self.send_bytes(next, &bytes)),
                        None => self.ends[end].delivered.push((self.now, bytes)),
                    }
                }
            }
        }
        let mut slot = [0xaa; DATAGRAM_SLOT];
        loop {
            let End { link, pool, peer, wire, .. } = &mut self.ends[end];
            let (peer, wire) = (*peer, *wire);
            let Some(outgoing) = link.poll_transmit(self.now, pool, &mut slot) else { break };
            let plaintext = slot[..outgoing.len].to_vec();
            let number = outgoing.number;
            if self.rng.chance(self.wires[wire].duplication) {
                // Security refuses the second copy; it only costs the wire its bytes.
                self.wires[wire].bytes += plaintext.len() as u64;
            }
            let reliable = Frames::new(&plaintext).filter(|frame| matches!(frame, Ok(Frame::Reliable(..)))).count();
            if !self.put(wire, outgoing.len + OVERHEAD, Thing::Arrival { end: peer, number, plaintext }) {
                self.wires[wire].dropped_reliable += reliable as u64;
            }
        }
        let End { link, pool, events, stranded, .. } = &mut self.ends[end];
        while let Some(packet) = link.poll_stranded() {
            stranded.push(pool.bytes(&packet).to_vec());
            pool.release(packet);
        }
        while let Some(event) = link.poll_event() {
            events.push((self.now, event));
        }
    }

    fn run_flows(&mut self) {
        for index in 0..self.flows.len() {
            loop {
                let flow = self.flows[index].clone();
                if self.now >= flow.until {
                    break;
                }
                match flow.every {
                    Some(every) if flow.next <= self.now => self.flows[index].next = flow.next + every,
                    None if self.ends[flow.end].link.queue_len() < 64 => {}
                    _ => break,
                }
                let id = (u64::from(flow.port) << 32) | flow.sent;
                let sent = self.send(flow.end, flow.port, flow.class, flow.len, id);
                self.flows[index].sent += u64::from(sent);
                if !sent {
                    break;
                }
            }
        }
    }

    fn run_tcp(&mut self) {
        let now = self.now;
        while let Some(number) = self.tcp.as_mut().and_then(|tcp| tcp.poll(now)) {
            let wire = self.tcp.as_ref().expect("a rival").wires.0;
            // 1,448 bytes of data, 32 of TCP header; the wire adds 28 where IP has 20.
            self.put(wire, 1472, Thing::TcpData { number });
        }
    }

    /// Everything under way is lost.
    pub(super) fn forget_datagrams(&mut self) {
        self.things.values_mut().for_each(|thing| *thing = Thing::Wake);
    }

    /// Drains an end, whose messages need not be well formed.
    pub(super) fn drain_blind(&mut self, end: usize) {
        let End { link, pool, .. } = &mut self.ends[end];
        while let Some(Delivery::Message(packet) | Delivery::Control(packet)) = link.poll_deliver() {
            pool.release(packet);
        }
        self.drain(end);
    }

    pub(super) fn close(&mut self, end: usize) {
        let now = self.now;
        self.ends[end].link.close(now, CloseReason::Shutdown);
        self.drain(end);
    }

    /// One-way times of what was delivered at `end` to `port`, sorted, in milliseconds.
    pub(super) fn latencies(&self, end: usize, port: u16) -> Vec<f64> {
        let of_port = self.ends[end]
            .delivered
            .iter()
            .filter(|(_, bytes)| Header::parse(bytes).expect("a test message").destination_port == port);
        let mut all: Vec<f64> = of_port.map(|(at, bytes)| at.since(sent_at(bytes)).as_secs_f64() * 1e3).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// Asserts that `count` messages of `port` were delivered at `end`, each exactly once.
    pub(super) fn assert_exactly_once(&self, end: usize, port: u16, count: u64) {
        let mut seen = vec![0u32; count as usize];
        for (_, bytes) in &self.ends[end].delivered {
            let id = id_of(bytes);
            if id >> 32 == u64::from(port) {
                seen[(id & 0xffff_ffff) as usize] += 1;
            }
        }
        let wrong: Vec<_> = seen.iter().enumerate().filter(|&(_, &times)| times != 1).take(5).collect();
        assert!(wrong.is_empty(), "of {count} messages these came (number, times): {wrong:?}");
    }
}

pub(super) fn message(port: u16, class: Class, len: usize, id: u64, now: Instant) -> Vec<u8> {
    let header = Header {
        class,
        ttl: 9,
        mark: false,
        protocol: Protocol::Datagram,
        destination: NodeId(1),
        source: NodeId(2),
        destination_port: port,
        source_port: 1,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(id.to_be_bytes());
    bytes.extend(now.as_nanos().to_be_bytes());
    bytes.resize(len.max(bytes.len()), 0x5a);
    bytes
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[HEADER_LEN + at..HEADER_LEN + at + 8].try_into().expect("eight bytes"))
}

pub(super) fn id_of(bytes: &[u8]) -> u64 {
    word(bytes, 0)
}

fn sent_at(bytes: &[u8]) -> Instant {
    Instant::from_nanos(word(bytes, 8))
}

/// The figures the experiment prints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) mean: f64,
    pub(super) sd: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Figures {
    pub(super) fn of(sorted: &[f64]) -> Figures {
        let n = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / n;
        let sd = (sorted.iter().map(|ms| (ms - mean).powi(2)).sum::<f64>() / n).sqrt();
        let at = |quantile: f64| sorted[((n * quantile).ceil() as usize).clamp(1, sorted.len()) - 1];
        Figures { mean, sd, p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}
