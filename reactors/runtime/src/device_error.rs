//! How devices fail: at opening, in words for the operator; at a request, by what the engine can act upon. It decides
//! nothing about what is to be done.

use std::io;
use std::path::PathBuf;

use base::BLOCK;
use ports::DeviceError;

/// Why a device cannot be used. Each says what, where, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DeviceOpenError {
    /// There is nothing at the path.
    #[error("device {name}: {path} does not exist. Check the path, or let it be created")]
    Missing {
        /// The operator's name.
        name: String,
        /// Where.
        path: PathBuf,
    },
    /// The file exists and was to be created.
    #[error("{path} exists already and is not overwritten. Remove it, or use it as it is")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// We may not.
    #[error("device {name}: no permission to read and write {path}. Change its owner or mode, or run as another user")]
    Permission {
        /// The operator's name.
        name: String,
        /// Where.
        path: PathBuf,
    },
    /// The process has confined itself to other folders.
    #[error(
        "device {name}: the sandbox keeps this process from opening {path}, which is in no folder of a configured device. Name \
         its folder in `drive_folders` and start again, or start with `sandbox: off`"
    )]
    Sandboxed {
        /// The operator's name.
        name: String,
        /// Where.
        path: PathBuf,
    },
    /// A file was named as a block device, or something else as a file.
    #[error("device {name}: {path} is {found}, not {expected}. Correct its kind or its path")]
    WrongKind {
        /// The operator's name.
        name: String,
        /// Where.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it was said to be.
        expected: &'static str,
    },
    /// Another process has the lock.
    #[error("device {name}: {path} is locked by {holder}. Stop that process first: two must never write to one device")]
    Locked {
        /// The operator's name.
        name: String,
        /// Where.
        path: PathBuf,
        /// Who, in words.
        holder: String,
    },
    /// The kernel or another process uses the block device.
    #[error("device {name}: {path} is in use: {by}. Unmount or release it first")]
    InUse {
        /// The operator's name.
        name: String,
        /// Where.
        path: PathBuf,
        /// By whom, in words.
        by: String,
    },
    /// Less than a block.
    #[error("device {name}: it has {bytes} bytes, less than one block of {BLOCK}. Make it larger")]
    TooSmall {
        /// The operator's name.
        name: String,
        /// How large it is.
        bytes: u64,
    },
    /// Sectors larger than our blocks.
    #[error(
        "device {name}: {path} has sectors of {sector} bytes; at most {BLOCK} are supported. Reformat it or use another"
    )]
    SectorSize {
        /// The operator's name.
        name: String,
        /// Where.
        path: PathBuf,
        /// Bytes of a sector.
        sector: u32,
    },
    /// No memory for a device of memory.
    #[error("device {name}: the system refuses {blocks} blocks of memory: {source}. Make it smaller")]
    Memory {
        /// The operator's name.
        name: String,
        /// How large it was to be.
        blocks: u64,
        /// What it said.
        source: io::Error,
    },
    /// The emulated cache is for files and memory.
    #[error("device {name}: an emulated volatile cache is for files and memory only. Remove the setting")]
    CacheNotEmulated {
        /// The operator's name.
        name: String,
    },
    /// A device could not even be read.
    #[error("device {name}: {path} cannot be read: {reason}. Check the device")]
    Unreadable {
        /// The operator's name.
        name: String,
        /// Where.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Anything else the system said.
    #[error("{path}: {doing} failed: {source}")]
    System {
        /// Where.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Says what an error number of a read (or of anything else) means.
pub(crate) fn device_error(errno: i32, reading: bool) -> DeviceError {
    match errno {
        libc::ENODEV | libc::ENXIO | libc::ENOLINK | libc::EBADF | libc::ESHUTDOWN | libc::ENOMEDIUM => {
            DeviceError::Gone
        }
        libc::ENOSPC | libc::EDQUOT => DeviceError::NoSpace,
        // The block layer says ENODATA for a medium error and EILSEQ for a failed protection check; many drivers only
        // ever say EIO. On a write none of these speaks of the blocks' content.
        libc::EIO | libc::ENODATA | libc::EILSEQ if reading => DeviceError::Unreadable,
        other => DeviceError::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_medium_error_is_one_of_reads_only() {
        assert_eq!(device_error(libc::EIO, true), DeviceError::Unreadable);
        assert_eq!(device_error(libc::EIO, false), DeviceError::Other(libc::EIO));
        assert_eq!(device_error(libc::ENODEV, true), DeviceError::Gone);
        assert_eq!(device_error(libc::ENOSPC, false), DeviceError::NoSpace);
    }
}
