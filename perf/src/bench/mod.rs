//! What the measurements share.
//!
//! | file | noun |
//! |---|---|
//! | `rows` | what is measured, and measuring it |
//! | `load`, `latency` | the two measurements, over any `path` |
//! | `path`, `overlay`, `tcp` | plain sockets; neighbours of the overlay; streams and their relays |
//! | `neighbour`, `lane`, `net` | one neighbour; its end of the link; its socket |
//! | `bare`, `router`, `clients` | what stands between source and sink; applications of routers |
//! | `machine`, `shares`, `figures` | cores, use of them, noise; what a thread does; small statistics |
//! | `args`, `report` | the common options; the tables and the JSON |

pub(crate) mod args;
pub(crate) mod bare;
mod clients;
pub(crate) mod figures;
mod lane;
pub(crate) mod latency;
pub(crate) mod load;
pub(crate) mod machine;
mod neighbour;
mod net;
mod overlay;
mod path;
pub(crate) mod report;
mod router;
pub(crate) mod rows;
mod shares;
pub(crate) mod tcp;
