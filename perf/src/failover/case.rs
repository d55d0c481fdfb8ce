//! What happens to the owner of an address, and what the client sees of it.

use super::group::Group;
use super::lan::{Answer, Traffic, Trail};
use super::report::Trial;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Case {
    /// The owner's daemon is killed
    Kill,
    /// The owner's daemon is stopped
    Freeze,
    /// The owner's cable carries nothing, and nobody is told
    Cut,
    /// The owner's cable is out
    Carrier,
    /// The owner's daemon is asked to end
    Term,
    /// The address is moved by order
    Move,
    /// The owner is drained by order
    Drain,
    /// A cut heals
    Merge,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Case::Kill => "kill",
            Case::Freeze => "freeze",
            Case::Cut => "cut",
            Case::Carrier => "carrier",
            Case::Term => "term",
            Case::Move => "move",
            Case::Drain => "drain",
            Case::Merge => "merge",
        })
    }
}

/// How long the client is watched before anything happens.
const CALM: Duration = Duration::from_millis(300);
/// After this long without an answer the client has lost the address.
const MOST: Duration = Duration::from_secs(15);
/// Packets a second where none may be lost: in an orderly end, a move, a drain. Elsewhere a thousand.
const DENSE: u32 = 10_000;
/// What nobody answers for as long as this is not answered now.
const NOW: Duration = Duration::from_millis(100);

/// Tries it once. The group is as it was before when this returns.
pub(super) fn attempt(case: Case, group: &mut dyn Group) -> io::Result<Trial> {
    let owner = group.steady()?;
    if case == Case::Merge {
        group.lan().cut(owner, true);
        // Both sides have it, and the client is with the other.
        watched(group, || ())?;
    }
    let dense = matches!(case, Case::Term | Case::Move | Case::Drain);
    let traffic = match dense {
        true => group.lan().traffic(group.address(), DENSE),
        false => group.lan().probes(group.address()),
    };
    // At the dense rate the machine has nothing to spare for them.
    let witnesses = if dense { Vec::new() } else { group.lan().witnesses(group.address()) };
    std::thread::sleep(CALM);
    let struck = Instant::now();
    match case {
        Case::Cut => group.lan().cut(owner, true),
        Case::Merge => group.lan().cut(owner, false),
        Case::Carrier => group.lan().plug(owner, false),
        Case::Kill | Case::Freeze | Case::Term | Case::Move | Case::Drain => group.strike(case, owner)?,
    }
    std::thread::sleep(group.patience());
    while !traffic.answers_within(NOW) && struck.elapsed() < MOST {}
    let end = Instant::now();
    let trail = traffic.finish();
    let both = both_answered(&witnesses.into_iter().map(Traffic::finish).collect::<Vec<_>>(), struck);
    // What is left of an owner after a fault is asked before anything is mended.
    let answerers = group.lan().answerers(group.address()).len();
    match case {
        Case::Cut => group.lan().cut(owner, false),
        Case::Carrier => group.lan().plug(owner, true),
        Case::Kill | Case::Freeze | Case::Term | Case::Drain => group.mend(case, owner)?,
        Case::Move | Case::Merge => {}
    }
    Ok(seen(&trail, struck, end, both, answerers))
}

/// For how long two hosts answered, each whom it was asked by alone, after what happened.
fn both_answered(trails: &[Trail], struck: Instant) -> Duration {
    let span = |trail: &Trail| {
        let after = |answer: &&Answer| answer.at >= struck;
        Some((trail.answers.iter().find(after)?.at, trail.answers.iter().rfind(after)?.at))
    };
    let spans: Vec<(Instant, Instant)> = trails.iter().filter_map(span).collect();
    let pairs = spans.iter().enumerate().flat_map(|(at, one)| spans[at + 1..].iter().map(move |other| (one, other)));
    let together = |(one, other): (&(Instant, Instant), &(Instant, Instant))| {
        one.1.min(other.1).saturating_duration_since(one.0.max(other.0))
    };
    pairs.map(together).max().unwrap_or_default()
}

/// Waits until the client is answered again after what happens.
fn watched(group: &dyn Group, happens: impl FnOnce()) -> io::Result<()> {
    let traffic = group.lan().probes(group.address());
    happens();
    std::thread::sleep(group.patience());
    let begin = Instant::now();
    while !traffic.answers_within(NOW) {
        if begin.elapsed() > MOST {
            return Err(io::Error::other(format!("{}: nobody took over", group.name())));
        }
    }
    traffic.finish();
    Ok(())
}

fn seen(trail: &Trail, struck: Instant, end: Instant, both: Duration, answerers: usize) -> Trial {
    let before: Vec<Instant> = trail.answers.iter().map(|answer| answer.at).take_while(|&at| at < struck).collect();
    let calm = before.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    let last = trail.answers.last().map_or(struck, |answer| answer.at);
    let within = trail.longest_gap(struck);
    // Nothing more was heard until the end: it was at least that long.
    let outage = if within == Duration::MAX { end - last } else { within.max(end.saturating_duration_since(last)) };
    let lost = trail.lost().iter().map(|range| range.end() + 1 - range.start()).sum();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let [outage_ms, calm_ms, both_ms] = [outage, calm, both].map(millis);
    Trial { outage_ms, calm_ms, both_ms, lost, second_owner: answerers > 1 }
}
