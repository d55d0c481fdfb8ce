//! The descriptors of a worker's sessions.
//!
//! Sessions that are readable stand in a queue: those whose back-end named them, and of those that share memory with
//! their applications also those in which a look found something. The latter are looked at in every turn, which costs no
//! system call, until [`LOOKS`] looks found nothing or the worker is about to wait: then the application has to ring.
//! A turn takes at most [`TURN`] records, or [`TURN_BYTES`], and [`RECORDS`]
//! of one session, which then goes to the queue's end when its back-end names it again; what is left stands for the next turn.
//!
//! A session whose records the shard does not take is paused: it is not read, and the back-end tells only of its end.
//! When its application closes while it is paused, the last record the application wrote decides:
//!
//! | last record | what happened | what is done |
//! |---|---|---|
//! | stream bytes | a stream that nobody finished: it died | its session ends at once, as if its end had been read |
//! | a stream's end | it finished, and left the rest to us | read when there is room, as long as its peer lives, or until it gives way |
//! | anything else | a datagram session | read when there is room; ends `linger` after the last that was taken |
//!
//! Finished streams whose peers do not read are bounded as those are whose last record was taken (`session::Settings`):
//! `overdue` of them may wait for longer than `linger`. For one more, the one that has done so longest ends.

use super::carrier::{Carrier, Received, Written};
use super::io::Backend;
use crate::base::{Instant, SessionId};
use crate::dataplane::Readiness;
use crate::wire::client::{MAX_RECORD, Record};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Most records taken from one session in a turn.
const RECORDS: usize = 64;
/// Most records taken from all sessions in a turn.
const TURN: usize = 1024;
/// Most bytes moved between sessions and the shard in one direction in a turn, but for the record that reaches it:
/// acknowledgements and hellos leave only between turns, and to copy this takes well under a millisecond.
pub(super) const TURN_BYTES: usize = 1 << 20;

/// Turns in which a session's shared memory is looked at in vain before its application has to ring.
const LOOKS: u32 = 256;

/// What may still be moved in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    records: usize,
    bytes: usize,
}

impl Budget {
    /// So many records, and [`TURN_BYTES`].
    pub(super) const fn new(records: usize) -> Budget {
        Budget { records, bytes: TURN_BYTES }
    }

    /// A record was moved, or looked for in vain.
    pub(super) const fn spend(&mut self, bytes: usize) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether nothing is left.
    pub(super) const fn is_spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

/// What carries a session's records, and what is wanted of it.
#[derive(Debug)]
struct Descriptor {
    carrier: Carrier,
    /// The shard takes records.
    reads: bool,
    /// A record waits for room.
    blocked: bool,
    /// It stands in the queue of readable sessions.
    queued: bool,
    /// It is looked at in every turn, and how often that was in vain.
    watched: bool,
    looks: u32,
    /// Something was put into its shared memory in this turn.
    struck: bool,
    /// The last record that was taken.
    last: Last,
    /// The application closed its end while its records were not taken: when they are given up.
    until: Option<Instant>,
    /// It closed after a stream's end, and may wait for longer than `until`.
    finished: bool,
}

/// What an application wrote last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// Bytes of a stream.
    Data,
    /// A stream's end.
    Finish,
    /// Anything else, or nothing.
    Other,
}

impl Last {
    fn of(record: &[u8]) -> Last {
        match Record::parse(record) {
            Ok(Record::Data(_)) => Last::Data,
            Ok(Record::Finish) => Last::Finish,
            _ => Last::Other,
        }
    }
}

/// Who takes the records: the shard.
pub(super) trait Records {
    /// Whether a record of the session may be read.
    fn may_read(&mut self, session: SessionId) -> bool;
    /// Takes a record.
    fn take(&mut self, session: SessionId, record: &[u8]) -> Readiness;
    /// The application closed its end.
    fn hang_up(&mut self, session: SessionId);
    /// The application wrote nonsense into the memory that it shares with us: the session ends.
    fn refuse(&mut self, session: SessionId);
}

/// How reading a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// All records, or as many as a turn takes.
    All,
    /// The shard takes no more for now.
    Full,
    /// The shard knows no such session.
    Gone,
    /// The application closed its end.
    End,
    /// The application wrote nonsense into the shared memory.
    Nonsense,
}

/// How long closed sessions whose records are not taken may wait: as long as those whose records were.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long a closed datagram session waits for room.
    pub(super) linger: Duration,
    /// Finished streams that may wait for longer.
    pub(super) overdue: usize,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Sessions {
    descriptors: BTreeMap<SessionId, Descriptor>,
    /// Sessions to read, each once, and maybe some that are gone.
    readable: VecDeque<SessionId>,
    /// Sessions to look at in every turn, and maybe some that are gone.
    watched: Vec<SessionId>,
    /// Sessions whose applications may have to be woken for what was put into their shared memory in this turn.
    struck: Vec<SessionId>,
    /// Sessions to end, or finished streams that become overdue, by when.
    ends: BTreeSet<(Instant, SessionId)>,
    /// Finished streams that wait for longer than is granted to all, and since when.
    overdue: BTreeSet<(Instant, SessionId)>,
    limits: Limits,
    /// Room for one record, and one byte to tell a record that is too long.
    record: Box<[u8]>,
}

impl Sessions {
    /// None yet.
    pub(super) fn new(limits: Limits) -> Sessions {
        let record = vec![0; MAX_RECORD + 1].into_boxed_slice();
        let (readable, watched, struck) = (VecDeque::with_capacity(64), Vec::with_capacity(64), Vec::with_capacity(64));
        let (ends, overdue) = (BTreeSet::new(), BTreeSet::new());
        Sessions { descriptors: BTreeMap::new(), readable, watched, struck, ends, overdue, limits, record }
    }

    /// Room for one record to deliver.
    pub(super) fn record(&mut self) -> &mut [u8] {
        &mut self.record[..MAX_RECORD]
    }

    /// Whether the session shares memory with its application.
    pub(super) fn shares_memory(&self, session: SessionId) -> bool {
        self.descriptors.get(&session).is_some_and(|descriptor| descriptor.carrier.shares_memory())
    }

    /// Takes a session's carrier over. If it cannot be watched, it is closed, which tells the application, and the
    /// session ends.
    pub(super) fn attach(
        &mut self,
        backend: &mut dyn Backend,
        records: &mut dyn Records,
        session: SessionId,
        carrier: Carrier,
    ) {
        if let Err(error) = backend.watch(session, carrier.as_fd()) {
            tracing::error!(%session, %error, "a session's descriptor cannot be watched; the session is closed");
            drop(carrier);
            return records.hang_up(session);
        }
        let descriptor = Descriptor {
            carrier,
            reads: true,
            blocked: false,
            queued: false,
            watched: false,
            looks: 0,
            struck: false,
            last: Last::Other,
            until: None,
            finished: false,
        };
        let earlier = self.descriptors.insert(session, descriptor);
        assert!(earlier.is_none(), "a session is attached once");
        // Its application may have written, and nobody slept whom it could have woken.
        self.watch(session);
    }

    /// Closes a session's descriptor. What was delivered stays readable for the application, and then its end.
    pub(super) fn detach(&mut self, backend: &mut dyn Backend, session: SessionId) {
        if self.descriptors.contains_key(&session) {
            backend.unwatch(session);
            let gone = self.descriptors.remove(&session);
            if let Some(until) = gone.and_then(|descriptor| descriptor.until) {
                self.ends.remove(&(until, session));
                self.overdue.remove(&(until, session));
            }
        }
    }

    /// The session has records, or its end is closed.
    pub(super) fn mark_readable(&mut self, session: SessionId) {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return };
        descriptor.carrier.note_readable();
        self.queue(session);
    }

    fn queue(&mut self, session: SessionId) {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return };
        if !std::mem::replace(&mut descriptor.queued, true) {
            self.readable.push_back(session);
        }
    }

    /// Looks at the session in every turn from now on, if it shares memory.
    fn watch(&mut self, session: SessionId) {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return };
        descriptor.looks = 0;
        if descriptor.carrier.shares_memory() && !std::mem::replace(&mut descriptor.watched, true) {
            self.watched.push(session);
        }
    }

    /// Looks for records in shared memory. Those who are to be looked at no more have to ring from now on: all, if
    /// `sleeps`, else those who wrote nothing for long.
    fn look(&mut self, sleeps: bool) {
        let Sessions { descriptors, readable, watched, .. } = self;
        watched.retain(|session| {
            let Some(descriptor) = descriptors.get_mut(session) else { return false };
            descriptor.looks += 1;
            let patient = descriptor.reads && !descriptor.queued && !(sleeps || descriptor.looks > LOOKS);
            if patient && !descriptor.carrier.is_ready() {
                return true;
            }
            descriptor.watched = false;
            // One that is not read is looked at when it is read again, and one that stands in the queue after that.
            let idle = !descriptor.reads || descriptor.queued;
            if !idle && (descriptor.carrier.is_ready() || !descriptor.carrier.may_sleep()) {
                descriptor.queued = true;
                readable.push_back(*session);
            }
            false
        });
    }

    /// Whether the worker may wait for its back-end: nobody has records, and whoever writes some will ring.
    pub(super) fn may_wait(&mut self) -> bool {
        self.look(true);
        self.readable.is_empty()
    }

    /// Whether sessions are still to be read, so that there is no time to wait.
    pub(super) fn has_readable(&self) -> bool {
        !self.readable.is_empty()
    }

    /// The application of a session that is not read closed its end.
    pub(super) fn mark_hung_up(&mut self, now: Instant, session: SessionId) {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return };
        if descriptor.reads || descriptor.until.is_some() {
            return;
        }
        let last = match descriptor.carrier.peek_last(&mut self.record) {
            Ok(Some(len)) => Last::of(&self.record[..len]),
            Ok(None) => descriptor.last,
            Err(error) => {
                tracing::warn!(%session, %error, "the records of a closed session cannot be looked at");
                Last::Other
            }
        };
        let until = match last {
            Last::Data => now,
            Last::Finish | Last::Other => now + self.limits.linger,
        };
        (descriptor.until, descriptor.finished) = (Some(until), last == Last::Finish);
        self.ends.insert((until, session));
    }

    /// When [`Sessions::serve`] has a session to end.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ends.first().map(|&(when, _)| when)
    }

    /// Ends the sessions whose time is up, and takes records of readable ones in their order, up to the bound of a turn.
    /// Answers how many.
    pub(super) fn serve(&mut self, now: Instant, backend: &mut dyn Backend, records: &mut dyn Records) -> usize {
        while let Some(&end) = self.ends.first().filter(|&&(when, _)| when <= now) {
            self.ends.remove(&end);
            let finished = self.descriptors.get(&end.1).is_some_and(|descriptor| descriptor.finished);
            let session = if finished {
                self.overdue.insert(end);
                self.overdue.first().filter(|_| self.overdue.len() > self.limits.overdue).map(|&(_, oldest)| oldest)
            } else {
                Some(end.1)
            };
            if let Some(session) = session {
                self.detach(backend, session);
                records.hang_up(session);
            }
        }
        self.look(false);
        let (mut total, mut left) = (0, Budget::new(TURN));
        while !left.is_spent() {
            let Some(session) = self.readable.pop_front() else { break };
            let Some(descriptor) = self.descriptors.get_mut(&session) else { continue };
            descriptor.queued = false;
            if !descriptor.reads {
                continue;
            }
            if !records.may_read(session) {
                self.pause(backend, session);
                continue;
            }
            let (taken, count) = self.read(session, &mut left, records);
            total += count;
            if count == 0 {
                // Finding nothing is work, too.
                left.spend(0);
            }
            match taken {
                Taken::All => self.go_on(session),
                Taken::Full => self.pause(backend, session),
                Taken::Gone => self.detach(backend, session),
                Taken::End => {
                    self.detach(backend, session);
                    records.hang_up(session);
                }
                Taken::Nonsense => {
                    self.detach(backend, session);
                    records.refuse(session);
                }
            }
        }
        total
    }

    /// The session's turn is over. Of one that shares memory the worker itself knows whether there is more.
    fn go_on(&mut self, session: SessionId) {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return };
        if !descriptor.carrier.shares_memory() {
            return;
        }
        descriptor.carrier.answer_bell();
        if descriptor.carrier.is_ready() {
            self.queue(session);
        } else {
            self.watch(session);
        }
    }

    /// Takes at most [`RECORDS`] records of the session, and no more than are left; answers also how many.
    fn read(&mut self, session: SessionId, left: &mut Budget, records: &mut dyn Records) -> (Taken, usize) {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return (Taken::All, 0) };
        let mut count = 0;
        for _ in 0..RECORDS {
            if left.is_spent() {
                break;
            }
            let len = match descriptor.carrier.receive(&mut self.record) {
                Received::Record(len) => len,
                Received::Nothing => break,
                Received::End => return (Taken::End, count),
                Received::Nonsense => return (Taken::Nonsense, count),
            };
            count += 1;
            left.spend(len);
            descriptor.last = Last::of(&self.record[..len]);
            if let Some(until) = descriptor.until.take() {
                self.ends.remove(&(until, session));
                self.overdue.remove(&(until, session));
            }
            match records.take(session, &self.record[..len]) {
                Readiness::Ready => {}
                Readiness::Full => return (Taken::Full, count),
                Readiness::Gone => return (Taken::Gone, count),
            }
        }
        (Taken::All, count)
    }

    /// Delivers the first `len` bytes of the record; [`Sessions::wake`] must follow before the worker waits. Full also if
    /// there is no carrier yet.
    pub(super) fn write(&mut self, backend: &mut dyn Backend, session: SessionId, len: usize) -> Written {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return Written::Full };
        let written = descriptor.carrier.send(&self.record[..len]);
        if written == Written::Full {
            descriptor.blocked = true;
            backend.want(session, descriptor.reads, true);
        } else if descriptor.carrier.shares_memory() && !std::mem::replace(&mut descriptor.struck, true) {
            self.struck.push(session);
        }
        written
    }

    /// Wakes the applications that sleep beside memory into which something was put.
    pub(super) fn wake(&mut self) {
        for session in self.struck.drain(..) {
            let Some(descriptor) = self.descriptors.get_mut(&session) else { continue };
            descriptor.struck = false;
            descriptor.carrier.wake();
        }
    }

    /// The session has room again.
    pub(super) fn unblock(&mut self, backend: &mut dyn Backend, session: SessionId) {
        self.change(backend, session, |descriptor| descriptor.blocked = false);
    }

    /// Stops reading the session.
    pub(super) fn pause(&mut self, backend: &mut dyn Backend, session: SessionId) {
        self.change(backend, session, |descriptor| descriptor.reads = false);
    }

    /// Reads the session again.
    pub(super) fn resume(&mut self, backend: &mut dyn Backend, session: SessionId) {
        self.change(backend, session, |descriptor| descriptor.reads = true);
        self.watch(session);
    }

    fn change(&mut self, backend: &mut dyn Backend, session: SessionId, change: impl FnOnce(&mut Descriptor)) {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return };
        let before = (descriptor.reads, descriptor.blocked);
        change(descriptor);
        let after = (descriptor.reads, descriptor.blocked);
        if before != after {
            backend.want(session, after.0, after.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{AddressPair, LinkId};
    use crate::containers::Batch;
    use crate::runtime::io::{Arrangement, Counters, Sink};
    use crate::runtime::sys;
    use crate::runtime::udp::Sockets;
    use crate::wire::cursor::Writer;
    use std::io;
    use std::os::fd::{BorrowedFd, OwnedFd};

    /// Not the settings' own, so that these are seen to be obeyed.
    const LIMITS: Limits = Limits { linger: Duration::from_secs(30), overdue: 2 };

    /// A back-end that tells nothing; it may refuse to watch.
    #[derive(Default)]
    struct Silent {
        refuses: bool,
    }

    impl Backend for Silent {
        fn name(&self) -> &'static str {
            "silent"
        }
        fn watch(&mut self, _: SessionId, _: BorrowedFd<'_>) -> io::Result<()> {
            if self.refuses { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
        }
        fn want(&mut self, _: SessionId, _: bool, _: bool) {}
        fn unwatch(&mut self, _: SessionId) {}
        fn sockets(&mut self) -> &mut Sockets {
            unreachable!("sessions touch no link")
        }
        fn arrangement(&mut self) -> &mut Arrangement {
            unreachable!("sessions send nothing")
        }
        fn open_path(&mut self, _: Instant, _: LinkId, _: AddressPair, _: &mut Sink<'_>) {}
        fn close_path(&mut self, _: LinkId, _: u32) {}
        fn poll(&mut self, _: &mut Sink<'_>) -> usize {
            0
        }
        fn flush(&mut self, _: Instant, _: &Batch, _: &mut Sink<'_>) {}
        fn wait(&mut self, _: Option<Duration>) {}
        fn counters(&self) -> Counters {
            Counters::default()
        }
    }

    /// Takes records until it is full.
    #[derive(Default)]
    struct Taker {
        full: bool,
        taken: BTreeMap<SessionId, usize>,
        ended: Vec<SessionId>,
        refused: Vec<SessionId>,
    }

    impl Records for Taker {
        fn may_read(&mut self, _: SessionId) -> bool {
            true
        }
        fn take(&mut self, session: SessionId, _: &[u8]) -> Readiness {
            *self.taken.entry(session).or_default() += 1;
            if self.full { Readiness::Full } else { Readiness::Ready }
        }
        fn hang_up(&mut self, session: SessionId) {
            self.ended.push(session);
        }
        fn refuse(&mut self, session: SessionId) {
            self.refused.push(session);
        }
    }

    /// Sessions with this application's end of each.
    fn attached(count: u64) -> (Sessions, Silent, Taker, Vec<OwnedFd>) {
        let (mut sessions, mut backend, mut taker) = (Sessions::new(LIMITS), Silent::default(), Taker::default());
        let ends = (0..count).map(|id| {
            let (carrier, offer) = Carrier::new(None).expect("a pair");
            sessions.attach(&mut backend, &mut taker, SessionId(id), carrier);
            offer.socket
        });
        let ends = ends.collect();
        (sessions, backend, taker, ends)
    }

    fn record(record: Record<'_>) -> Vec<u8> {
        let mut bytes = vec![0; MAX_RECORD];
        let mut writer = Writer::new(&mut bytes);
        record.emit(&mut writer).expect("it fits");
        let len = writer.len();
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn a_turn_is_bounded_and_every_ready_session_has_its_own() {
        let (mut sessions, mut backend, mut taker, ends) = attached(100);
        for end in &ends {
            (0..80).for_each(|_| sys::send_record(end.as_fd(), b"x").expect("sends"));
        }
        for turn in 1..=7 {
            // As io_uring does, every session is named in every turn as long as it has records.
            (0..100).for_each(|id| sessions.mark_readable(SessionId(id)));
            assert_eq!(sessions.serve(Instant::ZERO, &mut backend, &mut taker), TURN, "turn {turn}");
            assert!(sessions.has_readable() && sessions.readable.len() <= 100);
            let fair = taker.taken.values().all(|&count| count == RECORDS);
            assert!(turn == 7 || fair, "turn {turn}: a session was read again before all were");
        }
        assert_eq!(taker.taken.len(), 100);
        assert!(taker.taken.values().all(|&count| count >= RECORDS));
    }

    #[test]
    fn a_turn_of_large_records_is_bounded_in_bytes() {
        let (mut sessions, mut backend, mut taker, ends) = attached(40);
        let large = vec![7; 60_000];
        let sent = |end: &OwnedFd| (0..3).filter(|_| sys::send_record(end.as_fd(), &large).is_ok()).count();
        let waiting: usize = ends.iter().map(sent).sum();
        let a_turn = TURN_BYTES.div_ceil(large.len());
        assert!(waiting > 2 * a_turn, "{waiting} records are too few to tell");
        for turn in 1..=2 {
            (0..40).for_each(|id| sessions.mark_readable(SessionId(id)));
            assert_eq!(sessions.serve(Instant::ZERO, &mut backend, &mut taker), a_turn, "turn {turn}");
        }
        let mut left = Budget::new(3);
        [0, TURN_BYTES - 1].into_iter().for_each(|bytes| left.spend(bytes));
        assert!(!left.is_spent(), "one byte, one record");
        left.spend(0);
        assert!(left.is_spent(), "no record");
    }

    #[test]
    fn a_descriptor_that_cannot_be_watched_ends_its_session() {
        let (mut sessions, _, mut taker, _) = attached(0);
        let (carrier, offer) = Carrier::new(None).expect("a pair");
        sessions.attach(&mut Silent { refuses: true }, &mut taker, SessionId(5), carrier);
        assert_eq!(taker.ended, [SessionId(5)]);
        assert_eq!(sys::receive_record(offer.socket.as_fd(), &mut [0; 8]).expect("the end"), 0);
    }

    /// Writes records of which one is taken, closes, and answers with the sessions after the end was told at time zero.
    fn closed_while_paused(records: &[Vec<u8>]) -> (Sessions, Silent, Taker) {
        let (mut sessions, mut backend, mut taker, ends) = attached(1);
        for record in records {
            sys::send_record(ends[0].as_fd(), record).expect("sends");
        }
        taker.full = true;
        sessions.mark_readable(SessionId(0));
        assert_eq!(sessions.serve(Instant::ZERO, &mut backend, &mut taker), 1);
        drop(ends);
        sessions.mark_hung_up(Instant::ZERO, SessionId(0));
        (sessions, backend, taker)
    }

    #[test]
    fn a_stream_that_died_while_it_was_paused_ends_at_once() {
        let data = record(Record::Data(&[7; 20_000]));
        for count in [1, 3, 6] {
            let (mut sessions, mut backend, mut taker) = closed_while_paused(&vec![data.clone(); count]);
            assert_eq!(sessions.serve(Instant::ZERO, &mut backend, &mut taker), 0);
            assert_eq!(
                (taker.ended, sessions.descriptors.len(), sessions.poll_timeout()),
                (vec![SessionId(0)], 0, None)
            );
        }
    }

    #[test]
    fn a_stream_that_finished_waits_for_room_and_loses_nothing() {
        let (data, finish) = (record(Record::Data(&[7; 20_000])), record(Record::Finish));
        for written in [vec![finish.clone()], vec![data.clone(), data.clone(), data, finish]] {
            let (mut sessions, mut backend, mut taker) = closed_while_paused(&written);
            sessions.serve(Instant::ZERO + 1000 * LIMITS.linger, &mut backend, &mut taker);
            assert!(taker.ended.is_empty() && sessions.poll_timeout().is_none());
            taker.full = false;
            sessions.resume(&mut backend, SessionId(0));
            sessions.mark_readable(SessionId(0));
            sessions.serve(Instant::ZERO, &mut backend, &mut taker);
            assert_eq!((taker.taken[&SessionId(0)], taker.ended), (written.len(), vec![SessionId(0)]));
        }
    }

    #[test]
    fn datagrams_of_one_that_closed_wait_for_room_for_a_stated_time() {
        let (mut sessions, mut backend, mut taker) = closed_while_paused(&[(); 3].map(|()| b"a datagram".to_vec()));
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        assert_eq!(sessions.poll_timeout(), Some(at(30)));
        sessions.serve(at(29), &mut backend, &mut taker);
        assert_eq!(taker.ended, []);
        // One more is taken: the time begins again.
        sessions.resume(&mut backend, SessionId(0));
        sessions.mark_readable(SessionId(0));
        assert_eq!(sessions.serve(at(29), &mut backend, &mut taker), 1);
        sessions.mark_hung_up(at(29), SessionId(0));
        sessions.serve(at(58), &mut backend, &mut taker);
        assert_eq!(taker.ended, []);
        sessions.serve(at(59), &mut backend, &mut taker);
        assert_eq!((taker.ended, sessions.descriptors.len()), (vec![SessionId(0)], 0));
    }

    #[test]
    fn finished_streams_that_wait_for_long_give_way_to_more_of_them() {
        let (mut sessions, mut backend, mut taker, ends) = attached(4);
        taker.full = true;
        for (id, end) in ends.into_iter().enumerate() {
            let session = SessionId(id as u64);
            sys::send_record(end.as_fd(), &record(Record::Data(&[7; 20_000]))).expect("sends");
            sys::send_record(end.as_fd(), &record(Record::Finish)).expect("sends");
            sessions.mark_readable(session);
            sessions.serve(Instant::ZERO, &mut backend, &mut taker);
            drop(end);
            sessions.mark_hung_up(Instant::ZERO + Duration::from_secs(id as u64), session);
        }
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        sessions.serve(at(31), &mut backend, &mut taker);
        assert_eq!((&taker.ended[..], sessions.descriptors.len()), (&[][..], 4), "two are overdue, as many as may be");
        sessions.serve(at(32), &mut backend, &mut taker);
        assert_eq!((&taker.ended[..], sessions.descriptors.len()), (&[SessionId(0)][..], 3));
        // The peer of the next reads on: it is no longer overdue, and the last one takes its place.
        taker.full = false;
        sessions.resume(&mut backend, SessionId(1));
        sessions.mark_readable(SessionId(1));
        sessions.serve(at(32), &mut backend, &mut taker);
        sessions.serve(at(33), &mut backend, &mut taker);
        assert_eq!((taker.ended, sessions.descriptors.len()), (vec![SessionId(0), SessionId(1)], 2));
        assert_eq!((taker.taken[&SessionId(1)], sessions.poll_timeout()), (2, None), "it lost nothing");
    }
}
