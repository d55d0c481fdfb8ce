//! What goes wrong, and when: the script of a run.

use super::conditions::Conditions;
use super::ledger::Struck;
use super::router::Rings;
use super::units::{millis, seconds};
use super::world::World;
use crate::base::Instant;
use crate::base::limits::MAX_WORKERS;
use crate::config::settings;
use crate::wire::admin::VipOrder;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a router that restarts finds of its former lives. The only thing that outlives a router today is its clock:
/// the epoch of its advertisements and the timestamps of its handshakes follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// Everything: the clock went on, right or wrong.
    Kept,
    /// Nothing: the clock starts at a date long past, as on a machine without a battery.
    Lost,
    /// What was written before the last time: the clock is behind its former life by an hour.
    LostWrite,
    /// Nonsense: the clock is off by years, this many days.
    TornWrite {
        /// Days, negative for the past.
        days: i32,
    },
}

/// Which links a partition takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partition {
    /// Two parts without a link between them.
    Full,
    /// Two groups lose each other, a third keeps both.
    Partial,
    /// Each of three groups hears the next and is not heard by it.
    NonTransitive,
}

/// What goes wrong with service addresses on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Somebody takes the addresses of a set away, if they are there.
    Taken {
        /// Which set.
        set: usize,
    },
    /// The kernel lets nothing be acquired, or lets it again.
    Refuses {
        /// Whether it refuses.
        on: bool,
    },
    /// The interface loses its carrier, or has it again.
    Carrier {
        /// Whether it has.
        up: bool,
    },
    /// A health check begins to fail, or passes again.
    Check {
        /// Which: that of the set with this number, or one beyond them, that of all sets.
        check: usize,
        /// Whether it passes.
        ok: bool,
    },
}

/// A metric, as scenario files write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Links.
    Hops,
    /// Half the round trip.
    Latency,
    /// Lost packets.
    Loss,
    /// Half the round trip plus what recovery costs.
    #[default]
    Expected,
}

impl From<Metric> for settings::Metric {
    fn from(metric: Metric) -> settings::Metric {
        match metric {
            Metric::Hops => settings::Metric::Hops,
            Metric::Latency => settings::Metric::Latency,
            Metric::Loss => settings::Metric::Loss,
            Metric::Expected => settings::Metric::Expected,
        }
    }
}

/// One thing that goes wrong, or is mended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// One direction of a wire changes.
    Wire {
        /// The sending end.
        from: usize,
        /// The receiving end.
        to: usize,
        /// What it is like from now on.
        conditions: Box<Conditions>,
    },
    /// One direction of a wire is cut.
    Cut {
        /// The sending end.
        from: usize,
        /// The receiving end.
        to: usize,
    },
    /// One direction of a wire is whole again.
    Mend {
        /// The sending end.
        from: usize,
        /// The receiving end.
        to: usize,
    },
    /// One direction of a wire becomes narrower than what every path must carry: small datagrams pass, so that its link
    /// lives, and full ones do not.
    Narrow {
        /// The sending end.
        from: usize,
        /// The receiving end.
        to: usize,
        /// Largest packet that passes, bytes with IP and UDP headers.
        mtu: usize,
    },
    /// One direction of a wire is as wide as before.
    Widen {
        /// The sending end.
        from: usize,
        /// The receiving end.
        to: usize,
    },
    /// Many directions of wires are cut at once.
    Partition {
        /// Of what shape.
        shape: Partition,
        /// The directions, sending end first.
        wires: Vec<(usize, usize)>,
    },
    /// Many directions of wires are whole again.
    Merge {
        /// The directions, sending end first.
        wires: Vec<(usize, usize)>,
    },
    /// A router dies with all it knew.
    Crash {
        /// Which.
        router: usize,
    },
    /// A router is stopped: it hands over what it has, says farewell, and is gone.
    Stop {
        /// Which.
        router: usize,
    },
    /// A dead router starts; one that is about to end, when it has.
    Restart {
        /// Which.
        router: usize,
        /// With what.
        disk: Disk,
    },
    /// A router that starts after this has so many workers, as when its configuration was changed.
    Workers {
        /// Which.
        router: usize,
        /// How many.
        count: usize,
    },
    /// A router stands still for a while.
    Freeze {
        /// Which.
        router: usize,
        /// How long, ms.
        #[serde(rename = "for", with = "millis")]
        length: Duration,
    },
    /// A router takes so many times as long for everything as a fast one (20 µs); at 1 it takes no time again.
    Slow {
        /// Which.
        router: usize,
        /// How many times.
        times: u32,
    },
    /// A router's wall clock jumps. A router looks at it when it starts: at instant zero this is the clock it starts with.
    ClockStep {
        /// Which.
        router: usize,
        /// By how many milliseconds.
        millis: i64,
    },
    /// A router's monotonic clock changes its pace.
    Drift {
        /// Which.
        router: usize,
        /// Parts per million by which it is too fast.
        ppm: i32,
    },
    /// A router's timers fire at multiples of this only.
    Coalesce {
        /// Which.
        router: usize,
        /// Of this, ms; zero for exact timers.
        #[serde(with = "millis")]
        to: Duration,
    },
    /// The rings between a router's control and its workers, or between its workers, are full, or not any more.
    Rings {
        /// Which.
        router: usize,
        /// The one down to the worker.
        commands: bool,
        /// The one up to control.
        reports: bool,
        /// Those between workers.
        #[serde(default)]
        crossings: bool,
    },
    /// A router reads a changed configuration.
    Reload {
        /// Which.
        router: usize,
        /// The neighbours to which it has no link in it.
        #[serde(default)]
        without: Vec<usize>,
        /// What paths are short in.
        #[serde(default)]
        metric: Metric,
        /// Most messages in the queue of each of its links; none for what it was at first. A link that changes in this
        /// comes down and up again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<usize>,
    },
    /// A router's rare branches are taken with this probability.
    Rare {
        /// Which.
        router: usize,
        /// How probable.
        chance: f64,
    },
    /// A router speaks a version of the protocol that nobody else knows, or the common one again.
    Newer {
        /// Which.
        router: usize,
        /// Whether it does.
        on: bool,
    },
    /// A router sends its neighbours a control message of a protocol that they do not know.
    NewerMessage {
        /// Which.
        router: usize,
    },
    /// Something happens to the service addresses of a router's host.
    Host {
        /// Which router.
        router: usize,
        /// What.
        trouble: Trouble,
    },
    /// A machine that is in no group answers for a set of service addresses, or does not any more.
    Rival {
        /// Which set.
        set: usize,
        /// Whether it does.
        on: bool,
    },
    /// A router that starts after this has another configuration of service addresses than the others, or the same again.
    Unequal {
        /// Which.
        router: usize,
        /// Whether it has another.
        on: bool,
    },
    /// An operator orders something about service addresses.
    Order {
        /// At which router.
        router: usize,
        /// What.
        order: VipOrder,
    },
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When, seconds from the start.
    #[serde(with = "seconds")]
    pub at: Instant,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}

impl Step {
    /// Whether it is a property of the machine that its router finds when it starts for the first time.
    pub(super) fn comes_before_start(&self) -> bool {
        self.at == Instant::ZERO && matches!(self.fault, Fault::ClockStep { .. })
    }
}

impl Fault {
    /// Lets it happen. What has happened already (a dead router dies) changes nothing and is not counted.
    pub fn strike(&self, world: &mut World) {
        match *self {
            Fault::Wire { from, to, ref conditions } => world.set_conditions(from, to, **conditions),
            Fault::Cut { from, to } => world.set_cut(from, to, true),
            Fault::Mend { from, to } => world.set_cut(from, to, false),
            Fault::Narrow { from, to, mtu } => world.set_narrow(from, to, Some(mtu)),
            Fault::Widen { from, to } => world.set_narrow(from, to, None),
            Fault::Partition { shape, ref wires } => {
                wires.iter().for_each(|&(from, to)| world.set_cut(from, to, true));
                world.count(match shape {
                    Partition::Full => Struck::FullPartition,
                    Partition::Partial => Struck::PartialPartition,
                    Partition::NonTransitive => Struck::NonTransitivePartition,
                });
            }
            Fault::Merge { ref wires } => wires.iter().for_each(|&(from, to)| world.set_cut(from, to, false)),
            Fault::Crash { router } => world.crash(router),
            Fault::Stop { router } => world.stop(router),
            Fault::Restart { router, disk } => world.restart(router, disk),
            Fault::Workers { router, count } => world.set_workers(router, count),
            Fault::Freeze { router, length } => world.freeze(router, length),
            Fault::Slow { router, times } => world.slow(router, times),
            Fault::ClockStep { router, millis } => world.step_clock(router, millis),
            Fault::Drift { router, ppm } => world.drift(router, ppm),
            Fault::Coalesce { router, to } => world.coalesce(router, to),
            Fault::Rings { router, commands, reports, crossings } => {
                world.fill_rings(router, Rings { commands, reports, crossings });
            }
            Fault::Reload { router, ref without, metric, queue } => {
                world.reload(router, without, metric.into(), queue);
            }
            Fault::Rare { router, chance } => world.set_rare(router, chance),
            Fault::Newer { router, on } => world.set_newer(router, on),
            Fault::NewerMessage { router } => world.send_newer_message(router),
            Fault::Host { router, trouble } => world.trouble_host(router, trouble),
            Fault::Rival { set, on } => world.set_rival(set, on),
            Fault::Unequal { router, on } => world.set_unequal(router, on),
            Fault::Order { router, ref order } => world.order(router, order),
        }
    }

    /// Whether routers and wires that it names exist among `routers` and `links`.
    pub(super) fn fits(&self, routers: usize, links: &[(usize, usize)]) -> bool {
        let wire = |from: usize, to: usize| links.contains(&(from.min(to), from.max(to)));
        match self {
            Fault::Wire { from, to, .. }
            | Fault::Cut { from, to }
            | Fault::Mend { from, to }
            | Fault::Narrow { from, to, .. }
            | Fault::Widen { from, to } => wire(*from, *to),
            Fault::Partition { wires, .. } | Fault::Merge { wires } => wires.iter().all(|&(from, to)| wire(from, to)),
            Fault::Workers { router, count } => *router < routers && (1..=MAX_WORKERS).contains(count),
            Fault::Rival { .. } => true,
            Fault::Crash { router }
            | Fault::Stop { router }
            | Fault::Unequal { router, .. }
            | Fault::Restart { router, .. }
            | Fault::Freeze { router, .. }
            | Fault::Slow { router, .. }
            | Fault::ClockStep { router, .. }
            | Fault::Drift { router, .. }
            | Fault::Coalesce { router, .. }
            | Fault::Rings { router, .. }
            | Fault::Reload { router, .. }
            | Fault::Rare { router, .. }
            | Fault::Newer { router, .. }
            | Fault::NewerMessage { router }
            | Fault::Host { router, .. }
            | Fault::Order { router, .. } => *router < routers,
        }
    }

    /// Whether it may keep these routers from agreeing, or their hosts from doing what was agreed.
    pub(super) fn disturbs(&self, routers: &[usize]) -> bool {
        let both = |from: &usize, to: &usize| routers.contains(from) && routers.contains(to);
        match self {
            Fault::Wire { from, to, .. }
            | Fault::Cut { from, to }
            | Fault::Mend { from, to }
            | Fault::Narrow { from, to, .. }
            | Fault::Widen { from, to } => both(from, to),
            Fault::Partition { wires, .. } | Fault::Merge { wires } => wires.iter().any(|(from, to)| both(from, to)),
            Fault::Workers { .. } | Fault::ClockStep { .. } | Fault::Rival { .. } | Fault::Unequal { .. } => false,
            Fault::Crash { router }
            | Fault::Stop { router }
            | Fault::Restart { router, .. }
            | Fault::Freeze { router, .. }
            | Fault::Slow { router, .. }
            | Fault::Drift { router, .. }
            | Fault::Coalesce { router, .. }
            | Fault::Rings { router, .. }
            | Fault::Reload { router, .. }
            | Fault::Rare { router, .. }
            | Fault::Newer { router, .. }
            | Fault::NewerMessage { router }
            | Fault::Host { router, .. }
            | Fault::Order { router, .. } => routers.contains(router),
        }
    }

    /// Whether a group hands over what it makes of it, so that nothing is without an owner for a moment.
    pub(super) const fn is_handed_over(&self) -> bool {
        matches!(self, Fault::Order { .. } | Fault::Stop { .. } | Fault::Host { trouble: Trouble::Check { .. }, .. })
    }
}
