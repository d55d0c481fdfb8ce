//! The map: who is linked to whom, and the shortest paths through it.
//!
//! Members are numbered by ascending id, and everything is an array over these numbers. A link is on the map only if
//! both of its ends advertise it, so one router alone can neither invent a link nor keep a dead one.
//!
//! An advertisement changes the map in place ([`Map::say`]) and tells which links changed and how, so that paths are
//! computed anew only if that touches them ([`Tree::is_touched_by`]).

use super::metric::Metric;
use crate::base::NodeId;
use crate::base::sabotage::{Rule, broken};
use crate::base::search::place_of;
use crate::wire::routing::AdvertisedLink;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Marks a router without a parent in a [`Tree`].
const NOBODY: u32 = u32::MAX;

/// The cost of a link that is not there, and of a router that is not reached.
pub const UNREACHED: u64 = u64::MAX;

/// What one end says of a link.
#[derive(Clone, Copy, Debug)]
struct Half {
    to: u32,
    rtt_us: u32,
    jitter_us: u32,
    loss_ppm: u32,
    /// [`UNREACHED`] unless the other end advertises the link too.
    cost: u64,
}

impl Half {
    const fn new(to: u32, link: &AdvertisedLink) -> Half {
        let AdvertisedLink { rtt_us, jitter_us, loss_ppm, .. } = *link;
        Half { to, rtt_us, jitter_us, loss_ppm, cost: UNREACHED }
    }

    /// Whether another one says the same of the same link.
    const fn says_what(&self, other: &Half) -> bool {
        let words = self.to == other.to && self.rtt_us == other.rtt_us;
        words && self.jitter_us == other.jitter_us && self.loss_ppm == other.loss_ppm
    }

    const fn quality(&self) -> AdvertisedLink {
        let Half { rtt_us, jitter_us, loss_ppm, .. } = *self;
        AdvertisedLink { neighbour: NodeId(0), rtt_us, jitter_us, loss_ppm }
    }
}

/// A link of the map that is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// One end.
    pub one: u32,
    /// The other end.
    pub other: u32,
    /// What it cost; [`UNREACHED`] if it was not there.
    pub before: u64,
    /// What it costs now; [`UNREACHED`] if it is gone.
    pub now: u64,
}

/// The links that both ends advertise, between members.
#[derive(Debug)]
pub struct Map {
    nodes: Arc<[NodeId]>,
    metric: Metric,
    /// What every member advertises, ascending by the other end; nothing if it said nothing lately.
    said: Vec<Option<Vec<Half>>>,
    /// Memory for what is said next.
    spare: Vec<Half>,
}

/// Shortest paths from one router.
#[derive(Debug)]
pub struct Tree {
    nodes: Arc<[NodeId]>,
    /// Cost of the shortest path; [`UNREACHED`] where there is none.
    pub cost: Vec<u64>,
    /// Links on it.
    pub hops: Vec<u32>,
    parent: Vec<u32>,
    /// The first router on the path.
    via: Vec<u32>,
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Map {
    /// A map of `nodes`, which ascend, without links.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, metric: Metric) -> Map {
        let nodes: Arc<[NodeId]> = nodes.into_iter().collect();
        assert!(nodes.is_sorted_by(|a, b| a < b), "members ascend");
        let said = nodes.iter().map(|_| None).collect();
        Map { nodes, metric, said, spare: Vec::new() }
    }

    /// A member's place in the map.
    pub fn index(&self, node: NodeId) -> Option<usize> {
        place_of(&self.nodes, node, |&id| id)
    }

    /// All members, ascending, whether they advertise anything or not.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Whether a member advertised something lately.
    pub fn speaks(&self, index: usize) -> bool {
        self.said[index].is_some()
    }

    /// Links of a router: the other ends and the costs, ascending by id.
    pub fn edges(&self, index: usize) -> impl Iterator<Item = (usize, u64)> + '_ {
        let halves = self.said[index].as_deref().unwrap_or_default();
        halves.iter().filter(|half| half.cost != UNREACHED).map(|half| (half.to as usize, half.cost))
    }

    /// A member advertises `links`, ascending; nothing any more if `None`. Tells every link of the map that changes.
    pub fn say<I>(&mut self, index: usize, links: Option<I>, mut changed: impl FnMut(Change))
    where
        I: IntoIterator<Item = AdvertisedLink>,
    {
        let halves = links.map(|links| self.resolve(index, links));
        let old = std::mem::replace(&mut self.said[index], halves).unwrap_or_default();
        self.compare(index, &old, &mut changed);
        self.spare = old;
    }

    /// Joins what `index` says now with what others say, and tells what is not as it was when it said `old`.
    fn compare(&mut self, index: usize, old: &[Half], changed: &mut impl FnMut(Change)) {
        let one = index as u32;
        // Both lists ascend: one walk over both.
        let (mut place, mut before) = (0, old.iter().peekable());
        loop {
            let next = self.said[index].as_ref().and_then(|halves| halves.get(place)).copied();
            match (before.peek().copied(), next) {
                (None, None) => return,
                (Some(gone), next) if next.is_none_or(|next| gone.to < next.to) => {
                    before.next();
                    if let Some(back) = self.half(gone.to, one) {
                        back.cost = UNREACHED;
                    }
                    if gone.cost != UNREACHED {
                        changed(Change { one, other: gone.to, before: gone.cost, now: UNREACHED });
                    }
                }
                (held, Some(next)) => {
                    let held = before.next_if(|_| held.is_some_and(|held| held.to == next.to));
                    let was = held.map_or(UNREACHED, |held| held.cost);
                    let now = match held.filter(|held| held.says_what(&next)) {
                        Some(_) => self.keep(index, place, was),
                        None => self.join(index, place),
                    };
                    if was != now {
                        changed(Change { one, other: next.to, before: was, now });
                    }
                    place += 1;
                }
                (Some(_), None) => unreachable!("the arm above takes what is left of the old"),
            }
        }
    }

    /// Costs are by another metric from now on.
    pub fn set_metric(&mut self, metric: Metric) {
        self.metric = metric;
        for index in 0..self.nodes.len() {
            for place in 0..self.said[index].as_ref().map_or(0, Vec::len) {
                self.join(index, place);
            }
        }
    }

    /// Nothing else was said of a link, so it costs what it did.
    fn keep(&mut self, index: usize, place: usize, cost: u64) -> u64 {
        if let Some(halves) = &mut self.said[index] {
            halves[place].cost = cost;
        }
        cost
    }

    /// Finds the other end of a link and gives both the cost; [`UNREACHED`] if the other end does not know the link.
    fn join(&mut self, index: usize, place: usize) -> u64 {
        let metric = self.metric;
        let Some(half) = self.said[index].as_ref().map(|halves| halves[place]) else { return UNREACHED };
        let cost = match self.half(half.to, index as u32) {
            Some(back) => {
                back.cost = metric.cost(&half.quality(), &back.quality());
                back.cost
            }
            None if broken(Rule::BothEnds) => metric.cost(&half.quality(), &half.quality()),
            None => UNREACHED,
        };
        self.keep(index, place, cost)
    }

    fn half(&mut self, from: u32, to: u32) -> Option<&mut Half> {
        let halves = self.said[from as usize].as_mut()?;
        let place = halves.binary_search_by_key(&to, |half| half.to).ok()?;
        Some(&mut halves[place])
    }

    fn resolve(&mut self, index: usize, links: impl IntoIterator<Item = AdvertisedLink>) -> Vec<Half> {
        let mut halves = std::mem::take(&mut self.spare);
        halves.clear();
        let links = links.into_iter();
        halves.reserve_exact(links.size_hint().0);
        let old = self.said[index].as_deref().unwrap_or_default();
        for (place, link) in links.enumerate() {
            // Most often the same neighbours as before are named.
            let same = old.get(place).filter(|half| self.nodes[half.to as usize] == link.neighbour);
            let to = same.map(|half| half.to).or_else(|| Some(self.index(link.neighbour)? as u32));
            halves.extend(to.map(|to| Half::new(to, &link)));
        }
        assert!(halves.is_sorted_by(|a, b| a.to < b.to), "neighbours ascend");
        assert!(halves.iter().all(|half| half.to as usize != index), "nobody is linked to itself");
        halves
    }

    /// Shortest paths from `source`; see [`Tree::compute`].
    pub fn shortest(&self, source: usize) -> Tree {
        let mut tree = Tree::new(self);
        tree.compute(self, source);
        tree
    }
}

impl Tree {
    /// A tree that reaches nobody.
    pub fn new(map: &Map) -> Tree {
        let nodes = map.nodes.clone();
        let (cost, hops) = (Vec::new(), Vec::new());
        let mut tree = Tree { nodes, cost, hops, parent: Vec::new(), via: Vec::new(), heap: BinaryHeap::new() };
        tree.clear();
        tree
    }

    fn clear(&mut self) {
        let count = self.nodes.len();
        for list in [&mut self.hops, &mut self.parent, &mut self.via] {
            list.clear();
            list.resize(count, NOBODY);
        }
        self.cost.clear();
        self.cost.resize(count, UNREACHED);
    }

    /// Shortest paths from `source` (Dijkstra). Of paths that cost the same the one with fewer links wins; of those the
    /// one whose last but one router has the lowest id, and so on backwards: every router that holds this map computes
    /// the same tree, and the path from any router on a path to its end is the rest of that path.
    pub fn compute(&mut self, map: &Map, source: usize) {
        self.nodes = map.nodes.clone();
        self.clear();
        (self.cost[source], self.hops[source]) = (0, 0);
        self.heap.push(Reverse((0, 0, source as u32)));
        while let Some(Reverse((cost, hops, node))) = self.heap.pop() {
            let at = node as usize;
            // A better offer was taken from the heap before; every link costs something, so it cannot come after.
            if (cost, hops) != (self.cost[at], self.hops[at]) {
                continue;
            }
            let parent = self.parent[at] as usize;
            if at != source {
                self.via[at] = if parent == source { node } else { self.via[parent] };
            }
            for (to, weight) in map.edges(at) {
                let (length, links) = (cost.saturating_add(weight), hops + 1);
                let held = (self.cost[to], self.hops[to]);
                if (length, links) < held {
                    self.heap.push(Reverse((length, links, to as u32)));
                } else if (length, links) > held || node > self.parent[to] {
                    continue;
                }
                (self.cost[to], self.hops[to], self.parent[to]) = (length, links, node);
            }
        }
    }

    /// Whether paths are not what they were for this change, in a map whose other changes touched nothing.
    pub fn is_touched_by(&self, change: &Change) -> bool {
        let ends = [(change.one, change.other), (change.other, change.one)];
        ends.into_iter().any(|(from, to)| {
            let (at, other) = (from as usize, to as usize);
            let offer = (self.cost[at].saturating_add(change.now), self.hops[at].saturating_add(1), from);
            let held = (self.cost[other], self.hops[other], self.parent[other]);
            self.parent[other] == from || (self.cost[at] != UNREACHED && change.now != UNREACHED && offer < held)
        })
    }

    /// All routers that the tree is over, ascending.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// A router's place in the tree.
    pub fn index(&self, node: NodeId) -> Option<usize> {
        place_of(&self.nodes, node, |&id| id)
    }

    /// The first router on the way to `target`, if there is a way.
    pub fn via(&self, target: usize) -> Option<usize> {
        (self.via[target] != NOBODY).then_some(self.via[target] as usize)
    }

    /// The routers from the source (left out) to `target` (included); empty for the source and where no path leads.
    pub fn path(&self, target: usize) -> Vec<NodeId> {
        if self.parent[target] == NOBODY {
            return Vec::new();
        }
        let mut path = Vec::with_capacity(self.hops[target] as usize);
        let mut at = target;
        while self.parent[at] != NOBODY {
            path.push(self.nodes[at]);
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
        build_by(lists, Metric::Latency)
    }

    fn build_by(lists: &Lists, metric: Metric) -> Map {
        let mut map = Map::new(lists.keys().copied(), metric);
        for (index, links) in lists.values().enumerate() {
            map.say(index, Some(links.iter().copied()), |_| {});
        }
        map
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
                    prop_assert!(tree.path(target).is_empty());
                    continue;
                };
                prop_assert_eq!((tree.cost[target], tree.hops[target]), (cost, hops));
                let path = tree.path(target);
                prop_assert_eq!(path.len(), hops as usize);
                let (mut at, mut sum) = (0usize, 0);
                for node in path {
                    let next = map.index(node).expect("on the map");
                    let edge = map.edges(at).find(|edge| edge.0 == next);
                    sum += edge.expect("a path uses links").1;
                    at = next;
                }
                prop_assert_eq!((at, sum), (target, cost));
            }
        }
    }

    proptest! {
        /// Every router computes its own tree and looks only at its first step; whoever follows the steps arrives, on
        /// the very path that the first router's tree shows, for all metrics, ties and last resorts included.
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
            for metric in [Metric::Hops, Metric::Latency, Metric::Loss, Metric::Expected] {
                let map = build_by(&lists, metric);
                let trees: Vec<Tree> = (0..count as usize).map(|source| map.shortest(source)).collect();
                for source in 0..count as usize {
                    for target in 0..count as usize {
                        let (mut at, mut cost, mut taken) = (source, 0, Vec::new());
                        while at != target {
                            let Some(next) = trees[at].via(target) else { break };
                            let edge = map.edges(at).find(|edge| edge.0 == next);
                            cost += edge.expect("a path uses links").1;
                            at = next;
                            taken.push(map.nodes()[at]);
                            prop_assert!(taken.len() <= count as usize, "{metric:?}: a loop from {source} to {target}");
                        }
                        let promised = trees[source].cost[target];
                        prop_assert_eq!(at == target, promised < u64::MAX, "{:?}: {} to {}", metric, source, target);
                        prop_assert!(at != target || cost == promised, "{metric:?}: {source} to {target}");
                        prop_assert_eq!(taken, trees[source].path(target), "{:?}: {} to {}", metric, source, target);
                        prop_assert_eq!(promised, trees[target].cost[source], "both ways cost the same");
                    }
                }
            }
        }
    }

    type Ends = BTreeMap<u64, (u32, u32)>;

    /// Who says something, what, and whether it falls silent instead.
    fn script() -> impl Strategy<Value = Vec<(u64, Ends, u8)>> {
        let ends = prop::collection::btree_map(0u64..11, (1u32..5, 0u32..3), 0..10);
        prop::collection::vec((0u64..10, ends, 0u8..8), 1..40)
    }

    /// Every link of a map, with what it costs.
    fn links(map: &Map) -> BTreeMap<(usize, usize), u64> {
        let of = |from: usize| map.edges(from).map(move |(to, cost)| ((from, to), cost));
        (0..map.nodes().len()).flat_map(of).collect()
    }

    proptest! {
        /// Whatever is said in whatever order, the map is that of what was said last; the changes it tells are those
        /// between before and after; and where no change touches a tree, the tree stays as it is.
        #[test]
        fn a_map_changed_in_place_is_one_built_anew(
            count in 2u64..10,
            script in script(),
        ) {
            let mut said: BTreeMap<u64, Vec<AdvertisedLink>> = BTreeMap::new();
            let mut map = Map::new((0..count).map(NodeId), Metric::Latency);
            let mut tree = map.shortest(0);
            for (origin, ends, silent) in script {
                let origin = origin % count;
                // A router that is no member is named too; it is never linked.
                let ends = ends.into_iter().filter(|&(to, _)| to != origin && (to < count || to == 10));
                let list: Vec<_> = ends.map(|(to, (rtt, loss))| {
                    AdvertisedLink { loss_ppm: loss * 500_000, ..link(to, rtt * 2_000) }
                }).collect();
                let (mut told, before) = (Vec::new(), links(&map));
                if silent == 0 {
                    said.remove(&origin);
                    map.say(origin as usize, None::<Vec<AdvertisedLink>>, |change| told.push(change));
                } else {
                    said.insert(origin, list.clone());
                    map.say(origin as usize, Some(list), |change| told.push(change));
                }
                let mut anew = Map::new((0..count).map(NodeId), Metric::Latency);
                for (&origin, list) in said.iter().rev() {
                    anew.say(origin as usize, Some(list.iter().copied()), |_| {});
                }
                let after = links(&map);
                prop_assert_eq!(&after, &links(&anew));
                let mut replayed = before;
                for change in &told {
                    for ends in [(change.one, change.other), (change.other, change.one)] {
                        let ends = (ends.0 as usize, ends.1 as usize);
                        prop_assert_eq!(replayed.remove(&ends).unwrap_or(UNREACHED), change.before);
                        if change.now != UNREACHED {
                            replayed.insert(ends, change.now);
                        }
                    }
                }
                prop_assert_eq!(&replayed, &after);
                let fresh = map.shortest(0);
                let same = (&fresh.cost, &fresh.parent, &fresh.via) == (&tree.cost, &tree.parent, &tree.via);
                if told.iter().any(|change| tree.is_touched_by(change)) {
                    tree.compute(&map, 0);
                } else {
                    prop_assert!(same, "untouched by {told:?}");
                }
                prop_assert_eq!((&fresh.cost, &fresh.hops, &fresh.parent), (&tree.cost, &tree.hops, &tree.parent));
                map.set_metric(Metric::Hops);
                anew.set_metric(Metric::Hops);
                prop_assert!(links(&map).values().all(|cost| cost % 2 == 1), "a hop, and perhaps the last resort");
                map.set_metric(Metric::Latency);
                prop_assert_eq!(&links(&map), &after);
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
        assert_eq!(square.shortest(0).path(3), [NodeId(1), NodeId(3)]);
        let triangle = build(&lists(3, &both(&[(0, 1, 10), (1, 2, 10), (0, 2, 20)])));
        assert_eq!(triangle.shortest(0).path(2), [NodeId(2)]);
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
