//! Volumes in memory, for a front to ask.

use std::collections::{BTreeMap, VecDeque};

use base::ids::{Lba, VolumeId};
use base::{BLOCK, Block};
use nvme::dataset::DatasetRange;
use ports::{BufferId, BufferList, Buffers};

use super::super::VolumeIo;
use super::fake::FakePorts;
use crate::io::{IoDone, IoError, IoKind, IoRequest};

/// Volumes in memory. Requests end when the test says.
#[derive(Default)]
pub(super) struct FakeIo {
    pub(super) content: BTreeMap<(VolumeId, Lba), Block>,
    pub(super) requests: VecDeque<IoRequest>,
    pub(super) refuses: bool,
    pub(super) fails: Option<IoError>,
    /// Requests that are to be aborted.
    pub(super) aborts: Vec<u64>,
    /// What their buffers held when they began, by token: nobody may change them while the volumes have them.
    held: BTreeMap<u64, Vec<Block>>,
}

impl VolumeIo<FakePorts> for FakeIo {
    fn begin(&mut self, ports: &mut FakePorts, request: IoRequest) -> Result<(), IoRequest> {
        if self.refuses {
            return Err(request);
        }
        let held = request.buffers.ids(ports).map(|id| *ports.bytes(id)).collect();
        assert!(self.held.insert(request.token, held).is_none(), "a token names one request");
        self.requests.push_back(request);
        Ok(())
    }

    fn abort(&mut self, _: &mut FakePorts, token: u64) {
        self.aborts.push(token);
    }
}

impl FakeIo {
    /// Makes another request the next one that ends.
    pub(super) fn shuffle(&mut self, by: usize) {
        if !self.requests.is_empty() {
            let by = by % self.requests.len();
            self.requests.rotate_left(by);
        }
    }

    /// Ends the oldest request.
    pub(super) fn end_one(&mut self, ports: &mut FakePorts) -> Option<IoDone> {
        let IoRequest { token, volume, kind, lba, blocks, margins, mut buffers, .. } = self.requests.pop_front()?;
        let meant = |at: usize| margins.within(at, blocks as usize);
        let held = self.held.remove(&token).expect("it was begun");
        let is_same = buffers.ids(ports).zip(&held).all(|(id, held)| ports.bytes(id) == held);
        assert!(is_same, "a buffer was used while the volumes had it");
        if let Some(error) = self.fails {
            buffers.free(ports);
            return Some(IoDone { token, result: Err(error), buffers: BufferList::EMPTY });
        }
        for (index, id) in (0u64..).zip(buffers.ids(ports).collect::<Vec<_>>()) {
            let place = (volume, Lba(lba.0 + index));
            match kind {
                IoKind::Read => *ports.bytes_mut(id) = *self.content.get(&place).unwrap_or(&[0; BLOCK]),
                IoKind::Write => {
                    let meant = meant(index as usize);
                    let block = self.content.entry(place).or_insert([0; BLOCK]);
                    block[meant.clone()].copy_from_slice(&ports.bytes(id)[meant]);
                }
                IoKind::Compare | IoKind::CompareAndWrite => {}
                IoKind::Deallocate => {
                    let bytes = *ports.bytes(id);
                    for range in bytes.chunks_exact(DatasetRange::SIZE).take(blocks as usize) {
                        let range = DatasetRange::decode(range).expect("a range");
                        for lba in range.lba..range.lba + u64::from(range.blocks) {
                            self.content.insert((volume, Lba(lba)), [0; BLOCK]);
                        }
                    }
                }
                IoKind::WriteZeroes | IoKind::Flush => unreachable!("no buffers"),
            }
        }
        if matches!(kind, IoKind::Compare | IoKind::CompareAndWrite) {
            let ids: Vec<_> = buffers.ids(ports).collect();
            let place = |at: usize| (volume, Lba(lba.0 + at as u64));
            let (told, new) = ids.split_at(blocks as usize);
            let same = |(at, id): (usize, &BufferId)| {
                let stored = self.content.get(&place(at)).unwrap_or(&[0; BLOCK]);
                stored[meant(at)] == ports.bytes(*id)[meant(at)]
            };
            if !told.iter().enumerate().all(same) {
                buffers.free(ports);
                let result = Err(IoError::Miscompare);
                return Some(IoDone { token, result, buffers: BufferList::EMPTY });
            }
            for (at, &id) in new.iter().enumerate() {
                let block = self.content.entry(place(at)).or_insert([0; BLOCK]);
                block[meant(at)].copy_from_slice(&ports.bytes(id)[meant(at)]);
            }
        }
        if kind == IoKind::WriteZeroes {
            for index in 0..u64::from(blocks) {
                let block = self.content.entry((volume, Lba(lba.0 + index))).or_insert([0; BLOCK]);
                block[meant(index as usize)].fill(0);
            }
        }
        if kind != IoKind::Read {
            core::mem::take(&mut buffers).free(ports);
        }
        Some(IoDone { token, result: Ok(()), buffers })
    }
}
