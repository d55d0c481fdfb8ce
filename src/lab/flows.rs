//! Flows: paced messages across the lab, all at once or one transport after another.

use super::clock;
use super::tally::{Stamp, Tally};
use super::transport::{self, Ends, Sink, Source, Transport};
use super::world::World;
use crate::base::Instant;
use crate::telemetry::Histogram;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A stream that has not delivered everything this long after its last message was due is called collapsed.
pub const PATIENCE: Duration = Duration::from_secs(25);
/// A datagram that has not arrived this long after the last was due is lost.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(2);
/// From opening the connections to the first message.
const SETTLING: Duration = Duration::from_millis(300);

/// Messages to send.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The sender's router.
    pub from: String,
    /// The receiver's router.
    pub to: String,
    /// How the messages cross.
    pub transport: Transport,
    /// How many.
    pub messages: u64,
    /// Length of each, bytes.
    pub size: usize,
    /// Rate of the messages' own bytes, kbit/s.
    pub rate_kbps: u64,
}

impl Flow {
    /// From one message to the next.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.size as u64 * 8_000_000 / self.rate_kbps)
    }

    /// How long sending takes.
    pub fn duration(&self) -> Duration {
        self.interval() * u32::try_from(self.messages).unwrap_or(u32::MAX)
    }
}

/// What a flow showed.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What was asked.
    pub flow: Flow,
    /// What became of its messages.
    pub tally: Tally,
    /// How late its sender was.
    pub sender: Histogram,
}

/// Progress of running flows, and the wish to stop them.
#[derive(Debug, Default)]
pub struct Board {
    /// Messages received so far.
    pub received: AtomicU64,
    /// Set to end early.
    pub stop: AtomicBool,
}

/// Sends all flows at once, their messages interleaved evenly in time, and waits until they have ended.
pub fn run(world: &World, flows: &[Flow], board: &Board) -> io::Result<Vec<Measured>> {
    let mut ends: Vec<Ends> = Vec::new();
    for (number, flow) in flows.iter().enumerate() {
        ends.push(transport::open(world, &flow.transport, &flow.from, &flow.to, number as u16)?);
    }
    let start = clock::now() + SETTLING;
    let results = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (number, (flow, (source, sink))) in flows.iter().zip(ends).enumerate() {
            // Each flow starts a fraction of its interval later than the one before.
            let start = start + flow.interval() * number as u32 / flows.len() as u32;
            let done = std::sync::Arc::new(AtomicBool::new(false));
            let sender_done = std::sync::Arc::clone(&done);
            let sender = scope.spawn(move || send(flow, source, start, board, &sender_done));
            let receiver = scope.spawn(move || receive(flow, sink, start, board, &done));
            running.push((flow, sender, receiver));
        }
        let join = |(flow, sender, receiver): (
            &Flow,
            std::thread::ScopedJoinHandle<'_, _>,
            std::thread::ScopedJoinHandle<'_, _>,
        )| {
            let tally = receiver.join().map_err(|_| io::Error::other("a receiver panicked"))?;
            let sender = sender.join().map_err(|_| io::Error::other("a sender panicked"))?;
            Ok(Measured { flow: flow.clone(), tally, sender })
        };
        running.into_iter().map(join).collect::<Vec<io::Result<Measured>>>()
    });
    if board.stop.load(Ordering::Relaxed) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
    }
    results.into_iter().collect()
}

fn send(flow: &Flow, mut source: Box<dyn Source>, start: Instant, board: &Board, done: &AtomicBool) -> Histogram {
    clock::exact_timers();
    clock::run_soon();
    let mut lateness = Histogram::new();
    let mut message = vec![0x5a; flow.size];
    for sequence in 0..flow.messages {
        let intended = start + Duration::from_nanos(flow.interval().as_nanos() as u64 * sequence);
        // A sender still held up by its transport is not late by its own fault.
        let slept = clock::now() < intended;
        clock::sleep_until(intended);
        if slept {
            lateness.record(clock::now().since(intended));
        }
        Stamp { sequence, intended }.write(&mut message);
        // Waiting for room is part of the message's latency; giving up when the receiver has.
        while !writable(source.as_ref()) {
            if done.load(Ordering::Relaxed) || board.stop.load(Ordering::Relaxed) {
                return lateness;
            }
        }
        if source.send(&message).is_err() && flow.transport.is_stream() {
            break;
        }
        if done.load(Ordering::Relaxed) || board.stop.load(Ordering::Relaxed) {
            return lateness;
        }
    }
    // The source stays open until everything has arrived: closing may cut off what is under way.
    while !done.load(Ordering::Relaxed) && !board.stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    source.finish();
    lateness
}

/// Waits a moment for room.
pub(super) fn writable(source: &dyn Source) -> bool {
    let mut poll = libc::pollfd { fd: source.descriptor().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is to one valid pollfd.
    unsafe { libc::poll(&mut poll, 1, 50) > 0 }
}

fn receive(flow: &Flow, mut sink: Box<dyn Sink>, start: Instant, board: &Board, done: &AtomicBool) -> Tally {
    clock::run_soon();
    let mut tally = Tally::new(flow.messages);
    let mut message = vec![0; flow.size];
    let patience = if flow.transport.is_stream() { PATIENCE } else { DATAGRAM_PATIENCE };
    let give_up = start + flow.duration() + patience;
    // A stream ends with its last message; datagrams are listened for a little longer, for late duplicates.
    let mut linger = None;
    loop {
        let received = sink.receive(&mut message);
        let now = clock::now();
        match received {
            Ok(0) => {}
            Ok(len) => {
                tally.arrived(&message[..len], now);
                board.received.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => break,
        }
        if tally.complete() && linger.is_none() {
            linger = Some(now + Duration::from_millis(if flow.transport.is_stream() { 0 } else { 200 }));
        }
        if board.stop.load(Ordering::Relaxed) || now > give_up || linger.is_some_and(|until| now >= until) {
            break;
        }
    }
    tally.cut_off = flow.transport.is_stream() && !tally.complete();
    done.store(true, Ordering::Relaxed);
    tally
}
