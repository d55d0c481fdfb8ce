//! Behaviours of links over virtual wires.

mod experiment;
mod harness;
mod latency;
mod limits;
mod liveness;
mod recovery;
mod sharing;
mod tcp;

use super::{Congestion, Event, LinkStats, Settings};
use crate::base::limits::MIN_DATAGRAM;
use crate::base::{Class, DownReason, Instant};
use crate::telemetry::DropReason;
use harness::{Figures, Machine, PATH, Sim, Wire, id_of, message};
use std::time::Duration;
use tcp::Tcp;

const RELIABLE: Class = Class::Reliable;
const BEST_EFFORT: Class = Class::BestEffort;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn lossy(delay_ms: u64, loss: f64) -> Wire {
    Wire { loss, ..Wire::new(delay_ms) }
}

/// Share of packets with messages that carried a repeated one.
fn repeated_share(stats: &LinkStats) -> f64 {
    stats.retransmissions as f64 / (stats.reliable.sent + stats.retransmissions) as f64
}
