//! A router's place in the world: its machine, and what it is suffering from.

use super::agenda::Datagram;
use crate::base::rare::{POINTS, set_chances};
use crate::base::{Instant, NodeId, SessionId};
use crate::config::settings::Metric;
use crate::sim::check::hops::Carried;
use crate::sim::clock::Clock;
use crate::sim::fault::Disk;
use crate::sim::host::Host;
use crate::sim::router::{Rings, Router};
use crate::sim::workload::Side;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What the world did with a router since it started: its own counters must say the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sim) struct Handled {
    /// Datagrams handed to it.
    pub(in crate::sim) handed: u64,
    /// Datagrams taken from it, those that the kernel refused included.
    pub(in crate::sim) taken: u64,
    /// Datagrams that the kernel refused to send.
    pub(in crate::sim) refused: u64,
}

/// A session's application, and how many records went either way.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Attached {
    pub(in crate::sim) flow: usize,
    pub(in crate::sim) side: Side,
    /// Records that the session took.
    pub(in crate::sim) written: u64,
    /// Messages and notices that the application took.
    pub(in crate::sim) read: u64,
}

/// A router, its machine, and what it is suffering from.
pub(super) struct Slot {
    pub(super) router: Option<Router>,
    pub(super) clock: Clock,
    pub(super) generation: u64,
    /// When the timer on the agenda will fire; none if there is none.
    pub(super) timer_at: Option<Instant>,
    /// Sessions attached to flows.
    pub(super) sessions: BTreeMap<SessionId, Attached>,
    /// It stands still, or is busy, until then.
    pub(super) busy_until: Instant,
    pub(super) wakes: bool,
    /// Something arrived in this instant.
    pub(super) ready: bool,
    pub(super) inbox: VecDeque<Datagram>,
    pub(super) inbox_bytes: usize,
    /// How many times as slow as a fast one.
    pub(super) times: u32,
    pub(super) coalesce: Duration,
    pub(super) rare: f64,
    pub(super) newer: bool,
    pub(super) without: Vec<usize>,
    pub(super) metric: Option<Metric>,
    pub(super) queue: Option<usize>,
    /// It was told to end, and hands over what it has; and with what it starts when it has ended, if it is to.
    pub(super) is_stopping: bool,
    pub(super) returns: Option<Disk>,
    /// It has another configuration of service addresses than the others in its file, and runs with one.
    pub(super) unequal: bool,
    pub(super) runs_unequal: bool,
    /// Its service addresses, if it is in the group that shares them.
    pub(super) host: Option<Host>,
    /// When the host's turn on the agenda is.
    pub(super) host_at: Option<Instant>,
    /// Since it started.
    pub(super) handled: Handled,
    /// What its links carried, by neighbour, in the lives that are over.
    pub(super) buried: BTreeMap<NodeId, Carried>,
}

impl Slot {
    pub(super) fn new() -> Slot {
        Slot {
            router: None,
            clock: Clock::new(),
            generation: 0,
            timer_at: None,
            sessions: BTreeMap::new(),
            busy_until: Instant::ZERO,
            wakes: false,
            ready: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            times: 1,
            coalesce: Duration::ZERO,
            rare: 0.0,
            newer: false,
            without: Vec::new(),
            metric: None,
            queue: None,
            is_stopping: false,
            returns: None,
            unequal: false,
            runs_unequal: false,
            host: None,
            host_at: None,
            handled: Handled::default(),
            buried: BTreeMap::new(),
        }
    }

    /// Whether its router is held to bounds of time.
    pub(super) fn is_calm(&self) -> bool {
        let strained = self.router.as_ref().is_some_and(|router| router.rings != Rings::default());
        self.times <= 1 && self.coalesce.is_zero() && !strained
    }

    /// The router that goes on now takes rare branches as often as faults say, if any may be taken at all.
    pub(super) fn prepare_rare(&self, any: bool) {
        if any {
            set_chances([self.rare; POINTS]);
        }
    }
}
