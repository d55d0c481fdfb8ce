//! perf/failover: for how long a client is not answered at a service address when something happens to its owner.
//!
//! | file | noun |
//! |---|---|
//! | `alarms` | nothing happens, on a busy machine: what members then believe |
//! | `case` | what happens |
//! | `group` | three hosts that share an address: ours, or keepalived's |
//! | `report` | the table and the JSON |
//!
//! The networks and our members are those of the system tests.

mod alarms;
mod case;
mod group;
mod keepalived;
#[path = "../../../tests/system/lan.rs"]
#[allow(dead_code, reason = "the system tests need more of it")]
mod lan;
#[path = "../../../tests/system/members.rs"]
#[allow(dead_code, reason = "the system tests need more of it")]
mod members;
mod report;

use crate::bench::machine::{Noise, two_cores};
use case::Case;
use clap::ValueEnum as _;
use group::Group;
use report::{Row, Trial};
use sinew::lab::netns::Netns;
use std::io;

/// Measures for how long nobody answers at a service address when something happens to its owner
#[derive(Debug, clap::Args)]
#[command(max_term_width = 98, after_help = HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// Times that each case is tried with each group
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: u32,
    /// Only this case; may be given again
    #[arg(long, value_enum, value_name = "CASE")]
    only: Vec<Case>,
    /// Only these groups: sinew, safe, fast, keepalived, or any part of a name
    #[arg(long, value_name = "TEXT", default_value = "")]
    group: String,
    /// Print JSON, with every trial
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Other {
    Alarms(alarms::Args),
}

const HELP: &str = "\
A group is three hosts and a client on one bridge, each in a network namespace. The client asks at
the address a thousand times a second and is told by the answer which host it came from. What is
measured is the longest time between two answers around what happens, in ms: what a client sees.
  sinew safe   our default profile
  sinew fast   its quicker sister
  sinew safe, 2 nets   the same, linked over a second network as well, where the address is not:
               only in carrier, where the owner can then say what happened
  keepalived   Debian's, VRRPv3, adverts every 0.01, 0.1 and 1 s, everything else as it comes; left
               out, with a word, if there is no `keepalived` on the PATH. It has no command that
               moves an address, so it has no rows there

Cases:
  kill     the owner's daemon, SIGKILL; its service and its kernel live on
  freeze   the owner's daemon, SIGSTOP
  cut      nothing passes between the owner and the bridge; its carrier stays
  carrier  the owner's cable is out
  term     the owner's daemon, SIGTERM
  move     `sinew vip move`
  drain    `sinew vip drain`
  merge    a cut heals, after both sides have had the address

In every trial all cases are tried, one after the other, and each with all groups before the next:
what else the machine does then disturbs all alike. `calm` is the longest time between two answers in
the 300 ms before anything happens: the noise floor of the same trial. `both`: for how long two hosts
answered after what happened, each asked a thousand times a second by a witness of its own that asks
nobody else. `holes`: trials in which the client had no answer for more than a second. `2nd`: a host
still answers, if it is asked directly, half a second later: after an orderly hand-over ours does so
for one, for those who have not heard of the new owner. In term, move and drain the client asks ten
thousand times a second, without witnesses: what is lost counts.

It needs root. N trials of all cases take about N minutes, N times four with keepalived.

Examples:
  perf/failover
  perf/failover --only kill --only freeze --trials 50 --group safe
  perf/failover --trials 50 --json > failover.json
  perf/failover alarms --help";

/// Those that are asked for, running.
fn groups(wanted: &str) -> io::Result<Vec<Box<dyn Group>>> {
    let mut groups: Vec<Box<dyn Group>> = Vec::new();
    for (profile, second) in [("safe", false), ("fast", false), ("safe", true)] {
        if group::name_of(profile, second).contains(wanted) {
            groups.push(Box::new(group::Sinew::new(profile, second)));
        }
    }
    let adverts: Vec<&str> =
        ["0.01", "0.1", "1"].into_iter().filter(|advert| keepalived::name(advert).contains(wanted)).collect();
    match keepalived::version() {
        _ if adverts.is_empty() => {}
        Some(version) => {
            eprintln!("perf: beside {version}");
            for advert in adverts {
                groups.push(Box::new(keepalived::Keepalived::new(advert)?));
            }
        }
        None => eprintln!("perf: there is no keepalived on the PATH: it is left out"),
    }
    if groups.is_empty() {
        return Err(io::Error::other(format!("no group's name contains {wanted:?}")));
    }
    Ok(groups)
}

/// Measures; answers what is to be printed, and whether all is as it should be.
pub(crate) fn run(args: &Args) -> io::Result<(String, bool)> {
    Netns::new().map_err(|error| io::Error::new(error.kind(), format!("network namespaces need root: {error}")))?;
    match &args.other {
        Some(Other::Alarms(args)) => alarms::run(args),
        None => outages(args).map(|text| (text, true)),
    }
}

fn outages(args: &Args) -> io::Result<String> {
    let mut groups = groups(&args.group)?;
    let asked = |case: &Case| args.only.is_empty() || args.only.contains(case);
    let cases: Vec<Case> = Case::value_variants().iter().copied().filter(asked).collect();
    let mut rows: Vec<Row> = Vec::new();
    for &case in &cases {
        rows.extend(groups.iter().filter(|group| group.plays(case)).map(|group| Row::new(case, group.name())));
    }
    let mut noise = Noise::default();
    for trial in 1..=args.trials {
        noise.observe(two_cores());
        let mut row = rows.iter_mut();
        for &case in &cases {
            for group in groups.iter_mut().filter(|group| group.plays(case)) {
                let row = row.next().expect("one for each case of each group that plays it");
                let tried: Trial = match case::attempt(case, group.as_mut()) {
                    Ok(tried) => tried,
                    // One that could not be made leaves its row a trial short.
                    Err(error) => {
                        eprintln!(
                            "perf: trial {trial} of {}: {case}, {}: left out: {error}",
                            args.trials,
                            group.name()
                        );
                        continue;
                    }
                };
                let (trials, outage) = (args.trials, tried.outage_ms);
                eprintln!("perf: trial {trial} of {trials}: {case}, {}: {outage:.1} ms", group.name());
                row.trials.push(tried);
            }
        }
    }
    Ok(if args.json { report::json(&noise.report(), &rows) } else { report::text(&noise.report(), &rows) })
}
