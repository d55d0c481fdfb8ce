//! What the room counts.

use crate::telemetry::Drops;
use serde::{Deserialize, Serialize};

/// Counters of the security room of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityStats {
    /// Packets sealed.
    pub sealed: u64,
    /// Packets opened.
    pub opened: u64,
    /// Handshakes begun by this router.
    pub initiations_sent: u64,
    /// Handshakes of members answered.
    pub responses_sent: u64,
    /// Handshake messages that cost public-key work for their receiver, this router.
    pub key_exchanges: u64,
    /// Links that began a new life under new keys.
    pub established: u64,
    /// Changes of keys within a life.
    pub rekeyed: u64,
    /// Links whose keys ran out before there were new ones.
    pub expired: u64,
    /// Senders asked to prove their address.
    pub cookies_sent: u64,
    /// Times this router was asked to prove its address.
    pub cookies_received: u64,
    /// Peers whose address changed.
    pub moved: u64,
    /// Handshake messages that found the queue of outgoing ones full; their senders try again.
    pub outbox_full: u64,
    /// Datagrams dropped, by reason.
    pub drops: Drops,
}
