//! The link: one lane to one neighbour.
//!
//! A link carries overlay messages to the router at its other end. It knows whether that router is there, how far away
//! it is and how much gets lost; it repeats what is lost, shares the path fairly with everybody else's traffic, and
//! shares itself fairly among flows. It gets plaintexts that security has opened and writes plaintexts that security
//! seals; sockets, clocks and keys are other people's.
//!
//! # A message's way
//! ```text
//!             send ─► queue ─► pacer, window ─┐            ┌─► received (what to acknowledge, and when)
//!                      ▲ flow-fair, bounded   ▼            │
//!     send_control ─► control ─────────► poll_transmit ~~► handle_packet ─► dedup ─► poll_deliver, in any order
//!                                          ▲  │            │
//!                          again ◄── lost ─┴─ sent ◄── acknowledgement
//! ```
//! A sealed packet bundles whatever is ready and fits: acknowledgement and hello first, then control messages, then
//! repetitions, then the queue. Packet numbers are never used twice, so a repetition is a new packet and round-trip
//! samples are never ambiguous (RFC 9002). Reliable messages also have a link sequence number, by which the receiver
//! recognises what it has already.
//!
//! # How a loss is noticed
//! 1. *A gap.* A packet sent later was acknowledged, and this one is older than a round trip plus a reordering window
//!    (as RACK, RFC 8985). The receiver tells of gaps at once. In dense traffic this comes first.
//! 2. *The link's own timer.* A packet is older than a round trip plus the jitter of this path plus the time the other
//!    end takes to repeat its acknowledgement. In sparse traffic this comes first: a lone lost message is repeated a
//!    few milliseconds after its answer should have come, not when the next message happens to follow. Every packet is
//!    acknowledged at once when traffic is sparse, and the acknowledgement is repeated, so that the timer can be short
//!    without needless repetitions.
//!
//! Both are one deadline, that of the oldest outstanding packet. If what was given up arrives after all, the reaction of
//! congestion control is undone and the waiting time grows.
//!
//! # Paths
//! A link may have several paths (`paths.rs`), each with hellos of its own; one of them, the active one, carries all else.
//! The link is up while one path is. When it goes on by another, packet numbers, what was received and what waits stay;
//! the estimate of the round trip, congestion control and the size of datagrams begin anew (RFC 9000 section 9.4). What was
//! outstanding on a path that died is sent again at once.
//!
//! # States
//! ```text
//!  detached ──attach──► Down ──hello "I hear you"──► Up ──silence, refusal, close, restart, narrow path──► Down
//!     ▲                                                                                                     │
//!     └───────────────────── detach, close ─────────────────────────────────────────────────────────────────┘
//! ```
//! When a link goes down, reliable messages that were not acknowledged come out of [`Link::poll_stranded`], to be sent
//! another way.
//!
//! # Timers
//! | [`Reason`] | when | then |
//! |---|---|---|
//! | `Hello` | nothing left on a path for an interval | say hello |
//! | `Dead` | nothing heard on a path for `dead`, or full datagrams do not pass | go on by another path, or go down |
//! | `Ack` | an acknowledgement is held back, or wants to be repeated | acknowledge |
//! | `Loss` | the oldest outstanding packet is overdue | give it up |
//! | `Pacing` | the next packet may leave | send |
//! | `Probe` | a larger datagram is to be tried, or the smallest confirmed | probe |
//! | `Measure` | a quarter of a second | report measurements |
//! | `Release` | packets of a link that went down are still held | give them back to the pool |
//!
//! # Bounds
//! | what | most | when reached |
//! |---|---|---|
//! | paths | 4 listed and 2 found | a newcomer takes the place of one that has not answered |
//! | queue | [`Settings::queue`] messages | the longest flow gives way (`queue.rs`) |
//! | control messages not yet sent | 256 | refused to the caller |
//! | sequence numbers from the oldest unacknowledged reliable or control message to the next | 4,096 | first sendings wait |
//! | messages to send again, those acknowledged meanwhile included | 8,192 | – (follows from the row above) |
//! | packets on record | 8,192 | only hellos, acknowledgements and the farewell leave; each pushes out the oldest record, which counts as lost if it was outstanding |
//! | ranges of packet numbers received | 64 | the lowest is forgotten |
//! | gaps that are timed | 64 | the oldest is not timed (`gaps.rs`) |
//! | messages to deliver | 1,024 | best effort is dropped; a packet with another reliable or control message is not acknowledged, and comes again |
//! | events | 16 | the oldest is forgotten; a caller that drains after each call never sees that |
//! | stranded messages | 4,096 and a queue, once per going down | – (the caller drains them at once) |
//! | packets to give back to the pool | 4,096, 256 and a queue | – (given back by the next call that has the pool) |

mod by_length;
mod congestion;
mod gaps;
mod hello;
mod loss;
mod mtu;
mod pacer;
mod paths;
mod peer_clock;
mod queue;
mod receive;
mod received;
mod recovery;
mod reliable;
mod rtt;
mod sent;
mod stats;
mod transmit;

#[cfg(test)]
mod tests;

pub use crate::wire::frame::CloseReason;
pub use paths::{MoveReason, PathReport, PathSpec};
pub use stats::{ClassStats, LinkStats};

use crate::base::limits::{MAX_DATAGRAM, MAX_MESSAGE};
use crate::base::rare::rarely;
use crate::base::sabotage::{Rule, broken};
use crate::base::time::sooner;
use crate::base::{AddressPair, Class, DownReason, Instant, LinkMetrics, Rng};
use crate::containers::pool::Urgency;
use crate::containers::{Packet, Pool};
use crate::telemetry::DropReason;
use crate::wire::frame::MAX_ACK_RANGES;
use crate::wire::message::Header;
use congestion::Controller;
use gaps::Gaps;
use loss::Loss;
use mtu::Mtu;
use pacer::Pacer;
use paths::Paths;
use peer_clock::PeerClock;
use queue::Queue;
use received::Received;
use recovery::Recovery;
use reliable::Reliable;
use rtt::Rtt;
use sent::Sent;
use stats::Counters;
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// Messages received that may wait for [`Link::poll_deliver`].
const MAX_DELIVERIES: usize = 1024;
/// Events that may wait; a caller that drains after each call never has more than three.
const MAX_EVENTS: usize = 16;
/// Distance of regular reports.
const MEASURE: Duration = Duration::from_millis(250);

/// How fast a link sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    /// A TCP's fair share (CUBIC, RFC 9438).
    Cubic,
    /// Always this many kbit/s of datagrams.
    FixedKbps(u64),
}

/// Settings of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between hellos on an idle link.
    pub hello: Duration,
    /// Silence after which the link is dead.
    pub dead: Duration,
    /// Congestion control.
    pub congestion: Congestion,
    /// Longest standing delay in the queue that is not answered by dropping or marking.
    pub queue_delay: Duration,
    /// Most messages in the queue.
    pub queue: usize,
    /// Largest datagram to probe for, UDP payload bytes.
    pub max_datagram: usize,
    /// Workers of this router: the neighbour is told, so that both ends know which lanes there are.
    pub workers: u8,
}

impl Default for Settings {
    /// The Internet profile: a dead link is known within 300 ms.
    fn default() -> Settings {
        Settings {
            hello: Duration::from_millis(40),
            dead: Duration::from_millis(280),
            congestion: Congestion::Cubic,
            queue_delay: Duration::from_millis(20),
            queue: 4096,
            max_datagram: MAX_DATAGRAM,
            workers: 1,
        }
    }
}

/// A message that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// An overlay message.
    Message(Packet),
    /// A message of the neighbour's control thread.
    Control(Packet),
}

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Both ends hear each other.
    Up(LinkMetrics),
    /// The link carries nothing any more.
    Down(DownReason),
    /// Fresh measurements.
    Measured(LinkMetrics),
    /// The link, which is up, sends by another path.
    Moved(MoveReason),
}

/// Why a link wants to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A hello is due.
    Hello,
    /// The neighbour is dead unless heard.
    Dead,
    /// An acknowledgement is due.
    Ack,
    /// The oldest outstanding packet is overdue.
    Loss,
    /// The next packet may leave.
    Pacing,
    /// A path-MTU probe is due.
    Probe,
    /// Measurements are due.
    Measure,
    /// Packets are to be given back to the pool.
    Release,
}

/// One plaintext to seal and send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its packet number, never used before with these or earlier keys of this lane.
    pub number: u64,
    /// Bytes of plaintext written.
    pub len: usize,
    /// What its messages waited.
    pub waited: Waited,
    /// By which path.
    pub path: AddressPair,
    /// Whether that is up.
    pub up: bool,
}

/// The longest stay in the queue of the messages that leave for the first time with a packet, by the code of their class;
/// none where there is no such message.
pub type Waited = [Option<Duration>; Class::ALL.len()];

/// One lane to one neighbour.
#[derive(Debug)]
pub struct Link {
    settings: Settings,
    attached: bool,
    closing: Option<CloseReason>,
    /// Workers of the neighbour, as it said last.
    their_workers: u8,
    up: bool,
    /// Since when it is up or down.
    since: Instant,
    paths: Paths,
    rtt: Rtt,
    peer_clock: PeerClock,
    gaps: Gaps,
    received: Received,
    sent: Sent,
    recovery: Recovery,
    reliable: Reliable,
    queue: Queue,
    congestion: Box<dyn Controller>,
    pacer: Pacer,
    /// Since when it holds back what the window would let go.
    paced_since: Option<Instant>,
    mtu: Mtu,
    counters: Counters,
    deliveries: VecDeque<Delivery>,
    stranded: VecDeque<Packet>,
    /// Packets to release as soon as the pool is at hand.
    leftovers: Vec<Packet>,
    events: VecDeque<Event>,
    reported: (Instant, LinkMetrics),
    /// The next deadline, once it was asked for; forgotten by whatever may change it, so that asking again costs nothing.
    deadline: Cell<Option<Deadline>>,
    /// When this link was last called.
    called: Instant,
    /// When the last standstill of this router ended: answers to what left before say nothing about the path.
    woke: Instant,
}

type Deadline = Option<(Instant, Reason)>;

/// The controller of one of so many lanes.
fn controller(settings: &Settings, lanes: u64) -> Box<dyn Controller> {
    match settings.congestion {
        Congestion::Cubic => Box::new(congestion::Cubic::new()),
        Congestion::FixedKbps(kbps) => Box::new(congestion::Fixed::new(kbps / lanes)),
    }
}

/// Inputs.
impl Link {
    /// A link without keys: it neither sends nor receives until [`Link::attach`]. Without paths it waits for the other end
    /// to say where it is.
    pub fn new(now: Instant, settings: Settings, paths: &[PathSpec], rng: Rng) -> Link {
        Link {
            attached: false,
            closing: None,
            their_workers: 1,
            up: false,
            since: now,
            paths: Paths::new(now, paths, settings.hello, settings.dead, rng),
            rtt: Rtt::new(),
            peer_clock: PeerClock::new(),
            gaps: Gaps::new(),
            received: Received::new(),
            sent: Sent::new(),
            recovery: Recovery::new(),
            reliable: Reliable::new(),
            queue: Queue::new(settings.queue, settings.queue_delay),
            congestion: controller(&settings, 1),
            pacer: Pacer::new(),
            paced_since: None,
            mtu: Mtu::new(settings.max_datagram),
            counters: Counters::new(),
            deliveries: VecDeque::new(),
            stranded: VecDeque::new(),
            leftovers: Vec::new(),
            events: VecDeque::with_capacity(MAX_EVENTS),
            reported: (Instant::ZERO, LinkMetrics::default()),
            deadline: Cell::new(None),
            called: Instant::ZERO,
            woke: Instant::ZERO,
            settings,
        }
    }

    /// Keys exist. `fresh`: the other end starts anew, so packet numbers and link sequence numbers start at zero and
    /// what was measured is forgotten. Otherwise only the keys changed, and nothing else does. `from`: where the other end
    /// was when it proved that it has them.
    pub fn attach(&mut self, now: Instant, from: AddressPair, fresh: bool) {
        self.notice_standstill(now);
        self.forget_deadline();
        if fresh {
            self.go_down(now, DownReason::Restarted);
            self.sent = Sent::new();
            self.received = Received::new();
            self.reliable.restart();
            self.rtt = Rtt::new();
            self.peer_clock = PeerClock::new();
            self.gaps = Gaps::new();
        }
        let place = self.paths.came_from(now, from);
        if fresh {
            self.paths.restart(now, place);
        } else if !self.attached {
            self.paths.iter_mut().for_each(|path| path.liveness.start(now, false));
        }
        self.attached = true;
        self.closing = None;
    }

    /// The keys have expired: nothing can be sent or opened.
    pub fn detach(&mut self, now: Instant) {
        self.notice_standstill(now);
        self.forget_deadline();
        self.go_down(now, DownReason::Silence);
        self.attached = false;
        self.closing = None;
    }

    /// Takes an overlay message to send. Gives it back if the link is down, or if it is reliable and the queue is full.
    /// Best effort that finds the queue full costs the fattest flow a message, which is counted here.
    pub fn send(&mut self, now: Instant, packet: Packet, header: &Header, pool: &mut Pool) -> Result<(), Packet> {
        self.notice_standstill(now);
        if !self.is_up() || (header.class == Class::Reliable && rarely!(LinkQueueFull)) {
            return Err(packet);
        }
        self.forget_deadline();
        self.queue.push(now, packet, header, pool, &mut self.counters).inspect(|()| self.counters.accepted += 1)
    }

    /// Takes a message for the neighbour's control thread: reliable, ahead of all others. False if the link is down,
    /// too many wait, or it exceeds [`MAX_MESSAGE`].
    pub fn send_control(&mut self, now: Instant, bytes: &[u8], pool: &mut Pool) -> bool {
        self.notice_standstill(now);
        if !self.is_up() || bytes.len() > MAX_MESSAGE || rarely!(ControlQueueFull) {
            return false;
        }
        let Some(packet) = pool.copy_in(Urgency::Reserved, bytes) else {
            self.counters.drops.count(DropReason::PoolExhausted);
            return false;
        };
        self.forget_deadline();
        self.reliable.push_control(packet).map_err(|packet| pool.release(packet)).is_ok()
    }

    /// Leaves: the neighbour is told by the next packet, the last one.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        self.notice_standstill(now);
        self.forget_deadline();
        self.go_down(now, DownReason::Closed);
        if self.attached {
            self.closing = Some(reason);
        }
    }

    /// The kernel says that nothing listens at the other end. Such a message can be forged, so the neighbour is probed;
    /// three refusals and no answer to the first probe within a round trip mean down.
    /// Of a path that is not active the hellos tell soon enough.
    pub fn handle_refused(&mut self, now: Instant, path: AddressPair) {
        self.notice_standstill(now);
        if self.is_up() && self.paths.active().pair() == Some(path) {
            self.forget_deadline();
            let rtt = self.rtt.smoothed();
            self.paths.active_mut().liveness.on_refused(now, rtt);
        }
    }

    /// The process at the other end is said to have ended, which may be wrong: the neighbour is probed, and no answer to the
    /// first probe within a round trip means down.
    pub fn handle_ended(&mut self, now: Instant) {
        self.notice_standstill(now);
        if self.is_up() {
            self.forget_deadline();
            let rtt = self.rtt.smoothed();
            self.paths.active_mut().liveness.on_ended(now, rtt);
        }
    }

    /// Nothing leaves from this router's addresses `from` any more, as it seems: if that is where the link sends from, and
    /// there is another path, the active one is probed, and left if nobody answers within a round trip.
    pub fn handle_carrier_lost(&mut self, now: Instant, from: &[IpAddr]) {
        let local = self.paths.active().pair().and_then(|pair| pair.local);
        if self.paths.len() > 1 && local.is_some_and(|local| from.contains(&local)) {
            self.handle_ended(now);
        }
    }

    /// Uses these paths, and no others that were configured, from now on: what is up stays up.
    pub fn set_paths(&mut self, now: Instant, paths: &[PathSpec]) {
        self.notice_standstill(now);
        self.forget_deadline();
        self.paths.list(now, paths);
        let best = self.paths.best_up(now).filter(|_| !self.paths.active().is_listed());
        if let Some(place) = best.filter(|&place| place != self.paths.active_place()) {
            self.move_to(now, place, MoveReason::Unlisted);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, pool: &mut Pool) {
        self.notice_standstill(now);
        self.release_leftovers(pool);
        if !self.attached {
            return;
        }
        let due = self.next_deadline();
        self.forget_deadline();
        let late = due.map_or(Duration::ZERO, |(at, _)| now.since(at));
        if late > self.settings.hello {
            self.paths.iter_mut().for_each(|path| path.liveness.forgive(now, late));
        }
        self.bury_paths(now);
        if self.mtu.is_too_narrow() && self.is_up() {
            self.path_down(now, self.paths.active_place(), DownReason::TooNarrow);
        }
        self.release_leftovers(pool);
        self.forget_sent(now);
        self.detect_losses(now);
        self.report(now);
    }

    /// A link that works is called at least every 1.1 hello intervals, and every [`MEASURE`] while up. If it was not
    /// called for twice that, this router stood still, and what arrives now waited for it and not for the path.
    pub(super) fn notice_standstill(&mut self, now: Instant) {
        let longest = if self.is_up() { self.settings.hello.min(MEASURE) } else { self.settings.hello } * 2;
        if now.since(self.called) > longest {
            self.woke = now;
        }
        self.called = now;
    }

    /// Takes down the paths that are dead, the active one last.
    fn bury_paths(&mut self, now: Instant) {
        let active = self.paths.active_place();
        for place in (0..self.paths.len()).filter(|&place| place != active).chain([active]) {
            if let Some(reason) = self.paths.get(place).liveness.expired(now) {
                self.path_down(now, place, reason);
            }
        }
        self.paths.sweep(now);
    }

    /// Both ends hear each other on a path.
    fn path_up(&mut self, now: Instant, place: usize) {
        let path = self.paths.get_mut(place);
        if !path.liveness.set_up(now, true) {
            return;
        }
        if self.up {
            // What it lost while it was down is no measure of what it loses now.
            path.loss = Loss::default();
        } else {
            self.go_up(now, place);
        }
    }

    fn path_down(&mut self, now: Instant, place: usize, reason: DownReason) {
        let path = self.paths.get_mut(place);
        let lived = now.since(path.liveness.since());
        if !path.liveness.set_up(now, false) || place != self.paths.active_place() {
            return;
        }
        self.paths.mourn(lived);
        match self.paths.best_up(now) {
            Some(next) => self.move_to(now, next, MoveReason::Dead(reason)),
            None => self.go_down(now, reason),
        }
    }

    fn choose_path(&mut self, now: Instant) {
        if let Some((place, reason)) = self.paths.choose(now).filter(|_| self.up) {
            self.move_to(now, place, reason);
        }
    }

    /// Sends by another path, which is up. What is outstanding is given up at once if its path is gone, and else waited
    /// for as long as that path's answers take; either way it says nothing about the new one (RFC 9000 section 9.4).
    fn move_to(&mut self, now: Instant, place: usize, reason: MoveReason) {
        let alive = matches!(reason, MoveReason::Better | MoveReason::Unlisted);
        let patience = if alive { self.timeout() } else { Duration::ZERO };
        self.sent.begin_path();
        self.begin_path(now, place);
        self.recovery.wait_for_former(patience);
        self.counters.moves += 1;
        self.push_event(Event::Moved(reason));
        self.detect_losses(now);
    }

    /// Nothing is known of the path but what its hellos say.
    fn begin_path(&mut self, now: Instant, place: usize) {
        if self.paths.activate(place) {
            self.rtt = self.paths.active().rtt.clone();
        }
        // What the neighbour said of its workers came before.
        let lanes = self.settings.workers.min(self.their_workers);
        self.congestion = controller(&self.settings, u64::from(lanes));
        self.pacer = Pacer::new();
        self.mtu.start(now);
        self.recovery = Recovery::new();
    }

    fn go_up(&mut self, now: Instant, place: usize) {
        (self.up, self.since) = (true, now);
        self.counters.ups += 1;
        self.begin_path(now, place);
        self.reported = (now, self.measure(now));
        self.push_event(Event::Up(self.reported.1));
    }

    fn go_down(&mut self, now: Instant, reason: DownReason) {
        if !std::mem::replace(&mut self.up, false) {
            return;
        }
        self.since = now;
        self.paths.iter_mut().for_each(|path| _ = path.liveness.set_up(now, false));
        self.counters.downs += 1;
        self.sent.abandon();
        for (packet, control) in self.reliable.abandon() {
            if control {
                self.counters.stats.drops.count(DropReason::LinkDown);
                self.leftovers.push(packet);
            } else {
                self.counters.stats.returned_sent += 1;
                self.stranded.push_back(packet);
            }
        }
        while let Some((packet, class)) = self.queue.take_any() {
            if class == Class::Reliable {
                self.counters.returned_unsent += 1;
                self.stranded.push_back(packet);
            } else {
                self.counters.dropped_unsent += 1;
                self.counters.drops.count(DropReason::LinkDown);
                self.leftovers.push(packet);
            }
        }
        self.push_event(Event::Down(reason));
    }

    fn release_leftovers(&mut self, pool: &mut Pool) {
        self.leftovers.drain(..).for_each(|packet| pool.release(packet));
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn measure(&self, now: Instant) -> LinkMetrics {
        let (rtt, jitter) = (self.rtt.smoothed(), self.rtt.variation());
        LinkMetrics { rtt, jitter, loss_ppm: self.paths.active().loss.ppm(now) }
    }

    /// Reports measurements when a quarter of a second has passed, or at once when they have turned bad.
    pub(super) fn report(&mut self, now: Instant) {
        let (at, before) = self.reported;
        let elapsed = now.since(at);
        if !self.is_up() || elapsed < MEASURE / 4 {
            return;
        }
        let metrics = self.measure(now);
        let worse = metrics.loss_ppm > before.loss_ppm.saturating_mul(2).saturating_add(10_000)
            || metrics.rtt > before.rtt * 3 / 2 + Duration::from_millis(5);
        if elapsed >= MEASURE || worse {
            self.reported = (now, metrics);
            if let Some(Event::Measured(last)) = self.events.back_mut() {
                *last = metrics;
            } else {
                self.push_event(Event::Measured(metrics));
            }
        }
    }
}

/// Outputs; [`Link::poll_transmit`] is in `transmit.rs`.
impl Link {
    /// The next message that arrived.
    pub fn poll_deliver(&mut self) -> Option<Delivery> {
        if broken(Rule::AnyOrder) && self.reliable.misses_one() {
            return None;
        }
        self.deliveries.pop_front()
    }

    /// After the link went down: the next reliable message that was not acknowledged, to be sent another way. The other
    /// end may have received it.
    pub fn poll_stranded(&mut self) -> Option<Packet> {
        self.stranded.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Link::handle_timeout`] wants to be called, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        if !self.leftovers.is_empty() {
            return Some((Instant::ZERO, Reason::Release));
        }
        self.next_deadline()
    }

    /// The deadlines must be looked at again.
    pub(super) fn forget_deadline(&self) {
        self.deadline.set(None);
    }

    fn next_deadline(&self) -> Deadline {
        let next = self.deadline.get().unwrap_or_else(|| self.find_deadline());
        #[cfg(test)]
        assert_eq!(next, self.find_deadline(), "what changes a deadline forgets the one that was found");
        self.deadline.set(Some(next));
        next
    }

    fn find_deadline(&self) -> Deadline {
        if !self.attached {
            return None;
        }
        if self.closing.is_some() {
            return Some((Instant::ZERO, Reason::Hello));
        }
        let mut next = None;
        let mut consider = |at: Option<Instant>, reason| next = sooner(next, at.map(|at| (at, reason)));
        for path in self.paths.iter() {
            consider(Some(path.liveness.hello_deadline()), Reason::Hello);
        }
        consider(self.received.deadline(), Reason::Ack);
        if self.is_up() {
            for path in self.paths.iter() {
                consider(path.liveness.dead_deadline(), Reason::Dead);
            }
            consider(self.mtu.is_too_narrow().then_some(Instant::ZERO), Reason::Dead);
            consider(self.recovery.deadline(), Reason::Loss);
            consider(self.pacing_deadline(), Reason::Pacing);
            consider(self.mtu.deadline().filter(|_| self.sent.has_room()), Reason::Probe);
            consider(Some(self.reported.0 + MEASURE), Reason::Measure);
        }
        next
    }
}

/// What is known.
impl Link {
    /// Whether both ends hear each other.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Workers of the neighbour, as it said last.
    pub const fn their_workers(&self) -> u8 {
        self.their_workers
    }

    /// Whether there are keys to send with, and neither end has left since they came.
    pub const fn is_attached(&self) -> bool {
        self.attached
    }

    /// The measurements last reported.
    pub fn metrics(&self) -> LinkMetrics {
        self.reported.1
    }

    /// When the link last came up or went down.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The path that the link sends by; none while nobody has said where the other end is.
    pub fn path(&self) -> Option<AddressPair> {
        self.paths.active().pair()
    }

    /// Whether both ends hear each other on this path.
    pub fn is_up_by(&self, path: AddressPair) -> bool {
        self.paths.find(path).is_some_and(|place| self.paths.get(place).is_up())
    }

    /// All paths.
    pub fn paths(&self, now: Instant) -> impl Iterator<Item = PathReport> {
        self.paths.reports(now)
    }

    /// Messages in the queue.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// What the link holds, as `(name, held, bound)`: the rows of the table of bounds, and the gaps that are timed.
    pub fn holdings(&self) -> impl Iterator<Item = (&'static str, usize, usize)> + use<> {
        let (queue, [control, span, again]) = (self.settings.queue.max(1), self.reliable.holdings());
        [
            ("paths", self.paths.len(), Paths::bound()),
            ("link queue", self.queue.len(), queue),
            ("control messages", control, reliable::MAX_CONTROL),
            ("unacknowledged span", span, reliable::MAX_SPAN),
            ("messages to repeat", again, 2 * reliable::MAX_SPAN),
            ("sent packets", self.sent.len(), sent::MAX_RECORDS),
            ("received ranges", self.received.ranges(), MAX_ACK_RANGES),
            ("deliveries", self.deliveries.len(), MAX_DELIVERIES),
            ("link events", self.events.len(), MAX_EVENTS),
            ("gaps", self.gaps.len(), gaps::MAX_GAPS),
            ("stranded", self.stranded.len(), reliable::MAX_SPAN + queue),
            ("to release", self.leftovers.len(), reliable::MAX_SPAN + reliable::MAX_CONTROL + queue),
        ]
        .into_iter()
    }

    /// Largest datagram that is sent, UDP payload bytes.
    pub fn pmtu(&self) -> usize {
        self.mtu.current()
    }

    /// Counters without summaries.
    fn figures(&self) -> LinkStats {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let difference = self.peer_clock.latest();
        LinkStats {
            window: self.congestion.window(),
            in_flight: self.sent.in_flight(),
            pacing_rate: self.congestion.pacing_rate(self.rtt.smoothed()),
            queue: self.queue.len(),
            queue_peak: self.queue.peak(),
            unacknowledged: self.reliable.unconfirmed(),
            pmtu: self.mtu.current(),
            rtt_us: micros(self.rtt.smoothed()),
            rtt_min_us: micros(self.rtt.min()),
            rtt_variation_us: micros(self.rtt.variation()),
            timeout_us: micros(self.timeout()),
            clock_ahead_us: difference.and_then(|difference| i64::try_from(difference.ahead_ns / 1_000).ok()),
            clock_error_us: difference.map(|difference| micros(difference.error)),
            ..self.counters.stats.clone()
        }
    }
}
