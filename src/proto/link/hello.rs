//! Liveness of one path: who hears whom.
//!
//! ```text
//!                 hello that says "I hear you"
//!        Down ────────────────────────────────────► Up
//!         ▲                                          │ nothing authentic for `dead` (Silence)
//!         │                                          │ hello that says "I do not hear you" (Silence)
//!         └──────────────────────────────────────────┤ nothing listens there, or its process is said to have ended,
//!                                                    │ and probing agrees (Refused)
//!                                                    │ full datagrams do not pass, and probing agrees (TooNarrow)
//!                                                    │ close, sent or received (Closed)
//!                                                    └ the other end starts anew (Restarted)
//! ```
//!
//! A path may carry hellos and nothing larger. So hellos are padded to the smallest full datagram until both ends hear
//! each other, and only who heard a padded one says "I hear you" (as QUIC's first datagrams, RFC 9000 section 14.1).
//!
//! A neighbour decides with each hello whether the link is up, and each change costs this router's control thread work and
//! the network a flood. So a life shorter than [`SHORT_LIFE`] is a strike; beyond [`FREE_STRIKES`] of them the link stays
//! down for 250 ms after the next one, then twice as long, and so on to [`LONGEST_PENANCE`] (it says "I do not hear you"
//! meanwhile); one strike is forgiven every [`FORGIVEN_AFTER`]. A neighbour that restarts, or a path that fails now and
//! then, is up again at once.
//!
//! Any authentic packet is a sign of life, so a busy link needs no hellos: one leaves when nothing else has for an
//! interval, and every fourth interval in any case, for its clock samples.
//!
//! Where a link has several paths, packets are not believed to have come by the path that their addresses say: whoever
//! relays them writes those. There a hello belongs to the path of which it echoes a hello of ours, wherever it came from;
//! only an echo not heard before is a sign of life, and a hello leaves every interval. Only such a hello, whatever the
//! number of paths, can bring a path up (path validation, RFC 9000 section 8.2).

use crate::base::sabotage::{Rule, broken};
use crate::base::{DownReason, Instant, Rng};
use crate::wire::frame::Hello;
use std::time::Duration;

/// Hellos leave early or late by up to this share, so that links do not fall into step.
const JITTER: f64 = 0.1;
/// A busy link says hello once in this many intervals.
const BUSY_INTERVALS: u32 = 4;
/// Echoes that took longer say nothing of use.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(10);
/// One hello in so many is not padded, so that a path that is too narrow is told from one that carries nothing.
const PLAIN: u32 = 4;
/// Distance of hellos that answer hellos: bounds what a chatty neighbour can cause.
const ANSWER_GAP: Duration = Duration::from_millis(5);
/// Distance of probes while the kernel says that nothing listens.
const REFUSED_GAP: Duration = Duration::from_millis(2);
/// Refusals that together, and with nothing authentic heard for a round trip, mean down.
const REFUSALS: u32 = 3;
/// Probes sent in answer to refusals. One ICMP message can be forged, so each is checked.
const REFUSED_PROBES: u32 = 8;
/// Added to the round trip that a living neighbour has to answer a probe.
const REFUSED_SLACK: Duration = Duration::from_millis(5);

/// A link that was up for less is suspected to go up and down on purpose.
const SHORT_LIFE: Duration = Duration::from_millis(500);
/// Short lives that are not held against the neighbour.
const FREE_STRIKES: u32 = 6;
/// How long the link stays down after the first strike beyond those.
const FIRST_PENANCE: Duration = Duration::from_millis(250);
/// How long it stays down at most.
const LONGEST_PENANCE: Duration = Duration::from_secs(16);
/// A strike is forgotten after this long.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// The kernel says nothing listens; we are finding out.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Instant,
    refusals: u32,
    probes: u32,
    next_probe: Instant,
    /// When a living neighbour would have answered the first probe.
    verdict: Instant,
}

/// The last hello heard.
#[derive(Clone, Copy, Debug)]
struct Last {
    path: u16,
    sequence: u32,
    sent_ns: u64,
    arrived: Instant,
}

/// Liveness of one path.
#[derive(Debug)]
pub(super) struct Liveness {
    /// What hellos call the path.
    path: u16,
    /// This end tells several paths from one another, or the other end does.
    several: bool,
    they_several: bool,
    interval: Duration,
    dead: Duration,
    rng: Rng,
    up: bool,
    since: Instant,
    /// The last sign of life.
    heard: Option<Instant>,
    /// The last hello in a full datagram.
    heard_full: Option<Instant>,
    /// When there were keys.
    started: Instant,
    /// Silence is forgiven until then: we were asleep ourselves.
    forgiven: Instant,
    next_sequence: u32,
    last: Option<Last>,
    /// The newest hello of ours that was echoed, by our clock.
    echoed_ns: u64,
    /// What the other end called the path when it last said that it hears us, and when it last said that it does not.
    agreed: Option<u16>,
    unheard: Option<Instant>,
    said: Instant,
    gap: Duration,
    sent_anything: Instant,
    /// A hello must leave then.
    answer_at: Option<Instant>,
    suspicion: Option<Suspicion>,
    /// Short lives that are not forgiven yet, and since when the oldest of them waits for that.
    strikes: u32,
    strikes_since: Instant,
    /// The link stays down until then.
    penance: Instant,
}

/// What a received hello tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// A round-trip sample, if it echoes one of our hellos that left by this path.
    pub(super) rtt: Option<Duration>,
    /// When that hello of ours left, and how long the other end held it.
    pub(super) echoed: Option<(Instant, Duration)>,
    /// Hellos that were sent before it and did not arrive.
    pub(super) missed: u32,
    /// The change of state it causes.
    pub(super) change: Option<Change>,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Both ends hear each other.
    Up,
    /// They no longer do.
    Down(DownReason),
}

impl Liveness {
    pub(super) fn new(now: Instant, path: u16, interval: Duration, dead: Duration, rng: Rng) -> Liveness {
        Liveness {
            path,
            several: false,
            they_several: false,
            interval,
            dead,
            rng,
            up: false,
            since: now,
            heard: None,
            heard_full: None,
            started: Instant::ZERO,
            forgiven: Instant::ZERO,
            next_sequence: 0,
            last: None,
            echoed_ns: 0,
            agreed: None,
            unheard: None,
            said: Instant::ZERO,
            gap: Duration::ZERO,
            sent_anything: Instant::ZERO,
            answer_at: None,
            suspicion: None,
            strikes: 0,
            strikes_since: Instant::ZERO,
            penance: Instant::ZERO,
        }
    }

    /// Keys exist: say hello at once. `fresh`: nothing is known of the other end.
    pub(super) fn start(&mut self, now: Instant, fresh: bool) {
        if fresh {
            (self.heard, self.heard_full, self.last, self.next_sequence) = (None, None, None, 0);
            (self.agreed, self.unheard) = (None, None);
        }
        self.started = now;
        self.answer_at = Some(now);
        self.suspicion = None;
    }

    /// The path is one of several that this end tells from one another, or is not.
    pub(super) const fn set_several(&mut self, several: bool) {
        self.several = several;
    }

    /// What hellos call the path.
    pub(super) const fn path(&self) -> u16 {
        self.path
    }

    /// Whether both ends hear each other.
    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    /// Since when the state is what it is.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// Since when there are keys and hellos.
    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// Changes the state; false if it was that already.
    pub(super) fn set_up(&mut self, now: Instant, up: bool) -> bool {
        if self.up == up {
            return false;
        }
        let lived = now.since(self.since);
        (self.up, self.since) = (up, now);
        if !up && lived < SHORT_LIFE {
            self.strike(now);
        }
        if up {
            // The other end may not know yet that we hear it.
            self.answer_at = Some(now);
        } else {
            self.suspicion = None;
        }
        true
    }

    fn strike(&mut self, now: Instant) {
        let forgiven = now.since(self.strikes_since).as_nanos() / FORGIVEN_AFTER.as_nanos();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven >= self.strikes {
            (self.strikes, self.strikes_since) = (0, now);
        } else {
            self.strikes -= forgiven;
            self.strikes_since += FORGIVEN_AFTER * forgiven;
        }
        self.strikes += 1;
        if let Some(beyond) = self.strikes.checked_sub(FREE_STRIKES + 1) {
            self.penance = now + FIRST_PENANCE.saturating_mul(1 << beyond.min(16)).min(LONGEST_PENANCE);
        }
    }

    /// An authentic packet arrived that has this path's addresses.
    pub(super) const fn on_packet(&mut self, now: Instant) {
        if !self.several {
            self.on_life(now);
        }
    }

    const fn on_life(&mut self, now: Instant) {
        self.heard = Some(now);
        self.suspicion = None;
    }

    /// The last sign of life.
    pub(super) const fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// How many hellos did not arrive between the last and this one; none if this one is older. An other end that finds
    /// us by a path of its own that is new calls it by another name, and counts anew.
    fn missed(&self, hello: &Hello) -> Option<u32> {
        let Some(last) = self.last.filter(|last| last.path == hello.path) else { return Some(0) };
        let ahead = hello.sequence.wrapping_sub(last.sequence);
        (ahead != 0 && ahead <= u32::MAX / 2).then(|| ahead - 1)
    }

    /// A hello arrived; `full`: in a full datagram.
    pub(super) fn on_hello(&mut self, now: Instant, hello: &Hello, full: bool) -> Told {
        let mut told = Told { rtt: None, echoed: None, missed: 0, change: None };
        // One older than the last tells nothing about now.
        let Some(missed) = self.missed(hello) else { return told };
        told.missed = missed;
        let Hello { path, sequence, sent_ns, .. } = *hello;
        self.last = Some(Last { path, sequence, sent_ns, arrived: now });
        self.they_several = hello.several;
        if full {
            self.heard_full = Some(now);
        }
        let held = Duration::from_micros(u64::from(hello.echo_delay_us));
        let (answers, echoed) = (hello.echo_path == self.path, Instant::from_nanos(hello.echo_ns));
        if answers && hello.echo_ns != 0 && echoed + held <= now {
            told.rtt = Some(now.since(echoed + held)).filter(|&rtt| rtt < LONGEST_ROUND_TRIP);
            told.echoed = told.rtt.map(|_| (echoed, held));
            if hello.echo_ns > self.echoed_ns {
                self.echoed_ns = hello.echo_ns;
                self.on_life(now);
            }
        }
        if hello.hears_you {
            self.agreed = Some(path);
            let up = answers && !self.up && self.hears_full(now);
            told.change = up.then_some(Change::Up);
        } else {
            self.unheard = Some(now);
            // Of a path that is new to it, it has not said yes yet.
            let gone = self.up && self.agreed == Some(path);
            told.change = gone.then_some(Change::Down(DownReason::Silence));
            self.answer_at = Some(self.answer_at.map_or(now, |at| at.min(now)));
        }
        told
    }

    /// Whether the way here is known to be wide, and nothing else keeps the link down.
    fn hears_full(&self, now: Instant) -> bool {
        self.penance <= now && self.heard_full.is_some_and(|at| now.since(at) < self.dead)
    }

    /// Whether a hello that leaves now must be a full datagram: there is somebody who may still have to learn that the
    /// path is wide. Who does not answer is not filled with padding for long.
    pub(super) fn is_padded(&self, now: Instant) -> bool {
        let recent = |at: Instant| now.since(at) < self.dead;
        if self.next_sequence % PLAIN == PLAIN - 1 {
            false
        } else if self.up {
            recent(self.since) || self.unheard.is_some_and(recent)
        } else {
            recent(self.started) || self.heard.is_some_and(recent)
        }
    }

    fn hello_at(&self) -> Instant {
        let idle = self.sent_anything.max(self.said) + self.gap;
        let busy = self.up && !(self.several || self.they_several);
        let regular = if busy { idle.min(self.said + self.gap * BUSY_INTERVALS) } else { self.said + self.gap };
        let answer = self.answer_at.map_or(Instant::MAX, |at| at.max(self.said + ANSWER_GAP));
        let first = if self.next_sequence == 0 { Instant::ZERO } else { Instant::MAX };
        regular.min(answer).min(first)
    }

    /// The hello that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Hello> {
        if now < self.hello_at() {
            return None;
        }
        let (echo_path, echo_ns, echo_delay_us) = self.last.map_or((0, 0, 0), |last| {
            let held = now.since(last.arrived).as_micros();
            (last.path, last.sent_ns, u32::try_from(held).unwrap_or(u32::MAX))
        });
        Some(Hello {
            hears_you: self.up || self.hears_full(now),
            several: self.several,
            // The link knows how many.
            workers: 1,
            path: self.path,
            sequence: self.next_sequence,
            interval_us: u32::try_from(self.interval.as_micros()).unwrap_or(u32::MAX),
            // Zero means no echo, so the first nanosecond of the process is told as the second.
            sent_ns: now.as_nanos().max(1),
            echo_path,
            echo_ns,
            echo_delay_us,
        })
    }

    /// The hello that was due left.
    pub(super) fn on_hello_sent(&mut self, now: Instant) {
        self.next_sequence = self.next_sequence.wrapping_add(1).max(1);
        self.said = now;
        self.gap = self.rng.jitter(self.interval, JITTER);
        self.answer_at = None;
    }

    /// Any packet left.
    pub(super) const fn on_sent(&mut self, now: Instant) {
        self.sent_anything = now;
    }

    /// Nobody is refused: nobody sends by this path any more.
    pub(super) const fn calm_down(&mut self) {
        self.suspicion = None;
    }

    /// What was sent by this path at `sent` arrived. What left before somebody was suspected says nothing of now.
    pub(super) fn on_acknowledged(&mut self, sent: Instant) {
        self.suspicion = self.suspicion.take_if(|suspicion| sent < suspicion.since);
    }

    /// The kernel says that nothing listens at the other end.
    pub(super) fn on_refused(&mut self, now: Instant, rtt: Duration) {
        self.suspect(now, rtt).refusals += 1;
    }

    /// The process at the other end is said to have ended: that needs no repetition. What was asked for a refusal before
    /// says nothing of that, so it is asked anew, and given as long to answer; unless that is being done already.
    pub(super) fn on_ended(&mut self, now: Instant, rtt: Duration) {
        if self.verdict_at().is_none_or(|at| at <= now) {
            self.suspicion = None;
            self.suspect(now, rtt).refusals = REFUSALS;
        }
    }

    fn suspect(&mut self, now: Instant, rtt: Duration) -> &mut Suspicion {
        let verdict = now + rtt + REFUSED_SLACK;
        self.suspicion.get_or_insert(Suspicion { since: now, refusals: 0, probes: 0, next_probe: now, verdict })
    }

    /// Whether a probe that every living neighbour answers at once must leave.
    pub(super) fn probe_due(&self, now: Instant) -> bool {
        self.probe_at().is_some_and(|at| at <= now)
    }

    fn probe_at(&self) -> Option<Instant> {
        self.suspicion.filter(|suspicion| suspicion.probes < REFUSED_PROBES).map(|suspicion| suspicion.next_probe)
    }

    /// The probe left.
    pub(super) fn on_probe_sent(&mut self, now: Instant) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.probes += 1;
            suspicion.next_probe = now + REFUSED_GAP;
        }
    }

    /// This process ran so late that others may have been heard and not been listened to, and what kept it from running may
    /// keep them as well: they get as long to be heard, from an interval to what they have at most.
    pub(super) fn forgive(&mut self, now: Instant, late: Duration) {
        self.forgiven = now + late.clamp(self.interval, self.dead.max(self.interval));
    }

    fn dead_at(&self) -> Instant {
        let heard = self.heard.unwrap_or(self.since).max(self.since);
        (heard + self.dead).max(self.forgiven)
    }

    fn verdict_at(&self) -> Option<Instant> {
        self.suspicion.filter(|suspicion| suspicion.refusals >= REFUSALS).map(|suspicion| suspicion.verdict)
    }

    /// Why the link is down now, if time made it so.
    pub(super) fn expired(&self, now: Instant) -> Option<DownReason> {
        if !self.up {
            return None;
        }
        if self.verdict_at().is_some_and(|at| at.max(self.forgiven) <= now) {
            return Some(DownReason::Refused);
        }
        (self.dead_at() <= now && !broken(Rule::Silence)).then_some(DownReason::Silence)
    }

    /// When the next hello or probe must leave.
    pub(super) fn hello_deadline(&self) -> Instant {
        self.probe_at().map_or(self.hello_at(), |at| at.min(self.hello_at()))
    }

    /// When the link is dead unless something is heard.
    pub(super) fn dead_deadline(&self) -> Option<Instant> {
        let verdict = self.verdict_at().map_or(Instant::MAX, |at| at.max(self.forgiven));
        self.up.then(|| self.dead_at().min(verdict))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(40);
    const DEAD: Duration = Duration::from_millis(280);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn hello(sequence: u32, hears_you: bool, echo_ms: u64) -> Hello {
        let echo_ns = echo_ms * 1_000_000;
        Hello {
            hears_you,
            several: false,
            workers: 1,
            path: 0,
            sequence,
            interval_us: 40_000,
            sent_ns: 1,
            echo_path: 0,
            echo_ns,
            echo_delay_us: 3000,
        }
    }

    fn started() -> Liveness {
        let mut liveness = Liveness::new(at(100), 0, INTERVAL, DEAD, Rng::from_u64(1));
        liveness.start(at(100), true);
        liveness
    }

    /// As the link does for a packet that holds a hello.
    fn hear(liveness: &mut Liveness, now: Instant, hello: &Hello) -> Told {
        liveness.on_packet(now);
        liveness.on_hello(now, hello, true)
    }

    #[test]
    fn a_hello_carries_a_sample_a_loss_count_and_a_state() {
        let mut liveness = started();
        let told = hear(&mut liveness, at(123), &hello(5, true, 100));
        let echoed = Some((at(100), Duration::from_millis(3)));
        let expected = Told { rtt: Some(Duration::from_millis(20)), echoed, missed: 0, change: Some(Change::Up) };
        assert_eq!(told, expected);
        assert!(liveness.set_up(at(123), true) && !liveness.set_up(at(123), true));
        let counted = Told { rtt: None, echoed: None, missed: 2, change: None };
        assert_eq!(hear(&mut liveness, at(200), &hello(8, true, 0)), counted);
        let silence = Some(Change::Down(DownReason::Silence));
        assert_eq!(hear(&mut liveness, at(210), &hello(9, false, 0)).change, silence);
    }

    #[test]
    fn an_overtaken_hello_tells_nothing() {
        let mut liveness = started();
        hear(&mut liveness, at(110), &hello(7, true, 0));
        liveness.set_up(at(110), true);
        let nothing = Told { rtt: None, echoed: None, missed: 0, change: None };
        assert_eq!(hear(&mut liveness, at(111), &hello(6, false, 100)), nothing);
        assert_eq!(hear(&mut liveness, at(111), &hello(7, false, 100)), nothing);
    }

    #[test]
    fn hellos_leave_at_once_then_every_interval_and_rarely_when_busy() {
        let mut liveness = started();
        let first = liveness.due(at(100)).expect("the first leaves at once");
        assert!(!first.hears_you && first.sequence == 0);
        liveness.on_hello_sent(at(100));
        assert!(liveness.due(at(135)).is_none());
        assert!(liveness.due(at(145)).is_some());
        hear(&mut liveness, at(145), &hello(0, true, 0));
        liveness.set_up(at(145), true);
        assert!(liveness.due(at(145)).is_some_and(|hello| hello.hears_you), "the other end waits for it");
        liveness.on_hello_sent(at(145));
        let busy = (146..400).filter(|&ms| {
            liveness.on_sent(at(ms));
            let due = liveness.due(at(ms)).is_some();
            if due {
                liveness.on_hello_sent(at(ms));
            }
            due
        });
        assert_eq!(busy.count(), 1, "a packet every millisecond, one hello in four intervals");
    }

    /// Hellos that say yes and no in turn, `pause` apart; gives the times at which the link came up.
    fn flip(liveness: &mut Liveness, sequence: &mut u32, start: u64, end: u64, pause: u64) -> Vec<u64> {
        let mut ups = Vec::new();
        for ms in (start..end).step_by(pause as usize) {
            *sequence += 1;
            match hear(liveness, at(ms), &hello(*sequence, sequence.is_multiple_of(2), 0)).change {
                Some(Change::Up) => {
                    liveness.set_up(at(ms), true);
                    ups.push(ms);
                }
                Some(Change::Down(_)) => drop(liveness.set_up(at(ms), false)),
                None => {}
            }
        }
        ups
    }

    #[test]
    fn a_neighbour_that_flips_with_each_hello_is_up_ever_more_rarely_and_then_forgiven() {
        let (mut liveness, mut sequence) = (started(), 0);
        let ups = flip(&mut liveness, &mut sequence, 1_000, 601_000, 1);
        assert!(ups.len() <= 7 + 7 + 600_000 / 10_000, "{} ups in ten minutes", ups.len());
        assert!(ups.len() >= 20, "but it is tried again: {}", ups.len());
        assert!(ups.windows(2).skip(20).all(|pair| pair[1] - pair[0] >= 3_999), "{ups:?}");
        // Meanwhile the other end is told to stay down too.
        let held = liveness.due(at(601_000)).expect("none left for minutes");
        assert!(!held.hears_you || liveness.is_up());
        liveness.set_up(at(601_000), false);
        let later = flip(&mut liveness, &mut sequence, 900_000, 900_010, 1);
        assert_eq!(later.len(), 5, "long ago");
    }

    #[test]
    fn a_neighbour_that_restarts_or_a_path_that_fails_is_up_again_at_once() {
        let (mut liveness, mut now) = (started(), 1_000);
        for round in 0..100 {
            // Short lives now and then, as of a process that is killed again as soon as it runs.
            let life = if round % 10 == 9 { 200 } else { 1_500 };
            liveness.start(at(now), true);
            let told = hear(&mut liveness, at(now + 1), &hello(0, true, 0));
            assert_eq!(told.change, Some(Change::Up), "round {round}");
            assert!(liveness.set_up(at(now + 1), true));
            now += 1 + life;
            assert!(liveness.set_up(at(now), false));
            now += 30;
        }
        for _ in 0..FREE_STRIKES {
            liveness.start(at(now), true);
            assert_eq!(hear(&mut liveness, at(now), &hello(0, true, 0)).change, Some(Change::Up));
            liveness.set_up(at(now), true);
            liveness.set_up(at(now + 50), false);
            now += 60_000;
        }
    }

    #[test]
    fn silence_and_refusals_end_it_and_a_sleeper_forgives() {
        let mut liveness = started();
        hear(&mut liveness, at(110), &hello(0, true, 0));
        liveness.set_up(at(110), true);
        assert_eq!(liveness.expired(at(389)), None);
        assert_eq!(liveness.expired(at(390)), Some(DownReason::Silence));
        liveness.forgive(at(390), Duration::from_millis(30));
        assert_eq!((liveness.expired(at(429)), liveness.dead_deadline()), (None, Some(at(430))), "an interval");
        liveness.forgive(at(390), Duration::from_millis(90));
        assert_eq!(liveness.dead_deadline(), Some(at(480)), "as long as it was late");
        liveness.forgive(at(390), Duration::from_secs(9));
        assert_eq!(liveness.dead_deadline(), Some(at(390) + DEAD), "but no longer than others have");
        liveness.forgive(at(390), Duration::ZERO);
        hear(&mut liveness, at(420), &hello(1, true, 0));
        for _ in 0..3 {
            liveness.on_refused(at(440), Duration::from_millis(20));
        }
        assert!(liveness.probe_due(at(440)));
        assert_eq!((liveness.expired(at(464)), liveness.expired(at(465))), (None, Some(DownReason::Refused)));
        liveness.on_packet(at(450));
        assert_eq!(liveness.expired(at(465)), None, "the neighbour answered");
        liveness.on_ended(at(470), Duration::from_millis(20));
        assert!(liveness.probe_due(at(470)));
        assert_eq!(liveness.dead_deadline(), Some(at(495)), "said once is enough");
        assert_eq!((liveness.expired(at(494)), liveness.expired(at(495))), (None, Some(DownReason::Refused)));
        liveness.forgive(at(495), Duration::ZERO);
        assert_eq!(liveness.expired(at(495)), None, "a sleeper looks first");
    }

    #[test]
    fn an_end_is_asked_after_anew_however_long_ago_a_refusal_was() {
        let (mut liveness, rtt) = (started(), Duration::from_millis(20));
        hear(&mut liveness, at(110), &hello(0, true, 0));
        liveness.set_up(at(110), true);
        // A single refusal proves nothing: its probes are sent, and nothing comes of it.
        liveness.on_refused(at(120), rtt);
        for _ in 0..REFUSED_PROBES {
            liveness.on_probe_sent(at(121));
        }
        liveness.on_ended(at(200), rtt);
        assert!(liveness.probe_due(at(200)), "the probes that a living neighbour could answer are long gone");
        assert_eq!((liveness.expired(at(224)), liveness.expired(at(225))), (None, Some(DownReason::Refused)));
        // Said again and again, it is put off no further.
        (201..225).for_each(|ms| liveness.on_ended(at(ms), rtt));
        assert_eq!(liveness.expired(at(225)), Some(DownReason::Refused));
    }
}
