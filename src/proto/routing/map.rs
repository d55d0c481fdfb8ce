//! The map: who is linked to whom, and the shortest paths through it.
//!
//! Routers are numbered by ascending id, links are kept in one array cut by router. A link is in the map only if both of
//! its ends advertise it, so one router alone can neither invent a link nor keep a dead one.

use super::metric::Metric;
use crate::base::NodeId;
use crate::base::sabotage::{Rule, broken};
use crate::wire::routing::AdvertisedLink;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Marks a router without a parent in a [`Tree`].
const NOBODY: u32 = u32::MAX;

/// The links that both ends advertise.
#[derive(Debug, Default)]
pub(super) struct Map {
    nodes: Vec<NodeId>,
    first: Vec<u32>,
    edges: Vec<(u32, u64)>,
}

/// Shortest paths from one router.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Cost of the shortest path; `u64::MAX` where there is none.
    pub(super) cost: Vec<u64>,
    /// Links on it.
    pub(super) hops: Vec<u32>,
    parent: Vec<u32>,
}

impl Map {
    /// The map of `advertised`: every router with its links, both ascending by id.
    pub(super) fn build(advertised: &[(NodeId, &[AdvertisedLink])], metric: Metric) -> Map {
        assert!(advertised.is_sorted_by(|a, b| a.0 < b.0), "routers ascend");
        let mut map = Map { nodes: advertised.iter().map(|entry| entry.0).collect(), ..Map::default() };
        map.first.push(0);
        for (node, links) in advertised {
            for link in *links {
                let Some(index) = map.index(link.neighbour) else { continue };
                let theirs = advertised[index].1;
                if let Ok(back) = theirs.binary_search_by_key(node, |back| back.neighbour) {
                    map.edges.push((index as u32, metric.cost(link, &theirs[back])));
                } else if broken(Rule::BothEnds) {
                    map.edges.push((index as u32, metric.cost(link, link)));
                }
            }
            map.first.push(map.edges.len() as u32);
        }
        map
    }

    /// The router's place in the map.
    pub(super) fn index(&self, node: NodeId) -> Option<usize> {
        self.nodes.binary_search(&node).ok()
    }

    /// All routers, ascending.
    pub(super) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Links of a router: the other ends and the costs, ascending by id.
    pub(super) fn edges(&self, index: usize) -> &[(u32, u64)] {
        &self.edges[self.first[index] as usize..self.first[index + 1] as usize]
    }

    /// Shortest paths from `source` (Dijkstra). Of paths that cost the same the one with fewer links wins; of those the
    /// one whose last but one router has the lowest id, and so on backwards: every router that holds this map computes
    /// the same tree.
    pub(super) fn shortest(&self, source: usize) -> Tree {
        let count = self.nodes.len();
        let mut tree = Tree { cost: vec![u64::MAX; count], hops: vec![u32::MAX; count], parent: vec![NOBODY; count] };
        let mut settled = vec![false; count];
        let mut heap = BinaryHeap::with_capacity(count);
        (tree.cost[source], tree.hops[source]) = (0, 0);
        heap.push(Reverse((0u64, 0u32, source as u32)));
        while let Some(Reverse((cost, hops, node))) = heap.pop() {
            if std::mem::replace(&mut settled[node as usize], true) {
                continue;
            }
            for &(to, weight) in self.edges(node as usize) {
                let index = to as usize;
                let offer = (cost.saturating_add(weight), hops + 1, node);
                let held = (tree.cost[index], tree.hops[index], tree.parent[index]);
                if !settled[index] && offer < held {
                    (tree.cost[index], tree.hops[index], tree.parent[index]) = offer;
                    heap.push(Reverse((offer.0, offer.1, to)));
                }
            }
        }
        tree
    }
}

impl Tree {
    /// The routers from the source (left out) to `target` (included); empty for the source and where no path leads.
    pub(super) fn path(&self, map: &Map, target: usize) -> Vec<NodeId> {
        if self.parent[target] == NOBODY {
            return Vec::new();
        }
        let mut path = Vec::with_capacity(self.hops[target] as usize);
        let mut at = target;
        while self.parent[at] != NOBODY {
            path.push(map.nodes[at]);
            at = self.parent[at] as usize;
        }
        path.reverse();
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Lists = BTreeMap<NodeId, Vec<AdvertisedLink>>;

    fn link(neighbour: u64, rtt_us: u32) -> AdvertisedLink {
        AdvertisedLink { neighbour: NodeId(neighbour), rtt_us, jitter_us: 0, loss_ppm: 0 }
    }

    fn lists(count: u64, one_way: &BTreeMap<(u64, u64), u32>) -> Lists {
        let mut lists: Lists = (0..count).map(|id| (NodeId(id), Vec::new())).collect();
        for (&(from, to), &rtt) in one_way {
            lists.entry(NodeId(from)).or_default().push(link(to, rtt));
        }
        lists
    }

    fn build(lists: &Lists) -> Map {
        let entries: Vec<_> = lists.iter().map(|(&node, links)| (node, links.as_slice())).collect();
        Map::build(&entries, Metric::Latency)
    }

    /// Bellman-Ford over (cost, hops), straight from the lists.
    fn naive(count: u64, one_way: &BTreeMap<(u64, u64), u32>, source: u64) -> Vec<Option<(u64, u32)>> {
        let mut best = vec![None; count as usize];
        best[source as usize] = Some((0, 0));
        for _ in 0..count {
            for (&(from, to), &there) in one_way {
                let (Some(&back), Some((cost, hops))) = (one_way.get(&(to, from)), best[from as usize]) else {
                    continue;
                };
                let offer = (cost + u64::from(there.max(back) / 2).max(1), hops + 1);
                let held: &mut Option<(u64, u32)> = &mut best[to as usize];
                if held.is_none_or(|held| offer < held) {
                    *held = Some(offer);
                }
            }
        }
        best
    }

    proptest! {
        #[test]
        fn shortest_paths_are_those_of_bellman_and_ford(
            count in 1u64..14,
            pairs in prop::collection::vec((0u64..14, 0u64..14, 0u32..12, any::<bool>()), 0..60),
        ) {
            let mut one_way = BTreeMap::new();
            for (a, b, rtt, both) in pairs {
                if a != b && a < count && b < count {
                    one_way.insert((a, b), rtt);
                    if both {
                        one_way.insert((b, a), rtt / 2);
                    }
                }
            }
            let map = build(&lists(count, &one_way));
            let tree = map.shortest(0);
            for (target, best) in naive(count, &one_way, 0).into_iter().enumerate() {
                let Some((cost, hops)) = best else {
                    prop_assert_eq!(tree.cost[target], u64::MAX);
                    prop_assert!(tree.path(&map, target).is_empty());
                    continue;
                };
                prop_assert_eq!((tree.cost[target], tree.hops[target]), (cost, hops));
                let path = tree.path(&map, target);
                prop_assert_eq!(path.len(), hops as usize);
                let (mut at, mut sum) = (0usize, 0);
                for node in path {
                    let next = map.index(node).expect("on the map");
                    let edge = map.edges(at).iter().find(|edge| edge.0 as usize == next);
                    sum += edge.expect("a path uses links").1;
                    at = next;
                }
                prop_assert_eq!((at, sum), (target, cost));
            }
        }
    }

    proptest! {
        /// Every router computes its own tree and looks only at its first step; whoever follows the steps arrives, on a
        /// path as long as promised, for all metrics, ties and last resorts included.
        #[test]
        fn next_hops_of_all_routers_lead_to_the_target_without_a_loop(
            count in 2u64..20,
            pairs in prop::collection::vec((0u64..20, 0u64..20, 0u32..4, 0u32..4, 0u32..5), 0..90),
        ) {
            let mut lists = lists(count, &BTreeMap::new());
            for (a, b, rtt, jitter, loss) in pairs {
                let known = |list: &[AdvertisedLink], to| list.iter().any(|link| link.neighbour == NodeId(to));
                if a == b || a >= count || b >= count || known(&lists[&NodeId(a)], b) {
                    continue;
                }
                for (from, to, rtt_us) in [(a, b, rtt * 700), (b, a, rtt * 650)] {
                    let link = AdvertisedLink { rtt_us, jitter_us: jitter * 100, loss_ppm: loss * 250_000, ..link(to, 0) };
                    lists.entry(NodeId(from)).or_default().push(link);
                }
            }
            lists.values_mut().for_each(|list| list.sort_by_key(|link| link.neighbour));
            let entries: Vec<_> = lists.iter().map(|(&node, links)| (node, links.as_slice())).collect();
            for metric in [Metric::Hops, Metric::Latency, Metric::Loss, Metric::Expected] {
                let map = Map::build(&entries, metric);
                let trees: Vec<Tree> = (0..count as usize).map(|source| map.shortest(source)).collect();
                for source in 0..count as usize {
                    for target in 0..count as usize {
                        let (mut at, mut cost, mut steps) = (source, 0, 0);
                        while at != target {
                            let Some(&next) = trees[at].path(&map, target).first() else { break };
                            let next = map.index(next).expect("on the map");
                            let edge = map.edges(at).iter().find(|edge| edge.0 as usize == next);
                            cost += edge.expect("a path uses links").1;
                            at = next;
                            steps += 1;
                            prop_assert!(steps <= count, "{metric:?}: a loop from {source} to {target}");
                        }
                        let promised = trees[source].cost[target];
                        prop_assert_eq!(at == target, promised < u64::MAX, "{:?}: {} to {}", metric, source, target);
                        prop_assert!(at != target || cost == promised, "{metric:?}: {source} to {target}");
                        prop_assert_eq!(promised, trees[target].cost[source], "both ways cost the same");
                    }
                }
            }
        }
    }

    #[test]
    fn a_link_needs_both_ends() {
        let mut one_way = BTreeMap::from([((0, 1), 10), ((1, 0), 10), ((1, 2), 10)]);
        let map = build(&lists(3, &one_way));
        assert_eq!(map.shortest(0).cost, [0, 5, u64::MAX]);
        one_way.insert((2, 1), 30);
        assert_eq!(build(&lists(3, &one_way)).shortest(0).cost, [0, 5, 20]);
    }

    #[test]
    fn ties_go_to_fewer_links_then_to_lower_ids() {
        let both = |pairs: &[(u64, u64, u32)]| {
            pairs.iter().flat_map(|&(a, b, rtt)| [((a, b), rtt), ((b, a), rtt)]).collect::<BTreeMap<_, _>>()
        };
        let square = build(&lists(4, &both(&[(0, 2, 10), (2, 3, 10), (0, 1, 10), (1, 3, 10)])));
        assert_eq!(square.shortest(0).path(&square, 3), [NodeId(1), NodeId(3)]);
        let triangle = build(&lists(3, &both(&[(0, 1, 10), (1, 2, 10), (0, 2, 20)])));
        assert_eq!(triangle.shortest(0).path(&triangle, 2), [NodeId(2)]);
    }

    #[test]
    fn a_thousand_routers_take_milliseconds() {
        let mut rng = Rng::from_u64(1);
        let mut one_way = BTreeMap::new();
        while one_way.len() < 8_000 {
            let (a, b) = (rng.below(1_000), rng.below(1_000));
            if a != b {
                let rtt = 1_000 + rng.below(100_000) as u32;
                one_way.insert((a, b), rtt);
                one_way.insert((b, a), rtt);
            }
        }
        let lists = lists(1_000, &one_way);
        let mut best = std::time::Duration::MAX;
        for _ in 0..5 {
            #[allow(clippy::disallowed_methods, reason = "a test may look at the clock")]
            let start = std::time::Instant::now();
            let map = build(&lists);
            let tree = map.shortest(0);
            assert_eq!(tree.cost.len(), 1_000);
            best = best.min(start.elapsed());
        }
        println!("map and shortest paths of 1,000 routers, 4,000 links: {best:?}");
        assert!(best.as_millis() < 100, "{best:?}");
    }
}
