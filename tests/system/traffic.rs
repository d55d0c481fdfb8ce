//! Traffic through the client library, and what became of it.

use crate::support::PATIENCE;
use sinew::base::{Class, Rng};
use sinew::client::{Datagrams, Endpoint, Event, Listener, Overlay, Stream};
use sinew::lab::world::Router;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::{Duration, Instant};

/// Bytes that repeat nowhere.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::from_u64(seed).fill(&mut bytes);
    bytes
}

/// Whether there is something to read in time.
pub(crate) fn readable(of: &impl AsFd, patience: Duration) -> bool {
    let mut poll = libc::pollfd { fd: of.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one valid pollfd.
    unsafe { libc::poll(&mut poll, 1, patience.as_millis() as i32) > 0 }
}

/// The next stream, in time.
pub(crate) fn accept(listener: &Listener) -> Stream {
    assert!(readable(listener, PATIENCE), "a stream arrives at {}", listener.local());
    let stream = listener.accept().expect("is accepted");
    stream.set_read_timeout(Some(PATIENCE)).expect("takes a timeout");
    stream
}

/// A stream between two routers: the end that opened it, the end that accepted it, and the listener.
pub(crate) fn stream(from: &Router, to: &Router, port: u16) -> (Stream, Stream, Listener) {
    let listener = to.overlay().and_then(|overlay| overlay.listen(port)).expect("listens");
    let near = connect(from, listener.local()).expect("connects");
    let far = accept(&listener);
    (near, far, listener)
}

/// Opens a stream; reads on it do not wait for ever.
pub(crate) fn connect(from: &Router, to: Endpoint) -> io::Result<Stream> {
    let stream = from.overlay()?.stream(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A session for datagrams, on which reads do not wait for ever.
pub(crate) fn datagrams(at: &Router, port: u16) -> Datagrams {
    let session = at.overlay().and_then(|overlay| overlay.datagrams(port)).expect("opens");
    session.set_read_timeout(Some(PATIENCE)).expect("takes a timeout");
    session
}

/// A connection whose sessions have their records go through their sockets.
pub(crate) fn by_socket(at: &Router) -> Overlay {
    let overlay = at.overlay().expect("answers");
    assert!(!overlay.share_memory(false).expect("answers"), "it does as it is asked");
    overlay
}

/// Sends `bytes` on a stream of its own to `to` and half as many back; both must arrive as they are.
pub(crate) fn carry(from: &Router, to: &Router, port: u16, bytes: &[u8]) {
    let (near, mut far, _listener) = stream(from, to, port);
    let back = &bytes[bytes.len() / 2..];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&near).write_all(bytes).expect("the stream takes everything");
            near.finish().expect("the stream finishes");
        });
        let answer = scope.spawn(|| {
            let mut answer = Vec::new();
            (&near).read_to_end(&mut answer).map(|_| answer)
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).expect("the stream ends well");
        assert!(got == bytes, "{} bytes were sent, {} others arrived", bytes.len(), got.len());
        far.write_all(back).expect("the stream takes everything");
        far.finish().expect("the stream finishes");
        let answer = answer.join().expect("no panic").expect("the answer ends well");
        assert!(answer == back, "{} bytes were sent back, {} others arrived", back.len(), answer.len());
    });
}

/// Sends `count` numbered datagrams; each must arrive exactly once, and in order if `ordered`.
pub(crate) fn exactly_once(from: &Router, to: &Router, count: u32, size: usize, ordered: bool) {
    let (source, sink) = (datagrams(from, 0), datagrams(to, 0));
    let target = sink.local();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut message = noise(1, size);
            for number in 0..count {
                message[..4].copy_from_slice(&number.to_be_bytes());
                source.send(target, Class::Reliable, ordered, &message).expect("is sent");
            }
        });
        let (mut seen, mut buffer) = (vec![false; count as usize], vec![0; size + 1]);
        for arrived in 0..count {
            let number = number(&sink, &mut buffer, size);
            assert!(!std::mem::replace(&mut seen[number as usize], true), "datagram {number} came twice");
            assert!(!ordered || number == arrived, "datagram {number} came as number {arrived}");
        }
    });
    let extra = sink.set_read_timeout(Some(Duration::from_millis(100))).and_then(|()| {
        let mut buffer = vec![0; size + 1];
        sink.recv(&mut buffer).map(|event| format!("{event:?}"))
    });
    assert!(extra.is_err(), "after the last datagram came {extra:?}");
}

/// The number of the next datagram, which must have this size.
pub(crate) fn number(sink: &Datagrams, buffer: &mut [u8], size: usize) -> u32 {
    match sink.recv(buffer).expect("a datagram in time") {
        Event::Datagram { bytes, .. } => {
            assert_eq!(bytes.len(), size);
            u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
        }
        other => panic!("{other:?}"),
    }
}

/// Sends one reliable datagram and waits for it: whether it arrived in time.
pub(crate) fn knock(from: &Datagrams, to: &Datagrams, text: &[u8]) -> bool {
    let begin = Instant::now();
    let mut buffer = [0; 1500];
    from.send(to.local(), Class::Reliable, false, text).expect("is sent");
    while begin.elapsed() < PATIENCE {
        match to.recv(&mut buffer) {
            Ok(Event::Datagram { bytes, .. }) if bytes == text => return true,
            Ok(Event::Datagram { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    false
}
