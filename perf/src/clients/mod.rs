//! perf/clients: applications beside the kernel's own ways.

use crate::bench::args::Common;
use crate::bench::latency::Beat;
use crate::bench::report::Report;
use crate::bench::rows::{self, Between, Carrier, Row, Wait};
use std::io;

/// Measures applications on one machine: over memory shared with the router, beside sockets
#[derive(Debug, clap::Args)]
#[command(max_term_width = 98, after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
}

const HELP: &str = "\
Round trips. Two clients of one router, both one thread on the second core, send each other 200
bytes in turn, best effort, and wait for them; the router's worker is pinned to the first core.
A latency is that of both ways.
  memory, socket   how records get from client to worker and back
  spin, wait       what the worker does when there is nothing to do

Streams. As many bytes as go, from a client of one router to a client of its neighbour, encrypted,
over loopback; source and first router share the first core, sink and second router the second.
A message is 1,000 of the stream's bytes; ns/msg is the time of both workers, without that of the
clients. `TCP direct` is a connection of kernel TCP between two ends in one thread, whose time is
all there is: compare its Mbit/s.

Cells called `again` are the socket's once more: their ratio to it is the noise floor.

Examples:
  perf/clients
  perf/clients --only memory --rounds 5 --json > clients.json";

const REQUEST: Beat = Beat { rate: 1, size: 200, burst: 1 };

const fn trip(name: &'static str, idle: &'static str, shares: bool, beside: &'static str) -> Wait {
    Wait { name, between: Between::Clients { idle, shares }, beat: REQUEST, beside }
}

const TRIPS: [Wait; 6] = [
    trip("round trip, socket, spin", "spin", false, "round trip, socket, spin"),
    trip("round trip, memory, spin", "spin", true, "round trip, socket, spin"),
    trip("again, spin", "spin", false, "round trip, socket, spin"),
    trip("round trip, socket, wait", "wait", false, "round trip, socket, wait"),
    trip("round trip, memory, wait", "wait", true, "round trip, socket, wait"),
    trip("again, wait", "wait", false, "round trip, socket, wait"),
];

const fn row(name: &'static str, carrier: Carrier) -> Row {
    Row { name, carrier, size: 1000, pace: None, beside: "stream, socket", sampled: false }
}

const STREAMS: [Row; 4] = [
    row("stream, socket", Carrier::Clients { shares: false }),
    row("stream, memory", Carrier::Clients { shares: true }),
    row("again, stream", Carrier::Clients { shares: false }),
    row("TCP direct", Carrier::Tcp(None)),
];

/// Measures.
pub(crate) fn run(args: &Args) -> io::Result<Report> {
    rows::run(&args.common, &STREAMS, &TRIPS)
}
