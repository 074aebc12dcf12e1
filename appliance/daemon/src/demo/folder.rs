//! The demo's folder with the configuration in it. What is there already stays: an earlier demo's devices are used again,
//! and a configuration that somebody has changed is theirs.

use core::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::DemoError;

/// The configuration's name in the folder.
pub(super) const CONFIG: &str = "demo.yaml";

/// The folder, ready for a demo.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    path: PathBuf,
    earlier: bool,
    changed: bool,
}

/// Makes the folder and the configuration in it, as far as they are missing.
pub(super) fn prepare(path: &Path) -> Result<Prepared, DemoError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| DemoError::File { doing, path, source }
    };
    let earlier = match fs::create_dir(path) {
        Ok(()) => false,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => true,
        Err(error) => return Err(failed("make the folder", path)(error)),
    };
    let file = path.join(CONFIG);
    let changed = match fs::read(&file) {
        Ok(text) => text != config::DEMO.as_bytes(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Written beside and renamed: there is never half a configuration.
            let new = path.join("demo.yaml.new");
            let written = fs::write(&new, config::DEMO).and_then(|()| fs::rename(&new, &file));
            if written.is_err() {
                // The write's error is the one to tell; what it left behind goes as far as possible.
                let _ = fs::remove_file(&new);
                if !earlier {
                    let _ = fs::remove_dir(path);
                }
            }
            written.map_err(failed("write", &file))?;
            false
        }
        Err(error) => return Err(failed("read", &file)(error)),
    };
    Ok(Prepared { path: path.to_owned(), earlier, changed })
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match (self.earlier, self.changed) {
            (false, _) => write!(f, "{path}/ is made, with the configuration {CONFIG}"),
            (true, false) => write!(f, "{path}/ is there from an earlier demo and used again"),
            (true, true) => {
                write!(f, "{path}/ is there from an earlier demo and used again; its {CONFIG} was changed and is kept")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Folder;

    #[test]
    fn a_new_folder_gets_the_embedded_configuration_and_an_old_one_is_kept() {
        let folder = Folder::new("demo-folder");
        let path = folder.0.join("demo");
        let new = prepare(&path).unwrap();
        assert_eq!(new, Prepared { path: path.clone(), earlier: false, changed: false });
        assert!(new.to_string().contains("is made"));
        assert_eq!(fs::read_to_string(path.join(CONFIG)).unwrap(), config::DEMO);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing else is left");

        let again = prepare(&path).unwrap();
        assert!(again.to_string().ends_with("used again"));
        fs::write(path.join(CONFIG), "mine").unwrap();
        let changed = prepare(&path).unwrap();
        assert!(changed.to_string().ends_with("was changed and is kept"));
        assert_eq!(fs::read_to_string(path.join(CONFIG)).unwrap(), "mine");

        fs::remove_file(path.join(CONFIG)).unwrap();
        assert_eq!(prepare(&path).unwrap(), again, "a configuration that is gone is made again");
        assert_eq!(fs::read_to_string(path.join(CONFIG)).unwrap(), config::DEMO);
    }

    #[test]
    fn what_cannot_be_made_is_named() {
        let folder = Folder::new("demo-folder-file");
        let path = folder.0.join("demo");
        fs::write(&path, "a file").unwrap();
        let error = prepare(&path).unwrap_err();
        assert!(matches!(&error, DemoError::File { doing: "make the folder", .. }));
        assert!(error.to_string().contains(path.to_str().unwrap()));
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(path.join(CONFIG)).unwrap();
        assert!(matches!(prepare(&path), Err(DemoError::File { doing: "read", .. })));
    }
}
