//! `sinew config check`.

use crate::cli::failure::Failure;
use crate::cli::key;
use crate::cli::output::{self, counted};
use crate::config::{Config, Mistake};
use crate::runtime::key_file::{self, KeyFileError};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Find every mistake, each with its line and what to do about it
///
/// Checks all files, each as `sinew run` would before it starts anything, and that the key file, if it is there, is the
/// one of this member.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew config check a.toml b.toml
  sinew config check --json a.toml | jq '.files[].mistakes[]'
JSON: {\"files\": [{\"file\", \"ok\", \"mistakes\": [{\"file\", \"line\", \"column\", \"message\", \"help\"}], \"notes\"}]}

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
    let (members, links) = (counted(config.members.len() as u64, "member"), counted(config.links.len() as u64, "link"));
    let what = format!("router `{}`, {members}, {links}", config.name);
    match check_key(&config) {
        Key::Right => {
            Checked { summary: format!("{file}: ok: {what}"), file, ok: true, mistakes: Vec::new(), notes: Vec::new() }
        }
        Key::Absent(note) => {
            let summary = format!("{file}: ok: {what}\n  note: {note}");
            Checked { file, ok: true, mistakes: Vec::new(), notes: vec![note], summary }
        }
        Key::Wrong { what, help } => {
            let summary = format!("{file}: {what}\n  help: {help}");
            Checked { file, ok: false, mistakes: Vec::new(), notes: vec![what, help], summary }
        }
    }
}

/// What the key file of a configuration is.
enum Key {
    Right,
    /// Not here, which is no mistake: files are often checked elsewhere.
    Absent(String),
    Wrong {
        what: String,
        help: String,
    },
}

fn check_key(config: &Config) -> Key {
    let path = config.key_file.display();
    let identity = match key_file::load(&config.key_file) {
        Ok(identity) => identity,
        Err(KeyFileError::Missing(_)) => {
            return Key::Absent(format!("the key file {path} is not there; `sinew key generate {path}` makes one"));
        }
        Err(error) => {
            let (what, help) = key::explain(&error);
            return Key::Wrong { what, help };
        }
    };
    let (name, public) = (&config.name, identity.public().to_string());
    match config.members.iter().find(|member| member.public == public) {
        Some(member) if member.name == *name => Key::Right,
        Some(member) => Key::Wrong {
            what: format!("the key {path} is member `{}`'s, and this is the configuration of `{name}`", member.name),
            help: format!("give `key` the file of `{name}`, or change `name`"),
        },
        None => Key::Wrong {
            what: format!("the key {path} is not the key of the member `{name}`"),
            help: format!("give `key` the right file, or list this one in every configuration: public = \"{public}\""),
        },
    }
}
