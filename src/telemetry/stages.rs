//! Where time goes: every latency that a router measures, what it is of, and what it is called.
//!
//! ```text
//!  a message in transit                                  on its way between two routers
//!
//!  wire ─▶ kernel's    worker's    link's       worker's    kernel ─▶ wire ─▶ kernel's   ...
//!          socket      turn        queue        turn                          socket
//!          ├───────────┼─────────────────────────────────┤                    │
//!           socket-wait             residence            │                    │
//!                      ├───────────────────┤             │                    │
//!                          queue-wait      │             ├───────────────────▶│
//!                                 ├────────┤                    one-way
//!                                 pacing-wait            ├───────────────────▶│
//!                                                        │◀───────────────────┤
//!                                                              round-trip
//!
//!  lost: first sent ├──────────────────────────────────────────┤ acknowledged       recovery, at the sender
//!                             missed ├─────────────────┤ repetition arrived         gap, at the receiver
//! ```
//!
//! - *socket-wait*: from a datagram's arrival (the kernel's receive time, SO_TIMESTAMPNS) to the reading of the clock in the
//!   turn that takes it in. It grows when the worker is busy, asleep or not scheduled. Of the datagrams of a train, the
//!   first one's. Both times are by the wall clock; a step of it between the two spoils what waits at that moment.
//! - *residence*: from taken in to handed to the kernel, which is when the system call of its batch has returned. One a
//!   datagram, of its message that stayed longest. With the socket wait before it, it is all the time that a message spends
//!   in this machine.
//! - *queue-wait*: the part of the residence before the message's turn came to leave: other messages were before it, the
//!   window was closed, or the pacer held it back.
//! - *pacing-wait*: pauses of the pacer while the window was open, one each; a link that never held anything back has none.
//! - *recovery*, *gap*: what a loss on this link cost, seen from its sender (first sent to acknowledged) and from its
//!   receiver (missed to arrived); only of what was lost.
//! - *one-way*, *round-trip*: the network between two routers. One-way is measured between two clocks and right within the
//!   error that is stated with it (half of the least round trip, and drift).
//! - *turn*: the work of one turn of the worker's loop. Times within a turn are not told apart: the clock is read at its
//!   beginning, and again when a batch was handed over.
//!
//! Histograms are HdrHistogram's: 1 µs to 100 s with 1 % precision, recorded without allocation, one a worker (or a lane of
//! a link), added up where they are shown.

/// One latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What its histogram is called among a router's statistics.
    pub histogram: &'static str,
    /// The stage.
    pub name: &'static str,
    /// Of messages of this class, where it has a class.
    pub class: Option<&'static str>,
    /// What it is of.
    pub meaning: &'static str,
    /// Whether it is a stay in this router, and not of the network between two.
    pub inside: bool,
}

const fn stage(
    histogram: &'static str,
    name: &'static str,
    class: Option<&'static str>,
    inside: bool,
    meaning: &'static str,
) -> Stage {
    Stage { histogram, name, class, meaning, inside }
}

const BEST_EFFORT: Option<&str> = Some("best-effort");
const RELIABLE: Option<&str> = Some("reliable");
const CONTROL: Option<&str> = Some("control");

/// All of them, in the order in which they are shown.
pub const STAGES: [Stage; 13] = [
    stage("turn", "turn", None, true, "the work of one turn of the worker's loop"),
    stage("socket_wait", "socket-wait", None, true, "datagrams: arrived at the kernel to taken in by the worker"),
    stage(
        "residence_best_effort",
        "residence",
        BEST_EFFORT,
        true,
        "a datagram's messages: taken in to handed to the kernel",
    ),
    stage("residence_reliable", "residence", RELIABLE, true, "a datagram's messages: taken in to handed to the kernel"),
    stage("queue_delay_best_effort", "queue-wait", BEST_EFFORT, true, "messages: taken in to sent first"),
    stage("queue_delay_reliable", "queue-wait", RELIABLE, true, "messages: taken in to sent first"),
    stage("pacing_wait", "pacing-wait", None, false, "pauses of the pacer: held back to let go"),
    stage("recovery_reliable", "recovery", RELIABLE, false, "lost messages: first sent to confirmed"),
    stage("recovery_control", "recovery", CONTROL, false, "lost messages: first sent to confirmed"),
    stage("gap_reliable", "gap", RELIABLE, false, "messages lost on the way here: missed to arrived"),
    stage("gap_control", "gap", CONTROL, false, "messages lost on the way here: missed to arrived"),
    stage("round_trip", "round-trip", None, false, "to the neighbour and back, without its delay"),
    stage("one_way", "one-way", None, false, "from the neighbour to here, right within the stated error"),
];

/// The stage whose histogram is called so.
pub fn of(histogram: &str) -> Option<&'static Stage> {
    STAGES.iter().find(|stage| stage.histogram == histogram)
}
