//! Who reaches whom, and who therefore belongs together.
//!
//! Every member tells whom it reaches; two reach each other if both say so. Those who all reach each other are a *clique*.
//! The routers are put into cliques in the order of their ids: the first one takes all that reach it and each other, the
//! first of the rest does the same, and so on. Whoever knows the same entries finds the same cliques.
//!
//! A clique is *closed* if none of its members reaches anybody else. Then there is nothing to wait for: it can only be
//! that not all have noticed a fault, or a repair, if some still claim to reach somebody outside.

use crate::base::limits::MAX_MEMBERS;
use crate::base::{Instant, NodeId};
use crate::wire::membership::Entry;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is newer than what was known.
    Newer,
    /// It was known, or something newer.
    Known,
    /// There is no place for it.
    Full,
}

/// Who reaches whom, as far as known. At most [`MAX_MEMBERS`] routers.
#[derive(Debug)]
pub(super) struct Graph {
    me: NodeId,
    entries: BTreeMap<NodeId, Entry>,
    changed_at: Instant,
    /// Those of the clique, and whether it is closed.
    clique: Vec<NodeId>,
    closed: bool,
}

impl Graph {
    /// A router that reaches nobody.
    pub(super) fn new(now: Instant, own: Entry) -> Graph {
        let (me, entries) = (own.node, BTreeMap::from([(own.node, own)]));
        let mut graph = Graph { me, entries, changed_at: now, clique: Vec::new(), closed: true };
        graph.find_clique();
        graph
    }

    /// What is known of `node`.
    pub(super) fn entry(&self, node: NodeId) -> Option<&Entry> {
        self.entries.get(&node)
    }

    /// This router's own entry.
    pub(super) fn own(&self) -> &Entry {
        &self.entries[&self.me]
    }

    /// All that is known, by id.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// When somebody last said something else about whom it reaches.
    pub(super) const fn changed_at(&self) -> Instant {
        self.changed_at
    }

    /// Those with whom this router belongs together, itself among them, ascending.
    pub(super) fn clique(&self) -> &[NodeId] {
        &self.clique
    }

    /// Whether nobody in the clique reaches anybody outside.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether both say that they reach each other.
    pub(super) fn mutual(&self, a: NodeId, b: NodeId) -> bool {
        let says = |a, b| self.entries.get(&a).is_some_and(|entry| entry.reach.binary_search(&b).is_ok());
        says(a, b) && says(b, a)
    }

    /// Takes in what `entry` says, if it is newer.
    pub(super) fn take(&mut self, now: Instant, entry: Entry) -> Taken {
        let order = |entry: &Entry| (entry.incarnation, entry.version);
        let known = self.entries.get(&entry.node);
        if known.is_some_and(|known| order(known).cmp(&order(&entry)) != Ordering::Less) {
            return Taken::Known;
        }
        if known.is_none() && self.entries.len() >= MAX_MEMBERS {
            return Taken::Full;
        }
        let same = known.is_some_and(|known| (known.incarnation, &known.reach) == (entry.incarnation, &entry.reach));
        self.entries.insert(entry.node, entry);
        if !same {
            self.changed(now);
        }
        Taken::Newer
    }

    /// Forgets what `node` said: it may not hold any more.
    pub(super) fn forget(&mut self, now: Instant, node: NodeId) {
        assert!(node != self.me, "a router knows itself");
        if self.entries.remove(&node).is_some() {
            self.changed(now);
        }
    }

    /// Forgets those that `keep` does not want and that nobody in the clique reaches.
    pub(super) fn prune(&mut self, keep: impl Fn(NodeId) -> bool) {
        let near = |node| self.entries.values().any(|entry| entry.reach.binary_search(&node).is_ok());
        let lonely = |&node: &NodeId| node != self.me && !keep(node) && !near(node);
        for node in self.entries.keys().copied().filter(lonely).collect::<Vec<_>>() {
            self.entries.remove(&node);
        }
    }

    fn changed(&mut self, now: Instant) {
        self.changed_at = now;
        self.find_clique();
    }

    fn find_clique(&mut self) {
        let nodes: Vec<NodeId> = self.entries.keys().copied().collect();
        let said: Vec<u64> = self.entries.values().map(|entry| set_of(&nodes, &entry.reach)).collect();
        let heard = |a: usize| (0..nodes.len()).filter(|&b| said[b] & 1 << a != 0).fold(0, |set, b| set | 1u64 << b);
        let mutual: Vec<u64> = (0..nodes.len()).map(|a| said[a] & heard(a)).collect();
        let me = nodes.binary_search(&self.me).expect("a router knows itself");
        let mut left = u64::MAX;
        let clique = loop {
            let first = (0..nodes.len()).find(|&node| left & 1 << node != 0).expect("this router is in one of them");
            let clique = grow(first, left, &mutual);
            if clique & 1 << me != 0 {
                break clique;
            }
            left &= !clique;
        };
        let members = || (0..nodes.len()).filter(|&node| clique & 1 << node != 0);
        self.closed = members().all(|node| mutual[node] | 1 << node == clique);
        self.clique = members().map(|node| nodes[node]).collect();
    }
}

/// The clique that begins with `first` and takes, in order, all of `left` that fit.
fn grow(first: usize, left: u64, mutual: &[u64]) -> u64 {
    let mut clique = 1u64 << first;
    for (node, reach) in mutual.iter().enumerate() {
        if left & 1 << node != 0 && reach & clique == clique {
            clique |= 1 << node;
        }
    }
    clique
}

fn set_of(nodes: &[NodeId], of: &[NodeId]) -> u64 {
    let bits = of.iter().filter_map(|node| nodes.binary_search(node).ok());
    bits.fold(0, |set, bit| set | 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: u64, version: u64, reach: &[u64]) -> Entry {
        let reach = reach.iter().map(|&id| NodeId(id)).collect();
        Entry { node: NodeId(node), incarnation: 1, version, attempt: 0, reach }
    }

    fn graph(me: u64, edges: &[(u64, &[u64])]) -> Graph {
        let own = edges.iter().find(|edge| edge.0 == me).expect("its own");
        let mut graph = Graph::new(Instant::ZERO, entry(me, 1, own.1));
        for &(node, reach) in edges.iter().filter(|edge| edge.0 != me) {
            assert_eq!(graph.take(Instant::ZERO, entry(node, 1, reach)), Taken::Newer);
        }
        graph
    }

    fn clique(graph: &Graph) -> (Vec<u64>, bool) {
        (graph.clique().iter().map(|node| node.0).collect(), graph.is_closed())
    }

    #[test]
    fn all_members_find_the_same_cliques() {
        let line: &[(u64, &[u64])] = &[(1, &[2]), (2, &[1, 3]), (3, &[2, 4]), (4, &[3])];
        for (me, expected) in [(1, vec![1, 2]), (2, vec![1, 2]), (3, vec![3, 4]), (4, vec![3, 4])] {
            let (members, closed) = clique(&graph(me, line));
            assert_eq!((members, closed), (expected, false), "{me}");
        }
        let mesh: &[(u64, &[u64])] = &[(1, &[2, 3]), (2, &[1, 3]), (3, &[1, 2])];
        assert!([1, 2, 3].iter().all(|&me| clique(&graph(me, mesh)) == (vec![1, 2, 3], true)));
    }

    #[test]
    fn a_claim_of_one_end_alone_is_no_reach() {
        let graph = graph(1, &[(1, &[2, 3]), (2, &[1]), (3, &[])]);
        assert_eq!(clique(&graph), (vec![1, 2], true));
        assert!(graph.mutual(NodeId(1), NodeId(2)) && !graph.mutual(NodeId(1), NodeId(3)));
    }

    #[test]
    fn older_entries_change_nothing_and_there_is_a_bound() {
        let mut graph = graph(1, &[(1, &[2]), (2, &[1])]);
        let later = Instant::from_millis(5);
        assert_eq!(graph.take(later, entry(2, 1, &[])), Taken::Known);
        assert_eq!(graph.changed_at(), Instant::ZERO);
        assert_eq!(graph.take(later, entry(2, 2, &[1])), Taken::Newer);
        assert_eq!(graph.changed_at(), Instant::ZERO, "it says the same");
        assert_eq!(graph.take(later, Entry { incarnation: 2, ..entry(2, 1, &[]) }), Taken::Newer);
        assert_eq!((clique(&graph).0, graph.changed_at()), (vec![1], later));
        for node in 3..=MAX_MEMBERS as u64 {
            assert_eq!(graph.take(later, entry(node, 1, &[])), Taken::Newer);
        }
        assert_eq!(graph.take(later, entry(99, 1, &[])), Taken::Full);
        graph.prune(|node| node == NodeId(7));
        assert_eq!(graph.entries().map(|it| it.node.0).collect::<Vec<_>>(), [1, 2, 7]);
    }
}
