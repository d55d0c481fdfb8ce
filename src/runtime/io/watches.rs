//! Watched sessions, and the short names the kernel knows them by.
//!
//! A session's id takes 64 bits, and an event of the kernel carries 64 bits that must also say what kind of event it is.
//! So each watch has a token of 56 bits: its slot, and a generation that tells it from earlier users of the slot.

use crate::base::SessionId;
use std::collections::BTreeMap;

/// Bits of a token.
const SLOT_BITS: u32 = 32;
const GENERATION_MASK: u32 = 0x00ff_ffff;

/// A watch in its slot.
#[derive(Debug)]
struct Slot<W> {
    generation: u32,
    used: Option<(SessionId, W)>,
}

/// All watches of a backend.
#[derive(Debug)]
pub(super) struct Watches<W> {
    slots: Vec<Slot<W>>,
    free: Vec<usize>,
    by_session: BTreeMap<SessionId, usize>,
}

impl<W> Watches<W> {
    /// None yet.
    pub(super) fn new() -> Watches<W> {
        Watches { slots: Vec::new(), free: Vec::new(), by_session: BTreeMap::new() }
    }

    fn token(&self, slot: usize) -> u64 {
        u64::from(self.slots[slot].generation) << SLOT_BITS | slot as u64
    }

    /// Adds a session, which must be new; answers its token.
    pub(super) fn insert(&mut self, session: SessionId, watch: W) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, used: None });
            self.slots.len() - 1
        });
        self.slots[slot].used = Some((session, watch));
        let earlier = self.by_session.insert(session, slot);
        assert!(earlier.is_none(), "a session is watched once");
        self.token(slot)
    }

    /// A session's token and watch.
    pub(super) fn of(&mut self, session: SessionId) -> Option<(u64, &mut W)> {
        let slot = *self.by_session.get(&session)?;
        let token = self.token(slot);
        let (_, watch) = self.slots[slot].used.as_mut()?;
        Some((token, watch))
    }

    /// The session with this token, unless it was removed.
    pub(super) fn find(&mut self, token: u64) -> Option<(SessionId, &mut W)> {
        let slot = self.slots.get_mut((token & u64::from(u32::MAX)) as usize)?;
        let (session, watch) = slot.used.as_mut().filter(|_| token >> SLOT_BITS == u64::from(slot.generation))?;
        Some((*session, watch))
    }

    /// Removes a session; answers its token and watch.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<(u64, W)> {
        let slot = self.by_session.remove(&session)?;
        let token = self.token(slot);
        let (_, watch) = self.slots[slot].used.take()?;
        self.slots[slot].generation = (self.slots[slot].generation + 1) & GENERATION_MASK;
        self.free.push(slot);
        Some((token, watch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_short_and_die_with_their_watch() {
        let mut watches = Watches::new();
        let (a, b) = (SessionId(u64::MAX), SessionId(1 << 63));
        let (first, second) = (watches.insert(a, 'a'), watches.insert(b, 'b'));
        assert!(first < 1 << 56 && second < 1 << 56 && first != second);
        assert_eq!(watches.find(second), Some((b, &mut 'b')));
        assert_eq!(watches.of(a), Some((first, &mut 'a')));
        assert_eq!(watches.remove(a), Some((first, 'a')));
        assert_eq!(watches.remove(a), None);
        assert_eq!(watches.of(a), None);
        assert_eq!(watches.find(first), None);
        let third = watches.insert(SessionId(5), 'c');
        assert_eq!(watches.find(first), None, "the slot's next user has another token");
        assert_eq!(watches.find(third), Some((SessionId(5), &mut 'c')));
        assert_eq!(watches.find(77), None);
    }
}
