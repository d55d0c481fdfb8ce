//! What an end says that has no keys: what seems to be the matter.

use super::*;

/// What `end` was told last of what keeps its link down, and how often it was told something.
fn told(net: &Net, end: usize) -> (Option<Obstacle>, usize) {
    let of = |event: &Event| if let Event::Obstructed { obstacle, .. } = event { Some(*obstacle) } else { None };
    let all: Vec<_> = net.ends[end].events.iter().filter_map(of).collect();
    (all.last().copied().flatten(), all.len())
}

fn both_know() -> Net {
    Net::new([Settings::default(), Settings::default()], [true, true])
}

#[test]
fn nothing_is_said_of_links_that_come_up_and_work() {
    let mut net = both_know();
    net.run(ms(100));
    assert!(net.works());
    net.ends[0].room.suspect(net.now, LINK, Obstacle::Refused);
    net.chat(ms(300_000), ms(400));
    assert!(net.ends[0].rekeys() + net.ends[1].rekeys() >= 2, "keys were made anew meanwhile");
    assert_eq!((told(&net, 0), told(&net, 1)), ((None, 0), (None, 0)));
}

#[test]
fn silence_is_said_once_and_taken_back() {
    let mut net = both_know();
    net.script = Box::new(|_| Fate::Lose);
    net.run(ms(1_000));
    assert_eq!(told(&net, 0), (None, 0), "not at once");
    net.run(ms(20_000));
    assert_eq!((told(&net, 0), told(&net, 1)), ((Some(Obstacle::NoAnswer), 1), (Some(Obstacle::NoAnswer), 1)));
    net.script = Box::new(|_| Fate::Pass);
    net.run(ms(3_000));
    assert!(net.works());
    assert_eq!((told(&net, 0), told(&net, 1)), ((None, 2), (None, 2)));
}

#[test]
fn what_icmp_said_is_told_until_it_is_old() {
    let mut net = both_know();
    net.script = Box::new(|_| Fate::Lose);
    let (there, elsewhere) = (net.ends[1].address, SocketAddr::from(([192, 0, 2, 77], 4000)));
    for _ in 0..10 {
        net.ends[0].room.suspect_at(net.now, elsewhere, Obstacle::PresharedKey);
        net.ends[0].room.suspect_at(net.now, there, Obstacle::Refused);
        net.run(ms(500));
    }
    assert_eq!(told(&net, 0), (Some(Obstacle::Refused), 1));
    net.run(ms(15_000));
    assert_eq!(told(&net, 0), (Some(Obstacle::NoAnswer), 2));
}

#[test]
fn keys_that_differ_are_told_apart() {
    let settings = || [Settings::default(), Settings::default()];
    let mut net = Net::strangers(settings());
    net.join(0, None, true);
    net.join(1, Some([7; 32]), true);
    net.run(ms(20_000));
    let ends = [told(&net, 0).0, told(&net, 1).0];
    assert!(ends.contains(&Some(Obstacle::PresharedKey)), "{ends:?}");
    assert!(ends.iter().all(|end| *end >= Some(Obstacle::OneWay)), "both know that the other asks: {ends:?}");

    // The first end expects another key of the second.
    let mut net = Net::strangers(settings());
    let (expected, there) = (Identity::from_seed([9; 32]).public(), net.ends[1].address);
    net.ends[0].room.add_peer(net.now, LINK, expected, None, &[there.into()]);
    net.join(1, None, true);
    net.run(ms(20_000));
    assert_eq!((told(&net, 0).0, told(&net, 1).0), (Some(Obstacle::HasOtherKey), Some(Obstacle::WantsOtherKey)));
    let (from, key) = (there, net.ends[1].identity.public().exchange);
    assert_eq!(net.ends[0].room.take_stranger(), Some(Stranger { from, key }));
}

#[test]
fn an_end_without_the_link_names_who_asks_and_one_that_is_not_heard_says_so() {
    let mut net = Net::strangers([Settings::default(), Settings::default()]);
    net.join(0, None, true);
    net.run(ms(5_000));
    assert_eq!(told(&net, 0).0, Some(Obstacle::NoAnswer));
    let (from, key) = (net.ends[0].address, net.ends[0].identity.public().exchange);
    assert_eq!(net.ends[1].room.take_stranger(), Some(Stranger { from, key }));
    assert_eq!(net.ends[1].room.take_stranger(), None, "told once");

    let mut net = both_know();
    let deaf = net.ends[1].address;
    net.script = Box::new(move |flight| if flight.to == deaf { Fate::Lose } else { Fate::Pass });
    net.run(ms(20_000));
    assert_eq!((told(&net, 0).0, told(&net, 1).0), (Some(Obstacle::OneWay), Some(Obstacle::NoAnswer)));
}
