//! How the calling thread is scheduled: before ordinary ones, in real time, and off others' cores.

use super::cpus::CpuSet;
use super::number;
use crate::runtime::capabilities;
use std::fmt;
use std::io;

/// The kernel's own real-time threads (interrupts', for one) have priority 50: a worker above them keeps its packets from
/// arriving.
pub const KERNEL_PRIORITY: u8 = 50;

/// The nice value of threads that come before ordinary ones: the lowest there is.
const FIRST: i32 = -20;
/// The time that such a thread asks for at once, nanoseconds: the shortest that the scheduler (EEVDF) grants. Who asks for
/// little runs sooner when it wakes (Linux 6.12; earlier kernels take no notice).
const SLICE: u64 = 100_000;
/// From <linux/sched.h>.
const SCHED_FLAG_RESET_ON_FORK: u64 = 1;

/// How a thread is to be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Like those of other programs.
    Ordinary,
    /// Before those: nice -20. They get what it leaves, and a little more.
    First,
    /// In real time, at this priority (SCHED_FIFO): they get what it leaves.
    RealTime(u8),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Ordinary => f.write_str("ordinary"),
            Standing::First => write!(f, "nice {FIRST}"),
            Standing::RealTime(priority) => write!(f, "real time, priority {priority}"),
        }
    }
}

/// What a thread got, and why not what was asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// What it got.
    pub standing: Standing,
    /// What was refused, and what would allow it.
    pub refused: Option<String>,
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.refused {
            None => self.standing.fmt(f),
            Some(refused) => write!(f, "{} ({refused})", self.standing),
        }
    }
}

impl Standing {
    /// Gives it to the calling thread, and to none that it starts; the next best if it is refused.
    pub fn take(self) -> Granted {
        let (next, why) = match self {
            Standing::Ordinary => return Granted { standing: self, refused: None },
            Standing::First => (Standing::Ordinary, go_first()),
            Standing::RealTime(priority) => (Standing::First, go_realtime(priority)),
        };
        let Err(why) = why else { return Granted { standing: self, refused: None } };
        Granted { standing: next.take().standing, refused: Some(format!("{self}, is refused: {why}")) }
    }

    /// What a thread of this process would get: tried in one of its own.
    pub fn probe(self) -> Granted {
        let refused = Some("the thread that tried it panicked".to_owned());
        std::thread::spawn(move || self.take()).join().unwrap_or(Granted { standing: Standing::Ordinary, refused })
    }
}

/// Gives the session of this process the standing of its first threads, where the kernel shares processors among sessions
/// before it looks at threads (autogroup, sched(7)): a nice value counts inside a session alone. What keeps it from that
/// is said.
///
/// A session that is not this process's own, such as a shell's, is left as it is: everything else in it would rise too.
pub fn lift_session() -> Result<(), String> {
    if number("/proc/sys/kernel/sched_autogroup_enabled") != Some(1) {
        return Ok(());
    }
    // SAFETY: takes no pointers.
    let leads = unsafe { libc::getsid(0) } == std::process::id() as libc::pid_t;
    if !leads {
        return Err(
            "this router shares a session with whatever else its shell runs, and the kernel shares the processors \
                    among sessions first: start it as a service, or by `setsid`"
                .to_owned(),
        );
    }
    std::fs::write("/proc/self/autogroup", FIRST.to_string())
        .map_err(|error| format!("the nice value of its session cannot be set in /proc/self/autogroup: {error}"))
}

/// Share of real time that real-time threads may use, µs a second (kernel.sched_rt_runtime_us); -1 is all of it.
pub fn throttle() -> Option<i64> {
    number("/proc/sys/kernel/sched_rt_runtime_us")
}

/// Runs the calling thread, and none that it starts, in real time (SCHED_FIFO, sched(7)). What is refused says what would
/// allow it.
pub fn go_realtime(priority: u8) -> Result<(), String> {
    let parameters = libc::sched_param { sched_priority: i32::from(priority) };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // The system call itself: musl's function of this name refuses everything.
    // SAFETY: `parameters` is a valid sched_param; thread 0 is the caller.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    if result == 0 {
        return Ok(());
    }
    Err(explain(priority, &io::Error::last_os_error(), capabilities::has(capabilities::SYS_NICE)))
}

/// `struct sched_attr` of sched_setattr(2), as first published.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn set_ordinary(nice: i32) -> io::Result<()> {
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: SCHED_FLAG_RESET_ON_FORK,
        nice,
        runtime: SLICE,
        ..Attributes::default()
    };
    // SAFETY: `attributes` is laid out as sched_setattr(2) says, and says its size; thread 0 is the caller.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts the calling thread before ordinary ones. If its nice value may not change it still runs soon when it wakes.
fn go_first() -> Result<(), String> {
    let Err(error) = set_ordinary(FIRST) else { return Ok(()) };
    // SAFETY: takes no pointers. Of -1, which is also an error, the worst is that it is refused as well.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // What is refused here too is refused for the same reason.
    let _ = set_ordinary(nice);
    Err(format!(
        "{error}: grant CAP_SYS_NICE (AmbientCapabilities= in the systemd unit, see configs/systemd/sinew.service.d/vip.conf, \
         --cap-add for a container), or LimitNICE={FIRST}; its nice value stays {nice}"
    ))
}

fn explain(priority: u8, error: &io::Error, may_nice: bool) -> String {
    if error.raw_os_error() != Some(libc::EPERM) {
        return error.to_string();
    }
    if may_nice {
        return format!(
            "{error}, though this process has CAP_SYS_NICE: its cgroup has no real-time budget (cpu.rt_runtime_us, of a \
             kernel with RT_GROUP_SCHED), or its unit says RestrictRealtime=yes"
        );
    }
    format!(
        "{error}: allow it with LimitRTPRIO={priority} and RestrictRealtime=no in the systemd unit (see \
         configs/systemd/sinew.service), `ulimit -r {priority}` in a root shell, or --ulimit rtprio={priority} for a container"
    )
}

/// Whether a thread of this process may run in real time: tried in a thread of its own.
pub fn may_go_realtime(priority: u8) -> Result<(), String> {
    let tried = std::thread::spawn(move || go_realtime(priority)).join();
    tried.unwrap_or_else(|_| Err("the thread that tried it panicked".to_owned()))
}

/// Keeps the calling thread, and those that it starts from now on, on these processors; an empty set changes nothing.
pub fn keep_to(cpus: &CpuSet) -> io::Result<()> {
    if cpus.is_empty() { Ok(()) } else { cpus.confine_this_thread() }
}

/// Time that the calling thread has spent on a processor.
pub fn time_on_cpu() -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clock exists on every kernel this runs on, and a refusal leaves zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    std::time::Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_says_what_would_allow_it() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        let said = explain(10, &refused, false);
        for part in ["LimitRTPRIO=10", "RestrictRealtime=no", "ulimit -r 10", "--ulimit rtprio=10"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(explain(10, &refused, true).contains("RT_GROUP_SCHED"));
        assert!(explain(10, &io::Error::from_raw_os_error(libc::EINVAL), true).contains("Invalid argument"));
    }

    /// In a thread of its own: what it becomes goes with it. Where it is refused the refusal is the result.
    #[test]
    fn a_thread_runs_in_real_time_or_knows_why_not() {
        let inside = || {
            let result = go_realtime(1);
            // SAFETY: takes no pointers.
            (result, unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) } as i32)
        };
        let (result, policy) = std::thread::spawn(inside).join().expect("ends");
        match result {
            Ok(()) => assert_eq!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO),
            Err(why) => assert!(policy == libc::SCHED_OTHER && !why.is_empty(), "{why}"),
        }
        assert_eq!(go_realtime(0).expect_err("is no priority"), io::Error::from_raw_os_error(libc::EINVAL).to_string());
    }

    /// In a thread of its own, as before.
    #[test]
    fn a_thread_comes_first_or_knows_why_not_and_those_that_it_starts_are_ordinary() {
        // SAFETY: takes no pointers.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        let inside = move || {
            let granted = Standing::First.take();
            (granted, nice(), std::thread::spawn(nice).join().expect("ends"))
        };
        let (granted, own, of_child) = std::thread::spawn(inside).join().expect("ends");
        match granted {
            Granted { standing: Standing::First, refused: None } => assert_eq!((own, of_child), (FIRST, 0)),
            Granted { standing: Standing::Ordinary, refused: Some(why) } => {
                assert!(own == before && why.contains("CAP_SYS_NICE"), "{own}: {why}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(nice(), before, "the others are as they were");
    }

    #[test]
    fn what_is_refused_gives_way_to_the_next_best_and_is_said() {
        let granted = Standing::RealTime(0).probe();
        assert!(matches!(granted.standing, Standing::First | Standing::Ordinary), "{granted:?}");
        let said = granted.to_string();
        assert!(said.contains("(real time, priority 0, is refused: Invalid argument"), "{said}");
        assert_eq!(Standing::Ordinary.probe().to_string(), "ordinary");
        assert_eq!(Granted { standing: Standing::First, refused: None }.to_string(), "nice -20");
    }

    #[test]
    fn time_on_a_processor_is_time_spent_there() {
        let before = time_on_cpu();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let slept = time_on_cpu() - before;
        assert!(slept < std::time::Duration::from_millis(20), "{slept:?}");
        let mut sum = 0u64;
        while time_on_cpu() - before < slept + std::time::Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
