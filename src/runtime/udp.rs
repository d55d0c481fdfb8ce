//! A worker's UDP sockets: one that listens, and one connected to each neighbour by each path, all on the same port.
//!
//! The kernel prefers a connected socket over the listening one for datagrams of its neighbour, saves a route lookup on
//! every send (a tenth of the whole cost, measured), and tells us by ECONNREFUSED when the neighbour's process is gone.
//! A connected socket keeps the source address that connecting chose, whatever becomes of this machine's addresses and
//! routes. So a path has one only while it is up: it is opened when a datagram leaves, closed when one leaves by a path that
//! is down, or when the link goes down, and set aside for a while when the kernel says that its address or route is gone.
//! What leaves without one goes through the listening socket, whose source address the kernel chooses for each datagram.
//! That a path that is up cannot have one is said once for each reason, and once when it has one after all.
//!
//! A path with an address of this router's own is another matter: what leaves by it leaves from that address or not at
//! all. Its socket, bound to the address, is there whether the path is up or not.

use super::complaints::Complaints;
use super::io::Parts;
use super::sys;
use crate::base::limits::{DATAGRAM_SLOT, MAX_LINKS, MAX_PATHS};
use crate::base::{AddressPair, Instant, LinkId};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// After a connected socket could not be opened, or was set aside, its path has none for this long.
const REOPEN: Duration = Duration::from_secs(1);
/// After trains of a link were refused, it sends single datagrams for this long: a way may change, and so may its cards.
const TRAINS_AGAIN: Duration = Duration::from_secs(60);
/// Most errors taken from the listening socket's queue at once.
const ERRORS: usize = 64;
/// Datagrams of others that may have slipped into a socket between its bind and its connect.
const STRAYS: usize = 64;

/// Opens and binds the socket that a worker listens on. Nobody else can hold the port, not even another router of the same
/// user: the port becomes shareable with our own connected sockets only after it is ours.
pub(super) fn listen(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = open(address, buffer)?;
    socket.bind(&SockAddr::from(address))?;
    socket.set_reuse_port(true)?;
    hear_of_errors(&socket, address);
    Ok(socket.into())
}

/// Asks the kernel to keep what ICMP says of datagrams that leave through the socket; an unconnected one hears nothing of it
/// otherwise. It is only for people to read, so a kernel that cannot is good enough.
fn hear_of_errors(socket: &Socket, address: SocketAddr) {
    let asked = if address.is_ipv6() {
        // Of datagrams to mapped IPv4 addresses, too.
        sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
            .and_then(|()| sys::set_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, 1))
    } else {
        sys::set_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    };
    if let Err(error) = asked {
        tracing::debug!(%error, "why neighbours do not answer is not told by ICMP");
    }
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

/// Sockets of one link: those of its listed paths, and of some where the neighbour was found.
const MAX_SOCKETS: usize = MAX_PATHS + 2;
/// Sockets that all links may have.
pub(super) const MAX_LINK_SOCKETS: usize = MAX_LINKS * MAX_SOCKETS;

/// A path's socket.
#[derive(Debug)]
pub(super) struct PathSocket {
    /// Connected, non-blocking.
    pub(super) socket: UdpSocket,
    /// The path.
    pub(super) pair: AddressPair,
    /// Tells this socket from all others.
    pub(super) generation: u32,
    /// A receive is armed (io_uring).
    pub(super) armed: bool,
}

/// How a datagram leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Through this connected socket.
    Connected(RawFd),
    /// Through the listening socket, with an address.
    Listening,
    /// The path needs a new socket first.
    Open,
    /// The same as `Listening`, once the path's socket is closed.
    Close,
    /// Not at all, for this reason: the path's own address is not to be had.
    Nowhere(i32),
}

/// A path whose socket could not be opened, or was set aside.
#[derive(Clone, Copy, Debug)]
struct PutOff {
    pair: AddressPair,
    until: Instant,
}

/// All sockets of a worker.
#[derive(Debug)]
pub struct Sockets {
    listen: UdpSocket,
    local: SocketAddr,
    buffer: usize,
    /// By link.
    links: Vec<Vec<PathSocket>>,
    /// By link; as many as there may be sockets.
    put_off: Vec<Vec<PutOff>>,
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
        let links = (0..MAX_LINKS).map(|_| Vec::with_capacity(MAX_SOCKETS)).collect();
        let put_off = (0..MAX_LINKS).map(|_| Vec::with_capacity(MAX_SOCKETS)).collect();
        let trains_not_before = vec![Instant::ZERO; MAX_LINKS];
        Ok(Sockets {
            listen,
            local,
            buffer,
            links,
            put_off,
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

    /// The link's connected sockets.
    pub(super) fn of(&self, link: LinkId) -> &[PathSocket] {
        self.links.get(link.index()).map_or(&[], Vec::as_slice)
    }

    /// A connected socket without an armed receive, which it has from now on: its link, generation and descriptor.
    pub(super) fn take_unarmed(&mut self) -> Option<(LinkId, u32, RawFd)> {
        let mut all =
            self.links.iter_mut().enumerate().flat_map(|(link, open)| open.iter_mut().map(move |open| (link, open)));
        let (link, open) = all.find(|(_, open)| !open.armed)?;
        open.armed = true;
        Some((LinkId(link as u16), open.generation, open.socket.as_raw_fd()))
    }

    /// The link's socket of this generation.
    pub(super) fn get(&mut self, link: LinkId, generation: u32) -> Option<&mut PathSocket> {
        self.links.get_mut(link.index())?.iter_mut().find(|open| open.generation == generation)
    }

    /// How a datagram leaves by a path that is up, or is not.
    pub(super) fn route(&self, now: Instant, link: Option<LinkId>, path: AddressPair, up: bool) -> Route {
        let Some(link) = link.filter(|link| link.index() < MAX_LINKS) else { return self.answer(path) };
        let owned = path.local.is_some();
        match self.of(link).iter().find(|open| open.pair == path) {
            Some(open) if up || owned => Route::Connected(open.socket.as_raw_fd()),
            Some(_) => Route::Close,
            None if (up || owned) && !self.is_put_off(now, link, path) => Route::Open,
            None => self.answer(path),
        }
    }

    /// How a datagram leaves that is of no link: where one like it came in.
    fn answer(&self, path: AddressPair) -> Route {
        if path.local.is_none() {
            return Route::Listening;
        }
        let open = self.links.iter().flatten().find(|open| open.pair == path);
        open.map_or(Route::Nowhere(libc::EADDRNOTAVAIL), |open| Route::Connected(open.socket.as_raw_fd()))
    }

    /// The generation of the path's socket, or of the oldest if there is no room for another: it is to be closed before
    /// the path's is opened.
    pub(super) fn in_the_way(&self, link: LinkId, path: AddressPair) -> Option<u32> {
        let open = self.of(link);
        let same = open.iter().find(|open| open.pair == path);
        same.or_else(|| open.first().filter(|_| open.len() == MAX_SOCKETS)).map(|open| open.generation)
    }

    /// Opens a path's socket and has it watched; an earlier one must be closed. Datagrams of others that slipped in before
    /// the connect are handed to `stray`. On failure the path has none for a while.
    pub(super) fn open(
        &mut self,
        now: Instant,
        link: LinkId,
        pair: AddressPair,
        watch: impl FnOnce(RawFd, u32) -> io::Result<()>,
        mut stray: impl FnMut(AddressPair, &mut [u8]),
    ) -> Option<&PathSocket> {
        assert!(self.in_the_way(link, pair).is_none(), "a path's earlier socket is closed first");
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let opened = self.connect(pair).and_then(|socket| watch(socket.as_raw_fd(), generation).map(|()| socket));
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                self.refused(now, link, pair, &error);
                return None;
            }
        };
        if self.complaints.mended(link) {
            tracing::info!(%link, path = %pair, "the link has a connected socket again");
        }
        let mut bytes = [0; DATAGRAM_SLOT];
        for _ in 0..STRAYS {
            let Ok((len, from)) = socket.recv_from(&mut bytes) else { break };
            stray(AddressPair { remote: canonical(from), ..pair }, &mut bytes[..len]);
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
        let sockets = &mut self.links[link.index()];
        sockets.push(PathSocket { socket, pair, generation, armed: false });
        sockets.last()
    }

    /// The path cannot have a socket of its own for now.
    fn refused(&mut self, now: Instant, link: LinkId, pair: AddressPair, error: &io::Error) {
        if let Some(help) = self.complaints.begins(now, Some(link), error.raw_os_error().unwrap_or(0)) {
            let without = if pair.local.is_some() { "nothing leaves by it" } else { "the shared one is used" };
            tracing::warn!(%link, path = %pair, %error, help, "no connected socket for this path; {without}");
        }
        self.put_off(now, link, pair);
    }

    fn connect(&mut self, pair: AddressPair) -> io::Result<UdpSocket> {
        let socket = self.stock.pop().map_or_else(|| open(self.local, self.buffer), Ok)?;
        socket.set_reuse_port(true)?;
        let ipv6 = self.ipv6();
        let mapped = |address: SocketAddr| match address {
            SocketAddr::V4(v4) if ipv6 => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            other => other,
        };
        let local = pair.local.map_or(self.local, |ip| mapped(SocketAddr::new(ip, self.local.port())));
        socket.bind(&SockAddr::from(local))?;
        socket.connect(&SockAddr::from(mapped(pair.remote)))?;
        Ok(socket.into())
    }

    /// Closes a socket of the link.
    pub(super) fn close(&mut self, link: LinkId, generation: u32) {
        if let Some(sockets) = self.links.get_mut(link.index()) {
            sockets.retain(|open| open.generation != generation);
        }
    }

    /// The link is down or gone: its paths may have sockets as soon as they are up.
    pub(super) fn forget(&mut self, link: LinkId) {
        if let Some(put_off) = self.put_off.get_mut(link.index()) {
            put_off.clear();
            self.complaints.forget(link);
        }
    }

    fn is_put_off(&self, now: Instant, link: LinkId, pair: AddressPair) -> bool {
        self.put_off[link.index()].iter().any(|put_off| put_off.pair == pair && now < put_off.until)
    }

    /// The path, whose socket is closed, opens no other for a while.
    pub(super) fn put_off(&mut self, now: Instant, link: LinkId, pair: AddressPair) {
        let Some(put_off) = self.put_off.get_mut(link.index()) else { return };
        put_off.retain(|other| other.pair != pair && now < other.until);
        if put_off.len() == MAX_SOCKETS {
            put_off.remove(0);
        }
        put_off.push(PutOff { pair, until: now + REOPEN });
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

    /// Empties the listening socket's queue of errors; how many there were. Where ICMP said that a datagram could not arrive,
    /// `each` is told where it was to go, and the error.
    pub(super) fn take_errors(&self, mut each: impl FnMut(SocketAddr, i32)) -> usize {
        let errors = std::iter::from_fn(|| sys::take_error(self.listen.as_fd())).take(ERRORS);
        errors
            .map(|(to, errno, icmp)| {
                if icmp && errno != libc::EMSGSIZE {
                    each(to, errno)
                }
            })
            .count()
    }

    /// Datagrams the kernel dropped on these sockets since it was asked last: their receive buffers were full.
    pub(super) fn new_kernel_drops(&mut self) -> u64 {
        let sockets = std::iter::once(&self.listen).chain(self.links.iter().flatten().map(|open| &open.socket));
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
            let here = AddressPair::from(neighbour.local_addr().expect("bound"));
            let bell = Arc::new(crate::runtime::doorbell::Doorbell::new().expect("eventfd"));
            let parts = Parts { listen: listening, buffer: 1 << 16, stock: 0, trains: false, stamps: false, bell };
            let mut sockets = Sockets::new(parts).expect("sockets");
            let (link, seconds) = (LinkId(3), |n| Instant::ZERO + Duration::from_secs(n));
            let mut open = |second, refuse: Option<i32>| {
                while let Some(generation) = sockets.in_the_way(link, here) {
                    sockets.close(link, generation);
                }
                let watch = |_, _| refuse.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)));
                let opened = sockets.open(seconds(second), link, here, watch, |_, _| {}).is_some();
                (opened, sockets.route(seconds(second), Some(link), here, true))
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
