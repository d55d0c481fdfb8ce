//! perf/compare: the router beside bare forwarders and TCP.

use crate::bench::args::Common;
use crate::bench::bare::Calls;
use crate::bench::report::Report;
use crate::bench::rows::{self, BEST_EFFORT, Carrier, RELIABLE, Row, Through};
use crate::bench::tcp::Relaying;
use std::io;

/// Measures the router beside bare forwarders, kernel TCP and TCP relays, in one interleaved run
#[derive(Debug, clap::Args)]
#[command(max_term_width = 98, after_help = HELP)]
pub(crate) struct Args {
    /// Bytes of a message; 1168 is the largest that the router's neighbours do not have to cut up
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(16..=1168))]
    size: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

const HELP: &str = "\
Everything passes messages of one size from a source to a sink, as many as go; both ends are one
thread on the second core, what is between them is pinned to the first:
  recvmmsg/sendmmsg    64 datagrams a call, a byte of each changed: the reference
  recvfrom/sendto      a call for each datagram
  GRO + GSO            trains of datagrams, which leave as they came
  sinew best effort    the router: opened, routed, sealed; bundled and in trains
  sinew reliable       the same, and recovered hop by hop
  sinew, no trains     best effort with offload = \"off\"
  TCP relay, copy      read and write of streams
  TCP relay, splice    the same within the kernel
  TCP direct           no relay: the time is that of both ends together
  again                recvmmsg/sendmmsg once more: its ratio to itself is the noise floor

Only sinew encrypts; only it and TCP repeat what is lost. A stream of TCP is one connection:
one byte lost holds up all behind it; sinew's 32 flows and the plain datagrams do not wait for
each other. `perf/transit --help` says what the columns are.

Examples:
  perf/compare
  perf/compare --size 1168 --rounds 5
  perf/compare --json > compare.json";

const REFERENCE: &str = "recvmmsg/sendmmsg";

const CARRIERS: [(&str, Carrier); 10] = [
    (REFERENCE, Carrier::Bare(Calls::Many)),
    ("recvfrom/sendto", Carrier::Bare(Calls::One)),
    ("GRO + GSO", Carrier::Bare(Calls::Trains)),
    ("sinew best effort", Carrier::Router(BEST_EFFORT)),
    ("sinew reliable", Carrier::Router(RELIABLE)),
    ("sinew, no trains", Carrier::Router(Through { single: true, ..BEST_EFFORT })),
    ("TCP relay, copy", Carrier::Tcp(Some(Relaying::Copy))),
    ("TCP relay, splice", Carrier::Tcp(Some(Relaying::Splice))),
    ("TCP direct", Carrier::Tcp(None)),
    ("again", Carrier::Bare(Calls::Many)),
];

/// Measures.
pub(crate) fn run(args: &Args) -> io::Result<Report> {
    let size = args.size as usize;
    let row = |&(name, carrier)| Row { name, carrier, size, pace: None, beside: REFERENCE, sampled: false };
    let rows: Vec<Row> = CARRIERS.iter().map(row).collect();
    rows::run(&args.common, &rows, &[])
}
