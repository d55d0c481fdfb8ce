//! A worker's UDP sockets: one that listens, and one connected to each neighbour, all on the same address and port.
//!
//! The kernel prefers a connected socket over the listening one for datagrams of its neighbour, saves a route lookup on
//! every send (a tenth of the whole cost, measured), and tells us by ECONNREFUSED when the neighbour's process is gone.
//! A connected socket keeps the source address that connecting chose, whatever becomes of this machine's addresses and
//! routes. So a link has one only while it is up: it is opened when a datagram leaves, replaced when the neighbour moves,
//! closed when the link goes down, and set aside for a while when the kernel says that its address or route is gone. What
//! leaves without one goes through the listening socket, whose source address the kernel chooses for each datagram. That a
//! link that is up cannot have one is said once for each reason, and once when it has one after all.

use super::complaints::Complaints;
use super::io::Parts;
use super::sys;
use crate::base::limits::{DATAGRAM_SLOT, MAX_LINKS};
use crate::base::{Instant, LinkId};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// After a connected socket could not be opened, or was set aside, its link uses the listening one for this long.
const REOPEN: Duration = Duration::from_secs(1);
/// After trains of a link were refused, it sends single datagrams for this long: a way may change, and so may its cards.
const TRAINS_AGAIN: Duration = Duration::from_secs(60);
/// Datagrams of others that may have slipped into a socket between its bind and its connect.
const STRAYS: usize = 64;

/// Opens and binds the socket that a worker listens on. Nobody else can hold the port, not even another router of the same
/// user: the port becomes shareable with our own connected sockets only after it is ours.
pub(super) fn listen(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = open(address, buffer)?;
    socket.bind(&SockAddr::from(address))?;
    socket.set_reuse_port(true)?;
    Ok(socket.into())
}

/// What the kernel granted of the socket buffers: receive and send, bytes. (It doubles what is asked, for its own use.)
pub(super) fn granted(socket: &UdpSocket) -> (usize, usize) {
    let socket = socket2::SockRef::from(socket);
    (socket.recv_buffer_size().unwrap_or(0) / 2, socket.send_buffer_size().unwrap_or(0) / 2)
}

/// Asks the kernel to hand over the datagrams of a train as one. Every receive must have room for it from now on.
fn join_trains(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Whether this kernel can join and cut trains of datagrams.
pub(super) fn try_trains(socket: &UdpSocket) -> io::Result<()> {
    sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0)?;
    join_trains(socket.as_fd())?;
    sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 0)
}

/// Asks the kernel to say of every datagram when it arrived (SO_TIMESTAMPNS, socket(7)).
fn stamp(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Whether this kernel says when datagrams arrived.
pub(super) fn try_stamps(socket: &UdpSocket) -> io::Result<()> {
    stamp(socket.as_fd())?;
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)
}

fn open(address: SocketAddr, buffer: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    ask_buffers(&socket, buffer);
    probe_path_mtu(&socket, address);
    Ok(socket)
}

/// Asks for socket buffers: beyond the system's limit if we may, else up to it. The result is logged by the worker.
fn ask_buffers(socket: &Socket, bytes: usize) {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let force = |name| sys::set_option(socket.as_fd(), libc::SOL_SOCKET, name, value).is_ok();
    if !force(libc::SO_RCVBUFFORCE) {
        // Never fails: the kernel takes the limit instead.
        let _ = socket.set_recv_buffer_size(bytes);
    }
    if !force(libc::SO_SNDBUFFORCE) {
        let _ = socket.set_send_buffer_size(bytes);
    }
}

/// Never fragment, never believe ICMP about the path MTU: the link probes it itself (RFC 8899 section 4.6.1).
fn probe_path_mtu(socket: &Socket, address: SocketAddr) {
    let fd = socket.as_fd();
    let result = if address.is_ipv6() {
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    } else {
        sys::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    };
    if let Err(error) = result {
        tracing::warn!(%error, "path MTU probing is impaired: the socket may fragment");
    }
}

/// A link's socket.
#[derive(Debug)]
pub(super) struct LinkSocket {
    /// Connected to `remote`, non-blocking.
    pub(super) socket: UdpSocket,
    /// The neighbour.
    pub(super) remote: SocketAddr,
    /// Tells this socket from earlier ones of the same link.
    pub(super) generation: u32,
}

/// How a datagram leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Through this connected socket.
    Connected(RawFd),
    /// Through the listening socket, with an address.
    Listening,
    /// The link needs a new socket first.
    Open,
}

/// All sockets of a worker.
#[derive(Debug)]
pub struct Sockets {
    listen: UdpSocket,
    local: SocketAddr,
    buffer: usize,
    links: Vec<Option<LinkSocket>>,
    /// Links that are up.
    up: Vec<bool>,
    not_before: Vec<Instant>,
    generation: u32,
    /// Reasons for which links that are up have none, as far as they were said.
    complaints: Complaints,
    drops_seen: Vec<(RawFd, u32)>,
    /// Sockets opened in advance.
    stock: Vec<Socket>,
    /// Whether datagrams pass the kernel in trains at all.
    trains: bool,
    /// Whether the kernel says when datagrams arrived.
    stamps: bool,
    /// A link's trains were refused: it sends none before this.
    trains_not_before: Vec<Instant>,
}

impl Sockets {
    /// The listening socket alone. The buffer is asked of the kernel for each further one; the stock of those is opened
    /// now, since larger buffers than the system's limit are granted only to the privileged, which workers do not stay.
    pub(super) fn new(parts: Parts) -> io::Result<Sockets> {
        let Parts { listen, buffer, stock, trains, stamps, .. } = parts;
        let local = listen.local_addr()?;
        if trains {
            join_trains(listen.as_fd())?;
        }
        if stamps {
            stamp(listen.as_fd())?;
        }
        let stock = (0..stock).map(|_| open(local, buffer)).collect::<io::Result<_>>()?;
        let links = (0..MAX_LINKS).map(|_| None).collect();
        let not_before = vec![Instant::ZERO; MAX_LINKS];
        let up = vec![false; MAX_LINKS];
        let trains_not_before = vec![Instant::ZERO; MAX_LINKS];
        Ok(Sockets {
            listen,
            local,
            buffer,
            links,
            up,
            not_before,
            generation: 0,
            complaints: Complaints::new(),
            drops_seen: Vec::new(),
            stock,
            trains,
            stamps,
            trains_not_before,
        })
    }

    /// The listening socket.
    pub(super) fn listening(&self) -> &UdpSocket {
        &self.listen
    }

    /// Whether the sockets are of the IPv6 family.
    pub(super) fn ipv6(&self) -> bool {
        self.local.is_ipv6()
    }

    /// The link's connected socket.
    pub(super) fn link(&self, link: LinkId) -> Option<&LinkSocket> {
        self.links.get(link.index())?.as_ref()
    }

    /// How a datagram for `to` leaves.
    pub(super) fn route(&self, now: Instant, link: Option<LinkId>, to: SocketAddr) -> Route {
        let Some(link) = link.filter(|link| link.index() < MAX_LINKS) else { return Route::Listening };
        match self.link(link) {
            Some(open) if open.remote == to => Route::Connected(open.socket.as_raw_fd()),
            _ if !self.up[link.index()] || now < self.not_before[link.index()] => Route::Listening,
            _ => Route::Open,
        }
    }

    /// Opens the link's socket and has it watched; the link's earlier one must be closed. Datagrams of others that slipped
    /// in before the connect are handed to `stray`. On failure the link uses the listening socket for a while.
    pub(super) fn open(
        &mut self,
        now: Instant,
        link: LinkId,
        remote: SocketAddr,
        watch: impl FnOnce(RawFd) -> io::Result<()>,
        mut stray: impl FnMut(SocketAddr, &mut [u8]),
    ) -> Option<&LinkSocket> {
        assert!(self.link(link).is_none(), "a link's earlier socket is closed first");
        let opened = self.connect(remote).and_then(|socket| watch(socket.as_raw_fd()).map(|()| socket));
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                self.refused(now, link, remote, &error);
                return None;
            }
        };
        if self.complaints.mended(link) {
            tracing::info!(%link, %remote, "the link has a connected socket again");
        }
        let mut bytes = [0; DATAGRAM_SLOT];
        for _ in 0..STRAYS {
            let Ok((len, from)) = socket.recv_from(&mut bytes) else { break };
            stray(canonical(from), &mut bytes[..len]);
        }
        if self.trains
            && let Err(error) = join_trains(socket.as_fd())
        {
            tracing::debug!(%link, %error, "trains arrive as single datagrams");
        }
        if self.stamps
            && let Err(error) = stamp(socket.as_fd())
        {
            tracing::debug!(%link, %error, "times of arrival are not known");
        }
        self.generation = self.generation.wrapping_add(1);
        let slot = &mut self.links[link.index()];
        Some(slot.insert(LinkSocket { socket, remote, generation: self.generation }))
    }

    /// The link cannot have a socket of its own for now.
    fn refused(&mut self, now: Instant, link: LinkId, remote: SocketAddr, error: &io::Error) {
        if let Some(help) = self.complaints.begins(now, Some(link), error.raw_os_error().unwrap_or(0)) {
            tracing::warn!(%link, %remote, %error, help, "no connected socket for this link; the shared one is used");
        }
        self.put_off(now, link);
    }

    fn connect(&mut self, remote: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.stock.pop().map_or_else(|| open(self.local, self.buffer), Ok)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(self.local))?;
        let remote = match (remote, self.ipv6()) {
            (SocketAddr::V4(v4), true) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            (other, _) => other,
        };
        socket.connect(&SockAddr::from(remote))?;
        Ok(socket.into())
    }

    /// Closes the link's socket, if it has one.
    pub(super) fn close(&mut self, link: LinkId) {
        if let Some(slot) = self.links.get_mut(link.index()) {
            *slot = None;
            self.not_before[link.index()] = Instant::ZERO;
        }
    }

    /// The link may have a socket of its own, or not; it has none at this moment.
    pub(super) fn set_up(&mut self, link: LinkId, up: bool) {
        assert!(self.link(link).is_none(), "a socket is closed where what it receives can be given up");
        if let Some(slot) = self.up.get_mut(link.index()) {
            *slot = up;
            self.complaints.forget(link);
        }
    }

    /// The link, whose socket is closed, opens no other for a while.
    pub(super) fn put_off(&mut self, now: Instant, link: LinkId) {
        if let Some(slot) = self.not_before.get_mut(link.index()) {
            *slot = now + REOPEN;
        }
    }

    /// Whether what the link sends may leave in trains.
    pub(super) fn takes_trains(&self, now: Instant, link: LinkId) -> bool {
        self.trains && self.trains_not_before.get(link.index()).is_some_and(|&when| when <= now)
    }

    /// The kernel refused a train of the link: it sends none for a while.
    pub(super) fn put_off_trains(&mut self, now: Instant, link: LinkId) {
        if self.takes_trains(now, link) {
            tracing::warn!(%link, "the kernel refuses trains of datagrams on this link's way; they leave one by one for a while");
        }
        if let Some(slot) = self.trains_not_before.get_mut(link.index()) {
            *slot = now + TRAINS_AGAIN;
        }
    }

    /// Datagrams the kernel dropped on these sockets since it was asked last: their receive buffers were full.
    pub(super) fn new_kernel_drops(&mut self) -> u64 {
        let sockets = std::iter::once(&self.listen).chain(self.links.iter().flatten().map(|link| &link.socket));
        let mut new = 0;
        let mut seen = Vec::with_capacity(self.drops_seen.len());
        for socket in sockets {
            let fd = socket.as_raw_fd();
            let drops = sys::kernel_drops(socket.as_fd()).unwrap_or(0);
            let before = self.drops_seen.iter().find(|entry| entry.0 == fd).map_or(0, |entry| entry.1);
            new += u64::from(drops.checked_sub(before).unwrap_or(drops));
            seen.push((fd, drops));
        }
        self.drops_seen = seen;
        new
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// What is written to it, for all its copies.
    #[derive(Clone, Debug, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().expect("nobody panics"))).expect("text")
        }
    }

    #[test]
    fn a_link_that_cannot_have_a_socket_is_complained_of_once_for_each_reason_until_it_has_one() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            let listening = listen(([127, 0, 0, 1], 0).into(), 1 << 16).expect("binds");
            let neighbour = UdpSocket::bind(("127.0.0.1", 0)).expect("binds");
            let here = neighbour.local_addr().expect("bound");
            let bell = Arc::new(crate::runtime::doorbell::Doorbell::new().expect("eventfd"));
            let parts = Parts { listen: listening, buffer: 1 << 16, stock: 0, trains: false, stamps: false, bell };
            let mut sockets = Sockets::new(parts).expect("sockets");
            let (link, seconds) = (LinkId(3), |n| Instant::ZERO + Duration::from_secs(n));
            sockets.set_up(link, true);
            let mut open = |second, refuse: Option<i32>| {
                sockets.close(link);
                let watch = |_| refuse.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)));
                let opened = sockets.open(seconds(second), link, here, watch, |_, _| {}).is_some();
                (opened, sockets.route(seconds(second), Some(link), here))
            };
            assert_eq!(open(0, Some(libc::ENETUNREACH)), (false, Route::Listening));
            let said = log.take();
            assert!(said.contains("no connected socket") && said.contains("see `ip route get"), "{said}");
            (1..50).for_each(|second| assert!(!open(second, Some(libc::ENETUNREACH)).0));
            assert_eq!(log.take(), "", "it goes on");
            assert!(!open(50, Some(libc::ENOMEM)).0);
            assert_eq!(log.take().lines().count(), 1, "another reason");
            assert!(open(51, None).0);
            let said = log.take();
            assert!(said.contains("has a connected socket again") && said.lines().count() == 1, "{said}");
            assert!(open(52, None).0);
            assert_eq!(log.take(), "", "nothing was wrong");
            assert!(!open(53, Some(libc::ENETUNREACH)).0);
            assert_eq!(log.take().lines().count(), 1, "it begins anew");
        });
    }
}
