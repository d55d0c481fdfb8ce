//! Sinew: a structured overlay router.

pub mod base;
pub mod cli;
pub mod client;
pub mod config;
pub mod containers;
pub mod control;
pub mod dataplane;
pub mod forwarding;
pub mod lab;
pub mod proto;
pub mod runtime;
pub mod sim;
pub mod telemetry;
pub mod wire;
