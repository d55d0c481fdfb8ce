//! `sinew recv`: what arrives at a port, to standard output or a file.

use super::failure::Failure;
use super::output;
use super::ping::{closed, receive};
use super::router::Router;
use super::send::CHUNK;
use super::stop::{LOOK, Stop};
use crate::base::{Class, Port};
use crate::client::{Event, Stream};
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
  sinew recv 7000 --json               one object a datagram: from, class, size, and text or base64")]
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
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Stop when no datagram came for this long
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = units::duration)]
    timeout: Option<Duration>,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON: one object a datagram; for a stream, one at its end
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Received<'a> {
    from: String,
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
    from: String,
    bytes: u64,
    seconds: f64,
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
    if args.stream { receive_stream(&router, &args, sink) } else { receive_datagrams(&router, &args, sink) }
}

fn cannot_open(port: Port) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Failed(format!("cannot listen at port {port}: {error}; `sinew show sessions` lists who does"))
}

fn receive_stream(router: &Router, args: &Args, mut sink: Sink) -> Result<(), Failure> {
    let listener = router.overlay.listen(args.port).map_err(cannot_open(args.port))?;
    let mut stream = listener.accept().map_err(|error| Failure::failed("cannot wait for a stream", error))?;
    let begin = Instant::now();
    let bytes = copy(&mut stream, &mut sink)?;
    let (from, seconds) = (stream.peer().to_string(), begin.elapsed().as_secs_f64());
    // Tells the sender that everything was read and written.
    stream.finish().map_err(|error| Failure::failed("the stream broke at its end", error))?;
    if args.json {
        return output::json(&StreamEnd { from, bytes, seconds });
    }
    eprintln!("received {bytes} bytes from {from} in {seconds:.2} s");
    Ok(())
}

fn copy(stream: &mut Stream, sink: &mut Sink) -> Result<u64, Failure> {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(length) => {
                sink.write(&buffer[..length])?;
                bytes += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::failed(format!("the stream broke after {bytes} bytes"), error)),
        }
    }
}

fn receive_datagrams(router: &Router, args: &Args, mut sink: Sink) -> Result<(), Failure> {
    let session = router.overlay.datagrams(args.port).map_err(cannot_open(args.port))?;
    let stop = Stop::on_signals();
    let mut buffer = vec![0; MAX_RECORD];
    let (mut count, mut heard) = (0, Instant::now());
    while !stop.is_set() && args.count.is_none_or(|most| count < most) {
        let left = args.timeout.map_or(LOOK, |timeout| timeout.saturating_sub(heard.elapsed()));
        if left.is_zero() {
            break;
        }
        match receive(&session, &mut buffer, left.min(LOOK))? {
            Some(Event::Datagram { from, class, mark, bytes }) => {
                take(args, &mut sink, from, class, mark, bytes)?;
                count += 1;
                heard = Instant::now();
            }
            Some(Event::Reset { reason, peer }) => eprintln!("sinew: {peer} reset its flow: {reason:?}"),
            Some(Event::Closed) => return Err(closed()),
            _ => {}
        }
    }
    let enough = args.count.is_none_or(|wanted| count >= wanted);
    if enough { Ok(()) } else { Err(Failure::Failed(format!("only {count} datagrams came"))) }
}

fn take(args: &Args, sink: &mut Sink, from: Endpoint, class: Class, mark: bool, bytes: &[u8]) -> Result<(), Failure> {
    if !args.json {
        sink.write(bytes)?;
        return if args.lines { sink.write(b"\n") } else { Ok(()) };
    }
    let plain = |text: &&str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
    let text = std::str::from_utf8(bytes).ok().filter(plain);
    let base64 = text.is_none().then(|| STANDARD.encode(bytes));
    let received = Received { from: from.to_string(), class, marked: mark, size: bytes.len(), text, base64 };
    let line = serde_json::to_string(&received).map_err(|error| Failure::failed("cannot write JSON", error))?;
    sink.write((line + "\n").as_bytes())
}
