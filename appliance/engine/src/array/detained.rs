//! Buffers on their way home. A buffer that a device may still read or write into, though nobody waits for that any more, is
//! detained until the device has answered: given away, it would change under the device, or under whoever has it next. What
//! was set aside is made up for meanwhile from the pool, so that nobody else waits for the device either.

use ports::{Buffer, Ports};

use super::{ArrayShard, Work};

/// Where a buffer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// To the pool.
    Pool,
    /// To what the array's part has set aside.
    Scratch,
    /// To what its walks have.
    Walks,
    /// To what checksum blocks are written from.
    Checksums,
}

/// What cannot go home yet.
#[derive(Debug, Default)]
pub(crate) struct Detained {
    buffers: Vec<(Buffer, Home)>,
    /// The count of `Operations::let_go` at the last look.
    looked: u64,
}

impl ArrayShard {
    /// A buffer is needed no longer.
    pub(crate) fn send_home<P: Ports>(&mut self, work: &mut Work<'_, P>, buffer: Buffer, home: Home) {
        if work.operations.is_held(buffer.id()) {
            self.detained.buffers.push((buffer, home));
            return;
        }
        match home {
            Home::Pool => work.ports.free(buffer),
            Home::Scratch => self.scratch.push(buffer),
            Home::Walks => self.walker.take_back(buffer),
            Home::Checksums => self.take_back_checksum_buffer(buffer),
        }
    }

    /// Sends home what is detained no longer.
    pub(crate) fn release_detained<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        self.make_up(work);
        let let_go = work.operations.let_go();
        if self.detained.buffers.is_empty() || self.detained.looked == let_go {
            return;
        }
        self.detained.looked = let_go;
        let mut at = 0;
        while at < self.detained.buffers.len() {
            if work.operations.is_held(self.detained.buffers[at].0.id()) {
                at += 1;
            } else {
                let (buffer, home) = self.detained.buffers.swap_remove(at);
                self.send_home(work, buffer, home);
            }
        }
    }

    /// Puts buffers of the pool in the place of those that were set aside and are detained.
    fn make_up<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for at in 0..self.detained.buffers.len() {
            let home = self.detained.buffers[at].1;
            if home != Home::Pool
                && let Some(other) = work.ports.alloc()
            {
                self.detained.buffers[at].1 = Home::Pool;
                self.send_home(work, other, home);
            }
        }
    }
}
