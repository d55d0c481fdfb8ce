//! Kernel TCP: from the source to the sink, directly or through a relay.

use super::machine::{Watched, pin};
use super::path::Path;
use sinew::base::Instant;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Bytes handed to the kernel, and taken from it, together.
const CHUNK: usize = 1 << 18;
const NAME: &str = "tcp-relay";

/// A relay's way to pass bytes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relaying {
    /// read, change one byte, write.
    Copy,
    /// splice through a pipe: the bytes never reach the process.
    Splice,
}

/// A relay that runs; it ends with its connections.
pub(crate) struct Relay {
    pub(crate) thread: Watched,
    handle: Option<JoinHandle<()>>,
}

/// Messages of one size, one after the other, in a stream.
pub(crate) struct Stream {
    source: TcpStream,
    sink: TcpStream,
    staged: Vec<u8>,
    written: usize,
    /// Bytes of a message; of one that has arrived in part, how many.
    size: usize,
    part: usize,
    room: Box<[u8]>,
}

fn listener() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Stream {
    /// A connection between the ends.
    pub(crate) fn direct(size: usize) -> io::Result<Stream> {
        let (listener, address) = listener()?;
        let source = TcpStream::connect(address)?;
        Stream::new(source, listener.accept()?.0, size)
    }

    /// Two connections with a relay between them.
    pub(crate) fn relayed(size: usize, relaying: Relaying, core: Option<usize>) -> io::Result<(Stream, Relay)> {
        let ((entry, entry_address), (exit, exit_address)) = (listener()?, listener()?);
        let source = TcpStream::connect(entry_address)?;
        let (from, to) = (entry.accept()?.0, TcpStream::connect(exit_address)?);
        let relay = Relay::start(from, to, relaying, core)?;
        Ok((Stream::new(source, exit.accept()?.0, size)?, relay))
    }

    fn new(source: TcpStream, sink: TcpStream, size: usize) -> io::Result<Stream> {
        source.set_nonblocking(true)?;
        sink.set_nonblocking(true)?;
        source.set_nodelay(true)?;
        let (staged, room) = (Vec::with_capacity(CHUNK), vec![0; CHUNK].into_boxed_slice());
        Ok(Stream { source, sink, staged, written: 0, size, part: 0, room })
    }
}

impl Path for Stream {
    fn send(&mut self, _now: Instant, message: &[u8]) -> bool {
        if self.staged.len() + message.len() > CHUNK {
            return false;
        }
        self.staged.extend_from_slice(message);
        true
    }

    fn turn(&mut self, _now: Instant, arrived: &mut dyn FnMut(&[u8])) {
        if let Some(rest) = self.staged.get(self.written..).filter(|rest| !rest.is_empty()) {
            // A full socket takes the rest at another turn.
            self.written += self.source.write(rest).unwrap_or(0);
        }
        if self.written == self.staged.len() {
            self.staged.clear();
            self.written = 0;
        }
        let taken = self.part + self.sink.read(&mut self.room).unwrap_or(0);
        self.part = taken % self.size;
        (0..taken / self.size).for_each(|_| arrived(&[]));
    }

    fn room(&self, _size: usize) -> u64 {
        // A stream is its own flow control.
        u64::MAX
    }
}

impl Relay {
    fn start(from: TcpStream, to: TcpStream, relaying: Relaying, core: Option<usize>) -> io::Result<Relay> {
        to.set_nodelay(true)?;
        let (ready, started) = mpsc::channel();
        let handle = std::thread::Builder::new().name(NAME.into()).spawn(move || {
            if let Some(core) = core {
                pin(core);
            }
            let _ = ready.send(());
            // It ends when the source closes, or when the sink does: both are the measurement's end.
            let _ = match relaying {
                Relaying::Copy => copy(from, to),
                Relaying::Splice => splice(&from, &to),
            };
        })?;
        // The thread has its name once it has spoken.
        let _ = started.recv();
        Ok(Relay { thread: Watched::find(std::process::id(), NAME)?, handle: Some(handle) })
    }

    /// Waits for its end; the connections must be closed by then.
    pub(crate) fn join(mut self) {
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let mut room = vec![0; CHUNK];
    loop {
        let count = from.read(&mut room)?;
        if count == 0 {
            return Ok(());
        }
        room[0] = room[0].wrapping_sub(1);
        to.write_all(&room[..count])?;
    }
}

fn splice(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: `ends` is room for two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptors are new and nobody else's.
    let [out, into] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    // SAFETY: it changes the size of our own pipe; a refusal leaves the pipe smaller.
    unsafe { libc::fcntl(into.as_raw_fd(), libc::F_SETPIPE_SZ, CHUNK as libc::c_int) };
    loop {
        let mut left = splice_once(from.as_raw_fd(), into.as_raw_fd(), CHUNK)?;
        if left == 0 {
            return Ok(());
        }
        while left > 0 {
            left -= splice_once(out.as_raw_fd(), to.as_raw_fd(), left)?;
        }
    }
}

fn splice_once(from: libc::c_int, to: libc::c_int, most: usize) -> io::Result<usize> {
    // SAFETY: both are open descriptors; without offsets no memory is read or written.
    let moved = unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), most, libc::SPLICE_F_MOVE) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
