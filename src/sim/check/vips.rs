//! The rule of service addresses: every set is answered for by exactly one router of a component.
//!
//! Three things are checked. While anything goes on, two routers that are in one view do not answer for one set for longer
//! than a lease, and what it takes the slower of the two to hear what was agreed. While nothing has disturbed the group for
//! long enough that all must have come to rest, every set is answered for in the view of every member. And when the
//! network has healed, all members are in one view, and each set is answered for by exactly one.

use crate::base::{Instant, ViewId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What there is to see of one member.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its number.
    pub router: usize,
    /// It runs and does not stand still.
    pub awake: bool,
    /// The view it is in, or comes from, and the numbers of its members; none if its router does not run.
    pub view: Option<(ViewId, BTreeSet<usize>)>,
    /// It looks for another view.
    pub gathers: bool,
    /// For each set, whether its host answers.
    pub answers: Vec<bool>,
    /// No member may hold anything: operators have drained them all.
    pub idle: bool,
}

/// How long what may be for a while may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Two answer.
    pub double: Duration,
    /// Nobody answers, though nothing disturbs.
    pub hole: Duration,
}

/// Watches a group.
#[derive(Debug, Default)]
pub struct Watch {
    patience: Patience,
    /// Since when two of one view answer for a set.
    doubles: BTreeMap<(usize, usize, usize), Instant>,
    /// Since when nobody in a member's view answers for a set.
    holes: BTreeMap<(usize, usize), Instant>,
    /// When something disturbed the group last.
    disturbed: Instant,
    /// The longest that two of one view answered.
    longest_double: Duration,
}

impl Watch {
    /// So patient.
    pub fn new(patience: Patience) -> Watch {
        Watch { patience, ..Watch::default() }
    }

    /// Something keeps the group from coming to rest.
    pub const fn disturb(&mut self, now: Instant) {
        self.disturbed = now;
    }

    /// Two may answer for so long from now on.
    pub const fn allow_double(&mut self, patience: Duration) {
        self.patience.double = patience;
    }

    /// The longest that two routers in one view answered for one set.
    pub const fn longest_double(&self) -> Duration {
        self.longest_double
    }

    /// Looks at all members.
    pub fn look(&mut self, now: Instant, members: &[Seen], violations: &mut Vec<String>) {
        self.look_for_doubles(now, members, violations);
        self.look_for_holes(now, members, violations);
    }

    fn look_for_doubles(&mut self, now: Instant, members: &[Seen], violations: &mut Vec<String>) {
        let mut doubles = BTreeMap::new();
        for (place, one) in members.iter().enumerate() {
            let view = |member: &Seen| member.view.as_ref().map(|view| view.0);
            for other in members[..place].iter().filter(|other| view(one).is_some() && view(other) == view(one)) {
                for set in (0..one.answers.len()).filter(|&set| one.answers[set] && other.answers[set]) {
                    let pair = (set, other.router, one.router);
                    let since = self.doubles.get(&pair).copied().unwrap_or(now);
                    doubles.insert(pair, since);
                    self.longest_double = self.longest_double.max(now.since(since));
                    if now.since(since) > self.patience.double {
                        violations.push(format!(
                            "{now}: r{} and r{}, both in view {}, answer for s{set} since {since}",
                            other.router,
                            one.router,
                            view(one).unwrap_or_default()
                        ));
                    }
                }
            }
        }
        self.doubles = doubles;
    }

    fn look_for_holes(&mut self, now: Instant, members: &[Seen], violations: &mut Vec<String>) {
        let mut holes = BTreeMap::new();
        for member in members.iter().filter(|member| member.awake && !member.idle) {
            let Some((id, view)) = &member.view else { continue };
            let inside = || members.iter().filter(|other| view.contains(&other.router));
            for set in (0..member.answers.len()).filter(|&set| !inside().any(|other| other.answers[set])) {
                let hole = (set, member.router);
                let since = self.holes.get(&hole).copied().unwrap_or(now);
                holes.insert(hole, since);
                if now.since(since.max(self.disturbed)) > self.patience.hole {
                    let router = member.router;
                    violations.push(format!("{now}: nobody in r{router}'s view {id} answers for s{set} since {since}"));
                }
            }
        }
        self.holes = holes;
    }
}

/// All members are in one view and each set is answered for by exactly one of them.
pub fn at_rest(members: &[Seen]) -> Result<(), String> {
    let all: BTreeSet<usize> = members.iter().map(|member| member.router).collect();
    let first = members.first().and_then(|member| member.view.as_ref());
    for Seen { router, view, gathers, .. } in members {
        if *gathers || view.as_ref().is_none_or(|view| Some(view.0) != first.map(|view| view.0) || view.1 != all) {
            return Err(format!("r{router} is in view {view:?} of {all:?}, gathers: {gathers}"));
        }
    }
    if members.iter().all(|member| member.idle) {
        return Ok(());
    }
    for set in 0..members.first().map_or(0, |member| member.answers.len()) {
        let answering: Vec<usize> =
            members.iter().filter(|member| member.answers[set]).map(|member| member.router).collect();
        if answering.len() != 1 {
            return Err(format!("routers {answering:?} answer for s{set}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(router: usize, number: u64, answers: bool) -> Seen {
        let view = Some((ViewId { number, digest: 1 }, BTreeSet::from([0, 1])));
        Seen { router, awake: true, view, gathers: false, answers: vec![answers], idle: false }
    }

    /// What is said after so many milliseconds of this.
    fn after(millis: u64, members: &[Seen]) -> Vec<String> {
        let (double, hole) = (Duration::from_millis(100), Duration::from_millis(1000));
        let (mut watch, mut violations) = (Watch::new(Patience { double, hole }), Vec::new());
        watch.look(Instant::ZERO, members, &mut violations);
        watch.look(Instant::from_millis(millis), members, &mut violations);
        violations
    }

    #[test]
    fn two_in_one_view_may_answer_for_a_moment_and_two_in_different_views_for_long() {
        let both = [seen(0, 1, true), seen(1, 1, true)];
        assert!(after(100, &both).is_empty());
        assert_eq!(after(101, &both).len(), 1);
        assert!(after(5000, &[seen(0, 1, true), seen(1, 2, true)]).is_empty());
        assert!(at_rest(&both).is_err());
    }

    #[test]
    fn a_set_that_nobody_answers_for_is_noticed_after_a_while() {
        let nobody = [seen(0, 1, false), seen(1, 1, false)];
        assert!(after(1000, &nobody).is_empty());
        assert_eq!(after(1001, &nobody).len(), 2, "each member says so");
        assert!(at_rest(&nobody).is_err() && at_rest(&[seen(0, 1, true), seen(1, 1, false)]).is_ok());
    }
}
