//! Watches how long it takes to notice that a link is dead.
//!
//! A router hears nothing over a link from the moment its last wire was cut or its neighbour died. From then on the link
//! must be reported down within the silence that the configuration allows plus what was still under way. Routers that
//! stand still, are slow or have full rings are not held to it.

use crate::base::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Scheduling, the measuring of the round trip and a turn of the loop.
const SLACK: Duration = Duration::from_millis(60);

/// What is known of every direction of every link.
#[derive(Debug)]
pub(super) struct Watch {
    /// Links that are up, as their routers say: router, then neighbour.
    up: BTreeSet<(usize, usize)>,
    /// Directions that are cut: receiver, then sender.
    cut: BTreeSet<(usize, usize)>,
    dead: BTreeSet<usize>,
    /// Since when a router hears nothing over a link that was up.
    silent: BTreeMap<(usize, usize), Instant>,
    /// Until when the router was not itself.
    strained: BTreeMap<usize, Instant>,
    /// The silence that the configuration allows.
    allowed: Duration,
    /// The longest that a datagram may be under way.
    under_way: Duration,
    detections: Vec<Detection>,
}

/// A dead link that was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    /// From the moment it fell silent.
    pub took: Duration,
    /// Within what it had to be.
    pub bound: Duration,
}

impl Watch {
    pub(super) const fn new(allowed: Duration) -> Watch {
        Watch {
            up: BTreeSet::new(),
            cut: BTreeSet::new(),
            dead: BTreeSet::new(),
            silent: BTreeMap::new(),
            strained: BTreeMap::new(),
            allowed,
            under_way: Duration::from_millis(1),
            detections: Vec::new(),
        }
    }

    pub(super) fn detections(&self) -> &[Detection] {
        &self.detections
    }

    /// Within what a dead link must be noticed.
    pub(super) fn bound(&self) -> Duration {
        self.allowed + self.under_way + SLACK
    }

    /// A wire takes as long as this from now on.
    pub(super) fn slower(&mut self, under_way: Duration) {
        self.under_way = self.under_way.max(under_way);
    }

    /// A router is not itself until then.
    pub(super) fn strained(&mut self, until: Instant, router: usize) {
        let until = until.max(self.strained.get(&router).copied().unwrap_or_default());
        self.strained.insert(router, until);
        self.silent.retain(|&(hearer, _), _| hearer != router);
    }

    pub(super) fn cut(&mut self, now: Instant, from: usize, to: usize, cut: bool) {
        if cut {
            self.cut.insert((to, from));
            self.fall_silent(now, to, from);
        } else {
            self.cut.remove(&(to, from));
            if !self.dead.contains(&from) {
                self.silent.remove(&(to, from));
            }
        }
    }

    pub(super) fn crashed(&mut self, now: Instant, router: usize) {
        self.dead.insert(router);
        self.up.retain(|&(hearer, _)| hearer != router);
        self.silent.retain(|&(hearer, _), _| hearer != router);
        let hearers: Vec<usize> = self.up.iter().filter(|link| link.1 == router).map(|link| link.0).collect();
        for hearer in hearers {
            self.fall_silent(now, hearer, router);
        }
    }

    pub(super) fn started(&mut self, now: Instant, router: usize) {
        self.dead.remove(&router);
        self.silent.retain(|link, _| link.1 != router || self.cut.contains(link));
        self.strained.insert(router, now);
    }

    /// A router no longer has a link to `peer`, whatever it hears.
    pub(super) fn removed(&mut self, router: usize, peer: usize) {
        self.up.remove(&(router, peer));
        self.silent.remove(&(router, peer));
    }

    fn fall_silent(&mut self, now: Instant, hearer: usize, speaker: usize) {
        if self.up.contains(&(hearer, speaker)) {
            self.silent.entry((hearer, speaker)).or_insert(now);
        }
    }

    /// A router says that its link to `peer` came up or went down.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        router: usize,
        peer: usize,
        up: bool,
        calm: bool,
        violations: &mut Vec<String>,
    ) {
        let link = (router, peer);
        if up {
            self.up.insert(link);
            if self.cut.contains(&link) || self.dead.contains(&peer) {
                // What was under way when the wire was cut brought it up.
                self.silent.insert(link, now);
            }
            return;
        }
        self.up.remove(&link);
        let Some(since) = self.silent.remove(&link) else { return };
        if !calm || self.strained.get(&router).is_some_and(|&at| at >= since) {
            return;
        }
        let (took, bound) = (now.since(since), self.bound());
        self.detections.push(Detection { took, bound });
        if took > bound {
            violations.push(format!(
                "{now}: r{router} noticed after {took:?} that it hears nothing of r{peer}, bound {bound:?}"
            ));
        }
    }

    /// Finds links over which nothing is heard and that are still up, although their router is calm.
    pub(super) fn look(&mut self, now: Instant, calm: impl Fn(usize) -> bool, violations: &mut Vec<String>) {
        let bound = self.bound();
        self.silent.retain(|&(router, peer), since| {
            let took = now.since(*since);
            let excused = !calm(router) || self.strained.get(&router).is_some_and(|&at| at >= *since);
            let overdue = took > bound && !excused;
            if overdue {
                violations
                    .push(format!("{now}: r{router} has heard nothing of r{peer} for {took:?} and keeps its link up"));
            }
            !overdue
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_cut_that_is_noticed_late_is_a_violation_unless_the_router_was_strained() {
        for (noticed, strained, expected) in [(1200, false, 0), (1900, false, 1), (1900, true, 0)] {
            let mut watch = Watch::new(Duration::from_millis(280));
            let mut violations = Vec::new();
            watch.heard(at(10), 0, 1, true, true, &mut violations);
            watch.cut(at(1000), 1, 0, true);
            if strained {
                watch.strained(at(1100), 0);
            }
            watch.heard(at(noticed), 0, 1, false, true, &mut violations);
            assert_eq!(violations.len(), expected, "{violations:?}");
            assert_eq!(watch.detections().len(), usize::from(!strained));
        }
    }

    #[test]
    fn a_dead_link_that_stays_up_is_a_violation_even_if_nobody_ever_notices() {
        for (at_rest, expected) in [(true, 1), (false, 0)] {
            let mut watch = Watch::new(Duration::from_millis(280));
            let mut violations = Vec::new();
            watch.heard(at(10), 0, 1, true, true, &mut violations);
            watch.crashed(at(1000), 1);
            for now in [1100, 1300, 1900, 2000] {
                watch.look(at(now), |_| at_rest, &mut violations);
            }
            assert_eq!(violations.len(), expected, "{violations:?}");
        }
    }

    #[test]
    fn nothing_is_expected_of_a_link_that_was_removed() {
        let mut watch = Watch::new(Duration::from_millis(280));
        let mut violations = Vec::new();
        watch.heard(at(10), 0, 1, true, true, &mut violations);
        watch.removed(0, 1);
        watch.crashed(at(1000), 1);
        watch.look(at(5000), |_| true, &mut violations);
        assert_eq!(violations, Vec::<String>::new());
    }

    #[test]
    fn a_neighbour_that_dies_and_comes_back_is_no_silence() {
        let mut watch = Watch::new(Duration::from_millis(280));
        let mut violations = Vec::new();
        watch.heard(at(10), 0, 1, true, true, &mut violations);
        watch.crashed(at(1000), 1);
        watch.started(at(1100), 1);
        watch.heard(at(5000), 0, 1, false, true, &mut violations);
        assert!(violations.is_empty() && watch.detections().is_empty());
    }
}
