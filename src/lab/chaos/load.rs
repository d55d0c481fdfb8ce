//! Traffic whose every byte is known beforehand.
//!
//! A stream is a head, its number and its length, and bytes that follow from the number; the reader makes the same
//! bytes and compares. Reliable datagrams are numbered and ordered. Between the anchors nothing may be lost. A stream with
//! another end may break with that end; what arrived of it must be right all the same. Once all is whole again every
//! stream, wherever it ends, must end or break: one that does neither is reported.

use super::super::world::{Router, World};
use super::ANCHORS;
use crate::base::{Class, Rng};
use crate::client::{Datagrams, Endpoint, Event, Listener, Stream};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// Bytes of stream written at once.
const BLOCK: usize = 4096;
/// From block to block: about 100 kB/s a stream.
const BLOCK_EVERY: Duration = Duration::from_millis(40);
/// Blocks of a stream, at most.
const MOST_BLOCKS: u64 = 250;
/// From datagram to datagram.
const DATAGRAM_EVERY: Duration = Duration::from_millis(5);
/// Bytes of a datagram.
const DATAGRAM: usize = 600;
/// A head: the stream's number and its blocks.
const HEAD: usize = 16;
/// Where streams are accepted; the place of the flow is added.
const PORT: u16 = 9000;
/// Between tries to open what cannot be opened now.
const RETRY: Duration = Duration::from_millis(200);
/// How long a stream may have been on its way before it was accepted.
const EXCUSE: Duration = Duration::from_secs(60);
/// Between looks at whether to stop.
const TICK: Duration = Duration::from_millis(200);
/// Who sends streams to whom.
const STREAMS: [(&str, &str); 5] = [("a", "d"), ("d", "a"), ("b", "e"), ("f", "c"), ("a", "e")];

/// What was carried.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Streams that were opened.
    pub streams_opened: u64,
    /// Streams that arrived from their first byte to their last.
    pub streams_whole: u64,
    /// Streams that broke, an end of theirs having been killed.
    pub streams_excused: u64,
    /// Stream bytes that arrived and were compared.
    pub stream_bytes: u64,
    /// Reliable datagrams that were sent.
    pub datagrams_sent: u64,
    /// Reliable datagrams that arrived.
    pub datagrams_received: u64,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    whole: AtomicU64,
    excused: AtomicU64,
    bytes: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    /// Anchored streams that were opened and are not yet read to their end.
    anchored: AtomicU64,
}

/// All traffic of a run.
#[derive(Debug)]
pub(super) struct Load {
    seed: u64,
    /// No more is sent.
    stop: AtomicBool,
    /// Receivers end too.
    end: AtomicBool,
    counts: Counts,
    violations: Mutex<Vec<String>>,
    /// Which router was killed when.
    kills: Mutex<Vec<(String, Instant)>>,
    /// Ends of streams that are being opened, written or read, by number.
    open: Mutex<BTreeMap<u64, String>>,
    /// Numbers given to them.
    numbers: AtomicU64,
}

/// An end of a stream that is in use until this is dropped.
struct Open<'a>(&'a Load, u64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.1);
    }
}

/// Ends all traffic when dropped.
pub(super) struct StopAtEnd<'a>(&'a Load);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
        self.0.end.store(true, Ordering::Relaxed);
    }
}

fn is_anchored(flow: usize) -> bool {
    ANCHORS.contains(&STREAMS[flow].0) && ANCHORS.contains(&STREAMS[flow].1)
}

impl Load {
    pub(super) fn new(seed: u64) -> Load {
        let (stop, end) = (AtomicBool::new(false), AtomicBool::new(false));
        Load {
            seed,
            stop,
            end,
            counts: Counts::default(),
            violations: Mutex::default(),
            kills: Mutex::default(),
            open: Mutex::default(),
            numbers: AtomicU64::new(0),
        }
    }

    /// Ends all traffic when the answer is dropped.
    pub(super) const fn stop_at_end(&self) -> StopAtEnd<'_> {
        StopAtEnd(self)
    }

    /// Starts it.
    pub(super) fn start<'s>(&'s self, scope: &'s Scope<'s, '_>, world: &'s World) -> io::Result<()> {
        for (flow, (from, to)) in STREAMS.into_iter().enumerate() {
            let (from, to) = (world.router(from), world.router(to));
            scope.spawn(move || self.accept(scope, to, flow));
            scope.spawn(move || self.write_streams(from, to, flow));
        }
        for (from, to) in [ANCHORS, [ANCHORS[1], ANCHORS[0]]].map(|[from, to]| (world.router(from), world.router(to))) {
            let (source, sink) = (from.overlay()?.datagrams(0)?, to.overlay()?.datagrams(0)?);
            sink.set_read_timeout(Some(TICK))?;
            let target = sink.local();
            scope.spawn(move || self.send_datagrams(&source, target));
            scope.spawn(move || self.receive_datagrams(&sink));
        }
        Ok(())
    }

    /// An end of a stream is in use until the answer is dropped.
    fn open(&self, flow: usize, what: &str) -> Open<'_> {
        let number = self.numbers.fetch_add(1, Ordering::AcqRel);
        let (from, to) = STREAMS[flow];
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        open.insert(number, format!("stream {from}-{to}, being {what},"));
        Open(self, number)
    }

    fn still_open(&self) -> Vec<String> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner).values().cloned().collect()
    }

    /// Sends no more, and waits until what was sent has arrived and every stream has ended or broken; what has not in
    /// time is a violation. False if a stream still hangs, and with it the thread that uses it.
    pub(super) fn finish(&self, patience: Duration) -> bool {
        self.stop.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + patience;
        let counts = &self.counts;
        let missing = || {
            let (sent, received) = (counts.sent.load(Ordering::Acquire), counts.received.load(Ordering::Acquire));
            let datagrams = sent.saturating_sub(received);
            (counts.anchored.load(Ordering::Acquire), datagrams)
        };
        // Senders see the stop within one step of theirs.
        std::thread::sleep(TICK);
        while (missing() != (0, 0) || !self.still_open().is_empty()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let (streams, datagrams) = missing();
        let (open, seconds) = (self.still_open(), patience.as_secs());
        for stream in &open {
            self.violation(format!("{stream} neither ended nor broke within {seconds} s of whole links"));
        }
        if (streams, datagrams) != (0, 0) {
            self.violation(format!(
                "{streams} streams and {datagrams} datagrams did not arrive within {seconds} s of whole links"
            ));
        }
        self.end.store(true, Ordering::Relaxed);
        open.is_empty()
    }

    pub(super) fn totals(&self) -> Totals {
        let get = |count: &AtomicU64| count.load(Ordering::Acquire);
        let counts = &self.counts;
        Totals {
            streams_opened: get(&counts.opened),
            streams_whole: get(&counts.whole),
            streams_excused: get(&counts.excused),
            stream_bytes: get(&counts.bytes),
            datagrams_sent: get(&counts.sent),
            datagrams_received: get(&counts.received),
        }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn violation(&self, text: String) {
        self.violations.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(text);
    }

    /// A router was killed: streams that end there may break.
    pub(super) fn note_kill(&self, router: &str) {
        let mut kills = self.kills.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kills.push((router.to_owned(), Instant::now()));
    }

    /// Whether an end of this flow was killed since `accepted`, or so shortly before that the stream was on its way.
    fn may_break(&self, flow: usize, accepted: Instant) -> bool {
        let (from, to) = STREAMS[flow];
        let kills = self.kills.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kills.iter().any(|(router, at)| (router == from || router == to) && *at + EXCUSE > accepted)
    }

    /// One stream after another.
    fn write_streams(&self, from: &Router, to: &Router, flow: usize) {
        let mut rng = Rng::from_u64(self.seed ^ (flow as u64 + 1));
        let name = format!("{}-{}", from.name(), to.name());
        while !self.stop.load(Ordering::Relaxed) {
            let target = Endpoint { node: to.public().node_id(), port: PORT + flow as u16 };
            let opening = self.open(flow, "opened");
            // Whoever waits for open streams saw this one before, or it is not opened.
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = from.overlay().and_then(|overlay| overlay.stream(target)) else {
                drop(opening);
                std::thread::sleep(RETRY);
                continue;
            };
            let _written = self.open(flow, "written");
            drop(opening);
            self.counts.opened.fetch_add(1, Ordering::AcqRel);
            if is_anchored(flow) {
                self.counts.anchored.fetch_add(1, Ordering::AcqRel);
            }
            let (number, blocks) = (rng.next_u64(), 1 + rng.below(MOST_BLOCKS));
            if let Err(error) = self.write_stream(&stream, number, blocks)
                && is_anchored(flow)
            {
                self.violation(format!("stream {name} broke while it was written: {error}"));
            }
        }
    }

    fn write_stream(&self, mut stream: &Stream, number: u64, blocks: u64) -> io::Result<()> {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&number.to_be_bytes());
        head[8..].copy_from_slice(&blocks.to_be_bytes());
        stream.write_all(&head)?;
        let (mut content, mut block) = (Rng::from_u64(number), [0; BLOCK]);
        for _ in 0..blocks {
            content.fill(&mut block);
            stream.write_all(&block)?;
            // Once stopped, what is left of the stream goes out at once.
            if !self.stop.load(Ordering::Relaxed) {
                std::thread::sleep(BLOCK_EVERY);
            }
        }
        stream.finish()?;
        // The reader says when it has everything; closing before would take back what is under way.
        let mut rest = [0; 1];
        stream.set_read_timeout(Some(TICK))?;
        loop {
            match stream.read(&mut rest) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.end.load(Ordering::Relaxed) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Accepts the streams of a flow, listening again whenever the router is another process.
    fn accept<'s>(&'s self, scope: &'s Scope<'s, '_>, at: &'s Router, flow: usize) {
        while !self.end.load(Ordering::Relaxed) {
            let listener = at.overlay().and_then(|overlay| overlay.listen(PORT + flow as u16));
            let Ok(listener) = listener else {
                std::thread::sleep(RETRY);
                continue;
            };
            if listener.set_read_timeout(Some(TICK)).is_err() {
                continue;
            }
            while let Ok(stream) = self.next_stream(&listener) {
                let Some(stream) = stream else { return };
                scope.spawn(move || self.read_stream(stream, flow));
            }
        }
    }

    /// The next stream; none at the end of the run.
    fn next_stream(&self, listener: &Listener) -> io::Result<Option<Stream>> {
        while !self.end.load(Ordering::Relaxed) {
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                accepted => return accepted.map(Some),
            }
        }
        Ok(None)
    }

    fn read_stream(&self, stream: Stream, flow: usize) {
        let (from, to) = STREAMS[flow];
        let (anchored, accepted) = (is_anchored(flow), Instant::now());
        let _read = self.open(flow, "read");
        match self.compare(&stream) {
            Ok(()) => {
                self.counts.whole.fetch_add(1, Ordering::AcqRel);
            }
            Err(Wrong::Content(text)) => self.violation(format!("stream {from}-{to}: {text}")),
            Err(Wrong::Broken(error)) if !self.may_break(flow, accepted) => {
                self.violation(format!("stream {from}-{to} broke while it was read: {error}"))
            }
            Err(Wrong::Broken(_)) => {
                self.counts.excused.fetch_add(1, Ordering::AcqRel);
            }
            // The end of the run; that it was open by then is a violation already.
            Err(Wrong::Ended) => return,
        }
        if anchored {
            self.counts.anchored.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn compare(&self, stream: &Stream) -> Result<(), Wrong> {
        stream.set_read_timeout(Some(TICK))?;
        let mut head = [0; HEAD];
        if !self.fill(stream, &mut head)? {
            return Err(Wrong::Content("ended before its head".into()));
        }
        let (number, blocks) = head.split_at(8);
        let [number, blocks] = [number, blocks].map(|part| u64::from_be_bytes(part.try_into().expect("eight bytes")));
        let (mut content, mut expected, mut block) = (Rng::from_u64(number), [0; BLOCK], [0; BLOCK]);
        for place in 0..blocks {
            content.fill(&mut expected);
            if !self.fill(stream, &mut block)? {
                return Err(Wrong::Content(format!("ended after {place} of {blocks} blocks")));
            }
            if block != expected {
                return Err(Wrong::Content(format!("block {place} of {blocks} differs from what was sent")));
            }
            self.counts.bytes.fetch_add(BLOCK as u64, Ordering::AcqRel);
        }
        match self.fill(stream, &mut [0; 1])? {
            false => Ok(stream.finish()?),
            true => Err(Wrong::Content(format!("goes on after its {blocks} blocks"))),
        }
    }

    /// Fills `bytes`; false if the stream ends before the first of them.
    fn fill(&self, mut stream: &Stream, bytes: &mut [u8]) -> Result<bool, Wrong> {
        let mut filled = 0;
        while filled < bytes.len() {
            match stream.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(Wrong::Content("ended within a block".into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if self.end.load(Ordering::Relaxed) => return Err(Wrong::Ended),
                Err(_) => {}
            }
        }
        Ok(true)
    }

    fn send_datagrams(&self, source: &Datagrams, to: Endpoint) {
        let mut message = [0; DATAGRAM];
        let mut number = 0u64;
        while !self.stop.load(Ordering::Relaxed) {
            message[..8].copy_from_slice(&number.to_be_bytes());
            self.counts.sent.fetch_add(1, Ordering::AcqRel);
            if let Err(error) = source.send(to, Class::Reliable, true, &message) {
                self.violation(format!("reliable datagram {number} was refused: {error}"));
                return;
            }
            number += 1;
            std::thread::sleep(DATAGRAM_EVERY);
        }
    }

    fn receive_datagrams(&self, sink: &Datagrams) {
        let (mut expected, mut buffer) = (0u64, [0; DATAGRAM + 1]);
        while !self.end.load(Ordering::Relaxed) {
            let number = match sink.recv(&mut buffer) {
                Ok(Event::Datagram { bytes, .. }) if bytes.len() == DATAGRAM => {
                    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
                }
                Ok(other) => return self.violation(format!("instead of reliable datagram {expected} came {other:?}")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return self.violation(format!("reliable datagrams broke: {error}")),
            };
            if number != expected {
                return self.violation(format!("reliable datagram {number} came instead of {expected}"));
            }
            expected += 1;
            self.counts.received.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Why a stream was not whole.
enum Wrong {
    /// Its bytes.
    Content(String),
    /// It was reset.
    Broken(io::Error),
    /// The run is over.
    Ended,
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Wrong {
        Wrong::Broken(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_never_ends_is_a_violation_wherever_it_ends() {
        for (flow, (from, to)) in STREAMS.into_iter().enumerate() {
            let load = Load::new(1);
            let _open = load.open(flow, "read");
            assert!(!load.finish(Duration::from_millis(30)));
            let violations = load.violations();
            assert_eq!(violations.len(), 1, "{violations:?}");
            assert!(violations[0].starts_with(&format!("stream {from}-{to}, being read, neither")), "{violations:?}");
        }
    }

    #[test]
    fn streams_that_end_in_time_are_waited_for() {
        let load = Load::new(1);
        let open = load.open(2, "written");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(2 * TICK);
                drop(open);
            });
            assert!(load.finish(Duration::from_secs(20)));
        });
        assert_eq!(load.violations(), Vec::<String>::new());
    }
}
