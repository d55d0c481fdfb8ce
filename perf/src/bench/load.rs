//! Load: as many messages as the way takes, or as many a second as asked, with a bounded number on their way.

use super::figures::per;
use super::machine::{Used, Watched};
use super::path::Path;
use super::router::Counted;
use super::shares::{Sampler, Shares};
use serde::Serialize;
use sinew::base::Instant;
use sinew::runtime::clock::Clock;
use std::io;
use std::time::Duration;

/// Before anything is counted: queues, windows and caches fill.
pub(crate) const WARM_UP: Duration = Duration::from_millis(400);
/// Messages that have not arrived after such a silence count as lost for the time being, if the way loses messages.
const GIVE_UP: Duration = Duration::from_millis(20);
/// The same for good, when nothing more is sent.
const SETTLE: Duration = Duration::from_millis(300);
/// Messages offered in one turn: of 200 bytes, bundled, they fill a train.
const BURST: u64 = 256;
/// Use of a core from which on the forwarder is what limits.
pub(crate) const SATURATED: f64 = 0.9;

/// What to send.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) clock: Clock,
    pub(crate) seconds: f64,
    pub(crate) size: usize,
    /// Most messages between source and sink.
    pub(crate) window: u64,
    /// Messages a second; none: as many as go.
    pub(crate) pace: Option<u32>,
    /// Messages that do not arrive are lost, not late.
    pub(crate) lossy: bool,
    /// Ask what the forwarder's time goes to.
    pub(crate) sampled: bool,
}

/// What one cell of one round showed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Shown {
    /// Messages that reached the sink, per second.
    pub(crate) messages_per_s: f64,
    /// The same in Mbit/s of the messages' own bytes.
    pub(crate) mbit_per_s: f64,
    /// Datagrams in the direction of the messages that the forwarder received and sent, per second.
    pub(crate) datagrams_in_per_s: f64,
    pub(crate) datagrams_out_per_s: f64,
    /// Datagrams in the other direction, received or sent.
    pub(crate) datagrams_back_per_s: f64,
    pub(crate) messages_per_datagram_in: f64,
    pub(crate) messages_per_datagram_out: f64,
    /// Share of its core that the forwarding thread used, and that it was ready but did not get.
    pub(crate) utilisation: f64,
    pub(crate) starved: f64,
    /// Time on the core per message, and per datagram sent.
    pub(crate) cpu_ns_per_message: f64,
    pub(crate) cpu_ns_per_datagram: f64,
    /// Messages and datagrams out per second of core time.
    pub(crate) messages_per_core_s: f64,
    pub(crate) datagrams_per_core_s: f64,
    /// The forwarder used its core fully, so that the rate per core is measured; else it is extrapolated.
    pub(crate) saturated: bool,
    /// Messages sent that did not arrive.
    pub(crate) lost: u64,
    pub(crate) sent: u64,
    pub(crate) retransmissions: u64,
    pub(crate) drops: u64,
    /// `messages_per_core_s` and `datagrams_per_core_s` over those of the row beside it in the same round.
    pub(crate) messages_to_beside: f64,
    pub(crate) datagrams_to_beside: f64,
    /// Nanoseconds per message in the kernel, in ciphers, and in the rest of the forwarder, where that was asked.
    pub(crate) kernel_ns: Option<f64>,
    pub(crate) cipher_ns: Option<f64>,
    pub(crate) rest_ns: Option<f64>,
}

struct Load<'a> {
    path: &'a mut dyn Path,
    plan: Plan,
    window: u64,
    message: Vec<u8>,
    sent: u64,
    received: u64,
    /// Not waited for any more, and how many of them were missing when nothing was on its way.
    lost: u64,
    settled: u64,
    due: Instant,
    progress: Instant,
}

impl Plan {
    /// Runs over `path`, watching the forwarder's thread and counters.
    pub(crate) fn measure(
        self,
        path: &mut dyn Path,
        thread: &Watched,
        mut counters: impl FnMut() -> io::Result<Counted>,
    ) -> io::Result<Shown> {
        let clock = self.clock;
        let mut load = Load {
            plan: self,
            window: self.window.min(path.room(self.size)).max(1),
            message: (0..self.size).map(|at| at as u8).collect(),
            sent: 0,
            received: 0,
            lost: 0,
            settled: 0,
            due: clock.now(),
            progress: clock.now(),
            path,
        };
        let sampler = self.sampled.then(|| Sampler::start(thread)).flatten();
        load.run(WARM_UP);
        load.drain();
        let before = counters()?;
        load.due = clock.now();
        let (used, begun, received, sent, lost) = (thread.used()?, clock.now(), load.received, load.sent, load.lost);
        load.run(Duration::from_secs_f64(self.seconds));
        let (used, passed) = (thread.used()?.since(used), clock.now().since(begun));
        let arrived = load.received - received;
        let shares = sampler.map(Sampler::finish).transpose()?.flatten();
        load.drain();
        let counted = counters()?.since(before);
        let (sent, lost) = (load.sent - sent, load.lost - lost);
        Ok(Figures { size: self.size, arrived, sent, lost, passed, used, counted, shares }.shown())
    }
}

impl Used {
    pub(super) fn since(self, before: Used) -> Used {
        Used { ran: self.ran.saturating_sub(before.ran), waited: self.waited.saturating_sub(before.waited) }
    }
}

impl Load<'_> {
    fn run(&mut self, time: Duration) {
        let end = self.plan.clock.now() + time;
        loop {
            let now = self.plan.clock.now();
            if now >= end {
                return;
            }
            self.offer(now);
            self.turn(now);
        }
    }

    /// Waits for what is on its way.
    fn drain(&mut self) {
        // What was given up while the machine had no time for it may still come.
        self.lost = self.settled;
        self.progress = self.plan.clock.now();
        let patience = if self.plan.lossy { SETTLE } else { Duration::from_secs(2) };
        while self.on_their_way() > 0 {
            let now = self.plan.clock.now();
            if now.since(self.progress) > patience {
                break;
            }
            self.take(now);
        }
        self.lost += self.on_their_way();
        self.settled = self.lost;
    }

    const fn on_their_way(&self) -> u64 {
        (self.sent - self.lost).saturating_sub(self.received)
    }

    fn offer(&mut self, now: Instant) {
        let credit = self.window.saturating_sub(self.on_their_way()).min(BURST);
        let wanted = match self.plan.pace {
            None if credit < BURST.min(self.window) => 0,
            None => credit,
            Some(rate) => {
                // What the source could not send in time is not made up for in a burst.
                if now.since(self.due) > Duration::from_millis(1) {
                    self.due = now;
                }
                let due = u64::from(self.due <= now).min(credit);
                self.due += Duration::from_nanos(due * 1_000_000_000 / u64::from(rate));
                due
            }
        };
        for _ in 0..wanted {
            if !self.path.send(now, &self.message) {
                break;
            }
            self.sent += 1;
        }
    }

    fn turn(&mut self, now: Instant) {
        self.take(now);
        if self.on_their_way() == 0 {
            self.progress = now;
        } else if self.plan.lossy && now.since(self.progress) > GIVE_UP {
            self.lost += self.on_their_way();
            self.progress = now;
        }
    }

    fn take(&mut self, now: Instant) {
        let (before, received) = (self.received, &mut self.received);
        self.path.turn(now, &mut |_| *received += 1);
        if self.received > before {
            self.progress = now;
        }
    }
}

struct Figures {
    size: usize,
    arrived: u64,
    sent: u64,
    lost: u64,
    passed: Duration,
    used: Used,
    counted: Counted,
    shares: Option<Shares>,
}

impl Figures {
    fn shown(&self) -> Shown {
        let Figures { size, arrived, sent, lost, passed, used, counted, shares } = self;
        let (seconds, messages) = (passed.as_secs_f64(), *arrived as f64);
        let (core_s, rate) = (used.ran as f64 / 1e9, per(messages, seconds));
        let bundle_in = per(counted.messages_in as f64, counted.datagrams_in as f64);
        let bundle_out = per(counted.messages_out as f64, counted.datagrams_out as f64);
        // The counters span a little more than the measured time, so they give ratios only.
        let datagrams = per(messages, bundle_out);
        let nanos = per(used.ran as f64, messages);
        let split = shares.map(|shares| shares.of(nanos));
        Shown {
            messages_per_s: rate,
            mbit_per_s: rate * *size as f64 * 8.0 / 1e6,
            datagrams_in_per_s: per(rate, bundle_in),
            datagrams_out_per_s: per(rate, bundle_out),
            datagrams_back_per_s: rate * per(counted.datagrams_back as f64, counted.messages_out as f64),
            messages_per_datagram_in: bundle_in,
            messages_per_datagram_out: bundle_out,
            utilisation: core_s / seconds,
            starved: used.waited as f64 / 1e9 / seconds,
            cpu_ns_per_message: nanos,
            cpu_ns_per_datagram: per(used.ran as f64, datagrams),
            messages_per_core_s: per(messages, core_s),
            datagrams_per_core_s: per(datagrams, core_s),
            saturated: (used.ran + used.waited) as f64 / 1e9 / seconds >= SATURATED,
            lost: *lost,
            sent: *sent,
            retransmissions: counted.retransmissions,
            drops: counted.drops,
            messages_to_beside: 0.0,
            datagrams_to_beside: 0.0,
            kernel_ns: split.map(|split| split[0]),
            cipher_ns: split.map(|split| split[1]),
            rest_ns: split.map(|split| split[2]),
        }
    }
}
