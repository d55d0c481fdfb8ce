//! What goes into the room and what comes out: plain values, so that a recorded list of inputs is a replay.

use crate::base::{GroupName, NodeId, View, ViewId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A client's membership of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process {
    /// The router that it is a client of.
    pub node: NodeId,
    /// Which of that router's. In one of the router's lives none comes again before all others were used.
    pub number: u32,
}

/// Names a view of a group. Those that a process sees ascend; two views of a group with one id are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupViewId {
    /// The routers' view in which it began.
    pub view: ViewId,
    /// How many joins and leaves, of whatever group, were delivered in that view by then.
    pub change: u64,
}

impl fmt::Display for GroupViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.view, self.change)
    }
}

/// What a process sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A view of its group begins.
    View {
        /// Which.
        id: GroupViewId,
        /// Who is in it, ascending.
        members: Vec<Process>,
        /// Those who come from the same view as this process, itself among them.
        together: Vec<Process>,
    },
    /// Its view ends: what still comes of it is delivered by those alone who move on with this process, and not all of the
    /// others' messages may be there.
    Transitional,
    /// A member of its view said something.
    Message {
        /// Who.
        from: Process,
        /// What.
        bytes: Vec<u8>,
    },
}

/// What happens to the room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A client of this router joins a group, under a number that no other has ([`Groups::has_local`](super::Groups::has_local)).
    Join {
        /// What it is called here.
        process: u32,
        /// Which group.
        group: GroupName,
    },
    /// It says something to its group; answered by [`Action::Sent`] or [`Action::Refused`].
    Send {
        /// Who.
        process: u32,
        /// What, at most [`MAX_GROUP_MESSAGE`](crate::base::limits::MAX_GROUP_MESSAGE) bytes.
        bytes: Vec<u8>,
    },
    /// It leaves, or died: it is told nothing any more.
    Leave {
        /// Who.
        process: u32,
    },
    /// The routers' view ends, and these move on with this router.
    Transitional {
        /// This router among them.
        together: Vec<NodeId>,
    },
    /// A view of the routers begins.
    View {
        /// Which.
        view: View,
        /// Those who come from the same view as this router, itself among them.
        together: Vec<NodeId>,
        /// What each brought.
        states: Vec<(NodeId, Vec<u8>)>,
    },
    /// A router's message, in agreed order.
    Message {
        /// Whose.
        from: NodeId,
        /// What.
        body: Vec<u8>,
    },
    /// Answer with [`Action::State`] as if these had been delivered.
    WantState {
        /// Each with the router that sent it.
        pending: Vec<(NodeId, Vec<u8>)>,
    },
    /// The message of the last [`Action::Multicast`] was taken.
    Taken,
    /// It was not, as too much is under way, and is given back; [`Input::Room`] follows.
    Full(Vec<u8>),
    /// There is room again.
    Room,
}

/// What the room wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Send this to all routers of the view in agreed order; answered by [`Input::Taken`] or [`Input::Full`] before another.
    Multicast(Vec<u8>),
    /// What this router brings into the next view.
    State(Vec<u8>),
    /// Tell clients of this router. What a process is told first is a view that it is in.
    Tell {
        /// Which.
        processes: Vec<u32>,
        /// What.
        event: Event,
    },
    /// The message of [`Input::Send`] is on its way: the process may send another.
    Sent(u32),
    /// What a process asked for is refused.
    Refused {
        /// Who.
        process: u32,
        /// Why.
        why: Refusal,
    },
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// This router has [`MAX_PROCESSES`](crate::base::limits::MAX_PROCESSES) already.
    Crowded,
    /// The process is in no group, or not yet.
    NotJoined,
    /// Its last message waits yet.
    Busy,
    /// The message is longer than [`MAX_GROUP_MESSAGE`](crate::base::limits::MAX_GROUP_MESSAGE).
    TooLong,
}

/// A group, to be shown.
#[derive(Clone, Copy, Debug)]
pub struct GroupShown<'a> {
    /// What it is called.
    pub name: &'a GroupName,
    /// Its view.
    pub id: GroupViewId,
    /// Who is in it.
    pub members: &'a std::collections::BTreeSet<Process>,
}

/// What the room counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Views told to clients of this router, once for each.
    pub views: u64,
    /// Messages of clients of this router that went out.
    pub sent: u64,
    /// Messages told to clients of this router, once for each.
    pub delivered: u64,
    /// What clients asked for and was refused.
    pub refused: u64,
    /// Times that something of a client had to wait because too much was under way.
    pub waited: u64,
    /// Messages of processes that their group does not know: they do not move on with those who would hear them.
    pub unknown: u64,
    /// Messages and states that do not follow their format.
    pub malformed: u64,
    /// Joins of processes that are there or too many, and leaves of those that are not.
    pub misplaced: u64,
}
