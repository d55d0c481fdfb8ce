//! Leases: of who stands still, and of who slept through the end of its own.

use super::lasting::Lasting;
use super::{Patience, Seen};
use crate::base::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// Watches leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Set, and a member that answers for it.
    answering: Lasting<(usize, usize)>,
    /// Members that stand still: since when, and who was in their view then.
    alone: BTreeMap<usize, (Instant, BTreeSet<usize>)>,
    /// Members whose lease ran out and that have heard nothing from the others since they know.
    unproven: BTreeSet<usize>,
}

impl Leases {
    /// A member that was not cut off stands still.
    pub(super) fn left_alone(&mut self, now: Instant, router: usize, members: &[Seen]) {
        let Some((id, _)) = members.iter().find(|it| it.router == router).and_then(|it| it.view.clone()) else {
            return;
        };
        let mates = members.iter().filter(|other| other.router != router && other.is_in(id));
        self.alone.insert(router, (now, mates.map(|other| other.router).collect()));
    }

    pub(super) fn lapsed(&mut self, router: usize) {
        self.unproven.insert(router);
    }

    /// A member hears from the others.
    pub(super) fn hears(&mut self, router: usize) {
        self.unproven.remove(&router);
    }

    pub(super) fn look(&mut self, now: Instant, patience: &Patience, members: &[Seen], say: &mut impl FnMut(String)) {
        let all = members.iter().flat_map(|member| (0..member.answers.len()).map(move |set| (member, set)));
        let answering = all.filter(|(member, set)| member.answers[*set]).map(|(member, set)| (set, member.router));
        self.answering.are(now, answering);
        self.alone
            .retain(|&router, _| members.iter().any(|it| it.router == router && it.left_alone && it.view.is_some()));
        for (&still, (since, mates)) in &self.alone {
            for ((set, taker), began) in self.answering.iter().filter(|it| mates.contains(&it.0.1) && it.1 > *since) {
                // It was heard last when the link had yet to be found dead, and its lease counts from then.
                if self.answering.since((set, still)).is_some() && now.since(began) > patience.heard {
                    say(format!(
                        "r{still} stands still since {since}, and r{taker} did not wait for its lease on s{set}"
                    ));
                }
            }
        }
        for member in members.iter().filter(|member| self.unproven.contains(&member.router)) {
            if let Some(set) = member.answers.iter().position(|&answers| answers) {
                say(format!("r{} slept, has heard from nobody since, and answers for s{set}", member.router));
            }
        }
    }
}
