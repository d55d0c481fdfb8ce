//! What faults do to the world.

use super::super::clock::right_wall;
use super::super::fault::Disk;
use super::super::router::Rings;
use super::agenda::Event;
use super::slot::{Handled, Slot};
use super::{Conditions, Flow, Ledger, Router, Side, Struck, World};
use crate::base::Instant;
use crate::base::rare;
use crate::config::settings::{Config, Metric};
use crate::control::Input;
use std::time::Duration;

const DAY: i64 = 86_400_000_000_000;
/// A machine without a battery starts at this date before the present: some twenty years.
const LONG_PAST: i64 = -20 * 365 * DAY;

/// First byte of control messages of a protocol that no router knows yet.
const NEWER_PROTOCOL: u8 = 0x7e;

impl World {
    /// Counts a fault that struck.
    pub(in crate::sim) const fn count(&mut self, struck: Struck) {
        self.ledger.count(struck);
    }

    /// Rare branches are taken from now on as faults say. Ends with [`World::end_rare`].
    pub(in crate::sim) fn begin_rare(&mut self) {
        self.rare = true;
        rare::begin(self.rng.fork());
    }

    /// Rare branches are not taken any more; what was counted goes into the ledger.
    pub(in crate::sim) fn end_rare(&mut self) {
        if std::mem::replace(&mut self.rare, false) {
            self.ledger.merge(&Ledger::of_rare(rare::end()));
        }
    }

    fn config(&self, router: usize) -> Config {
        let slot = &self.routers[router];
        let mut config = self.topology.config(router, &self.settings);
        let gone: Vec<String> = slot.without.iter().map(|&peer| super::super::topology::name(peer)).collect();
        config.links.retain(|link| !gone.contains(&link.peer));
        if let Some(metric) = slot.metric {
            config.routing.metric = metric;
        }
        if let Some(queue) = slot.queue {
            config.links.iter_mut().for_each(|link| link.queue = queue);
        }
        let group = self.vips().filter(|vips| vips.members.contains(&router));
        config.vip = group.map(|vips| vips.config(slot.unequal));
        config
    }

    /// Starts a router that does not run, and the applications that wait for it.
    pub fn start(&mut self, router: usize) {
        assert!(!self.is_running(router), "a router starts once");
        let (mut rng, config, now) = (self.rng.fork(), self.config(router), self.now);
        let slot = &mut self.routers[router];
        slot.clock.restart(now);
        slot.handled = Handled::default();
        slot.busy_until = now;
        let (local, wall) = (slot.clock.local(now), slot.clock.wall(now));
        let (wrong, unequal) = (slot.clock.is_wrong(), slot.unequal && slot.host.is_some());
        slot.runs_unequal = unequal;
        slot.router = Some(Router::start(local, wall, router, config, &self.settings, &mut rng));
        if wrong {
            self.count(Struck::WrongWall);
        }
        if unequal {
            self.count(Struck::Unequal);
        }
        self.start_member(router);
        self.watch.started(now, router);
        self.record(router, "start", &[]);
        self.settle(router);
        let waiting = |world: &World, flow: usize| {
            let flow = &world.flows[flow];
            !flow.is_void() && flow.spec().router(Side::Sink) == router
        };
        for flow in 0..self.flows.len() {
            if waiting(self, flow) {
                self.open(flow, Side::Sink);
            }
            // A sender that had not begun when the router died begins now.
            let spec = self.flows[flow].spec();
            let (source, opens) = (spec.router(Side::Source), spec.opens());
            if source == router && self.flows[flow].wants_open(opens.max(now)) {
                self.agenda.add(opens.max(now), Event::Turn { flow });
            }
        }
    }

    /// Kills a running router: all it knew is lost, and so are its applications' sessions.
    pub fn crash(&mut self, router: usize) {
        if !self.is_running(router) {
            return;
        }
        self.count(Struck::Crash);
        self.routers[router].returns = None;
        self.lose(router, true);
    }

    /// A router is told to end. Its applications end first.
    pub(in crate::sim) fn stop(&mut self, router: usize) {
        if !self.is_running(router) || std::mem::replace(&mut self.routers[router].is_stopping, true) {
            return;
        }
        self.count(Struck::Stop);
        let slot = &mut self.routers[router];
        let local = slot.clock.local(self.now);
        for session in std::mem::take(&mut slot.sessions).into_keys() {
            slot.router.iter_mut().for_each(|running| running.handle_hangup(local, session));
        }
        for flow in self.flows.iter_mut().filter(|flow| flow.spec().touches(router)) {
            flow.end_crashed(self.now, router);
        }
        self.shut_down(router);
    }

    /// A router that was told to end hears of it, as soon as it gets on.
    pub(super) fn shut_down(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        if !slot.is_stopping {
            return;
        }
        if self.now < slot.busy_until {
            return self.agenda.add(slot.busy_until, Event::Stop { router });
        }
        let local = slot.clock.local(self.now);
        slot.router.iter_mut().for_each(|running| running.tell(local, Input::Shutdown));
        self.settle(router);
    }

    /// A router has handed over what it had, and is gone; it may be started again at once.
    pub(super) fn exit(&mut self, router: usize) {
        self.lose(router, false);
        if let Some(disk) = self.routers[router].returns.take() {
            self.count(Struck::Upgrade);
            self.restart(router, disk);
        }
    }

    fn lose(&mut self, router: usize, killed: bool) {
        self.end_member(router, killed);
        let slot = &mut self.routers[router];
        if let Some(running) = slot.router.take() {
            let carried = running.carried(slot.clock.local(self.now));
            carried.into_iter().for_each(|(peer, more)| slot.buried.entry(peer).or_default().merge(&more));
        }
        slot.timer_at = None;
        slot.generation += 1;
        slot.sessions.clear();
        slot.inbox.clear();
        slot.inbox_bytes = 0;
        slot.busy_until = self.now;
        slot.times = 1;
        slot.is_stopping = false;
        self.record(router, if killed { "crash" } else { "exit" }, &[]);
        self.watch.crashed(self.now, router);
        for flow in self.flows.iter_mut().filter(|flow| flow.spec().touches(router)) {
            flow.end_crashed(self.now, router);
        }
    }

    pub(in crate::sim) fn set_workers(&mut self, router: usize, count: usize) {
        if self.topology.workers(router) != count && !self.is_running(router) {
            self.count(Struck::OtherWorkers);
        }
        self.topology.set_workers(router, count);
    }

    pub(in crate::sim) fn restart(&mut self, router: usize, disk: Disk) {
        let slot = &mut self.routers[router];
        if slot.router.is_some() {
            slot.returns = slot.is_stopping.then_some(disk);
            return;
        }
        let clock = &mut self.routers[router].clock;
        let struck = match disk {
            Disk::Kept => Struck::Restart,
            Disk::Lost => {
                clock.set_wrong(LONG_PAST);
                Struck::RestartLongPast
            }
            Disk::LostWrite => {
                clock.set_wrong(-DAY / 24);
                Struck::RestartBehind
            }
            Disk::TornWrite { days } => {
                clock.set_wrong(i64::from(days) * DAY);
                Struck::RestartAnyDate
            }
        };
        self.count(struck);
        self.start(router);
    }

    pub(in crate::sim) fn set_conditions(&mut self, from: usize, to: usize, conditions: Conditions) {
        let cut = self.wire(from, to).conditions.cut;
        self.wire_mut(from, to).conditions = conditions;
        self.watch.slower(conditions.longest());
        if cut != conditions.cut {
            self.watch.cut(self.now, from, to, conditions.cut);
        }
    }

    pub(in crate::sim) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        if std::mem::replace(&mut self.wire_mut(from, to).conditions.cut, cut) != cut {
            self.watch.cut(self.now, from, to, cut);
        }
    }

    /// No packet larger than `mtu` passes in this direction, whatever else is its condition.
    pub(in crate::sim) fn set_narrow(&mut self, from: usize, to: usize, mtu: Option<usize>) {
        self.wire_mut(from, to).narrow = mtu;
    }

    fn strain(&mut self, router: usize, struck: Option<Struck>, change: impl FnOnce(&mut Slot, Instant)) {
        if self.is_running(router) {
            if let Some(struck) = struck {
                self.count(struck);
            }
            self.watch.strained(self.now, router);
            change(&mut self.routers[router], self.now);
        }
    }

    pub(in crate::sim) fn freeze(&mut self, router: usize, length: Duration) {
        self.strain(router, Some(Struck::Freeze), |slot, now| slot.busy_until = slot.busy_until.max(now + length));
        self.watch.strained(self.now + length, router);
        self.wake(router);
        if self.is_running(router) {
            self.freeze_host(router, self.now + length);
        }
    }

    pub(in crate::sim) fn slow(&mut self, router: usize, times: u32) {
        self.strain(router, (times > 1).then_some(Struck::Slow), |slot, _| slot.times = times);
    }

    pub(in crate::sim) fn step_clock(&mut self, router: usize, millis: i64) {
        self.routers[router].clock.step(millis.saturating_mul(1_000_000));
    }

    pub(in crate::sim) fn drift(&mut self, router: usize, ppm: i32) {
        self.count(Struck::Drift);
        let slot = &mut self.routers[router];
        slot.clock.drift(self.now, ppm.clamp(-100_000, 100_000));
        // The timer in the heap was set by the old pace.
        slot.timer_at = None;
        self.set_timer(router);
    }

    pub(in crate::sim) fn coalesce(&mut self, router: usize, to: Duration) {
        self.strain(router, None, |slot, _| slot.coalesce = to);
    }

    pub(in crate::sim) fn fill_rings(&mut self, router: usize, full: Rings) {
        let crossings = full.crossings && self.topology.workers(router) > 1;
        let rings = [
            (full.commands, Struck::CommandRing),
            (full.reports, Struck::ReportRing),
            (crossings, Struck::CrossingRing),
        ];
        for (full, struck) in rings {
            if full && self.is_running(router) {
                self.count(struck);
            }
        }
        self.watch.strained(self.now, router);
        if let Some(running) = &mut self.routers[router].router {
            running.rings = full;
            if let Some(host) = &mut self.routers[router].host {
                host.set_stuck(self.now, full.commands || full.reports);
            }
            self.settle(router);
        }
    }

    /// The router reads a configuration without links to `without`.
    pub(in crate::sim) fn reload(&mut self, router: usize, without: &[usize], metric: Metric, queue: Option<usize>) {
        let usual = self.settings.metric;
        let neighbours = self.topology.neighbours(router);
        let slot = &mut self.routers[router];
        let gone = without.iter().filter(|peer| !slot.without.contains(peer)).count();
        let back = slot.without.iter().filter(|peer| !without.contains(peer)).count();
        let stays = |peer: &&usize| !without.contains(peer) && !slot.without.contains(peer) && queue != slot.queue;
        let replaced: Vec<usize> = neighbours.iter().filter(stays).copied().collect();
        let changed = slot.metric.unwrap_or(usual) != metric;
        slot.without = without.to_vec();
        (slot.metric, slot.queue) = (Some(metric), queue);
        let config = self.config(router);
        let (now, slot) = (self.now, &mut self.routers[router]);
        let Some(running) = &mut slot.router else { return };
        running.reload(slot.clock.local(now), config);
        (0..gone).for_each(|_| self.count(Struck::LinkRemoved));
        (0..back).for_each(|_| self.count(Struck::LinkAdded));
        replaced.iter().for_each(|_| self.count(Struck::LinkReplaced));
        if changed {
            self.count(Struck::MetricChanged);
        }
        self.watch.strained(now, router);
        without.iter().chain(&replaced).for_each(|&peer| self.watch.removed(router, peer));
        self.settle(router);
    }

    pub(in crate::sim) fn set_rare(&mut self, router: usize, chance: f64) {
        self.routers[router].rare = chance;
    }

    pub(in crate::sim) fn set_newer(&mut self, router: usize, on: bool) {
        self.routers[router].newer = on;
    }

    pub(in crate::sim) fn send_newer_message(&mut self, router: usize) {
        let (now, slot) = (self.now, &mut self.routers[router]);
        let Some(running) = &mut slot.router else { return };
        running.send_to_neighbours(slot.clock.local(now), &[NEWER_PROTOCOL, 1, 2, 3]);
        self.count(Struck::NewerMessage);
        self.settle(router);
    }

    /// Routers of `core` and the wires between them are whole from now on; so is every router's configuration. What else
    /// is broken stays broken, as far as links can be expected to carry anything at all.
    pub(in crate::sim) fn heal(&mut self, core: &[usize]) {
        self.disturb_group(false);
        let inside = |from: usize, to: usize| core.contains(&from) && core.contains(&to);
        let wires: Vec<((usize, usize), Conditions)> =
            self.wires.iter().map(|(&ends, wire)| (ends, wire.conditions)).collect();
        for ((from, to), before) in wires {
            let after = if inside(from, to) {
                Conditions::perfect(before.delay)
            } else {
                Conditions { mtu: None, interface_mtu: None, ..before }
            };
            self.set_conditions(from, to, after);
            self.set_narrow(from, to, None);
        }
        for router in 0..self.topology.routers {
            self.set_rare(router, 0.0);
            self.fill_rings(router, Rings::default());
            self.slow(router, 1);
            self.coalesce(router, Duration::ZERO);
            self.reload(router, &[], self.settings.metric, None);
            self.heal_host(router);
            if core.contains(&router) {
                self.set_newer(router, false);
                if self.routers[router].is_stopping || self.routers[router].runs_unequal {
                    self.crash(router);
                }
                if !self.is_running(router) {
                    self.restart(router, Disk::Kept);
                }
            }
        }
        self.end_rare();
    }

    /// What senders that have left wrote may have been given up while there was no way for long.
    pub(in crate::sim) fn excuse_who_left(&mut self) {
        let now = self.now;
        self.flows.iter_mut().for_each(|flow| flow.excuse_who_left(now));
    }

    /// All applications close their sessions and leave.
    pub(in crate::sim) fn close_everything(&mut self) {
        self.flows.iter_mut().for_each(Flow::close);
        for router in 0..self.topology.routers {
            let (now, slot) = (self.now, &mut self.routers[router]);
            let Some(running) = &mut slot.router else { continue };
            let local = slot.clock.local(now);
            for session in std::mem::take(&mut slot.sessions).into_keys() {
                running.handle_hangup(local, session);
            }
            for flow in 0..self.flows.len() {
                for side in [Side::Source, Side::Sink] {
                    if self.flows[flow].spec().router(side) == router {
                        let client = Flow::client(flow, side);
                        running.tell(local, Input::ClientGone(client));
                    }
                }
            }
            self.settle(router);
        }
    }

    /// The next router on the way of `router` to `destination`.
    pub(in crate::sim) fn next_hop(&self, router: usize, destination: usize) -> Option<usize> {
        self.number(self.router(router)?.next_hop(self.node(destination))?)
    }

    /// The wall clock that a router without errors would have.
    pub fn wall(&self) -> crate::base::WallTime {
        right_wall(self.now)
    }
}
