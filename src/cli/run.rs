//! `sinew run`: be a router.

use super::failure::Failure;
use super::key;
use crate::runtime::RunError;
use clap::ValueEnum;
use std::path::PathBuf;
use tracing_subscriber::filter::LevelFilter;

/// Be a router, until SIGTERM or SIGINT
///
/// Reads the whole configuration first: a file with mistakes in it starts nothing, and all of them are shown. Stays in
/// the foreground and logs to standard error. SIGHUP reads the configuration again and says in the log what took effect
/// and what needs a restart.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew key generate a.key
  sinew config check a.toml && sinew run -c a.toml
  sinew run -c a.toml --log-json --log-level debug 2> a.log
As a service: configs/systemd/sinew.service

Signals: SIGTERM and SIGINT stop it in order, SIGHUP reads the configuration again, SIGUSR1 writes
every histogram to a .hgrm file of the directory `histograms` of [telemetry]; the log says where.
Exit codes: 0 stopped in order, 1 it could not start or go on (the log says why), 2 a mistake in
the command line, the configuration or the key.")]
pub(super) struct Args {
    /// The configuration; configs/sinew.toml explains every key
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// What to log
    #[arg(long, value_enum, default_value_t = Level::Info, value_name = "LEVEL")]
    log_level: Level,
    /// Log JSON, one object a line
    #[arg(long)]
    log_json: bool,
}

/// What is logged: this level and those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Nothing
    Off,
    /// What stops the router or a part of it
    Error,
    /// What is wrong and worked around
    Warn,
    /// What changes: links, routes, settings
    Info,
    /// Why it changes
    Debug,
    /// Everything, for developers
    Trace,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let config = crate::config::load_with_key(&args.config, &key::mistake)
        .map_err(|errors| Failure::Usage(format!("the configuration is refused, nothing was started\n\n{errors}")))?;
    log(args.log_level, args.log_json);
    crate::runtime::run(config, &args.config).map_err(|error| match error {
        RunError::Key(_) | RunError::Cores(_) | RunError::Configuration(_) => Failure::Usage(error.to_string()),
        error => Failure::Failed(error.to_string()),
    })
}

fn log(level: Level, json: bool) {
    let level = match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    // A second router in one process (a test) keeps the first one's log.
    let _ = if json { log.json().try_init() } else { log.with_ansi(color).with_target(false).try_init() };
}
