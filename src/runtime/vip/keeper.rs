//! The keeper: the thread that holds the sets.
//!
//! A turn does a bounded amount of each thing, the lease first, and again after each command; then it sleeps until
//! something comes or the soonest of its deadlines.

use super::super::clock::Clock;
use super::super::doorbell::Doorbell;
use super::super::ring::{RETRY, Receiver, Sender};
use super::super::sys;
use super::addresses::{Addresses, Placed};
use super::announce::{Announcer, Schedule};
use super::holding::{Held, Holding, Settling, Waiting};
use super::hooks::{Event, Job};
use super::lease::{Lease, Renewal};
use super::tracker::{OVERDUE, Prepare, Ticket};
use super::watch::{Seen, Watch};
use super::{Order, Set, Settings, Shared, add};
use crate::base::{Instant, NodeId};
use crate::control::{HostCommand, HostReport};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Commands taken before other things have their turn.
const COMMANDS: usize = 16;
/// Announcements sent before other things have their turn.
const ANNOUNCEMENTS: usize = 64;
/// Renewals in the time of one lease.
const RENEWALS: u32 = 5;
/// Least time between two reports about one address's rivals.
const RIVALS: Duration = Duration::from_millis(20);
/// Sets that are looked at, whether they are settled, before other things have their turn.
const LOOKS: usize = 64;
const BELL: Token = Token(0);
const WATCH: Token = Token(1);

/// What the keeper is made from.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    /// Those of the settings, each once.
    pub(super) interfaces: Vec<String>,
    pub(super) addresses: Addresses,
    /// None where the kernel enforces none.
    pub(super) lease: Option<Lease>,
    pub(super) announcer: Announcer,
    pub(super) watch: Watch,
}

/// The ends of the keeper's rings.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) commands: Receiver<(Instant, Order)>,
    pub(super) reports: Sender<HostReport>,
    pub(super) jobs: Sender<Job>,
    /// None where no set has its flows handed over.
    pub(super) preparing: Option<Preparing>,
}

/// The ways to the tracker and back.
#[derive(Debug)]
pub(super) struct Preparing {
    pub(super) prepare: Sender<Prepare>,
    pub(super) prepared: Receiver<Ticket>,
    /// Wakes it for what is no message.
    pub(super) bell: Arc<Doorbell>,
}

/// The lease that all sets are under.
#[derive(Clone, Copy, Debug)]
struct Leased {
    since: Instant,
    until: Instant,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Keeper {
    parts: Parts,
    poll: Poll,
    bell: Arc<Doorbell>,
    commands: Receiver<(Instant, Order)>,
    /// The lease ran out, and what control says now it may have said before it knew.
    lapsed: bool,
    reports: Sender<HostReport>,
    jobs: Sender<Job>,
    preparing: Option<Preparing>,
    /// The number of the last order for flows.
    last_ticket: u64,
    shared: Arc<Shared>,
    sets: Vec<Holding>,
    /// Reports that found the ring full. While there are any no command is taken, so there are few.
    backlog: VecDeque<HostReport>,
    /// The lease, while there is one.
    leased: Option<Leased>,
    renew_at: Instant,
    /// The numbers of the interfaces that the lease's table hangs on.
    hung: BTreeMap<String, u32>,
    carriers: BTreeMap<String, bool>,
    rivals: BTreeMap<IpAddr, Instant>,
    /// The watch may have seen more than was taken from it.
    unseen: bool,
}

impl Keeper {
    /// Nothing is held.
    pub(super) fn new(
        parts: Parts,
        bell: Arc<Doorbell>,
        Rings { commands, reports, jobs, preparing }: Rings,
        shared: Arc<Shared>,
    ) -> io::Result<Keeper> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&bell.as_raw_fd()), BELL, Interest::READABLE)?;
        for descriptor in parts.watch.descriptors() {
            poll.registry().register(&mut SourceFd(&descriptor), WATCH, Interest::READABLE)?;
        }
        let sets = parts.settings.sets.iter().map(|_| Holding::Nothing).collect();
        let mut keeper = Keeper {
            parts,
            poll,
            bell,
            commands,
            lapsed: false,
            reports,
            jobs,
            preparing,
            last_ticket: 0,
            shared,
            sets,
            backlog: VecDeque::new(),
            leased: None,
            renew_at: Instant::ZERO,
            hung: BTreeMap::new(),
            carriers: BTreeMap::new(),
            rivals: BTreeMap::new(),
            unseen: true,
        };
        keeper.hung = keeper.present();
        keeper.look_at_carriers();
        Ok(keeper)
    }

    /// Runs until it is told to end; then takes everything off.
    pub(super) fn run(mut self) {
        self.take_place();
        let mut events = Events::with_capacity(16);
        while !self.shared.stop.load(Ordering::Acquire) {
            for event in &events {
                match event.token() {
                    BELL => self.bell.silence(),
                    _ => self.unseen = true,
                }
            }
            self.turn();
            let timeout = self.timeout();
            let stop = &self.shared.stop;
            let prepared = || self.preparing.as_ref().is_some_and(|ways| !ways.prepared.is_empty());
            let nothing = || self.commands.is_empty() && !prepared() && !stop.load(Ordering::Acquire);
            let timeout = if self.bell.prepare_sleep(nothing) { timeout } else { Some(Duration::ZERO) };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "virtual addresses are given up");
                break;
            }
            self.bell.awake();
        }
        self.end();
    }

    fn take_place(&self) {
        if let Err(error) = sys::tighten_timers() {
            tracing::warn!(%error, "the timers of the virtual addresses' thread stay coarse");
        }
        if let Some(refused) = self.parts.settings.standing.take().refused {
            tracing::warn!("the thread that keeps virtual addresses may be late under load: {refused}");
        }
    }

    fn turn(&mut self) {
        self.keep_lease();
        self.flush();
        for _ in 0..COMMANDS {
            if !self.backlog.is_empty() {
                break;
            }
            match self.commands.pop() {
                Some((_, Order::Command(HostCommand::Acquire { .. }))) if self.lapsed => {}
                Some((given, Order::Command(command))) => self.execute(given, command),
                Some((_, Order::LapseSeen)) => self.lapsed = false,
                None => break,
            }
            self.keep_lease();
        }
        self.take_prepared();
        self.end_waits();
        self.end_settling();
        self.look();
        self.announce();
        self.flush();
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.parts.clock.now();
        if self.unseen || (self.backlog.is_empty() && !self.commands.is_empty()) {
            return Some(Duration::ZERO);
        }
        let of_sets = self.sets.iter().filter_map(|holding| match holding {
            Holding::Nothing => None,
            Holding::Waiting(waiting) => Some(waiting.over_at()),
            Holding::Held(Held { settling: Some(settling), .. }) => Some(settling.look_at()),
            Holding::Held(held) => held.schedule.next(),
        });
        let lease = self.leased.map(|_| self.renew_at);
        let retry = (!self.backlog.is_empty()).then(|| now + RETRY);
        of_sets.chain(lease).chain(retry).min().map(|next| next.since(now))
    }

    fn execute(&mut self, given: Instant, command: HostCommand) {
        match command {
            HostCommand::Acquire { set, wait, from } => self.prepare(given, set, wait, from),
            HostCommand::Announce { set } => self.speak(set),
            HostCommand::Mute { set } => self.mute(set),
            HostCommand::Release { set } => {
                self.give_up(set, Event::Released);
                self.report(HostReport::Released { set });
            }
            HostCommand::ReleaseAll => {
                for set in 0..self.sets.len() {
                    if self.give_up(set, Event::Released) {
                        self.report(HostReport::Released { set });
                    }
                }
            }
        }
    }

    /// Has the set, when the time to wait is over.
    fn prepare(&mut self, given: Instant, set: usize, wait: Duration, from: Option<NodeId>) {
        // In this order: control says that it stood still before it says that it lives again.
        let (now, good) = (self.parts.clock.now(), self.good_until());
        if given < self.woke() {
            return;
        }
        match self.sets.get_mut(set) {
            // Whoever gave it may have been taken for dead since.
            _ if now.since(given) > self.parts.settings.lease => {
                self.report(HostReport::Failed { set, why: "the command is older than the lease".into() });
            }
            // It is reported when it is settled.
            Some(Holding::Held(held)) if held.settling.is_some() => {}
            Some(Holding::Held(_)) => {
                self.speak(set);
                self.report(HostReport::Acquired { set });
            }
            // From here on under the lease: whoever sleeps through its end acquires nothing afterwards.
            Some(_) => match self.begin_lease(now, good) {
                Ok(()) => self.wait(set, now + wait, from),
                Err(error) => self.report(HostReport::Failed { set, why: error.to_string() }),
            },
            None => self.report(HostReport::Failed { set, why: "no set has this number".into() }),
        }
    }

    /// Waits until this moment, and meanwhile has the set's flows brought here; those it waits for too.
    fn wait(&mut self, set: usize, until: Instant, from: Option<NodeId>) {
        let flows = match (&self.sets[set], &mut self.preparing) {
            (Holding::Waiting(waiting), _) => waiting.flows,
            (_, Some(ways)) if self.parts.settings.sets[set].conntrack && !ways.prepare.is_abandoned() => {
                self.last_ticket += 1;
                let ticket = Ticket { set, number: self.last_ticket };
                let asked = ways.prepare.push(Prepare { ticket, from });
                asked.is_ok().then(|| (ticket, self.parts.clock.now() + OVERDUE))
            }
            _ => None,
        };
        self.sets[set] = Holding::Waiting(Waiting { until, flows });
    }

    /// The flows that were asked for by these are there.
    fn take_prepared(&mut self) {
        while let Some(ticket) = self.preparing.as_mut().and_then(|ways| ways.prepared.pop()) {
            if let Holding::Waiting(waiting) = &mut self.sets[ticket.set] {
                waiting.prepared(ticket);
            }
        }
    }

    /// Tells the tracker whether the set is held.
    fn mark_held(&self, set: usize, held: bool) {
        if let Some(ways) = self.preparing.as_ref().filter(|_| self.parts.settings.sets[set].conntrack) {
            self.shared.held[set].store(held, Ordering::Release);
            ways.bell.ring_always();
        }
    }

    /// Acquires the sets whose time of waiting is over.
    fn end_waits(&mut self) {
        for set in 0..self.sets.len() {
            let now = self.parts.clock.now();
            let Holding::Waiting(waiting) = self.sets[set] else { continue };
            if waiting.over_at() > now {
                continue;
            }
            add(&self.shared.flow_waits_over, u64::from(waiting.flows.is_some()));
            match self.acquire(set) {
                Ok(placed) => {
                    let (schedule, settling) = (Schedule::default(), Some(Settling::new(self.parts.clock.now())));
                    self.sets[set] = Holding::Held(Held { placed, mute: false, schedule, settling });
                    self.mark_held(set, true);
                }
                Err(error) => {
                    self.sets[set] = Holding::Nothing;
                    self.end_lease_if_idle();
                    self.report(HostReport::Failed { set, why: error.to_string() });
                }
            }
            self.keep_lease();
        }
    }

    /// Announces the sets that the kernel takes in what comes for.
    fn end_settling(&mut self) {
        let mut room = LOOKS;
        for set in 0..self.sets.len() {
            let now = self.parts.clock.now();
            let Holding::Held(Held { placed, settling: Some(settling), .. }) = &mut self.sets[set] else { continue };
            if settling.look_at() > now {
                continue;
            }
            let is_up = |placed: &&Placed| self.parts.watch.link(placed.index).is_some_and(|link| link.up);
            let reachable: Vec<Placed> = placed.iter().filter(is_up).copied().collect();
            if settling.is_over(now) || self.parts.addresses.are_settled(&reachable) {
                self.settled(set);
            } else {
                settling.looked(now);
            }
            self.keep_lease();
            room -= 1;
            if room == 0 {
                return;
            }
        }
    }

    /// The set takes in what comes for it: everybody is told.
    fn settled(&mut self, set: usize) {
        let now = self.parts.clock.now();
        let Holding::Held(held) = &mut self.sets[set] else { unreachable!("only what is held settles") };
        held.settling = None;
        held.schedule.begin(now);
        self.announce();
        self.report(HostReport::Acquired { set });
        self.hook(set, Event::Acquired);
    }

    /// Puts the whole set under the lease and then on its interfaces, or leaves nothing of it anywhere.
    fn acquire(&mut self, set: usize) -> io::Result<Vec<Placed>> {
        let placed = self.locate(set)?;
        let addresses: Vec<IpAddr> = placed.iter().map(|placed| placed.address).collect();
        let guarded = match &mut self.parts.lease {
            Some(lease) => lease.guard(&addresses).and_then(|()| lease.unmute(&addresses)),
            None => Ok(()),
        };
        assert!(self.leased.is_some(), "whoever waits does so under the lease");
        let added = guarded.and_then(|()| self.parts.addresses.add_all(&placed));
        if let Err(error) = added {
            self.unguard(&addresses);
            return Err(error);
        }
        Ok(placed)
    }

    fn locate(&self, set: usize) -> io::Result<Vec<Placed>> {
        let missing = |name: &str| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface `{name}`"));
        let place = |wanted: &super::Address| {
            let (index, _) = self.parts.watch.named(&wanted.interface).ok_or_else(|| missing(&wanted.interface))?;
            Ok(Placed { index, address: wanted.address })
        };
        self.parts.settings.sets[set].addresses.iter().map(place).collect()
    }

    /// Takes the set off, if it is there. Answers whether it was held or waited for.
    fn give_up(&mut self, set: usize, event: Event) -> bool {
        let Some(holding) = self.sets.get_mut(set) else { return false };
        match std::mem::replace(holding, Holding::Nothing) {
            Holding::Nothing => return false,
            Holding::Waiting(_) => {}
            Holding::Held(held) => {
                // What ends with the addresses is no news to the next owner.
                self.mark_held(set, false);
                if let Err(error) = self.parts.addresses.remove_all(&held.placed) {
                    // They stay under the lease, nobody may learn of them, and the next start tries again.
                    tracing::error!(set = self.parts.settings.sets[set].name, %error, "addresses cannot be taken off");
                    self.change_mute(&held.placed.iter().map(|placed| placed.address).collect::<Vec<_>>(), true);
                } else {
                    self.unguard(&held.placed.iter().map(|placed| placed.address).collect::<Vec<_>>());
                }
                if held.settling.is_none() {
                    self.hook(set, event);
                }
            }
        }
        self.end_lease_if_idle();
        true
    }

    fn lose(&mut self, set: usize, why: &str) {
        if self.give_up(set, Event::Lost) {
            tracing::warn!(set = self.parts.settings.sets[set].name, why, "virtual addresses are lost");
            self.report(HostReport::Lost { set, why: why.to_owned() });
        }
    }

    fn unguard(&mut self, addresses: &[IpAddr]) {
        if let Some(lease) = &mut self.parts.lease
            && let Err(error) = lease.unguard(addresses)
        {
            tracing::warn!(%error, ?addresses, "addresses stay under the lease");
        }
    }

    /// Answers who asks for the set, and says where it is.
    fn speak(&mut self, set: usize) {
        let now = self.parts.clock.now();
        let Some(Holding::Held(held)) = self.sets.get_mut(set) else { return };
        held.mute = false;
        if held.settling.is_none() {
            held.schedule.begin(now);
        }
        let addresses: Vec<IpAddr> = held.placed.iter().map(|placed| placed.address).collect();
        self.change_mute(&addresses, false);
    }

    /// Answers nobody who asks for the set, and says nothing of it.
    fn mute(&mut self, set: usize) {
        let Some(Holding::Held(held)) = self.sets.get_mut(set) else { return };
        held.mute = true;
        held.schedule.stop();
        let addresses: Vec<IpAddr> = held.placed.iter().map(|placed| placed.address).collect();
        self.change_mute(&addresses, true);
    }

    fn change_mute(&mut self, addresses: &[IpAddr], mute: bool) {
        let Some(lease) = &mut self.parts.lease else { return };
        let done = if mute { lease.mute(addresses) } else { lease.unmute(addresses) };
        if let Err(error) = done {
            tracing::error!(%error, ?addresses, mute, "who may learn where an address is cannot be changed");
        }
    }

    /// When the lease ends that the last signs of life of control and of the workers are good for.
    fn good_until(&self) -> Instant {
        let signs = self.shared.workers.iter().map(|sign| sign.load(Ordering::Acquire));
        let oldest = signs.fold(self.shared.beat.load(Ordering::Acquire), u64::min);
        Instant::from_nanos(oldest) + self.parts.settings.lease
    }

    /// Until when what control says now is void, as it found that it had stood still.
    fn woke(&self) -> Instant {
        Instant::from_nanos(self.shared.woke.load(Ordering::Acquire))
    }

    fn begin_lease(&mut self, now: Instant, until: Instant) -> io::Result<()> {
        if self.leased.is_some() {
            return Ok(());
        }
        if until <= now {
            return Err(io::Error::other("control has not said lately that it lives"));
        }
        if let Some(lease) = &mut self.parts.lease {
            lease.grant(until)?;
        }
        self.leased = Some(Leased { since: now, until });
        self.renew_at = now + self.parts.settings.lease / RENEWALS;
        Ok(())
    }

    fn keep_lease(&mut self) {
        let (now, good) = (self.parts.clock.now(), self.good_until());
        let Some(Leased { since, until }) = self.leased else { return };
        if now >= until {
            return self.lapse("the lease ran out before it was renewed");
        }
        if since < self.woke() {
            return self.lapse("the router stood still for longer than the lease");
        }
        if now < self.renew_at {
            return;
        }
        self.renew_at = (now + self.parts.settings.lease / RENEWALS).min(until);
        if good <= until {
            return;
        }
        let renewal = self.parts.lease.as_mut().map_or(Ok(Renewal::Done), |lease| lease.renew(good));
        let took = self.parts.clock.now().since(now);
        self.shared.slowest_renewal.fetch_max(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        match renewal {
            Ok(Renewal::Done) => {
                self.leased = Some(Leased { since, until: good });
                add(&self.shared.renewals, 1);
            }
            Ok(Renewal::Lapsed) => self.lapse("the kernel says that the lease has run out"),
            Err(error) => {
                add(&self.shared.renewals_failed, 1);
                tracing::warn!(%error, "the lease of the virtual addresses could not be renewed");
            }
        }
        let rebuilt = self.parts.lease.as_ref().map_or(0, Lease::rebuilt);
        self.shared.rebuilt.store(rebuilt, Ordering::Relaxed);
    }

    /// The kernel has silenced everything: so nothing is held any more.
    fn lapse(&mut self, why: &str) {
        add(&self.shared.lapses, 1);
        tracing::warn!(why, "all virtual addresses are lost");
        (0..self.sets.len()).for_each(|set| {
            self.give_up(set, Event::Lost);
        });
        self.end_lease_if_idle();
        if !std::mem::replace(&mut self.lapsed, true) {
            self.report(HostReport::Lapsed);
        }
    }

    fn end_lease_if_idle(&mut self) {
        if self.leased.is_none() || !self.sets.iter().all(|holding| matches!(holding, Holding::Nothing)) {
            return;
        }
        self.leased = None;
        if let Some(lease) = &mut self.parts.lease
            && let Err(error) = lease.end()
        {
            tracing::warn!(%error, "the lease of the virtual addresses could not be ended");
        }
    }

    /// Sends what is due, as much as a turn may.
    fn announce(&mut self) {
        let mut room = ANNOUNCEMENTS;
        let (now, refresh) = (self.parts.clock.now(), self.parts.settings.refresh);
        for (set, holding) in self.sets.iter_mut().enumerate() {
            let Holding::Held(held) = holding else { continue };
            if !held.schedule.is_due(now) {
                continue;
            }
            for &Placed { index, address } in &held.placed {
                let mac = self.parts.watch.link(index).and_then(|link| link.mac);
                let router = self.parts.settings.sets[set].router;
                let sent = mac.map(|mac| self.parts.announcer.announce(index, mac, address, router));
                match sent {
                    Some(Ok(())) => add(&self.shared.announced, 1),
                    // Nobody asks for Ethernet addresses there.
                    None => {}
                    // Another one is scheduled.
                    Some(Err(error)) => {
                        add(&self.shared.announcements_failed, 1);
                        tracing::debug!(%error, %address, "an announcement was not sent");
                    }
                }
            }
            held.schedule.sent(now, refresh);
            room = room.saturating_sub(held.placed.len());
            if room == 0 {
                return;
            }
        }
    }

    fn look(&mut self) {
        if !self.unseen {
            return;
        }
        let mut seen = Vec::new();
        self.unseen = self.parts.watch.look(&mut seen);
        for what in seen {
            match what {
                Seen::Link(_) | Seen::LinkGone(_) => self.look_at_carriers(),
                Seen::AddressGone(placed) => self.look_after(placed),
                Seen::Overflow => {
                    if let Err(error) = self.parts.watch.look_at_links() {
                        tracing::error!(%error, "the interfaces cannot be looked at");
                    }
                    self.look_at_carriers();
                    self.held().into_iter().for_each(|placed| self.look_after(placed));
                }
                Seen::Speaks { index, address, mac } => {
                    if !self.parts.watch.is_own(mac) {
                        self.rival(index, address, mac);
                    }
                }
            }
        }
    }

    /// Everything that is held.
    fn held(&self) -> Vec<Placed> {
        let held = self.sets.iter().filter_map(|holding| match holding {
            Holding::Held(held) => Some(&held.placed),
            _ => None,
        });
        held.flatten().copied().collect()
    }

    fn holder(&self, placed: Placed) -> Option<usize> {
        let has = |holding: &Holding| matches!(holding, Holding::Held(held) if held.placed.contains(&placed));
        self.sets.iter().position(has)
    }

    /// Asks whether a held address is still there; loses its set if it is not.
    fn look_after(&mut self, placed: Placed) {
        let Some(set) = self.holder(placed) else { return };
        match self.parts.addresses.has(placed) {
            Ok(true) => {}
            Ok(false) => self.lose(set, &format!("{} was taken off its interface by somebody else", placed.address)),
            Err(error) => tracing::error!(%error, "the addresses cannot be looked at"),
        }
    }

    /// The interfaces of ours that exist, and their numbers.
    fn present(&self) -> BTreeMap<String, u32> {
        let find = |name: &String| self.parts.watch.named(name).map(|(index, _)| (name.clone(), index));
        self.parts.interfaces.iter().filter_map(find).collect()
    }

    /// Reports what has changed of the interfaces, and hangs the lease on those that are new.
    fn look_at_carriers(&mut self) {
        let present = self.present();
        if present != self.hung {
            let names = present.keys().cloned().collect();
            if let Some(lease) = &mut self.parts.lease
                && let Err(error) = lease.move_to(names)
            {
                tracing::error!(%error, "the lease cannot be moved to the interfaces that are there now");
            }
            self.hung = present;
        }
        for name in self.parts.interfaces.clone() {
            let up = self.parts.watch.named(&name).is_some_and(|(_, link)| link.up);
            if self.carriers.insert(name.clone(), up) == Some(up) {
                continue;
            }
            if up && let Some(&index) = self.hung.get(&name) {
                self.announce_again(index);
            }
            // A kernel that cannot say it now leaves the links to their own devices.
            let gone = self.hung.get(&name).filter(|_| !up);
            let addresses =
                gone.map(|&index| self.parts.watch.addresses(index).unwrap_or_default()).unwrap_or_default();
            self.report(HostReport::Carrier { interface: name, up, addresses });
        }
    }

    /// What is held on this interface is new to whatever is at its other end.
    fn announce_again(&mut self, index: u32) {
        let now = self.parts.clock.now();
        for holding in &mut self.sets {
            if let Holding::Held(held) = holding
                && !held.mute
                && held.settling.is_none()
                && held.placed.iter().any(|placed| placed.index == index)
            {
                held.schedule.begin(now);
            }
        }
    }

    fn rival(&mut self, index: u32, address: IpAddr, mac: [u8; 6]) {
        let Some(set) = self.holder(Placed { index, address }) else { return };
        if matches!(&self.sets[set], Holding::Held(held) if held.mute || held.settling.is_some()) {
            // It is the one to whom the set is handed over, or by whom.
            return;
        }
        add(&self.shared.rivals, 1);
        let now = self.parts.clock.now();
        if self.rivals.get(&address).is_some_and(|&at| now.since(at) < RIVALS) {
            return;
        }
        self.rivals.insert(address, now);
        let who = mac.map(|byte| format!("{byte:02x}")).join(":");
        if self.reports.is_full() || !self.backlog.is_empty() {
            add(&self.shared.reports_left_out, 1);
        } else {
            self.report(HostReport::Rival { set, address, who });
        }
    }

    fn report(&mut self, report: HostReport) {
        self.backlog.push_back(report);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(report) = self.backlog.pop_front() {
            if let Err(report) = self.reports.push(report) {
                self.backlog.push_front(report);
                break;
            }
        }
    }

    fn hook(&mut self, set: usize, event: Event) {
        if self.parts.settings.hook.is_none() {
            return;
        }
        let Set { name, addresses, .. } = &self.parts.settings.sets[set];
        let placed = addresses.iter().map(|placed| format!("{}@{}", placed.address, placed.interface));
        let addresses = placed.collect::<Vec<_>>().join(" ");
        if self.jobs.push(Job { event, set, name: name.clone(), addresses }).is_err() {
            add(&self.shared.hooks_left_out, 1);
        }
    }

    /// Takes everything off, and the table.
    fn end(mut self) {
        for set in 0..self.sets.len() {
            self.give_up(set, Event::Released);
        }
        if self.held().is_empty()
            && let Some(lease) = self.parts.lease.take()
            && let Err(error) = lease.close()
        {
            tracing::warn!(%error, "the table of the lease is left behind");
        }
    }
}
