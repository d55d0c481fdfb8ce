//! A connection to a router's control socket: one JSON object a line, some with a descriptor.

use super::{sys, unexpected};
use crate::wire::admin::{MAX_LINE, Request, Response};
use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Read at a time.
const CHUNK: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// Bytes received and not yet taken as lines.
    bytes: Vec<u8>,
    /// Descriptors received and not yet taken, in the order of the lines they belong to.
    descriptors: VecDeque<OwnedFd>,
}

impl Connection {
    /// Connects.
    pub(super) fn open(path: &Path) -> io::Result<Connection> {
        let stream = UnixStream::connect(path).map_err(|error| {
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
                io::ErrorKind::PermissionDenied => "not allowed: the socket is for the router's user and group",
                _ => return io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            };
            io::Error::new(error.kind(), format!("{}: {why}", path.display()))
        })?;
        Ok(Connection { stream, bytes: Vec::new(), descriptors: VecDeque::new() })
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

    /// Asks.
    pub(super) fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        self.stream.write_all(request.to_line().as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => gone(),
            _ => error,
        })?;
        self.receive()
    }

    /// The next line.
    pub(super) fn receive(&mut self) -> io::Result<Response> {
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

    /// The descriptor that came with the last line.
    pub(super) fn take_descriptor(&mut self) -> io::Result<OwnedFd> {
        let missing =
            || io::Error::new(io::ErrorKind::InvalidData, "the router sent no descriptor (too many open files?)");
        self.descriptors.pop_front().ok_or_else(missing)
    }

    /// Closes descriptors that nobody wants.
    pub(super) fn drop_descriptors(&mut self) {
        self.descriptors.clear();
    }
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
