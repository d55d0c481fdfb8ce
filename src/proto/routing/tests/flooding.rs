//! What a neighbour is sent unasked, what it is only told of, and who is asked for what several offer.

use super::super::exchange::{ANNOUNCE_SPACING, HOLD_BACK, PUSH_SPACING, PUSHED};
use super::alone::{ADVERTISEMENT, Alone, LINK, OTHER, advertise, sends};
use super::net::{id, ms};
use super::*;

const MEMBERS: usize = 60;
const DIGEST: u8 = 2;
const REQUEST: u8 = 3;

/// Router 0, up with both neighbours, and quiet.
fn quiet() -> Alone {
    let mut alone = Alone::new(MEMBERS, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.up(OTHER, ms(10));
    alone.wait(ms(1_000));
    alone
}

/// As a neighbour says what it has: origins and counters.
fn digest(entries: &[(usize, u64)]) -> Vec<u8> {
    let entry = |&(origin, counter): &(usize, u64)| (id(origin), Sequence { epoch: 1, counter });
    let mut entries: Vec<_> = entries.iter().map(entry).collect();
    entries.sort_unstable();
    let mut buffer = [0; MAX_MESSAGE];
    let mut writer = Writer::new(&mut buffer);
    wire::emit_digest(&mut writer, false, &entries).expect("fits");
    writer.written().to_vec()
}

/// What is named to the neighbour, ascending.
fn named(actions: &[Action], to: LinkId, kind: u8) -> Vec<(NodeId, u64)> {
    let mut all = Vec::new();
    for action in actions {
        let Action::Send { link, bytes } = action else { continue };
        match Message::parse(bytes) {
            Ok(Message::Digest(digest)) if kind == DIGEST && *link == to => {
                all.extend(digest.entries().map(|(origin, sequence)| (origin, sequence.counter)));
            }
            Ok(Message::Request(request)) if kind == REQUEST && *link == to => {
                all.extend(request.origins().map(|origin| (origin, 0)));
            }
            _ => {}
        }
    }
    all
}

fn asked(actions: &[Action], from: LinkId) -> Vec<NodeId> {
    named(actions, from, REQUEST).into_iter().map(|(origin, _)| origin).collect()
}

/// All that is done in `time`.
fn pass(alone: &mut Alone, time: Duration) -> Vec<Action> {
    let end = alone.now + time;
    let mut actions = Vec::new();
    while let Some((at, _)) = alone.routing.poll_timeout().filter(|&(at, _)| at <= end) {
        alone.now = alone.now.max(at);
        actions.extend(alone.input(Input::Timer));
    }
    alone.now = end;
    actions
}

/// So much news comes over one link that the other neighbour is sent no more unasked. Origins from 3 on.
fn spend_all(alone: &mut Alone) -> usize {
    let next = 3 + PUSHED.burst as usize;
    assert_eq!(sends(&alone.message(LINK, &advertise(3, 1, 1, &[]))), [(OTHER, ADVERTISEMENT)], "the first at once");
    for origin in 4..next {
        assert_eq!(alone.message(LINK, &advertise(origin, 1, 1, &[])), [], "the next wait for company");
    }
    let told = pass(alone, PUSH_SPACING);
    assert_eq!(sends(&told), vec![(OTHER, ADVERTISEMENT); PUSHED.burst as usize - 1], "and leave together");
    next
}

#[test]
fn few_news_are_sent_at_once_and_many_are_announced_together_in_their_newest_form() {
    let mut alone = quiet();
    let next = spend_all(&mut alone);
    for origin in next..next + 20 {
        assert_eq!(alone.message(LINK, &advertise(origin, 1, 1, &[])), [], "beyond what is sent unasked");
    }
    assert_eq!(alone.message(LINK, &advertise(next, 1, 2, &[])), []);
    assert_eq!(alone.routing.poll_timeout(), Some((alone.now + PUSH_SPACING, Reason::Exchange)));
    let told = pass(&mut alone, PUSH_SPACING);
    let mut expected: Vec<_> = (next..next + 20).map(|origin| (id(origin), u64::from(origin == next) + 1)).collect();
    expected.sort_unstable();
    assert_eq!((sends(&told), named(&told, OTHER, DIGEST)), (vec![(OTHER, DIGEST)], expected));
    // More of it is announced no sooner than so.
    alone.message(LINK, &advertise(next, 1, 3, &[]));
    assert_eq!(sends(&pass(&mut alone, ANNOUNCE_SPACING - ms(1))), []);
    assert_eq!(named(&pass(&mut alone, ms(1)), OTHER, DIGEST), [(id(next), 3)]);
    assert_eq!(sends(&pass(&mut alone, ms(1_000))), [], "once");
    // What was spent comes back with time.
    assert_eq!(sends(&alone.message(LINK, &advertise(next, 1, 4, &[]))), [(OTHER, ADVERTISEMENT)]);
}

#[test]
fn nobody_is_told_what_it_has_by_its_own_word() {
    let mut alone = quiet();
    let next = spend_all(&mut alone);
    let (sent, announced, requested, older, kept) = (next, next + 1, next + 2, next + 3, next + 4);
    for origin in next..next + 5 {
        alone.message(LINK, &advertise(origin, 1, 2, &[]));
    }
    alone.message(OTHER, &advertise(sent, 1, 2, &[]));
    assert_eq!(sends(&alone.message(OTHER, &digest(&[(announced, 2), (older, 1)]))), []);
    let mut buffer = [0; MAX_MESSAGE];
    let mut writer = Writer::new(&mut buffer);
    wire::emit_request(&mut writer, &[id(requested)]).expect("fits");
    assert_eq!(sends(&alone.message(OTHER, writer.written())), [(OTHER, ADVERTISEMENT)], "it asked for it");
    let told = pass(&mut alone, ms(100));
    let mut expected = [(id(older), 2), (id(kept), 2)];
    expected.sort_unstable();
    assert_eq!(named(&told, OTHER, DIGEST), expected);
    assert_eq!(sends(&told).len(), 1);
}

#[test]
fn what_several_offer_is_asked_of_one_and_not_passed_on_to_the_others() {
    let mut alone = quiet();
    assert_eq!(asked(&alone.message(LINK, &digest(&[(3, 1), (4, 1)])), LINK).len(), 2);
    let of_other = alone.message(OTHER, &digest(&[(3, 1), (4, 1), (5, 1)]));
    assert_eq!(asked(&of_other, OTHER), [id(5)]);
    assert_eq!(alone.message(LINK, &advertise(3, 1, 1, &[])), [], "the other one has it by its own word");
    // The first one keeps the other waiting: the second is asked.
    let later = pass(&mut alone, HOLD_BACK);
    assert_eq!((asked(&later, OTHER), asked(&later, LINK)), (vec![id(4)], vec![]));
    assert_eq!(alone.message(OTHER, &advertise(4, 1, 1, &[])), []);
    assert_eq!(alone.message(OTHER, &advertise(5, 1, 1, &[])).len(), 1, "nobody else named this one");
    assert_eq!(sends(&pass(&mut alone, ms(10_000))), [], "nothing is waited for");
}

#[test]
fn who_offers_more_is_asked_as_soon_as_less_has_come() {
    let mut alone = quiet();
    assert_eq!(asked(&alone.message(LINK, &digest(&[(3, 1)])), LINK), [id(3)]);
    assert_eq!(sends(&alone.message(OTHER, &digest(&[(3, 2)]))), []);
    let actions = alone.message(LINK, &advertise(3, 1, 1, &[]));
    assert_eq!(sends(&actions), [(OTHER, REQUEST)], "and it is not told what it has outgrown");
    assert_eq!(sends(&alone.message(OTHER, &advertise(3, 1, 2, &[]))), [(LINK, ADVERTISEMENT)]);
    assert_eq!(sends(&pass(&mut alone, ms(10_000))), []);
}

#[test]
fn a_neighbour_that_is_gone_or_silent_keeps_nobody_from_being_asked() {
    let mut alone = quiet();
    alone.message(LINK, &digest(&[(3, 1)]));
    assert_eq!(sends(&alone.message(OTHER, &digest(&[(3, 1)]))), []);
    let down = alone.down(LINK, DownReason::Silence);
    assert_eq!(asked(&down, OTHER), [id(3)], "at once");
    alone.message(OTHER, &advertise(3, 1, 1, &[]));
    alone.up(LINK, ms(10));
    alone.wait(ms(1_000));
    // It offers and does not give.
    assert_eq!(asked(&alone.message(LINK, &digest(&[(4, 1)])), LINK), [id(4)]);
    alone.wait(ms(3_000));
    assert_eq!(asked(&alone.message(LINK, &digest(&[(5, 1)])), LINK), [id(5)]);
    assert_eq!(asked(&alone.message(OTHER, &digest(&[(5, 1)])), OTHER), [id(5)], "not held back again");
    // It gives: it is believed again.
    alone.message(LINK, &advertise(5, 1, 1, &[]));
    alone.message(LINK, &digest(&[(6, 1)]));
    assert_eq!(sends(&alone.message(OTHER, &digest(&[(6, 1)]))), []);
}

#[test]
fn a_network_that_boots_tells_everybody_everything_about_once() {
    const COUNT: usize = 60;
    let chords: Vec<_> = (0..3 * COUNT).map(|n| (n % COUNT, n * 7 + n / COUNT * 11 + 3, 20)).collect();
    let mut net = random_net(COUNT, &chords, 9, Metric::Hops);
    net.run(ms(2_000));
    assert_eq!(net.check(), Ok(()));
    let sum = |of: fn(&Stats) -> u64| net.routers.iter().map(|router| of(router.stats())).sum::<u64>();
    let (new, again) = (sum(|stats| stats.accepted), sum(|stats| stats.duplicate));
    assert!(new >= (COUNT * (COUNT - 1)) as u64);
    // Were all sent unasked, each would come from nearly all of some eight neighbours.
    assert!(again < 2 * new, "{again} of {new} came again");
}

/// Computations of a router of so many members whose map changes every millisecond for a second.
fn computations(members: usize) -> u64 {
    let mut alone = Alone::new(members, Metric::Latency);
    alone.up(LINK, ms(10));
    alone.up(OTHER, ms(10));
    alone.confirm();
    alone.wait(ms(5_000));
    let before = alone.routing.stats().computations;
    for round in 0..1_000 {
        // Two honest neighbours cannot change so often; sixty members can.
        let origin = 3 + round % 50;
        let links = [(1, ms(10 + round as u64 % 7)), (2, ms(10))];
        alone.message(LINK, &advertise(origin, 1, round as u64 + 1, &links));
        let neighbours: Vec<_> =
            (3..53).map(|other| (other, ms(10 + (round + other) as u64 % 5))).chain([(0, ms(10))]).collect();
        if round % 200 == 0 {
            alone.message(LINK, &advertise(1, 1, round as u64 + 2, &neighbours));
        }
        alone.wait(ms(1));
    }
    alone.routing.stats().computations - before
}

#[test]
fn a_storm_makes_a_large_network_compute_less_often_than_a_small_one() {
    let (small, large) = (computations(60), computations(1_000));
    assert!((60..=101).contains(&small), "ten milliseconds apart: {small}");
    assert!((8..=20).contains(&large), "up to eighty apart: {large}");
}
