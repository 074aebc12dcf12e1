//! Devices that appear while the appliance serves, and such as go. One thread looks at the paths of the configuration now and
//! then, and `brindle drive rescan` does so at once. What appears is opened and told, with what it bears; nothing is written
//! to it here. What is gone is told, and closed as soon as no array uses it, so that another may come to its path.
//!
//! Opening needs no more than the sandbox leaves: the folders of all declared paths are among its rules, whether anything is
//! there at the start or not.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base::ids::DeviceId;
use config::schema::{Config, Device};
use engine::boot::Found;
use engine::command::Verb;
use runtime::{DeviceKind, DeviceOpenError, DeviceSpec, Identity, OpenDevice, SignalStack};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Late;
use super::auto_replace::{Offer, Role};
use super::devices::{look, spec};
use super::report::Reporter;
use crate::events::{Severity, Told};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// How often the thread looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// How long what cannot be opened is left alone. Asking for it by name does not wait.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// How long all reactors may take to let go of a device that nobody uses: a sleeping one wakes once a second.
const LET_GO: Duration = Duration::from_secs(3);

/// How long somebody else may be at the drives before a command gives up.
const TURN: Duration = Duration::from_secs(15);

/// How long the end of the thread is waited for: a device may hold it for ever.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// What is declared, and what was told of it last. Whoever holds it is the only one who gives drives to arrays and who closes
/// them.
pub(super) struct Drives {
    declared: Vec<Declared>,
    /// It was looked at what was there at the start.
    looked: bool,
}

struct Declared {
    spec: DeviceSpec,
    role: Role,
    /// What a file must have: one that is smaller is perhaps still being copied.
    bytes: u64,
    /// It was said that it is gone.
    gone: bool,
    /// What could not be opened, why, and when that is tried again.
    refused: Option<(Identity, String, Instant)>,
}

/// What a look has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Drives that were opened.
    pub(crate) appeared: Vec<Appeared>,
    /// Drives whose paths lead to them no longer.
    pub(crate) gone: Vec<String>,
    /// Drives that are there and could not be opened.
    pub(crate) refused: Vec<Refused>,
}

/// A drive that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Appeared {
    pub(crate) drive: String,
    /// `nothing`, `old_member`, `old_log`, `member` or `log` (of another array), `foreign`, `unusable` or `unreadable`.
    pub(crate) bears: String,
    /// The same for people.
    pub(crate) text: String,
}

/// A drive that could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) drive: String,
    pub(crate) why: String,
}

impl Drives {
    pub(super) fn new(config: &Config) -> Self {
        let declared = |device: &Device| Declared {
            spec: spec(device),
            role: Role::of(device, config),
            bytes: device.size().map_or(0, |size| size.bytes()),
            gone: false,
            refused: None,
        };
        Self { declared: config.devices.iter().map(declared).collect(), looked: false }
    }

    /// Looks at all paths. `at_once`: also at what was refused lately.
    fn look(&mut self, reporter: &Reporter, at_once: bool) -> Seen {
        let mut seen = Seen::default();
        if !core::mem::replace(&mut self.looked, true) {
            self.look_at_start(reporter);
        }
        for (id, declared) in (0..).map(DeviceId).zip(&mut self.declared) {
            let (DeviceKind::File(path) | DeviceKind::Block(path)) = &declared.spec.kind else { continue };
            let there = match Identity::at(path) {
                Ok(identity) => Some(identity),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                // Nobody knows.
                Err(_) => continue,
            };
            match reporter.devices.get(id) {
                Some(open) if open.identity() == there => declared.gone = false,
                Some(_) => declared.is_gone(reporter, id, &mut seen),
                None => match there {
                    Some(identity) if reporter.devices.is_vacant(id) => {
                        declared.appears(reporter, id, identity, at_once, &mut seen);
                    }
                    Some(_) => {}
                    None => declared.refused = None,
                },
            }
        }
        seen
    }

    /// Drives that were there at the start may be what a member's place waits for.
    fn look_at_start(&mut self, reporter: &Reporter) {
        for (id, declared) in (0..).map(DeviceId).zip(&mut self.declared).filter(|(_, declared)| declared.role.is_any())
        {
            if let Some((found, what)) = reporter.devices.get(id).and_then(|device| look(device).ok()) {
                let offer = Offer { id, name: &declared.spec.name, found: &found, bears: what.as_deref() };
                declared.role.offer_at_start(reporter, offer);
            }
        }
    }
}

impl Declared {
    /// Its path does not lead to what is open any more.
    fn is_gone(&mut self, reporter: &Reporter, id: DeviceId, seen: &mut Seen) {
        let name = &self.spec.name;
        if !core::mem::replace(&mut self.gone, true) {
            seen.gone.push(name.clone());
            let text = format!(
                "drive {name} is not at its path any more; an array that uses it goes on until the drive fails"
            );
            reporter.events.tell(Told::new("drive.gone", Severity::Warning, text).with("drive", name.as_str()));
        }
        if is_released(reporter, id) {
            reporter.devices.take_away(id);
            self.gone = false;
        }
    }

    /// Something is at its path, and it is not open.
    fn appears(&mut self, reporter: &Reporter, id: DeviceId, identity: Identity, at_once: bool, seen: &mut Seen) {
        let name = self.spec.name.clone();
        let is_waiting = |(refused, _, until): &(Identity, String, Instant)| {
            *refused == identity && *until > Instant::now() && !at_once
        };
        if self.refused.as_ref().is_some_and(is_waiting) {
            return;
        }
        match self.open(reporter, identity) {
            Ok(Some(device)) => {
                let path = self.path();
                self.refused = None;
                reporter.devices.put(id, device);
                let (appeared, bears) = tell_appeared(reporter, id, &name, &path);
                seen.appeared.push(appeared);
                if let Some((found, what)) = bears {
                    self.role.offer(reporter, Offer { id, name: &name, found: &found, bears: what.as_deref() });
                }
            }
            Ok(None) => {}
            Err(why) => {
                let is_news = self.refused.as_ref().is_none_or(|(_, before, _)| *before != why);
                if is_news {
                    let text = format!("drive {name} is at its path and cannot be opened: {why}");
                    let told = Told::new("drive.not_opened", Severity::Warning, text).with("drive", name.as_str());
                    reporter.events.tell(told.with("why", why.as_str()));
                }
                self.refused = Some((identity, why.clone(), Instant::now() + TRY_AGAIN));
                seen.refused.push(Refused { drive: name, why });
            }
        }
    }

    /// Opens it, unless it is gone again; or why not.
    fn open(&self, reporter: &Reporter, identity: Identity) -> Result<Option<OpenDevice>, String> {
        if let Some(other) = reporter.devices.iter().find(|open| open.identity() == Some(identity)) {
            return Err(format!("it is the same as drive {}", other.name()));
        }
        match OpenDevice::open(&self.spec) {
            Ok(device) if device.blocks() * (base::BLOCK as u64) < self.bytes => Err(format!(
                "it has {} bytes and not the declared {}: perhaps it is still being copied",
                device.blocks() * base::BLOCK as u64,
                self.bytes
            )),
            Ok(device) => Ok(Some(device)),
            Err(DeviceOpenError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn path(&self) -> String {
        match &self.spec.kind {
            DeviceKind::File(path) | DeviceKind::Block(path) => path.display().to_string(),
            DeviceKind::Ram(_) => String::new(),
        }
    }
}

/// What was found on a drive, and in words if it is anything.
type Bears = (Found, Option<String>);

/// Whether no reactor uses a device any more, nor may use it on its own; it is no spare from then on.
pub(super) fn is_released(reporter: &Reporter, id: DeviceId) -> bool {
    let shards = reporter.shards.statuses();
    // One that says nothing may have an older map.
    let all_say = shards.len() == reporter.shards.count();
    let parts = || shards.iter().flat_map(|said| &said.arrays);
    let is_used = parts().any(|part| part.members.contains(&Some(id)) || part.copies.contains(&Some(id)));
    all_say && !is_used && reporter.shards.command(Verb::Release { device: id }).is_ok()
}

/// Looks at what a drive bears that was opened just now, and tells it.
fn tell_appeared(reporter: &Reporter, id: DeviceId, name: &str, path: &str) -> (Appeared, Option<Bears>) {
    let device = reporter.devices.device(id);
    let bytes = device.blocks() * base::BLOCK as u64;
    let looked = look(device);
    let (bears, what) = match &looked {
        Err(error) => ("unreadable", error.to_string()),
        Ok((found, what)) => (kind(reporter, found, what.is_some()), what.as_deref().unwrap_or("nothing").to_owned()),
    };
    let text = match bears {
        "old_member" => format!(
            "drive {name} is there: it was {what}, which has gone on without it (brindle drive return has it catch up, if that can be)"
        ),
        "old_log" => format!("drive {name} is there: it was {what}, which has gone on without it"),
        "unreadable" => format!("drive {name} is there, and what it bears cannot be read: {what}"),
        _ => format!("drive {name} is there, and bears {what}"),
    };
    let told = Told::new("drive.appeared", Severity::Notice, text.clone()).with("drive", name).with("path", path);
    reporter.events.tell(told.with("bytes", bytes).with("bears", bears));
    (Appeared { drive: name.to_owned(), bears: bears.to_owned(), text }, looked.ok())
}

/// What something found is to this appliance.
fn kind(reporter: &Reporter, found: &Found, bears_something: bool) -> &'static str {
    let is_own = |array| reporter.fixed.maps.iter().any(|map| map.uuid == array);
    match found {
        Found::Member(said) if is_own(said.array) => "old_member",
        Found::Member(_) => "member",
        Found::Log(said) if is_own(said.identity.array) => "old_log",
        Found::Log(_) => "log",
        Found::Unusable(_) => "unusable",
        Found::Nothing if bears_something => "foreign",
        Found::Nothing => "nothing",
    }
}

impl Reporter {
    /// The drives, for whoever gives them to arrays, once nobody else does; or that it takes too long.
    pub(super) fn changing(&self) -> Result<MutexGuard<'_, Drives>, String> {
        let begun = Instant::now();
        loop {
            match self.drives.try_lock() {
                Ok(drives) => return Ok(drives),
                // What a panic left behind are names and times.
                Err(TryLockError::Poisoned(drives)) => return Ok(drives.into_inner()),
                Err(TryLockError::WouldBlock) if begun.elapsed() > TURN => {
                    return Err("somebody else is still at the drives: try again".to_owned());
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

/// `drive.rescan`: looks now. What was let go of just now may have a successor at its path.
pub(super) fn call(reporter: &Reporter) -> Result<Value, String> {
    let mut drives = reporter.changing()?;
    let mut seen = drives.look(reporter, true);
    let begun = Instant::now();
    let is_leaving = |id: &DeviceId| reporter.devices.get(*id).is_none() && !reporter.devices.is_vacant(*id);
    let leaving: Vec<DeviceId> = reporter.devices.ids().filter(is_leaving).collect();
    while leaving.iter().any(is_leaving) && begun.elapsed() < LET_GO {
        std::thread::sleep(Duration::from_millis(10));
    }
    if !leaving.is_empty() {
        let again = drives.look(reporter, false);
        seen.appeared.extend(again.appeared);
        seen.refused.extend(again.refused);
    }
    Ok(json!(seen))
}

/// The watching thread. It ends when this is dropped.
pub(super) struct Watch {
    thread: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return };
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < LAST_LOOK {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("the thread that looks for drives ended by a panic");
        }
    }
}

/// Starts it.
pub(super) fn watch(late: &Arc<Late>) -> io::Result<Watch> {
    let ended = Arc::<AtomicBool>::default();
    let (is_over, late) = (Arc::clone(&ended), Arc::clone(late));
    let thread = std::thread::Builder::new().name("drives".to_owned()).spawn(move || {
        let _signals = SignalStack::new();
        let mut looked = Instant::now();
        while !is_over.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
            if looked.elapsed() < EVERY {
                continue;
            }
            looked = Instant::now();
            if let Some(running) = late.0.get()
                && let Ok(mut drives) = running.reporter.drives.try_lock()
            {
                drives.look(&running.reporter, false);
            }
        }
    })?;
    Ok(Watch { thread: Some(thread), ended })
}
