//! Byte streams.

use super::channel::Channel;
use super::datagrams::{foreign, gather};
use super::sys;
use crate::base::limits::MAX_PAYLOAD;
use crate::wire::client::{Endpoint, MAX_HEADER, Record};
use crate::wire::cursor::Writer;
use crate::wire::session::ResetReason;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The first byte of a record with stream bytes.
const DATA: u8 = 2;

/// A byte stream in both directions, reliable and in order. Reading ends with `Ok(0)` when the other end has finished;
/// call [`Stream::finish`] to end the other direction. A stream that is dropped before that is reset: what the other end
/// has not received by then is lost, and its reads fail with `ConnectionReset`.
///
/// Its descriptor is readable and writable as a socket's is, with one difference: a read with a small buffer may leave
/// bytes behind that have left the descriptor already. Whoever polls looks at [`Stream::buffered`] first, or reads until
/// `WouldBlock`.
#[derive(Debug)]
pub struct Stream {
    channel: Channel,
    peer: Endpoint,
    incoming: Arc<Mutex<Incoming>>,
}

/// What was received and not yet read; shared by clones.
#[derive(Debug)]
struct Incoming {
    /// The end of a record that did not fit the reader's buffer: `rest[start..end]` is not yet read.
    rest: Box<[u8]>,
    start: usize,
    end: usize,
    finished: bool,
    reset: Option<ResetReason>,
}

/// What a receive brought.
enum Received {
    Bytes(usize),
    Connected,
    Finish,
    End,
}

impl Stream {
    pub(super) fn new(channel: Channel, peer: Endpoint) -> Stream {
        let rest = vec![0; MAX_PAYLOAD].into_boxed_slice();
        let incoming = Incoming { rest, start: 0, end: 0, finished: false, reset: None };
        Stream { channel, peer, incoming: Arc::new(Mutex::new(incoming)) }
    }

    /// Waits until the stream is connected or refused.
    pub(super) fn connect(channel: Channel, to: Endpoint) -> io::Result<Stream> {
        let stream = Stream::new(channel, to);
        match stream.incoming.lock().unwrap_or_else(PoisonError::into_inner).receive(&stream.channel, &mut [])? {
            Received::Connected => {}
            Received::End => {
                let message = "the router ended the stream before it was connected";
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, message));
            }
            Received::Bytes(_) | Received::Finish => return Err(foreign(&"data before `connected`")),
        }
        Ok(stream)
    }

    /// Whether its bytes go through memory that it shares with the router.
    pub fn shares_memory(&self) -> bool {
        self.channel.shares_memory()
    }

    /// The other end.
    pub fn peer(&self) -> Endpoint {
        self.peer
    }

    /// Bytes that were received and that the next reads will get without the descriptor: it is not readable for them.
    pub fn buffered(&self) -> usize {
        let incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        incoming.end - incoming.start
    }

    /// Ends this direction: the other end reads what was written and then `Ok(0)`. Writing is over; reading is not.
    pub fn finish(&self) -> io::Result<()> {
        let mut header = [0; MAX_HEADER];
        let mut writer = Writer::new(&mut header);
        Record::Finish.emit(&mut writer).expect("a header has room for every header");
        self.channel.send(&mut [IoSlice::new(writer.written())])
    }

    /// Another handle to the same stream, such as for writing in another thread.
    pub fn try_clone(&self) -> io::Result<Stream> {
        let channel = self.channel.try_clone()?;
        Ok(Stream { channel, peer: self.peer, incoming: Arc::clone(&self.incoming) })
    }

    /// Makes calls on this handle and its clones fail with `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        sys::set_nonblocking(self.as_fd(), nonblocking)
    }

    /// Makes reads fail with `WouldBlock` after a while; none waits for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        sys::set_read_timeout(self.as_fd(), timeout)
    }

    /// Makes writes fail with `WouldBlock` after a while, with none of their bytes written; none waits for ever.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        sys::set_write_timeout(self.as_fd(), timeout)
    }
}

impl Incoming {
    /// The next bytes, or zero of them at the end.
    fn read(&mut self, channel: &Channel, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.start < self.end {
                let take = buffer.len().min(self.end - self.start);
                buffer[..take].copy_from_slice(&self.rest[self.start..self.start + take]);
                self.start += take;
                return Ok(take);
            }
            if self.finished {
                return Ok(0);
            }
            match self.receive(channel, buffer)? {
                Received::Bytes(0) | Received::Connected => {}
                Received::Bytes(len) => return Ok(len),
                Received::Finish => self.finished = true,
                Received::End => {
                    let message = "the router ended the stream, or is gone; what was not read is lost";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, message));
                }
            }
        }
    }

    /// Receives one record: its bytes into `buffer`, the rest of them into `self.rest`.
    fn receive(&mut self, channel: &Channel, buffer: &mut [u8]) -> io::Result<Received> {
        if let Some(reason) = self.reset {
            return Err(was_reset(reason));
        }
        let mut code = [0];
        let mut parts = [IoSliceMut::new(&mut code), IoSliceMut::new(buffer), IoSliceMut::new(&mut self.rest)];
        let len = match channel.receive(&mut parts) {
            Ok(len) => len,
            // Said once, ahead of what the router had sent before it went.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Received::Bytes(0)),
            Err(error) => return Err(error),
        };
        if len == 0 {
            return Ok(Received::End);
        }
        let in_buffer = (len - 1).min(buffer.len());
        let in_rest = (len - 1 - in_buffer).min(MAX_PAYLOAD);
        if code[0] == DATA {
            (self.start, self.end) = (0, in_rest);
            return Ok(Received::Bytes(in_buffer));
        }
        let mut short = [0; MAX_HEADER + 1];
        let record = gather(&mut short, len, &[&code, &buffer[..in_buffer], &self.rest[..in_rest]]);
        match Record::parse(record).map_err(|why| foreign(&why))? {
            Record::Finish => Ok(Received::Finish),
            Record::Connected(_) => Ok(Received::Connected),
            Record::Reset { reason, .. } => {
                self.reset = Some(reason);
                Err(was_reset(reason))
            }
            other => Err(foreign(&format_args!("{other:?}"))),
        }
    }
}

/// Why a session's other end is gone, for people.
pub const fn explain(reason: ResetReason) -> &'static str {
    match reason {
        ResetReason::NoSession => "nobody listens at that port",
        ResetReason::Refused => "the other router refused: a limit was reached",
        ResetReason::Closed => "the other end closed it, or stopped reading",
        ResetReason::UnknownFlow => "the other router lost the session: it restarted",
        ResetReason::TimedOut => "the other router did not answer",
    }
}

fn was_reset(reason: ResetReason) -> io::Error {
    let kind = match reason {
        ResetReason::NoSession | ResetReason::Refused => io::ErrorKind::ConnectionRefused,
        ResetReason::Closed | ResetReason::UnknownFlow => io::ErrorKind::ConnectionReset,
        // Not `TimedOut`: that is what a read timeout may be.
        ResetReason::TimedOut => io::ErrorKind::HostUnreachable,
    };
    io::Error::new(kind, explain(reason))
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner).read(&self.channel, buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    /// Nothing is kept back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(MAX_PAYLOAD);
        if take == 0 {
            return Ok(0);
        }
        let mut parts = [IoSlice::new(&[DATA]), IoSlice::new(&bytes[..take])];
        self.channel.send(&mut parts).map(|()| take)
    }

    /// Nothing is kept back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
