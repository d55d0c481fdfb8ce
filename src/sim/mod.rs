//! Floor 5: a whole network in one thread, from one seed, in virtual time.
//!
//! The very [`Shard`](crate::dataplane::Shard) and [`Control`](crate::control::Control) that production runs, on
//! virtual wires that carry the real sealed datagrams. Nothing is mocked: what is missing is only sockets, clocks and
//! threads.
//!
//! ```text
//!  campaign: seed ─► topology, workload, fault script ─► World ─► checkers ─► verdict and trace hash
//!                                                          │
//!            heap of events: datagram arrives · router's timer · application's turn · fault strikes
//!                                                          │
//!            Router: Shard ⇄ Control, driven exactly as runtime/ drives them
//! ```
//!
//! - [`world`] owns time, the event heap and the routers; [`wire`] decides what happens to a datagram on its way.
//! - [`workload`] is the applications: streams and datagrams whose every byte is checked where it arrives.
//! - [`plan`] is everything that makes a run: drawn from a seed, or read from a scenario file. [`fault`] is what can go
//!   wrong, `swarm` draws what does, [`ledger`] counts what did.
//! - `vips` is the group that shares service addresses, in the runs that have one; `host` is its members' kernels.
//! - [`check`] says what must hold all the same, one small file a rule.
//! - [`campaign`] runs a plan in two phases: faults, in which nothing wrong may be delivered, then a connected core heals,
//!   after which it must converge and everything must arrive within a bound that follows from its shape (`bound`).
//! - [`shrink`] makes the plan of a run that failed as short as it can be and still fail.
//! - [`experiment`] measures latencies, for `sinew lab --sim`.
//! - [`growth`] takes a network of any size through boot, loss and healing, and says what it costs.

mod bound;
pub mod campaign;
mod capture;
pub mod check;
mod clock;
mod conditions;
pub mod experiment;
pub mod fault;
pub mod growth;
mod host;
pub mod ledger;
mod observe;
pub mod plan;
mod router;
pub mod shrink;
mod storm;
mod swarm;
pub mod topology;
mod units;
mod vips;
pub mod wire;
pub mod workload;
pub mod world;

/// Workers of a router, where their number is drawn.
const MOST_WORKERS: u64 = 3;

#[cfg(test)]
mod tests;
