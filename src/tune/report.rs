//! A report for people.

use super::Report;
use super::advice::{Check, State};
use super::facts::Facts;
use super::idle::{Comparison, IdleCost};
use super::measure::Measured;
use crate::config::idle_word;
use crate::runtime::machine::CpuSet;
use crate::telemetry::Table;
use std::fmt;

/// Where lines end.
const WIDTH: usize = 98;
/// Where the text of a check begins.
const INDENT: usize = 23;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", wrapped(&machine(&self.machine), 0))?;
        if let Some(measured) = &self.measured {
            writeln!(f, "{}", wrapped(&noise(measured), 0))?;
        }
        writeln!(f)?;
        self.checks.iter().try_for_each(|check| write!(f, "{}", lines(check)))?;
        if let Some(costs) = self.measured.as_ref().and_then(|measured| measured.idle.as_ref()) {
            write!(f, "\n{}", strategies(costs))?;
        }
        write!(
            f,
            "\nThe configuration recommended here{}:\n\n{}",
            if self.configuration.differs { "" } else { ", as it is" },
            self.configuration.text
        )?;
        let quick = if self.quick { " Nothing was measured (--quick)." } else { "" };
        let count = match self.to_do {
            0 => "Nothing is to be done.".to_owned(),
            1 => "1 thing is to be done.".to_owned(),
            count => format!("{count} things are to be done."),
        };
        writeln!(f, "\n{count} Nothing was changed.{quick}")
    }
}

fn machine(facts: &Facts) -> String {
    let topology = &facts.topology;
    let usable: CpuSet = topology.usable().map(|cpu| cpu.id).collect();
    let cores: CpuSet = topology.cpus.iter().map(|cpu| cpu.core).collect();
    let (threads, cores) = (topology.cpus.len(), cores.len());
    let threads = if threads == cores { String::new() } else { format!(" ({threads} with siblings)") };
    let nodes: CpuSet = topology.cpus.iter().map(|cpu| cpu.node).collect();
    let nodes = if nodes.len() > 1 { format!(" on {} NUMA nodes", nodes.len()) } else { String::new() };
    let below = if facts.hypervisor { ", below a hypervisor" } else { "" };
    let plural = if cores == 1 { "core" } else { "cores" };
    format!("machine: {cores} {plural}{threads}{nodes}, {usable} usable here, Linux {}{below}", facts.kernel)
}

fn noise(measured: &Measured) -> String {
    let noise = &measured.noise;
    format!(
        "noise floor: timers p50 {:.0} µs p99 {:.0} max {:.0} late; {:.2} % of a busy thread's time taken by others, longest \
         {:.0} µs; {:.1} % stolen; load {:.1}. Differences below that mean nothing.",
        noise.timer_p50_us,
        noise.timer_p99_us,
        noise.timer_max_us,
        noise.taken_percent,
        noise.longest_pause_us,
        noise.steal_percent,
        noise.load_average
    )
}

const fn word(state: State) -> &'static str {
    match state {
        State::Advice => "TO DO",
        State::Option => "could",
        State::Good => "good",
        State::Note => "note",
        State::Unseen => "unseen",
    }
}

fn lines(check: &Check) -> String {
    let mut text = format!("{:<7}{:<INDENT$}", word(check.state), check.name, INDENT = INDENT - 7);
    text += wrapped(&check.found, INDENT).trim_start();
    text.push('\n');
    for (what, said) in [("", &check.cost), ("-> ", &check.advice)] {
        if !said.is_empty() {
            text += &wrapped(&format!("{what}{said}"), INDENT);
            text.push('\n');
        }
    }
    // Commands are to be copied, so they are never broken.
    check.commands.iter().for_each(|command| text += &format!("{:INDENT$}   {command}\n", ""));
    text
}

/// Breaks a text into lines, each indented by so much.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is a line");
        if !last.is_empty() && indent + last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
        } else {
            *last += if last.is_empty() { "" } else { " " };
            *last += word;
        }
    }
    lines.iter().map(|line| format!("{:indent$}{line}", "")).collect::<Vec<_>>().join("\n")
}

fn strategies(costs: &Comparison) -> String {
    let mut table = Table::new(["idle", ">datagrams/s", ">p50 µs", ">p99 µs", ">hop adds µs", ">CPU %"]);
    let row = |cost: &IdleCost| {
        let figure = |value: f64| if cost.per_second == 0 { String::new() } else { format!("{value:.1}") };
        let latency = [cost.p50_us, cost.p99_us, cost.added_us].map(figure);
        let first = [idle_word(cost.idle).to_owned(), cost.per_second.to_string()];
        first.into_iter().chain(latency).chain([format!("{:.1}", cost.cpu_percent)]).collect::<Vec<String>>()
    };
    costs.costs.iter().for_each(|cost| table.row(row(cost)));
    let head = format!(
        "Idle strategies: there and back over loopback through a worker without its protocols (without it p50 {:.1} µs, \
         p99 {:.1}), and how much of its core that worker used.",
        costs.direct_p50_us, costs.direct_p99_us
    );
    format!("{}\n\n{table}", wrapped(&head, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_indented() {
        let text = wrapped(&"word ".repeat(40), 10);
        assert!(
            text.lines().count() == 3
                && text.lines().all(|line| line.len() <= WIDTH && line.starts_with("          w"))
        );
        assert_eq!(wrapped("", 3), "   ");
    }
}
