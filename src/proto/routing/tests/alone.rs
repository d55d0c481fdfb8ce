//! One router, scripted neighbours.

use super::super::own::{CALM_SPACING, FLAP_MEMORY, HOLD_FIRST, REFRESH, TOLD, URGENT_SPACING};
use super::super::*;
use super::net::{id, identity, metrics, ms};
use crate::base::Rng;

pub(super) const LINK: LinkId = LinkId(0);
pub(super) const OTHER: LinkId = LinkId(1);

/// Router 0 with links to routers 1 and 2, of `members` members.
pub(super) struct Alone {
    pub(super) now: Instant,
    pub(super) routing: Routing,
}

impl Alone {
    pub(super) fn new(members: usize, metric: Metric) -> Alone {
        let now = Instant::from_millis(5_000);
        let members = (0..members).map(|index| identity(index).public()).collect();
        let routing = Routing::new(now, identity(0), members, metric, WallTime::from_nanos(1_000), Rng::from_u64(1));
        let mut alone = Alone { now, routing };
        alone.input(Input::AddLink { link: LINK, peer: id(1) });
        alone.input(Input::AddLink { link: OTHER, peer: id(2) });
        alone.wait(ms(100));
        alone
    }

    pub(super) fn input(&mut self, input: Input) -> Vec<Action> {
        self.routing.handle(self.now, input);
        std::iter::from_fn(|| self.routing.poll_action()).collect()
    }

    pub(super) fn up(&mut self, link: LinkId, rtt: Duration) -> Vec<Action> {
        self.input(Input::LinkUp { link, metrics: metrics(rtt) })
    }

    pub(super) fn down(&mut self, link: LinkId, reason: DownReason) -> Vec<Action> {
        self.input(Input::LinkDown { link, reason })
    }

    pub(super) fn message(&mut self, link: LinkId, bytes: &[u8]) -> Vec<Action> {
        self.input(Input::Message { link, bytes: bytes.to_vec() })
    }

    /// Waits, serving timers; gives the moments at which advertisements of this router went out, since now.
    pub(super) fn wait(&mut self, time: Duration) -> Vec<Duration> {
        let (start, end) = (self.now, self.now + time);
        let mut told = Vec::new();
        while let Some((at, _)) = self.routing.poll_timeout().filter(|&(at, _)| at <= end) {
            self.now = self.now.max(at);
            let before = self.routing.stats().originated;
            self.input(Input::Timer);
            if self.routing.stats().originated > before {
                told.push(self.now.since(start));
            }
        }
        self.now = end;
        told
    }

    pub(super) fn own(&self) -> Vec<AdvertisedLink> {
        self.routing.advertised(id(0)).expect("a router always advertises itself")
    }

    /// Both links come up, and that is told.
    fn both_up(&mut self) {
        self.up(LINK, ms(10));
        self.wait(URGENT_SPACING);
        self.up(OTHER, ms(10));
    }

    /// Both neighbours confirm, so that there are routes.
    pub(super) fn confirm(&mut self) {
        for neighbour in [1, 2] {
            let bytes = advertise(neighbour, 1, 1, &[(0, ms(10))]);
            self.message(LinkId(neighbour as u16 - 1), &bytes);
        }
        self.wait(ms(20));
    }
}

pub(super) fn advertise(origin: usize, epoch: u64, counter: u64, links: &[(usize, Duration)]) -> Vec<u8> {
    let identity = identity(origin);
    let link = |&(to, rtt): &(usize, Duration)| AdvertisedLink::new(id(to), &metrics(rtt));
    let mut links: Vec<_> = links.iter().map(link).collect();
    links.sort_by_key(|link| link.neighbour);
    let sign = |bytes: &[u8]| identity.sign(&[wire::SIGNING_CONTEXT, bytes].concat());
    let mut buffer = [0; MAX_MESSAGE];
    wire::emit_advertisement(&mut buffer, identity.public().node_id(), Sequence { epoch, counter }, &links, sign)
        .to_vec()
}

/// Who gets what kind of message: `(link, kind byte)`.
pub(super) fn sends(actions: &[Action]) -> Vec<(LinkId, u8)> {
    let send = |action: &Action| if let Action::Send { link, bytes } = action { Some((*link, bytes[1])) } else { None };
    actions.iter().filter_map(send).collect()
}

pub(super) const ADVERTISEMENT: u8 = 1;
const DIGEST: u8 = 2;
const REQUEST: u8 = 3;

#[test]
fn floods_to_all_but_where_it_came_from() {
    let mut alone = Alone::new(4, Metric::Hops);
    assert_eq!(sends(&alone.up(LINK, ms(10))), [(LINK, DIGEST), (LINK, ADVERTISEMENT)]);
    alone.wait(URGENT_SPACING);
    let both = alone.up(OTHER, ms(10));
    assert_eq!(sends(&both), [(OTHER, DIGEST), (LINK, ADVERTISEMENT), (OTHER, ADVERTISEMENT)]);
    let news = advertise(3, 1, 1, &[]);
    assert_eq!(alone.message(LINK, &news), [Action::Send { link: OTHER, bytes: news.clone() }]);
    assert_eq!(alone.message(OTHER, &news), []);
    let correction = Action::Send { link: OTHER, bytes: news };
    assert_eq!(alone.message(OTHER, &advertise(3, 0, 9, &[])), [correction], "who sends something old is corrected");
    let stats = *alone.routing.stats();
    assert_eq!((stats.accepted, stats.duplicate, stats.older), (1, 1, 1));
}

#[test]
fn what_is_forged_unknown_or_malformed_changes_nothing() {
    let mut alone = Alone::new(4, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.up(OTHER, ms(10));
    alone.confirm();
    let before: Vec<_> = alone.routing.digest().collect();

    let mut forged = advertise(3, 1, 1, &[(1, ms(1))]);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(alone.message(LINK, &forged), []);
    let mut in_our_name = advertise(0, 9_999, 1, &[]);
    in_our_name[last.min(30)] ^= 1;
    alone.message(LINK, &in_our_name);
    assert_eq!(alone.message(LINK, &advertise(7, 1, 1, &[])), []);
    assert_eq!(alone.message(LINK, &[wire::PROTOCOL]), []);
    assert_eq!(alone.message(LinkId(40), &advertise(3, 1, 1, &[])), []);

    assert_eq!(alone.routing.digest().collect::<Vec<_>>(), before);
    let stats = *alone.routing.stats();
    assert_eq!((stats.forged, stats.unknown_origin, stats.malformed, stats.misplaced), (2, 1, 1, 1));
    assert_eq!(stats.impostors, 0);
}

#[test]
fn of_two_contents_under_one_sequence_the_first_stays() {
    let mut alone = Alone::new(4, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.message(LINK, &advertise(3, 1, 1, &[(1, ms(1))]));
    assert_eq!(alone.message(LINK, &advertise(3, 1, 1, &[(2, ms(1))])), []);
    assert_eq!(alone.routing.stats().equivocations, 1);
    assert_eq!(alone.routing.advertised(id(3)).expect("known")[0].neighbour, id(1));
    alone.message(LINK, &advertise(3, 1, 2, &[(2, ms(1))]));
    assert_eq!(alone.routing.advertised(id(3)).expect("known")[0].neighbour, id(2));
}

#[test]
fn jumps_above_its_own_older_life() {
    let mut alone = Alone::new(4, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.wait(ms(100));
    let theirs = Sequence { epoch: 7_000, counter: 41 };
    let answer = alone.message(LINK, &advertise(0, theirs.epoch, theirs.counter, &[(3, ms(1))]));
    assert_eq!(sends(&answer), [(LINK, ADVERTISEMENT)]);
    let ours = alone.routing.digest().find(|entry| entry.0 == id(0)).expect("own").1;
    assert!(ours > theirs);
    assert_eq!(alone.own()[0].neighbour, id(1), "its content is of today");
    // A second one waits.
    assert_eq!(alone.message(LINK, &advertise(0, 8_000, 1, &[])), []);
    let told = alone.wait(ms(2_000));
    assert_eq!(told, [ms(1_000)]);
}

#[test]
fn a_link_is_used_only_when_both_ends_advertise_it() {
    let mut alone = Alone::new(3, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.wait(ms(50));
    assert!(alone.routing.routes().next().is_none());
    alone.message(LINK, &advertise(1, 1, 1, &[(2, ms(10))]));
    alone.wait(ms(50));
    assert!(alone.routing.routes().next().is_none(), "the neighbour does not advertise us");
    let actions = alone.message(LINK, &advertise(1, 1, 2, &[(0, ms(10)), (2, ms(10))]));
    assert_eq!(actions, [Action::Routes(vec![(id(1), LINK)])], "router 2 does not advertise anything");
    let route = Route { destination: id(1), link: LINK, cost: 1, path: vec![id(1)] };
    assert_eq!(alone.routing.routes().collect::<Vec<_>>(), [route]);
    let mut views: Vec<_> = alone.routing.nodes().map(|view| (view.reachable, view.links)).collect();
    views.sort_unstable();
    assert_eq!(views, [(true, 1), (true, 1)]);
}

#[test]
fn a_link_that_is_back_before_anybody_was_told_is_used_again() {
    let mut alone = Alone::new(3, Metric::Latency);
    alone.up(LINK, ms(10));
    alone.up(OTHER, ms(10));
    alone.wait(ms(3_000));
    alone.confirm();
    assert!(alone.routing.reaches(id(1)));
    // A router that stood still learns both at one moment, so what it advertises stays the same; its neighbour had time.
    alone.down(LINK, DownReason::Silence);
    alone.up(LINK, ms(10));
    alone.message(LINK, &advertise(1, 1, 2, &[]));
    alone.wait(ms(20));
    assert!(!alone.routing.reaches(id(1)), "the other end does not advertise it");
    alone.message(LINK, &advertise(1, 1, 3, &[(0, ms(10))]));
    alone.wait(ms(20));
    assert!(alone.routing.reaches(id(1)), "both ends advertise it");
}

#[test]
fn the_cheaper_of_two_links_to_a_neighbour_is_used() {
    let mut alone = Alone::new(3, Metric::Latency);
    let second = LinkId(2);
    alone.input(Input::AddLink { link: second, peer: id(1) });
    alone.up(LINK, ms(30));
    alone.up(second, ms(10));
    alone.wait(ms(50));
    alone.message(LINK, &advertise(1, 1, 1, &[(0, ms(10))]));
    alone.wait(ms(50));
    assert_eq!(alone.own().len(), 1);
    assert_eq!(alone.routing.route(id(1)).expect("a route").link, second);
    let actions = alone.down(second, DownReason::Silence);
    assert!(
        actions.iter().any(|action| matches!(action, Action::Routes(routes) if routes[0].1 == LINK)),
        "{actions:?}"
    );
    let after = alone.wait(ms(5_000));
    assert_eq!(after.len(), 0, "worse by a factor: told at once, so nothing is left to tell");
    assert_eq!(alone.own()[0].rtt_us, 30_000);
}

#[test]
fn bad_news_goes_out_at_once_and_then_spaced() {
    let mut alone = Alone::new(3, Metric::Latency);
    alone.both_up();
    alone.confirm();
    alone.wait(ms(5_000));
    let down = alone.down(LINK, DownReason::Silence);
    assert_eq!(sends(&down), [(OTHER, ADVERTISEMENT)]);
    assert!(matches!(&down[1], Action::Routes(routes) if routes.len() == 1), "{down:?}");
    // The next within the spacing: own routes change as soon as computations may, others are told when it is over.
    assert_eq!(sends(&alone.down(OTHER, DownReason::Silence)), []);
    assert_eq!(alone.wait(ms(1_000)), [URGENT_SPACING]);
    assert!(alone.own().is_empty() && alone.routing.routes().next().is_none());
}

#[test]
fn who_was_cut_off_says_at_once_that_it_is_back() {
    let mut alone = Alone::new(3, Metric::Latency);
    alone.both_up();
    alone.wait(ms(5_000));
    alone.down(LINK, DownReason::Silence);
    alone.down(OTHER, DownReason::Silence);
    alone.wait(ms(1));
    let back = alone.up(LINK, ms(10));
    assert!(sends(&back).contains(&(LINK, ADVERTISEMENT)), "{back:?}");
    assert_eq!(alone.own().len(), 1);
    let more = alone.up(OTHER, ms(10));
    assert!(!sends(&more).contains(&(OTHER, ADVERTISEMENT)), "the second way is no hurry: {more:?}");
    assert_eq!(alone.wait(ms(1_000)), [URGENT_SPACING]);
}

#[test]
fn much_worse_is_bad_news_and_better_waits() {
    let mut alone = Alone::new(3, Metric::Latency);
    alone.up(LINK, ms(20));
    alone.wait(ms(5_000));
    let measured = |alone: &mut Alone, rtt, loss_ppm| {
        let metrics = LinkMetrics { rtt, jitter: ms(0), loss_ppm };
        sends(&alone.input(Input::LinkMeasured { link: LINK, metrics })).len()
    };
    assert_eq!(measured(&mut alone, ms(60), 0), 1, "three times as slow");
    alone.wait(ms(5_000));
    assert_eq!(measured(&mut alone, ms(60), 20_000), 1, "two percent lost");
    alone.wait(ms(5_000));
    assert_eq!(measured(&mut alone, ms(20), 0), 0, "better is no hurry");
    assert_eq!(alone.wait(ms(10_000)), [CALM_SPACING]);
    assert_eq!(alone.own()[0].rtt_us, 20_000);
    // Small changes are not told for their own sake; what swings back is not told either.
    assert_eq!(measured(&mut alone, ms(21), 500), 0);
    assert_eq!(alone.wait(ms(60_000)), []);
    assert_eq!(measured(&mut alone, ms(30), 0), 0);
    assert_eq!(alone.wait(ms(1_900)), []);
    assert_eq!(measured(&mut alone, ms(20), 0), 0);
    assert_eq!(alone.wait(ms(60_000)), []);
}

#[test]
fn a_link_that_keeps_changing_is_told_less_and_less() {
    let mut alone = Alone::new(3, Metric::Latency);
    alone.up(LINK, ms(20));
    let mut told = 0;
    for round in 0..36 {
        let rtt = ms(if round % 2 == 0 { 25 } else { 31 });
        alone.input(Input::LinkMeasured { link: LINK, metrics: metrics(rtt) });
        told += alone.wait(ms(5_000)).len();
    }
    assert!((4..=14).contains(&told), "{told} advertisements in three minutes");
}

#[test]
fn flapping_links_are_a_last_resort_longer_and_longer() {
    let mut alone = Alone::new(3, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.wait(ms(100));
    let flap = |alone: &mut Alone| {
        alone.down(LINK, DownReason::Silence);
        alone.wait(ms(100));
        alone.up(LINK, ms(10));
        assert_eq!(alone.own().len(), 1, "told at once: there is no other way");
        if alone.own()[0].loss_ppm == 0 {
            return ms(0);
        }
        assert_eq!(alone.own()[0].loss_ppm, 1_000_000);
        let told = alone.wait(ms(40_000));
        assert_eq!(alone.own()[0].loss_ppm, 0, "as good as others again");
        told[0]
    };
    let holds: Vec<_> = (0..7).map(|_| flap(&mut alone)).collect();
    // Waiting 40 s after each forgives nothing, a minute forgives one.
    assert_eq!(holds[..3], [ms(0), HOLD_FIRST, 2 * HOLD_FIRST]);
    assert!(holds.is_sorted() && holds[6] > ms(10_000), "{holds:?}");
    alone.wait(10 * FLAP_MEMORY);
    assert_eq!(flap(&mut alone), ms(0), "forgiven");
    // A neighbour that says goodbye does not flap.
    for _ in 0..5 {
        alone.down(LINK, DownReason::Closed);
        alone.wait(ms(100));
        alone.up(LINK, ms(10));
        assert_eq!(alone.own()[0].loss_ppm, 0);
    }
}

#[test]
fn a_router_tells_no_more_than_others_take_and_bad_news_first() {
    let mut alone = Alone::new(3, Metric::Latency);
    alone.up(OTHER, ms(10));
    let (start, before) = (alone.now, alone.routing.stats().originated);
    for _ in 0..1_000 {
        alone.up(LINK, ms(10));
        alone.wait(ms(25));
        alone.down(LINK, DownReason::Silence);
        alone.wait(ms(25));
    }
    let told = alone.routing.stats().originated - before;
    let most = u64::from(TOLD.burst) + (alone.now.since(start).as_millis() / TOLD.period.as_millis()) as u64 + 1;
    assert!(told <= most && told > most / 4, "{told} of {most}");
    alone.wait(ms(2_500));
    let down = alone.down(OTHER, DownReason::Silence);
    assert!(alone.own().is_empty(), "bad news of another link goes out at once: {down:?}");
}

#[test]
fn refreshes_and_expires() {
    let mut alone = Alone::new(4, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.wait(ms(100));
    let old = advertise(1, 1, 1, &[(0, ms(10))]);
    alone.message(LINK, &old);
    alone.wait(ms(100));
    assert_eq!(alone.routing.routes().count(), 1);
    let told = alone.wait(database::EXPIRY - ms(1_000));
    assert!((2..=3).contains(&told.len()), "{told:?}");
    assert!(told[0] > REFRESH.mul_f64(0.89) && told[0] < REFRESH.mul_f64(1.11), "{told:?}");
    assert_eq!(alone.routing.routes().count(), 1);
    alone.wait(ms(2_000));
    assert!(alone.routing.routes().next().is_none());
    assert_eq!(alone.routing.digest().count(), 1, "it is not told to others any more");
    // Somebody who heard it later must not bring it back; its origin can.
    assert_eq!(alone.message(LINK, &old), []);
    assert_eq!(alone.routing.digest().count(), 1);
    alone.message(LINK, &advertise(1, 1, 2, &[(0, ms(10))]));
    assert_eq!(alone.routing.digest().count(), 2);
    alone.wait(ms(20));
    assert_eq!(alone.routing.routes().count(), 1);
}

#[test]
fn who_leaves_the_members_is_forgotten_and_who_joins_is_asked_for() {
    let mut alone = Alone::new(3, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.up(OTHER, ms(10));
    alone.confirm();
    assert_eq!(alone.routing.routes().count(), 2);
    alone.message(LINK, &advertise(3, 1, 1, &[]));
    assert_eq!(alone.routing.stats().unknown_origin, 1);
    let actions = alone.input(Input::Members([0, 1, 3].map(|index| identity(index).public()).to_vec()));
    assert_eq!(sends(&actions), [(LINK, DIGEST), (OTHER, DIGEST)]);
    alone.wait(ms(20));
    let reached: Vec<_> = alone.routing.routes().map(|route| route.destination).collect();
    assert_eq!(reached, [id(1)]);
    alone.message(LINK, &advertise(3, 1, 1, &[]));
    assert!(alone.routing.advertised(id(3)).is_some());
}

#[test]
fn digests_are_answered_with_requests_and_requests_with_advertisements() {
    let mut alone = Alone::new(500, Metric::Hops);
    alone.up(LINK, ms(10));
    alone.message(LINK, &advertise(5, 2, 2, &[]));
    let mut lists: Vec<_> = (3..500).map(|index| (id(index), Sequence { epoch: 2, counter: 2 })).collect();
    lists.sort_unstable();
    let mut asked = Vec::new();
    for chunk in lists.chunks(wire::MAX_DIGEST) {
        let mut buffer = [0; MAX_MESSAGE];
        let mut writer = Writer::new(&mut buffer);
        wire::emit_digest(&mut writer, false, chunk).expect("fits");
        let bytes = writer.written().to_vec();
        asked.extend(alone.message(LINK, &bytes));
    }
    let origins = |actions: &[Action]| -> Vec<NodeId> {
        let request = |action: &Action| match action {
            Action::Send { bytes, .. } => match Message::parse(bytes) {
                Ok(Message::Request(request)) => request.origins().collect::<Vec<_>>(),
                _ => panic!("only requests are expected"),
            },
            Action::Routes(_) => panic!("only requests are expected"),
        };
        actions.iter().flat_map(request).collect()
    };
    let first = origins(&asked);
    assert!(first.len() <= exchange::WINDOW && first.len() > 100, "{}", first.len());
    assert!(!first.contains(&id(5)), "it is here");
    // Half the window is answered: the next half goes out at once.
    let index_of: BTreeMap<NodeId, usize> = (3..500).map(|index| (id(index), index)).collect();
    let mut second = Vec::new();
    for origin in &first[..wire::MAX_REQUEST] {
        second.extend(alone.message(LINK, &advertise(index_of[origin], 2, 2, &[])));
    }
    second.retain(|action| matches!(action, Action::Send { .. }));
    assert_eq!(sends(&second), [(LINK, REQUEST)]);
    let first = [first, origins(&second)].concat();
    // Nobody answers: the rest is asked for after a while, each origin once.
    alone.now += ms(2_500);
    let rest = alone.input(Input::Timer);
    let mut all: Vec<_> = [first, origins(&rest)].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 496);
    assert_eq!(sends(&rest)[0].1, REQUEST);

    let mut buffer = [0; MAX_MESSAGE];
    let mut writer = Writer::new(&mut buffer);
    let mut wish = [id(5), id(0), id(9)];
    wish.sort_unstable();
    wire::emit_request(&mut writer, &wish).expect("fits");
    let bytes = writer.written().to_vec();
    assert_eq!(sends(&alone.message(LINK, &bytes)), [(LINK, ADVERTISEMENT); 2], "what is not here is not sent");
    assert_eq!(alone.message(OTHER, &bytes), [], "that link is down");
}

#[test]
fn digests_asked_for_too_often_are_refused_and_counted() {
    let mut alone = Alone::new(4, Metric::Hops);
    alone.up(LINK, ms(10));
    let mut buffer = [0; MAX_MESSAGE];
    let mut writer = Writer::new(&mut buffer);
    wire::emit_summary(&mut writer, !alone.routing.fingerprint()).expect("fits");
    let bytes = writer.written().to_vec();
    let answers: usize = (0..100).map(|_| alone.message(LINK, &bytes).len()).sum();
    assert!((4..=16).contains(&answers), "{answers}");
    assert_eq!(alone.routing.stats().limited, 100 - answers as u64);
    alone.wait(ms(10_000));
    assert_eq!(sends(&alone.message(LINK, &bytes)), [(LINK, DIGEST)], "later it may again");
}

/// Router 1 is linked to routers 3 to 39, and says so; they do not yet.
fn star() -> Alone {
    let mut alone = Alone::new(40, Metric::Hops);
    alone.up(LINK, ms(10));
    let links: Vec<_> = [0].into_iter().chain(3..40).map(|to| (to, ms(10))).collect();
    alone.message(LINK, &advertise(1, 1, 1, &links));
    alone.wait(ms(100));
    alone
}

#[test]
fn computations_are_coalesced() {
    let mut alone = star();
    let before = alone.routing.stats().computations;
    for index in 3..40 {
        alone.message(LINK, &advertise(index, 1, 1, &[(1, ms(10))]));
    }
    assert_eq!(alone.routing.stats().computations, before + 1, "the first at once");
    alone.wait(ms(9));
    assert_eq!(alone.routing.stats().computations, before + 1);
    alone.wait(ms(20));
    assert_eq!(alone.routing.stats().computations, before + 2, "the others together");
    assert_eq!(alone.routing.routes().count(), 38);
}

#[test]
fn what_touches_no_path_computes_nothing() {
    let mut alone = star();
    for index in 3..40 {
        alone.message(LINK, &advertise(index, 1, 1, &[(1, ms(10))]));
    }
    alone.wait(ms(100));
    let before = alone.routing.stats().computations;
    let computed = |alone: &mut Alone, origin, counter, links: &[usize]| {
        let links: Vec<_> = links.iter().map(|&to| (to, ms(10))).collect();
        alone.message(LINK, &advertise(origin, 1, counter, &links));
        alone.wait(ms(100));
        alone.routing.stats().computations - before
    };
    assert_eq!(computed(&mut alone, 3, 2, &[1]), 0, "a refresh");
    assert_eq!(computed(&mut alone, 3, 3, &[1, 4]), 0, "only one end");
    assert_eq!(computed(&mut alone, 4, 2, &[1, 3]), 0, "a link that makes nothing shorter");
    let metrics = LinkMetrics { rtt: ms(10), jitter: ms(1), loss_ppm: 10 };
    alone.input(Input::LinkMeasured { link: LINK, metrics });
    alone.wait(ms(10_000));
    assert_eq!(alone.routing.stats().computations, before, "a measurement below what is told");
    let path = |alone: &Alone| alone.routing.route(id(3)).map(|route| route.path);
    assert_eq!(path(&alone), Some(vec![id(1), id(3)]));
    assert_eq!(computed(&mut alone, 3, 4, &[4]), 1, "a link that was used is gone");
    assert_eq!(path(&alone), Some(vec![id(1), id(4), id(3)]), "the link that made nothing shorter is known");
    assert_eq!(computed(&mut alone, 5, 2, &[1, 6]), 1, "only one end again");
    assert_eq!(computed(&mut alone, 3, 5, &[1, 4]), 2, "a link that makes something shorter");
    assert_eq!(path(&alone), Some(vec![id(1), id(3)]));
}

#[test]
fn a_thousand_routers_are_taken_in() {
    const COUNT: usize = 1_000;
    let mut alone = Alone::new(COUNT, Metric::Latency);
    alone.up(LINK, ms(10));
    // A ring of a thousand with chords: four thousand links.
    let neighbours = |index: usize| {
        [1, 7, 31, 144].into_iter().flat_map(move |step| [(index + step) % COUNT, (index + COUNT - step) % COUNT])
    };
    for index in 1..COUNT {
        let links: Vec<_> = neighbours(index).map(|to| (to, ms(10 + (index as u64 ^ to as u64) % 50))).collect();
        alone.message(LINK, &advertise(index, 1, 1, &links));
    }
    alone.wait(ms(100));
    assert_eq!(alone.routing.routes().count(), COUNT - 1);
    assert!(alone.routing.routes().all(|route| route.link == LINK && route.path.last() == Some(&route.destination)));
    #[allow(clippy::disallowed_methods, reason = "a test may look at the clock")]
    let start = std::time::Instant::now();
    alone.input(Input::Metric(Metric::Hops));
    let took = start.elapsed();
    println!("map, shortest paths and routes of 1,000 routers, 4,000 links: {took:?}");
    assert!(took.as_millis() < 200, "{took:?}");
}
