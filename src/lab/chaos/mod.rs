//! `sinew lab --chaos`: six real routers, checked traffic, and one fault after another.
//!
//! ```text
//!        b ──── c
//!      / │      │ \        a and d are the ends of the anchored traffic and are never killed;
//!    a   │      │   d      everything else may happen to them too.
//!      \ │      │ /
//!        f ──── e
//! ```
//!
//! - `faults` strike at random times (Poisson), overlap, and are mended after a while.
//! - `load` is streams and datagrams whose every byte is known beforehand, so that one wrong, missing or repeated byte
//!   is noticed where it arrives.
//! - `watch` looks at the routers from outside: memory, descriptors, processes that ended by themselves, logs.
//!
//! In a run of ten minutes or more each router but the anchors is spared from kills for half of it, two at a time, so that
//! everyone's memory can be judged; descriptors are judged of everyone at the end, in runs of any length.
//!
//! When the time is over everything is mended; then what was accepted must arrive. The findings go to `chaos.json`, the
//! journal of faults to `chaos.log`. A kind of fault that this machine does not allow is said, and counted as not
//! possible. The wall clock is left alone: it is one for the whole machine, whatever namespace it is read in.

mod faults;
mod load;
mod watch;

use super::args::Args;
use super::clock;
use super::conditions::Conditions;
use super::flows::Board;
use super::ladder::Mode;
use super::progress::Voice;
use super::topology::{LinkSpec, Topology};
use super::world::{Router, World};
use crate::base::Rng;
use crate::telemetry::table::Table;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long it goes on unless told otherwise.
const SECONDS: u64 = 60;
/// Mean time from fault to fault.
const MEAN_PAUSE: Duration = Duration::from_millis(1500);
/// How long what was accepted may take to arrive once everything is whole.
const PATIENCE: Duration = Duration::from_secs(60);
/// From look to look at the routers.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The routers that are never killed.
const ANCHORS: [&str; 2] = ["a", "d"];
/// The others: in a run of [`ALL_JUDGED`] or more no process of the first two is killed in its first half, none of the
/// last two in its second, so that all live long enough for their memory to be judged while kills strike throughout.
const SPARED: [[&str; 2]; 2] = [["b", "e"], ["c", "f"]];
/// A run that is long enough for that, s.
const ALL_JUDGED: u64 = 600;
// Half of it is what judging takes, and time to start a router that was killed just before.
const _: () = assert!(ALL_JUDGED / 2 >= watch::WARM + watch::JUDGED + 15);

/// Who beside the anchors is not killed at this time of a run.
fn spared(now: Duration, seconds: u64) -> &'static [&'static str] {
    match seconds >= ALL_JUDGED {
        true => &SPARED[usize::from(now.as_secs() >= seconds / 2)],
        false => &[],
    }
}

/// What came of it: `chaos.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// What was promised and did not hold; empty if all went well.
    pub violations: Vec<String>,
    /// How long faults struck, s.
    pub seconds: u64,
    /// Every fault and its time followed from it.
    pub seed: u64,
    /// How often each fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults that cannot strike on this machine, and why.
    pub not_possible: BTreeMap<&'static str, String>,
    /// Whether some router lived long enough for the growth of its memory to mean anything.
    pub memory_judged: bool,
    /// Routers none of whose processes lived long enough for that.
    pub memory_not_judged: Vec<String>,
    /// Routers whose descriptors were not compared at the end with those before all traffic.
    pub descriptors_not_judged: Vec<String>,
    /// The traffic.
    pub traffic: load::Totals,
    /// Every process of a router that was watched.
    pub processes: Vec<watch::Process>,
}

/// Runs it. The error is what kept it from running; broken promises are in the findings.
pub(super) fn run(args: &Args, mode: Mode, board: &Arc<Board>) -> io::Result<Findings> {
    let voice = Voice::new(args.quiet);
    let seconds = args.seconds.unwrap_or(SECONDS);
    let world = World::with_mode(&topology(args), mode)?;
    world.start(Duration::from_secs(30))?;
    voice.say(format!("six routers run; faults for {seconds} s, seed {}", args.seed()));
    let mut watch = watch::Watch::new(&world, Duration::from_secs(seconds));
    let load = load::Load::new(args.seed());
    let mut script = faults::Script::new(&world, &load, Rng::from_u64(args.seed()), seconds);
    let not_possible = script.not_possible().clone();
    not_possible.iter().for_each(|(name, why)| voice.say(format!("not possible here: {name} ({why})")));
    let mut hangs = false;
    let stuck = std::thread::scope(|scope| -> io::Result<Option<io::Error>> {
        // The scope waits for its threads: they must end also if this fails.
        let _ended = load.stop_at_end();
        load.start(scope, &world)?;
        trouble(&mut script, &mut watch, seconds, voice, board)?;
        script.mend_all()?;
        voice.say("everything is whole again; waiting for what is under way");
        let stuck = world.wait_ready(PATIENCE).err();
        hangs = !load.finish(PATIENCE);
        if hangs {
            // Whoever waits for a stream that hangs would wait for ever.
            world.routers().iter().for_each(Router::kill);
        }
        Ok(stuck)
    })?;
    let killed = if hangs { (0..world.routers().len()).collect() } else { script.excused() };
    watch.look_at_end(killed);
    let mut violations = load.violations();
    violations.extend(script.unheeded());
    let (faults, journal) = script.into_records();
    violations.extend(watch.violations());
    violations.extend(stuck.map(|error| format!("{PATIENCE:?} after all was whole again: {error}")));
    let processes = watch.into_processes();
    let without = |judged: fn(&watch::Process) -> bool| -> Vec<String> {
        let names = world.routers().iter().map(Router::name);
        let fits = |name: &&str| !processes.iter().any(|process| process.router == *name && judged(process));
        names.filter(fits).map(str::to_owned).collect()
    };
    let memory_not_judged = without(|process| process.memory_judged);
    let descriptors_not_judged = without(|process| process.descriptors_expected.is_some());
    let findings = Findings {
        violations,
        seconds,
        seed: args.seed(),
        faults,
        not_possible,
        memory_judged: memory_not_judged.len() < world.routers().len(),
        memory_not_judged,
        descriptors_not_judged,
        traffic: load.totals(),
        processes,
    };
    write(&args.out, &findings, &journal)?;
    if !findings.violations.is_empty() {
        for router in world.routers() {
            std::fs::write(args.out.join(format!("{}.log", router.name())), router.log())?;
        }
    }
    Ok(findings)
}

fn topology(args: &Args) -> Topology {
    let wire = Conditions { jitter_ms: 0.5, ..Conditions::wire(3.0, 20_000).losing(0.5) };
    let pairs = [("a", "b"), ("a", "f"), ("b", "c"), ("b", "f"), ("c", "d"), ("c", "e"), ("e", "d"), ("e", "f")];
    let links = pairs.iter().map(|(one, other)| LinkSpec::new(one, other, wire)).collect();
    let mut topology = Topology::new(&["a", "b", "c", "d", "e", "f"], links);
    topology.seed = args.seed();
    topology.io.clone_from(&args.io);
    topology
}

/// Lets faults strike and be mended until the time is over.
fn trouble(
    script: &mut faults::Script<'_>,
    watch: &mut watch::Watch<'_>,
    seconds: u64,
    voice: Voice,
    board: &Board,
) -> io::Result<()> {
    let start = clock::now();
    let end = start + Duration::from_secs(seconds);
    let (mut look, mut say) = (start, start + Duration::from_secs(10));
    loop {
        let now = clock::now();
        if board.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if now >= end {
            return Ok(());
        }
        script.turn(now.since(start))?;
        if now >= look {
            watch.look(now.since(start), script.excused());
            look = now + LOOK_EVERY;
        }
        if now >= say {
            voice.say(format!("{} of {seconds} s, {} faults", now.since(start).as_secs(), script.struck()));
            say = now + Duration::from_secs(10);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write(dir: &Path, findings: &Findings, journal: &str) -> io::Result<()> {
    let in_dir = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
    let json = serde_json::to_string_pretty(findings).map_err(io::Error::other)?;
    std::fs::write(dir.join("chaos.json"), json).map_err(in_dir)?;
    std::fs::write(dir.join("chaos.log"), journal).map_err(in_dir)
}

/// The findings for people.
pub(super) fn render(findings: &Findings) -> String {
    let mut text = String::new();
    let mut table = Table::new(["fault", ">struck"]);
    findings.faults.iter().for_each(|(name, count)| table.row([(*name).to_owned(), count.to_string()]));
    findings.not_possible.iter().for_each(|(name, _)| table.row([(*name).to_owned(), "not possible".into()]));
    let traffic = &findings.traffic;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{table}");
    let _ = writeln!(
        text,
        "streams: {} opened, {} carried whole, {} broken because an end was killed, {:.1} MB checked\n\
         datagrams: {} reliable ones sent, {} received, each once and in order\n",
        traffic.streams_opened,
        traffic.streams_whole,
        traffic.streams_excused,
        traffic.stream_bytes as f64 / 1e6,
        traffic.datagrams_sent,
        traffic.datagrams_received
    );
    let mut table = Table::new([
        "router",
        ">pid",
        ">lived s",
        ">memory KiB",
        ">growth %",
        ">descriptors",
        ">expected",
        "judged for",
    ]);
    for process in findings.processes.iter().filter(|process| process.is_telling()) {
        table.row([
            process.router.clone(),
            process.pid.to_string(),
            process.lived_s.to_string(),
            process.rss_last_kib.to_string(),
            process.growth_percent().map_or("-".into(), |growth| format!("{growth:.2}")),
            process.descriptors_last.map_or("-".into(), |count| count.to_string()),
            process.descriptors_expected.map_or("-".into(), |count| format!("<= {count}")),
            process.judged_for().to_owned(),
        ]);
    }
    let _ = writeln!(text, "{table}");
    if !findings.memory_not_judged.is_empty() {
        let (names, alive) = (findings.memory_not_judged.join(", "), watch::WARM + watch::JUDGED);
        text += &format!(
            "memory of {names} was watched and not judged: that takes a process that lived {alive} s; all have one with \
             --seconds {ALL_JUDGED} or more, a and d with 300\n"
        );
    }
    if !findings.descriptors_not_judged.is_empty() {
        text += &format!("descriptors of {} were not judged\n", findings.descriptors_not_judged.join(", "));
    }
    match findings.violations.as_slice() {
        [] => text += "nothing promised was broken\n",
        broken => broken.iter().for_each(|line| text += &format!("BROKEN: {line}\n")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_spares_everyone_for_long_enough_and_always_has_someone_to_kill() {
        for seconds in [600, 601, 3600] {
            for router in ["b", "c", "e", "f"] {
                let spared = (0..seconds).filter(|&at| spared(Duration::from_secs(at), seconds).contains(&router));
                let times: Vec<u64> = spared.collect();
                assert!(times.len() as u64 >= 285, "{router} in {seconds} s: {}", times.len());
                assert!(times.windows(2).all(|pair| pair[1] == pair[0] + 1), "{router}: at one go");
            }
            assert!((0..seconds).all(|at| spared(Duration::from_secs(at), seconds).len() == 2));
        }
        assert!((0..599).all(|at| spared(Duration::from_secs(at), 599).is_empty()), "short runs kill all they can");
    }
}
