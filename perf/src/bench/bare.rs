//! The bare forwarders: receive, change one byte, send. What the kernel alone costs, by the system calls used.

use super::machine::{Watched, pin};
use super::net::{self, BATCH, Port};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of the largest datagram it forwards.
const SLOT: usize = 2048;
/// Longest sleep without looking whether to stop.
const NAP: Duration = Duration::from_millis(50);
const NAME: &str = "bare-forwarder";

/// The system calls of a forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// One call for each datagram received, one for each sent.
    One,
    /// recvmmsg and sendmmsg.
    Many,
    /// recvmmsg of trains (UDP_GRO), which leave as they came (UDP_SEGMENT).
    Trains,
}

/// A forwarder that runs.
pub(crate) struct Bare {
    /// Where it takes datagrams from the source.
    pub(crate) entry: SocketAddr,
    /// Where it sends to the sink from.
    pub(crate) exit: SocketAddr,
    pub(crate) thread: Watched,
    stop: Arc<AtomicBool>,
    forwarded: Arc<AtomicU64>,
    handle: Option<JoinHandle<()>>,
}

impl Bare {
    /// Starts it between `source` and `sink`, with both sockets connected. `spin`: it looks again at once instead of
    /// waiting in the kernel.
    pub(crate) fn start(
        calls: Calls,
        source: SocketAddr,
        sink: SocketAddr,
        spin: bool,
        core: Option<usize>,
    ) -> io::Result<Bare> {
        let (entry, exit) = (net::open(net::free_address(1)?)?, net::open(net::free_address(1)?)?);
        entry.connect(source)?;
        exit.connect(sink)?;
        entry.set_nonblocking(spin)?;
        entry.set_read_timeout(Some(NAP))?;
        let (stop, forwarded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let addresses = (entry.local_addr()?, exit.local_addr()?);
        let (asked, count) = (Arc::clone(&stop), Arc::clone(&forwarded));
        let (ready, started) = std::sync::mpsc::channel();
        let handle = std::thread::Builder::new().name(NAME.into()).spawn(move || {
            if let Some(core) = core {
                pin(core);
            }
            let _ = ready.send(());
            match calls {
                Calls::One => forward_one(&entry, &exit, &asked, &count),
                Calls::Many => forward_many(&entry, &exit, &asked, &count),
                Calls::Trains => forward_trains(entry, source, &exit, &asked, &count),
            }
        })?;
        // The thread has its name once it has spoken.
        let _ = started.recv();
        let thread = Watched::find(std::process::id(), NAME)?;
        Ok(Bare { entry: addresses.0, exit: addresses.1, thread, stop, forwarded, handle: Some(handle) })
    }

    /// Datagrams forwarded so far.
    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

fn forward_one(entry: &UdpSocket, exit: &UdpSocket, stop: &AtomicBool, forwarded: &AtomicU64) {
    let mut room = [0; SLOT];
    while !stop.load(Ordering::Relaxed) {
        let Ok(len) = entry.recv(&mut room) else { continue };
        room[1] = room[1].wrapping_sub(1);
        // What the kernel refuses is lost.
        let _ = exit.send(&room[..len]);
        forwarded.fetch_add(1, Ordering::Relaxed);
    }
}

fn forward_trains(entry: UdpSocket, source: SocketAddr, exit: &UdpSocket, stop: &AtomicBool, forwarded: &AtomicU64) {
    let Ok(mut entry) = Port::new(entry, source) else { return };
    while !stop.load(Ordering::Relaxed) {
        forwarded.fetch_add(entry.forward(exit) as u64, Ordering::Relaxed);
    }
}

fn forward_many(entry: &UdpSocket, exit: &UdpSocket, stop: &AtomicBool, forwarded: &AtomicU64) {
    let mut room = vec![[0u8; SLOT]; BATCH].into_boxed_slice();
    let mut vectors: Vec<libc::iovec> = Vec::with_capacity(BATCH);
    // SAFETY: all-zero is a valid mmsghdr: no name, no vectors, no control.
    let mut headers: Vec<libc::mmsghdr> = vec![unsafe { std::mem::zeroed() }; BATCH];
    for slot in &mut room {
        vectors.push(libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT });
    }
    for (header, vector) in headers.iter_mut().zip(&mut vectors) {
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
    }
    while !stop.load(Ordering::Relaxed) {
        let (most, flags) = (BATCH as libc::c_uint, libc::MSG_WAITFORONE);
        // SAFETY: every header has its own vector, every vector its own slot; all outlive the call.
        let count = unsafe { libc::recvmmsg(entry.as_raw_fd(), headers.as_mut_ptr(), most, flags, ptr::null_mut()) };
        let Ok(count) = usize::try_from(count) else { continue };
        for index in 0..count {
            vectors[index].iov_len = headers[index].msg_len as usize;
            room[index][1] = room[index][1].wrapping_sub(1);
        }
        let mut sent = 0;
        while sent < count {
            let left = (count - sent) as libc::c_uint;
            // SAFETY: as above.
            let result = unsafe { libc::sendmmsg(exit.as_raw_fd(), headers[sent..].as_mut_ptr(), left, 0) };
            // What the kernel refuses is lost: the one datagram is skipped.
            sent += usize::try_from(result).unwrap_or(0).max(1);
        }
        for vector in &mut vectors[..count] {
            vector.iov_len = SLOT;
        }
        forwarded.fetch_add(count as u64, Ordering::Relaxed);
    }
}
