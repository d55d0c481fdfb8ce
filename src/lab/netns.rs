//! Network namespaces held by descriptor, and the few kernel knobs that are turned inside them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A network namespace. It lives while this value, a process, a thread or a socket is in it.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// A new, empty namespace; only a loopback interface, down.
    pub fn new() -> io::Result<Netns> {
        on_thread(|| {
            // SAFETY: plain system call; it affects only this thread, which ends after it.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            let file = std::fs::File::open("/proc/thread-self/ns/net")?;
            Ok(Netns(file.into()))
        })
    }

    /// Runs `work` on a thread of its own in this namespace. Sockets it makes stay in this namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_thread(|| {
            enter(self.0.as_fd())?;
            work()
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let joined = std::thread::scope(|scope| scope.spawn(work).join());
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Moves the calling thread into a namespace. Safe between fork and exec.
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain system call; it affects only the calling thread.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Turns a knob below `/proc/sys/net` of the calling thread's namespace.
pub fn sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// A raw packet socket that gets every frame arriving at an interface, and sends frames out of it.
pub(crate) fn packet_socket(index: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Protocol 0: nothing is received before bind() names the interface.
    // SAFETY: plain system call; the descriptor it returns is owned by nobody else.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    check(fd)?;
    // SAFETY: `fd` was just returned by socket(2).
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    let buffer = 8 << 20;
    if set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, buffer).is_err() {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, buffer)?;
    }
    // SAFETY: an all-zero sockaddr_ll is valid; the fields that matter are set below.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let length = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the pointer and length describe `address`.
    check(unsafe { libc::bind(fd, std::ptr::from_ref(&address).cast(), length) })?;
    Ok(socket)
}

/// Stamps received datagrams, as [`packet_socket`] does, on a socket made elsewhere.
pub(crate) fn stamp_arrivals(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// How many frames or datagrams the kernel has dropped at this socket because nobody read them in time; wraps.
/// (`SO_MEMINFO`, socket(7); the last of its nine words. A packet socket counts there what `PACKET_STATISTICS` would
/// forget on reading.)
pub(crate) fn dropped_unread(fd: i32) -> io::Result<u32> {
    const WORDS: usize = 9;
    let mut words = [0u32; WORDS];
    let mut length = size_of::<[u32; WORDS]>() as u32;
    // SAFETY: the pointers are to `words` and to its length.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, words.as_mut_ptr().cast(), &mut length) })?;
    Ok(words[WORDS - 1])
}

fn set_option(socket: &impl AsRawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let value = std::ptr::from_ref(&value).cast();
    // SAFETY: the pointer and length describe an int.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, 4) })
}

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// Turns off every feature of an interface that would let frames pass that no wire carries: segmentation left to the
/// "hardware", checksums not filled in, received frames glued together. (`linux/ethtool.h`; one thread's namespace.)
pub(crate) fn disable_offloads(interface: &str) -> io::Result<()> {
    let names = features(interface)?;
    let blocks = names.len().div_ceil(32);
    let mut request = vec![ETHTOOL_SFEATURES, blocks as u32];
    request.resize(2 + 2 * blocks, 0);
    for (bit, name) in names.iter().enumerate() {
        let unwanted = ["checksum", "segmentation", "scatter-gather", "gro", "lro"];
        if (name.starts_with("tx-") || name.starts_with("rx-")) && unwanted.iter().any(|part| name.contains(part)) {
            // Each block is a pair: what is meant, what is wanted.
            request[2 + 2 * (bit / 32)] |= 1 << (bit % 32);
        }
    }
    ethtool(interface, &mut request)
}

/// The names of an interface's features, in the order of their bits.
fn features(interface: &str) -> io::Result<Vec<String>> {
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    ethtool(interface, &mut info)?;
    let count = info[4] as usize;
    let mut strings = vec![0u32; 3 + count * ETH_GSTRING_LEN / 4];
    strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
    ethtool(interface, &mut strings)?;
    let bytes: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = |raw: &[u8]| String::from_utf8_lossy(raw).trim_end_matches('\0').to_owned();
    Ok(bytes.chunks_exact(ETH_GSTRING_LEN).map(name).collect())
}

fn ethtool(interface: &str, request: &mut [u32]) -> io::Result<()> {
    let name = CString::new(interface)?;
    // SAFETY: an all-zero ifreq is valid; name and data are set below.
    let mut frame: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in frame.ifr_name.iter_mut().zip(name.as_bytes().iter().take(libc::IFNAMSIZ - 1)) {
        *to = *from as libc::c_char;
    }
    frame.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    // SAFETY: plain system call; the descriptor it returns is owned by nobody else.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: `fd` was just returned by socket(2).
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the request has the layout and the length its first word announces.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &mut frame) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::ladder::run_test;
    use crate::runtime::netlink::Netlink;
    use std::net::UdpSocket;

    #[test]
    fn a_packet_socket_says_what_it_dropped() {
        let name = "lab::netns::tests::a_packet_socket_says_what_it_dropped";
        let body = || {
            let namespace = Netns::new().expect("is made");
            let flood = || {
                let mut netlink = Netlink::open()?;
                let loopback = netlink.index("lo")?;
                netlink.set_up(loopback, true)?;
                let socket = packet_socket(loopback)?;
                let (from, to) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
                assert_eq!(dropped_unread(socket.as_raw_fd())?, 0);
                // Several times what the socket holds, and nobody reads.
                for _ in 0..1000 {
                    from.send_to(&[0; 60_000], to.local_addr()?)?;
                }
                dropped_unread(socket.as_raw_fd())
            };
            let dropped = namespace.run(flood).expect("can be asked");
            assert!((100..1000).contains(&dropped), "{dropped} of 1000");
        };
        if !run_test(name, body) {
            crate::runtime::not_run::count(name);
        }
    }
}
