//! Floor 1: fixed-capacity containers. Sized at construction, no allocation afterwards, every overflow a value.

pub mod batch;
pub mod numbers;
pub mod pool;
pub mod ranges;
pub mod sleeper;
pub mod wheel;
pub mod window;

pub use batch::Batch;
pub use numbers::NumberSet;
pub use pool::{Packet, Pool};
pub use ranges::RangeSet;
pub use wheel::Wheel;
pub use window::SequenceWindow;

/// What [`sleeper`] is built from.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicU32, Ordering, fence};
}
