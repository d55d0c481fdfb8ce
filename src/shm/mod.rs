//! Floor 1: memory that an application shares with its router, and the two rings in it.
//!
//! A session of an application on the router's own machine can pass its records through memory instead of through its
//! socket: a copy into a ring and a copy out of it, and no system call while both sides are awake. The socket stays: it
//! tells when either side is gone, it is what an application polls, and it wakes whoever sleeps.
//!
//! ```text
//!   application                         shared memory                            router's worker
//!   Producer ── records ──►  up: head ▸ │▒▒▒▒ ring ▒▒▒▒│ ▸ tail   ── records ──► Consumer
//!   Consumer ◄── records ──  down: tail ◂ │▒▒▒ ring ▒▒▒│ ◂ head   ◄── records ── Producer
//!            ◄═══════════ bells and plugs over the session's socket ═══════════►
//! ```
//!
//! # What crosses the socket
//! - A **bell**, one byte: something was put into the ring of a side that had said that it sleeps ([`Sleeper`]). Nobody
//!   rings for a side that is awake.
//! - A **plug**, [`PLUG`] bytes: it found the ring full. It fills its sender's socket buffer, so that the socket is not
//!   writable; the other side takes it when the ring is half empty, and the socket is writable again.
//!
//! So the socket is readable when there is something to read, and writable when there is room, as if the records went
//! through it, and `poll` and `epoll` need to know nothing of rings. [`bells`] has the rule that makes the first true.
//!
//! # Trust
//! Neither side trusts the other. Each keeps its own position and only publishes it; what the other publishes is read
//! once and checked ([`Nonsense`]); a record's length is read once; its bytes are copied out before anyone looks at them.
//! Where they are shared they are reached by raw pointers alone, never by references. The memory's size is sealed
//! (`F_SEAL_SHRINK`, `F_SEAL_GROW`), so that no access can fault.
//!
//! # Layout
//! Words stand in cache lines of their own ([`memory::Words`]); positions count bytes and never wrap, so a position
//! modulo [`RING`] is a place in the ring. A record begins at a multiple of 8 with its length (u64), and its bytes follow;
//! where the ring ends they go on at its beginning.
//!
//! Beside `runtime`, `client` and `lab` this room alone makes system calls: to make the memory and to map it.

pub mod bells;
pub mod memory;
pub mod ring;
#[cfg(test)]
mod tests;

pub use crate::containers::sleeper::Sleeper;
pub use bells::{Bells, Taken};
pub use memory::{Memory, Way};
pub use ring::{Consumer, Producer};

use crate::wire::client::MAX_RECORD;

/// Bytes of a ring: three of the largest records, and what else is on its way while a side is woken.
pub const RING: usize = 256 << 10;
/// Bytes of a plug: more than a quarter of [`SOCKET_BUFFER`], above which a socket is not writable.
pub const PLUG: usize = 9000;
/// Send buffer of either end of the socket, as the kernel counts it (twice what is asked for), bytes: a plug makes it
/// unwritable, a few bells do not (the kernel counts 768 bytes for each).
pub const SOCKET_BUFFER: usize = 32 << 10;

const _: () = assert!(RING.is_power_of_two() && RING >= 3 * (MAX_RECORD + 16), "records of every size overtake none");
const _: () = assert!(4 * PLUG > SOCKET_BUFFER && PLUG + 32 < SOCKET_BUFFER, "one plug is enough, and fits");

/// The other side published what cannot be: it is broken, or means harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonsense;
