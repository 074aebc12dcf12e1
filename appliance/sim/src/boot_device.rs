//! A simulated device as start-up code sees it: the same medium, effects and faults as behind the queues, but each call
//! waits for its end. A power cut in start-up answers every later call with [`DeviceError::Gone`].

use std::cell::RefCell;
use std::rc::Rc;

use base::Block;
use base::ids::{DeviceBlock, DeviceId};
use ports::{DeviceError, MAX_DEVICE_BLOCKS, SyncDevice};

use crate::device::{Run, content_of};
use crate::rack::Rack;

/// One device of a rack.
#[derive(Clone, Debug)]
pub struct BootDevice {
    rack: Rc<RefCell<Rack>>,
    device: DeviceId,
}

impl BootDevice {
    /// The device of this number, whether it works or not.
    pub const fn new(rack: Rc<RefCell<Rack>>, device: DeviceId) -> Self {
        Self { rack, device }
    }

    fn write_runs(
        &mut self,
        start: DeviceBlock,
        count: u64,
        content: impl Fn(u64) -> crate::device::Content,
    ) -> Result<(), DeviceError> {
        // In pieces of the size that production writes, so that a power cut can fall between them.
        let piece = MAX_DEVICE_BLOCKS as u64;
        let mut at = 0;
        while at < count {
            let end = count.min(at + piece);
            let run = Run { start: DeviceBlock(start.0 + at), blocks: (at..end).map(&content).collect() };
            self.rack.borrow_mut().write_now(self.device, run)?;
            at = end;
        }
        Ok(())
    }
}

impl SyncDevice for BootDevice {
    fn blocks(&self) -> u64 {
        self.rack.borrow().blocks(self.device)
    }

    fn read(&mut self, start: DeviceBlock, into: &mut [Block]) -> Result<(), DeviceError> {
        self.rack.borrow_mut().read_now(self.device, start, into)
    }

    fn write(&mut self, start: DeviceBlock, from: &[Block]) -> Result<(), DeviceError> {
        self.write_runs(start, from.len() as u64, |offset| content_of(&from[offset as usize]))
    }

    fn write_zeroes(&mut self, start: DeviceBlock, count: u64) -> Result<(), DeviceError> {
        self.write_runs(start, count, |_| None)
    }

    fn flush(&mut self) -> Result<(), DeviceError> {
        self.rack.borrow_mut().flush_now(self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, PlannedFault};
    use crate::rack::DeviceOptions;
    use crate::trace::Trace;
    use base::{BLOCK, ZERO_BLOCK};

    #[test]
    fn writes_zeros_and_flushes_count_as_effects_and_a_cut_ends_them() {
        let options = DeviceOptions {
            blocks: 600,
            volatile_cache: true,
            queue_depth: 1,
            slow_once_in: 40,
            used: false,
            hiccup_once_in: 0,
            rots_once_in: 0,
            whole_blocks: false,
            holds_log: false,
        };
        let rack = Rc::new(RefCell::new(Rack::new(3, &[options], Trace::default())));
        let mut device = BootDevice::new(Rc::clone(&rack), DeviceId(0));
        device.write(DeviceBlock(0), &vec![[5; BLOCK]; 600]).expect("powered");
        assert_eq!(rack.borrow().effects(), 3, "600 blocks in pieces of 256");
        device.flush().expect("powered");
        rack.borrow_mut().plan(vec![PlannedFault { effect: 2, fault: Fault::PowerCut }]);
        device.write_zeroes(DeviceBlock(0), 100).expect("powered");
        assert_eq!(device.flush(), Err(DeviceError::Gone));
        rack.borrow_mut().restore_power();
        let mut blocks = vec![[0; BLOCK]; 600];
        device.read(DeviceBlock(0), &mut blocks).expect("powered again");
        assert!(blocks[100..].iter().all(|block| block == &[5; BLOCK]), "what was durable and not written stays");
        assert!(blocks[..100].iter().flatten().all(|&byte| byte == 5 || byte == ZERO_BLOCK[0]));
    }
}
