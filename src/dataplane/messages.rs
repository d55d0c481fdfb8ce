//! What control tells a shard, and what a shard tells control.
//!
//! Commands flow down and reports flow up over bounded rings; nothing else crosses between the threads.

use crate::base::{DownReason, LinkId, LinkMetrics, NodeId, Port, PublicIdentity, SessionId};
use crate::forwarding::Table;
use crate::proto::link::LinkStats;
use crate::proto::security::SecurityStats;
pub use crate::proto::session::{Refusal, SessionKind, SessionReport};
use crate::telemetry::{Drops, Summary};
use crate::wire::client::Endpoint;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A link to add.
#[derive(Clone, Debug)]
pub struct LinkSpec {
    /// Who is at the other end.
    pub peer: PublicIdentity,
    /// Extra secret shared by both ends, mixed into the handshake.
    pub preshared_key: Option<[u8; 32]>,
    /// Where, if this end can start the conversation.
    pub remote: Option<SocketAddr>,
    /// Its settings.
    pub settings: crate::proto::link::Settings,
}

/// From control to a shard.
#[derive(Clone, Debug)]
pub enum Command {
    /// Add a link, or replace the one with this id.
    AddLink(LinkId, Box<LinkSpec>),
    /// Remove a link; its other end is told.
    RemoveLink(LinkId),
    /// Use this table from now on.
    InstallTable(Arc<Table>),
    /// Send a control message to the neighbour, reliably while the link lives.
    SendControl(LinkId, Box<[u8]>),
    /// Open a session. Answered by [`Report::SessionOpened`] or [`Report::SessionRefused`].
    OpenSession(SessionId, SessionKind),
    /// Close a session, as when its application is gone.
    CloseSession(SessionId),
    /// The application of a stream that was announced by [`Report::Incoming`] is attached.
    AcceptStream(SessionId),
    /// Answered by [`Report::Stats`].
    QueryStats,
    /// Tell all neighbours that this router leaves.
    Shutdown,
}

/// From a shard to control.
#[derive(Clone, Debug)]
pub enum Report {
    /// Both ends of the link hear each other.
    LinkUp(LinkId, SocketAddr, LinkMetrics),
    /// The link is dead.
    LinkDown(LinkId, DownReason),
    /// Fresh measurements, at most a few per second.
    LinkMeasured(LinkId, LinkMetrics),
    /// A control message from the neighbour.
    Control(LinkId, Box<[u8]>),
    /// The session holds this port.
    SessionOpened(SessionId, Port),
    /// The session was not opened.
    SessionRefused(SessionId, Refusal),
    /// The session ended on the shard's side (stream finished or reset); its descriptor can be closed.
    SessionClosed(SessionId),
    /// A stream arrived at `listener`; the shard calls it `session` and waits for [`Command::AcceptStream`].
    Incoming {
        /// The session that listens.
        listener: SessionId,
        /// The new session.
        session: SessionId,
        /// Who connects.
        peer: Endpoint,
    },
    /// Answer to [`Command::QueryStats`].
    Stats(Box<ShardStats>),
}

/// What a shard counts, at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShardStats {
    /// Datagrams received from the network.
    pub datagrams_in: u64,
    /// Datagrams sent to the network.
    pub datagrams_out: u64,
    /// Bytes (UDP payload) received.
    pub bytes_in: u64,
    /// Bytes (UDP payload) sent.
    pub bytes_out: u64,
    /// Messages forwarded from one link to another.
    pub forwarded: u64,
    /// Messages delivered to sessions of this router.
    pub delivered: u64,
    /// Messages that came from sessions of this router.
    pub originated: u64,
    /// Messages dropped, by reason.
    pub drops: Drops,
    /// Slots of the packet pool in use and in all.
    pub pool: (usize, usize),
    /// Duration of a turn of the worker's loop.
    pub turn: Summary,
    /// Handshakes and keys.
    pub security: SecurityStats,
    /// Per link.
    pub links: Vec<LinkReport>,
    /// Per session.
    pub sessions: Vec<SessionReport>,
}

/// A link's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkReport {
    /// Which.
    pub link: LinkId,
    /// The neighbour.
    pub peer: NodeId,
    /// Its address, once known.
    pub remote: Option<SocketAddr>,
    /// Whether it carries traffic.
    pub up: bool,
    /// Time since it came up or went down.
    pub since: Duration,
    /// Measured quality.
    pub metrics: LinkMetrics,
    /// Counters and histograms.
    pub stats: LinkStats,
}
