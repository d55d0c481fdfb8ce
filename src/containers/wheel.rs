//! A hashed timer wheel (Varghese and Lauck, 1987, scheme 6): one deadline per key, set, moved and cancelled in
//! constant time.
//!
//! A deadline lies in the slot of its tick, modulo the number of slots; deadlines of later turns share slots with nearer
//! ones and are passed over until their turn comes. A bitmap of occupied slots lets time skip what is empty, 64 slots at
//! a step. Deadlines are kept exactly: nothing fires early, and nothing is rounded up.

use crate::base::Instant;
use std::time::Duration;

const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: Option<Instant>,
    slot: u32,
    next: u32,
    previous: u32,
}

const IDLE: Entry = Entry { deadline: None, slot: 0, next: NIL, previous: NIL };

/// Entries of neighbouring keys.
const ROW: usize = 64;
type Row = [Entry; ROW];

/// Deadlines for keys `0..capacity`, at most one each.
#[derive(Debug)]
pub struct Wheel {
    tick: u64,
    heads: Box<[u32]>,
    occupied: Box<[u64]>,
    /// Rows of entries; one that was never used takes no memory.
    rows: Box<[Option<Box<Row>>]>,
    /// The first tick that may hold something due; everything in earlier ticks has fired.
    cursor: u64,
    /// Where to go on in the cursor's slot, while the time is still `looked`.
    resume: u32,
    looked: Instant,
    /// No deadline is before this one; it is exact unless `stale`.
    earliest: Option<Instant>,
    stale: bool,
    armed: usize,
}

impl Wheel {
    /// A wheel of `slots` (a multiple of 64) slots of `tick` each, for `capacity` keys.
    pub fn new(tick: Duration, slots: usize, capacity: usize) -> Wheel {
        assert!(slots > 0 && slots.is_multiple_of(64), "a wheel has a multiple of 64 slots");
        let tick = u64::try_from(tick.as_nanos()).expect("a tick is shorter than centuries");
        assert!(tick > 0, "a tick takes time");
        assert!((capacity as u64) < u64::from(NIL), "a wheel has fewer than 2^32 - 1 keys");
        Wheel {
            tick,
            heads: vec![NIL; slots].into_boxed_slice(),
            occupied: vec![0; slots / 64].into_boxed_slice(),
            rows: (0..capacity.div_ceil(ROW)).map(|_| None).collect(),
            cursor: 0,
            resume: NIL,
            looked: Instant::ZERO,
            earliest: None,
            stale: false,
            armed: 0,
        }
    }

    /// Gives `key` this deadline instead of the one it may have. A deadline in the past is due at once.
    pub fn set(&mut self, key: usize, deadline: Instant) {
        self.cancel(key);
        // What is past already goes where the cursor is, for it never comes by an earlier tick again.
        let slot = self.slot_at((deadline.as_nanos() / self.tick).max(self.cursor));
        let head = self.heads[slot];
        *self.entry_mut(key) = Entry { deadline: Some(deadline), slot: slot as u32, next: head, previous: NIL };
        if head != NIL {
            self.entry_mut(head as usize).previous = key as u32;
        }
        self.heads[slot] = key as u32;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.armed += 1;
        if slot == self.slot_at(self.cursor) {
            self.resume = self.heads[slot];
        }
        if self.earliest.is_none_or(|earliest| deadline < earliest) {
            self.earliest = Some(deadline);
            self.stale = false;
        }
    }

    /// Takes the key's deadline away, if it has one.
    pub fn cancel(&mut self, key: usize) {
        let Entry { deadline: Some(deadline), slot, next, previous } = self.entry(key) else { return };
        let slot = slot as usize;
        if previous == NIL {
            self.heads[slot] = next;
        } else {
            self.entry_mut(previous as usize).next = next;
        }
        if next != NIL {
            self.entry_mut(next as usize).previous = previous;
        }
        if self.heads[slot] == NIL {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
        if self.resume == key as u32 {
            self.resume = next;
        }
        self.entry_mut(key).deadline = None;
        self.armed -= 1;
        self.stale |= self.earliest == Some(deadline);
        if self.armed == 0 {
            self.earliest = None;
        }
    }

    /// The key's deadline.
    pub fn deadline(&self, key: usize) -> Option<Instant> {
        self.entry(key).deadline
    }

    /// Number of keys with a deadline.
    pub const fn len(&self) -> usize {
        self.armed
    }

    /// Whether no key has a deadline.
    pub const fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// When to call [`Wheel::pop_due`] again. No deadline is earlier; after a cancellation this may be too early once,
    /// until `pop_due` next answers none.
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    /// A key whose deadline has come; it has none any more. Call until it answers none, or a bounded number of times:
    /// what is left stays due. One call skips empty slots 64 at a step, visits no slot twice and passes over a deadline
    /// of a later turn once per turn.
    pub fn pop_due(&mut self, now: Instant) -> Option<usize> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return None;
        }
        let today = now.as_nanos() / self.tick;
        let turn = self.heads.len() as u64;
        if today.saturating_sub(self.cursor) >= turn {
            // A whole turn has passed: every slot is looked at once.
            self.move_to(today - turn + 1);
        }
        if self.looked != now {
            self.looked = now;
            self.move_to(self.cursor);
        }
        loop {
            while self.resume != NIL {
                let key = self.resume as usize;
                let entry = self.entry(key);
                self.resume = entry.next;
                if entry.deadline.is_some_and(|deadline| deadline <= now) {
                    self.cancel(key);
                    return Some(key);
                }
            }
            if self.cursor >= today {
                break;
            }
            self.move_to(self.next_occupied(self.cursor + 1).min(today));
        }
        self.move_to(self.cursor);
        self.earliest = self.find_earliest();
        self.stale = false;
        None
    }

    fn entry(&self, key: usize) -> Entry {
        self.rows[key / ROW].as_ref().map_or(IDLE, |row| row[key % ROW])
    }

    fn entry_mut(&mut self, key: usize) -> &mut Entry {
        &mut self.rows[key / ROW].get_or_insert_with(|| Box::new([IDLE; ROW]))[key % ROW]
    }

    fn slot_at(&self, tick: u64) -> usize {
        (tick % self.heads.len() as u64) as usize
    }

    fn move_to(&mut self, tick: u64) {
        self.cursor = tick;
        self.resume = self.heads[self.slot_at(tick)];
    }

    /// The first tick from `from` on whose slot is occupied; a turn further if none is.
    fn next_occupied(&self, from: u64) -> u64 {
        let start = self.slot_at(from);
        let words = self.occupied.len();
        for step in 0..=words {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + self.heads.len() - start) % self.heads.len();
                return from + ahead as u64;
            }
        }
        from + self.heads.len() as u64
    }

    /// The exact minimum: slots in the order of time until one holds a deadline of this turn.
    fn find_earliest(&self) -> Option<Instant> {
        let mut best: Option<Instant> = None;
        let mut tick = self.cursor;
        let end = self.cursor + self.heads.len() as u64;
        if self.armed == 0 {
            return None;
        }
        loop {
            tick = self.next_occupied(tick);
            if tick >= end {
                break;
            }
            let mut at = self.heads[self.slot_at(tick)];
            while at != NIL {
                let entry = self.entry(at as usize);
                best = [best, entry.deadline].into_iter().flatten().min();
                at = entry.next;
            }
            if best.is_some_and(|best| best.as_nanos() / self.tick <= tick) {
                break;
            }
            tick += 1;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const KEYS: usize = 20;

    #[derive(Clone, Debug)]
    enum Step {
        Set(usize, u64),
        Cancel(usize),
        Pass(u64),
        Pop,
    }

    fn step() -> impl Strategy<Value = Step> {
        // With ticks of 10 and 64 slots a turn is 640: deadlines and waits reach from the past to several turns ahead.
        let far = prop_oneof![0u64..30, 0u64..700, 0u64..5000];
        let wait = prop_oneof![0u64..15, 0u64..700, 0u64..3000];
        prop_oneof![
            4 => (0..KEYS, far).prop_map(|(key, ahead)| Step::Set(key, ahead)),
            1 => (0..KEYS).prop_map(Step::Cancel),
            2 => wait.prop_map(Step::Pass),
            1 => Just(Step::Pop),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_an_ordered_map(steps in proptest::collection::vec(step(), 1..300)) {
            let mut wheel = Wheel::new(Duration::from_nanos(10), 64, KEYS);
            let mut model: BTreeMap<usize, Instant> = BTreeMap::new();
            let mut now = Instant::from_nanos(100);
            for step in steps {
                match step {
                    Step::Set(key, ahead) => {
                        let deadline = Instant::from_nanos((now.as_nanos() + ahead).saturating_sub(15));
                        wheel.set(key, deadline);
                        model.insert(key, deadline);
                    }
                    Step::Cancel(key) => {
                        wheel.cancel(key);
                        model.remove(&key);
                    }
                    Step::Pop => {
                        if let Some(key) = wheel.pop_due(now) {
                            let deadline = model.remove(&key);
                            prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                        }
                    }
                    Step::Pass(time) => {
                        now += Duration::from_nanos(time);
                        let mut fired: Vec<usize> = std::iter::from_fn(|| wheel.pop_due(now)).collect();
                        fired.sort_unstable();
                        let due: Vec<usize> = model.iter().filter(|(_, d)| **d <= now).map(|(key, _)| *key).collect();
                        model.retain(|_, deadline| *deadline > now);
                        prop_assert_eq!(fired, due);
                        if !wheel.stale {
                            prop_assert_eq!(wheel.next_deadline(), model.values().min().copied());
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                prop_assert!((0..KEYS).all(|key| wheel.deadline(key) == model.get(&key).copied()));
                let bound = wheel.next_deadline();
                prop_assert!(model.values().min().is_none_or(|min| bound.is_some_and(|bound| bound <= *min)));
            }
        }
    }

    #[test]
    fn a_stale_bound_corrects_itself() {
        let mut wheel = Wheel::new(Duration::from_millis(1), 64, 2);
        wheel.set(0, Instant::from_millis(5));
        wheel.set(1, Instant::from_millis(500));
        wheel.cancel(0);
        assert_eq!(wheel.pop_due(Instant::from_millis(5)), None);
        assert_eq!(wheel.next_deadline(), Some(Instant::from_millis(500)));
        assert_eq!(wheel.pop_due(Instant::from_millis(500)), Some(1));
        assert!(wheel.is_empty() && wheel.next_deadline().is_none());
    }
}
