//! Sessions: what applications see of the overlay.
//!
//! [`Sessions`] holds all sessions of one router's shard: datagram sessions, listeners and streams, each with a port and
//! an application behind a descriptor. Towards the application it speaks [`client`](crate::wire::client) records,
//! towards other routers the bodies of [`wire::session`](crate::wire::session).
//!
//! # What is carried
//! - **Best-effort datagrams** up to 64 KiB: cut into fragments, put together at the destination, delivered when whole.
//! - **Reliable flows**: one engine for reliable datagrams (unordered or ordered) and for each direction of a stream.
//!   Exactly once to the application as long as neither end crashes. Hops recover losses themselves; the end-to-end
//!   acknowledgements are few, and end-to-end repair only mends what crashes, reroutes and full queues lost.
//! - **Echoes** and their answers, for ping and trace.
//!
//! ```text
//!  application                                                                        application
//!      │ record                                                                  record ▲
//!      ▼                                                                                │
//!  records ──► Sender: queue │ window │ unacknowledged ── segments ──► Receiver: ring ──► deliver
//!      held when full            ▲                                          │
//!                                └──────────── acknowledgement, limit, marks ┘
//! ```
//!
//! # A flow
//! ```text
//!  sender:    opening ──first ack──► open ──fin queued──► ending ──fin acknowledged──► gone
//!                └──────────── reset by the peer, or no answer for 30 s ──────────────► gone (application told)
//!  receiver:  (unknown) ──`open` segment, session bound──► open ──all up to fin──► finished ──► tombstone, 60 s
//!                └── otherwise: reset, rate bounded              └── reset, silence ──────────► tombstone
//! ```
//! Segments are numbered from 0 and arrive in any order. The receiver acknowledges every 32 of them, or after 25–50 ms,
//! or at once if asked. The sender keeps each segment until then and sends within the smaller of the receiver's limit
//! and its own window. The window obeys congestion marks (×0.7 at most once per window); a loss
//! end to end is not a sign of congestion and does not touch it. A segment is repeated when an acknowledgement leaves it
//! out although it was sent a retransmission timeout ago, or before a change of routes that is more than a round trip past.
//!
//! A datagram session has one flow per destination and order wish, ended by its sender when idle; the next one may start
//! at once, as everything before it has been received. What breaks a flow in the middle of a message tells the receiving
//! application so. A stream is two flows between one pair of ports. The first segment to a
//! listener makes the incoming session, whose own flow opens at once, so that each end always knows both.
//!
//! A stream waits for its reader as long as the reader's router answers, however slow, also when its writer has finished
//! and is gone. A peer that is gone is noticed in 35 s if something waits for it, else in 45 s ([`Settings::give_up`]).
//!
//! # Timers
//! One wheel entry per flow and lingering session. Sender: repeat, probe after a change of routes, window probe,
//! keepalive, idle end, give-up. Receiver: delayed acknowledgement, gap report, silence. Entries move later lazily: a
//! timer that fires too early sets itself again.
//!
//! # Bounds
//! Sessions, flows, tombstones, reassemblies, notices per second, records held and every queue have a limit in
//! [`Settings`]. No tombstone is forgotten early: when no more flows can be remembered none opens. Packets
//! kept for receivers and for senders are shares of the pool; one flow is offered at most half (may hold a quarter) of
//! what is left of its share. An application that sends too much is told so ([`Readiness::Full`]), one that does not
//! read closes its peers' windows and loses best-effort datagrams. [`Sessions::holdings`] lists what is held, and the bounds.
//!
//! # Doors
//! In: [`Sessions::handle_record`], [`Sessions::handle_message`], [`Sessions::handle_expired`],
//! [`Sessions::handle_table_change`], [`Sessions::handle_writable`], [`Sessions::handle_timeout`]. Out:
//! [`Sessions::poll_deliver`], [`Sessions::poll_transmit`], [`Sessions::poll_event`], [`Sessions::poll_timeout`].
//! Deadlines that depend on work still to be fetched are set when it is fetched: drain `poll_transmit` after each input.

mod deliver;
mod holdings;
mod inbound;
mod ports;
mod reassembly;
mod receiver;
mod records;
mod roundtrip;
mod sender;
mod sessions;
mod settings;
mod shelf;
mod slab;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod tombstones;
mod transmit;
mod window;

pub use sessions::Sessions;
pub use settings::Settings;

use crate::base::{Port, SessionId};
use crate::wire::client::Endpoint;
use serde::{Deserialize, Serialize};

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum SessionKind {
    /// Datagrams to and from anyone.
    Datagram {
        /// Its port; 0 lets the router choose.
        port: Port,
    },
    /// Waits for streams.
    Listener {
        /// Its port; 0 lets the router choose.
        port: Port,
    },
    /// A stream to `to`.
    Stream {
        /// The listener at the other end.
        to: Endpoint,
    },
}

/// Why a session was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Another session holds the port.
    #[error("another session holds this port")]
    PortInUse,
    /// The router holds as many sessions as it may.
    #[error("the router holds as many sessions as it may")]
    TooMany,
}

/// A session's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionReport {
    /// Which.
    pub session: SessionId,
    /// `datagram`, `listener` or `stream`.
    pub kind: String,
    /// Its port.
    pub port: Port,
    /// The other end of a stream.
    pub peer: Option<Endpoint>,
    /// Application messages or stream segments sent.
    pub sent: u64,
    /// Application messages or stream segments delivered.
    pub delivered: u64,
    /// Segments repeated end to end.
    pub repeated: u64,
    /// Bytes sent and not yet acknowledged by the other end.
    pub unacknowledged: u64,
    /// Bytes waiting for the application to read.
    pub unread: u64,
    /// What carries its records on this machine; its driver knows.
    #[serde(default)]
    pub carrier: Carrier,
}

/// What carries records between an application and its router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// A socket.
    #[default]
    Socket,
    /// Memory that both share.
    Memory,
}

/// Whether a session takes another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// The record was taken, but no more should be read until [`Event::Readable`].
    Full,
    /// The session has ended: close its descriptor.
    Gone,
}

/// What the shard must know or tell control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Records of this session may be read again.
    Readable(SessionId),
    /// A stream arrived; it is held until [`Sessions::accept`] or [`Sessions::close`].
    Incoming {
        /// The session that listens.
        listener: SessionId,
        /// The new session.
        session: SessionId,
        /// Who connects.
        peer: Endpoint,
    },
    /// The session ended on its own: a stream finished both ways or reset, everything delivered. It is forgotten.
    Closed(SessionId),
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A flow's timer or a lingering session's end.
    Flow,
    /// A datagram that is not complete yet.
    Reassembly,
    /// Records or segments that found the pool drawn down try again.
    Room,
}

/// A flow as both of its ends know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FlowKey {
    /// The other end.
    peer: Endpoint,
    /// The port at this end.
    port: Port,
    /// The number its sender chose.
    flow: u32,
}
