//! Lifelines: a TCP connection to every other member of the group, over which nothing is said.
//!
//! When a process ends, however it ends, the kernel closes its connections and tells the other ends, which takes a fraction
//! of a millisecond. A UDP port says as much only to who sends to it, and with io_uring not for a while: the requests of a
//! ring hold its sockets until the kernel has ended them in the background, some 50 ms later. A lifeline never meets a ring.
//!
//! That one ended is a hint and no verdict, because whoever can forge a TCP segment can end it: the link's worker then asks
//! the neighbour, which answers at once if it lives (`Command::Suspect`). Where lifelines cannot be (the port is taken, or
//! filtered on the way), a process that ends is noticed by its silence, as a machine that does.
//!
//! ```text
//!              connected                ended: hint
//!   trying ───────────────▶ up ───────────────────────┐
//!    │  ▲                                             ▼
//!    │  └──────────────────────────────────────── waiting
//!    └─ refused: hint · out of time ──────────────────▲
//! ```
//! Each member watches the connections that it makes, since it knows whom they lead to; those that it accepts it keeps until
//! they end. They lead to the number of worker 0's port. To addresses that are no member's the listener is silent: a filter
//! drops what they send.
//!
//! # Bounds
//! Connections made: one to each other member. Connections accepted: [`ACCEPTED`]; more are closed, and tried again by who
//! made them.

use super::super::sys;
use super::watch::{PASS, REFUSE, instruction};
use crate::base::limits::MAX_MEMBERS;
use crate::base::{Instant, NodeId};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Connections that are kept for others: of a member that starts again the old one may be there still.
const ACCEPTED: usize = 2 * MAX_MEMBERS;
/// Tokens that [`Lifelines`] take.
pub(in super::super) const TOKENS: usize = 1 + MAX_MEMBERS + ACCEPTED;
/// A connection that ended is tried again after this long: if nobody listens any more, that is another hint.
const SOON: Duration = Duration::from_millis(3);
/// One that could not be made is tried again after this long, and one that takes longer is given up.
const LATER: Duration = Duration::from_secs(1);
/// A connection that nothing was heard of for this long is asked for by the kernel, so that no firewall forgets it.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Members that may wait to be accepted.
const BACKLOG: i32 = MAX_MEMBERS as i32;

/// Another member, and how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Other {
    pub(in super::super) node: NodeId,
    /// Its worker 0.
    pub(in super::super) remote: SocketAddr,
    /// This router's address on the way there; none if the kernel is to choose.
    pub(in super::super) local: Option<IpAddr>,
}

/// A connection to another member.
#[derive(Debug)]
struct Line {
    other: Other,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Until this time.
    Waiting(Instant),
    /// Given up at this time.
    Trying(TcpStream, Instant),
    Up(TcpStream),
}

/// The lifelines of one router.
#[derive(Debug)]
pub(in super::super) struct Lifelines {
    listener: TcpListener,
    /// Its token; those of the connections made, and then of those accepted, follow.
    first: Token,
    lines: Vec<Line>,
    accepted: Vec<Option<TcpStream>>,
}

impl Lifelines {
    /// Listens at `listen` for the other members, and will connect to them.
    pub(in super::super) fn open(listen: SocketAddr, others: Vec<Other>) -> io::Result<Lifelines> {
        assert!(others.len() <= MAX_MEMBERS, "the configuration bounds them");
        let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        // Before it hears anything.
        let addresses: Vec<IpAddr> = others.iter().map(|other| other.remote.ip()).collect();
        sys::attach_filter(socket.as_fd(), &from_one_of(&addresses))?;
        socket.bind(&listen.into())?;
        socket.listen(BACKLOG)?;
        let lines = others.into_iter().map(|other| Line { other, state: State::Waiting(Instant::ZERO) }).collect();
        Ok(Lifelines {
            listener: TcpListener::from_std(socket.into()),
            first: Token(0),
            lines,
            accepted: (0..ACCEPTED).map(|_| None).collect(),
        })
    }

    /// Takes [`TOKENS`] tokens from `first` on.
    pub(in super::super) fn register(&mut self, registry: &Registry, first: Token) -> io::Result<()> {
        self.first = first;
        registry.register(&mut self.listener, first, Interest::READABLE)
    }

    /// Something happened at a token. Gives the member whose process has ended, as it seems.
    pub(in super::super) fn handle(&mut self, now: Instant, registry: &Registry, token: Token) -> Option<NodeId> {
        let Some(place) = (token.0 - self.first.0).checked_sub(1) else {
            self.accept(registry);
            return None;
        };
        match place.checked_sub(MAX_MEMBERS) {
            Some(place) => {
                // Nothing is to be said by it: it has ended, or is not what it is meant to be.
                self.accepted[place] = None;
                None
            }
            None => self.lines.get_mut(place)?.advance(now),
        }
    }

    /// Tries what is due. Gives a member that seems to have ended; then there may be more.
    pub(in super::super) fn handle_timeout(&mut self, now: Instant, registry: &Registry) -> Option<NodeId> {
        let first = self.first.0 + 1;
        let mut due = self.lines.iter_mut().enumerate().filter(|(_, line)| line.due().is_some_and(|at| at <= now));
        due.find_map(|(place, line)| line.retry(now, registry, Token(first + place)))
    }

    /// When that is due.
    pub(in super::super) fn poll_timeout(&self) -> Option<Instant> {
        self.lines.iter().filter_map(Line::due).min()
    }

    fn accept(&mut self, registry: &Registry) {
        // What else waits comes with the next event, or is tried again by who made it.
        for _ in 0..ACCEPTED {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                    continue;
                }
                Err(error) => return tracing::warn!(%error, "a member's lifeline must wait"),
            };
            let Some(place) = self.accepted.iter().position(Option::is_none) else {
                tracing::debug!("too many lifelines are kept already");
                continue;
            };
            let token = Token(self.first.0 + 1 + MAX_MEMBERS + place);
            let kept = keep_alive(&stream).and_then(|()| registry.register(&mut stream, token, Interest::READABLE));
            match kept {
                Ok(()) => self.accepted[place] = Some(stream),
                Err(error) => tracing::warn!(%error, "a member's lifeline is not kept"),
            }
        }
    }
}

impl Line {
    /// When there is something to do without an event.
    const fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) | State::Trying(_, at) => Some(at),
            State::Up(_) => None,
        }
    }

    /// Goes on after an event.
    fn advance(&mut self, now: Instant) -> Option<NodeId> {
        match std::mem::replace(&mut self.state, State::Waiting(now + LATER)) {
            State::Waiting(at) => {
                self.state = State::Waiting(at);
                None
            }
            State::Trying(stream, until) => {
                if let Ok(Some(error)) | Err(error) = stream.take_error() {
                    return self.failed(&error);
                }
                if stream.peer_addr().is_err() {
                    self.state = State::Trying(stream, until);
                    return None;
                }
                self.state = State::Up(stream);
                // It may have ended by now, and events come once.
                self.advance(now)
            }
            State::Up(mut stream) => match stream.read(&mut [0; 16]) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    self.state = State::Up(stream);
                    None
                }
                // Whoever says something there is not a router.
                Ok(1..) => None,
                Ok(0) | Err(_) => {
                    self.state = State::Waiting(now + SOON);
                    Some(self.other.node)
                }
            },
        }
    }

    /// Tries to connect; what took too long is given up.
    fn retry(&mut self, now: Instant, registry: &Registry, token: Token) -> Option<NodeId> {
        let given_up = matches!(self.state, State::Trying(..));
        self.state = State::Waiting(now + LATER);
        if given_up {
            return None;
        }
        let connected = connect(&self.other).and_then(|mut stream| {
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => {
                self.state = State::Trying(stream, now + LATER);
                None
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Nobody listens: of a member that is thought to live that is as good as an end.
    fn failed(&self, error: &io::Error) -> Option<NodeId> {
        (error.kind() == io::ErrorKind::ConnectionRefused).then_some(self.other.node)
    }
}

fn connect(other: &Other) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(other.remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(local) = other.local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    match socket.connect(&other.remote.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into());
    keep_alive(&stream)?;
    Ok(stream)
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let often = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&often)
}

/// Passes segments from these addresses. Offsets count from the network header (`SKF_NET_OFF`), since a TCP socket's filter
/// is shown what follows it.
fn from_one_of(addresses: &[IpAddr]) -> Vec<libc::sock_filter> {
    const HEADER: u32 = libc::SKF_NET_OFF.cast_unsigned();
    const IPV6: u32 = 0x60;
    let word = |at: u32| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, HEADER + at);
    let version = instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, HEADER);
    let jump = |code: u32, k: u32, jt: u8, jf: u8| instruction(libc::BPF_JMP | code | libc::BPF_K, jt, jf, k);
    let passes = |address: &IpAddr| match address {
        // If it is no IPv6, and from there.
        IpAddr::V4(address) => {
            let from = jump(libc::BPF_JEQ, address.to_bits(), 0, 1);
            vec![version, jump(libc::BPF_JGE, IPV6, 3, 0), word(12), from, PASS]
        }
        IpAddr::V6(address) => {
            let words = address.octets();
            let words = words.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
            let compared = words.enumerate().flat_map(|(place, expected)| {
                // Beyond the rest of this address.
                let rest = 2 * (3 - place as u8) + 1;
                [word(8 + 4 * place as u32), jump(libc::BPF_JEQ, expected, 0, rest)]
            });
            [vec![version, jump(libc::BPF_JGE, IPV6, 0, 9)], compared.collect(), vec![PASS]].concat()
        }
    };
    addresses.iter().flat_map(passes).chain([REFUSE]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    /// Members on the addresses of one loopback interface, in one thread.
    struct Member {
        lifelines: Lifelines,
        poll: Poll,
    }

    const LISTENS: Token = Token(5);

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    impl Member {
        /// Listens at a port that the kernel chooses if `listen` has none.
        fn new(listen: &str, others: &[(u64, SocketAddr)]) -> Member {
            let listen = at(listen);
            let other =
                |&(node, remote): &(u64, SocketAddr)| Other { node: NodeId(node), remote, local: Some(listen.ip()) };
            let mut lifelines = Lifelines::open(listen, others.iter().map(other).collect()).expect("a port");
            let poll = Poll::new().expect("a poll");
            lifelines.register(poll.registry(), LISTENS).expect("is registered");
            Member { lifelines, poll }
        }

        fn address(&self) -> SocketAddr {
            self.lifelines.listener.local_addr().expect("has one")
        }

        /// Does what is to be done; whose end was noticed.
        fn turn(&mut self, now: Instant) -> Vec<NodeId> {
            let mut events = Events::with_capacity(64);
            self.poll.poll(&mut events, Some(Duration::from_millis(1))).expect("waits");
            let registry = self.poll.registry();
            let mut ended: Vec<NodeId> =
                events.iter().filter_map(|event| self.lifelines.handle(now, registry, event.token())).collect();
            ended.extend(std::iter::from_fn(|| self.lifelines.handle_timeout(now, registry)));
            ended
        }

        fn is_up(&self, line: usize) -> bool {
            matches!(self.lifelines.lines[line].state, State::Up(_))
        }
    }

    /// Lets members go on until it is so; whose ends the first noticed.
    fn until(members: &mut [&mut Member], now: &mut Instant, so: impl Fn(&[&mut Member]) -> bool) -> Vec<NodeId> {
        let mut ended = Vec::new();
        for _ in 0..5000 {
            *now += Duration::from_millis(1);
            for (place, member) in members.iter_mut().enumerate() {
                let noticed = member.turn(*now);
                ended.extend(noticed.into_iter().filter(|_| place == 0));
            }
            if so(members) {
                return ended;
            }
        }
        panic!("it never came to be; noticed: {ended:?}");
    }

    /// Two addresses with one free port on both.
    fn two(first: &str, second: &str) -> (Member, Member) {
        let spare = Member::new(second, &[]);
        let there = spare.address();
        drop(spare);
        let mut near = Member::new(first, &[(2, there)]);
        let far = Member::new(&there.to_string(), &[(1, near.address())]);
        // What was refused while nobody listened there is not asked about.
        near.lifelines.lines[0].state = State::Waiting(Instant::ZERO);
        (near, far)
    }

    #[test]
    fn whose_process_ends_is_known_at_once_and_who_comes_back_is_connected_to() {
        for (first, second) in [("127.0.0.2:0", "127.0.0.3:0"), ("[::1]:0", "[::1]:0")] {
            let (mut near, mut far) = two(first, second);
            let (there, mut now) = (far.address(), Instant::from_millis(1));
            let both = |members: &[&mut Member]| members.iter().all(|member| member.is_up(0));
            assert_eq!(until(&mut [&mut near, &mut far], &mut now, both), []);
            drop(far);
            let ended = until(&mut [&mut near], &mut now, |members| !members[0].is_up(0));
            assert_eq!(ended, [NodeId(2)]);
            // And again a little later, since nobody listens there.
            let soon = now + LATER / 2;
            let waits = |members: &[&mut Member]| matches!(members[0].lifelines.lines[0].state, State::Waiting(until) if until > soon);
            assert_eq!(until(&mut [&mut near], &mut now, waits), [NodeId(2)]);
            let mut far = Member::new(&there.to_string(), &[(1, near.address())]);
            now += LATER;
            assert_eq!(until(&mut [&mut near, &mut far], &mut now, both), []);
        }
    }

    #[test]
    fn strangers_are_met_with_silence() {
        let (mut near, _far) = two("127.0.0.2:0", "127.0.0.3:0");
        let connect = |from: &str| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&at(from).into()).expect("is bound");
            socket.connect_timeout(&near.address().into(), Duration::from_millis(200))
        };
        assert_eq!(connect("127.0.0.9:0").expect_err("is not answered").kind(), io::ErrorKind::TimedOut);
        connect("127.0.0.3:0").expect("a member's address");
        assert_eq!(near.turn(Instant::ZERO), []);
    }

    #[test]
    fn who_says_something_is_let_go_and_no_more_are_kept_than_there_is_room_for() {
        let (mut near, _far) = two("127.0.0.2:0", "127.0.0.3:0");
        near.lifelines.lines.clear();
        let connect = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&at("127.0.0.3:0").into()).expect("is bound");
            socket.connect(&near.address().into()).expect("is answered");
            socket
        };
        let talks = connect();
        let kept = |near: &Member| near.lifelines.accepted.iter().flatten().count();
        assert_eq!((near.turn(Instant::ZERO), kept(&near)), (vec![], 1));
        talks.send(b"hello").expect("is sent");
        assert_eq!((near.turn(Instant::ZERO), kept(&near)), (vec![], 0));
    }
}
