//! Who answers: not two, not nobody, and nobody who may not.

use super::lasting::Lasting;
use super::{Patience, Seen};
use crate::base::Instant;
use std::time::Duration;

/// Watches who answers.
#[derive(Debug)]
pub(super) struct Answers {
    /// Sets that a majority alone may hold.
    majority: Vec<usize>,
    members: usize,
    /// Set, and two of one view that answer for it.
    doubles: Lasting<(usize, usize, usize)>,
    /// Set, and a member in whose view nobody answers for it though somebody may.
    holes: Lasting<(usize, usize)>,
    /// The same where all of the view are in it.
    settled: Lasting<(usize, usize)>,
    /// Set, and a member that answers for it though it may not and another may.
    undeserved: Lasting<(usize, usize)>,
    /// Set, and a member that answers for it in a minority or with another configuration.
    forbidden: Lasting<(usize, usize)>,
    longest_double: Duration,
}

impl Answers {
    pub(super) fn new(majority: Vec<usize>, members: usize) -> Answers {
        Answers {
            majority,
            members,
            doubles: Lasting::default(),
            holes: Lasting::default(),
            settled: Lasting::default(),
            undeserved: Lasting::default(),
            forbidden: Lasting::default(),
            longest_double: Duration::ZERO,
        }
    }

    pub(super) const fn longest_double(&self) -> Duration {
        self.longest_double
    }

    /// Whether a member may hold a set, by what it knows of itself.
    pub(super) fn may(&self, member: &Seen, set: usize) -> bool {
        let standing = member.here.get(&member.router).is_some_and(|standing| standing.may);
        let able = member.sets.get(set).is_some_and(|set| set.able);
        standing && able && !member.overruled && self.is_covered(member, set)
    }

    /// Whether the set may be held at all where this member is.
    fn is_covered(&self, member: &Seen, set: usize) -> bool {
        !self.majority.contains(&set) || 2 * member.here.values().filter(|it| it.equal).count() > self.members
    }

    pub(super) fn look(
        &mut self,
        now: Instant,
        disturbed: Instant,
        patience: &Patience,
        members: &[Seen],
        say: &mut impl FnMut(String),
    ) {
        self.compare(now, members);
        for ((set, one, other), since) in self.doubles.iter() {
            self.longest_double = self.longest_double.max(now.since(since));
            if now.since(since) > patience.double {
                say(format!("r{one} and r{other}, both in one view, answer for s{set} since {since}"));
            }
        }
        for (holes, patience, how) in
            [(&self.holes, patience.hole, ""), (&self.settled, patience.settled, ", all in it,")]
        {
            for ((set, router), since) in holes.iter().filter(|hole| now.since(hole.1.max(disturbed)) > patience) {
                say(format!("nobody in r{router}'s view{how} answers for s{set} since {since}"));
            }
        }
        let undeserved = self.undeserved.iter().filter(|it| now.since(it.1.max(disturbed)) > patience.hole);
        for ((set, router), since) in undeserved {
            say(format!("r{router} may not hold s{set}, another may, and it answers for it since {since}"));
        }
        for ((set, router), since) in self.forbidden.iter().filter(|it| now.since(it.1) > patience.double) {
            say(format!("r{router}, in a minority or by another configuration, answers for s{set} since {since}"));
        }
    }

    /// Notes what is so now.
    fn compare(&mut self, now: Instant, members: &[Seen]) {
        let sets = members.first().map_or(0, |member| member.answers.len());
        let pairs =
            members.iter().enumerate().flat_map(|(place, one)| members[..place].iter().map(move |two| (two, one)));
        let pairs = pairs.filter(|(one, two)| one.view.as_ref().is_some_and(|view| two.is_in(view.0)));
        let doubles = pairs.flat_map(|(one, two)| {
            let both = (0..sets).filter(move |&set| one.answers[set] && two.answers[set]);
            both.map(move |set| (set, one.router, two.router))
        });
        self.doubles.are(now, doubles);
        let someone_may = |member: &Seen, set| member.mates(members).any(|mate| self.may(mate, set));
        let is_hole = |member: &Seen, set: usize| {
            let nobody = !member.mates(members).any(|mate| mate.answers[set]);
            nobody && !member.stays(set) && someone_may(member, set)
        };
        let of_all = |is: &dyn Fn(&Seen, usize) -> bool| {
            let all = members.iter().flat_map(|member| (0..sets).map(move |set| (member, set)));
            all.filter(|&(member, set)| is(member, set)).map(|(member, set)| (set, member.router)).collect::<Vec<_>>()
        };
        let holes = of_all(&|member, set| member.awake && is_hole(member, set));
        let settled = of_all(&|member, set| member.is_settled(members) && is_hole(member, set));
        let undeserved = of_all(&|member, set| {
            let answers = member.awake && member.answers[set] && !self.may(member, set) && !member.stays(set);
            answers && someone_may(member, set)
        });
        let forbidden = of_all(&|member, set| {
            let known = member.awake && !member.here.is_empty();
            known && member.answers[set] && (member.overruled || !self.is_covered(member, set))
        });
        self.holes.are(now, holes.into_iter());
        self.settled.are(now, settled.into_iter());
        self.undeserved.are(now, undeserved.into_iter());
        self.forbidden.are(now, forbidden.into_iter());
    }
}
