//! Files and folders that a start makes. A file bears another name until the start has come so far that it is worth keeping:
//! a start that fails removes all it made, and one that is cut leaves nothing that could be taken for an array.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use config::Size;
use runtime::{Allocation, DeviceKind, DeviceOpenError, DeviceSpec, OpenDevice, create_file};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::ServeError;
use super::devices::named;

/// What the name of a file ends with that is not kept yet.
const UNFINISHED: &str = ".unfinished";

/// What was made and is not kept yet. What is left when it is dropped is removed.
#[derive(Debug, Default)]
pub(super) struct NewFiles {
    files: Vec<NewFile>,
    /// Outer ones first.
    folders: Vec<PathBuf>,
}

#[derive(Debug)]
struct NewFile {
    /// Where it is now.
    at: PathBuf,
    /// Where it belongs.
    path: PathBuf,
}

impl NewFiles {
    /// Makes the folders that are missing above a path. `what` is to lie there.
    pub(super) fn make_folder_for(&mut self, path: &Path, what: &str) -> Result<(), ServeError> {
        let folders = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        let mut missing: Vec<&Path> = folders.take_while(|folder| !folder.exists()).collect();
        while let Some(folder) = missing.pop() {
            std::fs::create_dir(folder).map_err(|source| ServeError::Folder {
                what: what.to_owned(),
                path: folder.to_owned(),
                source,
            })?;
            self.folders.push(folder.to_owned());
        }
        Ok(())
    }

    /// Makes a file of zeros for a device, and says where it is for now.
    pub(super) fn make(&mut self, name: &str, path: &Path, size: Size) -> Result<PathBuf, ServeError> {
        self.make_folder_for(path, &format!("device {name}"))?;
        let mut unfinished = OsString::from(path);
        unfinished.push(UNFINISHED);
        let at = PathBuf::from(unfinished);
        remove_leftover(name, &at)?;
        create_file(&at, size.blocks(), Allocation::Reserved).map_err(|error| refused(name, path, size, error))?;
        self.files.push(NewFile { at: at.clone(), path: path.to_owned() });
        Ok(at)
    }

    /// Folders that were made and are not kept yet.
    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Gives the files their names, durably, and keeps all.
    pub(super) fn keep(&mut self) -> Result<(), ServeError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ServeError::Rename { path, source }
        };
        // One right after the other: an array some of whose members had their names only would lack the others.
        for file in &mut self.files {
            rename(&file.at, &file.path).map_err(failed(&file.path))?;
            file.at.clone_from(&file.path);
        }
        for file in &self.files {
            sync_folder(&file.path).map_err(failed(&file.path))?;
        }
        self.files.clear();
        self.folders.clear();
        Ok(())
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for file in self.files.drain(..) {
            if let Err(error) = std::fs::remove_file(&file.at) {
                tracing::warn!(path = %file.at.display(), %error, "a file that was made for this start stays behind");
            }
        }
        while let Some(folder) = self.folders.pop() {
            // Somebody else may have put something there meanwhile: then it stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Removes what a start left behind that was cut, unless that start still runs.
fn remove_leftover(name: &str, at: &Path) -> Result<(), ServeError> {
    let kind = DeviceKind::File(at.to_owned());
    match OpenDevice::open(&DeviceSpec { name: name.to_owned(), kind, emulate_volatile_cache: false }) {
        Err(DeviceOpenError::Missing { .. }) => return Ok(()),
        // Locked while it is removed, so that it is nobody else's.
        Ok(_locked) => std::fs::remove_file(at),
        Err(DeviceOpenError::TooSmall { .. }) => std::fs::remove_file(at),
        Err(error) => return Err(named(name, error)),
    }
    .map_err(|source| ServeError::Rename { path: at.to_owned(), source })
}

fn refused(name: &str, path: &Path, size: Size, error: DeviceOpenError) -> ServeError {
    let DeviceOpenError::System { source, .. } = error else { return named(name, error) };
    let help = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "Free space on its file system, declare it smaller, or name another path"
        }
        io::ErrorKind::FileTooLarge => "Its file system has no files of that size: declare it smaller",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "Change the owner or mode of its folder, run as another user, or name another path"
        }
        _ => "Name another path",
    };
    ServeError::CreateFile { name: name.to_owned(), path: path.to_owned(), size, source, help }
}

/// Renames a file to a name that is free.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems do not know the flag (renameat2(2)).
        Err(Errno::INVAL | Errno::NOSYS) if !to.exists() => std::fs::rename(from, to),
        result => Ok(result?),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Folder;

    const SIZE: Size = Size::from_mib(1);

    #[test]
    fn what_is_not_kept_goes_and_what_is_kept_stays() {
        let folder = Folder::new("new-files");
        let path = folder.0.join("deep/down/d0.img");
        let mut files = NewFiles::default();
        let at = files.make("d0", &path, SIZE).unwrap();
        assert!(at.exists() && !path.exists());
        drop(files);
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "folders go, too");
        let mut files = NewFiles::default();
        let at = files.make("d0", &path, SIZE).unwrap();
        files.keep().unwrap();
        drop(files);
        assert!(!at.exists() && path.exists());
    }

    #[test]
    fn what_a_cut_start_left_behind_is_made_anew_and_what_another_holds_is_not() {
        let folder = Folder::new("new-files-cut");
        let path = folder.0.join("d0.img");
        let at = folder.0.join("d0.img.unfinished");
        for leftover in ["", "half"] {
            std::fs::write(&at, leftover).unwrap();
            let mut files = NewFiles::default();
            files.make("d0", &path, SIZE).unwrap();
            assert_eq!(std::fs::metadata(&at).unwrap().len(), SIZE.bytes());
        }
        let mut first = NewFiles::default();
        first.make("d0", &path, SIZE).unwrap();
        let kind = DeviceKind::File(at);
        let held = OpenDevice::open(&DeviceSpec { name: "d0".into(), kind, emulate_volatile_cache: false }).unwrap();
        let refused = NewFiles::default().make("d0", &path, SIZE).unwrap_err();
        assert!(refused.to_string().contains("is locked by"), "{refused}");
        drop(held);
        std::fs::write(&path, "precious").unwrap();
        assert!(first.keep().is_err(), "a name that is taken meanwhile is left alone");
        drop(first);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
