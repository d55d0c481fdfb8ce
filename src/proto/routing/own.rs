//! This router's own links: what is advertised of them, and when.
//!
//! ```text
//!            up, few flaps                           advertised as measured
//!   down ─────────────────────────────────────────────▶ steady
//!    ▲ └──── up, flapping ──▶ last resort ── stays up ──▶ │
//!    └──────────── down ──────────┴───────── down ────────┘
//! ```
//!
//! # Damping
//! - *Bad news at once.* A link that is gone, or much worse than advertised, sends traffic into a hole until others
//!   know. The first bad news goes out immediately, further ones at least [`URGENT_SPACING`] apart, so that a site
//!   that loses ten links in a moment says it in two advertisements, not in ten. A router that was cut off and is back
//!   does not wait: its neighbours would ask for, and pass on, that it was cut off, and routes that the first of them
//!   to notice brought back would be lost once more.
//! - *Measurements wait* [`CALM_SPACING`]: nothing is lost while the old path still works, and a measurement that swings
//!   back in the meantime is never told. While one link keeps changing the spacing doubles up to [`CALM_SPACING_MAX`],
//!   which damps traffic that follows a metric it worsens itself. Changes below 10 % ride along with the next
//!   advertisement.
//! - *A link that comes up is told at once*, because its ends may have no other. A link that flaps is too, but as a last
//!   resort, longer each time (1 s, 2 s, 4 s … [`HOLD_MAX`]), and is forgiven one flap a [`FLAP_MEMORY`]: all routers
//!   avoid it while there is another way, and use it at once where there is none. While its other end is reached
//!   another way its coming up is no hurry either and waits as measurements do, so that a link that flaps faster than
//!   that makes nobody compute anything.
//! - *All together* stay within [`TOLD`], well within what others grant an origin (`database.rs`), so that bad news is
//!   never refused there. The last tokens are kept for it ([`RESERVE_GOOD`], [`RESERVE_CALM`]).

use crate::base::{DownReason, Instant, LinkId, LinkMetrics, NodeId, Rng};
use crate::proto::routing::Metric;
use crate::proto::routing::budget::{Budget, Rate};
use crate::proto::routing::metric::LAST_RESORT_PPM;
use crate::wire::routing::{AdvertisedLink, Sequence};
use std::collections::BTreeMap;
use std::time::Duration;

/// Advertisements of this router.
pub(super) const TOLD: Rate = Rate { burst: 32, period: Duration::from_millis(250) };
/// Tokens that a link that came up, or back to normal, leaves to bad news.
const RESERVE_GOOD: u32 = 8;
/// Tokens that measurements leave.
const RESERVE_CALM: u32 = 16;
/// Least time between two advertisements with bad news.
pub(super) const URGENT_SPACING: Duration = Duration::from_millis(20);
/// Least time between other advertisements, and how long a change must last to be told.
pub(super) const CALM_SPACING: Duration = Duration::from_secs(2);
/// What the spacing grows to while measurements keep changing.
pub(super) const CALM_SPACING_MAX: Duration = Duration::from_secs(32);
/// An advertisement is repeated this often, give or take a tenth, even if nothing changed.
pub(super) const REFRESH: Duration = Duration::from_secs(600);
/// Least time between two answers to an advertisement of ours that we did not send: a router with the same key that
/// answers as well must not make the two of them flood the network.
pub(super) const FIGHT_SPACING: Duration = Duration::from_secs(1);
/// Where our counter begins, at most, and how far above an impostor's it goes on.
const JUMP: u64 = 1 << 20;
/// How long a flapping link is a last resort at first.
pub(super) const HOLD_FIRST: Duration = Duration::from_secs(1);
/// How long it is at most.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(30);
/// A flap is forgotten after this long.
pub(super) const FLAP_MEMORY: Duration = Duration::from_secs(60);

/// One of this router's links.
#[derive(Debug)]
struct Link {
    peer: NodeId,
    metrics: LinkMetrics,
    state: State,
    flaps: u32,
    last_flap: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    /// Up, but it flaps: the last resort until then.
    LastResort(Instant),
    Steady,
}

/// How loud the difference between what is measured and what is advertised is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    Calm,
    Good,
    Urgent,
}

/// This router's own links and its advertisements.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) node: NodeId,
    pub(super) sequence: Sequence,
    rng: Rng,
    links: BTreeMap<LinkId, Link>,
    advertised: Vec<AdvertisedLink>,
    leaving: bool,
    told: Budget,
    last_told: Option<Instant>,
    last_calm: Option<Instant>,
    calm_spacing: Duration,
    calm_since: Option<Instant>,
    last_fight: Option<Instant>,
    /// When news, or an answer to an impostor, are due.
    news_at: Option<(Instant, News)>,
    fight_at: Option<Instant>,
    refresh_at: Instant,
}

impl Own {
    pub(super) fn new(now: Instant, node: NodeId, epoch: u64, mut rng: Rng) -> Own {
        Own {
            node,
            // At random, for the same reason as in a fight: a clock that is set at boot may say the same in two lives.
            sequence: Sequence { epoch, counter: rng.below(JUMP) },
            rng,
            links: BTreeMap::new(),
            advertised: Vec::new(),
            leaving: false,
            told: Budget::default(),
            last_told: None,
            last_calm: None,
            calm_spacing: CALM_SPACING,
            calm_since: None,
            last_fight: None,
            news_at: None,
            fight_at: None,
            refresh_at: now,
        }
    }

    pub(super) fn add(&mut self, link: LinkId, peer: NodeId) {
        let (metrics, last_flap) = (LinkMetrics::default(), Instant::ZERO);
        let fresh = Link { peer, metrics, state: State::Down, flaps: 0, last_flap };
        self.links.insert(link, fresh);
    }

    pub(super) fn remove(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    pub(super) fn up(&mut self, now: Instant, link: LinkId, metrics: LinkMetrics) {
        let Some(link) = self.links.get_mut(&link) else { return };
        link.metrics = metrics;
        if link.state == State::Down {
            link.forgive(now);
            link.state = match link.flaps {
                0 | 1 => State::Steady,
                flaps => State::LastResort(now + HOLD_FIRST.saturating_mul(1 << (flaps - 2).min(16)).min(HOLD_MAX)),
            };
        }
    }

    pub(super) fn down(&mut self, now: Instant, link: LinkId, reason: DownReason) {
        let Some(link) = self.links.get_mut(&link) else { return };
        let deliberate = matches!(reason, DownReason::Closed | DownReason::Removed);
        if std::mem::replace(&mut link.state, State::Down) != State::Down && !deliberate {
            link.forgive(now);
            link.flaps += 1;
            link.last_flap = now;
        }
    }

    pub(super) fn measured(&mut self, link: LinkId, metrics: LinkMetrics) {
        if let Some(link) = self.links.get_mut(&link) {
            link.metrics = metrics;
        }
    }

    /// From now on no link is advertised.
    pub(super) fn leave(&mut self, now: Instant) {
        self.leaving = true;
        self.news_at = Some((now, News::Urgent));
    }

    /// An advertisement of ours that is newer than what we know to have sent: it is from before our restart (or from
    /// somebody with our key). Ours must be above it to be heard; by how much is random, because somewhere there may be
    /// a newer one yet of that other life, and two contents must not meet under one sequence.
    pub(super) fn fight(&mut self, now: Instant, theirs: Sequence) {
        let above = Sequence { counter: theirs.counter.saturating_add(self.rng.below(JUMP)), ..theirs };
        self.sequence = self.sequence.max(above);
        let earliest = self.last_fight.map_or(now, |last| last + FIGHT_SPACING);
        self.fight_at.get_or_insert(earliest.max(now));
    }

    /// The best usable link to each neighbour: cheapest by `metric`, then first in the configuration.
    pub(super) fn usable(&self, metric: Metric) -> BTreeMap<NodeId, (LinkId, AdvertisedLink)> {
        let mut best: BTreeMap<NodeId, (LinkId, AdvertisedLink)> = BTreeMap::new();
        for (&id, link) in self.links.iter().filter(|(_, link)| link.state != State::Down) {
            let mut ours = AdvertisedLink::new(link.peer, &link.metrics);
            if matches!(link.state, State::LastResort(_)) {
                ours.loss_ppm = LAST_RESORT_PPM;
            }
            let cheaper = |held: &(LinkId, AdvertisedLink)| metric.cost(&ours, &ours) < metric.cost(&held.1, &held.1);
            if best.get(&link.peer).is_none_or(cheaper) {
                best.insert(link.peer, (id, ours));
            }
        }
        best
    }

    /// Compares what is measured with what is advertised, and plans to tell. `detour`: whether a neighbour is reached
    /// over other routers.
    pub(super) fn weigh(&mut self, now: Instant, metric: Metric, detour: impl Fn(NodeId) -> bool) {
        if self.leaving {
            return;
        }
        let usable = self.usable(metric);
        let gone = self.advertised.iter().any(|link| !usable.contains_key(&link.neighbour));
        let news = usable.values().map(|(_, link)| self.news(link, &detour)).max().unwrap_or(News::None);
        let news = if gone { News::Urgent } else { news };
        let known = self.advertised.iter().any(|link| usable.contains_key(&link.neighbour));
        let urgent_spacing = if known || usable.is_empty() { URGENT_SPACING } else { Duration::ZERO };
        let spaced = |spacing, reserve| {
            let last = self.last_told.map_or(now, |last| last + spacing);
            now.max(last).max(self.told.ready_at(TOLD, reserve))
        };
        self.news_at = match news {
            News::Urgent => Some((spaced(urgent_spacing, 0), news)),
            News::Good => Some((spaced(urgent_spacing, RESERVE_GOOD), news)),
            News::Calm => {
                let earliest = spaced(self.calm_spacing, RESERVE_CALM);
                let since = *self.calm_since.get_or_insert(now);
                Some((earliest.max(since + CALM_SPACING), news))
            }
            News::None => {
                self.calm_since = None;
                None
            }
        };
    }

    fn news(&self, measured: &AdvertisedLink, detour: impl Fn(NodeId) -> bool) -> News {
        match self.advertised.binary_search_by_key(&measured.neighbour, |link| link.neighbour) {
            Ok(index) => compare(&self.advertised[index], measured),
            Err(_) if measured.loss_ppm == LAST_RESORT_PPM && detour(measured.neighbour) => News::Calm,
            Err(_) => News::Good,
        }
    }

    /// Whether an advertisement must go out now; if so, the caller emits [`Own::compose`].
    pub(super) fn due(&self, now: Instant) -> bool {
        self.next().is_some_and(|at| at <= now)
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        let news = self.news_at.map(|(at, _)| at);
        [news, self.fight_at, Some(self.refresh_at)].into_iter().flatten().min()
    }

    /// Lets links be as good as others again whose time has come; true if there were any.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        let mut any = false;
        for link in self.links.values_mut() {
            if matches!(link.state, State::LastResort(until) if until <= now) {
                link.state = State::Steady;
                any = true;
            }
        }
        any
    }

    /// When the next link will be as good as others again.
    pub(super) fn next_release(&self) -> Option<Instant> {
        let held = |link: &Link| if let State::LastResort(until) = link.state { Some(until) } else { None };
        self.links.values().filter_map(held).min()
    }

    pub(super) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The next advertisement: its sequence and links. Resets all that was due.
    pub(super) fn compose(&mut self, now: Instant, metric: Metric) -> (Sequence, &[AdvertisedLink]) {
        if matches!(self.news_at, Some((_, News::Calm))) {
            let quiet = self.last_calm.is_none_or(|last| now.since(last) > 4 * self.calm_spacing);
            self.calm_spacing = if quiet { CALM_SPACING } else { (2 * self.calm_spacing).min(CALM_SPACING_MAX) };
            self.last_calm = Some(now);
        }
        if self.fight_at.take().is_some() {
            self.last_fight = Some(now);
        }
        (self.news_at, self.calm_since, self.last_told) = (None, None, Some(now));
        self.refresh_at = now + self.rng.jitter(REFRESH, 0.1);
        self.told.spend(now, TOLD);
        self.sequence = self.sequence.next();
        let usable = if self.leaving { BTreeMap::new() } else { self.usable(metric) };
        self.advertised = usable.into_values().map(|(_, link)| link).collect();
        (self.sequence, &self.advertised)
    }
}

impl Link {
    fn forgive(&mut self, now: Instant) {
        let forgiven = u32::try_from(now.since(self.last_flap).as_secs() / FLAP_MEMORY.as_secs()).unwrap_or(u32::MAX);
        self.flaps = self.flaps.saturating_sub(forgiven);
        self.last_flap += FLAP_MEMORY.saturating_mul(forgiven);
    }
}

/// How loud a change is. Each threshold has an absolute part, because a tenth of nearly nothing is noise.
fn compare(told: &AdvertisedLink, measured: &AdvertisedLink) -> News {
    // Much worse: the round trip doubled and is 10 ms longer; or the loss doubled and is half a percent more.
    let slow = measured.rtt_us > (2 * told.rtt_us).max(told.rtt_us + 10_000);
    let lossy = measured.loss_ppm > (2 * told.loss_ppm).max(told.loss_ppm + 5_000);
    if slow || lossy {
        return News::Urgent;
    }
    if told.loss_ppm == LAST_RESORT_PPM && measured.loss_ppm < LAST_RESORT_PPM {
        return News::Good;
    }
    // Different: by a tenth, and by half a millisecond or a tenth of a percent.
    let differs = |told: u32, measured: u32, floor: u32| told.abs_diff(measured) > (told / 10).max(floor);
    let different = differs(told.rtt_us, measured.rtt_us, 500) || differs(told.loss_ppm, measured.loss_ppm, 1_000);
    if different { News::Calm } else { News::None }
}
