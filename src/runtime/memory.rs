//! Memory of processes: how much is resident, keeping it level, and keeping it in memory.

use std::io;

/// Blocks from this size on are given back to the system as soon as they are free, bytes.
///
/// What comes and goes with sessions is of all sizes and ages. In one heap that leaves holes that nothing fits: a router
/// of 22 MB that opened a stream a second got 180 KB of them in a minute while what it held stayed the same. The price
/// is a system call where a session opens or grows, never where a packet passes.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 16 << 10;

/// Tells the allocator of this process to keep large blocks out of the heap. Without effect where it has no such
/// setting.
pub(super) fn keep_level() {
    // SAFETY: takes two integers and changes nothing that is allocated.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
}

/// Makes all that this process has allocated resident now, so that no packet waits for a page later and what the system
/// shows is what the router may need. Without effect before Linux 5.14.
pub(super) fn make_resident() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, len) in maps.lines().filter_map(writable_anonymous) {
        // SAFETY: the kernel reads nothing and changes no byte: it only gives pages to memory that has none. What was
        // unmapped meanwhile is an error, which changes nothing either.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_POPULATE_WRITE) };
    }
}

/// How much memory this process may lock, bytes; none if that is unlimited.
pub fn lock_limit() -> io::Result<Option<u64>> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is one writable rlimit.
    match unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } {
        0 => Ok(Some(limit.rlim_cur).filter(|&limit| limit != libc::RLIM_INFINITY)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps all memory of this process, and all that it will ever have, from being swapped out (mlockall(2)). What is refused
/// says what would allow it.
///
/// Only without a limit: beyond one every later allocation would fail, and a router with it. A capability in place of the
/// limit is not enough, since workers give theirs up.
pub(super) fn lock() -> Result<(), String> {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `unlimited` is one readable rlimit. Only the privileged may raise the limit; that of others stays.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
    if let Some(limit) = lock_limit().map_err(|error| error.to_string())? {
        return Err(format!(
            "this process may lock no more than {} KiB: allow it with LimitMEMLOCK=infinity in the systemd unit, `ulimit -l \
             unlimited` in a root shell, or --ulimit memlock=-1 for a container",
            limit / 1024
        ));
    }
    // SAFETY: takes no pointers, and changes no byte.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().to_string()),
    }
}

/// Start and length of the mapping that a line of /proc/PID/maps describes, if it is this process's alone, writable, and
/// not of a file.
fn writable_anonymous(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (range, permissions) = (words.next()?, words.next()?);
    let (inode, name) = (words.nth(2)?, words.next().unwrap_or(""));
    if permissions != "rw-p" || inode != "0" || !(name.is_empty() || name == "[heap]") {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    Some((start, usize::from_str_radix(end, 16).ok()?.checked_sub(start)?))
}

/// Resident memory of a process, KiB; none if the process is gone.
pub(crate) fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_allocated_becomes_resident() {
        let before = resident_kib(std::process::id()).expect("it lives");
        let block = std::hint::black_box(vec![0u8; 64 << 20]);
        make_resident();
        let after = resident_kib(std::process::id()).expect("it lives");
        assert!(after >= before + (60 << 10), "from {before} to {after} KiB");
        assert!(block.iter().all(|&byte| byte == 0), "nothing is changed");
    }

    #[test]
    fn only_memory_of_its_own_is_touched() {
        let heap = "7f4360000000-7f4360068000 rw-p 00000000 00:00 0 ";
        assert_eq!(writable_anonymous(heap), Some((0x7f43_6000_0000, 0x68000)));
        assert_eq!(writable_anonymous("55d0-55e0 rw-p 00000000 00:00 0          [heap]"), Some((0x55d0, 0x10)));
        for other in [
            "7f4360068000-7f4364000000 ---p 00000000 00:00 0 ",
            "5561-5562 rw-p 0012f000 fe:00 10010875         /usr/bin/sinew",
            "7ffc-7ffd rw-p 00000000 00:00 0                [stack]",
            "7f43-7f44 rw-s 10000000 00:0f 2075             anon_inode:[io_uring]",
            "nonsense",
        ] {
            assert_eq!(writable_anonymous(other), None, "{other}");
        }
    }

    #[test]
    fn processes_have_memory_until_they_are_gone() {
        assert!(resident_kib(std::process::id()).is_some_and(|kib| kib > 100));
        assert_eq!(resident_kib(u32::MAX), None);
    }
}
