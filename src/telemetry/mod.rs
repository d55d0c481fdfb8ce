//! Floor 1: counters, histograms, event records and their renderings. No sockets, no clocks.
//!
//! [`stages`] shows where a message's time goes.

pub mod drops;
pub mod figure;
mod friendly;
pub mod hgrm;
pub mod histogram;
pub mod hlog;
pub mod prometheus;
pub mod stages;
pub mod table;

pub use drops::{DropReason, Drops};
pub use friendly::friendly;
pub use histogram::{Counts, Histogram, Summary};
pub use table::Table;
