//! The allocation against its rules, for any claims, wishes and members.

use super::super::allocation::{Claim, Strength, Wish, allocate, balance};
use super::with_broken;
use crate::base::sabotage::Rule;
use crate::wire::vip::{Seat, Seats};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const MEMBERS: u8 = 6;

/// A set as a test knows it.
#[derive(Clone, Debug)]
struct Set {
    may: Vec<u8>,
    claims: Vec<(u8, Strength)>,
    pin: Option<u8>,
    paused: bool,
    preferences: Vec<Seat>,
}

impl Set {
    fn wish(&self) -> Wish<'_> {
        Wish {
            may: self.may.iter().map(|&seat| Seat(seat)).collect(),
            may_stay: (0..MEMBERS).map(Seat).collect(),
            claims: self.claims.iter().map(|&(seat, strength)| Claim { seat: Seat(seat), strength }).collect(),
            pin: self.pin.map(Seat),
            paused: self.paused,
            preferences: &self.preferences,
        }
    }

    fn may(&self, seat: Seat) -> bool {
        self.may.contains(&seat.0)
    }

    fn owning(&self) -> impl Iterator<Item = Seat> + '_ {
        self.claims.iter().filter(|claim| claim.1 == Strength::Owning).map(|claim| Seat(claim.0))
    }

    fn is_pinned(&self) -> bool {
        self.pin.is_some_and(|pin| self.may(Seat(pin)))
    }

    fn stays(&self) -> bool {
        self.paused && self.owning().next().is_some()
    }

    fn is_preferred(&self, seat: Seat) -> bool {
        self.preferences.contains(&seat)
    }
}

fn set() -> impl Strategy<Value = Set> {
    let seats = || prop::collection::btree_set(0..MEMBERS, 0..=MEMBERS as usize);
    let strength = prop_oneof![Just(Strength::Silent), Just(Strength::Acquiring), Just(Strength::Owning)];
    let claims = prop::collection::btree_map(0..MEMBERS, strength, 0..3);
    let preferences = prop::sample::subsequence((0..MEMBERS).collect::<Vec<_>>(), 0..2);
    (seats(), claims, prop::option::weighted(0.2, 0..MEMBERS), prop::bool::weighted(0.2), preferences).prop_map(
        |(may, claims, pin, paused, preferences)| Set {
            may: may.into_iter().collect(),
            claims: claims.into_iter().collect(),
            pin,
            paused,
            preferences: preferences.into_iter().map(Seat).collect(),
        },
    )
}

fn sets() -> impl Strategy<Value = (Vec<u16>, Vec<Set>)> {
    (prop::collection::vec(1u16..5, MEMBERS as usize), prop::collection::vec(set(), 1..20))
}

/// Sets that may be anywhere, held by nobody.
fn free_sets() -> impl Strategy<Value = (Vec<u16>, Vec<Set>)> {
    let one =
        Set { may: (0..MEMBERS).collect(), claims: Vec::new(), pin: None, paused: false, preferences: Vec::new() };
    (prop::collection::vec(1u16..5, MEMBERS as usize), 1usize..40)
        .prop_map(move |(weights, count)| (weights, vec![one.clone(); count]))
}

fn allocated(weights: &[u16], sets: &[Set]) -> Vec<Option<Seat>> {
    allocate(weights, &sets.iter().map(Set::wish).collect::<Vec<_>>())
}

/// What must hold of every allocation.
fn check(weights: &[u16], sets: &[Set]) -> Result<(), TestCaseError> {
    let owners = allocated(weights, sets);
    for (set, owner) in sets.iter().zip(owners) {
        prop_assert_eq!(owner.is_some(), !set.may.is_empty() || set.stays(), "covered if somebody may: {:?}", set);
        let Some(owner) = owner else { continue };
        if set.stays() {
            prop_assert!(set.owning().any(|seat| seat == owner), "a paused set stays: {:?}, {:?}", owner, set);
            continue;
        }
        prop_assert!(set.may(owner), "who may not holds nothing: {:?}, {:?}", owner, set);
        if set.is_pinned() {
            prop_assert_eq!(Some(owner.0), set.pin);
            continue;
        }
        let holders = set.claims.iter().filter(|claim| set.may(Seat(claim.0)));
        if let Some(strongest) = holders.clone().map(|claim| claim.1).max() {
            let kept = holders.clone().any(|claim| claim.0 == owner.0 && claim.1 == strongest);
            prop_assert!(kept, "the strongest of those who may keeps it: {:?}, {:?}", owner, set);
            let preferred = holders.filter(|claim| claim.1 == strongest).any(|claim| set.is_preferred(Seat(claim.0)));
            prop_assert!(!preferred || set.is_preferred(owner), "of equals the preferred wins: {:?}", set);
        } else if set.may.iter().any(|&seat| set.is_preferred(Seat(seat))) {
            prop_assert!(set.is_preferred(owner), "a hole is filled by the preferred: {:?}, {:?}", owner, set);
        }
    }
    Ok(())
}

/// No member has more, for its weight, than another would have with one more.
fn check_spread(weights: &[u16], owners: &[Option<Seat>]) -> Result<(), TestCaseError> {
    let load = |seat: usize| owners.iter().flatten().filter(|owner| owner.index() == seat).count() as u64;
    for a in 0..weights.len() {
        for b in 0..weights.len() {
            let (more, less) = (load(a) * u64::from(weights[b]), (load(b) + 1) * u64::from(weights[a]));
            prop_assert!(more <= less, "{} has {}, {} has {}, weights {:?}", a, load(a), b, load(b), weights);
        }
    }
    Ok(())
}

/// Balances until nothing moves, two moves at a time; how many moves that took.
fn balanced(weights: &[u16], sets: &[Set], owners: &mut [Option<Seat>]) -> usize {
    let wishes: Vec<Wish<'_>> = sets.iter().map(Set::wish).collect();
    for total in 0.. {
        let moves = balance(weights, &wishes, owners, |set| owners[set].is_some(), 2);
        assert!(moves.len() <= 2 && total <= 10 * sets.len(), "it comes to an end");
        if moves.is_empty() {
            return 2 * total;
        }
        moves.into_iter().for_each(|(set, to)| owners[set] = Some(to));
    }
    unreachable!("it came to an end")
}

proptest! {
    #[test]
    fn every_allocation_follows_the_rules((weights, sets) in sets()) {
        check(&weights, &sets)?;
    }

    #[test]
    fn what_was_allocated_once_does_not_move((weights, sets) in sets()) {
        let owners = allocated(&weights, &sets);
        let held = |(set, owner): (&Set, &Option<Seat>)| Set {
            claims: owner.iter().map(|owner| (owner.0, Strength::Owning)).collect(),
            ..set.clone()
        };
        let held: Vec<Set> = sets.iter().zip(&owners).map(held).collect();
        prop_assert_eq!(allocated(&weights, &held), owners);
    }

    #[test]
    fn who_goes_takes_along_only_what_it_had((weights, sets) in free_sets(), gone in 0..MEMBERS) {
        let owners = allocated(&weights, &sets);
        let without = |(set, owner): (&Set, &Option<Seat>)| Set {
            may: set.may.iter().copied().filter(|&seat| seat != gone).collect(),
            claims: owner.iter().filter(|owner| owner.0 != gone).map(|owner| (owner.0, Strength::Owning)).collect(),
            ..set.clone()
        };
        let after = allocated(&weights, &sets.iter().zip(&owners).map(without).collect::<Vec<_>>());
        for (before, after) in owners.iter().zip(&after) {
            prop_assert!(before == after || *before == Some(Seat(gone)));
            prop_assert_ne!(*after, Some(Seat(gone)));
        }
    }

    #[test]
    fn what_nobody_held_is_spread_within_one((weights, sets) in free_sets()) {
        check_spread(&weights, &allocated(&weights, &sets))?;
    }

    #[test]
    fn balance_ends_within_one_by_few_moves((weights, sets) in free_sets(), at in prop::collection::vec(0..MEMBERS, 40)) {
        let mut owners: Vec<Option<Seat>> = at.iter().take(sets.len()).map(|&seat| Some(Seat(seat))).collect();
        let moves = balanced(&weights, &sets, &mut owners);
        check_spread(&weights, &owners)?;
        prop_assert!(moves <= 2 * sets.len(), "{} moves for {} sets", moves, sets.len());
        prop_assert_eq!(balanced(&weights, &sets, &mut owners), 0, "what is balanced stays");
    }

    #[test]
    fn balance_respects_wishes((weights, sets) in sets()) {
        let before = allocated(&weights, &sets);
        let mut owners = before.clone();
        balanced(&weights, &sets, &mut owners);
        for ((set, before), after) in sets.iter().zip(before).zip(owners) {
            let still = set.paused || set.is_pinned() || before.is_none();
            prop_assert!(!still || before == after, "{:?} moved from {:?} to {:?}", set, before, after);
            let Some(after) = after.filter(|_| !still) else { continue };
            prop_assert!(set.may(after));
            let wanted = set.may.iter().any(|&seat| set.is_preferred(Seat(seat)));
            prop_assert!(!wanted || set.is_preferred(after), "{:?} is not at home but at {:?}", set, after);
        }
    }

    #[test]
    fn two_halves_that_held_everything_merge_into_a_spread_without_a_move(count in 1usize..30) {
        let set = Set {
            may: vec![0, 1],
            claims: vec![(0, Strength::Owning), (1, Strength::Owning)],
            pin: None,
            paused: false,
            preferences: Vec::new(),
        };
        let owners = allocated(&[1, 1], &vec![set; count]);
        let first = owners.iter().filter(|owner| **owner == Some(Seat(0))).count();
        prop_assert!(first.abs_diff(count - first) <= 1, "{} of {}", first, count);
    }
}

#[test]
fn the_properties_notice_broken_rules() {
    for rule in [Rule::NothingMoves, Rule::Holes, Rule::PausedStay] {
        let noticed = with_broken(rule, || {
            let config = Config { failure_persistence: None, ..Config::default() };
            TestRunner::new(config).run(&sets(), |(weights, sets)| check(&weights, &sets)).is_err()
        });
        assert!(noticed.expect("no panic"), "{rule:?} is not noticed");
    }
}

#[test]
fn seats_are_a_set() {
    let some: Seats = [Seat(3), Seat(63), Seat(0)].into_iter().collect();
    assert_eq!(some.iter().collect::<Vec<_>>(), [Seat(0), Seat(3), Seat(63)]);
    assert_eq!(some.without(Seat(3)).len(), 2);
    assert!(some.has(Seat(63)) && !some.has(Seat(1)) && Seats::default().is_empty());
}
