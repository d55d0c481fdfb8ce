//! (room)
use crate::base::{Port, SessionId};
use crate::wire::client::Endpoint;
use serde::{Deserialize, Serialize};

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum SessionKind {
    /// Datagrams to and from anyone.
    Datagram {
        /// Its port; 0 lets the router choose.
        port: Port,
    },
    /// Waits for streams.
    Listener {
        /// Its port; 0 lets the router choose.
        port: Port,
    },
    /// A stream to `to`.
    Stream {
        /// The listener at the other end.
        to: Endpoint,
    },
}

/// Why a session was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Another session holds the port.
    #[error("another session holds this port")]
    PortInUse,
    /// The router holds as many sessions as it may.
    #[error("the router holds as many sessions as it may")]
    TooMany,
}

/// A session's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionReport {
    /// Which.
    pub session: SessionId,
    /// `datagram`, `listener` or `stream`.
    pub kind: String,
    /// Its port.
    pub port: Port,
    /// The other end of a stream.
    pub peer: Option<Endpoint>,
    /// Application messages or stream segments sent.
    pub sent: u64,
    /// Application messages or stream segments delivered.
    pub delivered: u64,
    /// Segments repeated end to end.
    pub repeated: u64,
    /// Bytes sent and not yet acknowledged by the other end.
    pub unacknowledged: u64,
    /// Bytes waiting for the application to read.
    pub unread: u64,
}
