//! One router of a world: its files, its process, its namespace.

use super::ladder;
use super::netns::{self, Netns};
use super::timens::ClockShift;
use crate::base::{Identity, PublicIdentity};
use crate::client::Overlay;
use crate::wire::admin::{Request, Response};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A router. Its process dies with the thread that started it, so start routers from a thread that stays.
#[derive(Debug)]
pub struct Router {
    pub(super) name: String,
    pub(super) public: PublicIdentity,
    pub(super) netns: Option<Netns>,
    /// Where it listens for its neighbours.
    pub(super) listen: SocketAddrV4,
    /// Where the kernel's own traffic for it goes.
    pub(super) address: Ipv4Addr,
    pub(super) dir: PathBuf,
    pub(super) program: PathBuf,
    /// Core kept free of routers, if there are enough.
    pub(super) spared_core: Option<usize>,
    pub(super) child: Mutex<Option<Child>>,
}

impl Router {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What others know it by.
    pub const fn public(&self) -> PublicIdentity {
        self.public
    }

    /// Its address in the kernel's routing: on its loopback interface, reached from every other router over the links.
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    /// Its configuration file. May be rewritten before [`Router::restart`].
    pub fn config(&self) -> PathBuf {
        self.file("toml")
    }

    /// What it wrote to standard output and standard error so far.
    pub fn log(&self) -> String {
        std::fs::read(self.file("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.name))
    }

    /// Its process, while that runs.
    pub fn pid(&self) -> Option<u32> {
        let mut child = self.child();
        match child.as_mut()?.try_wait() {
            Ok(None) => child.as_ref().map(Child::id),
            _ => None,
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A connection to it, as an application or a command has.
    pub fn overlay(&self) -> io::Result<Overlay> {
        Overlay::connect(self.socket())
    }

    /// Runs `work` where its network is: what is opened there is opened at this router.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match &self.netns {
            Some(netns) => netns.run(work),
            None => work(),
        }
    }

    /// Runs a command where its network is.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let parent = std::process::id();
        let netns = self.netns.as_ref().map(|netns| netns.as_fd().as_raw_fd());
        let cores = self.spared_core.map(all_but);
        let prepare = move || {
            ladder::die_with(parent)?;
            if let Some(netns) = netns {
                // SAFETY: the descriptor belongs to the world, which outlives the fork.
                netns::enter(unsafe { std::os::fd::BorrowedFd::borrow_raw(netns) })?;
            }
            if let Some(cores) = &cores {
                // SAFETY: the pointer and size describe `cores`; a refusal only leaves the affinity as it was.
                unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cores) };
            }
            Ok(())
        };
        // SAFETY: between fork and exec only system calls on memory prepared above.
        unsafe { command.pre_exec(prepare) };
        command
    }

    /// Starts its process, if it does not run.
    pub fn start(&self) -> io::Result<()> {
        self.launch(None)
    }

    /// As [`Router::start`], with other clocks than the machine's. See [`Router::can_shift_clocks`].
    pub fn start_with_clocks(&self, shift: ClockShift) -> io::Result<()> {
        self.launch(Some(shift))
    }

    /// Whether its process may have other clocks than the machine's; if not, why.
    pub fn can_shift_clocks(&self) -> io::Result<()> {
        let mut command = self.command(&self.program);
        ClockShift { monotonic: 60, boottime: 60 }.apply(&mut command);
        command.arg("--version").stdin(Stdio::null());
        let refused = |error: io::Error| io::Error::new(error.kind(), format!("time namespaces: {error}"));
        command.output().map(drop).map_err(refused)
    }

    fn launch(&self, shift: Option<ClockShift>) -> io::Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.file("log"))?;
        let mut command = self.command(&self.program);
        command.arg("run").arg("-c").arg(self.config());
        command.env_remove(ladder::MODE_VARIABLE);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(shift) = shift {
            shift.apply(&mut command);
        }
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("router {}: {}: {error}", self.name, self.program.display()))
        })?;
        *self.child() = Some(child);
        Ok(())
    }

    /// Kills it with SIGKILL, as a crash would, and waits until it is gone.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            // A child that has ended already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end with SIGTERM and waits, at most `patience`, then kills it. Returns how it ended if it did so
    /// by itself.
    pub fn terminate(&self, patience: Duration) -> Option<ExitStatus> {
        let mut child = self.child().take()?;
        send_signal(child.id(), libc::SIGTERM);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }

    /// Freezes it with SIGSTOP.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on after [`Router::stop`].
    pub fn cont(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: i32) {
        if let Some(pid) = self.pid() {
            send_signal(pid, signal);
        }
    }

    /// Kills it if it runs, and starts it again.
    pub fn restart(&self) -> io::Result<()> {
        self.kill();
        self.start()
    }

    /// The sum over its workers, links and sessions of a counter, by its name in [`Response::Stats`].
    pub fn stat(&self, name: &str) -> io::Result<u64> {
        match self.overlay()?.request(&Request::Stats)? {
            Response::Stats { workers } => Ok(workers.iter().map(|worker| sum_named(worker, name)).sum()),
            other => Err(io::Error::other(format!("router {} answered {other:?}", self.name))),
        }
    }

    /// Whether it has a route to every member.
    pub(super) fn reaches_everyone(&self) -> io::Result<bool> {
        match self.overlay()?.request(&Request::Nodes)? {
            Response::Nodes { nodes } => Ok(nodes.iter().all(|node| node.this || node.reachable)),
            _ => Ok(false),
        }
    }

    /// Writes its key and its configuration.
    pub(super) fn write_files(&self, identity: &Identity, config: &str) -> io::Result<()> {
        let mut key = File::options().create(true).truncate(true).write(true).mode(0o600).open(self.file("key"))?;
        io::Write::write_all(&mut key, format!("{}\n", identity.to_secret_text().as_str()).as_bytes())?;
        std::fs::write(self.config(), config)
    }

    /// Where its key file is.
    pub(super) fn key_file(&self) -> PathBuf {
        self.file("key")
    }
}

/// The sum of all numbers in `value` whose key is `name`, however deep.
pub(super) fn sum_named(value: &serde_json::Value, name: &str) -> u64 {
    match value {
        serde_json::Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match value.as_u64() {
                Some(number) if key == name => number,
                _ => sum_named(value, name),
            })
            .sum(),
        serde_json::Value::Array(values) => values.iter().map(|value| sum_named(value, name)).sum(),
        _ => 0,
    }
}

fn send_signal(pid: u32, signal: i32) {
    // SAFETY: the process is a child not yet waited for, so the id is still its own.
    unsafe { libc::kill(pid as i32, signal) };
}

/// Every core but one.
fn all_but(core: usize) -> libc::cpu_set_t {
    // SAFETY: an all-zero set is valid and empty; CPU_SET and CPU_CLR stay within it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (0..libc::CPU_SETSIZE as usize).for_each(|core| libc::CPU_SET(core, &mut set));
        libc::CPU_CLR(core, &mut set);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_by_name() {
        let value = serde_json::json!({
            "links": [{"stats": {"again": 3, "needless_again": 9}}, {"stats": {"again": 4}}],
            "bytes_in": 7,
        });
        assert_eq!((sum_named(&value, "again"), sum_named(&value, "bytes_in"), sum_named(&value, "no")), (7, 7, 0));
    }
}
