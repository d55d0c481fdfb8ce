//! A connection to a router's control socket: one JSON object a line, some with a descriptor.

use super::channel::Channel;
use super::{sys, unexpected};
use crate::wire::admin::{MAX_LINE, Request, Response};
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Read at a time.
const CHUNK: usize = 64 << 10;
/// A router that lives answers any request in milliseconds; one that has not done so after this is stopped, or is none.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    path: PathBuf,
    /// Bytes received and not yet taken as lines.
    bytes: Vec<u8>,
    /// Descriptors received and not yet taken, in the order of the lines they belong to.
    descriptors: VecDeque<OwnedFd>,
}

impl Connection {
    /// Connects; fails with `TimedOut` if nobody takes the connection within [`PATIENCE`].
    pub(super) fn open(path: &Path) -> io::Result<Connection> {
        let stream = connect(path, PATIENCE).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => {
                    "there is no such socket: is the router running, with this `control_socket`?"
                }
                io::ErrorKind::ConnectionRefused if !is_socket(path) => {
                    let text = format!("{} is not a router's socket but {}", path.display(), kind_of(path));
                    return io::Error::new(io::ErrorKind::InvalidInput, text);
                }
                io::ErrorKind::ConnectionRefused => "no router answers there any more: is it running?",
                _ if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                    let text = format!("{} is not a router's socket but one of another kind", path.display());
                    return io::Error::new(io::ErrorKind::InvalidInput, text);
                }
                // What the kernel says of a full backlog.
                io::ErrorKind::WouldBlock => return silent(path, "takes the connection"),
                io::ErrorKind::PermissionDenied => "not allowed: the socket is for the router's user and group",
                _ => return io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            };
            io::Error::new(error.kind(), format!("{}: {why}", path.display()))
        })?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { stream, path: path.to_owned(), bytes: Vec::new(), descriptors: VecDeque::new() })
    }

    /// Makes [`Connection::receive`] fail with `WouldBlock` after a while; what came by then is kept for the next call.
    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    /// Asks, and takes a refusal as an error.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<Response> {
        match self.exchange(request)? {
            refused @ Response::Error { .. } => Err(unexpected(&refused)),
            answer => Ok(answer),
        }
    }

    /// Asks. Fails with `TimedOut` if the answer does not come within [`PATIENCE`]; the connection is over then, since a
    /// late answer would be taken for that to the next question.
    pub(super) fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        self.exchange_within(request, PATIENCE)
    }

    pub(super) fn exchange_within(&mut self, request: &Request, patience: Duration) -> io::Result<Response> {
        let deadline = Instant::now() + patience;
        let answer = self.say(request).and_then(|()| self.receive_by(Some(deadline)));
        self.set_read_timeout(None)?;
        answer.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                // Fails only where it is over already.
                let _ = self.stream.shutdown(Shutdown::Both);
                silent(&self.path, "answers")
            }
            _ => error,
        })
    }

    /// The connection once more, for who writes while another reads.
    pub(super) fn stream(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    fn say(&mut self, request: &Request) -> io::Result<()> {
        self.stream.write_all(request.to_line().as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => gone(),
            _ => error,
        })
    }

    /// The next line.
    pub(super) fn receive(&mut self) -> io::Result<Response> {
        self.receive_by(None)
    }

    /// The next line; `WouldBlock` if it has not come by the deadline.
    fn receive_by(&mut self, deadline: Option<Instant>) -> io::Result<Response> {
        let mut searched = 0;
        loop {
            if let Some(found) = self.bytes[searched..].iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=searched + found).collect();
                return serde_json::from_slice(&line).map_err(|error| {
                    let message = format!("the router speaks another language (another version?): {error}");
                    io::Error::new(io::ErrorKind::InvalidData, message)
                });
            }
            searched = self.bytes.len();
            if searched > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the router's answer does not end"));
            }
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.set_read_timeout(Some(left))?;
            }
            self.bytes.resize(searched + CHUNK, 0);
            let received =
                sys::receive_with_descriptors(self.stream.as_fd(), &mut self.bytes[searched..], &mut self.descriptors);
            self.bytes.truncate(searched + received.as_ref().copied().unwrap_or(0));
            match received {
                Ok(0) => return Err(gone()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(gone()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks that sessions share memory with the router; whether they will.
    pub(super) fn share_memory(&mut self, wanted: bool) -> io::Result<bool> {
        match self.exchange(&Request::ShareMemory { wanted })? {
            Response::SharesMemory { granted } => Ok(granted),
            // A router that knows nothing of it.
            Response::Error { .. } => Ok(false),
            other => Err(unexpected(&other)),
        }
    }

    /// The channel whose descriptors came with the last line: a socket, and shared memory if the line says so.
    pub(super) fn take_channel(&mut self, memory: bool) -> io::Result<Channel> {
        let socket = self.take_descriptor()?;
        let memory = memory.then(|| self.take_descriptor()).transpose()?;
        Channel::new(socket, memory)
    }

    /// The descriptor that came with the last line.
    fn take_descriptor(&mut self) -> io::Result<OwnedFd> {
        let missing =
            || io::Error::new(io::ErrorKind::InvalidData, "the router sent no descriptor (too many open files?)");
        self.descriptors.pop_front().ok_or_else(missing)
    }

    /// Closes descriptors that nobody wants.
    pub(super) fn drop_descriptors(&mut self) {
        self.descriptors.clear();
    }
}

/// Connects, and waits for room in the backlog no longer than this: `WouldBlock` then.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    // For a connection, too, this is how long it may take (unix(7) has it from socket(7)'s SO_SNDTIMEO).
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// Somebody holds the socket and does nothing with it.
fn silent(path: &Path, does_not: &str) -> io::Error {
    let (path, seconds) = (path.display(), PATIENCE.as_secs());
    let message = format!(
        "{path}: nobody {does_not} within {seconds} s: the process that holds this socket is stopped, stuck or no router; \
         `ss -xlp | grep {path}` names it"
    );
    io::Error::new(io::ErrorKind::TimedOut, message)
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// What is at `path` instead of a socket.
fn kind_of(path: &Path) -> &'static str {
    match std::fs::metadata(path).map(|found| found.file_type()) {
        Ok(found) if found.is_dir() => "a directory",
        Ok(found) if found.is_file() => "a file",
        _ => "something else",
    }
}

/// The router ended the connection: it stopped or restarted.
fn gone() -> io::Error {
    let message = "the router closed the connection (it stopped?): connect again once it runs";
    io::Error::new(io::ErrorKind::ConnectionAborted, message)
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
