//! The ladder of ways to get a network of one's own, and the step onto it.
//!
//! 1. **user**: new user, network and mount namespaces; no privilege needed where the system allows it.
//! 2. **root**: plain network and mount namespaces; needs `CAP_SYS_ADMIN`.
//! 3. **loopback**: neither; routers on 127.0.0.x with UDP relays between them. Kernel TCP cannot be measured there.
//!
//! The step is made by running the same program again, with the namespaces made between fork and exec: that works from
//! any process, however many threads it has. The rung is handed on in [`MODE_VARIABLE`].

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Tells the program that it runs on a rung already.
pub const MODE_VARIABLE: &str = "SINEW_LAB_MODE";

/// A rung of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// User, network and mount namespaces.
    User,
    /// Network and mount namespaces, by privilege.
    Root,
    /// No namespaces: relays on the loopback interface.
    Loopback,
}

impl Mode {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::User => "user",
            Mode::Root => "root",
            Mode::Loopback => "loopback",
        }
    }

    /// What it is, in a few words.
    pub const fn describe(self) -> &'static str {
        match self {
            Mode::User => "unprivileged user, network and mount namespaces",
            Mode::Root => "network and mount namespaces, by privilege",
            Mode::Loopback => "no namespaces: routers on 127.0.0.x, links are UDP relays, kernel TCP is not measured",
        }
    }

    /// Whether routers have network namespaces of their own.
    pub const fn has_namespaces(self) -> bool {
        !matches!(self, Mode::Loopback)
    }

    fn flags(self) -> libc::c_int {
        match self {
            Mode::User => libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS,
            Mode::Root => libc::CLONE_NEWNET | libc::CLONE_NEWNS,
            Mode::Loopback => 0,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        [Mode::User, Mode::Root, Mode::Loopback]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| format!("unknown mode `{text}`: use `auto`, `user`, `root` or `loopback`"))
    }
}

/// The rung this process was started on, if it was.
pub fn current() -> Option<Mode> {
    std::env::var(MODE_VARIABLE).ok()?.parse().ok()
}

/// Lets `command` start on a rung: its process gets namespaces of its own, and dies with the thread that starts it.
pub fn start_on(command: &mut Command, mode: Mode) {
    let maps = identity_maps();
    command.env(MODE_VARIABLE, mode.name());
    let parent = std::process::id();
    // SAFETY: between fork and exec only system calls on memory prepared above; nothing allocates or locks.
    unsafe { command.pre_exec(move || die_with(parent).and_then(|()| separate(mode, &maps))) };
}

/// Asks for SIGKILL when the thread that started this process ends; fails if it ended already.
pub(crate) fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: plain system calls without pointers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid() != parent as i32 {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    Ok(())
}

/// What a new user namespace is to be told: that this user is its root. Files and their texts, in order.
fn identity_maps() -> Vec<(CString, String)> {
    // SAFETY: these only read the credentials of this process.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    [("/proc/self/setgroups", "deny".to_owned())]
        .into_iter()
        .chain([("/proc/self/uid_map", format!("0 {uid} 1")), ("/proc/self/gid_map", format!("0 {gid} 1"))])
        .map(|(path, text)| (CString::new(path).expect("no zero byte in a constant"), text))
        .collect()
}

fn separate(mode: Mode, maps: &[(CString, String)]) -> io::Result<()> {
    let check = |result: libc::c_long| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: plain system calls; every pointer is to live memory with its length or a closing zero.
    unsafe {
        check(libc::unshare(mode.flags()).into())?;
        if mode == Mode::User {
            for (path, text) in maps {
                let fd = check(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC).into())? as i32;
                let written = check(libc::write(fd, text.as_ptr().cast(), text.len()) as libc::c_long);
                libc::close(fd);
                written?;
            }
        }
        if mode.has_namespaces() {
            // What is mounted from here on stays here.
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            check(libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()).into())?;
        }
    }
    Ok(())
}

/// Runs this program again with `arguments` on the best rung there is (or on `wanted` and no other), says which rung
/// and why not a better one, passes SIGINT and SIGTERM on, and returns how it ended.
pub fn run_again(arguments: &[std::ffi::OsString], wanted: Option<Mode>) -> io::Result<ExitStatus> {
    let rungs = wanted.map_or(vec![Mode::User, Mode::Root, Mode::Loopback], |mode| vec![mode]);
    let mut failure = None;
    for mode in rungs {
        let mut command = Command::new("/proc/self/exe");
        // In a group of its own, so that Ctrl-C on a terminal reaches it once, by way of this process.
        command.args(arguments).process_group(0);
        start_on(&mut command, mode);
        let child = command.spawn();
        match child {
            Ok(child) => {
                eprintln!("lab: mode {mode}: {}", mode.describe());
                if mode == Mode::Loopback {
                    eprintln!("lab: for the full mode: {}", how_to_enable(wanted));
                }
                return shepherd(child);
            }
            Err(error) => {
                eprintln!("lab: mode {mode} is not possible here ({error})");
                failure = Some(error);
            }
        }
    }
    if wanted.is_some() {
        eprintln!("lab: to make it possible: {}", how_to_enable(wanted));
    }
    Err(failure.unwrap_or_else(|| io::Error::other("no rung was tried")))
}

/// Waits for the child; hands it the signals that ask this process to end.
fn shepherd(mut child: std::process::Child) -> io::Result<ExitStatus> {
    let asked = Arc::new(AtomicUsize::new(0));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register_usize(signal, Arc::clone(&asked), signal as usize)?;
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let signal = asked.swap(0, Ordering::Relaxed);
        if signal != 0 {
            // SAFETY: the child has not been waited for, so its id is still its own.
            unsafe { libc::kill(child.id() as i32, signal as i32) };
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process's end as an exit code, 128 plus the signal if one ended it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// The one line that would enable namespaces on this machine, as far as can be told, for one who wanted this rung.
pub fn how_to_enable(wanted: Option<Mode>) -> String {
    match wanted {
        Some(Mode::Loopback) => return "leave out --mode loopback".into(),
        Some(Mode::Root) => return "run it as root: sudo sinew lab".into(),
        Some(Mode::User) | None => {}
    }
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let exists = |path: &str| std::path::Path::new(path).exists();
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".into()
    } else if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1".into()
    } else if read("/proc/sys/user/max_user_namespaces") == "0" {
        "sudo sysctl -w user.max_user_namespaces=10000".into()
    } else if exists("/.dockerenv") || exists("/run/.containerenv") {
        "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined --cap-add \
         SYS_ADMIN --cap-add NET_ADMIN"
            .into()
    } else {
        "run it as root: sudo sinew lab".into()
    }
}

/// Puts the calling process, or the calling thread of a process with many, where [`super::world::World`] can be built.
///
/// A process with one thread steps onto the first rung that works. A process with more cannot make a user namespace;
/// there privilege is needed, and given that, nothing has to be done, because a world makes its own network namespaces.
/// A test harness without privilege uses [`run_test`].
pub fn enter() -> Result<Mode, String> {
    if let Some(mode) = current() {
        return Ok(mode);
    }
    let threads = std::fs::read_dir("/proc/self/task").map_err(|error| error.to_string())?.count();
    if threads > 1 {
        return match super::netns::Netns::new() {
            Ok(_) => Ok(Mode::Root),
            Err(error) => Err(format!("network namespaces need privilege in a process with threads: {error}")),
        };
    }
    let maps = identity_maps();
    let user = separate(Mode::User, &maps).map(|()| Mode::User);
    user.or_else(|_| separate(Mode::Root, &maps).map(|()| Mode::Root)).map_err(|error| error.to_string())
}

/// Runs the body of the test `name` where worlds can be built: in this very process if it can build them, else in a
/// second run of the test program, in namespaces of its own, that runs this one test. Returns false, having said so
/// aloud, if this machine forbids both.
pub fn run_test(name: &str, body: impl FnOnce()) -> bool {
    if current().is_some() || super::netns::Netns::new().is_ok() {
        body();
        return true;
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    start_on(&mut command, Mode::User);
    match command.output() {
        Ok(output) => {
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{name} failed in its own namespaces:\n{out}\n{err}");
            assert!(out.contains("1 passed"), "no test is called {name}:\n{out}");
            // What it measured, and what it could not run. Where nobody reads there is nobody to tell.
            let _ = io::Write::write_all(&mut io::stderr(), &output.stderr);
            true
        }
        Err(error) => {
            eprintln!("NOT RUN: {name}: no namespaces here ({error}); to enable: {}", how_to_enable(None));
            false
        }
    }
}
