//! Interval logs as HdrHistogram's own tools read them (`.hlog`, format 1.2 with V2 compressed histograms).
//!
//! One line an interval: when it began, how long it was, its maximum, and the whole histogram. `HistogramLogProcessor`
//! and HistogramLogAnalyzer plot them; [`read`] reads them back.

use crate::base::WallTime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// What was measured in one interval.
#[derive(Clone, Debug)]
pub struct Interval {
    /// What the interval's histogram is of, where a log has several; without commas and white space.
    pub tag: Option<String>,
    /// When it began, since the start of the log.
    pub start: Duration,
    /// How long it was.
    pub length: Duration,
    /// Its histogram, in nanoseconds.
    pub histogram: Histogram<u64>,
}

/// Writes a log that started at `start`, of intervals of one kind: when each began since then, how long it was, and its
/// histogram. Maxima are shown divided by `unit`.
pub fn write(
    out: &mut impl Write,
    start: WallTime,
    intervals: &[(Duration, Duration, Histogram<u64>)],
    unit: f64,
) -> io::Result<()> {
    let untagged = |(start, length, histogram): &(Duration, Duration, Histogram<u64>)| Interval {
        tag: None,
        start: *start,
        length: *length,
        histogram: histogram.clone(),
    };
    let intervals: Vec<Interval> = intervals.iter().map(untagged).collect();
    write_tagged(out, "Logged by sinew", start, &intervals, unit)
}

/// Writes a log that started at `start`, of intervals of several kinds. Maxima are shown divided by `unit`.
pub fn write_tagged(
    out: &mut impl Write,
    comment: &str,
    start: WallTime,
    intervals: &[Interval],
    unit: f64,
) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(start.as_nanos());
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("[{comment}]"))
        .add_comment("[Histogram log format version 1.2]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(unit)
        .begin_log_with(out, &mut serializer)?;
    for interval in intervals {
        let tag = interval.tag.as_deref().and_then(Tag::new);
        let written = log.write_histogram(&interval.histogram, interval.start, interval.length, tag);
        written.map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(())
}

/// Reads the intervals of a log.
pub fn read(text: &[u8]) -> Result<Vec<Interval>, String> {
    let mut intervals = Vec::new();
    for entry in IntervalLogIterator::new(text) {
        let entry = entry.map_err(|error| format!("not an interval log: {error:?}"))?;
        let LogEntry::Interval(interval) = entry else { continue };
        intervals.push(Interval {
            tag: interval.tag().map(|tag| tag.as_str().to_owned()),
            start: interval.start_timestamp(),
            length: interval.duration(),
            histogram: decode(interval.encoded_histogram())?,
        });
    }
    Ok(intervals)
}

/// A histogram as one word: V2, compressed, base64; what a line of a log holds.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    let encoded = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    encoded.expect("a histogram of u64 fits its serialisation, and memory does not refuse to be written");
    STANDARD.encode(bytes)
}

/// The histogram that [`encode`] wrote.
pub fn decode(word: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(word).map_err(|error| format!("not a histogram: {error}"))?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| format!("not a histogram: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(number: u64, values: &[u64]) -> Interval {
        let mut histogram = Histogram::new_with_bounds(1_000, 100_000_000_000, 3).expect("the bounds are legal");
        values.iter().for_each(|&value| histogram.saturating_record(value));
        Interval {
            tag: (number % 2 == 1).then(|| format!("run-{number}")),
            start: Duration::from_millis(1_000 * number),
            length: Duration::from_millis(1_000),
            histogram,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(runs in prop::collection::vec(prop::collection::vec(0u64..200_000_000_000, 0..50), 0..5)) {
            let intervals: Vec<Interval> = (0..).zip(&runs).map(|(number, values)| interval(number, values)).collect();
            let mut text = Vec::new();
            write_tagged(&mut text, "Logged by a test", WallTime::from_nanos(1_700_000_000_123_000_000), &intervals, 1e6).expect("is written");
            let again = read(&text).expect("is read");
            prop_assert_eq!(again.len(), intervals.len());
            for (mine, theirs) in intervals.iter().zip(&again) {
                prop_assert_eq!((&mine.tag, mine.start, mine.length), (&theirs.tag, theirs.start, theirs.length));
                prop_assert_eq!(&mine.histogram, &theirs.histogram);
            }
        }
    }

    #[test]
    fn the_log_has_the_head_and_lines_that_the_tools_expect() {
        let mut text = Vec::new();
        let start = WallTime::from_nanos(1_441_812_279_474_000_000);
        write_tagged(&mut text, "Logged by a test", start, &[interval(1, &[2_769_000])], 1e6).expect("is written");
        let text = String::from_utf8(text).expect("is ASCII");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "#[Logged by a test]");
        assert_eq!(lines[1], "#[Histogram log format version 1.2]");
        assert!(lines[2].starts_with("#[StartTime: 1441812279.474 "), "{text}");
        assert!(lines[3].starts_with("#[BaseTime: 1441812279.474 "), "{text}");
        assert_eq!(lines[4], "#[MaxValueDivisor: 1000000.000]");
        assert!(lines[5].starts_with("Tag=run-1,1.000,1.000,2.77"), "{text}");
        assert!(lines[5].contains(",HISTFAAAA"), "{text}");
    }

    #[test]
    fn untagged_logs_are_read_back_too() {
        let Interval { start, length, histogram, .. } = interval(2, &[5_000_000, 7_000_000]);
        let mut text = Vec::new();
        write(&mut text, WallTime::default(), &[(start, length, histogram.clone())], 1e6).expect("is written");
        let again = read(&text).expect("is read");
        assert_eq!((again.len(), &again[0].tag, again[0].start, again[0].length), (1, &None, start, length));
        assert_eq!(again[0].histogram, histogram);
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(read(b"0.1,1.0,2.0,notahistogram\n").is_err());
        assert!(decode("HISTFAAAA").is_err());
    }
}
