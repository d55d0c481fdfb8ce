//! The two ends of a ring. Each side of a session has one of each.

use super::memory::{Memory, Way, Words};
use super::{Nonsense, RING, Sleeper};
use crate::wire::client::MAX_RECORD;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes before a record: its length.
const LENGTH: usize = 8;

/// Bytes that a record of `len` bytes takes.
const fn taken_by(len: usize) -> usize {
    LENGTH + len.next_multiple_of(8)
}

/// The end that writes.
#[derive(Debug)]
pub struct Producer {
    memory: Arc<Memory>,
    way: Way,
    /// How far it has written, and how far the consumer had read when last looked at.
    head: u64,
    tail: u64,
}

impl Producer {
    /// The producer of a ring that nobody has written to.
    pub fn new(memory: Arc<Memory>, way: Way) -> Producer {
        Producer { memory, way, head: 0, tail: 0 }
    }

    fn words(&self) -> &Words {
        self.memory.words(self.way)
    }

    /// Appends the concatenation of `parts` as one record of at most [`MAX_RECORD`] bytes. False if there is no room.
    pub fn push<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]> + Clone) -> Result<bool, Nonsense> {
        let len: usize = parts.clone().map(<[u8]>::len).sum();
        assert!(len <= MAX_RECORD, "records are checked before they come here");
        if !self.has_room(taken_by(len))? {
            return Ok(false);
        }
        self.memory.word(self.way, self.head).store(len as u64, Ordering::Relaxed);
        let mut at = self.head + LENGTH as u64;
        for part in parts {
            self.memory.copy_in(self.way, at, part);
            at += part.len() as u64;
        }
        self.head += taken_by(len) as u64;
        self.words().head().store(self.head, Ordering::Release);
        Ok(true)
    }

    /// Looks how far the consumer has read only if what it knows is not enough.
    fn has_room(&mut self, bytes: usize) -> Result<bool, Nonsense> {
        if self.head - self.tail + bytes as u64 <= RING as u64 {
            return Ok(true);
        }
        let tail = self.words().tail().load(Ordering::Acquire);
        if tail < self.tail || tail > self.head || !tail.is_multiple_of(8) {
            return Err(Nonsense);
        }
        self.tail = tail;
        Ok(self.head - self.tail + bytes as u64 <= RING as u64)
    }

    /// After one push or several: whether the consumer must be woken.
    pub fn must_wake(&self) -> bool {
        self.words().sleeper().must_wake()
    }

    /// Says that a plug is in the socket, or is not.
    pub fn set_plugged(&self, plugged: bool) {
        self.words().plugged().store(u32::from(plugged), Ordering::Relaxed);
    }

    /// Whether the router has said that the session is over.
    pub fn is_over(&self) -> bool {
        self.memory.is_over()
    }
}

/// The end that reads.
#[derive(Debug)]
pub struct Consumer {
    memory: Arc<Memory>,
    way: Way,
    /// How far it has read, and how far the producer had written when last looked at.
    tail: u64,
    head: u64,
    /// The length of the record at `tail`, once it was looked at.
    front: Option<usize>,
}

impl Consumer {
    /// The consumer of a ring that nobody has read from.
    pub fn new(memory: Arc<Memory>, way: Way) -> Consumer {
        Consumer { memory, way, tail: 0, head: 0, front: None }
    }

    fn words(&self) -> &Words {
        self.memory.words(self.way)
    }

    /// Whether nothing is there to read. What was written since it last said otherwise is looked for.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail && self.words().head().load(Ordering::Acquire) == self.tail
    }

    /// The length of the next record; none if there is none.
    pub fn front(&mut self) -> Result<Option<usize>, Nonsense> {
        if self.front.is_some() {
            return Ok(self.front);
        }
        if self.head == self.tail && !self.look()? {
            return Ok(None);
        }
        let there = self.head - self.tail;
        let len = self.memory.word(self.way, self.tail).load(Ordering::Relaxed);
        if len > MAX_RECORD as u64 || taken_by(len as usize) as u64 > there {
            return Err(Nonsense);
        }
        self.front = Some(len as usize);
        Ok(self.front)
    }

    /// Looks how far the producer has written; whether there is something to read.
    fn look(&mut self) -> Result<bool, Nonsense> {
        let head = self.words().head().load(Ordering::Acquire);
        if head < self.head || head - self.tail > RING as u64 || !head.is_multiple_of(8) {
            return Err(Nonsense);
        }
        self.head = head;
        Ok(self.head > self.tail)
    }

    /// Copies bytes of the next record, from its byte `from` on, as many as there are and fit. Answers how many.
    pub fn copy_front(&mut self, from: usize, into: &mut [u8]) -> Result<usize, Nonsense> {
        let Some(len) = self.front()? else { return Ok(0) };
        let count = into.len().min(len.saturating_sub(from));
        self.memory.copy_out(self.way, self.tail + (LENGTH + from) as u64, &mut into[..count]);
        Ok(count)
    }

    /// Forgets the next record, which was looked at: its room can be used again.
    pub fn pop(&mut self) {
        let len = self.front.take().expect("a record is looked at before it goes");
        self.tail += taken_by(len) as u64;
        self.words().tail().store(self.tail, Ordering::Release);
    }

    /// Copies the next record to `into` and forgets it. Answers its length; none if there is none. What does not fit is
    /// lost.
    pub fn take(&mut self, into: &mut [u8]) -> Result<Option<usize>, Nonsense> {
        let Some(len) = self.front()? else { return Ok(None) };
        self.copy_front(0, into)?;
        self.pop();
        Ok(Some(len))
    }

    /// Whether at least half of the ring is free, as far as is known.
    pub fn is_half_empty(&self) -> bool {
        self.head - self.tail <= RING as u64 / 2
    }

    /// Whether the producer says that a plug is in the socket.
    pub fn is_plugged(&self) -> bool {
        self.words().plugged().load(Ordering::Relaxed) != 0
    }

    /// The plug was taken.
    pub fn clear_plugged(&self) {
        self.words().plugged().store(0, Ordering::Relaxed);
    }

    /// What this end says of its sleep.
    pub fn sleeper(&self) -> &Sleeper {
        self.words().sleeper()
    }

    /// Copies the last record of those that wait, and takes none. Answers how much of it was copied; none if none waits.
    /// Looks no further than to what waits now: a producer that goes on cannot hold this end for ever.
    pub fn copy_last(&self, into: &mut [u8]) -> Result<Option<usize>, Nonsense> {
        let mut ahead = Consumer { memory: Arc::clone(&self.memory), ..*self };
        ahead.look()?;
        let (end, mut last) = (ahead.head, None);
        while ahead.tail < end && ahead.front()?.is_some() {
            last = Some(ahead.copy_front(0, into)?);
            ahead.skip();
        }
        Ok(last)
    }

    /// As [`Consumer::pop`], and tells nobody.
    fn skip(&mut self) {
        let len = self.front.take().expect("a record is looked at before it goes");
        self.tail += taken_by(len) as u64;
    }
}
