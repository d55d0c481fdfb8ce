//! The metrics' port: a listening socket and its connections, served by the control loop.
//!
//! Nothing blocks. Every answer is counted after its request: workers are asked for it. Bounds: [`MOST`] connections, the
//! one that was idle longest gives way to a newcomer, which is refused if none is idle; a request of
//! [`MAX_HEAD`] bytes; [`PATIENCE`] for a request to arrive whole and for an answer to be taken;
//! [`IDLE`] between requests. One request is under way at a time; what follows it waits in the kernel.

use super::http::{self, Asked, MAX_HEAD, Parsed, Request};
use crate::base::Instant;
use crate::telemetry::prometheus::CONTENT_TYPE;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

/// Most connections.
pub(super) const MOST: usize = 32;
/// Longest time for a request to arrive, or for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection without a request is closed after this long: Prometheus asks at least once a minute, as a rule.
const IDLE: Duration = Duration::from_secs(150);
/// Pause before connections are accepted again after the system had no descriptor or memory for one.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// What is found at `/`.
const INDEX: &str = "Sinew: the metrics are at /metrics\n";

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A request may come, or comes.
    Reading,
    /// The workers are being asked, under this number.
    Asking(u64, Request),
    /// An answer is being taken.
    Writing {
        /// Another request may follow.
        keeps_alive: bool,
    },
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    state: State,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// Ends it, unless it goes on.
    deadline: Instant,
}

/// What a connection wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// More bytes, or room.
    Wait,
    /// The metrics.
    Ask,
    /// To go on at once.
    Again,
    /// Nothing more.
    End,
}

/// The port and its connections.
#[derive(Debug)]
pub(super) struct Metrics {
    listener: TcpListener,
    token: Token,
    /// At token + 1 and on.
    connections: [Option<Connection>; MOST],
    asked: u64,
    /// When connections that could not be accepted are tried again: events are edges, and no other comes for them.
    accept_at: Option<Instant>,
}

impl Metrics {
    /// Listens at `address`.
    pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address)
    }

    /// Serves what `listener` accepts. Takes `token` and [`MOST`] tokens behind it.
    pub(super) fn new(mut listener: TcpListener, registry: &Registry, token: Token) -> io::Result<Metrics> {
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Metrics { listener, token, connections: [const { None }; MOST], asked: 0, accept_at: None })
    }

    /// Something happened at a token. Gives the numbers of requests for metrics, each to be answered by
    /// [`Metrics::answer`].
    pub(super) fn handle(&mut self, now: Instant, registry: &Registry, token: Token) -> Option<u64> {
        match token.0.checked_sub(self.token.0 + 1) {
            Some(place) => self.advance(now, place),
            None => {
                self.accept(now, registry);
                None
            }
        }
    }

    /// The metrics for the request of this number, or why there are none. Gives the number of a request that came behind
    /// it.
    pub(super) fn answer(&mut self, now: Instant, number: u64, text: Result<&str, &str>) -> Option<u64> {
        let asking = |connection: &Connection| matches!(connection.state, State::Asking(asked, _) if asked == number);
        // Its asker may be gone.
        let place = self.connections.iter().position(|slot| slot.as_ref().is_some_and(asking))?;
        let connection = self.connections[place].as_mut().expect("it asks");
        let State::Asking(_, request) = connection.state else { unreachable!("it asks") };
        match text {
            Ok(text) => connection.say(now, http::answer(request, CONTENT_TYPE, text), request.keeps_alive),
            Err(why) => {
                tracing::debug!(why, "no metrics for who asked");
                connection.say(now, http::refusal("503 Service Unavailable", ""), false);
            }
        }
        self.advance(now, place)
    }

    /// Ends what has taken too long.
    pub(super) fn handle_timeout(&mut self, now: Instant, registry: &Registry) {
        if self.accept_at.take_if(|at| *at <= now).is_some() {
            self.accept(now, registry);
        }
        for slot in &mut self.connections {
            slot.take_if(|connection| connection.deadline <= now);
        }
    }

    /// When that is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.connections.iter().flatten().map(|connection| connection.deadline).chain(self.accept_at).min()
    }

    /// Takes in who waits, as many at a time as there are places: control has other things to do, too.
    fn accept(&mut self, now: Instant, registry: &Registry) {
        for _ in 0..MOST {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "who asks for metrics must wait");
                    self.accept_at = Some(now + ACCEPT_AGAIN);
                    return;
                }
            };
            let Some(place) = self.free_place() else {
                tracing::debug!("too many ask for metrics at a time");
                continue;
            };
            let token = Token(self.token.0 + 1 + place);
            if let Err(error) = registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
                tracing::warn!(%error, "who asks for metrics cannot connect");
                continue;
            }
            let deadline = now + PATIENCE;
            let (input, output) = (Vec::new(), Vec::new());
            self.connections[place] =
                Some(Connection { stream, state: State::Reading, input, output, written: 0, deadline });
        }
        self.accept_at = Some(now);
    }

    /// A place for a newcomer: an empty one, else that of the connection that has been idle longest.
    fn free_place(&mut self) -> Option<usize> {
        let idle = |connection: &Connection| connection.state == State::Reading && connection.input.is_empty();
        let places = self.connections.iter().enumerate();
        let open = places.filter(|(_, slot)| slot.as_ref().is_none_or(idle));
        let (place, _) = open.min_by_key(|(_, slot)| slot.as_ref().map(|connection| connection.deadline))?;
        self.connections[place] = None;
        Some(place)
    }

    /// Does with a connection what can be done now.
    fn advance(&mut self, now: Instant, place: usize) -> Option<u64> {
        let slot = self.connections.get_mut(place)?;
        loop {
            let connection = slot.as_mut()?;
            match connection.step(now, self.asked + 1) {
                Ok(Step::Again) => {}
                Ok(Step::Wait) => return None,
                Ok(Step::Ask) => {
                    self.asked += 1;
                    return Some(self.asked);
                }
                Ok(Step::End) | Err(_) => *slot = None,
            }
        }
    }
}

impl Connection {
    fn say(&mut self, now: Instant, bytes: Vec<u8>, keeps_alive: bool) {
        (self.output, self.written) = (bytes, 0);
        self.state = State::Writing { keeps_alive };
        self.deadline = now + PATIENCE;
    }

    /// `number` is that of the next request for metrics.
    fn step(&mut self, now: Instant, number: u64) -> io::Result<Step> {
        match self.state {
            State::Reading => self.read(now, number),
            // Whoever goes meanwhile is noticed by the answer.
            State::Asking(..) => Ok(Step::Wait),
            State::Writing { keeps_alive } => self.write(now, keeps_alive),
        }
    }

    fn read(&mut self, now: Instant, number: u64) -> io::Result<Step> {
        match http::parse(&self.input) {
            Parsed::Incomplete => {}
            Parsed::Refused(answer) => {
                self.say(now, answer, false);
                return Ok(Step::Again);
            }
            Parsed::Request(request) => {
                self.input.drain(..request.len);
                if request.asked == Asked::Metrics {
                    self.state = State::Asking(number, request);
                    self.deadline = now + PATIENCE;
                    return Ok(Step::Ask);
                }
                // Nobody asks for this again and again; who did so on one connection would hold up control.
                let request = Request { keeps_alive: false, ..request };
                self.say(now, http::answer(request, "text/plain; charset=utf-8", INDEX), false);
                return Ok(Step::Again);
            }
        }
        let mut bytes = [0; 2048];
        let room = bytes.len().min(MAX_HEAD - self.input.len());
        match self.stream.read(&mut bytes[..room]) {
            Ok(0) => Ok(Step::End),
            Ok(len) => {
                if self.input.is_empty() {
                    self.deadline = now + PATIENCE;
                }
                self.input.extend_from_slice(&bytes[..len]);
                Ok(Step::Again)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Wait),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Step::Again),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, now: Instant, keeps_alive: bool) -> io::Result<Step> {
        match self.stream.write(&self.output[self.written..]) {
            Ok(len) => {
                self.written += len;
                if self.written < self.output.len() {
                    return Ok(Step::Again);
                }
                if !keeps_alive {
                    return self.finish();
                }
                self.output = Vec::new();
                self.state = State::Reading;
                self.deadline = now + if self.input.is_empty() { IDLE } else { PATIENCE };
                Ok(Step::Again)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Wait),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Step::Again),
            Err(error) => Err(error),
        }
    }

    /// Nothing more will be said. What was sent and is not read would turn the end into a reset, and that takes the answer
    /// away from its reader (RFC 9112 section 9.6).
    fn finish(&mut self) -> io::Result<Step> {
        self.stream.shutdown(std::net::Shutdown::Write)?;
        let mut bytes = [0; MAX_HEAD];
        let _ = self.stream.read(&mut bytes);
        Ok(Step::End)
    }
}
