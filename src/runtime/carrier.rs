//! What carries a session's records between its worker and its application: a socket, or rings in shared memory with the
//! socket beside them (see [`shm`](crate::shm)).

use super::sys;
use crate::shm::{Consumer, Memory, Nonsense, PLUG, Producer, SOCKET_BUFFER, Way};
use crate::wire::client::MAX_RECORD;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Asked of the kernel for each end of a socket that carries records, bytes: several of the largest.
const RECORDS_BUFFER: libc::c_int = 8 * MAX_RECORD as libc::c_int;
/// Asked for where it carries bells; the kernel takes it twice.
const BELLS_BUFFER: libc::c_int = SOCKET_BUFFER as libc::c_int / 2;

/// What became of a look for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A record of this length.
    Record(usize),
    /// None is there.
    Nothing,
    /// The application closed its end, and all of its records are taken.
    End,
    /// The application wrote nonsense into the shared memory.
    Nonsense,
}

/// What became of a record for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It has it.
    Done,
    /// There is no room; the socket is writable when there is some.
    Full,
    /// The application is gone.
    Gone,
    /// The application wrote nonsense into the shared memory.
    Nonsense,
}

/// Memory that all sessions may still share with their applications, bytes.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        Budget(Arc::new(AtomicUsize::new(bytes)))
    }

    fn take(&self) -> Option<Share> {
        let less = |left: usize| left.checked_sub(crate::shm::memory::SIZE);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok().map(|_| Share(self.clone()))
    }
}

/// One session's share; goes back when it is dropped.
#[derive(Debug)]
struct Share(Budget);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.0.fetch_add(crate::shm::memory::SIZE, Ordering::Relaxed);
    }
}

/// The application's side of a carrier, to be handed over.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) socket: OwnedFd,
    /// By which it maps the shared memory.
    pub(super) memory: Option<OwnedFd>,
}

/// One session's carrier, at its worker.
#[derive(Debug)]
pub(super) struct Carrier {
    socket: OwnedFd,
    rings: Option<Rings>,
}

#[derive(Debug)]
struct Rings {
    up: Consumer,
    down: Producer,
    /// The back-end has told that something is in the socket.
    rung: bool,
    /// The application closed its end.
    ended: bool,
    memory: Arc<Memory>,
    _share: Share,
}

impl Carrier {
    /// A socket pair, and shared memory if there is a budget with some left.
    pub(super) fn new(budget: Option<&Budget>) -> io::Result<(Carrier, Offer)> {
        let (router, application) = sys::session_pair()?;
        let shared = budget.and_then(Rings::new);
        let size = if shared.is_some() { BELLS_BUFFER } else { RECORDS_BUFFER };
        for end in [&router, &application] {
            sys::set_option(end.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, size)?;
        }
        let (rings, memory) = shared.unzip();
        Ok((Carrier { socket: router, rings }, Offer { socket: application, memory }))
    }

    /// Whether records go through shared memory.
    pub(super) const fn shares_memory(&self) -> bool {
        self.rings.is_some()
    }

    /// The back-end says that the socket is readable.
    pub(super) const fn note_readable(&mut self) {
        if let Some(rings) = &mut self.rings {
            rings.rung = true;
        }
    }

    /// Takes the next record.
    pub(super) fn receive(&mut self, record: &mut [u8]) -> Received {
        let Some(rings) = &mut self.rings else { return receive_from(self.socket.as_fd(), record) };
        match rings.up.take(record) {
            Ok(Some(len)) => Received::Record(len),
            Ok(None) if rings.ended => Received::End,
            Ok(None) => Received::Nothing,
            Err(Nonsense) => Received::Nonsense,
        }
    }

    /// After records were taken: takes the bell or plug that the back-end told of, unless the ring is still more than
    /// half full, and then it will be told again.
    pub(super) fn answer_bell(&mut self) {
        let Some(rings) = &mut self.rings else { return };
        if !(rings.rung && rings.up.is_half_empty()) {
            return;
        }
        rings.rung = false;
        match sys::receive_record(self.socket.as_fd(), &mut [0; 1]) {
            Ok(0) => rings.ended = true,
            Ok(_) => {}
            Err(error) => {
                let passing = [libc::EAGAIN, libc::EINTR, libc::ECONNRESET];
                rings.ended = !error.raw_os_error().is_some_and(|errno| passing.contains(&errno));
            }
        }
    }

    /// Whether the worker knows without the back-end that there is something to receive: a record, or the end.
    pub(super) fn is_ready(&self) -> bool {
        self.rings.as_ref().is_some_and(|rings| rings.ended || !rings.up.is_empty())
    }

    /// Whether the worker need not look any more until the back-end tells that the socket is readable.
    pub(super) fn may_sleep(&self) -> bool {
        self.rings.as_ref().is_none_or(|rings| rings.up.sleeper().prepare(|| rings.up.is_empty()))
    }

    /// Puts a record in; [`Carrier::wake`] must follow, if only after several.
    pub(super) fn send(&mut self, record: &[u8]) -> Written {
        let Some(rings) = &mut self.rings else { return send_by(self.socket.as_fd(), record) };
        match rings.down.push(std::iter::once(record)) {
            Ok(true) => Written::Done,
            Ok(false) => {
                rings.down.set_plugged(true);
                match send_by(self.socket.as_fd(), &[0; PLUG]) {
                    // It is not writable for what is in there already.
                    Written::Full => rings.down.set_plugged(false),
                    Written::Gone => return Written::Gone,
                    Written::Done | Written::Nonsense => {}
                }
                Written::Full
            }
            Err(Nonsense) => Written::Nonsense,
        }
    }

    /// Wakes the application if it sleeps.
    pub(super) fn wake(&self) {
        if self.rings.as_ref().is_some_and(|rings| rings.down.must_wake()) {
            // If there is no room, bells enough are in there; if nobody is there, the back-end tells.
            let _ = sys::send_record(self.socket.as_fd(), &[0]);
        }
    }

    /// Copies the last record that waits; none if none waits, or if that cannot be told. The application must be gone.
    pub(super) fn peek_last(&self, record: &mut [u8]) -> io::Result<Option<usize>> {
        match &self.rings {
            None => sys::peek_last_record(self.socket.as_fd(), record),
            Some(rings) => {
                rings.up.copy_last(record).map_err(|Nonsense| io::Error::other("nonsense in its shared memory"))
            }
        }
    }
}

impl AsFd for Carrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Rings {
    /// None if memory is short; the socket then carries the records.
    fn new(budget: &Budget) -> Option<(Rings, OwnedFd)> {
        let share = budget.take()?;
        let made = Memory::create().inspect_err(|error| {
            tracing::warn!(%error, "no shared memory for a session; its records go through a socket");
        });
        let (memory, descriptor) = made.ok()?;
        let memory = Arc::new(memory);
        let (up, down) = (Consumer::new(Arc::clone(&memory), Way::Up), Producer::new(Arc::clone(&memory), Way::Down));
        Some((Rings { up, down, rung: false, ended: false, memory, _share: share }, descriptor))
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        self.memory.end();
    }
}

fn receive_from(socket: BorrowedFd<'_>, record: &mut [u8]) -> Received {
    loop {
        match sys::receive_record(socket, record) {
            Ok(0) => return Received::End,
            Ok(len) => return Received::Record(len),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Received::Nothing,
                // The application closed its end without reading everything. That is said once, ahead of the records it
                // had sent before.
                Some(libc::ECONNRESET | libc::EINTR) => {}
                _ => return Received::End,
            },
        }
    }
}

fn send_by(socket: BorrowedFd<'_>, record: &[u8]) -> Written {
    loop {
        match sys::send_record(socket, record) {
            Ok(()) => return Written::Done,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Written::Full,
                _ => return Written::Gone,
            },
        }
    }
}
