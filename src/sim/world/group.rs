//! The group that shares service addresses: its hosts, its operators, and who watches it.

use super::World;
use super::agenda::Event;
use crate::base::hash::mix64;
use crate::base::{Instant, NodeId, Rng};
use crate::control::{ClientId, HostReport, Input, Witnessed};
use crate::sim::check::vips::{SeenSet, Standing};
use crate::sim::check::{evs, vips};
use crate::sim::fault::{Fault, Trouble};
use crate::sim::host::{Host, Report};
use crate::sim::ledger::Struck;
use crate::sim::vips::Vips;
use crate::wire::admin::{Request, VipOrder};
use std::collections::BTreeMap;
use std::time::Duration;

/// Clients from here on are operators: applications have lower numbers.
pub(super) const OPERATORS: u64 = 1 << 40;
/// Within what an undisturbed group comes to a view, though messages are lost: a member that does not answer is left out
/// after two seconds, and that may happen to two after each other.
const VIEW: Duration = Duration::from_secs(5);
/// What was said and is not delivered is said again after a second; twice.
const RETELL: Duration = Duration::from_secs(2);
/// What a host refused is tried again after this, at the latest.
const RETRY: Duration = Duration::from_secs(12);
/// What hosts take, and a message that nothing delays.
const PROMPT: Duration = Duration::from_millis(50);

/// The group of a run.
#[derive(Debug)]
pub(super) struct Group {
    vips: Vips,
    watch: vips::Watch,
    witness: evs::Witness,
    /// When a view began for a member in which it met others.
    merged_at: BTreeMap<usize, Instant>,
    /// When a wire between members was last too narrow for what every path must carry.
    narrow_at: Option<Instant>,
    /// Orders so far.
    orders: u64,
}

impl Group {
    /// How patient who watches is, where a dead link is known after `heard`.
    fn patience(&self, now: Instant, heard: Duration) -> vips::Patience {
        let lease = self.vips.lease;
        let told = heard + RETELL + lease + PROMPT;
        // Who is in a view is heard at least so often, and hears no later what was agreed; but for who hears small things
        // alone, until it is left out because it does not answer.
        let narrow = self.narrow_at.is_some_and(|at| now.since(at) < RETELL);
        let double = lease + heard + if narrow { VIEW } else { Duration::ZERO };
        vips::Patience { heard, double, hole: told + VIEW, settled: told }
    }
}

impl World {
    /// These routers share service addresses. Before the first of them starts.
    pub fn share(&mut self, vips: Vips) {
        for &member in &vips.members {
            let rng = Rng::from_u64(mix64(member as u64 ^ vips.lease.as_nanos() as u64));
            self.routers[member].host = Some(Host::new(vips.sets, vips.checks(), vips.lease, rng));
        }
        let watch = vips::Watch::new(vips::Patience::default(), vips.majority.clone(), vips.members.len());
        let (witness, merged_at) = (evs::Witness::default(), BTreeMap::new());
        let mut group = Group { vips, watch, witness, merged_at, narrow_at: None, orders: 0 };
        group.watch.set_patience(group.patience(self.now, self.watch.bound()));
        self.group = Some(group);
    }

    /// The group, if there is one.
    pub(in crate::sim) fn vips(&self) -> Option<&Vips> {
        self.group.as_ref().map(|group| &group.vips)
    }

    /// The longest that two routers in one view answered for one set.
    pub fn longest_double(&self) -> Duration {
        self.group.as_ref().map_or(Duration::ZERO, |group| group.watch.longest_double())
    }

    /// Within what a group that was healed is at rest: also hosts that refused something are asked again.
    pub(in crate::sim) fn rest_within(&self) -> Duration {
        let settled = |group: &Group| RETRY + RETRY / 5 + VIEW + RETELL + group.vips.maturity + group.vips.lease * 2;
        self.group.as_ref().map_or(Duration::ZERO, settled)
    }

    /// What there is to see of the group's members; nothing where there is none.
    pub(in crate::sim) fn members(&self) -> Vec<vips::Seen> {
        let members = self.group.iter().flat_map(|group| group.vips.members.iter().map(move |&router| (group, router)));
        members.filter_map(|(group, router)| self.member(group, router)).collect()
    }

    fn member(&self, group: &Group, router: usize) -> Option<vips::Seen> {
        let (now, slot) = (self.now, &self.routers[router]);
        let host = slot.host.as_ref()?;
        let of_sets = |is: &dyn Fn(usize) -> bool| (0..group.vips.sets).map(is).collect();
        let control = slot.router.as_ref().map(|running| &running.control);
        let membership = control.and_then(|control| control.membership());
        let addresses = control.and_then(|control| control.service_addresses());
        let numbers = |nodes: &[NodeId]| nodes.iter().filter_map(|&node| self.number(node)).collect();
        let number = |node: Option<NodeId>| node.and_then(|node| self.number(node));
        let sets = addresses.into_iter().flat_map(|it| it.sets()).map(|set| SeenSet {
            owner: number(set.owner),
            acquired: set.acquired,
            from: number(set.from),
            pinned: set.pin.is_some(),
            paused: set.paused,
            able: set.unable.is_none(),
        });
        let here =
            addresses.into_iter().flat_map(|it| it.members()).filter(|member| member.here).filter_map(|member| {
                let (equal, drained, leaving) = (member.equal, member.drained, member.leaving);
                let may = equal && member.mature && !drained && !leaving;
                Some((self.number(member.node)?, Standing { equal, drained, leaving, may, able: member.able }))
            });
        Some(vips::Seen {
            router,
            awake: slot.router.is_some() && slot.busy_until <= now + PROMPT,
            left_alone: host.is_left_alone(),
            view: membership.and_then(|it| it.view()).map(|view| (view.id, numbers(&view.members))),
            gathers: membership.is_some_and(|it| it.is_gathering()),
            answers: of_sets(&|set| host.answers(now, set)),
            accepts: of_sets(&|set| host.accepts(now, set)),
            announced: (0..group.vips.sets).map(|set| host.announced(set)).collect(),
            merged_at: group.merged_at.get(&router).copied().unwrap_or_default(),
            sets: sets.collect(),
            here: here.collect(),
            overruled: addresses.is_some_and(|it| it.is_overruled()),
            unequal: slot.runs_unequal,
            rivals: addresses.map(|it| (host.rivals_told(), it.stats().rivals)),
            shouts: host.shouts(),
        })
    }

    /// Looks at who answers, and at what keeps the group from coming to rest.
    pub(in crate::sim) fn look_at_group(&mut self) {
        let members = self.members();
        let strained = members.iter().any(|member| self.is_strained(member.router));
        let stopping = members.iter().any(|member| self.routers[member.router].is_stopping);
        let narrow = members.iter().any(|member| self.is_narrow(member.router));
        let Some(group) = &mut self.group else { return };
        if narrow {
            group.narrow_at = Some(self.now);
        }
        if strained || stopping {
            group.watch.disturb(self.now, !strained);
        }
        group.watch.set_patience(group.patience(self.now, self.watch.bound()));
        group.watch.look(self.now, &members, &mut self.violations);
    }

    /// Whether a member, its host or a wire to another one is not as it should be.
    fn is_strained(&self, router: usize) -> bool {
        let slot = &self.routers[router];
        let frozen = slot.busy_until > self.now + PROMPT;
        let strange = slot.newer || slot.rare > 0.0 || slot.host.as_ref().is_some_and(|host| !host.is_well());
        !slot.is_calm() || frozen || strange || self.is_narrow(router)
    }

    /// Whether a wire from a member to another one is too narrow for what every path must carry.
    fn is_narrow(&self, router: usize) -> bool {
        let others = self.group.iter().flat_map(|group| &group.vips.members).filter(|&&other| other != router);
        others.filter_map(|&other| self.wires.get(&(router, other))).any(|wire| wire.is_narrow())
    }

    /// A fault strikes: the group may have to come to rest anew.
    pub(in crate::sim) fn strike_group(&mut self, fault: &Fault) {
        if self.vips().is_some_and(|vips| fault.disturbs(&vips.members)) {
            self.disturb_group(fault.is_handed_over());
        }
    }

    /// The group has to come to rest anew; what it moves for that is handed over, or is not.
    pub(super) fn disturb_group(&mut self, handed_over: bool) {
        if let Some(group) = &mut self.group {
            group.watch.disturb(self.now, handed_over);
        }
    }

    /// What members saw of each other is as extended virtual synchrony promises.
    pub(in crate::sim) fn virtual_synchrony(&self) -> Result<(), String> {
        let Some(group) = &self.group else { return Ok(()) };
        let is_quiet = |&member: &usize| {
            let control = self.router(member).map(|running| &running.control);
            control.and_then(|control| control.membership()).is_none_or(|membership| membership.is_quiet())
        };
        group.witness.holds(group.vips.members.iter().all(is_quiet))
    }

    /// Views that members began, all together.
    pub fn views(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.witness.views())
    }

    /// A member starts: what its host has of an earlier life goes.
    pub(super) fn start_member(&mut self, router: usize) {
        let (node, slot) = (self.nodes[router], &mut self.routers[router]);
        if let (Some(host), Some(group), Some(running)) = (&mut slot.host, &mut self.group, &mut slot.router) {
            host.start(self.now);
            group.witness.start(node);
            group.watch.started(router);
            running.control.witness();
        }
    }

    /// A member dies, or ends when it has taken everything off.
    pub(super) fn end_member(&mut self, router: usize, killed: bool) {
        self.take_witnessed(router);
        let (node, slot) = (self.nodes[router], &mut self.routers[router]);
        if let (Some(host), Some(group)) = (&mut slot.host, &mut self.group) {
            if killed {
                host.crash(self.now)
            } else {
                host.end()
            }
            group.witness.end(node);
        }
    }

    /// After a member did something: writes down what it saw, and looks if anything changed.
    pub(super) fn attend_member(&mut self, router: usize) {
        if self.routers[router].host.is_none() {
            return;
        }
        let saw = self.take_witnessed(router);
        let slot = &mut self.routers[router];
        if saw | slot.host.as_mut().is_some_and(Host::take_changed) {
            self.look_at_group();
        }
        self.set_host_timer(router);
    }

    fn take_witnessed(&mut self, router: usize) -> bool {
        let node = self.nodes[router];
        let (Some(group), Some(running)) = (&mut self.group, &mut self.routers[router].router) else { return false };
        let witnessed = running.control.take_witnessed();
        let any = !witnessed.is_empty();
        for seen in witnessed {
            group.watch.saw(self.now, router, &seen);
            if let Witnessed::Began(view, together) = &seen {
                let overruled = running.control.service_addresses().is_some_and(|it| it.is_overruled());
                let few = 2 * view.members.len() <= group.vips.members.len() && !group.vips.majority.is_empty();
                if overruled {
                    self.ledger.count(Struck::Overruled);
                }
                if few {
                    self.ledger.count(Struck::Minority);
                }
                if together.len() < view.members.len() {
                    group.merged_at.insert(router, self.now);
                }
            }
            group.witness.add(node, seen);
        }
        any
    }

    fn set_host_timer(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        let Some(at) = slot.host.as_ref().and_then(Host::poll_timeout) else { return };
        let at = at.max(self.now).max(slot.busy_until);
        if slot.router.is_some() && slot.host_at.is_none_or(|set| at < set) {
            slot.host_at = Some(at);
            self.agenda.add(at, Event::Host { router });
        }
    }

    /// A host does what is due, and control hears of it.
    pub(super) fn serve_host(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        slot.host_at = None;
        let (Some(host), Some(running)) = (&mut slot.host, &mut slot.router) else { return };
        // The keeper is a thread of its own; control hears of it when it gets on.
        host.turn(self.now);
        if self.now < slot.busy_until {
            return self.set_host_timer(router);
        }
        let local = slot.clock.local(self.now);
        while let Some(report) = host.poll_report(self.now) {
            match &report {
                Report::Host(HostReport::Lapsed) => {
                    self.ledger.count(Struck::LeaseLapsed);
                    self.group.iter_mut().for_each(|group| group.watch.lapsed(self.now, router));
                }
                Report::Host(HostReport::Rival { .. }) => self.ledger.count(Struck::Rival),
                _ => {}
            }
            running.tell(local, Input::from(report));
        }
        self.settle(router);
    }

    /// Something happens to a host's addresses.
    pub(in crate::sim) fn trouble_host(&mut self, router: usize, trouble: Trouble) {
        let now = self.now;
        let sets = self.group.as_ref().map_or(0, |group| group.vips.sets);
        let Some(host) = &mut self.routers[router].host else { return };
        let struck = match trouble {
            Trouble::Taken { set } => (set < sets && host.take_away(now, set)).then_some(Struck::AddressTaken),
            Trouble::Refuses { on } => {
                host.set_refuses(on);
                on.then_some(Struck::HostRefuses)
            }
            Trouble::Carrier { up } => {
                host.set_carrier(now, up);
                (!up).then_some(Struck::CarrierLost)
            }
            Trouble::Check { check, ok } => {
                host.set_check(now, check, ok);
                (!ok).then_some(Struck::CheckFailed)
            }
        };
        if let Some(struck) = struck {
            self.count(struck);
        }
        self.record(router, "host", &[]);
        self.attend_member(router);
    }

    /// A machine that is in no group answers for a set, or ceases to.
    pub(in crate::sim) fn set_rival(&mut self, set: usize, on: bool) {
        let Some(members) = self.vips().filter(|vips| set < vips.sets).map(|vips| vips.members.clone()) else { return };
        for router in members {
            self.routers[router].host.iter_mut().for_each(|host| host.set_rival(self.now, set, on));
            self.attend_member(router);
        }
    }

    /// The router has another configuration than the others, or the same, from its next start on.
    pub(in crate::sim) fn set_unequal(&mut self, router: usize, on: bool) {
        self.routers[router].unequal = on;
    }

    /// A member's machine is as it should be.
    pub(super) fn heal_host(&mut self, router: usize) {
        for trouble in [Trouble::Refuses { on: false }, Trouble::Carrier { up: true }] {
            self.trouble_host(router, trouble);
        }
        self.routers[router].host.iter_mut().for_each(|host| host.heal(self.now));
        self.set_unequal(router, false);
        self.attend_member(router);
    }

    /// An operator orders something.
    pub(in crate::sim) fn order(&mut self, router: usize, order: &VipOrder) {
        let (now, Some(group)) = (self.now, &mut self.group) else { return };
        let slot = &mut self.routers[router];
        let Some(running) = slot.router.as_mut().filter(|_| slot.busy_until <= now) else { return };
        group.orders += 1;
        let client = ClientId(OPERATORS + group.orders);
        running.request(slot.clock.local(now), client, Request::Vip { order: order.clone() });
        self.count(match order {
            VipOrder::Move { .. } => Struck::OrderMove,
            VipOrder::Drain { .. } => Struck::OrderDrain,
            VipOrder::Undrain { .. } => Struck::OrderUndrain,
            VipOrder::Pin { .. } | VipOrder::Unpin { .. } => Struck::OrderPin,
            VipOrder::Pause { .. } | VipOrder::Resume { .. } => Struck::OrderPause,
            VipOrder::Balance => Struck::OrderBalance,
        });
        self.record(router, "order", &[]);
        self.settle(router);
    }

    /// A member stands still until then.
    pub(super) fn freeze_host(&mut self, router: usize, until: Instant) {
        let members = self.members();
        if let (Some(host), Some(group)) = (&mut self.routers[router].host, &mut self.group) {
            host.freeze(self.now, until);
            group.watch.left_alone(self.now, router, &members);
            self.set_host_timer(router);
        }
    }
}
