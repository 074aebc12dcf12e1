//! Device calls that wait for their end, for start-up code and helper threads. A reactor never calls them.
//!
//! JUSTIFICATION for unsafe: vectored calls with raw addresses of blocks; see `map_sys` for who owns a block.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use base::BLOCK;
use ports::{DeviceError, MAX_DEVICE_BLOCKS};

use crate::device_error::device_error;
use crate::map_sys::BlockPointer;

/// Most interruptions that one call bears.
const MAX_INTERRUPTIONS: usize = 1000;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the device.
    Read,
    /// To the device; durable after a later sync.
    Write,
    /// To the device, durable at the end of the call.
    WriteDurable,
}

/// How a file system or a drive is told to make blocks read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ZeroMode {
    /// `FALLOC_FL_PUNCH_HOLE`, for devices whose space is to be given back: a block device unmaps where it guarantees that
    /// zeros are read then, and refuses where it does not; a sparse file becomes sparse again.
    Unmap = 0,
    /// `FALLOC_FL_ZERO_RANGE`: keeps the space.
    Range = 1,
    /// `FALLOC_FL_PUNCH_HOLE`: gives the space away, where the former is not known (tmpfs).
    Punch = 2,
    /// By writing zeros.
    Write = 3,
}

impl ZeroMode {
    /// The mode to try where this one is not supported.
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Unmap => Self::Range,
            Self::Range => Self::Punch,
            Self::Punch | Self::Write => Self::Write,
        }
    }

    /// The mode with this number.
    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Unmap,
            1 => Self::Range,
            2 => Self::Punch,
            _ => Self::Write,
        }
    }

    /// The flags of `fallocate(2)`.
    pub(crate) fn flags(self) -> i32 {
        match self {
            Self::Range => libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
            Self::Unmap | Self::Punch => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            Self::Write => 0,
        }
    }

    /// Whether an error number says that a mode is not supported.
    pub(crate) fn is_refusal(errno: i32) -> bool {
        matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENOTTY)
    }
}

/// Reads or writes consecutive blocks from or to the given places.
pub(crate) fn transfer(
    file: BorrowedFd<'_>,
    direction: Direction,
    start: u64,
    blocks: &[BlockPointer],
) -> Result<(), DeviceError> {
    let mut offset = start * BLOCK as u64;
    for part in blocks.chunks(MAX_DEVICE_BLOCKS) {
        transfer_part(file, direction, offset, part)?;
        offset += (part.len() * BLOCK) as u64;
    }
    Ok(())
}

fn transfer_part(
    file: BorrowedFd<'_>,
    direction: Direction,
    offset: u64,
    blocks: &[BlockPointer],
) -> Result<(), DeviceError> {
    let mut list = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_DEVICE_BLOCKS];
    for (entry, block) in list.iter_mut().zip(blocks) {
        *entry = libc::iovec { iov_base: block.address().cast(), iov_len: BLOCK };
    }
    let total = blocks.len() * BLOCK;
    let mut done = 0;
    let mut interruptions = 0;
    while done < total {
        let first = done / BLOCK;
        list[first].iov_base = blocks[first].address().wrapping_add(done % BLOCK).cast();
        list[first].iov_len = BLOCK - done % BLOCK;
        let rest = &list[first..blocks.len()];
        let at = libc::off_t::try_from(offset + done as u64).map_err(|_| DeviceError::Other(libc::EFBIG))?;
        let (fd, count) = (file.as_raw_fd(), rest.len() as libc::c_int);
        let outcome = match direction {
            // SAFETY: every entry names bytes of a block that the caller owns during the call.
            Direction::Read => unsafe { libc::preadv(fd, rest.as_ptr(), count, at) },
            // SAFETY: as above; the call only reads them.
            Direction::Write => unsafe { libc::pwritev(fd, rest.as_ptr(), count, at) },
            // SAFETY: as above.
            Direction::WriteDurable => unsafe { libc::pwritev2(fd, rest.as_ptr(), count, at, libc::RWF_DSYNC) },
        };
        match usize::try_from(outcome) {
            // The file ends before the device does: somebody cut it.
            Ok(0) if direction == Direction::Read => return Err(DeviceError::Unreadable),
            Ok(0) => return Err(DeviceError::Other(libc::EIO)),
            Ok(count) => done += count,
            Err(_) => {
                let errno = last_errno();
                interruptions += 1;
                if errno != libc::EINTR || interruptions > MAX_INTERRUPTIONS {
                    return Err(device_error(errno, direction == Direction::Read));
                }
            }
        }
    }
    Ok(())
}

/// Makes blocks read as zeros by one of the first two modes, or gives the error number.
pub(crate) fn zero(file: BorrowedFd<'_>, mode: ZeroMode, start: u64, count: u64) -> Result<(), i32> {
    assert!(mode != ZeroMode::Write, "zeros are written by a transfer");
    let bytes = |blocks: u64| libc::off_t::try_from(blocks * BLOCK as u64).map_err(|_| libc::EFBIG);
    let (offset, length) = (bytes(start)?, bytes(count)?);
    // SAFETY: the call takes no pointers.
    let outcome = unsafe { libc::fallocate(file.as_raw_fd(), mode.flags(), offset, length) };
    if outcome == 0 { Ok(()) } else { Err(last_errno()) }
}

/// BLKSECDISCARD of linux/fs.h.
const SECURE_DISCARD: libc::Ioctl = 0x127d;

/// Has a block device erase bytes, also where it keeps copies that cannot be addressed; or gives the error number.
pub(crate) fn discard_securely(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(), i32> {
    let range = [offset, length];
    // SAFETY: the call reads the two numbers, which outlive it.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), SECURE_DISCARD, range.as_ptr()) };
    if outcome == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Makes all writes durable that have ended.
pub(crate) fn sync(file: BorrowedFd<'_>) -> Result<(), DeviceError> {
    // SAFETY: the call takes no pointers.
    let outcome = unsafe { libc::fdatasync(file.as_raw_fd()) };
    if outcome == 0 { Ok(()) } else { Err(device_error(last_errno(), false)) }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
