//! Process groups: who is in one, and what its members say, in one order for all.

use super::connection::Connection;
use super::{sys, unexpected};
use crate::base::limits::MAX_GROUP_MESSAGE;
pub use crate::wire::admin::GroupEvent;
use crate::wire::admin::{Request, Response};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Membership of one process group, with a connection of its own to the router; dropping it leaves the group.
///
/// What it sees keeps extended virtual synchrony ([`proto::groups`](crate::proto::groups) says what that promises). The
/// first event is a view that it is in. A view names who is in it, and who came with this process from the view before and
/// so heard the same there; a [`GroupEvent::Transitional`] before it says that somebody is lost, and that what still comes
/// of the old view may lack messages of theirs. Messages come in one order for all, those of this process among them: that
/// one of its own came back means that all who stay in the view with it hear it there.
///
/// Routers of which the network loses sight, and those that end, take their processes out of the view; where the network is
/// parted, every part has a view of its own, and a merge joins them. Its own router's end is an error of kind
/// `ConnectionAborted`; then join again once it runs, as another process. One that does not read what it is told is
/// disconnected in the same way when 8 MiB wait for it.
///
/// Its descriptor is readable when an event may wait. One that polls it should make it non-blocking, and receive until there
/// is no more. Receiving and sending do not wait for each other.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let router = sinew::runtime::Background::alone(directory.path())?;
/// # let path = directory.path().join("control");
/// use sinew::client::{Group, GroupEvent};
///
/// let one = Group::join(&path, "shift")?;
/// let other = Group::join(&path, "shift")?;
/// one.send(b"hello")?;
/// let heard = loop {
///     match other.recv()? {
///         GroupEvent::Message { from, bytes } => break (from, bytes),
///         GroupEvent::View { members, .. } => assert!(members.iter().any(|member| member == other.member())),
///         GroupEvent::Transitional => {}
///     }
/// };
/// assert_eq!(heard, (one.member().to_owned(), b"hello".to_vec()));
/// # router.stop()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Group {
    reader: Mutex<Connection>,
    writer: Mutex<UnixStream>,
    /// The connection's descriptor once more: who waits in `recv` holds the lock.
    descriptor: OwnedFd,
    name: String,
    member: String,
}

impl Group {
    /// Joins the group called `name` (1 to 32 of `a-z`, `0-9`, `-`, `.` and `_`) at the router whose control socket is at
    /// `socket`. There is no other way to make a group, nor any need to end one. Fails if the router has no process groups
    /// or no place for another process, or with `TimedOut` if the routers do not agree within 10 s.
    pub fn join(socket: impl AsRef<Path>, name: &str) -> io::Result<Group> {
        let mut connection = Connection::open(socket.as_ref())?;
        match connection.ask(&Request::JoinGroup { group: name.to_owned() })? {
            Response::Joined { member } => {
                let (writer, descriptor) = (connection.stream()?, connection.as_fd().try_clone_to_owned()?);
                // A sender waits as long as it must, unless it does not block.
                writer.set_write_timeout(None)?;
                let (reader, writer) = (Mutex::new(connection), Mutex::new(writer));
                Ok(Group { reader, writer, descriptor, name: name.to_owned(), member })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What this process is called in views and messages: `ROUTER.NUMBER`, as the router's configuration names it.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// Says something to the group, at most 32 KiB. Waits while too much is under way; a non-blocking one fails with
    /// `WouldBlock` then, and its descriptor is writable again when there is room.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > MAX_GROUP_MESSAGE {
            let message = format!("{} bytes: a message to a group has at most {MAX_GROUP_MESSAGE}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let line = Request::SendGroup { bytes: bytes.to_vec() }.to_line();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match writer.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A line that was begun must be ended.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && rest.len() < line.len() => {
                    sys::wait_writable(writer.as_fd())?;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    return Err(over());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What happens next in the group; waits for it, unless non-blocking.
    pub fn recv(&self) -> io::Result<GroupEvent> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match reader.receive().map_err(|error| if error.kind() == ABORTED { over() } else { error })? {
                Response::Group { event } => return Ok(event),
                Response::Sent => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Makes [`Group::recv`] fail with `WouldBlock` after a while; with none it waits for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        sys::set_read_timeout(self.as_fd(), timeout)
    }

    /// Makes [`Group::recv`] and [`Group::send`] fail with `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        sys::set_nonblocking(self.as_fd(), nonblocking)
    }
}

const ABORTED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// The router ended the connection; which of the reasons it had, it cannot say to who does not read.
fn over() -> io::Error {
    let message = "the router closed the connection: it stopped, or this member left 8 MiB of what it was told unread; join \
                   again, as another member";
    io::Error::new(ABORTED, message)
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
