//! How packets and descriptors move: one trait, two sets of system calls.
//!
//! - [`uring`]: io_uring with multishot receives into provided buffers; one system call submits a batch of sends,
//!   collects what arrived and waits with a deadline.
//! - [`mmsg`]: epoll, recvmmsg, sendmmsg; works everywhere, within a few per cent of the other (measured).
//!
//! [`choose`] decides at start by really sending datagrams through a ring, because kernels, containers and seccomp
//! filters refuse io_uring in more ways than a version number tells. Under both, datagrams pass the kernel in `trains`.
//!
//! Both follow the same rules. A pass hands over at most [`PASS`] datagrams, so that acknowledgements, which leave between
//! passes, never wait for an unbounded drain. Sends never block: what the kernel has no room for is reported as failed,
//! counted, and recovered by the link like any other loss. Descriptors of sessions are watched level-triggered: as long
//! as one is ready and wanted, every pass says so. Of one that is not wanted the end is told, once.

pub mod mmsg;
#[cfg(test)]
mod tests;
mod trains;
pub mod uring;
mod watches;

use super::doorbell::Doorbell;
use super::udp::{self, Route, Sockets};
use crate::base::{AddressPair, Instant, LinkId, SessionId, WallTime};
use crate::config::settings::{Io, Offload, SocketWait};
use crate::containers::Batch;
use crate::containers::batch::Transmit;
use crate::telemetry::DropReason;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

pub use trains::Arrangement;

/// Most datagrams handed over in one pass.
pub const PASS: usize = 256;
/// Most datagrams taken from one socket in one pass.
pub const PASS_PER_SOCKET: usize = 64;
/// Datagrams of a transmit batch.
pub const BATCH: usize = 64;

/// What a backend has to tell.
#[derive(Debug)]
pub enum Event<'a> {
    /// A datagram arrived.
    Datagram {
        /// Where from, and to which address where that is known to be the path's.
        from: AddressPair,
        /// Its bytes, free to be changed.
        bytes: &'a mut [u8],
    },
    /// The datagrams told of last, so many, were handed to the kernel by its network at this time.
    Arrived {
        /// By the socket of this link; none: by the listening one.
        link: Option<LinkId>,
        /// When, by the system's wall clock.
        at: WallTime,
        /// How many: those of a train have one time of arrival.
        datagrams: usize,
    },
    /// A datagram arrived that cannot be handed over, for this reason.
    Dropped(DropReason),
    /// The kernel says that nothing listens at the other end of the link's path, whose connected socket was told so.
    Refused(LinkId, AddressPair),
    /// An ICMP message answers a datagram that left through the listening socket: it did not arrive.
    Unreachable {
        /// Where it was to go.
        to: SocketAddr,
        /// What the kernel makes of the message: ECONNREFUSED if nothing listens there.
        errno: i32,
    },
    /// A datagram was not sent.
    SendFailed {
        /// Its link.
        link: Option<LinkId>,
        /// Where it was to go.
        to: AddressPair,
        /// The kernel's reason.
        errno: i32,
    },
    /// The session's descriptor has a record, or its other end is closed.
    Readable(SessionId),
    /// The session's descriptor has room.
    Writable(SessionId),
    /// The other end of a descriptor of which nothing is wanted is closed. Said once each time it stops being wanted.
    HungUp(SessionId),
}

/// Receives events.
pub type Sink<'a> = dyn FnMut(Event<'_>) + 'a;

/// What a backend counts of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls that may have carried packets.
    pub calls: u64,
    /// Times a receive ended because all provided buffers were lent out (io_uring).
    pub starved: u64,
    /// Times the completion queue overflowed (io_uring).
    pub overflowed: u64,
    /// Receives that failed for an unexpected reason.
    pub receive_errors: u64,
    /// Trains of two or more datagrams that were sent.
    pub trains_out: u64,
    /// Datagrams in them.
    pub coupled_out: u64,
    /// Trains that arrived.
    pub trains_in: u64,
    /// Datagrams in them.
    pub coupled_in: u64,
    /// Trains that the kernel refused; their datagrams were sent one by one.
    pub trains_refused: u64,
    /// Sends that failed, as was only reported after their batch: the datagrams are lost (io_uring).
    pub stale_sends: u64,
}

impl Counters {
    fn count_sent(&mut self, datagrams: usize) {
        if datagrams > 1 {
            self.trains_out += 1;
            self.coupled_out += datagrams as u64;
        }
    }

    fn uncount_sent(&mut self, datagrams: usize) {
        if datagrams > 1 {
            self.trains_out -= 1;
            self.coupled_out -= datagrams as u64;
        }
    }
}

/// A worker's way to the kernel. Not `Send`: it is made by the thread that uses it.
pub trait Backend {
    /// `uring` or `mmsg`.
    fn name(&self) -> &'static str;

    /// Watches a session's descriptor for reading. It must stay open until [`Backend::unwatch`].
    fn watch(&mut self, session: SessionId, descriptor: BorrowedFd<'_>) -> io::Result<()>;

    /// Changes what a watched session wants to hear of: records to read, room to write.
    fn want(&mut self, session: SessionId, reads: bool, writes: bool);

    /// Forgets a session's descriptor.
    fn unwatch(&mut self, session: SessionId);

    /// Its sockets. A path's is closed by [`Backend::close_path`] only.
    fn sockets(&mut self) -> &mut Sockets;

    /// What a batch is arranged in before it is sent.
    fn arrangement(&mut self) -> &mut Arrangement;

    /// Opens the path's connected socket, to whose way there is nothing any more, and receives from it from now on.
    fn open_path(&mut self, now: Instant, link: LinkId, path: AddressPair, sink: &mut Sink<'_>);

    /// Closes the connected socket of this generation, if the link has one.
    fn close_path(&mut self, link: LinkId, generation: u32);

    /// The link is down or gone: its connected sockets are closed. See `udp` for why.
    fn close_link(&mut self, link: LinkId) {
        while let Some(open) = self.sockets().of(link).first().map(|open| open.generation) {
            self.close_path(link, open);
        }
        self.sockets().forget(link);
    }

    /// Makes room for a path's socket.
    fn clear_way(&mut self, link: LinkId, path: AddressPair) {
        while let Some(generation) = self.sockets().in_the_way(link, path) {
            self.close_path(link, generation);
        }
    }

    /// The path's connected socket, if there is one, is good for nothing: it is closed, and there is none for a while.
    fn set_aside(&mut self, now: Instant, link: LinkId, path: AddressPair) {
        let open = self.sockets().of(link).iter().find(|open| open.pair == path).map(|open| open.generation);
        if let Some(generation) = open {
            self.close_path(link, generation);
            self.sockets().put_off(now, link, path);
        }
    }

    /// Hands over what has arrived, without blocking: at most [`PASS`] datagrams, but what one system call brought is handed
    /// over whole, trains that were longer than the last ones too. Answers how many.
    fn poll(&mut self, sink: &mut Sink<'_>) -> usize;

    /// Sends a batch of at most [`BATCH`] datagrams, those of one link in their order (but a datagram in whose place the
    /// kernel reported a refusal may leave after the others); opens connected sockets as needed.
    fn send(&mut self, now: Instant, batch: &Batch, sink: &mut Sink<'_>) {
        assert!(batch.len() <= BATCH, "a batch fits the arrangement");
        for (index, (datagram, _)) in batch.iter().enumerate() {
            let Transmit { link, to, up, .. } = *datagram;
            let mut route = self.sockets().route(now, link, to, up);
            if let (Route::Open | Route::Close, Some(link)) = (route, link) {
                // What was placed may go through a socket that is about to be closed.
                self.flush(now, batch, sink);
                self.clear_way(link, to);
                if route == Route::Open {
                    self.open_path(now, link, to, sink);
                }
                route = self.sockets().route(now, Some(link), to, up);
            }
            let fd = match route {
                Route::Connected(fd) => Some(fd),
                Route::Nowhere(errno) => {
                    sink(Event::SendFailed { link, to, errno });
                    continue;
                }
                Route::Listening | Route::Open | Route::Close => None,
            };
            let couples = link.is_some_and(|link| self.sockets().takes_trains(now, link));
            self.arrangement().place(index, fd, couples);
        }
        self.flush(now, batch, sink);
    }

    /// Sends everything of the batch that was placed in the arrangement, and forgets it.
    fn flush(&mut self, now: Instant, batch: &Batch, sink: &mut Sink<'_>);

    /// Blocks until there is something for [`Backend::poll`], the doorbell rings, or the time is up.
    fn wait(&mut self, timeout: Option<Duration>);

    /// What was counted.
    fn counters(&self) -> Counters;

    /// Datagrams the kernel dropped since asked last because a socket's receive buffer was full.
    fn new_kernel_drops(&mut self) -> u64 {
        self.sockets().new_kernel_drops()
    }
}

/// Hands over what ICMP said of datagrams that left through the listening socket; whether it said anything. An error of that
/// socket is then no word about the call that met it, which may be tried once more.
fn tell_unreachable(sockets: &Sockets, sink: &mut Sink<'_>) -> bool {
    sockets.take_errors(|to, errno| sink(Event::Unreachable { to, errno })) > 0
}

/// What a backend is made from.
#[derive(Debug)]
pub struct Parts {
    /// The socket that listens.
    pub listen: UdpSocket,
    /// Socket buffers to ask for, bytes.
    pub buffer: usize,
    /// Connected sockets to open in advance, while the thread may still have the privilege of large buffers.
    pub stock: usize,
    /// Whether datagrams pass the kernel in trains.
    pub trains: bool,
    /// Whether the kernel says when datagrams arrived.
    pub stamps: bool,
    /// What wakes the worker.
    pub bell: Arc<Doorbell>,
}

/// A decision, with its reason for the log and for `whoami`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Whether to use io_uring, else mmsg.
    pub uring: bool,
    /// Whether datagrams pass the kernel in trains.
    pub trains: bool,
    /// Whether the kernel says when datagrams arrived.
    pub stamps: bool,
    /// `uring (…)` or `mmsg (…)`.
    pub reason: String,
}

/// io_uring was asked for by name and does not work here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "io = \"uring\" is not possible here: {0}. Use io = \"auto\" or \"mmsg\", or allow io_uring \
         (sysctl kernel.io_uring_disabled=0; in a container, a seccomp profile with io_uring_setup, _enter, _register)"
)]
pub struct Impossible(pub String);

/// Decides which backend to use, by a real test where it matters; of trains [`choose_trains`] decides, of
/// times of arrival [`choose_stamps`].
pub fn choose(asked: Io, test: impl FnOnce() -> Result<String, String>) -> Result<Choice, Impossible> {
    match asked {
        Io::Mmsg => Ok(Choice { uring: false, trains: false, stamps: false, reason: "mmsg (as configured)".into() }),
        Io::Uring => match test() {
            Ok(ring) => Ok(Choice {
                uring: true,
                trains: false,
                stamps: false,
                reason: format!("uring (as configured; {ring})"),
            }),
            Err(why) => Err(Impossible(why)),
        },
        Io::Auto => Ok(match test() {
            Ok(ring) => Choice {
                uring: true,
                trains: false,
                stamps: false,
                reason: format!("uring (self-test passed; {ring})"),
            },
            Err(why) => Choice {
                uring: false,
                trains: false,
                stamps: false,
                reason: format!("mmsg (io_uring self-test failed: {why})"),
            },
        }),
    }
}

/// Trains were asked for by name and do not work here.
#[derive(Debug, thiserror::Error)]
#[error("offload = \"on\" is not possible here: {0}. Use offload = \"auto\" or \"off\"")]
pub struct NoTrains(io::Error);

/// Decides whether datagrams pass the kernel in trains; `release` is the kernel's (uname -r). The text is for the log.
pub fn choose_trains(
    asked: Offload,
    release: &str,
    test: impl FnOnce() -> io::Result<()>,
) -> Result<(bool, String), NoTrains> {
    match asked {
        Offload::Off => Ok((false, "off (as configured)".into())),
        Offload::On => match test() {
            Ok(()) => Ok((true, "on (as configured)".into())),
            Err(error) => Err(NoTrains(error)),
        },
        Offload::Auto if damages_trains(release) => Ok((false, format!("off (Linux {release} damages trains)"))),
        Offload::Auto => Ok(match test() {
            Ok(()) => (true, "on".into()),
            Err(error) => (false, format!("off (the kernel cannot: {error})")),
        }),
    }
}

/// Decides whether the kernel is asked when datagrams arrived: it says so once for a train, so that single datagrams pay
/// more for it. The text is for the log.
pub fn choose_stamps(asked: SocketWait, trains: bool, test: impl FnOnce() -> io::Result<()>) -> (bool, String) {
    match asked {
        SocketWait::Off => (false, "off (as configured)".into()),
        SocketWait::Auto if !trains => (false, "off (datagrams come one by one, and each would pay for it)".into()),
        SocketWait::Auto | SocketWait::On => match test() {
            Ok(()) => (true, "on".into()),
            Err(error) => (false, format!("off (the kernel cannot: {error})")),
        },
    }
}

/// What a router would decide here with `offload = "auto"`.
pub fn try_trains(release: &str) -> Result<(bool, String), NoTrains> {
    choose_trains(Offload::Auto, release, || udp::try_trains(&UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?))
}

/// Whether this kernel writes wrong headers into trains whose datagrams are all equally long: since 7.0-rc1 (torvalds/linux
/// commit b10b446), mended by 78effd8 and 5f17ae0, in 7.1.5 at the latest.
fn damages_trains(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().flatten().unwrap_or(0);
    let version = (next(), next(), next());
    ((7, 0, 0)..(7, 1, 5)).contains(&version)
}

/// Makes the chosen backend. Where io_uring was only preferred, a ring that cannot be made after all gives mmsg; the
/// text says so.
pub fn make(asked: Io, choice: &Choice, parts: Parts) -> io::Result<(Box<dyn Backend>, String)> {
    if !choice.uring {
        return Ok((Box::new(mmsg::Mmsg::new(parts)?), choice.reason.clone()));
    }
    let spare = Parts { listen: parts.listen.try_clone()?, bell: Arc::clone(&parts.bell), ..parts };
    match uring::Uring::new(parts) {
        Ok(backend) => Ok((Box::new(backend), choice.reason.clone())),
        Err(error) if asked == Io::Auto => {
            let reason = format!("mmsg (a worker's ring could not be made: {error})");
            Ok((Box::new(mmsg::Mmsg::new(spare)?), reason))
        }
        Err(error) => Err(error),
    }
}
