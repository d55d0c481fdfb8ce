//! Sessions between request and descriptor.
//!
//! ```text
//!   request ─▶ opening ── opened ──▶ attached: lives by its descriptor, forgotten here
//!                 │  └─── opened ──▶ listening: lives by the control connection
//!                 └─ refused, client gone ─▶ –
//! ```
//! Control remembers sessions only while it owes somebody something: an answer, or the close of a listener.

use super::ClientId;
use crate::base::hash::hash64;
use crate::base::worker::{home, pick};
use crate::base::{Port, SessionId};
use std::collections::{BTreeMap, VecDeque};

/// Attachments that may still be reported as failed. The driver reports at once, so few are enough.
const RECENT: usize = 64;

/// A session that a worker was asked to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) client: ClientId,
    pub(super) worker: usize,
    pub(super) listener: bool,
}

/// A session that waits for streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listener {
    pub(super) client: ClientId,
    pub(super) worker: usize,
}

/// A descriptor that the driver was asked to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attachment {
    pub(super) session: SessionId,
    pub(super) worker: usize,
    /// Who still waits for an answer if it failed.
    pub(super) waits: Option<ClientId>,
}

/// Sessions that control owes something.
#[derive(Debug)]
pub(super) struct Sessions {
    workers: usize,
    last: u64,
    pub(super) opening: BTreeMap<SessionId, Opening>,
    pub(super) listeners: BTreeMap<SessionId, Listener>,
    recent: VecDeque<Attachment>,
}

impl Sessions {
    pub(super) fn new(workers: usize) -> Sessions {
        let (opening, listeners, recent) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Sessions { workers, last: 0, opening, listeners, recent }
    }

    /// A number for a new session (below 2^52, where the numbers of the shards begin), and the worker to hold it: the
    /// home of its port, or any, which takes a port that is at home there.
    pub(super) fn open(&mut self, client: ClientId, port: Port, listener: bool) -> (SessionId, usize) {
        self.last += 1;
        assert!(self.last < 1 << 52, "nobody opens 2^52 sessions");
        let worker = match port {
            0 => pick(hash64(&self.last.to_be_bytes()), self.workers),
            port => home(port, self.workers),
        };
        let id = SessionId(self.last);
        self.opening.insert(id, Opening { client, worker, listener });
        (id, worker)
    }

    pub(super) fn attached(&mut self, attachment: Attachment) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(attachment);
    }

    /// The attachment of `session`, if it was recent.
    pub(super) fn failed(&mut self, session: SessionId) -> Option<Attachment> {
        let place = self.recent.iter().position(|attachment| attachment.session == session)?;
        self.recent.remove(place)
    }
}
