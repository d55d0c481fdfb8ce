//! `sinew config example`.

use crate::base::Identity;
use crate::cli::failure::Failure;
use crate::cli::{key, output};
use crate::config::{Clients, Config, Link, Member, Metric, Routing, Telemetry, Workers, to_toml};
use crate::runtime::key_file;
use clap::ValueEnum;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Ports between two routers' first ports, so that each has room for more workers.
const PORT_STEP: u16 = 10;

/// Write a small network that runs on this machine: a key and a configuration for each router
///
/// All keys are new; existing files are never overwritten. For several machines, copy each router's two files there and
/// change `listen` and the links' `remote`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew config example ring net
  sinew config example chain net --routers 3 --port 7000
  sinew run -c net/a.toml

JSON: [{\"name\", \"config\", \"control_socket\"}, ...].

Exit codes: 0 written, 1 a file exists or cannot be written, 2 wrong command line.")]
pub(super) struct Args {
    /// How the routers are joined
    #[arg(value_enum)]
    topology: Topology,
    /// Where to write; made if it is not there
    directory: PathBuf,
    /// Routers [default: 2 in a pair, else 6]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=26))]
    routers: Option<u16>,
    /// First UDP port on 127.0.0.1; each router takes the tenth after the one before
    #[arg(short, long, default_value_t = 5310, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Topology {
    /// Two routers, one link
    Pair,
    /// a - b - c - ...
    Chain,
    /// a - b - c - ... - a: survives any one failure
    Ring,
}

/// A router that was written.
#[derive(Serialize)]
struct Written {
    name: String,
    config: PathBuf,
    control_socket: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let written = write(args)?;
    if args.json {
        return output::json(&written);
    }
    for Written { config, .. } in &written {
        output::line(format_args!("sinew run -c {} &", config.display()))?;
    }
    let last = &written[written.len() - 1].name;
    output::line(format_args!("sinew -s {} ping {last}", written[0].control_socket.display()))
}

fn write(args: &Args) -> Result<Vec<Written>, Failure> {
    let count = usize::from(args.routers.unwrap_or(if args.topology == Topology::Pair { 2 } else { 6 }));
    if args.topology == Topology::Pair && count != 2 {
        return Err(Failure::Usage("a pair has two routers: use `chain` or `ring` for more".to_owned()));
    }
    let cannot = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Failure::failed(format!("cannot write {path}"), error)
    };
    std::fs::create_dir_all(&args.directory).map_err(cannot(&args.directory))?;
    let identities = (0..count).map(|_| key::random_identity()).collect::<Result<Vec<_>, _>>()?;
    let mut written = Vec::new();
    for (place, identity) in identities.iter().enumerate() {
        let config = configuration(args, place, &identities);
        let (secret, path) =
            (args.directory.join(&config.key_file), args.directory.join(config.name.clone() + ".toml"));
        key_file::create(&secret, identity).map_err(|error| key::failure(&error))?;
        let mut file = std::fs::File::create_new(&path).map_err(cannot(&path))?;
        std::io::Write::write_all(&mut file, to_toml(&config).as_bytes()).map_err(cannot(&path))?;
        let control_socket = args.directory.join(&config.control_socket);
        written.push(Written { name: config.name, config: path, control_socket });
    }
    Ok(written)
}

fn name(place: usize) -> String {
    char::from(b'a' + u8::try_from(place).expect("there are at most 26 routers")).to_string()
}

fn configuration(args: &Args, place: usize, identities: &[Identity]) -> Config {
    let count = identities.len();
    let address = |place: usize| {
        let port = args.port + PORT_STEP * u16::try_from(place).expect("there are at most 26 routers");
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    };
    let (before, after) = ((place + count - 1) % count, (place + 1) % count);
    let closed = args.topology == Topology::Ring && count > 2;
    let mut peers = Vec::new();
    peers.extend((place > 0 || closed).then_some(before));
    peers.extend((place + 1 < count || closed).then_some(after));
    Config {
        name: name(place),
        key_file: PathBuf::from(name(place) + ".key"),
        listen: address(place),
        control_socket: PathBuf::from(name(place) + ".sock"),
        workers: Workers::default(),
        lock_memory: false,
        members: (0..count)
            .map(|place| Member { name: name(place), public: identities[place].public().to_string() })
            .collect(),
        links: peers.into_iter().map(|peer| Link::new(name(peer), Some(address(peer)))).collect(),
        routing: Routing { metric: Metric::Expected },
        telemetry: Telemetry::new(Path::new("")),
        clients: Clients::default(),
        vip: None,
        groups: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_right_and_join_their_routers() {
        for (topology, routers, links) in [
            (Topology::Pair, None, vec![1, 1]),
            (Topology::Chain, Some(3), vec![1, 2, 1]),
            (Topology::Ring, Some(4), vec![2, 2, 2, 2]),
            (Topology::Ring, Some(2), vec![1, 1]),
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let args = Args { topology, directory: directory.path().join("net"), routers, port: 7000, json: true };
            write(&args).expect("writes the example");
            for (place, links) in links.into_iter().enumerate() {
                let path = args.directory.join(name(place) + ".toml");
                let config = crate::config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
                assert_eq!(config.links.len(), links, "{topology:?} {}", config.name);
                let key = key_file::load(&config.key_file).map_err(|error| error.to_string()).expect("has its key");
                assert_eq!(key.public().to_string(), config.members[place].public);
            }
            assert!(write(&args).is_err(), "existing files are left alone");
        }
    }
}
