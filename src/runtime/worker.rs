//! A worker: one thread, one shard, one backend.
//!
//! A turn is: read the clock once → commands → what came from other workers → what arrived → records of sessions →
//! timers → drain (deliver, transmit, cross, report) → wait. Every step is bounded, so acknowledgements leave in every
//! turn however much arrives; what a bound cuts short continues in the next turn, without a wait in between.
//!
//! # What workers share
//! A shard, its pool, its sockets and its back-end's rings belong to their worker alone; `Shard` is made in its thread.
//! All that two threads can both reach is in this table, and a message in transit that stays on its worker writes to no
//! line of memory that another worker touches. `worker/tests/lines.rs` proves it: it runs two workers, closes all memory
//! that they could share, and notes every access by the faults.
//!
//! | what | who writes, and when |
//! |---|---|
//! | the table of routes | nobody, once it is installed; its count of owners when one is installed or replaced |
//! | rings to and from control | control and this worker, for a command or a report; every end has lines of its own |
//! | rings between workers | the two ends, for a message that crosses |
//! | a doorbell | its consumer, before it sleeps and after; others only read it unless it sleeps |
//! | memory shared with an application | the application and this worker |
//! | the allocator | nobody in transit: nothing is allocated (`tests/allocations.rs`) |

use super::carrier::Written;
use super::clock::{self, Clock};
use super::complaints::{self, Complaints, REASONS};
use super::doorbell::Doorbell;
use super::io::{BATCH, Backend, Event};
use super::pace::Pace;
use super::ring::{Crossings, RETRY, RING_SLOTS, Receiver, Sender, ToWorker};
use super::sessions::{Budget, Limits, Records, Sessions};
use crate::base::{AddressPair, Instant, LinkId, SessionId};
use crate::config::settings::Idle;
use crate::containers::Batch;
use crate::dataplane::messages::{Carrier, Command, DriverStats, Report, RingStats, SessionReport};
use crate::dataplane::{Readiness, Shard};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most messages taken from control in a turn.
const COMMANDS: usize = 256;
/// Most transmit batches in a turn.
const BATCHES: usize = 16;
/// Most records delivered to sessions in a turn; together they have at most [`super::sessions::TURN_BYTES`].
const DELIVERIES: usize = 1024;
/// How often the kernel is asked for its drops.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// What a worker owns.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) clock: Clock,
    pub(super) idle: Idle,
    pub(super) limits: Limits,
    pub(super) shard: Shard,
    pub(super) backend: Box<dyn Backend>,
    /// Why it is this one.
    pub(super) backend_reason: String,
    pub(super) place: Place,
    pub(super) bell: Arc<Doorbell>,
    pub(super) commands: Receiver<ToWorker>,
    pub(super) reports: Sender<Report>,
    pub(super) crossings: Crossings,
}

/// Where and how a worker's thread runs, for people.
pub(super) struct Place {
    /// Its core, if it is pinned to one.
    pub(super) core: Option<usize>,
    /// Why it is this one, or none.
    pub(super) core_reason: String,
    /// Its priority, and why it is not the one that was asked for.
    pub(super) scheduling: String,
}

/// A worker at work.
struct Turn {
    worker: Worker,
    sessions: Sessions,
    batch: Batch,
    pace: Pace,
    /// Sessions to tell that there is room, in this turn.
    writable: Vec<SessionId>,
    /// Links to be closed once this turn's goodbyes are out.
    removed: Vec<LinkId>,
    /// Paths whose connected sockets lost their address or route, in this batch.
    stale: Vec<(LinkId, AddressPair)>,
    housekeeping: Instant,
    /// How often sessions had been put off at the last housekeeping.
    put_off: u64,
    counts: Counts,
    complaints: Complaints,
    /// A full ring keeps messages for another worker back.
    held_back: bool,
    stopping: bool,
}

/// What a worker counts outside its shard and its back-end.
#[derive(Debug, Default)]
struct Counts {
    turns: u64,
    waits: u64,
    receive_batches: u64,
    datagrams_in: u64,
    send_batches: u64,
    datagrams_out: u64,
    socket_overflows: u64,
    commands_peak: usize,
    reports_peak: usize,
    crossings_peak: usize,
    told: Told,
}

/// What the kernel said of what was sent.
#[derive(Debug, Default)]
struct Told {
    refusals: u64,
    send_errors: [u64; REASONS.len() + 1],
}

impl Told {
    fn count(&mut self, errno: i32) {
        self.send_errors[complaints::place(errno)] += 1;
    }

    /// The reasons that happened.
    fn named(&self) -> impl Iterator<Item = (String, u64)> {
        let names = REASONS.iter().map(|&(_, name, _)| name).chain(["other"]);
        names.zip(self.send_errors).filter(|&(_, count)| count > 0).map(|(name, count)| (name.to_owned(), count))
    }
}

impl Worker {
    /// Works until told to stop, or until control is gone.
    pub(super) fn run(self) {
        let mut turn = Turn::new(self);
        while !turn.stopping {
            turn.run();
        }
        tracing::debug!(worker = turn.worker.index, counters = ?turn.worker.backend.counters(), "stopped");
    }
}

impl Turn {
    fn new(worker: Worker) -> Turn {
        Turn {
            pace: Pace::new(worker.idle),
            sessions: Sessions::new(worker.limits),
            batch: Batch::new(BATCH),
            writable: Vec::with_capacity(64),
            removed: Vec::new(),
            stale: Vec::with_capacity(BATCH),
            housekeeping: worker.clock.now() + HOUSEKEEPING,
            put_off: 0,
            counts: Counts::default(),
            complaints: Complaints::new(),
            held_back: false,
            stopping: false,
            worker,
        }
    }

    fn run(&mut self) {
        let now = self.worker.clock.now();
        self.counts.turns += 1;
        let commands = self.take_commands(now);
        let crossed = self.take_crossings(now);
        let datagrams = self.receive(now);
        let records = self.serve_sessions(now);
        let due = self.worker.shard.poll_timeout().is_some_and(|(when, _)| when <= now);
        if due {
            self.worker.shard.handle_timeout(now);
        }
        let more = self.drain(now);
        if now >= self.housekeeping {
            self.keep_house();
        }
        let worked = commands + crossed + datagrams + records > 0 || due;
        if worked {
            let ended = self.worker.clock.now();
            self.worker.shard.record_turn(ended.since(now));
        }
        self.pace.count(now, crossed + datagrams + records);
        if !(more || self.stopping || self.sessions.has_readable()) {
            self.wait(now);
        }
    }

    fn take_commands(&mut self, now: Instant) -> usize {
        self.counts.commands_peak = self.counts.commands_peak.max(self.worker.commands.waiting());
        for count in 0..COMMANDS {
            match self.worker.commands.pop() {
                Some(ToWorker::Command(command)) => {
                    if let Command::RemoveLink(link) = command {
                        self.removed.push(link);
                    }
                    self.worker.shard.handle_command(now, command);
                }
                Some(ToWorker::Attach(session, carrier)) => {
                    let Worker { shard, backend, .. } = &mut self.worker;
                    self.sessions.attach(&mut **backend, &mut At { now, shard }, session, carrier);
                    // What came for the session before its carrier did is waiting.
                    self.writable.push(session);
                }
                Some(ToWorker::Detach(session)) => self.sessions.detach(&mut *self.worker.backend, session),
                Some(ToWorker::Beat(answer)) => answer.store(now.as_nanos(), Ordering::Release),
                Some(ToWorker::Stop) => self.stopping = true,
                None => {
                    self.stopping |= self.worker.commands.is_abandoned();
                    return count;
                }
            }
        }
        COMMANDS
    }

    /// Takes what other workers had ready when the turn began, a ring's worth from each at most.
    fn take_crossings(&mut self, now: Instant) -> usize {
        let Worker { shard, crossings, .. } = &mut self.worker;
        let mut taken = 0;
        for from in crossings.from.iter_mut().flatten() {
            let waiting = from.pop_all(|crossing| shard.handle_crossing(now, crossing));
            self.counts.crossings_peak = self.counts.crossings_peak.max(waiting);
            taken += waiting;
        }
        taken
    }

    /// Gives other workers what the shard has for them. True if a full ring keeps some back.
    fn cross(&mut self) -> bool {
        let Worker { shard, crossings, .. } = &mut self.worker;
        let mut left = false;
        for (worker, to) in crossings.to.iter_mut().enumerate() {
            let Some(to) = to else { continue };
            if shard.has_crossing(worker) {
                to.push_all(std::iter::from_fn(|| shard.poll_crossing(worker)));
            }
            if shard.has_crossing(worker) {
                to.count_refusal();
                left = true;
            }
        }
        left
    }

    fn receive(&mut self, now: Instant) -> usize {
        let Worker { shard, backend, .. } = &mut self.worker;
        let (sessions, writable) = (&mut self.sessions, &mut self.writable);
        let told = &mut self.counts.told;
        // Read when there is something to compare with: once a turn.
        let mut wall = None;
        let datagrams = backend.poll(&mut |event| match event {
            Event::Arrived { link, at, datagrams } => {
                let taken_in = wall.get_or_insert_with(clock::wall_time).as_nanos();
                let waited = Duration::from_nanos(taken_in.saturating_sub(at.as_nanos()));
                shard.record_socket_wait(link, waited, datagrams as u64);
            }
            Event::Readable(session) => sessions.mark_readable(session),
            Event::Writable(session) => writable.push(session),
            Event::HungUp(session) => sessions.mark_hung_up(now, session),
            other => tell(shard, told, now, other),
        });
        self.counts.receive_batches += u64::from(datagrams > 0);
        self.counts.datagrams_in += datagrams as u64;
        datagrams
    }

    /// Takes records from the sessions that have some, and wakes those that have room again.
    fn serve_sessions(&mut self, now: Instant) -> usize {
        let Worker { shard, backend, .. } = &mut self.worker;
        for session in self.writable.drain(..) {
            self.sessions.unblock(&mut **backend, session);
            shard.handle_writable(now, session);
        }
        self.sessions.serve(now, &mut **backend, &mut At { now, shard })
    }

    /// Everything the shard has to give. True if a bound cut it short.
    fn drain(&mut self, now: Instant) -> bool {
        let mut left = Budget::new(DELIVERIES);
        self.deliver(now, &mut left);
        let mut more = self.transmit(now);
        // Messages between sessions of this router are there only now. What comes of delivering them is for the next turn.
        let before = left;
        self.deliver(now, &mut left);
        more |= left != before || left.is_spent();
        self.held_back = self.cross();
        more |= self.worker.shard.sessions_wait() && !self.held_back;
        while !self.worker.reports.is_full() {
            let Some(mut report) = self.worker.shard.poll_report() else { break };
            match &mut report {
                Report::Stats(stats) => {
                    stats.driver = Some(self.driver_stats());
                    self.name_carriers(&mut stats.sessions);
                }
                Report::Sessions(sessions) => self.name_carriers(sessions),
                Report::LinkDown(link, _) => self.worker.backend.close_link(*link),
                _ => {}
            }
            let reports = &mut self.worker.reports;
            if reports.push(report).is_err() {
                unreachable!("only this thread pushes, and there was room");
            }
        }
        self.counts.reports_peak = self.counts.reports_peak.max(self.worker.reports.waiting());
        let Worker { shard, backend, .. } = &mut self.worker;
        while let Some(session) = shard.poll_readable() {
            self.sessions.resume(&mut **backend, session);
        }
        for link in self.removed.drain(..) {
            backend.close_link(link);
            self.complaints.forget(link);
        }
        more
    }

    /// Delivers what is there, and wakes those who sleep beside it.
    fn deliver(&mut self, now: Instant, left: &mut Budget) {
        let Worker { shard, backend, .. } = &mut self.worker;
        while !left.is_spent() {
            let Some((session, len)) = shard.poll_deliver(now, self.sessions.record()) else { break };
            left.spend(len);
            let written = self.sessions.write(&mut **backend, session, len);
            match written {
                Written::Done => shard.delivered(now, session),
                Written::Full => shard.blocked(now, session),
                Written::Gone | Written::Nonsense => {
                    // The application is gone, or is to go, and the record with it.
                    shard.delivered(now, session);
                    self.sessions.detach(&mut **backend, session);
                    let mut shard = At { now, shard };
                    if written == Written::Gone { shard.hang_up(session) } else { shard.refuse(session) }
                }
            }
        }
        self.sessions.wake();
    }

    fn transmit(&mut self, now: Instant) -> bool {
        let Worker { shard, backend, clock, .. } = &mut self.worker;
        // What sending told the shard may have given it something to deliver: not before the next turn.
        let mut heard = false;
        let (stale, complaints) = (&mut self.stale, &mut self.complaints);
        let Counts { told, send_batches, datagrams_out, .. } = &mut self.counts;
        for _ in 0..BATCHES {
            self.batch.clear();
            shard.poll_transmit(now, &mut self.batch);
            if self.batch.is_empty() {
                return heard;
            }
            backend.send(now, &self.batch, &mut |event| {
                heard = true;
                if let Event::SendFailed { link, to, errno, .. } = event {
                    complaints.take(now, link, to, errno);
                    stale.extend(link.filter(|_| is_stale(errno)).map(|link| (link, to)));
                }
                tell(shard, told, now, event);
            });
            shard.record_handed_over(clock.now().since(now));
            for (link, path) in stale.drain(..) {
                backend.set_aside(now, link, path);
            }
            *send_batches += 1;
            *datagrams_out += self.batch.len() as u64;
        }
        true
    }

    fn wait(&mut self, now: Instant) {
        if self.pace.spins(now) {
            return;
        }
        let Worker { shard, backend, bell, commands, reports, crossings, clock, .. } = &mut self.worker;
        let deadlines = [shard.poll_timeout().map(|(when, _)| when), self.sessions.poll_timeout()];
        let mut until = deadlines.into_iter().flatten().fold(self.housekeeping, Instant::min);
        if reports.is_full() {
            reports.count_refusal();
            until = until.min(now + RETRY);
        }
        if self.held_back {
            until = until.min(now + RETRY);
        }
        let timeout = until.since(clock.now());
        let nothing_came = || commands.is_empty() && !commands.is_abandoned() && crossings.is_empty();
        if !timeout.is_zero() && self.sessions.may_wait() && bell.prepare_sleep(nothing_came) {
            self.counts.waits += 1;
            backend.wait(Some(timeout));
            bell.awake();
        }
    }

    /// Says of each session what carries its records, which only this side of the shard knows.
    fn name_carriers(&self, reports: &mut [SessionReport]) {
        for report in reports.iter_mut().filter(|report| self.sessions.shares_memory(report.session)) {
            report.carrier = Carrier::Memory;
        }
    }

    fn driver_stats(&self) -> DriverStats {
        let Turn { worker, counts, .. } = self;
        let io = worker.backend.counters();
        DriverStats {
            backend: worker.backend.name().to_owned(),
            backend_reason: worker.backend_reason.clone(),
            core: worker.place.core,
            core_reason: worker.place.core_reason.clone(),
            scheduling: worker.place.scheduling.clone(),
            calls: io.calls,
            receive_batches: counts.receive_batches,
            datagrams_in: counts.datagrams_in,
            send_batches: counts.send_batches,
            datagrams_out: counts.datagrams_out,
            starved: io.starved,
            overflowed: io.overflowed,
            receive_errors: io.receive_errors,
            stale_sends: io.stale_sends,
            trains_out: io.trains_out,
            coupled_out: io.coupled_out,
            trains_in: io.trains_in,
            coupled_in: io.coupled_in,
            trains_refused: io.trains_refused,
            socket_overflows: counts.socket_overflows,
            send_errors: counts.told.named().collect(),
            refusals: counts.told.refusals,
            commands: RingStats {
                waiting: worker.commands.waiting(),
                peak: counts.commands_peak,
                slots: RING_SLOTS,
                full: worker.commands.refused(),
            },
            reports: RingStats {
                waiting: worker.reports.waiting(),
                peak: counts.reports_peak,
                slots: RING_SLOTS,
                full: worker.reports.refused(),
            },
            crossings: worker.crossings.stats(counts.crossings_peak),
            turns: counts.turns,
            waits: counts.waits,
        }
    }

    fn keep_house(&mut self) {
        self.housekeeping = self.worker.clock.now() + HOUSEKEEPING;
        let dropped = self.worker.backend.new_kernel_drops();
        self.counts.socket_overflows += dropped;
        if dropped > 0 {
            let worker = self.worker.index;
            tracing::warn!(worker, dropped, "the kernel dropped datagrams: socket buffers full (see socket_buffer)");
        }
        let total = self.worker.shard.held_back();
        let put_off = total - std::mem::replace(&mut self.put_off, total);
        if put_off > 0 {
            let worker = self.worker.index;
            tracing::warn!(worker, put_off, "applications wait: too many records are held for peers that do not read");
        }
        let held_back = self.worker.commands.refused();
        if held_back > 0 {
            tracing::debug!(worker = self.worker.index, held_back, "commands found the ring full");
        }
    }
}

/// The shard at the time of this turn.
struct At<'a> {
    now: Instant,
    shard: &'a mut Shard,
}

impl Records for At<'_> {
    fn may_read(&mut self, session: SessionId) -> bool {
        self.shard.may_read(session)
    }

    fn take(&mut self, session: SessionId, record: &[u8]) -> Readiness {
        self.shard.handle_record(self.now, session, record)
    }

    fn hang_up(&mut self, session: SessionId) {
        self.shard.handle_hangup(self.now, session);
    }

    fn refuse(&mut self, session: SessionId) {
        self.shard.handle_nonsense(self.now, session);
    }
}

/// Whether the kernel says so of a connected socket whose local address, or whose route, is gone: another one, or the
/// listening one, may do better. (IPv4 says EINVAL of a source address that the machine no longer has.)
const fn is_stale(errno: i32) -> bool {
    matches!(errno, libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN)
}

/// Whether the kernel would refuse any datagram for that reason, also a shorter one a moment later.
const fn is_lasting(errno: i32) -> bool {
    !matches!(errno, libc::EMSGSIZE | libc::EAGAIN | libc::ENOBUFS | libc::ECONNREFUSED)
}

/// Hands a packet event to the shard.
fn tell(shard: &mut Shard, told: &mut Told, now: Instant, event: Event<'_>) {
    match event {
        Event::Datagram { from, bytes } => shard.handle_datagram(now, from, bytes),
        Event::Refused(link, path) => {
            told.refusals += 1;
            shard.handle_refused(now, link, path);
        }
        Event::Unreachable { to, errno } => {
            told.refusals += u64::from(errno == libc::ECONNREFUSED);
            shard.handle_unreachable(now, to, errno == libc::ECONNREFUSED);
        }
        Event::SendFailed { link, errno, .. } => {
            told.count(errno);
            shard.handle_send_failed(now, link, is_lasting(errno));
        }
        Event::Dropped(reason) => shard.handle_dropped(reason),
        Event::Arrived { .. } | Event::Readable(_) | Event::Writable(_) | Event::HungUp(_) => {}
    }
}

#[cfg(test)]
mod tests;
