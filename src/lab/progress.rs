//! What the user sees while it runs: a bar on a terminal, a line now and then elsewhere, nothing if asked.

use super::flows::Board;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From line to line where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Says things on standard error.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    quiet: bool,
    terminal: bool,
}

impl Voice {
    /// A voice that says nothing but what must not be silent, if `quiet`.
    pub fn new(quiet: bool) -> Voice {
        Voice { quiet, terminal: std::io::stderr().is_terminal() }
    }

    /// Says a line.
    pub fn say(self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("lab: {}", text.as_ref());
        }
    }

    /// Says what must not be silent.
    pub fn warn(self, text: impl AsRef<str>) {
        eprintln!("lab: WARNING: {}", text.as_ref());
    }

    /// Shows how far `board` is on the way to `total` messages, until the answer is dropped.
    pub fn watch(self, title: &str, total: u64, board: &Arc<Board>) -> Watching {
        if self.quiet {
            return Watching { stop: Arc::default(), thread: None };
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (ask, board, title, terminal) = (Arc::clone(&stop), Arc::clone(board), title.to_owned(), self.terminal);
        let before = board.received.load(Ordering::Relaxed);
        let body = move || show(&title, total, terminal, &ask, || board.received.load(Ordering::Relaxed) - before);
        // Without a thread to spare there is no progress to see; nothing else is lost.
        let thread = std::thread::Builder::new().name("lab-progress".into()).spawn(body).ok();
        Watching { stop, thread }
    }
}

/// Progress being shown.
#[derive(Debug)]
pub struct Watching {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A progress bar that panicked has nothing to tell.
            let _ = thread.join();
        }
    }
}

fn show(title: &str, total: u64, terminal: bool, stop: &AtomicBool, done: impl Fn() -> u64) {
    let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = "{msg} [{bar:30}] {pos}/{len} messages, {elapsed}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(title.to_owned());
    let mut last_line = Instant::now();
    if !terminal {
        eprintln!("lab: {title}");
    }
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        bar.set_position(done().min(total));
        if !terminal && last_line.elapsed() >= LINE_EVERY {
            last_line = Instant::now();
            eprintln!("lab:   {} of {total} messages received", done());
        }
    }
    bar.finish_and_clear();
}
