//! What goes into membership and what comes out: plain values, so that a recorded list of inputs is a replay.

use crate::base::{DownReason, GroupName, NodeId, View, ViewId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Of which group a router is a member, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The group.
    pub group: GroupName,
    /// This router.
    pub node: NodeId,
    /// Which of its lives this is: greater than in those before, as the wall clock at its start is. If it is not, the
    /// others say so, and it takes a greater one.
    pub incarnation: u64,
    /// How patient it is.
    pub timing: Timing,
}

/// How patient a member is. All members of a group should be alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Least time between two acknowledgements, and what a hole is given to close by itself.
    pub spacing: Duration,
    /// What is unanswered is said again after this, then after twice the time, and so on up to a quarter of the patience.
    /// More than a round trip.
    pub repeat: Duration,
    /// A view that leaves out a router which one of its members reaches waits until nothing changed for so long: more than
    /// the time between the first and the last member's noticing of one fault.
    pub settle: Duration,
    /// A router that is reachable but says nothing to what it must answer is left out after this.
    pub patience: Duration,
}

impl Timing {
    /// For routers on one network and hellos every 10 ms.
    pub const SAFE: Timing = Timing {
        spacing: Duration::from_millis(1),
        repeat: Duration::from_millis(10),
        settle: Duration::from_millis(60),
        patience: Duration::from_millis(2_000),
    };
    /// For routers on one network and hellos every millisecond.
    pub const FAST: Timing = Timing {
        spacing: Duration::from_millis(1),
        repeat: Duration::from_millis(4),
        settle: Duration::from_millis(15),
        patience: Duration::from_millis(500),
    };
    /// For routers in different places.
    pub const WAN: Timing = Timing {
        spacing: Duration::from_millis(5),
        repeat: Duration::from_millis(400),
        settle: Duration::from_millis(600),
        patience: Duration::from_millis(10_000),
    };
}

/// Why a router is no longer reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suspicion {
    /// The direct link went down.
    Link(DownReason),
    /// No route leads there.
    NoRoute,
}

/// How far a message must have come before it is delivered. Whichever it is, all deliver in one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Its place in the order is known.
    Agreed,
    /// And every member of the view holds it.
    Safe,
}

/// A message of a member to all members, itself among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Who sent it.
    pub from: NodeId,
    /// How far it had to come.
    pub service: Service,
    /// What it says.
    pub body: Vec<u8>,
}

/// What happens to membership.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// A router of the group can be reached. Said again, it means that the router may have forgotten everything.
    Reachable(NodeId),
    /// It cannot be reached any more.
    Unreachable(NodeId, Suspicion),
    /// A message whose first byte is [`PROTOCOL`](crate::wire::membership::PROTOCOL).
    Message {
        /// Who sent it: authenticated.
        from: NodeId,
        /// The whole message.
        bytes: Vec<u8>,
    },
    /// Send this to all members: in this view or, if it is about to end, in the next.
    Multicast {
        /// What.
        body: Vec<u8>,
        /// How far it must come.
        service: Service,
    },
    /// The application's state, as [`Action::WantState`] asked for it.
    State(Vec<u8>),
    /// This router leaves the group, for good.
    Leave,
    /// A moment named by [`Membership::poll_timeout`](super::Membership::poll_timeout) has come.
    Timer,
}

/// What membership wants done, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Send a message. It may be lost, doubled and overtaken.
    Send {
        /// To whom.
        to: NodeId,
        /// The whole message.
        bytes: Vec<u8>,
    },
    /// Give the application's state, at most [`MAX_STATE`](crate::base::limits::MAX_STATE) bytes, as if these had been
    /// delivered: it is what this router brings into the next view.
    WantState {
        /// What will be delivered before that view, unless things change once more and the question is asked again.
        pending: Vec<Delivery>,
    },
    /// A message of this view. All that move on together deliver the same, in the same order.
    Deliver(Delivery),
    /// This view ends: what still comes of it is delivered by these alone, and not all of the others' messages may be
    /// there.
    Transitional {
        /// Who moves on from this view together with this router, itself among them.
        together: Vec<NodeId>,
    },
    /// A new view begins.
    Install {
        /// Its members.
        view: View,
        /// Those who come from the same view as this router, itself among them.
        together: Vec<NodeId>,
        /// What each member brought, by id.
        states: Vec<(NodeId, Vec<u8>)>,
    },
    /// A message was not taken, and is given back.
    Refused {
        /// Why.
        why: Refusal,
        /// The message.
        body: Vec<u8>,
    },
    /// After [`Refusal::Full`]: there is room again.
    Room,
    /// For the journal.
    Note(Entry),
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// So much is under way already that somebody does not hold yet. [`Action::Room`] follows.
    Full,
    /// It is longer than [`MAX_PAYLOAD`](crate::base::limits::MAX_PAYLOAD).
    TooLong,
    /// This router left the group.
    Left,
}

/// What the journal tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A router can be reached.
    Reached(NodeId),
    /// A router cannot be reached.
    Lost(NodeId, Suspicion),
    /// A router said that it leaves.
    Leaving(NodeId),
    /// A router is reachable, but for so long it did not answer.
    Mute(NodeId, Duration),
    /// It speaks again.
    Speaks(NodeId),
    /// Delivery stopped, and the members look for their next view.
    Gathering {
        /// The view that ends.
        from: ViewId,
        /// Why.
        cause: Cause,
    },
    /// This router was ready for a view that will not be.
    Abandoned {
        /// Which.
        view: ViewId,
        /// After so long.
        after: Duration,
    },
    /// A view began.
    Installed {
        /// Which.
        view: ViewId,
        /// Of how many.
        members: usize,
        /// Since delivery stopped.
        took: Duration,
        /// Of that, until it was clear who is in it and what each has.
        agreeing: Duration,
        /// And until this router had all messages that the others have.
        recovering: Duration,
    },
    /// Somebody with a later incarnation answered to this router's name: it took this one.
    Outbid(u64),
    /// The application's state was too large for a view: nothing was brought instead.
    StateTooLong(usize),
}

/// Why members look for a new view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// There was none.
    Start,
    /// A member and this router do not reach each other any more.
    Lost(NodeId),
    /// A member has restarted.
    Restarted(NodeId),
    /// A member looks for a new view.
    Moved(NodeId),
    /// Others can be joined, or must be parted from.
    Others,
}

/// What a timeout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Tell whom this router reaches.
    Join,
    /// Acknowledge.
    Acknowledge,
    /// Ask for what is missing.
    Request,
    /// Say again what was not answered.
    Repeat,
    /// Nothing changed for long enough.
    Settle,
    /// Somebody was silent for too long.
    Patience,
}

/// What membership counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Views installed.
    pub views: u64,
    /// Times that delivery stopped.
    pub gathers: u64,
    /// Views this router was ready for and that did not come to be.
    pub abandoned: u64,
    /// Messages of the application sent.
    pub sent: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Messages of the application that were refused.
    pub refused: u64,
    /// Data messages sent again.
    pub repeated: u64,
    /// Data messages that were here already.
    pub duplicate: u64,
    /// Data messages so far ahead that there is no place for them.
    pub beyond: u64,
    /// Messages that do not follow their format.
    pub malformed: u64,
    /// Messages of another group, or from this router's own name.
    pub misplaced: u64,
    /// Messages of earlier lives of their senders.
    pub outlived: u64,
    /// Messages of a view that this router is not in.
    pub foreign: u64,
    /// Messages of the view to come for which there was no place.
    pub early: u64,
    /// Routers for which there was no place.
    pub crowded: u64,
    /// Messages that were put together and are longer than any may be.
    pub overlong: u64,
    /// Routers left out because they did not answer.
    pub mute: u64,
}
