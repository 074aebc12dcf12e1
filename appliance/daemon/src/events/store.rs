//! The files of the history: a line of JSON for each event, the newest in `events.jsonl`, those before them in
//! `events.old.jsonl`. When the new file would outgrow half of the bound, it becomes the old one and that one goes: at least
//! the newer half of the bound is always there, and never more than all of it.
//!
//! A crash may leave the last line torn, or zeros behind it. Opening only reads; the first event that is written cuts what
//! cannot be read off the end, and whoever opens is told how much it was. Sequence numbers go on from the last whole line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use super::{Filter, MAX_LINE_BYTES, Record};

/// The newest events.
const NEW: &str = "events.jsonl";
/// Those before them.
const OLD: &str = "events.old.jsonl";

/// Only the owner reads what hosts and operators did.
const MODE: u32 = 0o600;

/// Why there is no history.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process keeps its own there.
    #[error("the history of events in {} is in use: another brindle writes it. Give each a folder of its own", .0.display())]
    InUse(PathBuf),
    /// Something else lies there.
    #[error("{} is no history of events. Move it away, or name another folder as events.path", .0.display())]
    NotOurs(PathBuf),
    /// The system refused.
    #[error("the history of events at {} cannot be used: {source}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was found of an earlier process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The last event.
    pub last: Option<Record>,
    /// Bytes behind it that cannot be read.
    pub torn_bytes: u64,
}

/// The files.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    max_bytes: u64,
    /// The folder itself, locked as long as the store is open.
    _locked: File,
    /// Open for writing, once something was written.
    new: Option<File>,
    /// Bytes of it that are whole lines.
    whole_bytes: u64,
    next_sequence: u64,
}

impl Store {
    /// Opens the history in a folder that is there. Nothing is written.
    pub fn open(folder: &Path, max_bytes: u64) -> Result<(Self, Found), StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::System { path, source }
        };
        let locked = File::open(folder).map_err(failed(folder))?;
        match flock(&locked, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::InUse(folder.to_owned())),
            Err(error) => return Err(failed(folder)(error.into())),
        }
        let (new, old) = (folder.join(NEW), folder.join(OLD));
        let (last, whole_bytes, all_bytes) = tail(&new)?;
        // After a rotation that a crash cut short there is only the old file.
        let last = match last {
            Some(last) => Some(last),
            None => tail(&old)?.0,
        };
        let next_sequence = last.as_ref().map_or(1, |last| last.sequence.saturating_add(1));
        let found = Found { last, torn_bytes: all_bytes - whole_bytes };
        let folder = folder.to_owned();
        Ok((Self { folder, max_bytes, _locked: locked, new: None, whole_bytes, next_sequence }, found))
    }

    /// The number of the next event.
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Adds an event behind all others; the number that it gets is the next one.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        assert_eq!(record.sequence, self.next_sequence, "events are numbered in order");
        let line = record.line();
        if self.whole_bytes > 0 && self.whole_bytes + line.len() as u64 > self.max_bytes / 2 {
            self.rotate()?;
        }
        if self.new.is_none() {
            self.new = Some(self.open_new()?);
        }
        let file = self.new.as_mut().expect("it was opened just now");
        if let Err(error) = file.write_all(line.as_bytes()) {
            // A part of the line may be there: without it the next one is whole. If that fails too, the next start cuts it.
            let _ = file.set_len(self.whole_bytes);
            self.new = None;
            return Err(error);
        }
        self.whole_bytes += line.len() as u64;
        self.next_sequence += 1;
        Ok(())
    }

    /// Makes durable what was added.
    pub fn sync(&mut self) -> io::Result<()> {
        self.new.as_ref().map_or(Ok(()), File::sync_data)
    }

    fn open_new(&mut self) -> io::Result<File> {
        let path = self.folder.join(NEW);
        let is_there = path.exists();
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        file.set_len(self.whole_bytes)?;
        if !is_there {
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(file)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        self.new = None;
        // What is torn at its end is cut off as if it were written to.
        OpenOptions::new().write(true).open(self.folder.join(NEW))?.set_len(self.whole_bytes)?;
        std::fs::rename(self.folder.join(NEW), self.folder.join(OLD))?;
        File::open(&self.folder)?.sync_all()?;
        self.whole_bytes = 0;
        Ok(())
    }

    /// What can be read now, whatever is written or rotated meanwhile.
    pub fn reader(&self) -> io::Result<Reader> {
        let open = |name| match File::open(self.folder.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok(Reader { old: open(OLD)?, new: open(NEW)?, new_bytes: self.whole_bytes })
    }
}

/// The history at a moment.
#[derive(Debug)]
pub struct Reader {
    old: Option<File>,
    new: Option<File>,
    new_bytes: u64,
}

impl Reader {
    /// The events that a filter admits, oldest first. What is no event is passed over.
    pub fn list(self, filter: &Filter, limit: usize) -> io::Result<Vec<Record>> {
        let mut wanted = std::collections::VecDeque::new();
        let old = self.old.map(|file| file.take(u64::MAX));
        let new = self.new.map(|file| file.take(self.new_bytes));
        for file in [old, new].into_iter().flatten() {
            let mut lines = BufReader::new(file);
            let mut line = Vec::new();
            loop {
                line.clear();
                if (&mut lines).take(4 * MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)? == 0 {
                    break;
                }
                let Ok(record) = serde_json::from_slice::<Record>(&line) else { continue };
                if !filter.admits(&record) {
                    continue;
                }
                if wanted.len() == limit {
                    if filter.after.is_some() {
                        return Ok(wanted.into());
                    }
                    wanted.pop_front();
                }
                wanted.push_back(record);
            }
        }
        Ok(wanted.into())
    }
}

/// The last event of a file, the bytes up to its end, and all bytes. None where there is no file.
fn tail(path: &Path) -> Result<(Option<Record>, u64, u64), StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, 0, 0)),
        Err(source) => return Err(StoreError::System { path: path.to_owned(), source }),
    };
    let mut end = bytes.len();
    while let Some(newline) = bytes[..end].iter().rposition(|&byte| byte == b'\n') {
        let start = bytes[..newline].iter().rposition(|&byte| byte == b'\n').map_or(0, |before| before + 1);
        if let Ok(record) = serde_json::from_slice::<Record>(&bytes[start..newline]) {
            return Ok((Some(record), newline as u64 + 1, bytes.len() as u64));
        }
        end = newline;
    }
    // Torn in its first line; anything longer was never ours.
    if bytes.len() > MAX_LINE_BYTES && bytes.iter().any(|&byte| byte != 0) {
        return Err(StoreError::NotOurs(path.to_owned()));
    }
    Ok((None, 0, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use crate::control::tests::Folder;
    use base::metrics::Severity;

    fn fill(store: &mut Store, count: u64) {
        for _ in 0..count {
            store.append(&record(store.next_sequence(), Severity::Info)).unwrap();
        }
    }

    fn numbers(store: &Store, filter: &Filter, limit: usize) -> Vec<u64> {
        store.reader().unwrap().list(filter, limit).unwrap().iter().map(|record| record.sequence).collect()
    }

    #[test]
    fn numbers_go_on_over_restarts_and_one_process_writes_at_a_time() {
        let folder = Folder::new("events-restart");
        let (mut store, found) = Store::open(&folder.0, 1 << 20).unwrap();
        assert_eq!(found, Found::default());
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "opening writes nothing");
        fill(&mut store, 3);
        assert!(matches!(Store::open(&folder.0, 1 << 20), Err(StoreError::InUse(_))));
        drop(store);
        let (mut store, found) = Store::open(&folder.0, 1 << 20).unwrap();
        assert_eq!((found.last, found.torn_bytes), (Some(record(3, Severity::Info)), 0));
        fill(&mut store, 2);
        assert_eq!(numbers(&store, &Filter::default(), 100), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(&store, &Filter::default(), 2), [4, 5], "the newest");
        assert_eq!(numbers(&store, &Filter { after: Some(1), ..Filter::default() }, 2), [2, 3], "the oldest");
        assert_eq!(numbers(&store, &Filter { array: Some("a0".into()), ..Filter::default() }, 9), [2, 4]);
    }

    #[test]
    fn a_tail_that_is_torn_anywhere_loses_only_its_own_event() {
        let folder = Folder::new("events-torn");
        let (mut store, _) = Store::open(&folder.0, 1 << 20).unwrap();
        fill(&mut store, 3);
        drop(store);
        let path = folder.0.join(NEW);
        let whole = std::fs::read(&path).unwrap();
        let second_ends = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
        let zeros = [&whole[..second_ends], &[0; 5000]].concat();
        let mut torn: Vec<Vec<u8>> = (second_ends..whole.len()).map(|cut| whole[..cut].to_vec()).collect();
        torn.push(zeros);
        torn.push([&whole[..second_ends], b"{\"sequence\":3}\n\xff\xff"].concat());
        for bytes in torn {
            std::fs::write(&path, &bytes).unwrap();
            let (mut store, found) = Store::open(&folder.0, 1 << 20).unwrap();
            assert_eq!(found.last.unwrap().sequence, 2);
            assert_eq!(found.torn_bytes, (bytes.len() - second_ends) as u64);
            assert_eq!(numbers(&store, &Filter::default(), 9), [1, 2]);
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "opening writes nothing");
            fill(&mut store, 1);
            assert_eq!(numbers(&store, &Filter::default(), 9), [1, 2, 3]);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn what_is_kept_stays_within_its_bound_and_the_newer_half_is_there() {
        let folder = Folder::new("events-bound");
        let max = 4000;
        let (mut store, _) = Store::open(&folder.0, max).unwrap();
        let line = record(100, Severity::Info).line().len() as u64;
        for count in 1..=200 {
            fill(&mut store, 1);
            let kept: u64 =
                std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
            assert!(kept <= max, "{kept} bytes after {count}");
            let there = numbers(&store, &Filter::default(), 1000);
            assert_eq!(*there.last().unwrap(), count);
            assert!(there.windows(2).all(|pair| pair[1] == pair[0] + 1), "{there:?}");
            assert!(there.len() as u64 >= count.min(max / 2 / line), "{} after {count}", there.len());
        }
        // A reader that began before a rotation sees what it began with.
        let reader = store.reader().unwrap();
        fill(&mut store, 100);
        assert_eq!(reader.list(&Filter::default(), 1000).unwrap().last().unwrap().sequence, 200);
        // The new file is missing after a rotation that was cut short.
        drop(store);
        std::fs::rename(folder.0.join(NEW), folder.0.join(OLD)).unwrap();
        let (store, found) = Store::open(&folder.0, max).unwrap();
        assert_eq!((store.next_sequence(), found.last.unwrap().sequence), (301, 300));
    }

    #[test]
    fn a_torn_end_does_not_survive_a_rotation() {
        let folder = Folder::new("events-torn-rotation");
        let (mut store, _) = Store::open(&folder.0, 1 << 20).unwrap();
        fill(&mut store, 9);
        drop(store);
        let path = folder.0.join(NEW);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"seq"].concat()).unwrap();
        // Half of this is full already: the first event rotates.
        let (mut store, _) = Store::open(&folder.0, 2 * whole.len() as u64).unwrap();
        fill(&mut store, 1);
        assert_eq!(std::fs::read(folder.0.join(OLD)).unwrap(), whole);
        assert_eq!(numbers(&store, &Filter::default(), 20), (1..=10).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_ours_is_left_alone_and_named() {
        let folder = Folder::new("events-foreign");
        std::fs::write(folder.0.join(NEW), "precious\n".repeat(10_000)).unwrap();
        let error = Store::open(&folder.0, 1 << 20).unwrap_err();
        assert!(matches!(&error, StoreError::NotOurs(path) if path.ends_with(NEW)), "{error}");
        let missing = Store::open(&folder.0.join("none"), 1 << 20).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
