//! The lab's clock: `CLOCK_MONOTONIC`, the same in every process and namespace of the machine, so that one-way delays
//! need no synchronisation.

use crate::base::{Instant, WallTime};
use std::time::Duration;

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec; the clocks used here always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Now.
pub fn now() -> Instant {
    Instant::from_nanos(read(libc::CLOCK_MONOTONIC))
}

/// Now, for people.
pub fn wall() -> WallTime {
    WallTime::from_nanos(read(libc::CLOCK_REALTIME))
}

/// Sleeps until `when` by the absolute clock; returns at once if that is past.
pub fn sleep_until(when: Instant) {
    let time = timespec(Duration::from_nanos(when.as_nanos()));
    // SAFETY: the pointer is to a valid timespec. An interruption by a signal repeats the call with the same deadline.
    while unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, std::ptr::null_mut()) }
        == libc::EINTR
    {}
}

/// Asks the kernel to wake the calling thread as exactly as it can instead of rounding by 50 µs.
pub fn exact_timers() {
    // SAFETY: affects only the calling thread's timer slack, ns.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// As the kernel wants it.
pub(crate) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

/// Asks the scheduler to let the calling thread run soon after it wakes: the shortest slice it grants (EEVDF, Linux
/// 6.12; needs no privilege), and a better nice value if that is allowed. Refusals are harmless.
pub fn run_soon() {
    /// `struct sched_attr`, first version (`sched_setattr(2)`).
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
    let shortest_ns = 100_000;
    for nice in [-15, 0] {
        let attributes = Attributes { size: 48, nice, runtime: shortest_ns, ..Attributes::default() };
        // SAFETY: the pointer is to a structure of the size it states; thread 0 is the caller.
        if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) } == 0 {
            return;
        }
    }
}
