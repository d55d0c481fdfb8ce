//! The io_uring backend.
//!
//! One ring per worker. Receives are multishot recvmsg: armed once per socket, they fill buffers lent to the kernel until those
//! run out, which ends them; they are armed again when enough buffers came back. Sends are non-blocking and say nothing
//! on success, so the kernel is done with a batch's bytes when the submission returns; a failure that is only reported
//! later (the completion queue had overflowed) carries its batch's number, and is counted but laid to no other batch's
//! datagram. Descriptors of sessions and the
//! doorbell are watched by one-shot polls, armed again after each event, which makes them level-triggered.
//!
//! What ends a multishot receive, and what happens then:
//!
//! | completion | cause | answer |
//! |---|---|---|
//! | -ENOBUFS | every buffer is lent out | count; arm when a quarter of the buffers is back |
//! | -ECONNREFUSED | nothing listens at the neighbour | tell the shard; arm |
//! | any, listening socket | an ICMP message in its queue of errors | empty the queue, tell the shard; arm |
//! | data, no `F_MORE` | completion queue overflowed | count; arm |
//! | -ECANCELED, old generation | we closed the socket | nothing; count data that had come by it |

use super::{BATCH, Backend, Counters, Event, PASS, Parts, Sink, tell_unreachable};
use crate::base::limits::{DATAGRAM_SLOT, MAX_SESSIONS};
use crate::base::{AddressPair, Instant, LinkId, SessionId};
use crate::containers::Batch;
use crate::runtime::doorbell::Doorbell;
use crate::runtime::io::trains::{self, Arrangement, TRAIN_SLOT};
use crate::runtime::io::uring::buffers::BufferRing;
use crate::runtime::io::watches::Watches;
use crate::runtime::sys::{self, Beside, BesideRoom, Name};
use crate::runtime::udp::{MAX_LINK_SOCKETS, Sockets};
use crate::telemetry::DropReason;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

mod buffers;
mod selftest;
#[cfg(test)]
mod tests;

pub use selftest::self_test;

/// Submission slots: a batch, and room for polls and receives beside it.
const SUBMISSIONS: u32 = 256;
/// Buffers lent to the kernel: four passes' worth, since one run of the kernel may fill all that are free.
const BUFFERS: u16 = 4 * PASS as u16;
/// Buffers lent to the kernel if each must have room for a train: 16 MiB, of which only what is used is resident.
const TRAIN_BUFFERS: u16 = PASS as u16;
/// Completion slots. An overflow ends multishot receives and delays what is said of sends.
const COMPLETIONS: u32 = WORST.next_power_of_two() as u32;
/// Most completions between two looks at the queue, each of which empties it: every buffer, every poll that was armed,
/// the end of every receive, the doorbell, and one of each submission since, such as a send that failed.
const WORST: usize = BUFFERS as usize + POLLS * MAX_SESSIONS + MAX_LINK_SOCKETS + 2 + SUBMISSIONS as usize;
/// Polls that a session may have armed: for records, for room, for its end.
const POLLS: usize = 3;
/// The group id of the buffers.
const GROUP: u16 = 0;
/// From <linux/io_uring.h>.
const ENTER_GETEVENTS: u32 = 1;
/// What the kernel puts before the payload of a multishot recvmsg (`struct io_uring_recvmsg_out`), bytes.
const RECVMSG_OUT: usize = 16;
/// What else it puts there: the source, and control messages.
const PREFIX: usize = RECVMSG_OUT + Name::LEN + BesideRoom::LEN;

const _: () = assert!(COMPLETIONS <= 1 << 16, "the kernel makes no longer queue");
const _: () = assert!(BATCH <= 1 << INDEX_BITS, "a send's token has room for its index");
const _: () = assert!(SUBMISSIONS as usize >= BATCH + 64, "a batch fits beside the polls of a pass");

/// What a completion is about: the kind in the top byte, which one in the rest.
mod kind {
    pub(super) const MASK: u64 = 0xff << 56;
    pub(super) const LISTEN: u64 = 1 << 56;
    /// With the link in bits 32 to 47 and the socket's generation below.
    pub(super) const LINK: u64 = 2 << 56;
    pub(super) const READ: u64 = 3 << 56;
    pub(super) const WRITE: u64 = 4 << 56;
    pub(super) const BELL: u64 = 5 << 56;
    /// With the batch's number in bits 16 to 55 and the datagram's index below.
    pub(super) const SEND: u64 = 6 << 56;
    pub(super) const CANCEL: u64 = 7 << 56;
    pub(super) const HANGUP: u64 = 8 << 56;
}

fn link_token(link: LinkId, generation: u32) -> u64 {
    kind::LINK | u64::from(link.0) << 32 | u64::from(generation)
}

/// Bits of a send's token that are its index.
const INDEX_BITS: u32 = 16;

/// `batch`: its number, of which 40 bits count.
const fn send_token(batch: u64, index: usize) -> u64 {
    kind::SEND | (batch << INDEX_BITS & !kind::MASK) | index as u64
}

/// The index of a send of this batch; none if the token is of an earlier one.
const fn sent_index(batch: u64, token: u64) -> Option<usize> {
    let index = (token & ((1 << INDEX_BITS) - 1)) as usize;
    if token == send_token(batch, index) { Some(index) } else { None }
}

/// A completion taken off the ring.
#[derive(Clone, Copy, Debug)]
struct Completion {
    token: u64,
    result: i32,
    flags: u32,
}

/// A watched session.
#[derive(Debug)]
struct Watch {
    fd: RawFd,
    reads: bool,
    writes: bool,
    read_armed: bool,
    write_armed: bool,
    hangup_armed: bool,
}

/// The backend.
pub struct Uring {
    ring: IoUring,
    buffers: BufferRing,
    /// What the armed receives point to.
    header: Box<libc::msghdr>,
    listen_armed: bool,
    /// A receive may need arming.
    arm_receives: bool,
    bell: Arc<Doorbell>,
    bell_armed: bool,
    watches: Watches<Watch>,
    /// Tokens of sessions whose polls may need arming.
    arm_polls: Vec<u64>,
    /// Completions not yet handed over, in order.
    stash: VecDeque<Completion>,
    transmit: Arrangement,
    /// Number of the current round of sends.
    sends: u64,
    /// Trains of the current batch that failed: number and error.
    failed: Vec<(usize, i32)>,
    /// Numbers of those that get a second try.
    again: Vec<usize>,
    sockets: Sockets,
    setup: &'static str,
    counters: Counters,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("sockets", &self.sockets)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Makes a ring, the best kind first; answers with what it is.
fn build_ring() -> io::Result<(IoUring, &'static str)> {
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS);
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match deferred {
        Ok(ring) => return Ok((ring, "deferred task work")),
        Err(error) if !refused(&error) => return Err(error),
        Err(_) => {}
    }
    let cooperative = IoUring::builder()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS);
    match cooperative {
        Ok(ring) => return Ok((ring, "cooperative task work")),
        Err(error) if !refused(&error) => return Err(error),
        Err(_) => {}
    }
    let plain = IoUring::builder().setup_cqsize(COMPLETIONS).build(SUBMISSIONS)?;
    Ok((plain, "plain ring"))
}

impl Uring {
    /// A backend for these parts. It must be used by the thread that made it.
    pub fn new(parts: Parts) -> io::Result<Uring> {
        let (ring, setup) = build_ring()?;
        if !(ring.params().is_feature_ext_arg() && ring.params().is_feature_skip_cqe_on_success()) {
            return Err(io::Error::other("this kernel's io_uring is too old (before 5.17)"));
        }
        let (count, slot) = if parts.trains { (TRAIN_BUFFERS, TRAIN_SLOT) } else { (BUFFERS, DATAGRAM_SLOT) };
        let buffers = BufferRing::new(&ring, GROUP, count, PREFIX + slot)?;
        let bell = Arc::clone(&parts.bell);
        let sockets = Sockets::new(parts)?;
        let mut header = Box::new(sys::empty_header());
        header.msg_namelen = Name::LEN as libc::socklen_t;
        header.msg_controllen = BesideRoom::LEN;
        let mut backend = Uring {
            ring,
            buffers,
            header,
            listen_armed: false,
            arm_receives: true,
            bell,
            bell_armed: false,
            watches: Watches::new(),
            arm_polls: Vec::with_capacity(64),
            stash: VecDeque::with_capacity(COMPLETIONS as usize),
            sends: 0,
            transmit: Arrangement::new(),
            failed: Vec::with_capacity(BATCH),
            again: Vec::with_capacity(BATCH),
            sockets,
            setup,
            counters: Counters::default(),
        };
        backend.arm();
        backend.enter(0, None)?;
        Ok(backend)
    }

    /// What kind of ring this is, for the log.
    pub fn setup(&self) -> &'static str {
        self.setup
    }

    /// Queues a submission, making room by submitting if there is none.
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: everything a submission points to outlives it: `header` and the buffer ring live as long as the ring;
            // a batch's bytes and its arrangement are submitted and done with before either changes.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }

    /// Submits everything queued, without waiting.
    fn submit(&mut self) {
        while !self.ring.submission().is_empty() {
            self.enter(0, None).unwrap_or_else(|error| panic!("io_uring refuses to submit: {error}"));
        }
    }

    /// Submits, runs what the kernel deferred, waits for `want` completions or until the time is up, and takes all
    /// completions off the ring.
    fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        self.counters.calls += 1;
        if self.ring.submission().cq_overflow() {
            self.counters.overflowed += 1;
        }
        let result = match timeout {
            Some(timeout) if want > 0 => {
                let spec = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
                self.ring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&spec))
            }
            Some(_) | None if want > 0 => self.ring.submit_and_wait(want),
            _ => {
                // With GETEVENTS always: what the kernel deferred (receives, cancellations) runs in the same call.
                let queued = self.ring.submission().len() as u32;
                // SAFETY: no argument is passed.
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) }
            }
        };
        self.reap();
        match result {
            Ok(_) => Ok(()),
            // Out of time, interrupted, or the completion queue was full, which `reap` has just changed.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes all completions off the ring.
    fn reap(&mut self) {
        for entry in self.ring.completion() {
            let done = Completion { token: entry.user_data(), result: entry.result(), flags: entry.flags() };
            if cqueue::buffer_select(done.flags).is_some() {
                self.buffers.count_taken();
            }
            match done.token & kind::MASK {
                kind::SEND => match sent_index(self.sends, done.token) {
                    Some(index) => self.failed.push((index, -done.result)),
                    None => self.counters.stale_sends += 1,
                },
                kind::CANCEL => {}
                _ => self.stash.push_back(done),
            }
        }
    }

    /// Arms whatever is not armed and should be.
    fn arm(&mut self) {
        if !self.bell_armed {
            self.bell_armed = true;
            let fd = Fd(self.bell.as_raw_fd());
            self.push(&opcode::PollAdd::new(fd, libc::POLLIN as u32).build().user_data(kind::BELL));
        }
        if self.arm_receives && self.buffers.enough_free() {
            self.arm_receives = false;
            self.arm_sockets();
        }
        while let Some(token) = self.arm_polls.pop() {
            let Some((_, watch)) = self.watches.find(token) else { continue };
            let fd = Fd(watch.fd);
            let (reads, writes) = (watch.reads && !watch.read_armed, watch.writes && !watch.write_armed);
            watch.read_armed |= reads;
            watch.write_armed |= writes;
            let hangup = !(watch.reads || watch.writes || watch.hangup_armed);
            watch.hangup_armed |= hangup;
            let poll =
                |flags: libc::c_short, kind| opcode::PollAdd::new(fd, flags as u32).build().user_data(kind | token);
            if reads {
                self.push(&poll(libc::POLLIN, kind::READ));
            }
            if writes {
                self.push(&poll(libc::POLLOUT, kind::WRITE));
            }
            if hangup {
                self.push(&poll(libc::POLLRDHUP, kind::HANGUP));
            }
        }
    }

    fn arm_sockets(&mut self) {
        if !self.listen_armed {
            self.listen_armed = true;
            let fd = self.sockets.listening().as_raw_fd();
            self.arm_receive(fd, kind::LISTEN);
        }
        while let Some((link, generation, fd)) = self.sockets.take_unarmed() {
            self.arm_receive(fd, link_token(link, generation));
        }
    }

    fn arm_receive(&mut self, fd: RawFd, token: u64) {
        let receive = opcode::RecvMsgMulti::new(Fd(fd), &raw const *self.header, GROUP).build();
        self.push(&receive.user_data(token));
    }

    /// Handles one completion; answers how many datagrams it was.
    fn handle(&mut self, done: Completion, sink: &mut Sink<'_>) -> usize {
        let which = done.token & !kind::MASK;
        match done.token & kind::MASK {
            kind::LISTEN => {
                if !cqueue::more(done.flags) {
                    self.listen_armed = false;
                    self.arm_receives = true;
                }
                self.handle_receive(done, None, sink)
            }
            kind::LINK => {
                let (link, generation) = (LinkId((which >> 32) as u16), which as u32);
                match self.sockets.get(link, generation) {
                    Some(open) => {
                        let pair = open.pair;
                        if !cqueue::more(done.flags) {
                            open.armed = false;
                            self.arm_receives = true;
                        }
                        self.handle_receive(done, Some((link, pair)), sink)
                    }
                    None => {
                        self.give_back(done, sink);
                        0
                    }
                }
            }
            kind::BELL => {
                self.bell_armed = false;
                self.bell.silence();
                0
            }
            kind::READ | kind::WRITE => {
                self.handle_poll(which, done.token & kind::MASK == kind::READ, sink);
                0
            }
            kind::HANGUP => {
                self.handle_hangup(which, sink);
                0
            }
            _ => 0,
        }
    }

    fn handle_poll(&mut self, token: u64, reads: bool, sink: &mut Sink<'_>) {
        let Some((session, watch)) = self.watches.find(token) else { return };
        let (armed, wanted) =
            if reads { (&mut watch.read_armed, watch.reads) } else { (&mut watch.write_armed, watch.writes) };
        *armed = false;
        if wanted {
            sink(if reads { Event::Readable(session) } else { Event::Writable(session) });
            self.arm_polls.push(token);
        }
    }

    /// Not armed again before the next change of what is wanted: the end stays, and was told.
    fn handle_hangup(&mut self, token: u64, sink: &mut Sink<'_>) {
        let Some((session, watch)) = self.watches.find(token) else { return };
        watch.hangup_armed = false;
        if !(watch.reads || watch.writes) {
            sink(Event::HungUp(session));
        }
    }

    fn handle_receive(&mut self, done: Completion, link: Option<(LinkId, AddressPair)>, sink: &mut Sink<'_>) -> usize {
        let Some(id) = cqueue::buffer_select(done.flags) else {
            match (-done.result, link) {
                (libc::ENOBUFS, _) => self.counters.starved += 1,
                (libc::ECONNREFUSED, Some((link, path))) => sink(Event::Refused(link, path)),
                (_, None) if tell_unreachable(&self.sockets, sink) => {}
                (0 | libc::ECANCELED | libc::EINTR, _) => {}
                _ => self.counters.receive_errors += 1,
            }
            return 0;
        };
        let bytes = self.buffers.get(id, usize::try_from(done.result).unwrap_or(0));
        let count = match Arrived::read(bytes) {
            Some(Arrived { from, beside: Beside { cut, at }, bytes }) => {
                let (link, path) = link.unzip();
                let deliver = |from| {
                    let each = |bytes: &mut [u8]| sink(Event::Datagram { from, bytes });
                    let datagrams = trains::uncouple(bytes, cut, &mut self.counters, each);
                    at.into_iter().for_each(|at| sink(Event::Arrived { link, at, datagrams }));
                    datagrams
                };
                path.or(from.map(AddressPair::from)).map(deliver)
            }
            None => None,
        };
        self.counters.receive_errors += u64::from(count.is_none());
        self.buffers.give_back(id);
        count.unwrap_or(0)
    }

    /// What came by a socket that is closed: nobody knows from where.
    fn give_back(&mut self, done: Completion, sink: &mut Sink<'_>) {
        if let Some(id) = cqueue::buffer_select(done.flags) {
            self.buffers.give_back(id);
            sink(Event::Dropped(DropReason::SocketClosed));
        }
    }

    fn send_trains(&mut self) {
        self.sends += 1;
        self.failed.clear();
        for number in 0..self.transmit.trains().len() {
            let train = self.transmit.trains()[number];
            self.counters.count_sent(train.count);
            let fd = Fd(train.socket.unwrap_or_else(|| self.sockets.listening().as_raw_fd()));
            let header = &self.transmit.headers()[number].msg_hdr;
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let entry = if train.count > 1 {
                opcode::SendMsg::new(fd, header).flags(flags as u32).build()
            } else {
                // SAFETY: the arrangement pointed the header at one vector of its own.
                let vector = unsafe { &*header.msg_iov };
                let send =
                    opcode::Send::new(fd, vector.iov_base.cast_const().cast(), vector.iov_len as u32).flags(flags);
                send.dest_addr(header.msg_name.cast_const().cast()).dest_addr_len(header.msg_namelen).build()
            };
            self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(send_token(self.sends, number)));
        }
        self.submit();
    }

    /// Tells what failed. What may do better one by one (a train that the kernel refuses), or because the refusal was an
    /// ICMP answer to an *earlier* datagram, gets a second try after the `first`.
    fn take_failures(&mut self, now: Instant, batch: &Batch, first: bool, sink: &mut Sink<'_>) {
        self.again.clear();
        let mut heard = false;
        for &(number, errno) in &self.failed {
            let train = self.transmit.trains()[number];
            self.counters.uncount_sent(train.count);
            let link = self.transmit.link(batch, train);
            let refused = if train.socket.is_some() {
                errno == libc::ECONNREFUSED
            } else {
                heard |= tell_unreachable(&self.sockets, sink);
                heard
            };
            if let (true, Some(_), Some((link, path))) = (refused, train.socket, link) {
                sink(Event::Refused(link, path));
            }
            if let (true, Some((link, _))) = (train.count > 1 && trains::refused_by(errno), link) {
                self.counters.trains_refused += 1;
                self.sockets.put_off_trains(now, link);
                self.again.push(number);
            } else if refused && first {
                self.again.push(number);
            } else {
                self.transmit.tell_failed(batch, number..number + 1, errno, sink);
            }
        }
    }
}

/// What a multishot recvmsg wrote: a header (name length, control length, payload length, flags), then, each in as much
/// room as was asked for, name, control message and payload.
struct Arrived<'a> {
    from: Option<SocketAddr>,
    beside: Beside,
    bytes: &'a mut [u8],
}

impl Arrived<'_> {
    fn read(bytes: &mut [u8]) -> Option<Arrived<'_>> {
        let (prefix, bytes) = bytes.split_at_mut_checked(PREFIX)?;
        let control_len = u32::from_ne_bytes(*prefix[4..].first_chunk()?) as usize;
        let control = &prefix[RECVMSG_OUT + Name::LEN..];
        let beside = Beside::read(&control[..control_len.min(control.len())]);
        Some(Arrived { from: Name::read(&prefix[RECVMSG_OUT..]), beside, bytes })
    }
}

impl Backend for Uring {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn watch(&mut self, session: SessionId, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let fd = descriptor.as_raw_fd();
        let watch =
            Watch { fd, reads: true, writes: false, read_armed: false, write_armed: false, hangup_armed: false };
        let token = self.watches.insert(session, watch);
        self.arm_polls.push(token);
        Ok(())
    }

    fn want(&mut self, session: SessionId, reads: bool, writes: bool) {
        let Some((token, watch)) = self.watches.of(session) else { return };
        // A poll that is armed and no longer wanted stays until it fires, and is then ignored.
        (watch.reads, watch.writes) = (reads, writes);
        self.arm_polls.push(token);
    }

    fn unwatch(&mut self, session: SessionId) {
        let Some((token, watch)) = self.watches.remove(session) else { return };
        // An armed poll holds the descriptor open: its other end would not see it closed.
        let polls =
            [(watch.read_armed, kind::READ), (watch.write_armed, kind::WRITE), (watch.hangup_armed, kind::HANGUP)];
        for (armed, kind) in polls {
            if armed {
                self.push(&opcode::AsyncCancel::new(kind | token).build().user_data(kind::CANCEL));
            }
        }
    }

    fn sockets(&mut self) -> &mut Sockets {
        &mut self.sockets
    }

    fn arrangement(&mut self) -> &mut Arrangement {
        &mut self.transmit
    }

    fn close_path(&mut self, link: LinkId, generation: u32) {
        if self.sockets.get(link, generation).is_some_and(|open| open.armed) {
            let cancel = opcode::AsyncCancel::new(link_token(link, generation)).build();
            self.push(&cancel.user_data(kind::CANCEL));
            // An armed receive holds the socket open, and keeps taking datagrams.
            self.submit();
        }
        self.sockets.close(link, generation);
    }

    fn poll(&mut self, sink: &mut Sink<'_>) -> usize {
        self.arm();
        if self.stash.is_empty() {
            self.reap();
        }
        let submission = self.ring.submission();
        let pending = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if pending && self.stash.is_empty() {
            self.enter(0, None).unwrap_or_else(|error| panic!("io_uring refuses to submit: {error}"));
        }
        let mut datagrams = 0;
        while datagrams < PASS {
            let Some(done) = self.stash.pop_front() else { break };
            datagrams += self.handle(done, sink);
        }
        self.buffers.publish();
        datagrams
    }

    fn open_path(&mut self, now: Instant, link: LinkId, path: AddressPair, sink: &mut Sink<'_>) {
        let stray = |from: AddressPair, bytes: &mut [u8]| sink(Event::Datagram { from, bytes });
        // Watched by the receive that is armed next.
        self.arm_receives |= self.sockets.open(now, link, path, |_, _| Ok(()), stray).is_some();
    }

    fn flush(&mut self, now: Instant, batch: &Batch, sink: &mut Sink<'_>) {
        let ipv6 = self.sockets.ipv6();
        self.transmit.arrange(batch, ipv6);
        self.send_trains();
        self.take_failures(now, batch, true, sink);
        if !self.again.is_empty() {
            self.transmit.keep(batch, ipv6, &self.again);
            self.send_trains();
            self.take_failures(now, batch, false, sink);
        }
        self.transmit.clear();
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.arm();
        self.reap();
        if self.stash.is_empty() {
            self.enter(1, timeout).unwrap_or_else(|error| panic!("io_uring refuses to wait: {error}"));
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel must be done with buffers and headers before they go.
        let patience = Timespec::new().sec(1);
        let _ = self.ring.submitter().register_sync_cancel(Some(patience), CancelBuilder::any());
    }
}
