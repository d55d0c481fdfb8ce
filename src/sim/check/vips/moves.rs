//! What moves: nothing without need, nothing that is paused, and nothing without being accepted all the while.

use super::{Patience, Seen, SeenSet, Standing};
use crate::base::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known of a lease that ran out is known to all after this.
const LAPSE: Duration = Duration::from_secs(5);

/// What happened to a member since it was looked at last.
#[derive(Clone, Copy, Debug, Default)]
struct Happened {
    /// Messages delivered and views begun.
    count: u32,
    /// An order, or a view with others, of whom some may hold the same.
    may_move: bool,
}

/// Watches what moves.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// What each member knew.
    before: BTreeMap<usize, Vec<SeenSet>>,
    happened: BTreeMap<usize, Happened>,
    lapsed_at: BTreeMap<usize, Instant>,
    /// For each set, whether somebody accepted what came for it.
    accepted: Vec<bool>,
    /// When something happened that may leave a set without an owner.
    upset_at: Instant,
}

impl Moves {
    pub(super) const fn upset(&mut self, now: Instant) {
        self.upset_at = now;
    }

    pub(super) fn happened(&mut self, router: usize, may_move: bool) {
        let happened = self.happened.entry(router).or_default();
        happened.count += 1;
        happened.may_move |= may_move;
    }

    pub(super) fn lapsed(&mut self, now: Instant, router: usize) {
        self.lapsed_at.insert(router, now);
        self.upset(now);
    }

    pub(super) fn started(&mut self, router: usize) {
        self.before.remove(&router);
        self.happened.remove(&router);
    }

    pub(super) fn look(
        &mut self,
        now: Instant,
        patience: &Patience,
        members: &[Seen],
        may: impl Fn(&Seen, usize) -> bool,
        say: &mut impl FnMut(String),
    ) {
        for member in members {
            let happened = self.happened.remove(&member.router).unwrap_or_default();
            let before = self.before.insert(member.router, member.sets.clone()).unwrap_or_default();
            // Of several things one may have been the reason, and be over.
            if happened.count == 1 && !happened.may_move {
                let sets = before.iter().zip(&member.sets).enumerate();
                sets.for_each(|(set, (before, after))| self.compare(now, member, (set, before, after), &may, say));
            }
        }
        let sets = members.first().map_or(0, |member| member.accepts.len());
        let accepts = |set: usize| members.iter().any(|member| member.accepts[set] && !member.left_alone);
        let accepted: Vec<bool> = (0..sets).map(accepts).collect();
        let quiet = now.since(self.upset_at) >= patience.heard;
        for set in (0..self.accepted.len().min(sets)).filter(|&set| quiet && self.accepted[set] && !accepted[set]) {
            // What has become well is so only when it was agreed on, too.
            let known = |member: &Seen| member.here.get(&member.router).is_some_and(|it| it.able == sets);
            if members.iter().any(|member| may(member, set) && known(member)) {
                say(format!("nobody accepts what comes for s{set}, though nothing forced anybody to let go of it"));
            }
        }
        self.accepted = accepted;
    }

    /// Compares what a member knew of a set with what it knows after one message or view that orders nothing.
    fn compare(
        &self,
        now: Instant,
        member: &Seen,
        (set, before, after): (usize, &SeenSet, &SeenSet),
        may: &impl Fn(&Seen, usize) -> bool,
        say: &mut impl FnMut(String),
    ) {
        let Some(owner) = before.owner.filter(|&owner| after.owner != Some(owner)) else { return };
        let (router, taker) = (member.router, after.owner.map_or_else(|| "nobody".to_owned(), |it| format!("r{it}")));
        let well = |of: usize| member.here.get(&of).is_some_and(|it| it.may && it.able == member.sets.len());
        // What wants a majority is let go where there is none.
        let covered = after.owner.is_some() || may(member, set);
        let pinned = before.pinned || after.pinned;
        if well(owner) && covered && !pinned {
            say(format!("r{router} agreed to move s{set} from r{owner} to {taker} without need"));
        }
        let holder = before.from.filter(|&from| !before.acquired && well(from) && after.owner != Some(from));
        if let Some(holder) = holder.filter(|_| covered && !pinned) {
            say(format!("r{router} agreed to give s{set} to {taker}, and not back to r{holder}, who still held it"));
        }
        let paused = before.paused && after.paused && before.acquired;
        let slept = self.lapsed_at.get(&owner).is_some_and(|&at| now.since(at) < LAPSE);
        if paused && covered && !slept && member.here.get(&owner).is_some_and(Standing::stays) {
            say(format!("r{router} agreed to move s{set} from r{owner} to {taker} though it is paused"));
        }
    }
}
