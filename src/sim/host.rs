//! The host side of service addresses, as a router of the simulation has it: what `runtime/vip` promises, in virtual time.
//!
//! It belongs to the machine and outlives the router: a kernel goes on answering until its lease has run out, whoever was
//! killed or stands still. While the router runs, its lease is refreshed; from the moment it stands still or dies the
//! lease has at most its length to run.
//!
//! ```text
//!              Acquire                 wait is over
//!   nothing ───────────▶ waiting ─────────────────────▶ speaking ◀── Acquire, Announce ─┐
//!      ▲                    │ cannot: Failed               │ ──── Mute ───────────────▶ mute
//!      └◀── Release · taken away: Lost · lease ran out: Lapsed, of all ─────────────────┘
//! ```
//! Who slept through the end of the lease has nothing, and takes no Acquire until control has heard so. That may take:
//! who wakes up has much to do, and what neighbours said meanwhile is read first.
//!
//! Two things beside belong to the machine: its services, which health checks look at, and what it hears on its network
//! of a rival that answers for an address of its own accord.

use super::vips::{INTERFACE, address};
use crate::base::{Instant, Rng};
use crate::control::{HostCommand, HostReport, Input};
use std::collections::VecDeque;
use std::time::Duration;

/// Most that acquiring takes, and a report on its way to control.
const LATENCY_MICROS: u64 = 2000;
/// Most that it takes until control hears that the lease ran out.
const WAKING_MICROS: u64 = 40_000;
/// Rivals are heard so often, give or take a quarter: the keeper reports no more.
const RIVAL_EVERY: Duration = Duration::from_millis(20);
/// Announcements that control may order for one set in a second: ten for a rival, and some for views and hand-overs.
const MOST_ANNOUNCEMENTS: u32 = 30;
/// A router that runs says so several times in each lease: it may have done that this part of one ago.
const BEATS: u32 = 5;

/// What there is of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    Nothing,
    Waiting(Instant),
    Speaking,
    Mute,
}

/// What control hears of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// Of the addresses.
    Host(HostReport),
    /// What this check found.
    Check(usize, bool),
}

impl From<Report> for Input {
    fn from(report: Report) -> Input {
        match report {
            Report::Host(report) => Input::Host(report),
            Report::Check(check, ok) => Input::Health { check, ok },
        }
    }
}

/// What was announced of a set.
#[derive(Clone, Copy, Debug, Default)]
struct Announced {
    /// When it was last.
    at: Instant,
    /// The second in which it was, and how often in that.
    second: u64,
    count: u32,
}

/// The addresses of one machine.
#[derive(Debug)]
pub(super) struct Host {
    lease: Duration,
    sets: Vec<Holding>,
    /// The router stands still until then.
    frozen_until: Instant,
    /// Its control or a worker does not get on, so nobody says that both live.
    stuck: bool,
    /// When the lease runs out, while nobody refreshes it.
    silent_at: Option<Instant>,
    /// The lease ran out, and control has not heard of it.
    lapsed: bool,
    refuses: bool,
    carrier: bool,
    /// What there is to check, and whether it is well.
    checks: Vec<bool>,
    /// When a rival is heard next, by set.
    rivals: Vec<Option<Instant>>,
    /// Of how many control was told since its router started.
    rivals_told: u64,
    announced: Vec<Announced>,
    /// With the time at which control hears them.
    reports: VecDeque<(Instant, Report)>,
    /// Who answers may have changed since that was asked last.
    changed: bool,
    rng: Rng,
}

impl Host {
    pub(super) fn new(sets: usize, checks: usize, lease: Duration, rng: Rng) -> Host {
        Host {
            lease,
            sets: vec![Holding::Nothing; sets],
            frozen_until: Instant::ZERO,
            stuck: false,
            silent_at: None,
            lapsed: false,
            refuses: false,
            carrier: true,
            checks: vec![true; checks],
            rivals: vec![None; sets],
            rivals_told: 0,
            announced: vec![Announced::default(); sets],
            reports: VecDeque::new(),
            changed: false,
            rng,
        }
    }

    /// A router starts: what the one before left behind is taken off.
    pub(super) fn start(&mut self, now: Instant) {
        self.drop_all();
        (self.frozen_until, self.stuck, self.silent_at, self.lapsed) = (now, false, None, false);
        self.rivals_told = 0;
        self.reports.clear();
        self.report(
            now,
            HostReport::Carrier { interface: INTERFACE.to_owned(), up: self.carrier, addresses: Vec::new() },
        );
        for check in 0..self.checks.len() {
            self.hear(now, Report::Check(check, self.checks[check]));
        }
    }

    /// The router has ended of its own accord, and took everything off.
    pub(super) fn end(&mut self) {
        self.drop_all();
        self.reports.clear();
    }

    /// The router is gone. What it held is answered for until the lease runs out.
    pub(super) fn crash(&mut self, now: Instant) {
        self.stop(now);
        self.sets.iter_mut().filter(|set| matches!(set, Holding::Waiting(_))).for_each(|set| *set = Holding::Nothing);
        self.reports.clear();
    }

    /// The router stands still.
    pub(super) fn freeze(&mut self, now: Instant, until: Instant) {
        self.stop(now);
        self.frozen_until = self.frozen_until.max(until);
    }

    /// Control or a worker does not get on any more, or does again.
    pub(super) fn set_stuck(&mut self, now: Instant, stuck: bool) {
        self.turn(now);
        self.stuck = stuck;
        if stuck {
            self.stop(now);
        } else if now >= self.frozen_until {
            self.silent_at = None;
        }
    }

    /// Nobody refreshes the lease from now on.
    fn stop(&mut self, now: Instant) {
        let since = Duration::from_nanos(self.rng.below((self.lease / BEATS).as_nanos() as u64 + 1));
        self.silent_at.get_or_insert(now + (self.lease - since));
    }

    /// Whether it answers for the set: somebody else may ask.
    pub(super) fn answers(&self, now: Instant, set: usize) -> bool {
        self.carrier && self.sets[set] == Holding::Speaking && self.silent_at.is_none_or(|at| now < at)
    }

    /// Whether it accepts what comes for the set, answering or not.
    pub(super) fn accepts(&self, now: Instant, set: usize) -> bool {
        self.answers(now, set) || self.sets[set] == Holding::Mute
    }

    /// Nobody refreshes the lease.
    pub(super) const fn is_left_alone(&self) -> bool {
        self.silent_at.is_some()
    }

    /// When the set was announced last.
    pub(super) fn announced(&self, set: usize) -> Instant {
        self.announced[set].at
    }

    /// Of how many rivals control was told since its router started.
    pub(super) const fn rivals_told(&self) -> u64 {
        self.rivals_told
    }

    /// The set that is announced without end, if one is.
    pub(super) fn shouts(&self) -> Option<usize> {
        self.announced.iter().position(|announced| announced.count > MOST_ANNOUNCEMENTS)
    }

    /// Whether who answers may have changed since this was asked last.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Whether nothing stands in the way of an answer.
    pub(super) const fn is_well(&self) -> bool {
        self.carrier && !self.refuses
    }

    /// Does what control says.
    pub(super) fn command(&mut self, now: Instant, command: &HostCommand) {
        self.turn(now);
        self.changed = true;
        match *command {
            HostCommand::Acquire { .. } if self.lapsed => {}
            HostCommand::Acquire { set, .. } if self.silent_at.is_some_and(|at| at <= now) => {
                self.report(now, HostReport::Failed { set, why: "control has not said that it lives".to_owned() });
            }
            HostCommand::Acquire { set, wait, .. } => match self.sets[set] {
                Holding::Nothing | Holding::Waiting(_) => {
                    self.sets[set] = Holding::Waiting(now + wait + self.latency());
                }
                Holding::Speaking | Holding::Mute => {
                    self.sets[set] = Holding::Speaking;
                    self.announce(now, set);
                    self.report(now, HostReport::Acquired { set });
                }
            },
            HostCommand::Announce { set } => {
                self.change(set, Holding::Mute, Holding::Speaking);
                if self.sets[set] == Holding::Speaking {
                    self.announce(now, set);
                }
            }
            HostCommand::Mute { set } => self.change(set, Holding::Speaking, Holding::Mute),
            HostCommand::Release { set } => {
                self.sets[set] = Holding::Nothing;
                self.report(now, HostReport::Released { set });
            }
            HostCommand::ReleaseAll => self.drop_all(),
        }
    }

    fn change(&mut self, set: usize, from: Holding, to: Holding) {
        if self.sets[set] == from {
            self.sets[set] = to;
        }
    }

    fn announce(&mut self, now: Instant, set: usize) {
        let (announced, second) = (&mut self.announced[set], now.as_nanos() / 1_000_000_000);
        let count = if announced.second == second { announced.count + 1 } else { 1 };
        *announced = Announced { at: now, second, count };
    }

    /// Does what is due, if its router does not stand still.
    pub(super) fn turn(&mut self, now: Instant) {
        if now < self.frozen_until {
            return;
        }
        if self.silent_at.is_some_and(|at| at <= now) && self.holds_something() {
            self.drop_all();
            if !std::mem::replace(&mut self.lapsed, true) {
                let waking = Duration::from_micros(self.rng.below(WAKING_MICROS));
                self.report(now + waking, HostReport::Lapsed);
            }
        }
        self.silent_at = self.silent_at.filter(|_| self.stuck);
        for set in 0..self.sets.len() {
            if !matches!(self.sets[set], Holding::Waiting(until) if until <= now) {
                continue;
            }
            self.changed = true;
            if self.refuses {
                self.sets[set] = Holding::Nothing;
                self.report(now, HostReport::Failed { set, why: "the kernel refuses".to_owned() });
            } else {
                self.sets[set] = Holding::Speaking;
                self.announce(now, set);
                self.report(now, HostReport::Acquired { set });
            }
        }
        for set in 0..self.sets.len() {
            if self.answers(now, set) && self.rivals[set].is_some_and(|at| at <= now) {
                self.rivals[set] = Some(now + self.rng.jitter(RIVAL_EVERY, 0.25));
                let who = "02:00:00:00:00:66".to_owned();
                self.report(now, HostReport::Rival { set, address: address(set), who });
            }
        }
    }

    /// The next report that control hears now.
    pub(super) fn poll_report(&mut self, now: Instant) -> Option<Report> {
        if now < self.frozen_until || self.reports.front().is_none_or(|report| report.0 > now) {
            return None;
        }
        let (_, report) = self.reports.pop_front()?;
        self.lapsed &= report != Report::Host(HostReport::Lapsed);
        self.rivals_told += u64::from(matches!(report, Report::Host(HostReport::Rival { .. })));
        Some(report)
    }

    /// When [`Host::turn`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.sets.iter().filter_map(|set| match set {
            Holding::Waiting(until) => Some(*until),
            _ => None,
        });
        let lapses = |at: Instant| if self.stuck { at } else { self.frozen_until };
        let wakes = self.silent_at.filter(|_| !self.stuck || self.holds_something()).map(lapses);
        let heard = (0..self.sets.len()).filter(|&set| self.sets[set] == Holding::Speaking && self.carrier);
        let rivals = heard.filter_map(|set| self.rivals[set]);
        let next = waits.chain(wakes).chain(rivals).chain(self.reports.front().map(|report| report.0)).min()?;
        Some(next.max(self.frozen_until))
    }

    /// Somebody takes an address away. False if it is not there.
    pub(super) fn take_away(&mut self, now: Instant, set: usize) -> bool {
        let held = matches!(self.sets[set], Holding::Speaking | Holding::Mute) && now >= self.frozen_until;
        if held {
            (self.sets[set], self.changed) = (Holding::Nothing, true);
            self.report(now, HostReport::Lost { set, why: "somebody took it".to_owned() });
        }
        held
    }

    /// Nothing can be acquired, or again.
    pub(super) const fn set_refuses(&mut self, on: bool) {
        self.refuses = on;
    }

    /// The interface has a carrier, or has none.
    pub(super) fn set_carrier(&mut self, now: Instant, up: bool) {
        if std::mem::replace(&mut self.carrier, up) != up {
            self.changed = true;
            self.report(now, HostReport::Carrier { interface: INTERFACE.to_owned(), up, addresses: Vec::new() });
        }
    }

    /// A service is well, or is not.
    pub(super) fn set_check(&mut self, now: Instant, check: usize, ok: bool) {
        if self.checks.get(check).is_some_and(|was| *was != ok) {
            self.checks[check] = ok;
            self.hear(now, Report::Check(check, ok));
        }
    }

    /// Somebody else begins to answer for the set, or ceases.
    pub(super) fn set_rival(&mut self, now: Instant, set: usize, on: bool) {
        self.rivals[set] = on.then_some(now);
    }

    /// All services are well, and nobody else answers for anything.
    pub(super) fn heal(&mut self, now: Instant) {
        (0..self.checks.len()).for_each(|check| self.set_check(now, check, true));
        self.rivals.fill(None);
    }

    fn holds_something(&self) -> bool {
        self.sets.iter().any(|set| *set != Holding::Nothing)
    }

    fn drop_all(&mut self) {
        self.sets.fill(Holding::Nothing);
        self.changed = true;
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.rng.below(LATENCY_MICROS))
    }

    fn report(&mut self, now: Instant, report: HostReport) {
        self.hear(now, Report::Host(report));
    }

    /// Control is to hear something soon, after all that it is to hear before.
    fn hear(&mut self, now: Instant, report: Report) {
        let last = self.reports.back().map_or(Instant::ZERO, |report| report.0);
        let at = (now + self.latency()).max(last);
        self.reports.push_back((at, report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(100);
    const ACQUIRE: HostCommand = HostCommand::Acquire { set: 0, wait: Duration::ZERO, from: None };

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// One that answers for its only set at 10 ms.
    fn speaking() -> Host {
        let mut host = Host::new(1, 0, LEASE, Rng::from_u64(1));
        host.start(at(0));
        host.command(at(1), &ACQUIRE);
        host.turn(at(10));
        assert!(host.answers(at(10), 0));
        while host.poll_report(at(20)).is_some() {}
        host
    }

    #[test]
    fn who_sleeps_through_its_lease_is_silent_and_takes_nothing_before_control_has_heard_so() {
        let mut host = speaking();
        host.freeze(at(1000), at(2000));
        assert!(host.answers(at(1070), 0) && !host.answers(at(1100), 0));
        host.turn(at(1500));
        assert_eq!(host.poll_report(at(1500)), None, "it stands still");
        host.command(at(2000), &ACQUIRE);
        host.turn(at(2010));
        assert!(!host.answers(at(2010), 0), "the command was given before control knew");
        assert_eq!(host.poll_report(at(2060)), Some(Report::Host(HostReport::Lapsed)));
        host.command(at(2061), &ACQUIRE);
        host.turn(at(2070));
        assert!(host.answers(at(2070), 0));
    }

    #[test]
    fn a_rival_is_heard_by_who_answers_alone_and_until_it_ceases() {
        let mut host = speaking();
        let heard = |host: &mut Host, from: u64, until: u64| {
            let before = host.rivals_told();
            for now in (from..until).map(at) {
                host.turn(now);
                while host.poll_report(now).is_some() {}
            }
            host.rivals_told() - before
        };
        assert_eq!(heard(&mut host, 20, 500), 0);
        host.set_rival(at(500), 0, true);
        let told = heard(&mut host, 500, 1500);
        assert!((40..=67).contains(&told), "{told}");
        host.command(at(1500), &HostCommand::Mute { set: 0 });
        assert!(heard(&mut host, 1500, 2500) <= 1, "one was under way");
        host.command(at(2500), &ACQUIRE);
        host.set_rival(at(2500), 0, false);
        assert_eq!(heard(&mut host, 2500, 3500), 0);
    }

    #[test]
    fn a_short_sleep_costs_nothing_and_a_crash_leaves_a_lease() {
        let mut host = speaking();
        host.freeze(at(1000), at(1050));
        host.turn(at(1050));
        assert!(host.answers(at(3000), 0) && host.poll_report(at(3000)).is_none());
        host.crash(at(4000));
        assert!(host.answers(at(4070), 0) && !host.answers(at(4100), 0));
    }
}
