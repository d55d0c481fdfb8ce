//! Floor 2: the protocols, as state machines without sockets, clocks or threads.
//!
//! # One contract, two shapes
//!
//! - Time is an argument ([`Instant`](crate::base::Instant)); it never goes backwards between calls. Randomness is a
//!   seeded [`Rng`](crate::base::Rng) given at construction.
//! - After any call that takes input, the caller drains the outputs in this order: deliver → transmit → event → timeout.
//! - `handle_timeout` called early does nothing; called late it does everything that is due.
//! - Malformed input is a counted drop with a reason. A full queue is a value, not an error. A panic means our bug:
//!   invariants are asserted, also in release.
//! - Work per call is bounded by the input or by a stated limit.
//!
//! *Hot* rooms (security, link, session) run in workers, once per packet: typed doors `handle_…` in, `poll_…` out, no
//! allocation after warm-up. *Cold* rooms (routing, vip, …) run in the control thread: one door `handle(now, Input)`, one
//! list `poll_action()`, and `poll_timeout()`; their inputs and actions are plain serialisable enums, so that a recorded
//! list of inputs is a replay.
//!
//! No protocol imports another. Facts they share are types of [`base`](crate::base).

pub mod groups;
pub mod link;
pub mod membership;
pub mod routing;
pub mod security;
pub mod session;
pub mod vip;
