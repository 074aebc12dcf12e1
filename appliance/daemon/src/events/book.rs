//! The queue in front of the history's files. Telling an event takes a lock for a moment and waits for no device; one thread
//! writes what was told, in order. When more is told than the queue holds, what is lost is counted, and the count is an event.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use base::metrics::Metrics;
use serde_json::Value;

use super::store::{Found, Store};
use super::{Filter, Record, Severity, Told, clock};

/// Events that wait to be written.
const MAX_WAITING: usize = 1024;

/// How many events of one name that those outside can cause are kept in a [`WINDOW`].
const RATION: u32 = 60;

/// The time of a ration.
const WINDOW: Duration = Duration::from_secs(60);

/// How often the thread looks whether a ration has run out.
const LOOK: Duration = Duration::from_secs(1);

/// The name of the event that counts those that are lost.
const LOST: &str = "events.lost";

/// Longest wait for an event.
pub const MAX_WAIT: Duration = Duration::from_secs(5);

/// Most events of one answer.
pub const MAX_LISTED: usize = 10_000;
/// How many events an answer holds unless said otherwise.
pub const LISTED: usize = 100;

/// A ration of one name's events.
#[derive(Clone, Copy, Debug)]
struct Ration {
    begun: Instant,
    count: u32,
    /// Events beyond it.
    left_out: u64,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(SystemTime, Told)>,
    /// Told and not kept, since that was last said.
    lost: u64,
    rations: BTreeMap<&'static str, Ration>,
    /// Events that were put into the queue, and of those that are out of it and in the files, or lost.
    queued: u64,
    settled: u64,
    /// The last event that was written.
    written: u64,
    /// The files took the last ones badly.
    failing: bool,
    ended: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was told, or it ends.
    told: Condvar,
    /// Something was written, or it ends.
    wrote: Condvar,
    store: Mutex<Option<Store>>,
    metrics: Arc<Metrics>,
}

/// A panic of somebody else while holding it leaves these plain values as usable as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where events are told and read. Clones are the same history.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

/// The thread that writes. When it is dropped, everything that was told is written, durably.
#[derive(Debug)]
pub struct Book {
    events: Events,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    /// A history that keeps what it is told in memory until it is given a store.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let (state, told, wrote) = (Mutex::default(), Condvar::new(), Condvar::new());
        Self(Arc::new(Shared { state, told, wrote, store: Mutex::default(), metrics }))
    }

    /// Tells an event. It never waits.
    pub fn tell(&self, told: Told) {
        if told.logged {
            told.log();
        }
        let mut state = lock(&self.0.state);
        if told.rationed && !state.is_within_ration(told.name, Instant::now()) {
            return;
        }
        self.push(&mut state, told);
    }

    /// Waits until what was told so far is durable, as far as it matters: who answers for it calls this before it does. A
    /// disk that hangs is not waited for.
    pub fn settle(&self) {
        let deadline = Instant::now() + MAX_WAIT;
        let mut state = lock(&self.0.state);
        let queued = state.queued;
        while state.settled < queued && !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.0.wrote.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn push(&self, state: &mut State, told: Told) {
        // Under the lock: one writer at a time.
        self.0.metrics.events()[told.severity as usize].increment();
        if state.waiting.len() < MAX_WAITING {
            state.waiting.push_back((SystemTime::now(), told));
            state.queued += 1;
            self.0.told.notify_one();
        } else {
            state.lost += 1;
        }
    }

    /// Begins to write: first of all what was told until now. Without a store it is only counted.
    pub fn write(&self, store: Option<Store>) -> std::io::Result<Book> {
        lock(&self.0.state).written = store.as_ref().map_or(0, |store| store.next_sequence() - 1);
        *lock(&self.0.store) = store;
        let events = self.clone();
        let thread = std::thread::Builder::new().name("events".to_owned()).spawn(move || events.work())?;
        Ok(Book { events: self.clone(), thread: Some(thread) })
    }

    /// The events that a filter admits, oldest first, and the number of the last one that was looked at. With `wait` the
    /// answer waits for one behind [`Filter::after`], but not for ever.
    pub fn list(&self, filter: &Filter, wait: Duration) -> Result<(Vec<Record>, u64), String> {
        if let Some(after) = filter.after {
            let deadline = Instant::now() + wait.min(MAX_WAIT);
            let mut state = lock(&self.0.state);
            while state.written <= after && !state.ended {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = self.0.wrote.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let (reader, last) = {
            let store = lock(&self.0.store);
            let store = store.as_ref().ok_or("no history is kept: give it a folder as events.path")?;
            (store.reader(), store.next_sequence() - 1)
        };
        let limit = filter.limit.unwrap_or(LISTED).clamp(1, MAX_LISTED);
        let listed = reader.and_then(|reader| reader.list(filter, limit));
        let listed = listed.map_err(|error| format!("the history cannot be read: {error}"))?;
        // One that was left out for the limit is not behind who goes on from here.
        let last = if filter.after.is_some() && listed.len() == limit { listed[limit - 1].sequence } else { last };
        Ok((listed, last))
    }

    fn work(&self) {
        loop {
            let (batch, ended) = self.next_batch();
            if batch.is_empty() && ended {
                break;
            }
            self.keep(batch);
        }
        lock(&self.0.state).ended = true;
        self.0.wrote.notify_all();
    }

    fn next_batch(&self) -> (Vec<(SystemTime, Told)>, bool) {
        let mut state = lock(&self.0.state);
        if state.waiting.is_empty() && !state.ended {
            state = self.0.told.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        let ended = state.ended;
        for left_out in state.rations_that_ran_out(Instant::now(), ended) {
            self.push(&mut state, left_out);
        }
        let lost = core::mem::take(&mut state.lost);
        if lost > 0 {
            let text =
                format!("{lost} events came faster than they could be kept, or the files took none, and are lost");
            let told = Told::new(LOST, Severity::Warning, text).with("count", lost);
            state.waiting.push_back((SystemTime::now(), told));
            state.queued += 1;
        }
        (state.waiting.drain(..).collect(), ended)
    }

    /// Writes events, and makes them durable if one of them matters.
    fn keep(&self, batch: Vec<(SystemTime, Told)>) {
        let count = batch.len() as u64;
        let mut place = lock(&self.0.store);
        let Some(store) = place.as_mut() else {
            lock(&self.0.state).settled += count;
            self.0.wrote.notify_all();
            return;
        };
        let important = batch.iter().any(|(_, told)| told.severity > Severity::Info);
        let mut failure = None;
        let mut failed = 0;
        for (time, told) in batch {
            let record = Record::of(told, store.next_sequence(), clock::text(time));
            if let Err(error) = store.append(&record) {
                failure = Some(error);
                failed +=
                    record.fields.get("count").filter(|_| record.event == LOST).and_then(Value::as_u64).unwrap_or(1);
            }
        }
        if important && let Err(error) = store.sync() {
            failure = Some(error);
        }
        let written = store.next_sequence() - 1;
        drop(place);
        let mut state = lock(&self.0.state);
        // Said once, not with every event.
        let was_failing = core::mem::replace(&mut state.failing, failure.is_some());
        if let Some(error) = failure.filter(|_| !was_failing) {
            tracing::warn!(%error, "events cannot be kept durably: is the file system full?");
        }
        state.written = written;
        state.settled += count;
        state.lost += failed;
        self.0.wrote.notify_all();
    }
}

impl State {
    fn is_within_ration(&mut self, name: &'static str, now: Instant) -> bool {
        let ration = self.rations.entry(name).or_insert(Ration { begun: now, count: 0, left_out: 0 });
        if ration.count < RATION {
            ration.count += 1;
            return true;
        }
        ration.left_out += 1;
        false
    }

    /// Ends rations whose time is over, and says what was left out of them.
    fn rations_that_ran_out(&mut self, now: Instant, all: bool) -> Vec<Told> {
        let mut left_out = Vec::new();
        self.rations.retain(|name, ration| {
            let over = all || now.duration_since(ration.begun) >= WINDOW;
            if over && ration.left_out > 0 {
                let text = format!("{} more events {name} within a minute are not kept one by one", ration.left_out);
                let told = Told::new("events.left_out", Severity::Warning, text);
                left_out.push(told.with("event", *name).with("count", ration.left_out));
            }
            !over
        });
        left_out
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        lock(&self.events.0.state).ended = true;
        self.events.0.told.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the history ended by a panic");
        }
    }
}

/// What an earlier process left behind, as events of this one. The log says more of it: how each array was recovered.
pub fn tell_found(events: &Events, found: &Found) {
    if let Some(last) = found.last.as_ref().filter(|last| last.event != "appliance.stopped") {
        let text = format!("the process before this one ended without a clean stop, after {}", last.time);
        events.tell(Told::new("appliance.died", Severity::Warning, text).with("last_event", last.sequence).unlogged());
    }
    if found.torn_bytes > 0 {
        let text = format!("{} bytes at the end of the history could not be read and are gone", found.torn_bytes);
        events.tell(Told::new("events.torn", Severity::Warning, text).with("bytes", found.torn_bytes).unlogged());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Folder;
    use base::metrics::Names;

    fn events() -> Events {
        Events::new(Arc::new(Metrics::new(Names::default(), 1)))
    }

    fn one(name: &'static str) -> Told {
        Told::new(name, Severity::Notice, "it happened").unlogged()
    }

    fn open(folder: &Folder) -> (Store, Found) {
        Store::open(&folder.0, 1 << 20).unwrap()
    }

    /// The last event as the file has it.
    fn open_again(folder: &Folder) -> String {
        let text = std::fs::read_to_string(folder.0.join("events.jsonl")).unwrap();
        serde_json::from_str::<Record>(text.lines().last().unwrap()).unwrap().event
    }

    fn listed(events: &Events) -> Vec<(String, Option<u64>)> {
        let (records, _) = events.list(&Filter { limit: Some(5000), ..Filter::default() }, Duration::ZERO).unwrap();
        let count = |record: &Record| record.fields.get("count").and_then(serde_json::Value::as_u64);
        records.iter().map(|record| (record.event.clone(), count(record))).collect()
    }

    #[test]
    fn what_was_told_before_there_was_a_store_is_written_and_followed() {
        let folder = Folder::new("events-book");
        let events = events();
        events.tell(one("test.early"));
        assert!(events.list(&Filter::default(), Duration::ZERO).unwrap_err().contains("events.path"));
        let book = events.write(Some(open(&folder).0)).unwrap();
        let behind = |after| Filter { after: Some(after), ..Filter::default() };
        let (first, last) = events.list(&behind(0), MAX_WAIT).unwrap();
        assert_eq!((first[0].event.as_str(), last), ("test.early", 1));
        let follower = std::thread::spawn({
            let events = events.clone();
            move || events.list(&behind(1), MAX_WAIT).unwrap()
        });
        events.tell(one("test.late"));
        events.settle();
        assert_eq!(open_again(&folder), "test.late", "it is in the file");
        assert_eq!(follower.join().unwrap().0[0].event, "test.late");
        drop(book);
        assert!(events.list(&behind(2), MAX_WAIT).unwrap().0.is_empty(), "nobody waits past the end");
        events.settle();
        assert_eq!(events.0.metrics.events()[Severity::Notice as usize].get(), 2);
    }

    #[test]
    fn what_is_lost_and_left_out_is_counted_and_said() {
        let folder = Folder::new("events-lost");
        let events = events();
        for _ in 0..MAX_WAITING + 7 {
            events.tell(one("test.flood"));
        }
        drop(events.write(Some(open(&folder).0)).unwrap());
        let all = listed(&events);
        assert_eq!(all.len(), MAX_WAITING + 1);
        assert_eq!(all[MAX_WAITING], ("events.lost".to_owned(), Some(7)));
        *lock(&events.0.store) = None;

        let again = self::events();
        for _ in 0..RATION + 5 {
            again.tell(one("host.refused").rationed());
        }
        again.tell(one("member.excluded"));
        drop(again.write(Some(open(&folder).0)).unwrap());
        let all = listed(&again).split_off(MAX_WAITING + 1);
        assert_eq!(all.len(), RATION as usize + 2);
        assert_eq!(all[RATION as usize].0, "member.excluded");
        assert_eq!(all[RATION as usize + 1], ("events.left_out".to_owned(), Some(5)));
    }

    #[test]
    fn a_start_says_how_the_process_before_it_ended() {
        let folder = Folder::new("events-died");
        let run = |last: &'static str| {
            let events = events();
            let (store, found) = open(&folder);
            tell_found(&events, &found);
            events.tell(one(last));
            drop(events.write(Some(store)).unwrap());
            listed(&events).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(run("appliance.stopped"), ["appliance.stopped"]);
        assert_eq!(run("appliance.started")[1..], ["appliance.started"]);
        assert_eq!(run("appliance.stopped")[2..], ["appliance.died", "appliance.stopped"]);
    }
}
