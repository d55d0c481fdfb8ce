//! The command line.

use clap::Parser;
use sinew::config::settings::Congestion;

/// Measures one router that forwards between two neighbours on this machine, beside a bare recvmmsg/sendmmsg forwarder
#[derive(Debug, Parser)]
#[command(
    name = "perf/transit",
    bin_name = "perf/transit",
    max_term_width = 100,
    after_help = "\
The router is the real binary, its worker pinned to the first core. Both neighbours live in one
thread on the second core: shards and controls like a router's, over UDP sockets with segmentation
offload, so that they are not the slower side. The bare forwarder takes the router's place:
recvmmsg of 64, one byte changed, sendmmsg of 64, connected sockets.

Load. At most --window messages are on their way. The cells of a round, one after the other:
  bare                 datagrams of --size bytes, as many as go
  best-effort          32 flows; source and router bundle what they find queued
  best-effort split    every message leaves the source in a datagram of its own
  reliable             32 flows, recovered hop by hop
  bare paced           --pace datagrams a second, one by one
  best-effort paced    the same; nothing finds anything to be bundled with, if the noise is low
ns/msg is the forwarding thread's time on its core (from /proc) per message that arrived, msg/core
its inverse: extrapolated (`~`) where the core was not full. /bare compares messages, and datagrams
sent, per second of core with the bare forwarder under the same load. `wanted more` is time in which
the thread was ready but others had its core. The worker waits in the kernel when idle.

Latency. --rate messages a second, one at a time, timed by one clock from before the source's send
to after the sink's receive. `added` is what the forwarder adds to the direct path of the same kind:
plain sockets for the bare forwarder, two neighbours linked directly for the router.

The table shows medians over the rounds, --json every round as well.

Examples:
  perf/transit
  perf/transit --rounds 5 --json > transit.json
  perf/transit --size 720      no two such messages fit a datagram: nothing is bundled anywhere"
)]
pub(crate) struct Args {
    /// Seconds of each cell, after a warm-up of 0.4 s
    #[arg(long, default_value_t = 1.5, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Rounds, each with all cells
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(16..=1100))]
    pub(crate) size: u32,
    /// Messages between source and sink, at most
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) window: u32,
    /// Messages a second of the paced cells
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) pace: u32,
    /// Messages a second of the latency cells
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
    /// System calls of the router's worker
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "mmsg"])]
    pub(crate) io: String,
    /// Whether the router's datagrams pass the kernel in trains
    #[arg(long, default_value = "auto", value_parser = ["auto", "on", "off"])]
    pub(crate) offload: String,
    /// Congestion control of all links: cubic, or a rate such as 10gbit
    #[arg(long, default_value = "cubic", value_parser = congestion)]
    pub(crate) congestion: Written,
    /// Only the cells whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) only: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// Congestion control as written and as meant.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) meant: Congestion,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is expected".to_owned())?;
    if (0.1..=600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 600".into()) }
}

fn congestion(text: &str) -> Result<Written, String> {
    let meant = match text {
        "cubic" => Congestion::Cubic,
        rate => Congestion::FixedKbps((sinew::config::units::rate(rate)? / 1000).max(8)),
    };
    Ok(Written { text: text.into(), meant })
}
