//! Where datagrams come from and go to.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The two ends of a path: the neighbour's address and, where this router has an address of its own for the path, that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressPair {
    /// This router's address on the path; none leaves the choice to the kernel.
    pub local: Option<IpAddr>,
    /// The neighbour's address and port.
    pub remote: SocketAddr,
}

impl From<SocketAddr> for AddressPair {
    fn from(remote: SocketAddr) -> AddressPair {
        AddressPair { local: None, remote }
    }
}

impl fmt::Display for AddressPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local {
            None => write!(f, "{}", self.remote),
            Some(local) => write!(f, "{} from {local}", self.remote),
        }
    }
}
