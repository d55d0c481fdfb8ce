//! Virtual addresses on this host: executes what the protocol decides ([`HostCommand`]), and tells it what it must know
//! ([`HostReport`]). One thread, the keeper, does it; another, the attendant, runs health checks and hooks; where flows are
//! handed over with a set, a third one, the tracker, sees to it.
//!
//! ```text
//!   control ── commands ──▶ ┌──────── keeper ────────┐ ── addresses ──▶ rtnetlink          ┌─────── attendant ──────┐
//!      ▲  └── heartbeat ──▶ │ lease · sets · schedule │ ── lease ──────▶ nftables   ─jobs─▶ │ health checks · hooks  │
//!      │                    │                         │ ── announce ───▶ ARP, ND           └───────────┬────────────┘
//!      └──── reports ────── └───────── watch ─────────┘ ◀─ links, addresses, rivals                    │
//!      ├──── verdicts ───────────────── │ ▲ ───────────────────────────────────────────────────────────┘
//!      │                        prepare ▼ │ prepared
//!      └◀── messages of members ──▶ tracker ◀── flows ──▶ ctnetlink
//! ```
//! Beside them, in control's own thread, connections to the other members tell when one of their processes ends
//! (`lifelines.rs`).
//!
//! # What it promises
//! 1. **All of a set or nothing of it**, whatever fails in between, on however many interfaces.
//! 2. **Who has lost the right to an address is silent within one [`Settings::lease`]** of control's last heartbeat, though
//!    the process be killed, stopped or starved: the kernel sees to it (`lease.rs`), also that a process which wakes up
//!    after that says nothing. It has then lost all its sets, also those it was waiting for, and is told so by
//!    [`HostReport::Lapsed`]; what control said before it heard of that, or a lease ago, gives it none back.
//! 3. **Nothing is left behind**: a clean end takes everything off; what a killed process left is silent, and is taken off
//!    at the next start. Two of these on one host would take off each other's: the second does not start.
//! 4. **Make before break**: a set that is mute accepts what comes for it, and nobody learns any more that it is here.
//! 5. Nothing in here waits for a hook, a check or a neighbour; a set for its flows, if it was told to, and no longer than
//!    `tracker.rs` says.
//!
//! # States of a set
//! ```text
//!              Acquire                  wait is over, all added
//!   nothing ───────────▶ waiting ─────────────────────────────▶ speaking ──── Mute ────▶ mute
//!      ▲                    │  │ could not: Failed                 │  ▲                   │ │
//!      │◀── Release ────────┘  │                                  │  └─ Announce, Acquire ┘ │
//!      │◀──────────────────────┘                                  │                         │
//!      └◀── Release · an address or the lease is lost: Lost ──────┴─────────────────────────┘
//! ```
//! Added is not speaking at once: the kernel takes a moment before it takes in what comes for an IPv6 address, and only then
//! the set is announced and reported.
//!
//! | | Acquire | Announce | Mute | Release |
//! |---|---|---|---|---|
//! | nothing | wait, then add, announce, `Acquired` or `Failed` | – | – | `Released` |
//! | waiting (under the lease already) | wait as said last | – | – | `Released` |
//! | speaking | announce, `Acquired` | announce | stop announcing, answer nobody | take off, `Released` |
//! | mute | as Announce, `Acquired` | answer again, announce | – | take off, `Released` |
//!
//! # The heartbeat
//! Whoever runs the protocol calls [`Host::beat`] while it lives, several times in each lease (a fifth of it is good), and
//! has the workers give signs of their own. The kernel's lease always ends one lease after the oldest of the last ones, not
//! after the last renewal. Who finds that it stood still says that first ([`Host::woke`]): a clock of the kernel's that ticks
//! late gives it nothing back.
//!
//! # Bounds
//! | what | bound | when it is full |
//! |---|---|---|
//! | sets, addresses | [`MAX_SETS`], [`MAX_ADDRESSES`] | refused at start |
//! | commands | [`SLOTS`] | given back |
//! | reports | [`SLOTS`], and one for each set beside | no command is taken; rivals are left out, and counted |
//! | rivals | one report for an address in 20 ms | left out |
//! | announcements | 64 in a turn | the rest in the next |
//! | verdicts | [`SLOTS`] | of each check the latest is kept |
//! | hooks | see `hooks.rs` | left out, and counted |
//! | flows | see `tracker.rs` | left out, and counted |
//!
//! # What a machine may lack
//! `CAP_NET_ADMIN`, `CAP_NET_RAW`: [`Host::start`] refuses. nftables: it goes on without promise 2 for a process that is
//! killed or stopped, and mute sets still answer; [`Host::degraded`] says so.

mod addresses;
mod announce;
mod askers;
mod attendant;
mod configured;
mod conntrack;
mod flows;
mod health;
mod holding;
mod hooks;
mod keeper;
mod known;
mod lease;
pub(super) mod lifelines;
mod pulse;
mod scope;
mod teller;
#[cfg(test)]
mod tests;
mod tracker;
mod watch;

pub use crate::config::settings::Question;
pub(super) use configured::configured;
pub use health::Check;
pub use hooks::{Event, Hook, User};
pub use known::FlowDrops;
pub use pulse::{Pulse, Sign};

use super::capabilities;
use super::clock::Clock;
use super::doorbell::Doorbell;
use super::machine::scheduling::Standing;
use super::ring::{Receiver, Sender, ring};
use crate::base::{Instant, NodeId};
use crate::control::{HostCommand, HostReport};
use addresses::Addresses;
use announce::Announcer;
use attendant::Attendant;
use keeper::{Keeper, Parts, Preparing, Rings};
use lease::Lease;
use scope::Carried;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tracker::{Ends, Prepare, Tracker};
use watch::Watch;

/// Most sets.
pub const MAX_SETS: usize = 1024;
/// Most addresses of all sets.
pub const MAX_ADDRESSES: usize = 1024;
/// Messages each ring holds.
pub const SLOTS: usize = 1024;
/// Shortest lease: the kernel counts in ticks of up to 10 ms.
pub const SHORTEST_LEASE: Duration = Duration::from_millis(20);

/// A virtual address and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface, by name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

/// Addresses that move as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What hooks and logs call it.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// They are a router's: advertisements say so.
    pub router: bool,
    /// Its flows are handed over with it: those that the kernel tracks and the next owner could carry on.
    pub conntrack: bool,
}

/// What a host is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sets, by their number.
    pub sets: Vec<Set>,
    /// How long the addresses may speak after control's last heartbeat.
    pub lease: Duration,
    /// Time between two announcements of what is held long since.
    pub refresh: Duration,
    /// How the keeper is scheduled.
    pub standing: Standing,
    /// Health checks, by their number.
    pub checks: Vec<Check>,
    /// What runs when a set comes or goes.
    pub hook: Option<Hook>,
    /// Who runs commands of checks and hooks; the router's own user if none.
    pub user: Option<User>,
}

/// What a health check has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which check.
    pub check: usize,
    /// Whether all is well.
    pub ok: bool,
}

/// What the keeper is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Command(HostCommand),
    /// Control has heard that the lease ran out: what follows it says in the light of that.
    LapseSeen,
}

/// A message for the hosts of other members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// For whom; for all if for none.
    pub to: Option<NodeId>,
    /// The message ([`wire::flows`](crate::wire::flows)).
    pub bytes: Box<[u8]>,
}

/// A message of another member's host.
#[derive(Debug)]
struct Heard {
    from: NodeId,
    /// The sets that it holds or hands over, as all have agreed.
    holds: Vec<usize>,
    bytes: Box<[u8]>,
}

/// An error that the system has no number for.
const UNNUMBERED: i32 = -1;

/// What all threads of a host see.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// By set: whether it is held, mute or not. Only where there is a tracker.
    held: Vec<AtomicBool>,
    /// When control lived last, nanoseconds of the clock.
    beat: AtomicU64,
    /// When control last found that it had stood still for longer than the lease, nanoseconds of the clock.
    woke: AtomicU64,
    /// When each worker lived last.
    workers: Vec<Sign>,
    renewals: AtomicU64,
    renewals_failed: AtomicU64,
    slowest_renewal: AtomicU64,
    lapses: AtomicU64,
    rebuilt: AtomicU64,
    announced: AtomicU64,
    announcements_failed: AtomicU64,
    rivals: AtomicU64,
    reports_left_out: AtomicU64,
    hooks_left_out: AtomicU64,
    hooks_failed: AtomicU64,
    flows_told: AtomicU64,
    flows_known: AtomicU64,
    flows_received: AtomicU64,
    flows_created: AtomicU64,
    flows_refused: AtomicU64,
    flows_deleted: AtomicU64,
    /// In the order of [`FlowDrops`].
    flow_drops: [AtomicU64; 3],
    flows_left_out: AtomicU64,
    flows_malformed: AtomicU64,
    flow_messages: AtomicU64,
    flow_messages_left_out: AtomicU64,
    flow_overflows: AtomicU64,
    flow_waits_over: AtomicU64,
    flow_failures: AtomicU64,
    slowest_flows: AtomicU64,
    /// The system's number for why flows are not handed over at the moment; [`UNNUMBERED`] if it has none, 0 if they are.
    flows_failed: AtomicI32,
}

impl Shared {
    /// Flows are not handed over for this reason, or are again.
    fn say_failed(&self, why: Option<&io::Error>) {
        let number = why.map_or(0, |error| error.raw_os_error().unwrap_or(UNNUMBERED));
        self.flows_failed.store(number, Ordering::Relaxed);
    }

    /// Why flows are not handed over at the moment, for people.
    fn failed(&self) -> Option<String> {
        let why = match self.flows_failed.load(Ordering::Relaxed) {
            0 => return None,
            UNNUMBERED => "the log says why".to_owned(),
            number => io::Error::from_raw_os_error(number).to_string(),
        };
        Some(format!(
            "the kernel's connection tracking failed ({why}), which is tried again every minute or more often: until it is \
             well, sets with conntrack = true are handed over without their flows"
        ))
    }
}

/// Counts.
fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// What a host counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Times the kernel's lease was prolonged.
    pub renewals: u64,
    /// Times the kernel refused that for other reasons than that it had run out.
    pub renewals_failed: u64,
    /// The longest that one took, microseconds.
    pub slowest_renewal_us: u64,
    /// Times the lease ran out while something was held.
    pub lapses: u64,
    /// Times the kernel's table was made again.
    pub rebuilt: u64,
    /// Announcements sent, one for each address.
    pub announced: u64,
    /// Announcements the kernel refused.
    pub announcements_failed: u64,
    /// Packets of others that spoke for an address held here.
    pub rivals: u64,
    /// Reports of rivals that control had no room for.
    pub reports_left_out: u64,
    /// Hooks that too many others were waiting before.
    pub hooks_left_out: u64,
    /// Hooks that could not be started, failed, or took too long.
    pub hooks_failed: u64,
    /// Flows through this host that the other members know of now.
    pub flows_told: u64,
    /// Flows through other members that are known here now.
    pub flows_known: u64,
    /// What other members said of flows, one for each flow each time.
    pub flows_received: u64,
    /// Flows that the kernel was told of with a set.
    pub flows_created: u64,
    /// Flows that the kernel refused.
    pub flows_refused: u64,
    /// Flows that the kernel was told to forget, because they ended while their set came here.
    pub flows_deleted: u64,
    /// What was not believed of what other members said of flows, by reason.
    pub flow_drops: FlowDrops,
    /// Flows that were not told, or not kept, for want of room.
    pub flows_left_out: u64,
    /// Messages about flows that do not follow their format.
    pub flows_malformed: u64,
    /// Messages about flows sent, to all members or to one.
    pub flow_messages: u64,
    /// Messages about flows for which a ring had no room, to this host's control or from it.
    pub flow_messages_left_out: u64,
    /// Times that the kernel had no room for what it had to say of flows.
    pub flow_overflows: u64,
    /// Sets that were acquired before their former owner had told the last of their flows, or the kernel had been told.
    pub flow_waits_over: u64,
    /// Times that the kernel's connection tracking failed, and was opened anew later.
    pub flow_failures: u64,
    /// The longest that it took to tell the kernel of the flows of what was acquired, microseconds.
    pub slowest_flows_us: u64,
}

/// What members' hosts say to each other.
#[derive(Debug)]
struct Messages {
    said: Receiver<Said>,
    heard: Sender<Heard>,
}

/// The host's side of virtual addresses, at work. Dropping it takes all of them off.
#[derive(Debug)]
pub struct Host {
    clock: Clock,
    /// With the time at which each was given.
    commands: Sender<(Instant, Order)>,
    /// The keeper is still to be told that control knows of a lapse.
    lapse_seen: bool,
    reports: Receiver<HostReport>,
    verdicts: Receiver<Verdict>,
    messages: Option<Messages>,
    shared: Arc<Shared>,
    bells: [Arc<Doorbell>; 3],
    threads: Vec<JoinHandle<()>>,
    degraded: Vec<String>,
    /// Nobody else on this host may have it.
    _lock: UnixDatagram,
}

impl Host {
    /// Removes what an earlier life left behind, and begins with nothing held. In the calling thread's network namespace,
    /// with its capabilities. `workers`: those without whose signs of life nothing is answered. `bell` rings for reports and
    /// verdicts.
    pub fn start(settings: Settings, clock: Clock, workers: Vec<Sign>, bell: &Arc<Doorbell>) -> io::Result<Host> {
        let addresses = settings.check()?;
        let lock = lock()?;
        let mut door = Addresses::open()?;
        // Before the table that keeps them silent is made anew.
        let strays = door.sweep(&addresses)?;
        if !strays.is_empty() {
            tracing::warn!(?strays, "virtual addresses of an earlier life were taken off");
        }
        let watch = Watch::open(&addresses).map_err(|error| needing("CAP_NET_RAW", &error))?;
        let announcer = Announcer::open().map_err(|error| needing("CAP_NET_RAW", &error))?;
        let interfaces = settings.interfaces();
        let present = interfaces.iter().filter(|name| watch.named(name).is_some()).cloned().collect();
        let (lease, mut degraded) = match Lease::open(clock, present) {
            Ok(lease) => {
                let weakness = lease.weakness().map(str::to_owned);
                (Some(lease), Vec::from_iter(weakness))
            }
            Err(error) => (None, vec![without_lease(&error)]),
        };
        let held = settings.sets.iter().map(|_| AtomicBool::new(false)).collect();
        let shared = Arc::new(Shared { held, workers, ..Shared::default() });
        let bells = [Arc::new(Doorbell::new()?), Arc::new(Doorbell::new()?), Arc::new(Doorbell::new()?)];
        let tracking = match track(&settings, clock, [&bells[0], &bells[2], bell], &shared) {
            Ok(tracking) => tracking,
            Err(error) => {
                degraded.push(without_flows(&error));
                None
            }
        };
        degraded.iter().for_each(|what| tracing::warn!("{what}"));
        let (tracker, preparing, messages) = match tracking {
            Some((tracker, preparing, messages)) => (Some(tracker), Some(preparing), Some(messages)),
            None => (None, None, None),
        };
        let (commands, orders) = ring(SLOTS, Arc::clone(&bells[0]));
        let (reporting, reports) = ring(SLOTS, Arc::clone(bell));
        let (jobs, work) = ring(SLOTS, Arc::clone(&bells[1]));
        let (judging, verdicts) = ring(SLOTS, Arc::clone(bell));
        let care = (settings.checks.clone(), settings.hook.clone(), settings.user);
        let attendant = Attendant::new(clock, care, Arc::clone(&bells[1]), (work, judging), Arc::clone(&shared))?;
        let parts = Parts { clock, settings, interfaces, addresses: door, lease, announcer, watch };
        let rings = Rings { commands: orders, reports: reporting, jobs, preparing };
        let keeper = Keeper::new(parts, Arc::clone(&bells[0]), rings, Arc::clone(&shared))?;
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let mut threads = vec![
            thread("sinew-vip").spawn(move || keeper.run())?,
            thread("sinew-vip-care").spawn(move || attendant.run())?,
        ];
        if let Some(tracker) = tracker {
            threads.push(thread("sinew-vip-flow").spawn(move || tracker.run())?);
        }
        Ok(Host {
            clock,
            commands,
            lapse_seen: false,
            reports,
            verdicts,
            messages,
            shared,
            bells,
            threads,
            degraded,
            _lock: lock,
        })
    }

    /// Has a command executed; gives it back if too many wait.
    pub fn command(&mut self, command: HostCommand) -> Result<(), HostCommand> {
        let now = self.clock.now();
        if self.lapse_seen {
            self.lapse_seen = self.commands.push((now, Order::LapseSeen)).is_err();
        }
        match self.lapse_seen {
            true => Err(command),
            false => self.commands.push((now, Order::Command(command))).map_err(|_| command),
        }
    }

    /// The next report.
    pub fn report(&mut self) -> Option<HostReport> {
        self.reports.pop().inspect(|report| self.lapse_seen |= *report == HostReport::Lapsed)
    }

    /// The next verdict of a health check.
    pub fn verdict(&mut self) -> Option<Verdict> {
        self.verdicts.pop()
    }

    /// The next message for the hosts of other members.
    pub fn said(&mut self) -> Option<Said> {
        self.messages.as_mut()?.said.pop()
    }

    /// The host of another member, which as all have agreed holds these sets or hands them over, said something.
    pub fn hear(&mut self, from: NodeId, holds: Vec<usize>, bytes: Box<[u8]>) {
        let Some(messages) = &mut self.messages else { return };
        if messages.heard.push(Heard { from, holds, bytes }).is_err() {
            add(&self.shared.flow_messages_left_out, 1);
        }
    }

    /// Whether there is neither a report nor a verdict nor a message.
    pub fn is_quiet(&self) -> bool {
        let silent = self.messages.as_ref().is_none_or(|messages| messages.said.is_empty());
        self.reports.is_empty() && self.verdicts.is_empty() && silent
    }

    /// Control found then that it had stood still for longer than the lease: what it said before is void, and what is held
    /// since before is lost, as [`HostReport::Lapsed`] says. It is told before [`Host::beat`].
    pub fn woke(&self, at: Instant) {
        self.shared.woke.fetch_max(at.as_nanos(), Ordering::Release);
    }

    /// Control lives.
    pub fn beat(&self, now: Instant) {
        self.shared.beat.store(now.as_nanos(), Ordering::Release);
    }

    /// Whether the keeper has ended, though nobody said so: then its addresses are silent, or will be within one lease.
    pub fn is_dead(&self) -> bool {
        self.commands.is_abandoned()
    }

    /// What else this machine lacks, as it is said in [`Host::degraded`].
    pub fn lacks(&mut self, what: impl IntoIterator<Item = String>) {
        self.degraded.extend(what);
    }

    /// What is not promised on this machine, or not at the moment, and why.
    pub fn degraded(&self) -> Vec<String> {
        self.degraded.iter().cloned().chain(self.shared.failed()).collect()
    }

    /// What was counted and how things are, for people and tools.
    pub fn figures(&self) -> serde_json::Value {
        let mut figures = serde_json::to_value(self.stats()).expect("a struct of numbers");
        figures["degraded"] = (!self.degraded().is_empty()).into();
        figures["dead"] = self.is_dead().into();
        figures
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        let [unrouted, own, foreign] = shared.flow_drops.each_ref().map(read);
        Stats {
            renewals: read(&shared.renewals),
            renewals_failed: read(&shared.renewals_failed),
            slowest_renewal_us: read(&shared.slowest_renewal) / 1000,
            lapses: read(&shared.lapses),
            rebuilt: read(&shared.rebuilt),
            announced: read(&shared.announced),
            announcements_failed: read(&shared.announcements_failed),
            rivals: read(&shared.rivals),
            reports_left_out: read(&shared.reports_left_out),
            hooks_left_out: read(&shared.hooks_left_out),
            hooks_failed: read(&shared.hooks_failed),
            flows_told: read(&shared.flows_told),
            flows_known: read(&shared.flows_known),
            flows_received: read(&shared.flows_received),
            flows_created: read(&shared.flows_created),
            flows_refused: read(&shared.flows_refused),
            flows_deleted: read(&shared.flows_deleted),
            flow_drops: FlowDrops { unrouted, own, foreign },
            flows_left_out: read(&shared.flows_left_out),
            flows_malformed: read(&shared.flows_malformed),
            flow_messages: read(&shared.flow_messages),
            flow_messages_left_out: read(&shared.flow_messages_left_out),
            flow_overflows: read(&shared.flow_overflows),
            flow_waits_over: read(&shared.flow_waits_over),
            flow_failures: read(&shared.flow_failures),
            slowest_flows_us: read(&shared.slowest_flows) / 1000,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.bells.iter().for_each(|bell| bell.ring_always());
        for thread in self.threads.drain(..) {
            // It has said why on its way.
            let _ = thread.join();
        }
    }
}

impl Settings {
    /// All addresses, if everything is within its bounds.
    fn check(&self) -> io::Result<Vec<IpAddr>> {
        let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let addresses: Vec<IpAddr> =
            self.sets.iter().flat_map(|set| &set.addresses).map(|placed| placed.address).collect();
        if self.sets.len() > MAX_SETS || addresses.len() > MAX_ADDRESSES {
            return refuse(format!("more than {MAX_SETS} sets or {MAX_ADDRESSES} virtual addresses"));
        }
        if BTreeSet::from_iter(&addresses).len() < addresses.len() {
            return refuse("a virtual address is there twice".into());
        }
        if self.lease < SHORTEST_LEASE {
            return refuse(format!("a lease of {:?}: the kernel can do {SHORTEST_LEASE:?}", self.lease));
        }
        if !capabilities::has(capabilities::NET_ADMIN) {
            return Err(needing("CAP_NET_ADMIN", &io::ErrorKind::PermissionDenied.into()));
        }
        Ok(addresses)
    }

    /// The interfaces, each once.
    fn interfaces(&self) -> Vec<String> {
        let names = self.sets.iter().flat_map(|set| &set.addresses).map(|placed| placed.interface.clone());
        BTreeSet::from_iter(names).into_iter().collect()
    }
}

fn needing(capability: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("virtual addresses need {capability}: {error}"))
}

fn without_lease(error: &io::Error) -> String {
    format!(
        "the kernel enforces no lease ({error}; nf_tables with netdev chains is needed): a router that is killed or \
         stopped goes on answering for its virtual addresses, and one that hands them over answers until they are gone"
    )
}

/// What hands flows over, if a set says so: the thread's state, the keeper's ends to it, and control's.
fn track(
    settings: &Settings,
    clock: Clock,
    [keeper, tracker, control]: [&Arc<Doorbell>; 3],
    shared: &Arc<Shared>,
) -> io::Result<Option<(Tracker, Preparing, Messages)>> {
    let sets = settings.sets.iter().enumerate().filter(|(_, written)| written.conntrack);
    let carried = sets.map(|(set, Set { addresses, router, .. })| Carried {
        set,
        addresses: addresses.iter().map(|placed| placed.address).collect(),
        router: *router,
    });
    let carried: Vec<Carried> = carried.collect();
    if carried.is_empty() {
        return Ok(None);
    }
    let (prepare, orders) = ring::<Prepare>(SLOTS, Arc::clone(tracker));
    let (telling, prepared) = ring(SLOTS, Arc::clone(keeper));
    let (heard, hearing) = ring(SLOTS, Arc::clone(tracker));
    let (saying, said) = ring(SLOTS, Arc::clone(control));
    let ends = Ends { orders, prepared: telling, heard: hearing, said: saying };
    let state = Tracker::open(clock, carried, Arc::clone(tracker), ends, Arc::clone(shared))?;
    let preparing = Preparing { prepare, prepared, bell: Arc::clone(tracker) };
    Ok(Some((state, preparing, Messages { said, heard })))
}

fn without_flows(error: &io::Error) -> String {
    format!(
        "the kernel's connection tracking cannot be used ({error}; nf_conntrack and its netlink are needed): sets with \
         conntrack = true are handed over without their flows, and a stateful packet filter or translation ends those"
    )
}

/// A name that one process in a network namespace can have, and that is free as soon as that process ends.
fn lock() -> io::Result<UnixDatagram> {
    let name = SocketAddr::from_abstract_name("sinew-vip")?;
    UnixDatagram::bind_addr(&name).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            io::Error::new(error.kind(), "another router on this host looks after virtual addresses")
        }
        _ => error,
    })
}
