//! Who holds a device, as far as the kernel tells: for messages only, never for a decision.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// The living process that holds the `flock(2)` lock of a file, in words, if `/proc/locks` shows it.
pub(crate) fn lock_holder(metadata: &fs::Metadata) -> Option<String> {
    let (major, minor) = device_numbers(metadata.dev());
    let file = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let pid = flock_holder(&fs::read_to_string("/proc/locks").ok()?, &file)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    living_name(&status).map(|name| format!("process {pid} ({name})"))
}

/// What uses a block device, in words: a mount or a device above it; a process that has opened it cannot be seen.
pub(crate) fn block_user(metadata: &fs::Metadata) -> Option<String> {
    let (major, minor) = device_numbers(metadata.rdev());
    if let Some(mount) = mount_point(major, minor) {
        return Some(format!("it is mounted at {mount}"));
    }
    let holders: Vec<String> = fs::read_dir(format!("/sys/dev/block/{major}:{minor}/holders"))
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    (!holders.is_empty()).then(|| format!("the device {} lies on it", holders.join(", ")))
}

/// Where a block device is mounted, in this mount namespace.
pub(crate) fn mount_point(major: u32, minor: u32) -> Option<String> {
    find_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?, major, minor)
}

/// The bytes of a block device's logical sector.
pub(crate) fn sector_bytes(metadata: &fs::Metadata) -> Option<u32> {
    let (major, minor) = device_numbers(metadata.rdev());
    // A partition has no queue of its own: its drive's lies one level up.
    ["queue", "../queue"].iter().find_map(|queue| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/logical_block_size");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

/// Major and minor number of a device number (glibc's encoding).
pub(crate) fn device_numbers(device: u64) -> (u32, u32) {
    (libc::major(device), libc::minor(device))
}

/// Reads `/proc/PID/status` (proc_pid_status(5)): the name, if the process is neither dead nor a zombie.
fn living_name(status: &str) -> Option<&str> {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("State:")?.starts_with(['Z', 'X']) { None } else { field("Name:") }
}

/// Reads `/proc/locks` (proc_locks(5)): `1: FLOCK  ADVISORY  WRITE 708 08:01:98 0 EOF`.
fn flock_holder(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, inode, ..] = words.as_slice() else { return None };
        if *inode == file { pid.parse().ok() } else { None }
    })
}

/// Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)): identifier, parent, major:minor, root, mount point, ...
fn find_mount(mounts: &str, major: u32, minor: u32) -> Option<String> {
    let device = format!("{major}:{minor}");
    mounts.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (*words.get(2)? == device).then(|| words.get(4).map(|&at| at.to_owned()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read_and_odd_lines_passed_over() {
        let locks =
            "1: POSIX  ADVISORY  WRITE 7 08:01:98 0 EOF\n2: FLOCK\n\n3: FLOCK  ADVISORY  WRITE 708 08:01:98 0 EOF\n";
        assert_eq!(flock_holder(locks, "08:01:98"), Some(708));
        assert_eq!(flock_holder(locks, "08:01:99"), None);
        assert_eq!(living_name("Name:\tbrindle\nState:\tS (sleeping)\n"), Some("brindle"));
        assert_eq!(living_name("Name:\tbrindle\nState:\tZ (zombie)\n"), None);
        assert_eq!(living_name("odd"), None);
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\nodd\n30 22 8:1 /sub /mnt/data rw - ext4 /dev/sda1 rw\n";
        assert_eq!(find_mount(mounts, 8, 1).as_deref(), Some("/mnt/data"));
        assert_eq!(find_mount(mounts, 8, 2), None);
    }
}
