//! What the system's error numbers mean for a device: whose words the engine can act upon.

use ports::DeviceError;

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

/// What an error number means when a device was opened, in words.
pub(crate) fn describe(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
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
