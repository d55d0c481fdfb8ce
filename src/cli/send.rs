//! `sinew send`: files and standard input into the overlay.

use super::failure::Failure;
use super::output::{self, counted, note};
use super::ping::{closed, is_pause, receive};
use super::route;
use super::router::Router;
use super::stop::{LOOK, Stop};
use super::target::Session;
use crate::base::limits::MAX_PAYLOAD;
use crate::base::{Class, Port};
use crate::client::{Datagrams, Event, Stream, explain};
use crate::config::units;
use crate::wire::admin::{Request, Response};
use crate::wire::client::Endpoint;
use crate::wire::session::ResetReason;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a router is asked whether everything was acknowledged.
const ACK_LOOK: Duration = Duration::from_millis(20);

/// How long a router may take to read what was written to it.
const TAKE_PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of what is sent while no route leads to its receiver.
const WAITS: &str = "waiting for a route: what was not acknowledged for half a minute is given up; Ctrl-C ends it now";
const IS_LOST: &str = "best effort does not wait: what is sent until there is a route is lost; Ctrl-C ends it";

/// Bytes moved at once on a stream.
pub(super) const CHUNK: usize = 64 << 10;

/// Send files or standard input to a session of another router
///
/// As one byte stream (--stream: everything arrives, in order, or the command fails), or as datagrams: of --size bytes
/// each, or one a line. `sinew recv` is the other end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  on b:  sinew recv 7000 --stream > backup.tar
  on a:  tar c /etc | sinew send b:7000 --stream

  on b:  sinew recv 7000 --lines
  on a:  echo hello | sinew send b:7000 --lines --ordered

Sizes are bytes, or with k, M, G; rates are as `2mbit`; durations as `300ms` or `5s`, plain
numbers are seconds. JSON, one document at the end: {\"bytes\", \"datagrams\", \"seconds\",
\"complete\"}.

While no route leads there, standard error says so and why, and later that there is one again.
Streams and reliable datagrams wait for it; after half a minute in vain they fail with code 1.

Exit codes: 0 all was sent (a stream: and read at the other end; reliable datagrams: and
acknowledged by the other router; best effort has no receipt), 1 it could not be, 2 wrong command
line or no such file, 3 no router answers, 130 Ctrl-C before that (what was sent by then is said).")]
pub(super) struct Args {
    /// Where to: ROUTER:PORT
    #[arg(value_name = "ROUTER:PORT")]
    to: Session,
    /// What to send; `-` or nothing is standard input
    files: Vec<PathBuf>,
    /// Send one byte stream
    #[arg(long, conflicts_with_all = ["lines", "size", "ordered", "rate", "class", "linger"])]
    stream: bool,
    /// Send each line as one datagram
    #[arg(long, conflicts_with = "size")]
    lines: bool,
    /// Bytes of each datagram
    #[arg(long, default_value = "1000", value_name = "BYTES", value_parser = units::size)]
    size: u64,
    /// Recovery class of datagrams
    #[arg(long, default_value_t = Class::Reliable, value_name = "CLASS")]
    class: Class,
    /// Have datagrams delivered in the order they were sent
    #[arg(long)]
    ordered: bool,
    /// Send datagrams no faster than this many bits of payload per second
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    rate: Option<u64>,
    /// How long to stay after the last best-effort datagram; reliable ones are waited for
    #[arg(long, default_value = "300ms", value_name = "DURATION", value_parser = units::duration_or_seconds)]
    linger: Duration,
    /// Print what was sent as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Sent {
    bytes: u64,
    /// Datagrams; 0 for a stream.
    datagrams: u64,
    seconds: f64,
    /// Whether all of the input was sent and, of a stream, read at the other end, of reliable datagrams, acknowledged.
    complete: bool,
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    if args.size == 0 || args.size > MAX_PAYLOAD as u64 {
        return Err(Failure::Usage(format!("--size is from 1 to {MAX_PAYLOAD}: longer messages are for --stream")));
    }
    let stop = Stop::on_signals();
    let input = input(&args.files, &stop)?;
    let (router, to) = stop.or_exit(|| {
        let router = Router::connect(socket)?;
        let to = Endpoint { node: router.resolve(&args.to.node)?, port: args.to.port };
        router.check_route(to.node)?;
        Ok((router, to))
    })?;
    let begin = Instant::now();
    let reliable = args.stream || args.class == Class::Reliable;
    let mut sent = route::watched(&router, to.node, if reliable { WAITS } else { IS_LOST }, || {
        if args.stream {
            return send_stream(&router, &args.to, to, input, &stop);
        }
        let session = router.overlay.datagrams(0).map_err(|error| Failure::failed("cannot open a session", error))?;
        send_datagrams(&router, &session, to, input, &args, &stop)
    })?;
    sent.seconds = begin.elapsed().as_secs_f64();
    if args.json {
        output::json(&sent)?;
    } else {
        let (bytes, datagrams) = (counted(sent.bytes, "byte"), counted(sent.datagrams, "datagram"));
        let what = if args.stream { bytes } else { format!("{bytes} in {datagrams}") };
        let interrupted = if sent.complete { "" } else { "interrupted: " };
        note(format_args!("{interrupted}sent {what} in {:.2} s", sent.seconds));
        if !args.stream && args.class == Class::BestEffort && sent.datagrams > 0 {
            note("best effort has no receipt: only the other end knows what arrived");
        }
    }
    if sent.complete { Ok(()) } else { Err(Failure::Interrupted) }
}

/// All inputs as one.
fn input(files: &[PathBuf], stop: &Stop) -> Result<Box<dyn BufRead>, Failure> {
    let mut all: Box<dyn BufRead> = match files {
        [] => return open(Path::new("-"), stop),
        _ => Box::new(io::empty()),
    };
    for file in files {
        all = Box::new(BufReader::new(all.chain(open(file, stop)?)));
    }
    Ok(all)
}

fn open(file: &Path, stop: &Stop) -> Result<Box<dyn BufRead>, Failure> {
    let opened = if file == Path::new("-") {
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(file)
    };
    let refuse = |error: &dyn Display| Failure::Usage(format!("cannot read {}: {error}", file.display()));
    let opened = opened.map_err(|error| refuse(&error))?;
    if opened.metadata().is_ok_and(|found| found.is_dir()) {
        return Err(refuse(&"it is a directory; send it as `tar c DIRECTORY | sinew send ROUTER:PORT --stream`"));
    }
    Ok(Box::new(BufReader::with_capacity(CHUNK, stop.guard(opened))))
}

fn send_stream(
    router: &Router,
    name: &Session,
    to: Endpoint,
    mut input: Box<dyn BufRead>,
    stop: &Stop,
) -> Result<Sent, Failure> {
    let mut stream = stop.or_exit(|| {
        router.overlay.stream(to).map_err(|error| {
            let (node, port) = (&name.node.0, to.port);
            // Said only where it was a session that is missing.
            let nobody = error.to_string().contains(explain(ResetReason::NoSession));
            let help = if nobody { format!("; is `sinew recv {port} --stream` running there?") } else { String::new() };
            Failure::Failed(format!("no stream to {node}:{port}: {error}{help}"))
        })
    })?;
    let broke = |error| broken("the stream broke", &error);
    // Waits end now and then, to look whether to stop.
    stream.set_nonblocking(true).map_err(broke)?;
    let mut buffer = vec![0; CHUNK];
    let mut sent = Sent::default();
    loop {
        let length = read_some(&mut input, &mut buffer)?;
        if length == 0 && !stop.is_set() {
            break;
        }
        let written = stop.write(&stream, &buffer[..length]).map_err(|error| broke(told(&stream, error)))?;
        sent.bytes += written as u64;
        if stop.is_set() {
            // Left unfinished: the other end must not take it for the whole.
            return Ok(sent);
        }
    }
    stream.finish().map_err(|error| broke(told(&stream, error)))?;
    // The other end finishes when it has read everything: only then is it known to be there.
    sent.complete = read_to_end(&mut stream, &mut buffer, stop)?;
    Ok(sent)
}

/// A stream that was reset before its end was left by who read it: it was not read to its end.
fn broken(what: &str, error: &io::Error) -> Failure {
    if error.to_string().contains(explain(ResetReason::Closed)) {
        return Failure::Failed(format!("{what}: the receiver stopped reading; not all of it arrived"));
    }
    Failure::failed(what, error)
}

/// Why nothing can be written: the router said it before it closed the stream.
fn told(mut stream: &Stream, error: io::Error) -> io::Error {
    match stream.read(&mut [0; 1]) {
        Err(said) if !is_pause(&said) => said,
        _ => error,
    }
}

/// Reads what the other end says until it has finished; false if asked to stop before.
fn read_to_end(stream: &mut Stream, buffer: &mut [u8], stop: &Stop) -> Result<bool, Failure> {
    let broke = |error| broken("the stream broke at its end", &error);
    stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(LOOK))).map_err(broke)?;
    while !stop.is_set() {
        match stream.read(buffer) {
            Ok(0) => return Ok(true),
            Err(error) if !is_pause(&error) => return Err(broke(error)),
            _ => {}
        }
    }
    Ok(false)
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.map_err(|error| Failure::failed("cannot read the input", error)),
        }
    }
}

fn send_datagrams(
    router: &Router,
    session: &Datagrams,
    to: Endpoint,
    mut input: Box<dyn BufRead>,
    args: &Args,
    stop: &Stop,
) -> Result<Sent, Failure> {
    let begin = Instant::now();
    let (mut sent, mut datagram) = (Sent::default(), Vec::new());
    let cannot = |error| Failure::failed("cannot send", error);
    let mut looked = begin;
    while !stop.is_set() && next_datagram(&mut input, args, &mut datagram)? {
        let due = args.rate.map(|rate| begin + Duration::from_secs_f64(sent.bytes as f64 * 8.0 / rate as f64));
        let now = Instant::now();
        if due.is_some_and(|due| due > now) || now - looked > LOOK {
            // Whoever is refused must not go on to the end of its input.
            session.set_nonblocking(false).map_err(cannot)?;
            listen_for_refusals(session, &args.to, due.unwrap_or(now), stop)?;
            looked = now;
        }
        // Waits end now and then, to look whether to stop.
        session.set_nonblocking(true).map_err(cannot)?;
        let done = stop.insist(session, || session.send(to, args.class, args.ordered, &datagram));
        if done.map_err(cannot)?.is_none() {
            break;
        }
        sent.bytes += datagram.len() as u64;
        sent.datagrams += 1;
    }
    sent.complete = !stop.is_set();
    session.set_nonblocking(false).map_err(cannot)?;
    if args.class == Class::Reliable && sent.datagrams > 0 {
        sent.complete &= wait_until_acknowledged(router, session, sent.datagrams, args, stop)?;
    } else {
        // The session stays until the router has read what was written to it.
        listen_for_refusals(session, &args.to, Instant::now() + args.linger, stop)?;
        router.check_route(to.node)?;
    }
    Ok(sent)
}

/// Reads the next datagram; false at the end of the input.
fn next_datagram(input: &mut impl BufRead, args: &Args, datagram: &mut Vec<u8>) -> Result<bool, Failure> {
    datagram.clear();
    let cannot = |error| Failure::failed("cannot read the input", error);
    if !args.lines {
        input.take(args.size).read_to_end(datagram).map_err(cannot)?;
        return Ok(!datagram.is_empty());
    }
    let read = input.take(MAX_PAYLOAD as u64 + 1).read_until(b'\n', datagram).map_err(cannot)?;
    if datagram.last() == Some(&b'\n') {
        datagram.pop();
    } else if datagram.len() > MAX_PAYLOAD {
        return Err(Failure::Failed(format!("a line is longer than {MAX_PAYLOAD} bytes: send it with --stream")));
    }
    Ok(read > 0)
}

/// Waits until the other router has all of it; false if asked to stop before. The session says so itself when the other
/// end refuses, or has not answered for too long.
fn wait_until_acknowledged(
    router: &Router,
    session: &Datagrams,
    datagrams: u64,
    args: &Args,
    stop: &Stop,
) -> Result<bool, Failure> {
    let port = session.local().port;
    let mut busy = Instant::now();
    while !stop.is_set() {
        listen_for_refusals(session, &args.to, Instant::now() + ACK_LOOK, stop)?;
        let (taken, waiting) = progress(router, port)?;
        if waiting > 0 {
            busy = Instant::now();
        } else if taken < datagrams && busy.elapsed() > TAKE_PATIENCE {
            return Err(Failure::Failed(format!("the router took only {taken} of {datagrams} datagrams; see its log")));
        } else if taken >= datagrams {
            // What was refused is not waited for any more either: the refusal is then on its way here.
            listen_for_refusals(session, &args.to, Instant::now() + ACK_LOOK, stop)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Datagrams that the session at `port` has taken, and bytes of them that it still has to deliver.
fn progress(router: &Router, port: Port) -> Result<(u64, u64), Failure> {
    let Response::Stats { workers } = router.request(&Request::Sessions)? else { return Ok((u64::MAX, 0)) };
    let sessions = workers.iter().flat_map(|worker| worker["sessions"].as_array().into_iter().flatten());
    let mut ours = sessions.filter(|session| session["port"] == port && session["kind"] == "datagram");
    let figure = |session: &Value, key: &str| session[key].as_u64().unwrap_or(0);
    Ok(ours.next().map_or((0, 0), |session| (figure(session, "sent"), figure(session, "unacknowledged"))))
}

/// Fails if the other end refuses what was sent to it, by `end` or in what it said so far.
fn listen_for_refusals(session: &Datagrams, to: &Session, end: Instant, stop: &Stop) -> Result<(), Failure> {
    let mut buffer = vec![0; crate::wire::client::MAX_RECORD];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let event = receive(session, &mut buffer, left.min(LOOK))?;
        if event.is_none() && (left.is_zero() || stop.is_set()) {
            return Ok(());
        }
        match event {
            Some(Event::Reset { reason, peer }) => {
                let (node, port) = (&to.node.0, peer.port);
                let nobody = reason == ResetReason::NoSession;
                let help = if nobody { format!("; is `sinew recv {port}` running there?") } else { String::new() };
                let why = explain(reason);
                return Err(Failure::Failed(format!("not all that was sent to {node}:{port} arrived: {why}{help}")));
            }
            Some(Event::Closed) => return Err(closed()),
            _ => {}
        }
    }
}
