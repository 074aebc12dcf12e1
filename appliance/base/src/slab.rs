//! A bounded table whose keys carry a generation: a key of something that has gone finds nothing, even after its place
//! has been taken again. All memory is taken when the table is made.

use core::marker::PhantomData;

/// The key of an entry: its place and the generation of that place.
pub struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The key as one number, to travel through a tag.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The key that [`Key::to_bits`] made.
    pub const fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32, of: PhantomData }
    }

    /// The place in the table, less than its capacity.
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}

impl<T> Eq for Key<T> {}

impl<T> core::fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Key({}.{})", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// The table.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// An empty table of at most `capacity` entries.
    pub fn new(capacity: usize) -> Self {
        let count = u32::try_from(capacity).expect("a slab has fewer than 2^32 places");
        Self {
            places: (0..capacity).map(|_| Place { generation: 1, value: None }).collect(),
            free: (0..count).rev().collect(),
        }
    }

    /// Puts a value into a free place, or gives it back if there is none.
    pub fn insert(&mut self, value: T) -> Result<Key<T>, T> {
        let Some(index) = self.free.pop() else { return Err(value) };
        let place = &mut self.places[index as usize];
        place.value = Some(value);
        Ok(Key { index, generation: place.generation, of: PhantomData })
    }

    /// Takes an entry out; its key is dead from then on.
    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let place = self.places.get_mut(key.index())?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1).max(1);
        self.free.push(key.index);
        Some(value)
    }

    /// The entry of a key, if it is still there.
    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let place = self.places.get(key.index())?;
        if place.generation == key.generation { place.value.as_ref() } else { None }
    }

    /// The entry of a key, to change it.
    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let place = self.places.get_mut(key.index())?;
        if place.generation == key.generation { place.value.as_mut() } else { None }
    }

    /// The entry at a place, with its key.
    pub fn at(&self, place: usize) -> Option<(Key<T>, &T)> {
        let entry = &self.places[place];
        let key = Key { index: place as u32, generation: entry.generation, of: PhantomData };
        entry.value.as_ref().map(|value| (key, value))
    }

    /// All entries in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let key = Key { index: index as u32, generation: place.generation, of: PhantomData };
            place.value.as_ref().map(|value| (key, value))
        })
    }

    /// All entries in the order of their places, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key<T>, &mut T)> {
        self.places.iter_mut().enumerate().filter_map(|(index, place)| {
            let key = Key { index: index as u32, generation: place.generation, of: PhantomData };
            place.value.as_mut().map(|value| (key, value))
        })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an insert would be refused.
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// The most it holds.
    pub fn capacity(&self) -> usize {
        self.places.len()
    }
}

impl<T> core::ops::Index<Key<T>> for Slab<T> {
    type Output = T;

    fn index(&self, key: Key<T>) -> &T {
        self.get(key).expect("the key of a live entry")
    }
}

impl<T> core::ops::IndexMut<Key<T>> for Slab<T> {
    fn index_mut(&mut self, key: Key<T>) -> &mut T {
        self.get_mut(key).expect("the key of a live entry")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_key_finds_nothing_even_after_its_place_is_taken_again() {
        let mut slab = Slab::new(1);
        let first = slab.insert("a").expect("a free place");
        assert_eq!(slab.insert("b"), Err("b"));
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert("c").expect("a free place");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab[second], "c");
        assert_eq!(Key::from_bits(second.to_bits()), second);
        assert_eq!(slab.len(), 1);
    }
}
