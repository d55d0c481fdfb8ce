//! What the user asks of `sinew lab`.

use super::ladder::Mode;
use super::transport::Transport;
use super::world::MAX_TCP;
use clap::ValueEnum;
use std::path::PathBuf;

/// Repeat the published experiment on this machine: a chain of real routers over emulated links, beside kernel TCP.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
Without options: a chain A-F of five links of 10 ms and 10 Mbit/s, 1 % of
packets lost each way on the middle one, and 1,000-byte messages at 500 kbit/s
by every transport at the same time over the same links. About 40 seconds, no
root, no packages: it makes its own namespaces and emulates the links itself.

  sinew lab                          the default experiment
  sinew lab --loss 5 --rate 1000     harsher
  sinew lab --experiment dsn03       all the DSN 2003 paper sweeps (25 min)
  sinew lab --experiment fairness    a Sinew link and a TCP in one bottleneck
  sinew lab --topology FILE          a network of your own
  sinew lab --keep                   leave it running, to try the others on
  sinew lab --sim                    the same in virtual time, without TCP
  sinew lab --chaos                  random faults under checked traffic

Latency counts from the moment a message was meant to be sent. The table, the
curves (report.html), the histograms (.hgrm, .hlog) and everything counted
(result.json) are written to lab-out/.

A topology file is TOML:
  nodes = [\"a\", \"b\"]
  [[link]]
  between = [\"a\", \"b\"]
  conditions = { delay_ms = 10, rate_kbps = 10000, loss_percent = 1 }
  back = { delay_ms = 30 }           # where the other way differs
  [[flow]]
  from = \"a\"
  to = \"b\"
  rate_kbps = 500
Conditions are also jitter_ms, loss_burst, queue_bytes, duplicate_percent,
reorder_percent, reorder_ms, corrupt_percent and cut; a flow may have
message_bytes, the file a seed.

result.json, which --json prints:
  runs, raw      transports in each cell (raw: kernel UDP, the bare path):
                 transport loss_percent rate_kbps hops link_delay_ms from to
                 sent received lost duplicated reordered collapsed bytes cell
                 mean_ms sd_ms p50_ms p90_ms p99_ms p999_ms max_ms
                 over_60ms_percent over_100ms_percent
  cells          what a run's cell was (sweep), its noise, what each link
                 carried (links), what the routers sent again (overlay)
  bulk           transport beside loss_percent link_delay_ms link_kbps seconds
                 goodput_kbps share_percent wire_bytes overhead_percent
                 of_tcp_percent below_tcp_percent seconds_kbps
  not_measured   transport, why, and what would enable it
  noise          how late this machine is, in us; null with --sim
  unread_frames  dropped before the emulator read them: if not 0, repeat it
  experiment mode command seed sequential sinew

Exit codes: 0 measured, 1 it could not be, 2 wrong command line or topology
file, 130 Ctrl-C; nothing is left behind.")]
pub struct Args {
    /// What to measure.
    #[arg(long, value_enum, default_value_t = Experiment::Default)]
    pub experiment: Experiment,
    /// Messages sent by each transport [default: 2000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub messages: Option<u64>,
    /// Packets lost on the middle link, each way, percent [default: 1]. A sweep of losses becomes this one.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub loss: Option<f64>,
    /// Rate of each transport's messages, kbit/s [default: 500]. A sweep at two rates becomes one at this.
    #[arg(long, value_name = "KBIT/S", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub rate: Option<u64>,
    /// Links in the chain [default: 5]. A sweep of hops becomes this one.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10))]
    pub hops: Option<u64>,
    /// Delay of each link, one way, ms [default: 10].
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub delay: Option<f64>,
    /// Bytes of each message [default: 1000, or what the topology file says].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(32..=60_000))]
    pub size: Option<u64>,
    /// Seconds of each bulk transfer (fairness: 60; throughput: 10), or of chaos (60).
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: Option<u64>,
    /// Every random choice follows from it [default: 1, or what the topology file says].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "lab-out")]
    pub out: PathBuf,
    /// Leave the network running afterwards until Ctrl-C, and print how to reach each router.
    #[arg(long)]
    pub keep: bool,
    /// A network of your own: TOML with nodes, links and flows.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["experiment", "hops", "delay", "loss"])]
    pub topology: Option<PathBuf>,
    /// Only these transports: tcp-cubic, tcp-bbr, best-effort, reliable, raw-udp. A sweep of hops has
    /// best-effort only if it is named or --sequential: on one long lossy link it and reliable together
    /// want more than a sender as fair as TCP gets.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub transports: Vec<Transport>,
    /// One transport at a time, in five interleaved rounds, instead of all at once. Takes several times as long; tells
    /// apart what each puts on the links.
    #[arg(long)]
    pub sequential: bool,
    /// System calls of the routers' workers.
    #[arg(long, value_parser = ["auto", "uring", "mmsg"], default_value = "auto")]
    pub io: String,
    /// How to get a network of one's own.
    #[arg(long, value_parser = ["auto", "user", "root", "loopback"], default_value = "auto")]
    pub mode: String,
    /// Instead of measuring: kill, freeze, cut, corrupt and flood six routers, and shift their clocks, at random for
    /// --seconds (60), under traffic whose every byte is checked. Writes chaos.json and chaos.log; if a promise was broken
    /// the routers' logs, too, and the exit code is 1.
    #[arg(long, conflicts_with_all = [
        "experiment", "messages", "loss", "rate", "hops", "delay", "size", "keep", "topology", "transports", "sequential", "sim",
    ])]
    pub chaos: bool,
    /// The same in the simulator instead of on the real kernel: no TCP to compare with, best effort and reliable each
    /// alone.
    #[arg(long)]
    pub sim: bool,
    /// Print result.json instead of the table.
    #[arg(long)]
    pub json: bool,
    /// No progress.
    #[arg(long, short)]
    pub quiet: bool,
}

impl Args {
    /// The rung asked for; `None` is the best there is.
    pub(super) fn wanted_mode(&self) -> Option<Mode> {
        self.mode.parse().ok()
    }

    /// What everything random follows from, where no topology file has a say.
    pub(super) fn seed(&self) -> u64 {
        self.seed.unwrap_or(1)
    }

    /// Bytes of a message, where no topology file has a say.
    pub(super) fn size(&self) -> usize {
        self.size.unwrap_or(1000) as usize
    }

    /// Messages of each transport.
    pub(super) fn messages(&self) -> u64 {
        self.messages.unwrap_or(2000)
    }

    /// What is asked for and cannot be meant, and what to do instead. An option is never passed over in silence.
    pub fn mistake(&self) -> Option<String> {
        if self.chaos {
            return None;
        }
        let simulated = || self.sim.then(|| self.mistake_in_sim()).flatten();
        self.mistake_in_experiment().or_else(simulated).or_else(|| self.mistake_in_transports())
    }

    /// An option that means nothing to the experiment.
    fn mistake_in_experiment(&self) -> Option<String> {
        use Experiment::{Default, Dsn03, Fairness, Hops, Throughput};
        let options: [(&str, bool, &[Experiment]); 7] = [
            ("--messages", self.messages.is_some(), &[Default, Dsn03, Hops]),
            ("--rate", self.rate.is_some(), &[Default, Dsn03, Hops]),
            ("--hops", self.hops.is_some(), &[Default, Hops]),
            ("--delay", self.delay.is_some(), &[Default, Fairness, Throughput]),
            ("--seconds", self.seconds.is_some(), &[Dsn03, Fairness, Throughput]),
            ("--keep", self.keep, &[Default]),
            ("--sequential", self.sequential, &[Default, Dsn03, Hops]),
        ];
        let name = |experiment: &Experiment| {
            experiment.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
        };
        let (option, _, fits) =
            options.into_iter().find(|(_, given, fits)| *given && !fits.contains(&self.experiment))?;
        let what = match &self.topology {
            Some(_) => "a topology".to_owned(),
            None => format!("--experiment {}", name(&self.experiment)),
        };
        let fits = fits.iter().map(name).collect::<Vec<_>>().join(" or ");
        Some(format!("{option} has no meaning with {what}: leave it out, or give it with --experiment {fits}"))
    }

    /// What there is not in the simulator.
    fn mistake_in_sim(&self) -> Option<String> {
        let message = if self.experiment == Experiment::Fairness {
            "fairness needs the kernel's TCP to share with: leave out --sim"
        } else if self.keep {
            "nothing is left of a simulated network to keep: leave out --keep, or --sim"
        } else if self.sequential {
            "in the simulator every transport runs alone: leave out --sequential"
        } else if self.io != "auto" {
            "the simulator's routers make no system calls: leave out --io"
        } else if self.mode != "auto" {
            "the simulator needs no network of its own: leave out --mode"
        } else if !self.transports.is_empty() && !self.transports.iter().any(Transport::is_overlay) {
            "only best-effort and reliable can be simulated: ask for one of them, or leave out --sim"
        } else {
            return None;
        };
        Some(message.to_owned())
    }

    /// A list of transports that cannot all be measured.
    fn mistake_in_transports(&self) -> Option<String> {
        let list = &self.transports;
        let twice = list.iter().enumerate().find(|(place, transport)| list[..*place].contains(transport));
        if let Some((_, transport)) = twice {
            return Some(format!("--transports names {transport} twice: name it once"));
        }
        let tcp = list.iter().filter(|transport| matches!(transport, Transport::Tcp(_))).count();
        if tcp > MAX_TCP {
            return Some(format!("--transports names {tcp} kinds of TCP: {MAX_TCP} at most can be told apart"));
        }
        let datagrams = list.iter().find(|transport| !transport.is_stream());
        match (self.experiment, datagrams) {
            (Experiment::Fairness, _) if !list.is_empty() => {
                Some("fairness is of reliable beside tcp-cubic: leave out --transports".into())
            }
            (Experiment::Throughput, Some(transport)) => {
                Some(format!("throughput is of streams: leave {transport} out of --transports"))
            }
            _ => None,
        }
    }
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Experiment {
    /// One chain, one rate, one loss.
    Default,
    /// Everything the paper sweeps: loss, hops and throughput.
    Dsn03,
    /// One to ten hops at the same 50 ms in all.
    Hops,
    /// A Sinew link and a TCP through one bottleneck.
    Fairness,
    /// Throughput against loss, for TCP and for a Sinew link.
    Throughput,
}

fn percent(text: &str) -> Result<f64, String> {
    in_range(text, 100.0, "a percentage from 0 to 100")
}

fn milliseconds(text: &str) -> Result<f64, String> {
    in_range(text, 5000.0, "milliseconds from 0 to 5000")
}

fn in_range(text: &str, most: f64, what: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{what} is expected"))?;
    if (0.0..=most).contains(&value) { Ok(value) } else { Err(format!("{what} is expected")) }
}

/// A command line of the lab's, for tests.
#[cfg(test)]
pub(super) fn parse(line: &str) -> Args {
    try_parse(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[cfg(test)]
fn try_parse(line: &str) -> Result<Args, clap::Error> {
    use clap::{Args as _, FromArgMatches as _};
    let command = Args::augment_args(clap::Command::new("lab"));
    let matches = command.try_get_matches_from(std::iter::once("lab").chain(line.split_whitespace()))?;
    Args::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_meaning_is_refused_with_the_next_step() {
        for (line, what) in [
            ("--experiment dsn03 --hops 3", "--experiment default or hops"),
            ("--experiment hops --delay 3", "leave it out"),
            ("--experiment dsn03 --keep", "--keep has no meaning"),
            ("--experiment throughput --rate 3", "--rate has no meaning"),
            ("--experiment fairness --messages 3", "leave it out"),
            ("--experiment throughput --sequential", "leave it out"),
            ("--seconds 3", "--experiment dsn03 or fairness or throughput"),
            ("--topology x --seconds 3", "with a topology"),
            ("--sim --keep", "leave out --keep"),
            ("--sim --sequential", "leave out --sequential"),
            ("--sim --io mmsg", "leave out --io"),
            ("--sim --mode root", "leave out --mode"),
            ("--sim --experiment fairness", "leave out --sim"),
            ("--sim --transports tcp-cubic,raw-udp", "leave out --sim"),
            ("--transports reliable,raw-udp,reliable", "name it once"),
            ("--transports tcp-a,tcp-b,tcp-c,tcp-d,tcp-e,tcp-f", "5 at most"),
            ("--experiment fairness --transports reliable", "leave out --transports"),
            ("--experiment throughput --transports reliable,raw-udp", "leave raw-udp out"),
        ] {
            let mistake = parse(line).mistake().unwrap_or_else(|| panic!("`{line}` is accepted"));
            assert!(mistake.contains(what), "{line}: {mistake}");
        }
    }

    #[test]
    fn what_has_a_meaning_is_accepted() {
        for line in [
            "",
            "--messages 5 --loss 0.3 --rate 700 --hops 2 --delay 3 --size 200 --keep --sequential --seed 3",
            "--experiment dsn03 --messages 5 --loss 0.3 --rate 700 --seconds 2 --sequential --size 100",
            "--experiment hops --hops 3 --rate 5",
            "--experiment throughput --delay 3 --loss 1 --seconds 5 --transports tcp-cubic,reliable",
            "--experiment fairness --delay 3 --seconds 5",
            "--topology x --messages 5 --rate 3 --size 100 --seed 3 --keep --sequential --transports reliable",
            "--sim --topology x --transports reliable,tcp-cubic",
            "--sim --experiment throughput",
            "--chaos --seconds 5 --seed 3 --io mmsg",
        ] {
            assert_eq!(parse(line).mistake(), None, "{line}");
        }
    }

    #[test]
    fn the_help_fits_a_terminal() {
        use clap::Args as _;
        let command = Args::augment_args(clap::Command::new("lab"));
        let help = command.get_after_long_help().expect("it teaches").to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 78, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn what_cannot_be_together_is_no_command_line() {
        for line in [
            "--topology x --experiment hops",
            "--topology x --loss 1",
            "--chaos --transports reliable",
            "--chaos --size 50",
        ] {
            assert!(try_parse(line).is_err(), "{line}");
        }
    }
}
