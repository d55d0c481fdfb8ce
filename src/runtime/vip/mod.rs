//! Virtual addresses on this host: executes what the protocol decides ([`HostCommand`]), and tells it what it must know
//! ([`HostReport`]). One thread, the keeper, does it; another, the attendant, runs health checks and hooks.
//!
//! ```text
//!   control ── commands ──▶ ┌──────── keeper ────────┐ ── addresses ──▶ rtnetlink          ┌─────── attendant ──────┐
//!      ▲  └── heartbeat ──▶ │ lease · sets · schedule │ ── lease ──────▶ nftables   ─jobs─▶ │ health checks · hooks  │
//!      │                    │                         │ ── announce ───▶ ARP, ND           └───────────┬────────────┘
//!      └──── reports ────── └───────── watch ─────────┘ ◀─ links, addresses, rivals                    │
//!      └──── verdicts ─────────────────────────────────────────────────────────────────────────────────┘
//! ```
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
//! 5. Nothing in here waits for a hook, a check or a neighbour.
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
//! | | Acquire | Announce | Mute | Release |
//! |---|---|---|---|---|
//! | nothing | wait, then add, announce, `Acquired` or `Failed` | – | – | `Released` |
//! | waiting (under the lease already) | wait as said last | – | – | `Released` |
//! | speaking | announce, `Acquired` | announce | stop announcing, answer nobody | take off, `Released` |
//! | mute | as Announce, `Acquired` | answer again, announce | – | take off, `Released` |
//!
//! # The heartbeat
//! Whoever runs the protocol calls [`Host::beat`] while it lives and the workers do, several times in each lease (a fifth
//! of it is good). The kernel's lease always ends one lease after the last beat, not after the last renewal.
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
//!
//! # What a machine may lack
//! `CAP_NET_ADMIN`, `CAP_NET_RAW`: [`Host::start`] refuses. nftables: it goes on without promise 2 for a process that is
//! killed or stopped, and mute sets still answer; [`Host::degraded`] says so.

mod addresses;
mod announce;
mod attendant;
mod configured;
mod health;
mod hooks;
mod keeper;
mod lease;
mod pulse;
#[cfg(test)]
mod tests;
mod watch;

pub use crate::config::settings::Question;
pub(super) use configured::configured;
pub use health::Check;
pub use hooks::{Event, Hook, User};
pub use pulse::Pulse;

use super::capabilities;
use super::clock::Clock;
use super::doorbell::Doorbell;
use super::ring::{Receiver, Sender, ring};
use crate::base::Instant;
use crate::control::{HostCommand, HostReport};
use addresses::Addresses;
use announce::Announcer;
use attendant::Attendant;
use keeper::{Keeper, Parts};
use lease::Lease;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
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
    /// The keeper's real-time priority, if it is to have one.
    pub realtime: Option<u8>,
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

/// What all threads of a host see.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// When control lived last, nanoseconds of the clock.
    beat: AtomicU64,
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
    shared: Arc<Shared>,
    bells: [Arc<Doorbell>; 2],
    threads: Vec<JoinHandle<()>>,
    degraded: Vec<String>,
    /// Nobody else on this host may have it.
    _lock: UnixDatagram,
}

impl Host {
    /// Removes what an earlier life left behind, and begins with nothing held. In the calling thread's network namespace,
    /// with its capabilities. `bell` rings for reports and verdicts.
    pub fn start(settings: Settings, clock: Clock, bell: &Arc<Doorbell>) -> io::Result<Host> {
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
        let (lease, degraded) = match Lease::open(clock, present) {
            Ok(lease) => {
                let weakness = lease.weakness().map(str::to_owned);
                (Some(lease), Vec::from_iter(weakness))
            }
            Err(error) => (None, vec![without_lease(&error)]),
        };
        degraded.iter().for_each(|what| tracing::warn!("{what}"));
        let (shared, bells) = (Arc::new(Shared::default()), [Arc::new(Doorbell::new()?), Arc::new(Doorbell::new()?)]);
        let (commands, orders) = ring(SLOTS, Arc::clone(&bells[0]));
        let (reporting, reports) = ring(SLOTS, Arc::clone(bell));
        let (jobs, work) = ring(SLOTS, Arc::clone(&bells[1]));
        let (judging, verdicts) = ring(SLOTS, Arc::clone(bell));
        let care = (settings.checks.clone(), settings.hook.clone(), settings.user);
        let attendant = Attendant::new(clock, care, Arc::clone(&bells[1]), (work, judging), Arc::clone(&shared))?;
        let parts = Parts { clock, settings, interfaces, addresses: door, lease, announcer, watch };
        let keeper = Keeper::new(parts, Arc::clone(&bells[0]), (orders, reporting, jobs), Arc::clone(&shared))?;
        let threads = vec![
            std::thread::Builder::new().name("sinew-vip".into()).spawn(move || keeper.run())?,
            std::thread::Builder::new().name("sinew-vip-care".into()).spawn(move || attendant.run())?,
        ];
        Ok(Host {
            clock,
            commands,
            lapse_seen: false,
            reports,
            verdicts,
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

    /// Whether there is neither a report nor a verdict.
    pub fn is_quiet(&self) -> bool {
        self.reports.is_empty() && self.verdicts.is_empty()
    }

    /// Control lives, and so do the workers.
    pub fn beat(&self, now: Instant) {
        self.shared.beat.store(now.as_nanos(), Ordering::Release);
    }

    /// Whether the keeper has ended, though nobody said so: then its addresses are silent, or will be within one lease.
    pub fn is_dead(&self) -> bool {
        self.commands.is_abandoned()
    }

    /// What is not promised on this machine, and why.
    pub fn degraded(&self) -> &[String] {
        &self.degraded
    }

    /// What was counted and how things are, for people and tools.
    pub fn figures(&self) -> serde_json::Value {
        let mut figures = serde_json::to_value(self.stats()).expect("a struct of numbers");
        figures["degraded"] = (!self.degraded.is_empty()).into();
        figures["dead"] = self.is_dead().into();
        figures
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
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
