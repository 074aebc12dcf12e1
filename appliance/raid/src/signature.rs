//! What else may live on a device that is about to be overwritten: partition tables, file systems, other people's RAID and
//! volume managers, and our own. It looks at bytes from the device's two ends, and never says that a device is empty:
//! only that it holds nothing that it knows.

use core::fmt;

/// How much of a device's front should be given: Btrfs lies at 64 KiB, the first label of ZFS ends at 256 KiB.
pub const HEAD_BYTES: usize = 256 << 10;

/// How much of a device's end should be given: MD 0.90 lies up to 128 KiB before it, the last label of ZFS up to 512 KiB.
pub const TAIL_BYTES: usize = 512 << 10;

/// Something that was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// A member of an array of this program.
    BrindleMember,
    /// A log of this program.
    BrindleLog,
    /// A GUID partition table, or its backup at the end.
    Gpt,
    /// A partition table or boot code as on PCs.
    Mbr,
    /// Ext2, ext3 or ext4.
    Ext,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// F2FS.
    F2fs,
    /// Bcachefs.
    Bcachefs,
    /// ISO 9660.
    Iso9660,
    /// NTFS.
    Ntfs,
    /// ReFS.
    Refs,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// ExFAT.
    ExFat,
    /// Linux swap space, or a suspended system in it.
    Swap,
    /// LUKS encryption.
    Luks,
    /// BitLocker encryption.
    BitLocker,
    /// A physical volume of LVM2.
    Lvm2,
    /// A member of Linux MD, by the version of its superblock: 0.90, 1.0, 1.1, 1.2.
    Md(&'static str),
    /// A member of RAID by Intel firmware.
    IntelRaid,
    /// A member of RAID in the SNIA Disk Data Format.
    Ddf,
    /// A device of a ZFS pool.
    Zfs,
    /// A bcache device.
    Bcache,
    /// A Ceph BlueStore device.
    BlueStore,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BrindleMember => "a member of a Brindle array",
            Self::BrindleLog => "a Brindle log",
            Self::Gpt => "a GPT partition table",
            Self::Mbr => "an MBR partition table or boot sector",
            Self::Ext => "an ext2, ext3 or ext4 file system",
            Self::Xfs => "an XFS file system",
            Self::Btrfs => "a Btrfs file system",
            Self::F2fs => "an F2FS file system",
            Self::Bcachefs => "a bcachefs file system",
            Self::Iso9660 => "an ISO 9660 file system",
            Self::Ntfs => "an NTFS file system",
            Self::Refs => "a ReFS file system",
            Self::Fat => "a FAT file system",
            Self::ExFat => "an exFAT file system",
            Self::Swap => "Linux swap space",
            Self::Luks => "a LUKS encrypted volume",
            Self::BitLocker => "a BitLocker encrypted volume",
            Self::Lvm2 => "an LVM2 physical volume",
            Self::Md(version) => return write!(f, "a Linux MD RAID member (superblock {version})"),
            Self::IntelRaid => "an Intel firmware RAID member",
            Self::Ddf => "a DDF RAID member",
            Self::Zfs => "a ZFS pool device",
            Self::Bcache => "a bcache device",
            Self::BlueStore => "a Ceph BlueStore device",
        })
    }
}

/// Magic bytes at fixed offsets from the front, the telling ones before those that others also carry: a FAT file system
/// ends its first sector like a partition table does.
const HEAD_MAGICS: &[(Signature, usize, &[u8])] = &[
    // Both slots of the superblock: either may be torn.
    (Signature::BrindleMember, 4096, b"BRINDLEM"),
    (Signature::BrindleMember, 8192, b"BRINDLEM"),
    (Signature::BrindleLog, 4096, b"BRINDLEL"),
    (Signature::BrindleLog, 8192, b"BRINDLEL"),
    (Signature::Luks, 0, b"LUKS\xba\xbe"),
    // The second header of LUKS2 follows the first, whose size is a power of two from 16 KiB.
    (Signature::Luks, 0x4000, b"SKUL\xba\xbe"),
    (Signature::Luks, 0x8000, b"SKUL\xba\xbe"),
    (Signature::Luks, 0x10000, b"SKUL\xba\xbe"),
    (Signature::Luks, 0x20000, b"SKUL\xba\xbe"),
    (Signature::BlueStore, 0, b"bluestore block device\n"),
    (Signature::Bcache, 4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    (Signature::Bcachefs, 4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
    // LVM2 looks for its label in the first four sectors; the type stands 24 bytes into it.
    (Signature::Lvm2, 24, b"LVM2 001"),
    (Signature::Lvm2, 512 + 24, b"LVM2 001"),
    (Signature::Lvm2, 1024 + 24, b"LVM2 001"),
    (Signature::Lvm2, 1536 + 24, b"LVM2 001"),
    (Signature::Xfs, 0, b"XFSB"),
    (Signature::Btrfs, 0x10040, b"_BHRfS_M"),
    (Signature::F2fs, 1024, b"\x10\x20\xf5\xf2"),
    (Signature::Iso9660, 0x8001, b"CD001"),
    (Signature::Ext, 1024 + 56, b"\x53\xef"),
    // LBA 1, with sectors of 512 and of 4096 bytes.
    (Signature::Gpt, 512, b"EFI PART"),
    (Signature::Gpt, 4096, b"EFI PART"),
    (Signature::Ntfs, 3, b"NTFS    "),
    (Signature::Refs, 3, b"ReFS\0\0\0\0"),
    (Signature::ExFat, 3, b"EXFAT   "),
    (Signature::BitLocker, 3, b"-FVE-FS-"),
    (Signature::Fat, 54, b"FAT12   "),
    (Signature::Fat, 54, b"FAT16   "),
    (Signature::Fat, 82, b"FAT32   "),
    (Signature::Mbr, 510, b"\x55\xaa"),
];

/// Magic bytes at fixed offsets before the end.
const TAIL_MAGICS: &[(Signature, usize, &[u8])] = &[
    // The last LBA, with sectors of 512 and of 4096 bytes.
    (Signature::Gpt, 512, b"EFI PART"),
    (Signature::Gpt, 4096, b"EFI PART"),
    (Signature::IntelRaid, 2 * 512, b"Intel Raid ISM Cfg Sig. "),
    (Signature::IntelRaid, 2 * 4096, b"Intel Raid ISM Cfg Sig. "),
    (Signature::Ddf, 512, b"\xde\x11\xde\x11"),
];

/// Swap's magic ends the first page, whatever the size of the machine's pages.
const PAGE_BYTES: [usize; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

const SWAP_MAGICS: [&[u8]; 4] = [b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0", b"S2SUSPEND\0"];

const SECTOR: usize = 512;
const MD_MAGIC: u32 = 0xa92b_4efc;
const ZFS_UBERBLOCK_MAGIC: u64 = 0x00ba_b10c;

/// What a device holds that is not to be lost: `head` is its front ([`HEAD_BYTES`], or all of it), `tail` its end
/// ([`TAIL_BYTES`], or all of it), in whole sectors. Shorter slices are no error; less is found in them.
pub fn foreign_signature(head: &[u8], tail: &[u8]) -> Option<Signature> {
    md_front(head)
        .or_else(|| zfs_label(head).then_some(Signature::Zfs))
        .or_else(|| find(HEAD_MAGICS, |offset, magic| holds(head, offset, magic)))
        .or_else(|| swap(head).then_some(Signature::Swap))
        .or_else(|| find(TAIL_MAGICS, |before, magic| holds_before_end(tail, before, magic)))
        .or_else(|| scan_tail(tail))
}

fn find(magics: &[(Signature, usize, &[u8])], holds: impl Fn(usize, &[u8]) -> bool) -> Option<Signature> {
    magics.iter().find(|(_, at, magic)| holds(*at, magic)).map(|(signature, _, _)| *signature)
}

fn holds(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic))
}

fn holds_before_end(bytes: &[u8], before: usize, magic: &[u8]) -> bool {
    bytes.len().checked_sub(before).is_some_and(|offset| holds(bytes, offset, magic))
}

fn swap(head: &[u8]) -> bool {
    PAGE_BYTES.iter().any(|page| SWAP_MAGICS.iter().any(|magic| holds(head, page - magic.len(), magic)))
}

/// MD 1.1 begins the device, 1.2 lies 4 KiB behind.
fn md_front(head: &[u8]) -> Option<Signature> {
    let version_1 = |offset| head.get(offset..).is_some_and(md_version_1);
    if version_1(0) {
        Some(Signature::Md("1.1"))
    } else if version_1(4096) {
        Some(Signature::Md("1.2"))
    } else {
        None
    }
}

/// A superblock of version 1 is little-endian: magic, then the major version.
fn md_version_1(bytes: &[u8]) -> bool {
    bytes.starts_with(&MD_MAGIC.to_le_bytes()) && holds(bytes, 4, &1u32.to_le_bytes())
}

/// A superblock of version 0.90 has the order of bytes of the machine that wrote it: magic, major 0, minor 90.
fn md_version_0(bytes: &[u8]) -> bool {
    let words = |order: fn(u32) -> [u8; 4]| {
        bytes.starts_with(&order(MD_MAGIC)) && holds(bytes, 4, &order(0)) && holds(bytes, 8, &order(90))
    };
    words(u32::to_le_bytes) || words(u32::to_be_bytes)
}

/// A ZFS label has its description 16 KiB in: a list of names and values in XDR (encoding 1, either order of bytes), of
/// which the first is `version`; and uberblocks from 128 KiB in.
fn zfs_label(head: &[u8]) -> bool {
    let described = head.get(16 << 10..(16 << 10) + 64).is_some_and(|list| {
        list[0] == 1 && list[1] <= 1 && list[2..4] == [0, 0] && list.windows(7).any(|name| name == b"version")
    });
    described || head.get(128 << 10..256 << 10).is_some_and(|bytes| bytes.chunks(SECTOR).any(zfs_uberblock))
}

fn zfs_uberblock(bytes: &[u8]) -> bool {
    bytes.starts_with(&ZFS_UBERBLOCK_MAGIC.to_le_bytes()) || bytes.starts_with(&ZFS_UBERBLOCK_MAGIC.to_be_bytes())
}

/// MD and ZFS round the device's size down before they count from its end, and the size is not known here: so every
/// sector is looked at. Their magics are long enough not to be met by chance.
fn scan_tail(tail: &[u8]) -> Option<Signature> {
    let sectors = tail.len() / SECTOR * SECTOR;
    tail[tail.len() - sectors..].chunks_exact(SECTOR).find_map(|sector| {
        if md_version_1(sector) {
            Some(Signature::Md("1.0"))
        } else if md_version_0(sector) {
            Some(Signature::Md("0.90"))
        } else if zfs_uberblock(sector) {
            Some(Signature::Zfs)
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(length: usize, at: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    }

    fn in_head(at: usize, magic: &[u8]) -> Option<Signature> {
        foreign_signature(&with(HEAD_BYTES, at, magic), &[0; 8192])
    }

    fn before_end(before: usize, magic: &[u8]) -> Option<Signature> {
        foreign_signature(&[0; 8192], &with(TAIL_BYTES, TAIL_BYTES - before, magic))
    }

    #[test]
    fn every_magic_of_the_tables_is_found_where_it_belongs_and_not_beside() {
        for (signature, at, magic) in HEAD_MAGICS {
            assert_eq!(in_head(*at, magic), Some(*signature), "at {at}");
            assert_eq!(in_head(*at + 7, magic), None, "beside {at}");
        }
        for (signature, before, magic) in TAIL_MAGICS {
            assert_eq!(before_end(*before, magic), Some(*signature), "{before} before the end");
            assert_eq!(before_end(*before + 7, magic), None, "beside {before} before the end");
        }
        for page in PAGE_BYTES {
            assert_eq!(in_head(page - 10, b"SWAPSPACE2"), Some(Signature::Swap));
        }
    }

    #[test]
    fn md_is_found_at_both_ends_in_all_its_versions() {
        let version_1 = b"\xfc\x4e\x2b\xa9\x01\0\0\0";
        assert_eq!(in_head(0, version_1), Some(Signature::Md("1.1")));
        assert_eq!(in_head(4096, version_1), Some(Signature::Md("1.2")));
        assert_eq!(before_end(8192, version_1), Some(Signature::Md("1.0")));
        assert_eq!(before_end(12 << 10, version_1), Some(Signature::Md("1.0")));
        for version_0 in [b"\xfc\x4e\x2b\xa9\0\0\0\0\x5a\0\0\0", b"\xa9\x2b\x4e\xfc\0\0\0\0\0\0\0\x5a"] {
            assert_eq!(before_end(64 << 10, version_0), Some(Signature::Md("0.90")));
            assert_eq!(before_end((128 << 10) - 512, version_0), Some(Signature::Md("0.90")));
        }
        assert_eq!(before_end(64 << 10, b"\xfc\x4e\x2b\xa9\x07\0\0\0"), None);
    }

    #[test]
    fn zfs_is_found_by_its_description_and_by_its_uberblocks() {
        let list = b"\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0\x24\0\0\0\x20\0\0\0\x07version\0";
        assert_eq!(in_head(16 << 10, list), Some(Signature::Zfs));
        assert_eq!(in_head(132 << 10, b"\x0c\xb1\xba\0\0\0\0\0"), Some(Signature::Zfs));
        assert_eq!(before_end(100 << 10, b"\0\0\0\0\0\xba\xb1\x0c"), Some(Signature::Zfs));
    }

    #[test]
    fn the_telling_magic_wins_over_the_boot_sector() {
        for (signature, at, magic) in [(Signature::Gpt, 512, "EFI PART"), (Signature::Ntfs, 3, "NTFS    ")] {
            let mut head = with(HEAD_BYTES, 510, b"\x55\xaa");
            head[at..at + 8].copy_from_slice(magic.as_bytes());
            assert_eq!(foreign_signature(&head, &[]), Some(signature));
        }
    }

    #[test]
    fn short_and_odd_slices_and_unknown_bytes_are_no_trouble() {
        assert_eq!(foreign_signature(&vec![0; HEAD_BYTES], &vec![0; TAIL_BYTES]), None);
        let noise: Vec<u8> =
            (0..HEAD_BYTES as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect();
        assert_eq!(foreign_signature(&noise, &noise), None);
        for length in (0..2048).chain([4095, 4097, 16_400, 65_535, 131_073]) {
            assert_eq!(foreign_signature(&vec![0; length], &vec![0; length]), None, "{length} bytes");
        }
        let mbr = with(512, 510, b"\x55\xaa");
        assert_eq!(foreign_signature(&mbr[..511], &[]), None);
        assert_eq!(foreign_signature(&mbr, &[]), Some(Signature::Mbr));
    }

    #[test]
    fn people_read_what_it_is() {
        assert_eq!(Signature::Md("1.2").to_string(), "a Linux MD RAID member (superblock 1.2)");
        for (signature, _, _) in HEAD_MAGICS.iter().chain(TAIL_MAGICS) {
            assert!(signature.to_string().len() > 3);
        }
    }
}
