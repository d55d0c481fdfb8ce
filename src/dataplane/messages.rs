//! What control tells a shard, and what a shard tells control.
//!
//! Commands flow down and reports flow up over bounded rings; nothing else crosses between the threads.

use crate::base::{AddressPair, DownReason, LinkId, LinkMetrics, NodeId, Obstacle, Port, PublicIdentity, SessionId};
use crate::forwarding::Table;
use crate::proto::link::LinkStats;
pub use crate::proto::link::{MoveReason, PathReport, PathSpec};
use crate::proto::security::SecurityStats;
pub use crate::proto::security::Stranger;
pub use crate::proto::session::{Carrier, Refusal, SessionKind, SessionReport};
use crate::telemetry::{Counts, Drops, Summary};
use crate::wire::client::Endpoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A link to add.
#[derive(Clone, Debug)]
pub struct LinkSpec {
    /// Who is at the other end.
    pub peer: PublicIdentity,
    /// Extra secret shared by both ends, mixed into the handshake.
    pub preshared_key: Option<[u8; 32]>,
    /// By which paths, if this end can start the conversation.
    pub paths: Vec<PathSpec>,
    /// Whether this end asks for keys at once, where it can; else it waits for the other's call, or for
    /// [`Command::AskLink`].
    pub asks: bool,
    /// Its settings.
    pub settings: crate::proto::link::Settings,
}

/// From control to a shard.
#[derive(Clone, Debug)]
pub enum Command {
    /// Add a link, or replace the one with this id.
    AddLink(LinkId, Box<LinkSpec>),
    /// Use these paths of a link from now on; what is up stays up.
    SetPaths(LinkId, Vec<PathSpec>),
    /// The neighbour has a worker at the other end of this lane: ask it for keys.
    AskLink(LinkId),
    /// The process at the other end of a link is said to have ended: ask it whether it lives.
    Suspect(LinkId),
    /// Nothing leaves from these addresses of this router any more, as it seems: links that send from there find out.
    CarrierLost(Arc<[IpAddr]>),
    /// Remove a link; its other end is told.
    RemoveLink(LinkId),
    /// Use this table from now on.
    InstallTable(Arc<Table>),
    /// Send a control message to the neighbour, reliably while the link lives.
    SendControl(LinkId, Box<[u8]>),
    /// Send a message to the control thread of any router, by the way that its table has. It may be lost, doubled and
    /// overtaken.
    SendFar(NodeId, Box<[u8]>),
    /// Open a session. Answered by [`Report::SessionOpened`] or [`Report::SessionRefused`].
    OpenSession(SessionId, SessionKind),
    /// Close a session, as when its application is gone.
    CloseSession(SessionId),
    /// The application of a stream that was announced by [`Report::Incoming`] is attached.
    AcceptStream(SessionId),
    /// Answered by [`Report::Stats`].
    QueryStats,
    /// Answered by [`Report::Sessions`], at a small part of the cost.
    QuerySessions,
    /// Tell all neighbours that this router leaves.
    Shutdown,
}

/// From a shard to control.
#[derive(Clone, Debug)]
pub enum Report {
    /// Both ends of the lane hear each other. The neighbour has so many workers.
    LinkUp(LinkId, SocketAddr, LinkMetrics, u8),
    /// A link that is up goes on by another path.
    LinkMoved(LinkId, AddressPair, MoveReason),
    /// The link is dead.
    LinkDown(LinkId, DownReason),
    /// What seems to keep the link from coming up; none if that is over. At most a few per second.
    LinkObstructed(LinkId, Option<Obstacle>),
    /// Somebody whose key is no link's asked for keys; at most one a second.
    Stranger(Stranger),
    /// Fresh measurements, at most a few per second.
    LinkMeasured(LinkId, LinkMetrics),
    /// A control message from the neighbour.
    Control(LinkId, Box<[u8]>),
    /// A message from the control thread of this router, by whichever way. Who sent it is what its header says: members are
    /// believed, as everywhere in the data plane.
    Far(NodeId, Box<[u8]>),
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
    /// Answer to [`Command::QueryStats`]; [`ShardStats::summarise`] is left to the reader.
    Stats(Box<ShardStats>),
    /// Answer to [`Command::QuerySessions`].
    Sessions(Vec<SessionReport>),
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
    /// Datagrams that were opened and handed to their link.
    pub opened: u64,
    /// Datagrams of handshakes.
    pub handshakes: u64,
    /// Datagrams for a link that was removed a moment ago.
    pub strays: u64,
    /// Datagrams dropped, by reason; also among `drops`.
    pub datagram_drops: Drops,
    /// Messages that links took in from neighbours.
    pub received: u64,
    /// Messages that came back from links that went down before the neighbour confirmed them.
    pub returned: u64,
    /// Messages handed to links, again after they came back as well.
    pub handed: u64,
    /// Messages that came from other workers of this router.
    pub crossed_in: u64,
    /// Messages that went to other workers of this router.
    pub crossed_out: u64,
    /// Messages that wait to go there.
    pub crossing: usize,
    /// Most that ever did, for one of them, as seen between turns.
    pub crossing_peak: usize,
    /// Messages that wait for a route.
    pub stranded: usize,
    /// Messages dropped on their way through this router, by reason; also among `drops`.
    pub message_drops: Drops,
    /// Messages delivered to sessions of this router.
    pub delivered: u64,
    /// Messages that came from sessions of this router.
    pub originated: u64,
    /// Messages dropped, by reason.
    pub drops: Drops,
    /// Slots of the packet pool in use and in all.
    pub pool: (usize, usize),
    /// Most slots of the pool ever in use, as seen between turns.
    pub pool_peak: usize,
    /// Reports waiting for room in the ring to control.
    pub reports_waiting: usize,
    /// Most that ever did.
    pub reports_peak: usize,
    /// Most messages that ever waited for a route, as seen between turns.
    pub stranded_peak: usize,
    /// What the driver counts: threads, rings, the system's back-end. None under a virtual clock.
    pub driver: Option<DriverStats>,
    /// Duration of a turn of the worker's loop.
    pub turn: Summary,
    /// Arrived at the kernel to taken in by the worker, of what came by the socket that all links share.
    pub socket_wait: Summary,
    /// What the two are still to be made of, by [`ShardStats::summarise`].
    #[serde(skip)]
    pub counts: Option<[Counts; 2]>,
    /// Handshakes and keys.
    pub security: SecurityStats,
    /// Per link.
    pub links: Vec<LinkReport>,
    /// Per session.
    pub sessions: Vec<SessionReport>,
}

impl ShardStats {
    /// Makes the summaries, which a shard leaves to whoever has the time.
    pub fn summarise(&mut self) {
        if let Some(counts) = self.counts.take() {
            [self.turn, self.socket_wait] = counts.each_ref().map(Counts::summary);
        }
        self.links.iter_mut().for_each(|link| link.stats.summarise());
    }

    /// What the histograms counted, by the names of their summaries, each with the link it is of (none: the worker's own),
    /// until [`ShardStats::summarise`] is called.
    pub fn counted(&self) -> impl Iterator<Item = (Option<&LinkReport>, &'static str, &Counts)> {
        let own = ["turn", "socket_wait"].into_iter().zip(self.counts.iter().flatten());
        let of_links =
            self.links.iter().flat_map(|link| link.stats.counted().map(move |(name, it)| (Some(link), name, it)));
        own.map(|(name, it)| (None, name, it)).chain(of_links)
    }

    /// Checks that the counters add up: every datagram that arrived was opened, a handshake, or dropped with a reason;
    /// every message that came, from a link, a session or another worker, was delivered, handed to a link or to another
    /// worker, dropped with a reason, or still waits; and so for every message of every link ([`LinkStats::balance`]). Says what does not.
    pub fn balance(&self) -> Result<(), String> {
        let datagrams = (self.opened, self.handshakes, self.strays, self.datagram_drops.total());
        if self.datagrams_in != datagrams.0 + datagrams.1 + datagrams.2 + datagrams.3 {
            let arrived = self.datagrams_in;
            return Err(format!("{arrived} datagrams, but (opened, handshakes, strays, dropped) are {datagrams:?}"));
        }
        let came = self.received + self.originated + self.returned + self.crossed_in;
        let waiting = (self.stranded + self.crossing) as u64;
        let went = (self.delivered, self.handed, self.crossed_out, waiting, self.message_drops.total());
        if came != went.0 + went.1 + went.2 + went.3 + went.4 {
            return Err(format!("{came} messages, but (delivered, handed on, crossed, waiting, dropped) are {went:?}"));
        }
        self.links.iter().try_for_each(|link| link.stats.balance().map_err(|error| format!("{}: {error}", link.link)))
    }
}

/// What a worker's driver counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DriverStats {
    /// The back-end's name.
    pub backend: String,
    /// Why it was chosen.
    pub backend_reason: String,
    /// The core that the worker is pinned to, if it is.
    pub core: Option<usize>,
    /// Why it is this one, or none.
    pub core_reason: String,
    /// Its priority, and why it is not the one that was asked for.
    pub scheduling: String,
    /// System calls that may have carried packets.
    pub calls: u64,
    /// Passes that found datagrams.
    pub receive_batches: u64,
    /// Datagrams they found.
    pub datagrams_in: u64,
    /// Batches sent.
    pub send_batches: u64,
    /// Datagrams in them.
    pub datagrams_out: u64,
    /// Times a receive ended because all provided buffers were lent out (io_uring).
    pub starved: u64,
    /// Times the completion queue overflowed (io_uring).
    pub overflowed: u64,
    /// Receives that failed for an unexpected reason.
    pub receive_errors: u64,
    /// Sends that failed, as was only reported after their batch (io_uring).
    pub stale_sends: u64,
    /// Trains of two or more datagrams that left as one (`offload`).
    pub trains_out: u64,
    /// Datagrams in them.
    pub coupled_out: u64,
    /// Trains that arrived as one.
    pub trains_in: u64,
    /// Datagrams in them.
    pub coupled_in: u64,
    /// Trains that the kernel refused; their datagrams were sent one by one.
    pub trains_refused: u64,
    /// Datagrams that the kernel dropped because a socket's receive buffer was full, as of the last look (every five
    /// seconds).
    pub socket_overflows: u64,
    /// Datagrams that the kernel refused to send, by its reason.
    pub send_errors: BTreeMap<String, u64>,
    /// Times the kernel said that nothing listens at a neighbour's address.
    pub refusals: u64,
    /// The ring from control.
    pub commands: RingStats,
    /// The ring to control.
    pub reports: RingStats,
    /// The rings from other workers, taken together: the fullest, and the sum of the times one was full.
    pub crossings: RingStats,
    /// Turns of the loop.
    pub turns: u64,
    /// Turns that waited in the kernel.
    pub waits: u64,
}

/// One ring between control and a worker, or between two workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingStats {
    /// Messages in it.
    pub waiting: usize,
    /// Most messages that were seen in it.
    pub peak: usize,
    /// Messages that it holds.
    pub slots: usize,
    /// Times its producer found it full.
    pub full: u64,
}

/// A link's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkReport {
    /// Which.
    pub link: LinkId,
    /// The neighbour.
    pub peer: NodeId,
    /// The neighbour's address on the path in use, once known.
    pub remote: Option<SocketAddr>,
    /// All its paths.
    pub paths: Vec<PathReport>,
    /// Whether it carries traffic.
    pub up: bool,
    /// Time since it came up or went down.
    pub since: Duration,
    /// Measured quality.
    pub metrics: LinkMetrics,
    /// Counters and histograms.
    pub stats: LinkStats,
}
