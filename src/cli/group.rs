//! `sinew group`: a process group joined from the command line.

use super::failure::Failure;
use super::output::{self, note};
use super::ping::is_pause;
use super::router::Router;
use super::stop::{LOOK, Stop};
use crate::base::GroupName;
use crate::client::{Group, GroupEvent};
use crate::telemetry::Table;
use crate::telemetry::table::ago;
use crate::wire::admin::{GroupEntry, Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::{Value, json};
use std::io::{self, BufRead as _};
use std::path::PathBuf;
use std::sync::Arc;

/// Join a process group: see who is in it and what they say, and say something
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew group join shift       every line of standard input is a message to all
  sinew show groups            which groups there are, and who is in them

Applications join groups by the client library; this is one of them.

Exit codes: 0 left by Ctrl-C, 1 the group could not be joined or its router ended, 2 wrong command
line, 3 no router answers.")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Join(Join),
}

/// Join a group until Ctrl-C: print its views and messages, send the lines of standard input
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew group join shift
  echo hello | sinew group join shift --json

All members print the same views and messages in the same order. A member is called ROUTER.NUMBER.
The end of standard input is not the end: what others say is still printed.

JSON, one object a line: {\"event\": \"joined\", \"group\", \"member\"} (what this one is called) comes
first, then {\"event\": \"view\", \"id\", \"members\": [name, ...], \"together\": [name, ...]
(who came with this one from the view before)}, {\"event\": \"transitional\"} (the view ends, and
somebody is lost), {\"event\": \"message\", \"from\", \"size\"} with \"text\" or, where it is none,
\"base64\".

Exit codes: 0 left by Ctrl-C, 1 the group could not be joined or its router ended, 2 wrong command
line, 3 no router answers.")]
struct Join {
    /// The group's name: 1 to 32 of `a-z`, `0-9`, `-`, `.` and `_`
    name: GroupName,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    let What::Join(Join { name, json }) = args.what;
    let path = Router::socket_path(socket);
    // Says in its own words why nobody answers.
    drop(Router::connect(Some(path.clone()))?);
    let stop = Stop::on_signals();
    let failed = |error: io::Error| Failure::failed(format!("cannot join `{name}`"), error);
    let group = stop.or_exit(|| Group::join(&path, name.as_str()).map_err(failed))?;
    group.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let group = Arc::new(group);
    if json {
        output::json(&json!({ "event": "joined", "group": group.name(), "member": group.member() }))?;
    } else {
        note(format_args!("joined `{name}` as {}", group.member()));
    }
    let speaker = Arc::clone(&group);
    // Nothing interrupts its wait for input: it ends with the process.
    std::thread::spawn(move || speak(&speaker));
    while !stop.is_set() {
        match group.recv() {
            Ok(event) if json => output::json(&as_json(&event))?,
            Ok(event) => output::line(as_text(&event))?,
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(Failure::failed(format!("`{name}` is over"), error)),
        }
    }
    Ok(())
}

/// Sends every line of standard input.
fn speak(group: &Group) {
    for line in io::stdin().lock().split(b'\n') {
        if let Err(error) = line.and_then(|line| group.send(&line)) {
            note(format_args!("sinew: not sent: {error}"));
            if error.kind() != io::ErrorKind::InvalidInput {
                return;
            }
        }
    }
}

fn as_text(event: &GroupEvent) -> String {
    match event {
        GroupEvent::View { id, members, together } => {
            format!("-- view {id}: {} (came together: {})", members.join(", "), together.join(", "))
        }
        GroupEvent::Transitional => "-- the view ends: somebody is lost".to_owned(),
        GroupEvent::Message { from, bytes } => format!("{from}: {}", String::from_utf8_lossy(bytes).escape_debug()),
    }
}

fn as_json(event: &GroupEvent) -> Value {
    let GroupEvent::Message { from, bytes } = event else { return json!(event) };
    let (key, value) = match output::text_of(bytes) {
        Some(text) => ("text", text.to_owned()),
        None => ("base64", STANDARD.encode(bytes)),
    };
    json!({ "event": "message", "from": from, "size": bytes.len(), key: value })
}

/// `sinew show groups`. Whether routers agree at this moment.
pub(super) fn show_groups(router: &Router, json: bool) -> Result<bool, Failure> {
    let Response::Groups { routers, groups } = router.request(&Request::Groups)? else {
        let message = "the router gave another answer than was asked for: are both of the same version?";
        return Err(Failure::Failed(message.to_owned()));
    };
    if json {
        output::json(&json!({ "routers": routers, "groups": groups }))?;
        return Ok(!routers.gathering);
    }
    output::print(table(&groups))?;
    let (since, gathering) = (ago(routers.since_s), if routers.gathering { "; they look for another" } else { "" });
    output::line(format_args!(
        "routers {} in view {} since {since}{gathering}",
        routers.members.join(", "),
        routers.id
    ))?;
    Ok(!routers.gathering)
}

fn table(groups: &[GroupEntry]) -> Table {
    let mut table = Table::new(["group", "view", ">members", "who"]);
    for group in groups {
        let count = group.members.len().to_string();
        table.row([group.group.clone(), group.view.clone(), count, group.members.join(" ")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let view = GroupEvent::View { id: "3.0a-1".into(), members: names(&["a.1", "b.2"]), together: names(&["a.1"]) };
        assert_eq!(as_text(&view), "-- view 3.0a-1: a.1, b.2 (came together: a.1)");
        assert_eq!(as_json(&view)["event"], "view");
        let said = |bytes: &[u8]| GroupEvent::Message { from: "b.2".into(), bytes: bytes.to_vec() };
        assert_eq!(as_text(&said(b"one\ntwo")), "b.2: one\\ntwo", "one line");
        assert_eq!(as_json(&said(b"one")), json!({"event": "message", "from": "b.2", "size": 3, "text": "one"}));
        assert_eq!(as_json(&said(&[0xff])), json!({"event": "message", "from": "b.2", "size": 1, "base64": "/w=="}));
        assert_eq!(as_json(&GroupEvent::Transitional), json!({"event": "transitional"}));
    }
}
