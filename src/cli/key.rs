//! `sinew key`: identities.

use super::failure::Failure;
use super::output;
use crate::base::identity::BadIdentity;
use crate::base::{Identity, PublicIdentity};
use crate::config::KeyClaim;
use crate::runtime::key_file::{self, KeyFileError};
use clap::Subcommand;
use ring::rand::SecureRandom as _;
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};

/// Make and show routers' identities
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew key generate /etc/sinew/a.key
  sinew key show /etc/sinew/a.key     # the public identity: for every router's [[member]]s

Exit codes: 0 done, 1 it could not be read or made, 2 wrong command line.")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new identity; an existing file is never overwritten
    #[command(after_help = "\
Example:
  sinew key generate /etc/sinew/a.key

Standard output has the public identity alone. It goes into every router's configuration, this
one's included:
  [[member]]
  name = \"a\"
  public = \"sinew-public-...\"
JSON: {\"file\", \"public\", \"node\"}; `node` is the id that follows from the key.

Exit codes: 0 done, 1 the file exists or cannot be made, 2 wrong command line.")]
    Generate {
        /// The key file; only its owner can read it (mode 0600)
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the public identity of a key file
    #[command(after_help = "\
Example:
  sinew key show /etc/sinew/a.key

Standard output has the public identity alone, which is no secret. JSON: {\"file\", \"public\",
\"node\"}.

Exit codes: 0 done, 1 the file is no key, is not readable, or is readable by others; 2 wrong
command line.")]
    Show {
        /// The key file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Shown {
    file: String,
    public: String,
    node: String,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    match args.action {
        Action::Generate { file, json } => {
            let identity = random_identity()?;
            key_file::create(&file, &identity).map_err(|error| failure(&error))?;
            show(&file, identity.public(), json)?;
            if !json {
                output::note(format_args!("next: list it in every router's configuration as `public` of a [[member]]"));
            }
            Ok(())
        }
        Action::Show { file, json } => {
            let identity = key_file::load(&file).map_err(|error| failure(&error))?;
            show(&file, identity.public(), json)
        }
    }
}

/// What is wrong with a key file, as a command ends with it.
pub(super) fn failure(error: &KeyFileError) -> Failure {
    let (what, help) = explain(error);
    Failure::Failed(format!("{what}\n  help: {help}"))
}

/// What is wrong with the key file that a configuration names, and what to do about it.
pub(super) fn mistake(claim: KeyClaim<'_>) -> Option<(String, String)> {
    let identity = match key_file::load(claim.file) {
        Ok(identity) => identity,
        Err(error) => return Some(explain(&error)),
    };
    let (path, public) = (claim.file.display(), identity.public().to_string());
    let name = claim.name?;
    let listed = claim.members.iter().find(|member| member.name == name)?;
    match claim.members.iter().find(|member| member.public == public) {
        Some(member) if member.name == name => None,
        Some(member) => Some((
            format!("the key {path} is member `{}`'s, and this is the configuration of `{name}`", member.name),
            format!("give `key` the file of `{name}`, or change `name`"),
        )),
        // What is wrong is said where it stands.
        None if listed.public.is_empty() => None,
        None => Some((
            format!("the key {path} is not the key of the member `{name}`"),
            format!("give `key` the right file, or list this one in every configuration: public = \"{public}\""),
        )),
    }
}

/// What is wrong with a key file, and what to do next.
fn explain(error: &KeyFileError) -> (String, String) {
    match error {
        KeyFileError::Exists(path) => (
            format!("{} is there already, and a key is never overwritten", path.display()),
            format!("print its public identity with `sinew key show {}`, or choose another name", path.display()),
        ),
        KeyFileError::Missing(path) => (
            format!("{} is not there", path.display()),
            format!("name an existing key, or make a new one with `sinew key generate {}`", path.display()),
        ),
        KeyFileError::Permissions { path, mode } => (
            format!("the key {} can be used by others than its owner (mode {mode:04o})", path.display()),
            format!("`chmod 600 {}`; and make a new key if others may have read this one", path.display()),
        ),
        KeyFileError::NotRegular(path) => (
            format!("{} is a directory or a device, not a key file", path.display()),
            "name the file that `sinew key generate` wrote".to_owned(),
        ),
        KeyFileError::Content { path, reason: BadIdentity::Form(..) } => (
            format!("{} holds no secret identity, or only a part of one", path.display()),
            "name the file that `sinew key generate` wrote, not a configuration or a public identity".to_owned(),
        ),
        KeyFileError::Content { path, reason } => {
            (format!("{}: {reason}", path.display()), "name the file that `sinew key generate` wrote".to_owned())
        }
        KeyFileError::Io { action, path, source } => {
            (format!("{}: cannot {action}: {source}", path.display()), after(path, source))
        }
    }
}

/// What to do after the system refused to read or write a key.
fn after(path: &Path, error: &io::Error) -> String {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match error.kind() {
        io::ErrorKind::NotFound => format!("make the directory first: `mkdir -p {}`", directory.display()),
        io::ErrorKind::NotADirectory => format!("{} is a file: choose a path below a directory", directory.display()),
        io::ErrorKind::PermissionDenied if path.exists() => {
            "run as the key's owner: the router's user, or root".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("{} is not for this user: choose a directory of your own, or run as root", directory.display())
        }
        io::ErrorKind::ReadOnlyFilesystem => "choose a path on a file system that can be written to".to_owned(),
        io::ErrorKind::StorageFull => "make room, or choose a path on another file system".to_owned(),
        _ => format!("see `ls -la {}`", directory.display()),
    }
}

/// A new identity.
pub(super) fn random_identity() -> Result<Identity, Failure> {
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    let filled = ring::rand::SystemRandom::new().fill(seed.as_mut_slice());
    filled.map_err(|_| Failure::Failed("the system gives no random numbers".to_owned()))?;
    Ok(Identity::from_seed(*seed))
}

fn show(file: &Path, public: PublicIdentity, json: bool) -> Result<(), Failure> {
    let shown =
        Shown { file: file.display().to_string(), public: public.to_string(), node: public.node_id().to_string() };
    if json {
        return output::json(&shown);
    }
    output::line(format_args!("{}", shown.public))?;
    output::note(format_args!("node id {}", shown.node));
    Ok(())
}
