//! Flows: what this host tells the other members of those that pass it, and what it knows of those that pass them.
//!
//! ```text
//!   kernel's events ─▶ changes ─┐                                    ┌─▶ known ─── a set is acquired ──▶ the kernel
//!   kernel's dump  ──▶ refresh ─┴─▶ messages ── every member ── hear ┘
//! ```
//! It is soft state: the owner of a set says at once what changes, and every ten seconds everything there is; who hears of a
//! flow forgets it when it has not heard of it for three such rounds. So a message may be lost, an owner may die, and a
//! member may come late, and nothing has to be put right. Only flows are told that the next owner can carry on: those with
//! an address of a set that is held here and hands over its flows; and, if such a set is a router's, those that end at no
//! other address of this host, so that they pass through it.
//!
//! No clock, no socket: `tracker.rs` has those.

use crate::base::Instant;
use crate::wire::flows::{Change, Flow, Packing, TCP, Tuple};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Most flows that wait to be told, and most that are known from others; no more are begun to be told while the others know
/// as many. Of what is told at most half is not TCP.
pub(super) const MAX_FLOWS: usize = 65_536;
/// Time from the beginning of one round to that of the next.
pub(super) const ROUND: Duration = Duration::from_secs(10);
/// What was not heard of for so long is forgotten.
pub(super) const FORGET: Duration = ROUND.saturating_mul(3);
/// Who took over a flow remembers it for at most so long, seconds, if nothing more of it is seen: it may have ended without
/// anybody's notice.
const LONGEST: u32 = 3600;

/// A set whose flows are handed over with it.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    /// Its place among all sets.
    pub(super) set: usize,
    pub(super) addresses: Vec<IpAddr>,
    /// Flows pass through it that have none of its addresses.
    pub(super) router: bool,
}

/// A flow that passes another member.
#[derive(Debug)]
struct Known {
    flow: Flow,
    heard: Instant,
    /// The kernel here was told of it as it is.
    created: bool,
}

/// The flows.
#[derive(Debug)]
pub(super) struct Flows {
    sets: Vec<Carried>,
    /// All addresses of those.
    addresses: BTreeSet<IpAddr>,
    /// Sets that are held here.
    held: Vec<usize>,
    /// Other addresses of this host.
    own: BTreeSet<IpAddr>,
    /// What the others know.
    told: BTreeSet<Tuple>,
    /// What they are to know at once, and in this round; TCP comes first.
    changes: BTreeMap<Tuple, Change>,
    refresh: BTreeMap<Tuple, Change>,
    /// What the dump under way has shown.
    dumped: Option<BTreeSet<Tuple>>,
    known: BTreeMap<Tuple, Known>,
    left_out: u64,
}

impl Flows {
    /// Of these sets; nothing is held.
    pub(super) fn new(sets: Vec<Carried>) -> Flows {
        let addresses = sets.iter().flat_map(|set| &set.addresses).copied().collect();
        Flows {
            sets,
            addresses,
            held: Vec::new(),
            own: BTreeSet::new(),
            told: BTreeSet::new(),
            changes: BTreeMap::new(),
            refresh: BTreeMap::new(),
            dumped: None,
            known: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// The sets whose flows are handed over.
    pub(super) fn sets(&self) -> impl Iterator<Item = usize> {
        self.sets.iter().map(|carried| carried.set)
    }

    /// Flows that were not told, or not kept, for want of room.
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many flows the others know from here, and how many of theirs are known here.
    pub(super) fn counts(&self) -> [usize; 2] {
        [self.told.len(), self.known.len()]
    }

    // --- those that pass this host -----------------------------------------------------------------------------------

    /// These sets are held here. True if one is new.
    pub(super) fn hold(&mut self, held: Vec<usize>) -> bool {
        let news = held.iter().any(|set| !self.held.contains(set));
        self.held = held;
        if self.held.is_empty() {
            // The next owner tells of them now.
            (self.told, self.changes, self.refresh, self.dumped) = Default::default();
        }
        news
    }

    /// Whether there is anything to tell at all.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The kernel says that something happened.
    pub(super) fn changed(&mut self, change: Change) {
        match change {
            Change::Here(flow) => {
                if self.concerns(&flow) && self.has_room(&flow.original) {
                    self.seen(flow.original);
                    self.refresh.remove(&flow.original);
                    self.changes.insert(flow.original, change);
                }
            }
            Change::Gone(tuple) => {
                self.refresh.remove(&tuple);
                // Who does not know of a flow need not hear of its end: the short ones are never told of.
                if self.told.contains(&tuple) {
                    self.changes.insert(tuple, change);
                } else {
                    self.changes.remove(&tuple);
                }
            }
        }
    }

    /// A dump begins. This host has these addresses.
    pub(super) fn begin_dump(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        self.own = addresses.filter(|address| !self.addresses.contains(address)).collect();
        self.dumped = Some(BTreeSet::new());
    }

    /// The dump shows a flow.
    pub(super) fn dumped(&mut self, flow: Flow) {
        if self.dumped.is_some() && self.concerns(&flow) && self.has_room(&flow.original) {
            self.seen(flow.original);
            if !self.changes.contains_key(&flow.original) {
                self.refresh.insert(flow.original, Change::Here(flow));
            }
        }
    }

    /// It cannot be said that it has ended before the dump under way did.
    fn seen(&mut self, tuple: Tuple) {
        if let Some(dumped) = &mut self.dumped {
            dumped.insert(tuple);
        }
    }

    /// The dump is over: what was told and is not in it has ended unseen.
    pub(super) fn end_dump(&mut self) {
        let dumped = self.dumped.take().unwrap_or_default();
        let gone: Vec<Tuple> = self.told.difference(&dumped).copied().collect();
        gone.into_iter().for_each(|tuple| self.changed(Change::Gone(tuple)));
    }

    /// Whether everything that happened is told.
    pub(super) fn is_told(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether everything of this round is told.
    pub(super) fn is_whole(&self) -> bool {
        self.dumped.is_none() && self.refresh.is_empty()
    }

    /// The next message for the others: of what changed, or, if `refreshing` or nothing did, of this round.
    pub(super) fn message(&mut self, refreshing: bool) -> Option<Vec<u8>> {
        let mut packing = Packing::default();
        let order = match refreshing {
            true => [&mut self.refresh, &mut self.changes],
            false => [&mut self.changes, &mut self.refresh],
        };
        for queue in order {
            while let Some(entry) = queue.first_entry() {
                if !packing.push(entry.get()) {
                    return Some(packing.finish());
                }
                match entry.remove() {
                    Change::Here(flow) => self.told.insert(flow.original),
                    Change::Gone(tuple) => self.told.remove(&tuple),
                };
            }
        }
        (!packing.is_empty()).then(|| packing.finish())
    }

    /// Whether the next owner of what is held here could carry it on.
    fn concerns(&self, flow: &Flow) -> bool {
        let mut held = self.sets.iter().filter(|carried| self.held.contains(&carried.set));
        let through = !ends(flow).iter().any(|end| self.own.contains(end) || !is_routed(*end));
        held.any(|carried| carried.concerns(flow) || (carried.router && through))
    }

    fn has_room(&mut self, tuple: &Tuple) -> bool {
        let most = if tuple.protocol == TCP { MAX_FLOWS } else { MAX_FLOWS / 2 };
        let waiting = self.changes.len() + self.refresh.len();
        let room = self.told.contains(tuple) || self.told.len().max(waiting) < most;
        self.left_out += u64::from(!room);
        room
    }

    // --- those that pass other members -------------------------------------------------------------------------------

    /// Another member tells what changed. Answers which flows of these sets are new here.
    pub(super) fn hear(&mut self, now: Instant, changes: Vec<Change>, sets: &[usize]) -> Vec<Flow> {
        let mut late = Vec::new();
        for change in changes {
            match change {
                Change::Gone(tuple) => {
                    self.known.remove(&tuple);
                }
                Change::Here(flow) => {
                    let before = self.known.get(&flow.original);
                    if before.is_none() && self.known.len() == MAX_FLOWS {
                        self.left_out += 1;
                        continue;
                    }
                    let new = before.is_none() && self.is_of(&flow, sets);
                    late.extend(new.then_some(bounded(flow)));
                    let created = new || before.is_some_and(|known| known.created && known.flow == flow);
                    self.known.insert(flow.original, Known { flow, heard: now, created });
                }
            }
        }
        late
    }

    /// Forgets what was not heard of for long.
    pub(super) fn forget(&mut self, now: Instant) {
        self.known.retain(|_, known| now.since(known.heard) < FORGET);
    }

    /// The flows that the kernel must know before it may have the addresses of these sets, as they are known, TCP first. It
    /// is taken to be told of them: they are not answered again until they change.
    pub(super) fn of_sets(&mut self, sets: &[usize]) -> Vec<Flow> {
        let mut known = std::mem::take(&mut self.known);
        let wanted = known.values_mut().filter(|known| !known.created && self.is_of(&known.flow, sets));
        let flows = wanted.map(|known| {
            known.created = true;
            bounded(known.flow)
        });
        let flows = flows.collect();
        self.known = known;
        flows
    }

    fn is_of(&self, flow: &Flow, sets: &[usize]) -> bool {
        let of_none = || !ends(flow).iter().any(|end| self.addresses.contains(end));
        let mut wanted = self.sets.iter().filter(|carried| sets.contains(&carried.set));
        wanted.any(|carried| carried.concerns(flow) || (carried.router && of_none()))
    }
}

impl Carried {
    /// Whether it has one of the set's addresses.
    fn concerns(&self, flow: &Flow) -> bool {
        ends(flow).iter().any(|end| self.addresses.contains(end))
    }
}

/// Whom a flow is between, before and after translation.
fn ends(flow: &Flow) -> [IpAddr; 4] {
    let (original, reply) = (&flow.original, &flow.reply);
    [original.source, original.destination, reply.source, reply.destination].map(|end| end.ip())
}

/// Whether routers forward packets with this address.
fn is_routed(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

fn bounded(flow: Flow) -> Flow {
    Flow { timeout: flow.timeout.clamp(1, LONGEST), ..flow }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::flows::{Message, Tcp, UDP};

    const GATEWAY: usize = 3;
    const SERVICE: usize = 5;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// A router's set, and a service's.
    fn flows() -> Flows {
        let gateway = Carried { set: GATEWAY, addresses: vec![ip("10.0.0.1"), ip("198.51.100.1")], router: true };
        let service = Carried { set: SERVICE, addresses: vec![ip("192.0.2.80")], router: false };
        let mut flows = Flows::new(vec![gateway, service]);
        flows.begin_dump(["10.0.0.2", "198.51.100.1", "127.0.0.1"].map(ip).into_iter());
        flows.end_dump();
        flows
    }

    fn flow(source: &str, destination: &str) -> Flow {
        let end = |text: &str| text.parse().expect("an address and a port");
        let original = Tuple { protocol: TCP, source: end(source), destination: end(destination) };
        let tcp = Some(Tcp { state: 3, flags: [3; 2], scales: [7; 2] });
        Flow { original, reply: original.turned(), tcp, mark: 0, timeout: 432_000 }
    }

    fn through(port: u16) -> Flow {
        flow(&format!("10.0.0.9:{port}"), "203.0.113.5:443")
    }

    fn here(flow: Flow) -> Change {
        Change::Here(flow)
    }

    /// What the next messages say.
    fn told(flows: &mut Flows) -> Vec<Change> {
        let mut told = Vec::new();
        while let Some(bytes) = flows.message(false) {
            let Ok(Message::Changes(changes)) = Message::parse(&bytes) else { panic!("{bytes:?}") };
            told.extend(changes);
        }
        told
    }

    #[test]
    fn only_those_are_told_that_the_next_owner_can_carry_on() {
        let mut flows = flows();
        flows.changed(here(through(1)));
        assert_eq!(told(&mut flows), [], "nothing is held");
        assert!(flows.hold(vec![GATEWAY]) && !flows.hold(vec![GATEWAY]));
        let to_itself = flow("10.0.0.9:1", "10.0.0.2:22");
        let to_the_other_set = flow("10.0.0.9:1", "192.0.2.80:80");
        let multicast = flow("10.0.0.9:1", "224.0.0.251:5353");
        [through(1), to_itself, multicast].into_iter().for_each(|flow| flows.changed(here(flow)));
        assert_eq!(told(&mut flows), [here(through(1))]);
        let mut masqueraded = through(2);
        masqueraded.reply.destination = "198.51.100.1:2".parse().expect("an address");
        flows.changed(here(masqueraded));
        assert_eq!(told(&mut flows), [here(masqueraded)]);
        flows.hold(vec![SERVICE]);
        [through(3), to_the_other_set].into_iter().for_each(|flow| flows.changed(here(flow)));
        assert_eq!(told(&mut flows), [here(to_the_other_set)], "a service routes nothing");
    }

    #[test]
    fn what_ends_before_it_is_told_is_not_told_and_other_ends_are() {
        let mut flows = flows();
        flows.hold(vec![GATEWAY]);
        flows.changed(here(through(1)));
        flows.changed(here(through(2)));
        flows.changed(Change::Gone(through(2).original));
        assert_eq!(told(&mut flows), [here(through(1))]);
        flows.changed(Change::Gone(through(1).original));
        flows.changed(Change::Gone(through(1).original));
        assert_eq!(told(&mut flows), [Change::Gone(through(1).original)]);
        assert_eq!(flows.counts(), [0, 0]);
    }

    #[test]
    fn a_round_tells_all_again_and_finds_what_ended_unseen() {
        let mut flows = flows();
        flows.hold(vec![GATEWAY]);
        (1..=3).for_each(|port| flows.changed(here(through(port))));
        assert_eq!(told(&mut flows).len(), 3);
        flows.begin_dump(std::iter::empty());
        assert!(!flows.is_whole());
        flows.dumped(through(1));
        flows.dumped(through(2));
        // This one has ended since the dump showed it.
        flows.changed(Change::Gone(through(2).original));
        flows.end_dump();
        let gone = |port| Change::Gone(through(port).original);
        let mut all = told(&mut flows);
        all.sort_by_key(|change| *change.tuple());
        assert_eq!(all, [here(through(1)), gone(2), gone(3)]);
        assert!(flows.is_whole() && flows.is_told());
    }

    #[test]
    fn what_changed_comes_first_and_a_round_is_not_starved() {
        let mut flows = flows();
        flows.hold(vec![GATEWAY]);
        flows.begin_dump(std::iter::empty());
        (1..=100).for_each(|port| flows.dumped(through(port)));
        flows.end_dump();
        (200..=300).for_each(|port| flows.changed(here(through(port))));
        let first = |flows: &mut Flows, refreshing| match flows.message(refreshing).as_deref().map(Message::parse) {
            Some(Ok(Message::Changes(changes))) => changes[0].tuple().source.port(),
            other => panic!("{other:?}"),
        };
        assert_eq!([first(&mut flows, false), first(&mut flows, true)], [200, 1]);
    }

    #[test]
    fn there_is_room_for_so_many_and_more_for_tcp() {
        let mut flows = flows();
        flows.hold(vec![GATEWAY]);
        let numbered = |number: usize| {
            let [_, _, c, d] = (number as u32).to_be_bytes();
            flow(&format!("10.9.{c}.{d}:7"), "203.0.113.5:443")
        };
        let over_udp = |number| {
            let mut flow = numbered(number);
            (flow.original.protocol, flow.reply.protocol, flow.tcp) = (UDP, UDP, None);
            flow
        };
        (0..MAX_FLOWS / 2 + 7).for_each(|number| flows.changed(here(over_udp(number))));
        assert_eq!(flows.left_out(), 7);
        (0..MAX_FLOWS).for_each(|number| flows.changed(here(numbered(number))));
        assert_eq!(flows.left_out(), 7 + MAX_FLOWS as u64 / 2);
        let all = told(&mut flows);
        assert_eq!((all.len(), flows.counts()[0]), (MAX_FLOWS, MAX_FLOWS));
        flows.changed(here(numbered(0)));
        assert_eq!(told(&mut flows).len(), 1, "what is told may change");

        let mut other = self::flows();
        let all = all.into_iter().chain([here(over_udp(MAX_FLOWS - 1))]).collect();
        other.hear(Instant::ZERO, all, &[]);
        assert_eq!((other.counts(), other.left_out()), ([0, MAX_FLOWS], 1));
    }

    #[test]
    fn who_acquires_a_set_knows_its_flows_once_and_those_told_since() {
        let (mut flows, now) = (flows(), Instant::from_millis(5));
        let (of_service, later) = (flow("10.0.0.9:1", "192.0.2.80:80"), flow("10.0.0.9:2", "192.0.2.80:80"));
        assert_eq!(flows.hear(now, vec![here(through(1)), here(through(2)), here(of_service)], &[]), []);
        flows.hear(now, vec![Change::Gone(through(2).original)], &[]);
        let known = |flow: Flow| Flow { timeout: LONGEST, ..flow };
        assert_eq!(flows.of_sets(&[SERVICE]), [known(of_service)]);
        assert_eq!(flows.of_sets(&[GATEWAY, SERVICE]), [known(through(1))]);
        assert_eq!(flows.of_sets(&[GATEWAY, SERVICE]), [], "the kernel knows them");
        let closing = Flow { tcp: of_service.tcp.map(|tcp| Tcp { state: 4, ..tcp }), ..of_service };
        let news = vec![here(later), here(closing), here(through(3))];
        assert_eq!(flows.hear(now, news, &[SERVICE]), [known(later)]);
        assert_eq!(flows.of_sets(&[SERVICE]), [known(closing)], "it came back from where it went on");
    }

    #[test]
    fn what_is_not_heard_of_is_forgotten() {
        let mut flows = flows();
        flows.hear(Instant::ZERO, vec![here(through(1)), here(through(2))], &[]);
        flows.hear(Instant::ZERO + ROUND, vec![here(through(2))], &[]);
        flows.forget(Instant::ZERO + FORGET);
        assert_eq!(flows.of_sets(&[GATEWAY]).len(), 1);
        flows.forget(Instant::ZERO + FORGET + ROUND);
        assert_eq!(flows.counts(), [0, 0]);
    }
}
