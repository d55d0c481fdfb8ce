//! System tests: the real binary, in network namespaces of its own, over emulated links.
//!
//! Run by plain `cargo test`, as root and as an ordinary user. What this machine cannot run says so on standard error and
//! is counted; the last line of the program's standard error says how many ran and how many did not.
//! `SINEW_TEST_IO=uring|mmsg cargo test --test system` runs all of them over that io back-end, where otherwise the routers
//! choose; tests that name the other are then left out. `SINEW_TEST_OFFLOAD=off` has all routers send and receive without
//! the kernel's trains of datagrams.
//!
//! | file | what is shown |
//! |---|---|
//! | `two_routers` | datagrams, streams, every command's JSON and exit codes, under both io back-ends |
//! | `chain` | nothing lost or doubled over a lossy link in the middle |
//! | `ring` | how long traffic pauses when a router or link in use dies |
//! | `strangers` | wrong keys and floods of garbage disturb nobody |
//! | `unanswered` | commands to whom nobody answers: unknown, without a route or robbed of it, cut off |
//! | `clients` | applications that die, misbehave or do not read disturb nobody; a killed router is noticed |
//! | `restart` | routers that come back |
//! | `addresses` | links live on when a router's own address changes |
//! | `paths` | a link over two providers outlives one of them, and nothing is lost |
//! | `reload` | SIGHUP, good and bad configurations |
//! | `workers` | routers with several workers, as many as their neighbours or not |
//! | `groups` | process groups: members far apart, cut off, killed, slow |
//! | `vip` | virtual addresses: reached, handed over, silent when their owner is killed, stopped or hangs |
//! | `cluster` | members that share virtual addresses: killed, frozen, cut off, moved, unequal |
//! | `flows` | connections through routers with a stateful packet filter outlive the router that has their gateway |
//! | `chaos` | random faults of every kind under traffic whose every byte is checked |

// Tests of real processes wait for real time.
#![allow(clippy::disallowed_methods)]

#[path = "system/addresses.rs"]
mod addresses;
#[path = "system/chain.rs"]
mod chain;
#[path = "system/chaos.rs"]
mod chaos;
#[path = "system/clients.rs"]
mod clients;
#[path = "system/cluster.rs"]
mod cluster;
#[path = "system/flows.rs"]
mod flows;
#[path = "system/groups.rs"]
mod groups;
#[path = "system/holder.rs"]
mod holder;
#[path = "system/lan.rs"]
mod lan;
#[path = "system/loopback.rs"]
mod loopback;
#[path = "system/members.rs"]
mod members;
#[path = "system/paths.rs"]
mod paths;
#[path = "system/reload.rs"]
mod reload;
#[path = "system/restart.rs"]
mod restart;
#[path = "system/ring.rs"]
mod ring;
#[path = "system/strangers.rs"]
mod strangers;
#[path = "system/support.rs"]
mod support;
#[path = "system/traffic.rs"]
mod traffic;
#[path = "system/two_routers.rs"]
mod two_routers;
#[path = "system/unanswered.rs"]
mod unanswered;
#[path = "system/vip.rs"]
mod vip;
#[path = "system/workers.rs"]
mod workers;
