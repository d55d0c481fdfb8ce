//! `sinew config check`.

use crate::cli::failure::Failure;
use crate::cli::key;
use crate::cli::output::{self, counted};
use crate::config::{Config, Mistake, Workers};
use crate::runtime::machine::{Topology, place, placement, scheduling};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Find every mistake, each with its line and what to do about it
///
/// Checks all files, each as `sinew run` would before it starts anything, and that the key file is there and is the one of
/// this member.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew config check a.toml b.toml
  sinew config check --json a.toml | jq '.files[].mistakes[]'
JSON: {\"files\": [{\"file\", \"ok\", \"mistakes\": [{\"file\", \"line\", \"column\", \"message\", \"help\"}],
\"notes\"}]}

Exit codes: 0 all files are right, 2 some file or its key is not.")]
pub(super) struct Args {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    files: Vec<Checked>,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    ok: bool,
    mistakes: Vec<Mistake>,
    /// What is no mistake of the text, yet keeps it from working here, or may.
    notes: Vec<String>,
    #[serde(skip)]
    summary: String,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let report = Report { files: args.files.iter().map(|path| check(path)).collect() };
    if args.json {
        output::json(&report)?;
    } else {
        for checked in &report.files {
            output::line(&checked.summary)?;
        }
    }
    if report.files.iter().all(|checked| checked.ok) { Ok(()) } else { Err(Failure::Refused) }
}

fn check(path: &Path) -> Checked {
    let file = path.display().to_string();
    let config = match crate::config::load_with_key(path, &key::mistake) {
        Ok(config) => config,
        Err(errors) => {
            let summary = errors.to_string();
            return Checked { file, ok: false, mistakes: errors.mistakes().to_vec(), notes: Vec::new(), summary };
        }
    };
    let (members, links) = (counted(config.members.len() as u64, "member"), counted(config.links.len() as u64, "link"));
    let what = format!("router `{}`, {members}, {links}", config.name);
    let notes = socket_note(&config.control_socket).into_iter().chain(cores_note(&config.workers));
    let notes: Vec<String> = notes.chain(lanes_notes(&config)).collect();
    let shown: String = notes.iter().map(|note| format!("\n  note: {note}")).collect();
    Checked { summary: format!("{file}: ok: {what}{shown}"), file, ok: true, mistakes: Vec::new(), notes }
}

/// What keeps the control socket from being made here, which is no mistake of the text.
fn socket_note(socket: &Path) -> Option<String> {
    let directory = socket.parent().filter(|parent| !parent.as_os_str().is_empty())?;
    let missing = !directory.is_dir();
    missing.then(|| {
        let directory = directory.display();
        format!("the directory of `control_socket`, {directory}, is not there; `mkdir -p {directory}` makes it")
    })
}

/// What keeps the workers from their cores on this machine, which may be another than the router's.
fn cores_note(workers: &Workers) -> Option<String> {
    let topology = Topology::here();
    let placed = place(&topology, &workers.cores, workers.count);
    let considered = placed.and_then(|placement| {
        placement::consider(&topology, &placement, workers.idle, workers.realtime, scheduling::throttle())
    });
    Some(format!("on this machine `sinew run` would refuse it: {}", considered.err()?))
}

/// Links whose last lanes have no port to lead to, if the neighbours have as many workers as this router: a link has as many
/// lanes as the end with fewer, which only the other one can tell.
fn lanes_notes(config: &Config) -> impl Iterator<Item = String> {
    let workers = config.workers.count;
    let paths = config.links.iter().flat_map(|link| link.paths.iter().map(move |path| (&link.peer, path.remote)));
    paths.filter_map(move |(peer, remote)| {
        let lanes = usize::from(u16::MAX - remote.port()) + 1;
        (lanes < workers).then(|| {
            let (theirs, port) = (counted(lanes as u64, "worker"), remote.port());
            format!(
                "the link to `{peer}`: lane k leads to port {port} plus k, and 65535 is the highest; that is enough if \
                 `{peer}` has at most {theirs} (this router has {workers}), and with more it stays down: give it a lower port"
            )
        })
    })
}
