//! Buffers of one block each, from one pool with one mapping for DMA.
//!
//! A [`Buffer`] is the right to one block of the pool and cannot be copied: who holds it owns the block. It goes to another
//! shard in a message, as the head of a [`BufferList`], and can be freed on any shard. Beside each block the pool keeps a
//! link (for lists) and [`HEADROOM`] bytes that no device sees, in which a transport may build the header of a record that
//! carries the block.

use base::Block;

/// Bytes of headroom of each buffer: a TLS record header and an explicit nonce, a PDU header, or a tag.
pub const HEADROOM: usize = 64;

/// Names a buffer without owning it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// The right to one block of the pool.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer that is dropped never comes home"]
pub struct Buffer(BufferId);

impl Buffer {
    /// Takes an id as the right to its block. Only pools, and lists that gave the right away as an id, may do so.
    pub const fn from_id(id: BufferId) -> Self {
        Self(id)
    }

    /// The buffer's name, for requests to devices and streams.
    pub const fn id(&self) -> BufferId {
        self.0
    }
}

/// The pool as a shard sees it.
pub trait Buffers {
    /// Takes a buffer with unspecified content.
    fn alloc(&mut self) -> Option<Buffer>;

    /// Gives a buffer back.
    fn free(&mut self, buffer: Buffer);

    /// Buffers that this shard could take now, at least.
    fn available(&self) -> usize;

    /// The content.
    fn bytes(&self, buffer: BufferId) -> &Block;

    /// The content, to change it.
    fn bytes_mut(&mut self, buffer: BufferId) -> &mut Block;

    /// Two different buffers at once: one to change, one to read.
    ///
    /// # Panics
    /// If they are the same.
    fn pair(&mut self, change: BufferId, read: BufferId) -> (&mut Block, &Block);

    /// The headroom of a buffer.
    fn headroom(&mut self, buffer: BufferId) -> &mut [u8; HEADROOM];

    /// The buffer linked behind this one.
    fn next(&self, buffer: BufferId) -> Option<BufferId>;

    /// Links another buffer, or none, behind this one.
    fn set_next(&mut self, buffer: BufferId, next: Option<BufferId>);
}

/// Buffers linked in order: owns each of them, fits a message. Give them up with [`BufferList::pop`] or
/// [`BufferList::free`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BufferList {
    ends: Option<(BufferId, BufferId)>,
    length: u32,
}

impl BufferList {
    /// No buffers.
    pub const EMPTY: Self = Self { ends: None, length: 0 };

    /// How many buffers.
    pub const fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The first buffer's name.
    pub fn first(&self) -> Option<BufferId> {
        self.ends.map(|(first, _)| first)
    }

    /// The last buffer's name.
    pub fn last(&self) -> Option<BufferId> {
        self.ends.map(|(_, last)| last)
    }

    /// Takes `count` buffers from the pool, or none at all.
    pub fn alloc(pool: &mut impl Buffers, count: usize) -> Option<Self> {
        if pool.available() < count {
            return None;
        }
        let mut list = Self::EMPTY;
        for _ in 0..count {
            let Some(buffer) = pool.alloc() else {
                list.free(pool);
                return None;
            };
            list.push(pool, buffer);
        }
        Some(list)
    }

    /// Puts a buffer at the end.
    #[allow(clippy::needless_pass_by_value, reason = "the right to the buffer is given away")]
    pub fn push(&mut self, pool: &mut impl Buffers, buffer: Buffer) {
        let id = buffer.id();
        pool.set_next(id, None);
        self.ends = match self.ends {
            None => Some((id, id)),
            Some((first, last)) => {
                pool.set_next(last, Some(id));
                Some((first, id))
            }
        };
        self.length += 1;
    }

    /// Takes the first buffer.
    pub fn pop(&mut self, pool: &impl Buffers) -> Option<Buffer> {
        let (first, last) = self.ends?;
        self.ends = if first == last { None } else { pool.next(first).map(|next| (next, last)) };
        self.length -= 1;
        Some(Buffer::from_id(first))
    }

    /// Takes the first `count` buffers, or all if there are fewer, as a list of their own.
    pub fn split_front(&mut self, pool: &mut impl Buffers, count: usize) -> Self {
        let mut front = Self::EMPTY;
        for _ in 0..count {
            let Some(buffer) = self.pop(pool) else { break };
            front.push(pool, buffer);
        }
        front
    }

    /// Puts all buffers of another list behind these.
    #[allow(clippy::needless_pass_by_value, reason = "the right to the buffers is given away")]
    pub fn append(&mut self, pool: &mut impl Buffers, other: Self) {
        let Some((other_first, other_last)) = other.ends else { return };
        self.ends = match self.ends {
            None => other.ends,
            Some((first, last)) => {
                pool.set_next(last, Some(other_first));
                Some((first, other_last))
            }
        };
        self.length += other.length;
    }

    /// The names of the buffers in order.
    pub fn ids<'a, B: Buffers>(&self, pool: &'a B) -> impl Iterator<Item = BufferId> + use<'a, B> {
        let mut at = self.first();
        (0..self.length).map(move |_| {
            let id = at.expect("a list has as many buffers as it says");
            at = pool.next(id);
            id
        })
    }

    /// Gives all buffers back to the pool.
    pub fn free(mut self, pool: &mut impl Buffers) {
        while let Some(buffer) = self.pop(pool) {
            pool.free(buffer);
        }
    }
}
