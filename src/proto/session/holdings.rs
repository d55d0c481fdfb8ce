//! What is held in bounded places, and the bounds, for checkers.

use super::reassembly::MAX_FRAGMENTS;
use super::records::{MAX_PENDING, SPARE_RECORDS};
use super::sessions::Sessions;
use super::state::{Kind, Session};
use crate::base::limits::MAX_PAYLOAD;
use crate::wire::client::MAX_RECORD;
use crate::wire::session::MAX_SEGMENT;
use std::collections::BTreeMap;

/// Segments of the largest record, which a sender takes whole or not at all.
const RECORD_SEGMENTS: usize = MAX_PAYLOAD.div_ceil(MAX_SEGMENT);

/// Name, how much is held, and how much may be.
type Holding = (&'static str, usize, usize);

impl Sessions {
    /// What is held in bounded places, and the bounds: `(name, held, bound)`. Of queues that each session or flow has,
    /// the longest. Looks at everything: for checkers, not for each packet.
    pub fn holdings(&self) -> Vec<(&'static str, usize, usize)> {
        let mut holdings = Vec::from(self.shared_holdings());
        holdings.extend(self.round_holdings());
        holdings.extend(self.session_holdings());
        holdings.extend(self.flow_holdings());
        holdings
    }

    /// What all sessions share.
    fn shared_holdings(&self) -> [Holding; 12] {
        let settings = &self.settings;
        let (places, datagrams) = (self.tombstones.places(), self.reassembly.len());
        // Who reads without asking first may add a record for each session.
        let held_bytes = settings.held_bytes + self.sessions.len() * MAX_RECORD;
        let receive_percent = settings.receive_percent + settings.complete_percent;
        // When nothing is kept, one record is taken whatever the share is.
        let kept = self.kept.most(settings.send_percent).max(RECORD_SEGMENTS);
        [
            ("sessions", self.sessions.len(), settings.max_sessions),
            ("outgoing flows", self.senders.len(), settings.max_flows),
            ("incoming flows", self.receivers.len(), settings.max_flows),
            ("datagram routes", self.routes.len(), settings.max_flows),
            ("places for ended flows", places, settings.tombstones),
            ("incomplete datagrams", datagrams, settings.reassemblies),
            ("bytes of waiting records", self.held, held_bytes),
            ("spare record buffers", self.spare.len(), SPARE_RECORDS),
            ("packets kept for receivers", self.received.held(), self.received.most(receive_percent)),
            ("packets kept for senders", self.kept.held(), kept),
            ("messages without a flow", self.outbox.len(), settings.outbox),
            ("overdue streams", self.overdue.len(), settings.overdue),
        ]
    }

    /// Who waits for a turn.
    fn round_holdings(&self) -> [Holding; 5] {
        let (sessions, flows) = (self.settings.max_sessions, self.settings.max_flows);
        [
            ("sessions put off", self.put_off.len(), sessions),
            ("sessions with waiting records", self.pending.len(), sessions),
            ("sessions with something to deliver", self.delivering.len(), sessions),
            ("flows with something to send", self.sending.len(), flows),
            ("flows that owe an acknowledgement", self.acks.len(), flows),
        ]
    }

    /// The longest queues of any one session.
    fn session_holdings(&self) -> [Holding; 4] {
        let most =
            |len: fn(&Session) -> usize| self.sessions.iter().map(|(_, session)| len(session)).max().unwrap_or(0);
        let mut routes = BTreeMap::<u32, usize>::new();
        for route in self.routes.keys() {
            *routes.entry(route.session).or_default() += 1;
        }
        // A datagram is taken whole if there is room for its first packet.
        let inbox = self.settings.inbox + MAX_FRAGMENTS - 1;
        let backlog = |session: &Session| if let Kind::Listener { waiting } = session.kind { waiting } else { 0 };
        [
            ("packets and notices in one inbox", most(|session| session.waiting), inbox),
            ("waiting records of one session", most(|session| session.pending.len()), MAX_PENDING),
            ("streams waiting at one listener", most(backlog), self.settings.backlog),
            ("flows of one session", routes.into_values().max().unwrap_or(0), self.settings.flows_per_session),
        ]
    }

    /// The longest queues of any one flow.
    fn flow_holdings(&self) -> [Holding; 2] {
        let queue = self.senders.iter().map(|(_, sender)| sender.len()).max().unwrap_or(0);
        let ring = self.receivers.iter().map(|(_, receiver)| receiver.span()).max().unwrap_or(0);
        [
            // The last record is taken whole, and the end of the flow always.
            ("segments of one outgoing flow", queue, self.settings.send_queue + RECORD_SEGMENTS),
            ("segments of one incoming flow", ring, self.settings.receive_window as usize),
        ]
    }
}
