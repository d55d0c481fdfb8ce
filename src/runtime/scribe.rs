//! Writes histograms to files on a thread of its own: a slow disk must not hold up control.
//!
//! The thread is started with the first thing to write. At most [`WAITING`] things wait for it; what comes on top is left
//! out, said, and the next interval is so much longer.

use super::clock;
use super::histogram_files;
use super::interval_log::IntervalLog;
use crate::base::Instant;
use crate::config::settings::Telemetry;
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Things that may wait to be written.
const WAITING: usize = 4;

/// Something to write: the answer of the workers to `Request::Histograms`.
#[derive(Debug)]
pub(super) enum Job {
    /// To the interval log, whose interval ends at this time.
    Interval(Instant, Vec<Value>),
    /// To a file each, and said in the log.
    Files(Vec<Value>),
}

/// What the thread writes to.
#[derive(Debug)]
struct Desk {
    log: Option<IntervalLog>,
    directory: PathBuf,
    /// The interval log could not be written the last time.
    failing: bool,
}

/// The door to the thread.
#[derive(Debug)]
pub(super) struct Scribe {
    desk: Option<Desk>,
    thread: Option<(SyncSender<Job>, JoinHandle<()>)>,
}

impl Scribe {
    /// Nothing is written yet. The log's first interval begins at `now`.
    pub(super) fn new(settings: &Telemetry, now: Instant) -> Scribe {
        let log = settings.interval_log.clone();
        let log = log.map(|path| IntervalLog::new(path, settings.interval_log_size, now));
        Scribe { desk: Some(Desk { log, directory: settings.histograms.clone(), failing: false }), thread: None }
    }

    /// Has something written.
    pub(super) fn write(&mut self, job: Job) {
        if let Some(desk) = self.desk.take() {
            let (sender, jobs) = sync_channel(WAITING);
            let thread = std::thread::Builder::new().name("sinew-scribe".into());
            match thread.spawn(move || desk.work(&jobs)) {
                Ok(thread) => self.thread = Some((sender, thread)),
                Err(error) => tracing::error!(%error, "histograms cannot be written"),
            }
        }
        if let Some((jobs, _)) = &self.thread
            && jobs.try_send(job).is_err()
        {
            tracing::warn!("histograms are written more slowly than they are asked for: some are left out");
        }
    }

    /// Waits until all is written, but not longer than `patience` allows.
    pub(super) fn finish(self, patience: impl Fn() -> bool) {
        let Some((jobs, thread)) = self.thread else { return };
        drop(jobs);
        while !thread.is_finished() && patience() {
            std::thread::sleep(super::ring::RETRY);
        }
    }
}

impl Desk {
    fn work(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Interval(at, workers) => self.log(at, &workers),
                Job::Files(workers) => self.files(&workers),
            }
        }
    }

    fn log(&mut self, at: Instant, workers: &[Value]) {
        let Some(log) = &mut self.log else { return };
        let written: io::Result<()> = log.write(at, clock::wall_time(), workers);
        let failed = written.is_err();
        match written {
            Err(error) if !self.failing => {
                tracing::error!(%error, "the interval log cannot be written; tried again every interval");
            }
            Ok(()) if self.failing => tracing::info!("the interval log is written again"),
            _ => {}
        }
        self.failing = failed;
    }

    fn files(&self, workers: &[Value]) {
        let directory = self.directory.display();
        match histogram_files::write(workers, &self.directory) {
            Ok(count) => tracing::info!(count, %directory, "histograms written, as SIGUSR1 asked"),
            Err(error) => tracing::error!(%error, %directory, "histograms cannot be written: see `histograms`"),
        }
    }
}
