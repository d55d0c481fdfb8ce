//! Datagram sessions.

use super::batch::{Batch, Outgoing, STEP};
use super::channel::Channel;
use super::sys;
use crate::base::limits::MAX_PAYLOAD;
use crate::base::{Class, NodeId};
use crate::wire::client::{Endpoint, MAX_HEADER, Record};
use crate::wire::cursor::Writer;
use crate::wire::session::ResetReason;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Bytes of a datagram record before the application's.
pub(super) const DATAGRAM_HEADER: usize = 13;
/// Bytes of a record with a datagram to send before the application's.
const SEND_HEADER: usize = 14;

/// A session for datagrams. Its descriptor is readable when an event waits, writable when a datagram can be sent.
#[derive(Debug)]
pub struct Datagrams {
    channel: Channel,
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
    pub(super) fn new(channel: Channel, local: Endpoint) -> Datagrams {
        Datagrams { channel, local }
    }

    /// Whether its datagrams go through memory that it shares with the router.
    pub fn shares_memory(&self) -> bool {
        self.channel.shares_memory()
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

    /// Sends several datagrams in their order, each as [`Datagrams::send`] does. Answers how many the router took: all, or
    /// as many as there is room for, at least one. For that it waits, unless non-blocking.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let router = sinew::runtime::Background::alone(directory.path())?;
    /// # let path = directory.path().join("control");
    /// use sinew::base::Class;
    /// use sinew::client::{Batch, Event, Outgoing, Overlay};
    ///
    /// let overlay = Overlay::connect(&path)?;
    /// let (alice, bob) = (overlay.datagrams(0)?, overlay.datagrams(0)?);
    /// let to = bob.local();
    /// let words = ["three", "short", "words"];
    /// let all = words.map(|word| Outgoing { to, class: Class::Reliable, ordered: true, bytes: word.as_bytes() });
    /// let mut left = &all[..];
    /// while !left.is_empty() {
    ///     left = &left[alice.send_batch(left)?..];
    /// }
    ///
    /// let (mut batch, mut heard) = (Batch::new(32, 1500), Vec::new());
    /// while heard.len() < words.len() {
    ///     bob.recv_batch(&mut batch)?;
    ///     for event in batch.events() {
    ///         match event? {
    ///             Event::Datagram { bytes, .. } => heard.push(String::from_utf8(bytes.to_vec())?),
    ///             other => panic!("{other:?}"),
    ///         }
    ///     }
    /// }
    /// assert_eq!(heard, words);
    /// # router.stop()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_batch(&self, batch: &[Outgoing<'_>]) -> io::Result<usize> {
        batch.iter().try_for_each(|datagram| check_payload(datagram.bytes))?;
        let mut sent = 0;
        for step in batch.chunks(STEP) {
            let mut heads = [[0; SEND_HEADER]; STEP];
            for (head, &Outgoing { to, class, ordered, .. }) in heads.iter_mut().zip(step) {
                let record = Record::Send { class, ordered, ttl: 0, to, bytes: &[] };
                record.emit(&mut Writer::new(head)).expect("a header has its size");
            }
            let mut records = [[IoSlice::new(&[]); 2]; STEP];
            for ((record, head), datagram) in records.iter_mut().zip(&heads).zip(step) {
                *record = [IoSlice::new(head), IoSlice::new(datagram.bytes)];
            }
            let count = match self.channel.send_batch(&mut records[..step.len()], sent == 0) {
                // It comes again with the next call.
                Err(_) if sent > 0 => break,
                done => done?,
            };
            sent += count;
            if count < step.len() {
                break;
            }
        }
        Ok(sent)
    }

    /// Receives what is there, at least one event and at most as many as there is room for: [`Batch::events`] has them
    /// until the next call. Answers how many. Waits for the first one, unless non-blocking.
    pub fn recv_batch(&self, batch: &mut Batch) -> io::Result<usize> {
        match self.channel.receive_batch(batch) {
            // The router is gone without having read everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => batch.lens.push(0),
            done => done?,
        }
        Ok(batch.lens.len())
    }

    fn send_record(&self, head: &Record<'_>, bytes: &[u8]) -> io::Result<()> {
        check_payload(bytes)?;
        let mut header = [0; MAX_HEADER];
        let mut writer = Writer::new(&mut header);
        head.emit(&mut writer).expect("a header has room for every header");
        let mut parts = [IoSlice::new(writer.written()), IoSlice::new(bytes)];
        self.channel.send(&mut parts)
    }

    /// The next event; waits for one, unless non-blocking. A datagram's bytes are put into `buffer`; one that does not fit
    /// is lost, and an error of kind `InvalidInput` says how long it was.
    pub fn recv<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Event<'a>> {
        let (mut head, mut tail) = ([0; DATAGRAM_HEADER], [0; MAX_HEADER]);
        let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(buffer), IoSliceMut::new(&mut tail)];
        let len = match self.channel.receive(&mut parts) {
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
        event(record, || {
            let bytes = len - DATAGRAM_HEADER;
            buffer.get(..bytes).ok_or_else(|| too_long(bytes, buffer.len()))
        })
    }

    /// Makes calls fail with `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        sys::set_nonblocking(self.channel.as_fd(), nonblocking)
    }

    /// Makes [`Datagrams::recv`] fail with `WouldBlock` after a while; none waits for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        sys::set_read_timeout(self.channel.as_fd(), timeout)
    }

    /// Makes [`Datagrams::send`] fail with `WouldBlock` after a while; none waits for ever.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        sys::set_write_timeout(self.channel.as_fd(), timeout)
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn check_payload(bytes: &[u8]) -> io::Result<()> {
    if bytes.len() <= MAX_PAYLOAD {
        return Ok(());
    }
    let message = format!("{} bytes: a datagram has at most {MAX_PAYLOAD}", bytes.len());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// What a record tells; a datagram's bytes are where its receiver put them.
pub(super) fn event<'a>(record: &[u8], datagram: impl FnOnce() -> io::Result<&'a [u8]>) -> io::Result<Event<'a>> {
    match Record::parse(record).map_err(|why| foreign(&why))? {
        Record::Datagram { class, mark, from, .. } => Ok(Event::Datagram { from, class, mark, bytes: datagram()? }),
        Record::EchoAnswer { expired, node, id, sequence, hops, sent_ns, now_ns } => {
            Ok(Event::Echo { expired, node, id, sequence, hops, sent_ns, now_ns })
        }
        Record::Reset { reason, peer } => Ok(Event::Reset { reason, peer }),
        other => Err(foreign(&format_args!("{other:?}"))),
    }
}

/// A datagram did not fit where it was to go.
pub(super) fn too_long(bytes: usize, room: usize) -> io::Error {
    let message = format!("a datagram of {bytes} bytes did not fit a buffer of {room}");
    io::Error::new(io::ErrorKind::InvalidInput, message)
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
