//! Floor 3: the shard, everything that happens to a packet inside one worker.
//!
//! ```text
//!  datagram ─► security ─► link ─► forward() ─┬─► session ─► record for an application
//!                                             └─► link ─► security ─► datagram
//!  record ───► session ──► forward() ─────────┘
//! ```
//!
//! [`Shard`] owns its pool, its keys, its lanes and its sessions outright and is itself without sockets, clock or
//! threads: runtime/ drives it from a pinned thread, sim/ from an event heap. [`messages`] is all it says to control,
//! [`crossing`] all it says to the shards of the router's other workers.
//!
//! A shard is one worker's, and has the lane of every link that is this worker's. Where a flow's lane and a session's
//! home are, [`forward`](crate::forwarding::forward) says; on the way of a message that does not cross, a worker writes
//! no memory that another one reads or writes.
//!
//! A message that loses its link is *stranded*, not lost: reliable messages that a dead link had not delivered wait
//! for the next table and are forwarded again; sessions drop what arrives twice.

pub mod crossing;
mod lane;
pub mod messages;
mod shard;
mod stranded;

pub use crate::proto::session::Readiness;
pub use shard::{Shard, ShardSettings};

#[cfg(test)]
mod tests;
