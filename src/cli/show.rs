//! `sinew show`: what the router on this machine knows.

use super::failure::Failure;
use super::output;
use super::router::Router;
use super::stop::Stop;
use crate::config::units;
use crate::telemetry::table::{ago, percent, thousands};
use crate::telemetry::{DropReason, Drops, Table};
use crate::wire::admin::{LinkEntry, NodeEntry, Request, Response, RouteEntry};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Show what the router on this machine knows
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew show links
  sinew show links --watch 1s
  sinew show nodes --check || echo somebody is away
  sinew show stats --json | jq '.workers[0].drops'
Durations in JSON are milliseconds where the key ends in _ms, microseconds in _us.")]
pub(super) struct Args {
    /// What to show
    #[arg(value_enum)]
    what: What,
    /// Print JSON, one document a line
    #[arg(long)]
    json: bool,
    /// Show it again and again, so far apart
    #[arg(long, value_name = "DURATION", value_parser = pause)]
    watch: Option<Duration>,
    /// Exit with 1 if something shown is not well: a router is unreachable or a link is down
    #[arg(long)]
    check: bool,
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
    /// Everything counted: traffic, drops by reason, links, worker loops
    Stats,
}

fn pause(text: &str) -> Result<Duration, String> {
    let pause = units::duration(text)?;
    if pause < Duration::from_millis(100) { Err("give at least 100ms".to_owned()) } else { Ok(pause) }
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    let router = Router::connect(socket)?;
    let stop = Stop::on_signals();
    let mut next = Instant::now();
    loop {
        let well = show_once(&router, &args)?;
        let Some(pause) = args.watch else {
            return if well || !args.check { Ok(()) } else { Err(Failure::Degraded) };
        };
        next += pause;
        stop.sleep_until(next);
        if stop.is_set() {
            return Ok(());
        }
        if !args.json {
            output::line("")?;
        }
    }
}

/// Shows it and says whether all is well.
fn show_once(router: &Router, args: &Args) -> Result<bool, Failure> {
    let response = router.request(&match args.what {
        What::Nodes => Request::Nodes,
        What::Links => Request::Links,
        What::Routes => Request::Routes,
        What::Sessions => Request::Sessions,
        What::Stats => Request::Stats,
    })?;
    let well = match &response {
        Response::Nodes { nodes } => nodes.iter().all(|node| node.reachable || node.this),
        Response::Links { links } => links.iter().all(|link| link.up),
        _ => true,
    };
    if args.json {
        output::json(&as_json(args.what, &response)?)?;
        return Ok(well);
    }
    match (&response, args.what) {
        (Response::Nodes { nodes }, _) => output::print(nodes_table(nodes))?,
        (Response::Links { links }, _) => output::print(links_table(links))?,
        (Response::Routes { generation, routes }, _) => {
            output::print(routes_table(routes))?;
            output::line(format_args!("table {generation}"))?;
        }
        (Response::Stats { workers }, What::Sessions) => output::print(sessions_table(workers))?,
        (Response::Stats { workers }, _) => output::print(stats_text(workers))?,
        _ => return Err(unexpected()),
    }
    Ok(well)
}

fn unexpected() -> Failure {
    Failure::Failed("the router gave another answer than was asked for: are both of the same version?".to_owned())
}

/// The answer as documented for `--json`: the response without its tag; sessions of all workers as one list.
fn as_json(what: What, response: &Response) -> Result<Value, Failure> {
    let value = serde_json::to_value(response).map_err(|error| Failure::failed("cannot write JSON", error))?;
    let mut value = output::friendly(value);
    if let (What::Sessions, Response::Stats { workers }) = (what, response) {
        value = json!({ "sessions": sessions(workers).collect::<Vec<_>>() });
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

fn links_table(links: &[LinkEntry]) -> Table {
    let mut table = Table::new(["link to", "state", ">for", ">rtt ms", ">jitter ms", ">loss %", "remote", "last down"]);
    for link in links {
        let ms = |duration: Duration| format!("{:.2}", duration.as_secs_f64() * 1e3);
        let measured = |text: String| if link.up { text } else { "-".to_owned() };
        table.row([
            link.peer.clone(),
            if link.up { "up" } else { "down" }.to_owned(),
            ago(link.since_s),
            measured(ms(link.metrics.rtt)),
            measured(ms(link.metrics.jitter)),
            measured(percent(u64::from(link.metrics.loss_ppm), 1_000_000)),
            link.remote.map_or("-".to_owned(), |remote| remote.to_string()),
            link.down_reason.clone().unwrap_or_default(),
        ]);
    }
    table
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
    let columns = ["session", "kind", ">port", "peer", ">sent", ">delivered", ">repeated", ">unacked B", ">unread B"];
    let mut table = Table::new(columns);
    for session in sessions(workers) {
        let peer = &session["peer"];
        let peer = match (peer["node"].as_str(), peer["port"].as_u64()) {
            (Some(node), Some(port)) => format!("{node}:{port}"),
            _ => "-".to_owned(),
        };
        // Ids and ports are names, not amounts.
        let name = |key: &str| session[key].to_string();
        let head = [name("session"), plain(&session["kind"]), name("port"), peer];
        table.row(head.into_iter().chain(numbers.map(|key| plain(&session[key]))));
    }
    table
}

/// Statistics: the workers' own figures, then what was dropped and why, then each link.
fn stats_text(workers: &[Value]) -> String {
    let mut text = String::new();
    let mut drops = Drops::default();
    for (number, worker) in workers.iter().enumerate() {
        text += &format!("worker {number}\n{}\n", flat_table(worker, &["drops", "links", "sessions"]));
        if let Ok(counted) = serde_json::from_value::<Drops>(worker["drops"].clone()) {
            drops.merge(&counted);
        }
    }
    let mut table = Table::new(["dropped", ">count", "what it means"]);
    for (reason, count) in drops.iter() {
        table.row([reason.name().to_owned(), thousands(count), DropReason::description(reason).to_owned()]);
    }
    text += &if table.is_empty() { "nothing dropped\n".to_owned() } else { table.to_string() };
    for (number, worker) in workers.iter().enumerate() {
        for link in worker["links"].as_array().into_iter().flatten() {
            let name = plain(&link["link"]);
            text += &format!("\nlink {name}, worker {number}\n{}", flat_table(link, &["link"]));
        }
    }
    text
}

/// Every figure of a JSON object under its own path, whatever the router of that version counts.
fn flat_table(value: &Value, without: &[&str]) -> Table {
    let mut table = Table::new(["figure", ">value"]);
    let value = output::friendly(value.clone());
    for (key, value) in value.as_object().into_iter().flatten() {
        if !without.contains(&key.as_str()) {
            flatten(&mut table, key.clone(), value);
        }
    }
    table
}

fn flatten(table: &mut Table, path: String, value: &Value) {
    match value {
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| flatten(table, format!("{path}.{key}"), value))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| flatten(table, format!("{path}[{index}]"), value))
        }
        value => table.row([path, plain(value)]),
    }
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
    use crate::base::{LinkMetrics, NodeId};

    #[test]
    fn links_are_a_table() {
        let link = |peer: &str, up| LinkEntry {
            peer: peer.to_owned(),
            node: NodeId(1),
            remote: Some(([192, 0, 2, 2], 5300).into()),
            up,
            down_reason: (!up).then(|| "silence".to_owned()),
            since_s: 75.0,
            metrics: LinkMetrics {
                rtt: Duration::from_micros(20_350),
                jitter: Duration::from_micros(80),
                loss_ppm: 9_800,
            },
        };
        let shown = links_table(&[link("b", true), link("c", false)]).to_string();
        assert_eq!(
            shown,
            "\
link to  state     for  rtt ms  jitter ms  loss %  remote          last down
b        up     1m 15s   20.35       0.08    0.98  192.0.2.2:5300
c        down   1m 15s       -          -       -  192.0.2.2:5300  silence
"
        );
    }

    #[test]
    fn sessions_of_all_workers_are_one_list() {
        let session = json!({"session": 3, "kind": "stream", "port": 7000, "peer": {"node": "00000000000000aa", "port": 9},
            "sent": 1, "delivered": 2, "repeated": 0, "unacknowledged": 4, "unread": 0});
        let workers = [json!({"sessions": []}), json!({"sessions": [session]})];
        let response = Response::Stats { workers: workers.to_vec() };
        let shown = as_json(What::Sessions, &response).expect("is JSON");
        assert_eq!((&shown["sessions"][0]["worker"], &shown["sessions"][0]["port"]), (&json!(1), &json!(7000)));
        assert!(sessions_table(&workers).to_string().contains("00000000000000aa:9"));
    }

    #[test]
    fn stats_name_every_drop_and_every_figure() {
        let workers = [json!({"datagrams_in": 1_234, "drops": {"no-route": 2}, "turn": {"p50_us": 1.5},
            "links": [{"link": 0, "stats": {"retransmitted": 7}, "since": {"secs": 1, "nanos": 0}}]})];
        let text = stats_text(&workers);
        for part in
            ["datagrams_in", "1 234", "no-route", "no route leads to", "turn.p50_us", "stats.retransmitted", "since_ms"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
