//! The checkers can fail: rules of the room broken on purpose, and every property broken by hand.

use super::super::evs::{self, Event, Process, Trace, check};
use super::net::{Net, id, ms};
use super::random;
use crate::base::sabotage::{Rule, break_rule};
use crate::base::{NodeId, View, ViewId};
use crate::proto::membership::Service::{self, Agreed, Safe};
use std::io::Write as _;

/// Random schedules until a broken rule is noticed.
const NOTICED_WITHIN: u64 = 400;

#[test]
fn broken_rules_are_noticed() {
    let rules = Rule::ALL.iter().copied().filter(|rule| rule.is_of_membership());
    let mut missed = Vec::new();
    for rule in rules {
        break_rule(Some(rule));
        let noticed = (0..NOTICED_WITHIN).find_map(|seed| random::run(seed).err().map(|why| (seed, why)));
        // Rare on random schedules.
        let noticed = noticed.or_else(|| Some((NOTICED_WITHIN, answer_to_what_is_lost().err()?)));
        break_rule(None);
        match noticed {
            Some((seed, why)) => {
                let what = why.lines().next().unwrap_or_default();
                let _ = writeln!(std::io::stderr(), "{:<14} {seed:>4}  {what}", rule.name());
            }
            None => missed.push(rule),
        }
    }
    assert!(missed.is_empty(), "nobody noticed that these were broken: {missed:?}");
}

/// The first of four sends a message that only the second gets, who delivers it, as all have said something later, and
/// answers. The other two get the answer alone, and are cut off. They delivered nothing but what they sent themselves.
fn answer_to_what_is_lost() -> Result<(), String> {
    let mut net = Net::settled(4, 1);
    (net.passes[0][2], net.passes[0][3]) = (false, false);
    [0, 2, 3].into_iter().for_each(|node| net.multicast(node, 20, Agreed));
    net.run(net.weather.delay);
    assert_eq!(net.member(1).stats().delivered, 3, "it could not be delivered");
    net.multicast(1, 20, Agreed);
    net.run(net.weather.delay);
    net.split(|node| node / 2);
    net.run(ms(500));
    evs::check(&net.trace, true).map_err(|broken| broken.to_string())?;
    let delivered = [2, 3].map(|node| net.member(node).stats().delivered);
    if delivered == [2, 2] { Ok(()) } else { Err(format!("{delivered:?}")) }
}

#[test]
fn an_answer_to_what_is_lost_is_not_delivered() {
    assert_eq!(answer_to_what_is_lost(), Ok(()));
}

/// A view of these, whose number is also its digest.
fn view(number: u64, members: &[usize]) -> View {
    View::new(ViewId { number, digest: number }, members.iter().map(|&node| id(node)).collect())
}

fn nodes(members: &[usize]) -> Vec<NodeId> {
    members.iter().map(|&node| id(node)).collect()
}

fn install(number: u64, members: &[usize], together: &[usize]) -> Event {
    Event::Install(view(number, members), nodes(together))
}

fn signal(together: &[usize]) -> Event {
    Event::Signal(nodes(together))
}

const fn deliver(message: u64, service: Service) -> Event {
    Event::Deliver(message, service)
}

/// A good trace: two and a third that leaves them, three messages, the last of them safe.
fn good() -> [Vec<Event>; 3] {
    let alone = |node: usize| View::new(ViewId { number: 1, digest: 100 + node as u64 }, nodes(&[node]));
    let first = |node: usize| Event::Install(alone(node), nodes(&[node]));
    let begin = |node: usize| vec![first(node), signal(&[node]), install(2, &[0, 1, 2], &[node])];
    let mut all = [begin(0), begin(1), begin(2)];
    all[0].extend([Event::Send(1), deliver(1, Agreed)]);
    all[1].extend([deliver(1, Agreed), Event::Send(2), Event::Send(3)]);
    all[2].extend([deliver(1, Agreed), deliver(2, Agreed), Event::End]);
    all[0].extend([deliver(2, Agreed), signal(&[0, 1]), deliver(3, Safe), install(3, &[0, 1], &[0, 1])]);
    all[1].extend([deliver(2, Agreed), signal(&[0, 1]), deliver(3, Safe), install(3, &[0, 1], &[0, 1])]);
    all
}

/// The first property that does not hold; 0 if all do.
fn broken(traces: &[Vec<Event>], quiet: bool) -> usize {
    let mut trace = Trace::default();
    for (node, events) in traces.iter().enumerate() {
        events.iter().for_each(|event| trace.add(Process { node: id(node), life: 1 }, event.clone()));
    }
    check(&trace, quiet).map_or_else(|broken| broken.property, |()| 0)
}

/// In the trace of one, at a place, so many events are replaced by others.
type Change<'a> = (usize, usize, usize, &'a [Event]);

/// The good trace with changes.
fn changed(changes: &[Change<'_>]) -> usize {
    let mut all = good();
    for &(node, place, count, events) in changes {
        all[node].splice(place..place + count, events.iter().cloned());
    }
    broken(&all, true)
}

#[test]
fn a_good_trace_breaks_nothing() {
    assert_eq!(broken(&good(), true), 0);
}

#[test]
fn every_property_is_broken_by_a_trace_of_its_own() {
    // Places: 0 to 2 views and signal, 3 and 4 the first message, then as above.
    let cases: &[(usize, &[Change<'_>])] = &[
        (1, &[(0, 0, 0, &[deliver(1, Agreed)])]),
        (2, &[(0, 8, 1, &[install(3, &[1], &[0, 1])])]),
        (3, &[(0, 8, 1, &[install(3, &[0, 1, 2], &[0, 1])])]),
        (4, &[(0, 8, 1, &[install(1, &[0, 1], &[0, 1])]), (1, 9, 1, &[install(1, &[0, 1], &[0, 1])])]),
        (5, &[(0, 5, 1, &[deliver(1, Agreed)])]),
        (6, &[(0, 5, 1, &[deliver(9, Agreed)])]),
        (7, &[(0, 9, 0, &[Event::Send(4)])]),
        (
            8,
            &[
                (0, 9, 0, &[Event::Send(4), deliver(4, Agreed), signal(&[0, 1]), install(4, &[0, 1], &[0, 1])]),
                (1, 10, 0, &[signal(&[0, 1]), install(4, &[0, 1], &[0, 1]), deliver(4, Agreed)]),
            ],
        ),
        (10, &[(0, 7, 1, &[])]),
        (12, &[(0, 5, 2, &[signal(&[0, 1]), deliver(3, Safe)]), (0, 7, 1, &[deliver(2, Agreed)])]),
        (13, &[(2, 3, 2, &[deliver(2, Agreed), deliver(1, Agreed)])]),
        (
            15,
            &[
                (2, 5, 1, &[]),
                (0, 6, 2, &[deliver(3, Safe), signal(&[0, 1])]),
                (1, 7, 2, &[deliver(3, Safe), signal(&[0, 1])]),
            ],
        ),
        (16, &[(0, 6, 2, &[deliver(3, Safe), signal(&[0, 1])])]),
        (16, &[(0, 6, 1, &[signal(&[0, 1]), signal(&[0, 1])])]),
        (17, &[(0, 6, 1, &[signal(&[0])]), (0, 8, 1, &[install(3, &[0, 1], &[0])])]),
    ];
    for (number, (property, changes)) in cases.iter().enumerate() {
        assert_eq!(changed(changes), *property, "case {number}");
    }
}

#[test]
fn a_message_of_an_earlier_life_is_not_sane() {
    let mut trace = Trace::default();
    let process = |node, life| Process { node: id(node), life };
    for event in [install(1, &[0, 1], &[0]), Event::Send(1), Event::End] {
        trace.add(process(0, 1), event);
    }
    for event in [install(1, &[0, 1], &[0]), deliver(1, Agreed)] {
        trace.add(process(0, 2), event);
    }
    assert_eq!(check(&trace, false).map_err(|broken| broken.property), Err(9));
}

#[test]
fn those_who_stay_together_owe_each_other_all() {
    let both = |node: usize| vec![install(1, &[0, 1], &[node])];
    let mut all = [both(0), both(1)];
    all[0].extend([Event::Send(1), deliver(1, Agreed)]);
    assert_eq!(broken(&all, false), 0, "it may still come");
    assert_eq!(broken(&all, true), 11);
}

#[test]
fn two_orders_and_holes_are_not_agreed() {
    let both = |node: usize| vec![install(1, &[0, 1], &[node]), Event::Send(node as u64)];
    let mut all = [both(0), both(1)];
    all[0].extend([deliver(0, Agreed), deliver(1, Agreed)]);
    all[1].extend([deliver(1, Agreed), deliver(0, Agreed)]);
    assert_eq!(broken(&all, false), 14);
    let mut all = [both(0), both(1)];
    all[0].extend([deliver(0, Agreed), deliver(1, Agreed)]);
    all[1].extend([deliver(1, Agreed)]);
    assert_eq!(broken(&all, false), 14, "a hole before the signal");
    let mut all = [both(0), both(1)];
    all[0].extend([deliver(0, Agreed), deliver(1, Agreed)]);
    all[1].extend([signal(&[1]), deliver(1, Agreed)]);
    assert_eq!(broken(&all, false), 0, "after it, of one who does not move on");
}
