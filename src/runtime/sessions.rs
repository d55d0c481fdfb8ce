//! The descriptors of a worker's sessions.

use super::io::Backend;
use super::sys;
use crate::base::SessionId;
use crate::dataplane::Readiness;
use crate::wire::client::MAX_RECORD;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Most records taken from one session in a turn.
const RECORDS: usize = 64;

/// A session's descriptor and what is wanted of it.
#[derive(Debug)]
struct Descriptor {
    fd: OwnedFd,
    /// The shard takes records.
    reads: bool,
    /// A record waits for room.
    blocked: bool,
}

/// How reading a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All records, or as many as a turn takes.
    All,
    /// The shard takes no more for now.
    Full,
    /// The shard knows no such session.
    Gone,
    /// The application closed its end.
    End,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Sessions {
    descriptors: BTreeMap<SessionId, Descriptor>,
    /// Room for one record, and one byte to tell a record that is too long.
    record: Box<[u8]>,
}

impl Sessions {
    /// None yet.
    pub(super) fn new() -> Sessions {
        Sessions { descriptors: BTreeMap::new(), record: vec![0; MAX_RECORD + 1].into_boxed_slice() }
    }

    /// Room for one record to deliver.
    pub(super) fn record(&mut self) -> &mut [u8] {
        &mut self.record[..MAX_RECORD]
    }

    /// Takes a session's descriptor over.
    pub(super) fn attach(&mut self, backend: &mut dyn Backend, session: SessionId, fd: OwnedFd) {
        match backend.watch(session, fd.as_fd()) {
            Ok(()) => {
                let earlier = self.descriptors.insert(session, Descriptor { fd, reads: true, blocked: false });
                assert!(earlier.is_none(), "a session is attached once");
            }
            // Closing the descriptor tells the application.
            Err(error) => tracing::error!(%session, %error, "a session's descriptor cannot be watched"),
        }
    }

    /// Closes a session's descriptor. What was delivered stays readable for the application, and then its end.
    pub(super) fn detach(&mut self, backend: &mut dyn Backend, session: SessionId) {
        if self.descriptors.contains_key(&session) {
            backend.unwatch(session);
            self.descriptors.remove(&session);
        }
    }

    /// Hands records of the session to `take`, up to the bound of a turn.
    pub(super) fn read(&mut self, session: SessionId, mut take: impl FnMut(&[u8]) -> Readiness) -> Taken {
        let Some(descriptor) = self.descriptors.get(&session) else { return Taken::All };
        for _ in 0..RECORDS {
            match sys::receive_record(descriptor.fd.as_fd(), &mut self.record) {
                Ok(0) => return Taken::End,
                Ok(len) => match take(&self.record[..len]) {
                    Readiness::Ready => {}
                    Readiness::Full => return Taken::Full,
                    Readiness::Gone => return Taken::Gone,
                },
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Taken::All,
                    // The application closed its end without reading everything. That is said once, ahead of the records
                    // it had sent before.
                    Some(libc::ECONNRESET | libc::EINTR) => {}
                    _ => return Taken::End,
                },
            }
        }
        Taken::All
    }

    /// Delivers the first `len` bytes of the record. False if there is no room now, or no descriptor yet.
    pub(super) fn write(&mut self, backend: &mut dyn Backend, session: SessionId, len: usize) -> io::Result<bool> {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return Ok(false) };
        loop {
            match sys::send_record(descriptor.fd.as_fd(), &self.record[..len]) {
                Ok(()) => return Ok(true),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => {
                        descriptor.blocked = true;
                        backend.want(session, descriptor.reads, true);
                        return Ok(false);
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// The session has room again.
    pub(super) fn unblock(&mut self, backend: &mut dyn Backend, session: SessionId) {
        self.change(backend, session, |descriptor| descriptor.blocked = false);
    }

    /// Stops reading the session.
    pub(super) fn pause(&mut self, backend: &mut dyn Backend, session: SessionId) {
        self.change(backend, session, |descriptor| descriptor.reads = false);
    }

    /// Reads the session again.
    pub(super) fn resume(&mut self, backend: &mut dyn Backend, session: SessionId) {
        self.change(backend, session, |descriptor| descriptor.reads = true);
    }

    fn change(&mut self, backend: &mut dyn Backend, session: SessionId, change: impl FnOnce(&mut Descriptor)) {
        let Some(descriptor) = self.descriptors.get_mut(&session) else { return };
        let before = (descriptor.reads, descriptor.blocked);
        change(descriptor);
        let after = (descriptor.reads, descriptor.blocked);
        if before != after {
            backend.want(session, after.0, after.1);
        }
    }
}
