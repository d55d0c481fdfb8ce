//! What is said between the protocol and the host's network: commands down, reports up, sets by their number.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// What the host is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostCommand {
    /// Hold the set, all of it, and announce it.
    Acquire {
        /// Which.
        set: usize,
        /// How long the owner before may still answer: its lease.
        wait: Duration,
    },
    /// Announce a set that is held, and answer for it again if it was mute.
    Announce {
        /// Which.
        set: usize,
    },
    /// Accept what comes for the set, but answer nobody who asks where it is, and announce it no more.
    Mute {
        /// Which.
        set: usize,
    },
    /// Hold the set no more.
    Release {
        /// Which.
        set: usize,
    },
    /// Hold nothing.
    ReleaseAll,
}

/// What became of it, and what the host noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostReport {
    /// The set is held and announced.
    Acquired {
        /// Which.
        set: usize,
    },
    /// The set is not held.
    Released {
        /// Which.
        set: usize,
    },
    /// The set could not be acquired: nothing of it is held.
    Failed {
        /// Which.
        set: usize,
        /// What the kernel said.
        why: String,
    },
    /// Another machine speaks for an address that is held here.
    Rival {
        /// Of which set.
        set: usize,
        /// Which address.
        address: IpAddr,
        /// The other machine, as far as it is known: its Ethernet address.
        who: String,
    },
    /// The set was held and is no more, though nobody here said so.
    Lost {
        /// Which.
        set: usize,
        /// What happened.
        why: String,
    },
    /// An interface of some set got or lost its carrier.
    Carrier {
        /// Which, by name.
        interface: String,
        /// Whether it has one.
        up: bool,
    },
}
