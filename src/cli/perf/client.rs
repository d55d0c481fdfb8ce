//! The sending end of a test.

use super::clock::{Clock, boot_id, sharpen_sleep};
use super::message::{HEADER, Message};
use super::report::{Outcome, RoundTrips};
use super::talk::{Counted, Done, Hello, Say, Transport, VERSION, hear, say};
use super::{ClientArgs, DEFAULT_PORT, Rate, report};
use crate::base::Class;
use crate::cli::failure::Failure;
use crate::cli::ping::{closed, next_event, set_patience};
use crate::cli::router::Router;
use crate::cli::stop::Stop;
use crate::client::{Datagrams, Event, Outgoing, Stream, explain};
use crate::wire::client::{Endpoint, MAX_RECORD};
use crate::wire::session::ResetReason;
use std::io::{BufReader, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Most often that an echo is asked for.
const ECHO_GAP: Duration = Duration::from_millis(1);
/// How long echoes may still come after everything else is done.
const ECHO_PATIENCE: Duration = Duration::from_millis(500);
/// Intervals that may come before their time: the server's clock is not ours, and a test's last one is short.
const EARLY_INTERVALS: usize = 8;
/// Bytes sent at once where there is no schedule.
const BURST: usize = 32 << 10;
/// Below this a wait is spent looking at the clock: a sleep would end too late.
const SPIN: Duration = Duration::from_micros(30);

/// Messages sent, and what arrived: by interval and in all.
type Counts = (u64, Vec<Counted>, Counted);

/// A test in progress.
struct Test<'a> {
    args: &'a ClientArgs,
    number: u32,
    clock: Clock,
    round_trips: Mutex<RoundTrips>,
    stop: Stop,
    /// Set when nothing more is to be received.
    over: Stop,
}

pub(super) fn run(socket: Option<PathBuf>, args: &ClientArgs) -> Result<(), Failure> {
    let router = Router::connect(socket)?;
    let node = router.resolve(&args.to.node)?;
    let server = Endpoint { node, port: args.to.port.unwrap_or(DEFAULT_PORT) };
    let stop = Stop::on_signals();
    stop.or_exit(|| router.check_route(node))?;
    let mut stream = stop.or_exit(|| {
        router.overlay.stream(server).map_err(|error| {
            let (name, port) = (&args.to.node.0, server.port);
            let nobody = error.to_string().contains(explain(ResetReason::NoSession));
            let help = if nobody { "; run `sinew perf server` there" } else { "" };
            Failure::Failed(format!("no server answers at {name}:{port}: {error}{help}"))
        })
    })?;
    let copy = stream.try_clone().map_err(|error| Failure::failed("cannot use the stream twice", error))?;
    let mut reader = BufReader::new(copy);
    let transport = if args.stream { Transport::Stream } else { Transport::Datagram(args.class) };
    let number = std::process::id() ^ (Clock::Wall.now() as u32);
    let size = usize::try_from(args.size).expect("the size is checked");
    let hello = Hello { version: VERSION, test: number, boot: boot_id(), transport, size, interval: args.interval };
    say(&mut stream, &hello)?;
    let (port, clock) = match stop.or_exit(|| hear(&mut reader))? {
        Some(Say::Ready { port, clock }) => (port, clock),
        Some(Say::Refused { message }) => return Err(Failure::Failed(format!("the server refuses: {message}"))),
        _ => return Err(Failure::Failed("the server ended the test before it began".to_owned())),
    };
    let round_trips = Mutex::new(RoundTrips::new(clock.now(), args.interval));
    let test = Test { args, number, clock, round_trips, stop, over: Stop::default() };
    let begin = Clock::Wall.now();
    let (sent, intervals, all) = match transport {
        Transport::Stream => test.over_stream(stream, reader)?,
        Transport::Datagram(class) => {
            let session =
                router.overlay.datagrams(0).map_err(|error| Failure::failed("cannot open a session", error))?;
            test.over_datagrams(&session, Endpoint { node, port }, class, stream, reader)?
        }
    };
    let round_trips = test.round_trips.into_inner().expect("no thread died with it");
    let outcome = Outcome { begin, transport, clock, sent, all, intervals, round_trips };
    report::finish(args, outcome)
}

impl Test<'_> {
    fn over_stream(&self, mut stream: Stream, reader: BufReader<Stream>) -> Result<Counts, Failure> {
        std::thread::scope(|scope| {
            let listening = scope.spawn(move || self.listen(reader));
            let sent = self.send(|burst| stream.write_all(burst));
            // Also after a failure: it ends the conversation, and with it the listening thread.
            let finished = stream.finish().map_err(|error| Failure::failed("the stream broke at its end", error));
            let counted = joined(listening);
            let sent = sent?;
            finished?;
            let (intervals, all) = counted?;
            Ok((sent, intervals, all))
        })
    }

    fn over_datagrams(
        &self,
        session: &Datagrams,
        to: Endpoint,
        class: Class,
        mut stream: Stream,
        reader: BufReader<Stream>,
    ) -> Result<Counts, Failure> {
        std::thread::scope(|scope| {
            let echoes = scope.spawn(|| self.take_echoes(session));
            let listening = scope.spawn(move || self.listen(reader));
            let size = usize::try_from(self.args.size).expect("the size is checked");
            let sent = self.send(|burst| {
                let messages: Vec<Outgoing<'_>> = burst
                    .chunks_exact(size)
                    .map(|bytes| Outgoing { to, class, ordered: self.args.ordered, bytes })
                    .collect();
                let mut left = &messages[..];
                while !left.is_empty() {
                    left = &left[session.send_batch(left)?..];
                }
                Ok(())
            });
            let said = match &sent {
                Ok(sent) => say(&mut stream, &Done { sent: *sent }),
                // Ends the conversation, and with it the listening thread.
                Err(_) => stream.finish().map_err(|error| Failure::failed("the stream broke at its end", error)),
            };
            let counted = joined(listening);
            self.over.set();
            // The echoing session knows best why nothing arrives.
            joined(echoes)?;
            let sent = sent?;
            said?;
            let (intervals, all) = counted?;
            Ok((sent, intervals, all))
        })
    }

    /// Sends on schedule until it is enough, one message at a time, or without a schedule [`BURST`] of them; says how many
    /// were sent.
    fn send(&self, mut put: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<u64, Failure> {
        sharpen_sleep();
        let args = self.args;
        let gap = match args.aim() {
            Rate::Unlimited => None,
            Rate::Bits(rate) => Some(args.size as f64 * 8.0 / rate as f64),
        };
        let size = usize::try_from(args.size).expect("the size is checked");
        let burst = if gap.is_some() { 1 } else { BURST.div_ceil(size).max(1) as u64 };
        let mut bytes = vec![0; size * burst as usize];
        let (begin, stamp) = (Instant::now(), self.clock.now());
        let (mut sent, mut echoed) = (0, None::<Duration>);
        loop {
            let intended = gap.map_or_else(|| begin.elapsed(), |gap| Duration::from_secs_f64(sent as f64 * gap));
            let enough = args.messages.map_or(intended >= args.duration, |messages| sent >= messages);
            if enough || self.stop.is_set() || self.over.is_set() {
                return Ok(sent);
            }
            wait_until(begin + intended, &self.stop);
            let echo = !args.no_echo && echoed.is_none_or(|last| intended.saturating_sub(last) >= ECHO_GAP);
            if echo {
                echoed = Some(intended);
            }
            let intended = stamp + u64::try_from(intended.as_nanos()).unwrap_or(0);
            let burst = burst.min(args.messages.map_or(u64::MAX, |messages| messages - sent));
            for (number, message) in (0..burst).zip(bytes.chunks_exact_mut(size)) {
                let echo = echo && number == 0;
                Message { test: self.number, echo, sequence: sent + number, intended }.emit(message);
            }
            let put = put(&bytes[..size * burst as usize]);
            put.map_err(|error| Failure::failed(format!("cannot send message {sent}"), error))?;
            sent += burst;
        }
    }

    /// Takes what the server says until its result.
    fn listen(&self, mut reader: BufReader<Stream>) -> Result<(Vec<Counted>, Counted), Failure> {
        let mut intervals = Vec::new();
        let begin = Instant::now();
        let hear = |reader: &mut BufReader<Stream>| hear::<Say>(reader)?.map(Say::checked).transpose();
        while let Some(said) = hear(&mut reader).inspect_err(|_| self.over.set())? {
            match said {
                Say::Interval(counted) => {
                    if intervals.len() > most_intervals(begin.elapsed(), self.args.interval) {
                        self.over.set();
                        return Err(Failure::Failed("the server reports more often than it was asked to".to_owned()));
                    }
                    if !self.args.json {
                        report::interval(&counted, intervals.is_empty())?;
                    }
                    intervals.push(counted);
                }
                Say::Echo { intended } => self.take_echo(intended),
                Say::Result(all) => return Ok((intervals, all)),
                Say::Refused { message } => {
                    self.over.set();
                    return Err(Failure::Failed(format!("the server refuses: {message}")));
                }
                Say::Ready { .. } => {}
            }
        }
        self.over.set();
        Err(Failure::Failed("the server ended the test without a result; see what it printed".to_owned()))
    }

    fn take_echo(&self, intended: u64) {
        let now = self.clock.now();
        self.round_trips.lock().expect("no thread dies with it").take(intended, now);
    }

    fn take_echoes(&self, session: &Datagrams) -> Result<(), Failure> {
        let mut buffer = vec![0; MAX_RECORD];
        let mut heard = Instant::now();
        set_patience(session, Duration::from_millis(20))?;
        loop {
            match next_event(session, &mut buffer)? {
                Some(Event::Datagram { bytes, .. }) if bytes.len() == HEADER => {
                    let message = Message::parse(bytes).ok().filter(|message| message.test == self.number);
                    message.into_iter().for_each(|message| self.take_echo(message.intended));
                    heard = Instant::now();
                }
                // After the result nobody misses the session.
                Some(Event::Reset { reason, .. }) if !self.over.is_set() => {
                    self.over.set();
                    return Err(Failure::Failed(format!("the server's session is gone: {}", explain(reason))));
                }
                Some(Event::Closed) => {
                    self.over.set();
                    return Err(closed());
                }
                _ => {}
            }
            if self.over.is_set() && heard.elapsed() > ECHO_PATIENCE {
                return Ok(());
            }
        }
    }
}

/// Intervals that a server may have reported after this time; it began to count a little earlier.
fn most_intervals(elapsed: Duration, interval: Duration) -> usize {
    let whole = elapsed.as_nanos() / interval.as_nanos().max(1);
    usize::try_from(whole).unwrap_or(usize::MAX).saturating_add(EARLY_INTERVALS)
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until `time`: asleep while that is precise enough, looking at the clock for the rest.
fn wait_until(time: Instant, stop: &Stop) {
    loop {
        let left = time.saturating_duration_since(Instant::now());
        if left > SPIN {
            stop.sleep_until(time - SPIN);
        } else if left.is_zero() {
            return;
        }
        if stop.is_set() {
            return;
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_report_as_often_as_it_was_asked_to() {
        let (interval, second) = (Duration::from_millis(100), Duration::from_secs(1));
        assert_eq!(most_intervals(Duration::ZERO, interval), EARLY_INTERVALS);
        assert_eq!(most_intervals(second, interval), 10 + EARLY_INTERVALS);
        assert_eq!(most_intervals(Duration::MAX, Duration::ZERO), usize::MAX);
    }
}
