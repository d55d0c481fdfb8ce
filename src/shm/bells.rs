//! When an application may wait for its socket: the rule that keeps the socket readable while something is to be read.
//!
//! A bell that the router rang stays in the socket until the ring was found empty after it. So as long as the ring holds
//! a record, one of these holds as well:
//!
//! - a bell is in the socket, or about to be: the application can poll without looking at the ring;
//! - the application was told of a record, and has not yet looked for one in vain.
//!
//! Which bells may be taken is counted, not guessed: each time the announcement is found taken back, the router rang once
//! since. Taking one more than that could take the bell of a record that came this moment.
//!
//! Without system calls, so that `tests/interleavings.rs` can run this very file.

use super::Sleeper;

/// What was taken from the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A bell.
    Bell,
    /// A plug: there was one.
    Plug,
    /// Nothing was there.
    Nothing,
}

/// Bells of which it is known that they were rung, and that were not taken.
#[derive(Debug, Default)]
pub struct Bells {
    stale: i64,
}

impl Bells {
    /// Whether the application, which found its ring empty, may wait for the next bell or plug, without taking it.
    pub fn may_wait(
        &mut self,
        sleeper: &Sleeper,
        is_empty: impl Fn() -> bool,
        mut take: impl FnMut() -> Taken,
    ) -> bool {
        self.announce(sleeper);
        if !is_empty() {
            return false;
        }
        while self.stale > 0 {
            match take() {
                Taken::Bell => self.stale -= 1,
                Taken::Plug => {}
                Taken::Nothing => break,
            }
        }
        is_empty()
    }

    /// Takes the plug and what is before it. The bell of records that wait may be among that; the one that was plugged
    /// out rings another.
    pub fn unplug(&mut self, sleeper: &Sleeper, mut take: impl FnMut() -> Taken) {
        while take() == Taken::Bell {
            self.stale -= 1;
        }
        self.announce(sleeper);
    }

    fn announce(&mut self, sleeper: &Sleeper) {
        self.stale += i64::from(sleeper.announce());
    }
}
