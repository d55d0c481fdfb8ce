//! One session: its port, its inbox, its flows.

use super::receiver::Span;
use crate::base::{Class, Instant, Port, SessionId};
use crate::containers::Packet;
use crate::wire::client::{Endpoint, Record};
use crate::wire::session::ResetReason;
use std::collections::VecDeque;

/// Something for the application, in the order it became ready.
#[derive(Debug)]
pub(super) enum Ready {
    /// A best-effort datagram that came in one packet.
    Packet { from: Endpoint, class: Class, mark: bool, packet: Packet },
    /// A best-effort datagram that came in several.
    Parts { from: Endpoint, class: Class, mark: bool, parts: Vec<Packet> },
    /// A complete message of a reliable flow.
    Message { receiver: u32, span: Span },
    /// A stream has bytes; one such entry stands for all of them.
    Bytes { receiver: u32 },
    /// A record without bytes.
    Notice(Record<'static>),
}

/// What was written for the application and is not yet known to have reached its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// The first entry of the inbox.
    Front,
    /// These segments of the stream that the first entry stands for.
    Bytes(Span),
}

/// A stream's two directions.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) peer: Endpoint,
    /// Our flow, until its end is acknowledged or it was reset.
    pub(super) sender: Option<u32>,
    /// The peer's flow, once heard of.
    pub(super) receiver: Option<u32>,
    /// The application has finished: nothing more may be sent.
    pub(super) finishing: bool,
    /// Our flow has ended.
    pub(super) sent_out: bool,
    /// The peer's flow was read to its end, or nobody is left to read it.
    pub(super) read_out: bool,
    /// The application was told, or will be, that the stream is open.
    pub(super) connected: bool,
    /// The peer does not read any more; the application is told when it has read what the peer still sends.
    pub(super) broken: Option<ResetReason>,
    /// The stream was reset: the notice stands in the inbox.
    pub(super) reset: bool,
    /// The listener it came to.
    pub(super) listener: Option<SessionId>,
}

impl Stream {
    pub(super) const fn new(peer: Endpoint) -> Stream {
        Stream {
            peer,
            sender: None,
            receiver: None,
            finishing: false,
            sent_out: false,
            read_out: false,
            connected: false,
            broken: None,
            reset: false,
            listener: None,
        }
    }
}

#[derive(Debug)]
pub(super) enum Kind {
    Datagram,
    Listener { waiting: usize },
    Stream(Stream),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) kind: Kind,
    pub(super) port: Port,
    /// Whether the port is its own (that of an incoming stream is its listener's).
    pub(super) owns_port: bool,
    /// An application reads and writes.
    pub(super) attached: bool,
    /// The application is gone; what it sent is still being acknowledged.
    pub(super) lingering: bool,
    /// A stream that lingers for longer than is granted to all, and since when.
    pub(super) overdue: Option<Instant>,
    pub(super) inbox: VecDeque<Ready>,
    /// Entries of the inbox that only the inbox's own bound limits.
    pub(super) waiting: usize,
    pub(super) offered: Option<Offer>,
    /// Its descriptor is full.
    pub(super) blocked: bool,
    /// Whether it stands in the shard's round of sessions with something to deliver.
    pub(super) queued: bool,
    /// Records that found no room. One, unless the caller had read more than one ahead.
    pub(super) pending: VecDeque<Vec<u8>>,
    /// Whether it stands in the shard's round of sessions with such records.
    pub(super) retrying: bool,
    /// It is not read until there is room to hold a record.
    pub(super) put_off: bool,
    pub(super) next_message: u32,
    /// Senders of this session, ended ones included until they are acknowledged.
    pub(super) senders: usize,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    /// Repeats of flows that are over.
    pub(super) repeated: u64,
}

impl Session {
    pub(super) fn new(id: SessionId, kind: Kind, port: Port, next_message: u32) -> Session {
        Session {
            id,
            kind,
            port,
            owns_port: true,
            attached: true,
            lingering: false,
            overdue: None,
            inbox: VecDeque::new(),
            waiting: 0,
            offered: None,
            blocked: false,
            queued: false,
            pending: VecDeque::new(),
            retrying: false,
            put_off: false,
            next_message,
            senders: 0,
            sent: 0,
            delivered: 0,
            repeated: 0,
        }
    }

    pub(super) const fn stream(&self) -> Option<&Stream> {
        if let Kind::Stream(stream) = &self.kind { Some(stream) } else { None }
    }

    pub(super) const fn stream_mut(&mut self) -> Option<&mut Stream> {
        if let Kind::Stream(stream) = &mut self.kind { Some(stream) } else { None }
    }

    /// Whether the application can be offered something.
    pub(super) fn is_deliverable(&self) -> bool {
        self.attached && !self.lingering && !self.blocked && self.offered.is_none() && !self.inbox.is_empty()
    }
}
