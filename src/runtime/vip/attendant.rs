//! The attendant: the thread that looks after health checks and hooks.
//!
//! Starting a command takes about a millisecond; here it stalls nobody but other checks. Nothing waits
//! for this thread, and if it dies no verdict changes any more.

use super::super::clock::Clock;
use super::super::doorbell::Doorbell;
use super::super::netlink::Netlink;
use super::super::ring::{RETRY, Receiver, Sender};
use super::health::{Check, Checker, Means};
use super::hooks::{Hook, Hooks, Job, User};
use super::{Shared, Verdict, add};
use crate::base::Instant;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const BELL: Token = Token(0);
/// Checks have the tokens from here on.
const CHECKS: usize = 1;

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Attendant {
    clock: Clock,
    poll: Poll,
    bell: Arc<Doorbell>,
    jobs: Receiver<Job>,
    verdicts: Sender<Verdict>,
    /// Verdicts that found the ring full: of each check the latest.
    unsent: Vec<Option<bool>>,
    checkers: Vec<Checker>,
    hooks: Hooks,
    user: Option<User>,
    netlink: Netlink,
    shared: Arc<Shared>,
}

impl Attendant {
    /// Nothing is asked yet.
    pub(super) fn new(
        clock: Clock,
        (checks, hook, user): (Vec<Check>, Option<Hook>, Option<User>),
        bell: Arc<Doorbell>,
        (jobs, verdicts): (Receiver<Job>, Sender<Verdict>),
        shared: Arc<Shared>,
    ) -> io::Result<Attendant> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&bell.as_raw_fd()), BELL, Interest::READABLE)?;
        let (now, unsent) = (clock.now(), vec![None; checks.len()]);
        let numbered = checks.into_iter().enumerate();
        let checkers = numbered.map(|(number, check)| Checker::new(now, check, Token(CHECKS + number))).collect();
        let (hooks, netlink) = (Hooks::new(hook, user), Netlink::open()?);
        Ok(Attendant { clock, poll, bell, jobs, verdicts, unsent, checkers, hooks, user, netlink, shared })
    }

    /// Runs until it is told to end.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while !self.shared.stop.load(Ordering::Acquire) {
            let woken: BTreeSet<Token> = events.iter().map(|event| event.token()).collect();
            if woken.contains(&BELL) {
                self.bell.silence();
            }
            self.turn(&woken);
            let timeout = self.timeout();
            let nothing = || self.jobs.is_empty() && !self.shared.stop.load(Ordering::Acquire);
            let timeout = if self.bell.prepare_sleep(nothing) { timeout } else { Some(Duration::ZERO) };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "health checks and hooks of virtual addresses end");
                return;
            }
            self.bell.awake();
        }
    }

    fn turn(&mut self, woken: &BTreeSet<Token>) {
        while let Some(job) = self.jobs.pop() {
            if !self.hooks.push(job) {
                add(&self.shared.hooks_left_out, 1);
            }
        }
        let ended = self.hooks.turn(self.clock.now());
        add(&self.shared.hooks_failed, ended.badly);
        let mut means = Means { registry: self.poll.registry(), user: self.user, netlink: &mut self.netlink };
        for (number, checker) in self.checkers.iter_mut().enumerate() {
            let woken = woken.contains(&Token(CHECKS + number));
            if let Some(ok) = checker.turn(self.clock.now(), woken, &mut means) {
                self.unsent[number] = Some(ok);
            }
        }
        for (check, unsent) in self.unsent.iter_mut().enumerate() {
            if let Some(ok) = *unsent
                && self.verdicts.push(Verdict { check, ok }).is_ok()
            {
                *unsent = None;
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now();
        let checks = self.checkers.iter().map(Checker::poll_timeout);
        let retry: Option<Instant> = self.unsent.iter().any(Option::is_some).then(|| now + RETRY);
        checks.chain(self.hooks.poll_timeout(now)).chain(retry).min().map(|next| next.since(now))
    }
}
