//! What goes into routing and what comes out: plain values, so that a recorded list of inputs is a replay.

use super::Metric;
use crate::base::{DownReason, LinkId, LinkMetrics, NodeId, PublicIdentity};
use serde::{Deserialize, Serialize};

/// What happens to routing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// This router has a link to `peer`, down at first. Replaces the link with this id.
    AddLink {
        /// Which.
        link: LinkId,
        /// The router at the other end.
        peer: NodeId,
    },
    /// This router has the link no more.
    RemoveLink(LinkId),
    /// The link carries traffic; said of a link that is up it means that the other end may have forgotten everything.
    LinkUp {
        /// Which.
        link: LinkId,
        /// First measurements.
        metrics: LinkMetrics,
    },
    /// The link is dead.
    LinkDown {
        /// Which.
        link: LinkId,
        /// Why.
        reason: DownReason,
    },
    /// Fresh measurements.
    LinkMeasured {
        /// Which.
        link: LinkId,
        /// What was measured.
        metrics: LinkMetrics,
    },
    /// A control message whose first byte is [`PROTOCOL`](crate::wire::routing::PROTOCOL).
    Message {
        /// The link it came over.
        link: LinkId,
        /// The whole message.
        bytes: Vec<u8>,
    },
    /// The members of the network from now on.
    Members(#[serde(with = "as_text")] Vec<PublicIdentity>),
    /// The metric from now on.
    Metric(Metric),
    /// This router leaves: advertise no link any more.
    Shutdown,
    /// A moment named by [`Routing::poll_timeout`](super::Routing::poll_timeout) has come.
    Timer,
}

/// What routing wants done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Send a control message to the neighbour, reliably while the link lives.
    Send {
        /// Over which link.
        link: LinkId,
        /// The whole message.
        bytes: Vec<u8>,
    },
    /// The first links of routes changed; these are those of all, by destination.
    Routes(Vec<(NodeId, LinkId)>),
}

/// How a router is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The router.
    pub destination: NodeId,
    /// The link of this router that leads there.
    pub link: LinkId,
    /// Length of the path in the configured metric; see [`Metric::readable`].
    pub cost: u64,
    /// All routers on the way, without this one, the destination last.
    pub path: Vec<NodeId>,
}

/// What is known of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// The router.
    pub node: NodeId,
    /// Whether a path leads there (or it is this router).
    pub reachable: bool,
    /// Links on the map: advertised by both ends.
    pub links: usize,
}

/// What routing counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Advertisements of others that were newer and taken.
    pub accepted: u64,
    /// Advertisements that were here already.
    pub duplicate: u64,
    /// Advertisements older than what was here.
    pub older: u64,
    /// Advertisements with the sequence, but not the content, of what was here.
    pub equivocations: u64,
    /// Advertisements with a wrong signature.
    pub forged: u64,
    /// Advertisements of routers that are no members.
    pub unknown_origin: u64,
    /// Messages that do not follow their format.
    pub malformed: u64,
    /// Messages over links that do not exist, or requests over links that are down.
    pub misplaced: u64,
    /// Advertisements not looked at, because their origin signs too many or the neighbour sends too many forged ones;
    /// asked for again later.
    pub refused: u64,
    /// Digests and advertisements that a neighbour asked for too often. Advertisements are sent later.
    pub limited: u64,
    /// Advertisements of this router.
    pub originated: u64,
    /// Advertisements in this router's name that were newer than its own.
    pub impostors: u64,
    /// Computations of all paths. Changes of the map that touch no path cause none.
    pub computations: u64,
}

/// What a timeout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// News or a refresh of this router's links.
    Advertise,
    /// A flapping link stayed up for long enough.
    Release,
    /// Paths must be computed.
    Compute,
    /// An advertisement grows too old.
    Expire,
    /// Summary or unanswered request.
    Exchange,
}

/// Public identities as they are printed.
mod as_text {
    use super::PublicIdentity;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(members: &[PublicIdentity], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(members.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PublicIdentity>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}
