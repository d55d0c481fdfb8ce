//! Whether all is known that another member has told of its flows.
//!
//! A link repeats what the network loses, so that messages come late and in any order, but come; one that is down, or has no
//! room, takes none. So what a member tells all is numbered, and numbers that did not come are gaps. It has told everything
//! if a round of its own was heard without one ([`Message::Round`]), or an answer to a question for everything in all its
//! parts, and there has been no gap since; and for no longer than what it told is remembered. A message that cannot be
//! believed is a gap, too: most often this host is yet to learn that the set is the teller's.

use super::known::FORGET;
use crate::base::Instant;
use crate::wire::flows::Message;
use std::collections::BTreeSet;
use std::time::Duration;

/// Time between two questions for everything, if nothing comes of the first.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Most gaps that are remembered; of who has more nothing is taken to be known.
const MAX_GAPS: usize = 1024;
/// Times that a question is put whose answer lacked something.
const TRIES: u32 = 3;

/// A question under way.
#[derive(Clone, Copy, Debug)]
struct Question {
    serial: u32,
    tries: u32,
    /// Messages of the answer that have come.
    parts: u32,
    /// The number of the next message for all when it was put.
    next: Option<u64>,
    /// When something of it was heard last.
    at: Instant,
}

/// What has become of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All of it was heard.
    Full,
    /// It lacks something: ask again.
    Short,
    /// It is to no question that waits, or it lacks something again and again.
    Void,
}

/// Another member, as one that tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Teller {
    /// The number after the highest that was heard.
    next: Option<u64>,
    /// Whether those before this one were heard is not known.
    since: u64,
    gaps: BTreeSet<u64>,
    /// When it had last told everything, but for what the gaps are.
    whole_at: Option<Instant>,
    question: Option<Question>,
}

impl Teller {
    /// A message for all was heard.
    pub(super) fn heard(&mut self, number: u64) {
        let Some(next) = self.next else { return self.begin(number) };
        if number >= next {
            self.miss(next, number);
            self.next = Some(number.saturating_add(1));
        } else if !self.gaps.remove(&number) {
            // It has begun another life.
            self.begin(number);
        }
    }

    fn begin(&mut self, number: u64) {
        let question = self.question;
        *self = Teller { next: Some(number.saturating_add(1)), since: number, question, ..Teller::default() };
    }

    /// These were not heard, yet.
    fn miss(&mut self, from: u64, to: u64) {
        if to - from > (MAX_GAPS - self.gaps.len()) as u64 {
            self.gaps.clear();
            (self.since, self.whole_at) = (to, None);
        } else {
            self.gaps.extend(from..to);
        }
    }

    /// What was heard under this number could not be believed.
    pub(super) fn doubt(&mut self, number: u64) {
        self.miss(number, number.saturating_add(1));
    }

    /// Those from `first` until before `next` have told everything.
    pub(super) fn round(&mut self, now: Instant, first: u64, next: u64) {
        let Some(heard) = self.next else {
            (self.next, self.since) = (Some(next), next);
            // A round without messages, of a member that has no flows.
            self.whole_at = (first == next).then_some(now);
            return;
        };
        if next > heard {
            self.miss(heard, next);
            self.next = Some(next);
        }
        if first >= self.since && self.gaps.range(first..).next().is_none() {
            self.gaps.clear();
            self.whole_at = Some(now);
        }
    }

    /// Whether it has told everything.
    pub(super) fn is_whole(&self, now: Instant) -> bool {
        self.gaps.is_empty() && self.whole_at.is_some_and(|at| now.since(at) < FORGET)
    }

    /// Whether it should be asked for everything.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_whole(now) && self.question.is_none_or(|question| now.since(question.at) >= ASK_AGAIN)
    }

    /// The question for what it has not told, under this number, in the place of the one before.
    pub(super) fn ask(&mut self, now: Instant, serial: u32) -> Message {
        let tries = 1;
        self.question = Some(Question { serial, tries, parts: 0, next: self.next, at: now });
        Message::Ask { serial, whole: !self.is_whole(now) }
    }

    /// The same, once more.
    pub(super) fn ask_again(&mut self, now: Instant, serial: u32) -> Message {
        let tries = self.question.map_or(0, |question| question.tries);
        let message = self.ask(now, serial);
        self.question.iter_mut().for_each(|question| question.tries += tries);
        message
    }

    /// A part of an answer was heard, and believed.
    pub(super) fn part(&mut self, now: Instant, serial: u32) {
        if let Some(question) = self.question.as_mut().filter(|question| question.serial == serial) {
            question.parts += 1;
            question.at = now;
        }
    }

    /// The answer had so many parts, and had everything if it was `whole`.
    pub(super) fn told(&mut self, now: Instant, serial: u32, parts: u32, whole: bool) -> Answer {
        let Some(question) = self.question.filter(|question| question.serial == serial) else { return Answer::Void };
        if question.parts < parts {
            return if question.tries < TRIES { Answer::Short } else { Answer::Void };
        }
        self.question = None;
        if whole {
            // What was missed after the question may have changed what it had told already.
            self.gaps.retain(|gap| question.next.is_none_or(|next| *gap >= next));
            self.whole_at = Some(now);
        }
        Answer::Full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(1);

    /// A round of these numbers was heard.
    fn after_round(numbers: std::ops::Range<u64>) -> Teller {
        let mut teller = Teller::default();
        numbers.clone().for_each(|number| teller.heard(number));
        teller.round(NOW, numbers.start, numbers.end);
        assert!(teller.is_whole(NOW));
        teller
    }

    #[test]
    fn everything_is_known_after_a_round_without_a_gap_in_any_order() {
        let mut teller = Teller::default();
        assert!(teller.is_due(NOW));
        [7, 9].into_iter().for_each(|number| teller.heard(number));
        teller.round(NOW, 7, 11);
        assert!(!teller.is_whole(NOW), "8 and 10 are not there");
        [10, 8].into_iter().for_each(|number| teller.heard(number));
        teller.round(NOW, 7, 11);
        assert!(teller.is_whole(NOW) && !teller.is_due(NOW));
        teller.heard(12);
        assert!(!teller.is_whole(NOW));
        teller.heard(11);
        assert!(teller.is_whole(NOW), "it was only late");
        teller.heard(14);
        teller.round(NOW, 14, 15);
        assert!(teller.is_whole(NOW), "what was missed before a round it tells again");
        let mut late = Teller::default();
        late.heard(9);
        late.round(NOW, 7, 10);
        assert!(!late.is_whole(NOW), "of this round it has not heard the beginning");
    }

    #[test]
    fn everything_is_known_for_no_longer_than_it_is_remembered() {
        let teller = after_round(0..3);
        assert!(teller.is_whole(NOW + (FORGET - Duration::from_nanos(1))));
        assert!(!teller.is_whole(NOW + FORGET));
    }

    #[test]
    fn another_life_and_too_many_gaps_begin_anew() {
        let mut teller = after_round(100..103);
        teller.heard(0);
        assert!(!teller.is_whole(NOW));
        teller.round(NOW, 0, 1);
        assert!(teller.is_whole(NOW));
        teller.heard(u64::from(u32::MAX));
        assert!(!teller.is_whole(NOW) && teller.gaps.is_empty());
    }

    #[test]
    fn what_cannot_be_believed_is_as_good_as_not_heard() {
        let mut teller = after_round(0..3);
        teller.heard(3);
        teller.doubt(3);
        assert!(!teller.is_whole(NOW));
        teller.round(NOW, 3, 4);
        assert!(!teller.is_whole(NOW));
    }

    #[test]
    fn an_answer_counts_if_all_of_it_was_heard() {
        let mut teller = after_round(0..3);
        teller.heard(4);
        assert_eq!(teller.ask(NOW, 5), Message::Ask { serial: 5, whole: true });
        assert!(!teller.is_due(NOW) && teller.is_due(NOW + ASK_AGAIN));
        [5, 5, 4].into_iter().for_each(|serial| teller.part(NOW, serial));
        assert_eq!(teller.told(NOW, 4, 1, true), Answer::Void, "nobody asked that");
        assert_eq!(teller.told(NOW, 5, 3, true), Answer::Short);
        assert!(!teller.is_whole(NOW));
        assert_eq!(teller.ask_again(NOW, 6), Message::Ask { serial: 6, whole: true });
        teller.part(NOW, 6);
        assert_eq!(teller.told(NOW, 6, 1, true), Answer::Full);
        assert!(teller.is_whole(NOW));
        assert_eq!(teller.told(NOW, 6, 1, true), Answer::Void, "once");
        assert_eq!(teller.ask(NOW, 7), Message::Ask { serial: 7, whole: false });
        teller.heard(6);
        assert_eq!(teller.told(NOW, 7, 0, true), Answer::Full);
        assert!(!teller.is_whole(NOW), "5 was missed after it was asked");
    }

    #[test]
    fn who_answers_short_again_and_again_is_asked_no_more() {
        let mut teller = after_round(0..3);
        teller.ask(NOW, 1);
        for serial in 2..=TRIES {
            assert_eq!(teller.told(NOW, serial - 1, 1, false), Answer::Short);
            teller.ask_again(NOW, serial);
        }
        assert_eq!(teller.told(NOW, TRIES, 1, false), Answer::Void);
    }
}
