//! Zeros: requests that bring no data and may be of any length. They take their turns, a few fragments each, and have few
//! fragments under way, so that a discard of a whole volume goes on beside other requests and not before them.

use base::BLOCK;
use base::ids::Lba;
use base::slab::Key;
use nvme::dataset::{DatasetRange, MAX_RANGES};
use ports::{BufferList, Buffers, Ports};

use super::{Request, Router, Sent};
use crate::io::{IoError, IoKind, IoRequest};
use crate::limits::{ZERO_FRAGMENTS, ZERO_FRAGMENTS_A_TURN};
use crate::message::Message;

/// Range `at` of a list that lies in one buffer.
fn range_at(pool: &impl Buffers, list: &BufferList, at: u32) -> (Lba, u32) {
    let buffer = list.first().expect("a list of ranges has its buffer");
    let start = at as usize * DatasetRange::SIZE;
    let range = DatasetRange::decode(&pool.bytes(buffer)[start..]).expect("a block holds all ranges of a command");
    (Lba(range.lba), range.blocks)
}

impl Request {
    /// Goes to the next range that has blocks; false if there is none left.
    fn next_range(&mut self, pool: &impl Buffers) -> bool {
        while self.range < self.ranges {
            let (lba, blocks) = range_at(pool, &self.buffers, self.range);
            self.range += 1;
            if blocks > 0 {
                (self.lba, self.blocks, self.sent) = (lba, blocks, 0);
                return true;
            }
        }
        false
    }
}

impl Router {
    /// Whether the blocks of a request lie in a volume of so many blocks.
    pub(super) fn lies_within(pool: &impl Buffers, request: &IoRequest, volume_blocks: u64) -> bool {
        let fits = |lba: Lba, blocks: u32| lba.0.checked_add(u64::from(blocks)).is_some_and(|end| end <= volume_blocks);
        match request.kind {
            IoKind::Deallocate => (0..request.blocks).all(|at| {
                let (lba, blocks) = range_at(pool, &request.buffers, at);
                fits(lba, blocks)
            }),
            _ => fits(request.lba, request.blocks),
        }
    }

    /// Takes a request for zeros that was entered among the requests.
    pub(super) fn begin_zeros<P: Ports<Message = Message>>(&mut self, ports: &mut P, key: Key<Request>) {
        let request = &mut self.requests[key];
        if request.ranges > 0 && !request.next_range(ports) {
            self.end(ports, key, BufferList::EMPTY);
        } else if self.zeroing.is_empty() {
            self.go_on_with_zeros(ports, key);
        } else {
            self.zeroing.push_back(key);
        }
    }

    /// Sends what waited, a few fragments of each request in turn.
    pub(super) fn maintain_zeros<P: Ports<Message = Message>>(&mut self, ports: &mut P) {
        for _ in 0..self.zeroing.len() {
            if self.zero_credits == 0 && !self.stopping {
                break;
            }
            let key = self.zeroing.pop_front().expect("as many as there were");
            if self.stopping {
                // What is left would take too long; its host asks again elsewhere.
                self.cut_short(ports, key, IoError::Stopping);
                if self.requests[key].unanswered == 0 {
                    self.end(ports, key, BufferList::EMPTY);
                }
            } else {
                self.go_on_with_zeros(ports, key);
            }
        }
    }

    /// Sends a few fragments. Unless all have been sent, it waits for its next turn.
    fn go_on_with_zeros<P: Ports<Message = Message>>(&mut self, ports: &mut P, key: Key<Request>) {
        match self.send_zeros(ports, key) {
            Sent::All => {}
            Sent::NoCredit => self.zeroing.push_back(key),
            Sent::Fenced => self.held.push_back(key),
        }
    }

    fn send_zeros<P: Ports<Message = Message>>(&mut self, ports: &mut P, key: Key<Request>) -> Sent {
        for _ in 0..ZERO_FRAGMENTS_A_TURN {
            if self.zero_credits == 0 {
                return Sent::NoCredit;
            }
            match self.send_fragment(ports, key) {
                Sent::All => {}
                waits => return waits,
            }
            self.zero_credits -= 1;
            let request = &mut self.requests[key];
            if request.sent == request.blocks && !request.next_range(ports) {
                return Sent::All;
            }
        }
        Sent::NoCredit
    }
}

const _: () = assert!(MAX_RANGES as usize * DatasetRange::SIZE <= BLOCK, "a list of ranges lies in one buffer");
const _: () = assert!(ZERO_FRAGMENTS < crate::limits::FRAGMENT_CREDITS);
