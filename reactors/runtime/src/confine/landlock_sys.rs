//! Which files may be opened: rules for folders, kept by the kernel (landlock(7)). It takes effect on opening; what is open
//! stays so. Also forbidden, where the kernel can: signals to, and abstract sockets of, processes outside.
//!
//! JUSTIFICATION for unsafe: the C library has no functions for these system calls.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::Rule;

/// What may be done below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Files and folders are read.
    Read,
    /// Files are read and written, as they are.
    Attributes,
    /// Device nodes are read, written and controlled.
    Devices,
    /// Files are read, written, made, renamed and removed; device nodes are read, written and controlled.
    Files,
    /// Sockets are made and removed.
    Sockets,
    /// Empty folders are removed.
    RemoveFolders,
}

// linux/landlock.h, LANDLOCK_ACCESS_FS_*.
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;

/// Rights that a rule for a single file may give.
const OF_FILES: u64 = WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV | 1;

/// LANDLOCK_CREATE_RULESET_VERSION: asks for the version instead of making a set of rules.
const ASK_VERSION: libc::c_uint = 1;

/// LANDLOCK_RULE_PATH_BENEATH.
const PATH_BENEATH: libc::c_int = 1;

/// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and LANDLOCK_SCOPE_SIGNAL.
const SCOPES: u64 = 0b11;

impl Access {
    fn rights(self) -> u64 {
        match self {
            Self::Read => READ_FILE | READ_DIR,
            Self::Attributes => READ_FILE | READ_DIR | WRITE_FILE,
            Self::Devices => READ_FILE | READ_DIR | WRITE_FILE | IOCTL_DEV,
            Self::Files => READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV | MAKE_REG | REMOVE_FILE,
            Self::Sockets => READ_DIR | MAKE_SOCK | REMOVE_FILE,
            Self::RemoveFolders => REMOVE_DIR,
        }
    }
}

/// All rights that a version of Landlock knows: what is not known cannot be forbidden.
fn known(version: u32) -> u64 {
    let bits = match version {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}

/// struct landlock_ruleset_attr
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
    scopes: u64,
}

/// struct landlock_path_beneath_attr
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Restricts this thread and all that it starts; says by which version of Landlock, or none if the kernel has none.
pub(super) fn restrict(rules: &[Rule]) -> io::Result<Option<u32>> {
    let Some(version) = version()? else { return Ok(None) };
    // Network rules (version 4) are not made use of: listeners come and go. Scopes came with version 6.
    let ruleset = Ruleset { files: known(version), network: 0, scopes: if version >= 6 { SCOPES } else { 0 } };
    // An older kernel takes a structure that ends before what it does not know.
    let bytes = match version {
        1..=3 => size_of::<u64>(),
        4 | 5 => 2 * size_of::<u64>(),
        _ => size_of::<Ruleset>(),
    };
    // SAFETY: the structure is our own, and read during the call.
    let set = owned(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, bytes, 0) })?;
    for rule in rules {
        allow(&set, rule, known(version))?;
    }
    // SAFETY: the call takes no pointers.
    checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, set.as_raw_fd(), 0) })?;
    Ok(Some(version))
}

/// The version of Landlock; none where the kernel has none, or does not enable it.
fn version() -> io::Result<Option<u32>> {
    let nothing = std::ptr::null::<Ruleset>();
    // SAFETY: with this flag the call takes no structure.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, ASK_VERSION) };
    version_of(checked(version))
}

/// What the kernel's answer to the question for its version comes to.
fn version_of(answer: io::Result<libc::c_long>) -> io::Result<Option<u32>> {
    match answer {
        Ok(version) => Ok(u32::try_from(version).ok().filter(|&version| version > 0)),
        // No such call, or it was left out when the machine was started.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn allow(set: &OwnedFd, rule: &Rule, known: u64) -> io::Result<()> {
    let place = match File::options().read(true).custom_flags(libc::O_PATH).open(&rule.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        place => place?,
    };
    let mut allowed = rule.access.rights() & known;
    if !place.metadata()?.is_dir() {
        allowed &= OF_FILES;
    }
    let beneath = PathBeneath { allowed, parent: place.as_raw_fd() };
    // SAFETY: the structure is our own, and read during the call; the descriptor is open as long.
    let outcome =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, set.as_raw_fd(), PATH_BENEATH, &raw const beneath, 0) };
    checked(outcome).map(drop)
}

fn checked(outcome: libc::c_long) -> io::Result<libc::c_long> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}

fn owned(outcome: libc::c_long) -> io::Result<OwnedFd> {
    let fd = checked(outcome)?;
    // SAFETY: the descriptor was just made for us and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_landlock_is_no_error_and_anything_else_it_says_is() {
        let answer = |number| Err(io::Error::from_raw_os_error(number));
        assert_eq!(version_of(Ok(7)).expect("it has it"), Some(7));
        for without in [libc::ENOSYS, libc::EOPNOTSUPP] {
            assert_eq!(version_of(answer(without)).expect("no error"), None);
        }
        assert_eq!(version_of(answer(libc::EPERM)).expect_err("refused").raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn older_versions_are_not_asked_for_what_they_do_not_know() {
        for (version, rights) in [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (7, 16)] {
            assert_eq!(known(version), (1 << rights) - 1, "version {version}");
        }
        assert!(known(2) & TRUNCATE == 0 && known(3) & TRUNCATE != 0 && known(4) & IOCTL_DEV == 0);
    }
}
