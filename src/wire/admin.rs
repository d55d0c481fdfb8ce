//! What commands and applications ask of a router over its control socket.
//!
//! A Unix stream socket carries one JSON object a line in each direction; every request is answered by exactly one line,
//! in order. What comes unasked ([`Response::Incoming`], [`Response::Group`]) comes between answers. The answer to an `open` is accompanied by the session's descriptor (`SCM_RIGHTS`); so is every
//! [`Response::Incoming`], which a listener's connection receives unasked.

use super::client::Endpoint;
use crate::base::{LinkMetrics, NodeId, Obstacle, Port, SessionId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Longest line in either direction, bytes.
pub const MAX_LINE: usize = 4 << 20;

/// Asked of a router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum Request {
    /// Who are you?
    Whoami,
    /// The routers of the network: [`Response::Nodes`].
    Nodes,
    /// This router's links: [`Response::Links`].
    Links,
    /// Where every router is reached: [`Response::Routes`].
    Routes,
    /// This router's sessions: [`Response::Stats`], in each object nothing but `sessions`.
    Sessions,
    /// Everything counted: [`Response::Stats`].
    Stats,
    /// Everything counted, and every histogram whole: [`Response::Stats`], each worker's object with one key more,
    /// `histograms`: a list, of each that is not empty an object with `name`, `link` and `peer` (the link's number and the
    /// member's name; null for the worker's own) and `hdr` (the histogram in nanoseconds, HdrHistogram V2 compressed,
    /// base64).
    Histograms,
    /// Open a session for datagrams: [`Response::Opened`] with a descriptor.
    OpenDatagram {
        /// Its port; 0 lets the router choose.
        port: Port,
    },
    /// Wait for streams: [`Response::Opened`] without a descriptor, then [`Response::Incoming`] with one for each.
    OpenListener {
        /// Its port; 0 lets the router choose.
        port: Port,
    },
    /// Open a stream: [`Response::Opened`] with a descriptor; a `connected` or `reset` record on it follows.
    OpenStream {
        /// The listener at the other end.
        to: Endpoint,
    },
    /// From now on sessions that are opened on this connection share memory with the router, or do not:
    /// [`Response::SharesMemory`].
    ShareMemory {
        /// Whether they do.
        wanted: bool,
    },
    /// Read the configuration file again: [`Response::Reloaded`].
    Reload,
    /// Who is together with this router, and which service addresses are where: [`Response::Vips`].
    Vips,
    /// What became of the views, the newest last: [`Response::Journal`].
    Journal,
    /// Process groups: [`Response::Groups`].
    Groups,
    /// Join a process group, until the connection is closed: [`Response::Joined`], then a [`Response::Group`] for everything
    /// that is seen there, the first of them a view. A connection joins one group.
    JoinGroup {
        /// Its name.
        group: String,
    },
    /// Say something to the group that this connection has joined: [`Response::Sent`], once it is on its way, which may take
    /// a while when much is. That it was heard is known when it comes back.
    SendGroup {
        /// What, at most [`MAX_GROUP_MESSAGE`](crate::base::limits::MAX_GROUP_MESSAGE) bytes; in base64.
        #[serde(with = "in_base64")]
        bytes: Vec<u8>,
    },
    /// An order about service addresses: [`Response::Ordered`] once it is carried out.
    Vip {
        /// What to do.
        order: VipOrder,
    },
}

/// An order about service addresses, with the names of sets and members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "order")]
pub enum VipOrder {
    /// Move a set, to the member that suits it best if to none.
    Move {
        /// Which.
        set: String,
        /// To whom.
        to: Option<String>,
    },
    /// Take everything from a member.
    Drain {
        /// Which.
        member: String,
    },
    /// Let it have sets again.
    Undrain {
        /// Which.
        member: String,
    },
    /// Give a set to a member whenever that can hold it.
    Pin {
        /// Which.
        set: String,
        /// To whom.
        to: String,
    },
    /// Let a set be where it is.
    Unpin {
        /// Which.
        set: String,
    },
    /// Leave a set where it is, whatever happens, as long as its owner is there.
    Pause {
        /// Which.
        set: String,
    },
    /// Let it move again.
    Resume {
        /// Which.
        set: String,
    },
    /// Spread the sets as well as they can be, at once.
    Balance,
}

/// A router's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "response")]
pub enum Response {
    /// Answer to [`Request::Whoami`].
    Whoami {
        /// Its name.
        name: String,
        /// Its id.
        node: NodeId,
        /// Its version.
        version: String,
        /// The system calls its workers use, and why.
        io: String,
    },
    /// Answer to [`Request::Nodes`].
    Nodes {
        /// All members, by name.
        nodes: Vec<NodeEntry>,
    },
    /// Answer to [`Request::Links`].
    Links {
        /// All links, in the order of the configuration.
        links: Vec<LinkEntry>,
    },
    /// Answer to [`Request::Routes`].
    Routes {
        /// Counts the tables this router has computed.
        generation: u64,
        /// All reachable routers.
        routes: Vec<RouteEntry>,
    },
    /// Answer to [`Request::Stats`] and [`Request::Sessions`]: one object a worker, as in the documentation of
    /// `dataplane::messages::ShardStats`. To [`Request::Stats`] the first has what is counted beside the workers, too: `control`
    /// and, where there are process groups, `groups`; where service addresses are shared, `membership`, `vip`, `vip_host` (objects of figures) and `vip_sets`: of each
    /// set an object with `set` (its name), `state`, `owned`, `covered` and `able`.
    Stats {
        /// One per worker.
        workers: Vec<serde_json::Value>,
    },
    /// A session is open.
    Opened {
        /// Which.
        session: SessionId,
        /// Its port.
        port: Port,
        /// Whether the descriptor of the memory that it shares follows that of its socket.
        #[serde(default)]
        memory: bool,
    },
    /// A stream arrived for a listener of this connection.
    Incoming {
        /// The listener.
        listener: SessionId,
        /// The stream's session.
        session: SessionId,
        /// Who connects.
        peer: Endpoint,
        /// As in [`Response::Opened`].
        #[serde(default)]
        memory: bool,
    },
    /// Answer to [`Request::ShareMemory`].
    SharesMemory {
        /// Whether sessions will, as long as the router has memory for them.
        granted: bool,
    },
    /// Answer to [`Request::Vips`].
    Vips {
        /// The view that this router is in.
        view: Box<ViewEntry>,
        /// All configured members, by name.
        members: Vec<VipMemberEntry>,
        /// All sets, in the order of the configuration.
        sets: Vec<VipEntry>,
        /// What this machine does not promise, and why.
        degraded: Vec<String>,
    },
    /// Answer to [`Request::Journal`].
    Journal {
        /// The oldest that is remembered first.
        entries: Vec<JournalEntry>,
    },
    /// Answer to [`Request::Groups`].
    Groups {
        /// The routers that agree on groups.
        routers: Box<ViewEntry>,
        /// All groups of theirs, by name.
        groups: Vec<GroupEntry>,
    },
    /// Answer to [`Request::JoinGroup`].
    Joined {
        /// What the client is called in its group: `ROUTER.NUMBER`.
        member: String,
    },
    /// Answer to [`Request::SendGroup`].
    Sent,
    /// What a client sees of its group; unasked.
    Group {
        /// What.
        event: GroupEvent,
    },
    /// Answer to [`Request::Vip`]: the order was carried out.
    Ordered,
    /// The configuration was read again.
    Reloaded {
        /// What took effect.
        applied: Vec<String>,
        /// What needs a restart.
        not_applied: Vec<String>,
    },
    /// The request was refused.
    Error {
        /// Why, and what to do.
        message: String,
    },
}

/// A process group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Its name.
    pub group: String,
    /// Its view.
    pub view: String,
    /// Who is in it: `ROUTER.NUMBER` of each.
    pub members: Vec<String>,
}

/// What a client sees of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum GroupEvent {
    /// A view of the group begins.
    View {
        /// What it is called: the same at all its members.
        id: String,
        /// Who is in it: `ROUTER.NUMBER` of each, this client among them.
        members: Vec<String>,
        /// Those who come from the same view as this client, and have heard the same there; itself among them.
        together: Vec<String>,
    },
    /// The view ends: what still comes of it is heard by those alone who move on together, and not all that others said
    /// may be there.
    Transitional,
    /// A member of the view said something.
    Message {
        /// Who.
        from: String,
        /// What; in base64.
        #[serde(with = "in_base64")]
        bytes: Vec<u8>,
    },
}

/// A member of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Its name in this router's configuration.
    pub name: String,
    /// Its id.
    pub node: NodeId,
    /// Whether a route leads there.
    pub reachable: bool,
    /// Links it advertises that are confirmed by their other ends.
    pub links: usize,
    /// Whether it is the router that answers.
    pub this: bool,
}

/// Who agreed to be together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewEntry {
    /// What it is called: the same at all its members.
    pub id: String,
    /// Their names.
    pub members: Vec<String>,
    /// Delivery has stopped, because members look for another view.
    pub gathering: bool,
    /// Seconds since it began.
    pub since_s: f64,
}

/// A member that shares service addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipMemberEntry {
    /// Its name.
    pub name: String,
    /// Its id.
    pub node: NodeId,
    /// It is in the view.
    pub here: bool,
    /// It is the router that answers.
    pub this: bool,
    /// Why it may have no sets, if it may not: what is to be done about it is said with it.
    pub excluded: Option<String>,
    /// Sets that it could hold.
    pub able: usize,
    /// Sets that belong to it.
    pub owns: usize,
    /// Its share.
    pub weight: u16,
}

/// A set of service addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipEntry {
    /// Its name.
    pub set: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// To whom it belongs.
    pub owner: Option<String>,
    /// The owner answers for it.
    pub acquired: bool,
    /// Who holds it until the owner does.
    pub from: Option<String>,
    /// What the router that answers does about it: idle, waiting, acquiring, owning, muted, lapsed or releasing.
    pub here: String,
    /// Whom it is pinned to.
    pub pin: Option<String>,
    /// It stays where it is.
    pub paused: bool,
    /// Why the router that answers could not hold it, if it could not.
    pub unable: Option<String>,
}

/// Something that became of the views or of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Seconds ago.
    pub ago_s: f64,
    /// For people.
    pub text: String,
    /// For programs: the protocol's own words.
    pub event: serde_json::Value,
}

/// Why a link is down that was never up.
pub const NEVER_HEARD: &str = "never heard from";

/// A link of the router that answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkEntry {
    /// The member at the other end.
    pub peer: String,
    /// Its id.
    pub node: NodeId,
    /// Its address, once known.
    pub remote: Option<SocketAddr>,
    /// Whether the link carries traffic.
    pub up: bool,
    /// Why it went down last, if it ever did; [`NEVER_HEARD`] while it was never up.
    pub down_reason: Option<String>,
    /// What seems to keep it down, once that was found out.
    #[serde(default)]
    pub obstacle: Option<Obstacle>,
    /// Seconds since it came up or went down.
    pub since_s: f64,
    /// Measured quality.
    pub metrics: LinkMetrics,
}

/// How a router is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// The destination's name.
    pub name: String,
    /// The destination.
    pub node: NodeId,
    /// The neighbour it is reached through.
    pub via: String,
    /// The names of all routers on the way, the destination last.
    pub path: Vec<String>,
    /// Links on the way.
    pub hops: usize,
    /// Length of the path in the configured metric.
    pub cost: f64,
}

impl Request {
    /// The request as one line, newline included.
    pub fn to_line(&self) -> String {
        to_line(self)
    }
}

impl Response {
    /// The answer as one line, newline included.
    pub fn to_line(&self) -> String {
        to_line(self)
    }
}

/// Bytes as a string of base64.
mod in_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::borrow::Cow;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

fn to_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).expect("requests and responses have string keys and no failing parts");
    line.push('\n');
    line
}
