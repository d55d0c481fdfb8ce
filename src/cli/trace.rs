//! `sinew trace`: the way to a router, hop by hop, as mtr shows it.

use super::failure::Failure;
use super::output;
use super::ping::{Running, closed, receive};
use super::router::Router;
use super::stop::{LOOK, Stop};
use super::target::Node;
use crate::base::limits::DEFAULT_TTL;
use crate::base::{Class, NodeId};
use crate::client::{Datagrams, Event};
use crate::config::units;
use crate::telemetry::Table;
use crate::telemetry::table::percent;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Show the routers on the way to another one, with loss and round trip of each
///
/// Sends echoes whose hops run out at the first router, the second, and so on, several rounds of them. A loss at one
/// line that the lines below do not show is that router being busy, not the path losing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew trace f
  sinew trace f --rounds 100 -i 100ms
  sinew trace f --json | jq '.hops[] | {name, loss_percent, mean_ms}'

Durations are as 10ms or 1s; a plain number is seconds. Ctrl-C ends it early with what is known by
then. JSON, one document at the end: {\"node\", \"name\", \"reached\", \"hops\": [{\"hop\", \"node\", \"name\",
\"others\", \"sent\", \"received\", \"loss_percent\", \"last_ms\", \"mean_ms\", \"best_ms\", \"worst_ms\",
\"sd_ms\"}, ...]}.

Exit codes: 0 the router was reached, 1 it was not, 2 wrong command line, 3 no router answers.")]
pub(super) struct Args {
    /// The router: its name or id
    node: Node,
    /// Rounds
    #[arg(short = 'c', long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Time between two rounds
    #[arg(short, long, default_value = "200ms", value_name = "DURATION", value_parser = units::duration_or_seconds)]
    interval: Duration,
    /// How long to wait for the last answers
    #[arg(short = 'w', long, default_value = "1s", value_name = "DURATION", value_parser = units::duration_or_seconds)]
    timeout: Duration,
    /// Most hops to look at
    #[arg(long, default_value_t = DEFAULT_TTL, value_name = "HOPS", value_parser = clap::value_parser!(u8).range(1..))]
    max_hops: u8,
    /// Recovery class
    #[arg(long, default_value_t = Class::BestEffort, value_name = "CLASS")]
    class: Class,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is known of one hop.
#[derive(Clone, Debug, Default)]
struct Hop {
    /// Who answered, each with how often; a route may change while it is traced.
    nodes: Vec<(NodeId, u32)>,
    sent: u32,
    last: f64,
    figures: Running,
    /// Rounds already answered, so that a duplicate does not count.
    answered: Vec<u16>,
}

#[derive(Serialize)]
struct Report {
    node: NodeId,
    name: String,
    reached: bool,
    hops: Vec<HopReport>,
}

#[derive(Serialize)]
struct HopReport {
    hop: usize,
    /// Who answered most; null if nobody did.
    node: Option<NodeId>,
    name: Option<String>,
    /// Other routers that answered for this hop.
    others: Vec<String>,
    sent: u32,
    received: u32,
    loss_percent: f64,
    last_ms: Option<f64>,
    mean_ms: Option<f64>,
    best_ms: Option<f64>,
    worst_ms: Option<f64>,
    sd_ms: Option<f64>,
}

struct Tracer {
    id: u32,
    target: NodeId,
    hops: Vec<Hop>,
    /// The hop at which the target answers, once known.
    end: Option<usize>,
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    let router = Router::connect(socket)?;
    let target = router.resolve(&args.node)?;
    router.check_route(target)?;
    let session = router.overlay.datagrams(0).map_err(|error| Failure::failed("cannot open a session", error))?;
    let hops = vec![Hop::default(); usize::from(args.max_hops)];
    let mut tracer = Tracer { id: std::process::id(), target, hops, end: None };
    tracer.trace(&session, &args)?;
    let reached = tracer.end.is_some();
    let report = tracer.report(&router);
    if args.json {
        output::json(&report)?;
    } else {
        output::line(format_args!("TRACE {} ({target}), {} rounds, {}", report.name, args.rounds, args.class))?;
        output::print(table(&report))?;
        if !reached {
            output::note(format_args!(
                "{} did not answer; `sinew show routes` says whether a route leads there",
                report.name
            ));
        }
    }
    if reached { Ok(()) } else { Err(Failure::Degraded) }
}

impl Tracer {
    fn trace(&mut self, session: &Datagrams, args: &Args) -> Result<(), Failure> {
        let stop = Stop::on_signals();
        let mut next = Instant::now();
        for round in 0..args.rounds {
            // Hops beyond the target only repeat it.
            let hops = self.end.unwrap_or(self.hops.len());
            for hop in 0..hops {
                let ttl = u8::try_from(hop + 1).expect("there are at most 255 hops");
                let sequence = u32::from(ttl) << 24 | u32::from(round);
                let echo = session.echo(self.target, ttl, args.class, self.id, sequence, &[]);
                echo.map_err(|error| Failure::failed("cannot send", error))?;
                self.hops[hop].sent += 1;
            }
            next += args.interval;
            self.listen(session, next, &stop)?;
            stop.sleep_until(next);
            if stop.is_set() {
                break;
            }
        }
        self.listen(session, Instant::now() + args.timeout, &stop)
    }

    fn listen(&mut self, session: &Datagrams, end: Instant, stop: &Stop) -> Result<(), Failure> {
        let mut buffer = vec![0; crate::wire::client::MAX_RECORD];
        while !stop.is_set() && !self.complete() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match receive(session, &mut buffer, left.min(LOOK))? {
                Some(Event::Echo { expired, node, id, sequence, sent_ns, now_ns, .. }) if id == self.id => {
                    self.take(expired, node, sequence, now_ns.saturating_sub(sent_ns) as f64 / 1e6);
                }
                Some(Event::Closed) => return Err(closed()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether every echo up to the target is answered.
    fn complete(&self) -> bool {
        self.end.is_some_and(|end| self.hops[..end].iter().all(|hop| hop.figures.count == hop.sent))
    }

    fn take(&mut self, expired: bool, node: NodeId, sequence: u32, milliseconds: f64) {
        let (ttl, round) = ((sequence >> 24) as usize, (sequence & 0xffff) as u16);
        let Some(hop) = ttl.checked_sub(1).and_then(|index| self.hops.get_mut(index)) else { return };
        if hop.answered.contains(&round) {
            return;
        }
        hop.answered.push(round);
        hop.last = milliseconds;
        hop.figures.add(milliseconds);
        match hop.nodes.iter_mut().find(|(known, _)| *known == node) {
            Some((_, times)) => *times += 1,
            None => hop.nodes.push((node, 1)),
        }
        if !expired && node == self.target {
            self.end = Some(self.end.map_or(ttl, |end| end.min(ttl)));
        }
    }

    fn report(mut self, router: &Router) -> Report {
        let answering = self.hops.iter().rposition(|hop| hop.figures.count > 0).map_or(0, |last| last + 1);
        self.hops.truncate(self.end.unwrap_or(answering));
        let hops = self.hops.into_iter().enumerate();
        let hops = hops.map(|(index, hop)| hop_report(index + 1, hop, router)).collect();
        Report { node: self.target, name: router.name(self.target), reached: self.end.is_some(), hops }
    }
}

fn hop_report(number: usize, mut hop: Hop, router: &Router) -> HopReport {
    hop.nodes.sort_by_key(|&(_, times)| std::cmp::Reverse(times));
    let mut nodes = hop.nodes.into_iter().map(|(node, _)| node);
    let node = nodes.next();
    let figures = hop.figures;
    let some = |value: f64| (figures.count > 0).then_some(value);
    HopReport {
        hop: number,
        node,
        name: node.map(|node| router.name(node)),
        others: nodes.map(|node| router.name(node)).collect(),
        sent: hop.sent,
        received: figures.count,
        loss_percent: 100.0 * f64::from(hop.sent - figures.count) / f64::from(hop.sent.max(1)),
        last_ms: some(hop.last),
        mean_ms: some(figures.mean),
        best_ms: some(figures.min),
        worst_ms: some(figures.max),
        sd_ms: some(figures.deviation()),
    }
}

fn table(report: &Report) -> Table {
    let mut table =
        Table::new([">hop", "router", ">loss %", ">sent", ">last ms", ">avg ms", ">best ms", ">worst ms", ">sd ms"]);
    for hop in &report.hops {
        let ms = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let mut name = hop.name.clone().unwrap_or_else(|| "?".to_owned());
        if !hop.others.is_empty() {
            name += &format!(" (also {})", hop.others.join(", "));
        }
        table.row([
            hop.hop.to_string(),
            name,
            percent(u64::from(hop.sent - hop.received), u64::from(hop.sent)),
            hop.sent.to_string(),
            ms(hop.last_ms),
            ms(hop.mean_ms),
            ms(hop.best_ms),
            ms(hop.worst_ms),
            ms(hop.sd_ms),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer() -> Tracer {
        let hops = vec![Hop { sent: 2, ..Hop::default() }; 4];
        Tracer { id: 1, target: NodeId(9), hops, end: None }
    }

    #[test]
    fn answers_find_their_hop_and_count_once() {
        let mut tracer = tracer();
        tracer.take(true, NodeId(7), 1 << 24, 10.0);
        tracer.take(true, NodeId(7), 1 << 24, 99.0);
        tracer.take(true, NodeId(8), 1 << 24 | 1, 20.0);
        assert_eq!(tracer.hops[0].nodes, [(NodeId(7), 1), (NodeId(8), 1)]);
        assert_eq!((tracer.hops[0].figures.count, tracer.hops[0].figures.max), (2, 20.0));
        tracer.take(true, NodeId(7), 0, 1.0);
        tracer.take(true, NodeId(7), 200 << 24, 1.0);
        assert!(tracer.end.is_none() && !tracer.complete());
    }

    #[test]
    fn the_path_ends_where_the_target_answers_first() {
        let mut tracer = tracer();
        for round in 0..2 {
            tracer.take(false, NodeId(9), 3 << 24 | round, 30.0);
            tracer.take(false, NodeId(9), 2 << 24 | round, 20.0);
        }
        assert_eq!(tracer.end, Some(2));
        assert!(!tracer.complete(), "the first hop has not answered");
        tracer.take(true, NodeId(7), 1 << 24, 10.0);
        tracer.take(true, NodeId(7), 1 << 24 | 1, 10.0);
        assert!(tracer.complete());
    }
}
