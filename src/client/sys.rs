//! The system calls that std does not wrap: gathered sends, scattered receives, descriptors in messages.

use super::batch::STEP;
use crate::shm::PLUG;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most descriptors taken with one receive; the router sends one with each line.
const DESCRIPTORS: usize = 8;

/// Room for control messages, aligned as cmsghdr(3) wants.
#[repr(C)]
union ControlRoom {
    _align: libc::cmsghdr,
    bytes: [u8; 128],
}

fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn header(vectors: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: no name, no vectors, no control.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = vectors;
    header.msg_iovlen = count;
    header
}

/// Sends the concatenation of `parts` as one record. `BrokenPipe` if the router has closed its end.
pub(super) fn send_parts(socket: BorrowedFd<'_>, parts: &mut [IoSlice<'_>]) -> io::Result<usize> {
    // IoSlice is an iovec (std guarantees the layout).
    let header = header(parts.as_mut_ptr().cast(), parts.len());
    loop {
        // SAFETY: the vectors point to readable bytes for the length of the call.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
        match check_len(sent) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(or_over),
        }
    }
}

/// Nothing, for [`STEP`] messages.
fn no_messages() -> [libc::mmsghdr; STEP] {
    [libc::mmsghdr { msg_hdr: header(std::ptr::null_mut(), 0), msg_len: 0 }; STEP]
}

/// Sends at most [`STEP`] records, each gathered from two parts, without waiting. Answers how many there was room for.
pub(super) fn send_many(socket: BorrowedFd<'_>, records: &mut [[IoSlice<'_>; 2]]) -> io::Result<usize> {
    let mut messages = no_messages();
    for (message, record) in messages.iter_mut().zip(records.iter_mut()) {
        // IoSlice is an iovec (std guarantees the layout).
        message.msg_hdr = header(record.as_mut_ptr().cast(), record.len());
    }
    let count = records.len().min(STEP) as libc::c_uint;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: `count` messages whose vectors point to readable bytes for the length of the call.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, flags) };
        match check_len(sent as isize) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            other => return other.map_err(or_over),
        }
    }
}

/// Receives a record into each slot, as many as are there, without waiting, and appends their whole lengths; an end has
/// length 0 and is the last.
pub(super) fn receive_many<'a>(
    socket: BorrowedFd<'_>,
    mut slots: impl ExactSizeIterator<Item = &'a mut [u8]>,
    lens: &mut Vec<usize>,
) -> io::Result<()> {
    while slots.len() > 0 {
        let (mut messages, mut count) = (no_messages(), 0);
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; STEP];
        for (vector, slot) in vectors.iter_mut().zip(slots.by_ref().take(STEP)) {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            messages[count].msg_hdr = header(vector, 1);
            count += 1;
        }
        let (flags, forever) = (libc::MSG_DONTWAIT | libc::MSG_TRUNC, std::ptr::null_mut());
        // SAFETY: `count` messages whose vectors point to writable bytes for the length of the call.
        let received =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count as libc::c_uint, flags, forever) };
        let received = check_len(received as isize)?;
        for message in &messages[..received] {
            lens.push(message.msg_len as usize);
            if message.msg_len == 0 {
                return Ok(());
            }
        }
        if received < count {
            break;
        }
    }
    Ok(())
}

/// What sending says once the router has closed its end.
pub(super) fn over() -> io::Error {
    let message = "the session is over (reading says why), or the router is gone: open it again";
    io::Error::new(io::ErrorKind::BrokenPipe, message)
}

fn or_over(error: io::Error) -> io::Error {
    let gone = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
    if gone { over() } else { error }
}

/// Sends `len` bytes, at most [`PLUG`], that only say that something is to be looked at. Never waits.
pub(super) fn send_token(socket: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let bytes = &[0; PLUG][..len];
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: `bytes` is readable for its length.
        let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        match check_len(sent) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop).map_err(or_over),
        }
    }
}

/// Takes what such a send of the other end left here, if there is any: its length.
pub(super) fn take_token(socket: BorrowedFd<'_>) -> Option<usize> {
    look_for_token(socket, libc::MSG_DONTWAIT)
}

/// The same, and leaves it there.
pub(super) fn peek_token(socket: BorrowedFd<'_>) -> Option<usize> {
    look_for_token(socket, libc::MSG_DONTWAIT | libc::MSG_PEEK)
}

fn look_for_token(socket: BorrowedFd<'_>, flags: libc::c_int) -> Option<usize> {
    loop {
        match look(socket, flags) {
            Ok(0) => return None,
            Ok(len) => return Some(len),
            Err(error) => match error.kind() {
                // The router is gone without having read everything: said once, ahead of what it had sent.
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset => {}
                _ => return None,
            },
        }
    }
}

/// Waits for such a send of the other end, as long as the socket allows, and leaves it there. Answers its length; 0 if the
/// router has closed its end.
pub(super) fn wait_for_token(socket: BorrowedFd<'_>) -> io::Result<usize> {
    loop {
        match look(socket, libc::MSG_PEEK) {
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset) => {}
            other => return other,
        }
    }
}

fn look(socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<usize> {
    let mut byte = [0u8; 1];
    // SAFETY: `byte` is one writable byte.
    check_len(unsafe { libc::recv(socket.as_raw_fd(), byte.as_mut_ptr().cast(), 1, flags | libc::MSG_TRUNC) })
}

/// Whether the other end is closed, also if what it wrote before is still to be read.
pub(super) fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: `entry` is one valid pollfd.
    let told = unsafe { libc::poll(&raw mut entry, 1, 0) };
    told > 0 && entry.revents & (libc::POLLHUP | libc::POLLERR) != 0
}

/// A clock that never goes back, exact to some milliseconds, and read for a third of what a finer one costs.
pub(super) fn coarse_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable. A kernel without this clock (before 2.6.32) leaves it at zero.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Whether calls on the socket wait.
pub(super) fn is_blocking(socket: BorrowedFd<'_>) -> bool {
    // SAFETY: takes no pointers.
    let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
    flags & libc::O_NONBLOCK == 0
}

/// Waits until the socket is writable or over, as long as a send would: `WouldBlock` if it does not block, or once its
/// timeout has passed.
pub(super) fn wait_for_room(socket: BorrowedFd<'_>) -> io::Result<()> {
    let timeout = if is_blocking(socket) { write_timeout(socket)? } else { Some(Duration::ZERO) };
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let millis = left.map_or(-1, |left| left.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX));
        let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: `entry` is one valid pollfd.
        match unsafe { libc::poll(&raw mut entry, 1, millis) } {
            0 => return Err(io::ErrorKind::WouldBlock.into()),
            1.. => return Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// Waits until the socket is writable or over, whether it blocks or not.
pub(super) fn wait_writable(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    loop {
        // SAFETY: `entry` is one valid pollfd.
        if unsafe { libc::poll(&raw mut entry, 1, -1) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// How long sends may wait; none is for ever.
fn write_timeout(socket: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = size_of_val(&value) as libc::socklen_t;
    let option = libc::SO_SNDTIMEO;
    // SAFETY: `value` is `len` writable bytes.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let timeout = Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64);
    Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
}

/// Receives one record, scattered over `parts`. Answers its whole length, also if it did not fit.
pub(super) fn receive_parts(socket: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    // IoSliceMut is an iovec (std guarantees the layout).
    let mut header = header(parts.as_mut_ptr().cast(), parts.len());
    loop {
        // SAFETY: the vectors point to writable bytes for the length of the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_TRUNC) };
        match check_len(received) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Receives bytes of a stream and the descriptors that came with them.
pub(super) fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut room = ControlRoom { bytes: [0; 128] };
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut header = header(&raw mut vector, 1);
    header.msg_control = (&raw mut room).cast();
    // SAFETY: CMSG_SPACE only computes.
    header.msg_controllen = unsafe { libc::CMSG_SPACE((DESCRIPTORS * size_of::<libc::c_int>()) as u32) } as usize;
    assert!(header.msg_controllen <= size_of::<ControlRoom>(), "the control messages fit");
    // SAFETY: one vector over `bytes`, and `room` for control messages.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let received = check_len(received)?;
    // SAFETY: the kernel wrote well-formed control messages to `room` and their total length to the header.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(&raw const header);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_SOCKET && (*control).cmsg_type == libc::SCM_RIGHTS {
                let payload = (*control).cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(control).cast::<libc::c_int>();
                for index in 0..payload / size_of::<libc::c_int>() {
                    descriptors.push_back(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            control = libc::CMSG_NXTHDR(&raw const header, control);
        }
    }
    Ok(received)
}

/// Makes calls on a descriptor, and on its duplicates, fail with `WouldBlock` instead of waiting.
pub(super) fn set_nonblocking(descriptor: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let mut on = libc::c_int::from(nonblocking);
    // SAFETY: FIONBIO reads one int.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::FIONBIO, &raw mut on) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes receives fail with `WouldBlock` after a while.
pub(super) fn set_read_timeout(descriptor: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    set_timeout(descriptor, libc::SO_RCVTIMEO, timeout)
}

/// Makes sends fail with `WouldBlock` after a while.
pub(super) fn set_write_timeout(descriptor: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    set_timeout(descriptor, libc::SO_SNDTIMEO, timeout)
}

fn set_timeout(descriptor: BorrowedFd<'_>, name: libc::c_int, timeout: Option<Duration>) -> io::Result<()> {
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a timeout of zero: use set_nonblocking"));
    }
    let timeout = timeout.unwrap_or_default();
    let mut value = libc::timeval {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(timeout.subsec_micros()),
    };
    if value.tv_sec == 0 && value.tv_usec == 0 && !timeout.is_zero() {
        value.tv_usec = 1;
    }
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is `len` readable bytes.
    let result =
        unsafe { libc::setsockopt(descriptor.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
