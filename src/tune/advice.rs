//! What is to be said of a machine: a pure function of what was found, measured and wanted.
//!
//! A check says how something is, what that costs here, and what to do. *Advice* is what would help this router and can be
//! done now; an *option* helps some and costs something else, so it is nobody's duty. What is measured is said with its
//! figure; where nothing was measured nothing is claimed.

mod checks;

use super::Wanted;
use super::facts::Facts;
use super::measure::Measured;
use crate::config::settings::{Cores, Idle};
use crate::config::{cores_value, idle_word, realtime_value};
use crate::runtime::machine::{CpuSet, Placement, place};
use serde::Serialize;

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Good,
    /// There is something to be done.
    Advice,
    /// There is something that could be done.
    Option,
    /// It is as it is.
    Note,
    /// It could not be seen.
    Unseen,
}

/// One thing about the machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What it is about; does not change from version to version.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What that costs here, or means.
    pub cost: String,
    /// What to do; nothing for what is good.
    pub advice: String,
    /// Commands that do it, for a root shell.
    pub commands: Vec<String>,
}

/// The configuration recommended for this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommended {
    /// Whether it is another than the one there is.
    pub differs: bool,
    /// As it is written into the file.
    pub text: String,
    #[serde(skip)]
    cores: Cores,
    #[serde(skip)]
    idle: Idle,
    #[serde(skip)]
    lock_memory: bool,
    /// Keys that differ, with the reasons.
    pub reasons: Vec<Reason>,
}

/// Why a key should have another value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// The key.
    pub key: &'static str,
    /// Its value now.
    pub now: String,
    /// Why another one is better here.
    pub why: String,
}

/// The configuration for this machine. What is right either way stays as it is wanted.
pub fn recommend(facts: &Facts, measured: Option<&Measured>, wanted: &Wanted) -> Recommended {
    let workers = &wanted.workers;
    let (cores, why_cores) = cores(facts, wanted);
    let (idle, why_idle) = idle(facts, measured, workers.count, &cores);
    let lock_memory = wanted.lock_memory || facts.swap;
    let mut reasons = Vec::new();
    let mut differ = |key, now: String, differs: bool, why: String| {
        if differs {
            reasons.push(Reason { key, now, why });
        }
    };
    differ("cores", cores_value(&workers.cores), cores != workers.cores, why_cores);
    differ("idle", format!("\"{}\"", idle_word(workers.idle)), idle != workers.idle, why_idle);
    let why_lock = "there is swap: a page that was swapped out is milliseconds away when a packet needs it".to_owned();
    differ("lock", "\"off\"".to_owned(), lock_memory != wanted.lock_memory, why_lock);
    let text = format!(
        "[workers]\ncount = {}\ncores = {}\nidle = \"{}\"\nrealtime = {}\nsocket_buffer = {}\n\n[memory]\nlock = \"{}\"\n",
        workers.count,
        cores_value(&cores),
        idle_word(idle),
        realtime_value(workers.realtime),
        workers.socket_buffer,
        if lock_memory { "on" } else { "off" },
    );
    Recommended { differs: !reasons.is_empty(), text, cores, idle, lock_memory, reasons }
}

/// How many cores this process may use: siblings count once.
fn usable_cores(facts: &Facts) -> usize {
    facts.topology.usable().map(|cpu| cpu.core).collect::<CpuSet>().len()
}

fn cores(facts: &Facts, wanted: &Wanted) -> (Cores, String) {
    let workers = &wanted.workers;
    match &workers.cores {
        Cores::List(list) if !list.is_empty() => match place(&facts.topology, &workers.cores, workers.count) {
            Ok(_) => (workers.cores.clone(), String::new()),
            Err(refused) => (Cores::Auto, refused.to_string()),
        },
        _ if usable_cores(facts) > workers.count => {
            let why = "each worker keeps a core and its caches, and one is left to control and interrupts (leave it empty \
                       if other routers run on this machine)";
            (Cores::Auto, why.to_owned())
        }
        _ => (Cores::List(Vec::new()), "there is no core to spare: the scheduler does better".to_owned()),
    }
}

fn idle(facts: &Facts, measured: Option<&Measured>, workers: usize, cores: &Cores) -> (Idle, String) {
    let costs = measured.and_then(|measured| measured.idle.as_ref()).map_or_else(String::new, |costs| {
        let added = |idle| costs.of(idle, 1_000).map_or(0.0, |cost| cost.added_us);
        let (spin, wait) = (added(Idle::Spin), added(Idle::Wait));
        format!(" (measured here: a hop that waits adds {wait:.0} µs, one that spins {spin:.0} µs)")
    });
    let isolated = |id| facts.topology.cpu(id).is_some_and(|cpu| cpu.isolated);
    let placed = place(&facts.topology, cores, workers).map(|placement| placement.cores()).unwrap_or_default();
    if facts.topology.quota.is_some_and(|quota| quota < workers as f64 + 1.0) {
        return (Idle::Wait, format!("spinning would spend the time that the cgroup grants{costs}"));
    }
    if !placed.is_empty() && placed.iter().all(isolated) {
        return (
            Idle::Spin,
            format!("the workers' cores are isolated: nobody else can use what spinning burns{costs}"),
        );
    }
    if usable_cores(facts) < workers + 2 {
        return (Idle::Wait, format!("a spinning worker takes a core that control and applications need{costs}"));
    }
    (Idle::Adaptive, format!("as fast as spinning under load, and quiet without{costs}"))
}

/// What checks look at.
struct View<'a> {
    facts: &'a Facts,
    measured: Option<&'a Measured>,
    wanted: &'a Wanted,
    recommended: &'a Recommended,
    /// Where workers will be, with the configuration recommended.
    placement: Option<Placement>,
}

/// Everything there is to say.
pub fn checks(facts: &Facts, measured: Option<&Measured>, wanted: &Wanted, recommended: &Recommended) -> Vec<Check> {
    let placement = place(&facts.topology, &recommended.cores, wanted.workers.count).ok();
    let view = View { facts, measured, wanted, recommended, placement };
    let mut checks = checks::all(&view);
    // What is to be done comes first; the order within is that of the list.
    checks.sort_by_key(|check| match check.state {
        State::Advice => 0,
        State::Option => 1,
        State::Good => 2,
        State::Note => 3,
        State::Unseen => 4,
    });
    checks
}

#[cfg(test)]
mod tests;
