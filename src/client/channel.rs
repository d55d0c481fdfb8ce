//! What a session's records go through: its socket, or the rings in the memory that it shares with its router, and the
//! socket beside them (see [`shm`](crate::shm)). Both take and give whole records, gathered and scattered, and both wait
//! as the socket says: not at all if it does not block, else as long as its timeouts allow.

use super::batch::Batch;
use super::sys::{self, over};
use crate::shm::{Bells, Consumer, Memory, Nonsense, PLUG, Producer, Taken, Way};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A reader looks into its ring for this long before it waits in the kernel, as long as that pays: to be woken costs more
/// than a router that works needs to answer.
const SPIN: Duration = Duration::from_micros(50);
/// Looks before others are let onto the core.
const LOOKS: usize = 64;
/// Readers that waited longer every time still try one wait in so many.
const TRY: u32 = 64;
/// Waits that did not pay before a reader gives it up.
const PATIENCE: u32 = 4;
/// A writer looks whether the router lives this often. Whoever was killed says nothing, and rings of one that did not sleep
/// take records until they are full.
const LOOK: Duration = Duration::from_millis(100);

/// A channel; clones share all of it.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    rings: Option<Arc<Rings>>,
}

#[derive(Debug)]
struct Rings {
    up: Mutex<Outlet>,
    down: Mutex<Inlet>,
}

/// The end that writes, and when it looks again whether anybody reads, by the coarse clock.
#[derive(Debug)]
struct Outlet {
    ring: Producer,
    look: Duration,
}

/// The end that reads, and the bells of which it knows.
#[derive(Debug)]
struct Inlet {
    ring: Consumer,
    bells: Bells,
    /// How many more waits may not pay, and how many there were.
    patience: u32,
    waits: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    /// A channel through the socket, or through the memory behind the other descriptor.
    pub(super) fn new(socket: OwnedFd, memory: Option<OwnedFd>) -> io::Result<Channel> {
        let rings = memory.map(|memory| Rings::map(memory.as_fd()).map(Arc::new)).transpose()?;
        Ok(Channel { socket, rings })
    }

    /// Another handle to the same channel.
    pub(super) fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel { socket: self.socket.try_clone()?, rings: self.rings.clone() })
    }

    /// Whether records go through shared memory.
    pub(super) const fn shares_memory(&self) -> bool {
        self.rings.is_some()
    }

    /// Sends the concatenation of `parts` as one record. `BrokenPipe` if the router has closed its end.
    pub(super) fn send(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let Some(rings) = &self.rings else { return sys::send_parts(self.as_fd(), parts).map(drop) };
        while rings.put(self.as_fd(), &[&*parts])? == 0 {
            sys::wait_for_room(self.as_fd())?;
        }
        Ok(())
    }

    /// Sends records in their order, each as [`Channel::send`] does. Answers how many there was room for; if it `waits`, for
    /// one at least.
    pub(super) fn send_batch(&self, records: &mut [[IoSlice<'_>; 2]], waits: bool) -> io::Result<usize> {
        loop {
            let sent = match &self.rings {
                Some(rings) => rings.put(self.as_fd(), records)?,
                None => sys::send_many(self.as_fd(), records)?,
            };
            if sent > 0 || !waits {
                return Ok(sent);
            }
            sys::wait_for_room(self.as_fd())?;
        }
    }

    /// Receives one record, scattered over `parts`. Answers its whole length, also if it did not fit; 0 if the router has
    /// closed its end.
    pub(super) fn receive(&self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let Some(rings) = &self.rings else { return sys::receive_parts(self.as_fd(), parts) };
        let mut closed = false;
        loop {
            let mut inlet = lock(&rings.down);
            if let Some(len) = inlet.take(self.as_fd(), parts)? {
                return Ok(len);
            }
            if closed {
                return Ok(0);
            }
            if inlet.spin(self.as_fd()) {
                continue;
            }
            let may_wait = inlet.may_wait(self.as_fd());
            drop(inlet);
            if !may_wait {
                continue;
            }
            match sys::wait_for_token(self.as_fd())? {
                // What the router had written before it closed its end is still to be read.
                0 => closed = true,
                PLUG => lock(&rings.down).take_plug(self.as_fd()),
                _ => {}
            }
        }
    }

    /// Receives the first record as [`Channel::receive`] does, and with it what else is there and fits.
    pub(super) fn receive_batch(&self, batch: &mut Batch) -> io::Result<()> {
        let (mut slots, lens) = batch.slots();
        lens.clear();
        let first = slots.next().expect("a batch has room for one");
        lens.push(self.receive(&mut [IoSliceMut::new(first)])?);
        let Some(rings) = &self.rings else {
            // A failure comes again with the next call.
            let _ = sys::receive_many(self.as_fd(), slots, lens);
            return Ok(());
        };
        let mut inlet = lock(&rings.down);
        for slot in slots {
            let Ok(Some(len)) = inlet.take(self.as_fd(), &mut [IoSliceMut::new(slot)]) else { break };
            lens.push(len);
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Rings {
    fn map(memory: BorrowedFd<'_>) -> io::Result<Rings> {
        let memory = Arc::new(Memory::map(memory)?);
        let up = Mutex::new(Outlet { ring: Producer::new(Arc::clone(&memory), Way::Up), look: Duration::ZERO });
        let down = Mutex::new(Inlet {
            ring: Consumer::new(memory, Way::Down),
            bells: Bells::default(),
            patience: 0,
            waits: 0,
        });
        Ok(Rings { up, down })
    }

    /// Puts records in, as many as there is room for, and wakes the router if it sleeps. Answers how many; if none, a plug
    /// is in the socket, which is writable when there is room.
    fn put<'a, P: AsRef<[IoSlice<'a>]>>(&self, socket: BorrowedFd<'_>, records: &[P]) -> io::Result<usize> {
        let mut outlet = lock(&self.up);
        if outlet.is_over(socket) {
            return Err(over());
        }
        let ring = &mut outlet.ring;
        let mut put = 0;
        for record in records {
            if !ring.push(record.as_ref().iter().map(|part| &**part)).map_err(broken)? {
                break;
            }
            put += 1;
        }
        let token = match put {
            0 => PLUG,
            _ if ring.must_wake() => 1,
            _ => return Ok(put),
        };
        drop(outlet);
        match sys::send_token(socket, token) {
            // Whoever reads what is in there finds the record as well; there is no room for more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(put),
            done => done.map(|()| put),
        }
    }
}

impl Outlet {
    /// Whether the router ended the session, or has been gone for longer than [`LOOK`].
    fn is_over(&mut self, socket: BorrowedFd<'_>) -> bool {
        if self.ring.is_over() {
            return true;
        }
        let now = sys::coarse_time();
        if now < self.look {
            return false;
        }
        self.look = now + LOOK;
        sys::has_hung_up(socket)
    }
}

impl Inlet {
    /// Takes the next record.
    fn take(&mut self, socket: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        let Some(len) = self.ring.front().map_err(broken)? else { return Ok(None) };
        let mut from = 0;
        for part in parts {
            from += self.ring.copy_front(from, part).map_err(broken)?;
        }
        self.ring.pop();
        self.unplug(socket);
        Ok(Some(len))
    }

    /// Looks again and again for a while, if that has paid lately and the reader would wait at all. Whether something came.
    fn spin(&mut self, socket: BorrowedFd<'_>) -> bool {
        self.waits = self.waits.wrapping_add(1);
        if (self.patience == 0 && !self.waits.is_multiple_of(TRY)) || !sys::is_blocking(socket) {
            return false;
        }
        let begin = Instant::now();
        let came = loop {
            let mut looks = (0..LOOKS).inspect(|_| std::hint::spin_loop());
            if looks.any(|_| !self.ring.is_empty()) {
                break true;
            }
            if begin.elapsed() >= SPIN {
                break false;
            }
            std::thread::yield_now();
        };
        self.patience = if came { PATIENCE } else { self.patience.saturating_sub(1) };
        came
    }

    /// Whether it may wait for the socket to be readable.
    fn may_wait(&mut self, socket: BorrowedFd<'_>) -> bool {
        self.unplug(socket);
        let Inlet { ring, bells, .. } = self;
        bells.may_wait(ring.sleeper(), || ring.is_empty(), || take_token(socket))
    }

    /// Takes a plug out, once there is room enough. The router may put the next one in at any time after that, so what says
    /// that one is there is withdrawn before.
    fn unplug(&mut self, socket: BorrowedFd<'_>) {
        let Inlet { ring, bells, .. } = self;
        if ring.is_plugged() && ring.is_half_empty() {
            ring.clear_plugged();
            bells.unplug(ring.sleeper(), || take_token(socket));
        }
    }

    /// Takes out the plug that was seen in the socket while the ring was empty, unless another reader has done so.
    fn take_plug(&mut self, socket: BorrowedFd<'_>) {
        if self.ring.is_half_empty() && sys::peek_token(socket) == Some(PLUG) {
            take_token(socket);
        }
    }
}

fn take_token(socket: BorrowedFd<'_>) -> Taken {
    match sys::take_token(socket) {
        Some(PLUG) => Taken::Plug,
        Some(_) => Taken::Bell,
        None => Taken::Nothing,
    }
}

fn broken(Nonsense: Nonsense) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the memory shared with the router holds nonsense: open the session again",
    )
}
