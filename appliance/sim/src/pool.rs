//! The buffer pool of a simulated appliance, and the watch over its rules: who holds a buffer owns it, nobody touches one
//! that a device works on, all come home. A broken rule panics on the spot, where the stack says whose fault it is.
//!
//! Freed blocks are filled with [`POISON`] and given out again first, so that who still reads one finds bytes that no oracle
//! permits, and who writes one is found out when it is next taken.

use base::{BLOCK, Block};
use ports::buffers::HEADROOM;
use ports::{Buffer, BufferId, Buffers};

/// What fills a block that nobody owns.
pub const POISON: u8 = 0xdd;

#[derive(Clone, Debug, Default)]
struct Place {
    taken: bool,
    // Devices that read this block out (a write in flight, one per log copy) and whether one fills it.
    written_out: u32,
    filled: bool,
    next: Option<BufferId>,
}

/// The pool, shared by all shards of the simulated appliance.
#[derive(Debug)]
pub struct SimPool {
    blocks: Vec<Box<Block>>,
    headrooms: Vec<[u8; HEADROOM]>,
    places: Vec<Place>,
    free: Vec<BufferId>,
    capacity: usize,
}

impl SimPool {
    /// A pool of so many blocks. Memory for one is taken when it is first used: a sweep starts thousands of appliances.
    pub fn new(blocks: usize) -> Self {
        assert!(u32::try_from(blocks).is_ok(), "a pool has fewer than 2^32 blocks");
        Self { blocks: Vec::new(), headrooms: Vec::new(), places: Vec::new(), free: Vec::new(), capacity: blocks }
    }

    /// Buffers that somebody owns.
    pub fn outstanding(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A device begins to read this block out.
    pub fn begin_write_out(&mut self, buffer: BufferId) {
        let place = self.taken(buffer);
        assert!(!place.filled, "{buffer:?} is written to a device while another fills it");
        place.written_out += 1;
    }

    /// A device has read this block out.
    pub fn end_write_out(&mut self, buffer: BufferId) {
        let place = self.taken(buffer);
        assert!(place.written_out > 0, "{buffer:?} is not being written");
        place.written_out -= 1;
    }

    /// A device begins to fill this block.
    pub fn begin_fill(&mut self, buffer: BufferId) {
        let place = self.taken(buffer);
        assert!(!place.filled && place.written_out == 0, "{buffer:?} is filled while a device works on it");
        place.filled = true;
    }

    /// A device has filled this block, or failed to and left `None`: then its content is anything.
    pub fn end_fill(&mut self, buffer: BufferId, content: Option<&Block>) {
        let place = self.taken(buffer);
        assert!(place.filled, "{buffer:?} is not being filled");
        place.filled = false;
        match content {
            Some(content) => self.blocks[buffer.0 as usize].copy_from_slice(content),
            None => self.blocks[buffer.0 as usize].fill(POISON),
        }
    }

    fn taken(&mut self, buffer: BufferId) -> &mut Place {
        let place = &mut self.places[buffer.0 as usize];
        assert!(place.taken, "{buffer:?} is used though nobody owns it");
        place
    }

    fn assert_readable(&self, buffer: BufferId) {
        let place = &self.places[buffer.0 as usize];
        assert!(place.taken, "{buffer:?} is read though nobody owns it");
        assert!(!place.filled, "{buffer:?} is read while a device fills it");
    }

    fn assert_changeable(&self, buffer: BufferId) {
        self.assert_readable(buffer);
        assert!(self.places[buffer.0 as usize].written_out == 0, "{buffer:?} is changed while a device writes it");
    }
}

impl Buffers for SimPool {
    fn alloc(&mut self) -> Option<Buffer> {
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.blocks.len() == self.capacity => return None,
            None => {
                self.blocks.push(Box::new([POISON; BLOCK]));
                self.headrooms.push([POISON; HEADROOM]);
                self.places.push(Place::default());
                BufferId(self.blocks.len() as u32 - 1)
            }
        };
        let index = id.0 as usize;
        assert!(self.blocks[index].iter().all(|&byte| byte == POISON), "{id:?} was changed after it was freed");
        let place = &mut self.places[index];
        assert!(!place.taken, "a free buffer has no owner");
        *place = Place { taken: true, ..Place::default() };
        Some(Buffer::from_id(id))
    }

    fn free(&mut self, buffer: Buffer) {
        let id = buffer.id();
        let place = self.taken(id);
        assert!(!place.filled && place.written_out == 0, "{id:?} is freed while a device works on it");
        *place = Place::default();
        self.blocks[id.0 as usize].fill(POISON);
        self.headrooms[id.0 as usize] = [POISON; HEADROOM];
        self.free.push(id);
    }

    fn available(&self) -> usize {
        self.free.len() + self.capacity - self.blocks.len()
    }

    fn bytes(&self, buffer: BufferId) -> &Block {
        self.assert_readable(buffer);
        &self.blocks[buffer.0 as usize]
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut Block {
        self.assert_changeable(buffer);
        &mut self.blocks[buffer.0 as usize]
    }

    fn pair(&mut self, change: BufferId, read: BufferId) -> (&mut Block, &Block) {
        self.assert_changeable(change);
        self.assert_readable(read);
        let [change, read] =
            self.blocks.get_disjoint_mut([change.0 as usize, read.0 as usize]).expect("two different buffers");
        (change, read)
    }

    fn headroom(&mut self, buffer: BufferId) -> &mut [u8; HEADROOM] {
        self.taken(buffer);
        &mut self.headrooms[buffer.0 as usize]
    }

    fn next(&self, buffer: BufferId) -> Option<BufferId> {
        assert!(self.places[buffer.0 as usize].taken, "{buffer:?} is followed though nobody owns it");
        self.places[buffer.0 as usize].next
    }

    fn set_next(&mut self, buffer: BufferId, next: Option<BufferId>) {
        self.taken(buffer).next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ports::BufferList;

    #[test]
    fn buffers_come_home_and_are_counted() {
        let mut pool = SimPool::new(4);
        let mut list = BufferList::alloc(&mut pool, 3).expect("four are free");
        assert_eq!((pool.outstanding(), pool.available()), (3, 1));
        assert_eq!(BufferList::alloc(&mut pool, 2), None);
        let first = list.pop(&pool).expect("three are there");
        pool.bytes_mut(first.id()).fill(1);
        pool.free(first);
        list.free(&mut pool);
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    fn a_read_that_failed_leaves_nothing_that_could_pass_for_data() {
        let mut pool = SimPool::new(1);
        let buffer = pool.alloc().expect("one is free");
        pool.begin_fill(buffer.id());
        pool.end_fill(buffer.id(), Some(&[7; BLOCK]));
        assert_eq!(pool.bytes(buffer.id())[0], 7);
        pool.begin_fill(buffer.id());
        pool.end_fill(buffer.id(), None);
        assert_eq!(pool.bytes(buffer.id())[0], POISON);
        pool.free(buffer);
    }

    #[test]
    #[should_panic(expected = "freed while a device works on it")]
    fn freeing_under_a_device_is_found() {
        let mut pool = SimPool::new(1);
        let buffer = pool.alloc().expect("one is free");
        pool.begin_write_out(buffer.id());
        pool.free(buffer);
    }

    #[test]
    #[should_panic(expected = "changed while a device writes it")]
    fn changing_under_a_device_is_found() {
        let mut pool = SimPool::new(1);
        let buffer = pool.alloc().expect("one is free");
        pool.begin_write_out(buffer.id());
        pool.bytes_mut(buffer.id())[0] = 1;
    }

    #[test]
    #[should_panic(expected = "nobody owns it")]
    fn freeing_twice_is_found() {
        let mut pool = SimPool::new(2);
        let buffer = pool.alloc().expect("one is free");
        let again = Buffer::from_id(buffer.id());
        pool.free(buffer);
        pool.free(again);
    }
}
