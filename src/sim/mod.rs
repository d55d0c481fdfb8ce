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
//! - [`fault`] writes the script of what goes wrong; [`check`] says what must hold all the same.
//! - [`campaign`] runs a seed in two phases: faults, in which nothing wrong may be delivered, then healing, after which
//!   everything must arrive within a bound.
//! - [`experiment`] measures latencies, for `sinew lab --sim`.

pub mod campaign;
pub mod check;
pub mod experiment;
pub mod fault;
mod router;
pub mod topology;
pub mod wire;
pub mod workload;
pub mod world;

#[cfg(test)]
mod tests;
