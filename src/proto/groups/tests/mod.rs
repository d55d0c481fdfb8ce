//! One router's room, spoken to by hand. Many routers under random schedules are in `control/groups/tests`.

use super::*;
use crate::wire::groups::{Message, State};

const ME: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(1);

fn name(text: &str) -> GroupName {
    text.parse().expect("a good name")
}

fn process(node: NodeId, number: u32) -> Process {
    Process { node, number }
}

fn id(number: u64, change: u64) -> GroupViewId {
    GroupViewId { view: ViewId { number, digest: number }, change }
}

/// What the room wants.
fn actions(room: &mut Groups) -> Vec<Action> {
    std::iter::from_fn(|| room.poll_action()).collect()
}

/// Does it, and takes whatever is to be sent.
fn handle(room: &mut Groups, input: Input) -> Vec<Action> {
    room.handle(input);
    let (mut all, mut latest) = (Vec::new(), actions(room));
    while !latest.is_empty() {
        if matches!(latest.last(), Some(Action::Multicast(_))) {
            room.handle(Input::Taken);
        }
        all.append(&mut latest);
        latest = actions(room);
    }
    all
}

fn begin(room: &mut Groups, number: u64, together: &[NodeId], states: &[(NodeId, &[(u32, &str)])]) -> Vec<Action> {
    let members = states.iter().map(|state| state.0).collect();
    let state = |processes: &[(u32, &str)]| State(processes.iter().map(|&(it, group)| (it, name(group))).collect());
    let states = states.iter().map(|(node, processes)| (*node, state(processes).emit())).collect();
    let view = View::new(id(number, 0).view, members);
    handle(room, Input::View { view, together: together.to_vec(), states })
}

fn deliver(room: &mut Groups, from: NodeId, message: &Message<'_>) -> Vec<Action> {
    handle(room, Input::Message { from, body: message.emit() })
}

fn told(processes: &[u32], event: Event) -> Action {
    Action::Tell { processes: processes.to_vec(), event }
}

/// A view as some are told.
fn view(id: GroupViewId, members: &[Process], together: &[Process]) -> Event {
    Event::View { id, members: members.to_vec(), together: together.to_vec() }
}

/// A router with process 1 in group "g", and the other router with its own.
fn pair() -> Groups {
    let mut room = Groups::new(ME);
    begin(&mut room, 1, &[ME], &[(ME, &[])]);
    handle(&mut room, Input::Join { process: 1, group: name("g") });
    deliver(&mut room, ME, &Message::Join { process: 1, group: name("g") });
    begin(&mut room, 2, &[ME], &[(OTHER, &[(7, "g"), (8, "h")]), (ME, &[(1, "g")])]);
    room
}

#[test]
fn who_joins_comes_alone_and_the_others_together() {
    let mut room = Groups::new(ME);
    assert_eq!(begin(&mut room, 1, &[ME], &[(ME, &[])]), []);
    let join = |process| Message::Join { process, group: name("g") };
    assert_eq!(
        handle(&mut room, Input::Join { process: 1, group: name("g") }),
        [Action::Multicast(join(1).emit())],
        "it is told nothing before its join is delivered"
    );
    let (one, two) = (process(ME, 1), process(ME, 2));
    assert_eq!(deliver(&mut room, ME, &join(1)), [told(&[1], view(id(1, 1), &[one], &[one]))]);
    handle(&mut room, Input::Join { process: 2, group: name("g") });
    assert_eq!(
        deliver(&mut room, ME, &join(2)),
        [told(&[1], view(id(1, 2), &[one, two], &[one])), told(&[2], view(id(1, 2), &[one, two], &[two]))]
    );
    handle(&mut room, Input::Leave { process: 1 });
    assert_eq!(
        deliver(&mut room, ME, &Message::Leave { process: 1 }),
        [told(&[2], view(id(1, 3), &[two], &[two]))],
        "who leaves is told nothing"
    );
    assert_eq!((room.processes(), room.groups().count()), ((1, 1), 1));
    handle(&mut room, Input::Leave { process: 2 });
    deliver(&mut room, ME, &Message::Leave { process: 2 });
    assert_eq!((room.processes(), room.groups().count()), ((0, 0), 0), "nothing is left of a group without processes");
}

#[test]
fn a_merge_makes_a_view_of_the_groups_that_gain_somebody_and_of_no_others() {
    let mut room = Groups::new(ME);
    begin(&mut room, 1, &[ME], &[(ME, &[])]);
    for (process, group) in [(1, "g"), (2, "alone")] {
        handle(&mut room, Input::Join { process, group: name(group) });
        deliver(&mut room, ME, &Message::Join { process, group: name(group) });
    }
    let (one, far) = (process(ME, 1), process(OTHER, 7));
    assert_eq!(handle(&mut room, Input::Transitional { together: vec![ME] }), [], "nobody is lost");
    let merged = begin(&mut room, 2, &[ME], &[(OTHER, &[(7, "g"), (8, "h")]), (ME, &[(1, "g"), (2, "alone")])]);
    assert_eq!(merged, [told(&[1], view(id(2, 0), &[far, one], &[one]))]);
    let shown: Vec<_> = room.groups().map(|group| (group.name.as_str(), group.id, group.members.len())).collect();
    assert_eq!(shown, [("alone", id(1, 2), 1), ("g", id(2, 0), 2), ("h", id(2, 0), 1)]);
}

#[test]
fn what_comes_after_the_signal_is_part_of_the_next_view() {
    let mut room = pair();
    let one = process(ME, 1);
    assert_eq!(handle(&mut room, Input::Transitional { together: vec![ME] }), [told(&[1], Event::Transitional)]);
    assert_eq!(deliver(&mut room, OTHER, &Message::Join { process: 9, group: name("g") }), []);
    assert_eq!(deliver(&mut room, OTHER, &Message::Message { process: 9, bytes: b"who?" }), []);
    assert_eq!(room.stats().unknown, 1, "it is not in the view");
    let last = Event::Message { from: process(OTHER, 7), bytes: b"bye".to_vec() };
    assert_eq!(deliver(&mut room, OTHER, &Message::Message { process: 7, bytes: b"bye" }), [told(&[1], last)]);
    assert_eq!(begin(&mut room, 3, &[ME], &[(ME, &[(1, "g")])]), [told(&[1], view(id(3, 0), &[one], &[one]))]);
}

#[test]
fn the_same_members_from_elsewhere_are_another_view() {
    let mut room = pair();
    let (one, far) = (process(ME, 1), process(OTHER, 7));
    let states: [(NodeId, &[(u32, &str)]); 2] = [(OTHER, &[(7, "g")]), (ME, &[(1, "g")])];
    assert_eq!(begin(&mut room, 3, &[OTHER, ME], &states), [], "nothing has changed for it");
    assert_eq!(
        begin(&mut room, 4, &[ME], &states),
        [told(&[1], view(id(4, 0), &[far, one], &[one]))],
        "what it heard since is not what this one heard"
    );
}

#[test]
fn a_state_is_of_this_routers_processes_as_they_will_be() {
    let mut room = pair();
    handle(&mut room, Input::Join { process: 2, group: name("h") });
    let pending = vec![
        (ME, Message::Join { process: 2, group: name("h") }.emit()),
        (OTHER, Message::Leave { process: 7 }.emit()),
        (ME, Message::Leave { process: 1 }.emit()),
        (ME, vec![9, 9]),
    ];
    let state = State([(2, name("h"))].into()).emit();
    assert_eq!(handle(&mut room, Input::WantState { pending }), [Action::State(state)]);
}

#[test]
fn what_there_is_no_room_for_waits_its_turn() {
    let mut room = pair();
    room.handle(Input::Send { process: 1, bytes: b"one".to_vec() });
    let one = Message::Message { process: 1, bytes: b"one" }.emit();
    assert_eq!(actions(&mut room), [Action::Multicast(one.clone())]);
    room.handle(Input::Full(one.clone()));
    room.handle(Input::Join { process: 2, group: name("h") });
    assert_eq!(actions(&mut room), [], "everything waits");
    let busy = Action::Refused { process: 1, why: Refusal::Busy };
    room.handle(Input::Send { process: 1, bytes: b"two".to_vec() });
    assert_eq!(actions(&mut room), [busy]);
    room.handle(Input::Room);
    assert_eq!(actions(&mut room), [Action::Multicast(one)]);
    room.handle(Input::Taken);
    let join = Message::Join { process: 2, group: name("h") }.emit();
    assert_eq!(actions(&mut room), [Action::Sent(1), Action::Multicast(join)]);
    assert_eq!((room.stats().waited, room.stats().sent, room.stats().refused), (1, 1, 1));
}

#[test]
fn what_breaks_a_bound_is_refused_or_counted() {
    let mut room = pair();
    let refused = |process, why| vec![Action::Refused { process, why }];
    for process in 2..=MAX_PROCESSES as u32 {
        handle(&mut room, Input::Join { process, group: name("g") });
    }
    let one_more = MAX_PROCESSES as u32 + 1;
    assert_eq!(
        handle(&mut room, Input::Join { process: one_more, group: name("g") }),
        refused(one_more, Refusal::Crowded)
    );
    let send = |process, len| Input::Send { process, bytes: vec![0; len] };
    assert_eq!(handle(&mut room, send(2, 1)), refused(2, Refusal::NotJoined), "its join is not delivered yet");
    assert_eq!(handle(&mut room, send(1, MAX_GROUP_MESSAGE + 1)), refused(1, Refusal::TooLong));
    assert_eq!(handle(&mut room, send(1, MAX_GROUP_MESSAGE)).len(), 2, "it is sent, and that is said");
    // Another router that does not keep to it.
    for process in 100..100 + MAX_PROCESSES as u32 + 5 {
        deliver(&mut room, OTHER, &Message::Join { process, group: name("g") });
    }
    deliver(&mut room, OTHER, &Message::Leave { process: 1 });
    deliver(&mut room, OTHER, &Message::Join { process: 100, group: name("h") });
    handle(&mut room, Input::Message { from: OTHER, body: vec![77] });
    assert_eq!((room.stats().misplaced, room.stats().malformed), (5 + 2 + 2, 1));
    assert_eq!(room.processes().0, 1 + MAX_PROCESSES);
    assert!(room.holdings().iter().all(|(_, held, most)| held <= most));
}

#[test]
fn inputs_and_actions_are_plain() {
    let input = Input::WantState { pending: vec![(ME, vec![1, 2])] };
    let text = serde_json::to_string(&input).expect("inputs are plain");
    assert_eq!(serde_json::from_str::<Input>(&text).expect("inputs are plain"), input);
    let action = told(&[1], view(id(3, 1), &[process(ME, 1)], &[]));
    let text = serde_json::to_string(&action).expect("actions are plain");
    assert_eq!(serde_json::from_str::<Action>(&text).expect("actions are plain"), action);
}
