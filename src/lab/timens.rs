//! Time namespaces: a process with clocks of its own (time_namespaces(7), Linux 5.6).
//!
//! The kernel adds an offset to CLOCK_MONOTONIC and CLOCK_BOOTTIME there, and to nothing else: the wall clock is the same
//! in all namespaces. The offsets are fixed from the moment that a process is in the namespace, so nobody's clock can be
//! stepped while it runs: only the next process of a router can have another one.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// By how much a process's clocks differ from the machine's, s. None of them may be shifted to before zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockShift {
    /// Of CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// Of CLOCK_BOOTTIME.
    pub boottime: i64,
}

impl ClockShift {
    /// Lets `command` start in a time namespace of its own with these clocks. It fails to start where that is not allowed.
    pub(super) fn apply(self, command: &mut Command) {
        let offsets = format!("monotonic {} 0\nboottime {} 0\n", self.monotonic, self.boottime);
        // SAFETY: between fork and exec only system calls on memory prepared above.
        unsafe { command.pre_exec(move || enter(offsets.as_bytes())) };
    }
}

/// Moves the calling process, which must have one thread, into a new namespace with these offsets.
fn enter(offsets: &[u8]) -> io::Result<()> {
    // SAFETY: plain system call; it changes nothing but where this process's children go.
    check(unsafe { libc::unshare(libc::CLONE_NEWTIME) })?;
    let file = open(c"/proc/self/timens_offsets", libc::O_WRONLY)?;
    // SAFETY: the pointer and length describe `offsets`.
    let written = unsafe { libc::write(file.as_raw_fd(), offsets.as_ptr().cast(), offsets.len()) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    // Where the children go this process goes too: not every kernel takes it there when it executes its program.
    let namespace = open(c"/proc/self/ns/time_for_children", libc::O_RDONLY)?;
    // SAFETY: plain system call; the process has this one thread since it was forked.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWTIME) })
}

fn open(path: &std::ffi::CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the path ends with a zero byte.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
    check(fd)?;
    // SAFETY: `fd` was just returned by open(2).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
