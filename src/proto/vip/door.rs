//! What goes into the room and what comes out: plain values, so that a recorded list of inputs is a replay.

use crate::base::hash::hash64;
use crate::base::limits::{MAX_MEMBERS, MAX_SET_ADDRESSES, MAX_SETS};
use crate::base::{Instant, NodeId, View, ViewId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// What the room is configured with. Where a field must be the same on all members, [`Settings::digest`] has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// This router.
    pub node: NodeId,
    /// All members, this one too, ascending by id, and what people call them. The ids are the same on all.
    pub members: Vec<(NodeId, String)>,
    /// The sets, in the same order on all.
    pub sets: Vec<SetSpec>,
    /// This router's share of the sets, against the others' weights, from 1 to [`MAX_WEIGHT`](crate::wire::vip::MAX_WEIGHT).
    pub weight: u16,
    /// This router's health checks.
    pub checks: Vec<CheckSpec>,
    /// How long a router that starts waits for members that hold something, before it takes anything. The same on all.
    pub maturity: Duration,
    /// For how long the kernel of a member lets it answer without word from its daemon. The same on all.
    pub lease: Duration,
    /// How long a member that gave up a set still accepts what comes for it. The same on all.
    pub linger: Duration,
    /// How often the spread is made better; never, if none. The same on all.
    pub balance: Option<Duration>,
    /// How many sets move each time, at most. The same on all.
    pub moves: u16,
}

/// A health check, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    /// What people call it.
    pub name: String,
    /// The sets that it withdraws when it fails; all sets if it names none.
    pub sets: Vec<usize>,
}

/// A set of addresses that move as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSpec {
    /// Its name.
    pub name: String,
    /// What it consists of.
    pub addresses: Vec<IpAddr>,
    /// This router's interfaces that it needs, by name; others may call theirs otherwise.
    pub interfaces: Vec<String>,
    /// Where it is covered.
    pub coverage: Coverage,
    /// Members that are to have it rather than others, most preferred first.
    pub preferences: Vec<NodeId>,
}

/// Where a set is covered when members cannot reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coverage {
    /// In every connected component.
    Component,
    /// Where more than half of the configured members are.
    Majority,
}

impl Settings {
    /// The same on two members that can share sets. Not for protection: members are authenticated.
    pub fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        let mut put = |field: &[u8]| {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend(field);
        };
        self.members.iter().for_each(|(node, _)| put(&node.0.to_be_bytes()));
        for set in &self.sets {
            let mut addresses: Vec<String> = set.addresses.iter().map(IpAddr::to_string).collect();
            addresses.sort_unstable();
            put(set.name.as_bytes());
            put(addresses.join(" ").as_bytes());
            put(&[set.coverage as u8]);
            let preferences: Vec<u8> = set.preferences.iter().flat_map(|node| node.0.to_be_bytes()).collect();
            put(&preferences);
        }
        let times = [Some(self.maturity), Some(self.lease), Some(self.linger), self.balance];
        times.iter().for_each(|time| put(&time.map_or(u128::MAX, |time| time.as_nanos()).to_be_bytes()));
        put(&self.moves.to_be_bytes());
        hash64(&bytes)
    }

    /// What the configuration has checked.
    pub(super) fn assert(&self) {
        assert!(self.members.len() <= MAX_MEMBERS && self.sets.len() <= MAX_SETS, "the configuration bounds them");
        assert!(self.members.is_sorted_by(|a, b| a.0 < b.0), "members ascend");
        assert!(self.members.iter().any(|(node, _)| *node == self.node), "this router is a member");
        assert!((1..=crate::wire::vip::MAX_WEIGHT).contains(&self.weight), "the configuration bounds the weight");
        assert!(self.sets.iter().all(|set| set.addresses.len() <= MAX_SET_ADDRESSES), "the configuration bounds them");
        let named = self.checks.iter().flat_map(|check| &check.sets).all(|&set| set < self.sets.len());
        assert!(named, "checks name sets that there are");
    }
}

/// What happens to the room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// A view begins. What was to be delivered before it has been.
    View {
        /// Who is in it.
        view: View,
        /// Who came into it together with this router.
        together: Vec<NodeId>,
        /// What each member brings: its answer to [`Input::WantState`].
        states: Vec<(NodeId, Vec<u8>)>,
    },
    /// An agreed message, this router's own too.
    Message {
        /// Who sent it.
        from: NodeId,
        /// The whole message.
        body: Vec<u8>,
    },
    /// What does this router bring to the next view, when these will have been delivered?
    WantState {
        /// In the order of their delivery.
        pending: Vec<(NodeId, Vec<u8>)>,
    },
    /// A member was last known to live then, and its lease was refreshed no later: said before the view without it. Who is
    /// told nothing waits a whole lease from the view on.
    LastHeard {
        /// Which.
        node: NodeId,
        /// When.
        at: Instant,
    },
    /// An operator's command, answered by [`Action::Done`].
    Command {
        /// Whatever the caller likes.
        id: u64,
        /// What to do.
        command: Command,
    },
    /// What a health check found. Until it has found something it counts as failed.
    Health {
        /// Its place in the settings.
        check: usize,
        /// Whether it passed.
        ok: bool,
    },
    /// What the host side did or saw.
    Host(HostReport),
    /// Hand over everything, then say [`Action::Left`].
    Leave,
    /// A moment named by [`Vip::poll_timeout`](super::Vip::poll_timeout) has come.
    Timer,
}

/// What an operator can order at any member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Move a set. Done when the new owner has it.
    Move {
        /// Its name.
        set: String,
        /// To whom; to the member that suits it best if to none.
        to: Option<NodeId>,
    },
    /// Take everything from a member, until [`Command::Undrain`]. Done when it holds nothing.
    Drain(NodeId),
    /// Let it have sets again.
    Undrain(NodeId),
    /// Give a set to a member whenever that can hold it.
    Pin {
        /// Its name.
        set: String,
        /// To whom.
        to: NodeId,
    },
    /// Let a set be where it is.
    Unpin(String),
    /// Leave a set where it is, whatever happens, as long as its owner is there.
    Pause(String),
    /// Let it move again.
    Resume(String),
    /// Make the spread as good as it can be, at once.
    Balance,
}

/// What the room wants done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Multicast this to the view, in agreed order; during a change, in the next.
    Multicast(Vec<u8>),
    /// The answer to [`Input::WantState`].
    State(Vec<u8>),
    /// For the host side.
    Host(HostCommand),
    /// A command was followed, or why not.
    Done {
        /// The caller's number for it.
        id: u64,
        /// What came of it.
        result: Result<(), String>,
    },
    /// Everything is handed over: the membership may be left.
    Left,
    /// For the journal.
    Note(Entry),
}

/// What the host side is told, by the set's place in the settings. It obeys in order, and an order that is obeyed already
/// is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostCommand {
    /// Have the addresses, and from `wait` from now on answer for them and announce them; before, nothing must answer. Of
    /// a muted set: answer again. Reported by [`HostReport::Acquired`] when it answers, or [`HostReport::Failed`].
    Acquire {
        /// Which.
        set: usize,
        /// How long the lease of a member that is gone runs on.
        wait: Duration,
        /// Who answers for it until this router does, and can be asked for what goes with it; nobody if it is gone.
        from: Option<NodeId>,
    },
    /// Announce the addresses again, the whole schedule.
    Announce {
        /// Which.
        set: usize,
    },
    /// Accept what comes for the addresses, but answer no ARP or neighbour solicitation and send none from them.
    Mute {
        /// Which.
        set: usize,
    },
    /// Have the addresses no more. Reported by [`HostReport::Released`].
    Release {
        /// Which.
        set: usize,
    },
    /// Have no address of any set. Not reported.
    ReleaseAll,
}

/// What the host side did or saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostReport {
    /// It answers for the set.
    Acquired {
        /// Which.
        set: usize,
    },
    /// It has no address of the set.
    Released {
        /// Which.
        set: usize,
    },
    /// It cannot have all addresses of the set, and has none.
    Failed {
        /// Which.
        set: usize,
        /// Why.
        why: String,
    },
    /// Somebody else answers for the set.
    Rival {
        /// Which.
        set: usize,
        /// For which of its addresses.
        address: IpAddr,
        /// Who, as far as is known.
        who: String,
    },
    /// Somebody took an address of the set away.
    Lost {
        /// Which.
        set: usize,
        /// What is known of it.
        why: String,
    },
    /// The lease ran out before it was refreshed, or would have if there had been one: this router was not running for a
    /// while. Nothing is answered, and nothing is refreshed, until a [`HostCommand::Acquire`] that is given after this; those
    /// before are void.
    Lapsed,
    /// An interface has a carrier, or has none. Until said otherwise each has one.
    Carrier {
        /// Its name.
        interface: String,
        /// Whether it has.
        up: bool,
        /// What it is addressed by, if it has none any more: links may have paths from there.
        addresses: Vec<IpAddr>,
    },
}

/// An entry for the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// A view began.
    View {
        /// Which.
        id: ViewId,
        /// How many members it has.
        members: usize,
        /// How many came together with this router.
        together: usize,
    },
    /// A set has another owner.
    Assigned {
        /// Its name.
        set: String,
        /// To whom it belongs; to nobody if no member may hold it.
        owner: Option<NodeId>,
        /// Who holds it until the owner does.
        from: Option<NodeId>,
        /// What happened.
        cause: Cause,
    },
    /// This router answers for a set.
    Acquired {
        /// Its name.
        set: String,
        /// How long it took from when it was given to it, the wait for a lease too.
        after: Duration,
        /// For how long of that a lease was waited for.
        waited: Duration,
    },
    /// This router does not answer for a set any more.
    Released {
        /// Its name.
        set: String,
    },
    /// The host side could not, or somebody meddled.
    Host {
        /// The set's name.
        set: String,
        /// What it said.
        why: String,
    },
    /// Somebody else answers for a set that this router owns.
    Rival {
        /// Its name.
        set: String,
        /// For which address.
        address: IpAddr,
        /// Who.
        who: String,
    },
    /// This router's lease ran out while it was not running.
    Lapsed,
    /// Members with another configuration hold nothing.
    Unequal {
        /// The digest that rules.
        ruling: u64,
        /// Who has another one.
        others: Vec<NodeId>,
        /// This router is one of them.
        this: bool,
    },
    /// This router has waited for the others for long enough.
    Mature,
}

/// Why a set has another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A view began.
    View,
    /// A member's health, interfaces, host, maturity or leaving.
    Facts,
    /// An operator, or balance.
    Order,
}

/// What operators are shown of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetView {
    /// Its name.
    pub name: String,
    /// To whom it belongs.
    pub owner: Option<NodeId>,
    /// Whether the owner has said that it has it.
    pub acquired: bool,
    /// Who holds it until the owner does.
    pub from: Option<NodeId>,
    /// What this router does about it.
    pub here: super::Stage,
    /// Whom it is pinned to.
    pub pin: Option<NodeId>,
    /// It stays where it is.
    pub paused: bool,
    /// Why this router could not hold it, if it could not.
    pub unable: Option<String>,
}

/// What operators are shown of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Which.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// It is in the view.
    pub here: bool,
    /// Its configuration is the one that rules.
    pub equal: bool,
    /// It may have sets.
    pub mature: bool,
    /// It is to have none.
    pub drained: bool,
    /// It hands over everything and goes.
    pub leaving: bool,
    /// Sets that it could hold.
    pub able: usize,
    /// Sets that belong to it.
    pub owns: usize,
    /// Its share.
    pub weight: u16,
}

/// What the room counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Views that began.
    pub views: u64,
    /// Sets that this router acquired.
    pub acquired: u64,
    /// Sets that this router released.
    pub released: u64,
    /// Announcements repeated after a merge, a hand-over or on sight of a rival.
    pub announced_again: u64,
    /// Rivals seen.
    pub rivals: u64,
    /// Times that the lease ran out while this router was not running.
    pub lapses: u64,
    /// What the host side could not do.
    pub failures: u64,
    /// Addresses that somebody took away.
    pub lost: u64,
    /// Messages and states that do not follow their format.
    pub malformed: u64,
    /// Messages of members with another configuration, of strangers, or that name what does not exist; reports of sets
    /// and checks that there are not.
    pub misplaced: u64,
    /// Messages that said nothing new.
    pub stale: u64,
    /// What was said again because nothing had come of it.
    pub retold: u64,
    /// Commands refused.
    pub refused: u64,
}

/// What a timeout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// This router has waited for the others for long enough.
    Mature,
    /// The lease of a member that is gone runs out.
    Lease,
    /// This router stood still, and has waited for those that were with it for long enough.
    Deserted,
    /// The host side should have answered.
    Host,
    /// A muted set may be released.
    Linger,
    /// What could not be held may be tried again.
    Retry,
    /// Something said should have been delivered.
    Retell,
    /// The spread may be made better.
    Balance,
    /// A command was not followed for too long.
    Command,
    /// Leaving takes too long.
    Leave,
}
