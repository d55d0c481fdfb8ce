//! Floor 0: the words everyone uses.
//!
//! Identifiers, time, sequence numbers, limits and seeded randomness. Nothing here imports another room, reads a
//! clock, opens a socket or allocates more than a string for display (but for what a simulator asks it to remember,
//! `verdicts.rs`).

pub mod addresses;
pub mod class;
pub mod hash;
pub mod id;
pub mod identity;
pub mod limits;
pub mod obstacle;
pub mod rare;
pub mod rng;
pub mod sabotage;
pub mod search;
pub mod seq;
pub mod time;
pub mod topology;
pub mod verdicts;
pub mod view;
pub mod worker;

pub use addresses::AddressPair;
pub use class::Class;
pub use id::{LinkId, NodeId, Port, SessionId};
pub use identity::{Identity, PublicIdentity};
pub use obstacle::Obstacle;
pub use rng::Rng;
pub use time::{Instant, WallTime};
pub use topology::{DownReason, LinkMetrics, LinkState};
pub use view::{View, ViewId};
pub use worker::Worker;
