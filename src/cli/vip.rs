//! `sinew vip`: service addresses, shown and ordered about.

use super::failure::Failure;
use super::output;
use super::router::Router;
use super::stop::Stop;
use crate::config::units;
use crate::telemetry::Table;
use crate::telemetry::table::ago;
use crate::wire::admin::{JournalEntry, Request, Response, ViewEntry, VipEntry, VipMemberEntry, VipOrder};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Show which member answers for which service address, and move them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew vip status
  sinew vip status --check || echo a set is not covered
  sinew vip move web b         to b, make before break: no packet is lost
  sinew vip drain a            take everything from a before it is worked on
  sinew vip undrain a
  sinew vip pin web b          to b whenever it is there
  sinew show views             what happened to the views and the sets, and why

Orders can be given at any member; what they say holds for all, also for those who come later. An
order is done when the command ends: a moved set is answered for by its new owner.

JSON of status: {\"view\": {\"id\", \"members\", \"gathering\", \"since_s\"}, \"members\": [{\"name\", \"node\",
\"here\", \"this\", \"excluded\", \"able\", \"owns\", \"weight\"}, ...], \"sets\": [{\"set\", \"addresses\", \"owner\",
\"acquired\", \"from\", \"here\", \"pin\", \"paused\", \"unable\"}, ...], \"degraded\": [text, ...]}; an order
answers {\"done\": true}.

Exit codes: 0 shown or done, 1 it could not be, or with --check a set is not covered, 2 wrong
command line, 3 no router answers.")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Which member answers for which set
    Status {
        /// Exit with 1 if a set is not answered for
        #[arg(long)]
        check: bool,
        /// Show it again and again, so far apart (`2`, `500ms`)
        #[arg(short = 'i', long, value_name = "DURATION", value_parser = units::duration_or_seconds)]
        watch: Option<Duration>,
    },
    /// Move a set: to a member, or to the one that suits it best
    Move {
        /// The set's name
        set: String,
        /// The member's name
        to: Option<String>,
    },
    /// Take everything from a member, and give it nothing until it is undrained
    Drain {
        /// The member's name
        member: String,
    },
    /// Let a member have sets again
    Undrain {
        /// The member's name
        member: String,
    },
    /// Give a set to a member whenever that can hold it
    Pin {
        /// The set's name
        set: String,
        /// The member's name
        to: String,
    },
    /// Let a set be where it is
    Unpin {
        /// The set's name
        set: String,
    },
    /// Leave a set where it is, as long as its owner is there
    Pause {
        /// The set's name
        set: String,
    },
    /// Let a paused set move again
    Resume {
        /// The set's name
        set: String,
    },
    /// Spread the sets as well as they can be, at once
    Balance,
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    let router = Router::connect(socket)?;
    let stop = Stop::on_signals();
    let order = match args.what {
        What::Status { check, watch } => return status(&router, &stop, args.json, check, watch),
        What::Move { set, to } => VipOrder::Move { set, to },
        What::Drain { member } => VipOrder::Drain { member },
        What::Undrain { member } => VipOrder::Undrain { member },
        What::Pin { set, to } => VipOrder::Pin { set, to },
        What::Unpin { set } => VipOrder::Unpin { set },
        What::Pause { set } => VipOrder::Pause { set },
        What::Resume { set } => VipOrder::Resume { set },
        What::Balance => VipOrder::Balance,
    };
    match stop.or_exit(|| router.request(&Request::Vip { order }))? {
        Response::Ordered if args.json => output::json(&json!({ "done": true })),
        Response::Ordered => Ok(()),
        _ => Err(unexpected()),
    }
}

fn status(router: &Router, stop: &Stop, json: bool, check: bool, watch: Option<Duration>) -> Result<(), Failure> {
    let mut next = Instant::now();
    loop {
        let covered = show_status(router, json)?;
        let Some(pause) = watch else {
            return if covered || !check { Ok(()) } else { Err(Failure::Degraded) };
        };
        next += pause;
        stop.sleep_until(next);
        if stop.is_set() {
            return Ok(());
        }
        if !json {
            output::line("")?;
        }
    }
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
