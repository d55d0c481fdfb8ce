//! Virtual addresses: who holds which, and what the host is told to do about it.

mod host;

pub use host::{HostCommand, HostReport};
