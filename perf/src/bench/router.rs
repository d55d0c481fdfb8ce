//! The router under test: the real binary, in a process of its own.

use super::machine::{Cores, Watched};
use sinew::base::{Identity, NodeId};
use sinew::client::Overlay;
use sinew::client::admin::{Request, Response};
use sinew::config::settings::Member;
use sinew::dataplane::messages::ShardStats;
use sinew::runtime::key_file;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WORKER: &str = "sinew-worker-";
/// A router that does not answer by then did not start.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the router is run.
pub(crate) struct Setup<'a> {
    pub(crate) io: &'a str,
    pub(crate) offload: &'a str,
    pub(crate) idle: &'a str,
    pub(crate) congestion: &'a str,
    /// Workers, all of them on one core.
    pub(crate) workers: usize,
    /// That core, and those of the rest of its process.
    pub(crate) core: Option<usize>,
    pub(crate) allowed: Cores,
}

/// The router.
pub(crate) struct Router {
    pub(crate) workers: Watched,
    overlay: Overlay,
    child: Child,
    directory: tempfile::TempDir,
}

impl Router {
    /// Starts the router that `name` and `identity` are, between `neighbours` (their names and addresses).
    pub(crate) fn start(
        setup: &Setup<'_>,
        name: &str,
        identity: &Identity,
        members: &[Member],
        listen: SocketAddr,
        neighbours: &[(&str, SocketAddr)],
    ) -> io::Result<Router> {
        let directory = tempfile::tempdir()?;
        key_file::create(&directory.path().join("r.key"), identity).map_err(io::Error::other)?;
        let file = directory.path().join("r.toml");
        fs::write(&file, configuration(setup, name, members, listen, neighbours))?;
        let log = File::create(directory.path().join("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
        command.arg("run").arg("-c").arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let allowed = setup.allowed;
        // SAFETY: two system calls, without memory of their own. The router must not outlive the measurement, nor share
        // the one core that the neighbours are pinned to.
        unsafe {
            command.pre_exec(move || {
                allowed.restore();
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        let socket = directory.path().join("r.sock");
        let Some(overlay) = connect(&socket, &mut child) else {
            let _ = child.kill();
            let _ = child.wait();
            let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            return Err(io::Error::other(format!("the router did not start:\n{log}")));
        };
        let workers = Watched::find(child.id(), WORKER)?;
        // A configuration gives no two workers one core.
        if let Some(core) = setup.core.filter(|_| setup.workers > 1) {
            workers.share(core);
        }
        Ok(Router { workers, overlay, child, directory })
    }

    /// A connection to it.
    pub(crate) fn client(&self) -> io::Result<Overlay> {
        Overlay::connect(self.directory.path().join("r.sock"))
    }

    /// The system calls it uses, and why.
    pub(crate) fn io(&self) -> io::Result<String> {
        match self.overlay.request(&Request::Whoami)? {
            Response::Whoami { io, .. } => Ok(io),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// What its workers counted so far.
    pub(crate) fn stats(&self) -> io::Result<Vec<ShardStats>> {
        let begun = Instant::now();
        loop {
            match self.overlay.request(&Request::Stats)? {
                Response::Stats { workers } => {
                    return workers
                        .into_iter()
                        .map(serde_json::from_value)
                        .collect::<Result<_, _>>()
                        .map_err(io::Error::other);
                }
                // A worker that others keep from its core answers later.
                Response::Error { .. } if begun.elapsed() < PATIENCE => {}
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
        }
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(socket: &Path, child: &mut Child) -> Option<Overlay> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && child.try_wait().is_ok_and(|ended| ended.is_none()) {
        if let Ok(overlay) = Overlay::connect(socket) {
            return Some(overlay);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn configuration(
    setup: &Setup<'_>,
    name: &str,
    members: &[Member],
    listen: SocketAddr,
    neighbours: &[(&str, SocketAddr)],
) -> String {
    let cores = setup.core.filter(|_| setup.workers == 1).map(|core| core.to_string()).unwrap_or_default();
    let workers = setup.workers;
    let mut text = format!(
        "name = \"{name}\"\nkey = \"r.key\"\nlisten = \"{listen}\"\ncontrol_socket = \"r.sock\"\n\
         [workers]\ncount = {workers}\ncores = [{cores}]\nio = \"{}\"\noffload = \"{}\"\nidle = \"{}\"\n",
        setup.io, setup.offload, setup.idle
    );
    for Member { name, public } in members {
        // Writing to a String cannot fail.
        let _ = write!(text, "[[member]]\nname = \"{name}\"\npublic = \"{public}\"\n");
    }
    for (peer, remote) in neighbours {
        let congestion = setup.congestion;
        let _ = write!(text, "[[link]]\npeer = \"{peer}\"\nremote = \"{remote}\"\ncongestion = \"{congestion}\"\n");
    }
    text
}

/// What a router counted between two moments, as far as it matters here.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) forwarded: u64,
    /// Datagrams in the direction of the messages, and messages in them.
    pub(crate) datagrams_in: u64,
    pub(crate) messages_in: u64,
    pub(crate) datagrams_out: u64,
    pub(crate) messages_out: u64,
    /// Datagrams in the other direction, received and sent: acknowledgements.
    pub(crate) datagrams_back: u64,
    pub(crate) retransmissions: u64,
    pub(crate) drops: u64,
}

impl Counted {
    /// Of a forwarder whose datagrams are messages.
    pub(crate) fn unbundled(count: u64) -> Counted {
        Counted {
            forwarded: count,
            datagrams_in: count,
            messages_in: count,
            datagrams_out: count,
            messages_out: count,
            ..Counted::default()
        }
    }

    /// From the counters of the workers of a router that stands between `source` and `sinks`.
    pub(crate) fn between(workers: &[ShardStats], source: NodeId, sinks: &[NodeId]) -> Counted {
        let forwarded = workers.iter().map(|stats| stats.forwarded).sum();
        let drops = workers.iter().map(|stats| stats.drops.total()).sum();
        let mut counted = Counted { forwarded, drops, ..Counted::default() };
        for link in workers.iter().flat_map(|stats| &stats.links) {
            let stats = &link.stats;
            counted.drops += stats.drops.total();
            if link.peer == source {
                counted.datagrams_in += stats.packets_in;
                counted.messages_in += stats.best_effort.received + stats.reliable.received;
                counted.datagrams_back += stats.packets_out;
            } else if sinks.contains(&link.peer) {
                counted.datagrams_out += stats.packets_out;
                counted.messages_out += stats.best_effort.sent + stats.reliable.sent;
                counted.datagrams_back += stats.packets_in;
                counted.retransmissions += stats.retransmissions;
            }
        }
        counted
    }

    pub(crate) fn since(self, before: Counted) -> Counted {
        Counted {
            forwarded: self.forwarded - before.forwarded,
            datagrams_in: self.datagrams_in - before.datagrams_in,
            messages_in: self.messages_in - before.messages_in,
            datagrams_out: self.datagrams_out - before.datagrams_out,
            messages_out: self.messages_out - before.messages_out,
            datagrams_back: self.datagrams_back - before.datagrams_back,
            retransmissions: self.retransmissions - before.retransmissions,
            drops: self.drops - before.drops,
        }
    }
}
