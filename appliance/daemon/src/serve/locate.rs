//! The light of a drive's slot: which file of sysfs it is, and writing to it. Enclosures that speak SES have a `locate` file
//! for each slot (the kernel's `enclosure` class, driver `ses`).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use runtime::Identity;
use serde::Deserialize;
use serde_json::{Value, json};

use super::drives::find;
use super::methods::take;
use super::report::Reporter;

/// Where the kernel shows its devices.
pub(super) const SYSFS: &str = "/sys";

/// What begins the names of the links from a drive to its slot.
const SLOT_LINK: &str = "enclosure_device:";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Locate {
    name: String,
    on: bool,
}

/// `drive.locate`: switches the light of a drive's slot.
pub(super) fn call(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Locate { name, on } = take(params)?;
    let placed = find(reporter, &name)?;
    if placed.described.kind != "block" {
        let kind = placed.described.kind;
        return Err(format!("drive {name} is of kind {kind}: only block devices are in an enclosure"));
    }
    let identity = match reporter.devices.get(placed.id).and_then(|open| open.identity()) {
        Some(identity) => identity,
        None => Identity::at(Path::new(&placed.described.path))
            .map_err(|error| format!("drive {name} is not there: {error}"))?,
    };
    let Identity::Block(number) = identity else {
        return Err(format!("at the path of drive {name} is no block device"));
    };
    let light = light(Path::new(SYSFS), number).map_err(|why| format!("drive {name}: {why}"))?;
    switch(&light, on).map_err(|why| format!("drive {name}: {why}"))?;
    Ok(json!({ "drive": name, "on": on, "light": light.display().to_string() }))
}

/// The folders of slots, below which lights are: what the sandbox leaves to be written.
pub(super) fn enclosures(sysfs: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(sysfs.join("class/enclosure")).into_iter().flatten().flatten();
    all.filter_map(|enclosure| enclosure.path().canonicalize().ok()).collect()
}

/// The file that switches the light of the slot in which a block device is, or what is missing for that.
fn light(sysfs: &Path, number: u64) -> Result<PathBuf, String> {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let node = sysfs.join(format!("dev/block/{major}:{minor}"));
    let node =
        node.canonicalize().map_err(|error| format!("the kernel shows nothing at {}: {error}", node.display()))?;
    // A partition lies in the folder of its drive.
    let drive = if node.join("partition").exists() { node.parent().unwrap_or(&node) } else { &node };
    let device = drive.join("device");
    let device = device.canonicalize().map_err(|_| {
        format!("{} has no hardware behind it ({} is missing), so no slot either", drive.display(), device.display())
    })?;
    let slot = linked_slot(&device).or_else(|| listed_slot(sysfs, &device));
    let slot = slot.ok_or_else(|| {
        format!(
            "the kernel knows of no enclosure slot for it: neither {}/{SLOT_LINK}* nor an entry of {} leads to it. The \
             enclosure must speak SES and the driver ses be loaded",
            device.display(),
            sysfs.join("class/enclosure").display()
        )
    })?;
    let light = slot.join("locate");
    if light.exists() { Ok(light) } else { Err(format!("its slot {} has no light to switch", slot.display())) }
}

/// The slot to which the drive itself has a link.
fn linked_slot(device: &Path) -> Option<PathBuf> {
    let mut links = fs::read_dir(device).ok()?.flatten();
    let link = links.find(|entry| entry.file_name().to_string_lossy().starts_with(SLOT_LINK))?;
    link.path().canonicalize().ok()
}

/// The slot that has a link to the drive.
fn listed_slot(sysfs: &Path, device: &Path) -> Option<PathBuf> {
    let slots =
        enclosures(sysfs).into_iter().flat_map(|enclosure| fs::read_dir(enclosure).into_iter().flatten().flatten());
    let mut slots = slots.map(|slot| slot.path());
    slots.find(|slot| slot.join("device").canonicalize().is_ok_and(|linked| linked == device))
}

fn switch(light: &Path, on: bool) -> Result<(), String> {
    // It is never cut: sysfs has no sizes, and the sandbox leaves no more than writing.
    let written = fs::OpenOptions::new().write(true).open(light);
    let written = written.and_then(|mut light| light.write_all(if on { b"1" } else { b"0" }));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => format!(
            "{} cannot be written to ({error}): that takes root, and an enclosure that was there when the appliance was started",
            light.display()
        ),
        _ => format!("{} cannot be written to: {error}", light.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Folder;
    use std::os::unix::fs::symlink;

    /// A drive sda (8:0) with a partition sda1 (8:1), and an enclosure with two slots, as sysfs has them.
    fn sysfs(name: &str) -> Folder {
        let folder = Folder::new(name);
        let at = |path: &str| folder.0.join(path);
        for path in [
            "devices/h/0:0:0:0/block/sda/sda1",
            "devices/h/enc/enclosure/e0/Slot 1",
            "devices/h/enc/enclosure/e0/Slot 2",
        ] {
            fs::create_dir_all(at(path)).unwrap();
        }
        for path in ["dev/block", "class/enclosure"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("devices/h/0:0:0:0/block/sda/sda1/partition"), "1\n").unwrap();
        symlink(at("devices/h/0:0:0:0"), at("devices/h/0:0:0:0/block/sda/device")).unwrap();
        symlink(at("devices/h/0:0:0:0/block/sda"), at("dev/block/8:0")).unwrap();
        symlink(at("devices/h/0:0:0:0/block/sda/sda1"), at("dev/block/8:1")).unwrap();
        symlink(at("devices/h/enc/enclosure/e0"), at("class/enclosure/e0")).unwrap();
        for slot in ["Slot 1", "Slot 2"] {
            fs::write(at("devices/h/enc/enclosure/e0").join(slot).join("locate"), "0").unwrap();
        }
        folder
    }

    const SDA: u64 = 8 << 8;
    const SDA1: u64 = (8 << 8) + 1;

    #[test]
    fn the_light_is_found_by_either_link_also_for_a_partition() {
        let folder = sysfs("locate-links");
        let slot = |name: &str| folder.0.join("devices/h/enc/enclosure/e0").join(name);
        let error = light(&folder.0, SDA).unwrap_err();
        assert!(error.contains("enclosure_device:") && error.contains("SES"), "{error}");
        symlink(folder.0.join("devices/h/0:0:0:0"), slot("Slot 2").join("device")).unwrap();
        let found = light(&folder.0, SDA).unwrap();
        assert_eq!(found, slot("Slot 2").canonicalize().unwrap().join("locate"));
        symlink(slot("Slot 1"), folder.0.join("devices/h/0:0:0:0/enclosure_device:Slot 1")).unwrap();
        let found = light(&folder.0, SDA1).unwrap();
        assert_eq!(found, slot("Slot 1").canonicalize().unwrap().join("locate"), "its own link comes first");
        switch(&found, true).unwrap();
        assert_eq!(fs::read_to_string(&found).unwrap(), "1");
        switch(&found, false).unwrap();
        assert_eq!(fs::read_to_string(&found).unwrap(), "0");
        fs::remove_file(&found).unwrap();
        assert!(light(&folder.0, SDA).unwrap_err().contains("has no light"));
        assert_eq!(enclosures(&folder.0), [folder.0.canonicalize().unwrap().join("devices/h/enc/enclosure/e0")]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let folder = sysfs("locate-missing");
        assert!(light(&folder.0, 7 << 8).unwrap_err().contains("dev/block/7:0"));
        fs::remove_file(folder.0.join("devices/h/0:0:0:0/block/sda/device")).unwrap();
        let error = light(&folder.0, SDA).unwrap_err();
        assert!(error.contains("no hardware behind it"), "{error}");
        assert!(switch(&folder.0.join("none/locate"), true).unwrap_err().contains("cannot be written to"));
        assert!(enclosures(&folder.0.join("none")).is_empty());
    }
}
