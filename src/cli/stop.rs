//! Ctrl-C as a request to finish: what was measured so far is still printed.

use super::failure::Failure;
use crate::client::Stream;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time after which a waiting command looks whether it should stop.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Whether the command was asked to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    /// While set, a signal ends the process at once.
    at_once: Arc<AtomicBool>,
}

impl Stop {
    /// Set by the first SIGINT or SIGTERM; a second one ends the process at once.
    pub(super) fn on_signals() -> Stop {
        let stop = Stop::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // In this order: the conditional shutdown looks at the flag before the flag is set. Where a handler cannot
            // be installed the signal keeps its usual effect, which is to end the process.
            for flag in [&stop.asked, &stop.at_once] {
                let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(flag));
            }
            let _ = signal_hook::flag::register(signal, Arc::clone(&stop.asked));
        }
        stop
    }

    /// Whether to stop.
    pub(super) fn is_set(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Asks to stop.
    pub(super) fn set(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Waits for something that cannot be left half way, before anything worth telling was done: a signal meanwhile ends
    /// the process at once, with 130.
    pub(super) fn or_exit<T>(&self, wait: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.at_once.store(true, Ordering::SeqCst);
        // One that came a moment before found the flag not yet set.
        let done = if self.is_set() { Err(Failure::Interrupted) } else { wait() };
        self.at_once.store(false, Ordering::SeqCst);
        done
    }

    /// Reads from `source` until asked to stop: then it has ended.
    pub(super) fn guard<R: AsFd>(&self, source: R) -> Guarded<R> {
        Guarded { source, stop: self.clone() }
    }

    /// Writes all of `bytes` to a stream that does not block, unless asked to stop; how many were written.
    pub(super) fn write(&self, stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            let Some(length) = self.insist(stream, || (&*stream).write(&bytes[written..]))? else { break };
            written += length;
        }
        Ok(written)
    }

    /// Does what a descriptor that does not block has no room for yet, as soon as it has; `None` if asked to stop.
    pub(super) fn insist<T>(
        &self,
        descriptor: &impl AsFd,
        mut act: impl FnMut() -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        while !self.is_set() {
            match act() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(descriptor.as_fd(), libc::POLLOUT)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done.map(Some),
            }
        }
        Ok(None)
    }

    /// Sleeps until `time` or until asked to stop.
    pub(super) fn sleep_until(&self, time: Instant) {
        loop {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_set() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// Something to read that ends when the command is asked to stop. Whether it blocks or not, it is waited for.
#[derive(Debug)]
pub(super) struct Guarded<R> {
    source: R,
    stop: Stop,
}

impl<R: AsFd + Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.stop.is_set() {
            if !readable(self.source.as_fd())? {
                continue;
            }
            match self.source.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
        Ok(0)
    }
}

fn readable(descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    poll(descriptor, libc::POLLIN)
}

fn wait(descriptor: BorrowedFd<'_>, events: libc::c_short) -> io::Result<()> {
    poll(descriptor, events).map(drop)
}

/// Waits for a descriptor, at most for [`LOOK`]; whether there is something to do or to be told.
fn poll(descriptor: BorrowedFd<'_>, events: libc::c_short) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: descriptor.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry is passed, and it outlives the call.
    let ready = unsafe { libc::poll(&mut entry, 1, LOOK.as_millis() as libc::c_int) };
    match ready {
        0 => Ok(false),
        1.. => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ends_when_asked_to_stop() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let stop = Stop::default();
        let mut guarded = stop.guard(reader);
        writer.write_all(b"one").expect("has room");
        let mut buffer = [0; 10];
        assert_eq!(guarded.read(&mut buffer).expect("is there"), 3);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                stop.set();
            });
            // The pipe stays open and empty: without the guard this would wait for ever.
            assert_eq!(guarded.read(&mut buffer).expect("ends"), 0);
        });
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }
}
