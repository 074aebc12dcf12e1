//! The devices of a process, each at its place, which is its [`DeviceId`]. A place may be empty: its device is opened once it
//! appears, and closed once it is gone and nobody uses it, all by the control side. A device that has left its place is still
//! open for whoever has it; only when all have let go of it is the place *vacant*, and may get another. So what was under way at
//! the one never meets the other.
//!
//! Reactors do not ask the set for each request: each has a table of its own ([`crate::queues`]) and sees by a number whether
//! anything has changed since.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use base::ids::DeviceId;

use crate::device::{MAX_DEVICES, OpenDevice};

/// Which file or block device it is, whatever its name. Nodes of one block device may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// A block device, by its number.
    Block(u64),
    /// Anything else, by its file system and number there.
    File(u64, u64),
}

impl Identity {
    /// What a path leads to now.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&std::fs::metadata(path)?))
    }

    /// The same of an open file.
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::Block(metadata.rdev())
        } else {
            Self::File(metadata.dev(), metadata.ino())
        }
    }
}

/// Where a device is, or will be.
struct Place {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Arc<OpenDevice>>,
    /// Who was here before, until all have let go of it.
    before: Weak<OpenDevice>,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of somebody else while holding it leaves these plain values as usable as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All devices of a process.
pub struct DeviceSet {
    places: Box<[Place]>,
    changes: AtomicU64,
}

impl DeviceSet {
    /// A set of open devices, each of which keeps its place.
    ///
    /// # Panics
    /// If there are more than [`MAX_DEVICES`].
    pub fn new(devices: Vec<OpenDevice>) -> Arc<Self> {
        Self::with_places(devices.into_iter().map(|device| (device.name().to_owned(), Some(device))).collect())
    }

    /// A set of places, by the names of their devices, some of which are open.
    ///
    /// # Panics
    /// If there are more than [`MAX_DEVICES`].
    pub fn with_places(places: Vec<(String, Option<OpenDevice>)>) -> Arc<Self> {
        assert!(places.len() <= MAX_DEVICES, "{} devices are more than {MAX_DEVICES}", places.len());
        let place = |(name, device): (String, Option<OpenDevice>)| Place {
            name,
            state: Mutex::new(State { open: device.map(Arc::new), before: Weak::new() }),
        };
        Arc::new(Self { places: places.into_iter().map(place).collect(), changes: AtomicU64::new(0) })
    }

    /// The open device at a place, if there is one.
    pub fn get(&self, id: DeviceId) -> Option<Arc<OpenDevice>> {
        self.places[id.index()].lock().open.clone()
    }

    /// The device of an id.
    ///
    /// # Panics
    /// If it is not open.
    pub fn device(&self, id: DeviceId) -> Arc<OpenDevice> {
        self.get(id).unwrap_or_else(|| panic!("device {id} is not open"))
    }

    /// What the operator calls the device of a place.
    pub fn name(&self, id: DeviceId) -> &str {
        &self.places[id.index()].name
    }

    /// The open devices in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = Arc<OpenDevice>> {
        self.places.iter().filter_map(|place| place.lock().open.clone())
    }

    /// All ids, of empty places too.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = DeviceId> + use<> {
        (0..self.places.len() as u16).map(DeviceId)
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether a place is empty, and nobody has the device any more that was there before.
    pub fn is_vacant(&self, id: DeviceId) -> bool {
        let state = self.places[id.index()].lock();
        state.open.is_none() && state.before.strong_count() == 0
    }

    /// Puts a device at a vacant place.
    ///
    /// # Panics
    /// If the place is not vacant.
    pub fn put(&self, id: DeviceId, device: OpenDevice) {
        let mut state = self.places[id.index()].lock();
        assert!(state.open.is_none() && state.before.strong_count() == 0, "the place of device {id} is taken");
        state.open = Some(Arc::new(device));
        drop(state);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Empties a place. Its device is closed when all that is under way at it has ended. Nobody starts anything new there:
    /// whoever calls this knows that nobody uses it.
    pub fn take_away(&self, id: DeviceId) {
        let mut state = self.places[id.index()].lock();
        if let Some(device) = state.open.take() {
            state.before = Arc::downgrade(&device);
        }
        drop(state);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// A number that changes whenever a place does.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}
