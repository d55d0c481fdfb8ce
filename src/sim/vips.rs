//! The group of a run that shares service addresses: who they are, how many sets, and how patient they are.
//!
//! Everything about it is drawn apart from all else, so that a seed without a group runs as it did before there were any.
//! Its members are linked with each other, as members of such a group must be.

use super::fault::{Fault, Partition, Step, Trouble};
use super::topology::{Topology, name};
use super::units::millis;
use crate::base::hash::mix64;
use crate::base::{Instant, Rng};
use crate::config::settings::{Coverage, Vip, VipAddress, VipSet};
use crate::wire::admin::VipOrder;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// This share of the seeds has a group.
const SHARE: f64 = 1.0 / 3.0;
/// Most sets and members that are drawn.
const MOST_SETS: u64 = 6;
const MOST_MEMBERS: u64 = 5;
/// Bound of what a file may ask for.
const MAX_SETS: usize = 64;
/// The interface on which all addresses are.
pub(super) const INTERFACE: &str = "eth0";
/// Sets the draws of the group apart from those of the rest.
const APART: u64 = 0x7669_7073;

/// A group that shares service addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vips {
    /// The routers, ascending.
    pub members: Vec<usize>,
    /// How many sets they share.
    pub sets: usize,
    /// How long a kernel lets its router answer without word from it, ms.
    #[serde(with = "millis")]
    pub lease: Duration,
    /// How long who gave a set up still accepts what comes for it, ms.
    #[serde(with = "millis")]
    pub linger: Duration,
    /// How long a router that starts waits for others, ms.
    #[serde(with = "millis")]
    pub maturity: Duration,
    /// How often the spread is made better, ms; 0 for never.
    #[serde(with = "millis")]
    pub balance: Duration,
}

impl Vips {
    /// The group of a seed, if it has one. Links its members in `topology`.
    pub(super) fn draw(seed: u64, topology: &mut Topology) -> Option<Vips> {
        let mut rng = Rng::from_u64(mix64(seed ^ APART));
        if !rng.chance(SHARE) {
            return None;
        }
        let most = MOST_MEMBERS.min(topology.routers as u64);
        let members = draw_members(2 + rng.below(most - 1) as usize, topology, &mut rng);
        let millis = |rng: &mut Rng, among: [u64; 4]| Duration::from_millis(among[rng.below(4) as usize]);
        Some(Vips {
            members,
            sets: 1 + rng.below(MOST_SETS) as usize,
            lease: millis(&mut rng, [50, 50, 200, 1000]),
            linger: millis(&mut rng, [0, 100, 1000, 1000]),
            maturity: millis(&mut rng, [0, 500, 1000, 3000]),
            balance: millis(&mut rng, [0, 500, 1000, 4000]),
        })
    }

    /// What the group is troubled by and told beside what the network suffers.
    pub(super) fn draw_steps(&self, seed: u64, end: Instant) -> Vec<Step> {
        let mut rng = Rng::from_u64(mix64(!seed ^ APART));
        let mut steps = Vec::new();
        let mut push = |at: Instant, fault: Fault| steps.push(Step { at, fault });
        for _ in 0..rng.below(8) {
            let at = moment(end, &mut rng);
            push(at, Fault::Order { router: self.member(&mut rng), order: self.draw_order(&mut rng) });
        }
        for _ in 0..some(0.3, 4, &mut rng) {
            let (router, from) = (self.member(&mut rng), moment(end, &mut rng));
            let to = (from + Duration::from_millis(rng.below(2000))).min(end);
            let set = rng.below(self.sets as u64) as usize;
            match rng.below(3) {
                0 => push(from, Fault::Host { router, trouble: Trouble::Taken { set } }),
                1 => {
                    push(from, Fault::Host { router, trouble: Trouble::Refuses { on: true } });
                    push(to, Fault::Host { router, trouble: Trouble::Refuses { on: false } });
                }
                _ => {
                    push(from, Fault::Host { router, trouble: Trouble::Carrier { up: false } });
                    push(to, Fault::Host { router, trouble: Trouble::Carrier { up: true } });
                }
            }
        }
        for _ in 0..some(0.3, 3, &mut rng) {
            let (router, at) = (self.member(&mut rng), moment(end, &mut rng));
            let length = self.lease.mul_f64(2.0 * rng.unit());
            push(at, Fault::Freeze { router, length: length.min(end.since(at)) });
        }
        for _ in 0..some(0.3, 2, &mut rng) {
            let (from, side) = (moment(end, &mut rng), rng.next_u64());
            let to = (from + Duration::from_millis(100 + rng.below(3000))).min(end);
            let wires = self.wires(|a, b| (side >> a ^ side >> b) & 1 == 1);
            if !wires.is_empty() {
                push(from, Fault::Partition { shape: Partition::Full, wires: wires.clone() });
                push(to, Fault::Merge { wires });
            }
        }
        steps
    }

    /// Both directions of the links between members of which `which`, given their places in the group, says so.
    fn wires(&self, which: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
        let places = || 0..self.members.len();
        let pairs = places().flat_map(|a| places().map(move |b| (a, b))).filter(|&(a, b)| a != b && which(a, b));
        pairs.map(|(a, b)| (self.members[a], self.members[b])).collect()
    }

    fn draw_order(&self, rng: &mut Rng) -> VipOrder {
        let set = set_name(rng.below(self.sets as u64) as usize);
        let member = name(self.member(rng));
        match rng.below(8) {
            0 => VipOrder::Move { set, to: None },
            1..=3 => VipOrder::Move { set, to: Some(member) },
            4 => VipOrder::Drain { member },
            5 | 6 => VipOrder::Undrain { member },
            _ => VipOrder::Balance,
        }
    }

    fn member(&self, rng: &mut Rng) -> usize {
        self.members[rng.below(self.members.len() as u64) as usize]
    }

    /// Whether it can be run among these routers and links.
    pub(super) fn fits(&self, topology: &Topology) -> bool {
        let linked = |a: usize, b: usize| topology.links.contains(&(a.min(b), a.max(b)));
        let ascend = self.members.is_sorted_by(|a, b| a < b) && self.members.last() < Some(&topology.routers);
        let all = self.wires(|_, _| true).into_iter().all(|(a, b)| linked(a, b));
        ascend && all && self.members.len() >= 2 && (1..=MAX_SETS).contains(&self.sets) && !self.lease.is_zero()
    }

    /// `[vip]` of every member's configuration.
    pub(super) fn config(&self) -> Vip {
        let set = |set: usize| VipSet {
            router: false,
            conntrack: false,
            name: set_name(set),
            addresses: vec![VipAddress {
                ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, set as u8 + 1)),
                interface: INTERFACE.into(),
            }],
            coverage: Coverage::Component,
            prefer: Vec::new(),
        };
        Vip {
            members: self.members.iter().map(|&router| name(router)).collect(),
            maturity: self.maturity,
            lease: self.lease,
            linger: self.linger,
            balance: (!self.balance.is_zero()).then_some(self.balance),
            sets: (0..self.sets).map(set).collect(),
            ..Vip::default()
        }
    }
}

/// What a set is called.
fn set_name(set: usize) -> String {
    format!("s{set}")
}

/// So many members or fewer: routers that are linked with each other or, half of the time, any, linked on purpose.
fn draw_members(count: usize, topology: &mut Topology, rng: &mut Rng) -> Vec<usize> {
    let mut members: Vec<usize> = Vec::new();
    let mut left: Vec<usize> = (0..topology.routers).collect();
    let any = rng.chance(0.5);
    while members.len() < count && !left.is_empty() {
        let router = left.swap_remove(rng.below(left.len() as u64) as usize);
        let linked = |&other: &usize| topology.links.contains(&(router.min(other), router.max(other)));
        if any || members.iter().all(linked) {
            members.push(router);
        }
    }
    if let [alone] = members[..] {
        members.push((alone + 1) % topology.routers);
    }
    members.sort_unstable();
    for (place, &b) in members.iter().enumerate() {
        let missing = members[..place].iter().map(|&a| (a, b)).filter(|pair| !topology.links.contains(pair));
        topology.links.extend(missing.collect::<Vec<_>>());
    }
    members
}

/// None in most runs.
fn some(chance: f64, most: u64, rng: &mut Rng) -> u64 {
    if rng.chance(chance) { 1 + rng.below(most) } else { 0 }
}

/// Any moment after the first half second.
fn moment(end: Instant, rng: &mut Rng) -> Instant {
    Instant::from_nanos(500_000_000 + rng.below(end.as_nanos() - 600_000_000))
}
