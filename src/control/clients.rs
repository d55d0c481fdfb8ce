//! The connections of the control socket: one answer a request, in order.
//!
//! A connection has at most one request under way; later ones wait in its queue. Bounds and rules: [`QUEUE`] waiting
//! requests, what comes on top is answered with an error when its turn comes; [`MAX_CLIENTS`] connections with anything
//! under way, what others ask is refused at once; [`LISTENERS`] listeners a connection.

use super::ClientId;
use crate::base::SessionId;
use crate::wire::admin::Request;
use std::collections::{BTreeMap, VecDeque};

/// Requests of one connection that wait.
pub(super) const QUEUE: usize = 16;
/// Connections with a request or a listener.
pub(super) const MAX_CLIENTS: usize = 1024;
/// Listeners of one connection.
pub(super) const LISTENERS: usize = 64;

/// A request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    /// A session is being opened.
    Open(SessionId),
    /// Workers are being asked, in this round.
    Stats(u64),
    /// Workers are being asked for their sessions, in this round.
    Sessions(u64),
    /// Workers are being asked for their histograms as well, in this round.
    Histograms(u64),
    /// The configuration is being read.
    Reload,
    /// An order about service addresses is being carried out.
    Order,
    /// It joins a process group, or waits until its message to one is taken.
    Group,
}

/// What waits behind it.
#[derive(Debug)]
pub(super) enum Waiting {
    Request(Request),
    /// So many requests were too many.
    TooMany(u32),
}

#[derive(Debug, Default)]
struct Client {
    pending: Option<Pending>,
    queue: VecDeque<Waiting>,
    requests: usize,
    listeners: Vec<SessionId>,
}

/// All connections with a request or a listener.
#[derive(Debug, Default)]
pub(super) struct Clients(BTreeMap<ClientId, Client>);

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Admission {
    /// Answer it now.
    Start(Request),
    /// It waits for its turn.
    Queued,
    /// Refuse it: there are too many connections.
    Refused,
}

impl Clients {
    pub(super) fn admit(&mut self, id: ClientId, request: Request) -> Admission {
        if self.0.len() >= MAX_CLIENTS && !self.0.contains_key(&id) {
            return Admission::Refused;
        }
        let Some(client) = self.0.get_mut(&id).filter(|client| client.pending.is_some()) else {
            return Admission::Start(request);
        };
        if client.requests < QUEUE {
            client.requests += 1;
            client.queue.push_back(Waiting::Request(request));
        } else if let Some(Waiting::TooMany(count)) = client.queue.back_mut() {
            *count = count.saturating_add(1);
        } else {
            client.queue.push_back(Waiting::TooMany(1));
        }
        Admission::Queued
    }

    /// The client's request cannot be answered at once.
    pub(super) fn set_pending(&mut self, id: ClientId, pending: Pending) {
        self.0.entry(id).or_default().pending = Some(pending);
    }

    /// The client's request was answered; gives what waits next, if anything does.
    pub(super) fn next(&mut self, id: ClientId) -> Option<Waiting> {
        let client = self.0.get_mut(&id)?;
        client.pending = None;
        let next = client.queue.pop_front();
        if matches!(next, Some(Waiting::Request(_))) {
            client.requests -= 1;
        }
        self.tidy(id);
        next
    }

    /// Clients that wait for `pending`, by id.
    pub(super) fn waiting_for(&self, pending: Pending) -> Vec<ClientId> {
        self.0.iter().filter(|(_, client)| client.pending == Some(pending)).map(|(&id, _)| id).collect()
    }

    /// Whether a client waits for this round of questions to the workers.
    pub(super) fn any_waiting_for(&self, round: u64) -> bool {
        let waits = |pending| matches!(pending, Pending::Stats(of) | Pending::Histograms(of) if of == round);
        self.0.values().any(|client| client.pending.is_some_and(waits))
    }

    /// Whether a client waits for the histograms of this round.
    pub(super) fn any_waiting_for_histograms(&self, round: u64) -> bool {
        self.0.values().any(|client| client.pending == Some(Pending::Histograms(round)))
    }

    /// Whether a client waits for exactly this.
    pub(super) fn anybody_waits_for(&self, pending: Pending) -> bool {
        self.0.values().any(|client| client.pending == Some(pending))
    }

    pub(super) fn may_listen(&self, id: ClientId) -> bool {
        self.0.get(&id).is_none_or(|client| client.listeners.len() < LISTENERS)
    }

    pub(super) fn add_listener(&mut self, id: ClientId, session: SessionId) {
        self.0.entry(id).or_default().listeners.push(session);
    }

    pub(super) fn remove_listener(&mut self, id: ClientId, session: SessionId) {
        if let Some(client) = self.0.get_mut(&id) {
            client.listeners.retain(|&listener| listener != session);
            self.tidy(id);
        }
    }

    /// The connection is gone: what it had under way, and its listeners.
    pub(super) fn gone(&mut self, id: ClientId) -> (Option<Pending>, Vec<SessionId>) {
        self.0.remove(&id).map_or((None, Vec::new()), |client| (client.pending, client.listeners))
    }

    fn tidy(&mut self, id: ClientId) {
        let idle = |client: &Client| client.pending.is_none() && client.queue.is_empty() && client.listeners.is_empty();
        if self.0.get(&id).is_some_and(idle) {
            self.0.remove(&id);
        }
    }
}
