//! `sinew show`: what the router on this machine knows.

use super::failure::Failure;
use super::group;
use super::output;
use super::router::Router;
use super::stop::Stop;
use super::vip;
use crate::config::units;
use crate::dataplane::messages::PathReport;
use crate::runtime::histogram_files;
use crate::telemetry::table::{ago, percent, thousands};
use crate::telemetry::{Table, prometheus};
use crate::wire::admin::{LinkEntry, NodeEntry, Request, Response, RouteEntry};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) mod latency;
mod stats;

/// Show what the router on this machine knows
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew show links
  sinew show links --watch 1s
  sinew show nodes --check || echo somebody is away
  sinew show latency
  sinew show latency -i 10 --json >> latency.jsonl
  sinew show latency --check --within 5ms || echo something is slow
  sinew show stats -i 1
  sinew show stats --json | jq '.workers[0].drops'
  sinew show stats --hgrm histograms/
  sinew show stats --prometheus > /var/lib/prometheus/node-exporter/sinew.prom
JSON keys (_ms are milliseconds, _us microseconds, _s seconds, _ppm millionths):
  nodes     {\"nodes\": [{\"name\", \"node\", \"reachable\", \"links\", \"this\"}, ...]}
  links     {\"links\": [{\"peer\", \"node\", \"remote\", \"up\", \"down_reason\", \"obstacle\", \"since_s\",
            \"metrics\": {\"rtt_ms\", \"jitter_ms\", \"loss_ppm\"}, \"one_way_us\", \"one_way_error_us\",
            \"queue\", \"queue_delay_p99_us\", \"recovery_p99_us\", \"paths\": [{\"remote\",
            \"local\", \"active\", \"up\", \"listed\", \"since_ms\", \"rtt_us\", \"loss_ppm\"}, ...]}, ...]};
            metrics of a link that is down are null, the recovery is that of messages lost on the
            link, until they were acknowledged; the obstacle is what seems to keep it down:
            no-answer, not-sent, unreachable, refused, one-way, wants-other-key, has-other-key,
            preshared-key
  routes    {\"generation\", \"routes\": [{\"name\", \"node\", \"via\", \"path\": [name, ...], \"hops\",
            \"cost\"}, ...]}
  sessions  {\"sessions\": [...]}, each with its ends, class and counters
  latency   {\"latency\": [{\"link\": member or null (the worker's own), \"stage\", \"class\", \"count\",
            \"mean_us\", \"sd_us\", \"p50_us\", \"p90_us\", \"p99_us\", \"p999_us\", \"max_us\",
            \"error_us\" (of one-way: by how much it may be wrong)}, ...]}
  members   {\"view\", \"members\": [...]}, as `sinew vip status --json`
  views     {\"entries\": [{\"ago_s\", \"text\", \"event\"}, ...]}, the oldest first
  groups    {\"routers\": {\"id\", \"members\": [name, ...], \"gathering\", \"since_s\"},
            \"groups\": [{\"group\", \"view\", \"members\": [name, ...]}, ...]}
  stats     {\"workers\": [...]}, every counter by its place in the router: `sinew show stats --all`
            prints the same names

Exit codes: 0 shown, 1 it could not be, or with --check something shown is not well; 2 wrong
command line; 3 no router answers.")]
pub(super) struct Args {
    /// What to show
    #[arg(value_enum)]
    what: What,
    /// Print JSON, one document a line
    #[arg(long)]
    json: bool,
    /// Show it again and again, so far apart (`2`, `500ms`); stats then show rates, latency only what is new
    #[arg(short = 'i', long, visible_alias = "interval", value_name = "DURATION", value_parser = pause)]
    watch: Option<Duration>,
    /// Exit with 1 if something shown is not well: a router or a member is away, a link is down, or views are being agreed on
    #[arg(long)]
    check: bool,
    /// With `latency --check`: nor may the 99th percentile of any stay in this router be longer than this
    #[arg(long, value_name = "DURATION", value_parser = units::duration_or_seconds, requires = "check")]
    within: Option<Duration>,
    /// Show figures that are zero, too
    #[arg(long)]
    all: bool,
    /// Write every histogram of `stats` to a .hgrm file (milliseconds) of this directory, as HdrHistogram's tools read it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["watch", "json"])]
    hgrm: Option<PathBuf>,
    /// Print `stats` as Prometheus reads it (for node_exporter's textfile collector, say)
    #[arg(long, conflicts_with_all = ["watch", "json", "hgrm", "all"])]
    prometheus: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The routers of the network, and whether a route leads there
    Nodes,
    /// This router's links: state, round trip, loss
    Links,
    /// The way to every router
    Routes,
    /// Applications' sessions at this router
    Sessions,
    /// Where time goes: percentiles of every stage of a message's way, by link and class
    Latency,
    /// Everything counted: traffic, drops by reason, links, worker loops
    Stats,
    /// Who shares service addresses with this router, and whether they are there
    Members,
    /// What became of the views and the sets of service addresses, and why
    Views,
    /// Process groups, and who is in them
    Groups,
}

pub(super) fn pause(text: &str) -> Result<Duration, String> {
    let pause = units::duration_or_seconds(text)?;
    if pause < Duration::from_millis(100) { Err("give at least 100ms".to_owned()) } else { Ok(pause) }
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    if (args.hgrm.is_some() || args.prometheus) && args.what != What::Stats {
        return Err(Failure::Usage("--hgrm and --prometheus go with `sinew show stats`".to_owned()));
    }
    if args.within.is_some() && args.what != What::Latency {
        return Err(Failure::Usage("--within goes with `sinew show latency --check`".to_owned()));
    }
    let router = Router::connect(socket)?;
    let stop = Stop::on_signals();
    if let Some(directory) = &args.hgrm {
        return write_histograms(&router, directory);
    }
    if args.prometheus {
        return print_metrics(&router);
    }
    let mut last = Shown::default();
    let again = Again { watch: args.watch, check: args.check, json: args.json };
    again.show(&stop, || show_once(&router, &args, &mut last))
}

/// Whether something is shown once or again and again, and what becomes of what is not well.
pub(super) struct Again {
    pub(super) watch: Option<Duration>,
    pub(super) check: bool,
    pub(super) json: bool,
}

impl Again {
    /// Shows it by `once`, which says whether all is well.
    pub(super) fn show(self, stop: &Stop, mut once: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
        let mut next = Instant::now();
        loop {
            let well = once()?;
            let Some(pause) = self.watch else {
                return if well || !self.check { Ok(()) } else { Err(Failure::Degraded) };
            };
            next += pause;
            stop.sleep_until(next);
            if stop.is_set() {
                return Ok(());
            }
            if !self.json {
                output::line("")?;
            }
        }
    }
}

fn print_metrics(router: &Router) -> Result<(), Failure> {
    let Response::Stats { workers } = router.request(&Request::Histograms)? else { return Err(unexpected()) };
    let names = names(router)?;
    let name = |id: &str| names.get(id).cloned().unwrap_or_else(|| id.to_owned());
    let text = prometheus::render(&workers, name);
    output::print(text.map_err(|error| Failure::failed("the router's histograms cannot be read", error))?)
}

fn write_histograms(router: &Router, directory: &Path) -> Result<(), Failure> {
    let Response::Stats { workers } = router.request(&Request::Histograms)? else { return Err(unexpected()) };
    let written = histogram_files::write(&workers, directory);
    let written = written.map_err(|error| Failure::failed("cannot write histograms", error))?;
    output::line(format_args!("{written} histograms in {}", directory.display()))
}

/// What was shown last, for rates and differences.
#[derive(Default)]
struct Shown {
    /// The workers' figures, and when.
    stats: Option<(Instant, Vec<Value>)>,
    latencies: Option<latency::Latencies>,
}

/// Shows it and says whether all is well. `last` is what was shown before.
fn show_once(router: &Router, args: &Args, last: &mut Shown) -> Result<bool, Failure> {
    match args.what {
        What::Latency => return latency::show_once(router, args, &mut last.latencies),
        What::Members => return vip::show_members(router, args.json),
        What::Views => return vip::show_views(router, args.json).map(|()| true),
        What::Groups => return group::show_groups(router, args.json),
        _ => {}
    }
    let response = router.request(&match args.what {
        What::Nodes => Request::Nodes,
        What::Links => Request::Links,
        What::Routes => Request::Routes,
        What::Sessions => Request::Sessions,
        What::Latency | What::Stats | What::Members | What::Views | What::Groups => Request::Stats,
    })?;
    let well = match &response {
        Response::Nodes { nodes } => nodes.iter().all(|node| node.reachable || node.this),
        Response::Links { links } => links.iter().all(|link| link.up),
        _ => true,
    };
    let latencies = if let Response::Links { .. } = response { Latencies::ask(router) } else { Latencies::default() };
    if args.json {
        output::json(&as_json(args.what, &response, &latencies)?)?;
        return Ok(well);
    }
    match (&response, args.what) {
        (Response::Nodes { nodes }, _) => output::print(nodes_table(nodes))?,
        (Response::Links { links }, _) => {
            output::print(links_table(links, &latencies))?;
            links.iter().filter_map(why_down).for_each(output::note);
        }
        (Response::Routes { generation, routes }, _) => {
            output::print(routes_table(routes))?;
            output::line(format_args!("table {generation}"))?;
        }
        (Response::Stats { workers }, What::Sessions) => output::print(sessions_table(workers))?,
        (Response::Stats { workers }, _) => {
            let now = Instant::now();
            let before = last.stats.as_ref().map(|(at, workers)| (workers.as_slice(), (now - *at).as_secs_f64()));
            let names = names(router)?;
            output::print(stats::Sample { workers, before, names: &names, all: args.all }.text())?;
            last.stats = Some((now, workers.clone()));
        }
        _ => return Err(unexpected()),
    }
    Ok(well)
}

fn unexpected() -> Failure {
    Failure::Failed("the router gave another answer than was asked for: are both of the same version?".to_owned())
}

/// The answer as documented for `--json`: the response without its tag; sessions of all workers as one list.
fn as_json(what: What, response: &Response, latencies: &Latencies) -> Result<Value, Failure> {
    let value = serde_json::to_value(response).map_err(|error| Failure::failed("cannot write JSON", error))?;
    let mut value = output::friendly(value);
    if let (What::Sessions, Response::Stats { workers }) = (what, response) {
        value = json!({ "sessions": sessions(workers).collect::<Vec<_>>() });
    }
    for link in value.get_mut("links").and_then(Value::as_array_mut).into_iter().flatten() {
        let latency = latencies.of(&plain(&link["node"]));
        if link["up"] == false
            && let Some(measured) = link.get_mut("metrics").and_then(Value::as_object_mut)
        {
            measured.values_mut().for_each(|figure| *figure = Value::Null);
        }
        if let Some(entries) = link.as_object_mut() {
            entries.insert("one_way_us".to_owned(), latency.one_way_us.into());
            entries.insert("one_way_error_us".to_owned(), latency.error_us.into());
            entries.insert("queue".to_owned(), latency.queue.into());
            entries.insert("queue_delay_p99_us".to_owned(), latency.queue_delay_p99_us.into());
            entries.insert("recovery_p99_us".to_owned(), latency.recovery_p99_us.into());
            entries.insert("paths".to_owned(), output::friendly(json!(latency.paths)));
        }
    }
    if let Some(entries) = value.as_object_mut() {
        entries.remove("response");
    }
    Ok(value)
}

fn sessions(workers: &[Value]) -> impl Iterator<Item = Value> {
    let listed = workers.iter().enumerate().flat_map(|(worker, stats)| {
        let sessions = stats["sessions"].as_array().into_iter().flatten();
        sessions.map(move |session| (worker, session.clone()))
    });
    listed.map(|(worker, mut session)| {
        if let Some(entries) = session.as_object_mut() {
            entries.insert("worker".to_owned(), worker.into());
        }
        session
    })
}

fn nodes_table(nodes: &[NodeEntry]) -> Table {
    let mut table = Table::new(["router", "id", "state", ">links"]);
    for node in nodes {
        let state = match (node.this, node.reachable) {
            (true, _) => "this router",
            (false, true) => "reachable",
            (false, false) => "unreachable",
        };
        table.row([node.name.clone(), node.node.to_string(), state.to_owned(), node.links.to_string()]);
    }
    table
}

/// Names of all routers, by id.
fn names(router: &Router) -> Result<BTreeMap<String, String>, Failure> {
    let Response::Nodes { nodes } = router.request(&Request::Nodes)? else { return Err(unexpected()) };
    Ok(nodes.into_iter().map(|node| (node.node.to_string(), node.name)).collect())
}

/// What workers know of a link's latency beyond its round trip: the worst of its lanes.
#[derive(Clone, Debug, Default)]
struct Latency {
    /// From the neighbour to us.
    one_way_us: Option<u64>,
    /// By how much that may be wrong.
    error_us: Option<u64>,
    /// Messages waiting to be sent, of all lanes.
    queue: Option<u64>,
    /// 99th percentile of the wait, of the class that waits longer.
    queue_delay_p99_us: Option<f64>,
    /// 99th percentile of the time from a lost message's first sending to its arrival; none if none was lost.
    recovery_p99_us: Option<f64>,
    /// The paths of its first lane.
    paths: Vec<PathReport>,
}

/// The same for all links, by the neighbour's id.
#[derive(Debug, Default)]
struct Latencies(BTreeMap<String, Latency>);

impl Latencies {
    /// Asks the workers. A router that cannot say shows no latency; its links are shown all the same.
    fn ask(router: &Router) -> Latencies {
        match router.request(&Request::Stats) {
            Ok(Response::Stats { workers }) => Latencies::new(&workers),
            _ => Latencies::default(),
        }
    }

    fn new(workers: &[Value]) -> Latencies {
        let mut all = BTreeMap::<String, Latency>::new();
        for link in workers.iter().flat_map(|worker| worker["links"].as_array().into_iter().flatten()) {
            let (stats, known) = (&link["stats"], all.entry(plain(&link["peer"])).or_default());
            let waits = ["queue_delay_best_effort", "queue_delay_reliable"].map(|key| stats[key]["p99_us"].as_f64());
            if known.paths.is_empty() {
                known.paths = serde_json::from_value(link["paths"].clone()).unwrap_or_default();
            }
            known.one_way_us = known.one_way_us.max(stats["one_way_us"].as_u64());
            known.error_us = known.error_us.max(stats["clock_error_us"].as_u64());
            known.queue = stats["queue"].as_u64().map(|queue| queue + known.queue.unwrap_or(0));
            let recovery = &stats["recovery_reliable"];
            let recovered = recovery["p99_us"].as_f64().filter(|_| recovery["count"].as_u64() > Some(0));
            known.recovery_p99_us = recovered.into_iter().chain(known.recovery_p99_us).reduce(f64::max);
            known.queue_delay_p99_us = waits.into_iter().flatten().chain(known.queue_delay_p99_us).reduce(f64::max);
        }
        Latencies(all)
    }

    fn of(&self, node: &str) -> Latency {
        self.0.get(node).cloned().unwrap_or_default()
    }
}

/// What seems to keep a link down, and what to do about it.
pub(super) fn why_down(link: &LinkEntry) -> Option<String> {
    let LinkEntry { peer, obstacle, .. } = link;
    match obstacle {
        Some(obstacle) => Some(format!("{peer}: {}: {}", obstacle.what(), obstacle.help())),
        None if !link.up && link.remote.is_none() => Some(format!(
            "{peer}: waits to be asked, as the [[link]] has no `remote`: has the one there this router's address?"
        )),
        None => None,
    }
}

fn links_table(links: &[LinkEntry], latencies: &Latencies) -> Table {
    let mut table = Table::new([
        "link to",
        "state",
        ">for",
        ">rtt ms",
        ">one-way ms",
        ">jitter ms",
        ">loss %",
        ">queue",
        ">queued p99 ms",
        "remote",
        "last down",
    ]);
    for link in links {
        let latency = latencies.of(&link.node.to_string());
        let micros = |us: f64| format!("{:.2}", us / 1e3);
        let one_way = latency.one_way_us.zip(latency.error_us);
        let one_way = one_way.map(|(us, error)| format!("{}±{}", micros(us as f64), micros(error as f64)));
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let ms = |duration: Duration| format!("{:.2}", duration.as_secs_f64() * 1e3);
        let measured = |text: String| if link.up { text } else { "-".to_owned() };
        table.row([
            link.peer.clone(),
            if link.up { "up" } else { "down" }.to_owned(),
            ago(link.since_s),
            measured(ms(link.metrics.rtt)),
            measured(or_dash(one_way)),
            measured(ms(link.metrics.jitter)),
            measured(percent(u64::from(link.metrics.loss_ppm), 1_000_000)),
            measured(or_dash(latency.queue.map(thousands))),
            measured(or_dash(latency.queue_delay_p99_us.map(micros))),
            link.remote.map_or("-".to_owned(), |remote| remote.to_string()),
            link.down_reason.clone().unwrap_or_default(),
        ]);
        if let [_, _, ..] = latency.paths[..] {
            latency.paths.iter().for_each(|path| table.row(path_row(path)));
        }
    }
    table
}

/// One of a link's several paths, below it.
fn path_row(path: &PathReport) -> [String; 11] {
    let state = match (path.active, path.up) {
        (true, true) => "in use",
        (false, true) => "up",
        (_, false) => "down",
    };
    let measured = |text: String| if path.up { text } else { "-".to_owned() };
    let rtt = path.rtt_us.map_or("-".to_owned(), |us| format!("{:.2}", us as f64 / 1e3));
    let found = if path.listed { "" } else { " (found)" };
    let nothing = String::new;
    [
        "  path".to_owned(),
        state.to_owned(),
        ago(path.since.as_secs_f64()),
        measured(rtt),
        nothing(),
        nothing(),
        measured(percent(u64::from(path.loss_ppm), 1_000_000)),
        nothing(),
        nothing(),
        format!("{}{found}", path.pair),
        nothing(),
    ]
}

fn routes_table(routes: &[RouteEntry]) -> Table {
    let mut table = Table::new(["to", "via", ">hops", ">cost", "path"]);
    for route in routes {
        let path = route.path.join(" → ");
        let cost = format!("{:.2}", route.cost);
        table.row([route.name.clone(), route.via.clone(), route.hops.to_string(), cost, path]);
    }
    table
}

fn sessions_table(workers: &[Value]) -> Table {
    let numbers = ["sent", "delivered", "repeated", "unacknowledged", "unread"];
    let columns =
        ["session", "kind", ">port", "peer", "carrier", ">sent", ">delivered", ">repeated", ">unacked B", ">unread B"];
    let mut table = Table::new(columns);
    for session in sessions(workers) {
        let peer = &session["peer"];
        let peer = match (peer["node"].as_str(), peer["port"].as_u64()) {
            (Some(node), Some(port)) => format!("{node}:{port}"),
            _ => "-".to_owned(),
        };
        // Ids and ports are names, not amounts.
        let name = |key: &str| session[key].to_string();
        let head = [name("session"), plain(&session["kind"]), name("port"), peer, plain(&session["carrier"])];
        table.row(head.into_iter().chain(numbers.map(|key| plain(&session[key]))));
    }
    table
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(whole) => thousands(whole),
            None => format!("{:.3}", number.as_f64().unwrap_or(0.0)),
        },
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{LinkId, LinkMetrics, NodeId, Obstacle, Rng};
    use crate::dataplane::messages::{DriverStats, LinkReport, ShardStats};
    use crate::proto::link::Link;
    use crate::proto::{groups, membership, vip as vip_room};
    use crate::runtime::vip as host;
    use crate::telemetry::stages::STAGES;
    use crate::telemetry::{DropReason, Drops, Histogram, hlog};
    use std::collections::BTreeSet;

    #[test]
    fn links_are_a_table() {
        let link = |peer: &str, up| LinkEntry {
            peer: peer.to_owned(),
            node: NodeId(1),
            remote: Some(([192, 0, 2, 2], 5300).into()),
            up,
            down_reason: (!up).then(|| "silence".to_owned()),
            obstacle: None,
            since_s: 75.0,
            metrics: LinkMetrics {
                rtt: Duration::from_micros(20_350),
                jitter: Duration::from_micros(80),
                loss_ppm: 9_800,
            },
        };
        let stats = |one_way, p99| {
            json!({"one_way_us": one_way, "clock_error_us": 10_150, "queue": 3,
                "queue_delay_best_effort": {"p99_us": p99}, "queue_delay_reliable": {"p99_us": 250.0}})
        };
        let lane = |one_way, p99| json!({"links": [{"peer": NodeId(1), "stats": stats(one_way, p99)}]});
        assert_eq!((why_down(&link("b", true)), why_down(&link("c", false))), (None, None), "nobody knows yet");
        let refused = LinkEntry { obstacle: Some(Obstacle::Refused), ..link("c", false) };
        assert!(
            why_down(&refused).is_some_and(|text| text.starts_with("c: nothing listens") && text.contains("start"))
        );
        let waits = LinkEntry { remote: None, ..link("c", false) };
        assert!(why_down(&waits).is_some_and(|text| text.contains("no `remote`")));
        let latencies = Latencies::new(&[lane(9_870, 1_250.0), lane(9_000, 900.0)]);
        let shown = links_table(&[link("b", true), link("c", false)], &latencies).to_string();
        assert_eq!(
            shown,
            "\
link to  state     for  rtt ms  one-way ms  jitter ms  loss %  queue  queued p99 ms  remote          last down
b        up     1m 15s   20.35  9.87±10.15       0.08    0.98      6           1.25  192.0.2.2:5300
c        down   1m 15s       -           -          -       -      -              -  192.0.2.2:5300  silence
"
        );
    }

    /// A worker's figures, each there and every histogram counted, as the router sends them.
    fn everything() -> Value {
        let (mut drops, one) = (Drops::default(), Duration::from_millis(1));
        drops.count(DropReason::NoRoute);
        let mut stats = Link::new(crate::base::Instant::ZERO, Default::default(), &[], Rng::from_u64(1)).stats();
        (stats.one_way_us, stats.clock_error_us, stats.clock_ahead_us) = (Some(1), Some(1), Some(1));
        stats.drops = drops.clone();
        let (up, remote, metrics) = (true, None, LinkMetrics::default());
        let link =
            LinkReport { link: LinkId(0), peer: NodeId(1), remote, paths: Vec::new(), up, since: one, metrics, stats };
        let driver = Some(DriverStats::default());
        let stats = ShardStats { drops, driver, links: vec![link], ..ShardStats::default() };
        let mut worker = serde_json::to_value(stats).expect("plain figures");
        let mut histogram = Histogram::new();
        histogram.record(one);
        let hdr = hlog::encode(histogram.inner());
        let histograms = STAGES.iter().flat_map(|stage| {
            [None, Some("b")].map(|peer| json!({"name": stage.histogram, "peer": peer, "link": 0, "hdr": hdr}))
        });
        worker["histograms"] = histograms.collect();
        worker
    }

    /// The same with what the first worker's figures carry of service addresses and process groups.
    fn with_groups(mut worker: Value) -> Value {
        let figures = |stats: serde_json::Result<Value>, gauges: Value| {
            let mut figures = stats.expect("plain figures");
            gauges.as_object().into_iter().flatten().for_each(|(key, value)| figures[key] = value.clone());
            figures
        };
        let gauges = json!({"view_members": 3, "gathering": false});
        worker["membership"] = figures(serde_json::to_value(membership::Stats::default()), gauges);
        let gauges = json!({"sets_configured": 1, "sets_owned": 1, "sets_covered": 1, "overruled": false});
        worker["vip"] = figures(serde_json::to_value(vip_room::Stats::default()), gauges);
        let gauges = json!({"degraded": false, "dead": false});
        worker["vip_host"] = figures(serde_json::to_value(host::Stats::default()), gauges);
        let gauges = json!({"slow": 0, "known": 1, "processes": 2, "local_processes": 1, "view_members": 3,
            "gathering": false, "router_views": 4});
        worker["groups"] = figures(serde_json::to_value(groups::Stats::default()), gauges);
        worker["vip_sets"] = json!([{"set": "web", "state": "owning", "owned": true, "covered": true, "able": true}]);
        worker
    }

    #[test]
    fn every_figure_of_groups_has_a_help_of_its_own() {
        let worker = with_groups(json!({}));
        let metrics = prometheus::render(&[worker], str::to_owned).expect("renders");
        let helps: Vec<&str> = metrics.lines().filter(|line| line.starts_with("# HELP sinew_")).collect();
        assert!(helps.len() > 65, "{metrics}");
        let without: Vec<&&str> = helps.iter().filter(|line| line.contains(" See `")).collect();
        assert!(without.is_empty(), "{without:?}");
    }

    #[test]
    fn the_metrics_are_what_a_strict_reader_takes_and_the_dashboard_names_no_others() {
        let workers = [with_groups(everything()), everything()];
        let metrics = prometheus::render(&workers, |_| "b".to_owned()).expect("renders");
        let series = prometheus::strict::read(&metrics).unwrap_or_else(|error| panic!("{error}\n{metrics}"));
        let names: BTreeSet<&str> = series.keys().filter_map(|series| series.split('{').next()).collect();
        assert!(names.len() > 150, "{names:?}");
        let dashboard = include_str!("../../configs/dashboards/sinew.json");
        let parsed: Value = serde_json::from_str(dashboard).expect("is JSON");
        assert!(parsed["panels"].as_array().is_some_and(|panels| panels.len() > 15));
        let end = |rest: &str| rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(rest.len());
        let named = dashboard.match_indices("sinew_").map(|(at, _)| &dashboard[at..][..end(&dashboard[at..])]);
        let unknown: BTreeSet<&str> = named.filter(|name| !names.contains(name)).collect();
        assert!(unknown.is_empty(), "the dashboard names what is not there: {unknown:?}");
    }

    #[test]
    fn sessions_of_all_workers_are_one_list() {
        let session = json!({"session": 3, "kind": "stream", "port": 7000, "peer": {"node": "00000000000000aa", "port": 9},
            "sent": 1, "delivered": 2, "repeated": 0, "unacknowledged": 4, "unread": 0, "carrier": "memory"});
        let workers = [json!({"sessions": []}), json!({"sessions": [session]})];
        let response = Response::Stats { workers: workers.to_vec() };
        let shown = as_json(What::Sessions, &response, &Latencies::default()).expect("is JSON");
        assert_eq!((&shown["sessions"][0]["worker"], &shown["sessions"][0]["port"]), (&json!(1), &json!(7000)));
        assert_eq!(shown.as_object().map(serde_json::Map::len), Some(1), "nothing but sessions: {shown}");
        let table = sessions_table(&workers).to_string();
        assert!(table.contains("00000000000000aa:9") && table.contains("memory"), "{table}");
    }

    #[test]
    fn pauses_are_seconds_or_have_a_unit() {
        assert_eq!((pause("2"), pause("250ms")), (Ok(Duration::from_secs(2)), Ok(Duration::from_millis(250))));
        assert!(pause("0.01").is_err() && pause("-1").is_err());
    }
}
