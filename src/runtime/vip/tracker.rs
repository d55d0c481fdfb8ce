//! The tracker: the thread that has the flows of a set there before its addresses are.
//!
//! ```text
//!   keeper: acquire ──▶ ask who hands it over for what it has not told (if somebody does) ──▶ tell the kernel all that is
//!                       known of the set's flows ──▶ keeper: add the addresses, announce them
//! ```
//! A stateful packet filter refuses what belongs to no flow that it saw begin, and addresses are translated by flow: a router
//! that takes over without knowing the flows ends them. The thread runs only where a set says `conntrack = true`.
//!
//! What it tells is in `flows.rs`, to whom it answers in `askers.rs`; what it was told in `known.rs`, and whether that is all
//! in `teller.rs`; which flows go with a set in `scope.rs`. Here are the clock, the kernel and the rings.
//!
//! # What it promises
//! The owner's flows are told to the others [`PACE`] after the kernel speaks of them, if they still are then. So of an owner
//! that dies those are lost that were established, or ended, in its last 10 ms and what the link was late; of one that hands
//! a set over, none: the new owner waits for its answer, [`PATIENCE`] at most, and what is told later, in the first
//! [`SETTLE`], the kernel is told of at once. A member is believed only of flows of sets that it owns as all have agreed, or
//! hands over.
//!
//! # Where the kernel fails
//! Sets are acquired without their flows until it can be asked again, which is tried after [`RETRY`], and less and less often
//! ([`LONGEST_RETRY`]); the log and `sinew vip status` say so.
//!
//! # Bounds
//! | what | bound | when it is full |
//! |---|---|---|
//! | flows waiting to be told, flows known | [`MAX_FLOWS`](super::flows::MAX_FLOWS) each | left out, counted; the next round tries again |
//! | messages to all | [`BURST`] in [`PACE`], about 40 flows each | what waits |
//! | answers | see `askers.rs` | the rest waits |
//! | events | 8 MB of the kernel's memory | counted; everything is dumped anew |
//! | messages from others | [`SLOTS`](super::SLOTS) | left out, counted; their number is missed, and they are asked for |
//! | flows the kernel is told of in a turn | [`AT_ONCE`] | the rest in the next; others have their turn |
//! | wait of a set for its flows | [`OVERDUE`], by the keeper's clock | it goes on without; counted |

use super::super::clock::{Clock, wall_time};
use super::super::doorbell::Doorbell;
use super::super::netlink::Netlink;
use super::super::ring::{Receiver, Sender};
use super::addresses::Entry;
use super::askers::Askers;
use super::conntrack::{Conntrack, Created, Looked};
use super::flows::{Flows, ROUND};
use super::known::Known;
use super::scope::{Carried, Scope};
use super::teller::{ASK_AGAIN, Answer, Teller};
use super::{Heard, Said, Shared, add};
use crate::base::{Instant, NodeId};
use crate::wire::flows::{Change, Flow, Message};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two bursts of messages.
const PACE: Duration = Duration::from_millis(10);
/// Messages in a burst: a link holds 256 that wait, and what members agree on goes the same way.
const BURST: usize = 4;
/// How long a member that hands a set over may take to tell the last of its flows.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long after a set was acquired flows are passed on to the kernel as they are told.
const SETTLE: Duration = Duration::from_secs(1);
/// How long the keeper waits for the flows of a set: so long it takes to tell a kernel of all that may be known.
pub(super) const OVERDUE: Duration = Duration::from_secs(1);
/// Flows the kernel is told of before other things have their turn.
const AT_ONCE: usize = 64;
/// Pieces of a dump, each of about 100 flows, and messages of others that are taken before other things have their turn.
const PIECES: usize = 16;
/// Until a kernel that failed is asked again, the first time and later.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
const BELL: Token = Token(0);
const EVENTS: Token = Token(1);

/// What the flows of a set are asked for by, so that the answer is not taken for that to another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) set: usize,
    /// Never twice the same.
    pub(super) number: u64,
}

/// A set is about to be acquired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepare {
    pub(super) ticket: Ticket,
    /// Who hands it over, if somebody does.
    pub(super) from: Option<NodeId>,
}

/// The ends of the rings.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) orders: Receiver<Prepare>,
    pub(super) prepared: Sender<Ticket>,
    pub(super) heard: Receiver<Heard>,
    pub(super) said: Sender<Said>,
}

/// A set whose former owner was asked.
#[derive(Debug)]
struct Wait {
    ticket: Ticket,
    from: NodeId,
    until: Instant,
}

/// Sets whose flows the kernel is being told of.
#[derive(Debug)]
struct Handing {
    sets: Vec<Prepare>,
    begun: Instant,
}

/// The kernel's doors.
#[derive(Debug)]
struct Kernel {
    conntrack: Conntrack,
    netlink: Netlink,
}

impl Kernel {
    /// In the calling thread's network namespace. What the kernel says rings at `registry`.
    fn open(registry: &Registry) -> io::Result<Kernel> {
        let kernel = Kernel { conntrack: Conntrack::open()?, netlink: Netlink::open()? };
        registry.register(&mut SourceFd(&kernel.conntrack.descriptor()), EVENTS, Interest::READABLE)?;
        Ok(kernel)
    }
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Tracker {
    clock: Clock,
    poll: Poll,
    bell: Arc<Doorbell>,
    shared: Arc<Shared>,
    ends: Ends,
    /// None where it failed, until it is tried again.
    kernel: Option<Kernel>,
    opened_at: Instant,
    retry_at: Instant,
    retry: Duration,
    scope: Scope,
    flows: Flows,
    known: Known,
    /// The kernel may have told more than was taken.
    unseen: bool,
    dumping: bool,
    /// The round under way has not been told to its end.
    in_round: bool,
    round_at: Instant,
    /// When the last one began, and the number of its first message.
    round_began: (Instant, u64),
    /// Since then there may be flows of which nothing is known before a round that begins later is over.
    behind_since: Option<Instant>,
    /// Of the next message for all.
    number: u64,
    send_at: Instant,
    askers: Askers,
    tellers: BTreeMap<NodeId, Teller>,
    /// Of the last question.
    serial: u32,
    waits: Vec<Wait>,
    ready: Vec<Prepare>,
    handing: Option<Handing>,
    /// Sets that were acquired a moment ago, and until when that counts.
    settling: Vec<(Prepare, Instant)>,
}

impl Tracker {
    /// Of these sets, in the calling thread's network namespace. Fails where the kernel tracks nothing.
    pub(super) fn open(
        clock: Clock,
        sets: Vec<Carried>,
        bell: Arc<Doorbell>,
        ends: Ends,
        shared: Arc<Shared>,
    ) -> io::Result<Tracker> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&bell.as_raw_fd()), BELL, Interest::READABLE)?;
        let kernel = Kernel::open(poll.registry())?;
        let now = clock.now();
        let mut tracker = Tracker {
            clock,
            poll,
            bell,
            shared,
            ends,
            kernel: Some(kernel),
            opened_at: now,
            retry_at: now,
            retry: RETRY,
            scope: Scope::new(sets),
            flows: Flows::default(),
            known: Known::default(),
            unseen: true,
            dumping: false,
            in_round: false,
            round_at: now,
            round_began: (now, 0),
            behind_since: None,
            // Those of an earlier life were lower.
            number: wall_time().as_nanos(),
            send_at: now,
            askers: Askers::new(now),
            tellers: BTreeMap::new(),
            serial: 0,
            waits: Vec::new(),
            ready: Vec::new(),
            handing: None,
            settling: Vec::new(),
        };
        tracker.look_at_addresses()?;
        Ok(tracker)
    }

    /// Runs until it is told to end.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(16);
        while !self.shared.stop.load(Ordering::Acquire) {
            for event in &events {
                match event.token() {
                    BELL => self.bell.silence(),
                    _ => self.unseen = true,
                }
            }
            self.turn(self.clock.now());
            let timeout = self.timeout();
            let (ends, shared) = (&self.ends, &self.shared);
            let nothing = || ends.orders.is_empty() && ends.heard.is_empty() && !shared.stop.load(Ordering::Acquire);
            let timeout = if self.bell.prepare_sleep(nothing) { timeout } else { Some(Duration::ZERO) };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                self.fail(self.clock.now(), &error);
                std::thread::sleep(PACE);
            }
            self.bell.awake();
        }
    }

    fn turn(&mut self, now: Instant) {
        self.follow_holding(now);
        self.take_orders(now);
        // Whoever asks asks for what the kernel has said until now, which is looked at next.
        self.hear(now);
        let done = self.try_again(now).and_then(|()| self.look(now)).and_then(|()| self.dump(now));
        if let Err(error) = done.and_then(|()| self.hand_over(now)) {
            self.fail(now, &error);
        }
        self.send(now);
        self.count();
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now();
        let asked = self.unseen || self.dumping || self.handing.is_some() || !self.known.is_settled();
        if (asked && self.kernel.is_some()) || !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let telling = !self.flows.is_told() || self.in_round;
        let send = telling.then_some(self.send_at);
        let answer = (!self.askers.is_idle()).then(|| now + PACE);
        let retry = self.kernel.is_none().then_some(self.retry_at);
        let waits = self.waits.iter().map(|wait| wait.until);
        let next = waits.chain(send).chain(answer).chain(retry).chain([self.round_at]).min();
        next.map(|next| next.since(now))
    }

    // --- the kernel --------------------------------------------------------------------------------------------------

    /// Asks a kernel that failed once more, when it is time.
    fn try_again(&mut self, now: Instant) -> io::Result<()> {
        if self.kernel.is_some() || self.retry_at > now {
            return Ok(());
        }
        self.kernel = Some(Kernel::open(self.poll.registry())?);
        self.opened_at = now;
        self.look_at_addresses()?;
        self.unseen = true;
        self.fall_behind(now, now);
        self.shared.say_failed(None);
        tracing::info!("flows are handed over again");
        Ok(())
    }

    /// The kernel failed: nothing that needs it waits for it.
    fn fail(&mut self, now: Instant, error: &io::Error) {
        // What held for long is given as much time as at first.
        let lasted = self.kernel.is_some() && now.since(self.opened_at) > LONGEST_RETRY;
        let retry = if lasted { RETRY } else { self.retry };
        (self.retry_at, self.retry) = (now + retry, (retry * 2).min(LONGEST_RETRY));
        add(&self.shared.flow_failures, 1);
        tracing::error!(%error, again_in = ?retry, "flows are not handed over: the kernel's connection tracking failed");
        self.shared.say_failed(Some(error));
        self.kernel = None;
        (self.dumping, self.in_round) = (false, false);
        self.flows.abandon_dump();
        self.known.give_up();
        self.ready.extend(self.handing.take().into_iter().flat_map(|handing| handing.sets));
        self.give_ready_away(now);
    }

    /// Who is ready and cannot be given its flows goes without.
    fn give_ready_away(&mut self, now: Instant) {
        let sets = std::mem::take(&mut self.ready);
        add(&self.shared.flow_waits_over, sets.len() as u64);
        self.handed_over(Handing { sets, begun: now });
    }

    /// Flows may be there that the kernel will not speak of: they are looked for from `at` on.
    fn fall_behind(&mut self, now: Instant, at: Instant) {
        self.behind_since = Some(now);
        self.round_at = self.round_at.min(at);
    }

    fn look_at_addresses(&mut self) -> io::Result<()> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let entries = kernel.netlink.dump(libc::RTM_GETADDR, &[0; 8])?;
        let addresses = entries.iter().filter_map(|(_, body)| Entry::read(body));
        self.scope.host_has(addresses.map(|entry| entry.placed.address));
        Ok(())
    }

    /// What has the kernel said?
    fn look(&mut self, now: Instant) -> io::Result<()> {
        let Some(kernel) = self.kernel.as_mut().filter(|_| self.unseen) else { return Ok(()) };
        let (flows, scope) = (&mut self.flows, &self.scope);
        let looked = kernel.conntrack.look(|change| flows.changed(scope, change))?;
        self.unseen = looked != Looked::All;
        if looked == Looked::Overflow {
            add(&self.shared.flow_overflows, 1);
            self.fall_behind(now, now + ASK_AGAIN);
        }
        Ok(())
    }

    /// Begins a round when it is time, and reads what the kernel has.
    fn dump(&mut self, now: Instant) -> io::Result<()> {
        if self.round_at <= now && !self.dumping {
            self.known.forget(now);
            self.round_at = now + ROUND;
            self.look_at_addresses()?;
            if let Some(kernel) = self.kernel.as_mut().filter(|_| self.flows.holds()) {
                kernel.conntrack.begin_dump()?;
                self.flows.begin_dump();
                (self.dumping, self.in_round) = (true, true);
                self.round_began = (now, self.number);
            }
        }
        for _ in 0..PIECES {
            let Some(kernel) = self.kernel.as_mut().filter(|_| self.dumping) else { break };
            let (flows, scope) = (&mut self.flows, &self.scope);
            self.dumping = kernel.conntrack.read_dump(|flow| flows.dumped(scope, flow))?;
            if !self.dumping {
                self.flows.end_dump(&self.scope);
            }
        }
        Ok(())
    }

    /// Tells the kernel of flows.
    fn hand_over(&mut self, now: Instant) -> io::Result<()> {
        if self.kernel.is_none() {
            self.give_ready_away(now);
            return Ok(());
        }
        if self.handing.is_none() && !self.ready.is_empty() {
            self.look_at_addresses()?;
            let sets = std::mem::take(&mut self.ready);
            self.known.want(&self.scope, &sets.iter().map(|ready| ready.ticket.set).collect::<Vec<_>>());
            self.handing = Some(Handing { sets, begun: now });
        }
        if self.handing.is_some() {
            let flows = self.known.next_wanted(AT_ONCE);
            self.create(&flows, true)?;
        }
        if let Some(handing) = self.handing.take_if(|_| self.known.is_prepared()) {
            self.handed_over(handing);
        }
        let late = self.known.next_late(AT_ONCE);
        self.create(&late, false)?;
        let over = self.known.next_over(AT_ONCE);
        if let Some(kernel) = self.kernel.as_mut().filter(|_| !over.is_empty()) {
            add(&self.shared.flows_deleted, kernel.conntrack.delete(&over)?);
        }
        Ok(())
    }

    fn create(&mut self, flows: &[Flow], replace: bool) -> io::Result<()> {
        if let Some(kernel) = self.kernel.as_mut().filter(|_| !flows.is_empty()) {
            let Created { done, refused } = kernel.conntrack.create(flows, replace)?;
            add(&self.shared.flows_created, done);
            add(&self.shared.flows_refused, refused);
        }
        Ok(())
    }

    fn handed_over(&mut self, Handing { sets, begun }: Handing) {
        let now = self.clock.now();
        let took = u64::try_from(now.since(begun).as_nanos()).unwrap_or(u64::MAX);
        self.shared.slowest_flows.fetch_max(took, Ordering::Relaxed);
        for prepared in sets {
            self.settling.push((prepared, now + SETTLE));
            // A keeper that takes nothing has given it up.
            let _ = self.ends.prepared.push(prepared.ticket);
        }
    }

    // --- other members -----------------------------------------------------------------------------------------------

    /// The keeper says which sets are held.
    fn follow_holding(&mut self, now: Instant) {
        let is_held = |&set: &usize| self.shared.held[set].load(Ordering::Acquire);
        let held = self.scope.sets().filter(is_held).collect();
        if self.flows.hold(&self.scope, held) {
            self.fall_behind(now, now);
        }
        if !self.flows.holds() {
            (self.in_round, self.behind_since) = (false, None);
        }
    }

    fn take_orders(&mut self, now: Instant) {
        let mut asked = BTreeSet::new();
        while let Some(order) = self.ends.orders.pop() {
            match order.from {
                None => self.ready.push(order),
                Some(from) => {
                    self.waits.push(Wait { ticket: order.ticket, from, until: now + PATIENCE });
                    asked.insert(from);
                }
            }
        }
        asked.into_iter().for_each(|from| self.ask(now, from));
        let over = self.end_waits(|wait| wait.until <= now);
        add(&self.shared.flow_waits_over, over);
    }

    /// These sets wait for their former owner no more; answers how many.
    fn end_waits(&mut self, is_over: impl Fn(&Wait) -> bool) -> u64 {
        let waits = std::mem::take(&mut self.waits).into_iter();
        let (over, waits): (Vec<Wait>, Vec<Wait>) = waits.partition(is_over);
        self.waits = waits;
        self.ready.extend(over.iter().map(|wait| Prepare { ticket: wait.ticket, from: Some(wait.from) }));
        over.len() as u64
    }

    /// Asks for what was not told yet, and for everything if that is not known.
    fn ask(&mut self, now: Instant, node: NodeId) {
        self.serial = self.serial.wrapping_add(1);
        let question = self.tellers.entry(node).or_default().ask(now, self.serial);
        self.say(Some(node), question.emit());
    }

    fn hear(&mut self, now: Instant) {
        self.settling.retain(|(_, until)| *until > now);
        for _ in 0..PIECES {
            let Some(Heard { from, holds, bytes }) = self.ends.heard.pop() else { return };
            match Message::parse(&bytes) {
                Ok(Message::Changes { number, changes }) => {
                    let believed = self.believe(now, from, holds, changes);
                    let teller = self.tellers.entry(from).or_default();
                    teller.heard(number);
                    if !believed {
                        teller.doubt(number);
                    }
                    // It has told of other things before, perhaps before this host heard it.
                    if teller.is_due(now) {
                        self.ask(now, from);
                    }
                }
                Ok(Message::Round { first, next }) => self.tellers.entry(from).or_default().round(now, first, next),
                Ok(Message::Answer { serial, changes }) => {
                    if self.believe(now, from, holds, changes) {
                        self.tellers.entry(from).or_default().part(now, serial);
                    }
                }
                Ok(Message::Told { serial, parts, whole }) => self.told(now, from, (serial, parts, whole)),
                Ok(Message::Ask { serial, whole }) => {
                    // The kernel may have said something that nobody was woken for yet.
                    self.unseen = true;
                    self.askers.ask(now, from, serial, whole);
                }
                Err(_) => add(&self.shared.flows_malformed, 1),
            }
        }
    }

    /// A member that holds these sets, as far as was agreed here, tells of flows. False: of others, too.
    fn believe(&mut self, now: Instant, from: NodeId, mut holds: Vec<usize>, changes: Vec<Change>) -> bool {
        add(&self.shared.flows_received, changes.len() as u64);
        let handing = self.handing.iter().flat_map(|handing| &handing.sets);
        let arriving: Vec<Prepare> = handing.chain(self.settling.iter().map(|(set, _)| set)).copied().collect();
        // All have agreed by now that it is not that member's any more.
        holds.extend(arriving.iter().filter(|prepare| prepare.from == Some(from)).map(|prepare| prepare.ticket.set));
        let arriving: Vec<usize> = arriving.iter().map(|prepare| prepare.ticket.set).collect();
        self.known.hear(now, &self.scope, (from, &holds), changes, &arriving)
    }

    fn told(&mut self, now: Instant, from: NodeId, (serial, parts, whole): (u32, u32, bool)) {
        let Some(teller) = self.tellers.get_mut(&from) else { return };
        match teller.told(now, serial, parts, whole) {
            Answer::Full => {
                self.end_waits(|wait| wait.from == from);
            }
            Answer::Short if self.waits.iter().any(|wait| wait.from == from) => {
                self.serial = self.serial.wrapping_add(1);
                let question = teller.ask_again(now, self.serial);
                self.say(Some(from), question.emit());
            }
            Answer::Short | Answer::Void => {}
        }
    }

    fn send(&mut self, now: Instant) {
        if now >= self.send_at {
            self.send_at = now + PACE;
            for number in 0..BURST {
                if self.ends.said.is_full() {
                    break;
                }
                // A round must come to its end also where much happens.
                let Some(bytes) = self.flows.message(self.number, number == 0) else { break };
                self.number += 1;
                self.say(None, bytes);
            }
            self.end_round(now);
        }
        let state = (self.kernel.is_some() && !self.unseen, self.kernel.is_some() && self.behind_since.is_none());
        let (said, messages) = (&mut self.ends.said, &self.shared.flow_messages);
        self.askers.serve(now, &self.flows, state, |node, bytes| {
            let done = said.push(Said { to: Some(node), bytes: bytes.into_boxed_slice() }).is_ok();
            add(messages, u64::from(done));
            done
        });
    }

    fn end_round(&mut self, now: Instant) {
        let over = self.in_round && !self.dumping && self.round_at > now && self.flows.is_whole();
        if over && !self.ends.said.is_full() {
            let (began, first) = self.round_began;
            self.in_round = false;
            self.behind_since = self.behind_since.filter(|since| *since > began);
            self.say(None, Message::Round { first, next: self.number }.emit());
        }
    }

    fn say(&mut self, to: Option<NodeId>, bytes: Vec<u8>) {
        match self.ends.said.push(Said { to, bytes: bytes.into_boxed_slice() }) {
            Ok(()) => add(&self.shared.flow_messages, 1),
            Err(_) => add(&self.shared.flow_messages_left_out, 1),
        }
    }

    fn count(&self) {
        let shared = &self.shared;
        shared.flows_told.store(self.flows.told() as u64, Ordering::Relaxed);
        shared.flows_known.store(self.known.len() as u64, Ordering::Relaxed);
        shared.flows_left_out.store(self.flows.left_out() + self.known.left_out(), Ordering::Relaxed);
        let drops = self.known.drops();
        let counts = [drops.unrouted, drops.own, drops.foreign];
        for (counter, count) in shared.flow_drops.iter().zip(counts) {
            counter.store(count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::known::FlowDrops;
    use super::super::scope::tests::{GATEWAY, SERVICE, flow, ip, through};
    use super::super::{SLOTS, ring};
    use super::*;
    use crate::lab::ladder::run_test;
    use crate::lab::netns::Netns;
    use crate::wire::flows::Tuple;
    use std::sync::atomic::AtomicBool;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    /// A tracker whose rings end here, in a namespace of its own.
    struct Bench {
        tracker: Tracker,
        now: Instant,
        orders: Sender<Prepare>,
        prepared: Receiver<Ticket>,
        heard: Sender<Heard>,
        said: Receiver<Said>,
    }

    impl Bench {
        /// Runs a test's body, where the kernel tracks connections.
        fn run(test: &str, body: fn(Bench) -> io::Result<()>) {
            let name = format!("runtime::vip::tracker::tests::{test}");
            let in_namespace = || {
                let namespace = Netns::new().expect("is made");
                namespace.run(|| match Bench::open() {
                    Ok(bench) => body(bench),
                    Err(error) => {
                        crate::runtime::not_run::count(&format!("flows: this kernel tracks none: {error}"));
                        Ok(())
                    }
                })
            };
            if !run_test(&name, || in_namespace().expect("the kernel answers")) {
                crate::runtime::not_run::count(&name);
            }
        }

        fn open() -> io::Result<Bench> {
            let gateway = Carried { set: GATEWAY, addresses: vec![ip("10.0.0.1")], router: true };
            let service = Carried { set: SERVICE, addresses: vec![ip("192.0.2.80")], router: false };
            let bell = Arc::new(Doorbell::new()?);
            let (orders, taken) = ring(SLOTS, Arc::clone(&bell));
            let (preparing, prepared) = ring(SLOTS, Arc::clone(&bell));
            let (heard, hearing) = ring(SLOTS, Arc::clone(&bell));
            let (saying, said) = ring(SLOTS, Arc::clone(&bell));
            let ends = Ends { orders: taken, prepared: preparing, heard: hearing, said: saying };
            let held = (0..=SERVICE).map(|_| AtomicBool::new(false)).collect();
            let shared = Arc::new(Shared { held, ..Shared::default() });
            let clock = Clock::start();
            let tracker = Tracker::open(clock, vec![gateway, service], bell, ends, shared)?;
            Ok(Bench { tracker, now: clock.now(), orders, prepared, heard, said })
        }

        /// Some time later.
        fn turn(&mut self, later: Duration) {
            self.now += later;
            self.tracker.turn(self.now);
        }

        fn prepare(&mut self, set: usize, from: Option<NodeId>) {
            self.orders.push(Prepare { ticket: ticket(set), from }).expect("there is room");
            self.turn(Duration::ZERO);
        }

        /// A set whose flows the kernel was told of, or for which that was waited long enough.
        fn prepared(&mut self) -> Option<usize> {
            self.prepared.pop().map(|ticket| ticket.set)
        }

        /// A member that holds these sets says this.
        fn hear(&mut self, from: NodeId, holds: &[usize], message: &Message) {
            let heard = Heard { from, holds: holds.to_vec(), bytes: message.emit().into_boxed_slice() };
            self.heard.push(heard).expect("there is room");
            self.turn(Duration::ZERO);
        }

        /// All that was said since, to whom.
        fn said(&mut self) -> Vec<(Option<NodeId>, Message)> {
            let said = std::iter::from_fn(|| self.said.pop());
            said.map(|Said { to, bytes }| (to, Message::parse(&bytes).expect("is well formed"))).collect()
        }

        fn question(&mut self) -> u32 {
            match self.said().as_slice() {
                [(Some(A), Message::Ask { serial, whole: true })] => *serial,
                other => panic!("one question for everything is expected: {other:?}"),
            }
        }

        /// What the kernel has.
        fn tracked(&mut self) -> io::Result<Vec<Tuple>> {
            let mut conntrack = Conntrack::open()?;
            let mut all = Vec::new();
            conntrack.begin_dump()?;
            while conntrack.read_dump(|flow| all.push(flow.original))? {}
            Ok(all)
        }
    }

    fn ticket(set: usize) -> Ticket {
        Ticket { set, number: 0 }
    }

    fn here(flow: Flow) -> Change {
        Change::Here(flow)
    }

    #[test]
    fn a_set_waits_until_who_hands_it_over_has_told_all() {
        Bench::run("a_set_waits_until_who_hands_it_over_has_told_all", |mut bench| {
            for set in [GATEWAY, SERVICE] {
                bench.orders.push(Prepare { ticket: ticket(set), from: Some(A) }).expect("there is room");
            }
            bench.turn(Duration::ZERO);
            let serial = bench.question();
            bench.hear(B, &[], &Message::Told { serial, parts: 0, whole: true });
            bench.hear(A, &[GATEWAY], &Message::Told { serial, parts: 1, whole: true });
            assert_eq!(bench.prepared(), None, "B was not asked, and A has said more");
            let again = bench.question();
            assert_ne!(again, serial);
            let changes = vec![here(through(1)), here(through(2))];
            bench.hear(A, &[GATEWAY], &Message::Answer { serial: again, changes });
            bench.hear(A, &[GATEWAY], &Message::Told { serial: again, parts: 1, whole: true });
            assert_eq!([bench.prepared(), bench.prepared()], [Some(GATEWAY), Some(SERVICE)]);
            assert_eq!(bench.tracked()?.len(), 2);
            // It holds nothing any more, and has still something to say.
            let changes = vec![Change::Gone(through(1).original), here(through(3))];
            bench.hear(A, &[], &Message::Changes { number: 1, changes });
            let mut tracked = bench.tracked()?;
            tracked.sort();
            assert_eq!(tracked, [through(2), through(3)].map(|flow| flow.original));
            assert_eq!(bench.tracker.shared.flow_waits_over.load(Ordering::Relaxed), 0);
            Ok(())
        });
    }

    #[test]
    fn who_does_not_hold_a_set_has_nothing_made_here() {
        Bench::run("who_does_not_hold_a_set_has_nothing_made_here", |mut bench| {
            let changes = vec![here(through(1)), here(flow("10.0.0.9:1", "127.0.0.1:22"))];
            bench.hear(B, &[], &Message::Changes { number: 1, changes: changes.clone() });
            bench.prepare(GATEWAY, None);
            bench.hear(B, &[], &Message::Changes { number: 2, changes });
            assert_eq!((bench.prepared(), bench.tracked()?.len()), (Some(GATEWAY), 0));
            assert_eq!(bench.tracker.known.drops(), FlowDrops { unrouted: 2, own: 0, foreign: 2 });
            Ok(())
        });
    }

    #[test]
    fn a_kernel_that_fails_holds_no_set_up_and_is_tried_again() {
        Bench::run("a_kernel_that_fails_holds_no_set_up_and_is_tried_again", |mut bench| {
            let gone = || io::Error::from_raw_os_error(libc::ENODEV);
            let failed =
                |bench: &Bench| bench.tracker.shared.failed().is_some_and(|why| why.contains(&gone().to_string()));
            bench.prepare(GATEWAY, Some(A));
            bench.tracker.fail(bench.now, &gone());
            assert!(failed(&bench));
            bench.turn(PATIENCE);
            bench.prepare(SERVICE, None);
            assert_eq!([bench.prepared(), bench.prepared()], [Some(GATEWAY), Some(SERVICE)]);
            bench.turn(RETRY - PATIENCE - Duration::from_nanos(1));
            assert!(failed(&bench));
            bench.turn(Duration::from_nanos(1));
            assert_eq!(bench.tracker.shared.failed(), None);
            bench.hear(A, &[GATEWAY], &Message::Changes { number: 1, changes: vec![here(through(1))] });
            bench.prepare(GATEWAY, None);
            assert_eq!((bench.prepared(), bench.tracked()?.len()), (Some(GATEWAY), 1));
            // What fails again at once is tried less often.
            bench.tracker.fail(bench.now, &gone());
            bench.turn(RETRY);
            assert!(failed(&bench));
            bench.turn(RETRY);
            assert_eq!(bench.tracker.shared.failed(), None);
            Ok(())
        });
    }

    #[test]
    fn who_holds_a_set_tells_all_of_its_flows_in_numbers() {
        Bench::run("who_holds_a_set_tells_all_of_its_flows_in_numbers", |mut bench| {
            let mut kernel = Conntrack::open()?;
            kernel.create(&[through(1), flow("10.0.0.9:1", "192.0.2.80:80")], false)?;
            bench.tracker.shared.held[GATEWAY].store(true, Ordering::Release);
            (0..20).for_each(|_| bench.turn(PACE));
            let said = bench.said();
            let [(None, Message::Changes { number, changes }), (None, Message::Round { first, next })] =
                said.as_slice()
            else {
                panic!("{said:?}")
            };
            assert_eq!((changes.len(), *changes[0].tuple()), (1, through(1).original));
            assert_eq!((*first, *next), (*number, number + 1));
            bench.hear(A, &[], &Message::Ask { serial: 9, whole: true });
            (0..3).for_each(|_| bench.turn(PACE));
            let said = bench.said();
            let [(Some(A), Message::Answer { serial: 9, changes }), (Some(A), told)] = said.as_slice() else {
                panic!("{said:?}")
            };
            assert_eq!((changes.len(), told), (1, &Message::Told { serial: 9, parts: 1, whole: true }));
            Ok(())
        });
    }
}
