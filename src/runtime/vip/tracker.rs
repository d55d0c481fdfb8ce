//! The tracker: the thread that has the flows of a set there before its addresses are.
//!
//! ```text
//!   keeper: acquire ──▶ ask who hands it over for what it has not told (if somebody does) ──▶ tell the kernel all that is
//!                       known of the set's flows ──▶ keeper: add the addresses, announce them
//! ```
//! A stateful packet filter refuses what belongs to no flow that it saw begin, and addresses are translated by flow: a router
//! that takes over without knowing the flows ends them. The thread runs only where a set says `conntrack = true`.
//!
//! # What it promises
//! The owner's flows are told to the others [`PACE`] after the kernel speaks of them, if they still are then. So of an owner
//! that dies those are lost that were established, or ended, in its last 10 ms and what the link was late; of one that hands
//! a set over, none: the new owner waits for its answer, [`PATIENCE`] at most, and what is told later, in the first
//! [`SETTLE`], the kernel is told of at once.
//!
//! # Bounds
//! | what | bound | when it is full |
//! |---|---|---|
//! | flows waiting to be told, flows known | [`MAX_FLOWS`](super::flows::MAX_FLOWS) each | left out, counted; the next round tries again |
//! | messages to others | [`BURST`] in [`PACE`], [`FLUSH`] where somebody waits; about 40 flows each | what waits |
//! | events | 8 MB of the kernel's memory | counted; everything is dumped anew |
//! | messages from others | [`SLOTS`] | left out, counted; the next round says it again |
//! | flows the kernel is told of in a turn | [`AT_ONCE`] | the rest in the next; others have their turn |
//! | wait of a set for its flows | [`OVERDUE`], by the keeper's clock | it goes on without; counted |

use super::super::clock::Clock;
use super::super::doorbell::Doorbell;
use super::super::netlink::Netlink;
use super::super::ring::{Receiver, Sender};
use super::addresses::Entry;
use super::conntrack::{Conntrack, Created, Looked};
use super::flows::{Carried, Flows, ROUND};
use super::{SLOTS, Said, Shared, add};
use crate::base::{Instant, NodeId};
use crate::wire::flows::{Flow, Message};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two bursts of messages.
const PACE: Duration = Duration::from_millis(10);
/// Messages in a burst: a link holds 256 that wait, and what members agree on goes the same way.
const BURST: usize = 4;
/// The same where a member waits for them.
const FLUSH: usize = 64;
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
/// Time between two questions for everything a member has.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const BELL: Token = Token(0);
const EVENTS: Token = Token(1);

/// A set is about to be acquired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepare {
    pub(super) set: usize,
    /// Who hands it over, if somebody does.
    pub(super) from: Option<NodeId>,
}

/// The ends of the rings.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) orders: Receiver<Prepare>,
    pub(super) prepared: Sender<usize>,
    pub(super) heard: Receiver<(NodeId, Box<[u8]>)>,
    pub(super) said: Sender<Said>,
}

/// A set whose former owner was asked.
#[derive(Debug)]
struct Wait {
    set: usize,
    serial: u32,
    until: Instant,
}

/// A member that asked.
#[derive(Debug)]
struct Asker {
    node: NodeId,
    serial: u32,
    whole: bool,
}

/// Flows that the kernel is being told of, for these sets.
#[derive(Debug)]
struct Handing {
    sets: Vec<usize>,
    flows: VecDeque<Flow>,
    begun: Instant,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Tracker {
    clock: Clock,
    poll: Poll,
    bell: Arc<Doorbell>,
    shared: Arc<Shared>,
    ends: Ends,
    conntrack: Conntrack,
    netlink: Netlink,
    flows: Flows,
    /// The kernel may have told more than was taken.
    unseen: bool,
    dumping: bool,
    /// The round under way has not been told to its end.
    in_round: bool,
    round_at: Instant,
    send_at: Instant,
    askers: Vec<Asker>,
    /// One has just asked.
    hurry: bool,
    waits: Vec<Wait>,
    ready: Vec<usize>,
    handing: Option<Handing>,
    late: VecDeque<Flow>,
    /// Sets that were acquired a moment ago, and until when that counts.
    settling: Vec<(usize, Instant)>,
    /// Who has told everything once, and who was asked to when.
    whole: BTreeMap<NodeId, Asked>,
    serial: u32,
}

/// Whether a member has told everything.
#[derive(Clone, Copy, Debug)]
enum Asked {
    At(Instant),
    Answered,
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
        let (poll, conntrack) = (Poll::new()?, Conntrack::open()?);
        poll.registry().register(&mut SourceFd(&bell.as_raw_fd()), BELL, Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&conntrack.descriptor()), EVENTS, Interest::READABLE)?;
        let now = clock.now();
        Ok(Tracker {
            clock,
            poll,
            bell,
            shared,
            ends,
            conntrack,
            netlink: Netlink::open()?,
            flows: Flows::new(sets),
            unseen: true,
            dumping: false,
            in_round: false,
            round_at: now,
            send_at: now,
            askers: Vec::new(),
            hurry: false,
            waits: Vec::new(),
            ready: Vec::new(),
            handing: None,
            late: VecDeque::new(),
            settling: Vec::new(),
            whole: BTreeMap::new(),
            serial: 0,
        })
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
            if let Err(error) = self.turn() {
                tracing::error!(%error, "flows are not handed over any more: the kernel's table cannot be read");
                return;
            }
            let timeout = self.timeout();
            let (ends, shared) = (&self.ends, &self.shared);
            let nothing = || ends.orders.is_empty() && ends.heard.is_empty() && !shared.stop.load(Ordering::Acquire);
            let timeout = if self.bell.prepare_sleep(nothing) { timeout } else { Some(Duration::ZERO) };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "flows are not handed over any more");
                return;
            }
            self.bell.awake();
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        self.follow_holding(now);
        self.take_orders(now);
        // Whoever asks asks for what the kernel has said until now, which is looked at next.
        self.hear(now);
        self.look(now);
        self.dump(now)?;
        self.hand_over(now)?;
        self.send(now);
        self.count();
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now();
        let busy =
            self.unseen || self.dumping || self.handing.is_some() || !self.ready.is_empty() || !self.late.is_empty();
        if busy {
            return Some(Duration::ZERO);
        }
        let telling = !self.flows.is_told() || self.in_round || !self.askers.is_empty();
        let send = telling.then_some(self.send_at);
        let waits = self.waits.iter().map(|wait| wait.until);
        waits.chain(send).chain([self.round_at]).min().map(|next| next.since(now))
    }

    /// The keeper says which sets are held.
    fn follow_holding(&mut self, now: Instant) {
        let is_held = |&set: &usize| self.shared.held[set].load(Ordering::Acquire);
        let held = self.flows.sets().filter(is_held).collect();
        if self.flows.hold(held) {
            self.round_at = now;
        }
        if !self.flows.holds() {
            self.in_round = false;
        }
    }

    fn take_orders(&mut self, now: Instant) {
        while let Some(Prepare { set, from }) = self.ends.orders.pop() {
            let Some(from) = from else {
                self.ready.push(set);
                continue;
            };
            self.serial = self.serial.wrapping_add(1);
            let whole = !matches!(self.whole.get(&from), Some(Asked::Answered));
            self.say(Some(from), Message::Ask { serial: self.serial, whole }.emit());
            self.waits.push(Wait { set, serial: self.serial, until: now + PATIENCE });
        }
        let waits = std::mem::take(&mut self.waits).into_iter();
        let (over, waits): (Vec<Wait>, Vec<Wait>) = waits.partition(|wait| wait.until <= now);
        self.waits = waits;
        add(&self.shared.flow_waits_over, over.len() as u64);
        self.ready.extend(over.iter().map(|wait| wait.set));
    }

    fn hear(&mut self, now: Instant) {
        self.settling.retain(|(_, until)| *until > now);
        for _ in 0..PIECES {
            let Some((from, bytes)) = self.ends.heard.pop() else { return };
            match Message::parse(&bytes) {
                Ok(Message::Changes(changes)) => {
                    add(&self.shared.flows_received, changes.len() as u64);
                    let settling: Vec<usize> = self.settling.iter().map(|(set, _)| *set).collect();
                    self.late.extend(self.flows.hear(now, changes, &settling));
                    self.ask_for_all(now, from);
                }
                Ok(Message::Round) => {
                    self.whole.insert(from, Asked::Answered);
                }
                Ok(Message::Ask { serial, whole }) => self.asked(now, Asker { node: from, serial, whole }),
                Ok(Message::Told { serial }) => {
                    let told = self.waits.iter().position(|wait| wait.serial == serial);
                    self.ready.extend(told.map(|place| self.waits.swap_remove(place).set));
                }
                Err(_) => add(&self.shared.flows_malformed, 1),
            }
        }
    }

    fn asked(&mut self, now: Instant, asker: Asker) {
        if asker.whole && self.flows.holds() && !self.in_round {
            (self.round_at, self.in_round) = (now, true);
        }
        // The kernel may have said something that nobody was woken for yet.
        (self.unseen, self.hurry) = (true, true);
        // More than this are no members that acquire sets.
        if self.askers.len() < SLOTS {
            self.askers.push(asker);
        }
    }

    /// Who tells of changes has told of other things before, perhaps before this host heard it.
    fn ask_for_all(&mut self, now: Instant, from: NodeId) {
        match self.whole.get(&from) {
            Some(Asked::Answered) => return,
            Some(Asked::At(at)) if now.since(*at) < ASK_AGAIN => return,
            _ => {}
        }
        self.whole.insert(from, Asked::At(now));
        // Nobody waits for the answer to this number.
        self.say(Some(from), Message::Ask { serial: 0, whole: true }.emit());
    }

    fn look(&mut self, now: Instant) {
        if !std::mem::take(&mut self.unseen) {
            return;
        }
        let flows = &mut self.flows;
        match self.conntrack.look(|change| flows.changed(change)) {
            Looked::All => {}
            Looked::Some => self.unseen = true,
            Looked::Overflow => {
                self.unseen = true;
                add(&self.shared.flow_overflows, 1);
                self.round_at = self.round_at.min(now + ASK_AGAIN);
            }
        }
    }

    fn dump(&mut self, now: Instant) -> io::Result<()> {
        if self.round_at <= now && !self.dumping {
            self.flows.forget(now);
            self.round_at = now + ROUND;
            if self.flows.holds() {
                let entries = self.netlink.dump(libc::RTM_GETADDR, &[0; 8])?;
                let addresses = entries.iter().filter_map(|(_, body)| Entry::read(body));
                self.flows.begin_dump(addresses.map(|entry| entry.placed.address));
                self.conntrack.begin_dump()?;
                (self.dumping, self.in_round) = (true, true);
            }
        }
        for _ in 0..PIECES {
            if !self.dumping {
                break;
            }
            let flows = &mut self.flows;
            self.dumping = self.conntrack.read_dump(|flow| flows.dumped(flow))?;
            if !self.dumping {
                self.flows.end_dump();
            }
        }
        Ok(())
    }

    /// Tells the kernel of flows.
    fn hand_over(&mut self, now: Instant) -> io::Result<()> {
        if self.handing.is_none() && !self.ready.is_empty() {
            let sets = std::mem::take(&mut self.ready);
            let flows = self.flows.of_sets(&sets).into();
            self.handing = Some(Handing { sets, flows, begun: now });
        }
        if let Some(mut handing) = self.handing.take() {
            self.create(&mut handing.flows, true)?;
            if handing.flows.is_empty() {
                self.handed_over(&handing);
            } else {
                self.handing = Some(handing);
            }
        }
        let mut late = std::mem::take(&mut self.late);
        self.create(&mut late, false)?;
        self.late = late;
        Ok(())
    }

    fn create(&mut self, flows: &mut VecDeque<Flow>, replace: bool) -> io::Result<()> {
        let some: Vec<Flow> = flows.drain(..flows.len().min(AT_ONCE)).collect();
        let Created { done, refused } = self.conntrack.create(&some, replace)?;
        add(&self.shared.flows_created, done);
        add(&self.shared.flows_refused, refused);
        Ok(())
    }

    fn handed_over(&mut self, handing: &Handing) {
        let now = self.clock.now();
        let took = u64::try_from(now.since(handing.begun).as_nanos()).unwrap_or(u64::MAX);
        self.shared.slowest_flows.fetch_max(took, Ordering::Relaxed);
        for &set in &handing.sets {
            self.settling.push((set, now + SETTLE));
            // A keeper that takes nothing has given it up.
            let _ = self.ends.prepared.push(set);
        }
    }

    fn send(&mut self, now: Instant) {
        let hurry = std::mem::take(&mut self.hurry);
        if now < self.send_at && !hurry {
            return;
        }
        self.send_at = now + PACE;
        let burst = if hurry { FLUSH } else { BURST };
        for number in 0..burst {
            if self.ends.said.is_full() {
                break;
            }
            // A round must come to its end also where much happens.
            let Some(bytes) = self.flows.message(number == 0) else { break };
            self.say(None, bytes);
            add(&self.shared.flow_messages, 1);
        }
        if self.in_round && !self.dumping && self.round_at > now && self.flows.is_whole() && !self.ends.said.is_full() {
            self.in_round = false;
            self.say(None, Message::Round.emit());
        }
        // What the kernel said before they asked has been looked at.
        let told = self.flows.is_told() && !self.unseen;
        let is_answered = |asker: &Asker| told && !(asker.whole && self.in_round);
        let askers = std::mem::take(&mut self.askers).into_iter();
        let (answered, askers): (Vec<Asker>, Vec<Asker>) = askers.partition(is_answered);
        self.askers = askers;
        answered.iter().for_each(|asker| self.say(Some(asker.node), Message::Told { serial: asker.serial }.emit()));
    }

    fn say(&mut self, to: Option<NodeId>, bytes: Vec<u8>) {
        if self.ends.said.push(Said { to, bytes: bytes.into_boxed_slice() }).is_err() {
            add(&self.shared.flow_messages_left_out, 1);
        }
    }

    fn count(&self) {
        let [told, known] = self.flows.counts();
        self.shared.flows_told.store(told as u64, Ordering::Relaxed);
        self.shared.flows_known.store(known as u64, Ordering::Relaxed);
        self.shared.flows_left_out.store(self.flows.left_out(), Ordering::Relaxed);
    }
}
