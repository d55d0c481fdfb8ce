//! `sinew send`: files and standard input into the overlay.

use super::failure::Failure;
use super::output;
use super::ping::{closed, receive};
use super::router::Router;
use super::stop::{LOOK, Stop};
use super::target::Session;
use crate::base::Class;
use crate::base::limits::MAX_PAYLOAD;
use crate::client::{Datagrams, Event};
use crate::config::units;
use crate::wire::client::Endpoint;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
  on a:  echo hello | sinew send b:7000 --lines --ordered")]
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
    /// How long to stay after the last datagram, for what is still being recovered and for refusals
    #[arg(long, default_value = "300ms", value_name = "DURATION", value_parser = units::duration)]
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
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    if args.size == 0 || args.size > MAX_PAYLOAD as u64 {
        return Err(Failure::Usage(format!("--size is from 1 to {MAX_PAYLOAD}: longer messages are for --stream")));
    }
    let input = input(&args.files)?;
    let router = Router::connect(socket)?;
    let to = Endpoint { node: router.resolve(&args.to.node)?, port: args.to.port };
    let begin = Instant::now();
    let mut sent = if args.stream {
        send_stream(&router, to, input)?
    } else {
        let session = router.overlay.datagrams(0).map_err(|error| Failure::failed("cannot open a session", error))?;
        send_datagrams(&session, to, input, &args)?
    };
    sent.seconds = begin.elapsed().as_secs_f64();
    if args.json {
        return output::json(&sent);
    }
    let what = if args.stream { "bytes".to_owned() } else { format!("bytes in {} datagrams", sent.datagrams) };
    eprintln!("sent {} {what} in {:.2} s", sent.bytes, sent.seconds);
    Ok(())
}

/// All inputs as one.
fn input(files: &[PathBuf]) -> Result<Box<dyn BufRead>, Failure> {
    let mut all: Box<dyn BufRead> = match files {
        [] => return Ok(Box::new(BufReader::new(io::stdin()))),
        _ => Box::new(io::empty()),
    };
    for file in files {
        all = Box::new(BufReader::new(all.chain(open(file)?)));
    }
    Ok(all)
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(file);
    let opened = opened.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
    Ok(Box::new(BufReader::with_capacity(CHUNK, opened)))
}

fn send_stream(router: &Router, to: Endpoint, mut input: Box<dyn BufRead>) -> Result<Sent, Failure> {
    let mut stream = router.overlay.stream(to).map_err(|error| {
        Failure::Failed(format!("no stream to {to}: {error}; is `sinew recv {} --stream` running there?", to.port))
    })?;
    let mut buffer = vec![0; CHUNK];
    let mut sent = Sent::default();
    loop {
        let length = read_some(&mut input, &mut buffer)?;
        if length == 0 {
            break;
        }
        stream.write_all(&buffer[..length]).map_err(|error| Failure::failed("the stream broke", error))?;
        sent.bytes += length as u64;
    }
    stream.finish().map_err(|error| Failure::failed("the stream broke", error))?;
    // The other end finishes when it has read everything: only then is it known to be there.
    io::copy(&mut stream, &mut io::sink()).map_err(|error| Failure::failed("the stream broke at its end", error))?;
    Ok(sent)
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
    session: &Datagrams,
    to: Endpoint,
    mut input: Box<dyn BufRead>,
    args: &Args,
) -> Result<Sent, Failure> {
    let stop = Stop::on_signals();
    let begin = Instant::now();
    let (mut sent, mut datagram) = (Sent::default(), Vec::new());
    while !stop.is_set() && next_datagram(&mut input, args, &mut datagram)? {
        if let Some(rate) = args.rate {
            stop.sleep_until(begin + Duration::from_secs_f64(sent.bytes as f64 * 8.0 / rate as f64));
        }
        let done = session.send(to, args.class, args.ordered, &datagram);
        done.map_err(|error| Failure::failed("cannot send", error))?;
        sent.bytes += datagram.len() as u64;
        sent.datagrams += 1;
    }
    listen_for_refusals(session, args.linger, &stop)?;
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

fn listen_for_refusals(session: &Datagrams, linger: Duration, stop: &Stop) -> Result<(), Failure> {
    let end = Instant::now() + linger;
    let mut buffer = vec![0; crate::wire::client::MAX_RECORD];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || stop.is_set() {
            return Ok(());
        }
        match receive(session, &mut buffer, left.min(LOOK))? {
            Some(Event::Reset { reason, peer }) => {
                let help = format!("is `sinew recv {}` running there?", peer.port);
                return Err(Failure::Failed(format!("{peer} refused what was sent ({reason:?}); {help}")));
            }
            Some(Event::Closed) => return Err(closed()),
            _ => {}
        }
    }
}
