//! What may be so for a while.

use crate::base::Instant;
use std::collections::BTreeMap;

/// Since when each of many things has been so.
#[derive(Debug)]
pub(super) struct Lasting<K>(BTreeMap<K, Instant>);

impl<K> Default for Lasting<K> {
    fn default() -> Lasting<K> {
        Lasting(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Lasting<K> {
    /// These are so now, and no others.
    pub(super) fn are(&mut self, now: Instant, so: impl Iterator<Item = K>) {
        let before = std::mem::take(&mut self.0);
        self.0 = so.map(|what| (what, before.get(&what).copied().unwrap_or(now))).collect();
    }

    /// What is so, and since when.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, Instant)> + '_ {
        self.0.iter().map(|(&what, &since)| (what, since))
    }

    /// Since when it has been so, if it is.
    pub(super) fn since(&self, what: K) -> Option<Instant> {
        self.0.get(&what).copied()
    }
}
