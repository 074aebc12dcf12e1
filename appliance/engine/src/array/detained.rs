//! Buffers on their way home. A buffer that a log device may still be reading, though nobody waits for that any more, is
//! detained until the device has answered: given away, it would change under the device.

use ports::{Buffer, Ports};

use super::{ArrayShard, Work};

/// Where a buffer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// To the pool.
    Pool,
    /// To what the array's part has set aside.
    Scratch,
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
        }
    }

    /// Sends home what is detained no longer.
    pub(crate) fn release_detained<P: Ports>(&mut self, work: &mut Work<'_, P>) {
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
}
