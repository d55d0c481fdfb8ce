//! A connected UDP socket that sends trains (UDP_SEGMENT) and receives them (UDP_GRO), so that the thread that plays both
//! neighbours is never the slower end.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::ptr;

/// Room for one received train.
const TRAIN_ROOM: usize = 1 << 16;
/// Trains taken by one system call.
const TRAINS: usize = 32;
/// Most datagrams of one train (UDP_MAX_SEGMENTS of older kernels).
const SEGMENTS: usize = 64;
/// Most bytes of one train: an IPv4 packet less its headers, rounded down.
const TRAIN_BYTES: usize = 64_000;
/// Datagrams handed to the kernel together.
pub(crate) const BATCH: usize = 64;
/// Socket buffers asked for, bytes; the same as a router's default.
const BUFFER: usize = 4 << 20;

/// Words of control messages: room for one integer, aligned.
const CONTROL: usize = 8;

/// The socket.
pub(crate) struct Port {
    socket: UdpSocket,
    trains: bool,
    vectors: Vec<libc::iovec>,
    room: Box<[[u8; TRAIN_ROOM]]>,
    room_vectors: Box<[libc::iovec]>,
    controls: Box<[[u64; CONTROL]]>,
    headers: Box<[libc::mmsghdr]>,
}

/// Draws of a port until so many in a row must have been free.
const DRAWS: usize = 100;

/// A loopback address with a port that was free a moment ago, as were those behind it: so many in all.
pub(crate) fn free_address(ports: usize) -> io::Result<SocketAddr> {
    for _ in 0..DRAWS {
        let first = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = first.local_addr()?;
        let last = usize::from(address.port()) + ports - 1;
        if last <= usize::from(u16::MAX) && (1..ports).all(|place| UdpSocket::bind(beside(address, place)).is_ok()) {
            return Ok(address);
        }
    }
    Err(io::Error::other(format!("no {ports} free ports in a row")))
}

/// The address of the worker `place` behind the one at `address`.
pub(crate) fn beside(mut address: SocketAddr, place: usize) -> SocketAddr {
    address.set_port(address.port() + place as u16);
    address
}

/// A socket on the loopback interface with buffers as large as a router's.
pub(crate) fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let options = socket2::SockRef::from(&socket);
    for name in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        // Only root may exceed the system's limit; what was granted bounds the window.
        let _ = set_option(&socket, libc::SOL_SOCKET, name, BUFFER as libc::c_int);
    }
    if granted(&socket) < BUFFER {
        let _ = options.set_recv_buffer_size(BUFFER);
        let _ = options.set_send_buffer_size(BUFFER);
    }
    Ok(socket)
}

/// Bytes of receive buffer.
pub(crate) fn granted(socket: &UdpSocket) -> usize {
    socket2::SockRef::from(socket).recv_buffer_size().unwrap_or(0) / 2
}

fn set_option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is `len` readable bytes.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn empty_header() -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: no name, no vectors, no control.
    unsafe { mem::zeroed() }
}

impl Port {
    /// Makes a port of a socket, connected to `remote`.
    pub(crate) fn new(socket: UdpSocket, remote: SocketAddr) -> io::Result<Port> {
        socket.connect(remote)?;
        // Without it trains arrive as single datagrams, which works as well.
        let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        let nothing = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Ok(Port {
            socket,
            trains: true,
            vectors: Vec::with_capacity(BATCH),
            room: vec![[0; TRAIN_ROOM]; TRAINS].into_boxed_slice(),
            room_vectors: vec![nothing; TRAINS].into_boxed_slice(),
            controls: vec![[0; CONTROL]; TRAINS].into_boxed_slice(),
            headers: vec![libc::mmsghdr { msg_hdr: empty_header(), msg_len: 0 }; TRAINS].into_boxed_slice(),
        })
    }

    /// Bytes of receive buffer.
    pub(crate) fn buffer(&self) -> usize {
        granted(&self.socket)
    }

    /// Sends datagrams in their order, equal ones in a row as a train. What the kernel refuses is lost: sinks miss it.
    pub(crate) fn send<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
        self.vectors.clear();
        for bytes in datagrams {
            self.vectors.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        }
        let mut start = 0;
        while start < self.vectors.len() {
            let train = self.train_from(start);
            start = train.end;
            self.send_train(train);
        }
    }

    /// The longest train that starts at `start`: equal lengths, of which the last may be shorter.
    fn train_from(&self, start: usize) -> Range<usize> {
        let len = self.vectors[start].iov_len;
        let most = if self.trains { SEGMENTS.min(TRAIN_BYTES / len.max(1)) } else { 1 };
        let mut end = start + 1;
        while end < self.vectors.len() && end - start < most {
            let next = self.vectors[end].iov_len;
            if next > len {
                break;
            }
            end += 1;
            if next < len {
                break;
            }
        }
        start..end
    }

    fn send_train(&mut self, train: Range<usize>) -> bool {
        let segment = (train.len() > 1).then(|| self.vectors[train.start].iov_len);
        for _ in 0..2 {
            match send_vectors(&self.socket, &mut self.vectors[train.clone()], segment) {
                Ok(()) => return true,
                Err(error) => match error.raw_os_error() {
                    // The answer to an earlier datagram: this one has not been tried.
                    Some(libc::ECONNREFUSED | libc::EINTR) => {}
                    Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE) if train.len() > 1 => {
                        self.trains = false;
                        return train.map(|one| self.send_train(one..one + 1)).fold(true, |all, sent| all & sent);
                    }
                    _ => return false,
                },
            }
        }
        false
    }

    /// Hands over what has arrived, at most one system call's worth. Answers how many datagrams.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(&mut [u8])) -> usize {
        let mut datagrams = 0;
        for index in 0..self.fill(libc::MSG_DONTWAIT) {
            let (len, segment) = self.train(index);
            for datagram in self.room[index][..len].chunks_mut(segment) {
                take(datagram);
                datagrams += 1;
            }
        }
        datagrams
    }

    /// Waits for something to arrive, as long as the socket does, and sends it through `exit`: trains as they came, one
    /// byte of each datagram changed. Answers how many datagrams.
    pub(crate) fn forward(&mut self, exit: &UdpSocket) -> usize {
        let mut datagrams = 0;
        for index in 0..self.fill(libc::MSG_WAITFORONE) {
            let (len, segment) = self.train(index);
            let bytes = &mut self.room[index][..len];
            for datagram in bytes.chunks_mut(segment) {
                datagram[1] = datagram[1].wrapping_sub(1);
                datagrams += 1;
            }
            let mut whole = [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len }];
            // What the kernel refuses is lost.
            let _ = send_vectors(exit, &mut whole, (len > segment).then_some(segment));
        }
        datagrams
    }

    /// Takes what has arrived into the room; how many trains.
    fn fill(&mut self, flags: libc::c_int) -> usize {
        for index in 0..TRAINS {
            self.room_vectors[index] =
                libc::iovec { iov_base: self.room[index].as_mut_ptr().cast(), iov_len: TRAIN_ROOM };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut self.room_vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_controllen = mem::size_of::<[u64; CONTROL]>();
        }
        let fd = self.socket.as_raw_fd();
        // SAFETY: every header was just pointed to its own vector, room and control words, alive and unaliased.
        let count =
            unsafe { libc::recvmmsg(fd, self.headers.as_mut_ptr(), TRAINS as libc::c_uint, flags, ptr::null_mut()) };
        usize::try_from(count).unwrap_or(0)
    }

    /// Bytes of a train that was taken, and of each of its datagrams but the last.
    fn train(&self, index: usize) -> (usize, usize) {
        let len = (self.headers[index].msg_len as usize).min(TRAIN_ROOM);
        (len, segment_len(&self.headers[index].msg_hdr).unwrap_or(len).max(1))
    }
}

/// Sends the vectors' bytes: one datagram, or a train of datagrams of `segment` bytes.
fn send_vectors(socket: &UdpSocket, vectors: &mut [libc::iovec], segment: Option<usize>) -> io::Result<()> {
    let mut control = [0u64; CONTROL];
    let mut header = empty_header();
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    if let Some(segment) = segment {
        let segment = segment as u16;
        let payload = mem::size_of_val(&segment) as libc::c_uint;
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: `control` is aligned and large enough for one header and a 16-bit value.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(payload) as usize;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_UDP;
            (*message).cmsg_type = libc::UDP_SEGMENT;
            (*message).cmsg_len = libc::CMSG_LEN(payload) as usize;
            libc::CMSG_DATA(message).cast::<u16>().write_unaligned(segment);
        }
    }
    // SAFETY: the vectors point to bytes that the callers borrow for the whole call.
    let result =
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The length of the datagrams of a train, if it is one.
fn segment_len(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has filled in the control words and their length; CMSG_NXTHDR stays within them.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_UDP && (*message).cmsg_type == libc::UDP_GRO {
                return usize::try_from(libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned()).ok();
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}
