//! perf/transit: the router's cells.

use crate::bench::args::Common;
use crate::bench::bare::Calls;
use crate::bench::latency::Beat;
use crate::bench::report::Report;
use crate::bench::rows::{self, BEST_EFFORT, Between, Carrier, RELIABLE, Row, Through, Wait};
use clap::ValueEnum;
use std::io;

/// Measures one router that forwards between neighbours on this machine, beside a bare recvmmsg/sendmmsg forwarder
#[derive(Debug, clap::Args)]
#[command(max_term_width = 98, after_help = HELP)]
pub(crate) struct Args {
    /// What to measure; nothing: everything
    questions: Vec<Question>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// A question that cells answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Question {
    /// How many messages a core forwards when there is always one more
    Saturated,
    /// What a message's time goes to
    Cpu,
    /// What recovery costs when 1 % is lost
    Loss,
    /// What a second worker costs
    Workers,
    /// How long a message takes
    Latency,
}

const HELP: &str = "\
The router is the real binary, its worker pinned to the first core. The neighbours live in one
thread on the second core: their ends of the links are real, but they have no sessions and no
routes to look up, so that they are faster than the router. The bare forwarder takes the
router's place: recvmmsg of 64, one byte changed, sendmmsg of 64, connected sockets.

Load. At most --window messages are on their way, in 32 flows, bundled and in trains as routers
do:
  64 B, 200 B, 1168 B  bytes of a message; 1168 is the largest that is not cut up: a datagram of
                       1219 bytes
  to four              four neighbours behind the router, in turn
  720 B, all off       no two such messages fit a datagram, and the router sends no trains
  at 100000/s          one message a datagram
  two workers          each router has two, and so each link two lanes: the same 32 flows spread over
                       both. All workers of the router share its core, so that only their own cost
                       differs; ns/msg is that of both
  1 % lost             of the datagrams between router and sink, in both directions, drawn at the
                       sink from a fixed seed
ns/msg is the forwarding thread's time on its core (from /proc) per message that arrived.
/beside: messages per core-second over those of the row beside it in the same round; the median,
the best and the worst of the rounds. `bare 200 B again` shows the noise floor of these ratios.
`cpu` samples the forwarding thread with perf (-e cpu-clock); without perf it splits nothing.

Latency. 10,000 messages a second, one at a time, or in bursts of 16 of which each is a datagram
of 720 bytes; timed by one clock from before the source's send to after the sink's receive.
`added` is what the forwarder adds to the direct path of the same kind: plain sockets for the
bare forwarder, two neighbours linked directly for the router.

Examples:
  perf/transit
  perf/transit saturated --rounds 5 --json > saturated.json
  perf/transit saturated --only '64 B'
  perf/transit cpu loss";

const BARE: Carrier = Carrier::Bare(Calls::Many);

const fn row(name: &'static str, carrier: Carrier, size: usize, beside: &'static str) -> Row {
    Row { name, carrier, size, pace: None, beside, sampled: false }
}

const ALL_OFF: Through = Through { split: true, single: true, ..BEST_EFFORT };
const ONE_BY_ONE: Through = Through { split: true, ..RELIABLE };

const SATURATED: [Row; 11] = [
    row("bare 200 B", BARE, 200, "bare 200 B"),
    row("best effort 200 B", Carrier::Router(BEST_EFFORT), 200, "bare 200 B"),
    row("reliable 200 B", Carrier::Router(RELIABLE), 200, "bare 200 B"),
    row("best effort 200 B to four", Carrier::Router(Through { sinks: 4, ..BEST_EFFORT }), 200, "best effort 200 B"),
    row("bare 64 B", BARE, 64, "bare 64 B"),
    row("best effort 64 B", Carrier::Router(BEST_EFFORT), 64, "bare 64 B"),
    row("bare 1168 B", BARE, 1168, "bare 1168 B"),
    row("best effort 1168 B", Carrier::Router(BEST_EFFORT), 1168, "bare 1168 B"),
    row("bare 720 B", BARE, 720, "bare 720 B"),
    row("best effort 720 B, all off", Carrier::Router(ALL_OFF), 720, "bare 720 B"),
    row("bare 200 B again", BARE, 200, "bare 200 B"),
];

const CPU: [Row; 2] = [
    Row { sampled: true, ..row("bare 200 B, sampled", BARE, 200, "bare 200 B, sampled") },
    Row {
        sampled: true,
        ..row("best effort 200 B, sampled", Carrier::Router(BEST_EFFORT), 200, "bare 200 B, sampled")
    },
];

const LOSS: [Row; 2] = [
    Row {
        pace: Some(100_000),
        ..row("reliable at 100000/s", Carrier::Router(ONE_BY_ONE), 200, "reliable at 100000/s")
    },
    Row {
        pace: Some(100_000),
        ..row("the same, 1 % lost", Carrier::Router(Through { loss: 0.01, ..ONE_BY_ONE }), 200, "reliable at 100000/s")
    },
];

const TWO: Through = Through { workers: 2, ..BEST_EFFORT };
const WORKERS: [Row; 5] = [
    row("one worker", Carrier::Router(BEST_EFFORT), 200, "one worker"),
    row("two workers", Carrier::Router(TWO), 200, "one worker"),
    row("one worker, reliable", Carrier::Router(RELIABLE), 200, "one worker, reliable"),
    row("two workers, reliable", Carrier::Router(Through { workers: 2, ..RELIABLE }), 200, "one worker, reliable"),
    row("one worker again", Carrier::Router(BEST_EFFORT), 200, "one worker"),
];

const SINGLE: Beat = Beat { rate: 10_000, size: 200, burst: 1 };
const BURST: Beat = Beat { rate: 10_000, size: 720, burst: 16 };

const fn wait(name: &'static str, between: Between, beat: Beat, beside: &'static str) -> Wait {
    Wait { name, between, beat, beside }
}

const SOCKETS: &str = "direct, sockets";
const LINKED: &str = "direct, linked";
const BURST_SOCKETS: &str = "burst: direct, sockets";
const BURST_LINKED: &str = "burst: direct, linked";

const LATENCY: [Wait; 12] = [
    wait(SOCKETS, Between::Nothing, SINGLE, SOCKETS),
    wait("bare, spin", Between::Bare { calls: Calls::Many, spin: true }, SINGLE, SOCKETS),
    wait("bare, wait", Between::Bare { calls: Calls::Many, spin: false }, SINGLE, SOCKETS),
    wait(LINKED, Between::Link, SINGLE, LINKED),
    wait("router, spin", Between::Router { idle: "spin", single: false }, SINGLE, LINKED),
    wait("router, wait", Between::Router { idle: "wait", single: false }, SINGLE, LINKED),
    wait(BURST_SOCKETS, Between::Nothing, BURST, BURST_SOCKETS),
    wait("burst: bare, spin", Between::Bare { calls: Calls::Many, spin: true }, BURST, BURST_SOCKETS),
    wait("burst: bare one by one", Between::Bare { calls: Calls::One, spin: true }, BURST, BURST_SOCKETS),
    wait(BURST_LINKED, Between::Link, BURST, BURST_LINKED),
    wait("burst: router, trains", Between::Router { idle: "spin", single: false }, BURST, BURST_LINKED),
    wait("burst: router, one by one", Between::Router { idle: "spin", single: true }, BURST, BURST_LINKED),
];

/// Measures what was asked.
pub(crate) fn run(args: &Args) -> io::Result<Report> {
    let asked = |question| args.questions.is_empty() || args.questions.contains(&question);
    let loads = [
        (Question::Saturated, &SATURATED[..]),
        (Question::Cpu, &CPU),
        (Question::Loss, &LOSS),
        (Question::Workers, &WORKERS),
    ];
    let loads: Vec<Row> =
        loads.into_iter().filter(|load| asked(load.0)).flat_map(|load| load.1.iter().copied()).collect();
    rows::run(&args.common, &loads, if asked(Question::Latency) { &LATENCY } else { &[] })
}
