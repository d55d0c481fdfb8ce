//! `sinew key`: identities.

use super::failure::Failure;
use super::output;
use crate::base::{Identity, PublicIdentity};
use crate::runtime::key_file;
use clap::Subcommand;
use ring::rand::SecureRandom as _;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Make and show routers' identities
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew key generate /etc/sinew/a.key
  sinew key show /etc/sinew/a.key        # the public identity: goes into every router's [[member]] list")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new identity; an existing file is never overwritten
    #[command(after_help = "Example:\n  sinew key generate /etc/sinew/a.key")]
    Generate {
        /// The key file; only its owner can read it (mode 0600)
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the public identity of a key file
    #[command(after_help = "Example:\n  sinew key show /etc/sinew/a.key")]
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
            let path = file.display();
            key_file::create(&file, &identity)
                .map_err(|error| Failure::failed(format!("cannot make {path}"), error))?;
            show(&file, identity.public(), json)?;
            if !json {
                eprintln!("next: list it in every router's configuration as `public` of a [[member]]");
            }
            Ok(())
        }
        Action::Show { file, json } => {
            let path = file.display();
            let identity = key_file::load(&file).map_err(|error| {
                Failure::Failed(format!("cannot use {path}: {error}; `sinew key generate FILE` makes a new one"))
            })?;
            show(&file, identity.public(), json)
        }
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
    eprintln!("node id {}", shown.node);
    Ok(())
}
