//! The control side's way to the shards: one thread takes whatever they send and gives it to whoever waits for it; anybody
//! may ask. Waits are bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base::ids::ShardId;
use base::time::Span;
use engine::command::{Answer, Command, Event, Refusal, Verb};
use engine::front::{Cause, FrontMessage, Kill, Killed, Selector};
use engine::map::VolumeTables;
use engine::message::Message;
use engine::status::ShardStatus;
use runtime::{Control, Poster, SignalStack};
use thiserror::Error;

/// How long a shard may take to say how it is.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// How long a command may take. Changes write a few superblocks; a drive that hangs is given up long before.
const COMMAND_PATIENCE: Duration = Duration::from_secs(12);

/// How long the ends of killed connections may take: a command in the log completes first.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// How often the thread looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// Why a command was not carried out, or nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CommandError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The shard takes no more messages now.
    #[error("the reactors are too busy to take commands: try again")]
    Busy,
    /// No answer in time.
    #[error("no answer within {COMMAND_PATIENCE:?}: the change may still come into force, brindle status will show it")]
    Silent,
}

/// Who waits for what.
#[derive(Default)]
struct Waiting {
    statuses: Mutex<Option<SyncSender<ShardStatus>>>,
    answers: Mutex<BTreeMap<u64, SyncSender<Answer>>>,
    /// What volumes there are.
    tables: Mutex<Option<Arc<VolumeTables>>>,
    kills: Mutex<BTreeMap<u64, SyncSender<Killed>>>,
    next_ticket: AtomicU64,
    ended: AtomicBool,
}

/// The shards, as the control side sees them.
pub(crate) struct Shards {
    poster: Poster<Message>,
    waiting: Arc<Waiting>,
    /// One status at a time.
    asking: Mutex<()>,
    thread: Option<JoinHandle<()>>,
}

/// What a kill came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Connections that were chosen; others end with them.
    pub(crate) chosen: u32,
    /// Every shard has said in time that nothing of them is left.
    pub(crate) is_complete: bool,
    /// From the command to that.
    pub(crate) took: Duration,
}

/// A panic of somebody else while holding it leaves these plain values as usable as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shards {
    /// Starts the thread. `news` hears what happened, and `volumes` of other volumes than `tables` has, on that thread.
    pub(crate) fn start(
        control: Control<Message>,
        tables: VolumeTables,
        news: impl Fn(Event) + Send + 'static,
        volumes: impl Fn(&VolumeTables) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (poster, waiting) = (control.poster(), Arc::<Waiting>::default());
        *lock(&waiting.tables) = Some(Arc::new(tables));
        let for_thread = Arc::clone(&waiting);
        let thread = std::thread::Builder::new().name("mesh".to_owned());
        let thread = thread.spawn(move || take(control, &for_thread, &news, &volumes))?;
        Ok(Self { poster, waiting, asking: Mutex::new(()), thread: Some(thread) })
    }

    /// What volumes there are now.
    pub(crate) fn tables(&self) -> Arc<VolumeTables> {
        let tables = lock(&self.waiting.tables);
        Arc::clone(tables.as_ref().expect("there were some at the start"))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.poster.shards().into()
    }

    /// How the shards are. Those that do not answer in time are left out.
    pub(crate) fn statuses(&self) -> Vec<ShardStatus> {
        let _one_at_a_time = lock(&self.asking);
        let (sender, receiver) = sync_channel(2 * usize::from(self.poster.shards()));
        *lock(&self.waiting.statuses) = Some(sender);
        for shard in (0..self.poster.shards()).map(ShardId) {
            // A full queue means a busy shard: it is left out.
            let _ = self.poster.post(shard, Message::AskStatus);
        }
        let (mut answers, deadline): (Vec<ShardStatus>, _) = (Vec::new(), Instant::now() + STATUS_PATIENCE);
        while answers.len() < usize::from(self.poster.shards()) {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                // One that was late for whoever asked before counts for this one.
                Ok(status) if answers.iter().all(|said| said.shard != status.shard) => answers.push(status),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        *lock(&self.waiting.statuses) = None;
        answers.sort_by_key(|said| said.shard);
        answers
    }

    /// Has a command carried out, and waits until it is in force.
    pub(crate) fn command(&self, verb: Verb) -> Result<(), CommandError> {
        let (ticket, receiver) = self.begin(verb)?;
        let answer = receiver.recv_timeout(COMMAND_PATIENCE);
        lock(&self.waiting.answers).remove(&ticket);
        Ok(answer.map_err(|_| CommandError::Silent)?.result?)
    }

    /// Ends connections; waits until nothing of them can reach a volume any more.
    pub(crate) fn kill(&self, selector: &Selector, block: Option<Span>, cause: Cause) -> Ended {
        let begun = Instant::now();
        let ticket = self.waiting.next_ticket.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = sync_channel(usize::from(self.poster.shards()));
        lock(&self.waiting.kills).insert(ticket, sender);
        let mut unanswered = 0;
        for shard in (0..self.poster.shards()).map(ShardId) {
            unanswered += 1;
            let kill = Kill { ticket, selector: selector.clone(), block, cause };
            let mut message = Message::Front(FrontMessage::Kill(Box::new(kill)));
            // Its queue is full of other kills at the worst, and empties soon.
            while let Err(back) = self.poster.post(shard, message) {
                if begun.elapsed() > KILL_PATIENCE {
                    break;
                }
                message = back;
                std::thread::yield_now();
            }
        }
        let mut chosen = 0;
        while unanswered > 0
            && let Ok(killed) = receiver.recv_timeout(KILL_PATIENCE.saturating_sub(begun.elapsed()))
        {
            chosen += killed.connections;
            unanswered -= 1;
        }
        lock(&self.waiting.kills).remove(&ticket);
        Ended { chosen, is_complete: unanswered == 0, took: begun.elapsed() }
    }

    fn begin(&self, verb: Verb) -> Result<(u64, Receiver<Answer>), CommandError> {
        let ticket = self.waiting.next_ticket.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = sync_channel(1);
        lock(&self.waiting.answers).insert(ticket, sender);
        if self.poster.post(ShardId(0), Message::Command(Box::new(Command { ticket, verb }))).is_err() {
            lock(&self.waiting.answers).remove(&ticket);
            return Err(CommandError::Busy);
        }
        Ok((ticket, receiver))
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.waiting.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that hears the reactors ended by a panic");
        }
    }
}

fn take(mut control: Control<Message>, waiting: &Waiting, news: &impl Fn(Event), volumes: &impl Fn(&VolumeTables)) {
    let _signals = SignalStack::new();
    while !waiting.ended.load(Ordering::Acquire) {
        let Some((_, message)) = control.receive(LOOK) else { continue };
        // Whoever waited may have given up meanwhile, or have more than was asked for.
        match message {
            Message::Status(status) => {
                if let Some(asked) = &*lock(&waiting.statuses) {
                    let _ = asked.try_send(*status);
                }
            }
            Message::Answer(answer) => {
                if let Some(asked) = lock(&waiting.answers).remove(&answer.ticket) {
                    let _ = asked.try_send(*answer);
                }
            }
            Message::Front(FrontMessage::Killed(killed)) => {
                if let Some(asked) = lock(&waiting.kills).get(&killed.ticket) {
                    let _ = asked.try_send(*killed);
                }
            }
            Message::Event(event) => news(*event),
            Message::Volumes(tables) => {
                volumes(&tables);
                *lock(&waiting.tables) = Some(tables);
            }
            other => tracing::error!("the reactors say something that is not for the control side: {other:?}"),
        }
    }
}
