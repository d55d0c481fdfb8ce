//! What a thread may (capabilities(7)), and taking from a worker thread all of it that it does not need.

use std::io;

/// Linux 3 capability sets: two words each (`_LINUX_CAPABILITY_VERSION_3`).
const VERSION: u32 = 0x2008_0522;
/// Commands of another group.
pub const SETGID: u32 = 6;
/// Commands of another user.
pub const SETUID: u32 = 7;
/// Bind ports below 1024.
const NET_BIND_SERVICE: u32 = 10;
/// Socket buffers beyond the system's limit.
pub const NET_ADMIN: u32 = 12;
/// Real-time priority.
pub const SYS_NICE: u32 = 23;
/// Limits (setrlimit(2)) beyond what was granted.
pub const SYS_RESOURCE: u32 = 24;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// What became of the thread's capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It had none.
    HadNone,
    /// It has none now.
    All,
    /// It keeps the one that privileged ports need.
    AllButBindService,
}

/// Drops the calling thread's capabilities. A worker opens a connected socket per link on its own port; a port below 1024
/// needs one capability for that.
pub(super) fn drop_all_but_needed(port: u16) -> io::Result<Dropped> {
    let mut sets = get()?;
    if sets.iter().all(|set| set.permitted == 0) {
        return Ok(Dropped::HadNone);
    }
    let keep = if port < 1024 { 1 << NET_BIND_SERVICE } else { 0 };
    let kept = sets[0].permitted & keep;
    sets = [Sets { effective: kept, permitted: kept, inheritable: 0 }, Sets::default()];
    set(&sets)?;
    Ok(if kept == 0 { Dropped::All } else { Dropped::AllButBindService })
}

/// Whether the calling thread has a capability.
pub fn has(capability: u32) -> bool {
    get().is_ok_and(|sets| sets[capability as usize / 32].effective & (1 << (capability % 32)) != 0)
}

fn get() -> io::Result<[Sets; 2]> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: the header and the two sets are laid out as <linux/capability.h> says for version 3.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    if result == 0 { Ok(sets) } else { Err(io::Error::last_os_error()) }
}

fn set(sets: &[Sets; 2]) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    // SAFETY: as in `get`; the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_what_the_kernel_shows() {
        let status = std::fs::read_to_string("/proc/self/status").expect("is there");
        let shown = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("is shown").trim();
        let shown = u64::from_str_radix(shown, 16).expect("is a mask");
        for capability in [NET_BIND_SERVICE, NET_ADMIN, SYS_NICE, 40] {
            assert_eq!(has(capability), shown & (1 << capability) != 0, "{capability}");
        }
    }

    /// In a thread of its own, since capabilities belong to threads and do not come back.
    #[test]
    fn nothing_is_left_and_the_other_threads_keep_theirs() {
        let before = get().expect("capget").map(|set| set.permitted);
        let dropped = std::thread::spawn(|| {
            let dropped = drop_all_but_needed(4000).expect("capset");
            assert!(get().expect("capget").iter().all(|set| set.permitted == 0 && set.effective == 0));
            assert_eq!(drop_all_but_needed(4000).expect("capset"), Dropped::HadNone);
            dropped
        });
        let dropped = dropped.join().expect("the thread does not panic");
        assert_eq!(dropped == Dropped::HadNone, before == [0, 0]);
        assert_eq!(get().expect("capget").map(|set| set.permitted), before);
    }
}
