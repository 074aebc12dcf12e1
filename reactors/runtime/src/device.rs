//! Opening devices: files, block devices and memory, each with an exclusive lock for as long as it is open. Nothing here
//! creates or changes content but [`create_file`], and nothing is ever formatted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use base::BLOCK;
use base::time::Span;
use ports::{DeviceError, DeviceOp};

use crate::blocking_sys::{self, Direction, ZeroMode};
use crate::device_error::{DeviceOpenError, device_error};
use crate::device_set::Identity;
use crate::event_sys::wait_readable;
use crate::holder;
use crate::map_sys::{AlignedBlock, BlockPointer};
use crate::ram::RamDisk;
use crate::volatile::VolatileCache;

/// Most devices of a process.
pub const MAX_DEVICES: usize = 256;

/// Blocks of zeros that are written at once where a device knows no better way.
const ZERO_CHUNK: u64 = ports::MAX_DEVICE_BLOCKS as u64;

/// Times that a device in use by nobody who can be named is tried again, and the pause before each: three seconds in all.
const RELEASE_ATTEMPTS: u32 = 150;
/// Times that a device is tried whose user can be named: it may be dying just now.
const NAMED_ATTEMPTS: u32 = 10;
/// See [`RELEASE_ATTEMPTS`].
const RELEASE_PAUSE: Span = Span::from_millis(20);

/// What a device is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A regular file.
    File(PathBuf),
    /// A block device.
    Block(PathBuf),
    /// Memory of this many blocks, zero at first.
    Ram(u64),
}

/// A device to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// What the operator calls it.
    pub name: String,
    /// What it is made of.
    pub kind: DeviceKind,
    /// Keep what is not flushed in this process only (`volatile_cache: emulated`). For files and memory.
    pub emulate_volatile_cache: bool,
}

/// Where blocks really lie.
pub(crate) enum Medium {
    /// A file or block device, and how it is told to zero.
    File(File, AtomicU8),
    /// Memory.
    Ram(RamDisk),
}

impl Medium {
    /// Reads or writes and waits for the end.
    pub(crate) fn transfer(
        &self,
        direction: Direction,
        start: u64,
        blocks: &[BlockPointer],
    ) -> Result<(), DeviceError> {
        match (self, direction) {
            (Self::File(file, _), _) => blocking_sys::transfer(file.as_fd(), direction, start, blocks),
            (Self::Ram(ram), Direction::Read) => ram.read(start, blocks.iter().copied()),
            (Self::Ram(ram), _) => ram.write(start, blocks.iter().copied()),
        }
    }

    /// Makes blocks zero and waits for the end.
    pub(crate) fn zero(&self, start: u64, count: u64) -> Result<(), DeviceError> {
        let (file, mode) = match self {
            Self::Ram(ram) => return ram.zero(start, count),
            Self::File(file, mode) => (file, mode),
        };
        loop {
            let tried = ZeroMode::from_number(mode.load(Ordering::Relaxed));
            if tried == ZeroMode::Write {
                break;
            }
            match blocking_sys::zero(file.as_fd(), tried, start, count) {
                Ok(()) => return Ok(()),
                Err(errno) if ZeroMode::is_refusal(errno) => mode.store(tried.next() as u8, Ordering::Relaxed),
                Err(errno) => return Err(device_error(errno, false)),
            }
        }
        let zeros = Box::new(AlignedBlock([0; BLOCK]));
        let end = start + count;
        let mut at = start;
        while at < end {
            let part = (end - at).min(ZERO_CHUNK);
            let from = vec![BlockPointer::of_source(&zeros.0); part as usize];
            self.transfer(Direction::Write, at, &from)?;
            at += part;
        }
        Ok(())
    }

    /// Makes all writes durable that have ended.
    pub(crate) fn sync(&self) -> Result<(), DeviceError> {
        match self {
            Self::File(file, _) => blocking_sys::sync(file.as_fd()),
            Self::Ram(_) => Ok(()),
        }
    }
}

/// An open device. It stays locked until it is dropped.
pub struct OpenDevice {
    name: String,
    medium: Medium,
    identity: Option<Identity>,
    cache: Option<VolatileCache>,
    blocks: u64,
    direct: bool,
    notes: Vec<String>,
}

impl OpenDevice {
    /// Opens and locks a device.
    pub fn open(spec: &DeviceSpec) -> Result<Self, DeviceOpenError> {
        let name = spec.name.clone();
        let cache = spec.emulate_volatile_cache.then(VolatileCache::new);
        let (path, block) = match &spec.kind {
            DeviceKind::Ram(blocks) => {
                let blocks = *blocks;
                if blocks == 0 {
                    return Err(DeviceOpenError::TooSmall { name, bytes: 0 });
                }
                let disk = RamDisk::new(blocks).map_err(|source| DeviceOpenError::Memory {
                    name: name.clone(),
                    blocks,
                    source,
                })?;
                let (medium, notes) = (Medium::Ram(disk), Vec::new());
                return Ok(Self { name, medium, identity: None, cache, blocks, direct: false, notes });
            }
            DeviceKind::File(path) => (path, false),
            DeviceKind::Block(_) if cache.is_some() => return Err(DeviceOpenError::CacheNotEmulated { name }),
            DeviceKind::Block(path) => (path, true),
        };
        check_kind(&name, path, block)?;
        let (file, refused_early) = take_patiently(&name, path, block)?;
        let bytes = size(path, &file)?;
        if bytes < BLOCK as u64 {
            return Err(DeviceOpenError::TooSmall { name, bytes });
        }
        let direct = !refused_early && !refuses_direct(&name, path, &file)?;
        let notes = if direct {
            Vec::new()
        } else {
            vec![format!(
                "device {name}: the file system of {} refuses direct I/O: the page cache is used, which costs copies",
                path.display()
            )]
        };
        // A file that has all its space was given it so that writing never fails for want of it.
        let zeroing = if block || is_sparse(&file, bytes) { ZeroMode::Unmap } else { ZeroMode::Range };
        let identity = file.metadata().ok().map(|metadata| Identity::of(&metadata));
        let medium = Medium::File(file, AtomicU8::new(zeroing as u8));
        Ok(Self { name, medium, identity, cache, blocks: bytes / BLOCK as u64, direct, notes })
    }

    /// What the operator calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which file or block device it is; none for memory.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Blocks it has.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether the page cache is by-passed.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Words for the operator, if not all is as wished.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How zeros are made, as far as was tried.
    pub fn zeroing(&self) -> &'static str {
        match &self.medium {
            Medium::Ram(_) => "memory is cleared",
            Medium::File(_, mode) => match ZeroMode::from_number(mode.load(Ordering::Relaxed)) {
                ZeroMode::Range => "its file system writes them, or knows them",
                ZeroMode::Unmap | ZeroMode::Punch => "its space is given back: the device guarantees zeros",
                ZeroMode::Write => "they are written",
            },
        }
    }

    /// Has the device erase all that it holds, also where it keeps copies that cannot be addressed. What it reads as after that
    /// nobody says. An error names what is missing.
    pub fn discard_securely(&self) -> Result<(), String> {
        let (Medium::File(file, _), Some(Identity::Block(_))) = (&self.medium, self.identity) else {
            return Err("only block devices can be asked for that".to_owned());
        };
        blocking_sys::discard_securely(file.as_fd(), 0, self.blocks * BLOCK as u64).map_err(|errno| {
            let error = io::Error::from_raw_os_error(errno);
            format!("the kernel has no secure discard for it (BLKSECDISCARD: {error})")
        })
    }

    pub(crate) fn medium(&self) -> &Medium {
        &self.medium
    }

    pub(crate) fn cache(&self) -> Option<&VolatileCache> {
        self.cache.as_ref()
    }

    /// Does a request and waits for its end: what start-up code and helper threads call.
    pub(crate) fn perform(&self, op: DeviceOp, start: u64, blocks: &[BlockPointer]) -> Result<(), DeviceError> {
        let medium = &self.medium;
        match (op, &self.cache) {
            (DeviceOp::Read, None) => medium.transfer(Direction::Read, start, blocks),
            (DeviceOp::Read, Some(cache)) => cache.read(medium, start, blocks),
            (DeviceOp::Write, None) => medium.transfer(Direction::Write, start, blocks),
            (DeviceOp::Write, Some(cache)) => cache.write(medium, start, blocks),
            (DeviceOp::WriteDurable, None) => medium.transfer(Direction::WriteDurable, start, blocks),
            (DeviceOp::WriteDurable, Some(cache)) => cache.write_durable(medium, start, blocks),
            (DeviceOp::Flush, None) => medium.sync(),
            (DeviceOp::Flush, Some(cache)) => cache.flush(medium),
            (DeviceOp::WriteZeroes(count), None) => medium.zero(start, count.into()),
            (DeviceOp::WriteZeroes(count), Some(cache)) => cache.zero(medium, start, count.into()),
        }
    }
}

/// How the space of a new file is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// On first write: a file system may turn out to be full then.
    Sparse,
    /// Now.
    Reserved,
}

/// Makes a file of zeros that is durable when this returns. A file that could not be made whole is removed again.
pub fn create_file(path: &Path, blocks: u64, allocation: Allocation) -> Result<(), DeviceOpenError> {
    let system = |doing| move |source| DeviceOpenError::System { path: path.to_owned(), doing, source };
    let file = match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(DeviceOpenError::Exists { path: path.to_owned() });
        }
        Err(error) => return Err(system("creating the file")(error)),
    };
    let made = fill(&file, blocks, allocation).and_then(|()| sync_folder(path));
    if let Err(error) = made {
        // Nothing half made stays. If even this fails, the first error is the one that matters.
        let _ = std::fs::remove_file(path);
        return Err(system("giving the file its size")(error));
    }
    Ok(())
}

fn fill(file: &File, blocks: u64, allocation: Allocation) -> io::Result<()> {
    let bytes = blocks.checked_mul(BLOCK as u64).ok_or(io::ErrorKind::FileTooLarge)?;
    file.set_len(bytes)?;
    if allocation == Allocation::Reserved {
        rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    }
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn check_kind(name: &str, path: &Path, block: bool) -> Result<(), DeviceOpenError> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return Err(opening(name, path, error)),
    };
    let kind = metadata.file_type();
    let found = if kind.is_file() {
        "a file"
    } else if kind.is_block_device() {
        "a block device"
    } else if kind.is_dir() {
        "a folder"
    } else {
        "neither a file nor a block device"
    };
    let expected = if block { "a block device" } else { "a file" };
    if found != expected {
        let (name, path) = (name.to_owned(), path.to_owned());
        return Err(DeviceOpenError::WrongKind { name, path, found, expected });
    }
    if block
        && let Some(sector) = holder::sector_bytes(&metadata)
        && sector as usize > BLOCK
    {
        return Err(DeviceOpenError::SectorSize { name: name.to_owned(), path: path.to_owned(), sector });
    }
    Ok(())
}

/// A device that cannot be had now: who uses it, in words, if that is known.
struct Taken(Option<String>);

/// Opens and locks. A process that was killed while it had requests in an io_uring is held by the kernel until these have
/// ended, a little longer than it lives: a user who cannot be named is waited for, and one who can a moment.
fn take_patiently(name: &str, path: &Path, block: bool) -> Result<(File, bool), DeviceOpenError> {
    for attempt in 1..=RELEASE_ATTEMPTS {
        match take(name, path, block)? {
            Ok(taken) => return Ok(taken),
            Err(Taken(Some(by))) if attempt >= NAMED_ATTEMPTS => return Err(in_use(name, path, block, by)),
            Err(Taken(_)) => {
                wait_readable(&[], Some(RELEASE_PAUSE));
            }
        }
    }
    let unknown =
        if block { "another process, or a mount of one of its partitions, holds it" } else { "another process" };
    take(name, path, block)?.map_err(|Taken(by)| in_use(name, path, block, by.unwrap_or_else(|| unknown.to_owned())))
}

fn in_use(name: &str, path: &Path, block: bool, by: String) -> DeviceOpenError {
    let (name, path) = (name.to_owned(), path.to_owned());
    if block { DeviceOpenError::InUse { name, path, by } } else { DeviceOpenError::Locked { name, path, holder: by } }
}

/// Opens with `O_DIRECT`, or without where that is refused at once, and locks. For a block device `O_EXCL` asks the kernel
/// for the exclusive use that mounts and device mappers also ask for (open(2)).
fn take(name: &str, path: &Path, block: bool) -> Result<Result<(File, bool), Taken>, DeviceOpenError> {
    use rustix::fs::{FlockOperation, flock};
    let exclusive = if block { libc::O_EXCL } else { 0 };
    let open = |more| OpenOptions::new().read(true).write(true).custom_flags(exclusive | more).open(path);
    let opened = match open(libc::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0).map(|file| (file, true)),
        other => other.map(|file| (file, false)),
    };
    let (file, refused_direct) = match opened {
        Ok(opened) => opened,
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            return Ok(Err(Taken(std::fs::metadata(path).ok().and_then(|metadata| holder::block_user(&metadata)))));
        }
        Err(error) => return Err(opening(name, path, error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Ok((file, refused_direct))),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Ok(Err(Taken(file.metadata().ok().and_then(|metadata| holder::lock_holder(&metadata)))))
        }
        Err(error) => {
            Err(DeviceOpenError::System { path: path.to_owned(), doing: "locking", source: io::Error::from(error) })
        }
    }
}

fn opening(name: &str, path: &Path, source: io::Error) -> DeviceOpenError {
    let (name, path) = (name.to_owned(), path.to_owned());
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => DeviceOpenError::Missing { name, path },
        Some(libc::EACCES) if crate::confine::forbids(&path) => DeviceOpenError::Sandboxed { name, path },
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => DeviceOpenError::Permission { name, path },
        _ => DeviceOpenError::System { path, doing: "opening", source },
    }
}

fn is_sparse(file: &File, bytes: u64) -> bool {
    // st_blocks counts 512 bytes whatever the file system's block.
    file.metadata().is_ok_and(|metadata| metadata.blocks() * 512 < bytes)
}

fn size(path: &Path, file: &File) -> Result<u64, DeviceOpenError> {
    // Seeking to the end works for files and block devices alike.
    rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).map_err(|error| DeviceOpenError::System {
        path: path.to_owned(),
        doing: "finding the size",
        source: io::Error::from(error),
    })
}

/// Some file systems take `O_DIRECT` at open and refuse it at the first read.
fn refuses_direct(name: &str, path: &Path, file: &File) -> Result<bool, DeviceOpenError> {
    let mut block = Box::new(AlignedBlock([0; BLOCK]));
    match blocking_sys::transfer(file.as_fd(), Direction::Read, 0, &[BlockPointer::of(&mut block.0)]) {
        Ok(()) => Ok(false),
        Err(DeviceError::Other(libc::EINVAL)) => {
            let flags = rustix::fs::fcntl_getfl(file).map(|flags| flags - rustix::fs::OFlags::DIRECT);
            flags.and_then(|flags| rustix::fs::fcntl_setfl(file, flags)).map_err(|error| DeviceOpenError::System {
                path: path.to_owned(),
                doing: "switching off direct I/O",
                source: io::Error::from(error),
            })?;
            Ok(true)
        }
        // An unreadable first block is the array's business, not ours: a member may be repaired.
        Err(DeviceError::Unreadable) => Ok(false),
        Err(error) => {
            let reason = match error {
                DeviceError::Other(errno) => io::Error::from_raw_os_error(errno).to_string(),
                _ => "the device is gone".to_owned(),
            };
            Err(DeviceOpenError::Unreadable { name: name.to_owned(), path: path.to_owned(), reason })
        }
    }
}
