//! Datagram sessions.

use super::sys;
use crate::base::limits::MAX_PAYLOAD;
use crate::base::{Class, NodeId};
use crate::wire::client::{Endpoint, MAX_HEADER, Record};
use crate::wire::cursor::Writer;
use crate::wire::session::ResetReason;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Bytes of a datagram record before the application's.
const DATAGRAM_HEADER: usize = 13;

/// A session for datagrams. Its descriptor is readable when an event waits, writable when a datagram can be sent.
#[derive(Debug)]
pub struct Datagrams {
    descriptor: OwnedFd,
    local: Endpoint,
}

/// What [`Datagrams::recv`] received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A datagram.
    Datagram {
        /// Who sent it.
        from: Endpoint,
        /// Recovery class it was sent with.
        class: Class,
        /// Some link on the way was congested: send less.
        mark: bool,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// A ping was answered, or ran out of hops.
    Echo {
        /// True if it ran out of hops at `node`, false if `node` was its destination.
        expired: bool,
        /// Who answers.
        node: NodeId,
        /// As in the ping.
        id: u32,
        /// As in the ping.
        sequence: u32,
        /// Hops the ping had crossed.
        hops: u8,
        /// The router's clock when the ping left, ns.
        sent_ns: u64,
        /// The router's clock when the answer came, ns.
        now_ns: u64,
    },
    /// Datagrams of an ordered or reliable flow to or from `peer` were lost; later ones begin a new flow.
    Reset {
        /// Why.
        reason: ResetReason,
        /// The other end.
        peer: Endpoint,
    },
    /// The router ended the session, or is gone.
    Closed,
}

impl Datagrams {
    pub(super) fn new(descriptor: OwnedFd, local: Endpoint) -> Datagrams {
        Datagrams { descriptor, local }
    }

    /// Its address.
    pub fn local(&self) -> Endpoint {
        self.local
    }

    /// Sends one datagram of at most 64 KiB. `ordered` ones are delivered in the order they were sent. Waits while the
    /// router takes no more (a reliable flow is pushed back by its slowest link), unless non-blocking.
    pub fn send(&self, to: Endpoint, class: Class, ordered: bool, bytes: &[u8]) -> io::Result<()> {
        self.send_record(&Record::Send { class, ordered, ttl: 0, to, bytes: &[] }, bytes)
    }

    /// Pings a router: an [`Event::Echo`] with this `id` and `sequence` answers. A `ttl` above zero bounds the hops, so
    /// that a router on the way answers in its place.
    pub fn echo(&self, node: NodeId, ttl: u8, class: Class, id: u32, sequence: u32, bytes: &[u8]) -> io::Result<()> {
        self.send_record(&Record::Echo { ttl, class, node, id, sequence, bytes: &[] }, bytes)
    }

    fn send_record(&self, head: &Record<'_>, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > MAX_PAYLOAD {
            let message = format!("{} bytes: a datagram has at most {MAX_PAYLOAD}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut header = [0; MAX_HEADER];
        let mut writer = Writer::new(&mut header);
        head.emit(&mut writer).expect("a header has room for every header");
        let mut parts = [IoSlice::new(writer.written()), IoSlice::new(bytes)];
        sys::send_parts(self.descriptor.as_fd(), &mut parts).map(drop)
    }

    /// The next event; waits for one, unless non-blocking. A datagram's bytes are put into `buffer`; one that does not fit
    /// is lost, and an error of kind `InvalidInput` says how long it was.
    pub fn recv<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Event<'a>> {
        let (mut head, mut tail) = ([0; DATAGRAM_HEADER], [0; MAX_HEADER]);
        let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(buffer), IoSliceMut::new(&mut tail)];
        let len = match sys::receive_parts(self.descriptor.as_fd(), &mut parts) {
            Ok(len) => len,
            // The router is gone without having read everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error),
        };
        if len == 0 {
            return Ok(Event::Closed);
        }
        let mut short = [0; DATAGRAM_HEADER + MAX_HEADER];
        let in_buffer = len.saturating_sub(DATAGRAM_HEADER).min(buffer.len());
        let record = gather(&mut short, len, &[&head, &buffer[..in_buffer], &tail]);
        match Record::parse(record).map_err(|why| foreign(&why))? {
            Record::Datagram { class, mark, from, .. } => {
                let bytes = len - DATAGRAM_HEADER;
                if bytes > buffer.len() {
                    let message = format!("a datagram of {bytes} bytes did not fit a buffer of {}", buffer.len());
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
                Ok(Event::Datagram { from, class, mark, bytes: &buffer[..bytes] })
            }
            Record::EchoAnswer { expired, node, id, sequence, hops, sent_ns, now_ns } => {
                Ok(Event::Echo { expired, node, id, sequence, hops, sent_ns, now_ns })
            }
            Record::Reset { reason, peer } => Ok(Event::Reset { reason, peer }),
            other => Err(foreign(&format_args!("{other:?}"))),
        }
    }

    /// Makes calls fail with `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        sys::set_nonblocking(self.descriptor.as_fd(), nonblocking)
    }

    /// Makes [`Datagrams::recv`] fail with `WouldBlock` after a while; none waits for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        sys::set_read_timeout(self.descriptor.as_fd(), timeout)
    }

    /// Makes [`Datagrams::send`] fail with `WouldBlock` after a while; none waits for ever.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        sys::set_write_timeout(self.descriptor.as_fd(), timeout)
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The first bytes of a record of `len` bytes that was scattered over `parts`.
pub(super) fn gather<'a>(room: &'a mut [u8], len: usize, parts: &[&[u8]]) -> &'a [u8] {
    let mut filled = 0;
    for part in parts {
        let take = part.len().min(room.len() - filled).min(len - filled);
        room[filled..filled + take].copy_from_slice(&part[..take]);
        filled += take;
    }
    &room[..filled]
}

/// A record that a router of this version does not send here.
pub(super) fn foreign(what: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the router sent a record that does not belong here: {what}"))
}
