//! Floor 3: the shard, everything that happens to a packet inside one worker.
//!
//! ```text
//!  datagram ─► security ─► link ─► forward() ─┬─► session ─► record for an application
//!                                             └─► link ─► security ─► datagram
//!  record ───► session ──► forward() ─────────┘
//! ```
//!
//! [`Shard`] owns its pool, its keys, its lanes and its sessions outright and is itself without sockets, clock or
//! threads: runtime/ drives it from a pinned thread, sim/ from an event heap. [`messages`] is all it says to control.
//!
//! A message that loses its link is *stranded*, not lost: reliable messages that a dead link had not delivered wait
//! for the next table and are forwarded again; sessions drop what arrives twice.

mod lane;
pub mod messages;
mod shard;
mod stranded;

pub use crate::proto::session::Readiness;
pub use shard::{Shard, ShardSettings};

#[cfg(test)]
mod tests;
