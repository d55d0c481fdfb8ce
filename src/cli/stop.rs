//! Ctrl-C as a request to finish: what was measured so far is still printed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time after which a waiting command looks whether it should stop.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Whether the command was asked to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by the first SIGINT or SIGTERM; a second one ends the process at once.
    pub(super) fn on_signals() -> Stop {
        let stop = Stop::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // In this order: the conditional shutdown looks at the flag before the flag is set. Where a handler cannot
            // be installed the signal keeps its usual effect, which is to end the process.
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop.0));
            let _ = signal_hook::flag::register(signal, Arc::clone(&stop.0));
        }
        stop
    }

    /// Whether to stop.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks to stop.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
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
