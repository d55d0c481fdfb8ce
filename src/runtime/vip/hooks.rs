//! Hooks: the operator's commands, run when a set comes or goes.
//!
//! A hook is never waited for: what it is about has happened. At most [`RUNNING`] run at a time and one for each set, so
//! that a set's hooks run in the order of its events; at most [`WAITING`] wait, and what comes on top is left out and
//! counted. One that runs longer than its patience is killed with all that it started.
//!
//! Commands (those of checks too) run as a user of their own choice, without privileges and with nothing of the router's
//! environment. They are told `SINEW_EVENT`, `SINEW_SET` and `SINEW_ADDRESSES` (`address@interface`, separated by spaces).

use super::super::child::{self, Child};
use crate::base::Instant;
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Hooks that run at a time.
const RUNNING: usize = 4;
/// Hooks that wait for others to end.
const WAITING: usize = 256;

/// Where commands are looked for, by us and by themselves.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who runs commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl User {
    /// Looks a name up in `/etc/passwd`.
    pub fn named(name: &str) -> io::Result<User> {
        let users = std::fs::read_to_string("/etc/passwd")?;
        let found = users.lines().find_map(|line| User::read(line, name));
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("/etc/passwd has no user `{name}`")))
    }

    fn read(line: &str, name: &str) -> Option<User> {
        let mut fields = line.strip_prefix(name)?.strip_prefix(':')?.split(':').skip(1);
        Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }
}

/// What happened to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is held and announced.
    Acquired,
    /// It was given up.
    Released,
    /// It was lost.
    Lost,
}

impl Event {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Event::Acquired => "acquired",
            Event::Released => "released",
            Event::Lost => "lost",
        }
    }
}

/// What runs, for all events of all sets.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Program and arguments.
    pub command: Vec<String>,
    /// How long it may run.
    pub patience: Duration,
}

/// A hook to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) event: Event,
    pub(super) set: usize,
    pub(super) name: String,
    pub(super) addresses: String,
}

/// The hooks that run and wait.
#[derive(Debug)]
pub(super) struct Hooks {
    hook: Option<Hook>,
    user: Option<User>,
    waiting: VecDeque<Job>,
    running: Vec<(Job, Child, Instant)>,
}

/// What became of the hooks since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) well: u64,
    pub(super) badly: u64,
}

impl Hooks {
    /// None runs.
    pub(super) const fn new(hook: Option<Hook>, user: Option<User>) -> Hooks {
        Hooks { hook, user, waiting: VecDeque::new(), running: Vec::new() }
    }

    /// Has a hook run when its turn comes. False: too many wait.
    pub(super) fn push(&mut self, job: Job) -> bool {
        if self.hook.is_none() {
            return true;
        }
        let room = self.waiting.len() < WAITING;
        if room {
            self.waiting.push_back(job);
        }
        room
    }

    /// Looks after those that run, and starts those whose turn it is.
    pub(super) fn turn(&mut self, now: Instant) -> Ended {
        let mut ended = Ended::default();
        self.running.retain_mut(|(job, child, until)| match child.try_wait() {
            Ok(None) if *until > now => true,
            Ok(Some(status)) if status.success() => {
                ended.well += 1;
                false
            }
            Ok(None) => {
                child.kill_group();
                let _ = child.wait();
                tracing::warn!(set = job.name, event = job.event.name(), "a hook took too long and was killed");
                ended.badly += 1;
                false
            }
            other => {
                tracing::warn!(set = job.name, event = job.event.name(), ?other, "a hook failed");
                ended.badly += 1;
                false
            }
        });
        while self.running.len() < RUNNING
            && let Some(job) = self.next()
        {
            if let Err(error) = self.start(now, job) {
                tracing::warn!(%error, "a hook cannot be started");
                ended.badly += 1;
            }
        }
        ended
    }

    /// When the next one has to be looked after; children say nothing when they end, so often.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        const LOOK: Duration = Duration::from_millis(10);
        (!self.running.is_empty()).then(|| now + LOOK)
    }

    /// The oldest that may run: none of its set does.
    fn next(&mut self) -> Option<Job> {
        let free = |job: &Job| !self.running.iter().any(|(other, _, _)| other.set == job.set);
        let place = self.waiting.iter().position(free)?;
        self.waiting.remove(place)
    }

    fn start(&mut self, now: Instant, job: Job) -> io::Result<()> {
        let Some(hook) = &self.hook else { return Ok(()) };
        let told = [("SINEW_EVENT", job.event.name()), ("SINEW_SET", &job.name), ("SINEW_ADDRESSES", &job.addresses)];
        let child = spawn(&hook.command, &told, self.user)?;
        self.running.push((job, child, now + hook.patience));
        Ok(())
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        // They are the operator's; they end by themselves. Only their ends are awaited by nobody.
        self.running.clear();
    }
}

/// Starts a command as this user (as the router's, if none), in a process group of its own.
pub(super) fn spawn(command: &[String], told: &[(&str, &str)], user: Option<User>) -> io::Result<Child> {
    let Some((program, arguments)) = command.split_first() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let environment: Vec<(&str, &str)> = told.iter().copied().chain([("PATH", PATH)]).collect();
    child::start(&find(program)?, arguments, &environment, user.map(|user| (user.uid, user.gid)))
}

/// Where a program is that is called by its name.
fn find(program: &str) -> io::Result<PathBuf> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let runs = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = PATH.split(':').map(|folder| Path::new(folder).join(program)).find(runs);
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("`{program}` is not in {PATH}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(set: usize, event: Event) -> Job {
        Job { event, set, name: format!("set{set}"), addresses: "192.0.2.7@eth0".into() }
    }

    fn hooks(script: &str, patience: Duration) -> Hooks {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Hooks::new(Some(Hook { command, patience }), None)
    }

    fn settle(hooks: &mut Hooks) -> Ended {
        let (begin, mut total) = (std::time::Instant::now(), Ended::default());
        while total.well + total.badly == 0 || !hooks.running.is_empty() || !hooks.waiting.is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(20), "hooks do not end: {hooks:?}");
            let ended = hooks.turn(Instant::ZERO + begin.elapsed());
            (total.well, total.badly) = (total.well + ended.well, total.badly + ended.badly);
            std::thread::sleep(Duration::from_millis(2));
        }
        total
    }

    #[test]
    fn the_hooks_of_a_set_run_one_after_the_other_and_know_what_they_are_about() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let script = format!(
            "printf '%s %s %s; ' $SINEW_EVENT $SINEW_SET $SINEW_ADDRESSES >> {0}; sleep 0.03; echo ${{HOME-none}} >> {0}",
            log.display()
        );
        let mut hooks = hooks(&script, Duration::from_secs(10));
        assert!(hooks.push(job(1, Event::Acquired)) && hooks.push(job(1, Event::Released)));
        hooks.turn(Instant::ZERO);
        assert_eq!((hooks.running.len(), hooks.waiting.len()), (1, 1));
        assert_eq!(settle(&mut hooks), Ended { well: 2, badly: 0 });
        let told = std::fs::read_to_string(log).expect("was written");
        let expected = "acquired set1 192.0.2.7@eth0; none\nreleased set1 192.0.2.7@eth0; none\n";
        assert_eq!(told, expected);
    }

    #[test]
    fn a_hook_that_does_not_end_is_killed_with_its_children_and_failures_are_counted() {
        let mut slow = hooks("sleep 1000 & sleep 1000", Duration::from_millis(50));
        assert!(slow.push(job(1, Event::Lost)));
        assert_eq!(settle(&mut slow), Ended { well: 0, badly: 1 });
        let mut failing = hooks("exit 3", Duration::from_secs(10));
        assert!(failing.push(job(1, Event::Lost)));
        assert_eq!(settle(&mut failing), Ended { well: 0, badly: 1 });
        let mut missing = Hooks::new(Some(Hook { command: vec!["/no/such".into()], patience: Duration::ZERO }), None);
        assert!(missing.push(job(1, Event::Lost)));
        assert_eq!(settle(&mut missing), Ended { well: 0, badly: 1 });
    }

    #[test]
    fn only_so_many_run_and_wait() {
        let mut hooks = hooks("sleep 1000", Duration::ZERO);
        let pushed = (0..WAITING + 10).filter(|&set| hooks.push(job(set, Event::Lost))).count();
        assert_eq!(pushed, WAITING);
        hooks.turn(Instant::ZERO);
        assert_eq!(hooks.running.len(), RUNNING);
        hooks.waiting.clear();
        settle(&mut hooks);
    }

    #[test]
    fn commands_have_no_privileges_and_can_gain_none() {
        if !crate::runtime::capabilities::has(7) {
            return crate::runtime::not_run::count("commands of another user: needs CAP_SETUID");
        }
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("is set");
        let told = dir.path().join("told");
        let script =
            format!("grep -E '^(Uid|Groups|CapEff|CapAmb|NoNewPrivs):' /proc/self/status > {}", told.display());
        let command = ["/bin/sh", "-c", &script].map(str::to_owned);
        let dumpable = child::is_dumpable();
        let mut child = spawn(&command, &[], Some(User { uid: 65534, gid: 65534 })).expect("runs");
        assert_eq!(child::is_dumpable(), dumpable, "this process is as it was");
        assert!(child.wait().expect("ends").success());
        let told = std::fs::read_to_string(told).expect("was written");
        let words: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
        let (nothing, nobody) = ("0000000000000000", "65534");
        let expected: [&[&str]; 5] = [
            &["Uid:", nobody, nobody, nobody, nobody],
            &["Groups:"],
            &["CapEff:", nothing],
            &["CapAmb:", nothing],
            &["NoNewPrivs:", "1"],
        ];
        assert_eq!(words, expected);
    }

    /// After a fork every page of the parent is written to by way of a fault, for the first time.
    #[test]
    fn commands_are_started_without_a_copy_of_this_process() {
        let faults = || {
            let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: the pointer is to a writable rusage, which all-zero bytes are.
            unsafe {
                assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
                usage.assume_init().ru_minflt
            }
        };
        let mut memory = vec![1u8; 256 << 20];
        let command = ["true".to_owned()];
        let (begin, before) = (std::time::Instant::now(), faults());
        let mut child = spawn(&command, &[], None).expect("runs");
        let took = begin.elapsed();
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = std::hint::black_box(*byte + 1));
        let after = faults();
        assert!(child.wait().expect("ends").success());
        assert!(after - before < 100, "{} pages of 65536 were copied or shared; it took {took:?}", after - before);
    }

    #[test]
    fn programs_are_found_where_the_manual_says() {
        assert!(find("sh").expect("everybody has one").ends_with("sh"));
        assert_eq!(find("/no/such").expect("is not looked for"), Path::new("/no/such"));
        assert_eq!(find("no such program").expect_err("there is none").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn users_are_found_by_their_whole_name() {
        let line = "nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin";
        assert_eq!(User::read(line, "nobody"), Some(User { uid: 65534, gid: 65533 }));
        assert_eq!(User::read(line, "nobod"), None);
        assert!(User::named("no such user").is_err());
    }
}
