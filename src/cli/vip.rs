//! `sinew vip`: service addresses, shown and ordered about.

use super::failure::Failure;
use super::output;
use super::router::Router;
use super::show::{Again, pause};
use super::stop::Stop;
use crate::telemetry::Table;
use crate::telemetry::table::ago;
use crate::wire::admin::{JournalEntry, Request, Response, ViewEntry, VipEntry, VipMemberEntry, VipOrder};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Show which member answers for which service address, and move them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip status
  sinew vip move web b         to b, make before break: no packet is lost
  sinew vip drain a            take everything from a before it is worked on
  sinew show views             what happened to the views and the sets, and why

Orders can be given at any member; what they say holds for all, also for those who come later. An
order is done when the command ends: a moved set is answered for by its new owner.

Exit codes: 0 shown or done, 1 it could not be, 2 wrong command line, 3 no router answers.")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Status(Status),
    Move(Move),
    Drain(Drain),
    Undrain(Undrain),
    Pin(Pin),
    Unpin(Unpin),
    Pause(Pause),
    Resume(Resume),
    Balance(Balance),
}

// How an order is answered. (No doc comment: it would take the place of the commands' own.)
#[derive(Debug, clap::Args)]
struct Answer {
    /// Print JSON: {\"done\": true}
    #[arg(long)]
    json: bool,
}

/// Show which member answers for which set
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip status
  sinew vip status -i 1
  sinew vip status --check || echo a set is not covered

JSON: {\"view\": {\"id\", \"members\": [name, ...], \"gathering\", \"since_s\"}, \"members\": [{\"name\",
\"node\", \"here\", \"this\", \"excluded\", \"able\", \"owns\", \"weight\"}, ...], \"sets\": [{\"set\",
\"addresses\", \"owner\", \"acquired\", \"from\", \"here\", \"pin\", \"paused\", \"unable\"}, ...],
\"degraded\": [text, ...]}

Exit codes: 0 shown, 1 it could not be, or with --check a set is not covered, 2 wrong command
line, 3 no router answers.")]
struct Status {
    /// Exit with 1 if a set is not answered for
    #[arg(long)]
    check: bool,
    /// Show it again and again, so far apart (`2`, `500ms`)
    #[arg(short = 'i', long, value_name = "DURATION", value_parser = pause)]
    watch: Option<Duration>,
    /// Print JSON, one document a line
    #[arg(long)]
    json: bool,
}

/// Move a set: to a member, or to the one that suits it best
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip move web b         the new owner answers before the old one lets go
  sinew vip move web           to whoever has least to do

Exit codes: 0 it is there, 1 it could not be moved, 2 wrong command line, 3 no router answers.")]
struct Move {
    /// The set's name
    set: String,
    /// The member's name
    to: Option<String>,
    #[command(flatten)]
    answer: Answer,
}

/// Take everything from a member, and give it nothing until it is undrained
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip drain a            before a is worked on; done when it holds nothing

Exit codes: 0 it holds nothing, 1 it could not be drained, 2 wrong command line, 3 no router
answers.")]
struct Drain {
    /// The member's name
    member: String,
    #[command(flatten)]
    answer: Answer,
}

/// Let a drained member have sets again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip undrain a          sets come back as the spread is made better

Exit codes: 0 done, 1 it could not be, 2 wrong command line, 3 no router answers.")]
struct Undrain {
    /// The member's name
    member: String,
    #[command(flatten)]
    answer: Answer,
}

/// Give a set to a member whenever that can hold it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip pin web b          to others only while b is away

Exit codes: 0 done, 1 it could not be, 2 wrong command line, 3 no router answers.")]
struct Pin {
    /// The set's name
    set: String,
    /// The member's name
    to: String,
    #[command(flatten)]
    answer: Answer,
}

/// Let a pinned set be where it is
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip unpin web

Exit codes: 0 done, 1 it could not be, 2 wrong command line, 3 no router answers.")]
struct Unpin {
    /// The set's name
    set: String,
    #[command(flatten)]
    answer: Answer,
}

/// Leave a set where it is, as long as its owner is there
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip pause web          it moves for nothing but the loss of its owner

Exit codes: 0 done, 1 it could not be, 2 wrong command line, 3 no router answers.")]
struct Pause {
    /// The set's name
    set: String,
    #[command(flatten)]
    answer: Answer,
}

/// Let a paused set move again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip resume web

Exit codes: 0 done, 1 it could not be, 2 wrong command line, 3 no router answers.")]
struct Resume {
    /// The set's name
    set: String,
    #[command(flatten)]
    answer: Answer,
}

/// Spread the sets as well as they can be, at once
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip balance            instead of a few at a time, every `balance` of the configuration

Exit codes: 0 done, 1 it could not be, 2 wrong command line, 3 no router answers.")]
struct Balance {
    #[command(flatten)]
    answer: Answer,
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    let (order, answer) = match args.what {
        What::Status(args) => return status(&Router::connect(socket)?, &args),
        What::Move(Move { set, to, answer }) => (VipOrder::Move { set, to }, answer),
        What::Drain(Drain { member, answer }) => (VipOrder::Drain { member }, answer),
        What::Undrain(Undrain { member, answer }) => (VipOrder::Undrain { member }, answer),
        What::Pin(Pin { set, to, answer }) => (VipOrder::Pin { set, to }, answer),
        What::Unpin(Unpin { set, answer }) => (VipOrder::Unpin { set }, answer),
        What::Pause(Pause { set, answer }) => (VipOrder::Pause { set }, answer),
        What::Resume(Resume { set, answer }) => (VipOrder::Resume { set }, answer),
        What::Balance(Balance { answer }) => (VipOrder::Balance, answer),
    };
    let (router, stop) = (Router::connect(socket)?, Stop::on_signals());
    match stop.or_exit(|| router.request(&Request::Vip { order }))? {
        Response::Ordered if answer.json => output::json(&json!({ "done": true })),
        Response::Ordered => Ok(()),
        _ => Err(unexpected()),
    }
}

fn status(router: &Router, args: &Status) -> Result<(), Failure> {
    let again = Again { watch: args.watch, check: args.check, json: args.json };
    again.show(&Stop::on_signals(), || show_status(router, args.json))
}

/// Whether every set is answered for.
fn show_status(router: &Router, json: bool) -> Result<bool, Failure> {
    let Response::Vips { view, members, sets, degraded } = router.request(&Request::Vips)? else {
        return Err(unexpected());
    };
    if json {
        output::json(&json!({ "view": view, "members": members, "sets": sets, "degraded": degraded }))?;
    } else {
        output::print(sets_table(&sets))?;
        output::line("")?;
        output::print(members_table(&members))?;
        output::line(view_line(&view))?;
        degraded.iter().for_each(output::note);
    }
    Ok(sets.iter().all(|set| set.owner.is_some() && (set.acquired || set.from.is_some())))
}

/// `sinew show members`. Whether all are there.
pub(super) fn show_members(router: &Router, json: bool) -> Result<bool, Failure> {
    let Response::Vips { view, members, .. } = router.request(&Request::Vips)? else { return Err(unexpected()) };
    if json {
        output::json(&json!({ "view": view, "members": members }))?;
    } else {
        output::print(members_table(&members))?;
        output::line(view_line(&view))?;
    }
    Ok(members.iter().all(|member| member.here))
}

/// `sinew show views`.
pub(super) fn show_views(router: &Router, json: bool) -> Result<(), Failure> {
    let Response::Journal { entries } = router.request(&Request::Journal)? else { return Err(unexpected()) };
    if json {
        return output::json(&json!({ "entries": entries }));
    }
    let mut table = Table::new([">ago", "what happened"]);
    for JournalEntry { ago_s, text, .. } in entries {
        table.row([ago(ago_s), text]);
    }
    output::print(table)
}

fn sets_table(sets: &[VipEntry]) -> Table {
    let mut table = Table::new(["set", "owner", "state", "here", "addresses"]);
    for set in sets {
        let state = match (&set.owner, set.acquired, &set.from) {
            (None, ..) => "not covered: no member may hold it".to_owned(),
            (Some(_), true, _) => "covered".to_owned(),
            (Some(_), false, Some(from)) => format!("covered by {from}, which hands it over"),
            (Some(_), false, None) => "being acquired".to_owned(),
        };
        let marks = [set.pin.as_ref().map(|to| format!("pinned to {to}")), set.paused.then(|| "paused".to_owned())];
        let unable = set.unable.as_ref().map(|why| format!("cannot be held here: {why}"));
        let all: Vec<String> = std::iter::once(state).chain(marks.into_iter().flatten()).chain(unable).collect();
        let owner = set.owner.clone().unwrap_or_else(|| "-".to_owned());
        table.row([set.set.clone(), owner, all.join(", "), set.here.clone(), set.addresses.join(" ")]);
    }
    table
}

fn members_table(members: &[VipMemberEntry]) -> Table {
    let mut table = Table::new(["member", ">sets", ">could hold", ">weight", "state"]);
    for member in members {
        let state = match &member.excluded {
            Some(why) => why.clone(),
            None if member.this => "there (this router)".to_owned(),
            None => "there".to_owned(),
        };
        let [owns, able] = [member.owns, member.able].map(|count| count.to_string());
        table.row([member.name.clone(), owns, able, member.weight.to_string(), state]);
    }
    table
}

fn view_line(view: &ViewEntry) -> String {
    let since = ago(view.since_s);
    let gathering = if view.gathering { "; its members look for another" } else { "" };
    format!("view {} of {} since {since}{gathering}", view.id, view.members.join(", "))
}

fn unexpected() -> Failure {
    Failure::Failed("the router gave another answer than was asked for: are both of the same version?".to_owned())
}
