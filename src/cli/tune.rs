//! `sinew tune`: what this machine costs a router, and what would make it cost less.

use super::failure::Failure;
use super::output;
use super::stop::Stop;
use crate::config::settings::Workers;
use crate::config::{self, Config};
use crate::tune::{self, Wanted};
use std::path::{Path, PathBuf};

/// Look at this machine, measure what it costs a router, and say what would help
///
/// Looks at processors and their speed, isolation, interrupts and packet steering of the interfaces in use, limits of
/// socket buffers, locked memory and real-time priority, io_uring, trains of datagrams (UDP segmentation and receive
/// offload), the clock and the hypervisor; measures timers, wake-ups, datagrams and every idle strategy; and prints the
/// commands and the configuration that it recommends. It changes nothing. Works as an ordinary user; what could not be
/// seen is said.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew tune                           look and measure, about 10 s; best on a quiet machine
  sinew tune -c /etc/sinew/a.toml      for this router: its workers, its links' interfaces
  sinew tune --quick                   look only
  sinew tune --json | jq -r '.checks[] | select(.state == \"advice\") | .commands[]'
  sinew tune --json | jq '.measured | .noise, .idle'    what spin, adaptive and wait cost here

Each line is one of: TO DO (would help, and can be done), could (helps some, and costs something
else), good, note (as it is), unseen (this user or this container cannot see it).
JSON: {\"quick\", \"machine\": {...}, \"measured\": {...} or null, \"checks\": [{\"name\", \"state\": \"advice|
option|good|note|unseen\", \"found\", \"cost\", \"advice\", \"commands\": [...]}], \"configuration\":
{\"differs\", \"text\", \"reasons\": [{\"key\", \"now\", \"why\"}]}, \"to_do\"}; _us are microseconds, _ns
nanoseconds; the names of checks stay what they are. `measured` has \"noise\" and, of each idle
strategy at 0, 1,000 and 10,000 datagrams a second, \"idle\": {\"costs\": [{\"idle\", \"per_second\",
\"p50_us\", \"p99_us\", \"added_us\", \"cpu_percent\", \"samples\", \"lost\"}], ...}.

Exit codes: 0 nothing is to be done, 1 something is (it is printed), 2 a mistake in the command
line or the configuration, 130 interrupted before it was done.")]
pub(super) struct Args {
    /// The router's configuration [default: that of a router that says nothing of its workers]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look only, measure nothing
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let wanted = wanted(args.config.as_deref())?;
    let stop = Stop::on_signals();
    let say = |what: &str| output::note(format_args!("tune: measuring {what}"));
    let report = tune::examine(&wanted, args.quick, &say, &|| !stop.is_set()).ok_or(Failure::Interrupted)?;
    if args.json {
        output::json(&report)?;
    } else {
        output::print(&report)?;
    }
    if report.to_do == 0 { Ok(()) } else { Err(Failure::Degraded) }
}

fn wanted(path: Option<&Path>) -> Result<Wanted, Failure> {
    let Some(path) = path else {
        let workers = Workers { idle: config::default_idle(config::cores_here()), ..Workers::default() };
        return Ok(Wanted { workers, ..Wanted::default() });
    };
    let read =
        config::load(path).map_err(|errors| Failure::Usage(format!("the configuration is refused\n\n{errors}")))?;
    let Config { workers, lock_memory, links, .. } = read;
    Ok(Wanted { workers, lock_memory, links, configured: true })
}
