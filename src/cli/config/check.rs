//! `sinew config check`.

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::config::{Config, Mistake};
use crate::runtime::key_file;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Find every mistake, each with its line and what to do about it
///
/// Checks all files, each as `sinew run` would before it starts anything, and that the key file, if it is there, is the
/// one of this member. Exit code 2 if any file has a mistake.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew config check a.toml b.toml
  sinew config check --json a.toml | jq '.files[].mistakes[]'
JSON: {\"files\": [{\"file\", \"ok\", \"mistakes\": [{\"file\", \"line\", \"column\", \"message\", \"help\"}], \"notes\"}]}")]
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
    /// What is no mistake of the text, yet keeps it from working here.
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
    let config = match crate::config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            let summary = errors.to_string();
            return Checked { file, ok: false, mistakes: errors.mistakes().to_vec(), notes: Vec::new(), summary };
        }
    };
    let (members, links) = (config.members.len(), config.links.len());
    let (ok, note) = check_key(&config);
    let verdict = if ok { "ok" } else { "the key is wrong" };
    let mut summary = format!("{file}: {verdict}: router `{}`, {members} members, {links} links", config.name);
    if let Some(note) = &note {
        summary += &format!("\n  note: {note}");
    }
    Checked { file, ok, mistakes: Vec::new(), notes: note.into_iter().collect(), summary }
}

/// Whether the key file is this member's, and what is to be said of it. A key that is not here is no mistake: files are
/// often checked elsewhere.
fn check_key(config: &Config) -> (bool, Option<String>) {
    let path = config.key_file.display();
    if !config.key_file.exists() {
        return (true, Some(format!("the key file {path} is not there; `sinew key generate {path}` makes one")));
    }
    let public = match key_file::load(&config.key_file) {
        Ok(identity) => identity.public().to_string(),
        Err(error) => return (false, Some(format!("the key file cannot be used: {error}"))),
    };
    let listed = config.members.iter().any(|member| member.name == config.name && member.public == public);
    if listed {
        return (true, None);
    }
    let name = &config.name;
    (false, Some(format!("{path} is not the key of the member `{name}`: it belongs to `public = \"{public}\"`")))
}
