//! What goes into control and what comes out.

use crate::base::{NodeId, SessionId};
use crate::config::settings::Config;
use crate::dataplane::messages::{Command, Report};
use crate::proto::routing;
use crate::proto::vip::{HostCommand, HostReport};
use crate::wire::admin::{Request, Response};

/// One connection of the control socket. The driver never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// What happens to control.
#[derive(Clone, Debug)]
pub enum Input {
    /// A worker reports.
    Report {
        /// Which worker.
        worker: usize,
        /// What.
        report: Report,
    },
    /// A connection of the control socket asks.
    Request {
        /// Which connection.
        client: ClientId,
        /// What it asks.
        request: Request,
    },
    /// The connection is closed.
    ClientGone(ClientId),
    /// The connection is closed because its other end does not read what it is told.
    ClientSlow(ClientId),
    /// The descriptor of an [`Action::Attach`] could not be made or handed over; nothing was sent to the client.
    SessionAttachFailed(SessionId),
    /// The configuration was read again, because of [`Action::ReadConfig`] or of a signal.
    Reload(Result<Box<Config>, String>),
    /// The driver runs: several times in each lease of service addresses, and before anything else when it wakes up. After
    /// this, and after [`Control::woke`](super::Control::woke), whoever keeps the lease is told that it does.
    Beat,
    /// The process of this neighbour has ended, as it seems.
    Ended(NodeId),
    /// The host side did what it was told, or saw something.
    Host(HostReport),
    /// What a health check of service addresses found.
    Health {
        /// Its place in the configuration.
        check: usize,
        /// Whether it passed.
        ok: bool,
    },
    /// The host side has something to say to those of other members.
    HostSays {
        /// To whom; to all if to none.
        to: Option<NodeId>,
        /// The message ([`wire::flows`](crate::wire::flows)).
        bytes: Box<[u8]>,
    },
    /// Leave the network, then [`Action::Exit`].
    Shutdown,
    /// A moment named by [`Control::poll_timeout`](super::Control::poll_timeout) has come.
    Timer,
}

/// What control wants done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Hand a command to a worker.
    Command {
        /// Which worker.
        worker: usize,
        /// What.
        command: Command,
    },
    /// Send a line to a connection.
    Reply {
        /// Which connection.
        client: ClientId,
        /// The line.
        response: Response,
    },
    /// Send a line to connections that did not ask for it.
    Tell {
        /// Which connections.
        clients: Vec<ClientId>,
        /// The line.
        response: Response,
    },
    /// Sessions that are attached for this connection from now on share memory with it, or do not.
    ShareMemory {
        /// Which connection.
        client: ClientId,
        /// Whether they do.
        wanted: bool,
    },
    /// Make a `SOCK_SEQPACKET` pair: one end to the worker for the session, the other to the client with this line. If the
    /// connection shares memory, make that as well, and say so in the line.
    Attach {
        /// The worker that holds the session.
        worker: usize,
        /// The session.
        session: SessionId,
        /// The connection that gets the descriptor.
        client: ClientId,
        /// The line that goes with it.
        response: Response,
    },
    /// Close the worker's end of the session's descriptor, if it has one.
    Detach {
        /// The worker that held the session.
        worker: usize,
        /// The session.
        session: SessionId,
    },
    /// Tell the host side.
    Host(HostCommand),
    /// Another member's host side said something to this one's.
    HostHears {
        /// Who.
        from: NodeId,
        /// The sets that it holds or hands over, as all have agreed; by their places in the configuration.
        holds: Vec<usize>,
        /// The message, not yet read.
        bytes: Box<[u8]>,
    },
    /// Read and parse the configuration file; answered by [`Input::Reload`].
    ReadConfig,
    /// All neighbours are told: the process may end.
    Exit,
}

/// What a timeout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Routing.
    Routing(routing::Reason),
    /// Membership, or service addresses.
    Cluster,
    /// The membership under process groups.
    Groups,
    /// Workers were asked and take too long.
    Stats,
    /// Leaving.
    Leave,
}
