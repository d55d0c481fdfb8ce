//! What client and server say to each other: JSON lines on one stream.

use super::clock::Clock;
use super::message::HEADER;
use crate::base::limits::MAX_PAYLOAD;
use crate::base::{Class, Port};
use crate::cli::failure::Failure;
use crate::telemetry::hlog;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::io::{self, BufRead, Read as _, Write};
use std::time::Duration;

/// Version of this conversation.
pub(super) const VERSION: u32 = 1;
/// Shortest interval that is reported: a report takes a few kilobytes and the time to make them.
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time that figures may be of, seconds: thirty years.
const MAX_SECONDS: f64 = 1e9;
/// Longest line, bytes: a histogram is a few thousand.
const MAX_LINE: u64 = 1 << 20;

/// What carries the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Transport {
    /// Datagrams of this class.
    Datagram(Class),
    /// The stream itself: it follows the [`Hello`] line.
    Stream,
}

impl Transport {
    /// As reports call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Transport::Datagram(class) => class.name(),
            Transport::Stream => "stream",
        }
    }
}

/// The client's first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// [`VERSION`].
    pub(super) version: u32,
    /// Number of the test, in every message of it.
    pub(super) test: u32,
    /// The client's machine and boot.
    pub(super) boot: String,
    /// What carries the test.
    pub(super) transport: Transport,
    /// Bytes of each message.
    pub(super) size: usize,
    /// How often to report.
    pub(super) interval: Duration,
}

/// The client's last line, in datagram tests. In stream tests the stream's end says it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Done {
    /// Messages sent.
    pub(super) sent: u64,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "say")]
pub(super) enum Say {
    /// Go ahead.
    Ready {
        /// Where datagrams go; 0 for streams.
        port: Port,
        /// The clock to stamp with.
        clock: Clock,
    },
    /// No.
    Refused {
        /// Why.
        message: String,
    },
    /// What arrived in one interval.
    Interval(Counted),
    /// A message of a stream test that asked for an echo.
    Echo {
        /// Its stamp.
        intended: u64,
    },
    /// What arrived in all; the last line.
    Result(Counted),
}

/// What arrived in some time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// Beginning, seconds since the first message.
    pub(super) start: f64,
    /// End, seconds since the first message.
    pub(super) end: f64,
    /// Different messages.
    pub(super) received: u64,
    /// Messages that had been received before.
    pub(super) duplicated: u64,
    /// Messages that came after one with a higher number.
    pub(super) reordered: u64,
    /// Messages that some link on the way marked as congested.
    pub(super) marked: u64,
    /// Payload bytes of different messages.
    pub(super) bytes: u64,
    /// Their one-way latencies: see `telemetry::hlog::encode`.
    pub(super) latencies: String,
}

impl Hello {
    /// Whether a server can serve it; why not.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.version != VERSION || !(HEADER..=MAX_PAYLOAD).contains(&self.size) {
            return Err("client and server are of different versions");
        }
        if self.interval < MIN_INTERVAL {
            return Err("the interval is too short: at least 100ms");
        }
        Ok(())
    }
}

impl Counted {
    /// The figures, if they can be: times in their order and of this age, latencies that are a histogram.
    pub(super) fn checked(self) -> Result<Counted, Failure> {
        let unreadable = |why: &dyn Display| Failure::failed("the server's figures cannot be read", why);
        if !(0.0 <= self.start && self.start <= self.end && self.end <= MAX_SECONDS) {
            return Err(unreadable(&format_args!("they are from second {:e} to {:e}", self.start, self.end)));
        }
        hlog::decode(&self.latencies).map_err(|error| unreadable(&error))?;
        Ok(self)
    }
}

impl Say {
    /// What was said, if it can be: see [`Counted::checked`].
    pub(super) fn checked(self) -> Result<Say, Failure> {
        Ok(match self {
            Say::Interval(counted) => Say::Interval(counted.checked()?),
            Say::Result(counted) => Say::Result(counted.checked()?),
            other => other,
        })
    }
}

/// Writes a line.
pub(super) fn say(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_string(value).map_err(|error| Failure::failed("cannot write JSON", error))?;
    line.push('\n');
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::failed("the other end of the test is gone", error))
}

/// Reads a line; `None` at the end of the stream.
pub(super) fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<Option<T>, Failure> {
    let mut line = String::new();
    let read = loop {
        match from.by_ref().take(MAX_LINE).read_line(&mut line) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    match read {
        Ok(0) => Ok(None),
        Ok(_) => serde_json::from_str(&line)
            .map(Some)
            .map_err(|error| Failure::failed("the other end is no `sinew perf` of this version", error)),
        Err(error) => Err(Failure::failed("the other end of the test is gone", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let says = [
            Say::Ready { port: 7, clock: Clock::SameMachine },
            Say::Interval(Counted { received: 3, latencies: "x".to_owned(), ..Counted::default() }),
            Say::Echo { intended: u64::MAX },
            Say::Refused { message: "no".to_owned() },
        ];
        let mut line = Vec::new();
        says.iter().for_each(|value| say(&mut line, value).expect("memory takes it"));
        let mut reader = line.as_slice();
        for value in says {
            assert_eq!(hear(&mut reader), Ok(Some(value)));
        }
        assert_eq!(hear::<Say>(&mut reader), Ok(None));
        assert!(hear::<Say>(&mut b"GET / HTTP/1.1\n".as_slice()).is_err());
    }

    #[test]
    fn figures_that_cannot_be_are_refused() {
        let latencies = hlog::encode(&super::super::tally::histogram());
        let well = Counted { end: 2.5, latencies, ..Counted::default() };
        assert_eq!(well.clone().checked(), Ok(well.clone()));
        for (start, end) in [(-1.0, 1.0), (0.0, 1e300), (3.0, 2.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            let wrong = Say::Result(Counted { start, end, ..well.clone() });
            assert!(wrong.checked().is_err(), "{start} to {end}");
        }
        let wrong = Say::Interval(Counted { latencies: "HISTFAAAA".to_owned(), ..well });
        assert!(wrong.checked().is_err());
    }

    #[test]
    fn a_client_cannot_ask_for_a_report_a_turn() {
        let (boot, transport) = (String::new(), Transport::Stream);
        let hello = Hello { version: VERSION, test: 1, boot, transport, size: 1000, interval: MIN_INTERVAL };
        assert_eq!(hello.check(), Ok(()));
        for interval in [Duration::ZERO, MIN_INTERVAL - Duration::from_nanos(1)] {
            assert!(Hello { interval, ..hello.clone() }.check().is_err_and(|why| why.contains("interval")));
        }
        assert!(Hello { size: HEADER - 1, ..hello }.check().is_err());
    }
}
