//! Erasing what a drive bears that nothing uses. First what says that it bears anything, durably, so that a wipe that is cut
//! leaves nothing that could be taken for something whole; then, unless that is enough, everything. One thread for each drive,
//! as a device may take its time; the reactors know nothing of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::BLOCK;
use base::ids::{DeviceBlock, DeviceId};
use ports::{DeviceError, SyncDevice};
use runtime::sync_device::{HEAD_BYTES, TAIL_BYTES};
use runtime::{OpenDevice, SignalStack, SyncHandle};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ServeError;
use super::devices::look;
use super::drives::{find, uses};
use super::methods::take;
use super::report::Reporter;
use super::rescan::is_released;
use crate::events::{Events, Severity, Told};

/// Most drives that are wiped at once.
const MAX_WIPES: usize = 8;

/// Bytes that are erased between two looks at how far it is.
const STEP_BYTES: u64 = 64 << 20;

/// How thoroughly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Depth {
    /// Only what says that the drive bears something.
    Quick,
    /// Everything reads as zeros.
    #[default]
    Zeros,
    /// The drive is asked to erase the cells as well, if it can.
    Secure,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    name: String,
    #[serde(default)]
    depth: Depth,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfDrive {
    name: String,
}

/// What a drive is and bears.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) drive: String,
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// What it is used for; empty if nothing uses it.
    pub(crate) used: String,
    /// What it bears, in words; none if nothing that is known.
    pub(crate) bears: Option<String>,
}

/// How far a wipe is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) drive: String,
    /// `running`, `done` or `failed`.
    pub(crate) state: String,
    pub(crate) done_bytes: u64,
    pub(crate) bytes: u64,
    /// Once it is over: what was done, or why it failed.
    pub(crate) text: String,
}

/// A wipe, under way or over.
pub(super) struct Wipe {
    drive: String,
    depth: Depth,
    bytes: u64,
    done: AtomicU64,
    /// What was done, or why not.
    end: Mutex<Option<Result<String, String>>>,
}

/// Those under way, and the last of each drive.
#[derive(Default)]
pub(super) struct Wipes(Mutex<Vec<(DeviceId, Arc<Wipe>)>>);

impl Wipe {
    fn end(&self) -> MutexGuard<'_, Option<Result<String, String>>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> Progress {
        let (state, text) = match &*self.end() {
            None => ("running", String::new()),
            Some(Ok(text)) => ("done", text.clone()),
            Some(Err(why)) => ("failed", why.clone()),
        };
        let (drive, done_bytes) = (self.drive.clone(), self.done.load(Ordering::Relaxed));
        Progress { drive, state: state.to_owned(), done_bytes, bytes: self.bytes, text }
    }
}

impl Wipes {
    fn lock(&self) -> MutexGuard<'_, Vec<(DeviceId, Arc<Wipe>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a drive is being wiped.
    pub(super) fn is_running(&self, id: DeviceId) -> bool {
        self.lock().iter().any(|(of, wipe)| *of == id && wipe.end().is_none())
    }
}

/// `drive.show`: what a drive bears.
pub(super) fn show(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let OfDrive { name } = take(params)?;
    let placed = find(reporter, &name)?;
    let open = reporter.devices.get(placed.id).ok_or_else(|| format!("nothing is open at the path of drive {name}"))?;
    let used = uses(&reporter.fixed, &reporter.shards.statuses()).get(&placed.id).copied();
    let bytes = open.blocks() * BLOCK as u64;
    let (_, bears) = look(open).map_err(|error| error.to_string())?;
    let used = used.map_or_else(String::new, |used| used.role(&reporter.fixed.maps[used.array].name));
    Ok(json!(Shown { drive: name, path: placed.described.path.clone(), bytes, used, bears }))
}

/// `drive.wipe`: begins.
pub(super) fn begin(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Begin { name, depth } = take(params)?;
    let _drives = reporter.changing()?;
    let placed = find(reporter, &name)?;
    let id = placed.id;
    let device = reporter.devices.get(id).ok_or_else(|| format!("nothing is open at the path of drive {name}"))?;
    if reporter.wipes.is_running(id) {
        return Err(format!("drive {name} is being wiped already"));
    }
    let shards = reporter.shards.statuses();
    if let Some(used) = uses(&reporter.fixed, &shards).get(&id) {
        let role = used.role(&reporter.fixed.maps[used.array].name);
        return Err(format!("drive {name} is in use, as {role}: what it holds is needed"));
    }
    // Only all of them together know of every use.
    if shards.len() < reporter.shards.count() || !is_released(reporter, id) {
        return Err(format!("drive {name} may still be used by a reactor: try again"));
    }
    let mut wipes = reporter.wipes.lock();
    if wipes.iter().filter(|(_, wipe)| wipe.end().is_none()).count() >= MAX_WIPES {
        return Err(format!("{MAX_WIPES} drives are being wiped: wait for one of them"));
    }
    let wipe = Arc::new(Wipe {
        drive: name,
        depth,
        bytes: if depth == Depth::Quick { (HEAD_BYTES + TAIL_BYTES) as u64 } else { device.blocks() * BLOCK as u64 },
        done: AtomicU64::new(0),
        end: Mutex::new(None),
    });
    let (events, theirs) = (reporter.events.clone(), Arc::clone(&wipe));
    let thread = std::thread::Builder::new().name("wipe".to_owned());
    thread
        .spawn(move || carry_out(&theirs, device, &events))
        .map_err(|error| format!("no thread can be had: {error}"))?;
    wipes.retain(|(of, _)| *of != id);
    wipes.push((id, Arc::clone(&wipe)));
    Ok(json!(wipe.progress()))
}

/// `drive.wipe.status`: how far it is.
pub(super) fn status(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let OfDrive { name } = take(params)?;
    let wipes = reporter.wipes.lock();
    let found = wipes.iter().find(|(_, wipe)| wipe.drive == name);
    let (_, wipe) = found.ok_or_else(|| format!("drive {name} was not wiped since the start"))?;
    Ok(json!(wipe.progress()))
}

fn carry_out(wipe: &Wipe, device: Arc<OpenDevice>, events: &Events) {
    let _signals = SignalStack::new();
    let result = erase(wipe, &device).and_then(|how| {
        // What is said to be erased is looked at once more.
        match look(device) {
            Ok((_, None)) => Ok(how),
            Ok((_, Some(what))) => Err(format!("it still bears {what}")),
            Err(error) => Err(format!("it cannot be read: {error}")),
        }
    });
    let name = &wipe.drive;
    let told = match &result {
        Ok(how) => Told::new("drive.wiped", Severity::Notice, format!("drive {name} is wiped: {how}")),
        Err(why) => Told::new("drive.not_wiped", Severity::Error, format!("drive {name} could not be wiped: {why}")),
    };
    events.tell(told.with("drive", name.as_str()).with("depth", json!(wipe.depth)));
    *wipe.end() = Some(result);
}

/// Erases it; how, in words.
fn erase(wipe: &Wipe, device: &Arc<OpenDevice>) -> Result<String, String> {
    let failed = |error: DeviceError| ServeError::Device { name: wipe.drive.clone(), error }.to_string();
    let mut handle = SyncHandle::of(Arc::clone(device));
    let blocks = device.blocks();
    let (head, tail) = (blocks.min((HEAD_BYTES / BLOCK) as u64), blocks.min((TAIL_BYTES / BLOCK) as u64));
    // Written, not asked for: no drive may keep what says that it bears something.
    for (start, count) in [(0, head), (blocks - tail, tail)] {
        let zeros = vec![[0; BLOCK]; count as usize];
        handle.write(DeviceBlock(start), &zeros).map_err(failed)?;
    }
    handle.flush().map_err(failed)?;
    if wipe.depth == Depth::Quick {
        wipe.done.store(wipe.bytes, Ordering::Relaxed);
        return Ok("nothing says any more that it bears anything; what lay there is not erased".to_owned());
    }
    let refused = match wipe.depth {
        Depth::Secure => match device.discard_securely() {
            Ok(()) => {
                wipe.done.store(wipe.bytes, Ordering::Relaxed);
                // What it reads as after that is not said anywhere.
                zero(wipe, device, &mut handle).map_err(failed)?;
                return Ok("the drive has erased it securely (BLKSECDISCARD), and it reads as zeros".to_owned());
            }
            Err(why) => Some(why),
        },
        Depth::Quick | Depth::Zeros => None,
    };
    zero(wipe, device, &mut handle).map_err(failed)?;
    let how = device.zeroing();
    Ok(match refused {
        None => format!("it reads as zeros ({how})"),
        Some(why) => format!(
            "it was not erased securely: {why}. Instead it reads as zeros ({how}); cells that it does not address any more may \
             keep what they held"
        ),
    })
}

/// Makes all of it zero, durably.
fn zero(wipe: &Wipe, device: &OpenDevice, handle: &mut SyncHandle) -> Result<(), DeviceError> {
    let (blocks, step) = (device.blocks(), STEP_BYTES / BLOCK as u64);
    let mut at = 0;
    while at < blocks {
        let count = step.min(blocks - at);
        handle.write_zeroes(DeviceBlock(at), count)?;
        at += count;
        wipe.done.store(at * BLOCK as u64, Ordering::Relaxed);
    }
    handle.flush()
}
