//! The keys of one link: next, current, previous and older, and the life of the other end that they belong to.
//!
//! | from | to | when |
//! |---|---|---|
//! | – | current | we initiated and the response came ([`Keyring::adopt`]) |
//! | – | next | we responded ([`Keyring::offer`]) |
//! | next | current | the first packet sealed with them opened ([`Keyring::confirm`]) |
//! | current | previous, then older | others became current |
//!
//! Packets are sealed with current keys and opened with any, so nothing is lost while the ends change over. WireGuard
//! has no older keys; here they cover two handshakes that crossed: then each end may seal with what the other calls
//! previous, and must still be understood when the next change of keys moves everything on by one. All keys held, except perhaps `next`, belong to one incarnation of the other end: when it changes, older keys go at once and
//! their incarnation is remembered as retired, so that nothing late can bring it back.

use super::index::IndexTable;
use super::keypair::Keypair;
use crate::base::Instant;
use crate::base::limits::REPLAY_WINDOW;
use crate::containers::SequenceWindow;

/// Retired incarnations remembered.
const RETIRED: usize = 8;

/// Where keys are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Current,
    Next,
    Previous,
    Older,
}

impl Place {
    const ALL: [Place; 4] = [Place::Current, Place::Next, Place::Previous, Place::Older];
}

/// What became of the keys that were confirmed or adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// They belong to an incarnation not met before: numbers and replay window start anew.
    Fresh,
    /// They replace others of the same incarnation.
    Rekeyed,
    /// They are held for opening only.
    Kept,
}

pub(super) struct Keyring {
    incarnation: Option<u64>,
    retired: [Option<u64>; RETIRED],
    retirements: usize,
    /// The greatest generation that was current in this incarnation.
    generation: u32,
    /// Numbers received from this incarnation, under whichever keys.
    pub(super) window: SequenceWindow<REPLAY_WINDOW>,
    slots: [Option<Box<Keypair>>; 4],
}

impl Keyring {
    pub(super) fn new() -> Keyring {
        Keyring {
            incarnation: None,
            retired: [None; RETIRED],
            retirements: 0,
            generation: 0,
            window: SequenceWindow::new(),
            slots: [None, None, None, None],
        }
    }

    pub(super) fn get(&self, place: Place) -> Option<&Keypair> {
        self.slots[place as usize].as_deref()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Keypair> {
        self.slots[place as usize].as_deref_mut()
    }

    /// The place of the keys with this local index.
    pub(super) fn place_of(&self, index: u32) -> Option<Place> {
        Place::ALL.into_iter().find(|&place| self.get(place).is_some_and(|keys| keys.terms.local_index == index))
    }

    /// Whether keys of `incarnation` would be the first that are used.
    pub(super) fn is_new(&self, incarnation: u64) -> bool {
        self.incarnation != Some(incarnation)
    }

    /// Whether `incarnation` was followed by another.
    pub(super) fn is_retired(&self, incarnation: u64) -> bool {
        self.retired.contains(&Some(incarnation))
    }

    /// The generation of the keys to ask for.
    pub(super) const fn next_generation(&self) -> u32 {
        self.generation.saturating_add(1)
    }

    /// Holds `keys` until the other end uses them. It has given up any that it was offered before.
    pub(super) fn offer(&mut self, keys: Keypair, indices: &mut IndexTable) {
        self.put(Place::Next, Some(Box::new(keys)), indices);
    }

    /// Uses `keys` from now on; the other end holds them as its next.
    pub(super) fn adopt(&mut self, keys: Keypair, indices: &mut IndexTable) -> Change {
        let change = self.turn_to(keys.terms.incarnation, indices);
        self.advance(Box::new(keys), indices);
        change
    }

    /// The other end uses the keys it was offered: so does this end from now on, unless it has better ones.
    pub(super) fn confirm(&mut self, indices: &mut IndexTable) -> Change {
        let keys = self.slots[Place::Next as usize].take().expect("only keys that were offered are confirmed");
        let change = self.turn_to(keys.terms.incarnation, indices);
        if self.get(Place::Current).is_some_and(|current| current.terms.rank() > keys.terms.rank()) {
            self.demote(keys, indices);
            return Change::Kept;
        }
        self.advance(keys, indices);
        change
    }

    fn advance(&mut self, keys: Box<Keypair>, indices: &mut IndexTable) {
        self.generation = self.generation.max(keys.terms.generation);
        if let Some(current) = self.slots[Place::Current as usize].replace(keys) {
            self.demote(current, indices);
        }
    }

    fn demote(&mut self, keys: Box<Keypair>, indices: &mut IndexTable) {
        if let Some(previous) = self.slots[Place::Previous as usize].replace(keys) {
            self.put(Place::Older, Some(previous), indices);
        }
    }

    /// Forgets what belongs to another incarnation.
    fn turn_to(&mut self, incarnation: u64, indices: &mut IndexTable) -> Change {
        if self.incarnation == Some(incarnation) {
            return Change::Rekeyed;
        }
        assert!(!self.is_retired(incarnation), "handshakes of retired incarnations are refused");
        if let Some(old) = self.incarnation.replace(incarnation) {
            self.retired[self.retirements % RETIRED] = Some(old);
            self.retirements += 1;
        }
        self.window = SequenceWindow::new();
        self.generation = 0;
        for place in Place::ALL {
            if self.get(place).is_some_and(|keys| keys.terms.incarnation != incarnation) {
                self.put(place, None, indices);
            }
        }
        Change::Fresh
    }

    /// Drops keys that may not be used any more; true if the current ones were among them.
    pub(super) fn expire(&mut self, now: Instant, indices: &mut IndexTable) -> bool {
        let mut lost = false;
        for place in Place::ALL {
            if self.get(place).is_some_and(|keys| !keys.usable(now)) {
                self.put(place, None, indices);
                lost |= place == Place::Current;
            }
        }
        lost
    }

    /// When the next keys expire.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|keys| keys.terms.expires).min()
    }

    /// Drops all keys.
    pub(super) fn clear(&mut self, indices: &mut IndexTable) {
        for place in Place::ALL {
            self.put(place, None, indices);
        }
    }

    fn put(&mut self, place: Place, keys: Option<Box<Keypair>>, indices: &mut IndexTable) {
        if let Some(old) = std::mem::replace(&mut self.slots[place as usize], keys) {
            indices.release(old.terms.local_index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{LinkId, Rng};
    use crate::proto::security::keypair::Terms;
    use crate::proto::security::noise::Secrets;
    use crate::wire::handshake::Suite;
    use zeroize::Zeroizing;

    struct Bench {
        ring: Keyring,
        indices: IndexTable,
        rng: Rng,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { ring: Keyring::new(), indices: IndexTable::new(), rng: Rng::from_u64(1) }
        }

        fn keys(&mut self, incarnation: u64, expires_ms: u64) -> Keypair {
            self.ranked(incarnation, expires_ms, self.ring.next_generation(), true)
        }

        fn ranked(&mut self, incarnation: u64, expires_ms: u64, generation: u32, by_lower: bool) -> Keypair {
            let terms = Terms {
                local_index: self.indices.draw(&mut self.rng, LinkId(0)),
                remote_index: 0,
                incarnation,
                generation,
                by_lower,
                initiator: true,
                expires: Instant::from_millis(expires_ms),
            };
            let secrets = Secrets { seal: Zeroizing::new([1; 32]), open: Zeroizing::new([2; 32]) };
            Keypair::new(terms, Suite::ChaCha20Poly1305, &secrets)
        }

        fn adopt(&mut self, incarnation: u64, expires_ms: u64) -> (u32, Change) {
            let keys = self.keys(incarnation, expires_ms);
            let index = keys.terms.local_index;
            (index, self.ring.adopt(keys, &mut self.indices))
        }

        fn places<const N: usize>(&self, indices: [u32; N]) -> [Option<Place>; N] {
            indices.map(|index| self.ring.place_of(index))
        }

        fn offer(&mut self, incarnation: u64, expires_ms: u64) -> u32 {
            let keys = self.keys(incarnation, expires_ms);
            let index = keys.terms.local_index;
            self.ring.offer(keys, &mut self.indices);
            index
        }
    }

    #[test]
    fn keys_move_through_their_places_and_give_their_indices_back() {
        let mut bench = Bench::new();
        let (a, change) = bench.adopt(1, 100);
        assert_eq!(change, Change::Fresh);
        let b = bench.offer(1, 200);
        assert_eq!(bench.places([a, b]), [Some(Place::Current), Some(Place::Next)]);
        assert_eq!(bench.ring.confirm(&mut bench.indices), Change::Rekeyed);
        assert_eq!(bench.places([a, b]), [Some(Place::Previous), Some(Place::Current)]);
        let (c, change) = bench.adopt(1, 300);
        assert_eq!(change, Change::Rekeyed);
        assert_eq!(bench.places([a, b, c]), [Some(Place::Older), Some(Place::Previous), Some(Place::Current)]);
        let (d, _) = bench.adopt(1, 400);
        assert_eq!(bench.places([a, b, c, d]), [None, Some(Place::Older), Some(Place::Previous), Some(Place::Current)]);
        assert_eq!(bench.indices.len(), 3);
        assert_eq!(bench.ring.next_expiry(), Some(Instant::from_millis(200)));
        assert!(!bench.ring.expire(Instant::from_millis(399), &mut bench.indices));
        assert!(bench.ring.expire(Instant::from_millis(400), &mut bench.indices));
        bench.offer(1, 500);
        bench.offer(1, 500);
        assert_eq!(bench.indices.len(), 1);
        bench.ring.clear(&mut bench.indices);
        assert_eq!(bench.indices.len(), 0);
    }

    #[test]
    fn of_crossed_handshakes_both_ends_keep_the_same() {
        // Ours was adopted, the other end's was offered and is used; and as the other end sees it.
        for (ours_is_lower, change) in [(true, Change::Kept), (false, Change::Rekeyed)] {
            let mut bench = Bench::new();
            let (first, _) = bench.adopt(1, 100);
            let generation = bench.ring.next_generation();
            let (ours, theirs) =
                (bench.ranked(1, 100, generation, ours_is_lower), bench.ranked(1, 100, generation, !ours_is_lower));
            let (kept, given) = (ours.terms.local_index, theirs.terms.local_index);
            bench.ring.offer(theirs, &mut bench.indices);
            bench.ring.adopt(ours, &mut bench.indices);
            assert_eq!(bench.ring.confirm(&mut bench.indices), change);
            let (current, previous) = if ours_is_lower { (kept, given) } else { (given, kept) };
            let places = bench.places([current, previous, first]);
            assert_eq!(places, [Some(Place::Current), Some(Place::Previous), Some(Place::Older)]);
            assert_eq!(bench.ring.next_generation(), generation + 1);
        }
    }

    #[test]
    fn a_new_incarnation_ends_everything_older() {
        let mut bench = Bench::new();
        bench.adopt(1, 100);
        bench.adopt(1, 100);
        bench.ring.window.insert(500);
        let old = bench.offer(1, 100);
        let (new, change) = bench.adopt(2, 100);
        assert_eq!((change, bench.ring.window.next()), (Change::Fresh, 0));
        assert_eq!((bench.ring.place_of(old), bench.ring.place_of(new)), (None, Some(Place::Current)));
        assert_eq!(bench.indices.len(), 1);
        assert!(bench.ring.is_retired(1) && !bench.ring.is_retired(2) && bench.ring.is_new(3));
    }

    #[test]
    fn an_offer_of_the_new_incarnation_survives_the_change() {
        let mut bench = Bench::new();
        bench.adopt(1, 100);
        let offered = bench.offer(2, 100);
        assert_eq!(bench.adopt(2, 100).1, Change::Fresh);
        assert_eq!(bench.ring.place_of(offered), Some(Place::Next));
        assert_eq!(bench.ring.confirm(&mut bench.indices), Change::Rekeyed);
    }
}
