//! Floor 1: counters, histograms, event records and their renderings. No sockets, no clocks.

pub mod drops;
pub mod histogram;

pub use drops::{DropReason, Drops};
pub use histogram::{Histogram, Summary};
