//! How the calling thread is scheduled: real-time priority, and staying off others' cores.

use super::cpus::CpuSet;
use super::number;
use crate::runtime::capabilities;
use std::io;

/// The kernel's own real-time threads (interrupts', for one) have priority 50: a worker above them keeps its packets from
/// arriving.
pub const KERNEL_PRIORITY: u8 = 50;

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
