//! Behaviours of a shard beside others, without control.
