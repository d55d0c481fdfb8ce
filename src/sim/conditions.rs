//! The condition of one direction of a wire.

use super::units::millis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A wire that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flap {
    /// How long it is whole, ms.
    #[serde(with = "millis")]
    pub up: Duration,
    /// How long it is cut then, ms.
    #[serde(with = "millis")]
    pub down: Duration,
}

/// The condition of one direction of a wire. Probabilities are per datagram, durations are written in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// Constant delay.
    #[serde(with = "millis")]
    pub delay: Duration,
    /// Extra delay, uniform from zero to this. Does not reorder by itself.
    #[serde(with = "millis")]
    pub jitter: Duration,
    /// Probability that a spike of delay begins: it decays by a thousandth each microsecond, so order is kept.
    pub spike: f64,
    /// Height of a spike.
    #[serde(with = "millis")]
    pub spike_height: Duration,
    /// Probability that a datagram is lost on its own.
    pub loss: f64,
    /// Probability that the bad state of the Gilbert–Elliott model begins.
    pub burst: f64,
    /// Probability that the bad state ends.
    pub burst_end: f64,
    /// Probability that a datagram is lost in the bad state.
    pub burst_loss: f64,
    /// Probability that a datagram is held back and overtaken by later ones.
    pub reorder: f64,
    /// Probability that a datagram arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a datagram is flipped.
    pub corrupt: f64,
    /// Probability that a datagram is cut short.
    pub truncate: f64,
    /// Largest packet that passes, bytes with IP and UDP headers; none for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<usize>,
    /// Largest packet that the sender's own interface takes; larger ones are errors. None for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_mtu: Option<usize>,
    /// Bits per second; none for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Most bytes waiting for a limited rate; what does not fit is dropped.
    pub queue: usize,
    /// The delay counts from when a limited rate takes a datagram up, not from when its last bit has left, so that an idle
    /// wire adds its delay and nothing for a datagram's length.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub taken_up: bool,
    /// Probability that the kernel takes a datagram not now (EAGAIN).
    pub send_again: f64,
    /// Probability that the kernel has no buffer for a datagram (ENOBUFS).
    pub send_no_buffers: f64,
    /// It comes and goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flap: Option<Flap>,
    /// Nothing arrives.
    pub cut: bool,
}

impl Conditions {
    /// A faultless wire with this delay.
    pub const fn perfect(delay: Duration) -> Conditions {
        Conditions {
            delay,
            jitter: Duration::ZERO,
            spike: 0.0,
            spike_height: Duration::ZERO,
            loss: 0.0,
            burst: 0.0,
            burst_end: 0.25,
            burst_loss: 1.0,
            reorder: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            truncate: 0.0,
            mtu: None,
            interface_mtu: None,
            rate: None,
            queue: 64 * 1024,
            taken_up: false,
            send_again: 0.0,
            send_no_buffers: 0.0,
            flap: None,
            cut: false,
        }
    }

    /// The longest a datagram can be under way, a queue for a limited rate included.
    pub fn longest(&self) -> Duration {
        let queued =
            self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.queue as f64 * 8.0 / rate as f64));
        let spike = if self.spike > 0.0 { self.spike_height } else { Duration::ZERO };
        self.delay * 2 + self.jitter + spike + queued
    }

    /// The same with one fault after another taken out: what shrinking tries.
    pub fn milder(&self) -> Vec<Conditions> {
        let perfect = Conditions::perfect(self.delay);
        let all = [
            perfect,
            Conditions { jitter: Duration::ZERO, spike: 0.0, spike_height: Duration::ZERO, ..*self },
            Conditions { loss: 0.0, ..*self },
            Conditions { burst: 0.0, burst_end: 0.25, burst_loss: 1.0, ..*self },
            Conditions { reorder: 0.0, ..*self },
            Conditions { duplicate: 0.0, ..*self },
            Conditions { corrupt: 0.0, truncate: 0.0, ..*self },
            Conditions { mtu: None, interface_mtu: None, ..*self },
            Conditions { rate: None, queue: perfect.queue, ..*self },
            Conditions { send_again: 0.0, send_no_buffers: 0.0, ..*self },
            Conditions { flap: None, ..*self },
        ];
        all.into_iter().filter(|milder| milder != self).collect()
    }
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions::perfect(Duration::from_millis(1))
    }
}
