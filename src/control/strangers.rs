//! Which strangers the log has told of lately.

use crate::base::Instant;
use std::time::Duration;

/// A stranger who goes on asking is told of again after so long.
const AGAIN: Duration = Duration::from_secs(600);
/// Strangers remembered. While so many were told of lately, no others are: they may be one that makes up keys.
const REMEMBERED: usize = 64;

/// Who asked, by the key that asked, and when it was told.
#[derive(Debug, Default)]
pub(super) struct Strangers(Vec<([u8; 32], Instant)>);

impl Strangers {
    /// Whether the owner of `key` is to be told of; then it was.
    pub(super) fn is_news(&mut self, now: Instant, key: [u8; 32]) -> bool {
        self.0.retain(|&(_, at)| now.since(at) < AGAIN);
        let news = self.0.len() < REMEMBERED && !self.0.iter().any(|&(known, _)| known == key);
        if news {
            self.0.push((key, now));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_once_in_a_while_and_not_too_many() {
        let mut strangers = Strangers::default();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        assert!(strangers.is_news(at(0), [1; 32]) && !strangers.is_news(at(599), [1; 32]));
        assert!(strangers.is_news(at(600), [1; 32]));
        let told = (2..=255).filter(|&key| strangers.is_news(at(600), [key; 32])).count();
        assert_eq!(told, REMEMBERED - 1);
        assert!(strangers.is_news(at(1200), [255; 32]), "the others are forgotten");
    }
}
