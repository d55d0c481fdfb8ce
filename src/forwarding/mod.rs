//! Floor 2: the one place a next hop is chosen.
//!
//! [`forward`] is the whole answer to "where does this packet go": a pure function of an immutable [`Table`] and a
//! message header. Control computes tables; each worker holds one and swaps it whole.

use crate::base::sabotage::{Rule, broken};
use crate::base::search::place_of;
use crate::base::{LinkId, NodeId};
use crate::telemetry::DropReason;
use crate::wire::message::Header;

/// Where every destination is reached. Immutable; replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    node: NodeId,
    generation: u64,
    routes: Vec<(NodeId, LinkId)>,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is for a session of this router.
    Local,
    /// Send it over this link, its ttl counted down to this.
    Via(LinkId, u8),
    /// Drop it.
    Drop(DropReason),
}

impl Table {
    /// A table for router `node`. `routes` name the link towards each other router, in any order.
    pub fn new(node: NodeId, generation: u64, routes: impl IntoIterator<Item = (NodeId, LinkId)>) -> Table {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_unstable();
        routes.dedup_by_key(|route| route.0);
        Table { node, generation, routes }
    }

    /// A table that knows no other router.
    pub const fn empty(node: NodeId) -> Table {
        Table { node, generation: 0, routes: Vec::new() }
    }

    /// The router this table belongs to.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Counts the tables of a router.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The link towards `destination`.
    pub fn next_hop(&self, destination: NodeId) -> Option<LinkId> {
        place_of(&self.routes, destination, |route| route.0).map(|place| self.routes[place].1)
    }

    /// All routes, by destination.
    pub fn routes(&self) -> &[(NodeId, LinkId)] {
        &self.routes
    }
}

/// Where a message goes.
pub fn forward(table: &Table, header: &Header) -> Verdict {
    if header.destination == table.node {
        return Verdict::Local;
    }
    if header.ttl <= 1 {
        return Verdict::Drop(DropReason::TtlExpired);
    }
    match table.next_hop(header.destination) {
        Some(link) if broken(Rule::HopsLeft) => Verdict::Via(link, header.ttl),
        Some(link) => Verdict::Via(link, header.ttl - 1),
        None => Verdict::Drop(DropReason::NoRoute),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Class;
    use crate::wire::message::Protocol;

    fn to(destination: u64, ttl: u8) -> Header {
        Header {
            class: Class::Reliable,
            ttl,
            mark: false,
            protocol: Protocol::Datagram,
            destination: NodeId(destination),
            source: NodeId(9),
            destination_port: 1,
            source_port: 2,
        }
    }

    #[test]
    fn one_verdict_for_every_header() {
        let table = Table::new(NodeId(1), 1, [(NodeId(3), LinkId(1)), (NodeId(2), LinkId(0))]);
        assert_eq!(forward(&table, &to(1, 1)), Verdict::Local);
        assert_eq!(forward(&table, &to(2, 9)), Verdict::Via(LinkId(0), 8));
        assert_eq!(forward(&table, &to(3, 2)), Verdict::Via(LinkId(1), 1));
        assert_eq!(forward(&table, &to(3, 1)), Verdict::Drop(DropReason::TtlExpired));
        assert_eq!(forward(&table, &to(4, 9)), Verdict::Drop(DropReason::NoRoute));
    }
}
