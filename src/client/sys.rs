//! The system calls that std does not wrap: gathered sends, scattered receives, descriptors in messages.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

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
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                let message = "the session is over (reading says why), or the router is gone: open it again";
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, message));
            }
            other => return other,
        }
    }
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
