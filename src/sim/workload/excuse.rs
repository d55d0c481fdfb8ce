//! When an end of a flow may give up: it got nowhere for long, and there was no way that lasted.

use crate::base::Instant;
use std::time::Duration;

/// An end may give up when it got nowhere for so long: a little less than the sessions' patience.
const PATIENCE: Duration = Duration::from_secs(28);
/// A way that lasts so long brings several questions and their answers through: whoever gives up after it has no excuse.
const WAY: Duration = Duration::from_secs(10);

/// After so long a silence, what gets on again may be news to the other end for this long: what it says of it is on its way,
/// or was lost once.
const NEWS: Duration = Duration::from_secs(2);

/// A link that carries something finds out within this that its path has become too narrow.
const NARROW: Duration = Duration::from_secs(12);

/// What way there is between a flow's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sim) enum Way {
    /// None.
    None,
    /// One that small datagrams pass and others do not: until its link has found out.
    Narrow,
    /// One that carries everything.
    Whole,
}

/// What a flow has been through.
#[derive(Debug)]
pub(super) struct Excuse {
    /// When it was last seen to get on. What was still under way when the way closed does not count, nor what slips
    /// through a narrow one: its answers may not come back, and it is by these that a sender knows.
    progress: Instant,
    /// When it got on again after it had got nowhere for [`PATIENCE`].
    resumed: Option<Instant>,
    way: Way,
    /// Since when the way is a narrow one.
    narrow: Option<Instant>,
    /// Since when there is a whole way between its ends, both ways; and when there last was one for [`WAY`].
    since: Option<Instant>,
    until: Instant,
}

impl Excuse {
    /// A flow that begins at `opens`.
    pub(super) const fn new(opens: Instant) -> Excuse {
        Excuse { progress: opens, resumed: None, way: Way::Whole, narrow: None, since: None, until: opens }
    }

    /// The flow begins, or begins anew.
    pub(super) const fn begins(&mut self, now: Instant) {
        self.progress = now;
    }

    /// Something arrived.
    pub(super) fn gets_on(&mut self, now: Instant) {
        if self.way == Way::Whole {
            if now.since(self.progress) >= PATIENCE {
                self.resumed = Some(now);
            }
            self.progress = now;
        }
    }

    /// What way there is now. To be told every few milliseconds.
    pub(super) fn note_way(&mut self, now: Instant, way: Way) {
        self.way = way;
        self.narrow = (way == Way::Narrow).then(|| self.narrow.unwrap_or(now));
        let found_out = self.narrow.is_some_and(|since| now.since(since) >= NARROW);
        if way != Way::Whole && !found_out {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now.since(since) >= WAY {
            self.until = now;
        }
    }

    /// Whether an end may give up: nothing got on for long, and there was no way that lasted.
    pub(super) fn holds(&self, now: Instant) -> bool {
        let news = self.resumed.is_some_and(|resumed| now.since(resumed) < NEWS);
        (news || now.since(self.progress) >= PATIENCE) && now.since(self.until) >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a flow may give up in the fiftieth second that was told of its way each second and got on in the thirtieth.
    fn excused(way: impl Fn(u64) -> Way) -> bool {
        let at = |second: u64| Instant::from_millis(second * 1000);
        let mut excuse = Excuse::new(at(1));
        for second in 1..50 {
            excuse.note_way(at(second), way(second));
            if second == 30 {
                excuse.gets_on(at(second));
            }
        }
        excuse.holds(at(50))
    }

    #[test]
    fn who_gets_on_again_at_the_last_moment_may_be_given_up_a_moment_later() {
        let at = |millis| Instant::from_millis(millis);
        let mut excuse = Excuse::new(at(0));
        excuse.note_way(at(1), Way::None);
        excuse.note_way(at(29_000), Way::Whole);
        excuse.gets_on(at(29_900));
        assert!(excuse.holds(at(30_000)), "its answer is on its way");
        excuse.gets_on(at(30_500));
        assert!(!excuse.holds(at(32_000)), "that was long enough");
    }

    #[test]
    fn only_who_had_no_way_for_long_may_give_up() {
        assert!(!excused(|_| Way::Whole), "there was a way");
        assert!(excused(|_| Way::None), "what was still under way is no progress");
        assert!(!excused(|second| if second <= 30 { Way::Whole } else { Way::None }), "it got on twenty seconds ago");
        let narrow = |second| if second % 10 == 9 { Way::None } else { Way::Narrow };
        assert!(excused(narrow), "what slips through is no progress");
        assert!(!excused(|_| Way::Narrow), "a link finds out");
        assert!(!excused(|second| if (30..42).contains(&second) { Way::Whole } else { narrow(second) }), "it lasted");
        assert!(
            excused(|second| if (31..36).contains(&second) { Way::Whole } else { narrow(second) }),
            "too short a way"
        );
        assert!(!excused(|second| if second == 29 { Way::Narrow } else { Way::Whole }), "it is whole most of the time");
    }
}
