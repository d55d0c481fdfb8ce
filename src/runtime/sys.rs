//! The system calls that neither std nor a crate of ours wraps, each behind a safe signature.

use crate::base::WallTime;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The result of a system call that answers -1 on failure.
pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The result of a system call that answers a length, or -1 on failure.
fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A duration as the kernel wants it.
pub(super) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos()),
    }
}

/// A counter that can be polled, non-blocking.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes an eventfd readable. It fails only when the counter is at its maximum, and then it is readable already.
pub(super) fn eventfd_add(fd: BorrowedFd<'_>) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` is 8 readable bytes.
    unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Makes an eventfd unreadable. It fails only when it is so already.
pub(super) fn eventfd_drain(fd: BorrowedFd<'_>) {
    let mut count = [0u8; 8];
    // SAFETY: `count` is 8 writable bytes.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// Whether `fd` becomes readable within `timeout`.
pub(super) fn poll_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `entry` is one valid pollfd.
    Ok(check(unsafe { libc::poll(&raw mut entry, 1, timeout) })? > 0)
}

/// Wakes this thread's sleeps within a nanosecond of when it asked, instead of the default 50 µs.
pub(super) fn tighten_timers() -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0) }).map(drop)
}

/// Raises this process's limit of open files to the most it may have.
pub(super) fn raise_open_files() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is one writable rlimit.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is one readable rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Sets an integer socket option.
pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is `len` readable bytes.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
}

/// Datagrams the kernel dropped because the socket's receive buffer was full.
pub(super) fn kernel_drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // From <linux/sock_diag.h>: SK_MEMINFO_DROPS is the ninth of the values that SO_MEMINFO answers.
    const DROPS: usize = 8;
    let mut values = [0u32; 9];
    let mut len = mem::size_of_val(&values) as libc::socklen_t;
    let option = libc::SO_MEMINFO;
    // SAFETY: `values` is `len` writable bytes.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, values.as_mut_ptr().cast(), &raw mut len)
    })?;
    Ok(values[DROPS])
}

/// Two connected `SOCK_SEQPACKET` ends: the router's, which never blocks, and the application's, which does.
pub(super) fn session_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` is room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so both are open and nobody else's.
    let ends = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(ends[0].as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    let [router, application] = ends;
    Ok((router, application))
}

/// Takes one record from a session's descriptor. Zero bytes: the other end is closed.
pub(super) fn receive_record(fd: BorrowedFd<'_>, record: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `record` is writable for its length.
    check_len(unsafe { libc::recv(fd.as_raw_fd(), record.as_mut_ptr().cast(), record.len(), libc::MSG_DONTWAIT) })
}

/// Copies the last of the records that wait in a session's descriptor, and takes none. Answers its length; nothing if no
/// record waits. The other end must be closed, or records might be added for ever.
pub(super) fn peek_last_record(fd: BorrowedFd<'_>, record: &mut [u8]) -> io::Result<Option<usize>> {
    let offset = |offset: libc::c_int| {
        let (value, len) = ((&raw const offset).cast(), size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the pointer and length describe `offset`.
        check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, value, len) }).map(drop)
    };
    // From here each peek moves on by what it copied.
    offset(0)?;
    let (mut last, flags) = (None, libc::MSG_DONTWAIT | libc::MSG_PEEK);
    let result = loop {
        // SAFETY: `record` is writable for its length.
        match check_len(unsafe { libc::recv(fd.as_raw_fd(), record.as_mut_ptr().cast(), record.len(), flags) }) {
            Ok(0) => break Ok(last),
            Ok(len) => last = Some(len),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => break Ok(last),
                Some(libc::ECONNRESET | libc::EINTR) => {}
                _ => break Err(error),
            },
        }
    };
    offset(-1)?;
    result
}

/// Puts one record into a session's descriptor.
pub(super) fn send_record(fd: BorrowedFd<'_>, record: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `record` is readable for its length.
    check_len(unsafe { libc::send(fd.as_raw_fd(), record.as_ptr().cast(), record.len(), flags) }).map(drop)
}

/// Most descriptors that go with one line.
const DESCRIPTORS: usize = 2;

/// Room for the control message of a few descriptors, aligned as cmsghdr(3) wants.
#[repr(C)]
union ControlRoom {
    _align: libc::cmsghdr,
    bytes: [u8; 64],
}

/// Sends bytes over a stream socket, with at most [`DESCRIPTORS`] descriptors attached to the first of them. Answers how
/// many were taken; the descriptors go with them if any were.
pub(super) fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[OwnedFd],
) -> io::Result<usize> {
    let mut room = ControlRoom { bytes: [0; 64] };
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero is a valid msghdr: no name, no vectors, no control.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if !descriptors.is_empty() {
        let mut fds = [-1; DESCRIPTORS];
        let fds = &mut fds[..descriptors.len()];
        fds.iter_mut().zip(descriptors).for_each(|(fd, descriptor)| *fd = descriptor.as_raw_fd());
        let payload = mem::size_of_val(fds) as libc::c_uint;
        header.msg_control = (&raw mut room).cast();
        // SAFETY: CMSG_SPACE only computes.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(payload) } as usize;
        assert!(header.msg_controllen <= mem::size_of::<ControlRoom>(), "the control message fits");
        // SAFETY: `msg_control` is `msg_controllen` zeroed, aligned bytes, enough for one header and the descriptors.
        unsafe {
            let control = libc::CMSG_FIRSTHDR(&raw const header);
            (*control).cmsg_level = libc::SOL_SOCKET;
            (*control).cmsg_type = libc::SCM_RIGHTS;
            (*control).cmsg_len = libc::CMSG_LEN(payload) as usize;
            let data = libc::CMSG_DATA(control);
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, mem::size_of_val(fds));
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header's pointers are valid for the call: one vector over `bytes`, and `room` or nothing.
    check_len(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) })
}

/// A socket address as the kernel writes it, IPv4 or IPv6.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Name([u8; Name::LEN]);

impl Name {
    /// Room for the longer of both forms (`sockaddr_in6`, 28 bytes), rounded up.
    pub(super) const LEN: usize = 32;
    /// No address.
    pub(super) const EMPTY: Name = Name([0; Name::LEN]);

    /// Writes `address` for a socket of the given family; an IPv6 socket reaches IPv4 by mapped addresses (RFC 4291
    /// section 2.5.5.2). Answers the length.
    pub(super) fn set(&mut self, address: SocketAddr, ipv6: bool) -> usize {
        let address = match address {
            SocketAddr::V4(v4) if ipv6 => SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0)),
            other => other,
        };
        let put = |room: &mut [u8], bytes: &[u8]| room[..bytes.len()].copy_from_slice(bytes);
        match address {
            SocketAddr::V4(v4) => {
                put(&mut self.0[0..], &(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
                put(&mut self.0[2..], &v4.port().to_be_bytes());
                put(&mut self.0[4..], &v4.ip().octets());
                put(&mut self.0[8..], &[0; 8]);
                mem::size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                put(&mut self.0[0..], &(libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
                put(&mut self.0[2..], &v6.port().to_be_bytes());
                put(&mut self.0[4..], &v6.flowinfo().to_be_bytes());
                put(&mut self.0[8..], &v6.ip().octets());
                put(&mut self.0[24..], &v6.scope_id().to_ne_bytes());
                mem::size_of::<libc::sockaddr_in6>()
            }
        }
    }

    /// The address in here.
    pub(super) fn get(&self) -> Option<SocketAddr> {
        Name::read(&self.0)
    }

    /// The address that the kernel wrote to the front of `bytes`; mapped IPv4 addresses come back as IPv4.
    pub(super) fn read(bytes: &[u8]) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
        match i32::from(libc::sa_family_t::from_ne_bytes(*bytes.first_chunk()?)) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?);
                Some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
                if let Some(mapped) = ip.to_ipv4_mapped() {
                    return Some(SocketAddr::V4(SocketAddrV4::new(mapped, port)));
                }
                let flow = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
                let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
            }
            _ => None,
        }
    }
}

/// The control message about a train of datagrams to send: how long each is, but the last (udp(7)).
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct SegmentSize {
    header: libc::cmsghdr,
    /// A u16, then padding.
    size: [u8; 8],
}

impl SegmentSize {
    /// Its length as the kernel counts it.
    pub(super) const LEN: usize = mem::size_of::<SegmentSize>();
    /// Says nothing.
    pub(super) const EMPTY: SegmentSize =
        SegmentSize { header: libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 }, size: [0; 8] };

    /// Cut what is sent every `bytes` bytes.
    pub(super) fn to_send(bytes: u16) -> SegmentSize {
        let cmsg_len = mem::size_of::<libc::cmsghdr>() + mem::size_of::<u16>();
        let header = libc::cmsghdr { cmsg_len, cmsg_level: libc::SOL_UDP, cmsg_type: libc::UDP_SEGMENT };
        let mut size = [0; 8];
        size[..2].copy_from_slice(&bytes.to_ne_bytes());
        SegmentSize { header, size }
    }
}

/// What the kernel says beside a datagram, or a train of them, that arrived (cmsg(3)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beside {
    /// Where to cut it, if it is a train.
    pub(super) cut: Option<usize>,
    /// When it arrived, by the wall clock; of a train, its first datagram.
    pub(super) at: Option<WallTime>,
}

/// Room for it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct BesideRoom([u8; BesideRoom::LEN]);

impl BesideRoom {
    /// A header and a time, a header and a length, each rounded up.
    pub(super) const LEN: usize = 2 * mem::size_of::<libc::cmsghdr>() + mem::size_of::<libc::timespec>() + 8;
    /// Nothing said.
    pub(super) const EMPTY: BesideRoom = BesideRoom([0; Self::LEN]);

    /// What the kernel wrote here, `len` bytes.
    pub(super) fn read(&self, len: usize) -> Beside {
        Beside::read(&self.0[..len.min(Self::LEN)])
    }
}

impl Beside {
    /// Reads control messages. What is torn ends them; what was not asked for is passed over.
    pub(super) fn read(mut bytes: &[u8]) -> Beside {
        const HEADER: usize = mem::size_of::<libc::cmsghdr>();
        let mut beside = Beside::default();
        while let Some(header) = bytes.get(..HEADER) {
            // SAFETY: a cmsghdr is plain integers, and `header` is as many readable bytes.
            let header = unsafe { header.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
            let Some(value) = bytes.get(HEADER..header.cmsg_len) else { break };
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = value.first_chunk().and_then(|size| usize::try_from(i32::from_ne_bytes(*size)).ok());
                    beside.cut = size.filter(|&size| size > 0);
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => beside.at = wall_time(value),
                _ => {}
            }
            bytes = bytes.get(header.cmsg_len.next_multiple_of(mem::align_of::<libc::cmsghdr>())..).unwrap_or(&[]);
        }
        beside
    }
}

/// The timespec at the front of `bytes`, as wall time.
fn wall_time(bytes: &[u8]) -> Option<WallTime> {
    let (seconds, rest) = bytes.split_first_chunk()?;
    let seconds = u64::try_from(libc::time_t::from_ne_bytes(*seconds)).ok()?;
    let nanos = u64::try_from(libc::c_long::from_ne_bytes(*rest.first_chunk()?)).ok()?;
    Some(WallTime::from_nanos(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

/// The descriptor of a mio type, which know no `AsFd`.
pub(super) fn borrow(source: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the source owns the descriptor and is borrowed for as long as the result lives.
    unsafe { BorrowedFd::borrow_raw(source.as_raw_fd()) }
}

/// Runs `action` under a file creation mask. It belongs to the whole process: no other thread may create files meanwhile.
pub(super) fn with_umask<T>(mask: libc::mode_t, action: impl FnOnce() -> T) -> T {
    // SAFETY: takes no pointers.
    let before = unsafe { libc::umask(mask) };
    let result = action();
    // SAFETY: takes no pointers.
    unsafe { libc::umask(before) };
    result
}

/// An empty epoll instance.
pub(super) fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds, changes or removes what an epoll instance watches.
pub(super) fn epoll_control(
    epoll: BorrowedFd<'_>,
    operation: libc::c_int,
    fd: libc::c_int,
    interest: u32,
    token: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events: interest, u64: token };
    // SAFETY: `event` is one valid epoll_event.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &raw mut event) }).map(drop)
}

/// Waits for events, for ever without a timeout. Answers how many were written. `coarse` is set once the kernel turned out
/// to know no nanosecond timeouts (before 5.11); then timeouts are rounded up to milliseconds.
pub(super) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
    coarse: &mut bool,
) -> io::Result<usize> {
    let room = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
    if !*coarse && timeout.is_some_and(|timeout| !timeout.is_zero()) {
        let spec = timespec(timeout.unwrap_or_default());
        // SAFETY: `events` is room for `room` events, `spec` a valid timespec, no signal mask.
        let result = check(unsafe {
            libc::epoll_pwait2(epoll.as_raw_fd(), events.as_mut_ptr(), room, &raw const spec, std::ptr::null())
        });
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => *coarse = true,
            other => return other.map(|count| count as usize),
        }
    }
    let up =
        |timeout: Duration| libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX);
    let millis = timeout.map_or(-1, up);
    // SAFETY: `events` is room for `room` events.
    let result = check(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, millis) });
    result.map(|count| count as usize)
}

/// Receives as many datagrams as are queued and there are headers for, without blocking. Answers how many.
///
/// # Safety
/// Every pointer in `headers` must be valid for writing what it describes.
pub(super) unsafe fn receive_many(fd: BorrowedFd<'_>, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let count = headers.len() as libc::c_uint;
    let (flags, forever) = (libc::MSG_DONTWAIT, std::ptr::null_mut());
    // SAFETY: the caller vouches for the headers' pointers.
    let result = check(unsafe { libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, flags, forever) });
    result.map(|count| count as usize)
}

/// Sends datagrams in order until one is refused, without blocking. Answers how many left; an error is the first one's.
///
/// # Safety
/// Every pointer in `headers` must be valid for reading what it describes.
pub(super) unsafe fn send_many(fd: BorrowedFd<'_>, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the caller vouches for the headers' pointers.
    let result =
        check(unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), headers.len() as libc::c_uint, flags) });
    result.map(|count| count as usize)
}

/// Takes the oldest error from a socket's queue (`IP_RECVERR`, ip(7)): where the datagram was to go that it is about, the
/// error, and whether an ICMP message said so. None if the queue is empty.
pub(super) fn take_error(fd: BorrowedFd<'_>) -> Option<(SocketAddr, i32, bool)> {
    #[repr(C, align(8))]
    struct Control([u8; 128]);
    let (mut name, mut control) = (Name::EMPTY, Control([0; 128]));
    let mut header = empty_header();
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = Name::LEN as libc::socklen_t;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: name and control are as long as the header says; there is no vector, so the datagram itself is cut off.
    let taken = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if taken < 0 {
        return None;
    }
    // SAFETY: the kernel wrote `msg_controllen` bytes of whole control messages.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: the macros gave it, so a header is there.
        let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        if matches!((level, kind), (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)) {
            // SAFETY: such a message holds a `sock_extended_err`, wherever it is aligned.
            let error = unsafe { libc::CMSG_DATA(message).cast::<libc::sock_extended_err>().read_unaligned() };
            let icmp = matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6);
            return Some((name.get()?, error.ee_errno.cast_signed(), icmp));
        }
        // SAFETY: both come from the header above.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    None
}

/// A netlink socket that hears of changes: groups are bits (`RTMGRP_…`). Non-blocking.
pub(super) fn netlink_listener(family: libc::c_int, groups: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_NETLINK, kind, family) })?;
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid sockaddr_nl: the kernel chooses the port.
    let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = groups.cast_unsigned();
    let len = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and length describe `address`.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), len) })?;
    Ok(socket)
}

/// A packet socket without link headers (packet(7)), non-blocking. It hears this protocol on every interface; with
/// protocol zero it only sends.
pub(super) fn packet_socket(protocol: u16) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, protocol.to_be().into()) })?;
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a socket hear only what the program accepts.
pub(super) fn attach_filter(fd: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let (value, size) = ((&raw const program).cast(), mem::size_of_val(&program) as libc::socklen_t);
    // SAFETY: the program is as long as it says, and the kernel only reads it.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, size) }).map(drop)
}

/// A frame's way on a link.
fn link_address(index: u32, protocol: u16, mac: [u8; 6]) -> libc::sockaddr_ll {
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: mac.len() as u8,
        sll_addr: [0; 8],
    };
    address.sll_addr[..mac.len()].copy_from_slice(&mac);
    address
}

/// Sends what follows the link header, out of this interface to this Ethernet address.
pub(super) fn send_frame(fd: BorrowedFd<'_>, index: u32, protocol: u16, to: [u8; 6], bytes: &[u8]) -> io::Result<()> {
    let address = link_address(index, protocol, to);
    let (name, len) = ((&raw const address).cast(), mem::size_of_val(&address) as libc::socklen_t);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointers and lengths describe `bytes` and `address`.
    check_len(unsafe { libc::sendto(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags, name, len) }).map(drop)
}

/// Takes what follows the link header of a frame: its length, the interface it came in by, and who sent it.
pub(super) fn receive_frame(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, u32, [u8; 6])> {
    let mut address = link_address(0, 0, [0; 6]);
    let mut len = mem::size_of_val(&address) as libc::socklen_t;
    let (name, flags) = ((&raw mut address).cast(), libc::MSG_DONTWAIT);
    // SAFETY: the pointers and lengths describe `bytes` and `address`, both writable.
    let got = check_len(unsafe {
        libc::recvfrom(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags, name, &raw mut len)
    })?;
    let [a, b, c, d, e, f, _, _] = address.sll_addr;
    Ok((got, address.sll_ifindex.cast_unsigned(), [a, b, c, d, e, f]))
}

/// A descriptor that becomes readable when the process ends.
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    let fd = check(libc::c_int::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A message header that describes nothing.
pub(super) fn empty_header() -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: no name, no vectors, no control.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn names_round_trip_and_map() {
        let mut name = Name::EMPTY;
        for text in ["127.0.0.1:4000", "[::1]:4000", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().expect("an address");
            name.set(address, address.is_ipv6());
            assert_eq!(name.get(), Some(address));
        }
        let v4: SocketAddr = "192.0.2.1:53".parse().expect("an address");
        assert_eq!(name.set(v4, true), mem::size_of::<libc::sockaddr_in6>());
        assert_eq!(name.get(), Some(v4), "mapped and back");
        assert_eq!(Name::EMPTY.get(), None);
        assert_eq!(Name::read(&[2]), None);
    }

    #[test]
    fn control_messages_are_read_in_any_order_and_never_beyond_their_end() {
        let message = |level: i32, kind: i32, value: &[u8]| {
            let header = libc::cmsghdr { cmsg_len: 16 + value.len(), cmsg_level: level, cmsg_type: kind };
            let mut bytes =
                [&header.cmsg_len.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        };
        let time = [7i64.to_ne_bytes(), 9i64.to_ne_bytes()].concat();
        let stamp = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &time);
        let train = message(libc::SOL_UDP, libc::UDP_GRO, &700i32.to_ne_bytes());
        let other = message(libc::SOL_IP, 99, &[1]);
        let whole = Beside { cut: Some(700), at: Some(WallTime::from_nanos(7_000_000_009)) };
        assert_eq!(Beside::read(&[&stamp[..], &other, &train].concat()), whole);
        assert_eq!(Beside::read(&[&train[..], &stamp].concat()), whole);
        assert_eq!(stamp.len() + train.len(), BesideRoom::LEN);
        let both = [&stamp[..], &train].concat();
        (0..both.len()).for_each(|len| assert_eq!(Beside::read(&both[..len]).cut, (len >= 52).then_some(700), "{len}"));
        assert_eq!(Beside::read(&message(libc::SOL_UDP, libc::UDP_GRO, &(-1i32).to_ne_bytes())), Beside::default());
        let mut endless = stamp.clone();
        endless[..8].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(Beside::read(&endless), Beside::default());
        endless[..8].copy_from_slice(&0usize.to_ne_bytes());
        assert_eq!(Beside::read(&endless), Beside::default(), "a message shorter than its header");
    }

    #[test]
    fn session_pairs_keep_records_whole_and_say_when_full() {
        let (router, application) = session_pair().expect("a pair");
        let big = vec![7; crate::wire::client::MAX_RECORD];
        let mut sent = 0;
        let error = loop {
            match send_record(router.as_fd(), &big) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(sent >= 2, "only {sent} of the largest records fit");
        let mut room = vec![0; crate::wire::client::MAX_RECORD + 1];
        for _ in 0..sent {
            assert_eq!(receive_record(application.as_fd(), &mut room).expect("receives"), big.len());
        }
        drop(router);
        assert_eq!(receive_record(application.as_fd(), &mut room).expect("receives"), 0);
    }
}
