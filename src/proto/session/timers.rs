//! Time: the wheel's entries and what is done when they are due.

use super::Reason;
use super::records::RETRY;
use super::sender::Due;
use super::sessions::Sessions;
use super::tombstones::Epitaph;
use crate::base::Instant;
use crate::base::time::sooner;
use crate::containers::Pool;
use crate::telemetry::DropReason;
use crate::wire::client::Record;
use crate::wire::session::ResetReason;
use std::time::Duration;

/// Timers served per call; what is left is due at once again.
const WORK: usize = 256;
/// Sessions with records that found no room that try again per call.
const RETRIES: usize = 64;

/// Answers to what may be garbage: a token bucket that holds a quarter of a second's worth.
#[derive(Debug)]
pub(super) struct Notices {
    tokens: Duration,
    price: Duration,
    since: Instant,
}

impl Notices {
    const FULL: Duration = Duration::from_millis(250);

    pub(super) fn new(per_second: u32) -> Notices {
        Notices { tokens: Notices::FULL, price: Duration::from_secs(1) / per_second.max(1), since: Instant::ZERO }
    }

    pub(super) fn allow(&mut self, now: Instant) -> bool {
        self.tokens = (self.tokens + now.since(self.since)).min(Notices::FULL);
        self.since = now;
        let allowed = self.tokens >= self.price;
        if allowed {
            self.tokens -= self.price;
        }
        allowed
    }
}

impl Sessions {
    /// When to call [`Sessions::handle_timeout`], and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let flows = self.wheel.next_deadline().map(|at| (at, Reason::Flow));
        let reassembly = self.reassembly.deadline().map(|at| (at, Reason::Reassembly));
        sooner(sooner(flows, reassembly), self.retry_at.map(|at| (at, Reason::Room)))
    }

    /// Does what is due, at most 256 flows per call.
    pub fn handle_timeout(&mut self, now: Instant, pool: &mut Pool) {
        self.reassembly.handle_timeout(now, pool, &mut self.received);
        self.count_given_up();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.retry_all(now, pool);
        }
        for _ in 0..WORK {
            let Some(key) = self.wheel.pop_due(now) else { break };
            let flows = self.settings.max_flows;
            if key < flows {
                self.sender_due(now, key as u32, pool);
            } else if key < 2 * flows {
                self.receiver_due(now, (key - flows) as u32, pool);
            } else {
                self.lingered(now, (key - 2 * flows) as u32, pool);
            }
        }
    }

    /// A session lingered for the time that is granted. A stream goes on as long as its peer answers.
    fn lingered(&mut self, now: Instant, index: u32, pool: &mut Pool) {
        let Some(session) = self.sessions.get_mut(index).filter(|session| session.lingering) else { return };
        if session.stream().is_none() {
            return self.end_session(index, pool);
        }
        session.overdue = Some(now);
        self.overdue.insert((now, index));
        if self.overdue.len() > self.settings.overdue {
            self.give_way(index, pool);
        }
    }

    /// Resets the stream that has been overdue longest, `but` one; false if there is none.
    pub(super) fn give_way(&mut self, but: u32, pool: &mut Pool) -> bool {
        let Some(&(_, index)) = self.overdue.iter().find(|(_, index)| *index != but) else { return false };
        self.count(DropReason::Abandoned);
        self.end_session(index, pool);
        true
    }

    pub(super) fn count_given_up(&mut self) {
        for _ in 0..self.reassembly.take_given_up() {
            self.count(DropReason::Incomplete);
        }
    }

    fn retry_all(&mut self, now: Instant, pool: &mut Pool) {
        for _ in 0..self.pending.len().min(RETRIES) {
            let Some(ticket) = self.pending.pop_front() else { break };
            let Some(index) = self.sessions.redeem(ticket) else { continue };
            assert!(self.session(index).retrying, "a session stands in the round once");
            self.retry_pending(now, index, pool);
            // It may have ended with its last record.
            if let Some(index) = self.sessions.redeem(ticket) {
                let session = self.session_mut(index);
                session.retrying = !session.pending.is_empty();
                if session.retrying {
                    self.pending.push_back(ticket);
                }
            }
        }
        self.resume_reading();
        if !self.pending.is_empty() || !self.put_off.is_empty() {
            self.retry_at = Some(now + RETRY);
        }
    }

    pub(super) const fn sender_timer(&self, index: u32) -> usize {
        index as usize
    }

    pub(super) const fn receiver_timer(&self, index: u32) -> usize {
        self.settings.max_flows + index as usize
    }

    pub(super) const fn session_timer(&self, index: u32) -> usize {
        2 * self.settings.max_flows + index as usize
    }

    /// Sets a timer earlier if need be. A timer that fires too early sets itself again.
    pub(super) fn arm(&mut self, timer: usize, deadline: Option<Instant>) {
        if let Some(deadline) = deadline
            && self.wheel.deadline(timer).is_none_or(|set| deadline < set)
        {
            self.wheel.set(timer, deadline);
        }
    }

    fn sender_due(&mut self, now: Instant, at: u32, pool: &mut Pool) {
        let Some(sender) = self.senders.get_mut(at) else { return };
        match sender.handle_timeout(now, &self.settings) {
            Due::Nothing | Due::Transmit => self.wake_sender(at),
            Due::Idle => self.end_flow(now, at),
            Due::GiveUp => self.fail_sender(now, at, ResetReason::TimedOut, true, pool),
        }
    }

    /// An outgoing flow ends without being acknowledged; its application is told, and the peer if it does not know.
    pub(super) fn fail_sender(&mut self, now: Instant, at: u32, reason: ResetReason, tell: bool, pool: &mut Pool) {
        let sender = self.sender(at);
        let (session, key, stream) = (sender.session, sender.key, sender.stream);
        // An idle flow that merely could not be ended took nothing with it.
        let lost = sender.unacknowledged() > 0 || sender.len() > 1 || !sender.is_ending();
        if stream {
            return self.reset_stream(now, session, reason, tell, pool);
        }
        if tell {
            self.push_reset(key, false, reason, pool);
        }
        self.remove_sender(at, pool);
        if lost && !self.session(session).lingering {
            self.notify(session, Record::Reset { reason, peer: key.peer });
        }
        self.retry_pending(now, session, pool);
        self.advance_linger(now, session, pool);
    }

    fn receiver_due(&mut self, now: Instant, at: u32, pool: &mut Pool) {
        let Some(receiver) = self.receivers.get_mut(at).filter(|receiver| !receiver.over) else { return };
        let (session, stream) = (receiver.session, receiver.stream);
        let (ack, silent) = receiver.handle_timeout(now, &self.settings);
        if silent {
            if stream {
                return self.reset_stream(now, session, ResetReason::TimedOut, true, pool);
            }
            return self.break_receiver(now, at, Epitaph::Abandoned, ResetReason::TimedOut, pool);
        }
        if ack {
            self.queue_ack(at);
        }
        self.watch_receiver(at);
    }

    /// Routes have changed: flows with unacknowledged segments ask soon what was lost.
    pub fn handle_table_change(&mut self, now: Instant) {
        for at in 0..self.senders.end() {
            let probes = self.settings.probe_after.map(|after| after + self.rng.jitter(after / 10, 1.0));
            if let Some(sender) = self.senders.get_mut(at) {
                sender.reroute(now, probes);
                self.wake_sender(at);
            }
        }
    }

    /// The descriptor takes records again.
    pub fn handle_writable(&mut self, _now: Instant, id: crate::base::SessionId) {
        if let Some(index) = self.find(id) {
            self.session_mut(index).blocked = false;
            self.offer(index);
        }
    }
}
