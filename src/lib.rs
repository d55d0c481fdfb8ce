//! Sinew: a structured overlay router.
//!
//! Put one Sinew router in each site you rent, join the routers with a handful of links over the ordinary Internet, and
//! get a network that recovers every lost packet on the link that lost it, reroutes in well under a second, and serves
//! applications with datagrams and streams.
//!
//! # The journey of a packet
//!
//! ```text
//!    application ─ client fd ─┐                                                        ┌─ client fd ─ application
//!                             ▼                                                        ▲
//!        worker thread:    session → forwarding → link → security → [UDP] → security → link → forwarding → session
//!                                        ▲ immutable table, swapped whole                │ reports
//!        control (one thread): routing, membership, vip, admin requests            ◄─────┘
//! ```
//!
//! *Workers* are threads, pinned where cores are named. Each owns its sockets, packet pool, links and sessions outright:
//! no locks, no shared mutable state, no allocation per packet after warm-up. *Control* is one thread that runs all that is
//! not per packet and publishes an immutable forwarding table. Commands flow down and reports flow up over bounded
//! rings. Link liveness runs in the workers, so a busy control thread never looks like a dead link.
//! Service addresses that routers hold together are decided in control and held by a thread of their own, whose right to
//! them the kernel takes away when nobody renews it.
//!
//! A flow's hash picks its lane, worker k's port here to worker k's there, at every router alike, so a message on its way
//! stays with the worker it came to. What must change workers (a session lives where its port is at home) crosses by a
//! ring of the same kind.
//!
//! # The floors, and one invariant for each
//!
//! | floor | rooms | invariant |
//! |---|---|---|
//! | 0 | [`base`] | words only: no state, no system call |
//! | 1 | [`containers`], [`wire`], [`telemetry`], [`config`], [`shm`] | fixed capacity; any bytes give a value or a reason, never a panic |
//! | 2 | [`proto`], [`forwarding`] | time and randomness are arguments; no protocol imports another; one place chooses a next hop |
//! | 3 | [`dataplane`] | a packet has one owner at any time; every packet in is delivered, forwarded or dropped with a reason |
//! | 4 | [`control`] | inputs and actions are data: a recorded list of inputs is a replay |
//! | 5 | [`runtime`], [`sim`], [`client`], [`lab`], [`tune`] | runtime alone makes system calls for the router; sim wraps the same two types |
//! | 6 | [`cli`] | one file per subcommand |
//!
//! A lower floor never imports a higher one; `tests/architecture.rs` keeps it so.
//!
//! # Where to look
//!
//! | question | room |
//! |---|---|
//! | Where does this packet go? | [`forwarding::forward`] |
//! | How is a lost packet recovered? | [`proto::link`] |
//! | What is on the wire? | [`wire`] |
//! | Who may speak to us? | [`proto::security`] |
//! | How do routers agree on the map? | [`proto::routing`] |
//! | Who is together, and in which order do they hear messages? | [`proto::membership`] |
//! | Who is in a process group, and what do its members hear? | [`proto::groups`] |
//! | Which router holds a service address? | [`proto::vip`] |
//! | How does a machine hold it, and lose it when its router dies? | [`runtime::vip`] |
//! | How do these meet? | `control/cluster.rs`, `control/groups/` |
//! | How does an application use this? | [`client`] |
//! | How do its records reach a worker? | [`shm`] |
//! | What holds when everything goes wrong? | [`sim::check`] |
//! | Which worker runs on which core? | [`runtime::machine::placement`] |
//! | What does this machine cost a router? | [`tune`] |

pub mod base;
pub mod cli;
pub mod client;
pub mod config;
pub mod containers;
pub mod control;
pub mod dataplane;
pub mod forwarding;
pub mod lab;
pub mod proto;
pub mod runtime;
pub mod shm;
pub mod sim;
pub mod telemetry;
pub mod tune;
pub mod wire;
