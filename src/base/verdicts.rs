//! Signatures checked before, for the simulator.
//!
//! A simulation of a thousand routers checks every advertisement a thousand times in one thread, and the answer is the
//! same each time. A thread that calls [`remember`] keeps the last answers, good and bad; what is asked again with the
//! same key, message and signature, compared byte for byte, is answered from there. No other thread pays or remembers
//! anything: a router has no use for it, since it never checks the same thing twice.

use super::identity::SIGNATURE_LEN;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

/// A check and its outcome.
#[derive(Debug)]
struct Verdict {
    signer: [u8; 32],
    message: Box<[u8]>,
    signature: [u8; SIGNATURE_LEN],
    good: bool,
}

/// The last checks of a thread.
#[derive(Debug)]
struct Verdicts {
    most: usize,
    /// By the first bytes of the signature, of those that have them in common the last.
    by_head: BTreeMap<u64, Verdict>,
    /// Oldest first.
    order: VecDeque<u64>,
}

thread_local! {
    static VERDICTS: RefCell<Option<Verdicts>> = const { RefCell::new(None) };
}

/// From now on this thread remembers its last `most` checks; none: it forgets them all.
pub fn remember(most: Option<usize>) {
    let fresh = |most| Verdicts { most, by_head: BTreeMap::new(), order: VecDeque::new() };
    VERDICTS.with_borrow_mut(|verdicts| match most {
        // What is remembered stays true.
        Some(most) => verdicts.get_or_insert_with(|| fresh(most)).most = most.max(1),
        None => *verdicts = None,
    });
}

/// Checks that this thread remembers.
pub fn remembered() -> usize {
    VERDICTS.with_borrow(|verdicts| verdicts.as_ref().map_or(0, |verdicts| verdicts.by_head.len()))
}

/// What `check` says, or said before, of this signature.
pub(super) fn of(
    signer: &[u8; 32],
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
    check: impl FnOnce() -> bool,
) -> bool {
    VERDICTS.with_borrow_mut(|verdicts| {
        let Some(verdicts) = verdicts else { return check() };
        let (head, _) = signature.split_first_chunk().expect("a signature has 64 bytes");
        let head = u64::from_be_bytes(*head);
        if let Some(known) = verdicts.by_head.get(&head)
            && (&known.signer, &*known.message, &known.signature) == (signer, message, signature)
        {
            return known.good;
        }
        let good = check();
        let verdict = Verdict { signer: *signer, message: message.into(), signature: *signature, good };
        if verdicts.by_head.insert(head, verdict).is_none() {
            verdicts.order.push_back(head);
        }
        while verdicts.order.len() > verdicts.most {
            let oldest = verdicts.order.pop_front().expect("more than one");
            verdicts.by_head.remove(&oldest);
        }
        good
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Identity;

    #[test]
    fn the_answers_are_those_of_a_thread_that_remembers_nothing() {
        let (one, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let signature = one.sign(b"message");
        let mut forged = signature;
        // The head, by which it is found, stays what it was.
        forged[63] ^= 1;
        let cases: [(&Identity, &[u8], _); 5] = [
            (&one, b"message", signature),
            (&one, b"massage", signature),
            (&one, b"message", forged),
            (&other, b"message", signature),
            (&one, b"messag", signature),
        ];
        let answers = || cases.map(|(signer, message, signature)| signer.public().verify(message, &signature));
        let expected = [true, false, false, false, false];
        assert_eq!((answers(), remembered()), (expected, 0));
        remember(Some(4));
        // All of them share one place, so each pushes out the one before; then each is asked twice in a row.
        assert_eq!((answers(), answers()), (expected, expected));
        for (signer, message, signature) in cases {
            let twice = [(); 2].map(|()| signer.public().verify(message, &signature));
            assert_eq!(twice[0], twice[1]);
        }
        assert_eq!(remembered(), 1);
        remember(None);
    }

    #[test]
    fn an_answer_comes_from_memory_and_the_oldest_is_forgotten() {
        remember(Some(2));
        let asked =
            |byte: u8, answer: Option<bool>| of(&[byte; 32], &[byte], &[byte; 64], || answer.expect("not asked"));
        assert!(!asked(1, Some(false)) && asked(2, Some(true)));
        assert!(!asked(1, None) && asked(2, None), "both answers are remembered");
        assert!(asked(3, Some(true)));
        assert_eq!(remembered(), 2);
        assert!(asked(1, Some(true)), "it was forgotten, and is asked for anew");
        remember(None);
    }
}
