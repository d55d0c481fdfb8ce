//! False alarms: members that all live, on a machine where others keep the processors busy, and an address that must stay
//! where it is.

use super::group::{ADDRESS, HOSTS};
use super::members::{Group, Members, name};
use crate::bench::machine::{Noise, NoiseReport, two_cores};
use serde::Serialize;
use serde_json::{Value, json};
use sinew::client::admin::{Request, Response};
use std::fmt::Write as _;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Counts moves, suspicions and lapses of members that all live, beside programs that keep the processors busy
#[derive(Debug, clap::Args)]
#[command(max_term_width = 98, after_help = HELP)]
pub(super) struct Args {
    /// For how long, in minutes
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Processes that do nothing but run
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(0..=1000))]
    hogs: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Three members share an address, with the times of the profile `safe`, each in a session of its own as
a service manager starts it. A client asks a thousand times a second. Nothing happens to anybody, so
every move is a false one; then the exit code is 1. Every ten seconds a line says what was counted.

Figures:
  moves       times that a member began to answer for the address
  views       views that began, at the member that saw most
  downs       links that went down: each end counts
  lapses      leases that ran out, because the owner did not run for as long
  lost        requests of the client that nobody answered, and the longest time without an answer
  round trip  of hellos and their echoes between members, with all that both ends waited for their
              turn: what a member is suspected for, if it is ever longer than 60 ms

Examples:
  perf/failover alarms
  perf/failover alarms --minutes 2 --hogs 8 --json";

/// Between two lines that say how it goes.
const LINE: Duration = Duration::from_secs(10);

/// What members have counted, all together.
#[derive(Clone, Copy, Default, Serialize)]
struct Tally {
    moves: u64,
    views: u64,
    downs: u64,
    lapses: u64,
}

impl Tally {
    /// What was counted since `before`.
    const fn since(self, before: Tally) -> Tally {
        Tally {
            moves: self.moves - before.moves,
            views: self.views - before.views,
            downs: self.downs - before.downs,
            lapses: self.lapses - before.lapses,
        }
    }
}

/// Round trips of hellos between two members, ms.
#[derive(Serialize)]
struct RoundTrips {
    from: String,
    to: String,
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

/// What came of it.
#[derive(Serialize)]
struct Report {
    minutes: f64,
    hogs: u16,
    #[serde(flatten)]
    tally: Tally,
    sent: u64,
    lost: u64,
    longest_gap_ms: f64,
    round_trips: Vec<RoundTrips>,
    scheduling: Vec<String>,
    noise: NoiseReport,
}

/// Processes that do nothing but run, while this lives.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(count: u16) -> io::Result<Hogs> {
        let mut hogs = Hogs(Vec::new());
        for _ in 0..count {
            let mut command = Command::new("sh");
            command.args(["-c", "while true; do :; done"]).stdin(Stdio::null());
            hogs.0.push(command.spawn()?);
        }
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            // It may have been killed by somebody else.
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

/// Watches; answers what is to be printed, and whether the address stayed where it was.
pub(super) fn run(args: &Args) -> io::Result<(String, bool)> {
    let time = Duration::try_from_secs_f64(args.minutes * 60.0).map_err(io::Error::other)?;
    let sets = vec![vec![ADDRESS]];
    let members =
        Members::started(Group { members: HOSTS, sets, times: None, profile: "safe", witnessed: false, second: false });
    let hogs = Hogs::start(args.hogs)?;
    let mut noise = Noise::default();
    noise.observe(two_cores());
    members.settled();
    let before = tally(&figures(&members)?);
    let (begin, mut lines) = (Instant::now(), 0);
    let traffic = members.lan.probes(ADDRESS);
    while begin.elapsed() < time {
        std::thread::sleep(LINE.min(time.saturating_sub(begin.elapsed())));
        lines += 1;
        let now = tally(&figures(&members)?).since(before);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        eprintln!(
            "perf: {:>4.0} s of {:.0}: {} moves, {} views, {} downs, {} lapses; load {}",
            begin.elapsed().as_secs_f64(),
            time.as_secs_f64(),
            now.moves,
            now.views,
            now.downs,
            now.lapses,
            load.split(' ').next().unwrap_or("?")
        );
        if lines % 30 == 0 {
            noise.observe(two_cores());
        }
    }
    let trail = traffic.finish();
    let figures = figures(&members)?;
    drop(hogs);
    let report = Report {
        minutes: begin.elapsed().as_secs_f64() / 60.0,
        hogs: args.hogs,
        tally: tally(&figures).since(before),
        sent: trail.sent,
        lost: trail.lost().iter().map(|range| range.end() + 1 - range.start()).sum(),
        longest_gap_ms: trail.longest_gap(begin).as_secs_f64() * 1e3,
        round_trips: round_trips(&figures),
        scheduling: figures.iter().map(|figures| text(&figures["driver"]["scheduling"])).collect(),
        noise: noise.report(),
    };
    let stayed = report.tally.moves == 0;
    Ok((if args.json { format!("{:#}\n", json!(report)) } else { shown(&report) }, stayed))
}

/// What each member counts.
fn figures(members: &Members) -> io::Result<Vec<Value>> {
    let of = |member: usize| match members.overlay(member)?.request(&Request::Stats)? {
        Response::Stats { workers } => {
            workers.into_iter().next().ok_or_else(|| io::Error::other("a member has no workers"))
        }
        other => Err(io::Error::other(format!("figures were asked for: {other:?}"))),
    };
    (0..HOSTS).map(of).collect()
}

fn tally(figures: &[Value]) -> Tally {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let links = figures.iter().flat_map(|figures| figures["links"].as_array().into_iter().flatten());
    Tally {
        moves: figures.iter().map(|figures| number(&figures["vip"]["acquired"])).sum(),
        views: figures.iter().map(|figures| number(&figures["membership"]["views"])).max().unwrap_or(0),
        downs: links.map(|link| number(&link["stats"]["downs"])).sum(),
        lapses: figures.iter().map(|figures| number(&figures["vip"]["lapses"])).sum(),
    }
}

fn round_trips(figures: &[Value]) -> Vec<RoundTrips> {
    let links = figures.iter().enumerate().flat_map(|(member, figures)| {
        figures["links"].as_array().into_iter().flatten().map(move |link| (member, link))
    });
    links
        .map(|(member, link)| {
            let trips = &link["stats"]["round_trip"];
            let ms = |key: &str| trips[key].as_f64().unwrap_or(0.0) / 1e3;
            RoundTrips {
                from: name(member),
                to: text(&link["peer"]),
                count: trips["count"].as_u64().unwrap_or(0),
                p50_ms: ms("p50_us"),
                p99_ms: ms("p99_us"),
                p999_ms: ms("p999_us"),
                max_ms: ms("max_us"),
            }
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn shown(report: &Report) -> String {
    let Report { tally: Tally { moves, views, downs, lapses }, noise, .. } = report;
    let mut text = format!(
        "{:.1} minutes, {} hogs: {moves} moves, {views} views, {downs} links down, {lapses} lapses\n\
         client: {} of {} requests lost, longest without an answer {:.1} ms\n\
         scheduled: {}\n\nround trips of hellos, ms\n{:4} {:18} {:>8} {:>8} {:>8} {:>8} {:>8}\n",
        report.minutes,
        report.hogs,
        report.lost,
        report.sent,
        report.longest_gap_ms,
        report.scheduling.join("; "),
        "from",
        "to",
        "count",
        "p50",
        "p99",
        "p99.9",
        "most",
    );
    for RoundTrips { from, to, count, p50_ms, p99_ms, p999_ms, max_ms } in &report.round_trips {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{from:4} {to:18} {count:>8} {p50_ms:>8.2} {p99_ms:>8.2} {p999_ms:>8.2} {max_ms:>8.2}");
    }
    let _ = writeln!(
        text,
        "\nnoise: an ordinary thread's sleep of 1 ms is late by {:.0} µs (p50), {:.0} µs (p99), {:.0} µs (most); load {:.2}",
        noise.timer_p50_us, noise.timer_p99_us, noise.timer_max_us, noise.load_average
    );
    text
}
