//! Every limit of the system and how it relates to the others.
//!
//! A limit that a room needs is a constant here or a field of its configuration; there is no unbounded queue.

use std::time::Duration;

/// Smallest UDP payload every link must carry: an IPv6 minimum-MTU packet (RFC 8200 section 5) less 48 bytes of headers.
pub const MIN_DATAGRAM: usize = 1232;
/// Largest UDP payload a link may probe for: an Ethernet frame less IPv4 and UDP headers.
pub const MAX_DATAGRAM: usize = 1472;
/// Room for one datagram in a transmit batch.
pub const DATAGRAM_SLOT: usize = 2048;

/// Largest frame body that fits a smallest datagram beside the outer header, the tag and a frame header.
pub const MAX_MESSAGE: usize = 1192;
/// Room for one message in a packet pool: the message, rounded up to whole cache lines.
pub const POOL_SLOT: usize = 1216;

/// Largest payload an application sends as one message.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Paths that a configuration may list for one link.
pub const MAX_PATHS: usize = 4;
/// Links of one router.
pub const MAX_LINKS: usize = 64;
/// Routers of one network. Tables and databases are bounded by it.
pub const MAX_NODES: usize = 4096;
/// Members of one view: a set of them is one word, and all hear each other directly.
pub const MAX_MEMBERS: usize = 64;
/// Sets of service addresses of one group: what a member says of them all fits [`MAX_STATE`].
pub const MAX_SETS: usize = 512;
/// Service addresses of one set.
pub const MAX_SET_ADDRESSES: usize = 64;
/// Health checks of one router: each is asked by the same thread.
pub const MAX_CHECKS: usize = 64;
/// Largest state that a member brings into a view, bytes.
pub const MAX_STATE: usize = 16 * 1024;
/// Processes of one router that are in process groups, or join or leave one: the state of a router names them all.
pub const MAX_PROCESSES: usize = 128;
/// Longest message of a process to its group, bytes: a fraction of what a sender may have under way in its view, and in
/// base64 a line of the control socket.
pub const MAX_GROUP_MESSAGE: usize = 32 * 1024;
/// Workers of one router: as many as a hello can name, and their rings to each other still take little memory.
pub const MAX_WORKERS: usize = 8;
/// Sessions of one worker.
pub const MAX_SESSIONS: usize = 4096;

/// Hops a message may cross. Twice the diameter anyone should build.
pub const DEFAULT_TTL: u8 = 32;

/// Packet numbers a receiver remembers: older ones are refused as replays.
pub const REPLAY_WINDOW: usize = 8192;

/// Timers cannot be trusted below this on ordinary machines (measured tick jitter).
pub const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

const _: () = assert!(MAX_MESSAGE + 8 + 16 + 8 <= MIN_DATAGRAM, "a message and its frame fit a smallest datagram");
const _: () = assert!(MAX_GROUP_MESSAGE + 5 <= MAX_PAYLOAD, "a group's message with its head is one of the membership");
const _: () = assert!(POOL_SLOT >= MAX_MESSAGE, "a pool slot holds any message");
const _: () = assert!(DATAGRAM_SLOT >= MAX_DATAGRAM, "a batch slot holds any datagram");
