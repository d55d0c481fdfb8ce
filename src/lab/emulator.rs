//! The link emulator: one thread that is every wire of the lab.
//!
//! A link has two ports; a frame that comes in at one goes out at the other when [`Direction`] says so. A port is a raw
//! packet socket on the lab's end of a veth pair or, where namespaces are forbidden, a UDP socket connected to a router.
//! Frames are timed from the kernel's receive stamp, not from when the thread got round to them; departures wait in a
//! heap, slept for by `ppoll` and spun for over the last `SPIN`. How late each departure was is recorded, because that
//! is the error of every figure measured through these links.

use super::clock;
use super::conditions::{Conditions, Direction, Fate};
use super::netns;
use crate::base::{Instant, Rng};
use crate::telemetry::{Histogram, Summary};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Before a departure the thread stops sleeping this early: what a wake-up costs on an ordinary machine.
const SPIN: Duration = Duration::from_micros(60);
/// Room for one frame: an Ethernet frame with room to spare. Longer ones mean an offload was left on; they are counted.
const FRAME_SLOT: usize = 2048;
/// Frames in flight on all links together: 64 MiB. More are dropped and counted as if a queue were full.
const MAX_IN_FLIGHT: usize = 32 * 1024;
/// Frames taken from one port before the others have their turn.
const PORT_BUDGET: usize = 32;
/// Longest sleep: how soon a stop or a change of conditions is noticed on an idle network.
const LONGEST_SLEEP: Duration = Duration::from_millis(5);
/// Kinds of traffic told apart; the first is everything else.
pub const MAX_KINDS: usize = 8;
/// An IPv4 header, a UDP header and an Ethernet header: what a relayed payload would weigh on a wire.
const RELAY_OVERHEAD: usize = 14 + 20 + 8;

/// One end of a link, towards a router.
#[derive(Debug)]
pub enum Port {
    /// Whole Ethernet frames.
    Frames(OwnedFd),
    /// UDP payloads, by a socket connected to the router.
    Relay(OwnedFd),
}

impl Port {
    fn fd(&self) -> i32 {
        match self {
            Port::Frames(fd) | Port::Relay(fd) => fd.as_raw_fd(),
        }
    }

    const fn overhead(&self) -> usize {
        match self {
            Port::Frames(_) => 0,
            Port::Relay(_) => RELAY_OVERHEAD,
        }
    }
}

/// A kind of traffic to be counted apart: IP protocol and a port of either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What it is called in results.
    pub name: String,
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// First port.
    pub port: u16,
    /// Number of ports.
    pub ports: u16,
}

/// What one direction of a link has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames offered to the link.
    pub frames: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
    /// Frames that arrived, duplicates included.
    pub delivered: u64,
    /// Frames lost on the wire.
    pub lost: u64,
    /// Frames that found the queue full, or too many in flight on all links together.
    pub queue_dropped: u64,
    /// Frames that the kernel dropped before the emulator read them: it came too late. Not among `frames`. A figure
    /// measured meanwhile shows losses that no link was asked for.
    pub unread: u64,
    /// Frames swallowed by a cut.
    pub cut: u64,
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// Frames held back.
    pub held_back: u64,
    /// Datagrams changed on the way.
    pub corrupted: u64,
    /// Frames too long for a wire, dropped: an offload is on somewhere.
    pub oversized: u64,
    /// Frames the kernel refused at the far end.
    pub refused: u64,
    /// Bytes offered, by kind of traffic.
    pub bytes_by_kind: [u64; MAX_KINDS],
    /// Frames offered, by kind of traffic.
    pub frames_by_kind: [u64; MAX_KINDS],
    /// Frames lost on the wire, by kind of traffic.
    pub lost_by_kind: [u64; MAX_KINDS],
}

impl Counters {
    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Counters) -> Counters {
        let by_kind = |now: &[u64; MAX_KINDS], then: &[u64; MAX_KINDS]| std::array::from_fn(|i| now[i] - then[i]);
        Counters {
            frames: self.frames - earlier.frames,
            bytes: self.bytes - earlier.bytes,
            delivered: self.delivered - earlier.delivered,
            lost: self.lost - earlier.lost,
            queue_dropped: self.queue_dropped - earlier.queue_dropped,
            unread: self.unread - earlier.unread,
            cut: self.cut - earlier.cut,
            duplicated: self.duplicated - earlier.duplicated,
            held_back: self.held_back - earlier.held_back,
            corrupted: self.corrupted - earlier.corrupted,
            oversized: self.oversized - earlier.oversized,
            refused: self.refused - earlier.refused,
            lost_by_kind: by_kind(&self.lost_by_kind, &earlier.lost_by_kind),
            bytes_by_kind: by_kind(&self.bytes_by_kind, &earlier.bytes_by_kind),
            frames_by_kind: by_kind(&self.frames_by_kind, &earlier.frames_by_kind),
        }
    }
}

/// What the thread and its handle share. Locks are taken once a pass at most, never per frame.
#[derive(Debug)]
struct Shared {
    /// Conditions wanted, per direction; `generation` tells that they changed.
    wanted: Mutex<Vec<Conditions>>,
    generation: AtomicU64,
    stop: AtomicBool,
    published: Mutex<Published>,
}

#[derive(Debug, Default)]
struct Published {
    counters: Vec<Counters>,
    lateness: Histogram,
    passes: u64,
}

/// A running emulator. Link i has directions 2i (from its first end) and 2i+1 (from its second). Stops when dropped.
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts the thread. `ports` and `conditions` are in the order of directions: port d is where direction d enters.
    pub fn start(
        ports: Vec<Port>,
        conditions: Vec<Conditions>,
        kinds: Vec<Kind>,
        seed: u64,
        core: Option<usize>,
    ) -> io::Result<Emulator> {
        assert_eq!(ports.len(), conditions.len(), "every port is where one direction enters");
        assert!(ports.len().is_multiple_of(2) && kinds.len() < MAX_KINDS, "links have two ends; kinds fit their table");
        let published = Published { counters: vec![Counters::default(); ports.len()], ..Published::default() };
        let shared = Arc::new(Shared {
            wanted: Mutex::new(conditions.clone()),
            generation: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            published: Mutex::new(published),
        });
        let engine = Engine::new(ports, &conditions, kinds, seed, Arc::clone(&shared));
        let body = move || {
            clock::exact_timers();
            clock::run_soon();
            if let Some(id) = core {
                core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            engine.run();
        };
        let thread = std::thread::Builder::new().name("lab-emulator".into()).spawn(body)?;
        Ok(Emulator { shared, thread: Some(thread) })
    }

    /// The conditions of a direction.
    pub fn conditions(&self, direction: usize) -> Conditions {
        lock(&self.shared.wanted)[direction]
    }

    /// Changes the conditions of a direction while it runs; takes effect within milliseconds.
    pub fn set(&self, direction: usize, conditions: Conditions) {
        lock(&self.shared.wanted)[direction] = conditions;
        self.shared.generation.fetch_add(1, Ordering::Release);
    }

    /// What a direction has seen, as of the last few milliseconds.
    pub fn counters(&self, direction: usize) -> Counters {
        lock(&self.shared.published).counters[direction].clone()
    }

    /// How late departures were so far, µs.
    pub fn lateness(&self) -> Summary {
        lock(&self.shared.published).lateness.summary()
    }

    /// Forgets how late departures were.
    pub fn clear_lateness(&self) {
        lock(&self.shared.published).lateness.clear();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if ended.is_err() && !std::thread::panicking() {
                panic!("the emulator thread panicked: no figure of this run can be trusted");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A frame on its way: when, a number that keeps equal times in order, where it comes out, and its slot.
type Departure = Reverse<(Instant, u64, usize, usize)>;

struct Engine {
    ports: Vec<Port>,
    directions: Vec<Direction>,
    kinds: Vec<Kind>,
    shared: Arc<Shared>,
    generation: u64,
    heap: BinaryHeap<Departure>,
    order: u64,
    slots: Vec<Vec<u8>>,
    free: Vec<usize>,
    most_in_flight: usize,
    /// Where a frame goes that no slot is left for.
    scratch: Vec<u8>,
    counters: Vec<Counters>,
    /// What the kernel last said each port's socket had dropped in all.
    unread_before: Vec<u32>,
    lateness: Histogram,
    next_publication: Instant,
}

impl Engine {
    fn new(ports: Vec<Port>, conditions: &[Conditions], kinds: Vec<Kind>, seed: u64, shared: Arc<Shared>) -> Engine {
        let mut rng = Rng::from_u64(seed);
        let directions = conditions.iter().map(|&conditions| Direction::new(conditions, rng.fork())).collect();
        Engine {
            counters: vec![Counters::default(); ports.len()],
            unread_before: vec![0; ports.len()],
            ports,
            directions,
            kinds,
            shared,
            generation: 0,
            heap: BinaryHeap::with_capacity(1024),
            order: 0,
            slots: Vec::new(),
            free: Vec::new(),
            most_in_flight: MAX_IN_FLIGHT,
            scratch: vec![0; FRAME_SLOT],
            lateness: Histogram::new(),
            next_publication: Instant::ZERO,
        }
    }

    fn run(mut self) {
        let mut polls: Vec<libc::pollfd> =
            self.ports.iter().map(|port| libc::pollfd { fd: port.fd(), events: libc::POLLIN, revents: 0 }).collect();
        while !self.shared.stop.load(Ordering::Acquire) {
            self.wait(&mut polls);
            self.obey();
            let clocks = Clocks::read();
            for (port, poll) in polls.iter().enumerate() {
                if poll.revents != 0 {
                    self.receive(port, clocks);
                }
            }
            self.depart();
            self.publish();
        }
    }

    /// Sleeps until something arrives or the next departure is close; does not sleep when it is close already.
    fn wait(&self, polls: &mut [libc::pollfd]) {
        let now = clock::now();
        let next = self.heap.peek().map_or(Instant::MAX, |Reverse((due, ..))| *due - SPIN);
        let timeout = clock::timespec(next.since(now).min(LONGEST_SLEEP));
        // SAFETY: the pointer and count describe `polls`; the timeout is valid; no signal mask is changed.
        let ready = unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as u64, &timeout, std::ptr::null()) };
        if ready <= 0 {
            polls.iter_mut().for_each(|poll| poll.revents = 0);
        }
    }

    fn obey(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.generation = generation;
            let wanted = lock(&self.shared.wanted);
            self.directions.iter_mut().zip(wanted.iter()).for_each(|(direction, &wanted)| direction.set(wanted));
        }
    }

    fn receive(&mut self, port: usize, clocks: Clocks) {
        for _ in 0..PORT_BUDGET {
            let Some(slot) = self.take_slot() else {
                // Left where it is it would only wait for nothing, and its socket would wake this thread for ever.
                let Some((len, _)) = receive(self.ports[port].fd(), &mut self.scratch) else { break };
                let scratch = std::mem::take(&mut self.scratch);
                if self.count(port, &scratch, len).is_some() {
                    self.counters[port].queue_dropped += 1;
                }
                self.scratch = scratch;
                continue;
            };
            let Some((len, stamp)) = receive(self.ports[port].fd(), &mut self.slots[slot]) else {
                self.free.push(slot);
                break;
            };
            if !self.accept(port, slot, len, clocks.arrival(stamp)) {
                self.free.push(slot);
            }
        }
    }

    /// Counts a frame of `len` bytes offered to a direction; its kind, and whether it is spared random loss. `None` if it
    /// is too long for a wire.
    fn count(&mut self, direction: usize, frame: &[u8], len: usize) -> Option<(usize, bool)> {
        let counters = &mut self.counters[direction];
        let weight = (len + self.ports[direction].overhead()) as u64;
        counters.frames += 1;
        counters.bytes += weight;
        if len > FRAME_SLOT {
            counters.oversized += 1;
            return None;
        }
        let frame = &frame[..len];
        let (kind, protected) = match self.ports[direction] {
            Port::Frames(_) => (classify(frame, &self.kinds), is_arp(frame)),
            Port::Relay(_) => (usize::from(!self.kinds.is_empty()), false),
        };
        counters.bytes_by_kind[kind] += weight;
        counters.frames_by_kind[kind] += 1;
        Some((kind, protected))
    }

    /// Decides what becomes of a frame; true if its slot is in flight now.
    fn accept(&mut self, direction: usize, slot: usize, len: usize, arrival: Instant) -> bool {
        let frame = std::mem::take(&mut self.slots[slot]);
        let counted = self.count(direction, &frame, len);
        self.slots[slot] = frame;
        let Some((kind, protected)) = counted else { return false };
        let weight = len + self.ports[direction].overhead();
        let counters = &mut self.counters[direction];
        let (due, again) = match self.directions[direction].offer(arrival, weight, protected) {
            Fate::Arrives { due, again, held_back } => {
                counters.held_back += u64::from(held_back);
                (due, again)
            }
            fate => {
                match fate {
                    Fate::Lost => {
                        counters.lost += 1;
                        counters.lost_by_kind[kind] += 1;
                    }
                    Fate::Cut => counters.cut += 1,
                    Fate::QueueFull | Fate::Arrives { .. } => counters.queue_dropped += 1,
                }
                return false;
            }
        };
        self.slots[slot].truncate(len);
        if let Some(choice) = self.directions[direction].corrupts() {
            let whole_frame = matches!(self.ports[direction], Port::Frames(_));
            self.counters[direction].corrupted += u64::from(corrupt(&mut self.slots[slot], whole_frame, choice));
        }
        if let Some(again) = again {
            self.duplicate(direction, slot, again);
        }
        self.launch(direction, slot, due);
        true
    }

    fn duplicate(&mut self, direction: usize, slot: usize, due: Instant) {
        let Some(copy) = self.take_slot() else {
            self.counters[direction].queue_dropped += 1;
            return;
        };
        let bytes = self.slots[slot].clone();
        self.slots[copy] = bytes;
        self.counters[direction].duplicated += 1;
        self.launch(direction, copy, due);
    }

    fn launch(&mut self, direction: usize, slot: usize, due: Instant) {
        self.order += 1;
        self.heap.push(Reverse((due, self.order, direction, slot)));
    }

    fn depart(&mut self) {
        loop {
            let now = clock::now();
            let Some(&Reverse((due, _, direction, slot))) = self.heap.peek() else { return };
            if due > now {
                return;
            }
            self.heap.pop();
            let counters = &mut self.counters[direction];
            match send(self.ports[direction ^ 1].fd(), &self.slots[slot]) {
                true => counters.delivered += 1,
                false => counters.refused += 1,
            }
            self.lateness.record(now.since(due));
            self.free.push(slot);
        }
    }

    /// A slot to receive into, its length `FRAME_SLOT`; `None` if too many frames are in flight.
    fn take_slot(&mut self) -> Option<usize> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.most_in_flight => {
                self.slots.push(Vec::with_capacity(FRAME_SLOT));
                self.slots.len() - 1
            }
            None => return None,
        };
        self.slots[slot].resize(FRAME_SLOT, 0);
        Some(slot)
    }

    fn publish(&mut self) {
        let now = clock::now();
        if now < self.next_publication {
            return;
        }
        self.next_publication = now + Duration::from_millis(20);
        for ((port, counters), before) in self.ports.iter().zip(&mut self.counters).zip(&mut self.unread_before) {
            // A kernel that does not say is taken at its last word.
            let dropped = netns::dropped_unread(port.fd()).unwrap_or(*before);
            counters.unread += u64::from(dropped.wrapping_sub(*before));
            *before = dropped;
        }
        let mut published = lock(&self.shared.published);
        published.counters.clone_from(&self.counters);
        published.lateness.merge(&self.lateness);
        published.passes += 1;
        self.lateness.clear();
    }
}

/// Both clocks at one moment: receive stamps are wall time, everything else is monotonic.
#[derive(Clone, Copy)]
struct Clocks {
    now: Instant,
    wall_ns: u64,
}

impl Clocks {
    fn read() -> Clocks {
        Clocks { now: clock::now(), wall_ns: clock::wall().as_nanos() }
    }

    /// When a frame with this stamp arrived. A stamp that makes no sense (the wall clock stepped) means now.
    fn arrival(self, stamp: Option<u64>) -> Instant {
        let age = stamp.and_then(|stamp| self.wall_ns.checked_sub(stamp)).unwrap_or(0);
        if age > 1_000_000_000 { self.now } else { self.now - Duration::from_nanos(age) }
    }
}

/// Receives one frame without waiting: its true length (which may exceed the buffer) and its stamp.
fn receive(fd: i32, buffer: &mut [u8]) -> Option<(usize, Option<u64>)> {
    #[repr(align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero msghdr is valid; the fields set below describe live buffers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: `header` and everything it points to outlives the call.
    let got = unsafe { libc::recvmsg(fd, &mut header, libc::MSG_DONTWAIT | libc::MSG_TRUNC) };
    if got < 0 {
        return None;
    }
    let mut stamp = None;
    // SAFETY: the kernel filled the control buffer and its length; CMSG_* walk within it.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_TIMESTAMPNS {
                let time: libc::timespec = std::ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                stamp = Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
            }
            message = libc::CMSG_NXTHDR(&header, message);
        }
    }
    Some((got as usize, stamp))
}

fn send(fd: i32, bytes: &[u8]) -> bool {
    // SAFETY: the pointer and length describe `bytes`.
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) >= 0 }
}

fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x06])
}

/// Changes one byte of a UDP datagram's payload, which one and how by `choice`, and takes its checksum off (RFC 768: a
/// zero checksum is none). False if the frame carries no payload of UDP over IPv4.
fn corrupt(frame: &mut [u8], whole_frame: bool, choice: u64) -> bool {
    let mut payload = 0;
    if whole_frame {
        let udp = frame.get(12..14) == Some(&[0x08, 0x00]) && frame.get(23) == Some(&17);
        let header = 14 + usize::from(frame.get(14).copied().unwrap_or(0) & 15) * 4;
        payload = header + 8;
        if !udp || frame.len() <= payload {
            return false;
        }
        frame[header + 6..payload].fill(0);
    }
    if frame.len() <= payload {
        return false;
    }
    let place = payload + (choice >> 8) as usize % (frame.len() - payload);
    // Never by zero, which would change nothing.
    frame[place] ^= 1 + (choice & 0xff) as u8 % 255;
    true
}

/// The place of a frame's kind plus one; 0 if it is none of them.
fn classify(frame: &[u8], kinds: &[Kind]) -> usize {
    let ports = || -> Option<(u8, u16, u16)> {
        if frame.get(12..14)? != [0x08, 0x00] {
            return None;
        }
        let header = usize::from(frame.get(14)? & 15) * 4;
        let at = |offset: usize| -> Option<u16> {
            Some(u16::from_be_bytes(frame.get(14 + header + offset..14 + header + offset + 2)?.try_into().ok()?))
        };
        Some((*frame.get(23)?, at(0)?, at(2)?))
    };
    let Some((protocol, source, destination)) = ports() else { return 0 };
    let fits = |kind: &Kind| {
        let range = kind.port..kind.port + kind.ports;
        kind.protocol == protocol && (range.contains(&source) || range.contains(&destination))
    };
    kinds.iter().position(fits).map_or(0, |place| place + 1)
}

#[cfg(test)]
mod tests;
