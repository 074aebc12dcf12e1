//! I/O commands of the NVM command set: what a submission entry asks of which volume, or the status that refuses it. Also
//! the rules for data pointers that all commands share (TCP, section 3.2.1). Nothing is done here.

use base::BLOCK;
use base::ids::{Lba, VolumeId};
use base::sector::{Margins, SECTOR};
use nvme::entry::{FUSE_FIRST, FUSE_SECOND, PSDT_PRP, SubmissionEntry};
use nvme::opcode;
use nvme::sgl::{DATA_BLOCK_OFFSET, TRANSPORT_DATA_BLOCK};
use nvme::status::Status;

use crate::dataset;
use crate::limits::{MAX_NAMESPACES, MAX_TRANSFER_BYTES};
use crate::subsystem::Subsystem;

/// What an I/O command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoAction {
    /// Read blocks.
    Read,
    /// Write blocks.
    Write,
    /// Make blocks read as zeros.
    WriteZeroes,
    /// Make ranges of blocks, a list of which comes as data, read as zeros.
    Deallocate,
    /// Make earlier writes durable.
    Flush,
    /// Flush of all namespaces.
    FlushAll,
    /// Compare data with what is stored.
    Compare,
}

/// Whether a command is one of a pair that is carried out as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuse {
    /// It is not.
    None,
    /// The compare of a compare and write.
    First,
    /// The write behind it.
    Second,
}

/// An I/O command that may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoCommand {
    /// What to do.
    pub action: IoAction,
    /// On which volume; meaningless for [`IoAction::FlushAll`].
    pub volume: VolumeId,
    /// First block, of 4096 bytes whatever the logical blocks.
    pub lba: Lba,
    /// Blocks; 0 for a flush; ranges to be deallocated.
    pub blocks: u32,
    /// What of the first and the last block it does not mean.
    pub margins: Margins,
    /// Data that it moves, in bytes.
    pub data_bytes: u32,
    /// Whether it is one of a pair.
    pub fuse: Fuse,
}

impl IoCommand {
    /// The bytes of volume that it means, if it names blocks.
    pub const fn bytes(&self) -> u64 {
        let margins = (self.margins.lead as u64 + self.margins.trail as u64) * SECTOR as u64;
        self.blocks as u64 * BLOCK as u64 - margins
    }

    /// A flush of a volume.
    pub const fn flush(action: IoAction, volume: VolumeId) -> Self {
        Self { action, volume, lba: Lba(0), blocks: 0, margins: Margins::NONE, data_bytes: 0, fuse: Fuse::None }
    }
}

/// The opcodes of I/O commands that are carried out.
pub const IO_OPCODES: [u8; 6] =
    [opcode::FLUSH, opcode::WRITE, opcode::READ, opcode::COMPARE, opcode::WRITE_ZEROES, opcode::DATASET_MANAGEMENT];

/// NSID of all namespaces.
const ALL_NAMESPACES: u32 = u32::MAX;

/// Judges an I/O command. Every refusal is final: the same command fails again.
#[inline]
pub fn io_command(entry: &SubmissionEntry, subsystem: &Subsystem) -> Result<IoCommand, Status> {
    judge(entry, subsystem).map_err(Status::do_not_retry)
}

#[inline]
fn judge(entry: &SubmissionEntry, subsystem: &Subsystem) -> Result<IoCommand, Status> {
    // FUSES: compare and write is the one pair there is (Base, section 3.4.2); 11b is reserved.
    let fuse = match (entry.fuse(), entry.opcode) {
        (0, _) => Fuse::None,
        (FUSE_FIRST, opcode::COMPARE) => Fuse::First,
        (FUSE_SECOND, opcode::WRITE) => Fuse::Second,
        _ => return Err(Status::INVALID_FIELD),
    };
    let action = match entry.opcode {
        opcode::READ => IoAction::Read,
        opcode::WRITE => IoAction::Write,
        opcode::COMPARE => IoAction::Compare,
        opcode::WRITE_ZEROES => IoAction::WriteZeroes,
        // VWC bits 2:1 are 11b: Flush takes the broadcast identifier (Base, section 7.1).
        opcode::FLUSH if entry.nsid == ALL_NAMESPACES => {
            return Ok(IoCommand::flush(IoAction::FlushAll, VolumeId(0)));
        }
        opcode::FLUSH => IoAction::Flush,
        opcode::DATASET_MANAGEMENT => IoAction::Deallocate,
        _ => return Err(Status::INVALID_OPCODE),
    };
    let namespace = subsystem.namespace(entry.nsid).ok_or(Status::INVALID_NAMESPACE)?;
    if action == IoAction::Flush {
        return Ok(IoCommand::flush(action, namespace.volume));
    }
    if action == IoAction::Deallocate {
        return dataset::command(entry, namespace.volume);
    }
    let (start, count) = (entry.lba(), entry.block_count());
    let logical = namespace.logical;
    // MDTS (Base, figure 275). Zeros move no data, and WZSL says that they have no limit but their own field's.
    if action != IoAction::WriteZeroes && count > MAX_TRANSFER_BYTES / logical.bytes() {
        return Err(Status::INVALID_FIELD);
    }
    if start.checked_add(u64::from(count)).is_none_or(|end| end > namespace.logical_blocks()) {
        return Err(Status::LBA_OUT_OF_RANGE);
    }
    let data_bytes = if action == IoAction::WriteZeroes { 0 } else { count * logical.bytes() };
    let (lba, blocks, margins) = logical.blocks_around(start, count);
    // NACWU is NAWUN, within the same boundaries.
    let unit = u64::from(namespace.atomic_blocks);
    if fuse != Fuse::None && lba.0 / unit != (lba.0 + u64::from(blocks) - 1) / unit {
        return Err(Status::ATOMIC_WRITE_UNIT_EXCEEDED);
    }
    Ok(IoCommand { action, volume: namespace.volume, lba, blocks, margins, data_bytes, fuse })
}

/// How a command's data travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// There is none.
    None,
    /// To the controller, within the capsule.
    InCapsule,
    /// To the controller, asked for by R2T.
    Asked,
    /// To the host, in C2HData.
    ToHost,
}

/// Judges the data pointer of a command that moves exactly `length` bytes in the direction of `transfer` (see
/// [`opcode::transfer`]), when `in_capsule` bytes came with it.
#[inline]
pub fn data_path(entry: &SubmissionEntry, transfer: u8, length: u32, in_capsule: usize) -> Result<DataPath, Status> {
    judge_data(entry, transfer, length, in_capsule).map_err(Status::do_not_retry)
}

#[inline]
fn judge_data(entry: &SubmissionEntry, transfer: u8, length: u32, in_capsule: usize) -> Result<DataPath, Status> {
    if transfer == opcode::TRANSFER_NONE || length == 0 {
        return if in_capsule == 0 { Ok(DataPath::None) } else { Err(Status::DATA_SGL_LENGTH_INVALID) };
    }
    // Over Fabrics all data is described by SGLs (Base, section 3.3.3.1: PRPs are not used). The byte is reserved in
    // Fabrics commands themselves.
    if entry.opcode != opcode::FABRICS && entry.psdt() == PSDT_PRP {
        return Err(Status::INVALID_FIELD);
    }
    let path = match entry.data.identifier {
        DATA_BLOCK_OFFSET if transfer == opcode::TRANSFER_TO_CONTROLLER => DataPath::InCapsule,
        TRANSPORT_DATA_BLOCK if transfer == opcode::TRANSFER_TO_CONTROLLER => DataPath::Asked,
        TRANSPORT_DATA_BLOCK => DataPath::ToHost,
        _ => return Err(Status::SGL_TYPE_INVALID),
    };
    if path == DataPath::InCapsule && entry.data.address != 0 {
        // ICDOFF is 0 and one descriptor describes all data, so an offset would leave a part undescribed.
        return Err(Status::SGL_OFFSET_INVALID);
    }
    if entry.data.length != length || (path == DataPath::InCapsule && in_capsule != length as usize) {
        return Err(Status::DATA_SGL_LENGTH_INVALID);
    }
    if path != DataPath::InCapsule && in_capsule != 0 {
        return Err(Status::DATA_SGL_LENGTH_INVALID);
    }
    Ok(path)
}

const _: () = assert!(MAX_NAMESPACES < ALL_NAMESPACES);

#[cfg(test)]
mod tests {
    use base::sector::LogicalBlock;
    use nvme::entry::PSDT_SGL;
    use nvme::sgl::SglDescriptor;

    use super::*;
    use crate::subsystem::tests::exports;

    fn entry(opcode: u8, nsid: u32, lba: u64, blocks: u32) -> SubmissionEntry {
        let data = SglDescriptor::transport(blocks * BLOCK as u32);
        let mut entry =
            SubmissionEntry { opcode, flags: PSDT_SGL << 6, nsid, data, cdw12: blocks - 1, ..Default::default() };
        entry.set_lba(lba);
        entry
    }

    #[test]
    fn what_may_be_done_is_told_with_its_volume() {
        let exports = exports();
        let subsystem = &exports.subsystems()[0];
        let judge = |entry| io_command(&entry, subsystem);
        let command = judge(entry(opcode::READ, 5, 990, 10)).expect("the last blocks");
        assert_eq!(
            (command.action, command.volume, command.lba, command.blocks),
            (IoAction::Read, VolumeId(5), Lba(990), 10)
        );
        assert_eq!(command.data_bytes, 40960);
        assert_eq!(judge(entry(opcode::WRITE, 1, 0, 256)).map(|command| command.data_bytes), Ok(1 << 20));
        assert_eq!(judge(entry(opcode::WRITE_ZEROES, 1, 0, 1000)).map(|command| command.data_bytes), Ok(0));
        assert_eq!(judge(entry(opcode::FLUSH, 1, u64::MAX, 1)).map(|command| command.action), Ok(IoAction::Flush));
        assert_eq!(judge(entry(opcode::FLUSH, u32::MAX, 0, 1)).map(|command| command.action), Ok(IoAction::FlushAll));
    }

    #[test]
    fn each_fault_has_its_status_and_is_final() {
        let exports = exports();
        let subsystem = &exports.subsystems()[0];
        let refused = |entry| io_command(&entry, subsystem).unwrap_err();
        for (entry, status) in [
            (entry(opcode::READ, 0, 0, 1), Status::INVALID_NAMESPACE),
            (entry(opcode::READ, 3, 0, 1), Status::INVALID_NAMESPACE),
            (entry(opcode::WRITE, u32::MAX, 0, 1), Status::INVALID_NAMESPACE),
            (entry(opcode::READ, 1, 1000, 1), Status::LBA_OUT_OF_RANGE),
            (entry(opcode::WRITE, 1, 999, 2), Status::LBA_OUT_OF_RANGE),
            (entry(opcode::WRITE_ZEROES, 1, u64::MAX, 1), Status::LBA_OUT_OF_RANGE),
            (entry(opcode::READ, 1, 0, 257), Status::INVALID_FIELD),
            (entry(opcode::WRITE_ZEROES, 1, 0, 65536), Status::LBA_OUT_OF_RANGE),
            (entry(opcode::VERIFY, 1, 0, 1), Status::INVALID_OPCODE),
            (entry(0xff, 1, 0, 1), Status::INVALID_OPCODE),
        ] {
            assert_eq!(refused(entry), status.do_not_retry(), "{entry:?}");
        }
        let fused = |fuse, entry| SubmissionEntry { flags: PSDT_SGL << 6 | fuse, ..entry };
        for (fuse, opcode) in [(1, opcode::WRITE), (2, opcode::COMPARE), (3, opcode::WRITE), (1, opcode::READ)] {
            assert_eq!(refused(fused(fuse, entry(opcode, 1, 0, 1))), Status::INVALID_FIELD.do_not_retry());
        }
        let exceeded = Status::ATOMIC_WRITE_UNIT_EXCEEDED.do_not_retry();
        assert_eq!(refused(fused(1, entry(opcode::COMPARE, 1, 0, 17))), exceeded);
        assert_eq!(refused(fused(2, entry(opcode::WRITE, 1, 15, 2))), exceeded, "across a boundary");
    }

    #[test]
    fn runs_of_sectors_lie_within_blocks() {
        let mut subsystem = exports().subsystems()[0].clone();
        subsystem.namespaces[0].logical = LogicalBlock::Sector;
        let with = |opcode, lba, sectors: u32| {
            let entry = SubmissionEntry { cdw12: sectors - 1, ..entry(opcode, 1, lba, 1) };
            io_command(&entry, &subsystem)
        };
        let command = with(opcode::WRITE, 7995, 5).expect("the last sectors");
        assert_eq!((command.lba, command.blocks, command.margins), (Lba(999), 1, Margins { lead: 3, trail: 0 }));
        assert_eq!((command.data_bytes, command.bytes()), (2560, 2560));
        let command = with(opcode::READ, 4, 2048).expect("1 MiB, across 257 blocks");
        assert_eq!((command.lba, command.blocks, command.margins), (Lba(0), 257, Margins { lead: 4, trail: 4 }));
        assert_eq!(command.data_bytes, 1 << 20);
        assert_eq!(with(opcode::READ, 0, 2049), Err(Status::INVALID_FIELD.do_not_retry()));
        assert_eq!(with(opcode::WRITE, 7996, 5), Err(Status::LBA_OUT_OF_RANGE.do_not_retry()));
        let zeros = with(opcode::WRITE_ZEROES, 1, 8).expect("zeros of parts of two blocks");
        assert_eq!((zeros.blocks, zeros.data_bytes, zeros.bytes()), (2, 0, 4096));
    }

    #[test]
    fn the_two_of_a_pair_are_told() {
        let exports = exports();
        let fuse_of = |fuse, opcode| {
            let entry = SubmissionEntry { flags: PSDT_SGL << 6 | fuse, ..entry(opcode, 1, 16, 16) };
            io_command(&entry, &exports.subsystems()[0]).map(|command| (command.action, command.fuse))
        };
        assert_eq!(fuse_of(0, opcode::COMPARE), Ok((IoAction::Compare, Fuse::None)));
        assert_eq!(fuse_of(1, opcode::COMPARE), Ok((IoAction::Compare, Fuse::First)));
        assert_eq!(fuse_of(2, opcode::WRITE), Ok((IoAction::Write, Fuse::Second)));
    }

    #[test]
    fn data_pointers_are_judged() {
        let (to, from, none) = (opcode::TRANSFER_TO_CONTROLLER, opcode::TRANSFER_TO_HOST, opcode::TRANSFER_NONE);
        let with = |data| SubmissionEntry { data, flags: PSDT_SGL << 6, ..SubmissionEntry::default() };
        let (inside, outside) = (SglDescriptor::in_capsule(0, 4096), SglDescriptor::transport(4096));
        for (data, transfer, length, in_capsule, expected) in [
            (inside, to, 4096, 4096, Ok(DataPath::InCapsule)),
            (outside, to, 4096, 0, Ok(DataPath::Asked)),
            (outside, from, 4096, 0, Ok(DataPath::ToHost)),
            (outside, none, 0, 0, Ok(DataPath::None)),
            (outside, none, 0, 4, Err(Status::DATA_SGL_LENGTH_INVALID)),
            (inside, from, 4096, 0, Err(Status::SGL_TYPE_INVALID)),
            (SglDescriptor { identifier: 0x40, ..outside }, to, 4096, 0, Err(Status::SGL_TYPE_INVALID)),
            (SglDescriptor::in_capsule(4, 4096), to, 4096, 4096, Err(Status::SGL_OFFSET_INVALID)),
            (inside, to, 8192, 4096, Err(Status::DATA_SGL_LENGTH_INVALID)),
            (inside, to, 4096, 0, Err(Status::DATA_SGL_LENGTH_INVALID)),
            (inside, to, 4096, 8192, Err(Status::DATA_SGL_LENGTH_INVALID)),
            (outside, to, 4096, 4096, Err(Status::DATA_SGL_LENGTH_INVALID)),
            (outside, from, 8192, 0, Err(Status::DATA_SGL_LENGTH_INVALID)),
        ] {
            let judged = data_path(&with(data), transfer, length, in_capsule);
            assert_eq!(judged, expected.map_err(Status::do_not_retry), "{data:?} {transfer} {length} {in_capsule}");
        }
        let prp = SubmissionEntry { data: outside, opcode: opcode::WRITE, ..SubmissionEntry::default() };
        assert_eq!(data_path(&prp, to, 4096, 0), Err(Status::INVALID_FIELD.do_not_retry()));
    }
}
