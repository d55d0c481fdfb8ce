//! One lane: a link's state in this shard, and all lanes.

use super::messages::LinkReport;
use crate::base::limits::MAX_LINKS;
use crate::base::time::sooner;
use crate::base::{Instant, LinkId, NodeId};
use crate::proto::link::{Link, LinkStats};
use std::cell::Cell;
use std::time::Duration;

/// How long a removed lane stays to tell its other end.
pub(super) const FAREWELL: Duration = Duration::from_millis(50);

/// A link, and who is at its other end.
#[derive(Debug)]
pub(super) struct Lane {
    link: Link,
    peer: NodeId,
    /// It asks, or was asked. Others only listen: where the neighbour has fewer workers, they never have an other end.
    used: bool,
}

impl Lane {
    pub(super) const fn new(link: Link, peer: NodeId, used: bool) -> Lane {
        Lane { link, peer, used }
    }

    /// Whether there is anything to say of it.
    pub(super) const fn used(&self) -> bool {
        self.used
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    /// Everything of the link but `stats`, which are given.
    pub(super) fn report(&self, now: Instant, link: LinkId, stats: LinkStats) -> LinkReport {
        LinkReport {
            link,
            peer: self.peer,
            remote: self.link.path().map(|path| path.remote),
            paths: self.link.paths(now).collect(),
            up: self.link.is_up(),
            since: now.since(self.link.since()),
            metrics: self.link.metrics(),
            stats,
        }
    }
}

/// What every turn of the loop asks of every lane.
#[derive(Clone, Debug, Default)]
struct Turn {
    /// The link's deadline, if it was asked for since the link last had a chance to change it.
    deadline: Cell<Option<Option<Instant>>>,
    /// Set when the lane was removed: it is forgotten then.
    gone_at: Option<Instant>,
    /// The link had nothing to send, and nothing happened to it since: it has nothing before its deadline.
    resting: bool,
}

impl Turn {
    /// Something may have happened to the link.
    fn end(&mut self) {
        self.deadline.set(None);
        self.resting = false;
    }
}

/// All lanes of a shard: found by their link, walked without the empty places between them.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Apart from one another, so that a lane found costs no walk over others' memory.
    places: Box<[Option<Box<Lane>>]>,
    /// Side by side, so that a turn of the loop touches no lane that has nothing to do.
    turns: Box<[Turn]>,
    /// The links of the places that are not empty, ascending.
    live: Vec<LinkId>,
}

impl Lanes {
    pub(super) fn new() -> Lanes {
        Lanes {
            places: (0..MAX_LINKS).map(|_| None).collect(),
            turns: vec![Turn::default(); MAX_LINKS].into_boxed_slice(),
            live: Vec::with_capacity(MAX_LINKS),
        }
    }

    pub(super) fn get(&self, link: LinkId) -> Option<&Lane> {
        self.places.get(link.index())?.as_deref()
    }

    /// A lane's link, to be changed.
    pub(super) fn link_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        let lane = self.places.get_mut(link.index())?.as_deref_mut()?;
        self.turns[link.index()].end();
        Some(&mut lane.link)
    }

    /// A lane asks, or was asked, from now on.
    pub(super) fn use_it(&mut self, link: LinkId) {
        if let Some(Some(lane)) = self.places.get_mut(link.index()) {
            lane.used = true;
        }
    }

    /// What a link gives out by `take`, which changes nothing if there is nothing.
    pub(super) fn poll<T>(&mut self, link: LinkId, take: impl FnOnce(&mut Link) -> Option<T>) -> Option<T> {
        let taken = take(&mut self.places.get_mut(link.index())?.as_deref_mut()?.link)?;
        self.turns[link.index()].end();
        Some(taken)
    }

    /// A link takes note of something that changes nothing of what it will do.
    pub(super) fn note(&mut self, link: LinkId, take: impl FnOnce(&mut Link)) {
        if let Some(Some(lane)) = self.places.get_mut(link.index()) {
            take(&mut lane.link);
        }
    }

    /// A link had nothing to send.
    pub(super) fn rest(&mut self, link: LinkId) {
        self.turns[link.index()].resting = true;
    }

    /// Whether there is no use in asking a link for something to send.
    pub(super) fn is_resting(&self, now: Instant, link: LinkId) -> bool {
        self.turns[link.index()].resting && self.link_deadline(link).is_none_or(|at| at > now)
    }

    /// When a link wants to be called.
    pub(super) fn link_deadline(&self, link: LinkId) -> Option<Instant> {
        let turn = &self.turns[link.index()];
        let ask = || self.get(link)?.link.poll_timeout().map(|(at, _)| at);
        let deadline = turn.deadline.get().unwrap_or_else(ask);
        turn.deadline.set(Some(deadline));
        deadline
    }

    /// When a lane that was removed is forgotten.
    pub(super) fn gone_at(&self, link: LinkId) -> Option<Instant> {
        self.turns[link.index()].gone_at
    }

    /// A lane is removed, and forgotten then.
    pub(super) fn go(&mut self, link: LinkId, at: Instant) {
        self.turns[link.index()].gone_at = Some(at);
    }

    /// Puts a lane in a place that is empty.
    pub(super) fn insert(&mut self, link: LinkId, lane: Lane) {
        assert!(self.places[link.index()].replace(Box::new(lane)).is_none(), "a link's former lane is forgotten first");
        self.turns[link.index()] = Turn::default();
        let at = self.live.partition_point(|&other| other < link);
        self.live.insert(at, link);
    }

    pub(super) fn remove(&mut self, link: LinkId) {
        if let Some(lane) = self.places.get_mut(link.index()) {
            *lane = None;
            self.turns[link.index()] = Turn::default();
        }
        self.live.retain(|&other| other != link);
    }

    /// The `at`th lane's link; its place changes when others come or go.
    pub(super) fn nth(&self, at: usize) -> Option<LinkId> {
        self.live.get(at).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// All lanes, with their links.
    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &Lane)> {
        self.live.iter().map(|&link| (link, self.places[link.index()].as_deref().expect("a live place holds a lane")))
    }

    /// When the first of the lanes wants to be called, and what for.
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.live.iter().fold(None, |next, &link| {
            let next = sooner(next, self.link_deadline(link).map(|at| (at, "link")));
            sooner(next, self.gone_at(link).map(|at| (at, "farewell")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use crate::containers::Pool;
    use crate::proto::link::Settings;
    use std::net::SocketAddr;

    const START: Instant = Instant::from_millis(5);
    const LINK: LinkId = LinkId(1);

    fn lane(peer: u64) -> Lane {
        Lane::new(Link::new(START, Settings::default(), &[], Rng::from_u64(peer)), NodeId(peer), true)
    }

    /// A lane whose link has keys and said its first hello.
    fn begun() -> Lanes {
        let mut lanes = Lanes::new();
        lanes.insert(LINK, lane(1));
        let link = lanes.link_mut(LINK).expect("it is there");
        link.attach(START, SocketAddr::from(([192, 0, 2, 1], 5300)).into(), true);
        let hello = link.poll_transmit(START, &mut Pool::new(8), &mut [0; 1500]);
        assert!(hello.is_some(), "it has not said hello yet");
        lanes
    }

    #[test]
    fn the_living_are_walked_in_order_whatever_came_and_went() {
        let mut lanes = Lanes::new();
        for link in [63, 0, 7, 5] {
            lanes.insert(LinkId(link), lane(u64::from(link)));
        }
        lanes.remove(LinkId(7));
        lanes.remove(LinkId(7));
        lanes.remove(LinkId(64));
        let walked: Vec<_> = lanes.iter().map(|(link, lane)| (link.0, lane.peer.0)).collect();
        assert_eq!(walked, [(0, 0), (5, 5), (63, 63)]);
        assert_eq!((lanes.len(), lanes.nth(2), lanes.nth(3)), (3, Some(LinkId(63)), None));
        assert!(lanes.get(LinkId(7)).is_none() && lanes.get(LinkId(64)).is_none() && lanes.get(LinkId(5)).is_some());
    }

    #[test]
    fn a_lane_rests_until_its_deadline_or_until_something_happens_to_it() {
        let mut lanes = begun();
        let due = lanes.link_deadline(LINK).expect("a hello is due some time");
        assert!(!lanes.is_resting(Instant::ZERO, LINK), "it was not asked yet");
        lanes.rest(LINK);
        assert!(lanes.is_resting(Instant::from_nanos(due.as_nanos() - 1), LINK) && !lanes.is_resting(due, LINK));
        assert_eq!(lanes.poll(LINK, Link::poll_event), None);
        assert!(lanes.is_resting(Instant::ZERO, LINK), "nothing came of it");
        lanes.link_mut(LINK);
        assert!(!lanes.is_resting(Instant::ZERO, LINK));
        lanes.rest(LINK);
        lanes.go(LINK, START);
        lanes.remove(LINK);
        lanes.insert(LINK, lane(2));
        assert_eq!((lanes.is_resting(Instant::ZERO, LINK), lanes.gone_at(LINK)), (false, None), "another one's");
    }

    #[test]
    fn a_deadline_is_asked_for_anew_after_every_change() {
        let mut lanes = Lanes::new();
        lanes.insert(LinkId(1), lane(1));
        assert_eq!(lanes.deadline(), None, "without keys it wants nothing");
        let mut lanes = begun();
        let expected = lanes.get(LINK).and_then(|lane| lane.link().poll_timeout()).map(|(at, _)| (at, "link"));
        assert!(expected.is_some_and(|(at, _)| at > START));
        assert_eq!((lanes.deadline(), lanes.deadline()), (expected, expected));
        lanes.go(LINK, Instant::ZERO);
        assert_eq!(lanes.deadline(), Some((Instant::ZERO, "farewell")));
    }
}
