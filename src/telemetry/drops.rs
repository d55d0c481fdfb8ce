//! Every reason for which a packet or message is dropped, described once.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why something was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// Every reason.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)+];

            /// The name in text, JSON and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence for operators.
            pub const fn description(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

drop_reasons! {
    /// A datagram from a stranger or of an unknown kind.
    Stranger = "stranger",
    /// A datagram, frame or message that does not follow its format.
    Malformed = "malformed",
    /// A sealed packet whose tag is wrong.
    Unauthentic = "unauthentic",
    /// A sealed packet that was received before, or is older than the replay window.
    Replayed = "replayed",
    /// A datagram that came by a socket of a link that was closed meanwhile, as when its address changed.
    SocketClosed = "socket-closed",
    /// A sealed packet for a link that is closing, or whose keys were just given up.
    LinkClosing = "link-closing",
    /// A sealed packet for keys that do not exist or have expired.
    NoKeys = "no-keys",
    /// A handshake message that was refused: bad MAC, unknown key, old timestamp or over the rate bound.
    HandshakeRefused = "handshake-refused",
    /// A message whose hops ran out.
    TtlExpired = "ttl-expired",
    /// A message to a router that no route leads to.
    NoRoute = "no-route",
    /// A message to a port that no session holds.
    NoSession = "no-session",
    /// A message that found a queue full: of a link, of what came over a link, or of a session. A reliable one is
    /// repeated by the sender that still holds it.
    QueueFull = "queue-full",
    /// A message that found the queue to another worker of this router full: one worker sends more than the other takes.
    /// A reliable one is repeated by its sender.
    CrossingFull = "crossing-full",
    /// A best-effort message that waited longer in its link's queue than the delay bound allows.
    QueueDelay = "queue-delay",
    /// A message that found no free packet in the pool.
    PoolExhausted = "pool-exhausted",
    /// A message that was waiting for a link that went down, and no other path was left.
    LinkDown = "link-down",
    /// A message or segment received twice.
    Duplicate = "duplicate",
    /// A fragment whose datagram was given up: a sibling is lost, or too many are incomplete. Also a reliable flow that
    /// broke in the middle of a message.
    Incomplete = "incomplete",
    /// A closed stream, given up to make room though its peer might still have taken what was kept for it.
    Abandoned = "abandoned",
    /// A segment that would open a flow while no more flows can be remembered; its sender repeats it.
    FlowRefused = "flow-refused",
    /// A message for an application that does not read.
    ReceiverSlow = "receiver-slow",
    /// A message that came over a link with this very router as its source: forged, or caught in a passing loop.
    Spoofed = "spoofed",
    /// A datagram that the kernel refused to send.
    SendFailed = "send-failed",
    /// A record from an application that does not follow the client protocol.
    BadRecord = "bad-record",
    /// Nonsense that an application wrote into the memory it shares with its router; its session ended.
    BadMemory = "bad-memory",
    /// A control message that could not be taken in: ring full, unknown or badly signed.
    ControlRefused = "control-refused",
}

/// A count for every reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Drops {
        Drops([0; DropReason::ALL.len()])
    }
}

impl Drops {
    /// Counts one.
    pub const fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How many were dropped for `reason`.
    pub const fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were dropped in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds another count.
    pub fn merge(&mut self, other: &Drops) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The reasons that happened, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.get(reason))).filter(|&(_, count)| count > 0)
    }
}

impl serde::Serialize for Drops {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(reason, count)| (reason.name(), count)))
    }
}

impl<'de> serde::Deserialize<'de> for Drops {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Drops, D::Error> {
        let named = std::collections::BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut drops = Drops::default();
        for reason in DropReason::ALL {
            drops.0[*reason as usize] = named.get(reason.name()).copied().unwrap_or(0);
        }
        Ok(drops)
    }
}
