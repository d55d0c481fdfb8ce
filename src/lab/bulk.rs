//! Bulk transfers: as much as a transport will take, to measure throughput and who gets which share of a bottleneck.

use super::clock;
use super::flows::{Board, writable};
use super::outcome::{Bulk, LinkTraffic};
use super::transport::{self, Ends, Sink, Source, Transport};
use super::world::World;
use crate::base::Instant;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What was received in each second.
type Seconds = Vec<u64>;

/// Runs these transfers at once from one end of the only link to the other.
pub fn run(
    world: &World,
    transports: &[Transport],
    size: usize,
    duration: Duration,
    board: &Board,
) -> io::Result<Vec<Bulk>> {
    let link = world.links().next().ok_or_else(|| io::Error::other("a bulk transfer needs a link"))?;
    let (from, to) = link.between();
    let mut ends: Vec<Ends> = Vec::new();
    for (number, transport) in transports.iter().enumerate() {
        ends.push(transport::open(world, transport, from, to, number as u16)?);
    }
    let before = LinkTraffic::of(world);
    let start = clock::now() + Duration::from_millis(100);
    let end = start + duration;
    let received: Vec<Seconds> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (source, sink) in ends {
            let done = std::sync::Arc::new(AtomicBool::new(false));
            let sender_done = std::sync::Arc::clone(&done);
            scope.spawn(move || push(source, size, start, end, board, &sender_done));
            running.push(scope.spawn(move || pull(sink, size, start, end, board, &done)));
        }
        running.into_iter().map(|receiver| receiver.join().unwrap_or_default()).collect()
    });
    if board.stop.load(Ordering::Relaxed) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
    }
    // The emulator publishes its counters every 20 ms.
    std::thread::sleep(Duration::from_millis(50));
    let links = LinkTraffic::since(world, &before);
    let conditions = link.conditions().0;
    let all: u64 = received.iter().flatten().sum();
    let describe = |(transport, seconds): (&Transport, Seconds)| {
        let bytes: u64 = seconds.iter().sum();
        let kind = if transport.is_overlay() { super::world::OVERLAY_KIND.to_owned() } else { transport.to_string() };
        let wire_bytes = links[0].bytes_by_transport.get(&kind).copied().unwrap_or(0);
        let beside = transports.iter().find(|&other| other != transport).map(ToString::to_string);
        Bulk {
            transport: transport.to_string(),
            beside,
            loss_percent: conditions.loss_percent,
            link_delay_ms: conditions.delay_ms,
            link_kbps: conditions.rate_kbps,
            queue_bytes: conditions.queue_bytes,
            seconds: duration.as_secs_f64(),
            received_bytes: bytes,
            goodput_kbps: bytes as f64 * 8.0 / 1e3 / duration.as_secs_f64(),
            share_percent: 100.0 * bytes as f64 / all.max(1) as f64,
            wire_bytes,
            overhead_percent: Bulk::overhead(bytes, wire_bytes),
            of_tcp_percent: None,
            below_tcp_percent: None,
            seconds_kbps: seconds.iter().map(|&bytes| bytes as f64 * 8.0 / 1e3).collect(),
        }
    };
    Ok(transports.iter().zip(received).map(describe).collect())
}

/// Compares each transfer that ran alone with the CUBIC that ran alone under the same conditions.
pub fn compare_with_tcp(bulks: &mut [Bulk]) {
    let same = |a: &Bulk, b: &Bulk| a.loss_percent == b.loss_percent && a.link_delay_ms == b.link_delay_ms;
    let alone = |bulk: &&Bulk| bulk.beside.is_none() && bulk.transport == "tcp-cubic";
    let baselines: Vec<Bulk> = bulks.iter().filter(alone).cloned().collect();
    for bulk in bulks.iter_mut().filter(|bulk| bulk.beside.is_none()) {
        let baseline = baselines.iter().find(|baseline| same(baseline, bulk) && baseline.goodput_kbps > 0.0);
        bulk.of_tcp_percent = baseline.map(|baseline| 100.0 * bulk.goodput_kbps / baseline.goodput_kbps);
        bulk.below_tcp_percent = bulk.of_tcp_percent.map(|share| 100.0 - share);
    }
}

fn push(mut source: Box<dyn Source>, size: usize, start: Instant, end: Instant, board: &Board, done: &AtomicBool) {
    let message = vec![0x5a; size];
    clock::sleep_until(start);
    while clock::now() < end && !board.stop.load(Ordering::Relaxed) && !done.load(Ordering::Relaxed) {
        if writable(source.as_ref()) && source.send(&message).is_err() {
            break;
        }
    }
    while !done.load(Ordering::Relaxed) && clock::now() < end + Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pull(
    mut sink: Box<dyn Sink>,
    size: usize,
    start: Instant,
    end: Instant,
    board: &Board,
    done: &AtomicBool,
) -> Seconds {
    let mut seconds = vec![0; end.since(start).as_secs_f64().ceil() as usize];
    let mut message = vec![0; size];
    loop {
        let received = sink.receive(&mut message);
        let now = clock::now();
        if now >= end || board.stop.load(Ordering::Relaxed) {
            break;
        }
        match received {
            Ok(len) => {
                let second = now.since(start).as_secs() as usize;
                if let Some(bytes) = seconds.get_mut(second) {
                    *bytes += len as u64;
                }
            }
            Err(_) => break,
        }
    }
    done.store(true, Ordering::Relaxed);
    seconds
}
