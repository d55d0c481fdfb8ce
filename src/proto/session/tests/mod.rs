//! Behaviours, seen from the applications and from the wire.

mod datagrams;
mod echoes;
mod harness;
mod holdings;
mod random;
mod stalls;
mod streams;
