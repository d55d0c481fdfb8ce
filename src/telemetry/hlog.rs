//! Interval logs as HdrHistogram's own tools read them (`.hlog`, format 1.2 with V2 compressed histograms).
//!
//! One line an interval: when it began, how long it was, its maximum, and the whole histogram. `HistogramLogProcessor`
//! and HistogramLogAnalyzer plot them; [`read`] reads them back.

use crate::base::WallTime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use std::io::{self, Read as _, Write};
use std::time::{Duration, SystemTime};

/// Longest histogram that is read, bytes: four times what one of three digits with every count in use takes.
const MAX_BYTES: usize = 1 << 20;
/// Most significant digits that are read: with more a histogram takes 35 MiB and more.
const MAX_DIGITS: u32 = 3;
/// Largest bounds that are read: arithmetic above may overflow.
const MAX_LOW: u64 = 1 << 32;
const MAX_HIGH: u64 = 1 << 60;
/// Most values of a histogram that is read: beyond it quantiles are not told apart by a double, and a list of them has no
/// end.
const MAX_TOTAL: u64 = 1 << 53;
/// What V2 histograms begin with, plain and compressed; their headers, bytes.
const V2: u32 = 0x1c84_9303 | 0x10;
const V2_COMPRESSED: u32 = 0x1c84_9304 | 0x10;
const HEADER: usize = 40;
const COMPRESSED_HEADER: usize = 8;

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

/// The head of a log that started at `start` and whose maxima are divided by `unit`; lines as [`line()`] gives them follow.
pub fn head(comment: &str, start: WallTime, unit: f64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    write_tagged(&mut head, comment, start, &[], unit)?;
    Ok(head)
}

/// One interval as a line of a log, its end included; the maximum is shown divided by `unit`.
pub fn line(interval: &Interval, unit: f64) -> String {
    let Interval { tag, start, length, histogram } = interval;
    let tag = tag.as_ref().map_or_else(String::new, |tag| format!("Tag={tag},"));
    let (start, length, max) = (start.as_secs_f64(), length.as_secs_f64(), histogram.max() as f64 / unit);
    format!("{tag}{start:.3},{length:.3},{max:.3},{}\n", encode(histogram))
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

/// The histogram that [`encode`] wrote. `word` may come from anybody: what would take much memory, or what HdrHistogram's
/// own reader would stumble over, is refused before it is read.
pub fn decode(word: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(word).map_err(|error| format!("not a histogram: {error}"))?;
    decode_bytes(&bytes)
}

/// The same without base64.
pub fn decode_bytes(bytes: &[u8]) -> Result<Histogram<u64>, String> {
    let plain = inflate(bytes)?;
    check(&plain)?;
    Deserializer::new().deserialize(&mut plain.as_slice()).map_err(|error| format!("not a histogram: {error}"))
}

/// The plain form of a histogram.
fn inflate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    if number(bytes, 0) == Some(V2_COMPRESSED) {
        let mut inflated = ZlibDecoder::new(&bytes[COMPRESSED_HEADER.min(bytes.len())..]).take(MAX_BYTES as u64 + 1);
        inflated.read_to_end(&mut plain).map_err(|error| format!("not a histogram: {error}"))?;
    } else {
        plain.extend_from_slice(bytes);
    }
    if plain.len() > MAX_BYTES {
        return Err(format!("a histogram of more than {MAX_BYTES} bytes is not read"));
    }
    Ok(plain)
}

/// The four bytes at `at`, as a number.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().expect("four bytes are four")))
}

/// Looks through a plain histogram: cookie, length of the payload, offset, digits, lowest, highest and ratio; then
/// ZigZag LEB128 numbers, where one below zero stands for so many counts of zero.
fn check(plain: &[u8]) -> Result<(), String> {
    let short = || "not a histogram: it ends in its header".to_owned();
    let field = |place: usize| number(plain, 4 * place).ok_or_else(short);
    let payload = plain.get(HEADER..).ok_or_else(short)?;
    let (cookie, length, digits) = (field(0)?, field(1)?, field(3)?);
    if cookie != V2 {
        return Err("not a histogram: it is of another version".to_owned());
    }
    if length as usize != payload.len() {
        return Err(format!("not a histogram: {} bytes of counts where it says {length}", payload.len()));
    }
    if digits > MAX_DIGITS {
        return Err(format!("a histogram of {digits} significant digits is not read: {MAX_DIGITS} are enough"));
    }
    let wide = |place| Ok::<u64, String>(u64::from(field(place)?) << 32 | u64::from(field(place + 1)?));
    if wide(4)? > MAX_LOW || wide(6)? > MAX_HIGH {
        return Err("a histogram of such bounds is not read".to_owned());
    }
    // No histogram of so few digits has more: 64 powers of two, each in 2,048 steps.
    let (mut places, most) = (0, 64_u64 << 11);
    let mut total = 0_u64;
    let mut rest = payload;
    while !rest.is_empty() {
        let count = take_number(&mut rest).ok_or("not a histogram: it ends in a count")?;
        places += if count < 0 { count.unsigned_abs().min(most + 1) } else { 1 };
        let sum = total.checked_add(u64::try_from(count).unwrap_or(0));
        total = sum
            .filter(|&sum| places <= most && sum <= MAX_TOTAL)
            .ok_or("not a histogram: it counts more than there can be")?;
    }
    Ok(())
}

/// Takes a ZigZag LEB128 number of at most nine bytes, the last of which is whole.
fn take_number(rest: &mut &[u8]) -> Option<i64> {
    let mut coded = 0;
    for place in 0..9 {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        if place == 8 || byte < 0x80 {
            coded |= u64::from(byte) << (7 * place);
            break;
        }
        coded |= u64::from(byte & 0x7f) << (7 * place);
    }
    Some((coded >> 1) as i64 ^ -((coded & 1) as i64))
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
            let mut piecewise = head("Logged by a test", WallTime::from_nanos(1_700_000_000_123_000_000), 1e6).expect("is written");
            intervals.iter().for_each(|interval| piecewise.extend_from_slice(line(interval, 1e6).as_bytes()));
            prop_assert_eq!(String::from_utf8(piecewise), String::from_utf8(text));
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

    fn plain(length: u32, digits: u32, bounds: (u64, u64), payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        [V2, length, 0, digits].into_iter().for_each(|field| bytes.extend_from_slice(&field.to_be_bytes()));
        [bounds.0, bounds.1].into_iter().for_each(|field| bytes.extend_from_slice(&field.to_be_bytes()));
        bytes.extend_from_slice(&1.0_f64.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        decode(&STANDARD.encode(bytes)).expect_err("is refused")
    }

    #[test]
    fn a_histogram_that_would_take_memory_or_break_the_reader_is_refused() {
        let bounds = (1_000, 100_000_000_000);
        let well = decode(&STANDARD.encode(plain(3, 3, bounds, &[2, 3, 4]))).expect("is a histogram");
        assert_eq!((well.len(), well.max()), (3, 2_047), "one, two zeros, two, in steps of 512");
        assert!(refusal(&plain(u32::MAX, 3, bounds, &[])).contains("where it says"));
        assert!(refusal(&plain(1, 4, bounds, &[2])).contains("digits"));
        assert!(refusal(&plain(1, 3, (0, 0), &[2])).contains("parameters"));
        assert!(refusal(&plain(1, 3, (1, u64::MAX), &[2])).contains("bounds"));
        assert!(refusal(&plain(1, 3, (1 << 33, 1 << 60), &[2])).contains("bounds"));
        assert!(refusal(&plain(9, 3, bounds, &[0xff; 9])).contains("more than there can be"), "-2^63 zeros");
        let most = [[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]; 3].concat();
        assert!(refusal(&plain(27, 3, bounds, &most)).contains("more than there can be"), "3 (2^63 - 1) durations");
        assert!(refusal(&plain(1, 3, bounds, &[0x80])).contains("ends in a count"));
        assert!(refusal(&plain(0, 3, bounds, &[])[..20]).contains("ends in its header"));
    }

    #[test]
    fn little_that_inflates_to_much_is_refused() {
        let mut bytes = V2_COMPRESSED.to_be_bytes().to_vec();
        bytes.extend_from_slice(&0_u32.to_be_bytes());
        let mut deflate = flate2::write::ZlibEncoder::new(bytes, flate2::Compression::best());
        (0..64).for_each(|_| deflate.write_all(&[0; 1 << 20]).expect("memory takes it"));
        let bytes = deflate.finish().expect("memory takes it");
        assert!(bytes.len() < 100_000 && refusal(&bytes).contains("of more than"));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(read(b"0.1,1.0,2.0,notahistogram\n").is_err());
        assert!(decode("HISTFAAAA").is_err());
    }
}
