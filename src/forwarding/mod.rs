//! Floor 2: the one place a next hop is chosen.
//!
//! [`forward`] is the whole answer to "where does this packet go": a pure function of an immutable [`Table`] and a
//! message header. Control computes tables; each worker holds one and swaps it whole.

use crate::base::limits::{MAX_LINKS, MAX_WORKERS};
use crate::base::sabotage::{Rule, broken};
use crate::base::search::place_of;
use crate::base::worker::{home, pick};
use crate::base::{LinkId, NodeId};
use crate::telemetry::DropReason;
use crate::wire::message::Header;

/// Where every destination is reached. Immutable; replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    node: NodeId,
    generation: u64,
    routes: Vec<(NodeId, LinkId)>,
    /// Workers of this router.
    workers: usize,
    /// Lanes of every link.
    lanes: [u8; MAX_LINKS],
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is for a session of this router, which lives at this worker.
    Local(usize),
    /// Send it over this lane of this link, its ttl counted down to this. A lane is its worker's.
    Via(LinkId, usize, u8),
    /// Drop it.
    Drop(DropReason),
}

impl Table {
    /// A table for router `node`. `routes` name the link towards each other router, in any order.
    pub fn new(node: NodeId, generation: u64, routes: impl IntoIterator<Item = (NodeId, LinkId)>) -> Table {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_unstable();
        routes.dedup_by_key(|route| route.0);
        Table { node, generation, routes, workers: 1, lanes: [1; MAX_LINKS] }
    }

    /// A table that knows no other router.
    pub const fn empty(node: NodeId) -> Table {
        Table { node, generation: 0, routes: Vec::new(), workers: 1, lanes: [1; MAX_LINKS] }
    }

    /// The table of a router with so many workers, whose links have these numbers of lanes; one, where nothing is said.
    #[must_use]
    pub fn among(self, workers: usize, lanes: impl IntoIterator<Item = (LinkId, usize)>) -> Table {
        assert!((1..=MAX_WORKERS).contains(&workers), "{workers} workers");
        let mut table = Table { workers, lanes: [1; MAX_LINKS], ..self };
        for (link, lanes) in lanes {
            assert!((1..=workers).contains(&lanes), "{link} has {lanes} lanes, one for each worker at most");
            table.lanes[link.index()] = lanes as u8;
        }
        table
    }

    /// Whether both send everything the same way.
    pub fn agrees(&self, other: &Table) -> bool {
        (self.workers, &self.lanes, &self.routes) == (other.workers, &other.lanes, &other.routes)
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

/// Where a message goes. The lane is chosen by the flow alone, so a router with as many workers as its neighbours sends a
/// message over the lane, and by the worker, that it came by.
pub fn forward(table: &Table, header: &Header) -> Verdict {
    if header.destination == table.node {
        return Verdict::Local(home(header.destination_port, table.workers));
    }
    if header.ttl <= 1 {
        return Verdict::Drop(DropReason::TtlExpired);
    }
    let Some(link) = table.next_hop(header.destination) else { return Verdict::Drop(DropReason::NoRoute) };
    let lane = match table.lanes[link.index()] {
        1 => 0,
        lanes => pick(header.flow_hash(), usize::from(lanes)),
    };
    Verdict::Via(link, lane, if broken(Rule::HopsLeft) { header.ttl } else { header.ttl - 1 })
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
        assert_eq!(forward(&table, &to(1, 1)), Verdict::Local(0));
        assert_eq!(forward(&table, &to(2, 9)), Verdict::Via(LinkId(0), 0, 8));
        assert_eq!(forward(&table, &to(3, 2)), Verdict::Via(LinkId(1), 0, 1));
        assert_eq!(forward(&table, &to(3, 1)), Verdict::Drop(DropReason::TtlExpired));
        assert_eq!(forward(&table, &to(4, 9)), Verdict::Drop(DropReason::NoRoute));
    }

    #[test]
    fn a_flow_keeps_to_one_lane_of_every_link_with_as_many() {
        let routes = [(NodeId(2), LinkId(0)), (NodeId(3), LinkId(1))];
        let table = Table::new(NodeId(1), 1, routes).among(3, [(LinkId(0), 3), (LinkId(1), 2)]);
        let other = Table::new(NodeId(4), 1, [(NodeId(2), LinkId(7))]).among(3, [(LinkId(7), 3)]);
        let lane = |table: &Table, header: Header| match forward(table, &header) {
            Verdict::Via(_, lane, _) => lane,
            other => panic!("{other:?}"),
        };
        let mut used = [[0; 3]; 2];
        for port in 0..900 {
            let (here, there) = (Header { source_port: port, ..to(2, 9) }, Header { source_port: port, ..to(3, 9) });
            assert_eq!(lane(&table, here), lane(&other, here));
            used[0][lane(&table, here)] += 1;
            used[1][lane(&table, there)] += 1;
        }
        assert!(used[0].iter().chain(&used[1][..2]).all(|&count| count > 200), "{used:?}");
        assert_eq!(used[1][2], 0);
        let at = |port| match forward(&table, &Header { destination_port: port, ..to(1, 1) }) {
            Verdict::Local(worker) => worker,
            other => panic!("{other:?}"),
        };
        assert!((0..100).all(|port| at(port) == home(port, 3)));
    }
}
