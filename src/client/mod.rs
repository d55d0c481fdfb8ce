//! Floor 5: the library that applications link.
//!
//! An application connects to its nearest router by a Unix socket ([`Overlay`]) and opens sessions on it. Each session is
//! a descriptor that works with `poll`; data flows straight to the router's worker, one record per message, and never passes
//! through the control socket. The library has no threads and no buffers of its own beyond one record. Nothing here raises
//! SIGPIPE.
//!
//! Records go through memory that the session shares with the router, without a system call while both are awake, or
//! through the session's socket where the router allows no memory, has none left, or [`Overlay::share_memory`] says so.
//! Either way the descriptor is the socket, and says the same: it is readable when an event waits, also if only some of
//! several were received; writable when there is room; hung up when the session is over. A spurious "readable" is possible,
//! as always: who polls makes the session non-blocking. Both belong to one process: a fork must not use them.
//!
//! Processes on several machines that must act as one join a [`Group`], and see who is in it and what its members say in
//! one order. It goes through the router's control thread, and is for coordination, not for bulk.
//!
//! Sessions live as long as their router's process. When it ends, each of them says so once everything that it had
//! delivered is read ([`Event::Closed`], an error of kind `ConnectionAborted`), sending fails with `BrokenPipe`,
//! requests fail with `ConnectionAborted`, and the way on is the way in: [`Overlay::connect`] again, open sessions
//! again. Connecting and requests wait 10 s for a router that does not answer, and fail with `TimedOut`; after that the
//! connection is over, as if the router had ended.
//!
//! ```
//! # let directory = tempfile::tempdir()?;
//! # let router = sinew::runtime::Background::alone(directory.path())?;
//! # let path = directory.path().join("control");
//! use sinew::base::Class;
//! use sinew::client::{Event, Overlay};
//!
//! let overlay = Overlay::connect(&path)?;
//! let alice = overlay.datagrams(0)?;
//! let bob = overlay.datagrams(7000)?;
//!
//! alice.send(bob.local(), Class::Reliable, true, b"hello")?;
//! let mut buffer = [0; 1500];
//! match bob.recv(&mut buffer)? {
//!     Event::Datagram { from, bytes, .. } => {
//!         assert_eq!(from, alice.local());
//!         assert_eq!(bytes, b"hello");
//!     }
//!     other => panic!("{other:?}"),
//! }
//! # router.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![allow(clippy::disallowed_methods, reason = "applications live in real time")]

mod batch;
mod channel;
mod connection;
mod datagrams;
mod group;
mod stream;
mod sys;
#[cfg(test)]
mod tests;

use crate::base::{NodeId, Port};
use crate::wire::admin::{NodeEntry, Request, Response};
pub use batch::{Batch, Outgoing};
use connection::Connection;
pub use datagrams::{Datagrams, Event};
pub use group::{Group, GroupEvent};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
pub use stream::{Stream, explain};

pub use crate::wire::admin;
pub use crate::wire::client::Endpoint;

/// A connection to a router.
///
/// It can be shared between threads; requests take turns. Sessions opened by it outlive it.
#[derive(Debug)]
pub struct Overlay {
    connection: Mutex<Connection>,
    path: PathBuf,
    node: NodeId,
    /// Sessions opened from now on share memory with the router.
    shares: AtomicBool,
}

impl Overlay {
    /// Connects to the router whose control socket is at `path`.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Overlay> {
        let path = path.as_ref();
        let mut connection = Connection::open(path)?;
        match connection.ask(&Request::Whoami)? {
            Response::Whoami { node, .. } => {
                let (path, shares) = (path.to_owned(), AtomicBool::new(connection.share_memory(true)?));
                Ok(Overlay { connection: Mutex::new(connection), path, node, shares })
            }
            other => Err(unexpected(&other)),
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks anything of the router. A refusal is [`Response::Error`] here; the other methods make an error of it.
    ///
    /// Sessions are opened by their own methods: a descriptor that comes with the answer to a request made here is closed.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let router = sinew::runtime::Background::alone(directory.path())?;
    /// # let path = directory.path().join("control");
    /// use sinew::client::{Overlay, admin};
    ///
    /// let overlay = Overlay::connect(&path)?;
    /// match overlay.request(&admin::Request::Whoami)? {
    ///     admin::Response::Whoami { node, .. } => assert_eq!(node, overlay.node()),
    ///     other => panic!("{other:?}"),
    /// }
    /// # router.stop()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request(&self, request: &Request) -> io::Result<Response> {
        let mut connection = self.connection();
        let response = connection.exchange(request);
        connection.drop_descriptors();
        response
    }

    /// The router's id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Says whether sessions that are opened from now on share memory with the router, as they do unless it is switched off
    /// here or by the router's configuration; otherwise their records go through their sockets. Listeners opened from now
    /// on do the same with the streams they accept. True if it is granted.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let router = sinew::runtime::Background::alone(directory.path())?;
    /// # let path = directory.path().join("control");
    /// use sinew::client::Overlay;
    ///
    /// let overlay = Overlay::connect(&path)?;
    /// assert!(overlay.datagrams(0)?.shares_memory());
    /// overlay.share_memory(false)?;
    /// assert!(!overlay.datagrams(0)?.shares_memory());
    /// # router.stop()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn share_memory(&self, wanted: bool) -> io::Result<bool> {
        let granted = self.connection().share_memory(wanted)?;
        self.shares.store(granted, Ordering::Relaxed);
        Ok(granted)
    }

    fn nodes(&self) -> io::Result<Vec<NodeEntry>> {
        match self.connection().ask(&Request::Nodes)? {
            Response::Nodes { nodes } => Ok(nodes),
            other => Err(unexpected(&other)),
        }
    }

    /// The id of the router with this name, or with these 16 hexadecimal digits.
    pub fn resolve(&self, name: &str) -> io::Result<NodeId> {
        let nodes = self.nodes()?;
        let named = nodes.iter().find(|entry| entry.name == name).map(|entry| entry.node);
        named.or_else(|| name.parse().ok()).ok_or_else(|| {
            let known = nodes.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", ");
            let message = format!("no router is called `{name}`; this network has {known}");
            io::Error::new(io::ErrorKind::NotFound, message)
        })
    }

    /// The name of the router with this id.
    pub fn name_of(&self, node: NodeId) -> io::Result<String> {
        let found = self.nodes()?.into_iter().find(|entry| entry.node == node);
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, format!("no member of this network has the id {node}"));
        found.map(|entry| entry.name).ok_or_else(missing)
    }

    /// Opens a session for datagrams; port 0 lets the router choose.
    pub fn datagrams(&self, port: Port) -> io::Result<Datagrams> {
        let mut connection = self.connection();
        match connection.ask(&Request::OpenDatagram { port })? {
            Response::Opened { port, memory, .. } => {
                let local = Endpoint { node: self.node, port };
                Ok(Datagrams::new(connection.take_channel(memory)?, local))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for streams at a port; 0 lets the router choose.
    pub fn listen(&self, port: Port) -> io::Result<Listener> {
        let mut connection = Connection::open(&self.path)?;
        if self.shares.load(Ordering::Relaxed) {
            connection.share_memory(true)?;
        }
        match connection.ask(&Request::OpenListener { port })? {
            Response::Opened { port, .. } => {
                let local = Endpoint { node: self.node, port };
                let descriptor = connection.as_fd().try_clone_to_owned()?;
                Ok(Listener { connection: Mutex::new(connection), descriptor, local })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a stream to a listener; returns when it is connected or refused.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let router = sinew::runtime::Background::alone(directory.path())?;
    /// # let path = directory.path().join("control");
    /// use sinew::client::Overlay;
    /// use std::io::{Read, Write};
    ///
    /// let overlay = Overlay::connect(&path)?;
    /// let listener = overlay.listen(8000)?;
    /// let mut client = overlay.stream(listener.local())?;
    /// let mut server = listener.accept()?;
    ///
    /// client.write_all(b"question")?;
    /// client.finish()?;
    /// let mut question = String::new();
    /// server.read_to_string(&mut question)?;
    /// assert_eq!(question, "question");
    ///
    /// server.write_all(b"answer")?;
    /// server.finish()?;
    /// let mut answer = String::new();
    /// client.read_to_string(&mut answer)?;
    /// assert_eq!(answer, "answer");
    /// # router.stop()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stream(&self, to: Endpoint) -> io::Result<Stream> {
        let mut connection = self.connection();
        let response = connection.ask(&Request::OpenStream { to })?;
        let Response::Opened { memory, .. } = response else { return Err(unexpected(&response)) };
        let channel = connection.take_channel(memory)?;
        drop(connection);
        Stream::connect(channel, to)
    }
}

/// Waits for streams. It has a connection of its own to the router; the port is free again when it is dropped.
///
/// Its descriptor is readable when a stream waits to be accepted. One that polls it should make it non-blocking, and
/// accept until there is no more.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let router = sinew::runtime::Background::alone(directory.path())?;
/// # let path = directory.path().join("control");
/// use sinew::client::Overlay;
/// use std::io::ErrorKind;
///
/// let overlay = Overlay::connect(&path)?;
/// let listener = overlay.listen(8001)?;
/// listener.set_nonblocking(true)?;
/// assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
/// # router.stop()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    connection: Mutex<Connection>,
    /// The connection's descriptor once more: who waits in `accept` holds the lock.
    descriptor: OwnedFd,
    local: Endpoint,
}

impl Listener {
    /// Its address.
    pub fn local(&self) -> Endpoint {
        self.local
    }

    /// Makes [`Listener::accept`] fail with `WouldBlock` after a while; with none it waits for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).set_read_timeout(timeout)
    }

    /// The next stream; waits for one, unless non-blocking. The stream itself waits, as new ones do.
    pub fn accept(&self) -> io::Result<Stream> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match connection.receive()? {
            Response::Incoming { peer, memory, .. } => Ok(Stream::new(connection.take_channel(memory)?, peer)),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes [`Listener::accept`] fail with `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        sys::set_nonblocking(self.as_fd(), nonblocking)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// An answer that is not one to the question.
fn unexpected(response: &Response) -> io::Error {
    match response {
        Response::Error { message } => io::Error::other(message.clone()),
        other => io::Error::new(io::ErrorKind::InvalidData, format!("the router answers something else: {other:?}")),
    }
}
