//! How often each fault really struck.

use crate::base::rare::{POINTS, Point};
use serde::Serialize;

macro_rules! strikes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A fault that struck.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Struck { $($(#[doc = $doc])+ $variant,)+ }

        impl Struck {
            /// Every kind.
            pub const ALL: &[Struck] = &[$(Struck::$variant,)+];

            /// The name in tables.
            pub const fn name(self) -> &'static str {
                match self { $(Struck::$variant => $name,)+ }
            }
        }
    };
}

strikes! {
    /// A datagram was lost on its own.
    Loss = "loss",
    /// A datagram was lost in a burst.
    Burst = "burst loss",
    /// A datagram was late by jitter.
    Jitter = "jitter",
    /// A datagram was caught in a spike of delay.
    Spike = "delay spike",
    /// A datagram was overtaken.
    Reorder = "reordering",
    /// A datagram came twice.
    Duplicate = "duplication",
    /// A bit of a datagram was flipped.
    Corrupt = "bit corruption",
    /// A datagram was cut short.
    Truncate = "truncation",
    /// A datagram was too large for its path.
    Mtu = "path mtu",
    /// A datagram was too large for a path that is narrower than what every path must carry.
    Narrow = "path too narrow",
    /// A datagram waited for a limited rate.
    Rate = "rate limit",
    /// A datagram found the queue before a limited rate full.
    Overflow = "rate queue full",
    /// A datagram was swallowed by a wire that is cut in this direction alone.
    OneWay = "one-way cut",
    /// A datagram was swallowed by a wire that is cut both ways.
    Cut = "cut",
    /// A datagram was swallowed by a flapping wire.
    Flap = "flapping",
    /// The network fell into two parts.
    FullPartition = "full partition",
    /// Two groups lost each other, a third reached both.
    PartialPartition = "partial partition",
    /// One direction of the links between groups was lost, in a circle.
    NonTransitivePartition = "non-transitive partition",
    /// A router died with all it knew.
    Crash = "crash",
    /// A router came back; its clock went on.
    Restart = "restart",
    /// A router came back with a clock from long past: it has no disk and no battery.
    RestartLongPast = "restart, clock long past",
    /// A router came back with the time of an hour ago: what it wrote last was lost.
    RestartBehind = "restart, clock behind",
    /// A router came back with any date: what it wrote last was torn.
    RestartAnyDate = "restart, clock of any date",
    /// A router came back with another number of workers.
    OtherWorkers = "restart, other workers",
    /// A router stood still.
    Freeze = "freeze",
    /// A router became slow.
    Slow = "slowness",
    /// A datagram found a frozen or slow router's socket buffer full.
    SocketFull = "socket buffer full",
    /// A router started by a wall clock that was wrong: it had been so from the first, had jumped, or was set so.
    WrongWall = "start by a wrong clock",
    /// A router's monotonic clock began to run fast or slow.
    Drift = "clock drift",
    /// A timer fired late because timers are coalesced.
    CoalescedTimer = "coalesced timer",
    /// Commands of control waited for room in the ring.
    CommandRing = "command ring full",
    /// Reports of the shard waited for room in the ring.
    ReportRing = "report ring full",
    /// Messages for another worker waited for room in the ring.
    CrossingRing = "crossing ring full",
    /// The kernel took no datagram for now.
    SendAgain = "send: EAGAIN",
    /// The kernel had no buffer for a datagram.
    SendNoBuffers = "send: ENOBUFS",
    /// The kernel found a datagram too large for the interface.
    SendTooLarge = "send: EMSGSIZE",
    /// The kernel said that nothing listens at the other end.
    Refused = "send: ECONNREFUSED",
    /// A reload removed a link.
    LinkRemoved = "reload: link removed",
    /// A reload added a link.
    LinkAdded = "reload: link added",
    /// A reload changed a link's settings: it came down and up again.
    LinkReplaced = "reload: link replaced",
    /// A reload changed the metric.
    MetricChanged = "reload: metric",
    /// A datagram of a protocol version that its receiver does not speak.
    NewerDatagram = "newer datagram",
    /// A control message of a protocol that its receiver does not speak.
    NewerMessage = "newer message",
    /// A router was stopped and ended when it had handed over what it had.
    Stop = "clean stop",
    /// A router that had been stopped started as soon as it had ended, as in an upgrade.
    Upgrade = "stop and start",
    /// An operator ordered a set to be moved.
    OrderMove = "vip order: move",
    /// An operator drained a member.
    OrderDrain = "vip order: drain",
    /// An operator let a drained member have sets again.
    OrderUndrain = "vip order: undrain",
    /// An operator pinned a set to a member, or let go of it.
    OrderPin = "vip order: pin or unpin",
    /// An operator paused a set, or let it move again.
    OrderPause = "vip order: pause or resume",
    /// An operator had the sets spread.
    OrderBalance = "vip order: balance",
    /// A host lost an address that it held.
    AddressTaken = "vip address taken away",
    /// A host began to refuse addresses.
    HostRefuses = "vip refused by the kernel",
    /// A host's interface lost its carrier.
    CarrierLost = "vip carrier lost",
    /// A router slept through the end of its lease.
    LeaseLapsed = "vip lease ran out",
    /// A health check of a member began to fail.
    CheckFailed = "vip health check failed",
    /// Control was told of a rival for an address.
    Rival = "vip rival heard",
    /// A member started with another configuration than the others.
    Unequal = "vip configuration unequal",
    /// A member found another configuration than its own to rule.
    Overruled = "vip member overruled",
    /// A view of a group with sets that want a majority had none.
    Minority = "vip view without majority",
}

/// Counts of all faults, rare branches included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    struck: [u64; Struck::ALL.len()],
    /// Rare branches taken, in the order of [`Point::ALL`].
    pub rare: [u64; POINTS],
}

impl Ledger {
    /// Nothing struck.
    pub const EMPTY: Ledger = Ledger { struck: [0; Struck::ALL.len()], rare: [0; POINTS] };

    /// Rare branches were taken so often, and nothing else struck.
    pub const fn of_rare(rare: [u64; POINTS]) -> Ledger {
        Ledger { struck: Ledger::EMPTY.struck, rare }
    }

    /// Counts one.
    pub const fn count(&mut self, struck: Struck) {
        self.struck[struck as usize] += 1;
    }

    /// How often it struck.
    pub const fn get(&self, struck: Struck) -> u64 {
        self.struck[struck as usize]
    }

    /// Adds another ledger's counts.
    pub fn merge(&mut self, other: &Ledger) {
        self.struck.iter_mut().zip(other.struck).for_each(|(mine, theirs)| *mine += theirs);
        self.rare.iter_mut().zip(other.rare).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Every fault and its count.
    pub fn iter(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let faults = Struck::ALL.iter().map(|&struck| (struck.name().to_owned(), self.get(struck)));
        faults.chain(Point::ALL.iter().map(|&point| (format!("rare: {}", point.name()), self.rare[point as usize])))
    }
}

impl Serialize for Ledger {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}
