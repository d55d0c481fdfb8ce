//! Which flows go with which sets.
//!
//! Only those that the next owner can carry on: with an address of a set that hands its flows over; if such a set is a
//! router's, those too that have no address of any, so that they pass through it. Flows that end at this host itself, at an
//! address that is no set's, stay where they are, and so do those that no router forwards. The rule is the same for what is
//! told and for what is believed: a member can tell only of flows of sets that it holds, and nobody can have a flow made
//! here that leads to this host.

use crate::wire::flows::Flow;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A set whose flows are handed over with it.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    /// Its place among all sets.
    pub(super) set: usize,
    pub(super) addresses: Vec<IpAddr>,
    /// Flows pass through it that have none of its addresses.
    pub(super) router: bool,
}

/// Why a flow does not go with some sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It has an address that no router forwards packets from, or to.
    Unrouted,
    /// It ends at this host.
    Own,
    /// It is of none of them.
    Foreign,
}

/// The sets, and this host.
#[derive(Debug)]
pub(super) struct Scope {
    sets: Vec<Carried>,
    /// All addresses of those.
    addresses: BTreeSet<IpAddr>,
    /// Other addresses of this host.
    own: BTreeSet<IpAddr>,
}

impl Scope {
    /// Of these sets, on a host without addresses.
    pub(super) fn new(sets: Vec<Carried>) -> Scope {
        let addresses = sets.iter().flat_map(|set| &set.addresses).copied().collect();
        Scope { sets, addresses, own: BTreeSet::new() }
    }

    /// The sets whose flows are handed over.
    pub(super) fn sets(&self) -> impl Iterator<Item = usize> {
        self.sets.iter().map(|carried| carried.set)
    }

    /// This host has these addresses.
    pub(super) fn host_has(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        self.own = addresses.filter(|address| !self.addresses.contains(address)).collect();
    }

    /// Why a flow does not go with these sets, if it does not.
    pub(super) fn unfit(&self, flow: &Flow, sets: &[usize]) -> Option<Unfit> {
        let ends = ends(flow);
        if !ends.iter().all(|end| is_routed(*end)) {
            Some(Unfit::Unrouted)
        } else if ends.iter().any(|end| self.own.contains(end)) {
            Some(Unfit::Own)
        } else if !self.is_of(flow, sets) {
            Some(Unfit::Foreign)
        } else {
            None
        }
    }

    /// Whether a flow is of one of these sets.
    pub(super) fn is_of(&self, flow: &Flow, sets: &[usize]) -> bool {
        let ends = ends(flow);
        let through = !ends.iter().any(|end| self.addresses.contains(end));
        let mut wanted = self.sets.iter().filter(|carried| sets.contains(&carried.set));
        wanted.any(|carried| {
            let has = ends.iter().any(|end| carried.addresses.contains(end));
            has || (carried.router && through)
        })
    }
}

/// Whom a flow is between, before and after translation.
fn ends(flow: &Flow) -> [IpAddr; 4] {
    let (original, reply) = (&flow.original, &flow.reply);
    [original.source, original.destination, reply.source, reply.destination].map(|end| end.ip())
}

/// Whether routers forward packets with this address.
fn is_routed(address: IpAddr) -> bool {
    let local = match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let address = address.to_canonical();
    !(local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::flows::{TCP, Tcp, Tuple};

    pub(in super::super) const GATEWAY: usize = 3;
    pub(in super::super) const SERVICE: usize = 5;

    pub(in super::super) fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// A router's set and a service's, on a host with an address of its own beside the router's.
    pub(in super::super) fn scope() -> Scope {
        let gateway = Carried { set: GATEWAY, addresses: vec![ip("10.0.0.1"), ip("198.51.100.1")], router: true };
        let service = Carried { set: SERVICE, addresses: vec![ip("192.0.2.80")], router: false };
        let mut scope = Scope::new(vec![gateway, service]);
        scope.host_has(["10.0.0.2", "198.51.100.1", "127.0.0.1"].map(ip).into_iter());
        scope
    }

    pub(in super::super) fn flow(source: &str, destination: &str) -> Flow {
        let end = |text: &str| text.parse().expect("an address and a port");
        let original = Tuple { protocol: TCP, source: end(source), destination: end(destination) };
        let tcp = Some(Tcp { state: 3, flags: [3; 2], scales: [7; 2] });
        Flow { original, reply: original.turned(), tcp, mark: 0, timeout: 432_000 }
    }

    /// One that passes through the router.
    pub(in super::super) fn through(port: u16) -> Flow {
        flow(&format!("10.0.0.9:{port}"), "203.0.113.5:443")
    }

    #[test]
    fn a_flow_goes_with_a_set_whose_next_owner_can_carry_it_on() {
        let scope = scope();
        let mut masqueraded = through(2);
        masqueraded.reply.destination = "198.51.100.1:2".parse().expect("an address");
        let to_service = flow("10.0.0.9:1", "192.0.2.80:80");
        let cases = [
            (through(1), GATEWAY, None),
            (through(1), SERVICE, Some(Unfit::Foreign)),
            (masqueraded, GATEWAY, None),
            (masqueraded, SERVICE, Some(Unfit::Foreign)),
            (to_service, SERVICE, None),
            (to_service, GATEWAY, Some(Unfit::Foreign)),
            (flow("10.0.0.9:1", "10.0.0.2:22"), GATEWAY, Some(Unfit::Own)),
            (flow("10.0.0.2:9", "192.0.2.80:80"), SERVICE, Some(Unfit::Own)),
            (flow("10.0.0.9:1", "224.0.0.251:5353"), GATEWAY, Some(Unfit::Unrouted)),
            (flow("127.0.0.1:1", "192.0.2.80:80"), SERVICE, Some(Unfit::Unrouted)),
            (flow("169.254.0.9:1", "192.0.2.80:80"), SERVICE, Some(Unfit::Unrouted)),
            (flow("[fe80::9]:1", "[2001:db8::1]:80"), GATEWAY, Some(Unfit::Unrouted)),
            (flow("[::ffff:127.0.0.1]:1", "[2001:db8::1]:80"), GATEWAY, Some(Unfit::Unrouted)),
        ];
        for (flow, set, unfit) in cases {
            assert_eq!(scope.unfit(&flow, &[set]), unfit, "{flow:?} of {set}");
        }
        assert_eq!(scope.unfit(&through(1), &[SERVICE, GATEWAY]), None);
        assert_eq!(scope.unfit(&through(1), &[]), Some(Unfit::Foreign));
    }
}
