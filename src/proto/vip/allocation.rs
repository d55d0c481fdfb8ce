//! Who is to hold each set: a pure function of what all members know alike.
//!
//! Every member of a view computes it from the same view and the same states and so finds the same answer; nobody leads.
//! Nothing in it depends on who computes. In this order, for each set:
//!
//! 1. *Paused* and held: it stays where it is, whatever else is wished. Paused and held by nobody it is covered as others
//!    are: a hole helps nobody.
//! 2. *Pinned* to a member that may hold it: that member.
//! 3. *Held* by a member that may hold it: that member. **Nothing moves without need.**
//! 4. Held by *several* (after a merge): who answers goes before who is about to, who is about to before who gives it up;
//!    among those who are alike the preferred, then the one with the least load for its weight, then the first in the
//!    list. So a merge of two halves that each held everything leaves the sets spread, without a further move.
//! 5. Held by *nobody* who may: the most preferred member that may, else the one with the least load for its weight, the
//!    first in the list among equals. Sets with preferences choose first.
//! 6. No member may: nobody.
//!
//! Who *may* hold a set is decided before (`agreed.rs`): not the drained, the leaving, the immature, those that cannot,
//! those of another configuration, nor anybody if the set wants a majority and the view has none.
//!
//! [`balance`] is the only thing that moves a set for no other reason than to make the spread better: home to a more
//! preferred member, or from a member to one that with it still has less load for its weight. That leaves every two
//! members within one set of each other, weighted: `load(a) / weight(a) ≤ (load(b) + 1) / weight(b)`.

use crate::base::sabotage::{Rule, broken};
use crate::wire::vip::{Seat, Seats};

/// How a member holds a set. Greater is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Strength {
    /// It has the addresses and keeps silent: it gives the set up, or its lease ran out.
    Silent,
    /// The set is given to it, and it has not said that it has it.
    Acquiring,
    /// It answers.
    Owning,
}

/// A member that holds a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    pub(super) seat: Seat,
    pub(super) strength: Strength,
}

/// What is known and wished of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish<'a> {
    /// Who may hold it.
    pub(super) may: Seats,
    /// Who may keep it while it is paused.
    pub(super) may_stay: Seats,
    /// Who holds it.
    pub(super) claims: Vec<Claim>,
    /// To whom operators pinned it.
    pub(super) pin: Option<Seat>,
    pub(super) paused: bool,
    /// Most preferred first.
    pub(super) preferences: &'a [Seat],
}

impl Wish<'_> {
    /// Lower is more preferred.
    fn rank(&self, seat: Seat) -> usize {
        self.preferences.iter().position(|&preferred| preferred == seat).unwrap_or(usize::MAX)
    }

    /// The members of which one keeps the set; none if it must be given to somebody.
    fn contenders(&self) -> Seats {
        let strongest = |among: Seats, least: Strength| {
            let held = || self.claims.iter().filter(move |claim| claim.strength >= least && among.has(claim.seat));
            let most = held().map(|claim| claim.strength).max();
            held().filter(|claim| Some(claim.strength) == most).map(|claim| claim.seat).collect::<Seats>()
        };
        if self.paused && !broken(Rule::PausedStay) {
            let staying = strongest(self.may_stay, Strength::Owning);
            if !staying.is_empty() {
                return staying;
            }
        }
        match self.pin.filter(|&pin| self.may.has(pin)) {
            Some(pin) => Seats::default().with(pin),
            None if broken(Rule::NothingMoves) => Seats::default(),
            None => strongest(self.may, Strength::Silent),
        }
    }
}

/// How many sets each member holds.
struct Loads<'a> {
    weights: &'a [u16],
    loads: Vec<u32>,
}

impl Loads<'_> {
    /// Compares what two members have for their weights, with `more` sets in addition.
    fn compare(&self, a: (Seat, u32), b: (Seat, u32)) -> std::cmp::Ordering {
        let side = |(of, more): (Seat, u32), other: Seat| {
            u64::from(self.loads[of.index()] + more) * u64::from(self.weights[other.index()])
        };
        side(a, b.0).cmp(&side(b, a.0))
    }

    /// The most preferred by `rank`, then the one that with one more has the least for its weight, then the first.
    fn best(&self, among: Seats, rank: impl Fn(Seat) -> usize) -> Option<Seat> {
        among.iter().min_by(|&a, &b| rank(a).cmp(&rank(b)).then_with(|| self.compare((a, 1), (b, 1))))
    }
}

/// The owner of each set. `weights` are by seat, none is zero.
pub(super) fn allocate(weights: &[u16], wishes: &[Wish<'_>]) -> Vec<Option<Seat>> {
    let mut loads = Loads { weights, loads: vec![0; weights.len()] };
    let mut owners = vec![None; wishes.len()];
    let contenders: Vec<Seats> = wishes.iter().map(Wish::contenders).collect();
    // Sets whose owner is certain first, so that the others see what everybody has.
    let certain = |of: Seats| of.len() == 1;
    let contested = |of: Seats| of.len() > 1;
    for kind in [&certain as &dyn Fn(Seats) -> bool, &contested] {
        for (set, wish) in wishes.iter().enumerate().filter(|&(set, _)| kind(contenders[set])) {
            let owner = loads.best(contenders[set], |seat| wish.rank(seat)).expect("there are contenders");
            loads.loads[owner.index()] += 1;
            owners[set] = Some(owner);
        }
    }
    for preferring in [true, false] {
        for (set, wish) in wishes.iter().enumerate() {
            let prefers = wish.may.iter().any(|seat| wish.rank(seat) < usize::MAX);
            if owners[set].is_some() || prefers != preferring || broken(Rule::Holes) {
                continue;
            }
            owners[set] = loads.best(wish.may, |seat| wish.rank(seat));
            loads.loads.iter_mut().enumerate().for_each(|(seat, load)| {
                *load += u32::from(owners[set].is_some_and(|owner| owner.index() == seat));
            });
        }
    }
    owners
}

/// At most `limit` moves towards the best spread: which set, and to whom. Only sets that are `movable` move; paused and
/// pinned ones do not.
pub(super) fn balance(
    weights: &[u16],
    wishes: &[Wish<'_>],
    owners: &[Option<Seat>],
    movable: impl Fn(usize) -> bool,
    limit: usize,
) -> Vec<(usize, Seat)> {
    let mut loads = Loads { weights, loads: vec![0; weights.len()] };
    let mut owners = owners.to_vec();
    owners.iter().flatten().for_each(|owner| loads.loads[owner.index()] += 1);
    let free = |set: usize| {
        let wish = &wishes[set];
        movable(set) && !wish.paused && wish.pin.is_none_or(|pin| !wish.may.has(pin))
    };
    let free: Vec<bool> = (0..wishes.len()).map(free).collect();
    let mut moves = Vec::new();
    while moves.len() < limit {
        let Some((set, to)) =
            go_home(&loads, wishes, &owners, &free).or_else(|| lighten(&loads, wishes, &owners, &free))
        else {
            break;
        };
        let before = owners[set].replace(to).expect("only held sets move");
        loads.loads[before.index()] -= 1;
        loads.loads[to.index()] += 1;
        moves.push((set, to));
    }
    moves
}

/// A set that a more preferred member may have.
fn go_home(loads: &Loads<'_>, wishes: &[Wish<'_>], owners: &[Option<Seat>], free: &[bool]) -> Option<(usize, Seat)> {
    (0..wishes.len()).filter(|&set| free[set]).find_map(|set| {
        let (wish, owner) = (&wishes[set], owners[set]?);
        let best = loads.best(wish.may, |seat| wish.rank(seat))?;
        (wish.rank(best) < wish.rank(owner)).then_some((set, best))
    })
}

/// A set that leaves the member with the most for its weight, to one that even with it has less.
fn lighten(loads: &Loads<'_>, wishes: &[Wish<'_>], owners: &[Option<Seat>], free: &[bool]) -> Option<(usize, Seat)> {
    let better = |set: usize| {
        let (wish, owner) = (&wishes[set], owners[set]?);
        // Who is preferred keeps it, however much it has.
        if wish.rank(owner) < usize::MAX {
            return None;
        }
        let to = loads.best(wish.may.without(owner), |_| 0)?;
        loads.compare((to, 1), (owner, 0)).is_lt().then_some((set, owner, to))
    };
    let candidates = (0..wishes.len()).filter(|&set| free[set]).filter_map(better);
    // `min_by` keeps the first of equals.
    let heaviest = |a: &(usize, Seat, Seat), b: &(usize, Seat, Seat)| {
        loads.compare((b.1, 0), (a.1, 0)).then_with(|| loads.compare((a.2, 1), (b.2, 1)))
    };
    candidates.min_by(heaviest).map(|(set, _, to)| (set, to))
}
