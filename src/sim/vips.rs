//! The group of a run that shares service addresses: who they are, how many sets, and how patient they are.
//!
//! Everything about it is drawn apart from all else, so that a seed without a group runs as it did before there were any.
//! Its members are linked with each other, as members of such a group must be. What it is troubled by is in `troubles.rs`.

mod troubles;

use super::topology::{Topology, name};
use super::units::millis;
use crate::base::Rng;
use crate::base::hash::mix64;
use crate::config::settings::{Coverage, Question, Vip, VipAddress, VipCheck, VipSet};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// This share of the seeds has a group, where not all have.
const SHARE: f64 = 1.0 / 3.0;
/// In this share of the groups some sets are covered by a majority alone, and in this one services are checked.
const MAJORITY: f64 = 0.4;
const CHECKED: f64 = 0.4;
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
    /// The sets, by number, that are covered only where more than half of the members are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub majority: Vec<usize>,
    /// Every member has a health check for each set, and one for all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checked: bool,
}

impl Vips {
    /// The group of a seed, if it has one; `always`: it has. Links its members in `topology`.
    pub(super) fn draw(seed: u64, always: bool, topology: &mut Topology) -> Option<Vips> {
        let mut rng = Rng::from_u64(mix64(seed ^ APART));
        if !rng.chance(SHARE) && !always {
            return None;
        }
        let most = MOST_MEMBERS.min(topology.routers as u64);
        let members = draw_members(2 + rng.below(most - 1) as usize, topology, &mut rng);
        let millis = |rng: &mut Rng, among: [u64; 4]| Duration::from_millis(among[rng.below(4) as usize]);
        let sets = 1 + rng.below(MOST_SETS) as usize;
        let vips = Vips {
            members,
            sets,
            lease: millis(&mut rng, [50, 50, 200, 1000]),
            linger: millis(&mut rng, [0, 100, 1000, 1000]),
            maturity: millis(&mut rng, [0, 500, 1000, 3000]),
            balance: millis(&mut rng, [0, 500, 1000, 4000]),
            majority: Vec::new(),
            checked: rng.chance(CHECKED),
        };
        let some = rng.chance(MAJORITY);
        let majority = (0..sets).filter(|_| rng.chance(0.5) && some).collect();
        Some(Vips { majority, ..vips })
    }

    /// Checks of each member: one for each set and one for all, or none.
    pub(super) const fn checks(&self) -> usize {
        if self.checked { self.sets + 1 } else { 0 }
    }

    /// Both directions of the links between members of which `which`, given their places in the group, says so.
    fn wires(&self, which: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
        let places = || 0..self.members.len();
        let pairs = places().flat_map(|a| places().map(move |b| (a, b))).filter(|&(a, b)| a != b && which(a, b));
        pairs.map(|(a, b)| (self.members[a], self.members[b])).collect()
    }

    /// Whether it can be run among these routers and links.
    pub(super) fn fits(&self, topology: &Topology) -> bool {
        let linked = |a: usize, b: usize| topology.links.contains(&(a.min(b), a.max(b)));
        let ascend = self.members.is_sorted_by(|a, b| a < b) && self.members.last() < Some(&topology.routers);
        let all = self.wires(|_, _| true).into_iter().all(|(a, b)| linked(a, b));
        let sets = (1..=MAX_SETS).contains(&self.sets) && self.majority.iter().all(|&set| set < self.sets);
        ascend && all && self.members.len() >= 2 && sets && !self.lease.is_zero()
    }

    /// `[vip]` of a member's configuration: the same on all, but where it is `unequal`.
    pub(super) fn config(&self, unequal: bool) -> Vip {
        let set = |set: usize| VipSet {
            router: false,
            conntrack: false,
            name: set_name(set),
            addresses: vec![VipAddress { ip: address(set), interface: INTERFACE.into() }],
            coverage: if self.majority.contains(&set) { Coverage::Majority } else { Coverage::Component },
            prefer: Vec::new(),
        };
        let check = |check: usize| VipCheck {
            name: format!("c{check}"),
            question: Question::Process("simulated".to_owned()),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 1,
            sets: (check < self.sets).then(|| set_name(check)).into_iter().collect(),
        };
        Vip {
            members: self.members.iter().map(|&router| name(router)).collect(),
            maturity: self.maturity,
            lease: self.lease,
            linger: self.linger + Duration::from_millis(unequal.into()),
            balance: (!self.balance.is_zero()).then_some(self.balance),
            sets: (0..self.sets).map(set).collect(),
            checks: (0..self.checks()).map(check).collect(),
            ..Vip::default()
        }
    }
}

/// What a set is called.
fn set_name(set: usize) -> String {
    format!("s{set}")
}

/// The only address of a set.
pub(super) const fn address(set: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, set as u8 + 1))
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
