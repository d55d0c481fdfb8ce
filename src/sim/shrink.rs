//! Makes the plan of a run that failed as short as it can be and still fail: delta debugging (Zeller and Hildebrandt, 2002).

use super::fault::Fault;
use super::plan::{Knobs, Plan};
use super::vips::Vips;

/// Runs that shrinking may take.
pub const BUDGET: usize = 400;

/// What failed, without the numbers in it: so that one failure is not exchanged for another.
pub fn kind(failure: &str) -> String {
    failure.chars().filter(|c| !c.is_ascii_digit() && *c != '.').take(80).collect()
}

/// A shorter plan for which `fails` still holds, within `budget` runs. `plan` must fail.
pub fn shrink(plan: &Plan, budget: usize, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut left = budget;
    let mut fails = |plan: &Plan| {
        left = left.saturating_sub(1);
        left > 0 && fails(plan)
    };
    let mut best = plan.clone();
    loop {
        let before = best.clone();
        best.steps = fewest(&best.steps, |steps| fails(&Plan { steps, ..best.clone() }));
        best.flows = fewest(&best.flows, |flows| fails(&Plan { flows, ..best.clone() }));
        soften(&mut best, &mut fails);
        simplify(&mut best, &mut fails);
        if best == before {
            return best;
        }
    }
}

/// The shortest list found for which `fails` holds, by leaving out ever smaller parts.
fn fewest<T: Clone>(all: &[T], mut fails: impl FnMut(Vec<T>) -> bool) -> Vec<T> {
    let mut best = all.to_vec();
    let mut part = best.len().div_ceil(2).max(1);
    loop {
        let mut start = 0;
        while start < best.len() {
            let end = (start + part).min(best.len());
            let rest: Vec<T> = best[..start].iter().chain(&best[end..]).cloned().collect();
            if fails(rest.clone()) {
                best = rest;
            } else {
                start = end;
            }
        }
        if part == 1 {
            return best;
        }
        part = part.div_ceil(2).max(1);
    }
}

/// Takes faults out of the conditions of wires, one after another.
fn soften(best: &mut Plan, fails: &mut impl FnMut(&Plan) -> bool) {
    for index in 0..best.steps.len() {
        while let Fault::Wire { from, to, ref conditions } = best.steps[index].fault {
            let milder = conditions.milder().into_iter().find_map(|conditions| {
                let mut candidate = best.clone();
                candidate.steps[index].fault = Fault::Wire { from, to, conditions: Box::new(conditions) };
                fails(&candidate).then_some(candidate)
            });
            match milder {
                Some(milder) => *best = milder,
                None => break,
            }
        }
    }
}

/// Usual settings, fewer messages.
fn simplify(best: &mut Plan, fails: &mut impl FnMut(&Plan) -> bool) {
    let usual = Plan { knobs: Knobs::default(), ..best.clone() };
    if usual != *best && fails(&usual) {
        *best = usual;
    }
    let alone = Plan { vips: None, ..best.clone() };
    if alone != *best && fails(&alone) {
        *best = alone;
    }
    if let Some(vips) = best.vips.clone() {
        let plain = Vips { majority: Vec::new(), checked: false, ..vips };
        let plain = Plan { vips: Some(plain), ..best.clone() };
        if plain != *best && fails(&plain) {
            *best = plain;
        }
    }
    for index in 0..best.flows.len() {
        let mut candidate = best.clone();
        candidate.flows[index].messages = (best.flows[index].messages / 4).max(1);
        if candidate != *best && fails(&candidate) {
            *best = candidate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_kept_and_the_rest_goes() {
        let found = fewest(&(0..100).collect::<Vec<_>>(), |list| list.contains(&17) && list.contains(&71));
        assert_eq!(found, [17, 71]);
    }

    #[test]
    fn a_plan_shrinks_to_the_step_that_matters() {
        let plan = (0..100).map(|seed| Plan::draw(seed, 2..=8, false)).find(|plan| {
            plan.steps.iter().any(|step| matches!(step.fault, Fault::Crash { .. })) && plan.flows.len() > 3
        });
        let plan = plan.expect("a hundred seeds have a crash");
        let crashes = |plan: &Plan| plan.steps.iter().any(|step| matches!(step.fault, Fault::Crash { .. }));
        let short = shrink(&plan, 2000, crashes);
        assert!(short.steps.len() == 1 && short.flows.is_empty(), "{short:?}");
    }

    #[test]
    fn the_kind_of_a_failure_has_no_numbers() {
        assert_eq!(kind("8.123s: flow 3 got message 5 twice"), kind("9.5s: flow 12 got message 1 twice"));
    }
}
