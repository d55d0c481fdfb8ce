//! A process that holds virtual addresses as it is told: this very test program, run again in a host's namespace.

use crate::lan::Lan;
use crate::support::PATIENCE;
use sinew::lab::netns::enter;
use sinew::proto::vip::{HostCommand, HostReport};
use sinew::runtime::clock::Clock;
use sinew::runtime::doorbell::Doorbell;
use sinew::runtime::machine::scheduling::Standing;
use sinew::runtime::vip::{Address, Hook, Host, Set, Settings};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Tells the process its lease in milliseconds and its sets: `100;10.66.0.100@eth0 fd66::100@eth0;…`.
const VARIABLE: &str = "SINEW_VIP_HOLDER";
/// Tells the process where its hook writes.
const HOOK: &str = "SINEW_VIP_HOOK";
/// What reports begin with, among what a test program says.
const MARK: &str = "vip: ";

/// The process's own part. As a test it has nothing to do.
#[test]
fn holder() {
    let Ok(told) = std::env::var(VARIABLE) else { return };
    let clock = Clock::start();
    let bell = Arc::new(Doorbell::new().expect("a doorbell"));
    let mut host = match Host::start(settings(&told), clock, Vec::new(), &bell) {
        Ok(host) => host,
        Err(error) => {
            println!("{MARK}refused {error}");
            return;
        }
    };
    println!("{MARK}ready {}", host.degraded().join("; "));
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).for_each(|line| sender.send(line).expect("is taken"));
    });
    let mut hung = false;
    loop {
        if !hung {
            host.beat(clock.now());
        }
        match lines.try_recv() {
            Ok(line) if line == "hang" => hung = true,
            Ok(line) if line == "wake" => host.woke(clock.now()),
            Ok(line) => {
                let command: HostCommand = serde_json::from_str(&line).expect("a command");
                host.command(command).expect("there is room");
            }
            Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
            Err(TryRecvError::Disconnected) => break,
        }
        while let Some(report) = host.report() {
            println!("{MARK}{}", serde_json::to_string(&report).expect("is written"));
        }
    }
    println!("{MARK}{:?}", host.stats());
    drop(host);
    println!("{MARK}over");
}

fn settings(told: &str) -> Settings {
    let mut parts = told.split(';');
    let lease = parts.next().and_then(|millis| millis.parse().ok()).expect("a lease");
    let place = |text: &str| {
        let (address, interface) = text.split_once('@').expect("an address and an interface");
        Address { interface: interface.into(), address: address.parse().expect("an address") }
    };
    let set = |text: &str| Set {
        name: text.into(),
        addresses: text.split_whitespace().map(place).collect(),
        router: false,
        conntrack: false,
    };
    Settings {
        sets: parts.map(set).collect(),
        lease: Duration::from_millis(lease),
        refresh: Duration::from_secs(30),
        standing: Standing::Ordinary,
        checks: Vec::new(),
        hook: std::env::var(HOOK).ok().map(|file| Hook {
            command: ["/bin/sh", "-c", &format!("echo $SINEW_EVENT $SINEW_ADDRESSES >> {file}")].map(Into::into).into(),
            patience: PATIENCE,
        }),
        user: None,
    }
}

/// Such a process.
pub(crate) struct Holder {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    files: TempDir,
    /// What it said when it was ready.
    pub(crate) greeting: String,
}

impl Holder {
    /// Starts it on a host.
    pub(crate) fn start(lan: &Lan, number: usize, lease: Duration, sets: &str) -> Holder {
        let namespace = lan.places[number].namespace.as_fd().try_clone_to_owned().expect("a descriptor");
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "holder::holder", "--nocapture", "--test-threads=1"]);
        command.env(VARIABLE, format!("{};{sets}", lease.as_millis()));
        let files = tempfile::tempdir().expect("a directory");
        command.env(HOOK, files.path().join("hook"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: between fork and exec only system calls; nothing allocates or locks.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                enter(namespace.as_fd())
            });
        }
        let mut child = command.spawn().expect("it starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let marked = |line: String| line.split_once(MARK).map(|(_, rest)| rest.to_owned());
            let lines = BufReader::new(output).lines().map_while(Result::ok).filter_map(marked);
            lines.for_each(|line| drop(sender.send(line)));
        });
        let greeting = lines.recv_timeout(PATIENCE).expect("it says that it is ready");
        Holder { child, input, lines, files, greeting }
    }

    /// Has a command executed.
    pub(crate) fn tell(&mut self, command: &HostCommand) {
        self.say(&serde_json::to_string(command).expect("is written"));
    }

    /// Its control says no more that it lives.
    pub(crate) fn hang(&mut self) {
        self.say("hang");
    }

    /// Its control finds that it stood still.
    pub(crate) fn wake(&mut self) {
        self.say("wake");
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("was not closed"), "{line}").expect("it listens");
    }

    /// Waits for a report; those before it are passed over.
    pub(crate) fn wait(&self, what: &str, is_it: impl Fn(&HostReport) -> bool) -> HostReport {
        let begin = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| panic!("not reported: {what}: {error}"));
            let Ok(report) = serde_json::from_str(&line) else { continue };
            if is_it(&report) {
                return report;
            }
        }
    }

    /// Acquires a set, and waits until it is.
    pub(crate) fn acquire(&mut self, set: usize) {
        self.tell(&HostCommand::Acquire { set, wait: Duration::ZERO, from: None });
        let report = self.wait("acquired or not", |report| {
            matches!(report, HostReport::Acquired { .. } | HostReport::Failed { .. })
        });
        assert_eq!(report, HostReport::Acquired { set });
    }

    /// All reports that are there.
    pub(crate) fn reports(&self) -> Vec<HostReport> {
        self.lines.try_iter().filter_map(|line| serde_json::from_str(&line).ok()).collect()
    }

    /// What its hook has written.
    pub(crate) fn hooked(&self) -> String {
        std::fs::read_to_string(self.files.path().join("hook")).unwrap_or_default()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: plain system call; the child was not waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Ends it cleanly; answers the last it said.
    pub(crate) fn end(mut self) -> Vec<String> {
        drop(self.input.take());
        let said: Vec<String> = self.lines.iter().collect();
        assert!(self.child.wait().expect("it ends").success(), "{said:?}");
        said
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
