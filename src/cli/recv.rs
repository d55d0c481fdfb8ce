//! `sinew recv`: what arrives at a port, to standard output or a file.

use super::failure::Failure;
use super::output::{self, counted, note};
use super::ping::{closed, is_pause, receive};
use super::router::Router;
use super::send::CHUNK;
use super::stop::{LOOK, Stop};
use crate::base::{Class, NodeId, Port};
use crate::client::{Event, Listener, Stream, explain};
use crate::config::units;
use crate::wire::client::{Endpoint, MAX_RECORD};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Receive at a port of the router on this machine
///
/// Writes what arrives to standard output or a file: datagrams as they come, or one byte stream until its end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew recv 7000                      datagrams, one after the other, until Ctrl-C
  sinew recv 7000 --lines --count 10   ten datagrams, each as a line
  sinew recv 7000 --stream -o got.tar  one stream into a file
  sinew recv 7000 --json               one object each

JSON: for each datagram {\"from\", \"node\", \"class\", \"marked\", \"size\"} and \"text\" or, where it is
none, \"base64\"; with --stream one document at the end: {\"from\", \"bytes\", \"seconds\",
\"complete\"}. Ctrl-C ends it with a summary on standard error; with --stream --json that is the
document, with `complete` false.

Exit codes: 0 all that was asked for came, or Ctrl-C where nothing certain was; 1 a broken stream
or too few datagrams before --timeout; 2 wrong command line; 3 no router answers; 130 Ctrl-C
before the stream's end or the --count.")]
pub(super) struct Args {
    /// The port, from 1
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: Port,
    /// Take one stream instead of datagrams
    #[arg(long, conflicts_with_all = ["lines", "count", "timeout"])]
    stream: bool,
    /// End each datagram with a newline
    #[arg(long)]
    lines: bool,
    /// Stop after this many datagrams
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop when no datagram came for this long
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = units::duration_or_seconds)]
    timeout: Option<Duration>,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON: one object a datagram; for a stream (with --output), one at its end
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Received<'a> {
    /// The sender as `ROUTER:PORT`.
    from: String,
    /// The id of its router.
    node: NodeId,
    class: Class,
    marked: bool,
    size: usize,
    /// Its bytes, if they are text; else see `base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Serialize)]
struct StreamEnd {
    /// The sender as `ROUTER:PORT`; null if nobody opened a stream.
    from: Option<String>,
    bytes: u64,
    seconds: f64,
    /// Whether this is the whole stream.
    complete: bool,
}

/// Where it goes.
struct Sink(Option<File>);

impl Sink {
    fn open(args: &Args) -> Result<Sink, Failure> {
        let Some(path) = &args.output else { return Ok(Sink(None)) };
        let file = File::create(path);
        file.map(|file| Sink(Some(file)))
            .map_err(|error| Failure::Usage(format!("cannot write {}: {error}", path.display())))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.0 {
            Some(file) => file.write_all(bytes).map_err(|error| Failure::failed("cannot write the file", error)),
            None => output::bytes(bytes),
        }
    }
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    if args.json && args.stream && args.output.is_none() {
        return Err(Failure::Usage("--stream --json needs --output FILE: both would go to standard output".to_owned()));
    }
    let router = Router::connect(socket)?;
    let sink = Sink::open(&args)?;
    let stop = Stop::on_signals();
    if args.stream {
        receive_stream(&router, &args, sink, &stop)
    } else {
        receive_datagrams(&router, &args, sink, &stop)
    }
}

fn cannot_open(port: Port) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Failed(format!("cannot listen at port {port}: {error}; `sinew show sessions` lists who does"))
}

fn receive_stream(router: &Router, args: &Args, mut sink: Sink, stop: &Stop) -> Result<(), Failure> {
    let listener = router.overlay.listen(args.port).map_err(cannot_open(args.port))?;
    let Some(mut stream) = accept(&listener, stop)? else {
        return end_stream(args, StreamEnd { from: None, bytes: 0, seconds: 0.0, complete: false });
    };
    let patience = stream.set_read_timeout(Some(LOOK));
    patience.map_err(|error| Failure::failed("cannot set a timeout", error))?;
    let begin = Instant::now();
    let (bytes, complete) = copy(&mut stream, &mut sink, stop)?;
    if complete {
        // Tells the sender that everything was read and written. One that is left unfinished tells it the contrary.
        stream.finish().map_err(|error| Failure::failed("the stream broke at its end", error))?;
    }
    let (from, seconds) = (Some(router.session(stream.peer())), begin.elapsed().as_secs_f64());
    end_stream(args, StreamEnd { from, bytes, seconds, complete })
}

/// Waits for a stream; `None` if asked to stop.
pub(super) fn accept(listener: &Listener, stop: &Stop) -> Result<Option<Stream>, Failure> {
    let failed = |error| Failure::failed("cannot wait for a stream", error);
    listener.set_read_timeout(Some(LOOK)).map_err(failed)?;
    while !stop.is_set() {
        match listener.accept() {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) if is_pause(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(closed()),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(None)
}

fn end_stream(args: &Args, end: StreamEnd) -> Result<(), Failure> {
    if args.json {
        output::json(&end)?;
    } else {
        let StreamEnd { from, bytes, seconds, .. } = &end;
        let what = if end.complete { "" } else { "interrupted: " };
        match from {
            Some(from) => note(format_args!("{what}received {bytes} bytes from {from} in {seconds:.2} s")),
            None => note(format_args!("{what}nobody opened a stream")),
        }
    }
    if end.complete { Ok(()) } else { Err(Failure::Interrupted) }
}

/// Copies until the stream's end, or until asked to stop: how much, and whether that is all.
fn copy(stream: &mut Stream, sink: &mut Sink, stop: &Stop) -> Result<(u64, bool), Failure> {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    while !stop.is_set() {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((bytes, true)),
            Ok(length) => {
                sink.write(&buffer[..length]).map_err(|failure| unread(failure, bytes))?;
                bytes += length as u64;
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(Failure::failed(format!("the stream broke after {bytes} bytes"), error)),
        }
    }
    Ok((bytes, false))
}

/// The reader of a stream that goes away before its end has not got what was asked for.
fn unread(failure: Failure, bytes: u64) -> Failure {
    match failure {
        Failure::Pipe => Failure::Failed(format!(
            "the reader of the output stopped after {bytes} bytes; the rest of the stream is lost"
        )),
        other => other,
    }
}

fn receive_datagrams(router: &Router, args: &Args, mut sink: Sink, stop: &Stop) -> Result<(), Failure> {
    let session = router.overlay.datagrams(args.port).map_err(cannot_open(args.port))?;
    let mut buffer = vec![0; MAX_RECORD];
    let (mut count, mut bytes_taken, mut heard) = (0, 0, Instant::now());
    while !stop.is_set() && args.count.is_none_or(|most| count < most) {
        let left = args.timeout.map_or(LOOK, |timeout| timeout.saturating_sub(heard.elapsed()));
        if left.is_zero() {
            break;
        }
        match receive(&session, &mut buffer, left.min(LOOK))? {
            Some(Event::Datagram { from, class, mark, bytes }) => {
                take(router, args, &mut sink, from, class, mark, bytes)?;
                count += 1;
                bytes_taken += bytes.len();
                heard = Instant::now();
            }
            Some(Event::Reset { reason, peer }) => {
                let (peer, why) = (router.session(peer), explain(reason));
                note(format_args!("sinew: what {peer} was sending ended: {why}"));
            }
            Some(Event::Closed) => return Err(closed()),
            _ => {}
        }
    }
    note(format_args!("received {}, {}", counted(count, "datagram"), counted(bytes_taken as u64, "byte")));
    match args.count {
        Some(wanted) if count < wanted && stop.is_set() => Err(Failure::Interrupted),
        Some(wanted) if count < wanted => {
            let timeout = args.timeout.unwrap_or_default();
            Err(Failure::Failed(format!("{wanted} were asked for, and none came for {timeout:?}")))
        }
        _ => Ok(()),
    }
}

fn take(
    router: &Router,
    args: &Args,
    sink: &mut Sink,
    from: Endpoint,
    class: Class,
    marked: bool,
    bytes: &[u8],
) -> Result<(), Failure> {
    if !args.json {
        sink.write(bytes)?;
        return if args.lines { sink.write(b"\n") } else { Ok(()) };
    }
    let text = output::text_of(bytes);
    let base64 = text.is_none().then(|| STANDARD.encode(bytes));
    let received =
        Received { from: router.session(from), node: from.node, class, marked, size: bytes.len(), text, base64 };
    let line = serde_json::to_string(&received).map_err(|error| Failure::failed("cannot write JSON", error))?;
    sink.write((line + "\n").as_bytes())
}
