//! The rules of service addresses: every set is answered for by exactly one router of a component, and what goes with it.
//!
//! While anything goes on:
//! - `answers.rs`: two in one view do not answer for a set for longer than a lease; what somebody may hold does not stay
//!   without an owner; and who may not hold a set does not answer for it: the drained, the unwell, a minority, another
//!   configuration.
//! - `leases.rs`: who takes over from a router that stands still waits for its lease; and a router whose lease ran out
//!   answers for nothing before it has heard from the others.
//! - `moves.rs`: nothing moves without need, what is paused stays, and what orders, health and leaving move is accepted by
//!   somebody at every moment.
//! - A rival is told of and not fought for ever, and who has another configuration is named to all.
//!
//! And when the network has healed, all members are in one view, and each set is answered for by exactly one, which was
//! heard since the last merge ([`at_rest`]).

mod answers;
mod lasting;
mod leases;
mod moves;
mod seen;

pub use seen::{Seen, SeenSet, Standing};

use crate::base::Instant;
use crate::control::Witnessed;
use crate::wire::vip::Message;
use answers::Answers;
use leases::Leases;
use moves::Moves;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long what may be for a while may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Until a link that fell silent is known to be dead.
    pub heard: Duration,
    /// Two answer.
    pub double: Duration,
    /// Nobody answers, though nothing disturbs.
    pub hole: Duration,
    /// Nobody answers, though nothing disturbs and all are in one view.
    pub settled: Duration,
}

/// Watches a group.
#[derive(Debug)]
pub struct Watch {
    patience: Patience,
    answers: Answers,
    leases: Leases,
    moves: Moves,
    /// When something disturbed the group last; and before that, at another moment.
    disturbed: Instant,
    before: Instant,
}

impl Watch {
    /// So patient; sets that a majority alone may hold, by number, and how many members there are.
    pub fn new(patience: Patience, majority: Vec<usize>, members: usize) -> Watch {
        Watch {
            patience,
            answers: Answers::new(majority, members),
            leases: Leases::default(),
            moves: Moves::default(),
            disturbed: Instant::ZERO,
            before: Instant::ZERO,
        }
    }

    /// Something keeps the group from coming to rest; it hands over what it makes of it, or can not.
    pub fn disturb(&mut self, now: Instant, handed_over: bool) {
        if now > self.disturbed {
            self.before = std::mem::replace(&mut self.disturbed, now);
        }
        if !handed_over {
            self.moves.upset(now);
        }
    }

    /// So patient from now on.
    pub const fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// A member saw this.
    pub fn saw(&mut self, now: Instant, router: usize, seen: &Witnessed) {
        match seen {
            Witnessed::Delivered(delivery) => {
                self.leases.hears(router);
                let order = matches!(Message::parse(&delivery.body), Ok(Message::Order { .. }));
                self.moves.happened(router, order);
            }
            Witnessed::Began(view, together) => {
                self.leases.hears(router);
                self.moves.happened(router, together.len() < view.members.len());
                self.moves.upset(now);
            }
            Witnessed::Sent { .. } | Witnessed::Ends(_) => {}
        }
    }

    /// A member was told that its lease ran out.
    pub fn lapsed(&mut self, now: Instant, router: usize) {
        self.leases.lapsed(router);
        self.moves.lapsed(now, router);
    }

    /// A member starts anew.
    pub fn started(&mut self, router: usize) {
        self.leases.hears(router);
        self.moves.started(router);
    }

    /// A member stands still from now on, as the others, of whom this is seen, will find out.
    pub fn left_alone(&mut self, now: Instant, router: usize, members: &[Seen]) {
        let last = if self.disturbed == now { self.before } else { self.disturbed };
        if now.since(last) >= self.patience.heard {
            self.leases.left_alone(now, router, members);
        }
    }

    /// The longest that two routers in one view answered for one set.
    pub const fn longest_double(&self) -> Duration {
        self.answers.longest_double()
    }

    /// Looks at all members.
    pub fn look(&mut self, now: Instant, members: &[Seen], violations: &mut Vec<String>) {
        let mut say = |what: String| violations.push(format!("{now}: {what}"));
        self.answers.look(now, self.disturbed, &self.patience, members, &mut say);
        self.leases.look(now, &self.patience, members, &mut say);
        self.moves.look(now, &self.patience, members, |member, set| self.answers.may(member, set), &mut say);
        members.iter().for_each(|member| look_at(member, members, &mut say));
    }
}

/// What one member was told, and what its host was.
fn look_at(member: &Seen, members: &[Seen], say: &mut impl FnMut(String)) {
    let router = member.router;
    if let Some((told, counted)) = member.rivals.filter(|(told, counted)| told != counted) {
        say(format!("r{router} was told of {told} rivals and knows of {counted}"));
    }
    if let Some(set) = member.shouts {
        say(format!("r{router} announces s{set} without end"));
    }
    let Some((id, _)) = member.view.as_ref().filter(|_| !member.gathers && !member.overruled) else { return };
    let others = members.iter().filter(|other| other.unequal != member.unequal && other.is_in(*id));
    let unnamed = others.map(|other| other.router).find(|other| member.here.get(other).is_some_and(|it| it.equal));
    if let Some(other) = unnamed {
        say(format!("r{router} does not know that the configuration of r{other} is another one"));
    }
}

/// All members are in one view and each set is answered for by exactly one of them, who has announced it since it met
/// others who may have.
pub fn at_rest(members: &[Seen]) -> Result<(), String> {
    let all: BTreeSet<usize> = members.iter().map(|member| member.router).collect();
    let first = members.first().and_then(|member| member.view.as_ref());
    for Seen { router, view, gathers, .. } in members {
        if *gathers || view.as_ref().is_none_or(|view| Some(view.0) != first.map(|view| view.0) || view.1 != all) {
            return Err(format!("r{router} is in view {view:?} of {all:?}, gathers: {gathers}"));
        }
    }
    if members.iter().all(Seen::knows_all_drained) {
        return Ok(());
    }
    for set in 0..members.first().map_or(0, |member| member.answers.len()) {
        let answering: Vec<&Seen> = members.iter().filter(|member| member.answers[set]).collect();
        let [owner] = answering[..] else {
            let routers: Vec<usize> = answering.iter().map(|member| member.router).collect();
            return Err(format!("routers {routers:?} answer for s{set}"));
        };
        let (router, stays) = (owner.router, owner.sets.get(set).is_some_and(|set| set.paused));
        if owner.here.get(&router).is_some_and(|standing| !standing.may) && !stays {
            return Err(format!("r{router} answers for s{set} and is to hold nothing"));
        }
        if owner.announced[set] < owner.merged_at {
            return Err(format!("r{router} met others who may have held s{set} and has not announced it since"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ViewId;
    use std::collections::BTreeMap;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const PATIENCE: Patience = Patience { heard: ms(50), double: ms(100), hole: ms(1000), settled: ms(500) };

    /// A member of two in a view with this number, which knows that `owner` has the only set.
    fn seen(router: usize, number: u64, answers: bool) -> Seen {
        let well = Standing { equal: true, drained: false, leaving: false, may: true, able: 1 };
        let set = SeenSet { owner: Some(0), acquired: true, from: None, pinned: false, paused: false, able: true };
        Seen {
            router,
            awake: true,
            left_alone: false,
            view: Some((ViewId { number, digest: 1 }, BTreeSet::from([0, 1]))),
            gathers: false,
            answers: vec![answers],
            accepts: vec![answers],
            announced: vec![Instant::ZERO],
            merged_at: Instant::ZERO,
            sets: vec![set],
            here: BTreeMap::from([(0, well), (1, well)]),
            overruled: false,
            unequal: false,
            rivals: Some((0, 0)),
            shouts: None,
        }
    }

    fn watch() -> Watch {
        Watch::new(PATIENCE, Vec::new(), 2)
    }

    /// What is said when it was like this and is so many milliseconds later.
    fn after(watch: &mut Watch, millis: u64, members: &[Seen]) -> Vec<String> {
        let mut violations = Vec::new();
        watch.look(Instant::ZERO, members, &mut violations);
        watch.look(Instant::from_millis(millis), members, &mut violations);
        violations
    }

    #[test]
    fn two_in_one_view_may_answer_for_a_moment_and_two_in_different_views_for_long() {
        let both = [seen(0, 1, true), seen(1, 1, true)];
        assert!(after(&mut watch(), 100, &both).is_empty());
        assert_eq!(after(&mut watch(), 101, &both).len(), 1);
        assert!(after(&mut watch(), 5000, &[seen(0, 1, true), seen(1, 2, true)]).is_empty());
        assert!(at_rest(&both).is_err());
    }

    #[test]
    fn a_set_that_nobody_answers_for_is_noticed_after_a_while_and_sooner_where_all_are_together() {
        let nobody = [seen(0, 1, false), seen(1, 1, false)];
        assert!(after(&mut watch(), 500, &nobody).is_empty());
        assert_eq!(after(&mut watch(), 501, &nobody).len(), 2, "each member says so");
        let apart = [seen(0, 1, false), seen(1, 2, false)];
        assert!(after(&mut watch(), 1000, &apart).is_empty());
        assert_eq!(after(&mut watch(), 1001, &apart).len(), 2);
        assert!(at_rest(&nobody).is_err() && at_rest(&[seen(0, 1, true), seen(1, 1, false)]).is_ok());
    }

    #[test]
    fn who_may_not_hold_a_set_does_not_answer_for_it_where_another_may() {
        let mut members = [seen(0, 1, true), seen(1, 1, false)];
        members[0].sets[0].able = false;
        assert!(after(&mut watch(), 1000, &members).is_empty());
        assert_eq!(after(&mut watch(), 1001, &members).len(), 1);
        members[1].sets[0].able = false;
        assert!(after(&mut watch(), 5000, &members).is_empty(), "nobody may");
    }

    #[test]
    fn a_minority_answers_for_nothing_that_wants_a_majority() {
        let mut alone = seen(0, 1, true);
        alone.here.remove(&1);
        alone.view = Some((ViewId { number: 1, digest: 1 }, BTreeSet::from([0])));
        let members = [alone, seen(1, 2, false)];
        let majority = || Watch::new(PATIENCE, vec![0], 2);
        assert!(after(&mut watch(), 101, &members).is_empty());
        assert_eq!(after(&mut majority(), 101, &members).len(), 1);
        assert!(after(&mut majority(), 101, &[seen(0, 1, true), seen(1, 1, false)]).is_empty());
    }

    #[test]
    fn another_configuration_is_named_and_holds_nothing() {
        let mut members = [seen(0, 1, false), seen(1, 1, true)];
        members[1].unequal = true;
        assert_eq!(after(&mut watch(), 1, &members).len(), 4, "neither knows, twice");
        members[1].overruled = true;
        members[0].here.get_mut(&1).expect("it is there").equal = false;
        assert!(after(&mut watch(), 100, &members).is_empty());
        assert_eq!(after(&mut watch(), 101, &members).len(), 1, "it answers");
    }

    #[test]
    fn who_stood_still_is_taken_over_from_only_when_its_lease_has_run_out() {
        let members = [seen(0, 1, true), seen(1, 1, false)];
        let mut watch = watch();
        let mut violations = Vec::new();
        let at = Instant::from_millis;
        watch.look(at(400), &members, &mut violations);
        watch.left_alone(at(500), 0, &members);
        let mut still = members.clone();
        still[0].left_alone = true;
        still[1] = seen(1, 2, true);
        watch.look(at(600), &still, &mut violations);
        watch.look(at(650), &still, &mut violations);
        assert_eq!(violations, Vec::<String>::new());
        watch.look(at(651), &still, &mut violations);
        assert_eq!(violations.len(), 1, "{violations:?}");
    }

    #[test]
    fn who_slept_answers_for_nothing_before_it_has_heard_from_the_others() {
        let members = [seen(0, 1, true), seen(1, 1, false)];
        let mut watch = watch();
        watch.lapsed(Instant::ZERO, 0);
        assert_eq!(after(&mut watch, 1, &members).len(), 2);
        watch.started(0);
        assert!(after(&mut watch, 1, &members).is_empty());
    }

    /// What is said when something was delivered to the first of them, and its set belongs to the second now.
    fn moved(order: bool, change: impl Fn(&mut Seen)) -> Vec<String> {
        let mut members = [seen(0, 1, true), seen(1, 1, false)];
        let (mut watch, mut violations) = (watch(), Vec::new());
        watch.look(Instant::ZERO, &members, &mut violations);
        watch.moves.happened(0, order);
        members[0].sets[0].owner = Some(1);
        change(&mut members[0]);
        watch.look(Instant::from_millis(1), &members, &mut violations);
        violations
    }

    #[test]
    fn nothing_moves_without_need_and_what_is_paused_stays() {
        let drain = |member: &mut Seen| {
            let standing = member.here.get_mut(&0).expect("it is there");
            (standing.drained, standing.may) = (true, false);
        };
        assert_eq!(moved(false, |_| {}).len(), 1);
        assert!(moved(true, |_| {}).is_empty(), "it was ordered");
        assert!(moved(false, drain).is_empty(), "it may not hold it");
    }

    #[test]
    fn a_set_is_accepted_by_somebody_while_it_is_handed_over() {
        let at = Instant::from_millis;
        for (upset, expected) in [(100, 1), (460, 0)] {
            let (mut watch, mut violations) = (watch(), Vec::new());
            watch.disturb(at(upset), false);
            watch.look(at(470), &[seen(0, 1, true), seen(1, 1, false)], &mut violations);
            watch.look(at(480), &[seen(0, 1, false), seen(1, 1, false)], &mut violations);
            assert_eq!(violations.len(), expected, "{violations:?}");
        }
    }
}
