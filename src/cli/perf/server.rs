//! The receiving end of a test.

use super::ServerArgs;
use super::clock::{Clock, boot_id};
use super::message::{HEADER, Message};
use super::report::{self, Latency};
use super::talk::{Counted, Done, Hello, Say, Transport, hear, say};
use super::tally::Tally;
use crate::cli::failure::Failure;
use crate::cli::output::{self, counted};
use crate::cli::ping::{closed, is_pause, set_patience};
use crate::cli::recv::accept;
use crate::cli::router::Router;
use crate::cli::stop::Stop;
use crate::client::{Batch, Datagrams, Event, Stream};
use crate::telemetry::table::bit_rate;
use crate::wire::client::Endpoint;
use serde::Serialize;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Messages received at a time.
const BATCH: usize = 64;
/// Tests at a time.
const MAX_TESTS: usize = 16;
/// How long to wait for stragglers after the client is done and nothing more comes.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a wait for messages lasts before other duties are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long to wait for a client that has its result to leave.
const PARTING: Duration = Duration::from_secs(5);

/// How long a client may take to say what it wants.
const GREETING: Duration = Duration::from_secs(5);

/// One test, as `--json` shows it.
#[derive(Serialize)]
struct Test<'a> {
    /// The client as `ROUTER:PORT`.
    from: String,
    transport: &'a str,
    /// Different messages.
    received: u64,
    duplicated: u64,
    reordered: u64,
    marked: u64,
    bytes: u64,
    /// From the first message to the last.
    seconds: f64,
    goodput_kbps: f64,
    /// Which clock the one-way figures are from: exact with `same-machine`, as good as synchronisation with `wall`.
    clock: Clock,
    one_way: Option<Latency>,
    /// False if the server was stopped before the client was done.
    complete: bool,
}

/// What all tests share.
struct Server<'a> {
    router: &'a Router,
    stop: &'a Stop,
    json: bool,
}

pub(super) fn run(socket: Option<PathBuf>, args: &ServerArgs) -> Result<(), Failure> {
    let router = Router::connect(socket)?;
    // Before the port is there: who sees it may ask this to stop.
    let stop = Stop::on_signals();
    let listener = router.overlay.listen(args.port).map_err(|error| {
        Failure::Failed(format!("cannot listen at port {}: {error}; choose another with --port", args.port))
    })?;
    crate::cli::output::note(format_args!("waiting for `sinew perf client --to {}`", router.session(listener.local())));
    let server = Server { router: &router, stop: &stop, json: args.json };
    if args.once {
        let Some(stream) = accept(&listener, &stop)? else { return Err(Failure::Interrupted) };
        return if server.serve(stream)? { Ok(()) } else { Err(Failure::Interrupted) };
    }
    let (running, served) = (AtomicUsize::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        while let Some(stream) = accept(&listener, &stop)? {
            if running.fetch_add(1, Ordering::Relaxed) >= MAX_TESTS {
                running.fetch_sub(1, Ordering::Relaxed);
                refuse(stream, "as many tests run as this server takes; try again later")?;
                continue;
            }
            let (server, running, served) = (&server, &running, &served);
            scope.spawn(move || {
                match server.serve(stream) {
                    Ok(complete) => _ = served.fetch_add(u64::from(complete), Ordering::Relaxed),
                    Err(failure) => {
                        let why = failure.message().unwrap_or("nobody reads its result");
                        crate::cli::output::note(format_args!("sinew: a test ended early: {why}"));
                    }
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(())
    })?;
    crate::cli::output::note(format_args!("served {}", counted(served.into_inner(), "test")));
    Ok(())
}

fn refuse(mut stream: Stream, message: &str) -> Result<(), Failure> {
    say(&mut stream, &Say::Refused { message: message.to_owned() })
}

impl Server<'_> {
    /// One test, from the client's first line to the result; false if the server was stopped before its end.
    fn serve(&self, stream: Stream) -> Result<bool, Failure> {
        let from = stream.peer();
        let timeout = |error| Failure::failed("cannot set a timeout", error);
        let copy = stream.try_clone().map_err(|error| Failure::failed("cannot use the stream twice", error))?;
        let mut reader = BufReader::new(copy);
        let mut writer = stream;
        writer.set_read_timeout(Some(GREETING)).map_err(timeout)?;
        let Some(hello) = hear::<Hello>(&mut reader)? else { return Ok(true) };
        if let Err(why) = hello.check() {
            return refuse(writer, why).map(|()| true);
        }
        let clock = Clock::between(&boot_id(), &hello.boot);
        let (tally, held) = match hello.transport {
            Transport::Stream => {
                writer.set_read_timeout(Some(LOOK)).map_err(timeout)?;
                (self.serve_stream(&hello, clock, reader, &mut writer)?, None)
            }
            Transport::Datagram(_) => {
                writer.set_read_timeout(None).map_err(timeout)?;
                let (tally, held) = self.serve_datagrams(&hello, clock, reader, &mut writer)?;
                (tally, Some(held))
            }
        };
        let complete = !self.stop.is_set();
        let (open, all) = tally.finish();
        if complete {
            open.map_or(Ok(()), |open| say(&mut writer, &Say::Interval(open)))?;
            say(&mut writer, &Say::Result(all.clone()))?;
            writer.finish().map_err(|error| Failure::failed("the stream broke at its end", error))?;
        }
        self.show(from, &hello, clock, &all, complete)?;
        if !complete {
            refuse(writer, "it was stopped before the test's end")?;
        } else if let Some(held) = held {
            held.part();
        }
        Ok(complete)
    }

    fn show(&self, from: Endpoint, hello: &Hello, clock: Clock, all: &Counted, complete: bool) -> Result<(), Failure> {
        let (from, transport) = (self.router.session(from), hello.transport.name());
        let (seconds, goodput) = (all.end - all.start, report::goodput(all));
        let one_way = Latency::of(&report::decode(all)?);
        if self.json {
            let &Counted { received, duplicated, reordered, marked, bytes, .. } = all;
            let goodput_kbps = goodput / 1e3;
            return output::json(&Test {
                from,
                transport,
                received,
                duplicated,
                reordered,
                marked,
                bytes,
                seconds,
                goodput_kbps,
                clock,
                one_way,
                complete,
            });
        }
        let latency = one_way.map_or_else(String::new, |latency| {
            format!(", one-way ms p50 {:.3} p99 {:.3} max {:.3}", latency.p50_ms, latency.p99_ms, latency.max_ms)
        });
        let (count, rate) = (counted(all.received, "message"), bit_rate(goodput));
        let interrupted = if complete { "" } else { ", interrupted" };
        output::line(format_args!("{from}: {transport}: {count} in {seconds:.2} s, {rate}{latency}{interrupted}"))
    }

    fn serve_stream(
        &self,
        hello: &Hello,
        clock: Clock,
        mut reader: BufReader<Stream>,
        writer: &mut Stream,
    ) -> Result<Tally, Failure> {
        say(writer, &Say::Ready { port: 0, clock })?;
        let (mut tally, mut block) = (Tally::new(), vec![0; hello.size]);
        while self.fill(&mut reader, &mut block)? {
            let message =
                Message::parse(&block).map_err(|error| Failure::failed("the stream's messages are wrong", error))?;
            let now = clock.now();
            tally.take(&message, block.len(), false, now);
            if message.echo {
                say(writer, &Say::Echo { intended: message.intended })?;
            }
            report_interval(&mut tally, hello, now, writer)?;
        }
        Ok(tally)
    }

    /// Reads a whole block; false at the stream's end or if the server is stopped.
    fn fill(&self, reader: &mut impl Read, block: &mut [u8]) -> Result<bool, Failure> {
        let mut filled = 0;
        while filled < block.len() {
            if self.stop.is_set() {
                return Ok(false);
            }
            match reader.read(&mut block[filled..]) {
                Ok(0) => return Ok(false),
                Ok(length) => filled += length,
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(Failure::failed("the stream broke", error)),
            }
        }
        Ok(true)
    }

    fn serve_datagrams(
        &self,
        hello: &Hello,
        clock: Clock,
        mut reader: BufReader<Stream>,
        writer: &mut Stream,
    ) -> Result<(Tally, Held), Failure> {
        let session =
            self.router.overlay.datagrams(0).map_err(|error| Failure::failed("cannot open a session", error))?;
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
        let (mut tally, mut batch) = (Tally::new(), Batch::new(BATCH, hello.size));
        let (mut sent, mut heard) = (None, Instant::now());
        loop {
            if take_datagrams(&session, hello, clock, &mut tally, &mut batch)? {
                heard = Instant::now();
            }
            report_interval(&mut tally, hello, clock.now(), writer)?;
            match done.try_recv() {
                Ok(Some(said)) => (sent, heard) = (Some(said.sent), Instant::now()),
                Ok(None) => return Err(Failure::Failed("the client is gone".to_owned())),
                Err(_) => {}
            }
            if self.stop.is_set() || sent.is_some_and(|sent| tally.received() >= sent || heard.elapsed() > PATIENCE) {
                return Ok((tally, Held { session, done }));
            }
        }
    }
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

fn report_interval(tally: &mut Tally, hello: &Hello, now: u64, writer: &mut Stream) -> Result<(), Failure> {
    let length = u64::try_from(hello.interval.as_nanos()).unwrap_or(u64::MAX);
    tally.close_interval(now, length).map_or(Ok(()), |counted| say(writer, &Say::Interval(counted)))
}

/// Takes in what is there; false if it was none of the test's messages.
fn take_datagrams(
    session: &Datagrams,
    hello: &Hello,
    clock: Clock,
    tally: &mut Tally,
    batch: &mut Batch,
) -> Result<bool, Failure> {
    match session.recv_batch(batch) {
        Err(error) if is_pause(&error) => return Ok(false),
        received => received.map_err(|error| Failure::failed("cannot receive", error))?,
    };
    let (now, mut came) = (clock.now(), false);
    for event in batch.events() {
        let (from, class, mark, bytes) = match event {
            Ok(Event::Datagram { from, class, mark, bytes }) => (from, class, mark, bytes),
            Ok(Event::Closed) => return Err(closed()),
            // What is not of this test is not counted: anyone may send to the port, also what is longer.
            _ => continue,
        };
        let Some(message) = Message::parse(bytes).ok().filter(|message| message.test == hello.test) else { continue };
        tally.take(&message, bytes.len(), mark, now);
        came = true;
        if message.echo {
            session
                .send(from, class, false, &bytes[..HEADER])
                .map_err(|error| Failure::failed("cannot echo", error))?;
        }
    }
    Ok(came)
}
