//! The interval log: every interval one line for each histogram that counted something in it.
//!
//! Bounded: beyond its length the file takes the place of its predecessor, `FILE.1`, and a new one begins; so does a file
//! that an earlier life of the router left behind. What is counted after the last whole interval of a life is not written.

use crate::base::{Instant, WallTime};
use crate::telemetry::hgrm::MILLISECONDS;
use crate::telemetry::hlog::{self, Interval};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// A log in the making.
#[derive(Debug)]
pub(super) struct IntervalLog {
    path: PathBuf,
    most: u64,
    /// The file, the time that its zero is, and its length.
    file: Option<(File, Instant, u64)>,
    /// What was counted at the end of the last interval, and when that was.
    last: BTreeMap<String, Histogram<u64>>,
    last_at: Instant,
}

impl IntervalLog {
    /// A log at `path` of at most `most` bytes; its first interval begins at `now`.
    pub(super) fn new(path: PathBuf, most: u64, now: Instant) -> IntervalLog {
        IntervalLog { path, most, file: None, last: BTreeMap::new(), last_at: now }
    }

    /// Ends an interval at `now`, which is `wall` by the wall clock. `workers`: the answer to `Request::Histograms`.
    pub(super) fn write(&mut self, now: Instant, wall: WallTime, workers: &[Value]) -> io::Result<()> {
        let counted = counted(workers).map_err(io::Error::other)?;
        let (began, length) = (self.last_at, now.since(self.last_at));
        let mut new = Vec::new();
        for (tag, histogram) in &counted {
            let mut since = histogram.clone();
            // A router counts from its start on, so nothing can be less than before; a lane's link may be a new one.
            if let Some(before) = self.last.get(tag)
                && since.subtract(before).is_err()
            {
                since = histogram.clone();
            }
            if !since.is_empty() {
                new.push((tag.clone(), since));
            }
        }
        (self.last, self.last_at) = (counted, now);
        let zero = match &self.file {
            Some((_, zero, len)) if *len < self.most => *zero,
            _ => {
                let start = WallTime::from_nanos(wall.as_nanos().saturating_sub(length.as_nanos() as u64));
                self.begin(began, start)?;
                began
            }
        };
        let lines = new.into_iter().map(|(tag, histogram)| {
            hlog::line(&Interval { tag: Some(tag), start: began.since(zero), length, histogram }, MILLISECONDS)
        });
        let lines: String = lines.collect();
        let (file, _, len) = self.file.as_mut().expect("it was begun");
        *len += lines.len() as u64;
        let written = file.write_all(lines.as_bytes());
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn begin(&mut self, zero: Instant, start: WallTime) -> io::Result<()> {
        self.file = None;
        let mut before = OsString::from(&self.path);
        before.push(".1");
        match std::fs::rename(&self.path, &before) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let mut file = File::create_new(&self.path)?;
        let head = hlog::head("Logged by sinew run", start, MILLISECONDS)?;
        file.write_all(&head)?;
        self.file = Some((file, zero, head.len() as u64));
        Ok(())
    }
}

/// All histograms by their tags.
fn counted(workers: &[Value]) -> Result<BTreeMap<String, Histogram<u64>>, String> {
    let mut all = BTreeMap::new();
    for (number, worker) in workers.iter().enumerate() {
        for entry in worker["histograms"].as_array().into_iter().flatten() {
            let tag = super::histogram_files::name(number, entry);
            all.insert(tag, hlog::decode(entry["hdr"].as_str().unwrap_or_default())?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Histogram as Recorder;
    use serde_json::json;
    use std::time::Duration;

    fn workers(counts: u64) -> Vec<Value> {
        let mut turn = Recorder::new();
        turn.record_several(Duration::from_millis(2), counts);
        vec![json!({"histograms": [{"name": "turn", "peer": null, "hdr": hlog::encode(turn.inner())}]})]
    }

    fn at(seconds: u64) -> (Instant, WallTime) {
        (Instant::from_millis(seconds * 1_000), WallTime::from_nanos((1_700_000_000 + seconds) * 1_000_000_000))
    }

    #[test]
    fn intervals_hold_what_was_counted_in_them_and_the_file_is_bounded() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("logs/a.hlog");
        let mut log = IntervalLog::new(path.clone(), 700, at(5).0);
        let write = |log: &mut IntervalLog, second, counts| {
            let (now, wall) = at(second);
            log.write(now, wall, &workers(counts)).expect("writes");
        };
        write(&mut log, 15, 3);
        write(&mut log, 25, 3);
        write(&mut log, 35, 10);
        let text = std::fs::read_to_string(&path).expect("is there");
        assert!(text.contains("#[StartTime: 1700000005.000 "), "{text}");
        let read = hlog::read(text.as_bytes()).expect("HdrHistogram reads it");
        let shown: Vec<_> = read.iter().map(|interval| (interval.start.as_secs(), interval.histogram.len())).collect();
        assert_eq!(shown, [(0, 3), (20, 7)], "nothing was counted in the second");
        assert!(read.iter().all(|interval| interval.length == Duration::from_secs(10)));
        assert_eq!(read[0].tag.as_deref(), Some("worker0-turn"));
        (0..40).for_each(|n| write(&mut log, 45 + 10 * n, 11 + n));
        let lengths =
            [&path, &path.with_extension("hlog.1")].map(|path| std::fs::metadata(path).expect("is there").len());
        assert!(lengths.iter().all(|&len| len > 300 && len < 1_100), "{lengths:?}");
        assert_eq!(std::fs::read_dir(path.parent().expect("a directory")).expect("lists").count(), 2);
        // Another life of the router.
        let mut log = IntervalLog::new(path.clone(), 700, at(1_000).0);
        write(&mut log, 1_010, 5);
        write(&mut log, 1_020, 2);
        let text = std::fs::read_to_string(&path).expect("is there");
        assert!(text.contains("#[StartTime: 1700001000.000 "), "{text}");
        let read = hlog::read(text.as_bytes()).expect("HdrHistogram reads it");
        assert_eq!(read.iter().map(|interval| interval.histogram.len()).collect::<Vec<_>>(), [5, 2], "a new link");
    }
}
