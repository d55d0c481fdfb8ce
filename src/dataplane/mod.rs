//! Floor 3: the shard.

pub mod messages;
