//! One member, spoken to by hand: what it refuses, counts and gives back.

use super::super::*;
use super::net::{Net, Weather, id, ms};
use crate::wire::membership::{Ack, Data, Join, Part};

fn alone() -> (Instant, Membership) {
    let net = Net::new(1, 1, Weather::CLEAR);
    let mut membership = Membership::new(net.now, net.settings(0), Rng::from_u64(1));
    answer(net.now, &mut membership, b"state");
    (net.now, membership)
}

/// Gives its state when it is asked; all actions.
fn answer(now: Instant, membership: &mut Membership, state: &[u8]) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(action) = membership.poll_action() {
        if matches!(action, Action::WantState { .. }) {
            membership.handle(now, Input::State(state.to_vec()));
        }
        actions.push(action);
    }
    actions
}

fn written(group: u64, incarnation: u64, body: Body<'_>) -> Vec<u8> {
    let mut buffer = [0; MAX_LEN];
    let mut writer = Writer::new(&mut buffer);
    Message { group, incarnation, body }.emit(&mut writer).expect("it fits");
    writer.written().to_vec()
}

fn written_join(join: &Join) -> Vec<u8> {
    let mut buffer = [0; wire::MAX_JOIN];
    let mut writer = Writer::new(&mut buffer);
    join.emit(&mut writer).expect("it fits");
    writer.written().to_vec()
}

#[test]
fn alone_a_message_is_delivered_at_once_whatever_its_service_and_length() {
    let (now, mut membership) = alone();
    for (size, service) in [(0, Service::Agreed), (1, Service::Safe), (MAX_PAYLOAD, Service::Safe)] {
        membership.handle(now, Input::Multicast { body: vec![7; size], service });
        let expected = Action::Deliver(Delivery { from: id(0), service, body: vec![7; size] });
        assert_eq!(answer(now, &mut membership, b""), [expected], "{size}");
    }
    let body = vec![7; MAX_PAYLOAD + 1];
    membership.handle(now, Input::Multicast { body: body.clone(), service: Service::Safe });
    assert_eq!(answer(now, &mut membership, b""), [Action::Refused { why: Refusal::TooLong, body }]);
    assert_eq!(membership.stats().refused, 1);
}

#[test]
fn a_state_that_is_too_long_is_not_brought() {
    let mut net = Net::new(2, 1, Weather::CLEAR);
    let mut membership = Membership::new(net.now, net.settings(0), Rng::from_u64(1));
    let actions = answer(net.now, &mut membership, &vec![0; MAX_STATE + 1]);
    assert!(actions.contains(&Action::Note(Entry::StateTooLong(MAX_STATE + 1))));
    let installed = answer(net.now, &mut membership, b"");
    let brought = |action: &Action| matches!(action, Action::Install { states, .. } if states[0].1.is_empty());
    assert!(actions.iter().chain(&installed).any(brought), "{actions:?}");
    net.run(ms(1));
}

#[test]
fn what_is_no_message_of_the_group_is_counted() {
    let (now, mut membership) = alone();
    let group = membership.group;
    let mut say = |from: usize, bytes: Vec<u8>| membership.handle(now, Input::Message { from: id(from), bytes });
    say(1, b"nonsense".to_vec());
    say(1, written(group + 1, 1, Body::Leave));
    say(0, written(group, 1, Body::Leave));
    say(1, written(group, 1, Body::Join(Part { serial: 1, index: 0, count: 1, bytes: b"nonsense" })));
    // A join without an entry of its sender.
    let join = written_join(&Join { answer: false, wants: false, entries: Vec::new(), report: None });
    say(1, written(group, 1, Body::Join(Part { serial: 2, index: 0, count: 1, bytes: &join })));
    let view = crate::base::ViewId { number: 9, digest: 9 };
    say(1, written(group, 1, Body::Ack(Ack { view, answer: true, clock: 3, last: 2, horizon: 1 })));
    let stats = *membership.stats();
    assert_eq!((stats.malformed, stats.misplaced, stats.foreign), (3, 2, 1));
    assert_eq!(answer(now, &mut membership, b""), [], "and nothing is said to it");
}

#[test]
fn data_that_no_member_may_send_changes_nothing() {
    let mut net = Net::settled(2, 1);
    let (view, group) = (net.member(0).view().expect("a view").id, net.member(0).group);
    let data = Data { view, sender: 1, seq: 1, time: 1, horizon: 0, safe: false, more: false, body: b"too far ahead" };
    let bad = [Data { seq: 500, time: 500, ..data }, Data { sender: 0, ..data }, Data { sender: 5, ..data }];
    for data in bad {
        net.input(0, Input::Message { from: id(1), bytes: written(group, 1_001, Body::Data(data)) });
    }
    let stats = net.member(0).stats();
    assert_eq!((stats.beyond, stats.misplaced, stats.delivered), (1, 2, 0));
    net.run(ms(1_000));
    net.expect_views();
}

#[test]
fn there_is_room_for_so_many_routers_and_those_out_of_reach_make_place() {
    let (now, mut membership) = alone();
    let reach = |membership: &mut Membership, node: usize| membership.handle(now, Input::Reachable(id(node)));
    (1..=70).for_each(|node| reach(&mut membership, node));
    assert_eq!((membership.stats().crowded, membership.peers.len()), (7, 63));
    membership.handle(now, Input::Unreachable(id(5), Suspicion::NoRoute));
    reach(&mut membership, 70);
    assert_eq!((membership.stats().crowded, membership.peers.len()), (7, 63));
    for (what, held, bound) in membership.holdings() {
        assert!(held <= bound, "{held} {what} of {bound}");
    }
}

#[test]
fn who_has_left_says_so_and_takes_nothing() {
    let (now, mut membership) = alone();
    membership.handle(now, Input::Reachable(id(1)));
    answer(now, &mut membership, b"");
    membership.handle(now, Input::Leave);
    let leave = written(membership.group, membership.incarnation(), Body::Leave);
    let said = Action::Send { to: id(1), bytes: leave };
    assert_eq!(answer(now, &mut membership, b""), std::slice::from_ref(&said));
    membership.handle(now, Input::Multicast { body: b"x".to_vec(), service: Service::Safe });
    assert_eq!(answer(now, &mut membership, b""), [Action::Refused { why: Refusal::Left, body: b"x".to_vec() }]);
    let heard = written(membership.group, 1, Body::Heard(1));
    membership.handle(now, Input::Message { from: id(1), bytes: heard });
    assert_eq!(answer(now, &mut membership, b""), [said]);
    assert_eq!(membership.poll_timeout(), None);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_taken_without_a_panic(
        messages in proptest::collection::vec((0u8..9, proptest::collection::vec(0u8..=255, 0..200)), 0..40),
    ) {
        let mut net = Net::settled(3, 1);
        let group = net.member(0).group;
        for (kind, rest) in messages {
            let mut bytes = vec![wire::PROTOCOL, kind];
            bytes.extend(group.to_be_bytes());
            bytes.extend(1_001u64.to_be_bytes());
            bytes.extend(rest);
            net.input(0, Input::Message { from: id(1), bytes });
        }
        net.run(ms(100));
    }
}
