//! What seems to keep a peer from agreeing on keys with us.
//!
//! None of what this follows from is proven: anybody can send a datagram from any address, and ICMP messages are not signed
//! at all. So it is for people to read, and changes nothing in what the room does.

use crate::base::{Instant, Obstacle};
use std::time::Duration;

/// Evidence is forgotten after so long without any more of it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// Handshake messages that were sent to the peer, and led to nothing, before anything is said.
const TRIES: u32 = 3;

/// The evidence of one peer.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    evidence: Option<(Obstacle, Instant)>,
    told: Option<Obstacle>,
    /// Handshakes begun, and answered, since it was heard.
    asked: u32,
    answered: u32,
}

impl Suspicion {
    /// Something speaks for `obstacle`. What says less than the evidence there is does not count.
    pub(super) fn note(&mut self, now: Instant, obstacle: Obstacle) {
        if self.evidence(now).is_none_or(|held| held <= obstacle) {
            self.evidence = Some((obstacle, now));
        }
    }

    /// The peer is asked for keys. What is to be told of it, if it is not what was told last.
    pub(super) fn asked(&mut self, now: Instant) -> Option<Obstacle> {
        self.asked = self.asked.saturating_add(1);
        self.assess(now, self.asked, Obstacle::NoAnswer)
    }

    /// The peer asked for keys and is answered. What is to be told of it, if it is not what was told last.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Obstacle> {
        self.answered = self.answered.saturating_add(1);
        self.assess(now, self.answered, Obstacle::OneWay)
    }

    /// That it was done so many `times` speaks for `obstacle`.
    fn assess(&mut self, now: Instant, times: u32, obstacle: Obstacle) -> Option<Obstacle> {
        if times <= TRIES {
            return None;
        }
        self.note(now, obstacle);
        let found = self.evidence(now);
        found.filter(|_| std::mem::replace(&mut self.told, found) != found)
    }

    /// The peer was heard, and is authentic. Whether that refutes what was told.
    pub(super) const fn heard(&mut self) -> bool {
        self.evidence = None;
        (self.asked, self.answered) = (0, 0);
        self.told.take().is_some()
    }

    fn evidence(&self, now: Instant) -> Option<Obstacle> {
        let (obstacle, at) = self.evidence?;
        (now.since(at) < FORGOTTEN_AFTER).then_some(obstacle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_after_some_tries_and_anew_when_more_is_known_or_less() {
        let mut suspicion = Suspicion::default();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        suspicion.note(at(0), Obstacle::Refused);
        let tries = |suspicion: &mut Suspicion, second| suspicion.asked(at(second));
        assert_eq!([0; 3].map(|_| tries(&mut suspicion, 1)), [None; 3], "it may still come up");
        assert_eq!(tries(&mut suspicion, 2), Some(Obstacle::Refused));
        assert_eq!(tries(&mut suspicion, 3), None, "no news");
        suspicion.note(at(4), Obstacle::PresharedKey);
        suspicion.note(at(5), Obstacle::Refused);
        assert_eq!(tries(&mut suspicion, 6), Some(Obstacle::PresharedKey));
        assert_eq!(tries(&mut suspicion, 13), None);
        assert_eq!(tries(&mut suspicion, 14), Some(Obstacle::NoAnswer), "the rest is forgotten");
        assert_eq!([0; 3].map(|_| suspicion.answered(at(14))), [None; 3], "it is answered now");
        assert_eq!(suspicion.answered(at(14)), Some(Obstacle::OneWay), "and asks all the same");
        assert!(suspicion.heard() && !suspicion.heard());
        assert_eq!(tries(&mut suspicion, 15), None, "it starts anew");
    }
}
