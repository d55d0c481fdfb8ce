//! To the application: records in the order they became ready, one at a time per session.

use super::sessions::Sessions;
use super::state::{Kind, Offer, Ready};
use crate::base::limits::MAX_PAYLOAD;
use crate::base::{Class, Instant, SessionId};
use crate::containers::Pool;
use crate::telemetry::DropReason;
use crate::wire::client::{Endpoint, MAX_RECORD, Record};
use crate::wire::cursor::Writer;

/// A record could not be written; the entry it would have come from is dropped.
#[derive(Debug)]
struct Unwritable;

impl Sessions {
    /// Writes the next record for an application into `record`, which has room for [`MAX_RECORD`] bytes: whose it is,
    /// and its length. The caller then calls exactly one of [`Sessions::delivered`] and [`Sessions::blocked`].
    pub fn poll_deliver(&mut self, now: Instant, pool: &mut Pool, record: &mut [u8]) -> Option<(SessionId, usize)> {
        assert!(record.len() >= MAX_RECORD, "every record fits the buffer");
        while let Some(ticket) = self.delivering.pop_front() {
            let Some(index) = self.sessions.redeem(ticket) else { continue };
            let session = self.session_mut(index);
            assert!(std::mem::replace(&mut session.queued, false), "a session stands in the round once");
            if !session.is_deliverable() {
                continue;
            }
            let id = session.id;
            match self.write_front(index, pool, record) {
                Ok(Some((offer, len))) => {
                    self.session_mut(index).offered = Some(offer);
                    return Some((id, len));
                }
                Ok(None) => self.settle(now, index, pool),
                Err(Unwritable) => {
                    self.count(DropReason::Malformed);
                    self.session_mut(index).offered = Some(Offer::Front);
                    self.settle(now, index, pool);
                }
            }
        }
        None
    }

    /// The record reached the descriptor: what it was made of is given back, the sender's window moves on.
    pub fn delivered(&mut self, now: Instant, id: SessionId, pool: &mut Pool) {
        let Some(index) = self.find(id) else { return };
        self.settle(now, index, pool);
    }

    /// The descriptor is full: the record is kept, and the session not offered again until
    /// [`Sessions::handle_writable`].
    pub fn blocked(&mut self, _now: Instant, id: SessionId) {
        if let Some(index) = self.find(id) {
            let session = self.session_mut(index);
            (session.offered, session.blocked) = (None, true);
        }
    }

    /// Writes the first entry of the inbox. None if it needs no record: then it is to be settled as it is.
    fn write_front(
        &mut self,
        index: u32,
        pool: &mut Pool,
        buffer: &mut [u8],
    ) -> Result<Option<(Offer, usize)>, Unwritable> {
        let session = self.sessions.get_mut(index).expect("the index is of a living session");
        let front = session.inbox.front().expect("something is ready");
        let len = match front {
            Ready::Packet { from, class, mark, packet } => {
                let head = write_head(buffer, *class, *mark, *from)?;
                let bytes = pool.bytes(packet);
                buffer[head..head + bytes.len()].copy_from_slice(bytes);
                head + bytes.len()
            }
            Ready::Parts { from, class, mark, parts } => {
                let mut len = write_head(buffer, *class, *mark, *from)?;
                for packet in parts {
                    let bytes = pool.bytes(packet);
                    buffer.get_mut(len..len + bytes.len()).ok_or(Unwritable)?.copy_from_slice(bytes);
                    len += bytes.len();
                }
                len
            }
            Ready::Message { receiver, span } => {
                let receiver = self.receivers.get(*receiver).expect("a flow with something ready lives");
                let head = write_head(buffer, Class::Reliable, false, receiver.key.peer)?;
                let copied = receiver.copy_message(*span, pool, &mut buffer[head..]);
                let (len, mark) = copied.ok_or(Unwritable)?;
                write_head(buffer, Class::Reliable, mark, receiver.key.peer)?;
                head + len
            }
            Ready::Notice(record) => write_record(buffer, record)?,
            Ready::Bytes { receiver } => {
                let receiver = self.receivers.get(*receiver).expect("a flow with something ready lives");
                let head = write_record(buffer, &Record::Data(&[]))?;
                let copied = receiver.copy_stream(pool, &mut buffer[head..head + MAX_PAYLOAD]);
                let (span, len) = copied.expect("a readable stream has segments");
                if len == 0 {
                    session.offered = Some(Offer::Bytes(span));
                    return Ok(None);
                }
                return Ok(Some((Offer::Bytes(span), head + len)));
            }
        };
        Ok(Some((Offer::Front, len)))
    }

    /// Gives back what the offered record was made of, and goes on.
    fn settle(&mut self, now: Instant, index: u32, pool: &mut Pool) {
        match self.session_mut(index).offered.take() {
            Some(Offer::Front) => self.settle_front(now, index, pool),
            Some(Offer::Bytes(span)) => self.settle_bytes(index, span, pool),
            None => return,
        }
        // A stream may have ended with this.
        if self.sessions.get(index).is_some() {
            self.offer(index);
            self.advance_stream(now, index, pool);
        }
    }

    fn settle_front(&mut self, now: Instant, index: u32, pool: &mut Pool) {
        let session = self.session_mut(index);
        let Some(ready) = session.inbox.pop_front() else { return };
        match ready {
            Ready::Message { receiver: at, span } => {
                session.delivered += 1;
                let receiver = self.receivers.get_mut(at).expect("a flow with something ready lives");
                receiver.consume(span, pool, &mut self.received);
                receiver.ready -= 1;
                self.announce(at, pool);
                self.drop_if_over(at, pool);
            }
            Ready::Packet { .. } | Ready::Parts { .. } => {
                session.delivered += 1;
                session.waiting -= packets(&ready);
                self.release_ready(ready, pool);
            }
            // What `notify` put there.
            Ready::Notice(_) if matches!(session.kind, Kind::Datagram) => session.waiting -= 1,
            Ready::Notice(Record::Finish) => self.read_out(now, index, pool),
            Ready::Notice(_) | Ready::Bytes { .. } => {}
        }
    }

    fn settle_bytes(&mut self, index: u32, span: (u64, u64), pool: &mut Pool) {
        let session = self.session_mut(index);
        let Some(Ready::Bytes { receiver: at }) = session.inbox.front() else {
            panic!("a stream's bytes were offered from its inbox's front");
        };
        let at = *at;
        session.delivered += span.1 - span.0 + 1;
        let receiver = self.receivers.get_mut(at).expect("a flow with something ready lives");
        receiver.consume(span, pool, &mut self.received);
        if !receiver.is_readable() {
            receiver.ready -= 1;
            let ended = receiver.is_read_out();
            self.session_mut(index).inbox.pop_front();
            if ended {
                self.push_ready(index, Ready::Notice(Record::Finish));
            }
        }
        self.announce(at, pool);
        self.drop_if_over(at, pool);
    }

    /// The application has read the stream to its end.
    fn read_out(&mut self, now: Instant, index: u32, pool: &mut Pool) {
        let Some(stream) = self.session_mut(index).stream_mut() else { return };
        stream.read_out = true;
        if let Some(reason) = stream.broken {
            self.reset_stream(now, index, reason, false, pool);
        }
    }

    /// Tells a sender that may be waiting that there is room again.
    fn announce(&mut self, at: u32, pool: &Pool) {
        let left = self.received.left(pool, self.settings.receive_percent);
        if self.receivers.get(at).is_some_and(|receiver| receiver.should_announce(left, &self.settings)) {
            self.queue_ack(at);
        }
    }

    /// Gives back what an entry of the inbox is made of, undelivered or not.
    pub(super) fn release_ready(&mut self, ready: Ready, pool: &mut Pool) {
        match ready {
            Ready::Packet { packet, .. } => self.received.release(pool, packet),
            Ready::Parts { mut parts, .. } => {
                for packet in parts.drain(..) {
                    self.received.release(pool, packet);
                }
                self.reassembly.recycle(parts);
            }
            Ready::Message { receiver, .. } | Ready::Bytes { receiver } => {
                self.receivers.get_mut(receiver).expect("a flow with something ready lives").ready -= 1;
                self.drop_if_over(receiver, pool);
            }
            Ready::Notice(_) => {}
        }
    }
}

/// Packets that an entry holds on the inbox's own account.
const fn packets(ready: &Ready) -> usize {
    match ready {
        Ready::Packet { .. } => 1,
        Ready::Parts { parts, .. } => parts.len(),
        _ => 0,
    }
}

fn write_record(buffer: &mut [u8], record: &Record<'_>) -> Result<usize, Unwritable> {
    let mut writer = Writer::new(buffer);
    record.emit(&mut writer).map_err(|_| Unwritable)?;
    Ok(writer.len())
}

/// The head of a datagram's record; its bytes follow.
fn write_head(buffer: &mut [u8], class: Class, mark: bool, from: Endpoint) -> Result<usize, Unwritable> {
    write_record(buffer, &Record::Datagram { class, mark, from, bytes: &[] })
}
