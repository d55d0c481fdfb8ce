//! A bounded table of values found by a small stable index.

/// At most a fixed number of values. Grows to what is used, then reuses.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
    capacity: usize,
}

impl<T> Slab<T> {
    pub(super) fn new(capacity: usize) -> Slab<T> {
        assert!(u32::try_from(capacity).is_ok(), "an index has 32 bits");
        Slab { places: Vec::new(), free: Vec::new(), capacity }
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
        Some((self.places.len() - 1) as u32)
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.places.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(value)
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
