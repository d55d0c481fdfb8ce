//! The backend that works everywhere: epoll, recvmmsg, sendmmsg.

use super::{Backend, Counters, Event, PASS, PASS_PER_SOCKET, Parts, Sink, tell_unreachable};
use crate::base::limits::DATAGRAM_SLOT;
use crate::base::{AddressPair, Instant, LinkId, SessionId};
use crate::containers::Batch;
use crate::runtime::doorbell::Doorbell;
use crate::runtime::io::trains::{self, Arrangement, TRAIN_SLOT};
use crate::runtime::io::watches::Watches;
use crate::runtime::sys::{self, Beside, BesideRoom, Name};
use crate::runtime::udp::Sockets;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Events taken from epoll at a time; the rest come with the next pass.
const EVENTS: usize = 64;

/// Trains taken from one socket in one pass, at most.
const TRAIN_SLOTS: usize = 32;

/// What an epoll event is about: the kind in the top byte, which one in the rest.
const LISTEN: u64 = 0;
const BELL: u64 = 1 << 56;
/// With the link in bits 32 to 47 and the socket's generation below.
const LINK: u64 = 2 << 56;
const SESSION: u64 = 3 << 56;
const KIND: u64 = 0xff << 56;

/// What is asked of a session of which nothing is wanted. A hang-up cannot be masked, so level-triggered it would spin.
const ONLY_HANGUP: u32 = (libc::EPOLLRDHUP | libc::EPOLLET) as u32;

/// A watched session.
#[derive(Debug)]
struct Watch {
    fd: RawFd,
    interest: u32,
}

/// The backend.
pub struct Mmsg {
    epoll: OwnedFd,
    coarse: bool,
    events: Box<[libc::epoll_event; EVENTS]>,
    ready: usize,
    turn: usize,
    sockets: Sockets,
    bell: Arc<Doorbell>,
    watches: Watches<Watch>,
    receive: ReceiveRoom,
    transmit: Arrangement,
    counters: Counters,
}

impl std::fmt::Debug for Mmsg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mmsg").field("sockets", &self.sockets).field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Mmsg {
    /// A backend for these parts.
    pub fn new(parts: Parts) -> io::Result<Mmsg> {
        let epoll = sys::epoll()?;
        let (bell, trains) = (Arc::clone(&parts.bell), parts.trains);
        let sockets = Sockets::new(parts)?;
        let readable = libc::EPOLLIN as u32;
        let listen = sockets.listening().as_raw_fd();
        sys::epoll_control(epoll.as_fd(), libc::EPOLL_CTL_ADD, listen, readable, LISTEN)?;
        sys::epoll_control(epoll.as_fd(), libc::EPOLL_CTL_ADD, bell.as_raw_fd(), readable, BELL)?;
        Ok(Mmsg {
            epoll,
            coarse: false,
            events: Box::new([libc::epoll_event { events: 0, u64: 0 }; EVENTS]),
            ready: 0,
            turn: 0,
            sockets,
            bell,
            watches: Watches::new(),
            receive: ReceiveRoom::new(trains),
            transmit: Arrangement::new(),
            counters: Counters::default(),
        })
    }

    /// Fills `events`. Failures other than a signal cannot happen with valid arguments.
    fn collect(&mut self, timeout: Option<Duration>) {
        self.counters.calls += 1;
        let result = sys::epoll_wait(self.epoll.as_fd(), self.events.as_mut_slice(), timeout, &mut self.coarse);
        self.ready = match result {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => panic!("epoll refuses to wait: {error}"),
        };
    }

    fn handle_session(&mut self, token: u64, flags: u32, sink: &mut Sink<'_>) {
        let Some((session, watch)) = self.watches.find(token) else { return };
        let ended = (libc::EPOLLHUP | libc::EPOLLRDHUP | libc::EPOLLERR) as u32;
        // An ended session is read (its last records, then its end) or written (the error).
        if watch.interest == ONLY_HANGUP && flags & ended != 0 {
            return sink(Event::HungUp(session));
        }
        if watch.interest & libc::EPOLLIN as u32 != 0 && flags & (libc::EPOLLIN as u32 | ended) != 0 {
            sink(Event::Readable(session));
        }
        if watch.interest & libc::EPOLLOUT as u32 != 0 && flags & (libc::EPOLLOUT as u32 | ended) != 0 {
            sink(Event::Writable(session));
        }
    }

    /// `which`: a link and the generation of its socket; none for the socket that listens.
    fn receive(&mut self, which: Option<(LinkId, u32)>, room: usize, sink: &mut Sink<'_>) -> usize {
        let (fd, from) = match which {
            None => (self.sockets.listening().as_fd(), None),
            Some((link, generation)) => match self.sockets.of(link).iter().find(|open| open.generation == generation) {
                Some(open) => (open.socket.as_fd(), Some(open.pair)),
                None => return 0,
            },
        };
        if room == 0 {
            return 0;
        }
        // A refusal is reported once and takes the place of the datagrams behind it: ask again for those.
        for _ in 0..2 {
            self.counters.calls += 1;
            let way = which.map(|(link, _)| link).zip(from);
            match self.receive.receive(fd, way, room.min(PASS_PER_SOCKET), &mut self.counters, sink) {
                Ok(count) => return count,
                Err(error) => match (error.raw_os_error(), which.zip(from)) {
                    (Some(libc::EAGAIN), _) => return 0,
                    (Some(libc::EINTR), _) => {}
                    (Some(libc::ECONNREFUSED), Some(((link, _), path))) => sink(Event::Refused(link, path)),
                    (_, None) if tell_unreachable(&self.sockets, sink) => {}
                    _ => self.counters.receive_errors += 1,
                },
            }
        }
        0
    }

    /// One sendmmsg: the train `next` and those behind it that leave through the same socket. Answers how many left.
    fn send_run(&mut self, next: usize) -> io::Result<usize> {
        let run = next..next + self.transmit.run(next);
        // SAFETY: sockets are closed by `close_path` only, and what was placed is flushed before that.
        let connected = |fd| unsafe { BorrowedFd::borrow_raw(fd) };
        let fd = self.transmit.trains()[next].socket.map_or(self.sockets.listening().as_fd(), connected);
        self.counters.calls += 1;
        // SAFETY: `arrange` pointed the headers at what outlives this call.
        let count = unsafe { sys::send_many(fd, &mut self.transmit.headers()[run]) }?;
        let left = &self.transmit.trains()[next..next + count];
        left.iter().for_each(|train| self.counters.count_sent(train.count));
        Ok(count)
    }
}

impl Backend for Mmsg {
    fn name(&self) -> &'static str {
        "mmsg"
    }

    fn watch(&mut self, session: SessionId, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let (fd, interest) = (descriptor.as_raw_fd(), libc::EPOLLIN as u32);
        let token = SESSION | self.watches.insert(session, Watch { fd, interest });
        let added = sys::epoll_control(self.epoll.as_fd(), libc::EPOLL_CTL_ADD, fd, interest, token);
        added.inspect_err(|_| {
            self.watches.remove(session);
        })
    }

    fn want(&mut self, session: SessionId, reads: bool, writes: bool) {
        let Some((token, watch)) = self.watches.of(session) else { return };
        let flag = |wanted, flag: libc::c_int| if wanted { flag as u32 } else { 0 };
        let interest = match flag(reads, libc::EPOLLIN) | flag(writes, libc::EPOLLOUT) {
            0 => ONLY_HANGUP,
            some => some,
        };
        if watch.interest == interest {
            return;
        }
        match sys::epoll_control(self.epoll.as_fd(), libc::EPOLL_CTL_MOD, watch.fd, interest, SESSION | token) {
            Ok(()) => watch.interest = interest,
            Err(error) => tracing::error!(%session, %error, "a session's descriptor cannot be watched"),
        }
    }

    fn unwatch(&mut self, session: SessionId) {
        let Some((_, watch)) = self.watches.remove(session) else { return };
        // Fails only if the descriptor is not in the set, which is what is wanted.
        let _ = sys::epoll_control(self.epoll.as_fd(), libc::EPOLL_CTL_DEL, watch.fd, 0, 0);
    }

    fn sockets(&mut self) -> &mut Sockets {
        &mut self.sockets
    }

    fn arrangement(&mut self) -> &mut Arrangement {
        &mut self.transmit
    }

    fn close_path(&mut self, link: LinkId, generation: u32) {
        // Closing the only reference takes the socket out of the epoll set.
        self.sockets.close(link, generation);
    }

    fn poll(&mut self, sink: &mut Sink<'_>) -> usize {
        if self.ready == 0 {
            self.collect(Some(Duration::ZERO));
        }
        let ready = std::mem::take(&mut self.ready);
        // epoll answers in the same order every time; whoever is first in a full pass moves on by one.
        self.turn = self.turn.wrapping_add(1);
        let mut datagrams = 0;
        for step in 0..ready {
            let event = self.events[(self.turn + step) % ready];
            let (kind, which) = (event.u64 & KIND, event.u64 & !KIND);
            // The last socket's trains may have brought more than there was room for.
            let room = PASS.saturating_sub(datagrams);
            match kind {
                BELL => self.bell.silence(),
                SESSION => self.handle_session(which, event.events, sink),
                LISTEN => {
                    if event.events & libc::EPOLLERR as u32 != 0 {
                        tell_unreachable(&self.sockets, sink);
                    }
                    datagrams += self.receive(None, room, sink);
                }
                _ => {
                    let which = Some((LinkId((which >> 32) as u16), which as u32));
                    datagrams += self.receive(which, room, sink);
                }
            }
        }
        datagrams
    }

    fn open_path(&mut self, now: Instant, link: LinkId, path: AddressPair, sink: &mut Sink<'_>) {
        let epoll = self.epoll.as_fd();
        let watch = |fd, generation| {
            let token = LINK | u64::from(link.0) << 32 | u64::from(generation);
            sys::epoll_control(epoll, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32, token)
        };
        let stray = |from: AddressPair, bytes: &mut [u8]| sink(Event::Datagram { from, bytes });
        self.sockets.open(now, link, path, watch, stray);
    }

    /// Sends everything placed and forgets it. The kernel stops at an error and answers a partial count; the error comes
    /// with the next call. A refusal (an ICMP answer to an *earlier* datagram) costs the refused train a second try.
    fn flush(&mut self, now: Instant, batch: &Batch, sink: &mut Sink<'_>) {
        let ipv6 = self.sockets.ipv6();
        self.transmit.arrange(batch, ipv6);
        let (mut next, mut retried) = (0, None);
        while let Some(&train) = self.transmit.trains().get(next) {
            let error = match self.send_run(next) {
                Ok(count) => {
                    next += count;
                    continue;
                }
                Err(error) => error.raw_os_error().unwrap_or(0),
            };
            let link = self.transmit.link(batch, train);
            let heard = train.socket.is_none() && tell_unreachable(&self.sockets, sink);
            match error {
                libc::EINTR => {}
                _ if heard && retried != Some(next) => retried = Some(next),
                libc::ECONNREFUSED if train.socket.is_some() && retried != Some(next) => {
                    link.into_iter().for_each(|(link, path)| sink(Event::Refused(link, path)));
                    retried = Some(next);
                }
                error if train.count > 1 && trains::refused_by(error) => {
                    self.counters.trains_refused += 1;
                    link.into_iter().for_each(|(link, _)| self.sockets.put_off_trains(now, link));
                    self.transmit.uncouple(batch, ipv6, next);
                }
                error => {
                    // A full buffer is as full for the rest of the run.
                    let full = matches!(error, libc::EAGAIN | libc::ENOBUFS);
                    let failed = if full { self.transmit.run(next) } else { 1 };
                    self.transmit.tell_failed(batch, next..next + failed, error, sink);
                    next += failed;
                }
            }
        }
        self.transmit.clear();
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if self.ready == 0 {
            self.collect(timeout);
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// Room for one recvmmsg.
struct ReceiveRoom {
    bytes: Box<[u8]>,
    /// Bytes of each slot.
    slot: usize,
    names: Box<[Name]>,
    vectors: Box<[libc::iovec]>,
    controls: Box<[BesideRoom]>,
    headers: Box<[libc::mmsghdr]>,
    /// Datagrams that a slot held lately, at least one.
    per_slot: usize,
}

impl ReceiveRoom {
    fn new(trains: bool) -> ReceiveRoom {
        let (slots, slot) = if trains { (TRAIN_SLOTS, TRAIN_SLOT) } else { (PASS_PER_SOCKET, DATAGRAM_SLOT) };
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let header = libc::mmsghdr { msg_hdr: sys::empty_header(), msg_len: 0 };
        ReceiveRoom {
            bytes: vec![0; slots * slot].into_boxed_slice(),
            slot,
            names: vec![Name::EMPTY; slots].into_boxed_slice(),
            vectors: vec![nothing; slots].into_boxed_slice(),
            controls: vec![BesideRoom::EMPTY; slots].into_boxed_slice(),
            headers: vec![header; slots].into_boxed_slice(),
            per_slot: 1,
        }
    }

    /// One recvmmsg of about `room` datagrams: trains may bring more. `way` is the link of a connected socket and its
    /// path; without it the kernel is asked for each datagram's source.
    fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        way: Option<(LinkId, AddressPair)>,
        room: usize,
        counters: &mut Counters,
        sink: &mut Sink<'_>,
    ) -> io::Result<usize> {
        let (link, from) = way.unzip();
        let slots = room.div_ceil(self.per_slot).min(self.headers.len());
        for (index, slot) in self.bytes.chunks_exact_mut(self.slot).take(slots).enumerate() {
            self.vectors[index] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            (header.msg_control, header.msg_controllen) = ((&raw mut self.controls[index]).cast(), BesideRoom::LEN);
            (header.msg_name, header.msg_namelen) = match from {
                Some(_) => (std::ptr::null_mut(), 0),
                None => ((&raw mut self.names[index]).cast(), Name::LEN as libc::socklen_t),
            };
        }
        // SAFETY: every header was just pointed to its own slot, vector, name and control, all of them alive and unaliased.
        let filled = unsafe { sys::receive_many(fd, &mut self.headers[..slots]) }?;
        let mut count = 0;
        for (index, slot) in self.bytes.chunks_exact_mut(self.slot).take(filled).enumerate() {
            let len = (self.headers[index].msg_len as usize).min(slot.len());
            let Some(from) = from.or_else(|| self.names[index].get().map(AddressPair::from)) else { continue };
            let Beside { cut, at } = self.controls[index].read(self.headers[index].msg_hdr.msg_controllen);
            let each = |bytes: &mut [u8]| sink(Event::Datagram { from, bytes });
            let datagrams = trains::uncouple(&mut slot[..len], cut, counters, each);
            at.into_iter().for_each(|at| sink(Event::Arrived { link, at, datagrams }));
            count += datagrams;
        }
        self.per_slot = count.div_ceil(filled.max(1)).max(1);
        Ok(count)
    }
}
