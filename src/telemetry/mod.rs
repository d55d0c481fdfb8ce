//! Floor 1: counters, histograms, event records and their renderings. No sockets, no clocks.

pub mod drops;
pub mod figure;
pub mod hgrm;
pub mod histogram;
pub mod hlog;
pub mod prometheus;
pub mod table;

pub use drops::{DropReason, Drops};
pub use histogram::{Counts, Histogram, Summary};
pub use table::Table;
