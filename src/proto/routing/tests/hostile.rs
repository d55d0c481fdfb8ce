//! What members and neighbours with bad intentions can make a router do, and that honest ones get through meanwhile.

use super::super::budget::Rate;
use super::super::database::{SIGNED, TRIALS};
use super::super::exchange::{PAYMENT, allowance};
use super::alone::{ADVERTISEMENT, Alone, LINK, OTHER, advertise, sends};
use super::net::{Net, id, ms};
use super::*;

/// What a rate grants in `time`.
fn granted(rate: Rate, time: Duration) -> u64 {
    u64::from(rate.burst) + (time.as_nanos() / rate.period.as_nanos()) as u64
}

fn request(origins: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut wish: Vec<_> = origins.map(id).collect();
    wish.sort_unstable();
    let mut buffer = [0; MAX_MESSAGE];
    let mut writer = Writer::new(&mut buffer);
    wire::emit_request(&mut writer, &wish).expect("fits");
    writer.written().to_vec()
}

#[test]
fn a_member_that_signs_without_end_is_rationed_and_its_last_word_arrives() {
    let mut net = Net::new(5, 1, Metric::Hops);
    for a in 0..3 {
        net.wire(a, a + 1, ms(10));
    }
    net.wire(0, 3, ms(10));
    net.run(ms(1_000));
    // Member 4 is behind a stub at router 0 and says two hundred things a second.
    let stub = LinkId(9);
    net.input(0, Input::AddLink { link: stub, peer: id(4) });
    net.wires.push(net::Wire::stub(0, stub));
    net.input(0, Input::LinkUp { link: stub, metrics: LinkMetrics::default() });
    net.take_outgoing();
    let before: Vec<_> = net.routers.iter().map(|router| router.stats().accepted).collect();
    let mut last = Vec::new();
    for counter in 1..=2_000 {
        last = advertise(4, 9, counter, &[(0, ms(1 + counter % 50))]);
        net.input(0, Input::Message { link: stub, bytes: last.clone() });
        net.run(ms(5));
        for bytes in net.take_outgoing() {
            if matches!(Message::parse(&bytes), Ok(Message::Request(_))) {
                net.input(0, Input::Message { link: stub, bytes: last.clone() });
            }
        }
        if counter == 1_500 {
            let (now, others) = (net.now, net.routers[2].advertised(id(0)));
            net.cut(0);
            net.run(ms(20));
            assert_ne!(net.routers[2].advertised(id(0)), others, "honest news from {now:?} goes through at once");
        }
    }
    let most = granted(SIGNED, ms(11_000)) + 60;
    for (router, before) in before.iter().enumerate().take(4) {
        let accepted = net.routers[router].stats().accepted - before;
        assert!(accepted <= most, "router {router} checked and flooded {accepted}, more than {most}");
    }
    let refused = net.routers[0].stats().refused;
    assert!(refused > 1_000, "{refused}");
    // It falls silent: its last word is asked for, and reaches everybody.
    for _ in 0..100 {
        net.run(ms(10));
        for bytes in net.take_outgoing() {
            if matches!(Message::parse(&bytes), Ok(Message::Request(_))) {
                net.input(0, Input::Message { link: stub, bytes: last.clone() });
            }
        }
    }
    for router in 0..4 {
        let held = net.routers[router].digest().find(|entry| entry.0 == id(4)).expect("known").1;
        assert_eq!(held.counter, 2_000, "router {router}");
    }
    let settled = net.messages;
    net.run(ms(10_000));
    assert!(net.messages - settled < 20, "{} messages after the storm", net.messages - settled);
}

#[test]
fn forgeries_cost_their_sender_and_silence_nobody() {
    let mut alone = Alone::new(5, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.up(OTHER, ms(10));
    alone.confirm();
    for counter in 0..1_000 {
        let mut forged = advertise(3, 5, counter + 10, &[(1, ms(1))]);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        alone.message(LINK, &forged);
    }
    let stats = *alone.routing.stats();
    assert_eq!(stats.forged, u64::from(TRIALS.burst), "what was checked");
    assert_eq!(stats.refused, 1_000 - u64::from(TRIALS.burst));
    let honest = advertise(3, 5, 1, &[(1, ms(1))]);
    let actions = alone.message(OTHER, &honest);
    assert_eq!(sends(&actions), [(LINK, ADVERTISEMENT)], "over an honest neighbour its origin is heard at once");
    // An honest one over the bad link is heard when it can be afforded.
    alone.message(LINK, &advertise(4, 5, 1, &[]));
    assert!(alone.routing.advertised(id(4)).is_none());
    let (end, mut asked) = (alone.now + ms(3_000), 0);
    while let Some((at, _)) = alone.routing.poll_timeout().filter(|&(at, _)| at <= end) {
        alone.now = alone.now.max(at);
        for action in alone.input(Input::Timer) {
            let Action::Send { link: LINK, bytes } = action else { continue };
            if matches!(Message::parse(&bytes), Ok(Message::Request(wish)) if wish.origins().any(|it| it == id(4))) {
                asked += 1;
                alone.message(LINK, &advertise(4, 5, 1, &[]));
            }
        }
    }
    assert!((1..=3).contains(&asked), "{asked}");
    assert!(alone.routing.advertised(id(4)).is_some());
}

#[test]
fn two_contents_under_one_sequence_are_not_checked_for_ever() {
    let mut alone = Alone::new(5, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.message(LINK, &advertise(3, 5, 1, &[]));
    let other = advertise(3, 5, 1, &[(1, ms(1))]);
    (0..500).for_each(|_| drop(alone.message(LINK, &other)));
    assert_eq!(alone.routing.stats().equivocations, u64::from(TRIALS.burst));
}

#[test]
fn a_forgery_does_not_call_off_what_another_neighbour_is_asked_for() {
    let mut alone = Alone::new(5, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.up(OTHER, ms(10));
    alone.wait(ms(100));
    let mut buffer = [0; MAX_MESSAGE];
    let mut writer = Writer::new(&mut buffer);
    wire::emit_digest(&mut writer, false, &[(id(3), Sequence { epoch: 1, counter: 1 })]).expect("fits");
    let digest = writer.written().to_vec();
    assert_eq!(alone.message(OTHER, &digest).len(), 1, "asked for");
    let mut forged = advertise(3, 5, 1, &[]);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    alone.message(LINK, &forged);
    assert_eq!(alone.routing.poll_timeout().map(|due| due.1), Some(Reason::Exchange), "still waited for");
    assert!(alone.routing.poll_timeout().is_some_and(|(at, _)| at <= alone.now + ms(2_000)));
}

#[test]
fn requests_are_paid_in_parts_and_not_without_end() {
    const COUNT: usize = 201;
    let mut alone = Alone::new(COUNT, Metric::Hops);
    alone.up(LINK, ms(10));
    for index in 1..COUNT {
        alone.message(OTHER, &advertise(index, 1, 1, &[]));
    }
    alone.wait(ms(100));
    let paid = |actions: &[Action]| sends(actions).iter().filter(|sent| **sent == (LINK, ADVERTISEMENT)).count();
    let wishes = [request(1..101), request(101..COUNT)];
    let mut first = paid(&alone.message(LINK, &wishes[0]));
    assert_eq!(first, PAYMENT, "not all at once");
    first += paid(&alone.message(LINK, &wishes[1]));
    for _ in 0..12 {
        alone.now += ms(10);
        first += paid(&alone.input(Input::Timer));
    }
    assert_eq!(first, COUNT - 1, "each once, soon");

    // Asked again and again, for a minute.
    let mut total = first;
    for round in 0..6_000 {
        alone.now += ms(10);
        total += paid(&alone.message(LINK, &wishes[round % 2]));
    }
    let most = granted(allowance(COUNT), ms(61_000)) as usize;
    assert!(total <= most && total > most / 2, "{total} of {most}");
    assert!(alone.routing.stats().limited > 100_000, "{}", alone.routing.stats().limited);
    // What is owed comes in the end.
    alone.now += ms(60_000);
    let mut rest = 0;
    for _ in 0..100 {
        alone.now += ms(32);
        rest += paid(&alone.input(Input::Timer));
    }
    // All but those paid between the last two requests.
    assert!(rest >= COUNT - 10, "{rest}");
}

#[test]
fn an_unanswered_request_is_followed_by_a_summary() {
    let mut alone = Alone::new(5, Metric::Hops);
    alone.up(LINK, ms(10));
    let mut buffer = [0; MAX_MESSAGE];
    let mut writer = Writer::new(&mut buffer);
    wire::emit_digest(&mut writer, false, &[(id(3), Sequence { epoch: 1, counter: 1 })]).expect("fits");
    let digest = writer.written().to_vec();
    alone.message(LINK, &digest);
    let end = alone.now + ms(8_000);
    let mut summaries = 0;
    while let Some((at, _)) = alone.routing.poll_timeout().filter(|&(at, _)| at <= end) {
        alone.now = alone.now.max(at);
        summaries += sends(&alone.input(Input::Timer)).iter().filter(|sent| sent.1 == 4).count();
    }
    assert_eq!(summaries, 1, "its answer may have been lost");
}
