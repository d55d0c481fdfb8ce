//! Where applications and commands reach this router: the listening Unix socket and its connections.

use super::lines::{Lines, MAX_REQUEST, TooLong};
use super::sys;
use crate::wire::admin::{MAX_LINE, Request, Response};
use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a client may leave unread, bytes; then it is disconnected.
const MAX_UNREAD: usize = 2 * MAX_LINE;
/// Read at a time.
const CHUNK: usize = 16 << 10;

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub(super) struct ControlSocket {
    pub(super) listener: mio::net::UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that a successor's is never removed.
    file: (u64, u64),
}

impl ControlSocket {
    /// Listens at `path`, for this user and group (mode 0660). A file that a crash left behind is replaced; a live
    /// router's is not.
    pub(super) fn bind(path: &Path) -> io::Result<ControlSocket> {
        remove_stale(path)?;
        let listener = sys::with_umask(0o117, || mio::net::UnixListener::bind(path))?;
        let meta = std::fs::symlink_metadata(path)?;
        Ok(ControlSocket { listener, path: path.to_owned(), file: (meta.dev(), meta.ino()) })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket's file stays behind");
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket is in the way"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another router answers there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "removing the control socket of a router that is gone");
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

/// Something a client said.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// A request.
    Request(Request),
    /// A line that is no request; the answer says why.
    Garbage(String),
    /// A line beyond the bound: answered, then disconnected.
    TooLong,
    /// Nothing whole, for now.
    Nothing,
    /// It is gone.
    Gone,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its client leaves more than [`MAX_UNREAD`] unread.
    Slow,
    /// Its client is gone.
    Gone,
}

/// A response as it is sent.
pub(super) fn line(response: &Response) -> Arc<[u8]> {
    response.to_line().into_bytes().into()
}

/// A line to a client, with the descriptors that go with its first byte.
#[derive(Debug)]
struct Outgoing {
    bytes: Arc<[u8]>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

/// A connection. Requests are answered in order: while one is unanswered, nothing is read. So a client that closed its
/// sending side behind a request still gets its answer, and one that died is noticed at the latest by that.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: mio::net::UnixStream,
    lines: Lines,
    outgoing: VecDeque<Outgoing>,
    unread: usize,
    /// The kernel may have more to read (its events are edges).
    pub(super) readable: bool,
    /// A request is unanswered.
    pub(super) waiting: bool,
    /// Disconnect once everything is written.
    pub(super) closing: bool,
    /// Its sessions share memory with the router.
    pub(super) shares_memory: bool,
}

impl Client {
    /// A new connection.
    pub(super) fn new(stream: mio::net::UnixStream) -> Client {
        Client {
            stream,
            lines: Lines::new(MAX_REQUEST),
            outgoing: VecDeque::new(),
            unread: 0,
            readable: true,
            waiting: false,
            closing: false,
            shares_memory: false,
        }
    }

    /// The next thing it said.
    pub(super) fn hear(&mut self) -> Heard {
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => {
                    return match serde_json::from_slice(&line) {
                        Ok(request) => Heard::Request(request),
                        Err(error) => Heard::Garbage(format!("not a request: {error}")),
                    };
                }
                Err(TooLong) => return Heard::TooLong,
                Ok(None) => {}
            }
            if !self.readable {
                return Heard::Nothing;
            }
            let mut chunk = [0; CHUNK];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Heard::Gone,
                Ok(len) => self.lines.extend(&chunk[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Heard::Gone,
            }
        }
    }

    /// Queues a line, which others may have in their queues too, and writes what the socket takes. An error ends the
    /// connection.
    pub(super) fn say(&mut self, bytes: Arc<[u8]>, descriptors: Vec<OwnedFd>) -> Result<(), Lost> {
        self.unread += bytes.len();
        self.outgoing.push_back(Outgoing { bytes, sent: 0, descriptors });
        self.flush().map_err(|_| Lost::Gone)?;
        if self.unread > MAX_UNREAD { Err(Lost::Slow) } else { Ok(()) }
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(line) = self.outgoing.front_mut() {
            let (bytes, descriptors) = (&line.bytes[line.sent..], &line.descriptors);
            match sys::send_with_descriptors(sys::borrow(&self.stream), bytes, descriptors) {
                Ok(len) => {
                    line.descriptors.clear();
                    line.sent += len;
                    self.unread -= len;
                    if line.sent == line.bytes.len() {
                        self.outgoing.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether everything said is written.
    pub(super) fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("non-blocking");
        (Client::new(mio::net::UnixStream::from_std(ours)), theirs)
    }

    #[test]
    fn requests_are_heard_however_they_are_cut() {
        let (mut client, mut theirs) = pair();
        theirs.write_all(b"{\"request\":\"who").expect("writes");
        assert_eq!(client.hear(), Heard::Nothing);
        theirs.write_all(b"ami\"}\n\n{\"request\":\"links\"}\n{\"req").expect("writes");
        client.readable = true;
        assert_eq!(client.hear(), Heard::Request(Request::Whoami));
        assert_eq!(client.hear(), Heard::Request(Request::Links));
        assert_eq!(client.hear(), Heard::Nothing);
    }

    #[test]
    fn garbage_is_named_and_endless_lines_are_refused() {
        let (mut client, mut theirs) = pair();
        theirs.write_all(b"\xff\xfe{}\n{\"request\":\"fly\"}\n[1,2\n").expect("writes");
        for _ in 0..3 {
            assert!(matches!(client.hear(), Heard::Garbage(why) if why.starts_with("not a request")));
        }
        theirs.write_all(&vec![b'x'; MAX_REQUEST + 1]).expect("writes");
        client.readable = true;
        assert_eq!(client.hear(), Heard::TooLong);
        drop(theirs);
    }

    #[test]
    fn a_closed_connection_is_noticed() {
        let (mut client, mut theirs) = pair();
        theirs.write_all(b"{\"request\":\"nodes\"}\n").expect("writes");
        drop(theirs);
        client.readable = true;
        assert_eq!(client.hear(), Heard::Request(Request::Nodes));
        assert_eq!(client.hear(), Heard::Gone);
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up() {
        let (mut client, theirs) = pair();
        let response = Response::Error { message: "x".repeat(1 << 20) };
        let refused = (0..20).find(|_| client.say(line(&response), Vec::new()) == Err(Lost::Slow));
        assert!(refused.is_some_and(|count| count >= 8), "given up after {refused:?} MiB");
        drop(theirs);
    }

    #[test]
    fn long_answers_arrive_whole_in_order() {
        let (mut client, theirs) = pair();
        let response = |n: usize| Response::Error { message: n.to_string().repeat(100_000) };
        (1..=5).for_each(|n| client.say(line(&response(n)), Vec::new()).expect("queues"));
        assert!(!client.is_flushed());
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(theirs).lines().map(|line| line.expect("a line"));
            lines.take(5).collect::<Vec<_>>()
        });
        while !client.is_flushed() {
            client.flush().expect("writes");
            std::thread::yield_now();
        }
        let lines = reader.join().expect("reads");
        for (n, line) in (1..=5).zip(lines) {
            assert_eq!(serde_json::from_str::<Response>(&line).expect("a response"), response(n));
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("control");
        let socket = ControlSocket::bind(&path).expect("binds");
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(ControlSocket::bind(&path).expect_err("live").kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists(), "the file goes with the socket");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds and leaves its file"));
        let socket = ControlSocket::bind(&path).expect("a crash left it");
        std::fs::remove_file(&path).expect("removed under us");
        std::fs::write(&path, "mine").expect("a file");
        drop(socket);
        assert!(path.exists(), "another's file stays");
        assert_eq!(ControlSocket::bind(&path).expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
    }
}
