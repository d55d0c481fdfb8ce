//! Rules broken on purpose, so that the simulator can be tested for noticing.
//!
//! Compiled into tests and the `sabotage` feature alone; everywhere else [`broken`] is a constant false and costs
//! nothing. A rule is chosen per thread with `break_rule`.

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $variant:ident,)+) => {
        /// A rule that can be broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule { $($(#[doc = $doc])+ $variant,)+ }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Rule] = &[$(Rule::$variant,)+];

            /// The name on command lines and in tables.
            pub const fn name(self) -> &'static str {
                match self { $(Rule::$variant => stringify!($variant),)+ }
            }

            /// The rule with this name, in any case.
            pub fn named(name: &str) -> Option<Rule> {
                Rule::ALL.iter().copied().find(|rule| rule.name().eq_ignore_ascii_case(name))
            }
        }
    };
}

rules! {
    /// A lost reliable message is sent again on its link.
    Retransmit,
    /// A sealed packet received twice is opened once.
    Replay,
    /// A link acknowledges the packets that came, and not those between them.
    AckRanges,
    /// A link does not acknowledge a packet whose messages it could not take in.
    AckRefused,
    /// A link hands on a repeated message once.
    LinkDuplicates,
    /// A link hands on what arrived at once, whatever is missing before it.
    AnyOrder,
    /// A link over which nothing is heard goes down.
    Silence,
    /// A session hands on a repeated segment once.
    SessionDuplicates,
    /// An ordered flow is handed on in order.
    Order,
    /// A session acknowledges only what it holds.
    AckHeld,
    /// A stream ends after its last byte, not when its end is known.
    StreamEnd,
    /// A datagram flow ends after its last segment, not when its end is known.
    FlowEnd,
    /// A flow that ended is remembered.
    Tombstones,
    /// Fragments are joined with those of the same datagram.
    Fragments,
    /// A link is on the map only if both of its ends advertise it.
    BothEnds,
    /// An older advertisement does not replace a newer one.
    NewestWins,
    /// A later boot epoch is newer, whatever the counter says.
    BootEpoch,
    /// News is passed on to all other neighbours.
    Flooding,
    /// Neighbours compare databases when their link comes up.
    Exchange,
    /// A router that meets an advertisement of its own from an earlier life outbids it.
    Outbid,
    /// Each hop takes one from the hops a message has left.
    HopsLeft,
    /// A new forwarding table replaces the old one.
    TableSwap,
    /// A dropped packet's memory is given back.
    ReleaseDropped,
    /// A drop is counted.
    CountDrops,
    /// A member that gets a message of its view twice delivers it once.
    DataOnce,
    /// Messages of a view are delivered in one order, when nothing before them can come any more.
    AgreedOrder,
    /// A safe message waits until every member of its view holds it. Service addresses send none: it shows in
    /// membership's own tests alone.
    SafeWaits,
    /// Those who move from one view to the next together give each other what they lack.
    Recover,
    /// What may follow a message that is lost is not delivered.
    NoHoles,
    /// Of a view's members, those who come from the same view as this one are known.
    TogetherOnly,
    /// A member is ready for one view in one attempt.
    OneView,
    /// A member that looks for another view is followed. Where it is not, links that come and go soon bring the others to
    /// look too: it shows in membership's own tests.
    LeaveTogether,
    /// Each view has a greater number than those its members come from.
    NumbersAscend,
    /// A set of addresses that is held by somebody who may does not move.
    NothingMoves,
    /// A set that nobody holds is given to somebody.
    Holes,
    /// A paused set stays.
    PausedStay,
    /// All members decide alike: nobody prefers itself.
    Alike,
    /// Who takes over from a member that is gone waits until its lease has run out.
    Lease,
    /// Who was given a set, and lost it before it said that it has it, may have it. It shows for less than a lease, if that
    /// member stands still just then: the room's own search comes upon it.
    Replaced,
    /// A member that joins learns what leases still run. It shows for less than a lease, if who stands still had what the
    /// newcomer is given: the room's own search comes upon it.
    LeaseTold,
    /// Who lost a set in a merge releases it.
    LoserReleases,
    /// Who gives a set up holds it until the other has it.
    MakeBeforeBreak,
    /// Who gives a set up answers for it no more.
    Mute,
    /// A set whose new owner is gone goes back to who still holds it.
    GiveBack,
    /// What was said of an earlier turn means nothing in this one. It shows if a set goes and comes back while a message is
    /// under way: the room's own tests tell the story.
    Turns,
    /// A state counts what will be delivered before the view.
    Pending,
    /// The drained hold nothing.
    Drained,
    /// Only members of the ruling configuration hold anything. A member with another one does not take what it is given, and
    /// is soon put right where networks are random: the room's own tests tell the story.
    Digest,
    /// A member whose lease ran out answers only when the others have said that they still count on it.
    Proof,
    /// Without a majority a set that wants one is released.
    Majority,
    /// The winner of a merge announces again.
    Announce,
    /// On sight of a rival an owner announces again, but not each time.
    RivalSpacing,
}

impl Rule {
    /// Whether it is a rule of membership, which that room's own tests break too.
    pub const fn is_of_membership(self) -> bool {
        self.is_of_groups() && (self as usize) < Rule::NothingMoves as usize
    }

    /// Whether whole networks show that it is broken: the simulator must notice. Of the others their docs say why only the
    /// room's own tests can.
    pub const fn shows_in_networks(self) -> bool {
        use Rule::{Digest, LeaseTold, LeaveTogether, Replaced, SafeWaits, Turns};
        !matches!(self, SafeWaits | LeaveTogether | Replaced | LeaseTold | Turns | Digest)
    }

    /// Whether it matters only where a group shares service addresses.
    pub const fn is_of_groups(self) -> bool {
        self as usize >= Rule::DataOnce as usize
    }
}

#[cfg(any(test, feature = "sabotage"))]
mod switch {
    use super::Rule;
    use std::cell::Cell;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Breaks `rule` in this thread until another is chosen; none mends all.
    pub fn break_rule(rule: Option<Rule>) {
        BROKEN.set(rule);
    }

    /// Whether `rule` is broken.
    pub fn broken(rule: Rule) -> bool {
        BROKEN.get() == Some(rule)
    }
}

#[cfg(any(test, feature = "sabotage"))]
pub use switch::{break_rule, broken};

/// Rules can not be broken in this build.
#[cfg(not(any(test, feature = "sabotage")))]
pub const fn break_rule(_rule: Option<Rule>) {}

/// Whether `rule` is broken: never.
#[cfg(not(any(test, feature = "sabotage")))]
pub const fn broken(_rule: Rule) -> bool {
    false
}
