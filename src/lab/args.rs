//! What the user asks of `sinew lab`.

use super::ladder::Mode;
use super::transport::Transport;
use clap::ValueEnum;
use std::path::PathBuf;

/// Repeat the published experiment on this machine: a chain of real routers over emulated links, beside kernel TCP.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
Without options: a chain A-F of five links of 10 ms and 10 Mbit/s, 1 % of packets lost each way on the middle one, and
1,000-byte messages at 500 kbit/s by every transport at the same time over the same links. About 40 seconds, no root,
no packages: it makes its own namespaces and emulates the links itself.

  sinew lab                              the default experiment
  sinew lab --loss 5 --rate 1000         harsher
  sinew lab --experiment dsn03           everything the DSN 2003 paper sweeps (about 25 minutes)
  sinew lab --experiment fairness        one Sinew link against one TCP through one bottleneck
  sinew lab --topology FILE              a network of your own
  sinew lab --keep                       leave it running, to try the other commands on

Latency counts from the moment a message was meant to be sent. The table, the curves (report.html), the histograms
(.hgrm, .hlog) and everything counted (result.json) are written to lab-out/.

A topology file is TOML:
  nodes = [\"a\", \"b\"]
  [[link]]
  between = [\"a\", \"b\"]
  conditions = { delay_ms = 10, rate_kbps = 10000, loss_percent = 1 }    (back = {...} where that way differs)
  [[flow]]
  from = \"a\"
  to = \"b\"
  rate_kbps = 500

Exit codes: 0 measured, 1 it could not be, 2 wrong command line or topology file, 130 Ctrl-C; nothing is left behind.")]
pub struct Args {
    /// What to measure.
    #[arg(long, value_enum, default_value_t = Experiment::Default)]
    pub experiment: Experiment,
    /// Messages sent by each transport.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub messages: Option<u64>,
    /// Packets lost on the middle link, each way, percent.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub loss: Option<f64>,
    /// Rate of each transport's messages, kbit/s.
    #[arg(long, value_name = "KBIT/S", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub rate: Option<u64>,
    /// Links in the chain.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10))]
    pub hops: Option<u64>,
    /// Delay of each link, one way, ms.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub delay: Option<f64>,
    /// Bytes of each message.
    #[arg(long, value_name = "BYTES", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(32..=60_000))]
    pub size: u64,
    /// Seconds of each bulk transfer (fairness: 60; throughput: 10), or of chaos (60).
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: Option<u64>,
    /// Every random choice follows from it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "lab-out")]
    pub out: PathBuf,
    /// Leave the network running afterwards until Ctrl-C, and print how to reach each router.
    #[arg(long)]
    pub keep: bool,
    /// A network of your own: TOML with nodes, links and flows.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["hops", "delay", "loss"])]
    pub topology: Option<PathBuf>,
    /// Only these transports: tcp-cubic, tcp-bbr, best-effort, reliable, raw-udp.
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
    /// --seconds (60), under traffic whose every byte is checked. Writes chaos.json and chaos.log; exit code 1 if a promise was broken.
    #[arg(long, conflicts_with_all = ["experiment", "messages", "loss", "rate", "hops", "delay", "keep", "topology", "sim"])]
    pub chaos: bool,
    /// The same in the simulator instead of on the real kernel.
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
