//! Paths: the address pairs by which a link reaches the other end, how each of them does, and which one it sends by.
//!
//! ```text
//!   hellos by every path ──► up or down, round trip, loss ──► choice ──► the active path carries everything else
//! ```
//!
//! A path is *listed* in the configuration, or it was *found*: authentic packets came from an address that nobody listed,
//! as of a neighbour that roams. Either is asked by hellos before anything else is sent there, and comes up only when the
//! other end answers what was sent by this very path (path validation, RFC 9000 sections 8.2 and 9.3): who repeats or
//! relays packets from an address of his own is asked in vain, unless he relays the answers too; and even then a path
//! that was found is used only where the active one has fallen silent.
//!
//! # Choice
//! Each end chooses for what it sends. The measure of a path is half its round trip without queues, what its losses cost,
//! and the cost that the configuration adds.
//!
//! | the active path | is left for | when | [`MoveReason`] |
//! |---|---|---|---|
//! | is down | the best that is up | at once | `Dead` |
//! | has said nothing for [`SILENT`] hellos | a path that speaks, if one of the two was found | at once | `Roamed` |
//! | was found | a listed one | it was up for its patience | `Better` |
//! | is listed | a listed one that is better by a fifth, and by [`MARGIN`] | for all its patience | `Better` |
//! | is not listed any more | the best listed one that is up | at once | `Unlisted` |
//!
//! A path's patience is [`STEADY`]; each time it dies while it is active it doubles, up to [`LONGEST_PATIENCE`], so that one
//! that comes and goes is used ever more rarely. A life of [`GOOD_LIFE`] makes it what it was.
//!
//! # Bounds
//! [`MAX_PATHS`] that are listed and [`MAX_FOUND`] that were found: the active one, and one that is asked. A newcomer takes
//! the place of one that has not answered. A found path that is down is forgotten, unless it is the only one.

use super::hello::Liveness;
use super::loss::Loss;
use super::rtt::Rtt;
use crate::base::limits::MAX_PATHS;
use crate::base::{AddressPair, DownReason, Instant, Rng};
use crate::wire::frame::Hello;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Paths that were found and not forgotten yet.
const MAX_FOUND: usize = 2;
/// How much better than the active path another must be, at least.
const MARGIN: Duration = Duration::from_millis(2);
/// And by which part of the active path's measure.
const MARGIN_PART: u32 = 5;
/// For how long it must be.
const STEADY: Duration = Duration::from_secs(2);
/// The same for one that has died often.
const LONGEST_PATIENCE: Duration = Duration::from_secs(64);
/// Who was up for this long is steady again.
const GOOD_LIFE: Duration = Duration::from_secs(60);
/// A lost message costs a round trip, and this for what losses do to congestion control.
const LOSS_COST: Duration = Duration::from_millis(100);
/// Hello intervals of silence, each an eighth longer for their jitter, after which the other end is believed to have moved
/// if it speaks elsewhere.
const SILENT: u32 = 2;

/// A path to use, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSpec {
    /// Its addresses.
    pub pair: AddressPair,
    /// Counts as so much more latency when paths are compared.
    pub cost: Duration,
}

impl From<AddressPair> for PathSpec {
    fn from(pair: AddressPair) -> PathSpec {
        PathSpec { pair, cost: Duration::ZERO }
    }
}

/// Why a link sends by another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveReason {
    /// The one before is dead.
    Dead(DownReason),
    /// It has been better for long enough.
    Better,
    /// The other end speaks from another address.
    Roamed,
    /// The one before is not in the configuration any more.
    Unlisted,
}

/// A path at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// Its addresses.
    #[serde(flatten)]
    pub pair: AddressPair,
    /// The link sends by it.
    pub active: bool,
    /// Both ends hear each other on it.
    pub up: bool,
    /// It is in the configuration.
    pub listed: bool,
    /// Time since it came up, went down or was new.
    pub since: Duration,
    /// Smoothed round trip of its hellos, µs; none before the first.
    pub rtt_us: Option<u64>,
    /// Share of packets lost, parts per million: on the active path of what was sent, on others of the neighbour's hellos.
    pub loss_ppm: u32,
}

/// One path.
#[derive(Debug)]
pub(super) struct Path {
    /// None while nobody has said where the other end is.
    pair: Option<AddressPair>,
    /// None if it was found.
    cost: Option<Duration>,
    pub(super) liveness: Liveness,
    /// Of its hellos.
    pub(super) rtt: Rtt,
    pub(super) loss: Loss,
    better_since: Option<Instant>,
    patience: Duration,
}

impl Path {
    pub(super) const fn pair(&self) -> Option<AddressPair> {
        self.pair
    }

    pub(super) const fn is_up(&self) -> bool {
        self.liveness.is_up()
    }

    pub(super) const fn is_listed(&self) -> bool {
        self.cost.is_some()
    }

    /// The smaller the better.
    fn measure(&self, now: Instant) -> Duration {
        let (rtt, lost) = (self.rtt.min(), f64::from(self.loss.ppm(now)) / 1e6);
        rtt / 2 + (rtt + LOSS_COST).mul_f64(lost) + self.cost.unwrap_or_default()
    }

    /// What the choice among paths that are up goes by: listed ones first.
    fn rank(&self, now: Instant) -> (bool, Duration) {
        (self.cost.is_none(), self.measure(now))
    }

    fn report(&self, now: Instant, active: bool) -> Option<PathReport> {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Some(PathReport {
            pair: self.pair?,
            active,
            up: self.is_up(),
            listed: self.cost.is_some(),
            since: now.since(self.liveness.since()),
            rtt_us: self.rtt.has_sample().then(|| micros(self.rtt.smoothed())),
            loss_ppm: self.loss.ppm(now),
        })
    }
}

/// The paths of one link; there is always one.
#[derive(Debug)]
pub(super) struct Paths {
    list: Vec<Path>,
    active: usize,
    /// What the next path will be called.
    next: u16,
    interval: Duration,
    dead: Duration,
    rng: Rng,
}

impl Paths {
    /// Those of the configuration; without any, one to wherever the other end will call from.
    pub(super) fn new(now: Instant, specs: &[PathSpec], interval: Duration, dead: Duration, rng: Rng) -> Paths {
        assert!(specs.len() <= MAX_PATHS, "the configuration was checked");
        let list = Vec::with_capacity(MAX_PATHS + MAX_FOUND);
        let mut paths = Paths { list, active: 0, next: 0, interval, dead, rng };
        specs.iter().for_each(|spec| paths.add(now, Some(spec.pair), Some(spec.cost)));
        if specs.is_empty() {
            paths.add(now, None, None);
        }
        paths.tell_apart();
        paths
    }

    fn add(&mut self, now: Instant, pair: Option<AddressPair>, cost: Option<Duration>) {
        // The first takes the generator as it is: most links have no other.
        let rng = if self.list.is_empty() && self.next == 0 { self.rng.clone() } else { self.rng.fork() };
        while self.list.iter().any(|path| path.liveness.path() == self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let liveness = Liveness::new(now, self.next, self.interval, self.dead, rng);
        self.next = self.next.wrapping_add(1);
        let (rtt, loss) = (Rtt::new(), Loss::default());
        self.list.push(Path { pair, cost, liveness, rtt, loss, better_since: None, patience: STEADY });
    }

    /// Several listed paths, and found ones beside others, are told apart by their hellos.
    fn tell_apart(&mut self) {
        let listed = self.list.iter().filter(|path| path.cost.is_some()).count();
        let (several, alone) = (listed > 1, self.list.len() == 1);
        let active = self.active;
        for (place, path) in self.list.iter_mut().enumerate() {
            let candidate = path.cost.is_none() && !alone && place != active;
            path.liveness.set_several(several || candidate);
        }
    }

    pub(super) fn active(&self) -> &Path {
        &self.list[self.active]
    }

    pub(super) fn active_mut(&mut self) -> &mut Path {
        &mut self.list[self.active]
    }

    pub(super) const fn active_place(&self) -> usize {
        self.active
    }

    pub(super) fn get(&self, place: usize) -> &Path {
        &self.list[place]
    }

    pub(super) fn get_mut(&mut self, place: usize) -> &mut Path {
        &mut self.list[place]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.list.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Most that there can be.
    pub(super) const fn bound() -> usize {
        MAX_PATHS + MAX_FOUND
    }

    pub(super) fn reports(&self, now: Instant) -> impl Iterator<Item = PathReport> {
        let active = self.active;
        self.list.iter().enumerate().filter_map(move |(place, path)| path.report(now, place == active))
    }

    /// The path with these addresses.
    pub(super) fn find(&self, pair: AddressPair) -> Option<usize> {
        if self.active().pair == Some(pair) {
            return Some(self.active);
        }
        self.list.iter().position(|path| path.pair == Some(pair))
    }

    /// The path that a hello belongs to: the one of which it echoes a hello, else the one whose addresses it has.
    pub(super) fn of_hello(&self, hello: &Hello, by_address: usize) -> usize {
        let answered = self.list.iter().position(|path| path.liveness.path() == hello.echo_path);
        answered.filter(|_| hello.echo_ns != 0).unwrap_or(by_address)
    }

    /// The path with these addresses, from which something authentic came. One that was not known is asked from now on.
    pub(super) fn came_from(&mut self, now: Instant, pair: AddressPair) -> usize {
        if let Some(place) = self.find(pair) {
            return place;
        }
        if let Some(place) = self.list.iter().position(|path| path.pair.is_none()) {
            self.list[place].pair = Some(pair);
            return place;
        }
        let active = self.active;
        let found = |&(place, path): &(usize, &Path)| path.cost.is_none() && place != active;
        let others = self.list.iter().enumerate().filter(found);
        // One that is up stays while there is room, one that has not answered makes room.
        let silent = others.clone().find(|(_, path)| !path.is_up());
        let full = self.list.iter().filter(|path| path.cost.is_none()).count() >= MAX_FOUND;
        let replaced = silent.or_else(|| others.clone().next().filter(|_| full)).map(|(place, _)| place);
        if let Some(place) = replaced {
            self.remove(place);
        }
        self.add(now, Some(pair), None);
        let place = self.list.len() - 1;
        self.list[place].liveness.start(now, true);
        self.tell_apart();
        place
    }

    fn remove(&mut self, place: usize) {
        assert!(place != self.active, "the active path is left first");
        self.list.remove(place);
        self.active -= usize::from(place < self.active);
        self.tell_apart();
    }

    /// Forgets found paths that are down.
    pub(super) fn sweep(&mut self, now: Instant) {
        let gone = |(place, path): (usize, &Path)| {
            let quiet = path.liveness.heard().is_none_or(|at| now.since(at) > self.dead * 2);
            let asked = now.since(path.liveness.started()) > self.dead * 2;
            place != self.active && path.cost.is_none() && !path.is_up() && quiet && asked
        };
        if let Some(place) = self.list.iter().enumerate().position(gone) {
            self.remove(place);
        }
    }

    /// The other end starts anew, and spoke by the path in this place: the other paths that were found are its former life's.
    pub(super) fn restart(&mut self, now: Instant, place: usize) {
        self.active = place;
        for other in (0..self.list.len()).rev() {
            if other != self.active && self.list[other].cost.is_none() {
                self.remove(other);
            }
        }
        for path in &mut self.list {
            path.liveness.start(now, true);
            (path.rtt, path.loss, path.better_since) = (Rtt::new(), Loss::default(), None);
        }
        self.tell_apart();
    }

    /// Sends by the path in this place from now on; false if it did already.
    pub(super) fn activate(&mut self, place: usize) -> bool {
        for path in &mut self.list {
            path.better_since = None;
            path.liveness.calm_down();
        }
        let changed = std::mem::replace(&mut self.active, place) != place;
        self.tell_apart();
        changed
    }

    /// The active path died after so long a life.
    pub(super) fn mourn(&mut self, lived: Duration) {
        let path = self.active_mut();
        let before = if lived >= GOOD_LIFE { STEADY / 2 } else { path.patience };
        path.patience = (before * 2).min(LONGEST_PATIENCE);
    }

    /// Lists these paths and no others; what was measured of those that stay, stays. An active one that goes becomes one
    /// that was found, until there is a better.
    pub(super) fn list(&mut self, now: Instant, specs: &[PathSpec]) {
        assert!(specs.len() <= MAX_PATHS, "the configuration was checked");
        for place in (0..self.list.len()).rev() {
            let path = &mut self.list[place];
            path.cost = specs.iter().find(|spec| path.pair == Some(spec.pair)).map(|spec| spec.cost);
            if path.cost.is_none() && place != self.active {
                self.remove(place);
            }
        }
        for spec in specs.iter().filter(|spec| self.find(spec.pair).is_none()).copied().collect::<Vec<_>>() {
            self.add(now, Some(spec.pair), Some(spec.cost));
            self.list.last_mut().expect("it was just added").liveness.start(now, true);
        }
        let known = |place: usize| place != self.active && self.list[place].cost.is_some();
        if self.active().pair.is_none()
            && let Some(place) = (0..self.list.len()).find(|&place| known(place))
        {
            let unknown = std::mem::replace(&mut self.active, place);
            self.remove(unknown);
        }
        self.tell_apart();
    }

    /// The best of those that are up.
    pub(super) fn best_up(&self, now: Instant) -> Option<usize> {
        let up = self.list.iter().enumerate().filter(|(_, path)| path.is_up());
        up.min_by_key(|(_, path)| path.rank(now)).map(|(place, _)| place)
    }

    /// The path to leave the active one for, which is up.
    pub(super) fn choose(&mut self, now: Instant) -> Option<(usize, MoveReason)> {
        if let Some(place) = self.moved(now) {
            return Some((place, MoveReason::Roamed));
        }
        let (found, measure) = (self.active().cost.is_none(), self.active().measure(now));
        let (margin, active) = ((measure / MARGIN_PART).max(MARGIN), self.active);
        for (place, path) in self.list.iter_mut().enumerate() {
            let better = path.cost.is_some() && (found || path.measure(now) + margin <= measure);
            let counts = place != active && path.is_up() && better;
            path.better_since = counts.then(|| path.better_since.unwrap_or(now));
        }
        let steady = |path: &Path| path.better_since.is_some_and(|at| now.since(at) >= path.patience);
        let ready = self.list.iter().enumerate().filter(|(_, path)| steady(path));
        ready.min_by_key(|(_, path)| path.measure(now)).map(|(place, _)| (place, MoveReason::Better))
    }

    /// Where the other end speaks now, if it has fallen silent on the active path and either path was found. While
    /// another listed path is up, that is no reason to trust one that nobody listed.
    fn moved(&self, now: Instant) -> Option<usize> {
        let (active, pause) = (self.active(), self.interval + self.interval / 8);
        if active.liveness.heard().is_some_and(|at| now.since(at) <= pause * SILENT) {
            return None;
        }
        let others = self.list.iter().enumerate().filter(|&(place, path)| place != self.active && path.is_up());
        let speaks = others.filter(|(_, path)| path.liveness.heard().is_some_and(|at| now.since(at) <= pause));
        let (place, best) = speaks.min_by_key(|(_, path)| path.rank(now))?;
        (active.cost.is_none() || best.cost.is_none()).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Duration = Duration::from_millis(40);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn pair(last: u8) -> AddressPair {
        std::net::SocketAddr::from(([192, 0, 2, last], 5300)).into()
    }

    /// A bench of paths that are up, with these round trips, ms.
    struct Bench {
        paths: Paths,
        rtts: Vec<u64>,
        sequence: u32,
    }

    impl Bench {
        fn new(rtts: &[u64]) -> Bench {
            let specs: Vec<PathSpec> = (0..rtts.len()).map(|last| pair(last as u8).into()).collect();
            let mut paths = Paths::new(at(0), &specs, HELLO, HELLO * 7, Rng::from_u64(1));
            for path in paths.iter_mut() {
                path.liveness.start(at(0), true);
                path.liveness.set_up(at(0), true);
            }
            Bench { paths, rtts: rtts.to_vec(), sequence: 0 }
        }

        /// Every path is heard that has a round trip; moves as chosen and says when and where to.
        fn run(&mut self, from: u64, to: u64) -> Vec<(u64, usize, MoveReason)> {
            let mut moves = Vec::new();
            for ms in (from..to).step_by(HELLO.as_millis() as usize) {
                self.sequence += 1;
                for (place, &rtt) in self.rtts.iter().enumerate().filter(|(_, rtt)| **rtt > 0) {
                    let path = self.paths.get_mut(place);
                    path.rtt.sample(at(ms), Duration::from_millis(rtt));
                    let hello = Hello {
                        hears_you: true,
                        several: true,
                        workers: 1,
                        path: 9,
                        sequence: self.sequence,
                        interval_us: 40_000,
                        sent_ns: 1,
                        echo_path: path.liveness.path(),
                        echo_ns: ms,
                        echo_delay_us: 0,
                    };
                    path.liveness.on_hello(at(ms), &hello, true);
                }
                if let Some((place, reason)) = self.paths.choose(at(ms)) {
                    self.paths.activate(place);
                    moves.push((ms, place, reason));
                }
            }
            moves
        }
    }

    #[test]
    fn a_better_path_is_used_once_it_has_been_better_for_long_enough() {
        let mut bench = Bench::new(&[40, 10]);
        assert_eq!(bench.run(1000, 6000), [(3000, 1, MoveReason::Better)]);
        // Better by less than the margin, or for less than the time, is no reason.
        let mut bench = Bench::new(&[40, 34]);
        assert_eq!(bench.run(1000, 20_000), []);
        let mut bench = Bench::new(&[40, 10]);
        for round in 0..20 {
            let begin = 1000 + round * 30_000;
            bench.rtts = vec![40, 10];
            assert_eq!(bench.run(begin, begin + 1960), [], "round {round}");
            bench.rtts = vec![40, 60];
            bench.paths.get_mut(1).rtt = Rtt::new();
            assert_eq!(bench.run(begin + 1960, begin + 30_000), [], "round {round}");
        }
    }

    #[test]
    fn losses_and_costs_count() {
        let mut bench = Bench::new(&[20, 24]);
        (0..2000).for_each(|_| bench.paths.get_mut(0).loss.hello(1));
        assert_eq!(bench.run(1000, 6000).len(), 1, "half of its packets are lost");
        let mut bench = Bench::new(&[20, 8]);
        bench.paths.get_mut(1).cost = Some(Duration::from_millis(50));
        assert_eq!(bench.run(1000, 9000), []);
    }

    #[test]
    fn a_path_that_dies_again_and_again_waits_ever_longer_and_a_good_life_mends_that() {
        let mut bench = Bench::new(&[10, 40]);
        let mut now = 1000;
        for patience in [4, 8, 16, 32, 64, 64] {
            bench.paths.mourn(Duration::from_secs(1));
            bench.paths.activate(1);
            let moves = bench.run(now, now + 70_000);
            let waited = moves[0].0 - now;
            assert_eq!((moves[0].1, waited / 1000), (0, patience), "{moves:?}");
            now += 70_000;
        }
        bench.paths.mourn(GOOD_LIFE);
        bench.paths.activate(1);
        assert_eq!(bench.run(now, now + 3000), [(now + 2000, 0, MoveReason::Better)]);
    }

    #[test]
    fn where_the_other_end_has_moved_is_used_when_it_is_silent_where_it_was() {
        let mut bench = Bench::new(&[20]);
        bench.run(1000, 2000);
        let place = bench.paths.came_from(at(2000), pair(9));
        bench.paths.get_mut(place).liveness.set_up(at(2000), true);
        bench.rtts = vec![20, 20];
        assert_eq!(bench.run(2000, 9000), [], "who speaks at both places has not moved");
        bench.rtts = vec![0, 20];
        assert_eq!(bench.run(9000, 10_000), [(9080, 1, MoveReason::Roamed)]);
        bench.rtts = vec![20, 20];
        assert_eq!(bench.run(10_000, 15_000), [(11_120, 0, MoveReason::Better)], "where the configuration says");
        // Beside another listed path that speaks, nobody needs one that was found.
        let mut bench = Bench::new(&[20, 30]);
        let place = bench.paths.came_from(at(1000), pair(9));
        bench.paths.get_mut(place).liveness.set_up(at(1000), true);
        bench.rtts = vec![20, 30, 5];
        assert_eq!(bench.run(1000, 2000), []);
        bench.rtts = vec![0, 30, 5];
        assert_eq!(bench.run(2000, 2200), []);
    }

    #[test]
    fn those_who_do_not_answer_take_no_room() {
        let mut bench = Bench::new(&[20, 30, 40, 50]);
        for last in 10..200 {
            let place = bench.paths.came_from(at(1000), pair(last));
            assert_eq!(bench.paths.find(pair(last)), Some(place));
            assert!(bench.paths.len() <= Paths::bound());
        }
        assert_eq!(bench.paths.len(), 5, "the last of them is asked");
        bench.paths.sweep(at(1500));
        assert_eq!(bench.paths.len(), 5);
        bench.paths.sweep(at(1600));
        assert_eq!((bench.paths.len(), bench.paths.active_place()), (4, 0));
    }

    #[test]
    fn a_link_without_paths_is_where_it_is_called_from() {
        let mut paths = Paths::new(at(0), &[], HELLO, HELLO * 7, Rng::from_u64(1));
        assert_eq!((paths.active().pair(), paths.len()), (None, 1));
        assert_eq!((paths.came_from(at(1), pair(1)), paths.len()), (0, 1));
        paths.sweep(at(9_000));
        assert_eq!(paths.active().pair(), Some(pair(1)), "the only one is not forgotten");
        paths.list(at(9_500), &[pair(2).into(), pair(3).into()]);
        assert_eq!((paths.active().pair(), paths.len()), (Some(pair(1)), 3));
        let ages: Vec<Duration> = paths.reports(at(9_600)).map(|report| report.since).collect();
        assert_eq!(ages, [9_600, 100, 100].map(Duration::from_millis), "each is as old as it is known");
        paths.get_mut(2).liveness.set_up(at(9_700), true);
        assert_eq!(paths.best_up(at(9_700)), Some(2));
    }
}
