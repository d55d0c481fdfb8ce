//! Programs started beside the router: without a copy of it, and as another user.
//!
//! fork(2) copies the page tables of all pools, and pinned pages whole, and meanwhile no thread can be given memory.
//! posix_spawn(3) copies nothing, but takes no privileges away. Nor may a thread of the router give up its own to call it:
//! kill(2) and prlimit(2) take the number of a thread, too, ask for *its* user, and strike the whole process. So this is
//! what posix_spawn is made of: the child runs in its parent's memory, on a stack of its own, until it is the program, and
//! the calling thread waits. It is a process all the same: it alone becomes the other user, and whoever signals it
//! strikes nothing else.

use super::sys::check;
use std::convert::Infallible;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::ptr;

/// Bytes of the child's stack, in units of its alignment: a few calls deep, none of which has buffers.
const STACK: usize = (64 << 10) / size_of::<u128>();

/// A program that was started. Nobody waits for it when it is dropped.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    ended: Option<ExitStatus>,
}

/// Starts a program as this user and group (as the router's, if none), with these words behind its name and nothing else
/// in its environment, in a process group of its own, at `/`. It reads and writes nothing, has no privileges that its user
/// does not have, and can gain none.
pub(super) fn start(
    program: &Path,
    arguments: &[String],
    environment: &[(&str, &str)],
    user: Option<(u32, u32)>,
) -> io::Result<Child> {
    let path = CString::new(program.as_os_str().as_bytes())?;
    let arguments = arguments.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()?;
    let environment = environment.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    let nowhere = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let listed = |texts: &mut dyn Iterator<Item = &CString>| -> Vec<*const c_char> {
        texts.map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let plan = Plan {
        arguments: listed(&mut [&path].into_iter().chain(&arguments)),
        environment: listed(&mut environment.iter()),
        nowhere,
        user,
        failed: None,
    };
    let dumpable = is_dumpable();
    let started = spawn(plan);
    // The memory was the other user's, too, for a moment, for which the kernel hid it from all users.
    if dumpable && user.is_some() {
        make_dumpable();
    }
    started
}

/// What a child is to become.
struct Plan {
    /// Lists of texts, each with a null at its end. The first is the program's path.
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    nowhere: File,
    user: Option<(u32, u32)>,
    /// Why it did not.
    failed: Option<io::Error>,
}

fn spawn(mut plan: Plan) -> io::Result<Child> {
    let mut stack = vec![0u128; STACK];
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let pid = with_signals_blocked(|| {
        // SAFETY: the stack and the plan outlive the child's use of them, as this thread waits until the child is another
        // program or has ended; the function makes system calls alone, and writes to nothing but the plan.
        check(unsafe { libc::clone(become_program, top, flags, (&raw mut plan).cast()) })
    })?;
    let mut child = Child { pid: pid.cast_unsigned(), ended: None };
    match plan.failed.take() {
        None => Ok(child),
        Some(error) => child.wait().and(Err(error)),
    }
}

/// No handler of the router's may run in the child, which has its memory.
fn with_signals_blocked<T>(run: impl FnOnce() -> T) -> T {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: both are writable sets of signals, and are set before they are read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = run();
    // SAFETY: the call above has written it.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

/// The child, from its beginning until it is the program. Whatever locks its parent's other threads hold are held here, too:
/// nothing may allocate.
extern "C" fn become_program(plan: *mut c_void) -> c_int {
    // SAFETY: it is the parent's, who waits.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    plan.failed = plan.run().err();
    127
}

impl Plan {
    fn run(&self) -> io::Result<Infallible> {
        for signal in 1..=libc::SIGRTMAX() {
            // SAFETY: takes no pointers. The handlers are the child's own.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // SAFETY: takes no pointers.
        check(unsafe { libc::setpgid(0, 0) })?;
        for descriptor in 0..3 {
            // SAFETY: takes no pointers. The descriptors are the child's own.
            check(unsafe { libc::dup2(self.nowhere.as_raw_fd(), descriptor) })?;
        }
        // SAFETY: the text ends with a null.
        check(unsafe { libc::chdir(c"/".as_ptr()) })?;
        renounce_privileges(self.user)?;
        let mut none = MaybeUninit::uninit();
        // SAFETY: the set is written before it is read; both lists end with a null, as all of their texts do.
        unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
            libc::execve(self.arguments[0], self.arguments.as_ptr(), self.environment.as_ptr());
        }
        Err(io::Error::last_os_error())
    }
}

/// Makes the caller this user's and group's, if any, and lets what it runs have nothing that its user does not have. glibc is
/// not asked: it would do the same to every thread of what it takes for its process.
fn renounce_privileges(user: Option<(u32, u32)>) -> io::Result<()> {
    let call = |number, [a, b, c]: [u32; 3]| {
        // SAFETY: takes no pointers but that of an empty list, which may be null.
        check(unsafe { libc::syscall(number, a as usize, b as usize, c as usize) } as c_int)
    };
    if let Some((uid, gid)) = user {
        call(libc::SYS_setgroups, [0; 3])?;
        call(libc::SYS_setresgid, [gid; 3])?;
        call(libc::SYS_setresuid, [uid; 3])?;
    }
    let (on, off): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: takes no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, off, off, off) })?;
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    // SAFETY: takes no pointers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, off, off, off) }).map(drop)
}

/// Whether others of the same user may look at this process, and the kernel write a core of it.
pub(super) fn is_dumpable() -> bool {
    // SAFETY: takes no pointers.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) == 1 }
}

/// Lets them, as if nobody in its memory had changed its user.
fn make_dumpable() {
    let on: libc::c_ulong = 1;
    // SAFETY: takes no pointers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, on) };
}

impl Child {
    /// Its process.
    pub(super) const fn id(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.reap(libc::WNOHANG)
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> io::Result<ExitStatus> {
        Ok(self.reap(0)?.expect("it was waited for"))
    }

    fn reap(&mut self, how: c_int) -> io::Result<Option<ExitStatus>> {
        let mut status = 0;
        while self.ended.is_none() {
            // SAFETY: the pointer is to a writable int.
            match check(unsafe { libc::waitpid(self.pid.cast_signed(), &raw mut status, how) }) {
                Ok(0) => break,
                Ok(_) => self.ended = Some(ExitStatus::from_raw(status)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.ended)
    }

    /// Kills it and whoever it started in its process group, unless its end was seen: then its number may be another's.
    pub(super) fn kill_group(&self) {
        if self.ended.is_none() {
            // SAFETY: takes no pointers.
            unsafe { libc::kill(-self.pid.cast_signed(), libc::SIGKILL) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn shell(script: &str, user: Option<(u32, u32)>) -> io::Result<Child> {
        start(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()], &[("WORD", "a b")], user)
    }

    #[test]
    fn a_program_is_told_its_words_and_nothing_of_the_router() {
        let environment = "test \"$WORD\" = 'a b' && test -z \"${HOME-}\" && test \"$PWD\" = /";
        assert!(shell(environment, None).and_then(|mut child| child.wait()).expect("runs").success());
        let files = "for file in 0 1 2; do test \"$(readlink /proc/$$/fd/$file)\" = /dev/null || exit 1; done";
        assert!(shell(files, None).and_then(|mut child| child.wait()).expect("runs").success());
        // Rust ignores it, and this thread blocked it for a moment; what it starts does neither.
        let ended = shell("kill -PIPE $$; exit 0", None).and_then(|mut child| child.wait()).expect("runs");
        assert_eq!(ended.signal(), Some(libc::SIGPIPE));
    }

    #[test]
    fn ends_are_told_and_failures_have_their_reason() {
        let mut child = shell("exit 7", None).expect("runs");
        assert_eq!(child.wait().expect("ends").code(), Some(7));
        assert_eq!(child.try_wait().expect("is known").and_then(|status| status.code()), Some(7), "also later");
        let mut child = shell("sleep 1000 & sleep 1000", None).expect("runs");
        assert_eq!(child.try_wait().expect("can be asked"), None);
        child.kill_group();
        assert_eq!(child.wait().expect("ends").signal(), Some(libc::SIGKILL));
        let missing = start(Path::new("/no/such"), &[], &[], None).expect_err("there is none");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let folder = start(Path::new("/"), &[], &[], None).expect_err("is no program");
        assert_eq!(folder.kind(), io::ErrorKind::PermissionDenied);
        assert!(start(Path::new("/bin/sh"), &["a\0b".to_owned()], &[], None).is_err());
    }

    /// Whoever is the user of one thread of a process can kill all of it.
    #[test]
    fn no_thread_of_the_router_is_ever_the_other_users() {
        if !crate::runtime::capabilities::has(7) {
            return crate::runtime::not_run::count("commands of another user: needs CAP_SETUID");
        }
        let (done, other) = (AtomicBool::new(false), 64_321);
        let of_other = |status: &str| {
            let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            users.is_some_and(|users| users.split_whitespace().any(|uid| uid == other.to_string()))
        };
        let looks = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) {
                    for thread in std::fs::read_dir("/proc/self/task").expect("is there").flatten() {
                        // Those of other tests come and go.
                        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
                        assert!(!of_other(&status), "{status}");
                        looks += 1;
                    }
                }
                looks
            });
            for _ in 0..50 {
                let mut child = shell("exit 0", Some((other, other))).expect("runs");
                assert!(child.wait().expect("ends").success());
            }
            done.store(true, Ordering::Relaxed);
            watcher.join().expect("saw none")
        });
        assert!(looks > 50, "only {looks} looks");
    }
}
