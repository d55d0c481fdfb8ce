//! What goes wrong, when, and for how long.

use super::super::clock;
use super::super::conditions::Conditions;
use super::super::world::{ClockShift, Router, World};
use super::load::Load;
use super::{ANCHORS, MEAN_PAUSE, spared};
use crate::base::Rng;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Datagrams of a flood, a second.
const FLOOD_RATE: u32 = 20_000;
/// A clock that jumps does so by at least this, s.
const LEAST_JUMP: i64 = 60;
/// And by at most this: a month.
const MOST_JUMP: i64 = 30 * 24 * 3600;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    /// As [`Kind::Kill`], but the next process finds that the monotonic clock and the clock since boot have jumped, forth
    /// or back, as after a reboot or a move to another machine. No more can be done to a clock from outside: that of a
    /// process that runs cannot be stepped, and the wall clock is everybody's.
    Clock,
    Freeze,
    Cut,
    HalfCut,
    Loss,
    Corrupt,
    Disorder,
    Flood,
    /// The configuration file changes and is read again; so it is when this is over, as it was before.
    Reload,
}

const KINDS: [Kind; 10] = [
    Kind::Kill,
    Kind::Clock,
    Kind::Freeze,
    Kind::Cut,
    Kind::HalfCut,
    Kind::Loss,
    Kind::Corrupt,
    Kind::Disorder,
    Kind::Flood,
    Kind::Reload,
];

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill -9 and restart",
            Kind::Clock => "restart with other clocks",
            Kind::Freeze => "SIGSTOP",
            Kind::Cut => "link cut",
            Kind::HalfCut => "link cut one way",
            Kind::Loss => "loss burst",
            Kind::Corrupt => "corrupted datagrams",
            Kind::Disorder => "reordering and duplication",
            Kind::Flood => "garbage flood",
            Kind::Reload => "SIGHUP with another file",
        }
    }

    /// How long it lasts, at least and at most, ms.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Kind::Kill | Kind::Clock => (50, 2_000),
            Kind::Freeze => (50, 4_000),
            Kind::Cut | Kind::HalfCut => (50, 3_000),
            Kind::Loss | Kind::Corrupt | Kind::Disorder => (300, 3_000),
            Kind::Flood => (200, 1_000),
            Kind::Reload => (500, 3_000),
        }
    }

    /// Whether the router's process ends.
    const fn kills(self) -> bool {
        matches!(self, Kind::Kill | Kind::Clock)
    }
}

/// What a fault has struck.
#[derive(Debug)]
enum Victim {
    Router(usize),
    /// The conditions it had before.
    Link(usize, Conditions, Conditions),
}

/// A fault not yet mended.
#[derive(Debug)]
struct Open {
    kind: Kind,
    until: Duration,
    victim: Victim,
    more: More,
}

/// What else must be undone.
#[derive(Debug)]
enum More {
    Nothing,
    Flood(Flood),
    /// The configuration as it was.
    File(String),
}

/// The faults of a run.
pub(super) struct Script<'w> {
    world: &'w World,
    load: &'w Load,
    rng: Rng,
    /// How long the run is, s: who is spared when follows from it.
    seconds: u64,
    next: Duration,
    /// The kinds that strike here.
    kinds: Vec<Kind>,
    /// Kinds in the order in which they will strike, the next one last: each once before any strikes again.
    deck: Vec<Kind>,
    open: Vec<Open>,
    struck: BTreeMap<&'static str, u64>,
    not_possible: BTreeMap<&'static str, String>,
    journal: String,
    /// Routers whose process may be a new one at the next look.
    killed: Vec<usize>,
    /// What routers must say in their logs, for their files were changed.
    reloads: Vec<(usize, String)>,
}

impl<'w> Script<'w> {
    pub(super) fn new(world: &'w World, load: &'w Load, rng: Rng, seconds: u64) -> Script<'w> {
        let mut kinds = KINDS.to_vec();
        let mut not_possible = BTreeMap::new();
        if let Err(error) = world.routers()[0].can_shift_clocks() {
            kinds.retain(|&kind| kind != Kind::Clock);
            not_possible.insert(Kind::Clock.name(), error.to_string());
        }
        let mut script = Script {
            world,
            load,
            rng,
            seconds,
            // The first fault waits until traffic flows.
            next: Duration::from_secs(1),
            deck: Vec::with_capacity(kinds.len()),
            open: Vec::new(),
            struck: kinds.iter().map(|kind| (kind.name(), 0)).collect(),
            not_possible,
            kinds,
            journal: String::new(),
            killed: Vec::new(),
            reloads: Vec::new(),
        };
        script.shuffle();
        // A run of seconds has it too.
        script.deck.sort_by_key(|&kind| kind == Kind::Clock);
        script
    }

    /// Kinds that cannot strike here, and why.
    pub(super) const fn not_possible(&self) -> &BTreeMap<&'static str, String> {
        &self.not_possible
    }

    fn shuffle(&mut self) {
        self.deck.extend_from_slice(&self.kinds);
        for place in (1..self.deck.len()).rev() {
            self.deck.swap(place, self.rng.below(place as u64 + 1) as usize);
        }
    }

    fn next_kind(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.shuffle();
        }
        self.deck.pop().expect("there are kinds that are always possible")
    }

    /// Mends what is due and strikes if it is time.
    pub(super) fn turn(&mut self, now: Duration) -> io::Result<()> {
        while let Some(place) = self.open.iter().position(|open| open.until <= now) {
            let open = self.open.swap_remove(place);
            self.mend(now, open)?;
        }
        while self.next <= now {
            let pause = -MEAN_PAUSE.as_secs_f64() * (1.0 - self.rng.unit()).ln();
            self.next += Duration::from_secs_f64(pause);
            self.strike(now)?;
        }
        Ok(())
    }

    /// Mends everything.
    pub(super) fn mend_all(&mut self) -> io::Result<()> {
        for open in std::mem::take(&mut self.open) {
            let until = open.until;
            self.mend(until, open)?;
        }
        Ok(())
    }

    /// Faults so far.
    pub(super) fn struck(&self) -> u64 {
        self.struck.values().sum()
    }

    /// Routers that were killed since the last time this was asked, or are dead: their processes may end.
    pub(super) fn excused(&mut self) -> Vec<usize> {
        let dead = self.open.iter().filter_map(|open| match open.victim {
            Victim::Router(router) if open.kind.kills() => Some(router),
            _ => None,
        });
        let mut excused: Vec<usize> = dead.collect();
        excused.append(&mut self.killed);
        excused
    }

    /// Changed files of which a router did not say that it took them up.
    pub(super) fn unheeded(&self) -> Vec<String> {
        let unheeded = self.reloads.iter().filter_map(|(router, said)| {
            let router = &self.world.routers()[*router];
            let heeded = router.log().contains(said.as_str());
            (!heeded).then(|| format!("router {}: never said after SIGHUP: {said}", router.name()))
        });
        unheeded.collect()
    }

    /// How often each fault struck, and the journal.
    pub(super) fn into_records(self) -> (BTreeMap<&'static str, u64>, String) {
        (self.struck, self.journal)
    }

    fn strike(&mut self, now: Duration) -> io::Result<()> {
        let kind = self.next_kind();
        let (least, most) = kind.lasts();
        let lasts = Duration::from_millis(least + self.rng.below(most - least + 1));
        let struck = match kind {
            Kind::Kill | Kind::Clock | Kind::Freeze | Kind::Flood | Kind::Reload => self.strike_router(now, kind)?,
            _ => self.strike_link(kind),
        };
        // Everything of that sort is in trouble already.
        let Some((victim, name, more)) = struck else { return Ok(()) };
        *self.struck.entry(kind.name()).or_default() += 1;
        self.note(now, &format!("{} at {name} for {} ms", kind.name(), lasts.as_millis()));
        self.open.push(Open { kind, until: now + lasts, victim, more });
        Ok(())
    }

    fn strike_router(&mut self, now: Duration, kind: Kind) -> io::Result<Option<(Victim, String, More)>> {
        let routers = self.world.routers();
        let spared = spared(now, self.seconds);
        let fit = |&router: &usize| {
            let busy = self.open.iter().any(|open| matches!(open.victim, Victim::Router(other) if other == router));
            !busy && {
                let name = routers[router].name();
                !kind.kills() || !(ANCHORS.contains(&name) || spared.contains(&name))
            }
        };
        let fit: Vec<usize> = (0..routers.len()).filter(fit).collect();
        let Some(router) = self.choose(&fit) else { return Ok(None) };
        let mut more = More::Nothing;
        let mut name = routers[router].name().to_owned();
        match kind {
            Kind::Kill | Kind::Clock => {
                self.killed.push(router);
                self.load.note_kill(routers[router].name());
                routers[router].kill();
            }
            Kind::Freeze => routers[router].stop(),
            Kind::Reload => {
                let before = std::fs::read_to_string(routers[router].config())?;
                let (after, said) = changed(&before, &mut self.rng);
                std::fs::write(routers[router].config(), after)?;
                routers[router].signal(libc::SIGHUP);
                name += &format!(" ({said})");
                self.reloads.push((router, said));
                more = More::File(before);
            }
            _ => more = More::Flood(Flood::start(self.world, router, self.rng.fork())?),
        }
        Ok(Some((Victim::Router(router), name, more)))
    }

    fn strike_link(&mut self, kind: Kind) -> Option<(Victim, String, More)> {
        let busy = |place: usize| {
            self.open.iter().any(|open| matches!(open.victim, Victim::Link(other, ..) if other == place))
        };
        let fit: Vec<usize> = (0..self.world.links().count()).filter(|&place| !busy(place)).collect();
        let place = self.choose(&fit)?;
        let link = self.world.links().nth(place).expect("chosen from as many");
        let (forward, back) = link.conditions();
        let change = |conditions: Conditions| match kind {
            Kind::Loss => Conditions { loss_burst: 8.0, ..conditions.losing(30.0) },
            Kind::Corrupt => Conditions { corrupt_percent: 20.0, ..conditions },
            Kind::Disorder => Conditions { reorder_percent: 20.0, duplicate_percent: 20.0, ..conditions },
            _ => Conditions { cut: true, ..conditions },
        };
        link.set_forward(change(forward));
        if kind != Kind::HalfCut {
            link.set_back(change(back));
        }
        let (one, other) = link.between();
        Some((Victim::Link(place, forward, back), format!("{one}-{other}"), More::Nothing))
    }

    fn choose(&mut self, among: &[usize]) -> Option<usize> {
        let place = self.rng.below(among.len().max(1) as u64) as usize;
        among.get(place).copied()
    }

    fn mend(&mut self, now: Duration, open: Open) -> io::Result<()> {
        let name = match open.victim {
            Victim::Router(router) => {
                let router = &self.world.routers()[router];
                match open.kind {
                    Kind::Kill => router.start()?,
                    Kind::Clock => {
                        let shift = clock_shift(&mut self.rng, clock::now().as_nanos() / 1_000_000_000);
                        router.start_with_clocks(shift)?;
                        let ClockShift { monotonic, boottime } = shift;
                        self.note(
                            now,
                            &format!("clocks at {}: monotonic {monotonic:+} s, boottime {boottime:+} s", router.name()),
                        );
                    }
                    Kind::Freeze => router.cont(),
                    _ => match open.more {
                        More::File(before) => {
                            std::fs::write(router.config(), before)?;
                            router.signal(libc::SIGHUP);
                        }
                        More::Flood(flood) => drop(flood),
                        More::Nothing => {}
                    },
                }
                router.name().to_owned()
            }
            Victim::Link(place, forward, back) => {
                let link = self.world.links().nth(place).expect("struck before");
                link.set_forward(forward);
                link.set_back(back);
                format!("{}-{}", link.between().0, link.between().1)
            }
        };
        self.note(now, &format!("{} at {name} is over", open.kind.name()));
        Ok(())
    }

    fn note(&mut self, now: Duration, what: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.journal, "{:9.3} s  {what}", now.as_secs_f64());
    }
}

/// A configuration with another queue on some link, without some link, or with another metric; and what a router says
/// that takes it up.
fn changed(config: &str, rng: &mut Rng) -> (String, String) {
    const LINK: &str = "\n[[link]]\n";
    let mut parts: Vec<String> = config.split(LINK).map(str::to_owned).collect();
    assert!(parts.len() > 2, "a router here has two links or more");
    let place = 1 + rng.below(parts.len() as u64 - 1) as usize;
    let peer = parts[place].lines().find_map(|line| line.strip_prefix("peer = \"")?.strip_suffix('"'));
    let peer = peer.expect("every link names its peer").to_owned();
    let said = match rng.below(3) {
        0 => {
            parts[place] += &format!("queue = {}\n", 100 + rng.below(400));
            format!("link to `{peer}` restarts")
        }
        1 => {
            parts.remove(place);
            format!("link to `{peer}` removed")
        }
        _ => {
            parts[0] = parts[0].replacen("\n[[member]]", "\n[routing]\nmetric = \"hops\"\n\n[[member]]", 1);
            "routing metric is now `hops`".to_owned()
        }
    };
    (parts.join(LINK), said)
}

/// Clocks that jumped by minutes or by days, forth or back, on a machine that has run for so long, s.
fn clock_shift(rng: &mut Rng, uptime: u64) -> ClockShift {
    let (least, most) = (LEAST_JUMP as f64, MOST_JUMP as f64);
    let far = (least * (most / least).powf(rng.unit())) as i64;
    // No clock goes back to before zero.
    let back = far.min(i64::try_from(uptime).unwrap_or(i64::MAX) / 2);
    let monotonic = if rng.chance(0.5) { far } else { -back };
    // The clock since boot has gone on while the machine slept.
    let slept = rng.below(LEAST_JUMP as u64 * 60) as i64;
    ClockShift { monotonic, boottime: monotonic + slept }
}

/// Garbage sent to every address a router listens at, from a neighbour's machine, until it is dropped.
#[derive(Debug)]
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(world: &World, victim: usize, rng: Rng) -> io::Result<Flood> {
        let victim = &world.routers()[victim];
        let from = world.routers().iter().find(|router| router.name() != victim.name());
        let from = from.expect("a world of six has another router");
        let socket = from.inside(|| UdpSocket::bind("0.0.0.0:0"))?;
        let to = target(victim);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let work = move || flood(&socket, to, rng, &asked);
        let thread = std::thread::Builder::new().name("lab-flood".into()).spawn(work)?;
        Ok(Flood { stop, thread: Some(thread) })
    }
}

/// Where a router hears strangers.
fn target(router: &Router) -> SocketAddr {
    SocketAddr::new(router.address().into(), super::super::world::LISTEN_PORT)
}

fn flood(socket: &UdpSocket, to: SocketAddr, mut rng: Rng, stop: &AtomicBool) {
    let mut bytes = [0; 1400];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..FLOOD_RATE / 100 {
            let len = 1 + rng.below(1400) as usize;
            rng.fill(&mut bytes[..len.min(64)]);
            // Half begin as a packet of ours may: a small type and nothing else known.
            if rng.chance(0.5) {
                bytes[0] = rng.below(8) as u8;
            }
            // What the kernel will not take is a flood less.
            let _ = socket.send_to(&bytes[..len], to);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a flood does not panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_differs_in_what_it_says() {
        let config = "name = \"b\"\n\n[workers]\ncount = 1\n\n[[member]]\nname = \"a\"\n\n[[link]]\npeer = \"a\"\n\n\
                      [[link]]\npeer = \"c\"\n";
        let mut rng = Rng::from_u64(3);
        let all: std::collections::BTreeSet<String> = (0..100)
            .map(|_| {
                let (text, said) = changed(config, &mut rng);
                let links = text.matches("[[link]]").count();
                match said.as_str() {
                    "routing metric is now `hops`" => {
                        assert!(text.contains("[routing]\nmetric = \"hops\"") && links == 2)
                    }
                    "link to `a` removed" => assert!(!text.contains("peer = \"a\"") && links == 1),
                    "link to `c` removed" => assert!(!text.contains("peer = \"c\"") && links == 1),
                    "link to `a` restarts" => assert!(text.contains("peer = \"a\"\nqueue = ") && links == 2),
                    "link to `c` restarts" => assert!(text.contains("peer = \"c\"\nqueue = ") && links == 2),
                    other => panic!("{other}"),
                }
                said
            })
            .collect();
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn clocks_jump_by_minutes_to_days_both_ways_and_never_to_before_zero() {
        let mut rng = Rng::from_u64(5);
        let shifts: Vec<ClockShift> = (0..1000).map(|_| clock_shift(&mut rng, 100_000)).collect();
        let count = |fits: fn(i64) -> bool| shifts.iter().filter(|shift| fits(shift.monotonic)).count();
        assert!(count(|s| s < 0) > 300 && count(|s| s > 0) > 300);
        assert!(count(|s| s.abs() < 600) > 50 && count(|s| s > 7 * 24 * 3600) > 20);
        assert_eq!(count(|s| !(-50_000..=MOST_JUMP).contains(&s) || s.abs() < LEAST_JUMP), 0);
        assert!(shifts.iter().all(|shift| shift.boottime >= shift.monotonic));
    }
}
