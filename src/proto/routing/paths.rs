//! The way to everybody: map, tree of shortest paths, and the link that leads to each router.
//!
//! ```text
//!   said anew ──▶ Map::say ──▶ links that changed ──▶ none touches the tree: nothing to do
//!                                                 └─▶ one does: stale, until Paths::compute
//! ```
//! A path is followed through the tree when somebody asks for it; per destination nothing is kept but numbers.
//!
//! # What it costs
//! An advertisement costs a look at each of its links. If one of them touches the tree, the next computation walks the
//! whole map (Dijkstra with a binary heap: links times the logarithm of routers) and tells all routes if one of them is
//! another. Of 1,000 routers and 4,000 links that is 50 µs for the tree and 2 µs for the table; from a link that goes down
//! to the table that workers are given, with the advertisement that says so signed, it is 75 µs (`cargo bench --bench spf`).
//! To mend the tree in place (McQuillan, Richer and Rosen 1980) would save a part of the 50 µs where little changes, and
//! nothing of the rest; where much changes at once, which is when it matters, it walks as far.

use super::door::{NodeView, Route};
use super::map::{Map, Tree};
use super::metric::Metric;
use crate::base::{LinkId, NodeId};
use crate::wire::routing::AdvertisedLink;

/// What a router knows of the ways to others.
#[derive(Debug)]
pub(super) struct Paths {
    node: NodeId,
    map: Map,
    tree: Tree,
    /// The link to everybody in the tree.
    links: Vec<Option<LinkId>>,
    /// The tree is not that of the map.
    stale: bool,
}

impl Paths {
    /// Of router `node` among `members`, which ascend.
    pub(super) fn new(node: NodeId, members: impl IntoIterator<Item = NodeId>, metric: Metric) -> Paths {
        let map = Map::new(members, metric);
        let tree = Tree::new(&map);
        let links = vec![None; tree.nodes().len()];
        Paths { node, map, tree, links, stale: true }
    }

    /// The members are these from now on. All that they advertise must be said again.
    pub(super) fn set_members(&mut self, members: impl IntoIterator<Item = NodeId>, metric: Metric) {
        self.map = Map::new(members, metric);
        self.stale = true;
    }

    pub(super) fn set_metric(&mut self, metric: Metric) {
        self.map.set_metric(metric);
        self.stale = true;
    }

    /// What the member with this number, its place among all, advertises; nothing any more if `None`.
    pub(super) fn say<I>(&mut self, number: usize, links: Option<I>)
    where
        I: IntoIterator<Item = AdvertisedLink>,
    {
        let (tree, stale) = (&self.tree, &mut self.stale);
        self.map.say(number, links, |change| *stale = *stale || tree.is_touched_by(&change));
    }

    /// Whether paths must be computed.
    pub(super) const fn is_stale(&self) -> bool {
        self.stale
    }

    /// Computes all paths, if need be; whether that was so.
    pub(super) fn compute(&mut self) -> bool {
        let source = self.map.index(self.node).expect("a router is a member of its own map");
        if self.stale {
            self.tree.compute(&self.map, source);
        }
        std::mem::replace(&mut self.stale, false)
    }

    /// Takes `link_to`, the links to neighbours, for the first steps; gives all routes if any is another now.
    pub(super) fn lead(&mut self, link_to: impl Fn(NodeId) -> LinkId) -> Option<Vec<(NodeId, LinkId)>> {
        let tree = &self.tree;
        let count = tree.nodes().len();
        // Each neighbour is looked up once.
        let mut first: Vec<Option<LinkId>> = vec![None; count];
        let mut link = |target| {
            let via = tree.via(target)?;
            Some(*first[via].get_or_insert_with(|| link_to(tree.nodes()[via])))
        };
        let links: Vec<_> = (0..count).map(&mut link).collect();
        if links == self.links {
            return None;
        }
        self.links = links;
        Some(self.hops().collect())
    }

    fn hops(&self) -> impl Iterator<Item = (NodeId, LinkId)> + '_ {
        self.tree.nodes().iter().zip(&self.links).filter_map(|(&node, link)| Some((node, (*link)?)))
    }

    /// How many routers there is a way to.
    pub(super) fn reached(&self) -> usize {
        self.links.iter().flatten().count()
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        (0..self.links.len()).filter_map(|index| self.route_at(index))
    }

    pub(super) fn route(&self, node: NodeId) -> Option<Route> {
        self.route_at(self.tree.index(node)?)
    }

    /// How many links it is to `node`.
    pub(super) fn distance(&self, node: NodeId) -> Option<u32> {
        let index = self.tree.index(node)?;
        self.links[index].map(|_| self.tree.hops[index])
    }

    fn route_at(&self, index: usize) -> Option<Route> {
        let (destination, link) = (self.tree.nodes()[index], self.links[index]?);
        Some(Route { destination, link, cost: self.tree.cost[index], path: self.tree.path(index) })
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeView> + '_ {
        let speaks = |&(index, _): &(usize, &NodeId)| self.map.speaks(index);
        self.map.nodes().iter().enumerate().filter(speaks).map(|(index, &node)| NodeView {
            node,
            reachable: node == self.node || self.distance(node).is_some(),
            links: self.map.edges(index).count(),
        })
    }
}
