//! A bounded table of values found by a small stable index.

use std::collections::VecDeque;

/// Names a value by its place and by how often the place was emptied before: it never names the value's successor there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    index: u32,
    generation: u32,
}

/// At most a fixed number of values. Grows to what is used, then reuses.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    capacity: usize,
}

impl<T> Slab<T> {
    pub(super) fn new(capacity: usize) -> Slab<T> {
        assert!(u32::try_from(capacity).is_ok(), "an index has 32 bits");
        Slab { places: Vec::new(), generations: Vec::new(), free: Vec::new(), capacity }
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.places.len() == self.capacity
    }

    /// The index of the value, or none if the table is full.
    pub(super) fn insert(&mut self, value: T) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            self.places[index as usize] = Some(value);
            return Some(index);
        }
        if self.places.len() == self.capacity {
            return None;
        }
        self.places.push(Some(value));
        self.generations.push(0);
        Some((self.places.len() - 1) as u32)
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.places.get_mut(index as usize)?.take()?;
        let generation = &mut self.generations[index as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    /// A ticket for the value, to be kept where it may outlive it.
    pub(super) fn ticket(&self, index: u32) -> Ticket {
        assert!(self.get(index).is_some(), "a ticket is for a value that is there");
        Ticket { index, generation: self.generations[index as usize] }
    }

    /// Appends a ticket to a list in which each value stands once at most. Tickets of removed values make way for it when
    /// the list is as long as this table may be, so it never gets longer.
    pub(super) fn enlist(&self, list: &mut VecDeque<Ticket>, index: u32) {
        if list.len() >= self.capacity {
            list.retain(|ticket| self.redeem(*ticket).is_some());
        }
        assert!(list.len() < self.capacity, "a value stands in a list once");
        list.push_back(self.ticket(index));
    }

    /// Values held.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The index of the ticket's value; none if it was removed.
    pub(super) fn redeem(&self, ticket: Ticket) -> Option<u32> {
        let Ticket { index, generation } = ticket;
        (self.generations[index as usize] == generation).then_some(index)
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| Some((index as u32, place.as_ref()?)))
    }

    /// One past the largest index ever used.
    pub(super) fn end(&self) -> u32 {
        self.places.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_no_more_tickets_than_there_may_be_values() {
        let (mut slab, mut list) = (Slab::new(2), VecDeque::new());
        let stays = slab.insert('a').expect("room");
        slab.enlist(&mut list, stays);
        for _ in 0..5 {
            let goes = slab.insert('b').expect("room");
            slab.enlist(&mut list, goes);
            slab.remove(goes);
            assert!(list.len() <= 2);
        }
        assert_eq!((list.pop_front().and_then(|ticket| slab.redeem(ticket)), slab.len()), (Some(stays), 1));
    }

    #[test]
    fn a_ticket_never_names_a_successor() {
        let mut slab = Slab::new(1);
        let first = slab.insert('a').expect("room");
        let ticket = slab.ticket(first);
        assert_eq!(slab.redeem(ticket), Some(first));
        assert_eq!(slab.remove(first), Some('a'));
        assert_eq!(slab.redeem(ticket), None);
        let second = slab.insert('b').expect("room");
        assert_eq!(first, second, "the place is used again");
        assert_eq!(slab.redeem(ticket), None);
        assert_eq!(slab.redeem(slab.ticket(second)), Some(second));
    }
}
