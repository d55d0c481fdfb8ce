//! What unit tests could not run on this machine: said aloud as it comes, and counted at the end of the program.

use std::io::Write as _;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static NOT_RUN: AtomicU32 = AtomicU32::new(0);

/// Says something that is seen also if the test passes, which `eprintln` would not be.
fn say(text: &str) {
    // Where nobody reads there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "unit tests: {text}");
}

extern "C" fn summary() {
    say(&format!("{} not run on this machine", NOT_RUN.load(Ordering::Relaxed)));
}

/// Counts something that this machine cannot run; `what` says what, and why if nobody has said so yet.
pub(crate) fn count(what: &str) {
    static AT_EXIT: Once = Once::new();
    NOT_RUN.fetch_add(1, Ordering::Relaxed);
    say(&format!("NOT RUN: {what}"));
    AT_EXIT.call_once(|| {
        // SAFETY: the function lives as long as the program and does not unwind.
        let registered = unsafe { libc::atexit(summary) };
        assert_eq!(registered, 0, "there is room for one more function to run at exit");
    });
}
