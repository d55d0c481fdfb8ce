//! A way from the source to the sink, both of which live in the calling thread.

use super::net::{self, BATCH, Port};
use sinew::base::Instant;
use std::io;
use std::net::UdpSocket;

/// What load and latency are measured over.
pub(crate) trait Path {
    /// Takes a message at the source; false if it does not want one now. It may leave at the next turn only.
    fn send(&mut self, now: Instant, message: &[u8]) -> bool;

    /// Moves everything that can move; `arrived` is called for each message that reached the sink.
    fn turn(&mut self, now: Instant, arrived: &mut dyn FnMut(&[u8]));

    /// Messages of this size that all receive buffers on the way have room for.
    fn room(&self, size: usize) -> u64;
}

/// Datagrams that a receive buffer of so many bytes has room for. Small ones take 1,283 bytes of it (measured for 200),
/// larger ones 2,304.
pub(crate) fn datagrams(buffer: usize, size: usize) -> u64 {
    (buffer / if size <= 400 { 1_400 } else { 2_560 }) as u64
}

/// Datagrams staged for one turn.
const STAGED: usize = 4 * BATCH;

/// Plain datagrams.
pub(crate) struct Raw {
    source: Port,
    sink: Port,
    staged: Vec<Vec<u8>>,
    used: usize,
}

/// The sockets of a raw path before they are connected.
pub(crate) struct Ends {
    pub(crate) source: UdpSocket,
    pub(crate) sink: UdpSocket,
}

impl Ends {
    pub(crate) fn open() -> io::Result<Ends> {
        Ok(Ends { source: net::open(net::free_address(1)?)?, sink: net::open(net::free_address(1)?)? })
    }
}

impl Raw {
    /// Connects the source to `entry` and the sink to `exit`.
    pub(crate) fn new(ends: Ends, entry: std::net::SocketAddr, exit: std::net::SocketAddr) -> io::Result<Raw> {
        let (source, sink) = (Port::new(ends.source, entry)?, Port::new(ends.sink, exit)?);
        Ok(Raw { source, sink, staged: vec![Vec::new(); STAGED], used: 0 })
    }

    /// A source that sends straight to the sink.
    pub(crate) fn direct() -> io::Result<Raw> {
        let ends = Ends::open()?;
        let (source, sink) = (ends.source.local_addr()?, ends.sink.local_addr()?);
        Raw::new(ends, sink, source)
    }
}

impl Path for Raw {
    fn send(&mut self, _now: Instant, message: &[u8]) -> bool {
        let Some(slot) = self.staged.get_mut(self.used) else { return false };
        slot.clear();
        slot.extend_from_slice(message);
        self.used += 1;
        true
    }

    fn turn(&mut self, _now: Instant, arrived: &mut dyn FnMut(&[u8])) {
        self.source.send(self.staged[..self.used].iter().map(Vec::as_slice));
        self.used = 0;
        self.sink.receive(|datagram| arrived(datagram));
    }

    fn room(&self, size: usize) -> u64 {
        datagrams(self.source.buffer().min(self.sink.buffer()), size)
    }
}
