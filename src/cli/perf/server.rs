//! The receiving end of a test.

use super::ServerArgs;
use super::clock::{Clock, boot_id};
use super::message::{HEADER, Message};
use super::talk::{Counted, Done, Hello, Say, Transport, VERSION, hear, say};
use super::tally::Tally;
use crate::base::limits::MAX_PAYLOAD;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::ping::{closed, next_event, set_patience};
use crate::cli::router::Router;
use crate::client::{Datagrams, Event, Stream};
use crate::telemetry::table::bit_rate;
use crate::wire::client::MAX_RECORD;
use serde::Serialize;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Tests at a time.
const MAX_TESTS: usize = 16;
/// How long to wait for stragglers after the client is done and nothing more comes.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a wait for messages lasts before other duties are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long to wait for a client that has its result to leave.
const PARTING: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Test<'a> {
    from: String,
    transport: &'a str,
    #[serde(flatten)]
    counted: &'a Counted,
}

pub(super) fn run(socket: Option<PathBuf>, args: &ServerArgs) -> Result<(), Failure> {
    let router = Router::connect(socket)?;
    let listener = router.overlay.listen(args.port).map_err(|error| {
        Failure::Failed(format!("cannot listen at port {}: {error}; choose another with --port", args.port))
    })?;
    eprintln!("waiting for `sinew perf client --to ROUTER:{}`", args.port);
    let running = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        loop {
            let stream = listener.accept().map_err(|error| Failure::failed("cannot wait for clients", error))?;
            if args.once {
                return serve(&router, stream, args.json);
            }
            if running.fetch_add(1, Ordering::Relaxed) >= MAX_TESTS {
                running.fetch_sub(1, Ordering::Relaxed);
                refuse(stream, "as many tests run as this server takes; try again later")?;
                continue;
            }
            let (router, running) = (&router, &running);
            scope.spawn(move || {
                if let Err(failure) = serve(router, stream, args.json) {
                    eprintln!("sinew: a test ended early: {}", failure.message().unwrap_or("nobody reads its result"));
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
    })
}

fn refuse(mut stream: Stream, message: &str) -> Result<(), Failure> {
    say(&mut stream, &Say::Refused { message: message.to_owned() })
}

/// One test, from the client's first line to the result.
fn serve(router: &Router, stream: Stream, json: bool) -> Result<(), Failure> {
    let from = stream.peer();
    let copy = stream.try_clone().map_err(|error| Failure::failed("cannot use the stream twice", error))?;
    let mut reader = BufReader::new(copy);
    let mut writer = stream;
    let Some(hello) = hear::<Hello>(&mut reader)? else { return Ok(()) };
    if hello.version != VERSION || !(HEADER..=MAX_PAYLOAD).contains(&hello.size) {
        return refuse(writer, "client and server are of different versions");
    }
    let clock = Clock::between(&boot_id(), &hello.boot);
    let (tally, held) = match hello.transport {
        Transport::Stream => (serve_stream(&hello, clock, reader, &mut writer)?, None),
        Transport::Datagram(_) => {
            let (tally, held) = serve_datagrams(router, &hello, clock, reader, &mut writer)?;
            (tally, Some(held))
        }
    };
    let (open, all) = tally.finish();
    open.map_or(Ok(()), |open| say(&mut writer, &Say::Interval(open)))?;
    say(&mut writer, &Say::Result(all.clone()))?;
    writer.finish().map_err(|error| Failure::failed("the stream broke at its end", error))?;
    let transport = hello.transport.name();
    let seconds = all.end - all.start;
    if json {
        output::json(&Test { from: from.to_string(), transport, counted: &all })?;
    } else {
        let rate = bit_rate(all.bytes as f64 * 8.0 / seconds.max(1e-9));
        output::line(format_args!("{from}: {transport}: {} messages in {seconds:.2} s, {rate}", all.received))?;
    }
    if let Some(held) = held {
        held.part();
    }
    Ok(())
}

/// The session of a datagram test. Closed while the client still listens, it would reset the client's reliable flow.
struct Held {
    session: Datagrams,
    /// What the client says at its end; disconnected when the client is gone.
    done: mpsc::Receiver<Option<Done>>,
}

impl Held {
    /// Waits for the client to leave, then closes the session.
    fn part(self) {
        // Either way it is time to close: the client is gone, or it had long enough.
        let _ = self.done.recv_timeout(PARTING);
        drop(self.session);
    }
}

fn serve_stream(
    hello: &Hello,
    clock: Clock,
    mut reader: BufReader<Stream>,
    writer: &mut Stream,
) -> Result<Tally, Failure> {
    say(writer, &Say::Ready { port: 0, clock })?;
    let (mut tally, mut block) = (Tally::new(), vec![0; hello.size]);
    loop {
        match reader.read_exact(&mut block) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(tally),
            Err(error) => return Err(Failure::failed("the stream broke", error)),
        }
        let message =
            Message::parse(&block).map_err(|error| Failure::failed("the stream's messages are wrong", error))?;
        let now = clock.now();
        tally.take(&message, block.len(), false, now);
        if message.echo {
            say(writer, &Say::Echo { intended: message.intended })?;
        }
        report(&mut tally, hello, now, writer)?;
    }
}

fn report(tally: &mut Tally, hello: &Hello, now: u64, writer: &mut Stream) -> Result<(), Failure> {
    let length = u64::try_from(hello.interval.as_nanos()).unwrap_or(u64::MAX);
    tally.close_interval(now, length).map_or(Ok(()), |counted| say(writer, &Say::Interval(counted)))
}

fn serve_datagrams(
    router: &Router,
    hello: &Hello,
    clock: Clock,
    mut reader: BufReader<Stream>,
    writer: &mut Stream,
) -> Result<(Tally, Held), Failure> {
    let session = router.overlay.datagrams(0).map_err(|error| Failure::failed("cannot open a session", error))?;
    set_patience(&session, LOOK)?;
    say(writer, &Say::Ready { port: session.local().port, clock })?;
    let (sender, done) = mpsc::channel();
    // Ends with the client's stream, which the client keeps until it wants no more echoes.
    std::thread::spawn(move || {
        let said = hear::<Done>(&mut reader).ok().flatten();
        if sender.send(said).is_ok() {
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        }
    });
    let (mut tally, mut buffer) = (Tally::new(), vec![0; MAX_RECORD]);
    let (mut sent, mut heard) = (None, Instant::now());
    loop {
        if take_datagram(&session, hello, clock, &mut tally, &mut buffer)? {
            heard = Instant::now();
        }
        report(&mut tally, hello, clock.now(), writer)?;
        match done.try_recv() {
            Ok(Some(said)) => (sent, heard) = (Some(said.sent), Instant::now()),
            Ok(None) => return Err(Failure::Failed("the client is gone".to_owned())),
            Err(_) => {}
        }
        if sent.is_some_and(|sent| tally.received() >= sent || heard.elapsed() > PATIENCE) {
            return Ok((tally, Held { session, done }));
        }
    }
}

/// Takes in one message; false if none came.
fn take_datagram(
    session: &Datagrams,
    hello: &Hello,
    clock: Clock,
    tally: &mut Tally,
    buffer: &mut [u8],
) -> Result<bool, Failure> {
    let (from, class, mark, bytes) = match next_event(session, buffer)? {
        Some(Event::Datagram { from, class, mark, bytes }) => (from, class, mark, bytes),
        Some(Event::Closed) => return Err(closed()),
        _ => return Ok(false),
    };
    let now = clock.now();
    // What is not of this test is not counted: anyone may send to the port.
    let Some(message) = Message::parse(bytes).ok().filter(|message| message.test == hello.test) else {
        return Ok(false);
    };
    tally.take(&message, bytes.len(), mark, now);
    if message.echo {
        session.send(from, class, false, &bytes[..HEADER]).map_err(|error| Failure::failed("cannot echo", error))?;
    }
    Ok(true)
}
