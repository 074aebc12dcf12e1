//! Dataset Management (NVM, section 3.2.3): discards. The command is judged when its capsule comes, its ranges once they are
//! there.

use base::ids::{Lba, VolumeId};
use base::sector::{LogicalBlock, Margins};
use nvme::dataset::{DEALLOCATE, DatasetRange, MAX_RANGES};
use nvme::entry::SubmissionEntry;
use nvme::status::Status;

use crate::command::{Fuse, IoAction, IoCommand};
use crate::limits::{MAX_DATASET_RANGE_BLOCKS, MAX_DATASET_RANGES};
use crate::subsystem::Namespace;

/// Judges the command as far as that goes before its ranges have come.
pub(crate) fn command(entry: &SubmissionEntry, volume: VolumeId) -> Result<IoCommand, Status> {
    let ranges = (entry.cdw10 & 0xff) + 1;
    if ranges > u32::from(MAX_DATASET_RANGES) {
        return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED);
    }
    // Linux always sends room for the most ranges that there can be.
    let data_bytes = entry.data.length;
    if data_bytes < ranges * DatasetRange::SIZE as u32 || data_bytes > MAX_RANGES * DatasetRange::SIZE as u32 {
        return Err(Status::DATA_SGL_LENGTH_INVALID);
    }
    // Without AD the ranges are hints, of which we make nothing.
    let blocks = if entry.cdw11 & DEALLOCATE == 0 { 0 } else { ranges };
    let (lba, margins, fuse) = (Lba(0), Margins::NONE, Fuse::None);
    Ok(IoCommand { action: IoAction::Deallocate, volume, lba, blocks, margins, data_bytes, fuse })
}

/// Judges the first `count` ranges of a list, and has them name the blocks of 4096 bytes that lie wholly within them: what a
/// host no longer needs of another block stays as it is. Every refusal is final. The list is left as it is if one is refused.
pub fn ranges_to_blocks(list: &mut [u8], count: u32, namespace: &Namespace) -> Result<(), Status> {
    let ranges = || 0..count as usize;
    let at = |place: usize| place * DatasetRange::SIZE..(place + 1) * DatasetRange::SIZE;
    let decode = |bytes: &[u8]| DatasetRange::decode(bytes).expect("bytes for a range");
    for range in ranges().map(|place| decode(&list[at(place)])) {
        if range.blocks > MAX_DATASET_RANGE_BLOCKS {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.do_not_retry());
        }
        if range.lba.checked_add(u64::from(range.blocks)).is_none_or(|end| end > namespace.logical_blocks()) {
            return Err(Status::LBA_OUT_OF_RANGE.do_not_retry());
        }
    }
    if namespace.logical == LogicalBlock::Block {
        return Ok(());
    }
    for place in ranges() {
        let range = decode(&list[at(place)]);
        let (lba, blocks) = namespace.logical.blocks_within(range.lba, range.blocks);
        DatasetRange { lba: lba.0, blocks, ..range }.encode_into(&mut list[at(place)]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nvme::entry::PSDT_SGL;
    use nvme::opcode;
    use nvme::sgl::SglDescriptor;

    use super::*;
    use crate::command::io_command;
    use crate::subsystem::tests::{exports, namespace};

    #[test]
    fn ranges_are_counted_and_must_have_come() {
        let exports = exports();
        let judge = |ranges: u32, flags: u32, bytes: u32| {
            let data = SglDescriptor::in_capsule(0, bytes);
            let (opcode, flags_of_entry) = (opcode::DATASET_MANAGEMENT, PSDT_SGL << 6);
            let cdw10 = ranges - 1;
            let entry = SubmissionEntry {
                opcode,
                flags: flags_of_entry,
                nsid: 1,
                data,
                cdw10,
                cdw11: flags,
                ..Default::default()
            };
            io_command(&entry, &exports.subsystems()[0]).map(|command| (command.blocks, command.data_bytes))
        };
        assert_eq!(judge(2, DEALLOCATE, 32), Ok((2, 32)));
        assert_eq!(judge(2, DEALLOCATE, 4096), Ok((2, 4096)), "as Linux sends it");
        assert_eq!(judge(2, 0b11, 32), Ok((0, 32)), "hints");
        assert_eq!(judge(2, DEALLOCATE, 31), Err(Status::DATA_SGL_LENGTH_INVALID.do_not_retry()));
        assert_eq!(judge(2, DEALLOCATE, 4112), Err(Status::DATA_SGL_LENGTH_INVALID.do_not_retry()));
        assert_eq!(judge(33, DEALLOCATE, 4096), Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.do_not_retry()));
    }

    #[test]
    fn ranges_are_bounded_and_name_whole_blocks() {
        let judge = |logical, ranges: &[(u64, u32)]| {
            let mut list = vec![0; 4096];
            for (place, &(lba, blocks)) in list.chunks_exact_mut(DatasetRange::SIZE).zip(ranges) {
                DatasetRange { attributes: 7, blocks, lba }.encode_into(place);
            }
            let namespace = Namespace { logical, ..namespace(1) };
            ranges_to_blocks(&mut list, ranges.len() as u32, &namespace)?;
            let ranges = list.chunks_exact(DatasetRange::SIZE).take(ranges.len());
            Ok(ranges.map(|bytes| DatasetRange::decode(bytes).map(|range| (range.lba, range.blocks))).collect())
        };
        let (sector, block) = (LogicalBlock::Sector, LogicalBlock::Block);
        assert_eq!(judge(block, &[(3, 7), (990, 10)]), Ok(vec![Ok((3, 7)), Ok((990, 10))]));
        assert_eq!(judge(sector, &[(3, 21), (7992, 8), (1, 3)]), Ok(vec![Ok((1, 2)), Ok((999, 1)), Ok((1, 0))]));
        for (logical, lba, blocks, status) in [
            (block, 991, 10, Status::LBA_OUT_OF_RANGE),
            (sector, 7993, 8, Status::LBA_OUT_OF_RANGE),
            (sector, u64::MAX, 2, Status::LBA_OUT_OF_RANGE),
            (block, 0, MAX_DATASET_RANGE_BLOCKS + 1, Status::COMMAND_SIZE_LIMIT_EXCEEDED),
        ] {
            assert_eq!(judge(logical, &[(0, 1), (lba, blocks)]), Err(status.do_not_retry()));
        }
    }
}
