//! Floor 5: the only system calls.
//!
//! ```text
//!            ┌───────── control loop (mio) ─────────┐      Unix socket ── commands, applications
//!            │ Control: reports in, actions out     │      signals, timers
//!            └──┬───────────────▲────────────────┬──┘
//!      ToWorker │ ring          │ ring   Report  │ one end of each session's descriptor, to its application
//!            ┌──▼───────────────┴──┐             ▼
//!            │ worker k: Shard     │══ records ══ application, by socket or shared memory
//!            │ io: uring or mmsg   │══ UDP, port + k ══ neighbours
//!            │                     │── rings both ways ── every other worker
//!            └─────────────────────┘
//! ```
//!
//! [`run`] is `sinew run`: it loads the key, chooses the io backend by a test, binds every socket before it starts any
//! thread, starts the workers, and runs the control loop until a signal ends it. [`Background`] is the same router inside
//! another program.
//!
//! | file | noun |
//! |---|---|
//! | [`clock`] | the only clock and the only entropy |
//! | [`ring`], [`doorbell`] | what crosses between threads, and how a sleeper is woken |
//! | [`io`] | the two backends and the choice between them |
//! | `udp` | a worker's sockets: one listening, one connected to each neighbour |
//! | `worker`, [`pace`], `sessions`, `carrier` | the worker loop; when it waits; its sessions; what carries their records |
//! | `control_loop`, `control_socket`, `lines` | the control loop; its clients; their lines |
//! | `metrics`, `http` | the metrics' port; what it understands of HTTP |
//! | `scribe`, `interval_log`, [`histogram_files`] | histograms written to files |
//! | `complaints` | what the log says of what the kernel refuses, once for each reason |
//! | `start` | from a configuration to a running router |
//! | `child` | programs started beside the router, as another user |
//! | [`vip`] | virtual addresses on this host: the lease, announcements, health, hooks |
//! | [`machine`] | the processors, which of them workers run on, and how noisy they are |
//! | `signals`, [`capabilities`], [`memory`], [`notify`], [`key_file`] | the process and its surroundings |
//! | `sys` | safe signatures over system calls |
//!
//! `unsafe` lives in this room, in [`shm`](crate::shm), and in the client's few lines for passing descriptors, nowhere else.

#![allow(clippy::disallowed_methods, reason = "this room is where the clock and the threads are")]

pub mod capabilities;
mod carrier;
mod child;
pub mod clock;
mod complaints;
mod control_loop;
mod control_socket;
pub mod doorbell;
pub mod histogram_files;
mod http;
mod interval_log;
pub mod io;
pub mod key_file;
mod lines;
pub mod machine;
pub mod memory;
mod metrics;
pub mod netlink;
#[cfg(test)]
pub(crate) mod not_run;
pub mod notify;
pub mod pace;
pub mod ring;
mod scribe;
mod sessions;
mod signals;
mod start;
mod sys;
#[cfg(test)]
mod tests;
mod udp;
pub mod vip;
mod worker;

pub use start::{Background, RunError, run};
