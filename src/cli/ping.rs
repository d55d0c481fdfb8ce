//! `sinew ping`: is a router there, and how far.

use super::failure::Failure;
use super::output;
use super::router::Router;
use super::stop::{LOOK, Stop};
use super::target::Node;
use crate::base::limits::{DEFAULT_TTL, MAX_PAYLOAD};
use crate::base::{Class, NodeId};
use crate::client::{Datagrams, Event};
use crate::config::units;
use crate::containers::window::{Seen, SequenceWindow};
use crate::telemetry::table::percent;
use serde::Serialize;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Pings whose answers are remembered to tell duplicates.
const WINDOW: usize = 1 << 16;
/// Most unanswered pings that are waited for at a time, to say a line of each.
const MAX_WAITING: usize = 4096;
/// Most replies listed in the JSON document; all of them are counted.
const MAX_LISTED: usize = 100_000;

/// Reach another router through the overlay and measure the round trip
///
/// Times are taken by the router on this machine, so they are the overlay's own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew ping b                        until Ctrl-C
  sinew ping b -c 5 --class reliable  every loss is recovered: late instead of lost
  sinew ping b -c 100 -i 10ms --json

Durations are as 10ms, 1s or 2min; a plain number is seconds. JSON, one document at the end:
{\"node\", \"name\", \"sent\", \"received\", \"duplicated\", \"loss_percent\", \"min_ms\", \"mean_ms\", \"max_ms\",
\"sd_ms\", \"replies\": [{\"sequence\", \"hops\", \"rtt_ms\"}, ...]}. Ctrl-C ends it with the summary.

Exit codes: 0 something was answered, 1 nothing was or no such router, 2 wrong command line, 3 no
router answers.")]
pub(super) struct Args {
    /// The router: its name or id
    node: Node,
    /// Stop after this many
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Time between two
    #[arg(short, long, default_value = "1s", value_name = "DURATION", value_parser = units::duration_or_seconds)]
    interval: Duration,
    /// How long to wait for an answer
    #[arg(short = 'w', long, default_value = "2s", value_name = "DURATION", value_parser = units::duration_or_seconds)]
    timeout: Duration,
    /// Recovery class: best-effort shows the path's losses, reliable what applications see
    #[arg(long, default_value_t = Class::BestEffort, value_name = "CLASS")]
    class: Class,
    /// Bytes of padding in each
    #[arg(long, default_value_t = 56, value_name = "BYTES")]
    size: usize,
    /// Hops it may cross
    #[arg(long, default_value_t = DEFAULT_TTL, value_name = "HOPS", value_parser = clap::value_parser!(u8).range(1..))]
    ttl: u8,
    /// Print JSON, one document at the end
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    node: NodeId,
    name: String,
    sent: u32,
    received: u32,
    duplicated: u32,
    loss_percent: f64,
    min_ms: Option<f64>,
    mean_ms: Option<f64>,
    max_ms: Option<f64>,
    sd_ms: Option<f64>,
    replies: Vec<Reply>,
}

#[derive(Clone, Copy, Serialize)]
struct Reply {
    sequence: u32,
    hops: u8,
    rtt_ms: f64,
}

/// Running figures (Welford), so that a ping may run for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Running {
    /// Values seen.
    pub(super) count: u32,
    /// Their mean.
    pub(super) mean: f64,
    /// The smallest.
    pub(super) min: f64,
    /// The largest.
    pub(super) max: f64,
    squares: f64,
}

impl Running {
    /// Takes a value in.
    pub(super) fn add(&mut self, value: f64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = if self.count == 0 { value } else { self.max.max(value) };
        self.count += 1;
        let off = value - self.mean;
        self.mean += off / f64::from(self.count);
        self.squares += off * (value - self.mean);
    }

    /// Standard deviation.
    pub(super) fn deviation(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares / f64::from(self.count)).sqrt() }
    }
}

struct Pinger<'a> {
    args: &'a Args,
    id: u32,
    name: String,
    sent: u32,
    answered: SequenceWindow<WINDOW>,
    /// Pings that may still be answered, by when that is too late; at most [`MAX_WAITING`], the oldest go first.
    waiting: VecDeque<(u32, Instant)>,
    duplicated: u32,
    figures: Running,
    replies: Vec<Reply>,
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    if args.size > MAX_PAYLOAD / 64 {
        return Err(Failure::Usage(format!("--size {} is too large: at most {}", args.size, MAX_PAYLOAD / 64)));
    }
    if args.interval < Duration::from_millis(1) {
        return Err(Failure::Usage("--interval is at least 1ms; `sinew perf` sends faster".to_owned()));
    }
    let router = Router::connect(socket)?;
    let node = router.resolve(&args.node)?;
    router.check_route(node)?;
    let session = router.overlay.datagrams(0).map_err(|error| Failure::failed("cannot open a session", error))?;
    let mut pinger = Pinger {
        args: &args,
        id: std::process::id(),
        name: router.name(node),
        sent: 0,
        answered: SequenceWindow::new(),
        waiting: VecDeque::new(),
        duplicated: 0,
        figures: Running::default(),
        replies: Vec::new(),
    };
    if !args.json {
        output::line(format_args!("PING {} ({node}): {} bytes, {}", pinger.name, args.size, args.class))?;
    }
    pinger.ping(node, &session, &router)?;
    pinger.report(node)
}

impl Pinger<'_> {
    fn ping(&mut self, node: NodeId, session: &Datagrams, router: &Router) -> Result<(), Failure> {
        let stop = Stop::on_signals();
        let padding = vec![0; self.args.size];
        let mut next = Instant::now();
        while !stop.is_set() && self.args.count.is_none_or(|count| self.sent < count) {
            let echo = session.echo(node, self.args.ttl, self.args.class, self.id, self.sent, &padding);
            echo.map_err(|error| Failure::failed("cannot send", error))?;
            self.waiting.push_back((self.sent, Instant::now() + self.args.timeout));
            if self.waiting.len() > MAX_WAITING {
                self.waiting.pop_front();
            }
            self.sent += 1;
            next += self.args.interval;
            self.listen(session, router, next, &stop, false)?;
        }
        self.listen(session, router, Instant::now() + self.args.timeout, &stop, true)?;
        if stop.is_set() { Ok(()) } else { self.say_unanswered(None) }
    }

    /// A line for every ping whose answer is too late at `now`; for all that wait, if there is no later.
    fn say_unanswered(&mut self, now: Option<Instant>) -> Result<(), Failure> {
        while let Some(&(sequence, until)) = self.waiting.front()
            && now.is_none_or(|now| until <= now)
        {
            self.waiting.pop_front();
            self.say(format_args!("from {}: seq={sequence} no answer", self.name))?;
        }
        Ok(())
    }

    /// Takes answers until `end`; with `last`, only until all are answered.
    fn listen(
        &mut self,
        session: &Datagrams,
        router: &Router,
        end: Instant,
        stop: &Stop,
        last: bool,
    ) -> Result<(), Failure> {
        let mut buffer = vec![0; crate::wire::client::MAX_RECORD];
        let all = self.args.count.unwrap_or(u32::MAX);
        loop {
            self.say_unanswered(Some(Instant::now()))?;
            let done = self.figures.count == self.sent && (last || self.sent == all);
            let left = end.saturating_duration_since(Instant::now());
            if done || left.is_zero() || stop.is_set() {
                return Ok(());
            }
            match receive(session, &mut buffer, left.min(LOOK))? {
                Some(Event::Echo { expired, node, id, sequence, hops, sent_ns, now_ns }) if id == self.id => {
                    let milliseconds = now_ns.saturating_sub(sent_ns) as f64 / 1e6;
                    if expired {
                        let by = router.name(node);
                        self.say(format_args!("from {by}: seq={sequence} its {} hops ran out here", self.args.ttl))?;
                    } else {
                        self.take(Reply { sequence, hops, rtt_ms: milliseconds })?;
                    }
                }
                Some(Event::Closed) => return Err(closed()),
                _ => {}
            }
        }
    }

    fn take(&mut self, reply: Reply) -> Result<(), Failure> {
        let Reply { sequence, hops, rtt_ms } = reply;
        if sequence >= self.sent {
            return Ok(());
        }
        if self.answered.insert(u64::from(sequence)) != Seen::New {
            self.duplicated += 1;
            return self.say(format_args!("from {}: seq={sequence} again", self.name));
        }
        self.waiting.retain(|&(waiting, _)| waiting != sequence);
        self.figures.add(rtt_ms);
        if self.args.json && self.replies.len() < MAX_LISTED {
            self.replies.push(reply);
        }
        self.say(format_args!("from {}: seq={sequence} hops={hops} time={rtt_ms:.3} ms", self.name))
    }

    fn say(&self, text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
        if self.args.json { Ok(()) } else { output::line(text) }
    }

    fn report(self, node: NodeId) -> Result<(), Failure> {
        let Running { count: received, mean, min, max, .. } = self.figures;
        let lost = self.sent - received;
        let deviation = self.figures.deviation();
        if self.args.json {
            let some = |value: f64| (received > 0).then_some(value);
            output::json(&Report {
                node,
                name: self.name,
                sent: self.sent,
                received,
                duplicated: self.duplicated,
                loss_percent: 100.0 * f64::from(lost) / f64::from(self.sent.max(1)),
                min_ms: some(min),
                mean_ms: some(mean),
                max_ms: some(max),
                sd_ms: some(deviation),
                replies: self.replies,
            })?;
        } else {
            let share = percent(u64::from(lost), u64::from(self.sent));
            output::line(format_args!("--- {}: {} sent, {received} answered, {share} % lost", self.name, self.sent))?;
            if received > 0 {
                output::line(format_args!(
                    "round trip min/avg/max/sd = {min:.3}/{mean:.3}/{max:.3}/{deviation:.3} ms"
                ))?;
            } else {
                output::note(format_args!(
                    "nothing came back; `sinew show routes` and `sinew trace {}` say how far it gets",
                    self.args.node.0
                ));
            }
        }
        if received > 0 || self.sent == 0 { Ok(()) } else { Err(Failure::Degraded) }
    }
}

/// Waits for one event, at most this long.
pub(super) fn receive<'b>(
    session: &Datagrams,
    buffer: &'b mut [u8],
    patience: Duration,
) -> Result<Option<Event<'b>>, Failure> {
    set_patience(session, patience)?;
    next_event(session, buffer)
}

/// How long [`next_event`] waits from now on.
pub(super) fn set_patience(session: &Datagrams, patience: Duration) -> Result<(), Failure> {
    let patience = patience.max(Duration::from_micros(100));
    session.set_read_timeout(Some(patience)).map_err(|error| Failure::failed("cannot set a timeout", error))
}

/// Waits for one event, as long as [`set_patience`] said.
pub(super) fn next_event<'b>(session: &Datagrams, buffer: &'b mut [u8]) -> Result<Option<Event<'b>>, Failure> {
    match session.recv(buffer) {
        Ok(event) => Ok(Some(event)),
        Err(error) if is_pause(&error) => Ok(None),
        Err(error) => Err(Failure::failed("cannot receive", error)),
    }
}

/// Whether nothing came in time, as opposed to something being wrong.
pub(super) fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// The router ended the session.
pub(super) fn closed() -> Failure {
    Failure::Unreachable("the router closed the session: it has ended; see its log".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_figures_are_those_of_the_whole() {
        let mut figures = Running::default();
        [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter().for_each(|value| figures.add(value));
        assert_eq!((figures.count, figures.min, figures.max), (8, 2.0, 9.0));
        assert!((figures.mean - 5.0).abs() < 1e-9 && (figures.deviation() - 2.0).abs() < 1e-9, "{figures:?}");
    }
}
