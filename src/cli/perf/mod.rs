//! `sinew perf`: load and latency between two routers, iperf3's job.
//!
//! The client opens one stream to the server's port, which carries the conversation of [`talk`] as JSON lines; datagram
//! tests send [`message`]s to a port that the server opens for them, stream tests send them on the same stream.
//!
//! Every message carries the time at which it was *meant* to leave. A sender that is held up sends late but stamps on
//! schedule, so the delay it caused is in the figures (no coordinated omission).
//!
//! | file | what |
//! |---|---|
//! | `client` | the sender, its schedule, its figures |
//! | `server` | the receiver |
//! | `talk` | what they say to each other |
//! | `message` | what is in a test message |
//! | `tally` | what is counted of received messages |
//! | `clock` | the clock both ends share, or the wall clock |
//! | `report` | how results are shown |

mod client;
mod clock;
mod message;
mod report;
mod server;
mod talk;
mod tally;

use super::failure::Failure;
use super::target::MaybeSession;
use crate::base::limits::MAX_PAYLOAD;
use crate::base::{Class, Port};
use crate::config::units;
use clap::Subcommand;
use std::path::PathBuf;
use std::time::Duration;

/// Where a server listens if nobody says: iperf3's port.
const DEFAULT_PORT: Port = 5201;

/// What a datagram test sends per second if nobody says, bits: the published experiment's lower rate.
const DEFAULT_RATE: Rate = Rate::Bits(500_000);

/// Measure throughput, loss and latency between two routers
///
/// Messages carry the time at which they were meant to leave, so a sender that is held up cannot hide the delay
/// (no coordinated omission). One-way latency compares the two ends' clocks: exact on one machine, otherwise only as good
/// as their synchronisation. The round trip, by echo from the server, needs one clock only.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  on b:  sinew perf server                  until Ctrl-C
  on a:  sinew perf client --to b --rate 500kbit --size 1000 --duration 30s
         sinew perf client --to b --class best-effort --rate 2mbit --messages 10000 --json
         sinew perf client --to b --stream --duration 10s --interval 1s

Sizes are bytes, or with k, M, G; rates are bits a second as 500kbit or 2mbit; durations as 100ms
or 10s, plain numbers are seconds.
Exit codes: 0 well, 1 failed or a reliable test was not exact, 2 wrong command line, 3 no router
answers, 130 Ctrl-C before a test of --once was done.")]
pub(super) struct Args {
    #[command(subcommand)]
    side: Side,
}

#[derive(Debug, Subcommand)]
enum Side {
    Server(ServerArgs),
    Client(ClientArgs),
}

/// Answer clients until Ctrl-C, several at a time
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew perf server
  sinew perf server --port 5202 --once --json

JSON, one object a test: {\"from\", \"transport\", \"received\", \"duplicated\", \"reordered\", \"marked\",
\"bytes\", \"seconds\", \"goodput_kbps\", \"clock\", \"one_way\": {\"count\", \"min_ms\", \"mean_ms\", \"sd_ms\",
\"p50_ms\", \"p90_ms\", \"p99_ms\", \"p999_ms\", \"max_ms\"}, \"complete\"}. Ctrl-C also ends tests that run:
what came is shown, `complete` is false.

Exit codes: 0 Ctrl-C, or with --once one test done; 1 it failed; 2 wrong command line; 3 no router
answers; 130 Ctrl-C with --once before a test was done.")]
struct ServerArgs {
    /// Where to listen
    #[arg(short, long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: Port,
    /// Stop after one test
    #[arg(long)]
    once: bool,
    /// Print JSON: one object a test
    #[arg(long)]
    json: bool,
}

/// Send to a server and report
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew perf client --to b                                    1000-byte messages, 500 kbit/s, 10 s
  sinew perf client --to b --class best-effort --rate 5mbit   what the path itself loses
  sinew perf client --to b --stream                           as fast as a stream goes
  sinew perf client --to b --messages 10000 --hgrm out/b --hlog out/b.hlog --json

JSON: {\"transport\", \"sent\", \"received\", \"lost\", \"duplicated\", \"reordered\", \"marked\", \"seconds\",
\"goodput_kbps\", \"clock\", \"one_way\": {\"count\", \"mean_ms\", \"sd_ms\", \"p50_ms\", \"p90_ms\", \"p99_ms\",
\"p999_ms\", \"max_ms\", ...}, \"round_trip\", \"intervals\": [...]}. `rate_kbps` is a number or
\"unlimited\". Ctrl-C ends the test early; what was measured is reported.

Exit codes: 0 well; 1 it failed, or a reliable test lost, duplicated or (with --ordered) reordered
anything; 2 wrong command line; 3 no router answers.")]
struct ClientArgs {
    /// The server: its router, or ROUTER:PORT
    #[arg(long, value_name = "ROUTER[:PORT]")]
    to: MaybeSession,
    /// Recovery class of datagrams
    #[arg(long, default_value_t = Class::Reliable, value_name = "CLASS")]
    class: Class,
    /// Have datagrams delivered in the order they were sent
    #[arg(long)]
    ordered: bool,
    /// Send on one byte stream instead of as datagrams
    #[arg(long, conflicts_with_all = ["class", "ordered"])]
    stream: bool,
    /// Bits of payload per second, or `unlimited`, which then measures latency from when a message could leave
    /// [default: 500kbit; streams: unlimited]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<Rate>,
    /// Bytes of each message
    #[arg(long, default_value = "1000", value_name = "BYTES", value_parser = units::size)]
    size: u64,
    /// How long to send
    #[arg(short = 't', long, default_value = "10s", value_name = "DURATION", value_parser = units::duration_or_seconds)]
    duration: Duration,
    /// Send this many messages instead
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration")]
    messages: Option<u64>,
    /// Report this often while it runs
    #[arg(short, long, default_value = "1s", value_name = "DURATION", value_parser = units::duration_or_seconds)]
    interval: Duration,
    /// Do not have the server echo (it echoes at most one message a millisecond, 28 bytes each)
    #[arg(long)]
    no_echo: bool,
    /// Write percentile distributions in milliseconds to PREFIX.one-way.hgrm and PREFIX.round-trip.hgrm
    #[arg(long, value_name = "PREFIX")]
    hgrm: Option<PathBuf>,
    /// Write an interval log with both histograms, for HdrHistogram's tools
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Print JSON, one document at the end
    #[arg(long)]
    json: bool,
}

impl ClientArgs {
    /// How fast to send: as asked for, else the default.
    fn aim(&self) -> Rate {
        self.rate.unwrap_or(if self.stream { Rate::Unlimited } else { DEFAULT_RATE })
    }
}

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Unlimited,
    /// Bits of payload per second.
    Bits(u64),
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "unlimited" { Ok(Rate::Unlimited) } else { units::rate(text).map(Rate::Bits) }
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    match args.side {
        Side::Server(args) => server::run(socket, &args),
        Side::Client(args) => {
            check(&args).map_err(Failure::Usage)?;
            client::run(socket, &args)
        }
    }
}

/// Takes in a line as either end of a test would, for the fuzzer: what is heard can be shown.
#[doc(hidden)]
pub fn hear_line(line: &[u8]) {
    let said = talk::hear::<talk::Say>(&mut &line[..]).ok().flatten();
    if let Some(Ok(talk::Say::Interval(counted) | talk::Say::Result(counted))) = said.map(talk::Say::checked) {
        report::show(&counted);
    }
    if let Ok(Some(hello)) = talk::hear::<talk::Hello>(&mut &line[..]) {
        let _ = hello.check();
    }
    let _ = talk::hear::<talk::Done>(&mut &line[..]);
}

fn check(args: &ClientArgs) -> Result<(), String> {
    let (least, most) = (message::HEADER as u64, MAX_PAYLOAD as u64);
    if !(least..=most).contains(&args.size) {
        return Err(format!("--size is from {least} (the test's own header) to {most}"));
    }
    if args.interval < talk::MIN_INTERVAL {
        return Err("--interval is at least 100ms".to_owned());
    }
    if args.messages == Some(0) || args.duration.is_zero() {
        return Err("nothing is to be sent: give --messages or --duration more than 0".to_owned());
    }
    Ok(())
}
