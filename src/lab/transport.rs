//! The ways a message can cross the lab, behind one pair of doors: [`Source`] and [`Sink`].

use super::world::{RAW_PORT, TCP_PORTS, World, tcp_algorithms};
use crate::base::Class;
use crate::client::{Datagrams, Event, Overlay, Stream};
use crate::wire::client::Endpoint;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc;
use std::time::Duration;

/// How often a sink looks up from waiting.
const LOOK_UP: Duration = Duration::from_millis(50);
/// How long a connection may take to open.
const OPENING: Duration = Duration::from_secs(20);

/// A way to cross.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Kernel TCP end to end with this congestion control.
    Tcp(String),
    /// Kernel UDP end to end: the bare path.
    RawUdp,
    /// Overlay datagrams, sent once on each link.
    BestEffort,
    /// An overlay stream, recovered on each link.
    Reliable,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transport::Tcp(algorithm) => write!(f, "tcp-{algorithm}"),
            Transport::RawUdp => f.write_str("raw-udp"),
            Transport::BestEffort => f.write_str("best-effort"),
            Transport::Reliable => f.write_str("reliable"),
        }
    }
}

impl std::str::FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Transport, String> {
        match text {
            "raw-udp" => Ok(Transport::RawUdp),
            "best-effort" => Ok(Transport::BestEffort),
            "reliable" => Ok(Transport::Reliable),
            _ => match text.strip_prefix("tcp-") {
                Some(algorithm) if !algorithm.is_empty() => Ok(Transport::Tcp(algorithm.to_owned())),
                _ => {
                    Err(format!("unknown transport `{text}`: use tcp-cubic, tcp-bbr, best-effort, reliable or raw-udp"))
                }
            },
        }
    }
}

impl Transport {
    /// Whether it delivers bytes in order for as long as the connection lives.
    pub const fn is_stream(&self) -> bool {
        matches!(self, Transport::Tcp(_) | Transport::Reliable)
    }

    /// Whether the routers must run for it.
    pub const fn is_overlay(&self) -> bool {
        matches!(self, Transport::BestEffort | Transport::Reliable)
    }

    /// Whether it runs without namespaces.
    pub const fn runs_on_relays(&self) -> bool {
        self.is_overlay()
    }

    /// Everything the default experiment compares on this machine.
    pub fn all() -> Vec<Transport> {
        let tcp = tcp_algorithms().into_iter().map(Transport::Tcp);
        [Transport::RawUdp].into_iter().chain(tcp).chain([Transport::BestEffort, Transport::Reliable]).collect()
    }
}

/// Where messages go in. Sending may wait; poll the descriptor for writing to know.
pub trait Source: Send {
    /// Sends one message.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;
    /// Says that no more follow.
    fn finish(&mut self);
    /// What to poll.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// Where messages come out.
pub trait Sink: Send {
    /// Waits a moment for one message; 0 means that none came. An error means that none will come any more.
    fn receive(&mut self, message: &mut [u8]) -> io::Result<usize>;
}

/// Both ends of an open connection.
pub type Ends = (Box<dyn Source>, Box<dyn Sink>);

/// Opens a connection from one router to another. `number` tells connections of one transport apart.
pub fn open(world: &World, transport: &Transport, from: &str, to: &str, number: u16) -> io::Result<Ends> {
    let ends = match transport {
        Transport::Tcp(algorithm) => open_tcp(world, algorithm, from, to, number),
        Transport::RawUdp => open_udp(world, from, to, number),
        Transport::BestEffort => open_datagrams(world, from, to),
        Transport::Reliable => open_stream(world, from, to),
    };
    ends.map_err(|error| io::Error::new(error.kind(), format!("{transport} from {from} to {to}: {error}")))
}

fn open_tcp(world: &World, algorithm: &str, from: &str, to: &str, number: u16) -> io::Result<Ends> {
    let (sender, receiver) = (world.router(from), world.router(to));
    let unknown = || io::Error::new(io::ErrorKind::InvalidInput, "this network does not tell it apart from others");
    let port = world.tcp_port(algorithm).ok_or_else(unknown)? + number % TCP_PORTS;
    let address = SocketAddrV4::new(receiver.address(), port);
    let make = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_congestion(algorithm.as_bytes())?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    };
    let listener: TcpListener = receiver.inside(|| {
        let socket = make()?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(1)?;
        Ok(socket.into())
    })?;
    let sending: TcpStream = sender.inside(|| {
        let socket = make()?;
        socket.bind(&SocketAddrV4::new(sender.address(), 0).into())?;
        socket.connect_timeout(&address.into(), OPENING)?;
        Ok(socket.into())
    })?;
    let (receiving, _) = listener.accept()?;
    receiving.set_read_timeout(Some(LOOK_UP))?;
    sending.set_write_timeout(Some(OPENING))?;
    Ok((Box::new(TcpSource(sending)), Box::new(Framed::new(TcpEnd(receiving)))))
}

fn open_udp(world: &World, from: &str, to: &str, number: u16) -> io::Result<Ends> {
    let (sender, receiver) = (world.router(from), world.router(to));
    let address = SocketAddrV4::new(receiver.address(), RAW_PORT + number % 64);
    let sink = receiver.inside(|| UdpSocket::bind(address))?;
    sink.set_read_timeout(Some(LOOK_UP))?;
    let source = sender.inside(|| {
        let socket = UdpSocket::bind((sender.address(), 0))?;
        socket.connect(address)?;
        Ok(socket)
    })?;
    Ok((Box::new(UdpSource(source)), Box::new(UdpSink(sink))))
}

fn open_datagrams(world: &World, from: &str, to: &str) -> io::Result<Ends> {
    let (here, there) = (world.router(from).overlay()?, world.router(to).overlay()?);
    let sink = there.datagrams(0)?;
    sink.set_read_timeout(Some(LOOK_UP))?;
    let source = DatagramSource { datagrams: here.datagrams(0)?, to: sink.local(), _overlay: here };
    let sink = DatagramSink { datagrams: sink, _overlay: there, buffer: vec![0; 64 * 1024 + 64] };
    Ok((Box::new(source), Box::new(sink)))
}

fn open_stream(world: &World, from: &str, to: &str) -> io::Result<Ends> {
    let (here, there) = (world.router(from).overlay()?, world.router(to).overlay()?);
    let listener = there.listen(0)?;
    let to = listener.local();
    let (accepted, incoming) = mpsc::channel();
    // Accepting may have to go on while connecting does. The thread ends with the router at the latest.
    std::thread::Builder::new().name("lab-accept".into()).spawn(move || {
        // Nobody waits any more if this fails.
        let _ = accepted.send(listener.accept().map(|stream| (stream, listener)));
    })?;
    let sending = here.stream(to)?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the listener saw no stream");
    let (receiving, listener) = incoming.recv_timeout(OPENING).map_err(late)??;
    receiving.set_read_timeout(Some(LOOK_UP))?;
    let source = StreamSource { stream: sending, _overlay: here };
    let sink = StreamEnd { stream: receiving, _listener: listener, _overlay: there };
    Ok((Box::new(source), Box::new(Framed::new(sink))))
}

struct TcpSource(TcpStream);

impl Source for TcpSource {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.write_all(message)
    }

    fn finish(&mut self) {
        // If the connection is gone there is nothing to finish.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct TcpEnd(TcpStream);

impl Read for TcpEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

struct UdpSource(UdpSocket);

impl Source for UdpSource {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send(message).map(drop)
    }

    fn finish(&mut self) {}

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct UdpSink(UdpSocket);

impl Sink for UdpSink {
    fn receive(&mut self, message: &mut [u8]) -> io::Result<usize> {
        none_is_zero(self.0.recv(message))
    }
}

struct DatagramSource {
    datagrams: Datagrams,
    to: Endpoint,
    _overlay: Overlay,
}

impl Source for DatagramSource {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.datagrams.send(self.to, Class::BestEffort, false, message)
    }

    fn finish(&mut self) {}

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.datagrams.as_fd()
    }
}

struct DatagramSink {
    datagrams: Datagrams,
    buffer: Vec<u8>,
    _overlay: Overlay,
}

impl Sink for DatagramSink {
    fn receive(&mut self, message: &mut [u8]) -> io::Result<usize> {
        match self.datagrams.recv(&mut self.buffer) {
            Ok(Event::Datagram { bytes, .. }) => {
                let len = bytes.len().min(message.len());
                message[..len].copy_from_slice(&bytes[..len]);
                Ok(len)
            }
            Ok(Event::Closed) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(0),
            Err(error) => none_is_zero(Err(error)),
        }
    }
}

struct StreamSource {
    stream: Stream,
    _overlay: Overlay,
}

impl Source for StreamSource {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message)
    }

    fn finish(&mut self) {
        // If the stream is gone there is nothing to finish.
        let _ = self.stream.finish();
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

struct StreamEnd<L> {
    stream: Stream,
    _listener: L,
    _overlay: Overlay,
}

impl<L> Read for StreamEnd<L> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

/// Cuts a byte stream into messages as long as the buffer they are asked for with.
struct Framed<R> {
    inner: R,
    filled: usize,
}

impl<R> Framed<R> {
    const fn new(inner: R) -> Framed<R> {
        Framed { inner, filled: 0 }
    }
}

impl<R: Read + Send> Sink for Framed<R> {
    fn receive(&mut self, message: &mut [u8]) -> io::Result<usize> {
        while self.filled < message.len() {
            match self.inner.read(&mut message[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.filled += len,
                Err(error) => return none_is_zero(Err(error)),
            }
        }
        self.filled = 0;
        Ok(message.len())
    }
}

/// A moment without anything is no error.
fn none_is_zero(result: io::Result<usize>) -> io::Result<usize> {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    match result {
        Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted | ConnectionRefused) => Ok(0),
        other => other,
    }
}
